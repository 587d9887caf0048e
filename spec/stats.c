/*
 * Statistics that are read while threads check out and release: no peak is
 * above what was out at one time. What they keep of threads that exited. And
 * how much memory is resident.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/release.h"
#include "support/pool.h"

/* Counted before a checkout and after a release, so never below what is out. */
static _Atomic uint64_t out_now, out_most;
static _Atomic int enough;

static void *
hold_some(void *pool)
{
	struct bufpool_buf *held[100] = { NULL };
	unsigned random = (unsigned)(uintptr_t)held;

	while (!atomic_load(&enough)) {
		unsigned i = (unsigned)rand_r(&random) / 7 % 100;
		uint64_t now, most = atomic_load(&out_most);

		if (held[i] != NULL) {
			bufpool_release(held[i]);
			held[i] = NULL;
			atomic_fetch_sub(&out_now, 1);
			continue;
		}
		now = atomic_fetch_add(&out_now, 1) + 1;
		while (now > most && !atomic_compare_exchange_weak(
					 &out_most, &most, now))
			;
		held[i] = bufpool_checkout(pool, 100);
		if (held[i] == NULL)
			abort();
	}
	for (unsigned i = 0; i < 100; i++)
		bufpool_release(held[i]);
	return NULL;
}

/* Holds one buffer at a time: of the smallest class, the largest, of none. */
static void *
hold_one(void *pool)
{
	while (!atomic_load(&enough)) {
		bufpool_release(bufpool_checkout(pool, 1));
		bufpool_release(bufpool_checkout(pool, 1048576));
		bufpool_release(bufpool_checkout(pool, 1048577));
	}
	return NULL;
}

#define EXITED 7	/* threads */

/* Three checkouts, of which fresh memory serves one and a collector returns
 * one; 300 bytes to wipe. */
static void *
use_thrice(void *pool)
{
	for (int i = 0; i < 3; i++) {
		struct bufpool_buf *b = bufpool_checkout(pool, 100);

		memset(bufpool_data(b), 1, 100);
		bufpool_wrote(b, 100);
		if (i == 0)
			bp_release_gc(b);
		else
			bufpool_release(b);
	}
	return NULL;
}

static void
threads_that_exit_leave_their_counts(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);
	struct bufpool_buf *held[EXITED * 9];
	pthread_t thread[EXITED];
	struct bufpool_stats s;

	(void)state;
	for (int i = 0; i < EXITED; i++) {
		pthread_create(&thread[i], NULL, use_thrice, p);
		pthread_join(thread[i], NULL);
	}
	s = stats_of(p);
	assert_int_equal(s.hits + s.misses, EXITED * 3);
	assert_int_equal(s.classes[0].hits + s.classes[0].misses, EXITED * 3);
	assert_int_equal(s.misses, 1);
	assert_int_equal(s.classes[0].out, 0);
	assert_int_equal(s.wiped_bytes, EXITED * 3 * 100);
	assert_int_equal(s.gc_returns, EXITED);
	/* A release that counts twice shows only while as much is out. */
	for (int i = 0; i < EXITED * 9; i++)
		held[i] = bufpool_checkout(p, 100);
	assert_int_equal(stats_of(p).classes[0].out, EXITED * 9);
	for (int i = 0; i < EXITED * 9; i++)
		bufpool_release(held[i]);
	bufpool_destroy(p);
}

static void
peaks_of_several_classes_are_not_added_up(void **state)
{
	struct bufpool *p = new_pool(64, 8, 0);
	struct bufpool_stats s;
	pthread_t thread;

	(void)state;
	atomic_store(&enough, 0);
	pthread_create(&thread, NULL, hold_one, p);
	for (int i = 0; i < 500000; i++)
		bufpool_get_stats(p, &s);
	atomic_store(&enough, 1);
	pthread_join(thread, NULL);
	s = stats_of(p);
	assert_int_equal(s.checked_out, 0);
	assert_int_equal(s.peak_checked_out, 1);
	assert_in_range(s.peak_bytes_checked_out, 4096, in_pages(1048577));
	bufpool_destroy(p);
}

static void
peaks_are_never_above_what_was_out(void **state)
{
	struct bufpool *p = new_pool(64, 8, 0);
	struct bufpool_stats s;
	pthread_t thread[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, hold_some, p);
	while (atomic_load(&out_most) == 0)	/* until one has begun */
		sched_yield();
	for (int i = 0; i < 100000; i++)
		bufpool_get_stats(p, &s);
	atomic_store(&enough, 1);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	s = stats_of(p);
	assert_int_equal(s.checked_out, 0);
	assert_in_range(s.peak_checked_out, 1, out_most);
	assert_int_equal(s.peak_bytes_checked_out, s.peak_checked_out * 4096);
	bufpool_destroy(p);
}

static int refuse_with;	/* errno of mincore; 0: it works */

int
mincore(void *at, size_t n, unsigned char *to)
{
	if (refuse_with != 0) {
		errno = refuse_with;
		return -1;
	}
	return (int)syscall(SYS_mincore, at, n, to);
}

/* A mapping that has gone meanwhile counts as nothing. */
static void
what_is_resident_may_be_unknown(void **state)
{
	struct bufpool *p = new_pool(8, 2, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 65536);

	(void)state;
	memset(bufpool_data(b), 1, 65536);
	assert_true(bufpool_resident(p) >= 65536);
	refuse_with = ENOMEM;
	assert_true(bufpool_resident(p) == 0);
	refuse_with = EPERM;
	assert_true(bufpool_resident(p) == -1);
	assert_int_equal(errno, EPERM);
	refuse_with = 0;
	bufpool_release(b);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_resident_may_be_unknown),
		cmocka_unit_test(peaks_are_never_above_what_was_out),
		cmocka_unit_test(peaks_of_several_classes_are_not_added_up),
		cmocka_unit_test(threads_that_exit_leave_their_counts),
	};

	return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
