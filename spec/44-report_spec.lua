-- What benchmarks leave in doc/: figures as JSON.
local helper = require "support.helper"

package.path = helper.root .. "bench/?.lua;" .. package.path
local report = require "report"

describe("a report as JSON", function()
    it("keeps what a string has", function()
        local name = os.tmpname()
        local text = 'a "b" \\ c\n\td \\n \\" "\\'
        local row = { name = "x", figures = { text } }
        report.save_json(name, { rows = { row } })
        local rows = report.merge(name, { { name = "x" } })
        os.remove(name)
        assert.equal(text, rows[1].figures[1])
    end)

    it("has no string that goes over a line", function()
        local list = helper.shell("ls " .. helper.root .. "doc/*.json")
        local n = 0
        for name in list:gmatch "[^\n]+" do
            for line in io.lines(name) do
                local _, quotes = line:gsub("\\.", ""):gsub('"', "")
                assert.equal(0, quotes % 2, name .. ": " .. line)
            end
            n = n + 1
        end
        assert.is_true(n > 3, list)
    end)
end)
