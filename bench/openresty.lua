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
-- worker, less what was resident before its first request. Garbage is what one
-- request leaves in the Lua heap while the collector is stopped; the
-- collector's time is that of full collections, made whenever the heap has
-- doubled, in COLLECTED requests.
--
-- An answer with an error makes the sample void, and the program says so.
--
--   luajit bench/openresty.lua [--module FILE] [--quick] [--only TEXT]
--                              [--out DIRECTORY]
--
-- --module is ngx_http_bufpool_module.so; without it print copies. --only takes
-- the rows whose name contains the text. --out writes openresty-performance
-- .json, .svg and the tables of .md into the directory.
local report = require "report"
local nginx = require "support.nginx"

local options = report.options(arg, { module = true, quick = false,
    only = true, out = true })
local REPEATS = options.quick and 1 or 5
local SECONDS = options.quick and 1 or 4
local CONNECTIONS = 16
local BODY = 5000000            -- bytes of an upload

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
    { name = "thread", title = "1 MiB to a worker thread and back", want = 5,
        against = { "string" } },
    { name = "upload", title = "5 MB upload in memory, SHA-256",
        want = 1 / 0.8, by = "cpu", against = { "string" }, post = true,
        http = "client_body_buffer_size 6m; client_body_in_single_buffer on;" },
    { name = "uploadfile", title = "5 MB upload in a file, SHA-256",
        want = 1 / 0.8, by = "cpu", against = { "string" }, post = true },
}

-- What captures the response of an upstream for its log handler, by contender.
-- The upstream is a handler in the same worker.
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
        want = want, against = { "ngx.arg, table.concat" },
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

-- Measuring ------------------------------------------------------------------

local SERVER = [[
        location = /run { %s }
        location = /upstream { content_by_lua_block {
            handlers.answer(tonumber(ngx.var.arg_size))
        } }
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
        return row.ways[name] .. ("\nproxy_pass http://127.0.0.1:@PORT@"
            .. "/upstream?size=%d;"):format(row.size)
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

local function sample(row, name)
    local server = nginx.start {
        conf = configuration(row, name),
        links = {
            ["openresty_handlers.lua"] = nginx.root
                .. "/bench/openresty_handlers.lua",
            ["openresty_thread.lua"] = nginx.root
                .. "/bench/openresty_thread.lua",
        },
        files = { ["post.lua"] = POST:format(BODY / 10),
            whole = ("0123456789abcdef"):rep(65536) },
    }
    local ok, figures = pcall(function()
        local request = row.post and { body = ("0123456789"):rep(BODY / 10) }
            or {}
        server:get "/nothing"
        local worker = next(server:workers())
        local resident = nginx.resident(worker)
        local answer = server:get("/run", request)
        assert(answer.status == 200, server:log())
        local got = {}
        wrk(server, "/run", 1, row.post)
        local before, kernel = processor(worker)
        local rate, count = wrk(server, "/run", SECONDS, row.post)
        got.rate = rate
        local after, kernel_after = processor(worker)
        got.cpu = (after - before) / count
        got.kernel = (kernel_after - kernel) / count
        got.peak = math.max(0, peak(worker) - resident)
        server:get("/garbage", request)
        wrk(server, "/collect", 1, row.post)
        for key, value in server:get "/figures".body:gmatch "(%w+)=(%S+)" do
            got[key] = tonumber(value)
        end
        return got
    end)
    server:stop()
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
            for key, value in pairs(sample(row, name)) do
                samples[name][key] = samples[name][key] or {}
                table.insert(samples[name][key], value)
            end
        end
    end
    report.progress()
    row.figures = {}
    for name, figures in pairs(samples) do
        row.figures[name] = {}
        for key, list in pairs(figures) do
            row.figures[name][key] = report.median(list)
        end
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

local function verdict(row)
    local best
    for _, name in ipairs(row.against) do
        if not best or merit(row, name) > merit(row, best) then
            best = name
        end
    end
    local got = merit(row, "bufpool") / merit(row, best)
    return { row.title, best, row.by == "cpu" and "processor time"
        or "requests/s", report.number(row.want), report.number(got),
        got >= row.want and "met" or "**missed**" }
end

local function bytes(n)
    return n < 9999.5 and ("%.0f B"):format(n)
        or n < 9.9995e6 and ("%.0f kB"):format(n / 1e3)
        or ("%.0f MB"):format(n / 1e6)
end

local function markdown(rows)
    local out = { ("Machine: %s. %s.%s"):format(report.machine(),
        nginx.must "nginx -v 2>&1":gsub("\n", ""):gsub("nginx version: ", ""),
        options.module and "" or " Without ngx_http_bufpool_module.") }
    local function add(...)
        out[#out + 1] = report.line({ ... }, select("#", ...))
    end
    out[#out + 1] = "\nHow many times as good as the best of the others "
        .. "bufpool is:\n"
    add("what", "best of the others", "figure", "wanted", "measured", "")
    add("---", "---", "---", "---", "---", "---")
    for _, row in ipairs(rows) do
        out[#out + 1] = report.line(verdict(row), 6)
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

local rows = {}
for _, row in ipairs(ROWS) do
    if not options.only or row.name:find(options.only, 1, true) then
        rows[#rows + 1] = measure(row)
    end
end
local text = markdown(rows)
print((text:gsub("%*%*", "")), tables(rows))
if options.out then
    local path = options.out .. "/openresty-performance"
    report.save_json(path .. ".json", { machine = report.machine(),
        rows = rows })
    report.save(path .. ".svg", plot(rows))
    report.insert(path .. ".md", text)
end
