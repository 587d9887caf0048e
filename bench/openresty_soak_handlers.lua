-- Handlers for bench/openresty_soak.lua that end in every way there is, and
-- with a buffer in hand.
local bufpool = require "bufpool"
local bufpool_ngx = require "bufpool.ngx"
local ffi = require "ffi"

local run_worker_thread = ngx.run_worker_thread -- luacheck: ignore 143
local pool = assert(bufpool.new { name = "soak" })
local handlers = {}

-- A response that a slow or vanishing client does not read to its end.
function handlers.large()
    local scope = bufpool_ngx.scope(pool)
    local out = assert(scope:writer(2000000))
    for _ = 1, 2000 do
        out:put(("x"):rep(1000))
    end
    local frozen = out:freeze()
    bufpool_ngx.print(frozen)
    frozen:release()
    assert(scope:checkout(5000)):write(1, "left to the scope")
    ngx.flush(true)
end

-- Holds three buffers and ends as `how` says.
local function with_buffers(how)
    return function()
        local scope = bufpool_ngx.scope(pool)
        for _, n in ipairs { 10, 70000, 2000000 } do
            assert(scope:checkout(n)):write(1, "secret")
        end
        bufpool_ngx.with(pool, 100, function(buf)
            buf:write(1, "secret")
            how(scope)
        end)
    end
end

handlers.raises = with_buffers(function() error "on purpose" end)
handlers.exits = with_buffers(function() ngx.exit(204) end)
handlers.redirects = with_buffers(function() ngx.redirect "/fine" end)
handlers.execs = with_buffers(function() ngx.exec "/fine" end)
handlers.waits = with_buffers(function() ngx.sleep(30) end)
handlers.kills = with_buffers(function(scope)
    local thread = ngx.thread.spawn(function()
        assert(scope:checkout(3000)):write(1, "secret")
        ngx.sleep(30)
    end)
    ngx.thread.kill(thread)
    ngx.say "killed"
end)

function handlers.fine()
    ngx.say "fine"
end

function handlers.figures()
    local stats = pool:stats()
    ngx.say("out=", stats.checked_out, " in_transit=", stats.in_transit,
        " gc_returns=", stats.gc_returns)
end

-- A buffer goes to a worker thread and back, stamped by each owner. A stamp
-- that is not the last owner's is a buffer with two owners.
local stamp = 0

function handlers.thread()
    stamp = stamp + 1
    local mine = stamp
    local buf = assert(pool:checkout(65536))
    local at = ffi.cast("double *", (buf:ref()))
    assert(at[0] == 0 and at[8191] == 0, "a buffer is not zero")
    at[0], at[8191] = mine, mine
    local ok, ticket = run_worker_thread("soak",
        "openresty_soak_thread", "stamp", assert(buf:detach()), mine)
    assert(ok, ticket)
    buf = assert(bufpool.adopt(ticket))
    at = ffi.cast("double *", (buf:ref()))
    assert(at[0] == -mine and at[8191] == -mine, "a buffer has two owners")
    buf:release()
    ngx.say "right"
end

return handlers
