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
local MAKE = "env -u MAKEFLAGS -u MAKELEVEL -u BUILD make "

local function make(arguments)
    return must(MAKE .. "-s " .. arguments)
end

local function quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- The files below a folder, by their names there, sorted.
local function files(dir)
    return must("cd " .. quote(dir)
        .. " && find . ! -type d | LC_ALL=C sort")
end

local function lines(list)
    return table.concat(list, "\n") .. "\n"
end

-- Every Lua file of the source tree, as it would stand below `prefix`.
local function with_modules(prefix, others)
    for file in must "cd lua && find bufpool -name '*.lua'":gmatch "[^\n]+" do
        others[#others + 1] = prefix .. "/share/lua/5.1/" .. file
    end
    others[#others + 1] = prefix .. "/lib/lua/5.1/bufpool/core.so"
    table.sort(others)
    return lines(others)
end

-- What the library shows. A name that leaves this list, or changes what it
-- means, raises the number of libbufpool.so; a new one does not.
local EXPORTS = {
    "adopt", "adopt_range", "append", "capacity", "checkout",
    "checkout_aligned", "checkout_zeroed", "close", "commit",
    "config_init_sized", "create", "data", "default", "destroy", "detach",
    "detect_leaks", "freeze", "frozen_data", "frozen_len", "frozen_ref",
    "frozen_unref", "get", "get_sites_sized", "get_stats_sized",
    "heed_pressure", "len", "maintain", "peek", "ref", "release", "reserve",
    "resident", "resize", "share", "share_range", "skip", "split",
    "thread_flush", "trim", "trim_some", "try_checkout", "version", "wrote",
}

local TRY = [[
local bufpool = require "bufpool"
local buf = bufpool.new{}:checkout(5)
buf:write(1, "hello")
print(tostring(buf), bufpool._VERSION)]]

-- Runs TRY from another folder with the modules below `prefix` only.
local function try(prefix)
    return must(("cd / && env LUA_PATH=%s LUA_CPATH=%s %s -e '%s'"):format(
        quote(("%s/share/lua/5.1/?.lua;%s/share/lua/5.1/?/init.lua")
            :format(prefix, prefix)),
        quote(prefix .. "/lib/lua/5.1/?.so"), LUAJIT, TRY))
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
        local others = {
            "./opt/x/include/bufpool.h",
            "./opt/x/include/bufpool_lua.h",
            "./opt/x/lib/cmake/bufpool/bufpool-config-version.cmake",
            "./opt/x/lib/cmake/bufpool/bufpool-config.cmake",
            "./opt/x/lib/libbufpool.a",
            "./opt/x/lib/libbufpool.so",
            "./opt/x/lib/libbufpool.so.0",
            "./opt/x/lib/libbufpool_lua.a",
            "./opt/x/lib/pkgconfig/bufpool.pc",
            "./opt/x/lib/pkgconfig/bufpool_lua.pc",
        }
        for name in must "find examples -type f":gmatch "[^\n]+" do
            others[#others + 1] = "./opt/x/share/doc/bufpool/" .. name
        end
        assert.equal(with_modules("./opt/x", others), files(dir .. "/stage"))
    end)

    it("installs what packages of Debian are made of, in their version",
        function()
            local debian = ".ci/packaging/debian"
            assert.equal(version, must("cat " .. debian .. "/changelog")
                :match "^bufpool %(([%d.]+)%)")
            local left = dir .. "/package"
            make("install PREFIX=/usr LIBDIR=/usr/lib/any LUALIBDIR=/usr/lib/"
                .. "any/lua/5.1 DOCDIR=/usr/share/doc/libbufpool-dev DESTDIR="
                .. left)
            must(("for name in $(cat %s/*.install); do rm -r %s/$name; done")
                :format(debian, left))
            assert.equal("", files(left))
        end)

    -- abuild's amove moves files from $pkgdir to $subpkgdir. Its own functions
    -- for -doc and -dev are not tried.
    it("is what Alpine's package takes, in its version", function()
        local to = dir .. "/alpine"
        assert.equal(version .. "\n", must(([[
            amove() {
                for name; do
                    mkdir -p "$subpkgdir/$(dirname "$name")"
                    mv "$pkgdir/$name" "$subpkgdir/$name"
                done
            }
            make() { %s -s "$@"; }
            . .ci/packaging/alpine/APKBUILD
            pkgdir=%s/main subpkgdir=%s/lua
            build && package && lua && echo $pkgver]]):format(MAKE, to, to)))
        assert.equal(with_modules("./usr", {}), files(to .. "/lua"))
        make("install PREFIX=/usr DESTDIR=" .. to .. "/all")
        must(("cd %s && mkdir -p all/usr/share/licenses && cp -R main/usr/share"
            .. "/licenses all/usr/share && cp -R lua/. main"):format(to))
        assert.equal(files(to .. "/all"), files(to .. "/main"))
    end)

    it("leaves no trace of DESTDIR in what it installs", function()
        assert.equal("", (shell("grep -rl " .. dir .. " " .. dir
            .. "/stage/opt/x")))
    end)

    it("lets everybody read them, whatever the umask", function()
        shell("umask 077 && " .. MAKE .. "install DEPS=: PREFIX=" .. dir
            .. "/closed/tree")
        assert.equal("", must("cd " .. dir .. "/closed && "
            .. "find . -type f ! -perm -444 -o -type d ! -perm -555"))
    end)

    it("installs a module that runs from there", function()
        assert.equal("hello\t" .. version .. "\n", try(dir .. "/tree"))
    end)

    it("marks what it installs as never to be unloaded", function()
        for _, name in ipairs { "lua/5.1/bufpool/core.so", "libbufpool.so" } do
            local flags = must("readelf -d " .. dir .. "/tree/lib/" .. name)
            assert.truthy(flags:find("NODELETE", 1, true), flags)
        end
    end)

    it("installs a library that shows these functions, versioned", function()
        local library = dir .. "/tree/lib/libbufpool.so"
        local expected = {}
        for i, name in ipairs(EXPORTS) do
            expected[i] = "bufpool_" .. name .. "@@BUFPOOL_0"
        end
        assert.equal(lines(expected), must("nm -D --defined-only " .. library
            .. " | sed -n 's/.* T //p' | LC_ALL=C sort"))
        assert.truthy(must("readelf -d " .. library)
            :find("soname: [libbufpool.so.0]", 1, true))
    end)

    it("shows in the library what bufpool.h declares", function()
        local declared = {}
        for name in must "cc -E -P src/bufpool.h":gmatch "bufpool_([%w_]+)%(" do
            declared[#declared + 1] = name
        end
        table.sort(declared)
        assert.same(EXPORTS, declared)
    end)

    it("installs examples that run from there", function()
        local text = must(("cd %s && env LUA_PATH='%s/tree/share/lua/5.1/?.lua"
            .. ";%s/tree/share/lua/5.1/?/init.lua' LUA_CPATH="
            .. "'%s/tree/lib/lua/5.1/?.so' %s tree/share/doc/bufpool/examples/"
            .. "digest.lua --check tree/include"):format(dir, dir, dir, dir,
            LUAJIT))
        assert.truthy(text:find "sha256sum agrees on +2\n", text)
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
            assert.truthy(name:find "^bufpool_" or name:find "^bp_"
                or name:find "^luaopen_bufpool" or name:find "^DW%.ref%.",
                name)
            seen = seen + 1
        end
        assert.is_true(seen > 10)
    end)

    -- Spaces, a quote, and what the shell and sed take for their own.
    local ODD = "/it's an|odd & $(false) place"

    it("installs below any PREFIX and DESTDIR", function()
        make("install PREFIX=" .. quote(dir .. ODD:gsub("%$", "$$")))
        assert.equal("hello\t" .. version .. "\n", try(dir .. ODD))
        make(("install PREFIX='/opt/a b' DESTDIR=%s"):format(
            quote(dir .. "/staged here")))
        assert.equal(files(dir .. "/stage"):gsub("/opt/x/", "/opt/a b/"),
            (files(dir .. "/staged here")))
    end)

    if not installed "pkg-config" then
        pending("serves C programs: pkg-config is not installed")
        pending("serves hosts: pkg-config is not installed")
        return
    end

    local FOUND = ("export PKG_CONFIG_PATH=%s/tree/lib/pkgconfig "
        .. "LD_LIBRARY_PATH=%s/tree/lib; cd %s && ")

    local function write(name, text)
        local file = assert(io.open(dir .. "/" .. name, "w"))
        file:write(text)
        file:close()
    end

    local function found(command)
        return must(FOUND:format(dir, dir, dir) .. command)
    end

    -- Builds a program with what pkg-config says, and runs it.
    local function build(source, modules, language)
        write("program.c", source)
        return found(("%s program.c -Wall -Werror -o program -x none "
            .. "$(pkg-config --cflags --libs %s) && ./program")
            :format(language or "cc -x c", modules))
    end

    local PROGRAM = [[
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
]]

    it("runs the C programs of the reference", function()
        local file = assert(io.open "doc/api.md")
        local text, count = file:read "*a", 0
        file:close()
        for code in text:gmatch "\n```c\n(.-\n)```\n" do
            local expected = {}
            for line in code:gmatch "/%* %-%-> (.-) %*/" do
                expected[#expected + 1] = line
            end
            assert.equal(lines(expected), build(code, "bufpool"))
            count = count + 1
        end
        assert.is_true(count > 0)
    end)

    it("serves C programs through pkg-config", function()
        assert.equal(version .. "\n", found "pkg-config --modversion bufpool")
        assert.equal("4096 0\n", build(PROGRAM, "bufpool"))
        assert.truthy(found "readelf -d program"
            :find("NEEDED[^\n]*%[libbufpool%.so%.0%]"))
        assert.equal("4096 0\n", build(PROGRAM, "bufpool --static "
            .. "| sed s/-lbufpool/-l:libbufpool.a/"))
        assert.falsy(found "readelf -d program":find "libbufpool")
    end)

    -- The recipe of security.md, with a library that was built without ASan.
    it("stops a stray store under ASan with BUFPOOL_DEBUG=harden", function()
        write("stray.c", [[
#include <bufpool.h>
int main(void)
{
    struct bufpool *pool = bufpool_create(NULL);
    struct bufpool_buf *buf = bufpool_checkout(pool, 100);
    char *bytes = bufpool_data(buf);
    bufpool_release(buf);
    bytes[3] = 1;
    return 0;
}
]])
        if not pcall(found, "cc -fsanitize=address -x c -o stray stray.c "
            .. "-x none $(pkg-config --cflags --libs bufpool)") then
            pending "the compiler has no AddressSanitizer"
        end
        -- Nobody finds it otherwise.
        assert.equal("", (found "./stray"))
        local text = found "BUFPOOL_DEBUG=harden ./stray 2>&1 || true"
        assert.matches("bufpool: fault at .-byte 4 of buffer", text)
        assert.matches("it was checked out at stray.-, released at stray", text)
        assert.matches("AddressSanitizer: SEGV.- in main", text)
    end)

    it("names folders by the prefix, or as they are", function()
        assert.equal("/moved/include\n", found("pkg-config "
            .. "--define-variable=prefix=/moved --variable=includedir "
            .. "bufpool"))
        make("install INCDIR=/usr/include/b PREFIX='/opt/a b' DESTDIR=" .. dir
            .. "/apart")
        assert.equal("-I/usr/include/b -L/opt/a\\ b/lib -lbufpool\n", must(
            "PKG_CONFIG_PATH=" .. dir .. "/apart/opt/a\\ b/lib/pkgconfig "
            .. "pkg-config --cflags --libs bufpool | sed 's/ *$//'"))
    end)

    if installed "cmake" then
        it("serves CMake's find_package", function()
            write("main.c", PROGRAM)
            write("CMakeLists.txt", [[
cmake_minimum_required(VERSION 3.13)
project(program C)
find_package(bufpool ]] .. version .. [[ REQUIRED)
find_package(bufpool REQUIRED)
add_executable(program main.c)
target_link_libraries(program bufpool::bufpool)
]])
            found("cmake -DCMAKE_PREFIX_PATH=$PWD/tree -S . -B cmade && "
                .. "cmake --build cmade")
            assert.equal("4096 0\n", found "cmade/program")
        end)
    else
        pending("serves CMake's find_package: cmake is not installed")
    end

    if installed "meson" then
        it("serves meson's dependency()", function()
            write("main.c", PROGRAM)
            write("meson.build", "project('program', 'c')\n"
                .. "executable('program', 'main.c', "
                .. "dependencies: dependency('bufpool'))\n")
            found "meson setup mesoned && meson compile -C mesoned"
            assert.equal("4096 0\n", found "mesoned/program")
        end)
    else
        pending("serves meson's dependency(): meson is not installed")
    end

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

    it("serves hosts that link the library for C programs too", function()
        for _, modules in ipairs { "bufpool bufpool_lua",
            "bufpool_lua bufpool" } do
            assert.equal("hello\n", build([[
#include <stdio.h>
#include <lauxlib.h>
#include <lualib.h>
#include <bufpool_lua.h>
int main(void)
{
    lua_State *L = luaL_newstate();
    struct bufpool *pool = bufpool_create(NULL);
    struct bufpool_buf *buf = bufpool_checkout(pool, 0);
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_bufpool);
    lua_call(L, 0, 0);
    bufpool_append(buf, "hello", 5);
    bufpool_lua_push_buf(L, buf);
    lua_setglobal(L, "buf");
    if (luaL_dostring(L, "print(tostring(buf))"))
        puts(lua_tostring(L, -1));
    lua_close(L);
    bufpool_destroy(pool);
    return 0;
}
]], modules))
            -- Everything is from one copy: nothing from the shared library.
            local names = found "nm -u program"
            assert.falsy(names:find("bufpool_", 1, true), names)
        end
    end)

    it("needs nothing but bufpool_lua to build the example", function()
        local file = assert(io.open "examples/host.c")
        local source = file:read "*a"
        file:close()
        assert.truthy(build(source, "bufpool_lua"):find(
            "error -> the connection was closed\n"
            .. "the others go on -> the others go on\n", 1, true))
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

describe("make uninstall", function()
    local dir

    setup(function()
        dir = must "mktemp -d":gsub("\n", "")
    end)

    teardown(function()
        must("rm -rf " .. dir)
    end)

    it("takes back what make install put there, and nothing else", function()
        local where = "PREFIX='/opt/a b' DESTDIR=" .. quote(dir .. "/to it")
        local foreign = {
            "include/other.h", "lib/libother.a", "lib/lua/5.1/bufpool/other",
            "lib/pkgconfig/other.pc", "share/lua/5.1/bufpool/other.lua",
        }
        make("install " .. where)
        for i, name in ipairs(foreign) do
            foreign[i] = "./opt/a b/" .. name
            must("touch " .. quote(dir .. "/to it/" .. foreign[i]))
        end
        make("uninstall " .. where)
        assert.equal(lines(foreign), files(dir .. "/to it"))
    end)

    it("removes its own folders", function()
        make("install PREFIX=" .. dir .. "/own")
        make("uninstall PREFIX=" .. dir .. "/own")
        assert.equal("", must("cd " .. dir .. "/own && find . -name bufpool"))
    end)

    it("does no harm where nothing is installed", function()
        make("uninstall PREFIX=" .. dir .. "/nothing")
    end)
end)

describe("make", function()
    local build = "build/spec-of-make"

    setup(function()
        must(("mkdir -p %s && echo '#error' >%s/ck_ring.h"):format(build,
            build))
    end)

    teardown(function()
        must("rm -rf " .. build)
    end)

    it("lists targets and variables", function()
        local text = must(MAKE .. "help")
        for _, name in ipairs { "all", "check", "deps", "uninstall" } do
            assert.truthy(text:find("\n  " .. name .. " +%l"), name)
        end
        assert.truthy(text:find("\n  PREFIX +[^\n]*%(/usr/local%)\n"), text)
        for line in text:gmatch "[^\n]+" do
            assert.is_true(#line < 80, line)
        end
    end)

    it("says in short lines what it does", function()
        local text = must(MAKE .. "BUILD=" .. build .. " " .. build
            .. "/cdef.h")
        assert.equal("GEN " .. build .. "/cdef.h\n", text)
    end)

    it("shows its commands with V=1, and nothing with -s", function()
        local again = "-W Makefile BUILD=" .. build .. " " .. build .. "/cdef.h"
        local text = must(MAKE .. "V=1 " .. again)
        assert.truthy(text:find("static const char bufpool_cdef", 1, true))
        assert.equal("", make(again))
    end)

    it("builds for one spec what that spec needs", function()
        local function built(spec)
            return must(MAKE .. "-n BUILD=" .. build .. "/one for-specs SPEC="
                .. spec)
        end
        local text = built "spec/pool.c"
        assert.truthy(text:find("-o " .. build .. "/one/spec/pool ", 1, true))
        assert.falsy(text:find("src/lua/", 1, true), text)
        assert.falsy(text:find("spec/wipe", 1, true), text)
        text = built "spec/05-io_spec.lua"
        assert.truthy(text:find("/one/lua/bufpool/core.so ", 1, true), text)
        assert.falsy(text:find("/one/spec/", 1, true), text)
        text = built "spec/fenced.c"
        assert.truthy(text:find("/one/spec/stress ", 1, true), text)
    end)

    it("builds the same bytes in every folder", function()
        local sums = {}
        for i, name in ipairs { "one", "an other" } do
            local tree = quote(build .. "/" .. name)
            must(("mkdir -p %s && cp -r Makefile src lua spec examples %s")
                :format(tree, tree))
            make("-j2 CFLAGS='-O0 -g' -C " .. tree)
            sums[i] = must("cd " .. tree .. "/build && sha256sum *.so.* *.a "
                .. "lua/bufpool/core.so")
        end
        assert.equal(sums[1], sums[2])
    end)

    it("refuses to build into a folder with a space", function()
        local text, status = shell(MAKE .. "BUILD='a b'")
        assert.equal(2, status)
        assert.truthy(text:find("BUILD='a b': make cannot", 1, true), text)
    end)

    it("refuses a compiler for 32 bits in one sentence", function()
        if not installed "gcc" or select(2, shell(
            "echo 'int x;' | gcc -m32 -fsyntax-only -x c -")) ~= 0 then
            pending "there is no such compiler"
            return
        end
        local text, status = shell(MAKE .. "CC='gcc -m32' BUILD=" .. build
            .. "/none all")
        assert.equal(2, status)
        assert.truthy(text:find("^bufpool: no 64%-bit system: 'gcc %-m32' "
            .. "compiles for 32 bits, where bufpool does not run\nmake"), text)
        text = shell "gcc -m32 -Isrc -ffreestanding -xc -c src/bufpool.h"
        assert.truthy(text:find("bufpool runs on 64-bit systems only", 1, true),
            text)
    end)

    it("says where it runs when it is called from elsewhere", function()
        local text, status = shell("root=$PWD && cd / && " .. MAKE
            .. "-f \"$root/Makefile\"")
        assert.equal(2, status)
        assert.truthy(text:find("bufpool: make runs in the folder of its "
            .. "Makefile: make -C /", 1, true), text)
    end)

    for what, give in pairs {
        ["C compiler"] = "CC=no-such-compiler",
        ["headers of the C library"] = "CPPFLAGS=-nostdinc",
        ["LuaJIT headers"] = "LUA_INC=",
        ["Concurrency Kit headers"] = "CPPFLAGS=-I" .. build,
    } do
        it("says when there are no " .. what, function()
            local text, status = shell(MAKE .. "BUILD=" .. build .. "/none "
                .. give .. " " .. build .. "/none/headers")
            assert.equal(2, status)
            assert.truthy(text:find("^bufpool: no " .. what), text)
        end)
    end
end)

describe(".ci/run", function()
    local RUN = "env -u MAKEFLAGS -u MAKELEVEL -u BUILD .ci/run "

    it("sums all stages in its last line, and names what failed", function()
        local build = "build/spec-of-run"
        must("mkdir -p " .. build)
        local file = assert(io.open(build .. "/run.mk", "w"))
        file:write("sums:\n\t@echo 2 passed, 0 failed, "
            .. "3 skipped\nfails:\n\t@echo 4 passed, 2 failed, 0 skipped\n"
            .. "\t@exit 1\n")
        file:close()
        local text, status = shell("MAKEFILES=" .. build .. "/run.mk " .. RUN
            .. "help sums")
        assert.equal(0, status, text)
        assert.truthy(text:find("\n3 passed, 0 failed, 3 skipped\n$"), text)
        text, status = shell("MAKEFILES=" .. build .. "/run.mk " .. RUN
            .. "sums no-such-stage fails")
        assert.equal(1, status, text)
        assert.truthy(text:find("\n==== failed\n"
            .. "FAILED   make no%-such%-stage: ended with status 2\n"
            .. "    again: make no%-such%-stage\n"
            .. "FAILED   make fails\n    again: make fails\n"
            .. "6 passed, 3 failed, 3 skipped\n$"), text)
        must("rm -rf " .. build)
    end)
end)

describe(".ci/test", function()
    local build = "build/spec-of-test"
    local file = build .. "/99-one_spec.lua"

    local function run(options, code)
        must("mkdir -p " .. build)
        local spec = assert(io.open(file, "w"))
        spec:write(code)
        spec:close()
        local text, status = shell("env -u MAKEFLAGS -u MAKELEVEL -u BUSTED "
            .. options .. " " .. file .. " spec/26-faults_spec.lua")
        must("rm -rf " .. build)
        return text, status
    end

    -- Kills the .ci/test that runs it.
    local killer = [[
        it("kills", function()
            local pid, victim = "self", nil
            while true do
                local status = io.open("/proc/" .. pid .. "/status"):read "*a"
                pid = status:match "PPid:%s*(%d+)"
                local line = io.open("/proc/" .. pid .. "/cmdline"):read "*a"
                if line:find(".ci/test\0", 1, true) then
                    victim = pid
                elseif victim then
                    break
                end
            end
            os.execute("kill -9 " .. victim)
        end)
    ]]

    it("says in the end what failed, why, and what runs it again", function()
        local text, status = run("AGAIN=asan JOBS=1 .ci/test", [[
            it("is red", function() error "x" end)
            it("is green", function() end)
        ]])
        assert.equal(1, status, text)
        assert.truthy(text:find("\n==== failed\nFAILED   " .. file
            .. ": is red\n    again: make asan SPEC=" .. file
            .. "\n         " .. file .. ":1: x"
            .. "\n3 passed, 1 failed, 0 skipped\n", 1, true), text)
    end)

    it("ends a file that says nothing for too long", function()
        local text, status = run("LIMIT=1 .ci/test", [[
            it("sleeps", function() os.execute "sleep 600" end)
        ]])
        assert.equal(1, status, text)
        assert.truthy(text:find("FAILED   " .. file .. ": hung\n", 1, true),
            text)
    end)

    it("counts as failed for those that run it when it is killed", function()
        local text, status = run("bash -c '. .ci/sums; .ci/test \"$@\" "
            .. ">$scratch/log; add $scratch/log $? one again; finish' --",
            killer)
        assert.equal(1, status, text)
        assert.truthy(text:find("\n==== failed\nFAILED   one: ended with "
            .. "status 137\n    again: again\n0 passed, 1 failed, 0 skipped\n$"
            ), text)
    end)
end)

describe(".ci/deps", function()
    local dir

    local function program(name, text)
        local file = assert(io.open(dir .. "/" .. name, "w"))
        file:write("#!/usr/bin/env bash\n", text)
        file:close()
        must(("chmod 755 %s/%s"):format(dir, name))
    end

    -- What there is to install.
    local function knows(names)
        program("apt-cache", "echo \"$2:\"\ncase ' " .. names .. " ' in\n"
            .. "*\" $2 \"*) echo '  Candidate: 1.0-1' ;;\n"
            .. "*) echo '  Candidate: (none)' ;;\nesac\n")
    end

    local function is_root()
        if must "id -u" == "0\n" then
            return true
        end
        pending "needs root: it would call sudo"
    end

    local function deps(target)
        return shell(("PATH=%s POLICY=%s/policy bash .ci/deps %s"):format(dir,
            dir, target))
    end

    -- Stands for a Debian without the packages: a folder of tools, where the
    -- package manager is ours.
    setup(function()
        dir = must "mktemp -d":gsub("\n", "")
        must(("chmod 755 %s && cd %s && ln -s $(for tool in bash cat env "
            .. "chmod grep mktemp rm sed tail tee tr; do "
            .. "command -v $tool; done) /bin/echo ."):format(dir, dir))
        program("apt-get", [[
for name; do
    case $name in
    update) echo "dlstatus:1:50.0:Retrieving file 1 of 2"; exit ;;
    lib*) echo "pmstatus:$name:30.5:Installed $name (amd64)" ;;
    esac
done
test ! -x "$POLICY" || { "$POLICY"; echo "the policy says $?"; } >"$0.policy"
echo "E: this apt-get installs nothing"
exit 100
]])
        program("dpkg-query", "exit 1\n")
        program("update-rc.d", 'echo "$*" >"$0.said"\n')
        knows "gcc make libc6-dev luajit libluajit-5.1-dev"
    end)

    teardown(function()
        must("rm -rf " .. dir)
    end)

    it("says what it installs while it does, and what failed", function()
        if not is_root() then
            return
        end
        local text, status = deps "demo"
        assert.equal(1, status, text)
        assert.truthy(text:find(" 30 %% of [%w ]+: Installed libck%-dev"), text)
        assert.truthy(text:find("\nE: this apt%-get installs nothing\n"), text)
        assert.truthy(text:find("\nbufpool: could not install: [^\n]*libck"),
            text)
        assert.falsy(text:find "\r")
    end)

    it("installs the LuaJIT that apt knows", function()
        if not is_root() then
            return
        end
        for old, lib in pairs { luajit2 = "libluajit2-5.1-dev",
            luajit = "libluajit-5.1-dev" } do
            knows("gcc make libc6-dev " .. old .. " " .. lib)
            local text = deps "demo"
            assert.truthy(text:find(("apt-get install gcc make libc6-dev %s %s "
                ):format(old, lib), 1, true), text)
        end
    end)

    it("leaves no server running that it has installed", function()
        if not is_root() then
            return
        end
        deps "test"
        assert.equal("the policy says 101\n", (shell("cat " .. dir
            .. "/apt-get.policy")))
        assert.equal("nginx disable\n", (shell("cat " .. dir
            .. "/update-rc.d.said")))
        assert.equal(1, select(2, shell("test -e " .. dir .. "/policy")))
    end)

    it("goes on without what is good to have", function()
        if not is_root() then
            return
        end
        program("dpkg-query", [=[
for name; do
    [[ $name == chromium ]] || echo "ii  $name"
done
]=])
        local text, status = deps "check"
        program("dpkg-query", "exit 1\n")
        assert.equal(0, status, text)
        assert.truthy(text:find("\nbufpool: going on without chromium\n", 1,
            true), text)
    end)

    it("leaves a policy about servers as it is", function()
        if not is_root() then
            return
        end
        program("policy", "exit 7\n")
        deps "test"
        assert.equal("the policy says 7\n", (shell("cat " .. dir
            .. "/apt-get.policy")))
        must("rm " .. dir .. "/policy")
    end)

    it("does not say that it installs when it may not", function()
        -- On standard input, for the user nobody may not read this folder.
        local user = must "id -u" == "0\n" and installed "setpriv"
            and "setpriv --reuid=65534 --clear-groups " or ""
        if user == "" and must "id -u" == "0\n" then
            pending "root cannot become another user: no setpriv"
            return
        end
        local text, status = shell(("cat .ci/deps | %s env PATH=%s bash -s "
            .. "demo"):format(user, dir))
        assert.equal(1, status, text)
        assert.truthy(text:find("neither root nor sudo", 1, true), text)
        assert.falsy(text:find "installing", text)
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

describe("make rock", function()
    if not installed "luarocks" then
        pending("makes a rock: luarocks is not installed")
        return
    elseif select(2, shell "git log -1") ~= 0 then
        pending("makes a rock: this is not a clone")
        return
    end

    local build = "build/spec-of-rock"
    local dir, rock

    -- In a folder of its own, with a tree of its own.
    local function luarocks(arguments)
        return must(("cd %s && env -u MAKEFLAGS -u MAKELEVEL -u BUILD "
            .. "-u LUA_PATH -u LUA_CPATH luarocks --lua-version 5.1 "
            .. "--tree %s/tree %s"):format(dir, dir, arguments))
    end

    setup(function()
        dir = must "mktemp -d":gsub("\n", "")
        make("rock DEPS=: BUILD=" .. build)
        rock = must "pwd":gsub("\n", "") .. "/" .. build .. "/rock"
    end)

    teardown(function()
        must("rm -rf " .. dir .. " " .. build)
    end)

    after_each(function()
        must("rm -rf " .. dir .. "/tree")
    end)

    it("makes a tarball of what git knows", function()
        local name = must("cd " .. rock .. " && ls *.tar.gz")
            :match "^(.*)%.tar%.gz\n$"
        assert.equal(must("git ls-files | LC_ALL=C sort"):gsub("([^\n]+)",
            name .. "/%1"), (must("tar -tzf " .. quote(rock)
            .. "/*.tar.gz")))
    end)

    it("makes a rockspec that luarocks packs", function()
        luarocks("pack " .. quote(rock) .. "/*.rockspec")
        luarocks("install *.src.rock")
        assert.truthy(try(dir .. "/tree"):find("^hello\t"))
    end)

    it("makes a rockspec that luarocks builds", function()
        luarocks("build " .. quote(rock) .. "/*.rockspec")
        assert.truthy(try(dir .. "/tree"):find("^hello\t"))
    end)

    it("makes a folder that luarocks installs from, and removes", function()
        luarocks("install --only-server=" .. quote(rock) .. " bufpool")
        assert.truthy(try(dir .. "/tree"):find("^hello\t"))
        luarocks "remove bufpool"
        assert.equal("./lib/luarocks/rocks-5.1/manifest\n",
            files(dir .. "/tree"))
    end)

    it("writes the address given as ROCK_URL into the rockspec", function()
        make("rock DEPS=: BUILD=" .. build
            .. "/other ROCK_URL='https://example.org/a|b&c'")
        local text = must("cat " .. build .. "/other/rock/*.rockspec")
        assert.truthy(text:find("[[https://example.org/a|b&c/bufpool-", 1,
            true), text)
    end)
end)
