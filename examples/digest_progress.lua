--[[
How far examples/digest.lua has come, on standard error. On a terminal a line
that is drawn anew ten times a second, with a bar, the rate and the time that
remains; elsewhere a line when a phase ends, and one each ten seconds.
]]
local ffi = require "ffi"

ffi.cdef [[
struct digest_timespec { long seconds, nanoseconds; };
struct digest_winsize { unsigned short rows, columns, width, height; };
int clock_gettime(int, struct digest_timespec *);
int isatty(int);
int ioctl(int, unsigned long, ...);
]]

local CLOCK_MONOTONIC = 1
local TIOCGWINSZ = 0x5413
local FILE_COSTS = 65536    -- opening a file takes as long as so many bytes

local progress = {}
progress.__index = progress

local terminal = ffi.C.isatty(2) == 1
local timespec = ffi.new "struct digest_timespec"
local winsize = ffi.new "struct digest_winsize"

function progress.now()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, timespec)
    return tonumber(timespec.seconds) + tonumber(timespec.nanoseconds) / 1e9
end

-- 1234567 as "1,234,567".
function progress.grouped(n)
    local text = ("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (text:gsub("^,", ""))
end

function progress.megabytes(n)
    return ("%.1f MB"):format(n / 1e6)
end

local now, grouped, megabytes =
    progress.now, progress.grouped, progress.megabytes

local function columns()
    if ffi.C.ioctl(2, TIOCGWINSZ, winsize) == 0 and winsize.columns > 0 then
        return winsize.columns
    end
    return 80
end

local function minutes(seconds)
    return ("%d:%02d"):format(seconds / 60, seconds % 60)
end

-- Begins a phase. The totals are nil where they are not known.
function progress.phase(title, files, bytes)
    return setmetatable({
        title = title, total_files = files, total_bytes = bytes,
        files = 0, bytes = 0, began = now(), drawn = now(),
    }, progress)
end

-- Which part of the work is done, 0 to 1, or nil.
function progress:part()
    if self.total_files then
        local all = self.total_bytes + self.total_files * FILE_COSTS
        local done = self.bytes + self.files * FILE_COSTS
        return all > 0 and math.min(done / all, 1) or 1
    end
end

-- The bar takes what the words leave of the line.
function progress:line(width)
    local seconds = now() - self.began
    local files = grouped(self.files)
    local part = self:part()
    if not part then
        return ("%s  %s files, %s, %s"):format(self.title, files,
            megabytes(self.bytes), minutes(seconds))
    end
    local left = part > 0 and minutes(seconds / part - seconds) or "?"
    local total = grouped(self.total_files)
    local words = ("%3d %%  %11s/s  %5s left  %" .. #total .. "s of %s files")
        :format(part * 100, megabytes(self.bytes / math.max(seconds, 1e-3)),
        left, files, total)
    local room = math.min(width - #self.title - #words - 6, 40)
    local bar = ""
    if room >= 8 then
        local full = math.floor(room * part)
        bar = "[" .. ("#"):rep(full) .. ("."):rep(room - full) .. "] "
    end
    return self.title .. "  " .. bar .. words
end

-- So many more files and bytes are done.
function progress:advance(files, bytes)
    self.files = self.files + files
    self.bytes = self.bytes + bytes
    local time = now()
    if time - self.drawn >= (terminal and 0.1 or 10) then
        self.drawn = time
        if terminal then
            local width = columns()
            io.stderr:write("\r", self:line(width):sub(1, width - 1), "\27[K")
        else
            io.stderr:write("digest: ", self:line(0), "\n")
        end
    end
end

-- Ends the phase and returns the seconds that it took.
function progress:finish()
    local seconds = now() - self.began
    if terminal then
        io.stderr:write "\r\27[K"
    end
    io.stderr:write(("digest: %s: %s files, %s in %.2f s\n"):format(self.title,
        grouped(self.files), megabytes(self.bytes), seconds))
    return seconds
end

-- A message, its parts with ": " between them, which the bar makes room for.
function progress.complain(...)
    if terminal then
        io.stderr:write "\r\27[K"
    end
    io.stderr:write("digest: ", table.concat({ ... }, ": "), "\n")
end

return progress
