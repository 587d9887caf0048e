-- Buffers: writing in place, and the vocabulary of LuaJIT's string.buffer.
--
-- Each method that writes first works out everything: where, and how much. Then
-- a function of C compares the epoch (see object.lua), raises the mark, and
-- writes. Only one byte below the mark, and one string at the end (put.lua),
-- are written in Lua. Bytes at and past the mark are zero and are not wiped on
-- release. Bytes are touched only as bytes or by calls, because LuaJIT assumes
-- that accesses of different types never meet.

local bit = require "bit"
local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local object = require "bufpool.object"
local put = require "bufpool.put"
local space = require "bufpool.space"

local cast, ffi_string = ffi.cast, ffi.string
local floor, max, min = math.floor, math.max, math.min
local HUGE = math.huge
local error, pcall, select, tonumber = error, pcall, select, tonumber
local tostring, unpack = tostring, unpack
local string_find, string_format = string.find, string.format
local string_gmatch, string_sub = string.gmatch, string.sub
local string_gsub, string_match = string.gsub, string.match
local type = type
local band, bor, lshift, tobit = bit.band, bit.bor, bit.lshift, bit.tobit
local raise, bad_argument = check.raise, check.bad_argument
local size, position, range = check.size, check.position, check.range
local absent, word = check.absent, check.word
local TEXT_END, text_too_long = check.TEXT_END, check.text_too_long
local live, data = object.live, object.data
local is_handle, same = object.is_handle, object.same
local shortage = failure.shortage
local grow, room, charged = space.grow, space.room, space.charged
local collect_or_raise = space.collect_or_raise
local append, assign, consume = calls.append, calls.assign, calls.consume
local fill, overwrite, store = calls.fill, calls.overwrite, calls.store
local append_range, xor_range = calls.append_range, calls.xor_range
local take_bytes, split = calls.take, core.split
local call_prepend = calls.prepend
local commit, expose, grant = calls.commit, calls.expose, calls.grant

local bytes_t = ffi.typeof("const uint8_t *")
local new_pointer = ffi.typeof("const void *")
local new_bytes = ffi.typeof("uint8_t[?]")

local constants = core.constants
local EFAULT, ESTALE, INT_MAX = constants.EFAULT, constants.ESTALE,
    constants.INT_MAX
local ITSELF = "a buffer cannot be put into itself"

local buffer = {}

function buffer.capacity(self)
    local b, epoch = live(self, "capacity")
    local capacity = tonumber(b.capacity)
    if b.epoch ~= epoch then
        return buffer.capacity(self)
    end
    return capacity
end

-- In place ------------------------------------------------------------------

local function stored(v, name, arg)
    return (band(word(v, name, arg), 255))
end

-- Up to four bytes, as one number.
local function set_few(self, i, n, v, w, x, y)
    local b, epoch = live(self, "setbyte")
    local from = position(i, tonumber(b.len), n, "setbyte", 1)
    local bytes = stored(v, "setbyte", 2)
    if n >= 2 then
        bytes = bor(bytes, lshift(stored(w, "setbyte", 3), 8))
    end
    if n >= 3 then
        bytes = bor(bytes, lshift(stored(x, "setbyte", 4), 16))
    end
    if n == 4 then
        bytes = bor(bytes, lshift(stored(y, "setbyte", 5), 24))
    end
    if store(b, epoch, from - 1, bytes, n) == ESTALE then
        return set_few(self, i, n, v, w, x, y)
    end
    return self
end

local function set_bytes(self, i, n, ...)
    if n >= 1 and n <= 4 then
        return set_few(self, i, n, ...)
    end
    live(self, "setbyte")
    local bytes, values = new_bytes(n), { ... }
    for k = 1, n do
        bytes[k - 1] = stored(values[k], "setbyte", k + 1)
    end
    local b, epoch = live(self, "setbyte")
    local from = position(i, tonumber(b.len), n, "setbyte", 1)
    if overwrite(b, epoch, from - 1, bytes, n, nil, 0) == ESTALE then
        return set_bytes(self, i, n, ...)
    end
    return self
end

local function set_one(self, i, v)
    local b, epoch = live(self, "setbyte")
    local at = b.at
    -- The plain case is inside the contents and below the mark: one comparison
    -- in a loop.
    local stop = tobit(min(tonumber(b.len), tonumber(b.mark), INT_MAX))
    if type(i) == "number" and type(v) == "number"
        and i >= 1 and i <= stop and floor(i) == i and tobit(v) == v then
        local p = at - 1 + i
        if b.epoch ~= epoch then
            return set_one(self, i, v)
        end
        p[0] = v
        return self
    end
    return set_bytes(self, i, 1, v)
end

-- In two functions for the reason that put has in typed.lua.
function buffer.setbyte(self, i, ...)
    local n = select("#", ...)
    if n == 1 then
        return (set_one(self, i, (...)))
    end
    return set_bytes(self, i, n, ...)
end

function buffer.write(self, i, v)
    local b, epoch = live(self, "write")
    local text, n, p, p_epoch = data(v, "write", 2)
    local len, from = tonumber(b.len), i
    if type(i) ~= "number" or not (i >= 1 and i + n - 1 <= len)
        or floor(i) ~= i then
        from = position(i, len, n, "write", 1)
    end
    if overwrite(b, epoch, from - 1, text, n, p, p_epoch or 0) == ESTALE then
        return buffer.write(self, i, v)
    end
    return self
end

-- The text of data, for a call by FFI that adds to a pointer.
local function pointer(text)
    if type(text) == "string" then
        return (cast(bytes_t, text))
    end
    return text
end

function buffer.copy(self, i, source, from, to)
    local b, epoch = live(self, "copy")
    local text, n, p, p_epoch = data(source, "copy", 2)
    local first, last = range(from, to, n, "copy", 3)
    n = max(last - first + 1, 0)
    local start = position(i, tonumber(b.len), n, "copy", 1)
    if overwrite(b, epoch, start - 1, pointer(text) + (first - 1), n, p,
        p_epoch or 0) == ESTALE then
        return buffer.copy(self, i, source, from, to)
    end
    return self
end

function buffer.fill(self, v, i, j)
    local b, epoch = live(self, "fill")
    local byte = stored(v, "fill", 1)
    local from, to = range(i, j, tonumber(b.len), "fill", 2)
    if fill(b, epoch, from - 1, max(to - from + 1, 0), byte) == ESTALE then
        return buffer.fill(self, v, i, j)
    end
    return self
end

-- The key is repeated without end, so `at` may be any position in it.
function buffer.xor(self, i, j, key, at)
    local b, epoch = live(self, "xor")
    if same(self, key) then
        bad_argument(3, "xor", "a buffer cannot be its own key")
    end
    local text, n, p, p_epoch = data(key, "xor", 3)
    local from, to = range(i, j, tonumber(b.len), "xor", 1)
    local first = absent(at) and 1 or size(at, "xor", 4)
    if n == 0 then
        bad_argument(3, "xor", "the key is empty")
    elseif first == 0 then
        bad_argument(4, "xor", "position 0 is before the key")
    elseif first >= 2 ^ 53 then
        bad_argument(4, "xor", "position above 2^53 - 1")
    elseif xor_range(b, epoch, from - 1, max(to - from + 1, 0), p,
        p_epoch or 0, text, n, first) == ESTALE then
        return buffer.xor(self, i, j, key, at)
    end
    return self
end

-- Functions of calls that change a buffer fail with ESTALE when its epoch is no
-- longer the given one. The method then begins anew.

function buffer.wipe(self)
    local b, epoch = live(self, "wipe")
    if calls.wipe(b, epoch) == ESTALE then
        return buffer.wipe(self)
    end
    return self
end

function buffer.free(self)
    local b, epoch = live(self, "free")
    if calls.free(b, epoch, charged(self)) == ESTALE then
        return buffer.free(self)
    end
    return self
end

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
        local arg, what = string_match(message,
            "^bad argument #(%d+) to '[^']*' %((.*)%)$")
        if arg then
            bad_argument(tonumber(arg), "putf", what)
        elseif string_find(message, "^invalid option '[^']*' to 'format'$") then
            raise((string_gsub(message, "'format'$", "'putf'")))
        elseif message == ITSELF then
            raise(message)
        end
    end
    error(message, 0)
end

buffer.put = put

-- Whether none of the n values can have a __tostring. Eight at a time: a trace
-- holds only a few calls of a function by itself.
local function is_simple(v)
    local kind = type(v)
    return kind == "string" or kind == "number" or kind == "nil"
        or kind == "boolean"
end

local function are_simple(n, s, t, u, v, w, x, y, z, ...)
    return is_simple(s) and is_simple(t) and is_simple(u) and is_simple(v)
        and is_simple(w) and is_simple(x) and is_simple(y) and is_simple(z)
        and (n <= 8 or are_simple(n - 8, ...))
end

-- string.format with a text in place of each object that %s or %q shows. Where
-- string.format calls a __tostring itself, LuaJITs before 2023 lose what they
-- have formatted if the collector runs, or crash. Errors come in the order in
-- which string.format would raise them: what stands before an object is tried
-- before its __tostring is called. The buffer that is written to may be an
-- argument that the format does not use.
local function format_objects(self, fmt, n, ...)
    local values, tried, k = { ... }, true, 0
    for at, option in string_gmatch(fmt, "()%%[-+ #0-9.]*(.)") do
        local shows = option == "s" or option == "q"
        k = option == "%" and k or k + 1
        if shows and k <= n and not is_simple(values[k]) then
            local ok, text
            if not tried then
                ok, text = pcall(string_format, string_sub(fmt, 1, at - 1),
                    unpack(values, 1, n))
                if not ok then
                    return ok, text
                end
            end
            if same(self, values[k]) then
                return false, ITSELF
            end
            ok, text = pcall(tostring, values[k])
            if not ok then
                return ok, text
            end
            values[k] = text
        end
        tried = shows and tried
    end
    return pcall(string_format, fmt, unpack(values, 1, n))
end

function buffer.putf(self, fmt, ...)
    live(self, "putf")
    local n = select("#", ...)
    local ok, text
    if (n > 16 or not are_simple(n, ...)) and type(fmt) == "string" then
        ok, text = format_objects(self, fmt, n, ...)
    else
        ok, text = pcall(string_format, fmt, ...)
    end
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
        bad_argument(1, name, "pointer expected, got " .. type(v))
    elseif at == nil and n > 0 then
        bad_argument(1, name, "a null pointer has no bytes")
    end
    return at
end

-- After a function of C that needs room for n bytes in all has failed: whether
-- the collector ran for it. Raises unless it is worth another attempt.
local function again(b, errno, n, name, collected)
    if errno == EFAULT then
        bad_argument(2, name, "so many bytes from this pointer go past the "
            .. "end of the buffer's memory")
    elseif errno == ESTALE then
        return collected
    end
    collect_or_raise(b.number, errno, n, name, collected)
    return true
end

local function append_from(self, from, n, collected)
    local b, epoch = live(self, "putcdata")
    local errno = append(b, epoch, charged(self), from, n, nil, 0)
    if errno == 0 then
        return self
    end
    return append_from(self, from, n,
        again(b, errno, tonumber(b.len) + n, "putcdata", collected))
end

function buffer.putcdata(self, v, n)
    live(self, "putcdata")
    local count = size(n, "putcdata", 2)
    local from = to_pointer(v, count, "putcdata")
    return (append_from(self, from, count))
end

-- Of the buffer itself, a range that goes past the end reads what it appends.
local function own_range(i, j, len)
    local from, to = range(i, j, len, "put_range", 2)
    local past = not absent(j) and j > len
    local last = past and size(j, "put_range", 3) or to
    if from > last then
        return 1, 0
    elseif from > len then
        check.out_of_range(from, len, "put_range", 2)
    end
    return from, last - from + 1
end

local function put_range(self, x, i, j, collected)
    local b, epoch = live(self, "put_range")
    local len = tonumber(b.len)
    local n, errno
    if same(self, x) then
        local from
        from, n = own_range(i, j, len)
        errno = append_range(b, epoch, charged(self), from - 1, n)
    else
        local text, most, p, p_epoch = data(x, "put_range", 1)
        local from, to = range(i, j, most, "put_range", 2)
        n = max(to - from + 1, 0)
        errno = append(b, epoch, charged(self), pointer(text) + (from - 1), n,
            p, p_epoch or 0)
    end
    if errno == 0 then
        return self
    end
    return put_range(self, x, i, j,
        again(b, errno, len + n, "put_range", collected))
end

function buffer.put_range(self, x, i, j)
    return (put_range(self, x, i, j))
end

local function prepend(self, x, collected)
    local b, epoch = live(self, "prepend")
    local text, n, p, p_epoch = data(x, "prepend", 1)
    if p == b then
        bad_argument(1, "prepend", ITSELF)
    end
    local errno = call_prepend(b, epoch, charged(self), text, n, p,
        p_epoch or 0)
    if errno == 0 then
        return self
    end
    return prepend(self, x,
        again(b, errno, tonumber(b.len) + n, "prepend", collected))
end

function buffer.prepend(self, x)
    return (prepend(self, x))
end

-- Moves the first n bytes of another buffer; all unless n is given.
local function take(self, from, n, collected)
    local b, epoch = live(self, "take")
    local source, source_epoch = live(from, "take", 1)
    if b == source then
        bad_argument(1, "take", "a buffer cannot take from itself")
    end
    local most = absent(n) and HUGE or size(n, "take", 2)
    local count = min(most, tonumber(source.len))
    local errno = take_bytes(b, epoch, charged(self), source, source_epoch,
        charged(from), count)
    if errno == 0 then
        return self
    end
    return take(self, from, n,
        again(b, errno, tonumber(b.len) + count, "take", collected))
end

function buffer.take(self, from, n)
    return (take(self, from, n))
end

-- A function of C makes the part, because it makes an object. It finds a buffer
-- by itself, and a handle by what is behind it.
local function split_to(self, n, collected)
    local part, errno
    if type(self) == "userdata" then
        part, errno = split(self, n)
    else
        local b, epoch = live(self, "split_to")
        part, errno = split(b.number, n, epoch)
    end
    if part then
        return part
    elseif errno == ESTALE then
        return split_to(self, n, collected)
    end
    local b = live(self, "split_to")
    n = min(size(n, "split_to", 1), tonumber(b.len))
    if not collected and core.reclaim(b.number, n) then
        return split_to(self, n, true)
    end
    return nil, shortage(errno, n)
end

function buffer.split_to(self, n)
    return split_to(self, n)
end

-- Replaces the contents by what a pointer or data holds.
local function set_to(self, v, n, collected)
    local text, count, p, p_epoch
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
    local errno = assign(b, epoch, charged(self), text, count, p,
        p_epoch or 0)
    if errno == 0 then
        return self
    end
    return set_to(self, v, n, again(b, errno, count, "set", collected))
end

function buffer.set(self, v, n)
    live(self, "set")
    return (set_to(self, v, n))
end

function buffer.reserve(self, n)
    local count = size(n, "reserve", 1)
    local b, epoch, at, stop = room(self, count, "reserve")
    if grant(b, epoch, stop) == ESTALE then
        return buffer.reserve(self, n)
    end
    return at, count
end

function buffer.commit(self, n)
    local b, epoch = live(self, "commit")
    local count = size(n, "commit", 1)
    local len = tonumber(b.len)
    local stop = b.granted == 1 and max(tonumber(b.grant), len) or len
    local fits = len + count <= stop
    if commit(b, epoch, fits and count or 0) == ESTALE then
        return buffer.commit(self, n)
    elseif not fits then
        bad_argument(1, "commit", string_format(
            "%.14g bytes exceed the %.14g reserved", count, stop - len))
    end
    return self
end

-- Without a length it is all that is left.
local function get_size(n, arg)
    return type(n) ~= "nil" and size(n, "get", arg) or HUGE
end

-- Up to three lengths, without a loop, which does not fit into the trace of a
-- program's own. Nothing is taken before all has been read.
local function get_few(self, count, n, m, o)
    local v_most, w_most, x_most = get_size(n, 1), get_size(m, 2),
        get_size(o, 3)
    local b, epoch = live(self, "get")
    local at, len, read = b.at, tonumber(b.len), ffi_string
    local v_len = min(v_most, len)
    local w_len = count >= 2 and min(w_most, len - v_len) or 0
    local x_len = count >= 3 and min(x_most, len - v_len - w_len) or 0
    local w_at, x_at = at + v_len, at + (v_len + w_len)
    local v, w, x
    if max(v_len, w_len, x_len) >= TEXT_END then
        text_too_long()
    elseif b.epoch ~= epoch then
        return get_few(self, count, n, m, o)
    end
    v = read(at, v_len)
    if count >= 2 then
        if b.epoch ~= epoch then
            return get_few(self, count, n, m, o)
        end
        w = read(w_at, w_len)
    end
    if count >= 3 then
        if b.epoch ~= epoch then
            return get_few(self, count, n, m, o)
        end
        x = read(x_at, x_len)
    end
    if consume(b, epoch, v_len + w_len + x_len) == ESTALE then
        return get_few(self, count, n, m, o)
    elseif count <= 1 then
        return v
    elseif count == 2 then
        return v, w
    end
    return v, w, x
end

-- Any number of lengths.
local function get_many(self, count, ...)
    local lengths, texts, total = { ... }, {}, 0
    for k = 1, count do
        lengths[k] = get_size(lengths[k], k)
    end
    local b, epoch = live(self, "get")
    local len, at = tonumber(b.len), b.at
    for k = 1, count do
        local n, from = min(lengths[k], len - total), at + total
        total = total + n
        if n >= TEXT_END then
            text_too_long()
        elseif b.epoch ~= epoch then
            return get_many(self, count, ...)
        end
        local text = ffi_string(from, n)
        if b.epoch ~= epoch then
            return get_many(self, count, ...)
        end
        texts[k] = text
    end
    if not pcall(unpack, texts, 1, count) then
        raise(string_format("too many results of 'get' (%d)", count))
    elseif consume(b, epoch, total) == ESTALE then
        return get_many(self, count, ...)
    end
    return unpack(texts, 1, count)
end

function buffer.get(self, ...)
    live(self, "get")
    local count = select("#", ...)
    if count <= 3 then
        return get_few(self, count, ...)
    end
    return get_many(self, count, ...)
end

function buffer.skip(self, n)
    local b, epoch = live(self, "skip")
    if consume(b, epoch, size(n, "skip", 1)) == ESTALE then
        return buffer.skip(self, n)
    end
    return self
end

function buffer.reset(self)
    local b, epoch = live(self, "reset")
    if consume(b, epoch, tonumber(b.len)) == ESTALE then
        return buffer.reset(self)
    end
    return self
end

function buffer.ref(self)
    local b, epoch = live(self, "ref")
    local at, len = b.at, tonumber(b.len)
    if expose(b, epoch) == ESTALE then
        return buffer.ref(self)
    end
    return at, len
end

return buffer
