-- Kafka: a batch of messages, each with its length, behind their CRC-32.
local bit = require "bit"
local ffi = require "ffi"
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()
local band, bxor, rshift, bnot = bit.band, bit.bxor, bit.rshift, bit.bnot
local char, byte = string.char, string.byte

local port = { name = "Kafka batch" }

local crc_of = ffi.new "int32_t[256]"
for i = 0, 255 do
    local c = i
    for _ = 1, 8 do
        c = bxor(rshift(c, 1), band(c, 1) * bit.tobit(0xedb88320))
    end
    crc_of[i] = c
end

function port.input(random)
    local messages = {}
    for i = 1, 20 do
        messages[i] = ("message %d "):format(i):rep(random(40))
    end
    return messages
end

local function u32be(v)
    return char(band(rshift(v, 24), 255), band(rshift(v, 16), 255),
        band(rshift(v, 8), 255), band(v, 255))
end

function port.plain(input)
    local out = {}
    for i = 1, #input do
        out[#out + 1] = u32be(#input[i])
        out[#out + 1] = input[i]
    end
    local text, crc = table.concat(out), -1
    for i = 1, #text do
        crc = bxor(crc_of[band(bxor(crc, byte(text, i)), 255)], rshift(crc, 8))
    end
    return u32be(bnot(crc)) .. text
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    reused:reset():put "\0\0\0\0"
    for i = 1, #input do
        reused:put(u32be(#input[i]), input[i])
    end
    local at, n = reused:ref()
    local crc = -1
    for i = 4, n - 1 do
        crc = bxor(crc_of[band(bxor(crc, at[i]), 255)], rshift(crc, 8))
    end
    ffi.copy(at, u32be(bnot(crc)), 4)
    return reused:tostring()
end

local function batch(out, input)
    out:put_u32be(0)
    for i = 1, #input do
        out:put_u32be(#input[i]):put(input[i])
    end
    return out:set_u32be(1, out:crc32(5)):tostring()
end

function port.bufpool(input)
    return pool:scratch(batch, input)
end

return port
