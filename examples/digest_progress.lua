-- How far examples/digest.lua has come, on standard error: on a terminal a line
-- that is drawn anew ten times a second, elsewhere one each ten seconds.
local ffi = require "ffi"

ffi.cdef [[
struct digest_timespec { long seconds, nanoseconds; };
int clock_gettime(int, struct digest_timespec *);
int isatty(int);
]]

local CLOCK_MONOTONIC = 1
local FILE_COSTS = 65536    -- opening a file takes as long as so many bytes
local WIDTH = 79            -- of the line

local progress = {}
progress.__index = progress

local terminal = ffi.C.isatty(2) == 1
local timespec = ffi.new "struct digest_timespec"

local function now()
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

local grouped, megabytes = progress.grouped, progress.megabytes

-- Begins a phase. The totals are nil where they are not known.
function progress.phase(title, files, bytes)
    return setmetatable({
        title = title, total_files = files, total_bytes = bytes,
        files = 0, bytes = 0, began = now(), drawn = now(),
    }, progress)
end

-- The bar takes what the words leave of the line.
function progress:line()
    local files, seconds = grouped(self.files), now() - self.began
    if not self.total_files then
        return ("%s  %s files, %s"):format(self.title, files,
            megabytes(self.bytes))
    end
    local all = self.total_bytes + self.total_files * FILE_COSTS
    local done = self.bytes + self.files * FILE_COSTS
    local part = all > 0 and math.min(done / all, 1) or 1
    local left = part > 0 and seconds / part - seconds or 0
    local words = ("%3d %%  %s/s  %d:%02d left  %s of %s files"):format(
        part * 100, megabytes(self.bytes / math.max(seconds, 1e-3)),
        left / 60, left % 60, files, grouped(self.total_files))
    local room = math.max(WIDTH - #self.title - #words - 5, 0)
    local full = math.floor(room * part)
    return self.title .. " [" .. ("#"):rep(full) .. ("."):rep(room - full)
        .. "] " .. words
end

-- So many more files and bytes are done.
function progress:advance(files, bytes)
    self.files = self.files + files
    self.bytes = self.bytes + bytes
    local time = now()
    if time - self.drawn >= (terminal and 0.1 or 10) then
        self.drawn = time
        io.stderr:write(terminal and "\r" or "digest: ", self:line(),
            terminal and "\27[K" or "\n")
    end
end

-- A message, its parts with ": " between them, which the bar makes room for.
function progress.complain(...)
    io.stderr:write(terminal and "\r\27[K" or "", "digest: ",
        table.concat({ ... }, ": "), "\n")
end

-- Ends the phase and returns the seconds that it took.
function progress:finish()
    local seconds = now() - self.began
    progress.complain(self.title, ("%s files, %s in %.2f s"):format(
        grouped(self.files), megabytes(self.bytes), seconds))
    return seconds
end

return progress
