-- GET /pieces?count=N: a response of N lines, put together in a buffer. The
-- megabytes never are a Lua string.
local bufpool_ngx = require "bufpool.ngx"
local pool = require "pool"

local HINT = 1048576        -- bytes that a response usually takes
local COUNT_MAX = 100000

-- Line i holds its number, and is 1024 bytes long.
local FILL = ("."):rep(1015) .. "\n"

return function()
    local count = tonumber(ngx.var.arg_count or 1024)
    if not count or count % 1 ~= 0 or count < 0 or count > COUNT_MAX then
        ngx.status = 400
        return ngx.say("count: a whole number from 0 to ", COUNT_MAX)
    end
    local out, message = assert(bufpool_ngx.scope(pool)):writer(HINT)
    if not out then
        ngx.status = 503
        return ngx.say(message)
    end
    for i = 1, count do
        out:putf("%08d", i):put(FILL)
    end
    ngx.header["Content-Length"] = #out
    -- nginx holds on to frozen memory until its last byte has left.
    local frozen = out:freeze()
    bufpool_ngx.print(frozen)
    frozen:release()
end
