local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf

-- The smallest class that holds n, or nil.
local function class_of(n)
    for _, size in ipairs(helper.classes) do
        if n <= size then
            return size
        end
    end
end

local function is_zero(buf)
    return tostring(buf) == helper.zeros(#buf)
end

describe("checkout", function()
    local pool
    before_each(function() pool = bufpool.new() end)

    for _, n in ipairs {
        0, 1, 4095, 4096, 4097, 65536, 65537, 262144, 262145, 1048576,
    } do
        it("serves " .. n .. " bytes from the smallest class that holds them",
            function()
                local buf = pool:checkout(n)
                assert.equal(n, #buf)
                assert.equal(n, buf:len())
                assert.equal(class_of(n), buf:capacity())
                assert.is_true(is_zero(buf))
                for _, class in ipairs(pool:stats().classes) do
                    assert.equal(class.size == class_of(n) and 1 or 0,
                        class.out)
                end
                buf:release()
            end)
    end

    for _, n in ipairs { 1048577, 3000000, 16 * 1048576 } do
        it("serves " .. n .. " bytes with pages of their own", function()
            local before = pool:stats().committed_bytes
            local buf = pool:checkout(n)
            local page = 65536  -- the largest that we meet
            assert.equal(n, #buf)
            assert.is_true(is_zero(buf))
            assert.is_true(buf:capacity() >= n)
            assert.is_true(buf:capacity() < n + page)
            local taken = pool:stats().committed_bytes - before
            assert.is_true(taken >= n and taken < n + 2 * page)
            for _, class in ipairs(pool:stats().classes) do
                assert.equal(0, class.out)
            end
            assert.equal(1, pool:stats().checked_out)
            buf:release()
            pool:trim()
            assert.equal(1310720, before)
            assert.equal(before, pool:stats().committed_bytes)
        end)
    end

    it("gives data aligned to 64 bytes", function()
        for _, n in ipairs { 0, 1, 4097, 65537, 262145, 1048577 } do
            local a, b = pool:checkout(n), pool:checkout(n)
            assert.equal(0, helper.address((a:ref())) % 64)
            assert.equal(0, helper.address((b:ref())) % 64)
        end
    end)

    it("gives memory that is nobody else's", function()
        local all = {}
        for i = 1, 200 do
            all[i] = pool:checkout(64)
            all[i]:fill(i)
        end
        for i = 1, 200 do
            assert.equal(string.char(i):rep(64), tostring(all[i]))
        end
    end)

    it("takes more than the pool had ready", function()
        local all = {}
        for i = 1, 30 do
            all[i] = assert(pool:checkout(65536))
        end
        assert.equal(30, pool:stats().classes[2].out)
        assert.equal(65536, #all[30])
    end)

    it("takes sizes as integers of every kind", function()
        assert.equal(4096, #pool:checkout(4096LL))
        assert.equal(4097, #pool:checkout(4097ULL))
        assert.equal(1048577, #pool:checkout(1048577LL))
        assert.equal(0, #pool:checkout(-0.0))
    end)

    it("raises on sizes that are none", function()
        for _, n in ipairs {
            -1, 0.5, -0.5, 1e15 + 0.5, nan, inf, -inf, -2 ^ 63, 2 ^ 63, 1e300,
            -1LL, 0x8000000000000000ULL, 0xffffffffffffffffULL, "1", "x", {},
            true, print, io.stdout, ffi.new "uint8_t[4]",
        } do
            for _, name in ipairs {
                "checkout", "checkout_zeroed", "try_checkout", "writer",
            } do
                raises(function() pool[name](pool, n) end,
                    "#1", "'" .. name .. "'")
            end
            raises(function() pool:checkout_aligned(n, 64) end,
                "#1", "'checkout_aligned'")
            raises(function() pool:with(n, print) end, "#1", "'with'")
        end
        raises(function() pool:checkout() end, "#1", "'checkout'")
    end)

    it("returns nil and a message for memory that cannot be had", function()
        for _, n in ipairs { 2 ^ 50, 2 ^ 62, 0x7fffffffffffffffLL } do
            local buf, message = pool:checkout(n)
            assert.is_nil(buf)
            assert.is_string(message)
        end
        assert.equal(8, #pool:checkout(8))
    end)

    it("reuses the memory that was released last", function()
        local buf = pool:checkout(64)
        local address = helper.address((buf:ref()))
        buf:release()
        assert.equal(address, helper.address((pool:checkout(64):ref())))
    end)
end)

describe("checkout_zeroed", function()
    it("gives zeros in every class", function()
        local pool = bufpool.new()
        for _, n in ipairs { 0, 1, 4097, 65537, 262145, 1048577 } do
            local buf = pool:checkout_zeroed(n)
            assert.equal(n, #buf)
            assert.is_true(is_zero(buf))
        end
    end)

    -- Not under ASan, which ends the process at a write to a free buffer.
    it("undoes what was written to free memory #noasan", function()
        local pool = bufpool.new { four_kib_count = 1 }
        local buf = pool:checkout(4096)
        local p = buf:ref()
        local address = helper.address(p)
        buf:release()
        -- What a C program with a stale pointer does.
        ffi.fill(p, 4096, 0x5a)
        buf = pool:checkout_zeroed(4096)
        assert.equal(address, helper.address((buf:ref())))
        assert.is_true(is_zero(buf))
    end)
end)

describe("checkout_aligned", function()
    local pool
    before_each(function() pool = bufpool.new() end)

    it("aligns as asked", function()
        for k = 0, 21 do
            for _, n in ipairs { 1, 5000, 70000, 1100000 } do
                local buf = assert(pool:checkout_aligned(n, 2 ^ k))
                assert.equal(0, helper.address((buf:ref())) % 2 ^ k)
                assert.equal(n, #buf)
                assert.is_true(is_zero(buf))
                buf:release()
            end
        end
    end)

    it("keeps the alignment when the buffer grows", function()
        local buf = pool:checkout_aligned(10, 16384)
        buf:write(1, "0123456789")
        for _, n in ipairs { 5000, 70000, 300000, 1100000, 3000000 } do
            buf:resize(n)
            assert.equal(0, helper.address((buf:ref())) % 16384)
            assert.equal("0123456789\0", buf:sub(1, 11))
        end
    end)

    it("raises on alignments that are no power of two", function()
        for _, a in ipairs {
            0, 3, 48, -1, -64, 0.5, nan, inf, "64", {}, true, 65LL,
        } do
            raises(function() pool:checkout_aligned(8, a) end,
                "#2", "'checkout_aligned'")
        end
        raises(function() pool:checkout_aligned(8) end,
            "#2", "'checkout_aligned'")
    end)
end)

describe("try_checkout", function()
    it("takes what is ready and no more", function()
        local pool = bufpool.new {
            four_kib_count = 3, sixty_four_kib_count = 0,
        }
        local held = {}
        for i = 1, 3 do
            held[i] = assert(pool:try_checkout(100))
        end
        local buf, message = pool:try_checkout(100)
        assert.is_nil(buf)
        assert.equal("exhausted", message)
        held[1]:release()
        assert.equal(100, #assert(pool:try_checkout(100)))
    end)

    it("has nothing above the largest class", function()
        local buf, message = bufpool.new():try_checkout(1048577)
        assert.is_nil(buf)
        assert.equal("exhausted", message)
    end)

    it("takes no memory from the system", function()
        local pool = bufpool.new()
        local before = pool:stats().committed_bytes
        local held = {}
        repeat
            local buf = pool:try_checkout(65536)
            held[#held + 1] = buf
        until not buf
        assert.is_true(#held >= 8)
        assert.equal(before, pool:stats().committed_bytes)
    end)
end)

describe("writer", function()
    it("is empty, with room for the hint", function()
        local pool = bufpool.new()
        local w = pool:writer()
        assert.equal(0, #w)
        assert.equal("buffer", bufpool.type(w))
        w = pool:writer(70000)
        assert.equal(0, #w)
        assert.is_true(w:capacity() >= 70000)
        w:put "abc"
        assert.equal("abc", tostring(w))
    end)
end)

describe("with", function()
    local pool
    before_each(function() pool = bufpool.new() end)

    it("passes the buffer and its arguments, and returns what fn returns",
        function()
            local function fn(...)
                local buf, a, b, c = ...
                assert.equal(4, select("#", ...))
                assert.equal(100, #buf)
                return a, nil, b, c, nil
            end
            local n = select("#", pool:with(100, fn, 1, nil, 3))
            assert.equal(5, n)
            assert.same({ 1, nil, nil, 3 }, { pool:with(100, fn, 1, nil, 3) })
        end)

    it("releases the buffer when fn returns", function()
        local seen
        pool:with(10, function(buf) seen = buf end)
        assert.equal("dead", bufpool.type(seen))
        assert.equal(0, pool:stats().checked_out)
    end)

    it("releases the buffer when fn raises, and passes the error on",
        function()
            local seen
            local reason = { "any value" }
            local ok, err = pcall(pool.with, pool, 10, function(buf)
                seen = buf
                error(reason)
            end)
            assert.is_false(ok)
            assert.equal(reason, err)
            assert.equal("dead", bufpool.type(seen))
            assert.equal(0, pool:stats().checked_out)
        end)

    it("passes error messages unchanged", function()
        local ok, err = pcall(pool.with, pool, 10, function()
            error("just this", 0)
        end)
        assert.is_false(ok)
        assert.equal("just this", err)
        ok, err = pcall(pool.with, pool, 10, function() error(nil) end)
        assert.is_false(ok)
        assert.is_nil(err)
    end)

    it("leaves the frames of fn to a handler of errors around it", function()
        local seen, reason = nil, { "any value" }
        local function thrower() error(reason) end
        local function caller(buf)
            seen = buf
            thrower()
            return buf
        end
        local found, alive, traceback
        local ok, err = xpcall(function()
            return (pool:with(10, function(buf) return (caller(buf)) end))
        end, function(e)
            for level = 1, math.huge do
                local info = debug.getinfo(level, "f")
                if not info or found then
                    break
                end
                found = info.func == thrower
            end
            alive = bufpool.type(seen)
            traceback = debug.traceback()
            return e
        end)
        assert.is_false(ok)
        assert.equal(reason, err)
        assert.is_true(found, traceback)
        assert.equal("buffer", alive)
        assert.equal("dead", bufpool.type(seen))
        assert.equal(0, pool:stats().checked_out)
    end)

    it("releases the buffers of all calls that an error passes", function()
        for _, depth in ipairs { 1, 2, 20, 99, 100, 101, 102, 300 } do
            local function nest(k)
                if k == 0 then
                    error("bottom", 0)
                end
                pool:with(k, function() nest(k - 1) end)
            end
            local ok, err = pcall(nest, depth)
            assert.is_false(ok)
            assert.equal("bottom", err)
            assert.equal(0, pool:stats().checked_out)
        end
    end)

    it("works in a loop that becomes a trace, errors too", function()
        local sum = 0
        local function fn(buf, k)
            sum = sum + #buf
            if k % 7 == 0 then
                error(k, 0)
            end
            return k
        end
        for k = 1, 2000 do
            local ok, got = pcall(pool.with, pool, 3, fn, k)
            assert.equal(k % 7 ~= 0, ok)
            assert.equal(k, got)
        end
        assert.equal(6000, sum)
        assert.equal(0, pool:stats().checked_out)
    end)

    it("may call itself until Lua's stack overflows", function()
        local function nest() return (pool:with(1, nest)) end
        local co = coroutine.create(nest)
        assert.is_false((coroutine.resume(co)))
        local ok, err = pcall(nest)
        assert.is_false(ok)
        assert.truthy(tostring(err):find "stack overflow", err)
        -- What was checked out right where the stack ended has no owner.
        collectgarbage()
        collectgarbage()
        assert.equal(0, pool:stats().checked_out)
    end)

    it("leaves alone what fn released or froze", function()
        pool:with(10, function(buf) buf:release() end)
        local frozen = pool:with(3, function(buf)
            buf:write(1, "abc")
            return buf:freeze()
        end)
        assert.equal("abc", tostring(frozen))
        assert.equal(1, pool:stats().checked_out)
    end)

    it("lets fn yield", function()
        local co = coroutine.wrap(function()
            return "result", pool:with(10, function(buf)
                local got = coroutine.yield(#buf)
                buf:write(1, got)
                return buf:sub(1, 2), buf
            end)
        end)
        assert.equal(10, co())
        assert.equal(1, pool:stats().checked_out)
        local result, text, buf = co "hi"
        assert.same({ "result", "hi" }, { result, text })
        assert.equal("dead", bufpool.type(buf))
        assert.equal(0, pool:stats().checked_out)
    end)

    it("passes on an error after a yield", function()
        local co = coroutine.create(function()
            pool:with(10, function()
                coroutine.yield()
                error("late", 0)
            end)
        end)
        assert.is_true(coroutine.resume(co))
        local ok, err = coroutine.resume(co)
        assert.is_false(ok)
        assert.equal("late", err)
        assert.equal(0, pool:stats().checked_out)
    end)

    it("leaves the buffer of a coroutine that never ends to the collector",
        helper.uncollected(function()
            coroutine.wrap(function()
                pool:with(10, coroutine.yield)
            end)()
            assert.equal(1, pool:stats().checked_out)
            -- Later LuaJITs keep the coroutine that used the FFI last.
            ffi.new "char[1]"
            helper.collect()
            assert.equal(0, pool:stats().checked_out)
        end))

    it("nests", function()
        local sum = pool:with(1, function(a)
            return pool:with(2, function(b)
                return #a + #b + pool:stats().checked_out
            end)
        end)
        assert.equal(5, sum)
        assert.equal(0, pool:stats().checked_out)
    end)

    it("raises when fn cannot be called, before anything is taken", function()
        for _, fn in ipairs { 1, "x", {}, true } do
            raises(function() pool:with(10, fn) end, "#2", "'with'")
        end
        raises(function() pool:with(10) end, "#2", "'with'")
        assert.equal(0, pool:stats().checked_out)
    end)
end)

describe("max_bytes", function()
    local pool
    before_each(function()
        pool = bufpool.new {
            four_kib_count = 4, sixty_four_kib_count = 0,
            two_fifty_six_kib_count = 0, one_mib_count = 0,
            max_bytes = 1048576,
        }
    end)

    local function take_all(n)
        local held = {}
        while true do
            local buf, message = pool:checkout(n)
            if not buf then
                return held, message
            end
            held[#held + 1] = buf
            assert(#held < 1000, "no limit in sight")
        end
    end

    it("ends in nil and a message that names it", function()
        local held, message = take_all(65536)
        assert.matches("max_bytes", message)
        assert.is_true(#held >= 14 and #held <= 16)
        assert.is_true(pool:stats().committed_bytes <= 1048576)
    end)

    it("leaves what is held as it was", function()
        local held = take_all(65536)
        for i, buf in ipairs(held) do
            buf:fill(i)
        end
        assert.is_nil((pool:checkout(65536)))
        for i, buf in ipairs(held) do
            assert.equal(string.char(i):rep(65536), tostring(buf))
        end
    end)

    it("serves again after a release", function()
        local held = take_all(65536)
        held[1]:release()
        held[1] = assert(pool:checkout(65536))
        assert.equal(65536, #held[1])
        assert.is_nil((pool:checkout(65536)))
    end)

    it("lets another class have what was released", function()
        local held = take_all(65536)
        for _, buf in ipairs(held) do
            buf:release()
        end
        for i = 1, 4 do
            held[i] = assert(pool:checkout(262144))
        end
        assert.equal(4, pool:stats().classes[3].out)
    end)

    it("holds for exact sizes", function()
        local buf, message = pool:checkout(2000000)
        assert.is_nil(buf)
        assert.matches("max_bytes", message)
        assert.equal(8, #pool:checkout(8))
    end)

    it("lets the collector bring home what was only dropped", function()
        for _ = 1, 100 do
            assert.equal(65536, #assert(pool:checkout(65536)))
        end
    end)

    it("holds for writers, with and aligned checkouts", function()
        local held = take_all(65536)
        assert.is_nil((pool:writer(65536)))
        assert.is_nil((pool:checkout_zeroed(65536)))
        assert.is_nil((pool:checkout_aligned(65536, 64)))
        local called = false
        local result = pool:with(65536, function() called = true end)
        assert.is_nil(result)
        assert.is_false(called)
        assert.is_true(#held > 0)
    end)

    it("makes growing raise and leave the buffer as it was", function()
        local buf = pool:checkout(8)
        buf:write(1, "contents")
        local held = take_all(65536)
        raises(function() buf:resize(65536) end, "'resize'", "max_bytes")
        raises(function() buf:put(("x"):rep(65536)) end, "'put'")
        raises(function() buf:reserve(65536) end, "'reserve'")
        raises(function() buf:set(("x"):rep(65536)) end, "'set'")
        assert.equal("contents", tostring(buf))
        held[1]:release()
        buf:resize(60000)
        assert.equal("contents\0", buf:sub(1, 9))
    end)
end)
