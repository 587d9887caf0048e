-- The depot of a thread: bp_depot_put and bp_depot_take of src/core/depot.c,
-- the marks of src/core/cache.h, and a close. A batch is one buffer here. The
-- ring has two slots, so it holds one batch; ck_ring's loads and stores have
-- the order that its fences give them.
local explore = require "model.explore"

local depot = {}

local function order(weak, name, strong)
    return weak["relaxed_" .. name] and "relaxed" or strong
end

-- bp_depot_put of batch n, if bp_depot_room says that there is room.
local function put(n, weak)
    local name = "put " .. n .. ": "
    local function slot(l) return "slot" .. l.tail % 2 end
    return {
        { name .. "fill", use = "bytes" .. n, value = function() return n end },
        { name .. "room", load = "ready",
            order = order(weak, "room", "acquire"),
            go = function(_, got) return got ~= 0 and name .. "done" or nil end
        },
        { name .. "count", rmw = "ready",
            value = function(old) return old + 1 end,
            unless = function() return weak.counts_late end },
        { name .. "p_tail", load = "tail",
            go = function(l, got) l.tail = got end },
        { name .. "c_head", load = "head", go = function(l, got)
            if l.tail - got > 0 then
                explore.fault "the ring has no room"
            end
        end },
        { name .. "slot", store = slot, value = n },
        { name .. "push", store = "tail",
            order = order(weak, "push", "release"),
            value = function(l) return l.tail + 1 end },
        { name .. "count late", rmw = "ready",
            value = function(old) return old + 1 end,
            unless = function() return not weak.counts_late end },
        { name .. "pushed", go = function(l) l.tail, l.put = 0, l.put + n end },
        { name .. "done" },
    }
end

-- bp_depot_take; goes to `empty`, or on.
local function take(name, empty, weak)
    return {
        { name .. "ready", load = "ready",
            go = function(_, got) return got == 0 and empty or nil end },
        { name .. "head", load = "head",
            order = order(weak, "head", "acquire"),
            go = function(l, got) l.head = got end },
        { name .. "tail", load = "tail",
            order = order(weak, "tail", "acquire"),
            go = function(l, got)
                if got == l.head then
                    l.head = 0
                    return empty
                end
            end },
        { name .. "slot", load = function(l) return "slot" .. l.head % 2 end,
            go = function(l, got) l.batch = got end },
        { name .. "pop", rmw = "head", order = order(weak, "pop", "acq_rel"),
            value = function(old, l) return old == l.head and old + 1 or nil
            end,
            go = function(l, got)
                if got ~= l.head then
                    l.batch = 0
                    return name .. "head"
                elseif l.batch == 0 then
                    explore.fault "an empty slot is taken"
                end
                l.head = 0
            end },
        { name .. "untie", use = function(l) return "bytes" .. l.batch end,
            value = function(old, l)
                l.got, l.batch = l.got + l.batch, 0
                return old
            end },
        { name .. "uncount", rmw = "ready",
            order = order(weak, "uncount", "release"),
            value = function(old)
                return old > 0 and old - 1 or explore.fault
                    "the count is too low"
            end },
    }
end

local function left_out(part)
    return function() return part end
end

-- mark_part
local function mark(name, go)
    return {
        { name, load = "marked",
            go = function(_, got) return got == 1 and go or nil end },
        { name .. " set", rmw = "marked", order = "seq_cst",
            value = function() return 1 end },
    }
end

-- bp_shelf_spill, as far as the depot goes.
local function spiller(weak)
    return explore.program("owner", put(1, weak),
        { "mark fence", fence = true, unless = left_out(weak.no_fence) },
        weak.no_mark and {} or mark("mark", "end"))
end

-- bp_caches_steal: only of a depot that is marked. unmark_depot.
local function thief(weak)
    return explore.program("thief",
        { "walk", load = "marked", order = "seq_cst",
            go = function(_, got) return got == 0 and "end" or nil end },
        take("", "unmark", weak),
        { "stolen", go = function() return "end" end },
        { "unmark", load = "marked",
            go = function(_, got) return got == 0 and "unmarked" or nil end },
        { "unmark clear", rmw = "marked", order = "seq_cst",
            value = function() return 0 end },
        { "unmarked", fence = true,
            unless = left_out(weak.no_fence_unmark) },
        { "look", load = "ready", go = function(_, got)
            return (got == 0 or weak.no_look) and "end" or nil
        end },
        mark("mark again", "end"))
end

-- A thread that takes one, if it finds any.
local function taker(name, weak)
    return explore.program(name, take("", "end", weak))
end

-- spill_one, which puts into the depot and leaves the shelf, which is closed.
local function releaser(weak)
    return explore.program("owner", put(1, weak),
        { "mark fence", fence = true, unless = left_out(weak.no_fence) },
        { "E4", load = "gate", order = "acquire",
            go = function(_, got) return got == 0 and "end" or nil end },
        take("empty ", "end", weak))
end

-- bp_cache_close: heavy_fence, whose membarrier may be refused, and
-- empty_depot.
local function closer(weak)
    return explore.program("closer",
        { "close", rmw = "gate", order = "seq_cst",
            value = function() return 1 end },
        { "fence", fence = true },
        { "heavy", heavy = true, unless = left_out(weak.no_heavy) },
        take("empty ", "end", weak))
end

-- kind: "slots", the owner puts twice while two take; "marks", it spills while
-- two look for something to steal; "close", it puts while the pool closes.
function depot.model(kind, weak)
    local threads = {
        slots = { explore.program("owner", put(1, weak), put(2, weak)),
            taker("taker", weak), taker("other taker", weak) },
        marks = { spiller(weak), thief(weak), thief(weak) },
        close = { releaser(weak), closer(weak) },
    }
    return {
        memory = {
            { "ready", 0 }, { "head", 0 }, { "tail", 0 }, { "slot0", 0 },
            { "slot1", 0 }, { "bytes1", 0 }, { "bytes2", 0 },
            { "marked", 1 }, { "gate", 0 },
        },
        vars = { "head", "tail", "batch", "put", "got" },
        threads = threads[kind],
        settled = function(memory, vars)
            local missing = 0
            for _, l in ipairs(vars) do
                missing = missing + l.put - l.got
            end
            for i = memory.head, memory.tail - 1 do
                missing = missing - memory["slot" .. i % 2]
            end
            if missing ~= 0 then
                return "a batch is lost, or in two hands"
            elseif memory.ready ~= memory.tail - memory.head then
                return "the count is wrong"
            elseif memory.ready > 0 and kind == "marks"
                and memory.marked == 0 then
                return "a depot without a mark is not empty"
            elseif memory.ready > 0 and memory.gate ~= 0 then
                return "left in the depot of a closed pool"
            end
        end,
    }
end

return depot
