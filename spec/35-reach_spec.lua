-- Varints, bytes that move between buffers, and lines, against plain Lua.
-- SEED and ROUNDS may be set in the environment.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local random = math.random
local seed = tonumber(os.getenv "SEED") or os.time()
local rounds = tonumber(os.getenv "ROUNDS") or 300
math.randomseed(seed)
print("seed " .. seed)

local pool = bufpool.new()

-- Buffers with a text. Some bytes before it are consumed, and some behind it
-- have been written.
local makers = {}
function makers.buffer(text)
    local n = random(0, 9)
    return pool:writer():put(("c"):rep(n), text, "behind it")
        :resize(n + #text):skip(n)
end
function makers.handle(text)
    return pool:borrow(0):put(text)
end

local function check(round, got, want)
    if got ~= want then
        error(("seed %d, round %d: not the same"):format(seed, round))
    end
end

-- What is wrong is told, and leaves the contents as they were.
local function refuses(b, name, what, ...)
    local before, values, n = b:tostring(), { ... }, select("#", ...)
    helper.raises(function()
        b[name](b, unpack(values, 1, n))
    end, what)
    assert.equal(before, b:tostring())
end

-- Integers as lists of bits, the lowest first.
local function draw_bits(most)
    local bits = {}
    for k = 1, random(0, most) do
        bits[k] = random(0, 1)
    end
    return bits
end

local function number_of(bits, zero)
    local v = zero or 0
    for k = #bits, 1, -1 do
        v = v * 2 + bits[k]
    end
    return v
end

local function varint_of(bits)
    local bytes = {}
    for k = 1, math.max(#bits, 1), 7 do
        bytes[#bytes + 1] = number_of { unpack(bits, k, math.min(k + 6,
            #bits)) }
    end
    while #bytes > 1 and bytes[#bytes] == 0 do
        bytes[#bytes] = nil
    end
    for k = 1, #bytes do
        bytes[k] = string.char(bytes[k] + (k < #bytes and 128 or 0))
    end
    return table.concat(bytes)
end

-- By form: an integer of up to 53 bits, or of all that it may have, and its
-- bytes.
local forms = {
    varint = { zero = 0ULL, draw = function(zero)
        local bits = draw_bits(zero and 64 or 53)
        return number_of(bits, zero), varint_of(bits)
    end },
    zigzag = { zero = 0LL, draw = function(zero)
        local bits, sign = draw_bits(zero and 63 or 53), random(0, 1)
        local v = number_of(bits, zero)
        table.insert(bits, 1, sign)
        return sign == 1 and -v - 1 or v, varint_of(bits)
    end },
}

for name, form in pairs(forms) do
    local put, get, get64 = "put_" .. name, "get_" .. name,
        "get_" .. name .. "64"
    describe(name, function()
        for kind, make in pairs(makers) do
            it("of a " .. kind .. " is put and got as bits are", function()
                for round = 1, rounds do
                    local values, texts = {}, { ("x"):rep(random(0, 9)) }
                    local n = random(9) == 1 and random(30, 40) or random(0, 5)
                    for k = 1, n do
                        values[k], texts[k + 1] = form.draw(random(3) == 1
                            and form.zero or nil)
                    end
                    local b = make(texts[1])
                    assert.equal(b, b[put](b, unpack(values)))
                    for k = 1, n do
                        b[put](b, values[k])
                    end
                    local text = table.concat(texts)
                    check(round, b:tostring(), text .. text:sub(#texts[1] + 1))
                    b:skip(#texts[1])
                    for k = 1, n do
                        local v = values[k]
                        check(round, type(v) == "number" and b[get](b)
                            or b[get64](b), v)
                    end
                    for k = 1, n do
                        local v = b[get64](b)
                        check(round, v, ffi.cast(ffi.typeof(form.zero),
                            values[k]))
                        assert.equal(tostring(form.zero):match "%a+",
                            tostring(v):match "%a+")
                    end
                    assert.equal(0, #b)
                    b:release()
                end
            end)

            it("of a " .. kind .. " that is not whole is left", function()
                for round = 1, rounds do
                    local _, text = form.draw(form.zero)
                    local b = make(text:sub(1, random(0, #text - 1)))
                    for _, method in ipairs { get, get64 } do
                        refuses(b, method, ("too few bytes for '%s' "
                            .. "(length %d)"):format(method, #b))
                    end
                    b:put(text:sub(#b + 1))
                    b[put](b, b[get64](b))
                    check(round, b:tostring(), text)
                    b:release()
                end
            end)
        end

        it("has 64 bits at most", function()
            local b = pool:writer()
            for _, text in ipairs { ("\255"):rep(10), ("\128"):rep(10) .. "\1",
                ("\128"):rep(9) .. "\2", ("\255"):rep(9) .. "\127",
                ("\128"):rep(4000) } do
                b:set(text)
                refuses(b, get, "more than 64 bits for '" .. get .. "'")
                refuses(b, get64, "more than 64 bits for '" .. get64 .. "'")
            end
            b:set(("\128"):rep(9) .. "\0\129\128\0")
            assert.equal(0, b[get](b))
            assert.equal(name == "varint" and 1 or -1, b[get](b))
            assert.equal(0, #b)
            b:release()
        end)

        it("is a number up to 2^53", function()
            local b = pool:writer()
            local values = { 2 ^ 53, 2 ^ 53 - 1 }
            local wide = { 2 ^ 53 + 1ULL, 2 ^ 53 + 2ULL, 2 ^ 62 + 0ULL }
            if name == "zigzag" then
                values[3], values[4] = -2 ^ 53, 1 - 2 ^ 53
                wide[4], wide[5] = -2 ^ 53 - 1LL, -2 ^ 63 + 0LL
            else
                wide[4], wide[5] = -1ULL, 2 ^ 63 + 0ULL
            end
            for _, v in ipairs(values) do
                b[put](b, v)
                assert.equal(v, b[get](b))
            end
            for _, v in ipairs(wide) do
                b[put](b, v)
                refuses(b, get, ("more than 2^53 for '%s' (use '%s')"):format(
                    get, get64))
                assert.is_true(b[get64](b) == v)
            end
            b:release()
        end)

        it("takes whole numbers and 64-bit integers of C only", function()
            for _, make in pairs(makers) do
                local b = make "text"
                local wrong = { 0.5, 2 ^ 53 + 2, helper.nan, helper.inf,
                    -helper.inf, name == "varint" and -1 or -2 ^ 53 - 2 }
                for _, v in ipairs(wrong) do
                    local what = ("bad argument #%%d to '%s' (integer from %s "
                        .. "to 2^53 expected, got "):format(put,
                        name == "varint" and "0" or "-2^53")
                    refuses(b, put, what:format(1), v)
                    refuses(b, put, what:format(3), 1, 2, v, 0.5)
                end
                local values = {}
                for k = 1, 39 do
                    values[k] = k
                end
                for _, v in ipairs { "1", true, {}, b, ffi.new "int[1]" } do
                    local what = ("bad argument #%%d to '%s' (number expected, "
                        .. "got %s)"):format(put, type(v))
                    refuses(b, put, what:format(1), v)
                    values[40] = v
                    refuses(b, put, what:format(40), unpack(values))
                end
                b:release()
            end
        end)

        it("fills the memory to the last byte, or leaves it", function()
            local own = bufpool.new { max_bytes = 8192, four_kib_count = 0,
                sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
            local b, h = own:writer():put(("x"):rep(4092)), own:borrow(10)
            refuses(b, put, "cannot grow in '" .. put .. "'", 1, 2, 3, 4, 5)
            refuses(b, put, "cannot grow in '" .. put .. "'", 2 ^ 40)
            b[put](b, 1, 2)
            b[put](b, 3)
            b[put](b, 4)
            refuses(b, put, "cannot grow in '" .. put .. "'", 1)
            assert.equal(4096, #b)
            b:release()
            h:release()
            own:close()
        end)

        it("leaves nothing behind", function()
            local own = bufpool.new { classes = { { size = 4096 } } }
            for round = 1, 3 do
                local b = own:writer()
                while #b < 4000 do
                    b[put](b, form.zero - 1, 2 ^ 40)
                    b[get64](b:put "tail")
                    b[put](b, round)
                end
                b:release()
                b = own:checkout(4096)
                assert.is_true(b:equals(helper.zeros(4096)))
                b:release()
            end
            own:close()
        end)

        it("of the dead is refused", function()
            for _, make in pairs(makers) do
                local b = make "text"
                b:release()
                for _, method in ipairs { put, get, get64 } do
                    helper.raises(function() b[method](b, 1) end,
                        "attempt to use a released")
                end
            end
            local f = makers.buffer "text":freeze()
            assert.is_nil(f[get])
        end)
    end)
end
