-- Websocket: a frame of a client, whose payload is masked.
local bit = require "bit"
local ffi = require "ffi"
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()
local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local char, byte = string.char, string.byte

local port = { name = "websocket frame" }

function port.input(random)
    local text = {}
    for i = 1, 2000 + random(4000) do
        text[i] = char(random(256) - 1)
    end
    return { payload = table.concat(text), key = random(2^31) }
end

local function head(n, key)
    return char(0x82, 0xfe, rshift(n, 8), band(n, 255), rshift(key, 24),
        band(rshift(key, 16), 255), band(rshift(key, 8), 255), band(key, 255))
end

function port.plain(input)
    local payload, key = input.payload, input.key
    local out = { head(#payload, key) }
    for i = 1, #payload do
        local shift = 24 - 8 * band(i - 1, 3)
        out[i + 1] = char(bxor(byte(payload, i), band(rshift(key, shift), 255)))
    end
    return table.concat(out)
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    local payload, key = input.payload, input.key
    reused:reset():put(head(#payload, key))
    local n = #payload
    local at = reused:reserve(n)
    local words = ffi.cast("int32_t *", at)
    local mask = ffi.abi "le" and bit.bswap(key) or bit.tobit(key)
    ffi.copy(at, payload, n)
    for i = 0, (n - n % 4) / 4 - 1 do
        words[i] = bxor(words[i], mask)
    end
    for i = n - n % 4, n - 1 do
        at[i] = bxor(at[i], band(rshift(key, 24 - 8 * (i % 4)), 255))
    end
    return reused:commit(n):tostring()
end

local function frame(out, payload, key)
    local n = #payload
    out:put_u16be(0x82fe):put_u16be(n):put_u32be(key):put(payload)
    return out:xor(9, -1, out:sub(5, 8)):tostring()
end

function port.bufpool(input)
    return pool:scratch(frame, input.payload, input.key)
end

return port
