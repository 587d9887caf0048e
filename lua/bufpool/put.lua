-- buf:put(...): any number of values of any kinds, all of them or none.
--
-- A method for each number of arguments, without a loop: a loop does not fit
-- into the trace of the program's own. It fills in a struct bufpool_values, and
-- one call of C (src/lua/append.h) looks at all of it, makes room and copies.
-- So no finalizer comes between the look and the copy, and there is no epoch to
-- compare. A finalizer may still put while the values are filled in: its turn
-- then is another one, and the method begins anew.
--
-- C takes what is plain: strings, numbers, objects. All else becomes text
-- first, and then the method begins anew. So no function of the program's runs
-- while the values are filled in, which could yield there, and go on when the
-- values are another put's. Numbers whose text C is unable to tell become text
-- in Lua likewise. Where there are no numbers something is wrong, and is looked
-- for.

local bit = require "bit"
local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local space = require "bufpool.space"
local unroll = require "bufpool.unroll"

local cast, copy, tobit = ffi.cast, ffi.copy, bit.tobit
local getmetatable, select, tostring = getmetatable, select, tostring
local concat, type = table.concat, type
local bad_argument, metatable = check.bad_argument, check.metatable
local live, data, room = object.live, object.data, space.room
local identify, is_handle, same = object.identify, object.is_handle, object.same
local object_type, text_of_object = object.type, reader.methods.tostring
local call, call_handle = calls.put, calls.put_handle

local constants = core.constants
local ODD, BUFFER, FROZEN, HANDLE = constants.APPEND_ODD,
    constants.VALUE_BUFFER, constants.VALUE_FROZEN, constants.VALUE_HANDLE
local MOST = constants.VALUES_MAX
local ITSELF = "a buffer cannot be put into itself"

local box_t = object.box_type
local pointer = ffi.typeof("const void *")
local values = ffi.new("struct bufpool_values")

-- The text of a value that is no object; an object, which has to live and to be
-- another than self.
local function text_of(self, v, arg)
    local kind = type(v)
    if kind == "string" then
        return v
    elseif kind == "number" then
        return tostring(v)
    elseif identify(v) ~= nil then
        local b = live(self, "put")
        data(v, "put", arg)
        if same(self, v) or object_type(v) ~= "frozen"
            and live(v, "put") == b then
            bad_argument(arg, "put", ITSELF)
        end
        return v
    elseif kind == "cdata" then
        return tostring(v)
    end
    local meta = (kind == "table" or kind == "userdata") and metatable(v)
    local text = meta and meta.__tostring and meta.__tostring(v)
    if type(text) == "number" then
        text = tostring(text)
    elseif type(text) ~= "string" then
        bad_argument(arg, "put", "string, number, buffer, frozen or "
            .. "__tostring expected, got " .. kind)
    end
    return text
end

-- What C needs to know of a value that is neither a string nor a number; nil
-- for one that is no object, or looks like none.
local function plain(v)
    local what = type(v) == "userdata" and getmetatable(v)
    if what == "bufpool.buffer" or what == "bufpool.frozen" then
        local at = cast(pointer, v)
        if at ~= nil then
            return at, what == "bufpool.buffer" and BUFFER or FROZEN
        end
    elseif is_handle(v) and v ~= nil then
        return v, HANDLE
    end
end

-- A plain value in place of v.
local function made_plain(self, v, arg)
    v = text_of(self, v, arg)
    if type(v) ~= "string" and not plain(v) then
        return text_of_object(v)
    end
    return v
end

local function append(self, n, turn)
    if type(self) == "userdata" and getmetatable(self) == "bufpool.buffer" then
        local box = cast(box_t, self)
        if box ~= nil then
            return (call(box, values, n, turn))
        end
    elseif is_handle(self) then
        return (call_handle(self, values, n, turn))
    end
    return ODD
end

-- One string, without a call of ours. Between the comparison and the copy a
-- trace has nothing to guard (object.lua): #v makes it look at v before.
local function put_string(self, v)
    local b, epoch, to, stop, mark = room(self, #v, "put")
    local n, later = #v, tobit(epoch + 1)
    if b.epoch ~= epoch then
        return put_string(self, v)
    end
    b.mark, b.epoch = mark, later
    copy(to, v, n)
    b.len = stop
    return self
end

local function length(v, arg)
    local _, n = data(v, "put", arg)
    return n
end

-- `again` begins anew. The copy that programs call has a second copy as its
-- `again`, because LuaJIT takes a function that calls itself for a loop, which
-- does not fit into another loop.
local TEMPLATE = [[
local e, again = ...
local at, n, values = e.at, e.n, e.values
local append, length, live, plain, room = e.append, e.length, e.live, e.plain,
    e.room
local made_plain, tobit, tostring = e.made_plain, e.tobit, e.tostring
local type = e.type
local ESTALE, ODD = e.ESTALE, e.ODD

local function put(self$params)
    local turn = tobit(values.turn + 1)
    local error
    values.turn = turn
    $fill
    error = append(self, $count, turn)
    if error == 0 then
        return self
    elseif error == ODD then
        local numbers = false
        $numbers
        if not numbers then
            goto texts
        end
    elseif error ~= ESTALE then
        room(self, 0$lengths, "put")
    end
    do
        return (again(self$params))
    end
    ::texts::
    live(self, "put")
    $texts
    return (again(self$params))
end
again = again or put
return put
]]

local FILL = [[
    if type(v$k) == "string" then
        at[$i], n[$i] = v$k, #v$k
    elseif type(v$k) == "number" then
        at[$i], n[$i] = nil, v$k
    else
        local p, m = plain(v$k)
        if not p then
            goto texts
        end
        at[$i], n[$i] = p, m
    end
]]

local NUMBER = [[
        if type(v$k) == "number" then
            v$k, numbers = tostring(v$k), true
        end
]]

local environment = {
    at = values.at, n = values.n, values = values,
    append = append, length = length, live = live, plain = plain, room = room,
    made_plain = made_plain, tobit = tobit, tostring = tostring, type = type,
    ESTALE = constants.ESTALE, ODD = ODD,
}

local TEXTS = {
    fill = FILL, numbers = NUMBER,
    texts = "v$k = made_plain(self, v$k, $k)\n", lengths = " + length(v$k, $k)",
}

-- The methods by the number of their arguments; each is made when it is first
-- called. Handles have their own, for the reason that fastest.lua gives.
local methods, methods_of_handles = {}, {}

local function new_method(known, count)
    local again = unroll.make("put", TEMPLATE, count, TEXTS, environment)
    known[count] = unroll.make("put", TEMPLATE, count, TEXTS, environment,
        again)
    return known[count]
end

local function put(self, ...)
    local n = select("#", ...)
    local first = ...
    if n == 1 and type(first) == "string" then
        return (put_string(self, first))
    elseif n <= MOST then
        local known = type(self) == "cdata" and methods_of_handles or methods
        return ((known[n] or new_method(known, n))(self, ...))
    end
    live(self, "put")
    local texts = { ... }
    for k = 1, n do
        texts[k] = text_of(self, texts[k], k)
    end
    -- Objects last, as C reads them: a __tostring may have changed one.
    for k = 1, n do
        if type(texts[k]) ~= "string" then
            texts[k] = text_of_object(text_of(self, texts[k], k))
        end
    end
    return (put(self, concat(texts)))
end

return put
