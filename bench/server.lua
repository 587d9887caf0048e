-- A server in C, with bufpool and with what servers use instead.
--
-- Method. bench/server.c has the server, its client, and what each figure is.
-- Each sample is two processes of their own; the ways take turns, REPEATS
-- times, and the median of each figure counts.
--
--   luajit bench/server.lua --server PROGRAM [--quick] [--repeats N]
--                           [--out DIRECTORY]
--
-- --out writes server-performance.json and the table of server-performance.md
-- into the directory.
local report = require "report"

local options = report.options(arg, { server = true, quick = false,
    repeats = true, out = true })
local REPEATS = tonumber(options.repeats) or options.quick and 1 or 3
local LOAD, REST = options.quick and 1 or 4, options.quick and 1 or 20

local WAYS = { "bufpool", "glibc", "glibc-wiped", "jemalloc", "jemalloc-wiped",
    "mimalloc", "mimalloc-wiped", "tcmalloc", "tcmalloc-wiped", "list" }

local samples = {}
for turn = 1, REPEATS do
    for _, name in ipairs(WAYS) do
        report.progress(("%s: %d of %d"):format(name, turn, REPEATS))
        local line = report.run(("%s %s 200 %d %d"):format(
            report.quote(options.server), name, LOAD, REST))[1]
        if line then
            samples[name] = samples[name] or {}
            report.add(samples[name], line)
        end
    end
end
report.progress()

local rows = {}
for _, name in ipairs(WAYS) do
    if samples[name] then
        rows[#rows + 1] = { name = name,
            figures = report.medians(samples[name]) }
    end
end

local function mb(kib)
    return report.number(kib * 1024 / 1e6)
end

local out = { ("Machine: %s. %s. Medians of %d.\n"):format(report.machine(),
    report.packages(), REPEATS),
    ("| memory | frames/s | processor time, us | of it in the kernel | "
        .. "resident before, MB | under load | in the burst | after %d s |")
        :format(REST),
    "|---|---|---|---|---|---|---|---|" }
for _, row in ipairs(rows) do
    local f = row.figures
    out[#out + 1] = report.line({ row.name, ("%.0f"):format(f.rate),
        report.number(f.cpu / 1000), report.number(f.kernel / 1000),
        mb(f.before), mb(f.loaded), mb(f.burst), mb(f.after) }, 8)
end
local text = table.concat(out, "\n")

print(text)
if options.out then
    local path = options.out .. "/server-performance"
    report.save_json(path .. ".json", { machine = report.machine(),
        packages = report.packages(), repeats = REPEATS, rows = rows })
    report.insert(path .. ".md", text)
end
