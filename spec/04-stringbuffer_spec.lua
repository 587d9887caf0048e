-- The vocabulary of LuaJIT's string.buffer. Where that module exists, it is
-- the oracle for what both can do.
local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf
local pool = bufpool.new()

describe("put", function()
    it("appends strings and numbers, several at a time", function()
        local w = pool:writer()
        assert.equal(w, w:put("a", 1, -2, 0.5, "", "\0z"))
        assert.equal("a1-20.5\0z", tostring(w))
    end)

    it("appends after the bytes of a checkout", function()
        local buf = pool:checkout(2)
        buf:put "x"
        assert.equal("\0\0x", tostring(buf))
    end)

    it("formats numbers as tostring does", function()
        for _, n in ipairs { 0, -0, 1e15, 1e16, 0.1, 1 / 3, 2 ^ 53, inf, -inf,
            123456789012, -7 } do
            assert.equal(tostring(n), tostring(pool:writer():put(n)))
        end
    end)

    it("appends buffers and frozen objects", function()
        local a = pool:writer():put "aa"
        local b = pool:writer():put "bb":freeze()
        assert.equal("aabbaa", tostring(pool:writer():put(a, b, a)))
    end)

    it("appends objects by their __tostring", function()
        local object = setmetatable({}, {
            __tostring = function() return "object" end,
        })
        assert.equal("<object>", tostring(pool:writer():put("<", object, ">")))
    end)

    it("copes with a __tostring that writes to the same buffer", function()
        local w = pool:writer():put "first "
        local object = setmetatable({}, {
            __tostring = function()
                w:put(("x"):rep(100000))
                return " last"
            end,
        })
        w:put(object)
        assert.equal("first " .. ("x"):rep(100000) .. " last", tostring(w))
    end)

    it("raises when a __tostring releases the buffer", function()
        local w = pool:writer():put "first "
        local object = setmetatable({}, {
            __tostring = function()
                w:release()
                return "late"
            end,
        })
        assert.is_false(pcall(w.put, w, object))
        assert.equal("dead", bufpool.type(w))
    end)

    it("grows through every class and keeps what it has", function()
        local w, all = pool:writer(), {}
        for i = 1, 400 do
            local piece = string.char(i % 256):rep(7919)
            all[i] = piece
            w:put(piece)
        end
        assert.equal(table.concat(all), tostring(w))
        w:release()
    end)

    it("raises on nil, on itself and on what is no data", function()
        local w = pool:writer():put "abc"
        raises(function() w:put(nil) end, "#1", "'put'")
        raises(function() w:put("x", nil) end, "#2", "'put'")
        raises(function() w:put(w) end, "#1", "'put'")
        for _, x in ipairs { true, {}, print, pool } do
            raises(function() w:put(x) end, "#1", "'put'")
        end
        assert.equal("abc", w:sub(1, 3))
    end)

    it("puts nothing when given nothing", function()
        assert.equal("", tostring(pool:writer():put()))
    end)
end)

describe("putcdata", function()
    it("appends memory", function()
        local p = ffi.new("uint8_t[4]", { 65, 66, 0, 67 })
        local w = pool:writer()
        assert.equal(w, w:putcdata(p, 4))
        w:putcdata(p + 1, 1LL)
        w:putcdata(p, 0)
        assert.equal("AB\0CB", tostring(w))
    end)

    it("raises on what is no pointer and on lengths that are none", function()
        local w = pool:writer():put "abc"
        local p = ffi.new "uint8_t[4]"
        for _, x in ipairs { 1, "abc", true, {}, print, io.stdout } do
            raises(function() w:putcdata(x, 1) end, "#1", "'putcdata'")
        end
        for _, n in ipairs { -1, 0.5, nan, inf, "1", {}, true, 2 ^ 63 } do
            raises(function() w:putcdata(p, n) end, "#2", "'putcdata'")
        end
        raises(function() w:putcdata(p) end, "#2", "'putcdata'")
        assert.equal("abc", tostring(w))
    end)
end)

describe("set", function()
    it("replaces the contents by a copy", function()
        local w = pool:writer():put "old"
        local source = pool:writer():put "new"
        assert.equal(w, w:set(source))
        source:fill(0)
        assert.equal("new", tostring(w))
        w:set "text"
        assert.equal("text", tostring(w))
        w:set ""
        assert.equal("", tostring(w))
    end)

    it("takes a pointer and a length", function()
        local p = ffi.new("uint8_t[3]", { 97, 98, 99 })
        local w = pool:writer()
        w:set(p, 2)
        p[0] = 0
        assert.equal("ab", tostring(w))
    end)

    it("grows where it must", function()
        local text = ("x"):rep(70000)
        assert.equal(text, tostring(pool:writer():set(text)))
    end)
end)

-- A pointer into the buffer's own memory was good when the call was made.
describe("a pointer into the buffer itself", function()
    local alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    local function filled(n)
        local text = alphabet:rep(math.ceil(n / #alphabet)):sub(1, n)
        return pool:writer():put(text), text
    end

    for _, n in ipairs { 1, 100, 2048, 3000, 4096, 40000, 2^20, 3 * 2^20 } do
        it(("is put twice by putcdata, of %d bytes"):format(n), function()
            local w, text = filled(n)
            w:putcdata(w:ref())
            assert.is_true(tostring(w) == text .. text)
            w:release()
        end)
        it(("is put in part, of %d bytes"):format(n), function()
            local w, text = filled(n)
            local p = w:ref()
            local half = math.floor(n / 2)
            w:putcdata(p + half, n - half)
            assert.is_true(tostring(w) == text .. text:sub(half + 1))
            w:release()
        end)
        it(("is put when it was consumed, of %d bytes"):format(n), function()
            local w, text = filled(n)
            local p = w:ref()
            local skipped = math.floor(n / 3)
            w:skip(skipped):putcdata(p, n)
            assert.is_true(tostring(w) == text:sub(skipped + 1) .. text)
            w:release()
        end)
        it(("becomes the contents by set, of %d bytes"):format(n), function()
            for _, skipped in ipairs { 0, 1, math.floor(n * 0.97), n } do
                local w, text = filled(n)
                local p = w:ref()
                w:skip(skipped):set(p, n)
                assert.is_true(tostring(w) == text)
                w:set(w:ref() + 1, n - 1)
                assert.is_true(tostring(w) == text:sub(2))
                w:release()
            end
        end)
    end

    it("may not reach beyond the memory", function()
        local w = filled(4096)
        local p, n = w:ref()
        local room = w:capacity()
        for _, method in ipairs { "putcdata", "set" } do
            raises(function() w[method](w, p + 1, room) end, "#2", method,
                "end of the buffer's memory")
            raises(function() w[method](w, p, 2^40) end, "#2", method)
        end
        assert.equal(n, #w)
        w:release()
    end)

    it("leaves nothing behind for the next owner", function()
        for _, n in ipairs { 3000, 4096, 40000 } do
            local w = filled(n)
            local p = w:ref()
            w:skip(n - 9):set(p, n)
            w:putcdata(w:ref())
            w:release()
            for _, size in ipairs { 4096, 65536 } do
                local heirs = {}
                for k = 1, 3 do
                    heirs[k] = pool:checkout(size)
                    assert.is_true(tostring(heirs[k]) == ("\0"):rep(size))
                end
                for k = 1, 3 do
                    heirs[k]:release()
                end
            end
        end
    end)
end)

describe("reserve and commit", function()
    it("append what was written to the memory between", function()
        local w = pool:writer():put "a"
        local p, n = w:reserve(3)
        assert.equal(3, n)
        ffi.copy(p, "bcd", 3)
        assert.equal("a", tostring(w))
        assert.equal(w, w:commit(2))
        assert.equal("abc", tostring(w))
        w:commit(1LL)
        assert.equal("abcd", tostring(w))
    end)

    it("grant exactly what was asked for", function()
        local w = pool:writer()
        assert.equal(10, select(2, w:reserve(10)))
        raises(function() w:commit(11) end, "#1", "'commit'")
        w:commit(10)
        raises(function() w:commit(1) end, "#1", "'commit'")
        assert.equal(10, #w)
    end)

    it("commit nothing without a grant", function()
        local w = pool:writer()
        raises(function() w:commit(1) end, "#1", "'commit'")
        w:commit(0)
        assert.equal(0, #w)
    end)

    it("commit nothing that was granted before a resize", function()
        local w = pool:writer():put "0123456789"
        w:reserve(20)
        w:resize(5)
        raises(function() w:commit(20) end, "#1", "'commit'")
        assert.equal("01234", tostring(w))
    end)

    it("grow where they must", function()
        local w = pool:writer():put "abc"
        local p, n = w:reserve(100000)
        assert.equal(100000, n)
        ffi.fill(p, n, 120)
        w:commit(n)
        assert.equal("abc" .. ("x"):rep(100000), tostring(w))
    end)

    it("raise on sizes that are none", function()
        local w = pool:writer():put "abc"
        w:reserve(8)
        for _, n in ipairs {
            -1, 0.5, nan, inf, 1e300, -1LL, "1", {}, true,
            0xffffffffffffffffULL,
        } do
            raises(function() w:reserve(n) end, "#1", "'reserve'")
            raises(function() w:commit(n) end, "#1", "'commit'")
        end
        raises(function() w:reserve(2 ^ 62) end, "'reserve'")
        raises(function() w:reserve() end, "#1", "'reserve'")
        raises(function() w:commit() end, "#1", "'commit'")
        assert.equal("abc", tostring(w))
    end)
end)

describe("get", function()
    it("consumes from the front", function()
        local w = pool:writer():put "abcdef"
        assert.equal("ab", w:get(2))
        assert.equal("cdef", tostring(w))
        assert.equal(97 + 2, w:byte(1))
        assert.equal("cdef", w:get())
        assert.equal("", w:get())
        assert.equal(0, #w)
    end)

    it("takes several lengths", function()
        local w = pool:writer():put "abcdef"
        local t = { w:get(1, 2, 0, 9) }
        assert.same({ "a", "bc", "", "def" }, t)
        assert.equal("", tostring(w))
    end)

    it("takes nil for the rest", function()
        local w = pool:writer():put "abcdef"
        assert.same({ "ab", "cdef" }, { w:get(2, nil) })
    end)

    it("gives what there is when less is there", function()
        assert.equal("abc", pool:writer():put "abc":get(10))
        assert.equal("abc", pool:writer():put "abc":get(2 ^ 40))
    end)

    it("makes room that put uses again", function()
        local w = pool:writer():put "abc"
        w:get(3)
        assert.equal(4096, w:capacity())
        for i = 1, 5000 do
            w:put("piece ", i)
            w:get(6)
            assert.equal(tostring(i), w:get())
        end
        assert.equal(4096, w:capacity())
        w:release()
    end)

    it("raises on lengths that are none, and consumes nothing", function()
        local w = pool:writer():put "abc"
        for _, n in ipairs { -1, 0.5, nan, inf, "1", {}, true, -1LL } do
            raises(function() w:get(n) end, "#1", "'get'")
            raises(function() w:get(1, n) end, "#2", "'get'")
        end
        assert.equal("abc", tostring(w))
    end)
end)

describe("get of many lengths", function()
    local text = ("0123456789abcdef"):rep(1000)

    -- The pieces, and what is left.
    local function model(lengths)
        local pieces, at = {}, 1
        for k, n in ipairs(lengths) do
            pieces[k] = text:sub(at, at + n - 1)
            at = at + n
        end
        return pieces, text:sub(at)
    end

    for _, count in ipairs { 1, 2, 3, 4, 5, 17, 100, 400, 3000 } do
        it("takes them all: " .. count, function()
            local w, lengths = pool:writer():put(text), {}
            for k = 1, count do
                lengths[k] = k % 7
            end
            local pieces, rest = model(lengths)
            assert.same(pieces, { w:get(unpack(lengths)) })
            assert.equal(rest, tostring(w))
            w:release()
        end)
    end

    it("takes the rest where nil stands, and nothing after that", function()
        for _, count in ipairs { 2, 3, 4, 9 } do
            local w = pool:writer():put "abcdefgh"
            local got = { w:get(unpack({ 3 }, 1, count)) }
            assert.equal(count, #got)
            assert.equal("abc", got[1])
            assert.equal("defgh", got[2])
            for k = 3, count do
                assert.equal("", got[k])
            end
            assert.equal(0, #w)
            w:release()
        end
    end)

    -- In a coroutine whose stack is almost full the results have no place.
    it("takes nothing where there is no room for all results", function()
        local w, lengths = pool:writer():put(text), {}
        for k = 1, 7900 do
            lengths[k] = 1
        end
        local function deep(n)
            if n > 0 then
                return 0 + deep(n - 1)
            end
            local got = select("#", w:get(unpack(lengths)))
            return got
        end
        for n = 0, 20000, 250 do
            w:set(text)
            local ok = coroutine.wrap(function() return pcall(deep, n) end)()
            assert.equal(ok and #text - 7900 or #text, #w)
        end
        w:release()
    end)
end)

describe("putf of many values", function()
    for _, count in ipairs { 16, 17, 100, 250, 400, 3000 } do
        it("puts them all: " .. count, function()
            local w, values = pool:writer():put "x", {}
            for k = 1, count do
                values[k] = k
            end
            local format = ("%d,"):rep(count)
            w:putf(format, unpack(values))
            assert.equal("x" .. format:format(unpack(values)), tostring(w))
            local before = tostring(w)
            values[count] = w
            raises(function() w:putf(format:gsub("%%d,$", "%%s"),
                unpack(values)) end, "itself")
            raises(function() w:putf(format:gsub("%%d,$", "%%q"),
                unpack(values)) end, "itself")
            assert.equal(before, tostring(w))
            -- The format does not use it.
            w:putf("%d", unpack(values))
            assert.equal(before .. "1", tostring(w))
            w:release()
        end)
    end
end)

describe("putf of objects", function()
    local function shown(text)
        return setmetatable({}, { __tostring = function()
            if text == "raises" then
                error("no text", 0)
            end
            return text
        end })
    end
    local values = {
        string = "text", number = 12.5, integer = 7, ["nil"] = "nothing",
        boolean = true, int64 = 12LL, ["function"] = print, table = {},
        object = shown "object", empty = shown "", raises = shown "raises",
        five = shown(5),
    }
    local names, options = {}, { "%s", "%d", "%q", "%%", "%5.2s", "%-9s|",
        "%x", "%c", "%y", "%", "%g", "text" }
    for name in pairs(values) do
        names[#names + 1] = name
    end
    table.sort(names)

    -- Where string.format does not name itself, putf does.
    local function outcome(ok, text)
        return ok, ok and text or tostring(text):gsub("^.-:%d+: ", "")
            :gsub("to '[^']*' %(", "to 'putf' ("):gsub("'format'", "'putf'")
    end

    it("is as string.format, errors and their order too", function()
        local w = pool:writer()
        for _ = 1, 5000 do
            local n, arguments, format = math.random(0, 4), {}, {}
            for k = 1, n do
                local name = names[math.random(#names)]
                if name ~= "nil" then
                    arguments[k] = values[name]
                end
            end
            for k = 1, math.random(0, 5) do
                format[k] = options[math.random(#options)]
            end
            format = table.concat(format)
            local function put(...)
                return w:reset():putf(format, ...):tostring()
            end
            local ok, text = outcome(pcall(string.format, format,
                unpack(arguments, 1, n)))
            local same, got = outcome(pcall(put, unpack(arguments, 1, n)))
            assert.equal(text, got, format)
            assert.equal(ok, same, format)
        end
    end)

    -- string.format of LuaJITs before 2023 loses what it has, or crashes.
    it("holds what is formatted when the collector runs", function()
        assert.equal("true", helper.child_ok [[
            local pool = require("bufpool").new()
            local w, big = pool:writer(), ("s"):rep(100000)
            local x = setmetatable({}, { __tostring = function()
                collectgarbage()
                return "x"
            end })
            for i = 1, 50 do
                w:reset():putf("%s%s%d", big, x, i)
                assert(w:tostring() == big .. "x" .. i)
            end
            local part = pool:writer():put "part"
            for i = 1, 2000 do
                w:reset():putf("%s%s%d", big, part, i)
                assert(#w == #big + 4 + #tostring(i))
            end
            io.write "true"]])
    end)
end)

describe("skip", function()
    it("consumes without a string", function()
        local w = pool:writer():put "abcdef"
        assert.equal(w, w:skip(2))
        assert.equal("cdef", tostring(w))
        w:skip(2LL)
        assert.equal("ef", tostring(w))
        w:skip(99)
        assert.equal("", tostring(w))
        w:skip(0)
        w:put "new"
        assert.equal("new", tostring(w))
    end)

    it("shifts what positions mean", function()
        local w = pool:writer():put "abcdef":skip(2)
        w:write(1, "C")
        w:setbyte(-1, 70)
        assert.equal("CdeF", tostring(w))
        w:resize(6)
        assert.equal("CdeF\0\0", tostring(w))
    end)

    it("raises on lengths that are none", function()
        local w = pool:writer():put "abc"
        for _, n in ipairs { -1, 0.5, nan, inf, "1", {}, true } do
            raises(function() w:skip(n) end, "#1", "'skip'")
        end
        raises(function() w:skip() end, "#1", "'skip'")
        assert.equal("abc", tostring(w))
    end)
end)

describe("reset", function()
    it("empties and keeps the memory", function()
        local w = pool:writer():put(("x"):rep(70000))
        local capacity = w:capacity()
        assert.equal(w, w:reset())
        assert.equal("", tostring(w))
        assert.equal(capacity, w:capacity())
        w:put "abc"
        assert.equal("abc", tostring(w))
    end)

    it("lets nothing old show through growth", function()
        local w = pool:writer():put "old contents"
        w:reset()
        w:resize(12)
        assert.equal(helper.zeros(12), tostring(w))
    end)
end)

describe("free", function()
    it("returns the memory and leaves the object usable", function()
        local own = bufpool.new()
        local w = own:writer():put(("x"):rep(70000))
        w:free()
        assert.equal(0, own:stats().classes[3].out)
        assert.equal("buffer", bufpool.type(w))
        assert.equal("", tostring(w))
        assert.equal(0, #w)
        w:put "again"
        assert.equal("again", tostring(w))
        w:release()
        assert.equal(0, own:stats().checked_out)
    end)

    it("leaves an object that can be read, freed, frozen, released", function()
        local w = pool:writer():put "x"
        w:free()
        assert.same({ "", 0, "" }, { w:tostring(), w:len(), w:get() })
        assert.is_nil((w:byte(1)))
        assert.is_true(w:equals "")
        w:free()
        assert.equal("", tostring(w:freeze()))
        local other = pool:writer()
        other:free()
        other:release()
        assert.equal("dead", bufpool.type(other))
    end)
end)

describe("ref", function()
    it("gives a pointer to write through", function()
        local buf = pool:checkout(3)
        local p, n = buf:ref()
        assert.equal(3, n)
        ffi.copy(p, "xyz", 3)
        assert.equal("xyz", tostring(buf))
        assert.is_true(ffi.istype("uint8_t *", p))
    end)

    it("starts at the first unread byte", function()
        local buf = pool:writer():put "abc":skip(1)
        local p, n = buf:ref()
        assert.equal("bc", ffi.string(p, n))
    end)
end)

local has_buffer, buffer = pcall(require, "string.buffer")

describe("beside string.buffer", function()
    if not has_buffer then
        pending "this LuaJIT has no string.buffer"
        return
    end

    -- What both do, at random; contents compared after every step.
    it("does the same in ten thousand random steps", function()
        local seed = helper.seed()
        local random = math.random
        local function text()
            return string.char(random(0, 255)):rep(random(0, 300))
        end
        local steps = {
            function(b, n, s) return b:put(s, n) end,
            function(b, _, s) return b:put(s) end,
            function(b, n) return b:get(n) end,
            function(b, n) return b:get(n, n % 7) end,
            function(b, n) return b:skip(n) end,
            function(b, _, s) return b:set(s) end,
            function(b) return b:reset() end,
            function(b) return b:free() end,
            function(b) return #b end,
            function(b, n, s)
                local p = b:reserve(n + #s)
                ffi.copy(p, s, #s)
                return b:commit(#s)
            end,
            function(b, n, s)
                local p = ffi.new("uint8_t[?]", #s + 1, s)
                return b:putcdata(p, math.min(n, #s))
            end,
            function(b) return "<" .. b .. ">" end,
        }
        local ours, theirs = pool:writer(), buffer.new()
        local function result(x, ...)
            if x == ours or x == theirs then
                return "itself", ...
            end
            return x, ...
        end
        for i = 1, 10000 do
            local which, n, s = random(#steps), random(0, 40), text()
            local a = { result(steps[which](ours, n, s)) }
            local b = { result(steps[which](theirs, n, s)) }
            local where = ("seed %d, step %d, kind %d"):format(seed, i, which)
            if which ~= 8 then  -- what free() returns is nobody's business
                assert.same(b, a, where)
            end
            assert.equal(tostring(theirs), tostring(ours), where)
        end
        ours:release()
    end)
end)
