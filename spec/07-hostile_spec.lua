-- Every method of everything, given what it was not made for. The oracle: the
-- call either works as with a well-formed argument or raises at our line, and
-- what it was called on is as before when it raised.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf

-- Methods by kind, each with arguments that are good for a buffer of four or
-- more bytes; `n` marks which of them are sizes, counts or positions.
local file, sink = io.tmpfile(), io.tmpfile()
file:write(("x"):rep(10000))

local memory = ffi.new "uint8_t[64]"

local methods = {
    pool = {
        checkout = { 8, n = { 1 } },
        checkout_zeroed = { 8, n = { 1 } },
        checkout_aligned = { 8, 64, n = { 1, 2 } },
        try_checkout = { 8, n = { 1 } },
        writer = { 8, 8, n = { 1, 2 } },
        with = { 8, function() end, n = { 1 } },
        stats = {}, trim = {}, close = {},
    },
    buffer = {
        len = {}, capacity = {}, tostring = {},
        sub = { 1, 2, n = { 1, 2 } },
        byte = { 1, 2, n = { 1, 2 } },
        find = { "c", 1, n = { 2 } },
        find_any = { "c", 1, n = { 2 } },
        lines = {},
        write = { 1, "a", n = { 1 } },
        copy = { 1, "abc", 1, 2, n = { 1, 3, 4 } },
        setbyte = { 1, 65, n = { 1 } },
        fill = { 65, 1, 2, n = { 2, 3 } },
        xor = { 1, 2, "k", 1, n = { 1, 2, 4 } },
        wipe = {},
        resize = { 8, n = { 1 } },
        put = { "a" },
        put_range = { "abcd", 1, 2, n = { 2, 3 } },
        prepend = { "abcd" },
        putcdata = { memory, 4, n = { 2 } },
        put_varint = { 1, n = { 1 } }, put_zigzag = { 1, 2, n = { 1, 2 } },
        get_varint = {}, get_zigzag64 = {},
        take = { bufpool.default():checkout(99), 1, n = { 2 } },
        split_to = { 1, n = { 1 } },
        set = { "a" },
        reserve = { 8, n = { 1 } },
        commit = { 0, n = { 1 } },
        get = { 1, n = { 1 } },
        skip = { 1, n = { 1 } },
        reset = {}, ref = {}, free = {},
        readfrom = { file, 2, n = { 2 } },
        readinto = { 1, file, 2, n = { 1, 3 } },
        writeto = { sink, 1, 0, n = { 2, 3 } },
        equals = { "abcd" }, equals_ct = { "abcd" },
        crc32 = { 1, 2, 0, n = { 1, 2 } },
        adler32 = { 1, 2, 1, n = { 1, 2 } },
        freeze = {}, release = {},
    },
    frozen = {
        len = {}, tostring = {},
        sub = { 1, 2, n = { 1, 2 } },
        byte = { 1, 2, n = { 1, 2 } },
        find = { "c", 1, n = { 2 } },
        find_any = { "c", 1, n = { 2 } },
        lines = {},
        equals = { "abcd" }, equals_ct = { "abcd" },
        crc32 = { 1, 2, 0, n = { 1, 2 } },
        adler32 = { 1, 2, 1, n = { 1, 2 } },
        ref = {},
        writeto = { sink, 1, 0, n = { 2, 3 } },
        slice = { 1, 2, n = { 1, 2 } },
        reader = {}, clone = {}, release = {},
    },
}

-- The limit keeps odd sizes from taking what the machine has.
local pool = bufpool.new { max_bytes = 2 ^ 26 }

local make = {
    pool = function() return bufpool.new { max_bytes = 2 ^ 26 } end,
    buffer = function() return pool:writer():put "abcdefgh" end,
    frozen = function() return pool:writer():put "abcdefgh":freeze() end,
}

local function contents(x)
    local kind = bufpool.type(x)
    return (kind == "buffer" or kind == "frozen") and tostring(x) or kind
end

-- Calls from a line of this file, so that "the caller's line" is here.
local function call(method, ...)
    local result = { pcall(function(...)
        local a, b, c = method(...)
        return a, b, c
    end, ...) }
    return unpack(result, 1, 4)
end

local here = debug.getinfo(call, "S")

local function raised_here(message)
    local source = here.short_src:gsub("%p", "%%%0")
    local line = type(message) == "string"
        and tonumber(message:match("^" .. source .. ":(%d+): "))
    return line and line >= here.linedefined and line <= here.lastlinedefined
end

local function wrong_selves()
    local dead, gone = pool:checkout(8), pool:checkout(8):freeze()
    dead:release()
    gone:release()
    local selves = {
        true, false, 0, 1, -1, nan, inf, "", "buffer", "bufpool.buffer", {},
        setmetatable({}, { __metatable = "bufpool.buffer" }),
        setmetatable({}, { __metatable = "bufpool.frozen" }),
        setmetatable({}, { __metatable = "bufpool.pool" }),
        setmetatable({}, { __index = function() return 8 end }),
        print, function() end, io.stdout, file, newproxy(), newproxy(true),
        helper.forged "bufpool.buffer", helper.forged "bufpool.frozen",
        helper.forged "bufpool.pool", helper.forged "FILE*",
        coroutine.create(print), 1LL, 0ULL, ffi.new "uint8_t[64]",
        ffi.new("uint8_t *"), ffi.new("void *"), ffi.cast("void *", 4096),
        ffi.new "double[8]", dead, gone, bufpool,
    }
    return selves
end

describe("a method called on the wrong object raises:", function()
    for kind, list in pairs(methods) do
        for name, args in pairs(list) do
            it(kind .. ":" .. name, function()
                local method = make[kind]()[name]
                assert.equal("function", type(method))
                local selves = wrong_selves()
                for other in pairs(make) do
                    -- Readers may be shared by buffers and frozen objects.
                    if other ~= kind and not methods[other][name] then
                        selves[#selves + 1] = make[other]()
                    end
                end
                for i = 1, #selves do
                    local ok, message = call(method, selves[i], unpack(args))
                    assert.is_false(ok, "self " .. i)
                    assert.is_true(raised_here(message), tostring(message))
                end
                local ok, message = call(method, nil, unpack(args))
                assert.is_false(ok)
                assert.is_true(raised_here(message), tostring(message))
                assert.is_true(message:find("'" .. name .. "'", 1, true)
                    ~= nil, message)
                assert.is_false((call(method)))
            end)
        end
    end

    it("the examples of the manual", function()
        local buf, f = make.buffer(), make.frozen()
        raises(function() buf.byte(io.stdout, 1) end, "'byte'")
        raises(function() pool.checkout("x") end, "'checkout'")
        raises(function() buf.write(f, 1, "x") end, "'write'")
        raises(function() buf.put(pool, "x") end, "'put'")
        raises(function() f.slice(buf, 1, 2) end, "'slice'")
        assert.equal("abcdefgh", tostring(f))
    end)

    it("a method called with a dot", function()
        local buf = make.buffer()
        raises(function() buf.write(1, "x") end, "'write'")
        raises(function() buf.len() end, "'len'")
        raises(function() pool.stats() end, "'stats'")
    end)
end)

describe("forged objects as data raise:", function()
    for _, name in ipairs { "put", "put_range", "prepend", "set", "equals",
        "equals_ct", "find", "find_any" } do
        it("buffer:" .. name, function()
            for _, x in ipairs {
                helper.forged "bufpool.buffer", helper.forged "bufpool.frozen",
                newproxy(true), io.stdout, pool,
            } do
                local buf = make.buffer()
                local ok, message = call(buf[name], buf, x)
                -- put takes what has a __tostring of its own: a file has.
                if not (name == "put" and x == io.stdout) then
                    assert.is_false(ok, name)
                    assert.is_true(raised_here(message), tostring(message))
                    assert.equal("abcdefgh", tostring(buf))
                end
            end
        end)
    end

    it("buffer:write, buffer:copy and buffer:xor", function()
        local buf = make.buffer()
        for _, x in ipairs {
            helper.forged "bufpool.buffer", helper.forged "bufpool.frozen",
            newproxy(true), io.stdout, pool,
        } do
            assert.is_true(raised_here(select(2, call(buf.write, buf, 1, x))))
            assert.is_true(raised_here(select(2, call(buf.copy, buf, 1, x))))
            assert.is_true(raised_here(select(2, call(buf.xor, buf, 1, 2,
                x))))
        end
        assert.equal("abcdefgh", tostring(buf))
    end)

    it("operators", function()
        local f, buf = make.frozen(), make.buffer()
        for _, kind in ipairs { "bufpool.buffer", "bufpool.frozen" } do
            local x = helper.forged(kind)
            assert.is_false(f == x)
            assert.is_false(x == f)
            assert.is_false(pcall(function() return f < x end))
            assert.is_false(pcall(function() return x <= f end))
            assert.is_false(pcall(function() return buf .. x end))
            assert.is_false(pcall(function() return x .. buf end))
        end
    end)
end)

-- Not a size, count or position, whatever the method.
local never = {
    "1", "x", "", {}, true, print, io.stdout, nan, newproxy(true),
    ffi.new "uint8_t[8]", ffi.new("void *"),
    helper.forged "bufpool.buffer",
}

-- May be clamped, truncated or refused, but must not harm.
local odd = {
    inf, -inf, 1e308, -1e308, 2 ^ 31, -2 ^ 31, 2 ^ 32, -2 ^ 32, 2 ^ 53,
    -2 ^ 53, 2 ^ 63, -2 ^ 63, 2 ^ 64, -2 ^ 64, 0.5, -0.5, 1.5, -1.5, 1e-300,
    -1, -8, -9, 0, -0, 9, 1e9,
    -1LL, -0x4000000000000000LL, -0x7fffffffffffffffLL - 1LL,
    0x7fffffffffffffffLL,
    0x7fffffffffffffffULL, 0x8000000000000000ULL, 0xffffffffffffffffULL,
    0xffffffffULL, 0x100000001LL, 9LL, 0LL, 1.5,
}

describe("a size, count or position that is none raises:", function()
    for kind, list in pairs(methods) do
        for name, args in pairs(list) do
            for _, position in ipairs(args.n or {}) do
                it(kind .. ":" .. name .. " #" .. position, function()
                    for i, value in ipairs(never) do
                        local x = make[kind]()
                        local before = contents(x)
                        local given = { unpack(args) }
                        given[position] = value
                        local ok, message = call(x[name], x,
                            unpack(given, 1, #args))
                        assert.is_false(ok, "value " .. i)
                        assert.is_true(raised_here(message),
                            tostring(message))
                        assert.is_truthy(message:find(
                            "bad argument #" .. position .. " to '" .. name
                            .. "'", 1, true), message)
                        assert.equal(before, contents(x))
                    end
                end)
            end
        end
    end
end)

describe("an odd size, count or position does no harm:", function()
    for kind, list in pairs(methods) do
        for name, args in pairs(list) do
            for _, position in ipairs(args.n or {}) do
                it(kind .. ":" .. name .. " #" .. position, function()
                    for i, value in ipairs(odd) do
                        local x = make[kind]()
                        local before = contents(x)
                        local given = { unpack(args) }
                        given[position] = value
                        file:seek "set"
                        local ok, message = call(x[name], x,
                            unpack(given, 1, #args))
                        if not ok then
                            local what = "value " .. i .. ": "
                                .. tostring(message)
                            assert.is_true(raised_here(message), what)
                            assert.is_truthy(
                                message:find("'" .. name .. "'", 1, true),
                                what)
                            assert.equal(before, contents(x))
                        end
                    end
                end)
            end
        end
    end
end)

describe("integers of every type mean the same:", function()
    for kind, list in pairs(methods) do
        for name, args in pairs(list) do
            for _, position in ipairs(args.n or {}) do
                if name ~= "with" then
                    it(kind .. ":" .. name .. " #" .. position, function()
                        local expected
                        for _, cast in ipairs {
                            tonumber,
                            function(n) return ffi.new("int64_t", n) end,
                            function(n) return ffi.new("uint64_t", n) end,
                        } do
                            local x = make[kind]()
                            local given = { unpack(args) }
                            given[position] = cast(given[position])
                            file:seek "set"
                            local ok, result = call(x[name], x, unpack(given))
                            assert.is_true(ok, tostring(result))
                            local now = contents(x)
                            expected = expected or now
                            assert.equal(expected, now)
                        end
                    end)
                end
            end
        end
    end
end)

describe("a metatable", function()
    it("cannot be had, so __gc cannot be called by hand", function()
        for _, construct in pairs(make) do
            local x = construct()
            assert.equal("string", type(getmetatable(x)))
            assert.is_nil(x.__gc)
            assert.is_nil(x.__metatable)
        end
    end)

    it("survives a finalizer that is called by hand, twice", function()
        for kind, construct in pairs(make) do
            local x = construct()
            local meta = debug.getmetatable(x)
            assert.is_true(pcall(meta.__gc, x))
            assert.is_true(pcall(meta.__gc, x))
            for _, wrong in ipairs { 1, "x", {}, io.stdout,
                helper.forged("bufpool." .. kind) } do
                pcall(meta.__gc, wrong)
            end
        end
        helper.collect()
        assert.equal(8, #pool:checkout(8))
    end)

    it("survives objects that are used after their finalizer", function()
        local buf = make.buffer()
        local write = buf.write
        debug.getmetatable(buf).__gc(buf)
        local all = {}
        for i = 1, 100 do
            all[i] = pool:checkout(8)
        end
        assert.is_false(pcall(write, buf, 1, "x"))
        for i = 1, 100 do
            assert.equal(helper.zeros(8), tostring(all[i]))
        end
    end)

    it("survives resurrection by another finalizer", function()
        local kept
        helper.apart(function()
            local proxy = newproxy(true)
            local buf = make.buffer()
            getmetatable(proxy).__gc = function() kept = buf end
        end)
        helper.collect()
        helper.collect()
        assert.is_userdata(kept)
        local ok, text = pcall(tostring, kept)
        -- Still whole, or dead and saying so; never foreign memory.
        if ok and bufpool.type(kept) == "buffer" then
            assert.equal("abcdefgh", text)
        else
            assert.is_false(pcall(function() return kept:byte(1) end))
        end
    end)
end)

describe("a metatable of another kind of ours", function()
    it("makes every method raise", function()
        local text = helper.child_ok [[
            local bufpool = require "bufpool"
            local pool = bufpool.new()
            local make = {
                pool = function() return bufpool.new() end,
                buffer = function() return pool:checkout(64) end,
                frozen = function() return pool:checkout(64):freeze() end,
            }
            local calls, raised = 0, 0
            local function try(fn, ...)
                calls = calls + 1
                if not pcall(fn, ...) then
                    raised = raised + 1
                end
            end
            for is in pairs(make) do
                for looks in pairs(make) do
                    local meta = debug.getmetatable(make[looks]())
                    for name, method in pairs(meta.__index) do
                        local x = make[is]()
                        local own = debug.getmetatable(x)
                        if is ~= looks then
                            debug.setmetatable(x, meta)
                            for _ = 1, 3 do
                                try(method, x, 1, "x", 1)
                                try(method, x)
                            end
                            try(function() return x .. "" end)
                            try(function() return "" .. x end)
                            if looks ~= "pool" then
                                try(function() return #x end)
                                try(function() return tostring(x) end)
                            end
                            try(function() return x < x end)
                            try(pool.writer(pool).put, pool:writer(), x)
                            assert(bufpool.type(x) == nil)
                            debug.setmetatable(x, own)
                        end
                        assert(bufpool.type(x) == is)
                    end
                end
            end
            print(calls > 1000, calls - raised)]]
        assert.equal("true\t0\n", text)
    end)
end)

describe("a payload that is none of ours", function()
    -- LuaJIT casts a file to its FILE pointer, which is NULL once it is closed,
    -- and a string.buffer to its bytes. Lua code alone can give all files a
    -- __metatable.
    for _, jit in ipairs { "", "jit.off()" } do
        it("is not followed where it is NULL " .. jit, function()
            assert.equal("true\n", helper.child_ok(jit .. [[

                local bufpool = require "bufpool"
                local pool = bufpool.new()
                local make = {
                    function() return bufpool.new() end,
                    function() return pool:checkout(64) end,
                    function() return pool:checkout(64):freeze() end,
                }
                local file = io.tmpfile()
                file:close()
                local dressed = { file }
                local ok, buffer = pcall(require, "string.buffer")
                if ok then
                    dressed[2] = buffer.new()
                end
                local calls = 0
                for _, class in pairs(make) do
                    local meta = debug.getmetatable(class())
                    local sentinel = getmetatable(class())
                    debug.getmetatable(file).__metatable = sentinel
                    if dressed[2] then
                        debug.setmetatable(dressed[2],
                            { __metatable = sentinel })
                    end
                    for name, method in pairs(meta.__index) do
                        for _, x in ipairs(dressed) do
                            for _ = 1, 3 do
                                calls = calls + 1
                                pcall(method, x, 1, "x")
                                pcall(method, class(), x)
                                pcall(method, class(), 1, x)
                                assert(bufpool.type(x) == nil)
                            end
                        end
                    end
                end
                print(calls > 200)]]))
        end)
    end

    it("is not taken for a Lua object, whatever its bits", function()
        assert.equal("alive\n", helper.child_ok [[
            jit.off()
            local ffi = require "ffi"
            local bufpool = require "bufpool"
            -- As a double, these bits are a string at an address of no memory.
            local x = bufpool.new():checkout(8)
            x:release()
            debug.setmetatable(x, { __metatable = "bufpool.buffer" })
            ffi.cast("uint64_t *", x)[0] = 0xfffd800000000010ULL
            -- Has many slots, where something of the last call may lie, and
            -- makes the collector look at them.
            local function allocate()
                local a, b, c, d, e, f, g, h, i, j, k, l
                if x == nil then
                    a, b, c, d, e, f = 1, 2, 3, 4, 5, 6
                    g, h, i, j, k, l = 7, 8, 9, 10, 11, 12
                end
                return { {} }, a, b, c, d, e, f, g, h, i, j, k, l
            end
            for n = 1, 100000 do
                assert(bufpool.type(x) == nil)
                allocate()
                if n % 50 == 0 then
                    collectgarbage "step"
                end
            end
            print "alive"]])
    end)
end)

describe("a callback in the middle", function()
    it("of put may release what is being written", function()
        local buf, other = make.buffer(), make.buffer()
        local object = setmetatable({}, { __tostring = function()
            other:release()
            return "x"
        end })
        assert.is_false(pcall(buf.put, buf, object, other))
    end)

    it("of with may close the pool", function()
        local own = bufpool.new()
        local buf = own:with(8, function(b)
            own:close()
            b:write(1, "12345678")
            return b:freeze()
        end)
        assert.equal("12345678", tostring(buf))
    end)
end)
