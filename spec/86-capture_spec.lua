-- Captured responses, in a real nginx: what a log handler finds is compared
-- with what the client has got.
local nginx = require "support.nginx"


local HANDLERS = [[
local bufpool = require "bufpool"
local bufpool_ngx = require "bufpool.ngx"
local pool = bufpool.new { name = "capture", classes = { { size = 4096 },
    { size = 65536 } } }

local M = { bufpool = bufpool, ngx = bufpool_ngx, pool = pool }

-- What the last captured request was. It is kept as text, for the buffer ends
-- with its request.
local last = {}

function M.begin(max, from)
    last = {}
    local buf = assert(bufpool_ngx.capture { pool = from or pool, max = max })
    assert(#buf == 0)
    -- A second call gives the same buffer.
    assert(bufpool_ngx.capture { pool = pool } == buf)
end

function M.keep()
    local buf, problem, seen = bufpool_ngx.captured()
    last = { body = buf and buf:tostring() or "", problem = problem,
        seen = seen, none = not buf }
end

function M.last()
    ngx.header["X-Problem"] = last.problem == nil and "none"
        or tostring(last.problem)
    ngx.header["X-Seen"] = last.seen or "none"
    ngx.header["X-Out"] = bufpool.stats().checked_out
    ngx.print(last.body or "nothing")
end

-- What the collector frees in its second round, since it was stopped.
function M.rounds()
    collectgarbage()
    local first = collectgarbage "count"
    collectgarbage()
    ngx.print((first - collectgarbage "count") * 1024)
    collectgarbage(ngx.var.args)
end

-- Different bytes everywhere, so that nothing can be in the wrong place.
function M.text(n, salt)
    local parts = {}
    for i = 1, math.ceil(n / 16) do
        parts[i] = ("%015d\n"):format(i * 7919 + (salt or 0))
    end
    return table.concat(parts):sub(1, n)
end

return M
]]

-- Where a response comes from.
local SERVER = [[
    default_type text/plain;
    proxy_http_version 1.1;
    access_by_lua_block { require("handlers").begin(tonumber(ngx.var.arg_max)) }
    body_filter_by_lua_block { require("handlers").ngx.capture_chunk() }
    log_by_lua_block { require("handlers").keep() }

    location = /last {
        access_by_lua_block { }
        body_filter_by_lua_block { local x }
        log_by_lua_block { }
        content_by_lua_block { require("handlers").last() }
    }
    location = /rounds {
        access_by_lua_block { }
        body_filter_by_lua_block { local x }
        log_by_lua_block { }
        content_by_lua_block { require("handlers").rounds() }
    }
    location = /empty { content_by_lua_block { ngx.exit(200) } }
    location = /one { content_by_lua_block { ngx.print "x" } }
    location = /grown {
        content_by_lua_block {
            local H = require "handlers"
            H.ngx.captured():put(("y"):rep(20))
            ngx.print(H.text(1000))
        }
    }
    location = /static { alias file; }
    location = /sendfile { sendfile on; tcp_nopush on; alias file; }
    location = /no-content { content_by_lua_block { ngx.exit(204) } }
    location = /error { content_by_lua_block { error "as meant" } }
    location = /missing { alias no-such-file; }
    location = /page { error_page 404 = /static; return 404; }
    location = /exec { content_by_lua_block { ngx.exec "/static" } }
    location = /many {
        content_by_lua_block {
            local H = require "handlers"
            for i = 1, 500 do
                ngx.print(H.text(i * 3, i))
                if i % 50 == 0 then ngx.flush(true) end
            end
        }
    }
    location = /large {
        content_by_lua_block { ngx.print(require("handlers").text(3000000)) }
    }
    location = /objects {
        content_by_lua_block {
            local H = require "handlers"
            local buf = H.pool:writer():put(H.text(100000))
            local frozen = H.pool:writer():put(H.text(50000, 1)):freeze()
            H.ngx.print("before ", buf, frozen, " after")
            buf:release()
            frozen:release()
        }
    }
    location = /unbuffered {
        proxy_buffering off;
        proxy_pass http://127.0.0.1:@PORT@/many;
    }
    location = /buffered { proxy_pass http://127.0.0.1:@PORT@/large; }
    location = /spooled {
        proxy_buffers 2 4k;
        proxy_buffer_size 4k;
        proxy_busy_buffers_size 4k;
        proxy_pass http://127.0.0.1:@PORT@/large;
    }
    location = /parent {
        content_by_lua_block {
            ngx.print("[", ngx.location.capture("/static").body, "]")
        }
    }
    location = /gzip {
        gzip on;
        gzip_types *;
        gzip_proxied any;
        content_by_lua_block { ngx.print(require("handlers").text(50000)) }
    }
    location = /upstream-gzip { proxy_pass http://127.0.0.1:@PORT@/gzip; }
    location = /cut {
        content_by_lua_block {
            ngx.print(require("handlers").text(100000))
            ngx.flush(true)
            ngx.exit(444)
        }
    }
    location = /released {
        content_by_lua_block {
            ngx.print "before"
            require("handlers").ngx.captured():release()
            ngx.print "after"
        }
    }
    location = /frozen {
        content_by_lua_block {
            ngx.print "before"
            local frozen = require("handlers").ngx.captured():freeze()
            ngx.print("after ", tostring(frozen))
        }
    }
    location = /ticket {
        content_by_lua_block { ngx.print(require("handlers").text(70000)) }
        log_by_lua_block {
            local H = require "handlers"
            local ticket = H.ngx.captured():detach()
            ngx.timer.at(0, function()
                local buf = H.bufpool.adopt(ticket)
                H.later = tostring(buf)
                buf:release()
            end)
        }
    }
    location = /later {
        access_by_lua_block { }
        body_filter_by_lua_block { local x }
        log_by_lua_block { }
        content_by_lua_block { ngx.print(require("handlers").later or "") }
    }
    location = /short {
        access_by_lua_block {
            local H = require "handlers"
            H.small = H.small or H.bufpool.new { max_bytes = 409600,
                four_kib_count = 1, sixty_four_kib_count = 0,
                two_fifty_six_kib_count = 0 }
            H.begin(nil, H.small)
        }
        content_by_lua_block {
            for i = 1, 9 do
                ngx.print(require("handlers").text(100000, i))
                ngx.flush(true)
            end
        }
    }
    location = /late {
        access_by_lua_block { }
        content_by_lua_block {
            local H = require "handlers"
            ngx.print "begun "
            local ok, message = pcall(H.ngx.capture, { pool = H.pool })
            ngx.print(tostring(ok), " ", tostring(message))
        }
    }
    location = /misuse {
        access_by_lua_block { }
        content_by_lua_block {
            local H = require "handlers"
            local function try(options)
                local ok, message = pcall(H.ngx.capture, options)
                ngx.say(ok and "no error" or message)
            end
            try(nil)
            try {}
            try { pool = 1 }
            try { pool = H.pool, max = -1 }
            try { pool = H.pool, most = 1 }
            local done
            ngx.timer.at(0, function()
                local ok, message = pcall(H.ngx.capture, { pool = H.pool })
                done = message
            end)
            repeat
                ngx.sleep(0.01)
            until done
            ngx.say(done)
            ngx.say(select(2, H.ngx.captured()))
        }
        log_by_lua_block {
            local H = require "handlers"
            H.log_says = select(2, pcall(H.ngx.capture, { pool = H.pool }))
        }
    }
]]

-- No body filter in Lua asks nginx to read files into memory here.
local WITHOUT_BODY_FILTER = [[
    init_by_lua_block { require "handlers" }
    server {
        listen 127.0.0.1:@PORT1@;
        sendfile on;
        log_by_lua_block { require("handlers").keep() }
        location = /access {
            access_by_lua_block { require("handlers").begin() }
            alias file;
        }
        location = /header {
            header_filter_by_lua_block { require("handlers").begin() }
            alias file;
        }
    }
]]

-- One pool after the other. The first one records its checkouts.
local TURNS = [[
    init_worker_by_lua_block {
        local bufpool = require "bufpool"
        capture = require("bufpool.ngx").capture
        pools = { [0] = bufpool.new { leak_detection = "all" },
            bufpool.new {}, bufpool.new {} }
    }
    server {
        listen 127.0.0.1:@PORT1@;
        location / {
            access_by_lua_block {
                for _ = 1, 3 do
                    local pool = pools[tonumber(ngx.var.arg_i) % 3]
                    local buf = assert(capture { pool = pool })
                    buf:release()
                end
            }
            content_by_lua_block { ngx.print("turn ", ngx.var.arg_i) }
        }
    }
]]

local function both(modules, with)
    local server, file

    setup(function()
        file = ("0123456789abcdef"):rep(20000)
        server = nginx.start {
            conf = nginx.conf { modules = modules, server = SERVER,
                http = WITHOUT_BODY_FILTER },
            files = { ["handlers.lua"] = HANDLERS, file = file },
            prepare = "mkdir -p html && ln -sf ../file html/file",
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    -- A request, and what its log handler found. The log handler of a request
    -- runs after its last byte has left.
    local function captured(path, options)
        local answer = server:get(path, options)
        local found
        nginx.soon(function()
            found = server:get "/last"
            return found.headers["x-seen"] ~= "none"
        end)
        return answer, found.body, found.headers["x-problem"],
            tonumber(found.headers["x-seen"]), found.headers["x-out"]
    end

    local function same(path, options, status)
        local answer, body, problem, seen, out = captured(path, options)
        assert.equal(status or 200, answer.status, path)
        assert.is_true(answer.body == body, path .. ": " .. #answer.body
            .. " bytes, captured " .. #body)
        assert.equal("none", problem, path)
        assert.equal(#answer.body, seen, path)
        assert.equal("0", with and out or "0", path)
        return body
    end

    for _, path in ipairs { "one", "static", "sendfile", "many",
        "objects", "unbuffered", "page", "exec", "parent" } do
        it("has what /" .. path .. " sends", function()
            same("/" .. path .. "?max=10000000")
            same("/" .. path .. "?max=10000000", { curl = "-0" })
        end)
    end

    for _, path in ipairs { "large", "buffered", "spooled" } do
        it("has the megabytes that /" .. path .. " sends", function()
            assert.equal(3000000, #same("/" .. path .. "?max=3000000"))
        end)
    end

    if with then
        -- A worker that is never idle would hold twice as much garbage.
        it("leaves nothing for the collector's second round", function()
            local function left_of(n)
                server:get "/rounds?stop"
                for _ = 1, n do
                    server:get "/one"
                end
                return tonumber(server:get "/rounds?restart".body)
            end
            -- The first rounds also have what LuaJIT's own tables shrink by.
            left_of(150)
            left_of(50)
            assert.is_true(left_of(150) < 10000)
        end)

        -- Workers of their own, because what LuaJIT compiles, and so whether it
        -- goes wrong, differs from one to the next.
        it("is taken from whichever pool", function()
            for _ = 1, 8 do
                local other = nginx.start {
                    conf = nginx.conf { modules = modules, http = TURNS } }
                local codes = nginx.must(("curl -sS -o %s/turn -w "
                    .. "'%%{http_code}\\n' '%s?i=[0-199]' | sort -u"):format(
                    other.dir, other:url("/", 1)))
                other:stop()
                assert.equal("200\n", codes)
            end
        end)

        it("has a file that no other filter reads", function()
            for _, path in ipairs { "/access", "/header" } do
                assert.equal(320000, #same(path, { port = 1 }))
                local _, body, problem = captured(path, { port = 1,
                    curl = "-I" })
                assert.equal("", body)
                assert.equal("none", problem, path)
            end
        end)
    end

    it("has the body of an error", function()
        assert.truthy(same("/error", nil, 500):find "500 Internal")
        assert.truthy(same("/missing", nil, 404):find "404 Not Found")
    end)

    it("has nothing of a response without a body", function()
        assert.equal("", same("/empty"))
        assert.equal("", same("/no-content", nil, 204))
        local first = server:get "/static"
        assert.equal("", same("/static", { headers = {
            ["If-Modified-Since"] = first.headers["last-modified"],
        } }, 304))
        local _, body, problem, seen = captured("/static", { curl = "-I" })
        assert.equal("", body)
        assert.equal("none", problem)
        assert.equal(0, seen)
    end)

    it("has the range that was asked for", function()
        local body = same("/static", { headers = { Range = "bytes=7-10006" } },
            206)
        assert.equal(file:sub(8, 10007), body)
    end)

    it("has what gzip packs, and what an upstream has packed", function()
        local packed = { headers = { ["Accept-Encoding"] = "gzip" } }
        local answer, body, problem = captured("/gzip", packed)
        assert.equal("gzip", answer.headers["content-encoding"])
        assert.equal("none", problem)
        local plain = server:get "/gzip".body
        assert.equal(50000, #plain)
        assert.is_true(body == plain)
        answer, body, problem = captured("/upstream-gzip", packed)
        assert.equal("gzip", answer.headers["content-encoding"])
        assert.is_true(answer.body == body)
        assert.equal("none", problem)
    end)

    it("keeps the beginning of what is too large, and says so", function()
        for _, max in ipairs { 0, 1, 4095, 4096, 4097, 99999 } do
            local answer, body, problem, seen =
                captured("/many?max=" .. max)
            assert.equal("too large", problem)
            assert.equal(max, #body)
            assert.equal(answer.body:sub(1, max), body)
            assert.equal(#answer.body, seen)
        end
        local _, body, problem = captured "/large"
        assert.equal("too large", problem)
        assert.equal(1048576, #body)
    end)

    it("appends nothing to what the program has grown beyond max", function()
        local answer, body, problem, seen = captured "/grown?max=10"
        assert.equal(("y"):rep(20), body)
        assert.equal("too large", problem)
        assert.equal(#answer.body, seen)
    end)

    it("says when the pool has no memory", function()
        local answer, body, problem, seen = captured "/short"
        -- The first bytes that did not fit: more than are there, and not all.
        local asked = tonumber(problem:match("^max_bytes of the pool reached "
            .. "%((%d+) bytes asked for%)$"))
        assert.truthy(asked and asked > #body and asked < 900000, problem)
        assert.equal(900000, seen)
        assert.equal(answer.body:sub(1, #body), body)
    end)

    it("says when not all has passed", function()
        local answer, body, problem = captured "/cut"
        assert.equal("not all has passed", problem)
        assert.equal(100000, #body)
        assert.equal(answer.body, body:sub(1, #answer.body))
    end)

    it("says when the buffer was released, and touches it no more", function()
        local answer, body, problem = captured "/released"
        assert.equal("beforeafter", answer.body)
        assert.equal("", body)
        assert.equal("released", problem)
        answer, body, problem = captured "/frozen"
        assert.equal("beforeafter before", answer.body)
        assert.equal("released", problem, body)
    end)

    it("hands the buffer to a timer by a ticket", function()
        local answer = server:get "/ticket"
        assert.truthy(nginx.soon(function()
            return server:get "/later".body == answer.body
        end))
    end)

    it("raises when it is too late, or misused", function()
        local answer = server:get "/late"
        assert.truthy(answer.body:find("begun false ", 1, true)
            or not with, answer.body)
        local text = server:get "/misuse".body
        local lines = {}
        for line in text:gmatch "[^\n]+" do
            lines[#lines + 1] = line
        end
        assert.equal(7, #lines, text)
        for i, part in ipairs { "table expected, got nil",
            "pool expected, got nil", "pool expected, got number",
            "size expected, got %-1", "unknown key 'most'",
            "in timer_by_lua", "not captured" } do
            assert.truthy(lines[i]:find(part), lines[i])
        end
    end)

    it("has nothing out when clients vanish", function()
        for _ = 1, 20 do
            nginx.must(("curl -s -m 0.05 --limit-rate 10k -o /dev/null '%s'; "
                .. "true"):format(server:url "/large?max=10000000"))
        end
        assert.truthy(nginx.soon(function()
            return not with or server:get "/last".headers["x-out"] == "0"
        end))
        same "/many"
    end)
end

-- The location of the guide, as printed.
local function guide(modules)
    it("works as the guide shows", function()
        local server = nginx.start_example("Captured responses", modules,
            "error_log error.log notice;")
        local ok, message = pcall(function()
            assert.equal(70000, #server:get "/captured".body, server:log())
            -- The client may have all before the log handler has run.
            assert.truthy(nginx.soon(function()
                return server:log():find("70000 bytes, all of them")
            end), server:log())
        end)
        server:stop()
        assert(ok, message)
    end)
end

nginx.ways("capture", function(modules, with)
    both(modules, with)
    guide(modules)
end)
