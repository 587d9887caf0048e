-- What examples/digest.lua found: as a table, as a list of duplicates, as JSON.
local find = require "digest_find"
local progress = require "digest_progress"

local grouped, megabytes = progress.grouped, progress.megabytes

local SETS = 10             -- that are listed without --all
local NAMES = 10            -- of a set that are listed without --all

local report = {}

local function count(key)
    return function(r)
        return r[key] and grouped(r[key])
    end
end

local function seconds(key)
    return function(r)
        return ("%.2f s"):format(r[key])
    end
end

local function size(key)
    return function(r)
        return megabytes(r[key])
    end
end

local rows = {
    { "files", count "files" },
    { "  of them empty", count "empty" },
    { "bytes", count "bytes" },
    { "skipped", count "skipped" },
    { "  unreadable", count "unreadable" },
    { "  symbolic links", count "links" },
    { "  special files", count "special" },
    { "  other file systems", count "elsewhere" },
    { "  files of the kernel", count "kernel" },
    { "  changed meanwhile", count "changed" },
    { "read and hashed in", seconds "seconds" },
    { "speed", function(r)
        return ("%.1f MB/s"):format(r.bytes / 1e6 / math.max(r.seconds, 1e-9))
    end },
    { "duplicate sets", count "sets" },
    { "  redundant files", count "copies" },
    { "  bytes wasted", count "wasted" },
    { "  confirmed in", seconds "confirmed" },
    { "pool hit rate", function(r)
        return r.hit_rate and ("%.2f %%"):format(r.hit_rate * 100) or "-"
    end },
    { "peak Lua heap", size "heap" },
    { "peak resident memory", size "resident" },
    { "sha256sum agrees on", count "agree" },
    { "sha256sum differs on", count "differ" },
}

-- One column for each of the reports.
function report.print(dir, names, reports)
    print(dir)
    if #names > 1 then
        print((("%-22s" .. ("%18s"):rep(#names)):format("", unpack(names))))
    end
    for _, row in ipairs(rows) do
        local cells = {}
        for i, one in ipairs(reports) do
            cells[i] = row[2](one)
        end
        if #cells > 0 then
            print((("%-22s" .. ("%18s"):rep(#cells)):format(row[1],
                unpack(cells))))
        end
    end
end

-- A name on one line, without what a terminal would obey.
local function on_one_line(name)
    return (name:gsub("%c", function(c)
        return ("\\%03d"):format(c:byte())
    end))
end

-- `sets` is a list of { size, wasted, names }, those that waste most first.
function report.print_duplicates(sets, all)
    local shown = all and #sets or math.min(#sets, SETS)
    if shown == 0 then
        return
    end
    print(shown == #sets and "Duplicates:"
        or ("The %d largest of %s sets of duplicates, --all lists all:")
        :format(shown, grouped(#sets)))
    for i = 1, shown do
        local set = sets[i]
        print(("  %s bytes wasted by %s files of %s bytes"):format(
            grouped(set.wasted), grouped(#set.names), grouped(set.size)))
        for k, name in ipairs(set.names) do
            if k > NAMES and not all then
                print(("    and %s more"):format(grouped(#set.names - NAMES)))
                break
            end
            print("    " .. on_one_line(name))
        end
    end
    print()
end

-- Sequences of UTF-8 for characters above U+007F.
local UTF8 = {
    "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]",
    "^[\225-\236\238\239][\128-\191][\128-\191]", "^\237[\128-\159][\128-\191]",
    "^\240[\144-\191][\128-\191][\128-\191]",
    "^[\241-\243][\128-\191][\128-\191][\128-\191]",
    "^\244[\128-\143][\128-\191][\128-\191]",
}

-- A byte that is no UTF-8 becomes U+DC80 to U+DCFF, as Python reads names.
local function json_string(text)
    local out, i = {}, 1
    while i <= #text do
        local piece = text:match('^[^%c"\\\128-\255]+', i)
        for k = 1, piece and 0 or #UTF8 do
            piece = piece or text:match(UTF8[k], i)
        end
        if piece then
            out[#out + 1] = piece
        else
            local byte = text:byte(i)
            out[#out + 1] = ("\\u%04x"):format(byte < 128 and byte
                or 0xdc00 + byte)
        end
        i = i + (piece and #piece or 1)
    end
    return '"' .. table.concat(out) .. '"'
end

local function json(value, indent)
    local out = {}
    if type(value) == "string" then
        return json_string(value)
    elseif type(value) == "number" then
        return ("%.17g"):format(value)
    end
    local inner = indent .. "  "
    if #value > 0 or next(value) == nil then
        for i, item in ipairs(value) do
            out[i] = inner .. json(item, inner)
        end
    else
        for key in pairs(value) do
            out[#out + 1] = key
        end
        table.sort(out)
        for i, key in ipairs(out) do
            out[i] = inner .. '"' .. key .. '": ' .. json(value[key], inner)
        end
    end
    local open, close = "{", "}"
    if #value > 0 or next(value) == nil then
        open, close = "[", "]"
    end
    return #out == 0 and open .. close or open .. "\n"
        .. table.concat(out, ",\n") .. "\n" .. indent .. close
end

-- The figures of a run, and all sets.
function report.print_json(dir, figures, sets)
    local whole = { directory = dir, duplicates = sets, skipped = {} }
    for key, value in pairs(figures) do
        if key ~= "skipped" then
            whole[key] = value
        end
    end
    for _, reason in ipairs(find.REASONS) do
        whole.skipped[reason] = figures[reason]
        whole[reason] = nil
    end
    print(json(whole, ""))
end

return report
