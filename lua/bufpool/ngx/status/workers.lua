-- The figures of the workers of an nginx: published by each in a shared
-- dictionary, gathered by the worker that is asked.
local bufpool = require "bufpool"
local notice = require "bufpool.ngx.status.notice"
local sites = require "bufpool.ngx.status.sites"
local stats = require "bufpool.stats"
local switch = require "bufpool.ngx.status.switch"
local tally = require "bufpool.ngx.status.tally"

local ngx, ipairs, pairs = ngx, ipairs, pairs
local tonumber, tostring = tonumber, tostring
local floor, max = math.floor, math.max
local concat, insert = table.concat, table.insert
local format, gmatch, match = string.format, string.gmatch, string.match

local PERIOD = 1        -- seconds between two publications
local EXPIRY = 5        -- seconds for which the last one counts
local SITES = 5         -- periods between two publications of sites
local HISTORY = 180     -- seconds of history in the dictionary

local workers = {}

local function worker_key(id)
    return "bufpool:worker:" .. id
end

local function past_key(second)
    return format("bufpool:past:%.0f", second)
end

-- nginx's privileged agent has no number.
local function own_id()
    return tostring(ngx.worker.id() or "agent")
end

local function ids()
    local list = { "agent" }
    for i = ngx.worker.count(), 1, -1 do
        insert(list, 1, tostring(i - 1))
    end
    return list
end

-- By the names of pools, what was resident when sites were last published.
local resident = {}

local function look_at_pages(pools)
    resident = {}
    for name in pairs(pools) do
        local pool = bufpool.get(name)
        if pool then
            resident[name] = pool:resident()
            pool:close()
        end
    end
end

local function own()
    local pools, unnamed = tally.sample(stats.by_name())
    for name, figures in pairs(pools) do
        figures.resident_bytes = resident[name]
    end
    return {
        id = own_id(), pid = ngx.worker.pid(), time = ngx.now(),
        pools = pools, unnamed = unnamed,
    }
end

-- The first worker that comes in a second adds up what all have published.
local function remember(dict, now)
    local key = past_key(floor(now))
    if dict:get(key) then
        return true
    end
    local sums = {}
    for _, id in ipairs(ids()) do
        local line = match(dict:get(worker_key(id)) or "", "^[^\n]*")
        local i = -2            -- pid and time are no sums
        for word in gmatch(line, "%S+") do
            i = i + 1
            if i > 0 then
                sums[i] = (sums[i] or 0) + tonumber(word)
            end
        end
    end
    for i, sum in ipairs(sums) do
        sums[i] = format("%.0f", sum)
    end
    local ok, err = dict:add(key, concat(sums, " "), HISTORY)
    if ok or err == "exists" then
        return true
    end
    return nil, err
end

-- Tells nginx's log of memory that was refused.
local function tell(name, figures)
    notice(name, figures.refused_by_max_bytes, format("checkouts were refused, "
        .. "because max_bytes (%.0f) is reached", figures.max_bytes))
    notice(name, figures.refused_by_system,
        "checkouts were refused, because the system gave no memory")
end

-- The sites come less often, and so does what is resident, for that looks at
-- every buffer.
local function store(dict, with_sites)
    local worker = own()
    switch.heed(dict, worker.pools)
    if with_sites then
        look_at_pages(worker.pools)
    end
    local ok, err = dict:set(worker_key(worker.id), tally.pack(worker),
        EXPIRY)
    for name, figures in pairs(worker.pools) do
        tell(name, figures)
    end
    if ok and with_sites then
        ok, err = sites.publish(dict, worker)
    end
    if ok then
        return remember(dict, worker.time)
    end
    return nil, err
end

-- The names of the dictionaries in which this VM publishes.
local publishing = {}

-- Publishes in the lua_shared_dict `name`, at once and then every second, until
-- the worker exits. What fails is in nginx's log.
function workers.publish(name)
    if publishing[name] then
        return true
    end
    local dict, said, periods = ngx.shared[name], nil, 0
    local function again(premature)
        -- The worker exits, and another may have its number already.
        if premature then
            return
        end
        local _, err = store(dict, periods % SITES == 0)
        periods = periods + 1
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
        and tally.unpack(dict:get(worker_key(own_id())) or "")
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
        return format("The figures of 1 of %d workers, the one that answered: "
            .. "there is no lua_shared_dict %s.", configured, name)
    end
    return format("The figures of %d of %d workers: the others have published "
        .. "none in lua_shared_dict %s within %d s. Each worker has to call "
        .. "publish in init_worker_by_lua.", shown, configured, name, EXPIRY)
end

-- The workers that have figures, in their order; how many have a number.
local function all(dict, name)
    local list, shown, mine = {}, 0, own_id()
    for _, id in ipairs(ids()) do
        local worker
        if id == mine then
            worker = own_of(dict, name)
        elseif dict then
            worker = tally.unpack(dict:get(worker_key(id)) or "")
        end
        if worker then
            worker.id = id
            worker.age = max(ngx.now() - worker.time, 0)
            worker.totals = stats.total(worker.pools, worker.unnamed)
            list[#list + 1] = worker
            shown = shown + (id == "agent" and 0 or 1)
        end
    end
    return list, shown
end

-- The sum of all workers, by pool.
local function sum_of(list)
    local pools, unnamed = {}, nil
    for _, worker in ipairs(list) do
        for key, figures in pairs(worker.pools) do
            local requested = figures.numa.requested
            local sum = pools[key]
            if not sum then
                sum = stats.nothing()
                sum.numa.requested = requested
                pools[key] = sum
            elseif sum.numa.requested ~= requested then
                sum.numa.requested = nil
            end
            stats.add(sum, figures)
        end
        if worker.unnamed then
            unnamed = stats.add(unnamed or stats.nothing(), worker.unnamed)
        end
    end
    return {
        pools = pools, unnamed = unnamed, totals = stats.total(pools, unnamed),
    }
end

-- What all workers have published, with the figures of this one, and the sum.
-- Without the dictionary: the figures of this worker only.
function workers.gather(name)
    local dict, configured = ngx.shared[name], ngx.worker.count()
    local list, shown = all(dict, name)
    return {
        version = bufpool._VERSION, time = ngx.now(), answered_by = own_id(),
        workers_configured = configured, workers_shown = shown,
        complete = shown >= configured,
        note = note_of(dict, name, shown, configured), workers = list,
        all = sum_of(list), sites = sites.gather(dict, list, own_id()),
    }
end

-- Has all workers set leak detection as `given` says, of the pool of that name,
-- or of all that have one. Returns these as keys, and what gather says of the
-- workers; or nil and a message.
function workers.set(name, wanted, given)
    local report, pools = workers.gather(name), {}
    for pool in pairs(report.all.pools) do
        if not wanted or pool == wanted then
            local ok, err = switch.ask(ngx.shared[name], pool,
                given.leak_detection, given.leak_sample)
            if not ok then
                return nil, format("pool %s: %s, in lua_shared_dict %s or in "
                    .. "the pool; pools before it may be set", pool, err, name)
            end
            pools[pool] = given
        end
    end
    return {
        pools = pools, note = report.note, complete = report.complete,
        workers_shown = report.workers_shown,
        workers_configured = report.workers_configured,
    }
end

-- The sums of the last minutes, oldest first: one a second.
function workers.history(name)
    local dict, list = ngx.shared[name], {}
    if dict then
        local now = floor(ngx.now())
        for second = now - HISTORY, now do
            local word = gmatch(dict:get(past_key(second)) or "", "%S+")
            local sample, complete = { time = second }, true
            for _, field in ipairs(tally.PAST) do
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
