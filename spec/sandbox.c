/*
 * A process that forbids itself membarrier(2) after it has begun to use pools:
 * no buffer is ever in two hands, nothing dies, and what one thread has cached
 * comes back when that thread flushes or exits.
 *
 * SANDBOX_OPS: checkouts of each thread.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include <linux/membarrier.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/buf.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define THREADS 4
#define HELD 16			/* buffers that a thread holds, at most */
#define OWNERS (1 << 16)

static size_t operations = 400000;
static struct bufpool *pool;
static _Atomic uint64_t owner[OWNERS];	/* by descriptor; 0: in the pool */
static _Atomic uint32_t begun, running;

static void
forbid_membarrier(void)
{
	CHECK(forbid(SYS_membarrier, EPERM), "no filter");
	CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) == -1,
	      "membarrier is not forbidden");
}

static struct bufpool_buf *
acquire(size_t n, uint64_t me)
{
	struct bufpool_buf *b = bufpool_checkout(pool, n);
	uint64_t was;

	if (b == NULL) {	/* others hold or cache all of max_bytes */
		CHECK(errno == EDQUOT, "checkout");
		return NULL;
	}
	CHECK(b->number < OWNERS, "%u descriptors", b->number);
	was = atomic_exchange(&owner[b->number], me);
	CHECK(was == 0, "buffer %u of %llu given to %llu", b->number,
	      (unsigned long long)was, (unsigned long long)me);
	CHECK(*(const uint64_t *)bufpool_peek(b) == 0, "not wiped");
	*(uint64_t *)bufpool_data(b) = me;
	return b;
}

static void
release(struct bufpool_buf *b, uint64_t me)
{
	CHECK(*(const uint64_t *)bufpool_peek(b) == me, "written by another");
	CHECK(atomic_exchange(&owner[b->number], 0) == me, "owned by another");
	bufpool_release(b);
}

/* Most checkouts are served by the thread's own shelf. The limit of the pool
 * makes some of them look for a buffer on other threads' shelves. */
static void *
work(void *arg)
{
	static const size_t sizes[] = { 100, 4096, 4096, 65536 };
	struct bufpool_buf *held[HELD] = { NULL };
	uint64_t me = (uint64_t)(uintptr_t)arg, random = me * 7919;

	atomic_fetch_add(&begun, 1);
	for (size_t i = 0; i < operations; i++) {
		size_t at;

		random = random * 6364136223846793005u + 1442695040888963407u;
		at = random >> 33 & (HELD - 1);
		if (held[at] != NULL) {
			release(held[at], me);
			held[at] = NULL;
		} else {
			held[at] = acquire(sizes[random >> 40 & 3], me);
		}
	}
	for (size_t i = 0; i < HELD; i++)
		if (held[i] != NULL)
			release(held[i], me);
	atomic_fetch_sub(&running, 1);
	return NULL;
}

/* A pool that is closed while other threads have cached buffers of it. */
static void
open_and_close_another(void)
{
	struct bufpool *p = new_pool(2, 0, 0);

	bufpool_release(bufpool_checkout(p, 4096));
	bufpool_close(p);
	bufpool_destroy(p);
}

static void
use_in_a_sandbox(void *arg)
{
	pthread_t thread[THREADS];

	pool = new_pool(8, 2, (size_t)1 << 20);
	atomic_store(&running, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], NULL, work,
				     (void *)(i + 1)) == 0, "no thread");
	while (atomic_load(&begun) < THREADS)
		sched_yield();
	if (arg != NULL)
		forbid_membarrier();
	while (atomic_load(&running) > 0) {
		bufpool_trim(pool);
		open_and_close_another();
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	CHECK(stats_of(pool).checked_out == 0, "some are out");
	assert_conserved(pool);
	bufpool_trim(pool);
	/* Each of the last may keep a page that it shares. */
	CHECK(stats_of(pool).committed_bytes >= 8 * 4096 + 2 * 65536 &&
	      stats_of(pool).committed_bytes <= 8 * in_pages(0) + 2 * 65536,
	      "trimmed to %llu bytes",
	      (unsigned long long)stats_of(pool).committed_bytes);
	bufpool_close(pool);
	CHECK(stats_of(pool).committed_bytes == 0, "closed");
	bufpool_destroy(pool);
}

static void
no_buffer_is_in_two_hands_after_a_filter(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(use_in_a_sandbox, &pool), 0);
}

static pthread_barrier_t step;

static void *
cache_some(void *arg)
{
	struct bufpool_buf *held[8];

	(void)arg;
	for (int i = 0; i < 8; i++)
		held[i] = bufpool_checkout(pool, 4096);
	for (int i = 0; i < 8; i++)
		bufpool_release(held[i]);
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	bufpool_thread_flush();
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	return NULL;
}

/* `arg`: whether the pool is closed while the thread has buffers cached. */
static void
take_from_another_thread(void *arg)
{
	pthread_t thread;

	pool = new_pool(0, 0, 0);
	pthread_barrier_init(&step, NULL, 2);
	pthread_create(&thread, NULL, cache_some, NULL);
	pthread_barrier_wait(&step);
	forbid_membarrier();
	if (arg != NULL)
		bufpool_close(pool);
	else
		CHECK(bufpool_trim(pool) == 0, "trimmed");
	CHECK(stats_of(pool).classes[0].cached == 8, "taken from the thread");
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);	/* it has flushed */
	/* The pages that buffers share go at the next trim. */
	if (arg == NULL || in_pages(0) > 4096)
		CHECK(bufpool_trim(pool) == 8 * 4096, "not trimmed");
	CHECK(stats_of(pool).committed_bytes == 0, "not given back");
	pthread_barrier_wait(&step);
	pthread_join(thread, NULL);
	bufpool_destroy(pool);
}

static void
what_a_thread_has_cached_stays_until_it_flushes(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(take_from_another_thread, NULL), 0);
}

static void
a_closed_pool_gets_its_buffers_when_the_thread_flushes(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(take_from_another_thread, &step), 0);
}

/* What a thread has cached itself needs no fence: a program of one thread that
 * opens and closes pools keeps nothing of them. */
static void
take_from_oneself(void *arg)
{
	(void)arg;
	pool = new_pool(0, 0, 0);
	bufpool_release(bufpool_checkout(pool, 4096));
	forbid_membarrier();
	CHECK(bufpool_trim(pool) == 4096, "not trimmed");
	bufpool_release(bufpool_checkout(pool, 4096));
	bufpool_close(pool);
	CHECK(stats_of(pool).committed_bytes == 0, "not given back");
	bufpool_destroy(pool);
}

static void
what_the_caller_has_cached_itself_is_given_back(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(take_from_oneself, NULL), 0);
}

static void
use_in_a_fork_child(void *arg)
{
	int status;

	(void)arg;
	bufpool_destroy(new_pool(1, 0, 0));
	forbid_membarrier();
	status = in_child(use_in_a_sandbox, NULL);
	CHECK(status == 0, "wait status %x", (unsigned)status);
}

static void
a_fork_child_may_use_the_pools(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(use_in_a_fork_child, NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_buffer_is_in_two_hands_after_a_filter),
		cmocka_unit_test(
		    what_a_thread_has_cached_stays_until_it_flushes),
		cmocka_unit_test(
		    a_closed_pool_gets_its_buffers_when_the_thread_flushes),
		cmocka_unit_test(
		    what_the_caller_has_cached_itself_is_given_back),
		cmocka_unit_test(a_fork_child_may_use_the_pools),
	};

	if (getenv("SANDBOX_OPS") != NULL)
		operations = strtoull(getenv("SANDBOX_OPS"), NULL, 10);
	return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
