-- What types.lua tells editors is what there is: names of methods, fields, keys
-- and parameters.
local bufpool = require "bufpool"
local helper = require "support.helper"

local directory = helper.root .. "lua/bufpool/"

local function read(path)
    local file = assert(io.open(path))
    local text = file:read "*a"
    file:close()
    return text
end

-- By name: parents, methods (fields and functions), and operators of a class;
-- what an alias stands for. Then each function and its annotated parameters.
local classes, aliases, functions = {}, {}, {}
local mentioned = {}

local function class_of(name)
    classes[name] = classes[name]
        or { parents = {}, names = {}, operators = {} }
    return classes[name]
end

local function words(text)
    return (text:gmatch "[%w_.]+")
end

-- What a line says that begins with @ and its name.
local tags = {}

function tags.class(rest, block)
    local name, parents = rest:gsub("^%(%a+%) ", "")
        :match "^([%w_.]+) ?:?(.*)$"
    block.class = class_of(name)
    for parent in words(parents) do
        block.class.parents[parent] = true
    end
end

function tags.field(rest, block)
    local name, kind = rest:match "^([%w_]+)%?? (%S+)"
    block.class.names[name] = kind
end

function tags.operator(rest, block)
    block.class.operators[rest:match "^%a+"] = true
end

function tags.param(rest, block)
    block.params[rest:match "^[%w_.]+"] = true
end

-- `code` is the line on which a block of annotations stands; `owners` are the
-- classes of the file's locals.
local function stand_on(code, block, owners, where)
    local name = code:match "^local ([%w_]+) = "
    if name then
        owners[name] = block.class
    end
    local path, list = code:match "function ?([%w_.:]*)(%b())"
    local owner, method = (path or ""):match "^([%w_]+)[.:]([%w_]+)$"
    local class = owners[owner or 1]
    if class then
        class.names[method] = "function"
    elseif not next(block.params) then
        return
    end
    local params, ordered = {}, {}
    for param in list:gmatch "[%w_]+" do
        params[param] = true
        ordered[#ordered + 1] = param
    end
    params["..."] = list:find("...", 1, true) and true
    functions[#functions + 1] = {
        where = where .. ": " .. code, params = params, ordered = ordered,
        annotated = block.params, class = class, method = method,
    }
end

local function parse(path)
    local owners, text = {}, ""
    for line in read(path):gmatch "([^\n]*)\n" do
        local comment = line:match "^%s*%-%-%-(.*)$"
        if comment then
            text = text .. "\n" .. comment
        else
            local block = { params = {} }
            for tag, rest in text:gmatch "\n@(%a+) ([^\n]*)" do
                if tags[tag] then
                    tags[tag](rest, block)
                end
            end
            for alias, meaning in text:gmatch "@alias ([%w_.]+) ([^@]*)" do
                aliases[alias] = meaning
            end
            for name in text:gmatch "%f[%w]bufpool%.%u%w*" do
                mentioned[name] = path:match "[^/]*$"
            end
            stand_on(line, block, owners, path:match "[^/]*$")
            text = ""
        end
    end
end

parse(directory .. "types.lua")

-- With those of its parents.
local function annotated(name, what, all)
    all = all or {}
    local class = assert(classes[name], name .. " is not declared")
    for parent in pairs(class.parents) do
        annotated(parent, what, all)
    end
    for key, value in pairs(class[what]) do
        all[key] = value
    end
    return all
end

-- A handle's metatable is the FFI's, which shows it to nobody.
local function metatable_of(x)
    return type(x) == "cdata" and require("bufpool.handle").meta
        or debug.getmetatable(x)
end

local function same_names(told, real)
    assert.same({}, helper.beyond(real, told), "not annotated")
    assert.same({}, helper.beyond(told, real), "annotated, and not there")
end

describe("annotations", function()
    local pool, objects
    before_each(function()
        pool = bufpool.new { numa_node = 0 }
        objects = {
            pool = pool, buffer = pool:checkout(64),
            frozen = pool:checkout(64):freeze(), handle = pool:borrow(64),
        }
    end)
    after_each(function()
        objects.handle:release()
    end)

    it("name all that the module has, and nothing else", function()
        same_names(annotated("bufpool", "names"), bufpool)
    end)

    for kind, class in pairs {
        pool = "bufpool.Pool", buffer = "bufpool.Buffer",
        frozen = "bufpool.Frozen", handle = "bufpool.Handle",
    } do
        it("name every method of a " .. kind, function()
            local told = annotated(class, "names")
            local methods = metatable_of(objects[kind]).__index
            for name, method in pairs(methods) do
                assert.equal(method, objects[kind][name])
            end
            assert.same({}, helper.beyond(methods, told))
        end)

        it("name no method that a " .. kind .. " lacks", function()
            for name in pairs(annotated(class, "names")) do
                assert.equal("function", type(objects[kind][name]), name)
            end
        end)

        it("name the operators of a " .. kind, function()
            -- Not those of its parents: not every editor looks there.
            local real = {}
            for _, name in ipairs { "len", "concat" } do
                real[name] = metatable_of(objects[kind])["__" .. name]
            end
            same_names(classes[class].operators, real)
        end)
    end

    it("name all that a reader has", function()
        local r = objects.frozen:reader()
        local real = { of = true, at = true }
        for name in pairs(debug.getmetatable(r).__index) do
            real[name] = true
        end
        same_names(annotated("bufpool.FrozenReader", "names"), real)
    end)

    it("name no parameter that a function lacks", function()
        for _, f in ipairs(functions) do
            assert.same({}, helper.beyond(f.annotated, f.params), f.where)
        end
    end)

    it("name every parameter of a public function", function()
        for _, f in ipairs(functions) do
            assert.same({}, helper.beyond(f.params, f.annotated), f.where)
        end
    end)

    it("name the parameters as the functions do", function()
        local seen = 0
        for class, object in pairs {
            ["bufpool"] = bufpool, ["bufpool.Pool"] = objects.pool,
            ["bufpool.Reader"] = objects.frozen,
            ["bufpool.FileWriter"] = objects.frozen,
            ["bufpool.Buffer"] = objects.buffer,
            ["bufpool.FileReader"] = objects.buffer,
            ["bufpool.Frozen"] = objects.frozen,
            ["bufpool.Handle"] = objects.handle,
        } do
            for _, f in ipairs(functions) do
                local method = f.class == classes[class] and object[f.method]
                -- Without the JIT some are functions of C.
                if method and debug.getinfo(method, "S").what == "Lua" then
                    local from = class == "bufpool" and 0 or 1
                    for k = 1, #f.ordered + 1 do
                        assert.equal(f.ordered[k],
                            (debug.getlocal(method, from + k)), f.where)
                    end
                    seen = seen + 1
                end
            end
        end
        assert.is_true(seen >= 20, seen)
    end)

    it("are in no other file but where they begin", function()
        local found = {}
        for line in helper.shell("cd " .. helper.quote(directory)
            .. " && grep -r --include='*.lua' -e ---@ ."):gmatch "[^\n]+" do
            local file = line:match "^%./([^:]*)"
            if file ~= "types.lua" then
                found[#found + 1] = line
            end
        end
        table.sort(found)
        assert.same({ "./init.lua:---@type bufpool",
            "./ngx.lua:---@type bufpool.Ngx" }, found)
    end)

    it("mention no type that is not declared", function()
        for name, file in pairs(mentioned) do
            assert.is_truthy(classes[name] or aliases[name],
                name .. " in " .. file)
        end
    end)

    it("name the keys that a configuration may have", function()
        local taken = {}
        -- Most stand in C.
        local text = read(directory .. "config.lua") .. helper.child_ok([[
            for _, setting in ipairs(require("bufpool.core").settings) do
                print(setting.key)
            end]])
        for key in text:gmatch "[%a_][%w_]*" do
            local ok, message = pcall(bufpool.new, { [key] = print })
            if ok or not message:find "unknown key" then
                taken[key] = true
            end
        end
        same_names(annotated("bufpool.Config", "names"), taken)
    end)

    it("name the fields of statistics", function()
        local stats = pool:stats()
        stats.oldest = 0    -- nil where nothing is recorded
        same_names(annotated("bufpool.Stats", "names"), stats)
        stats.sites = {}    -- nil without leak detection
        same_names(annotated("bufpool.PoolStats", "names"), stats)
        same_names(annotated("bufpool.ClassStats", "names"), stats.classes[1])
        same_names(annotated("bufpool.LargeStats", "names"), stats.large)
        same_names(annotated("bufpool.NumaStats", "names"), stats.numa)
    end)

    it("name the fields of statistics over all pools", function()
        local totals = bufpool.stats()
        totals.oldest = 0
        same_names(annotated("bufpool.Totals", "names"), totals)
    end)

    it("promise of typed methods what they return", function()
        local types = {
            integer = "number", number = "number", ["ffi.cdata*"] = "cdata",
            ["bufpool.Buffer"] = "userdata",
        }
        local arguments = { get = {}, set = { 1, 1 }, put = { 1 } }
        local buf, seen = objects.buffer, 0
        for name, alias in pairs(annotated("bufpool.Buffer", "names")) do
            if name:find "%f[%a][uif]%d" then
                local promise = (aliases[alias] or ""):match "^fun%b():%s*(%S+)"
                local got = buf:fill(0x3d)[name](buf,
                    unpack(arguments[name:sub(1, 3)] or { 1 }))
                assert.equal(types[promise], type(got), name)
                assert.is_true(promise ~= "integer" or got % 1 == 0, name)
                buf:resize(64)
                seen = seen + 1
            end
        end
        assert.equal(88, seen)
    end)
end)
