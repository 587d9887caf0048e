-- The functions of C that are called by FFI, and the types they work on.
--
-- Looking one of them up in the struct allocates in the interpreter, so whoever
-- calls one where nothing may allocate keeps it in a local.

local ffi = require "ffi"
local core = require "bufpool.core"

ffi.cdef(core.cdef)

-- The userdata behind core.calls stays referenced by C's functions for as long
-- as this VM lives.
return (ffi.cast("const struct bufpool_calls *", core.calls))
