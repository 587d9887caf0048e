-- Makes the collector run where a test looks at statistics, or not: BUSTED=
-- --helper=spec/support/moments.lua. A test whose result depends on the moment
-- of a collection then fails soon, not once in a thousand runs. MOMENTS is the
-- seed of what is drawn.
local bufpool = require "bufpool"

local drawn = tonumber(os.getenv "MOMENTS") or 1

local function stats_of(t)
    local stats = t.stats
    function t.stats(...)
        drawn = (drawn * 75 + 74) % 65537
        if drawn % 2 == 0 and collectgarbage "isrunning" then
            collectgarbage()
            collectgarbage()
        end
        return stats(...)
    end
end

collectgarbage("setpause", 1000)
stats_of(bufpool)
stats_of(debug.getmetatable(bufpool.new()).__index)
