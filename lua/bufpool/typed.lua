-- Typed access: four methods for each kind of number, made from one template.
--
-- LuaJIT assumes that accesses of different types never meet: it may take a
-- load from before a store of another type, and drop a store that repeats an
-- earlier one although another type has written between. So numbers of up to
-- three bytes are composed of bytes, and all others of 32-bit words, which
-- keep two rules:
--
-- A reader stores a word that it has read. That store is of the same type, may
-- for all that LuaJIT knows have changed any word, and its value is new each
-- time; so no later load is taken from before it. It goes into the object's own
-- box: LuaJIT can tell that this leaves the cookie in the same box as it is,
-- and checks the cookie once before a loop. A store elsewhere would have both
-- words of the cookie read again in each round. (Handles have no cookie.)
--
-- A writer ends with a store to a word and one to a byte, of a value that is
-- new each time; so nothing later, of words or of bytes, is taken from before
-- it or dropped for being there already.
--
-- Words and not anything wider, for the descriptor's sizes are 64 bits wide:
-- they would be read again after each store.
--
-- LuaJIT also drops the widening to 64 bits of what it knows to be at least 0:
-- a loop's counter, and a byte just read. Then it takes an operation on that
-- number at 32 bits and at 64 bits for one operation. bit.bswap, bit.bnot and
-- an overflowing bit.lshift differ by width; so none of them may be applied to
-- a number that a program has given: the program may do so at the other width.
-- What is used here and in the other files gives the same at both for a number
-- that is not negative: rshift, arshift, band, bor, tobit, lshift of a byte by
-- 8 or 16, sums (their constants are of one width), and stores to integers.

local ffi = require "ffi"
local bit = require "bit"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"
local space = require "bufpool.space"
local unroll = require "bufpool.unroll"

local select, tonumber = select, tonumber
local assert, compile = assert, load
local concat, format, gsub = table.concat, string.format, string.gsub
local band, bor, rshift = bit.band, bit.bor, bit.rshift
local istype = ffi.istype
local live, room = object.live, space.room

local little = ffi.abi("le")
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

-- Numbers change their type in here. Nothing that allocates may stand between
-- a store and the load that it is for: a finalizer may use the cell, too.
local cell = ffi.new [[
    union {
        uint32_t u32; int32_t i32; uint64_t u64; float f32; double f64;
    }]]

-- So many values are put without a loop.
local UNROLLED = 32

-- Where writers store what is new each time.
local ticks = ffi.new("int32_t[2]")
local tick_byte = ffi.new("uint8_t[1]")

-- LuaJIT keeps its types where a double has negative quiet NaNs: one of those
-- would be taken for a table or a string, wherever it came from.
local nan = 0 / 0

-- put_each for so many values: all are looked at, and there is room for all,
-- before any is put.
local PUT_EACH = [[
local room = ...
return function(put, self, size_of, name$params)
    room(self, 0$sizes, name)
    $puts
    return self
end
]]
local PUT_TEXTS = {
    sizes = " + size_of(v$k, name, $k)", puts = "put(self, v$k)\n",
}

-- By the number of values; each is made when it is first called.
local putters = {}

local function new_putter(count)
    putters[count] = unroll.make("typed", PUT_EACH, count, PUT_TEXTS, room)
    return putters[count]
end

-- Puts each of several values. size_of(v, name, arg) says how many bytes one
-- takes, and raises when it cannot be put.
local function put_each(put, self, size_of, name, ...)
    local n, size = select("#", ...), 0
    if n <= UNROLLED then
        return ((putters[n] or new_putter(n))(put, self, size_of, name, ...))
    end
    for k = 1, n do
        size = size + size_of((select(k, ...)), name, k)
    end
    room(self, size, name)
    for k = 1, n do
        put(self, (select(k, ...)))
    end
    return self
end

-- The number to store as a float. A 64-bit integer of C becomes a double first,
-- as in the interpreter: on a trace LuaJIT, by version, rounds it to a float at
-- once, makes 0 of one from 2^63 on, or crashes. A trace also rounds twice what
-- becomes a double from 2^63 on. The half of it is rounded once; its lowest bit
-- is set where either of the two lowest was, which decides ties.
local function real(v, name, arg)
    check.storable(v, name, arg)
    if istype(uint64, v) and v >= 0x8000000000000000ULL then
        return tonumber(bor(rshift(v, 1), band(v, 1ULL))) * 2
    end
    return tonumber(v)
end

local function too_short(name, len, size)
    check.raise(format("too few bytes for '%s' (length %.14g, needs %d)",
        name, len, size))
end

-- A comparison that decides nothing, after a read. It makes LuaJIT take a
-- snapshot, and guards that come later go back to that one. Without it they
-- would go back to the comparison of the epoch: the interpreter would read once
-- more, after finalizers have run.
local FENCE = "if epoch ~= epoch then return read(self, i) end\n"

-- $point makes p, a pointer to position `from`, out of `at`, which points in
-- front of position 1; $aim is what $point is to read, where the two differ.
-- $load and $write come after the comparison. So they hold nothing that
-- allocates, and nothing that a trace has to guard: object.lua says why.
local template = [[
local e = ...
local cast, storable, word = e.cast, e.storable, e.word
local whole, whole64 = e.whole, e.whole64
local cell, ticks, tick_byte, nan = e.cell, e.ticks, e.tick_byte, e.nan
local consume, live, line_end, position = e.consume, e.live, e.line_end,
    e.position
local put_each, room, too_short, view = e.put_each, e.room, e.too_short, e.view
local bor, bswap, bxor, lshift, rshift = e.bor, e.bswap, e.bxor, e.lshift,
    e.rshift
local floor, max, min, tobit = e.floor, e.max, e.min, e.tobit
local select, tonumber, type = e.select, e.tonumber, e.type
local int64, real = e.int64, e.real
local words, unsigned = e.words, e.unsigned
local INT_MAX, ESTALE = 0x7fffffff, e.ESTALE

local function read(self, i)
    local at, len, o, epoch, word = view(self, "$kind")
    local from = i
    if type(i) ~= "number"
        or not (i >= 1 and i <= tobit(min(len, INT_MAX)) - $more)
        or floor(i) ~= i then
        from = position(i, len, $size, "$kind", 1)
    end
    at = at - 1
    $aim
    if o.epoch ~= epoch then
        return read(self, i)
    end
    $load
    $fence
    $value
end

local function get(self)
    local b, epoch = live(self, "get_$kind")
    local len = tonumber(b.len)
    if len < $size then
        too_short("get_$kind", len, $size)
    end
    local v = read(self, 1)
    if consume(b, epoch, $size) == ESTALE then
        return get(self)
    end
    return v
end

-- For what lies above the mark, and for positions that are not plain.
local function set_anywhere(self, i, v)
    local b, epoch = live(self, "set_$kind")
    local from = position(i, tonumber(b.len), $size, "set_$kind", 1)
    if type(v) ~= "number" then
        $check(v, "set_$kind", 2)
    end
    local mark = max(tonumber(b.mark),
        line_end(from + $more, tonumber(b.capacity)))
    local at, later = b.at - 1, tobit(epoch + 1)
    $point
    $convert
    if b.epoch ~= epoch then
        return set_anywhere(self, i, v)
    end
    b.mark, b.epoch = mark, later
    $write
    return self
end

local function set(self, i, v)
    local b, epoch = live(self, "set_$kind")
    local len, mark = tonumber(b.len), tonumber(b.mark)
    if type(i) ~= "number"
        or not (i >= 1 and i <= tobit(min(len, mark, INT_MAX)) - $more)
        or floor(i) ~= i then
        return (set_anywhere(self, i, v))
    elseif type(v) ~= "number" then
        $check(v, "set_$kind", 2)
    end
    local at, from = b.at - 1, i
    $point
    $convert
    if b.epoch ~= epoch then
        return set(self, i, v)
    end
    $write
    return self
end

local function size_of(v, name, arg)
    storable(v, name, arg)
    return $size
end

local function put_one(self, v)
    if type(v) ~= "number" then
        $check(v, "put_$kind", 1)
    end
    local b, epoch, at, stop, mark = room(self, $size, "put_$kind")
    local from, later = 1, tobit(epoch + 1)
    at = at - 1
    $point
    $convert
    if b.epoch ~= epoch then
        return put_one(self, v)
    end
    b.mark, b.epoch = mark, later
    $write
    b.len = stop
    return self
end

-- LuaJIT begins no trace at a function that takes "...", so the work is in one
-- that does not: programs that are interpreted call compiled code then.
local function put(self, ...)
    if select("#", ...) ~= 1 then
        return put_each(put_one, self, size_of, "put_$kind", ...)
    end
    return (put_one(self, (...)))
end

return read, get, set, put
]]

local environment = {
    ESTALE = core.constants.ESTALE,
    storable = check.storable, word = check.word, whole = check.whole,
    whole64 = check.whole64, position = check.position,
    view = object.view, live = live, room = room,
    consume = calls.consume, line_end = space.line_end,
    put_each = put_each, too_short = too_short,
    cell = cell, ticks = ticks, tick_byte = tick_byte, nan = nan,
    words = ffi.typeof("int32_t *"), unsigned = ffi.typeof("uint32_t *"),
    cast = ffi.cast,
    int64 = int64, real = real,
    bor = bor, bswap = bit.bswap, bxor = bit.bxor,
    lshift = bit.lshift, rshift = rshift, tobit = bit.tobit,
    floor = math.floor, max = math.max, min = math.min,
    select = select, tonumber = tonumber, type = type,
}

-- The parts of the template that differ.

-- check.lua tells how numbers wrap.
local WORD_OF_V = [[
if tobit(v) ~= v then v = whole(v) end
local x = tobit(v)
]]
local function byte_parts(kind)
    local size = kind.size
    local sum, stores = {}, {}
    for k = 0, size - 1 do
        local byte = ("p[%d]"):format(kind.order == "be" and size - 1 - k or k)
        sum[#sum + 1] = ("lshift(%s, %d)"):format(byte, 8 * k)
        stores[#stores + 1] = ("%s = rshift(x, %d)"):format(byte, 8 * k)
    end
    local value = "return x"
    if kind.signed then
        local sign = 2 ^ (8 * size - 1)
        value = ("return bxor(x, %d) - %d"):format(sign, sign)
    end
    return {
        check = "v = word",
        point = "local p = at + from",
        load = "local x = bor(" .. concat(sum, ", ") .. ")",
        value = value,
        convert = WORD_OF_V,
        write = concat(stores, "\n"),
    }
end

local NEXT_TICK = "local tick = tobit(ticks[0] + 1)\n"
local TICK = "\nticks[0], tick_byte[0] = tick, tick"

-- LuaJITs before 2024 make one instruction of arm64 of two neighbouring words,
-- and round its offset down to whole words. Something between them helps.
local ARM64 = ffi.arch == "arm64"
local BETWEEN = ARM64 and "\nticks[1] = tick\n" or "\n"
local BETWEEN_READS = ARM64 and "\nticks[0] = tick\n" or "\n"

-- Swaps a word that is a program's number, but never that number itself.
local SWAP = "bxor(bswap(bxor(%s, 1)), 0x01000000)"

local function word_parts(kind)
    local swap = kind.swap and "bswap" or ""
    local load = ("local x = %s(p[0])\n$word.i32 = x\n"):format(swap)
    local value
    if kind.float then
        -- Signalling ones, too: becoming a double makes them quiet.
        load = load .. "local bits = $word.u32"
        value = [[
if bits > 0xff800000 then return nan end
$word.i32 = x
local v = $word.f32
]] .. FENCE .. "return v"
    else
        load = load .. "local v = $word." .. (kind.signed and "i32" or "u32")
        value = "return v"
    end
    return {
        check = kind.float and "v = real" or "v = word",
        point = "local p = cast(words, at + from)",
        load = load, value = value,
        convert = NEXT_TICK .. (kind.float
            and "cell.f32 = v\nlocal x = " .. swap .. "(cell.i32)"
            or WORD_OF_V .. (kind.swap and "x = " .. SWAP:format "x" or "")),
        write = "p[0] = x" .. TICK,
    }
end

local function double_word_parts(kind)
    local swap = kind.swap and "bswap" or ""
    local low = kind.order == "le" and 0 or 1
    local high = kind.signed and "i32" or "u32"
    local load, aim, value
    if kind.swap then
        aim = "local p = cast(words, at + from)"
        load = ([[
$word.i32 = bswap(p[%d])
local low = $word.u32%s$word.i32 = bswap(p[%d])
local high = $word.%s]]):format(low, BETWEEN_READS, 1 - low, high)
    else
        aim = "local p = cast(unsigned, at + from)"
        load = ([[
local low = p[%d]%s$word.u32 = p[%d]
local high = $word.%s]]):format(low, BETWEEN_READS, 1 - low, high)
    end
    aim = ARM64 and NEXT_TICK .. aim or aim
    local convert
    if kind.float then
        value = [[
if high >= 0xfff80000 then return nan end
cell.u64 = high * 0x100000000ULL + low
local v = cell.f64
]] .. FENCE .. "return v"
        convert = ("cell.f64 = v\nlocal x = %s(cell.u64)\n"):format(swap)
    else
        value = ("return high * 0x100000000%sLL + low"):format(
            kind.signed and "" or "U")
        convert = [[
if type(v) == "number" and tobit(v) ~= v then v = whole64(v) end
local x = int64(v)
]]
    end
    if kind.swap and not kind.float then
        convert = convert .. "local y = " .. SWAP:format("tobit(x)")
            .. "\nx = bswap(tobit(rshift(x, 32)))"
    else
        convert = convert .. "local y = rshift(x, 32)"
    end
    return {
        check = kind.float and "v = real" or "storable",
        point = "local p = cast(words, at + from)",
        aim = aim,
        load = load, value = value,
        convert = NEXT_TICK .. convert,
        write = ("p[%d] = x%sp[%d] = y"):format(
            little and 0 or 1, BETWEEN, little and 1 or 0) .. TICK,
    }
end

local readers, writers, sizes = {}, {}, {}
-- Where a reader stores its word. The interpreter takes longer to find a field
-- of a box than of the cell.
local WORD = jit.status() and "word" or "cell"
local chunk_name = check.chunk "typed"

-- Defines four methods: for the kind u32be these are u32be, get_u32be,
-- set_u32be and put_u32be. types.lua lists all of them.
local function define(kind)
    local parts
    if kind.size <= 3 then
        parts = byte_parts(kind)
    elseif kind.size == 4 then
        parts = word_parts(kind)
    else
        parts = double_word_parts(kind)
    end
    local name = kind.name
    parts.load = parts.load:gsub("$word", WORD)
    parts.value = parts.value:gsub("$word", WORD)
    parts.fence = FENCE
    parts.aim = parts.aim or parts.point
    parts.kind, parts.size, parts.more = name, kind.size, kind.size - 1
    -- Names of our own file, so that errors are told at the caller's line.
    local make = assert(compile(gsub(template, "$(%a+)", parts), chunk_name))
    sizes[name] = kind.size
    readers[name], writers["get_" .. name], writers["set_" .. name],
        writers["put_" .. name] = make(environment)
end

for _, letter in ipairs { "u", "i", "f" } do
    for _, bits in ipairs { 8, 16, 24, 32, 64 } do
        for _, order in ipairs { "le", "be" } do
            local kind = {
                name = letter .. bits .. order, order = order,
                size = bits / 8, signed = letter == "i",
                float = letter == "f", swap = (order == "le") ~= little,
            }
            if bits == 8 then
                kind.name = letter .. bits
            end
            if not kind.float or bits >= 32 then
                define(kind)
            end
        end
    end
end

return { readers = readers, writers = writers, sizes = sizes,
    put_each = put_each, too_short = too_short }
