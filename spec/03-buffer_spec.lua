local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf
local pool = bufpool.new()

-- A buffer with these contents, its capacity above them.
local function with(text)
    local buf = pool:checkout(#text)
    buf:write(1, text)
    return buf
end

local function frozen(text)
    return with(text):freeze()
end

-- What string.sub gives when it is not compiled: on trace this LuaJIT gets some
-- ranges of variable ends wrong, plain Lua strings included.
local function piece_of(text, i, j)
    return text:sub(i, j)
end
jit.off(piece_of)

describe("a buffer as a string", function()
    -- Everything that reads does so alike for buffers and frozen objects.
    for kind, make in pairs { buffer = with, frozen = frozen } do
        describe("(" .. kind .. ")", function()
            it("has a length", function()
                local x = make "hello"
                assert.equal(5, #x)
                assert.equal(5, x:len())
                assert.equal(0, #make "")
            end)

            it("becomes a string", function()
                local text = "bin\0ary\255"
                assert.equal(text, tostring(make(text)))
                assert.equal(text, make(text):tostring())
                assert.equal("", tostring(make ""))
            end)

            it("concatenates to strings", function()
                local x = make "mid"
                assert.equal("<mid", "<" .. x)
                assert.equal("mid>", x .. ">")
                assert.equal("1mid", 1 .. x)
                assert.equal("mid2", x .. 2)
                assert.equal("midmid", x .. x)
                assert.equal("<mid>", "<" .. x .. ">")
                assert.is_string(x .. "")
            end)

            it("does not concatenate with what is no data", function()
                local x = make "mid"
                for _, y in ipairs { true, {}, print, io.stdout, pool } do
                    assert.is_false(pcall(function() return x .. y end))
                    assert.is_false(pcall(function() return y .. x end))
                end
            end)

            it("cuts as string.sub does", function()
                local text = "hello"
                local x = make(text)
                for i = -8, 8 do
                    assert.equal(piece_of(text, i, -1), x:sub(i))
                    for j = -8, 8 do
                        assert.equal(piece_of(text, i, j), x:sub(i, j))
                    end
                end
                assert.equal(text:sub(1.9, 2.9), x:sub(1.9, 2.9))
                assert.equal(text:sub(1.9, 3.1), x:sub(1.9, 3.1))
                assert.equal(text:sub(1.1, #text - 0.1),
                    x:sub(1.1, #text - 0.1))
                assert.equal(text:sub(-1.9), x:sub(-1.9))
                -- LuaJIT's own sub takes these modulo 2^32.
                assert.equal("", x:sub(2 ^ 40))
                assert.equal(text, x:sub(-2 ^ 40, 2 ^ 40))
                assert.equal("ell", x:sub(2LL, 4ULL))
                assert.equal("", make "":sub(1, 5))
            end)

            it("gives bytes as string.byte does", function()
                local text = "hello"
                local x = make(text)
                assert.equal(104, x:byte())
                for i = -7, 7 do
                    assert.same({ text:byte(i) }, { x:byte(i) })
                    for j = -7, 7 do
                        assert.same({ text:byte(i, j) }, { x:byte(i, j) })
                    end
                end
                assert.equal(text:byte(2.9), x:byte(2.9))
                assert.equal(text:byte(-1.2), x:byte(-1.2))
                assert.equal(101, x:byte(2LL))
                assert.equal(0, select("#", make "":byte()))
                assert.equal(0, select("#", x:byte(6)))
            end)

            it("gives every byte value", function()
                local all = {}
                for i = 0, 255 do
                    all[i + 1] = string.char(i)
                end
                local x = make(table.concat(all))
                for i = 0, 255 do
                    assert.equal(i, x:byte(i + 1))
                end
            end)

            it("finds as string.find does, plainly", function()
                local text = "abcabc\0x"
                local x = make(text)
                for _, needle in ipairs {
                    "a", "abc", "c\0x", "z", "abcabc\0xy", "", "bc",
                } do
                    for init = -10, 10 do
                        assert.same({ text:find(needle, init, true) },
                            { x:find(needle, init, true) })
                    end
                    assert.same({ text:find(needle, 1, true) },
                        { x:find(needle) })
                end
                assert.equal(7, (x:find "\0"))
                assert.equal(4, (x:find("a", 2LL)))
            end)

            it("finds pattern characters when asked to be plain", function()
                local x = make "1+1=2 (%d)"
                assert.equal(2, (x:find("+", 1, true)))
                assert.equal(8, (x:find("%d", 1, true)))
            end)

            it("raises on pattern characters without plain", function()
                local x = make "abc"
                for c in ("^$*+?.([%-"):gmatch "." do
                    raises(function() x:find("a" .. c) end, "#1", "'find'")
                    raises(function() x:find("a" .. c, 1, false) end, "'find'")
                end
            end)

            it("finds buffers and numbers", function()
                local x = make "pi is 3"
                assert.equal(4, (x:find(with "is")))
                assert.equal(4, (x:find(frozen "is")))
                assert.equal(7, (x:find(3)))
            end)

            it("equals data of the same bytes", function()
                local x = make "12"
                for _, name in ipairs { "equals", "equals_ct" } do
                    assert.is_true(x[name](x, "12"))
                    assert.is_true(x[name](x, 12))
                    assert.is_true(x[name](x, with "12"))
                    assert.is_true(x[name](x, frozen "12"))
                    assert.is_true(x[name](x, x))
                    assert.is_false(x[name](x, "1"))
                    assert.is_false(x[name](x, "123"))
                    assert.is_false(x[name](x, "13"))
                    assert.is_false(x[name](x, "22"))
                    assert.is_false(x[name](x, ""))
                    assert.is_true(make ""[name](make "", ""))
                end
            end)

            it("compares all of its bytes", function()
                local text = ("x"):rep(5000)
                local x = make(text)
                for _, i in ipairs { 1, 2, 63, 64, 65, 4096, 4999, 5000 } do
                    local other = text:sub(1, i - 1) .. "y" .. text:sub(i + 1)
                    assert.is_false(x:equals(other))
                    assert.is_false(x:equals_ct(other))
                end
                assert.is_true(x:equals_ct(text))
            end)

            it("raises on what is no data", function()
                local x = make "abc"
                for _, y in ipairs { true, {}, print, io.stdout, pool } do
                    raises(function() x:equals(y) end, "#1", "'equals'")
                    raises(function() x:equals_ct(y) end, "#1", "'equals_ct'")
                    raises(function() x:find(y) end, "#1", "'find'")
                end
                raises(function() x:equals() end, "#1", "'equals'")
                raises(function() x:find() end, "#1", "'find'")
            end)

            it("raises on positions that are no numbers", function()
                local x = make "abc"
                for _, i in ipairs { "1", "x", {}, true, print, nan } do
                    raises(function() x:sub(i) end, "#1", "'sub'")
                    raises(function() x:sub(1, i) end, "#2", "'sub'")
                    raises(function() x:byte(i) end, "#1", "'byte'")
                    raises(function() x:byte(1, i) end, "#2", "'byte'")
                    raises(function() x:find("a", i) end, "#2", "'find'")
                end
            end)

            it("gives its memory by ref", function()
                local x = make "hello"
                local p, n = x:ref()
                assert.equal(5, n)
                assert.equal("hello", ffi.string(p, n))
            end)
        end)
    end

    it("is not equal to its contents", function()
        local buf = with "abc"
        assert.is_false(buf == "abc")
        assert.is_false(buf == with "abc")
        assert.is_true(buf == buf)
    end)
end)

describe("write", function()
    it("overwrites from a position on", function()
        local buf = with "0123456789"
        assert.equal(buf, buf:write(1, "ab"))
        assert.equal("ab23456789", tostring(buf))
        buf:write(9, "yz")
        assert.equal("ab234567yz", tostring(buf))
        buf:write(-1, "!")
        assert.equal("ab234567y!", tostring(buf))
        buf:write(-10, "A")
        assert.equal("Ab234567y!", tostring(buf))
    end)

    it("takes every kind of data", function()
        local buf = with "........"
        buf:write(1, 12)
        buf:write(3, with "ab")
        buf:write(5, frozen "cd")
        buf:write(6, 1.5)
        assert.equal("12abc1.5", tostring(buf))
    end)

    it("takes the position as any integer", function()
        assert.equal("0x2", tostring(with "012":write(2LL, "x")))
        assert.equal("0x2", tostring(with "012":write(2ULL, "x")))
        assert.equal("01x", tostring(with "012":write(-1LL, "x")))
    end)

    it("writes nothing just past the end", function()
        local buf = with "abc"
        buf:write(4, "")
        buf:write(1, "")
        assert.equal("abc", tostring(buf))
        local empty = pool:checkout(0)
        empty:write(1, "")
        assert.equal("", tostring(empty))
    end)

    it("never grows the buffer", function()
        local buf = with "abcd"
        raises(function() buf:write(9, "x") end,
            "bad argument #1 to 'write'", "position 9 out of range", "length 4")
        raises(function() buf:write(5, "x") end, "'write'")
        raises(function() buf:write(4, "xy") end, "'write'")
        raises(function() buf:write(1, "abcde") end, "'write'")
        raises(function() buf:write(6, "") end, "#1", "'write'")
        raises(function() buf:write(0, "x") end, "#1", "'write'")
        raises(function() buf:write(0, "") end, "#1", "'write'")
        raises(function() buf:write(-5, "x") end, "#1", "'write'")
        assert.equal("abcd", tostring(buf))
        assert.equal(4, #buf)
    end)

    it("never says what it holds", function()
        local buf = with "s3cret"
        local message = raises(function() buf:write(99, "t0ken") end)
        assert.is_nil(message:find("s3cret", 1, true))
        assert.is_nil(message:find("t0ken", 1, true))
    end)

    it("raises on positions and data that are none", function()
        local buf = with "abcd"
        for _, i in ipairs {
            0.5, 1.5, nan, inf, -inf, 1e300, 2 ^ 53, -2 ^ 63, 2 ^ 64, "1", {},
            true, 0xffffffffffffffffULL, -5LL,
        } do
            raises(function() buf:write(i, "x") end, "#1", "'write'")
        end
        for _, data in ipairs { true, {}, print, io.stdout, pool, 1LL } do
            if type(data) ~= "cdata" then
                raises(function() buf:write(1, data) end, "#2", "'write'")
            end
        end
        raises(function() buf:write(1) end, "#2", "'write'")
        raises(function() buf:write() end, "'write'")
        assert.equal("abcd", tostring(buf))
    end)
end)

describe("copy", function()
    it("copies a whole source", function()
        local buf = with "........"
        assert.equal(buf, buf:copy(2, "abc"))
        buf:copy(5, with "de")
        buf:copy(7, frozen "f")
        assert.equal(".abcdef.", tostring(buf))
    end)

    it("copies a range of the source, clamped", function()
        for from = -6, 6 do
            for to = -6, 6 do
                local buf, piece = with ".....", piece_of("abcde", from, to)
                buf:copy(1, "abcde", from, to)
                assert.equal(piece .. ("."):rep(5 - #piece), tostring(buf))
            end
        end
        assert.equal("cd...", tostring(with ".....":copy(1, "abcde", 3, 4LL)))
        assert.equal("de...", tostring(with ".....":copy(1, "abcde", -2)))
    end)

    it("copies within the buffer, also where the ranges overlap", function()
        for to = 1, 6 do
            for from = 1, 6 do
                local text = "012345"
                local n = math.min(7 - to, 7 - from)
                local buf = with(text)
                buf:copy(to, buf, from, from + n - 1)
                assert.equal(text:sub(1, to - 1)
                    .. text:sub(from, from + n - 1)
                    .. text:sub(to + n), tostring(buf))
            end
        end
    end)

    it("never grows the buffer", function()
        local buf = with "abcd"
        raises(function() buf:copy(3, "xyz") end, "'copy'")
        raises(function() buf:copy(5, "x") end, "'copy'")
        raises(function() buf:copy(0, "x") end, "#1", "'copy'")
        assert.equal("abcd", tostring(buf))
        buf:copy(5, "xyz", 3, 2)
        assert.equal("abcd", tostring(buf))
    end)

    it("raises on positions and sources that are none", function()
        local buf = with "abcd"
        for _, i in ipairs { 0.5, nan, inf, "1", {}, true, 1e300 } do
            raises(function() buf:copy(i, "x") end, "#1", "'copy'")
        end
        for _, i in ipairs { 1.5, nan, "1", {}, true } do
            raises(function() buf:copy(1, "abc", i) end, "#3", "'copy'")
            raises(function() buf:copy(1, "abc", 1, i) end, "#4", "'copy'")
        end
        for _, data in ipairs { true, {}, print, io.stdout } do
            raises(function() buf:copy(1, data) end, "#2", "'copy'")
        end
        raises(function() buf:copy(1) end, "#2", "'copy'")
        assert.equal("abcd", tostring(buf))
    end)
end)

describe("setbyte", function()
    it("sets one or more bytes", function()
        local buf = with "....."
        assert.equal(buf, buf:setbyte(1, 65))
        buf:setbyte(3, 66, 67)
        buf:setbyte(-1, 68)
        assert.equal("A.BCD", tostring(buf))
    end)

    it("sets more than four bytes, or none of them", function()
        for _, n in ipairs { 5, 6, 9, 100, 3000 } do
            local buf, bytes = with(("."):rep(n + 2)), {}
            for k = 1, n do
                bytes[k] = k * 7 % 256
            end
            buf:setbyte(2, unpack(bytes))
            assert.same(bytes, { buf:byte(2, n + 1) })
            assert.equal(".", buf:sub(1, 1))
            assert.equal(".", buf:sub(-1))
            local before = tostring(buf)
            raises(function() buf:setbyte(4, unpack(bytes)) end, "#1",
                "'setbyte'")
            bytes[n] = "x"
            raises(function() buf:setbyte(1, unpack(bytes)) end,
                "#" .. n + 1, "'setbyte'")
            assert.equal(before, tostring(buf))
        end
    end)

    it("wipes what it has set above the mark", function()
        local fresh = bufpool.new()
        for n = 1, 7 do
            local buf = fresh:checkout(4096)
            buf:setbyte(4096 - n + 1, unpack({ 1, 2, 3, 4, 5, 6, 7 }, 1, n))
            buf:release()
            local heir = fresh:checkout(4096)
            assert.is_true(tostring(heir) == ("\0"):rep(4096))
            heir:release()
        end
    end)

    it("raises on what is no number, before anything is written", function()
        local buf = with "abcd"
        for _, v in ipairs { "1", "x", {}, true, print } do
            raises(function() buf:setbyte(1, v) end, "#2", "'setbyte'")
            raises(function() buf:setbyte(1, 1, v) end, "#3", "'setbyte'")
        end
        assert.equal("abcd", tostring(buf))
        raises(function() buf:setbyte(1, nil) end, "#2", "'setbyte'")
    end)

    it("never grows the buffer", function()
        local buf = with "abcd"
        for _, i in ipairs {
            5, 0, -5, 0.5, 1.5, nan, inf, -inf, 1e300, "1", {}, 2 ^ 53,
        } do
            raises(function() buf:setbyte(i, 1) end, "#1", "'setbyte'")
        end
        raises(function() buf:setbyte(4, 1, 2) end, "'setbyte'")
        assert.equal("abcd", tostring(buf))
    end)
end)

describe("fill", function()
    it("fills everything or a range", function()
        assert.equal("aaaa", tostring(with "....":fill(97)))
        assert.equal(".aa.", tostring(with "....":fill(97, 2, 3)))
        assert.equal("..aa", tostring(with "....":fill(97, -2)))
        assert.equal(".a..", tostring(with "....":fill(97, 2LL, 2ULL)))
        local buf = with "...."
        assert.equal(buf, buf:fill(0))
        assert.equal(helper.zeros(4), tostring(buf))
    end)

    it("clamps the range", function()
        assert.equal("aaaa", tostring(with "....":fill(97, -9, 9)))
        assert.equal("aaaa", tostring(with "....":fill(97, 0)))
        assert.equal("....", tostring(with "....":fill(97, 3, 2)))
        assert.equal("....", tostring(with "....":fill(97, 5)))
        assert.equal("", tostring(pool:checkout(0):fill(97)))
        assert.equal("aaaa", tostring(with "....":fill(97, 1, 2 ^ 53)))
    end)

    it("raises on bytes and positions that are none", function()
        local buf = with "...."
        for _, v in ipairs { "a", {}, true, print } do
            raises(function() buf:fill(v) end, "#1", "'fill'")
        end
        for _, i in ipairs { 1.5, nan, "1", {}, true } do
            raises(function() buf:fill(1, i) end, "#2", "'fill'")
            raises(function() buf:fill(1, 1, i) end, "#3", "'fill'")
        end
        raises(function() buf:fill() end, "#1", "'fill'")
        assert.equal("....", tostring(buf))
    end)
end)

describe("wipe", function()
    it("takes a buffer that free has emptied", function()
        local buf = bufpool.new():writer():put("x")
        buf:free()
        assert.equal("", buf:wipe():tostring())
        assert.equal("y", buf:put("y"):tostring())
        buf:release()
    end)

    it("zeroes all memory and empties", function()
        local buf = with "secret"
        local p = buf:ref()
        assert.equal(buf, buf:wipe())
        assert.equal(0, #buf)
        assert.equal(helper.zeros(4096), ffi.string(p, 4096))
        buf:put "again"
        assert.equal("again", tostring(buf))
    end)

    it("zeroes what was already consumed", function()
        local buf = with "secret and more"
        local p = buf:ref()
        buf:skip(7)
        buf:wipe()
        assert.equal(helper.zeros(15), ffi.string(p, 15))
    end)
end)

describe("resize", function()
    it("shrinks and grows, new bytes being zero", function()
        local buf = with "abcdef"
        assert.equal(buf, buf:resize(3))
        assert.equal("abc", tostring(buf))
        buf:resize(6)
        assert.equal("abc\0\0\0", tostring(buf))
        buf:resize(0)
        assert.equal("", tostring(buf))
        buf:resize(2LL)
        assert.equal("\0\0", tostring(buf))
    end)

    it("moves the contents through every class and beyond", function()
        local buf = with "abcdef"
        for _, n in ipairs {
            4096, 4097, 65537, 262145, 1048577, 5000000,
        } do
            buf:resize(n)
            assert.equal(n, #buf)
            assert.is_true(buf:capacity() >= n)
            assert.equal("abcdef", buf:sub(1, 6))
            assert.equal(helper.zeros(n - 6), buf:sub(7))
        end
        buf:resize(6)
        assert.equal("abcdef", tostring(buf))
    end)

    it("raises on sizes that are none or cannot be had", function()
        local buf = with "abcd"
        for _, n in ipairs {
            -1, 0.5, nan, inf, -inf, 1e300, 2 ^ 63, -1LL, "1", {}, true,
            0xffffffffffffffffULL, 2 ^ 62, 0x7fffffffffffffffLL,
        } do
            raises(function() buf:resize(n) end, "'resize'")
        end
        raises(function() buf:resize() end, "#1", "'resize'")
        assert.equal("abcd", tostring(buf))
    end)
end)

describe("capacity", function()
    it("counts from position 1", function()
        local buf = with "abcdef"
        assert.equal(4096, buf:capacity())
        buf:skip(2)
        assert.equal(4094, buf:capacity())
    end)
end)

describe("after release, freeze or free", function()
    local methods = {
        "len", "capacity", "tostring", "sub", "byte", "find", "write", "copy",
        "setbyte", "fill", "wipe", "resize", "put", "putcdata", "set",
        "reserve", "commit", "get", "skip", "reset", "ref", "free",
        "readfrom", "readinto", "writeto", "equals", "equals_ct", "freeze",
        "detach", "release",
    }

    it("every method of a released buffer raises and says so", function()
        local buf = pool:checkout(8)
        local f = {}
        for _, name in ipairs(methods) do
            f[name] = buf[name]
        end
        buf:release()
        for _, name in ipairs(methods) do
            raises(function() f[name](buf, 1, 1) end, "released")
            raises(function() buf[name](buf, 1, 1) end,
                "attempt to use a released buffer")
        end
        raises(function() return #buf end, "released")
        raises(function() return buf .. "x" end, "released")
        raises(function() return "x" .. buf end, "released")
        assert.equal("bufpool.buffer: released", tostring(buf))
    end)

    it("every method of a frozen-away buffer raises and says so", function()
        local buf = pool:checkout(8)
        local f = {}
        for _, name in ipairs(methods) do
            f[name] = buf[name]
        end
        local kept = buf:freeze()
        for _, name in ipairs(methods) do
            raises(function() f[name](buf, 1, 1) end, "frozen")
            raises(function() buf[name](buf, 1, 1) end,
                "attempt to use a frozen buffer")
        end
        raises(function() return #buf end, "frozen")
        assert.equal(8, #kept)
    end)

    it("a released buffer is no data for others", function()
        local dead, buf = pool:checkout(1), with "abcd"
        dead:release()
        raises(function() buf:write(1, dead) end, "released")
        raises(function() buf:put(dead) end, "released")
        raises(function() buf:copy(1, dead) end, "released")
        raises(function() buf:equals(dead) end, "released")
        raises(function() buf:find(dead) end, "released")
        raises(function() buf:set(dead) end, "released")
        assert.equal("abcd", tostring(buf))
    end)

    it("a released buffer stays dead when its memory has a new owner",
        function()
            local dead = pool:checkout(64)
            local write = dead.write
            dead:release()
            local all = {}
            for i = 1, 100 do
                all[i] = pool:checkout(64)
            end
            raises(function() write(dead, 1, "x") end, "released")
            raises(function() dead:release() end, "released")
            for i = 1, 100 do
                assert.equal(helper.zeros(64), tostring(all[i]))
                all[i]:release()
            end
        end)
end)
