-- Where a trace is left finalizers may run, and then the interpreter goes on
-- with what the trace had loaded: object.lua says what follows from that for
-- each method. Here every method is tried, in loops that get compiled, with
-- thresholds at random (support/exits.lua), and the traces are looked at
-- (support/guards.lua). A method that is new has to be told to exits.lua.
local helper = require "support.helper"

local guards = require "support.guards"

local PROGRAM = helper.root .. "spec/support/exits.lua"

-- Prints what is wrong, and the arguments that show it.
local function run(kind, seed, rounds, mode)
    local said = helper.child_ok(
        ("arg = { [0] = %q, %q, '%d', '%d', %q }\ndofile(arg[0])"):format(
        PROGRAM, kind, seed, rounds, mode))
    assert.equal("", said:match "^%s*(.-)%s*$", ("exits.lua %s %d %d %s")
        :format(kind, seed, rounds, mode))
end

local drawn = os.time() % 100000

describe("a finalizer at the exit of a trace", function()
    for _, kind in ipairs { "buffer", "handle", "frozen" } do
        for _, seed in ipairs { 2, drawn } do
            it(("finds no method of a %s between comparison and access "
                .. "(seed %s)"):format(kind, seed == drawn and "drawn"
                or seed), function()
                run(kind, seed, 2000, "finalizers")
            end)
        end
    end
end)

describe("on traces", function()
    if not jit.status() or not guards.works then
        pending "the JIT is off, or jit.vmdef is missing"
        return
    end
    for _, kind in ipairs { "buffer", "handle", "frozen" } do
        for _, seed in ipairs { 1, 2, 24 } do
            it(("nothing is guarded between comparison and access of a %s "
                .. "(seed %d)"):format(kind, seed), function()
                run(kind, seed, 300, "guards")
            end)
        end
    end
end)
