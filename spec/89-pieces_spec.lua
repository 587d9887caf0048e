-- Request bodies piece by piece, in a real nginx: the pieces together are the
-- body, whatever way it comes.
local nginx = require "support.nginx"


local HANDLERS = [[
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "pieces" }

local M = {}

-- The body as it came, and how it came.
function M.pieces()
    local args = ngx.req.get_uri_args()
    local n = tonumber(args.n)
    local buf = B.scope(pool):writer()
    buf:put "left over"
    local parts, most, capacity = {}, 0, 0
    if args.read then
        ngx.req.read_body()
    end
    local total, message, done = B.body_pieces(buf, n, function(piece, ...)
        assert(select("#", ...) == 0 and piece == buf and #piece > 0)
        parts[#parts + 1] = piece:tostring()
        most = math.max(most, #piece)
        capacity = math.max(capacity, piece:capacity())
        if args.sleep then
            ngx.sleep(0)
        end
        piece:skip(1):put(args.read and "changed" or "")
    end)
    local body = table.concat(parts)
    M.last = ("%s %s %s"):format(tostring(total), tostring(message),
        tostring(done))
    assert(most <= n)
    assert((total or done) == #body, M.last)
    ngx.header["X-Result"] = M.last
    ngx.header["X-Pieces"] = #parts
    ngx.header["X-Capacity"] = capacity
    ngx.print(body)
    if ngx.get_phase() == "access" then
        ngx.exit(200)
    end
end

function M.parent()
    ngx.req.read_body()
    ngx.print(ngx.location.capture("/pieces?n=1000",
        { method = ngx.HTTP_POST, always_forward_body = true }).body)
end

-- A client that goes away before it has sent all.
function M.partial()
    local sock = ngx.socket.tcp()
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    assert(sock:send("POST /pieces?n=1000 HTTP/1.1\r\nHost: x\r\n"
        .. "Content-Length: 5000\r\n\r\n" .. ("x"):rep(2500)))
    sock:close()
    ngx.print "sent"
end

function M.taken()
    local sock = assert(ngx.req.socket())
    assert(sock:receive(1) == "s")
    M.pieces()
end

-- Open files of request bodies.
local function files()
    local n = 0
    local list = io.popen("ls -l /proc/" .. ngx.worker.pid() .. "/fd")
    for line in list:lines() do
        n = n + (line:find("/temp/", 1, true) and 1 or 0)
    end
    list:close()
    return n
end

-- fn raises, or spoils the buffer.
function M.raising()
    local how = ngx.var.arg_how
    local buf = B.scope(pool):writer()
    local ok, message = pcall(B.body_pieces, buf, 1000, function(piece)
        if how == "raise" then
            error "as meant"
        end
        piece:release()
    end)
    ngx.say(tostring(ok), " ", message, " ", files())
end

-- Sends a body that looks like a request behind its first piece, and counts
-- the responses.
function M.answers()
    local sock = ngx.socket.tcp()
    local body = ("x"):rep(1000)
        .. ("GET /out HTTP/1.1\r\nHost: x\r\n\r\n"):rep(100)
    assert(sock:connect("127.0.0.1", ngx.var.server_port))
    local to = ngx.unescape_uri(ngx.var.arg_to)
    assert(sock:send("POST " .. to .. " HTTP/1.1\r\nHost: x\r\n"
        .. "Content-Length: " .. (to:match "length=(%d+)" or #body)
        .. "\r\n\r\n" .. body:sub(1, 700)))
    ngx.sleep(0.02)         -- the rest comes by itself
    sock:send(body:sub(701))
    sock:settimeout(tonumber(ngx.var.arg_timeout) or 20000)
    local all, message, partial = sock:receive "*a"
    ngx.print(select(2, (all or partial):gsub("HTTP/1.1 ", "")), " ",
        message or "closed")
end

function M.refusing()
    local args = ngx.req.get_uri_args()
    local function read()
        B.body_pieces(B.scope(pool):writer(), 500, function()
            if args.print then
                ngx.print "begun"
                ngx.flush(true)
            end
            if args.wait then
                ngx.sleep(60)
            elseif args.to then
                ngx.redirect "/elsewhere"
            end
            ngx.exit(tonumber(args.status))
        end)
    end
    if not args.wait then
        return read()
    end
    local thread = ngx.thread.spawn(read)
    if args.wait == "kill" then
        ngx.thread.kill(thread)
        return ngx.say "killed"
    end
    ngx.exit(200)
end

function M.misuse()
    local buf = B.scope(pool):writer()
    local frozen = pool:writer():freeze()
    local function try(...)
        ngx.say(select(2, pcall(B.body_pieces, ...)))
    end
    try()
    try(frozen, 1, print)
    try(buf, 0, print)
    try(buf, -1, print)
    try(buf, 1.5, print)
    try(buf, 10)
    try(buf, 10, "print")
    local done
    ngx.timer.at(0, function()
        done = select(2, pcall(B.body_pieces, pool:writer(), 10, print))
    end)
    repeat
        ngx.sleep(0.01)
    until done
    ngx.say(done)
    buf:release()
    try(buf, 10, print)
end

return M
]]

local SERVER = [[
    client_max_body_size 0;
    location = /pieces { content_by_lua_block { require("handlers").pieces() } }
    location = /access {
        access_by_lua_block { require("handlers").pieces() }
    }
    location = /spooled { client_body_in_file_only clean;
        content_by_lua_block { require("handlers").pieces() } }
    location = /small { client_body_buffer_size 1k;
        content_by_lua_block { require("handlers").pieces() } }
    location = /parent { content_by_lua_block { require("handlers").parent() } }
    location = /partial {
        content_by_lua_block { require("handlers").partial() } }
    location = /taken { content_by_lua_block { require("handlers").taken() } }
    location = /raising { client_body_buffer_size 1k;
        content_by_lua_block { require("handlers").raising() } }
    location = /answers {
        content_by_lua_block { require("handlers").answers() } }
    location = /refusing {
        content_by_lua_block { require("handlers").refusing() } }
    location = /misuse { content_by_lua_block { require("handlers").misuse() } }
    location = /last { content_by_lua_block {
        ngx.print(require("handlers").last) } }
    location = /out { content_by_lua_block {
        collectgarbage()
        collectgarbage()
        ngx.print(require("bufpool").stats().checked_out) } }
]]

local LISTEN = [[
        listen 127.0.0.1:@PORT@;
        listen 127.0.0.1:@PORT1@ http2;
]]

-- Different bytes everywhere, so that nothing can be in the wrong place.
local function text(n)
    local parts = {}
    for i = 1, math.ceil(n / 16) do
        parts[i] = ("%015d\n"):format(i * 7919)
    end
    return "s" .. table.concat(parts):sub(2, n)
end

local function ngx_escaped(path)
    return (path:gsub("[?&=]", function(c)
        return ("%%%02X"):format(c:byte())
    end))
end

local CHUNKED = { headers = { ["Transfer-Encoding"] = "chunked" } }
local SIZES, SLOW = { 1, 999, 1000, 1001, 100000 }, { 60000 }
local WAYS = {
    { "with a length", {}, SIZES },
    { "in chunks", CHUNKED, SIZES },
    { "over HTTP/1.0", { curl = "--http1.0" }, { 1000, 100000 } },
    { "over HTTP/2", { port = 1, curl = "--http2-prior-knowledge" }, SIZES },
    { "slowly", { curl = "--limit-rate 300k" }, SLOW },
    { "slowly in chunks", { curl = "--limit-rate 300k",
        headers = CHUNKED.headers }, SLOW },
}

local function both(modules, with)
    local server

    setup(function()
        server = nginx.start {
            conf = nginx.conf { modules = modules, server = SERVER,
                listen = LISTEN, http = "init_by_lua_block { require "
                .. "'handlers' }" },
            files = { ["handlers.lua"] = HANDLERS },
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    local function post(path, body, options)
        return server:get(path, { body = body, method = "POST",
            port = options.port, curl = options.curl,
            headers = options.headers })
    end

    for _, way in ipairs(WAYS) do
        it("gives what comes " .. way[1], function()
            for _, size in ipairs(way[3]) do
                local body = text(size)
                for _, path in ipairs { "/pieces?n=1000", "/access?n=1000000",
                    "/pieces?n=1000&sleep=1", "/pieces?n=4096&read=1",
                    "/small?n=1000", "/spooled?n=1000&sleep=1" } do
                    local answer = post(path, body, way[2])
                    assert.equal(200, answer.status,
                        path .. server:log():sub(-500))
                    assert.truthy(answer.body == body, path .. " " .. size)
                    assert.equal(size .. " nil nil",
                        answer.headers["x-result"])
                end
            end
        end)
    end

    it("gives megabytes in one small buffer", function()
        local body = text(5000000)
        for _, options in ipairs { {}, CHUNKED } do
            local answer = post("/pieces?n=4096", body, options)
            assert.truthy(answer.body == body)
            assert.equal("5000000 nil nil", answer.headers["x-result"])
            assert.equal("4096", answer.headers["x-capacity"])
            assert.truthy(tonumber(answer.headers["x-pieces"]) >= 5000000
                / 4096)
        end
    end)

    it("gives a subrequest its body", function()
        local body = text(5000)
        assert.truthy(post("/parent", body, {}).body == body)
    end)

    it("returns 0 where there is no body", function()
        local refused = nginx.http2_refusal()
        refused = refused and "nil " .. refused .. " 0"
        for _, path in ipairs { "/pieces", "/spooled" } do
            for _, options in ipairs { {}, CHUNKED,
                { port = 1, curl = "--http2-prior-knowledge" } } do
                local answer = post(path .. "?n=10", "", options)
                assert.equal("0 nil nil", answer.headers["x-result"])
                answer = server:get(path .. "?n=10", { port = options.port,
                    curl = options.curl })
                assert.equal(options.port and refused or "0 nil nil",
                    answer.headers["x-result"])
            end
        end
    end)

    it("says that the client has gone, and what came before", function()
        assert.equal("sent", server:get "/partial".body)
        assert.truthy(nginx.soon(function()
            return server:get "/last".body == "nil client aborted 2500"
        end), server:get "/last".body)
    end)

    it("says that another one has the body", function()
        local answer = post("/taken?n=10", text(5000), {})
        assert.equal("nil the body was taken by ngx.req.socket, or discarded 0",
            answer.headers["x-result"])
    end)

    it("passes errors, and leaves no file open", function()
        for _, options in ipairs { {}, CHUNKED } do
            local answer = post("/raising?how=raise", text(5000), options)
            assert.truthy(answer.body:find "^false .-: as meant %d",
                answer.body)
            local open = answer.body:match "(%d+)\n$"
            -- nginx itself has one.
            assert.equal(options == CHUNKED and "1" or "0", open)
            answer = post("/raising?how=release", text(5000), options)
            assert.truthy(answer.body:find("attempt to use a released handle",
                1, true), answer.body)
            assert.equal(open, answer.body:match "(%d+)\n$")
        end
    end)

    it("leaves nothing that nginx takes for another request", function()
        -- Without the module a handler has to end as the guide says.
        local list = { "/refusing?status=400", "/refusing?status=413",
            "/refusing?status=500", "/refusing?status=444&print=1" }
        for _, to in ipairs(with and { "/raising?how=raise",
            "/raising?how=release", "/refusing?status=400&print=1",
            "/refusing?status=413&print=1", "/refusing?status=500&print=1",
            "/refusing?status=200", "/refusing?status=404", "/refusing?to=1",
            "/refusing?wait=kill", "/refusing?wait=200" } or {}) do
            list[#list + 1] = to
        end
        for _, to in ipairs(list) do
            assert.equal("1 closed", server:get("/answers?to="
                .. ngx_escaped(to)).body, to)
        end
    end)

    it("keeps the connection when all is read", function()
        assert.equal("101 timeout", server:get("/answers?timeout=500&to="
            .. ngx_escaped "/pieces?n=1000&length=1000").body)
    end)

    it("raises misuse", function()
        local said = server:get "/misuse".body
        local lines = nginx.lines(said)
        for i, part in ipairs { "#1 to 'body_pieces' (buffer expected, got nil",
            "#1 to 'body_pieces' (buffer expected, got frozen",
            "#2 to 'body_pieces' (at least 1 expected", "size expected",
            "size expected", "#3 to 'body_pieces' (function expected, got nil",
            "#3 to 'body_pieces' (function expected, got string",
            "API disabled in the context of ngx.timer",
            "attempt to use a released handle" } do
            assert.truthy(lines[i] and lines[i]:find(part, 1, true), said)
        end
    end)

    it("has nothing out in the end", function()
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0"
        end))
    end)
end

nginx.ways("body_pieces", both)
