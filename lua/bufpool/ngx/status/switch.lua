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

-- What is asked for is a text: a number, which tells it from what was asked for
-- before, the kind of detection, and of how many one is a sample.
local function parse(asked)
    local detection, sample = match(asked or "", "^%d+ (%l+) (%d*)$")
    return { leak_detection = detection, leak_sample = tonumber(sample) }
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

-- In this worker at once. Without a sample, that of the last time holds, for a
-- worker that missed that time, too. `dict` is nil where there is none.
function switch.ask(dict, name, detection, sample)
    if dict then
        sample = sample or parse(dict:get(key_of(name))).leak_sample
        local number, err = dict:incr("bufpool:asked", 1, 0)
        if number then
            number, err = dict:set(key_of(name), format("%.0f %s %s", number,
                detection, sample or ""))
        end
        if not number then
            return nil, err
        end
    end
    return set(name, { leak_detection = detection, leak_sample = sample })
end

-- By pool, what this VM has done last.
local done = {}

-- Does what was asked for since. `pools` has the names as keys.
function switch.heed(dict, pools)
    for name in pairs(pools) do
        local asked = dict:get(key_of(name))
        if asked and asked ~= done[name] then
            local ok, err = set(name, parse(asked))
            if ok then
                done[name] = asked
            else
                ngx.log(ngx.ERR, "bufpool: leak_detection not set: ", err)
            end
        end
    end
end

return switch
