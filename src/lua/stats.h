/*
 * stats - statistics as Lua tables.
 */
#ifndef BUFPOOL_LUA_STATS_H
#define BUFPOOL_LUA_STATS_H

#include "box.h"

/* pool:stats() */
int bp_stats_of_pool(lua_State *L);

/* core.stats(): the totals, and the field "pools" by name. */
int bp_stats_of_all(lua_State *L);

#endif
