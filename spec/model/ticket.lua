-- An entry of the table of tickets, which is used twice: T1 to T5 of
-- src/core/ticket.c. The number of a ticket is how often its entry was used; it
-- goes to others by a relaxed store, because a program may pass it by any
-- means. The second ticket has expired when it is issued. The stacks of spare
-- entries are one location that has the entry or not; stack.lua has the rest.
local explore = require "model.explore"

local EARLY, NOW, LATE = 1, 5, 9

local ticket = {}

local function order(weak, name, strong)
    return weak["relaxed_" .. name] and "relaxed" or strong
end

local function is_live(word)
    return word % 2 == 1
end

-- take_entry and issue_ticket. The buffer that a ticket stands for has its
-- number.
local function issue(n, expires, weak)
    local name = "issue " .. n .. ": "
    return {
        { name .. "T4", rmw = "spare", order = order(weak, "T4", "acquire"),
            value = function() return 0 end,
            go = function(_, got) return got == 0 and "end" or nil end },
        { name .. "number", rmw = "word",
            value = function(old) return weak.no_count and old or old + 2 end,
            go = function(l, got) l.word = weak.no_count and got or got + 2 end
        },
        { name .. "fields", use = "buf", value = function() return n end },
        { name .. "expires", store = "expires", value = expires },
        { name .. "T1", store = "word", order = order(weak, "T1", "release"),
            value = function(l) return l.word + 1 end },
        { name .. "pass", store = "passed", value = n },
    }
end

local function issuer(weak)
    return explore.program("issuer", issue(1, LATE, weak),
        issue(2, EARLY, weak))
end

-- claim_entry and take_out. expired: whether the ticket is to be one that has
-- expired.
local function take_out(expired, weak)
    return {
        { "T2", rmw = "word", order = order(weak, "T2", "acquire"),
            value = function(old, l)
                return old == l.word and old - 1 or nil
            end,
            go = function(l, got) return got ~= l.word and "end" or nil end },
        { "take out", use = "buf", value = function(old, l)
            if l.ticket ~= 0 and l.ticket ~= old then
                explore.fault "the buffer of another ticket"
            elseif (old == 2) ~= expired then
                explore.fault(expired and "expired too early"
                    or "adopted too late")
            end
            l.out = l.out + old
            return 0
        end },
        { "T3", rmw = "spare", order = order(weak, "T3", "release"),
            value = function() return 1 end },
    }
end

-- bufpool_adopt_range
local function adopter(weak)
    return explore.program("adopter",
        { "ticket", load = "passed",
            go = function(l, got)
                l.ticket = got
                return got == 0 and "end" or nil
            end },
        { "T5", load = "word", order = order(weak, "T5", "acquire"),
            go = function(l, got)
                l.word = got
                if not is_live(got)
                    or not weak.no_count and got ~= 2 * l.ticket + 1 then
                    return "end"
                end
            end },
        { "in time", load = "expires",
            go = function(_, got) return got <= NOW and "end" or nil end },
        take_out(false, weak))
end

-- expire_block
local function expirer(weak)
    return explore.program("expirer",
        { "look", load = "word", order = "seq_cst",
            go = function(l, got)
                l.word = got
                return not is_live(got) and "end" or nil
            end },
        { "due", load = "expires", order = "seq_cst",
            go = function(_, got) return got > NOW and "end" or nil end },
        take_out(true, weak))
end

-- kind: "adopt", two adopt what a third issues; "expire", one adopts and one
-- expires; "both", two adopt and one expires.
function ticket.model(kind, weak)
    local threads = { issuer(weak), adopter(weak),
        (kind == "adopt" and adopter or expirer)(weak) }
    if kind == "both" then
        threads[4] = adopter(weak)
    end
    return {
        memory = {
            { "word", 0 }, { "expires", 0 }, { "buf", 0 }, { "spare", 1 },
            { "passed", 0 },
        },
        vars = { "word", "ticket", "out" },
        threads = threads,
        settled = function(memory, vars)
            local out, passed = 0, memory.passed
            for _, l in ipairs(vars) do
                out = out + l.out
            end
            if out + (is_live(memory.word) and memory.buf or 0)
                ~= passed * (passed + 1) / 2 then
                return "a buffer is lost, or in two hands"
            end
        end,
    }
end

return ticket
