-- Lines in nginx's log about counts that should not rise.

local ngx = ngx

local PAUSE = 60        -- seconds between two lines about one count
local MOST = 50         -- lines of a worker in that time

-- By key: the count of which the log has told, and when.
local told = {}
-- How many lines there were since when.
local lines, since = 0, -PAUSE

-- Whether to tell the log of a count: by how much it is above what the log
-- knows; nil otherwise. What has no line now has one later. A count that has
-- fallen is of a pool that came anew, and began at 0.
return function(key, count)
    local before, now = told[key] or { count = 0, time = -PAUSE }, ngx.now()
    if count < before.count then
        before.count = 0
    end
    if now >= since + PAUSE then
        lines, since = 0, now
    end
    if count > before.count and now >= before.time + PAUSE and lines < MOST then
        lines = lines + 1
        told[key] = { count = count, time = now }
        return count - before.count
    end
end
