-- The owner word of a shelf, as src/core/cache.h and cache.c have it: the names
-- of the steps are those of the comments there. full_at is left out, because
-- it is always stored with empty_at, and loaded for the same purpose; a claimer
-- loads both, so that their order does not matter.
local bit = require "bit"
local band, bor, bnot = bit.band, bit.bor, bit.bnot

local CLAIMED, CLOSED, RETIRED, FENCED = 1, 2, 4, 8
local CALLED = bor(CLOSED, RETIRED)
local OPEN, SHUT = 0, 1
local BUFFERS = 3

local shelf = {}

local function has(bits)
    return function(l)
        return band(l.gate, bits) ~= 0
    end
end

local function lacks(bits)
    return function(l)
        return band(l.gate, bits) == 0
    end
end

local function without(bits)
    return function(old)
        return band(old, bnot(bits))
    end
end

local function read_gate(l, got)
    l.gate = got
end

local function add(program, steps)
    for _, step in ipairs(steps) do
        program[#program + 1] = step
    end
    return program
end

-- bp_shelf_unclaim, and what follows it.
local function unclaim(after)
    return {
        { "look before C4", load = "gate", order = "seq_cst", go = read_gate },
        { "empty", use = "count", unless = lacks(CALLED),
            value = function(old, l)
                l.home = l.home + old
                return 0
            end },
        { "C4", rmw = "gate", order = "seq_cst",
            value = function(old, l)
                return old == l.gate and band(old, bnot(CLAIMED)) or nil
            end,
            go = function(l, got)
                if got ~= l.gate then
                    return "look before C4"
                end
                return after
            end },
    }
end

-- One checkout by the owner; `n` makes the names of its steps different from
-- those of another, `after` is where it goes on.
local function checkout(weak, n, after)
    local function at(name)
        return n .. name
    end
    local function leave(name, to)
        return {
            { at(name), store = "busy", value = 0,
                order = weak.relaxed_exit and "relaxed" or "release" },
            { at(name .. " look"), load = "gate", order = "acquire",
                go = function(_, got)
                    return got == 0 and to or nil
                end },
            { at(name .. " unfenced"), load = "gate", order = "seq_cst",
                go = read_gate },
            { at(name .. " exchange"), rmw = "busy", order = "seq_cst",
                unless = lacks(FENCED),
                value = function() return 0 end },
            { at(name .. " called"), load = "gate", order = "seq_cst",
                go = function(_, got)
                    if band(got, CLOSED) == 0 or weak.no_last_look then
                        return to
                    end
                end },
            { at(name .. " claim own"), rmw = "gate", order = "seq_cst",
                value = function(old) return bor(old, CLAIMED) end,
                go = function(_, got)
                    return band(got, CLAIMED) ~= 0 and to or nil
                end },
            { at(name .. " shut own"), store = "empty_at", value = SHUT,
                order = "seq_cst",
                go = function(l)
                    l.back = n
                    return "look before C4 for " .. at(name)
                end },
        }
    end
    local function own_unclaim(name, to)
        local steps = unclaim(to)
        for _, step in ipairs(steps) do
            local go = step.go
            step[1] = step[1] .. " for " .. at(name)
            step.go = go and function(l, got)
                local next = go(l, got)
                return next == "look before C4"
                    and next .. " for " .. at(name) or next
            end
        end
        return steps
    end
    local function pop(old, l)
        if old == 0 then
            return nil
        end
        l.out = l.out + 1
        return old - 1
    end

    local program = {
        { at "E1", store = "busy", value = 1 },
        { at "count", load = "count",
            go = function(l, got) l.count = got end },
        { at "E3", load = "empty_at", order = "acquire",
            go = function(l, got)
                if not weak.no_E3 and (got == SHUT or l.count == 0) then
                    return at "E4 shut"
                end
            end },
        { at "pop", use = "count", value = pop },
    }
    add(program, leave("E4", after))
    add(program, own_unclaim("E4", after))
    add(program, leave("E4 shut", at "open E1"))
    add(program, own_unclaim("E4 shut", at "open E1"))
    add(program, {
        { at "open E1", store = "busy", value = 1 },
        { at "open gate", load = "gate", order = "seq_cst", go = read_gate },
        { at "open exchange", rmw = "busy", order = "seq_cst",
            unless = function(l)
                return weak.no_exchange or band(l.gate, FENCED) == 0
            end,
            value = function() return 1 end },
        { at "open gate again", load = "gate", order = "seq_cst",
            unless = lacks(FENCED), go = read_gate },
        { at "open refused", go = function(l)
            if band(l.gate, bor(CLAIMED, CLOSED)) ~= 0
                and not weak.opens_claimed then
                return at "E4 refused"
            end
        end },
        { at "open up", store = "empty_at", value = OPEN, order = "release",
            unless = has(FENCED) },
        { at "pop after open", use = "count", value = pop },
    })
    add(program, leave("E4 opened", after))
    add(program, own_unclaim("E4 opened", after))
    add(program, leave("E4 refused", after))
    return add(program, own_unclaim("E4 refused", after))
end

-- Any other thread: bp_shelf_claim, a buffer taken, bp_shelf_unclaim; with
-- `closes` bp_cache_close instead.
local function claimer(weak, closes)
    local function unneeded(l)
        return weak.no_heavy or band(l.gate, bor(FENCED, RETIRED)) ~= 0
    end
    local function look(n, busy)
        return {
            { n .. "shut", store = "empty_at", value = SHUT,
                order = "seq_cst" },
            { n .. "C2", fence = true },
            { n .. "C2 heavy", heavy = true, unless = unneeded },
            { n .. "C3 busy", load = "busy", order = "seq_cst",
                go = function(_, got)
                    return got ~= 0 and not weak.no_C3 and busy or nil
                end },
            { n .. "C3 open", load = "empty_at", order = "seq_cst",
                go = function(_, got)
                    return got ~= SHUT and not weak.no_C3_open and busy or nil
                end },
        }
    end
    local failed = closes and "order owner" or "end"
    local program = { name = closes and "closer" or "claimer" }
    if closes then
        add(program, { { "close", rmw = "gate", order = "seq_cst",
            value = function(old) return bor(old, CLOSED) end } })
    end
    add(program, { { "C1", rmw = "gate", order = "seq_cst",
        value = function(old)
            return band(old, CLAIMED) == 0 and bor(old, CLAIMED) or nil
        end,
        go = function(l, got)
            read_gate(l, got)
            return band(got, CLAIMED) ~= 0 and failed or nil
        end } })
    add(program, look("", "undo"))
    add(program, { { "take", use = "count",
        unless = function() return closes end,
        value = function(old, l)
            if old > 0 then
                l.out = l.out + 1
                return old - 1
            end
        end } })
    add(program, unclaim("end"))
    add(program, { { "undo", rmw = "gate", order = "seq_cst",
        value = without(CLAIMED),
        go = function(l, got)
            l.gate = band(got, bnot(CLAIMED))
            if band(got, CALLED) == 0 or weak.no_second_look then
                return failed
            end
        end } })
    add(program, look("again ", failed))
    add(program, { { "again", go = function() return "C1" end } })
    if closes then
        add(program, {
            { "order owner", fence = true },
            { "order owner heavy", heavy = true, unless = unneeded },
        })
    end
    return program
end

local function owner(weak, checkouts)
    local program = { name = "owner" }
    for i = 1, checkouts do
        add(program, checkout(weak, i .. ": ",
            i < checkouts and (i + 1) .. ": E1" or "end"))
    end
    return program
end

-- A thread that checks one out and exits (bp_cache_retire), and one that adopts
-- its record (bp_cache_attach) and checks one out.
local function exiting(weak)
    local program = add({ name = "exiting" }, checkout(weak, "", "retire"))
    add(program, {
        { "retire", rmw = "gate", order = "seq_cst",
            value = function(old) return bor(old, RETIRED) end },
        { "retire claim", rmw = "gate", order = "seq_cst",
            value = function(old) return bor(old, CLAIMED) end,
            go = function(_, got)
                return band(got, CLAIMED) ~= 0 and "free" or nil
            end },
        { "retire shut", store = "empty_at", value = SHUT,
            order = "seq_cst" },
    })
    add(program, unclaim("free"))
    return add(program, {
        { "free", store = "record", value = 1, order = "release" },
    })
end

local function adopter(weak)
    local program = { name = "adopter",
        { "adopt", load = "record", order = "acquire",
            go = function(_, got)
                return got == 0 and "end" or nil
            end },
        { "shut old", store = "empty_at", value = SHUT, order = "seq_cst",
            unless = function() return weak.adopts_open end },
        { "attach", rmw = "gate", order = "seq_cst",
            value = without(RETIRED) },
    }
    return add(program, checkout(weak, "", "end"))
end

local function settled(memory, vars)
    local sum = memory.count
    for _, l in ipairs(vars) do
        sum = sum + l.out + l.home
    end
    if sum ~= BUFFERS then
        return sum .. " buffers of " .. BUFFERS
    elseif band(memory.gate, CLAIMED) ~= 0 then
        return "claimed for ever"
    elseif band(memory.gate, CALLED) ~= 0 and memory.count > 0 then
        return "buffers are left on a shelf that was to be emptied"
    end
end

-- kind: "claim", owner and two claimers; "twice", an owner that checks out
-- twice and a claimer; "close", owner and closer; "adopt", exiting thread,
-- adopter and a claimer. weak: what is left out, and what is so
-- at the beginning (fenced, shut).
function shelf.model(kind, weak)
    local threads
    if kind == "adopt" then
        threads = { exiting(weak), adopter(weak), claimer(weak) }
    elseif kind == "close" then
        threads = { owner(weak, 1), claimer(weak, true) }
    elseif kind == "twice" then
        threads = { owner(weak, 2), claimer(weak) }
    else
        threads = { owner(weak, 1), claimer(weak), claimer(weak) }
    end
    return {
        memory = {
            { "busy", 0 }, { "gate", weak.fenced and FENCED or 0 },
            { "empty_at", (weak.fenced or weak.shut) and SHUT or OPEN },
            { "count", BUFFERS }, { "record", 0 },
        },
        vars = { "gate", "count", "out", "home", "back" },
        threads = threads,
        settled = settled,
    }
end

return shelf
