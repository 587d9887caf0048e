-- WATCHED in the gate of a shelf, which follows what the pool's `watch` says:
-- bp_cache_follow_watch, bp_shelf_watch, bp_shelf_unwatch and bp_cache_attach
-- of src/core/cache.c. The gate has no other bit here, and a cache one shelf.
local explore = require "model.explore"

local OFF, SAMPLED, ALL = 0, 1, 2

local watch = {}

-- bp_cache_follow_watch, in which each changes the gate and then looks at
-- `watch`.
local function follow(name, weak)
    return {
        { name .. "read", load = "watch", order = "seq_cst",
            go = function(l, got) l.watch = got end },
        { name .. "change", rmw = "gate", order = "seq_cst",
            value = function(_, l) return l.watch == ALL and 1 or 0 end },
        { name .. "look", load = "watch", order = "seq_cst",
            go = function(l, got)
                local again = got ~= l.watch and not weak.no_look
                l.watch = 0
                return again and name .. "read" or nil
            end },
    }
end

-- bufpool_detect_leaks
local function setter(weak, ...)
    local program = explore.program("setter")
    for i, value in ipairs { ... } do
        local n = i .. ": "
        program = explore.program("setter", program,
            { n .. "set", store = "watch", value = value,
                order = weak.relaxed_set and "release" or "seq_cst" },
            { n .. "live", load = "live", order = "seq_cst",
                go = function(_, got)
                    return got == 0 and n .. "next" or nil
                end },
            follow(n, weak), { n .. "next" })
    end
    return program
end

-- The owner sets the bit for one checkout (bp_shelf_watch), or takes it away
-- (bp_shelf_unwatch): what `watch` said before may hold no longer.
local function owner(weak, name, bit, wrong)
    return explore.program("owner",
        { name, rmw = "gate", order = "seq_cst",
            value = function() return bit end },
        { name .. " look", load = "watch", order = "seq_cst",
            go = function(_, got) return got ~= wrong and "end" or nil end },
        weak.no_second_look and { name .. " undo", rmw = "gate",
            order = "seq_cst", value = function() return 1 - bit end }
            or follow("", weak))
end

local function attacher(weak)
    return explore.program("attacher",
        { "attach", rmw = "live", order = "seq_cst",
            value = function() return 1 end },
        { "attach look", load = "watch", order = "seq_cst",
            go = function(_, got)
                return (got == SAMPLED or weak.no_attach) and "end" or nil
            end },
        follow("", weak))
end

-- kind: "due" and "wanted", the owner of a sampled pool while another thread
-- sets OFF and ALL, or ALL and OFF; "set", three that set something; "attach",
-- a cache that becomes live while another thread sets ALL.
function watch.model(kind, weak)
    local threads = {
        due = { owner(weak, "due", 1, OFF), setter(weak, OFF, ALL) },
        wanted = { owner(weak, "wanted", 0, ALL), setter(weak, ALL, OFF) },
        set = { setter(weak, ALL), setter(weak, OFF), setter(weak, ALL) },
        attach = { attacher(weak), setter(weak, ALL) },
    }
    return {
        memory = {
            { "watch", SAMPLED }, { "gate", kind == "wanted" and 1 or 0 },
            { "live", kind == "attach" and 0 or 1 },
        },
        vars = { "watch" },
        threads = threads[kind],
        settled = function(memory)
            if memory.live == 1 and memory.watch ~= SAMPLED
                and memory.gate ~= (memory.watch == ALL and 1 or 0) then
                return "the gate does not say what is watched"
            end
        end,
    }
end

return watch
