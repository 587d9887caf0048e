-- What bufpool saves an nginx worker, next to what handlers use instead.
--
-- Method. bench/openresty_handlers.lua has the contenders, each a handler of
-- nginx's Lua module. nginx has one worker, bound to the first core, and wrk
-- loads it from the second one over loopback, with CONNECTIONS connections.
-- Each sample has an nginx of its own, so that none inherits another's memory;
-- the first second is not counted. The contenders of a row take turns,
-- REPEATS times, and the median of each figure counts.
--
-- Requests a second are wrk's. Processor time is the worker's, its threads
-- included, between the same two moments; the part in the kernel is mostly the
-- copy to and from the socket. Memory is the most that was resident in the
-- worker, less what was resident before its first request; what is resident
-- after the load is seen REST seconds later, next to what was resident after
-- the first request. Garbage is what one request leaves in the Lua heap while
-- the collector is stopped; the collector's time is that of full collections,
-- made whenever the heap has doubled, in COLLECTED requests.
--
-- An answer with an error makes the sample void, and the program says so.
--
--   luajit bench/openresty.lua [--module FILE] [--quick] [--repeats N]
--                              [--only TEXT,TEXT...] [--out DIRECTORY]
--
-- --module is ngx_http_bufpool_module.so; without it print copies. --only takes
-- the rows whose name contains one of the texts. --out writes
-- openresty-performance .json, .svg and the tables of .md into the directory;
-- rows that --only leaves out keep the figures that the .json there has.
local report = require "report"
local nginx = require "support.nginx"

local options = report.options(arg, { module = true, quick = false,
    repeats = true, only = true, out = true })
local REPEATS = tonumber(options.repeats) or options.quick and 1 or 5
local SECONDS = options.quick and 1 or 4
local CONNECTIONS = 16
local REST = options.quick and 0 or 6
local BODY = 5000000            -- bytes of an upload
local BODIES = 20               -- different ones that an echo is sent
local RELAYED = 8000000

-- No handler, but nginx itself: as fast as loopback carries a response.
local SENDFILE = "a file, by sendfile"

-- What is compared, in which figure, and how much better it should be.
local ROWS = {
    { name = "kept", title = "1 MiB that the worker keeps",
        want = 2, against = { "ngx.print" }, others = { SENDFILE } },
    { name = "pieces1024", title = "1 MiB from 1024 pieces", want = 1.3,
        against = { "ngx.print(table)", "ngx.print(table), reused",
            "table.concat", "string.buffer", "string.buffer, reused" },
        others = { "bufpool, as a string" } },
    { name = "pieces600", title = "64 KiB from 600 pieces", want = 1.1,
        against = { "ngx.print(table)", "ngx.print(table), reused",
            "table.concat", "string.buffer", "string.buffer, reused" },
        others = { "bufpool, as a string" } },
    { name = "page", title = "a page of 20 lines, in a scope", want = 0.9,
        peak = 1.1, against = { "table.concat", "string.buffer" } },
    { name = "thread", title = "1 MiB to a worker thread and back", want = 5,
        against = { "string" } },
    { name = "upload", title = "5 MB upload in memory, SHA-256",
        want = 1 / 0.8, by = "cpu", against = { "string" }, post = true,
        http = "client_body_buffer_size 6m; client_body_in_single_buffer on;" },
    { name = "uploadfile", title = "5 MB upload in a file, SHA-256",
        want = 1 / 0.8, by = "cpu", against = { "string" }, post = true },
}

-- What captures the response of an upstream for its log handler, by contender.
-- The upstream is another nginx, on the core of wrk: what it takes is not the
-- worker's.
local CAPTURES = {
    ["bufpool"] = [[
        access_by_lua_block { handlers.begin() }
        log_by_lua_block { handlers.keep() }]],
    ["ngx.arg, table.concat"] = [[
        body_filter_by_lua_block { handlers.collect() }
        log_by_lua_block { handlers.join() }]],
    ["not captured"] = "",
}

local function captures(size, want)
    return { name = "capture" .. size,
        title = ("%d KiB from an upstream, captured for the log"):format(
            size / 1024),
        want = want, peak = size > 65536 and 1 / 3 or nil,
        back = size > 65536 and 1.1 or nil,
        against = { "ngx.arg, table.concat" },
        others = { "not captured" }, size = size, ways = CAPTURES }
end

ROWS[#ROWS + 1] = captures(1048576, 1.5)
ROWS[#ROWS + 1] = captures(16384, 1.2)

-- What rewrites it: with some bytes at its end.
local REWRITES = {
    ["bufpool"] = [[
        header_filter_by_lua_block { handlers.rewrite() }
        body_filter_by_lua_block { handlers.chunk() }]],
    ["ngx.arg, table.concat"] = [[
        header_filter_by_lua_block { handlers.clear() }
        body_filter_by_lua_block { handlers.replace() }]],
    ["not rewritten"] = "",
}

local function rewrites(size, want)
    return { name = "rewrite" .. size,
        title = ("%d KB from an upstream, rewritten"):format(size / 1000),
        want = want, by = "cpu", against = { "ngx.arg, table.concat" },
        others = { "not rewritten" }, size = size, ways = REWRITES }
end

ROWS[#ROWS + 1] = rewrites(1000000, 1.2)
ROWS[#ROWS + 1] = rewrites(16000, 1)

-- The upstream of a relay is nginx itself, which sends a part of a file.
ROWS[#ROWS + 1] = { name = "echo", title = "1 MB request, sent back",
    want = 1.3, peak = 0.5, against = { "string" }, post = true,
    body = 1000000,
    http = "client_body_buffer_size 2m; client_body_in_single_buffer on;" }
ROWS[#ROWS + 1] = { name = "relay", title = "8 MB from a cosocket, sent on",
    want = 1.3, peak = 0.5, against = { "string", "table.concat" },
    file = RELAYED + 5000 }

-- Measuring ------------------------------------------------------------------

local SERVER = [[
        location = /run { %s }
        location = /whole { root .; sendfile on; }
        location = /garbage { content_by_lua_block {
            collectgarbage()
            collectgarbage()
            collectgarbage "stop"
            local before = collectgarbage "count"
            handler()
            figures.garbage = (collectgarbage "count" - before) * 1024
            collectgarbage "restart"
        } }
        location = /collect { content_by_lua_block {
            collectgarbage "stop"
            handler()
            figures.requests = figures.requests + 1
            if collectgarbage "count" > figures.limit then
                local start = os.clock()
                collectgarbage()
                figures.spent = figures.spent + os.clock() - start
                figures.limit = 2 * collectgarbage "count"
            end
        } }
        location = /figures { content_by_lua_block {
            ngx.say("garbage=", figures.garbage, " collector=",
                figures.spent / figures.requests)
        } }
]]

local function location(row, name)
    if row.size then
        return row.ways[name] .. ("\nproxy_pass http://127.0.0.1:%d;"):format(
            row.upstream.port)
    end
    return name == SENDFILE and "root .; try_files /whole =404; sendfile on;"
        or "content_by_lua_block { handler() }"
end

local function configuration(row, name)
    return nginx.conf {
        modules = options.module and { options.module },
        main = "worker_cpu_affinity 01;\nthread_pool bench threads=2;",
        http = ([[
    client_max_body_size 10m;
    %s
    init_worker_by_lua_block {
        handlers = require("openresty_handlers").%s
        handler = handlers[%q] or function() end
        collectgarbage()
        figures = { requests = 0, spent = 0,
            limit = 2 * collectgarbage "count" }
    }
]]):format(row.http or "", row.size and "captures" or row.name, name),
        server = SERVER:format(location(row, name)),
    }
end

local POST = [[
wrk.method = "POST"
wrk.body = ("0123456789"):rep(%d)
]]

-- LuaJIT would find a body again that it has seen a moment ago.
local POSTS = POST .. [[
local requests, k = {}, 0
function init()
    for i = 1, %d do
        requests[i] = wrk.format("POST", nil, nil, i .. wrk.body)
    end
end
function request()
    k = k %% #requests + 1
    return requests[k]
end
]]

local function post_of(row)
    return row.body and POSTS:format(row.body / 10, BODIES)
        or POST:format(BODY / 10)
end

local function wrk(server, path, seconds, post)
    local text = nginx.must(("taskset -c 1 wrk -t 1 -c %d -d %ds %s %s")
        :format(CONNECTIONS, seconds,
            post and "-s " .. server.dir .. "/post.lua" or "",
            server:url(path)))
    local bad = text:match "Non%-2xx[^\n]*" or text:match "Socket err[^\n]*"
    if bad then
        error(("%s: %s\n%s"):format(path, bad, server:log()), 0)
    end
    return tonumber(text:match "Requests/sec:%s*([%d.]+)"),
        tonumber(text:match "(%d+) requests in")
end

-- Seconds of the processor that a process and its threads have used, in all and
-- in the kernel.
local function processor(pid)
    local stat = nginx.read(("/proc/%d/stat"):format(pid)):match "%) (.*)"
    local fields = {}
    for word in stat:gmatch "%S+" do
        fields[#fields + 1] = tonumber(word) or 0
    end
    return (fields[12] + fields[13]) / 100, fields[13] / 100
end

local function peak(pid)
    local text = nginx.read(("/proc/%d/status"):format(pid))
    return tonumber(text:match "VmHWM:%s*(%d+)") * 1024
end

-- Bytes that are different everywhere.
local function digits(n)
    local parts = {}
    for i = 1, math.ceil(n / 8) do
        parts[i] = ("%08d"):format(i * 7919 % 100000000)
    end
    return table.concat(parts):sub(1, n)
end

local LINKS = {
    ["openresty_handlers.lua"] = nginx.root .. "/bench/openresty_handlers.lua",
    ["openresty_thread.lua"] = nginx.root .. "/bench/openresty_thread.lua",
}

local function start_upstream(row)
    return nginx.start { links = LINKS, conf = nginx.conf {
        main = "worker_cpu_affinity 10;",
        server = ([[location / { content_by_lua_block {
            require("openresty_handlers").captures.answer(%d)
        } }]]):format(row.size),
    } }
end

-- Requests whose clients have gone go on for a while.
local function wait_for_the_last(worker)
    local used
    repeat
        used = processor(worker)
        os.execute "sleep 0.3"
    until processor(worker) - used < 0.02
end

local function sample(row, name)
    row.upstream = row.size and start_upstream(row)
    local server = nginx.start {
        conf = configuration(row, name),
        links = LINKS,
        files = { ["post.lua"] = post_of(row),
            whole = digits(row.file or 1048576) },
    }
    local ok, figures = pcall(function()
        local request = row.post and { body = ("0123456789"):rep(
            (row.body or BODY) / 10) } or {}
        server:get "/nothing"
        local worker = next(server:workers())
        local resident = nginx.resident(worker)
        local answer = server:get("/run", request)
        assert(answer.status == 200, server:log())
        local got = {}
        local first = nginx.resident(worker)
        wrk(server, "/run", 1, row.post)
        local before, kernel = processor(worker)
        local rate, count = wrk(server, "/run", SECONDS, row.post)
        got.rate = rate
        local after, kernel_after = processor(worker)
        got.cpu = (after - before) / count
        got.kernel = (kernel_after - kernel) / count
        got.peak = math.max(0, peak(worker) - resident)
        if row.back then
            os.execute("sleep " .. REST)
            got.back = nginx.resident(worker) / first
        end
        wait_for_the_last(worker)
        server:get("/garbage", request)
        wrk(server, "/collect", 1, row.post)
        for key, value in server:get "/figures".body:gmatch "(%w+)=(%S+)" do
            got[key] = tonumber(value)
        end
        return got
    end)
    server:stop()
    if row.upstream then
        row.upstream = row.upstream:stop() and nil
    end
    return ok and figures or error(figures, 0)
end

local function names_of(row)
    local list = { "bufpool" }
    for _, others in ipairs { row.others or {}, row.against } do
        for _, name in ipairs(others) do
            list[#list + 1] = name
        end
    end
    return list
end

local function measure(row)
    local samples = {}
    for turn = 1, REPEATS do
        for _, name in ipairs(names_of(row)) do
            report.progress(("%s, %s: %d of %d"):format(row.title, name, turn,
                REPEATS))
            samples[name] = samples[name] or {}
            report.add(samples[name], sample(row, name))
        end
    end
    report.progress()
    row.figures = {}
    for name, figures in pairs(samples) do
        row.figures[name] = report.medians(figures)
    end
    return row
end

-- Reporting ------------------------------------------------------------------

-- How many times better a contender is than bufpool: by requests a second, or
-- by processor time.
local function merit(row, name)
    local f = row.figures[name]
    return row.by == "cpu" and 1 / f.cpu or f.rate
end

-- The lines of a row: what it wanted and got.
local function verdicts(row)
    local best
    for _, name in ipairs(row.against) do
        if not best or merit(row, name) > merit(row, best) then
            best = name
        end
    end
    local ours, lines = row.figures.bufpool, {}
    local function add(figure, wanted, got, met)
        lines[#lines + 1] = { row.title, best, figure, wanted,
            report.number(got), met and "met" or "**missed**" }
    end
    local got = merit(row, "bufpool") / merit(row, best)
    add(row.by == "cpu" and "processor time" or "requests/s",
        report.number(row.want), got, got >= row.want)
    if row.peak then
        got = ours.peak / row.figures[best].peak
        add("peak memory", "at most " .. report.number(row.peak), got,
            got <= row.peak)
    end
    if row.back then
        add("resident after the load, of that before", "at most "
            .. report.number(row.back), ours.back, ours.back <= row.back)
    end
    return lines
end

local function bytes(n)
    return n < 9999.5 and ("%.0f B"):format(n)
        or n < 9.9995e6 and ("%.0f kB"):format(n / 1e3)
        or ("%.0f MB"):format(n / 1e6)
end

local function markdown(rows)
    local out = { ("Machine: %s. %s.%s"):format(report.machine(),
        nginx.must(nginx.program .. " -v 2>&1"):match "version: ([^\n]*)",
        options.module and "" or " Without ngx_http_bufpool_module.") }
    local function add(...)
        out[#out + 1] = report.line({ ... }, select("#", ...))
    end
    out[#out + 1] = "\nHow many times as good as the best of the others "
        .. "bufpool is, or which part of their memory it takes:\n"
    add("what", "best of the others", "figure", "wanted", "measured", "")
    add("---", "---", "---", "---", "---", "---")
    for _, row in ipairs(rows) do
        for _, line in ipairs(verdicts(row)) do
            out[#out + 1] = report.line(line, 6)
        end
    end
    return table.concat(out, "\n")
end

-- What the page leaves to the plot and to the JSON file.
local function tables(rows)
    local out = {}
    local function add(...)
        out[#out + 1] = report.line({ ... }, select("#", ...))
    end
    for _, row in ipairs(rows) do
        out[#out + 1] = ("\n%s\n"):format(row.title)
        add("", "requests/s", "processor time", "of it in the kernel",
            "collector", "garbage", "peak memory")
        add("---", "---", "---", "---", "---", "---", "---")
        for _, name in ipairs(names_of(row)) do
            local f = row.figures[name]
            add(name, report.number(f.rate), report.time(f.cpu * 1e9),
                report.time(f.kernel * 1e9), report.time(f.collector * 1e9),
                bytes(f.garbage), bytes(f.peak))
        end
    end
    return table.concat(out, "\n")
end

local function plot(rows)
    local groups = {}
    for _, row in ipairs(rows) do
        local group = { name = row.title }
        for _, name in ipairs(names_of(row)) do
            group[#group + 1] = { name, row.figures[name].cpu * 1e9,
                rival = name ~= "bufpool" }
        end
        groups[#groups + 1] = group
    end
    return report.bars("Processor time of the worker per request; "
        .. "logarithmic. Green: bufpool.", { from = 1e4, decades = 3,
        value = report.time, label = report.time_label }, groups)
end

local function is_wanted(row)
    for text in (options.only or ""):gmatch "[^,]+" do
        if row.name:find(text, 1, true) then
            return true
        end
    end
    return not options.only
end

local rows = {}
for _, row in ipairs(ROWS) do
    if is_wanted(row) then
        rows[#rows + 1] = measure(row)
    end
end
print((markdown(rows):gsub("%*%*", "")), tables(rows))
if options.out then
    local path = options.out .. "/openresty-performance"
    rows = report.merge(path .. ".json", ROWS)
    local text = markdown(rows)
    report.save_json(path .. ".json", { machine = report.machine(),
        rows = rows })
    report.save(path .. ".svg", plot(rows))
    report.insert(path .. ".md", text)
end
