-- A Treiber stack whose head carries a tag: src/core/stack.h, and
-- bp_buf_pop_all of src/core/buf.c. The head is 8 times the tag plus the number
-- on top, 0 when it is empty.
local explore = require "model.explore"

local stack = {}

local function top(head)
    return head % 8
end

local function with(head, number, weak)
    return head - top(head) + (weak.no_tag and 0 or 8) + number
end

local function next_of(l)
    return "next" .. top(l.head)
end

-- The steps that follow `name`. `hand`: the variable that gets the number.
local function pop(name, hand, weak)
    local order = weak.relaxed_pop and "relaxed" or "acquire"
    local done = name .. "done"
    return {
        { name .. "load", load = "head", order = order,
            go = function(l, got)
                l.head, l[hand] = got, 0
                return top(got) == 0 and done or nil
            end },
        { name .. "next", load = next_of,
            go = function(l, got) l.next = got end },
        { name .. "pop", rmw = "head", order = order,
            value = function(old, l)
                return old == l.head and with(old, l.next, weak) or nil
            end,
            go = function(l, got)
                if got ~= l.head then
                    return name .. "load"
                end
                l[hand] = top(got)
            end },
        { name .. "use", use = function(l) return "bytes" .. l[hand] end,
            value = function(old) return old end },
        { done, go = function(l) l.head, l.next = 0, 0 end },
    }
end

local function push(name, hand, weak)
    local function empty(l)
        return l[hand] == 0
    end
    return {
        { name .. "load", load = "head", unless = empty,
            go = function(l, got) l.head = got end },
        { name .. "next", store = function(l) return "next" .. l[hand] end,
            value = function(l) return top(l.head) end, unless = empty },
        { name .. "push", rmw = "head", unless = empty,
            order = weak.relaxed_push and "relaxed" or "release",
            value = function(old, l)
                return old == l.head and with(old, l[hand], weak) or nil
            end,
            go = function(l, got)
                if got ~= l.head then
                    return name .. "load"
                end
                l[hand], l.head = 0, 0
            end },
    }
end

-- The list is walked without an exchange, because it is the thread's own.
local function pop_all(weak)
    return {
        { "all", rmw = "head",
            order = weak.relaxed_all and "relaxed" or "acquire",
            value = function(old) return with(old, 0, weak) end,
            go = function(l, got) l.head = top(got) end },
        { "walk", go = function(l)
            if l.head == 0 then
                return "end"
            end
            l.all = l.all * 8 + l.head
        end },
        { "all use", use = function(l) return "bytes" .. l.head end,
            value = function(old) return old end },
        { "all next", load = next_of,
            go = function(l, got)
                l.head = got
                return "walk"
            end },
    }
end

local function settled(memory, vars)
    local seen, count = {}, 0
    local function find(number)
        if number == 0 then
            return
        elseif seen[number] then
            return number .. " is in two places"
        end
        seen[number], count = true, count + 1
    end
    local wrong
    for _, l in ipairs(vars) do
        wrong = wrong or find(l.a) or find(l.b)
        while l.all > 0 do
            wrong = wrong or find(l.all % 8)
            l.all = math.floor(l.all / 8)
        end
    end
    local number = top(memory.head)
    while number ~= 0 and not wrong do
        wrong = find(number)
        number = memory["next" .. number]
    end
    return wrong or count < 3 and (3 - count) .. " are lost" or nil
end

-- Numbers 1 to 3 are on the stack, 1 on top. kind: "pop", a pop while another
-- thread pops two and pushes the first back; "all", pop_all while one pops and
-- another pops and pushes back.
function stack.model(kind, weak)
    local one = explore.program("one", pop("", "a", weak))
    local back = explore.program("back", pop("", "a", weak),
        kind == "pop" and pop("second ", "b", weak) or {},
        push("back ", "a", weak))
    local all = explore.program("all", pop_all(weak))
    return {
        memory = {
            { "head", 1 }, { "next1", 2 }, { "next2", 3 }, { "next3", 0 },
            { "bytes1", 0 }, { "bytes2", 0 }, { "bytes3", 0 },
        },
        vars = { "head", "next", "a", "b", "all" },
        threads = kind == "pop" and { one, back } or { one, back, all },
        settled = settled,
    }
end

return stack
