-- Buffers and the cosockets of nginx's Lua module, which take and give strings
-- only. So the bytes go in pieces: at any moment one piece of them is a string.
--
-- Each call of a socket may yield, and meanwhile another light thread may do
-- anything to the buffer. So what is there is looked at again for each piece.

local ffi = require "ffi"
require "bufpool"
local check = require "bufpool.check"
local object = require "bufpool.object"
local space = require "bufpool.space"

local ffi_string = ffi.string
local format, min, pcall = string.format, math.min, pcall
local tostring, type = tostring, type
local raise, bad_argument = check.raise, check.bad_argument
local look, view = object.look, object.view

local PIECE = 65536

local function field(x, key)
    return x[key]
end

-- A socket is a table, or anything else with that method.
local function method(sock, key, name)
    local ok, fn = pcall(field, sock, key)
    if type(sock) == "string" or not ok or type(fn) ~= "function" then
        bad_argument(1, name, format("socket with a method '%s' expected, got "
            .. "%s", key, object.type(sock) or type(sock)))
    end
    return fn
end

-- n bytes of x from `from` on, as a string.
local function piece(x, from, n)
    local at, len, o, epoch = view(x, "send", 2)
    if from + n > len then
        raise(format("the data of 'send' became shorter meanwhile: %.14g "
            .. "bytes, %.14g needed", len, from + n))
    end
    at = at + from
    local read = ffi_string
    if o.epoch ~= epoch then
        return piece(x, from, n)
    end
    local text = read(at, n)
    if o.epoch ~= epoch then
        return piece(x, from, n)
    end
    return text
end

local function send(sock, x)
    local sock_send = method(sock, "send", "send")
    if type(x) == "number" then
        x = tostring(x)
    end
    if type(x) == "string" then
        local ok, message = sock_send(sock, x)
        if not ok then
            return nil, message, 0
        end
        return #x
    end
    local len = look(x, "send", 2)
    local sent = 0
    while sent < len do
        local n = min(len - sent, PIECE)
        local ok, message = sock_send(sock, piece(x, sent, n))
        if not ok then
            return nil, message, sent
        end
        sent = sent + n
    end
    return sent
end

local function must_be_writable(buf)
    if not object.is_writable(buf) then
        object.reject(buf, "receive", "buffer", 2)
    end
end

-- Appends what the socket gave for n bytes that were asked for.
local function append(buf, text, n)
    if type(text) ~= "string" or #text > n then
        raise(format("the socket of 'receive' gave %s where %.14g bytes were "
            .. "asked for", type(text) == "string" and #text .. " bytes"
            or type(text), n))
    end
    must_be_writable(buf)
    buf:put(text)
    return #text
end

local function receive(sock, buf, n)
    local sock_receive = method(sock, "receive", "receive")
    must_be_writable(buf)
    n = check.size(n, "receive", 3)
    local got = 0
    while got < n do
        local most = min(n - got, PIECE)
        -- Room first: bytes that were received have to go somewhere.
        space.room(buf, most, "receive")
        local text, message, partial = sock_receive(sock, most)
        if not text then
            return nil, message, got + append(buf, partial or "", most)
        end
        if text == "" then
            raise "the socket of 'receive' gave no bytes and no error"
        end
        got = got + append(buf, text, most)
    end
    return got
end

return { send = send, receive = receive }
