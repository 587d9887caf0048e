/*
 * pack - parts of pack.lua, for plain.c. pack.lua calls them with what it has
 * checked, but for the object and its bounds.
 */
#ifndef BUFPOOL_LUA_PACK_H
#define BUFPOOL_LUA_PACK_H

#include <lua.h>

int bp_pack_from(lua_State *L);
int bp_pack_unpack_from(lua_State *L);
int bp_pack_extend(lua_State *L);
int bp_pack_bytes(lua_State *L);

#endif
