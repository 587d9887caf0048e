-- Buffers that go home when their request of nginx ends.
--
-- What a scope gives out are handles, and C releases them, as src/lua/scope.h
-- tells. One list serves all scopes of a request; where it cannot grow, another
-- one follows. The lists' handles are in no table that a program can reach:
-- whoever has one could change what the list holds.

local ffi = require "ffi"
require "bufpool"
local check = require "bufpool.check"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local handle = require "bufpool.handle"
local object = require "bufpool.object"

local cast, core = ffi.cast, object.core
local format, frexp, huge = string.format, math.frexp, math.huge
local min = math.min
local ngx, ipairs, pairs, pcall = ngx, ipairs, pairs, pcall
local setmetatable, tonumber, type = setmetatable, tonumber, type
local raise, bad_argument = check.raise, check.bad_argument
local identify, finish = object.identify, handle.finish
local open, borrow = calls.scope_open, calls.scope_borrow
local list_held = calls.scope_held

local C = core.constants
local FULL, ZEROED = C.CHECKOUT_FULL, C.CHECKOUT_ZEROED
local ALIGNED, READY = C.CHECKOUT_ALIGNED, C.CHECKOUT_READY
local EMPTY = C.CHECKOUT_EMPTY
-- The largest size.
local SIZE_MAX = check.SIZE_END - 1024
local box_t = ffi.typeof("struct bufpool_pool_box *")
local uintptr_t = ffi.typeof("uintptr_t")

-- Phases whose request nginx makes up and drops without telling anyone.
local WITHOUT_END = { init = true, init_worker = true, exit_worker = true }

-- Outside of nginx there is none.
local found, base = pcall(require, "resty.core.base")
local get_request = found and base.get_request

-- By the address of a request a record of it: the request, whether it is a
-- subrequest, and its lists, the one in use last. A record whose lists are
-- alive has a request that is alive. The others are taken out when `most` is
-- reached.
local records, count, most = {}, 0, 64

-- By scope: its state, which is its metatable, too. So a state lives as long as
-- its scope, though this table is weak, and LuaJIT frees both in one round of
-- its collector. Were only the keys weak, a state would live for a round more.
local states = setmetatable({}, { __mode = "kv" })

local scope = {}

local function refuse()
    raise("attempt to assign to a field of a scope")
end

local function look_at_request()
    return ngx.is_subrequest
end

-- In timers and phases of TLS ngx.is_subrequest raises.
local function is_subrequest()
    local ok, is = pcall(look_at_request)
    return ok and is
end

-- All lists of a request end at once. A new record has none.
local function alive(record)
    local _, is = identify(record[1])
    return is
end

local function key_of(request)
    return tonumber(cast(uintptr_t, request))
end

-- The record of a request, or a new one, which is not remembered yet.
local function record_of(request)
    local record = records[key_of(request)]
    if record and alive(record) then
        return record
    end
    return { request = request, of_subrequest = is_subrequest() }
end

local function remember(record)
    local key = key_of(record.request)
    if not records[key] then
        count = count + 1
        if count > most then
            count = 1
            for k, other in pairs(records) do
                if alive(other) then
                    count = count + 1
                else
                    records[k] = nil
                end
            end
            most = 2 * count + 64
        end
    end
    records[key] = record
end

-- Raises what C refused, or returns what it lacked.
local function message(state, name, n)
    local errno = state.box.error
    if errno == C.ESTALE then
        object.reject(state.pool, name, "pool")
    elseif errno == C.ECANCELED then
        raise("attempt to use a scope after its request ended")
    elseif errno == C.EAGAIN then
        return "exhausted"
    elseif errno == C.ENOTSUP then
        raise(format("bad call of '%s' (in %s_by_lua, where a request has no "
            .. "end that bufpool could learn of without "
            .. "ngx_http_bufpool_module)", name, ngx.get_phase()))
    end
    return failure.shortage(errno, n)
end

-- What `attempt` returns; or nil and a message. Before it fails, the collector
-- may run once: what is garbage may be what memory lacks.
local function obtain(attempt, state, name, n, kind, alignment, collected)
    local got = attempt(state, n, kind, alignment)
    if got ~= nil then
        return got
    end
    if state.box.error == C.ESITE then
        return obtain(attempt, state, name, n,
            kind + C.SITE_UNIT * core.where(state.pool), alignment, collected)
    end
    local why = message(state, name, n)
    if collected or why == "exhausted" or not core.reclaim(state.pool, n) then
        return nil, why
    end
    return obtain(attempt, state, name, n, kind, alignment, true)
end

-- A new list for the request of the state, or nil.
local function open_list(state)
    local record = state.record
    local list = open(state.box, record.request, ngx.get_phase() == "log")
    if list == nil then
        return nil
    elseif not record[1] then
        remember(record)
    end
    record[#record + 1] = list
    return list
end

-- The limits of a scope; nil without any.
local function checked_limits(given)
    if check.absent(given) then
        return nil
    elseif type(given) ~= "table" then
        bad_argument(2, "scope", "table expected, got " .. type(given))
    end
    check.keys(given, "'scope'", "max_buffers", "max_bytes")
    local limits = { max_buffers = huge, max_bytes = huge }
    for key, value in pairs(given) do
        limits[key] = check.size(value, "scope", 2)
    end
    return limits
end

-- What a scope is made of, and its metatable; or nil and a message.
local function new_state(pool, name, limits)
    if object.type(pool) ~= "pool" then
        bad_argument(1, name, "pool expected, got "
            .. (object.type(pool) or type(pool)))
    end
    local request = get_request and get_request()
    if not request or WITHOUT_END[ngx.get_phase()] then
        raise(format("bad call of '%s' (outside of a request%s)", name,
            request and ", in " .. ngx.get_phase() .. "_by_lua" or ""))
    end
    -- All keys are there from the start, and none is assigned again. LuaJIT may
    -- add such a key twice, where it makes the table only as it leaves a trace:
    -- the table would then give what was assigned first.
    local state = { pool = pool, box = cast(box_t, pool),
        record = record_of(request), limits = limits, __index = scope,
        __newindex = refuse, __metatable = "bufpool.scope" }
    if not state.record[1] then
        local list, why = obtain(open_list, state, name, 0)
        if not list then
            return nil, why
        end
    end
    return state
end

-- What another request took would be released while it still uses it. A
-- subrequest has the end of its main request, but nobody tells which that is.
local function check_request(state)
    local request, record = get_request(), state.record
    if request ~= record.request and alive(record)
        and not (request and (record.of_subrequest or is_subrequest())) then
        raise("attempt to use a scope of another request")
    end
end

-- A handle, or nil. Where the list in use is full and cannot grow, releases may
-- have made room in an older one, which is in use then. Without any, another
-- list follows.
local function borrow_once(state, n, kind, alignment)
    check_request(state)
    local box, record = state.box, state.record
    local last = #record
    for k = last, 1, -1 do
        local h = borrow(box, record[k], n, alignment, kind)
        if h ~= nil or box.error ~= C.ENOBUFS then
            record[k], record[last] = record[last], record[k]
            return h
        end
    end
    local list = open_list(state)
    return list and borrow(box, list, n, alignment, kind)
end

-- What scope.h says of one list, of all lists of the request. The memory for n
-- bytes more counts once.
local function held(state, n, what)
    local more = list_held(state.box, nil, n, what)
    local sum = more
    for _, list in ipairs(state.record) do
        sum = sum + list_held(state.box, list, n, what) - more
    end
    return sum
end

-- What keeps the request from n bytes more, if anything does.
local function over_limit(state, n)
    local limits = state.limits
    if held(state, n, C.HELD_BUFFERS) >= limits.max_buffers then
        return format("max_buffers of the scope reached (%d)",
            limits.max_buffers)
    elseif held(state, n, C.HELD_BYTES) > limits.max_bytes then
        return format("max_bytes of the scope reached (%.14g bytes asked for)",
            n)
    end
end

local function take(state, name, n, kind, alignment)
    if state.limits then
        check_request(state)
        local why = over_limit(state, n)
        if why then
            return nil, why
        end
    end
    return obtain(borrow_once, state, name, n, kind, alignment)
end

local function state_of(self, name)
    local state = states[self]
    if not state then
        raise(format("bad self to '%s' (scope expected, got %s)", name,
            object.type(self) or type(self)))
    end
    return state
end

local function sized(self, n, name, kind)
    local state = state_of(self, name)
    return take(state, name, check.size(n, name, 1), kind, 0)
end

function scope.checkout(self, n)
    return sized(self, n, "checkout", FULL)
end

function scope.borrow(self, n)
    return sized(self, n, "borrow", FULL)
end

function scope.checkout_zeroed(self, n)
    return sized(self, n, "checkout_zeroed", ZEROED)
end

function scope.try_checkout(self, n)
    return sized(self, n, "try_checkout", READY)
end

function scope.checkout_aligned(self, n, alignment)
    local state = state_of(self, "checkout_aligned")
    n = check.size(n, "checkout_aligned", 1)
    alignment = check.size(alignment, "checkout_aligned", 2)
    if alignment == 0 or frexp(alignment) ~= 0.5 then
        bad_argument(2, "checkout_aligned",
            format("power of two expected, got %.14g", alignment))
    end
    return take(state, "checkout_aligned", n, ALIGNED, alignment)
end

function scope.writer(self, hint, headroom)
    local state = state_of(self, "writer")
    hint = check.absent(hint) and 0 or check.size(hint, "writer", 1)
    headroom = check.absent(headroom) and 0
        or check.size(headroom, "writer", 2)
    return take(state, "writer", min(hint + headroom, SIZE_MAX), EMPTY,
        headroom)
end

function scope.stats(self)
    return state_of(self, "stats").pool:stats()
end

function scope.trim(self, max_bytes)
    return state_of(self, "trim").pool:trim(max_bytes)
end

local function call_with(state, arg, n, fn, ...)
    n = check.size(n, "with", arg)
    check.callable(fn, "with", arg + 1)
    local h, why = take(state, "with", n, FULL, 0)
    if not h then
        return nil, why
    end
    return finish(h, pcall(fn, h, ...))
end

function scope.with(self, n, fn, ...)
    return call_with(state_of(self, "with"), 1, n, fn, ...)
end

local function new(pool, limits)
    local state, why = new_state(pool, "scope", checked_limits(limits))
    if not state then
        return nil, why
    end
    local self = setmetatable({}, state)
    states[self] = state
    return self
end

local function with(pool, n, fn, ...)
    local state, why = new_state(pool, "with")
    if not state then
        return nil, why
    end
    return call_with(state, 2, n, fn, ...)
end

-- What new(pool):writer(n) returns.
local function writer(pool, n)
    local state, why = new_state(pool, "writer")
    if not state then
        return nil, why
    end
    return take(state, "writer", n, EMPTY, 0)
end

-- What is in the table itself is part of bufpool.ngx.
return setmetatable({ scope = new, with = with },
    { __index = { writer = writer } })
