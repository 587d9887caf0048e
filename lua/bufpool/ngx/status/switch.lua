-- Leak detection of a pool, switched in all workers that publish: what is asked
-- for lies in the shared dictionary. Each of them looks there every second, and
-- so do those that come later.
local bufpool = require "bufpool"

local ngx, pairs, tonumber = ngx, pairs, tonumber
local format, match = string.format, string.match

local switch = {}

local function key_of(name)
    return "bufpool:set:" .. name
end

-- Of the pool of that name, if this process has it.
local function set(name, given)
    local pool = bufpool.get(name)
    if not pool then
        return true
    end
    local ok, err = pool:set(given)
    pool:close()
    return ok, err
end

-- In this worker at once. `given` is as pool:set takes it, with leak_detection;
-- `dict` is nil where there is none. The number tells what is asked for from
-- what was asked for before.
function switch.ask(dict, name, given)
    if dict then
        local number, err = dict:incr("bufpool:asked", 1, 0)
        if number then
            number, err = dict:set(key_of(name), format("%.0f %s %s", number,
                given.leak_detection, given.leak_sample or ""))
        end
        if not number then
            return nil, err
        end
    end
    return set(name, given)
end

-- By pool, what this VM has done last.
local done = {}

-- Does what was asked for since. `pools` has the names as keys.
function switch.heed(dict, pools)
    for name in pairs(pools) do
        local asked = dict:get(key_of(name))
        if asked and asked ~= done[name] then
            local detection, sample = match(asked, "^%d+ (%l+) (%d*)$")
            local ok, err = set(name, {
                leak_detection = detection, leak_sample = tonumber(sample),
            })
            if not ok then
                ngx.log(ngx.ERR, "bufpool: leak_detection not set: ", err)
            end
            done[name] = asked
        end
    end
end

return switch
