-- The programs of bench/ports do the same with each of their means.
package.path = "bench/?.lua;" .. package.path
local ports = require "ports.all"
local bufpool = require "bufpool"

describe("the port", function()
    for _, port in ipairs(ports) do
        it("of " .. port.name .. " gives the same with each means", function()
            math.randomseed(7)
            for _ = 1, 20 do
                local input = port.input(math.random)
                local want = { port.plain(input) }
                assert.is_true(want[1] ~= nil and #want[1] > 0)
                assert.same(want, { port.bufpool(input) })
                if port.buffer then
                    assert.same(want, { port.buffer(input) })
                end
            end
            assert.equal(0, bufpool.default():stats().checked_out)
        end)
    end
end)
