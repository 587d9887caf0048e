-- Who forgets to release: what leak detection has found, told to a function.
--
-- Nothing calls that function by itself, because whatever could, a checkout, a
-- close or a finalizer, would run a stranger's code in the middle of somebody
-- else's. So an error in it is the caller's own.

local check = require "bufpool.check"
local core = require "bufpool.core"

local error, ipairs, pcall = error, ipairs, pcall

local report = { PAUSE = 60 }   -- seconds between two reports of one place

-- By pool and place: the count of which was told last, and when. What a pool
-- has no longer is dropped, so there is no more of this than there are places
-- of living pools.
local told = {}

-- What is to be told of a pool's places is added to `due`. Returns what is
-- known of them.
local function look(list, name, known, due)
    local places = {}
    for _, site in ipairs(list) do
        if site.gc_returns > 0 then
            local last = known[site.place] or { count = 0 }
            places[site.place] = last
            site.pool, site.last = name or nil, last
            due[#due + 1] = site
        end
    end
    return places
end

local function all(due)
    local known = {}
    for _, id, name, list in core.next_sites, nil, 0 do
        known[id] = look(list, name, told[id] or {}, due)
    end
    told = known
end

-- A finalizer that calls this in the middle has nothing to tell: what is due is
-- told by the call that it is in the middle of.
local looking = false
local function look_at_all()
    local due = {}
    if not looking then
        looking = true
        local ok, err = pcall(all, due)
        looking = false
        if not ok then
            error(err, 0)
        end
    end
    return due, core.now()
end

-- A function that calls this one again tells what is due itself, so each place
-- is looked at only when its turn has come.
function report.to(fn)
    check.callable(fn, "report", 1)
    local due, now = look_at_all()
    local count = 0
    for _, site in ipairs(due) do
        local last = site.last
        if site.gc_returns > last.count
            and not (last.time and now < last.time + report.PAUSE) then
            site.more, site.last = site.gc_returns - last.count, nil
            last.count, last.time = site.gc_returns, now
            count = count + 1
            fn(site)
        end
    end
    return count
end

return report
