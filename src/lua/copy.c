#define _GNU_SOURCE
#include <dlfcn.h>

#include "copy.h"

/* An address that each copy has for itself, as a number: light userdata fail on
 * arm64. */
static double
copy_signature(void)
{
	return (double)(uintptr_t)&bp_box_cookie_drawn;
}

void
bp_copy_sign(lua_State *L)
{
	Dl_info info;
	const char *path = "the program";

	if (dladdr((const void *)&bp_box_cookie_drawn, &info) != 0 &&
	    info.dli_fname != NULL)
		path = info.dli_fname;
	lua_pushnumber(L, copy_signature());
	lua_setfield(L, -2, "copy");
	lua_pushfstring(L, "this Lua state uses another copy of bufpool (%s); "
			"a host that links bufpool_lua must call "
			"luaopen_bufpool before anything requires \"bufpool\"",
			path);
	lua_setfield(L, -2, "refusal");
}

/* Pushes the table, or nil, and whether it is another copy's. */
static bool
push_foreign(lua_State *L)
{
	bool foreign;

	lua_getfield(L, LUA_REGISTRYINDEX, KEY_BOXES);
	if (!lua_istable(L, -1))
		return false;
	lua_getfield(L, -1, "copy");
	foreign = lua_tonumber(L, -1) != copy_signature();
	lua_pop(L, 1);
	return foreign;
}

bool
bp_copy_push_boxes(lua_State *L)
{
	bool foreign = push_foreign(L);

	if (foreign)
		lua_getfield(L, -1, "refusal");
	else if (lua_isnil(L, -1))
		/* Not run: hosts open it first. */
		lua_pushliteral(L, "bufpool is not open in this Lua state");
	else
		return true;
	lua_remove(L, -2);
	return false;
}

bool
bp_copy_push_refusal(lua_State *L)
{
	bool foreign = push_foreign(L);

	if (foreign)
		lua_getfield(L, -1, "refusal");
	lua_remove(L, foreign ? -2 : -1);
	return foreign;
}
