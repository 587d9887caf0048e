-- Looks at what LuaJIT has compiled of lua/bufpool, for spec/28.
--
-- A method that touches memory itself compares the epoch right before. From
-- that comparison to the last access nothing may be left to guard: where a
-- guard fails finalizers run, and then the interpreter goes on at the snapshot
-- that the guard belongs to. If that one is after the comparison and not after
-- the access, the access happens without a comparison (object.lua).
--
-- While a trace is recorded it is noted how many instructions it has before
-- each bytecode. So the comparisons of epochs, which leave no instruction, are
-- found in it, and what is between them and the accesses.

local bit = require "bit"
local util = require "jit.util"
local named, vmdef = pcall(require, "jit.vmdef")

local band, rshift = bit.band, bit.rshift
local guards = { works = named }

local ACCESS = { XLOAD = true, XSTORE = true, XSNEW = true, CALLXS = true,
    CALLL = true, CALLS = true, CALLN = true, CALLA = true }

local function name(names, op)
    return names:sub(op * 6 + 1, op * 6 + 6):match "%S+"
end

local function bytecode(func, pc)
    local ins = util.funcbc(func, pc)
    return name(vmdef.bcnames, band(ins, 0xff)), band(rshift(ins, 8), 0xff),
        rshift(ins, 16), band(rshift(ins, 16), 0xff)
end

-- Whether the bytecode compares an epoch with what it was, or with itself.
local function comparison(func, pc)
    local where = util.funcinfo(func, pc)
    if pc < 1 or not where.loc
        or not where.source:find("lua/bufpool/", 1, true) then
        return
    end
    local op, a, d = bytecode(func, pc)
    if op ~= "ISNEV" and op ~= "ISEQV" then
        return
    elseif a == d then
        return "fence"
    end
    local load, to, _, key = bytecode(func, pc - 1)
    if load == "TGETS" and (to == a or to == d)
        and util.funck(func, -key - 1) == "epoch" then
        return "epoch", where.loc
    end
end

local steps, problems = {}, {}
local seen = 0

-- The instructions of the trace before its loop, and where its snapshots are.
-- The loop repeats them.
local function contents(trace)
    local info, list, snapshots = util.traceinfo(trace), {}, {}
    for k = 0, info.nexit - 1 do
        snapshots[#snapshots + 1] = util.tracesnap(trace, k)[0]
    end
    for ref = 1, info.nins do
        local _, ot = util.traceir(trace, ref)
        local op = name(vmdef.irnames, rshift(ot, 8))
        if op == "LOOP" then
            break
        end
        list[ref] = { op = op, guard = band(ot, 0x80) ~= 0 }
    end
    return list, snapshots
end

-- Where what step k compares for is through; and a Lua function that is called
-- before. That one could be a trace of its own, with guards at its start.
local function extent(k)
    local from, called = steps[k], nil
    for n = k + 1, #steps do
        local step = steps[n]
        if step.depth > from.depth then
            called = called or util.funcinfo(step.func).loc
        elseif step.func ~= from.func or n > k + 1
            and comparison(step.func, step.pc) then
            return step.count, called
        end
    end
    return math.huge, called
end

local function complain(...)
    problems[table.concat({ ... }, " ")] = true
end

local function look(list, snapshots, k, loc)
    local start = steps[k + 1].count
    local stop, called = extent(k)
    local access
    for ref = start, math.min(stop - 1, #list) do
        access = ACCESS[list[ref].op] and ref or access
    end
    if not access then
        return
    end
    seen = seen + 1
    if called then
        complain(loc, "calls", called, "before the access")
    end
    for ref = start, #list do
        local back = 0
        for _, at in ipairs(snapshots) do
            back = at <= ref and math.max(back, at) or back
        end
        if list[ref].guard and back >= start and back <= access then
            complain(loc, "has a guard before the access, or one that goes",
                "back to before it:", list[ref].op)
        end
    end
end

local function on_trace(what, trace)
    if what == "start" then
        steps = {}
    elseif what == "stop" then
        local list, snapshots = contents(trace)
        for k = 1, #steps - 1 do
            local kind, loc = comparison(steps[k].func, steps[k].pc)
            if kind == "epoch" then
                look(list, snapshots, k, loc)
            end
        end
    end
end

local function on_record(trace, func, pc, depth)
    steps[#steps + 1] = { func = func, pc = pc, depth = depth,
        count = util.traceinfo(trace).nins + 1 }
end

for _, fn in ipairs { name, bytecode, comparison, contents, extent, complain,
    look, on_trace, on_record } do
    jit.off(fn, true)
end

function guards.on()
    jit.attach(on_trace, "trace")
    jit.attach(on_record, "record")
end

function guards.off()
    jit.attach(on_trace)
    jit.attach(on_record)
end

---How many accesses were looked at, and what is wrong with them.
function guards.result()
    local list = {}
    for problem in pairs(problems) do
        list[#list + 1] = problem
    end
    table.sort(list)
    return seen, list
end

return guards
