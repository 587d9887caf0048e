-- doc/api.md names what there is, and its examples do what they say. So does
-- the README's.
--
-- A line "syntax: " shows calls, each on the name of its receiver; a paragraph
-- "names: " lists more methods of the same receiver. A block fenced as "lua" is
-- run as example.lua, and what it prints must be what stands behind its "-->";
-- a block fenced as "lua nginx" is only compiled.
local bufpool = require "bufpool"
local helper = require "support.helper"

local function read(path)
    local file = assert(io.open(helper.root .. path))
    local text = file:read "*a"
    file:close()
    return text
end

local api = read "doc/api.md"

-- The classes that a name in a syntax line stands for.
local RECEIVERS = {
    bufpool = { "module" }, pool = { "pool" }, frozen = { "frozen" },
    buf = { "buffer", "handle" }, x = { "buffer", "handle", "frozen" },
}
-- What is written, in a syntax line, for an operator.
local OPERATORS = {
    ["#x"] = "__len", ["x .. "] = "__concat", ["tostring(x)"] = "__tostring",
    ["a == b"] = "__eq", ["a < b"] = "__lt", ["a <= b"] = "__le",
}

-- By class, the names that the reference has; the operators that it has.
local told = { module = {}, pool = {}, buffer = {}, handle = {}, frozen = {} }
local operators = {}
-- Headings without a syntax line.
local bare = {}

local function note(receiver, name)
    for _, class in ipairs(assert(RECEIVERS[receiver], receiver)) do
        told[class][name] = true
    end
end

-- Each part begins behind the "##" of its heading.
for part in api:match "\n##.*":gsub("\n##", "\1"):gmatch "[^\1]+" do
    local syntax, receiver = part:match "^# [^\n]*\n\nsyntax: ([^\n]*)\n", nil
    if part:find "^# " and not syntax then
        bare[#bare + 1] = part:match "[^\n]*"
    end
    for code in (syntax or ""):gmatch "`([^`]*)`" do
        for what, name in code:gmatch "%f[%w](%a+)[.:]([%a_][%w_]*)" do
            receiver = what
            note(receiver, name)
        end
        for text, event in pairs(OPERATORS) do
            if code:find(text, 1, true) then
                operators[event] = true
            end
        end
    end
    for name in (part:match "\nnames: (.-)\n\n" or ""):gmatch "`([%w_]+)`" do
        note(receiver, name)
    end
end

-- The first column of the tables in `text` whose head it is.
local function column(text, head)
    local names = {}
    for rows in text:gmatch("\n| " .. head .. " |[^\n]*\n|[-|]+\n(.-)\n\n") do
        for name in ("\n" .. rows):gmatch "\n| `([%w_]+)` |" do
            names[name] = true
        end
    end
    return names
end

local function same_names(documented, real)
    assert.is_truthy(next(real))
    assert.same({}, helper.beyond(real, documented), "not documented")
    assert.same({}, helper.beyond(documented, real),
        "documented, and not there")
end

-- A handle's methods are the FFI's to keep, so they are looked at as they are
-- given to it.
local function handle_methods()
    local names = {}
    for name in helper.child_ok([[
        local ffi = require "ffi"
        local metatype, given = ffi.metatype, nil
        function ffi.metatype(ctype, meta)
            given = meta
            return metatype(ctype, meta)
        end
        require "bufpool"
        for name in pairs(given.__index) do
            print(name)
        end]]):gmatch "%S+" do
        names[name] = true
    end
    return names
end

-- What a C header declares or defines as a function.
local function declared(path)
    local names = {}
    local text = read(path):gsub("/%*.-%*/", "")
    for name in text:gmatch "%f[%w_]([%w_]*bufpool[%w_]*)%s*%(" do
        names[name] = true
    end
    return names
end

-- The part of the reference under a heading.
local function section(title)
    local _, from = api:find("\n## " .. title .. "\n", 1, true)
    assert.is_truthy(from, title)
    return api:sub(from, (api:find("\n## ", from, true))) .. "\n\n"
end

describe("doc/api.md", function()
    local pool, objects
    before_each(function()
        pool = bufpool.new { numa_node = 0 }
        objects = {
            pool = pool, buffer = pool:checkout(64),
            frozen = pool:checkout(64):freeze(),
        }
    end)

    it("has a syntax line under each entry", function()
        assert.same({}, bare)
    end)

    it("names all that the module has, and nothing else", function()
        same_names(told.module, bufpool)
    end)

    for _, class in ipairs { "pool", "buffer", "frozen" } do
        it("names the methods of a " .. class .. ", and no other", function()
            same_names(told[class], debug.getmetatable(objects[class]).__index)
        end)
    end

    it("names the methods of a handle, and no other", function()
        same_names(told.handle, handle_methods())
    end)

    it("names the operators", function()
        local real = {}
        for event in pairs(debug.getmetatable(objects.frozen)) do
            real[event] = event ~= "__gc" and event ~= "__metatable"
                and not event:find "index" or nil
        end
        same_names(operators, real)
    end)

    it("names the keys of a configuration", function()
        local real = {}
        for word in helper.shell("cat " .. helper.quote(helper.root)
            .. "lua/bufpool/*.lua"):gmatch "%f[%a_][%a_][%w_]*" do
            local ok, message = pcall(bufpool.new, { [word] = print })
            if ok or not message:find "unknown key" then
                real[word] = true
            end
        end
        same_names(column(api, "key"), real)
    end)

    it("names the fields of statistics", function()
        local own = bufpool.new { leak_detection = "all" }
        local buf = own:checkout(1)
        local stats = own:stats()
        same_names(column(api, "field"), stats)
        same_names(column(api, "class"), stats.classes[1])
        same_names(column(api, "large"), stats.large)
        stats.numa.requested = true     -- nil with some configurations
        same_names(column(api, "numa"), stats.numa)
        local totals = bufpool.stats()
        assert.same({ "pools" }, helper.beyond(totals, stats))
        assert.same({ "sites" }, helper.beyond(stats, totals))
        buf:release()
    end)

    it("names the fields of a site", function()
        local own = bufpool.new { leak_detection = "all" }
        local buf = own:checkout(1)
        same_names(column(api, "site"), own:sites()[1])
        buf:release()
    end)

    for _, header in ipairs { "bufpool.h", "bufpool_lua.h" } do
        it("names the functions of " .. header .. ", and no other", function()
            same_names(column(section("C: " .. header), "function"),
                declared("src/" .. header))
        end)
    end
end)

-- A line that is printed, with its white space made one space each.
local function squeezed(text)
    return (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function run(code)
    local printed, expected = {}, {}
    local function record(...)
        local parts = {}
        for k = 1, select("#", ...) do
            parts[k] = tostring((select(k, ...)))
        end
        printed[#printed + 1] = squeezed(table.concat(parts, " "))
    end
    local chunk = assert(loadstring(code, "@example.lua"))
    setfenv(chunk, setmetatable({ print = record }, { __index = _G }))
    chunk()
    for text in code:gmatch "%-%->%s*([^\n]*)" do
        expected[#expected + 1] = squeezed(text)
    end
    assert.same(expected, printed)
end

for _, path in ipairs { "README.md", "doc/api.md" } do
    describe("the examples of " .. path, function()
        local count, text, at = 0, read(path), 1
        repeat
            local from, to, kind, code = text:find("\n```([^\n]*)\n(.-\n)```\n",
                at)
            at = to
            if kind == "lua" or kind == "lua nginx" then
                count = count + 1
                local _, line = text:sub(1, from + 1):gsub("\n", "")
                it(("at line %d: %s"):format(line + 1, kind == "lua"
                    and "runs, and prints what it says" or "compiles"),
                    function()
                        if kind == "lua" then
                            run(code)
                        else
                            assert(loadstring(code))
                        end
                    end)
            end
        until not from

        it("are as many as there are fences", function()
            local _, fences = text:gsub("\n```lua", "")
            assert.equal(fences, count)
            assert.is_true(count > 0)
        end)
    end)
end

describe("the documents", function()
    local files = {}
    for path in helper.shell("cd " .. helper.quote(helper.root)
        .. " && ls *.md doc/*.md examples/*/*.md"):gmatch "[^\n]+" do
        files[#files + 1] = path
    end

    it("link to files that exist", function()
        assert.is_true(#files >= 6)
        for _, path in ipairs(files) do
            for link in read(path):gmatch "%]%(([^)#]+)" do
                if not link:find "^%a+:" then
                    local target = helper.root
                        .. (path:match "^.*/" or "") .. link
                    assert.is_truthy(io.open(target),
                        path .. " links to " .. link)
                end
            end
        end
    end)

    it("name targets that the Makefile has", function()
        local targets = {}
        for line in read("Makefile"):gmatch "[^\n]+" do
            for name in (line:match "^([%w%- ]+):[^=]" or line:match
                "^%.PHONY: (.*)" or line:match "^([%w%-]+):$" or "")
                :gmatch "[%w%-]+" do
                targets[name] = true
            end
        end
        assert.is_true(targets.demo and targets.lint and targets.install)
        for _, path in ipairs(files) do
            local text = read(path):gsub("[ \n]+", " ")
            for code in text:gmatch "`(make [^`]*)`" do
                local name = code:match "^make ([%l%-]+)"
                assert.is_true(not name or targets[name],
                    path .. " names " .. code)
            end
        end
    end)
end)
