-- What a buffer above the largest class costs in C, next to the allocators, and
-- what ways there are to clear it.
--
-- Method. bench/core.c measures one cell with one rival, as for bench/core.lua.
-- Here the sizes are above 1 MiB, one thread takes, dirties and gives back, and
-- the rivals are the allocators. The size "1-8MiB" is random: another one for
-- each buffer. Times are processor times, those of the kernel included. The
-- rivals of a cell take turns, REPEATS times, and the least time of each
-- counts: other load of the machine only adds to it.
--
-- Resident memory is that of BURST: 64 buffers are out at a time, then all are
-- given back, then the pool is trimmed. It is read in the same process.
--
-- bench/clear.c measures ways of clearing, in turns too, CLEARS times; the
-- median of each figure counts.
--
--   luajit bench/large.lua [--core PROGRAM] [--clear PROGRAM] [--quick]
--                          [--only TEXT] [--out DIRECTORY] [--again]
--
-- --only takes the cells whose name contains the text, "clear" among them; a
-- name is, for example, "1.1MiB half". --out writes large-performance.json, two
-- plots, and the tables of large-performance.md into the directory. The
-- measured figures are kept in a file beside PROGRAM; --again reports these
-- without measuring.

local report = require "report"
local work = require "cells"

local options = report.options(arg, { core = true, clear = true, quick = false,
    only = true, out = true, again = false })
local PROGRAM = options.core or "build/bench/core"
local CLEAR = options.clear or "build/bench/clear"
local REPEATS = options.quick and 1 or 7
local CLEARS = options.quick and 1 or 3

local MIB = 1048576
local function seconds(bytes)
    return options.quick and 0.02 or bytes > 8 * MIB and 0.3 or 0.1
end
local SIZES = { { "1.1MiB", 1100000 }, { "2MiB", 2 * MIB }, { "4MiB", 4 * MIB },
    { "8MiB", 8 * MIB }, { "32MiB", 32 * MIB },
    { "1-8MiB", 8 * MIB, pattern = "vary" } }
local DIRTY = { "64", "half", "all" }
local BURST = { pattern = "burst", threads = 8, bytes = 2 * MIB,
    size = "64 of 2MiB", dirty = "all", name = "burst" }

-- Name, column of the tables, and in which cells it takes part.
local function partly(cell)
    return cell.dirty ~= "all"
end
local RIVALS = {
    { "bufpool", "bufpool" },
    { "bufpool-all", "not told", when = partly },
    { "glibc-calloc", "glibc", allocator = true },
    { "glibc-malloc", "glibc", allocator = true },
    { "jemalloc-calloc", "jemalloc", allocator = true },
    { "jemalloc-malloc", "jemalloc", allocator = true },
    { "mimalloc-calloc", "mimalloc", allocator = true },
    { "mimalloc-malloc", "mimalloc", allocator = true },
    { "tcmalloc-calloc", "tcmalloc", allocator = true },
    { "tcmalloc-malloc", "tcmalloc", allocator = true },
    { "memset", "memset", when = function(cell)
        return cell.pattern == "same"
    end },
}
local COLUMNS = { "bufpool", "not told", "glibc", "jemalloc", "mimalloc",
    "tcmalloc", "memset" }

local function cells()
    local list = {}
    for _, size in ipairs(SIZES) do
        for _, dirty in ipairs(DIRTY) do
            list[#list + 1] = { pattern = size.pattern or "same", threads = 1,
                bytes = size[2], size = size[1], dirty = dirty,
                name = size[1] .. " " .. dirty }
        end
    end
    list[#list + 1] = BURST
    return list
end

-- Measuring ------------------------------------------------------------------

-- One list for pages of 4 KiB, one for huge pages; empty where there are none.
local function clearing()
    local curves = {}
    for mode, option in pairs { small = "", huge = "huge" } do
        local runs = {}
        for k = 1, CLEARS do
            report.progress(("clearing, %s pages: %d of %d"):format(mode, k,
                CLEARS))
            runs[k] = report.run(report.quote(CLEAR) .. " " .. option)
        end
        for i, point in ipairs(runs[1]) do
            for name in pairs(point) do
                local list = {}
                for k = 1, CLEARS do
                    list[k] = runs[k][i][name]
                end
                point[name] = report.median(list)
            end
        end
        curves[mode] = runs[1]
    end
    return curves
end

local function measure_all()
    local probe = { bytes = 2 * MIB, dirty = "64", threads = 1,
        pattern = "same" }
    local rivals, list = work.present(PROGRAM, RIVALS, probe), {}
    local function wanted(name)
        return not options.only or name:find(options.only, 1, true)
    end
    for _, cell in ipairs(cells()) do
        if wanted(cell.name) then
            report.progress(cell.name)
            list[#list + 1] = work.measure(PROGRAM, cell, rivals, REPEATS,
                seconds(cell.bytes), "busy")
        end
    end
    local curves = wanted "clear" and clearing() or { small = {}, huge = {} }
    report.progress()
    assert(list[1] or curves.small[1], "no cell has that in its name")
    return { cells = list, clearing = curves, repeats = REPEATS,
        clears = CLEARS, machine = report.machine(),
        packages = report.packages() }
end

local data
if options.again then
    data = dofile(PROGRAM .. ".large")
else
    data = measure_all()
    report.save(PROGRAM .. ".large", "return " .. report.literal(data))
end

-- Targets --------------------------------------------------------------------

local number, time, line = report.number, report.time, report.line

local function best_allocator(cell)
    local best, name = math.huge, nil
    for _, rival in ipairs(RIVALS) do
        local f = rival.allocator and cell.rivals[rival[1]]
        if f and f.busy and f.busy < best then
            best, name = f.busy, rival[1]
        end
    end
    return best, name
end

-- By what part less counts as equal: two runs of one cell differ so much.
local NOISE = 0.05

local verdicts = {}
for _, cell in ipairs(data.cells) do
    local best, name = best_allocator(cell)
    local ours = cell.rivals.bufpool
    if ours and ours.busy and name
        and (cell.pattern == "same" or cell.dirty == "half") then
        local want = cell.dirty == "64" and 20
            or cell.pattern == "vary" and 1.3 or 1
        local got = best / ours.busy
        verdicts[#verdicts + 1] = { what = ("%s, %s dirty"):format(cell.size,
            cell.dirty), against = name, want = want == 1 and "not slower"
                or ("%g times"):format(want),
            got = ("%s times"):format(number(got)),
            met = got >= (want == 1 and 1 - NOISE or want) }
    elseif ours and cell.pattern == "burst" then
        verdicts[#verdicts + 1] = { what = "resident memory that a burst of "
            .. cell.size .. " leaves after a trim", against = "its peak",
            want = "10 %", got = ("%s %%"):format(number(
                100 * math.max(ours.trimmed, 0) / ours.peak)),
            met = ours.trimmed <= ours.peak / 10 }
    end
end

-- The report -----------------------------------------------------------------

local function per_buffer(cell, column)
    local parts = {}
    local best = math.min((best_allocator(cell)), cell.rivals.bufpool.busy)
    for _, rival in ipairs(RIVALS) do
        local f = cell.rivals[rival[1]]
        if rival[2] == column and f and f.busy then
            parts[#parts + 1] = (f.busy == best and "**%s**" or "%s"):format(
                time(f.busy))
        end
    end
    return table.concat(parts, " / ")
end

local function size_name(bytes)
    return bytes < MIB and ("%d KiB"):format(bytes / 1024)
        or ("%d MiB"):format(bytes / MIB)
end

local function rows(add, head, list)
    add ""
    add(line(head, #head))
    add("|" .. ("---|"):rep(#head))
    for _, values in ipairs(list) do
        add(line(values, #head))
    end
end

local function throughput(add)
    local list = {}
    for _, cell in ipairs(data.cells) do
        if cell.pattern ~= "burst" then
            local values = { cell.size .. ", " .. cell.dirty }
            for k, column in ipairs(COLUMNS) do
                values[k + 1] = per_buffer(cell, column)
            end
            list[#list + 1] = values
        end
    end
    rows(add, { "size, dirty", unpack(COLUMNS) }, list)
end

local function memory(add)
    local list = {}
    for _, cell in ipairs(data.cells) do
        for _, rival in ipairs(cell.pattern == "burst" and RIVALS or {}) do
            local f = cell.rivals[rival[1]]
            if f then
                list[#list + 1] = { rival[1], number(f.peak / 1024),
                    number(f.after / 1024),
                    f.trimmed and number(f.trimmed / 1024) or "" }
            end
        end
    end
    rows(add, { "MiB", "peak", "all given back", "trimmed" }, list)
end

local WAYS = { "memset", "stream", "give-back" }

local function clear_table(add, points)
    local head, list = { "size", "next writes" }, {}
    for _, way in ipairs(WAYS) do
        head[#head + 1] = way .. ", alone"
        head[#head + 1] = way .. ", with the writing"
    end
    for _, point in ipairs(points) do
        local values = { size_name(point.bytes),
            point.part == 1 and "all" or "1/" .. point.part }
        local least = math.huge
        for _, way in ipairs(WAYS) do
            least = math.min(least, point[way] or least)
        end
        for _, way in ipairs(WAYS) do
            local total = point[way]
            values[#values + 1] = total and time(point[way .. "-alone"]) or ""
            values[#values + 1] = total and (total == least and "**%s**"
                or "%s"):format(time(total)) or ""
        end
        list[#list + 1] = values
    end
    rows(add, head, list)
end

local function markdown()
    return ("Machine: %s. %s. The targets say how many times as fast as the "
        .. "best allocator bufpool is; what is less than %d %% slower counts "
        .. "as equal. %s"):format(data.machine, data.packages, NOISE * 100,
        report.targets(verdicts))
end

-- What the page leaves to the plots and to the JSON file.
local function tables()
    local out = {}
    local function add(row)
        out[#out + 1] = row
    end
    if data.cells[1] then
        add(("\nProcessor time for a buffer, one thread. An allocator has two "
            .. "figures: with calloc / with malloc and memset. Each is the "
            .. "least of %d."):format(data.repeats))
        throughput(add)
        add "\nResident memory, 8 threads, 8 buffers of 2 MiB each, dirtied"
        memory(add)
    end
    for _, mode in ipairs { "small", "huge" } do
        if data.clearing[mode][1] then
            add(("\nClearing, %s. Each is the median of %d."):format(
                mode == "small" and "pages of 4 KiB" or "huge pages",
                data.clears))
            clear_table(add, data.clearing[mode])
        end
    end
    return table.concat(out, "\n")
end

-- A bar for bufpool, and one for the better figure of each allocator.
local function bars()
    local groups = {}
    for _, cell in ipairs(data.cells) do
        if cell.pattern ~= "burst" then
            local group = { name = ("%s, %s dirty"):format(cell.size,
                cell.dirty) }
            for _, column in ipairs(COLUMNS) do
                local least
                for _, rival in ipairs(RIVALS) do
                    local f = cell.rivals[rival[1]]
                    if rival[2] == column and f and f.busy then
                        least = math.min(least or f.busy, f.busy)
                    end
                end
                if least then
                    group[#group + 1] = { column, least,
                        rival = column ~= "bufpool" and column ~= "not told" }
                end
            end
            groups[#groups + 1] = group
        end
    end
    return report.bars("Processor time per buffer, one thread; logarithmic. "
        .. "Green: bufpool. Of an allocator the better of calloc and "
        .. "malloc+memset.",
        { from = 10, decades = 7, value = time, label = report.time_label },
        groups)
end

local COLORS = { memset = "#2b7a5b", stream = "#2f6db3",
    ["give-back"] = "#c0504d" }

local function curves()
    local panels, ticks, seen = {}, {}, {}
    for _, mode in ipairs { "small", "huge" } do
        for _, part in ipairs { 1, 16 } do
            local panel = { name = ("%s; the next writes %s"):format(
                mode == "small" and "pages of 4 KiB" or "huge pages",
                part == 1 and "all" or "1/16") }
            for _, way in ipairs(WAYS) do
                local series = { name = way, color = COLORS[way] }
                for _, point in ipairs(data.clearing[mode]) do
                    if point.part == part and point[way] then
                        series[#series + 1] = { point.bytes,
                            point[way] / (point.bytes / 1024) }
                        if not seen[point.bytes] then
                            seen[point.bytes] = true
                            ticks[#ticks + 1] = point.bytes
                        end
                    end
                end
                if series[1] then
                    panel[#panel + 1] = series
                end
            end
            if panel[1] then
                panels[#panels + 1] = panel
            end
        end
    end
    return report.lines("Clearing and the writing after it, ns per KiB of "
        .. "the size. Both axes logarithmic.", ticks, panels, function(bytes)
            return bytes < MIB and bytes / 1024 .. "K" or bytes / MIB .. "M"
        end)
end

print(markdown(), (tables():gsub("%*%*", "")))
if options.out then
    local path = options.out .. "/large-performance"
    report.save_json(path .. ".json", { machine = data.machine,
        packages = data.packages, repeats = data.repeats, cells = data.cells,
        clearing = data.clearing, targets = verdicts })
    report.save(path .. ".svg", bars())
    report.save(path .. "-clear.svg", curves())
    report.insert(path .. ".md", markdown())
end
