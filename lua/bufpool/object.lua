-- What buffers and frozen objects have in common: finding the bytes behind a
-- userdata, safely, and reading them.
--
-- Every access checks in this order: our metatable's name, the cookie in the
-- payload (anyone can make a userdata whose metatable bears that name, nobody
-- can guess the cookie), whether the object is still alive, and the bounds.
-- On a trace all of it is a handful of instructions that leave the loop.

---Language servers do not know the fields of C structs.
---@diagnostic disable: undefined-field

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"

if core.cdef then
    ffi.cdef(core.cdef)
    core.cdef = nil
end

local cast, ffi_string, istype = ffi.cast, ffi.string, ffi.istype
local band, rshift = require("bit").band, require("bit").rshift
local getmetatable, select, tonumber = getmetatable, select, tonumber
local tostring, type = tostring, type
local string_byte, string_find = string.byte, string.find
local raise, bad_argument = check.raise, check.bad_argument
local string_range, absent = check.string_range, check.absent
local min, tobit = math.min, require("bit").tobit

local INT_MAX = 0x7fffffff

local cookie = core.cookie
local box_t = ffi.typeof("struct bufpool_box *")
local handle_t = ffi.typeof("struct bufpool_handle *")
local uint64_t = ffi.typeof("uint64_t")
local frozen_t = ffi.typeof("struct bufpool_frozen_box *")
local bytes_t = ffi.typeof("const uint8_t *")
local new_text = ffi.typeof("char[?]")

-- The userdata stays referenced by core for as long as this VM lives.
local calls = ffi.cast("const struct bufpool_calls *", core.calls)
core.ffi_calls = calls
-- Looking a function up allocates; a local does not.
local compare, equal_ct = calls.compare, calls.equal_ct
local find, is_pattern = calls.find, calls.is_pattern
core.integer = check.integer

-- Descriptors are never unmapped, and those that were never made are zero.
local descriptor = calls.descriptor(0)
local NUMBER_BITS = 24
local NUMBER = 0ULL + min(calls.descriptors(), 2 ^ NUMBER_BITS) - 1
local STATE, OUT = 7, 4

local KINDS = { "pool", "buffer", "frozen" }
local STATES = { [0] = "released", "released", "frozen", "detached", "closed" }
local SENTINELS = {
    ["bufpool.pool"] = true, ["bufpool.buffer"] = true,
    ["bufpool.frozen"] = true, ["bufpool.dead"] = true,
}

local function is_handle(x)
    return type(x) == "cdata" and istype(handle_t, x)
end

---The descriptor that a handle stands for, and its epoch; nil when the handle
---is stale, or forged. Whoever made up the word of a buffer that is in the
---pool has not made it theirs.
local function borrowed(h)
    ---@type any
    local value = cast(uint64_t, h)
    local b = descriptor + band(value, NUMBER)
    local epoch = b.epoch
    ---@type any
    local word = b.word
    if word == rshift(value, NUMBER_BITS) and band(word, STATE) == OUT then
        return b, epoch
    end
end

---Whether both are the same object: a handle is a value, and may be copied.
local function same(a, b)
    return rawequal(a, b) or is_handle(a) and is_handle(b) and a == b
end

-- "pool", "buffer", "frozen" or "handle", and whether it is alive; false for
-- what only looks like ours; nil for anything else.
local function identify(x)
    if is_handle(x) then
        return "handle", borrowed(x) ~= nil
    elseif type(x) ~= "userdata" or not SENTINELS[getmetatable(x) or 0] then
        return nil
    end
    local box = cast(box_t, x)
    if box.cookie ~= cookie and box.cookie ~= -cookie then
        return false
    end
    local kind = KINDS[box.kind]
    return kind, box.cookie == cookie
        and (kind ~= "buffer" or box.buf.word == box.word)
end

---What `x` is to bufpool. Never raises.
---@param x any
---@return "pool"|"buffer"|"frozen"|"handle"|"dead"|nil
function core.type(x)
    local kind, alive = identify(x)
    if kind then
        return alive and kind or "dead"
    end
    return nil
end

-- Raises what is wrong with x, where `expected` should have been: as self, or
-- as argument number arg.
local function reject(x, name, expected, arg)
    local kind, alive = identify(x)
    if kind and not alive then
        local state = kind == "handle" and 1 or cast(box_t, x).state
        raise(("attempt to use a %s %s"):format(STATES[state], kind))
    end
    local what
    if kind == false then
        what = "this userdata is no object of this copy of bufpool"
    else
        what = ("%s expected, got %s"):format(expected,
            kind or type(x))
    end
    if arg then
        bad_argument(arg, name, what)
    end
    raise(("bad self to '%s' (%s)"):format(name, what))
end

-- Reading a field of an address or of 64 bits allocates in the interpreter, and
-- any allocation may run a finalizer, which may release or change the very
-- object at hand. So whoever looks something up gets the epoch of that moment
-- too, and compares it once more right before it touches memory; when it has
-- changed, the method begins anew. On a trace, where no finalizer runs, the
-- second comparison is the first one, and costs nothing.

---The descriptor of a living buffer, and its epoch.
local function live(self, name)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.buffer" then
        local box = cast(box_t, self)
        if box.cookie == cookie then
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
    return reject(self, name, "buffer")
end

---Where the bytes of a living object are, and how many; what has the epoch, and
---the epoch.
---@return any at
---@return integer len
---@return any o
---@return integer epoch
local function view(self, name, arg)
    if type(self) == "userdata" then
        local sentinel = getmetatable(self)
        if sentinel == "bufpool.buffer" then
            local box = cast(box_t, self)
            if box.cookie == cookie then
                local b = box.buf
                local epoch = b.epoch
                if b.word == box.word then
                    return b.at, tonumber(b.len), b, epoch
                end
            end
        elseif sentinel == "bufpool.frozen" then
            local box = cast(frozen_t, self)
            local epoch = box.epoch
            if box.cookie == cookie then
                return box.at, tonumber(box.len), box, epoch
            end
        end
    elseif is_handle(self) then
        local b, epoch = borrowed(self)
        if b then
            return b.at, tonumber(b.len), b, epoch
        end
    end
    return reject(self, name, arg and "string, number, buffer or frozen"
        or "buffer or frozen", arg)
end

---The same for a data argument. A string stands for the pointer to its bytes,
---and needs no epoch.
local function data(v, name, arg)
    if type(v) == "string" then
        return v, #v
    elseif type(v) == "number" then
        v = tostring(v)
        return v, #v
    end
    return view(v, name, arg)
end

---Whether what view and data found still holds.
local function holds(o, epoch, p, p_epoch)
    return o.epoch == epoch and (not p or p.epoch == p_epoch)
end

core.identify, core.reject = identify, reject
core.live, core.view, core.data = live, view, data
core.holds, core.box_type = holds, box_t
core.is_handle, core.same, core.handle_type = is_handle, same, handle_t

---Methods of buffers and of frozen objects.
---@class (partial) bufpool.Reader
local readers = {}

---@return integer
function readers.len(self)
    local _, len = view(self, "len")
    return len
end

---@return string
function readers.tostring(self)
    local at, len, o, epoch = view(self, "tostring")
    if o.epoch ~= epoch then
        return readers.tostring(self)
    end
    return (ffi_string(at, len))
end

---@param i bufpool.Integer
---@param j? bufpool.Integer
---@return string
function readers.sub(self, i, j)
    local at, len, o, epoch = view(self, "sub")
    local from, to = string_range(i, absent(j) and -1 or j, len, "sub", 1)
    if from > to then
        return ""
    end
    at = at + (from - 1)
    if o.epoch ~= epoch then
        return readers.sub(self, i, j)
    end
    return (ffi_string(at, to - from + 1))
end

-- Lua's stack ends somewhere above this.
local BYTES_MAX = 4096

local function bytes(at, n)
    if n == 1 then
        return at[0]
    elseif n == 2 then
        return at[0], at[1]
    elseif n == 3 then
        return at[0], at[1], at[2]
    elseif n == 4 then
        return at[0], at[1], at[2], at[3]
    end
    return string_byte(ffi_string(at, n), 1, n)
end

---The bytes i to j as numbers; by default the first, or the one at i.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return integer ...
function readers.byte(self, i, j)
    local at, len, o, epoch = view(self, "byte")
    if absent(j) then
        if absent(i) then
            i = 1
        end
        -- As integers, so that a loop compares integers; what is beyond them
        -- takes the general way.
        if type(i) == "number" and i >= 1 and i <= tobit(min(len, INT_MAX))
            and o.epoch == epoch then
            return at[i - 1]
        end
        j = i
    end
    local from, to = string_range(absent(i) and 1 or i, j, len, "byte", 1)
    local n = to - from + 1
    if n > BYTES_MAX then
        raise("string slice too long")
    elseif n >= 1 then
        at = at + (from - 1)
        if o.epoch ~= epoch then
            return readers.byte(self, i, j)
        end
        return bytes(at, n)
    end
end

-- An init beyond the end means the end to Lua 5.1, and no match to Lua 5.2,
-- whichever this VM was built to follow.
local past_end_matches = string_find("", "", 2) ~= nil

---As string.find, without patterns: pattern characters need `plain`.
---@param needle bufpool.Data
---@param init? bufpool.Integer
---@param plain? boolean
---@return integer? first
---@return integer? last
function readers.find(self, needle, init, plain)
    local at, len, o, epoch = view(self, "find")
    local text, n, p, p_epoch = data(needle, "find", 1)
    local i = string_range(absent(init) and 1 or init, -1, len, "find", 2)
    if i > len + 1 then
        if not past_end_matches then
            return nil
        end
        i = len + 1
    end
    at = at + (i - 1)
    if not holds(o, epoch, p, p_epoch) then
        return readers.find(self, needle, init, plain)
    elseif not plain and is_pattern(text, n) ~= 0 then
        bad_argument(1, "find",
            "pattern characters need plain to be true: there are no patterns")
    end
    local hit = find(at, len - (i - 1), text, n)
    if hit < 0 then
        return nil
    end
    return i + hit, i + hit + n - 1
end

---Below, at or above zero as a is before, equal to or after b; with `equal`,
---whether it is zero is all that is asked for.
local function order(a, b, name, arg, equal)
    local at, len, o, epoch = view(a, name)
    local text, n, p, p_epoch = data(b, name, arg)
    if equal and len ~= n then
        return 1
    elseif not holds(o, epoch, p, p_epoch) then
        return order(a, b, name, arg, equal)
    end
    return compare(at, len, text, n)
end

---@param other bufpool.Data
---@return boolean
function readers.equals(self, other)
    return order(self, other, "equals", 1, true) == 0
end

---The same in constant time for equal lengths.
---@param other bufpool.Data
---@return boolean
function readers.equals_ct(self, other)
    local at, len, o, epoch = view(self, "equals_ct")
    local text, n, p, p_epoch = data(other, "equals_ct", 1)
    if not holds(o, epoch, p, p_epoch) then
        return readers.equals_ct(self, other)
    end
    return len == n and equal_ct(at, text, n) ~= 0
end

core.order = order
core.readers = readers

local function text_of(v)
    local kind = type(v)
    if kind == "string" or kind == "number" then
        return v
    elseif identify(v) == nil then
        raise(("attempt to concatenate a %s value"):format(kind))
    end
    return readers.tostring(v)
end

local function concat(a, b)
    return text_of(a) .. text_of(b)
end

---Completes the metatable of a class; `methods` are added to those from C.
function core.complete(class, ...)
    local meta = core[class]
    local index = meta.__index
    for k = 1, select("#", ...) do
        for name, method in pairs((select(k, ...))) do
            index[name] = method
        end
    end
    -- buf[i] means a byte in some libraries and here nothing, so say it.
    setmetatable(index, {
        __index = function(_, key)
            if type(key) ~= "string" then
                raise(("attempt to index a %s with a %s (use its methods)")
                    :format(class, type(key)))
            end
            return nil
        end,
    })
    function meta.__newindex()
        raise(("attempt to assign to a field of a %s"):format(class))
    end
    if class ~= "pool" then
        meta.__len = readers.len
        meta.__tostring = readers.tostring
        meta.__concat = concat
    end
end

-- A dead object knows nothing but how it died.
for _, event in ipairs { "__index", "__newindex", "__len", "__tostring" } do
    core.dead[event] = function(self)
        reject(self, event, "living object")
    end
end
core.dead.__concat = concat

---Why there are no n bytes.
function core.shortage(failure, n)
    local text = new_text(160)
    calls.shortage(failure, n, text, 160)
    return ffi_string(text)
end

---The text of data, for FFI calls that add to a pointer.
function core.pointer(text)
    if type(text) == "string" then
        return (cast(bytes_t, text))
    end
    return text
end

return true
