/*
 * clock - which VM of a process has the timer that lets idle memory go home.
 */
#ifndef BUFPOOL_LUA_CLOCK_H
#define BUFPOOL_LUA_CLOCK_H

#include <lua.h>

/* core.claim_clock(true): true for the first VM of a process that wants to keep
 * time for all; false for the others, until that one has given it up by
 * core.claim_clock(false). */
int bp_clock_claim(lua_State *L);

#endif
