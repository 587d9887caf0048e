-- MessagePack: encodes nested arrays of numbers and strings, and decodes them.
local bit = require "bit"
local ffi = require "ffi"
local have, string_buffer = pcall(require, "string.buffer")
local pool = require("bufpool").default()
local band, rshift, char, byte = bit.band, bit.rshift, string.char, string.byte

local port = { name = "MessagePack" }

function port.input(random)
    local list = {}
    for i = 1, 50 do
        list[i] = { random(100), random(60000), ("k"):rep(random(30)),
            { random(9), ("v"):rep(random(200)) } }
    end
    return list
end

local function encode_plain(out, v)
    if type(v) == "table" then
        out[#out + 1] = char(0xdc, rshift(#v, 8), band(#v, 255))
        for i = 1, #v do
            encode_plain(out, v[i])
        end
    elseif type(v) == "string" then
        out[#out + 1] = char(0xda, rshift(#v, 8), band(#v, 255))
        out[#out + 1] = v
    else
        out[#out + 1] = v < 128 and char(v)
            or char(0xcd, rshift(v, 8), band(v, 255))
    end
end

local function decode_plain(text, i)
    local tag, high, low = byte(text, i, i + 2)
    if tag < 128 then
        return tag, i + 1
    end
    local n = high * 256 + low
    if tag == 0xcd then
        return n, i + 3
    elseif tag == 0xda then
        return text:sub(i + 3, i + 2 + n), i + 3 + n
    end
    local list = {}
    i = i + 3
    for k = 1, n do
        list[k], i = decode_plain(text, i)
    end
    return list, i
end

function port.plain(input)
    local out = {}
    encode_plain(out, input)
    local text = table.concat(out)
    return text, (decode_plain(text, 1))
end

local function encode_buffer(out, v)
    if type(v) == "table" then
        out:put(char(0xdc, rshift(#v, 8), band(#v, 255)))
        for i = 1, #v do
            encode_buffer(out, v[i])
        end
    elseif type(v) == "string" then
        out:put(char(0xda, rshift(#v, 8), band(#v, 255)), v)
    else
        out:put(v < 128 and char(v) or char(0xcd, rshift(v, 8), band(v, 255)))
    end
end

local function decode_buffer(at, i)
    local tag = at[i]
    if tag < 128 then
        return tag, i + 1
    end
    local n = at[i + 1] * 256 + at[i + 2]
    if tag == 0xcd then
        return n, i + 3
    elseif tag == 0xda then
        return ffi.string(at + i + 3, n), i + 3 + n
    end
    local list = {}
    i = i + 3
    for k = 1, n do
        list[k], i = decode_buffer(at, i)
    end
    return list, i
end

local reused = have and string_buffer.new()
port.buffer = have and function(input)
    reused:reset()
    encode_buffer(reused, input)
    return reused:tostring(), (decode_buffer(reused:ref(), 0))
end

local function encode_bufpool(out, v)
    if type(v) == "table" then
        out:put_u8(0xdc):put_u16be(#v)
        for i = 1, #v do
            encode_bufpool(out, v[i])
        end
    elseif type(v) == "string" then
        out:put_u8(0xda):put_u16be(#v):put(v)
    elseif v < 128 then
        out:put_u8(v)
    else
        out:put_u8(0xcd):put_u16be(v)
    end
end

local function decode_bufpool(from)
    local tag = from:get_u8()
    if tag < 128 then
        return tag
    end
    local n = from:get_u16be()
    if tag == 0xcd then
        return n
    elseif tag == 0xda then
        return from:get(n)
    end
    local list = {}
    for k = 1, n do
        list[k] = decode_bufpool(from)
    end
    return list
end

local function both(out, input)
    encode_bufpool(out, input)
    return out:tostring(), decode_bufpool(out)
end

function port.bufpool(input)
    return pool:scratch(both, input)
end

return port
