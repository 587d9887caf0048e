-- examples/openresty in a real nginx, on a loopback port of its own.
local helper = require "support.helper"
local nginx = require "support.nginx"

local must, read, soon = nginx.must, nginx.read, nginx.soon
local missing = nginx.missing()

describe("the OpenResty examples", function()
    if missing then
        pending("answer in nginx: " .. missing .. " is not installed")
        return
    end

    local server

    -- A prefix with links to the sources, for nginx writes below its prefix.
    local function start(user)
        server = nginx.start {
            conf = nginx.examples(),
            links = {
                ["build/lua"] = nginx.build .. "/lua",
                lua = nginx.root .. "/lua",
                examples = nginx.root .. "/examples",
            },
            pid = "build/nginx.pid", user = user,
        }
    end

    local function get(path, options)
        local answer = server:get(path, options)
        assert.equal(nil, answer.failed, answer.said)
        return answer.body, answer.status, answer.headers
    end

    local function log()
        return read(server.dir .. "/build/nginx-error.log")
    end

    -- What a command makes of the text.
    local function through(command, text)
        nginx.write(server.dir .. "/in", text)
        return must(("{ %s <%s/in; }"):format(command, server.dir))
    end

    local function lines(count)
        local list = {}
        for i = 1, count do
            list[i] = ("%08d"):format(i) .. ("."):rep(1015) .. "\n"
        end
        return table.concat(list)
    end

    -- The sum over the workers; it is as old as what they published.
    local function figure(name)
        local text = get("/status", { headers = { Accept = "text/plain" } })
        local sum
        for value in text:gmatch("\n" .. name
            .. '{[^}]*pool="app"[^}]*} (%d+)') do
            sum = (sum or 0) + value
        end
        return assert(sum, "no " .. name)
    end

    setup(function() start() end)
    teardown(function() server:stop() end)

    it("answer with the digest of an upload", function()
        for _, n in ipairs { 0, 1, 65536, 65537, 3000000 } do
            local text = ("0123456789abcdef"):rep(n / 16 + 1):sub(1, n)
            local body, status = get("/upload", { body = text })
            assert.equal(200, status, body)
            assert.equal(through("sha256sum", text):match "^%x+" .. "\n", body)
        end
    end)

    it("refuse an upload of unknown length", function()
        local _, status = get("/upload", { body = "abc",
            headers = { ["Transfer-Encoding"] = "chunked" } })
        assert.equal(411, status)
    end)

    it("answer with what they assembled", function()
        for _, count in ipairs { 1024, 0, 1, 20000 } do
            local body, status, headers = get("/pieces?count=" .. count)
            assert.equal(200, status)
            assert.equal(tostring(#lines(count)), headers["content-length"])
            assert.truthy(body == lines(count))
        end
    end)

    it("answer many requests at once", function()
        local text = must(("for i in 1 2 3 4 5 6 7 8; do curl -sS "
            .. "--max-time 20 'http://127.0.0.1:%d/pieces?count=3000' "
            .. "-o %s/answer$i & done; wait; cat %s/answer*"):format(
            server.port, server.dir, server.dir))
        assert.truthy(text == lines(3000):rep(8))
    end)

    it("refuse a bad request and say why", function()
        for _, bad in ipairs { "x", "-1", "1.5", "nan", "1e9", "" } do
            local body, status = get("/pieces?count=" .. bad)
            assert.equal(400, status, "count=" .. bad)
            assert.truthy(body:find("whole number", 1, true))
        end
        local body, status = get("/compress")
        assert.equal(400, status)
        assert.equal("no body\n", body)
    end)

    it("compress in a worker thread", function()
        for _, n in ipairs { 1, 1000, 3000000 } do
            local text = ("some text, and more "):rep(n / 20 + 1):sub(1, n)
            local packed, status = get("/compress", { body = text })
            assert.equal(200, status, packed)
            assert.equal("\31\139", packed:sub(1, 2))
            assert.truthy(through("gzip -dc", packed) == text)
        end
    end)

    -- Lua modules before 0.10.28 refuse nothing.
    it("wait for a worker thread when all are taken", function()
        local calls, pauses, refused = 0, 0, 3
        local env = setmetatable({ ngx = {
            sleep = function() pauses = pauses + 1 end,
            run_worker_thread = function(...)
                calls = calls + 1
                if calls <= refused then
                    return false, "no available Lua vm"
                end
                return true, select("#", ...), (...)
            end } }, { __index = _G })
        local run = setfenv(assert(loadfile(nginx.root
            .. "/examples/openresty/thread.lua")), env)()
        assert.same({ true, 3, "a" }, { run("a", "b", nil) })
        assert.same({ 4, 3 }, { calls, pauses })
        refused = math.huge
        assert.same({ false, "no available Lua vm" }, { run "a" })
        assert.equal(3 + 1000, pauses)
    end)

    it("carry frames over a connection", function()
        assert.equal("1023 bytes there and back\n", (get "/frames"))
    end)

    it("show the status of the pool", function()
        assert.truthy(soon(function()
            return figure "bufpool_checkouts_total" > 20
        end))
    end)

    it("have nothing out between requests", function()
        local text = ("x"):rep(3000000)
        server:get("/upload", { body = text,
            curl = "-m 0.2 --limit-rate 100k" })
        server:get("/pieces?count=90000", { curl = "-m 0.05" })
        server:get("/compress", { body = text, curl = "-m 0.01" })
        -- The figures are published every second.
        os.execute "sleep 1.2"
        assert.truthy(soon(function()
            return figure "bufpool_checked_out_buffers" == 0
                and figure "bufpool_in_transit_buffers" == 0
        end))
    end)

    -- A variable of this name tells nginx that it inherits sockets.
    it("are run by the nginx that NGINX names", function()
        local dir = must "mktemp -d":gsub("\n", "")
        must(("ln -s \"$(command -v %s)\" '%s/another nginx'"):format(
            nginx.program, dir))
        local function run(program)
            return helper.shell(("cd %s && SECONDS_EACH=1 BUILD=%s NGINX=%s "
                .. "timeout 60 examples/openresty/run frames </dev/null")
                :format(helper.quote(nginx.root),
                helper.quote(os.getenv "BUILD" or "build"),
                helper.quote(program)))
        end
        if select(2, helper.shell "command -v wrk") == 0 then
            local said, status = run(dir .. "/another nginx")
            assert.equal(0, status, said)
        end
        assert.truthy(run("/nowhere/nginx"):find("bufpool: /nowhere/nginx is "
            .. "not installed", 1, true))
        must("rm -r " .. dir)
    end)

    it("go on answering after a reload", function()
        local old = server:workers()
        server:reload()
        assert.truthy(soon(function()
            for worker in pairs(server:workers()) do
                if old[worker] then
                    return false
                end
            end
            return true
        end), "the old workers do not go")
        assert.truthy(get "/pieces?count=100" == lines(100))
    end)

    it("end without an error in their log", function()
        assert.truthy(server:quit())
        for line in log():gmatch "[^\n]+" do
            -- A remark on stock LuaJIT, which is fine with us.
            if not line:find("detected a LuaJIT version", 1, true) then
                assert.falsy(line:find "%[%l*er%l*%]"
                    or line:find("[crit]", 1, true), line)
            end
        end
    end)

    if not nginx.is_root then
        pending "say what their workers cannot read: not started by root"
        return
    end

    it("say in their log what workers cannot read", function()
        server:stop()
        start(false)
        local answer, status = get "/pieces"
        assert.equal(500, status, answer)
        local text = log()
        assert.truthy(text:find("a worker cannot read [^:]*/pool%.lua: "
            .. "Permission denied"), text)
        assert.truthy(text:find("-g 'user root;'", 1, true), text)
    end)
end)
