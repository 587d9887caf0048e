-- Which tickets may be due: src/core/expiry.c, and expire_block of ticket.c.
-- There are two blocks, one group above them, and one word above that; each
-- level of the code is like the group here. A word has a time, NEVER where
-- nothing is expected. Two entries are LIVE or not; ticket.lua has the rest.
local explore = require "model.explore"

local NOW, NEVER = 5, 9
local LEVELS = 3
local words = { { "block1", "block2" }, { "group" }, { "all" } }

local expiry = {}

local function word_at(level, block)
    return words[level][level == 1 and block or 1]
end

-- lower_time at each level from `level` on, to l.at (expect_block).
local function lower(name, level, block)
    local steps = {}
    for i = level, LEVELS do
        local word = word_at(i, block)
        steps[#steps + 1] = {
            { name .. "is " .. word, load = word, order = "seq_cst",
                go = function(l, got)
                    return got <= l.at and name .. "above " .. word or nil
                end },
            { name .. "lower " .. word, rmw = word, order = "seq_cst",
                value = function(old, l) return old > l.at and l.at or nil end
            },
            { name .. "above " .. word },
        }
    end
    return { steps, { name .. "lowered", go = function(l) l.at = 0 end } }
end

-- raise_word: stores NEVER, reads what is below, and lowers the word to that.
local function raise(name, level, weak)
    local word = word_at(level, 1)
    local never = { name .. "raise " .. word, rmw = word, order = "seq_cst",
        value = function() return NEVER end }
    local reads = {}
    for _, child in ipairs(words[level - 1]) do
        reads[#reads + 1] = { name .. "read " .. child, load = child,
            order = weak.relaxed_read and "relaxed" or "seq_cst",
            go = function(l, got)
                if l.at == 0 or got < l.at then
                    l.at = got
                end
            end }
    end
    return {
        weak.raises_late and { reads, never } or { never, reads },
        lower(name .. "raised ", level, 1),
    }
end

-- issue_ticket: makes the entry LIVE, and expects it.
local function issuer(entry, at, weak)
    return explore.program("issuer",
        { "T1", store = "live" .. entry, value = at, order = "release" },
        { "fence", fence = true, unless = function() return weak.no_fence end },
        { "expect", go = function(l) l.at = at end },
        lower("expect ", 1, entry == 3 and 2 or 1))
end

-- The entries of block 1 that are due go, and the others' times are kept.
-- An entry's location has its time, 0 where it is not LIVE.
local function look(entry)
    local name = "look " .. entry
    return {
        { name, load = "live" .. entry, order = "seq_cst",
            go = function(l, got)
                if got > NOW and got < l.at then
                    l.at = got
                end
                return (got == 0 or got > NOW) and name .. " done" or nil
            end },
        { name .. " claim", rmw = "live" .. entry, order = "acquire",
            value = function(old) return old ~= 0 and 0 or nil end },
        { name .. " done" },
    }
end

-- bp_expiry_take, expire_block and bp_expiry_put_back, for block 1. Where
-- nothing is found to be due, the word above is raised.
local function expirer(weak)
    local function due(child, otherwise)
        return { "due " .. child, load = child, order = "seq_cst",
            go = function(_, got) return got > NOW and otherwise or nil end }
    end
    local function ending(step)
        return { step, go = function() return "end" end }
    end
    local take = { "take", rmw = "block1", order = "seq_cst",
        value = function() return NEVER end }
    local looks = {
        { "begin", go = function(l) l.at = NEVER end },
        look(1), look(2),
    }
    return explore.program("expirer",
        due("group", "raise all first"),
        due("block1", "raise group first"),
        weak.takes_late and { looks, take } or { take, looks },
        lower("put back ", 1, 1),
        due("block1", "raise group"), ending "put back",
        { "raise group" }, raise("group ", 2, weak),
        { "still", load = "group", order = "seq_cst",
            go = function(_, got) return got <= NOW and "end" or nil end },
        raise("all ", 3, weak), ending "raised",
        { "raise group first" }, raise("group first ", 2, weak),
        ending "raised group first",
        { "raise all first" }, raise("all first ", 3, weak))
end

-- Entry 1, of block 1, is due. kind: "same", one takes the block as an entry of
-- it is issued; "other", as one of the other block is; "two", two take it, in
-- which entry 2 is expected, too.
function expiry.model(kind, weak)
    local entry = kind == "other" and 3 or 2
    local two = kind == "two"
    return {
        memory = {
            { "live1", 3 }, { "live2", two and 7 or 0 }, { "live3", 0 },
            { "block1", 3 }, { "block2", NEVER }, { "group", 3 },
            { "all", 3 },
        },
        vars = { "at" },
        threads = { expirer(weak),
            two and expirer(weak) or issuer(entry, 7, weak) },
        settled = function(memory)
            for i = 1, 3 do
                local at, block = memory["live" .. i], word_at(1, i < 3 and 1
                    or 2)
                if at ~= 0 and (memory[block] > at or memory.group > at
                    or memory.all > at) then
                    return "entry " .. i .. " is not expected"
                end
            end
        end,
    }
end

return expiry
