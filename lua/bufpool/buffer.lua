-- Buffers: writing in place, and the vocabulary of LuaJIT's string.buffer.
--
-- Everything that is written lies below the mark, which is raised first: what
-- is at or past it is zero and will not be wiped. Bytes are touched only as
-- bytes or by ffi.copy, ffi.fill and calls, because LuaJIT assumes that
-- accesses of different types never meet.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"

local copy, fill, ffi_string = ffi.copy, ffi.fill, ffi.string
local floor, max, min = math.floor, math.max, math.min
local getmetatable = debug.getmetatable
local pcall, select, tonumber = pcall, select, tonumber
local tostring, type = tostring, type
local raise, bad_argument = check.raise, check.bad_argument
local size, position, range = check.size, check.position, check.range
local absent = check.absent
local live, data, calls = core.live, core.data, core.ffi_calls
local pointer, identify = core.pointer, core.identify

local new_pointer = ffi.typeof("const void *")
local new_text = ffi.typeof("char[?]")

---@class bufpool.Buffer : bufpool.Reader, bufpool.FileReader
---@field release fun(self) wiped and given back; dead from here on
---@field freeze fun(self): bufpool.Frozen where it is, without a copy
local buffer = {}

---Bytes that the contents may grow to without moving.
---@return integer
function buffer.capacity(self)
    return tonumber(live(self, "capacity").capacity)
end

local function raise_mark(b, stop)
    b.mark = max(tonumber(b.mark), stop)
end

-- In place ------------------------------------------------------------------

local function set_bytes(self, b, i, ...)
    local n = select("#", ...)
    i = position(i, tonumber(b.len), n, "setbyte", 1)
    for k = 1, n do
        check.byte(select(k, ...), "setbyte", k + 1)
    end
    raise_mark(b, i + n - 1)
    for k = 1, n do
        b.at[i + k - 2] = (select(k, ...))
    end
    return self
end

---Overwrites bytes; values wrap.
---@param i bufpool.Integer
---@param ... integer
---@return bufpool.Buffer
function buffer.setbyte(self, i, ...)
    local b = live(self, "setbyte")
    local v = ...
    if select("#", ...) ~= 1 or type(i) ~= "number" or type(v) ~= "number"
        or not (i >= 1 and i <= tonumber(b.len)) or floor(i) ~= i then
        return set_bytes(self, b, i, ...)
    end
    raise_mark(b, i)
    b.at[i - 1] = v
    return self
end

---Overwrites the bytes from i on; never grows.
---@param i bufpool.Integer
---@param v bufpool.Data
---@return bufpool.Buffer
function buffer.write(self, i, v)
    local b = live(self, "write")
    local text, n = data(v, "write", 2)
    local len = tonumber(b.len)
    if type(i) ~= "number" or not (i >= 1 and i + n - 1 <= len)
        or floor(i) ~= i then
        i = position(i, len, n, "write", 1)
    end
    raise_mark(b, i + n - 1)
    if type(text) == "string" then
        copy(b.at + (i - 1), text, n)
    else
        calls.move(b.at + (i - 1), text, n)
    end
    return self
end

---Overwrites the bytes from i on with a range of source; they may overlap.
---@param i bufpool.Integer
---@param source bufpool.Data
---@param from? bufpool.Integer
---@param to? bufpool.Integer
---@return bufpool.Buffer
function buffer.copy(self, i, source, from, to)
    local b = live(self, "copy")
    local text, n = data(source, "copy", 2)
    from, to = range(from, to, n, "copy", 3)
    n = max(to - from + 1, 0)
    i = position(i, tonumber(b.len), n, "copy", 1)
    if n > 0 then
        raise_mark(b, i + n - 1)
        calls.move(b.at + (i - 1), pointer(text) + (from - 1), n)
    end
    return self
end

---@param v integer
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Buffer
function buffer.fill(self, v, i, j)
    local b = live(self, "fill")
    v = tonumber(check.byte(v, "fill", 1) % 256)
    i, j = range(i, j, tonumber(b.len), "fill", 2)
    if i <= j then
        raise_mark(b, j)
        fill(b.at + (i - 1), j - i + 1, v)
    end
    return self
end

---Zeroes all memory and empties the buffer.
---@return bufpool.Buffer
function buffer.wipe(self)
    live(self, "wipe")
    calls.wipe(self)
    return self
end

-- Growth --------------------------------------------------------------------

-- Above the classes memory grows by half, so that appending n bytes piece by
-- piece copies O(n) of them.
local EXACT = 1048576

local function shortage(name, failure, n)
    local text = new_text(160)
    calls.shortage(failure, n, text, 160)
    raise(("cannot grow in '%s': %s"):format(name, ffi_string(text)))
end

-- What was consumed in front is used again before more memory is taken, once
-- that moves no more bytes than were consumed.
local function grow(self, b, stop, name)
    local off, capacity = b.at - b.base, tonumber(b.capacity)
    local len = tonumber(b.len)
    if off >= len and off > 0 and stop <= capacity + off then
        calls.move(b.base, b.at, len)
        b.at, b.capacity, b.grant = b.base, capacity + off, 0
        b.mark = tonumber(b.mark) + off
        return
    end
    local want = stop
    if capacity >= EXACT then
        want = max(stop, floor(capacity * 1.5))
    end
    local failure = calls.grow(self, want)
    if failure ~= 0 and want > stop then
        failure = calls.grow(self, stop)
    end
    if failure ~= 0 and core.reclaim(self, stop) then
        live(self, name)
        failure = calls.grow(self, stop)
    end
    if failure ~= 0 then
        shortage(name, failure, stop)
    end
end

-- Makes room for n bytes at the end and raises the mark over them.
local function make_room(self, b, n, name)
    local stop = tonumber(b.len) + n
    if stop > tonumber(b.capacity) then
        grow(self, b, stop, name)
    end
    raise_mark(b, stop)
    return stop
end

---Sets the length; new bytes are zero.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.resize(self, n)
    live(self, "resize")
    n = size(n, "resize", 1)
    local failure = calls.resize(self, n)
    if failure ~= 0 and core.reclaim(self, n) then
        live(self, "resize")
        failure = calls.resize(self, n)
    end
    if failure ~= 0 then
        shortage("resize", failure, n)
    end
    return self
end

-- An empty buffer has all of its memory ahead of it.
local function rewind(b)
    local off = b.at - b.base
    b.len, b.grant = 0, 0
    if off > 0 then
        b.at = b.base
        b.capacity = tonumber(b.capacity) + off
        b.mark = tonumber(b.mark) + off
    end
end

-- As string.buffer ----------------------------------------------------------

-- What a value puts: a string, or a living object other than self.
local function text_of(self, v, name, arg)
    local kind = type(v)
    if kind == "string" then
        return v
    elseif kind == "number" then
        return tostring(v)
    elseif identify(v) ~= nil then
        if rawequal(self, v) then
            bad_argument(arg, name, "a buffer cannot be put into itself")
        end
        data(v, name, arg)
        return v
    elseif kind == "cdata" then
        return tostring(v)
    end
    local meta = (kind == "table" or kind == "userdata") and getmetatable(v)
    local text = meta and meta.__tostring and meta.__tostring(v)
    if type(text) == "number" then
        text = tostring(text)
    elseif type(text) ~= "string" then
        bad_argument(arg, name, "string, number, buffer, frozen or "
            .. "__tostring expected, got " .. kind)
    end
    return text
end

-- All values are looked at before any is put: they may raise, and __tostring
-- may do anything, to this buffer too.
local function put_values(self, n, ...)
    local values, total = { ... }, 0
    for k = 1, n do
        local v = text_of(self, values[k], "put", k)
        values[k] = v
    end
    local b = live(self, "put")
    for k = 1, n do
        local _, len = data(values[k], "put", k)
        total = total + len
    end
    make_room(self, b, total, "put")
    for k = 1, n do
        local text, len = data(values[k], "put", k)
        calls.move(b.at + tonumber(b.len), text, len)
        b.len = tonumber(b.len) + len
    end
    return self
end

-- Strings and numbers, one after the other.
local function put_strings(self, b, n, ...)
    local total = 0
    for k = 1, n do
        total = total + #tostring((select(k, ...)))
    end
    make_room(self, b, total, "put")
    for k = 1, n do
        local text = tostring((select(k, ...)))
        local len = tonumber(b.len)
        copy(b.at + len, text, #text)
        b.len = len + #text
    end
    return self
end

---Appends strings, numbers, buffers, frozen, or what has a __tostring.
---@param ... any
---@return bufpool.Buffer
function buffer.put(self, ...)
    local b = live(self, "put")
    local n, v = select("#", ...), ...
    if n == 1 and type(v) == "string" then
        local stop = make_room(self, b, #v, "put")
        copy(b.at + (stop - #v), v, #v)
        b.len = stop
        return self
    end
    for k = 1, n do
        local kind = type((select(k, ...)))
        if kind ~= "string" and kind ~= "number" then
            return put_values(self, n, ...)
        end
    end
    return put_strings(self, b, n, ...)
end

-- A pointer from whatever C would accept for a `const void *`.
local function to_pointer(v, n, name)
    local ok, at
    if type(v) == "cdata" then
        ok, at = pcall(new_pointer, v)
    end
    if not ok then
        bad_argument(1, name, "pointer expected, got "
            .. type(v))
    elseif at == nil and n > 0 then
        bad_argument(1, name, "a null pointer has no bytes")
    end
    return at
end

---Appends n bytes from a pointer.
---@param v ffi.cdata*
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.putcdata(self, v, n)
    local b = live(self, "putcdata")
    n = size(n, "putcdata", 2)
    local at = to_pointer(v, n, "putcdata")
    local stop = make_room(self, b, n, "putcdata")
    calls.move(b.at + (stop - n), at, n)
    b.len = stop
    return self
end

---Replaces the contents by a copy of data, or of n bytes from a pointer.
---@param v bufpool.Data|ffi.cdata*
---@param n? bufpool.Integer
---@return bufpool.Buffer
function buffer.set(self, v, n)
    local b = live(self, "set")
    local text
    if type(v) == "cdata" then
        n = size(n, "set", 2)
        text = to_pointer(v, n, "set")
    else
        if rawequal(self, v) then
            bad_argument(1, "set", "a buffer cannot be set to itself")
        end
        text, n = data(v, "set", 1)
    end
    if n > (b.at - b.base) + tonumber(b.capacity) then
        grow(self, b, n, "set")
    end
    rewind(b)
    raise_mark(b, n)
    calls.move(b.at, text, n)
    b.len = n
    return self
end

---The bytes past the end, n of them, to be written; commit() then takes them.
---@param n bufpool.Integer
---@return ffi.cdata* at
---@return integer n
function buffer.reserve(self, n)
    local b = live(self, "reserve")
    n = size(n, "reserve", 1)
    b.grant = make_room(self, b, n, "reserve")
    return b.at + tonumber(b.len), n
end

---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.commit(self, n)
    local b = live(self, "commit")
    n = size(n, "commit", 1)
    local len = tonumber(b.len)
    local granted = max(tonumber(b.grant) - len, 0)
    if n > granted then
        bad_argument(1, "commit", ("%.14g bytes exceed the %.14g reserved")
            :format(n, granted))
    end
    b.len = len + n
    return self
end

-- Takes n bytes off the front.
local function consume(b, n)
    local len = tonumber(b.len)
    if n == len then
        return rewind(b)
    end
    b.at = b.at + n
    b.len = len - n
    b.capacity = tonumber(b.capacity) - n
    b.mark = max(tonumber(b.mark) - n, 0)
    b.grant = max(tonumber(b.grant) - n, 0)
end

local function take(b, n)
    n = min(n, tonumber(b.len))
    local text = ffi_string(b.at, n)
    consume(b, n)
    return text
end

local function take_each(b, n, ...)
    local text = take(b, absent(n) and tonumber(b.len) or tonumber(n))
    if select("#", ...) == 0 then
        return text
    end
    return text, take_each(b, ...)
end

---Consumes bytes from the front: all, or as many as each length says.
---@param ... bufpool.Integer?
---@return string ...
function buffer.get(self, ...)
    local b = live(self, "get")
    local n = ...
    local count = select("#", ...)
    if count <= 1 and absent(n) then
        return take(b, tonumber(b.len))
    elseif count == 1 then
        return take(b, size(n, "get", 1))
    end
    for k = 1, count do
        n = select(k, ...)
        if not absent(n) then
            size(n, "get", k)
        end
    end
    return take_each(b, ...)
end

---Consumes n bytes, or all there are.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.skip(self, n)
    local b = live(self, "skip")
    consume(b, min(size(n, "skip", 1), tonumber(b.len)))
    return self
end

---Empties the buffer and keeps its memory.
---@return bufpool.Buffer
function buffer.reset(self)
    rewind(live(self, "reset"))
    return self
end

---A pointer to the bytes, to read and to write, and their number.
---@return ffi.cdata* at
---@return integer len
function buffer.ref(self)
    local b = live(self, "ref")
    local len = tonumber(b.len)
    b.raw = 1
    raise_mark(b, len)
    return b.at, len
end

---Empties the buffer and gives its memory back; it may be used again.
---@return bufpool.Buffer
function buffer.free(self)
    live(self, "free")
    calls.free(self)
    return self
end

core.make_room = make_room
core.raise_mark = raise_mark
core.buffer_methods = buffer

return true
