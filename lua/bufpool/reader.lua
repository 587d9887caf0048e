-- Methods of buffers and of frozen objects: reading their bytes.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local object = require "bufpool.object"

local ffi_string = ffi.string
local type = type
local min, tobit = math.min, require("bit").tobit
local string_byte, string_find = string.byte, string.find
local raise, bad_argument = check.raise, check.bad_argument
local string_range, absent = check.string_range, check.absent
local view, data, holds = object.view, object.data, object.holds
local compare, equal_ct = calls.compare, calls.equal_ct
local find, is_pattern = calls.find, calls.is_pattern

local INT_MAX = core.constants.INT_MAX

---@class (partial) bufpool.Reader
local readers = {}

---@return integer
function readers.len(self)
    local _, len = view(self, "len")
    return len
end

---@return string
function readers.tostring(self)
    local at, len, o, epoch = view(self, "tostring")
    if o.epoch ~= epoch then
        return readers.tostring(self)
    end
    return (ffi_string(at, len))
end

---@param i bufpool.Integer
---@param j? bufpool.Integer
---@return string
function readers.sub(self, i, j)
    local at, len, o, epoch = view(self, "sub")
    local from, to = string_range(i, absent(j) and -1 or j, len, "sub", 1)
    if from > to then
        return ""
    end
    at = at + (from - 1)
    if o.epoch ~= epoch then
        return readers.sub(self, i, j)
    end
    return (ffi_string(at, to - from + 1))
end

-- The most results of one call. Lua's stack has room for a few more.
local BYTES_MAX = 4096

local function bytes(at, n)
    if n == 1 then
        return at[0]
    elseif n == 2 then
        return at[0], at[1]
    elseif n == 3 then
        return at[0], at[1], at[2]
    elseif n == 4 then
        return at[0], at[1], at[2], at[3]
    end
    return string_byte(ffi_string(at, n), 1, n)
end

---The bytes i to j as numbers; by default the first, or the one at i.
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return integer ...
function readers.byte(self, i, j)
    local at, len, o, epoch = view(self, "byte")
    if absent(j) then
        if absent(i) then
            i = 1
        end
        -- tobit makes a loop compare integers. Positions above INT_MAX take the
        -- general way.
        if type(i) == "number" and i >= 1 and i <= tobit(min(len, INT_MAX))
            and o.epoch == epoch then
            return at[i - 1]
        end
        j = i
    end
    local from, to = string_range(absent(i) and 1 or i, j, len, "byte", 1)
    local n = to - from + 1
    if n > BYTES_MAX then
        raise("string slice too long")
    elseif n >= 1 then
        at = at + (from - 1)
        if o.epoch ~= epoch then
            return readers.byte(self, i, j)
        end
        return bytes(at, n)
    end
end

-- An init beyond the end means the end in Lua 5.1, and no match in Lua 5.2.
-- This VM was built to follow one of them.
local past_end_matches = string_find("", "", 2) ~= nil

---As string.find, without patterns. Pattern characters need `plain`.
---@param needle bufpool.Data
---@param init? bufpool.Integer
---@param plain? boolean
---@return integer? first
---@return integer? last
function readers.find(self, needle, init, plain)
    local at, len, o, epoch = view(self, "find")
    local text, n, p, p_epoch = data(needle, "find", 1)
    local i = string_range(absent(init) and 1 or init, -1, len, "find", 2)
    if i > len + 1 then
        if not past_end_matches then
            return nil
        end
        i = len + 1
    end
    at = at + (i - 1)
    if not holds(o, epoch, p, p_epoch) then
        return readers.find(self, needle, init, plain)
    elseif not plain and is_pattern(text, n) ~= 0 then
        bad_argument(1, "find",
            "pattern characters need plain to be true: there are no patterns")
    end
    local hit = find(at, len - (i - 1), text, n)
    if hit < 0 then
        return nil
    end
    return i + hit, i + hit + n - 1
end

---Negative, zero or positive as a sorts before, with or after b. With `equal`,
---only whether the result is zero has a meaning.
local function order(a, b, name, arg, equal)
    local at, len, o, epoch = view(a, name)
    local text, n, p, p_epoch = data(b, name, arg)
    if equal and len ~= n then
        return 1
    elseif not holds(o, epoch, p, p_epoch) then
        return order(a, b, name, arg, equal)
    end
    return compare(at, len, text, n)
end

---@param other bufpool.Data
---@return boolean
function readers.equals(self, other)
    return order(self, other, "equals", 1, true) == 0
end

---As equals, in constant time for equal lengths.
---@param other bufpool.Data
---@return boolean
function readers.equals_ct(self, other)
    local at, len, o, epoch = view(self, "equals_ct")
    local text, n, p, p_epoch = data(other, "equals_ct", 1)
    if not holds(o, epoch, p, p_epoch) then
        return readers.equals_ct(self, other)
    end
    return len == n and equal_ct(at, text, n) ~= 0
end

return { methods = readers, order = order }
