-- examples/openresty in a real nginx, on a loopback port of its own.
local nginx = require "support.nginx"

local must, read, soon = nginx.must, nginx.read, nginx.soon
local missing = nginx.missing()

describe("the OpenResty example", function()
    if missing then
        pending("answers in nginx: " .. missing .. " is not installed")
        return
    end

    local server

    -- A prefix with links to the sources, for nginx writes below its prefix.
    local function start(user)
        server = nginx.start {
            conf = read(nginx.root .. "/examples/openresty/nginx.conf")
                :gsub("8089", "@PORT@"),
            links = {
                ["build/lua"] = nginx.build .. "/lua",
                lua = nginx.root .. "/lua",
                examples = nginx.root .. "/examples",
            },
            pid = "build/nginx.pid", user = user,
        }
    end

    local function get(path)
        local answer = server:get(path)
        assert.equal(nil, answer.failed, answer.said)
        return answer.body:gsub("\n$", ""), answer.status
    end

    local function expected(pieces)
        local lines = {}
        for i = 1, pieces do
            lines[i] = i .. " " .. ("."):rep(i % 100) .. "\n"
        end
        local text = table.concat(lines)
        local name = server.dir .. "/expected"
        nginx.write(name, text)
        return ('{"pieces":%d,"length":%d,"sha256":"%s"}'):format(pieces,
            #text, must("sha256sum " .. name):match "^%x+")
    end

    local function answering_worker()
        return tonumber((get "/stats":match '"pid":(%d+)'))
    end

    setup(function() start() end)
    teardown(function() server:stop() end)

    it("answers with length and digest of what it assembled", function()
        for _, pieces in ipairs { 50000, 0, 1, 200000 } do
            local body, status = get("/digest?pieces=" .. pieces)
            assert.equal(expected(pieces), body)
            assert.equal(200, status)
        end
    end)

    it("answers many requests at once", function()
        local want = expected(20000) .. "\n"
        local text = must(("for i in 1 2 3 4 5 6 7 8; do curl -sS "
            .. "--max-time 20 'http://127.0.0.1:%d/digest?pieces=20000' "
            .. "-o %s/answer$i & done; wait; cat %s/answer*"):format(
            server.port, server.dir, server.dir))
        assert.equal(want:rep(8), text)
    end)

    it("refuses a bad request and says why", function()
        for _, bad in ipairs { "x", "-1", "1.5", "nan", "1e9", "" } do
            local body, status = get("/digest?pieces=" .. bad)
            assert.equal(400, status, "pieces=" .. bad)
            assert.truthy(body:find("whole number", 1, true))
        end
    end)

    it("has nothing checked out between requests", function()
        for _ = 1, 8 do
            get "/digest?pieces=1000"
            assert.equal("0", (get "/stats":match '"checked_out":(%d+)'))
        end
    end)

    it("goes on answering after a reload", function()
        local old = server:workers()
        assert.truthy(old[answering_worker()])
        server:reload()
        assert.truthy(soon(function()
            for worker in pairs(server:workers()) do
                if old[worker] then
                    return false
                end
            end
            return true
        end), "the old workers do not go")
        assert.falsy(old[answering_worker()])
        assert.equal(expected(50000), (get "/digest"))
    end)

    it("ends without an error in its log", function()
        assert.truthy(server:quit())
        local log = read(server.dir .. "/build/nginx-error.log")
        for line in log:gmatch "[^\n]+" do
            -- A remark on stock LuaJIT, which is fine with us.
            if not line:find("detected a LuaJIT version", 1, true) then
                assert.falsy(line:find "%[%l*er%l*%]"
                    or line:find("[crit]", 1, true), line)
            end
        end
    end)

    if not nginx.is_root then
        pending "says what its workers cannot read: not started by root"
        return
    end

    it("says in its log what its workers cannot read", function()
        server:stop()
        start(false)
        local answer, status = get "/digest"
        assert.equal(500, status, answer)
        local log = read(server.dir .. "/build/nginx-error.log")
        assert.truthy(log:find("a worker cannot read [^:]*/handler%.lua: "
            .. "Permission denied"), log)
        assert.truthy(log:find("-g 'user root;'", 1, true), log)
    end)
end)
