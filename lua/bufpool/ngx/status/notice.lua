-- Lines in nginx's log about counts that should not rise.

local ngx = ngx

local PAUSE = 60        -- seconds between two lines about one count

-- By key: the count of which the log has told, and when.
local told = {}

-- Whether to tell the log of a count: by how much it is above what the log
-- knows, at most once a minute; nil otherwise. Counts begin at 0.
return function(key, count)
    local before, now = told[key] or { count = 0, time = -PAUSE }, ngx.now()
    if count > before.count and now >= before.time + PAUSE then
        told[key] = { count = count, time = now }
        return count - before.count
    elseif count < before.count then    -- of a pool that came anew
        before.count = count
    end
end
