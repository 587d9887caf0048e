-- What buffers cost Lua code, next to what people use instead.
--
-- Method. Each row of the table is one job, done by several contenders: those
-- of bufpool, and rivals. A contender is a function that does the job n times
-- in a loop, on an object that it gets as an argument. All contenders of a row
-- have the same loop. What a contender reads is added up and returned.
--
-- A sample is taken in a process of its own, so that neither traces nor the
-- state of an allocator pass from one contender to another. First n is doubled
-- until a run takes a quarter of SAMPLE, which also warms everything up. Then n
-- is scaled to SAMPLE, and there are RUNS runs, each after two full
-- collections. The fastest run counts, because other load of the machine only
-- slows runs down.
--
-- All contenders of a row take turns, REPEATS times, with the JIT on and with
-- the JIT off; PORT_REPEATS times in the rows of ports, because LuaJIT compiles
-- a recursion in other traces from process to process, and some are twice as
-- fast as others. The result is the median of the samples: nanoseconds for one
-- operation, in processor time of the process, which includes garbage
-- collection and system calls but no other program. For the row with a large
-- heap there is also the median of the largest resident memory of the process.
--
-- In the row that reads a file only the reading is timed, neither what the
-- buffer costs when it is given back nor the collection of the string. Both are
-- given up before the next round. The memory is what the largest resident
-- memory exceeds that of the process before the row by.
--
-- The rows of ports are whole programs on generated input, and show two more
-- figures. Garbage is by how much Lua's heap grows in one operation while the
-- collector is stopped. The memory is what the largest resident memory exceeds
-- that before the row by.
--
-- Each target is a ratio of two contenders of one row, in time or memory.
--
--   luajit bench/lua.lua [--quick] [--only TEXT] [--out DIRECTORY]
--
-- --only takes the rows whose name contains the text. --out writes
-- lua-performance.json, a plot, and the tables of lua-performance.md and
-- when-it-pays.md into the directory. With --only ports it writes the last
-- alone.

local ffi = require "ffi"
local bufpool = require "bufpool"
local report = require "report"
local ports = require "ports.all"
local have_sb, string_buffer = pcall(require, "string.buffer")
local have_access, access = pcall(require, "access")

ffi.cdef [[
void *calloc(size_t, size_t);
void free(void *);
]]

local SAMPLE, RUNS, REPEATS, PORT_REPEATS = 0.02, 5, 3, 11
local CLASSES = { 4096, 65536, 262144, 1048576 }
local HEAP_MB, DROPS = 200, 20000
local LEN = 4096
local BODY = 5000000

local options = report.options(arg,
    { quick = false, only = true, out = true, cell = true })
if options.quick then
    SAMPLE, REPEATS, PORT_REPEATS, DROPS = 0.005, 1, 1, 4000
end

local pool = bufpool.new { one_mib_count = 1 }
local can_borrow = pool.borrow ~= nil

-- What contenders may use: their upvalues.
local tools = {
    pool = pool,
    copy = ffi.copy,
    gc = ffi.gc,
    calloc = ffi.C.calloc,
    free = ffi.C.free,
    new = have_sb and string_buffer.new or false,
    byte = string.byte,
    concat = table.concat,
    collect = collectgarbage,
    clock = os.clock,
    clear = require "table.clear",
    box = have_access and access.box or false,
    unbox = have_access and access.unbox or false,
    nothing = have_access and access.finalizer or false,
    text = ("x"):rep(64),
    piece = ("y"):rep(100),
    long_piece = ("y"):rep(1000),
}
-- Strings of several lengths; these, whole numbers and others.
tools.words, tools.mixed = {}, {}
for i = 1, 100 do
    tools.words[i] = ("w"):rep(i % 13 + 1) .. i
    tools.mixed[i] = ({ tools.words[i], i * 7, i / 8 })[i * 5 % 7 % 3 + 1]
end

function tools.fill(out, ...)
    return out:put(...):tostring()
end

for _, size in ipairs(CLASSES) do
    tools["array" .. size] = ffi.typeof(("uint8_t[%d]"):format(size))
end

local function compile(name, body)
    local names, values = {}, {}
    for key, value in pairs(tools) do
        names[#names + 1] = key
        values[#values + 1] = value
    end
    return assert(loadstring(("local %s = ...\nreturn function(n, o)\n"
        .. "local x = 0\n%s\nreturn x\nend"):format(
        table.concat(names, ", "), body), "=" .. name))(unpack(values))
end

-- Rows ----------------------------------------------------------------------

local rows = {}

-- Adds a row. A contender is { name, body, make = what makes its object, per =
-- operations in one round of n, needs = whether it can run here }.
local function row(name, contenders)
    contenders.name = name
    rows[#rows + 1] = contenders
end

local function with(make)
    return function()
        return make(pool:checkout(LEN):fill(7))
    end
end

local buffer = with(function(buf) return buf end)
local frozen = with(function(buf) return buf:freeze() end)
local held = {}

local function handle()
    return pool:borrow(LEN):fill(7)
end

local function pointer(ctype)
    return with(function(buf)
        held[#held + 1] = buf
        return ffi.cast(ctype, (buf:ref()))
    end)
end

local function has(make, method)
    return function()
        return make()[method] ~= nil
    end
end

local function borrows()
    return can_borrow
end

local function loop(step, body)
    return ([[
        for _ = 1, n do
            for i = 0, %d do
                %s
            end
        end]]):format(LEN / step - 1, body)
end

-- Buffers count bytes, and a pointer counts what it points to. So each has the
-- loop that a program would have.
local function positions(step, body)
    return ([[
        for _ = 1, n do
            for i = 1, %d, %d do
                %s
            end
        end]]):format(LEN, step, body)
end

local function access_rows(kind, step, reader, writer)
    local count = LEN / step
    local ctype = ("uint%d_t *"):format(step * 8)
    local read = positions(step, ("x = x + o:%s(i)"):format(reader))
    local write = positions(step, ("o:%s(i, i)"):format(writer))
    if step == 8 then
        read = "x = 0ULL\n" .. read
    end
    local raw = step == 8 and "x = 0ULL\n" or ""
    local reads = {
        { "buffer", read, make = buffer, per = count,
            needs = has(buffer, reader) },
        { "frozen", read, make = frozen, per = count,
            needs = has(frozen, reader) },
        { "handle", read, make = handle, per = count, needs = borrows },
        { "raw pointer", raw .. loop(step, "x = x + o[i]"),
            make = pointer("const " .. ctype), per = count, rival = true },
    }
    local writes = {
        { "buffer", write, make = buffer, per = count,
            needs = has(buffer, writer) },
        { "handle", write, make = handle, per = count, needs = borrows },
        { "raw pointer", loop(step, "o[i] = i"), make = pointer(ctype),
            per = count, rival = true },
    }
    if step == 1 then
        reads[#reads + 1] = { "string.byte", positions(1, "x = x + byte(o, i)"),
            make = function() return ("\7"):rep(LEN) end, per = count,
            rival = true }
        reads[#reads + 1] = { "lua_CFunction",
            positions(1, "x = x + o:byte(i)"),
            make = function() return access.new() end,
            per = count, rival = true, needs = function()
                return have_access
            end }
        writes[#writes + 1] = { "lua_CFunction",
            positions(1, "o:setbyte(i, i)"),
            make = function() return access.new() end,
            per = count, rival = true, needs = function()
                return have_access
            end }
    end
    reads.access, writes.access = true, true
    row(kind .. " read", reads)
    row(kind .. " write", writes)
end

access_rows("byte", 1, "byte", "setbyte")
access_rows("u32", 4, "u32le", "set_u32le")
access_rows("u64", 8, "u64le", "set_u64le")

local function each(body)
    return ("for i = 1, n do\n%s\nend"):format(body)
end

local function string_buffers()
    return have_sb
end

-- Takes n bytes, writes 64 of them, and gives them back.
local function life_row(name, n, class)
    local mine = [[
        local b = pool:%s(%d)
        b:write(1, text)
        b:release()]]
    row(name, {
        { "checkout", each(mine:format("checkout", n)) },
        { "borrow", each(mine:format("borrow", n)), needs = borrows },
        { "string.buffer", each(([[
            local b = new(%d)
            b:put(text)
            b:free()]]):format(class)), rival = true, needs = string_buffers },
        { "ffi.new", each(([[
            local b = array%d()
            copy(b, text, 64)
            x = x + b[63] ]]):format(class)), rival = true },
        { "calloc, free", each(([[
            local b = calloc(1, %d)
            copy(b, text, 64)
            free(b)]]):format(class)), rival = true },
        { "calloc, ffi.gc", each(([[
            local b = gc(calloc(1, %d), free)
            copy(b, text, 64)
            free(gc(b, nil))]]):format(class)), rival = true },
    })
end

life_row("take 64 bytes, write, give back", 64, 4096)
for _, size in ipairs(CLASSES) do
    life_row(("take %d KiB, write 64, give back"):format(size / 1024), size,
        size)
end

row("take 4 KiB and drop it", {
    { "checkout", each [[
        local b = pool:checkout(4096)
        b:setbyte(1, 1)]] },
    { "ffi.new", each [[
        local b = array4096()
        b[0] = 1]], rival = true },
    { "calloc, ffi.gc", each [[
        local b = gc(calloc(1, 4096), free)
        copy(b, text, 1)]], rival = true },
})

local PIECES = 655
local function append(body, finish)
    return ([[
        for _ = 1, n do
            %s
            for i = 1, %d do
                %s
            end
            %s
        end]]):format(finish[1], PIECES, body, finish[2])
end

row("append 100 bytes, to 64 KiB", {
    { "writer", append("o:put(piece)", { "", "x = x + #o o:reset()" }),
        make = function() return pool:writer(65536) end, per = PIECES },
    { "handle", append("o:put(piece)", { "", "x = x + #o o:reset()" }),
        make = function() return pool:borrow(65536):reset() end,
        per = PIECES, needs = borrows },
    { "string.buffer", append("o:put(piece)", { "", "x = x + #o o:reset()" }),
        make = function() return string_buffer.new(65536) end,
        per = PIECES, rival = true, needs = string_buffers },
    { "table.concat", append("o[i] = piece",
        { "clear(o)", "x = x + #concat(o)" }), make = function() return {} end,
        per = PIECES, rival = true },
    { "..", append("s = s .. piece", { "local s = ''", "x = x + #s" }),
        per = PIECES, rival = true },
})

-- A new object grows to n bytes and is given back. With a hint it is told n.
-- "after trim": the pool has given its idle large memory back to the system, so
-- that each round has page faults, as those of a new string.buffer have.
-- "reused": one string.buffer for all rounds.
local function growth_row(name, n)
    local count = math.floor(n / 1000)
    local function contender(who, make, free, extra)
        local c = { who, each(([[
            local b = %s
            for _ = 1, %d do
                b:put(long_piece)
            end
            x = x + #b
            b:%s]]):format(make, count, free)), per = count }
        for key, value in pairs(extra or {}) do
            c[key] = value
        end
        return c
    end
    local rival = { rival = true, needs = string_buffers }
    local contenders = {
        contender("writer", "pool:writer()", "release()"),
        contender("writer, hint", ("pool:writer(%d)"):format(n), "release()"),
        contender("string.buffer", "new()", "free()", rival),
        contender("string.buffer, hint", ("new(%d)"):format(n), "free()",
            rival),
        contender("string.buffer, reused", "o", "reset()", { rival = true,
            needs = string_buffers, make = function()
                return string_buffer.new(n)
            end }),
    }
    if n > CLASSES[#CLASSES] then
        table.insert(contenders, 3, contender("writer, after trim",
            "pool:writer()", "release() pool:trim()"))
    end
    row(("append 1000 bytes, to %s"):format(name), contenders)
end

local GROWTH = { { "64 KiB", 65536 }, { "1 MiB", 1048576 },
    { "4 MiB", 4194304 }, { "16 MiB", 16777216 }, { "64 MiB", 67108864 } }
for _, size in ipairs(GROWTH) do
    growth_row(unpack(size))
end

-- Values that a serializer puts, into an object that is emptied after each
-- PUTS rounds. They come from lists, so that nobody knows a length beforehand.
local PUTS = 64

local function put_row(name, values, setup)
    local body = ([[
        for _ = 1, n do
            for i = 1, %d do
                %s
                o:put(%s)
            end
            x = x + #o
            o:reset()
        end]]):format(PUTS, setup or "", values)
    row(name, {
        { "writer", body, make = function() return pool:writer(65536) end,
            per = PUTS },
        { "handle", body, make = function()
            return pool:borrow(65536):reset()
        end, per = PUTS, needs = borrows },
        { "string.buffer", body, make = function()
            return string_buffer.new(65536)
        end, per = PUTS, rival = true, needs = string_buffers },
    })
end

local function pieces(count)
    local list = {}
    for k = 1, count do
        list[k] = ("words[i + %d]"):format(k)
    end
    return table.concat(list, ", ")
end

put_row("put a string and a number", "words[i], i")
for _, count in ipairs { 5, 9, 16 } do
    put_row(("put %d strings"):format(count), pieces(count))
end
put_row("put a command of Redis of five words", [[
    "*5\r\n$", #v, "\r\n", v, "\r\n$", #w, "\r\n", w, "\r\n$", #a, "\r\n", a,
    "\r\n$", #b, "\r\n", b, "\r\n$", #c, "\r\n", c, "\r\n"]], [[
    local v, w, a, b, c = words[i], words[i + 1], words[i + 2], words[i + 3],
        words[i + 4] ]])
put_row("put three values of changing types",
    "mixed[i], ',', mixed[i * 7 % 64 + 1]")
put_row("put 1000 bytes", "long_piece")

-- For the time of one call: take an empty one, put five pieces, read them as a
-- string, give it back.
local function scratch_row(name)
    local function contender(who, take, give, extra)
        local c = { who, each(([[
            local i = i %% 64 + 1
            local b = %s
            b:put(%s)
            x = x + #b:tostring()
            %s]]):format(take, pieces(5), give)) }
        for key, value in pairs(extra or {}) do
            c[key] = value
        end
        return c
    end
    local call = "x = x + #pool:%sfill, " .. pieces(5) .. ")"
    row(name, {
        { "scratch", each("local i = i % 64 + 1 "
            .. call:format "scratch(") },
        { "with", each("local i = i % 64 + 1 " .. call:format "with(0, ") },
        contender("borrow", "pool:borrow(0)", "b:release()",
            { needs = borrows }),
        contender("writer", "pool:writer()", "b:release()"),
        contender("string.buffer, reused", "o:reset()", "", { rival = true,
            needs = string_buffers, make = function()
                return string_buffer.new(4096)
            end }),
    })
end

scratch_row "take, put 5 pieces, tostring, give back"

-- A file of BODY bytes, read from its beginning by one call or more.
local function body_file()
    local path = os.tmpname()
    local file = assert(io.open(path, "w+"))
    os.remove(path)
    for _ = 1, BODY, 1000 do
        assert(file:write(tools.long_piece))
    end
    assert(file:flush())
    return file
end

local function reading(body, drop)
    return each(([[
        o:seek "set"
        local from = clock()
        %s
        x = x + (clock() - from)
        %s]]):format(body, drop))
end

row("read a file of 5 MB", {
    timed = true,
    { "writer, hint", reading(([[
        local b = pool:writer(%d)
        b:readfrom(o)]]):format(BODY), "b:release()"), make = body_file },
    { "writer", reading([[
        local b = pool:writer()
        while b:readfrom(o) > 0 do end]], "b:release()"), make = body_file },
    { 'io.read "*a"', reading([[local s = o:read "*a"]],
        "s = nil collect() collect()"), make = body_file, rival = true },
})

-- What any userdata costs. A checkout makes one, so it cannot be cheaper.
row("floor: a userdata", {
    { "with __gc, released", each "unbox(box(o[1]), o[2])",
        make = function()
            return { { __gc = access.finalizer }, {} }
        end, rival = true, needs = function() return have_access end },
    { "with __gc, dropped", each "box(o[1])",
        make = function()
            return { { __gc = access.finalizer }, {} }
        end, rival = true, needs = function() return have_access end },
    { "without __gc", each "box(o[2])",
        make = function() return { {}, {} } end, rival = true,
        needs = function() return have_access end },
    { "a C function that does nothing", each "nothing(o)",
        make = function() return {} end, rival = true,
        needs = function() return have_access end },
})

-- One run of DROPS operations: what matters is how much garbage piles up.
local heap_row = ("take 64 KiB and drop it, %d MB live heap"):format(HEAP_MB)
row(heap_row, {
    heap = true,
    { "checkout", each [[
        local b = pool:checkout(65536)
        b:setbyte(1, 1)]] },
    { "ffi.new", each [[
        local b = array65536()
        b[0] = 1]], rival = true },
    { "calloc, ffi.gc", each [[
        local b = gc(calloc(1, 65536), free)
        copy(b, text, 1)]], rival = true },
})

-- A program has three ways: see bench/ports/all.lua.
for _, port in ipairs(ports) do
    math.randomseed(7)
    local input = port.input(math.random)
    local function contender(name, way)
        return { name, each "o.run(o.input)", rival = way ~= "bufpool",
            make = function() return { run = port[way], input = input } end,
            needs = function() return port[way] end }
    end
    row("ports: " .. port.name, { port = true, contender("bufpool", "bufpool"),
        contender("plain Lua", "plain"), contender("string.buffer", "buffer") })
end

-- The targets: at most `ratio` times the time or memory of the rival, and `off`
-- times its time with the JIT off; 1 unless given.
local targets = {}
local function target(what, ours, against, ratio, memory, off)
    targets[#targets + 1] = { row = what, ours = ours, rival = against,
        ratio = ratio, memory = memory, off = off }
end
for _, ours in ipairs { "buffer", "frozen", "handle" } do
    target("byte read", ours, "raw pointer", 1.05)
    target("u32 read", ours, "raw pointer", 2)
    target("u64 read", ours, "raw pointer", 2)
end
for _, ours in ipairs { "buffer", "handle" } do
    target("byte write", ours, "raw pointer", 3)
    target("u32 write", ours, "raw pointer", 5)
    target("u64 write", ours, "raw pointer", 5)
end
local small, large = "take 64 bytes, write, give back",
    "take 1024 KiB, write 64, give back"
target(small, "checkout", "string.buffer", 1 / 1.6)
target(small, "checkout", "ffi.new", 1 / 4)
target(large, "checkout", "string.buffer", 1 / 60)
target(small, "borrow", "string.buffer", 1 / 10)
target("take 4 KiB and drop it", "checkout", "ffi.new", 1 / 2)
target(heap_row, "checkout", "ffi.new", 1 / 5)
target(heap_row, "checkout", "ffi.new", 1 / 3, true)
target("append 100 bytes, to 64 KiB", "writer", "string.buffer", 1)
target("append 1000 bytes, to 1 MiB", "writer", "string.buffer", 1 / 1.2)
for k = 3, #GROWTH do
    local name = ("append 1000 bytes, to %s"):format(GROWTH[k][1])
    target(name, "writer", "string.buffer", 1 / 1.5)
    target(name, "writer, hint", "string.buffer, hint", 1 / 2)
end
for _, ours in ipairs { "writer", "handle" } do
    target("put a string and a number", ours, "string.buffer", 1 / 0.5, nil, 2)
    for _, name in ipairs { "put 5 strings", "put 9 strings", "put 16 strings",
        "put three values of changing types" } do
        target(name, ours, "string.buffer", 1 / 0.7, nil, 1 / 0.5)
    end
    target("put 1000 bytes", ours, "string.buffer", 1 / 0.95, nil, 1 / 0.5)
end
target("take, put 5 pieces, tostring, give back", "scratch",
    "string.buffer, reused", 1 / 0.5, nil, 1 / 0.3)
target("read a file of 5 MB", "writer, hint", 'io.read "*a"', 1 / 1.5)
target("read a file of 5 MB", "writer, hint", 'io.read "*a"', 1 / 2, true)

-- A cell, in the child ------------------------------------------------------

local clock = os.clock

-- The seconds that run takes, or those that it says it has timed.
local function time(run, n, object, timed)
    collectgarbage()
    collectgarbage()
    local start = clock()
    local result = run(n, object)
    assert(result ~= nil)
    return timed and result or clock() - start
end

local function calibrated(run, object, timed)
    local n = 1
    local took = time(run, n, object, timed)
    while took < SAMPLE / 4 do
        n = n * 2
        took = time(run, n, object, timed)
    end
    return math.ceil(n * SAMPLE / took)
end

local function live_heap()
    local heap = {}
    repeat
        for _ = 1, 1000 do
            heap[#heap + 1] = { #heap, heap[#heap] }
        end
    until collectgarbage "count" > HEAP_MB * 1024
    return heap
end

-- VmRSS is what is resident now, VmHWM the most that has been.
local function resident_mb(field)
    for line in io.lines "/proc/self/status" do
        local kb = line:match("^" .. field .. ":%s*(%d+) kB")
        if kb then
            return kb / 1024
        end
    end
end

-- KiB that Lua's heap grows by in one operation.
local function garbage(run, object)
    local n = 20
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    run(n, object)
    local grown = collectgarbage "count" - before
    collectgarbage "restart"
    return grown / n
end

local function run_cell(r, c)
    if c.needs and not c.needs() then
        return { missing = true }
    end
    local heap = r.heap and live_heap()
    local run, object = compile(c[1], c[2]), c.make and c.make()
    local before = 0
    if r.timed or r.port then
        collectgarbage()
        collectgarbage()
        local file = assert(io.open("/proc/self/clear_refs", "w"))
        file:write "5"
        file:close()
        before = resident_mb "VmRSS"
    end
    local n = r.heap and DROPS or calibrated(run, object, r.timed)
    local took = time(run, n, object, r.timed)
    for _ = 2, r.heap and 1 or RUNS do
        took = math.min(took, time(run, n, object, r.timed))
    end
    return { ns = took * 1e9 / n / (c.per or 1),
        mb = resident_mb "VmHWM" - before, live = heap and #heap,
        garbage = r.port and garbage(run, object) }
end

if options.cell then
    local r, c = options.cell:match "(%d+),(%d+)"
    r = rows[tonumber(r)]
    print(report.literal(run_cell(r, r[tonumber(c)])))
    return
end

-- All of them -----------------------------------------------------------------

local interpreter = -1
while arg[interpreter - 1] do
    interpreter = interpreter - 1
end

local function child(jit_on, r, c)
    local pipe = assert(io.popen(("%s %s %s %s --cell %d,%d"):format(
        report.quote(arg[interpreter]), jit_on and "" or "-joff",
        report.quote(arg[0]), options.quick and "--quick" or "", r, c)))
    local text = pipe:read "*a"
    pipe:close()
    return assert(loadstring("return " .. text))()
        or error(("row %d, contender %d: no result"):format(r, c))
end

local function measure(k, jit_on)
    local r = rows[k]
    local result = { name = r.name, access = r.access,
        memory = r.heap or r.timed or r.port or false,
        port = r.port or false }
    local times, peaks, grown = {}, {}, {}
    for _ = 1, r.port and PORT_REPEATS or REPEATS do
        for c in ipairs(r) do
            local got = child(jit_on, k, c)
            times[c], peaks[c] = times[c] or {}, peaks[c] or {}
            grown[c] = got.garbage or 0
            table.insert(times[c], got.ns)
            table.insert(peaks[c], got.mb)
        end
    end
    result.cells = {}
    for c, contender in ipairs(r) do
        result.cells[c] = { name = contender[1],
            rival = contender.rival or false, ns = report.median(times[c]),
            mb = report.median(peaks[c]), garbage = grown[c],
            missing = #times[c] == 0 }
    end
    return result
end

local results = { on = {}, off = {}, targets = targets, repeats = REPEATS,
    version = jit.version, arch = jit.arch }
for k, r in ipairs(rows) do
    if not options.only or r.name:find(options.only, 1, true) then
        for mode, list in pairs { on = results.on, off = results.off } do
            report.progress(("%d of %d: %s, JIT %s"):format(k, #rows, r.name,
                mode))
            list[#list + 1] = measure(k, mode == "on")
        end
    end
end
report.progress()

-- The report ------------------------------------------------------------------

local number = report.number

local function find(list, of, name)
    for _, r in ipairs(list) do
        for _, cell in ipairs(r.name == of and r.cells or {}) do
            if cell.name == name and not cell.missing then
                return cell
            end
        end
    end
end

-- A cell's time divided by that of each rival, in the order of the row.
local function ratios(r, cell)
    local parts = {}
    for _, other in ipairs(r.cells) do
        if other.rival and not other.missing and not cell.rival then
            parts[#parts + 1] = number(cell.ns / other.ns)
        end
    end
    return table.concat(parts, " / ")
end

local function text(data)
    for _, mode in ipairs { "on", "off" } do
        print(("JIT %s: ns per operation, and ratio to each rival"):format(
            mode))
        for _, r in ipairs(data[mode]) do
            print("  " .. r.name)
            for _, cell in ipairs(r.cells) do
                if cell.missing then
                    print(("    %-22s not there, skipped"):format(cell.name))
                else
                    print(("    %-22s %10s %12s  %s"):format(cell.name,
                        number(cell.ns), r.memory
                        and ("%.4g MB peak"):format(cell.mb) or "",
                        ratios(r, cell)))
                end
            end
        end
    end
end

-- Judges each target. With the JIT off, the target is not to be slower than the
-- rival; rows that read or write single values have no target there.
local function verdicts(data)
    local list = {}
    local function judge(mode, t, ratio)
        local ours = find(data[mode], t.row, t.ours)
        local rival = find(data[mode], t.row, t.rival)
        if ours and rival then
            local field = t.memory and "mb" or "ns"
            local got = ours[field] / rival[field]
            list[#list + 1] = { what = ("%s: %s%s%s"):format(t.row, t.ours,
                t.memory and ", peak memory" or "",
                mode == "off" and ", JIT off" or ""), against = t.rival,
                got = got, want = ratio, met = got <= ratio }
        end
    end
    for _, t in ipairs(data.targets) do
        judge("on", t, t.ratio)
    end
    local seen = {}
    for _, t in ipairs(data.targets) do
        local key = t.row .. t.ours .. t.rival
        local r = t.row
        if not (seen[key] or t.memory or r:find "^%w+ read$"
            or r:find "^%w+ write$") then
            seen[key] = true
            judge("off", t, t.off or 1)
        end
    end
    return list
end

local function markdown(data)
    local list = verdicts(data)
    for _, v in ipairs(list) do
        v.want, v.got = ("%.3g"):format(v.want), ("%.3g"):format(v.got)
    end
    return ("Machine: %s. %s, %s. Each figure is the median of %d. The targets "
        .. "are the time, or the memory, of bufpool divided by that of the "
        .. "rival. %s"):format(report.machine(), data.version, data.arch,
        data.repeats, report.targets(list))
end

-- A line for each program: time, garbage and peak of bufpool, each beside plain
-- Lua and string.buffer, and times without the JIT.
local function ports_table(data)
    local lines = {}
    local function three(list, name, field)
        local parts = {}
        for k, who in ipairs { "bufpool", "plain Lua", "string.buffer" } do
            local cell = find(list, name, who)
            parts[k] = cell and number(cell[field]
                / (field == "ns" and 1000 or 1)) or "-"
        end
        return table.concat(parts, " / ")
    end
    for _, r in ipairs(data.on) do
        if r.port then
            lines[#lines + 1] = report.line({ r.name:match ": (.*)",
                three(data.on, r.name, "ns"), three(data.off, r.name, "ns"),
                three(data.on, r.name, "garbage"),
                three(data.on, r.name, "mb") }, 5)
        end
    end
    return #lines > 0 and ("Machine: %s. %s, %s. Times are medians of %d.\n\n"
        .. "| program | time, us | JIT off, us | garbage, KiB | peak, MB |\n"
        .. "|---|---|---|---|---|\n%s"):format(report.machine(), data.version,
        data.arch, PORT_REPEATS, table.concat(lines, "\n"))
end

-- A bar for each cell, with the figure for the JIT off as a red frame.
local function svg(data)
    local groups = {}
    for _, r in ipairs(data.on) do
        local group = not r.port and { name = r.name } or {}
        for _, cell in ipairs(r.cells) do
            if not cell.missing and not r.port then
                local off = find(data.off, r.name, cell.name)
                group[#group + 1] = { cell.name, cell.ns, rival = cell.rival,
                    outline = off and off.ns }
            end
        end
        groups[#groups + 1] = not r.port and group or nil
    end
    return report.bars("ns per operation, logarithmic. Green: bufpool. Grey: "
        .. "rivals. Bars and figures: with the JIT on. Red frames: with the "
        .. "JIT off.", { from = 0.1, decades = 8, value = number,
            label = report.time_label }, groups)
end

text(results)
for _, v in ipairs(verdicts(results)) do
    print(("%-8s %s, against %s: %.3g, at most %.3g"):format(
        v.met and "met" or "MISSED", v.what, v.against, v.got, v.want))
end
local programs = ports_table(results)
if programs then
    print(programs)
end
if options.out and programs then
    report.insert(options.out .. "/when-it-pays.md", programs)
end
if options.out and options.only ~= "ports" then
    local path = options.out .. "/lua-performance"
    report.save_json(path .. ".json", { machine = report.machine(),
        luajit = results.version, repeats = results.repeats,
        jit_on = results.on, jit_off = results.off,
        targets = verdicts(results) })
    report.save(path .. ".svg", svg(results))
    report.insert(path .. ".md", markdown(results))
end
