/*
 * Rivals for bench/lua.lua. First, bytes behind a userdata, read and written by
 * lua_CFunctions with the checks that a C module usually makes. Second, a
 * userdata with an empty finalizer, to see what these cost by themselves.
 */
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#define TYPE "bench.access"
#define SIZE 4096

int luaopen_access(lua_State *L);

static uint8_t *
at(lua_State *L)
{
	uint8_t *bytes = luaL_checkudata(L, 1, TYPE);
	lua_Integer i = luaL_checkinteger(L, 2);

	luaL_argcheck(L, i >= 1 && i <= SIZE, 2, "out of range");
	return &bytes[i - 1];
}

static int
access_byte(lua_State *L)
{
	lua_pushinteger(L, *at(L));
	return 1;
}

static int
access_setbyte(lua_State *L)
{
	*at(L) = (uint8_t)luaL_checkinteger(L, 3);
	return 0;
}

static int
access_new(lua_State *L)
{
	memset(lua_newuserdata(L, SIZE), 0, SIZE);
	luaL_getmetatable(L, TYPE);
	lua_setmetatable(L, -2);
	return 1;
}

/* Makes a userdata of 64 bytes with the metatable that is given. */
static int
access_box(lua_State *L)
{
	lua_newuserdata(L, 64);
	lua_pushvalue(L, 1);
	lua_setmetatable(L, -2);
	return 1;
}

/* Gives a userdata another metatable, without __gc, so that it will not be
 * finalized. Releasing a buffer does this too. */
static int
access_unbox(lua_State *L)
{
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 0;
}

static int
finalizer(lua_State *L)
{
	(void)L;
	return 0;
}

static const luaL_Reg functions[] = {
	{ "new", access_new },
	{ "byte", access_byte },
	{ "setbyte", access_setbyte },
	{ "box", access_box },
	{ "unbox", access_unbox },
	{ "finalizer", finalizer },
	{ NULL, NULL }
};

__attribute__((visibility("default"))) int
luaopen_access(lua_State *L)
{
	luaL_newmetatable(L, TYPE);
	lua_newtable(L);
	luaL_register(L, NULL, functions);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "__index");
	return 1;
}
