-- Buffers that fill with a response as it passes: what capture and rewrite have
-- in common.

local ffi = require "ffi"
require "bufpool"
local check = require "bufpool.check"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local object = require "bufpool.object"
local scope = require "bufpool.ngx.scope"

local ngx = ngx
local concat, format, gsub = table.concat, string.format, string.gsub
local pairs, pcall, tostring, type = pairs, pcall, tostring, type
local live, sink_open = object.live, calls.sink_open
local bad_argument = check.bad_argument

local C = object.core.constants
local EMSGSIZE, ESTALE = C.EMSGSIZE, C.ESTALE
local sink_t = ffi.typeof("struct bufpool_sink")

-- Bytes that are kept unless the program says how many.
local MAX = 1048576

local sink = { TOO_LARGE = "too large" }

local function is_in(list, x)
    for i = 1, #list do
        if list[i] == x then
            return true
        end
    end
    return false
end

-- The pool, and how many bytes are kept at most, out of the options of `name`,
-- which have no other keys than `keys`.
function sink.options(options, name, keys)
    if type(options) ~= "table" then
        bad_argument(1, name, "table expected, got " .. type(options))
    end
    for key in pairs(options) do
        if not is_in(keys, key) then
            bad_argument(1, name, format("unknown key '%s', expected one of %s",
                tostring(key), concat(keys, ", ")))
        end
    end
    if object.type(options.pool) ~= "pool" then
        bad_argument(1, name, "pool: pool expected, got "
            .. (object.type(options.pool) or type(options.pool)))
    end
    return options.pool, check.absent(options.max) and MAX
        or check.size(options.max, name, 1)
end

-- Of such a response no body filter hears.
function sink.has_no_body()
    local status = ngx.status
    return status == 204 or status == 304 or ngx.req.get_method() == "HEAD"
end

-- An empty buffer of this request with room for n bytes, or nil and why there
-- is no memory.
function sink.buffer(pool, n)
    return scope.writer(pool, n or 0)
end

-- Such a buffer, and a struct bufpool_sink that fills it with up to max bytes.
function sink.open(pool, max, name, n)
    local buf, message = sink.buffer(pool, n)
    if not buf then
        return nil, message
    end
    local to = sink_t()
    repeat
        local b, epoch = live(buf, name)
    until sink_open(to, b, epoch, max) ~= ESTALE
    return buf, to
end

-- Why bytes are missing in what such a struct has kept, or nil.
function sink.problem(from)
    if from.error == EMSGSIZE then
        return sink.TOO_LARGE
    end
    return from.error ~= 0 and failure.shortage(from.error, from.asked) or nil
end

-- Appends a string where no C filter does. Why there is no memory, or nil.
function sink.append(buf, text)
    local ok, message = pcall(buf.put, buf, text)
    return not ok and gsub(tostring(message), "^.-cannot grow in 'put': ", "")
        or nil
end

return sink
