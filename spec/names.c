/*
 * Pools and their names: a name has one live pool at any time, which is whole
 * as soon as it can be found. How many pools and names a process may have, and
 * what stays of them.
 *
 * ROUNDS: how often each thread opens a name. NAMES: different names.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define POOLS 16384		/* of a process at one time */

static size_t rounds = 20000, names = 100000;
static struct bufpool *early;

/* Before the constructors of what is linked statically and names no
 * priority. */
__attribute__((constructor(101))) static void
begin_early(void)
{
	early = bufpool_create(NULL);
}

static void
a_constructor_that_comes_first_may_use_pools(void **state)
{
	struct bufpool_buf *b;

	(void)state;
	assert_non_null(early);
	b = bufpool_checkout(early, 5000);
	assert_non_null(b);
	bufpool_release(b);
	bufpool_destroy(early);
}

static struct bufpool_config
named(const char *name)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = 4;
	config.sixty_four_kib_count = config.two_fifty_six_kib_count = 0;
	config.name = name;
	return config;
}

/* While a thread holds the pool of a name, the name leads to that pool. */
static void *
open_one_name(void *arg)
{
	struct bufpool_config config = named("one");

	(void)arg;
	for (size_t i = 0; i < rounds; i++) {
		struct bufpool *p = bufpool_create(&config), *q;

		CHECK(p != NULL, "not opened");
		q = bufpool_get("one");
		CHECK(q == p, "two pools of one name: %p and %p",
		      (void *)p, (void *)q);
		bufpool_destroy(q);
		bufpool_destroy(p);
	}
	return NULL;
}

static void
open_one_name_at_once(void *arg)
{
	int count = *(int *)arg;
	pthread_t thread[4];

	for (int i = 0; i < count; i++)
		pthread_create(&thread[i], NULL, open_one_name, NULL);
	for (int i = 0; i < count; i++)
		pthread_join(thread[i], NULL);
	CHECK(bufpool_get("one") == NULL && errno == ENOENT, "still there");
}

static void
refuses_a_name_without_a_byte(void **state)
{
	struct bufpool_config config = named("");

	(void)state;
	errno = 0;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
}

static void
a_name_has_one_live_pool_at_most(void **state)
{
	(void)state;
	for (int count = 2; count <= 4; count += 2)
		assert_int_equal(in_child(open_one_name_at_once, &count), 0);
}

static atomic_bool done;

static void *
look_for_it(void *found)
{
	while (!atomic_load(&done)) {
		struct bufpool *p = bufpool_get("whole");
		struct bufpool_stats s;
		struct bufpool_buf *b;

		if (p == NULL)
			continue;
		s = stats_of(p);
		CHECK(s.classes[0].count >= 4, "%llu buffers",
		      (unsigned long long)s.classes[0].count);
		b = bufpool_checkout(p, 100);
		CHECK(b != NULL, "checkout");
		*(char *)bufpool_data(b) = 1;
		bufpool_release(b);
		bufpool_destroy(p);
		atomic_fetch_add((_Atomic size_t *)found, 1);
	}
	return NULL;
}

static void
find_it_by_name(void *arg)
{
	struct bufpool_config config = named("whole");
	static _Atomic size_t found;
	pthread_t thread;

	(void)arg;
	config.numa_node = 0;	/* takes a while to make */
	pthread_create(&thread, NULL, look_for_it, &found);
	for (size_t i = 0; i < rounds; i++) {
		size_t before = atomic_load(&found);
		struct bufpool *p = bufpool_create(&config);

		CHECK(p != NULL, "not made");
		/* Now and then it waits to be found, for a busy machine may
		 * run the threads in turns. */
		while (i % 100 == 0 && atomic_load(&found) == before)
			sched_yield();
		bufpool_destroy(p);
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
}

static void
a_pool_found_by_name_is_whole(void **state)
{
	(void)state;
	assert_int_equal(in_child(find_it_by_name, NULL), 0);
}

static void
a_name_is_free_when_its_pool_is_closed(void **state)
{
	struct bufpool_config config = named("closed");
	struct bufpool *old = bufpool_create(&config), *fresh;
	struct bufpool_buf *b = bufpool_checkout(old, 100);

	(void)state;
	bufpool_ref(old);
	bufpool_close(old);
	errno = 0;
	assert_null(bufpool_get("closed"));
	assert_int_equal(errno, ENOENT);
	config.four_kib_count = 9;
	fresh = bufpool_create(&config);
	assert_non_null(fresh);
	assert_ptr_not_equal(fresh, old);
	assert_ptr_equal(bufpool_get("closed"), fresh);
	bufpool_destroy(fresh);
	errno = 0;
	assert_null(bufpool_checkout(old, 1));
	assert_int_equal(errno, ESHUTDOWN);
	/* What the old pool's users still do does not touch the new one. */
	bufpool_release(b);
	bufpool_destroy(old);
	bufpool_destroy(old);
	assert_ptr_equal(bufpool_get("closed"), fresh);
	bufpool_destroy(fresh);
	assert_int_equal(stats_of(fresh).classes[0].ready, 9);
	bufpool_destroy(fresh);
	assert_null(bufpool_get("closed"));
}

/* Their cost is bounded, and finding one does not go through all of them. */
static void
use_many_names(void *arg)
{
	size_t before = status_bytes("VmRSS:"), after;
	struct bufpool *kept[100];
	char text[32];

	(void)arg;
	for (size_t i = 0; i < names; i++) {
		struct bufpool_config config;
		struct bufpool *p;

		snprintf(text, sizeof text, "name %zu", i);
		config = named(text);
		p = bufpool_create(&config);
		CHECK(p != NULL, "%s", text);
		if (i < 100)
			kept[i] = p;
		else
			bufpool_destroy(p);
	}
	for (size_t i = 0; i < 100; i++) {
		snprintf(text, sizeof text, "name %zu", i);
		CHECK(bufpool_get(text) == kept[i], "%s", text);
		bufpool_destroy(kept[i]);
		bufpool_destroy(kept[i]);
	}
	after = status_bytes("VmRSS:");
	if (getenv("VERBOSE"))
		fprintf(stderr, "names: %zu KiB\n",
			(after - before) / 1024);
	CHECK(after - before < names * 100 + ((size_t)4 << 20),
	      "%zu KiB stay of %zu names", (after - before) / 1024, names);
}

static void
many_names_cost_little(void **state)
{
	(void)state;
	needs_own_memory();
	assert_int_equal(in_child(use_many_names, NULL), 0);
}

static struct bufpool *
empty_pool(void)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = 0;
	return bufpool_create(&config);
}

static void
open_all_pools(void)
{
	static struct bufpool *p[POOLS];

	for (size_t i = 0; i < POOLS; i++) {
		struct bufpool_buf *b;

		p[i] = empty_pool();
		CHECK(p[i] != NULL, "%zu pools", i);
		b = bufpool_checkout(p[i], 100);
		CHECK(b != NULL, "%zu pools", i);
		bufpool_release(b);
	}
	errno = 0;
	CHECK(empty_pool() == NULL && errno == ENOMEM, "one too many");
	for (size_t i = 0; i < POOLS; i++)
		bufpool_destroy(p[i]);
	bufpool_destroy(bufpool_ref(p[0] = empty_pool()));
	bufpool_destroy(p[0]);
}

/* Descriptors stay, 64 for each pool. A second round adds nothing. */
static void
open_all_pools_twice(void *arg)
{
	size_t before = status_bytes("VmRSS:"), first, second;

	(void)arg;
	open_all_pools();
	first = status_bytes("VmRSS:");
	open_all_pools();
	second = status_bytes("VmRSS:");
	if (getenv("VERBOSE"))
		fprintf(stderr, "pools: %zu, %zu KiB\n",
			(first - before) / 1024, (second - before) / 1024);
	CHECK(first - before < (size_t)192 << 20, "%zu KiB stay of %d pools",
	      (first - before) / 1024, POOLS);
	CHECK(second - before < (size_t)193 << 20, "%zu KiB after another time",
	      (second - before) / 1024);
}

static void
a_process_may_have_16384_pools_at_a_time(void **state)
{
	(void)state;
	needs_own_memory();
	needs(sysconf(_SC_PHYS_PAGES) >= 8 * POOLS,
	      "each open pool takes seven pages");
	assert_int_equal(in_child(open_all_pools_twice, NULL), 0);
}

/* A buffer that is out keeps the pool there. `said`: what is written to. */
static void
destroy_once_too_often(void *said)
{
	struct bufpool *p = empty_pool();

	bufpool_checkout(p, 100);
	bufpool_destroy(p);
	dup2(fileno(said), STDERR_FILENO);
	bufpool_destroy(p);
}

static void
a_destroy_too_many_aborts_and_says_so(void **state)
{
	FILE *said = tmpfile();
	char line[256] = "";
	int status;

	(void)state;
	assert_non_null(said);
	status = in_child(destroy_once_too_often, said);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	rewind(said);
	assert_non_null(fgets(line, sizeof line, said));
	assert_non_null(strstr(line, "corruption at destroy"));
	fclose(said);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_constructor_that_comes_first_may_use_pools),
		cmocka_unit_test(refuses_a_name_without_a_byte),
		cmocka_unit_test(a_name_has_one_live_pool_at_most),
		cmocka_unit_test(a_pool_found_by_name_is_whole),
		cmocka_unit_test(a_name_is_free_when_its_pool_is_closed),
		cmocka_unit_test(many_names_cost_little),
		cmocka_unit_test(a_process_may_have_16384_pools_at_a_time),
		cmocka_unit_test(a_destroy_too_many_aborts_and_says_so),
	};

	if (getenv("ROUNDS") != NULL)
		rounds = strtoull(getenv("ROUNDS"), NULL, 10);
	if (getenv("NAMES") != NULL)
		names = strtoull(getenv("NAMES"), NULL, 10);
	return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
