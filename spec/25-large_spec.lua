-- Above the largest class: what is kept, what grows, what statistics say.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local MIB = 1048576

local function is_zero(buf)
    local at, n = buf:ref()
    for i = 0, n - 1, 4096 do
        local k = math.min(4096, n - i)
        if ffi.string(at + i, k) ~= helper.zeros(k) then
            return false
        end
    end
    return true
end

describe("bufpool.maintain", function()
    it("gives back what lies idle, and says when it wants to be called again",
        function()
            local pool = bufpool.new {}
            pool:checkout(3 * MIB):fill(1):release()
            local before = pool:stats().committed_bytes
            local deadline = os.time() + 60
            while pool:stats().committed_bytes == before do
                local seconds = bufpool.maintain()
                assert.is_true(seconds >= 0.01 and seconds <= 0.25)
                assert.is_true(os.time() < deadline)
            end
            pool:trim()
            pool:close()
        end)
end)

describe("pool:trim", function()
    it("gives back as much as it is told, and says whether there is more",
        function()
            local pool = bufpool.new {}
            pool:checkout(8 * MIB):fill(1):release()
            for _ = 1, 3 do
                local bytes, more = pool:trim(2 * MIB)
                assert.equal(2 * MIB, bytes)
                assert.is_true(more)
            end
            local bytes, more = pool:trim(2 * MIB)
            assert.equal(2 * MIB, bytes)
            assert.is_false(more)
            assert.equal(0, pool:trim())
            for _, value in ipairs { -1, 0.5, "x", helper.nan, {} } do
                raises(function() pool:trim(value) end, "'trim'")
            end
            pool:close()
        end)
end)

describe("large_bytes", function()
    it("is 128 MiB unless configured", function()
        local name = "large-spec"
        local pool = bufpool.new { name = name }
        bufpool.new { name = name, large_bytes = 128 * MIB }:close()
        raises(function()
            bufpool.new { name = name, large_bytes = 64 * MIB }
        end, "'large_bytes'", name)
        pool:close()
    end)

    it("is a size", function()
        for _, value in ipairs {
            -1, 0.5, helper.nan, -helper.inf, "1", true, {}, -1LL, print,
        } do
            raises(function() bufpool.new { large_bytes = value } end,
                "'new'", "large_bytes")
        end
        bufpool.new { large_bytes = 4096ULL }:close()
        raises(function() bufpool.new { large_byte = 1 } end,
            "large_byte", "'large_bytes'")
    end)

    it("limits what is kept", function()
        local pool = bufpool.new { large_bytes = 5 * MIB }
        local held = {}
        for i = 1, 4 do
            held[i] = pool:checkout(2 * MIB)
        end
        for i = 1, 4 do
            held[i]:release()
        end
        assert.equal(2, pool:stats().large.cached)
        assert.equal(4 * MIB, pool:stats().large.cached_bytes)
    end)

    it("may be 0, and nothing is kept", function()
        local pool = bufpool.new { large_bytes = 0 }
        local before = pool:stats().committed_bytes
        for _ = 1, 3 do
            local buf = pool:checkout(3 * MIB):fill(1)
            assert.equal(3 * MIB, buf:capacity())
            buf:put "more"
            buf:release()
            assert.equal(before, pool:stats().committed_bytes)
        end
        assert.equal(0, pool:stats().large.hits)
        assert.same({ nil, "exhausted" }, { pool:try_checkout(2 * MIB) })
    end)
end)

describe("what is kept", function()
    local pool
    before_each(function() pool = bufpool.new() end)
    after_each(function()
        helper.collect()
        pool:close()
    end)

    -- A buffer in, nothing out: what was left in it must be wiped.
    local ways = {
        ["fill"] = function(buf) buf:fill(0x5a):release() end,
        ["the last byte"] = function(buf) buf:setbyte(#buf, 1):release() end,
        ["write"] = function(buf) buf:write(2 * MIB, "abc"):release() end,
        ["a raw pointer"] = function(buf)
            local at, n = buf:ref()
            ffi.fill(at, n, 0x5a)
            buf:release()
        end,
        ["a raw pointer after reset"] = function(buf)
            local at, n = buf:ref()
            buf:reset()
            ffi.fill(at, n, 0x5a)
            buf:release()
        end,
        ["reserve without commit"] = function(buf)
            local n = buf:capacity() - #buf
            buf:reset()
            local at = buf:reserve(n + MIB)
            ffi.fill(at, n + MIB, 0x5a)
            buf:release()
        end,
        ["growth"] = function(buf)
            buf:fill(0x5a):resize(buf:capacity() + 1):fill(0x5a):release()
        end,
        ["skip and put"] = function(buf)
            buf:fill(0x5a):skip(MIB)
            buf:put(("y"):rep(MIB)):release()
        end,
        ["get"] = function(buf)
            buf:fill(0x5a):get(2 * MIB)
            buf:free()
            buf:release()
        end,
        ["freeze and release"] = function(buf)
            buf:fill(0x5a):freeze():release()
        end,
        ["slices"] = function(buf)
            local frozen = buf:fill(0x5a):freeze()
            local slice = frozen:slice(MIB, 2 * MIB)
            frozen:release()
            assert.equal(0x5a, slice:byte(1))
            assert.equal(0, pool:stats().large.cached)
            slice:release()
        end,
        ["the collector"] = function(buf)
            buf:fill(0x5a)
        end,
        ["the collector of a frozen one"] = function(buf)
            buf:fill(0x5a):freeze()
        end,
        ["with"] = function(buf)
            buf:release()
            pool:with(3 * MIB, function(inner) inner:fill(0x5a) end)
        end,
        ["a handle"] = function(buf)
            buf:release()
            local handle = pool:borrow(3 * MIB)
            handle:fill(0x5a):put "more"
            handle:release()
        end,
    }
    for name, leave in pairs(ways) do
        it("is zero after " .. name, function()
            helper.apart(function() leave(pool:checkout(3 * MIB)) end)
            helper.collect()
            assert.equal(0, pool:stats().checked_out)
            assert.is_true(pool:stats().large.cached > 0)
            local held = {}
            for _, n in ipairs { 32 * MIB, 16 * MIB, 8 * MIB, 6 * MIB,
                4 * MIB, 3 * MIB, 2 * MIB } do
                for buf in function() return (pool:try_checkout(n)) end do
                    held[#held + 1] = buf
                    assert.is_true(is_zero(buf:resize(buf:capacity())))
                end
            end
            assert.equal(0, pool:stats().large.cached)
            for i = 1, #held do
                held[i]:release()
            end
        end)
    end

    it("is served again, and its size is exact", function()
        for n = 2 * MIB, 3 * MIB, 77777 do
            local buf = pool:checkout(n)
            assert.equal(n, #buf)
            assert.is_true(buf:capacity() >= n and buf:capacity() <= 2 * n
                + 4096)
            assert.equal(0, buf:capacity() % 4096)
            buf:release()
        end
        local large = pool:stats().large
        assert.is_true(large.hits >= 12)
        assert.equal(1, large.misses)
    end)

    it("is counted", function()
        local requests = { 0, 0, 0, 2, 0, 0, 0, 0 }
        local a, b = pool:checkout(2 * MIB), pool:checkout(4 * MIB):freeze()
        local stats = pool:stats()
        assert.same({ hits = 0, misses = 2, out = 2, bytes_out = 6 * MIB,
            cached = 0, cached_bytes = 0, requested_bytes = 6 * MIB,
            requests = requests }, stats.large)
        a:release()
        b:release()
        stats = pool:stats()
        assert.same({ hits = 0, misses = 2, out = 0, bytes_out = 0,
            cached = 2, cached_bytes = 6 * MIB, requested_bytes = 6 * MIB,
            requests = requests }, stats.large)
        assert.equal(6 * MIB, pool:trim())
        assert.equal(0, pool:stats().large.cached)
        pool:checkout(3 * MIB):release()
        local own = bufpool.new()
        own:checkout(2 * MIB):release()
        local all = bufpool.stats().large
        assert.is_true(all.cached >= 2)
        assert.is_true(all.cached_bytes >= 5 * MIB)
        assert.equal(2 * MIB, own:stats().large.cached_bytes)
        own:close()
    end)

    it("is what try_checkout takes", function()
        assert.same({ nil, "exhausted" }, { pool:try_checkout(2 * MIB) })
        pool:checkout(2 * MIB):release()
        local buf = assert(pool:try_checkout(2 * MIB))
        assert.same({ nil, "exhausted" }, { pool:try_checkout(2 * MIB) })
        buf:release()
        assert.same({ nil, "exhausted" }, { pool:try_checkout(2 * MIB + 1) })
    end)

    it("makes room below max_bytes", function()
        local own = bufpool.new {
            classes = { { size = MIB } }, max_bytes = 8 * MIB,
        }
        own:checkout(7 * MIB):fill(1):release()
        local held = {}
        for i = 1, 8 do
            held[i] = assert(own:checkout(MIB))
        end
        local buf, message = own:checkout(2 * MIB)
        assert.is_nil(buf)
        assert.matches("max_bytes", message)
        for i = 1, 8 do
            held[i]:release()
        end
        buf = assert(own:checkout(8 * MIB))
        assert.is_true(is_zero(buf))
        buf:release()
    end)
end)

describe("growth above the largest class", function()
    local pool
    before_each(function() pool = bufpool.new() end)

    -- How often appending moves.
    local function append(writer, piece, n)
        local moves, at = 0, writer:ref()
        for _ = 1, n do
            writer:put(piece)
            local now = writer:ref()
            moves = moves + (now ~= at and 1 or 0)
            at = now
        end
        return moves
    end

    it("keeps what was written, and moves a few times", function()
        local piece = ("0123456789"):rep(100)
        for _, hint in ipairs { 0, 100000, 2 * MIB, 16 * MIB } do
            local out = pool:writer(hint)
            local moves = append(out, piece, 16000)
            assert.is_true(moves <= 13)
            assert.equal(16000000, #out)
            local at = out:ref()
            for i = 0, 15999, 7 do
                assert.equal(piece, ffi.string(at + i * 1000, 1000))
            end
            out:release()
        end
        assert.equal(0, pool:stats().checked_out)
    end)

    it("zeroes new bytes", function()
        local buf = pool:checkout(MIB):fill(1)
        for _, n in ipairs { MIB + 1, 3 * MIB, 9 * MIB, 33 * MIB } do
            local old = #buf
            buf:resize(n)
            assert.equal(("\1\0"), buf:sub(old, old + 1))
            assert.equal("\0", buf:sub(n))
            assert.is_true(is_zero(pool:with(1, function()
                return pool:writer(n - old):put(buf:sub(old + 1, -1))
            end)))
            buf:fill(1)
        end
        buf:release()
    end)

    it("raises at max_bytes, and leaves the buffer as it was", function()
        local own = bufpool.new { four_kib_count = 0, max_bytes = 9 * MIB,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        local buf = own:checkout(4 * MIB):fill(7)
        buf:resize(9 * MIB)
        raises(function() buf:put "x" end, "max_bytes")
        assert.equal(9 * MIB, #buf)
        assert.equal("\7\0", buf:sub(4 * MIB, 4 * MIB + 1))
        -- What was consumed is room.
        buf:skip(2 * MIB)
        buf:put(("x"):rep(2 * MIB))
        assert.equal("\7\0", buf:sub(2 * MIB, 2 * MIB + 1))
        assert.equal("\0x", buf:sub(7 * MIB, 7 * MIB + 1))
        buf:release()
    end)

    it("reads a file of some mebibytes", function()
        local file = io.tmpfile()
        local text = ("line of a body\n"):rep(350000)
        file:write(text)
        file:seek "set"
        local body = pool:writer()
        while body:readfrom(file, 65536) > 0 do end
        file:close()
        assert.equal(#text, #body)
        assert.is_true(body:equals(text))
        body:release()
    end)
end)

describe("what is read as a string", function()
    -- Most of the memory is never touched, and so has no pages. A process of
    -- its own, because LuaJIT may die of it.
    local function raises_for(call, j, times)
        assert.equal("false\ttrue\n", (helper.child_ok(([[
            local pool = require("bufpool").new {}
            local small, large = pool:checkout(13), pool:checkout(2 ^ 32 + 5)
            local function again(x, j)
                for _ = 1, %d do
                    x:set_u64le(1, j - 8)
                    x:%s
                    if #x == 0 then
                        x:resize(13)
                    end
                end
            end
            again(small, 13)
            local ok, message = pcall(again, large, %.0f)
            local here = debug.getinfo(1, "S").short_src
            print(ok, message and message:match(
                "^(.*):%%d+: string length overflow$") == here or message)
        ]]):format(times, call, j))), j)
    end

    for _, call in ipairs {
        "sub(1, j)", "tostring()", "get(j)", "get(0, j)", "get(0, 0, j)",
        "get(0, 0, 0, j)", "unpack(1, 's8')",
    } do
        it("by " .. call .. " is no longer than a string can be", function()
            for _, j in ipairs { 2 ^ 31 - 1, 2 ^ 31, 2 ^ 32, 2 ^ 32 + 5 } do
                raises_for(call, j, 1)
                raises_for(call, j, 200)        -- compiled
            end
        end)
    end

    it("by .. is no longer, with both of its sides", function()
        for _, times in ipairs { 1, 200 } do
            assert.equal("false\ttrue\n", (helper.child_ok(([[
                local pool = require("bufpool").new {}
                local small, large = pool:checkout(5), pool:checkout(2 ^ 30)
                local function again(x)
                    local text
                    for _ = 1, %d do
                        text = x .. x
                    end
                    return #text
                end
                again(small)
                local ok, message = pcall(again, large)
                local here = debug.getinfo(1, "S").short_src
                print(ok, message and message:match(
                    "^(.*):%%d+: string length overflow$") == here or message)
            ]]):format(times))))
        end
    end)

    -- LuaJIT looks at the length first, and then for memory.
    it("may be as long as a string can be", function()
        local said = helper.child_ok [[
            local ffi = require "ffi"
            ffi.cdef "int setrlimit(int, const uint64_t *);"
            local AS, GIB = 9, 2 ^ 30
            local buf = require("bufpool").new {}:checkout(2 ^ 31 - 257)
            local file = assert(io.open "/proc/self/status")
            local size = file:read "*a":match "VmSize:%s*(%d+)" * 1024
            file:close()
            ffi.C.setrlimit(AS, ffi.new("uint64_t[2]", size + GIB, size + GIB))
            local ok, text = pcall(buf.tostring, buf)
            print(ok and #text or text)
        ]]
        -- An emulator knows no such limit.
        if said ~= "2147483391\n" then
            assert.equal("not enough memory\n", said)
        end
    end)
end)
