-- Response bodies: print and say.
--
-- All arguments are first checked and put into a flat list, so that a bad one
-- raises before anything is sent. Without buffers and frozen objects among
-- them, ngx.print itself sends them. With these there are two ways:
--
-- - With ngx_http_bufpool_module, frozen memory is lent to nginx, which gives
--   it back when its last byte has left. The contents of a buffer may change as
--   soon as print returns, so they are copied once, into memory of the same
--   pool, which is then lent.
-- - Otherwise, and where the pool has no memory for that copy, Lua strings of
--   bounded size go through ngx.print.
--
-- Whether this handler may print, and what else a first ngx.print changes, is
-- the Lua module's business, so ngx.print is called in either way.

local ffi = require "ffi"
local check = require "bufpool.check"
local lend = require "bufpool.lend"
local module = require("bufpool.ngx_module").functions
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local get_request = require("resty.core.base").get_request

local ngx_print, null = ngx.print, ngx.null
local error, next, pcall, rawget = error, next, pcall, rawget
local select, tostring, type = select, tostring, type
local floor, min = math.floor, math.min
local bad_argument, identify = check.bad_argument, object.identify
local view, sub = object.view, reader.methods.sub

-- Bytes of the strings that ngx.print gets when nothing is lent.
local PIECE = 65536
-- Fewer bytes are copied. At this size lending costs as much as a string for
-- ngx.print; at 16 KiB it saves 2 of the 17 microseconds of a request.
local WORTH = 4096
-- Tables in tables; more is taken for a cycle.
local DEPTH = 100
-- Strings and objects in one call.
local LEAVES = 2 ^ 22

local send_address = module and lend.address(module.ngx_http_bufpool_send)

local flatten

local function wrong(x, name, arg, depth)
    if type(x) == "userdata" or type(x) == "cdata" then
        object.reject(x, name, "string, number, buffer, frozen or table", arg)
    end
    bad_argument(arg, name, (depth > 0 and "%s found in a table" or
        "string, number, boolean, nil, buffer, frozen or table expected, "
        .. "got %s"):format(type(x)))
end

-- Keys 1 to max; what is missing in between counts as nil.
local function flatten_table(x, leaves, n, largest, name, arg, depth)
    if depth == DEPTH then
        bad_argument(arg, name, ("tables in more than %d tables: is there a "
            .. "cycle?"):format(DEPTH))
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

---Appends x to leaves[1] to leaves[n], as strings, buffers and frozen objects.
---@return integer n
---@return integer largest bytes of the largest object; -1 where there is none
function flatten(x, leaves, n, largest, name, arg, depth)
    local kind = type(x)
    if kind == "table" then
        return flatten_table(x, leaves, n, largest, name, arg, depth)
    elseif n >= LEAVES then
        bad_argument(arg, name, ("more than %d strings"):format(LEAVES))
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
        local _, len = view(x, name, arg)
        if len > largest then
            largest = len
        end
    end
    leaves[n + 1] = x
    return n + 1, largest
end

---Calls ngx.print, whose errors are raised at the caller's line.
local function call_print(what)
    local ok, done, err = pcall(ngx_print, what)
    if not ok then
        check.raise(check.without_position(done))
    end
    return done, err
end

---Sends leaves by ngx.print: strings together, objects in pieces.
local function print_strings(leaves, n, name)
    local batch, count, size = {}, 0, 0
    local function add(text)
        if size + #text > PIECE and count > 0 then
            local done, err = call_print(batch)
            if not done then
                return nil, err
            end
            batch, count, size = {}, 0, 0
        end
        count, size = count + 1, size + #text
        batch[count] = text
        return true
    end
    for i = 1, n do
        local x = leaves[i]
        if type(x) == "string" then
            local done, err = add(x)
            if not done then
                return nil, err
            end
        else
            local _, len = view(x, name)
            for from = 1, len, PIECE do
                local done, err = add(sub(x, from, min(from + PIECE - 1, len)))
                if not done then
                    return nil, err
                end
            end
        end
    end
    return call_print(batch)
end

-- Most calls print one object. A trace gives up at a loop that it leaves after
-- one round, so the functions below do the first round before the loop.

-- What ngx.print is to send before anything is lent: nothing, or for the first
-- time in a request the first byte. ngx.flush and the buffering for HTTP/1.0 go
-- by whether ngx.print has sent one.
local function first_bytes(r, list, n)
    if module.ngx_http_bufpool_begun(r) ~= 0 then
        return ""
    end
    local i = 0
    if list[0].len == 0 then
        repeat
            i = i + 1
            if i == n then
                return ""
            end
        until list[i].len > 0
    end
    local piece = list[i]
    local byte = ffi.string(piece.at, 1)
    piece.at, piece.len = piece.at + 1, piece.len - 1
    return byte
end

local function lend_and_send(r, list, leaves, n, name)
    if lend.fill(list[0], leaves[1], name) ~= 0 then
        return false
    end
    for i = 2, n do
        if lend.fill(list[i - 1], leaves[i], name) ~= 0 then
            return false
        end
    end
    local done, err = call_print(first_bytes(r, list, n))
    if not done then
        return nil, err
    elseif lend.deliver(send_address, r, list, n, WORTH) ~= 0 then
        return nil, "nginx output filter error"
    end
    return 1
end

---Sends leaves without copying what is large. False when there is no memory for
---the copies of buffers, and nothing was sent.
---@return integer|false? done
---@return string? err
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

---@param last? string
local function output(name, last, ...)
    local leaves, n, largest, count = {}, 0, -1, select("#", ...)
    if count > 0 then
        n, largest = flatten_all(leaves, n, largest, name, 1, count, ...)
    end
    if last then
        n = n + 1
        leaves[n] = last
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

---As ngx.print, for buffers and frozen objects too. Frozen memory is not copied
---where zero_copy is true: it goes back when its last byte has left.
---@param ... bufpool.Printable
---@return integer? done 1
---@return string? message
function ngx_output.print(...)
    return output("print", nil, ...)
end

---As print, with a line feed at the end.
---@param ... bufpool.Printable
---@return integer? done 1
---@return string? message
function ngx_output.say(...)
    return output("say", "\n", ...)
end

return ngx_output
