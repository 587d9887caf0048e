-- FFI is fast on a trace and slow in the interpreter. A program that runs
-- without the JIT gets the commonest methods from C (src/lua/plain.c), which
-- has the list of them. They do the plain cases, and hand everything else to
-- the Lua form. C tells our cdata by the number of their type, which stands
-- before the value.

local ffi = require "ffi"
local core = require "bufpool.core"
local object = require "bufpool.object"

local plain = core.plain
local compiled = jit.status()
local handle_t = object.handle_type
local handles = tonumber(handle_t) + (ffi.abi "gc64" and 6 or 2) * 2 ^ 16
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

-- The fastest form of a method of `class`, whose Lua form is `method`. Without
-- a class it is one of every class. `always`: the form of C with the JIT, too.
return function(name, method, class, always)
    if compiled and not always then
        return method
    end
    return plain(name, method, class, handles, handle_t, int64, uint64)
end
