-- What spec/26-faults_spec.lua runs while calls to the system fail: whatever
-- fails, it is told as the reference says, and all works again afterwards.
local bufpool = require "bufpool"

local TOLD = { "out of memory", "max_bytes of the pool reached", "exhausted" }

-- The result, or nil if it failed in a documented way; anything else raises.
local function told(ok, result, message)
    if ok and result ~= nil then
        return result
    end
    local text = tostring(ok and message or result)
    for _, known in ipairs(TOLD) do
        if text:find(known, 1, true) then
            return nil
        end
    end
    error("not documented: " .. text, 0)
end

local function try(f, ...)
    return told(pcall(f, ...))
end

local function use(pool)
    local held = {}
    for _, n in ipairs { 0, 1, 5000, 70000, 300000, 1500000, 4000000 } do
        local buf = try(pool.checkout, pool, n)
        if buf then
            assert(#buf == n and (n == 0 or buf:byte(n) == 0))
            buf:fill(7)
            if try(buf.resize, buf, 3 * n + 10) then
                assert(#buf == 3 * n + 10 and buf:byte(-1) == 0)
            else
                assert(#buf == n and (n == 0 or buf:byte(n) == 7))
            end
            held[#held + 1] = n % 2 == 0 and buf or buf:freeze()
        end
    end
    local writer = try(pool.writer, pool)
    if writer then
        local piece, put = ("x"):rep(1000), 0
        for _ = 1, 3000 do
            if try(writer.put, writer, piece) then
                put = put + 1
            end
        end
        assert(#writer == 1000 * put and writer:find("y", 1, true) == nil)
        writer:free()
        try(writer.put, writer, "again")
        writer:release()
    end
    local handle = try(pool.borrow, pool, 9000)
    if handle then
        handle:release()
    end
    try(pool.with, pool, 100, function(buf) return #buf end)
    try(pool.checkout_aligned, pool, 10000, 65536)
    pool:trim()
    for _, each in ipairs(held) do
        each:release()
    end
end

local pool
for _ = 1, 2 do     -- one call fails at most once
    pool = pool or try(bufpool.new, { four_kib_count = 4,
        sixty_four_kib_count = 1, two_fifty_six_kib_count = 0,
        max_bytes = 64 * 2 ^ 20 })
end
if pool then
    use(pool)
    collectgarbage()
    collectgarbage()
    local stats = pool:stats()
    assert(stats.checked_out == 0, "some are out")
    for _, class in ipairs(stats.classes) do
        assert(class.count == class.ready + class.cached + class.out)
    end
    pool:close()
end
print "whole"
