-- The collector feels memory that is not its own. Each measurement runs in a
-- process of its own; resident memory is read from /proc/self/status.
local bufpool = require "bufpool"
local helper = require "support.helper"

-- Defines rss() in bytes, and loop(n, fn), which returns the most that rss()
-- has been above what it was at the start.
local measure = [[
local bufpool = require "bufpool"
local function rss()
    for line in io.lines "/proc/self/status" do
        local kilobytes = line:match "^VmRSS:%s*(%d+) kB"
        if kilobytes then
            return kilobytes * 1024
        end
    end
end
local function loop(n, fn)
    local start, most = rss(), 0
    for i = 1, n do
        fn()
        if i % 10000 == 0 then
            most = math.max(most, rss() - start)
        end
    end
    return most
end
]]

local MiB = 1048576

describe("dropping buffers without releasing them", function()
    it("keeps off-heap memory under 64 MiB with a small heap: a million "
        .. "of 64 KiB", function()
        local most = tonumber(helper.child_ok(measure .. [[
            local pool = bufpool.new()
            print(loop(1000000, function()
                pool:checkout(65536):setbyte(1, 1)
            end))
        ]]))
        assert.is_true(most < 64 * MiB, most .. " bytes")
    end)

    -- Every page is touched, or unwritten memory would not be resident.
    for _, what in ipairs {
        { "full buffers", "pool:checkout(65536):fill(1)" },
        { "frozen objects", "pool:checkout(65536):fill(1):freeze()" },
        { "buffers that grew", "pool:writer():reserve(65536)[65535] = 1" },
        { "slices", "pool:checkout(65536):fill(1):freeze():slice(9, 99)" },
        { "small buffers", "pool:checkout(1000):fill(1)" },
        { "buffers of 1 MiB", "pool:checkout(1048576):fill(1, 1, 300000)" },
        { "exact sizes", "pool:checkout(2000000):fill(1, 1, 300000)" },
    } do
        it("keeps off-heap memory under 64 MiB with a small heap: "
            .. what[1], function()
            local most = tonumber(helper.child_ok(measure .. ([[
                local pool = bufpool.new()
                print(loop(20000, function() %s end))
            ]]):format(what[2])))
            assert.is_true(most < 64 * MiB, most .. " bytes")
        end)
    end

    for _, what in ipairs {
        { "buffers", "pool:checkout(1e6)" },
        { "frozen objects", "pool:checkout(1e6):freeze()" },
        { "slices", "pool:checkout(1e6):freeze():slice(9, 99)" },
        { "slices whose parent was released", "local f = "
            .. "pool:checkout(1e6):freeze() f:slice(9, 99) f:release()" },
        { "clones of clones that were released", "local f = "
            .. "pool:checkout(1e6):freeze() local g, h = f:clone(), f:clone() "
            .. "f:release() g:clone() g:release() h:release()" },
        { "frozen handles", "pool:borrow(1e6):freeze()" },
        { "frozen handles of a scratch", "pool:scratch(function(out) "
            .. "out:resize(1e6):freeze() end)" },
        { "parts of a ticket", "local f = pool:checkout(1e6):freeze() "
            .. "local t = f:slice(9, 99):share() f:release() "
            .. "bufpool.adopt(t):clone()" },
    } do
        it("has 64 MiB out at most: " .. what[1], function()
            local most = tonumber(helper.child_ok(measure .. ([[
                local pool = bufpool.new()
                for _ = 1, 2000 do
                    (function() %s end)()
                end
                print(pool:stats().peak_bytes_checked_out)
            ]]):format(what[2])))
            assert.is_true(most <= 64 * MiB, most .. " bytes")
        end)
    end

    it("keeps off-heap memory under the live heap with 200 MB of tables",
        function()
            local heap, most = helper.child_ok(measure .. [[
                local pool = bufpool.new()
                local live = {}
                while collectgarbage "count" < 200 * 1000 do
                    for _ = 1, 10000 do
                        live[#live + 1] = { #live, {} }
                    end
                end
                collectgarbage()
                local heap = collectgarbage "count" * 1024
                -- Thirty times the live heap: steady long before.
                local most = loop(100000, function()
                    pool:checkout(65536):setbyte(1, 1)
                end)
                print(heap, most, #live)
            ]]):match "^(%S+)%s+(%S+)"
            heap, most = tonumber(heap), tonumber(most)
            assert.is_true(heap > 150e6)
            -- The live heap itself was there before: twice it, in all.
            assert.is_true(most < heap, most .. " bytes")
        end)

    it("keeps to max_bytes and never fails for what only lies dropped",
        function()
            helper.child_ok(measure .. [[
                local pool = bufpool.new { max_bytes = 16 * 1048576 }
                for i = 1, 20000 do
                    local buf, message = pool:checkout(65536)
                    if not buf then
                        collectgarbage()
                        collectgarbage()
                        assert(pool:checkout(65536), message)
                    end
                end
                assert(pool:stats().committed_bytes <= 16 * 1048576)
            ]])
        end)

    it("counts every one as returned by the collector", function()
        local pool = bufpool.new()
        helper.apart(function()
            for _ = 1, 5000 do
                pool:checkout(65536)
            end
        end)
        helper.collect()
        local stats = pool:stats()
        assert.equal(0, stats.checked_out)
        assert.equal(5000, stats.gc_returns)
    end)
end)

describe("the collector", function()
    it("is not restarted where the program has stopped it", function()
        helper.child_ok [[
            local pool = require "bufpool".new()
            local collected = false
            do
                local proxy = newproxy(true)
                getmetatable(proxy).__gc = function() collected = true end
            end
            collectgarbage "stop"
            for _ = 1, 2000 do
                pool:checkout(65536)
            end
            assert(pool:stats().gc_returns == 0)
            assert(not collected)
            assert(pool:stats().checked_out == 2000)
            collectgarbage "restart"
            collectgarbage()
            collectgarbage()
            assert(pool:stats().checked_out == 0)
        ]]
    end)

    it("may run a finalizer that uses the pool", function()
        helper.child_ok [[
            local pool = require "bufpool".new()
            local runs = 0
            local function arm()
                local proxy = newproxy(true)
                getmetatable(proxy).__gc = function()
                    runs = runs + 1
                    pool:checkout(65536):setbyte(1, 1)
                    pool:checkout(100):release()
                end
            end
            for _ = 1, 20000 do
                arm()
                pool:checkout(65536):setbyte(1, 1)
            end
            collectgarbage()
            assert(runs > 1000)
            collectgarbage()
            collectgarbage()
            local stats = pool:stats()
            assert(stats.checked_out <= 1, stats.checked_out)
        ]]
    end)

    it("may run a finalizer that closes the pool during a checkout",
        function()
            helper.child_ok [[
                local bufpool = require "bufpool"
                for round = 1, 50 do
                    local pool = bufpool.new()
                    local proxy = newproxy(true)
                    getmetatable(proxy).__gc = function() pool:close() end
                    proxy = nil
                    local ok, message
                    for i = 1, 2000 do
                        ok, message = pcall(pool.checkout, pool, 65536)
                        if not ok then
                            break
                        end
                    end
                    assert(not ok, "the finalizer never ran")
                    assert(message:find("closed", 1, true), message)
                end
            ]]
        end)

    it("is not blamed for the error of another library's finalizer",
        function()
            -- What a finalizer raises comes out wherever the collector runs,
            -- or, in later LuaJITs, goes to standard error. The pool must be
            -- whole afterwards.
            helper.child_ok [[
                local pool = require "bufpool".new()
                local booms = 0
                local function boom()
                    booms = booms + 1
                    error "boom"
                end
                local function provoke()
                    local proxy = newproxy(true)
                    getmetatable(proxy).__gc = boom
                    proxy = nil
                    pool:checkout(65536)
                end
                for _ = 1, 5000 do
                    pcall(provoke)
                end
                local rounds = 0
                repeat
                    pcall(collectgarbage)
                    rounds = rounds + 1
                until booms == 5000 or rounds == 10000
                pcall(collectgarbage)
                pcall(collectgarbage)
                assert(booms > 0, "no finalizer has raised")
                local stats = pool:stats()
                assert(stats.checked_out == 0, stats.checked_out)
                assert(#pool:checkout(65536) == 65536)
            ]]
        end)
end)
