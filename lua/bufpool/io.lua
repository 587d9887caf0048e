-- Reading into buffers and writing from them, without Lua strings in between.
--
-- A read raises the mark to the end of the bytes it asked for, however many
-- come back. A read that failed, or ended early, may have written more bytes
-- than it reports: after a fault, or where a file is read in blocks.

local ffi = require "ffi"
local check = require "bufpool.check"
local core = require "bufpool.core"
local calls = require "bufpool.calls"
local failure = require "bufpool.failure"
local object = require "bufpool.object"
local space = require "bufpool.space"

local type, tonumber, tostring = type, tonumber, tostring
local io_type = io.type
local format = string.format
local floor, max, min = math.floor, math.max, math.min
local size, position, range = check.size, check.position, check.range
local live, look, room = object.live, object.look, space.room
local data, parts_t = object.data, ffi.typeof("struct bufpool_part[?]")
local read_fd, read_file = calls.read, calls.fread
local write_fd, write_file = calls.write, calls.fwrite
local write_list_fd, write_list_file = calls.writev, calls.fwritev
local rest_fd, rest_file = calls.rest, calls.frest

local EBADF, INT_MAX = core.constants.EBADF, core.constants.INT_MAX
local STALE = core.constants.BYTES_STALE
local PARTS_MAX = core.constants.PARTS_MAX
local CLOSED = "attempt to use a closed file"

-- An open file, or the number of a descriptor, to read from or write to.
-- Numbers are tried first: io.type is a C function, which no trace holds.
local function target(v, name, arg)
    local fd = type(v) == "number" and v or check.integer(v)
    if fd then
        if not (fd >= 0 and fd <= INT_MAX and fd == floor(fd)) then
            check.bad_argument(arg, name,
                format("%.14g is no file descriptor", fd))
        end
        return fd
    end
    local state = io_type(v)
    if state ~= "file" then
        check.bad_argument(arg, name,
            state and CLOSED or "file or descriptor expected, got " .. type(v))
    end
    return v
end

local function result(n)
    if n >= 0 then
        return n
    end
    return nil, failure.message(-n), -n
end

-- A finalizer may have closed the file since target looked.
local function still_open(got, file, name, arg)
    if got == -EBADF and io_type(file) ~= "file" then
        check.bad_argument(arg, name, CLOSED)
    end
    return got
end

local function read(b, epoch, file, i, n, name, arg)
    if type(file) == "number" then
        return read_fd(b, epoch, file, i, n)
    end
    return still_open(read_file(b, epoch, file, i, n), file, name, arg)
end

local function write(o, epoch, file, i, n)
    if type(file) == "number" then
        return write_fd(o, epoch, file, i, n)
    end
    return still_open(write_file(o, epoch, file, i, n), file, "writeto", 1)
end

local readers = {}
local writers = {}

-- The fewest bytes that readfrom asks for by itself, to be worth a system call.
local LEAST = 4096

-- From so many bytes on, wiping them costs more than asking for a file's size.
local FAR = 65536

-- How many bytes to ask for where there is room for n: the rest of the file and
-- up to LEAST bytes more, because all that is asked for is wiped later. The
-- extra is for the C library, which reads whole blocks straight into our
-- memory. (If the file grows meanwhile, the next call reads that.)
local function wanted(file, n)
    if n <= FAR then
        return n
    end
    local rest
    if type(file) == "number" then
        rest = rest_fd(file)
    else
        rest = rest_file(file)
    end
    return rest < 0 and n or min(n, rest + LEAST - rest % LEAST)
end

function readers.readfrom(self, file, n)
    local free = live(self, "readfrom")
    free = tonumber(free.capacity) - tonumber(free.len)
    local from = target(file, "readfrom", 1)
    local count = check.absent(n) and wanted(from, max(free, LEAST))
        or size(n, "readfrom", 2)
    local b, epoch, _, stop = room(self, count, "readfrom")
    local got = read(b, epoch, from, tonumber(stop) - count, count, "readfrom",
        1)
    if got == STALE then
        return readers.readfrom(self, file, n)
    end
    return result(got)
end

function readers.readinto(self, i, file, n)
    local b, epoch = live(self, "readinto")
    local len = tonumber(b.len)
    local from = target(file, "readinto", 2)
    local count, start
    if check.absent(n) then
        start = position(i, len, 0, "readinto", 1)
        count = len - start + 1
    else
        count = size(n, "readinto", 3)
        start = position(i, len, count, "readinto", 1)
    end
    local got = read(b, epoch, from, start - 1, count, "readinto", 2)
    if got == STALE then
        return readers.readinto(self, i, file, n)
    end
    return result(got)
end

function writers.writeto(self, file, i, j)
    local len, o, epoch = look(self, "writeto")
    local to = target(file, "writeto", 1)
    local first, last = range(i, j, len, "writeto", 2)
    local n = last - first + 1
    if n < 1 then
        return 0
    end
    local put = write(o, epoch, to, first - 1, n)
    if put == STALE then
        return writers.writeto(self, file, i, j)
    end
    return result(put)
end

-- Writes what the count items have, which are strings or objects.
local function write_list(file, items, count)
    local parts = parts_t(count)
    for k = 1, count do
        local text, n, o, epoch = data(items[k], "writev", 2)
        local part = parts[k - 1]
        part.at, part.len, part.source, part.epoch = text, n, o, epoch or 0
    end
    local put
    if type(file) == "number" then
        put = write_list_fd(file, parts, count)
    else
        put = still_open(write_list_file(file, parts, count), file, "writev", 1)
    end
    if put == STALE then
        return write_list(file, items, count)
    end
    return result(put)
end

local function writev(file, list)
    if type(list) ~= "table" then
        check.bad_argument(2, "writev", "table expected, got "
            .. (object.type(list) or type(list)))
    elseif #list > PARTS_MAX then
        check.bad_argument(2, "writev", format("more than %d items",
            PARTS_MAX))
    end
    -- The list may change meanwhile, and strings that nobody holds would go.
    local items, count = {}, #list
    for k = 1, count do
        local v = list[k]
        if type(v) == "number" then
            v = tostring(v)
        elseif type(v) ~= "string" and object.identify(v) == nil then
            check.bad_argument(2, "writev", format("item %d: string, number, "
                .. "buffer or frozen expected, got %s", k, type(v)))
        end
        items[k] = v
    end
    return write_list(target(file, "writev", 1), items, count)
end

return { readers = readers, writers = writers, writev = writev }
