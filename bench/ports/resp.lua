-- RESP: commands of Redis, as a client writes them.
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()

local port = { name = "RESP commands" }

function port.input(random)
    local commands = {}
    for i = 1, 20 do
        local words = { "HSET", "user:" .. random(100000) }
        for k = 3, 3 + random(6) do
            words[k] = k % 2 == 1 and "field" .. k or ("v"):rep(random(40))
        end
        commands[i] = words
    end
    return commands
end

function port.plain(input)
    local out = {}
    for i = 1, #input do
        local words = input[i]
        out[#out + 1] = "*" .. #words .. "\r\n"
        for k = 1, #words do
            local word = words[k]
            out[#out + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
        end
    end
    return table.concat(out)
end

local function commands(out, input)
    for i = 1, #input do
        local words = input[i]
        out:put("*", #words, "\r\n")
        for k = 1, #words do
            local word = words[k]
            out:put("$", #word, "\r\n", word, "\r\n")
        end
    end
    return out:tostring()
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    return commands(reused:reset(), input)
end

function port.bufpool(input)
    return pool:scratch(commands, input)
end

return port
