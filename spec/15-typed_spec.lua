-- Typed access against a slow model: a table of bytes, and arithmetic.
-- SEED repeats a run, BUFPOOL_STEPS makes it shorter or longer.

local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local floor, random = math.floor, math.random
local raises = helper.raises

local kinds = {}
for _, letter in ipairs { "u", "i", "f" } do
    for _, bits in ipairs { 8, 16, 24, 32, 64 } do
        for _, order in ipairs(bits == 8 and { "" } or { "le", "be" }) do
            if letter ~= "f" or bits >= 32 then
                kinds[#kinds + 1] = {
                    name = letter .. bits .. order, size = bits / 8,
                    letter = letter, bits = bits, order = order,
                }
            end
        end
    end
end

-- The low and the high 32 bits of a float whose value is `v`, an integer or
-- an integer and some quarters.
local function float_halves(v, bits)
    if v == 0 then
        return 0, 0
    end
    local fraction_bits = bits == 32 and 23 or 52
    local bias = bits == 32 and 127 or 1023
    local m, e = math.frexp(math.abs(v))
    -- Rounded to the nearest, and half to the even one, as sums are.
    local fraction = (m * 2 - 1) * 2 ^ fraction_bits + 2 ^ 52 - 2 ^ 52
    local sign = v < 0 and 2 ^ 31 or 0
    if bits == 32 then
        return sign + (e - 1 + bias) * 2 ^ 23 + fraction, 0
    end
    return fraction % 2 ^ 32,
        sign + (e - 1 + bias) * 2 ^ 20 + floor(fraction / 2 ^ 32)
end

local function float_value(low, high, bits)
    local fraction_bits = bits == 32 and 23 or 52
    local bias = bits == 32 and 127 or 1023
    local top = bits == 32 and low or high
    local sign = top >= 2 ^ 31 and -1 or 1
    local exponent = floor(top % 2 ^ 31 / 2 ^ (fraction_bits % 32))
    local fraction = bits == 32 and low % 2 ^ 23
        or high % 2 ^ 20 * 2 ^ 32 + low
    if exponent == 2 * bias + 1 then
        return fraction == 0 and sign / 0 or 0 / 0
    elseif exponent == 0 then
        return sign * math.ldexp(fraction, 1 - bias - fraction_bits)
    end
    return sign * math.ldexp(1 + fraction / 2 ^ fraction_bits, exponent - bias)
end

local function encode(kind, v)
    local low, high
    if kind.letter == "f" then
        low, high = float_halves(tonumber(v), kind.bits)
    elseif type(v) == "cdata" then
        v = ffi.cast("uint64_t", v)
        low, high = tonumber(v % 2 ^ 32), tonumber(v / 2 ^ 32)
    else
        low, high = v % 2 ^ 32, floor(v / 2 ^ 32) % 2 ^ 32
    end
    local bytes = {}
    for k = 0, kind.size - 1 do
        local half = k < 4 and low or high
        local at = kind.order == "be" and kind.size - k or k + 1
        bytes[at] = floor(half / 256 ^ (k % 4)) % 256
    end
    return bytes
end

local function decode(kind, bytes, i)
    local halves = { [0] = 0, 0 }
    for k = 0, kind.size - 1 do
        local at = kind.order == "be" and kind.size - 1 - k or k
        local half = floor(k / 4)
        halves[half] = halves[half] + bytes[i + at] * 256 ^ (k % 4)
    end
    local low, high = halves[0], halves[1]
    if kind.letter == "f" then
        return float_value(low, high, kind.bits)
    elseif kind.bits > 32 then
        local v = high * 0x100000000ULL + low
        local spare = 64 - kind.bits
        return kind.letter == "u" and v or bit.arshift(bit.lshift(
            ffi.cast("int64_t", v), spare), spare)
    elseif kind.letter == "i" and low >= 2 ^ (kind.bits - 1) then
        return low - 2 ^ kind.bits
    end
    return low
end

-- The model: an array of bytes with the methods that the programs below use.
local model = {}
model.__index = model

function model:setbyte(i, v)
    self[i] = v % 256
end

function model:byte(i)
    return self[i]
end

function model:write(i, text)
    for k = 1, #text do
        self[i + k - 1] = text:byte(k)
    end
end

function model:copy(i, _, from, to)
    local piece = { unpack(self, from, to) }
    for k = 1, #piece do
        self[i + k - 1] = piece[k]
    end
end

function model:fill(v, i, j)
    for k = i, j do
        self[k] = v
    end
end

function model:put(text)
    self:write(#self + 1, text)
end

function model:skip(n)
    for _ = 1, n do
        table.remove(self, 1)
    end
end

for _, kind in ipairs(kinds) do
    local function set(self, i, v)
        for k, byte in ipairs(encode(kind, v)) do
            self[i + k - 1] = byte
        end
    end
    model["set_" .. kind.name] = set
    model["put_" .. kind.name] = function(self, ...)
        for k = 1, select("#", ...) do
            set(self, #self + 1, (select(k, ...)))
        end
    end
    model[kind.name] = function(self, i)
        return decode(kind, self, i)
    end
    model["get_" .. kind.name] = function(self)
        local v = decode(kind, self, 1)
        self:skip(kind.size)
        return v
    end
end

-- The kinds that a format means: an order, and then letters with sizes.
local function packed_kinds(fmt)
    local list, order = {}, fmt:sub(1, 1) == "<" and "le" or "be"
    for letter, size in fmt:gmatch "([iIfd])(%d*)" do
        size = letter == "f" and 4 or letter == "d" and 8 or tonumber(size)
        list[#list + 1] = { size = size, bits = 8 * size, order = order,
            letter = letter == "i" and "i" or letter == "I" and "u" or "f" }
    end
    return list
end

function model:pack(i, fmt, ...)
    for n, kind in ipairs(packed_kinds(fmt)) do
        for k, byte in ipairs(encode(kind, (select(n, ...)))) do
            self[i + k - 1] = byte
        end
        i = i + kind.size
    end
end

function model:unpack(i, fmt)
    local values = {}
    for n, kind in ipairs(packed_kinds(fmt)) do
        values[n] = decode(kind, self, i)
        i = i + kind.size
    end
    values[#values + 1] = i
    return unpack(values)
end

local function same(a, b)
    return a == b and type(a) == type(b) or a ~= a and b ~= b
end

local function contents(m)
    return string.char(unpack(m))
end

-- Programs ------------------------------------------------------------------

local SIZE, ROUNDS, LINES = 64, 200, 8

-- A position: one that varies, with some distance to it, or one that stays.
local function place()
    if random(3) == 1 then
        return ("%d"):format(random(1, 12))
    end
    return ("i + %d"):format(random(0, 6))
end

-- What programs store: among others the loop's counter, which LuaJIT knows most
-- of, and integers of C. Most values of a program are one of these, so that
-- it meets itself in several widths.
local SUBJECTS = { "v", "k", "k + 3", "i * 3", "0LL + k", "0ULL + k", "w",
    "x:u8(i)", "x:i32be(3)", "x:u64le(i)", "0LL - k" }
local subject

local function value(kind)
    local r = random(8)
    if r == 1 then
        return ("%d"):format(random(-2, 2))
    elseif r == 2 then
        return kind.letter == "f" and "0.25" or "0x01020304"
    elseif r == 3 then
        return SUBJECTS[random(#SUBJECTS)]
    end
    return subject
end

-- Formats, and values that fit into them.
local FITTING = { "k", "k + 3", "0LL + k", "0ULL + k", "i", "x:u8(i) % 128" }

local function format()
    local items, values = {}, {}
    for n = 1, random(1, 3) do
        local r = random(8)
        items[n] = r == 1 and "f" or r == 2 and "d"
            or (r < 6 and "I" or "i") .. random(2, 8)
        values[n] = r <= 2 and value { letter = "f" }
            or FITTING[random(#FITTING)]
    end
    return (random(2) == 1 and "<" or ">") .. table.concat(items),
        table.concat(values, ", ")
end

local function any_kind()
    return kinds[random(#kinds)]
end

local lines = {
    function()
        return ("x:setbyte(%s, %d)"):format(place(), random(0, 3))
    end,
    function()
        return ("x:setbyte(%s, v)"):format(place())
    end,
    function()
        return ("log[#log + 1] = x:byte(%s)"):format(place())
    end,
    function()
        return ("x:write(%s, %q)"):format(place(), ("abcdefgh"):sub(
            random(1, 4), random(4, 8)))
    end,
    function()
        local from = random(1, 12)
        return ("x:copy(%s, x, %d, %d)"):format(place(), from,
            from + random(0, 8))
    end,
    function()
        local from = random(1, 12)
        return ("x:fill(%d, %d, %d)"):format(random(0, 3), from,
            from + random(0, 8))
    end,
    function()
        return ("x:pack(%s, %q, %s)"):format(place(), format())
    end,
    function()
        local fmt = format()
        local results = {}
        for k = 1, #packed_kinds(fmt) + 1 do
            results[k] = ("log[#log + %d]"):format(k)
        end
        return ("%s = x:unpack(%s, %q)"):format(table.concat(results, ", "),
            place(), fmt)
    end,
    -- What a program itself makes of a value that it stores.
    function()
        return ("log[#log + 1] = bit.bswap(0LL + %s)"):format(
            random(2) == 1 and "k" or "x:u8(i)")
    end,
    function()
        local text = ("01234567"):sub(1, random(1, 8))
        return ("x:put(%q) x:skip(%d)"):format(text, #text)
    end,
}

local function typed_line()
    local kind = any_kind()
    local r = random(9)
    if r <= 4 then
        return ("log[#log + 1] = x:%s(%s)"):format(kind.name, place())
    elseif r <= 8 then
        return ("x:set_%s(%s, %s)"):format(kind.name, place(), value(kind))
    end
    local same_size
    repeat
        same_size = any_kind()
    until same_size.size == kind.size
    if random(2) == 1 then
        return ("x:put_%s(%s) log[#log + 1] = x:get_%s()"):format(kind.name,
            value(kind), same_size.name)
    end
    local get = ("log[#log + 1] = x:get_%s()"):format(same_size.name)
    return ("x:put_%s(%s, %s) %s %s"):format(kind.name, value(kind),
        value(kind), get, get)
end

-- Kinds of one size class meet more often when there are few of them.
local function program()
    local body, few = {}, random(2) == 1 and {}
    subject = SUBJECTS[random(#SUBJECTS)]
    for k = 1, LINES do
        if few and #few >= 4 then
            body[k] = few[random(4)]
        else
            body[k] = random(4) == 1 and lines[random(#lines)]()
                or typed_line()
        end
        if few then
            few[#few + 1] = body[k]
        end
    end
    return ([[
        local x, log, places, values, wide = ...
        for k = 1, #places do
            local i, v, w = places[k], values[k], wide[k]
            %s
        end]]):format(table.concat(body, "\n            "))
end

local function compare_logs(mine, theirs)
    if #mine ~= #theirs then
        return "the number of results"
    end
    for k = 1, #mine do
        if not same(mine[k], theirs[k]) then
            return ("result %d of %d: %s, not %s"):format(k, #mine,
                tostring(mine[k]), tostring(theirs[k]))
        end
    end
end

local function oracle(source, ...)
    local run = assert(load(source))
    jit.off(run)
    run(...)
end
jit.off(oracle)
for _, method in pairs(model) do
    if type(method) == "function" then
        jit.off(method, true)
    end
end
jit.off(encode)
jit.off(decode)
jit.off(float_halves)
jit.off(float_value)

describe("typed access", function()
    local pool

    setup(function()
        pool = bufpool.new()
    end)
    teardown(function()
        pool:close()
    end)

    it("of all widths, mixed on trace, does what a slow model does", function()
        local seed = helper.seed()
        local steps = tonumber(os.getenv "BUFPOOL_STEPS") or 1000000
        local programs = math.ceil(steps / ROUNDS / LINES)
        local compiled = 0
        local function on_trace(what)
            if what == "stop" then
                compiled = compiled + 1
            end
        end
        jit.attach(on_trace, "trace")
        local failure
        for n = 1, programs do
            local source = program()
            local places, values, wide = {}, {}, {}
            local c_type = random(2) == 1 and "int64_t" or "uint64_t"
            for k = 1, ROUNDS do
                wide[k] = ffi.cast(c_type, random(-2 ^ 31, 2 ^ 31 - 1))
                    * 2 ^ random(0, 32) + random(0, 3)
                places[k] = random(1, 20)
                values[k] = random(4) == 1 and random(-2 ^ 23, 2 ^ 23) * 256
                    or random(-3, 3)
            end
            local text = {}
            for k = 1, SIZE do
                text[k] = random(0, 255)
            end
            local expected = setmetatable(text, model)
            local buf = pool:writer(SIZE):put(contents(expected))
            local mine, theirs = {}, {}
            load(source)(buf, mine, places, values, wide)
            oracle(source, expected, theirs, places, values, wide)
            failure = compare_logs(mine, theirs)
                or not buf:equals(contents(expected)) and "contents"
            if failure then
                failure = ("seed %d, program %d, %s:\n%s"):format(seed, n,
                    failure, source)
                break
            end
            buf:release()
            -- Each program is to be compiled, also when many have been.
            jit.flush()
        end
        jit.attach(on_trace)
        assert(not failure, failure)
        if jit.status() then
            assert.is_true(compiled >= programs)
        end
    end)

    it("reads, sets, puts and gets each kind at each position", function()
        local bytes = setmetatable({}, model)
        for k = 1, 40 do
            bytes[k] = k * 37 % 256
        end
        local text = contents(bytes)
        local values = { 0, 1, -1, 127, 128, -128, 255, 65535, -32768,
            8388607, -2 ^ 31, 1234567 }
        for _, kind in ipairs(kinds) do
            local name = kind.name
            local buf = pool:writer():put(text)
            local frozen = pool:writer():put(text):freeze()
            for i = 1, 40 - kind.size + 1 do
                local expected = decode(kind, bytes, i)
                assert(same(expected, buf[name](buf, i)), name)
                assert(same(expected, buf[name](buf, i - 41)), name)
                assert(same(expected, frozen[name](frozen, i + 0LL)), name)
            end
            for n, v in ipairs(values) do
                local i = n * 2
                local copy = setmetatable({ unpack(bytes) }, model)
                model["set_" .. name](copy, i, v)
                buf:set(text)
                assert.equal(buf, buf["set_" .. name](buf, i, v))
                assert(buf:equals(contents(copy)), name)
                buf["set_" .. name](buf:set(text), i - 41, v + 0LL)
                assert(buf:equals(contents(copy)), name)
                buf:reset()
                assert.equal(buf, buf["put_" .. name](buf, v, v + 0LL, v))
                local one = contents(encode(kind, v))
                assert(buf:equals(one:rep(3)), name)
                for k = 2, 0, -1 do
                    local got = buf["get_" .. name](buf)
                    assert(same(got, decode(kind, encode(kind, v), 1)), name)
                    assert.equal(k * kind.size, #buf)
                end
            end
            buf:release()
        end
    end)

    -- LuaJIT may take one operation on a loop's counter for the same operation
    -- on the counter as a 64-bit integer.
    it("stores the counter of a loop in several widths", function()
        local N = 200
        local loops = {
            { "32 before 64", function(buf)
                for k = 1, N do
                    buf:put_u32be(k):put_u64be(k)
                end
            end, 4, 8 },
            { "64 before 32", function(buf)
                for k = 1, N do
                    buf:put_i64be(k):put_i32be(k)
                end
            end, 8, 4 },
            { "pack", function(buf)
                for k = 1, N do
                    buf:pack(k * 12 - 11, ">I4I8", k, k)
                end
            end, 4, 8 },
            { "set", function(buf)
                buf:resize(N * 12)
                for k = 1, N do
                    buf:set_u32be(k * 12 - 11, k):set_i64be(k * 12 - 7, k)
                end
            end, 4, 8 },
            { "64-bit integers", function(buf)
                for k = 1, N do
                    buf:put_u32be(k):put_u64be(0ULL + k)
                    buf:put_i64be(0LL + k):put_i32be(0LL + k)
                end
            end, 4, 8, 8, 4 },
            { "bytes read", function(buf)
                for k = 1, N do
                    buf:put_u8(k):put_u32be(buf:u8(#buf))
                    buf:put_u64be(buf:u8(#buf - 4))
                end
            end, 1, 4, 8 },
        }
        for _, loop in ipairs(loops) do
            local buf = pool:writer()
            loop[2](buf)
            local expected = {}
            for k = 1, N do
                for n = 3, #loop do
                    for at = loop[n] - 1, 0, -1 do
                        expected[#expected + 1] = string.char(
                            at < 6 and floor(k / 256 ^ at) % 256 or 0)
                    end
                end
            end
            assert(buf:equals(table.concat(expected)), loop[1])
            buf:release()
        end
    end)

    it("leaves a program's own swaps of what it stores right", function()
        for _, name in ipairs { "u32be", "i32be", "u64be", "i64be" } do
            local run = load(([[
                local buf, log = ...
                for k = 1, 200 do
                    buf:put_%s(k)
                    log[k] = bit.bswap(0LL + k)
                end]]):format(name))
            local log = {}
            run(pool:writer(), log)
            for k = 1, #log do
                assert.equal(0LL + k, bit.bswap(log[k]))
            end
        end
    end)

    it("stores integers of C as floats as the interpreter does", function()
        local cell = ffi.new("union { float f32; double f64; "
            .. "uint8_t bytes[8]; }")
        local function store(field, v)
            cell[field] = v
            return ffi.string(cell.bytes, field == "f32" and 4 or 8)
        end
        jit.off(store)
        local values = { 0, 1, -1, 16777217, 0x20000000000001LL,
            0x20000020000001LL, 0x4000004000000001LL, -0x4000004000000001LL,
            0x7fffffbfffffffffLL, 0x7fffffffffffffffLL,
            0x8000000000000000ULL, 0x8000000000000401ULL,
            0x8000000000000c01ULL, 0x8000000000000bffULL,
            0x8000000000000400ULL, 0xfffffffffffff801ULL,
            0x8000008000000001ULL, 0xffffffffffffffffULL }
        for _, field in ipairs { "f32", "f64" } do
            local size = field == "f32" and 4 or 8
            for _, c_type in ipairs { "int64_t", "uint64_t" } do
                -- A trace holds what came first.
                for n = 1, #values do
                    local v = ffi.cast(c_type, values[n])
                    local run = load(([[
                        local buf, v = ...
                        for k = 1, 100 do
                            buf:put_%sle(v, 2, v):set_%sle(#buf - %d, v)
                            buf:pack(#buf + 1, "<%s", v)
                        end]]):format(field, field, 2 * size - 1,
                        size == 4 and "f" or "d"))
                    local buf = pool:writer()
                    run(buf, v)
                    assert(buf:equals(store(field, v):rep(400)),
                        field .. " " .. tostring(v))
                    buf:release()
                    jit.flush()
                end
            end
        end
    end)

    -- The oracle divides by powers of two, which is exact.
    local function wrapped(v, size)
        local bytes = {}
        if type(v) == "number" then
            v = v >= 0 and floor(v) or math.ceil(v)
            for k = 0, size - 1 do
                local byte = floor(v / 256 ^ k) % 256
                bytes[k + 1] = byte == byte and byte or 0
            end
        else
            for k = 0, size - 1 do
                bytes[k + 1] = tonumber(bit.band(bit.arshift(v, 8 * k), 255))
            end
        end
        return string.char(unpack(bytes))
    end

    local values = { 0, 1, -1, 44, 255, 256, 257, 300, -128, -129, -255.5,
        255.5, 0.5, -0.5, 1.75, -1.75, 32768, 65535, 65536, 70000, 2 ^ 24 + 3,
        -2 ^ 23, 2 ^ 52 - 0.5, 2 ^ 63 + 2 ^ 11, 1e300, -1e300, 2 ^ 1023,
        helper.inf, -helper.inf, helper.nan, -helper.nan,
        0x123456789abcdefLL, -1LL, 0xffffffffffffffffULL, 3LL, 300ULL }
    for _, n in ipairs { 31, 32, 40, 51, 52, 53, 63, 64, 70 } do
        for _, d in ipairs { -3, -1, -0.5, 0, 0.5, 1, 5 } do
            values[#values + 1] = 2 ^ n + d
            values[#values + 1] = -2 ^ n + d
        end
    end

    -- What each writes, by name; its bytes, in the order of the buffer.
    local writers = {
        setbyte = { size = 1, order = "", function(b, v) b:setbyte(1, v) end,
            function(b, v) b:setbyte(-8, v) end,
            function(b, v) b:setbyte(1, v, v) end,
            function(b, v) b:setbyte(1, v, v, v, v) end,
            function(b, v) b:setbyte(1, v, v, v, v, v, v) end },
        fill = { size = 1, order = "", function(b, v) b:fill(v) end },
    }
    for _, kind in ipairs(kinds) do
        if kind.letter ~= "f" then
            local name = kind.name
            writers[name] = { size = kind.size, order = kind.order,
                function(b, v) b["set_" .. name](b, 1, v) end,
                function(b, v) b["set_" .. name](b, -8, v) end,
                function(b, v) b:reset()["put_" .. name](b, v) end,
                function(b, v) b:reset()["put_" .. name](b, v, v, v) end }
        end
    end
    for name, writer in pairs(writers) do
        it("stores the integer part modulo 2^n, on trace and off: " .. name,
            function()
                local compiling = jit.status()
                local buf = pool:checkout(8)
                for n, write in ipairs(writer) do
                    for _, v in ipairs(values) do
                        local want = wrapped(v, writer.size)
                        if writer.order == "be" then
                            want = want:reverse()
                        end
                        jit.off()
                        buf:resize(8)
                        write(buf, v)
                        local off = buf:sub(1, writer.size)
                        if compiling then
                            jit.on()
                        end
                        for _ = 1, 100 do
                            buf:resize(8)
                            write(buf, v)
                        end
                        local on = buf:sub(1, writer.size)
                        assert(off == want and on == want,
                            ("way %d of %s: %s is %s off trace and %s on, "
                            .. "and should be %s"):format(n, name, tostring(v),
                            ("%q"):format(off), ("%q"):format(on),
                            ("%q"):format(want)))
                    end
                    jit.flush()
                end
                buf:release()
            end)
    end

    it("keeps the payload of a NaN", function()
        local buf = pool:checkout(8)
        local words = { 0x7ff80000, 0x7ff81234, 0x7fffffff, 0x7ff00001,
            0xfff00001 }
        for _, high in ipairs(words) do
            for _, low in ipairs { 0, 1, 0xfffffffe } do
                buf:set_u32le(1, low):set_u32le(5, high)
                local v = buf:f64le(1)
                assert.is_true(v ~= v)
                buf:fill(0):set_f64be(1, v)
                assert.equal(high, buf:u32be(1))
                assert.equal(low, buf:u32be(5))
            end
        end
        -- A quiet one: turning a float into a double quiets it.
        buf:set_u32be(1, 0x7fc12345):set_f32le(5, buf:f32be(1))
        assert.equal(0x7fc12345, buf:u32le(5))
    end)

    it("never takes a NaN for something else", function()
        local buf = pool:checkout(8)
        for _, top in ipairs { 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe,
            0xff } do
            buf:fill(0xff):setbyte(2, top)
            local v = buf:f64be(1)
            assert.equal("number", type(v))
            assert.is_true(v ~= v)
        end
        for _, top in ipairs { 0x80, 0xbf, 0xc0, 0xff } do
            buf:fill(0xff):setbyte(2, top)
            local v = buf:f32be(1)
            assert.equal("number", type(v))
            assert.is_true(v ~= v)
        end
    end)

    it("raises for what does not fit, and changes nothing", function()
        local buf = pool:writer():put("abc")
        raises(function() buf:u32le(1) end, "bad argument #1 to 'u32le'")
        raises(function() buf:u16le(3) end, "bad argument #1 to 'u16le'")
        raises(function() buf:u8(0) end, "bad argument #1 to 'u8'")
        raises(function() buf:u8(4) end, "position 4 out of range, length 3")
        raises(function() buf:u8(1.5) end, "integer expected")
        raises(function() buf:u16be(helper.nan) end, "integer expected")
        raises(function() buf:u16be(helper.inf) end, "'u16be'")
        raises(function() buf:u16be("1") end, "number expected, got string")
        raises(function() buf:set_u16be(3, 1) end, "argument #1 to 'set_u16be'")
        raises(function() buf:set_u8(1, "1") end, "argument #2 to 'set_u8'")
        raises(function() buf:set_f64le(1, 1) end, "'set_f64le'")
        raises(function() buf:set_f32le(1) end, "'set_f32le'")
        raises(function() buf:put_i64le(1, {}) end,
            "bad argument #2 to 'put_i64le'")
        raises(function() buf:put_f64be(nil) end,
            "bad argument #1 to 'put_f64be'")
        raises(function() buf:get_u32le() end, "'get_u32le'", "length 3")
        assert.equal("abc", tostring(buf))
        assert.equal(buf, buf:put_u32le())
        assert.equal("abc", tostring(buf))
        local frozen = buf:freeze()
        assert.is_nil(frozen.set_u8)
        assert.is_nil(frozen.put_u8)
        assert.is_nil(frozen.get_u8)
        raises(function() buf:u8(1) end, "attempt to use a frozen buffer")
        raises(function() pool:checkout(1).u8(io.stdout, 1) end, "bad self")
        frozen:release()
        raises(function() frozen.u8(frozen, 1) end, "released frozen")
    end)

    it("leaves the buffer as it was when memory is short", function()
        local small = bufpool.new { max_bytes = 4096, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        local buf = small:checkout(4090)
        raises(function() buf:put_u32le(1, 2) end, "'put_u32le'")
        assert.is_true(buf:equals(helper.zeros(4090)))
        buf:put_u32le(1)
        raises(function() buf:put_u32le(1) end, "'put_u32le'")
        assert.equal(4094, #buf)
        buf:release()
        small:close()
    end)

    it("leaves nothing behind in what is released", function()
        local zero = helper.zeros(4096)
        for _, kind in ipairs(kinds) do
            for _, i in ipairs { 1, 60, 64, 65, 4089 } do
                local buf = pool:checkout(4096)
                buf["set_" .. kind.name](buf, i, -1)
                buf:release()
                buf = pool:checkout(4096)
                assert.is_true(buf:equals(zero))
                buf:resize(0)
                buf["put_" .. kind.name](buf, -1)
                buf:release()
                buf = pool:checkout(4096)
                assert.is_true(buf:equals(zero))
                buf:release()
            end
        end
    end)
end)
