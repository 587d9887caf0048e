-- HTTP/1: heads of requests that come one behind the other.
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()

local port = { name = "HTTP/1 parser" }

function port.input(random)
    local out = {}
    for _ = 1, 10 do
        out[#out + 1] = "GET /" .. random(1e6) .. " HTTP/1.1\r\n"
        for k = 1, 4 + random(8) do
            out[#out + 1] = "x-header-" .. k .. ": " .. ("v"):rep(random(60))
                .. "\r\n"
        end
        out[#out + 1] = "\r\n"
    end
    return table.concat(out)
end

-- `next_line` returns the next line of x from a position on, and where the line
-- after it begins.
local function requests(x, next_line)
    local list, from = {}, 1
    while from <= #x do
        local line
        line, from = next_line(x, from)
        local method, path = line:match "^(%u+) (%S+) HTTP/1%.1$"
        local request = { method = method, path = path }
        line, from = next_line(x, from)
        while line ~= "" do
            local colon = line:find(":", 1, true)
            request[line:sub(1, colon - 1)] = line:sub(colon + 2)
            line, from = next_line(x, from)
        end
        list[#list + 1] = request
    end
    return list
end

local function next_line(x, from)
    local first, last = x:find("\r\n", from, true)
    return x:sub(from, first - 1), last + 1
end

function port.plain(input)
    return requests(input, next_line)
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    return requests(reused:set(input):tostring(), next_line)
end

local function read(from, input)
    return requests(from:put(input), next_line)
end

function port.bufpool(input)
    return pool:scratch(read, input)
end

return port
