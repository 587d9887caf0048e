-- POST /compress: the request body, compressed by gzip's method in a worker
-- thread, so that other requests need not wait. A ticket goes to the thread and
-- another one comes back; the bytes stay where they are.
local bufpool = require "bufpool"
local bufpool_ngx = require "bufpool.ngx"
local pool = require "pool"

local run_worker_thread = require "thread"
local MAX = 64 * 1048576

local function refuse(status, message)
    ngx.status = status
    ngx.say(message)
end

return function()
    local body, message = bufpool_ngx.read_body(pool, MAX)
    if not body then
        return refuse(message == "too large" and 413 or 400, message)
    end
    local ticket = assert(body:detach())
    local ran, result, why = run_worker_thread("app",
        "compress_thread", "gzip", ticket)
    local packed = ran and result and bufpool.adopt(result)
    if not packed then
        -- The thread may not have come to take it.
        local left = bufpool.adopt(ticket)
        if left then
            left:release()
        end
        return refuse(503, tostring(ran and why or result))
    end
    ngx.header["Content-Type"] = "application/gzip"
    ngx.header["Content-Length"] = #packed
    local frozen = packed:freeze()
    bufpool_ngx.print(frozen)
    frozen:release()
end
