local bufpool = require "bufpool"
local helper = require "support.helper"

require("ffi").cdef "int getpagesize(void);"

-- Every buffer that exists is in one place.
local function conserved(stats)
    local out, cached_bytes = 0, 0
    for i, class in ipairs(stats.classes) do
        assert.equal(class.count, class.out + class.cached + class.ready,
            "class " .. i)
        out = out + class.out
        cached_bytes = cached_bytes + class.size * (class.cached + class.ready)
    end
    assert.equal(cached_bytes + stats.large.cached_bytes, stats.cached_bytes)
    assert.equal(out + stats.large.out, stats.checked_out)
    return out
end

describe("stats", function()
    local pool
    before_each(function() pool = bufpool.new() end)

    it("has every documented field", function()
        local stats = pool:stats()
        for _, name in ipairs {
            "hits", "misses", "checked_out", "peak_checked_out",
            "bytes_checked_out", "peak_bytes_checked_out", "committed_bytes",
            "cached_bytes", "in_transit", "wiped_bytes", "gc_returns", "lost",
            "refused_by_max_bytes", "refused_by_system", "max_bytes",
            "large_bytes", "exhausted", "pressed_bytes",
        } do
            assert.equal("number", type(stats[name]), name)
        end
        assert.equal(4, #stats.classes)
        for _, class in ipairs(stats.classes) do
            for _, name in ipairs {
                "size", "count", "ready", "cached", "out", "hits", "misses",
                "floor", "shelf", "requested_bytes",
            } do
                assert.equal("number", type(class[name]), name)
            end
            assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, class.requests)
        end
        assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, stats.large.requests)
        for _, name in ipairs {
            "hits", "misses", "out", "bytes_out", "cached", "cached_bytes",
            "requested_bytes",
        } do
            assert.equal(0, stats.large[name], name)
        end
        assert.equal("table", type(stats.numa))
    end)

    it("counts what is out, in buffers and in bytes", function()
        local a, b = pool:checkout(1), pool:checkout(5000)
        local c = pool:checkout(70000):freeze()
        local stats = pool:stats()
        assert.equal(3, stats.checked_out)
        assert.equal(4096 + 65536 + 262144, stats.bytes_checked_out)
        a:release()
        b:release()
        assert.equal(1, pool:stats().checked_out)
        assert.equal(262144, pool:stats().bytes_checked_out)
        c:release()
        assert.equal(0, pool:stats().checked_out)
        assert.equal(0, pool:stats().bytes_checked_out)
    end)

    it("counts hits and misses", function()
        local own = bufpool.new {
            four_kib_count = 2, sixty_four_kib_count = 0,
        }
        local a, b = own:checkout(1), own:checkout(1)
        assert.equal(2, own:stats().hits)
        assert.equal(0, own:stats().misses)
        local c = own:checkout(1)
        assert.equal(2, own:stats().classes[1].hits)
        assert.equal(1, own:stats().classes[1].misses)
        a:release() b:release() c:release()
        own:checkout(1):release()
        assert.equal(3, own:stats().classes[1].hits)
        assert.equal(0, own:stats().classes[2].misses)
        own:checkout(65536):release()
        assert.equal(1, own:stats().classes[2].misses)
        local before = own:stats().misses
        own:checkout(2000000):release()
        assert.equal(before + 1, own:stats().misses)
    end)

    it("says which sizes were asked for", function()
        pool:checkout(40000):release()
        pool:checkout(4096):release()
        pool:checkout(0):release()
        pool:checkout(2000000):release()
        local stats = pool:stats()
        assert.same({ 0, 0, 0, 0, 0, 0, 0, 1 }, stats.classes[1].requests)
        assert.same({ 0, 0, 0, 0, 0, 0, 0, 1 }, stats.classes[2].requests)
        assert.same({ 0, 0, 0, 1, 0, 0, 0, 0 }, stats.large.requests)
        assert.equal(40000, stats.classes[2].requested_bytes)
        assert.equal(2000000, stats.large.requested_bytes)
    end)

    it("tells memory with pages from memory without", function()
        local own = bufpool.new {
            classes = { { size = 1048576, count = 8 } },
        }
        local MIB = 1048576
        local before = own:resident()
        assert.is_true(before < MIB)
        local buf = own:checkout(MIB)
        assert.equal(before, own:resident())
        -- The system may give pages of 2 MiB by itself.
        buf:fill(1)
        local one = own:resident()
        assert.is_true(one >= before + MIB and one < 8 * MIB)
        local large = own:checkout(6 * MIB):fill(1)
        assert.is_true(own:resident() >= one + 6 * MIB)
        assert.equal(14 * MIB, own:stats().committed_bytes)
        large:release()
        buf:release()
        own:trim()
        assert.equal(one, own:resident())
    end)

    it("counts attempts that found nothing ready", function()
        local own = bufpool.new { four_kib_count = 1, large_bytes = 8388608 }
        local buf = own:try_checkout(1)
        assert.equal(0, own:stats().exhausted)
        for n, size in ipairs { 1, 1048576, 2000000 } do
            assert.same({ nil, "exhausted" }, { own:try_checkout(size) })
            assert.equal(n, own:stats().exhausted)
        end
        buf:release()
        own:checkout(2000000):release()
        own:try_checkout(1):release()
        own:try_checkout(2000000):release()
        assert.equal(3, own:stats().exhausted)
        assert.equal(0, own:stats().refused_by_system)
    end)

    it("has the limits of the pool and of a class", function()
        local own = bufpool.new {
            four_kib_count = 3, one_mib_count = 1, large_bytes = 8388608,
        }
        local stats = own:stats()
        assert.equal(8388608, stats.large_bytes)
        assert.same({ 3, 1 },
            { stats.classes[1].floor, stats.classes[4].floor })
        -- As many stay with a thread, and one more goes elsewhere.
        for i, class in ipairs(stats.classes) do
            local held = {}
            for k = 1, class.shelf do
                held[k] = own:checkout(class.size)
            end
            for _, buf in ipairs(held) do
                buf:release()
            end
            assert.is_true(own:stats().classes[i].cached <= class.shelf)
            assert.is_true(own:stats().classes[i].cached > 0)
        end
    end)

    it("tells how old the oldest buffer is, where that is recorded", function()
        local own = bufpool.new()
        local unseen = own:checkout(1)
        assert.is_nil(own:stats().oldest)
        own:set { leak_detection = "all" }
        assert.is_nil(own:stats().oldest)
        local buf = own:checkout(1)
        local oldest = own:stats().oldest
        assert.is_true(oldest >= 0 and oldest < 3600)
        assert.is_true(bufpool.stats().oldest >= oldest)
        own:set { leak_detection = "off" }
        assert.is_true(own:stats().oldest >= oldest)
        buf:release()
        assert.is_nil(own:stats().oldest)
        unseen:release()
    end)

    it("keeps the released in the class that they joined", function()
        local held = {}
        for i = 1, 20 do
            held[i] = pool:checkout(65536)
        end
        assert.equal(20, pool:stats().classes[2].count)
        for i = 1, 20 do
            held[i]:release()
        end
        local class = pool:stats().classes[2]
        assert.equal(class.count, class.cached + class.ready)
        assert.is_true(class.count >= 8)
    end)

    it("conserves buffers through random use", function()
        local seed = helper.seed()
        local sizes = { 0, 1, 4096, 5000, 65536, 70000, 300000, 2000000 }
        local held = {}
        for step = 1, 5000 do
            local i = math.random(40)
            local x = held[i]
            if not x then
                held[i] = assert(pool:checkout(sizes[math.random(#sizes)]))
            elseif math.random(4) == 1 and bufpool.type(x) == "buffer" then
                held[i] = x:freeze()
            elseif math.random(50) == 1 then
                pool:trim()
            else
                x:release()
                held[i] = nil
            end
            if step % 50 == 0 then
                local exact, number = 0, 0
                for _, y in pairs(held) do
                    number = number + 1
                    exact = exact + (#y > 1048576 and 1 or 0)
                end
                local stats = pool:stats()
                local where = ("seed %d, step %d"):format(seed, step)
                assert.equal(number, stats.checked_out, where)
                assert.equal(number - exact, conserved(stats), where)
                assert.equal(exact, stats.large.out, where)
            end
        end
        for _, x in pairs(held) do
            x:release()
        end
        assert.equal(0, conserved(pool:stats()))
    end)

    it("has peaks that are never below what is seen out", function()
        local held = {}
        for i = 1, 10 do
            held[i] = pool:checkout(65536)
        end
        local stats = pool:stats()
        assert.is_true(stats.peak_checked_out >= 10)
        assert.is_true(stats.peak_bytes_checked_out >= 10 * 65536)
        for i = 1, 10 do
            held[i]:release()
        end
        stats = pool:stats()
        assert.equal(0, stats.checked_out)
        assert.equal(10, stats.peak_checked_out)
        assert.equal(10 * 65536, stats.peak_bytes_checked_out)
    end)

    it("counts what was wiped, which is what was dirtied", function()
        local buf = pool:checkout(65536)
        buf:write(1, ("x"):rep(100))
        local before = pool:stats().wiped_bytes
        buf:release()
        local wiped = pool:stats().wiped_bytes - before
        assert.is_true(wiped >= 100)
        assert.is_true(wiped < 65536)
        before = pool:stats().wiped_bytes
        pool:checkout(65536):release()
        assert.equal(before, pool:stats().wiped_bytes)
        buf = pool:checkout(65536)
        buf:ref()
        buf:release()
        assert.is_true(pool:stats().wiped_bytes - before >= 65536)
    end)

    it("counts what the collector returned", function()
        assert.equal(0, pool:stats().gc_returns)
        helper.apart(function()
            for _ = 1, 10 do
                pool:checkout(8)
            end
            pool:checkout(8):freeze()
            pool:checkout(8):release()
        end)
        helper.collect()
        assert.equal(11, pool:stats().gc_returns)
        assert.equal(0, pool:stats().checked_out)
    end)

    it("counts all memory as committed and gives it back by trim", function()
        local base = pool:stats().committed_bytes
        local held = {}
        for i = 1, 30 do
            held[i] = pool:checkout(1048576)
        end
        assert.is_true(pool:stats().committed_bytes >= base + 30 * 1048576)
        for i = 1, 30 do
            held[i]:release()
        end
        local before = pool:stats().committed_bytes
        local given = pool:trim()
        assert.equal("number", type(given))
        assert.equal(before - given, pool:stats().committed_bytes)
        assert.equal(0, pool:stats().classes[4].count)
        assert.is_true(pool:stats().committed_bytes <= base)
    end)

    it("keeps the configured counts through trim", function()
        pool:trim()
        local ready = {}
        for i, class in ipairs(pool:stats().classes) do
            ready[i] = class.ready + class.cached
        end
        assert.same({ 64, 8, 2, 0 }, ready)
    end)

    it("has nothing in transit and nothing lost", function()
        local stats = pool:stats()
        assert.equal(0, stats.in_transit)
        assert.equal(0, stats.lost)
    end)

    it("says that no node was asked for, or each thread's", function()
        assert.is_nil(pool:stats().numa.requested)
        local own = bufpool.new { numa_node = "local" }
        own:checkout(65536):fill(1):release()
        local numa = own:stats().numa
        assert.equal("local", numa.requested)
        if numa.available then
            local pages = 0
            for _, n in pairs(numa.pages_by_node) do
                pages = pages + n
            end
            local page = require("ffi").C.getpagesize()
            assert.is_true(pages * page >= 65536)
        end
    end)

    it("conserves buffers of the pool's own classes", function()
        local own = bufpool.new {
            classes = { { size = 131072, count = 2 }, { size = 65536 } },
        }
        local held = {}
        for i = 1, 100 do
            held[i] = own:checkout(i * 1600)
        end
        local stats = own:stats()
        assert.equal(100, stats.checked_out)
        assert.same({ 40, 41 }, { stats.classes[1].out, stats.classes[2].out })
        assert.equal(81, conserved(stats))
        for i = 1, 100 do
            held[i]:release()
        end
        stats = own:stats()
        assert.equal(0, conserved(stats))
        local all = 40 * 65536 + 41 * 131072 + stats.large.cached_bytes
        assert.equal(19, stats.large.cached)
        assert.equal(all, stats.committed_bytes)
        assert.equal(all - 2 * 131072, own:trim())
        assert.equal(0, own:stats().large.cached)
    end)
end)

describe("bufpool.stats", function()
    it("adds up all pools and lists the named ones",
        helper.uncollected(function()
            local name = "stats-spec"
            local before = bufpool.stats()
            local a = bufpool.new { name = name }
            local b = bufpool.new()
            local x, y = a:checkout(1), b:checkout(1)
            local stats = bufpool.stats()
            assert.equal(before.checked_out + 2, stats.checked_out)
            assert.is_true(stats.committed_bytes >= before.committed_bytes
                + a:stats().committed_bytes + b:stats().committed_bytes)
            assert.equal(1, stats.pools[name].checked_out)
            assert.equal(64, stats.pools[name].classes[1].count)
            x:release()
            y:release()
            assert.equal(before.checked_out, bufpool.stats().checked_out)
            a:close()
            assert.is_nil(bufpool.stats().pools[name])
        end))

    it("adds up classes by their size", helper.uncollected(function()
        local function out(size)
            for _, class in ipairs(bufpool.stats().classes) do
                if class.size == size then
                    return class.out
                end
            end
            return 0
        end
        local before = out(65536)
        local a = bufpool.new { classes = { { size = 65536 } } }
        local b = bufpool.new { classes = { { size = 12288 },
            { size = 65536 } } }
        local held = { a:checkout(1), b:checkout(1), b:checkout(65536) }
        assert.equal(before + 2, out(65536))
        assert.equal(1, out(12288))
        for i = 1, 3 do
            held[i]:release()
        end
        assert.equal(before, out(65536))
    end))

    it("adds up every figure of a class", function()
        local size = 4096 * 313     -- of no other pool
        local pools = {
            bufpool.new { classes = { { size = size, count = 3 } } },
            bufpool.new { classes = { { size = 4096 },
                { size = size, count = 5 } } },
        }
        local held = {}
        for i, own in ipairs(pools) do
            for _ = 1, 10 * i do
                own:checkout(size):release()
            end
            for _ = 1, 1 + 4 * i do      -- more than are ready
                held[#held + 1] = own:checkout(size)
            end
            for _ = 1, i do              -- one is cached, one ready
                table.remove(held):release()
            end
        end
        local total
        for _, class in ipairs(bufpool.stats().classes) do
            total = class.size == size and class or total
        end
        local a = pools[1]:stats().classes[1]
        local b = pools[2]:stats().classes[2]
        local fields = 0
        for field, sum in pairs(total) do
            if field == "requests" then
                for i = 1, 8 do
                    assert.equal(a.requests[i] + b.requests[i], sum[i])
                end
                assert.is_true(a.requests[8] > 0 and b.requests[8] > 0)
            elseif field ~= "size" then
                assert.equal(a[field] + b[field], sum, field)
                fields = fields + 1
            end
        end
        assert.equal(9, fields)
        for _, field in ipairs {
            "count", "out", "hits", "misses", "requested_bytes", "floor",
        } do
            assert.is_true(a[field] > 0 and b[field] > a[field], field)
        end
        assert.is_true(a.cached > 0 and b.cached > 0 and b.ready > 0)
        for _, buf in ipairs(held) do
            buf:release()
        end
    end)

    it("lists every size that there is, in order", function()
        local held = {}
        for pool = 0, 2 do
            local classes = {}
            for k = 1, 16 do
                classes[k] = { size = 4096 * (100 - 16 * pool - k) }
            end
            local own = bufpool.new { classes = classes }
            held[own] = own:checkout(4096 * (99 - 16 * pool))
        end
        local total, last, sizes = 0, 0, 0
        for _, class in ipairs(bufpool.stats().classes) do
            assert.is_true(class.size > last)
            last, sizes = class.size, sizes + 1
            total = total + class.out
        end
        assert.is_true(sizes >= 48)
        assert.equal(bufpool.stats().checked_out, total)
        for _, buf in pairs(held) do
            buf:release()
        end
    end)
end)
