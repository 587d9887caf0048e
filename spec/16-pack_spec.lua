-- pack and unpack against a real Lua 5.3, on generated cases, and on traces
-- against the interpreter.
-- SEED repeats a run, BUFPOOL_STEPS makes it shorter or longer.

local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local random = math.random
local raises = helper.raises

local have_lua53 = os.execute(
    "lua5.3 -e 'os.exit(string.pack and 0 or 1)' >/dev/null 2>&1") == 0

-- Read by Lua 5.3: a list of cases { fmt, arguments ... }. For each it prints
-- the packed bytes and then what it unpacks from them and from other bytes, or
-- that it raises.
local ORACLE = [[
local function show(...)
    local n = select("#", ...)
    local out = {}
    for k = 1, n do
        local v = select(k, ...)
        if math.type(v) == "float" then
            out[k] = v ~= v and "nan"
                or ("%016x"):format(string.unpack("j", string.pack("d", v)))
        elseif type(v) == "number" then
            out[k] = ("%016x"):format(v)
        else
            out[k] = tostring(v):gsub(".", function(c)
                return ("%02x."):format(c:byte())
            end)
        end
    end
    return table.concat(out, " ")
end
local function result(ok, ...)
    return ok and show(...) or "raises"
end
for _, case in ipairs(dofile(arg[1])) do
    local fmt, bytes = case.fmt, case.bytes
    print(result(pcall(string.pack, fmt, table.unpack(case, 1, case.n))))
    -- It does not raise when a "z" lacks its zero, and goes beyond the end.
    local got = table.pack(pcall(string.unpack, fmt, bytes, case.i))
    print(got[1] and got[got.n] > #bytes + 1 and "raises"
        or result(table.unpack(got, 1, got.n)))
end
]]

local float = ffi.new("union { double d; int64_t i; }")

-- The same; Lua 5.3 has one kind of integer, and the bits tell. `floats` says
-- which of the results are floats.
local function show(floats, ...)
    local n = select("#", ...)
    local out = {}
    for k = 1, n do
        local v = select(k, ...)
        if floats[k] then
            float.d = v
            out[k] = v ~= v and "nan" or bit.tohex(float.i, 16)
        elseif type(v) == "string" then
            out[k] = v:gsub(".", function(c)
                return ("%02x."):format(c:byte())
            end)
        else
            out[k] = bit.tohex(ffi.cast("int64_t", v), 16)
        end
    end
    return table.concat(out, " ")
end

local function result(floats, ok, ...)
    return ok and show(floats, ...) or "raises"
end

local function literal(v)
    if type(v) == "string" then
        return '"' .. v:gsub(".", function(c)
            return ("\\%03d"):format(c:byte())
        end) .. '"'
    elseif type(v) == "cdata" then
        return "0x" .. bit.tohex(v, 16)
    elseif v == math.floor(v) and math.abs(v) < 2 ^ 53 then
        return ("%d"):format(v)
    end
    return ("%.17g"):format(v)
end

local function any_integer(size)
    local r = random(8)
    if r == 1 then
        return random(-2, 2)
    elseif r == 2 then
        return -2 ^ math.min(8 * size - 1, 40)
    elseif r == 3 then
        return 2 ^ math.min(8 * size - 1, 40) - random(0, 1)
    elseif r == 4 then
        return 2 ^ math.min(8 * size, 40) - random(0, 1)
    elseif r == 5 then
        return ffi.cast("int64_t", random(-2 ^ 31, 2 ^ 31 - 1)) * 2147483647
    elseif r == 6 then
        return random() < 0.1 and 1.5 or 7
    end
    return random(0, 127)
end

local function any_text()
    local text = {}
    for k = 1, random(0, 12) do
        text[k] = string.char(random(random(6) == 1 and 0 or 1, 255))
    end
    return table.concat(text)
end

local SIZES = { b = 1, B = 1, h = 2, H = 2, l = 8, L = 8, j = 8, J = 8, T = 8,
    i = 4, I = 4 }

-- A format, what it takes, and which of its results are floats.
local function generate()
    local fmt, case, floats, n = {}, {}, {}, 0
    local function take(v, is_float)
        n = n + 1
        case[n], floats[n] = v, is_float
    end
    for k = 1, random(6) do
        local r = random(22)
        local c
        if r <= 9 then
            c = ("bBhHlLjJT"):sub(r, r)
            take(any_integer(SIZES[c]))
        elseif r <= 11 then
            c = r == 10 and "i" or "I"
            local size = 4
            if random(3) > 1 then
                size = random(40) == 1 and random(17, 99) or random(1, 16)
                c = c .. size
            end
            take(any_integer(size))
        elseif r <= 13 then
            c = ("fdn"):sub(random(3)):sub(1, 1)
            take(random(3) == 1 and random(-100, 100) + 0.5
                or random(-1000, 1000) / 1024 + 0.25, true)
        elseif r <= 15 then
            c = "s" .. (random(3) == 1 and "" or random(1, 16))
            take(any_text())
        elseif r == 16 then
            c = "z"
            take(any_text())
        elseif r == 17 then
            c = "c" .. random(0, 14)
            take(any_text())
        elseif r == 18 then
            c = ("<>="):sub(random(3)):sub(1, 1)
        elseif r == 19 then
            c = "!" .. (random(2) == 1 and "" or random(1, 16))
        elseif r == 20 then
            c = "x"
        elseif r == 21 then
            c = "X" .. ("bhijd"):sub(random(5)):sub(1, 1)
        else
            c = random(10) == 1 and ("X"):rep(random(2)) .. ("kz?c"):sub(
                random(4)) or " "
        end
        fmt[k] = c
    end
    case.n = random(30) == 1 and n - 1 or n
    case.fmt = table.concat(fmt)
    return case, floats
end

-- A loop that packs and unpacks with formats of all widths, over and over the
-- same bytes, and gives all that was seen. Numbers are shown with 17 digits,
-- because the newest LuaJIT rounds the 14 of tostring by what lies on the stack
-- of C where the next digits are close to a half.
local PROGRAM = [[
local buf, texts, seen = ...
local function see(v)
    seen[#seen + 1] = v ~= v and "nan"
        or type(v) == "number" and ("%%.17g"):format(v) or tostring(v)
end
for i = 1, 150 do
%s
end
seen[#seen + 1] = tostring(buf)
return seen
]]

local function generate_program()
    local lines = {}
    for k = 1, random(2, 5) do
        local fmt, values, names = { ("<>"):sub(random(2)):sub(1, 1) }, {}, {}
        local packs = random(2) == 1
        for n = 1, random(3) do
            local size = random(packs and 16 or 8)
            local r = random(packs and 8 or 5)
            names[n] = "v" .. n
            if r == 1 then
                fmt[#fmt + 1], values[n] = "I" .. size, "i * 50 % 251"
            elseif r == 2 then
                fmt[#fmt + 1], values[n] = "i" .. size, "63 - i % 127"
            elseif r == 3 then
                fmt[#fmt + 1], values[n] = "d", "i / -16"
            elseif r == 4 then
                fmt[#fmt + 1], values[n] = "f", "i % 2 * i"
            elseif r == 5 then
                fmt[#fmt + 1], values[n] = "!4 Xi4 c3 !1", "texts[i % 3 + 1]"
            elseif r == 6 then
                fmt[#fmt + 1], values[n] = "s" .. size, "texts[i % 2 + 1]"
            elseif r == 7 then
                fmt[#fmt + 1], values[n] = "z", "texts[i % 2 + 1]"
            else
                fmt[#fmt + 1], values[n] = "x J", "-i * 77LL"
            end
        end
        fmt = table.concat(fmt)
        lines[k] = packs and ("buf:pack(i %% %d + 1, %q, %s)"):format(
                random(3), fmt, table.concat(values, ", "))
            or ("do local %s = buf:unpack(i %% %d + 1, %q) see(%s) end"):format(
                table.concat(names, ", "), random(3), fmt,
                table.concat(names, ") see("))
    end
    return PROGRAM:format(table.concat(lines, "\n"))
end

describe("pack", function()
    local pool

    local seed = tonumber(os.getenv "SEED") or os.time()
    local steps = tonumber(os.getenv "BUFPOOL_STEPS") or 1000000

    setup(function()
        pool = bufpool.new()
        io.write("seed ", seed, "\n")
    end)
    before_each(function()
        math.randomseed(seed)
    end)
    teardown(function()
        pool:close()
    end)

    local test = have_lua53 and it or function(name)
        pending(name .. " (no lua5.3 here)")
    end

    test("and unpack do what Lua 5.3 does", function()
        local cases, mine, script = {}, {}, { "return {" }
        for k = 1, steps / 50 do
            local case, floats = generate()
            local buf = pool:writer()
            local ok, message = pcall(buf.pack, buf, 1, case.fmt,
                unpack(case, 1, case.n))
            local packed = tostring(buf)
            mine[#mine + 1] = ok and show({}, packed) or "raises"
            cases[k] = case.fmt .. ": " .. tostring(message)
            assert(ok or packed == "")
            local bytes = (ok and packed or any_text() .. any_text()) .. "\0"
            if random(4) == 1 then
                bytes = bytes:sub(1, random(#bytes)) .. "\0"
            end
            case.i = random(4) == 1 and random(#bytes + 1) or 1
            buf:set(bytes)
            mine[#mine + 1] = result(floats,
                pcall(buf.unpack, buf, case.i, case.fmt))
            buf:release()
            local text = {}
            for n = 1, case.n do
                text[n] = literal(case[n])
            end
            script[#script + 1] = ("{fmt=%s,bytes=%s,i=%d,n=%d,%s},"):format(
                literal(case.fmt), literal(bytes), case.i, case.n,
                table.concat(text, ","))
        end
        script[#script + 1] = "}"
        local oracle, list = os.tmpname(), os.tmpname()
        local file = assert(io.open(oracle, "w"))
        file:write(ORACLE)
        file:close()
        file = assert(io.open(list, "w"))
        file:write(table.concat(script, "\n"))
        file:close()
        local output, status = helper.shell("lua5.3 " .. helper.quote(oracle)
            .. " " .. helper.quote(list))
        os.remove(oracle)
        os.remove(list)
        assert.equal(0, status, output)
        local n, raised = 0, 0
        for line in output:gmatch "([^\n]*)\n" do
            n = n + 1
            raised = raised + (line == "raises" and 1 or 0)
            if line ~= mine[n] then
                error(("seed %d, %s: %s, not %s\n%s"):format(seed,
                    n % 2 == 1 and "pack" or "unpack", mine[n], line,
                    cases[math.ceil(n / 2)] .. "\n"
                    .. script[math.ceil(n / 2) + 1]))
            end
        end
        assert.equal(#mine, n)
        assert.is_true(raised > n / 100 and raised < n * 0.9)
    end)

    it("and unpack do on traces what they do off them", function()
        local compiling = jit.status()
        finally(function()
            if compiling then
                jit.on()
            end
        end)
        local function run(program, switch)
            local buf = pool:checkout(100):fill(1)
            switch()
            local all = assert(load(program))(buf, { "abc", "", "\255\0" }, {})
            buf:release()
            return all
        end
        for k = 1, steps / 5000 do
            local program = generate_program()
            local off = run(program, jit.off)
            local on = run(program, compiling and jit.on or jit.off)
            assert.equal(#off, #on)
            for n = 1, #off do
                if off[n] ~= on[n] then
                    error(("seed %d, program %d, value %d of %d: %q off "
                        .. "traces, %q on them\n%s"):format(seed, k, n, #off,
                        off[n], on[n], program))
                end
            end
        end
    end)

    it("takes formats of any length", function()
        for _, n in ipairs { 0, 63, 64, 65, 128, 129, 1000, 5000 } do
            local fmt, values, bytes, len = {}, {}, {}, 0
            for k = 1, n do
                local is_text = random(10) == 1
                fmt[k] = is_text and "s1" or "!2 Xi2 b"
                values[k] = is_text and "text" or random(100)
                bytes[k] = is_text and "\4text"
                    or ("\0"):rep(len % 2) .. string.char(values[k])
                len = len + #bytes[k]
            end
            fmt, bytes = table.concat(fmt), table.concat(bytes)
            local buf = pool:writer():pack(1, fmt, unpack(values, 1, n))
            assert.is_true(buf:equals(bytes), n)
            values[n + 1] = #bytes + 1
            assert.same(values, { buf:unpack(1, fmt) })
            raises(function() buf:resize(#bytes - 1):unpack(1, fmt) end)
            raises(function() buf:pack(1, fmt .. "b", unpack(values, 1, n)) end,
                ("#%d"):format(n + 3))
        end
    end)

    -- What this guards against is a compiler that does not come to an end.
    it("compiles formats that align again and again", function()
        local buf = pool:checkout(1000)
        local values = {}
        for n = 1, 63 do
            values[n] = n
            local fmt = ("!2 Xi2 b"):rep(n)
            for _ = 1, 100 do
                buf:pack(1, fmt, unpack(values))
                buf:unpack(1, fmt)
            end
            assert.equal(n, buf:byte(2 * n - 1))
        end
    end)

    it("forgets the formats of programs that make them up", function()
        local buf = pool:checkout(5000)
        local function memory(from, to)
            for k = from, to do
                local fmt = ("b"):rep(60) .. "c" .. k
                buf:unpack(1, fmt)
                pcall(buf.pack, buf, 1, fmt)
            end
            collectgarbage()
            return collectgarbage "count"
        end
        local before = memory(1, 300)
        assert.is_true(memory(301, 1000) < before + 3500)
    end)

    it("writes over what is there, and grows past the end", function()
        local buf = pool:writer():put("abcdefgh")
        assert.equal(buf, buf:pack(2, ">I2", 0x4142))
        assert.equal("aABdefgh", tostring(buf))
        buf:pack(-1, ">I4", 0x31323334)
        assert.equal("aABdefg1234", tostring(buf))
        buf:pack(12, "z", "end")
        assert.equal("aABdefg1234end\0", tostring(buf))
        buf:set(""):pack(1, "s1", pool:writer():put("other"))
        assert.equal("\5other", tostring(buf))
        buf:pack(1, "")
        assert.equal("\5other", tostring(buf))
    end)

    it("aligns from position 1", function()
        local buf = pool:writer():put("abc"):pack(4, "<!4 i4", 1)
        assert.equal("abc\0\1\0\0\0", tostring(buf))
        assert.equal(1, (buf:unpack(4, "<!4 i4")))
        assert.equal(9, select(2, buf:unpack(4, "<!4 i4")))
    end)

    it("gives wide integers as 64-bit integers of C", function()
        local f = pool:writer():pack(1, "<i4 I4 i8 I8 i5", -1, 2 ^ 32 - 1, -1,
            0xffffffffffffffffULL, -5):freeze()
        local a, b, c, d, e, after = f:unpack(1, "<i4 I4 i8 I8 i5")
        assert.equal(-1, a)
        assert.equal(2 ^ 32 - 1, b)
        assert.is_true(ffi.istype("int64_t", c) and c == -1LL)
        assert.is_true(ffi.istype("uint64_t", d) and d == -1ULL)
        assert.is_true(ffi.istype("int64_t", e) and e == -5LL)
        local i = pool:writer():pack(1, ">I7 i7 I16", 2LL ^ 56 - 1, -2LL ^ 55,
            -1ULL)
        assert.equal(("\255"):rep(7) .. "\128" .. ("\0"):rep(14)
            .. ("\255"):rep(8), tostring(i))
        local x, y, z = i:unpack(1, ">I7 i7 I16")
        assert.is_true(x == 2ULL ^ 56 - 1 and y == -2LL ^ 55 and z == -1ULL)
        assert.equal(#f + 1, after)
        assert.is_nil(f.pack)
    end)

    it("raises, and leaves the buffer as it was", function()
        local buf = pool:writer():put("abc")
        raises(function() buf:pack(1, "k") end, "bad argument #2 to 'pack'",
            "invalid format option 'k'")
        raises(function() buf:pack(1, "bb", 1) end, "bad argument #4 to 'pack'")
        raises(function() buf:pack(1, "b", "1") end, "number expected")
        raises(function() buf:pack(1, "b", 128) end, "integer overflow")
        raises(function() buf:pack(1, "B", -1) end, "unsigned overflow")
        raises(function() buf:pack(1, "j", 2 ^ 63) end, "integer overflow")
        raises(function() buf:pack(1, "j", 2ULL ^ 63) end, "integer overflow")
        raises(function() buf:pack(1, "h", 32768ULL) end, "integer overflow")
        raises(function() buf:pack(1, "I7", -1LL) end, "unsigned overflow")
        raises(function() buf:pack(1, "I7", 2LL ^ 56) end, "unsigned overflow")
        raises(function() buf:pack(1, "J", 2 ^ 64) end, "representation")
        raises(function() buf:pack(1, "j", helper.nan) end, "representation")
        raises(function() buf:pack(1, "j", helper.inf) end, "representation")
        raises(function() buf:pack(5, "b", 1) end, "bad argument #1 to 'pack'")
        raises(function() buf:pack(1.5, "b", 1) end, "integer expected")
        raises(function() buf:pack(1, 5) end, "bad argument #2 to 'pack'")
        raises(function() buf:pack(1, "z", {}) end, "bad argument #3")
        raises(function() buf:pack(1, "s1", ("x"):rep(256)) end,
            "string length does not fit")
        raises(function() buf:pack(1, "c2147483640", "") end, "too large")
        raises(function() buf:unpack(1, "c" .. ("9"):rep(400)) end, "too large")
        raises(function() buf:unpack(1, "c2147483639") end, "data too short")
        raises(function() buf:unpack(1, "I4") end, "data too short")
        raises(function() buf:unpack(1, "z") end, "unfinished string")
        raises(function() buf:unpack(5, "b") end, "argument #1 to 'unpack'")
        assert.equal("abc", tostring(buf))
        buf:release()
        raises(function() bufpool.default():writer().pack(buf, 1, "b", 1) end,
            "released buffer")
    end)
end)
