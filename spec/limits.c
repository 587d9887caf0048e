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
#include "support/clock.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define KIB ((size_t)1 << 10)

static void
recovers_when_max_bytes_is_reached(void **state)
{
	struct bufpool *p = new_pool(0, 0, 3 * 65536);
	struct bufpool_buf *held[3], *small;
	struct bufpool_stats s;

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
	assert_null(bufpool_try_checkout(p, 1));	/* an attempt */
	s = stats_of(p);
	assert_int_equal(s.max_bytes, 3 * 65536);
	assert_int_equal(s.refused_by_max_bytes, 3);
	assert_int_equal(s.refused_by_system, 0);
	/* This one grows in what it has. */
	assert_int_equal(bufpool_skip(held[0], 512), 0);
	assert_int_equal(bufpool_append(held[0], "", 1), 0);
	assert_int_equal(stats_of(p).refused_by_max_bytes, 3);
	assert_int_equal(bufpool_resize(held[0], SIZE_MAX), -1);
	assert_int_equal(stats_of(p).refused_by_max_bytes, 3);
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
	needs_address_limit();
	assert_int_equal(fscanf(statm, "%lu", &pages), 1);
	fclose(statm);
	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = pages * in_pages(0) + ((size_t)20 << 20);
	setrlimit(RLIMIT_AS, &tight);
	while (n < 64 && (held[n] = bufpool_checkout(p, 1048576)) != NULL)
		n++;
	assert_true(n > 0 && n < 64);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_resize(held[0], 40000000), -1);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(stats_of(p).refused_by_max_bytes, 0);
	assert_int_equal(stats_of(p).refused_by_system, 2);
	assert_int_equal(stats_of(p).max_bytes, 0);
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
	needs_pages_of_4_kib();
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

/* Has some buffers of each class, and some above, lie idle. */
static void
lie_idle(struct bufpool *p)
{
	static const size_t sizes[] = { 4, 64, 256, 1024, 3000, 5000 };
	struct bufpool_buf *held[6][10];

	for (int i = 0; i < 6; i++)
		for (int j = 0; j < 10; j++) {
			held[i][j] = bufpool_checkout(p, sizes[i] * KIB);
			assert_non_null(held[i][j]);
		}
	for (int i = 0; i < 6; i++)
		for (int j = 0; j < 10; j++)
			bufpool_release(held[i][j]);
}

static void
a_hopeless_request_takes_nothing_from_the_pool(void **state)
{
	static const size_t requests[][2] = {
		{ 4096, (size_t)1 << 46 }, { (size_t)1 << 60, 1 },
		{ 1, (size_t)1 << 63 }, { (size_t)1 << 62, (size_t)1 << 62 },
		{ PTRDIFF_MAX, 1 }, { (size_t)1 << 47, 4096 },
	};
	struct bufpool *p = new_pool(4, 2, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 2000 * KIB);
	uint64_t before;

	(void)state;
	lie_idle(p);
	before = stats_of(p).cached_bytes;
	for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
		errno = 0;
		assert_null(bufpool_checkout_aligned(p, requests[i][0],
						     requests[i][1]));
		assert_int_equal(errno, ENOMEM);
		assert_int_equal(stats_of(p).cached_bytes, before);
		if (requests[i][0] < 5000 * KIB)
			continue;
		assert_int_equal(bufpool_resize(b, requests[i][0]), -1);
		assert_int_equal(stats_of(p).cached_bytes, before);
	}
	bufpool_release(b);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* What is out leaves no room: nothing that lies idle would be enough. */
static void
a_request_for_more_than_is_idle_takes_nothing(void **state)
{
	struct bufpool *p = new_pool(4, 2, 200000 * KIB);
	struct bufpool_buf *out = bufpool_checkout(p, 80000 * KIB);
	size_t room = 120000 * KIB;
	uint64_t before;

	(void)state;
	lie_idle(p);
	before = stats_of(p).cached_bytes;
	errno = 0;
	assert_null(bufpool_checkout(p, room + 1));
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_resize(out, 200000 * KIB + 1), -1);
	assert_int_equal(stats_of(p).cached_bytes, before);
	/* All of it is just enough. */
	assert_int_equal(bufpool_resize(out, 200000 * KIB), 0);
	assert_int_equal(stats_of(p).cached_bytes, 0);
	bufpool_release(out);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
what_is_kept_goes_in_part(void **state)
{
	struct bufpool *p = new_pool(0, 0, 100000 * KIB);
	struct bufpool_buf *held[3], *out;

	(void)state;
	needs_pages_of_4_kib();
	for (int i = 0; i < 3; i++)
		held[i] = bufpool_checkout(p, (size_t)(i + 1) * 10000 * KIB);
	out = bufpool_checkout(p, 40000 * KIB);
	assert_non_null(out);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	for (int i = 0; i < 3; i++) {
		held[i] = bufpool_checkout(p, 1);
		assert_non_null(held[i]);
		assert_int_equal(stats_of(p).cached_bytes,
				 (60000 - 4 * ((size_t)i + 1)) * KIB);
	}
	assert_int_equal(stats_of(p).large_cached, 3);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	bufpool_release(out);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* Of the classes, what is needed whole goes first, and then the smallest. */
static void
of_the_classes_no_more_goes_than_must(void **state)
{
	struct bufpool *p = new_pool(0, 0, 1364 * KIB);
	struct bufpool_buf *held[3];

	(void)state;
	needs_pages_of_4_kib();
	held[0] = bufpool_checkout(p, 1024 * KIB);
	held[1] = bufpool_checkout(p, 256 * KIB);
	held[2] = bufpool_checkout(p, 64 * KIB);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	/* 20 KiB are left, and 24 are needed. */
	for (int i = 0; i < 2; i++)
		held[i] = bufpool_checkout_aligned(p, 12 * KIB, 8192);
	assert_int_equal(stats_of(p).cached_bytes, 1280 * KIB);
	for (int i = 0; i < 2; i++)
		bufpool_release(held[i]);
	/* With what is kept of these, 332 KiB lack 248. */
	held[0] = bufpool_checkout_aligned(p, 332 * KIB, 8192);
	assert_non_null(held[0]);
	assert_int_equal(stats_of(p).classes[3].cached +
			 stats_of(p).classes[3].ready, 1);
	bufpool_release(held[0]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* Addresses are short: only what is kept above the classes has any to give. */
static void
use_a_tight_address_space(void *arg)
{
	struct bufpool *p = new_pool(4, 2, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 30000 * KIB);
	struct rlimit tight;
	uint64_t classes, before;

	(void)arg;
	lie_idle(p);
	bufpool_release(b);
	before = stats_of(p).cached_bytes;
	classes = before - stats_of(p).large_cached_bytes;
	tight.rlim_cur = tight.rlim_max = status_bytes("VmSize:") + 1000 * KIB;
	CHECK(setrlimit(RLIMIT_AS, &tight) == 0, "setrlimit");
	CHECK(bufpool_checkout(p, 500000 * KIB) == NULL && errno == ENOMEM,
	      "too much");
	CHECK(stats_of(p).cached_bytes == before, "a hopeless request takes");
	b = bufpool_checkout_aligned(p, 40000 * KIB, 8192);
	CHECK(b != NULL, "no memory");
	/* The rest of the last mapping goes, too, where it is a page. */
	CHECK(stats_of(p).cached_bytes >= before - in_pages(40008 * KIB) -
	      in_pages(0) &&
	      stats_of(p).cached_bytes >= classes,
	      "%llu of %llu bytes are left",
	      (unsigned long long)stats_of(p).cached_bytes,
	      (unsigned long long)before);
	bufpool_release(b);
	bufpool_destroy(p);
}

static void
what_gives_no_addresses_stays_when_these_are_short(void **state)
{
	(void)state;
	needs_address_limit();
	assert_int_equal(in_child(use_a_tight_address_space, NULL), 0);
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

/* How often the threads of this process have lost their core so far. */
static uint64_t
cores_lost(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_nivcsw;
}

/* `trims`: whether another thread trims at the same time. A thread that loses
 * its core in the middle of moving buffers may cost others checkouts, which the
 * header says: one in many where no other program runs, and one more for each
 * core lost, because that is what other programs cause. */
static void
stay_within_max_bytes(int trims)
{
	struct bufpool *p = new_pool(16, 2, THREADS * PART);
	pthread_t thread[THREADS], trimmer;
	uint64_t lost = cores_lost();

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
	lost = cores_lost() - lost;
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "limits: %llu of %llu refused, %llu lost\n",
			(unsigned long long)refused, (unsigned long long)taken,
			(unsigned long long)lost);
	assert_conserved(p);
	bufpool_destroy(p);
	assert_in_range(refused, 0, taken / 20000 + lost);
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
		cmocka_unit_test(
		    a_hopeless_request_takes_nothing_from_the_pool),
		cmocka_unit_test(a_request_for_more_than_is_idle_takes_nothing),
		cmocka_unit_test(what_is_kept_goes_in_part),
		cmocka_unit_test(of_the_classes_no_more_goes_than_must),
		cmocka_unit_test(
		    what_gives_no_addresses_stays_when_these_are_short),
		cmocka_unit_test(a_large_checkout_leaves_what_is_ready),
		cmocka_unit_test(demand_within_max_bytes_is_met),
		cmocka_unit_test(demand_within_max_bytes_is_met_beside_a_trim),
	};

	if (getenv("LIMITS_OPS") != NULL)
		operations = strtoull(getenv("LIMITS_OPS"), NULL, 10);

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
