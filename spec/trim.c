/*
 * Buffers that are idle after a burst go back to the system: at once by a trim,
 * gradually without one. The configured counts of buffers stay.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/clock.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

static void
trims_down_to_the_configured_counts(void **state)
{
	struct bufpool *p = new_pool(10, 0, 0);
	enum { BURST = 5000 };
	static struct bufpool_buf *held[BURST];
	struct bufpool_stats s;

	(void)state;
	needs_pages_of_4_kib();
	for (size_t i = 0; i < BURST; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, 4096));
		memset(bufpool_data(held[i]), 1, 4096);
	}
	assert_int_equal(stats_of(p).committed_bytes, BURST * 4096);
	for (size_t i = 0; i < BURST; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	s = stats_of(p);
	assert_int_equal(bufpool_trim(p), s.committed_bytes - 10 * 4096);
	assert_int_equal(stats_of(p).committed_bytes, 10 * 4096);
	assert_int_equal(bufpool_trim(p), 0);
	for (size_t i = 0; i < BURST; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, 4096));
		assert_all_zero(held[i]);
	}
	for (size_t i = 0; i < BURST; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* In a burst, each of four threads holds its buffers until all hold theirs. */
#define BURSTERS 4
#define BURST_BYTES ((size_t)4 << 20)	/* of each class in each thread */

static pthread_barrier_t all_hold;

static void *
hold_and_release(void *pool)
{
	static const size_t sizes[] = { 4096, 65536, 262144, 1048576 };
	struct bufpool_buf *held[2 * BURST_BYTES / 4096];
	size_t n = 0;

	for (size_t c = 0; c < 4; c++)
		for (size_t i = 0; i < BURST_BYTES / sizes[c]; i++) {
			held[n] = bufpool_checkout(pool, sizes[c]);
			if (held[n] == NULL)
				abort();
			memset(bufpool_data(held[n++]), 1, sizes[c]);
		}
	pthread_barrier_wait(&all_hold);
	pthread_barrier_wait(&all_hold);
	while (n > 0)
		bufpool_release(held[--n]);
	return NULL;
}

/* Returns how many bytes are resident while all threads hold their buffers. */
static size_t
burst(struct bufpool *p)
{
	pthread_t thread[BURSTERS];
	size_t most;

	pthread_barrier_init(&all_hold, NULL, BURSTERS + 1);
	for (int i = 0; i < BURSTERS; i++)
		pthread_create(&thread[i], NULL, hold_and_release, p);
	pthread_barrier_wait(&all_hold);
	most = resident_bytes();
	pthread_barrier_wait(&all_hold);
	for (int i = 0; i < BURSTERS; i++)
		pthread_join(thread[i], NULL);
	return most;
}

/* The first burst leaves something behind for good: descriptors, stacks that
 * the C library keeps, a checker's records. The second must add nothing. */
static void
one_trim_gives_a_burst_back_to_the_system(void **state)
{
	struct bufpool *p = new_pool(64, 8, 0);
	size_t bytes = BURSTERS * 4 * BURST_BYTES;
	size_t fresh = resident_bytes(), before, most, after;

	(void)state;
	most = burst(p);
	assert_true(most >= bytes);
	bufpool_trim(p);
	before = resident_bytes();
	assert_in_range(before, 0, fresh + bytes / 4);
	most = burst(p);
	assert_true(most >= bytes);
	bufpool_trim(p);
	after = resident_bytes();
	if (after > before + before / 10)
		fail_msg("%zu KiB before, %zu after", before / 1024,
			 after / 1024);
	assert_conserved(p);
	bufpool_destroy(p);
}

static uint64_t
assert_not_below(struct bufpool *p, const uint64_t *counts)
{
	struct bufpool_stats s = stats_of(p);

	for (unsigned c = 0; c < s.class_count; c++)
		assert_in_range(s.classes[c].count, counts[c], UINT64_MAX);
	return s.committed_bytes;
}

/* Decay follows the clock, and has done its work after a minute. */
static void
what_lies_idle_decays(void **state)
{
	static const uint64_t counts[] = { 300, 40, 2, 0 };
	struct bufpool_config config;
	struct bufpool *used, *unused;
	uint64_t least = 300 * 4096 + 40 * 65536 + 2 * 262144, a, b;
	int64_t start = passed;

	(void)state;
	bufpool_config_init(&config);
	config.four_kib_count = counts[0];
	config.sixty_four_kib_count = counts[1];
	used = bufpool_create(&config);
	unused = bufpool_create(&config);
	assert_true(used != NULL && unused != NULL);
	burst(used);
	burst(unused);
	a = stats_of(used).committed_bytes;
	b = stats_of(unused).committed_bytes;
	assert_true(a > 60000000 && b > 60000000);
	while (stats_of(used).committed_bytes > a / 2 ||
	       stats_of(unused).committed_bytes > b / 2) {
		assert_in_range(passed - start, 0, 60000);
		for (int i = 0; i < 100; i++)
			bufpool_release(bufpool_checkout(used, 100));
		passed += 5;
		assert_in_range(assert_not_below(used, counts), least, a);
		assert_in_range(assert_not_below(unused, counts), least, b);
	}
	assert_conserved(used);
	assert_conserved(unused);
	bufpool_destroy(used);
	bufpool_destroy(unused);
}

/* Each call gives back what it was asked for, and the last one says so. */
static void
trims_some_at_a_time(void **state)
{
	const size_t mib = (size_t)1 << 20;
	struct bufpool *p = new_pool(10, 3, 0);
	struct bufpool_stats s;
	size_t calls = 0;
	int more = 1;

	(void)state;
	for (int large = 0; large <= 1; large++) {
		size_t n = large ? 20 * mib : 65536;
		size_t most = large ? mib : 400000;
		struct bufpool_buf *held[100];
		int count = large ? 3 : 100;

		for (int i = 0; i < count; i++)
			held[i] = bufpool_checkout(p, n);
		for (int i = 0; i < count; i++)
			bufpool_release(held[i]);
		for (more = 1, calls = 0; more; calls++) {
			size_t before = stats_of(p).committed_bytes, got;

			got = bufpool_trim_some(p, most, &more);
			assert_in_range(got, 1, most);
			assert_int_equal(before - got,
					 stats_of(p).committed_bytes);
		}
		assert_in_range(calls, large ? 60 : 97 / 6, large ? 61 : 18);
		s = stats_of(p);
		assert_int_equal(s.committed_bytes, 10 * 4096 + 3 * 65536);
	}
	/* A buffer that is larger goes as a whole, alone. */
	bufpool_release(bufpool_checkout(p, mib));
	assert_int_equal(bufpool_trim_some(p, 0, &more), 0);
	assert_int_equal(more, 0);
	assert_int_equal(bufpool_trim_some(p, 1, &more), mib);
	assert_int_equal(more, 0);
	bufpool_release(bufpool_checkout(p, 9 * mib));
	bufpool_release(bufpool_checkout(p, mib));
	assert_int_equal(bufpool_trim_some(p, SIZE_MAX, &more), 10 * mib);
	assert_int_equal(more, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* Of spans of huge pages, what nobody has taken yet goes as well. */
static void
trims_the_rest_of_a_span_at_last(void **state)
{
	struct bufpool_config config;
	struct bufpool *p;
	int more = 1;

	(void)state;
	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = config.one_mib_count = 0;
	config.huge_pages = 1;
	p = bufpool_create(&config);
	bufpool_release(bufpool_checkout(p, 4096));
	bufpool_release(bufpool_checkout(p, 65536));
	for (int calls = 0; more; calls++) {
		assert_in_range(calls, 0, 100);
		assert_in_range(bufpool_trim_some(p, 1 << 20, &more), 1,
				1 << 20);
	}
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

static pthread_barrier_t both;

static void *
trim(void *pool)
{
	pthread_barrier_wait(&both);
	bufpool_trim(pool);
	return NULL;
}

static void
two_trims_at_once_leave_the_counts(void **state)
{
	static struct bufpool_buf *held[1000];
	pthread_t thread[2];

	(void)state;
	pthread_barrier_init(&both, NULL, 2);
	for (int round = 0; round < 100; round++) {
		struct bufpool *p = new_pool(64, 8, 0);

		for (int i = 0; i < 1000; i++)
			held[i] = bufpool_checkout(p, 1);
		for (int i = 0; i < 1000; i++)
			bufpool_release(held[i]);
		for (int i = 0; i < 2; i++)
			pthread_create(&thread[i], NULL, trim, p);
		for (int i = 0; i < 2; i++)
			pthread_join(thread[i], NULL);
		assert_int_equal(stats_of(p).classes[0].count, 64);
		bufpool_destroy(p);
	}
	pthread_barrier_destroy(&both);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trims_down_to_the_configured_counts),
		cmocka_unit_test(one_trim_gives_a_burst_back_to_the_system),
		cmocka_unit_test(what_lies_idle_decays),
		cmocka_unit_test(trims_some_at_a_time),
		cmocka_unit_test(trims_the_rest_of_a_span_at_last),
		cmocka_unit_test(two_trims_at_once_leave_the_counts),
	};

	return cmocka_run_group_tests_name("trim", tests, NULL, NULL);
}
