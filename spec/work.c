/*
 * What one call may do, counted where the core has hooks (src/core/hook.h): so
 * many steps, however much there is to do. Time would tell the same less
 * certainly.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/forked.h"
#include "core/hook.h"
#include "core/pool.h"
#include "core/system.h"
#include "core/ticket.h"
#include "support/pool.h"
#include "support/process.h"

static uint64_t steps;		/* since the last call of counted() */
static const char *only;	/* there; NULL: everywhere */
static uint64_t looks;	/* at another thread's part of the pool */
static __thread bool uncounted;

static void
count_step(const char *place)
{
	if (uncounted)
		return;
	steps += only == NULL || strcmp(place, only) == 0;
	looks += strcmp(place, "steal: found a cache") == 0 ||
	    strcmp(place, "claim: found a shelf") == 0;
}

static uint64_t
counted(void)
{
	uint64_t n = steps;

	steps = 0;
	return n;
}

static struct bufpool_frozen *
frozen(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	assert_non_null(b);
	return bufpool_freeze(b);
}

#define TICKETS 20000
#define AT_ONCE 2000	/* steps of one call, whatever there is */
#define PER_TICKET 40	/* steps in the mean */

/* Statistics take home what has expired, so much of it in one call. */
static void
statistics_take_a_bounded_time(void **state)
{
	struct bufpool *p = pool_with_ttl(0.001);
	struct bufpool_frozen *f = frozen(p);
	uint64_t waiting;

	(void)state;
	for (int i = 0; i < TICKETS; i++)
		bufpool_share(bufpool_frozen_ref(f));
	usleep(20000);
	only = "ticket: claimed";
	counted();
	do {
		waiting = stats_of(p).in_transit;
		assert_in_range(counted(), 1, 1000);
	} while (waiting != 0);
	only = NULL;
	bufpool_frozen_unref(f);
	bufpool_destroy(p);
}

/* Others that have still long to live lie between those that expire. */
static void
expiry_takes_a_bounded_time_per_ticket(void **state)
{
	struct bufpool *p = pool_with_ttl(10), *q = pool_with_ttl(1000);
	struct bufpool_frozen *short_lived = frozen(p), *other = frozen(q);
	int64_t then = bp_system_now() + 100000;
	uint64_t sum = 0, calls = 0;

	(void)state;
	for (int i = 0; i < TICKETS; i++) {
		bufpool_share(bufpool_frozen_ref(short_lived));
		if (i % 4 == 0)
			bufpool_share(bufpool_frozen_ref(other));
	}
	counted();
	for (; p->in_transit != 0; calls++) {
		uint64_t n;

		bp_ticket_expire(then, 8);
		n = counted();
		assert_in_range(n, 1, AT_ONCE);
		sum += n;
	}
	assert_in_range(calls, TICKETS / 8, TICKETS);
	assert_in_range(sum, TICKETS, TICKETS * PER_TICKET);
	assert_int_equal(q->in_transit, TICKETS / 4);
	bp_ticket_expire(then + 10000000, SIZE_MAX);
	assert_int_equal(q->in_transit, 0);
	bufpool_frozen_unref(short_lived);
	bufpool_frozen_unref(other);
	bufpool_destroy(p);
	bufpool_destroy(q);
}

/* Tickets that were adopted leave times behind at which they would have
 * expired. */
static void
adopted_tickets_cost_expiry_little(void **state)
{
	static uint64_t ticket[TICKETS];
	struct bufpool *p = pool_with_ttl(10);
	struct bufpool_frozen *f = frozen(p);
	int64_t then = bp_system_now() + 100000;
	uint64_t sum = 0;

	(void)state;
	for (int i = 0; i < TICKETS; i++)
		ticket[i] = bufpool_share(bufpool_frozen_ref(f));
	for (int i = 0; i < TICKETS; i++) {
		struct bufpool_frozen *again;
		struct bufpool_buf *b;

		assert_int_equal(bufpool_adopt(ticket[i], &b, &again), 0);
		bufpool_frozen_unref(again);
	}
	counted();
	for (int i = 0; i < TICKETS; i++) {
		uint64_t n;

		bp_ticket_expire(then, 8);
		n = counted();
		assert_in_range(n, 0, AT_ONCE + AT_ONCE);
		sum += n;
	}
	assert_in_range(sum, 1, TICKETS * PER_TICKET);
	bufpool_frozen_unref(f);
	bufpool_destroy(p);
}

static void
a_full_table_costs_a_failing_call_nothing(void **state)
{
	struct bufpool *p = pool_with_ttl(0);
	struct bufpool_frozen *f = frozen(p);
	/* One more than there can be: the last one fails. */
	uint64_t *ticket = calloc((1 << 20) + 1, sizeof *ticket);
	size_t n = 0;

	(void)state;
	assert_non_null(ticket);
	while ((ticket[n] = bufpool_share(bufpool_frozen_ref(f))) != 0)
		n++;
	bufpool_frozen_unref(f);
	counted();
	for (int i = 0; i < 10; i++) {
		errno = 0;
		assert_int_equal(bufpool_share(f), 0);
		assert_int_equal(errno, ENOMEM);
		assert_in_range(counted(), 0, 10);
	}
	while (n-- > 0) {
		struct bufpool_frozen *again;
		struct bufpool_buf *b;

		assert_int_equal(bufpool_adopt(ticket[n], &b, &again), 0);
		bufpool_frozen_unref(again);
	}
	free(ticket);
	bufpool_frozen_unref(f);
	bufpool_destroy(p);
}

#define BLANKS 20000

/* What a pool at its max_bytes has given back is still its address space. */
static void
a_refusal_looks_at_no_memory_that_was_given_back(void **state)
{
	static struct bufpool_buf *held[BLANKS];
	struct bufpool *p = new_pool(0, 0, (size_t)BLANKS * 4096);
	struct bufpool_buf *large;

	(void)state;
	for (int i = 0; i < BLANKS; i++)
		held[i] = bufpool_checkout(p, 1);
	for (int i = 0; i < BLANKS; i++)
		bufpool_release(held[i]);
	bufpool_trim(p);
	large = bufpool_checkout(p, (size_t)BLANKS * 4096);
	assert_non_null(large);
	counted();
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, EDQUOT);
	assert_in_range(counted(), 1, 1000);
	bufpool_release(large);
	bufpool_destroy(p);
}

#define BUFFERS 20000

/* What the release of a pool's last buffer leaves to do, later calls do. */
static void
the_end_of_a_pool_takes_many_calls(void **state)
{
	static struct bufpool_buf *held[BUFFERS];
	struct bufpool *p = new_pool(0, 0, 0), *q = new_pool(0, 0, 0);
	unsigned calls = 0;
	uint64_t n = 0;

	(void)state;
	for (int i = 0; i < BUFFERS; i++)
		held[i] = bufpool_checkout(p, 1);
	for (int i = 1; i < BUFFERS; i++)
		bufpool_release(held[i]);
	bufpool_destroy(p);
	only = "arena: destroying";
	counted();
	bufpool_release(held[0]);
	assert_in_range(counted(), 1, 2048);
	assert_int_not_equal(p->caches.id, 0);
	do {
		bufpool_maintain();
		calls++;
		n = counted();
		assert_in_range(n, 1, 6000);
	} while (p->caches.id != 0 && calls < 100);
	assert_in_range(calls, 2, 10);
	only = NULL;
	bufpool_destroy(q);
}

#define POOLS 2000

/* Looking at what was a pool takes a page from the system. */
static void
pools_that_have_gone_are_not_looked_at(void **state)
{
	static struct bufpool *gone[POOLS];
	struct rusage before, after;

	(void)state;
	for (int i = 0; i < POOLS; i++)
		gone[i] = new_pool(0, 0, 0);
	for (int i = 0; i < POOLS; i++)
		bufpool_destroy(gone[i]);
	getrusage(RUSAGE_SELF, &before);
	bufpool_maintain();
	getrusage(RUSAGE_SELF, &after);
	assert_in_range(after.ru_minflt - before.ru_minflt, 0, POOLS / 10);
}

static void
only_exec(void *arg)
{
	(void)arg;
	CHECK(forked_pending(), "all is settled");
	execl("/bin/true", "true", (char *)NULL);
	CHECK(false, "no exec");
}

static void
use_first(void *arg)
{
	struct bufpool_buf *b = bufpool_checkout(arg, 1);

	CHECK(!forked_pending(), "nothing is settled");
	CHECK(stats_of(arg).checked_out == 2, "out");
	bufpool_release(b);
}

static struct bufpool_buf *from_parent;

/* The first call is the release of what the parent had. */
static void
release_first(void *arg)
{
	bufpool_release(from_parent);
	CHECK(!forked_pending(), "nothing is settled");
	CHECK(stats_of(arg).checked_out == 0, "out");
	CHECK(stats_of(arg).lost == 0, "lost");
	assert_conserved(arg);
}

static void *
use_a_little(void *pool)
{
	for (int i = 0; i < 100; i++) {
		struct bufpool_buf *held[100];

		for (int k = 0; k < 100; k++)
			held[k] = bufpool_checkout(pool, 1);
		for (int k = 0; k < 100; k++)
			bufpool_release(held[k]);
	}
	return NULL;
}

/* Threads that the child has started before settle once. */
static void
start_threads(void *arg)
{
	pthread_t thread[4];

	bufpool_hook = NULL;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, use_a_little, arg) == 0,
		      "no thread");
	bufpool_release(from_parent);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	CHECK(stats_of(arg).checked_out == 0, "out");
	CHECK(stats_of(arg).lost == 0, "lost");
	assert_conserved(arg);
	bufpool_thread_flush();
	bufpool_destroy(arg);
	CHECK(((struct bufpool *)arg)->caches.id == 0, "the pool stays");
}

/* A child of fork looks at what its parent had when it first uses a pool. */
static void
a_child_settles_what_it_uses(void **state)
{
	void (*const does[])(void *) = { only_exec, use_first, release_first,
					 start_threads };
	struct bufpool *p = new_pool(10, 0, 0);

	(void)state;
	use_a_little(p);
	from_parent = bufpool_checkout(p, 1);
	for (int i = 0; i < 20; i++)
		for (size_t k = 0; k < sizeof does / sizeof *does; k++)
			assert_int_equal(in_child(does[k], p), 0);
	bufpool_release(from_parent);
	bufpool_destroy(p);
}

#define SLEEPERS 500
#define STACK (64 << 10)

static pthread_barrier_t asleep, over;

/* Some sleep with buffers of the smallest class on their shelves, and have had
 * others, which trim has taken. */
static void *
sleep_with_some(void *p)
{
	struct bufpool_buf *held[100];

	uncounted = true;
	for (int i = 0; i < 100; i++)
		held[i] = bufpool_checkout(p, i % 2 ? 1 : 65536);
	for (int i = 0; i < 100; i++)
		bufpool_release(held[i]);
	pthread_barrier_wait(&asleep);
	pthread_barrier_wait(&asleep);
	for (int i = 0; i < 4; i++)
		held[i] = bufpool_checkout(p, 1);
	for (int i = 0; i < 4; i++)
		bufpool_release(held[i]);
	pthread_barrier_wait(&asleep);
	pthread_barrier_wait(&over);
	return NULL;
}

static void
put_to_sleep(struct bufpool *p, pthread_t sleeper[SLEEPERS])
{
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	pthread_barrier_init(&asleep, NULL, SLEEPERS + 1);
	pthread_barrier_init(&over, NULL, SLEEPERS + 1);
	for (int i = 0; i < SLEEPERS; i++)
		assert_int_equal(pthread_create(&sleeper[i], &small,
						sleep_with_some, p), 0);
	pthread_attr_destroy(&small);
	pthread_barrier_wait(&asleep);
	bufpool_trim(p);
	pthread_barrier_wait(&asleep);
	pthread_barrier_wait(&asleep);
}

static uint64_t
looked(void)
{
	uint64_t n = looks;

	looks = 0;
	return n;
}

static void
a_miss_looks_only_where_something_may_be(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);
	struct bufpool_buf *held[200];
	pthread_t sleeper[SLEEPERS];
	uint64_t sum = 0;

	(void)state;
	put_to_sleep(p, sleeper);
	for (int i = 0; i < 100; i++)
		bufpool_release(bufpool_try_checkout(p, 65536));
	looked();
	for (int i = 0; i < 100; i++) {
		held[i] = bufpool_checkout(p, 65536);
		assert_non_null(held[i]);
		assert_null(bufpool_try_checkout(p, 65536));
		assert_null(bufpool_try_checkout(p, 1 << 20));
		sum += looked();
	}
	assert_in_range(sum, 0, 500);
	/* What they have on their shelves is found nevertheless. */
	for (int i = 100; i < 200; i++) {
		held[i] = bufpool_try_checkout(p, 1);
		assert_non_null(held[i]);
	}
	for (int i = 0; i < 200; i++)
		bufpool_release(held[i]);
	pthread_barrier_wait(&over);
	for (int i = 0; i < SLEEPERS; i++)
		pthread_join(sleeper[i], NULL);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* The peaks are sampled by the clock. */
static void
misses_sample_the_peaks_once_a_tick(void **state)
{
	static struct bufpool_buf *held[20000];
	struct bufpool *p = new_pool(0, 0, 0);
	int64_t before = bp_system_now(), ticks, samples = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		atomic_store(&p->peak_out, 0);
		held[i] = bufpool_checkout(p, 1);
		samples += p->peak_out != 0;
	}
	ticks = bp_system_now() - before + 1;	/* none is below 1 ms */
	assert_in_range(samples, 1, ticks);
	for (int i = 0; i < 20000; i++)
		bufpool_release(held[i]);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expiry_takes_a_bounded_time_per_ticket),
		cmocka_unit_test(statistics_take_a_bounded_time),
		cmocka_unit_test(adopted_tickets_cost_expiry_little),
		cmocka_unit_test(a_full_table_costs_a_failing_call_nothing),
		cmocka_unit_test(a_miss_looks_only_where_something_may_be),
		cmocka_unit_test(misses_sample_the_peaks_once_a_tick),
		cmocka_unit_test(
		    a_refusal_looks_at_no_memory_that_was_given_back),
		cmocka_unit_test(the_end_of_a_pool_takes_many_calls),
		cmocka_unit_test(pools_that_have_gone_are_not_looked_at),
		cmocka_unit_test(a_child_settles_what_it_uses),
	};

	bufpool_hook = count_step;
	return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
