-- Random operations against a slow model in plain Lua strings.
-- BUFPOOL_SEED repeats a run, BUFPOOL_STEPS makes it shorter or longer.
local bufpool = require "bufpool"
local ffi = require "ffi"

local random = math.random

-- Mostly small, sometimes across the class boundaries.
local function size()
    local r = random(1000)
    if r <= 900 then
        return random(0, 40)
    elseif r <= 997 then
        return random(0, 600)
    elseif r <= 999 then
        return random(4000, 4200)
    elseif random(20) > 1 then
        return random(65000, 66000)
    end
    return random(1048000, 1049000)
end

local function text(n)
    local byte = string.char(random(0, 255))
    return byte:rep(random(0, 1) == 0 and n or math.max(0, n - 3))
        .. (n % 2 == 0 and "" or "xyz")
end

-- A position in the model, from the front or from the back.
local function position(model)
    local i = random(#model)
    return random(2) == 1 and i or i - #model - 1
end

local function absolute(i, n)
    return i < 0 and n + i + 1 or i
end

-- Each operation takes a buffer and its model, checks what it returns, and
-- returns the model after it.
local mutators = {
    function(buf, model)
        local s = text(size())
        buf:put(s)
        return model .. s
    end,
    function(buf, model)
        local s, n = text(size()), random(0, 1e6)
        buf:put(s, n)
        return model .. s .. n
    end,
    function(buf, model)
        if #model == 0 then
            return model
        end
        local i = position(model)
        local at = absolute(i, #model)
        local s = text(random(0, math.min(50, #model - at + 1)))
        s = s:sub(1, #model - at + 1)
        buf:write(i, s)
        return model:sub(1, at - 1) .. s .. model:sub(at + #s)
    end,
    function(buf, model)
        if #model == 0 then
            return model
        end
        -- Within itself, ranges overlapping more often than not.
        local from, to = random(#model), random(#model)
        local n = random(0, math.min(#model - from, #model - to) + 1)
        local piece = model:sub(from, from + n - 1)
        buf:copy(to, buf, from, from + n - 1)
        return model:sub(1, to - 1) .. piece .. model:sub(to + n)
    end,
    function(buf, model)
        if #model == 0 then
            return model
        end
        local i, byte = position(model), random(0, 255)
        local at = absolute(i, #model)
        buf:setbyte(i, byte)
        return model:sub(1, at - 1) .. string.char(byte) .. model:sub(at + 1)
    end,
    function(buf, model)
        local i, j = random(-50, 50), random(-50, 50)
        local byte = random(0, 255)
        buf:fill(byte, i, j)
        local n = #model
        i = math.max(i < 0 and n + i + 1 or i, 1)
        j = math.min(j < 0 and n + j + 1 or j, n)
        if i > j then
            return model
        end
        return model:sub(1, i - 1) .. string.char(byte):rep(j - i + 1)
            .. model:sub(j + 1)
    end,
    function(buf, model)
        local n = size()
        buf:resize(n)
        return model:sub(1, n) .. ("\0"):rep(n - #model)
    end,
    function(buf)
        local s = text(size())
        buf:set(s)
        return s
    end,
    function(buf, model)
        local s = text(size())
        local p, n = buf:reserve(#s + random(0, 20))
        assert(n >= #s)
        ffi.copy(p, s, #s)
        buf:commit(#s)
        return model .. s
    end,
    function(buf, model)
        local s = text(random(0, 100))
        buf:putcdata(ffi.cast("const uint8_t *", s), #s)
        return model .. s
    end,
    function(buf, model)
        local n = size()
        local got = buf:get(n)
        assert(got == model:sub(1, n), "get")
        return model:sub(n + 1)
    end,
    function(buf, model)
        local n, m = random(0, 20), random(0, 20)
        local a, b = buf:get(n, m)
        assert(a == model:sub(1, n), "get, first")
        assert(b == model:sub(n + 1, n + m), "get, second")
        return model:sub(n + m + 1)
    end,
    function(buf, model)
        local n = random(0, 60)
        buf:skip(n)
        return model:sub(n + 1)
    end,
    function(buf, model)
        if #model == 0 then
            return model
        end
        local p, n = buf:ref()
        assert(n == #model, "ref")
        local i, byte = random(0, #model - 1), random(0, 255)
        p[i] = byte
        return model:sub(1, i) .. string.char(byte) .. model:sub(i + 2)
    end,
}

local emptiers = {
    function(buf) buf:reset() end,
    function(buf) buf:wipe() end,
    function(buf) buf:free() end,
    function(buf, model) assert(buf:get() == model, "get all") end,
}

-- Work for buffers and frozen objects alike and change nothing.
local readers = {
    function(x, model)
        local i, j = random(-50, 50), random(-50, 50)
        assert(x:sub(i, j) == model:sub(i, j), "sub")
    end,
    function(x, model)
        local i = random(-50, 50)
        assert(x:byte(i) == model:byte(i), "byte")
    end,
    function(x, model)
        local i = random(-50, 50)
        local a, b, c = x:byte(i, i + 2)
        local d, e, f = model:byte(i, i + 2)
        if i + 2 ~= 0 and i + 2 ~= 1 or i > 0 then
            assert(a == d and b == e and c == f, "bytes")
        end
    end,
    function(x, model)
        local needle = model:sub(random(1, 40), random(1, 40))
        local init = random(-20, 20)
        local a, b = x:find(needle, init, true)
        local c, d = model:find(needle, init, true)
        assert(a == c and b == d, "find")
    end,
    function(x, model) assert(tostring(x) == model, "tostring") end,
    function(x, model) assert(x:equals_ct(model), "equals_ct") end,
    function(x, model)
        assert(not x:equals(model .. "x"), "equals, longer")
        assert(model == "" or not x:equals(model:sub(2)), "equals, shorter")
    end,
    function(x, model) assert(x .. "|" == model .. "|", "concat") end,
}

describe("random operations", function()
    it("do what they do to strings", function()
        local seed = tonumber(os.getenv "BUFPOOL_SEED") or os.time()
        local steps = tonumber(os.getenv "BUFPOOL_STEPS") or 1000000
        io.write("seed ", seed, "\n")
        math.randomseed(seed)
        local pool = bufpool.new { four_kib_count = 4 }
        local objects, models = {}, {}
        local frozen, frozen_models = {}, {}

        local function fresh(i)
            local n = size()
            if random(2) == 1 then
                objects[i], models[i] = assert(pool:writer(n)), ""
            elseif random(10) == 1 then
                objects[i] = assert(pool:checkout_aligned(n, 2 ^ random(0, 13)))
                models[i] = ("\0"):rep(n)
            else
                objects[i] = assert(pool:checkout(n))
                models[i] = ("\0"):rep(n)
            end
        end

        local function keep_frozen(f, model)
            local i = random(8)
            -- Some are released, others are left to the collector.
            if frozen[i] and random(2) == 1 then
                frozen[i]:release()
            end
            frozen[i], frozen_models[i] = f, model
        end

        local function step(i)
            local buf, model = objects[i], models[i]
            local r = random(100)
            if not buf then
                fresh(i)
            elseif r <= 60 then
                models[i] = mutators[random(#mutators)](buf, model)
            elseif r <= 80 then
                readers[random(#readers)](buf, model)
            elseif r <= 88 then
                local j = random(8)
                if frozen[j] then
                    readers[random(#readers)](frozen[j], frozen_models[j])
                end
            elseif r <= 90 then
                local f = buf:freeze()
                objects[i] = nil
                keep_frozen(f, model)
            elseif r == 91 then
                local j, a, b = random(8), random(-20, 20), random(-20, 20)
                if frozen[j] then
                    keep_frozen(frozen[j]:slice(a, b),
                        frozen_models[j]:sub(a, b))
                end
            elseif r == 92 then
                local j = random(8)
                if frozen[j] then
                    keep_frozen(frozen[j]:clone(), frozen_models[j])
                end
            elseif r == 93 then
                local j, k = random(8), random(8)
                local x, y = frozen[j], frozen[k]
                if x and y then
                    local a, b = frozen_models[j], frozen_models[k]
                    assert((x == y) == (a == b), "==")
                    -- Bytes, not the collation of strings in some locale.
                    assert((x < y) == (a < b), "<")
                    assert((x <= y) == (a <= b), "<=")
                end
            elseif r == 94 then
                -- From one to another, of either kind.
                local j = random(8)
                if frozen[j] and #model + #frozen_models[j] < 100000 then
                    buf:put(frozen[j])
                    models[i] = model .. frozen_models[j]
                end
            elseif r == 95 then
                local j = random(8)
                if j ~= i and objects[j] and #model + #models[j] < 100000 then
                    buf:put(objects[j])
                    models[i] = model .. models[j]
                end
            elseif r <= 97 then
                emptiers[random(#emptiers)](buf, model)
                models[i] = ""
            elseif r == 98 then
                buf:release()
                objects[i] = nil
            elseif r == 99 then
                objects[i] = nil    -- the collector's
            elseif random(100) == 1 then
                pool:trim()
            end
            -- Long ones would make the model slow.
            if objects[i] and #models[i] > 2000 and random(4) == 1 then
                objects[i]:reset()
                models[i] = ""
            end
            buf = objects[i]
            if buf then
                assert(#buf == #models[i], "length")
                assert(buf:equals(models[i]), "contents")
            end
        end

        for n = 1, steps do
            local i = random(8)
            local ok, message = pcall(step, i)
            if not ok then
                error(("seed %d, step %d: %s"):format(seed, n, message))
            end
        end
        for i = 1, 8 do
            if objects[i] then
                objects[i]:release()
            end
            frozen[i] = nil
        end
        collectgarbage()
        collectgarbage()
        assert.equal(0, pool:stats().checked_out)
    end)
end)
