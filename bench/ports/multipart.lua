-- Multipart: a form that comes in pieces of 4 KiB, taken apart at its boundary.
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()

local port = { name = "multipart reader" }

local BOUNDARY = "\r\n--boundary7"

function port.input(random)
    local out = {}
    for i = 1, 8 do
        out[i] = BOUNDARY .. "\r\nname: field" .. i .. "\r\n\r\n"
            .. ("x\r\n-" .. i):rep(random(1500))
    end
    local text, pieces = table.concat(out) .. BOUNDARY .. "--", {}
    for i = 1, #text, 4096 do
        pieces[#pieces + 1] = text:sub(i, i + 4095)
    end
    return pieces
end

-- `x` is a string or a buffer: both have find and sub.
local function parts(x)
    local list, from = {}, #BOUNDARY + 1
    while x:sub(from, from + 1) == "\r\n" do
        local head, body = x:find("\r\n\r\n", from, true)
        local last = x:find(BOUNDARY, body, true)
        list[#list + 1] = { x:sub(from + 2, head - 1),
            x:sub(body + 1, last - 1) }
        from = last + #BOUNDARY
    end
    return list
end

function port.plain(input)
    return parts(table.concat(input))
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    reused:reset()
    for i = 1, #input do
        reused:put(input[i])
    end
    return parts(reused:tostring())
end

local function read(body, input)
    for i = 1, #input do
        body:put(input[i])
    end
    return parts(body)
end

function port.bufpool(input)
    return pool:scratch(read, input)
end

return port
