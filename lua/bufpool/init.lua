-- bufpool: a pool of zeroed byte buffers for LuaJIT.

local core = require "bufpool.core"

-- Opened before in this VM: then this is the module itself, for its metatables
-- and its C types exist once.
if core._VERSION then
    ---@cast core bufpool
    return core
end

local check = require "bufpool.check"
local complete_config = require "bufpool.config"
require "bufpool.object"
require "bufpool.buffer"
require "bufpool.typed"
require "bufpool.pack"
require "bufpool.io"
require "bufpool.handle"
require "bufpool.frozen"

local ffi = require "ffi"
local error, pcall, type = error, pcall, type
local getmetatable = debug.getmetatable

---A size, count or position: a number, or an integer that C returned.
---@alias bufpool.Integer integer|ffi.cdata*
---What can be stored: an FFI store wraps it.
---@alias bufpool.Number number|ffi.cdata*
---What can be written, put, searched for and compared with.
---@alias bufpool.Data string|number|bufpool.Reader
---An open file, or the number of a file descriptor.
---@alias bufpool.File file*|integer

---@class bufpool.Config
---@field four_kib_count? integer buffers of 4 KiB kept ready (64)
---@field sixty_four_kib_count? integer the same, of 64 KiB (8)
---@field two_fifty_six_kib_count? integer the same, of 256 KiB (2)
---@field one_mib_count? integer the same, of 1 MiB (0)
---@field classes? bufpool.ClassConfig[] instead of the four; up to 16
---@field max_bytes? integer limit on all memory of the pool (none)
---@field numa_node? integer|"local" where its memory should be
---@field prefault? boolean memory has its pages when handed out
---@field huge_pages? boolean ask the kernel for huge pages
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
---@field numa bufpool.NumaStats

---@class bufpool.Totals : bufpool.Stats
---@field pools table<string, bufpool.Stats> by name

---@class bufpool
---@field _VERSION string
---@field default fun(): bufpool.Pool?, string? the pool named "default"
---@field get fun(name: string): bufpool.Pool? the pool of that name
---@field stats fun(): bufpool.Totals over all pools of the process
local bufpool = {
    _VERSION = core.version,
    default = core.default,
    get = core.get,
    stats = core.stats,
}

---What `x` is to bufpool: "dead" for what was released. Never raises.
---@param x any
---@return "pool"|"buffer"|"frozen"|"handle"|"dead"|nil
function bufpool.type(x)
    return core.type(x)
end

---A pool; or nil and a message when memory is short.
---@param config? bufpool.Config
---@return bufpool.Pool? pool
---@return string? message
function bufpool.new(config)
    local whole = complete_config(config)
    local pool, message, key = core.create(whole)
    if pool then
        return pool
    elseif key then
        check.raise(("the pool '%s' exists with a different '%s'"):format(
            whole.name, key))
    end
    return nil, message
end

---@alias bufpool.Checkout fun(self, n: bufpool.Integer):
---bufpool.Buffer?, string?
---@alias bufpool.CheckoutAligned fun(self, n: bufpool.Integer,
---alignment: bufpool.Integer): bufpool.Buffer?, string?
---@alias bufpool.Writer fun(self, hint?: bufpool.Integer):
---bufpool.Buffer?, string?

---@class (partial) bufpool.Pool
---@field checkout bufpool.Checkout full, every byte zero
---@field checkout_zeroed bufpool.Checkout wiped again at this moment
---@field checkout_aligned bufpool.CheckoutAligned at a multiple of `alignment`
---@field try_checkout bufpool.Checkout only what is ready: or "exhausted"
---@field writer bufpool.Writer empty, to append to
---@field stats fun(self): bufpool.Stats
---@field trim fun(self): integer bytes given back to the system
---@field close fun(self) the handle is dead; what is out stays valid
local pool = {}

local checkout = core.pool.__index.checkout

local function finish(buf, ok, ...)
    if core.type(buf) == "buffer" then
        buf:release()
    end
    if not ok then
        error((...), 0)
    end
    return ...
end

local function callable(f)
    local kind = type(f)
    local meta = (kind == "table" or kind == "userdata") and getmetatable(f)
    return kind == "function" or meta and meta.__call ~= nil
end

---Calls fn(buf, ...) and returns its results; the buffer is released when fn
---returns or raises, unless fn gave it away.
---@param n bufpool.Integer
---@param fn fun(buf: bufpool.Buffer, ...): ...
---@param ... any
---@return any ...
function pool.with(self, n, fn, ...)
    if core.type(self) ~= "pool" then
        core.reject(self, "with", "pool")
    end
    n = check.size(n, "with", 1)
    if not callable(fn) then
        check.bad_argument(2, "with", "function expected, got "
            .. type(fn))
    end
    local buf, message = checkout(self, n)
    if not buf then
        return nil, message
    end
    return finish(buf, pcall(fn, buf, ...))
end

-- FFI is fast on trace and slow in the interpreter, which so gets the commonest
-- methods from C. How a cdata of ours is told there: by the number of its type,
-- which stands before its value.
if not jit.status() then
    local type_number, before = tonumber(core.handle_type),
        ffi.abi "gc64" and 6 or 2
    for _, methods in ipairs { core.readers, core.buffer_methods,
        core.handle_methods, core.pool_borrow } do
        for name, method in pairs(methods) do
            methods[name] = core.plain(name, method, core.handle_type,
                type_number, before)
        end
    end
end

core.complete("pool", pool, core.pool_borrow)
core.complete("buffer", core.readers, core.buffer_methods, core.file_readers,
    core.file_writers)
core.complete("frozen", core.readers, core.frozen_methods, core.file_writers)
core.complete("handle", core.readers, core.buffer_methods, core.file_readers,
    core.file_writers, core.handle_methods)
ffi.metatype("struct bufpool_handle", core.handle)
core.publish(bufpool)
package.loaded["bufpool.core"] = bufpool

return bufpool
