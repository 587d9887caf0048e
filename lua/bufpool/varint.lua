-- Varints: integers that take as many bytes as they need. src/lua/varint.h
-- tells what they look like.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"
local space = require "bufpool.space"
local typed = require "bufpool.typed"

local floor, format = math.floor, string.format
local select, tonumber, type = select, tonumber, type
local raise, bad_argument = check.raise, check.bad_argument
local storable = check.storable
local live, look, room = object.live, object.look, space.room
local put_each = typed.put_each
local varint_size, put_varint = calls.varint_size, calls.put_varint
local get_varint, peek_varint = calls.get_varint, calls.peek_varint
local varint_length = calls.varint_length

local constants = core.constants
local ESTALE, ENODATA, EOVERFLOW = constants.ESTALE, constants.ENODATA,
    constants.EOVERFLOW
local ZIGZAG, WIDE = constants.VARINT_ZIGZAG, constants.VARINT_WIDE
local MOST, FAILED = constants.VARINT_NUMBER, constants.VARINT_FAILED
local int64 = ffi.typeof("int64_t")

-- An integer to put, from `least` on if it is a number. A 64-bit integer of C
-- stands for its bits.
local function integer(v, name, arg, least)
    if type(v) ~= "number" then
        return (storable(v, name, arg))
    elseif not (v >= least and v <= MOST and floor(v) == v) then
        bad_argument(arg, name, format("integer from %s to 2^53 expected, "
            .. "got %.14g", least == 0 and "0" or "-2^53", v))
    end
    return v
end

-- Raises why `len` bytes do not begin with an integer for `name`.
local function raise_failure(errno, name, len)
    if errno == ENODATA then
        raise(format("too few bytes for '%s' (length %.14g)", name, len))
    elseif errno == EOVERFLOW then
        raise(format("more than 64 bits for '%s'", name))
    end
    raise(format("more than 2^53 for '%s' (use '%s64')", name, name))
end

-- For a v of get_varint that is no integer: begins the method `get` anew, or
-- raises what is wrong.
local function failed(get, self, name, v)
    local errno = v / FAILED
    if errno == ESTALE then
        return get(self)
    end
    raise_failure(errno, name, tonumber(live(self, name).len))
end

-- The integer of a form at position i of an object, and how many bytes it has;
-- or nil and an errno negated. C looks at the position.
local function at(x, i, form)
    local _, o, epoch = look(x, "varint")
    local v = peek_varint(o, epoch, i - 1, form)
    local n = varint_length(o, epoch, i - 1, form)
    if n == -ESTALE then
        return at(x, i, form)
    elseif n < 0 then
        return nil, n
    elseif form == ZIGZAG + WIDE then
        return int64(v), n
    elseif form == WIDE then
        return v, n
    end
    return tonumber(int64(v)), n
end

-- `forms` has the form that each method reads.
local varint, forms = {}, {}

-- Three methods for a form; the numbers of the form are from `least` on.
local function define(kind, form, least)
    local put_name, get_name = "put_" .. kind, "get_" .. kind
    local wide_name, wide_form = get_name .. "64", form + WIDE

    local function size_of(v, name, arg)
        return varint_size(integer(v, name, arg, least), form)
    end

    local function put_one(self, v)
        v = integer(v, put_name, 1, least)
        local b, epoch = live(self, put_name)
        if put_varint(b, epoch, v, form) ~= 0 then
            room(self, varint_size(v, form), put_name)
            return put_one(self, v)
        end
        return self
    end

    -- Two functions, as in typed.lua.
    local function put(self, ...)
        if select("#", ...) ~= 1 then
            return put_each(put_one, self, size_of, put_name, ...)
        end
        return (put_one(self, (...)))
    end

    local function get(self)
        local b, epoch = live(self, get_name)
        local v = get_varint(b, epoch, form, 0)
        if v > MOST then
            return failed(get, self, get_name, v)
        end
        return v
    end

    local function get_wide(self)
        local b, epoch = live(self, wide_name)
        local v = peek_varint(b, epoch, 0, wide_form)
        local n = get_varint(b, epoch, wide_form, v)
        if n > MOST then
            return failed(get_wide, self, wide_name, n)
        elseif form == ZIGZAG then
            return int64(v)
        end
        return v
    end

    varint[put_name], varint[get_name], varint[wide_name] = put, get, get_wide
    forms[get_name], forms[wide_name] = form, wide_form
end

define("varint", 0, 0)
define("zigzag", ZIGZAG, -MOST)

return { methods = varint, forms = forms, at = at, raise = raise_failure }
