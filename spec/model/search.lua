-- The search for a page whose buffers are all blanks: give_shared of
-- src/core/arena.c, and give_class, by which a buffer becomes a blank. The page
-- has two buffers, which are bits of the stacks' locations; stack.lua has what
-- a stack does.
local explore = require "model.explore"

local BOTH = 3

local search = {}

local function give(n, weak)
    local push = { "push", rmw = "resident", order = "release",
        value = function(old) return old + n end }
    local set = { "set", store = "changed", value = 1, order = "seq_cst" }
    return weak.sets_first and { set, push } or { push, set }
end

local function giver(weak)
    return explore.program("giver", give(2, weak))
end

-- A checkout that takes the other blank, and its release.
local function taker(weak)
    return explore.program("taker",
        { "pop", rmw = "resident", order = "acquire",
            value = function(old) return old % 2 == 1 and old - 1 or nil end,
            go = function(_, got) return got % 2 == 0 and "end" or nil end },
        give(1, weak))
end

local function searcher(weak)
    local begin = { "changed", rmw = "changed", order = "seq_cst",
        value = function() return 0 end,
        go = function(_, got)
            return got == 0 and not weak.takes_late and "end" or nil
        end }
    local pop = { "resident", rmw = "resident", order = "acquire",
        value = function() return 0 end,
        go = function(l, got) l.resident = got end }
    return explore.program("searcher",
        weak.takes_late and {} or begin,
        { "search", rmw = "searches", order = "seq_cst",
            value = function(old) return old + 1 end,
            go = function(l, got) l.search = got + 1 end },
        { "fence", fence = true },
        pop, weak.takes_late and begin or {},
        { "bare", rmw = "bare", order = "acquire",
            unless = function(l) return l.resident == 0 end,
            value = function(old, l)
                l.bare = old
                return 0
            end },
        { "all blanks", go = function(l)
            if l.resident ~= 0 and l.resident + l.bare == BOTH then
                l.resident, l.bare = 0, BOTH
            end
        end },
        { "push bare", rmw = "bare", order = "release",
            unless = function(l) return l.bare == 0 end,
            value = function(old, l) return old + l.bare end },
        { "push resident", rmw = "resident", order = "release",
            unless = function(l) return l.resident == 0 end,
            value = function(old, l) return old + l.resident end },
        { "pushed", go = function(l) l.resident, l.bare = 0, 0 end },
        { "fence after", fence = true,
            unless = function() return weak.relaxed_look end },
        { "look", load = "searches",
            order = weak.relaxed_look and "relaxed" or "seq_cst",
            go = function(l, got)
                local begun = got ~= l.search
                l.search = 0
                return (not begun or weak.no_look) and "end" or nil
            end },
        { "again", store = "changed", value = 1, order = "seq_cst" })
end

-- One buffer is a blank, the other is out. kind: "two", it is given back during
-- two searches; "three", during three; "take", the blank is taken and given
-- back as well.
function search.model(kind, weak)
    local threads = { giver(weak), searcher(weak),
        (kind == "take" and taker or searcher)(weak) }
    if kind == "three" then
        threads[4] = searcher(weak)
    end
    return {
        memory = {
            { "resident", 1 }, { "bare", 0 }, { "changed", 1 },
            { "searches", 0 },
        },
        vars = { "resident", "bare", "search" },
        threads = threads,
        settled = function(memory)
            if memory.resident + memory.bare ~= BOTH then
                return "a blank is lost"
            elseif memory.resident ~= 0 and memory.changed == 0 then
                return "a page of blanks is overlooked"
            end
        end,
    }
end

return search
