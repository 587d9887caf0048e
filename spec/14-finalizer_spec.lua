-- A finalizer may run wherever Lua allocates, also in the middle of a method of
-- ours, and may do anything to the very buffer that the method is at. Nothing
-- may then land in memory that is no longer that buffer's.

local bufpool = require "bufpool"
local helper = require "support.helper"

local ROUNDS, TRIES, SIZE = 40, 50000, 64
local zero = ("\0"):rep(4096)

local operations = {
    write = function(b) b:write(1, "SECRETSECRET") end,
    write_object = function(b, other) b:write(1, other) end,
    setbyte = function(b) b:setbyte(1, 65) end,
    setbyte_several = function(b) b:setbyte(1, 65, 66, 67) end,
    fill = function(b) b:fill(66) end,
    copy = function(b, other) b:copy(1, other) end,
    put = function(b) b:put("x") end,
    put_several = function(b) b:put("x", 1, 2) end,
    put_object = function(b, other) b:put(other) end,
    set = function(b) b:set("abc") end,
    reserve = function(b) b:reserve(8) b:commit(8) end,
    get = function(b) b:get(1) end,
    resize = function(b) b:resize(SIZE) end,
    set_u24be = function(b) b:set_u24be(1, 0x414243) end,
    set_u32le = function(b) b:set_u32le(1, 0x41424344) end,
    set_f64be = function(b) b:set_f64be(1, 1.5) end,
    put_u64le = function(b) b:put_u64le(0x4142434445464748ULL) end,
    pack = function(b) b:pack(1, "<I4z", 0x41424344, "text") end,
}

-- Arms a finalizer that does `act` at the next chance the collector has, unless
-- disarmed before.
local armed
local function arm(act)
    local mine = {}
    armed = mine
    getmetatable(newproxy(true)).__gc = function()
        if armed == mine then
            armed = nil
            act()
        end
    end
end

-- Runs the operation until the finalizer has come in between.
local function interrupt(operation, buf, other, act)
    local done = false
    arm(function()
        done = true
        act()
    end)
    for _ = 1, TRIES do
        local ok, message = pcall(operation, buf, other)
        if not ok then
            assert.matches("released buffer", message)
        end
        if not ok or done then
            return done
        end
    end
    armed = nil
    return false
end

describe("a finalizer in the middle of", function()
    local pause, step
    local compiling = jit.status()

    -- A collector in a hurry comes in between sooner. On a trace it never does.
    setup(function()
        jit.off()
        pause = collectgarbage("setpause", 100)
        step = collectgarbage("setstepmul", 4000)
    end)
    teardown(function()
        collectgarbage("setpause", pause)
        collectgarbage("setstepmul", step)
        if compiling then
            jit.on()
        end
    end)

    for name, operation in pairs(operations) do
        it(name .. " may release the buffer", function()
            local pool = bufpool.new()
            local other = pool:checkout(SIZE):fill(65)
            local interrupted = 0
            for _ = 1, ROUNDS do
                local buf = pool:checkout(SIZE)
                if interrupt(operation, buf, other, function()
                    buf:release()
                end) then
                    interrupted = interrupted + 1
                    -- The memory released last is checked out next.
                    local heir = pool:checkout(4096)
                    assert.is_true(tostring(heir) == zero)
                    heir:release()
                elseif bufpool.type(buf) == "buffer" then
                    buf:release()
                end
            end
            -- Where the JIT never was on, some methods are C functions, and
            -- nothing comes in between.
            assert.is_true(not compiling or interrupted > ROUNDS / 2)
            pool:close()
        end)
    end

    it("put may put into the same buffer, and nothing is lost", function()
        local pool = bufpool.new()
        for _ = 1, ROUNDS do
            local out, puts, extra = pool:writer(), 0, 0
            arm(function()
                out:put("+")
                extra = extra + 1
            end)
            for _ = 1, 50 do
                out:put("-")
                puts = puts + 1
            end
            armed = nil
            local text = tostring(out)
            assert.equal(puts + extra, #text)
            assert.equal(extra, select(2, text:gsub("+", "")))
            out:release()
        end
        pool:close()
    end)

    -- Garbage of changing size lets the collector come in anywhere: it would
    -- always be at the same line.
    it("pack may write further up, and that is wiped, too", function()
        local pool = bufpool.new()
        local interrupted = 0
        for _ = 1, 4 * ROUNDS do
            local buf, done = pool:checkout(4096), false
            arm(function()
                buf:write(4000, "SECRET")
                done = true
            end)
            for i = 1, 3996, 4 do
                if not done then
                    local _ = ("x"):rep(math.random(600))
                    buf:pack(i, "<I4", 0x41424344)
                end
            end
            armed = nil
            interrupted = interrupted + (done and 1 or 0)
            buf:release()
            local heir = pool:checkout(4096)
            assert.is_true(tostring(heir) == zero)
            heir:release()
        end
        assert.is_true(interrupted > 2 * ROUNDS)
        pool:close()
    end)

    it("put may free and refill the buffer", function()
        local pool = bufpool.new()
        for _ = 1, ROUNDS do
            local out = pool:writer()
            out:put(("x"):rep(5000))
            arm(function()
                out:free()
                out:put("y")
            end)
            for _ = 1, 50 do
                out:put(("z"):rep(100))
            end
            armed = nil
            local text = tostring(out)
            assert.is_true(text:match("^x*z*$") ~= nil
                or text:match("^yz*$") ~= nil)
            out:release()
        end
        pool:close()
    end)
end)

-- In a process of its own: this was a crash.
describe("a finalizer that closes the file", function()
    for name, operation in pairs {
        readfrom = "buf:reset():readfrom(file, 8)",
        readinto = "buf:readinto(1, file)",
        writev = 'require("bufpool").writev(file, { "x", buf, frozen })',
        ["writeto of a buffer"] = "buf:writeto(file)",
        ["writeto of a frozen object"] = "frozen:writeto(file)",
    } do
        it("makes " .. name .. " raise, as a closed file does", function()
            assert.equal("true\n", helper.child_ok([[
                jit.off()
                collectgarbage("setpause", 100)
                collectgarbage("setstepmul", 4000)
                local bufpool = require "bufpool"
                local pool = bufpool.new()
                local interrupted = 0
                for round = 1, 200 do
                    local buf = pool:checkout(64)
                    local frozen = pool:checkout(64):freeze()
                    local file = io.tmpfile()
                    file:write(("x"):rep(1000))
                    local done = false
                    getmetatable(newproxy(true)).__gc = function()
                        done = true
                        file:close()
                    end
                    while not done do
                        file:seek "set"
                        if done then
                            break
                        end
                        local ok, message = pcall(function()
                            ]] .. operation .. [[

                        end)
                        if not ok then
                            assert(message:find("attempt to use a closed file",
                                1, true), message)
                            assert(done)
                            interrupted = interrupted + 1
                        end
                    end
                    assert(#buf <= 64)
                    buf:release()
                    frozen:release()
                    local heir = pool:checkout(4096)
                    assert(tostring(heir) == ("\0"):rep(4096))
                    heir:release()
                end
                print(interrupted > 20)]]))
        end)
    end
end)
