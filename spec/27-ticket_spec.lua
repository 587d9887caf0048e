local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local pool = bufpool.new()

local function with(text)
    return pool:writer():put(text)
end

local function in_transit(of)
    return (of or pool):stats().in_transit
end

describe("detach", function()
    it("gives a ticket that any way of printing keeps exact", function()
        for _ = 1, 1000 do
            local ticket = with "x":detach()
            assert.is_true(ticket > 0 and ticket < 1e14 and ticket % 1 == 0)
            assert.equal(ticket, tonumber(tostring(ticket)))
            assert.equal(ticket, tonumber(("%.14g"):format(ticket)))
            bufpool.adopt(ticket):release()
        end
    end)

    it("moves no byte", function()
        for _, n in ipairs { 0, 1, 4096, 100000, 3000000 } do
            local buf = pool:checkout(n):fill(7)
            local address = helper.address((buf:ref()))
            local again = bufpool.adopt(buf:detach())
            assert.equal("buffer", bufpool.type(again))
            assert.equal(address, helper.address((again:ref())))
            assert.equal(n, #again)
            again:put("more")
            assert.equal("more", again:sub(n + 1))
            again:release()
        end
    end)

    it("keeps what is left after skip", function()
        local again = bufpool.adopt(with "abcdef":skip(2):detach())
        assert.equal("cdef", tostring(again))
    end)

    it("leaves a dead buffer that says so", function()
        local buf = with "x"
        bufpool.adopt(buf:detach()):release()
        assert.equal("dead", bufpool.type(buf))
        assert.equal("bufpool.buffer: detached", tostring(buf))
        raises(function() buf:put "y" end, "attempt to use a detached buffer")
        raises(function() buf:detach() end, "attempt to use a detached buffer")
    end)

    it("of a handle leaves every copy of it stale", function()
        local handle = pool:borrow(5)
        local copy = handle
        handle:write(1, "12345")
        local again = bufpool.adopt(handle:detach())
        assert.equal("buffer", bufpool.type(again))
        assert.equal("12345", tostring(again))
        assert.equal("dead", bufpool.type(copy))
        raises(function() copy:detach() end, "attempt to use a released handle")
        raises(function() handle:len() end, "released")
        again:release()
    end)

    it("refuses other objects", function()
        local buf, handle = with "x", pool:borrow(1)
        local ours, theirs = buf.detach, handle.detach
        raises(function() ours(handle) end, "'detach'")
        raises(function() theirs(buf) end, "'detach'")
        raises(function() ours(pool) end, "'detach'")
        raises(function() ours "text" end, "'detach'")
        raises(function() ours() end, "'detach'")
        assert.equal(0, in_transit())
        handle:release()
    end)

    it("works on a trace", function()
        for i = 1, 300 do
            local handle = pool:borrow(8)
            handle:set_u64le(1, i)
            local again = bufpool.adopt(handle:detach())
            assert(again:u64le(1) == i)
            again:release()
        end
        assert.equal(0, in_transit())
    end)
end)

describe("share", function()
    it("gives one reference for each ticket", function()
        local own = bufpool.new()
        local frozen = own:writer():put "contents":freeze()
        local tickets = { frozen:share(), frozen:share(), frozen:share() }
        assert.equal(3, in_transit(own))
        assert.equal("contents", tostring(frozen))
        local address = helper.address((frozen:ref()))
        frozen:release()
        for i, ticket in ipairs(tickets) do
            local f = bufpool.adopt(ticket)
            assert.equal("frozen", bufpool.type(f))
            assert.equal(address, helper.address((f:ref())))
            assert.equal("contents", tostring(f))
            assert.equal(3 - i, in_transit(own))
            assert.equal(1, own:stats().checked_out)
            f:release()
        end
        assert.equal(0, own:stats().checked_out)
    end)

    it("of a slice gives the slice", function()
        local slice = with "0123456789":freeze():slice(3, 5)
        local f = bufpool.adopt(slice:share())
        assert.equal("234", tostring(f))
        assert.equal(3, #f)
        assert.is_true(f == slice)
        local empty = bufpool.adopt(slice:slice(1, 0):share())
        assert.equal("", tostring(empty))
    end)

    it("refuses other objects", function()
        local frozen = with "x":freeze()
        local share = frozen.share
        raises(function() share(with "y") end, "'share'")
        raises(function() share(nil) end, "'share'")
        frozen:release()
        raises(function() share(frozen) end, "attempt to use a released frozen")
    end)
end)

describe("adopt", function()
    local function refused(ticket, message)
        local nothing, why = bufpool.adopt(ticket)
        assert.is_nil(nothing)
        assert.equal(message, why)
    end

    local USED = "the ticket was adopted, or has expired"
    local UNKNOWN = "this process has issued no such ticket"

    it("takes a ticket once", function()
        local ticket = with "x":detach()
        local buf = bufpool.adopt(ticket)
        refused(ticket, USED)
        buf:release()
        refused(ticket, USED)
    end)

    it("refuses numbers that were made up", function()
        local ticket = with "x":detach()
        for _, number in ipairs {
            0, -1, 0.5, ticket + 0.5, -ticket, 1e14, 2 ^ 46, 2 ^ 53, 2 ^ 63,
            2 ^ 64, 1e300, helper.inf, -helper.inf, helper.nan,
        } do
            refused(number, UNKNOWN)
        end
        for _ = 1, 100000 do
            assert.is_nil((bufpool.adopt(math.random(1, 2 ^ 31) * 32767)))
        end
        assert.equal(1, in_transit())
        bufpool.adopt(ticket):release()
    end)

    it("takes an integer of C", function()
        local buf = bufpool.adopt(ffi.cast("uint64_t", with "x":detach()))
        assert.equal("x", tostring(buf))
        refused(ffi.cast("uint64_t", -1), UNKNOWN)
        refused(ffi.cast("int64_t", -1), UNKNOWN)
    end)

    it("raises for what is no number", function()
        for _, value in ipairs { "12", {}, true, pool, with "x" } do
            raises(function() bufpool.adopt(value) end,
                "bad argument #1 to 'adopt'", "number expected")
        end
        raises(function() bufpool.adopt() end,
            "bad argument #1 to 'adopt' (number expected, got nil)")
    end)

    it("takes what another VM has put in transit", function()
        local own = bufpool.new { name = "tickets" }
        local told = own:writer()       -- where the other VM leaves tickets
        local address = helper.address((told:ref()))
        helper.second_state(([[
            local bufpool, ffi = require "bufpool", require "ffi"
            local pool = bufpool.get "tickets"
            local from_here = bufpool.adopt(%d)
            assert(tostring(from_here) == "from here")
            local told = ffi.cast("double *", %d)
            told[0] = from_here:put(", and back"):detach()
            told[1] = pool:writer():put("frozen"):freeze():share()
        ]]):format(own:writer():put "from here":detach(), address))
        local tickets = ffi.cast("double *", address)
        local buf = bufpool.adopt(tickets[0])
        local frozen = bufpool.adopt(tickets[1])
        assert.equal("from here, and back", tostring(buf))
        assert.equal("frozen", tostring(frozen))
        buf:release()
        frozen:release()
        told:release()
        assert.equal(0, own:stats().checked_out)
        own:close()
    end)

    it("outlives the VM that has put it in transit", function()
        local own = bufpool.new { name = "tickets of the dead" }
        helper.second_state [[
            local pool = require("bufpool").get "tickets of the dead"
            pool:writer():put("x"):detach()
        ]]
        assert.equal(1, in_transit(own))
        own:close()
    end)

    it("leaves what it adopts to the collector", function()
        local own = bufpool.new()
        helper.apart(function()
            for _ = 1, 10 do
                bufpool.adopt(own:checkout(100):detach())
                bufpool.adopt(own:checkout(100):freeze():share())
            end
        end)
        helper.collect()
        assert.equal(0, own:stats().checked_out)
        assert.equal(20, own:stats().gc_returns)
    end)

    it("charges the VM that adopts, and no longer the one that detaches",
        function()
            -- A million buffers of 64 KiB go round without a collection that
            -- their own memory would cause, and none is dropped.
            local own = bufpool.new()
            local buf = own:checkout(65536)
            for _ = 1, 20000 do
                buf = bufpool.adopt(buf:detach())
            end
            assert.equal(1, own:stats().checked_out)
            assert.equal(0, own:stats().gc_returns)
            buf:release()
        end)
end)

describe("ticket_ttl", function()
    local function after(seconds)
        os.execute(("sleep %g"):format(seconds))
    end

    it("takes what nobody adopts home", function()
        local own = bufpool.new { ticket_ttl = 0.05 }
        local tickets = {
            own:writer():put "x":detach(),
            own:writer():put "y":freeze():share(),
            own:borrow(2000000):detach(),
        }
        helper.collect()        -- the frozen object itself
        after(0.2)
        local stats = own:stats()
        assert.equal(0, stats.in_transit)
        assert.equal(0, stats.checked_out)
        for _, ticket in ipairs(tickets) do
            assert.equal("the ticket was adopted, or has expired",
                select(2, bufpool.adopt(ticket)))
        end
    end)

    it("of a pool without one is for ever", function()
        local ticket = with "x":detach()
        after(0.1)
        assert.equal(1, in_transit())
        bufpool.adopt(ticket):release()
    end)

    it("is a number of seconds, not below 0", function()
        for _, value in ipairs { -1, helper.nan, helper.inf, "1", true } do
            raises(function() bufpool.new { ticket_ttl = value } end,
                "bad value for 'ticket_ttl' in 'new'", "number of seconds")
        end
        for _, value in ipairs { 0, 0.001, 5, 2LL } do
            bufpool.new { ticket_ttl = value }:close()
        end
    end)

    it("is part of a named pool's configuration", function()
        local own = bufpool.new { name = "with ttl", ticket_ttl = 3 }
        bufpool.new { name = "with ttl", ticket_ttl = 3 }:close()
        raises(function() bufpool.new { name = "with ttl" } end,
            "different 'ticket_ttl'")
        own:close()
    end)
end)

describe("stats of all pools", function()
    it("sum what is in transit", helper.uncollected(function()
        local own = bufpool.new { name = "summed" }
        local before = bufpool.stats().in_transit
        local ticket = own:checkout(1):detach()
        assert.equal(before + 1, bufpool.stats().in_transit)
        assert.equal(1, bufpool.stats().pools.summed.in_transit)
        bufpool.adopt(ticket):release()
        own:close()
    end))
end)
