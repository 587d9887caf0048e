#include <stdlib.h>

#include "argument.h"

/* Lua's function of this name, which core.publish was given. */
static void
push_check(lua_State *L, const char *name)
{
	lua_getfield(L, UP_CORE, "checks");
	lua_getfield(L, -1, name);
	lua_remove(L, -2);
}

_Noreturn void
bp_argument_reject(lua_State *L, enum box_kind kind, const char *function)
{
	if (lua_isnone(L, 1))
		lua_pushnil(L);
	push_check(L, "reject");
	lua_pushvalue(L, 1);
	lua_pushstring(L, function);
	lua_pushstring(L, bp_box_kinds[kind - 1]);
	lua_call(L, 3, 0);
	abort();	/* Not run: reject raises. */
}

_Noreturn void
bp_argument_bad(lua_State *L, int argument, const char *function,
		const char *what)
{
	push_check(L, "bad_argument");
	lua_pushinteger(L, argument);
	lua_pushstring(L, function);
	lua_pushstring(L, what);
	lua_call(L, 3, 0);
	abort();	/* Not run: bad_argument raises. */
}

/* Only Lua code can tell the number that a cdata integer holds. */
double
bp_argument_size_slow(lua_State *L, int index, int argument,
		      const char *function)
{
	double n;

	if (lua_isnone(L, index))
		lua_pushnil(L);
	else
		lua_pushvalue(L, index);
	push_check(L, "size");
	lua_insert(L, -2);
	lua_pushstring(L, function);
	lua_pushinteger(L, argument);
	lua_call(L, 3, 1);
	n = lua_tonumber(L, -1);
	lua_pop(L, 1);
	return n;
}
