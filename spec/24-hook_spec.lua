-- A hook of debug.sethook may run between any two instructions of a method that
-- is written in Lua. Sandboxes raise an error there when time is up. Whatever
-- the method was doing, the buffer is then still whole: it has old and new
-- bytes, releases what it has, and nothing of it reaches the next owner.
local bufpool = require "bufpool"
local helper = require "support.helper"

local SIZE, OLD, NEW = 64, "o", "N"
local old = OLD:rep(SIZE)
local zeros = ("\0"):rep(4096)

-- Each writes nothing but NEW.
local word = 0x4e4e4e4e
local operations = {
    write = function(b) b:write(1, NEW:rep(12)) end,
    write_object = function(b, other) b:write(1, other) end,
    setbyte = function(b) b:setbyte(1, 0x4e) end,
    setbyte_several = function(b) b:setbyte(1, 0x4e, 0x4e, 0x4e) end,
    fill = function(b) b:fill(0x4e) end,
    copy = function(b, other) b:copy(1, other) end,
    put = function(b) b:put(NEW) end,
    put_several = function(b) b:put(NEW, NEW, NEW) end,
    put_many = function(b) b:put(NEW, NEW, NEW, NEW, NEW, NEW) end,
    put_object = function(b, other) b:put(other) end,
    put_beyond = function(b) b:put(NEW:rep(5000)) end,
    putf = function(b) b:putf("%s", NEW) end,
    set = function(b) b:set(NEW:rep(12)) end,
    reserve = function(b) b:reserve(8) b:commit(0) end,
    get = function(b) b:get(1) end,
    skip = function(b) b:skip(3) end,
    resize = function(b) b:resize(SIZE / 2) b:put(NEW:rep(SIZE / 2)) end,
    wipe = function(b) b:wipe() b:put(NEW) end,
    free = function(b) b:free() b:put(NEW) end,
    set_u24be = function(b) b:set_u24be(1, 0x4e4e4e) end,
    set_u32le = function(b) b:set_u32le(1, word) end,
    put_u32le = function(b) b:put_u32le(word, word, word) end,
    put_u64be = function(b) b:put_u64be(0x4e4e4e4e4e4e4e4eULL) end,
    get_u16le = function(b) b:get_u16le() end,
    pack = function(b) b:pack(1, ">I4I2c3", word, 0x4e4e, NEW:rep(3)) end,
    readinto = function(b, _, file) b:readinto(1, file, 8) end,
    readfrom = function(b, _, file) b:readfrom(file, 8) end,
}

-- Runs fn with a hook that calls `act` after so many instructions. True when
-- the hook came before fn was through.
local function hooked(count, act, fn, ...)
    local done, through = false, false
    local function hook()
        debug.sethook()
        done = not through
        act()
    end
    local ok, err = pcall(function(...)
        debug.sethook(hook, "", count)
        fn(...)
        through = true
        debug.sethook()
    end, ...)
    debug.sethook()
    if not ok then
        assert.equal("time is up", err)
    end
    return done
end

describe("an error of a hook in the middle of", function()
    local pool, other, file
    local compiling = jit.status()

    setup(function()
        jit.off()
        pool = bufpool.new()
        other = pool:checkout(12):fill(NEW:byte())
        file = io.tmpfile()
        file:write(NEW:rep(100))
    end)
    teardown(function()
        if compiling then
            jit.on()
        end
        file:close()
        other:release()
    end)

    local function time_is_up()
        error("time is up", 0)
    end

    local function whole(buf)
        local text = tostring(buf)
        assert.equal(#buf, #text)
        assert.matches("^[" .. OLD .. NEW .. "]*$", text)
        -- What it grows by is zero, whatever was written there.
        local len = #buf
        buf:resize(len + 100)
        assert.equal(zeros:sub(1, 100), buf:sub(len + 1))
        buf:resize(len)
        assert.equal(text, tostring(buf))
    end

    for name, operation in pairs(operations) do
        for kind, make in pairs {
            buffer = function() return pool:checkout(SIZE) end,
            handle = function() return pool:borrow(SIZE) end,
        } do
            it(("%s leaves a %s whole"):format(name, kind), function()
                local count, interrupted = 1, 0
                repeat
                    local buf = make():write(1, old)
                    file:seek "set"
                    local done = hooked(count, time_is_up, operation, buf,
                        other, file)
                    whole(buf)
                    buf:release()
                    local heir = pool:checkout(4096)
                    assert.is_true(tostring(heir) == zeros)
                    heir:release()
                    assert.equal(1, pool:stats().checked_out)
                    interrupted = interrupted + (done and 1 or 0)
                    count = count + 1
                until not done
                assert.is_true(interrupted > 2)
            end)
        end
    end
end)

-- Methods that are C functions, as some are where the JIT was off when bufpool
-- was loaded, cannot be interrupted. The others can: a hook must not release
-- what a method is at, as the reference says.
describe("a hook that releases the buffer in the middle of", function()
    for name, operation in pairs {
        write = "b:write(1, 'SECRETSECRET')",
        put = "b:put('SECRET', 'SECRET')",
        setbyte = "b:setbyte(1, 65)",
    } do
        it("a " .. name .. " of C leaves nothing behind", function()
            assert.equal("true\n", helper.child_ok([[
                jit.off()
                local pool = require("bufpool").new()
                local zeros, interrupted = ("\0"):rep(4096), 0
                for count = 1, 200 do
                    local b = pool:checkout(64)
                    local through = false
                    local function hook()
                        debug.sethook()
                        interrupted = interrupted + (through and 0 or 1)
                        b:release()
                    end
                    pcall(function()
                        debug.sethook(hook, "", count)
                        ]] .. operation .. [[

                        through = true
                        debug.sethook()
                        b:release()
                    end)
                    debug.sethook()
                    local heir = pool:checkout(4096)
                    assert(tostring(heir) == zeros)
                    heir:release()
                end
                print(interrupted > 1)]]))
        end)
    end
end)
