-- Each allocation of nginx's modules fails once, and then all that follow: the
-- Lua code is told so, what was printed before and after is there, nothing
-- stays out, and the worker lives.
local nginx = require "support.nginx"

local must = nginx.must
local MODULE = nginx.module

-- In place of nginx's functions. nginx itself is searched for symbols before
-- any library, so the copy of the module that is tested asks for these names.
local FAULTS = [[
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

static long calls, first, last, live;

void fault_set(long from, long to) { calls = 0; first = from; last = to; }
long fault_calls(void) { return calls; }
long fault_live(void) { return live; }

static void *
real(const char *name)
{
	calls++;
	return calls >= first && calls <= last ? NULL
					       : dlsym(RTLD_DEFAULT, name);
}

#define STANDS_IN(name, params, ...) \
	void *f##name params \
	{ \
		void *(*call) params = real("n" #name); \
		return call ? call(__VA_ARGS__) : NULL; \
	}
STANDS_IN(gx_palloc, (void *pool, size_t n), pool, n)
STANDS_IN(gx_alloc_chain_link, (void *pool), pool)
STANDS_IN(gx_pool_cleanup_add, (void *pool, size_t n), pool, n)

void *
fgx_alloc(size_t n, void *log)
{
	void *(*call)(size_t, void *) = real("ngx_alloc");
	void *memory = call ? call(n, log) : NULL;

	live += memory != NULL;
	return memory;
}

void
fgxf(void *memory)
{
	live -= memory != NULL;
	free(memory);
}
]]

-- Each handler does its thing in calls of `try`, which keeps what came of it,
-- and what should have been printed. The faults are over when it returns.
local HANDLERS = [==[
local ffi = require "ffi"
ffi.cdef "void fault_set(long, long); long fault_calls(void), fault_live(void);"
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "spec" }
local told, printed

local function try(what, fn, ...)
    local ok, result, message = pcall(fn, ...)
    if ok and result then
        return result
    end
    told[#told + 1] = what .. ": " .. tostring(ok and message or result)
end

local function print(text, ...)
    if try("print", B.print, ...) then
        printed[#printed + 1] = text
    end
end

local function frozen(n)
    return pool:checkout(n):fill(65):freeze()
end

local h = {}

function h.frozen()
    for i = 1, 3 do
        local f = frozen(5000)
        print(tostring(f), f)
        f:release()
    end
end

function h.list()
    local f, g = frozen(5000), frozen(9000)
    print(f .. g .. f, { f, g, f })
    print(f .. "x" .. g, f, "x", g)
    f:release()
    g:release()
end

-- What failed holds on to nothing.
function h.several()
    local f, g = frozen(5000), frozen(9000)
    print(f .. g .. f, { f, g, f })
    f:release()
    g:release()
    if #printed == 0 and pool:stats().checked_out > 0 then
        told[#told + 1] = "some are out"
    end
end

function h.buffer()
    local b = pool:checkout(70000):fill(66)
    print(tostring(b), b)
    ngx.flush(true)
    print("small" .. b, "small", b)
    b:release()
end

function h.scope()
    local scope = try("scope", B.scope, pool)
    local h = scope and try("checkout", scope.checkout, scope, 100)
    if h then
        h:fill(67)
        print(tostring(h), h)
    end
end

function h.capture()
    local buf = try("capture", B.capture, { pool = pool })
    print("some", "some")
    if buf then
        assert(#buf == 4)
    end
end

function h.charset()
    ngx.header.content_type = "text/html; charset=koi8-r"
    h.frozen()
end

h.rewrite = h.frozen

local M = {}

-- In header_filter_by_lua, while h.rewrite prints.
function M.rewrite()
    try("rewrite", B.rewrite, { pool = pool, fn = function() end })
end

-- The copy for a filter that writes into what it gets fails.
function M.copy()
    assert(B.rewrite { pool = pool, fn = function()
        ffi.C.fault_set(1, 1)
        return frozen(5000)
    end })
end

function M.run(name)
    local args = ngx.req.get_uri_args()
    local first, last = tonumber(args.first), tonumber(args.last)
    told, printed = {}, {}
    collectgarbage()
    collectgarbage "stop"
    ffi.C.fault_set(first, last)
    local ok, message = pcall(h[name])
    local calls = tonumber(ffi.C.fault_calls())
    ffi.C.fault_set(0, 0)
    collectgarbage "restart"
    if not ok then
        told[#told + 1] = "raised: " .. message
    end
    ngx.shared.log:set("calls", calls)
    ngx.shared.log:set("told", table.concat(told, "\n"))
    ngx.print "end"
    ngx.shared.log:set("printed", table.concat(printed) .. "end")
end

function M.log(key)
    ngx.print(ngx.shared.log:get(key))
end

function M.out()
    collectgarbage()
    collectgarbage()
    ngx.print(pool:stats().checked_out, " ", tonumber(ffi.C.fault_live()))
end

return M
]==]

local NAMES = { "frozen", "list", "several", "buffer", "scope", "capture",
    "charset", "rewrite" }
local TOLD = { "^print: no memory$", "^print: nginx output filter error$",
    "^scope: .*out of memory", "^checkout: .*out of memory",
    "^capture: .*out of memory", "^rewrite: .*out of memory" }

local SERVER = [[
    location ~ ^/run/(\w+)$ {
        default_type text/plain;
        content_by_lua_block { require("handlers").run(ngx.var[1]) }
    }
    location = /run/charset {
        source_charset koi8-r;
        override_charset on;
        charset windows-1251;
        content_by_lua_block { require("handlers").run "charset" }
    }
    location = /run/rewrite {
        content_by_lua_block { require("handlers").run "rewrite" }
        header_filter_by_lua_block { require("handlers").rewrite() }
        body_filter_by_lua_block { require("bufpool.ngx").rewrite_chunk() }
    }
    location = /copy {
        default_type text/html;
        source_charset koi8-r;
        charset windows-1251;
        content_by_lua_block { ngx.print "something" }
        header_filter_by_lua_block { require("handlers").copy() }
        body_filter_by_lua_block { require("bufpool.ngx").rewrite_chunk() }
    }
    location ~ ^/log/(\w+)$ {
        content_by_lua_block { require("handlers").log(ngx.var[1]) }
    }
    location = /out { content_by_lua_block { require("handlers").out() } }
]]

describe("an allocation in nginx's module that fails", function()
    -- What is compiled in cannot be made to call other functions.
    local obstacle = nginx.obstacle(true) or nginx.obstacle(false)
    if obstacle then
        pending("is told: " .. obstacle)
        return
    end

    local dir, server

    setup(function()
        dir = must "mktemp -d":gsub("\n", "")
        nginx.write(dir .. "/faults.c", FAULTS)
        must(("%s -shared -fPIC -o %s/faults.so %s/faults.c"):format(
            os.getenv "CC" or "cc", dir, dir))
        local module, count = nginx.read(MODULE), 0
        for name, other in pairs {
            ngx_alloc = "fgx_alloc", ngx_palloc = "fgx_palloc",
            ngx_alloc_chain_link = "fgx_alloc_chain_link",
            ngx_pool_cleanup_add = "fgx_pool_cleanup_add", free = "fgxf",
        } do
            module = module:gsub("%z" .. name .. "%z", function()
                count = count + 1
                return "\0" .. other .. "\0"
            end)
        end
        assert.truthy(count >= 5, count)
        nginx.write(dir .. "/module.so", module)
        server = nginx.start {
            conf = nginx.conf { modules = { dir .. "/module.so" },
                http = "lua_shared_dict log 2m; "
                    .. "charset_map koi8-r windows-1251 { 80 81; }",
                server = SERVER },
            files = { ["handlers.lua"] = HANDLERS },
            wrap = "env LD_PRELOAD=" .. dir .. "/faults.so",
        }
    end)
    teardown(function()
        server:stop()
        must("rm -r " .. dir)
    end)

    local function log(key)
        return server:get("/log/" .. key).body
    end

    -- Returns how many calls there were.
    local function run(name, first, last)
        local what = ("%s, calls %d to %d: "):format(name, first, last)
        local worker = next(server:workers())
        local answer = server:get(("/run/%s?first=%d&last=%.0f"):format(name,
            first, last))
        local told = log "told"
        for line in told:gmatch "[^\n]+" do
            local known = false
            for _, pattern in ipairs(TOLD) do
                known = known or line:find(pattern)
            end
            assert.truthy(known, what .. line)
        end
        -- A filter that fails has the connection closed.
        if not told:find("filter error", 1, true) then
            assert.equal(200, answer.status, what .. server:log())
            assert.truthy(answer.body == log "printed", what .. #answer.body)
        end
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0 0"
        end), what .. "some are out")
        assert.equal(worker, next(server:workers()), what)
        return tonumber(log "calls"), told
    end

    for _, name in ipairs(NAMES) do
        it("is told, and leaves nothing behind: " .. name, function()
            local count, told = run(name, 0, 0)
            assert.equal("", told)
            assert.truthy(count > 0)
            for n = 1, count do
                local made
                made, told = run(name, n, n)
                -- Fewer where a piece has left before the next print.
                assert.truthy(told ~= "" or made < n, name .. n)
                run(name, n, 2 ^ 31)
            end
        end)
    end

    it("ends a response whose result has to be copied", function()
        assert.truthy(server:get "/copy".failed)
        assert.truthy(server:log():find("out of memory for the result of the "
            .. "function of 'rewrite'", 1, true))
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0 0"
        end))
    end)

    it("leaves no line in the log but those of nginx", function()
        for line in server:log():gmatch "[^\n]+" do
            assert.falsy(line:find "%[alert%]" or line:find "%[emerg%]", line)
        end
    end)
end)
