-- The status of pools over HTTP: figures, formats, negotiation, the page; then
-- all of it in a real nginx with several workers. Metrics are read by the
-- official Python client, the page by headless Chromium.
local accept = require "bufpool.ngx.status.accept"
local bufpool = require "bufpool"
local dkjson = require "dkjson"
local helper = require "support.helper"
local nginx = require "support.nginx"
local page = require "bufpool.ngx.status.page"
local stats = require "bufpool.stats"
local tally = require "bufpool.ngx.status.tally"
local text = require "bufpool.ngx.status.text"

local quote, shell = helper.quote, helper.shell
-- Pipes are the shell's.
jit.off(shell)

-- Names as an attacker would choose them. The second one is what is shown,
-- where that is another.
local HOSTILE = {
    { "plain" }, { "-" }, { " " }, { "=" }, { "all" }, { "__proto__" },
    { "</script><script>document.title='owned'</script>" },
    { "<img src=x onerror=\"document.title='owned'\">" },
    { "\"} 1\nbufpool_evil{a=\"" }, { "a\nb" }, { "\n# EOF" }, { "a\\nb" },
    { "\\" }, { "a\\" }, { "\\\"" }, { "'; DROP" }, { " # {}" }, { "a # b" },
    { "{},=\"" }, { "a,b=c" }, { "}" }, { "\t" }, { "é €𝄞" },
    { "\226\128\174abc" }, { "{{7*7}}${7*7}" }, { "../../etc/passwd" },
    { "\r\nSet-Cookie: a=b", "\\x0D\nSet-Cookie: a=b" },
    { "\27[31mred", "\\x1B[31mred" }, { "\127", "\\x7F" },
    { "\255\254", "\\xFF\\xFE" }, { "\\xFF", "\\x5CxFF" },
    { "\\\255", "\\\\xFF" }, { "\192\175", "\\xC0\\xAF" },
    { "\237\160\128", "\\xED\\xA0\\x80" }, { "\226\130", "\\xE2\\x82" },
    { "\244\144\128\128", "\\xF4\\x90\\x80\\x80" },
    { "\194\155", "\\xC2\\x9B" }, { ("\255"):rep(63), ("\\xFF"):rep(63) },
    -- Keys of JSON.
    { "requests" }, { "classes" }, { "pools" }, { "sites" },
}

local function shown(entry)
    return entry[2] or entry[1]
end

-- A python3 that has the client, or nil.
local python
for _, name in ipairs { "/usr/bin/python3", "python3" } do
    python = python
        or select(2, shell(name .. " -c 'import prometheus_client'")) == 0
        and name or nil
end

-- Reads metrics as strictly as can be, and prints each sample as JSON.
local READER = [[
import json, re, sys
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as prometheus
data = sys.stdin.buffer.read().decode("utf-8", "strict")
kind = openmetrics if sys.argv[1] == "openmetrics" else prometheus
seen, families, samples = set(), set(), []
assert not re.search(r"(?i)\b(nan|inf)\b|[0-9]e[+-]?[0-9]",
    re.sub(r'"(\\.|[^"\\])*"', "", data)), "a number that is none"
for word in ("HELP", "TYPE"):
    names = re.findall(r"(?m)^# %s (\S+) " % word, data)
    assert len(names) == len(set(names)), word + " twice"
for family in kind.text_string_to_metric_families(data):
    assert family.name not in families, family.name + " twice"
    families.add(family.name)
    assert family.documentation, family.name + ": no help"
    assert family.type in ("counter", "gauge", "histogram") or (
        family.type == "info" and kind is openmetrics), family.type
    if kind is openmetrics:
        assert not family.unit or family.name.endswith(family.unit)
        assert bool(family.unit) == family.name.endswith(
            ("_bytes", "_seconds")), family.name
    for s in family.samples:
        key = (s.name, tuple(sorted(s.labels.items())))
        assert key not in seen, key
        seen.add(key)
        assert (family.type == "counter") == s.name.endswith("_total")
        samples.append({"name": s.name, "labels": s.labels,
            "value": str(s.value), "type": family.type})
json.dump(samples, sys.stdout)
]]

-- The samples of metrics, after the parser has found no fault.
local function parse(metrics, kind)
    local name = os.tmpname()
    nginx.write(name, metrics)
    nginx.write(name .. ".py", READER)
    local output, code = shell(("%s %s.py %s <%s"):format(python, name,
        kind, name))
    os.remove(name)
    os.remove(name .. ".py")
    if code ~= 0 then
        error(output, 2)
    end
    return (assert(dkjson.decode(output)))
end

-- The value of the only sample that has this name and these labels.
local function value_of(samples, name, labels)
    local found
    for _, sample in ipairs(samples) do
        local fits = sample.name == name
        for key, value in pairs(labels) do
            fits = fits and sample.labels[key] == value
        end
        if fits then
            assert.is_nil(found, name)
            found = tonumber(sample.value)
        end
    end
    return found
end

local function read_json(s)
    local value, _, err = dkjson.decode(s)
    return value or error(err, 2)
end

-- Figures of a pool, each number another.
local function figures(first)
    local n = first
    local function next_number()
        n = n + 1
        return n
    end
    local f = { classes = {}, large = {}, numa = {
        available = true, requested = "local",
        pages_by_node = { [0] = next_number(), next_number() },
    } }
    for _, name in ipairs {
        "hits", "misses", "checked_out", "peak_checked_out",
        "bytes_checked_out", "peak_bytes_checked_out", "committed_bytes",
        "cached_bytes", "in_transit", "wiped_bytes", "gc_returns", "lost",
        "refused_by_max_bytes", "refused_by_system", "max_bytes",
        "lock_refused", "large_bytes", "exhausted", "oldest", "pressed_bytes",
        "lock_limit", "resident_bytes",
    } do
        f[name] = next_number()
    end
    for _, name in ipairs {
        "hits", "misses", "out", "bytes_out", "cached", "cached_bytes",
        "requested_bytes",
    } do
        f.large[name] = next_number()
    end
    local function requests()
        local list = {}
        for i = 1, 8 do
            list[i] = next_number()
        end
        return list
    end
    f.large.requests = requests()
    for i, size in ipairs { 4096, 65536 } do
        f.classes[i] = { size = size }
        for _, name in ipairs {
            "count", "ready", "cached", "out", "hits", "misses",
            "floor", "shelf", "requested_bytes",
        } do
            f.classes[i][name] = next_number()
        end
        f.classes[i].requests = requests()
    end
    return f
end

-- What workers.gather returns for one worker with these pools.
local function report(pools, unnamed)
    return {
        version = "1", time = 1, answered_by = "0", workers_configured = 1,
        workers_shown = 1, complete = true,
        workers = { {
            id = "0", pid = 17, age = 0.25, time = 1, pools = pools,
            unnamed = unnamed, totals = figures(0),
        } },
        all = { pools = pools, unnamed = unnamed, totals = figures(0) },
        sites = { {
            worker = "0", pool = HOSTILE[7][1], place = HOSTILE[9][1],
            buffers = 3, bytes = 12288, oldest = 0.5, gc_returns = 9,
            request_returns = 10,
        } },
    }
end

describe("a pool's name", function()
    it("is shown as valid UTF-8 without control characters", function()
        for _, entry in ipairs(HOSTILE) do
            assert.equal(shown(entry), text.name(entry[1]))
        end
    end)

    it("is shown so that it can be told from any other", function()
        -- What is shown gives the name back.
        local pieces = { "\\", "x", "F", "0", "\255", "\27", "\n", "é", "\226" }
        math.randomseed(7)
        for _ = 1, 20000 do
            local name = {}
            for i = 1, math.random(8) do
                name[i] = pieces[math.random(#pieces)]
            end
            name = table.concat(name)
            local back = text.name(name):gsub("\\x([0-9A-F][0-9A-F])",
                function(digits)
                    return string.char(tonumber(digits, 16))
                end)
            assert.equal(name, back)
        end
    end)
end)

describe("figures", function()
    -- Those of a pool with this many hits.
    local function with_hits(hits)
        local f = figures(0)
        f.hits, f.large.hits, f.classes[1].hits = hits, hits, hits
        f.large.requests[2], f.classes[1].requests[8] = hits, hits
        return f
    end

    it("of unnamed pools are what no named pool has", function()
        local before = select(2, stats.by_name()) or stats.nothing()
        local pool = bufpool.new { name = "status of one" }
        local unnamed = bufpool.new { classes = { { size = 8192 } } }
        local gone = bufpool.new { name = "status of none" }
        local bufs = { pool:checkout(10), unnamed:checkout(10),
            unnamed:checkout(10), gone:checkout(10) }
        gone:close()
        local pools, others = stats.by_name()
        assert.same(pool:stats(), pools["status of one"])
        assert.is_nil(pools["status of none"])
        assert.equal(before.checked_out + 3, others.checked_out)
        assert.same(stats.total(pools, others).checked_out,
            bufpool.stats().checked_out)
        for _, class in ipairs(others.classes) do
            if class.size == 8192 then
                assert.equal(2, class.out)
            end
        end
        for _, buf in ipairs(bufs) do
            buf:release()
        end
    end)

    it("that are counters never fall", function()
        local _, unnamed
        local seen = {}
        for i, hits in ipairs { 0, 100, 110, 40, 45, 0, 7 } do
            _, unnamed = tally.sample({}, with_hits(hits))
            seen[i] = unnamed.hits
            assert.equal(unnamed.hits, unnamed.classes[1].hits)
            assert.equal(unnamed.hits, unnamed.large.hits)
            assert.equal(unnamed.hits, unnamed.large.requests[2])
            assert.equal(unnamed.hits, unnamed.classes[1].requests[8])
        end
        local base = seen[1]
        assert.same({ base, base + 100, base + 110, base + 110, base + 115,
            base + 115, base + 122 }, seen)
    end)

    it("of a pool that is gone and comes again begin at 0", function()
        local f = figures(0)
        f.hits = 100
        tally.sample { a = f }
        tally.sample {}
        f = figures(0)
        f.hits = 3
        assert.equal(3, tally.sample({ a = f }).a.hits)
    end)

    it("survive the dictionary whole, whatever the names", function()
        local worker = { pid = 4711, time = 1764000000.125, pools = {} }
        for i, entry in ipairs(HOSTILE) do
            worker.pools[entry[1]] = figures(i * 100)
        end
        worker.unnamed = figures(2 ^ 53 - 100)
        worker.pools.plain.oldest = nil
        worker.pools.plain.resident_bytes = nil
        worker.pools[" "].resident_bytes = 0
        worker.pools["-"].oldest = 0.125
        worker.pools.plain.numa = { available = false, pages_by_node = {} }
        worker.pools["-"].numa.requested = 1
        assert.same(worker, tally.unpack(tally.pack(worker)))
    end)

    it("that were cut short are none", function()
        local packed = tally.pack {
            pid = 1, time = 2, pools = { a = figures(1) },
        }
        -- Without the last number; the last digit is not missed.
        local last = packed:match "^.* ()"
        for i = 0, last - 1 do
            local got = tally.unpack(packed:sub(1, i))
            assert.is_true(got == nil or next(got.pools) == nil, i)
        end
        for _, junk in ipairs {
            "", "\n", "x", "1 x", "1 2\n=6", "1 2\nzz 1",
        } do
            local got = tally.unpack(junk)
            assert.is_true(got == nil or next(got.pools) == nil, junk)
        end
    end)
end)

describe("publishing", function()
    local kept, id, values, tick
    local workers
    setup(function()
        kept = rawget(_G, "ngx")
        values = {}
        local dict = {
            get = function(_, key) return values[key] end,
            set = function(_, key, value)
                values[key] = value
                return true
            end,
            delete = function(_, key)
                values[key] = nil
                return true
            end,
        }
        dict.add = dict.set
        rawset(_G, "ngx", {
            shared = { figures = dict }, now = function() return 1000 end,
            worker = {
                id = function() return id end, count = function() return 1 end,
                pid = function() return 100 + (id or 50) end,
            },
            timer = { every = function(_, fn)
                tick = fn
                return true
            end },
        })
        -- It keeps the ngx that there is when it is loaded.
        package.loaded["bufpool.ngx.status.workers"] = nil
        workers = require "bufpool.ngx.status.workers"
    end)
    teardown(function() rawset(_G, "ngx", kept) end)

    -- Debian's nginx has no privileged agent.
    it("knows an agent, which counts as no worker", function()
        assert.is_true(workers.publish "figures")
        local answer = workers.gather "figures"
        assert.equal(0, answer.workers_shown)
        assert.is_false(answer.complete)
        id = 0
        answer = workers.gather "figures"
        assert.equal("0", answer.workers[1].id)
        assert.equal("agent", answer.workers[2].id)
        assert.equal(150, answer.workers[2].pid)
        assert.equal(1, answer.workers_shown)
        assert.is_true(answer.complete)
    end)

    it("ends with the worker", function()
        for key in pairs(values) do
            values[key] = nil
        end
        -- As nginx calls it when the worker exits: another has its number.
        tick(true)
        assert.is_nil(next(values))
        tick(false)
        assert.is_truthy(next(values))
    end)
end)

describe("what the log is told of a count", function()
    local kept, notice, now, lines
    setup(function()
        kept = rawget(_G, "ngx")
        rawset(_G, "ngx", {
            ERR = 4, now = function() return now end,
            log = function(_, line) lines[#lines + 1] = line end,
        })
        package.loaded["bufpool.ngx.status.notice"] = nil
        notice = require "bufpool.ngx.status.notice"
    end)
    teardown(function()
        rawset(_G, "ngx", kept)
        package.loaded["bufpool.ngx.status.notice"] = nil
    end)

    -- The lines of these counts of an event, at a time.
    local function told(time, pool, counts)
        now, lines = time, {}
        for _, count in ipairs(counts) do
            notice(pool, count, "left at 100%s")
        end
        return lines
    end

    local function line(pool, n)
        return { ("bufpool: pool '%s': %d left at 100%%s"):format(pool, n) }
    end

    it("is by how much it has risen, once a minute", function()
        assert.same(line("a", 3), told(1000, "a", { 0, 3, 4 }))
        assert.same(line("?[b'", 1), told(1000, "\27[b'", { 1 }))
        assert.same({}, told(1059, "a", { 5 }))
        assert.same(line("a", 2), told(1060, "a", { 5 }))
        assert.same({}, told(1060, "\27[b'", { 1 }))
    end)

    it("is all of it where the pool came anew", function()
        assert.same(line("c", 10), told(2000, "c", { 10 }))
        assert.same(line("c", 4), told(2060, "c", { 4 }))
        assert.same({}, told(2061, "c", { 2 }))
        assert.same(line("c", 3), told(2120, "c", { 3 }))
    end)

    it("is told later where there are too many", function()
        local sum = 0
        for minute = 0, 2 do
            for i = 1, 120 do
                sum = sum + #told(3000 + 60 * minute, "d" .. i, { i })
            end
            assert.equal(minute == 2 and 120 or 50 * (minute + 1), sum)
        end
    end)
end)

describe("JSON", function()
    it("has every figure, whatever the names", function()
        local pools = {}
        for i, entry in ipairs(HOSTILE) do
            pools[entry[1]] = figures(i * 100)
        end
        local source = text.json(report(pools, figures(7)))
        local got = read_json(source).workers[1]
        for i, entry in ipairs(HOSTILE) do
            local f = figures(i * 100)
            local pages = f.numa.pages_by_node
            f.numa.pages_by_node = { pages[0], pages[1] }
            assert.same(f, got.pools[shown(entry)], entry[1])
        end
        assert.equal(figures(7).hits, got.unnamed.hits)
        assert.is_nil(source:find("<", 1, true))
    end)

    it("writes numbers in full, and none that JSON lacks", function()
        local f = figures(0)
        f.hits, f.misses, f.wiped_bytes = 2 ^ 53, 1e15 + 1, 2 ^ 53 - 1
        f.lost, f.gc_returns, f.in_transit = helper.inf, -helper.inf, helper.nan
        local source = text.json(report { a = f })
        for _, want in ipairs {
            '"hits":9007199254740992,', '"misses":1000000000000001,',
            '"wiped_bytes":9007199254740991}', '"age":0.250,', '"lost":0,',
            '"gc_returns":0,', '"in_transit":0,',
        } do
            assert.is_truthy(source:find(want, 1, true), want)
        end
        assert.is_nil(source:find "%de[+-]")
    end)

    it("keeps empty lists and empty objects apart", function()
        local source = text.json { pools = {}, workers = {}, history = {} }
        assert.equal('{"history":[],"pools":{},"workers":[]}\n', source)
    end)
end)

-- The names that doc/openresty-status.md says of metrics.
local function documented()
    local section = nginx.read(nginx.root .. "/doc/openresty-status.md")
        :match "\n## Metrics\n(.-)\n```"
    local names = {}
    for name in section:gmatch "`(bufpool_[a-z_]+)`" do
        names[name] = true
    end
    return names, section
end

describe("metrics", function()
    if not python then
        pending "pass a strict parser: no python3 with prometheus_client"
        return
    end

    local pools = {}
    for i, entry in ipairs(HOSTILE) do
        pools[entry[1]] = figures(i * 100)
    end
    pools.plain.hits, pools.plain.wiped_bytes = 5, 2 ^ 53 - 1
    pools.plain.classes[1].hits = 1e15 + 1
    pools.plain.gc_returns = helper.inf
    pools.plain.lost = helper.nan

    for _, kind in ipairs { "openmetrics", "prometheus" } do
        it("pass a strict parser as " .. kind, function()
            local samples = parse(text[kind](report(pools, figures(7))), kind)
            for i, entry in ipairs(HOSTILE) do
                local of = { worker = "0", pool = shown(entry) }
                assert.equal(figures(i * 100).committed_bytes,
                    value_of(samples, "bufpool_committed_bytes", of))
            end
            assert.equal(figures(7).checked_out, value_of(samples,
                "bufpool_checked_out_buffers", { pool = "" }))
            assert.equal(2 ^ 53 - 1, value_of(samples,
                "bufpool_wiped_bytes_total", { pool = "plain" }))
            assert.equal(1e15 + 1, value_of(samples, "bufpool_checkouts_total",
                { pool = "plain", class = "4096", result = "hit" }))
            assert.equal(figures(200).large.misses, value_of(samples,
                "bufpool_checkouts_total",
                { pool = "-", class = "large", result = "miss" }))
            assert.equal(figures(200).numa.pages_by_node[1], value_of(samples,
                "bufpool_numa_pages", { pool = "-", node = "1" }))
            assert.equal(1, value_of(samples, "bufpool_worker_info",
                { worker = "0", pid = "17" }))
            local site = { worker = "0", pool = shown(HOSTILE[7]),
                place = shown(HOSTILE[9]) }
            for name, value in pairs {
                buffers = 3, bytes = 12288, oldest_seconds = 0.5,
                gc_returns_total = 9, request_returns_total = 10,
            } do
                assert.equal(value, value_of(samples, "bufpool_site_" .. name,
                    site), name)
            end
        end)

        it("have no pool at all as " .. kind, function()
            local empty = report {}
            empty.workers, empty.sites = {}, {}
            assert.equal(3, #parse(text[kind](empty), kind))
        end)
    end

    it("have the requests of a class as a histogram", function()
        local samples = parse(text.openmetrics(report { one = figures(1) }),
            "openmetrics")
        local function bucket(class, le)
            return value_of(samples, "bufpool_request_bytes_bucket",
                { class = class, le = le })
        end
        for name, of in pairs {
            ["4096"] = figures(1).classes[1],
            ["65536"] = figures(1).classes[2], large = figures(1).large,
        } do
            local sum, size = 0, tonumber(name)
            for i, count in ipairs(of.requests) do
                sum = sum + count
                local le = size and size / 2 ^ (8 - i) or 65536 * 4 ^ (i - 1)
                assert.equal(sum, bucket(name, i == 8 and "+Inf"
                    or ("%d.0"):format(le)), name .. " " .. i)
            end
            assert.equal(sum, value_of(samples, "bufpool_request_bytes_count",
                { class = name }))
            assert.equal(of.requested_bytes, value_of(samples,
                "bufpool_request_bytes_sum", { class = name }))
        end
    end)

    -- doc/stability.md promises the names.
    it("have the names and types of the document, and no others", function()
        local names, section = documented()
        local typed = {}
        for name, kind in section:gmatch "\n| `([a-z_]+)` | (%l+) |" do
            typed[name] = kind
        end
        local written = {}
        for name, kind in text.prometheus(report { one = figures(1) })
            :gmatch "# TYPE (%S+) (%S+)" do
            written[name] = true
            assert.equal(typed[name] or kind, kind, name)
        end
        assert.same(names, written)
    end)

    it("show all that a class and a pool have", function()
        local f = figures(1000)
        local samples = parse(text.openmetrics(report { one = f }),
            "openmetrics")
        local values = {}
        for _, sample in ipairs(samples) do
            values[tonumber(sample.value)] = true
        end
        local function all_in(t)
            for key, value in pairs(t) do
                if type(value) == "table" then
                    -- A histogram has the sums of `requests`.
                    if key ~= "requests" then
                        all_in(value)
                    end
                -- The sums of the classes are Prometheus' to make; how much
                -- may be locked is the process's.
                elseif type(value) == "number" and key ~= "size"
                    and key ~= "lock_limit"
                    and not (t == f and (key == "hits" or key == "misses"))
                then
                    assert.is_true(values[value], key)
                end
            end
        end
        all_in(f)
    end)
end)

describe("the Accept header", function()
    local BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,"
        .. "image/avif,image/webp,*/*;q=0.8"
    local SCRAPER = "application/openmetrics-text;version=1.0.0,"
        .. "application/openmetrics-text;version=0.0.1;q=0.75,"
        .. "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

    for header, format in pairs {
        ["*/*"] = "json", [""] = "json", [BROWSER] = "html",
        [SCRAPER] = "openmetrics", ["text/plain"] = "prometheus",
        ["text/*"] = "prometheus", ["application/*"] = "json",
        ["text/html"] = "html", ["TEXT/HTML"] = "html",
        ["application/json;q=0.1, text/html;q=0.2"] = "html",
        ["application/openmetrics-text;q=0.5,text/plain"] = "prometheus",
        ["application/openmetrics-text,text/plain"] = "openmetrics",
        ["*/*,application/json;q=0"] = "openmetrics",
        ["*/*;q=0.5,text/*;q=0.9,text/plain;q=0.1"] = "html",
        ["text/html ; q = 0.5 , text/plain; q=0.4"] = "html",
        ["text/html;level=1;q=0.1,text/plain;q=.2"] = "prometheus",
        ["text/plain;x=\"a,b\";q=0.2,application/json;q=0.5"] = "json",
        ["text/html;q=2,text/plain"] = "prometheus",
        ["text/html;q=nan,text/plain"] = "prometheus",
        [";;;,,,"] = "json", ["junk"] = "json", ["text/html;q=0,*/*"] = "json",
        ["application/json;q=0.3,text/*;q=0.3"] = "json",
    } do
        it(("gives %s for '%s'"):format(format, header), function()
            assert.equal(format, accept.negotiate(header))
        end)
    end

    it("gives JSON where there is none", function()
        assert.equal("json", accept.negotiate(nil))
    end)

    it("may refuse all", function()
        for _, header in ipairs {
            "image/png", "*/*;q=0", "text/plain;q=0", "text/html;q=0.000",
        } do
            assert.is_nil(accept.negotiate(header), header)
        end
    end)
end)

describe("the page", function()
    local function inside(tag)
        return page.html:match("<" .. tag .. ">(.*)</" .. tag .. ">")
    end

    it("runs its own style and script, and nothing else", function()
        for _, tag in ipairs { "style", "script" } do
            local name = os.tmpname()
            nginx.write(name, inside(tag))
            local digest = nginx.must(("openssl dgst -sha256 -binary "
                .. "-out %s.sum %s && openssl base64 -in %s.sum"):format(name,
                name, name)):gsub("%s", "")
            os.remove(name)
            os.remove(name .. ".sum")
            assert.is_truthy(page.policy:find(
                ("%s-src 'sha256-%s'"):format(tag, digest), 1, true),
                tag .. ": expected sha256-" .. digest)
        end
        assert.is_truthy(page.policy:find("^default%-src 'none'; "))
        assert.is_nil(page.policy:find "unsafe")
        assert.is_nil(page.html:find "%son%a+=")
        assert.is_nil(page.html:find "%sstyle=")
    end)

    it("loads nothing from elsewhere", function()
        local own = page.html:gsub('"http://www.w3.org/2000/svg"', "")
        assert.is_nil(own:find "//%w")
        assert.is_nil(own:find "src=")
        assert.is_nil(own:find "@import")
    end)

    it("puts nothing into itself but as text", function()
        assert.is_nil(page.html:find "[iI]nnerHTML")
        assert.is_nil(page.html:find "outerHTML")
        assert.is_nil(page.html:find "insertAdjacent")
        assert.is_nil(page.html:find "document.write")
    end)

    it("is below 15 KiB", function()
        assert.is_true(#page.html < 15 * 1024)
    end)
end)

describe("examples/monitoring", function()
    local folder = nginx.root .. "/examples/monitoring/"
    local alerts = nginx.read(folder .. "alerts.yml")
    local dashboard = nginx.read(folder .. "grafana.json")
    local promtool = select(2, shell "command -v promtool") == 0

    -- Runs promtool with a file of that text.
    local function check(command, content)
        local path = os.tmpname()
        nginx.write(path, content)
        local said, status = shell(("promtool %s %s 2>&1"):format(command,
            path))
        os.remove(path)
        assert.equal(0, status, said)
    end

    it("asks for metrics that there are", function()
        local names, asked = documented(), 0
        for _, source in ipairs { alerts, dashboard } do
            for name in source:gmatch "%f[%w_]bufpool_[a-z_]+" do
                asked = asked + 1
                -- A histogram has its buckets by this name.
                assert.is_true(names[name:gsub("_bucket$", "")], name)
            end
        end
        assert.is_true(asked > 25)
    end)

    it("has expressions that Prometheus takes", function()
        local list = { "groups:", "- name: dashboard", "  rules:" }
        for _, panel in ipairs(read_json(dashboard).panels) do
            for _, target in ipairs(panel.targets) do
                list[#list + 1] = "  - record: a"
                list[#list + 1] = "    expr: '" .. target.expr
                    :gsub("%$__rate_interval", "1m") .. "'"
            end
        end
        assert.is_true(#list > 25)
        if not promtool then
            pending "promtool (Debian: prometheus) is not installed"
            return
        end
        check("check rules", table.concat(list, "\n"))
    end)

    it("fires where it says so", function()
        if not promtool then
            pending "promtool (Debian: prometheus) is not installed"
            return
        end
        local series, expected = {}, {}
        -- A metric, its labels, its values by the minute, and what fires.
        for _, case in ipairs {
            { "bufpool_gc_returns_total", 'pool="a"', "0+6x60",
                "BufpoolLeftToCollector" },
            { "bufpool_gc_returns_total", 'pool="b"', "6+0x60" },
            { "bufpool_site_oldest_seconds", 'pool="a",place="x:1"',
                "3700+60x60", "BufpoolBufferOldest" },
            { "bufpool_site_oldest_seconds", 'pool="b",place="x:1"', "9+0x60" },
            { "bufpool_refused_total", 'pool="a"', "0+1x60",
                "BufpoolRefuses" },
            { "bufpool_refused_total", 'pool="b"', "7+0x60" },
            { "bufpool_committed_bytes", 'pool="a"', "100+0x60",
                "BufpoolNearMaxBytes" },
            { "bufpool_cached_bytes", 'pool="a"', "8+0x60" },
            { "bufpool_max_bytes", 'pool="a"', "100+0x60" },
            { "bufpool_committed_bytes", 'pool="b"', "100+0x60" },
            { "bufpool_cached_bytes", 'pool="b"', "10+0x60" },
            { "bufpool_max_bytes", 'pool="b"', "100+0x60" },
            { "bufpool_committed_bytes", 'pool="c"', "100+0x60" },
            { "bufpool_cached_bytes", 'pool="c"', "0+0x60" },
            { "bufpool_max_bytes", 'pool="c"', "0+0x60" },
            { "bufpool_in_transit_buffers", 'pool="a"', "1001+0x60",
                "BufpoolTicketsPileUp" },
            { "bufpool_in_transit_buffers", 'pool="b"', "1000+0x60" },
            { "bufpool_checkouts_total", 'pool="a",result="miss"', "0+100x60",
                "BufpoolMisses" },
            { "bufpool_checkouts_total", 'pool="a",result="hit"', "0+800x60" },
            { "bufpool_checkouts_total", 'pool="b",result="miss"', "0+1x60" },
            { "bufpool_checkouts_total", 'pool="b",result="hit"', "0+800x60" },
            { "bufpool_lost_buffers_total", 'pool="a"', "0+1x60",
                "BufpoolBuffersLost" },
            { "bufpool_lost_buffers_total", 'pool="b"', "3+0x60" },
            { "bufpool_workers", 'pool="a"', "1+0x60",
                "BufpoolWorkerWithoutFigures" },
            { "bufpool_workers_configured", 'pool="a"', "2+0x60" },
            { "bufpool_workers", 'pool="b"', "2+0x60" },
            { "bufpool_workers_configured", 'pool="b"', "2+0x60" },
        } do
            local name, labels, values, alert = unpack(case)
            series[#series + 1] = ("  - series: '%s{%s,instance=\"i\"}'\n"
                .. "    values: '%s'"):format(name, labels, values)
            if alert then
                expected[#expected + 1] = alert
            end
        end
        assert.equal(8, #expected)
        local checks = {}
        for i, alert in ipairs(expected) do
            checks[i] = ("  - expr: count by (pool) (ALERTS{"
                .. "alertname=\"%s\",alertstate=\"firing\"})\n"
                .. "    eval_time: 50m\n"
                .. "    exp_samples: [{labels: '{pool=\"a\"}', value: 1}]")
                :format(alert)
        end
        check("test rules", ("rule_files: ['%salerts.yml']\ntests:\n"
            .. "- interval: 1m\n  input_series:\n%s\n"
            .. "  promql_expr_test:\n%s\n"):format(folder,
                table.concat(series, "\n"), table.concat(checks, "\n")))
    end)
end)

local missing = nginx.missing()

local browser
for _, name in ipairs { "chromium", "chromium-browser", "google-chrome" } do
    if not browser and select(2, shell("command -v " .. name)) == 0 then
        browser = name
    end
end

-- What the browser has made of a page after so many seconds of its own time.
local function document_of(server, path, seconds)
    local output = shell(("timeout -k 1 %d %s --headless --no-sandbox "
        .. "--disable-gpu --user-data-dir=%s/profile "
        .. "--virtual-time-budget=%d --dump-dom %s 2>%s/chromium.log"
        .. " </dev/null"):format(30 * helper.pace(), browser, server.dir,
        seconds * 1000, quote(server:url(path)), server.dir))
    assert.is_truthy(output:find("<html", 1, true),
        nginx.read(server.dir .. "/chromium.log"))
    return output
end

-- The text of the element of that id.
local function element(document, id)
    return document:match('id="' .. id .. '"[^>]*>(.-)</')
end

local STATUS = 'require("bufpool.ngx").status'

-- Each worker publishes its figures, twice over, and has a pool of every name.
-- What it publishes first has no pools.
local INIT = [[
    init_worker_by_lua_block {
        local bufpool = require "bufpool"
        local status = require "bufpool.ngx"
        status.publish { dict = "figures" }
        status.publish { dict = "figures" }
        local file = assert(io.open(ngx.config.prefix() .. "names", "rb"))
        local names = file:read "*a"
        file:close()
        pools = {}
        for digits in names:gmatch "%S+" do
            local name = digits:gsub("%x%x", function(x)
                return string.char(tonumber(x, 16))
            end)
            pools[name] = bufpool.new { name = name, four_kib_count = 2 }
        end
        unnamed = bufpool.new()
        kept = pools.plain:checkout(5000)
        unnamed:checkout(100):release()
        status.publish { dict = "small" }
    }
]]

local function names()
    local out = {}
    for i, entry in ipairs(HOSTILE) do
        out[i] = entry[1]:gsub(".", function(c)
            return ("%02x"):format(c:byte())
        end)
    end
    return table.concat(out, "\n")
end

local function location(name, code)
    return ([[
        location = /%s { content_by_lua_block { %s } }
]]):format(name, code)
end

describe("in nginx, status", function()
    if missing then
        pending("answers: " .. missing .. " is not installed")
        return
    end

    local function start()
        return nginx.start {
            files = { names = names() },
            conf = nginx.conf {
                workers = 2,
                http = "lua_shared_dict figures 1m; "
                    .. "lua_shared_dict unused 100k; lua_shared_dict turns 12k;"
                    .. "lua_shared_dict small 12k;" .. INIT,
                server = location("status", STATUS .. '{ dict = "figures" }')
                    .. location("alone", STATUS .. "()")
                    .. location("silent", STATUS .. '{ dict = "unused" }')
                    .. location("small", STATUS .. '{ dict = "small" }')
                    .. location("typo", STATUS .. '{ dcit = "figures" }')
                    .. location("absent", STATUS .. '{ dict = "absent" }')
                    .. location("number", STATUS .. "(7)")
                    .. location("allow", STATUS .. "{ allow_set = 1 }")
                    .. location("late",
                        'require("bufpool.ngx").publish()')
                    .. location("work", [[
                        pools.plain:checkout(10):release()
                        ngx.print(ngx.worker.pid())]])
                    -- As if the server stopped after two answers.
                    .. location("stops", [[
                        if ngx.req.get_uri_args().format
                            and ngx.shared.turns:incr("stops", 1, 0) > 2 then
                            return ngx.exit(503)
                        end
                        ]] .. STATUS .. '{ dict = "figures" }')
                    -- Two seconds between answers, by its own clock.
                    .. location("hours", [[
                        if not ngx.req.get_uri_args().format then
                            return ]] .. STATUS .. [[()
                        end
                        local workers = require "bufpool.ngx.status.workers"
                        local report = workers.gather "figures"
                        report.all.pools, report.workers = {}, {}
                        local classes = report.all.totals.classes
                        classes[1].requests = { 200, 0, 0, 0, 0, 0, 0, 0 }
                        classes[2].requests = { 0, 0, 0, 51, 0, 0, 49, 0 }
                        classes[3].requests = { 0, 0, 0, 0, 0, 49, 0, 51 }
                        classes[4].requests = { 0, 0, 0, 0, 60, 0, 0, 0 }
                        report.time = 1e9
                            + ngx.shared.turns:incr("hours", 2, 0)
                        local text = require "bufpool.ngx.status.text"
                        ngx.print(text.json(report))]])
                    .. location("injected", [[
                        if ngx.req.get_uri_args().format then
                            return ]] .. STATUS .. [[()
                        end
                        local page = require "bufpool.ngx.status.page"
                        ngx.header.content_type = "text/html"
                        ngx.header["Content-Security-Policy"] = page.policy
                        ngx.print((page.html:gsub("<main", "<script>"
                            .. "document.title = 'owned'</script>"
                            .. "<img src=x onerror=\"document.title='owned'\">"
                            .. "%0")))]])
                    .. [[
        location = /gzip { gzip on; gzip_types *; gzip_min_length 1;
            content_by_lua_block { ]] .. STATUS .. "() } }\n",
            },
        }
    end

    local server
    setup(function()
        server = start()
        assert(nginx.soon(function()
            local body = server:get "/status".body
            return read_json(body).all.totals.checked_out == 2
        end))
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function get(path, options)
        local answer = server:get(path, options)
        assert.is_nil(answer.failed, answer.said)
        return answer
    end

    local function json(path)
        local answer = get(path or "/status?format=json")
        assert.equal(200, answer.status, answer.body)
        return read_json(answer.body)
    end

    local function pids(answer)
        local set = {}
        for _, worker in ipairs(answer.workers) do
            set[worker.pid] = true
        end
        return set
    end

    local TYPES = {
        json = "application/json",
        openmetrics = "application/openmetrics-text; version=1.0.0; "
            .. "charset=utf-8",
        prometheus = "text/plain; version=0.0.4; charset=utf-8",
        html = "text/html; charset=utf-8",
    }
    local ACCEPT = {
        json = "*/*", openmetrics = "application/openmetrics-text",
        prometheus = "text/plain", html = "text/html,*/*;q=0.8",
    }

    for format, media in pairs(TYPES) do
        it("answers with " .. format, function()
            local asked = get("/status?format=" .. format)
            local accepted = get("/status",
                { headers = { Accept = ACCEPT[format] } })
            for _, answer in ipairs { asked, accepted } do
                assert.equal(200, answer.status)
                assert.equal(media, answer.headers["content-type"])
                assert.equal("nosniff",
                    answer.headers["x-content-type-options"])
                assert.equal("no-store", answer.headers["cache-control"])
                assert.equal("Accept", answer.headers.vary)
                assert.equal(#answer.body,
                    tonumber(answer.headers["content-length"]))
            end
            assert.equal(format == "html" and page.policy or nil,
                asked.headers["content-security-policy"])
        end)
    end

    it("respects all Accept headers that there are", function()
        local answer = get("/status", { curl = "-H 'Accept: image/png' "
            .. "-H 'Accept: application/json;q=0.1' -H 'Accept: text/html'" })
        assert.equal(TYPES.html, answer.headers["content-type"])
    end)

    it("answers HEAD with the headers alone", function()
        for format, media in pairs(TYPES) do
            local answer = get("/status?format=" .. format, { curl = "-I" })
            assert.equal(200, answer.status)
            assert.equal(media, answer.headers["content-type"])
            assert.is_true(tonumber(answer.headers["content-length"]) > 100)
        end
    end)

    it("has formats for flame graphs", function()
        local answer = get "/status?format=folded"
        assert.equal(200, answer.status)
        assert.equal("text/plain; charset=utf-8",
            answer.headers["content-type"])
        answer = get "/status?format=pprof"
        assert.equal(200, answer.status)
        assert.equal("application/octet-stream", answer.headers["content-type"])
        assert.is_truthy(answer.body:find("buffers", 1, true))
    end)

    it("refuses other methods, formats and media", function()
        for _, method in ipairs { "POST", "PUT", "DELETE", "OPTIONS", "PURGE" }
        do
            local answer = get("/status", { method = method })
            assert.equal(405, answer.status, method)
            assert.equal("GET, HEAD", answer.headers.allow)
        end
        for _, query in ipairs {
            "xml", "", "json&format=html", "%00", "JSON",
        } do
            local answer = get("/status?format=" .. query)
            assert.equal(400, answer.status, query)
            assert.is_truthy(answer.body:find("openmetrics", 1, true))
        end
        assert.equal(400, get("/status?format").status)
        local answer = get("/status", { headers = { Accept = "image/png" } })
        assert.equal(406, answer.status)
        assert.is_truthy(answer.body:find("text/html", 1, true))
    end)

    it("raises where it is called with a wrong option", function()
        for path, message in pairs {
            typo = "bad argument #1 to 'status' (unknown option 'dcit': "
                .. "expected dict or allow_set)",
            allow = "bad argument #1 to 'status' (allow_set: boolean "
                .. "expected, got number)",
            absent = "bad argument #1 to 'status' (dict: there is no "
                .. "lua_shared_dict absent)",
            number = "bad argument #1 to 'status' (table expected, got number)",
            late = "publish: expected to be called in init_worker_by_lua, "
                .. "not in content",
        } do
            assert.equal(500, get("/" .. path).status)
            assert.is_truthy(server:log():find("content_by_lua%(nginx.conf:"
                .. "%d+%):%d+: " .. message:gsub("%p", "%%%0")), message)
        end
    end)

    it("shows every worker, and their sum", function()
        local answer = json()
        assert.equal(2, #answer.workers)
        assert.same(server:workers(), pids(answer))
        assert.is_true(answer.complete)
        assert.is_nil(answer.note)
        assert.equal(2, answer.workers_shown)
        local out = 0
        for _, worker in ipairs(answer.workers) do
            assert.equal(1, worker.pools.plain.checked_out)
            assert.equal(1, worker.unnamed.hits)
            assert.is_true(worker.age < 5)
            out = out + worker.totals.checked_out
        end
        assert.equal(2, out)
        assert.equal(2, answer.all.totals.checked_out)
        assert.equal(2, answer.all.pools.plain.checked_out)
        assert.equal(2, answer.all.unnamed.hits)
        assert.equal(2 * 65536, answer.all.pools.plain.bytes_checked_out)
        for _, entry in ipairs(HOSTILE) do
            assert.is_truthy(answer.all.pools[shown(entry)], entry[1])
        end
    end)

    it("shows what happened in a worker that did not answer", function()
        local before = json().all.pools.plain.hits
        local done = {}
        for _ = 1, 40 do
            local pid = tonumber(get("/work").body)
            done[pid] = (done[pid] or 0) + 1
        end
        local total = 0
        for _, n in pairs(done) do
            total = total + n
        end
        assert.equal(40, total)
        local answer
        assert.is_true(nginx.soon(function()
            answer = json()
            return answer.all.pools.plain.hits == before + 40
        end))
        for _, worker in ipairs(answer.workers) do
            -- The first one is the buffer that each worker keeps.
            assert.equal((done[worker.pid] or 0),
                worker.pools.plain.classes[1].hits)
        end
    end)

    it("passes strict parsers, worker by worker", function()
        if not python then
            pending "no python3 with prometheus_client"
            return
        end
        for _, kind in ipairs { "openmetrics", "prometheus" } do
            local samples = parse(get("/status?format=" .. kind).body, kind)
            assert.equal(2, value_of(samples, "bufpool_workers", {}))
            for _, id in ipairs { "0", "1" } do
                for _, entry in ipairs(HOSTILE) do
                    assert.equal(entry[1] == "plain" and 1 or 0, value_of(
                        samples, "bufpool_checked_out_buffers",
                        { worker = id, pool = shown(entry) }), entry[1])
                end
            end
        end
    end)

    it("keeps some minutes of history", function()
        local answer
        assert.is_true(nginx.soon(function()
            answer = json "/status?format=json&history=1"
            return #answer.history >= 2
        end))
        local last = answer.history[#answer.history]
        assert.equal(2, last.checked_out)
        assert.equal(answer.all.totals.committed_bytes, last.committed_bytes)
        for i = 2, #answer.history do
            assert.is_true(answer.history[i].time
                > answer.history[i - 1].time)
        end
        assert.is_nil(json().history)
    end)

    it("leaves out the pools of each worker where asked", function()
        local answer = json "/status?brief=1"
        assert.equal(2, answer.all.pools.plain.checked_out)
        assert.equal(2, #answer.workers)
        for _, worker in ipairs(answer.workers) do
            assert.equal(1, worker.totals.checked_out)
            assert.is_nil(worker.pools)
            assert.is_nil(worker.unnamed)
        end
    end)

    it("says so where it shows only the worker that answers", function()
        local answer = json "/alone"
        assert.equal(1, #answer.workers)
        assert.is_false(answer.complete)
        assert.is_truthy(answer.note:find(
            "1 of 2 workers, the one that answered: there is no "
            .. "lua_shared_dict bufpool", 1, true))
        answer = json "/silent"
        assert.equal(1, #answer.workers)
        assert.is_truthy(answer.note:find("1 of 2 workers: the others have "
            .. "published none in lua_shared_dict unused", 1, true))
        answer = json "/small"
        assert.equal(1, #answer.workers)
        assert.is_false(answer.complete)
        if python then
            local samples = parse(get("/alone?format=openmetrics").body,
                "openmetrics")
            assert.equal(1, value_of(samples, "bufpool_workers", {}))
            assert.equal(2, value_of(samples, "bufpool_workers_configured",
                {}))
        end
    end)

    it("goes through the gzip filter", function()
        local answer = get("/gzip?format=json", { curl = "--compressed" })
        assert.equal("gzip", answer.headers["content-encoding"])
        assert.equal(1, #read_json(answer.body).workers)
    end)

    local function dom(path, seconds)
        return document_of(server, path, seconds)
    end

    local function on_the_page(title, test)
        if browser then
            it("in Chromium " .. title, test)
        else
            pending("in Chromium " .. title .. ": chromium is not installed")
        end
    end

    on_the_page("shows the figures of all workers", function()
        assert.is_true(nginx.soon(function()
            return #read_json(server:get "/status?history".body).history > 1
        end))
        local document = dom("/status?format=html", 4)
        assert.equal("Live", element(document, "state"))
        assert.equal("", element(document, "note"))
        assert.equal("2", element(document, "out"))
        -- A peak is a lower bound of what other tests have had out, too.
        local peak = element(document, "out2"):match "^128 KiB, peak (%d+)$"
        assert.is_true(tonumber(peak) >= 2, element(document, "out2"))
        assert.is_truthy(element(document, "about"):find "2 of 2 workers$")
        for pid in pairs(server:workers()) do
            assert.is_truthy(document:find("<td>" .. pid .. "</td>", 1, true))
        end
        for _, row in ipairs {
            "<td>4 KiB</td>", "<td>1 MiB</td>", "<td>Larger</td>",
            "<td>plain</td><td>2</td>", "<td>(pools without a name)</td>",
        } do
            assert.is_truthy(document:find(row, 1, true), row)
        end
        assert.is_truthy(document:find 'aria%-label="2 out, %d+ cached, ')
        assert.is_truthy(document:find 'aria%-label="Buffers checked out over '
            .. '3 minutes, now: Out 2"')
        -- The memory's three curves have more than one point.
        local curves = 0
        for d in document:gmatch 'd="M[^"]+L[^"]+"' do
            curves = curves + 1
            assert.is_nil(d:find "NaN")
            assert.is_nil(d:find "Infinity")
        end
        assert.is_true(curves >= 4)
    end)

    on_the_page("shows names as text, whatever they are", function()
        local document = dom("/status?format=html", 3)
        assert.is_truthy(document:find("<title>bufpool status</title>", 1,
            true))
        local _, scripts = document:gsub("<script", "")
        assert.equal(1, scripts)
        assert.is_nil(document:find("<img", 1, true))
        for _, entry in ipairs(HOSTILE) do
            local cell = shown(entry):gsub("[&<>]", {
                ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
            })
            assert.is_truthy(document:find("<td>" .. cell .. "</td>", 1, true),
                cell)
        end
    end)

    on_the_page("runs no script but its own", function()
        local document = dom("/injected", 3)
        assert.is_truthy(document:find("<title>bufpool status</title>", 1,
            true))
        assert.equal("Live", element(document, "state"))
    end)

    on_the_page("is stale when the server stops answering", function()
        local document = dom("/stops", 8)
        assert.is_truthy(element(document, "state"):find(
            "^Stale since .*: the server answered 503$"))
        assert.is_truthy(document:find('id="main" class="stale"', 1, true))
        -- With the last figures.
        assert.equal("2", element(document, "out"))
    end)

    on_the_page("keeps three minutes of history, and no more", function()
        local document = dom("/hours", 120)
        local turns = 0
        for d in document:gmatch 'd="(M[^"]+)"' do
            local _, points = d:gsub("[ML]", "")
            turns = math.max(turns, points)
        end
        assert.is_true(turns > 85 and turns <= 91, turns)
    end)

    -- The class of 4 KiB is the smallest that there can be, and 60 are few.
    on_the_page("says which class is far too large", function()
        local document = dom("/hours", 3)
        for class, median in pairs {
            ["4 KiB"] = "32 B", ["64 KiB"] = "4 KiB, 1/16 of the class",
            ["256 KiB"] = "256 KiB", ["1 MiB"] = "128 KiB",
        } do
            local row = document:match("<td>" .. class
                .. "</td>(<td class=\"bar\".-)</tr>")
            assert.equal("≤ " .. median, row:match "<td>([^<]*)</td>$")
        end
    end)

    -- Its one buffer was never written.
    it("says how much of a named pool is resident", function()
        assert.is_true(nginx.soon(function()
            local all = json().all
            return all.pools.plain.resident_bytes
                and all.totals.resident_bytes >= all.pools.plain.resident_bytes
                and all.pools.plain.resident_bytes
                    < all.pools.plain.committed_bytes
        end))
        assert.is_nil(json().all.unnamed.resident_bytes)
    end)

    it("forgets a worker that stopped, and has it back", function()
        local id, pid
        for other in pairs(server:workers()) do
            pid = other
        end
        for _, worker in ipairs(json().workers) do
            id = worker.pid == pid and worker.id or id
        end
        shell("kill -STOP " .. pid)
        local gone = nginx.soon(function()
            local answer = json()
            return #answer.workers == 1 and answer.workers[1].id ~= id
                and answer.note:find("1 of 2 workers: the others", 1, true)
        end)
        shell("kill -CONT " .. pid)
        assert.is_true(gone)
        assert.is_true(nginx.soon(function()
            return pids(json())[pid]
        end))
    end)

    it("shows the new worker in place of one that was killed", function()
        local pid = next(server:workers())
        assert.is_true(pids(json())[pid])
        shell("kill -9 " .. pid)
        assert.is_true(nginx.soon(function()
            local answer = json()
            return answer.complete and not pids(answer)[pid]
        end))
        -- The new worker's counters begin anew.
        for _, worker in ipairs(json().workers) do
            if not server:workers()[worker.pid] then
                error "shows a worker that is none"
            end
        end
    end)

    it("shows the new workers after HUP, which is not held up", function()
        local old = server:workers()
        server:reload()
        assert.is_true(nginx.soon(function()
            for pid in pairs(server:workers()) do
                if old[pid] then
                    return false
                end
            end
            return next(server:workers()) ~= nil
        end), "the old workers do not go")
        assert.is_true(nginx.soon(function()
            local answer = json()
            local new = pids(answer)
            for pid in pairs(old) do
                if new[pid] then
                    return false
                end
            end
            return answer.complete
        end))
    end)

    it("says in the log, once for a worker, that a dictionary is too small",
        function()
            -- Two at first, one after the kill, two after HUP.
            local _, count = server:log():gsub("bufpool: figures not "
                .. "published: lua_shared_dict small: no memory", "")
            assert.equal(5, count)
        end)

    it("leaves no error in nginx's log but those asked for", function()
        for line in server:log():gmatch "[^\n]+" do
            local asked = line:find("exited on signal 9", 1, true)
                or line:find("detected a LuaJIT version", 1, true)
                or line:find("content_by_lua(nginx.conf:", 1, true)
                or line:find("lua_shared_dict small: no memory", 1, true)
            assert.is_truthy(asked or not line:find "%[%l*er%l*%]"
                and not line:find("[crit]", 1, true)
                and not line:find("[alert]", 1, true), line)
        end
        assert.is_true(server:quit())
    end)
end)

describe("in nginx, leak detection", function()
    if missing then
        pending("is shown: " .. missing .. " is not installed")
        return
    end

    local server
    setup(function()
        server = nginx.start {
            conf = nginx.conf {
                workers = 2,
                http = [[
    lua_shared_dict bufpool 1m;
    init_worker_by_lua_block {
        leaky = require "bufpool".new { name = "l\neaky",
            leak_detection = "all" }
        require("bufpool.ngx").publish()
        kept = {}
        quiet = require "bufpool".new { name = "qui et" }
    }
]],
                server = location("status", STATUS .. "()")
                    .. location("set", STATUS .. "{ allow_set = true }")
                    .. location("watched", [[
                        local bufs = {}
                        for i = 1, 8 do
                            bufs[i] = quiet:checkout(1)
                        end
                        local site = (quiet:stats().sites or {})[1]
                        for i = 1, 8 do
                            bufs[i]:release()
                        end
                        ngx.print(ngx.worker.pid(), site and " yes"
                            or " no")]])
                    -- Asks this site, and another one.
                    .. location("page", [==[
                        ngx.header.content_type = "text/html"
                        ngx.print [[<html><p id="said"></p><script>
(async () => {
  for (const site of ["", "http://localhost:" + location.port])
    for (const method of ["PUT", "POST", "GET"]) {
      const url = site + "/set?leak_detection=all";
      const said = await fetch(url, { method }).then(answer => answer.status,
        () => "failed");
      document.getElementById("said").append(said + " ");
    }
})();
</script>]]]==])
                    .. location("keep", [[
                        kept[#kept + 1] = leaky:checkout(5000)
                        ngx.print(ngx.worker.pid())]])
                    .. location("refuse", [[
                        local p = require "bufpool".new { name = "sm\nall",
                            four_kib_count = 0, sixty_four_kib_count = 0,
                            two_fifty_six_kib_count = 0, max_bytes = 4096 }
                        small = p
                        ngx.print(select("#", p:checkout(4097)))]])
                    .. location("drop", [[
                        leaky:checkout(100)
                        collectgarbage()
                        collectgarbage()
                        ngx.print(ngx.worker.pid())]]),
            },
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function json()
        return read_json(server:get("/status?brief=1").body)
    end

    -- Until each of the two workers has answered so.
    local function both(test)
        local done = {}
        return nginx.soon(function()
            local answer = json()
            done[answer.answered_by] = test(answer)
            return done["0"] and done["1"]
        end)
    end

    it("has no places at first", function()
        assert.same({}, json().sites)
    end)

    it("names the place of what is out, whoever answers", function()
        local pid = tonumber(server:get("/keep").body)
        server:get "/drop"
        local id
        for _, worker in ipairs(json().workers) do
            id = worker.pid == pid and worker.id or id
        end
        assert.is_true(both(function(answer)
            local site = answer.sites[1]
            return site and site.worker == id and site.pool == "l\neaky"
                and site.place:find "^content_by_lua%(nginx.conf:%d+%):%d+"
                and site.buffers == 1 and site.bytes == 65536
                and site.oldest > 0 and site.gc_returns == 0
        end))
    end)

    it("is in the formats for flame graphs", function()
        assert.is_true(nginx.soon(function()
            return server:get("/status?format=folded").body
                :find "^l%?eaky;content_by_lua%b():%d+ 65536\n$"
        end))
        local body = server:get("/status?format=pprof").body
        assert.is_truthy(body:find "content_by_lua%(nginx.conf:%d+%):%d+")
        assert.is_truthy(body:find("worker", 1, true))
    end)

    it("is in the metrics", function()
        if not python then
            pending "no python3 with prometheus_client"
            return
        end
        local samples = parse(server:get("/status?format=openmetrics").body,
            "openmetrics")
        local total = 0
        for _, sample in ipairs(samples) do
            if sample.name == "bufpool_site_bytes" then
                assert.equal("l\neaky", sample.labels.pool)
                total = total + tonumber(sample.value)
            end
        end
        assert.equal(65536, total)
    end)

    it("tells in the log what the collector had to release", function()
        local function told(pid)
            local _, lines = server:log():gsub("%[error%] " .. pid
                .. "#[^\n]+bufpool: pool 'l%?eaky': 1 buffers that were "
                .. "checked out at content_by_lua%(nginx.conf:%d+%):%d+ had to "
                .. "be released by the collector", "")
            return lines
        end
        local dropped = 1
        assert.is_true(nginx.soon(function()
            return told "%d+" == 1
        end))
        local pid = server:log():match "(%d+)#[^\n]+by the collector"
        -- Once a minute, and not at every look.
        repeat
            local answer = server:get "/drop"
            dropped = dropped + 1
        until answer.body == pid
        assert.is_true(both(function(answer)
            local returns = 0
            for _, site in ipairs(answer.sites) do
                returns = returns + site.gc_returns
            end
            return returns == dropped
        end))
        assert.equal(1, told(pid))
    end)

    it("is not needed for the log to tell of refused memory", function()
        assert.equal("2", server:get("/refuse").body)
        assert.is_true(nginx.soon(function()
            return server:log():find("%[error%][^\n]+bufpool: pool 'sm%?all': "
                .. "%d checkouts were refused, because max_bytes %(4096%) is "
                .. "reached")
        end))
    end)

    it("is on the page", function()
        if not browser then
            pending "chromium is not installed"
            return
        end
        local document = document_of(server, "/status?format=html", 3)
        assert.is_truthy(document:find '<section id="where">')
        assert.is_truthy(document:find "<td>content_by_lua%(nginx.conf:%d+")
        assert.is_truthy(document:find("<td>64 KiB</td>", 1, true))
        local function cells(name)
            local list = {}
            for cell in document:match("<td>" .. name .. "(</td>.-)</tr>")
                :gmatch "<td>([^<]*)</td>" do
                list[#list + 1] = cell
            end
            return list
        end
        -- Oldest, Limit, Given back.
        local leaky, small = cells "l\neaky", cells "sm\nall"
        assert.is_truthy(leaky[3]:find "^%d+ s$", leaky[3])
        assert.same({ "none", "0 B" }, { leaky[7], leaky[8] })
        assert.same({ "\226\128\147", "4 KiB" }, { small[3], small[7] })
        assert.is_truthy(element(document, "out2"):find ", oldest %d+ s$")
        assert.equal("releases that were forgotten", element(document, "gc2"))
    end)

    -- What each worker says of the pool that is not watched at first.
    local function watched()
        local all, count = {}, 0
        assert.is_true(nginx.soon(function()
            local pid, yes = server:get("/watched").body:match "^(%d+) (%l+)$"
            count = count + (all[pid] and 0 or 1)
            all[pid] = yes
            return count == 2
        end))
        local said = {}
        for _, yes in pairs(all) do
            said[#said + 1] = yes
        end
        return table.concat(said, " ")
    end

    local function put(query, options)
        options = options or {}
        options.method = options.method or "PUT"
        return server:get((options.at or "/set") .. "?" .. query, options)
    end

    it("is switched by nobody who must not", function()
        for _, case in ipairs {
            { 405, "leak_detection=all", at = "/status" },
            { 405, "leak_detection=all", method = "POST" },
            { 405, "leak_detection=all", method = "PATCH" },
            { 200, "leak_detection=all", method = "GET" },
            { 403, "leak_detection=all", headers = { Origin = "null" } },
            { 403, "leak_detection=all",
                headers = { Origin = server:url "" } },
            { 403, "leak_detection=all",
                headers = { ["Sec-Fetch-Site"] = "same-origin" } },
            { 403, "leak_detection=all",
                curl = ("-H 'X: a' "):rep(120) .. "-H 'Origin: null'" },
            { 400, "" }, { 400, "leak_detection" }, { 400, "leak_detection=" },
            { 400, "leak_detection=ALL" }, { 400, "leak_sample=4" },
            { 400, "leak_detection=all&leak_detection=all" },
            { 400, "leak_detection=all&pool=qui%20et&pool=l" },
            { 400, "leak_detection=all&pool" },
            { 400, "leak_detection=all&leak_sample=-1" },
            { 400, "leak_detection=all&leak_sample=many" },
            { 400, "leak_detection=all&leak_sample=-0" },
            { 400, "leak_detection=all&leak_sample=0x10" },
            { 400, "leak_detection=all&format=json" },
            { 400, "leak_detection=all&%00=%0d%0a" },
            { 404, "leak_detection=all&pool=" },
            { 404, "leak_detection=all&pool=qui" },
            { 404, "leak_detection=all&pool=" .. ("x"):rep(4000) },
        } do
            local answer = put(case[2], case)
            assert.equal(case[1], answer.status, case[2])
            if case[1] == 405 then
                assert.equal(case.at and "GET, HEAD" or "GET, HEAD, PUT",
                    answer.headers.allow)
            end
        end
        assert.equal("no no", watched())
    end)

    it("is switched by no request with a malformed body", function()
        local said = shell(([[python3 -c 'import socket
s = socket.create_connection(("127.0.0.1", %d))
s.sendall(b"PUT /set?leak_detection=all HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
print(s.recv(99))']]):format(server.port))
        assert.matches("^b'HTTP/1.1 400 ", said)
        assert.equal("no no", watched())
        assert.is_nil(server:log():find("aborted", 1, true))
    end)

    it("is switched by no page in a browser", function()
        if not browser then
            pending "chromium is not installed"
            return
        end
        local document = document_of(server, "/page", 3)
        assert.equal("403 405 200 failed failed failed ",
            document:match '<p id="said">(.-)</p>')
        assert.equal("no no", watched())
    end)

    it("is switched in all workers, and those to come", function()
        local answer = put("pool=qui%20et&leak_detection=sampled&leak_sample=1",
            { body = ("x"):rep(500000) })
        assert.equal(200, answer.status, answer.body)
        local said = read_json(answer.body)
        assert.same({ leak_detection = "sampled", leak_sample = 1 },
            said.pools["qui et"])
        assert.is_nil(said.pools["l\neaky"])
        assert.equal(2, said.workers_shown)
        assert.is_true(said.complete)
        assert.is_true(nginx.soon(function()
            return watched() == "yes yes"
        end))
        server:reload()
        assert.is_true(nginx.soon(function()
            return watched() == "yes yes"
        end))
        shell("kill -9 " .. next(server:workers()))
        assert.is_true(nginx.soon(function()
            return watched() == "yes yes"
        end))
        assert.equal(200, put("leak_detection=off").status)
        assert.is_true(nginx.soon(function()
            return watched() == "no no"
        end))
        -- One of 1 still, in the worker that did not see that, too.
        server:reload()
        assert.equal(200, put("leak_detection=sampled").status)
        assert.is_true(nginx.soon(function()
            return watched() == "yes yes"
        end))
    end)
end)

describe("in nginx without lua_code_cache, status", function()
    if missing then
        pending("answers: " .. missing .. " is not installed")
        return
    end

    local server
    teardown(function()
        if server then
            server:stop()
        end
    end)

    it("shows all workers, and their timers are the only ones", function()
        server = nginx.start { conf = nginx.conf {
            workers = 2,
            http = [[
    lua_code_cache off;
    lua_shared_dict bufpool 1m;
    init_worker_by_lua_block {
        require("bufpool.ngx").publish()
        require("bufpool.ngx").publish()
        local bufpool = require "bufpool"
        pool = bufpool.new { name = "kept" }
        kept = pool:checkout(10)
        -- Of two pools without a name, one goes, with its count.
        stays, goes = bufpool.new(), bufpool.new()
        stays:checkout(10):release()
        goes:checkout(10):release()
        ngx.timer.at(1.5, function(premature)
            if not premature then
                goes:close()
                gone = bufpool.new { name = "gone" }
            end
        end)
    }
]],
            server = [[
        location = /status {
            content_by_lua_block { require("bufpool.ngx").status() }
        }
        location = /timers {
            content_by_lua_block { ngx.print(ngx.timer.pending_count()) }
        }
]],
        } }
        local answer
        assert.is_true(nginx.soon(function()
            answer = read_json(server:get "/status".body)
            return answer.all.totals.checked_out == 2
        end))
        assert.equal(2, #answer.workers)
        assert.equal(2, answer.all.pools.kept.checked_out)
        -- A VM that sees the pools for the first time does not know that.
        assert.is_true(nginx.soon(function()
            answer = read_json(server:get "/status".body)
            return answer.workers[1].pools.gone and answer.workers[2].pools.gone
        end))
        for _ = 1, 4 do
            answer = read_json(server:get "/status".body)
            assert.equal(4, answer.all.unnamed.hits)
        end
        -- The other one gives idle memory back.
        for _ = 1, 8 do
            assert.equal("2", server:get "/timers".body)
        end
        assert.is_true(server:quit())
    end)
end)
