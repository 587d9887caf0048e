-- Three incidents that programs had, each found by the pool alone, which names
-- the line. The programs are run as they are: BUFPOOL_DEBUG is all that is set.
local bufpool = require "bufpool"
local helper = require "support.helper"

local SEGV, ABRT = 128 + 11, 128 + 6

-- What the program says with these words in BUFPOOL_DEBUG, in which FILE is its
-- own name, and its exit status.
local function run(words, program)
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(program)
    file:close()
    local said, status = helper.shell(("BUFPOOL_DEBUG=%s %s %s"):format(words,
        helper.interpreter(), helper.quote(name)))
    os.remove(name)
    return said:gsub("tmp/" .. name:match "[^/]+$", "FILE"), status
end

describe("what a pool finds", function()
    it("is a handler that forgets one release in ten", function()
        local said, status = run("leak", [[
local pool = require("bufpool").new { name = "uploads" }
local function handle(request)
    local buf = pool:checkout(1000)
    if request % 10 ~= 0 then
        buf:release()
    end
end
for request = 1, 1000 do
    handle(request)
end]])
        assert.equal(0, status, said)
        assert.equal("100", said:match("pool 'uploads' are out, and (%d+) were "
            .. "left to a Lua collector, checked out at FILE:3 < FILE:9\n$"),
            said)
    end)

    -- 64 MiB for 8000 bytes. The system may give a page of 2 MiB by itself.
    it("is a class far too large", function()
        local pool = bufpool.new {
            classes = { { size = 1048576, count = 64 } },
            leak_detection = "all",
        }
        for _ = 1, 1000 do
            pool:checkout(8000):fill(1):release()
        end
        local here = debug.getinfo(1, "l").currentline + 1
        local buf = pool:checkout(8000):fill(1)
        local stats = pool:stats()
        local class, site = stats.classes[1], stats.sites[1]
        assert.equal(64 * 1048576, stats.committed_bytes)
        assert.is_true(pool:resident() <= 4 * 1048576)
        -- What is asked for is 1/128 of the class, or less.
        assert.is_true(class.requests[1] > 800 and class.requests[1] <= 1001)
        assert.equal(8000 * class.requests[1], class.requested_bytes)
        assert.equal(1048576, site.bytes)
        assert.equal("spec/42-incidents_spec.lua:" .. here,
            site.place:match "^%S+")
        buf:release()
    end)

    -- The next owner would read it.
    for words, case in pairs {
        verify = { ABRT, "corruption at checkout, where byte 18 is not 0: "
            .. "buffer %d+ of pool 'uploads' .*, checked out at FILE:3 "
            .. "< FILE:7, released at FILE:5 < FILE:7\n" },
        harden = { SEGV, "byte 18 of buffer %d+ of pool 'uploads' .*, which is "
            .. "released\nbufpool: it was checked out at FILE:3 < FILE:7, "
            .. "released at FILE:5 < FILE:7\n" },
    } do
        it("is a write after release, by " .. words .. " #noasan", function()
            local said, status = run(words, [[
local pool = require("bufpool").new { name = "uploads" }
local function handler()
    local buf = pool:checkout(4096)
    local bytes = buf:ref()
    buf:release()
    return bytes end
local bytes = handler()
bytes[17] = 1
print(pool:checkout(100):byte(18))]])
            assert.equal(case[1], status, said)
            assert.matches(case[2], said)
        end)
    end
end)
