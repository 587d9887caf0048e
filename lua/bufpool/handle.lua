-- Handles: buffers that are borrowed, and go back by release() only.
--
-- A handle is a value of the FFI, without a finalizer. A handle that does not
-- leave a trace stays in a register, and borrowing and releasing are one call
-- into C each. In return, nobody releases a handle that a program forgets.
--
-- To the FFI a handle is a pointer to a struct without fields: of the types
-- that may have methods, only pointers are values to LuaJIT's compiler. Nothing
-- is at that address, and nothing reads it. src/lua/handle.h tells what the
-- bits mean.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local fastest = require "bufpool.fastest"
local object = require "bufpool.object"

local cast = ffi.cast
local format = string.format
local live, is_handle, reject = object.live, object.is_handle, object.reject
local release, freeze, detach = calls.release, calls.freeze, calls.detach

local frozen_box_t = ffi.typeof("struct bufpool_frozen_box *")
local ESTALE = core.constants.ESTALE

local handle = {}

function handle.release(self)
    if not is_handle(self) then
        reject(self, "release", "handle")
    end
    local b, epoch = live(self, "release")
    if release(b, epoch) == ESTALE then
        return handle.release(self)
    end
end

function handle.freeze(self)
    if not is_handle(self) then
        reject(self, "freeze", "handle")
    end
    live(self, "freeze")
    local to = core.frozen_box()
    repeat
        local b, epoch = live(self, "freeze")
    until freeze(b, epoch, cast(frozen_box_t, to)) == 0
    return to
end

function handle.detach(self)
    if not is_handle(self) then
        reject(self, "detach", "handle")
    end
    local b, epoch = live(self, "detach")
    local ticket = detach(b, epoch)
    if ticket > 0 then
        return ticket
    elseif ticket == -ESTALE then
        return handle.detach(self)
    end
    return nil, core.tickets_exhausted
end

local meta = { __index = {} }

-- Without these the FFI would compare and add addresses.
for event, what in pairs {
    __lt = "compare", __le = "compare", __add = "add to", __sub = "subtract",
    __mul = "multiply", __div = "divide", __mod = "divide", __pow = "raise",
    __unm = "negate", __call = "call",
} do
    meta[event] = function()
        check.raise(format("attempt to %s a handle", what))
    end
end

-- Releases a handle, unless it is dead.
local drop = fastest("release", function() end, nil, true)

return { methods = handle, meta = meta, drop = drop }
