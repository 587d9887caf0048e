-- The metatables: what methods an object has, and what Lua's operators do with
-- it, alive and dead.

local check = require "bufpool.check"
local fastest = require "bufpool.fastest"
local object = require "bufpool.object"
local reader = require "bufpool.reader"

local raise, identify, look = check.raise, object.identify, object.look
local TEXT_END, text_too_long = check.TEXT_END, check.text_too_long
local death, reject = object.death, object.reject
local error, pcall = error, pcall
local format = string.format
local ipairs, pairs, select = ipairs, pairs, select
local setmetatable, tostring, type = setmetatable, tostring, type
local readers = reader.methods

local metatable = {}

local function length_of(v)
    local kind = type(v)
    if kind == "string" then
        return #v
    elseif kind == "number" then
        return #tostring(v)
    elseif identify(v) == nil then
        raise(format("attempt to concatenate a %s value", kind))
    end
    return (look(v, "tostring"))
end

local function text_of(v)
    local kind = type(v)
    if kind == "string" or kind == "number" then
        return v
    end
    return readers.tostring(v)
end

local function concat(a, b)
    if length_of(a) + length_of(b) >= TEXT_END then
        text_too_long()
    end
    return text_of(a) .. text_of(b)
end

-- A dead object says what it was, so that a handler of errors may print it. In
-- the interpreter pcall is cheaper than asking first.
local function to_string(self)
    local ok, text = pcall(readers.tostring, self)
    if ok then
        return text
    end
    local kind, state = death(self)
    if not kind then
        error(text, 0)
    end
    return format("bufpool.%s: %s", kind, state)
end

-- Completes the metatable of a class. Adds to the methods from C those of each
-- list, and of two with one name the later.
function metatable.complete(meta, class, ...)
    local index = meta.__index
    for k = 1, select("#", ...) do
        for name, method in pairs((select(k, ...))) do
            index[name] = fastest(name, method, class)
        end
    end
    -- Some libraries give a byte for buf[i]; here it is an error.
    setmetatable(index, {
        __index = function(_, key)
            if type(key) ~= "string" then
                raise(format("attempt to index a %s with a %s (use its "
                    .. "methods)", class, type(key)))
            end
            return nil
        end,
    })
    function meta.__newindex()
        raise(format("attempt to assign to a field of a %s", class))
    end
    if class ~= "pool" then
        meta.__len = fastest("len", readers.len, class)
        meta.__tostring = fastest("tostring", to_string, class)
        meta.__concat = concat
    end
end

-- Completes the metatable of everything dead: an index, #, .., < and <= raise,
-- and say how the object died.
function metatable.bury(meta, lt, le)
    for _, event in ipairs { "__index", "__newindex", "__len" } do
        meta[event] = function(self)
            reject(self, event, "living object")
        end
    end
    meta.__tostring = to_string
    meta.__concat, meta.__lt, meta.__le = concat, lt, le
end

return metatable
