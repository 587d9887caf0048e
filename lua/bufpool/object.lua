-- Finding what is behind a value: of which kind it is, whether it is alive,
-- and where its bytes are.
--
-- Every access checks in this order: the name of our metatable, the cookie of
-- that kind in the payload (anyone can make a userdata whose metatable bears
-- the name, nobody can guess the cookie), whether the object is still alive,
-- and the bounds. On a trace these checks are a handful of instructions, which
-- LuaJIT moves out of the loop. A cast of a userdata gives the address of its
-- payload, except that a file of Lua gives its FILE pointer, which may be NULL.
--
-- THE EPOCH. A finalizer may release or change the very object that a method is
-- at. It runs in the interpreter wherever something allocates, as reading a
-- field does that is an address or 64 bits wide; and it runs where a trace is
-- left: at each guard that fails, LuaJIT may step its collector, and the
-- interpreter goes on with what the trace had loaded. So live, look, view and
-- data also return the object's epoch, as it was before all else was read.
-- Whatever changes the object changes its epoch.
--
-- Where one call of C can do the job, Lua works out what to do, and a function
-- of C compares the epoch and acts. If it returns ESTALE, the method begins
-- anew. This is the rule for whatever copies, compares, searches or grows.
--
-- Single numbers are read and written by Lua, since a call would cost more than
-- they do. There the method compares the epoch right before the access. On a
-- trace that comparison is the first load of the epoch once more, and LuaJIT
-- drops it. So whatever a trace may have to guard comes before the comparison:
-- branches, calls of Lua functions, sums that may overflow, the first use of
-- an upvalue. After a read comes a comparison that decides nothing (FENCE in
-- typed.lua): LuaJIT takes a snapshot there, and a guard that fails later goes
-- back to that snapshot, not to the read. spec/28 looks at the traces.

local bit = require "bit"
local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"

local cast, istype = ffi.cast, ffi.istype
local band, bnot, rshift = bit.band, bit.bnot, bit.rshift
local getmetatable, tonumber = getmetatable, tonumber
local format = string.format
local rawequal, tostring, type = rawequal, tostring, type
local raise, bad_argument = check.raise, check.bad_argument
local min = math.min

-- The halves of the cookies; src/lua/box.h tells what they are.
local cookies = core.cookies
local POOL, BUFFER, FROZEN = cookies.pool, cookies.buffer, cookies.frozen
local HIGH = cookies.high
local box_t = ffi.typeof("struct bufpool_box *")
local handle_t = ffi.typeof("struct bufpool_handle *")
local uint64_t = ffi.typeof("uint64_t")
local frozen_t = ffi.typeof("struct bufpool_frozen_box *")

-- Descriptors are never unmapped, and those that were never made are zero.
local descriptor = calls.descriptor(0)
local NUMBER_BITS = core.constants.NUMBER_BITS
local NUMBER = 0ULL + min(calls.descriptors(), 2 ^ NUMBER_BITS) - 1
local STATE_MASK = core.constants.STATE_MASK
local STATE_OUT = core.constants.STATE_OUT
local STATE_BITS = core.constants.STATE_BITS
-- Kinds by what getmetatable says.
local SENTINELS = { ["bufpool.dead"] = "dead" }
for _, kind in ipairs(core.kinds) do
    SENTINELS["bufpool." .. kind] = kind
end

-- By the low half of a cookie. Not a table, which a trace would have to search.
local function kind_of(low)
    return low == BUFFER and "buffer" or low == FROZEN and "frozen"
        or low == POOL and "pool"
end

local STATES = core.states

-- What each box has, for handles: where a reader stores what it has read.
local handles_word = ffi.new "union { int32_t i32; uint32_t u32; float f32; }"

-- `core` is for modules that are loaded after the core's name stands for the
-- whole module (see init.lua).
local object = { box_type = box_t, handle_type = handle_t, core = core }

local function is_handle(x)
    return type(x) == "cdata" and istype(handle_t, x)
end

object.is_handle = is_handle

-- The descriptor that a handle stands for, and its epoch; nil when the handle
-- is stale or forged. A word that was made up does not help its maker when the
-- buffer is in the pool. handle_buf in src/lua/handle.h does the same for C: a
-- trace cannot look into C, and C would be slow through Lua.
local function borrowed(h)
    local value = cast(uint64_t, h)
    local b = descriptor + band(value, NUMBER)
    local epoch = b.epoch
    local word = rshift(value, NUMBER_BITS)
    if b.word == word and band(word, STATE_MASK) == STATE_OUT then
        return b, epoch
    end
end

object.borrowed = borrowed

-- Whether a and b are one object. A handle is a value, which may be copied.
function object.same(a, b)
    return rawequal(a, b) or is_handle(a) and is_handle(b) and a == b
end

-- The kind, "pool", "buffer", "frozen" or "handle", and whether x is alive;
-- false for what only looks like ours; nil for anything else.
local function identify(x)
    if is_handle(x) then
        return "handle", borrowed(x) ~= nil
    end
    -- What getmetatable gives for a file is no key of a table: LuaJITs before
    -- 2024 record nil for it, and some die of that while they record.
    local sentinel = type(x) == "userdata" and getmetatable(x)
    sentinel = type(sentinel) == "string" and SENTINELS[sentinel]
    if not sentinel then
        return nil
    end
    local box = cast(box_t, x)
    if box == nil then
        return false
    end
    local low, high = box.low, box.high
    local alive = high == HIGH
    local kind = (alive or high == bnot(HIGH))
        and kind_of(alive and low or bnot(low))
    if not kind or sentinel ~= kind and sentinel ~= "dead" then
        return false
    end
    return kind, alive and (kind ~= "buffer" or box.buf.word == box.word)
end

object.identify = identify

-- What x is to bufpool. Never raises.
function object.type(x)
    local kind, alive = identify(x)
    if kind then
        return alive and kind or "dead"
    end
    return nil
end

-- Whether x is a living buffer or handle.
function object.is_writable(x)
    local kind = object.type(x)
    return kind == "buffer" or kind == "handle"
end

-- The kind of a dead object, and how it died; nil for everything else.
local function death(x)
    local kind, alive = identify(x)
    if kind and not alive then
        return kind, kind == "handle" and "released"
            or STATES[cast(box_t, x).state]
    end
end

object.death = death

-- The number of a handle's descriptor, and the generation, for core.
function object.life(h)
    local value = cast(uint64_t, h)
    return tonumber(band(value, NUMBER)),
        tonumber(rshift(value, NUMBER_BITS + STATE_BITS))
end

-- The same of what a dead object had; nil where it had nothing.
local function life(kind, x)
    if kind == "handle" then
        return object.life(x)
    elseif kind == "buffer" then
        local box = cast(box_t, x)
        if box.buf ~= nil then
            return box.buf.number, tonumber(rshift(box.word, STATE_BITS))
        end
    elseif kind == "frozen" then
        local box = cast(frozen_t, x)
        if box.was > 0 then
            return box.was - 1, tonumber(rshift(box.word, STATE_BITS))
        end
    end
end

-- Where a dead object was checked out and released, as far as leak detection
-- knows that: " (checked out at PLACE, released at PLACE)", or "".
local function origin(kind, x)
    local number, generation = life(kind, x)
    local text = number and core.origin(number, generation)
    return text and format(" (%s)", text) or ""
end

-- Raises what is wrong with x, where `expected` should have been: as self of
-- `name`, or as its argument number arg.
local function reject(x, name, expected, arg)
    local kind, state = death(x)
    if kind then
        raise(format("attempt to use a %s %s%s", state, kind, origin(kind, x)))
    end
    local what
    kind = identify(x)
    if kind == false then
        what = "this userdata is no object of this copy of bufpool"
    else
        what = format("%s expected, got %s", expected, kind or type(x))
    end
    if arg then
        bad_argument(arg, name, what)
    end
    raise(format("bad self to '%s' (%s)", name, what))
end

object.reject = reject

-- Raises unless x, argument number arg of `name`, is a living buffer or handle.
function object.must_be_writable(x, name, arg)
    if not object.is_writable(x) then
        reject(x, name, "buffer", arg)
    end
end

-- live and look contain the same look-up of a buffer: one more call would be
-- felt in the interpreter.

-- The descriptor of a living buffer, and its epoch; `arg` is its number where
-- it is an argument.
function object.live(self, name, arg)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.buffer" then
        local box = cast(box_t, self)
        if box ~= nil and box.low == BUFFER and box.high == HIGH then
            local b = box.buf
            local epoch = b.epoch
            if b.word == box.word then
                return b, epoch
            end
        end
    elseif is_handle(self) then
        local b, epoch = borrowed(self)
        if b then
            return b, epoch
        end
    end
    return reject(self, name, "buffer", arg)
end

-- How many bytes a living object has; what holds its epoch, and the epoch; what
-- holds a word for a reader to store (see typed.lua).
--
-- Not where the bytes are, for methods that leave these to C: a loop that calls
-- them carries what a look-up returned from one round to the next, and LuaJIT
-- makes an object for a pointer of which nothing else is used there.
local function look(self, name, arg)
    if type(self) == "userdata" then
        local sentinel = getmetatable(self)
        if sentinel == "bufpool.buffer" then
            local box = cast(box_t, self)
            if box ~= nil and box.low == BUFFER and box.high == HIGH then
                local b = box.buf
                local epoch, len = b.epoch, tonumber(b.len)
                if b.word == box.word then
                    return len, b, epoch, box
                end
            end
        elseif sentinel == "bufpool.frozen" then
            local box = cast(frozen_t, self)
            if box ~= nil and box.low == FROZEN and box.high == HIGH then
                local epoch, len = box.epoch, tonumber(box.len)
                -- Once more, because what has been read may be a dead object's.
                if box.low == FROZEN then
                    return len, box, epoch, box
                end
            end
        end
    elseif is_handle(self) then
        local b, epoch = borrowed(self)
        if b then
            local len = tonumber(b.len)
            -- Once more, because what has been read may be the next owner's.
            if b.epoch == epoch then
                return len, b, epoch, handles_word
            end
            return look(self, name, arg)
        end
    end
    return reject(self, name, arg and "string, number, buffer or frozen"
        or "buffer or frozen", arg)
end

object.look = look

-- As look, and first where the bytes are: true as long as the epoch is.
local function view(self, name, arg)
    local len, o, epoch, word = look(self, name, arg)
    return o.at, len, o, epoch, word
end

object.view = view

-- As view, for a data argument. A string stands for the pointer to its bytes,
-- and has no epoch.
function object.data(v, name, arg)
    if type(v) == "string" then
        return v, #v
    elseif type(v) == "number" then
        v = tostring(v)
        return v, #v
    end
    return view(v, name, arg)
end

return object
