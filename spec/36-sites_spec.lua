-- Leak detection: pool:sites() says which lines have what is out. The lines are
-- compared with those that the debug library gives.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises

-- "spec/36-sites_spec.lua:NN", NN lines after the line of the call.
local function line(after)
    return "spec/36-sites_spec.lua:"
        .. debug.getinfo(2, "l").currentline + (after or 0)
end

-- The sites of the pool by the line that called bufpool, and how many.
local function sites_of(pool)
    local by_line, count = {}, 0
    for _, site in ipairs(pool:sites()) do
        by_line[site.place:match "^[^ ]+"] = site
        count = count + 1
    end
    return by_line, count
end

local function collect()
    collectgarbage()
    collectgarbage()
end

-- What keeps the compiler from seeing that nobody uses it.
local kept

describe("pool:sites", function()
    local pool
    before_each(function()
        pool = bufpool.new { leak_detection = "all" }
    end)
    after_each(function()
        kept = nil
        collect()
    end)

    it("lists nothing unless it is asked to", function()
        local quiet = bufpool.new()
        local buf = quiet:checkout(1)
        assert.same({}, quiet:sites())
        buf:release()
        assert.equal(0, select("#", quiet:close()))
    end)

    it("names the line of a handler that forgets to release one in ten",
        function()
            local forgets
            local function handle(request)
                forgets = line(1)
                local buf = pool:checkout(1000)
                if request % 10 == 0 then
                    return buf
                end
                buf:put("x"):release()
            end
            local forgotten = {}
            for request = 1, 1000 do
                forgotten[#forgotten + 1] = handle(request)
            end
            local list = pool:sites()
            assert.equal(1, #list)
            assert.equal(forgets, list[1].place:match "^[^ ]+")
            assert.equal(100, list[1].buffers)
            assert.equal(409600, list[1].bytes)
            assert.equal(0, list[1].gc_returns)
            assert.is_true(list[1].oldest >= 0 and list[1].oldest < 3600)
            for i = 1, #forgotten do
                forgotten[i] = nil
            end
            collect()
            list = pool:sites()
            assert.equal(forgets, list[1].place:match "^[^ ]+")
            assert.equal(0, list[1].buffers)
            assert.equal(0, list[1].bytes)
            assert.equal(0, list[1].oldest)
            assert.equal(100, list[1].gc_returns)
        end)

    it("names it in a sample of the checkouts, too", function()
        pool:set { leak_detection = "sampled", leak_sample = 4 }
        local forgets
        local function handle(request)
            forgets = line(1)
            local buf = pool:borrow(1000)
            if request % 10 ~= 0 then
                buf:release()
            end
        end
        for request = 1, 30000 do
            handle(request)
        end
        local list = pool:sites()
        assert.equal(1, #list)
        assert.equal(forgets, list[1].place:match "^[^ ]+")
        assert.is_true(list[1].buffers > 0 and list[1].buffers < 3000)
    end)

    -- At a distance of 8 at most, 4 on average, none of two that take turns
    -- could be missed 30,000 times.
    it("samples each of two checkouts that take turns", function()
        pool:set { leak_detection = "sampled", leak_sample = 4 }
        local first, second = line(3), line(4)
        kept = {}
        for i = 1, 30000, 2 do
            kept[i] = pool:checkout(1)
            kept[i + 1] = pool:checkout(1)
        end
        local sites = sites_of(pool)
        assert.is_true(sites[first].buffers > 1000)
        assert.is_true(sites[second].buffers > 1000)
    end)

    it("finds every way to take a buffer", function()
        local lines = {}
        kept = {}
        local function note(after)
            lines[#lines + 1] = "spec/36-sites_spec.lua:"
                .. debug.getinfo(2, "l").currentline + 1 + (after or 0)
        end
        note() kept[1] =
            pool:checkout(1)
        note() kept[2] =
            pool:checkout_zeroed(1)
        note() kept[3] =
            pool:checkout_aligned(1, 64)
        note() kept[4] =
            pool:checkout_aligned(1, 65536)
        note() kept[5] =
            pool:try_checkout(1)
        note() kept[6] =
            pool:writer()
        note() kept[7] =
            pool:borrow(1)
        note() kept[8] =
            pool:checkout(3000000)
        note() kept[9] =
            pool:with(1, function(buf) return buf:freeze() end)
        note() kept[10] =
            pool:scratch(function(out) return out:freeze() end)
        local sites, count = sites_of(pool)
        for i = 1, #lines do
            assert.equal(1, (sites[lines[i]] or {}).buffers, lines[i])
        end
        assert.equal(#lines, count)
        for i = 1, #lines do
            kept[i]:release()
        end
        assert.same({}, pool:sites())
    end)

    it("finds what compiled code takes", function()
        local here = line(2)
        local function loop(n)
            for _ = 1, n do pool:borrow(1) end
        end
        loop(1000)
        assert.equal(1000, sites_of(pool)[here].buffers)
    end)

    it("loses no buffer on any way home", function()
        local buf = pool:writer(10)
        for _ = 1, 300 do
            buf:put(("x"):rep(10000))
        end
        assert.is_true(pool:sites()[1].bytes >= 3000000)
        assert.equal(1, pool:sites()[1].buffers)
        buf:free()
        assert.equal(0, pool:sites()[1].bytes)
        assert.equal(1, pool:sites()[1].buffers)
        buf:put("again"):release()
        assert.same({}, pool:sites())

        local frozen = pool:checkout(1):freeze()
        local slice, clone = frozen:slice(1, 1), frozen:clone()
        frozen:release()
        slice:release()
        assert.equal(1, #pool:sites())
        clone:release()
        assert.same({}, pool:sites())

        local ticket = pool:checkout(1):detach()
        assert.equal(1, pool:sites()[1].buffers)
        bufpool.adopt(ticket):release()
        pool:checkout(1):freeze():share()
        collect()
        pool:with(1, function() end)
        pcall(pool.with, pool, 1, error)
        pool:scratch(function() end)
        kept = pool:borrow(1)
        kept:detach()
        local sites = pool:sites()
        assert.equal(2, #sites)
        assert.equal(2, pool:stats().in_transit)
    end)

    it("follows what is split off, and memory that is exchanged", function()
        local here = line(1)
        local buf = pool:writer():put(("x"):rep(100000))
        local part = buf:split_to(60000)
        assert.equal(2, sites_of(pool)[here].buffers)
        part:release()
        assert.equal(1, sites_of(pool)[here].buffers)
        pool:set { leak_detection = "off" }
        for _ = 1, 3 do
            local other = pool:writer()
            other:take(buf)
            buf:take(other)
            local tail = other:put(("y"):rep(100000)):split_to(50000)
            other:release()
            tail:release()
        end
        local other = pool:writer()
        other:take(buf)
        buf:release()
        other:release()
        assert.same({}, pool:sites())
        assert.equal(0, pool:stats().checked_out)
    end)

    it("counts tickets that expire", function()
        local short = bufpool.new {
            leak_detection = "all", ticket_ttl = 0.001,
        }
        short:checkout(1):detach()
        repeat
            short:trim()
        until short:stats().in_transit == 0
        assert.same({}, short:sites())
    end)

    it("names callers, and no file of bufpool", function()
        local function inner()
            local buf = pool:with(1, function(b) return b:freeze() end)
            return buf
        end
        local here = line(-3)
        local calls = line(1)
        local frozen = inner()
        local place = pool:sites()[1].place
        assert.equal(here .. " < " .. calls, place:match "^%S+ < %S+")
        assert.is_nil(place:find "bufpool/")
        frozen:release()
    end)

    it("names chunks of every kind", function()
        for name, place in pairs {
            ["@/srv/app/handlers/upload.lua"] = "handlers/upload.lua:1",
            ["@upload.lua"] = "upload.lua:1",
            ["=upload"] = "upload:1",
            ["=a\nb"] = "a?b:1",
            ["return (...)"] = '[string "return (...)"]:1',
            ["@" .. ("x"):rep(5000)] = ("x"):rep(120) .. ":1",
            ["@/a/" .. ("b"):rep(200) .. "/c.lua"] = ("b"):rep(114)
                .. "/c.lua:1",
            ["@/a/" .. ("b"):rep(115) .. "/c/d.lua"] = "c/d.lua:1",
        } do
            local own = bufpool.new { leak_detection = "all" }
            local take = loadstring(
                "local b = (...):checkout(1) return b", name)
            local buf = coroutine.wrap(take)(own)
            assert.equal(place, own:sites()[1].place)
            buf:release()
        end
    end)

    it("tells 511 places apart", function()
        local bufs = {}
        for i = 1, 600 do
            local take = loadstring("local b = (...):checkout(1) return b",
                "=" .. i)
            bufs[i] = take(pool)
        end
        local list, sum, others = pool:sites(), 0, nil
        for _, site in ipairs(list) do
            sum = sum + site.buffers
            if site.place == "(other places)" then
                others = site
            end
        end
        assert.equal(600, sum)
        assert.equal(512, #list)
        assert.equal(600 - 511, others.buffers)
        for i = 1, 600 do
            bufs[i]:release()
        end
        assert.same({}, pool:sites())
    end)

    it("counts what free has emptied, and since when it is out", function()
        local buf = pool:checkout(1):free()
        os.execute "sleep 0.1"      -- many ticks of the coarse clock
        assert.is_true(pool:sites()[1].oldest > 0)
        assert.equal(1, pool:sites()[1].buffers)
        assert.equal(0, pool:sites()[1].bytes)
        buf:release()
    end)

    it("is in stats with its first five places, while it is on", function()
        local bufs = {}
        for i = 1, 7 do
            local take = loadstring(
                "local b = (...):checkout(select(2, ...)) return b", "=" .. i)
            bufs[i] = take(pool, 100000 * i)
        end
        local all = pool:sites()
        for i, site in ipairs(pool:stats().sites) do
            assert.equal(all[i].place, site.place)
            assert.equal(all[i].bytes, site.bytes)
        end
        assert.equal(5, #pool:stats().sites)
        assert.equal(7, #all)
        pool:set { leak_detection = "off" }
        assert.is_nil(pool:stats().sites)
        for i = 1, 7 do
            bufs[i]:release()
        end
        pool:set { leak_detection = "sampled" }
        assert.same({}, pool:stats().sites)
    end)

    it("keeps pools apart", function()
        local other = bufpool.new { leak_detection = "all" }
        local a, b = pool:checkout(1), other:checkout(1)
        assert.equal(1, #pool:sites())
        a:release()
        assert.equal(0, #pool:sites())
        assert.equal(1, #other:sites())
        b:release()
    end)

    it("lists the most bytes first", function()
        local bufs = { pool:checkout(1) }
        bufs[2] = pool:checkout(100000)
        bufs[3] = pool:checkout(5000)
        local bytes = {}
        for i, site in ipairs(pool:sites()) do
            bytes[i] = site.bytes
        end
        assert.same({ 262144, 65536, 4096 }, bytes)
        for i = 1, 3 do
            bufs[i]:release()
        end
    end)

    it("is told of who uses what is dead", function()
        local out = line(1)
        local buf, handle = pool:checkout(1), pool:borrow(1)
        local release, len = buf.release, buf.len
        local home = line(1)
        buf:release() handle:release()
        local function dead(text, fn, ...)
            local _, message = pcall(fn, ...)
            local a, b = message:match("attempt to use a " .. text
                .. " %(checked out at (%S+).*, released at (%S+).*%)$")
            assert.equal(out, a, message)
            assert.equal(home, b, message)
        end
        dead("released buffer", release, buf)
        dead("released buffer", len, buf)
        dead("released buffer", function() return #buf end)
        dead("released handle", handle.len, handle)
        dead("released handle", handle.release, handle)
        out = line(1)
        local taken = pool:checkout(1)
        local frozen = taken:freeze()
        local message = select(2, pcall(release, taken))
        assert.is_truthy(message:find("frozen buffer (checked out at " .. out,
            1, true), message)
        assert.is_nil(message:find "released at")
        local clone, unref = frozen:clone(), frozen.release
        home = line(1)
        frozen:release() clone:release()
        dead("frozen buffer", release, taken)
        dead("released frozen", unref, frozen)
        dead("released frozen", function() return #clone end)
        out = line(1)
        taken = bufpool.adopt(pool:checkout(1):detach())
        home = line(1)
        taken:release()
        dead("released buffer", len, taken)
        -- The descriptors are used again, by others too.
        local others = {}
        local quiet = bufpool.new()
        for i = 1, 200 do
            others[i] = i % 2 == 0 and quiet:checkout(1) or pool:checkout(1)
        end
        for i = 1, 200 do
            others[i]:release()
        end
        message = select(2, pcall(handle.len, handle))
        assert.matches("released handle$", message)
        message = select(2, pcall(release, others[2]))
        assert.matches("released buffer$", message)
        pool:close()
        pool = bufpool.new { leak_detection = "all" }
        pool:checkout(1):release()
        message = select(2, pcall(release, others[1]))
        assert.matches("released buffer", message)
    end)

    -- What has no line, and the lines of what releases for its caller.
    it("knows how else a buffer came home", function()
        local function dead(text, x)
            local _, message = pcall(function() return #x end)
            assert.equal(1, message:match(", released (.*)%)$"):find(text, 1,
                true), message)
        end
        local function lose(buf)
            getmetatable(newproxy(true)).__gc = function() kept = { buf } end
        end
        lose(pool:checkout(1))
        collect()
        dead("by the collector", kept[1])
        local function keep(b) kept = b end
        local home = "at " .. line(1)
        pool:with(1, keep)
        dead(home, kept)
        home = "at " .. line(1)
        pool:scratch(keep)
        dead(home, kept)
        -- Where one cannot yield, as in a coroutine, with is another function.
        coroutine.wrap(function()
            home = "at " .. line(1)
            pool:with(1, keep)
        end)()
        dead(home, kept)
    end)

    -- A program without the JIT has other functions for handles.
    it("knows where handles were released, compiled or not", function()
        for _, mode in ipairs { "on", "off" } do
            local said = helper.child_ok("jit." .. mode .. "()" .. [[
                local pool = require("bufpool").new { leak_detection = "all" }
                local handle
                for _ = 1, 200 do
                    handle = pool:borrow(1)
                    handle:release()
                end
                print(pcall(handle.len, handle))]])
            local out, home = said:match
                "out at %S+:(%d+), released at %S+:(%d+)"
            assert.is_truthy(out, said)
            assert.equal(out + 1, tonumber(home))
        end
    end)

    it("is what close returns where leak detection is on", function()
        local here = line(1)
        local buf = pool:checkout(1)
        local list = pool:close()
        assert.equal(1, #list)
        assert.equal(here, list[1].place:match "^%S+")
        buf:release()
        raises(function() pool:sites() end, "closed pool")
    end)
end)

-- Each test has pools with names of its own, because other tests may have left
-- something out.
describe("bufpool.report", function()
    -- A finalizer asks at another moment of the call in each round.
    it("tells a place once, also where a finalizer asks in between", function()
        local pause, step = collectgarbage("setpause", 100),
            collectgarbage("setstepmul", 200)
        local trash
        for round = 0, 300 do
            local pools = {}
            for i = 1, 48 do
                local k = i % 4 + 1
                pools[k] = pools[k] or bufpool.new { leak_detection = "all" }
                assert(loadstring("local p = ... p:checkout(9)",
                    "=between" .. i))(pools[k])
            end
            collectgarbage("setstepmul", 100 + round * 7)
            helper.collect()
            local on, more = false, 0
            local function tell(report)
                more = more + report.more
            end
            getmetatable(newproxy(true)).__gc = function()
                if on then
                    on = false
                    bufpool.report(tell)
                end
            end
            for i = 1, round * 37 % 400 do
                trash = { i }
            end
            on = true
            bufpool.report(tell)
            on = false
            bufpool.report(tell)
            assert.equal(48, more)
            for k = 1, 4 do
                pools[k]:close()
            end
        end
        collectgarbage("setpause", pause)
        collectgarbage("setstepmul", step)
        return trash
    end)

    local names = 0
    local function new_pool()
        names = names + 1
        return bufpool.new {
            name = "reported " .. names, leak_detection = "all",
        }
    end

    local function lose(pool, count)
        for _ = 1, count do
            pool:checkout(1)
        end
        collect()
    end

    -- What is told of the pool that was made last.
    local function told()
        local list = {}
        bufpool.report(function(report)
            if report.pool == "reported " .. names then
                list[#list + 1] = report
            end
        end)
        return list
    end

    it("tells of what the collector had to release, once", function()
        local pool = new_pool()
        local buf = pool:checkout(1)
        assert.same({}, told())
        buf:release()
        lose(pool, 3)
        local list = told()
        assert.equal(1, #list)
        assert.equal(3, list[1].more)
        assert.equal(3, list[1].gc_returns)
        assert.matches("^spec/36%-sites_spec.lua:%d+", list[1].place)
        assert.same(nil, list[1].last)
        assert.same({}, told())
        pool:close()
    end)

    it("tells of each place, and counts", function()
        local pool = new_pool()
        bufpool.report(function() end)
        pool:checkout(1)
        pool:checkout(1)
        collect()
        local places = {}
        assert.equal(2, bufpool.report(function(report)
            places[report.place] = report.more
        end))
        local first, more = next(places)
        assert.equal(1, more)
        assert.equal(1, select(2, next(places, first)))
        pool:close()
    end)

    -- The pause is changed, and not waited for.
    it("tells of a place once a minute", function()
        local report = require "bufpool.report"
        local pool = new_pool()
        local pause = report.PAUSE
        assert.equal(60, pause)
        for round = 1, 3 do
            lose(pool, round)
            report.PAUSE = round < 3 and math.huge or 0
            local list = told()
            assert.equal(round ~= 2 and 1 or 0, #list)
            assert.equal(round == 3 and 5 or 1, list[1] and list[1].more or 1)
        end
        assert.same({}, told())
        report.PAUSE = pause
        pool:close()
    end)

    it("lets an error pass, and goes on with the next place", function()
        local pool = new_pool()
        bufpool.report(function() end)
        pool:checkout(1)
        pool:checkout(1)
        collect()
        local ok, message = pcall(bufpool.report, function() error("x", 0) end)
        assert.is_false(ok)
        assert.equal("x", message)
        assert.equal(1, #told())
        assert.same({}, told())
        pool:close()
    end)

    it("may be called by what it calls", function()
        local pool = new_pool()
        bufpool.report(function() end)
        pool:checkout(1)
        pool:checkout(1)
        collect()
        local inner
        local outer = bufpool.report(function()
            inner = inner or bufpool.report(function() end)
        end)
        assert.equal(1, outer)
        assert.equal(1, inner)
        pool:close()
    end)

    it("knows pools without names", function()
        local pool = bufpool.new { leak_detection = "all" }
        local here = line(1)
        pool:checkout(1)
        collect()
        local places = {}
        bufpool.report(function(report)
            places[report.place:match "^%S+"] = report.pool or "none"
        end)
        assert.equal("none", places[here])
        pool:close()
        bufpool.report(function(report)
            assert.is_nil(report.place:find(here, 1, true))
        end)
    end)

    it("raises for what is no function", function()
        raises(function() bufpool.report() end, "#1", "'report'", "function")
        raises(function() bufpool.report(1) end, "#1", "'report'", "function")
    end)
end)

describe("pool:set", function()
    it("switches leak detection on and off", function()
        local pool = bufpool.new()
        local bufs = { pool:checkout(1) }
        assert.equal(pool, pool:set { leak_detection = "all" })
        local here = line(1)
        bufs[2] = pool:checkout(1)
        assert.equal(pool, pool:set { leak_detection = "off" })
        bufs[3] = pool:checkout(1)
        assert.equal(1, #pool:sites())
        assert.equal(1, sites_of(pool)[here].buffers)
        for i = 1, 3 do
            bufs[i]:release()
        end
        assert.same({}, pool:sites())
    end)

    it("leaves alone what is not given", function()
        local pool = bufpool.new { leak_sample = 1 }
        pool:set { leak_detection = "sampled" }
        kept = {}
        for i = 1, 1000 do
            kept[i] = pool:checkout(1)
        end
        -- All but those of the first visit of the shelf.
        assert.is_true(pool:sites()[1].buffers > 700)
        pool:set { leak_sample = 2 ^ 31 - 1 }
        pool:set {}
        kept[1001] = pool:borrow(1)
        assert.is_true(pool:sites()[1].buffers > 700)
    end)

    it("holds for all who have the pool by its name", function()
        local name = "sites of " .. tostring(ffi.new "int[1]")
        local one = bufpool.new { name = name }
        local other = bufpool.new {
            name = name, leak_detection = "all", leak_sample = 5,
        }
        local buf = one:checkout(1)
        assert.same({}, one:sites())
        buf:release()
        other:set { leak_detection = "all" }
        buf = one:checkout(1)
        assert.equal(1, #one:sites())
        buf:release()
        one:close()
        other:close()
    end)

    it("lists what was left to the collector where the environment asks",
        function()
            local code = [[
                local bufpool = require "bufpool"
                local pool = bufpool.new { name = "uploads" }
                kept = {}
                for i = 1, 10 do kept[i] = pool:checkout(10) end
                lost = bufpool.default():borrow(5000) ]]
            assert.equal("", helper.child_ok(code))
            local said = helper.child_ok(
                "require('ffi').cdef 'int setenv(const char *, const char *, "
                .. "int);' require('ffi').C.setenv('BUFPOOL_DEBUG', 'leak', 1) "
                .. code)
            assert.is_truthy(said:find("bufpool: at .- 0 buffers "
                .. "%(0 bytes%) of pool 'uploads' are out, and 10 were left to "
                .. "a Lua collector, checked out at .+:%d+\n"), said)
            assert.is_truthy(said:find("bufpool: at exit 1 buffers %(65536 "
                .. "bytes%) of pool 'default' are out, and 0 were left to a "
                .. "Lua collector, checked out at .+:%d+\n"), said)
        end)

    it("raises on what it does not know", function()
        local pool = bufpool.new()
        for _, value in ipairs { "on", "", true, 1, {}, print } do
            raises(function() pool:set { leak_detection = value } end,
                "'set'", "leak_detection", "sampled")
            raises(function() bufpool.new { leak_detection = value } end,
                "'new'", "leak_detection", "sampled")
        end
        for _, value in ipairs { -1, 0.5, 2 ^ 31, "x", {}, 0 / 0 } do
            raises(function() pool:set { leak_sample = value } end,
                "'set'", "leak_sample")
            raises(function() bufpool.new { leak_sample = value } end,
                "'new'", "leak_sample")
        end
        raises(function() pool:set { max_bytes = 1 } end, "max_bytes", "'set'")
        raises(function() pool:set { 1 } end, "'1'", "'set'")
        raises(function() pool:set() end, "#1", "'set'")
        raises(function() pool:set(1) end, "#1", "'set'")
        raises(function() pool.set({}, {}) end, "'set'", "pool expected")
        raises(function() pool.sites({}) end, "'sites'", "pool expected")
        pool:close()
        raises(function() pool:set {} end, "closed pool")
    end)
end)
