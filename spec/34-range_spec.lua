-- Methods that work on a range of bytes in one call, against loops over bytes
-- in plain Lua. SEED and ROUNDS may be set in the environment.
local bit = require "bit"
local bufpool = require "bufpool"
local helper = require "support.helper"

local random = math.random
local seed = tonumber(os.getenv "SEED") or os.time()
local rounds = tonumber(os.getenv "ROUNDS") or 300
math.randomseed(seed)
print("seed " .. seed)

local pool = bufpool.new()

local function bytes(n)
    local t = {}
    for k = 1, n do
        t[k] = string.char(random(0, 255))
    end
    return table.concat(t)
end

-- A range as string.sub takes it.
local function clamp(i, j, n)
    i, j = i < 0 and n + i + 1 or i, j < 0 and n + j + 1 or j
    return math.max(i, 1), math.min(j, n)
end

-- Objects of each kind with a text. Some bytes before it are consumed, and some
-- behind it have been written.
local makers = {}
function makers.buffer(text)
    local n = random(0, 9)
    return pool:writer():put(bytes(n), text, bytes(9)):resize(n + #text)
        :skip(n)
end
function makers.handle(text)
    return pool:borrow(0):put(text)
end
function makers.frozen(text)
    return makers.buffer(text):freeze()
end
function makers.slice(text)
    local n = random(0, 9)
    return pool:writer():put(bytes(n), text, bytes(9)):freeze()
        :slice(n + 1, n + #text)
end

local function length()
    local r = random(20)
    return r <= 12 and random(0, 40) or r <= 19 and random(0, 600)
        or random(4000, 4200)
end

local function some_position(n)
    return random(-n - 3, n + 3)
end

local function check(round, got, want)
    if got ~= want then
        error(("seed %d, round %d: not the same"):format(seed, round))
    end
end

local KINDS = { "buffer", "handle", "frozen", "slice" }

-- The text itself, or an object that has it.
local function some_data(text)
    local kind = KINDS[random(5)]
    return kind and makers[kind](text) or text
end

local function release(x)
    if type(x) ~= "string" then
        x:release()
    end
end

-- What is wrong names the argument, and leaves the contents as they were.
local function refuses(b, name, arg, what, ...)
    local before, values, n = b:tostring(), { ... }, select("#", ...)
    helper.raises(function()
        b[name](b, unpack(values, 1, n))
    end, ("bad argument #%d to '%s'"):format(arg, name), what)
    assert.equal(before, b:tostring())
end

describe("xor", function()
    local function xored(text, i, j, key, at)
        local t = {}
        i, j = clamp(i, j, #text)
        for k = 1, #text do
            t[k] = text:byte(k)
            if k >= i and k <= j then
                t[k] = bit.bxor(t[k], key:byte((at - 1 + k - i) % #key + 1))
            end
            t[k] = string.char(t[k])
        end
        return table.concat(t)
    end

    for _, kind in ipairs { "buffer", "handle" } do
        it("does what a loop does, to a " .. kind, function()
            for round = 1, rounds do
                local text = bytes(length())
                local key = bytes(random(4) == 1 and random(100)
                    or random(9) == 1 and random(1000, 3000) or random(9))
                local i, j = some_position(#text), some_position(#text)
                local at = random(3) > 1 and random(2 * #key) or nil
                local b, source = makers[kind](text), some_data(key)
                assert.equal(b, b:xor(i, j, source, at))
                check(round, b:tostring(), xored(text, i, j, key, at or 1))
                release(b)
                release(source)
            end
        end)
    end

    it("takes all bytes unless i and j are given", function()
        local b = pool:writer():put "abc"
        assert.equal("ABC", b:xor(nil, nil, " "):tostring())
        assert.equal("Abc", b:xor(2, nil, " "):tostring())
        assert.equal("aBc", b:xor(nil, 2, " "):tostring())
        assert.equal("PBc", b:xor(1, 1, 1):tostring())
        b:release()
    end)

    it("masks more than a MiB, a piece at a time, as at once", function()
        local n, key = 2 ^ 20 + 12345, bytes(7)
        local text = bytes(997):rep(math.ceil(n / 997)):sub(1, n)
        local whole = pool:checkout(n):write(1, text):xor(1, -1, key)
        local pieces = pool:checkout(n):write(1, text)
        local i = 1
        while i <= n do
            local j = i + random(100000)
            pieces:xor(i, j, key, i)
            i = j + 1
        end
        assert.is_true(whole:equals(pieces))
        assert.equal(xored(text:sub(-9), 1, -1, key, n - 8), whole:sub(-9))
        assert.equal(text, whole:xor(1, -1, key):tostring())
        whole:release()
        pieces:release()
    end)

    it("leaves nothing behind in what was never written", function()
        local own = bufpool.new { classes = { { size = 4096 } } }
        own:checkout(4096):xor(100, -1, "key"):release()
        local b = own:checkout(4096)
        assert.is_true(b:equals(helper.zeros(4096)))
        b:release()
    end)

    it("takes offsets up to the largest size", function()
        local b = pool:writer():put "aaa"
        for _, at in ipairs { 2 ^ 53, 2 ^ 62, 2 ^ 63 - 1024, 5ULL,
            0x7fffffffffffffffLL } do
            local n = tonumber(at) == 2 ^ 63 and 2 ^ 63 - 1024 or tonumber(at)
            b:set "aaa":xor(1, -1, "\0\1\2", at)
            assert.equal(xored("aaa", 1, -1, "\0\1\2", math.fmod(n, 3)),
                b:tostring())
        end
        b:release()
    end)

    it("refuses what is no range, no key and no offset", function()
        for _, kind in ipairs { "buffer", "handle" } do
            local b = makers[kind] "text"
            refuses(b, "xor", 1, "integer expected, got 1.5", 1.5, 2, "k")
            refuses(b, "xor", 1, "integer expected, got nan", helper.nan, 2,
                "k")
            refuses(b, "xor", 2, "number expected, got string", 1, "2", "k")
            refuses(b, "xor", 3, "the key is empty", 1, 2, "")
            refuses(b, "xor", 3, "the key is empty", 3, 2, "")
            refuses(b, "xor", 3, "got nil", 1, 2)
            refuses(b, "xor", 3, "got table", 1, 2, {})
            refuses(b, "xor", 3, "its own key", 1, 2, b)
            refuses(b, "xor", 4, "position 0", 1, 2, "k", 0)
            for _, at in ipairs { -1, 0.5, helper.nan, helper.inf, "1" } do
                refuses(b, "xor", 4, "expected, got", 1, 2, "k", at)
            end
            local dead = makers.buffer "key"
            dead:release()
            helper.raises(function() b:xor(1, 2, dead) end,
                "attempt to use a released buffer")
            b:release()
            helper.raises(function() b:xor(1, 2, "k") end,
                "attempt to use a released")
        end
        local f = makers.frozen "text"
        assert.is_nil(f.xor)
    end)
end)
