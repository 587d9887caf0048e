-- What a buffer costs in C, next to what people use instead.
--
-- Method. bench/core.c measures one cell for one rival: throughput, memory and
-- latency, in a process of its own, on two processors. This program runs the
-- matrix: classes, bytes dirtied, threads, patterns. The rivals of a cell take
-- turns, REPEATS times, so that what else the machine does meets all alike, and
-- the median of each figure counts. With one thread alone, where targets are
-- nanoseconds, they do so three times as often. A rival that is not there is
-- named and left out.
--
-- Targets are ratios within one run.
--
--   luajit bench/core.lua [--core PROGRAM] [--quick] [--only TEXT]
--                         [--out DIRECTORY] [--again]
--
-- --only takes cells whose name contains the text, as "burst 8 64KiB half" or
-- a part of it. With --out: performance.json, .svg, two more plots, and the
-- tables of performance.md there. What was measured is kept beside the program;
-- --again reports it without measuring.

local report = require "report"

local options = report.options(arg, { core = true, quick = false, only = true,
    out = true, again = false })
local PROGRAM = options.core or "build/bench/core"
local REPEATS = options.quick and 1 or 3
local QUICK = 0.02

local KIB = 1024
local CLASSES = { { "4KiB", 4 * KIB }, { "64KiB", 64 * KIB },
    { "256KiB", 256 * KIB }, { "1MiB", KIB * KIB } }
local DIRTY = { "64", "half", "all" }
local PATTERNS = { "same", "pass", "burst", "churn" }
local THREADS = { 1, 2, 8, 32 }
-- Per phase; some threads must have their turn on the two processors.
local SECONDS = { 0.06, 0.06, [8] = 0.08, [32] = 0.08 }

-- Name, column, and where it has no cell of its own. With all dirtied, it makes
-- no difference to be told how much was.
local function partly(cell)
    return cell.dirty ~= "all"
end
local function alone(cell)
    return cell.pattern == "same" and cell.threads == 1
end
local RIVALS = {
    { "bufpool", "bufpool" },
    { "bufpool-all", "not told", when = partly },
    { "glibc-calloc", "glibc" },
    { "glibc-malloc", "glibc" },
    { "jemalloc-calloc", "jemalloc" },
    { "jemalloc-malloc", "jemalloc" },
    { "mimalloc-calloc", "mimalloc" },
    { "mimalloc-malloc", "mimalloc" },
    { "tcmalloc-calloc", "tcmalloc" },
    { "tcmalloc-malloc", "tcmalloc" },
    { "mempool", "rte_mempool" },
    { "mempool-d", "wiped by hand", when = partly },
    { "santh", "santh-bufpool" },
    { "zeropool", "zeropool" },
    { "memset", "memset", when = alone },
}

local function cells()
    local list = {}
    for _, pattern in ipairs(PATTERNS) do
        for _, threads in ipairs(THREADS) do
            for _, class in ipairs(CLASSES) do
                for _, dirty in ipairs(DIRTY) do
                    local cell = { pattern = pattern, threads = threads,
                        class = class[1], bytes = class[2], dirty = dirty }
                    cell.name = ("%s %d %s %s"):format(pattern, threads,
                        class[1], dirty)
                    if pattern ~= "pass" or threads % 2 == 0 then
                        list[#list + 1] = cell
                    end
                end
            end
        end
    end
    return list
end

-- Measuring ------------------------------------------------------------------

local function run(rival, cell, seconds)
    local dirty = cell.dirty == "all" and cell.bytes
        or cell.dirty == "half" and cell.bytes / 2 or tonumber(cell.dirty)
    local pipe = assert(io.popen(("timeout 60 %s %s %d %d %d %s %g"):format(
        report.quote(PROGRAM), rival[1], cell.bytes, dirty, cell.threads,
        cell.pattern, seconds)))
    local text = pipe:read "*a"
    pipe:close()
    local figures = {}
    for name, value in text:gmatch "(%w+)=(%S+)" do
        figures[name] = tonumber(value)
    end
    return figures.rate and figures
end

local function measure(cell, rivals)
    local got = {}
    for _ = 1, REPEATS * (alone(cell) and 3 or 1) do
        for _, rival in ipairs(rivals) do
            if not rival.when or rival.when(cell) then
                local figures = run(rival, cell,
                    options.quick and QUICK or SECONDS[cell.threads])
                for name, value in pairs(figures or {}) do
                    local mine = got[rival[1]] or {}
                    got[rival[1]] = mine
                    mine[name] = mine[name] or {}
                    table.insert(mine[name], value)
                end
            end
        end
    end
    for _, figures in pairs(got) do
        for name, list in pairs(figures) do
            figures[name] = report.median(list)
        end
    end
    cell.rivals = got
    return cell
end

local function packages()
    local pipe = io.popen("dpkg-query -W -f '${Package} ${Version}, ' libc6"
        .. " libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 librte-mempool23"
        .. " 2>/dev/null")
    local text = pipe:read "*a"
    pipe:close()
    local file = io.open "/sys/kernel/mm/transparent_hugepage/enabled"
    local huge = file and file:read "*a":match "%[(%w+)%]" or "not there"
    if file then
        file:close()
    end
    return text .. "transparent huge pages: " .. huge
end

local function measure_all()
    local probe = { bytes = 4096, dirty = "64", threads = 1, pattern = "same" }
    local rivals, list = {}, {}
    for _, rival in ipairs(RIVALS) do
        if run(rival, probe, 0.001) then
            rivals[#rivals + 1] = rival
        end
    end
    assert(rivals[1] == RIVALS[1], PROGRAM .. " does not run")
    for _, cell in ipairs(cells()) do
        if not options.only or cell.name:find(options.only, 1, true) then
            list[#list + 1] = cell
        end
    end
    assert(list[1], "no cell has that in its name")
    local began = os.time()
    for k, cell in ipairs(list) do
        report.progress(("%d of %d: %s, %d min to go"):format(k, #list,
            cell.name, k == 1 and 0
            or (os.time() - began) / (k - 1) * (#list - k + 1) / 60))
        measure(cell, rivals)
    end
    report.progress()
    return { cells = list, repeats = REPEATS, machine = report.machine(),
        packages = packages() }
end

local data
if options.again then
    data = dofile(PROGRAM .. ".results")
else
    data = measure_all()
    report.save(PROGRAM .. ".results", "return " .. report.literal(data))
end

-- Targets --------------------------------------------------------------------

local ALLOCATORS = { "glibc-calloc", "glibc-malloc", "jemalloc-calloc",
    "jemalloc-malloc", "mimalloc-calloc", "mimalloc-malloc", "tcmalloc-calloc",
    "tcmalloc-malloc" }

local function figure(pattern, threads, class, dirty, rival, name)
    for _, cell in ipairs(data.cells) do
        if cell.pattern == pattern and cell.threads == threads
            and cell.class == class and cell.dirty == dirty then
            return cell.rivals[rival] and cell.rivals[rival][name or "rate"]
        end
    end
end

local function best_rate(names, ...)
    local pattern, threads, class, dirty = ...
    local best
    for _, name in ipairs(names) do
        local rate = figure(pattern, threads, class, dirty, name)
        best = rate and math.max(best or 0, rate) or best
    end
    return best
end

local verdicts = {}
local function judge(what, against, want, got, met)
    verdicts[#verdicts + 1] = { what = what, against = against, want = want,
        got = got, met = met }
end

-- At least `want` times.
local function judge_ratio(what, against, want, ours, theirs)
    if ours and theirs then
        local got = ours / theirs
        judge(what, against, ("%g times"):format(want),
            ("%s times"):format(report.number(got)), got >= want)
    end
end

local function faster_than_allocators(class, want)
    judge_ratio(("1 thread, %s, 64 dirty"):format(class), "best allocator",
        want, figure("same", 1, class, "64", "bufpool"),
        best_rate(ALLOCATORS, "same", 1, class, "64"))
end

-- The rival `memset` dirties and wipes, so half of it is the wipe.
local function near_memset(class)
    local ours = figure("same", 1, class, "all", "bufpool")
    local theirs = figure("same", 1, class, "all", "memset")
    if ours and theirs then
        local above = 1e9 / ours - 1e9 / theirs
        local part = above / (1e9 / theirs / 2)
        judge(("1 thread, %s, all dirty"):format(class), "bare memset",
            "8 ns above, or 3%", ("%s ns, %.1f%%"):format(
            above < 0 and "-" .. report.number(-above) or report.number(above),
            part * 100), above <= 8 or part <= 0.03)
    end
end

local function every_cell(rival, label)
    local ratios, slower, worst = {}, 0, nil
    for _, cell in ipairs(data.cells) do
        local ours, theirs = cell.rivals.bufpool, cell.rivals[rival]
        if ours and theirs then
            local ratio = ours.rate / theirs.rate
            ratios[#ratios + 1] = ratio
            slower = slower + (ratio < 1 and 1 or 0)
            if not worst or ratio < worst.ratio then
                worst = { ratio = ratio, name = cell.name }
            end
        end
    end
    if worst then
        judge(("every cell (%d)"):format(#ratios), label, "not slower",
            ("slower in %d, least %s times: %s"):format(slower,
            report.number(worst.ratio), worst.name), slower == 0)
        judge("median of all cells", label, "3 times", ("%s times"):format(
            report.number(report.median(ratios))), report.median(ratios) >= 3)
    end
end

faster_than_allocators("4KiB", 5)
faster_than_allocators("1MiB", 200)
for _, class in ipairs(CLASSES) do
    near_memset(class[1])
end
every_cell("santh", "santh-bufpool")
every_cell("zeropool", "zeropool")
every_cell("mempool", "rte_mempool")
every_cell("mempool-d", "rte_mempool, wiped by hand")
for _, pattern in ipairs(PATTERNS) do
    judge_ratio(pattern .. ", 4KiB, 64 dirty, 32 threads", "our 2 threads", 0.9,
        figure(pattern, 32, "4KiB", "64", "bufpool"),
        figure(pattern, 2, "4KiB", "64", "bufpool"))
end
for _, pattern in ipairs { "pass", "burst" } do
    for _, rival in ipairs { "santh", "zeropool", "mempool" } do
        judge_ratio(pattern .. ", 4KiB, 64 dirty, 32 threads: p99.99", rival,
            100, figure(pattern, 32, "4KiB", "64", rival, "p9999"),
            figure(pattern, 32, "4KiB", "64", "bufpool", "p9999"))
    end
end
for _, dirty in ipairs(DIRTY) do
    judge_ratio(("pass, 2 threads, 64KiB, %s dirty"):format(dirty), "mimalloc",
        1.5, figure("pass", 2, "64KiB", dirty, "bufpool"),
        best_rate({ "mimalloc-calloc", "mimalloc-malloc" }, "pass", 2, "64KiB",
            dirty))
end

-- The report -----------------------------------------------------------------

local function time(ns)
    for _, unit in ipairs { "ns", "us", "ms" } do
        if ns < 999.5 then
            return report.number(ns) .. " " .. unit
        end
        ns = ns / 1000
    end
    return report.number(ns) .. " s"
end

local function text()
    for _, cell in ipairs(data.cells) do
        print(("%s\n  %-16s %9s %9s %9s %9s %9s %9s %8s"):format(cell.name, "",
            "a buffer", "p50", "p99", "p99.9", "p99.99", "worst", "MiB"))
        for _, rival in ipairs(RIVALS) do
            local f = cell.rivals[rival[1]]
            if f then
                print(("  %-16s %9s %9s %9s %9s %9s %9s %8.1f"):format(rival[1],
                    time(1e9 / f.rate), time(f.p50), time(f.p99), time(f.p999),
                    time(f.p9999), time(f.worst), f.peak / 1024))
            end
        end
    end
    for _, v in ipairs(verdicts) do
        print(("%-8s %s, against %s: %s, want %s"):format(
            v.met and "met" or "MISSED", v.what, v.against, v.got, v.want))
    end
end

-- A line of a table; nil values are empty.
local function line(values, n)
    for k = 1, n do
        values[k] = values[k] or ""
    end
    return "| " .. table.concat(values, " | ") .. " |"
end

local function columns()
    local names, seen = {}, {}
    for _, rival in ipairs(RIVALS) do
        if not seen[rival[2]] then
            seen[rival[2]] = true
            names[#names + 1] = rival[2]
        end
    end
    return names
end

-- The least time of a cell is bold; a memset is no pool.
local function fastest(cell)
    local best = 0
    for name, f in pairs(cell.rivals) do
        best = name == "memset" and best or math.max(best, f.rate)
    end
    return best
end

-- Time per buffer; two figures where there are calloc and malloc.
local function throughput_table(add, pattern, threads)
    local names = columns()
    local began
    for _, cell in ipairs(data.cells) do
        if cell.pattern == pattern and cell.threads == threads then
            if not began then
                began = true
                add ""
                add(("%s, %d thread%s:"):format(pattern, threads,
                    threads == 1 and "" or "s"))
                add ""
                add("| class, dirty | " .. table.concat(names, " | ") .. " |")
                add("|---" .. ("|---"):rep(#names) .. "|")
            end
            local values = { cell.class .. ", " .. cell.dirty }
            for k, name in ipairs(names) do
                local parts = {}
                for _, rival in ipairs(RIVALS) do
                    local f = cell.rivals[rival[1]]
                    if rival[2] == name and f then
                        parts[#parts + 1] = (f.rate == fastest(cell)
                            and "**%s**" or "%s"):format(time(1e9 / f.rate))
                    end
                end
                values[k + 1] = table.concat(parts, " / ")
            end
            add(line(values, #names + 1))
        end
    end
end

local function latency_table(add, cell)
    if cell.class ~= "4KiB" or cell.dirty ~= "64" or cell.threads == 8
        or cell.threads == 2 and cell.pattern ~= "pass" then
        return
    end
    add ""
    add(("| %s, %d thread%s | p50 | p99 | p99.9 | p99.99 | worst |"):format(
        cell.pattern, cell.threads, cell.threads == 1 and "" or "s"))
    add "|---|---|---|---|---|---|"
    for _, rival in ipairs(RIVALS) do
        local f = cell.rivals[rival[1]]
        if f then
            add(line({ rival[1], time(f.p50), time(f.p99), time(f.p999),
                time(f.p9999), time(f.worst) }, 6))
        end
    end
end

local function memory_table(add)
    local seen = {}
    local function mib(kib)
        return report.number(math.max(kib, 0) / 1024)
    end
    for _, rival in ipairs(RIVALS) do
        local values, any = { rival[1] }, false
        for k, class in ipairs(CLASSES) do
            local function of(name)
                return figure("burst", 8, class[1], "all", rival[1], name)
            end
            if of "peak" then
                any = true
                values[k + 1] = mib(of "peak") .. " / " .. mib(of "after")
            end
        end
        if any then
            seen[#seen + 1] = line(values, #CLASSES + 1)
        end
    end
    if #seen > 0 then
        add ""
        add "| MiB, peak / after | 4 KiB | 64 KiB | 256 KiB | 1 MiB |"
        add "|---|---|---|---|---|"
        add(table.concat(seen, "\n"))
    end
end

local function markdown()
    local out = {}
    local function add(row)
        out[#out + 1] = row
    end
    add(("Machine: %s, two of them used. %s. Median of %d."):format(
        data.machine, data.packages, data.repeats))
    add ""
    add "### Targets"
    add ""
    add "| what | against | wanted | measured | |"
    add "|---|---|---|---|---|"
    for _, v in ipairs(verdicts) do
        add(line({ v.what, v.against, v.want, v.got,
            v.met and "met" or "**missed**" }, 5))
    end
    add ""
    add "### Time per buffer"
    add ""
    add "By the clock, all threads together. Allocators: calloc / malloc."
    for _, pattern in ipairs(PATTERNS) do
        for _, threads in ipairs(THREADS) do
            throughput_table(add, pattern, threads)
        end
    end
    add ""
    add "### Latency of take and give, 4 KiB, 64 dirty"
    for _, cell in ipairs(data.cells) do
        latency_table(add, cell)
    end
    add ""
    add "### Resident memory, bursts of 8 threads, all dirty"
    memory_table(add)
    return table.concat(out, "\n")
end

-- Time per buffer of one thread, or p99.99 of 32, by what `pick` takes.
local function bars(title, from, decades, pick, value_of)
    local groups = {}
    for _, cell in ipairs(data.cells) do
        local name = pick(cell)
        if name then
            local group = { name = name }
            for _, rival in ipairs(RIVALS) do
                local f = cell.rivals[rival[1]]
                if f then
                    group[#group + 1] = { rival[1], value_of(f),
                        rival = not rival[1]:find "^bufpool" }
                end
            end
            groups[#groups + 1] = group
        end
    end
    return report.bars(title, { from = from, decades = decades, value = time,
        label = report.time_label }, groups)
end

local LINES = { { "bufpool", "#2b7a5b" }, { "glibc-calloc", "#8c6d31" },
    { "jemalloc-calloc", "#c0504d" }, { "mimalloc-calloc", "#7f5fa8" },
    { "tcmalloc-calloc", "#d98b2b" }, { "mempool", "#2f6db3" },
    { "santh", "#c2569b" }, { "zeropool", "#666666" } }

local function lines()
    local panels = {}
    for _, pattern in ipairs(PATTERNS) do
        local panel = { name = pattern }
        for _, of in ipairs(LINES) do
            local series = { name = of[1], color = of[2] }
            for _, threads in ipairs(THREADS) do
                local rate = figure(pattern, threads, "4KiB", "64", of[1])
                if rate then
                    series[#series + 1] = { threads, rate / 1e6 }
                end
            end
            if #series > 0 then
                panel[#panel + 1] = series
            end
        end
        if #panel > 0 then
            panels[#panels + 1] = panel
        end
    end
    return report.lines("Million buffers a second over threads, two "
        .. "processors; 4 KiB, 64 bytes dirtied. Both axes logarithmic.",
        THREADS, panels)
end

text()
if options.out then
    local path = options.out .. "/performance"
    report.save_json(path .. ".json", { machine = data.machine,
        packages = data.packages, repeats = data.repeats, cells = data.cells,
        targets = verdicts })
    report.save(path .. ".svg", bars("Time per buffer, one thread, 64 bytes "
        .. "dirtied; logarithmic. Green: ours.", 1, 5, function(cell)
            return alone(cell) and cell.dirty == "64" and cell.class
        end, function(f)
            return 1e9 / f.rate
        end))
    report.save(path .. "-threads.svg", lines())
    report.save(path .. "-latency.svg", bars("p99.99 of take and give, 32 "
        .. "threads on two processors, 4 KiB, 64 bytes dirtied; logarithmic.",
        100, 7, function(cell)
            return cell.threads == 32 and cell.class == "4KiB"
                and cell.dirty == "64" and cell.pattern
        end, function(f)
            return f.p9999
        end))
    report.insert(path .. ".md", markdown())
end
