-- What the pools of a worker have: taken from bufpool.stats(), added up, put
-- into a string and read again.
local bufpool = require "bufpool"

local assert, ipairs, pairs, pcall = assert, ipairs, pairs, pcall
local tonumber, tostring = tonumber, tostring
local max, concat = math.max, table.concat
local insert, remove = table.insert, table.remove
local byte, char, format = string.byte, string.char, string.format
local gmatch, gsub, match = string.gmatch, string.gsub, string.match

local tally = {}

-- What a pool has, in the order in which the dictionary has it. COUNTERS never
-- fall, the others do.
local COUNTERS = { "hits", "misses", "wiped_bytes", "gc_returns", "lost" }
local GAUGES = {
    "checked_out", "peak_checked_out", "bytes_checked_out",
    "peak_bytes_checked_out", "committed_bytes", "cached_bytes", "in_transit",
}
local LARGE_COUNTERS = { "hits", "misses" }
local LARGE_GAUGES = { "out", "bytes_out", "cached", "cached_bytes" }
local CLASS_COUNTERS = LARGE_COUNTERS
local CLASS_GAUGES = { "count", "ready", "cached", "out" }
-- What is kept of the past.
tally.PAST = {
    "hits", "misses", "checked_out", "bytes_checked_out", "committed_bytes",
    "cached_bytes",
}

-- Sums

local function add_fields(sum, figures, sign, ...)
    for _, names in ipairs { ... } do
        for _, name in ipairs(names) do
            sum[name] = (sum[name] or 0) + sign * figures[name]
        end
    end
end

local function class_of(figures, size)
    local at = 1
    for i, class in ipairs(figures.classes) do
        if class.size == size then
            return class
        end
        at = class.size < size and i + 1 or at
    end
    insert(figures.classes, at, { size = size })
    return figures.classes[at]
end

-- Figures that are all 0.
function tally.nothing()
    local sum = {
        classes = {}, large = {},
        numa = { available = false, pages_by_node = {} },
    }
    for _, name in ipairs(COUNTERS) do sum[name] = 0 end
    for _, name in ipairs(GAUGES) do sum[name] = 0 end
    for _, name in ipairs(LARGE_COUNTERS) do sum.large[name] = 0 end
    for _, name in ipairs(LARGE_GAUGES) do sum.large[name] = 0 end
    return sum
end

-- Adds to `sum`, or takes away from it where `sign` is -1. Returns `sum`.
function tally.add(sum, figures, sign)
    sign = sign or 1
    add_fields(sum, figures, sign, COUNTERS, GAUGES)
    add_fields(sum.large, figures.large, sign, LARGE_COUNTERS, LARGE_GAUGES)
    for _, class in ipairs(figures.classes) do
        add_fields(class_of(sum, class.size), class, sign, CLASS_COUNTERS,
            CLASS_GAUGES)
    end
    local pages = sum.numa.pages_by_node
    for node, count in pairs(figures.numa.pages_by_node) do
        pages[node] = (pages[node] or 0) + sign * count
    end
    sum.numa.available = sum.numa.available or figures.numa.available
    return sum
end

-- The sum of pools by name, and of what has no name.
function tally.total(pools, unnamed)
    local sum = tally.nothing()
    for _, figures in pairs(pools) do
        tally.add(sum, figures)
    end
    return unnamed and tally.add(sum, unnamed) or sum
end

-- What one worker has

-- Adds to each counter what it has ever fallen by since this VM saw it first:
-- a counter falls where a pool goes that shares the place with others, or where
-- another thread is inside the pool just now. Returns what the next call needs.
local function lift(figures, names, before)
    local kept = {}
    for _, name in ipairs(names) do
        local raw, above = figures[name], 0
        if before then
            above = before[name].above + max(before[name].raw - raw, 0)
        end
        kept[name] = { raw = raw, above = above }
        figures[name] = raw + above
    end
    return kept
end

local function lift_pool(figures, before)
    before = before or { classes = {} }
    local kept = {
        scalars = lift(figures, COUNTERS, before.scalars),
        large = lift(figures.large, LARGE_COUNTERS, before.large),
        classes = {},
    }
    for _, class in ipairs(figures.classes) do
        kept.classes[class.size] = lift(class, CLASS_COUNTERS,
            before.classes[class.size])
    end
    return kept
end

local function all_zero(figures, ...)
    for _, names in ipairs { ... } do
        for _, name in ipairs(names) do
            if figures[name] ~= 0 then
                return false
            end
        end
    end
    return true
end

-- Of the sample before, by pool.
local last = {}

-- What the pools of this worker have: of each named pool by its name, and of
-- all others together.
-- `stats` is what bufpool.stats() returned, where the caller has that already.
function tally.sample(stats)
    stats = stats or bufpool.stats()
    local pools, unnamed, kept = stats.pools, stats, {}
    for name, figures in pairs(pools) do
        tally.add(unnamed, figures, -1)
        kept[name] = lift_pool(figures, last[name])
    end
    if all_zero(unnamed, COUNTERS, GAUGES) then
        unnamed = nil
    else
        unnamed.pools = nil
        for i = #unnamed.classes, 1, -1 do
            if all_zero(unnamed.classes[i], CLASS_COUNTERS, CLASS_GAUGES) then
                remove(unnamed.classes, i)
            end
        end
        kept[""] = lift_pool(unnamed, last[""])
    end
    last = kept
    return pools, unnamed
end

-- Text for the dictionary

local function append(out, figures, ...)
    for _, names in ipairs { ... } do
        for _, name in ipairs(names) do
            out[#out + 1] = format("%.0f", figures[name])
        end
    end
end

local REQUESTED = { ["nil"] = -1, ["local"] = -2 }

-- One line: "=" and the name in hexadecimal digits, and numbers.
local function line_of(name, figures)
    local out = { "=" .. gsub(name, ".", function(c)
        return format("%02x", byte(c))
    end) }
    append(out, figures, COUNTERS, GAUGES)
    append(out, figures.large, LARGE_COUNTERS, LARGE_GAUGES)
    local numa = figures.numa
    local requested = tostring(numa.requested)
    out[#out + 1] = REQUESTED[requested] or requested
    out[#out + 1] = numa.available and 1 or 0
    local nodes = -1
    for node in pairs(numa.pages_by_node) do
        nodes = max(nodes, node)
    end
    out[#out + 1] = nodes
    for node = 0, nodes do
        append(out, { pages = numa.pages_by_node[node] or 0 }, { "pages" })
    end
    out[#out + 1] = #figures.classes
    for _, class in ipairs(figures.classes) do
        append(out, class, { "size" }, CLASS_COUNTERS, CLASS_GAUGES)
    end
    return concat(out, " ")
end

local function read_fields(number, figures, ...)
    for _, names in ipairs { ... } do
        for _, name in ipairs(names) do
            figures[name] = number()
        end
    end
    return figures
end

local function figures_of(line)
    local word = gmatch(line, "%S+")
    local name = gsub(match(word(), "^=(%x*)$"), "%x%x", function(digits)
        return char(tonumber(digits, 16))
    end)
    local function number()
        return assert(tonumber(word()))
    end
    local figures = read_fields(number, {}, COUNTERS, GAUGES)
    figures.large = read_fields(number, {}, LARGE_COUNTERS, LARGE_GAUGES)
    local requested = number()
    local numa = { available = number() == 1, pages_by_node = {} }
    if requested ~= REQUESTED["nil"] then
        numa.requested = requested == REQUESTED["local"] and "local"
            or requested
    end
    figures.numa = numa
    for node = 0, number() do
        numa.pages_by_node[node] = number()
    end
    figures.classes = {}
    for i = 1, number() do
        figures.classes[i] = read_fields(number, {}, { "size" },
            CLASS_COUNTERS, CLASS_GAUGES)
    end
    return name, figures
end

-- A worker as one string. Its first line has what the history needs.
function tally.pack(worker)
    local head = { worker.pid, format("%.3f", worker.time) }
    append(head, tally.total(worker.pools, worker.unnamed), tally.PAST)
    local lines = { concat(head, " ") }
    for name, figures in pairs(worker.pools) do
        lines[#lines + 1] = line_of(name, figures)
    end
    if worker.unnamed then
        lines[#lines + 1] = line_of("", worker.unnamed)
    end
    return concat(lines, "\n")
end

local function unpack_worker(text)
    local line = gmatch(text, "[^\n]+")
    local pid, time = match(line(), "^(%d+) (%S+)")
    local worker = {
        pid = assert(tonumber(pid)), time = assert(tonumber(time)), pools = {},
    }
    for rest in line do
        local name, figures = figures_of(rest)
        if name == "" then
            worker.unnamed = figures
        else
            worker.pools[name] = figures
        end
    end
    return worker
end

-- The worker that `pack` made the string of; nil for any other string.
function tally.unpack(text)
    local ok, worker = pcall(unpack_worker, text)
    return ok and worker or nil
end

return tally
