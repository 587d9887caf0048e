/*
 * Two copies of bufpool in one process: the one inside this program, and
 * bufpool/core.so, which Lua's `require` loads. Whichever a Lua state opened
 * first is the one that it uses, and the other says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "bufpool.h"
#include "bufpool_lua.h"

static struct bufpool *pool;

static lua_State *
new_state(void)
{
	lua_State *L = luaL_newstate();

	assert_non_null(L);
	luaL_openlibs(L);
	return L;
}

static void
run(lua_State *L, const char *code)
{
	if (luaL_dostring(L, code))
		fail_msg("%s", lua_tostring(L, -1));
}

static uint64_t
out(struct bufpool *p)
{
	struct bufpool_stats stats;

	bufpool_get_stats(p, &stats);
	return stats.checked_out;
}

/* The function is called with argument 1, protected, and has to raise. */
static void
assert_refused(lua_State *L, lua_CFunction fn)
{
	int top = lua_gettop(L);
	const char *message;

	lua_pushcfunction(L, fn);
	if (top > 0)
		lua_pushvalue(L, 1);
	assert_int_not_equal(lua_pcall(L, top > 0, 0, 0), 0);
	message = lua_tostring(L, -1);
	if (strstr(message, "another copy of bufpool (") == NULL ||
	    strstr(message, "core.so)") == NULL ||
	    strstr(message, "luaopen_bufpool before") == NULL)
		fail_msg("the message is: %s", message);
	lua_settop(L, top);
}

static int
push_buf(lua_State *L)
{
	bufpool_lua_push_buf(L, bufpool_checkout(pool, 10));
	return 1;
}

static int
push_pool(lua_State *L)
{
	bufpool_lua_push_pool(L, bufpool_get("copies"));
	return 1;
}

static int
check_buf(lua_State *L)
{
	bufpool_lua_check_buf(L, 1);
	return 0;
}

static int
check_pool(lua_State *L)
{
	bufpool_lua_check_pool(L, 1);
	return 0;
}

static int
open_pool(void **state)
{
	(void)state;
	pool = bufpool_create(NULL);
	return pool == NULL;
}

static int
close_pool(void **state)
{
	(void)state;
	bufpool_destroy(pool);
	return 0;
}

static void
a_state_of_the_shared_object_refuses_the_program(void **state)
{
	struct bufpool_config config;
	struct bufpool *named;
	lua_State *L = new_state();

	(void)state;
	bufpool_config_init(&config);
	config.name = "copies";
	named = bufpool_create(&config);
	run(L, "pool = require 'bufpool'.new()\n"
	    "buf = pool:checkout(10)");
	for (int i = 0; i < 300; i++)
		assert_refused(L, push_buf);
	assert_int_equal(out(pool), 0);
	assert_refused(L, push_pool);
	assert_refused(L, luaopen_bufpool);
	lua_getglobal(L, "buf");
	assert_null(bufpool_lua_test_buf(L, 1));
	assert_refused(L, check_buf);
	lua_getglobal(L, "pool");
	lua_replace(L, 1);
	assert_null(bufpool_lua_test_pool(L, 1));
	assert_refused(L, check_pool);
	run(L, "buf:write(1, 'still here')\n"
	    "assert(tostring(buf) == 'still here')\n"
	    "buf:release()\n"
	    "assert(pool:stats().checked_out == 0)");
	lua_close(L);
	/* Each refused push has dropped its reference, so this is the last. */
	bufpool_destroy(named);
	assert_null(bufpool_get("copies"));
}

static void
a_state_of_the_program_gives_require_its_own(void **state)
{
	lua_State *L = new_state();

	(void)state;
	lua_pushcfunction(L, luaopen_bufpool);
	lua_call(L, 0, 1);
	lua_setglobal(L, "opened");
	run(L, "assert(require 'bufpool' == opened)\n"
	    "package.loaded.bufpool, package.loaded['bufpool.core'] = nil\n"
	    "package.preload.bufpool = nil\n"
	    "package.preload['bufpool.core'] = nil\n"
	    "assert(require 'bufpool' == opened)");
	for (int i = 0; i < 300; i++) {
		bufpool_lua_push_buf(L, bufpool_checkout(pool, 10));
		assert_non_null(bufpool_lua_test_buf(L, -1));
		lua_setglobal(L, "buf");
		run(L, "buf:write(1, 'hello') buf:release()");
	}
	assert_int_equal(out(pool), 0);
	lua_pushcfunction(L, luaopen_bufpool);
	lua_call(L, 0, 1);
	lua_getglobal(L, "opened");
	assert_true(lua_rawequal(L, -1, -2));
	lua_close(L);
}

static void
states_of_both_live_side_by_side(void **state)
{
	lua_State *theirs = new_state(), *ours = new_state();

	(void)state;
	run(theirs, "pool = require 'bufpool'.new()");
	lua_pushcfunction(ours, luaopen_bufpool);
	lua_call(ours, 0, 0);
	bufpool_lua_push_pool(ours, bufpool_ref(pool));
	lua_setglobal(ours, "pool");
	for (int i = 0; i < 300; i++) {
		run(theirs, "buf = pool:checkout(10) buf:fill(1)");
		run(ours, "buf = pool:checkout(10) buf:fill(2)");
		run(theirs, "assert(buf:byte(10) == 1) buf:release()");
		run(ours, "assert(buf:byte(10) == 2) buf:release()");
	}
	assert_int_equal(out(pool), 0);
	lua_close(theirs);
	lua_close(ours);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_state_of_the_shared_object_refuses_the_program),
		cmocka_unit_test(a_state_of_the_program_gives_require_its_own),
		cmocka_unit_test(states_of_both_live_side_by_side),
	};

	return cmocka_run_group_tests(tests, open_pool, close_pool);
}
