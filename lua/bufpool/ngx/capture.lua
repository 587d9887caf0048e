-- Response bodies, copied into a buffer as they pass.
--
-- With ngx_http_bufpool_module a body filter in C copies what passes: no Lua
-- runs for a part of the body, and no string is made of it. The buffer is the
-- request's, as a scope's are. Without the module capture_chunk does the work
-- in body_filter_by_lua, where each part is a string already; the buffer is the
-- collector's then, because a scope ends before log_by_lua.

require "bufpool"
local check = require "bufpool.check"
local calls = require "bufpool.calls"
local module = require("bufpool.ngx.module").functions
local object = require "bufpool.object"
local sink_of = require "bufpool.ngx.sink"
local get_request = require("resty.core.base").get_request

local ngx = ngx
local at_least, tonumber = math.max, tonumber
local format, sub = string.format, string.sub
local sink_handle = calls.sink_handle
local raise = check.raise

-- Where ngx.ctx has what is captured without the module.
local KEY = "bufpool.capture"

local UNFINISHED = "not all has passed"

local KEYS = { "pool", "max" }

local PHASES = {
    set = true, server_rewrite = true, rewrite = true, access = true,
    content = true, header_filter = true,
}

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
    local buf, sink = sink_of.open(pool, max, "capture")
    if not buf then
        return nil, sink
    end
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
    return buf, sink_of.problem(sink)
        or sink.ended == 0 and UNFINISHED or nil, seen
end

local function captured_by_lua()
    local state = ngx.ctx[KEY]
    if not state then
        return nil, "not captured"
    elseif not object.is_writable(state.buf) then
        return nil, "released", state.seen
    elseif state.problem == UNFINISHED and sink_of.has_no_body() then
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
    local pool, max = sink_of.options(options, "capture", KEYS)
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
    local room = at_least(state.max - #state.buf, 0)
    state.seen = state.seen + #text
    state.full = sink_of.append(state.buf, #text > room and sub(text, 1, room)
        or text) or #text > room and sink_of.TOO_LARGE or nil
end

function ngx_capture.capture_chunk()
    local text, last = check.call(chunk)
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
