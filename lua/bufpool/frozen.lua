-- Frozen objects: immutable bytes that behave like a string.

local check = require "bufpool.check"
local consume = require "bufpool.consume"
local core = require "bufpool.core"
local object = require "bufpool.object"
local reader = require "bufpool.reader"

local look, view, range = object.look, object.view, check.range
local reject = object.reject
local order = reader.order
local slice = core.frozen.__index.slice

local frozen = {}

function frozen.slice(self, i, j)
    if object.type(self) ~= "frozen" then
        reject(self, "slice", "frozen")
    end
    local len = look(self, "slice")
    i, j = range(i, j, len, "slice", 1)
    if i > j then
        return slice(self, 0, 0)
    end
    return slice(self, i - 1, j - i + 1)
end

function frozen.ref(self)
    if object.type(self) ~= "frozen" then
        reject(self, "ref", "frozen")
    end
    local at, len, o, epoch = view(self, "ref")
    if o.epoch ~= epoch then
        return frozen.ref(self)
    end
    return at, len
end

function frozen.reader(self)
    if object.type(self) ~= "frozen" then
        reject(self, "reader", "frozen")
    end
    return (consume(self))
end

local events = {}

local function compare(a, b, name, equal)
    if not (object.type(a) == "frozen" and object.type(b) == "frozen") then
        reject(object.type(a) == "frozen" and b or a, name, "frozen")
    end
    return order(a, b, name, nil, equal)
end

-- Lua calls __eq only for two objects that share it, so for two frozen ones.
function events.__eq(a, b)
    return compare(a, b, "==", true) == 0
end

function events.__lt(a, b)
    return compare(a, b, "<") < 0
end

function events.__le(a, b)
    return compare(a, b, "<=") <= 0
end

return { methods = frozen, events = events }
