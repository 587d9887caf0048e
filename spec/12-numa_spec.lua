local bufpool = require "bufpool"
local helper = require "support.helper"

describe("an unknown node", function()
    it("falls back and says so", function()
        local pool = bufpool.new { numa_node = 60 }
        local buf = assert(pool:checkout(65536)):fill(1)
        local numa = pool:stats().numa
        assert.equal(60, numa.requested)
        assert.is_false(numa.available)
        assert.equal(helper.zeros(0), tostring(buf:reset()))
    end)

    it("falls back also where no kernel has that many", function()
        local pool = bufpool.new { numa_node = 100000 }
        assert.equal(8, #pool:checkout(8))
        assert.is_false(pool:stats().numa.available)
    end)
end)

local root, quote, shell = helper.root, helper.quote, helper.shell

local function exists(path)
    local file = io.open(path)
    return file and file:close()
end

-- The tool that boots a machine with several nodes, or nil and why not.
local function find_tool()
    local tool = os.getenv "NUMA_VM"
    if not tool or tool == "" then
        tool = root .. "../shared/tools/numa-vm"
    end
    if not exists(tool) then
        return nil, "no numa-vm in $NUMA_VM or ../shared/tools"
    end
    local output, status = shell(quote(tool) .. " -- true")
    if status ~= 0 then
        return nil, "numa-vm does not start: "
            .. (output:match "(%S[^\n]*)\n*$" or "status " .. status)
    end
    return tool
end

-- These absolute, for the machine has them in the same places.
local here = shell("cd " .. quote(root) .. " && pwd -P"):gsub("%s+$", "")
local build = here .. "/" .. (os.getenv "BUILD" or "build")

-- libnuma, which is opened by its name at run time, as options for the tool.
local function libnuma()
    local words = {}
    for line in io.lines "/proc/self/maps" do
        local numa = line:match "(/%S*libnuma%.so%S*)"
        if numa then
            words[1] = "--add " .. quote(numa)
            break
        end
    end
    local soname = shell "ldconfig -p | grep -o '/.*/libnuma.so.1$' | head -1"
    soname = soname:gsub("%s+$", "")
    if soname ~= "" then
        words[#words + 1] = "--add " .. quote(soname)
    end
    return table.concat(words, " ")
end

local tool, why

local function prepare()
    if not tool and not why then
        tool, why = find_tool()
    end
end

-- Runs a command on a machine with so many nodes. An emulated machine of four
-- processors on two may not get to its end in time; 125 is the tool's own word
-- for that, and then it is tried once more.
local function on_nodes(nodes, command)
    local run = ("%s --tty --timeout %d --nodes %d %s %s"):format(
        quote(tool), 90 * helper.pace(), nodes, libnuma(), command)
    local output, status = shell(run)
    if status == 125 then
        output, status = shell(run)
    end
    assert(status == 0, output)
    return output
end

local function on_two_nodes(code)
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(("package.path, package.cpath = %q, %q\n"):format(
        here .. "/lua/?.lua;" .. here .. "/lua/?/init.lua;",
        build .. "/lua/?.so"))
    file:write(code)
    file:close()
    local output = on_nodes(2, ("--add %s --add %s --add %s -- %s %s"):format(
        quote(build .. "/lua"), quote(here .. "/lua"), quote(name),
        helper.interpreter(), quote(name)))
    os.remove(name)
    return output
end

-- Where the kernel says that the pages of an address are: node -> pages.
local where = [[
local ffi = require "ffi"
local bufpool = require "bufpool"
local function nodes_of(buf)
    local address = tonumber(ffi.cast("uintptr_t", (buf:ref())))
    local best, pages = -1, {}
    for line in io.lines "/proc/self/numa_maps" do
        local first = tonumber(line:match "^(%x+)", 16)
        if first <= address and first > best then
            best, pages = first, {}
            for node, n in line:gmatch "N(%d+)=(%d+)" do
                pages[tonumber(node)] = tonumber(n)
            end
        end
    end
    return pages
end
]]

-- What to try there; each runs by itself and reports on a line of its own, so
-- that one machine is enough.
local trials = {
    { "pages of numa_node = 0 are on node 0", "placed(0)" },
    { "pages of numa_node = 1 are on node 1", "placed(1)" },
    { "what was released and taken again stays on its node", [[
        local pool = bufpool.new { numa_node = 1 }
        for _ = 1, 20 do
            local held = {}
            for i = 1, 40 do
                held[i] = pool:checkout(65536):fill(1)
            end
            for i = 1, 40 do
                held[i]:release()
            end
            pool:trim()
        end
        local held = pool:checkout(65536):fill(1)
        local by_node = pool:stats().numa.pages_by_node
        assert(#held == 65536 and by_node[1] > 0)
        assert((by_node[0] or 0) == 0)
    ]] },
    { "growth stays on the node", [[
        local w = bufpool.new { numa_node = 1 }:writer()
        for _ = 1, 50 do
            w:put(("x"):rep(50000))
        end
        local pages = nodes_of(w)
        assert(pages[1] > 0 and not pages[0])
    ]] },
    { "a third node falls back and says so", [[
        local pool = bufpool.new { numa_node = 2 }
        assert(#pool:checkout(65536):fill(1) == 65536)
        local numa = pool:stats().numa
        assert(numa.requested == 2)
        assert(numa.available == false)
    ]] },
}

local placed = [[
local function placed(node)
    local pool = bufpool.new { numa_node = node }
    for _, n in ipairs { 4096, 65536, 262144, 1048576, 3000000 } do
        local buf = assert(pool:checkout(n)):fill(1)
        local pages = nodes_of(buf)
        assert((pages[node] or 0) > 0, "no page on the node")
        assert((pages[1 - node] or 0) == 0, "pages elsewhere")
    end
    local numa = pool:stats().numa
    assert(numa.requested == node)
    assert(numa.available == true)
    assert(numa.pages_by_node[node] > 0)
    assert((numa.pages_by_node[1 - node] or 0) == 0)
end
]]

describe("on a machine with two nodes", function()
    local output

    lazy_setup(function()
        prepare()
        if tool then
            local code = where .. placed
            for i, trial in ipairs(trials) do
                code = code .. ("print('trial %d', pcall(function() %s end))")
                    :format(i, trial[2])
            end
            output = on_two_nodes(code)
        end
    end)

    for i, trial in ipairs(trials) do
        it(trial[1], function()
            if not output then
                pending(why)
                return
            end
            local result = output:match(("trial %d\t([^\r\n]*)"):format(i))
            assert.equal("true", result)
        end)
    end
end)

local program = build .. "/spec/numa"

describe("numa_node = 'local'", function()
    lazy_setup(prepare)

    for _, nodes in ipairs { 2, 4 } do
        it(("keeps threads to their nodes, of %d"):format(nodes), function()
            if not tool then
                pending(why)
            elseif not exists(program) then
                pending(program .. " was not built")
            elseif not jit.status() then
                pending "it is C, and so the same in the interpreter"
            end
            local output = on_nodes(nodes, "-- " .. quote(program))
            assert.matches("%[  PASSED  %] %d+ test", output)
            assert.is_nil(output:find("SKIPPED", 1, true), output)
        end)
    end
end)
