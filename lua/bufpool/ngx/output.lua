-- Response bodies: print and say.
--
-- All arguments are first checked and put into a flat list, so that a bad one
-- raises before anything is sent. What one call prints goes to nginx's filters
-- as one output, as with ngx.print, and a small piece of it never as a buffer
-- of its own, because some filters go by the first buffer of a response.
-- Without buffers and frozen objects among the arguments, ngx.print itself
-- sends them. With these there are two ways:
--
-- - With ngx_http_bufpool_module, frozen memory is lent to nginx, which gives
--   it back when its last byte has left. The contents of a buffer may change as
--   soon as print returns, so they are copied once, into memory of the same
--   pool, which is then lent. If anything small is among them, all is copied
--   into one buffer.
-- - Otherwise, and where the pool has no memory for that copy, ngx.print gets
--   Lua strings of bounded size, all in one call.
--
-- Whether this handler may print is the Lua module's business. So ngx.print is
-- asked in either way; it prints nothing then.

local check = require "bufpool.check"
local clock = require "bufpool.ngx.clock"
local lend = require "bufpool.lend"
local module = require("bufpool.ngx.module").functions
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local get_request = require("resty.core.base").get_request

local ngx_print, null = ngx.print, ngx.null
local error, next, pcall, rawget = error, next, pcall, rawget
local select, tostring, type = select, tostring, type
local floor, min = math.floor, math.min
local format = string.format
local bad_argument, identify = check.bad_argument, object.identify
local look, sub = object.look, reader.methods.sub

-- Bytes of the strings that ngx.print gets when nothing is lent.
local PIECE = 65536
-- Fewer bytes are copied. At this size lending costs as much as a string for
-- ngx.print; at 16 KiB it saves 2 of the 17 microseconds of a request.
local WORTH = 4096
-- Tables in tables; more is taken for a cycle.
local DEPTH = 100
-- Strings and objects in one call.
local LEAVES = 2 ^ 22

-- What ngx_http_bufpool_send returns.
local NO_MEMORY, UNTOLD = -2, 1

local send_address = module and lend.address(module.ngx_http_bufpool_send)

local flatten

local function wrong(x, name, arg, depth)
    if type(x) == "userdata" or type(x) == "cdata" then
        object.reject(x, name, "string, number, buffer, frozen or table", arg)
    end
    bad_argument(arg, name, format(depth > 0 and "%s found in a table" or
        "string, number, boolean, nil, buffer, frozen or table expected, "
        .. "got %s", type(x)))
end

-- Keys 1 to max; what is missing in between counts as nil.
local function flatten_table(x, leaves, n, largest, name, arg, depth)
    if depth == DEPTH then
        bad_argument(arg, name, format("tables in more than %d tables: is "
            .. "there a cycle?", DEPTH))
    end
    local max = 0
    for key in next, x do
        if type(key) ~= "number" or key < 1 or key ~= floor(key) then
            bad_argument(arg, name, "array expected, got a table with other "
                .. "keys")
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
        bad_argument(arg, name, format("more than %d strings", LEAVES))
    elseif kind == "number" then
        -- ngx.print knows no negative zero.
        x = x == 0 and "0" or tostring(x)
    elseif kind == "nil" or kind == "boolean" then
        x = tostring(x)
    elseif kind == "userdata" and x == null then
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

-- Calls ngx.print, whose errors are raised at the caller's line.
local function call_print(what)
    local ok, done, err = pcall(ngx_print, what)
    if not ok then
        check.raise(check.without_position(done))
    end
    return done, err
end

-- Sends leaves by one ngx.print, objects in pieces.
local function print_strings(leaves, n, name)
    local texts, count = {}, 0
    for i = 1, n do
        local x = leaves[i]
        if type(x) == "string" then
            count = count + 1
            texts[count] = x
        else
            local len = look(x, name)
            for from = 1, len, PIECE do
                count = count + 1
                texts[count] = sub(x, from, min(from + PIECE - 1, len))
            end
        end
    end
    return call_print(texts)
end

-- Calls ngx.print while it prints nothing: what it returns and raises tells
-- whether this handler may print.
local function pretend(r, what)
    module.ngx_http_bufpool_pretend(r, 1)
    local ok, done, err = pcall(ngx_print, what)
    module.ngx_http_bufpool_pretend(r, 0)
    return ok, done, err
end

-- Most calls print one object. A trace gives up at a loop that it leaves after
-- one round, so the first round comes before the loop.
local function lend_and_send(r, list, leaves, n, name)
    local ok, done, err = pretend(r, "")
    if not ok then
        check.raise(check.without_position(done))
    elseif not done then
        return nil, err
    elseif lend.fill(list[0], leaves[1], name) ~= 0 then
        return false
    end
    for i = 2, n do
        if lend.fill(list[i - 1], leaves[i], name) ~= 0 then
            return false
        end
    end
    local result = lend.deliver(send_address, r, list, n, WORTH)
    if result == NO_MEMORY then
        return nil, "no memory"
    elseif result < 0 then
        return nil, "nginx output filter error"
    elseif result == UNTOLD then
        pretend(r, " ")
    end
    return 1
end

-- Sends leaves without copying what is large. False when there is no memory for
-- the copies of buffers, and nothing was sent.
local function send(r, leaves, n, name)
    local list, size = lend.take_list(n)
    local ok, done, err = pcall(lend_and_send, r, list, leaves, n, name)
    lend.return_list(list, size, n)
    if not ok then
        error(done, 0)
    end
    return done, err
end

local function flatten_all(leaves, n, largest, name, arg, count, x, ...)
    n, largest = flatten(x, leaves, n, largest, name, arg, 0)
    if arg < count then
        return flatten_all(leaves, n, largest, name, arg + 1, count, ...)
    end
    return n, largest
end

local function output(name, last, ...)
    local leaves, n, largest, count = {}, 0, -1, select("#", ...)
    if count > 0 then
        n, largest = flatten_all(leaves, n, largest, name, 1, count, ...)
    end
    if last then
        n = n + 1
        leaves[n] = last
    end
    if not clock.started then
        clock.start()
    end
    local r = largest >= WORTH and module and get_request()
    if r then
        local done, err = send(r, leaves, n, name)
        if done ~= false then
            return done, err
        end
    end
    if largest < 0 then
        return call_print(n == 1 and leaves[1] or leaves)
    end
    return print_strings(leaves, n, name)
end

local ngx_output = {}

function ngx_output.print(...)
    return output("print", nil, ...)
end

function ngx_output.say(...)
    return output("say", "\n", ...)
end

return ngx_output
