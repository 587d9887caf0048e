--[[
Digests every regular file below a directory and finds the duplicates.

    luajit examples/digest.lua [--strings | --compare] [--check] [DIR]

Files are read into buffers of a pool, hashed where they lie, and compared
where they lie: their contents never become Lua strings. --strings does the
same job with io.read and Lua strings, --compare runs both, each in a process
of its own, and prints them side by side. --check compares every digest with
coreutils' sha256sum and fails on a difference. DIR defaults to /usr/share.
]]
local ffi = require "ffi"

-- From a source tree the module is beside us; otherwise it is installed.
local root = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/../"
package.path = root .. "lua/?.lua;" .. root .. "lua/?/init.lua;"
    .. package.path
package.cpath = root .. "build/lua/?.so;" .. package.cpath

local CHUNK = 256 * 1024    -- the most that is read at once

ffi.cdef [[
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
EVP_MD_CTX *EVP_MD_CTX_new(void);
const EVP_MD *EVP_sha256(void);
int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *);
int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t);
int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned *);

struct digest_timespec { long seconds, nanoseconds; };
int clock_gettime(int, struct digest_timespec *);
int isatty(int);
]]

-- SHA-256 ---------------------------------------------------------------------

local function load_crypto()
    local ok, lib
    for _, name in ipairs { "crypto", "libcrypto.so.3", "libcrypto.so.1.1" } do
        ok, lib = pcall(ffi.load, name)
        if ok then
            return lib
        end
    end
    error("OpenSSL's libcrypto is missing: " .. lib, 0)
end

local crypto = load_crypto()
local context = crypto.EVP_MD_CTX_new()     -- one for the whole run
local result = ffi.new "unsigned char[64]"

local function start()
    assert(crypto.EVP_DigestInit_ex(context, crypto.EVP_sha256(), nil) == 1)
end

-- `data` is a pointer or a Lua string.
local function update(data, n)
    assert(crypto.EVP_DigestUpdate(context, data, n) == 1)
end

local function finish()
    assert(crypto.EVP_DigestFinal_ex(context, result, nil) == 1)
    return ffi.string(result, 32)
end

local function hex(digest)
    return (digest:gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

-- Two ways to do the job ------------------------------------------------------

local peak_heap = 0

local function note_heap()
    peak_heap = math.max(peak_heap, collectgarbage "count" * 1024)
end

-- How much to read at once from a file that was `size` bytes long when it was
-- listed. It may have grown since, and files of /proc say 0.
local function chunk_size(size)
    return math.max(4096, math.min(size, CHUNK))
end

local strings = { name = "strings" }

function strings.digest(file, size)
    local total = 0
    start()
    while true do
        local data, err = file:read(chunk_size(size))
        note_heap()
        if err then
            return nil, err
        elseif not data then
            return finish(), total
        end
        update(data, #data)
        total = total + #data
    end
end

function strings.same(a, b)
    repeat
        local x, y = a:read(CHUNK), b:read(CHUNK)
        note_heap()
        if x ~= y then
            return false
        end
    until not x
    return true
end

function strings.hit_rate()
    return nil
end

local pooled = { name = "pooled" }

-- Called by pool:with, which releases the buffer however this ends.
local function digest_through(buf, file)
    local total = 0
    start()
    while true do
        local n, err = buf:readinto(1, file)
        note_heap()
        if not n then
            return nil, err
        elseif n == 0 then
            return finish(), total
        end
        -- A buffer never goes to C itself: its pointer does. It is valid while
        -- `buf` is, which our caller holds.
        update((buf:ref()), n)
        total = total + n
    end
end

function pooled.digest(file, size)
    return pooled.pool:with(chunk_size(size), digest_through, file)
end

-- The next piece of a file as a frozen object, of length 0 at its end. Freezing
-- moves nothing: the bytes stay where the kernel put them.
local function read_frozen(file)
    local buf = assert(pooled.pool:writer(CHUNK))
    local n = buf:readfrom(file, CHUNK)
    if not n then
        buf:release()
        return nil
    end
    return buf:freeze()
end

function pooled.same(a, b)
    while true do
        local x, y = read_frozen(a), read_frozen(b)
        local same = x and y and x == y
        local more = same and #x > 0
        note_heap()
        -- Without these two the collector would do it, later.
        if x then x:release() end
        if y then y:release() end
        if not more then
            return same or false
        end
    end
end

function pooled.hit_rate()
    local stats = pooled.pool:stats()
    return stats.hits / math.max(1, stats.hits + stats.misses)
end

-- Around it -------------------------------------------------------------------

local function complain(...)
    io.stderr:write("digest: ", table.concat({ ... }, ": "), "\n")
end

local terminal = ffi.C.isatty(2) == 1
local timespec = ffi.new "struct digest_timespec"

local function now()
    ffi.C.clock_gettime(1, timespec)    -- CLOCK_MONOTONIC
    return tonumber(timespec.seconds) + tonumber(timespec.nanoseconds) / 1e9
end

local shown = 0

local function progress(files, bytes)
    if terminal and now() - shown > 0.1 then
        shown = now()
        io.stderr:write(("\r%d files, %.1f MB\27[K"):format(files, bytes / 1e6))
    end
end

local function progress_done()
    if terminal then
        io.stderr:write "\r\27[K"
    end
end

local function quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Calls fn(kind, size, links, inode, name) for every regular file (kind "f")
-- and for every directory that cannot be read ("d") below `dir`. Lua cannot
-- list a directory; find can, and a NUL ends each name, which may hold any
-- other byte.
local function walk(dir, fn)
    local pipe = assert(io.popen("exec find -H " .. quote(dir)
        .. " '(' -type d '(' ! -readable -o ! -executable ')'"
        .. " -o -type f ')' -printf '%y %s %n %D:%i %p\\0'", "r"))
    local rest = ""
    for piece in function() return pipe:read(65536) end do
        local at = 1
        rest = rest .. piece
        for kind, size, links, inode, name, after in
            rest:gmatch "(%a) (%d+) (%d+) (%S+) ([^%z]*)%z()" do
            fn(kind, tonumber(size), tonumber(links), inode, name)
            at = after
        end
        rest = rest:sub(at)
    end
    pipe:close()
end

-- Groups the names whose digest and size are equal; `files` is a list of
-- { name, digest, size }. Empty files waste nothing and are left out, and so
-- are further hard links of one file.
local function candidates(files)
    local first, groups = {}, {}
    for _, file in ipairs(files) do
        if file.size > 0 and not file.linked then
            local key = file.digest .. file.size
            local group = first[key]
            if not group then
                first[key] = { file }
            else
                group[#group + 1] = file
                if #group == 2 then
                    groups[#groups + 1] = group
                end
            end
        end
    end
    return groups
end

local function same_contents(way, a, b)
    local x, y = io.open(a.name, "rb"), io.open(b.name, "rb")
    local same = x and y and way.same(x, y)
    if x then x:close() end
    if y then y:close() end
    return same
end

-- Equal digests of equal sizes are equal contents, until the day they are not.
local function confirm(way, groups, report)
    for _, group in ipairs(groups) do
        local copies = 0
        for i = 2, #group do
            if same_contents(way, group[1], group[i]) then
                copies = copies + 1
            else
                complain(group[i].name, "not what it was, or not " ..
                    group[1].name)
            end
        end
        if copies > 0 then
            report.sets = report.sets + 1
            report.copies = report.copies + copies
            report.wasted = report.wasted + copies * group[1].size
        end
    end
end

-- Peak resident memory of this process in bytes.
local function peak_resident()
    for line in io.lines "/proc/self/status" do
        local kilobytes = line:match "^VmHWM:%s*(%d+) kB"
        if kilobytes then
            return kilobytes * 1024
        end
    end
    return 0
end

-- Has sha256sum digest the same files, and returns how many digests agree and
-- how many do not. -z keeps it from rewriting odd names.
local function check(files)
    local list = os.tmpname()
    local out = assert(io.open(list, "wb"))
    local expected = {}
    for _, file in ipairs(files) do
        out:write(file.name, "\0")
        expected[file.name] = hex(file.digest)
    end
    out:close()
    local pipe = assert(io.popen("exec xargs -r -0 -a " .. quote(list)
        .. " sha256sum -z --", "r"))
    local agree = 0
    for digest, name in pipe:read "*a":gmatch "(%x+) [ *]([^%z]+)%z" do
        if expected[name] == digest then
            agree = agree + 1
            expected[name] = nil
        end
    end
    pipe:close()
    os.remove(list)
    for name in pairs(expected) do
        complain(name, "sha256sum does not agree")
    end
    return agree, #files - agree
end

local function run(way, dir, checking)
    local report = {
        files = 0, bytes = 0, empty = 0, unreadable = 0,
        sets = 0, copies = 0, wasted = 0,
    }
    local files, seen = {}, {}
    local began = now()
    walk(dir, function(kind, size, links, inode, name)
        local file, digest, total, err
        if kind == "f" then
            file, err = io.open(name, "rb")
        else
            err = name .. ": cannot be read or searched"
        end
        if file then
            digest, total = way.digest(file, size)
            file:close()
            err = not digest and name .. ": " .. tostring(total)
        end
        if not digest then
            report.unreadable = report.unreadable + 1
            complain(err)
            return
        end
        files[#files + 1] = {
            name = name, digest = digest, size = total,
            linked = links > 1 and seen[inode],
        }
        if links > 1 then
            seen[inode] = true
        end
        report.files = report.files + 1
        report.bytes = report.bytes + total
        report.empty = report.empty + (total == 0 and 1 or 0)
        progress(report.files, report.bytes)
    end)
    report.seconds = now() - began
    confirm(way, candidates(files), report)
    report.confirmed = now() - began - report.seconds
    report.hit_rate = way.hit_rate()
    report.heap = peak_heap
    report.resident = peak_resident()
    if checking then
        report.agree, report.differ = check(files)
    end
    progress_done()
    return report
end

-- The report ------------------------------------------------------------------

local function grouped(n)
    local text = ("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (text:gsub("^,", ""))
end

local function megabytes(n)
    return ("%.1f MB"):format(n / 1e6)
end

local rows = {
    { "files", function(r) return grouped(r.files) end },
    { "  of them empty", function(r) return grouped(r.empty) end },
    { "unreadable", function(r) return grouped(r.unreadable) end },
    { "bytes", function(r) return grouped(r.bytes) end },
    { "read and hashed in", function(r)
        return ("%.2f s"):format(r.seconds)
    end },
    { "speed", function(r)
        return ("%.1f MB/s"):format(r.bytes / 1e6 / math.max(r.seconds, 1e-9))
    end },
    { "duplicate sets", function(r) return grouped(r.sets) end },
    { "  redundant files", function(r) return grouped(r.copies) end },
    { "  bytes wasted", function(r) return grouped(r.wasted) end },
    { "  confirmed in", function(r) return ("%.2f s"):format(r.confirmed) end },
    { "pool hit rate", function(r)
        return r.hit_rate and ("%.2f %%"):format(r.hit_rate * 100) or "-"
    end },
    { "peak Lua heap", function(r) return megabytes(r.heap) end },
    { "peak resident memory", function(r) return megabytes(r.resident) end },
    { "sha256sum agrees on", function(r)
        return r.agree and grouped(r.agree)
    end },
    { "sha256sum differs on", function(r)
        return r.differ and grouped(r.differ)
    end },
}

-- One column for each of the reports.
local function print_reports(dir, names, reports)
    print(dir)
    if #names > 1 then
        print((("%-22s" .. ("%18s"):rep(#names)):format("", unpack(names))))
    end
    for _, row in ipairs(rows) do
        local cells = {}
        for i, report in ipairs(reports) do
            cells[i] = row[2](report)
        end
        if #cells > 0 then
            print((("%-22s" .. ("%18s"):rep(#cells)):format(row[1],
                unpack(cells))))
        end
    end
end

-- Runs this very script once more, so that one way's peaks are not the other's,
-- and returns its report.
local function run_apart(way, dir, checking)
    local words, first = {}, 0
    while arg[first - 1] do
        first = first - 1
    end
    for i = first, 0 do
        words[#words + 1] = quote(arg[i])
    end
    words[#words + 1] = "--raw --" .. way.name
    words[#words + 1] = checking and "--check" or ""
    words[#words + 1] = quote(dir)
    local pipe = assert(io.popen(table.concat(words, " "), "r"))
    local report = {}
    for key, value in pipe:read "*a":gmatch "(%S+)=(%S+)\n" do
        report[key] = tonumber(value)
    end
    pipe:close()
    return assert(report.files and report,
        "the run with " .. way.name .. " failed")
end

local function usage(message)
    complain(message)
    io.stderr:write("usage: digest.lua [--strings | --compare] [--check] ",
        "[DIR]\n")
    os.exit(2)
end

local options, dir = {}, nil
for _, word in ipairs(arg) do
    local option = word:match "^%-%-(.+)$"
    if not option then
        dir = dir and usage "more than one directory" or word
    elseif option:match "^strings$" or option:match "^pooled$"
        or option:match "^compare$" or option:match "^check$"
        or option:match "^raw$" then
        options[option] = true
    else
        usage("unknown option " .. word)
    end
end
dir = dir or "/usr/share"
-- A directory named like an option must not look like one to find.
dir = dir:match "^%-" and "./" .. dir or dir
local readable, why = io.open(dir)
if not readable then
    complain(why)
    os.exit(2)
end
readable:close()

local names, reports = {}, {}
if options.compare then
    -- Whoever came first would wait for the disk.
    os.execute("find -H " .. quote(dir)
        .. " -type f -exec cat {} + >/dev/null 2>&1")
    for i, way in ipairs { strings, pooled } do
        names[i] = way.name
        reports[i] = run_apart(way, dir, options.check)
    end
else
    local way = options.strings and strings or pooled
    if way == pooled then
        pooled.pool = require "bufpool".new()
    end
    names[1], reports[1] = way.name, run(way, dir, options.check)
end

if options.raw then
    for key, value in pairs(reports[1]) do
        print(("%s=%.17g"):format(key, value))
    end
else
    print_reports(dir, names, reports)
end
for _, report in ipairs(reports) do
    if (report.differ or 0) > 0 then
        os.exit(1)
    end
end
