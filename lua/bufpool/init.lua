-- bufpool: a pool of zeroed byte buffers for LuaJIT.

-- Before the core, which no other Lua could load.
if not (pcall(require, "jit") and pcall(require, "ffi")) then
    error(("bufpool needs LuaJIT with its FFI, and this is %s without it")
        :format(_VERSION), 0)
end

local core = require "bufpool.core"

-- When this VM has opened bufpool before, core is the module itself: metatables
-- and C types exist once for each VM.
if core._VERSION then
    ---@cast core bufpool
    return core
end

local check = require "bufpool.check"
local complete_config = require "bufpool.config"
local metatable = require "bufpool.metatable"
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local buffer = require "bufpool.buffer"
local typed = require "bufpool.typed"
local pack = require "bufpool.pack"
local io = require "bufpool.io"
local frozen = require "bufpool.frozen"
local handle = require "bufpool.handle"
local pool = require "bufpool.pool"
-- For bufpool.ngx, which may come when core is no longer to be had.
require "bufpool.lend"

local ffi = require "ffi"
local format = string.format

---A size, count or position: a number, or an integer that C returned.
---@alias bufpool.Integer integer|ffi.cdata*
---What can be stored: as an integer it wraps.
---@alias bufpool.Number number|ffi.cdata*
---What can be written, put, searched for and compared with.
---@alias bufpool.Data string|number|bufpool.Reader
---An open file, or the number of a file descriptor.
---@alias bufpool.File file*|integer

---@class bufpool.Config
---@field four_kib_count? integer buffers of 4 KiB kept ready (64)
---@field sixty_four_kib_count? integer buffers of 64 KiB kept ready (8)
---@field two_fifty_six_kib_count? integer those of 256 KiB (2)
---@field one_mib_count? integer those of 1 MiB (0)
---@field classes? bufpool.ClassConfig[] instead of the four; up to 16
---@field large_bytes? integer kept above the largest class (128 MiB or less)
---@field max_bytes? integer limit on all memory of the pool (none)
---@field numa_node? integer|"local" where its memory should be
---@field prefault? boolean memory has its pages when handed out
---@field huge_pages? boolean ask the kernel for huge pages
---@field ticket_ttl? number seconds a ticket is good (for ever; in nginx 60)
---@field name? string opens the pool of this name, or makes it

---@class bufpool.ClassConfig
---@field size integer bytes; a multiple of 4096
---@field count? integer buffers kept ready (0)

---@class bufpool.ClassStats
---@field size integer bytes of one buffer
---@field count integer buffers with memory behind them
---@field ready integer
---@field cached integer
---@field out integer
---@field hits integer
---@field misses integer

---@class bufpool.LargeStats
---@field hits integer served from what was kept
---@field misses integer took fresh memory
---@field out integer
---@field bytes_out integer
---@field cached integer
---@field cached_bytes integer

---@class bufpool.NumaStats
---@field requested? integer|"local"
---@field available boolean the node asked for has memory here
---@field pages_by_node table<integer, integer>

---@class bufpool.Stats
---@field hits integer
---@field misses integer
---@field checked_out integer
---@field peak_checked_out integer
---@field bytes_checked_out integer
---@field peak_bytes_checked_out integer
---@field committed_bytes integer
---@field cached_bytes integer
---@field in_transit integer
---@field wiped_bytes integer
---@field gc_returns integer
---@field lost integer
---@field classes bufpool.ClassStats[]
---@field large bufpool.LargeStats
---@field numa bufpool.NumaStats

---@class bufpool.Totals : bufpool.Stats
---@field pools table<string, bufpool.Stats> by name

---@class bufpool
---@field _VERSION string
---@field default fun(): bufpool.Pool?, string? the pool named "default"
---@field get fun(name: string): bufpool.Pool? the pool of that name
---@field stats fun(): bufpool.Totals over all pools of the process
---@field maintain fun(): number seconds until it wants to be called again
local bufpool = {
    _VERSION = core.version,
    default = core.default,
    get = core.get,
    stats = core.stats,
    maintain = core.maintain,
}

---What a ticket stands for; or nil and a message. A ticket is good once, in the
---process that has issued it, whichever Lua VM.
---@param ticket bufpool.Integer what detach or share returned
---@return bufpool.Buffer|bufpool.Frozen|nil object
---@return string? message
function bufpool.adopt(ticket)
    local number = check.number(ticket, "adopt", 1)
    return core.adopt(number)
end

---What `x` is to bufpool: "dead" for what was released. Never raises.
---@param x any
---@return "pool"|"buffer"|"frozen"|"handle"|"dead"|nil
function bufpool.type(x)
    return object.type(x)
end

---A pool; or nil and a message when memory is short.
---@param config? bufpool.Config
---@return bufpool.Pool? pool
---@return string? message
function bufpool.new(config)
    local whole = complete_config(config)
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
    buffer, typed.writers, pack.writers, io.readers, io.writers)
complete(core.frozen, "frozen", reader.methods, typed.readers, pack.readers,
    io.writers, frozen.methods)
complete(handle.meta, "handle", reader.methods, typed.readers, pack.readers,
    buffer, typed.writers, pack.writers, io.readers, io.writers, handle.methods)
for event, fn in pairs(frozen.events) do
    core.frozen[event] = fn
end
metatable.bury(core.dead, frozen.events.__lt, frozen.events.__le)
ffi.metatype("struct bufpool_handle", handle.meta)
core.publish(bufpool, {
    bad_argument = check.bad_argument, size = check.size,
    reject = object.reject,
})
package.loaded["bufpool.core"] = bufpool

return bufpool
