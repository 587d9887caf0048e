-- ngx.run_worker_thread for more requests than threads. From 0.10.28 on the Lua
-- module refuses a task while a worker has as many in flight as
-- lua_worker_thread_vm_pool_size allows, 10 unless set. The request waits then,
-- for ten seconds at most.
local run_worker_thread = ngx.run_worker_thread -- luacheck: ignore 143

local REFUSED, TRIES, PAUSE = "no available Lua vm", 1000, 0.01

local function run(left, ...)
    local ran, result, why = run_worker_thread(...)
    if ran or result ~= REFUSED or left == 0 then
        return ran, result, why
    end
    ngx.sleep(PAUSE)
    return run(left - 1, ...)
end

return function(...)
    return run(TRIES, ...)
end
