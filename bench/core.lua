-- What a buffer costs in C, next to what people use instead.
--
-- Method. bench/core.c measures one cell with one rival: throughput, memory and
-- latency, in a process of its own, on two processors. This program runs all
-- cells: classes, bytes dirtied, threads, patterns. The rivals of a cell take
-- turns, REPEATS times, so that other load of the machine falls on all of them,
-- and the median of each figure counts. Cells of `same` with one thread have
-- targets of a few nanoseconds; there the rivals take three times as many
-- turns. A missing rival is left out, and bench/core.c says which package has
-- it.
--
-- Each target is a ratio of two figures of one run.
--
--   luajit bench/core.lua [--core PROGRAM] [--quick] [--only TEXT]
--                         [--out DIRECTORY] [--again]
--
-- --only takes the cells whose name contains the text; a name is, for example,
-- "burst 8 64KiB half". --out writes performance.json, three plots, and the
-- tables of performance.md into the directory. The measured figures are kept in
-- a file beside PROGRAM; --again reports these without measuring.

local report = require "report"
local work = require "cells"

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
-- Length of a phase by number of threads: with many threads it takes longer
-- until each has run on one of the two processors.
local SECONDS = { 0.06, 0.06, [8] = 0.08, [32] = 0.08 }

-- Name, column of the tables, and in which cells it takes part. When all of the
-- buffer is dirtied, being told how much was dirtied makes no difference.
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

local function measure_all()
    local probe = { bytes = 4096, dirty = "64", threads = 1, pattern = "same" }
    local rivals, list = work.present(PROGRAM, RIVALS, probe), {}
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
        work.measure(PROGRAM, cell, rivals,
            REPEATS * (alone(cell) and 3 or 1),
            options.quick and QUICK or SECONDS[cell.threads])
    end
    report.progress()
    return { cells = list, repeats = REPEATS, machine = report.machine(),
        packages = report.packages() }
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

-- The rival `memset` dirties and wipes, so the wipe takes half of its time.
local function near_memset(class)
    local ours = figure("same", 1, class, "all", "bufpool")
    local theirs = figure("same", 1, class, "all", "memset")
    if ours and theirs then
        local above = 1e9 / ours - 1e9 / theirs
        local part = above / (1e9 / theirs / 2)
        judge(("1 thread, %s, all dirty"):format(class), "bare memset",
            "8 ns more, or 3%", ("%s ns, %.1f%%"):format(
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
            ("slower in %d cells, at worst %s times: %s"):format(slower,
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
    judge_ratio(pattern .. ", 4KiB, 64 dirty, 32 threads",
        "bufpool with 2 threads", 0.9,
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

local time = report.time

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

local function markdown()
    return ("Machine: %s; all threads run on two of them. %s. Each figure is "
        .. "the median of %d, or of three times as many in `same` with 1 "
        .. "thread. %s"):format(data.machine, data.packages, data.repeats,
        report.targets(verdicts))
end

-- A plot of value_of(figures) for each cell that pick(cell) gives a name.
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
        .. "dirtied; logarithmic. Green: bufpool.", 1, 5, function(cell)
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
