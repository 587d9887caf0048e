-- What `make install` and LuaRocks install works without the source tree.
local LUAJIT = os.getenv "LUAJIT" or "luajit"

local function shell(command)
    local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1 </dev/null; "
        .. "echo \"status $?\"", "r"))
    local text, status = pipe:read "*a":match "^(.*)status (%d+)\n$"
    pipe:close()
    return text, tonumber(status)
end

local function must(command)
    local text, status = shell(command)
    if status ~= 0 then
        error(command .. ": status " .. status .. ":\n" .. text, 2)
    end
    return text
end

-- The make that runs these specs passes its own variables on: not to ours.
local function make(arguments)
    return must("env -u MAKEFLAGS -u MAKELEVEL -u BUILD make -s " .. arguments)
end

-- The files below a folder, by their names there, sorted.
local function files(dir)
    return must("cd " .. dir .. " && find . -type f | LC_ALL=C sort")
end

local function lines(list)
    return table.concat(list, "\n") .. "\n"
end

-- Every Lua file of the source tree, as it would stand below `prefix`.
local function with_modules(prefix, others)
    for file in must "ls lua/bufpool/*.lua":gmatch "([^/\n]+)\n" do
        others[#others + 1] = prefix .. "/share/lua/5.1/bufpool/" .. file
    end
    others[#others + 1] = prefix .. "/lib/lua/5.1/bufpool/core.so"
    table.sort(others)
    return lines(others)
end

local TRY = [[
local bufpool = require "bufpool"
local buf = bufpool.new{}:checkout(5)
buf:write(1, "hello")
print(tostring(buf), bufpool._VERSION)]]

-- Runs TRY from another folder with the modules below `prefix` only.
local function try(prefix)
    return must(("cd / && env LUA_PATH='%s/share/lua/5.1/?.lua;%s/share/lua/"
        .. "5.1/?/init.lua' LUA_CPATH='%s/lib/lua/5.1/?.so' %s -e '%s'")
        :format(prefix, prefix, prefix, LUAJIT, TRY))
end

local function installed(tool)
    return select(2, shell("command -v " .. tool)) == 0
end

describe("make install", function()
    local dir, version

    setup(function()
        dir = must "mktemp -d":gsub("\n", "")
        version = must "cat src/bufpool.h"
            :match '#define BUFPOOL_VERSION "([%d.]+)"'
        make("install PREFIX=/opt/x DESTDIR=" .. dir .. "/stage")
        make("install PREFIX=" .. dir .. "/tree")
    end)

    teardown(function()
        must("rm -rf " .. dir)
    end)

    it("installs these files and no others, below DESTDIR", function()
        assert.equal(with_modules("./opt/x", {
            "./opt/x/include/bufpool.h",
            "./opt/x/include/bufpool_lua.h",
            "./opt/x/lib/libbufpool.a",
            "./opt/x/lib/libbufpool_lua.a",
            "./opt/x/lib/pkgconfig/bufpool.pc",
            "./opt/x/lib/pkgconfig/bufpool_lua.pc",
        }), files(dir .. "/stage"))
    end)

    it("leaves no trace of DESTDIR in what it installs", function()
        assert.equal("", (shell(("grep -rl '%s' %s/stage/opt/x/lib/pkgconfig")
            :format(dir, dir))))
    end)

    it("installs a module that runs from there", function()
        assert.equal("hello\t" .. version .. "\n", try(dir .. "/tree"))
    end)

    it("marks the module as never to be unloaded", function()
        local flags = must("readelf -d " .. dir
            .. "/tree/lib/lua/5.1/bufpool/core.so")
        assert.truthy(flags:find("NODELETE", 1, true), flags)
    end)

    it("exports nothing but the library's own names", function()
        local names = must("nm -D --defined-only " .. dir
            .. "/tree/lib/lua/5.1/bufpool/core.so")
        assert.truthy(names:find("luaopen_bufpool_core", 1, true), names)
        for name in names:gmatch "%S+ %u (%S+)" do
            assert.truthy(name:find "^bufpool_" or name:find "^luaopen_",
                name)
        end
    end)

    it("shows nothing but its own names in the library for hosts", function()
        local names, seen = must("nm -g --defined-only " .. dir
            .. "/tree/lib/libbufpool_lua.a"), 0
        -- DW.ref.* are the compiler's, one for all objects that unwind.
        for name in names:gmatch "%S+ %u (%S+)" do
            assert.truthy(name:find "^bufpool_"
                or name:find "^luaopen_bufpool" or name:find "^DW%.ref%.",
                name)
            seen = seen + 1
        end
        assert.is_true(seen > 10)
    end)

    if not installed "pkg-config" then
        pending("serves C programs: pkg-config is not installed")
        pending("serves hosts: pkg-config is not installed")
        return
    end

    -- Builds a program with what pkg-config says, and runs it.
    local function build(source, modules, language)
        local file = assert(io.open(dir .. "/program.c", "w"))
        file:write(source)
        file:close()
        return must(("export PKG_CONFIG_PATH=%s/tree/lib/pkgconfig; cd %s && "
            .. "%s program.c -Wall -Werror -o program -x none "
            .. "$(pkg-config --cflags --libs %s) && ./program")
            :format(dir, dir, language or "cc -x c", modules))
    end

    it("serves C programs through pkg-config", function()
        assert.equal(version .. "\n", must("env PKG_CONFIG_PATH=" .. dir
            .. "/tree/lib/pkgconfig pkg-config --modversion bufpool"))
        assert.equal("4096 0\n", build([[
#include <stdio.h>
#include <bufpool.h>
int main(void)
{
    struct bufpool *pool = bufpool_create(NULL);
    struct bufpool_buf *buf = bufpool_checkout(pool, 100);
    printf("%zu %d\n", bufpool_capacity(buf), *(char *)bufpool_data(buf));
    bufpool_release(buf);
    bufpool_destroy(pool);
    return 0;
}
]], "bufpool"))
    end)

    local function c_string(text)
        return '"' .. text:gsub("[\\\"]", "\\%0"):gsub("\n", "\\n") .. '"'
    end

    it("serves hosts, with the Lua files inside", function()
        assert.equal("hello\t" .. version .. "\n", build([[
#include <stdio.h>
#include <lauxlib.h>
#include <lualib.h>
#include <bufpool_lua.h>
int main(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_bufpool);
    lua_call(L, 0, 0);
    if (luaL_dostring(L, ]] .. c_string(
        "package.path, package.cpath = '', ''\n" .. TRY) .. [[))
        puts(lua_tostring(L, -1));
    lua_close(L);
    return 0;
}
]], "bufpool_lua"))
    end)

    it("needs nothing but bufpool_lua to build the example", function()
        local file = assert(io.open "examples/host.c")
        local source = file:read "*a"
        file:close()
        assert.truthy(build(source, "bufpool_lua"):find("Lua:  got", 1, true))
    end)

    if not installed "c++" then
        pending("serves hosts in C++: there is no C++ compiler")
        return
    end

    it("serves hosts in C++ that include its header first", function()
        assert.equal("table\n", build([[
#include <bufpool_lua.h>
#include <cstdio>
extern "C" {
#include <lauxlib.h>
#include <lualib.h>
}
int main()
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_bufpool);
    lua_call(L, 0, 1);
    std::puts(luaL_typename(L, -1));
    bufpool_lua_push_pool(L, bufpool_create(NULL));
    lua_close(L);
    return 0;
}
]], "bufpool_lua", "c++ -x c++"))
    end)
end)

describe("luarocks make", function()
    if not installed "luarocks" then
        pending("installs a rock: luarocks is not installed")
        return
    end

    local tree

    setup(function()
        tree = must "mktemp -d":gsub("\n", "")
        must("env -u MAKEFLAGS -u MAKELEVEL -u BUILD -u LUA_PATH -u LUA_CPATH "
            .. "luarocks --lua-version 5.1 --tree " .. tree .. " make")
    end)

    teardown(function()
        must("rm -rf " .. tree)
    end)

    it("installs Lua files and the core into the tree", function()
        must(("rm -rf %s/lib/luarocks"):format(tree))
        assert.equal(with_modules(".", {}), files(tree))
    end)

    it("installs a module that runs from there", function()
        assert.truthy(try(tree):find("^hello\t"))
    end)
end)
