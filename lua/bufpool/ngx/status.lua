-- The status of all pools of all workers of an nginx, over HTTP.
local accept = require "bufpool.ngx.status.accept"
local page = require "bufpool.ngx.status.page"
local text = require "bufpool.ngx.status.text"
local workers = require "bufpool.ngx.status.workers"

local ngx, error, ipairs, pairs = ngx, error, ipairs, pairs
local tostring, type = tostring, type
local concat, format = table.concat, string.format

local CONTENT_TYPES = {
    json = "application/json",
    openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    prometheus = "text/plain; version=0.0.4; charset=utf-8",
    html = "text/html; charset=utf-8",
    folded = "text/plain; charset=utf-8",
    pprof = "application/octet-stream",
}

-- Those that no header asks for, because no media type means them.
local PROFILES = { "folded", "pprof" }

local OPTIONS = "the only option is dict, the name of a lua_shared_dict"

-- The dictionary's name out of the options of the function `name`.
local function dict_of(name, options)
    if options == nil then
        return "bufpool"
    end
    local function bad(what, ...)
        error(format("bad argument #1 to '%s' (%s)", name, format(what, ...)),
            4)
    end
    if type(options) ~= "table" then
        bad("table expected, got %s", type(options))
    end
    for key in pairs(options) do
        if key ~= "dict" then
            bad("unknown option '%s': %s", tostring(key), OPTIONS)
        end
    end
    local dict = options.dict
    if dict == nil then
        return "bufpool"
    elseif type(dict) ~= "string" then
        bad("dict: string expected, got %s", type(dict))
    elseif not ngx.shared[dict] then
        bad("dict: there is no lua_shared_dict %s", dict)
    end
    return dict
end

local function refuse(status, message)
    ngx.status = status
    ngx.header.content_type = "text/plain; charset=utf-8"
    message = message .. "\n"
    ngx.header["Content-Length"] = #message
    ngx.print(message)
end

-- The format that the request asks for; nil when it was refused.
local function format_of()
    local wanted = ngx.req.get_uri_args().format
    if wanted ~= nil then
        if CONTENT_TYPES[wanted] then
            return wanted
        end
        return refuse(400, "format: expected one of "
            .. concat(accept.FORMATS, ", ") .. ", " .. concat(PROFILES, ", "))
    end
    local header = ngx.req.get_headers().accept
    if type(header) == "table" then
        header = concat(header, ",")
    end
    local preferred = accept.negotiate(header)
    if not preferred then
        local media = {}
        for i, name in ipairs(accept.FORMATS) do
            media[i] = accept.MEDIA[name]
        end
        return refuse(406, "Accept: expected one of "
            .. concat(media, ", "))
    end
    return preferred
end

-- What the address asks for besides, of JSON.
local function extend(report, name)
    local args = ngx.req.get_uri_args()
    if args.history then
        report.history = workers.history(name)
    end
    if args.brief then
        for _, worker in ipairs(report.workers) do
            worker.pools, worker.unnamed = nil, nil
        end
    end
end

local function status(options)
    local name = dict_of("status", options)
    local header, method = ngx.header, ngx.req.get_method()
    header["X-Content-Type-Options"] = "nosniff"
    header["Cache-Control"] = "no-store"
    header.Vary = "Accept"
    if method ~= "GET" and method ~= "HEAD" then
        header.Allow = "GET, HEAD"
        return refuse(405, "method: expected GET or HEAD")
    end
    local chosen = format_of()
    if not chosen then
        return
    end
    local body
    if chosen == "html" then
        header["Content-Security-Policy"] = page.policy
        body = page.html
    else
        local report = workers.gather(name)
        if chosen == "json" then
            extend(report, name)
        end
        body = text[chosen](report)
    end
    header.content_type = CONTENT_TYPES[chosen]
    header["Content-Length"] = #body
    ngx.print(body)
end

local function publish(options)
    local name = dict_of("publish", options)
    -- A timer of a request would be one of many where lua_code_cache is off.
    local phase = ngx.get_phase()
    if phase ~= "init_worker" then
        error(format("publish: expected to be called in init_worker_by_lua, "
            .. "not in %s", phase), 2)
    elseif not ngx.shared[name] then
        error(format("publish: there is no lua_shared_dict %s", name), 2)
    end
    return workers.publish(name)
end

return { status = status, publish = publish }
