/*
 * Lua states that come and go in threads that outlive them: closing a state
 * unloads its C modules, and the thread that exits later still runs the pool's
 * destructor. The module is the one that `require` loads, not a linked one.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <lauxlib.h>
#include <lualib.h>

#define THREADS 4

static int rounds = 25;		/* ROUNDS; fewer where each takes long */

static const char script[] =
    "local bufpool = require 'bufpool'\n"
    "local shared = bufpool.new { name = 'states', four_kib_count = 3 }\n"
    "local own = bufpool.new { four_kib_count = 1 }\n"
    "kept = {}\n"
    "for i = 1, 200 do\n"
    "    local pool = i % 2 == 0 and shared or own\n"
    "    local buf = assert(pool:checkout(i * 97))\n"
    "    for j = 1, #buf do assert(buf:byte(j) == 0) end\n"
    "    buf:fill(255)\n"
    "    if i % 3 == 0 then buf:release() end\n"
    "    if i % 5 == 0 then kept[#kept + 1] = buf end\n"
    "    if i % 7 == 0 and i % 3 ~= 0 then\n"
    "        kept[#kept + 1] = buf:freeze():slice(1, 10)\n"
    "    end\n"
    "end\n";

static lua_State *
open_and_run(char *error, size_t size)
{
	lua_State *L = luaL_newstate();

	luaL_openlibs(L);
	if (luaL_loadstring(L, script) != 0 || lua_pcall(L, 0, 0, 0) != 0) {
		snprintf(error, size, "%s", lua_tostring(L, -1));
		lua_close(L);
		return NULL;
	}
	return L;
}

static void *
open_and_close(void *error)
{
	for (int i = 0; i < rounds; i++) {
		lua_State *L = open_and_run(error, 256);

		if (L == NULL)
			return error;
		lua_close(L);
	}
	return NULL;
}

static void
threads_outlive_the_states_they_opened(void **state)
{
	pthread_t thread[THREADS];
	static char error[THREADS][256];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, open_and_close, error[i]);
	for (int i = 0; i < THREADS; i++) {
		void *failed;

		pthread_join(thread[i], &failed);
		if (failed != NULL)
			fail_msg("%s", (char *)failed);
	}
}

static void *
open_only(void *error)
{
	return open_and_run(error, 256);
}

/* As nginx's thread pool does: run by one thread, collected by another. */
static void
a_state_is_closed_by_another_thread_than_opened_it(void **state)
{
	char error[256];

	(void)state;
	for (int i = 0; i < rounds; i++) {
		pthread_t thread;
		void *L;

		pthread_create(&thread, NULL, open_only, error);
		pthread_join(thread, &L);
		if (L == NULL)
			fail_msg("%s", error);
		lua_close(L);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_outlive_the_states_they_opened),
		cmocka_unit_test(
		    a_state_is_closed_by_another_thread_than_opened_it),
	};

	if (getenv("ROUNDS") != NULL)
		rounds = atoi(getenv("ROUNDS"));
	return cmocka_run_group_tests_name("states", tests, NULL, NULL);
}
