-- What a program gives to be sent: strings, numbers, booleans, nil, ngx.null,
-- buffers, handles, frozen objects, and tables of them, as ngx.print takes its
-- arguments. All are checked and put into a flat list, the leaves, before
-- anything is sent.

local check = require "bufpool.check"
local object = require "bufpool.object"
local reader = require "bufpool.reader"

-- Outside of nginx there is none.
local null = check.in_nginx and ngx.null
local next, rawget, tostring, type = next, rawget, tostring, type
local floor, min = math.floor, math.min
local format = string.format
local identify, look, sub = object.identify, object.look, reader.methods.sub

-- Bytes of the strings that nginx's Lua module gets of an object.
local PIECE = 65536
-- Tables in tables; more is taken for a cycle.
local DEPTH = 100
-- Strings and objects in one call.
local LEAVES = 2 ^ 22

-- `arg` is the number of an argument of `name`, or 0 for what a function that
-- `name` was given has returned.
local function bad(arg, name, what)
    if arg == 0 then
        check.raise(format("bad result of the function of '%s' (%s)", name,
            what))
    end
    check.bad_argument(arg, name, what)
end

local flatten

local function wrong(x, name, arg, depth)
    if object.death(x)
        or arg > 0 and (type(x) == "userdata" or type(x) == "cdata") then
        object.reject(x, name, "string, number, buffer, frozen or table", arg)
    end
    bad(arg, name, format(depth > 0 and "%s found in a table" or
        "string, number, boolean, nil, buffer, frozen or table expected, "
        .. "got %s", object.type(x) or type(x)))
end

-- Keys 1 to max; what is missing in between counts as nil.
local function flatten_table(x, leaves, n, largest, name, arg, depth)
    if depth == DEPTH then
        bad(arg, name, format("tables in more than %d tables: is "
            .. "there a cycle?", DEPTH))
    end
    local max = 0
    for key in next, x do
        if type(key) ~= "number" or key < 1 or key ~= floor(key) then
            bad(arg, name, "array expected, got a table with other keys")
        end
        if key > max then
            max = key
        end
    end
    for i = 1, max do
        n, largest = flatten(rawget(x, i), leaves, n, largest, name, arg,
            depth + 1)
    end
    return n, largest
end

-- Appends x to leaves[1] to leaves[n], as strings, buffers and frozen objects.
-- Returns the new n, and the bytes of the largest object, -1 without an object.
function flatten(x, leaves, n, largest, name, arg, depth)
    local kind = type(x)
    if kind == "table" then
        return flatten_table(x, leaves, n, largest, name, arg, depth)
    elseif n >= LEAVES then
        bad(arg, name, format("more than %d strings", LEAVES))
    elseif kind == "number" then
        -- ngx.print knows no negative zero.
        x = x == 0 and "0" or tostring(x)
    elseif kind == "nil" or kind == "boolean" then
        x = tostring(x)
    elseif kind == "userdata" and null and x == null then
        x = "null"
    elseif kind ~= "string" then
        local what, alive = identify(x)
        if not alive or what == "pool" then
            wrong(x, name, arg, depth)
        end
        local len = look(x, name, arg)
        if len > largest then
            largest = len
        end
    end
    leaves[n + 1] = x
    return n + 1, largest
end

-- The n leaves as strings, objects in pieces.
local function texts(leaves, n, name)
    local list, count = {}, 0
    for i = 1, n do
        local x = leaves[i]
        if type(x) == "string" then
            count = count + 1
            list[count] = x
        else
            local len = look(x, name)
            for from = 1, len, PIECE do
                count = count + 1
                list[count] = sub(x, from, min(from + PIECE - 1, len))
            end
        end
    end
    return list
end

return { flatten = flatten, texts = texts }
