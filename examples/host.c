/*
 * A program with a pool and a LuaJIT state of its own. One buffer goes from C
 * to Lua and is changed there, another is made in Lua and read in C; neither
 * is copied on the way.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "bufpool.h"
#include "bufpool_lua.h"

static const char script[] =
	"local pool, buf = ...\n"
	"print('Lua:  got ' .. #buf .. ' bytes: ' .. tostring(buf))\n"
	"buf:write(1, 'Hullo')\n"
	"local reply = pool:writer()\n"
	"reply:put('from Lua, about \"', buf:sub(1, 5), '\"')\n"
	"return reply\n";

static void
say_stats(const char *when, struct bufpool *pool)
{
	struct bufpool_stats stats;

	bufpool_get_stats(pool, &stats);
	printf("pool: %s: %" PRIu64 " out, %" PRIu64 " hits, %" PRIu64
	       " misses\n", when, stats.checked_out, stats.hits, stats.misses);
}

static int
fail(const char *what)
{
	fprintf(stderr, "host: %s\n", what);
	return EXIT_FAILURE;
}

int
main(void)
{
	static const char text[] = "Hello from C";
	struct bufpool_config config;
	struct bufpool *pool;
	struct bufpool_buf *buf;
	const struct bufpool_buf *reply;
	lua_State *L;

	bufpool_config_init(&config);
	config.four_kib_count = 16;
	pool = bufpool_create(&config);
	if (pool == NULL)
		return fail("no pool");
	L = luaL_newstate();
	if (L == NULL)
		return fail("no Lua state");
	luaL_openlibs(L);
	lua_pushcfunction(L, luaopen_bufpool);
	if (lua_pcall(L, 0, 0, 0) != 0)
		return fail(lua_tostring(L, -1));

	buf = bufpool_checkout(pool, sizeof text - 1);
	if (buf == NULL)
		return fail("no buffer");
	memcpy(bufpool_data(buf), text, sizeof text - 1);
	say_stats("C has a buffer", pool);

	/* What is pushed belongs to Lua; this program keeps its own reference
	 * to the pool. The buffer stays at index 1, where it can be looked at
	 * again. A push can raise: a larger program does it in a pcall. */
	bufpool_lua_push_buf(L, buf);
	if (luaL_loadstring(L, script) != 0)
		return fail(lua_tostring(L, -1));
	bufpool_lua_push_pool(L, bufpool_ref(pool));
	lua_pushvalue(L, 1);
	if (lua_pcall(L, 2, 1, 0) != 0)
		return fail(lua_tostring(L, -1));

	buf = bufpool_lua_check_buf(L, 1);
	printf("C:    ours is now: %.*s\n", (int)bufpool_len(buf),
	       (const char *)bufpool_peek(buf));
	reply = bufpool_lua_check_buf(L, 2);
	printf("C:    got %zu bytes: %.*s\n", bufpool_len(reply),
	       (int)bufpool_len(reply), (const char *)bufpool_peek(reply));
	say_stats("Lua has both", pool);

	lua_close(L);
	say_stats("Lua is closed", pool);
	bufpool_destroy(pool);
	return EXIT_SUCCESS;
}
