-- Figures as text: JSON, OpenMetrics, and the text format of Prometheus. What
-- workers.gather returns is what is written.

local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local concat, sort, unpack = table.concat, table.sort, unpack
local byte, find, format = string.byte, string.find, string.format
local gsub, sub = string.gsub, string.sub
local floor, HUGE = math.floor, math.huge

local profile = require "bufpool.profile"

local text = {}

-- The length of the character of UTF-8 that begins at i; nil where there is
-- none, or one that steers a terminal.
local function character(s, i)
    local a, b, c, d = byte(s, i, i + 3)
    local function follows(x, low, high)
        return x and x >= (low or 0x80) and x <= (high or 0xbf)
    end
    if a < 0x80 then
        return (a >= 0x20 and a ~= 0x7f or a == 0x09 or a == 0x0a) and 1 or nil
    elseif a >= 0xc2 and a <= 0xdf then
        return follows(b, a == 0xc2 and 0xa0 or 0x80) and 2 or nil
    elseif a >= 0xe0 and a <= 0xef then
        return follows(b, a == 0xe0 and 0xa0, a == 0xed and 0x9f)
            and follows(c) and 3 or nil
    elseif a >= 0xf0 and a <= 0xf4 then
        return follows(b, a == 0xf0 and 0x90, a == 0xf4 and 0x8f)
            and follows(c) and follows(d) and 4 or nil
    end
end

-- The name of a pool as valid UTF-8. Bytes that are none, and control
-- characters but tab and newline, are written as \xHH; so is the backslash of a
-- name that has \xHH itself. So two names never look the same.
function text.name(name)
    if find(name, "^[%w%p ]*$") and not find(name, "\\", 1, true) then
        return name
    end
    local out, i = {}, 1
    while i <= #name do
        local n = character(name, i)
        if n and not find(name, "^\\x[0-9A-F][0-9A-F]", i) then
            out[#out + 1] = sub(name, i, i + n - 1)
        else
            out[#out + 1] = format("\\x%02X", byte(name, i))
        end
        i = i + (n or 1)
    end
    return concat(out)
end

-- Whole numbers in full; never an exponent, an infinity or "nan".
local function number(n)
    if n ~= n or n == HUGE or n == -HUGE then
        return "0"
    elseif n == floor(n) then
        return format("%.0f", n)
    end
    return format("%.3f", n)
end

-- JSON

local ESCAPES = { ["\n"] = "\\n", ["\t"] = "\\t", ['"'] = '\\"',
    ["\\"] = "\\\\" }

-- Of valid UTF-8. "<" and "&" are escaped for those who put JSON into HTML.
local function json_string(s)
    return '"' .. gsub(s, '[%z\1-\31"\\<&\127]', function(c)
        return ESCAPES[c] or format("\\u%04x", byte(c))
    end) .. '"'
end

-- What is behind our keys: these are lists, with nothing in them too, and the
-- keys of `pools` are names, which may be any of ours.
local SHAPES = { classes = "list", workers = "list", history = "list",
    pages_by_node = "list", requests = "list", sites = "list",
    pools = "by name" }

local write

local function write_list(out, list)
    out[#out + 1] = "["
    -- Nodes of memory are counted from 0.
    for i = list[0] and 0 or 1, #list do
        out[#out + 1] = out[#out] ~= "[" and "," or ""
        write(out, list[i])
    end
    out[#out + 1] = "]"
end

local function write_object(out, object, shape)
    local keys = {}
    for key in pairs(object) do
        keys[#keys + 1] = key
    end
    sort(keys)
    out[#out + 1] = "{"
    for i, key in ipairs(keys) do
        out[#out + 1] = (i > 1 and "," or "") .. json_string(text.name(key))
            .. ":"
        write(out, object[key], shape ~= "by name" and SHAPES[key])
    end
    out[#out + 1] = "}"
end

function write(out, value, shape)
    if type(value) == "table" then
        (shape == "list" and write_list or write_object)(out, value, shape)
    elseif type(value) == "number" then
        out[#out + 1] = number(value)
    elseif type(value) == "string" then
        out[#out + 1] = json_string(text.name(value))
    else
        out[#out + 1] = tostring(value)
    end
end

function text.json(report)
    local out = {}
    write(out, report)
    return concat(out) .. "\n"
end

-- Metrics

-- Of a pool: a name, a type, a help text, a unit, and what returns its samples
-- as a list of value, label, value of the label, ...; or the name of a figure,
-- which a pool may lack.
local POOL = {}

local function of_pool(name, kind, unit, help, samples)
    if type(samples) == "string" then
        local field = samples
        samples = function(figures)
            return { figures[field] and { figures[field] } }
        end
    end
    POOL[#POOL + 1] = { name = name, kind = kind, unit = unit, help = help,
        samples = samples }
end

local function each_class(figures, sample)
    local list = {}
    for _, class in ipairs(figures.classes) do
        sample(list, class, number(class.size))
    end
    return list
end

-- A gauge of each class, by the name of the figure.
local function of_class(name, help, field)
    of_pool(name, "gauge", nil, help, function(figures)
        return each_class(figures, function(list, class, size)
            list[#list + 1] = { class[field], "class", size }
        end)
    end)
end

of_pool("bufpool_checkouts", "counter", nil,
    "Checkouts. A hit was served from memory that was ready or cached, a miss "
    .. "took fresh memory.",
    function(figures)
        local list = each_class(figures, function(list, class, size)
            list[#list + 1] = { class.hits, "class", size, "result", "hit" }
            list[#list + 1] = { class.misses, "class", size, "result", "miss" }
        end)
        local large = figures.large
        list[#list + 1] = { large.hits, "class", "large", "result", "hit" }
        list[#list + 1] = { large.misses, "class", "large", "result", "miss" }
        return list
    end)
of_pool("bufpool_buffers", "gauge", nil,
    "Buffers by what they are: out, cached by a thread, or ready for any.",
    function(figures)
        local list = each_class(figures, function(list, class, size)
            for _, state in ipairs { "out", "cached", "ready" } do
                list[#list + 1] = { class[state], "class", size,
                    "state", state }
            end
        end)
        for _, state in ipairs { "out", "cached" } do
            list[#list + 1] = { figures.large[state], "class", "large",
                "state", state }
        end
        return list
    end)
of_class("bufpool_class_buffers",
    "Buffers of a class with memory behind them.", "count")

-- The samples of a histogram, after what the list has: each bucket has all
-- requests of so many bytes at most.
local function add_histogram(list, of, class, most)
    local sum = 0
    for i, count in ipairs(of.requests) do
        sum = sum + count
        list[#list + 1] = { sum, "class", class, "le", most(i),
            suffix = "_bucket" }
    end
    list[#list + 1] = { of.requested_bytes, "class", class, suffix = "_sum" }
    list[#list + 1] = { sum, "class", class, suffix = "_count" }
end

of_pool("bufpool_request_bytes", "histogram", "bytes",
    "The sizes that checkouts asked for: of a class an estimate from samples.",
    function(figures)
        local list = each_class(figures, function(list, class, size)
            add_histogram(list, class, size, function(i)
                return i == 8 and "+Inf"
                    or format("%.1f", class.size / 2 ^ (8 - i))
            end)
        end)
        add_histogram(list, figures.large, "large", function(i)
            return i == 8 and "+Inf" or format("%.1f", 2 ^ 14 * 4 ^ i)
        end)
        return list
    end)
of_pool("bufpool_checked_out_buffers", "gauge", nil,
    "Buffers that are checked out.", "checked_out")
of_pool("bufpool_peak_checked_out_buffers", "gauge", nil,
    "The most buffers that were checked out; a lower bound.",
    "peak_checked_out")
of_pool("bufpool_checked_out_bytes", "gauge", "bytes",
    "The capacity of the buffers that are checked out.", "bytes_checked_out")
of_pool("bufpool_peak_checked_out_bytes", "gauge", "bytes",
    "The most bytes that were checked out; a lower bound.",
    "peak_bytes_checked_out")
of_pool("bufpool_in_transit_buffers", "gauge", nil,
    "Buffers that were detached and not adopted yet.", "in_transit")
of_pool("bufpool_committed_bytes", "gauge", "bytes",
    "Memory taken from the system.", "committed_bytes")
of_pool("bufpool_resident_bytes", "gauge", "bytes",
    "The part of the committed memory that has pages; a few seconds old.",
    "resident_bytes")
of_pool("bufpool_cached_bytes", "gauge", "bytes",
    "The part of the committed memory that is ready or cached.",
    "cached_bytes")
of_pool("bufpool_large_checked_out_bytes", "gauge", "bytes",
    "The capacity of what is out above the largest class.",
    function(figures) return { { figures.large.bytes_out } } end)
of_pool("bufpool_large_cached_bytes", "gauge", "bytes",
    "Memory that is kept above the largest class.",
    function(figures) return { { figures.large.cached_bytes } } end)
of_pool("bufpool_wiped_bytes", "counter", "bytes",
    "Bytes that were wiped.", "wiped_bytes")
of_pool("bufpool_gc_returns", "counter", nil,
    "Buffers that a Lua collector released, not the program.", "gc_returns")
of_pool("bufpool_lost_buffers", "counter", nil,
    "Buffers that were lost to fork.", "lost")
of_pool("bufpool_refused", "counter", nil,
    "Checkouts and growth that found no memory, by what lacked.",
    function(figures)
        return {
            { figures.refused_by_max_bytes, "reason", "max_bytes" },
            { figures.refused_by_system, "reason", "system" },
        }
    end)
of_pool("bufpool_max_bytes", "gauge", "bytes",
    "The limit of the memory from the system; 0 is none.", "max_bytes")
of_pool("bufpool_exhausted", "counter", nil,
    "Calls of try_checkout that found nothing ready.", "exhausted")
of_pool("bufpool_pressed_bytes", "counter", "bytes",
    "Memory given back to the system because the control group was short.",
    "pressed_bytes")
of_pool("bufpool_lock_refused", "counter", nil,
    "Guarded buffers that the system refused to lock into memory.",
    "lock_refused")
of_pool("bufpool_large_limit_bytes", "gauge", "bytes",
    "The limit of the memory that is kept above the largest class.",
    "large_bytes")
of_class("bufpool_class_floor_buffers",
    "Buffers of a class that are kept ready: trim leaves as many.", "floor")
of_class("bufpool_class_shelf_buffers",
    "Buffers of a class that one thread caches at most.", "shelf")
of_pool("bufpool_oldest_seconds", "gauge", "seconds",
    "How long the oldest buffer has been out that leak detection recorded.",
    "oldest")
of_pool("bufpool_numa_available", "gauge", nil,
    "1 where memory can be placed as configured.",
    function(figures)
        return { { figures.numa.available and 1 or 0 } }
    end)
of_pool("bufpool_numa_pages", "gauge", nil,
    "Resident pages of memory by node, where a node was asked for.",
    function(figures)
        local list, pages = {}, figures.numa.pages_by_node
        for node = 0, pages[0] and #pages or -1 do
            list[#list + 1] = { pages[node], "node", number(node) }
        end
        return list
    end)

-- Of a site: a name, a type, a unit, a help text, and the field.
local SITE = {
    { "bufpool_site_buffers", "gauge", nil,
        "Buffers that leak detection recorded and that are out, by the place "
        .. "of their checkout.", "buffers" },
    { "bufpool_site_bytes", "gauge", "bytes",
        "The memory behind these.", "bytes" },
    { "bufpool_site_oldest_seconds", "gauge", "seconds",
        "The age of the oldest of these.", "oldest" },
    { "bufpool_site_gc_returns", "counter", nil,
        "Recorded buffers that a Lua collector released.", "gc_returns" },
    { "bufpool_site_request_returns", "counter", nil,
        "Recorded buffers that were left to the end of their request.",
        "request_returns" },
}

local LABEL_ESCAPES = { ["\n"] = "\\n", ['"'] = '\\"', ["\\"] = "\\\\" }

local function labels(...)
    local list = { ... }
    local out = {}
    for i = 1, #list, 2 do
        out[#out + 1] = format('%s="%s"', list[i],
            (gsub(list[i + 1], '[\n"\\]', LABEL_ESCAPES)))
    end
    return concat(out, ",")
end

-- Begins a family and returns what adds a sample to it. The older format knows
-- no infos and no units, and has the suffix of the samples in the name.
local function family(out, open, name, kind, unit, help)
    local suffix = kind == "counter" and "_total"
        or kind == "info" and "_info" or ""
    local shown = open and name or name .. suffix
    out[#out + 1] = format("# HELP %s %s\n# TYPE %s %s\n", shown, help, shown,
        kind == "info" and not open and "gauge" or kind)
    if unit and open then
        out[#out + 1] = format("# UNIT %s %s\n", shown, unit)
    end
    return function(value, set, more)
        out[#out + 1] = format("%s%s%s %s\n", name, more or suffix,
            set and "{" .. set .. "}" or "", number(value))
    end
end

-- Each pool of each worker with its labels; that of unnamed pools is "".
local function sources(report)
    local list = {}
    for _, worker in ipairs(report.workers) do
        local names = {}
        for name in pairs(worker.pools) do
            names[#names + 1] = name
        end
        sort(names)
        for _, name in ipairs(names) do
            list[#list + 1] = { worker.pools[name],
                labels("worker", worker.id, "pool", text.name(name)) }
        end
        if worker.unnamed then
            list[#list + 1] = { worker.unnamed,
                labels("worker", worker.id, "pool", "") }
        end
    end
    return list
end

local function metrics(report, open)
    local out, list = {}, sources(report)
    family(out, open, "bufpool_build", "info", nil, "The version of bufpool.")(
        1, labels("version", report.version))
    family(out, open, "bufpool_workers_configured", "gauge", nil,
        "Workers that nginx has.")(report.workers_configured)
    family(out, open, "bufpool_workers", "gauge", nil,
        "Workers whose figures are here.")(report.workers_shown)
    local sample = family(out, open, "bufpool_worker", "info", nil,
        "The process of a worker.")
    for _, worker in ipairs(report.workers) do
        sample(1, labels("worker", worker.id, "pid", number(worker.pid)))
    end
    sample = family(out, open, "bufpool_worker_age_seconds", "gauge",
        "seconds", "The age of a worker's figures.")
    for _, worker in ipairs(report.workers) do
        sample(worker.age, labels("worker", worker.id))
    end
    for _, kind in ipairs(POOL) do
        sample = family(out, open, kind.name, kind.kind, kind.unit, kind.help)
        for _, source in ipairs(list) do
            for _, s in ipairs(kind.samples(source[1])) do
                local more = labels(unpack(s, 2))
                sample(s[1], source[2] .. (more ~= "" and "," or "") .. more,
                    s.suffix)
            end
        end
    end
    for _, kind in ipairs(SITE) do
        sample = family(out, open, unpack(kind, 1, 4))
        for _, site in ipairs(report.sites) do
            sample(site[kind[5]], labels("worker", site.worker, "pool",
                text.name(site.pool), "place", text.name(site.place)))
        end
    end
    if open then
        out[#out + 1] = "# EOF\n"
    end
    return concat(out)
end

function text.openmetrics(report)
    return metrics(report, true)
end

function text.prometheus(report)
    return metrics(report, false)
end

-- Sites whose names are valid UTF-8 without control characters.
local function shown(sites)
    local list = {}
    for i, site in ipairs(sites) do
        list[i] = {
            place = text.name(site.place), pool = text.name(site.pool),
            worker = site.worker, buffers = site.buffers, bytes = site.bytes,
        }
    end
    return list
end

function text.folded(report)
    return profile.folded(shown(report.sites))
end

function text.pprof(report)
    return profile.pprof(shown(report.sites), report.time)
end

return text
