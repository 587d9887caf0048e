-- pool:scratch(fn, ...): an empty buffer for the time of one call.
local bufpool = require "bufpool"
local helper = require "support.helper"

local raises = helper.raises

describe("scratch", function()
    local pool
    before_each(function()
        pool = bufpool.new()
    end)
    after_each(function()
        assert.equal(0, pool:stats().checked_out)
        pool:close()
    end)

    it("calls fn with an empty buffer and returns its results", function()
        local function fn(out, a, b, ...)
            assert.equal(0, #out)
            assert.is_true(bufpool.type(out) == "handle"
                or bufpool.type(out) == "buffer")
            out:put(a, b)
            return out:tostring(), nil, select("#", ...), nil
        end
        local function count(...)
            return select("#", ...), ...
        end
        local n, text, absent, more = count(pool:scratch(fn, "x", 1, nil, nil))
        assert.equal(4, n)
        assert.equal("x1", text)
        assert.is_nil(absent)
        assert.equal(2, more)
        assert.equal(0, (count(pool:scratch(function() end))))
    end)

    it("leaves nothing out when fn raises a thousand times", function()
        local kept
        local marker = {}
        for i = 1, 1000 do
            local ok, got = pcall(pool.scratch, pool, function(out, v)
                kept = out
                out:put("pack", 1, "some", i, v)
            end, i % 3 == 0 and {} or nil)
            assert.is_false(ok)
            assert.matches("bad argument #5 to 'put'", got)
            assert.equal("dead", bufpool.type(kept))
            local _, object = pcall(pool.scratch, pool, error, 1)
            assert.is_true(bufpool.type(object) == "dead")
            _, object = pcall(pool.scratch, pool, function()
                error(marker)
            end)
            assert.equal(marker, object)
        end
        assert.equal(0, pool:stats().checked_out)
        assert.equal(0, pool:stats().gc_returns)
    end)

    it("calls whatever can be called", function()
        local function answer(self, out, v)
            return self ~= nil and #out, v
        end
        local callables = {
            setmetatable({}, { __call = answer }),
            require("ffi").metatype("struct { int a; }", { __call = answer })(),
        }
        for _, fn in ipairs(callables) do
            assert.same({ 0, 5 }, { pool:scratch(fn, 5) })
            assert.same({ 9, 5 }, { pool:with(9, fn, 5) })
        end
        local count = require("ffi").new "int"
        assert.is_false(pcall(pool.scratch, pool, count))
        assert.is_false(pcall(pool.with, pool, 9, count))
        collectgarbage()
    end)

    -- With the JIT off `out` is a buffer, which the collector brings home.
    it("leaves nothing out wherever the stack overflows", function()
        for slots = 1, 120 do
            pool:set { leak_detection = slots > 60 and "all" or "off" }
            local deep = assert(loadstring(("local pool = ... local function "
                .. "deep() local _%s = 1 return 1, pool:scratch(deep) end "
                .. "return deep"):format((", _"):rep(slots % 60))))(pool)
            local ok, message = pcall(deep)
            assert.is_false(ok)
            assert.matches("stack overflow", message)
        end
        collectgarbage()
        assert.equal(0, pool:stats().checked_out)
    end)

    it("gives each call inside another one a buffer of its own", function()
        local function nested(out, depth)
            out:put("(", depth)
            if depth > 0 then
                if depth % 2 == 0 then
                    pcall(pool.scratch, pool, function(other)
                        other:put("lost", out)
                        error "raised"
                    end)
                end
                out:put(pool:scratch(nested, depth - 1))
            end
            return out:put(")"):tostring()
        end
        assert.equal("(4(3(2(1(0)))))", pool:scratch(nested, 4))
    end)

    it("leaves alone what fn gave away", function()
        local frozen = pool:scratch(function(out)
            return out:put("frozen"):freeze()
        end)
        assert.equal("frozen", frozen:tostring())
        frozen:release()
        local ticket = pool:scratch(function(out)
            return out:put("detached"):detach()
        end)
        bufpool.adopt(ticket):release()
        assert.equal("end", pool:scratch(function(out)
            out:release()
            return "end"
        end))
        assert.is_false((pcall(pool.scratch, pool, function(out)
            out:release()
            error "raised"
        end)))
    end)

    it("gives the next owner zeros", function()
        pcall(pool.scratch, pool, function(out)
            out:put(("SECRET"):rep(600), 1, nil)
        end)
        pool:scratch(function(out) out:put(("SECRET"):rep(600)) end)
        for _ = 1, 3 do
            local heir = pool:checkout(4096)
            assert.is_true(heir:tostring() == ("\0"):rep(4096))
            heir:release()
        end
    end)

    it("returns nil and a message where memory is short", function()
        local small = bufpool.new { classes = { { size = 4096 } },
            max_bytes = 4096 }
        local all = small:checkout(1)
        local called = false
        local out, message = small:scratch(function() called = true end)
        assert.is_nil(out)
        assert.matches("max_bytes of the pool reached", message)
        assert.is_false(called)
        all:release()
    end)

    it("raises for what is no pool and for what cannot be called", function()
        raises(function() pool.scratch({}, print) end,
            "bad self to 'scratch' (pool expected, got table)")
        raises(function() pool:scratch() end,
            "bad argument #1 to 'scratch' (function expected, got nil)")
        raises(function() pool:scratch("f") end,
            "bad argument #1 to 'scratch' (function expected, got string)")
        assert.equal(3, pool:scratch(setmetatable({}, {
            __call = function(_, out, n)
                return #out + n
            end,
        }), 3))
        local closed = bufpool.new()
        closed:close()
        raises(function() closed:scratch(print) end,
            "attempt to use a closed pool")
    end)
end)

describe("a loop of scratch on trace", function()
    if not jit.status() then
        pending "the JIT is off"
        return
    end

    it("is compiled as a whole, with what fn does", function()
        assert.equal("0 0", helper.child_ok [[
            local pool = require("bufpool").new()
            local stitched, aborted = 0, 0
            local function watch(what, trace)
                if what == "stop" then
                    jit.opt.start("hotloop=1000000")
                    local info = require("jit.util").traceinfo(trace)
                    stitched = stitched + (info.linktype == "stitch" and 1 or 0)
                elseif what == "abort" then
                    aborted = aborted + 1
                end
            end
            local function fn(out, a, b)
                out:put(a, b, "x", a, b)
                return out:tostring()
            end
            local function run(n)
                local x = 0
                for i = 0, n do
                    if i > 0 then
                        x = x + #pool:scratch(fn, "a", i)
                    end
                end
                return x
            end
            jit.off()
            run(2)
            jit.on()
            jit.off(watch)
            jit.flush()
            -- As in 19: the loop becomes hot before anything that it calls.
            jit.opt.start("hotloop=1")
            jit.attach(watch, "trace")
            run(1000)
            jit.attach(watch)
            io.write(stitched, " ", aborted)]])
    end)
end)
