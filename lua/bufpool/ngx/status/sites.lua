-- Where what is out was checked out, of the pools of all workers: what leak
-- detection has recorded, for the status, and in nginx's log.
local bufpool = require "bufpool"
local notice = require "bufpool.ngx.status.notice"
local tally = require "bufpool.ngx.status.tally"

local ipairs, pairs, tonumber = ipairs, pairs, tonumber
local format, gmatch, match = string.format, string.gmatch, string.match
local hex, unhex = tally.hex, tally.unhex
local concat, sort = table.concat, table.sort
local min = math.min

local MOST = 20         -- places of a worker by bytes, and as many by collector
local EXPIRY = 15       -- seconds for which what was published counts

local sites = {}

local function most_returns(a, b)
    return a.gc_returns > b.gc_returns
end

local function most_bytes(a, b)
    if a.bytes ~= b.bytes then
        return a.bytes > b.bytes
    end
    return a.gc_returns > b.gc_returns
end

-- Of a worker's places, those that matter most.
local function top(list)
    local chosen, rest = {}, {}
    sort(list, most_bytes)
    for i, site in ipairs(list) do
        if i <= MOST then
            chosen[i] = site
        elseif site.gc_returns > 0 then
            rest[#rest + 1] = site
        end
    end
    sort(rest, most_returns)
    for i = 1, min(#rest, MOST) do
        chosen[#chosen + 1] = rest[i]
    end
    return chosen
end

-- What was recorded in the pool of that name; nil where it is gone. close gives
-- back what get has opened, and returns what sites would.
local function recorded(name)
    local pool = bufpool.get(name)
    return pool and pool:close()
end

-- What this worker has, as a list; `pools` has the names as keys. With `log`,
-- what the collector had to release is told in nginx's log.
local function own(pools, log)
    local found = {}
    for name in pairs(pools) do
        for _, site in ipairs(recorded(name) or {}) do
            if log then
                notice(name, site.gc_returns, "buffers that were checked out "
                    .. "at " .. site.place .. " had to be released by the "
                    .. "collector")
            end
            site.pool = name
            found[#found + 1] = site
        end
    end
    return top(found)
end

local function key_of(id)
    return "bufpool:sites:" .. id
end

-- Puts what this worker has into the dictionary. Returns what dict:set does.
function sites.publish(dict, worker)
    local lines, id = {}, worker.id
    for i, site in ipairs(own(worker.pools, true)) do
        lines[i] = format("%s %s %.0f %.0f %.3f %.0f %.0f", hex(site.pool),
            hex(site.place), site.buffers, site.bytes, site.oldest,
            site.gc_returns, site.request_returns)
    end
    if #lines == 0 then
        return dict:delete(key_of(id))
    end
    return dict:set(key_of(id), concat(lines, "\n"), EXPIRY)
end

-- What the worker of that number has published.
local function published(dict, id)
    local list = {}
    for line in gmatch(dict:get(key_of(id)) or "", "[^\n]+") do
        local pool, place, buffers, bytes, oldest, returns, requests =
            match(line, "^(=%x*) (=%x*) (%d+) (%d+) ([%d.]+) (%d+) (%d+)$")
        if pool then
            list[#list + 1] = {
                pool = unhex(pool), place = unhex(place),
                buffers = tonumber(buffers), bytes = tonumber(bytes),
                oldest = tonumber(oldest), gc_returns = tonumber(returns),
                request_returns = tonumber(requests),
            }
        end
    end
    return list
end

-- What the workers of the list have, the most bytes first. `own_id` is the
-- number of this one.
function sites.gather(dict, workers, own_id)
    local all = {}
    for _, worker in ipairs(workers) do
        local list = worker.id == own_id and own(worker.pools)
            or dict and published(dict, worker.id) or {}
        for _, site in ipairs(list) do
            site.worker = worker.id
            all[#all + 1] = site
        end
    end
    sort(all, most_bytes)
    return all
end

return sites
