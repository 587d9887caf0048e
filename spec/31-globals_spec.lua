-- A program may remove or replace globals once it has loaded what it needs, and
-- sandboxes do. bufpool keeps what it needs.
local helper = require "support.helper"
local nginx = require "support.nginx"

local util = require "jit.util"

local PROGRAM = helper.root .. "spec/support/exits.lua"

local band, rshift = bit.band, bit.rshift

local function opcode(fn, pc)
    return band(util.funcbc(fn, pc), 0xff)
end

-- The bytecodes that read and set a global.
local GGET = opcode(loadstring "return x", 1)
local GSET = opcode(loadstring "x = nil", 2)

-- The globals that the functions inside fn name, but not fn itself, which runs
-- only when its file is loaded.
local function globals_of(fn, inside, names)
    for pc = 1, inside and util.funcinfo(fn).bytecodes - 1 or 0 do
        if opcode(fn, pc) == GGET or opcode(fn, pc) == GSET then
            names[#names + 1] = util.funck(fn,
                -rshift(util.funcbc(fn, pc), 16) - 1)
        end
    end
    for k = -1, -util.funcinfo(fn).gcconsts, -1 do
        local constant = util.funck(fn, k)
        if type(constant) == "proto" then
            globals_of(constant, true, names)
        end
    end
    return names
end

describe("without globals and methods of strings", function()
    for _, kind in ipairs { "buffer", "handle", "frozen" } do
        it(("all methods of a %s work, and say what is wrong"):format(kind),
            function()
                assert.equal("", helper.child_ok(([[
                    arg = { [0] = %q, %q, "1", "100", "sandbox" }
                    dofile(arg[0])]]):format(PROGRAM, kind)))
            end)
    end

    it("no function has to look for one", function()
        assert.same({ "x", "x" }, globals_of(assert(loadstring
            "y = z return function() x = x end"), false, {}))
        for path in helper.shell("find " .. helper.quote(helper.root)
            .. "lua -name '*.lua'"):gmatch "[^\n]+" do
            assert.same({}, globals_of(assert(loadfile(path)), false, {}), path)
        end
    end)
end)

-- What nginx runs. The module is loaded and the sandbox made before.
local HANDLERS = [==[
local sandbox = require "support.sandbox"
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "spec\1" }
local globals, rawset = _G, rawset
setfenv(1, sandbox.copy())

local function raises(pattern, fn, ...)
    local ok, message = pcall(fn, ...)
    message = tostring(message)
    if ok or not string.find(message, pattern) then
        ngx.print(pattern, " expected: ", message, "\n")
    end
end

local h = {}

-- What nginx runs still has to find the handlers.
function h.close()
    sandbox.close()
    rawset(globals, "h", h)
end

-- Each function of bufpool.ngx, and each message that one makes up.
function h.ngx()
    local body = assert(B.read_body(pool))
    assert(B.print(pool:writer():put "print "))
    assert(B.say({ 1, { body }, true }, body))
    local request = assert(B.scope(pool))
    assert(request:checkout_aligned(10, 64) and request:writer():put(1))
    assert(B.with(pool, 9, function(buf) return #buf end) == 9)
    local peer = { text = "" }
    function peer.send(self, text) self.text = self.text .. text return 1 end
    function peer.receive(_, n) return string.rep("r", n) end
    assert(B.send(peer, body) == #body and B.send(peer, 5))
    assert(B.receive(peer, body, 3) == 3)
    B.say(body, peer.text)
    raises("unknown key 'x'", B.capture, { x = 1 })
    raises("table expected", B.capture, 1)
    raises("function found in a table", B.print, { print })
    raises("is there a cycle", function() local t = {} t[1] = t B.print(t) end)
    raises("power of two", request.checkout_aligned, request, 1, 3)
    raises("bad self to 'checkout'", request.checkout, {}, 1)
    raises("method 'send' expected", B.send, {}, body)
    raises("the socket of 'receive' gave table", B.receive,
        { receive = function() return {} end }, body, 3)
    raises("unknown option 'x'", B.status, { x = 1 })
    raises("no lua_shared_dict x", B.publish, { dict = "x" })
    raises("not in content", B.publish)
    raises("buffer expected", B.body_filter, 1)
end

function h.status()
    B.status()
end

function h.captured_body()
    assert(B.capture { pool = pool, max = 8 })
end

function h.ten()
    ngx.print("0123456789")
end

function h.filter()
    B.capture_chunk()
end

function h.captured()
    local buf, problem, seen = B.captured()
    ngx.log(ngx.ERR, "captured: ", tostring(buf), " ", tostring(problem), " ",
        tostring(seen))
    local _, message = pcall(B.capture, { pool = pool })
    ngx.log(ngx.ERR, "too late: ", message)
end

return h
]==]

describe("in nginx, without globals and methods of strings", function()
    local missing = nginx.missing()
    if missing then
        pending("bufpool.ngx works: " .. missing .. " is not installed")
        return
    end

    local server
    setup(function()
        server = nginx.start {
            conf = nginx.conf {
                http = [[
    lua_shared_dict bufpool 1m;
    init_by_lua_block { h = require "handlers" }
    init_worker_by_lua_block {
        assert(require("bufpool.ngx").publish())
        h.close()
    }]],
                server = [[
        location /ngx { content_by_lua_block { h.ngx() } }
        location /status { content_by_lua_block { h.status() } }
        location /capture {
            access_by_lua_block { h.captured_body() }
            body_filter_by_lua_block { h.filter() }
            log_by_lua_block { h.captured() }
            content_by_lua_block { h.ten() }
        }]],
            },
            files = { ["handlers.lua"] = HANDLERS },
            links = { support = nginx.root .. "/spec/support" },
        }
    end)
    teardown(function()
        if server then
            server:stop()
        end
    end)

    it("all functions of bufpool.ngx work, and say what is wrong", function()
        local answer = server:get("/ngx", { body = "0123456789" })
        assert.equal("print 10123456789true0123456789\n"
            .. "0123456789rrr01234567895\n", answer.body, server:log())
    end)

    it("the status has every format", function()
        for format, pattern in pairs {
            json = '"spec\\\\x01":{.*"workers":%[{', html = "<!doctype",
            openmetrics = 'pool="spec\\\\x01"', prometheus = "# HELP",
        } do
            local answer = server:get("/status?history=1&format=" .. format)
            assert.equal(200, answer.status, server:log())
            assert.truthy(answer.body:find(pattern), answer.body)
        end
        for accept, status in pairs {
            ["text/html;q=0.5, text/plain;q=0.9"] = 200, ["image/png"] = 406,
        } do
            assert.equal(status, server:get("/status",
                { headers = { Accept = accept } }).status)
        end
        assert.equal(400, server:get "/status?format=x".status)
    end)

    it("a response is captured", function()
        server:get "/capture"
        for _, said in ipairs { "captured: 01234567 too large 10",
            "bad call of 'capture' (in log_by_lua" } do
            assert.is_true(nginx.soon(function()
                return server:log():find(said, 1, true)
            end), server:log())
        end
    end)

    it("nothing fails in timers and handlers", function()
        local log = server:log()
        assert.is_nil(log:find("%[error%][^\n]*%(a %l+ value%)"), log)
        assert.is_nil(log:find("figures not published", 1, true), log)
    end)
end)
