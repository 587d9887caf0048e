-- Methods of buffers and of frozen objects: reading their bytes.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"

local ffi_string = ffi.string
local setmetatable, type = setmetatable, type
local max, min, tobit = math.max, math.min, require("bit").tobit
local format = string.format
local string_byte, string_find = string.byte, string.find
local raise, bad_argument = check.raise, check.bad_argument
local string_range, absent = check.string_range, check.absent
local range, word = check.range, check.word
local TEXT_END, text_too_long = check.TEXT_END, check.text_too_long
local look, view, data = object.look, object.view, object.data
local compare, equal_ct = calls.compare, calls.equal_ct
local find, find_plain = calls.find, calls.find_plain
local find_int, find_plain_int = calls.find_int, calls.find_plain_int
local find_any = calls.find_any

local INT_MAX, ESTALE = core.constants.INT_MAX, core.constants.ESTALE

local readers = {}

function readers.len(self)
    local len, o, epoch = look(self, "len")
    if o.epoch ~= epoch then
        return readers.len(self)
    end
    return len
end

-- A string that has been read is not read again where a guard fails later: the
-- comparison that follows the read is the fence that object.lua tells of.

function readers.tostring(self)
    local at, len, o, epoch = view(self, "tostring")
    local read = ffi_string
    if len >= TEXT_END then
        text_too_long()
    elseif o.epoch ~= epoch then
        return readers.tostring(self)
    end
    local text = read(at, len)
    if o.epoch ~= epoch then
        return readers.tostring(self)
    end
    return text
end

function readers.sub(self, i, j)
    local at, len, o, epoch = view(self, "sub")
    local from, to
    if type(i) == "number" and type(j) == "number" and tobit(i) == i
        and tobit(j) == j and i >= 1 and i <= j and j <= len then
        from, to = tobit(i), tobit(j)
    else
        from, to = string_range(i, absent(j) and -1 or j, len, "sub", 1)
        if from > to then
            if o.epoch ~= epoch then
                return readers.sub(self, i, j)
            end
            return ""
        end
    end
    local start, n, read = at + (from - 1), to - from + 1, ffi_string
    if n >= TEXT_END then
        text_too_long()
    elseif o.epoch ~= epoch then
        return readers.sub(self, i, j)
    end
    local text = read(start, n)
    if o.epoch ~= epoch then
        return readers.sub(self, i, j)
    end
    return text
end

-- The most results of one call. Lua's stack has room for a few more.
local BYTES_MAX = 4096

-- Up to four bytes are read without a branch: past the range the last one is
-- read once more.
local function several(self, i, j)
    local at, len, o, epoch = view(self, "byte")
    local from, to = string_range(absent(i) and 1 or i, j, len, "byte", 1)
    local n, read = to - from + 1, ffi_string
    if n > BYTES_MAX then
        raise("string slice too long")
    elseif n < 1 then
        return
    end
    at = at + (from - 1)
    if n > 4 then
        if o.epoch ~= epoch then
            return several(self, i, j)
        end
        local text = read(at, n)
        if o.epoch ~= epoch then
            return several(self, i, j)
        end
        return string_byte(text, 1, n)
    end
    local p, q, r = at + min(1, n - 1), at + min(2, n - 1), at + (n - 1)
    if o.epoch ~= epoch then
        return several(self, i, j)
    end
    local v, w, x, y = at[0], p[0], q[0], r[0]
    if o.epoch ~= epoch then
        return several(self, i, j)
    elseif n == 1 then
        return v
    elseif n == 2 then
        return v, w
    elseif n == 3 then
        return v, w, x
    end
    return v, w, x, y
end

function readers.byte(self, i, j)
    local at, len, o, epoch = view(self, "byte")
    if absent(j) then
        if absent(i) then
            i = 1
        end
        -- tobit makes a loop compare integers. Positions above INT_MAX take the
        -- general way.
        if type(i) == "number" and i >= 1 and i <= tobit(min(len, INT_MAX)) then
            local p = at - 1 + i
            if o.epoch ~= epoch then
                return readers.byte(self, i, j)
            end
            local v = p[0]
            if o.epoch ~= epoch then
                return readers.byte(self, i, j)
            end
            return v
        end
        j = i
    end
    return several(self, i, j)
end

-- An init beyond the end means the end in Lua 5.1, and no match in Lua 5.2.
-- This VM was built to follow one of them.
local past_end_matches = string_find("", "", 2) ~= nil

-- A function of its own, for one comparison leaves a trace less to remember
-- than three.
local function no_hit(self, needle, init, plain, hit)
    if hit == -ESTALE then
        return readers.find(self, needle, init, plain)
    elseif hit < 0 then
        bad_argument(1, "find",
            "pattern characters need plain to be true: there are no patterns")
    end
    return nil
end

-- Where all positions fit an int, C takes and returns one, because on a trace
-- conversions between a hit and the next search take as long as the search.
function readers.find(self, needle, init, plain)
    local len, o, epoch = look(self, "find")
    local text, n, p, p_epoch = data(needle, "find", 1)
    local i, past = absent(init) and 1 or init, false
    -- C cuts the fraction off.
    if type(i) ~= "number" or not (i >= 1 and i <= len + 1) then
        i = string_range(i, -1, len, "find", 2)
        past = i > len + 1
        i = min(i, len + 1)
    end
    local call
    if len < INT_MAX then
        call = plain and find_plain_int or find_int
    else
        call = plain and find_plain or find
    end
    local hit = call(o, epoch, i, p, p_epoch or 0, text, n)
    if hit <= 0 or past and not past_end_matches then
        return no_hit(self, needle, init, plain, hit)
    end
    return hit, hit + (n - 1)
end

local function no_byte(self, bytes, init, hit)
    if hit == -ESTALE then
        return readers.find_any(self, bytes, init)
    end
    return nil
end

function readers.find_any(self, bytes, init)
    local len, o, epoch = look(self, "find_any")
    local text, n, p, p_epoch = data(bytes, "find_any", 1)
    local i = min(range(init, -1, len, "find_any", 2), len + 1)
    local hit = find_any(o, epoch, i, p, p_epoch or 0, text, n)
    if hit <= 0 then
        return no_byte(self, bytes, init, hit)
    end
    return hit
end

-- A step of lines. It calls methods, and not functions of this file, because
-- without the JIT they are C's.
local function next_line(self)
    local x, at = self.of, self.at
    local stop = x:find("\n", at, true)
    if stop then
        self.at = stop + 1
        return x:sub(at, stop - 1)
    end
    local len = x:len()
    if at > len then
        return nil
    end
    self.at = len + 1
    return x:sub(at, len)
end

-- A table instead of a function, for a trace cannot make closures.
local lines_meta = { __call = next_line }

function readers.lines(self)
    look(self, "lines")
    return setmetatable({ of = self, at = 1 }, lines_meta)
end

-- Negative, zero or positive as a sorts before, with or after b. With `equal`,
-- only whether the result is zero has a meaning.
local function order(a, b, name, arg, equal)
    local len, o, epoch = look(a, name)
    local text, n, p, p_epoch = data(b, name, arg)
    local differ = equal and len ~= n
    local result = compare(o, epoch, p, p_epoch or 0, text, differ and 0 or n)
    if result == ESTALE then
        return order(a, b, name, arg, equal)
    end
    return differ and 1 or result
end

function readers.equals(self, other)
    return order(self, other, "equals", 1, true) == 0
end

function readers.equals_ct(self, other)
    local _, o, epoch = look(self, "equals_ct")
    local text, n, p, p_epoch = data(other, "equals_ct", 1)
    local result = equal_ct(o, epoch, p, p_epoch or 0, text, n)
    if result == ESTALE then
        return readers.equals_ct(self, other)
    end
    return result ~= 0
end

local function no_sum(name, sum, again, ...)
    if sum ~= -ESTALE then
        raise(format("'%s' needs zlib 1.2.9 or later: libz.so.1 cannot be "
            .. "loaded", name))
    end
    return again(...)
end

-- The method `name`. The checksum of no bytes is `empty`.
local function checksum(name, call, empty)
    local function method(self, i, j, before)
        local len, o, epoch = look(self, name)
        local from, to = range(i, j, len, name, 1)
        local start = absent(before) and empty or word(before, name, 3)
        local sum = call(o, epoch, from - 1, max(to - from + 1, 0), start)
        if sum < 0 then
            return no_sum(name, sum, method, self, i, j, before)
        end
        return sum
    end
    return method
end

readers.crc32 = checksum("crc32", calls.crc32, 0)
readers.adler32 = checksum("adler32", calls.adler32, 1)

return { methods = readers, order = order }
