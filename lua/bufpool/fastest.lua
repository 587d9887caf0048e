-- FFI is fast on a trace and slow in the interpreter. A program that runs
-- without the JIT gets the commonest methods from C (src/lua/plain.c), which
-- has the list of them. They do the plain cases, and hand everything else to
-- the Lua form. C tells our cdata by the number of their type, which stands
-- before the value.
--
-- With the JIT a method has one body of code for each class. LuaJIT compiles
-- code that interpreted programs call for what they pass first. For an object
-- of another class it would have to go on from there into the program, gives up
-- where the program is interpreted because it cannot be compiled, and from then
-- on interprets the method for that class: 5 to 10 times as slow.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local object = require "bufpool.object"

local plain = core.plain
local compiled = jit.status()
local handle_t = object.handle_type
local handles = tonumber(handle_t) + (ffi.abi "gc64" and 6 or 2) * 2 ^ 16
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

local dump, load, pcall, type = string.dump, loadstring, pcall, type
local debug = check.debug
local getinfo, getupvalue = debug.getinfo, debug.getupvalue
local setupvalue, join = debug.setupvalue, debug.upvaluejoin
local can_copy = getinfo and getupvalue and setupvalue and join and dump

-- A function with code of its own that does what fn does. It shares fn's
-- upvalues, except where LuaJIT begins no trace at fn, because fn takes "...":
-- then what fn calls in its own file has code of its own, too.
local function copy(fn, copies)
    local info = getinfo(fn, "Su")
    local ok, code = pcall(dump, fn)    -- not of C; and a sandbox may forbid it
    local made = ok and code and load(code) or fn
    copies[fn] = made
    for k = 1, made ~= fn and info.nups or 0 do
        local _, value = getupvalue(fn, k)
        if info.isvararg and type(value) == "function"
            and getinfo(value, "S").source == info.source then
            setupvalue(made, k, copies[value] or copy(value, copies))
        else
            join(made, k, fn, k)
        end
    end
    return made
end

-- By class, what has been copied. Buffers have the code that was loaded.
local copies = { handle = {}, frozen = {} }

-- The fastest form of a method of `class`, whose Lua form is `method`. Without
-- a class it is one of every class. `always`: the form of C with the JIT, too.
return function(name, method, class, always)
    if compiled and not always then
        local made = can_copy and copies[class]
        return made and (made[method] or copy(method, made)) or method
    end
    return plain(name, method, class, handles, handle_t, int64, uint64)
end
