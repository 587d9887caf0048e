-- What bench/lua.lua found, as text, JSON, an SVG plot, and in a document.
local report = {}

function report.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
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

local function json(v, indent)
    if type(v) == "string" then
        return '"' .. v:gsub('[\\"]', "\\%0") .. '"'
    elseif type(v) == "number" then
        return ("%.6g"):format(v)
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

local function number(x)
    return x < 9.995 and ("%.2f"):format(x) or x < 99.95 and ("%.1f"):format(x)
        or ("%.0f"):format(x)
end

local function machine()
    local cpu, cores = "unknown", 0
    for line in io.lines "/proc/cpuinfo" do
        local model = line:match "^model name%s*:%s*(.*)"
        if model then
            cpu, cores = model, cores + 1
        end
    end
    return ("%s, %d cores"):format(cpu, cores)
end

local function find(results, row, name)
    for _, r in ipairs(results) do
        for _, cell in ipairs(r.name == row and r.cells or {}) do
            if cell.name == name and not cell.missing then
                return cell
            end
        end
    end
end

-- Ours as so many times each rival, in the order of the row.
local function ratios(r, cell)
    local parts = {}
    for _, other in ipairs(r.cells) do
        if other.rival and not other.missing and not cell.rival then
            parts[#parts + 1] = number(cell.ns / other.ns)
        end
    end
    return table.concat(parts, " / ")
end

local function rivals(r)
    local names = {}
    for _, cell in ipairs(r.cells) do
        if cell.rival and not cell.missing then
            names[#names + 1] = cell.name
        end
    end
    return table.concat(names, " / ")
end

local function text(data)
    for _, mode in ipairs { "on", "off" } do
        print(("JIT %s: ns per operation, and ratio to each rival"):format(
            mode))
        for _, r in ipairs(data[mode]) do
            print("  " .. r.name)
            for _, cell in ipairs(r.cells) do
                if cell.missing then
                    print(("    %-22s not there, skipped"):format(cell.name))
                else
                    print(("    %-22s %10s %12s  %s"):format(cell.name,
                        number(cell.ns), r.heap
                        and ("%.0f MB peak"):format(cell.mb) or "",
                        ratios(r, cell)))
                end
            end
        end
    end
end

-- With the JIT off: not slower than the rival, accessors apart.
local function verdicts(data)
    local list = {}
    local function judge(mode, t, ratio)
        local ours = find(data[mode], t.row, t.ours)
        local rival = find(data[mode], t.row, t.rival)
        if ours and rival then
            local field = t.memory and "mb" or "ns"
            local got = ours[field] / rival[field]
            list[#list + 1] = { what = ("%s: %s%s%s"):format(t.row, t.ours,
                t.memory and ", peak memory" or "",
                mode == "off" and ", JIT off" or ""), against = t.rival,
                got = got, want = ratio, met = got <= ratio }
        end
    end
    for _, t in ipairs(data.targets) do
        judge("on", t, t.ratio)
    end
    local seen = {}
    for _, t in ipairs(data.targets) do
        local key = t.row .. t.ours .. t.rival
        local r = t.row
        if not (seen[key] or t.memory or r:find "^%w+ read$"
            or r:find "^%w+ write$") then
            seen[key] = true
            judge("off", t, 1)
        end
    end
    return list
end

local function markdown(data)
    local out = {}
    local function add(...)
        out[#out + 1] = string.format(...)
    end
    add("Machine: %s. %s, %s; median of %d.", machine(), data.version,
        data.arch, data.repeats)
    add ""
    add "Targets, as time (or memory) of ours over that of the rival:"
    add ""
    add "| what | against | at most | measured | |"
    add "|---|---|---|---|---|"
    for _, v in ipairs(verdicts(data)) do
        add("| %s | %s | %s | %s | %s |", v.what, v.against, ("%.3g"):format(
            v.want), ("%.3g"):format(v.got), v.met and "met" or "**missed**")
    end
    for _, mode in ipairs { "on", "off" } do
        add ""
        add("JIT %s, ns per operation; ratios to the rivals of the row:", mode)
        for _, r in ipairs(data[mode]) do
            add ""
            add("| %s | ns | | ratio to %s |", r.name, rivals(r))
            add "|---|---|---|---|"
            for _, cell in ipairs(r.cells) do
                if not cell.missing then
                    add("| %s | %s | %s | %s |", cell.rival and cell.name
                        or "**" .. cell.name .. "**", number(cell.ns), r.heap
                        and ("%.0f MB peak"):format(cell.mb) or "",
                        ratios(r, cell))
                end
            end
        end
    end
    return table.concat(out, "\n")
end

-- Plot: a bar for each cell, on a logarithmic axis; the JIT off in outline.
local WIDTH, LEFT, BAR = 860, 260, 14
local FROM, DECADES = 0.1, 8

local function x_of(ns)
    local at = math.log10(ns / FROM) / DECADES
    return LEFT + math.max(0, at) * (WIDTH - LEFT - 60)
end

local function svg(data)
    local parts, y = {}, 50
    local function add(...)
        parts[#parts + 1] = string.format(...)
    end
    for _, r in ipairs(data.on) do
        add('<text x="8" y="%d" class="row">%s</text>', y + 11, r.name)
        y = y + BAR + 3
        for _, cell in ipairs(r.cells) do
            if not cell.missing then
                local off = find(data.off, r.name, cell.name)
                add('<text x="%d" y="%d" text-anchor="end">%s</text>',
                    LEFT - 6, y + 11, cell.name)
                add('<rect x="%d" y="%d" width="%.1f" height="%d" '
                    .. 'class="%s"/>', LEFT, y, x_of(cell.ns) - LEFT, BAR - 2,
                    cell.rival and "rival" or "ours")
                if off then
                    add('<rect x="%d" y="%.1f" width="%.1f" height="%d" '
                        .. 'class="off"/>', LEFT, y + 0.5,
                        x_of(off.ns) - LEFT, BAR - 3)
                end
                add('<text x="%.1f" y="%d">%s</text>', math.max(x_of(cell.ns),
                    off and x_of(off.ns) or 0) + 4, y + 11, number(cell.ns))
                y = y + BAR
            end
        end
        y = y + 8
    end
    local grid = {}
    for k = 0, DECADES do
        local ns = FROM * 10 ^ k
        local x = x_of(ns)
        grid[#grid + 1] = ('<line x1="%.1f" x2="%.1f" y1="40" y2="%d"/>'
            .. '<text x="%.1f" y="34" text-anchor="middle">%s</text>'):format(
            x, x, y, x, ns < 1e3 and ("%g ns"):format(ns)
            or ns < 1e6 and ("%g us"):format(ns / 1e3)
            or ("%g ms"):format(ns / 1e6))
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
<text x="8" y="16">ns per operation, logarithmic. Green: ours. Grey: rivals.
The figure is with the JIT on, the red outline with the JIT off.</text>
%s
%s
</svg>
]]):format(WIDTH, y + 10, table.concat(grid, "\n"), table.concat(parts, "\n"))
end

local function save(path, contents)
    local file = assert(io.open(path, "w"))
    assert(file:write(contents))
    assert(file:close())
end

local BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->"

function report.write(data, directory)
    text(data)
    for _, v in ipairs(verdicts(data)) do
        print(("%-8s %s, against %s: %.3g, at most %.3g"):format(
            v.met and "met" or "MISSED", v.what, v.against, v.got, v.want))
    end
    if not directory then
        return
    end
    local path = directory .. "/lua-performance"
    save(path .. ".json", json({ machine = machine(), luajit = data.version,
        repeats = data.repeats, jit_on = data.on, jit_off = data.off,
        targets = verdicts(data) }, "") .. "\n")
    save(path .. ".svg", svg(data))
    local file = assert(io.open(path .. ".md"))
    local page = file:read "*a"
    file:close()
    local _, from = page:find(BEGIN, 1, true)
    local to = page:find(END, 1, true)
    assert(from and to, "no marker lines in " .. path .. ".md")
    save(path .. ".md", page:sub(1, from) .. "\n" .. markdown(data) .. "\n\n"
        .. page:sub(to))
end

return report
