-- Random Lua programs over all of bufpool's methods, against plain Lua strings.
--
--     make fuzz TIME=600 SPEC=spec/fuzz/program.lua
--
-- Each program runs in a process of its own. It applies operations
-- (spec/support/fuzz_operations.lua) in loops that get compiled, with trace
-- parameters that are drawn at random, while finalizers move the memory of the
-- buffers that are in use. What a program does depends on the seed and its
-- number only; when the collector runs may depend on more.
--
-- The first program that fails is made smaller, by leaving out whatever it
-- fails without, and printed. It needs nothing but bufpool.
--
-- From the environment: SEED. TIME, in seconds; without it there are 300
-- programs, or COUNT, from number FIRST on. LUAJITS: what runs the programs,
-- one LuaJIT for each, separated by commas. SKIP: operations and finalizers to
-- leave out, such as "b.put,move", and "sandbox" for the removal of globals,
-- "wide" for numbers past their range. SHOW=1 prints each program and runs
-- none.
local folder = arg[0]:match "^(.*)/fuzz/[^/]*$" or ".."
local drawn = dofile(folder .. "/support/fuzz_operations.lua")
local pick = drawn.pick

local random = math.random
local concat = table.concat

local seed = tonumber(os.getenv "SEED") or os.time() % 1000000
local seconds = tonumber(os.getenv "TIME")
local count = tonumber(os.getenv "COUNT") or seconds and math.huge or 300
local first = tonumber(os.getenv "FIRST") or 1
local skip = {}
for name in (os.getenv "SKIP" or ""):gmatch "[^,%s]+" do
    skip[name] = true
end
if skip.wide then
    drawn.only_small_numbers()
end
local luajits = {}
for name in (os.getenv "LUAJITS" or os.getenv "LUAJIT" or "luajit")
    :gmatch "[^,]+" do
    luajits[#luajits + 1] = name
end

-- Every method must be known -------------------------------------------------

local function unknown()
    local bufpool = require "bufpool"
    local pool = bufpool.new()
    local known, missing = { b = {}, f = {}, pool = {}, module = {} }, {}
    for _, operation in ipairs(drawn.operations) do
        for name in operation.methods:gmatch "%S+" do
            local kind = operation.kind
            for _, k in ipairs(kind == "x" and { "b", "f" } or { kind }) do
                known[k][name] = true
            end
        end
    end
    local function look(kind, methods)
        for name in pairs(methods) do
            if not known[kind][name] then
                missing[#missing + 1] = kind .. "." .. name
            end
        end
    end
    local buf = pool:checkout(1)
    look("b", debug.getmetatable(buf).__index)
    look("f", debug.getmetatable(buf:freeze()).__index)
    look("pool", debug.getmetatable(pool).__index)
    look("module", bufpool)
    return concat(missing, " ")
end

-- Drawing a program ----------------------------------------------------------

local BUFFERS, FROZEN = { "b1", "b2", "b3" }, { "f1", "f2" }
local model_of = { b1 = "m1", b2 = "m2", b3 = "m3", f1 = "g1", f2 = "g2" }
local OPTIMIZATIONS = { "fold", "cse", "dce", "fwd", "dse", "narrow", "loop",
    "abc", "sink", "fuse" }
local by_weight = {}
for _, operation in ipairs(drawn.operations) do
    if not skip[operation.name] then
        by_weight[#by_weight + 1] = operation
    end
end

-- Puts the names of objects into an operation's text.
local function named(text)
    local b, f = BUFFERS[random(#BUFFERS)], FROZEN[random(#FROZEN)]
    local all = { "b1", "b2", "b3", "f1", "f2" }
    local x = random(2) == 1 and b or all[random(#all)]
    local o
    repeat
        o = all[random(#all)]
    until o ~= b and o ~= x
    local names = { b = b, m = model_of[b], f = f, g = model_of[f],
        x = x, y = model_of[x], o = o, n = model_of[o] }
    return (text:gsub("%$(%l)", names))
end

local function draw_operation()
    local operation = by_weight[random(#by_weight)]
    local text, before = operation.make()
    return { name = operation.name, text = named(text), before = before }
end

local function draw_loop(most)
    local loop = { rounds = pick(100, 300, 1000), bombs = pick(1, 3, 7, 50),
        limit = pick(300, 300, 5000, 20000), operations = {} }
    if random(25) == 1 then
        loop.rounds, loop.limit = 60, 100000
    end
    for i = 1, random(most) do
        loop.operations[i] = draw_operation()
    end
    return loop
end

local function draw_options()
    local t = {}
    local function maybe(chance, text)
        if random(chance) == 1 then
            t[#t + 1] = text
        end
    end
    maybe(2, "hotloop=" .. pick(1, 2, 3, 10, 30))
    maybe(2, "hotexit=" .. pick(1, 2, 3, 5, 20, 200))
    maybe(10, "maxtrace=" .. pick(5, 50))
    maybe(10, "maxside=" .. pick(1, 5))
    maybe(10, "tryside=" .. pick(1, 2))
    maybe(10, "maxsnap=" .. pick(20, 60))
    maybe(10, "maxrecord=" .. pick(200, 1000, 8000))
    maybe(10, "loopunroll=" .. pick(2, 40))
    maybe(10, "callunroll=" .. pick(1, 10))
    maybe(10, "instunroll=" .. pick(0, 20))
    maybe(2, "-" .. pick(unpack(OPTIMIZATIONS)))
    maybe(6, "-" .. pick(unpack(OPTIMIZATIONS)))
    return t
end

local POOLS = { "", "four_kib_count = 1", "four_kib_count = 0",
    "large_bytes = 0", "prefault = true", "huge_pages = true",
    "dump = false",
    'numa_node = "local"', "classes = { { size = 4096, count = 2 } }",
    "classes = { { size = 8192 }, { size = 12288 }, { size = 1048576 } }" }
local MAKERS = { "writer()", "checkout(100)", "borrow(64)", "checkout(0)",
    "writer(70000)", "checkout_aligned(64, 4096)" }

local function draw(number)
    math.randomseed(seed * 65536 + number)
    random() random() random()
    local program = { number = number, luajit = pick(unpack(luajits)),
        options = draw_options(), off = random(16) == 1,
        sandbox = random(6) == 1 and not skip.sandbox,
        pool = pick(unpack(POOLS)),
        collector = random(3) == 1
            and pick('"setpause", 100', '"setstepmul", 1000') or nil,
        bomb = pick("proxy", "cdata"), objects = {}, finalizers = {},
        loops = {} }
    for i = 1, #BUFFERS do
        program.objects[i] = pick(unpack(MAKERS))
    end
    local all = {}
    for name in pairs(drawn.finalizers) do
        all[#all + 1] = not skip[name] and name or nil
    end
    table.sort(all)
    for _, name in ipairs(all) do
        if random(3) == 1 then
            program.finalizers[#program.finalizers + 1] = name
        end
    end
    for i = 1, random(3) do
        program.loops[i] = draw_loop(pick(2, 4, 12))
    end
    return program
end

-- The text of a program ------------------------------------------------------

local BOMBS = { proxy = "getmetatable(newproxy(true)).__gc = finalize",
    cdata = 'ffi.gc(ffi.new "char[1]", finalize)' }

-- What programs use is local, for some remove all globals.
local LOCALS = [[
local bufpool, ffi, bit = require "bufpool", require "ffi", require "bit"
local assert, error, pcall, tostring, tonumber, type, unpack, setmetatable,
    getmetatable, newproxy, collectgarbage, pairs, io = assert, error, pcall,
    tostring, tonumber, type, unpack, setmetatable, getmetatable, newproxy,
    collectgarbage, pairs, io
local string_sub, string_byte, string_find = string.sub, string.byte,
    string.find
local rep, char, format, reverse = string.rep, string.char, string.format,
    string.reverse
local floor, ceil, concat = math.floor, math.ceil, table.concat]]
local SANDBOX = [[
local globals = _G
for name in pairs(globals) do
    globals[name] = nil
end
getmetatable("").__index = nil]]

local function mentions(text, name)
    return text:find("%f[%w_]" .. name .. "%f[^%w_]") ~= nil
end

local function loop_text(loop, has_bombs)
    local head, body = {}, {}
    for _, operation in ipairs(loop.operations) do
        head[#head + 1] = operation.before
        body[#body + 1] = "do -- " .. operation.name .. "\n"
            .. operation.text .. "\nend"
    end
    local all = concat(body, "\n")
    local start, stop = {}, {}
    if has_bombs then
        start[1] = loop.bombs == 1 and "bomb()"
            or ("if k %% %d == 0 then bomb() end"):format(loop.bombs)
    end
    for _, b in ipairs(BUFFERS) do
        local m = model_of[b]
        if mentions(all, b) then
            start[#start + 1] = ("if #%s > %d then %s:reset() %s = '' end")
                :format(m, loop.limit, b, m)
            stop[#stop + 1] = ('eq(#%s, #%s, "length")'):format(b, m)
            stop[#stop + 1] = ('if k %% 8 == 0 then same(tostring(%s), %s,'
                .. ' "contents") end'):format(b, m)
        end
    end
    return ("%s\nfor k = 1, %d do\n%s\n%s\n%s\nend"):format(
        concat(head, "\n"), loop.rounds, concat(start, "\n"), all,
        concat(stop, "\n"))
end

local function finalizer_text(program, used)
    local t = { "local S, turn = { pinned = false }, 0" }
    if #program.finalizers == 0 then
        return t[1]
    end
    t[2] = "local function finalize()\nif S.pinned then return end"
    t[3] = "turn = turn + 1"
    local choices = {}
    for i = 1, #used - 1 do
        choices[i] = ("turn %% %d == %d and %s or"):format(#used, i, used[i])
    end
    t[4] = "local x = " .. concat(choices, " ") .. " " .. used[#used]
    t[5] = 'if bufpool.type(x) == "dead" then return end'
    for i, name in ipairs(program.finalizers) do
        t[#t + 1] = ("if turn %% %d == %d then\n%s\nend"):format(
            #program.finalizers, i - 1, drawn.finalizers[name])
    end
    t[#t + 1] = "end\nlocal function bomb()\n" .. BOMBS[program.bomb]
        .. "\nend"
    return concat(t, "\n")
end

-- The helpers that the text names, and those that they name.
local function helper_text(text)
    local t = {}
    for i = #drawn.helpers, 1, -1 do
        local name, body = unpack(drawn.helpers[i])
        if mentions(text, name) then
            table.insert(t, 1, body)
            text = text .. body
        end
    end
    return concat(t, "\n")
end

local function indent(text)
    local depth, t = 0, {}
    for line in text:gmatch "[^\n]+" do
        line = line:match "^%s*(.-)$"
        local opens = 0
        local words = line:gsub('"[^"]*"', ""):gsub("%-%-.*", "")
        for word in words:gmatch "%a+" do
            if word == "do" or word == "then" or word == "function" then
                opens = opens + 1
            elseif word == "end" or word == "elseif" then
                opens = opens - 1
            end
        end
        local back = line:find "^end" or line:find "^else"
        t[#t + 1] = ("    "):rep(math.max(0, depth + (back and -1 or 0)))
            .. line
        depth = math.max(0, depth + opens)
    end
    return concat(t, "\n") .. "\n"
end

local function text_of(program)
    local loops, used, makers = {}, {}, {}
    for i, loop in ipairs(program.loops) do
        loops[i] = loop_text(loop, #program.finalizers > 0)
    end
    local body = concat(loops, "\n")
    for i, b in ipairs(BUFFERS) do
        if mentions(body, b) or mentions(body, model_of[b]) then
            used[#used + 1] = b
            makers[#makers + 1] = ("local %s = pool:%s\nlocal %s = rep('\\0',"
                .. " #%s)"):format(b, program.objects[i], model_of[b], b)
        end
    end
    for _, f in ipairs(FROZEN) do
        if mentions(body, f) or mentions(body, model_of[f]) then
            makers[#makers + 1] = ('local %s, %s = pool:writer():put "%s"'
                .. ':freeze(), "%s"'):format(f, model_of[f], f, f)
        end
    end
    if #used == 0 then
        used[1], makers[#makers + 1] = "b1", "local b1 = pool:writer()"
    end
    local ends = {}
    for i, b in ipairs(used) do
        ends[i] = b .. ":release()"
    end
    local options = program.off and "jit.off()" or #program.options > 0
        and ('jit.opt.start("%s")'):format(concat(program.options, '", "'))
    local rest = concat({
        program.sandbox and SANDBOX or "",
        program.collector and ("collectgarbage(%s)"):format(program.collector)
            or "",
        ("local pool = bufpool.new { %s }"):format(program.pool),
        concat(makers, "\n"), finalizer_text(program, used), body,
        concat(ends, "\n") }, "\n")
    return indent(concat({ options or "", LOCALS, helper_text(rest), rest },
        "\n"))
end

-- Running one ----------------------------------------------------------------

local file_name, log_name = os.tmpname(), os.tmpname()
local LIMIT = 60        -- seconds, after which a program counts as hung
local runs = 0

-- How the program fails, or nil.
local function failure_of(program)
    local file = assert(io.open(file_name, "w"))
    file:write(text_of(program))
    file:close()
    runs = runs + 1
    local status = os.execute(("timeout -k 1 %d %s %s </dev/null >%s 2>&1")
        :format(LIMIT, program.luajit, file_name, log_name))
    if status == 0 or status == true then
        return
    end
    local log = assert(io.open(log_name))
    local said = log:read "*a"
    log:close()
    if type(status) == "number" and status >= 256 then
        status = status / 256
    end
    return ("status %s: %s"):format(status, (said:sub(1, 600)
        :gsub("[^\n -~]", "?")))
end

-- Making it smaller ----------------------------------------------------------

local SHRINK_SECONDS = 90
local TRIES = 3         -- for failures that do not come each time

-- Takes entries out of a list, ever fewer at a time, while `fails` holds.
local function shrink_list(list, fails)
    local size = math.max(1, math.floor(#list / 2))
    while #list > 0 do
        local at = 1
        while at <= #list do
            local taken = {}
            for _ = 1, math.min(size, #list - at + 1) do
                taken[#taken + 1] = table.remove(list, at)
            end
            if not fails() then
                for i, entry in ipairs(taken) do
                    table.insert(list, at + i - 1, entry)
                end
                at = at + size
            end
        end
        if size == 1 then
            return
        end
        size = math.floor(size / 2)
    end
end

local function shrink_field(object, name, value, fails)
    local was = object[name]
    if was ~= value then
        object[name] = value
        if not fails() then
            object[name] = was
        end
    end
end

-- What is alike in failures of one kind: neither places nor contents.
local function kind_of(how)
    return (how:match "^[^\n]*":gsub("/%S*:%d+:", ""):gsub(": length .*", "")
        :gsub(": got .*", ""):gsub("%d+", ""):gsub("^status : %S+", "status"))
end

local function shrink(program, how)
    local kind = kind_of(how)
    local stop = os.time() + SHRINK_SECONDS
    local function fails()
        for _ = 1, TRIES do
            local now = os.time() < stop and failure_of(program)
            if now and kind_of(now) == kind then
                how = now
                return true
            end
        end
    end
    shrink_list(program.loops, fails)
    for _ = 1, 2 do
        for _, loop in ipairs(program.loops) do
            shrink_list(loop.operations, fails)
        end
        shrink_field(program, "sandbox", false, fails)
        shrink_field(program, "collector", nil, fails)
        shrink_field(program, "pool", "", fails)
        shrink_field(program, "off", false, fails)
        shrink_list(program.options, fails)
        shrink_list(program.finalizers, fails)
        for i = 1, #program.objects do
            shrink_field(program.objects, i, "writer()", fails)
        end
        for _, loop in ipairs(program.loops) do
            shrink_field(loop, "limit", 300, fails)
            shrink_field(loop, "rounds", 100, fails)
        end
    end
    return how
end

-- All together ---------------------------------------------------------------

local SAYS = 60         -- seconds, for who is silent counts as hung

local function run_all()
    local start = os.time()
    local said = start
    local number, done = first, 0
    while done < count and os.time() - start < (seconds or math.huge) do
        local program = draw(number)
        if os.getenv "SHOW" then
            io.write("-- program ", number, "\n", text_of(program))
        end
        local how = not os.getenv "SHOW" and failure_of(program)
        if how then
            io.write(("program: SEED=%d FIRST=%d COUNT=1 fails after %d s: "
                .. "%s\n"):format(seed, number, os.time() - start, how))
            io.flush()
            how = shrink(program, how)
            io.write("-- ", program.luajit, ": ", how:gsub("\n", "\n-- "),
                "\n", text_of(program), "\n")
            return false, done
        end
        number, done = number + 1, done + 1
        if os.time() - said >= SAYS then
            said = os.time()
            io.write("program: ", done, " programs so far\n")
            io.flush()
        end
    end
    return true, done
end

io.write("program: SEED=", seed, "\n")
io.flush()
local missing = unknown()
if missing ~= "" then
    io.write("program: no operation tries ", missing, "\n",
        "0 passed, 1 failed, 0 skipped\n")
    os.exit(1)
end
local passed, done = run_all()
os.remove(file_name)
os.remove(log_name)
io.write(("program: %d programs\n%d passed, %d failed, 0 skipped\n")
    :format(done, passed and 1 or 0, passed and 0 or 1))
os.exit(passed and 0 or 1)
