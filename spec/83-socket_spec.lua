-- Buffers through cosockets: with sockets that are tables, which can do
-- anything at any moment, and with those of a real nginx.
local bufpool = require "bufpool"
local socket = require "bufpool.ngx.socket"
local helper = require "support.helper"
local nginx = require "support.nginx"

local raises = helper.raises
local send, receive = socket.send, socket.receive
local pool = bufpool.default()
local PIECE = 65536

-- Bytes in which each position can be told.
local function numbered(n)
    local words = {}
    for i = 1, math.ceil(n / 8) do
        words[i] = ("%07d "):format(i)
    end
    return table.concat(words):sub(1, n)
end

-- A socket that keeps what is sent. before(k) runs ahead of its k-th call, and
-- what it returns is the call's result, if anything.
local function sink(before)
    local got = {}
    return {
        got = got,
        send = function(_, text)
            assert(type(text) == "string" or type(text) == "table")
            got[#got + 1] = text
            if before then
                local result = { before(#got) }
                if #result > 0 then
                    return unpack(result, 1, 2)
                end
            end
            return #text
        end,
    }
end

-- A socket that gives text, then fails with `message`.
local function source(text, message, before)
    local at, calls = 1, 0
    return {
        receive = function(_, n)
            calls = calls + 1
            if before then
                before(calls)
            end
            local part = text:sub(at, at + n - 1)
            at = at + n
            if #part < n then
                return nil, message, part
            end
            return part
        end,
    }
end

describe("send", function()
    it("sends all bytes of each kind of object, in bounded pieces", function()
        for _, n in ipairs { 0, 1, PIECE - 1, PIECE, PIECE + 1, 300001 } do
            local text = numbered(n)
            local writer, handle = pool:writer(), pool:borrow(n)
            writer:put(text)
            handle:reset():put(text)
            local frozen = pool:writer():put(text):freeze()
            for _, x in ipairs { writer, handle, frozen } do
                local sock = sink()
                assert.equal(n, send(sock, x))
                assert.equal(text, table.concat(sock.got))
                for _, part in ipairs(sock.got) do
                    assert.truthy(#part <= PIECE and #part > 0)
                end
                assert.equal(text, tostring(x))
            end
            writer:release()
            handle:release()
            frozen:release()
        end
    end)

    it("sends strings and numbers in one piece", function()
        local sock = sink()
        local text = numbered(200000)
        assert.equal(200000, send(sock, text))
        assert.equal(2, send(sock, 42))
        assert.same({ text, "42" }, sock.got)
    end)

    it("sends what is left of a buffer, and a slice", function()
        local buf = pool:writer():put(numbered(1000)):skip(100)
        local sock = sink()
        assert.equal(900, send(sock, buf))
        local slice = buf:freeze():slice(-10, -1)
        assert.equal(10, send(sock, slice))
        assert.same({ numbered(1000):sub(101), numbered(1000):sub(-10) },
            sock.got)
    end)

    it("sends a list of strings, numbers and objects in one call", function()
        local buf = pool:writer():put("buffer ")
        local frozen = pool:writer():put("a frozen one "):freeze()
        local handle = pool:borrow(0)
        handle:put("handle ")
        local sock = sink()
        assert.equal(38, send(sock, { "text ", buf, "", { frozen, 42, {} },
            handle, true, pool:writer() }))
        assert.same({ { "text ", "buffer ", "a frozen one ", "42", "handle ",
            "true" } }, sock.got)
        sock = sink()
        assert.equal(0, send(sock, {}))
        assert.equal(0, send(sock, { "", pool:writer() }))
        assert.equal(7, send(sock, { { buf } }))
        assert.same({ "buffer " }, sock.got)
        handle:release()
        buf:release()
    end)

    it("sends long lists in batches of bounded size", function()
        local bytes = numbered(300001)
        local function try(n, strings)
            local list, want, got = {}, {}, {}
            for i = 1, 12 do
                want[i] = bytes:sub(i, i + n - 1)
                list[i] = strings and i % 3 == 0 and want[i]
                    or pool:writer():put(want[i])
            end
            local sock = sink()
            assert.equal(12 * n, send(sock, list))
            for i, parts in ipairs(sock.got) do
                got[i] = type(parts) == "table" and table.concat(parts) or parts
                -- A string that was there before is not divided.
                assert.truthy(#got[i] <= PIECE + (strings and n or 0))
                assert.truthy(i == #sock.got or #got[i] >= PIECE)
            end
            assert.truthy(table.concat(got) == table.concat(want))
        end
        for _, n in ipairs { 1, 100, PIECE - 1, PIECE, PIECE + 1, 200000 } do
            try(n, true)
            try(n, false)
        end
    end)

    it("looks at all of a list before anything is sent", function()
        local dead = pool:writer()
        dead:release()
        local text = numbered(PIECE)
        local sock = sink()
        raises(function() send(sock, { text, dead }) end,
            "attempt to use a released buffer")
        raises(function() send(sock, { text, { print } }) end,
            "bad argument #2 to 'send' (function found in a table)")
        raises(function() send(sock, { text, pool }) end, "got pool")
        raises(function() send(sock, { a = text }) end, "array expected")
        local cycle = { text }
        cycle[2] = cycle
        raises(function() send(sock, cycle) end, "is there a cycle?")
        assert.equal(0, #sock.got)
    end)

    it("says how much of a list was sent", function()
        local text, buf = numbered(PIECE), pool:checkout(PIECE)
        local sock = sink(function(k)
            if k == 3 then
                return nil, "closed"
            end
        end)
        assert.same({ nil, "closed", 2 * PIECE },
            { send(sock, { text, buf, "x", buf, text }) })
        sock = sink(function() buf:release() end)
        raises(function() send(sock, { text, buf }) end,
            "attempt to use a released buffer")
    end)

    it("returns the socket's message and the bytes sent before", function()
        local buf = pool:checkout(3 * PIECE)
        local sock = sink(function(k)
            if k == 3 then
                return nil, "closed"
            end
        end)
        assert.same({ nil, "closed", 2 * PIECE }, { send(sock, buf) })
        assert.same({ nil, "timeout", 0 },
            { send(sink(function() return nil, "timeout" end), "text") })
        buf:release()
    end)

    it("raises when the data are released meanwhile", function()
        for _, kind in ipairs { "checkout", "borrow", "frozen" } do
            local x = pool[kind == "frozen" and "checkout" or kind](pool,
                2 * PIECE)
            if kind == "frozen" then
                x = x:freeze()
            end
            local sock = sink(function(k)
                if k == 1 then
                    x:release()
                    pool:borrow(2 * PIECE):fill(65):release()
                end
            end)
            raises(function() send(sock, x) end, "attempt to use a released")
            assert.equal(1, #sock.got)
        end
    end)

    it("raises when another has the descriptor of a handle", function()
        local h = pool:borrow(2 * PIECE)
        local other
        local sock = sink(function()
            h:release()
            other = pool:borrow(2 * PIECE):fill(65)
        end)
        raises(function() send(sock, h) end, "attempt to use a released")
        assert.equal(nil, sock.got[2])
        other:release()
    end)

    it("raises when the data become shorter meanwhile", function()
        local buf = pool:checkout(3 * PIECE)
        local sock = sink(function() buf:resize(PIECE + 5) end)
        raises(function() send(sock, buf) end, "became shorter", "65541 bytes",
            "131072 needed")
        buf:release()
    end)

    it("sends the length at the call when the data grow or move", function()
        local buf = pool:writer():put(numbered(2 * PIECE))
        local sock = sink(function() buf:put(numbered(1000000)) end)
        assert.equal(2 * PIECE, send(sock, buf))
        assert.equal(numbered(2 * PIECE), table.concat(sock.got))
        buf:release()
    end)

    it("raises misuse", function()
        local sock = sink()
        for _, x in ipairs { true, print, pool, newproxy() } do
            raises(function() send(sock, x) end, "bad argument #2 to 'send'",
                "expected, got ")
        end
        raises(function() send(sock) end, "bad argument #2", "got nil")
        for _, no in ipairs { 1, "text", {}, print, pool, true } do
            raises(function() send(no, "x") end, "bad argument #1 to 'send'",
                "socket with a method 'send' expected, got ")
        end
        raises(function() send() end, "got nil")
        local dead = pool:checkout(1)
        dead:release()
        raises(function() send(sock, dead) end,
            "attempt to use a released buffer")
        assert.equal(0, #sock.got)
    end)

    it("passes errors of the socket", function()
        local e = {}
        local ok, got = pcall(send, { send = function() error(e) end }, "x")
        assert.equal(false, ok)
        assert.equal(e, got)
    end)
end)

describe("receive", function()
    it("appends n bytes to each kind of buffer", function()
        for _, n in ipairs { 0, 1, PIECE, PIECE + 1, 300001 } do
            local text = numbered(n)
            for _, buf in ipairs { pool:writer(), pool:borrow(0) } do
                buf:put("before")
                assert.equal(n, receive(source(text, "closed"), buf, n))
                assert.equal("before" .. text, tostring(buf))
                buf:release()
            end
        end
    end)

    it("takes n as C gives it, and asks for nothing when it is 0", function()
        local buf = pool:writer()
        assert.equal(3, receive(source("abcdef"), buf, 3ULL))
        assert.equal(0, receive({ receive = error }, buf, 0))
        assert.equal("abc", tostring(buf))
        buf:release()
    end)

    it("keeps what came before an end or a timeout, and counts it", function()
        for _, n in ipairs { 0, 5, PIECE, PIECE + 5 } do
            local buf = pool:writer()
            assert.same({ nil, "timeout", n },
                { receive(source(numbered(n), "timeout"), buf, 10 * PIECE) })
            assert.equal(numbered(n), tostring(buf))
            buf:release()
        end
        local buf = pool:writer()
        local mute = { receive = function() return nil, "closed" end }
        assert.same({ nil, "closed", 0 }, { receive(mute, buf, 9) })
        -- What was announced takes no memory before it comes.
        assert.same({ nil, "closed", 0 }, { receive(mute, buf, 2 ^ 25) })
        assert.truthy(buf:capacity() <= 2 * PIECE)
        buf:release()
    end)

    it("raises when the buffer is released, frozen or replaced meanwhile",
        function()
            for _, how in ipairs { "release", "freeze" } do
                for _, take in ipairs { "checkout", "borrow" } do
                    local buf = pool[take](pool, 10)
                    local other
                    local sock = source(numbered(PIECE), "closed", function()
                        buf[how](buf)
                        other = pool:borrow(10)
                    end)
                    raises(function() receive(sock, buf, 100) end,
                        "attempt to use a ")
                    assert.equal(("\0"):rep(10), tostring(other))
                    other:release()
                end
            end
        end)

    it("appends behind what another appended meanwhile", function()
        local buf = pool:writer()
        local sock = source(numbered(100), "closed", function()
            buf:put(("x"):rep(100000))
        end)
        assert.equal(100, receive(sock, buf, 100))
        assert.equal(("x"):rep(100000) .. numbered(100), tostring(buf))
        buf:release()
    end)

    it("raises before it asks the socket when there is no room", function()
        local small = bufpool.new { classes = { { size = 4096 } },
            max_bytes = 8192 }
        local buf = small:writer()
        local called = false
        raises(function()
            receive({ receive = function() called = true end }, buf, 2 ^ 40)
        end, "cannot grow in 'receive'", "max_bytes")
        assert.equal(false, called)
        assert.equal(0, #buf)
        buf:release()
        small:close()
    end)

    it("raises when the socket gives what was not asked for", function()
        local buf = pool:writer()
        for _, give in ipairs { "12345", "", 5, true } do
            raises(function()
                receive({ receive = function() return give end }, buf, 4)
            end, "the socket of 'receive' gave ")
        end
        assert.equal(0, #buf)
        buf:release()
    end)

    it("raises misuse", function()
        local buf = pool:writer()
        local sock = source("abc", "closed")
        local frozen = pool:checkout(1):freeze()
        for _, x in ipairs { "text", {}, pool, frozen, 1 } do
            raises(function() receive(sock, x, 1) end,
                "bad argument #2 to 'receive' (buffer expected, got ")
        end
        for _, n in ipairs { -1, 1.5, "3", {}, helper.nan, helper.inf } do
            raises(function() receive(sock, buf, n) end,
                "bad argument #3 to 'receive'")
        end
        raises(function() receive(sock, buf) end, "got nil")
        raises(function() receive({}, buf, 1) end,
            "socket with a method 'receive' expected, got table")
        buf:release()
        raises(function() receive(sock, buf, 1) end,
            "attempt to use a released buffer")
    end)
end)

-- Frames: four bytes of length and as many bytes. The server gives each back.
local FRAMES = [[
local pool = require("bufpool").default()
local socket = require "bufpool.ngx.socket"
local scope = require("bufpool.ngx.scope").scope
local send, receive = socket.send, socket.receive

local M = {}

function M.echo()
    local sock = assert(ngx.req.socket(true))
    local buf = scope(pool):writer()
    while receive(sock, buf:reset(), 4) do
        local n = buf:u32be(1)
        if not receive(sock, buf, n) or not send(sock, buf) then
            break
        end
    end
    ngx.exit(444)
end

local function connect()
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 5000, 5000)
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(sock:send "GET /echo HTTP/1.0\r\n\r\n")
    return sock
end

function M.frames()
    local sock = connect()
    local out, back = scope(pool):writer(), scope(pool):writer()
    for _, n in ipairs { 0, 1, 65536, 1000000 } do
        out:reset():put_u32be(n):put(("ab"):rep(n / 2), ("c"):rep(n % 2))
        assert(send(sock, out) == n + 4)
        assert(receive(sock, back:reset(), n + 4) == n + 4)
        assert(out:equals(back))
    end
    back:reset():put(("long "):rep(40000))
    assert(send(sock, { "\0\3\13\75", { back, "ends" }, 1234567 }) == 200015)
    assert(receive(sock, out:reset(), 200015) == 200015)
    assert(out:sub(-16) == "long ends1234567")
    sock:close()
    assert(select(2, send(sock, out)) == "closed")
    assert(select(2, send(sock, { out, "x" })) == "closed")
    assert(select(2, receive(sock, back, 1)) == "closed")
    ngx.say "yes"
end

function M.timeout()
    local sock = connect()
    local buf = scope(pool):writer()
    assert(send(sock, "\0\0\0\3abc") == 7)
    sock:settimeout(100)
    local n, message, got = receive(sock, buf, 100)
    ngx.say(tostring(n), " ", message, " ", got, " ", buf:sub(5))
end

-- One light thread waits for data, and another releases its buffer.
function M.released()
    local sock = connect()
    local buf = scope(pool):checkout(10)
    local other
    local t = ngx.thread.spawn(function()
        return pcall(receive, sock, buf, 7)
    end)
    buf:release()
    other = scope(pool):checkout(10)
    assert(send(sock, "\0\0\0\3abc"))
    local _, ok, message = ngx.thread.wait(t)
    ngx.say(tostring(ok), " ", message, " ",
        tostring(other) == ("\0"):rep(10) and "zero" or "touched")
end

-- The digest of an upload that never is one string.
function M.upload()
    local sock = assert(ngx.req.socket())
    local left, sum = tonumber(ngx.var.http_content_length), 0
    local buf = scope(pool):writer(65536)
    local most = 0
    while left > 0 do
        local n = math.min(left, 65536)
        assert(receive(sock, buf:reset(), n))
        for i = 1, n, 997 do
            sum = (sum + buf:byte(i) * i) % 2 ^ 31
        end
        left = left - n
        most = math.max(most, buf:capacity())
    end
    ngx.say(sum, " ", most)
end

-- What an upload leaves to the collector, for each of its bytes.
function M.garbage()
    local sock, n = assert(ngx.req.socket()), tonumber(ngx.var.content_length)
    local buf = assert(scope(pool):writer(n))
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    assert(receive(sock, buf, n))
    local left = (collectgarbage "count" - before) * 1024 / n
    collectgarbage "restart"
    ngx.say(left)
end

return M
]]

describe("cosockets", function()
    local missing = nginx.missing()
    if missing then
        pending("send and receive: " .. missing .. " is not installed")
        return
    end

    local server

    setup(function()
        local names = {}
        for name in FRAMES:gmatch "function M%.(%w+)" do
            names[#names + 1] = ("location = /%s { content_by_lua_block { "
                .. "require('frames').%s() } }\n"):format(name, name)
        end
        server = nginx.start {
            conf = nginx.conf { server = "client_max_body_size 100m;\n"
                .. table.concat(names) .. [[
                location = /out { content_by_lua_block {
                    ngx.say(require("bufpool").stats().checked_out) } }
            ]] }:gsub('lua_package_path "', "%0$prefix/?.lua;"),
            files = { ["frames.lua"] = FRAMES },
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    it("carry frames there and back", function()
        local answer = server:get "/frames"
        assert.equal("yes\n", answer.body, server:log())
    end)

    it("keep what came before a timeout", function()
        assert.equal("nil timeout 7 abc\n", server:get "/timeout".body)
    end)

    it("raise for a buffer that is released while they wait", function()
        local body = server:get "/released".body
        assert.truthy(body:find("^false .*attempt to use a released handle zero"
            ), body .. server:log())
    end)

    it("read an upload through one buffer of 64 KiB", function()
        local text = numbered(20000000)
        local sum = 0
        for at = 1, #text, 65536 do
            for i = 1, math.min(65536, #text - at + 1), 997 do
                sum = (sum + text:byte(at + i - 1) * i) % 2 ^ 31
            end
        end
        assert.equal(sum .. " 65536\n", server:get("/upload",
            { body = text, headers = { Expect = "" } }).body, server:log())
    end)

    it("make a string of each byte once", function()
        local left = tonumber((server:get("/garbage", { headers = {
            Expect = "" }, body = numbered(1000000) }).body))
        assert.truthy(left and left < 1.1, left)
    end)

    it("leave nothing out", function()
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0\n"
        end))
    end)
end)
