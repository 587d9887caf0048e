/*
 * plain - the commonest methods for programs that run without the JIT. There a
 * call by FFI costs a hundred times what it costs on a trace. Each method here
 * does the plain case and hands everything else, mistakes included, to the Lua
 * method of that name.
 */
#ifndef BUFPOOL_LUA_PLAIN_H
#define BUFPOOL_LUA_PLAIN_H

#include "box.h"

/* core.plain(name, method, class, handles, type, int64, uint64): the form of C
 * for this method, or `method` where there is none. The class is a kind of
 * object or "handle", or nil for a function that takes objects of all. The
 * other arguments are what tells a handle, as self.c says; the type of handles;
 * and those of 64-bit integers. */
int bp_plain_method(lua_State *L);

#endif
