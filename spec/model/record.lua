-- A thread's record, and the caches of two pools in it that end: thread_exit,
-- bp_thread_forget, give_up and try_own of src/core/thread.c, with T1 to T3 of
-- the comment there. A bit of `gone` is a cache on the list.
local explore = require "model.explore"

local record = {}

-- unmap_gone
local function unmap(name, weak)
    local function unmap_one(i)
        local function has_not(l)
            return math.floor(l.gone / i) % 2 == 0
        end
        return {
            { name .. "next " .. i, use = "next" .. i, unless = has_not,
                value = function() end },
            { name .. "unmap " .. i, use = "mapped" .. i, unless = has_not,
                value = function(old)
                    if old == 0 then
                        explore.fault "unmapped twice"
                    end
                    return 0
                end },
        }
    end
    return {
        { name .. "any", load = "gone",
            go = function(l, got)
                l.gone = 0
                return got == 0 and name .. "unmapped" or nil
            end },
        { name .. "T3", rmw = "gone",
            order = weak.relaxed_T3 and "relaxed" or "seq_cst",
            value = function() return 0 end,
            go = function(l, got) l.gone = got end },
        unmap_one(1), unmap_one(2),
        { name .. "unmapped", go = function(l) l.gone = 0 end },
    }
end

-- try_own; goes to `failed`, or on.
local function own(name, failed)
    return {
        { name .. "orphan", load = "owned", order = "seq_cst",
            go = function(_, got) return got ~= 0 and failed or nil end },
        { name .. "own", rmw = "owned", order = "seq_cst",
            value = function(old) return old == 0 and 1 or nil end,
            go = function(_, got) return got ~= 0 and failed or nil end },
    }
end

-- give_up: also what is pushed while the record has an owner is unmapped.
local function give_up(weak, looks)
    return {
        unmap("", weak),
        { "give up", store = "owned", value = 0,
            order = weak.relaxed_give_up and "relaxed" or "seq_cst" },
        { "look", load = "gone",
            order = weak.relaxed_look and "acquire" or "seq_cst",
            go = function(_, got)
                return (got == 0 or not looks) and "end" or nil
            end },
        own("again ", "end"),
        { "again", go = function() return "any" end },
    }
end

-- thread_exit, which reads each of its caches.
local function exiter(weak)
    local function retire(i)
        return {
            { "retire " .. i, load = "cache" .. i,
                go = function(l, got) l.cache = got end },
            { "read " .. i, use = "mapped" .. i,
                unless = function(l) return l.cache == 0 end,
                value = function(old)
                    if old == 0 then
                        explore.fault "read when unmapped"
                    end
                    return old
                end },
        }
    end
    return explore.program("exiter", retire(1), retire(2),
        { "retired", go = function(l) l.cache = 0 end },
        give_up(weak, not weak.no_look_exit))
end

-- bp_thread_forget, at the end of pool i.
local function ender(i, weak)
    return explore.program("ender " .. i,
        { "T1", store = "cache" .. i, value = 0 },
        { "bury", use = "next" .. i, value = function() return 1 end },
        { "T2", rmw = "gone", order = weak.relaxed_T2 and "relaxed"
            or weak.acq_rel_T2 and "acq_rel" or "seq_cst",
            value = function(old) return old + i end },
        own("", "end"), give_up(weak, not weak.no_look_end))
end

-- thread_adopt, and bp_thread_cache for another pool.
local function adopter(weak)
    return explore.program("adopter", own("adopt ", "end"), unmap("", weak))
end

-- kind: "exit", a thread exits as the pools end; "orphan", the record is one
-- already, and a new thread looks for one.
function record.model(kind, weak)
    return {
        memory = {
            { "owned", kind == "exit" and 1 or 0 }, { "gone", 0 },
            { "cache1", 1 }, { "cache2", 1 }, { "mapped1", 1 },
            { "mapped2", 1 }, { "next1", 0 }, { "next2", 0 },
        },
        vars = { "gone", "cache" },
        threads = { ender(1, weak), ender(2, weak),
            (kind == "exit" and exiter or adopter)(weak) },
        settled = function(memory)
            if memory.owned == 0 and memory.gone ~= 0 then
                return "an orphan keeps a cache"
            end
        end,
    }
end

return record
