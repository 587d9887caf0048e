-- Rewritten responses, in a real nginx: what a client gets is compared with
-- what it gets of a body filter in plain Lua that collects strings, with the
-- same function, header and all.
local helper = require "support.helper"
local nginx = require "support.nginx"

local must = nginx.must

local HANDLERS = [==[
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "rewrite" }
local kept = pool:writer():put("a kept page, 0011"):freeze()
local small = bufpool.new { name = "small", max_bytes = 409600,
    four_kib_count = 1, sixty_four_kib_count = 0, two_fifty_six_kib_count = 0 }

local M = { calls = 0, functions = 0, text = {} }

-- What becomes of a body: in plain Lua, and of a buffer.
local functions = {
    same = { function(text) return text end, function() end },
    itself = { function(text) return text end,
        function(body) return body end },
    string = {
        function(text) return (text:gsub("00", "zero")) end,
        function(body)
            M.given = { body }
            return (body:tostring():gsub("00", "zero"))
        end,
    },
    appended = {
        function(text) return text .. " and more" end,
        function(body) body:put(" and more") end,
    },
    shorter = {
        function(text) return text:sub(4) end,
        function(body) body:skip(3) return body end,
    },
    table = {
        function(text) return "<" .. text .. text .. 1 .. ">" end,
        function(body) return { "<", { body, body }, 1, ">" } end,
    },
    given = {
        function(text) return text .. ", given" end,
        function(body)
            M.given = { body, pool:writer():put(", given") }
            return M.given
        end,
    },
    texts = {
        function(text) return "<" .. #text .. ">" end,
        function(body) return { "<", { #body }, ">" } end,
    },
    buffer = {
        function(text) return text .. text end,
        function(body) return (pool:writer():put(body, body)) end,
    },
    scoped = {
        function(text) return text .. "!" end,
        function(body)
            return (B.scope(pool):writer():put(body, "!"))
        end,
    },
    slice = {
        function(text) return text:sub(2, -2) end,
        function(body) return body:freeze():slice(2, -2) end,
    },
    kept = { function() return "a kept page, 0011" end,
        function() return kept end },
    released = { function(text) return "it had " .. #text end,
        function(body)
            local n = #body
            body:release()
            return "it had " .. n
        end },
    nothing = { function() return "" end, function() return "" end },
    reset = { function() return "" end, function(body) body:reset() end },
    number = { function(text) return #text end,
        function(body) return #body end },
    -- How many buffers were checked out since the header.
    taken = { nil, function() return M.checkouts() - M.before end },
    -- These end the response.
    raise = { function() error "as meant" end,
        function() error "as meant" end },
    yield = { function() coroutine.yield() end,
        function() coroutine.yield() end },
    sleep = { function() ngx.sleep(0.01) end, function() ngx.sleep(0.01) end },
    gone = { function() error "as meant" end,
        function(body) body:release() end },
    dead = { function() error "as meant" end,
        function(body) body:release() return { "x", body } end },
    wrong = { function() error "as meant" end, function() return print end },
    pools = { function() error "as meant" end, function() return pool end },
}

function M.checkouts()
    local stats = pool:stats()
    return stats.hits + stats.misses
end

local function function_of(i)
    local fn = functions[ngx.var.arg_fn or "same"][i]
    return function(body)
        M.functions = M.functions + 1
        return fn(body)
    end
end

local function max()
    return tonumber(ngx.var.arg_max or 4194304)
end

local plain, buffered = {}, {}

function plain.header()
    if ngx.header.content_encoding or ngx.status == 206
        or (tonumber(ngx.header.content_length) or 0) > max() then
        return
    end
    ngx.header.content_length = nil
    ngx.header.last_modified = nil
    ngx.header.etag = nil
    ngx.header.accept_ranges = nil
    if ngx.status ~= 304 then
        ngx.ctx.parts = { n = 0 }
    end
end

function plain.body()
    local parts = ngx.ctx.parts
    if not parts then
        return
    end
    parts[#parts + 1] = ngx.arg[1]
    parts.n = parts.n + #ngx.arg[1]
    if parts.n > max() then
        ngx.ctx.parts = nil
        ngx.arg[1] = table.concat(parts)
    elseif ngx.arg[2] then
        ngx.ctx.parts = nil
        ngx.arg[1] = function_of(1)(table.concat(parts))
    else
        ngx.arg[1] = nil
    end
end

function buffered.header()
    M.before = M.checkouts()
    local done, why = B.rewrite { pool = ngx.var.arg_small and small or pool,
        fn = function_of(2), max = max() }
    local wanted = ngx.var.arg_why
    assert(done or not wanted or why == ngx.unescape_uri(wanted), why)
    if done and not (ngx.req.get_method() == "HEAD") and ngx.status < 204 then
        local again, message = B.rewrite { pool = pool, fn = print }
        assert(again == nil and message == "rewritten already")
    end
end

function buffered.body()
    B.rewrite_chunk()
    for _, taken in ipairs(M.given or {}) do
        assert(bufpool.type(taken) == "dead")
    end
    M.given = nil
end

local ways = { plain = plain, buf = buffered }

function M.header()
    local way = ways[ngx.var.arg_way]
    if way then
        way.header()
    end
end

function M.body()
    local way = ways[ngx.var.arg_way]
    if way then
        M.calls = M.calls + 1
        way.body()
        if ngx.var.arg_look and ngx.arg[2] then
            ngx.arg[1] = "[" .. ngx.arg[1] .. "]"
        end
    end
end

-- Different bytes everywhere, so that nothing can be in the wrong place.
local function text(n)
    local parts = {}
    for i = 1, math.ceil(n / 16) do
        parts[i] = ("%015d\n"):format(i * 7919)
    end
    return table.concat(parts):sub(1, n)
end

-- `n` bytes in `parts` parts, and what is called after each of them.
function M.answer()
    local args = ngx.req.get_uri_args()
    local bytes, parts = text(tonumber(args.n or 0)), tonumber(args.parts or 1)
    ngx.header.etag = '"strong"'
    ngx.header.last_modified = "Thu, 01 Jan 2026 00:00:00 GMT"
    ngx.header.accept_ranges = "bytes"
    ngx.status = tonumber(args.status or 200)
    if args.length then
        ngx.header.content_length = args.length == "" and #bytes or args.length
    end
    ngx.header.content_encoding = args.packed
    local from = 1
    for i = 1, parts do
        local to = math.floor(#bytes * i * i / parts / parts)
        ngx.print(bytes:sub(from, to))
        from = to + 1
        if args.flush == "no" then
            ngx.flush()
        elseif args.flush == "wait" then
            ngx.flush(true)
        end
    end
    if args.cut then
        return ngx.exit(444)
    end
end

function M.figures()
    collectgarbage()
    collectgarbage()
    ngx.say(M.calls, " ", M.functions, " ",
        pool:stats().checked_out + small:stats().checked_out)
    M.calls, M.functions = 0, 0
end

function M.misuse()
    local function try(name, ...)
        ngx.say(select(2, pcall(B[name], ...)))
    end
    try("rewrite")
    try("rewrite", {})
    try("rewrite", { pool = pool })
    try("rewrite", { pool = pool, fn = 1 })
    try("rewrite", { pool = pool, fn = print, max = -1 })
    try("rewrite", { pool = pool, fn = print, most = 1 })
    try("rewrite", { pool = pool, fn = print })
    try("rewrite_chunk")
end

-- Lent memory, which goes back when it was held.
function M.objects()
    local frozen = pool:writer():put(text(50000)):freeze()
    local buf = pool:writer():put(text(70000))
    B.print(frozen, buf)
    B.print(frozen)
    frozen:release()
    buf:release()
    B.print "and more"
end

-- What was captured of a response that was rewritten.
function M.captured()
    M.last = tostring((B.captured()))
end

function M.assigned()
    if not ngx.arg[2] then
        ngx.arg[1] = nil
        return B.rewrite_chunk()
    end
    ngx.arg[1] = "assigned"
    B.rewrite_chunk()
end

return M
]==]

local LISTEN = [[
        listen 127.0.0.1:@PORT@;
        listen 127.0.0.1:@PORT1@ http2;
]]

-- Where proxied responses come from.
local UPSTREAM = [[
    init_by_lua_block { require "handlers" }
    charset_map koi8-r windows-1251 { 30 31; 31 30; 80 30; }
    server {
        listen 127.0.0.1:@PORT3@;
        sendfile on;
        location = /static {
            header_filter_by_lua_block { require("handlers").header() }
            alias file;
        }
    }
    server {
        listen 127.0.0.1:@PORT2@;
        # Whoever reads an answer that is shorter than announced waits until
        # the connection is closed; nginx 1.29.7 and later keep it open.
        keepalive_timeout 0;
        default_type text/html;
        gzip_types *;
        location / { content_by_lua_block { require("handlers").answer() } }
        location /file { alias file; }
        location /gzip { gzip on; alias file; }
    }
]]

local SERVER = [[
    default_type text/html;
    proxy_http_version 1.1;
    proxy_temp_path temp;
    header_filter_by_lua_block { require("handlers").header() }
    body_filter_by_lua_block { require("handlers").body() }

    location = /figures {
        content_by_lua_block { require("handlers").figures() } }
    location = /misuse { content_by_lua_block { require("handlers").misuse() } }
    location = /answer { content_by_lua_block { require("handlers").answer() } }
    location = /objects {
        content_by_lua_block { require("handlers").objects() } }
    location = /gunzip { gunzip on; proxy_set_header Accept-Encoding gzip;
        proxy_pass http://127.0.0.1:@PORT2@/gzip; }
    location = /static { alias file; }
    location = /sendfile { sendfile on; tcp_nopush on; alias file; }
    location = /missing { alias no-such-file; }
    location = /error { content_by_lua_block { error "as meant" } }
    location = /page { error_page 404 = /answer?way=$arg_way&fn=$arg_fn&n=9000;
        return 404; }
    location = /exec { content_by_lua_block {
        ngx.exec("/static", ngx.req.get_uri_args()) } }
    location = /redirect { return 302 /elsewhere; }
    location /proxied/ { proxy_pass http://127.0.0.1:@PORT2@/; }
    location /unbuffered/ { proxy_buffering off;
        proxy_pass http://127.0.0.1:@PORT2@/; }
    location /spooled/ { proxy_buffers 2 4k; proxy_buffer_size 4k;
        proxy_busy_buffers_size 4k; proxy_pass http://127.0.0.1:@PORT2@/; }
    location = /slow { limit_rate 100;
        content_by_lua_block { require("handlers").answer() } }
    location = /gzip { gzip on; gzip_min_length 1;
        content_by_lua_block { require("handlers").answer() } }
    location = /sub { sub_filter "0" "(nought)"; sub_filter_once off;
        content_by_lua_block { require("handlers").answer() } }
    location = /charset { source_charset koi8-r; charset windows-1251;
        content_by_lua_block { require("handlers").answer() } }
    location = /ssi { ssi on; content_by_lua_block {
        ngx.print('| <!--# include virtual="/answer?', ngx.var.args, '" -->|',
            '<!--# include virtual="/static?', ngx.var.args, '" -->|') } }
    location = /addition { add_before_body /part; alias file; }
    location = /after { add_before_body /part; add_after_body /part;
        alias file; }
    location = /part { return 200 "[part]"; }
    location = /parent { content_by_lua_block {
        local got = ngx.location.capture("/answer?" .. ngx.var.args)
        ngx.print("{", got.body, "}", got.header["Content-Length"] or "no") } }
    location = /assigned { content_by_lua_block { ngx.print "some text" }
        header_filter_by_lua_block { require("bufpool.ngx").rewrite {
            pool = require("bufpool").get "rewrite", fn = print } }
        body_filter_by_lua_block { require("handlers").assigned() } }
    location = /both {
        access_by_lua_block { require("bufpool.ngx").capture {
            pool = require("bufpool").get "rewrite" } }
        body_filter_by_lua_block {
            require("bufpool.ngx").capture_chunk()
            require("handlers").body() }
        log_by_lua_block { require("handlers").captured() }
        alias file; }
    location = /captured { content_by_lua_block {
        ngx.print(require("handlers").last or "none") } }
    location = /without { content_by_lua_block { ngx.print "some text" }
        body_filter_by_lua_block { require("bufpool.ngx").rewrite_chunk() } }
]]

local FUNCTIONS = { "same", "itself", "string", "appended", "shorter",
    "table", "given", "texts", "buffer", "scoped", "slice", "kept", "released",
    "nothing", "reset", "number" }
local ERRORS = { "raise", "yield", "sleep", "gone", "dead", "wrong", "pools" }

-- The answers to all of these paths, each with its header.
local function answers(server, paths, options, port)
    local list = {}
    for first = 1, #paths, port and 1 or #paths do
        local config = {}
        for i = first, port and first or #paths do
            config[#config + 1] = ('url = "%s"\noutput = "%s/answer%d"\n')
                :format(server:url(paths[i], port), server.dir, i)
            must(("rm -f %s/answer%d"):format(server.dir, i))
        end
        nginx.write(server.dir .. "/curl", table.concat(config))
        must(("curl -sS -i -g --max-time %d %s -K %s/curl 2>&1; true"):format(
            20 * helper.pace(), options or "", server.dir))
    end
    for i in ipairs(paths) do
        local file = io.open(("%s/answer%d"):format(server.dir, i), "rb")
        list[i] = file and file:read "*a":gsub("\r\n[Dd]ate: [^\r]*", "", 1)
            or ""
        if file then
            file:close()
        end
    end
    return list
end

-- `last_first` has the last load_module line before all others.
local function both(modules, by_module, last_first)
    local server, file

    setup(function()
        file = ("0123456789abcdef"):rep(20000)
        local conf = nginx.conf { modules = modules, listen = LISTEN,
            server = SERVER, http = UPSTREAM,
            main = "error_log error.log warn;" }
        if last_first then
            conf = conf:gsub("^(.*;\n)(load_module [^\n]*\n)", "%2%1")
            assert(conf:find "^load_module [^\n]*bufpool")
        end
        server = nginx.start { conf = conf,
            files = { ["handlers.lua"] = HANDLERS, file = file },
            prepare = "mkdir -p html && ln -sf ../file html/file",
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function figures()
        local calls, functions, out =
            server:get "/figures".body:match "(%d+) (%d+) (%d+)"
        return tonumber(calls), tonumber(functions), tonumber(out)
    end

    -- Both ways answer all of these paths alike. Returns the answers.
    local function alike(paths, options, port)
        local all, list = {}, {}
        for _, path in ipairs(paths) do
            local more = path:find("?", 1, true) and "&" or "?"
            all[#all + 1] = path .. more .. "way=plain"
            all[#all + 1] = path .. more .. "way=buf"
        end
        local got = answers(server, all, options, port)
        for i = 1, #all, 2 do
            if got[i] ~= got[i + 1] then
                error(all[i + 1] .. " " .. (options or "") .. ": "
                    .. nginx.difference(got[i], got[i + 1]) .. "\n"
                    .. server:log():sub(-1500), 0)
            end
            list[#list + 1] = got[i]
        end
        return list
    end

    -- Paths of all functions.
    local function with_functions(path, list)
        local paths = {}
        for _, fn in ipairs(list or FUNCTIONS) do
            paths[#paths + 1] = path .. (path:find("?", 1, true) and "&" or "?")
                .. "fn=" .. fn
        end
        return paths
    end

    for _, n in ipairs { 0, 1, 4095, 4096, 4097, 65536, 300001 } do
        it("rewrites " .. n .. " bytes", function()
            for _, way in ipairs { "parts=1", "parts=7&flush=no", "parts=3",
                "parts=4&flush=wait", "parts=1&length=" } do
                alike(with_functions(("/answer?n=%d&%s"):format(n, way)))
            end
        end)
    end

    it("has room at once for what the header announces", function()
        local function taken(length)
            return tonumber(server:get("/answer?way=buf&fn=taken&n=5000"
                .. length).body)
        end
        assert.equal(taken "" - 1, taken "&length=")
    end)

    it("rewrites what comes from an upstream", function()
        for _, place in ipairs { "proxied", "unbuffered", "spooled" } do
            for _, rest in ipairs { "answer?n=200000&parts=40&flush=wait",
                "answer?n=100000&length=", "answer?n=0", "file" } do
                local list = alike(with_functions(("/%s/%s"):format(place,
                    rest), { "same", "string", "table", "buffer" }))
                assert.truthy(list[1]:find "^HTTP/1.1 200", list[1])
            end
        end
    end)

    it("rewrites files and megabytes", function()
        for _, path in ipairs { "/static", "/sendfile", "/objects",
            "/spooled/answer?n=3000000", "/answer?n=3000000&parts=100" } do
            alike(with_functions(path, { "same", "appended", "string" }))
        end
        local list = alike { "/static?fn=appended" }
        assert.equal(file .. " and more", list[1]:match "\r\n\r\n(.*)$")
    end)

    it("rewrites for HTTP/1.0 and HTTP/2", function()
        for _, path in ipairs { "/answer?n=70000&parts=3", "/static",
            "/proxied/answer?n=70000" } do
            alike(with_functions(path), "--http1.0")
            alike(with_functions(path, { "same", "string", "slice",
                "nothing" }), "--http2-prior-knowledge", 1)
        end
    end)

    it("rewrites in front of other filters", function()
        for _, fn in ipairs { "same", "string", "slice", "kept", "table" } do
            local n = "?n=71234&parts=5&fn=" .. fn
            alike({ "/gzip" .. n }, "--compressed -H 'Accept-Encoding: gzip'")
            alike { "/sub" .. n, "/charset" .. n, "/addition" .. n,
                "/ssi" .. n, "/parent" .. n }
        end
        -- Charset writes into what passes, but not into what others have.
        for _ = 1, 3 do
            local list = alike { "/charset?n=10&fn=kept",
                "/answer?n=1&fn=kept" }
            assert.truthy(list[2]:find "a kept page, 0011$", list[2])
        end
    end)

    it("rewrites for slow readers", function()
        alike({ "/static?fn=appended", "/answer?n=400000&parts=9&fn=slice" },
            "--limit-rate 400k")
        -- The header has not left when the body comes.
        alike { "/slow?n=20&parts=2&flush=no&fn=appended" }
    end)

    it("rewrites errors, and what an internal redirect leads to", function()
        local list = alike { "/missing?fn=string", "/error?fn=appended",
            "/page?fn=appended", "/exec?fn=appended", "/redirect?fn=appended" }
        assert.truthy(list[2]:find "^HTTP/1.1 500.*and more$", list[2])
        assert.truthy(list[4]:find "^HTTP/1.1 200.*and more$", list[4])
    end)

    it("takes the headers away that are not true any more", function()
        local head = alike({ "/static" }, "-I")
        for i, answer in ipairs(alike { "/static", "/answer?n=5&length=",
            "/proxied/answer?n=5&length=", "/unbuffered/file" }) do
            head[i + 1] = answer
        end
        for _, answer in ipairs(head) do
            for _, name in ipairs { "Content%-Length", "Last%-Modified", "ETag",
                "Accept%-Ranges" } do
                assert.falsy(answer:find(name), answer:sub(1, 400))
            end
        end
    end)

    it("calls no function for a response without a body", function()
        figures()
        for _, path in ipairs { "/static", "/answer?n=50",
            "/proxied/answer?n=50&length=", "/proxied/file" } do
            alike({ path }, "-I")
            assert.equal(0, select(2, figures()), path)
        end
        for _, path in ipairs { "/answer?status=204", "/answer?status=304",
            "/proxied/answer?status=304" } do
            alike { path }
            assert.equal(0, select(2, figures()), path)
        end
    end)

    it("sends packed bodies and parts as they are", function()
        figures()
        local list = alike({ "/proxied/gzip?fn=appended&why=packed",
            "/answer?packed=br&n=7&fn=appended&why=packed" },
            "--compressed -H 'Accept-Encoding: gzip, br'")
        assert.truthy(list[1]:find "Content%-Encoding: gzip",
            list[1]:sub(1, 300))
        list = alike { "/gunzip?fn=appended&why=packed" }
        assert.truthy(list[1]:sub(-#file) == file, list[1]:sub(1, 300))
        assert.falsy(list[1]:find "Content%-Encoding")
        list = alike({ "/proxied/file?fn=appended&why=a+part" },
            "-r 5-1004")
        assert.truthy(list[1]:find "206 Partial", list[1]:sub(1, 300))
        assert.truthy(list[1]:find "Content%-Length: 1000\r", list[1])
        assert.equal(0, select(2, figures()))
        list = alike({ "/static?fn=appended" }, "-r 5-1004")
        assert.truthy(list[1]:find "^HTTP/1.1 200.*and more$")
    end)

    it("sends what is too large as it is", function()
        figures()
        alike { "/static?max=319999&fn=appended&why=too+large" }
        for _, max in ipairs { 0, 1, 4096, 99999 } do
            for _, from in ipairs { "/answer?n=100000&parts=9&flush=wait",
                "/answer?n=100000", "/proxied/answer?n=100000",
                "/unbuffered/answer?n=100000&parts=30" } do
                local path = from .. "&fn=appended&max=" .. max
                local list = alike { path }
                assert.equal(100000, #list[1]:match "\r\n\r\n(.*)$")
                alike({ path }, "--http1.0")
            end
        end
        assert.equal(0, select(2, figures()))
        alike { "/answer?n=100000&parts=9&fn=appended&max=100000" }
        assert.equal(2, select(2, figures()))
        assert.truthy(server:log():find("was not rewritten, and is sent as it "
            .. "is: too large", 1, true))
    end)

    it("sends what the pool has no memory for as it is", function()
        figures()
        for _, n in ipairs { 500000, 5000000 } do
            local list = answers(server, { ("/answer?n=%d&parts=50"):format(n),
                ("/answer?n=%d&parts=50&way=buf&small=1&fn=appended"):format(n)
                .. "&max=9000000" })
            local body = list[1]:match "\r\n\r\n(.*)$"
            assert.equal(n, #body)
            assert.truthy(body == list[2]:match "\r\n\r\n(.*)$")
        end
        -- What is said is what the first part that did not fit had asked for.
        local told = 0
        for asked in server:log():gmatch("as it is: max_bytes of the pool "
            .. "reached %((%d+) bytes asked for%)") do
            told = told + 1
            assert.truthy(tonumber(asked) < 600000, asked)
        end
        assert.equal(2, told)
        assert.equal(0, select(2, figures()))
        assert.truthy(nginx.soon(function()
            return select(3, figures()) == 1
        end))
    end)

    it("ends as an upstream or a handler ends", function()
        figures()
        alike { "/proxied/answer?n=5000&length=6000&fn=appended",
            "/unbuffered/answer?n=5000&length=6000&fn=appended",
            "/proxied/answer?n=50000&parts=3&flush=wait&cut=1",
            "/unbuffered/answer?n=50000&parts=3&flush=wait&cut=1",
            "/answer?n=50000&parts=3&cut=1",
            "/answer?n=50000&parts=3&flush=wait&cut=1" }
        assert.equal(0, select(2, figures()))
    end)

    it("fails as a body filter does when the function raises", function()
        for _, path in ipairs { "/answer?n=100", "/answer?n=70000&parts=3",
            "/proxied/answer?n=200000", "/unbuffered/file?n=1",
            "/answer?n=0", "/answer?n=7000&flush=wait" } do
            alike(with_functions(path, ERRORS))
            alike(with_functions(path, ERRORS), "--http1.0")
        end
        local log = server:log()
        for _, part in ipairs { "as meant", "attempt to yield",
            "API disabled in the context of body_filter_by_lua",
            "bad result of the function of 'rewrite' %(.-got function",
            "bad result of the function of 'rewrite' %(.-got pool",
            "attempt to use a released handle" } do
            assert.truthy(log:find(part), part)
        end
    end)

    it("shows the result to what follows in the body filter", function()
        local paths = with_functions("/answer?n=70000&parts=3&look=1")
        alike(paths)
        local list = alike { "/answer?n=5&fn=appended&look=1" }
        assert.truthy(list[1]:find "%[00000 and more%]$", list[1])
    end)

    it("calls the function once, and Lua once where it can", function()
        figures()
        for _, path in ipairs { "/answer?n=300000&parts=200",
            "/unbuffered/answer?n=300000&parts=200&flush=wait" } do
            local list = answers(server, { path .. "&way=buf&fn=appended" })
            assert.truthy(list[1]:find "and more$", list[1]:sub(1, 300))
            local calls, functions = figures()
            assert.equal(1, functions)
            if by_module then
                assert.truthy(calls <= 2, calls .. " calls of Lua")
            end
        end
    end)

    if by_module then
        -- Which a body filter in plain Lua does not.
        it("lets add_after_body add", function()
            for _, fn in ipairs { "same", "appended", "string", "texts" } do
                local list = answers(server, { "/after?way=buf&fn=" .. fn })
                assert.truthy(list[1]:find "%[part%].+%[part%]$",
                    list[1]:sub(1, 300) .. list[1]:sub(-30))
            end
        end)
    end

    it("changes no body where rewrite_chunk is not called", function()
        local answer = server:get("/static?way=buf&fn=appended", { port = 3 })
        assert.truthy(answer.body == file, #answer.body .. " bytes")
    end)

    it("goes with a capture, which has what comes to its place", function()
        local list = answers(server, { "/both?way=buf&fn=appended" })
        local rewritten = file .. " and more"
        assert.truthy(list[1]:sub(-#rewritten) == rewritten)
        local there = last_first and rewritten or file
        assert.truthy(nginx.soon(function()
            return server:get "/captured".body == there
        end))
    end)

    it("raises misuse", function()
        local text = server:get "/misuse".body
        local lines = nginx.lines(text)
        assert.equal(8, #lines, text)
        for i, part in ipairs { "table expected, got nil",
            "pool expected, got nil", "fn: function expected, got nil",
            "fn: function expected, got number",
            "size expected, got %-1", "unknown key 'most', expected one of "
            .. "pool, max, fn", "in content_by_lua, expected in header_filter",
            "in content_by_lua, expected in body_filter" } do
            assert.truthy(lines[i]:find(part), lines[i])
        end
        assert.equal("some text", server:get "/without".body)
        if by_module then
            server:get "/assigned"
            assert.truthy(server:log():find("ngx.arg[1] was assigned before", 1,
                true))
        end
    end)

    it("has nothing out when clients vanish", function()
        for _ = 1, 20 do
            must(("curl -s -m 0.05 --limit-rate 10k -o /dev/null '%s'; true")
                :format(server:url
                    "/answer?n=3000000&parts=20&way=buf&fn=slice"))
        end
        -- The page that is kept stays.
        assert.truthy(nginx.soon(function()
            return select(3, figures()) == 1
        end))
        alike { "/answer?n=5&fn=string" }
        for line in server:log():gmatch "[^\n]+" do
            assert.falsy(line:find "%[crit%]" or line:find "%[alert%]"
                or line:find "%[emerg%]", line)
        end
    end)
end

-- The location of the guide, as printed.
local function guide(modules)
    it("works as the guide shows", function()
        local server = nginx.start_example("Rewritten responses", modules)
        local body, log = server:get "/rewritten".body, server:log()
        server:stop()
        assert.truthy(body == ("x"):rep(70000) .. "(70000 bytes)\n",
            #body .. log)
    end)
end

nginx.ways("rewrite", function(modules, with)
    both(modules, with)
    guide(modules)
end)

describe("rewrite with the module before the Lua module", function()
    local obstacle = nginx.obstacle(true) or nginx.obstacle(false)
        or nginx.inside "ngx_http_lua_module" and "that is compiled in"
    if obstacle then
        pending("is tried: " .. obstacle)
        return
    end
    both({ nginx.module }, false, true)
end)
