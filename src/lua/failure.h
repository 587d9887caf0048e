/*
 * failure - what messages say of an errno, and what functions return of it.
 */
#ifndef BUFPOOL_LUA_FAILURE_H
#define BUFPOOL_LUA_FAILURE_H

#include <lua.h>
#include <stddef.h>

#define MESSAGE_MAX 160	/* bytes that hold any message */

/* As strerror, in `n` bytes at `to`. */
void bp_failure_message(int error, char *to, size_t n);

/* Why there are no `size` bytes. */
void bp_failure_shortage(int error, double size, char *to, size_t n);

/* What a function returns that has failed: nil and why. */
static inline int
failure_return(lua_State *L, const char *why)
{
	lua_pushnil(L);
	lua_pushstring(L, why);
	return 2;
}

#endif
