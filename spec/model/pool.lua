-- The end of a pool whose last buffer is just being released, and the next pool
-- in its place: bp_arena_try_ref, bp_arena_drop, bp_cache_hold,
-- bp_shelf_leave_slow, bufpool_destroy, free_place and take_place. A shelf is
-- one location, whose owner's exit and close are sequentially consistent;
-- shelf.lua has the rest. What each thread does with the pool is in a location
-- of its own, with the number of the pool, 0 when that has ended.
local explore = require "model.explore"

local pool = {}

local function order(weak, name, strong)
    return weak["relaxed_" .. name] and "relaxed" or strong
end

-- Uses the pool, which is to be there; where only one will do, that one.
local function with_pool(name, data, only)
    return { name, use = data, value = function(old)
        if old == 0 then
            explore.fault "a pool is used that has ended"
        elseif only and old ~= only then
            explore.fault "another pool is used"
        end
        return old
    end }
end

-- bp_arena_drop, with end_pool and free_place.
local function drop(name, weak)
    local function finish(data)
        return { name .. "end " .. data, use = data, value = function(old)
            return old == 0 and explore.fault "ended twice" or 0
        end }
    end
    return {
        { name .. "drop", rmw = "refs", order = order(weak, "drop", "acq_rel"),
            value = function(old) return old - 1 end,
            go = function(_, got) return got ~= 1 and name .. "dropped" or nil
            end },
        finish "releaser", finish "keeper",
        { name .. "free", rmw = "in_use",
            order = order(weak, "free", "release"),
            value = function() return 0 end },
        { name .. "dropped" },
    }
end

-- bp_arena_try_ref
local function try_ref(name, weak)
    return {
        { name .. "refs", load = "refs", order = "seq_cst",
            go = function(l, got)
                l.refs = got
                return got == 0 and not weak.no_look and "end" or nil
            end },
        { name .. "ref", rmw = "refs", order = order(weak, "ref", "seq_cst"),
            value = function(old, l)
                return (weak.no_look or old == l.refs) and old + 1 or nil
            end,
            go = function(l, got)
                local again = got ~= l.refs and not weak.no_look
                l.refs = 0
                return again and name .. "refs" or nil
            end },
    }
end

-- Takes the buffer that is on the shelf, if it is, and drops its reference.
local function empty(name, weak)
    return {
        { name .. "empty", rmw = "shelf", order = "seq_cst",
            value = function() return 0 end,
            go = function(_, got) return got == 0 and name .. "dropped" or nil
            end },
        drop(name, weak),
    }
end

local function releaser(weak)
    return explore.program("releaser", with_pool("work", "releaser", 1),
        { "put", rmw = "shelf", order = "seq_cst",
            value = function() return 1 end },
        { "E4", load = "gate", order = "seq_cst",
            go = function(_, got) return got == 0 and "end" or nil end },
        weak.no_hold and with_pool("leave", "releaser", 1) or {},
        try_ref("hold ", weak),
        { "id", load = "id", go = function(_, got)
            return got ~= 1 and not weak.no_id and "other" or nil
        end },
        with_pool("leave slowly", "releaser", 1), empty("", weak),
        { "other" }, drop("hold ", weak))
end

local function destroyer(weak)
    return explore.program("destroyer",
        { "close", rmw = "gate", order = "seq_cst",
            value = function() return 1 end },
        empty("", weak), drop("users ", weak))
end

-- configure_pool and bp_arena_create, in a place that is free.
local function creator(weak)
    local function begin(data)
        return { "begin " .. data, use = data, value = function() return 2 end }
    end
    return explore.program("creator",
        { "take", rmw = "in_use", order = order(weak, "take", "acquire"),
            value = function(old) return old == 0 and 1 or nil end,
            go = function(_, got) return got ~= 0 and "end" or nil end },
        begin "releaser", begin "keeper",
        { "new id", store = "id", value = 2 },
        { "create", store = "refs", value = 1,
            order = order(weak, "create", "seq_cst") })
end

-- bp_registry_next: uses whichever pool it finds.
local function keeper(weak)
    return explore.program("keeper", try_ref("", weak),
        with_pool("keep", "keeper"), drop("keep ", weak))
end

-- kind: "next", a release, the end, and the next pool; "kept", a release, the
-- end, and a thread that finds the pool in the registry; "all", all four.
function pool.model(kind, weak)
    local threads = { releaser(weak), destroyer(weak),
        (kind == "kept" and keeper or creator)(weak) }
    if kind == "all" then
        threads[4] = keeper(weak)
    end
    return {
        memory = {
            { "refs", 2 }, { "id", 1 }, { "shelf", 0 }, { "gate", 0 },
            { "in_use", 1 }, { "releaser", 1 }, { "keeper", 1 },
        },
        vars = { "refs" },
        threads = threads,
        settled = function(memory)
            if memory.id == 1 and memory.in_use ~= 0 then
                return "the pool stays"
            elseif memory.refs ~= memory.id - 1 then
                return memory.refs .. " references are left"
            elseif memory.id == 2 and memory.keeper ~= 2 then
                return "the next pool has ended"
            end
        end,
    }
end

return pool
