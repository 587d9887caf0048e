-- examples/openresty in a real nginx, on a loopback port of its own.
local BUILD = os.getenv "BUILD" or "build"
local TRIES = 100       -- waits of a tenth of a second

local function shell(command)
    local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1 </dev/null; "
        .. "echo \"status $?\"", "r"))
    local text, status = pipe:read "*a":match "^(.*)status (%d+)\n$"
    pipe:close()
    return text, tonumber(status)
end

local function must(command)
    local text, status = shell(command)
    if status ~= 0 then
        error(command .. ": status " .. status .. ":\n" .. text, 2)
    end
    return text
end

local function read(name)
    local file = assert(io.open(name, "r"))
    local text = file:read "*a"
    file:close()
    return text
end

-- Is it so within some seconds?
local function soon(condition)
    for _ = 1, TRIES do
        if condition() then
            return true
        end
        os.execute "sleep 0.1"
    end
    return false
end

local missing = select(2, shell("command -v nginx")) ~= 0 and "nginx"
    or select(2, shell("command -v curl")) ~= 0 and "curl"
    or select(2, shell("test -e /usr/lib/nginx/modules/"
        .. "ngx_http_lua_module.so")) ~= 0 and "nginx's Lua module"

describe("the OpenResty example", function()
    if missing then
        pending("answers in nginx: " .. missing .. " is not installed")
        return
    end

    local dir, port, pid

    -- A prefix with links to the sources, for nginx writes below its prefix.
    -- Its workers run as `user`, unless that is nil.
    local function start(user)
        local root = must "pwd -P":gsub("\n", "")
        dir = must "mktemp -d":gsub("\n", "")
        must(("cd %s && mkdir build && ln -s '%s/%s/lua' build/lua && "
            .. "ln -s '%s/lua' '%s/examples' ."):format(dir, root, BUILD,
            root, root))
        local command = ("nginx -p %s -c nginx.conf -e build/early.log %s "
            .. ">%s/build/output"):format(dir,
            user and "-g 'user " .. user .. ";'" or "", dir)
        math.randomseed(os.time())
        for _ = 1, 10 do
            port = math.random(20000, 32000)
            must(("sed 's/8089/%d/' examples/openresty/nginx.conf "
                .. ">%s/nginx.conf"):format(port, dir))
            if select(2, shell(command)) == 0 then
                assert(soon(function()
                    return select(2, shell(("test -s %s/build/nginx.pid")
                        :format(dir))) == 0
                end), "nginx wrote no pid")
                pid = tonumber(read(dir .. "/build/nginx.pid"))
                return
            end
        end
        error("nginx does not start:\n" .. must("tail -n 5 " .. dir
            .. "/build/*"))
    end

    local function alive()
        return select(2, shell("kill -0 " .. pid)) == 0
    end

    local function stop()
        if pid and alive() then
            must("kill -QUIT " .. pid)
            return soon(function() return not alive() end)
        end
    end

    local function get(path)
        local text = must(("curl -sS --max-time 20 -w ' %%{http_code}' "
            .. "'http://127.0.0.1:%d%s'"):format(port, path))
        local body, status = text:match "^(.*)\n (%d+)$"
        return body, tonumber(status)
    end

    local function expected(pieces)
        local lines = {}
        for i = 1, pieces do
            lines[i] = i .. " " .. ("."):rep(i % 100) .. "\n"
        end
        local text = table.concat(lines)
        local name = dir .. "/expected"
        local file = assert(io.open(name, "w"))
        file:write(text)
        file:close()
        return ('{"pieces":%d,"length":%d,"sha256":"%s"}'):format(pieces,
            #text, must("sha256sum " .. name):match "^%x+")
    end

    local function workers()
        local pids = {}
        local name = ("/proc/%d/task/%d/children"):format(pid, pid)
        for child in read(name):gmatch "%d+" do
            pids[tonumber(child)] = true
        end
        return pids
    end

    local function answering_worker()
        return tonumber((get "/stats":match '"pid":(%d+)'))
    end

    local function clear()
        stop()
        if dir then
            must("rm -rf " .. dir)
        end
    end

    local is_root = must "id -u" == "0\n"

    setup(function()
        start(is_root and "root" or nil)
    end)
    teardown(clear)

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
            .. "-o %s/answer$i & done; wait; cat %s/answer*"):format(port,
            dir, dir))
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
        local old = workers()
        assert.truthy(old[answering_worker()])
        must("kill -HUP " .. pid)
        assert.truthy(soon(function()
            for worker in pairs(workers()) do
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
        assert.truthy(stop())
        local log = read(dir .. "/build/nginx-error.log")
        for line in log:gmatch "[^\n]+" do
            -- A remark on stock LuaJIT, which is fine with us.
            if not line:find("detected a LuaJIT version", 1, true) then
                assert.falsy(line:find "%[%l*er%l*%]"
                    or line:find("[crit]", 1, true), line)
            end
        end
    end)

    if not is_root then
        pending "says what its workers cannot read: not started by root"
        return
    end

    it("says in its log what its workers cannot read", function()
        clear()
        start()
        local answer, status = get "/digest"
        assert.equal(500, status, answer)
        local log = read(dir .. "/build/nginx-error.log")
        assert.truthy(log:find("a worker cannot read [^:]*/handler%.lua: "
            .. "Permission denied"), log)
        assert.truthy(log:find("-g 'user root;'", 1, true), log)
    end)
end)
