-- put with any number and mix of values: the bytes are those of string.buffer
-- and table.concat, all or none of them, and a loop of it stays compiled.
--
-- SEED and ROUNDS may be set in the environment. Values are drawn from a list
-- of every kind that put takes; what they stand for is known by tostring.
local bufpool = require "bufpool"
local helper = require "support.helper"

local raises = helper.raises
local MOST = 32

local seed = tonumber(os.getenv "SEED") or os.time()
local rounds = tonumber(os.getenv "ROUNDS") or 60
print("seed " .. seed)

-- What children begin with, too.
local prelude = [[
local bufpool = require "bufpool"
local pool = bufpool.new()
local has_buffers, string_buffer = pcall(require, "string.buffer")
local random = math.random

-- A kind of value: what is put, and the text that it stands for.
local function object(make)
    return function()
        local text = ("o"):rep(random(0, 40)) .. random(99)
        local x = pool:writer():put(text)
        return make(x), text
    end
end
local function with_text(make)
    return function()
        local v = make()
        return v, tostring(v)
    end
end
local kinds = {
    string = with_text(function()
        return ("s"):rep(random(0, 70)) .. random(99)
    end),
    integer = with_text(function()
        return random(-2 ^ 31, 2 ^ 31 - 1)
    end),
    number = with_text(function()
        return (random() - 0.5) * 10 ^ random(-9, 20)
    end),
    special = with_text(function()
        local list = { 0, -0, 1 / 0, -1 / 0, 0 / 0, 2 ^ 53, 1e14, 1e14 - 1,
            -1e14, 1e-4, 1e300, 5e-324, 1234567890123.25, 0.5, -0.5, 1e-5 }
        return list[random(#list)]
    end),
    int64 = with_text(function() return random(1000) * 1LL end),
    table = with_text(function()
        local text = "t" .. random(99)
        return setmetatable({}, { __tostring = function() return text end })
    end),
    buffer = object(function(x) return x end),
    frozen = object(function(x) return x:freeze() end),
    slice = object(function(x) return x:freeze():slice(1, -1) end),
    handle = object(function(x)
        local h = pool:borrow(#x)
        h:reset():put(x)
        return h
    end),
}
local names = {}
for name in pairs(kinds) do
    names[#names + 1] = name
end
table.sort(names)

-- n values, their texts, and handles to be released.
local function draw(n, some)
    local values, texts, handles = {}, {}, {}
    some = some or names
    for k = 1, n do
        local name = some[random(#some)]
        values[k], texts[k] = kinds[name]()
        if name == "handle" then
            handles[#handles + 1] = values[k]
        end
    end
    return values, table.concat(texts), handles
end
]]
local pool, draw, string_buffer = assert(loadstring(prelude
    .. "return pool, draw, has_buffers and string_buffer"))()
math.randomseed(seed)

local function release(handles)
    for _, h in ipairs(handles) do
        h:release()
    end
end

-- As a buffer and as a handle.
local function both(fn)
    local buf = pool:writer()
    fn(buf)
    buf:release()
    local handle = pool:borrow(0)
    fn(handle)
    handle:release()
end

describe("put", function()
    for n = 1, MOST + 8 do
        it(("appends %d values of any kinds"):format(n), function()
            both(function(out)
                for _ = 1, rounds do
                    local values, text, handles = draw(n)
                    if math.random(4) > 1 then
                        out:reset()
                    end
                    local before = out:tostring()
                    assert.equal(out, out:put(unpack(values, 1, n)))
                    assert.equal(before .. text, out:tostring())
                    release(handles)
                end
            end)
        end)
    end

    it("does what string.buffer does", function()
        if not string_buffer then
            return
        end
        both(function(out)
            for _ = 1, 10 * rounds do
                local values = draw(math.random(MOST), { "string", "integer",
                    "number", "special", "table" })
                local theirs = string_buffer.new():put(unpack(values))
                out:reset():put(unpack(values))
                assert.equal(theirs:tostring(), out:tostring())
            end
        end)
    end)

    it("appends the text that tostring gives a number", function()
        local out = pool:writer()
        local function try(v)
            out:reset():put(v, -v)
            assert.equal(tostring(v) .. tostring(-v), out:tostring())
        end
        for power = -6, 16 do
            for _ = 1, 200 do
                try(math.random() * 10 ^ power)
                try(math.floor(math.random() * 10 ^ power))
                -- Ties of fourteen digits are among these.
                try(math.floor(math.random() * 2 ^ 45) / 2 ^ math.random(0, 40))
                try(tonumber(("%.14g"):format(math.random() * 10 ^ power)))
                try(math.random(0, 99999) / 10 ^ math.random(0, 5))
            end
            for ulps = -3, 3 do
                try(10 ^ power * (1 + ulps * 2 ^ -52))
            end
        end
        for i = 0, 2000 do
            try(i)
            try(2 ^ 31 - 1000 + i)
            try(1e14 - 1000 + i)
        end
        out:release()
    end)

    it("fills the memory to the last byte before it grows", function()
        for n = 1, MOST do
            both(function(out)
                local values, text, handles = draw(n, { "string", "integer",
                    "number", "buffer" })
                out:reset():put "x"
                local capacity = out:capacity()
                if #text >= 1 and #text < capacity then
                    out:resize(capacity - #text)
                    out:put(unpack(values))
                    assert.equal(capacity, #out)
                    assert.equal(capacity, out:capacity())
                    assert.equal(text, out:sub(-#text))
                end
                release(handles)
            end)
        end
    end)
end)

describe("put changes nothing", function()
    local zero = ("\0"):rep(4096)

    -- What remains behind the end is wiped with the rest.
    local function unchanged(out, fn)
        local before, capacity = out:tostring(), out:capacity()
        assert.is_false((pcall(fn)))
        assert.equal(before, out:tostring())
        assert.equal(capacity, out:capacity())
    end

    it("when any value is wrong", function()
        for n = 1, MOST + 2 do
            both(function(out)
                out:reset():put "before"
                for _ = 1, 4 do
                    local values, _, handles = draw(n)
                    local k = math.random(n)
                    local dead = pool:checkout(1)
                    dead:release()
                    local wrong = { false, true, {}, print, dead, pool, out,
                        newproxy(true), coroutine.create(print) }
                    values[k] = wrong[math.random(0, #wrong)]
                    unchanged(out, function()
                        out:put(unpack(values, 1, n))
                    end)
                    values[k] = nil
                    unchanged(out, function()
                        out:put(unpack(values, 1, n))
                    end)
                    release(handles)
                end
            end)
        end
    end)

    it("when memory is short, whatever is missing", function()
        local small = bufpool.new { classes = { { size = 4096 } },
            max_bytes = 8192 }
        for n = 1, MOST + 2 do
            local out = small:writer():put("before", ("x"):rep(math.random(80)))
            local values, text, handles = draw(n)
            values[math.random(n)] = ("y"):rep(4096 * 3)
            local before = out:tostring()
            local message = raises(function()
                out:put(unpack(values, 1, n))
            end, "cannot grow in 'put': max_bytes of the pool reached")
            assert.is_truthy(message)
            assert.equal(before, out:tostring())
            unchanged(out, function()
                out:put(unpack(values, 1, n))
            end)
            assert.is_string(text)
            release(handles)
            out:release()
        end
    end)

    it("when it is given the buffer itself", function()
        for n = 1, MOST + 2 do
            both(function(out)
                out:reset():put "before"
                local values, _, handles = draw(n)
                local k = math.random(n)
                values[k] = out
                unchanged(out, function()
                    out:put(unpack(values, 1, n))
                end)
                raises(function() out:put(unpack(values, 1, n)) end,
                    ("bad argument #%d to 'put' (a buffer cannot be put "
                        .. "into itself)"):format(k))
                release(handles)
            end)
        end
    end)

    it("in what the next owner gets", function()
        local own = bufpool.new()
        for _ = 1, 200 do
            local out = own:writer()
            pcall(out.put, out, 123456, "SECRET", 12.5, 0 / 0, {})
            pcall(out.put, out, 12.25, 1e300, "SECRET")
            out:resize(0)
            out:release()
            local heir = own:checkout(4096)
            assert.is_true(heir:tostring() == zero)
            heir:release()
        end
        own:close()
    end)
end)

describe("put takes", function()
    it("a pointer as its text, one to the buffer itself too", function()
        both(function(out)
            out:reset():put "abc"
            local at, n = out:ref()
            out:put(at, n)
            assert.equal("abc" .. tostring(at) .. "3", out:tostring())
        end)
    end)

    it("frozen memory of the same pool while it grows", function()
        both(function(out)
            out:reset()
            local part = pool:writer():put(("p"):rep(3000)):freeze()
            out:put(part, part:slice(1, 10), part)
            assert.equal(6010, #out)
            out:put(part, part, part, part, part, part)
            assert.equal(("p"):rep(24010), out:tostring())
        end)
    end)

    it("nothing", function()
        both(function(out)
            assert.equal(out, out:reset():put())
            assert.equal(0, #out)
            out:put("", "", pool:writer(), pool:checkout(0):freeze())
            assert.equal(0, #out)
        end)
    end)

    it("objects after every __tostring has run, however many", function()
        for _, n in ipairs { 2, 5, MOST, MOST + 1, 100 } do
            local w, o = pool:writer(), pool:writer():put "o"
            local values = { o }
            for k = 2, n - 1 do
                values[k] = "s"
            end
            values[n] = setmetatable({}, { __tostring = function()
                o:put "!"
                return "x"
            end })
            w:put(unpack(values))
            assert.equal("o!" .. ("s"):rep(n - 2) .. "x", tostring(w))
            values[n] = setmetatable({}, { __tostring = function()
                o:release()
                return "x"
            end })
            local before = tostring(w)
            raises(function() w:put(unpack(values)) end, "released buffer")
            assert.equal(before, tostring(w))
            w:release()
        end
    end)

    it("a value whose __tostring puts into the same buffer", function()
        both(function(out)
            out:reset()
            local times = 0
            local v = setmetatable({}, { __tostring = function()
                times = times + 1
                out:put("<", 1, "x", ">")
                return "v"
            end })
            for n = 1, MOST do
                local values = {}
                for k = 1, n do
                    values[k] = k % 3 == 0 and k or "s"
                end
                values[math.random(n)] = v
                out:reset():put(unpack(values))
                assert.equal(n, times)
                for k = 1, n do
                    values[k] = tostring(values[k] == v and "v" or values[k])
                end
                assert.equal("<1x>" .. table.concat(values), out:tostring())
            end
        end)
    end)
end)

-- In processes of their own: a JIT with other settings, and its events.
local watched = prelude .. [[
local traces, flushes = 0, 0
local function watch(what)
    if what == "stop" then
        traces = traces + 1
    elseif what == "flush" then
        flushes = flushes + 1
    end
end
jit.off(watch)
jit.attach(watch, "trace")
]]

describe("put in a compiled loop", function()
    if not jit.status() then
        pending "the JIT is off"
        return
    end

    it("of 1 to 32 values makes few traces", function()
        local said = helper.child_ok(watched .. [[
            math.randomseed(]] .. seed .. [[)
            jit.opt.start("maxtrace=8000", "maxmcode=16384")
            local most, loops = 0, 0
            for n = 1, 32 do
                for _, some in ipairs { { "string" }, { "integer" },
                    { "string", "integer" }, { "frozen" },
                    { "string", "integer", "number", "buffer", "handle" } } do
                    local values, params = draw(n, some), {}
                    for k = 1, n do
                        params[k] = ("v[%d]"):format(k)
                    end
                    local run = assert(loadstring(("local out, v, n = ... "
                        .. "for i = 1, n do out:reset():put(%s) end"):format(
                        table.concat(params, ", "))))
                    for _, out in ipairs { pool:writer(8192),
                        pool:borrow(8192) } do
                        local before = traces
                        run(out, values, 1000)
                        most = math.max(most, traces - before)
                        loops = loops + 1
                    end
                end
            end
            io.write(most, " ", traces / loops, " ", flushes)]])
        local most, mean, flushes = said:match "^(%d+) (%S+) (%d+)$"
        assert.equal("0", flushes)
        -- The loop, reset and put; more where C cannot tell a number's text,
        -- and where LuaJIT has begun somewhere else.
        assert.is_true(tonumber(most) <= 25, said)
        assert.is_true(tonumber(mean) <= 4, said)
    end)

    -- A trace is of one combination of kinds. The loop and put have traces of
    -- their own, where those of string.buffer are the loop's alone.
    it("of kinds that change each time makes at most five times the traces "
        .. "of string.buffer", function()
        for _, n in ipairs { 2, 5, 9, 16, 32 } do
            local said = helper.child_ok(watched .. ([[
                math.randomseed(%d)
                jit.opt.start("maxtrace=8000", "maxmcode=16384")
                local values, params = draw(4096, { "string", "integer",
                    "number" }), {}
                for k = 1, %d do
                    params[k] = ("v[random(4096)]")
                end
                local source = ("local out, v, n, random = ... "
                    .. "for i = 1, n do out:reset():put(%%s) end"):format(
                    table.concat(params, ", "))
                local function made_by(out)
                    local before = traces
                    assert(loadstring(source))(out, values, 20000, random)
                    return traces - before
                end
                local ours = made_by(pool:writer(8192))
                io.write(ours, " ", has_buffers
                    and made_by(string_buffer.new(8192)) or ours)]]):format(
                seed, n))
            local ours, theirs = said:match "^(%d+) (%d+)$"
            assert.is_true(tonumber(ours) <= 5 * theirs + 20, said)
        end
    end)
end)

-- Finalizers run at exits of traces, and in the interpreter at any allocation.
describe("a finalizer in the middle of put", function()
    local preamble = watched .. [[
        collectgarbage("setpause", 100)
        collectgarbage("setstepmul", 4000)
        local function thresholds()
            jit.flush()
            jit.opt.start("hotloop=" .. random(1, 30),
                "hotexit=" .. random(1, 10))
        end
        local function arm(act)
            getmetatable(newproxy(true)).__gc = act
        end
        local some = { "string", "integer", "number", "special", "buffer",
            "frozen", "table" }
        local out, ran
        math.randomseed(]] .. seed .. ")\n"

    it("may put, move and free: all of the values are together", function()
        assert.equal("true", helper.child_ok(preamble .. [[
            local function put_other()
                out:put("{", 1, 2.5, "other", "}")
            end
            local function move()
                out:resize(#out + 5000)
                out:resize(#out - 5000)
            end
            local function start_anew()
                out:free()
                out:put "{freed}"
            end
            local acts = { put_other, move, start_anew }
            ran = 0
            for round = 1, 60 do
                thresholds()
                out = random(2) == 1 and pool:writer() or pool:borrow(0)
                local n = random(1, 30)
                for i = 1, 200 do
                    local values, text = draw(n, some)
                    values[n + 1], values[n + 2] = "]", nil
                    arm(function()
                        if bufpool.type(out) ~= "dead" then
                            ran = ran + 1
                            acts[random(3)]()
                        end
                    end)
                    local before = out:tostring()
                    out:put("[", unpack(values, 1, n + 1))
                    local whole = "[" .. text .. "]"
                    local after = out:tostring()
                    -- What is not ours came before or after it, as a whole.
                    local at, stop = after:find(whole, 1, true)
                    while at and after:find(whole, stop + 1, true) do
                        at, stop = after:find(whole, stop + 1, true)
                    end
                    if not at then
                        assert(after:find "^{freed}", "torn")
                    else
                        local head = after:sub(1, at - 1)
                        head = head:gsub("{[^{}]*}", "")
                        before = before:gsub("{[^{}]*}", "")
                        assert(head == before or after:find "^{freed}", "torn")
                        assert(after:sub(stop + 1):gsub("{[^{}]*}", "") == "")
                    end
                    if #out > 20000 then
                        out:reset()
                    end
                end
                out:release()
            end
            io.write(tostring(ran > 500))]]))
    end)

    it("may release the buffer: the heir gets zeros", function()
        assert.equal("true", helper.child_ok(preamble .. [[
            ran = 0
            local zero, heirs = ("\0"):rep(4096), {}
            local put = pool:writer().put
            local function release()
                local mine = out
                out = nil
                if mine then
                    ran = ran + 1
                    mine:release()
                    heirs[#heirs + 1] = pool:checkout(4096)
                end
            end
            for round = 1, 40 do
                thresholds()
                local n = random(1, 32)
                local values = draw(n, some)
                for i = 1, 150 do
                    local mine = pool:writer(100)
                    out = mine
                    arm(release)
                    for _ = 1, 40 do
                        if not pcall(put, mine, unpack(values, 1, n)) then
                            break
                        end
                    end
                    mine, out = out, nil
                    if mine then
                        mine:release()
                    end
                    for _, heir in ipairs(heirs) do
                        assert(heir:tostring() == zero, "written to")
                        heir:release()
                    end
                    heirs = {}
                end
            end
            io.write(tostring(ran > 100))]]))
    end)
end)

-- Without the JIT put is a function of C, in which nothing can yield.
describe("a __tostring that yields while put runs", function()
    if not jit.status() then
        it("raises, and leaves the buffer as it was", function()
            local w = bufpool.new():writer():put "as it was"
            local yields = setmetatable({}, { __tostring = coroutine.yield })
            local ok, message = coroutine.resume(coroutine.create(function()
                w:put("a", yields)
            end))
            assert.is_false(ok)
            assert.truthy(message:find "yield across C%-call boundary")
            assert.equal("as it was", tostring(w))
        end)
        return
    end

    -- Coroutines that put to a writer each, and that another one resumes in
    -- any order, while what they have let go of is collected.
    it("lets another put go between, and each has its own bytes", function()
        local random = math.random
        local count = 0
        local function paused(text)
            return setmetatable({}, { __tostring = function()
                coroutine.yield()
                return text
            end })
        end
        local function program()
            local w, expected = pool:writer(), {}
            return coroutine.create(function()
                for _ = 1, 4 do
                    local values, n = {}, random(5)
                    for k = 1, n do
                        count = count + 1
                        local text = ("%d."):format(count):rep(random(9))
                        values[k] = random(2) == 1 and paused(text) or text
                        expected[#expected + 1] = text
                    end
                    w:put(unpack(values, 1, n))
                    if w:tostring() ~= table.concat(expected) then
                        return w:tostring(), table.concat(expected)
                    end
                end
                w:release()
                return "the same", "the same"
            end)
        end
        local running = {}
        for round = 1, 20 * rounds do
            if #running < 8 and round < 19 * rounds then
                running[#running + 1] = program()
            end
            local i = random(math.max(#running, 1))
            local ok, got, expected = coroutine.resume(running[i])
            assert(ok, got)
            if coroutine.status(running[i]) == "dead" then
                assert.equal(expected, got)
                table.remove(running, i)
            elseif random(20) == 1 then         -- never goes on
                table.remove(running, i)
            end
            if #running == 0 then
                running[1] = program()
            end
            if round % 50 == 0 then
                collectgarbage()
            end
        end
    end)
end)
