-- pack and unpack, with the format letters of Lua 5.3's string.pack.
--
-- What differs: integers wider than four bytes are int64_t or uint64_t, a data
-- argument may be any that bufpool takes, and "z" needs its zero. Alignment
-- counts from position 1 of the object, in pack and in unpack.
--
-- Each format becomes a function without loops, which a trace can hold, made of
-- calls to typed access, write and fill: they check the object and its bounds,
-- and keep the rules about widths and finalizers.

local ffi = require "ffi"
local bit = require "bit"
local clear = require "table.clear"
local check = require "bufpool.check"
local buffer = require "bufpool.buffer"
local calls = require "bufpool.calls"
local fastest = require "bufpool.fastest"
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local space = require "bufpool.space"
local typed = require "bufpool.typed"

local ffi_string = ffi.string
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local tonumber, type = tonumber, type
local bad_argument, position = check.bad_argument, check.position
local TEXT_END, text_too_long = check.TEXT_END, check.text_too_long
local data, live = object.data, object.live
local look, view = object.look, object.view
local grow, extend_to = space.grow, calls.extend
local find = fastest("find", reader.methods.find)
local object_text = fastest("tostring", reader.methods.tostring)
local string_find, format, gsub = string.find, string.format, string.gsub
local match, sub, lower_case = string.match, string.sub, string.lower
local assert, load, concat = assert, load, table.concat
local arshift, band = bit.arshift, bit.band

local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

-- The formats -----------------------------------------------------------------

-- The longest that Lua takes for a "c"; no sum of such ones is out of a size's
-- range.
local LARGEST, LARGEST_ALIGN, LONGEST = 16, 8, 2 ^ 31 - 9

local SIZES = { b = 1, h = 2, i = 4, l = ffi.sizeof("long"), j = 8,
    t = ffi.sizeof("size_t") }
local FLOATS = { f = 4, d = 8, n = 8 }

local function bad_format(arg, name, what, ...)
    bad_argument(arg, name, format(what, ...))
end

-- The number at p of a format, and where the format goes on.
local function digits(fmt, p, default)
    local text = match(fmt, "^%d+", p)
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
    local c = sub(fmt, p, p)
    local lower = lower_case(c)
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
        elseif size > LONGEST then
            bad_format(2, name, "size for format option 'c' too large")
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

-- What each kind of item does in the functions below, with its own names and
-- numbers put in. take: raises unless the value can be packed. span: how many
-- bytes from $p on. write: does not raise any more. read: unpacks from `at` on.
local NUMBER = {
    take = "$v = integer($v, $arg, $low, $stop)",
    span = "$size",
    write = "set.$number(self, $p, $v)",
    read = "local $v = get.$number(self, at)",
}
local codes = {
    int = NUMBER, uint = NUMBER,
    float = {
        take = "storable($v, 'pack', $arg)",
        span = NUMBER.span, write = NUMBER.write, read = NUMBER.read,
    },
    string = {
        take = "$v = text($v, $arg, $stop,\n"
            .. "    'string length does not fit in given size')",
        span = "$size + #$v",
        write = "set.$number(self, $p, #$v)\nwrite(self, $p + $size, $v)",
        read = "local $v = bytes(self, at + $size,\n"
            .. "    tonumber(get.$number(self, at)))",
    },
    chars = {
        take = "$v = text($v, $arg, $size + 1,\n"
            .. "    'string longer than given size')",
        span = "$size",
        write = "write(self, $p, $v)\nfill(self, 0, $p + #$v, $p + $size - 1)",
        read = "local $v = bytes(self, at, $size)",
    },
    zero = {
        take = "$v = zeroless($v, $arg)",
        span = "#$v + 1",
        write = "write(self, $p, $v)\nset.u8le(self, $p + #$v, 0)",
        read = "local $v = bytes(self, at, zero(self, at) - at)",
    },
    padding = { span = "1", write = "set.u8le(self, $p, 0)" },
    align = { span = "0" },
}

local function parse(fmt, name)
    local items, p, taken = {}, 1, 0
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
        align = min(max(align, 1), state.most)
        if band(align, align - 1) ~= 0 then
            bad_format(2, name, "format asks for alignment not power of 2")
        end
        if kind ~= "nothing" then
            local bits = 8 * size
            local signed, wide = kind == "int", bits >= 64
            if codes[kind].take then
                taken = taken + 1
            end
            items[#items + 1] = {
                kind = kind, size = size, align = align,
                v = "v" .. taken, arg = taken + 2,
                number = (signed and "i" or kind == "float" and "f" or "u")
                    .. bits .. (state.little and "le" or "be"),
                -- Wide unsigned ones may be negative.
                low = wide and "-2^63" or signed and "-2^" .. bits - 1 or "0",
                stop = "2^" .. (wide and 64 or bits) - (signed and 1 or 0),
            }
        end
        p = next_p
    end
    return items
end

-- Numbers of any size: those of typed access, and others, made of two.
local get, set = {}, {}

local function too_wide(size)
    bad_argument(2, "unpack",
        format("%d-byte integer does not fit into 64 bits", size))
end

local function define(sign, size, order)
    local half = size < 8 and 4 or 8
    local low_at = order == "le" and 0 or size - half
    local high_at = order == "le" and half or 0
    local low = (half == 4 and "u" or sign) .. 8 * half .. order
    local high = (half == 4 and sign or "i") .. 8 * (size - half) .. order
    local get_low, set_low = get[low], set[low]
    local get_high, set_high = get[high], set[high]
    if half == 4 then
        local one = (sign == "i" and int64 or uint64)(2 ^ 32)
        return function(self, at)
            return get_high(self, at + high_at) * one
                + get_low(self, at + low_at)
        end, function(self, at, v)
            v = int64(v)
            set_low(self, at + low_at, v)
            set_high(self, at + high_at, arshift(v, 32))
        end
    end
    -- What is above 64 bits only repeats the sign.
    local signed = sign == "i"
    return function(self, at)
        local v = get_low(self, at + low_at)
        if get_high(self, at + high_at) ~= (signed and v < 0 and -1 or 0) then
            too_wide(size)
        end
        return v
    end, function(self, at, v)
        set_low(self, at + low_at, v)
        set_high(self, at + high_at, signed and v < 0 and -1 or 0)
    end
end

for _, order in ipairs { "le", "be" } do
    for size = 1, LARGEST do
        for _, sign in ipairs { "u", "i", "f" } do
            local name = sign .. 8 * size .. order
            local own = size == 1 and sign .. "8" or name
            get[name] = typed.readers[own]
                and fastest(own, typed.readers[own])
            set[name] = typed.readers[own]
                and fastest("set_" .. own, typed.writers["set_" .. own])
            if not get[name] and sign ~= "f" then
                get[name], set[name] = define(sign, size, order)
            end
        end
    end
end

-- The first position from `at` on that is aligned. Where a sum uses one value
-- twice, LuaJIT looks at both of its origins; sixty-four of these in a row, and
-- it would not come to an end.
local function aligned(at, align)
    return ceil((at - 1) / align) * align + 1
end

-- pack ------------------------------------------------------------------------

-- An integer from `low` to below `stop`.
local function integer(v, arg, low, stop)
    local fits
    if type(v) == "number" then
        if not (v >= -2 ^ 63 and v < 2 ^ 64 and floor(v) == v) then
            bad_argument(arg, "pack", "number has no integer representation")
        end
        fits = v >= low and v < stop
    elseif not check.integer(v) then
        bad_argument(arg, "pack", "number expected, got " .. type(v))
    elseif ffi.istype(int64, v) then
        fits = low == -2 ^ 63 or v >= low and v < stop
    else
        fits = stop == 2 ^ 64 or v < stop
    end
    if not fits then
        bad_argument(arg, "pack",
            (low < 0 and "integer" or "unsigned") .. " overflow")
    end
    return v
end

-- A string of less than `stop` bytes.
local function text(v, arg, stop, what)
    if type(v) ~= "string" then
        local given = data(v, "pack", arg)
        v = type(v) == "number" and given or object_text(v)
    end
    if #v >= stop then
        bad_argument(arg, "pack", what)
    end
    return v
end

local function zeroless(v, arg)
    v = text(v, arg, 2 ^ 64)
    if string_find(v, "\0", 1, true) then
        bad_argument(arg, "pack", "string contains zeros")
    end
    return v
end

-- Length and mark up to `stop`, before the first byte is written.
local function extend(self, stop)
    local b = live(self, "pack")
    if stop > min(tonumber(b.len), tonumber(b.mark)) then
        grow(self, extend_to, stop, "pack")
    end
end

-- At most one tail call for each format: a trace takes fifteen of them, and the
-- program has its own.
local function pack_from(self, i)
    local b = live(self, "pack")
    local at = position(i, tonumber(b.len), 0, "pack", 1)
    return at
end

-- unpack ----------------------------------------------------------------------

local function too_short()
    bad_argument(2, "unpack", "data too short")
end

-- The n bytes from `at` on.
local function bytes(self, at, n)
    local from, len, o, epoch = view(self, "unpack")
    if at + n - 1 > len then
        too_short()
    elseif n >= TEXT_END then
        text_too_long()
    end
    local read = ffi_string
    from = from + (at - 1)
    if o.epoch ~= epoch then
        return bytes(self, at, n)
    end
    local v = read(from, n)
    if o.epoch ~= epoch then
        return bytes(self, at, n)
    end
    return v
end

-- Where the next zero is.
local function zero(self, at)
    local i = find(self, "\0", at, true)
    if not i then
        bad_argument(2, "unpack", "unfinished string for format 'z'")
    end
    return i
end

local function unpack_from(self, i)
    local len = look(self, "unpack")
    local at = position(i, len, 0, "unpack", 1)
    return at, len
end

-- The functions ---------------------------------------------------------------

-- A function has 200 locals, so items come in groups, each of which calls the
-- next. What all formats together may keep is limited by their number and
-- their length.
local GROUP, KEPT, WEIGHT = 64, 16384, 64

-- All values are looked at before anything is changed. Of more than one group,
-- each finds its own in a table.
local PACK = [[
local e, rest = ...
local aligned, storable, extend, fill, integer, set, start, text, write,
    zeroless = e.aligned, e.storable, e.extend, e.fill, e.integer, e.set,
    e.pack_from, e.text, e.write, e.zeroless
return function(self, at$params)
    $values
    $start
    $takes
    $rest
    $writes
    return self
end
]]

local UNPACK = [[
local e, rest = ...
local aligned, bytes, get, start, too_short, tonumber, zero =
    e.aligned, e.bytes, e.get, e.unpack_from, e.too_short, e.tonumber, e.zero
return function(self, at, len)
    $start
    $reads
    return $values$rest
end
]]

local environment = {
    aligned = aligned, storable = check.storable,
    bytes = fastest("bytes", bytes), extend = fastest("extend", extend),
    fill = buffer.fill, get = get, integer = integer,
    pack_from = fastest("pack_from", pack_from), set = set, text = text,
    tonumber = tonumber, too_short = too_short,
    unpack_from = fastest("unpack_from", unpack_from),
    write = fastest("write", buffer.write), zero = zero, zeroless = zeroless,
}

local function filled(template, parts)
    return (gsub(template, "$(%a+)", parts))
end

-- A position that follows from the one before is no local of its own: a trace
-- has 250 slots for everything.
local function pack_source(items, first, last)
    local names, values, takes, writes = "", "", {}, {}
    local base, offset, locals = "at", 0, 0
    local function settle(where)
        locals = locals + 1
        base, offset = "p" .. locals, 0
        takes[#takes + 1] = format("local %s = %s", base, where)
    end
    for k = first, last do
        local item = items[k]
        local code = codes[item.kind]
        local after = base .. " + " .. offset
        if item.align > 1 then
            settle(format("aligned(%s, %d)", after, item.align))
            writes[#writes + 1] = format("fill(self, 0, %s, %s - 1)", after,
                base)
        end
        item.p = base .. " + " .. offset
        if code.take then
            names = names .. ", " .. item.v
            values = values .. filled(", values[$arg - 2]", item)
            takes[#takes + 1] = filled(code.take, item)
        end
        writes[#writes + 1] = filled(code.write or "", item)
        local span = filled(code.span, item)
        if tonumber(span) then
            offset = offset + tonumber(span)
        else
            settle(item.p .. " + " .. span)
        end
    end
    local stop = base .. " + " .. offset
    local params = ", values"
    if #items <= GROUP then
        params, values = names, ""
    else
        values = "local _" .. names .. " = nil" .. values
        if first == 1 then
            params, values = ", ...", "local values = { ... }\n" .. values
        end
    end
    return filled(PACK, {
        params = params, values = values,
        start = first == 1 and "at = start(self, at)" or "",
        takes = concat(takes, "\n"),
        rest = last < #items and "rest(self, " .. stop .. ", values)"
            or "extend(self, " .. stop .. " - 1)",
        writes = concat(writes, "\n"),
    })
end

local function unpack_source(items, first, last)
    local values, reads = "", {}
    for k = first, last do
        local item = items[k]
        local code = codes[item.kind]
        if item.align > 1 then
            reads[#reads + 1] = filled("at = aligned(at, $align)", item)
        end
        reads[#reads + 1] = filled(
            "if at + $size - 1 > len then too_short() end", item)
        if code.read then
            values = values .. item.v .. ", "
            reads[#reads + 1] = filled(code.read, item)
        end
        reads[#reads + 1] = filled("at = at + " .. code.span, item)
    end
    return filled(UNPACK, {
        values = values,
        start = first == 1 and "at, len = start(self, at)" or "",
        reads = concat(reads, "\n"),
        rest = last < #items and "rest(self, at, len)" or "at",
    })
end

local chunk_name = check.chunk "pack"

-- The functions by format, and what makes one. Few programs have more than a
-- handful; for those that make them up, the old ones are forgotten.
local function functions(name, alive, source)
    local made, weight = {}, 0
    return made, function(self, fmt)
        alive(self, name)
        if type(fmt) ~= "string" then
            bad_argument(2, name, "string expected, got " .. type(fmt))
        end
        local items = parse(fmt, name)
        local fn
        for first = max(#items - 1 - (#items - 1) % GROUP, 0) + 1, 1, -GROUP do
            local last = min(first + GROUP - 1, #items)
            -- Named as our own file, so that errors are told at the caller's
            -- line.
            fn = assert(load(source(items, first, last), chunk_name))(
                environment, fn)
        end
        weight = weight + WEIGHT + #fmt
        if weight > KEPT then
            clear(made)
            weight = WEIGHT + #fmt
        end
        made[fmt] = fn
        return fn
    end
end

local packers, new_packer = functions("pack", live, pack_source)
local unpackers, new_unpacker = functions("unpack", view, unpack_source)

local readers, writers = {}, {}

function writers.pack(self, i, fmt, ...)
    return ((packers[fmt] or new_packer(self, fmt))(self, i, ...))
end

function readers.unpack(self, i, fmt)
    return (unpackers[fmt] or new_unpacker(self, fmt))(self, i)
end

return { readers = readers, writers = writers }
