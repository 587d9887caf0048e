-- frozen:reader(): takes bytes off the front of a frozen object, as a buffer
-- does of its own.
--
-- The reader is a table, because a frozen object never changes: `of` is the
-- object, and `at` the position that is read next. A program may set both. All
-- reading is done by methods of the object, which look at the position again,
-- so no value of these fields leads out of the bytes.

local check = require "bufpool.check"
local fastest = require "bufpool.fastest"
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local typed = require "bufpool.typed"
local varint = require "bufpool.varint"

local assert, floor, format, gsub = assert, math.floor, string.format,
    string.gsub
local load, min, pairs, select = loadstring, math.min, pairs, select
local setmetatable, tostring, type = setmetatable, tostring, type
local pcall, unpack = pcall, unpack
local raise, size = check.raise, check.size
local too_short = typed.too_short
local HUGE = math.huge

-- A method of frozen objects, in the form that those have.
local function of_frozen(name, method)
    return fastest(name, method, "frozen")
end

local len = of_frozen("len", reader.methods.len)
local sub = of_frozen("sub", reader.methods.sub)
local varint_at = of_frozen("varint_at", varint.at)

-- How many bytes are left. Raises for the dead, and for a position that is
-- none.
local function left(self)
    local n, at = len(self.of), self.at
    if type(at) ~= "number" or not (at >= 1 and at <= n + 1)
        or floor(at) ~= at then
        raise(format("the reader's 'at' is no position (%s, length %.14g)",
            tostring(at), n))
    end
    return n - at + 1
end

-- The position behind the next n bytes; nil for what needs a closer look.
local function behind(self, n)
    local at = self.at
    if type(n) == "number" and type(at) == "number" and n >= 0 and at >= 1
        and at + n <= len(self.of) + 1 and floor(n) == n
        and floor(at) == at then
        return at + n
    end
end

local methods = {}

methods.len = left

function methods.tostring(self)
    left(self)
    return (sub(self.of, self.at, -1))
end

function methods.skip(self, n)
    local stop = behind(self, n)
    if not stop then
        local count = min(size(n, "skip", 1), left(self))
        stop = self.at + count
    end
    self.at = stop
    return self
end

local function get_size(n, arg)
    return type(n) ~= "nil" and size(n, "get", arg) or HUGE
end

-- The bytes that a length stands for. `at` is where all before them end.
local function piece(self, at, n)
    return (sub(self.of, at, at + min(n, 2 ^ 53) - 1))
end

-- Up to three lengths, without a loop, as in buffer.lua.
local function get_few(self, count, n, m, o)
    local v_most, w_most, x_most = get_size(n, 1), get_size(m, 2),
        get_size(o, 3)
    left(self)
    local v, w, x = piece(self, self.at, v_most), "", ""
    local at = self.at + #v
    if count >= 2 then
        w = piece(self, at, w_most)
        at = at + #w
    end
    if count >= 3 then
        x = piece(self, at, x_most)
        at = at + #x
    end
    self.at = at
    if count <= 1 then
        return v
    elseif count == 2 then
        return v, w
    end
    return v, w, x
end

local function get_one(self, n)
    local stop = behind(self, n)
    if not stop then
        return (get_few(self, 1, n))
    end
    local v = sub(self.of, self.at, stop - 1)
    self.at = stop
    return v
end

local function get_many(self, count, ...)
    local lengths, texts = { ... }, {}
    for k = 1, count do
        lengths[k] = get_size(lengths[k], k)
    end
    left(self)
    local at = self.at
    for k = 1, count do
        texts[k] = piece(self, at, lengths[k])
        at = at + #texts[k]
    end
    if not pcall(unpack, texts, 1, count) then
        raise(format("too many results of 'get' (%d)", count))
    end
    self.at = at
    return unpack(texts, 1, count)
end

function methods.get(self, ...)
    local count = select("#", ...)
    if count == 1 then
        return (get_one(self, (...)))
    elseif count <= 3 then
        return get_few(self, count, ...)
    end
    return get_many(self, count, ...)
end

-- Each from code of its own, so that what LuaJIT compiles of one is not in the
-- way of another.
local GET = [[
local read, len, left, too_short = ...
local type = type

return function(self)
    local x, at = self.of, self.at
    if type(at) ~= "number" or not (at >= 1 and at <= len(x) - $more) then
        too_short("get_$kind", left(self), $size)
    end
    local v = read(x, at)
    self.at = at + $size
    return v
end
]]
local chunk_name = check.chunk "consume"

for kind, read in pairs(typed.readers) do
    local n = typed.sizes[kind]
    local code = gsub(GET, "$(%a+)", { kind = kind, size = n, more = n - 1 })
    methods["get_" .. kind] = assert(load(code, chunk_name))(
        of_frozen(kind, read), len, left, too_short)
end

for name, form in pairs(varint.forms) do
    methods[name] = function(self)
        local at = self.at
        if type(at) ~= "number" or floor(at) ~= at then
            left(self)
        end
        local v, n = varint_at(self.of, at, form)
        if n < 0 then
            varint.raise(-n, name, left(self))
        end
        self.at = at + n
        return v
    end
end

local meta = { __index = methods, __metatable = "bufpool.reader" }

-- A reader of the dead says so, for handlers of errors that print it.
function meta.__tostring(self)
    if object.type(self.of) == "dead" then
        return (tostring(self.of))
    end
    return (methods.tostring(self))
end

-- A reader of x.
return function(x)
    return setmetatable({ of = x, at = 1 }, meta)
end
