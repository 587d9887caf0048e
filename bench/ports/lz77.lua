-- LZ77: unpacks tokens. A byte c below 128 stands before c + 1 literal bytes.
-- Any other stands for c - 125 bytes from a distance, which follows in two
-- bytes; the copy may overlap its source.
local ffi = require "ffi"
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()
local char, byte = string.char, string.byte

local port = { name = "LZ77 inflate" }

function port.input(random)
    local out, size = {}, 0
    for i = 1, 300 do
        if size < 200 or random(3) == 1 then
            local n = random(40)
            out[i] = char(n - 1) .. char(64 + random(60)):rep(n)
            size = size + n
        else
            local n, distance = 2 + random(100), random(math.min(size, 9000))
            out[i] = char(n + 125, math.floor(distance / 256), distance % 256)
            size = size + n
        end
    end
    return table.concat(out)
end

function port.plain(input)
    local out, size, i = {}, 0, 1
    while i <= #input do
        local c, high, low = byte(input, i, i + 2)
        if c < 128 then
            for k = 1, c + 1 do
                out[size + k] = char(byte(input, i + k))
            end
            size, i = size + c + 1, i + c + 2
        else
            local distance = high * 256 + low
            for k = size + 1, size + c - 125 do
                out[k] = out[k - distance]
            end
            size, i = size + c - 125, i + 3
        end
    end
    return table.concat(out)
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    local i = 1
    reused:reset()
    while i <= #input do
        local c, high, low = byte(input, i, i + 2)
        if c < 128 then
            local at = reused:reserve(c + 1)
            ffi.copy(at, ffi.cast("const char *", input) + i, c + 1)
            reused:commit(c + 1)
            i = i + c + 2
        else
            local at, distance = reused:reserve(c - 125), high * 256 + low
            for k = 0, c - 126 do
                at[k] = at[k - distance]
            end
            reused:commit(c - 125)
            i = i + 3
        end
    end
    return reused:tostring()
end

local function inflate(out, input)
    local i = 1
    while i <= #input do
        local c, high, low = byte(input, i, i + 2)
        if c < 128 then
            out:put_range(input, i + 1, i + c + 1)
            i = i + c + 2
        else
            local from = #out + 1 - (high * 256 + low)
            out:put_range(out, from, from + c - 126)
            i = i + 3
        end
    end
    return out:tostring()
end

function port.bufpool(input)
    return pool:scratch(inflate, input)
end

return port
