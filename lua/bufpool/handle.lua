-- Handles: buffers that are borrowed, which no collector releases.
--
-- A handle is a value of the FFI, without a finalizer. A handle that does not
-- leave a trace stays in a register, and borrowing and releasing are one call
-- into C each. In return, nobody releases a handle that a program forgets, but
-- for a scope of bufpool.ngx.
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
local borrowed, life = object.borrowed, object.life
local error = error
local release, freeze, detach = calls.release, calls.freeze, calls.detach

local frozen_box_t = ffi.typeof("struct bufpool_frozen_box *")
local ESTALE = core.constants.ESTALE

local handle = {}

-- Releases a handle. False where it is dead.
local function give_back(h)
    local b, epoch = borrowed(h)
    if not b then
        return false
    end
    local failed = release(b, epoch)
    if failed == ESTALE then
        return give_back(h)
    elseif failed ~= 0 then
        core.released(life(h))   -- leak detection asks where that was
    end
    return true
end

function handle.release(self)
    if not is_handle(self) or not give_back(self) then
        reject(self, "release", "handle")
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

-- Releases a handle, unless it is dead, by a function of C.
local drop = fastest("release", function() end, nil, true)

-- What follows a protected call that had a handle: releases it, if the call has
-- not, and passes results and errors on. After an error C releases it, because
-- the state may have no memory left for more.
local function finish(h, ok, ...)
    if not ok then
        drop(h)
        error((...), 0)
    end
    give_back(h)
    return ...
end

return { methods = handle, meta = meta, finish = finish }
