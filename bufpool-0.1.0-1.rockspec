rockspec_format = "3.0"
package = "bufpool"
version = "0.1.0-1"
-- Of a clone, for luarocks make. make rock puts the tarball's address here.
source = { url = "." }
description = {
    summary = "A pool of zeroed byte buffers for LuaJIT and OpenResty",
    detailed = [[
Buffers in fixed size classes, checked out and released, or returned by the
garbage collector, and wiped on the way. The core is C11 with per-thread
caches and lock-free rings; accessors are Lua over FFI. Needs LuaJIT 2.1 on
a 64-bit system, and to build its headers and those of Concurrency Kit.]],
    license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1" }
build = {
    type = "make",
    install_target = "install-module",
    build_variables = {
        CC = "$(CC)",
        CFLAGS = "$(CFLAGS)",
        LUA_INCDIR = "$(LUA_INCDIR)",
    },
    install_variables = {
        CC = "$(CC)",
        CFLAGS = "$(CFLAGS)",
        LUA_INCDIR = "$(LUA_INCDIR)",
        LUADIR = "$(LUADIR)",
        LUALIBDIR = "$(LIBDIR)",
    },
}
