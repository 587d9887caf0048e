-- A program of its own, for spec/28: every method in loops that get compiled,
-- with thresholds of the JIT drawn at random.
--
--   luajit exits.lua KIND SEED ROUNDS finalizers|guards|sandbox [METHOD]
--
-- finalizers: meanwhile finalizers move memory, give it to other owners, and
-- end the object at hand. Each owner has a stamp: the object at hand holds
-- nothing but A, and every method writes nothing but A; all other buffers hold
-- OTHER; and what is checked out is zero. So whoever reads another owner's
-- memory, or writes to it, is found out.
-- guards: support/guards.lua looks at the traces.
-- sandbox: all globals are removed before, also what libraries hold, and the
-- methods of strings. Methods are called in the wrong way, too.
--
-- Prints one line for each method with which something is wrong.

local sandbox = arg[4] == "sandbox" and require "support.sandbox"
if sandbox then
    setfenv(1, sandbox.copy())
end

local ffi = require "ffi"
local bufpool = require "bufpool"

ffi.cdef [[
int open(const char *, int, ...);
long lseek(int, long, int);
]]

local kind, seed, rounds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local guards = arg[4] == "guards" and require "support.guards"
local only = arg[5]
local random = math.random
local function say(text) -- print calls the global tostring
    io.stdout:write(text, "\n")
end
math.randomseed(seed)
-- Memory above 4 KiB is a mapping of its own, and goes as it is released.
local pool = bufpool.new { classes = { { size = 4096 } }, large_bytes = 0 }

local A, OTHER, LEN = 65, 0xdd, 100
local text, other_text = ("A"):rep(LEN), ("\221"):rep(4096)
local other_a = ("A"):rep(A)
local zeros, long_text = ("\0"):rep(4096), ("A"):rep(9000)
local pointer = ffi.cast("const char *", long_text)
local name = os.tmpname()
local file = assert(io.open(name, "w+"))
file:write(long_text)
file:flush()
local fd = ffi.C.open(name, 0)
local null, null_file = ffi.C.open("/dev/null", 1), io.open("/dev/null", "w")
os.remove(name)

-- What is told about the object at hand: x. bad counts what was seen that must
-- not be.
local s = { bad = 0 }

local makes = {
    buffer = function() return pool:checkout(LEN):write(1, text) end,
    handle = function() return pool:borrow(LEN):write(1, text) end,
    frozen = function() return pool:checkout(LEN):write(1, text):freeze() end,
}
local make = makes[kind]
local source, frozen_source = makes.buffer(), makes.frozen()
local target, donor = makes.buffer(), makes.buffer()
local crc_of_8, adler_of_8 = source:crc32(1, 8), source:adler32(1, 8)

-- Other owners ----------------------------------------------------------------

local others, newest = {}, 0

local function check_other(b)
    if b and b:tostring() ~= other_text then
        s.bad = s.bad + 1
        s.what = "wrote to another owner's memory"
    end
end

-- Takes what memory has just become free.
local function another_owner()
    local b = pool:checkout(4096)
    if b:tostring() ~= zeros then
        s.bad = s.bad + 1
        s.what = "left bytes behind, or wrote to free memory"
    end
    newest = newest % 4 + 1
    check_other(others[newest])
    if others[newest] then
        others[newest]:release()
    end
    others[newest] = b:fill(OTHER)
end

local acts = {
    function(x) -- other memory, same contents
        local t = x:tostring()
        x:free()
        another_owner()
        x:put(t)
        return x
    end,
    function(x) -- large memory
        x:reserve(4096 + random(8000))
        another_owner()
        return x
    end,
    function(x) -- dies
        s.died = s.k
        x:release()
        another_owner()
        return make()
    end,
}

local function finalizer()
    local n = kind == "frozen" and 3 or random(s.deadly and 3 or 2)
    local x = s.x
    -- A checkout may step the collector, also in here.
    s.x = nil
    s.x = x and acts[n](x)
end

local function bomb()
    getmetatable(newproxy(true)).__gc = finalizer
end

for _, fn in ipairs { finalizer, bomb, another_owner, check_other } do
    jit.off(fn, true)
end
for _, fn in ipairs(acts) do
    jit.off(fn, true)
end

-- The methods -----------------------------------------------------------------

local function all(a, b, c, d, e, f, g)
    return a == A and (not b or b == A) and (not c or c == A)
        and (not d or d == A) and (not e or e == A) and (not f or f == A)
        and (not g or g == A)
end

local strings = {}
for n = 0, 20000 do
    strings[n] = false
end
local function pure(t)
    strings[#t] = strings[#t] or string.rep("A", #t)
    return t == strings[#t]
end

local right = {}
for k = 0, 255 do
    right[k] = k == A
end

-- Before an append: what has become long begins anew.
local function short(x)
    if #x > 3000 then
        x:set(text)
    end
end

-- By method: functions that call it and say whether all was well. k changes.
local methods = {
    len = { function(x) return x:len() > 0 and #x > 0 end,
        -- As data for another buffer.
        function(x) return pure(target:write(1, x):tostring()) end,
        function(x) return pure(target:copy(1, x, 9, 20):tostring()) end,
        function(x) return pure(target:set(x):tostring()) end,
        function(x) return pure(target:reset():put("A", x):tostring()) end,
        function(x) return target:equals(x) and target:equals_ct(x) end,
        function(x) return target:find(x) == 1 end },
    tostring = { function(x) return pure(x:tostring()) end,
        function(x) return pure(x .. "A") end,
        function(x)
            local t = tostring(x)
            return pure(t) or string.find(t, "released$") ~= nil
        end },
    sub = { function(x, k) return pure(x:sub(k % 50 + 1, k % 50 + 9)) end,
        function(x, k) return pure(x:sub(-(k % 50) - 1)) end },
    byte = { function(x, k) return x:byte(k % 50 + 1) == A end,
        function(x, k) return right[x:byte(k % 50 + 1)] end,
        function(x, k) return all(x:byte(1, k % 7 + 1)) end,
        function(x, k) return all(x:byte(k % 50 + 1, k % 50 + 2)) end },
    find = { function(x) return x:find("A", 9, true) == 9 end,
        function(x) return x:find "\221" == nil end,
        function(x) return x:find(source) == 1 end,
        function(x, k) return x:find(frozen_source, k % 3 + 1) ~= 0 end },
    find_any = { function(x, k) return x:find_any("ABC", k % 50 + 1)
            == k % 50 + 1 end,
        function(x) return x:find_any "\221" == nil end,
        function(x) return x:find_any(source) == 1 end,
        function(x) return x:find_any(frozen_source, 9) == 9 end },
    lines = { function(x)
        for line in x:lines() do
            if not pure(line) then
                return false
            end
        end
        return true
    end, function(x)
        local line = x:lines()
        return pure(line()) and line() == nil
    end },
    equals = { function(x) return x:equals(text) end,
        function(x) return x:equals(source) end,
        function(x) return source:equals(x) end },
    equals_ct = { function(x) return x:equals_ct(text) end,
        function(x) return x:equals_ct(frozen_source) end },
    crc32 = { function(x, k)
        local i = k % 50 + 1
        return x:crc32(i, i + 7) == crc_of_8
    end, function(x, k)
        return x:crc32(5, 8, x:crc32(1, k % 2 + 3)) ~= 0
    end },
    adler32 = { function(x, k)
        local i = k % 50 + 1
        return x:adler32(i, i + 7) == adler_of_8
    end },
    ref = { function(x) return select(2, x:ref()) > 0 end },
    unpack = { function(x, k) return x:unpack(k % 9 + 1, "<I4") == 0x41414141
        end,
        function(x) return pure((x:unpack(1, "s1"))) end,
        function(x, k) return pure((x:unpack(k % 9 + 1, "c9"))) end,
        function(x)
            return x:unpack(1, "<i8") == 0x4141414141414141LL
        end },
    writeto = { function(x) return x:writeto(null, 3, 9) == 7 end,
        function(x) return x:writeto(null_file, 3) > 0 end },
    capacity = { function(x) return x:capacity() >= 60 end },
    write = { function(x, k) x:write(k % 50 + 1, "AAA") return true end,
        function(x) x:write(1, source) return true end,
        function(x) x:write(1, frozen_source) return true end },
    copy = { function(x, k) x:copy(k % 50 + 1, "AAA", 2, 3) return true end,
        function(x) x:copy(1, source, 5, 9) return true end,
        function(x) x:copy(1, x, 5, 9) return true end },
    setbyte = { function(x, k) x:setbyte(k % 50 + 1, A) return true end,
        function(x, k) x:setbyte(k % 50 + 1, A, A) return true end,
        function(x) x:setbyte(-9, A, A, A, A, A, A) return true end },
    fill = { function(x, k) x:fill(A, k % 50 + 1, k % 50 + 9) return true end },
    xor = { function(x, k)
        local i = k % 50 + 1
        x:xor(i, i + 9, "abc", k):xor(i, i + 9, "abc", k)
        return true
    end, function(x)
        x:xor(1, 9, source):xor(1, 9, source)
        return true
    end },
    wipe = { function(x) x:wipe() x:set(text) return true end },
    free = { function(x) x:free() x:put(text) return true end },
    resize = { function(x) x:resize(60) x:set(text) return true end },
    put = { function(x) short(x) x:put("A") return true end,
        function(x) short(x) x:put("A", "AA", "AAA") return true end,
        function(x) short(x) x:put(source, "A") return true end,
        function(x)
            short(x)
            x:put("A", "AA", "A", "AA", frozen_source, "A")
            return true
        end },
    put_range = { function(x) short(x) x:put_range("AAA", 2) return true end,
        function(x, k) short(x) x:put_range(source, k % 50) return true end,
        function(x, k) short(x) x:put_range(x, k % 50 + 1, 60) return true end,
        function(x, k)
            short(x)
            x:put_range(x, #x - k % 9, #x + k % 50)
            return true
        end },
    prepend = { function(x) short(x) x:prepend "AAA" return true end,
        function(x)
            x:skip(3):prepend "A":prepend "AA"
            return #x >= LEN
        end,
        function(x) short(x) x:prepend(source) return true end,
        function(x) short(x) x:prepend(frozen_source) return true end },
    take = { function(x) short(x) x:take(donor:set(text), 3) return true end,
        function(x)
            target:set(text):take(x, 3)
            x:put "AAA"
            return pure(target:tostring())
        end, function(x)
            target:reset():take(x)
            x:take(target, #target)
            return #x > 0
        end },
    split_to = { function(x)
        short(x)
        local part = x:split_to(3)
        x:put "AAA"
        local same = part:tostring() == "AAA"
        part:release()
        return same
    end, function(x)
        short(x)
        local part = x:split_to(#x - 2)
        x:take(part)
        part:release()
        return true
    end },
    putf = { function(x) short(x) x:putf("%s%s", "AA", "A") return true end },
    putcdata = { function(x) short(x) x:putcdata(pointer, 9) return true end },
    set = { function(x) x:set(text) return true end,
        function(x, k) x:set(pointer, k % 200 + LEN) return true end,
        function(x) x:set(source) return true end },
    reserve = { function(x, k) x:reserve(k % 90) return true end },
    commit = { function(x) x:reserve(8) x:commit(0) return true end },
    get = { function(x) short(x) x:put "AAAA" return pure(x:get(3)) end,
        function(x) short(x) x:put "AAAA" return pure((x:get(1, 2))) end,
        function(x) short(x) x:put "AAAAA" return pure((x:get(1, 1, 1, 1)))
        end,
        function(x)
            local t = x:get()
            x:put(text)
            return pure(t)
        end },
    skip = { function(x) short(x) x:put "AAAA" x:skip(3) return true end },
    put_varint = { function(x) short(x) x:put_varint(A) return true end,
        function(x) short(x) x:put_varint(A, 65ULL, A) return true end },
    put_zigzag = { function(x) short(x) x:put_zigzag(-33) return true end },
    get_varint = { function(x)
        short(x)
        return x:put "A":get_varint() == A
    end },
    get_zigzag = { function(x)
        short(x)
        return x:put "A":get_zigzag() == -33
    end },
    get_varint64 = { function(x)
        short(x)
        return x:put "A":get_varint64() == 65ULL
    end },
    get_zigzag64 = { function(x)
        short(x)
        return x:put "A":get_zigzag64() == -33LL
    end },
    reset = { function(x) x:reset() x:put(text) return true end },
    readinto = { function(x)
        ffi.C.lseek(fd, 0, 0)
        return (x:readinto(1, fd, 9) or 0) > 0
    end, function(x)
        file:seek "set"
        return (x:readinto(2, file, 9) or 0) > 0
    end },
    readfrom = { function(x)
        ffi.C.lseek(fd, 0, 0)
        short(x)
        return (x:readfrom(fd, 9) or 0) > 0
    end, function(x)
        file:seek "set"
        short(x)
        return (x:readfrom(file, 9) or 0) > 0
    end },
    reader = { function(x, k)
        local r = x:reader():skip(k % 50)
        return r:get_u32be() == 0x41414141 and pure(r:get(3))
            and r:get_varint() == A and pure(r:tostring())
    end },
    pack = { function(x, k)
        x:pack(k % 50 + 1, "<I4c3", 0x41414141, "AAA")
        return true
    end, function(x)
        short(x)
        x:pack(#x + 1, "s1<i8", other_a, 0x4141414141414141LL)
        return true
    end },
}

local sample = makes.buffer()
for _, width in ipairs { 8, 16, 24, 32, 64 } do
    for _, form in ipairs { "u", "i", "f" } do
        for _, order in ipairs(width == 8 and { "" } or { "le", "be" }) do
            local own = form .. width .. order
            local read = sample[own]
            if read then
                local value = read(sample, 1)
                methods[own] = { function(x, k)
                    return x[own](x, k % 50 + 1) == value
                end }
                methods["set_" .. own] = { function(x, k)
                    x["set_" .. own](x, k % 50 + 1, value)
                    return true
                end, function(x)
                    x["set_" .. own](x, -8, value)
                    return true
                end }
                methods["put_" .. own] = { function(x)
                    short(x)
                    x["put_" .. own](x, value)
                    return true
                end, function(x)
                    short(x)
                    x["put_" .. own](x, value, value)
                    return true
                end }
                methods["get_" .. own] = { function(x)
                    short(x)
                    x:put "AAAAAAAA"
                    return x["get_" .. own](x) == value
                end }
            end
        end
    end
end

-- What makes an object or ends one is a function of C as a whole, or is what
-- the finalizers do.
local ends = { release = true, freeze = true, detach = true, clone = true,
    slice = true, share = true }

-- The loops -------------------------------------------------------------------

local loop = [[
local s, op, bomb = ...
return function(from)
    for k = from, s.rounds do
        s.k = k
        if k % s.every == 0 and s.armed then bomb() end
        if not op(s.x, k) then s.bad = s.bad + 1 end
        s.junk = { k }
    end
end]]

-- An object that has died meanwhile may have got another length before its
-- method looked at that, and then the method tells of the position.
local function wrong(ok, message)
    if not ok and not string.find(tostring(message),
        "attempt to use a released", 1, true) and not (s.died == s.k
        and string.find(tostring(message), "out of range, length 100", 1,
        true)) then
        s.bad = s.bad + 1
        s.what = message
    end
end

local switches = { "-loop", "-sink", "-narrow", "-dce", "-abc", "-cse",
    "-fwd", "-dse" }

local function draw()
    jit.opt.start(3)
    jit.opt.start("hotloop=" .. random(60),
        "hotexit=" .. ({ 1, 2, 5, 10, 50, 200 })[random(6)])
    if s.armed and random(4) == 1 then
        jit.opt.start(switches[random(#switches)])
    end
end

local function try(op)
    jit.flush()
    s.armed, s.deadly = not guards and not sandbox, random(2) == 1
    s.x, s.k, s.every, s.rounds, s.died = make(), 0, random(2, 7), rounds, nil
    target:set(text)
    draw()
    local run = assert(loadstring(loop))(s, op, bomb)
    while s.k < rounds do
        wrong(pcall(run, s.k + 1))
    end
    local x = s.x
    s.x = nil
    x:release()
    for _, b in pairs(others) do
        check_other(b)
    end
end

collectgarbage("setpause", 100)
collectgarbage("setstepmul", 400)
local names = {}
for method in pairs(debug.getmetatable(kind == "frozen" and frozen_source
    or source).__index) do
    names[#names + 1] = method
end
table.sort(names)
if guards then
    guards.on()
elseif sandbox then
    sandbox.close()
end
for _, method in ipairs(names) do
    if not methods[method] and not ends[method] then
        say(method .. ": nobody has said how to try it")
    end
    for n, op in ipairs(methods[method] or {}) do
        s.bad, s.what = 0, nil
        if not only or only == method then
            try(op)
        end
        if s.bad > 0 then
            say(string.format("%s, way %d: wrong %d times%s", method, n,
                s.bad, s.what and ": " .. s.what or ""))
        end
    end
end
if sandbox then
    sandbox.misuse(names, make, bufpool)
elseif guards then
    guards.off()
    local seen, problems = guards.result()
    say(table.concat(problems, "\n"))
    if seen < (kind == "frozen" and 20 or 60) then
        say("looked at " .. seen .. " accesses only")
    end
end
