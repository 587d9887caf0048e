-- Flame graphs of what is out. The profile is read by a decoder of our own,
-- which knows protocol buffers but none of bufpool's code, and compared with
-- the sites of which it was made.
local bufpool = require "bufpool"
local helper = require "support.helper"

local raises = helper.raises

-- The fields of a message as a list of { number, value }: numbers, and strings
-- of bytes. Raises for what is malformed.
local function decode(s)
    local fields, at = {}, 1
    local function varint()
        local n, scale = 0, 1
        while true do
            local byte = assert(s:byte(at), "cut short")
            at = at + 1
            n = n + byte % 128 * scale
            if byte < 128 then
                return n
            end
            scale = scale * 128
            assert(scale < 2 ^ 70, "too long")
        end
    end
    while at <= #s do
        local key = varint()
        local value
        if key % 8 == 0 then
            value = varint()
        else
            assert(key % 8 == 2, "wire type")
            local n = varint()
            assert(at + n - 1 <= #s, "cut short")
            value = s:sub(at, at + n - 1)
            at = at + n
        end
        fields[#fields + 1] = { math.floor(key / 8), value }
    end
    return fields
end

-- All values of a field; its value, or 0.
local function all(fields, number)
    local list = {}
    for _, field in ipairs(fields) do
        if field[1] == number then
            list[#list + 1] = field[2]
        end
    end
    return list
end

local function one(fields, number)
    local list = all(fields, number)
    assert(#list <= 1)
    return list[1] or 0
end

-- The numbers of a packed field: it is as if each had the key 0.
local function numbers(s)
    return all(decode((s:gsub("[\128-\255]*[%z\1-\127]", "\0%0"))), 0)
end

-- A profile as plain tables: see profile.proto.
local function read(s)
    local fields = decode(s)
    local texts = all(fields, 6)
    assert.equal("", texts[1])
    local function text(n)
        return assert(texts[n + 1], "no such string")
    end
    local functions, locations = {}, {}
    for _, message in ipairs(all(fields, 5)) do
        local f = decode(message)
        assert.is_nil(functions[one(f, 1)])
        assert.is_true(one(f, 1) > 0)
        functions[one(f, 1)] = {
            name = text(one(f, 2)), file = text(one(f, 4)),
        }
    end
    for _, message in ipairs(all(fields, 4)) do
        local l = decode(message)
        local line = decode(one(l, 4))
        local f = assert(functions[one(line, 1)], "no such function")
        assert.is_nil(locations[one(l, 1)])
        assert.is_true(one(l, 1) > 0)
        locations[one(l, 1)] = {
            name = f.name, file = f.file, line = one(line, 2),
        }
    end
    local types, samples = {}, {}
    for i, message in ipairs(all(fields, 1)) do
        local t = decode(message)
        types[i] = text(one(t, 1)) .. "/" .. text(one(t, 2))
    end
    for i, message in ipairs(all(fields, 2)) do
        local m = decode(message)
        local sample = { values = numbers(one(m, 2)), labels = {}, stack = {} }
        for k, id in ipairs(numbers(one(m, 1))) do
            sample.stack[k] = assert(locations[id], "no such location")
        end
        for _, label in ipairs(all(m, 3)) do
            local l = decode(label)
            sample.labels[text(one(l, 1))] = text(one(l, 2))
        end
        samples[i] = sample
    end
    return {
        types = types, samples = samples, time = one(fields, 9),
        default = text(one(fields, 14)),
    }
end

local function site(place, buffers, bytes)
    return { place = place, buffers = buffers, bytes = bytes }
end

describe("bufpool.pprof", function()
    it("has the sites of a pool", function()
        local pool = bufpool.new { leak_detection = "all" }
        local kept = {}
        local function take(n)
            local buf = pool:checkout(n)
            kept[#kept + 1] = buf
        end
        for _ = 1, 200 do take(1) end
        for _ = 1, 3 do take(3000000) end
        local sites = pool:sites()
        assert.equal(2, #sites)
        local before = os.time()
        local profile = read(bufpool.pprof(sites))
        assert.is_true(profile.time >= before * 1e9)
        assert.same({ "buffers/count", "bytes/bytes" }, profile.types)
        assert.equal("bytes", profile.default)
        assert.equal(2, #profile.samples)
        for i, sample in ipairs(profile.samples) do
            assert.same({ sites[i].buffers, sites[i].bytes }, sample.values)
            local lines = {}
            for k, frame in ipairs(sample.stack) do
                lines[k] = frame.file .. ":" .. frame.line
                assert.equal(lines[k], frame.name)
            end
            assert.equal(sites[i].place, table.concat(lines, " < "))
        end
        for _, buf in ipairs(kept) do
            buf:release()
        end
        assert.same({}, read(bufpool.pprof(pool:sites())).samples)
    end)

    it("has large numbers and places of every kind", function()
        local profile = read(bufpool.pprof {
            site("a.lua:1 < b:c.lua:130", 2 ^ 62, 2 ^ 53 - 1),
            site("upload+0x2a (libapp.so)", 127, 128),
            site("app+0x12345", 1, 16384),
            site("(other places)", 1, 0),
            site("", 300, 1),
            site("content_by_lua(nginx.conf:41):3", 0, 0),
        })
        local stacks, values = {}, {}
        for i, sample in ipairs(profile.samples) do
            local stack = {}
            for k, f in ipairs(sample.stack) do
                stack[k] = f.name .. "|" .. f.file .. "|" .. f.line
            end
            stacks[i], values[i] = table.concat(stack, " "), sample.values
        end
        assert.same({
            "a.lua:1|a.lua|1 b:c.lua:130|b:c.lua|130",
            "upload|libapp.so|0", "app+0x12345|app|0",
            "(other places)|(other places)|0", "||0",
        }, stacks)
        assert.same({
            { 2 ^ 62, 2 ^ 53 - 1 }, { 127, 128 }, { 1, 16384 }, { 1, 0 },
            { 300, 1 },
        }, values)
    end)

    it("has pool and worker as labels", function()
        local labelled = site("a.lua:1", 1, 1)
        labelled.pool, labelled.worker = "uploads", "3"
        assert.same({ pool = "uploads", worker = "3" },
            read(bufpool.pprof { labelled }).samples[1].labels)
    end)
end)

describe("bufpool.folded", function()
    it("has a line for each place with its callers first", function()
        local other = site("x;y\n.lua:3", 1, 5)
        other.pool = "p;q"
        local list = {
            site("a.lua:1 < b.lua:2", 1, 4096), site("gone.lua:1", 0, 0), other,
        }
        assert.equal("b.lua:2;a.lua:1 4096\np,q;x,y?.lua:3 5\n",
            bufpool.folded(list))
        assert.equal("", bufpool.folded {})
    end)

    it("has the bytes of a pool", function()
        local pool = bufpool.new { leak_detection = "all" }
        local buf = pool:checkout(1)
        local place = pool:sites()[1].place
        local lines = bufpool.folded(pool:close())
        assert.equal(place:match "^%S+", lines:match "([^;]+) 4096\n$")
        buf:release()
    end)
end)

describe("pprof", function()
    it("has characters of UTF-8 only, and lines that are numbers", function()
        for frame, shown in pairs {
            ["caf\195\169.lua:3"] = "caf\195\169.lua:3",
            ["caf\233.lua:3"] = "caf?.lua:3",
            ["\224\128\128\237\160\128:1"] = "??????:1",
            ["\240\159\152\128\192\128\255:1"] = "\240\159\152\128???:1",
        } do
            local text = bufpool.pprof { site(frame, 1, 1) }
            assert.truthy(text:find(shown, 1, true), frame)
        end
        for _, digits in ipairs { 15, 16, 20, 25, 400 } do
            bufpool.pprof { site("a:" .. ("9"):rep(digits), 1, 1) }
        end
    end)
end)

describe("both", function()
    it("raise for what is no list of sites", function()
        for name, fn in pairs {
            folded = bufpool.folded, pprof = bufpool.pprof,
        } do
            local bad = "bad argument #1 to '" .. name
            raises(function() fn() end, bad, "list of sites")
            raises(function() fn "x" end, bad, "list of sites")
            for _, list in ipairs {
                { 1 }, { {} }, { site(1, 1, 1) }, { site("a", -1, 1) },
                { site("a", 1, 2 ^ 63) }, { site("a", 0 / 0, 1) },
                { site("a", 1, "1") }, site("a", 1, 1),
            } do
                raises(function() fn(list) end, bad, "list of sites")
            end
        end
    end)
end)
