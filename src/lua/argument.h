/*
 * argument - what C functions check of their arguments. Misuse is raised by
 * Lua's check.lua and object.lua, so that each message exists once.
 */
#ifndef BUFPOOL_LUA_ARGUMENT_H
#define BUFPOOL_LUA_ARGUMENT_H

#include "box.h"

/* Raises what is wrong with argument 1. */
_Noreturn void bp_argument_reject(lua_State *L, enum box_kind kind,
				  const char *function);

/* Raises what is wrong with an argument; self is not counted. */
_Noreturn void bp_argument_bad(lua_State *L, int argument, const char *function,
			       const char *what);

/* The box in argument 1; raises that it is none, or dead. */
static inline void *
argument_self(lua_State *L, enum box_kind kind, const char *function)
{
	void *box = box_test(L, 1, kind);

	if (__builtin_expect(box == NULL, 0))
		bp_argument_reject(L, kind, function);
	return box;
}

/* The size at `index`, or -1 when it is none or needs a closer look. */
static inline double
argument_plain_size(lua_State *L, int index)
{
	double n = lua_type(L, index) == LUA_TNUMBER ?
		lua_tonumber(L, index) : -1;

	return n >= 0 && n < 0x1p53 && n == (double)(int64_t)n ? n : -1;
}

/* The size at `index`, a number below 2^63 without a fraction; raises. */
double bp_argument_size_slow(lua_State *L, int index, int argument,
			     const char *function);

static inline double
argument_size(lua_State *L, int index, int argument, const char *function)
{
	double n = argument_plain_size(L, index);

	return __builtin_expect(n >= 0, 1) ? n :
		bp_argument_size_slow(L, index, argument, function);
}

#endif
