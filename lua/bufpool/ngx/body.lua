-- Request bodies, and response bodies that pass through a filter, in buffers.

local check = require "bufpool.check"
local clock = require "bufpool.ngx.clock"
local failure = require "bufpool.failure"
local module = require("bufpool.ngx.module").functions
local object = require "bufpool.object"
local room = require("bufpool.space").room
local get_request = require("resty.core.base").get_request

local ngx = ngx
local open = io.open
local find, sub = string.find, string.sub
local min, HUGE = math.min, math.huge
local call, must_be_writable = check.call, object.must_be_writable
local error, pcall, tonumber, type = error, pcall, tonumber, type

-- ngx.req.read_body yields, which a pcall of LuaJIT lets through.
local read_body, get_body_data = ngx.req.read_body, ngx.req.get_body_data
local get_body_file = ngx.req.get_body_file

local TOO_LARGE, NO_BODY = "too large", "no body"
local TAKEN = "the body was taken by ngx.req.socket, or discarded"
local EARLY = "the file of the request body ended early"

local function length_of_header()
    return ngx.var.content_length
end

-- Bytes that the header announces; -1 when it does not.
local function announced(r)
    if module and r then
        return module.ngx_http_bufpool_body_announced(r)
    end
    return tonumber(call(length_of_header)) or -1
end

local function transfer_encoding()
    return ngx.var.http_transfer_encoding
end

-- Why there is nothing. A subrequest has its parent's headers, but a length of
-- its own. Once nginx has read a body in chunks, it has a length.
local function missing()
    local n = tonumber(call(length_of_header)) or -1
    if n > 0 or n < 0 and call(transfer_encoding) and not ngx.is_subrequest then
        return TAKEN
    end
    return NO_BODY
end

-- A buffer filled by `read`, or nil and a message. What stands for a pool may
-- be any table with a writer, so what comes from there is looked at.
local function filled(pool, n, read)
    local buf, message = pool:writer(n)
    if not buf then
        return nil, message
    elseif not object.is_writable(buf) then
        object.reject(pool, "read_body", "pool", 1)
    end
    message = read(buf)
    if message then
        buf:release()
        return nil, message
    end
    return buf
end

-- Copies the body from where nginx has it.
local function from_module(pool, max, r)
    local n = module.ngx_http_bufpool_body_size(r)
    if n > max then
        return nil, TOO_LARGE
    elseif n == 0 then
        return nil, missing()
    end
    return filled(pool, n, function(buf)
        local got = module.ngx_http_bufpool_body_read(r, (buf:reserve(n)), n)
        if got < 0 then
            return failure.message(-got)
        end
        buf:commit(got)
    end)
end

local function from_file(pool, max, name)
    local file, message = open(name, "rb")
    if not file then
        return nil, message
    end
    local n = file:seek "end"
    file:seek "set"
    local buf
    if n > max then
        message = TOO_LARGE
    elseif n == 0 then
        message = NO_BODY
    else
        buf, message = filled(pool, n, function(to)
            while #to < n do
                local got, err = to:readfrom(file, n - #to)
                if not got or got == 0 then
                    return err or EARLY
                end
            end
        end)
    end
    file:close()
    return buf, message
end

local function from_string(pool, max, body)
    if not body or body == "" then
        return nil, missing()
    elseif #body > max then
        return nil, TOO_LARGE
    end
    return filled(pool, #body, function(buf) buf:put(body) end)
end

local ngx_body = {}

-- Has nginx read the body. Returns why it cannot, if it is the request's fault.
local function have_read()
    local ok, message = pcall(read_body)
    if not ok then
        message = check.without_position(message)
        if find(message, "request object", 1, true)
            or find(message, "API disabled", 1, true) then
            check.raise(message)
        end
        return message
    end
end

function ngx_body.read_body(pool, max)
    if object.type(pool) ~= "pool"
        and not (type(pool) == "table" and pool.writer) then
        object.reject(pool, "read_body", "pool", 1)
    end
    max = check.absent(max) and HUGE or check.size(max, "read_body", 2)
    if not clock.started then
        clock.start()
    end
    local r = get_request()
    if announced(r) > max then
        return nil, TOO_LARGE
    end
    local message = have_read()
    if message then
        return nil, message
    end
    if module and r then
        return from_module(pool, max, r)
    end
    local name = call(get_body_file)
    if name then
        return from_file(pool, max, name)
    end
    return from_string(pool, max, call(get_body_data))
end

-- Empties the buffer for the next piece. Room first: bytes that were received
-- have to go somewhere.
local function make_ready(buf, n)
    must_be_writable(buf, "body_pieces", 1)
    room(buf:reset(), n, "body_pieces")
end

-- Each of these calls fn with the buffer for each piece, and returns how many
-- bytes there were; or nil, a message, and how many of them fn has got.

local function pieces_of_socket(sock, buf, n, fn)
    local done, all = 0, announced(get_request())
    while done < all do
        local most = min(n, all - done)
        make_ready(buf, most)
        local text, message = sock:receiveany(most)
        if not text then
            return nil, message, done
        end
        must_be_writable(buf, "body_pieces", 1)
        buf:put(text)
        done = done + #text
        fn(buf)
    end
    return done
end

-- All of the body has been read, unless `done` is nil, so the connection may be
-- kept. Not where the head of the response has said meanwhile that it closes.
local function read_to_end(kept, headers_sent, done, ...)
    if done and ngx.headers_sent == headers_sent then
        module.ngx_http_bufpool_keep(get_request(), kept)
    end
    return done, ...
end

-- nginx would take what is not read of a body for the client's next request.
-- So until all is read, the connection closes after the response, however this
-- call ends: by an error, by ngx.exit, or by the end of its light thread.
local function closing_unless_read(sock, buf, n, fn)
    local kept = module.ngx_http_bufpool_keep(get_request(), 0)
    return read_to_end(kept, ngx.headers_sent,
        pieces_of_socket(sock, buf, n, fn))
end

local function pieces_of_file(file, buf, n, fn)
    local done, all = 0, file:seek "end"
    file:seek "set"
    while done < all do
        make_ready(buf, min(n, all - done))
        local got, message = buf:readfrom(file, min(n, all - done))
        if not got or got == 0 then
            return nil, message or EARLY, done
        end
        done = done + got
        fn(buf)
    end
    return done
end

local function pieces_of_string(body, buf, n, fn)
    for from = 1, #body, n do
        make_ready(buf, min(n, #body - from + 1))
        buf:put(sub(body, from, from + n - 1))
        fn(buf)
    end
    return #body
end

-- Closes the file at once, whether fn raises or not.
local function closed(file, ok, ...)
    file:close()
    if not ok then
        error((...), 0)
    end
    return ...
end

local function pieces_of_nginx(buf, n, fn)
    local message = have_read()
    if message then
        return nil, message, 0
    end
    local name = call(get_body_file)
    if name then
        local file, why = open(name, "rb")
        if not file then
            return nil, why, 0
        end
        return closed(file, pcall(pieces_of_file, file, buf, n, fn))
    end
    local body = call(get_body_data)
    message = (not body or body == "") and missing()
    if message == TAKEN then
        return nil, message, 0
    end
    return pieces_of_string(body or "", buf, n, fn)
end

-- The Lua module has a socket for bodies of a length that the header tells,
-- over HTTP/1. nginx reads the others, and those that are read already.
function ngx_body.body_pieces(buf, n, fn)
    must_be_writable(buf, "body_pieces", 1)
    n = check.size(n, "body_pieces", 2)
    if n == 0 then
        check.bad_argument(2, "body_pieces", "at least 1 expected, got 0")
    end
    check.callable(fn, "body_pieces", 3)
    local ok, sock = pcall(ngx.req.socket)
    if ok and sock then
        return (module and closing_unless_read or pieces_of_socket)(sock, buf,
            n, fn)
    end
    return pieces_of_nginx(buf, n, fn)
end

local function chunk()
    return ngx.arg[1], ngx.arg[2]
end

function ngx_body.body_filter(buf)
    must_be_writable(buf, "body_filter", 1)
    local text, last = call(chunk)
    if text and text ~= "" then
        buf:put(text)
    end
    return last
end

return ngx_body
