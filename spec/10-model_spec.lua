-- Random operations on buffers and frozen objects do what a slow model in plain
-- Lua strings does. SEED repeats a run, BUFPOOL_STEPS sets its length.
local bit = require "bit"
local bufpool = require "bufpool"
local helper = require "support.helper"
local ffi = require "ffi"

local random = math.random

-- A number of bytes: mostly small, sometimes across the class boundaries.
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

-- A range as string.sub takes it. That one is wrong where LuaJIT compiles it:
-- ("f1"):sub(-7, -16) gives "f1".
local function clamp(i, j, n)
    return math.max(absolute(i, n), 1), math.min(absolute(j, n), n)
end

-- Each mutator takes a buffer and its model. It checks what the buffer returns,
-- and returns the model afterwards.
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
        -- The buffer is its own source; the ranges overlap more often than not.
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
        i, j = clamp(i, j, #model)
        if i > j then
            return model
        end
        return model:sub(1, i - 1) .. string.char(byte):rep(j - i + 1)
            .. model:sub(j + 1)
    end,
    function(buf, model)
        local i = random(#model + 1)
        local n = i <= #model and random(0, 100) or 0
        buf:put_range(buf, i, i + n - 1)
        local piece = model:sub(i)
        return model .. piece:rep(n / math.max(#piece, 1) + 1):sub(1, n)
    end,
    function(buf, model)
        local s, i, j = text(size()), random(-50, 50), random(-50, 50)
        local from, to = clamp(i, j, #s)
        buf:put_range(s, i, j)
        return from > to and model or model .. s:sub(from, to)
    end,
    function(buf, model)
        local i, j, at = random(-50, 50), random(-50, 50), random(20)
        local key = text(random(9)) .. "k"
        buf:xor(i, j, key, at)
        local bytes = {}
        i, j = clamp(i, j, #model)
        if i > j then
            return model
        end
        for k = i, j do
            bytes[k - i + 1] = string.char(bit.bxor(model:byte(k),
                key:byte((at - 1 + k - i) % #key + 1)))
        end
        return model:sub(1, i - 1) .. table.concat(bytes) .. model:sub(j + 1)
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

-- Each emptier leaves the buffer empty.
local emptiers = {
    function(buf) buf:reset() end,
    function(buf) buf:wipe() end,
    function(buf) buf:free() end,
    function(buf, model) assert(buf:get() == model, "get all") end,
}

-- Each reader takes a buffer or a frozen object, and its model. It changes
-- nothing.
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
    function(x, model)
        local set, init = text(random(9)), random(-20, 20)
        local want
        for k = clamp(init, -1, #model), #model do
            if set:find(model:sub(k, k), 1, true) then
                want = k
                break
            end
        end
        assert(x:find_any(set, init) == want, "find_any")
    end,
    function(x, model) assert(tostring(x) == model, "tostring") end,
    function(x, model) assert(x:equals_ct(model), "equals_ct") end,
    function(x, model)
        local i, j = random(-50, 50), random(-50, 50)
        local from, to = clamp(i, j, #model)
        local a, b = 1, 0
        for k = from, to do
            a = (a + model:byte(k)) % 65521
            b = (b + a) % 65521
        end
        assert(x:adler32(i, j) == b * 65536 + a, "adler32")
    end,
    function(x)
        local n = random(0, 40)
        assert(x:crc32(n + 1, -1, x:crc32(1, n)) == x:crc32(), "crc32 in two")
    end,
    function(x, model)
        assert(not x:equals(model .. "x"), "equals, longer")
        assert(model == "" or not x:equals(model:sub(2)), "equals, shorter")
    end,
    function(x, model) assert(x .. "|" == model .. "|", "concat") end,
}

local SLOTS = 8     -- of buffers, and as many of frozen objects

local function fresh(world, i)
    local n = size()
    local pool, objects, models = world.pool, world.objects, world.models
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

local function some_frozen(world)
    local i = random(SLOTS)
    return world.frozen[i], world.frozen_models[i]
end

local function keep_frozen(world, f, model)
    local i = random(SLOTS)
    local old = world.frozen[i]
    -- Half of the old ones are released, half are left to the collector.
    if old and random(2) == 1 then
        old:release()
    end
    world.frozen[i], world.frozen_models[i] = f, model
end

-- Appends x to the buffer, unless that would make the model slow.
local function append(buf, model, x, x_model)
    if not x or #model + #x_model >= 100000 then
        return model
    end
    buf:put(x)
    return model .. x_model
end

-- What a step may do: its name, how often it is done, and a function. The
-- function takes the world, a buffer and its model. It returns the model
-- afterwards, or nil if the buffer is to be forgotten.
local operations = {
    { "change the buffer", 6000, function(_, buf, model)
        return mutators[random(#mutators)](buf, model)
    end },
    { "read the buffer", 2000, function(_, buf, model)
        readers[random(#readers)](buf, model)
        return model
    end },
    { "read a frozen object", 800, function(world, _, model)
        local f, f_model = some_frozen(world)
        if f then
            readers[random(#readers)](f, f_model)
        end
        return model
    end },
    { "freeze the buffer", 200, function(world, buf, model)
        keep_frozen(world, buf:freeze(), model)
    end },
    { "empty the buffer", 200, function(_, buf, model)
        emptiers[random(#emptiers)](buf, model)
        return ""
    end },
    { "slice a frozen object", 100, function(world, _, model)
        local f, f_model = some_frozen(world)
        local a, b = random(-20, 20), random(-20, 20)
        if f then
            keep_frozen(world, f:slice(a, b), f_model:sub(a, b))
        end
        return model
    end },
    { "clone a frozen object", 100, function(world, _, model)
        local f, f_model = some_frozen(world)
        if f then
            keep_frozen(world, f:clone(), f_model)
        end
        return model
    end },
    { "compare frozen objects", 100, function(world, _, model)
        local x, a = some_frozen(world)
        local y, b = some_frozen(world)
        if x and y then
            assert((x == y) == (a == b), "==")
            -- The order is that of bytes, not of a locale's collation.
            assert((x < y) == (a < b), "<")
            assert((x <= y) == (a <= b), "<=")
        end
        return model
    end },
    { "append a frozen object", 100, function(world, buf, model)
        return append(buf, model, some_frozen(world))
    end },
    { "append another buffer", 100, function(world, buf, model)
        local i = random(SLOTS)
        local other = world.objects[i]
        if rawequal(other, buf) then
            return model
        end
        return append(buf, model, other, world.models[i])
    end },
    { "release the buffer", 100, function(_, buf)
        buf:release()
    end },
    { "leave the buffer to the collector", 100, function() end },
    { "trim the pool", 1, function(world, _, model)
        world.pool:trim()
        return model
    end },
}

local weight_of_all = 0
for _, operation in ipairs(operations) do
    weight_of_all = weight_of_all + operation[2]
end

local function choose()
    local r = random(weight_of_all)
    for _, operation in ipairs(operations) do
        r = r - operation[2]
        if r <= 0 then
            return operation[1], operation[3]
        end
    end
end

local function step(world)
    local i = random(SLOTS)
    local objects, models = world.objects, world.models
    if objects[i] then
        local name, operate = choose()
        world.doing = name
        models[i] = operate(world, objects[i], models[i])
        if not models[i] then
            objects[i] = nil
            return
        end
    else
        world.doing = "check out a buffer"
        fresh(world, i)
    end
    -- Long buffers would make the model slow.
    if #models[i] > 2000 and random(4) == 1 then
        objects[i]:reset()
        models[i] = ""
    end
    assert(#objects[i] == #models[i], "length")
    assert(objects[i]:equals(models[i]), "contents")
end

describe("random operations", function()
    it("do what they do to strings", function()
        local seed = helper.seed()
        local steps = tonumber(os.getenv "BUFPOOL_STEPS") or 1000000
        local world = {
            pool = bufpool.new { four_kib_count = 4 },
            objects = {}, models = {}, frozen = {}, frozen_models = {},
        }
        for n = 1, steps do
            local ok, message = pcall(step, world)
            if not ok then
                error(("seed %d, step %d, %s: %s"):format(seed, n, world.doing,
                    message))
            end
        end
        for _, buf in pairs(world.objects) do
            buf:release()
        end
        world.objects, world.frozen = {}, {}
        collectgarbage()
        collectgarbage()
        assert.equal(0, world.pool:stats().checked_out)
    end)
end)
