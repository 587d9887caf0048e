/*
 * The histogram of the sizes that are asked for. It is made from samples, whose
 * distances come out of a generator with fixed seeds: so what one thread finds
 * here is the same in each run.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/requests.h"
#include "support/pool.h"

#define LAST (BUFPOOL_REQUEST_BINS - 1)

static uint64_t
sum_of(const struct bufpool_request_stats *r)
{
	uint64_t sum = 0;

	for (int i = 0; i < BUFPOOL_REQUEST_BINS; i++)
		sum += r->bins[i];
	return sum;
}

/* The only bin that has something. */
static int
bin_of(const struct bufpool_request_stats *r)
{
	int found = -1;

	for (int i = 0; i < BUFPOOL_REQUEST_BINS; i++)
		if (r->bins[i] != 0) {
			assert_int_equal(found, -1);
			found = i;
		}
	return found;
}

static void
use(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	assert_non_null(b);
	bufpool_release(b);
}

static void
a_request_is_in_its_bin(void **state)
{
	static const struct { size_t n; int class, bin; } want[] = {
		{ 0, 0, -1 }, { 1, 0, 0 }, { 32, 0, 0 }, { 33, 0, 1 },
		{ 64, 0, 1 }, { 65, 0, 2 }, { 2048, 0, 6 }, { 2049, 0, 7 },
		{ 4096, 0, 7 }, { 4097, 1, 4 }, { 8192, 1, 4 },
		{ 65536, 1, 7 }, { 65537, 2, 6 }, { 262144, 2, 7 },
		{ 524288, 3, 6 }, { 524289, 3, 7 }, { 1048576, 3, 7 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct bufpool *p = new_pool(1, 0, 0);
		struct bufpool_stats s;

		use(p, want[i].n);
		s = stats_of(p);
		for (int c = 0; c < 4; c++) {
			bool here = c == want[i].class && want[i].bin >= 0;

			assert_int_equal(bin_of(&s.requests[c]),
					 here ? want[i].bin : -1);
			assert_int_equal(s.requests[c].bytes,
					 here ? want[i].n : 0);
		}
		assert_int_equal(bin_of(&s.large_requests), -1);
		bufpool_destroy(p);
	}
}

static void
above_the_classes_each_request_counts(void **state)
{
	static const struct { size_t n; int bin; } want[] = {
		{ 4097, 0 }, { 65536, 0 }, { 65537, 1 }, { 262144, 1 },
		{ 1 << 20, 2 }, { 4 << 20, 3 }, { (4 << 20) + 1, 4 },
		{ 256 << 20, 6 }, { (256 << 20) + 1, 7 },
	};
	struct bufpool_class_config class = { .size = 4096 };
	struct bufpool_config config;
	struct bufpool_stats s;

	(void)state;
	bufpool_config_init(&config);
	config.class_count = 1;
	config.classes = &class;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct bufpool *p = bufpool_create(&config);

		for (int k = 0; k < 10; k++)
			use(p, want[i].n);
		s = stats_of(p);
		assert_int_equal(bin_of(&s.large_requests), want[i].bin);
		assert_int_equal(sum_of(&s.large_requests), 10);
		assert_int_equal(s.large_requests.bytes, 10 * want[i].n);
		bufpool_destroy(p);
	}
}

#define CHECKOUTS 400000

/* Of these checkouts all but those after the last sample are counted. */
static void
assert_counted(const struct bufpool_request_stats *r, uint64_t checkouts,
	       uint64_t threads)
{
	assert_true(sum_of(r) <= checkouts);
	assert_true(sum_of(r) + threads * 2 * REQUESTS_APART >= checkouts);
}

/* In per cent, how many requests were for more than half of the class. */
static uint64_t
share(const struct bufpool_request_stats *r)
{
	return 100 * r->bins[LAST] / sum_of(r);
}

/* Half of the checkouts of a loop are for 4096 bytes, half for 10. */
static void
a_loop_of_any_length_is_seen_as_it_is(void **state)
{
	static const unsigned lengths[] = { 2, 4, 6, 64, 256, 1000, 1024,
					    2048 };

	(void)state;
	for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
		struct bufpool *p = new_pool(4, 0, 0);
		const unsigned length = lengths[k];
		struct bufpool_stats s;

		for (unsigned i = 0; i < CHECKOUTS; i++)
			use(p, i % length < length / 2 ? 4096 : 10);
		s = stats_of(p);
		assert_counted(&s.requests[0], CHECKOUTS, 1);
		assert_in_range(share(&s.requests[0]), 40, 60);
		assert_in_range(s.requests[0].bytes / CHECKOUTS, 1600, 2500);
		bufpool_destroy(p);
	}
}

/* A release that spills has the shelf look around at its next checkout. That
 * one is no sample for this reason. */
static void
the_checkout_after_a_spill_is_a_sample_as_often_as_any(void **state)
{
	struct bufpool *p = new_pool(200, 0, 0);
	struct bufpool_buf *held[200];
	struct bufpool_stats s;

	(void)state;
	for (int k = 0; k < CHECKOUTS / 200; k++) {
		for (int i = 0; i < 200; i++)
			held[i] = bufpool_checkout(p, i == 0 ? 4096 : 10);
		for (int i = 0; i < 200; i++)
			bufpool_release(held[i]);
	}
	s = stats_of(p);
	assert_counted(&s.requests[0], CHECKOUTS, 1);
	assert_in_range(share(&s.requests[0]), 0, 3);
	bufpool_destroy(p);
}

static void *
use_some(void *pool)
{
	for (int i = 0; i < 100; i++)
		use(pool, i == 0 || i == 99 ? 4096 : 10);
	return NULL;
}

static void
threads_that_come_and_go_are_seen_as_they_are(void **state)
{
	struct bufpool *p = new_pool(4, 0, 0);
	struct bufpool_stats s;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, use_some, p);
		pthread_join(thread, NULL);
	}
	s = stats_of(p);
	assert_counted(&s.requests[0], 100000, 1);
	assert_in_range(share(&s.requests[0]), 0, 6);
	bufpool_destroy(p);
}

/* What it moves to counts, as it would for whoever checks out in time. */
static void
growth_that_moves_is_a_request(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 0);
	struct bufpool_stats s;

	(void)state;
	assert_int_equal(bufpool_resize(b, 40000), 0);
	s = stats_of(p);
	assert_int_equal(bin_of(&s.requests[0]), -1);
	assert_int_equal(bin_of(&s.requests[1]), LAST);
	bufpool_release(b);
	bufpool_destroy(p);
}

static void
a_later_pool_begins_with_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct bufpool *p = new_pool(1, 0, 0);
		struct bufpool_stats s;

		s = stats_of(p);
		assert_int_equal(sum_of(&s.requests[0]), 0);
		assert_int_equal(sum_of(&s.large_requests), 0);
		use(p, 1);
		use(p, 2 << 20);
		bufpool_destroy(p);
	}
}

/* Every fifth request of each of many pools is large. What one of them sees too
 * few of another sees too many of. */
static void
errors_of_caches_do_not_add_up(void **state)
{
	uint64_t large = 0;

	(void)state;
	for (int i = 0; i < 128; i++) {
		struct bufpool *p = new_pool(0, 0, 0);

		for (int k = 0; k < 1000; k++)
			use(p, k % 5 == 0 ? 4000 : 10);
		large += stats_of(p).requests[0].bins[LAST];
		bufpool_destroy(p);
	}
	/* Of 128 * 200 an eighth is missing at the ends. */
	assert_in_range(large, 18000, 27000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, because it begins at the first seed. */
		cmocka_unit_test(errors_of_caches_do_not_add_up),
		cmocka_unit_test(a_request_is_in_its_bin),
		cmocka_unit_test(above_the_classes_each_request_counts),
		cmocka_unit_test(a_loop_of_any_length_is_seen_as_it_is),
		cmocka_unit_test(
		    the_checkout_after_a_spill_is_a_sample_as_often_as_any),
		cmocka_unit_test(threads_that_come_and_go_are_seen_as_they_are),
		cmocka_unit_test(growth_that_moves_is_a_request),
		cmocka_unit_test(a_later_pool_begins_with_nothing),
	};

	return cmocka_run_group_tests_name("requests", tests, NULL, NULL);
}
