-- Responses that a Lua function rewrites as a whole.
--
-- With ngx_http_bufpool_module a body filter in C, which stands in front of the
-- Lua module's, keeps what passes in a buffer. Of the parts of a body Lua hears
-- nothing, and rewrite_chunk gets all of it with the last one. What replaces it
-- is lent to nginx. Without the module, and where nginx loads ours before the
-- Lua module, rewrite_chunk keeps the parts, which are strings already.
--
-- ngx.ctx has what is to be done, so an internal redirect forgets it, in both
-- ways. The buffer is the request's, as a scope's are.

require "bufpool"
local check = require "bufpool.check"
local calls = require "bufpool.calls"
local leaves_of = require "bufpool.ngx.leaves"
local lend = require "bufpool.lend"
local module = require("bufpool.ngx.module").functions
local object = require "bufpool.object"
local sink_of = require "bufpool.ngx.sink"
local get_request = require("resty.core.base").get_request

local ngx = ngx
local format = string.format
local ipairs, tonumber, type = ipairs, tonumber, type
local sink_handle = calls.sink_handle
local absent, raise = check.absent, check.raise
local flatten, texts = leaves_of.flatten, leaves_of.texts
local is_writable = object.is_writable

local KEY = "bufpool.rewrite"
local KEYS = { "pool", "max", "fn" }
local TOO_LARGE = sink_of.TOO_LARGE

-- What ngx_http_bufpool_hold returns.
local NO_MEMORY, DONE = -1, 0

-- What a client caches or continues by; none of it is true of other bytes.
-- nginx's SSI filter takes away the same.
local HEADERS = {
    "Content-Length", "Accept-Ranges", "Last-Modified", "ETag",
}

local function must_be_in(phase, name)
    local is = get_request() and ngx.get_phase()
    if is ~= phase then
        raise(format("bad call of '%s' (%s, expected in %s_by_lua)", name,
            is and "in " .. is .. "_by_lua" or "outside of a request", phase))
    end
end

-- Why a function could not work on this response, if the header tells; or nil
-- and how long the header says that it is, 0 if it does not.
local function unfit(max)
    local header = ngx.header
    local length = tonumber(header.content_length) or 0
    if header.content_encoding then
        return "packed"
    elseif ngx.status == 206 then
        return "a part"
    elseif length > max then
        return TOO_LARGE
    end
    return nil, length
end

-- What rewrite_chunk is to do; or nil and why there is no memory.
local function begin(pool, max, fn, length)
    local buf, sink
    if module then
        buf, sink = sink_of.open(pool, max, "rewrite", length)
    else
        buf, sink = sink_of.buffer(pool, length)
    end
    if not buf then
        return nil, sink
    end
    local status = module and module.ngx_http_bufpool_hold(get_request(), sink)
    if status == NO_MEMORY then
        buf:release()
        return nil, "out of memory"
    end
    return {
        pool = pool, max = max, fn = fn, buf = status ~= DONE and buf or nil,
    }
end

local ngx_rewrite = {}

function ngx_rewrite.rewrite(options)
    local pool, max = sink_of.options(options, "rewrite", KEYS)
    local fn = options.fn
    if type(fn) ~= "function" then
        check.bad_argument(1, "rewrite", "fn: function expected, got "
            .. (object.type(fn) or type(fn)))
    end
    must_be_in("header_filter", "rewrite")
    if ngx.ctx[KEY] then
        return nil, "rewritten already"
    end
    local why, length = unfit(max)
    if why then
        return nil, why
    end
    if not sink_of.has_no_body() then
        local state, message = begin(pool, max, fn, length)
        if not state then
            return nil, message
        end
        ngx.ctx[KEY] = state
    end
    for _, name in ipairs(HEADERS) do
        ngx.header[name] = nil
    end
    return true
end

-- The leaves as one object; nil where the pool has no memory for that.
local function as_one(pool, leaves, n)
    if n == 1 and type(leaves[1]) ~= "string" then
        return leaves[1]
    end
    local size = 0
    for i = 1, n do
        size = size + #leaves[i]
    end
    local to = sink_of.buffer(pool, size)
    if to then
        for i = 1, n do
            to:put(leaves[i])
        end
    end
    return to
end

-- Has the object sent. Its memory is nginx's until the request ends.
local function replace(x)
    local ours = is_writable(x)
    local frozen = ours and x:freeze() or x
    local list, size = lend.take_list(1)
    local done = lend.fill(list[0], frozen, "rewrite") == 0
        and module.ngx_http_bufpool_replace(get_request(), list[0]) == 0
    lend.return_list(list, size, 1)
    if ours then
        frozen:release()
    end
    if not done then
        raise "out of memory for the result of the function of 'rewrite'"
    end
end

-- Sends what the function makes of the body. Buffers that it returns are the
-- response's.
local function answer(state, body)
    local result = state.fn(body)
    if absent(result) then
        result = body
    end
    local leaves = {}
    local n = flatten(result, leaves, 0, -1, "rewrite", 0, 0)
    local one = not state.buf and as_one(state.pool, leaves, n)
    if one then
        replace(one)
    else
        ngx.arg[1] = texts(leaves, n, "rewrite")
    end
    leaves[n + 1] = body
    for i = 1, n + 1 do
        if is_writable(leaves[i]) then
            leaves[i]:release()
        end
    end
end

local function tell(why)
    ngx.log(ngx.WARN, "bufpool: a response was not rewritten, and is sent as "
        .. "it is: ", why)
end

local function chunk_by_lua(state)
    local text, last = ngx.arg[1] or "", ngx.arg[2]
    local why = #state.buf + #text > state.max and TOO_LARGE
        or sink_of.append(state.buf, text)
    if why then
        ngx.ctx[KEY] = nil
        tell(why)
        ngx.arg[1] = texts({ state.buf, text }, 2, "rewrite_chunk")
        state.buf:release()
    elseif last then
        ngx.ctx[KEY] = nil
        answer(state, state.buf)
    else
        ngx.arg[1] = nil
    end
end

local function chunk_by_module(state)
    local r = get_request()
    local sink = module.ngx_http_bufpool_held(r)
    if sink ~= nil then
        ngx.ctx[KEY] = nil
        return answer(state, sink_handle(sink))
    end
    sink = module.ngx_http_bufpool_passes(r)
    if sink ~= nil then
        ngx.ctx[KEY] = nil
        tell(sink_of.problem(sink))
    elseif ngx.arg[2] then
        raise("bad call of 'rewrite_chunk' (ngx.arg[1] was assigned before)")
    end
end

function ngx_rewrite.rewrite_chunk()
    must_be_in("body_filter", "rewrite_chunk")
    local state = ngx.ctx[KEY]
    if not state then
        return
    elseif state.buf then
        return chunk_by_lua(state)
    end
    return chunk_by_module(state)
end

return ngx_rewrite
