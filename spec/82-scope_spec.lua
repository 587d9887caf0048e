-- Buffers bound to a request, in a real nginx. No collection runs in its
-- workers, so what is returned was returned by the end of the request.
local nginx = require "support.nginx"


-- What the requests do. Each takes the scope's buffers first and then ends.
local HANDLERS = [[
local bufpool = require "bufpool"
local scope = require "bufpool.ngx.scope"
local pool = bufpool.default()
local kept = {}

local M = { kept = kept, pool = pool, scope = scope.scope, with = scope.with }

-- Three buffers with something in them; one is released by hand.
function M.take()
    local s = scope.scope(pool)
    s:checkout(100000):fill(65)
    s:writer():put("some text")
    s:checkout(10):fill(66):release()
    return s
end

function M.raise()
    M.take()
    error("as meant", 0)
end

function M.out()
    ngx.say(bufpool.stats().checked_out)
end

-- Is nothing out, and all that can be had without fresh memory zero?
function M.zero()
    local out, taken = bufpool.stats().checked_out, {}
    if out > 0 then
        return ngx.say(out, " out")
    end
    for _, n in ipairs { 10, 4096, 100000 } do
        for _ = 1, 4 do
            local buf = pool:try_checkout(n)
            if buf then
                assert(tostring(buf) == ("\0"):rep(n), "not zero")
                taken[#taken + 1] = buf
            end
        end
    end
    for _, buf in ipairs(taken) do
        buf:release()
    end
    ngx.say(#taken > 0 and "zero" or "none")
end

function M.wait()
    ngx.flush(true)
    ngx.sleep(3)
end

return M
]]

-- The ends of requests: what is in the location; options of curl, if any.
-- Without its code cache the Lua module 0.10.23 may run the code of another
-- location in a subrequest, so there are none then (only = "on").
local ENDS = {
    ["returns"] = { [[content_by_lua_block { H.take() ngx.say "yes" }]] },
    ["raises"] = { [[content_by_lua_block { H.raise() }]] },
    ["raises in rewrite"] = { [[rewrite_by_lua_block { H.raise() }]] },
    ["raises in access"] = { [[access_by_lua_block { H.raise() }]] },
    ["raises in a header filter"] = { [[
        header_filter_by_lua_block { H.raise() }
        content_by_lua_block { ngx.say "yes" }]], "-m 0.3" },
    ["raises in a body filter"] = { [[
        body_filter_by_lua_block { H.raise() }
        content_by_lua_block { ngx.say "yes" }]] },
    ["raises in a log handler after taking"] = { [[
        content_by_lua_block { H.take() ngx.say "yes" }
        log_by_lua_block { error("as meant", 0) }]] },
    ["takes in set"] = { [[
        set_by_lua_block $x { H.take() return 1 }
        content_by_lua_block { ngx.say "yes" }]] },
    ["exits with 200"] = { [[
        content_by_lua_block { H.take() ngx.exit(200) }]] },
    ["exits with 403"] = { [[
        content_by_lua_block { H.take() ngx.exit(403) }]] },
    ["exits with 444"] = { [[
        content_by_lua_block { H.take() ngx.exit(444) }]] },
    ["exits from inside with"] = { [[content_by_lua_block {
        H.with(H.pool, 100000, function(h) h:fill(65) ngx.exit(500) end) }]] },
    ["execs"] = { [[content_by_lua_block { H.take() ngx.exec "/yes" }]] },
    ["execs in rewrite, and takes again"] = { [[rewrite_by_lua_block {
        H.take() if not ngx.req.is_internal() then
            ngx.exec(ngx.var.uri) end }
        content_by_lua_block { H.take() ngx.say "yes" }]] },
    ["is redirected by error_page"] = { [[error_page 500 = /yes;
        content_by_lua_block { H.raise() }]] },
    ["redirects"] = { [[
        content_by_lua_block { H.take() ngx.redirect "/yes" }]] },
    ["passes to another server"] = { [[access_by_lua_block { H.take() }
        proxy_pass http://127.0.0.1:@PORT@/yes;]] },
    ["takes in a balancer"] = { "proxy_pass http://balanced/yes;" },
    ["captures a subrequest that takes"] = { [[content_by_lua_block {
        ngx.print(ngx.location.capture("/returns").body) }]],
        only = "on" },
    ["takes before and after a subrequest"] = { [[content_by_lua_block {
        H.take() ngx.print(ngx.location.capture("/returns").body) H.take()
        }]], only = "on" },
    ["goes on after the end of the response"] = { [[content_by_lua_block {
        H.take() ngx.say "yes" ngx.eof() ngx.sleep(0.1) H.take() }]] },
    ["kills a thread that holds buffers"] = { [[content_by_lua_block {
        local t = ngx.thread.spawn(function() H.take() ngx.sleep(60) end)
        ngx.thread.kill(t) ngx.say "yes" }]] },
    ["kills a thread inside with"] = { [[content_by_lua_block {
        local t = ngx.thread.spawn(function()
            H.with(H.pool, 1000, function() ngx.sleep(60) end)
        end)
        ngx.thread.kill(t) ngx.say "yes" }]] },
    ["exits while another thread sleeps"] = { [[content_by_lua_block {
        ngx.thread.spawn(function() H.take() ngx.sleep(60) end)
        ngx.say "yes" ngx.exit(200) }]] },
    ["leaves a coroutine"] = { [[content_by_lua_block {
        coroutine.wrap(function() H.take() coroutine.yield() end)()
        ngx.say "yes" }]] },
    ["takes in a timer"] = { [[content_by_lua_block {
        ngx.timer.at(0, function() H.take() end) ngx.say "yes" }]] },
    ["raises in a timer"] = { [[content_by_lua_block {
        ngx.timer.at(0, H.raise) ngx.say "yes" }]] },
    ["kills a thread in a timer"] = { [[content_by_lua_block {
        ngx.timer.at(0, function()
            local t = ngx.thread.spawn(function() H.take() ngx.sleep(60) end)
            H.take() ngx.thread.kill(t)
        end) ngx.say "yes" }]] },
    ["loses its client, unnoticed"] = { [[content_by_lua_block {
        H.take() ngx.say "yes" ngx.flush(true) ngx.sleep(0.3)
        ngx.say(("x"):rep(1000000)) }]], "-m 0.1" },
    ["loses its client, noticed"] = { [[lua_check_client_abort on;
        content_by_lua_block { H.take() H.wait() }]], "-m 0.1" },
    ["loses its client inside with"] = { [[lua_check_client_abort on;
        content_by_lua_block {
            H.with(H.pool, 1000, function() H.wait() end) }]], "-m 0.1" },
    ["loses its client with on_abort that exits"] = { [[
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function() ngx.exit(499) end) H.take() H.wait()
        }]], "-m 0.1" },
    ["loses its client with on_abort that takes and exits"] = { [[
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function() H.take() ngx.exit(444) end)
            H.take() H.wait() }]], "-m 0.1" },
    ["loses its client with on_abort that returns"] = { [[
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function() end) H.take() ngx.sleep(0.4) }]],
        "-m 0.1" },
    ["waits too long for a body"] = { [[client_body_timeout 100ms;
        content_by_lua_block { H.take() ngx.req.read_body() }]],
        "-m 3 -H 'Content-Length: 100' -d x" },
    ["waits too long for a client that does not read"] = { [[
        send_timeout 100ms;
        content_by_lua_block { H.take()
            for _ = 1, 200 do
                if not ngx.print(("x"):rep(100000)) then break end
                if not ngx.flush(true) then break end
            end }]], "-m 0.5 --limit-rate 1k" },
}

local UPSTREAM = [[
    upstream balanced {
        server 0.0.0.1;
        balancer_by_lua_block {
            require("handlers").take()
            require("ngx.balancer").set_current_peer("127.0.0.1", @PORT@)
        }
    }
]]

local function path_of(title)
    return "/" .. title:gsub("%W", "_")
end

local function locations()
    local text = {}
    for title, case in pairs(ENDS) do
        text[#text + 1] = ("location = %s {\n%s\n}\n"):format(path_of(title),
            (case[1]:gsub("H%.", 'require("handlers").')))
    end
    return table.concat(text)
end

local COMMON = [[
    default_type text/plain;
    location = /yes { return 200 "yes\n"; }
    location = /out { content_by_lua_block { require("handlers").out() } }
    location = /zero { content_by_lua_block { require("handlers").zero() } }
]]

-- Plain, and with handlers in each phase of TLS.
local LISTEN = [[
    listen 127.0.0.1:@PORT@;
    listen 127.0.0.1:@PORT1@ ssl http2;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    ssl_client_hello_by_lua_block { require("handlers").take() }
    ssl_certificate_by_lua_block {
        local handlers = require "handlers"
        handlers.take()
        ngx.sleep(0.01)
        handlers.kept.certificates = (handlers.kept.certificates or 0) + 1
        if handlers.kept.certificates == 2 then
            handlers.raise()
        end
    }
]]

local CERTIFICATE = "openssl req -x509 -newkey ec -nodes "
    .. "-pkeyopt ec_paramgen_curve:prime256v1 -keyout key.pem "
    .. "-out certificate.pem -days 2 -subj /CN=localhost 2>openssl.log"

-- Can a handler of TLS's phases wait? Without patches of OpenResty, which
-- Debian's nginx has too, nginx forgets the connection then. Asked without
-- bufpool.
local function tls_waits()
    local server = nginx.start { prepare = CERTIFICATE, conf = nginx.conf {
        listen = [[
            listen 127.0.0.1:@PORT@ ssl;
            ssl_certificate certificate.pem;
            ssl_certificate_key key.pem;
            ssl_certificate_by_lua_block { ngx.sleep(0.01) }]],
        server = [[location = /yes { return 200 "yes"; }]] } }
    local answer = server:get("/yes", { scheme = "https" })
    server:stop()
    return answer.body == "yes"
end

local function start(modules, cache, server, http, files)
    files["handlers.lua"] = HANDLERS
    return nginx.start {
        conf = nginx.conf {
            modules = modules,
            http = "lua_code_cache " .. cache .. ";\n" .. http,
            main = "thread_pool pool threads=1;",
            listen = LISTEN, server = COMMON .. server,
        }:gsub('lua_package_path "', "%0$prefix/?.lua;"),
        files = files,
        prepare = CERTIFICATE,
        wrap = os.getenv "NGINX_WRAP",
    }
end

local function nothing_out(server)
    return nginx.soon(function()
        return server:get "/out".body == "0\n"
    end)
end

-- Errors that were not meant, of those that nginx logged.
local function unexpected(log)
    local lines = {}
    for line in log:gmatch "[^\n]+" do
        if line:find "%[%l*er%l*%]" or line:find "%[crit%]" then
            if not line:find("as meant", 1, true)
                and not line:find("detected a LuaJIT", 1, true)
                and not line:find("lua_code_cache is off", 1, true) then
                lines[#lines + 1] = line
            end
        end
    end
    return table.concat(lines, "\n")
end

local function ends(modules, cache)
    local server

    setup(function()
        server = start(modules, cache, locations(),
            UPSTREAM .. 'init_by_lua_block { collectgarbage "stop" }', {})
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function check(title, case)
        it("has nothing out, and wiped it, when a request " .. title,
            function()
                local answer = server:get(path_of(title), { curl = case[2] })
                assert.falsy(answer.status == 404, answer.body)
                local state
                assert.truthy(nginx.soon(function()
                    state = server:get "/zero".body
                    return state == "zero\n"
                end), state .. server:log())
            end)
    end

    for title, case in pairs(ENDS) do
        if not case.only or case.only == cache then
            check(title, case)
        end
    end

    if cache == "on" then
        it("has nothing out after a hundred clients that vanish", function()
            local url = server:url(path_of
                "loses its client with on_abort that exits")
            nginx.must(("for i in $(seq 100); do "
                .. "curl -s -o /dev/null -m 0.1 '%s' & done; wait; true")
                :format(url))
            assert.truthy(nothing_out(server))
        end)
    end

    it("leaves no error in the log", function()
        assert.equal("", unexpected(server:log()))
    end)
end

local RULES = [[
local bufpool = require "bufpool"
local H = require "handlers"
local scope, with = H.scope, H.with

local R = {}

local function try(...)
    local ok, message = pcall(...)
    assert(not ok, "nothing was raised")
    return message
end

local function out()
    return bufpool.stats().checked_out
end

-- The ways to get a buffer.
function R.methods()
    local s = assert(scope(H.pool))
    local function check(h, n)
        assert(bufpool.type(h) == "handle")
        assert(tostring(h) == ("\0"):rep(n))
        h:put("x")
    end
    check(s:checkout(5000), 5000)
    check(s:borrow(0), 0)
    check(s:checkout_zeroed(100), 100)
    check(s:checkout_aligned(100, 65536), 100)
    check(s:try_checkout(7), 7)
    check(s:writer(), 0)
    check(s:writer(100000), 0)
    local headed = s:writer(100000, 9)
    assert(headed:put "body":prepend "the head ":tostring() == "the head body")
    assert(s:writer(2 ^ 62, 2 ^ 62) == nil)
    check(s:checkout(7LL), 7)
    local ffi = require "ffi"
    local aligned = s:checkout_aligned(10, 131072)
    assert(ffi.cast("uintptr_t", (aligned:ref())) % 131072 == 0)
    assert(s:stats().checked_out == H.pool:stats().checked_out)
    assert(type(s:trim()) == "number")
    assert(s:with(10, function(h, a) h:put(a) return #h, nil, a end, "xy")
        == 12)
    assert(select("#", s:with(1, function(...) return ... end, nil, nil)) == 3)
    return "yes"
end

-- Leak detection tells the line of each, and its end: the request's.
function R.sites()
    local pool = require("bufpool").new { leak_detection = "all" }
    local s = scope(pool)
    local taken = { s:borrow(0), s:checkout_zeroed(1), s:try_checkout(1),
        s:checkout_aligned(1, 65536), s:writer(), s:checkout(3000000) }
    for i = 7, 106 do
        taken[i] = s:checkout(i)
    end
    local lines, sum = {}, 0
    for _, site in ipairs(pool:sites()) do
        assert(site.place:find "^[^/]*/rules.lua:%d+", site.place)
        lines[site.place:match "%d+"] = true
        sum = sum + site.buffers
    end
    assert(sum == 106 and next(lines, next(lines)), sum)
    H.kept.left, H.kept.released = taken[1], taken[2]
    taken[2]:release()
    H.kept.sites = pool
    return "yes"
end

function R.no_sites()
    local pool, returns = H.kept.sites, 0
    for _, site in ipairs(pool:sites()) do
        assert(site.buffers == 0 and site.bytes == 0 and site.oldest == 0
            and site.gc_returns == 0)
        returns = returns + site.request_returns
    end
    -- All but the one that was released.
    assert(returns == 105 and pool:stats().checked_out == 0, returns)
    local _, message = pcall(function() return #H.kept.left end)
    assert(message:find("released at the end of the request)", 1, true),
        message)
    _, message = pcall(function() return #H.kept.released end)
    assert(message:find ", released at [^/]*/rules.lua:%d+[^/]*", message)
    return "yes"
end

function R.misuse()
    local s = scope(H.pool)
    local text = {
        try(scope), try(scope, 1), try(scope, s), try(scope, "default"),
        try(s.checkout), try(s.checkout, {}, 1), try(s.checkout, s),
        try(s.checkout, s, -1), try(s.checkout, s, 1.5), try(s.writer, s, "x"),
        try(s.checkout_aligned, s, 1, 3), try(s.checkout_aligned, s, 1, 0),
        try(s.with, s, 1), try(with, H.pool, 1, 2), try(with, 1, 1, print),
        try(function() s.x = 1 end), try(s.stats, 1), try(scope, H.pool, 1),
        try(scope, H.pool, { max = 1 }), try(scope, H.pool, { max_bytes = -1 }),
        try(scope, H.pool, { max_buffers = "1" }),
    }
    local huge, message = s:checkout(2 ^ 60)
    assert(huge == nil)
    text[#text + 1] = message
    return table.concat(text, "\n")
end

-- A limit counts what is out of the whole request, until that is given back.
function R.limits()
    local free = scope(H.pool)
    local s = scope(H.pool, { max_buffers = 3 })
    local a, b = s:checkout(10), free:writer()
    local c = assert(s:borrow(10))
    local text = {}
    for _, name in ipairs { "checkout", "borrow", "writer", "try_checkout",
        "checkout_zeroed" } do
        local h, message = s[name](s, 1)
        assert(h == nil)
        text[name] = message
        text[1] = message
    end
    assert(text.checkout == text.writer and text.borrow == text.try_checkout)
    assert(s:with(1, print) == nil and free:checkout(1))
    a:release()
    assert(s:checkout(1) == nil)
    b:release()
    local d = assert(s:writer())
    d:freeze():release()
    assert(assert(s:with(1, function() return s:writer() == nil end)))
    c:release()
    -- Memory counts, not what was asked for: one of 4 KiB is out already.
    local bytes = scope(H.pool, { max_bytes = 2 * 4096 + 262144 })
    local large = assert(bytes:checkout(70000))
    assert(bytes:checkout(1))
    local h, message = bytes:writer()
    assert(h == nil)
    text[2] = message
    large:release()
    h, message = bytes:checkout(262145)
    assert(h == nil and message == text[2]:gsub("0 bytes", "262145 bytes"))
    assert(bytes:checkout(2 ^ 60) == nil)
    assert(bytes:checkout(2000)):resize(190000)
    assert(bytes:checkout(0) == nil)
    local none = scope(H.pool, { max_buffers = 0, max_bytes = 0 })
    assert(none:writer() == nil and scope(H.pool, {}):writer())
    return table.concat(text, "\n")
end

-- A handle that was released; its descriptor is someone else's now.
function R.reuse()
    local h = scope(H.pool):checkout(100)
    h:release()
    H.kept[1] = H.pool:borrow(100)
    H.kept[1]:fill(67)
    return "yes"
end

function R.reused()
    assert(tostring(H.kept[1]) == ("C"):rep(100))
    H.kept[1]:release()
    return "yes"
end

-- What was frozen is the collector's.
function R.freeze()
    local h = scope(H.pool):writer()
    h:put("frozen here")
    H.kept[1] = h:freeze()
    return "yes"
end

function R.frozen()
    local text = tostring(H.kept[1])
    H.kept[1]:release()
    return text
end

-- A ticket is good after the end of the request that has made it.
function R.detach()
    local h = scope(H.pool):writer()
    h:put("detached here")
    H.kept[1] = h:detach()
    return "yes"
end

function R.adopted()
    local buf = assert(bufpool.adopt(H.kept[1]))
    local text = tostring(buf)
    buf:release()
    return text
end

function R.keep()
    H.kept[1] = scope(H.pool)
    H.kept[2] = H.kept[1]:checkout(10)
    return "yes"
end

-- While this request lives, another one uses its scope, and so does a timer.
function R.lent()
    H.kept[1] = scope(H.pool)
    H.kept[2] = H.kept[1]:checkout(10)
    local sock, said = ngx.socket.tcp()
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(sock:send "GET /used HTTP/1.0\r\n\r\n")
    local all = sock:receive "*a":match "\r\n\r\n(.-)\n"
    assert(ngx.timer.at(0, function()
        said = try(H.kept[1].borrow, H.kept[1], 1)
    end))
    repeat
        ngx.sleep(0.01)
    until said
    return all .. "\n" .. said .. "\n" .. #H.kept[1]:checkout(5)
end

function R.used()
    return try(H.kept[1].checkout, H.kept[1], 1)
end

function R.kept()
    return try(H.kept[1].checkout, H.kept[1], 1) .. "\n"
        .. bufpool.type(H.kept[2]) .. "\n"
        .. try(H.kept[2].put, H.kept[2], "x")
end

function R.raised()
    local e = {}
    local before = out()
    local ok, got = pcall(with, H.pool, 10, function() error(e) end)
    assert(not ok and got == e)
    with(H.pool, 10, function(h) h:release() end)
    with(H.pool, 10, function(h) H.kept[1] = h:freeze() end)
    H.kept[1]:release()
    assert(out() <= before + 1)         -- the list
    return "yes"
end

-- Many at once, of two scopes of two pools.
function R.many()
    local other = bufpool.new()
    local a, b = scope(H.pool), scope(other)
    local before = out()
    for i = 1, 100000 do
        (i % 2 == 0 and a or b):checkout(1)
    end
    assert(out() == before + 100000)
    return "yes"
end

-- One after the other, through one scope, several scopes and with.
function R.million()
    local s = scope(H.pool)
    local before = H.pool:stats()
    for _ = 1, 300000 do
        s:checkout(100):release()
    end
    for i = 1, 30000 do
        scope(H.pool):checkout(100):release()
        with(H.pool, 10, function(h) return h:byte(1) end)
    end
    local after = H.pool:stats()
    assert(after.checked_out == before.checked_out)
    assert(after.bytes_checked_out == before.bytes_checked_out,
        after.bytes_checked_out)
    return "yes"
end

function R.closed()
    local pool = bufpool.new()
    local s = scope(pool)
    local h = s:checkout(1000)
    pool:close()
    h:fill(1)
    return try(s.checkout, s, 1) .. "\n" .. try(scope, pool)
end

local ONE = 4096

local function small(buffers)
    return bufpool.new { classes = { { size = ONE } },
        max_bytes = buffers * ONE }
end

function R.shortage()
    local full = small(2)
    local a, b = full:borrow(1), full:borrow(1)
    local none, no_list = scope(full)
    assert(none == nil and not with(full, 1, print))
    a:release()
    b:release()
    local s = scope(full)
    assert(s:checkout(1))
    local h, message = s:checkout(1)
    assert(h == nil and not s:with(1, print))
    local exhausted = select(2, scope(bufpool.new()):try_checkout(2 ^ 22))
    return message .. "\n" .. no_list .. "\n" .. exhausted
end

-- All of the pool is garbage when it is to give a list, and then a buffer.
function R.garbage()
    local pool = small(8)
    collectgarbage "restart"
    for _ = 1, 8 do
        assert(pool:checkout(1))
    end
    local s = scope(pool)
    while s and pool:try_checkout(1) do end
    local h = s and s:checkout(1)
    collectgarbage "stop"
    assert(s, "no list")
    assert(h, "no buffer")
    return "yes"
end

-- The list of the request is a small pool's, and cannot grow.
function R.full_list()
    local per = ONE / 8
    local pool = small(per + 1)
    local a, b = scope(pool), scope(H.pool)
    for _ = 1, per do
        assert(a:checkout(1))
    end
    local before = out()
    for _ = 1, 10 do
        assert(b:checkout(1))
    end
    assert(out() == before + 11)        -- another list
    assert(not a:checkout(1))
    return "yes"
end

-- What is in a list that cannot grow counts as well, in scopes of both lists.
function R.full_list_limits()
    local per = ONE / 8
    local pool = small(per + 1)
    local old, b = scope(pool), scope(H.pool, { max_buffers = per + 5 })
    local bytes = scope(H.pool, { max_bytes = (per + 6) * ONE })
    for _ = 1, per do
        assert(old:checkout(1))
    end
    for _ = 1, 5 do
        assert(b:checkout(1))
    end
    local reached = "max_buffers of the scope reached (" .. per + 5 .. ")"
    assert(select(2, b:checkout(1)) == reached)
    local new = scope(H.pool, { max_buffers = per + 5 })
    assert(select(2, new:checkout(1)) == reached)
    assert(bytes:checkout(1))
    assert(not bytes:checkout(1))
    return "yes"
end

-- In turn, one more than are in a list that cannot grow: what is released makes
-- room in one list while another one is full. The pool has memory for both.
function R.full_lists()
    local per = 2 * ONE / 8
    local pool = bufpool.new { max_bytes = (2 + per + 2) * ONE,
        classes = { { size = ONE }, { size = 2 * ONE } } }
    local s, taken = scope(pool), {}
    for i = 1, per + 1 do
        taken[i] = assert(s:checkout(1))
    end
    for i = 1, 4 * per do
        taken[i]:release()
        taken[per + 1 + i] = assert(s:checkout(1))
    end
    return "yes"
end

-- What the collector frees in its second round, of 1000 scopes. A worker that
-- is never idle would hold it besides.
function R.rounds()
    local left
    for _ = 1, 3 do     -- at first `states` grows
        for _ = 1, 1000 do
            scope(H.pool)
        end
        collectgarbage()
        left = collectgarbage "count"
        collectgarbage()
        left = left - collectgarbage "count"
    end
    collectgarbage "stop"
    assert(left < 10, left)
    return "yes"
end

-- Hidden from whoever looks for it in reasonable places.
function R.hidden()
    local s = scope(H.pool)
    assert(getmetatable(s) == "bufpool.scope")
    assert(next(s) == nil and s.list == nil and s.__index == nil)
    assert(not pcall(setmetatable, s, {}))
    return "yes"
end

-- Handles that were made up.
function R.forged()
    local ffi = require "ffi"
    local s = scope(H.pool)
    local h = s:checkout(100)
    h:release()
    for _ = 1, 3 do
        H.pool:borrow(100):release()
    end
    local values = ffi.new("uint64_t[3]", -1, 0, 0xffffff)
    for i = 0, 2 do
        local forged = ffi.cast("struct bufpool_handle *",
            ffi.cast("void *", values[i]))
        try(function() return forged:put("x") end)
    end
    return "yes"
end

return R
]]

local function rules(modules, with)
    local server

    local function content(name)
        return ([[location = /%s { content_by_lua_block {
            ngx.say(require("rules").%s()) } }]]):format(name, name)
    end

    setup(function()
        local text = {}
        for name in RULES:gmatch "function R%.([%a_]+)" do
            text[#text + 1] = content(name)
        end
        text[#text + 1] = [[
            location = /log {
                content_by_lua_block {
                    local H = require "handlers"
                    ngx.ctx.h = H.scope(H.pool):checkout(10)
                    ngx.say "yes"
                }
                log_by_lua_block {
                    local H = require "handlers"
                    H.kept.log = require("bufpool").type(ngx.ctx.h)
                    local ok, s = pcall(H.scope, H.pool)
                    H.kept.message = ok and "took "
                        .. #s:checkout(10) or s
                }
            }
            location = /logged { content_by_lua_block {
                local kept = require("handlers").kept
                ngx.say(kept.log, ": ", kept.message)
            } }
            location = /init_worker { content_by_lua_block {
                ngx.say(INIT, "\n", INIT_WORKER) } }
            location = /thread { content_by_lua_block {
                ngx.say(tostring(select(2, ngx.run_worker_thread("pool",
                    "threaded", "run")))) } }
        ]]
        server = start(modules, "on", table.concat(text, "\n"), [[
            init_by_lua_block {
                collectgarbage "stop"
                local H = require "handlers"
                INIT = select(2, pcall(H.scope, H.pool))
            }
            init_worker_by_lua_block {
                local H = require "handlers"
                INIT_WORKER = select(2, pcall(H.scope, H.pool))
            } ]], {
                ["rules.lua"] = RULES,
                ["threaded.lua"] = [[
                    local bufpool = require "bufpool"
                    local scope = require "bufpool.ngx.scope"
                    return { run = function()
                        return select(2, pcall(scope.scope,
                            bufpool.default()))
                    end }
                ]],
            })
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function says(path, ...)
        local answer = server:get(path)
        assert.equal(200, answer.status, answer.body .. server:log())
        for _, text in ipairs { ... } do
            if not answer.body:find(text, 1, true) then
                error("not '" .. text .. "' in:\n" .. answer.body, 2)
            end
        end
    end

    local function home()
        assert.truthy(nothing_out(server), server:get "/out".body)
    end

    it("gives handles by every method of a pool", function()
        says("/methods", "yes")
        home()
    end)

    it("tells leak detection where buffers were checked out", function()
        says("/sites", "yes")
        home()
        says("/no_sites", "yes")
    end)

    it("gives no more than its limits", function()
        says("/limits", "max_buffers of the scope reached (3)",
            "max_bytes of the scope reached (0 bytes asked for)")
        home()
    end)

    it("raises misuse and says what was expected", function()
        says("/misuse", "bad argument #1 to 'scope' (pool expected, got nil)",
            "pool expected, got number", "pool expected, got table",
            "bad self to 'checkout' (scope expected, got nil)",
            "bad self to 'checkout' (scope expected, got table)",
            "bad argument #1 to 'checkout' (number expected, got nil)",
            "size expected, got -1", "size expected, got 1.5",
            "bad argument #1 to 'writer' (number expected, got string)",
            "power of two expected, got 3", "power of two expected, got 0",
            "bad argument #2 to 'with' (function expected, got nil)",
            "bad argument #3 to 'with' (function expected, got number)",
            "bad argument #1 to 'with' (pool expected, got number)",
            "assign to a field of a scope",
            "bad self to 'stats' (scope expected, got number)",
            "bad argument #2 to 'scope' (table expected, got number)",
            "unknown key 'max' in 'scope'", "size expected, got -1",
            "bad argument #2 to 'scope' (number expected, got string)",
            "bytes asked for")
        home()
    end)

    it("leaves alone who has a descriptor after the scope", function()
        says("/reuse", "yes")
        assert.equal("1\n", server:get "/out".body)
        says("/reused", "yes")
        home()
    end)

    it("lets frozen contents outlive the request", function()
        says("/freeze", "yes")
        says("/frozen", "frozen here")
        home()
    end)

    it("lets a ticket outlive the request", function()
        says("/detach", "yes")
        says("/adopted", "detached here")
        home()
    end)

    it("ends with each phase of TLS, over HTTP/2 as well", function()
        local options = { scheme = "https", port = 1 }
        for i = 1, 3 do
            local answer = server:get("/yes", options)
            if i == 1 and answer.failed and not tls_waits() then
                return pending "this nginx lacks OpenResty's patches for TLS"
            end
            assert.equal(i == 2 and "" or "yes\n", answer.body, answer.said)
        end
        home()
    end)

    it("says that its request has ended", function()
        says("/keep", "yes")
        says("/kept", "attempt to use a scope after its request ended", "dead",
            "attempt to use a released handle")
        home()
    end)

    it("refuses another request", function()
        local refused = "attempt to use a scope of another request"
        says("/lent", refused, refused, "5")
        home()
    end)

    it("passes errors of with, and lets fn give its handle away", function()
        says("/raised", "yes")
        home()
    end)

    it("releases 100,000 of two pools", function()
        says("/many", "yes")
        home()
    end)

    it("needs no more memory after 300,000 checkouts than after one",
        function()
            says("/million", "yes")
            home()
        end)

    it("says that its pool was closed, and releases what is out", function()
        says("/closed", "attempt to use a closed pool")
        home()
    end)

    it("returns nil and a message when memory is short", function()
        says("/shortage", "max_bytes of the pool reached (1 bytes",
            "max_bytes of the pool reached (0 bytes", "exhausted")
        home()
    end)

    it("collects garbage before it says that memory is short", function()
        says("/garbage", "yes")
        home()
    end)

    it("goes on when the list of the request cannot grow", function()
        says("/full_list", "yes")
        home()
        says("/full_list_limits", "yes")
        home()
        says("/full_lists", "yes")
        home()
    end)

    it("shows its list to nobody", function()
        says("/hidden", "yes")
        says("/forged", "yes")
        home()
    end)

    it("leaves nothing for the collector's second round", function()
        says("/rounds", "yes")
    end)

    it("refuses where there is no request", function()
        says("/init_worker", "bad call of 'scope' (outside of a request)",
            "bad call of 'scope' (outside of a request, in init_worker_by_lua)")
        says("/thread", "bad call of 'scope' (outside of a request)")
    end)

    it(with and "still works in log_by_lua"
        or "is over in log_by_lua, and says so", function()
            says("/log", "yes")
            says("/logged", unpack(with and { "handle: took 10" } or {
                "dead: ", "bad call of 'scope' (in log_by_lua, where a request "
                .. "has no end" }))
            home()
        end)

    it("leaves no error in the log", function()
        assert.equal("", unexpected(server:log()))
    end)
end

nginx.ways("a scope in nginx", function(modules, with)
    describe("and lua_code_cache on", function()
        ends(modules, "on")
    end)
    describe("and lua_code_cache off", function()
        ends(modules, "off")
    end)
    rules(modules, with)
end)
