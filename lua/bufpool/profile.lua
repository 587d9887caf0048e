-- A list of sites in the formats of flame graphs: folded stacks, and pprof's
-- profile.proto.

local check = require "bufpool.check"

local ipairs, next, tonumber, type = ipairs, next, tonumber, type
local byte, char, find = string.byte, string.char, string.find
local format, rep = string.format, string.rep
local gsub, match, sub = string.gsub, string.match, string.sub
local concat, floor = table.concat, math.floor

local profile = {}

local function is_count(n)
    return type(n) == "number" and n >= 0 and n < check.SIZE_END
end

-- A list as pool:sites() returns it. Those of nginx's status have a pool and a
-- worker, too.
local function checked(list, name)
    if type(list) ~= "table" then
        check.bad_argument(1, name, "list of sites expected, got "
            .. type(list))
    end
    if type(list[1]) == "nil" and next(list) ~= nil then
        check.bad_argument(1, name, "list of sites expected")
    end
    for _, site in ipairs(list) do
        if type(site) ~= "table" or type(site.place) ~= "string"
            or not is_count(site.buffers) or not is_count(site.bytes) then
            check.bad_argument(1, name, "list of sites expected")
        end
    end
    return list
end

-- The frames of a place, the innermost first.
local function frames(place)
    local list, from = {}, 1
    repeat
        local at, to = find(place, " < ", from, true)
        list[#list + 1] = sub(place, from, (at or 0) - 1)
        from = (to or 0) + 1
    until not at
    return list
end

-- A line is frames, the outermost first, with semicolons between them, and a
-- number behind the last space.
local function fold(frame)
    return (gsub(gsub(frame, ";", ","), "%c", "?"))
end

function profile.folded(list)
    local lines = {}
    for _, site in ipairs(checked(list, "folded")) do
        local stack, names = {}, frames(site.place)
        if type(site.pool) == "string" then
            stack[1] = fold(site.pool)
        end
        for i = #names, 1, -1 do
            stack[#stack + 1] = fold(names[i])
        end
        if site.bytes > 0 then
            lines[#lines + 1] = format("%s %.0f\n", concat(stack, ";"),
                site.bytes)
        end
    end
    return concat(lines)
end

-- The encoding of protocol buffers: a key, which is the number of a field and
-- how its value is written, and the value.
local VARINT, BYTES = 0, 2

-- Below 2^64. Exact where a number is: only powers of two divide it.
local function varint(n)
    local out = ""
    n = floor(n)
    while n >= 128 do
        out = out .. char(n % 128 + 128)
        n = floor(n / 128)
    end
    return out .. char(n)
end

-- A field of 0 is left out.
local function number(field, n)
    return n == 0 and "" or char(field * 8 + VARINT) .. varint(n)
end

local function bytes(field, s)
    return char(field * 8 + BYTES) .. varint(#s) .. s
end

local function packed(field, list)
    local out = {}
    for i, n in ipairs(list) do
        out[i] = varint(n)
    end
    return bytes(field, concat(out))
end

-- A byte that is not ASCII and those that go on behind it, where they are a
-- character of UTF-8: strings of protocol buffers have no others.
local function character(seq)
    local first, second = byte(seq, 1, 2)
    local size = first < 0xc2 and 0 or first < 0xe0 and 2 or first < 0xf0 and 3
        or first < 0xf5 and 4 or 0
    if #seq == size and not (first == 0xe0 and second < 0xa0
        or first == 0xed and second > 0x9f or first == 0xf0 and second < 0x90
        or first == 0xf4 and second > 0x8f) then
        return seq
    end
    return rep("?", #seq)
end

-- Fields of the messages of profile.proto.
local PROFILE = {
    sample_type = 1, sample = 2, location = 4, ["function"] = 5,
    string_table = 6, time_nanos = 9, default_sample_type = 14,
}
local VALUE_TYPE = { type = 1, unit = 2 }
local SAMPLE = { location_id = 1, value = 2, label = 3 }
local LABEL = { key = 1, str = 2 }
local LOCATION = { id = 1, line = 4 }
local LINE = { function_id = 1, line = 2 }
local FUNCTION = { id = 1, name = 2, system_name = 3, filename = 4 }

-- What is numbered in the order in which it comes, from `first` on. `make`
-- writes one of it.
local function numbered(first, make)
    local ids, out, count = {}, {}, first - 1
    return out, function(key)
        if not ids[key] then
            count = count + 1
            ids[key] = count
            out[#out + 1] = make(key, count)
        end
        return ids[key]
    end
end

-- Of a number that a double holds.
local LINE_DIGITS = 15

-- What a frame names: a function, a file, and a line or 0. A line of Lua counts
-- as a function of its own, for its function has no name here. In C it is
-- "name+0x2a (file)", or "file+0x12345", which is name and file.
local function parts(frame)
    local file, line = match(frame, "^(.*):(%d+)$")
    if file and #line <= LINE_DIGITS then
        return frame, file, tonumber(line)
    end
    local name, path = match(frame, "^(.*)%+0x%x+ %((.*)%)$")
    if name then
        return name, path, 0
    end
    return frame, match(frame, "^(.*)%+0x%x+$") or frame, 0
end

-- `time` is in seconds since 1970.
function profile.pprof(list, time)
    local texts, text = numbered(0, function(s)
        return bytes(PROFILE.string_table,
            (gsub(s, "[\128-\255][\128-\191]*", character)))
    end)
    text ""                     -- the first one has to be empty
    local functions, fn = numbered(1, function(frame, id)
        local name, file = parts(frame)
        return bytes(PROFILE["function"], number(FUNCTION.id, id)
            .. number(FUNCTION.name, text(name))
            .. number(FUNCTION.system_name, text(name))
            .. number(FUNCTION.filename, text(file)))
    end)
    local locations, location = numbered(1, function(frame, id)
        local _, _, line = parts(frame)
        return bytes(PROFILE.location, number(LOCATION.id, id)
            .. bytes(LOCATION.line, number(LINE.function_id, fn(frame))
                .. number(LINE.line, line)))
    end)
    local function kind(name, unit)
        return bytes(PROFILE.sample_type, number(VALUE_TYPE.type, text(name))
            .. number(VALUE_TYPE.unit, text(unit)))
    end
    local function label(key, value)
        return type(value) ~= "string" and "" or bytes(SAMPLE.label,
            number(LABEL.key, text(key)) .. number(LABEL.str, text(value)))
    end
    local out = { kind("buffers", "count"), kind("bytes", "bytes") }
    for _, site in ipairs(checked(list, "pprof")) do
        if site.buffers > 0 then
            local ids = frames(site.place)
            for i, frame in ipairs(ids) do
                ids[i] = location(frame)
            end
            out[#out + 1] = bytes(PROFILE.sample,
                packed(SAMPLE.location_id, ids)
                .. packed(SAMPLE.value, { site.buffers, site.bytes })
                .. label("pool", site.pool) .. label("worker", site.worker))
        end
    end
    out[#out + 1] = number(PROFILE.time_nanos, time * 1e9)
        .. number(PROFILE.default_sample_type, text "bytes")
    return concat(out) .. concat(locations) .. concat(functions)
        .. concat(texts)
end

return profile
