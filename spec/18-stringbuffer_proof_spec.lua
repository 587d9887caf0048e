-- Generated programs that use string.buffer's vocabulary, run against LuaJIT's
-- module, a buffer and a handle: results, contents and whether a call raised
-- have to be the same after each step.
--
-- What is not generated, or not compared, because it is meant to differ:
--   * passing the buffer itself to C, io.write or load; encode and decode
--   * reserve granting more than asked (ours grants what was asked, so nothing
--     is committed here beyond that)
--   * sizes beyond 2 GiB, which string.buffer refuses
--   * put(nil) and what other calls that raise have done before they did: here
--     they have done nothing, so after a raise all three start from the same
--     contents again
--   * messages
--   * `<` of two handles, which gives an answer that means nothing
-- and because our contract says so for all calls:
--   * fractions as sizes, which string.buffer cuts off and we refuse
--   * not a number as a size, which it takes for 0 on arm64 and refuses on x86
--   * set() of a number or another buffer, which only string.buffer refuses
--
-- SEED=n repeats a run; PROGRAMS=n makes it longer.
local bufpool = require "bufpool"
local ffi = require "ffi"

local ok, string_buffer = pcall(require, "string.buffer")
local seed = tonumber(os.getenv "SEED") or os.time() % 1000000
local PROGRAMS = tonumber(os.getenv "PROGRAMS") or 20000
local STEPS = 30

local random = math.random
local pool = bufpool.new()

local memory = ffi.new "uint8_t[70000]"
for i = 0, 69999 do
    memory[i] = i * 7 % 251
end

local function object(result)
    return setmetatable({}, { __tostring = function()
        if result == "raise" then
            error "mine"
        end
        return result
    end })
end
local proxy = newproxy(true)
getmetatable(proxy).__tostring = function() return "proxy" end

-- What a step draws its arguments from.
local texts = { "", "", "a", "hello", "\0\255\0", "%d %s", "12", "x\n",
    ("x"):rep(31), ("y"):rep(32), ("z"):rep(33), ("b"):rep(1000) }
local large = { ("p"):rep(4095), ("q"):rep(4096), ("r"):rep(4097),
    ("s"):rep(65537) }
local numbers = { 0, -0, 1, -1, 7, 255, 1e15, 1e16, 0.1, 1 / 3, -2.5, 2 ^ 31,
    2 ^ 53, 1 / 0, -1 / 0, 0 / 0, 123456789012 }
local objects = { object "object", object "", object(5), proxy, 5LL, -1LL, 7ULL,
    io.stdout, memory }
local bad_values = { true, false, {}, print, object {}, object(false),
    object "raise", newproxy(true), coroutine.create(print) }
local sizes = { 0, 0, 1, 2, 3, 5, 8, 31, 32, 33, 64, 100, 3LL, 4ULL, 1000 }
local bad_sizes = { -1, -1 / 0, "3", "x", true, {}, print, -1LL,
    object "3", -2 ^ 31 }
if ok and not pcall(string_buffer.new, 0 / 0) then
    bad_sizes[#bad_sizes + 1] = 0 / 0
end

local function pick(list)
    return list[random(#list)]
end

local function text()
    return pick(random(200) == 1 and large or texts)
end

local function value()
    local die = random(40)
    if die <= 20 then
        return text()
    elseif die <= 32 then
        return pick(numbers)
    elseif die <= 38 then
        return pick(objects)
    end
    return pick(bad_values)
end

local function size()
    return pick(random(25) == 1 and bad_sizes or sizes)
end

local function pointer()
    return random(30) == 1 and pick(bad_values) or memory + random(0, 100)
end

local formats = { "plain", "%%", "%d", "%s", "%s", "%5s", "%-8s|", "%.2s",
    "%5.2f", "%g", "%x", "%c", "%q", "%i %s", "%s%s%s", "%10d:%s", "%y", "%",
    "%014.3e", "%u", "%s %d" }

-- string.buffer's set() borrows the bytes, and releases of it before 2023 may
-- then write into them (LuaJIT issue 816), so theirs gets a copy of its own.
local function set(x, ...)
    local result = x:set(...)
    if not bufpool.type(x) then
        local contents = x:tostring()
        x:free():put(contents)
    end
    return result
end

-- The steps: x is the buffer at hand, y another of its kind, and the rest was
-- drawn once for all kinds, each from the generator at its place.
local steps = {
    { function(x) return x:put() end },
    { function(x, _, a) return x:put(a) end, value },
    { function(x, _, a) return x:put(a) end, text },
    { function(x, _, a, b) return x:put(a, b) end, value, value },
    { function(x, _, a, b, c) return x:put(a, b, c) end, text, value, text },
    { function(x, _, a, b, c)
        return x:put(a, b, c, b, a)
    end, value, value, text },
    { function(x, y) return x:put(y) end },
    { function(x, y, a) return x:put(a, y, y) end, text },
    { function(x, _, a) return x:put(a, x) end, text },
    { function(x) return x:put(nil) end },
    { function(x, _, a, b) return x:putf(a, b) end, function()
        return pick(formats)
    end, value },
    { function(x, _, a, b, c) return x:putf(a, b, c) end, function()
        return pick(formats)
    end, value, value },
    -- %q of a string.buffer looks at the byte after its end.
    { function(x, y, a) return x:putf(a, y, 1) end, function()
        return (pick(formats):gsub("%%q", "%%s"))
    end },
    { function(x, _, a) return x:putf(a, x) end, function()
        return pick(formats)
    end },
    { function(x, _, a) return x:putf(a) end, value },
    { function(x) return x:putf() end },
    { function(x, _, a, n) return x:putcdata(a, n) end, pointer, size },
    { function(x, _, a, n)
        return x:putcdata(a, n)
    end, pointer, function() return random(0, 69000) end },
    { function(x, _, a) return x:putcdata(a) end, value },
    { function(x, _, a) return set(x, a) end, text },
    { function(x, _, a) return set(x, a) end, function()
        return pick(bad_values)
    end },
    { function(x) return set(x, x) end },
    { function(x, _, a, n) return set(x, a, n) end, pointer, size },
    -- What is granted has to be there to be written, committed or not.
    { function(x, _, n)
        local p, granted = x:reserve(n)
        ffi.fill(p, tonumber(n), 65)
        return x:commit(n), granted >= n
    end, size },
    { function(x, _, n, k)
        local p = x:reserve(n)
        ffi.fill(p, tonumber(n), 66)
        return x:commit(k <= n and k or n)
    end, size, size },
    { function(x, _, n) return #x, (select(2, x:reserve(n))) >= n end, size },
    { function(x) return x:commit(0) end },
    { function(x, _, n) return x:commit(n) end, function()
        return pick(bad_sizes)
    end },
    { function(x) return x:commit(2 ^ 30) end },
    { function(x) return x:get() end },
    { function(x, _, n) return x:get(n) end, size },
    { function(x, _, n, m) return x:get(n, m) end, size, size },
    { function(x, _, n, m) return x:get(n, m, nil) end, size, size },
    { function(x, _, n, m)
        return x:get(n, m, 1, n, nil, m)
    end, size, size },
    { function(x, _, n) return x:get(nil, n) end, size },
    { function(x) return x:get(nil) end },
    { function(x, _, n) return x:skip(n) end, size },
    { function(x, _, n) return x:skip(n) end, size },
    { function(x) return x:skip() end },
    { function(x) return x:reset() end },
    { function(x, _, a) return x:free(a) end, value },
    { function(x) return ffi.string(x:ref()) end },
    -- What is put first makes string.buffer copy what set() has lent it: a
    -- write there would change the string.
    { function(x, _, n)
        x:put "m"
        local p, len = x:ref()
        p[tonumber(n) % len] = 67
        return len
    end, function() return pick(sizes) end },
    { function(x) return x:tostring() end },
    { function(x, _, a) return x .. a end, text },
    { function(x, _, a) return a .. x end, text },
    { function(x, _, a)
        return x .. a
    end, function() return pick(numbers) end },
    { function(x, y) return x .. y .. x end },
    { function(x, y, a) return x .. a .. y end, function()
        return pick(bad_values)
    end },
    { function(x) return x .. nil end },
    { function(x, y) return x == x, x == y, x ~= y, x == nil, x == "x" end },
    { function(x, y)
        -- Two handles are addresses to LuaJIT, which compares those itself.
        return type(x) == "cdata" and error "not compared" or x < y
    end },
    { function(x) return x.nosuch end },
    { function(x) return x:nosuch() end },
    { function(x) return x.put("x", "y") end },
    { function(x) return x.get() end },
}

-- A trace must hold no call of string.buffer itself: compiled, those of LuaJIT
-- before 2023 crash. Our methods, called from here, are compiled all the same.
for _, step in ipairs(steps) do
    jit.off(step[1])
end
jit.off(set)

local function show(x, v)
    if rawequal(v, x) or type(v) == "cdata" and v == x then
        return "itself"
    end
    return tostring(v)
end

-- What a step came to, as a string.
local function outcome(x, succeeded, ...)
    if not succeeded then
        return "raised"
    end
    local n = select("#", ...)
    if n == 1 then
        return show(x, (...))
    end
    local shown = { ... }
    for i = 1, n do
        shown[i] = show(x, shown[i])
    end
    return table.concat(shown, ",")
end

local function brief(s)
    return s:sub(1, 200)
end

local function describe_step(number, args)
    local shown = {}
    for i = 1, 3 do
        local _, s = pcall(tostring, args[i])
        shown[i] = tostring(s):sub(1, 60)
    end
    return ("step %d of the list (%s)"):format(number,
        table.concat(shown, ", "))
end

-- Each kind as two buffers. ours[k] are compared with theirs.
local function run_program(theirs, ours)
    local args = {}
    for step = 1, STEPS do
        local number = random(#steps)
        local do_step = steps[number]
        local run = do_step[1]
        for i = 1, 3 do
            args[i] = do_step[i + 1] and do_step[i + 1]()
        end
        local this = random(4) == 1 and 2 or 1
        local x, y = theirs[this], theirs[3 - this]
        local expected = outcome(x, pcall(run, x, y, args[1], args[2], args[3]))
        local contents = tostring(x)
        for _, kind in ipairs(ours) do
            local o, p = kind[this], kind[3 - this]
            local got = outcome(o, pcall(run, o, p, args[1], args[2], args[3]))
            if got ~= expected
                or expected ~= "raised" and tostring(o) ~= contents then
                error(("%s %s: <%s> for <%s>, contents <%s> for <%s>"):format(
                    kind.name, describe_step(number, args), brief(got),
                    brief(expected), brief(tostring(o)), brief(contents)), 0)
            elseif expected == "raised" then
                o:reset():put("raised", step)
            end
        end
        if expected == "raised" then
            x:reset():put("raised", step)
        end
    end
end

local function run_programs(count)
    for program = 1, count do
        math.randomseed(seed + program)
        local theirs = { string_buffer.new(), string_buffer.new() }
        local ours = {
            { name = "buffer", pool:writer(), pool:writer() },
            { name = "handle", pool:borrow(0), pool:borrow(0) },
        }
        local passed, message = pcall(run_program, theirs, ours)
        if not passed then
            error(("SEED=%d PROGRAMS=1: %s"):format(seed + program - 1,
                message), 0)
        end
        for _, kind in ipairs(ours) do
            kind[1]:release()
            kind[2]:release()
        end
    end
end

if not ok then
    pending "programs for string.buffer: this LuaJIT is without the module"
    return
end

describe("programs for string.buffer, seed " .. seed, function()
    it("run unchanged", function()
        run_programs(PROGRAMS)
        assert.equal(0, pool:stats().checked_out)
    end)

    if jit.status() then
        it("run unchanged with the JIT off", function()
            jit.off()
            local passed, message = pcall(run_programs, PROGRAMS / 10)
            jit.on()
            assert(passed, message)
        end)
    end
end)
