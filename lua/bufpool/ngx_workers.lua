-- The figures of the workers of an nginx: taken in each worker, published by
-- each in a shared dictionary, gathered by the worker that is asked.
local bufpool = require "bufpool"

local PERIOD = 1        -- seconds between two publications
local EXPIRY = 5        -- seconds for which the last one counts
local HISTORY = 180     -- seconds of history in the dictionary

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
local PAST = {
    "hits", "misses", "checked_out", "bytes_checked_out", "committed_bytes",
    "cached_bytes",
}

local workers = {}

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
    table.insert(figures.classes, at, { size = size })
    return figures.classes[at]
end

local function nothing()
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

-- Adds to `sum`; with `sign` -1, takes away from it.
local function add(sum, figures, sign)
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

local function total(pools, unnamed)
    local sum = nothing()
    for _, figures in pairs(pools) do
        add(sum, figures)
    end
    return unnamed and add(sum, unnamed) or sum
end

-- What one worker has

-- Adds to each counter what it has ever fallen by since this VM saw it first:
-- a counter falls where a pool goes that shares the place with others, or where
-- another thread is inside the pool just now. Returns what the next call needs.
local function lift(figures, names, memory)
    local kept = {}
    for _, name in ipairs(names) do
        local raw, above = figures[name], 0
        local before = memory and memory[name]
        if before then
            above = before.above + math.max(before.raw - raw, 0)
        end
        kept[name] = { raw = raw, above = above }
        figures[name] = raw + above
    end
    return kept
end

local function lift_pool(figures, memory)
    memory = memory or { classes = {} }
    local kept = {
        scalars = lift(figures, COUNTERS, memory.scalars),
        large = lift(figures.large, LARGE_COUNTERS, memory.large),
        classes = {},
    }
    for _, class in ipairs(figures.classes) do
        kept.classes[class.size] = lift(class, CLASS_COUNTERS,
            memory.classes[class.size])
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

---What the pools of this worker have: of each named pool by its name, and of
---all others together.
---@return table pools, table? unnamed
function workers.sample(stats)
    stats = stats or bufpool.stats()
    local pools, unnamed, kept = stats.pools, stats, {}
    for name, figures in pairs(pools) do
        add(unnamed, figures, -1)
        kept[name] = lift_pool(figures, last[name])
    end
    if all_zero(unnamed, COUNTERS, GAUGES) then
        unnamed = nil
    else
        unnamed.pools = nil
        for i = #unnamed.classes, 1, -1 do
            if all_zero(unnamed.classes[i], CLASS_COUNTERS, CLASS_GAUGES) then
                table.remove(unnamed.classes, i)
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
            out[#out + 1] = ("%.0f"):format(figures[name])
        end
    end
end

local REQUESTED = { ["nil"] = -1, ["local"] = -2 }

-- One line: "=" and the name in hexadecimal digits, and numbers.
local function line_of(name, figures)
    local out = { "=" .. name:gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end) }
    append(out, figures, COUNTERS, GAUGES)
    append(out, figures.large, LARGE_COUNTERS, LARGE_GAUGES)
    local numa = figures.numa
    local requested = tostring(numa.requested)
    out[#out + 1] = REQUESTED[requested] or requested
    out[#out + 1] = numa.available and 1 or 0
    local nodes = -1
    for node in pairs(numa.pages_by_node) do
        nodes = math.max(nodes, node)
    end
    out[#out + 1] = nodes
    for node = 0, nodes do
        append(out, { pages = numa.pages_by_node[node] or 0 }, { "pages" })
    end
    out[#out + 1] = #figures.classes
    for _, class in ipairs(figures.classes) do
        append(out, class, { "size" }, CLASS_COUNTERS, CLASS_GAUGES)
    end
    return table.concat(out, " ")
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
    local word = line:gmatch "%S+"
    local name = word():match "^=(%x*)$":gsub("%x%x", function(digits)
        return string.char(tonumber(digits, 16))
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

---A worker as one string. Its first line has what the history needs.
---@param worker table
---@return string
function workers.pack(worker)
    local head = { worker.pid, ("%.3f"):format(worker.time) }
    append(head, total(worker.pools, worker.unnamed), PAST)
    local lines = { table.concat(head, " ") }
    for name, figures in pairs(worker.pools) do
        lines[#lines + 1] = line_of(name, figures)
    end
    if worker.unnamed then
        lines[#lines + 1] = line_of("", worker.unnamed)
    end
    return table.concat(lines, "\n")
end

local function unpack_worker(text)
    local line = text:gmatch "[^\n]+"
    local pid, time = line():match "^(%d+) (%S+)"
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

---The worker that `pack` made the string of; nil for any other string.
---@param text string
---@return table?
function workers.unpack(text)
    local ok, worker = pcall(unpack_worker, text)
    return ok and worker or nil
end

-- The dictionary

local function worker_key(id)
    return "bufpool:worker:" .. id
end

local function past_key(second)
    return ("bufpool:past:%.0f"):format(second)
end

-- nginx's privileged agent has no number.
local function own_id()
    return tostring(ngx.worker.id() or "agent")
end

local function ids()
    local list = { "agent" }
    for i = ngx.worker.count(), 1, -1 do
        table.insert(list, 1, tostring(i - 1))
    end
    return list
end

local function own()
    local pools, unnamed = workers.sample()
    return {
        id = own_id(), pid = ngx.worker.pid(), time = ngx.now(),
        pools = pools, unnamed = unnamed,
    }
end

-- The first worker that comes in a second adds up what all have published.
local function remember(dict, now)
    local key = past_key(math.floor(now))
    if dict:get(key) then
        return true
    end
    local sums = {}
    for _, id in ipairs(ids()) do
        local line = (dict:get(worker_key(id)) or ""):match "^[^\n]*"
        local i = -2
        for word in line:gmatch "%S+" do
            i = i + 1
            if i > 0 then
                sums[i] = (sums[i] or 0) + tonumber(word)
            end
        end
    end
    for i, sum in ipairs(sums) do
        sums[i] = ("%.0f"):format(sum)
    end
    local ok, err = dict:add(key, table.concat(sums, " "), HISTORY)
    if ok or err == "exists" then
        return true
    end
    return nil, err
end

local function store(dict)
    local worker = own()
    local ok, err = dict:set(worker_key(worker.id), workers.pack(worker),
        EXPIRY)
    if ok then
        return remember(dict, worker.time)
    end
    return nil, err
end

-- The names of the dictionaries in which this VM publishes.
local publishing = {}

---Publishes at once and then every second, until the worker exits. What fails
---is in nginx's log.
---@param name string of a lua_shared_dict
---@return boolean? ok, string? message
function workers.publish(name)
    if publishing[name] then
        return true
    end
    local dict, said = ngx.shared[name], nil
    local function again(premature)
        if premature then
            return
        end
        local _, err = store(dict)
        -- Not every second.
        if err and err ~= said then
            ngx.log(ngx.ERR, "bufpool: figures not published: lua_shared_dict ",
                name, ": ", err)
        end
        said = err
    end
    local timer, err = ngx.timer.every(PERIOD, again)
    if not timer then
        return nil, "no timer: " .. err
    end
    publishing[name] = true
    again(false)
    return true
end

-- The answering worker's own figures are of this moment, unless another VM
-- publishes for this worker: what has fallen is known there.
local function own_of(dict, name)
    local published = dict and not publishing[name]
        and workers.unpack(dict:get(worker_key(own_id())) or "")
    if published and published.pid == ngx.worker.pid() then
        published.id = own_id()
        return published
    end
    return own()
end

local function note_of(dict, name, shown, configured)
    if shown >= configured then
        return nil
    elseif not dict then
        return ("The figures of 1 of %d workers, the one that answered: "
            .. "there is no lua_shared_dict %s."):format(configured, name)
    end
    return ("The figures of %d of %d workers: the others have published none "
        .. "in lua_shared_dict %s within %d s. Each worker has to call "
        .. "publish in init_worker_by_lua."):format(shown, configured, name,
        EXPIRY)
end

---What all workers have published, with the figures of this one, and the sum.
---Without the dictionary: the figures of this worker only.
---@param name string of a lua_shared_dict
---@return table
function workers.gather(name)
    local dict, mine, shown = ngx.shared[name], own_id(), 0
    local list, pools, unnamed = {}, {}, nil
    for _, id in ipairs(ids()) do
        local worker
        if id == mine then
            worker = own_of(dict, name)
        elseif dict then
            worker = workers.unpack(dict:get(worker_key(id)) or "")
        end
        if worker then
            worker.id = id
            worker.totals = total(worker.pools, worker.unnamed)
            list[#list + 1] = worker
            shown = shown + (id == "agent" and 0 or 1)
        end
    end
    for _, worker in ipairs(list) do
        for key, figures in pairs(worker.pools) do
            local requested = figures.numa.requested
            local sum = pools[key]
            if not sum then
                sum = nothing()
                sum.numa.requested = requested
                pools[key] = sum
            elseif sum.numa.requested ~= requested then
                sum.numa.requested = nil
            end
            add(sum, figures)
        end
        if worker.unnamed then
            unnamed = add(unnamed or nothing(), worker.unnamed)
        end
    end
    local now, configured = ngx.now(), ngx.worker.count()
    for _, worker in ipairs(list) do
        worker.age = math.max(now - worker.time, 0)
    end
    return {
        version = bufpool._VERSION, time = now, answered_by = mine,
        workers_configured = configured, workers_shown = shown,
        complete = shown >= configured,
        note = note_of(dict, name, shown, configured), workers = list,
        all = {
            pools = pools, unnamed = unnamed, totals = total(pools, unnamed),
        },
    }
end

---The sums of the last minutes, oldest first: one a second.
---@param name string of a lua_shared_dict
---@return table[]
function workers.history(name)
    local dict, list = ngx.shared[name], {}
    if dict then
        local now = math.floor(ngx.now())
        for second = now - HISTORY, now do
            local word = (dict:get(past_key(second)) or ""):gmatch "%S+"
            local sample, complete = { time = second }, true
            for _, field in ipairs(PAST) do
                sample[field] = tonumber(word() or "")
                complete = complete and sample[field] ~= nil
            end
            if complete then
                list[#list + 1] = sample
            end
        end
    end
    return list
end

return workers
