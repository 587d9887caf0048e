--[[
Digests every regular file below a directory and finds the duplicates.

    luajit examples/digest.lua [OPTION...] [DIR]

Files are read into buffers of a pool, hashed where they lie, and compared
where they lie: their contents never become Lua strings. --strings does the
same job with io.read and Lua strings, --compare runs both, each in a process
of its own, and prints them side by side. --check compares every digest with
coreutils' sha256sum and fails on a difference. --help tells the rest.
]]
-- From a source tree the module is beside us; otherwise it is installed.
local root = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/../"
package.path = root .. "examples/?.lua;" .. root .. "lua/?.lua;"
    .. root .. "lua/?/init.lua;" .. package.path
package.cpath = root .. "build/lua/?.so;" .. package.cpath

local find = require "digest_find"
local progress = require "digest_progress"
local report = require "digest_report"
local sha256 = require "digest_sha256"

local complain, quote = progress.complain, find.quote

local CHUNK = 256 * 1024    -- the most that is read at once

-- Two ways to do the job ------------------------------------------------------

local peak_heap = 0
local phase                 -- of progress: what is being done

-- After each piece that was read.
local function note(bytes)
    peak_heap = math.max(peak_heap, collectgarbage "count" * 1024)
    phase:advance(0, bytes)
end

-- How much to read at once from a file of `size` bytes.
local function chunk_size(size)
    return math.max(4096, math.min(size, CHUNK))
end

-- Both ways have digest(file, size), which gives up when the file is longer
-- than `size`, for some files never end, and same(a, b).
local LONGER = "longer than when it was listed"

local strings = { name = "strings" }

function strings.digest(file, size)
    local total = 0
    sha256.start()
    while total <= size do
        local data, err = file:read(chunk_size(size))
        if err then
            return nil, err
        elseif not data then
            return sha256.finish(), total
        end
        note(#data)
        sha256.update(data, #data)
        total = total + #data
    end
    return nil, LONGER
end

function strings.same(a, b)
    repeat
        local x, y = a:read(CHUNK), b:read(CHUNK)
        if x ~= y then
            return false
        end
        note(x and #x + #y or 0)
    until not x
    return true
end

function strings.hit_rate()
    return nil
end

local pooled = { name = "pooled" }

-- Called by pool:with, which releases the buffer however this ends.
local function digest_through(buf, file, size)
    local total = 0
    sha256.start()
    while total <= size do
        local n, err = buf:readinto(1, file)
        if not n then
            return nil, err
        elseif n == 0 then
            return sha256.finish(), total
        end
        note(n)
        -- A buffer never goes to C itself: its pointer does. It is valid while
        -- `buf` is, which our caller holds.
        sha256.update((buf:ref()), n)
        total = total + n
    end
    return nil, LONGER
end

function pooled.digest(file, size)
    return pooled.pool:with(chunk_size(size), digest_through, file, size)
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
        note(more and #x + #y or 0)
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

-- Digests the files that are listed, and returns a list of those that could be.
local function digest(way, files, skipped)
    local digested = {}
    for _, file in ipairs(files) do
        local stream, err = io.open(file.name, "rb")
        local reason = "unreadable"
        if stream then
            local total
            file.digest, total = way.digest(stream, file.size)
            stream:close()
            if not file.digest then
                err = file.name .. ": " .. total
                reason = total == LONGER and "changed" or reason
            elseif total < file.size then
                err = file.name .. ": shorter than when it was listed"
                reason = "changed"
            end
        end
        if err then
            complain(err)
            skipped[reason] = skipped[reason] + 1
        else
            digested[#digested + 1] = file
        end
        phase:advance(1, 0)
    end
    return digested
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
-- Returns a list of { size, wasted, names }, those that waste most first.
local function confirm(way, groups)
    local sets, files, bytes = {}, 0, 0
    for _, group in ipairs(groups) do
        files = files + #group - 1
        bytes = bytes + 2 * (#group - 1) * group[1].size
    end
    phase = progress.phase("compare", files, bytes)
    for _, group in ipairs(groups) do
        local set = { size = group[1].size, names = { group[1].name } }
        for i = 2, #group do
            if same_contents(way, group[1], group[i]) then
                set.names[#set.names + 1] = group[i].name
            else
                complain(group[i].name, "not what it was, or not " ..
                    group[1].name)
            end
            phase:advance(1, 0)
        end
        set.wasted = set.size * (#set.names - 1)
        if set.wasted > 0 then
            sets[#sets + 1] = set
        end
    end
    table.sort(sets, function(a, b)
        if a.wasted ~= b.wasted then
            return a.wasted > b.wasted
        end
        return a.names[1] < b.names[1]
    end)
    return sets, phase:finish()
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

-- Returns the figures and the sets of duplicates.
local function run(way, dir, checking)
    local figures = { empty = 0, bytes = 0, copies = 0, wasted = 0 }
    for _, reason in ipairs(find.REASONS) do
        figures[reason] = 0
    end
    local files, bytes = find.list(dir, figures)
    phase = progress.phase("read and hash", #files, bytes)
    files = digest(way, files, figures)
    figures.seconds = phase:finish()
    figures.files = #files
    for _, file in ipairs(files) do
        figures.bytes = figures.bytes + file.size
        figures.empty = figures.empty + (file.size == 0 and 1 or 0)
    end
    figures.skipped = 0
    for _, reason in ipairs(find.REASONS) do
        figures.skipped = figures.skipped + figures[reason]
    end
    local sets
    sets, figures.confirmed = confirm(way, candidates(files))
    figures.sets = #sets
    for _, set in ipairs(sets) do
        figures.copies = figures.copies + #set.names - 1
        figures.wasted = figures.wasted + set.wasted
    end
    figures.hit_rate = way.hit_rate()
    figures.heap = peak_heap
    figures.resident = peak_resident()
    if checking then
        figures.agree, figures.differ = sha256.check(files)
    end
    return figures, sets
end

-- Runs this very script once more, so that one way's peaks are not the other's,
-- and returns its figures.
local function run_apart(way, dir, checking)
    local words, first = {}, 0
    while arg[first - 1] do
        first = first - 1
    end
    for i = first, 0 do
        words[#words + 1] = quote(arg[i])
    end
    words[#words + 1] = "--figures --" .. way.name
    words[#words + 1] = checking and "--check" or ""
    words[#words + 1] = "-- " .. quote(dir)
    local pipe = assert(io.popen(table.concat(words, " "), "r"))
    local figures = {}
    for key, value in pipe:read "*a":gmatch "(%S+)=(%S+)\n" do
        figures[key] = tonumber(value)
    end
    pipe:close()
    return assert(figures.files and figures,
        "the run with " .. way.name .. " failed")
end

-- The command line ------------------------------------------------------------

local HELP = [[
usage: digest.lua [OPTION...] [DIR]

Digests every regular file below DIR (/usr/share) through a pool of buffers,
and finds the duplicates. Not followed are symbolic links and other file
systems.

  --check     has sha256sum digest the files too; status 1 when it differs
  --all       lists all duplicates, not only of the ten largest sets
  --json      prints figures and all duplicates as JSON; a byte of a name that
              is no UTF-8 becomes one of U+DC80 to U+DCFF
  --strings   does the job with Lua strings instead
  --compare   does it both ways and prints the figures side by side
  --help      prints this

Progress and messages go to standard error.
]]

local function usage(message)
    complain(message)
    io.stderr:write "digest.lua --help lists the options\n"
    os.exit(2)
end

local OPTIONS = { check = true, all = true, json = true, strings = true,
    compare = true, help = true, pooled = true, figures = true }

local function parse(words)
    local options, dir, no_more = {}, nil, false
    for _, word in ipairs(words) do
        local option = not no_more and word:match "^%-%-(.*)$"
        if option == "" then
            no_more = true
        elseif option then
            options[option] = OPTIONS[option]
                or usage("unknown option " .. word)
        else
            dir = dir and usage "more than one directory" or word
        end
    end
    if options.compare and (options.json or options.all) then
        usage "--compare prints figures only: not with --json or --all"
    end
    -- A directory named like an option must not look like one to find.
    return options, (dir or "/usr/share"):gsub("^%-", "./-")
end

local options, dir = parse(arg)
if options.help then
    io.write(HELP)
    os.exit(0)
end
if not find.exists(dir) then
    os.exit(2)
end

local names, reports, sets = {}, {}, nil
if options.compare then
    complain "a run that does not count: whoever is first waits for the disk"
    run_apart(pooled, dir, false)
    for i, way in ipairs { strings, pooled } do
        complain(way.name)
        names[i] = way.name
        reports[i] = run_apart(way, dir, options.check)
    end
else
    local way = options.strings and strings or pooled
    if way == pooled then
        pooled.pool = require "bufpool".new()
    end
    names[1] = way.name
    reports[1], sets = run(way, dir, options.check)
end

if options.figures then
    for key, value in pairs(reports[1]) do
        print(("%s=%.17g"):format(key, value))
    end
elseif options.json then
    report.print_json(dir, reports[1], sets)
else
    report.print_duplicates(sets or {}, options.all)
    report.print(dir, names, reports)
end
for _, figures in ipairs(reports) do
    if (figures.differ or 0) > 0 then
        os.exit(1)
    end
end
