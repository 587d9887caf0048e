-- pack and unpack, with the format letters of Lua 5.3's string.pack.
--
-- What differs: integers wider than four bytes are int64_t or uint64_t, a data
-- argument may be any that bufpool takes, and "z" needs its zero. Alignment
-- counts from position 1, in both.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"

local copy, ffi_string = ffi.copy, ffi.string
local floor, max = math.floor, math.max
local select, tonumber, tostring, type = select, tonumber, tostring, type
local bad_argument, position = check.bad_argument, check.position
local data, live, room, view = core.data, core.live, core.room, core.view
local readers, buffer = core.readers, core.buffer_methods
local band = require("bit").band

local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

-- Numbers change their type in here. Between the store and the load that it is
-- for, nothing may allocate: a finalizer may pack, too.
---@type any
local cell = ffi.new("union { uint64_t u; int64_t i; float f; double d; }")

-- The formats -----------------------------------------------------------------

local LARGEST, LARGEST_ALIGN, FORMATS = 16, 8, 256

local SIZES = { b = 1, h = 2, i = 4, l = ffi.sizeof("long"), j = 8,
    t = ffi.sizeof("size_t") }
local FLOATS = { f = 4, d = 8, n = 8 }

local function bad_format(arg, name, what, ...)
    bad_argument(arg, name, what:format(...))
end

-- The number at p of a format, and where the format goes on.
local function digits(fmt, p, default)
    local text = fmt:match("^%d+", p)
    if not text then
        return default, p
    end
    return tonumber(text), p + #text
end

local function sized(fmt, p, default, name)
    local n
    n, p = digits(fmt, p, default)
    if n < 1 or n > LARGEST then
        bad_format(2, name, "integral size (%.14g) out of limits [1,%d]", n,
            LARGEST)
    end
    return n, p
end

-- The option at p, its size, and where the format goes on. `state` is what
-- options before it have set.
local function option(fmt, p, state, name)
    local c = fmt:sub(p, p)
    local lower = c:lower()
    local size
    p = p + 1
    if c == "i" or c == "I" then
        size, p = sized(fmt, p, SIZES.i, name)
        return c == "i" and "int" or "uint", size, p
    elseif c == "T" or SIZES[lower] and c ~= "t" then
        return c == lower and "int" or "uint", SIZES[lower], p
    elseif FLOATS[c] then
        return "float", FLOATS[c], p
    elseif c == "s" then
        size, p = sized(fmt, p, SIZES.t, name)
        return "string", size, p
    elseif c == "c" then
        size, p = digits(fmt, p)
        if not size then
            bad_format(2, name, "missing size for format option 'c'")
        end
        return "chars", size, p
    elseif c == "z" then
        return "zero", 0, p
    elseif c == "x" then
        return "padding", 1, p
    elseif c == "X" then
        return "align", 0, p
    elseif c == "<" or c == ">" or c == "=" then
        state.little = c == "<" or c == "=" and ffi.abi("le")
    elseif c == "!" then
        state.most, p = sized(fmt, p, LARGEST_ALIGN, name)
    elseif c ~= " " then
        bad_format(2, name, "invalid format option '%s'", c)
    end
    return "nothing", 0, p
end

local function parse(fmt, name)
    local items, p = {}, 1
    local state = { little = ffi.abi("le"), most = 1 }
    while p <= #fmt do
        local kind, size, next_p = option(fmt, p, state, name)
        local align = size
        if kind == "align" then
            local other
            if next_p <= #fmt then
                other, align, next_p = option(fmt, next_p, state, name)
            end
            if align == 0 or other == "chars" then
                bad_format(2, name, "invalid next option for option 'X'")
            end
        elseif kind == "chars" then
            align = 1
        end
        align = math.min(max(align, 1), state.most)
        if band(align, align - 1) ~= 0 then
            bad_format(2, name, "format asks for alignment not power of 2")
        end
        if kind ~= "nothing" then
            items[#items + 1] = { kind = kind, size = size, align = align,
                little = state.little }
        end
        p = next_p
    end
    return items
end

-- Few programs have more than a handful; for those that make them up, the old
-- ones are forgotten.
local formats, count = {}, 0

local function items_of(fmt, name)
    if type(fmt) ~= "string" then
        bad_argument(2, name, "string expected, got " .. type(fmt))
    end
    local items = formats[fmt]
    if not items then
        items = parse(fmt, name)
        if count >= FORMATS then
            formats, count = {}, 0
        end
        formats[fmt], count = items, count + 1
    end
    return items
end

-- Bytes from `at` on, counted from 0, up to the next multiple.
local function gap(at, align)
    return -at % align
end

-- pack ------------------------------------------------------------------------

-- The 64 bits of an integer, and whether it is below zero.
local function integer(v, arg)
    if type(v) == "number" then
        if v ~= floor(v) or not (v >= -2 ^ 63 and v < 2 ^ 64) then
            bad_argument(arg, "pack",
                "number has no integer representation")
        elseif v < 2 ^ 63 then
            return int64(v), v < 0
        end
        return uint64(v), false
    elseif not check.integer(v) then
        bad_argument(arg, "pack", "number expected, got " .. type(v))
    end
    return v, ffi.istype(int64, v) and v < 0
end

local function integer_text(item, v, arg)
    local bits, negative = integer(v, arg)
    local size, signed = item.size, item.kind == "int"
    bits = uint64(bits)
    -- As far as unsigned numbers go, negative ones come after all others.
    local limit = size < 8 and 2ULL ^ (8 * size - (signed and 1 or 0))
        or signed and 2ULL ^ 63
    if limit and signed and negative and -bits > limit
        or limit and bits >= limit and not (signed and negative) then
        bad_argument(arg, "pack",
            signed and "integer overflow" or "unsigned overflow")
    end
    cell.u = bits
    local text = ffi_string(cell, 8)
    if not ffi.abi("le") then
        text = text:reverse()
    end
    if size > 8 then
        text = text .. (signed and negative and "\255" or "\0"):rep(size - 8)
    else
        text = text:sub(1, size)
    end
    return item.little and text or text:reverse()
end

local function float_text(item, v, arg)
    check.byte(v, "pack", arg)
    local text
    if item.size == 4 then
        cell.f = v
        text = ffi_string(cell, 4)
    else
        cell.d = v
        text = ffi_string(cell, 8)
    end
    return item.little == ffi.abi("le") and text or text:reverse()
end

local function data_text(item, v, arg)
    data(v, "pack", arg)
    local text = tostring(v)
    if item.kind == "zero" then
        if text:find("\0", 1, true) then
            bad_argument(arg, "pack", "string contains zeros")
        end
        return text .. "\0"
    elseif item.kind == "chars" then
        if #text > item.size then
            bad_argument(arg, "pack", "string longer than given size")
        end
        return text .. ("\0"):rep(item.size - #text)
    elseif item.size < 8 and #text >= 256 ^ item.size then
        bad_argument(arg, "pack",
            "string length does not fit in given size")
    end
    return integer_text({ kind = "uint", size = item.size,
        little = item.little }, #text, arg) .. text
end

local function nothing()
    return ""
end

local texts = {
    int = integer_text, uint = integer_text, float = float_text,
    string = data_text, zero = data_text, chars = data_text,
    padding = function() return "\0" end, align = nothing,
}

---@class (partial) bufpool.Buffer
---Writes values by a format of Lua 5.3's string.pack from position i on, over
---what is there, and past the end, where the buffer grows. Alignment counts
---from position 1.
---@field pack fun(self, i: bufpool.Integer, fmt: string, ...: any):
---bufpool.Buffer

function buffer.pack(self, i, fmt, ...)
    local len = tonumber(live(self, "pack").len)
    local first = position(i, len, 0, "pack", 1)
    local pieces, at, n, taken = {}, first - 1, 0, 0
    for _, item in ipairs(items_of(fmt, "pack")) do
        local v
        if item.kind ~= "padding" and item.kind ~= "align" then
            taken = taken + 1
            v = select(taken, ...)
        end
        local hole = gap(at, item.align)
        local text = texts[item.kind](item, v, taken + 2)
        n = n + 1
        pieces[n] = ("\0"):rep(hole) .. text
        at = at + #pieces[n]
    end
    len = tonumber(live(self, "pack").len)
    if at > len then
        room(self, at - len, "pack")
        buffer.resize(self, at)
    end
    return buffer.write(self, first, table.concat(pieces))
end

-- unpack ----------------------------------------------------------------------

local function decode_integer(item, text)
    local size = item.size
    if not item.little then
        text = text:reverse()
    end
    local negative = item.kind == "int" and text:byte(size) >= 128
    local fill = negative and "\255" or "\0"
    if size > 8 then
        if text:sub(9) ~= fill:rep(size - 8)
            or item.kind == "int" and (text:byte(8) >= 128) ~= negative then
            bad_argument(2, "unpack",
                ("%d-byte integer does not fit into 64 bits"):format(size))
        end
        text = text:sub(1, 8)
    else
        text = text .. fill:rep(8 - size)
    end
    if not ffi.abi("le") then
        text = text:reverse()
    end
    copy(cell, text, 8)
    if item.kind == "int" then
        return size > 4 and cell.i or tonumber(cell.i)
    end
    return size > 4 and cell.u or tonumber(cell.u)
end

-- Typed access knows which NaN are none.
local function decode_float(self, item, at)
    return readers[(item.size == 4 and "f32" or "f64")
        .. (item.little and "le" or "be")](self, at + 1)
end

local function too_short()
    bad_argument(2, "unpack", "data too short")
end

local function bytes(self, at, n)
    return readers.sub(self, at + 1, at + n)
end

-- The value of an item at `at`, counted from 0, and where it ends.
local function decode(self, item, at, len)
    local kind, size = item.kind, item.size
    if kind == "float" then
        return decode_float(self, item, at), at + size
    elseif kind == "chars" then
        return bytes(self, at, size), at + size
    elseif kind == "zero" then
        local zero = readers.find(self, "\0", at + 1, true)
        if not zero then
            bad_argument(2, "unpack", "unfinished string for format 'z'")
        end
        return bytes(self, at, zero - 1 - at), zero
    end
    local v = decode_integer(item, bytes(self, at, size))
    if kind == "string" then
        v, at = tonumber(v), at + size
        if v > len - at then
            too_short()
        end
        return bytes(self, at, v), at + v
    end
    return v, at + size
end

-- The values from the k-th item on, and the position after them.
local function unpack_from(self, items, k, at)
    local item = items[k]
    if not item then
        return at + 1
    end
    local _, len = view(self, "unpack")
    at = at + gap(at, item.align)
    if item.size > len - at then
        too_short()
    elseif item.kind == "padding" or item.kind == "align" then
        return unpack_from(self, items, k + 1, at + item.size)
    end
    local v
    v, at = decode(self, item, at, len)
    return v, unpack_from(self, items, k + 1, at)
end

---@class (partial) bufpool.Reader
---Reads values by a format of Lua 5.3's string.unpack from position i on, and
---gives the position after them last. Integers of up to four bytes are numbers,
---wider ones int64_t or uint64_t.
---@field unpack fun(self, i: bufpool.Integer, fmt: string): ...any

function readers.unpack(self, i, fmt)
    local _, len = view(self, "unpack")
    local first = position(i, len, 0, "unpack", 1)
    return unpack_from(self, items_of(fmt, "unpack"), 1, first - 1)
end

return true
