-- Handles: buffers that are borrowed, and go back by release() only.
--
-- A handle is a value of the FFI and no object with a finalizer: while it does
-- not leave a trace it is never even made, and borrowing and releasing are one
-- call into C each. The price is that nobody returns what a program forgets.
--
-- To the FFI it is an address, of a struct that has no fields: of all types
-- that may have methods, addresses alone are values to the compiler. It is
-- never looked at as one.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"

local cast = ffi.cast
local getmetatable, type = getmetatable, type
local calls, cookie, live = core.ffi_calls, core.cookie, core.live
local is_handle, reject = core.is_handle, core.reject
-- Looking a function up allocates; a local does not.
local borrow, release, freeze = calls.borrow, calls.release, calls.freeze

local pool_box_t = ffi.typeof("struct bufpool_pool_box *")
local frozen_box_t = ffi.typeof("struct bufpool_frozen_box *")

local ESTALE = 116

-- What is garbage may be what memory lacks, so before it fails, the collector
-- may run. C looks once more whether the pool is open: a finalizer may have
-- closed it.
local function take(self, box, n, collected)
    local h = borrow(box, n)
    if h ~= nil then
        return h
    end
    local errno = box.error
    if errno == ESTALE then
        reject(self, "borrow", "pool")
    elseif not collected and core.reclaim(self, n) then
        return take(self, box, n, true)
    end
    return nil, core.shortage(errno, n)
end

---@class (partial) bufpool.Pool
local pool = {}

---A handle for n zero bytes; or nil and a message when memory is short. Only
---its release() or freeze() brings the memory back.
---@param n bufpool.Integer
---@return bufpool.Handle? handle
---@return string? message
function pool.borrow(self, n)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.pool" then
        ---@type any
        local box = cast(pool_box_t, self)
        if box.cookie == cookie then
            return take(self, box, check.size(n, "borrow", 1))
        end
    end
    reject(self, "borrow", "pool")
end

---@class bufpool.Handle : bufpool.Buffer
---@operator len: integer
---@operator concat(bufpool.Data): string
local handle = {}

---Gives the memory back; every copy of the handle is stale from here on.
function handle.release(self)
    if not is_handle(self) then
        reject(self, "release", "handle")
    end
    local b, epoch = live(self, "release")
    if release(b, epoch) == ESTALE then
        return handle.release(self)
    end
end

---The contents, immutable and not copied; the collector returns them.
---@return bufpool.Frozen
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

---@type table<string, any>
local meta = { __index = {} }

-- The FFI would compare and add addresses.
for event, what in pairs {
    __lt = "compare", __le = "compare", __add = "add to", __sub = "subtract",
    __mul = "multiply", __div = "divide", __mod = "divide", __pow = "raise",
    __unm = "negate", __call = "call",
} do
    meta[event] = function()
        check.raise(("attempt to %s a handle"):format(what))
    end
end

core.handle = meta
core.pool_borrow, core.handle_methods = pool, handle

return true
