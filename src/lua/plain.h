/*
 * plain - the commonest methods for programs that run without the JIT. There a
 * call by FFI costs a hundred times what it costs on a trace. Each method here
 * does the plain case and hands everything else, mistakes included, to the Lua
 * method of that name.
 */
#ifndef BUFPOOL_LUA_PLAIN_H
#define BUFPOOL_LUA_PLAIN_H

#include "box.h"

/* core.plain(name, method, type, number, before): the method of this name for
 * plain cases, or `method` where there is none. The other arguments are the
 * type of handles, its number, and where that stands before a cdata's value. */
int plain_method(lua_State *L);

#endif
