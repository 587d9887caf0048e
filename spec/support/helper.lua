-- What several specs need. Required as "support.helper".
local ffi = require "ffi"

ffi.cdef [[
typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *);
int luaL_loadstring(lua_State *, const char *);
int lua_pcall(lua_State *, int, int, int);
const char *lua_tolstring(lua_State *, int, size_t *);
void lua_close(lua_State *);
ssize_t readlink(const char *, char *, size_t);
]]

local helper = {}

helper.nan = 0 / 0
helper.inf = 1 / 0

-- Class sizes, smallest first.
helper.classes = { 4096, 65536, 262144, 1048576 }

function helper.zeros(n)
    return ("\0"):rep(n)
end

-- The keys of a that b lacks, in order.
function helper.beyond(a, b)
    local names = {}
    for name in pairs(a) do
        if b[name] == nil then
            names[#names + 1] = name
        end
    end
    table.sort(names)
    return names
end

-- The seed of what follows at random, which is told. SEED may be set in the
-- environment.
function helper.seed()
    local seed = tonumber(os.getenv "SEED") or os.time()
    math.randomseed(seed)
    print("seed " .. seed)
    return seed
end

-- Calls fn, which is written at the call, and insists that it raises a message
-- that begins with a line of fn itself (that is what "at the caller's line"
-- means) and that contains each of the plain texts given.
function helper.raises(fn, ...)
    local info = debug.getinfo(fn, "S")
    local ok, message = pcall(fn)
    if ok then
        error("nothing was raised", 2)
    elseif type(message) ~= "string" then
        error("raised a " .. type(message) .. ", not a message", 2)
    end
    local prefix = info.short_src .. ":"
    local line = message:sub(1, #prefix) == prefix
        and tonumber(message:match("^(%d+): ", #prefix + 1))
    if not line or line < info.linedefined
        or line > info.lastlinedefined then
        error("raised elsewhere than at the caller's line "
            .. info.linedefined .. ": " .. message, 2)
    end
    for _, text in ipairs { ... } do
        if not message:find(text, 1, true) then
            error("not '" .. text .. "' in: " .. message, 2)
        end
    end
    return message
end

-- A preamble that lets other Lua states find what this one finds.
local function preamble()
    return ("package.path, package.cpath = %q, %q\n"):format(
        package.path, package.cpath)
end

function helper.quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

local quote = helper.quote

-- The interpreter that runs this spec, with the same JIT setting, under the
-- EMULATOR that .ci/test was told.
function helper.interpreter()
    local path = ffi.new "char[4096]"
    local n = tonumber(ffi.C.readlink("/proc/self/exe", path, 4096))
    assert(n > 0, "no /proc/self/exe")
    return (os.getenv "EMULATOR" or "") .. " " .. quote(ffi.string(path, n))
        .. (jit.status() and "" or " -joff")
end

-- The repository, which is where this file is.
helper.root = debug.getinfo(1, "S").source
    :match "^@(.*)spec/support/[^/]*$":gsub("^$", "./")

-- How much longer all takes because others work on this machine: 1 when nobody
-- does. For limits on what may never come.
local cores = tonumber((io.popen "nproc":read "*a"))

function helper.pace()
    local file = assert(io.open "/proc/loadavg")
    local running = file:read "*a":match "(%d+)/"
    file:close()
    return math.max(1, running / cores)
end

-- Runs a shell command. Returns what it printed, standard error included, and
-- its exit status.
function helper.shell(command)
    local pipe = assert(io.popen("{ " .. command
        .. "\n} 2>&1; echo \"status $?\"", "r"))
    local output = pipe:read "*a"
    pipe:close()
    local text, status = output:match "^(.*)status (%d+)\n$"
    return text, tonumber(status)
end

-- Runs Lua code in a process of its own. Returns what it printed, standard
-- error included, and its exit status as the shell sees it.
function helper.child(code)
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(preamble(), code, "\n")
    file:close()
    local text, status = helper.shell(
        helper.interpreter() .. " " .. quote(name))
    os.remove(name)
    return text, status
end

-- The same, for code that must end well; returns what it printed.
function helper.child_ok(code)
    local text, status = helper.child(code)
    if status ~= 0 then
        error("the child ended with status " .. status .. ":\n" .. text, 2)
    end
    return text
end

-- Runs Lua code in a second Lua state of this process and calls between(),
-- when there is one, before the state is closed.
function helper.second_state(code, between)
    local C = ffi.C
    local L = C.luaL_newstate()
    assert(L ~= nil, "no second Lua state")
    C.luaL_openlibs(L)
    local bad = C.luaL_loadstring(L, preamble() .. code) ~= 0
        or C.lua_pcall(L, 0, 0, 0) ~= 0
    local message = bad and ffi.string(C.lua_tolstring(L, -1, nil))
    local ok, err = true, nil
    if not bad and between then
        ok, err = pcall(between)
    end
    C.lua_close(L)
    if bad then
        error("in the second state: " .. message, 2)
    elseif not ok then
        error(err, 0)
    end
end

-- A trace must not hold a C call that runs Lua.
jit.off(helper.second_state)

-- Finalizers may need more than one cycle to run out.
function helper.collect()
    collectgarbage()
    collectgarbage()
    collectgarbage()
end

-- Makes a test that the collector does not interrupt, because it counts what
-- the collector changes. A full collection inside starts the collector again.
function helper.uncollected(test)
    return function()
        collectgarbage "stop"
        local ok, err = pcall(test)
        collectgarbage "restart"
        if not ok then
            error(err, 0)
        end
    end
end

-- Runs fn on a stack of its own, so that no stale slot of ours keeps alive what
-- fn has dropped.
function helper.apart(fn)
    return coroutine.wrap(fn)()
end

-- A userdata that answers getmetatable(x) as ours do.
function helper.forged(kind)
    local proxy = newproxy(true)
    local meta = getmetatable(proxy)
    meta.__metatable = kind
    meta.__index = function() return 1 end
    meta.__len = function() return 4 end
    return proxy
end

-- The number of an address: fits, for user space has at most 2^52 bytes.
function helper.address(pointer)
    return tonumber(ffi.cast("uintptr_t", pointer))
end

return helper
