-- The handlers that bench/openresty.lua compares, by row and contender. Each
-- answers a request as a handler of its kind would be written.
local bufpool = require "bufpool"
local output = require "bufpool.ngx"
local ffi = require "ffi"
local buffer = require "string.buffer"

ffi.cdef [[
unsigned char *SHA256(const unsigned char *, size_t, unsigned char *);
]]

local crypto = ffi.load "libcrypto.so.3"
local digest = ffi.new "unsigned char[32]"
local run_worker_thread = ngx.run_worker_thread -- luacheck: ignore 143
local concat, print = table.concat, ngx.print
local pool = bufpool.default()
local MIB = 1048576

local function hex(at, n)
    crypto.SHA256(at, n, digest)
    return (ffi.string(digest, 32):gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

-- `count` pieces that are `total` bytes together. The first one is new in each
-- response, or LuaJIT would find the string of the last response again. The
-- others exist already: what is compared is what becomes of them.
local function assemblers(count, total)
    local strings, kept, list, responses = {}, buffer.new(), {}, 0
    for k = 0, 63 do
        strings[k] = ("%02d"):format(k):rep(math.floor(total / count / 2))
    end
    local function first()
        responses = responses + 1
        return ("%-99d"):format(responses)
    end
    local function fill(out)
        out:put(first())
        for i = 2, count do
            out:put(strings[i % 64])
        end
        return out
    end
    local function fill_table(t)
        t[1] = first()
        for i = 2, count do
            t[i] = strings[i % 64]
        end
        return t
    end
    return {
        ["bufpool"] = function()
            local frozen = fill(pool:writer(total)):freeze()
            output.print(frozen)
            frozen:release()
        end,
        ["bufpool, as a string"] = function()
            local out = fill(pool:writer(total))
            print(out:tostring())
            out:release()
        end,
        ["ngx.print(table)"] = function()
            print(fill_table {})
        end,
        ["ngx.print(table), reused"] = function()
            print(fill_table(list))
        end,
        ["table.concat"] = function()
            print(concat(fill_table {}))
        end,
        ["string.buffer"] = function()
            print(fill(buffer.new(total)):get())
        end,
        ["string.buffer, reused"] = function()
            print(fill(kept:reset()):tostring())
        end,
    }
end

-- Pages of 20 lines, each of which no other page has.
local pages = 0

local function put_lines(out)
    pages = pages + 1
    for i = 1, 20 do
        out:put("line ", i, " of page ", pages, "\n")
    end
    return out
end

local function page_in_scope()
    local scope = assert(output.scope(pool))
    output.print(put_lines(assert(scope:writer(1000))))
end

local function page_of_strings()
    local t = {}
    pages = pages + 1
    for i = 1, 20 do
        t[i] = "line " .. i .. " of page " .. pages .. "\n"
    end
    print(concat(t))
end

local whole = ("0123456789abcdef"):rep(MIB / 16)
local frozen = pool:writer(MIB):put(whole):freeze()

-- Tickets of buffers that no request has just now.
local tickets = {}

local function thread_by_ticket()
    local buf = #tickets > 0 and assert(bufpool.adopt(table.remove(tickets)))
        or assert(pool:writer(MIB)):put(whole)
    local ok, ticket = run_worker_thread("bench", "openresty_thread",
        "ticket", buf:detach())
    assert(ok, ticket)
    buf = assert(bufpool.adopt(ticket))
    ngx.say(#buf)
    tickets[#tickets + 1] = buf:detach()
end

local function thread_by_string()
    local ok, text = run_worker_thread("bench", "openresty_thread",
        "string", whole)
    assert(ok, text)
    ngx.say(#text)
end

local function body()
    ngx.req.read_body()
    local name = ngx.req.get_body_file()
    if not name then
        return ngx.req.get_body_data()
    end
    local file = assert(io.open(name, "rb"))
    local text = file:read "*a"
    file:close()
    return text
end

local function digest_of_string()
    local text = body()
    ngx.say(hex(text, #text))
end

local function digest_of_buffer()
    local buf = assert(output.read_body(pool))
    ngx.say(hex(buf:ref()))
    buf:release()
end

-- A log line would have the body's last byte.
local captures = {}

local digits = {}
for i = 1, MIB / 8 do
    digits[i] = ("%08d"):format(i * 7919 % 100000000)
end
digits = concat(digits)

-- A response of `size` bytes that begins elsewhere each time, so that LuaJIT
-- finds no part of it among the strings of the last one.
local answers = 0
function captures.answer(size)
    answers = answers % 4099 + 1
    print(digits:sub(-answers), digits:sub(1, size - answers))
end

function captures.begin()
    assert(output.capture { pool = pool })
end

function captures.keep()
    local buf, problem = output.captured()
    captures.last = not problem and buf:byte(-1)
end

function captures.collect()
    local ctx = ngx.ctx
    local parts = ctx.parts
    if not parts then
        parts = {}
        ctx.parts = parts
    end
    parts[#parts + 1] = ngx.arg[1]
end

local ADDED = "<!-- and more -->"

local function add(response)
    response:put(ADDED)
end

function captures.rewrite()
    assert(output.rewrite { pool = pool, fn = add })
end

captures.chunk = output.rewrite_chunk

-- The headers that rewrite takes away.
function captures.clear()
    local header = ngx.header
    header.content_length, header.accept_ranges = nil, nil
    header.last_modified, header.etag = nil, nil
end

function captures.replace()
    captures.collect()
    if ngx.arg[2] then
        ngx.arg[1] = concat(ngx.ctx.parts) .. ADDED
    else
        ngx.arg[1] = nil
    end
end

function captures.join()
    captures.last = concat(ngx.ctx.parts):byte(-1)
end

local function echo_string()
    ngx.req.read_body()
    print(ngx.req.get_body_data())
end

local function echo_buffer()
    local sent = assert(output.read_body(pool)):freeze()
    output.print(sent)
    sent:release()
end

local RELAYED = 8000000

-- The socket of a response of that many bytes, which begins elsewhere each
-- time.
local relays = 0
local function response()
    relays = relays % 4099 + 1
    local sock = ngx.socket.tcp()
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(sock:send(("GET /whole HTTP/1.1\r\nHost: x\r\nRange: bytes=%d-%d"
        .. "\r\n\r\n"):format(relays, relays + RELAYED - 1)))
    assert(sock:receiveuntil("\r\n\r\n")())
    return sock
end

local function relay_buffer()
    local sock, buf = response(), assert(pool:writer(RELAYED))
    assert(output.receive(sock, buf, RELAYED))
    sock:setkeepalive()
    local sent = buf:freeze()
    output.print(sent)
    sent:release()
end

local function relay_string()
    local sock = response()
    local text = assert(sock:receive(RELAYED))
    sock:setkeepalive()
    print(text)
end

local function relay_pieces()
    local sock, parts, left = response(), {}, RELAYED
    while left > 0 do
        local part = assert(sock:receiveany(65536))
        parts[#parts + 1], left = part, left - #part
    end
    sock:setkeepalive()
    print(concat(parts))
end

return {
    captures = captures,
    echo = { ["bufpool"] = echo_buffer, ["string"] = echo_string },
    relay = {
        ["bufpool"] = relay_buffer, ["string"] = relay_string,
        ["table.concat"] = relay_pieces,
    },
    kept = {
        ["bufpool"] = function() output.print(frozen) end,
        ["ngx.print"] = function() print(whole) end,
    },
    page = {
        ["bufpool"] = page_in_scope,
        ["table.concat"] = page_of_strings,
        ["string.buffer"] = function()
            print(put_lines(buffer.new()):get())
        end,
    },
    pieces1024 = assemblers(1024, MIB),
    pieces600 = assemblers(600, 65536),
    thread = {
        ["bufpool"] = thread_by_ticket,
        ["string"] = thread_by_string,
    },
    upload = {
        ["bufpool"] = digest_of_buffer,
        ["string"] = digest_of_string,
    },
    uploadfile = {
        ["bufpool"] = digest_of_buffer,
        ["string"] = digest_of_string,
    },
}
