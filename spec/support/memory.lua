-- Searches the writable memory of this process. Required as "support.memory".
--
-- A needle is made byte by byte and lives in one place, its holder, which is
-- not searched; so whatever else is found is a copy that somebody made. It
-- never becomes a Lua string: that would be such a copy.
local ffi = require "ffi"

ffi.cdef [[
void *memmem(const void *, size_t, const void *, size_t);
void *mmap(void *, size_t, int, int, int, long);
int munmap(void *, size_t);
int open(const char *, int, ...);
int close(int);
ssize_t pread(int, void *, size_t, long);
]]

local C = ffi.C
local memory = { needle_size = 32 }

local PAGE = 65536          -- the largest that we meet
local WINDOW = 4 * 1048576
local PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS = 3, 34

local function map(size)
    local p = C.mmap(nil, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0)
    assert(ffi.cast("intptr_t", p) ~= -1, "no memory to search through")
    return ffi.cast("uint8_t *", p)
end

local holder = map(PAGE)    -- the needle
local window = map(WINDOW)  -- what is being searched

local function address(p)
    return tonumber(ffi.cast("uintptr_t", p))
end

local own = {
    { address(holder), address(holder) + PAGE },
    { address(window), address(window) + WINDOW },
}

-- A new needle, in place of the one before it. Returns a pointer to its
-- memory.needle_size bytes.
function memory.new_needle()
    for i = 0, memory.needle_size - 1 do
        -- Never 0, which memory is full of.
        holder[i] = math.random(1, 255)
    end
    return holder
end

-- A larger mapping that only may be read is a table, most of it never used.
local FROZEN_MOST = 16 * 1048576

-- The mappings that are writable, or were until their buffer was frozen, but
-- for our own, as a list of { first, last + 1 }. One of ours may be listed as a
-- part of a larger mapping.
local function writable()
    local list = {}
    for line in io.lines "/proc/self/maps" do
        local first, past = line:match "^(%x+)%-(%x+) rw"
        if not first then
            first, past = line:match "^(%x+)%-(%x+) r%-%-p %x+ 00:00 0%s*$"
            if first and tonumber(past, 16) - tonumber(first, 16)
                > FROZEN_MOST then
                first = nil
            end
        end
        if first then
            list[#list + 1] = { tonumber(first, 16), tonumber(past, 16) }
        end
    end
    for _, hole in ipairs(own) do
        for i = #list, 1, -1 do
            local r = list[i]
            if r[1] < hole[2] and hole[1] < r[2] then
                table.remove(list, i)
                if r[1] < hole[1] then
                    list[#list + 1] = { r[1], hole[1] }
                end
                if hole[2] < r[2] then
                    list[#list + 1] = { hole[2], r[2] }
                end
            end
        end
    end
    return list
end

local function count_in_window(n)
    local found, at, left = 0, window, n
    while true do
        local p = C.memmem(at, left, holder, memory.needle_size)
        if p == nil then
            return found
        end
        found = found + 1
        p = ffi.cast("uint8_t *", p) + 1
        left = left - (address(p) - address(at))
        at = p
    end
end

-- How many copies of the needle all writable memory holds, and how many bytes
-- were searched.
function memory.copies()
    local ranges = writable()
    local fd = C.open("/proc/self/mem", 0)
    assert(fd >= 0, "/proc/self/mem cannot be read")
    local overlap = memory.needle_size - 1
    local found, searched = 0, 0
    for _, range in ipairs(ranges) do
        local at = range[1]
        while at < range[2] do
            local n = tonumber(C.pread(fd, window,
                math.min(WINDOW, range[2] - at), at))
            if n <= 0 then
                break   -- a device, or gone since it was listed
            end
            found = found + count_in_window(n)
            searched = searched + n
            at = at + n
            if at < range[2] and n > overlap then
                at = at - overlap
            end
        end
    end
    C.close(fd)
    ffi.fill(window, WINDOW)
    return found, searched
end

return memory
