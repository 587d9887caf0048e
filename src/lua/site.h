/*
 * site - leak detection in Lua: which lines check buffers out.
 *
 * The core asks where a checkout comes from only when it is going to record it:
 * the checkout fails with ESITE, and is made once more for a listed site. So
 * the others pay nothing. No lua_State is kept: a function of C that has one
 * walks its frames, and functions called by FFI leave that to Lua, which calls
 * core.where.
 */
#ifndef BUFPOOL_LUA_SITE_H
#define BUFPOOL_LUA_SITE_H

#include "take.h"

/* The number of the site, from 1, of the Lua code that has called: a kind of
 * checkout takes it, times SITE_UNIT. May raise that memory is short. */
int bp_site_where(lua_State *L, struct bufpool *pool);

/* core.where(pool): bp_site_where. */
int bp_site_of_caller(lua_State *L);

/* core.origin(number, generation): where the buffer was checked out that the
 * descriptor of this number had, if that was recorded; or nil. */
int bp_site_origin(lua_State *L);

/* pool:sites() */
int bp_site_list(lua_State *L);

/* core.set(pool, detection, sample): the pool; or nil and a message. What is
 * nil stays as it is. */
int bp_site_set(lua_State *L);

/* Pushes what pool:sites() returns. The pool's box is in argument 1. */
void bp_site_push(lua_State *L, const char *name);

#endif
