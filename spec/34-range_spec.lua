-- Methods that work on a range of bytes in one call, against loops over bytes
-- in plain Lua. SEED and ROUNDS may be set in the environment.
local bit = require "bit"
local bufpool = require "bufpool"
local helper = require "support.helper"

local random = math.random
local seed = helper.seed()
local rounds = tonumber(os.getenv "ROUNDS") or 300

local pool = bufpool.new()

local function bytes(n)
    local t = {}
    for k = 1, n do
        t[k] = string.char(random(0, 255))
    end
    return table.concat(t)
end

-- A range as string.sub takes it.
local function clamp(i, j, n)
    i, j = i < 0 and n + i + 1 or i, j < 0 and n + j + 1 or j
    return math.max(i, 1), math.max(math.min(j, n), 0)
end

-- Objects of each kind with a text. Some bytes before it are consumed, and some
-- behind it have been written.
local makers = {}
function makers.buffer(text)
    local n = random(0, 9)
    return pool:writer():put(bytes(n), text, bytes(9)):resize(n + #text)
        :skip(n)
end
function makers.handle(text)
    return pool:borrow(0):put(text)
end
function makers.frozen(text)
    return makers.buffer(text):freeze()
end
function makers.slice(text)
    local n = random(0, 9)
    return pool:writer():put(bytes(n), text, bytes(9)):freeze()
        :slice(n + 1, n + #text)
end

local function length()
    local r = random(20)
    return r <= 12 and random(0, 40) or r <= 19 and random(0, 600)
        or random(4000, 4200)
end

local function some_position(n)
    return random(-n - 3, n + 3)
end

local function check(round, got, want)
    if got ~= want then
        error(("seed %d, round %d: not the same"):format(seed, round))
    end
end

local KINDS = { "buffer", "handle", "frozen", "slice" }

-- The text itself, or an object that has it.
local function some_data(text)
    local kind = KINDS[random(5)]
    return kind and makers[kind](text) or text
end

local function release(x)
    if type(x) ~= "string" then
        x:release()
    end
end

-- What is wrong names the argument, and leaves the contents as they were.
local function refuses(b, name, arg, what, ...)
    local before, values, n = b:tostring(), { ... }, select("#", ...)
    helper.raises(function()
        b[name](b, unpack(values, 1, n))
    end, ("bad argument #%d to '%s'"):format(arg, name), what)
    assert.equal(before, b:tostring())
end

describe("xor", function()
    local function xored(text, i, j, key, at)
        local t = {}
        i, j = clamp(i, j, #text)
        for k = 1, #text do
            t[k] = text:byte(k)
            if k >= i and k <= j then
                t[k] = bit.bxor(t[k], key:byte((at - 1 + k - i) % #key + 1))
            end
            t[k] = string.char(t[k])
        end
        return table.concat(t)
    end

    for _, kind in ipairs { "buffer", "handle" } do
        it("does what a loop does, to a " .. kind, function()
            for round = 1, rounds do
                local text = bytes(length())
                local key = bytes(random(4) == 1 and random(100)
                    or random(9) == 1 and random(1000, 3000) or random(9))
                local i, j = some_position(#text), some_position(#text)
                local at = random(3) > 1 and random(2 * #key) or nil
                local b, source = makers[kind](text), some_data(key)
                assert.equal(b, b:xor(i, j, source, at))
                check(round, b:tostring(), xored(text, i, j, key, at or 1))
                release(b)
                release(source)
            end
        end)
    end

    it("takes all bytes unless i and j are given", function()
        local b = pool:writer():put "abc"
        assert.equal("ABC", b:xor(nil, nil, " "):tostring())
        assert.equal("Abc", b:xor(2, nil, " "):tostring())
        assert.equal("aBc", b:xor(nil, 2, " "):tostring())
        assert.equal("PBc", b:xor(1, 1, 1):tostring())
        b:release()
    end)

    it("masks more than a MiB, a piece at a time, as at once", function()
        local n, key = 2 ^ 20 + 12345, bytes(7)
        local text = bytes(997):rep(math.ceil(n / 997)):sub(1, n)
        local whole = pool:checkout(n):write(1, text):xor(1, -1, key)
        local pieces = pool:checkout(n):write(1, text)
        local i = 1
        while i <= n do
            local j = i + random(100000)
            pieces:xor(i, j, key, i)
            i = j + 1
        end
        assert.is_true(whole:equals(pieces))
        assert.equal(xored(text:sub(-9), 1, -1, key, n - 8), whole:sub(-9))
        assert.equal(text, whole:xor(1, -1, key):tostring())
        whole:release()
        pieces:release()
    end)

    it("leaves nothing behind in what was never written", function()
        local own = bufpool.new { classes = { { size = 4096 } } }
        own:checkout(4096):xor(100, -1, "key"):release()
        local b = own:checkout(4096)
        assert.is_true(b:equals(helper.zeros(4096)))
        b:release()
    end)

    it("takes every offset that a number can be", function()
        local b = pool:writer():put "aaa"
        for _, at in ipairs { 2 ^ 53 - 1, 2 ^ 53 - 2, 2 ^ 52 + 1, 5ULL,
            9007199254740991LL, 9007199254740990ULL } do
            b:set "aaa":xor(1, -1, "\0\1\2", at)
            assert.equal(xored("aaa", 1, -1, "\0\1\2",
                math.fmod(tonumber(at), 3)), b:tostring())
        end
        b:release()
    end)

    it("refuses what is no range, no key and no offset", function()
        for _, kind in ipairs { "buffer", "handle" } do
            local b = makers[kind] "text"
            refuses(b, "xor", 1, "integer expected, got 1.5", 1.5, 2, "k")
            refuses(b, "xor", 1, "integer expected, got nan", helper.nan, 2,
                "k")
            refuses(b, "xor", 2, "number expected, got string", 1, "2", "k")
            refuses(b, "xor", 3, "the key is empty", 1, 2, "")
            refuses(b, "xor", 3, "the key is empty", 3, 2, "")
            refuses(b, "xor", 3, "got nil", 1, 2)
            refuses(b, "xor", 3, "got table", 1, 2, {})
            refuses(b, "xor", 3, "its own key", 1, 2, b)
            refuses(b, "xor", 4, "position 0", 1, 2, "k", 0)
            for _, at in ipairs { 2 ^ 53, 2 ^ 62, 9007199254740993LL,
                0x7fffffffffffffffLL, 9007199254740992ULL } do
                refuses(b, "xor", 4, "above 2^53 - 1", 1, 2, "k", at)
            end
            for _, at in ipairs { -1, 0.5, helper.nan, helper.inf, "1" } do
                refuses(b, "xor", 4, "expected, got", 1, 2, "k", at)
            end
            local dead = makers.buffer "key"
            dead:release()
            helper.raises(function() b:xor(1, 2, dead) end,
                "attempt to use a released buffer")
            b:release()
            helper.raises(function() b:xor(1, 2, "k") end,
                "attempt to use a released")
        end
        local f = makers.frozen "text"
        assert.is_nil(f.xor)
    end)
end)

describe("of a range,", function()
    local crc_of = {}
    for i = 0, 255 do
        local c = i
        for _ = 1, 8 do
            c = bit.bxor(bit.rshift(c, 1),
                bit.band(c, 1) * bit.tobit(0xedb88320))
        end
        crc_of[i] = c
    end

    -- By method: a loop over bytes; the checksums of "" and of "123456789".
    local sums = {
        crc32 = { loop = function(text, before)
            local c = bit.bnot(before)
            for k = 1, #text do
                c = bit.bxor(crc_of[bit.band(bit.bxor(c, text:byte(k)), 255)],
                    bit.rshift(c, 8))
            end
            return bit.bnot(c) % 2 ^ 32
        end, none = 0, digits = 0xcbf43926 },
        adler32 = { loop = function(text, before)
            local a, b = before % 65536, math.floor(before / 65536)
            for k = 1, #text do
                a = (a + text:byte(k)) % 65521
                b = (b + a) % 65521
            end
            return b * 65536 + a
        end, none = 1, digits = 0x091e01de },
    }

    for name, sum in pairs(sums) do
        for _, kind in ipairs(KINDS) do
            it(("%s of a %s is what a loop gives"):format(name, kind),
                function()
                    for round = 1, rounds do
                        local text = bytes(length())
                        local i, j = some_position(#text),
                            some_position(#text)
                        local from, to = clamp(i, j, #text)
                        local before = random(3) == 1 and sum.loop(bytes(9),
                            sum.none) or nil
                        local x = makers[kind](text)
                        check(round, x[name](x, i, j, before),
                            sum.loop(text:sub(from, to), before or sum.none))
                        check(round, x[name](x), sum.loop(text, sum.none))
                        release(x)
                    end
                end)
        end

        it(name .. " is the well-known one", function()
            local x = pool:writer():put "123456789"
            assert.equal(sum.digits, x[name](x))
            assert.equal(sum.digits, x[name](x, 1))
            assert.equal(sum.digits, x[name](x, nil, -1))
            assert.equal(sum.none, x[name](x, 5, 4))
            assert.equal(7, x[name](x, 100, -100, 7))
            x:free()
            assert.equal(sum.none, x[name](x))
            assert.equal(7, x[name](x, 1, -1, 7))
            x:release()
            x = pool:writer():freeze()
            assert.equal(sum.none, x[name](x))
            x:release()
        end)

        it(name .. " of more than a MiB, a piece at a time", function()
            local n = 2 ^ 20 + 4321
            local x = pool:checkout(n)
            for i = 1, n - 3, 4 do
                x:set_u32be(i, i * 40503)
            end
            local i, before = 1, nil
            while i <= n do
                local j = i + random(100000)
                before, i = x[name](x, i, j, before), j + 1
            end
            assert.equal(before, x[name](x))
            assert.equal(sum.loop(x:tostring(), sum.none), before)
            x:release()
        end)

        it(name .. " refuses what is no range and no number", function()
            for _, kind in ipairs(KINDS) do
                local x = makers[kind] "text"
                refuses(x, name, 1, "integer expected, got 1.5", 1.5)
                refuses(x, name, 1, "integer expected, got nan", helper.nan)
                refuses(x, name, 2, "number expected, got string", 1, "2")
                refuses(x, name, 3, "number expected, got string", 1, 2, "0")
                local want = sum.loop("text", 5)
                for _, before in ipairs { 5, 5.5, 5LL, 5ULL, 2 ^ 32 + 5 } do
                    assert.equal(want, x[name](x, 1, -1, before))
                end
                assert.equal(x[name](x, 1, -1, 0),
                    x[name](x, 1, -1, helper.nan))
                x:release()
                helper.raises(function() x[name](x) end, "attempt to use a")
            end
        end)
    end

    it("a checksum says so where there is no zlib", function()
        local folder = os.tmpname()
        os.remove(folder)
        local code = ([[
            package.path, package.cpath = %q, %q
            local x = require("bufpool").default():writer():put "abc"
            for _, name in ipairs { "crc32", "adler32" } do
                print(pcall(function() return x[name](x) end))
                print(pcall(function() return x[name](x, 9) end))
            end
            print(x)]]):format(package.path, package.cpath)
        local said, status = helper.shell(([[
            mkdir FOLDER && echo no library >FOLDER/libz.so.1 || exit 9
            LD_LIBRARY_PATH=FOLDER:$LD_LIBRARY_PATH %s -e %s
            rm -r FOLDER]]):format(helper.interpreter(), helper.quote(code))
            :gsub("FOLDER", folder), nil)
        assert.equal(0, status)
        local want = "false\t(command line): '%s' needs zlib 1.2.9 or "
            .. "later: libz.so.1 cannot be loaded\n"
        assert.equal(want:format("crc32"):rep(2)
            .. want:format("adler32"):rep(2) .. "abc\n",
            (said:gsub("command line%):%d+", "command line)")))
    end)
end)

describe("put_range", function()
    -- What a loop appends, byte by byte: of the buffer itself also what it has
    -- just appended.
    local function appended(text, source, i, j)
        local out, n = {}, 0
        local from, to = clamp(i, j, #(source or text))
        if not source and j > #text then
            to = j
        end
        for k = from, to do
            n = n + 1
            if not source and k > #text then
                out[n] = out[k - #text]
            else
                out[n] = (source or text):sub(k, k)
            end
        end
        return text .. table.concat(out)
    end

    for _, kind in ipairs { "buffer", "handle" } do
        it("does what a loop does, to a " .. kind, function()
            for round = 1, rounds do
                local text, other = bytes(length()), bytes(length())
                local i, j = some_position(#other), some_position(#other)
                local b, source = makers[kind](text), some_data(other)
                assert.equal(b, b:put_range(source, i, j))
                check(round, b:tostring(), appended(text, other, i, j))
                release(b)
                release(source)
            end
        end)

        it("reads what it appends, of a " .. kind .. " itself", function()
            for round = 1, rounds do
                local text = bytes(1 + length())
                local b = makers[kind](text)
                for _ = 1, 3 do
                    local i = random(4) == 1 and -random(#text)
                        or math.max(1, #text + 1 - random(random(#text)))
                    local j = random(4) == 1 and some_position(#text)
                        or #text + length() - 9
                    assert.equal(b, b:put_range(b, i, j))
                    text = appended(text, nil, i, j)
                    check(round, b:tostring(), text)
                end
                release(b)
            end
        end)
    end

    it("takes all bytes unless i and j are given", function()
        local b = pool:writer():put_range "abc"
        assert.equal("abcbc", b:put_range("abc", 2):tostring())
        assert.equal("abcbcbc", b:put_range(b, -2):tostring())
        assert.equal(14, #b:put_range(b))
        assert.equal("abcbcbcabcbcbc12", b:put_range(12):tostring())
        b:release()
    end)

    it("repeats one byte, and more, over more than a MiB", function()
        local b = pool:writer():put "abc"
        b:put_range(b, 3, 2 ^ 20 + 1000)
        assert.equal(2 ^ 20 + 1000 + 1, #b)
        assert.is_true(b:equals("ab" .. ("c"):rep(2 ^ 20 + 999)))
        b:set "abcdefg":put_range(b, 1, 2 ^ 20 * 7)
        assert.is_true(b:equals(("abcdefg"):rep(2 ^ 20 + 1)))
        b:release()
        local own = bufpool.new { max_bytes = 2 ^ 21 }
        b = own:writer():put("abc"):put_range("xyz", 1, 1e300)
        helper.raises(function() b:put_range(b, 1, 2 ^ 22) end,
            "cannot grow in 'put_range': max_bytes of the pool reached")
        helper.raises(function() b:put_range(b, 1, 2 ^ 62) end,
            "cannot grow in 'put_range'")
        assert.equal("abcxyz", b:tostring())
        b:release()
        own:close()
    end)

    it("leaves nothing behind", function()
        local own = bufpool.new { classes = { { size = 4096 } } }
        local b = own:checkout(10):xor(1, -1, "k")
        b:put_range(b, 3, 2000):put_range(("s"):rep(2000)):release()
        b = own:checkout(4096)
        assert.is_true(b:equals(helper.zeros(4096)))
        b:release()
    end)

    it("refuses what is no range, and to begin where nothing is", function()
        for _, kind in ipairs { "buffer", "handle" } do
            local b = makers[kind] "text"
            refuses(b, "put_range", 1, "got nil")
            refuses(b, "put_range", 1, "got table", {}, 1, 2)
            for _, x in ipairs { b, "string" } do
                refuses(b, "put_range", 2, "got 1.5", x, 1.5, 2)
                refuses(b, "put_range", 2, "got nan", x, helper.nan, 2)
                refuses(b, "put_range", 3, "got string", x, 1, "2")
            end
            refuses(b, "put_range", 2, "position 5 out of range, length 4", b,
                5, 5)
            refuses(b, "put_range", 3, "size expected, got inf", b, 1,
                helper.inf)
            refuses(b, "put_range", 3, "size expected", b, 1, 2 ^ 63)
            for _, range in ipairs { { 9, 4 }, { 5, 4 }, { 9, 8 }, { 3, -3 },
                { 2 ^ 60, 5 } } do
                b:put_range(b, range[1], range[2])
            end
            assert.equal("text", b:tostring())
            b:reset():put_range(b)
            refuses(b, "put_range", 2, "position 1 out of range, length 0", b,
                1, 1)
            local dead = makers.buffer "dead"
            dead:release()
            helper.raises(function() b:put_range(dead) end,
                "attempt to use a released buffer")
            b:release()
            helper.raises(function() b:put_range "x" end,
                "attempt to use a released")
        end
    end)
end)

-- Where the first byte of what is looked for is rare, and where it is frequent,
-- the search goes another way, and changes over in between.
describe("find", function()
    local function letters(n, kinds)
        local t = {}
        for k = 1, n do
            t[k] = string.char(96 + random(kinds))
        end
        return table.concat(t)
    end

    for _, kind in ipairs(KINDS) do
        it("in a " .. kind .. " finds what string.find finds", function()
            for round = 1, rounds do
                local kinds = random(26)
                local text = letters(length(), kinds) .. letters(length(), 2)
                local at = random(#text + 1)
                local needle = text:sub(at, at + random(0, 20)
                    + (random(4) == 1 and random(200) or 0))
                if random(2) == 1 then
                    needle = needle .. letters(random(2), kinds)
                end
                local init = some_position(#text)
                local x, source = makers[kind](text), some_data(needle)
                local first, last = x:find(source, init, true)
                local want, want_last = text:find(needle, init, true)
                check(round, first, want)
                check(round, last, want_last)
                release(x)
                release(source)
            end
        end)
    end

    it("finds past 2 GiB, and reads there", function()
        local far = 2 ^ 31 + 50
        local x = assert(pool:checkout(far + 50))
        for i = 1, 100 do
            local at = far - i % 2
            x:set_u8(at, 120)
            local from = 2 ^ 31 - 60 + i
            assert.same({ at, at }, { x:find("x", from, true) })
            assert.same({ at, at }, { x:find("x", from) })
            assert.equal("x", x:sub(at, at))
            assert.equal("\0x", x:sub(at - 1, at))
            assert.has_error(function() x:find("%", from) end)
            x:set_u8(at, 0)
        end
        x:release()
    end)

    it("goes over from one way to the other at any place", function()
        for gap = 1, 40 do
            local text = ("a" .. ("x"):rep(gap - 1)):rep(30)
            local x = pool:writer():put(text, "ab", text)
            assert.equal(#text + 1, (x:find("ab", 1, true)))
            assert.equal(#text + 1, (x:find("ab", gap + 1, true)))
            assert.is_nil(x:find("ab", #text + 2, true))
            assert.equal(2 * #text + 2 - (gap - 1),
                (x:find("a" .. ("x"):rep(gap - 1), -gap, true)))
            assert.is_nil(x:find("a" .. ("x"):rep(gap), -gap, true))
            x:release()
        end
    end)
end)

describe("find_any", function()
    local function found(text, set, init)
        for k = (clamp(init, -1, #text)), #text do
            if set:find(text:sub(k, k), 1, true) then
                return k
            end
        end
    end

    for _, kind in ipairs(KINDS) do
        it("of a " .. kind .. " finds what a loop finds", function()
            for round = 1, rounds do
                local text = bytes(length())
                local set = bytes(random(4) == 1 and random(300) - 1
                    or random(5) - 1)
                if random(3) == 1 then
                    text = text:gsub(".", function(c)
                        return not set:find(c, 1, true) and c or nil
                    end)
                end
                local init = random(3) > 1 and some_position(#text) or nil
                local x, source = makers[kind](text), some_data(set)
                check(round, x:find_any(source, init),
                    found(text, set, init or 1))
                release(x)
                release(source)
            end
        end)
    end

    it("finds each byte, at each place", function()
        for byte = 0, 255 do
            local c = string.char(byte)
            local other = string.char((byte + 1) % 256)
            local x = pool:writer():put(other:rep(70), c)
            assert.equal(71, x:find_any(c))
            assert.equal(71, x:find_any(c .. c, -1))
            assert.is_nil(x:find_any(c, 72))
            assert.equal(1, x:find_any(c .. other))
            assert.equal(70, x:find_any(x, 70))
            x:release()
        end
    end)

    it("finds nothing where there is nothing", function()
        local x = pool:writer()
        assert.is_nil(x:find_any "abc")
        assert.is_nil(x:find_any(x))
        x:put "abc"
        assert.is_nil(x:find_any "")
        for _, init in ipairs { 4, 5, 2 ^ 53, 2 ^ 63, 1e300, helper.inf } do
            assert.is_nil(x:find_any("abc", init))
        end
        assert.equal(1, x:find_any("abc", -helper.inf))
        assert.equal(2, x:find_any(123 .. "b", 2LL))
        x:release()
    end)

    it("refuses what is no data and no position", function()
        for _, kind in ipairs(KINDS) do
            local x = makers[kind] "text"
            refuses(x, "find_any", 1, "got nil")
            refuses(x, "find_any", 1, "got table", {})
            refuses(x, "find_any", 2, "got 1.5", "t", 1.5)
            refuses(x, "find_any", 2, "got nan", "t", helper.nan)
            refuses(x, "find_any", 2, "got string", "t", "1")
            x:release()
            helper.raises(function() x:find_any "t" end, "attempt to use a")
        end
    end)
end)
