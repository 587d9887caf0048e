/*
 * typed - numbers of a kind, for plain.c: the method of typed.lua without a
 * prefix, and those with get_, set_ and put_. UP_KIND has the kind. And the
 * methods of varint.lua, where UP_KIND has the form, and its function `at`,
 * which is given the form.
 */
#ifndef BUFPOOL_LUA_TYPED_H
#define BUFPOOL_LUA_TYPED_H

#include <lua.h>

/* A kind of number, of 1 to 8 bytes. */
#define KIND_SIZE 15
#define KIND_SIGNED 16
#define KIND_BIG 32	/* big-endian */
#define KIND_FLOAT 64

int bp_typed_read(lua_State *L);
int bp_typed_get(lua_State *L);
int bp_typed_set(lua_State *L);
int bp_typed_put(lua_State *L);

int bp_typed_put_varint(lua_State *L);
int bp_typed_get_varint(lua_State *L);
int bp_typed_varint_at(lua_State *L);

#endif
