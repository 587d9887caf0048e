-- What the pools of a worker have: counters that never fall, put into a string
-- and read again.
require "bufpool"
local stats = require "bufpool.stats"

local assert, ipairs, pairs, pcall = assert, ipairs, pairs, pcall
local tonumber, tostring = tonumber, tostring
local max, concat = math.max, table.concat
local byte, char, format = string.byte, string.char, string.format
local gmatch, gsub, match = string.gmatch, string.gsub, string.match

local tally = {}

-- In the order in which the dictionary has them.
local COUNTERS, GAUGES = stats.COUNTERS, stats.GAUGES
local LIMIT = { "lock_limit" }
local LARGE_COUNTERS, LARGE_GAUGES = stats.LARGE_COUNTERS, stats.LARGE_GAUGES
local CLASS_COUNTERS, CLASS_GAUGES = stats.CLASS_COUNTERS, stats.CLASS_GAUGES
local REQUESTS = stats.REQUESTS
-- What is kept of the past.
tally.PAST = {
    "hits", "misses", "checked_out", "bytes_checked_out", "committed_bytes",
    "cached_bytes",
}

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
    local kept = {}
    local function each(key, counters, names)
        kept[key] = lift(counters, names, before and before[key])
    end
    each("pool", figures, COUNTERS)
    each("large", figures.large, LARGE_COUNTERS)
    each("requests of large", figures.large.requests, REQUESTS)
    for _, class in ipairs(figures.classes) do
        each(class.size, class, CLASS_COUNTERS)
        each("requests of " .. class.size, class.requests, REQUESTS)
    end
    return kept
end

-- Of the sample before, by pool.
local last = {}

-- Makes what stats.by_name returns the next sample: counters do not fall from
-- one sample to the next. Returns both.
function tally.sample(pools, unnamed)
    local kept = {}
    for name, figures in pairs(pools) do
        kept[name] = lift_pool(figures, last[name])
    end
    if unnamed then
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

-- A text as a word without blanks: "=" and hexadecimal digits.
function tally.hex(text)
    return "=" .. gsub(text, ".", function(c)
        return format("%02x", byte(c))
    end)
end

-- The text of such a word.
function tally.unhex(word)
    return (gsub(match(word, "^=(%x*)$"), "%x%x", function(digits)
        return char(tonumber(digits, 16))
    end))
end

-- One line: the name, and numbers.
local function line_of(name, figures)
    local out = { tally.hex(name) }
    append(out, figures, COUNTERS, GAUGES, LIMIT)
    append(out, figures.large, LARGE_COUNTERS, LARGE_GAUGES)
    append(out, figures.large.requests, REQUESTS)
    out[#out + 1] = format("%.3f", figures.oldest or -1)
    out[#out + 1] = format("%.0f", figures.resident_bytes or -1)
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
        append(out, class.requests, REQUESTS)
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
    local name = tally.unhex(word())
    local function number()
        return assert(tonumber(word()))
    end
    local figures = read_fields(number, {}, COUNTERS, GAUGES, LIMIT)
    figures.large = read_fields(number, {}, LARGE_COUNTERS, LARGE_GAUGES)
    figures.large.requests = read_fields(number, {}, REQUESTS)
    local oldest = number()
    figures.oldest = oldest >= 0 and oldest or nil
    local resident = number()
    figures.resident_bytes = resident >= 0 and resident or nil
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
        figures.classes[i].requests = read_fields(number, {}, REQUESTS)
    end
    return name, figures
end

-- A worker as one string. Its first line has what the history needs.
function tally.pack(worker)
    local head = { worker.pid, format("%.3f", worker.time) }
    append(head, stats.total(worker.pools, worker.unnamed), tally.PAST)
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
