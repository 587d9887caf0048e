/*
 * Threads that come and go, one after another and many at a time: what threads
 * have left makes nothing slower, and little of it stays.
 *
 * THREADS: how many come one after another, 100,000 unless given.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define AT_ONCE 2000
#define STACK (64 << 10)

static size_t one_by_one = 100000;
static pthread_barrier_t all_hold;

static size_t
records(void)
{
	size_t count = 0;

	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t))
		count++;
	return count;
}

/* What a walk over all caches looks at: caches, and blocks of them. */
static void
count_walk(const struct bufpool *p, size_t *caches, size_t *blocks)
{
	struct cache_block *block = atomic_load(&p->caches.blocks);
	struct cache *k;

	*caches = *blocks = 0;
	for_each_cache(k, &p->caches)
		++*caches;
	for (; block != NULL; block = block->next)
		++*blocks;
}

static void *
use(void *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 100);

	CHECK(b != NULL, "checkout");
	*(char *)bufpool_data(b) = 1;
	bufpool_release(b);
	return NULL;
}

static void *
use_at_once(void *p)
{
	use(p);
	pthread_barrier_wait(&all_hold);
	return use(p);
}

static pthread_t
start(void *(*what)(void *), void *p)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	CHECK(pthread_create(&thread, &small, what, p) == 0, "no thread");
	pthread_attr_destroy(&small);
	return thread;
}

static void
come_one_by_one(void *arg)
{
	struct bufpool *p = new_pool(4, 0, 0);
	size_t caches, blocks;

	(void)arg;
	use(p);
	for (size_t i = 0; i < one_by_one; i++)
		pthread_join(start(use, p), NULL);
	count_walk(p, &caches, &blocks);
	CHECK(caches == 1 && blocks == 1, "%zu caches, %zu blocks", caches,
	      blocks);
	CHECK(records() == 2, "%zu records", records());
	CHECK(stats_of(p).checked_out == 0 &&
	      stats_of(p).hits + stats_of(p).misses == one_by_one + 1,
	      "%llu checkouts", (unsigned long long)stats_of(p).hits);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
those_that_have_gone_leave_nothing_to_look_at(void **state)
{
	(void)state;
	assert_int_equal(in_child(come_one_by_one, NULL), 0);
}

static void
come_at_once(struct bufpool *p)
{
	static pthread_t thread[AT_ONCE];

	pthread_barrier_init(&all_hold, NULL, AT_ONCE);
	for (size_t i = 0; i < AT_ONCE; i++)
		thread[i] = start(use_at_once, p);
	for (size_t i = 0; i < AT_ONCE; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&all_hold);
}

static size_t
resident_pages(void *at, size_t bytes)
{
	static unsigned char is[4096];
	size_t sum = 0;

	CHECK(bytes <= sizeof is * 4096 && mincore(at, bytes, is) == 0,
	      "mincore");
	for (size_t i = 0; i < (bytes + 4095) / 4096; i++)
		sum += is[i] & 1;
	return sum;
}

/* As the header says: of a record, and of a cache but for what waited in its
 * depot. */
static void
check_what_stays(struct bufpool *p)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		struct cache *k = atomic_load(&t->caches[p->caches.place]);

		CHECK(SANITIZED || resident_pages(t, sizeof *t) <= 2,
		      "a record has %zu pages", resident_pages(t, sizeof *t));
		CHECK(SANITIZED || k == NULL ||
		      resident_pages(k, k->bytes) <= 1,
		      "a cache has %zu pages", resident_pages(k, k->bytes));
	}
}

/* Each crowd has a pool of its own. What stays are the records, each with the
 * pages that its thread has used: they serve the next crowd. */
static void
come_in_crowds(void *arg)
{
	size_t before = 0, caches, blocks, after;
	bool counts = memory_is_its_own();

	(void)arg;
	for (int round = 0; round < 3; round++) {
		struct bufpool *p = new_pool(4, 0, 0);

		if (round == 0)	/* the C library keeps stacks */
			before = status_bytes("VmRSS:");
		use(p);
		come_at_once(p);
		count_walk(p, &caches, &blocks);
		CHECK(caches == 1, "%zu caches are live", caches);
		CHECK(blocks <= AT_ONCE / CACHE_BLOCK + 2, "%zu blocks",
		      blocks);
		CHECK(records() <= AT_ONCE + 1, "%zu records", records());
		assert_conserved(p);
		check_what_stays(p);
		bufpool_destroy(p);
		after = status_bytes("VmRSS:");
		if (getenv("VERBOSE"))
			fprintf(stderr, "crowd: %zu KiB stay\n",
				(after - before) / 1024);
		CHECK(!counts ||
		      after - before < AT_ONCE * 3 * in_pages(0) + (4 << 20),
		      "%zu KiB stay", (after - before) / 1024);
	}
}

static void
two_thousand_may_come_at_once(void **state)
{
	(void)state;
	assert_int_equal(in_child(come_in_crowds, NULL), 0);
}

/* Pools that have one place in turn, of more classes and of fewer. */

#define USERS 32
#define CLASSES { 1, 16, 4, 16, 1, 4 }
#define TURNS 6

static struct bufpool *aside, *in_turn;
static struct bufpool_buf *lent[USERS];
static uint8_t expected[65536];
static pthread_barrier_t turn;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static struct bufpool *
pool_of_classes(size_t count)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	struct bufpool_config config;

	for (size_t i = 0; i < count; i++)
		classes[i] = (struct bufpool_class_config){ 4096 * (i + 1), 0 };
	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = count;
	return bufpool_create(&config);
}

static void
use_classes(struct bufpool *p)
{
	for (size_t n = 1; n <= BUFPOOL_CLASSES_MAX * 4096; n += 4096) {
		struct bufpool_buf *b = bufpool_checkout(p, n);

		CHECK(b != NULL && b->arena == &p->arena, "checkout");
		CHECK(bufpool_capacity(b) >= n, "%zu bytes for %zu",
		      bufpool_capacity(b), n);
		memset(bufpool_data(b), 1, n);
		bufpool_release(b);
	}
}

/* A buffer of another pool, as often as not mapped beside the cache that the
 * thread makes next, holds what the owner word of an idle shelf could hold. */
static void *
use_in_turn(void *number)
{
	struct bufpool_buf *mine;

	for (int i = 0; i < TURNS; i++) {
		pthread_mutex_lock(&one_at_a_time);
		use(aside);
		mine = bufpool_checkout(aside, sizeof expected);
		memcpy(bufpool_data(mine), expected, sizeof expected);
		bufpool_release(lent[(uintptr_t)number]);
		use_classes(in_turn);
		pthread_mutex_unlock(&one_at_a_time);
		bufpool_thread_flush();
		pthread_barrier_wait(&turn);
		pthread_barrier_wait(&turn);
		CHECK(memcmp(bufpool_peek(mine), expected, sizeof expected) ==
		      0, "written to by another pool");
		bufpool_release(mine);
	}
	return NULL;
}

static void
take_turns(void *arg)
{
	const size_t classes[TURNS + 1] = CLASSES;
	pthread_t thread[USERS];

	(void)arg;
	memset(expected, 0xee, sizeof expected);
	for (size_t i = 0; i < sizeof expected; i += 64)
		expected[i] = 1;
	aside = bufpool_create(NULL);
	pthread_barrier_init(&turn, NULL, USERS + 1);
	for (int i = 0; i < TURNS; i++) {
		struct bufpool *last = in_turn;

		in_turn = pool_of_classes(classes[i]);
		CHECK(last == NULL || in_turn == last, "another place");
		for (size_t j = 0; j < USERS; j++)
			lent[j] = bufpool_checkout(in_turn, 1);
		if (i > 0)
			pthread_barrier_wait(&turn);
		else
			for (size_t j = 0; j < USERS; j++)
				thread[j] = start(use_in_turn, (void *)j);
		pthread_barrier_wait(&turn);
		assert_conserved(in_turn);
		bufpool_destroy(in_turn);
	}
	pthread_barrier_wait(&turn);
	for (size_t j = 0; j < USERS; j++)
		pthread_join(thread[j], NULL);
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t))
		CHECK(atomic_load(&t->gone) == NULL, "a cache is left");
	bufpool_destroy(aside);
}

static void
a_cache_serves_no_pool_that_comes_after_its_own(void **state)
{
	(void)state;
	assert_int_equal(in_child(take_turns, NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    those_that_have_gone_leave_nothing_to_look_at),
		cmocka_unit_test(two_thousand_may_come_at_once),
		cmocka_unit_test(
		    a_cache_serves_no_pool_that_comes_after_its_own),
	};

	if (getenv("THREADS") != NULL)
		one_by_one = strtoull(getenv("THREADS"), NULL, 10);
	else if (!addresses_are_free())
		one_by_one = 5000;	/* qemu-user keeps 160 KiB of each */
	return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
