--[[
Digests every regular file below a directory and finds the duplicates.

    luajit examples/digest.lua [OPTION...] [DIR]

Files are read into buffers of a pool, hashed where they lie, and compared
where they lie: their contents never become Lua strings. --compare does the job
with Lua strings as well, and prints the figures of both side by side. --check
compares every digest with coreutils' sha256sum and fails on a difference.
--help tells the rest.
]]
-- From a source tree the module is beside us; otherwise it is installed.
local root = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/../"
package.path = root .. "examples/?.lua;" .. root .. "lua/?.lua;"
    .. root .. "lua/?/init.lua;" .. package.path
package.cpath = root .. "build/lua/?.so;" .. package.cpath

local progress = require "digest_progress"
local sha256 = require "digest_sha256"
local shell = require "digest_shell"

local complain, quote = progress.complain, shell.quote
local grouped, megabytes = progress.grouped, progress.megabytes

local CHUNK = 256 * 1024    -- the most that is read at once
local LISTED = 10           -- sets, and names of a set, without --all

local pool = require("bufpool").new()
local with_strings = false  -- the job is done with Lua strings, to compare
local peak_heap = 0
local phase                 -- of progress: what is being done

-- After each piece that was read.
local function note(bytes)
    peak_heap = math.max(peak_heap, collectgarbage "count" * 1024)
    phase:advance(0, bytes)
end

-- Some files never end.
local LONGER = "longer than when it was listed"

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

local function digest_strings(file, size, most)
    local total = 0
    sha256.start()
    while total <= size do
        local piece, err = file:read(most)
        if err then
            return nil, err
        elseif not piece then
            return sha256.finish(), total
        end
        note(#piece)
        sha256.update(piece, #piece)
        total = total + #piece
    end
    return nil, LONGER
end

-- The next piece of a file as a frozen object, of length 0 at its end. Freezing
-- moves nothing: the bytes stay where the kernel put them.
local function read_frozen(file)
    local buf = assert(pool:writer(CHUNK))
    if buf:readfrom(file, CHUNK) then
        return buf:freeze()
    end
    buf:release()
end

local function read_string(file)
    return file:read(CHUNK) or ""
end

local function same(a, b)
    local read = with_strings and read_string or read_frozen
    while true do
        local x, y = read(a), read(b)
        local equal = x and y and x == y
        local more = equal and #x > 0
        note(more and #x + #y or 0)
        -- Without these two the collector would do it, later.
        if x and not with_strings then x:release() end
        if y and not with_strings then y:release() end
        if not more then
            return equal or false
        end
    end
end

-- The regular files of one file system below `dir`, as a list of { name, size,
-- linked }; linked: a further name of a file in the list. nil without a `dir`.
local function list(dir, figures)
    local files, seen, found = {}, {}, false
    phase = progress.phase "find"
    for record in shell.records("find -H " .. quote(dir)
        .. " -xdev -printf '%y %s %n %i %p\\0'") do
        local kind, size, links, inode, name =
            record:match "^(%a) (%d+) (%d+) (%d+) (.*)$"
        found = true
        if kind == "f" then
            local linked = links ~= "1" and seen[inode]
            seen[inode] = links ~= "1" or nil
            files[#files + 1] = { name = name, size = tonumber(size),
                linked = linked }
            phase:advance(1, tonumber(size))
        elseif kind ~= "d" then
            local key = kind == "l" and "links" or "special"
            figures[key] = figures[key] + 1
        end
    end
    phase:finish()
    return found and files or nil, phase.bytes
end

-- Digests a file. Returns why it could not, a key of figures, and a message.
local function digest(file)
    local stream, err = io.open(file.name, "rb")
    if not stream then
        return "unreadable", err
    end
    local most = math.max(4096, math.min(file.size, CHUNK))
    local total
    if with_strings then
        file.digest, total = digest_strings(stream, file.size, most)
    else
        file.digest, total = pool:with(most, digest_through, stream, file.size)
    end
    stream:close()
    if not file.digest then
        return total == LONGER and "changed" or "unreadable",
            file.name .. ": " .. total
    elseif total < file.size then
        return "changed", file.name .. ": shorter than when it was listed"
    end
end

-- Groups the files whose digest and size are equal. Empty files waste nothing
-- and are left out, and so are further hard links of one file.
local function candidates(files)
    local first, groups = {}, {}
    for _, file in ipairs(files) do
        if file.size > 0 and not file.linked then
            local key = file.digest .. file.size
            local group = first[key] or {}
            first[key] = group
            group[#group + 1] = file
            if #group == 2 then
                groups[#groups + 1] = group
            end
        end
    end
    return groups
end

local function same_contents(a, b)
    local x, y = io.open(a.name, "rb"), io.open(b.name, "rb")
    local equal = x and y and same(x, y)
    if x then x:close() end
    if y then y:close() end
    return equal
end

-- Equal digests of equal sizes are equal contents, until the day they are not.
-- Returns a list of { size, wasted, names }, those that waste most first.
local function confirm(groups)
    local sets, files, bytes = {}, 0, 0
    for _, group in ipairs(groups) do
        files = files + #group - 1
        bytes = bytes + 2 * (#group - 1) * group[1].size
    end
    phase = progress.phase("compare", files, bytes)
    for _, group in ipairs(groups) do
        local size, names = group[1].size, { group[1].name }
        for i = 2, #group do
            if same_contents(group[1], group[i]) then
                names[#names + 1] = group[i].name
            else
                complain(group[i].name, "not what it was, or not " .. names[1])
            end
            phase:advance(1, 0)
        end
        if #names > 1 then
            sets[#sets + 1] = { size = size, names = names,
                wasted = size * (#names - 1) }
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
end

-- Returns the figures and the sets of duplicates.
local function run(dir, checking)
    local f = { files = 0, empty = 0, bytes = 0, copies = 0, wasted = 0,
        unreadable = 0, links = 0, special = 0, changed = 0 }
    local files, bytes = list(dir, f)
    if not files then
        os.exit(2)          -- find has said why
    end
    local digested = {}
    phase = progress.phase("read and hash", #files, bytes)
    for _, file in ipairs(files) do
        local reason, message = digest(file)
        if reason then
            complain(message)
            f[reason] = f[reason] + 1
        else
            digested[#digested + 1] = file
            f.bytes = f.bytes + file.size
            f.empty = f.empty + (file.size == 0 and 1 or 0)
        end
        phase:advance(1, 0)
    end
    f.seconds, f.files = phase:finish(), #digested
    f.speed = f.bytes / math.max(f.seconds, 1e-9)
    f.skipped = f.unreadable + f.links + f.special + f.changed
    local sets
    sets, f.confirmed = confirm(candidates(digested))
    f.sets = #sets
    for _, set in ipairs(sets) do
        f.copies = f.copies + #set.names - 1
        f.wasted = f.wasted + set.wasted
    end
    local stats = pool:stats()
    f.hit_rate = not with_strings
        and stats.hits / math.max(1, stats.hits + stats.misses) or nil
    f.heap, f.resident = peak_heap, peak_resident()
    if checking then
        f.agree, f.differ = sha256.check(digested)
    end
    return f, sets
end

-- Runs this script in a process of its own, so that the peaks of one way are
-- not those of the other, and returns the figures.
local function run_apart(dir, ...)
    local words, first = { "--figures", ... }, 0
    while arg[first - 1] do
        first = first - 1
    end
    for i = 0, first, -1 do
        table.insert(words, 1, quote(arg[i]))
    end
    words[#words + 1] = "-- " .. quote(dir)
    local pipe, figures = assert(io.popen(table.concat(words, " "))), {}
    for key, value in pipe:read "*a":gmatch "(%S+)=(%S+)\n" do
        figures[key] = tonumber(value)
    end
    pipe:close()
    return figures.files and figures or os.exit(2)
end

-- What it prints --------------------------------------------------------------

local function seconds(n)
    return ("%.2f s"):format(n)
end

local ROWS = {
    { "files", "files" }, { "  of them empty", "empty" }, { "bytes", "bytes" },
    { "skipped", "skipped" }, { "  unreadable", "unreadable" },
    { "  symbolic links", "links" }, { "  special files", "special" },
    { "  changed meanwhile", "changed" },
    { "read and hashed in", "seconds", seconds },
    { "speed", "speed", function(n) return megabytes(n) .. "/s" end },
    { "duplicate sets", "sets" }, { "  redundant files", "copies" },
    { "  bytes wasted", "wasted" }, { "  confirmed in", "confirmed", seconds },
    { "pool hit rate", "hit_rate", function(n)
        return ("%.2f %%"):format(n * 100)
    end },
    { "peak Lua heap", "heap", megabytes },
    { "peak resident memory", "resident", megabytes },
    { "sha256sum agrees on", "agree" }, { "sha256sum differs on", "differ" },
}

-- One column, or that of the other way in front of it.
local function print_figures(dir, figures, others)
    print(dir)
    if others then
        print(("%-22s%18s%18s"):format("", "strings", "buffers"))
    end
    for _, row in ipairs(ROWS) do
        local label, key, show = row[1], row[2], row[3] or grouped
        local before = others and others[key] and show(others[key])
        if figures[key] then
            print(("%-22s%s%18s"):format(label,
                others and ("%18s"):format(before or "") or "",
                show(figures[key])))
        end
    end
end

-- Names are on one line, without what a terminal would obey.
local function print_duplicates(sets, all)
    local shown = all and #sets or math.min(#sets, LISTED)
    if shown > 0 then
        print(shown == #sets and "Duplicates:" or
            ("The %d largest of %s sets of duplicates, --all lists all:")
            :format(shown, grouped(#sets)))
    end
    for i = 1, shown do
        local set = sets[i]
        local most = all and #set.names or math.min(#set.names, LISTED)
        print(("  %s bytes wasted by %s files of %s bytes"):format(
            grouped(set.wasted), grouped(#set.names), grouped(set.size)))
        for k = 1, most do
            print("    " .. set.names[k]:gsub("%c", function(c)
                return ("\\%03d"):format(c:byte())
            end))
        end
        if most < #set.names then
            print(("    and %s more"):format(grouped(#set.names - most)))
        end
    end
    if shown > 0 then
        print()
    end
end

-- The command line ------------------------------------------------------------

local HELP = [[
usage: digest.lua [OPTION...] [DIR]

Digests every regular file below DIR (/usr/share) through a pool of buffers,
and finds the duplicates. Not followed are symbolic links and other file
systems.

  --check     has sha256sum digest the files too; status 1 when it differs
  --all       lists all duplicates, not only of the ten largest sets
  --strings   does the job with Lua strings instead
  --compare   does it both ways, and prints only the figures, side by side
  --help      prints this

Progress and messages go to standard error.
]]

local function usage(message)
    complain(message)
    io.stderr:write "digest.lua --help lists the options\n"
    os.exit(2)
end

local OPTIONS = { check = true, all = true, help = true, strings = true,
    compare = true, figures = true }

local options, dir = {}, nil
for i, word in ipairs(arg) do
    local option = arg[i - 1] ~= "--" and word:match "^%-%-(.+)$"
    if option then
        options[option] = OPTIONS[option] or usage("unknown option " .. word)
    elseif word ~= "--" then
        dir = dir and usage "more than one directory" or word
    end
end
-- A directory named like an option must not look like one to find.
dir = (dir or "/usr/share"):gsub("^%-", "./-")
if options.help then
    io.write(HELP)
    os.exit(0)
end

local check = options.check and "--check" or ""
local others, figures, sets
if options.compare then
    complain "a run that does not count: whoever is first waits for the disk"
    run_apart(dir)
    others = run_apart(dir, "--strings", check)
    figures = run_apart(dir, check)
else
    with_strings = options.strings
    figures, sets = run(dir, options.check)
end
if options.figures then
    for key, value in pairs(figures) do
        print(("%s=%.17g"):format(key, value))
    end
else
    print_duplicates(sets or {}, options.all)
    print_figures(dir, figures, others)
end
local differ = (figures.differ or 0) + (others and others.differ or 0)
os.exit(differ > 0 and 1 or 0)
