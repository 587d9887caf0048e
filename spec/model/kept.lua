-- What is kept for whoever needs it next, and a close, after which nothing may
-- be kept: the bins of src/core/large.c (push_kept, take_from,
-- bp_large_give_back, bp_large_close), and the commons (bp_caches_put_common,
-- bp_caches_drain_commons), which count what is ready as a bin counts mappings.
-- Each push and pop of the stack is one step here, and an empty stack may be
-- found where it is empty no longer; stack.lua has the rest.
local explore = require "model.explore"

local kept = {}

local function add(n)
    return function(old) return old + n end
end

-- A pop, or the step `empty`.
local function pop(name, empty)
    return {
        { name, load = "stack", order = "acquire",
            go = function(_, got) return got == 0 and empty or nil end },
        { name .. " exchange", rmw = "stack", order = "acquire",
            value = function(old, l)
                if old > 0 then
                    l.mine = l.mine + 1
                    return old - 1
                end
            end,
            go = function(_, got) return got == 0 and empty or nil end },
    }
end

-- bp_large_give_back; bp_caches_drain_commons.
local function sweep(name)
    return {
        { name, load = "count",
            go = function(_, got) return got == 0 and "end" or nil end },
        pop(name .. " pop", "end"),
        { name .. " uncount", rmw = "count", value = add(-1),
            go = function() return name .. " pop" end },
    }
end

-- push_kept, and what bp_caches_put_common does after bp_depot_put.
local function push(fenced, looks)
    return {
        { "push", rmw = "stack", order = "release",
            value = function(old, l)
                l.mine = l.mine - 1
                return old + 1
            end },
        { "fence", fence = true, unless = function() return not fenced end },
        { "look", load = "closed", go = function(_, got)
            return (got == 0 or not looks) and "end" or nil
        end },
    }
end

-- A release, which has one to keep. bp_large_put also looks at `closed` before
-- it counts, but only to spare itself the rest.
local function keeper(weak)
    return explore.program("keeper",
        { "begin", go = function(l) l.mine = 1 end },
        { "count", rmw = "count", value = add(1) },
        push(not weak.no_fence, not weak.no_look), sweep "sweep")
end

-- A checkout that finds the one on top too small, and pushes it back.
local function taker(weak)
    return explore.program("taker",
        { "take", load = "count",
            go = function(_, got) return got == 0 and "end" or nil end },
        pop("take pop", "end"),
        push(not weak.no_fence_back, not weak.no_look_back),
        sweep "sweep")
end

local function closer(weak)
    return explore.program("closer",
        { "close", store = "closed", value = 1, order = "seq_cst" },
        { "close fence", fence = true,
            unless = function() return weak.no_fence_close end },
        sweep "sweep")
end

-- kind: "put", a release and the close, with nothing kept before; "back", also
-- a checkout that pushes the one that is kept back.
function kept.model(kind, weak)
    local threads, first = { keeper(weak), closer(weak) }, 0
    if kind == "back" then
        threads[3], first = taker(weak), 1
    end
    return {
        memory = { { "closed", 0 }, { "count", first }, { "stack", first } },
        vars = { "mine" },
        threads = threads,
        settled = function(memory, vars)
            local sum = memory.stack
            for _, l in ipairs(vars) do
                sum = sum + l.mine
            end
            if sum ~= first + 1 then
                return sum .. " are found"
            elseif memory.stack > 0 then
                return "kept after the close"
            end
        end,
    }
end

return kept
