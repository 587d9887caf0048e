-- What the programs of spec/fuzz/program.lua may do: for each operation a text
-- of Lua that does it to objects of bufpool and to their models, which are
-- plain Lua strings, and compares. Texts and not functions, because a program
-- has to be compiled as its own, and to be shown when it fails.
--
-- In a text $b is a buffer or a handle and $m its model, $o is another buffer,
-- handle or frozen object and $n its model, $f a frozen object and $g its
-- model, $x any of all these and $y its model. `k` counts the rounds of the
-- loop, and the functions are those of `helpers` below. A text is a block of
-- its own, and raises when something is wrong.
--
-- To add an operation: one more call of `add`, with the methods that it tries.
-- A method that no operation names stops the fuzzer.
local random = math.random
local concat = table.concat

-- What a program begins with, as far as it names them, in this order.
local helpers = {
    { "clamp", [[
local function clamp(i, j, n)
    i, j = i < 0 and n + i + 1 or i, j < 0 and n + j + 1 or j
    return i < 1 and 1 or i, j > n and n or j
end]] },
    -- LuaJIT's own functions are wrong for negative positions in front of the
    -- string where they are compiled: ("f1"):sub(-7, -16) gives "f1".
    { "sub", [[
local function sub(s, i, j)
    i, j = clamp(i, j or -1, #s)
    return i > j and "" or string_sub(s, i, j)
end]] },
    { "byte", [[
local function byte(s, i, j)
    i, j = clamp(i, j or i, #s)
    if i <= j then
        return string_byte(s, i, j)
    end
end]] },
    { "find", [[
local function find(s, needle, i)
    i = i or 1
    i = i < 0 and #s + i + 1 or i
    return string_find(s, needle, i < 1 and 1 or i, true)
end]] },
    { "crc32", [[
local CRC = {}
for i = 0, 255 do
    local c = i
    for _ = 1, 8 do
        c = bit.bxor(bit.rshift(c, 1), bit.band(c, 1) * -306674912)
    end
    CRC[i] = c
end
local function crc32(s, c)
    c = bit.bnot(c)
    for i = 1, #s do
        c = bit.bxor(CRC[bit.band(bit.bxor(c, byte(s, i)), 255)],
            bit.rshift(c, 8))
    end
    return bit.bnot(c) % 2 ^ 32
end]] },
    { "adler32", [[
local function adler32(s, sum)
    local a, b = sum % 65536, floor(sum / 65536)
    for i = 1, #s do
        a = (a + byte(s, i)) % 65521
        b = (b + a) % 65521
    end
    return b * 65536 + a
end]] },
    { "fail", [[
local function fail(what, got, want)
    error(concat({ what, ": got ", tostring(got), ", want ",
        tostring(want) }), 0)
end]] },
    { "eq", [[
local function eq(got, want, what)
    if got ~= want and (got == got or want == want) then
        fail(what, got, want)
    end
end]] },
    { "first_difference", [[
local function first_difference(a, b)
    for i = 1, #b do
        if byte(a, i) ~= byte(b, i) then
            return i
        end
    end
    return #b + 1
end]] },
    { "same", [[
local function same(text, want, what)
    if text ~= want then
        fail(concat({ what, ": length ", #want, ", first difference at ",
            first_difference(text, want) }), sub(text, 1, 60),
            sub(want, 1, 60))
    end
end]] },
    { "BIG", [[
local BIG = {}      -- no 16 bytes of it are twice in one period
for i = 1, 4096 do
    BIG[i] = format("%04x", i * 40503 % 65536)
end
BIG = rep(concat(BIG), 5)]] },
    { "zeros", [[
local function zeros(n)
    return rep("\0", n)
end]] },
    { "over", [[
local function over(m, i, s)
    return concat { sub(m, 1, i - 1), s, sub(m, i + #s) }
end]] },
    { "stored", [[
local function stored(v, n, big)    -- modulo 2^8n of the integer part
    local t = {}
    for i = 1, n do
        if type(v) == "cdata" then
            t[i] = char(tonumber(bit.band(v, 255)))
            v = bit.rshift(v, 8)
        else
            local whole = v < 0 and ceil(v) or floor(v)
            if v - v ~= 0 then
                whole = 0
            end
            t[i] = char(floor(whole / 256 ^ (i - 1)) % 256)
        end
    end
    local s = concat(t)
    return big and reverse(s) or s
end]] },
    { "floated", [[
local function floated(v, n, big)
    local at = ffi.new(n == 4 and "float[1]" or "double[1]")
    at[0] = tonumber(v)     -- 3LL crashes the LuaJIT of 2026 here, on trace
    local s = ffi.string(at, n)
    return big and reverse(s) or s
end]] },
    { "varint", [[
local function varint(v)    -- a number or a 64-bit integer, as 64 bits
    local t = {}
    v = ffi.cast("uint64_t", ffi.cast("int64_t", v))
    repeat
        t[#t + 1] = char(tonumber(v % 128) + (v < 128 and 0 or 128))
        v = v / 128
    until v == 0
    return concat(t)
end]] },
    { "zigzag", [[
local function zigzag(v)
    v = ffi.cast("int64_t", v)
    return varint(v < 0 and -2 * v - 1 or 2 * v)
end]] },
    { "integer", [[
local function integer(s, signed, big)
    local n, v = #s, 0
    if n == 8 then
        v = signed and 0LL or 0ULL
    end
    for i = 1, n do
        v = v * 256 + byte(s, big and i or n + 1 - i)
    end
    if signed and n < 8 and v >= 2 ^ (8 * n - 1) then
        v = v - 2 ^ (8 * n)
    end
    return v
end]] },
    { "floating", [[
local function floating(s, big)    -- LuaJIT takes some NaNs for other values
    local n = #s
    s = big and reverse(s) or s
    local top = byte(s, n) % 128 * 256 + byte(s, n - 1)
    if n == 4 and top >= 0x7f80 or n == 8 and top >= 0x7ff0 then
        local low = n == 4 and top % 128 or top % 16
        if low > 0 or sub(s, 1, n - 2) ~= rep("\0", n - 2) then
            return 0 / 0
        end
    end
    local at = ffi.new(n == 4 and "float[1]" or "double[1]")
    ffi.copy(at, s, n)
    return at[0]
end]] },
    { "named", [[
local named = setmetatable({}, { __tostring = function() return "named" end })
]] },
    { "pipe", [[
ffi.cdef "int pipe(int *); int close(int);"
local pipe = ffi.new "int[2]"
assert(ffi.C.pipe(pipe) == 0)]] },
    { "file", [[
local file = assert(io.tmpfile())]] },
    { "sb", [[
local has_sb, sb = pcall(require, "string.buffer")
sb = has_sb and sb.new() or nil]] },
}

-- Expressions ----------------------------------------------------------------

local function pick(...)
    return (select(random(select("#", ...)), ...))
end

-- An integer between a and b, inclusive: a constant, or one that each round of
-- the loop changes.
local function int(a, b)
    local r = random(4)
    if r == 1 or a == b then
        return tostring(random(a, b))
    elseif r == 2 then
        return ("(k * %d %% %d + %d)"):format(random(3, 97), b - a + 1, a)
    end
    local from = random(a, b)
    return ("(k %% %d + %d)"):format(random(1, math.min(b - from + 1, 16)),
        from)
end

local function length()
    local r = random(100)
    if r <= 60 then
        return int(0, 12)
    elseif r <= 88 then
        return int(0, 300)
    elseif r <= 97 then
        return int(4000, 4200)
    end
    return int(30000, 70000)
end

-- Some bytes of BIG.
local function piece(n)
    n = n or length()
    if random(5) == 1 then
        return ("sub(BIG, 1, %s)"):format(n)
    end
    local from = int(1, 90)
    return ("sub(BIG, %s, %s + %s - 1)"):format(from, from, n)
end

local function value_text(v)
    if v == math.floor(v) and math.abs(v) < 1e15 then
        return ("%d"):format(v)
    end
    return ("%.17g"):format(v)
end

-- Numbers at and past the range of n bits.
local wide = true
local function integers(n, count)
    local t = {}
    for i = 1, count do
        local r = random(8)
        local power = 2 ^ pick(n, n - 1, n + 1, 31, 32, 33, 53, 63, random(62))
        local v = pick(1, -1) * power + random(-2, 2)
        if r == 1 then
            v = random(-3, 300)
        elseif r == 2 then
            v = v / pick(2, 3, 4, 5)
        elseif r == 3 then
            v = random(-1000, 1000) / pick(2, 3, 4, 8)
        end
        t[i] = value_text(wide and v or random(0, 127))
        if not wide then
            r = 0
        elseif random(12) == 1 then
            t[i] = pick("1/0", "-1/0", "0/0", "2^63", "-2^63", "2^64", "1e300")
        end
        if r == 4 then
            t[i] = ("%d"):format(random(-2 ^ 31, 2 ^ 31 - 1)) .. "LL"
        elseif r == 5 then
            t[i] = ("0x%x%08x"):format(random(0, 2 ^ 31 - 1),
                random(0, 2 ^ 31 - 1)) .. pick("LL", "ULL")
        end
    end
    return t
end

local function floats(count)
    local t = {}
    for i = 1, count do
        t[i] = pick("0", "1", "-1.5", "1e300", "-1e-300", "1/0", "0.1",
            "2^53", "3LL", "-7LL", "1e38", "3.5e38", tostring(random(1000)))
    end
    return t
end

-- Data arguments of every kind, and their text. `objects` are placeholders.
local function argument(objects)
    local r = random(14)
    if r <= 5 then
        local s = piece(random(8) > 1 and int(0, 12) or nil)
        return s, s
    elseif r <= 7 then
        local s = pick("k", "-k", "k * 0.5", "k * 1e17", "k % 3", "7", "1e100")
        return s, ("tostring(%s)"):format(s)
    elseif r == 8 and objects then
        return "1LL * k", "tostring(1LL * k)"
    elseif r == 9 and objects then
        return "named", '"named"'
    elseif r <= 11 and objects then
        return "$o", "$n"
    elseif r == 12 and objects then
        return "$f", "$g"
    end
    local s = pick('""', '"a"', '"\\0"', '"GET "', '"0123456789abcdef"')
    return s, s
end

local function many(count, make, ...)
    local values, models = {}, {}
    for i = 1, count do
        values[i], models[i] = make(...)
    end
    return values, models
end

-- Operations -----------------------------------------------------------------

local operations = {}

-- `kind`: what the methods are those of. `shared`: string.buffer does the same.
local function add(kind, methods, make, weight, name)
    for _ = 1, weight or 1 do
        operations[#operations + 1] = { kind = kind, methods = methods,
            name = kind .. "." .. (name or methods:match "^%S+"), make = make }
    end
end

-- What string.buffer does as well is done to one of those, too.
local function shared(call, model)
    if random(4) > 1 then
        return call .. "\n" .. model
    end
    return concat({ "if sb then sb:reset():put($m) end", call,
        "if sb then " .. call:gsub("%$b:", "sb:") .. " end", model,
        'if sb then same(sb:tostring(), $m, "string.buffer") end' }, "\n")
end

-- Reading.
add("x", "len", function()
    return 'eq(#$x, #$y, "#") eq($x:len(), #$y, "len")'
end)
add("x", "tostring", function()
    return pick('same($x:tostring(), $y, "tostring")',
        'same(tostring($x), $y, "tostring")')
end)
add("x", "sub", function()
    local i, j = int(-40, 60), int(-40, 300)
    if random(3) == 1 then
        return ('same($x:sub(%s), sub($y, %s), "sub")'):format(i, i)
    end
    return ('same($x:sub(%s, %s), sub($y, %s, %s), "sub")'):format(i, j, i, j)
end, 3)
add("x", "byte", function()
    if random(2) == 1 then
        local i = int(-20, 40)
        return ('eq($x:byte(%s), (byte($y, %s)), "byte")'):format(i, i)
    end
    local i, n = int(1, 20), random(0, random(3) == 1 and 20 or 6)
    local names = concat((many(n + 1, function() return "_" end)), ", ")
    local count = 0
    names = names:gsub("_", function()
        count = count + 1
        return "v" .. count
    end)
    local text = { ("local i, j = %s, %s"):format(i, n == 0 and "nil" or n) }
    text[1] = ("local i = %s local j = i + %s"):format(i, int(0, n))
    text[2] = ("local %s = $x:byte(i, j)"):format(names)
    text[3] = ("local %s = byte($y, i, j)"):format((names:gsub("v", "w")))
    for c = 1, n + 1 do
        text[#text + 1] = ('eq(v%d, w%d, "byte %d")'):format(c, c, c)
    end
    return concat(text, "\n")
end, 3)
add("x", "find", function()
    local needle = pick(piece(int(0, 6)), "sub($y, 3, 3)", "sub($y, -4, -2)",
        "sub($y, 2, 40)", '"0"')
    local init = pick("nil", int(-20, 30))
    return ([[
local s = %s
local a, z = $x:find(s, %s, true)
local c, d = find($y, s, %s, true)
eq(a, c, "find, first") eq(z, d, "find, last")]]):format(needle, init, init)
end, 2)
add("x", "find_any", function()
    local set = pick(piece(int(0, 4)), "sub($y, 3, 4)", "sub($y, -4, -2)",
        '"\\0xyz"', "$n")
    return ([[
local s, i, want = %s, %s, nil
for n = clamp(i, -1, #$y), #$y do
    if string_find(s, sub($y, n, n), 1, true) then
        want = n
        break
    end
end
eq($x:find_any(%s, i), want, "find_any")]]):format(set, int(-20, 30),
        set == "$n" and "$o" or "s")
end, 2)
add("x", "lines", function()
    return [[
if #$y < 5000 then
    local x, y, at = $x, $y, 1
    if k % 2 == 0 then
        y = concat { y, "\n\n", k, "\nlast", k % 3 == 0 and "\n" or "" }
        x = pool:writer():put(y)
    end
    for line in x:lines() do
        local stop = string_find(y, "\n", at, true) or #y + 1
        same(line, sub(y, at, stop - 1), "lines")
        at = stop + 1
    end
    eq(at > #y, true, "lines, end")
end]]
end)
add("x", "equals equals_ct", function()
    local name = pick("equals", "equals_ct")
    return pick('eq($x:%s($y), true, "%s")',
        'eq($x:%s(concat { $y, "x" }), false, "%s")',
        'eq($x:%s($o), $y == $n, "%s")',
        'eq($x:%s(sub($y, 2)), $y == "", "%s")'):format(name, name)
end, 2)
add("x", "crc32 adler32", function()
    local name, i, j = pick("crc32", "adler32"), int(-9, 20), int(-30, 300)
    return pick(([[
local i, j = %s, %s
eq($x:NAME(i, j, k), NAME(sub($y, i, j), k), "NAME")]]):format(i, j), [[
if #$y < 5000 then
    eq($x:NAME(), NAME($y, ("NAME" == "crc32" and 0 or 1)), "NAME of all")
end]]):gsub("NAME", name), nil
end, 2)
add("x", "..", function()
    return pick('same($x .. "|", concat { $y, "|" }, "..")',
        'same("|" .. $x, concat { "|", $y }, "..")',
        'same($x .. $o, concat { $y, $n }, "..")',
        'same(k .. $x, concat { k, $y }, "..")')
end)
add("x", "ref", function()
    return ([[
S.pinned = true
local p, n = $x:ref()
local i = %s
local c = i < n and p[i] or nil
S.pinned = false
eq(n, #$y, "ref, length") eq(c, (byte($y, i + 1)), "ref, byte")]]):format(
        int(0, 20))
end)
add("x", "unpack", function()
    local r = random(4)
    if r == 1 then
        return [[
if #$y >= 6 then
    local a, z, i = $x:unpack(k % (#$y - 5) + 1, "<I2>i4")
    i = i - 6
    eq(a, integer(sub($y, i, i + 1), false), "unpack I2")
    eq(z, integer(sub($y, i + 2, i + 5), true, true), "unpack i4")
end]]
    elseif r == 2 then
        return [[
if #$y >= 5 then
    local s, i = $x:unpack(1, "c5")
    eq(i, 6, "unpack c") same(s, sub($y, 1, 5), "unpack c")
end]]
    elseif r == 3 then
        return [[
if #$y >= 20 then
    local i = k % (#$y - 19) + 1
    local a, z, d = $x:unpack(i, ">I8<i3xd")
    eq(a, integer(sub($y, i, i + 7), false, true), "unpack I8")
    eq(z, integer(sub($y, i + 8, i + 10), true), "unpack i3")
    eq(d, floating(sub($y, i + 12, i + 19)), "unpack d")
end]]
    end
    return 'eq(pcall($x.unpack, $x, #$y, "<I4"), false, "unpack past the end")'
end)
add("x", "writeto", function()
    if random(2) == 1 then
        return ([[
local i, j = %s, %s
local n = assert($x:writeto(pipe[1], i, j))
local want = sub($y, i, j)
eq(n, #want, "writeto, count")
if n > 0 then
    local got = pool:writer()
    eq(got:readfrom(pipe[0], n + 1), n, "readfrom, count")
    same(got:tostring(), want, "writeto")
    got:release()
end]]):format(int(1, 20), int(21, 300))
    end
    return [[
file:seek("set", 0)
eq($x:writeto(file), #$y, "writeto, count")
file:flush() file:seek("set", 0)
same(file:read(#$y) or "", $y, "writeto a file")]]
end)

local widths = {}
for _, kind in ipairs { "u", "i" } do
    for _, bits in ipairs { 8, 16, 24, 32, 64 } do
        for _, order in ipairs(bits == 8 and { "" } or { "le", "be" }) do
            widths[#widths + 1] = { name = kind .. bits .. order,
                kind = kind, bits = bits, big = order == "be" }
        end
    end
end
for _, bits in ipairs { 32, 64 } do
    for _, order in ipairs { "le", "be" } do
        widths[#widths + 1] = { name = "f" .. bits .. order, kind = "f",
            bits = bits, big = order == "be" }
    end
end

local function all_names(prefix)
    local t = {}
    for i, w in ipairs(widths) do
        t[i] = prefix .. w.name
    end
    return concat(t, " ")
end

local function decode(w, text)
    if w.kind == "f" then
        return ("floating(%s, %s)"):format(text, w.big)
    end
    return ("integer(%s, %s, %s)"):format(text, w.kind == "i", w.big)
end

-- A table of values and one of their bytes, made before the loop.
local tables = 0
local function encoded(w, count)
    tables = tables + 1
    local values = w.kind == "f" and floats(count) or integers(w.bits, count)
    local v, e = "V" .. tables, "E" .. tables
    return v, e, ([[
local %s, %s = { %s }, {}
for i = 1, #%s do
    %s[i] = %s(%s[i], %d, %s)
end]]):format(v, e, concat(values, ", "), v, e,
        w.kind == "f" and "floated" or "stored", v, w.bits / 8, w.big)
end

add("x", all_names "", function()
    local w = widths[random(#widths)]
    return ([[
if #$y >= %d then
    local i = k %% (#$y - %d) + 1
    eq($x:%s(i), %s, "%s")
end]]):format(w.bits / 8, w.bits / 8 - 1, w.name,
        decode(w, ("sub($y, i, i + %d)"):format(w.bits / 8 - 1)), w.name)
end, 3, "number")

-- Writing in place.
add("b", "write", function()
    return ([[
local s = %s
local i = %s
if i + #s <= #$m + 1 then
    $b:write(i, s) $m = over($m, i, s)
else
    eq(pcall($b.write, $b, i, s), false, "write past the end")
end]]):format(pick(piece(int(0, 40)), "$n"), int(1, 30))
end, 2)
add("b", "copy", function()
    if random(2) == 1 then
        return ([[
local i, from, to = %s, %s, %s
local s = sub($m, from, to)
if i + #s <= #$m + 1 then
    $b:copy(i, $b, from, to) $m = over($m, i, s)
end]]):format(int(1, 20), int(1, 20), int(1, 60))
    end
    return ([[
local i, from, to = %s, %s, %s
local s = sub($n, from, to)
if i + #s <= #$m + 1 then
    $b:copy(i, $o, from, to) $m = over($m, i, s)
else
    eq(pcall($b.copy, $b, i, $o, from, to), false, "copy past the end")
end]]):format(int(1, 20), int(-20, 20), int(-20, 40))
end, 2)
add("b", "setbyte", function()
    local w = { kind = "u", bits = 8 }
    local v, e, before = encoded(w, 5)
    local values, models = {}, {}
    for i = 1, random(6) do
        values[i] = ("%s[(k + %d) %% 5 + 1]"):format(v, i)
        models[i] = ("%s[(k + %d) %% 5 + 1]"):format(e, i)
    end
    return ([[
local i = %s
if i + %d <= #$m + 1 then
    $b:setbyte(i, %s)
    local s = concat { %s }
    $m = over($m, i, s)
end]]):format(int(1, 9), #values, concat(values, ", "), concat(models, ", ")),
        before
end, 2)
add("b", "fill", function()
    local v, e, before = encoded({ kind = "u", bits = 8 }, 5)
    return ([[
local i, j = %s, %s
$b:fill(%s[k %% 5 + 1], i, j)
i, j = clamp(i, j, #$m)
if i <= j then
    $m = over($m, i, rep(%s[k %% 5 + 1], j - i + 1))
end]]):format(int(-30, 30), int(-30, 30), v, e), before
end)
add("b", "xor", function()
    local key, at = pick(piece(int(1, 9)), piece(int(1, 90)), "$n"), int(1, 99)
    return ([[
local i, j, key = %s, %s, %s
if #key > 0 and #key < 5000 then
    $b:xor(i, j, %s, %s)
    i, j = clamp(i, j, #$m)
    local t = {}
    for n = i, j do
        t[n - i + 1] = char(bit.bxor(byte($m, n), byte(key,
            (%s - 1 + n - i) %% #key + 1)))
    end
    $m = over($m, i, concat(t))
end]]):format(int(-30, 30), int(-30, 60), key, key == "$n" and "$o" or "key",
        at, at)
end, 2)
add("b", all_names "set_", function()
    local w = widths[random(#widths)]
    local v, e, before = encoded(w, 6)
    return ([[
if #$m >= %d then
    local i = k %% (#$m - %d) + 1
    $b:set_%s(i, %s[k %% 6 + 1]) $m = over($m, i, %s[k %% 6 + 1])
    eq($b:%s(i), %s, "%s")
else
    eq(pcall($b.set_%s, $b, 1, 1), false, "set_%s past the end")
end]]):format(w.bits / 8, w.bits / 8 - 1, w.name, v, e, w.name,
        decode(w, e .. "[k % 6 + 1]"), w.name, w.name, w.name), before
end, 5, "set_number")
add("b", all_names "put_", function()
    local w = widths[random(#widths)]
    local v, e, before = encoded(w, 6)
    local values, models = {}, {}
    for i = 1, random(3) == 1 and random(9) or 1 do
        values[i] = ("%s[(k + %d) %% 6 + 1]"):format(v, i)
        models[i] = ("%s[(k + %d) %% 6 + 1]"):format(e, i)
    end
    return ("$b:put_%s(%s)\n$m = concat { $m, %s }"):format(w.name,
        concat(values, ", "), concat(models, ", ")), before
end, 4, "put_number")
add("b", all_names "get_", function()
    local w = widths[random(#widths)]
    return ([[
if #$m >= %d then
    eq($b:get_%s(), %s, "get_%s")
    $m = sub($m, %d)
else
    eq(pcall($b.get_%s, $b), false, "get_%s of too few")
end]]):format(w.bits / 8, w.name, decode(w, ("sub($m, 1, %d)"):format(
        w.bits / 8)), w.name, w.bits / 8 + 1, w.name, w.name)
end, 3)
add("b", "put_varint put_zigzag get_varint get_zigzag get_varint64"
    .. " get_zigzag64", function()
    local form = pick("varint", "zigzag")
    local values = many(random(3) == 1 and random(2, 9) or 1, function()
        local v = pick("k", "2 ^ (k % 53) + k % 3", "2 ^ 53", "k * 1000",
            "0x7fffffffffffffffLL - k", "-1LL * k", "0x8000000000000000ULL + k")
        return form == "zigzag" and random(2) == 1 and ("-(%s)"):format(v) or v
    end)
    local list = concat(values, ", ")
    return ([[
local values, at = { LIST }, #$m
local t = {}
for i = 1, #values do
    t[i] = FORM(values[i])
end
$b:put_FORM(LIST) $m = concat { $m, concat(t) }
if #$m < 300 then
    $b:skip(at)
    for i = 1, #values do
        local v = values[i]
        if type(v) == "number" and i % 2 == k % 2 then
            eq($b:get_FORM(), v, "get_FORM")
        else
            eq($b:get_FORM64(), ffi.cast("TYPE", v), "get_FORM64")
        end
    end
    eq(pcall($b.get_FORM, $b), false, "get_FORM of nothing")
    $m = ""
elseif byte($m, 1) < 128 then
    eq(FORM($b:get_FORM()), sub($m, 1, 1), "get_FORM of a byte")
    $m = sub($m, 2)
end]]):gsub("%u%u%u%u", { LIST = list, FORM = form,
        TYPE = form == "zigzag" and "int64_t" or "uint64_t" }), nil
end, 2)
add("b", "pack", function()
    return ([[
local i = k %% (#$m + 1) + 1
local s, v = %s, %s
local data = concat { stored(v, 2), stored(v * 3, 4, true), char(#s), s, s,
    "\0" }
$b:pack(i, "<I2>i4s1z", v, v * 3, s, s)
$m = over($m, i, data)]]):format(piece(int(0, 40)), int(0, 60000))
end)

-- Appending.
add("b", "put", function()
    local count = random(3) > 1 and random(4) or random(32)
    local values, models = many(count, argument, true)
    return ("if #$n < 5000 and #$g < 5000 then\n$b:put(%s)\n"
        .. "$m = concat { $m, %s }\nend"):format(concat(values, ", "),
        concat(models, ", "))
end, 6)
add("b", "put", function()
    local values, models = many(random(6), argument)
    return shared(("$b:put(%s)"):format(concat(values, ", ")),
        ("$m = concat { $m, %s }"):format(concat(models, ", ")))
end)
add("b", "put_range", function()
    if random(3) == 1 then
        return ([[
local i, j = %s, %s
$b:put_range($o, i, j)
$m = concat { $m, sub($n, i, j) }]]):format(int(-20, 20), int(-20, 40))
    end
    return ([[
if #$m > 0 and #$m < 30000 then
    local i, n = #$m - k * %d %% (#$m < 90 and #$m or 90), %s
    $b:put_range($b, i, i + n - 1)
    local s = sub($m, i)
    while #s < n do
        s = concat { s, s }
    end
    $m = concat { $m, sub(s, 1, n) }
end]]):format(random(3, 97), int(0, pick(20, 400, 9000)))
end, 3)
add("b", "prepend", function()
    local s = piece(int(0, 40))
    return pick(([[
local s = %s
$b:prepend(s) $m = concat { s, $m }]]):format(s), ([[
local n, s = %s, %s
$b:skip(n) $m = sub($m, n + 1)
$b:prepend(s) $m = concat { s, $m }]]):format(int(0, 60), s), [[
if #$m < 30000 then
    $b:prepend($o) $m = concat { $n, $m }
end]], "$b:prepend(k) $m = concat { tostring(k), $m }",
        'eq(pcall($b.prepend, $b, $b), false, "prepended to itself")', ([[
local s, t = %s, %s
local o = pool:writer(%s, %s):put(s):prepend(t)
same(o:tostring(), concat { t, s }, "headroom")
o:release()]]):format(s, piece(int(0, 40)), pick("0", "nil", "#s", "5000"),
            int(0, 50)))
end, 3)
add("b", "take", function()
    local n = pick("#$n + 1", int(0, 40), int(0, 40))
    return pick(([[
local n = %s
local s = sub($n, 1, n)
local o = pool:writer():put($n)
$b:take(o, n) $m = concat { $m, s }
same(o:tostring(), sub($n, n + 1), "what take leaves")
o:release()]]):format(n), [[
local o = pool:checkout(0)
o:take($b)
eq(#$b, 0, "taken")
$b:take(o)
o:release()]], ([[
local n = %s
local o = pool:borrow(%s):reset():take($b, n)
same(o:tostring(), sub($m, 1, n), "take") $m = sub($m, n + 1)
o:release()]]):format(int(0, 40), int(0, 9000)),
        'eq(pcall($b.take, $b, $b), false, "taken from itself")')
end, 2)
add("b", "split_to", function()
    return ([[
local n = %s
local o = $b:split_to(n)
same(o:tostring(), sub($m, 1, n), "split_to") $m = sub($m, n + 1)
if k %% 2 == 0 then o:release() end]]):format(pick("#$m", "#$m - 1 > 0 and "
        .. "#$m - 1 or 0", int(0, 40)))
end, 2)
add("b", "putf", function()
    local formats = { "%d", "%s", "%5.1f", "%q", "%x", "%%", "-" }
    local t, arguments = {}, {}
    for i = 1, random(5) do
        t[i] = formats[random(#formats)]
        if t[i] == "%s" or t[i] == "%q" then
            arguments[#arguments + 1] = pick(piece(int(0, 9)), '"a"')
        elseif t[i]:sub(2, 2) ~= "%" and t[i] ~= "-" then
            arguments[#arguments + 1] = "k"
        end
    end
    local list = concat({ '"' .. concat(t) .. '"', unpack(arguments) }, ", ")
    return shared(("$b:putf(%s)"):format(list),
        ("$m = concat { $m, format(%s) }"):format(list))
end, 2)
add("b", "putcdata", function()
    if random(2) == 1 then
        return shared(([[
local s = %s
$b:putcdata(ffi.cast("const char *", s), #s)]]):format(piece()),
            "$m = concat { $m, s }")
    end
    return ([[
S.pinned = true
local p, n = $o:ref()
local i = n < 3 and 0 or n > 50000 and n or %s %% n
$b:putcdata(p + i, n - i)
$m = concat { $m, sub($n, i + 1) }
S.pinned = false]]):format(int(0, 9))
end, 2)
add("b", "putcdata", function()
    return ([[
if #$m < 40000 then
    S.pinned = true
    local p, n = $b:ref()
    local i = n < 3 and 0 or %s %% n
    $b:putcdata(p + i, n - i)
    $m = concat { $m, sub($m, i + 1) }
    S.pinned = false
end]]):format(int(0, 9))
end, 1, "putcdata_own")
add("b", "set", function()
    local r = random(4)
    if r <= 2 then
        local s = piece()
        return shared(("$b:set(%s)"):format(s), ("$m = %s"):format(s))
    elseif r == 3 then
        return pick("$b:set($o) $m = $n", "$b:set(k) $m = tostring(k)",
            'eq(pcall($b.set, $b, $b), false, "set to itself")')
    end
    return [[
S.pinned = true
local p, n = $o:ref()
$b:set(p, n) $m = $n
S.pinned = false]]
end, 2)
add("b", "set", function()
    return ([[
S.pinned = true
local p, n = $b:ref()
local i, skip = n < 3 and 0 or %s %% n, %s
local want = sub($m, i + 1)
$b:skip(skip) $m = sub($m, skip + 1)
$b:set(p + i, n - i) $m = want
S.pinned = false]]):format(int(0, 9), pick("0", int(0, 50)))
end, 1, "set_own")
add("b", "reserve commit", function()
    return ([[
local s, more = %s, %s
S.pinned = true
local p, n = $b:reserve(#s + more)
eq(n, #s + more, "reserve")
ffi.copy(p, s, #s)
$b:commit(#s)
S.pinned = false
$m = concat { $m, s }]]):format(piece(), int(0, 30))
end, 2)
add("b", "readfrom", function()
    return ([[
local n = %s
local s = sub($n, 1, n)
assert($o:writeto(pipe[1], 1, n))
if #s > 0 then
    eq($b:readfrom(pipe[0]%s), #s, "readfrom")
    $m = concat { $m, s }
end]]):format(int(0, 3000), pick("", ", n", ", n + 1"))
end)
add("b", "readinto", function()
    return ([[
local i, s = %s, sub(BIG, k %% 99 + 1, k %% 99 + 9)
if #$m >= i + 8 then
    local from = pool:writer():put(s)
    assert(from:writeto(pipe[1]))
    from:release()
    eq($b:readinto(i, pipe[0], 9), 9, "readinto")
    $m = over($m, i, s)
end]]):format(int(1, 20))
end)

-- Consuming.
add("b", "get", function()
    local count = random(3) == 1 and random(2, 6) or random(0, 1)
    local names, lengths, text = {}, {}, {}
    for i = 1, count do
        names[i], lengths[i] = "v" .. i, pick(int(0, 30), int(0, 9))
    end
    if count == 0 then
        return pick('same($b:get(), $m, "get") $m = ""',
            shared("$b:get(9)", "$m = sub($m, 10)"))
    end
    text[1] = ("local %s = $b:get(%s)"):format(concat(names, ", "),
        concat(lengths, ", "))
    for i = 1, count do
        text[#text + 1] = ('same(v%d, sub($m, 1, %s), "get %d")'):format(i,
            lengths[i], i)
        text[#text + 1] = ("$m = sub($m, %s + 1)"):format(lengths[i])
    end
    return concat(text, "\n")
end, 3)
add("b", "get", function()
    return ([[
if k %% 16 == 0 then
    local lengths, m = {}, $m
    for i = 1, %s do
        lengths[i] = i %% 2
    end
    local t = { pcall($b.get, $b, unpack(lengths)) }
    if t[1] then
        for i = 1, #lengths do
            same(t[i + 1], sub($m, 1, i %% 2), "get of many")
            $m = sub($m, i %% 2 + 1)
        end
    else
        same($b:tostring(), m, "get that raised")
    end
end]]):format(int(100, 900))
end, 1, "get_many")
add("b", "skip", function()
    local n = int(0, 30)
    return shared(("$b:skip(%s)"):format(n), ("$m = sub($m, %s + 1)"):format(n))
end, 2)
add("b", "reset wipe free", function()
    local name = pick("reset", "wipe", "free")
    return name == "reset" and shared("$b:reset()", '$m = ""')
        or ('$b:%s() $m = ""'):format(name)
end)
add("b", "resize", function()
    return ([[
local n = %s
$b:resize(n)
$m = concat { sub($m, 1, n), zeros(n - #$m) }]]):format(length())
end, 2)
add("b", "capacity", function()
    return 'if $b:capacity() < #$m then fail("capacity", 1, 2) end'
end)

-- Beginnings and ends.
add("b", "release", function()
    local make = pick("checkout", "writer", "borrow", "checkout_zeroed",
        "try_checkout", "checkout_aligned")
    local n = length()
    local more = make == "checkout_aligned"
        and (", 2 ^ %s"):format(int(0, 13)) or ""
    return ([[
local n = %s
$b:release()
$b = pool:%s(n%s) or pool:checkout(n)
$m = zeros(%s)]]):format(n, make, more, make == "writer" and "#$b" or "n")
        .. '\nsame($b:tostring(), $m, "a checkout")'
end, 3)
add("b", "freeze", function()
    return ([[
if #$m < 50000 then
    $f:release()
    $f, $g = $b:freeze(), $m
    $b = pool:%s(%s)
    $m = zeros(#$b)
end]]):format(pick("checkout", "writer", "borrow"), int(0, 90))
end)
add("b", "detach", function()
    return [[
local ticket = assert($b:detach())
eq(bufpool.adopt(ticket + 1 < 1e14 and ticket + 1 or 1), nil, "no ticket")
$b = assert(bufpool.adopt(ticket))
eq(bufpool.adopt(ticket), nil, "adopted twice")]]
end)
add("f", "share", function()
    return [[
local ticket = assert($f:share())
local f = assert(bufpool.adopt(ticket))
same(f:tostring(), $g, "adopted")
if k % 2 == 0 then f:release() end]]
end)
add("f", "reader", function()
    local w = widths[random(#widths)]
    return ([[
local r = $f:reader():skip(%s)
local at = r.at
if #$g - at >= %d then
    eq(r:get_%s(), %s, "get_%s of a reader")
    at = at + %d
else
    eq(pcall(r.get_%s, r), false, "get_%s of too few")
end
local s = sub($g, at, at + k %% 9)
same(r:get(k %% 9 + 1), s, "get of a reader")
eq(r:len(), #$g - at + 1 - #s, "len of a reader")]]):format(int(0, 30),
        w.bits / 8 - 1, w.name, decode(w, ("sub($g, at, at + %d)"):format(
            w.bits / 8 - 1)), w.name, w.bits / 8, w.name, w.name)
end, 2)
add("f", "slice clone", function()
    return ([[
local i, j = %s, %s
local f = %s
$f:release()
$f = f]]):format(int(-20, 20), int(-20, 60), pick("$f:clone()",
        "$f:slice(i, j) $g = sub($g, i, j)"))
end)
add("f", "release", function()
    return ("$f:release()\n$f = pool:writer():put(%s):freeze()\n$g = %s")
        :format(pick("k", '"abc"'), pick("tostring(k)", '"abc"'))
end)
operations[#operations].make = function()
    local s = piece()
    return ("$f:release()\n$f, $g = pool:writer():put(%s):freeze(), %s")
        :format(s, s)
end
add("f", "==", function()
    return [[
eq($f == f1, $g == g1, "==") eq($f < f2, $g < g2, "<")
eq($f <= f1, $g <= g1, "<=")]]
end)

-- Misuse raises and changes nothing.
add("b", "misuse", function()
    return ("eq(%s, false, 'misuse')"):format(pick(
        'pcall($b.write, $b, #$m + 2, "x")', "pcall($b.put, $b, nil)",
        "pcall($b.put, $b, $b)", 'pcall($b.put, $b, "abc", k, {})',
        "pcall($b.resize, $b, -1)", "pcall($b.setbyte, $b, 0, 1)",
        "pcall($b.setbyte, $b, #$m + 1, 1)", "pcall($b.skip, $b, -1)",
        "pcall($b.u32le, $b, #$m - 2)", 'pcall($b.commit, $b, 1e15)',
        "pcall($b.get, $b, 1, -1)", "pcall($b.resize, $b, 0.5)",
        'pcall($b.putf, $b, "%d", "x")', 'pcall($b.pack, $b, 1, "<I2", 2^17)',
        'pcall($b.put, $b, "abc", true)',
        'pcall($b.putcdata, $b, "abc", 3)'))
end, 2)
add("pool", "shortage", function()
    return ([[
if k %% 16 == 0 then
    local p = bufpool.new { four_kib_count = 0, sixty_four_kib_count = 0,
        two_fifty_six_kib_count = 0, max_bytes = %s }
    local b, m, ok = p:writer(), "", true
    for i = 1, 400 do
        local s = sub(BIG, 1, k %% 7 * 900)
        ok = pcall(b.%s
        if not ok then break end
        m = concat { m, s }
    end
    same(b:tostring(), m, "after a shortage")
    b:release()
    eq(p:checkout(2 ^ 30), nil, "more than max_bytes")
    eq(p:stats().checked_out, 0, "out after a shortage")
    p:close()
end]]):format(pick("8192", "2 ^ 17", "2 ^ 18"), pick("put, b, s)",
        'putf, b, "%s", s)', "putcdata, b, ffi.cast('char *', s), #s)",
        "put, b, s, '', '', '', '')"))
end)

-- Pools and the module.
add("pool", "with", function()
    return ([[
local s = %s
same(pool:with(#s, function(b, t)
    return b:write(1, t):tostring()
end, s), s, "with")]]):format(piece())
end)
add("pool", "checkout writer borrow checkout_zeroed checkout_aligned"
    .. " try_checkout", function()
    return ([[
local b = pool:checkout(%s)
same(b:tostring(), zeros(#b), "a checkout")
b:fill(k):put("left to the collector")]]):format(length())
end, 2)
add("pool", "stats", function()
    return [[
local stats = pool:stats()
for i = 1, #stats.classes do
    local c = stats.classes[i]
    eq(c.count, c.ready + c.cached + c.out + stats.lost * 0, "the law")
end]]
end)
add("pool", "trim", function()
    return pick("pool:trim()", ([[
local most = %s
local bytes, more = pool:trim(most)
if bytes > most + 4096 and bytes > 2 ^ 20 then
    fail("trim", bytes, most)
end]]):format(int(0, 100000)))
end)
add("pool", "set sites", function()
    return pick('pool:set { leak_detection = "all" }',
        'pool:set { leak_detection = "sampled" }',
        'pool:set { leak_detection = "off" }', [[
local sites = pool:sites()
for i = 1, #sites do
    eq(sites[i].buffers >= 0, true, "sites")
end]])
end)
add("pool", "resident", function()
    return [[
if k % 16 == 0 then
    eq(pool:resident() >= 0, true, "resident")
end]]
end)
add("pool", "scratch", function()
    return ([[
local s = %s
same(pool:scratch(function(out, t)
    return out:put(t, k):tostring()
end, s), concat { s, tostring(k) }, "scratch")]]):format(piece())
end)
add("pool", "close", function()
    return ([[
if k %% 32 == 0 then
    local p = bufpool.new { four_kib_count = %s, max_bytes = %s,
        sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
    local b = p:checkout(100)
    p:close()
    b:put(%s)
    eq(pcall(pool.checkout, p, 1), false, "closed")
    b:release()
end]]):format(random(0, 9), pick("0", "2 ^ 20"), piece(int(0, 9)))
end)
add("module", "writev", function()
    local values, models = many(random(6), argument)
    for i = 1, #values do
        if random(3) == 1 then
            values[i], models[i] = "$x", "$y"
        elseif random(3) == 1 then
            values[i], models[i] = "$o", "$n"
        end
    end
    local list, model = concat(values, ", "), concat(models, ", ")
    return ([[
local want = concat { %s }
if #want < 60000 then
    file:seek("set", 0)
    eq(bufpool.writev(file, { %s }), #want, "writev, count")
    file:flush() file:seek("set", 0)
    same(file:read(#want) or "", want, "writev to a file")
    eq(bufpool.writev(pipe[1], { %s }), #want, "writev, count")
    if #want > 0 then
        local got = pool:writer()
        eq(got:readfrom(pipe[0], #want + 1), #want, "readfrom, count")
        same(got:tostring(), want, "writev")
        got:release()
    end
end]]):format(model, list, list)
end)
add("module", "folded pprof report heed_pressure", function()
    return pick('eq(type(bufpool.folded(pool:sites())), "string", "folded")',
        'eq(#bufpool.pprof(pool:sites()) > 0, true, "pprof")',
        'bufpool.report(function(r) eq(r.more > 0, true, "report") end)',
        "bufpool.heed_pressure(k % 2 == 0)")
end)
add("module", "new get default stats adopt type _VERSION maintain", function()
    return pick('eq(bufpool.type($b) == "dead", false, "type")',
        'eq(bufpool.adopt(k), nil, "adopt")',
        'eq(bufpool.get "nobody", nil, "get")',
        'if k % 64 == 0 then bufpool.stats() end',
        'if bufpool.maintain then bufpool.maintain() end')
end)

-- What finalizers do to an object x: nothing that its owner may see, so its
-- contents are what they were. Memory that x had gets another owner, and other
-- bytes.
local finalizers = {
    move = [[
local t, old = tostring(x), S.others
x:free()
S.others = pool:checkout(x:capacity() + 4096):fill(0xdd)
x:put(t)
if old then old:release() end]],
    swap = [[
local t = tostring(x)
x:free()
S.kept = pool:checkout(4096):fill(0xdd)
x:put(t)
if S.last then S.last:release() end
S.last = S.kept]],
    grow = [[
local n = #x
x:resize(n + 5000):resize(n)]],
    rewrite = [[
local t = tostring(x)
x:reset():put(t)]],
    churn = [[
local a, c = pool:checkout(100), pool:checkout(5000)
a:fill(0xee) c:fill(0xee)
a:release() c:release()]],
    trim = [[
pool:trim()]],
}

return { operations = operations, helpers = helpers, finalizers = finalizers,
    pick = pick, only_small_numbers = function() wide = false end }
