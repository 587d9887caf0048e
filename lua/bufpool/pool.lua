-- The methods of pools.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local config = require "bufpool.config"
local failure = require "bufpool.failure"
local handle = require "bufpool.handle"
local object = require "bufpool.object"

local cast = ffi.cast
local error, getmetatable, pcall, type = error, getmetatable, pcall, type
local finish, reject = handle.finish, object.reject
local POOL, HIGH = core.cookies.pool, core.cookies.high
local call_borrow, call_borrow_at = calls.borrow, calls.borrow_at
local drop = core.drop

local box_t = ffi.typeof("struct bufpool_pool_box *")
local ESITE, ESTALE = core.constants.ESITE, core.constants.ESTALE

-- Those of C are in src/lua/pool.c, stats.c and site.c.
local of_c = core.pool.__index
local pool = {
    checkout = of_c.checkout, checkout_zeroed = of_c.checkout_zeroed,
    checkout_aligned = of_c.checkout_aligned,
    try_checkout = of_c.try_checkout, writer = of_c.writer,
    stats = of_c.stats, resident = of_c.resident, trim = of_c.trim,
    sites = of_c.sites, close = of_c.close,
}

-- A checkout that leak detection records: C needs to know where it comes from.
-- Not compiled, because LuaJIT would go on with a trace behind the call of C.
-- Where an exit of that trace overflows the stack, scratch would not release.
local function borrow_here(self, box, n)
    return call_borrow_at(box, n, core.where(self))
end
jit.off(borrow_here)

-- Before it fails, the collector may run once: what is garbage may be what
-- memory lacks. C looks at the pool again, which a finalizer may have closed.
local function take(self, box, n, name, collected)
    local h = call_borrow(box, n)
    if h ~= nil then
        return h
    end
    local errno = box.error
    if errno == ESITE then
        h = borrow_here(self, box, n)
        if h ~= nil then
            return h
        end
        errno = box.error
    end
    if errno == ESTALE then
        reject(self, name, "pool")
    elseif not collected and core.reclaim(self, n) then
        return take(self, box, n, name, true)
    end
    return nil, failure.shortage(errno, n)
end

local function living(self, name)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.pool" then
        local box = cast(box_t, self)
        if box ~= nil and box.low == POOL and box.high == HIGH then
            return box
        end
    end
    reject(self, name, "pool")
end

function pool.set(self, given)
    if object.type(self) ~= "pool" then
        reject(self, "set", "pool")
    end
    return core.set(self, config.changed(given))
end

function pool.borrow(self, n)
    local box = living(self, "borrow")
    return take(self, box, check.size(n, "borrow", 1), "borrow")
end

-- A frame of 200 slots, more than what comes between a checkout and its release
-- has beside fn. So where the stack is short, it overflows before the checkout,
-- except on a trace: LuaJIT drops all calls of a trace whose exit overflows.
local stack_room = loadstring("return function(never) if never then local _"
    .. (", _"):rep(198) .. " end end", check.chunk "pool")()

-- One function for the look at the pool and the checkout, because each part of
-- a call that LuaJIT compiles by itself costs an entry into a trace.
local function take_empty(self)
    local h, message = take(self, living(self, "scratch"), 0, "scratch")
    return h, message
end

function pool.scratch(self, fn, ...)
    stack_room()
    if type(fn) ~= "function" then
        living(self, "scratch")
        check.callable(fn, "scratch", 1)
    end
    local out, message = take_empty(self)
    if not out then
        return nil, message
    end
    return finish(out, pcall(fn, out, ...))
end

local take_scratch = core.scratch

-- As finish, for a userdata.
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
    return dropped(buf, pcall(fn, buf, ...))
end

return pool
