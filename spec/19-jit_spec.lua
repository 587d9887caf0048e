-- Every accessor compiles, but for the exceptions below: the JIT's own events,
-- recorded while a loop over it runs in a process of its own.
--
-- The first round of each loop does nothing, so that with hotloop=1 the loop is
-- what becomes hot, and not some function inside it that is called more often:
-- then all of a method has to fit into the loop's own trace. From there on the
-- usual thresholds hold.
local bufpool = require "bufpool"
local helper = require "support.helper"

local can_borrow = bufpool.default().borrow ~= nil

local child = [[
local bufpool = require "bufpool"
local ffi, util = require "ffi", require "jit.util"
local named, vmdef = pcall(require, "jit.vmdef")
local pool = bufpool.new()
local kind = %q

local function make(text, n)
    local x = (kind == "handle" and pool.borrow or pool.checkout)(pool, n)
    x:write(1, text)
    return kind == "frozen" and x:freeze() or x
end
local b, w = make("abcdefgh", 4096), nil
if kind ~= "frozen" then
    w = make("", 4096):reset()
end
local other, small = make("abcdefgh", 4096), make("xyz", 3)
local pointer, size = ffi.cast("const char *", "abcdef"), 3LL
ffi.cdef "int open(const char *, int, ...);"
local zeros, null = ffi.C.open("/dev/zero", 0), ffi.C.open("/dev/null", 1)
local file = io.open "/dev/null"

local roots, problems = 0, {}
local function watch(what, trace, func, pc, code, reason)
    if what == "stop" then
        local info = util.traceinfo(trace)
        if info.linktype == "loop" then
            roots = roots + 1
        elseif info.linktype == "stitch" then
            problems[#problems + 1] = "stitched"
        end
        jit.opt.start("hotloop=1000000")
    elseif what == "abort" then
        local at = util.funcinfo(func, pc)
        if type(reason) == "function" then
            reason = util.funcinfo(reason).loc or "C function"
        end
        local text = named and vmdef.traceerr[code] or "error " .. code
        problems[#problems + 1] = text:gsub("%%%%[sd]", tostring(reason))
            .. " at " .. tostring(at.loc)
    end
end

local function run(n)
    local x = 0
    for i = 0, n do
        if i > 0 then
            %s
        end
    end
    return x
end
-- Once without the JIT: what a format needs is made when it is first seen.
jit.off()
run(1)
jit.on()
jit.off(watch)
jit.flush()
jit.opt.start("hotloop=1")
jit.attach(watch, "trace")
run(400)
jit.attach(watch)
if roots == 0 then
    problems[#problems + 1] = "no trace of the loop"
end
io.write(table.concat(problems, "\n"))
]]

-- By method: what a loop does with b, a full buffer, w, an empty one, other,
-- one like b, and small. More than one line: one loop each.
local readers = {
    len = { "x = x + b:len() + #b" },
    byte = { "x = x + b:byte(i % 64 + 1)", "x = x + b:byte(-(i % 64) - 1)",
        "x = x + select(2, b:byte(i % 64 + 1, i % 64 + 2))",
        "x = x + b:byte(size)" },
    sub = { "x = x + #b:sub(i % 64 + 1, i % 64 + 3)", "x = x + #b:sub(-3)" },
    tostring = { "x = x + #b:tostring()" },
    find = { "x = x + b:find('c', i % 3 + 1, true)", "x = x + b:find 'cd'",
        "x = x + #b:sub(b:find(small, 1, true) or 1)" },
    find_any = { "x = x + b:find_any('zc', i % 3 + 1)",
        "x = x + (b:find_any(small, 9) or 1)" },
    lines = { "local line = b:lines() x = x + #line() + (line() or 0)" },
    equals = { "x = x + (b:equals(other) and 1 or 0)",
        "x = x + (b:equals 'abc' and 1 or 0)" },
    equals_ct = { "x = x + (b:equals_ct(other) and 1 or 0)",
        "x = x + (b:equals_ct 'abc' and 1 or 0)" },
    crc32 = { "x = x + b:crc32(i % 64 + 1, i % 64 + 9)",
        "x = b:crc32(1, -1, x)", "x = x + small:crc32()" },
    adler32 = { "x = x + b:adler32(i % 64 + 1, -9)", "x = b:adler32(1, 9, x)" },
    ref = { "local p, n = b:ref() x = x + p[i % 64] + n" },
    unpack = { "x = x + b:unpack(i, '<I4')", "x = x + b:unpack(i, '<d')",
        "local v, w = b:unpack(i, '>I2 I2') x = x + v + w",
        "x = x + #b:unpack(1, 's1')", "x = x + #b:unpack(9, '<s2')",
        "x = x + #b:unpack(i % 4 + 1, 'z')",
        "x = x + tonumber((b:unpack(i, '<i8')))",
        "x = x + select(3, b:unpack(i, '<I1I2I4'))",
        "x = x + select(8, b:unpack(i, '<I1>i2<I3>i4 !4 Xi4 <I4 >I2 x i1'))",
        "x = x + tonumber((b:unpack(i, '<i5>I6<I7')))",
        "x = x + #select(2, b:unpack(1, 'c3c2xc1'))",
        ("x = x + #b:unpack(i + 99, '%s')"):format(("s1"):rep(10)),
        ("x = x + select(16, b:unpack(i, '%s'))"):format(("<i3"):rep(16)) },
    writeto = { "x = x + b:writeto(null)", "x = x + b:writeto(null, 3, -2)" },
    reader = { "local r = b:reader() x = x + r:get_u8() + r:len()",
        "local r = b:reader():skip(i) x = x + #r:get(3) + #r:get()",
        "local r = b:reader() x = x + #r:tostring() + r.at",
        "x = x + #select(2, b:reader():get(1, 2))",
        "x = x + #select(3, b:reader():get(1, 2, 1))",
        "r = r or b:reader() x = x + r:get_varint() + r:get_zigzag()",
        "local r = b:reader() x = x + tonumber(r:get_varint64())",
        "local r = b:reader() x = x + tonumber(r:get_zigzag64())" },
}

local writers = {
    pack = { "b:pack(1, '<I4', i)", "b:pack(1, '>I2 I2', i, i)",
        "b:pack(1, '<d', i)", "b:pack(1, '<s2', 'abc')",
        "b:pack(1, 'z', 'abc')", "b:pack(1, 's1', small)",
        "b:pack(1, 'z', i)", "b:pack(1, '<j', size)", "b:pack(1, 'J', 5ULL)",
        "b:pack(1, '<i5>I6', i, size)", "b:pack(1, '<i9>I16', -i, i)",
        "b:pack(i, '<b!4 I4 Xi8 >f c9 x', -i % 128, i, i, small)",
        "w:pack(#w + 1, 's4', 'abc')", "w:reset():pack(1, '<I3', i)",
        ("b:pack(1, '%s', %s)"):format(("s1"):rep(10), ("'a',"):rep(9) .. "i"),
        ("b:pack(1, '%s', %s)"):format(("<i3"):rep(16), ("i,"):rep(15) .. "i"),
    },
    capacity = { "x = x + b:capacity()" },
    write = { "b:write(i % 64 + 1, 'ab')", "b:write(i % 64 + 1, small)",
        "b:write(i % 64 + 1, i)" },
    copy = { "b:copy(i % 64 + 1, 'abcd', 2, 3)",
        "b:copy(i % 64 + 1, small)" },
    setbyte = { "b:setbyte(i, i)", "b:setbyte(i, i, i)",
        "b:setbyte(i, i, i, i, i)", "b:setbyte(size, i)" },
    fill = { "b:fill(i, i % 64 + 1, i % 64 + 9)" },
    xor = { "b:xor(i % 64 + 1, i % 64 + 9, 'key')",
        "b:xor(1, -1, small, i)" },
    wipe = { "b:wipe()" },
    resize = { "b:resize(i % 100)" },
    put = { "w:put 'abc'", "w:put(i)", "w:put(small)", "w:put('a', i)",
        "w:put('a', i, 'c')", "w:put('a', 'b', i, 'd')",
        "w:put('a', 'b', i, 'd', small)", "w:put(i, i / 8, 'c', i, 'e', 'f')",
        ("w:put(%s'z')"):format(("'a', i, "):rep(15)) },
    put_range = { "w:put_range('abcd', 2, 3)", "w:put_range(small, -i)",
        "w:put_range(b, i % 64 + 1, i % 64 + 9)",
        "w:set 'abcd' w:put_range(w, 2, i % 9)" },
    prepend = { "w:prepend 'abc'", "w:prepend(i)", "w:prepend(small)",
        "b:skip(5):prepend 'four'" },
    take = { "w:put 'abcd' other:take(w, 2)", "w:take(small, i % 2)",
        "w:reset() other:put(i) w:take(other) other:take(w)" },
    putf = { "w:putf('%s', 'abc')", "w:putf('%d', i)",
        "w:putf('%s %d', 'abc', i)", "w:putf('%c%q %5.2f', i % 9, 'a', i)",
        ("w:putf('%s', %s)"):format(("%d"):rep(16), ("i,"):rep(15) .. "i") },
    readfrom = { "w:readfrom(zeros, 3)" },
    readinto = { "b:readinto(1, zeros)", "b:readinto(2, zeros, 9)" },
    putcdata = { "w:putcdata(pointer, 3)" },
    set = { "w:set 'abc'", "w:set(small)", "w:set(pointer, 3)" },
    reserve = { "local p, n = w:reserve(3) p[0] = n w:commit(2)" },
    get = { "w:put 'abcd' x = x + #w:get()", "w:put 'abcd' x = x + #w:get(2)",
        "w:put 'abcd' x = x + #select(2, w:get(1, 2))",
        "w:put 'abcd' x = x + #select(3, w:get(1, 2, 1))" },
    skip = { "w:put 'abcd' w:skip(3)" },
    put_varint = { "w:put_varint(i)", "w:put_varint(i, 5, 2 ^ 40)",
        "w:put_varint(size, 5ULL)", "w:put_varint(i * 1e10)" },
    put_zigzag = { "w:put_zigzag(-i)", "w:put_zigzag(-i, i)" },
    get_varint = { "w:put_varint(i) x = x + w:get_varint()" },
    get_zigzag = { "w:put_zigzag(-i) x = x + w:get_zigzag()" },
    get_varint64 = { "w:put_varint(i) x = x + tonumber(w:get_varint64())" },
    get_zigzag64 = { "w:put_zigzag(i) x = x + tonumber(w:get_zigzag64())" },
    reset = { "w:put 'abcd' w:reset()" },
    free = { "w:put 'abcd' w:free()" },
}
writers.commit = writers.reserve

for _, width in ipairs { 8, 16, 24, 32, 64 } do
    for _, form in ipairs { "u", "i", "f" } do
        for _, order in ipairs(width == 8 and { "" } or { "le", "be" }) do
            local name = form .. width .. order
            readers[name] = { ("x = x + tonumber(b:%s(i))"):format(name) }
            readers.reader[#readers.reader + 1] = (form ~= "f" or width >= 32)
                and ("r = r or b:reader() x = x + tonumber(r:get_%s())"):format(
                    name) or nil
            writers["set_" .. name] = { ("b:set_%s(i, i)"):format(name) }
            writers["put_" .. name] = { ("w:put_%s(i)"):format(name),
                width == 32 and ("w:put_%s(i, i, %s)"):format(name,
                    ("i, "):rep(9) .. "i") or nil }
            writers["get_" .. name] = {
                ("w:put_%s(i) x = x + tonumber(w:get_%s())"):format(name, name),
            }
        end
    end
end

-- What does not compile, why, and what the JIT says. What compiles one day
-- belongs above.
local exceptions = {
    ["a format seen for the first time"] = {
        because = "loops take it apart", said = "%S",
        "x = x + #b:unpack(1, 'c' .. i)", "b:pack(1, 'c' .. i, 1)",
    },
    ["a format of many values"] = {
        because = "no trace is as long", said = "no trace of the loop",
        ("b:pack(1, '%s', %s)"):format(("h"):rep(100), ("i,"):rep(99) .. "i"),
        ("x = x + b:unpack(1, '%s')"):format(("h"):rep(100)),
    },
    ["putf of more than sixteen values"] = {
        because = "they go through a table", said = "%S",
        ("w:putf('%s', %s)"):format(("%d"):rep(17), ("i,"):rep(16) .. "i"),
    },
    ["putf of other than strings to %s"] = {
        because = "string.format is left to C, and ends the trace",
        said = "no trace of the loop",
        "w:putf('%s', i)", "w:putf('%s', small)",
    },
    ["reading from a file"] = {
        because = "io.type is left to C", said = "stitched",
        "w:readfrom(file, 3)", "b:readinto(1, file)",
    },
    ["writing to a file"] = {
        because = "io.type is left to C", said = "stitched",
        "b:writeto(file)",
    },
}

-- Methods that make an object or end one are no accessors.
local others = { release = true, freeze = true, clone = true, slice = true,
    detach = true, share = true, split_to = true }

local function compiles(kind, x, lists)
    for _, list in ipairs(lists) do
        for method, bodies in pairs(list) do
            if x[method] then
                it(method .. " of a " .. kind, function()
                    for _, body in ipairs(bodies) do
                        local said = helper.child_ok(child:format(kind, body))
                        assert.equal("", said, body)
                    end
                end)
            end
        end
    end
end

describe("a loop on trace", function()
    it("is tried over every accessor", function()
        local buf = bufpool.new():checkout(1)
        for _, x in ipairs { buf, bufpool.new():checkout(1):freeze() } do
            for name in pairs(debug.getmetatable(x).__index) do
                assert.is_truthy(readers[name] or writers[name]
                    or others[name], name)
            end
        end
    end)
end)

describe("a loop on trace is aborted or stitched by", function()
    if not jit.status() then
        pending "the JIT is off"
        return
    end
    for what, exception in pairs(exceptions) do
        it(what .. ": " .. exception.because, function()
            for _, body in ipairs(exception) do
                local said = helper.child_ok(child:format("buffer", body))
                assert.matches(exception.said, said, 1, false, body)
            end
        end)
    end
end)

describe("a loop on trace, nothing aborted or stitched:", function()
    if not jit.status() then
        pending "the JIT is off"
        return
    end
    local pool = bufpool.new()
    compiles("buffer", pool:checkout(1), { readers, writers })
    compiles("frozen", pool:checkout(1):freeze(), { readers })
    if can_borrow then
        local handle = pool:borrow(1)
        compiles("handle", handle, { readers, writers })
        handle:release()
    else
        pending "handles: this build has none"
    end
end)

-- A trace takes fifteen tail calls in all, and so none may be on these paths.
describe("twenty calls in one loop on trace, nothing aborted or stitched:",
    function()
        if not jit.status() then
            pending "the JIT is off"
            return
        end
        for _, body in ipairs { "w:put 'a'", "w:put('a', 'b')",
            "b:write(1, 'a')", "x = x + b:byte(i)", "b:setbyte(i, i)",
            "x = x + #b:sub(i, i + 1)",
            "x = x + #small:tostring()", "b:fill(i, 1, 9)",
            "b:copy(1, 'abc', 1, 2)", "x = x + b:find('c', 1, true)",
            "x = x + (b:equals 'abc' and 1 or 0)", "x = x + b:u32le(i)",
            "b:set_u32le(i, i)", "w:put_u32le(i)", "w:put_varint(i)",
            "w:put_zigzag(i) x = x + w:get_zigzag()", "b:pack(1, '<I4', i)",
            "w:putf('%d', i)", "x = x + b:capacity()", "w:skip(0)" } do
            it(body, function()
                assert.equal("", helper.child_ok(child:format("buffer",
                    (body .. " "):rep(20))))
            end)
        end
    end)

-- Each class has code of its own for a method: a trace that begins at the
-- method for one class is of no use to another (see fastest.lua).
describe("a program that is interpreted calls compiled code", function()
    if not jit.status() or not can_borrow then
        pending "the JIT is off, or this build has no handles"
        return
    end
    local classes_child = [[
local bufpool = require "bufpool"
local util = require "jit.util"
local pool = bufpool.new()
local x = {
    buffer = pool:writer():put("abcdefgh"),
    handle = pool:borrow(0):put("abcdefgh"),
    frozen = pool:writer():put("abcdefgh"):freeze(),
}
local source = util.funcinfo(x.buffer.%s).source
local begun, compiled
local function watch(what, trace, func, pc, parent)
    if what == "start" then
        begun = not parent and util.funcinfo(func).source == source
    elseif what == "stop" and begun then
        compiled = compiled + 1
    end
end
jit.off(watch)
local function program(x)
    for i = 1, 500 do
        %s
    end
end
jit.off(program)
jit.attach(watch, "trace")
for class in ("%s"):gmatch "%%a+" do
    compiled = 0
    program(x[class])
    if compiled == 0 then
        print("nothing compiled for a " .. class)
    end
end]]
    for body, classes in pairs {
        ["x:byte(3)"] = "buffer handle frozen",
        ["x:len()"] = "handle frozen buffer",
        ["x:sub(2, 5)"] = "frozen buffer handle",
        ["x:find('cd', 1, true)"] = "buffer frozen handle",
        ["x:u32be(1)"] = "frozen handle buffer",
        ["x:f64le(1)"] = "buffer handle frozen",
        ["x:set_u32be(1, i)"] = "buffer handle",
        ["x:setbyte(1, 7)"] = "handle buffer",
        ["x:put_u8(i):skip(1)"] = "buffer handle",
        ["x:put_f32le(i):skip(4)"] = "handle buffer",
        ["x:put('a'):skip(1)"] = "buffer handle",
        ["x:put('a', 7):skip(2)"] = "handle buffer",
        ["x:get(x:put_u8(1):len() - 8)"] = "buffer handle",
        ["x:fill(1, 2, 9)"] = "handle buffer",
    } do
        it(("of %s, for each class"):format(body), function()
            assert.equal("", helper.child_ok(classes_child:format(
                body:match ":([%w_]+)", body, classes)))
        end)
    end
end)
