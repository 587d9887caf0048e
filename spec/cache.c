/*
 * Buffers that a thread has cached serve other threads when it exits, and also
 * while it is idle. Checkouts that take slow paths are counted, too.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "support/clock.h"
#include "support/pool.h"

static void *
use_some(void *pool)
{
	struct bufpool_buf *held[10];

	for (int i = 0; i < 10; i++)
		held[i] = bufpool_checkout(pool, 1);
	for (int i = 0; i < 10; i++)
		bufpool_release(held[i]);
	return NULL;
}

static void
an_exiting_thread_leaves_its_cache_to_others(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, use_some, p);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(p).classes[0].ready, 10);
	assert_int_equal(stats_of(p).classes[0].cached, 0);
	use_some(p);
	assert_int_equal(stats_of(p).misses, 10);
	assert_true(stats_of(p).classes[0].cached > 0);
	bufpool_thread_flush();
	assert_int_equal(stats_of(p).classes[0].cached, 0);
	assert_int_equal(stats_of(p).classes[0].ready, 10);
	bufpool_destroy(p);
}

static void *
trim_pool(void *pool)
{
	return (void *)bufpool_trim(pool);
}

static void *
checkout_one(void *pool)
{
	return bufpool_checkout(pool, 65536);
}

/* This thread is the idle one. */
static void
others_reach_what_an_idle_thread_has_cached(void **state)
{
	struct bufpool *p = new_pool(0, 0, 3 * 65536);
	struct bufpool_buf *held[3];
	pthread_t thread;
	void *result, *trimmed;

	(void)state;
	for (int i = 0; i < 3; i++)
		held[i] = bufpool_checkout(p, 65536);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_int_equal(stats_of(p).classes[1].cached, 3);
	pthread_create(&thread, NULL, checkout_one, p);
	pthread_join(thread, &result);
	assert_non_null(result);
	pthread_create(&thread, NULL, trim_pool, p);
	pthread_join(thread, &trimmed);
	assert_int_equal((size_t)trimmed, 2 * 65536);
	assert_int_equal(stats_of(p).committed_bytes, 65536);
	bufpool_release(result);
	bufpool_destroy(p);
}

static void *
release_it(void *b)
{
	bufpool_release(b);
	return NULL;
}

/* A thread looks around after SHELF_STRIDE checkouts at most. Those that take
 * slow paths count as well. */
static void
checkouts_are_counted_in_slow_paths_too(void **state)
{
	struct bufpool *p = bufpool_create(NULL);
	struct bufpool_shelf *s;
	pthread_t thread;

	(void)state;
	for (int i = 0; i < 3 * SHELF_STRIDE; i++) {
		pthread_create(&thread, NULL, release_it,
			       bufpool_checkout(p, 1048576));
		pthread_join(thread, NULL);
	}
	s = &thread_own_cache(p->caches.place)->shelf[3];
	assert_int_equal(s->checkouts, 3 * SHELF_STRIDE);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_exiting_thread_leaves_its_cache_to_others),
		cmocka_unit_test(others_reach_what_an_idle_thread_has_cached),
		cmocka_unit_test(checkouts_are_counted_in_slow_paths_too),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
