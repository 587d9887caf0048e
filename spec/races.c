/*
 * Two threads in one order that chance would seldom bring about: one is stopped
 * at a place in the core, named by hook() (src/core/hook.h), the other does
 * something, and then the first goes on.
 *
 * The oracle is the law on struct bufpool, and the arena's own count of what is
 * committed: a buffer that nobody can reach any more is missing in the former,
 * and keeps a closed pool from giving all back in the latter.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/checkout.h"
#include "core/hook.h"
#include "core/registry.h"
#include "core/stats.h"
#include "core/table.h"
#include "core/ticket.h"
#include "support/process.h"

#define SMALL 4096
#define MIDDLE 65536
#define LARGE 300000
#define TRACE 10000

static struct bufpool *pool;

/* Stopping a thread. */

struct stop {
	const char *place;	/* NULL: any */
	unsigned nth;		/* arrival there, from 1; 0: none */
	unsigned arrivals;
	bool parked, go, done;
};

static struct stop stop;
static const char *trace[TRACE];	/* the places where it has come */
static __thread bool watched;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void
come_to(const char *place)
{
	if (!watched || (stop.place && strcmp(stop.place, place) != 0))
		return;
	if (stop.arrivals < TRACE)
		trace[stop.arrivals] = place;
	if (++stop.arrivals != stop.nth)
		return;
	pthread_mutex_lock(&lock);
	stop.parked = true;
	pthread_cond_broadcast(&changed);
	while (!stop.go)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

struct actor {
	pthread_t thread;
	void (*before)(void), (*act)(void);
	bool exits;		/* its exit is watched as well */
};

static void *
play(void *actor)
{
	struct actor *a = actor;

	if (a->before != NULL)
		a->before();
	watched = true;
	a->act();
	watched = a->exits;
	if (a->exits)
		return NULL;
	pthread_mutex_lock(&lock);
	stop.done = true;
	pthread_cond_broadcast(&changed);
	while (!stop.go)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* The exit of a thread can only be waited for by a join. */
static void *
attend(void *actor)
{
	struct actor *a = actor;
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, play, a) == 0, "no thread");
	pthread_join(thread, NULL);
	pthread_mutex_lock(&lock);
	stop.done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Returns when the actor is stopped at its nth arrival at the place. False if
 * it has not come there and is done. */
static bool
start(struct actor *a, const char *place, unsigned nth)
{
	stop = (struct stop){ .place = place, .nth = nth };
	CHECK(pthread_create(&a->thread, NULL, attend, a) == 0, "no thread");
	pthread_mutex_lock(&lock);
	while (!stop.parked && !stop.done)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return stop.parked;
}

/* The actor goes on, to the end of its thread. */
static void
finish(struct actor *a)
{
	pthread_mutex_lock(&lock);
	stop.go = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	pthread_join(a->thread, NULL);
}

/* A sandbox: membarrier is refused while this is set. */
static _Atomic int refuse;

__attribute__((visibility("default"))) long
syscall(long number, ...)
{
	static long (*real)(long, ...);
	long arg[6];
	va_list all;

	va_start(all, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(all, long);
	va_end(all);
	if (number == SYS_membarrier && atomic_load(&refuse)) {
		errno = EPERM;
		return -1;
	}
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	return real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

/* What holds of every pool. */

static struct bufpool *
new_pool(void)
{
	const struct bufpool_class_config classes[] = {
		{ SMALL, 4 }, { MIDDLE, 1 }
	};
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = 2;
	config.ticket_ttl = 1000;
	p = bufpool_create(&config);
	CHECK(p != NULL, "no pool");
	return p;
}

static void
check_law(struct bufpool *p)
{
	for (unsigned c = 0; c < p->layout.classes; c++) {
		uint64_t existing = atomic_load(&p->arena.existing[c]);
		uint64_t found = bp_stats_out(p, c) + bp_stats_cached(p, c) +
		    bp_stats_ready(p, c) + atomic_load(&p->lost[c]);

		CHECK(existing == found, "size %zu: %llu exist, %llu are found",
		      p->layout.size[c], (unsigned long long)existing,
		      (unsigned long long)found);
	}
}

static unsigned
pools_left(void)
{
	struct bufpool *p;
	unsigned count = 0;

	for (unsigned i = 0; bp_registry_next(&i, &p); count++)
		bp_arena_drop(&p->arena);
	return count;
}

/* What threads do. */

static void
burst(size_t n, unsigned count)
{
	struct bufpool_buf *held[200];

	for (unsigned i = 0; i < count; i++) {
		held[i] = bufpool_checkout(pool, n);
		CHECK(held[i] != NULL || errno == ESHUTDOWN, "checkout");
		if (held[i] != NULL)
			memset(bufpool_data(held[i]), 1, n);
	}
	for (unsigned i = 0; i < count; i++)
		bufpool_release(held[i]);
}

static void
warm_up(void)
{
	burst(SMALL, 100);
	burst(MIDDLE, 3);
}

static void
trim(void)
{
	bufpool_trim(pool);
}

static pthread_barrier_t meet;

static void *
warm_up_and_wait(void *arg)
{
	warm_up();
	pthread_barrier_wait(&meet);
	pthread_barrier_wait(&meet);
	return arg;
}

/* Makes the pool. A thread exits while its shelf is claimed, and so leaves it
 * to the claimer, which is stopped before it has shut the shelf. */
static void
exit_while_claimed(struct actor *claimer)
{
	pthread_t owner;

	pool = new_pool();
	pthread_barrier_init(&meet, NULL, 2);
	pthread_create(&owner, NULL, warm_up_and_wait, NULL);
	pthread_barrier_wait(&meet);
	assert_true(start(claimer, "claim: claimed", 1));
	pthread_barrier_wait(&meet);
	pthread_join(owner, NULL);
}

/* The claimer, which has to empty the shelf, is refused the fence that it
 * wanted. */
static void
a_claim_that_a_sandbox_stops_empties_a_retired_shelf(void **state)
{
	struct actor claimer = { .act = trim };

	(void)state;
	exit_while_claimed(&claimer);
	atomic_store(&refuse, 1);
	finish(&claimer);
	atomic_store(&refuse, 0);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

static struct bufpool_shelf *
claimed_shelf(void)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		struct cache *k = atomic_load(&t->caches[pool->caches.place]);

		for (unsigned c = 0; k != NULL && c < 2; c++)
			if (atomic_load(&k->shelf[c].gate) & GATE_CLAIMED)
				return &k->shelf[c];
	}
	return NULL;
}

static void *
take_from(void *shelf)
{
	struct bufpool_shelf *s = shelf;
	uint32_t count = shelf_count(s);
	struct bufpool_buf *b = bufpool_checkout(pool, s->size);

	CHECK(thread_own_cache(pool->caches.place) == s->cache,
	      "the record is not adopted");
	CHECK(count > 0 && shelf_count(s) == count,
	      "%u of %u are left on a shelf that is claimed", shelf_count(s),
	      count);
	bufpool_release(b);
	CHECK(shelf_count(s) == count, "%u, not %u", shelf_count(s), count);
	return NULL;
}

/* The next thread gets the record before the claimer has shut the shelf. The
 * claimer does without the heavy fence where the owner has exited, so the next
 * one must not go in unless it finds the shelf unclaimed. */
static void
an_adopted_shelf_that_is_claimed_is_left_alone(void **state)
{
	struct actor claimer = { .act = trim };
	struct bufpool_shelf *s;
	pthread_t next;

	(void)state;
	exit_while_claimed(&claimer);
	s = claimed_shelf();
	assert_non_null(s);
	pthread_create(&next, NULL, take_from, s);
	pthread_join(next, NULL);
	finish(&claimer);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

static void
use_little(void)
{
	burst(SMALL, 10);
	burst(MIDDLE, 1);
}

static void
check_no_cache_is_left(uint32_t place)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		assert_null(atomic_load(&t->caches[place]));
		assert_null(atomic_load(&t->gone));
	}
}

/* Its pool is still there when the thread retires its cache, and ends before
 * the thread has given its record up. */
static void
an_exiting_thread_leaves_no_cache_of_a_pool_that_ends(void **state)
{
	static const char *const places[] = { "exit: begun", "exit: flushed",
					      "record: unmapped" };

	(void)state;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		struct actor leaving = { .act = use_little, .exits = true };
		uint32_t place;

		pool = new_pool();
		place = pool->caches.place;
		assert_true(start(&leaving, places[i], 1));
		bufpool_destroy(pool);
		assert_int_equal(pools_left(), 0);
		finish(&leaving);
		check_no_cache_is_left(place);
	}
}

static struct bufpool *other_pool;

static void *
use_both_pools(void *arg)
{
	bufpool_release(bufpool_checkout(pool, SMALL));
	bufpool_release(bufpool_checkout(other_pool, SMALL));
	return arg;
}

static void
destroy_other(void)
{
	bufpool_destroy(other_pool);
}

/* Two pools end whose caches an exited thread has left, and the end of one has
 * that thread's record for itself when the other comes to it. */
static void
two_ends_at_once_leave_no_cache(void **state)
{
	struct actor slow = { .act = destroy_other };
	uint32_t place, other_place;
	pthread_t thread;

	(void)state;
	pool = new_pool();
	other_pool = new_pool();
	place = pool->caches.place;
	other_place = other_pool->caches.place;
	CHECK(pthread_create(&thread, NULL, use_both_pools, NULL) == 0,
	      "no thread");
	pthread_join(thread, NULL);
	assert_true(start(&slow, "record: unmapped", 1));
	bufpool_destroy(pool);
	finish(&slow);
	check_no_cache_is_left(place);
	check_no_cache_is_left(other_place);
	assert_int_equal(pools_left(), 0);
}

static struct bufpool_buf *last_out;

static void
take_last(void)
{
	last_out = bufpool_checkout(pool, SMALL);
}

/* Then uses a pool that has more classes, in the same place. */
static void
release_last(void)
{
	bufpool_release(last_out);
	for (size_t n = 1; n <= BUFPOOL_CLASSES_MAX * SMALL; n += SMALL)
		burst(n, 3);
}

static struct bufpool *
pool_of_many_classes(void)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	struct bufpool_config config;

	for (size_t i = 0; i < BUFPOOL_CLASSES_MAX; i++)
		classes[i].size = (i + 1) * SMALL, classes[i].count = 0;
	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = BUFPOOL_CLASSES_MAX;
	return bufpool_create(&config);
}

/* A release has put the pool's last buffer on its shelf when the pool ends and
 * another has its place, before the thread has looked at the gate. */
static void
a_shelf_can_be_left_when_its_pool_has_gone(void **state)
{
	struct actor slow = { .before = take_last, .act = release_last };
	struct bufpool *next;
	uint32_t place;

	(void)state;
	pool = new_pool();
	place = pool->caches.place;
	assert_true(start(&slow, "shelf: left", 1));
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
	next = pool_of_many_classes();
	assert_ptr_equal(next, pool);
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t))
		assert_null(atomic_load(&t->caches[place]));
	finish(&slow);
	check_law(next);
	bufpool_destroy(next);
	assert_int_equal(pools_left(), 0);
	check_no_cache_is_left(place);
}

static void
try_middle(void)
{
	last_out = bufpool_try_checkout(pool, MIDDLE);
}

/* One has found a depot empty, and takes its mark away, while its owner pushes:
 * before or after the mark is gone. */
static void
a_depot_that_is_filled_keeps_its_mark(void **state)
{
	static const char *const places[] = { "depot: found empty",
					      "depot: unmarked" };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct actor taker = { .act = try_middle };
		struct bufpool_buf *b;

		pool = new_pool();
		bufpool_release(bufpool_checkout(pool, MIDDLE));
		bufpool_thread_flush();
		b = bufpool_checkout(pool, MIDDLE);
		assert_true(start(&taker, places[i], 1));
		bufpool_release(b);
		bufpool_thread_flush();
		finish(&taker);
		check_law(pool);
		if (last_out == NULL)
			try_middle();
		assert_ptr_equal(last_out, b);
		bufpool_release(last_out);
		check_law(pool);
		bufpool_destroy(pool);
		assert_int_equal(pools_left(), 0);
	}
}

static void
use_middle(void)
{
	burst(MIDDLE, 3);
}

/* Its owner has not come back from the push yet. */
static void
what_was_pushed_is_found_at_once(void **state)
{
	struct actor owner = { .before = use_middle,
			       .act = bufpool_thread_flush };
	struct bufpool_buf *held[3];

	(void)state;
	pool = new_pool();
	assert_true(start(&owner, "depot: pushed", 1));
	for (int i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_try_checkout(pool, MIDDLE));
	finish(&owner);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

static struct stack stack;
static struct bufpool_buf *popped;

static void
pop(void)
{
	popped = bp_buf_pop(&stack);
}

/* One has seen the first two descriptors of a stack when another takes both,
 * and puts the first back: the second must not be found on it again. */
static void
a_slow_pop_does_not_bring_back_what_another_popped(void **state)
{
	struct actor slow = { .act = pop };
	struct bufpool_buf *b[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		b[i] = bp_buf_create();
		assert_non_null(b[i]);
		bp_buf_push(&stack, b[i]);
	}
	assert_true(start(&slow, "stack: popping", 1));
	assert_ptr_equal(bp_buf_pop(&stack), b[2]);
	assert_ptr_equal(bp_buf_pop(&stack), b[1]);
	bp_buf_push(&stack, b[2]);
	finish(&slow);
	assert_ptr_equal(popped, b[2]);
	assert_ptr_equal(bp_buf_pop(&stack), b[0]);
	assert_null(bp_buf_pop(&stack));
	for (int i = 0; i < 3; i++)
		bp_buf_destroy(b[i]);
}

static struct bufpool_buf *lent[BATCH_MAX + 10];

static void *
release_lent(void *range)
{
	const int *r = range;

	for (int i = r[0]; i < r[1]; i++)
		bufpool_release(lent[i]);
	return NULL;
}

/* Into the commons, as a thread leaves its shelf when it exits. */
static void
leave_lent(int from, int to)
{
	int range[] = { from, to };
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, release_lent, range) == 0,
	      "no thread");
	pthread_join(thread, NULL);
}

static void take_all(unsigned class);

/* One has seen the batch on top of the commons when another takes that, and so
 * gets what lies below, and nothing of the first. */
static void
a_batch_is_read_by_whoever_took_it(void **state)
{
	struct actor slow = { .act = take_last };
	bool is_below = false;

	(void)state;
	pool = new_pool();
	for (int i = 0; i < BATCH_MAX + 10; i++)
		lent[i] = bufpool_checkout(pool, SMALL);
	leave_lent(0, 10);
	leave_lent(10, BATCH_MAX + 10);
	assert_true(start(&slow, "stack: popping", 1));
	for (int i = 10; i < BATCH_MAX + 10; i++)
		lent[i] = bufpool_try_checkout(pool, SMALL);
	finish(&slow);
	for (int i = 0; i < 10; i++)
		is_below |= last_out == lent[i];
	assert_true(is_below);
	check_law(pool);
	bufpool_release(last_out);
	for (int i = 10; i < BATCH_MAX + 10; i++)
		bufpool_release(lent[i]);
	take_all(0);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

static uint64_t ticket;
static int adopted, adopt_errno;

static void
adopt_ticket(void)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	adopted = bufpool_adopt(ticket, &b, &f);
	adopt_errno = errno;
	bufpool_release(b);
}

/* One has found the ticket in transit when another adopts it, and its entry is
 * used again, for a ticket of its own or for none. */
static void
a_ticket_that_was_found_is_adopted_once(void **state)
{
	(void)state;
	pool = new_pool();
	for (int again = 0; again <= 1; again++) {
		struct actor slow = { .act = adopt_ticket };

		ticket = bufpool_detach(bufpool_checkout(pool, 1));
		assert_true(start(&slow, "ticket: found", 1));
		adopt_ticket();
		assert_int_equal(adopted, 0);
		ticket = again ? bufpool_detach(bufpool_checkout(pool, 1)) : 0;
		finish(&slow);
		assert_int_equal(adopted, -1);
		assert_int_equal(adopt_errno, ESTALE);
		assert_int_equal(atomic_load(&pool->in_transit), again);
	}
	adopt_ticket();
	assert_int_equal(adopted, 0);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

/* fork, wherever the actor is stopped. */

static void
use_all(void)
{
	struct bufpool_buf *b = bufpool_checkout(pool, SMALL);

	bufpool_frozen_unref(bufpool_freeze(b));
	burst(SMALL, 150);
	burst(MIDDLE, 3);
	burst(LARGE, 2);
	b = bufpool_checkout(pool, SMALL);
	CHECK(bufpool_resize(b, MIDDLE) == 0 && bufpool_resize(b, LARGE) == 0,
	      "resize");
	bufpool_release(b);
}

/* The tickets of both ends: the actor's own, and one that has expired. */
static void
hand_over(void)
{
	for (int i = 0; i < 2; i++) {
		struct bufpool_frozen *f;
		struct bufpool_buf *b = bufpool_checkout(pool, SMALL);
		uint64_t mine = bufpool_detach(b);

		if (i == 0)
			CHECK(bufpool_adopt(mine, &b, &f) == 0, "adopt");
		if (i == 0)
			bufpool_release(b);
		else
			bp_ticket_expire(INT64_MAX - 1, SIZE_MAX);
	}
}

static void
use_and_close_own(void)
{
	struct bufpool *other = pool;

	pool = new_pool();
	burst(SMALL, 10);
	burst(LARGE, 1);
	bufpool_destroy(pool);
	pool = other;
}

static void
shut(void)
{
	bufpool_close(pool);
}

static void
check_all_pools(void)
{
	struct bufpool *p;

	for (unsigned i = 0; bp_registry_next(&i, &p);) {
		check_law(p);
		bp_arena_drop(&p->arena);
	}
}

/* All that exists and is neither out nor lost can be had, and is zero. Tickets
 * that expire while it is counted would come home in between, so they do so
 * before, as statistics are asked for. */
static void
take_all(unsigned class)
{
	size_t n = pool->layout.size[class];
	struct bufpool_stats s;
	uint64_t missing, free;
	struct bufpool_buf *held[300];
	uint64_t got = 0;

	bufpool_get_stats(pool, &s);
	missing = bp_stats_out(pool, class) + atomic_load(&pool->lost[class]);
	free = atomic_load(&pool->arena.existing[class]) - missing;
	CHECK(free <= 300, "%llu are free", (unsigned long long)free);
	for (; got < 300; got++) {
		const uint8_t *byte;

		held[got] = bufpool_try_checkout(pool, n);
		if (held[got] == NULL)
			break;
		byte = bufpool_peek(held[got]);
		CHECK(byte[0] == 0 && memcmp(byte, byte + 1, n - 1) == 0,
		      "not zero");
	}
	CHECK(got == free, "size %zu: %llu are free, %llu can be had", n,
	      (unsigned long long)free, (unsigned long long)got);
	while (got > 0)
		bufpool_release(held[--got]);
}

static void *
adopt(void *arg)
{
	use_little();
	pthread_barrier_wait(&meet);
	pthread_barrier_wait(&meet);
	use_little();
	return arg;
}

/* A pool that no user has goes, unless a buffer is out or lost. What a ticket
 * of the parent holds goes first. */
static void
check_ends(void)
{
	struct bufpool *p;

	bp_ticket_expire(INT64_MAX - 1, SIZE_MAX);
	if (atomic_load(&pool->users) > 0)
		bufpool_destroy(pool);
	for (unsigned i = 0; bp_registry_next(&i, &p);) {
		struct bufpool_stats s;

		bufpool_get_stats(p, &s);
		CHECK(atomic_load(&p->users) > 0 || s.checked_out > 0 ||
		      s.lost > 0, "a pool stays, with %llu references and "
		      "%llu bytes",
		      (unsigned long long)atomic_load(&p->arena.refs) - 1,
		      (unsigned long long)s.committed_bytes);
		bp_arena_drop(&p->arena);
	}
}

/* The pool is whole: also what another thread has cached is found and, when the
 * pool is closed, goes. */
static void
check_child(void)
{
	pthread_t adopter;

	bufpool_hook = NULL;
	check_all_pools();
	if (atomic_load(&pool->users) == 0) {	/* it was just being closed */
		check_ends();
		_exit(0);
	}
	pthread_barrier_init(&meet, NULL, 2);
	CHECK(pthread_create(&adopter, NULL, adopt, NULL) == 0, "no thread");
	pthread_barrier_wait(&meet);
	check_all_pools();
	for (unsigned c = 0; c < pool->layout.classes; c++)
		if (!atomic_load(&pool->caches.closed))
			take_all(c);
	bufpool_close(pool);
	check_all_pools();
	for (unsigned c = 0; c < pool->layout.classes; c++)
		CHECK(atomic_load(&pool->arena.existing[c]) ==
		      bp_stats_out(pool, c) + atomic_load(&pool->lost[c]),
		      "size %zu: some are left", pool->layout.size[c]);
	pthread_barrier_wait(&meet);
	pthread_join(adopter, NULL);
	check_all_pools();
	check_ends();
	_exit(0);
}

static const struct actor deeds[] = {
	{ .act = use_all },
	{ .act = use_little, .exits = true },
	{ .before = warm_up, .act = trim },
	{ .before = warm_up, .act = shut },
	{ .before = warm_up, .act = bufpool_thread_flush },
	{ .act = use_and_close_own },
	{ .act = hand_over },
};

static void
begin(void)
{
	pool = new_pool();
	atomic_store(&pool->decayed, INT64_MAX);
	burst(SMALL, 10);
}

static int
fork_at(const struct actor *deed, unsigned nth)
{
	struct actor actor = *deed;
	int status = -1;
	pid_t pid;

	begin();
	CHECK(start(&actor, NULL, nth), "not stopped");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		check_child();
	signal(SIGTERM, SIG_IGN);	/* a child that hangs is ended alone */
	waitpid(pid, &status, 0);
	signal(SIGTERM, SIG_DFL);
	if (status != 0)
		print_error("deed %d, at '%s' after '%s': status %x\n",
			    (int)(deed - deeds), trace[nth - 1],
			    nth > 1 ? trace[nth - 2] : "the start",
			    (unsigned)status);
	finish(&actor);
	bufpool_destroy(pool);
	return status != 0;
}

/* Whether the nth step from one place to another is the first of its kind. */
static bool
is_new_step(unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		if (trace[i - 1] == trace[n - 1] &&
		    (i > 1 ? trace[i - 2] : NULL) ==
			(n > 1 ? trace[n - 2] : NULL))
			return false;
	return true;
}

static void
a_child_finds_every_pool_whole(void **state)
{
	unsigned steps;
	int bad = 0;

	(void)state;
	for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
		struct actor actor = deeds[i];

		begin();
		start(&actor, NULL, 0);
		finish(&actor);
		bufpool_destroy(pool);
		steps = stop.arrivals;
		CHECK(steps <= TRACE, "%u steps", steps);
		for (unsigned n = 1; n <= steps; n++)
			if (is_new_step(n))
				bad += fork_at(&deeds[i], n);
	}
	assert_int_equal(bad, 0);
}

static struct bufpool_buf *slow_buf;
static uint64_t slow_ticket;

static uint64_t
detach(void)
{
	return bufpool_detach(bufpool_checkout(pool, 1));
}

static void
detach_slowly(void)
{
	slow_ticket = bufpool_detach(slow_buf);
}

static void
adopt_this(uint64_t wanted)
{
	ticket = wanted;
	adopt_ticket();
	assert_int_equal(adopted, 0);
}

/* One has seen the first two of four spare entries when another takes all, and
 * gives the first back to the same stack: for that, what is given goes to the
 * other stack once, from where the last one is taken. The second entry is in
 * use, so none may find it on the stack. */
static void
a_slow_ticket_does_not_take_the_entry_of_another(void **state)
{
	enum { MANY = 64 };	/* more entries than were ever used */
	struct actor slow = { .act = detach_slowly };
	uint64_t held[MANY], mine[5];

	(void)state;
	pool = new_pool();
	for (int i = 0; i < MANY; i++)
		held[i] = detach();
	for (int i = 0; i < 4; i++)
		adopt_this(held[i]);
	slow_buf = bufpool_checkout(pool, 1);
	assert_true(start(&slow, "stack: popping", 1));
	for (int i = 0; i < 4; i++)
		mine[i] = detach();
	adopt_this(mine[3]);
	mine[3] = detach();
	adopt_this(mine[0]);
	finish(&slow);
	mine[0] = slow_ticket;
	mine[4] = detach();
	for (int i = 0; i < 5; i++)
		adopt_this(mine[i]);
	for (int i = 4; i < MANY; i++)
		adopt_this(held[i]);
	assert_int_equal(atomic_load(&pool->in_transit), 0);
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

/* Has more buffers than the calls do away with that end it: it is left on the
 * stack of pools that are ending. */
static struct bufpool *
pool_that_ends_slowly(void)
{
	const struct bufpool_class_config class = { SMALL, 4 * REGISTRY_WORK };
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.classes = &class;
	config.class_count = 1;
	p = bufpool_create(&config);
	CHECK(p != NULL, "no pool");
	return p;
}

static void
finish_a_little(void)
{
	bp_registry_finish(1);
}

/* One has seen the first two pools that are ending when another ends both, and
 * their places are those of new pools, of which the first is ending as well:
 * the second is whole, and stays so. */
static void
a_slow_end_does_not_take_a_pool_that_lives(void **state)
{
	struct actor slow = { .act = finish_a_little };
	struct bufpool *first = pool_that_ends_slowly();
	struct bufpool *second = pool_that_ends_slowly(), *next;
	struct bufpool_buf *last[] = { bufpool_checkout(second, 1),
				       bufpool_checkout(first, 1) };

	(void)state;
	bufpool_destroy(second);
	bufpool_destroy(first);
	bufpool_release(last[0]);
	bufpool_release(last[1]);
	assert_true(start(&slow, "stack: popping", 1));
	assert_true(bp_registry_finish(UINT_MAX));
	next = pool_that_ends_slowly();
	assert_ptr_equal(next, first);
	pool = new_pool();
	assert_ptr_equal(pool, second);
	last[0] = bufpool_checkout(next, 1);
	bufpool_destroy(next);
	bufpool_release(last[0]);
	finish(&slow);
	assert_true(bp_registry_finish(UINT_MAX));
	assert_int_equal(pools_left(), 1);
	warm_up();
	check_law(pool);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

/* An actor can also be stopped where it makes memory accessible. */
__attribute__((visibility("default"))) int
mprotect(void *at, size_t bytes, int access)
{
	static int (*real)(void *, size_t, int);

	if (watched && stop.place != NULL)
		come_to("mprotect");
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "mprotect");
	return real(at, bytes, access);
}

#define ITEM 65536	/* as much as a table makes accessible at a time */

static struct table table;
static int64_t extended;
static int extend_errno;

static void
extend(void)
{
	extended = bp_table_extend(&table);
	extend_errno = errno;
}

/* Two want the same new entry: one gets it, the other the next one, or none
 * where there is no more. */
static void
an_entry_of_a_table_is_taken_once(void **state)
{
	static const uint32_t used[] = { 0, 10, 63 };

	(void)state;
	assert_true(bp_table_init(&table, ITEM, 64));
	for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
		struct actor slow = { .act = extend };
		bool room = used[i] + 1 < table.limit;

		while (table_used(&table) < used[i])
			assert_true(bp_table_extend(&table) >= 0);
		assert_true(start(&slow, "mprotect", 1));
		assert_int_equal(bp_table_extend(&table), used[i]);
		finish(&slow);
		assert_true(extended == (room ? (int64_t)used[i] + 1 : -1));
		assert_true(room || extend_errno == ENOMEM);
		assert_int_equal(table_used(&table), used[i] + 1U + room);
	}
}

/* Leak detection. */

static void
watch_all(void)
{
	assert_int_equal(bufpool_detect_leaks(pool, BUFPOOL_LEAK_ALL, 1), 0);
}

static void
watch_none(void)
{
	assert_int_equal(bufpool_detect_leaks(pool, BUFPOOL_LEAK_OFF, 1), 0);
}

static void
watch_some(void)
{
	assert_int_equal(bufpool_detect_leaks(pool, BUFPOOL_LEAK_SAMPLED, 1),
			 0);
}

/* Also in the caches of threads that have exited: they stay as they are. */
static void
check_watched(bool expected)
{
	struct cache_block *block = atomic_load(&pool->caches.blocks);
	unsigned count = 0;

	for (unsigned i = 0; i < CACHE_BLOCK; i++) {
		struct cache *k = atomic_load(&block->cache[i]);

		for (unsigned c = 0; k != NULL && c < 2; c++, count++)
			assert_int_equal((atomic_load(&k->shelf[c].gate) &
					  GATE_WATCHED) != 0, expected);
	}
	assert_true(count >= 2);
}

/* One is stopped at a place while it acts, with what was set first; another
 * sets something meanwhile, and that holds. */
struct change {
	void (*first)(void), (*act)(void), (*last)(void);
	const char *place;
	bool watched;
};

static void
check_changes(const struct change *change, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct actor actor = { .before = warm_up,
				       .act = change[i].act };

		pool = new_pool();
		warm_up();
		change[i].first();
		assert_true(start(&actor, change[i].place, 1));
		change[i].last();
		finish(&actor);
		check_watched(change[i].watched);
		check_law(pool);
		bufpool_destroy(pool);
		assert_int_equal(pools_left(), 0);
	}
}

static void
what_was_set_last_is_watched(void **state)
{
	static const struct change changes[] = {
		{ watch_some, warm_up, watch_none, "watch: due", false },
		{ watch_some, warm_up, watch_all, "watch: due", true },
		{ watch_some, warm_up, watch_none, "watch: wanted", false },
		{ watch_some, warm_up, watch_all, "watch: wanted", true },
		{ watch_none, watch_all, watch_none, "watch: read", false },
		{ watch_all, watch_none, watch_all, "watch: read", true },
		{ watch_all, watch_some, watch_all, "watch: read", true },
	};

	(void)state;
	check_changes(changes, sizeof changes / sizeof *changes);
}

static void
watch_next(void)
{
	struct cache *k = thread_own_cache(pool->caches.place);

	bp_shelf_watch(&k->shelf[0]);
}

static void
watch_no_more(void)
{
	struct cache *k = thread_own_cache(pool->caches.place);

	bp_shelf_unwatch(&k->shelf[0]);
}

/* The owner of a shelf is just taking back what it has done to the gate, since
 * another has set what is watched; that is set again meanwhile. */
static void
an_owner_that_takes_back_finds_what_was_set_last(void **state)
{
	static const struct change changes[] = {
		{ watch_none, watch_next, watch_all, "watch: read", true },
		{ watch_all, watch_no_more, watch_none, "watch: read", false },
	};

	(void)state;
	check_changes(changes, sizeof changes / sizeof *changes);
}

static void
check_two_are_recorded(void *arg)
{
	struct bufpool_buf *a = bufpool_checkout(pool, SMALL);
	struct bufpool_buf *b = bufpool_checkout(pool, SMALL);
	struct bufpool_site site[2] = { { .buffers = 0 } };

	(void)arg;
	bufpool_sites(pool, site, 2);
	CHECK(site[0].buffers + site[1].buffers == 2, "%llu recorded",
	      (unsigned long long)(site[0].buffers + site[1].buffers));
	bufpool_release(a);
	bufpool_release(b);
	CHECK(bufpool_sites(pool, site, 2) == 0, "records are left");
}

/* The parent's other thread has set what is watched, and no gate yet. */
static void
a_child_watches_what_was_set(void **state)
{
	struct actor setter = { .before = warm_up, .act = watch_all };

	(void)state;
	pool = new_pool();
	warm_up();
	assert_true(start(&setter, "watch: read", 1));
	assert_int_equal(in_child(check_two_are_recorded, NULL), 0);
	finish(&setter);
	bufpool_destroy(pool);
	assert_int_equal(pools_left(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    a_claim_that_a_sandbox_stops_empties_a_retired_shelf),
		cmocka_unit_test(
		    an_exiting_thread_leaves_no_cache_of_a_pool_that_ends),
		cmocka_unit_test(two_ends_at_once_leave_no_cache),
		cmocka_unit_test(a_shelf_can_be_left_when_its_pool_has_gone),
		cmocka_unit_test(a_depot_that_is_filled_keeps_its_mark),
		cmocka_unit_test(what_was_pushed_is_found_at_once),
		cmocka_unit_test(
		    a_slow_pop_does_not_bring_back_what_another_popped),
		cmocka_unit_test(a_batch_is_read_by_whoever_took_it),
		cmocka_unit_test(a_ticket_that_was_found_is_adopted_once),
		cmocka_unit_test(a_child_finds_every_pool_whole),
		cmocka_unit_test(
		    a_slow_ticket_does_not_take_the_entry_of_another),
		cmocka_unit_test(a_slow_end_does_not_take_a_pool_that_lives),
		cmocka_unit_test(
		    an_adopted_shelf_that_is_claimed_is_left_alone),
		cmocka_unit_test(an_entry_of_a_table_is_taken_once),
		cmocka_unit_test(what_was_set_last_is_watched),
		cmocka_unit_test(
		    an_owner_that_takes_back_finds_what_was_set_last),
		cmocka_unit_test(a_child_watches_what_was_set),
	};

	bufpool_hook = come_to;
	return cmocka_run_group_tests_name("races", tests, NULL, NULL);
}
