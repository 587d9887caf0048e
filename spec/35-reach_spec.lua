-- Varints, bytes that move between buffers, lines, and writes of several
-- objects, against plain Lua.
-- SEED and ROUNDS may be set in the environment.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local random = math.random
local seed = helper.seed()
local rounds = tonumber(os.getenv "ROUNDS") or 300

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

-- Buffers of each size and kind, from two pools.
local pools = { bufpool.new(), bufpool.new { classes = { { size = 4096 },
    { size = 16384 } } } }
local SIZES = { 0, 1, 100, 4096, 5000, 16384, 70000, 1100000 }

-- Nothing is out, and what is free is zero.
local function check_pools(round)
    for _, own in ipairs(pools) do
        for _, n in ipairs { 1, 4097, 16385, 70000 } do
            local b = own:borrow(n)
            b:resize(b:capacity())
            assert.is_true(b:equals(helper.zeros(#b)), round)
            b:release()
        end
        assert.equal(0, own:stats().checked_out)
    end
end

local function draw_buffer()
    local own, n = pools[random(2)], SIZES[random(random(#SIZES))]
    local r, headroom = random(10), random(0, 2) * random(0, 99)
    local b = r <= 4 and own:writer(n, headroom)
        or r <= 8 and own:borrow(n):reset()
        or own:checkout_aligned(n, r == 9 and 64 or 8192):reset()
    return random(6) > 1 and b or b:free()
end

local PIECES = {}
for k = 1, 4096 do
    PIECES[k] = ("%04x"):format(k * 40503 % 65536)
end
PIECES = table.concat(PIECES):rep(80)

local function piece()
    local n = random(4) > 1 and random(0, 200)
        or SIZES[random(random(#SIZES))] + random(-1, 1)
    local i = random(200)
    return PIECES:sub(i, i + n - 1)
end

local box_t = require("bufpool.object").box_type
local descriptor_of = require("bufpool.object").live

-- What must hold of any buffer between two calls.
local function check_charge(b)
    if type(b) == "userdata" then
        local d = descriptor_of(b, "spec")
        local size = tonumber(d.capacity) + helper.address(d.at)
            - helper.address(d.base)
        assert.equal(size, ffi.cast(box_t, b).charged)
    end
end

local function address(b)
    return helper.address(descriptor_of(b, "spec").at)
end

describe("a varint of 64 bits", function()
    -- After each number of instructions a hook writes, as a finalizer may do.
    it("is one that was there, and is consumed whole", function()
        local compiling = jit.status()
        jit.off()
        jit.flush()
        for text, byte in pairs { ["\5\7"] = 0x85, ["\128"] = 5,
            ["\133\7"] = 5 } do
            local count, through = 0, false
            repeat
                count, through = count + 1, false
                local b, late = pool:writer():put(text), false
                debug.sethook(function()
                    debug.sethook()
                    late = through
                    pcall(b.set_u8, b, 1, byte)
                end, "", count)
                local ok, v = pcall(b.get_varint64, b)
                through = true
                debug.sethook()
                local got = ok and tostring(v) .. " " .. #b or "error " .. #b
                assert.truthy(({ ["5ULL 1"] = text ~= "\128",
                    ["5ULL 0"] = text == "\128", ["901ULL 0"] = true,
                    ["error 1"] = text == "\128" })[got], got)
                b:release()
            until late
        end
        if compiling then
            jit.on()
        end
    end)
end)

describe("take and split_to", function()
    -- Steps for buffers b and o with texts m[b] and m[o].
    local steps = {}
    function steps.take(b, o, m)
        local n = random(3) > 1 and random(0, #m[o] + 3) or nil
        assert.equal(b, b:take(o, n))
        m[b], m[o] = m[b] .. m[o]:sub(1, n or -1), m[o]:sub((n or #m[o]) + 1)
    end
    function steps.split_to(b, o, m)
        local n = random(0, #m[o] + 3)
        local part = o:split_to(n)
        assert.equal("buffer", bufpool.type(part))
        m[part], m[o] = m[o]:sub(1, n), m[o]:sub(n + 1)
        b:release()
        m[b] = nil
        return part
    end
    function steps.put(b, _, m)
        local text = piece()
        b:put(text)
        m[b] = m[b] .. text
    end
    function steps.skip(b, _, m)
        local n = random(0, #m[b] + 3)
        b:skip(n)
        m[b] = m[b]:sub(n + 1)
    end
    function steps.reset(b, _, m)
        b:reset()
        m[b] = ""
    end
    function steps.resize(b, _, m)
        local n = random(0, #m[b] + 99)
        b:resize(n)
        m[b] = m[b]:sub(1, n) .. ("\0"):rep(n - #m[b])
    end
    -- A pointer may be used until the buffer grows: here it writes what is
    -- there, at each end.
    function steps.ref(b, _, m)
        local p, n = b:ref()
        if n > 0 then
            p[0], p[n - 1] = m[b]:byte(1), m[b]:byte(-1)
        end
    end
    function steps.reserve(b, o)
        b:reserve(random(99))
        b:take(o, 0)
    end
    function steps.again(b, _, m)
        b:release()
        m[b] = nil
        b = draw_buffer()
        m[b] = ""
        return b
    end
    local names = { "take", "take", "take", "split_to", "split_to", "put",
        "put", "skip", "reset", "resize", "ref", "reserve", "again" }

    it("do what they do to strings", function()
        for round = 1, math.ceil(rounds / 3) do
            local buffers, m = {}, {}
            for k = 1, 3 do
                buffers[k] = draw_buffer()
                m[buffers[k]] = ""
            end
            for _ = 1, 30 do
                local i = random(3)
                local j = (i + random(2) - 1) % 3 + 1
                local b = buffers[i]
                if #m[b] > 3e6 then
                    m[b] = ""
                    b:reset()
                end
                buffers[i] = steps[names[random(#names)]](b, buffers[j], m)
                    or b
                for k = 1, 3 do
                    check(round, buffers[k]:tostring(), m[buffers[k]])
                    check_charge(buffers[k])
                end
            end
            for k = 1, 3 do
                buffers[k]:release()
            end
            check_pools(round)
        end
    end)
end)

describe("take", function()
    local LARGE = 2000000

    it("copies nothing where an empty buffer gets all of one", function()
        for _, n in ipairs { 10, 4096, 65536, LARGE } do
            for _, make in pairs { pool.writer, pool.borrow } do
                local from, to = pool:checkout(n):fill(65), make(pool, 0)
                local at, capacity = address(from), from:capacity()
                to:take(from)
                assert.equal(at, address(to))
                assert.equal(capacity, to:capacity())
                from:take(to)
                assert.equal(at, address(from))
                assert.is_true(from:equals(("A"):rep(n)))
                from:release()
                to:release()
            end
        end
    end)

    it("copies the rest where that is shorter", function()
        local from, to = pool:checkout(LARGE):fill(65), pool:writer(LARGE)
        from:write(-3, "end")
        local at = address(from)
        to:take(from, LARGE - 3)
        assert.equal(at, address(to))
        assert.equal("end", from:tostring())
        assert.is_true(to:equals(("A"):rep(LARGE - 3)))
        from:release()
        to:release()
    end)

    it("leaves a buffer no less memory than it had", function()
        local from, to = pool:writer():put "abc", pool:writer(100000)
        local capacity = to:capacity()
        assert.equal("abc", to:take(from):tostring())
        assert.equal(capacity, to:capacity())
        to:release()
        to = pool:checkout_aligned(0, 65536)
        for n = 1, 5 do
            to:reset():take(from:set(("x"):rep(n * 3000)))
            assert.equal(n * 3000, #to)
            assert.equal(0, address(to) % 65536)
        end
        from:release()
        to:release()
    end)

    it("copies what is another pool's", function()
        local theirs, own = bufpool.new(), bufpool.new()
        for _, n in ipairs { 10, 65536, LARGE } do
            local from, to = theirs:checkout(n):fill(65), own:writer()
            to:take(from)
            from:release()
            assert.equal(0, theirs:stats().bytes_checked_out)
            assert.is_true(own:stats().bytes_checked_out >= n)
            assert.is_true(to:equals(("A"):rep(n)))
            to:release()
        end
        theirs:close()
        own:close()
    end)

    it("leaves what was reserved to nobody", function()
        local from, to = pool:writer():put "abc", pool:writer()
        from:reserve(10)
        to:reserve(10)
        to:take(from)
        refuses(from, "commit", "exceed the 0 reserved", 1)
        refuses(to, "commit", "exceed the 0 reserved", 1)
        from:release()
        to:release()
    end)

    it("leaves nothing behind, of what a pointer from before writes either",
        function()
            local own = bufpool.new { classes = { { size = 4096 } } }
            local from, to = own:checkout(4096):fill(65), own:writer()
            local p = from:ref()
            to:take(from):wipe()
            p[4000] = 1
            from:put "from"
            to:release()
            from:release()
            from, to = own:checkout(4096), own:checkout(4096)
            assert.is_true(from:equals(helper.zeros(4096)))
            assert.is_true(to:equals(from))
            from:release()
            to:release()
            own:close()
        end)

    it("moves all, or nothing when memory is short", function()
        local own = bufpool.new { max_bytes = 2 ^ 18,
            two_fifty_six_kib_count = 0, sixty_four_kib_count = 0,
            four_kib_count = 0 }
        local to, from = own:writer():put "abc", pool:checkout(2 ^ 18):fill(65)
        for _, n in ipairs { 2 ^ 18, 2 ^ 18 - 1, 2 ^ 60, 1e300 } do
            if n < 2 ^ 63 then
                refuses(to, "take", "cannot grow in 'take': max_bytes of the "
                    .. "pool reached", from, n)
            end
            refuses(to, "take", "cannot grow in 'take'", from)
            assert.equal(2 ^ 18, #from)
        end
        assert.equal("abcAA", to:take(from, 2):tostring())
        assert.equal(2 ^ 18 - 2, #from)
        to:release()
        from:release()
        own:close()
    end)

    it("takes from nothing but another buffer", function()
        for _, make in pairs(makers) do
            local b = make "text"
            refuses(b, "take", "bad argument #1 to 'take' (a buffer cannot "
                .. "take from itself)", b)
            refuses(b, "take", "cannot take from itself", b, 0)
            local f = makers.buffer "frozen":freeze()
            for _, x in ipairs { "text", 7, {}, f, pool, true } do
                refuses(b, "take", "bad argument #1 to 'take' (buffer "
                    .. "expected, got " .. (bufpool.type(x) or type(x)), x)
            end
            refuses(b, "take", "buffer expected, got nil")
            local other = make "other"
            for _, n in ipairs { -1, 0.5, helper.nan, helper.inf, 2 ^ 63,
                "1" } do
                refuses(b, "take", "bad argument #2 to 'take' (", other, n)
            end
            assert.equal("textot", b:take(other, 2LL):tostring())
            other:release()
            refuses(b, "take", "attempt to use a released", other)
            b:release()
            other = make "other"
            helper.raises(function() b:take(other) end,
                "attempt to use a released")
            assert.equal("other", other:tostring())
            other:release()
            assert.is_nil(f.take)
        end
    end)

    it("moves what the collector is charged for", helper.uncollected(function()
        local from, to = pool:checkout(LARGE), pool:writer()
        local account = ffi.cast(box_t, to).account
        local held = account.held
        to:take(from)
        check_charge(to)
        check_charge(from)
        assert.equal(held, account.held)
        local handle = pool:borrow(LARGE)
        local debt = account.debt
        from:take(handle)
        check_charge(from)
        assert.is_true(account.debt >= debt + LARGE - 4096)
        assert.is_true(account.held >= held + LARGE - 4096)
        handle:take(from)
        check_charge(from)
        assert.equal(held, account.held)
        handle:release()
        to:release()
        from:release()
    end))
end)

describe("split_to", function()
    it("copies the shorter part only", function()
        for _, n in ipairs { 4096, 65536, 2000000 } do
            local b = pool:checkout(n):fill(65):write(3, "BC")
            local at = address(b)
            local part = b:split_to(3)
            assert.equal("AAB", part:tostring())
            assert.equal(at + 3, address(b))
            part:release()
            part = b:split_to(n - 4)
            assert.equal(at + 3, address(part))
            assert.equal("C" .. ("A"):rep(n - 5), part:tostring())
            assert.equal("A", b:tostring())
            assert.equal(4096, b:capacity())
            part:release()
            b:release()
        end
    end)

    it("gives a buffer of the same pool, aligned alike", function()
        local own = bufpool.new()
        local b = own:checkout_aligned(30000, 16384):fill(65)
        own:close()
        for n = 0, 2 do
            local part = b:split_to(n * 10000)
            assert.equal("buffer", bufpool.type(part))
            assert.equal(descriptor_of(b, "spec").arena,
                descriptor_of(part, "spec").arena)
            part:put(("x"):rep(40000))
            assert.equal(0, address(part) % 16384)
            part:release()
        end
        assert.equal(0, #b)
        assert.equal("", b:split_to(10):tostring())
        b:release()
    end)

    it("says so when memory is short, and leaves the buffer", function()
        local own = bufpool.new { max_bytes = 4096, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        local b = own:borrow(0):put "text"
        for _, n in ipairs { 0, 1, 4, 9 } do
            local part, message = b:split_to(n)
            assert.is_nil(part)
            assert.matches("max_bytes of the pool reached", message)
            assert.equal("text", b:tostring())
        end
        assert.equal(1, own:stats().checked_out)
        b:release()
        own:close()
    end)

    it("refuses what is no size, and the dead", function()
        for _, make in pairs(makers) do
            local b = make "text"
            for _, n in ipairs { -1, 0.5, helper.nan, helper.inf, 2 ^ 63, "1",
                {} } do
                refuses(b, "split_to", "bad argument #1 to 'split_to' (", n)
            end
            refuses(b, "split_to", "number expected, got nil")
            b:release()
            helper.raises(function() b:split_to(1) end,
                "attempt to use a released")
        end
        assert.is_nil(makers.buffer "text":freeze().split_to)
    end)

    it("drops parts that the collector feels", function()
        local b = pool:writer()
        local most = 0
        for k = 1, 40000 do
            b:put "ab":split_to(1)
            if k % 100 == 0 then
                most = math.max(most, pool:stats().bytes_checked_out)
            end
            b:skip(1)
        end
        assert.is_true(most < 80 * 2 ^ 20, most)
        b:release()
    end)
end)

-- What lies past the mark is zero, and release wipes all before it.
local function check_mark(round, b)
    local d = descriptor_of(b, "spec")
    local mark, capacity = tonumber(d.mark), tonumber(d.capacity)
    if capacity - mark > 0 and capacity < 100000 then
        check(round, ffi.string(d.at + mark, capacity - mark),
            helper.zeros(capacity - mark))
    end
    assert.is_true(d.at >= d.base and d.len <= d.capacity)
end

describe("prepend", function()
    -- Steps for a buffer b with the text m; they return the new text.
    local steps = {}
    function steps.put(b, m)
        local text = piece()
        b:put(text)
        return m .. text
    end
    function steps.prepend(b, m)
        local text, r = piece(), random(5)
        local x = r == 1 and makers.buffer(text) or r == 2
            and makers.handle(text) or r == 3 and makers.buffer(text):freeze()
            or text
        assert.equal(b, b:prepend(x))
        if r <= 3 then
            assert.equal(text, x:tostring())
            x:release()
        end
        return text .. m
    end
    function steps.prepend_short(b, m)
        local n = random(0, 9)
        b:prepend(PIECES:sub(1, n))
        return PIECES:sub(1, n) .. m
    end
    function steps.prepend_number(b, m)
        local v = random(-99, 1e6) / 8
        b:prepend(v)
        return v .. m
    end
    function steps.prepend_part(b, m)
        local f = makers.buffer(PIECES:sub(1, 300)):freeze()
        local i, n = random(300), random(0, 99)
        local part = f:slice(i, i + n)
        f:release()
        b:prepend(part)
        part:release()
        return PIECES:sub(i, math.min(i + n, 300)) .. m
    end
    function steps.skip(b, m)
        local n = random(0, #m + 3)
        b:skip(n)
        return m:sub(n + 1)
    end
    function steps.get(b, m)
        local n = random(0, 50)
        check("get", b:get(n), m:sub(1, n))
        return m:sub(n + 1)
    end
    function steps.reset(b)
        b:reset()
        return ""
    end
    function steps.free(b)
        b:free()
        return ""
    end
    function steps.set(b)
        local text = piece()
        b:set(text)
        return text
    end
    function steps.resize(b, m)
        local n = random(0, #m + 99)
        b:resize(n)
        return m:sub(1, n) .. ("\0"):rep(n - #m)
    end
    function steps.ref(b, m)
        local p, n = b:ref()
        if n > 0 then
            p[0], p[n - 1] = m:byte(1), m:byte(-1)
        end
        return m
    end
    -- What is reserved stays so unless the contents move.
    function steps.reserve(b, m)
        local p, n = b:reserve(random(99))
        ffi.fill(p, n, 65)
        local at, base = address(b), descriptor_of(b, "spec").base
        local text = PIECES:sub(1, random(0, 9))
        b:prepend(text)
        if at - #text == address(b) and base == descriptor_of(b, "spec").base
            then
            b:commit(n)
            return text .. m .. ("A"):rep(n)
        end
        helper.raises(function() b:commit(n) end, "exceed the 0 reserved")
        return text .. m
    end
    local names = { "put", "put", "prepend", "prepend", "prepend_short",
        "prepend_short", "prepend_short", "prepend_number", "prepend_part",
        "skip", "get", "get", "reset", "free", "set", "resize", "ref",
        "reserve" }

    it("does what it does to strings", function()
        for round = 1, rounds do
            local b, m = draw_buffer(), ""
            for _ = 1, 30 do
                local name = #m > 3e6 and "reset" or names[random(#names)]
                m = steps[name](b, m)
                check(round .. ", " .. name, b:tostring(), m)
                check_charge(b)
                check_mark(round .. ", " .. name, b)
            end
            b:release()
            if round % 10 == 0 then
                check_pools(round)
            end
        end
        check_pools(rounds)
    end)

    it("moves nothing where bytes were consumed", function()
        for _, make in pairs(makers) do
            local b = make(("a"):rep(100)):skip(20)
            local at, capacity = address(b), b:capacity()
            assert.equal("123456" .. ("a"):rep(80),
                b:prepend "123":prepend "":skip(3):prepend "123456":tostring())
            assert.equal(at - 6, address(b))
            assert.equal(capacity + 6, b:capacity())
            b:release()
        end
    end)

    it("moves nothing where a writer has headroom", function()
        for _, detection in ipairs { "off", "all" } do
            local own = bufpool.new { leak_detection = detection }
            for _, hint in ipairs { 0, 100, 4082, 100000, 2000000 } do
                local b = own:writer(hint, 14)
                assert.equal(0, #b)
                assert.is_true(b:capacity() >= hint)
                b:put(("x"):rep(hint))
                local at = address(b)
                b:prepend "1234567":prepend "1234567"
                assert.equal(at - 14, address(b))
                assert.is_true(b:equals("12345671234567" .. ("x"):rep(hint)))
                check_charge(b)
                b:release()
                b = own:checkout(hint + 14)
                assert.is_true(b:equals(helper.zeros(hint + 14)))
                b:release()
            end
            own:close()
        end
    end)

    it("in small pieces moves each byte a few times", function()
        for _, make in ipairs { "writer", "borrow" } do
            for _, before in ipairs { 0, 1000, 60000 } do
                local b = pool[make](pool, 0):put(("x"):rep(before))
                local moved, at = 0, address(b)
                for k = 1, 100000 do
                    b:prepend "p"
                    if address(b) ~= at - 1 then
                        moved = moved + #b
                    end
                    at = address(b)
                    if k % 7 == 0 then
                        b:put "a"
                    end
                end
                assert.equal(before + 100000 + 14285, #b)
                assert.is_true(moved < 12 * #b, moved / #b)
                b:release()
            end
        end
    end)

    -- Growth asks for no more than it needs there.
    it("moves a few times where max_bytes limits the pool, too", function()
        for _, n in ipairs { 100, 4096, 65536 } do
            local own = bufpool.new { max_bytes = 2 ^ 23, four_kib_count = 0,
                sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
            local b, x = own:writer(), ("x"):rep(n)
            local moved, at, calls = 0, nil, 2 ^ 23 / n / 2
            for _ = 1, calls do
                b:prepend(x)
                if at and address(b) ~= at - n then
                    moved = moved + #b
                end
                at = address(b)
            end
            assert.equal(n * math.floor(calls), #b)
            assert.is_true(moved < 40 * #b, moved / #b)
            assert.equal(0, own:stats().refused_by_max_bytes)
            b:release()
            own:close()
        end
    end)

    it("leaves no more dirty than what it needs", function()
        local b = pool:writer(200000):put "text":prepend "head"
        local d = descriptor_of(b, "spec")
        assert.is_true(helper.address(d.at) - helper.address(d.base)
            + tonumber(d.mark) < 100)
        b:release()
    end)

    it("says so when memory is short, and leaves the buffer", function()
        local own = bufpool.new { max_bytes = 4096, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        for _, make in ipairs { "borrow", "writer" } do
            local b = own[make](own, 0)
            b:put(("t"):rep(4000))
            refuses(b, "prepend", "cannot grow in 'prepend': max_bytes",
                ("h"):rep(97))
            assert.equal(4096, #b:prepend(("h"):rep(96)))
            refuses(b, "prepend", "cannot grow in 'prepend'", "1")
            b:skip(1):prepend "1"
            b:release()
        end
        own:close()
    end)

    it("refuses the buffer itself, what is no data, and the dead", function()
        for _, make in pairs(makers) do
            local b = make "text"
            refuses(b, "prepend", "a buffer cannot be put into itself", b)
            for _, x in ipairs { true, {}, print, 1LL, pool, io.stdout,
                helper.forged "bufpool.buffer", newproxy(true) } do
                refuses(b, "prepend", "bad argument #1 to 'prepend' (", x)
            end
            refuses(b, "prepend", "got nil")
            local other = make "x"
            other:release()
            refuses(b, "prepend", "attempt to use a released", other)
            b:release()
            helper.raises(function() b:prepend "x" end,
                "attempt to use a released")
        end
        assert.is_nil(makers.buffer "text":freeze().prepend)
    end)
end)

describe("the headroom of a writer", function()
    it("is a size", function()
        for _, n in ipairs { -1, 0.5, helper.nan, helper.inf, 2 ^ 63, "1", {},
            true } do
            helper.raises(function() pool:writer(nil, n) end,
                "bad argument #2 to 'writer' (")
        end
        for _, n in ipairs { 2 ^ 62, 2 ^ 63 - 1024, 2 ^ 50 } do
            for _, hint in ipairs { 0, 1, n } do
                local b, message = pool:writer(hint, n)
                assert.is_nil(b)
                assert.equal("string", type(message))
            end
        end
        local b = pool:writer(nil, 5LL)
        assert.equal(4091, b:capacity())
        b:release()
    end)

    it("counts for max_bytes", function()
        local own = bufpool.new { max_bytes = 4096, four_kib_count = 0,
            sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }
        assert.is_nil((own:writer(4000, 97)))
        local b = own:writer(4000, 96)
        assert.equal(4000, b:capacity())
        b:release()
        own:close()
    end)

    it("is memory for the contents once these have been consumed", function()
        local b = pool:writer(0, 100):put "abc":reset()
        assert.equal(4096, b:capacity())
        assert.equal("head", b:prepend "head":tostring())
        b:release()
    end)
end)

describe("lines", function()
    function makers.frozen(text)
        return makers.buffer(text):freeze()
    end
    function makers.slice(text)
        return pool:writer():put("a\nb", text, "\nbehind"):freeze()
            :slice(4, 3 + #text)
    end
    teardown(function()
        makers.frozen, makers.slice = nil, nil
    end)

    local function lines_of(text)
        local lines = {}
        for line, stop in text:gmatch "([^\n]*)(\n?)" do
            if line ~= "" or stop ~= "" then
                lines[#lines + 1] = line
            end
        end
        return lines
    end

    for kind, make in pairs(makers) do
        it("of a " .. kind .. " are those of its text", function()
            for _ = 1, rounds do
                local parts = {}
                for k = 1, random(0, 9) do
                    parts[k] = ({ "\n", "\n", "\r\n", "\0", "line", piece() })
                        [random(6)]
                end
                local text = table.concat(parts)
                local x, lines = make(text), {}
                for line in x:lines() do
                    lines[#lines + 1] = line
                end
                assert.same(lines_of(text), lines)
                x:release()
            end
        end)
    end

    it("are those that io.lines gives", function()
        local name = os.tmpname()
        for _, text in ipairs { "", "\n", "a", "a\n", "a\nb", "\n\na\n\n",
            "\r\n\r\n" } do
            local file = assert(io.open(name, "w"))
            file:write(text)
            file:close()
            local x = pool:writer():put(text)
            local next_line = x:lines()
            for line in io.lines(name) do
                assert.equal(line, next_line())
            end
            assert.is_nil(next_line())
            assert.is_nil(next_line())
            x:release()
        end
        os.remove(name)
    end)

    it("are looked for when they are asked for", function()
        local x = pool:writer():put "one\ntwo\nthr"
        local next_line = x:lines()
        assert.equal("one", next_line())
        x:put "ee\nfour"
        assert.equal("two", next_line())
        assert.equal("three", next_line())
        x:skip(2)
        assert.equal("ur", next_line())
        assert.is_nil(next_line())
        x:put "\nfive"
        assert.equal("", next_line())
        assert.equal("five", next_line())
        x:reset()
        assert.is_nil(next_line())
        x:release()
        helper.raises(function() next_line() end,
            "attempt to use a released buffer")
        helper.raises(function() x:lines() end,
            "attempt to use a released buffer")
    end)
end)

describe("writev", function()
    ffi.cdef "int pipe(int *); int close(int); int fcntl(int, int, ...);"
    local EBADF, EAGAIN = 9, 11
    local F_SETFL, O_NONBLOCK = 4, 2048
    local classes = { "buffer", "handle", "frozen" }
    local make = { buffer = makers.buffer, handle = makers.handle }
    function make.frozen(text)
        return makers.buffer(text):freeze()
    end

    -- A list, its text, and what has to be released.
    local function draw_list(most)
        local list, texts, objects = {}, {}, {}
        for k = 1, random(0, most) do
            local r, text = random(5), piece():sub(1, 3000)
            if r == 1 then
                list[k], texts[k] = k / 8, tostring(k / 8)
            elseif r == 2 then
                list[k], texts[k] = text, text
            elseif r == 3 and k > 1 then
                list[k], texts[k] = list[k - 1], texts[k - 1]
            else
                local x = make[classes[random(3)]](text)
                list[k], texts[k] = x, text
                objects[#objects + 1] = x
            end
        end
        return list, table.concat(texts), objects
    end

    it("writes what the objects have, to a file and to a descriptor", function()
        local fds = ffi.new "int[2]"
        assert(ffi.C.pipe(fds) == 0)
        for round = 1, rounds do
            local list, text, objects = draw_list(20)
            local file = assert(io.tmpfile())
            file:write "before"
            check(round, bufpool.writev(file, list), #text)
            file:write "behind"
            file:seek "set"
            check(round, file:read "*a", "before" .. text .. "behind")
            file:close()
            check(round, bufpool.writev(fds[1], list), #text)
            if text ~= "" then
                local got = pool:writer()
                got:readfrom(fds[0], #text + 1)
                check(round, got:tostring(), text)
                got:release()
            end
            for _, x in ipairs(objects) do
                x:release()
            end
        end
        ffi.C.close(fds[0])
        ffi.C.close(fds[1])
    end)

    it("is one call of the system, which may take less", function()
        local fds = ffi.new "int[2]"
        assert(ffi.C.pipe(fds) == 0)
        ffi.C.fcntl(fds[1], F_SETFL, ffi.new("int", O_NONBLOCK))
        local b = pool:checkout(1000):fill(65)
        local list = {}
        for k = 1, 1024 do
            list[k] = b
        end
        local n = assert(bufpool.writev(fds[1], list))
        assert.is_true(n > 0 and n < 1024000, n)
        local none, message, errno = bufpool.writev(fds[1], list)
        assert.is_nil(none)
        assert.is_string(message)
        assert.equal(EAGAIN, errno)
        list[1025] = ""
        helper.raises(function() bufpool.writev(fds[1], list) end,
            "bad argument #2 to 'writev' (more than 1024 items)")
        b:release()
        ffi.C.close(fds[0])
        ffi.C.close(fds[1])
    end)

    it("says what the system says", function()
        local n, message, errno = bufpool.writev(987654, { "x" })
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EBADF, errno)
        assert.equal(0, bufpool.writev(987654, {}))
        assert.equal(0, bufpool.writev(987654, { "", "" }))
        local file = assert(io.open("/dev/null", "r"))
        assert.is_nil((bufpool.writev(file, { "a", ("x"):rep(100000) })))
        file:close()
        helper.raises(function() bufpool.writev(file, { "a" }) end,
            "bad argument #1 to 'writev' (attempt to use a closed file)")
        helper.raises(function() bufpool.writev("file", { "a" }) end,
            "bad argument #1 to 'writev' (file or descriptor expected")
    end)

    it("refuses what is no list of data, and writes nothing", function()
        local file = assert(io.tmpfile())
        local dead = pool:checkout(1)
        dead:release()
        for what, list in pairs {
            ["table expected, got string"] = "a",
            ["table expected, got buffer"] = pool:writer():put "a",
            ["item 2: string, number, buffer or frozen expected, got table"] =
                { "a", {} },
            ["item 1: string, number, buffer or frozen expected, got userdata"]
                = { io.stdout },
            ["expected, got pool"] = { "a", pool },
        } do
            helper.raises(function() bufpool.writev(file, list) end,
                "bad argument #2 to 'writev' (", what)
        end
        helper.raises(function() bufpool.writev(file, { "a", dead }) end,
            "attempt to use a released buffer")
        helper.raises(function() bufpool.writev(file) end,
            "table expected, got nil")
        assert.equal(0, file:seek "end")
        file:close()
    end)

    -- After each number of instructions a hook moves the memory of a buffer,
    -- as a finalizer may do.
    it("writes what the objects have when it writes", function()
        local compiling = jit.status()
        jit.off()
        jit.flush()
        local file = assert(io.tmpfile())
        local b, other = pool:writer():put(("x"):rep(3000)), nil
        local moved, through, count = true, false, 0
        local function hook()
            debug.sethook()
            moved = not through
            local text = b:tostring()
            b:free()
            other = pool:checkout(4096):fill(0xdd)
            b:put(text)
        end
        while moved do
            moved, through, count = false, false, count + 1
            file:seek "set"
            debug.sethook(hook, "", count)
            local n = bufpool.writev(file, { b, "abc", b })
            through = true
            debug.sethook()
            file:seek "set"
            assert.equal(6003, n)
            assert.equal(b .. "abc" .. b, file:read "*a")
            if other then
                other:release()
                other = nil
            end
        end
        file:close()
        b:release()
        assert.is_true(count > 100, count)
        if compiling then
            jit.on()
        end
    end)
end)
