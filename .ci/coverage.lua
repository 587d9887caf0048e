-- What the specs ran of src/: make coverage. Reads what gcovr says of it
-- (Cobertura's XML, in lines), prints a table, and fails where too few branches
-- were taken, or a reason is missing or wrong.
--
--   luajit .ci/coverage.lua PERCENT <XML
--
-- A line that no spec runs has its reason in a comment, /* Not run: ... */,
-- beside it or above. The reason holds from there on up to the first line that
-- is run, or to the end of the function. The next line of code after it must be
-- one that is not run. Where it is run by chance, the comment says Seldom run.
local least = tonumber(arg[1])
local wrong = 0

local function complain(...)
    wrong = wrong + 1
    print(("%s:%d: %s"):format(...))
end

-- Adds the figures of a line to the sums. Branches of what is inlined by force
-- are not counted: each copy has all of them, though in most of the copies it
-- is known what they decide.
local function add(sums, line, explained, inlined)
    sums[1] = sums[1] + 1
    sums[2] = sums[2] + (line.hits == 0 and 0 or 1)
    if not inlined then
        sums[3], sums[4] = sums[3] + line.of, sums[4] + line.taken
    end
    sums[5] = sums[5] + (explained and 1 or 0)
end

-- lines[n]: what is known of line n, nil where there is no code.
local function sum_up(name, lines)
    local sums, n = { 0, 0, 0, 0, 0 }, 0
    local reason, used, inlined
    local function close_reason()
        if reason and not used then
            complain(name, reason, "gives a reason, but for no line that is "
                .. "not run")
        end
        reason = nil
    end
    for text in io.lines(name) do
        n = n + 1
        local line = lines[n]
        inlined = (inlined or text:find "always_inline") and text ~= "}"
        if text:find "Not run: " then
            reason, used = n, false
        elseif text:find "Seldom run: " then
            reason, used = n, true
        end
        if line and line.hits == 0 then
            used = true
            if not reason then
                complain(name, n, "is not run, and no reason is given")
            end
        elseif line then
            close_reason()
        end
        if line then
            add(sums, line, reason, inlined)
        end
        if text == "}" then
            close_reason()
        end
    end
    close_reason()
    return sums
end

local function show(name, sums)
    print(("%-46s %5d %6.1f %5d %6.1f %5d"):format(name, sums[1],
        100 * sums[2] / math.max(1, sums[1]), sums[3],
        100 * sums[4] / math.max(1, sums[3]), sums[5]))
end

-- The files in the order of the XML.
local files = {}
for text in io.lines() do
    local name = text:match '<class .-filename="([^"]*)"'
    if name then
        files[#files + 1] = { name = name }
    end
    local line, hits = text:match '<line number="(%d+)" hits="(%d+)"'
    if line then
        local taken, of = text:match 'condition%-coverage=.-%((%d+)/(%d+)%)'
        files[#files][tonumber(line)] = { hits = tonumber(hits),
            taken = taken or 0, of = of or 0 }
    end
end

local all = { 0, 0, 0, 0, 0 }
print(("%-46s %5s %6s %5s %6s %5s"):format("", "lines", "% run", "branches",
    "%", "reasons"))
for _, file in ipairs(files) do
    local sums = sum_up(file.name, file)
    for i = 1, #all do
        all[i] = all[i] + sums[i]
    end
    show(file.name, sums)
end
show("all", all)
if all[1] == 0 then
    wrong = wrong + 1
    print "there is no line of code: gcovr has failed, or writes otherwise"
end
if 100 * all[4] < least * all[3] then
    wrong = wrong + 1
    print(("fewer than %g %% of the branches are taken"):format(least))
end
os.exit(wrong == 0 and 0 or 1)
