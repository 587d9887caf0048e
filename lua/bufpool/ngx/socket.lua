-- Buffers and the cosockets of nginx's Lua module, which take and give strings
-- only. So the bytes go in pieces: at any moment one piece of them is a string.
-- Several objects go together, by a table of strings.
--
-- Each call of a socket may yield, and meanwhile another light thread may do
-- anything to the buffer. So what is there is looked at again for each piece.

require "bufpool"
local check = require "bufpool.check"
local flatten = require("bufpool.ngx.leaves").flatten
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local space = require "bufpool.space"

local format, min, pcall = string.format, math.min, pcall
local tostring, type = tostring, type
local raise, bad_argument = check.raise, check.bad_argument
local look, sub = object.look, reader.methods.sub

local PIECE = 65536
-- Bytes of one receive. For more the Lua module joins strings to longer ones,
-- and each byte is garbage twice or three times.
local RECEIVED = 8192

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
    local text = sub(x, from + 1, from + n)
    if #text < n then
        raise(format("the data of 'send' became shorter meanwhile: %.14g "
            .. "bytes, %.14g needed", (look(x, "send", 2)), from + n))
    end
    return text
end

-- Sends what is in the batch, and empties it. What the socket says, or true.
local function send_batch(sock, sock_send, batch)
    local texts = batch.texts
    local ok, message = sock_send(sock, #texts == 1 and texts[1] or texts)
    batch.texts, batch.size = {}, 0
    return ok, message
end

-- Sends n strings and objects, of which lens has the bytes. Together they go in
-- batches of about PIECE bytes, because each call of the socket is a system
-- call. A string is not divided: it is there already.
local function send_leaves(sock, sock_send, leaves, lens, n)
    local batch, sent = { texts = {}, size = 0 }, 0
    for i = 1, n do
        local x, len, from = leaves[i], lens[i], 0
        local whole = type(x) == "string"
        while from < len do
            local part = whole and len or min(len - from, PIECE - batch.size)
            batch.texts[#batch.texts + 1] = whole and x or piece(x, from, part)
            from, batch.size = from + part, batch.size + part
            if batch.size >= PIECE or i == n and from == len then
                local size = batch.size
                local ok, message = send_batch(sock, sock_send, batch)
                if not ok then
                    return nil, message, sent
                end
                sent = sent + size
            end
        end
    end
    return sent
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
    elseif type(x) ~= "table" then
        return send_leaves(sock, sock_send, { x }, { (look(x, "send", 2)) }, 1)
    end
    local leaves, lens, n = {}, {}, 0
    for i = 1, flatten(x, leaves, 0, -1, "send", 2, 0) do
        local leaf = leaves[i]
        local len = type(leaf) == "string" and #leaf or look(leaf, "send", 2)
        if len > 0 then
            n = n + 1
            leaves[n], lens[n] = leaf, len
        end
    end
    return send_leaves(sock, sock_send, leaves, lens, n)
end

-- Appends what the socket gave for n bytes that were asked for.
local function append(buf, text, n)
    if type(text) ~= "string" or #text > n then
        raise(format("the socket of 'receive' gave %s where %.14g bytes were "
            .. "asked for", type(text) == "string" and #text .. " bytes"
            or type(text), n))
    end
    object.must_be_writable(buf, "receive", 2)
    buf:put(text)
    return #text
end

local function receive(sock, buf, n)
    local sock_receive = method(sock, "receive", "receive")
    object.must_be_writable(buf, "receive", 2)
    n = check.size(n, "receive", 3)
    local got = 0
    while got < n do
        local most = min(n - got, RECEIVED)
        -- Room first: bytes that were received have to go somewhere. For many
        -- receives at once, because memory that grows may be copied.
        space.room(buf, got % PIECE == 0 and min(n - got, PIECE) or most,
            "receive")
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
