-- frozen:reader(), against a buffer of the same bytes that is consumed alike.
-- SEED and ROUNDS may be set in the environment.
local bufpool = require "bufpool"
local ffi = require "ffi"
local typed = require "bufpool.typed"
local helper = require "support.helper"

local random = math.random
local seed = helper.seed()
local rounds = tonumber(os.getenv "ROUNDS") or 300

local pool = bufpool.new()

-- As a slice, so that the bytes around it are seen where they should not be.
local function frozen(text)
    return pool:writer():put("#", text, "#"):freeze():slice(2, -2)
end

local function reader(text)
    return frozen(text):reader()
end

local names = {}
for kind in pairs(typed.readers) do
    names[#names + 1] = "get_" .. kind
end
for _, name in ipairs { "get_varint", "get_varint64", "get_zigzag",
    "get_zigzag64" } do
    for _ = 1, 3 do
        names[#names + 1] = name
    end
end
for _ = 1, 5 do
    names[#names + 1] = "get"
    names[#names + 1] = "skip"
end
names[#names + 1] = "len"
names[#names + 1] = "tostring"
table.sort(names)

local odd = { -1, 0.5, helper.nan, helper.inf, 2 ^ 63, "1", {}, 5LL }
local function length(left)
    return random(12) == 1 and odd[random(#odd)] or random(0, left + 2)
end

-- Arguments for a method where so many bytes are left.
local function arguments(name, left)
    if name == "skip" then
        return length(random(left + 1) - 1)
    elseif name == "get" then
        local list, n = {}, random(0, 5)
        for k = 1, n do
            list[k] = random(6) > 1 and length(math.ceil(left / 4)) or nil
        end
        return unpack(list, 1, n)
    end
end

-- What a call returns, as a text without the position of an error.
local function outcome(x, name, ...)
    local results = { pcall(x[name], x, ...) }
    if not results[1] then
        return "error " .. tostring(results[2]):gsub("^[^:]*:%d+: ", "")
    end
    for k = 1, 6 do
        results[k] = rawequal(results[k], x) and "itself"
            or type(results[k]) .. " " .. tostring(results[k])
    end
    return table.concat(results, ", ")
end

local function draw_text()
    local t = {}
    for k = 1, random(0, 60) do
        t[k] = string.char(random(3) == 1 and 255 or random(0, 255))
    end
    return table.concat(t)
end

describe("a reader", function()
    it("reads as a buffer with these bytes does", function()
        local done = 0
        for round = 1, rounds do
            local text = draw_text()
            local b = pool:writer():put(text)
            local f = frozen(text)
            local r = f:reader()
            for _ = 1, 40 do
                local name = names[random(#names)]
                local list = { arguments(name, #b) }
                local n = table.maxn(list)
                local want = outcome(b, name, unpack(list, 1, n))
                local got = outcome(r, name, unpack(list, 1, n))
                if got ~= want or r:len() ~= #b
                    or tostring(r) ~= b:tostring() then
                    error(("seed %d, round %d: %s gives %s, left %d; want %s, "
                        .. "left %d"):format(seed, round, name, got, r:len(),
                        want, #b))
                end
                done = done + (want:find "^error" and 0 or 1)
            end
            assert.equal(text, f:tostring())
            b:release()
        end
        assert.is_true(done > rounds)
    end)

    it("has the methods of buffers that consume", function()
        local b, r = pool:writer(), reader ""
        for name, method in pairs(debug.getmetatable(b).__index) do
            if name:find "^get" or name == "skip" then
                assert.equal("function", type(r[name]), name)
                assert.not_equal(method, r[name])
            end
        end
        b:release()
    end)

    it("begins at byte 1, whatever other readers do", function()
        local f = frozen "abcd"
        local r, s = f:reader(), f:reader()
        assert.equal("ab", r:get(2))
        assert.equal("a", s:get(1))
        assert.equal("cd", r:get())
        assert.equal("bcd", s:tostring())
    end)

    it("goes on where its position says", function()
        local f = frozen "one\ntwo\nthree"
        local r = f:reader()
        assert.equal(f, r.of)
        local stop = f:find("\n", r.at, true)
        assert.equal("one", r:get(stop - r.at))
        assert.equal("two", r:skip(1):get(3))
        r.at = 1
        assert.equal("one", r:get(3))
        r.at = #f + 1
        assert.equal(0, r:len())
    end)

    it("of a position that is none raises, at the caller's line", function()
        for _, at in ipairs { -1, 0, 9, 10, 2 ^ 31, 2 ^ 53, 2 ^ 60, 2 ^ 64,
            -2 ^ 60, 1.5, helper.nan, helper.inf, -helper.inf, "x", "1", {},
            true, 1LL, -1LL, print, ffi.new "int[4]",
            setmetatable({}, { __index = error }) } do
            for _, name in ipairs(names) do
                local r = reader "abcdefg"
                r.at = at
                helper.raises(function()
                    r[name](r, 0)
                end, type(at) == "number" and at == 1.5 and "1.5"
                    or "is no position (")
                assert.is_true(rawequal(at, r.at) or at ~= at)
            end
        end
        local r = reader "abcdefg"
        r.at = nil
        helper.raises(function() r:get_u8() end, "no position (nil,")
    end)

    it("of what is no object raises", function()
        for _, of in ipairs { -1, "abcd", {}, true, print, 5LL, pool,
            io.stdout, newproxy(true), helper.forged "bufpool.frozen",
            ffi.cast("void *", 4096) } do
            for _, name in ipairs(names) do
                local r = reader "abcdefg"
                r.of = of
                helper.raises(function() r[name](r, 0) end, "bad self")
            end
        end
    end)

    it("reads inside of any object that it is given", function()
        for _ = 1, rounds do
            local r = reader(draw_text())
            r.at = random(70)
            r.of = random(2) == 1 and frozen "a" or pool:writer():put "a"
            for _, name in ipairs(names) do
                local at, left = r.at, #r.of - r.at + 1
                local ok, v = pcall(r[name], r, 1)
                if left < 0 then
                    assert.is_false(ok)
                elseif name == "get" and ok then
                    assert.is_true(#v <= left)
                end
                assert.is_true(r.at == at or r.at <= #r.of + 1)
            end
        end
    end)

    it("of the dead raises, and can be shown", function()
        local f = frozen "abcdefghijklmnopqrst"
        local r = f:reader():skip(2)
        f:release()
        for _, name in ipairs(names) do
            helper.raises(function() r[name](r, 1) end,
                "attempt to use a released frozen")
        end
        assert.equal("bufpool.frozen: released", tostring(r))
        helper.raises(function() f:reader() end,
            "attempt to use a released frozen")
    end)

    it("is had of frozen objects only", function()
        local b = pool:writer()
        assert.is_nil(b.reader)
        local method = frozen "".reader
        for _, x in ipairs { b, pool, 1, "abc", {}, io.stdout, newproxy(true),
            helper.forged "bufpool.frozen" } do
            helper.raises(function() method(x) end, "bad self to 'reader'")
        end
        b:release()
    end)

    it("is no data, but has a text", function()
        local r = reader "abcd":skip(1)
        assert.equal("bcd", pool:writer():put(r):tostring())
        assert.is_nil(bufpool.type(r))
        assert.equal("bufpool.reader", getmetatable(r))
    end)

    it("keeps its object alive", function()
        local r = reader "abcd"
        helper.collect()
        assert.equal("abcd", r:get())
    end)

    it("makes no garbage for numbers", function()
        local text = ("\127"):rep(8000)
        local r = reader(text)
        local function program()
            for _ = 1, 1000 do
                local _ = r:get_u8() + r:get_u16be() + r:get_i24le()
                    + r:get_varint() + r:get_zigzag()
            end
        end
        program()
        r.at = 1
        collectgarbage()
        collectgarbage "stop"
        local before = collectgarbage "count"
        program()
        local made = collectgarbage "count" - before
        collectgarbage "restart"
        -- Traces of the JIT are garbage, too.
        assert.is_true(jit.status() or made < 1, made)
    end)
end)
