-- Where the JIT is off, methods have a form of C for plain cases (the list is
-- in src/lua/plain.c). Each does what the Lua form does, with any arguments,
-- and does the plain cases by itself.
--
-- SEED and ROUNDS may be set in the environment.
local bufpool = require "bufpool"
local ffi = require "ffi"
local buffer = require "bufpool.buffer"
local core = require("bufpool.object").core
local object = require "bufpool.object"
local reader = require "bufpool.reader"
local typed = require "bufpool.typed"
local varint = require("bufpool.varint").methods
local helper = require "support.helper"

local random = math.random
helper.seed()
local rounds = tonumber(os.getenv "ROUNDS") or 60

local handles = tonumber(object.handle_type)
    + (ffi.abi "gc64" and 6 or 2) * 2 ^ 16

-- The form of C, and a function that tells how often it has called Lua's.
local function form(name, method, class)
    local calls = 0
    local plain = core.plain(name, function(...)
        calls = calls + 1
        return method(...)
    end, class, handles, object.handle_type, ffi.typeof "int64_t",
        ffi.typeof "uint64_t")
    return plain, function() return calls end
end

-- A trace may not hold what calls Lua from C.
jit.off(true, true)

local pool = bufpool.new()
local zero = ("\0"):rep(4096)

-- Objects of each kind with a text, and zeros behind it that nobody wrote.
-- Some bytes before it are consumed.
local function filled(x, text, zeros)
    x:reset():put(("c"):rep(9), text):skip(9)
    return x:resize(#x + (zeros or 0))
end
local makers = {}
function makers.buffer(...)
    return filled(pool:writer(), ...)
end
function makers.handle(...)
    return filled(pool:borrow(0), ...)
end
function makers.frozen(...)
    return filled(pool:writer(), ...):freeze()
end

local function pick(list)
    return list[random(#list)]
end

-- Arguments: the plain ones, and those that only Lua takes, or nobody.
local odd = { 0.5, -1.5, 0 / 0, 1 / 0, -1 / 0, 2 ^ 53, 2 ^ 63, "7", "text",
    true, {}, print, 3LL, 5ULL, 2 ^ 31, -2 ^ 31 - 1, 1e300 }
local function position(len)
    return random(1, math.max(len, 1))
end
local function any_position(len)
    return pick { random(-len - 3, len + 3), pick(odd), nil }
end
local function text()
    return pick { "", "a", "abc", ("t"):rep(random(60)), "c." }
end
local function value()
    local v = pick { text(), random(-1000, 1000), random(), random() * 1e9,
        2 ^ 40, 0 / 0, 1e-9, makers.frozen(text()), makers.buffer(text()) }
    return v
end

-- In place of this argument comes the object itself; in place of one that
-- `new` gives comes a new object of that class.
local SELF, New = {}, {}
local function new(class, content)
    return setmetatable({ class = class, content = content }, New)
end
local function given(x, self)
    if getmetatable(x) == New then
        return makers[x.class](x.content)
    end
    return rawequal(x, SELF) and self or x
end

-- By method: where its Lua form is, plain arguments, and other ones.
local methods = {}
local function method(name, from, plain, other)
    methods[name] = { from = from, plain = plain, other = other }
end
local readers = reader.methods
method("len", readers, function() end, function() return 1 end)
method("tostring", readers, function() end, function() return 1 end)
method("sub", readers, function(len)
    return random(-len - 3, len + 3), random(-len - 3, len + 3)
end, function(len) return any_position(len), any_position(len) end)
method("byte", readers, function(len)
    local i = random(1, len + 3)
    return i, pick { nil, i + random(-1, 9) }
end, function(len) return any_position(len), any_position(len) end)
method("find", readers, function(len)
    return pick { "", "a", "ab", "zz" }, position(len), true
end, function(len) return pick { "a", ".", 1, {}, "z" }, any_position(len),
    pick { true, false } end)
method("find_any", readers, function(len)
    return pick { "", "a", "tc", "zz" }, pick { nil, position(len), len + 1 }
end, function(len) return pick { "a", 1, {}, "\0", 3LL },
    any_position(len) end)
method("setbyte", buffer, function(len)
    return position(len), random(0, 255)
end, function(len) return any_position(len), pick { 300, -1, pick(odd) }, 1 end)
method("write", buffer, function(len)
    local t = ("w"):rep(random(0, len))
    return random(1, len - #t + 1), t
end, function(len) return any_position(len), pick { "text", 12, pick(odd) } end)
method("put", buffer, function()
    local values = {}
    for k = 1, random(0, 32) do
        values[k] = pick { text(), random(-1000, 1000), random(0, 99) / 4,
            makers.frozen(text()), makers.buffer(text()) }
    end
    return unpack(values)
end, function()
    local values = { value(), pick { value(), pick(odd) } }
    for k = 3, pick { 2, random(33, 40) } do
        values[k] = value()
    end
    return unpack(values, 1, math.max(#values, 2))
end)
method("put_range", buffer, function(len)
    if random(2) == 1 then
        return text(), random(-9, 9), pick { nil, random(-9, 70) }
    elseif len == 0 then
        return SELF
    end
    local i = random(len)
    return SELF, pick { i, i - len - 1 }, pick { nil, i + random(0, 5000) }
end, function(len) return pick { SELF, text(), 7, {}, makers.frozen(text()) },
    any_position(len), pick { nil, random(-len - 3, len + 3), 0.5, "7" } end)
method("prepend", buffer, function()
    return pick { text(), new(pick { "buffer", "handle" }, text()),
        ("p"):rep(random(6000)) }
end, function()
    return pick { SELF, 7, {}, 1.5, 3LL, new("frozen", text()), true, nil }
end)
method("take", buffer, function()
    return new(pick { "buffer", "handle" }, text()), pick { nil, random(0, 70) }
end, function()
    return pick { SELF, new("buffer", text()), makers.frozen "f", pick(odd) },
        pick { nil, random(0, 70), pick(odd) }
end)
method("skip", buffer, function(len) return random(0, len + 2) end,
    function() return pick(odd) end)
method("reset", buffer, function() end, function() return pick(odd) end)
method("get", buffer, function(len)
    return pick { random(0, len), random(len, len + 3) }
end, function() return pick { nil, pick(odd) }, 1 end)

for name, sign in pairs { varint = 0, zigzag = 1 } do
    local function integer()
        return random(-sign * 2 ^ random(30), 2 ^ random(30))
            * 2 ^ random(0, 23)
    end
    method("put_" .. name, varint, function()
        local integers = {}
        for k = 1, random(9) do
            integers[k] = integer()
        end
        return unpack(integers)
    end, function()
        return integer(), pick { -1, 2 ^ 53, 2 ^ 53 + 2, 1.5, pick(odd) }
    end)
    for _, wide in ipairs { "", "64" } do
        method("get_" .. name .. wide, varint, function() end,
            function() return 1 end)
    end
end

for name in pairs(typed.readers) do
    local float, size = name:find "^f", name:match "%d+" / 8
    local low = name:find "^u" and 0 or -2 ^ 31 + 1
    local function number()
        return float and (random() - 0.5) * 10 ^ random(-50, 50)
            or random(low, 2 ^ 31 - 1)
    end
    local function whole(len)
        return len >= size and random(1, len - size + 1) or len
    end
    local function wrong()
        return pick { -1, 1.5, pick(odd), -2 ^ 31 }
    end
    method(name, typed.readers, function(len) return whole(len) end,
        function(len) return any_position(len) end)
    method("get_" .. name, typed.writers, function() end,
        function() return 1 end)
    method("set_" .. name, typed.writers,
        function(len) return whole(len), number() end,
        function(len) return any_position(len), wrong() end)
    method("put_" .. name, typed.writers, function()
        local numbers = {}
        for k = 1, random(1, 9) do
            numbers[k] = number()
        end
        return unpack(numbers)
    end, function() return number(), wrong() end)
end

-- What a call did, as text. Messages begin with the line of the call.
local function told(self, ok, ...)
    local parts = { tostring(ok) }
    for k = 1, select("#", ...) do
        local v = select(k, ...)
        parts[k + 1] = rawequal(v, self) and "self"
            or type(v) == "cdata" and self == v and "self"
            or type(v) == "number" and ("%.17g"):format(v)
            or type(v) .. ":" .. tostring(v)
    end
    return (table.concat(parts, ","):gsub("false,string:[^ ]*: ", "false,"))
end

local function run(fn, self, ...)
    return told(self, pcall(function(...)
        return fn(self, ...)
    end, ...))
end

-- Runs both forms on objects that are alike; returns what happened.
local function compare(class, name, plain, arguments)
    local source = ("abcdefghijklmnop"):rep(6):sub(1, random(0, 90))
    local zeros = pick { 0, random(0, 300) }
    local a, b = makers[class](source, zeros), makers[class](source, zeros)
    local list = { arguments(#source + zeros) }
    local n, first = table.maxn(list), list[1]
    local x, y = given(first, a), given(first, b)
    list[1] = x
    local got = run(plain, a, unpack(list, 1, n))
    list[1] = y
    local wanted = run(methods[name].from[name], b, unpack(list, 1, n))
    local about = { name, class, source, unpack(list, 1, n) }
    for k = 1, n + 3 do
        about[k] = tostring(about[k])
    end
    about = table.concat(about, " ")
    assert.equal(wanted, got, about)
    assert.is_true(readers.tostring(a) == readers.tostring(b), about)
    if getmetatable(first) == New then
        assert.is_true(readers.tostring(x) == readers.tostring(y), about)
        x:release()
        y:release()
    end
    assert.equal(#b, #a)
    a:release()
    b:release()
    local heirs = { pool:checkout(4096), pool:checkout(4096) }
    for _, heir in ipairs(heirs) do
        assert.is_true(heir:tostring() == zero, about)
        heir:release()
    end
    return got
end

local function classes_of(name)
    local writes = methods[name].from == buffer
        or methods[name].from == typed.writers
        or methods[name].from == varint
    return writes and { "buffer", "handle" }
        or { "buffer", "handle", "frozen" }
end

describe("the form of C of", function()
    local names = {}
    for name in pairs(methods) do
        names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do
        it(name .. " does what the Lua form does", function()
            for _, class in ipairs(classes_of(name)) do
                for _, of in ipairs { class, false } do
                    local plain, in_lua = form(name, methods[name].from[name],
                        of or nil)
                    local failed = 0
                    for _ = 1, rounds do
                        local got = compare(class, name, plain,
                            methods[name].plain)
                        -- A mistake is for Lua to tell.
                        failed = failed + (got:find "^false" and 1 or 0)
                    end
                    assert.equal(failed, in_lua(), name .. " of " .. class)
                    for _ = 1, rounds do
                        compare(class, name, plain, methods[name].other)
                    end
                end
            end
        end)

        it(name .. " leaves strange objects to Lua", function()
            local dead = pool:checkout(1)
            dead:release()
            local stale = pool:borrow(1)
            stale:release()
            for _, class in ipairs(classes_of(name)) do
                local plain, in_lua = form(name, methods[name].from[name],
                    class)
                local strange = { dead, stale, pool, false, "text", 7, {},
                    newproxy(true), helper.forged "bufpool.buffer",
                    io.stdout, coroutine.create(print), 5LL }
                for k, x in ipairs(strange) do
                    assert.is_false((pcall(plain, x, 1, 1)), k)
                    assert.equal(k, in_lua())
                end
                assert.is_false((pcall(plain)))
            end
        end)
    end

    it("put leaves reserved bytes alone where it fails", function()
        local put = form("put", buffer.put, "buffer")
        local x = pool:writer()
        ffi.copy(x:reserve(8), "RESERVED", 8)
        assert.is_false(pcall(put, x, "abc", nil))
        assert.equal("RESERVED", x:commit(8):tostring())
        x:release()
    end)

    it("put writes no further than the buffer has room", function()
        local put = form("put", buffer.put, "buffer")
        for room = 0, 40 do
            for _, v in ipairs { "eight by", 12, 12345678901234, 0.125 } do
                local head = ("h"):rep(4096 - room)
                local x = pool:writer():put(head)
                put(x, v, v)
                assert.is_true(#x <= x:capacity(), room .. " " .. v)
                assert.is_true(x:tostring() == head .. v .. v)
                x:release()
            end
        end
    end)

    it("any method is a C function of an object, where the JIT is off",
        function()
            local list = {}
            for name in pairs(methods) do
                list[#list + 1] = ("%q"):format(name)
            end
            local child = [[
                jit.off()
                local bufpool = require "bufpool"
                local pool = bufpool.new()
                local x = { pool:checkout(8), pool:borrow(8) }
                local missing = {}
                for _, name in ipairs { ]] .. table.concat(list, ", ")
                    .. [[ } do
                    for k = 1, 2 do
                        if debug.getinfo(x[k][name], "S").what ~= "C" then
                            missing[#missing + 1] = name
                        end
                    end
                end
                io.write(table.concat(missing, " "))]]
            assert.equal("", helper.child_ok(child))
        end)
end)

-- Making a string or a cdata may run a finalizer in the middle of these.
describe("a finalizer in the middle of the form of C of", function()
    for name, arguments in pairs { get = { 40 }, sub = { 1, 40 },
        tostring = {}, u64le = { 1 }, get_i64be = {}, get_zigzag64 = {} } do
        it(name .. " may change the buffer", function()
            local plain = form(name, methods[name].from[name], "buffer")
            local ran, buf, heir = 0
            collectgarbage("setpause", 100)
            collectgarbage("setstepmul", 4000)
            -- When the collector comes is chance: it must have come once.
            for i = 1, 500000 do
                if i > 5000 and ran > 0 then
                    break
                end
                local mine = pool:writer():put(("x"):rep(34), i + 100000)
                -- Garbage of any size: else the collector would always come
                -- at the same line.
                local _ = ("g"):rep(random(600))
                buf = mine
                getmetatable(newproxy(true)).__gc = function()
                    if buf then
                        local b = buf
                        buf, ran = nil, ran + 1
                        b:free()
                        heir = pool:checkout(4096):fill(("z"):byte())
                        b:put(("y"):rep(41))
                    end
                end
                local v = tostring(plain(mine, unpack(arguments)))
                buf = nil
                assert.is_nil(v:find "z", v)
                if name == "get" then
                    local left = v:find "^x" and { "", ("y"):rep(41) }
                        or { "y" }
                    assert.is_truthy(mine:tostring() == left[1]
                        or mine:tostring() == left[2])
                end
                if heir then
                    heir:release()
                    heir = nil
                end
                mine:release()
            end
            collectgarbage("setpause", 200)
            collectgarbage("setstepmul", 200)
            assert.is_true(ran > 0)
        end)
    end
end)

