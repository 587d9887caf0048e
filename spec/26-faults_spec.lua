-- Calls of the core to the system fail, one after another, under a Lua program.

local build = os.getenv("BUILD") or "build"
local luajit = os.getenv("LUAJIT") or "luajit"

local function output(command)
    local pipe = assert(io.popen(command .. " 2>&1"))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

local library = build .. "/spec/faults.so"

local function run(first, last, extra)
    return output(("FAULT_FIRST=%d FAULT_LAST=%d %s LD_PRELOAD=%s "
        .. "%s spec/support/faults.lua"):format(first, last,
        extra or "", library, luajit))
end

describe("a call to the system that fails", function()
    local count

    setup(function()
        os.execute("mkdir -p " .. build .. "/spec")
        local failed = output(("%s -shared -fPIC -O1 -o %s "
            .. "spec/support/faults.c -ldl"):format(os.getenv("CC") or "cc",
            library))
        assert.equal("", failed)
        local name = os.tmpname()
        assert.equal("whole\n", run(0, 0, "FAULT_COUNT=" .. name))
        count = tonumber(assert(io.open(name)):read("*l"))
        os.remove(name)
    end)

    it("is told, and all works again afterwards", function()
        assert.is_true(count > 20, count)
        for n = 1, count do
            assert.equal("whole\n", run(n, n), "call " .. n)
        end
    end)

    it("is told, when all that follow fail as well", function()
        for n = 1, count, 3 do
            assert.equal("whole\n", run(n, 2 ^ 31 - 1),
                "calls from " .. n .. " on")
        end
    end)
end)
