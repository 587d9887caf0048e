-- Frozen objects: immutable bytes that behave like a string.

local check = require "bufpool.check"
local core = require "bufpool.core"

local view, range = core.view, check.range
local order = core.order
local slice = core.frozen.__index.slice

---@class bufpool.Frozen : bufpool.Reader, bufpool.FileWriter
---@field release fun(self) dead; the memory goes with its last owner
---@field clone fun(self): bufpool.Frozen another owner of the memory
---@operator len: integer
---@operator concat(bufpool.Data): string
local frozen = {}

---A frozen object for the bytes i to j. It shares the memory.
---@param i bufpool.Integer
---@param j? bufpool.Integer
---@return bufpool.Frozen
function frozen.slice(self, i, j)
    if core.type(self) ~= "frozen" then
        core.reject(self, "slice", "frozen")
    end
    local _, len = view(self, "slice")
    i, j = range(i, j, len, "slice", 1)
    if i > j then
        return slice(self, 0, 0)
    end
    return slice(self, i - 1, j - i + 1)
end

---A read-only pointer to the bytes, and their number.
---@return ffi.cdata* at
---@return integer len
function frozen.ref(self)
    if core.type(self) ~= "frozen" then
        core.reject(self, "ref", "frozen")
    end
    local at, len = view(self, "ref")
    return at, len
end

core.frozen_methods = frozen

local meta = core.frozen

local function compare(a, b, name, equal)
    if not (core.type(a) == "frozen" and core.type(b) == "frozen") then
        core.reject(core.type(a) == "frozen" and b or a, name, "frozen")
    end
    return order(a, b, name, nil, equal)
end

-- Lua calls this only for two objects that have the same one.
function meta.__eq(a, b)
    return compare(a, b, "==", true) == 0
end

function meta.__lt(a, b)
    return compare(a, b, "<") < 0
end

function meta.__le(a, b)
    return compare(a, b, "<=") <= 0
end

core.dead.__lt, core.dead.__le = meta.__lt, meta.__le

return true
