-- What bench/core.lua and bench/large.lua share. A cell is one kind of work,
-- which bench/core.c does with one rival at a time.
local report = require "report"

local cells = {}

---The figures of one run; nil where the rival is not there.
function cells.run(program, rival, cell, seconds)
    local figures = report.run(("timeout 60 %s %s %d %s %d %s %g"):format(
        report.quote(program), rival[1], cell.bytes, cell.dirty, cell.threads,
        cell.pattern, seconds))[1]
    return figures and figures.rate and figures
end

---Those of the rivals that are there. The first one must be.
function cells.present(program, rivals, probe)
    local list = {}
    for _, rival in ipairs(rivals) do
        if cells.run(program, rival, probe, 0.001) then
            list[#list + 1] = rival
        end
    end
    assert(list[1] == rivals[1], program .. " does not run")
    return list
end

---Has the rivals take turns. cell.rivals becomes the figures of each by its
---name: of the figure called `least` the least, of all others the median.
function cells.measure(program, cell, rivals, turns, seconds, least)
    local got = {}
    for _ = 1, turns do
        for _, rival in ipairs(rivals) do
            local figures = (not rival.when or rival.when(cell))
                and cells.run(program, rival, cell, seconds)
            for name, value in pairs(figures or {}) do
                local mine = got[rival[1]] or {}
                got[rival[1]] = mine
                mine[name] = mine[name] or {}
                table.insert(mine[name], value)
            end
        end
    end
    for _, figures in pairs(got) do
        for name, list in pairs(figures) do
            local middle = report.median(list)
            figures[name] = name == least and list[1] or middle
        end
    end
    cell.rivals = got
    return cell
end

return cells
