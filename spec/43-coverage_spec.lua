-- .ci/coverage.lua, of made-up programs: what it says of lines that are not run
-- and of the reasons given for them.
local helper = require "support.helper"

local quote, shell = helper.quote, helper.shell
-- Pipes are the shell's.
jit.off(shell)

local function write(name, text)
    local file = assert(io.open(name, "w"))
    file:write(text)
    file:close()
end

-- What is said of a program whose lines were run as often as `hits` tells, by
-- their numbers, and the exit status.
local function said_of(program, hits, more)
    local name = os.tmpname()
    local xml = { ('<class name="x" filename="%s">'):format(name) }
    for line, n in pairs(hits) do
        xml[#xml + 1] = ('<line number="%d" hits="%d"%s/>'):format(line, n,
            more or "")
    end
    write(name, program)
    write(name .. ".xml", table.concat(xml, "\n") .. "\n")
    local text, status = shell(("%s %s 93 <%s.xml"):format(
        helper.interpreter(), quote(helper.root .. "/.ci/coverage.lua"), name))
    os.remove(name)
    os.remove(name .. ".xml")
    return text:gsub(name:gsub("%p", "%%%0"), "x.c"), status
end

local function refuses(what, program, hits)
    local text, status = said_of(program, hits)
    assert.is_truthy(text:find("x.c:" .. what, 1, true), text)
    assert.equal(1, status)
end

describe("the coverage program", function()
    it("takes a reason beside a line that is not run, or above it", function()
        local text, status = said_of("f()\n{\n\ta;\n\tb;\t/* Not run: why. */\n"
            .. "\t/* Seldom run: why. */\n\tc;\n}\n",
            { [1] = 1, [3] = 1, [4] = 0, [6] = 1, [7] = 1 })
        assert.equal(0, status, text)
    end)

    it("refuses a line that is not run without a reason", function()
        refuses("2: is not run", "a;\nb;\n", { 1, 0 })
        refuses("4: is not run", "/* Not run: why. */\na;\nb;\nc;\n",
            { [2] = 0, [3] = 1, [4] = 0 })
    end)

    it("takes no reason of one function for the next", function()
        refuses("6: is not run", "f()\n{\n\tabort();\t/* Not run: why. */\n}\n"
            .. "\ng()\n{\n}\n", { [1] = 1, [3] = 0, [4] = 0, [6] = 0, [8] = 0 })
    end)

    it("refuses a reason for a line that is run, and for none", function()
        refuses("1: gives a reason", "/* Not run: why. */\na;\n", { [2] = 1 })
        refuses("2: gives a reason", "a;\n/* Not run: why. */\n", { 1 })
        refuses("2: gives a reason", "f() {\n/* Not run: why. */\n}\n"
            .. "g();\n", { [1] = 1, [4] = 0 })
    end)

    it("refuses too few branches, but for those that are inlined", function()
        local half = ' condition-coverage="50% (1/2)"'
        local text, status = said_of("a;\n", { 1 }, half)
        assert.equal(1, status)
        assert.is_truthy(text:find("fewer than 93 %", 1, true), text)
        text, status = said_of("always_inline f()\n{\n\ta;\n}\n", { [3] = 1 },
            half)
        assert.equal(0, status, text)
    end)

    -- As where gcovr fails.
    it("refuses what tells of no line", function()
        local text, status = said_of("", {})
        assert.equal(1, status, text)
    end)
end)
