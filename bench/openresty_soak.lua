-- What must hold in nginx under load, for longer than a spec may run.
--
-- Method. examples/openresty and handlers that end in every way there is run in
-- nginx, once with ngx_http_bufpool_module and once without. wrk loads them
-- over loopback with CONNECTIONS connections. Each check below says what it
-- does, and prints what it saw. The program fails when a check does.
--
--   luajit bench/openresty_soak.lua [--module FILE] [--seconds N] [--only TEXT]
--                                   [--example NAME]
--
-- --only takes the checks whose name contains the text: flat, reload, kill,
-- ends, nocache, threads. --example has flat try that one only.
local report = require "report"
local nginx = require "support.nginx"

local options = report.options(arg, { module = true, seconds = true,
    only = true, example = true })
local SECONDS = tonumber(options.seconds or 30)
local CONNECTIONS = 64
local MIB = 1048576
-- Connections that end with each response, so that a worker may end between
-- two of them.
local CLOSE = "-H 'Connection: close'"

local failures = 0

local function say(...)
    report.progress()
    print(string.format(...))
end

local function check(ok, ...)
    say("    %s  %s", ok and "ok    " or "FAILED", string.format(...))
    if not ok then
        failures = failures + 1
    end
end

-- Starts wrk, and returns a function that waits for its end and gives what it
-- said: requests, answers that are not 2xx or 3xx, errors of sockets.
local function start_wrk(server, path, seconds, more)
    local name = server.dir .. "/wrk"
    local pipe = assert(io.popen(("wrk -t 1 -c %d -d %ds --timeout 20 %s %s "
        .. ">%s 2>&1; echo $?"):format(CONNECTIONS, seconds, more or "",
        server:url(path), name)))
    return function()
        pipe:read "*a"
        pipe:close()
        local text = nginx.read(name)
        local errors = 0
        for n in (text:match "Socket errors:([^\n]*)" or ""):gmatch "%d+" do
            errors = errors + tonumber(n)
        end
        return {
            requests = tonumber(text:match "(%d+) requests in") or 0,
            refused = tonumber(text:match "Non%-2xx or 3xx responses: (%d+)")
                or 0,
            errors = errors, said = text,
        }
    end
end

local function resident(server)
    local sum = 0
    for pid in pairs(server:workers()) do
        sum = sum + (nginx.resident(pid) or 0)
    end
    return sum
end

local function mean(list, from, to)
    local sum, n = 0, 0
    for k = math.floor(from * #list) + 1, math.floor(to * #list) do
        sum, n = sum + list[k], n + 1
    end
    return sum / n
end

local function wait(seconds)
    os.execute("sleep " .. seconds)
end

-- Figures of the pool "soak", or of all: name=number.
local function figures(server)
    local got = {}
    for key, value in server:get "/figures".body:gmatch "([%w_]+)=(%S+)" do
        got[key] = tonumber(value)
    end
    return got
end

local function examples(module, change)
    local conf = nginx.examples { module }
    return nginx.start {
        conf = change and change(conf) or conf, pid = "build/nginx.pid",
        links = { ["build/lua"] = nginx.build .. "/lua",
            lua = nginx.root .. "/lua",
            examples = nginx.root .. "/examples" },
    }
end

local POST = [[
wrk.method = "POST"
wrk.body = ("some text, %%d times\n"):rep(%d)
]]

-- Name, path, lines of a body that is posted. nginx's Lua module makes a Lua VM
-- for each task of a worker thread that is in flight, and the heap of each
-- grows until its collector has run. `warm` lines in a body, which take less
-- time, let that happen first.
local EXAMPLES = {
    { "upload", "/upload", 50000 }, { "pieces", "/pieces?count=1024" },
    { "compress", "/compress", 5000, warm = 20 }, { "frames", "/frames" },
    { "status", "/status" },
}

local function more_of(server, lines)
    if not lines then
        return ""
    end
    nginx.write(server.dir .. "/post.lua", POST:format(lines))
    return "-s " .. server.dir .. "/post.lua"
end

local checks = {}

-- Load on every example: no error, and memory that stays as it is.
function checks.flat(module)
    local function flat(example)
        local server = examples(module)
        if example.warm then
            report.progress(example[1] .. ": warming up")
            start_wrk(server, example[2], SECONDS,
                more_of(server, example.warm))()
        end
        local finish = start_wrk(server, example[2], SECONDS,
            more_of(server, example[3]))
        local samples = {}
        for second = 1, SECONDS - 1 do
            report.progress(("%s: %d of %d s"):format(example[1], second,
                SECONDS))
            wait(1)
            samples[second] = resident(server)
        end
        local got = finish()
        local second, last = mean(samples, 1 / 3, 2 / 3),
            mean(samples, 2 / 3, 1)
        check(got.requests > 0 and got.errors == 0 and got.refused == 0,
            "%s: %d requests, %d not 2xx, %d errors of sockets", example[1],
            got.requests, got.refused, got.errors)
        check(last < 1.05 * second, "%s: %.1f MiB resident in the last third, "
            .. "%.1f in the second", example[1], last / MIB, second / MIB)
        server:stop()
    end
    for _, example in ipairs(EXAMPLES) do
        if not options.example or options.example == example[1] then
            flat(example)
        end
    end
end

-- Ten reloads under load: no request fails, and the old workers go.
function checks.reload(module)
    local server = examples(module)
    local finish = start_wrk(server, "/pieces?count=200", 22, CLOSE)
    for k = 1, 10 do
        report.progress(("reload %d of 10"):format(k))
        wait(2)
        server:reload()
    end
    local got = finish()
    check(got.requests > 0 and got.errors == 0 and got.refused == 0,
        "ten reloads: %d requests, %d not 2xx, %d errors of sockets",
        got.requests, got.refused, got.errors)
    local count
    check(nginx.soon(function()
        count = 0
        for _ in pairs(server:workers()) do
            count = count + 1
        end
        return count == 2
    end), "ten reloads: %d workers are left of 2, %.1f MiB resident", count,
        resident(server) / MIB)
    server:stop()
end

-- A worker is killed under load: the other one goes on, and a new one works.
function checks.kill(module)
    local server = examples(module)
    local finish = start_wrk(server, "/pieces?count=200", 6, CLOSE)
    wait(2)
    local victim = next(server:workers())
    nginx.must("kill -9 " .. victim)
    local got = finish()
    check(got.errors <= CONNECTIONS and got.refused == 0,
        "kill -9 of a worker: %d requests, %d errors of sockets, of %d "
        .. "connections", got.requests, got.errors, CONNECTIONS)
    local count = 0
    for pid in pairs(server:workers()) do
        count = count + (pid ~= victim and 1 or 0)
    end
    got = start_wrk(server, "/pieces?count=200", 2, CLOSE)()
    check(count == 2 and got.requests > 0 and got.errors == 0
        and got.refused == 0, "kill -9 of a worker: then %d workers, %d "
        .. "requests, %d not 2xx, %d errors of sockets", count, got.requests,
        got.refused, got.errors)
    server:stop()
end

local function soak_server(module, http)
    local locations = {}
    for _, name in ipairs { "large", "raises", "exits", "redirects", "execs",
        "waits", "kills", "fine", "figures", "thread" } do
        locations[#locations + 1] = ("location = /%s { content_by_lua_block { "
            .. "require('openresty_soak_handlers').%s() } }"):format(name, name)
    end
    return nginx.start {
        conf = nginx.conf {
            modules = module and { module },
            main = "thread_pool soak threads=4;",
            http = http or "lua_check_client_abort on;",
            server = table.concat(locations, "\n"),
        },
        links = {
            ["openresty_soak_handlers.lua"] = nginx.root
                .. "/bench/openresty_soak_handlers.lua",
            ["openresty_soak_thread.lua"] = nginx.root
                .. "/bench/openresty_soak_thread.lua",
        },
    }
end

-- A client that reads 20,000 bytes of a response and goes away.
local ABORT = [[
for i in $(seq %d); do
    (exec 3<>/dev/tcp/127.0.0.1/%d
    printf 'GET /%s HTTP/1.1\r\nHost: x\r\n\r\n' >&3
    timeout 0.3 head -c 20000 <&3 >/dev/null) 2>/dev/null &
    [ $((i %% 16)) = 0 ] && wait
done
wait
]]

-- Nine in ten requests are answered, one goes away in the middle; and requests
-- end in every other way.
function checks.ends(module)
    local server = soak_server(module)
    local function abort(count, path)
        nginx.write(server.dir .. "/abort",
            ABORT:format(count, server.port, path))
        nginx.must("bash " .. server.dir .. "/abort")
    end
    report.progress "clients that go away"
    for _, path in ipairs { "raises", "exits", "redirects", "execs", "kills",
        "fine" } do
        for _ = 1, 20 do
            server:get("/" .. path)
        end
    end
    local finish = start_wrk(server, "/large", 6, CLOSE)
    abort(100, "large")
    abort(100, "waits")
    local got = finish()
    wait(1)
    local after = figures(server)
    check(got.errors == 0 and got.refused == 0 and after.out == 0
        and after.gc_returns == 0,
        "200 clients went away beside %d requests, and 120 requests ended in "
        .. "six ways: %d buffers are out, the collector returned %d",
        got.requests, after.out or -1, after.gc_returns or -1)
    server:stop()
end

-- Every request has a Lua VM of its own.
function checks.nocache(module)
    local server = soak_server(module, "lua_code_cache off;")
    local function run()
        local finish = start_wrk(server, "/large", 10, CLOSE)
        return finish()
    end
    local requests, errors, first = 0, 0, nil
    repeat
        local got = run()
        requests = requests + got.requests
        errors = errors + got.errors + got.refused
        first = first or resident(server)
        report.progress(("lua_code_cache off: %d requests"):format(requests))
    until requests >= 10000 or got.requests == 0
    local last = resident(server)
    check(errors == 0 and requests >= 10000
        and not server:log():find "table overflow",
        "lua_code_cache off: %d requests, %d failed", requests, errors)
    check(last < 1.1 * first, "lua_code_cache off: %.1f MiB resident after, "
        .. "%.1f at first", last / MIB, first / MIB)
    server:stop()
end

-- Four threads at full load, each buffer stamped by every owner.
function checks.threads(module)
    local server = soak_server(module)
    local got = start_wrk(server, "/thread", SECONDS)()
    wait(1)
    local after = figures(server)
    check(got.requests > 0 and got.errors == 0 and got.refused == 0
        and after.out == 0 and after.in_transit == 0,
        "four threads: %d hand-overs there and back, %d wrong, %d errors of "
        .. "sockets; %d out, %d in transit", got.requests, got.refused,
        got.errors, after.out or -1, after.in_transit or -1)
    server:stop()
end

for _, module in ipairs { options.module or false, false } do
    say(module and "With ngx_http_bufpool_module:" or "Without a module:")
    for _, name in ipairs { "flat", "reload", "kill", "ends", "nocache",
        "threads" } do
        if not options.only or name:find(options.only, 1, true) then
            checks[name](module)
        end
    end
end
say("%s", failures == 0 and "All of it holds." or failures .. " checks failed.")
os.exit(failures == 0)
