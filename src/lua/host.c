#include <string.h>

#include "copy.h"

#include "lua_sources.h"

#define SOURCE_COUNT (sizeof lua_sources / sizeof *lua_sources)

/* "bufpool.check" -> "@bufpool/check.lua", for messages and tracebacks. Leaves
 * one or two strings on the stack. */
static const char *
chunk_name(lua_State *L, const char *module)
{
	if (strchr(module, '.') == NULL)
		return lua_pushfstring(L, "@%s/init.lua", module);
	return lua_pushfstring(L, "@%s.lua", luaL_gsub(L, module, ".", "/"));
}

/* Makes each file what `require` runs for its name, then requires "bufpool".
 * Nothing is looked for in the file system. */
int
luaopen_bufpool(lua_State *L)
{
	const struct lua_source *s;
	int preload;

	if (bp_copy_push_refusal(L))
		luaL_error(L, "%s", lua_tostring(L, -1));
	lua_getglobal(L, "require");
	lua_getglobal(L, "package");
	if (!lua_istable(L, -1))
		luaL_error(L, "bufpool needs Lua's standard libraries open");
	lua_getfield(L, -1, "preload");
	lua_replace(L, -2);
	preload = lua_gettop(L);
	lua_pushcfunction(L, luaopen_bufpool_core);
	lua_setfield(L, preload, "bufpool.core");
	for (s = lua_sources; s < lua_sources + SOURCE_COUNT; s++) {
		if (luaL_loadbuffer(L, s->text, strlen(s->text),
				    chunk_name(L, s->name)) != 0)
			lua_error(L);	/* Not run: the sources compile. */
		lua_setfield(L, preload, s->name);
		lua_settop(L, preload);
	}
	lua_pop(L, 1);
	lua_pushliteral(L, "bufpool");
	lua_call(L, 1, 1);
	return 1;
}
