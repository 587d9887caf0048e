-- Response bodies, copied into a buffer as they pass.
--
-- With ngx_http_bufpool_module a body filter in C copies what passes: no Lua
-- runs for a part of the body, and no string is made of it. The buffer is the
-- request's, as a scope's are. Without the module capture_chunk does the work
-- in body_filter_by_lua, where each part is a string already; the buffer is the
-- collector's then, because a scope ends before log_by_lua.

local ffi = require "ffi"
require "bufpool"
local check = require "bufpool.check"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local module = require("bufpool.ngx.module").functions
local object = require "bufpool.object"
local scope = require "bufpool.ngx.scope"
local get_request = require("resty.core.base").get_request

local ngx = ngx
local pairs, pcall, tonumber = pairs, pcall, tonumber
local tostring, type = tostring, type
local format, sub = string.format, string.sub
local live = object.live
local sink_open, sink_handle = calls.sink_open, calls.sink_handle
local bad_argument, raise = check.bad_argument, check.raise

local C = object.core.constants
local ESTALE, EMSGSIZE = C.ESTALE, C.EMSGSIZE
local sink_t = ffi.typeof("struct bufpool_sink")

-- Bytes that are kept unless the program says how many.
local MAX = 1048576
-- Where ngx.ctx has what is captured without the module.
local KEY = "bufpool.capture"

local UNFINISHED = "not all has passed"

local PHASES = {
    set = true, server_rewrite = true, rewrite = true, access = true,
    content = true, header_filter = true,
}

local function options_of(options)
    if type(options) ~= "table" then
        bad_argument(1, "capture", "table expected, got " .. type(options))
    end
    for key in pairs(options) do
        if key ~= "pool" and key ~= "max" then
            bad_argument(1, "capture", format("unknown key '%s', expected pool "
                .. "or max", tostring(key)))
        end
    end
    if object.type(options.pool) ~= "pool" then
        bad_argument(1, "capture", "pool: pool expected, got "
            .. (object.type(options.pool) or type(options.pool)))
    end
    return options.pool, check.absent(options.max) and MAX
        or check.size(options.max, "capture", 1)
end

local function request()
    local r = get_request()
    local phase = r and ngx.get_phase()
    if not PHASES[phase] then
        raise(format("bad call of 'capture' (%s)", phase
            and "in " .. phase .. "_by_lua, which is too late, or has no "
            .. "response" or "outside of a request"))
    end
    return r
end

local function begin(r, pool, max)
    local own, message = scope.scope(pool)
    local buf
    if own then
        buf, message = own:writer()
    end
    if not buf then
        return nil, message
    end
    local sink = sink_t()
    repeat
        local b, epoch = live(buf, "capture")
    until sink_open(sink, b, epoch, max) ~= ESTALE
    local status = module.ngx_http_bufpool_capture(r, sink)
    if status == 0 then
        return buf
    end
    buf:release()
    if status > 0 then
        raise "bad call of 'capture' (the response has begun)"
    end
    return nil, "out of memory"
end

local function problem_of(sink)
    if sink.error == EMSGSIZE then
        return "too large"
    elseif sink.error ~= 0 then
        return failure.shortage(sink.error, tonumber(sink.seen))
    elseif sink.ended == 0 then
        return UNFINISHED
    end
end

-- What a captured response is in, what is wrong with it, and how much passed.
local function captured_by_module(r)
    local sink = module.ngx_http_bufpool_captured(r)
    if sink == nil then
        return nil, "not captured"
    end
    local buf = sink_handle(sink)
    local seen = tonumber(sink.seen)
    if buf == nil then
        return nil, "released", seen
    end
    return buf, problem_of(sink), seen
end

-- Of such a response no body filter hears.
local function has_no_body()
    local status = ngx.status
    return status == 204 or status == 304 or ngx.req.get_method() == "HEAD"
end

local function captured_by_lua()
    local state = ngx.ctx[KEY]
    if not state then
        return nil, "not captured"
    elseif not object.is_writable(state.buf) then
        return nil, "released", state.seen
    elseif state.problem == UNFINISHED and has_no_body() then
        return state.buf, nil, 0
    end
    return state.buf, state.problem, state.seen
end

local ngx_capture = {}

function ngx_capture.captured()
    local r = get_request()
    if not r then
        raise "bad call of 'captured' (outside of a request)"
    elseif module then
        return captured_by_module(r)
    end
    return captured_by_lua()
end

function ngx_capture.capture(options)
    local pool, max = options_of(options)
    local r = request()
    local buf = ngx_capture.captured()
    if buf then
        return buf
    elseif module then
        return begin(r, pool, max)
    end
    local message
    buf, message = pool:writer()
    if buf then
        ngx.ctx[KEY] = {
            buf = buf, max = max, seen = 0, problem = UNFINISHED,
        }
    end
    return buf, message
end

local function chunk()
    return ngx.arg[1], ngx.arg[2]
end

-- As the sink does: what is kept is the beginning of what passed.
local function append(state, text)
    local room = state.max - #state.buf
    state.seen = state.seen + #text
    local ok, message = pcall(state.buf.put, state.buf,
        #text > room and sub(text, 1, room) or text)
    if not ok then
        state.full = check.without_position(message)
    elseif #text > room then
        state.full = "too large"
    end
end

function ngx_capture.capture_chunk()
    local ok, text, last = pcall(chunk)
    if not ok then
        raise(check.without_position(text))
    end
    local state = not module and ngx.ctx[KEY]
    if not state then
        return
    elseif state.full or not object.is_writable(state.buf) then
        state.seen = state.seen + #(text or "")
    elseif text and text ~= "" then
        append(state, text)
    end
    if last or state.full then
        state.problem = state.full
    end
end

return ngx_capture
