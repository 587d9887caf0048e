-- bufpool.ngx in a real nginx, with its module loaded and without. What is
-- printed is compared with what ngx.print sends.
local helper = require "support.helper"
local nginx = require "support.nginx"

local must, quote, shell, soon = nginx.must, helper.quote, helper.shell,
    nginx.soon
local MODULE = nginx.module

-- What both sides know: n bytes that differ from place to place.
local TEXT = [[
local whole = ""
return function(n)
    if #whole < n then
        local pieces = {}
        for i = 1, n / 8 + 1 do
            pieces[i] = ("%07d "):format(i)
        end
        whole = table.concat(pieces)
    end
    return whole:sub(1, n)
end
]]
local text = loadstring(TEXT)()

-- Each handler answers /h/NAME; `n` is the argument of that name.
local HANDLERS = [==[
local ffi = require "ffi"
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local text = require "text"
local pool = bufpool.new { name = "spec" }
local h = { pool = pool }

local function n()
    return tonumber(ngx.var.arg_n)
end

local function frozen(bytes)
    local w = pool:writer(#bytes)
    w:put(bytes)
    return w:freeze()
end

local function buffer(bytes)
    return (pool:writer(#bytes):put(bytes))
end

function h.zero_copy()
    ngx.print(tostring(B.zero_copy))
end

function h.names()
    local names = {}
    for name in pairs(B) do
        names[#names + 1] = name
    end
    table.sort(names)
    ngx.print(table.concat(names, " "))
end

function h.out()
    ngx.print(pool:stats().checked_out)
end

-- The same things in print of ours and in that of nginx.
local function mixed(print, object, say)
    local f, b = object(text(10000)), object(text(70000))
    local small, none = object("small"), object("")
    assert(print(f))
    assert(print("a", f, 1, nil, true, false, ngx.null))
    assert(print { "b", f, { f, { small, none } }, {}, 2 })
    assert(print(0.1, -5, 1e15, 2^53, 1/3, -0, 1/0, -1e300, 3000000000))
    assert(print { nil, "after a hole", [4] = b })
    assert(print())
    assert(print(none))
    assert(print "")
    assert(say(f, "x"))
    assert(say())
    assert(say(small))
    for _, o in ipairs { f, b, small, none } do
        if bufpool.type(o) then
            o:release()
        end
    end
end

function h.mixed_plain()
    mixed(ngx.print, function(bytes) return bytes end, ngx.say)
end

function h.mixed_frozen()
    mixed(B.print, frozen, B.say)
end

function h.mixed_buffer()
    mixed(B.print, buffer, B.say)
end

function h.mixed_handle()
    mixed(B.print, function(bytes)
        local b = pool:borrow(#bytes)
        if #bytes > 0 then
            b:write(1, bytes)
        end
        return b
    end, B.say)
end

function h.mixed_slice()
    mixed(B.print, function(bytes)
        local whole = frozen("<<" .. bytes .. ">>")
        local slice = whole:slice(3, -3)
        whole:release()
        return slice
    end, B.say)
end

function h.frozen()
    local f = frozen(text(n()))
    assert(B.print(f) == 1)
    f:release()
end

function h.buffer()
    local b = buffer(text(n()))
    assert(B.print(b) == 1)
    b:wipe()
    b:release()
end

-- Pieces of all sizes, so that they are lent and copied by turns.
local function many(print, object)
    local all, size = text(40000), 1
    for i = 1, 60 do
        local f = object(all:sub(1, size))
        assert(print(i, f, object("-"), "+", f) == 1)
        ngx.print "n"
        size = size * 13 % 40009
    end
end

function h.many()
    many(B.print, function(bytes)
        local f = frozen(bytes)
        ngx.ctx[#ngx.ctx + 1] = f
        return f
    end)
    for _, f in ipairs(ngx.ctx) do
        f:release()
    end
end

function h.many_plain()
    many(ngx.print, function(bytes) return bytes end)
end

-- Answers what several prints return.
local function results(print, ...)
    local log = {}
    for _, x in ipairs { ... } do
        local done, err = print(x)
        log[#log + 1] = tostring(done) .. " " .. tostring(err)
    end
    ngx.shared.log:set("results", table.concat(log, ", "))
end

function h.head()
    local f, none = frozen(text(10000)), pool:writer()
    results(B.print, f, f, "x", none)
    f:release()
    none:release()
end

function h.head_plain()
    results(ngx.print, text(10000), text(10000), "x", "")
end

function h.eof()
    local f = frozen(text(10000))
    B.print(f)
    ngx.eof()
    results(B.print, f, f, "x")
    f:release()
end

function h.eof_plain()
    ngx.print(text(10000))
    ngx.eof()
    results(ngx.print, text(10000), text(10000), "x")
end

function h.logged()
    ngx.print(ngx.shared.log:get "results")
end

function h.length()
    ngx.header["Content-Length"] = n()
    h.frozen()
end

function h.status()
    ngx.status = n()
    local f = frozen(text(10000))
    results(B.print, f, f)
    f:release()
end

function h.status_plain()
    ngx.status = n()
    results(ngx.print, text(10000), text(10000))
end

function h.capture()
    local answer = ngx.location.capture("/h/frozen?n=300000")
    local copy = frozen(answer.body)
    B.print(answer.status, " ", copy, ngx.location.capture("/h/many").body)
    copy:release()
end

function h.capture_plain()
    ngx.print("200 ", text(300000))
    h.many_plain()
end

function h.exec()
    ngx.exec("/h/frozen", "n=300000")
end

function h.flush()
    local f = frozen(text(100000))
    local log = {}
    for i = 1, 10 do
        B.print(f, i)
        log[i] = tostring(ngx.flush(i % 2 == 0))
    end
    f:release()
    ngx.shared.log:set("results", table.concat(log, " "))
end

-- More than the socket takes, so that flushes are on their way behind it while
-- more is printed in either way.
function h.backlog()
    local f = frozen(text(1000000))
    for i = 1, 12 do
        assert(B.print(f))
        assert(ngx.flush())
        assert(ngx.print(i, " "))
        assert(B.print(i, " ", f))
        assert(ngx.flush())
        assert(B.say "small")
    end
    f:release()
end

-- Answers how many bytes of garbage collected memory such a print leaves.
function h.leaves()
    local function count()
        collectgarbage()
        collectgarbage()
        return collectgarbage "count" * 1024
    end
    local before = count()
    do
        local list, f = {}, frozen(text(10000))
        for i = 1, 100000 do
            list[i] = ""
        end
        list[#list + 1] = f
        B.print(list)
        f:release()
    end
    ngx.shared.log:set("results", count() - before)
end

-- The last reference is nginx's from here on.
function h.large()
    local f = frozen(text(1000000))
    local list = {}
    for i = 1, n() do
        list[i] = f
    end
    B.print(list)
    f:release()
    ngx.flush(true)
end

-- The buffer changes before anything can have been sent.
function h.changed()
    local b = buffer(text(3000000))
    B.print(b)
    b:fill(0x2e)
    B.print(b)
    b:release()
end

function h.stream()
    local large, small = buffer(text(100000)), frozen(text(1000))
    for i = 1, n() do
        B.print(large, small, "line", i)
        ngx.flush(true)
    end
    large:release()
    small:release()
end

function h.short()
    local tight = bufpool.new { classes = { { size = 4096 } },
        max_bytes = 1048576 }
    local b = tight:writer(700000):put(text(700000))
    local more, why = tight:checkout(700000)
    assert(not more and why:find("max_bytes", 1, true))
    assert(B.print("a", b) == 1)
    b:release()
    assert(tight:stats().checked_out == 0)
    tight:close()
end

function h.closed()
    local gone = bufpool.new()
    local b = gone:writer(70000):put(text(70000))
    gone:close()
    B.print(b)
    b:release()
end

-- Where an error should be, and where it is.
local function misuse(fn, ...)
    local line = debug.getinfo(fn, "S").linedefined
    local ok, message = pcall(fn, ...)
    ngx.say(not ok and tostring(message):gsub("^.*handlers%.lua:(%d+): ",
        function(at) return tonumber(at) == line and "" or "line " .. at end)
        or "nothing was raised")
end

function h.misuse()
    local cycle = {}
    cycle[1], cycle[2] = cycle, cycle
    local dead = pool:checkout(1)
    dead:release()
    local stale = pool:borrow(1)
    stale:release()
    local list = {
        print, { print }, { x = 1 }, { [0] = 1 }, { [1.5] = 1 }, cycle,
        dead, stale, pool, newproxy(), ffi.new "int",
        coroutine.create(function() end), io.stdout,
    }
    for _, x in ipairs(list) do
        misuse(function() B.print("x", x) end)
        misuse(function() B.say(x) end)
    end
    misuse(function() B.print({ 1, [2 ^ 40] = 2 }) end)
    misuse(function() B.read_body() end)
    misuse(function() B.read_body({}) end)
    misuse(function() B.read_body(pool, -1) end)
    misuse(function() B.read_body(pool, "1") end)
    local f = frozen "frozen"
    for _, given in ipairs { newproxy(), {}, "buffer", pool, dead, f } do
        local fake = { writer = function() return given end }
        misuse(function() B.read_body(fake) end)
    end
    f:release()
    misuse(function() B.body_filter("x") end)
    misuse(function() B.body_filter(dead) end)
    local b = pool:writer()
    misuse(function() B.body_filter(b) end)
    b:release()
end

function h.read()
    local buf, err
    if ngx.var.arg_max then
        buf, err = B.read_body(pool, tonumber(ngx.var.arg_max))
    else
        buf, err = B.read_body(pool)
    end
    if not buf then
        return ngx.print("no: ", err)
    end
    assert(bufpool.type(buf) == "buffer")
    ngx.header["X-Length"] = #buf
    B.print(buf)
    buf:release()
end

function h.read_twice()
    local a, b = B.read_body(pool), B.read_body(pool)
    ngx.print(tostring(a:equals(b)))
    a:release()
    b:release()
end

function h.read_truncated()
    ngx.req.read_body()
    local name = ngx.req.get_body_file()
    io.open(name, "w"):close()
    local buf, err = B.read_body(pool)
    ngx.print(tostring(buf), " ", type(err))
end

function h.read_short()
    local tight = bufpool.new { classes = { { size = 4096 } },
        max_bytes = 65536 }
    local buf, err = B.read_body(tight)
    ngx.print(tostring(buf), " ", err)
    tight:close()
end

function h.read_taken()
    assert(ngx.req.socket(ngx.var.arg_raw == "1"))
    local _, why = B.read_body(pool)
    ngx.shared.log:set("results", why)
    ngx.exit(444)
end

function h.read_discarded()
    ngx.req.discard_body()
    h.read()
end

-- Sends what was replaced by a handler before.
function h.read_set()
    ngx.req.read_body()
    ngx.req.set_body_data(text(5000))
    h.read()
end

-- Body and header filters in Lua, with loops that get compiled.
function h.header_filter()
    local sum = 0
    for i = 1, 100 do
        sum = sum + i
    end
    ngx.header["X-Sum"] = sum
    ngx.header["X-Raised"] = select(2, pcall(B.print, "x"))
end

function h.upper()
    local chunk, up = ngx.arg[1], {}
    for i = 1, #chunk, 64 do
        up[#up + 1] = chunk:sub(i, i + 63):gsub(" ", "_")
    end
    ngx.arg[1] = table.concat(up)
end

function h.filtered()
    local f = frozen(text(9000))
    for i = 1, 200 do
        B.print({ f, tostring(i) }, " ")
        if i % 20 == 0 then
            ngx.flush(true)
        end
    end
    f:release()
end

function h.collect()
    local ctx = ngx.ctx
    ctx.copy = ctx.copy or pool:writer()
    ctx.chunks = (ctx.chunks or 0) + 1
    if B.body_filter(ctx.copy) then
        ngx.shared.log:set("results", tostring(ctx.copy:equals(text(200000)))
            .. " " .. tostring(ctx.chunks > 1))
        ctx.copy:release()
    end
end

-- What print and ngx.print raise in a phase where neither may be called.
function h.phase(name)
    local f = frozen(text(10000))
    local log = ngx.shared.log
    for key, call in pairs {
        ours = function() return B.print(f) end,
        theirs = function() return ngx.print "x" end,
        read = function() return B.read_body(pool) end,
    } do
        local ok, message = pcall(call)
        log:set(name .. key, ok and "nothing was raised"
            or message:gsub("^.*:%d+: ", ""))
    end
    f:release()
end

function h.phases()
    local list = {}
    for _, name in ipairs { "init_worker", "timer", "header_filter",
        "body_filter", "log" } do
        for _, key in ipairs { "ours", "theirs", "read" } do
            list[#list + 1] = name .. " " .. key .. ": "
                .. tostring(ngx.shared.log:get(name .. key))
        end
    end
    ngx.print(table.concat(list, "\n"))
end

return h
]==]

local HTTP = [[
    lua_shared_dict log 64k;
    lua_socket_log_errors off;
    client_max_body_size 100m;
    keepalive_timeout 5;
    init_worker_by_lua_block {
        local h = require "handlers"
        h.phase "init_worker"
        ngx.timer.at(0, function() h.phase "timer" end)
    }
]]

local LISTEN = [[
        listen 127.0.0.1:@PORT@;
        listen 127.0.0.1:@PORT1@ http2;
        listen 127.0.0.1:@PORT2@ ssl http2;
        ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
]]

local SERVER = [[
        location ~ ^/h/(\w+)$ {
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/split/(\w+)$ {
            client_body_buffer_size 1m;
            client_body_in_single_buffer off;
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/file/(\w+)$ {
            client_body_in_file_only clean;
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/gzip/(\w+)$ {
            default_type text/plain;
            gzip on;
            gzip_types text/plain;
            gzip_http_version 1.0;
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/sub/(\w+)$ {
            default_type text/html;
            sub_filter_once off;
            sub_filter "00" "zero";
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/upper/(\w+)$ {
            header_filter_by_lua_block { require("handlers").header_filter() }
            body_filter_by_lua_block { require("handlers").upper() }
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location ~ ^/collect/(\w+)$ {
            body_filter_by_lua_block { require("handlers").collect() }
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
        location = /phase {
            header_filter_by_lua_block {
                require("handlers").phase "header_filter"
            }
            body_filter_by_lua_block {
                require("handlers").phase "body_filter"
            }
            log_by_lua_block { require("handlers").phase "log" }
            content_by_lua_block { ngx.print "x" }
        }
        location ~ ^/access/(\w+)$ {
            access_by_lua_block {
                require("handlers")[ngx.var[1] ]()
                ngx.exit(200)
            }
        }
        location ~ ^/slow/(\w+)$ {
            lua_check_client_abort on;
            send_timeout 5;
            content_by_lua_block { require("handlers")[ngx.var[1] ]() }
        }
]]

-- The cases, for one of the two ways to start nginx.
local function cases(modules, zero_copy)
    local server

    -- A body that must come with status 200 and as it should be.
    local function body(path, options)
        local answer = server:get(path, options)
        assert.equal(nil, answer.failed, answer.said)
        assert.equal(200, answer.status, answer.body .. server:log())
        return answer.body, answer.headers
    end

    -- Not assert.equal, which would print megabytes.
    local function same(expected, got, what)
        if expected ~= got then
            local at = 1
            while expected:byte(at) == got:byte(at) do
                at = at + 1
            end
            error(("%s: %d bytes for %d, different at %d: %q"):format(
                what or "body", #got, #expected, at, got:sub(at, at + 40)), 2)
        end
    end

    local function all_back()
        local out
        local home = soon(function()
            out = body "/h/out"
            return out == "0"
        end)
        assert.truthy(home, out .. " still checked out")
    end

    setup(function()
        server = nginx.start {
            conf = nginx.conf { modules = modules, http = HTTP,
                listen = LISTEN, server = SERVER },
            files = { ["text.lua"] = TEXT, ["handlers.lua"] = HANDLERS },
            prepare = "openssl req -x509 -newkey rsa:2048 -nodes "
                .. "-keyout key.pem -out certificate.pem -days 2 "
                .. "-subj /CN=localhost 2>openssl.log",
            wrap = os.getenv "NGINX_WRAP",
        }
    end)
    teardown(function()
        server:stop()
    end)
    after_each(function()
        if server:alive() then
            all_back()
        end
    end)

    it("tells whether it copies", function()
        assert.equal(tostring(zero_copy), body "/h/zero_copy")
        local names = { "zero_copy" }
        for name in nginx.read(nginx.root .. "/lua/bufpool/types.lua")
            :gmatch "\nfunction bufpool_ngx%.([%w_]+)" do
            names[#names + 1] = name
        end
        table.sort(names)
        assert.equal(table.concat(names, " "), body "/h/names")
    end)

    it("prints what ngx.print prints of the same strings", function()
        local plain = body "/h/mixed_plain"
        for _, kind in ipairs { "frozen", "buffer", "handle", "slice" } do
            same(plain, body("/h/mixed_" .. kind), kind)
        end
    end)

    it("prints contents of any size", function()
        for _, n in ipairs { 0, 1, 2, 4095, 4096, 4097, 65535, 65536, 65537,
            131072, 3000001 } do
            same(text(n), body("/h/frozen?n=" .. n), "frozen " .. n)
            same(text(n), body("/h/buffer?n=" .. n), "buffer " .. n)
        end
    end)

    it("keeps the order of many prints", function()
        same(body "/h/many_plain", body "/h/many")
    end)

    it("prints in the access phase", function()
        same(text(50000), body "/access/frozen?n=50000")
    end)

    it("returns to HEAD what ngx.print returns", function()
        for _, n in ipairs { "-I", "-I -0", "-I --http2-prior-knowledge" } do
            local options = { curl = n, port = n:find "http2" and 1 }
            local function results(path)
                local answer = server:get(path, options)
                assert.equal(200, answer.status)
                assert.equal(answer.head, answer.body)
                return (body "/h/logged")
            end
            assert.equal(results "/h/head_plain", results "/h/head", n)
        end
    end)

    it("returns after ngx.eof what ngx.print returns", function()
        same(text(10000), body "/h/eof_plain")
        local expected = body "/h/logged"
        same(text(10000), body "/h/eof")
        assert.equal(expected, body "/h/logged")
        assert.truthy(expected:find("seen eof", 1, true))
    end)

    it("answers HTTP/1.0 with the length", function()
        local got, headers = body("/h/frozen?n=300000", { curl = "-0" })
        same(text(300000), got)
        assert.equal("300000", headers["content-length"])
        got, headers = body("/h/many", { curl = "-0" })
        same(body "/h/many_plain", got)
        assert.equal(tostring(#got), headers["content-length"])
    end)

    it("keeps a length that the handler has set", function()
        local got, headers = body "/h/length?n=300000"
        same(text(300000), got)
        assert.equal("300000", headers["content-length"])
    end)

    it("sends no body where the status has none", function()
        for _, status in ipairs { 204, 304 } do
            local function results(path)
                local answer = server:get(path .. "?n=" .. status)
                assert.equal(status, answer.status)
                assert.equal("", answer.body)
                return (body "/h/logged")
            end
            assert.equal(results "/h/status_plain", results "/h/status")
        end
    end)

    it("prints in subrequests and after internal redirects", function()
        same(body "/h/capture_plain", body "/h/capture")
        same(text(300000), body "/h/exec")
    end)

    it("prints through nginx's filters", function()
        local options = { curl = "--compressed" }
        local got, headers = body("/gzip/frozen?n=3000000", options)
        same(text(3000000), got)
        assert.equal("gzip", headers["content-encoding"])
        same(body "/h/many_plain", (body("/gzip/many", options)))
        same(text(300000):gsub("00", "zero"), body "/sub/frozen?n=300000")
        same(body "/sub/many_plain", body "/sub/many")
    end)

    it("prints to HTTP/2 and TLS", function()
        for _, options in ipairs {
            { port = 1, curl = "--http2-prior-knowledge" },
            { port = 2, scheme = "https", curl = "--http2" },
            { port = 2, scheme = "https", curl = "--http1.1" },
        } do
            same(text(3000000), (body("/h/frozen?n=3000000", options)))
            same(text(3000000), (body("/h/buffer?n=3000000", options)))
            same(body "/h/many_plain", (body("/h/many", options)))
        end
        same(body "/h/capture_plain", (body("/h/capture",
            { port = 2, scheme = "https", curl = "--http1.1" })))
    end)

    it("can be flushed", function()
        local expected = {}
        for i = 1, 10 do
            expected[i] = text(100000) .. i
        end
        same(table.concat(expected), body "/h/flush")
        assert.equal(("1"):rep(10, " "), body "/h/logged")
    end)

    it("prints on behind a flush that has not left", function()
        local expected, large = {}, text(1000000)
        for i = 1, 12 do
            expected[i] = large .. i .. " " .. i .. " " .. large .. "small\n"
        end
        expected = table.concat(expected)
        for _, options in ipairs { {}, { port = 1,
            curl = "--http2-prior-knowledge" }, { port = 2, scheme = "https",
            curl = "--http1.1" } } do
            same(expected, (body("/h/backlog", options)))
        end
    end)

    it("prints a buffer as it was at the call", function()
        same(text(3000000) .. ("."):rep(3000000), body "/h/changed")
    end)

    it("prints to slow clients, and then gives back", function()
        for _, options in ipairs { { 0, "http", "" },
            { 1, "http", "--http2-prior-knowledge" },
            { 2, "https", "--http1.1" } } do
            -- A client that does not read on before it is told to.
            local go, file = server.dir .. "/go", server.dir .. "/sum"
            must(("(curl -sSk --max-time 20 %s '%s' | (while [ ! -e %s ] "
                .. "&& [ -e %s ]; do sleep 0.05; done; sha256sum) >%s) "
                .. ">%s/curl.log 2>&1 &"):format(options[3],
                server:url("/h/large?n=30", options[1], options[2]), go,
                nginx.proc, file, server.dir))
            if zero_copy then
                assert.truthy(soon(function() return body "/h/out" == "1" end))
            end
            nginx.write(go, "")
            nginx.write(server.dir .. "/expected", text(1000000):rep(30))
            local sum = must("sha256sum <" .. server.dir .. "/expected")
            assert.truthy(soon(function()
                return nginx.read(file) ~= ""
            end))
            must("rm " .. go)
            assert.equal(sum, nginx.read(file))
            all_back()
        end
    end)

    it("gives back what clients did not wait for", function()
        for _, options in ipairs { { 0, "http", "" },
            { 1, "http", "--http2-prior-knowledge" },
            { 2, "https", "--http1.1" }, { 2, "https", "--http2" } } do
            must(("for i in 1 2 3 4 5 6 7 8; do curl -sk --limit-rate 50k "
                .. "--max-time 0.3 %s -o /dev/null '%s' & done; wait"):format(
                options[3], server:url("/slow/large?n=20", options[1],
                options[2])))
            all_back()
        end
    end)

    it("needs no more memory for more prints in one response", function()
        local worker = next(server:workers())
        local function grown(n)
            local before = nginx.resident(worker)
            must(("curl -sS -o /dev/null '%s'"):format(
                server:url("/h/stream?n=" .. n)))
            return nginx.resident(worker) - before
        end
        grown(50)
        assert.truthy(grown(1000) < 8 * 1048576)
    end)

    it("keeps no list of pieces after a long print", function()
        same(text(10000), body "/h/leaves")
        assert.truthy(tonumber((body "/h/logged")) < 1048576)
    end)

    it("prints when the pool has no memory for a copy", function()
        same("a" .. text(700000), body "/h/short")
    end)

    it("prints a buffer whose pool was closed", function()
        same(text(70000), body "/h/closed")
    end)

    it("names what cannot be printed, at the caller's line", function()
        local lines = body("/h/misuse", { body = "body" }):gmatch "[^\n]+"
        local function expect(start, what)
            local line = lines()
            assert.equal(start .. what, line)
        end
        local kinds = "string, number, boolean, nil, buffer, frozen or table "
        local objects = "string, number, buffer, frozen or table "
        local keys = "(array expected, got a table with other keys)"
        local cycle = "(tables in more than 100 tables: is there a cycle?)"
        for _, what in ipairs {
            "(" .. kinds .. "expected, got function)",
            "(function found in a table)",
            keys, keys, keys, cycle,
            "attempt to use a released buffer",
            "attempt to use a released handle",
            "(" .. objects .. "expected, got pool)",
            "(" .. objects .. "expected, got userdata)",
            "(" .. objects .. "expected, got cdata)",
            "(" .. kinds .. "expected, got thread)",
            "(" .. objects .. "expected, got userdata)",
        } do
            local plain = what:sub(1, 1) ~= "("
            expect(plain and "" or "bad argument #2 to 'print' ", what)
            expect(plain and "" or "bad argument #1 to 'say' ", what)
        end
        expect("bad argument #1 to 'print' ", "(more than 4194304 strings)")
        local read = "bad argument #%d to 'read_body' "
        expect(read:format(1), "(pool expected, got nil)")
        expect(read:format(1), "(pool expected, got table)")
        expect(read:format(2), "(size expected, got -1)")
        expect(read:format(2), "(number expected, got string)")
        for _ = 1, 6 do
            expect(read:format(1), "(pool expected, got table)")
        end
        local filter = "bad argument #1 to 'body_filter' "
        expect(filter, "(buffer expected, got string)")
        expect("", "attempt to use a released buffer")
        expect("", "API disabled in the current context")
        assert.equal(nil, (lines()))
    end)

    it("raises what ngx.print raises in other phases", function()
        body "/phase"
        local got = body "/h/phases"
        local ours = got:gsub("theirs: [^\n]*", "")
        local count = 0
        for name, message in got:gmatch "([%w_]+) theirs: ([^\n]+)" do
            count = count + 1
            assert.truthy(message:find("disabled", 1, true)
                or message:find("no request", 1, true), message)
            local own = ours:match(name .. " ours: ([^\n]+)")
            assert.equal(message, own, name)
            assert.falsy(ours:find(name .. " read: nothing", 1, true), got)
        end
        assert.equal(5, count)
    end)

    it("runs Lua filters below prints in loops", function()
        local expected = {}
        for i = 1, 200 do
            expected[i] = text(9000) .. i .. " "
        end
        expected = table.concat(expected):gsub(" ", "_")
        local got, headers = body "/upper/filtered"
        same(expected, got)
        assert.equal("5050", headers["x-sum"])
        assert.truthy(headers["x-raised"]:find "API disabled")
        local sums = must(("curl -sS '%s' | sha256sum; "
            .. "curl -sS '%s?[1-20]' | sha256sum"):format(
            server:url "/upper/filtered", server:url "/upper/filtered"))
        nginx.write(server.dir .. "/expected", expected:rep(20))
        local sum = must("sha256sum <" .. server.dir .. "/expected")
        assert.equal(sum, sums:match "\n(.*\n)$")
    end)

    it("collects a response in a buffer", function()
        same(text(200000), body "/collect/frozen?n=200000")
        assert.equal("true true", body "/h/logged")
    end)

    it("reads request bodies from memory and from files", function()
        for _, place in ipairs { "/h/", "/split/", "/file/" } do
            for _, n in ipairs { 1, 900, 16384, 16385, 2000000 } do
                for _, curl in ipairs { "", "-H 'Expect:'",
                    "-H 'Transfer-Encoding: chunked'" } do
                    local got, headers = body(place .. "read", {
                        body = text(n), curl = curl })
                    same(text(n), got, place .. n .. curl)
                    assert.equal(tostring(n), headers["x-length"])
                end
            end
        end
    end)

    it("reads request bodies of HTTP/2 and TLS", function()
        for _, options in ipairs {
            { port = 1, curl = "--http2-prior-knowledge" },
            { port = 2, scheme = "https", curl = "--http1.1" },
        } do
            for _, n in ipairs { 1, 10000, 1000000 } do
                options.body = text(n)
                same(text(n), (body("/h/read", options)))
            end
        end
    end)

    it("reads request bodies of HTTP/2 that do not tell their length",
        function()
            local options = { port = 1, curl = "--http2-prior-knowledge "
                .. "-H 'Content-Length:'" }
            local refusal = nginx.http2_refusal()
            if refusal then
                -- nginx would reset the stream of a request whose body nobody
                -- has read, and curl might get no answer.
                assert.equal("no: " .. refusal, body("/h/read", options))
                return
            end
            for _, n in ipairs { 1, 10000, 1000000 } do
                options.body = text(n)
                same(text(n), (body("/h/read", options)))
            end
        end)

    it("reads a body twice, and one that was replaced", function()
        assert.equal("true", body("/h/read_twice", { body = text(70000) }))
        same(text(5000), (body("/h/read_set", { body = text(70000) })))
    end)

    it("says that there is no body", function()
        assert.equal("no: no body", body "/h/read")
        assert.equal("no: no body", body("/h/read", { body = "" }))
        assert.equal("no: no body", body("/file/read", { body = "" }))
        assert.equal("no: no body", body("/h/read", { body = "",
            curl = "-H 'Transfer-Encoding: chunked'" }))
    end)

    it("says that somebody else has taken the body", function()
        local taken = "the body was taken by ngx.req.socket, or discarded"
        for _, raw in ipairs { "0", "1" } do
            server:get("/h/read_taken?raw=" .. raw, { body = text(50000) })
            assert.equal(taken, body "/h/logged")
        end
        assert.equal("no: " .. taken, body("/h/read_discarded",
            { body = text(500) }))
        server:get("/h/read_taken?raw=1", { body = text(500),
            curl = "-H 'Transfer-Encoding: chunked'" })
        assert.equal(taken, body "/h/logged")
    end)

    it("refuses a body above max", function()
        for _, n in ipairs { 1000, 100000 } do
            for _, curl in ipairs { "", "-H 'Transfer-Encoding: chunked'" } do
                local options = { body = text(n), curl = curl }
                same(text(n), (body("/h/read?max=" .. n, options)))
                assert.equal("no: too large",
                    body("/h/read?max=" .. n - 1, options))
                assert.equal("no: too large", body("/h/read?max=0", options))
            end
        end
    end)

    it("does not read a body whose header says that it is above max",
        function()
            -- There is no body to read.
            must(([[bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d
                printf "POST /h/read?max=10 HTTP/1.1\r\nHost: x\r\n" >&3
                printf "Content-Length: 11\r\n\r\n" >&3
                timeout 5 grep -q "no: too large" <&3']]):format(server.port))
        end)

    it("says why a body cannot be had", function()
        assert.equal("nil string", body("/file/read_truncated",
            { body = text(100000) }))
        assert.equal("nil max_bytes of the pool reached (100000 bytes asked "
            .. "for)", body("/h/read_short", { body = text(100000) }))
    end)

    it("ends without an error in its log", function()
        all_back()
        server:quit()
        for line in server:log():gmatch "[^\n]+" do
            if not line:find("detected a LuaJIT version", 1, true) then
                assert.falsy(line:find "%[%l*er%l*%]"
                    or line:find "%[crit%]" or line:find "%[alert%]", line)
            end
        end
    end)
end

nginx.ways("bufpool.ngx", cases)

describe("ngx_http_bufpool_module", function()
    local missing = nginx.missing()
    if missing then
        pending("loads: " .. missing .. " is not installed")
        return
    end

    it("is not needed outside of nginx, where bufpool.ngx says so", function()
        local said, status = helper.child [[require "bufpool.ngx"]]
        assert.truthy(status ~= 0)
        assert.truthy(said:find("bufpool.ngx works in nginx's HTTP workers "
            .. "only", 1, true), said)
    end)

    -- Starts nginx with some functions of C in place of others.
    local function start_with(source, options)
        local dir = must "mktemp -d":gsub("\n", "")
        nginx.write(dir .. "/other.c", source)
        must(("cc -shared -fPIC -o %s/other.so %s/other.c"):format(dir, dir))
        options.wrap = "env LD_PRELOAD=" .. dir .. "/other.so"
        local server = nginx.start(options)
        must("rm -r " .. dir)
        return server
    end

    local obstacle = nginx.obstacle(true) or nginx.obstacle(false)
    if obstacle then
        pending("says what it lacks: " .. obstacle)
        return
    end

    it("is refused by Lua files of another version", function()
        local server = start_with([[
            int ngx_http_bufpool_version(void) { return 1000; }
        ]], {
            conf = nginx.conf { http = [[
                init_by_lua_block { B = require "bufpool.ngx" }]],
                server = [[location / { content_by_lua_block {
                    ngx.print(tostring(B.zero_copy)) } }]] },
        })
        local answer = server:get "/"
        local log = nginx.read(server.dir .. "/build/early.log")
        server:stop()
        assert.equal("false", answer.body)
        local _, lines = log:gsub("ngx_http_bufpool_module has version 1000, "
            .. "and bufpool's Lua files need version %d", "")
        assert.equal(1, lines, log)
    end)

    -- What nginx -t says to load_module lines.
    local function try(...)
        local load = {}
        for _, name in ipairs { ... } do
            load[#load + 1] = 'load_module "' .. name .. '";'
        end
        local dir = must "mktemp -d":gsub("\n", "")
        nginx.write(dir .. "/nginx.conf", table.concat(load) .. [[
            error_log stderr; pid nginx.pid; events {} http {
            access_log off; client_body_temp_path temp; proxy_temp_path temp;
            fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
            }]])
        local said, status = shell(("%s %s -t -e stderr -p %s -c nginx.conf")
            :format(nginx.environment, quote(nginx.program), dir))
        must("rm -r " .. dir)
        return said, status
    end

    -- For the nginx that the build was for, unless told otherwise.
    local function make(arguments)
        return shell(("cd %s && env -u MAKEFLAGS -u MAKELEVEL -u NGINX "
            .. "-u NGINX_SRC make BUILD=%s %s"):format(quote(nginx.root),
            quote(os.getenv "BUILD" or "build"), arguments))
    end

    it("is built once", function()
        assert.equal("", (make "nginx-module"))
    end)

    -- A copy of nginx's sources, as a checkout has them or with configure where
    -- archives have it.
    local function copy_sources(configure)
        local dir = must "mktemp -d":gsub("\n", "")
        must(("cp -R %s/. %s"):format(quote(os.getenv "NGINX_SRC"
            or "/usr/share/nginx/src"), dir))
        for _, name in ipairs { "configure", "auto/configure" } do
            shell(("cd %s && mv %s %s"):format(dir, name, configure))
        end
        return dir
    end

    -- Filters that stand before the filter that writes are overwritten by it.
    it("gets its place among the filters when it is compiled in", function()
        local dir = copy_sources "configure"
        must(([[cd %s && mkdir bufpool && cp %s/src/nginx/* bufpool
            ./configure --builddir=objs --without-http_rewrite_module \
                --without-http_gzip_module --add-module=bufpool]]):format(dir,
            quote(nginx.root)))
        local list = nginx.read(dir .. "/objs/ngx_modules.c")
            :match "ngx_modules%[%] = (%b{})"
        must("rm -r " .. dir)
        local function place(name)
            return assert(list:find("&ngx_http_" .. name .. "_module", 1, true),
                name)
        end
        assert.truthy(place "bufpool" > place "write_filter")
        assert.truthy(place "bufpool" > place "headers_filter")
        assert.truthy(place "bufpool" < place "copy_filter")
    end)

    it("says what building it lacks", function()
        local said, status = make("BUILD=build/lack NGINX_SRC=/nowhere "
            .. "nginx-module")
        must("rm -rf " .. quote(nginx.root .. "/build/lack"))
        assert.equal(2, status)
        assert.truthy(said:find("bufpool: no nginx sources in /nowhere (no "
            .. "configure there): install nginx-dev, or give NGINX_SRC=", 1,
            true), said)
    end)

    it("is installed among nginx's modules, and uninstalled", function()
        local dir = must "mktemp -d":gsub("\n", "")
        local name = quote(dir .. nginx.modules .. "/" .. MODULE:match "[^/]*$")
        local function there()
            return select(2, shell("cmp " .. name .. " " .. quote(MODULE))) == 0
        end
        assert.equal(0, select(2, make("install-nginx-module DESTDIR="
            .. dir)))
        assert.truthy(there())
        assert.equal(0, select(2, make("uninstall DESTDIR=" .. dir)))
        assert.falsy(there())
        must("rm -r " .. dir)
    end)

    it("is installed as it was built, from a checkout of nginx too", function()
        local dir = copy_sources "auto/configure"
        local own = " BUILD=build/spec-of-nginx "
        local said, status = make("nginx-module NGINX_SRC=" .. dir .. " NGINX="
            .. quote(nginx.program) .. own)
        assert.equal(0, status, said)
        assert.equal("INSTALL " .. dir .. "/to" .. nginx.modules .. "\n",
            (make("install-nginx-module DESTDIR=" .. dir .. "/to" .. own)))
        must(("rm -r %s %s/build/spec-of-nginx"):format(dir,
            quote(nginx.root)))
    end)

    it("is not installed where there is no nginx", function()
        local dir = must "mktemp -d":gsub("\n", "")
        for _, none in ipairs { "/nowhere/nginx", "/bin/true" } do
            local said, status = make("-o nginx-module install-nginx-module "
                .. "NGINX=" .. none .. " DESTDIR=" .. dir)
            assert.equal(2, status)
            assert.truthy(said:find("bufpool: no nginx to install the module "
                .. "for: '" .. none .. "' is none: give NGINX= or "
                .. "NGINX_MODULES=", 1, true), said)
        end
        assert.equal("", must("find " .. dir .. " -type f"))
        assert.equal(0, select(2, make("-o nginx-module install-nginx-module "
            .. "NGINX=/nowhere/nginx NGINX_MODULES=/m DESTDIR=" .. dir)))
        assert.equal(dir .. "/m/" .. MODULE:match "[^/]*$" .. "\n",
            must("find " .. dir .. " -type f"))
        must("rm -r " .. dir)
    end)

    it("says where OpenResty's bundle has the sources of nginx", function()
        local dir = must "mktemp -d":gsub("\n", "")
        must(("mkdir -p %s/bundle/nginx-1.2.3 && echo '#!/bin/sh' >%s/configure"
            .. " && chmod +x %s/configure"):format(dir, dir, dir))
        local said, status = make("BUILD=build/lack nginx-module NGINX_SRC="
            .. dir)
        must("rm -rf " .. dir .. " " .. quote(nginx.root .. "/build/lack"))
        assert.equal(2, status)
        assert.truthy(said:find("bufpool: " .. dir .. " is OpenResty's bundle: "
            .. "give NGINX_SRC=" .. dir .. "/bundle/nginx-1.2.3", 1, true),
            said)
    end)

    if nginx.inside "ngx_http_lua_module" then
        it("loads", function()
            local said, status = try(MODULE)
            assert.equal(0, status, said)
        end)
    else
        local NDK = nginx.modules .. "/ndk_http_module.so"
        local LUA = nginx.modules .. "/ngx_http_lua_module.so"

        it("loads before the Lua module, and after it", function()
            for _, order in ipairs { { NDK, LUA, MODULE },
                { MODULE, NDK, LUA } } do
                local said, status = try(unpack(order))
                assert.equal(0, status, said)
            end
        end)

        it("says that it needs the Lua module", function()
            local said, status = try(MODULE)
            assert.equal(1, status)
            assert.truthy(said:find("ngx_http_bufpool_module needs the Lua "
                .. "module, which is not loaded", 1, true), said)
        end)
    end

    -- A member more in nginx's structs, before a line of a header, and what the
    -- refusal then says lies elsewhere. The first two are as in OpenResty.
    local REQUEST = "http/ngx_http_request.h"
    local PATCHES = {
        { REQUEST, "unsigned +post_action:1;", "unsigned more:1;",
            "header_sent of a request" },
        { REQUEST, "ngx_table_elt_t +%*host;", "ngx_uint_t more;",
            "headers_out of a request" },
        { REQUEST, "unsigned +filter_need_temporary:1;", "unsigned more:1;",
            "filter_need_temporary of a request" },
        { REQUEST, "ngx_http_request_t +%*main;", "void *more;",
            "main of a request" },
        { "core/ngx_palloc.h", "ngx_pool_cleanup_t +%*cleanup;", "void *more;",
            "cleanup of a pool" },
    }

    -- What nginx -t says to the module when that is built again, from sources
    -- with PATCHES[k], if there is one. It stays where it was built, because
    -- make coverage counts there.
    local function try_built(k)
        local dir = ("%s/nginx/patched-%d"):format(nginx.build, k)
        must(("rm -rf %s && cp -R %s %s"):format(quote(dir),
            quote(nginx.build .. "/nginx/src"), quote(dir)))
        if PATCHES[k] then
            local name, line, more = unpack(PATCHES[k])
            local header, count = nginx.read(dir .. "/src/" .. name)
                :gsub(line, more .. " %0")
            assert.equal(1, count, line)
            nginx.write(dir .. "/src/" .. name, header)
        end
        must("cd " .. quote(dir) .. " && make -s -f objs/Makefile modules 2>&1")
        local load = {}
        for _, name in ipairs { "ndk_http_module", "ngx_http_lua_module" } do
            if not nginx.inside(name) then
                load[#load + 1] = nginx.modules .. "/" .. name .. ".so"
            end
        end
        load[#load + 1] = dir .. "/objs/" .. MODULE:match "[^/]*$"
        return try(unpack(load))
    end

    it("is refused where it was built from other sources", function()
        local said, status = try_built(0)
        assert.equal(0, status, said)
        for k, patch in ipairs(PATCHES) do
            said, status = try_built(k)
            assert.equal(1, status, patch[4])
            assert.truthy(said:find("does not fit this nginx: it was built "
                .. "from the sources of %S+, and this nginx from others of "
                .. "the same version %(" .. patch[4] .. " lies elsewhere%)%. "
                .. "Build it from the sources of this nginx, in bufpool's "
                .. "folder: make nginx%-module NGINX_SRC=%S+ NGINX="
                .. nginx.program:gsub("%p", "%%%0")), said)
        end
    end)

    it("reads on after short and interrupted reads of a file", function()
        local server = start_with([[
            #include <errno.h>
            #include <sys/syscall.h>
            #include <sys/types.h>
            #include <unistd.h>
            /* Not so for the configuration, which is small. */
            ssize_t pread64(int fd, void *to, size_t n, off_t at)
            {
                static int calls;
                errno = EINTR;
                return n > 4096 && ++calls % 3 == 0 ? -1 :
                    syscall(SYS_pread64, fd, to, n > 4096 ? 999 : n, at);
            }
        ]], {
            conf = nginx.conf { modules = { MODULE }, server = SERVER,
                http = "lua_shared_dict log 64k; client_max_body_size 1m;" },
            files = { ["text.lua"] = TEXT, ["handlers.lua"] = HANDLERS },
        })
        local answer = server:get("/file/read", { body = text(100000) })
        server:stop()
        assert.equal(200, answer.status)
        assert.truthy(answer.body == text(100000))
    end)
end)
