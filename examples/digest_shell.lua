-- Other programs, for examples/digest.lua.

local shell = {}

-- As one word of the shell.
function shell.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- For a loop: what the command prints, piece by piece. A NUL ends each, because
-- names of files may hold every other byte.
function shell.records(command)
    local pipe, rest = assert(io.popen("exec " .. command, "r")), ""
    return function()
        local record, after = rest:match "^([^%z]*)%z()"
        while not record do
            local more = pipe:read(4096)
            if not more then
                pipe:close()
                return nil
            end
            rest = rest .. more
            record, after = rest:match "^([^%z]*)%z()"
        end
        rest = rest:sub(after)
        return record
    end
end

return shell
