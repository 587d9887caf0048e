-- A timer in each worker that lets idle memory go home without traffic.
--
-- It starts when bufpool.ngx is loaded; where that is in init_by_lua, which has
-- no timers, when a handler first prints or reads a body by bufpool.ngx. One VM
-- of a process is enough: with lua_code_cache off each request has one of its
-- own.

local bufpool = require "bufpool"
local object = require "bufpool.object"

local core = object.core
local ngx, pcall = ngx, pcall

-- Seconds until the next call after one that has failed.
local AGAIN = 5

local clock = { started = false }

local tick

-- A worker that exits runs its timers at once, as premature.
local function wait(seconds)
    local ok, timer = pcall(ngx.timer.at, seconds, tick)
    return ok and timer
end

function tick(premature)
    if premature then
        return
    end
    local ok, seconds = pcall(bufpool.maintain)
    if not wait(ok and seconds or AGAIN) then
        core.claim_clock(false)     -- too many timers: the next use tries again
        clock.started = false
    end
end

-- Starts the timer unless the process has one.
function clock.start()
    if ngx.get_phase() == "init" then
        return
    end
    clock.started = true
    if core.claim_clock(true) and not wait(0) then
        core.claim_clock(false)
        clock.started = false
    end
end

return clock
