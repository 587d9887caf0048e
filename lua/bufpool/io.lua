-- Reading into buffers and writing from them, without Lua strings in between.
--
-- A read raises the mark to the end of what it asked for, and there it stays
-- whatever comes back: a read that failed or ended early may have written
-- more than it says (one that faulted, or one past the end of a file that is
-- read in blocks).

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"

local type, tonumber = type, tonumber
local io_type = io.type
local floor, max = math.floor, math.max
local size, position, range = check.size, check.position, check.range
local live, view, calls = core.live, core.view, core.ffi_calls
local make_room, raise_mark = core.make_room, core.raise_mark

local FD_MAX = 2 ^ 31 - 1
local new_text = ffi.typeof("char[?]")

-- What to read from or write to: an open file, or a descriptor's number.
local function target(v, name, arg)
    local state = io_type(v)
    if state == "file" then
        return v
    elseif state then
        check.bad_argument(arg, name, "attempt to use a closed file")
    end
    local fd = type(v) == "number" and v or check.integer(v)
    if not fd then
        check.bad_argument(arg, name, "file or descriptor expected, got "
            .. type(v))
    elseif not (fd >= 0 and fd <= FD_MAX and fd == floor(fd)) then
        check.bad_argument(arg, name,
            ("%.14g is no file descriptor"):format(fd))
    end
    return fd
end

local function result(n)
    if n >= 0 then
        return n
    end
    local text = new_text(160)
    calls.message(-n, text, 160)
    return nil, ffi.string(text), -n
end

local function read(file, at, n)
    if type(file) == "number" then
        return tonumber(calls.read(file, at, n))
    end
    return tonumber(calls.fread(file, at, n))
end

---@class bufpool.FileReader : bufpool.FileWriter
local readers = {}
---@class bufpool.FileWriter
local writers = {}

-- A default read is worth its system call.
local LEAST = 4096

---Appends up to n bytes; by default what there is room for, 4096 at least.
---@param file bufpool.File
---@param n? bufpool.Integer
---@return integer? bytes 0 at the end
---@return string? message
---@return integer? errno
function readers.readfrom(self, file, n)
    local b = live(self, "readfrom")
    file = target(file, "readfrom", 1)
    local len = tonumber(b.len)
    if check.absent(n) then
        n = max(tonumber(b.capacity) - len, LEAST)
    else
        n = size(n, "readfrom", 2)
    end
    make_room(self, b, n, "readfrom")
    local got = read(file, b.at + len, n)
    if got > 0 then
        b.len = len + got
    end
    return result(got)
end

---Overwrites up to n bytes from i on; by default all. Never grows.
---@param i bufpool.Integer
---@param file bufpool.File
---@param n? bufpool.Integer
---@return integer? bytes 0 at the end
---@return string? message
---@return integer? errno
function readers.readinto(self, i, file, n)
    local b = live(self, "readinto")
    local len = tonumber(b.len)
    file = target(file, "readinto", 2)
    if check.absent(n) then
        i = position(i, len, 0, "readinto", 1)
        n = len - i + 1
    else
        n = size(n, "readinto", 3)
        i = position(i, len, n, "readinto", 1)
    end
    raise_mark(b, i + n - 1)
    return result(read(file, b.at + (i - 1), n))
end

---Writes a range of the bytes; consumes nothing.
---@param file bufpool.File
---@param i? bufpool.Integer
---@param j? bufpool.Integer
---@return integer? bytes written, possibly fewer
---@return string? message
---@return integer? errno
function writers.writeto(self, file, i, j)
    local at, len = view(self, "writeto")
    file = target(file, "writeto", 1)
    i, j = range(i, j, len, "writeto", 2)
    if i > j then
        return 0
    end
    at = at + (i - 1)
    if type(file) == "number" then
        return result(tonumber(calls.write(file, at, j - i + 1)))
    end
    return result(tonumber(calls.fwrite(file, at, j - i + 1)))
end

core.file_readers, core.file_writers = readers, writers

return true
