/*
 * No buffer is ever in two hands.
 *
 * Threads check out, stamp, verify and release, for at least ten million
 * checkouts in all; each thread lives for a while and is replaced by a new
 * one. The oracle is outside the pool: a table by address, in which a thread
 * that gets a buffer must find nobody and enters itself by an atomic exchange.
 * Every buffer must read as zero where it was last written. Some buffers go to
 * a mailbox and are released by another thread; some are frozen, and dropped
 * by whoever comes last; one thread trims all the time, another opens, uses
 * and closes pools of its own; some threads release when they exit, from a
 * destructor that runs after the pool's.
 *
 * STRESS_OPS: checkouts in all. STRESS_SEED: printed, to run one again.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "bufpool.h"
#include "core/registry.h"

#define THREADS 8
#define HELD 24			/* buffers that a thread holds, at most */
#define MAILBOX 64
#define OWNERS (1 << 16)	/* slots of the oracle, by descriptor */

#define CHECK(what, ...)                                             \
	do {                                                         \
		if (!(what)) {                                       \
			fprintf(stderr, "stress: " __VA_ARGS__);     \
			fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__); \
			abort();                                     \
		}                                                    \
	} while (0)

static struct bufpool *pool;
static _Atomic uint64_t owner[OWNERS];	/* 0: in the pool */
static _Atomic(struct bufpool_buf *) mailbox[MAILBOX];
static _Atomic(struct bufpool_frozen *) showcase;
static _Atomic uint64_t desk;	/* a ticket */
static _Atomic uint64_t done, passed_on, late, lives;
static uint64_t target;
static pthread_key_t late_key;

static uint64_t
next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* The table of the oracle is by the buffer's memory, as its user sees it: the
 * number is only a place to keep the entry. */
static void
acquire(struct bufpool_buf *b, uint64_t me, size_t n)
{
	const uint8_t *data = bufpool_peek(b);
	uint64_t was;

	CHECK(b->number < OWNERS, "%u descriptors", b->number);
	was = atomic_exchange(&owner[b->number], me);
	CHECK(was == 0, "buffer %u given to %llx while %llx has it", b->number,
	      (unsigned long long)me, (unsigned long long)was);
	if (n >= 16) {
		CHECK(data[0] == 0 && data[n / 2] == 0 && data[n - 1] == 0,
		      "buffer %u is not wiped", b->number);
		memcpy(bufpool_data(b), &me, 8);
		memcpy((uint8_t *)bufpool_data(b) + n - 8, &me, 8);
	}
}

static void
verify(struct bufpool_buf *b, uint64_t me)
{
	const uint8_t *data = bufpool_peek(b);
	size_t n = bufpool_len(b);

	CHECK(atomic_load(&owner[b->number]) == me, "owner changed");
	if (n >= 16)
		CHECK(memcmp(data, &me, 8) == 0 &&
			  memcmp(data + n - 8, &me, 8) == 0,
		      "buffer %u was written by another", b->number);
}

static void
let_go(struct bufpool_buf *b, uint64_t me)
{
	uint64_t was = atomic_exchange(&owner[b->number], 0);

	CHECK(was == me, "released by %llx, owned by %llx",
	      (unsigned long long)me, (unsigned long long)was);
}

static void
give(struct bufpool_buf *b, uint64_t me, uint64_t *seed)
{
	uint64_t how = next_random(seed) % 64;

	verify(b, me);
	if (how < 8) {
		/* Whoever finds it there releases it. */
		let_go(b, me);
		b = atomic_exchange(&mailbox[how * 8 % MAILBOX], b);
		atomic_fetch_add(&passed_on, 1);
		bufpool_release(b);
	} else if (how == 8) {
		struct bufpool_frozen *f;

		let_go(b, me);
		f = bufpool_freeze(b);
		bufpool_frozen_unref(
		    atomic_exchange(&showcase, bufpool_frozen_ref(f)));
		bufpool_frozen_unref(f);
		f = atomic_exchange(&showcase, NULL);
		if (f != NULL) {
			volatile uint8_t sum = 0;

			for (size_t i = 0; i < bufpool_frozen_len(f); i += 64)
				sum ^= ((const uint8_t *)
					    bufpool_frozen_data(f))[i];
			(void)sum;
			bufpool_frozen_unref(f);
		}
	} else if (how == 9) {
		/* Whoever finds the ticket adopts what it stands for. */
		struct bufpool_frozen *f;
		uint64_t ticket;

		let_go(b, me);
		ticket = atomic_exchange(&desk, bufpool_detach(b));
		if (ticket == 0)
			return;
		CHECK(bufpool_adopt(ticket, &b, &f) == 0, "lost a ticket");
		atomic_fetch_add(&passed_on, 1);
		bufpool_release(b);
	} else {
		let_go(b, me);
		bufpool_release(b);
	}
}

static size_t
some_size(uint64_t *seed)
{
	uint64_t r = next_random(seed) % 100;

	return r < 70 ? next_random(seed) % 4097
	    : r < 90  ? next_random(seed) % 65537
	    : r < 99  ? next_random(seed) % 262145 % 70000
	    : next_random(seed) % 32 > 0
		? 1048576 + next_random(seed) % 10000
		: 1048576 + next_random(seed) % 5000000;
}

/* Some have grown before they are looked at. */
static struct bufpool_buf *
take(size_t size, uint64_t *seed)
{
	bool grows = next_random(seed) % 64 == 0;
	struct bufpool_buf *b = bufpool_checkout(pool, grows ? size / 3 : size);

	CHECK(b != NULL, "no memory");
	if (grows)
		CHECK(bufpool_resize(b, size) == 0, "no memory");
	return b;
}

/* Destructors run in rounds, four at most; this one releases in each. TSan lets
 * go of a thread in the last round, and crashes when more comes. */
#ifdef __SANITIZE_THREAD__
#define LATE 2
#else
#define LATE 4
#endif
struct late {
	unsigned n;
	struct bufpool_buf *held[LATE];
};

static void
release_late(void *value)
{
	struct late *left = value;
	struct bufpool_buf *b = left->held[--left->n];

	let_go(b, 0xdead);
	bufpool_release(b);
	atomic_fetch_add(&late, 1);
	if (left->n > 0)
		pthread_setspecific(late_key, left);
	else
		free(left);
}

static void *
live(void *arg)
{
	uint64_t me = atomic_fetch_add(&lives, 1) + 1;
	uint64_t seed = (uint64_t)(uintptr_t)arg + me * 0x9e3779b97f4a7c15u;
	struct bufpool_buf *held[HELD];
	unsigned n = 0, end = 20000 + (unsigned)next_random(&seed) % 60000;

	for (unsigned i = 0; i < end; i++) {
		if (n < HELD && (n == 0 || next_random(&seed) % 2)) {
			size_t size = some_size(&seed);
			struct bufpool_buf *b = take(size, &seed);

			acquire(b, me, size);
			held[n++] = b;
		} else {
			unsigned pick = (unsigned)next_random(&seed) % n;

			give(held[pick], me, &seed);
			held[pick] = held[--n];
		}
	}
	atomic_fetch_add(&done, end / 2);
	while (n > LATE)
		give(held[--n], me, &seed);
	if (n > 0) {
		struct late *left = malloc(sizeof *left);

		CHECK(left != NULL, "no memory");
		for (left->n = 0; left->n < n; left->n++) {
			let_go(held[left->n], me);
			atomic_store(&owner[held[left->n]->number], 0xdead);
			left->held[left->n] = held[left->n];
		}
		pthread_setspecific(late_key, left);
	}
	return NULL;
}

static void *
trim_all_the_time(void *arg)
{
	(void)arg;
	while (atomic_load(&done) < target) {
		bufpool_trim(pool);
		nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
	}
	return NULL;
}

/* Closes pools whose buffers others still have. */
static void *
open_and_close(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;

	while (atomic_load(&done) < target) {
		struct bufpool *p = bufpool_create(NULL);
		struct bufpool_buf *b;

		CHECK(p != NULL, "no pool");
		for (int i = 0; i < 100; i++) {
			size_t at = next_random(&seed) % MAILBOX;
			size_t n = i == 0 ? 2000000 : 5000;

			b = bufpool_checkout(p, 1 + next_random(&seed) % n);
			CHECK(b != NULL, "no memory");
			memset(bufpool_data(b), 1, bufpool_len(b));
			bufpool_release(atomic_exchange(&mailbox[at], b));
		}
		bufpool_destroy(p);
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
	}
	return NULL;
}

static void
check_quiet(void)
{
	struct bufpool_stats s;
	unsigned records = 0, cursor = 0;
	struct bufpool *p;

	/* At most as many threads were there at once, and two releasing while
	 * they exit borrow one each. */
	for (struct thread *t = bp_thread_next(NULL); t; t = bp_thread_next(t))
		records++;
	CHECK(records <= 2 * THREADS + 3, "%u records for %d threads at a time",
	      records, THREADS + 3);
	/* All other pools were closed, and went when their buffers were home,
	 * whoever was just putting one away. */
	while (bp_registry_next(&cursor, &p)) {
		CHECK(p == pool, "a closed pool is left with %llu buffers",
		      (unsigned long long)p->arena.refs - 1);
		bp_arena_drop(&p->arena);
	}
	bufpool_get_stats(pool, &s);
	CHECK(s.checked_out == 0, "%llu still out",
	      (unsigned long long)s.checked_out);
	CHECK(s.lost == 0, "lost without a fork");
	for (unsigned c = 0; c < s.class_count; c++)
		CHECK(s.classes[c].count ==
			  s.classes[c].ready + s.classes[c].cached,
		      "class %zu: %llu exist, %llu ready, %llu cached",
		      s.classes[c].size,
		      (unsigned long long)s.classes[c].count,
		      (unsigned long long)s.classes[c].ready,
		      (unsigned long long)s.classes[c].cached);
	CHECK(s.large_out == 0 && s.large_cached_bytes <= pool->large.limit,
	      "above the classes: %llu out, %llu bytes kept",
	      (unsigned long long)s.large_out,
	      (unsigned long long)s.large_cached_bytes);
	CHECK(s.large_hits > 0, "none was kept");
	printf("%llu checkouts by %llu threads, %llu released by another, "
	       "%llu while exiting; hits %.2f%%\n",
	       (unsigned long long)(s.hits + s.misses),
	       (unsigned long long)lives, (unsigned long long)passed_on,
	       (unsigned long long)late,
	       100.0 * (double)s.hits / (double)(s.hits + s.misses));
}

int
main(void)
{
	const char *ops = getenv("STRESS_OPS"), *seed = getenv("STRESS_SEED");
	uintptr_t start = seed ? strtoull(seed, NULL, 0)
			       : (uintptr_t)time(NULL);
	pthread_t thread[THREADS], trimmer, closer;

	target = ops ? strtoull(ops, NULL, 0) : 3000000;
	printf("stress: STRESS_SEED=%llu\n", (unsigned long long)start);
	fflush(stdout);
	pool = bufpool_create(NULL);
	CHECK(pool != NULL, "no pool");
	/* A key made after the pool's is destroyed after it. */
	bufpool_release(bufpool_checkout(pool, 1));
	pthread_key_create(&late_key, release_late);
	pthread_create(&trimmer, NULL, trim_all_the_time, NULL);
	pthread_create(&closer, NULL, open_and_close, (void *)(start | 1));
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, live, (void *)start);
	for (int i = 0; atomic_load(&done) < target; i = (i + 1) % THREADS) {
		pthread_join(thread[i], NULL);
		pthread_create(&thread[i], NULL, live, (void *)start);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	pthread_join(trimmer, NULL);
	pthread_join(closer, NULL);
	for (int i = 0; i < MAILBOX; i++)
		bufpool_release(atomic_load(&mailbox[i]));
	bufpool_frozen_unref(atomic_load(&showcase));
	if (atomic_load(&desk) != 0) {
		struct bufpool_frozen *f;
		struct bufpool_buf *b;

		CHECK(bufpool_adopt(atomic_load(&desk), &b, &f) == 0,
		      "lost a ticket");
		bufpool_release(b);
	}
	check_quiet();
	bufpool_destroy(pool);
	puts("1 passed, 0 failed");
	return 0;
}
