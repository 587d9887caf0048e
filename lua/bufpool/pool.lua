-- The methods of pools that are written in Lua: borrow, scratch and with. All
-- others are C's, in src/lua/pool.c.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local object = require "bufpool.object"

local cast = ffi.cast
local error, getmetatable, pcall, type = error, getmetatable, pcall, type
local finish, reject = object.finish, object.reject
local POOL, HIGH = core.cookies.pool, core.cookies.high
local call_borrow = calls.borrow

local box_t = ffi.typeof("struct bufpool_pool_box *")
local ESTALE = core.constants.ESTALE

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
---@field trim fun(self, max_bytes?: bufpool.Integer): integer, boolean?
---bytes given back to the system, and whether there are more
---@field close fun(self) the handle is dead; what is out stays valid
local pool = {}

-- Before it fails, the collector may run once: what is garbage may be what
-- memory lacks. C looks at the pool again, which a finalizer may have closed.
local function take(self, box, n, name, collected)
    local h = call_borrow(box, n)
    if h ~= nil then
        return h
    end
    local errno = box.error
    if errno == ESTALE then
        reject(self, name, "pool")
    elseif not collected and core.reclaim(self, n) then
        return take(self, box, n, name, true)
    end
    return nil, failure.shortage(errno, n)
end

local function living(self, name)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.pool" then
        ---@type any
        local box = cast(box_t, self)
        if box ~= nil and box.low == POOL and box.high == HIGH then
            return box
        end
    end
    reject(self, name, "pool")
end

---A handle for n zero bytes; or nil and a message when memory is short. Only
---its release() or freeze() brings the memory back.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function pool.borrow(self, n)
    local box = living(self, "borrow")
    return take(self, box, check.size(n, "borrow", 1), "borrow")
end

---Calls fn(out, ...) with an empty buffer or handle and returns its results;
---out is released when fn returns or raises, unless fn gave it away. fn must
---not yield. out is what is cheaper: a handle with the JIT, else a buffer.
---@param fn fun(out: bufpool.Buffer, ...): ...
---@param ... any
---@return any ...
function pool.scratch(self, fn, ...)
    local box = living(self, "scratch")
    if type(fn) ~= "function" then
        check.callable(fn, "scratch", 1)
    end
    local out, message = take(self, box, 0, "scratch")
    if not out then
        return nil, message
    end
    return finish(out, "handle", pcall(fn, out, ...))
end

local take_scratch, drop = core.scratch, core.drop

local function dropped(out, ok, ...)
    drop(out)
    if not ok then
        error((...), 0)
    end
    return ...
end

-- The same with a userdata, and few calls by FFI.
local function scratch_in_interpreter(self, fn, ...)
    if type(fn) ~= "function" then
        living(self, "scratch")
        check.callable(fn, "scratch", 1)
    end
    local out, message = take_scratch(self)
    if not out then
        return nil, message
    end
    return dropped(out, pcall(fn, out, ...))
end

if not jit.status() then
    pool.scratch = scratch_in_interpreter
end

local take_buffer, guard, guard_works = core.take, core.guard, core.guard_works

---Calls fn(buf, ...) and returns its results; the buffer is released when fn
---returns or raises, unless fn gave it away. fn may yield. A handler of errors
---around the call sees the frames of fn, with two exceptions: inside a
---coroutine, where fn can yield, and below a hundred calls of with. There the
---error is caught and raised again, unchanged, and the handler sees only the
---frames down to with: LuaJIT has no call that fn may yield in and that is told
---of an error without catching it.
---@param n bufpool.Integer
---@param fn fun(buf: bufpool.Buffer, ...): ...
---@param ... any
---@return any ...
function pool.with(self, n, fn, ...)
    if object.type(self) ~= "pool" then
        reject(self, "with", "pool")
    end
    n = check.size(n, "with", 1)
    check.callable(fn, "with", 2)
    local buf, allowed = take_buffer(self, n)
    if not buf then
        return nil, allowed
    elseif allowed and guard_works then
        return guard(buf, fn, ...)
    end
    return finish(buf, "buffer", pcall(fn, buf, ...))
end

return pool
