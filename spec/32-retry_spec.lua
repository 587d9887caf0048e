-- What a method does when the buffer has changed while it was at work: it
-- begins anew, and then does what it does otherwise, once. Here a hook changes
-- the buffer's epoch, and nothing else, after each number of instructions.
local bufpool = require "bufpool"
local ffi = require "ffi"

ffi.cdef [[
int open(const char *, int, ...);
long lseek(int, long, int);
]]

local pool = bufpool.new()
local text = ("abcdefghijklmnopqrstuvwxyz0123456789"):rep(4)
local other = pool:checkout(12):write(1, "OTHEROTHERXX")
local pointer = ffi.cast("const char *", text)
local name = os.tmpname()
local file = assert(io.open(name, "w+"))
file:write(("f"):rep(1000))
file:flush()
local fd = ffi.C.open(name, 2)
os.remove(name)

-- By method: ways to call it. What they return is compared, and the contents.
local methods = {
    len = { function(b) return b:len(), #b end },
    capacity = { function(b) return b:capacity() > 0 end },
    tostring = { function(b) return b:tostring() end },
    sub = { function(b) return b:sub(3, 9), b:sub(9, 3) end },
    byte = { function(b) return b:byte(3) end,
        function(b) return b:byte(3, 3) end,
        function(b) return b:byte(3, 4) end,
        function(b) return b:byte(3, 5) end,
        function(b) return b:byte(3, 6) end,
        function(b) return b:byte(3, 7) end,
        function(b) return b:byte(-1), (b:byte(9, 3)) end },
    find = { function(b) return b:find "cd" end,
        function(b) return b:find("cd", 9, true) end,
        function(b) return b:find "CD" end,
        function(b) return b:find(other) end,
        function(b) return pcall(b.find, b, "[x]") end },
    find_any = { function(b) return b:find_any "zyc" end,
        function(b) return b:find_any("cd", 9) end,
        function(b) return b:find_any "CD" end,
        function(b) return b:find_any(other) end },
    lines = { function(b)
        local lines = {}
        for line in b:set("one\ntwo\n\nfour"):lines() do
            lines[#lines + 1] = line
        end
        return table.concat(lines, "|")
    end },
    equals = { function(b) return b:equals(text) end,
        function(b) return b:equals "abc" end,
        function(b) return b:equals(other) end },
    equals_ct = { function(b) return b:equals_ct(text) end,
        function(b) return b:equals_ct(other) end },
    crc32 = { function(b) return b:crc32(), b:crc32(3, 9, 5) end },
    adler32 = { function(b) return b:adler32(), b:adler32(3, 9, 5) end },
    ref = { function(b)
        local p, n = b:ref()
        return ffi.string(p, n)
    end },
    write = { function(b) return b:write(3, "XYZ") == b end,
        function(b) return b:write(3, other) == b end },
    copy = { function(b) return b:copy(3, "XYZ", 2, 3) == b end,
        function(b) return b:copy(3, b, 9, 20) == b end },
    setbyte = { function(b) return b:setbyte(3, 65) == b end,
        function(b) return b:setbyte(-1, 65) == b end,
        function(b) return b:setbyte(3, 65, 66) == b end,
        function(b) return b:setbyte(3, 65, 66, 67) == b end,
        function(b) return b:setbyte(3, 65, 66, 67, 68) == b end,
        function(b) return b:setbyte(3, 65, 66, 67, 68, 69) == b end },
    fill = { function(b) return b:fill(65, 3, 9) == b end },
    xor = { function(b) return b:xor(3, 9, "key") == b end,
        function(b) return b:xor(3, -1, other, 2) == b end },
    wipe = { function(b) return b:wipe() == b end },
    free = { function(b) return b:free() == b end },
    resize = { function(b) return b:resize(9) == b end,
        function(b) return b:resize(9000) == b end },
    put = { function(b) return b:put("X") == b end,
        function(b) return b:put("X", 1, "Y") == b end,
        function(b) return b:put(other, "Y", ("z"):rep(5000)) == b end,
        function(b) return b:put(("z"):rep(5000)) == b end },
    put_range = { function(b) return b:put_range("XYZ", 2) == b end,
        function(b) return b:put_range(other, 3, 5) == b end,
        function(b) return b:put_range(b, 3, 9) == b end,
        function(b) return b:put_range(b, 100, 300) == b end,
        function(b) return b:put_range(b, 1, 9000) == b end },
    prepend = { function(b) return b:prepend("X") == b end,
        function(b) return b:skip(9):prepend("XYZ") == b end,
        function(b) return b:prepend(other) == b end,
        function(b) return b:prepend(("z"):rep(5000)) == b end },
    take = { function(b) return b:take(pool:writer():put "taken") == b end,
        function(b) return b:take(pool:borrow(9000), 8999) == b end,
        function(b) return b:reset():take(pool:checkout(9000)) == b end,
        function(b)
            local c = pool:writer():take(b, 20)
            return c:tostring()
        end },
    split_to = { function(b) return b:split_to(3):tostring() end,
        function(b) return b:split_to(100):tostring() end,
        function(b) return b:split_to(1000):tostring() end },
    putf = { function(b) return b:putf("%d %s", 5, "X") == b end },
    putcdata = { function(b) return b:putcdata(pointer, 9) == b end,
        function(b) return b:reserve(4000) and b:putcdata(b:ref()) == b end },
    set = { function(b) return b:set "XYZ" == b end,
        function(b) return b:set(other) == b end,
        function(b) return b:set(pointer, 9) == b end },
    commit = { function(b)
        local p, n = b:reserve(8)
        ffi.fill(p, n, 65)
        return b:commit(5) == b
    end },
    get = { function(b) return b:get() end, function(b) return b:get(3) end,
        function(b) return b:get(3, 4) end,
        function(b) return b:get(3, 4, 5) end,
        function(b) return b:get(3, 4, 5, 6, 7) end,
        function(b) return b:get(3, nil, 5) end },
    skip = { function(b) return b:skip(9) == b end },
    reset = { function(b) return b:reset() == b end },
    put_varint = { function(b) return b:put_varint(300) == b end,
        function(b) return b:put_varint(300, -1LL, 5) == b end },
    put_zigzag = { function(b) return b:put_zigzag(-300) == b end },
    get_varint = { function(b) return b:get_varint() end,
        function(b) return pcall(b.get_varint, b:set "\255") end },
    get_zigzag = { function(b) return b:get_zigzag() end },
    get_varint64 = { function(b) return b:get_varint64() end },
    get_zigzag64 = { function(b) return b:get_zigzag64() end },
    readfrom = { function(b) return b:readfrom(fd, 9) end,
        function(b) return b:readfrom(file, 9) end },
    readinto = { function(b) return b:readinto(3, fd, 9) end,
        function(b) return b:readinto(3, file, 9) end },
    writeto = { function(b) return b:writeto(fd, 3, 9) end,
        function(b) return b:writeto(file, 3, 9) end },
    pack = { function(b) return b:pack(3, "<I4z", 0x41424344, "xyz") == b end,
        function(b) return b:pack(#b + 1, ">I2s1", 5, "xyz") == b end },
    unpack = { function(b) return b:unpack(3, "<I4c5") end },
    detach = { function(b)
        local c = assert(bufpool.adopt(assert(b:detach())))
        local t = tostring(c)
        c:release()
        return t
    end },
    freeze = { function(b)
        local f = b:freeze()
        local t = tostring(f)
        f:release()
        return t
    end },
    release = { function(b) b:release() return bufpool.type(b) end },
}
methods.reserve = methods.commit
for _, kind in ipairs { "u8", "i16be", "u24le", "i32be", "u32le", "u64be",
    "f32le", "f64be" } do
    methods[kind] = { function(b) return b[kind](b, 3) end }
    methods["get_" .. kind] = { function(b) return b["get_" .. kind](b) end }
    methods["set_" .. kind] = {
        function(b) return b["set_" .. kind](b, 3, 5) == b end,
        function(b) return b["set_" .. kind](b, -8, 5) == b end,
    }
    methods["put_" .. kind] = {
        function(b) return b["put_" .. kind](b, 5) == b end,
        function(b) return b["put_" .. kind](b, 5, 6) == b end,
    }
end
-- Those of the other widths are made of the same template.
local function like_another(method)
    return method:find "^[%l_]*[uif]%d+[lb]?e?$" ~= nil
end

local makes = {
    buffer = function() return pool:checkout(#text):write(1, text) end,
    handle = function() return pool:borrow(#text):write(1, text) end,
}

-- What way returns for a new buffer, as text, and what the buffer then holds.
-- After `count` instructions a hook changes the epoch. True when it did before
-- the way was through.
local function outcome(make, way, count)
    local b, through, changed = make(), false, false
    ffi.C.lseek(fd, 0, 0)
    file:seek "set"
    local function hook()
        debug.sethook()
        changed = not through
        if bufpool.type(b) ~= "dead" then
            b:resize(#b)
        end
    end
    local function call(...)
        through = true
        debug.sethook()
        local said = { bufpool.type(b) }
        for k = 1, select("#", ...) do
            said[k + 1] = tostring((select(k, ...)))
        end
        return table.concat(said, "\n")
    end
    if count then
        debug.sethook(hook, "", count)
    end
    local said = call(way(b))
    local contents = ""
    if bufpool.type(b) ~= "dead" then
        contents = tostring(b)
        b:release()
    end
    return said .. "\n" .. contents, changed
end

describe("a change in the middle of", function()
    local compiling = jit.status()
    setup(function()
        jit.off()
    end)
    teardown(function()
        if compiling then
            jit.on()
        end
    end)

    for kind, make in pairs(makes) do
        for method, ways in pairs(methods) do
            it(("%s of a %s makes it begin anew"):format(method, kind),
                function()
                    for n, way in ipairs(ways) do
                        local want = outcome(make, way)
                        local count = 0
                        repeat
                            count = count + 1
                            local got, changed = outcome(make, way, count)
                            assert.equal(want, got, ("way %d, after %d "
                                .. "instructions"):format(n, count))
                        until not changed
                    end
                end)
        end
    end

    it("every method is tried", function()
        local tried = debug.getmetatable(other).__index
        for method in pairs(tried) do
            assert.is_true(methods[method] ~= nil or like_another(method),
                method)
        end
    end)
end)

-- Between the comparison in Lua and the call no hook of the tests above changes
-- more than the epoch, so they do not tell whether C compares it.
describe("with an epoch of before C does nothing in", function()
    local calls, object = require "bufpool.calls", require "bufpool.object"
    local ESTALE, BYTES_STALE = 116, -65536
    local answers = { [ESTALE] = true, [-ESTALE] = true, [BYTES_STALE] = true }
    local frozen = pool:checkout(9):freeze()
    local box = ffi.cast("struct bufpool_frozen_box *", frozen)
    local unused = pool:checkout(9):freeze()
    local to = ffi.cast("struct bufpool_frozen_box *", unused)
    local piece = ffi.new "struct bufpool_piece"
    local sink = ffi.new "struct bufpool_sink"

    local b2 = object.live(other, "spec")

    -- By function: calls of it for a descriptor and an epoch.
    local tries = {
        grow = { function(b, e) return calls.grow(b, e, 9000, nil) end },
        resize = { function(b, e) return calls.resize(b, e, 9, nil) end },
        extend = { function(b, e) return calls.extend(b, e, 200, nil) end },
        grant = { function(b, e) return calls.grant(b, e, 200) end },
        commit = { function(b, e) return calls.commit(b, e, 1) end },
        expose = { function(b, e) return calls.expose(b, e) end },
        store = { function(b, e) return calls.store(b, e, 0, 65, 1) end },
        fill = { function(b, e) return calls.fill(b, e, 0, 3, 65) end },
        append_range = { function(b, e)
            return calls.append_range(b, e, nil, 0, 3)
        end },
        take = { function(b, e)
            return calls.take(b, e, nil, b2, b2.epoch, nil, 2)
        end, function(b, e)
            return calls.take(b, e + 1, nil, b2, b2.epoch - 1, nil, 2)
        end, function(b, e)
            return calls.take(b2, b2.epoch, nil, b, e, nil, 2)
        end },
        ["core.split"] = { function(b, e)
            return select(2, object.core.split(b.number, 3, e))
        end },
        crc32 = { function(b, e) return calls.crc32(b, e, 0, 3, 0) end },
        adler32 = { function(b, e) return calls.adler32(b, e, 0, 3, 1) end },
        read = { function(b, e) return calls.read(b, e, fd, 0, 3) end },
        fread = { function(b, e) return calls.fread(b, e, file, 0, 3) end },
        write = { function(b, e) return calls.write(b, e, fd, 0, 3) end },
        fwrite = { function(b, e) return calls.fwrite(b, e, file, 0, 3) end },
        free = { function(b, e) return calls.free(b, e, nil) end },
        wipe = { function(b, e) return calls.wipe(b, e) end },
        consume = { function(b, e) return calls.consume(b, e, 3) end },
        put_varint = { function(b, e)
            return calls.put_varint(b, e, 5LL, 0)
        end },
        get_varint = { function(b, e)
            return calls.get_varint(b, e, 0, 0) / 2 ^ 60
        end },
        peek_varint = { function(b, e)
            return calls.peek_varint(b, e, 0, 2) == 0 and ESTALE
        end },
        varint_length = { function(b, e)
            return calls.varint_length(b, e, 0, 2)
        end },
        release = { function(b, e) return calls.release(b, e) end },
        freeze = { function(b, e) return calls.freeze(b, e, to) end },
        detach = { function(b, e) return calls.detach(b, e) end },
        lend_frozen = { function()
            return calls.lend_frozen(box, box.epoch - 1, piece)
        end },
        lend_copy = { function(b, e) return calls.lend_copy(b, e, piece) end },
        sink_open = { function(b, e)
            return calls.sink_open(sink, b, e, 9)
        end },
    }
    -- Those that take a source have an epoch of that as well.
    local function with_source(which, call)
        tries[which] = {
            function(b, e) return call(b, e, nil, 0, pointer) end,
            function(b, e)
                return call(b, e + 1, b2, b2.epoch - 1, pointer)
            end,
            function(b, e) return call(b, e, nil, 0, "X[") end,
            function(b, e) return call(b, e + 1, b2, b2.epoch - 1, "X[") end,
        }
    end
    with_source("overwrite", function(b, e, source, se, from)
        return calls.overwrite(b, e, 0, from, 2, source, se)
    end)
    with_source("xor_range", function(b, e, source, se, from)
        return calls.xor_range(b, e, 0, 3, source, se, from, 2, 1)
    end)
    with_source("assign", function(b, e, source, se, from)
        return calls.assign(b, e, nil, from, 2, source, se)
    end)
    with_source("append", function(b, e, source, se, from)
        return calls.append(b, e, nil, from, 2, source, se)
    end)
    with_source("prepend", function(b, e, source, se, from)
        return calls.prepend(b, e, nil, from, 2, source, se)
    end)
    with_source("compare", function(b, e, source, se, from)
        return calls.compare(b, e, source, se, from, 2)
    end)
    with_source("equal_ct", function(b, e, source, se, from)
        return calls.equal_ct(b, e, source, se, from, 2)
    end)
    with_source("find", function(b, e, source, se, from)
        return calls.find(b, e, 1, source, se, from, 2)
    end)
    with_source("find_plain", function(b, e, source, se, from)
        return calls.find_plain(b, e, 1, source, se, from, 2)
    end)
    with_source("find_int", function(b, e, source, se, from)
        return calls.find_int(b, e, 1, source, se, from, 2)
    end)
    with_source("find_plain_int", function(b, e, source, se, from)
        return calls.find_plain_int(b, e, 1, source, se, from, 2)
    end)
    with_source("find_any", function(b, e, source, se, from)
        return calls.find_any(b, e, 1, source, se, from, 2)
    end)

    local function state(b)
        local d, epoch = object.live(b, "spec")
        return ("%s %d %d %d %d %d %d"):format(tostring(b), tonumber(d.mark),
            tonumber(d.capacity), epoch, ffi.C.lseek(fd, 0, 1),
            file:seek(), tonumber(piece.len)), d, epoch
    end

    for call, ways in pairs(tries) do
        it(call, function()
            local b = pool:checkout(#text):write(1, text)
            for _, way in ipairs(ways) do
                local before, d, epoch = state(b)
                assert.is_true(answers[tonumber(way(d, epoch - 1))] == true)
                assert.equal(before, (state(b)))
            end
            b:release()
            assert.equal(9, #frozen)
            assert.equal(9, #unused)
        end)
    end

    it("every function that takes an epoch", function()
        local count, header = 0, assert(io.open "src/lua/calls.h")
        local text_of_header = header:read "*a"
        header:close()
        local fields = text_of_header:match "struct bufpool_calls (%b{})"
        for field in fields:gmatch "[^;]+;" do
            -- All types that several functions have take one.
            local takes_epoch = field:find "int32_t epoch"
                or field:find "bufpool_%w+_fn"
            for call in field:gmatch "%*const ([%w_]+)" do
                assert.is_true(not takes_epoch or tries[call] ~= nil, call)
                count = count + (takes_epoch and 1 or 0)
            end
        end
        assert.equal(39, count)
    end)
end)
