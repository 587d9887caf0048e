/*
 * A checkout fails when max_bytes is reached or the system has no memory. After
 * a release it succeeds again. It does not fail while demand is within
 * max_bytes, and takes no more from what is kept ready than it needs.
 *
 * LIMITS_OPS: checkouts of each thread within max_bytes.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/pool.h"
#include "support/process.h"

#define KIB ((size_t)1 << 10)

static void
recovers_when_max_bytes_is_reached(void **state)
{
	struct bufpool *p = new_pool(0, 0, 3 * 65536);
	struct bufpool_buf *held[3], *small;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, EDQUOT);
	assert_null(bufpool_checkout(p, 5000000));
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_resize(held[0], 70000), -1);
	assert_int_equal(errno, EDQUOT);
	bufpool_release(held[0]);
	/* The idle buffer is given up for one of another class. */
	assert_non_null(small = bufpool_checkout(p, 1));
	assert_int_equal(stats_of(p).committed_bytes, 2 * 65536 + 4096);
	bufpool_release(held[1]);
	bufpool_release(held[2]);
	bufpool_release(small);
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	for (size_t i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
out_of_memory_is_an_error_and_passes(void **state)
{
	struct rlimit old, tight;
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *held[64], *b;
	size_t n = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	unsigned long pages;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();	/* a sanitizer maps more than any such limit */
#endif
	assert_int_equal(fscanf(statm, "%lu", &pages), 1);
	fclose(statm);
	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = pages * 4096 + ((size_t)20 << 20);
	setrlimit(RLIMIT_AS, &tight);
	while (n < 64 && (held[n] = bufpool_checkout(p, 1048576)) != NULL)
		n++;
	assert_true(n > 0 && n < 64);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_resize(held[0], 40000000), -1);
	assert_int_equal(errno, ENOMEM);
	bufpool_release(held[--n]);
	assert_non_null(b = bufpool_checkout(p, 1048576));
	setrlimit(RLIMIT_AS, &old);
	bufpool_release(b);
	while (n > 0)
		bufpool_release(held[--n]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* What lies ready and cached of the smallest class. */
static uint64_t
idle(struct bufpool *p)
{
	struct bufpool_stats s = stats_of(p);

	return s.classes[0].ready + s.classes[0].cached;
}

static void
a_request_above_max_bytes_empties_nothing(void **state)
{
	struct bufpool *p = new_pool(500, 0, 4096 * KIB);
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	(void)state;
	for (size_t n = 4096 * KIB + 1; n < PTRDIFF_MAX / 16; n *= 16) {
		errno = 0;
		assert_null(bufpool_checkout(p, n));
		assert_int_equal(errno, EDQUOT);
		assert_null(bufpool_checkout_aligned(p, n, 1048576));
		assert_int_equal(errno, EDQUOT);
		assert_int_equal(bufpool_resize(b, n), -1);
		assert_int_equal(errno, EDQUOT);
	}
	assert_int_equal(idle(p), 499);
	bufpool_release(b);
	assert_int_equal(stats_of(p).committed_bytes, 500 * 4096);
	bufpool_destroy(p);
}

/* To double what grows is a luxury. */
static void
a_growth_by_one_byte_takes_nothing_to_double(void **state)
{
	struct bufpool *p = new_pool(500, 0, 12288 * KIB);
	struct bufpool_buf *b = bufpool_checkout(p, 6144 * KIB);

	(void)state;
	assert_int_equal(bufpool_resize(b, 6144 * KIB + 1), 0);
	assert_in_range(bufpool_capacity(b), 6144 * KIB + 1,
			6144 * KIB + 65536);
	assert_int_equal(idle(p), 500);
	bufpool_release(b);
	bufpool_trim(p);
	/* Nor where there is room: another may need that next. */
	b = bufpool_checkout(p, 3072 * KIB);
	assert_int_equal(bufpool_resize(b, 3072 * KIB + 1), 0);
	assert_in_range(bufpool_capacity(b), 3072 * KIB + 1,
			3072 * KIB + 65536);
	assert_int_equal(idle(p), 500);
	bufpool_release(b);
	assert_conserved(p);
	bufpool_destroy(p);
	/* Where nothing limits the pool, it is doubled. */
	p = new_pool(500, 0, 0);
	b = bufpool_checkout(p, 3072 * KIB);
	assert_int_equal(bufpool_resize(b, 3072 * KIB + 1), 0);
	assert_int_equal(bufpool_capacity(b), 6144 * KIB);
	bufpool_release(b);
	bufpool_destroy(p);
}

/* Of idle memory goes what the request lacks, and what is above the counts goes
 * first. */
static void
a_request_takes_what_it_lacks_and_no_more(void **state)
{
	struct bufpool *p = new_pool(100, 0, 4096 * KIB);
	struct bufpool_buf *held[200], *b;

	(void)state;
	for (int i = 0; i < 200; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 1));
	for (int i = 0; i < 200; i++)
		bufpool_release(held[i]);
	b = bufpool_checkout(p, 3696 * KIB);	/* all but 400 KiB */
	assert_non_null(b);
	assert_int_equal(idle(p), 100);
	bufpool_release(b);
	b = bufpool_checkout(p, 3896 * KIB);	/* all but 200 KiB */
	assert_non_null(b);
	assert_int_equal(idle(p), 50);
	bufpool_release(b);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
a_large_checkout_leaves_what_is_ready(void **state)
{
	struct bufpool *p = new_pool(100, 4, 0);
	struct bufpool_buf *held[60];

	(void)state;
	for (int i = 0; i < 60; i++)
		held[i] = bufpool_checkout(p, 1);
	for (int i = 0; i < 60; i++)
		bufpool_release(held[i]);
	for (int i = 0; i < 100; i++)
		bufpool_release(bufpool_checkout(p, 2000 * KIB));
	assert_int_equal(stats_of(p).classes[0].count, 100);
	assert_int_equal(stats_of(p).classes[1].ready, 4);
	assert_int_equal(idle(p), 100);
	bufpool_destroy(p);
}

/* Each thread holds its part of max_bytes at most, now in buffers of this size,
 * now of that, so that what lies idle is mostly of another. */
#define THREADS 4
#define PART ((size_t)1 << 20)

static size_t operations = 200000;
static _Atomic uint64_t taken, refused;
static atomic_bool over;

static void *
stay_within(void *arg)
{
	static const size_t sizes[] = { 4096, 65536, 262144, 1048576 };
	struct bufpool *p = arg;
	struct bufpool_buf *held[PART / 4096];
	uint64_t random = (uintptr_t)&p;

	for (size_t done = 0; done < operations;) {
		size_t size, n, count;

		random = random * 6364136223846793005u + 1442695040888963407u;
		size = sizes[random >> 33 & 3];
		count = PART / size;
		if (count > 40 && random >> 40 & 3)
			count = 40;
		for (n = 0; n < count; n++) {
			held[n] = bufpool_checkout(p, size);
			if (held[n] == NULL)
				atomic_fetch_add(&refused, 1);
		}
		while (n > 0)
			bufpool_release(held[--n]);
		done += count;
		atomic_fetch_add(&taken, count);
	}
	return NULL;
}

static void *
trim_always(void *p)
{
	while (!atomic_load(&over)) {
		bufpool_trim(p);
		sched_yield();
	}
	return NULL;
}

/* `trims`: whether another thread trims at the same time. A thread that loses
 * its core in the middle of moving buffers may cost others a checkout, which
 * the header says; that is one in many. */
static void
stay_within_max_bytes(int trims)
{
	struct bufpool *p = new_pool(16, 2, THREADS * PART);
	pthread_t thread[THREADS], trimmer;

	atomic_store(&refused, 0);
	atomic_store(&taken, 0);
	atomic_store(&over, false);
	if (trims)
		pthread_create(&trimmer, NULL, trim_always, p);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, stay_within, p);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&over, true);
	if (trims)
		pthread_join(trimmer, NULL);
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "limits: %llu of %llu refused\n",
			(unsigned long long)refused, (unsigned long long)taken);
	assert_conserved(p);
	bufpool_destroy(p);
	assert_in_range(refused, 0, taken / 20000);
}

static void
demand_within_max_bytes_is_met(void **state)
{
	(void)state;
	stay_within_max_bytes(0);
}

static void
demand_within_max_bytes_is_met_beside_a_trim(void **state)
{
	(void)state;
	stay_within_max_bytes(1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(recovers_when_max_bytes_is_reached),
		cmocka_unit_test(out_of_memory_is_an_error_and_passes),
		cmocka_unit_test(a_request_above_max_bytes_empties_nothing),
		cmocka_unit_test(a_growth_by_one_byte_takes_nothing_to_double),
		cmocka_unit_test(a_request_takes_what_it_lacks_and_no_more),
		cmocka_unit_test(a_large_checkout_leaves_what_is_ready),
		cmocka_unit_test(demand_within_max_bytes_is_met),
		cmocka_unit_test(demand_within_max_bytes_is_met_beside_a_trim),
	};

	if (getenv("LIMITS_OPS") != NULL)
		operations = strtoull(getenv("LIMITS_OPS"), NULL, 10);

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
