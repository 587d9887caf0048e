-- Buffers: writing in place, and the vocabulary of LuaJIT's string.buffer.
--
-- Each method that writes first works out everything: where, how much, and the
-- mark that it needs. Then it compares the epoch (see object.lua), raises the
-- mark, and writes. Bytes at and past the mark are zero and are not wiped on
-- release. Bytes are touched only as bytes or by ffi.copy, ffi.fill and calls,
-- because LuaJIT assumes that accesses of different types never meet.

local bit = require "bit"
local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"
local put = require "bufpool.put"
local space = require "bufpool.space"

local cast, copy, fill, ffi_string = ffi.cast, ffi.copy, ffi.fill, ffi.string
local floor, max, min = math.floor, math.max, math.min
local error, pcall, select, tonumber = error, pcall, select, tonumber
local string_format = string.format
local type = type
local tobit = bit.tobit
local raise, bad_argument = check.raise, check.bad_argument
local size, position, range = check.size, check.position, check.range
local live, data, holds = object.live, object.data, object.holds
local is_handle, same = object.is_handle, object.same
local grow, room, charged = space.grow, space.room, space.charged
local line_end = space.line_end
local move, consume = calls.move, calls.consume

local bytes_t = ffi.typeof("const uint8_t *")
---@type any
local new_pointer = ffi.typeof("const void *")

local INT_MAX, ESTALE = core.constants.INT_MAX, core.constants.ESTALE
local ITSELF = "a buffer cannot be put into itself"

---@class (partial) bufpool.Buffer : bufpool.Reader, bufpool.FileReader
---@operator len: integer
---@operator concat(bufpool.Data): string
---@field release fun(self) wiped and given back; dead from here on
---@field freeze fun(self): bufpool.Frozen where it is, without a copy
---@field detach fun(self): integer?, string? a ticket for bufpool.adopt
---Appends values that are data or have a __tostring.
---@field put fun(self, ...: bufpool.Data|table|userdata): bufpool.Buffer
local buffer = {}

---Bytes that the contents may grow to without moving.
---@return integer
function buffer.capacity(self)
    return (tonumber(live(self, "capacity").capacity))
end

-- In place ------------------------------------------------------------------

local function place(to, text, n)
    if type(text) == "string" then
        copy(to, text, n)
    else
        move(to, text, n)
    end
end

-- The caller has checked i. A finalizer may have shortened the buffer since.
local function set_byte(self, i, v)
    local b, epoch = live(self, "setbyte")
    local at, len, mark = b.at, tonumber(b.len), tonumber(b.mark)
    local stop = max(mark, line_end(i, tonumber(b.capacity)))
    if b.epoch ~= epoch then
        return set_byte(self, i, v)
    elseif i <= len then
        b.mark, b.epoch = stop, epoch + 1
        at[i - 1] = v
    end
end

-- Up to four bytes, without the loop that would keep set_bytes off a trace.
local function set_few(self, i, n, v, w, x, y)
    i = position(i, tonumber(live(self, "setbyte").len), n, "setbyte", 1)
    check.byte(v, "setbyte", 2)
    check.byte(n < 2 and 0 or w, "setbyte", 3)
    check.byte(n < 3 and 0 or x, "setbyte", 4)
    check.byte(n < 4 and 0 or y, "setbyte", 5)
    set_byte(self, i, v)
    if n >= 2 then
        set_byte(self, i + 1, w)
    end
    if n >= 3 then
        set_byte(self, i + 2, x)
    end
    if n == 4 then
        set_byte(self, i + 3, y)
    end
    return self
end

local function set_bytes(self, i, n, ...)
    if n >= 1 and n <= 4 then
        return set_few(self, i, n, ...)
    end
    i = position(i, tonumber(live(self, "setbyte").len), n, "setbyte", 1)
    for k = 1, n do
        check.byte(select(k, ...), "setbyte", k + 1)
    end
    for k = 1, n do
        set_byte(self, i + k - 1, (select(k, ...)))
    end
    return self
end

---Overwrites the bytes from i on; values wrap.
---@param i bufpool.Integer
---@param ... bufpool.Number
---@return bufpool.Buffer
function buffer.setbyte(self, i, ...)
    local b, epoch = live(self, "setbyte")
    local at, v = b.at, ...
    -- The plain case is inside the contents and below the mark: one comparison
    -- in a loop.
    local stop = tobit(min(tonumber(b.len), tonumber(b.mark), INT_MAX))
    if select("#", ...) == 1 and type(i) == "number" and type(v) == "number"
        and i >= 1 and i <= stop and floor(i) == i and b.epoch == epoch then
        at[i - 1] = v
        return self
    end
    return set_bytes(self, i, select("#", ...), ...)
end

---Overwrites the bytes from i on; never grows.
---@param i bufpool.Integer
---@param v bufpool.Data
---@return bufpool.Buffer
function buffer.write(self, i, v)
    local b, epoch = live(self, "write")
    local text, n, p, p_epoch = data(v, "write", 2)
    local len, from = tonumber(b.len), i
    if type(i) ~= "number" or not (i >= 1 and i + n - 1 <= len)
        or floor(i) ~= i then
        from = position(i, len, n, "write", 1)
    end
    local to, mark = b.at + (from - 1), max(tonumber(b.mark), from + n - 1)
    if not holds(b, epoch, p, p_epoch) then
        return buffer.write(self, i, v)
    end
    b.mark, b.epoch = mark, epoch + 1
    place(to, text, n)
    return self
end

-- The text of data, for a call by FFI that adds to a pointer.
local function pointer(text)
    if type(text) == "string" then
        return (cast(bytes_t, text))
    end
    return text
end

---Overwrites the bytes from i on with a range of source, which may overlap
---them.
---@param i bufpool.Integer
---@param source bufpool.Data
---@param from? bufpool.Integer
---@param to? bufpool.Integer
---@return bufpool.Buffer
function buffer.copy(self, i, source, from, to)
    local b, epoch = live(self, "copy")
    local text, n, p, p_epoch = data(source, "copy", 2)
    local first, last = range(from, to, n, "copy", 3)
    n = max(last - first + 1, 0)
    local start = position(i, tonumber(b.len), n, "copy", 1)
    local at = b.at + (start - 1)
    local mark = max(tonumber(b.mark), start + n - 1)
    text = pointer(text) + (first - 1)
    if not holds(b, epoch, p, p_epoch) then
        return buffer.copy(self, i, source, from, to)
    elseif n > 0 then
        b.mark, b.epoch = mark, epoch + 1
        move(at, text, n)
    end
    return self
end

---Overwrites a range with one byte. A number above 255 wraps.
---@param v bufpool.Number
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Buffer
function buffer.fill(self, v, i, j)
    local b, epoch = live(self, "fill")
    local byte = tonumber(check.byte(v, "fill", 1) % 256)
    local from, to = range(i, j, tonumber(b.len), "fill", 2)
    if from > to then
        return self
    end
    local at, mark = b.at + (from - 1), max(tonumber(b.mark), to)
    if b.epoch ~= epoch then
        return buffer.fill(self, v, i, j)
    end
    b.mark, b.epoch = mark, epoch + 1
    fill(at, to - from + 1, byte)
    return self
end

-- Functions of calls that change a buffer fail with ESTALE when its epoch is no
-- longer the given one. The method then begins anew.

---Zeroes all memory and empties the buffer.
---@return bufpool.Buffer
function buffer.wipe(self)
    local b, epoch = live(self, "wipe")
    if calls.wipe(b, epoch) == ESTALE then
        return buffer.wipe(self)
    end
    return self
end

---Empties the buffer and gives its memory back; it may be used again.
---@return bufpool.Buffer
function buffer.free(self)
    local b, epoch = live(self, "free")
    if calls.free(b, epoch, charged(self)) == ESTALE then
        return buffer.free(self)
    end
    return self
end

---Sets the length; new bytes are zero.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.resize(self, n)
    live(self, "resize")
    grow(self, calls.resize, size(n, "resize", 1), "resize")
    return self
end

-- As string.buffer ----------------------------------------------------------

-- Raises what pcall(string.format) returned. An error of string.format itself
-- has no position there and gets the caller's; one of an object's __tostring
-- passes unchanged.
local function format_failed(message)
    if type(message) == "string" then
        local arg, what = message:match(
            "^bad argument #(%d+) to '[^']*' %((.*)%)$")
        if arg then
            bad_argument(tonumber(arg), "putf", what)
        elseif message:find("^invalid option '[^']*' to 'format'$") then
            raise((message:gsub("'format'$", "'putf'")))
        elseif message == ITSELF then
            raise(message)
        end
    end
    error(message, 0)
end

buffer.put = put

-- Whether self is among the n values. Eight at a time: a trace holds only a few
-- calls of a function by itself.
local function among(self, n, s, t, u, v, w, x, y, z, ...)
    return same(self, s) or same(self, t) or same(self, u) or same(self, v)
        or same(self, w) or same(self, x) or same(self, y) or same(self, z)
        or n > 8 and among(self, n - 8, ...)
end

-- Stands for the buffer that is written to. That buffer may be an argument as
-- long as the format does not use it.
local itself = setmetatable({}, {
    __tostring = function() error(ITSELF, 0) end,
})

local function without(self, n, v, ...)
    if n == 0 then
        return
    elseif same(self, v) then
        v = itself
    end
    return v, without(self, n - 1, ...)
end

---Appends the result of string.format(fmt, ...).
---@param fmt string
---@param ... any
---@return bufpool.Buffer
function buffer.putf(self, fmt, ...)
    live(self, "putf")
    local n = select("#", ...)
    if among(self, n, ...) then
        return buffer.putf(self, fmt, without(self, n, ...))
    end
    local ok, text = pcall(string_format, fmt, ...)
    if not ok then
        format_failed(text)
    end
    return (put(self, text))
end

-- A pointer from a value that C would accept as a `const void *`.
local function to_pointer(v, n, name)
    local ok, at
    if type(v) == "cdata" and not is_handle(v) then
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
    live(self, "putcdata")
    local count = size(n, "putcdata", 2)
    local from = to_pointer(v, count, "putcdata")
    local b, epoch, to, stop, mark = room(self, count, "putcdata")
    if b.epoch ~= epoch then
        return buffer.putcdata(self, v, n)
    end
    b.mark, b.epoch = mark, epoch + 1
    move(to, from, count)
    b.len = stop
    return self
end

-- Nothing changes before all checks have passed. A pointer may be to a part of
-- this buffer: the contents move within the memory.
---Replaces the contents by a copy of data, or of n bytes from a pointer.
---@param v bufpool.Data|ffi.cdata*
---@param n? bufpool.Integer
---@return bufpool.Buffer
function buffer.set(self, v, n)
    local text, count, p, p_epoch
    live(self, "set")
    if type(v) == "cdata" and not is_handle(v) then
        count = size(n, "set", 2)
        text = to_pointer(v, count, "set")
    else
        if same(self, v) then
            bad_argument(1, "set", "a buffer cannot be set to itself")
        end
        text, count, p, p_epoch = data(v, "set", 1)
    end
    local b, epoch = live(self, "set")
    local at, capacity = b.at, tonumber(b.capacity)
    local mark = max(tonumber(b.mark), count)
    if count > capacity then
        grow(self, calls.grow, count, "set")
        return buffer.set(self, v, n)
    elseif not holds(b, epoch, p, p_epoch) then
        return buffer.set(self, v, n)
    end
    b.mark, b.epoch = mark, epoch + 1
    move(at, text, count)
    b.len, b.granted = count, 0
    return self
end

---A pointer to the n bytes past the end, to be written. commit() appends them.
---@param n bufpool.Integer
---@return ffi.cdata* at
---@return integer n
function buffer.reserve(self, n)
    local count = size(n, "reserve", 1)
    local b, epoch, at, stop, mark = room(self, count, "reserve")
    if b.epoch ~= epoch then
        return buffer.reserve(self, n)
    end
    b.mark, b.grant, b.granted, b.epoch = mark, stop, 1, epoch + 1
    return at, count
end

---Appends the first n of the bytes that reserve() granted.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.commit(self, n)
    local b, epoch = live(self, "commit")
    local count = size(n, "commit", 1)
    local len = tonumber(b.len)
    local grant = b.granted == 1 and max(tonumber(b.grant), len) or len
    if b.epoch ~= epoch then
        return buffer.commit(self, n)
    elseif len + count > grant then
        bad_argument(1, "commit", ("%.14g bytes exceed the %.14g reserved")
            :format(count, grant - len))
    end
    b.len, b.epoch = len + count, epoch + 1
    return self
end

-- Takes n bytes off the front, or all.
local function take(self, n)
    local b, epoch = live(self, "get")
    local at, len = b.at, tonumber(b.len)
    n = min(n or len, len)
    if b.epoch ~= epoch then
        return take(self, n)
    end
    local text = ffi_string(at, n)
    if consume(b, epoch, n) == ESTALE then
        return take(self, n)
    end
    return text
end

local function take_each(self, n, ...)
    local text = take(self, n and tonumber(n))
    if select("#", ...) == 0 then
        return text
    end
    return text, take_each(self, ...)
end

local function get_size(n, arg)
    return type(n) ~= "nil" and size(n, "get", arg) or nil
end

-- Up to three lengths, without a loop (see put_few). All are checked before any
-- byte is taken.
local function get_few(self, count, n, m, o)
    n, m, o = get_size(n, 1), get_size(m, 2), get_size(o, 3)
    local first = take(self, n)
    if count <= 1 then
        return first
    end
    local second = take(self, m)
    if count == 2 then
        return first, second
    end
    return first, second, take(self, o)
end

---Takes bytes off the front, as one string for each length; all without one.
---@param ... bufpool.Integer?
---@return string ...
function buffer.get(self, ...)
    live(self, "get")
    local count = select("#", ...)
    if count <= 3 then
        return get_few(self, count, ...)
    end
    for k = 1, count do
        get_size((select(k, ...)), k)
    end
    return take_each(self, ...)
end

---Takes n bytes off the front, or all when there are fewer.
---@param n bufpool.Integer
---@return bufpool.Buffer
function buffer.skip(self, n)
    local b, epoch = live(self, "skip")
    if consume(b, epoch, size(n, "skip", 1)) == ESTALE then
        return buffer.skip(self, n)
    end
    return self
end

---Empties the buffer and keeps its memory.
---@return bufpool.Buffer
function buffer.reset(self)
    local b, epoch = live(self, "reset")
    if consume(b, epoch, tonumber(b.len)) == ESTALE then
        return buffer.reset(self)
    end
    return self
end

---A pointer to the bytes, for reading and writing, and their number.
---@return ffi.cdata* at
---@return integer len
function buffer.ref(self)
    local b, epoch = live(self, "ref")
    local at, len = b.at, tonumber(b.len)
    local mark = max(tonumber(b.mark), len)
    if b.epoch ~= epoch then
        return buffer.ref(self)
    end
    b.raw, b.mark, b.epoch = 1, mark, epoch + 1
    return at, len
end

return buffer
