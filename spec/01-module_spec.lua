local bufpool = require "bufpool"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf

-- Names are process-wide: each test takes one of its own.
local last_name = 0
local function new_name()
    last_name = last_name + 1
    return "module-spec-" .. last_name
end

describe("the module", function()
    it("has a version", function()
        assert.matches("^%d+%.%d+%.%d+$", bufpool._VERSION)
    end)

    it("is the same after package.loaded was emptied", function()
        local buf = bufpool.new():checkout(8)
        package.loaded["bufpool"] = nil
        local again = require "bufpool"
        assert.equal("buffer", again.type(buf))
        assert.equal("buffer", bufpool.type(again.new():checkout(8)))
        assert.is_true(buf:equals(again.new():checkout(8)))
        buf:release()
    end)

    it("knows the position in front of a message, colons and all", function()
        local without = require("bufpool.check").without_position
        for _, position in ipairs { "", "a.lua:1: ", "/a:1/b.lua:12: ",
            "body_filter_by_lua(nginx.conf:10):1: " } do
            assert.equal("no: 1", without(position .. "no: 1"))
        end
    end)

    it("keeps its inner table to itself", function()
        package.loaded["bufpool.core"] = nil
        local ok, core = pcall(require, "bufpool.core")
        if ok and type(core) == "table" then
            for name, value in pairs(core) do
                assert.is_true(type(value) ~= "table"
                    or rawget(value, "__gc") == nil, tostring(name))
            end
        end
        assert.equal("pool", bufpool.type(bufpool.new()))
    end)
end)

describe("require", function()
    for _, lua in ipairs { "lua5.1", "lua5.2", "lua5.3", "lua5.4" } do
        local _, status = helper.shell("type " .. lua)
        local test = status == 0 and it or function(name)
            pending(name .. " (which is not installed)")
        end
        test("says in one sentence what is missing in " .. lua, function()
            local text = helper.shell(lua .. " -e " .. helper.quote((
                "package.path, package.cpath = %q, %q "
                .. "print(pcall(require, 'bufpool'))"):format(
                package.path, package.cpath)))
            assert.equal(("false\tbufpool needs LuaJIT with its FFI, and this "
                .. "is Lua %s without it\n"):format(lua:match "[%d.]+"), text)
        end)
    end

    for what, code in pairs {
        ["replaced by a flag"] = "debug, package.loaded.debug = 1, true",
        ["missing"] = "debug, package.loaded.debug = nil",
        ["empty"] = "for name in pairs(debug) do debug[name] = nil end",
    } do
        it("does without debug where that is " .. what, function()
            assert.equal("ok\n", helper.child_ok(code .. [[

                local bufpool = require "bufpool"
                local pool = bufpool.new()
                local w = pool:writer():put("ab", 1):put_u16be(0x4142)
                w:put(setmetatable({}, { __tostring = function()
                    return "object"
                end }))
                w:pack(1, ">I2", 0x6364)
                assert(tostring(w) == "cd1ABobject", tostring(w))
                assert(w:unpack(1, ">I2") == 0x6364)
                assert(pool:with(1, setmetatable({}, { __call = function(_, b)
                    return #b
                end })) == 1)
                for _, misuse in ipairs {
                    function() w:write(99, "x") end,
                    function() w:put_u16be({}) end,
                    function() pool:checkout(-1) end,
                } do
                    local ok, message = pcall(misuse)
                    assert(not ok and message:find "bad argument #1", message)
                end
                print "ok"]]))
        end)
    end
end)

describe("tostring of what is dead", function()
    it("says what it was, and how it ended", function()
        local pool = bufpool.new()
        local buf, other, h = pool:checkout(8), pool:checkout(8), pool:borrow(8)
        local frozen, lent = other:freeze(), pool:borrow(8):freeze()
        buf:release()
        frozen:release()
        lent:release()
        h:release()
        pool:close()
        assert.equal("bufpool.buffer: released", tostring(buf))
        assert.equal("bufpool.buffer: frozen", tostring(other))
        assert.equal("bufpool.frozen: released", tostring(frozen))
        assert.equal("bufpool.frozen: released", tostring(lent))
        assert.equal("bufpool.handle: released", tostring(h))
        assert.equal("bufpool.pool: closed", tostring(pool))
        assert.equal("bufpool.buffer: released",
            string.format("%s", buf))
    end)

    it("works when the collector ended it", function()
        local pool, seen = bufpool.new(), nil
        do
            local proxy = newproxy(true)
            local held = { pool:checkout(8), pool:checkout(8):freeze() }
            getmetatable(proxy).__gc = function() seen = held end
        end
        for _ = 1, 3 do
            collectgarbage()
        end
        assert.equal("bufpool.buffer: released", tostring(seen[1]))
        assert.equal("bufpool.frozen: released", tostring(seen[2]))
    end)

    it("is the only use that does not raise", function()
        local pool = bufpool.new()
        local buf, h = pool:checkout(8), pool:borrow(8)
        local method = buf.tostring
        buf:release()
        h:release()
        for _, dead in ipairs { buf, h } do
            helper.raises(function() return dead .. "" end, "released")
            helper.raises(function() return "" .. dead end, "released")
            helper.raises(function() return #dead end, "released")
            helper.raises(function() dead.x = 1 end)
            helper.raises(function() method(dead) end, "released")
            helper.raises(function() pool:writer():put(dead) end, "released")
        end
        helper.raises(function() buf:tostring() end, "released")
        helper.raises(function() return buf < buf end, "released")
    end)
end)

describe("bufpool.type", function()
    it("names each kind", function()
        local pool = bufpool.new()
        local buf = pool:checkout(8)
        assert.equal("pool", bufpool.type(pool))
        assert.equal("buffer", bufpool.type(buf))
        assert.equal("frozen", bufpool.type(buf:freeze()))
    end)

    -- getmetatable of a file is nil to the compiler of older LuaJITs.
    it("knows in compiled code what is not ours", function()
        for _, x in ipairs { io.stdout, newproxy(true), newproxy(), {}, 1 } do
            for _ = 1, 1000 do
                assert(bufpool.type(x) == nil)
            end
        end
    end)

    it("says dead for what was released, frozen away or let go", function()
        local pool = bufpool.new()
        local buf, other = pool:checkout(8), pool:checkout(8)
        local frozen = other:freeze()
        buf:release()
        frozen:release()
        assert.equal("dead", bufpool.type(buf))
        assert.equal("dead", bufpool.type(other))
        assert.equal("dead", bufpool.type(frozen))
    end)

    it("gives nil for everything else and never raises", function()
        local things = {
            true, false, 0, nan, "bufpool.buffer", {}, print, io.stdout,
            newproxy(), newproxy(true), coroutine.create(print), 1LL,
            helper.forged "bufpool.buffer", helper.forged "bufpool.pool",
            helper.forged "bufpool.frozen", bufpool,
            setmetatable({}, { __metatable = "bufpool.buffer" }),
        }
        for i = 1, #things do
            assert.is_nil(bufpool.type(things[i]), tostring(i))
        end
        assert.is_nil(bufpool.type(nil))
        assert.is_nil(bufpool.type())
    end)
end)

describe("objects", function()
    local pool, buf, frozen
    before_each(function()
        pool = bufpool.new()
        buf = pool:checkout(4)
        frozen = pool:checkout(4):freeze()
    end)

    it("hide their metatables behind their kinds", function()
        assert.equal("bufpool.pool", getmetatable(pool))
        assert.equal("bufpool.buffer", getmetatable(buf))
        assert.equal("bufpool.frozen", getmetatable(frozen))
        assert.is_false(pcall(setmetatable, buf, {}))
    end)

    it("are table keys by identity", function()
        local twin = frozen:clone()
        local t = { [pool] = 1, [buf] = 2, [frozen] = 3, [twin] = 4 }
        assert.same({ 1, 2, 3, 4 }, { t[pool], t[buf], t[frozen], t[twin] })
        assert.is_true(frozen == twin)
    end)

    it("raise on x[i]", function()
        raises(function() return buf[1] end)
        raises(function() return frozen[1] end)
        raises(function() return pool[1] end)
    end)

    it("raise on pairs, ipairs and next", function()
        for _, x in ipairs { pool, buf, frozen } do
            assert.is_false(pcall(function() for _ in pairs(x) do end end))
            assert.is_false(pcall(function() for _ in ipairs(x) do end end))
            assert.is_false(pcall(next, x))
        end
    end)

    it("raise on assignment", function()
        raises(function() buf[1] = 65 end)
        raises(function() buf.x = 65 end)
        raises(function() frozen[1] = 65 end)
        raises(function() pool.x = 65 end)
    end)

    it("have no method that was not asked for by its name", function()
        assert.is_nil(buf.no_such_method)
        assert.is_nil(frozen.write)
        assert.is_nil(pool.write)
        assert.is_nil(buf.__gc)
    end)

    it("raise on < unless both are frozen", function()
        assert.is_false(pcall(function() return buf < frozen end))
        assert.is_false(pcall(function() return frozen < buf end))
        assert.is_false(pcall(function() return frozen <= "x" end))
        assert.is_false(pcall(function() return buf < buf end))
        assert.is_false(pcall(function() return pool < pool end))
    end)
end)

describe("bufpool.default", function()
    it("is one pool, whoever asks", function()
        local a, b = bufpool.default(), bufpool.default()
        local before = a:stats().checked_out
        local buf = b:checkout(8)
        assert.equal(before + 1, a:stats().checked_out)
        assert.equal(before + 1, bufpool.get "default":stats().checked_out)
        buf:release()
    end)

    it("can be configured before its first use", function()
        assert.equal("7\n", helper.child_ok [[
            local bufpool = require "bufpool"
            bufpool.new { name = "default", four_kib_count = 7 }
            print(bufpool.default():stats().classes[1].ready)
        ]])
    end)

    it("cannot be configured differently after it", function()
        assert.equal("false\n", helper.child_ok [[
            local bufpool = require "bufpool"
            bufpool.default()
            print((pcall(bufpool.new,
                { name = "default", four_kib_count = 7 })))
        ]])
    end)
end)

describe("where code may not be dumped", function()
    -- fastest.lua copies methods so; then all classes share them.
    for what, forbid in pairs {
        ["raises"] = "string.dump = function() error 'forbidden' end",
        ["gives nothing"] = "string.dump = function() end",
        ["is gone"] = "string.dump = nil",
        ["gives what is no code"] = "string.dump = function() return 'x' end",
    } do
        it("as string.dump " .. what .. ", handles have methods", function()
            assert.equal("abcd 3\n", helper.child_ok(forbid .. [[

                local bufpool = require "bufpool"
                local pool = bufpool.new()
                local h = pool:borrow(0):put("ab"):put_u8(99, 100)
                print(h:tostring() .. " " .. h:freeze():find("cd", 1, true))
            ]]))
        end)
    end
end)

describe("a named pool", function()
    it("is found by its name", function()
        local name = new_name()
        assert.is_nil((bufpool.get(name)))
        local pool = bufpool.new { name = name }
        local buf = bufpool.get(name):checkout(8)
        assert.equal(1, pool:stats().checked_out)
        buf:release()
    end)

    it("opens again with an equal configuration", function()
        local config = { name = new_name(), four_kib_count = 3 }
        local a, b = bufpool.new(config), bufpool.new(config)
        local buf = a:checkout(8)
        assert.equal(1, b:stats().checked_out)
        buf:release()
    end)

    it("is equal when a default is spelled out", function()
        local name = new_name()
        bufpool.new { name = name }
        assert.equal("pool", bufpool.type(bufpool.new {
            name = name, four_kib_count = 64, one_mib_count = 0,
        }))
    end)

    it("raises naming the first key that differs", function()
        local name = new_name()
        bufpool.new { name = name, sixty_four_kib_count = 3 }
        raises(function()
            bufpool.new { name = name, sixty_four_kib_count = 4 }
        end, "sixty_four_kib_count", name)
        raises(function()
            bufpool.new {
                name = name, sixty_four_kib_count = 3, max_bytes = 2 ^ 30
            }
        end, "max_bytes")
        raises(function()
            bufpool.new {
                name = name, sixty_four_kib_count = 3, hardened = true
            }
        end, "hardened")
    end)

    it("stays when its handle is collected", function()
        local name = new_name()
        bufpool.new { name = name, four_kib_count = 5 }
        helper.collect()
        assert.equal(5, bufpool.get(name):stats().classes[1].ready)
    end)

    it("ends when every handle is closed", function()
        local name = new_name()
        local a = bufpool.new { name = name }
        local b = bufpool.get(name)
        a:close()
        assert.equal(8, #b:checkout(8))
        b:close()
        assert.is_nil((bufpool.get(name)))
        assert.equal("pool", bufpool.type(
            bufpool.new { name = name, four_kib_count = 1 }))
    end)

    it("is the same pool in another Lua state", function()
        local name = new_name()
        local pool = bufpool.new { name = name, four_kib_count = 9 }
        helper.second_state(([[
            local bufpool = require "bufpool"
            kept = assert(bufpool.get(%q)):checkout(8)
        ]]):format(name), function()
            assert.equal(1, pool:stats().checked_out)
        end)
        assert.equal(0, pool:stats().checked_out)
    end)
end)

describe("a closed pool", function()
    local pool, held
    before_each(function()
        pool = bufpool.new()
        held = pool:checkout(8)
        held:write(1, "still me")
        pool:close()
    end)

    it("raises on every kind of checkout", function()
        raises(function() pool:checkout(1) end, "closed")
        raises(function() pool:checkout_zeroed(1) end, "closed")
        raises(function() pool:checkout_aligned(1, 64) end, "closed")
        raises(function() pool:try_checkout(1) end, "closed")
        raises(function() pool:writer() end, "closed")
        raises(function() pool:with(1, print) end, "closed")
    end)

    it("leaves valid what is out", function()
        assert.equal("still me", tostring(held))
        held:write(1, "S")
        held:put " and more"
        assert.equal("Still me and more", held:freeze():tostring())
    end)
end)

describe("bufpool.new", function()
    it("takes no configuration, or an empty one", function()
        assert.equal("pool", bufpool.type(bufpool.new()))
        assert.equal("pool", bufpool.type(bufpool.new {}))
        assert.equal("pool", bufpool.type(bufpool.new(nil)))
    end)

    it("has the documented counts ready by default", function()
        local ready, size = {}, {}
        for i, class in ipairs(bufpool.new():stats().classes) do
            ready[i], size[i] = class.ready + class.cached, class.size
        end
        assert.same({ 64, 8, 2, 0 }, ready)
        assert.same({ 4096, 65536, 262144, 1048576 }, size)
    end)

    it("has the configured counts ready", function()
        local ready = {}
        for i, class in ipairs(bufpool.new {
            four_kib_count = 1, sixty_four_kib_count = 2,
            two_fifty_six_kib_count = 3, one_mib_count = 4LL,
        }:stats().classes) do
            ready[i] = class.ready + class.cached
        end
        assert.same({ 1, 2, 3, 4 }, ready)
    end)

    it("leaves the table it is given alone", function()
        local config = { four_kib_count = 2 }
        bufpool.new(config)
        assert.same({ four_kib_count = 2 }, config)
    end)

    it("raises on an unknown key and suggests the near one", function()
        raises(function()
            bufpool.new { four_kib_cuont = 1 }
        end, "'new'", "four_kib_cuont", "four_kib_count")
        raises(function()
            bufpool.new { maxbytes = 1 }
        end, "maxbytes", "max_bytes")
        raises(function()
            bufpool.new { numa_nod = 1 }
        end, "numa_nod", "numa_node")
        raises(function() bufpool.new { nmae = "x" } end, "nmae", "name")
    end)

    it("suggests nothing where nothing is near", function()
        local message = raises(function()
            bufpool.new { zebra = 1 }
        end, "zebra")
        assert.is_nil(message:find("count", 1, true))
    end)

    it("raises on keys that are no strings", function()
        raises(function() bufpool.new { 64 } end, "'new'")
        raises(function() bufpool.new { [true] = 1 } end, "'new'")
        raises(function() bufpool.new { [{}] = 1 } end, "'new'")
    end)

    it("raises on a configuration that is no table", function()
        for _, x in ipairs { 1, "x", true, print, io.stdout } do
            raises(function() bufpool.new(x) end, "'new'", "table expected")
        end
    end)

    it("raises on counts and limits that are none, naming the key", function()
        local keys = {
            "four_kib_count", "sixty_four_kib_count",
            "two_fifty_six_kib_count", "one_mib_count", "max_bytes",
        }
        local values = {
            -1, 0.5, nan, inf, -inf, 1e300, "1", true, {}, print, -1LL,
            0xffffffffffffffffULL, io.stdout,
        }
        for _, key in ipairs(keys) do
            for _, value in ipairs(values) do
                raises(function() bufpool.new { [key] = value } end,
                    "'new'", key)
            end
        end
    end)

    it("raises on nodes that are none, naming the key", function()
        for _, value in ipairs { -1, 0.5, nan, inf, -inf, "1", true, {} } do
            raises(function() bufpool.new { numa_node = value } end,
                "'new'", "numa_node")
        end
    end)

    it("raises on names that are none, naming the key", function()
        for _, value in ipairs { 1, true, {}, print, ("x"):rep(1000), "" } do
            raises(function() bufpool.new { name = value } end,
                "'new'", "name")
        end
    end)

    it("raises on what hardened cannot be", function()
        for _, value in ipairs { 1, {}, print, "all", "", 0 / 0 } do
            raises(function() bufpool.new { hardened = value } end,
                "'new'", "hardened", "boolean or 'sampled'")
        end
    end)

    it("returns nil and a message when max_bytes is below the counts",
        function()
            local pool, message = bufpool.new { max_bytes = 4096 }
            assert.is_nil(pool)
            assert.matches("max_bytes", message)
        end)
end)

describe("bufpool.get", function()
    it("raises on names that are no strings", function()
        for _, x in ipairs { true, {}, print, io.stdout } do
            raises(function() bufpool.get(x) end, "#1", "'get'")
        end
        raises(function() bufpool.get() end, "#1", "'get'")
    end)

    it("gives nil for names that no pool can have", function()
        assert.is_nil((bufpool.get(("x"):rep(10000))))
        assert.is_nil((bufpool.get ""))
        assert.is_nil((bufpool.get "default\0"))
    end)
end)
