-- Where the bytes of a buffer may go: growth, and the mark above them.

local bit = require "bit"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local object = require "bufpool.object"

local cast = require("ffi").cast
local min = math.min
local tonumber, type = tonumber, type
local format = string.format
local arshift, band, bnot = bit.arshift, bit.band, bit.bnot
local live, box_t = object.live, object.box_type

local ESTALE, LINE = core.constants.ESTALE, core.constants.LINE

local space = {}

-- Stores of single numbers raise the mark by whole cache lines. Wiping a line
-- costs as much as wiping a byte of it, and most stores of a loop then need not
-- touch the mark.

-- The mark for a store that ends at i.
function space.line_end(i, capacity)
    return min(i + (LINE - 1) - (i + (LINE - 1)) % LINE, capacity)
end

-- The box that memory is charged to; nil for a handle, whose memory the
-- collector does not return.
function space.charged(self)
    if type(self) == "userdata" then
        return (cast(box_t, self))
    end
    return nil
end

local charged = space.charged

-- Runs the collector for n bytes, because garbage buffers may hold the memory.
-- Raises that memory is short when a run is not worth it or was made before.
-- `number` is that of the descriptor; `collected`, whether the collector ran.
function space.collect_or_raise(number, errno, n, name, collected)
    if collected or not core.reclaim(number, n) then
        check.raise(format("cannot grow in '%s': %s", name,
            failure.shortage(errno, n)))
    end
end

local collect_or_raise = space.collect_or_raise

-- Grows by `call` to n bytes, or raises.
local function grow(self, call, n, name, collected)
    local b, epoch = live(self, name)
    local errno = call(b, epoch, n, charged(self))
    if errno == ESTALE then
        return grow(self, call, n, name, collected)
    elseif errno ~= 0 then
        collect_or_raise(b.number, errno, n, name, collected)
        return grow(self, call, n, name, true)
    end
end

space.grow = grow

-- The larger of two int64_t, without a branch: in a loop the larger one
-- changes, and a trace would leave there.
local function larger(a, b)
    local more = b - a
    return a + band(more, bnot(arshift(more, 63)))
end

-- Room for n bytes at the end: the descriptor, its epoch, where the room
-- begins, the length at its end, and the mark for that length. The last two are
-- int64_t: in a loop that appends, each length waits for the one before, and a
-- conversion to a number and back takes three times as long as the addition.
local function room(self, n, name)
    local b, epoch = live(self, name)
    local len = b.len
    if b.capacity - len < n then
        grow(self, calls.grow, tonumber(len) + n, name)
        return room(self, n, name)
    end
    local stop = len + n
    return b, epoch, b.at + len, stop, larger(stop, b.mark)
end

space.room = room

return space
