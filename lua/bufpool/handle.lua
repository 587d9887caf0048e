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
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local fastest = require "bufpool.fastest"
local object = require "bufpool.object"

local cast = ffi.cast
local live, is_handle, reject = object.live, object.is_handle, object.reject
local life = object.life
local release, freeze, detach = calls.release, calls.freeze, calls.detach

local frozen_box_t = ffi.typeof("struct bufpool_frozen_box *")
local ESTALE = core.constants.ESTALE

local handle = {}

function handle.release(self)
    if not is_handle(self) then
        reject(self, "release", "handle")
    end
    local b, epoch = live(self, "release")
    local failed = release(b, epoch)
    if failed ~= 0 then
        if failed == ESTALE then
            return handle.release(self)
        end
        core.released(life(self))   -- leak detection asks where that was
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

-- No event of arithmetic and none of comparison may be in here. For a pointer
-- LuaJIT's recorder thinks that the FFI adds and compares, and does not call
-- the method that the interpreter calls: it would go on in the program while
-- the method runs, and make a trace of what never happened. Without a method
-- the FFI raises, but compares the addresses of two handles.
local meta = { __index = {} }

-- Releases a handle, unless it is dead.
local drop = fastest("release", function() end, nil, true)

return { methods = handle, meta = meta, drop = drop }
