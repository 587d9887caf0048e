-- Lines in nginx's log about counts that should not rise.

local ngx = ngx
local format, gsub = string.format, string.gsub

local PAUSE = 60        -- seconds between two lines about one count
local MOST = 50         -- lines of a worker in that time

-- By pool and event: the count of which the log has told, and when.
local told = {}
-- How many lines there were since when.
local lines, since = 0, -PAUSE

-- By how much the count is above what the log knows; nil where there is
-- nothing to tell now. What has no line now has one later. A count that has
-- fallen is of a pool that came anew, and began at 0.
local function risen(key, count)
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

-- Tells the log how often `event` has happened to a pool since it last did;
-- `count` is how often in all. As an error, because that is the level of a log
-- that is not set.
return function(pool, count, event)
    local more = risen(pool .. "\n" .. event, count)
    if more then
        ngx.log(ngx.ERR, format("bufpool: pool '%s': %.0f %s",
            (gsub(pool, "%c", "?")), more, event))
    end
end
