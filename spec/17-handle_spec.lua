-- Borrowed buffers: values that go back by release() only.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local pool = bufpool.new()

-- A handle is its descriptor's word above the number's 24 bits.
local function value_of(h)
    local v = ffi.cast("uint64_t", h)
    return tonumber(bit.band(v, 0xffffffULL)), bit.rshift(v, 24)
end

local function forged(number, word)
    return ffi.cast("struct bufpool_handle *",
        bit.bor(bit.lshift(0ULL + word, 24),
            bit.band(ffi.cast("uint64_t", ffi.cast("int64_t", number)),
                0xffffffULL)))
end

describe("borrow", function()
    it("gives n zero bytes of every class, and more", function()
        for _, n in ipairs { 0, 1, 4096, 4097, 65537, 1048576, 1048577 } do
            local h = pool:borrow(n)
            assert.equal("handle", bufpool.type(h))
            assert.equal(n, #h)
            assert.is_true(tostring(h) == helper.zeros(n))
            h:fill(255)
            h:release()
            h = pool:borrow(n)
            assert.is_true(tostring(h) == helper.zeros(n))
            h:release()
        end
    end)

    it("takes sizes as every other call does", function()
        local h = pool:borrow(5LL)
        assert.equal(5, #h)
        h:release()
        for _, n in ipairs { -1, 0.5, helper.nan, helper.inf, "1", {}, true,
            h } do
            raises(function() pool:borrow(n) end, "#1", "'borrow'")
        end
        raises(function() pool:borrow() end, "#1", "'borrow'")
    end)

    it("insists on a pool that is open", function()
        local closed = bufpool.new()
        closed:close()
        raises(function() closed:borrow(1) end, "closed pool")
        local h = pool:borrow(1)
        for _, x in ipairs { h, 1, "x", io.stdout, helper.forged "bufpool.pool",
            pool:checkout(1) } do
            raises(function() pool.borrow(x, 1) end, "'borrow'")
        end
        raises(function() pool.borrow() end, "'borrow'")
        h:release()
    end)

    it("returns nil and a message on shortage, and works after", function()
        local small = bufpool.new { max_bytes = 1048576, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        local h = small:borrow(1048576)
        local none, message = small:borrow(1)
        assert.is_nil(none)
        assert.matches("max_bytes", message)
        raises(function() h:resize(2097152) end, "'resize'", "max_bytes")
        assert.equal(1048576, #h)
        h:release()
        h = small:borrow(1)
        assert.equal(1, #h)
        h:release()
        assert.is_nil((pool:borrow(2 ^ 62)))
        small:close()
    end)

    it("has garbage collected before it fails", function()
        local small = bufpool.new { max_bytes = 1048576, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        helper.apart(function() assert(small:checkout(1048576)) end)
        local h = assert(small:borrow(1048576))
        h:release()
        small:close()
    end)

    it("is counted as out until its release, and never collected", function()
        local own = bufpool.new()
        helper.apart(function() own:borrow(10) end)
        helper.collect()
        assert.equal(1, own:stats().checked_out)
        local h = own:borrow(10)
        assert.equal(2, own:stats().checked_out)
        h:release()
        assert.equal(1, own:stats().checked_out)
        own:close()
    end)
end)

describe("a handle", function()
    it("has these methods of a buffer", function()
        local h, buf = pool:borrow(0), pool:writer()
        -- Where both keep them, apart from what only one of them has.
        for _, name in ipairs { "len", "capacity", "tostring", "sub", "byte",
            "find", "find_any", "lines", "equals", "equals_ct", "crc32",
            "adler32", "write", "copy", "setbyte", "xor", "fill", "wipe",
            "resize", "put", "put_range", "prepend", "put_varint", "get_varint",
            "put_zigzag",
            "get_zigzag64", "take", "split_to", "putf", "putcdata", "set",
            "reserve", "commit", "get", "skip", "reset", "ref", "free",
            "readfrom", "readinto", "writeto", "freeze", "release" } do
            assert.equal("function", type(h[name]), name)
            assert.equal("function", type(buf[name]), name)
        end
        h:release()
    end)

    it("reads and writes as a buffer does", function()
        local h = pool:borrow(8)
        assert.equal(h, h:setbyte(1, 65, 66):write(3, "CD"):fill(69, 5, 6))
        assert.equal("ABCDEE\0\0", tostring(h))
        assert.equal(66, h:byte(2))
        assert.same({ 65, 66 }, { h:byte(1, 2) })
        assert.equal(3, (h:find("CD", 1, true)))
        assert.equal("ABCDEE\0\0.", h .. ".")
        h:resize(2)
        h:put("x", 1):putf("%03d", 7)
        assert.equal("ABx1007", h:get())
        assert.equal(0, #h)
        h:put(("y"):rep(100000))
        assert.equal(100000, #h)
        assert.equal("y", h:sub(-1))
        h:free()
        assert.equal(0, h:capacity())
        h:put "z"
        local at, n = h:ref()
        assert.equal("z", ffi.string(at, n))
        h:release()
    end)

    it("is data to others, and others to it", function()
        local h, buf = pool:borrow(0):put "abc", pool:writer()
        local f = pool:writer():put "abc":freeze()
        buf:put(h, h):write(1, h):copy(4, h, 2, 3)
        assert.equal("abcbcc", tostring(buf))
        assert.is_true(h:equals(f))
        assert.is_true(h:equals_ct(f))
        assert.is_true(f:equals(h))
        assert.equal(4, (buf:set("xyzabc"):find(h, 1, true)))
        buf:set(h)
        assert.equal("abc", tostring(buf))
        assert.equal("abc<abc", buf .. "<" .. h)
        assert.equal("abc|abc", tostring(buf:putf("|%s", h)))
        h:put(f, buf)
        assert.equal("abcabcabc|abc", tostring(h))
        h:release()
    end)

    it("goes to files and comes from them", function()
        local file = assert(io.tmpfile())
        local h = pool:borrow(0):put "some text"
        assert.equal(9, h:writeto(file))
        file:seek("set", 5)
        assert.equal(4, h:readfrom(file, 100))
        assert.equal("some texttext", tostring(h))
        file:seek("set")
        assert.equal(4, h:readinto(6, file, 4))
        assert.equal("some sometext", tostring(h))
        h:release()
        file:close()
    end)

    it("cannot be put into itself, nor a copy of it", function()
        local h = pool:borrow(3)
        local copy = ffi.cast(ffi.typeof(h), h)
        assert.is_true(copy == h)
        for _, x in ipairs { h, copy } do
            raises(function() h:put(x) end, "#1", "'put'", "itself")
            raises(function() h:set(x) end, "#1", "'set'", "itself")
        end
        raises(function() h:putcdata(h, 1) end, "#1", "'putcdata'")
        copy:release()
        raises(function() h:len() end, "released handle")
        assert.is_true(copy == h)
    end)

    it("is equal to itself and to nothing else", function()
        local h, other = pool:borrow(1), pool:borrow(1)
        assert.is_true(h == h)
        assert.is_false(h == other or h == nil or h == "x" or h == 1)
        assert.is_false(h == pool)
        h:release()
        other:release()
    end)

    it("refuses what it is not", function()
        local h = pool:borrow(1)
        raises(function() return h[1] end, "handle")
        raises(function() h.x = 1 end, "handle")
        raises(function() h[1] = 1 end, "handle")
        raises(function() return h[0] end, "size of C type")
        raises(function() return h < 1 end, "handle")
        raises(function() return h <= "x" end, "handle")
        raises(function() return h + 1 end, "handle")
        raises(function() return h - h end, "handle")
        raises(function() return -h end, "handle")
        raises(function() local _ = h() end, "handle")
        assert.is_false(pcall(pairs, h))
        assert.is_nil(h.nosuch)
        assert.equal("ffi", getmetatable(h))
        local buf, f = pool:checkout(1), pool:checkout(1):freeze()
        for _, x in ipairs { buf, f, pool, 1, "x" } do
            raises(function() h.release(x) end, "'release'")
            raises(function() h.freeze(x) end, "'freeze'")
        end
        raises(function() buf.release(h) end, "'release'")
        raises(function() f.slice(h, 1) end, "'slice'")
        assert.equal("handle", bufpool.type(h))
        h:release()
    end)

    it("freezes into an object that the collector returns", function()
        local own = bufpool.new()
        local h = own:borrow(0):put "frozen"
        local f = h:freeze()
        assert.equal("frozen", bufpool.type(f))
        assert.equal("dead", bufpool.type(h))
        assert.equal("frozen", tostring(f))
        raises(function() h:freeze() end, "released handle")
        raises(function() h:release() end, "released handle")
        f:release()
        assert.equal(0, own:stats().checked_out)
        helper.apart(function() own:borrow(100):freeze() end)
        helper.collect()
        assert.equal(0, own:stats().checked_out)
        own:close()
    end)
end)

describe("a stale handle", function()
    local function insist_dead(h)
        assert.equal("dead", bufpool.type(h))
        for _, use in ipairs {
            function() local _ = h:len() end,
            function() return #h end,
            function() return h .. "" end,
            function() local _ = h:byte(1) end,
            function() h:setbyte(1, 1) end,
            function() h:put "x" end,
            function() h:putf "x" end,
            function() h:ref() end,
            function() h:free() end,
            function() h:freeze() end,
            function() h:release() end,
            function() pool:writer():put(h) end,
            function() pool:writer():set(h) end,
        } do
            raises(use, "attempt to use a released handle")
        end
        assert.equal("bufpool.handle: released", tostring(h))
    end

    it("raises, whoever has the memory now", function()
        local h = pool:borrow(10)
        h:release()
        insist_dead(h)
        local heir = pool:borrow(10)
        insist_dead(h)
        heir:release()
        heir = pool:checkout(10)
        insist_dead(h)
        assert.equal(helper.zeros(10), tostring(heir))
        heir:release()
    end)

    it("raises after its pool is gone", function()
        local own = bufpool.new()
        local stale, h = own:borrow(10), own:borrow(10)
        stale:release()
        own:close()
        insist_dead(stale)
        h:put "still valid"
        assert.equal("still valid", h:sub(11))
        h:release()
        insist_dead(h)
        own = bufpool.new()
        insist_dead(h)
        own:close()
    end)

    it("cannot be made up", function()
        local h = pool:borrow(1)
        local mine, generation = value_of(h)
        assert.is_true(forged(mine, generation) == h)
        for _, number in ipairs { 0, 1, 2, 50, 70, mine, mine + 1,
            2 ^ 23, 2 ^ 24 - 1 } do
            -- Descriptors that are blank, ready or cached have such words.
            for word = 0, 40 do
                if word % 8 ~= 4 then
                    insist_dead(forged(number, word))
                end
            end
            insist_dead(forged(number, -1))
        end
        insist_dead(forged(mine, generation + 8))
        insist_dead(forged(mine, generation - 8))
        insist_dead(forged(mine, generation + 2 ^ 32))
        h:release()
        -- The buffer lies in the cache, one generation on.
        for state = 0, 7 do
            local x = forged(mine, generation - 4 + 8 + state)
            assert.equal("dead", bufpool.type(x))
            raises(function() x:setbyte(1, 1) end, "released handle")
        end
    end)

    it("raises on trace too", function()
        local stale = pool:borrow(1)
        local h = pool:borrow(1)
        stale:release()
        local total = 0
        raises(function()
            for i = 1, 1010 do
                local x = i <= 1000 and h or stale
                total = total + x:byte(1) + 1
            end
        end, "released handle")
        assert.equal(1000, total)
        h:release()
    end)

    -- The recorder of LuaJIT takes arithmetic and comparisons of pointers for
    -- the FFI's, also where the interpreter calls a method of their type.
    it("has no operators, compiled or not", function()
        assert.equal("", helper.child_ok [==[
            local ffi = require "ffi"
            local pool = require("bufpool").new()
            local pointer = ffi.cast("char *", ffi.new "char[8]")
            jit.opt.start("hotloop=2", "hotexit=2")
            for op in ([[ x+1 1+x x-1 1-x x+y x-y x*2 x/y x%2 x^2 -x x+"1" x+2LL
                x+nil x+p p+x x-p p-x x<1 x<"1" x<p p<x x<=p x<2LL x<{} x()
                x[1] x..{} ]]):gmatch "%S+" do
                local fn = loadstring("local p = ... "
                    .. "return function(x, y) local t = { y } t[2] = " .. op
                    .. " return t end")(pointer)
                for _ = 1, 4 do
                    local x, y = pool:borrow(8), pool:borrow(8)
                    for k = 1, 200 do
                        if pcall(fn, x, y) then
                            print(op .. " does not raise")
                        end
                        if k % 50 == 0 then
                            collectgarbage()
                        end
                    end
                    x:release()
                    y:release()
                end
            end]==])
    end)
end)

describe("a borrowing loop", function()
    it("leaves nothing out and nothing dirty", function()
        local own = bufpool.new()
        local before
        for i = 1, 20000 do
            local h = own:borrow(i % 5000)
            if #h > 0 then
                before = (before or 0) + h:byte(-1)
                h:setbyte(#h, i % 255 + 1)
            end
            h:release()
        end
        assert.equal(0, before)
        assert.equal(0, own:stats().checked_out)
        own:close()
    end)
end)

describe("putf", function()
    it("appends what string.format makes", function()
        local w = pool:writer():put "a"
        assert.equal(w, w:putf("%d %5.2f %-4s|%q%%", 7, 1.5, "x", "y"))
        assert.equal(("a%d %5.2f %-4s|%q%%"):format(7, 1.5, "x", "y"),
            tostring(w))
    end)

    it("takes buffers, frozen objects and handles for %s", function()
        local w, h = pool:writer():put "w", pool:borrow(0):put "h"
        w:putf("%s%s", h, pool:writer():put "f":freeze())
        assert.equal("whf", tostring(w))
        h:putf("%s%s", w, "x")
        assert.equal("hwhfx", tostring(h))
        h:release()
    end)

    it("does not put a buffer into itself", function()
        local h = pool:borrow(0):put "h"
        for _, x in ipairs { pool:writer(), h } do
            raises(function() x:putf("%s", x) end, "itself")
            raises(function() x:putf("%s%s", 1, x) end, "itself")
            x:reset():putf("%s", "a", x)
            assert.equal("a", tostring(x))
        end
        h:release()
    end)

    it("raises as string.format does, and leaves the buffer as it was",
        function()
        local w = pool:writer():put "abc"
        raises(function() w:putf("x%d", "y") end, "#2", "'putf'")
        raises(function() w:putf() end, "#1", "'putf'")
        raises(function() w:putf("x%y", 1) end, "'putf'")
        raises(function() w:putf({}) end, "#1", "'putf'")
        raises(function() w.putf(io.stdout, "x") end, "'putf'")
        assert.equal("abc", tostring(w))
        local object = setmetatable({}, {
            __tostring = function() error({ "mine" }) end,
        })
        local _, message = pcall(w.putf, w, "%s", object)
        assert.same({ "mine" }, message)
        w:release()
    end)

    it("copes with a __tostring that changes the buffer", function()
        local w = pool:writer():put "a"
        local object = setmetatable({}, {
            __tostring = function()
                w:put(("x"):rep(5000))
                return "b"
            end,
        })
        w:putf("%s", object)
        assert.equal("a" .. ("x"):rep(5000) .. "b", tostring(w))
        getmetatable(object).__tostring = function()
            w:release()
            return "late"
        end
        raises(function() w:putf("%s", object) end, "released buffer")
    end)
end)
