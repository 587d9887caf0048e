-- Argument checks, and errors at the line of whoever called bufpool.

local ffi = require "ffi"
local tobit = require("bit").tobit

local error, pairs, pcall, tonumber = error, pairs, pcall, tonumber
local tostring, type = tostring, type
local plain_getmetatable = getmetatable
-- Not methods of strings, which a program may take away.
local format, gsub, sub = string.format, string.gsub, string.sub
local ceil, floor = math.ceil, math.floor
local istype = ffi.istype

-- Some programs give the global `debug` another meaning, and some remove the
-- library. Without it errors bear no position.
local found, debug = pcall(require, "debug")
local library = found and type(debug) == "table" and debug or {}
local getinfo, getmetatable = library.getinfo, library.getmetatable

local check = { debug = library }

-- Whether this VM is one of nginx's, worker threads included.
check.in_nginx = type(rawget(_G, "ngx")) == "table"

-- The names of all our files begin as this one's does. Errors are raised at the
-- first frame that is neither ours nor C's: tail calls and helpers would make a
-- count of levels wrong, and C functions (tostring, pcall) have no line.
local here = getinfo and getinfo(1, "S").source or "=bufpool/"
here = here:match("^(.*)check%.lua$") or here

check.here = here

-- The name of a chunk that a module makes, for errors at the caller's line.
function check.chunk(module)
    return here .. module .. ".lua"
end

-- The metatable of a table or userdata, also one that is protected.
check.metatable = getmetatable or function(x)
    local meta = plain_getmetatable(x)
    return type(meta) == "table" and meta or nil
end

-- Raises `message` at the line that called into bufpool.
function check.raise(message)
    if not getinfo then
        error(message, 0)
    end
    local level = 2
    local info = getinfo(level, "S")
    while info and (info.what == "C"
        or sub(info.source, 1, #here) == here) do
        level = level + 1
        info = getinfo(level, "S")
    end
    error(message, level)
end

local raise = check.raise

-- The text of somebody else's error, without the position in front of it.
function check.without_position(message)
    return (gsub(tostring(message), "^.-:%d+: ", ""))
end

local function passed(ok, ...)
    if not ok then
        raise(check.without_position((...)))
    end
    return ...
end

-- Calls somebody else's function, whose errors are raised at the caller's line.
function check.call(fn, ...)
    return passed(pcall(fn, ...))
end

-- No string has as many bytes: ffi.string raises, but LuaJIT may die of that
-- error on a trace, or raise it at no line.
check.TEXT_END = 0x7fffff00

function check.text_too_long()
    raise("string length overflow")
end

-- Raises what is wrong with argument number arg of `name`, self not counted.
function check.bad_argument(arg, name, what)
    raise(format("bad argument #%d to '%s' (%s)", arg, name, what))
end

local bad_argument = check.bad_argument

-- Whether an optional argument was left out. A null pointer equals nil.
function check.absent(v)
    return type(v) == "nil"
end

local absent = check.absent

local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

-- Sizes are below this.
local SIZE_END = 2 ^ 63
check.SIZE_END = SIZE_END

-- A 64-bit integer of C as a number. An integer below 2^63 that would round up
-- to 2^63 becomes the number below: it is still a size. nil for anything else.
function check.integer(v)
    if type(v) ~= "cdata" or not (istype(int64, v) or istype(uint64, v)) then
        return nil
    end
    local n = tonumber(v)
    if n == SIZE_END and v <= 0x7fffffffffffffffULL then
        n = SIZE_END - 1024
    end
    return n
end

-- A number, from a number or a 64-bit integer of C. Strings raise.
local function number(v, name, arg)
    if type(v) == "number" then
        return v
    end
    return check.integer(v) or bad_argument(arg, name,
        "number expected, got " .. type(v))
end

check.number = number

local function whole(v, name, arg)
    local n = number(v, name, arg)
    if n ~= floor(n) then
        bad_argument(arg, name, format("integer expected, got %.14g", n))
    end
    return n
end

-- A position as Lua's string library takes it: without its fraction.
local function truncated(v, name, arg)
    local n = number(v, name, arg)
    if n ~= n then
        bad_argument(arg, name, "integer expected, got nan")
    end
    return n >= 0 and floor(n) or ceil(n)
end

-- A size or a count.
function check.size(v, name, arg)
    local n = number(v, name, arg)
    if not (n >= 0 and n < SIZE_END and n == floor(n)) then
        bad_argument(arg, name, format("size expected, got %.14g", n))
    end
    return n
end

function check.out_of_range(i, len, name, arg)
    bad_argument(arg, name,
        format("position %.14g out of range, length %.14g", i, len))
end

-- A lone position, for `n` bytes that must fit from there on: 1 to len, or to
-- len + 1 when n is 0. Returns it counted from the start.
function check.position(v, len, n, name, arg)
    local given = whole(v, name, arg)
    local i = given < 0 and len + given + 1 or given
    if not (i >= 1 and i <= (n == 0 and len + 1 or len)) then
        check.out_of_range(given, len, name, arg)
    end
    if i + n - 1 > len then
        bad_argument(arg, name, format("%.14g bytes at position %.14g "
            .. "do not fit, length %.14g", n, given, len))
    end
    return i
end

-- Functions on hot paths do not end in tail calls: a trace holds fifteen tail
-- calls and then gives up.
local function clamp(i, j, len)
    if i < 0 then
        i = len + i + 1
    end
    if i < 1 then
        i = 1
    end
    if j < 0 then
        j = len + j + 1
    elseif j > len then
        j = len
    end
    return i, j
end

-- A range, clamped; empty when the second result is below the first.
function check.range(i, j, len, name, arg)
    i, j = clamp(absent(i) and 1 or whole(i, name, arg),
        absent(j) and -1 or whole(j, name, arg + 1), len)
    return i, j
end

-- As range, but fractions are cut off, as string.sub does, and nothing may be
-- absent.
function check.string_range(i, j, len, name, arg)
    i, j = clamp(truncated(i, name, arg), truncated(j, name, arg + 1), len)
    return i, j
end

-- Raises unless the table has at most these two keys. `where` is as the message
-- has it.
function check.keys(t, where, one, other)
    for key in pairs(t) do
        if key ~= one and key ~= other then
            raise(format("unknown key '%s' in %s (it has '%s' and '%s')",
                tostring(key), where, one, other))
        end
    end
end

-- Raises unless f can be called. Of cdata only the call itself can tell.
function check.callable(f, name, arg)
    local kind = type(f)
    local meta = (kind == "table" or kind == "userdata") and check.metatable(f)
    if kind ~= "function" and kind ~= "cdata"
        and not (meta and meta.__call ~= nil) then
        bad_argument(arg, name, "function expected, got " .. kind)
    end
end

-- A number of Lua's or a 64-bit integer of C, to be stored.
function check.storable(v, name, arg)
    if type(v) == "number" or check.integer(v) then
        return v
    end
    bad_argument(arg, name, "number expected, got " .. type(v))
end

local storable = check.storable

-- WRAPPING. What is stored of a number is its integer part modulo 2^n, and 0 of
-- NaN and infinities. The FFI does not do that: its conversions round, saturate
-- or give 0 or -2^31, by processor, by LuaJIT, and on trace otherwise than off.
-- bit.tobit is right for whole numbers below 2^51. Where tobit(v) == v, nothing
-- else has to be done, and for an integer of a loop a trace drops both.

-- For a number that tobit would not keep: one of which tobit keeps the right 32
-- bits.
function check.whole(v)
    v = v >= 0 and floor(v) or ceil(v)
    if v > -2 ^ 51 and v < 2 ^ 51 then
        return v
    end
    v = v % 2 ^ 32
    return v == v and v or 0
end

local whole_number = check.whole

-- As whole, for the 64 bits of an int64_t.
function check.whole64(v)
    if v >= -2 ^ 63 and v < 2 ^ 63 then
        return v
    end
    -- From 2^63 on every number is whole.
    v = v % 2 ^ 64
    return v >= 2 ^ 63 and v - 2 ^ 64 or v == v and v or 0
end

-- The 32 bits that are stored of v.
function check.word(v, name, arg)
    v = storable(v, name, arg)
    if type(v) == "number" and tobit(v) ~= v then
        v = whole_number(v)
    end
    return (tobit(v))
end

return check
