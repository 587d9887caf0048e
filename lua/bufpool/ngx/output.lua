-- Response bodies: print and say.
--
-- All arguments are first checked and put into a flat list (leaves.lua), so
-- that a bad one raises before anything is sent. What one call prints goes to
-- nginx's filters as one output, as with ngx.print, and a small piece of it
-- never as a buffer of its own, because some filters go by the first buffer of
-- a response.
-- Without buffers and frozen objects among the arguments, ngx.print itself
-- sends them. With these there are two ways:
--
-- - With ngx_http_bufpool_module, frozen memory is lent to nginx, which gives
--   it back when its last byte has left. The contents of a buffer may change as
--   soon as print returns, so they are copied once, into memory of the same
--   pool, which is then lent. If anything small is among them, all is copied
--   into one buffer.
-- - Otherwise, and where no object is large or the pool has no memory for that
--   copy, ngx.print gets Lua strings of bounded size, all in one call.
--
-- Whether this handler may print is the Lua module's business. So ngx.print is
-- asked in the first way, too, and prints nothing then.

local check = require "bufpool.check"
local clock = require "bufpool.ngx.clock"
local leaves_of = require "bufpool.ngx.leaves"
local lend = require "bufpool.lend"
local module = require("bufpool.ngx.module").functions
local get_request = require("resty.core.base").get_request

local ngx_print = ngx.print
local error, pcall, select = error, pcall, select
local flatten = leaves_of.flatten

-- Fewer bytes are copied. At this size lending costs as much as a string for
-- ngx.print; at 16 KiB it saves 2 of the 17 microseconds of a request.
local WORTH = 4096

-- What ngx_http_bufpool_send returns.
local NO_MEMORY, UNTOLD = -2, 1

local send_address = module and lend.address(module.ngx_http_bufpool_send)

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

-- Sends leaves without making strings of the objects. False when there is no
-- memory for the copies of buffers, and nothing was sent.
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
        return check.call(ngx_print, n == 1 and leaves[1] or leaves)
    end
    return check.call(ngx_print, leaves_of.texts(leaves, n, name))
end

local ngx_output = {}

function ngx_output.print(...)
    return output("print", nil, ...)
end

function ngx_output.say(...)
    return output("say", "\n", ...)
end

return ngx_output
