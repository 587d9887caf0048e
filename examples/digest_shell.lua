-- The regular files below a directory, for examples/digest.lua.
local progress = require "digest_progress"

local find = {}

-- Why something is not digested: keys of `skipped`. The last is for digest.lua.
find.REASONS = {
    "unreadable", "links", "special", "elsewhere", "kernel", "changed",
}

-- As one word of the shell.
function find.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Says so when there is nothing of this name, and returns false.
function find.exists(name)
    local pipe = assert(io.popen("exec find -H " .. find.quote(name)
        .. " -maxdepth 0 -printf y", "r"))
    local answer = pipe:read "*a"
    pipe:close()
    return answer == "y"
end

-- File systems whose files the kernel makes up as they are read. Some never
-- end, some make the reader wait.
local KERNEL = {}
for name in ([[autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts
    efivarfs fusectl mqueue nsfs proc pstore rpc_pipefs securityfs selinuxfs
    sysfs tracefs]]):gmatch "%S+" do
    KERNEL[name] = true
end

-- Calls fn(kind, size, links, device, inode, type, name) for `dir` and
-- everything below it on its file system. kind is find's: "f" a regular file,
-- "d" a directory, "l" a symbolic link; and "u" a directory that cannot be
-- read or searched. Lua cannot list a directory; find can, and a NUL ends each
-- name, which may hold any other byte.
local function walk(dir, fn)
    local form = " %s %n %D %i %F %p\\0'"
    local pipe = assert(io.popen("exec find -H " .. find.quote(dir) .. " -xdev"
        .. " -type d '(' ! -readable -o ! -executable ')' -printf 'u" .. form
        .. " -o -printf '%y" .. form, "r"))
    local rest = ""
    for piece in function() return pipe:read(4096) end do
        local at = 1
        rest = rest .. piece
        for kind, size, links, device, inode, type, name, after in rest:gmatch
            "(%a) (%d+) (%d+) (%d+) (%d+) (%S+) ([^%z]*)%z()" do
            fn(kind, tonumber(size), tonumber(links), device, inode, type, name)
            at = after
        end
        rest = rest:sub(at)
    end
    pipe:close()
end

-- Lists the regular files below `dir` as { name, size, linked }, where linked
-- says that this is a further name of a file in the list. What is not listed is
-- counted in `skipped`, by reason. Returns the sum of all sizes, too.
function find.list(dir, skipped)
    local files, seen = {}, {}
    local home              -- the device of `dir`
    local phase = progress.phase "find"
    walk(dir, function(kind, size, links, device, inode, type, name)
        home = home or device
        local reason = device ~= home and "elsewhere"
            or kind == "u" and "unreadable"
            or kind == "l" and "links"
            or kind == "f" and KERNEL[type] and "kernel"
            or kind ~= "f" and kind ~= "d" and "special"
        if reason then
            skipped[reason] = skipped[reason] + 1
            if kind == "u" then
                progress.complain(name, "cannot be read or searched")
            end
        elseif kind == "f" then
            files[#files + 1] = {
                name = name, size = size, linked = links > 1 and seen[inode],
            }
            if links > 1 then
                seen[inode] = true
            end
            phase:advance(1, size)
        end
    end)
    phase:finish()
    return files, phase.bytes
end

return find
