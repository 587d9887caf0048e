-- Statistics of several pools, added up.

local core = require "bufpool.core"

local ipairs, max, pairs = ipairs, math.max, pairs
local insert = table.insert

local next_pool = core.next_pool

-- The fields of a pool, of large memory, and of a class. COUNTERS count what
-- has happened, GAUGES what there is.
local stats = {
    COUNTERS = {
        "hits", "misses", "wiped_bytes", "gc_returns", "lost",
        "refused_by_max_bytes", "refused_by_system", "exhausted",
        "lock_refused", "pressed_bytes",
    },
    GAUGES = {
        "checked_out", "peak_checked_out", "bytes_checked_out",
        "peak_bytes_checked_out", "committed_bytes", "cached_bytes",
        "in_transit", "max_bytes", "large_bytes",
    },
    LARGE_COUNTERS = { "hits", "misses", "requested_bytes" },
    LARGE_GAUGES = { "out", "bytes_out", "cached", "cached_bytes" },
    CLASS_COUNTERS = { "hits", "misses", "requested_bytes" },
    CLASS_GAUGES = { "count", "ready", "cached", "out", "floor", "shelf" },
    -- Of the list `requests` that a class has, and `large`: counters, too.
    REQUESTS = { 1, 2, 3, 4, 5, 6, 7, 8 },
}

local function add_fields(sum, figures, ...)
    for _, names in ipairs { ... } do
        for _, name in ipairs(names) do
            sum[name] = (sum[name] or 0) + (figures and figures[name] or 0)
        end
    end
end

-- What a class has, or `large`.
local function add_requests(sum, figures)
    sum.requests = sum.requests or {}
    add_fields(sum.requests, figures and figures.requests, stats.REQUESTS)
end

-- The class of that size, which is inserted where it is missing: they are in
-- the order of their sizes.
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

-- Statistics that are all 0.
function stats.nothing()
    local sum = {
        classes = {}, large = {},
        numa = { available = false, pages_by_node = {} },
    }
    add_fields(sum, nil, stats.COUNTERS, stats.GAUGES)
    sum.lock_limit = 0
    add_fields(sum.large, nil, stats.LARGE_COUNTERS, stats.LARGE_GAUGES)
    add_requests(sum.large)
    return sum
end

-- Adds to `sum`, which it returns.
function stats.add(sum, figures)
    add_fields(sum, figures, stats.COUNTERS, stats.GAUGES)
    -- The process's, not the pool's.
    sum.lock_limit = max(sum.lock_limit, figures.lock_limit)
    add_fields(sum.large, figures.large, stats.LARGE_COUNTERS,
        stats.LARGE_GAUGES)
    add_requests(sum.large, figures.large)
    for _, class in ipairs(figures.classes) do
        local same = class_of(sum, class.size)
        add_fields(same, class, stats.CLASS_COUNTERS, stats.CLASS_GAUGES)
        add_requests(same, class)
    end
    if figures.oldest then
        sum.oldest = max(sum.oldest or 0, figures.oldest)
    end
    if figures.resident_bytes then
        sum.resident_bytes = (sum.resident_bytes or 0)
            + figures.resident_bytes
    end
    local pages = sum.numa.pages_by_node
    for node, count in pairs(figures.numa.pages_by_node) do
        pages[node] = (pages[node] or 0) + count
    end
    sum.numa.available = sum.numa.available or figures.numa.available
    return sum
end

-- Those of the pools that have a name, by their names, and the sum of all
-- others; nil where there are no others.
function stats.by_name()
    local pools, unnamed = {}, nil
    for _, name, figures in next_pool, nil, 0 do
        if name then
            pools[name] = figures
        else
            unnamed = stats.add(unnamed or stats.nothing(), figures)
        end
    end
    return pools, unnamed
end

-- The sum of what by_name returns.
function stats.total(pools, unnamed)
    local sum = stats.nothing()
    for _, figures in pairs(pools) do
        stats.add(sum, figures)
    end
    return unnamed and stats.add(sum, unnamed) or sum
end

return stats
