local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local pool = bufpool.new()

local function frozen(text)
    return pool:writer():put(text):freeze()
end

describe("ref of a frozen object", function()
    it("gives the pointer and the length, and nothing else", function()
        assert.equal(2, select("#", frozen "abc":ref()))
    end)
end)

describe("freeze", function()
    it("moves nothing", function()
        local buf = pool:writer():put "contents"
        local address = helper.address((buf:ref()))
        local f = buf:freeze()
        assert.equal("frozen", bufpool.type(f))
        assert.equal(address, helper.address((f:ref())))
        assert.equal("contents", tostring(f))
    end)

    it("freezes what is left after skip", function()
        assert.equal("cd", tostring(pool:writer():put "abcd":skip(2):freeze()))
    end)

    it("counts as out until it is released", function()
        local own = bufpool.new()
        local f = own:checkout(8):freeze()
        assert.equal(1, own:stats().checked_out)
        assert.equal(1, own:stats().classes[1].out)
        f:release()
        assert.equal(0, own:stats().checked_out)
    end)

    it("works for every size", function()
        for _, n in ipairs { 0, 1, 4097, 65537, 262145, 1048577 } do
            local f = pool:checkout(n):fill(97):freeze()
            assert.equal(("a"):rep(n), tostring(f))
            f:release()
        end
    end)
end)

describe("frozen objects", function()
    it("are equal by content", function()
        assert.is_true(frozen "abc" == frozen "abc")
        assert.is_false(frozen "abc" == frozen "abd")
        assert.is_false(frozen "abc" == frozen "ab")
        assert.is_true(frozen "" == frozen "")
        assert.is_true(frozen "a\0b" == frozen "a\0b")
        assert.is_false(frozen "a\0b" == frozen "a\0c")
        assert.is_true(frozen "abc" ~= frozen "abd")
    end)

    it("are equal to nothing else", function()
        local f = frozen "abc"
        assert.is_false(f == "abc")
        assert.is_false(f == pool:writer():put "abc")
        assert.is_false(f == 1)
        assert.is_false(f == nil)
        assert.is_false(f == io.stdout)
        assert.is_false(f == pool)
    end)

    it("are ordered by bytes", function()
        local words = {
            "", "\0", "\0\0", "A", "a", "a\0", "a\0b", "aa", "ab", "b",
            "\127", "\128", "\255", "\255\0",
        }
        for i, a in ipairs(words) do
            for j, b in ipairs(words) do
                local x, y = frozen(a), frozen(b)
                assert.equal(i < j, x < y)
                assert.equal(i <= j, x <= y)
                assert.equal(i > j, x > y)
                assert.equal(i >= j, x >= y)
                assert.equal(i == j, x == y)
            end
        end
    end)

    it("sort", function()
        local list, expected = {}, {}
        for i = 1, 200 do
            local word = tostring(i * 7919 % 1009)
            list[i], expected[i] = frozen(word), word
        end
        table.sort(list)
        table.sort(expected)
        for i, f in ipairs(list) do
            assert.equal(expected[i], tostring(f))
        end
    end)

    it("have no writer", function()
        local f = frozen "abc"
        for _, name in ipairs {
            "write", "copy", "setbyte", "fill", "xor", "wipe", "resize", "put",
            "putcdata", "set", "reserve", "commit", "get", "skip", "reset",
            "free", "readfrom", "readinto", "freeze", "detach", "put_varint",
            "get_varint", "put_zigzag", "get_zigzag64", "take", "split_to",
            "prepend",
        } do
            assert.is_nil(f[name], name)
            raises(function() f[name](f, 1, "x") end)
            local method = pool:writer()[name]
            raises(function() method(f, 1, "x") end, "'" .. name .. "'")
        end
        assert.equal("abc", tostring(f))
    end)

    it("are data for buffers", function()
        local f = frozen "abc"
        assert.equal("abcabc", tostring(pool:writer():put(f, f)))
    end)

    it("give a pointer that C code is asked not to write through", function()
        local f = frozen "abc"
        local p, n = f:ref()
        assert.equal("abc", ffi.string(p, n))
        assert.is_false(pcall(function() p[0] = 65 end))
        assert.equal("abc", tostring(f))
    end)
end)

describe("slice", function()
    it("shares the memory of a range", function()
        local f = frozen "0123456789"
        local s = f:slice(3, 5)
        assert.equal("frozen", bufpool.type(s))
        assert.equal("234", tostring(s))
        assert.equal(helper.address((f:ref())) + 2, helper.address((s:ref())))
    end)

    it("clamps its range as sub does", function()
        local text = "abcde"
        local f = frozen(text)
        for i = -7, 7 do
            assert.equal(text:sub(i), tostring(f:slice(i)))
            for j = -7, 7 do
                assert.equal(text:sub(i, j), tostring(f:slice(i, j)))
            end
        end
        assert.equal("bc", tostring(f:slice(2LL, 3ULL)))
    end)

    it("nests", function()
        local s = frozen "0123456789":slice(2, 9):slice(2, -2)
        assert.equal("234567", tostring(s))
        assert.equal(50, s:byte(1))
        assert.equal(55, s:byte(-1))
        assert.is_nil((s:byte(7)))
    end)

    it("is equal and ordered by its own bytes", function()
        local f = frozen "abcabc"
        assert.is_true(f:slice(1, 3) == f:slice(4, 6))
        assert.is_true(f:slice(1, 3) < f:slice(2, 4))
    end)

    it("raises on positions that are none", function()
        local f = frozen "abc"
        for _, i in ipairs { 0.5, helper.nan, "1", {}, true } do
            raises(function() f:slice(i) end, "#1", "'slice'")
            raises(function() f:slice(1, i) end, "#2", "'slice'")
        end
    end)

    it("outlives what it was cut from", function()
        local own = bufpool.new()
        local f = own:writer():put(("x"):rep(5000) .. "the end"):freeze()
        local s, c = f:slice(-7), f:clone()
        f:release()
        assert.equal("the end", tostring(s))
        assert.equal(1, own:stats().checked_out)
        c:release()
        assert.equal("the end", tostring(s))
        assert.equal(1, own:stats().checked_out)
        s:release()
        assert.equal(0, own:stats().checked_out)
    end)
end)

describe("clone", function()
    it("is another handle on the same bytes", function()
        local f = frozen "abc"
        local c = f:clone()
        assert.is_true(f == c)
        assert.is_false(rawequal(f, c))
        assert.equal(helper.address((f:ref())), helper.address((c:ref())))
        f:release()
        assert.equal("dead", bufpool.type(f))
        assert.equal("abc", tostring(c))
    end)

    it("gives the memory back with the last of many", function()
        local own = bufpool.new()
        local list = { own:checkout(8):freeze() }
        for i = 2, 100 do
            list[i] = list[i - 1]:clone()
        end
        for i = 1, 99 do
            list[i]:release()
            assert.equal(1, own:stats().checked_out)
        end
        list[100]:release()
        assert.equal(0, own:stats().checked_out)
    end)

    it("leaves the rest to the collector", helper.uncollected(function()
        local own = bufpool.new()
        helper.apart(function()
            local f = own:checkout(8):freeze()
            f:clone()
            f:slice(2)
        end)
        assert.equal(1, own:stats().checked_out)
        helper.collect()
        assert.equal(0, own:stats().checked_out)
    end))
end)

describe("a frozen object", function()
    it("outlives its pool", function()
        local f = helper.apart(function()
            local own = bufpool.new()
            local f = own:writer():put "still here":freeze()
            own:close()
            return f
        end)
        helper.collect()
        assert.equal("still here", tostring(f))
        assert.equal("here", tostring(f:slice(-4)))
        f:release()
    end)

    it("once released raises on every method and says so", function()
        local f = frozen "abc"
        local names = {
            "len", "tostring", "sub", "byte", "find", "equals", "equals_ct",
            "ref", "writeto", "slice", "clone", "release",
        }
        local methods = {}
        for i, name in ipairs(names) do
            methods[i] = f[name]
        end
        local alive = f:clone()
        f:release()
        for i, name in ipairs(names) do
            raises(function() methods[i](f, 1, 1) end, "released")
            raises(function() f[name](f, 1, 1) end,
                "attempt to use a released frozen")
        end
        raises(function() return #f end, "released")
        raises(function() return f .. "" end, "released")
        assert.is_false(pcall(function() return f < alive end))
        assert.is_false(pcall(function() return alive <= f end))
        assert.is_false(f == alive)
        assert.equal("abc", tostring(alive))
    end)
end)
