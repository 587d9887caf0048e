-- Every byte of every free buffer is zero, whatever was done to it before.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"
local memory = require "support.memory"

local C = ffi.C
local classes = helper.classes
local N = memory.needle_size

ffi.cdef "int pipe(int *); ssize_t write(int, const void *, size_t);"

-- Checks buffers of n bytes out until the one at this address comes, and
-- insists that all of its memory is zero.
local function comes_back_zero(pool, n, address)
    local held = {}
    for i = 1, 300 do
        local buf = assert(pool:checkout(n))
        held[i] = buf
        -- Growing to the capacity shows all memory: it has not been written,
        -- so nothing is zeroed on the way.
        buf:resize(buf:capacity())
        local text = tostring(buf)
        assert.equal(helper.zeros(#text), text)
        if helper.address((buf:ref())) == address then
            for _, b in ipairs(held) do
                b:release()
            end
            return
        end
    end
    error("the memory did not come back", 2)
end

describe("a recycled buffer is zero after", function()
    local pool
    before_each(function()
        pool = bufpool.new { one_mib_count = 1 }
    end)

    -- Runs dirty(buf) on a buffer of each class, has it released by end_it
    -- (buf:release() by default), and looks at the memory again.
    local function in_each_class(dirty, end_it)
        for _, size in ipairs(classes) do
            local address
            helper.apart(function()
                local buf = pool:checkout(size)
                address = helper.address((buf:ref()))
                buf:release()
                -- The same again, without the raw pointer that we took.
                buf = pool:checkout(size)
                local x = dirty(buf, size) or buf
                if end_it then
                    end_it(x)
                else
                    x:release()
                end
            end)
            if end_it then
                helper.collect()
            end
            comes_back_zero(pool, size, address)
        end
    end

    local nothing = function() end

    it("partial writes", function()
        in_each_class(function(buf, n)
            buf:write(1, "x")
            buf:write(n / 2, "yy")
            buf:setbyte(n / 4, 1, 2, 3)
        end)
        in_each_class(function(buf) buf:setbyte(-1, 255) end)
        in_each_class(function(buf) buf:write(-3, "end") end)
        in_each_class(function(buf) buf:write(1, "start") end)
    end)

    it("full writes", function()
        in_each_class(function(buf) buf:fill(255) end)
        in_each_class(function(buf) buf:xor(1, -1, "key") end)
        in_each_class(function(buf, n) buf:write(1, ("x"):rep(n)) end)
        in_each_class(function(buf, n) buf:set(("x"):rep(n)) end)
    end)

    it("writes through ref", function()
        in_each_class(function(buf, n)
            local p = buf:ref()
            p[0], p[n / 2], p[n - 1] = 1, 2, 3
        end)
    end)

    it("writes through a ref that was taken before growing", function()
        in_each_class(function(buf, n)
            buf:resize(1)
            local p = buf:ref()
            buf:resize(n)
            p[n - 1] = 1
        end)
    end)

    it("writes through reserve, committed or not", function()
        in_each_class(function(buf, n)
            buf:reset()
            local p = buf:reserve(n)
            p[0], p[n - 1] = 1, 2
        end)
        in_each_class(function(buf, n)
            buf:reset()
            local p = buf:reserve(n)
            p[0], p[n - 1] = 1, 2
            buf:commit(10)
        end)
    end)

    it("put, putcdata and copy", function()
        in_each_class(function(buf, n)
            buf:reset():put(("x"):rep(n - 1), 7)
        end)
        in_each_class(function(buf, n)
            local bytes = ffi.new("uint8_t[?]", n)
            ffi.fill(bytes, n, 7)
            buf:reset():putcdata(bytes, n)
        end)
        in_each_class(function(buf, n)
            buf:write(1, "x")
            buf:copy(n, buf, 1, 1)
        end)
    end)

    it("reset, skip, get, set, resize to less", function()
        in_each_class(function(buf) buf:fill(1):reset() end)
        in_each_class(function(buf, n) buf:fill(1):skip(n) end)
        in_each_class(function(buf, n) buf:fill(1):skip(n - 1) end)
        in_each_class(function(buf, n) buf:fill(1):get(n / 2) end)
        in_each_class(function(buf) buf:fill(1):get() end)
        in_each_class(function(buf) buf:fill(1):set "short" end)
        in_each_class(function(buf) buf:fill(1):resize(0) end)
        in_each_class(function(buf, n)
            buf:fill(1):skip(n / 2)
            buf:put(("y"):rep(n / 4)):skip(n / 4)
        end)
    end)

    it("wipe and free", function()
        in_each_class(function(buf) buf:fill(1):wipe() end)
        in_each_class(function(buf) buf:fill(1):free() end)
    end)

    it("growth out of it", function()
        in_each_class(function(buf, n) buf:fill(1):resize(n + 1) end)
        in_each_class(function(buf, n) buf:fill(1):put(("x"):rep(n)) end)
        in_each_class(function(buf, n) buf:fill(1):reserve(n * 5) end)
    end)

    it("reads into it", function()
        local file = io.tmpfile()
        file:write(("x"):rep(2 * 1048576))
        in_each_class(function(buf)
            file:seek "set"
            buf:readinto(1, file)
        end)
        in_each_class(function(buf, n)
            file:seek "set"
            buf:reset():readfrom(file, n)
        end)
        file:close()
    end)

    it("being frozen, cloned and sliced", function()
        in_each_class(function(buf)
            return buf:fill(1):freeze()
        end)
        in_each_class(function(buf)
            local f = buf:fill(1):freeze()
            local s = f:slice(2, 3)
            f:release()
            return s
        end)
    end)

    it("the collector returned it", function()
        in_each_class(function(buf) buf:fill(1) end, nothing)
        in_each_class(function(buf) return buf:fill(1):freeze() end, nothing)
    end)

    it("with, left by an error", function()
        for _, size in ipairs(classes) do
            local address
            pcall(pool.with, pool, size, function(buf)
                address = helper.address((buf:ref()))
                buf:fill(1)
                error "out of here"
            end)
            comes_back_zero(pool, size, address)
        end
    end)

    it("trim", function()
        local held = {}
        for i = 1, 100 do
            held[i] = pool:checkout(4096):fill(1)
        end
        for i = 1, 100 do
            held[i]:release()
        end
        pool:trim()
        for i = 1, 100 do
            held[i] = pool:checkout(4096)
            assert.equal(helper.zeros(4096), tostring(held[i]))
        end
    end)

    it("exact sizes", function()
        for _ = 1, 3 do
            local buf = pool:checkout(1500000)
            assert.equal(helper.zeros(1500000), tostring(buf))
            buf:fill(1)
            buf:release()
        end
    end)
end)

describe("growth inside a buffer shows zeros", function()
    it("after it shrank", function()
        local buf = bufpool.new():checkout(4096):fill(1)
        buf:resize(10)
        buf:resize(4096)
        assert.equal(("\1"):rep(10) .. helper.zeros(4086), tostring(buf))
    end)

    it("after reserve was written past what was committed", function()
        local w = bufpool.new():writer()
        local p = w:reserve(100)
        ffi.fill(p, 100, 1)
        w:commit(10)
        w:resize(100)
        assert.equal(("\1"):rep(10) .. helper.zeros(90), tostring(w))
    end)

    it("after a short read", function()
        local file = io.tmpfile()
        file:write "0123456789"
        file:seek "set"
        local w = bufpool.new():writer()
        assert.equal(10, w:readfrom(file, 1000))
        w:resize(1000)
        assert.equal("0123456789" .. helper.zeros(990), tostring(w))
        file:close()
    end)
end)

-- By what the name of a test says of the pool: its settings.
local KINDS = {
    [""] = {},
    [" of a hardened pool"] = { hardened = true },
    [" of a sampled pool"] = { hardened = "sampled", leak_sample = 2 },
}

-- No copy of a secret is anywhere once the pool has the secret back. Not under
-- ASan: the search reads all memory, and takes minutes over ASan's shadow.
for kind, config in pairs(KINDS) do
    local function new(name)
        config.name, config.one_mib_count = name, 1
        return bufpool.new(config)
    end

    describe("no copy of a secret is left" .. kind .. " after #noasan",
        function()
        local pool, needle

        local function plant(buf, i)
            for k = 0, N - 1 do
                buf:setbyte((i or 1) + k, needle[k])
            end
            return buf
        end

        -- Runs the way in a coroutine, so that its locals die. It takes a
        -- function to call where the secret must be found, which shows that the
        -- search works.
        local function hunt(way, collect)
            local control = 0
            helper.apart(function()
                way(function()
                    control = memory.copies()
                end)
            end)
            if collect then
                helper.collect()
            end
            assert.is_true(control > 0, "the search finds nothing")
            assert.equal(0, (memory.copies()))
        end

        before_each(function()
            pool = new()
            needle = memory.new_needle()
        end)

        it("nothing was done with it", function()
            local found, searched = memory.copies()
            assert.equal(0, found)
            assert.is_true(searched > 100000)
        end)

        for _, n in ipairs { 4096, 65536, 262144, 1048576, 1500000 } do
            it("release of a buffer of " .. n, function()
                hunt(function(control)
                    local buf = plant(pool:checkout(n))
                    plant(buf, n / 2)
                    plant(buf, n - N + 1)
                    control()
                    buf:release()
                end)
            end)

            it("the collector took a buffer of " .. n, function()
                hunt(function(control)
                    local buf = plant(pool:checkout(n), n - N + 1)
                    control()
                    return buf
                end, true)
            end)

            it("growth out of " .. n .. " bytes, and release", function()
                hunt(function(control)
                    local buf = plant(pool:checkout(n), n - N + 1)
                    buf:resize(n + 1)
                    plant(buf, n - N)
                    control()
                    buf:release()
                end)
            end)
        end

        it("writes through ref", function()
            hunt(function(control)
                local buf = pool:checkout(4096)
                ffi.copy(buf:ref() + 4000, needle, N)
                control()
                buf:release()
            end)
        end)

        it("writes through reserve without commit", function()
            hunt(function(control)
                local w = pool:writer()
                ffi.copy(w:reserve(N), needle, N)
                control()
                w:release()
            end)
        end)

        it("putcdata, set and reset", function()
            hunt(function(control)
                local w = pool:writer():putcdata(needle, N)
                w:set(needle, N)
                w:reset()
                control()
                w:release()
            end)
        end)

        it("copies from buffer to buffer", function()
            hunt(function(control)
                local a = pool:writer():putcdata(needle, N)
                local b = pool:checkout(N):write(1, a)
                local c = pool:checkout(100):copy(50, b)
                local d = pool:writer():put(a, b, c)
                control()
                a:release() b:release() c:release() d:release()
            end)
        end)

        it("skip and shrinking", function()
            hunt(function(control)
                local w = pool:writer():putcdata(needle, N):putcdata(needle, N)
                w:skip(N)
                w:resize(1)
                control()
                w:release()
            end)
        end)

        it("wipe", function()
            local buf = pool:checkout(N)
            hunt(function(control)
                plant(buf)
                control()
                buf:wipe()
            end)
            buf:release()
        end)

        it("free", function()
            local buf = pool:checkout(N)
            hunt(function(control)
                plant(buf)
                control()
                buf:free()
            end)
            buf:release()
        end)

        it("release of a frozen object and its slices", function()
            hunt(function(control)
                local f = plant(pool:checkout(4096), 100):freeze()
                local s = f:slice(100, 100 + N)
                f:release()
                control()
                s:release()
            end)
        end)

        it("the collector took a frozen object", function()
            hunt(function(control)
                local f = plant(pool:checkout(4096), 100):freeze():slice(90)
                control()
                return f
            end, true)
        end)

        it("comparing it, also in constant time", function()
            hunt(function(control)
                local a, b = plant(pool:checkout(N)), plant(pool:checkout(N))
                assert(a:equals(b) and a:equals_ct(b))
                assert(a:find(b, 1, true) == 1)
                control()
                a:release() b:release()
            end)
        end)

        it("masking by it, and masking it", function()
            hunt(function(control)
                local key, out = plant(pool:checkout(N)), pool:checkout(5000)
                out:xor(1, -1, key)
                control()
                -- At once, before other calls overwrite what is on the stack.
                out:wipe() key:wipe()
                assert.equal(0, (memory.copies()))
                plant(key:resize(N))
                out:resize(5000)
                out:xor(1, -1, key):xor(3, -1, "short key")
                key:release() out:release()
            end)
        end)

        it("reading it from a descriptor", function()
            hunt(function(control)
                local fds = ffi.new "int[2]"
                assert(C.pipe(fds) == 0)
                assert(C.write(fds[1], needle, N) == N)
                assert(C.write(fds[1], needle, N) == N)
                local w = pool:writer()
                assert(w:readfrom(fds[0], N) == N)
                local buf = pool:checkout(100)
                assert(buf:readinto(50, fds[0]) == N)
                control()
                w:release()
                buf:release()
                C.close(fds[0])
                C.close(fds[1])
            end)
        end)

        it("trim", function()
            hunt(function(control)
                local held = {}
                for i = 1, 100 do
                    held[i] = plant(pool:checkout(4096))
                end
                control()
                for i = 1, 100 do
                    held[i]:release()
                end
                pool:trim()
            end)
        end)

        it("close of the pool, before and after release", function()
            hunt(function(control)
                local own = new()
                local a, b = plant(own:checkout(N)), plant(own:checkout(N))
                a:release()
                control()
                own:close()
                b:release()
            end)
        end)

        it("an error left with", function()
            hunt(function(control)
                pcall(pool.with, pool, N, function(buf)
                    plant(buf)
                    control()
                    error "out of here"
                end)
            end)
        end)

        it("lua_close of a state that held it", function()
            -- Named, so that its memory stays when the state is gone.
            local name = "zero-spec-close" .. kind
            new(name)
            hunt(function(control)
                helper.second_state(([[
                    local ffi = require "ffi"
                    local pool = require "bufpool".get(%q)
                    local needle, n = ffi.cast("uint8_t *", %.0f), %d
                    held = {}
                    for i = 1, 10 do
                        held[i] = pool:writer():putcdata(needle, n)
                    end
                    frozen = pool:writer():putcdata(needle, n):freeze()
                ]]):format(name, helper.address(needle), N), control)
            end)
            assert.equal(0, bufpool.get(name):stats().checked_out)
        end)

        it("nobody let go of it: then it is found", function()
            local buf = plant(pool:checkout(N))
            assert.is_true(memory.copies() > 0)
            buf:release()
            assert.equal(0, (memory.copies()))
        end)
    end)
end
