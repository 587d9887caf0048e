-- bufpool: a pool of zeroed byte buffers for LuaJIT. doc/api.md says what its
-- functions take and return, types.lua says it to editors.

-- Before the core, which no other Lua could load.
if not (pcall(require, "jit") and pcall(require, "ffi")) then
    error(("bufpool needs LuaJIT with its FFI, and this is %s without it")
        :format(_VERSION), 0)
end

local core = require "bufpool.core"

-- When this VM has opened bufpool before, core is the module itself: metatables
-- and C types exist once for each VM.
if core._VERSION then
    return core
end

local check = require "bufpool.check"
local configuration = require "bufpool.config"
local metatable = require "bufpool.metatable"
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local buffer = require "bufpool.buffer"
local typed = require "bufpool.typed"
local varint = require "bufpool.varint"
local pack = require "bufpool.pack"
local io = require "bufpool.io"
local frozen = require "bufpool.frozen"
local handle = require "bufpool.handle"
local pool = require "bufpool.pool"
local profile = require "bufpool.profile"
local report = require "bufpool.report"
local stats = require "bufpool.stats"
-- For bufpool.ngx, which may come when core is no longer to be had.
require "bufpool.lend"

local ffi = require "ffi"
local format = string.format
-- A sandbox may have no clock.
local time = type(os) == "table" and os.time or function() return 0 end

---@type bufpool
local bufpool = {
    _VERSION = core.version,
    default = core.default,
    get = core.get,
    heed_pressure = core.heed_pressure,
    maintain = core.maintain,
    type = object.type,
    report = report.to,
    folded = profile.folded,
    writev = io.writev,
}

function bufpool.adopt(ticket)
    local number = check.number(ticket, "adopt", 1)
    return core.adopt(number)
end

function bufpool.stats()
    local pools, unnamed = stats.by_name()
    local total = stats.total(pools, unnamed)
    total.pools = pools
    return total
end

function bufpool.pprof(list)
    return (profile.pprof(list, time()))
end

function bufpool.new(config)
    local whole = configuration.complete(config)
    local made, message, key = core.create(whole)
    if made then
        return made
    elseif key then
        check.raise(format("the pool '%s' exists with a different '%s'",
            whole.name, key))
    end
    return nil, message
end

-- There the default pool has the defaults of nginx.
if check.in_nginx then
    local get, new = core.get, bufpool.new
    function bufpool.default()
        local found = get "default"
        if found then
            return found
        end
        return new { name = "default" }
    end
end

local complete = metatable.complete
complete(core.pool, "pool", pool)
complete(core.buffer, "buffer", reader.methods, typed.readers, pack.readers,
    buffer, typed.writers, varint.methods, pack.writers, io.readers,
    io.writers)
complete(core.frozen, "frozen", reader.methods, typed.readers, pack.readers,
    io.writers, frozen.methods)
complete(handle.meta, "handle", reader.methods, typed.readers, pack.readers,
    buffer, typed.writers, varint.methods, pack.writers, io.readers,
    io.writers, handle.methods)
for event, fn in pairs(frozen.events) do
    core.frozen[event] = fn
end
metatable.bury(core.dead, frozen.events.__lt, frozen.events.__le)
ffi.metatype("struct bufpool_handle", handle.meta)
core.publish(bufpool, {
    bad_argument = check.bad_argument, size = check.size,
    reject = object.reject, here = check.here,
})
package.loaded["bufpool.core"] = bufpool

return bufpool
