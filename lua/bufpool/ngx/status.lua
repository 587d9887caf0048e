-- The status of all pools of all workers of an nginx, over HTTP.
local accept = require "bufpool.ngx.status.accept"
local check = require "bufpool.check"
local config = require "bufpool.config"
local page = require "bufpool.ngx.status.page"
local text = require "bufpool.ngx.status.text"
local workers = require "bufpool.ngx.status.workers"

local ngx, error, ipairs, next = ngx, error, ipairs, next
local pairs, pcall, tonumber = pairs, pcall, tonumber
local tostring, type = tostring, type
local concat, format, match = table.concat, string.format, string.match

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

-- The options of each function, and their types.
local OPTIONS = {
    publish = { dict = "string" },
    status = { dict = "string", allow_set = "boolean" },
}

-- The dictionary's name out of the options of the function `name`, and whether
-- it may set anything.
local function options_of(name, options)
    local function bad(what, ...)
        error(format("bad argument #1 to '%s' (%s)", name, format(what, ...)),
            4)
    end
    if options ~= nil and type(options) ~= "table" then
        bad("table expected, got %s", type(options))
    end
    options = options or {}
    for key, value in pairs(options) do
        local expected = OPTIONS[name][key]
        if not expected then
            bad("unknown option '%s': expected dict%s", tostring(key),
                name == "status" and " or allow_set" or "")
        elseif type(value) ~= expected then
            bad("%s: %s expected, got %s", key, expected, type(value))
        end
    end
    local dict = options.dict
    if dict and not ngx.shared[dict] then
        bad("dict: there is no lua_shared_dict %s", dict)
    end
    return dict or "bufpool", options.allow_set
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

local function answer(kind, body)
    ngx.header.content_type = CONTENT_TYPES[kind]
    ngx.header["Content-Length"] = #body
    ngx.print(body)
end

-- What the address asks leak detection to be set to; nil when it was refused.
local function given_by()
    local given = ngx.req.get_uri_args()
    local pool, sample = given.pool, given.leak_sample
    given.pool = nil
    if type(sample) == "string" and match(sample, "^%d+$") then
        given.leak_sample = tonumber(sample)
    end
    local ok, err = pcall(config.changed, given)
    if not ok then
        return refuse(400, check.without_position(err))
    elseif not given.leak_detection then
        return refuse(400, "leak_detection: expected off, sampled or all")
    elseif pool ~= nil and type(pool) ~= "string" then
        return refuse(400, "pool: expected a name")
    end
    return given, pool
end

-- Sets leak detection as the address says. A page of another site must not, and
-- browsers name the origin of whatever page asks; so none may. One that is too
-- old for that asks first whether the page may send PUT, and is refused.
local function set(name)
    if ngx.var.http_origin or ngx.var.http_sec_fetch_site then
        return refuse(403, "PUT: not from a page in a browser")
    end
    if not pcall(ngx.req.discard_body) then
        return refuse(400, "body: malformed")
    end
    local given, pool = given_by()
    if not given then
        return
    end
    local report, err = workers.set(name, pool, given)
    if not report then
        return refuse(500, err)
    elseif next(report.pools) == nil then
        return refuse(404, "pool: no worker has " .. (pool
            and "one of that name" or "one with a name"))
    end
    answer("json", text.json(report))
end

local function status(options)
    local name, allow_set = options_of("status", options)
    local header, method = ngx.header, ngx.req.get_method()
    header["X-Content-Type-Options"] = "nosniff"
    header["Cache-Control"] = "no-store"
    header.Vary = "Accept"
    if method == "PUT" and allow_set then
        return set(name)
    elseif method ~= "GET" and method ~= "HEAD" then
        header.Allow = "GET, HEAD" .. (allow_set and ", PUT" or "")
        return refuse(405, "method: expected " .. header.Allow)
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
    answer(chosen, body)
end

local function publish(options)
    local name = options_of("publish", options)
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
