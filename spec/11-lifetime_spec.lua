-- Who may go first: the pool, its buffers, the Lua state.
local bufpool = require "bufpool"
local helper = require "support.helper"

describe("a pool", function()
    it("may be dropped before its buffers", function()
        local kept = helper.apart(function()
            local pool = bufpool.new()
            return { pool:checkout(8):write(1, "contents"),
                pool:checkout(70000), pool:checkout(2000000) }
        end)
        helper.collect()
        assert.equal("contents", tostring(kept[1]))
        kept[1]:put(("x"):rep(5000)):resize(100000)
        assert.equal("contentsx", kept[1]:sub(1, 9))
        kept[2]:fill(7)
        for i = 1, 3 do
            kept[i]:release()
        end
    end)

    it("gives all memory back when the last buffer comes home", function()
        local function committed()
            helper.collect()
            return bufpool.stats().committed_bytes
        end
        local before = committed()
        local buf = helper.apart(function()
            return bufpool.new():checkout(70000)
        end)
        helper.collect()
        assert.is_true(committed() >= before + 70000)
        buf:release()
        assert.equal(before, committed())
    end)

    it("gives back what is ready as soon as it is closed",
        helper.uncollected(function()
            local before = bufpool.stats().committed_bytes
            local pool = bufpool.new()
            local buf = pool:checkout(8)
            pool:checkout(8):release()
            assert.is_true(bufpool.stats().committed_bytes > before)
            pool:close()
            -- What remains is the memory that the one buffer lies in.
            buf:release()
            assert.equal(before, bufpool.stats().committed_bytes)
        end))

    it("may be closed twice, or raises", function()
        local pool = bufpool.new()
        pool:close()
        local ok, message = pcall(function() pool:close() end)
        assert.is_true(ok or message:find("closed", 1, true) ~= nil)
    end)

    it("lets a released buffer of a closed pool go, not into a cache",
        function()
            local pool = bufpool.new()
            local buf = pool:checkout(8):fill(1)
            pool:close()
            buf:release()
            assert.equal("dead", bufpool.type(buf))
            helper.collect()
        end)

    it("may be made and dropped ten thousand times", function()
        for i = 1, 10000 do
            local pool = bufpool.new {
                four_kib_count = 1, sixty_four_kib_count = 0,
                two_fifty_six_kib_count = 0,
            }
            local buf = pool:checkout(8)
            if i % 2 == 0 then
                buf:release()
            end
            if i % 3 == 0 then
                pool:close()
            end
        end
        helper.collect()
        assert.equal(8, #bufpool.new():checkout(8))
    end)
end)

describe("lua_close", function()
    it("ends well with everything still held, in any order", function()
        helper.child_ok [[
            local bufpool = require "bufpool"
            buf = bufpool.new():checkout(8)
            pool = bufpool.new()
            frozen = pool:checkout(70000):freeze()
            slice = frozen:slice(1, 10)
            late = pool:checkout(8)
            named = bufpool.new { name = "x" }
            held = named:checkout(2000000)
            closed = bufpool.new()
            of_closed = closed:checkout(8)
            closed:close()
            bufpool.default():checkout(8):release()
            local co = coroutine.wrap(function()
                pool:with(8, coroutine.yield)
            end)
            co()
            keep = co
        ]]
    end)

    it("ends well when the pool is finalized before its buffers", function()
        -- Finalizers run in the reverse order of creation: old objects last.
        helper.child_ok [[
            local bufpool = require "bufpool"
            local old = bufpool.new { name = "keeps" }
            for i = 1, 100 do
                _G["buf" .. i] = old:checkout(8)
            end
            for i = 1, 100 do
                local pool = bufpool.new()
                _G["a" .. i] = pool:checkout(8)
                _G["f" .. i] = pool:checkout(8):freeze()
            end
        ]]
    end)

    it("lets finalizers use buffers as it runs", function()
        helper.child_ok [[
            local bufpool = require "bufpool"
            pool = bufpool.new()
            buf = pool:checkout(8)
            for i = 1, 20 do
                local proxy = newproxy(true)
                getmetatable(proxy).__gc = function()
                    pcall(function() buf:write(1, "x") end)
                    pcall(function() return tostring(buf) end)
                    pcall(function() pool:checkout(8):release() end)
                    pcall(function() keep = pool:checkout(8) end)
                    pcall(function() buf:freeze() end)
                end
                _G["proxy" .. i] = proxy
                _G["buf" .. i] = pool:checkout(8)
            end
        ]]
    end)

    it("brings home what the state held", function()
        local pool = bufpool.new { name = "lifetime-spec" }
        local f = pool:writer():put "from the first state":freeze()
        helper.second_state([[
            local pool = require "bufpool".get "lifetime-spec"
            a = pool:checkout(8):fill(1)
            b = pool:checkout(70000):freeze():slice(1, 2)
            c = pool:checkout(2000000)
            d = coroutine.wrap(function() pool:with(8, coroutine.yield) end)
            d()
        ]], function()
            assert.equal(5, pool:stats().checked_out)
        end)
        assert.equal(1, pool:stats().checked_out)
        assert.equal("from the first state", tostring(f))
        f:release()
    end)

    it("of a second state leaves the first one's pools alone", function()
        local name = "lifetime-spec-close"
        local pool = bufpool.new { name = name }
        helper.second_state(([[
            local pool = require "bufpool".get(%q)
            pool:close()
            assert(not pcall(function() pool:checkout(8) end))
        ]]):format(name))
        assert.equal(8, #pool:checkout(8))
        assert.equal("pool", bufpool.type(bufpool.get(name)))
    end)

    it("may follow luaL_newstate two hundred times", function()
        bufpool.new { name = "lifetime-spec-many" }
        for _ = 1, 200 do
            helper.second_state [[
                local bufpool = require "bufpool"
                local pool = bufpool.get "lifetime-spec-many"
                a = pool:checkout(8)
                b = pool:checkout(5000):fill(1):freeze()
                c = bufpool.new { four_kib_count = 1 }:checkout(8)
                pool:checkout(8):release()
            ]]
        end
        assert.equal(0, bufpool.get "lifetime-spec-many":stats().checked_out)
    end)

    it("leaves no memory behind", function()
        local function run()
            helper.second_state [[
                local bufpool = require "bufpool"
                pool = bufpool.new()
                for i = 1, 50 do
                    _G["b" .. i] = pool:checkout(65536):fill(1)
                end
            ]]
            helper.collect()
            return bufpool.stats().committed_bytes
        end
        local first = run()
        for _ = 1, 20 do
            run()
        end
        -- Less is no leak: other pools of this process may have decayed.
        assert.is_true(run() <= first)
    end)

    it("unloads nothing that a thread exit could need", function()
        -- The module is loaded by the second state only, which dlcloses it.
        helper.child_ok [[
            local ffi = require "ffi"
            ffi.cdef "struct lua_State *luaL_newstate(void);"
            ffi.cdef "void luaL_openlibs(struct lua_State *);"
            ffi.cdef "int luaL_loadstring(struct lua_State *, const char *);"
            ffi.cdef "int lua_pcall(struct lua_State *, int, int, int);"
            ffi.cdef "void lua_close(struct lua_State *);"
            local C = ffi.C
            jit.off()
            for _ = 1, 3 do
                local L = C.luaL_newstate()
                C.luaL_openlibs(L)
                local code = ("package.path, package.cpath = %q, %q "):format(
                    package.path, package.cpath)
                    .. "require 'bufpool'.new():checkout(8):release()"
                assert(C.luaL_loadstring(L, code) == 0)
                assert(C.lua_pcall(L, 0, 0, 0) == 0)
                C.lua_close(L)
            end
            local mapped = false
            for line in io.lines "/proc/self/maps" do
                mapped = mapped or line:find("core.so", 1, true) ~= nil
            end
            assert(mapped, "the module was unloaded")
        ]]
    end)
end)
