-- What doc/openresty.md says, tried in a real nginx.
local nginx = require "support.nginx"

local missing = nginx.missing()
local GUIDE = nginx.read(nginx.root .. "/doc/openresty.md")

-- What each call of the table does with x, a buffer, handle or frozen object
-- that holds "abc". Returns what came of it.
local CALLS = [=[
local C = {}

local function socket()
    local sock = ngx.socket.tcp()
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    return sock
end

C["ngx.print"] = function(x) return ngx.print(x) end
C["ngx.say"] = function(x) return ngx.say(x) end
C["sock:send"] = function(x) return socket():send(x) end
C["ngx.log"] = function(x) return ngx.log(ngx.ERR, x) end
C["ngx.arg[1] ="] = function(x)
    KEPT = x
    return ngx.location.capture("/arg").body
end
C["ngx.req.set_body_data"] = function(x)
    ngx.req.read_body()
    return ngx.req.set_body_data(x)
end
C["ngx.req.append_body"] = function(x)
    ngx.req.read_body()
    ngx.req.init_body()
    return ngx.req.append_body(x)
end
C["ngx.location.capture` with `body"] = function(x)
    return ngx.location.capture("/yes", { body = x })
end
C["ngx.encode_args"] = function(x) return ngx.encode_args { a = x } end
C["ngx.hmac_sha1"] = function(x) return ngx.hmac_sha1("key", x) end
C["ngx.decode_base64"] = ngx.decode_base64
C["table.concat"] = function(x) return table.concat { x } end
C["ngx.run_worker_thread"] = function(x)
    return ngx.run_worker_thread("pool", "thread", "run", x)
end
C["ngx.shared.DICT:set` as a value"] = function(x)
    return ngx.shared.d:set("key", x)
end
C["ngx.shared.DICT:set` as a key"] = function(x)
    ngx.shared.d:set("abc", 0)
    ngx.shared.d:set(x, 5)
    return ngx.shared.d:get("abc")
end
for _, name in ipairs { "encode_base64", "md5", "sha1_bin", "crc32_short",
    "crc32_long", "escape_uri", "unescape_uri" } do
    C["ngx." .. name] = ngx[name]
end
C["ngx.re.match"] = function(x) return ngx.re.match(x, "b.*")[0] end
C["ngx.re.find"] = function(x) return ngx.re.find(x, "b") end
C["ngx.re.gsub"] = function(x) return (ngx.re.gsub(x, "b", "x")) end
C["ngx.re.gmatch"] = function(x) return ngx.re.gmatch(x, "b.*")()[0] end
C["ngx.header.NAME ="] = function(x)
    ngx.header["X-A"] = x
    return ngx.header["X-A"]
end
C["ngx.req.set_header"] = function(x)
    ngx.req.set_header("X-A", x)
    return ngx.req.get_headers()["X-A"]
end
C["ngx.var.NAME ="] = function(x)
    ngx.var.name = x
    return ngx.var.name
end
C["ngx.timer.at` as an argument"] = function(x)
    local got
    assert(ngx.timer.at(0, function(_, y) got = y end, x))
    repeat
        ngx.sleep(0.01)
    until type(got) ~= "nil"
    return rawequal(x, got) or x == got
end

local bufpool = require "bufpool"

local function objects()
    local pool = bufpool.default()
    local handle = pool:borrow(0)
    handle:put("abc")
    return {
        pool:writer():put("abc"), handle, pool:writer():put("abc"):freeze(),
    }
end

-- "refused", "as a string", "as it is", or what else.
local function outcome(call, x)
    local ok, a, b = pcall(call, x)
    if not ok or a == nil and b == "bad value type"
        or a == false and tostring(b):find("unsupported Lua type", 1, true)
        or a == "refused\n" then
        return "refused"
    elseif a == true then
        return "as it is"
    end
    local _, of_string, more = pcall(call, "abc")
    return a == of_string and b == more and "as a string" or tostring(a)
end

return function()
    local call = C[ngx.unescape_uri(ngx.var.arg_call)]
    if not call then
        return ngx.exit(404)
    end
    local outcomes = {}
    for i, x in ipairs(objects()) do
        outcomes[i] = outcome(call, x)
        x:release()
    end
    ngx.header["X-A"] = nil
    ngx.say(table.concat(outcomes, ", "))
end
]=]

local function names_of_calls()
    local names = {}
    for name in CALLS:gmatch '\nC%["(.-)"%]' do
        names[name] = true
    end
    for name in CALLS:match "ipairs (%b{})":gmatch '"(.-)"' do
        names["ngx." .. name] = true
    end
    return names
end

-- The table, as call -> what the guide says.
local function table_of_calls()
    local rows = {}
    local section = GUIDE:match "\n## What takes a buffer\n(.-)\n## "
    for calls, says in section:gmatch "\n| (`[^|]*) | ([^|]*) |" do
        local first, rest = calls:match "^`([^`]*)`( .*)$"
        if rest and rest:find "^ with" or rest and rest:find "^ as " then
            rows[first .. "`" .. rest:gsub("`$", "")] = says
        else
            for call in calls:gmatch "`([^`]*)`" do
                rows[call] = says
            end
        end
    end
    return rows
end

-- What stands in fences of this kind.
local function blocks(kind)
    local list = {}
    for code in GUIDE:gmatch("\n```" .. kind .. "\n(.-)\n```\n") do
        list[#list + 1] = code
    end
    return list
end

local function escaped(text)
    return (text:gsub("%W", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function start(parts, files, user)
    return nginx.start {
        conf = nginx.conf(parts):gsub('lua_package_path "',
            "%0$prefix/?.lua;"),
        files = files, user = user,
    }
end

-- Has the call that the request's argument `fail` names fail, each second one
-- for `some_NAME`.
local FAILING = [[
local bufpool, B = require "bufpool", require "bufpool.ngx"
local calls = 0

local function fails(name)
    local ok, wanted = pcall(function() return ngx.var.arg_fail end)
    if ok and wanted == "some_" .. name then
        calls = calls + 1
        return calls % 2 == 0
    end
    return ok and wanted == name
end

local function wrap(t, name, ...)
    local real, results, n = t[name], { ... }, select("#", ...)
    t[name] = function(...)
        if fails(name) then
            return unpack(results, 1, n)
        end
        return real(...)
    end
end

wrap(ngx, "run_worker_thread", false, "no free vm")
wrap(bufpool, "adopt", nil, "no such ticket")
wrap(B, "print", nil, "nginx output filter error")
wrap(B, "scope", nil, "out of memory")
wrap(B, "capture", nil, "out of memory")
wrap(B, "captured", nil, "not captured")
wrap(B, "rewrite", nil, "too large")
wrap(B, "body_pieces", nil, "timeout", 0)
wrap(B, "read_body", nil, "out of memory")
local read_body = B.read_body
function B.read_body(...)
    local buf, message = read_body(...)
    if buf and fails "detach" then
        return {
            detach = function() return nil, "out of memory" end,
            release = function() buf:release() end,
        }
    end
    return buf, message
end
]]
local CALLS_THAT_FAIL = { "run_worker_thread", "some_run_worker_thread",
    "print", "scope", "capture", "captured", "rewrite", "body_pieces",
    "read_body", "detach" }

local THREAD = [[
local bufpool = require "bufpool"
assert(not pcall(require, "bufpool.ngx"))
local function gzip(ticket)
    local from = assert(bufpool.adopt(ticket))
    local to = assert(bufpool.get "app"):writer()
    to:put("packed ", from)
    from:release()
    return to:detach()
end
local function slow(ticket)
    os.execute "sleep 0.3"
    return gzip(ticket)
end
return { gzip = gzip, slow = slow }
]]

-- The locations of all handlers, and their paths.
local function handlers()
    local server, paths = {}, {}
    for _, code in ipairs(blocks "nginx") do
        for location in code:gmatch "(location = %S+ %b{})" do
            server[#server + 1] = location
            paths[#paths + 1] = location:match "= (%S+)"
        end
    end
    for i, code in ipairs(blocks "lua nginx") do
        server[#server + 1] = ("location = /lua%d { content_by_lua_block {\n%s"
            .. "\n} }"):format(i, code)
        paths[#paths + 1] = "/lua" .. i
    end
    return table.concat(server, "\n"), paths
end

local MAIN = "thread_pool pool threads=1; thread_pool app threads=1;"

describe("the guide to nginx", function()
    if missing then
        pending("is tried in nginx: " .. missing .. " is not installed")
        return
    end

    local server

    local function stop()
        if server then
            server:stop()
            server = nil
        end
    end

    after_each(stop)

    it("says for each call whether it takes a buffer", function()
        server = start({
            main = MAIN, http = "lua_shared_dict d 1m;",
            server = [[
                location = /call {
                    set $name "";
                    content_by_lua_block { require("calls")() }
                }
                location = /yes { return 200 "yes"; }
                location = /arg {
                    content_by_lua_block { ngx.say "something" }
                    body_filter_by_lua_block {
                        if ngx.arg[1] ~= "" then
                            local ok = pcall(function()
                                ngx.arg[1] = KEPT
                            end)
                            ngx.arg[1] = ok and "taken\n" or "refused\n"
                        end
                    }
                }
            ]],
        }, {
            ["calls.lua"] = CALLS,
            ["thread.lua"] = "return { run = type }",
        })
        local says, tried = table_of_calls(), names_of_calls()
        for call in pairs(tried) do
            assert.truthy(says[call], "the guide does not name " .. call)
        end
        local count = 0
        for call, text in pairs(says) do
            assert.truthy(tried[call], "not tried: " .. call)
            local answer = server:get("/call?call=" .. escaped(call))
            local want = text:find "^refused" and "refused"
                or text:match "^taken,? (as a string)"
                or text:match "^taken (as it is)"
            assert.truthy(want, text)
            assert.equal(("%s, %s, %s\n"):format(want, want, want),
                answer.body, call .. ": " .. server:log():sub(-600))
            count = count + 1
        end
        assert.truthy(count > 20)
    end)

    it("begins with a configuration that works", function()
        local conf = blocks("nginx")[1]:match "^http {\n(.*)\n}$"
            :gsub('lua_package_%a+ "[^"]*";', "")
        local inside, location = conf:match "^(.-)server {.-(location.*)}%s*$"
        server = start({ http = inside, server = location }, {})
        assert.equal("hello, 127.0.0.1\n", server:get "/hello".body,
            server:log())
    end)

    it("has handlers that work", function()
        local list = blocks "lua nginx"
        assert.truthy(#list > 0)
        local files, locations = {}, {}
        for i, code in ipairs(list) do
            files["handler" .. i .. ".lua"] = code
            locations[i] = ("location = /%d { content_by_lua_file "
                .. "handler%d.lua; }\n"):format(i, i)
        end
        server = start({ server = table.concat(locations) }, files)
        for i in ipairs(list) do
            local answer = server:get("/" .. i)
            assert.equal(200, answer.status, server:log())
            assert.truthy(#answer.body > 0)
        end
    end)

    it("hands a buffer to a worker thread and back", function()
        local main, location
        for _, code in ipairs(blocks "nginx") do
            if code:find("thread_pool", 1, true) then
                main, location = code:match "^(thread_pool[^;]*;)[^\n]*\n(.*)$"
            end
        end
        server = start({
            main = main, server = location .. [[
                location = /slow { content_by_lua_block {
                    local bufpool = require "bufpool"
                    ngx.run_worker_thread("app", "compress_thread", "slow",
                        bufpool.get("app"):checkout(1000):detach())
                } }
                location = /out { content_by_lua_block {
                    local stats = require("bufpool").get("app"):stats()
                    ngx.say(stats.in_transit, " ", stats.checked_out) } }
            ]],
            http = [[
                lua_check_client_abort on;
                init_worker_by_lua_block {
                    require("bufpool").new { name = "app", ticket_ttl = 0.2 }
                } ]],
        }, {
            ["compress_thread.lua"] = THREAD,
        })
        assert.equal("packed some text", server:get("/compress",
            { body = "some text" }).body, server:log())
        assert.equal("0 0\n", server:get "/out".body)
        server:get("/slow", { curl = "-m 0.1" })
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0 0\n"
        end), server:get "/out".body .. server:log())
    end)

    it("has handlers that keep nothing under load, whatever fails", function()
        local locations, paths = handlers()
        assert.truthy(#paths >= 4)
        locations = locations:gsub("127.0.0.1:8089", "127.0.0.1:@PORT@")
        server = start({
            main = MAIN, server = locations .. [[
                location = /out { content_by_lua_block {
                    collectgarbage()
                    collectgarbage()
                    local stats = require("bufpool").stats()
                    ngx.say(stats.in_transit, " ", stats.checked_out) } }
            ]],
            http = [[
                init_worker_by_lua_block {
                    require("bufpool").new { name = "app", ticket_ttl = 0 }
                    require "failing"
                } ]],
        }, { ["compress_thread.lua"] = THREAD, ["failing.lua"] = FAILING })
        for _, path in ipairs(paths) do
            assert.equal(200, server:get(path, { body = "some text" }).status,
                path .. server:log())
            for _, name in ipairs(CALLS_THAT_FAIL) do
                nginx.must(("curl -s -Z --parallel-max 16 --max-time 20 -d x "
                    .. "'%s?fail=%s&[1-40]' >%s/answers"):format(
                    server:url(path), name, server.dir))
                assert.truthy(nginx.soon(function()
                    return server:get "/out".body == "0 0\n"
                end), path .. " " .. name .. ": " .. server:get "/out".body)
            end
        end
    end)

    it("knows that idle memory goes home without traffic", function()
        for _, init in ipairs { "", [[init_by_lua_block {
            require "bufpool.ngx" }]] } do
            server = start({ http = init, server = [[
                location = /use { content_by_lua_block {
                    local pool = require("bufpool").default()
                    pool:checkout(40000000):fill(1):release()
                    require("bufpool.ngx").print("yes")
                } } ]] }, {})
            assert.equal("yes", server:get "/use".body)
            local worker = next(server:workers())
            local before = nginx.resident(worker)
            local home
            for _ = 1, 6 do
                home = home or nginx.soon(function()
                    return nginx.resident(worker) < before - 36000000
                end)
            end
            assert.truthy(home, before - nginx.resident(worker))
            assert.truthy(server:quit())
            stop()
        end
    end)

    it("has one timer in a worker", function()
        for _, cache in ipairs { "on", "off" } do
            server = start({ http = "lua_code_cache " .. cache .. ";",
                server = [[
                location = /timers { content_by_lua_block {
                    require("bufpool.ngx").print ""
                    ngx.say(ngx.timer.pending_count()
                        + ngx.timer.running_count())
                } } ]] }, {})
            for _ = 1, 5 do
                assert.equal("1\n", server:get "/timers".body)
            end
            assert.truthy(server:quit())
            stop()
        end
    end)

    it("knows how long a ticket is good in nginx", function()
        server = start({
            server = [[
                location = /ttl { content_by_lua_block {
                    local bufpool = require "bufpool"
                    local function try(...)
                        ngx.say(tostring(select(2, pcall(bufpool.new, ...))))
                    end
                    try { name = "a" }
                    try { name = "a", ticket_ttl = 60 }
                    try { name = "a", ticket_ttl = 0 }
                    bufpool.default()
                    try { name = "default", ticket_ttl = 60 }
                } }
            ]],
        }, {})
        local said = server:get "/ttl".body
        local lines = {}
        for line in said:gmatch "[^\n]+" do
            lines[#lines + 1] = line:match "^userdata" or line:match
                "exists with a different .*"
        end
        assert.same({ "userdata", "userdata",
            "exists with a different 'ticket_ttl'", "userdata" }, lines,
            said .. server:log())
    end)

    it("knows what becomes of a pool of the master", function()
        server = start({
            http = [[
                init_by_lua_block {
                    require("bufpool").new { name = "m", one_mib_count = 1 }
                } ]],
            server = [[
                location = /use { content_by_lua_block {
                    local pool = require("bufpool").get "m"
                    ngx.say(pool:with(10, function(buf) return #buf end))
                } } ]],
        }, {})
        assert.equal("10\n", server:get "/use".body)
        local name = server.dir .. "/nginx.conf"
        nginx.write(name, (nginx.read(name):gsub("one_mib_count = 1",
            "one_mib_count = 2")))
        server:reload()
        assert.truthy(nginx.soon(function()
            return server:log():find("exists with a different "
                .. "'one_mib_count'", 1, true)
        end), server:log())
        assert.equal("10\n", server:get "/use".body)
    end)

    it("knows that a reload takes a new configuration of a worker's pool",
        function()
            server = start({
                http = [[
                    init_worker_by_lua_block {
                        require("bufpool").new { name = "w",
                            one_mib_count = 1 }
                    } ]],
                server = [[
                    location = /count { content_by_lua_block {
                        local pool = require("bufpool").get "w"
                        ngx.say(pool:stats().classes[4].ready)
                    } } ]],
            }, {})
            assert.equal("1\n", server:get "/count".body)
            local name = server.dir .. "/nginx.conf"
            nginx.write(name, (nginx.read(name):gsub("one_mib_count = 1",
                "one_mib_count = 2")))
            server:reload()
            assert.truthy(nginx.soon(function()
                return server:get "/count".body == "2\n"
            end), server:log())
        end)

    it("knows which pools stay where lua_code_cache is off", function()
        server = start({
            http = "lua_code_cache off;",
            server = [[
                location = /named { content_by_lua_block {
                    local bufpool = require "bufpool"
                    local found = bufpool.get "n"
                    bufpool.new { name = "n" }:borrow(10)
                    ngx.say(found and found:stats().checked_out)
                } }
                location = /unnamed { content_by_lua_block {
                    local bufpool = require "bufpool"
                    local before = bufpool.stats().committed_bytes
                    bufpool.new():checkout(2000000)
                    ngx.say(before)
                } } ]],
        }, {})
        assert.equal("nil\n", server:get "/named".body)
        assert.equal("2\n", server:get "/named".body)
        assert.equal("3\n", server:get "/named".body)
        local before = server:get "/unnamed".body
        for _ = 1, 5 do
            assert.equal(before, server:get "/unnamed".body)
        end
    end)

    it("knows that workers are told where they cannot read", function()
        if not nginx.is_root then
            return
        end
        server = start({ server = [[
            location = /use { content_by_lua_block {
                require "readable" ngx.say "yes" } } ]] },
            { ["readable.lua"] = "return true" }, false)
        local answer = server:get "/use"
        assert.equal(500, answer.status)
        assert.truthy(server:log():find("module 'readable' not found", 1,
            true), server:log())
    end)

    it("knows that exit_worker_by_lua has no scope", function()
        server = start({ http = [[
            exit_worker_by_lua_block {
                local ok, message = pcall(require("bufpool.ngx").scope,
                    require("bufpool").default())
                ngx.log(ngx.WARN, "at the exit: ", message)
            } ]], main = "error_log exit.log warn;" }, {})
        assert.truthy(server:quit())
        local log = nginx.read(server.dir .. "/exit.log")
        assert.truthy(log:find("at the exit: .*outside of a request, in "
            .. "exit_worker_by_lua"), log)
    end)
end)
