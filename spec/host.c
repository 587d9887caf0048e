/*
 * What hosts call: objects go into Lua, are looked at, and are taken out again,
 * each with one owner at any moment. An allocator that fails at every place in
 * turn shows that a failed push releases, and a failed take leaves all to Lua.
 */
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

#include "bufpool_lua.h"
#include "support/pool.h"

static struct bufpool *pool;

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

static lua_State *
open_state(void)
{
	lua_State *L = luaL_newstate();

	assert_non_null(L);
	luaL_openlibs(L);
	luaopen_bufpool(L);
	lua_settop(L, 0);
	return L;
}

static struct bufpool_buf *
text(const char *of)
{
	size_t n = strlen(of);
	struct bufpool_buf *b = bufpool_checkout(pool, n);

	assert_non_null(b);
	memcpy(bufpool_data(b), of, n);
	return b;
}

/* Calls what the code returns, with argument 1, and gives the first result. */
static void
eval(lua_State *L, const char *code)
{
	assert_int_equal(luaL_loadstring(L, code), 0);
	lua_pushvalue(L, 1);
	if (lua_pcall(L, 1, 1, 0) != 0)
		fail_msg("%s: %s", code, lua_tostring(L, -1));
}

static void
assert_says(lua_State *L, const char *code, const char *expected)
{
	eval(L, code);
	assert_string_equal(lua_tostring(L, -1), expected);
	lua_pop(L, 1);
}

static void
a_state_without_libraries_is_refused(void **state)
{
	lua_State *L = luaL_newstate();

	(void)state;
	lua_pushcfunction(L, luaopen_bufpool);
	assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_ERRRUN);
	assert_non_null(strstr(lua_tostring(L, -1),
			       "needs Lua's standard libraries"));
	lua_close(L);
}

static void
what_is_pushed_is_taken_again(void **state)
{
	lua_State *L = open_state();
	struct bufpool_frozen *f = bufpool_freeze(text("frozen"));
	struct bufpool_buf *b = text("buffer");
	size_t len;

	(void)state;
	bufpool_lua_push_buf(L, b);
	assert_says(L, "return tostring(...)", "buffer");
	assert_ptr_equal(bufpool_lua_take_buf(L, 1), b);
	assert_says(L, "return tostring(...)", "bufpool.buffer: detached");
	assert_null(bufpool_lua_test_buf(L, 1));
	bufpool_release(b);
	lua_settop(L, 0);

	bufpool_lua_push_frozen(L, f);
	assert_says(L, "return tostring(...)", "frozen");
	assert_says(L, "return require('bufpool').type(...)", "frozen");
	assert_ptr_equal(bufpool_lua_test_frozen(L, 1), f);
	assert_null(bufpool_lua_test_buf(L, 1));
	eval(L, "return (...):slice(2, 3)");
	assert_memory_equal(bufpool_lua_frozen_bytes(L, 2, &len), "ro", 2);
	assert_int_equal(len, 2);
	lua_settop(L, 1);
	assert_ptr_equal(bufpool_lua_take_frozen(L, -1), f);
	assert_null(bufpool_lua_frozen_bytes(L, 1, &len));
	assert_int_equal(len, 0);
	assert_says(L, "return select(2, pcall(function(f) return #f end, ...))"
		    ":match('attempt.*')", "attempt to use a detached frozen");
	lua_settop(L, 0);

	bufpool_lua_push_pool(L, bufpool_ref(pool));
	assert_ptr_equal(bufpool_lua_take_pool(L, 1), pool);
	assert_null(bufpool_lua_test_pool(L, 1));
	bufpool_destroy(pool);
	lua_close(L);
	assert_int_equal(stats_of(pool).checked_out, 1);	/* f */
	assert_memory_equal(bufpool_frozen_data(f), "frozen", 6);
	bufpool_frozen_unref(f);
	assert_int_equal(stats_of(pool).checked_out, 0);
}

static void
assert_takes(lua_State *L, struct bufpool_frozen *f, size_t offset, size_t len)
{
	size_t n, m;

	assert_ptr_equal(bufpool_lua_take_frozen_range(L, -1, &n, &m), f);
	assert_int_equal(n, offset);
	assert_int_equal(m, len);
	assert_null(bufpool_lua_test_frozen(L, -1));
	bufpool_frozen_unref(f);
}

static void
a_slice_keeps_its_range(void **state)
{
	const char *const digits = "0123456789";
	lua_State *L = open_state();
	struct bufpool_frozen *f = bufpool_freeze(text(digits));

	(void)state;
	for (size_t from = 0; from <= 10; from++)
		for (size_t n = 0; n <= 10 - from; n++) {
			lua_settop(L, 0);
			bufpool_lua_push_frozen_range(L, bufpool_frozen_ref(f),
						      from, n);
			lua_pushlstring(L, digits + from, n);
			assert_says(L, "return tostring(...)",
				    lua_tostring(L, 2));
			eval(L, "return (...):slice(2, -2)");
			if (n > 2)
				assert_takes(L, f, from + 1, n - 2);
			lua_settop(L, 1);
			eval(L, "return require('bufpool').adopt("
			     "(...):share())");
			assert_takes(L, f, from, n);
			lua_settop(L, 1);
			assert_takes(L, f, from, n);
		}
	lua_settop(L, 0);
	bufpool_lua_push_frozen(L, f);
	assert_takes(L, bufpool_lua_test_frozen(L, 1), 0, 10);
	lua_close(L);
	assert_int_equal(stats_of(pool).checked_out, 0);
}

static int
take_buf(lua_State *L)
{
	bufpool_release(bufpool_lua_take_buf(L, 1));
	return 0;
}

static int
take_frozen(lua_State *L)
{
	bufpool_frozen_unref(bufpool_lua_take_frozen(L, 1));
	return 0;
}

static int
take_pool(lua_State *L)
{
	bufpool_destroy(bufpool_lua_take_pool(L, 1));
	return 0;
}

static void
others_are_refused(void **state)
{
	const lua_CFunction takes[] = { take_buf, take_frozen, take_pool };
	lua_State *L = open_state();

	(void)state;
	bufpool_lua_push_buf(L, text("x"));
	take_buf(L);
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 4; k++) {
			lua_settop(L, 1);
			lua_pushcfunction(L, takes[i]);
			if (k == 0)
				lua_pushvalue(L, 1);	/* a dead buffer */
			else if (k == 1)
				lua_pushliteral(L, "text");
			else if (k == 2)
				lua_newuserdata(L, 4);
			else
				lua_pushnil(L);
			assert_int_not_equal(lua_pcall(L, 1, 0, 0), 0);
			assert_non_null(strstr(lua_tostring(L, -1),
					       "expected, got"));
		}
	lua_close(L);
	assert_int_equal(stats_of(pool).checked_out, 0);
}

/* Lua's memory, of which some allocation fails. */
/* A host that pushes one object after the other, each of which Lua forgets. */
static void
the_collector_feels_what_is_pushed(void **state)
{
	const size_t size = (size_t)1 << 20, most = 32 * size;

	(void)state;
	for (int frozen = 0; frozen <= 1; frozen++) {
		lua_State *L = open_state();

		for (int i = 0; i < 500; i++) {
			struct bufpool_buf *b = bufpool_checkout(pool, size);

			assert_non_null(b);
			if (frozen)
				bufpool_lua_push_frozen(L, bufpool_freeze(b));
			else
				bufpool_lua_push_buf(L, b);
			lua_settop(L, 0);
			assert_in_range(stats_of(pool).bytes_checked_out, 0,
					most);
		}
		lua_close(L);
	}
	assert_conserved(pool);
}

static long left;
static lua_Alloc real;

static void *
meter(void *ud, void *p, size_t before, size_t n)
{
	if (n > before && left-- == 0)
		return NULL;
	return real(ud, p, before, n);
}

static int
push_all(lua_State *L)
{
	bufpool_lua_push_frozen(L, bufpool_freeze(text("f")));
	bufpool_lua_push_buf(L, text("b"));
	return 2;
}

/* Whatever fails, what is out is what Lua has. */
static void
a_failed_push_or_take_loses_nothing(void **state)
{
	lua_State *L = open_state();
	void *ud;
	int failed = 0, n = 0;

	(void)state;
	real = lua_getallocf(L, &ud);
	for (bool done = false; !done; n++) {
		lua_settop(L, 0);
		lua_gc(L, LUA_GCCOLLECT, 0);
		lua_gc(L, LUA_GCSTOP, 0);
		lua_pushcfunction(L, push_all);
		left = n;
		lua_setallocf(L, meter, ud);
		done = lua_pcall(L, 0, 2, 0) == 0;
		lua_setallocf(L, real, ud);
		failed += !done;
		if (done) {
			lua_pushcfunction(L, take_buf);
			lua_pushvalue(L, 2);
			left = 0;
			lua_setallocf(L, meter, ud);
			done = lua_pcall(L, 1, 0, 0) == 0;
			lua_setallocf(L, real, ud);
			assert_int_equal(stats_of(pool).checked_out,
					 done ? 1 : 2);
			assert_true(done == (bufpool_lua_test_buf(L, 2) ==
					     NULL));
		}
	}
	lua_close(L);
	assert_true(failed > 0);
	assert_int_equal(stats_of(pool).checked_out, 0);
}

static void *
exhausted(void *ud, void *p, size_t before, size_t n)
{
	if (n > before && left-- <= 0)
		return NULL;
	return real(ud, p, before, n);
}

static size_t range[2];

static int
push_range(lua_State *L)
{
	bufpool_lua_push_frozen_range(L, bufpool_freeze(text("0123456789")),
				      range[0], range[1]);
	return 1;
}

/* What is refused goes home, also where there is no memory for the message. */
static void
no_slice_is_outside(void **state)
{
	const size_t out[][2] = { { 0, 11 }, { 3, 8 }, { 11, 0 },
				  { 3, SIZE_MAX }, { SIZE_MAX, 3 },
				  { SIZE_MAX, SIZE_MAX } };
	lua_State *L = open_state();
	void *ud;

	(void)state;
	real = lua_getallocf(L, &ud);
	for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
		memcpy(range, out[i], sizeof range);
		lua_pushcfunction(L, push_range);
		left = 0;
		lua_setallocf(L, exhausted, ud);
		assert_int_not_equal(lua_pcall(L, 0, 1, 0), 0);
		lua_setallocf(L, real, ud);
		assert_int_equal(stats_of(pool).checked_out, 0);
		lua_pushcfunction(L, push_range);
		assert_int_equal(lua_pcall(L, 0, 1, 0), LUA_ERRRUN);
		assert_string_equal(lua_tostring(L, -1),
				    "range outside of the frozen buffer");
		assert_int_equal(stats_of(pool).checked_out, 0);
	}
	lua_close(L);
}

/* fn takes all memory there is, so giving `out` back must not need any. The
 * module has loaded with the JIT on; off, it keeps LuaJIT's own faults where
 * memory is short out of here. */
static void
scratch_gives_back_when_memory_is_used_up(void **state)
{
	static const char hungry[] =
	    "local pool, chain = ...\n"
	    "return pool:scratch(function(out)\n"
	    "    out:put('some')\n"
	    "    while true do chain = { chain } end\n"
	    "end)";
	lua_State *L = open_state();
	void *ud;

	(void)state;
	real = lua_getallocf(L, &ud);
	luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE);
	for (int i = 0; i < 100; i++) {
		lua_settop(L, 0);
		assert_int_equal(luaL_loadstring(L, hungry), 0);
		bufpool_lua_push_pool(L, bufpool_ref(pool));
		left = 3000 + i;
		lua_setallocf(L, exhausted, ud);
		assert_int_not_equal(lua_pcall(L, 1, 0, 0), 0);
		lua_setallocf(L, real, ud);
		assert_string_equal(lua_tostring(L, -1), "not enough memory");
		assert_int_equal(stats_of(pool).checked_out, 0);
	}
	lua_close(L);
}

/* The host has reserved, or holds the pointer, while Lua runs, and promises
 * afterwards that it has written nothing. */
static void
fail_to_put(lua_State *L, const char *code, int hook, bool reserves)
{
	struct bufpool_buf *b = text("12345");

	lua_settop(L, 0);
	assert_int_equal(luaL_loadstring(L, code), 0);
	bufpool_lua_push_buf(L, b);
	lua_pushinteger(L, hook);
	if (reserves)
		assert_non_null(bufpool_reserve(b, 300));
	else
		bufpool_data(b);
	lua_pcall(L, 2, 0, 0);
	lua_sethook(L, NULL, 0, 0);
	if (reserves)
		bufpool_commit(b, 0);
	else
		bufpool_wrote(b, bufpool_len(b));
	assert_int_equal(luaL_dostring(L, "buffer:release()"), 0);
	b = bufpool_checkout(pool, 4096);
	assert_all_zero(b);
	bufpool_release(b);
}

static void
the_next_owner_reads_nothing_of_a_put_that_failed(void **state)
{
	static const char nil[] =
	    "buffer = ... buffer:put(('S'):rep(150), nil)";
	static const char hooked[] =
	    "local hook\n"
	    "buffer, hook = ...\n"
	    "debug.sethook(function() error 'hook' end, '', hook)\n"
	    "buffer:put(('S'):rep(150), -0.0)";

	(void)state;
	for (int jit = 0; jit < 2; jit++) {
		lua_State *L = luaL_newstate();

		luaL_openlibs(L);
		luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE |
			       (jit ? LUAJIT_MODE_ON : LUAJIT_MODE_OFF));
		luaopen_bufpool(L);
		for (int reserves = 0; reserves < 2; reserves++) {
			fail_to_put(L, nil, 0, reserves);
			for (int hook = 1; hook < 400; hook++)
				fail_to_put(L, hooked, hook, reserves);
		}
		lua_close(L);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_state_without_libraries_is_refused),
		cmocka_unit_test(what_is_pushed_is_taken_again),
		cmocka_unit_test(a_slice_keeps_its_range),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(the_collector_feels_what_is_pushed),
		cmocka_unit_test(a_failed_push_or_take_loses_nothing),
		cmocka_unit_test(no_slice_is_outside),
		cmocka_unit_test(scratch_gives_back_when_memory_is_used_up),
		cmocka_unit_test(
			the_next_owner_reads_nothing_of_a_put_that_failed),
	};

	return cmocka_run_group_tests_name("host", tests, open_pool,
					   close_pool);
}
