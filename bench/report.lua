-- What both benchmarks use: options of the command line, numbers, and output as
-- JSON, as SVG plots, and as text between two marker lines of a document.
local ffi = require "ffi"

local report = {}

ffi.cdef "int isatty(int);"

function report.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

---The options in `words`. `known` maps the name of an option to whether it
---takes a value.
function report.options(words, known)
    local options, k = {}, 1
    while words[k] do
        local name = words[k]:match "^%-%-(%w+)$"
        if not name or known[name] == nil then
            error("unknown option " .. words[k], 0)
        elseif known[name] then
            k = k + 1
            options[name] = words[k]
                or error("a value is missing after --" .. name, 0)
        else
            options[name] = true
        end
        k = k + 1
    end
    return options
end

local terminal = ffi.C.isatty(2) == 1

---Shows on a terminal what is being measured; without text, clears the line.
function report.progress(text)
    if terminal then
        io.stderr:write("\r\27[K", text or "")
    end
end

function report.median(list)
    table.sort(list)
    return list[math.floor((#list + 1) / 2)]
end

---Adds the figures of a sample to those of others, a list for each key.
function report.add(samples, figures)
    for key, value in pairs(figures) do
        samples[key] = samples[key] or {}
        table.insert(samples[key], value)
    end
end

---The median of each list.
function report.medians(samples)
    local figures = {}
    for key, list in pairs(samples) do
        figures[key] = report.median(list)
    end
    return figures
end

---A plain value as Lua source.
function report.literal(v)
    if type(v) ~= "table" then
        return type(v) == "number" and ("%.17g"):format(v)
            or type(v) == "string" and ("%q"):format(v) or tostring(v)
    end
    local parts = {}
    for key, value in pairs(v) do
        parts[#parts + 1] = ("[%s] = %s"):format(report.literal(key),
            report.literal(value))
    end
    return "{ " .. table.concat(parts, ", ") .. " }"
end

local ESCAPES = { ["\n"] = "\\n", ["\t"] = "\\t", ["\\"] = "\\\\",
    ['"'] = '\\"' }
local ESCAPED = { n = "\n", t = "\t" }

local function json(v, indent)
    if type(v) == "string" then
        return '"' .. v:gsub('[\n\t\\"]', ESCAPES) .. '"'
    elseif type(v) == "number" then
        return (v % 1 == 0 and "%.0f" or "%.6g"):format(v)
    elseif type(v) ~= "table" then
        return tostring(v)
    end
    local inner, parts = indent .. " ", {}
    if #v > 0 then
        for k, value in ipairs(v) do
            parts[k] = json(value, inner)
        end
        return ("[\n%s%s\n%s]"):format(inner,
            table.concat(parts, ",\n" .. inner), indent)
    end
    local keys = {}
    for key in pairs(v) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for k, key in ipairs(keys) do
        parts[k] = ('"%s": %s'):format(key, json(v[key], inner))
    end
    return "{ " .. table.concat(parts, ", ") .. " }"
end

---A number with three significant digits.
function report.number(x)
    return x < 9.995 and ("%.2f"):format(x) or x < 99.95 and ("%.1f"):format(x)
        or ("%.0f"):format(x)
end

function report.machine()
    local cpu, cores = "unknown", 0
    for line in io.lines "/proc/cpuinfo" do
        local model = line:match "^model name%s*:%s*(.*)"
        if model then
            cpu, cores = model, cores + 1
        end
    end
    return ("%s, %d cores"):format(cpu, cores)
end

---What the rivals of C are, and a setting of the machine that matters to them.
function report.packages()
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

---Nanoseconds, in the unit that suits them.
function report.time(ns)
    for _, unit in ipairs { "ns", "us", "ms" } do
        if ns < 999.5 then
            return report.number(ns) .. " " .. unit
        end
        ns = ns / 1000
    end
    return report.number(ns) .. " s"
end

---A line of a table with n columns; a nil value leaves its column empty.
function report.line(values, n)
    for k = 1, n do
        values[k] = values[k] or ""
    end
    return "| " .. table.concat(values, " | ") .. " |"
end

---Runs a program that prints name=number; a list with a table for each line
---that has such.
function report.run(command)
    local pipe = assert(io.popen(command))
    local lines = {}
    for text in pipe:lines() do
        local figures = {}
        for name, value in text:gmatch "([%w-]+)=(%S+)" do
            figures[name] = tonumber(value)
        end
        lines[#lines + 1] = next(figures) and figures
    end
    pipe:close()
    return lines
end

---A plot of bars on a logarithmic axis, which begins at axis.from, is
---axis.decades long, and is labelled by axis.label(value). A group has a name
---and bars: { name, value, rival = whether it is grey, outline = a second
---value, drawn as a frame }.
function report.bars(title, axis, groups)
    local WIDTH, LEFT, BAR = 860, 260, 14
    local parts, y = {}, 50
    local function add(...)
        parts[#parts + 1] = string.format(...)
    end
    local function x_of(value)
        local at = math.log10(value / axis.from) / axis.decades
        return LEFT + math.min(1, math.max(0, at)) * (WIDTH - LEFT - 60)
    end
    for _, group in ipairs(groups) do
        add('<text x="8" y="%d" class="row">%s</text>', y + 11, group.name)
        y = y + BAR + 3
        for _, bar in ipairs(group) do
            local name, value, outline = bar[1], bar[2], bar.outline
            add('<text x="%d" y="%d" text-anchor="end">%s</text>', LEFT - 6,
                y + 11, name)
            add('<rect x="%d" y="%d" width="%.1f" height="%d" class="%s"/>',
                LEFT, y, x_of(value) - LEFT, BAR - 2,
                bar.rival and "rival" or "ours")
            if outline then
                add('<rect x="%d" y="%.1f" width="%.1f" height="%d" '
                    .. 'class="off"/>', LEFT, y + 0.5, x_of(outline) - LEFT,
                    BAR - 3)
            end
            add('<text x="%.1f" y="%d">%s</text>',
                math.max(x_of(value), outline and x_of(outline) or 0) + 4,
                y + 11, axis.value(value))
            y = y + BAR
        end
        y = y + 8
    end
    local grid = {}
    for k = 0, axis.decades do
        local value = axis.from * 10 ^ k
        local x = x_of(value)
        grid[#grid + 1] = ('<line x1="%.1f" x2="%.1f" y1="40" y2="%d"/>'
            .. '<text x="%.1f" y="34" text-anchor="middle">%s</text>'):format(
            x, x, y, x, axis.label(value))
    end
    return ([[
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">
<style>
text { font: 11px sans-serif; fill: #222; }
.row { font-weight: bold; }
.ours { fill: #2b7a5b; }
.rival { fill: #a9b4bd; }
.off { fill: none; stroke: #c0504d; stroke-width: 1; }
line { stroke: #ddd; }
</style>
<rect width="100%%" height="100%%" fill="white"/>
<text x="8" y="16">%s</text>
%s
%s
</svg>
]]):format(WIDTH, y + 10, title, table.concat(grid, "\n"),
        table.concat(parts, "\n"))
end

---A plot of panels, two in a row. A panel is a list of lines; a line is a list
---of { x, y } with a name and a color. Each x is one of `ticks`, which stand at
---equal distances, labelled by label(tick). The y axis is logarithmic.
function report.lines(title, ticks, panels, label)
    local W, H, LEFT, RIGHT, TOP, BOTTOM = 430, 300, 46, 100, 40, 24
    local low, high = math.huge, -math.huge
    for _, panel in ipairs(panels) do
        for _, series in ipairs(panel) do
            for _, point in ipairs(series) do
                if point[2] > 0 then
                    low = math.min(low, point[2])
                    high = math.max(high, point[2])
                end
            end
        end
    end
    low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
    local parts = {}
    local function add(...)
        parts[#parts + 1] = string.format(...)
    end
    for k, panel in ipairs(panels) do
        local x0 = (k - 1) % 2 * W + LEFT
        local y0 = 24 + math.floor((k - 1) / 2) * H + TOP
        local width, height = W - LEFT - RIGHT, H - TOP - BOTTOM
        local at = {}
        add('<text x="%d" y="%d" class="row">%s</text>', x0, y0 - 10,
            panel.name)
        for i, tick in ipairs(ticks) do
            at[tick] = x0 + (i - 1) / (#ticks - 1) * width
            add('<text x="%.1f" y="%d" text-anchor="middle">%s</text>',
                at[tick], y0 + height + 16, label and label(tick) or tick)
        end
        local function y_of(y)
            local part = (math.log10(y) - low) / (high - low)
            return y0 + (1 - math.max(0, part)) * height
        end
        for decade = low, high do
            local y = y_of(10 ^ decade)
            add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>', x0, x0 + width,
                y, y)
            add('<text x="%d" y="%.1f" text-anchor="end">%g</text>', x0 - 6,
                y + 4, 10 ^ decade)
        end
        -- A name stands at the end of its line, below the name before it.
        local names = {}
        for _, series in ipairs(panel) do
            local points = {}
            for i, point in ipairs(series) do
                points[i] = ("%.1f,%.1f"):format(at[point[1]], y_of(point[2]))
            end
            add('<polyline points="%s" stroke="%s"/>',
                table.concat(points, " "), series.color)
            names[#names + 1] = { y = y_of(series[#series][2]), of = series }
        end
        table.sort(names, function(a, b) return a.y < b.y end)
        local y = -math.huge
        for _, name in ipairs(names) do
            y = math.max(y + 12, name.y)
            add('<text x="%d" y="%.1f" style="fill: %s">%s</text>',
                x0 + width + 6, y + 4, name.of.color, name.of.name)
        end
    end
    return ([[
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">
<style>
text { font: 11px sans-serif; fill: #222; }
.row { font-weight: bold; }
line { stroke: #ddd; }
polyline { fill: none; stroke-width: 2; }
</style>
<rect width="100%%" height="100%%" fill="white"/>
<text x="8" y="16">%s</text>
%s
</svg>
]]):format(2 * W, 30 + math.ceil(#panels / 2) * H, title,
        table.concat(parts, "\n"))
end

---A round number of nanoseconds, in the unit that suits it.
function report.time_label(ns)
    return ns < 1e3 and ("%g ns"):format(ns)
        or ns < 1e6 and ("%g us"):format(ns / 1e3)
        or ns < 1e9 and ("%g ms"):format(ns / 1e6)
        or ("%g s"):format(ns / 1e9)
end

function report.save(path, contents)
    local file = assert(io.open(path, "w"))
    assert(file:write(contents))
    assert(file:close())
end

local function from_json(text, at)
    local c, to = text:match("^%s*(.)()", at)
    if c == '"' then
        local stop = to
        while text:sub(stop, stop) ~= '"' do
            stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
        end
        return text:sub(to, stop - 1):gsub("\\(.)", function(escaped)
            return ESCAPED[escaped] or escaped
        end), stop + 1
    elseif c ~= "{" and c ~= "[" then
        local word, stop = text:match("^%s*([%w.+-]+)()", at)
        return tonumber(word) or word == "true", stop
    end
    local value, key = {}, nil
    while not text:find("^%s*[]}]", to) do
        if c == "{" then
            key, to = from_json(text, to)
            to = text:match("^%s*:()", to)
        end
        value[key or #value + 1], to = from_json(text, to)
        to = text:match("^%s*,?()", to)
    end
    return value, text:match("^%s*[]}]()", to)
end

---Those of the rows that have figures, or get them of the row of that name in
---a file that save_json wrote.
function report.merge(path, rows)
    local file, figures, merged = io.open(path), {}, {}
    if file then
        for _, row in ipairs((from_json(file:read "*a", 1)).rows) do
            figures[row.name] = row.figures
        end
        file:close()
    end
    for _, row in ipairs(rows) do
        row.figures = row.figures or figures[row.name]
        merged[#merged + 1] = row.figures and row
    end
    return merged
end

function report.save_json(path, value)
    report.save(path, json(value, "") .. "\n")
end

local BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->"

---How many targets are met, and a table of those that are not. Each has what
---was measured, against whom, what was wanted and what was got, and whether it
---was met.
function report.targets(list)
    local met, out = 0, {}
    for _, v in ipairs(list) do
        met = met + (v.met and 1 or 0)
        if not v.met then
            out[#out + 1] = report.line({ v.what, v.against, v.want, v.got }, 4)
        end
    end
    local text = ("%d of %d targets are met%s."):format(met, #list,
        #out > 0 and ", and these are not" or "")
    return #out == 0 and text or text .. "\n\n| what | against | wanted | "
        .. "measured |\n|---|---|---|---|\n" .. table.concat(out, "\n")
end

---Puts text between the marker lines of a document.
function report.insert(path, text)
    local file = assert(io.open(path))
    local page = file:read "*a"
    file:close()
    local _, from = page:find(BEGIN, 1, true)
    local to = page:find(END, 1, true)
    assert(from and to, "no marker lines in " .. path)
    report.save(path, page:sub(1, from) .. "\n" .. text .. "\n\n"
        .. page:sub(to))
end

return report
