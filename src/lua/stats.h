/*
 * stats - statistics as Lua tables.
 */
#ifndef BUFPOOL_LUA_STATS_H
#define BUFPOOL_LUA_STATS_H

#include "box.h"

/* pool:stats() */
int bp_stats_of_pool(lua_State *L);

/* pool:resident() */
int bp_stats_resident(lua_State *L);

/* core.next_pool(_, cursor), for a loop that begins with the cursor 0: the next
 * cursor, the name of a pool, and its statistics; nothing after the last one.
 * The name is false where there is none or the pool is closed. */
int bp_stats_next(lua_State *L);

#endif
