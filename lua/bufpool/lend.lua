-- Memory that is lent to C for longer than a call: struct bufpool_piece, which
-- src/nginx/piece.h explains.

local ffi = require "ffi"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"

local cast, tonumber, type = ffi.cast, tonumber, type
local identify, live, look = object.identify, object.live, object.look
local lend_frozen, lend_copy = calls.lend_frozen, calls.lend_copy
local take_back = calls.take_back
local deliver = core.deliver

local ESTALE = core.constants.ESTALE
local frozen_t = ffi.typeof("struct bufpool_frozen_box *")
local pieces_t = ffi.typeof("struct bufpool_piece[?]")
local address_t = ffi.typeof("uintptr_t")

-- Pieces of the longest list that is kept.
local KEPT = 4096

local lend = {}

-- One list of pieces is kept for the next call. A finalizer may ask for a list
-- while another one is being filled, so whoever uses the list takes it away.
local spare, spare_size = nil, 0

-- A function of its own, for a trace cannot make closures. The finalizer is for
-- a list that an error takes away from its user.
local function new_list(size)
    return ffi.gc(pieces_t(size), function(list)
        take_back(list, size)
    end)
end

-- A list of at least n pieces, of which none has to be released, and its size.
function lend.take_list(n)
    local list, size = spare, spare_size
    spare, spare_size = nil, 0
    if not list or size < n then
        size = n + 16
        list = new_list(size)
    end
    return list, size
end

-- Releases what the first n pieces of the list still hold, and keeps the list
-- for the next call unless it is long.
function lend.return_list(list, size, n)
    take_back(list, n)
    if size <= KEPT then
        spare, spare_size = list, size
    end
end

-- Makes a piece of a string, which the caller holds, or of an object. Returns 0
-- or an errno.
local function fill(piece, x, name)
    if type(x) == "string" then
        piece.at, piece.len = x, #x
        return 0
    end
    local errno
    if identify(x) == "frozen" then
        local _, _, epoch = look(x, name)
        errno = lend_frozen(cast(frozen_t, x), epoch, piece)
    else
        local b, epoch = live(x, name)
        errno = lend_copy(b, epoch, piece)
    end
    if errno == ESTALE then
        return fill(piece, x, name)
    end
    return errno
end

lend.fill = fill

-- The address of a pointer or function of C, as a number.
local function address(pointer)
    return tonumber(cast(address_t, pointer))
end

lend.address = address

-- Calls fn(request, list, n, worth), which may run Lua code. `fn` is an
-- address.
function lend.deliver(fn, request, list, n, worth)
    return deliver(fn, address(request), address(list), n, worth)
end

return lend
