-- What a sandbox may do to a program that has loaded bufpool: it removes all
-- globals, what the libraries hold, and the methods of strings. For
-- support/exits.lua, which goes on with copies of them.

local sandbox = {}

local names = { "string", "table", "math", "bit", "io", "os", "coroutine",
    "debug", "jit", "package" }
local pairs, pcall, tostring = pairs, pcall, tostring
local output = io.stdout
local find, getmetatable, unpack = string.find, getmetatable, unpack
local globals = _G

local function copy(from)
    local to = {}
    for key, value in pairs(from) do
        to[key] = value
    end
    return to
end

---An environment like the global one, with libraries of its own.
function sandbox.copy()
    local env = copy(globals)
    for _, name in pairs(names) do
        env[name] = copy(globals[name])
    end
    return env
end

function sandbox.close()
    local methods = getmetatable ""
    methods.__index = nil
    for _, name in pairs(names) do
        local library = globals[name]
        for key in pairs(copy(library)) do
            library[key] = nil
        end
    end
    for key in pairs(copy(globals)) do
        globals[key] = nil
    end
end

local function complain(what, ok, message)
    message = tostring(message)
    if not ok and find(message, "%(a %l+ value%)") then
        output:write(what, ": ", message, "\n")
    end
end

local none = {}
local bad = { none, {}, "x", -1, 0.5, 1e300, true, -2^60, 2^62, "%d", "%z",
    "<Z", "i17", 0/0, print, 7 }

---Calls the methods in the wrong way. Whatever they say, they say it
---themselves.
function sandbox.misuse(methods, make, bufpool)
    local pool = bufpool.new()
    for _, name in pairs(methods) do
        for _, v in pairs(bad) do
            for _, w in pairs(bad) do
                local x = make()
                local method = x[name]
                local args = { v ~= none and v or nil, w ~= none and w or nil,
                    v ~= none and v or nil }
                complain(name, pcall(method, x, unpack(args, 1, 3)))
                complain(name, pcall(method, v, x, w))
                complain("tostring", pcall(tostring, x))
                if bufpool.type(x) ~= "dead" then
                    x:release()
                end
                complain("dead", pcall(function() return x.len, method(x) end))
            end
        end
    end
    for _, v in pairs(bad) do
        for _, key in pairs { "name", "classes", "four_kib_count", "prefault",
            "numa_node", "max_bytes", "nonsense", "ticket_ttl", 5 } do
            complain("new", pcall(bufpool.new, { [key] = v }))
            complain("new", pcall(bufpool.new, { classes = { {
                size = v, count = 2, [key] = v } } }))
        end
        for _, fn in pairs { "checkout", "checkout_aligned", "try_checkout",
            "writer", "borrow", "with", "stats", "trim" } do
            complain(fn, pcall(pool[fn], pool, v, v))
        end
        for _, fn in pairs { "get", "type", "adopt", "stats" } do
            complain(fn, pcall(bufpool[fn], v))
        end
        local x, y = make(), make()
        for _, event in pairs {
            function() return x < y, x <= y, x == y end,
            function() return x .. y, 5 .. x, x .. "a" end,
            function() return x .. v end, function() return x[v] end,
            function() x[v] = 1 end, function() return x + 1 end,
            function() return #x end, function() return -x end,
        } do
            local ok, message = pcall(event)
            if not find(tostring(message), "^[^:]*:%d+: attempt to %l+ ") then
                complain("operator", ok, message)
            end
        end
        y:release()
        x:release()
    end
    pool:close()
    complain("closed", pcall(function() return pool:checkout(1) end))
end

return sandbox
