-- Rows of a database protocol: a number of columns, and each with its length.
local ffi = require "ffi"
local bit = require "bit"
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()
local byte, char = string.byte, string.char

local port = { name = "database rows" }

function port.input(random)
    local out = {}
    for _ = 1, 50 do
        out[#out + 1] = char(0, 6)
        for _ = 1, 6 do
            local n = random(60) - 1
            out[#out + 1] = char(0, 0, 0, n) .. char(64 + random(60)):rep(n)
        end
    end
    return table.concat(out)
end

function port.plain(input)
    local rows, i = {}, 1
    while i <= #input do
        local high, low = byte(input, i, i + 1)
        local row = {}
        i = i + 2
        for k = 1, high * 256 + low do
            local a, b, c, d = byte(input, i, i + 3)
            local n = ((a * 256 + b) * 256 + c) * 256 + d
            row[k] = input:sub(i + 4, i + 3 + n)
            i = i + 4 + n
        end
        rows[#rows + 1] = row
    end
    return rows
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    local at, size = reused:set(input):ref()
    local rows, i = {}, 0
    while i < size do
        local row = {}
        local columns = at[i] * 256 + at[i + 1]
        i = i + 2
        for k = 1, columns do
            local n = bit.bor(bit.lshift(at[i], 24), bit.lshift(at[i + 1], 16),
                bit.lshift(at[i + 2], 8), at[i + 3])
            row[k] = ffi.string(at + i + 4, n)
            i = i + 4 + n
        end
        rows[#rows + 1] = row
    end
    return rows
end

local function read(from, input)
    from:put(input)
    local rows = {}
    while #from > 0 do
        local row = {}
        for k = 1, from:get_u16be() do
            row[k] = from:get(from:get_u32be())
        end
        rows[#rows + 1] = row
    end
    return rows
end

function port.bufpool(input)
    return pool:scratch(read, input)
end

return port
