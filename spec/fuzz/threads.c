/*
 * Threads at once, without a model: what core.c does one after the other.
 *
 * Each thread has live buffers. Every byte of what it checks out is zero; it
 * stamps it, and finds every byte of its stamp, and zeros behind, when it lets
 * go. Some go to another thread, by a ticket or by the pointer alone, which
 * checks the stamp that is inside and writes its own, or releases. Pools are
 * trimmed and looked at meanwhile, threads flush, exit and are replaced, and
 * have pools of their own that others still hold buffers of. When all is
 * released, nothing is out, and what exists, is idle and is committed add up.
 *
 * Tickets are passed by relaxed stores, so that nothing but the ticket itself
 * orders what its two ends see.
 *
 * In the environment, SEED is the first seed, and drawn when absent; TIME is
 * for how many seconds to go on, and without it there are ROUNDS rounds. A seed
 * tells what each thread does, but not who is faster.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bufpool.h"
#include "rounds.h"

#define ROUNDS 40		/* without TIME */
#define STEPS 3000		/* of a thread's life, at most */
#define THREADS 6		/* at a time, at most */
#define LIVES 3			/* of each */
#define HELD 24			/* buffers of a thread */
#define POOLS 2
#define POST 8			/* places for what is passed on */
#define SIZE_SMALL 3000		/* most are at most so large, */
#define SIZE_MOST 700000	/* none is larger than this */

/* What a buffer begins with. Then there is the stamp's pattern, up to `end`. */
struct stamp {
	uint64_t serial;
	uint64_t end;
};

struct held {
	struct bufpool_buf *buf;
	uint64_t serial;
};

struct player {
	pthread_t thread;
	uint64_t random;
	struct held held[HELD];
};

static struct bufpool *pools[POOLS];
static _Atomic uint64_t tickets[POST];
static _Atomic(struct bufpool_buf *) parcels[POST];
static _Atomic uint64_t last_serial;
static unsigned hurry;		/* of 8 steps, how many are on small buffers */

#define CHECK(what, ...)                                                 \
	do {                                                             \
		if (!(what)) {                                           \
			printf(__VA_ARGS__);                             \
			printf(" (%s, errno %d, line %d)\n", #what,      \
			       errno, __LINE__);                         \
			fflush(stdout);                                  \
			_exit(1);                                        \
		}                                                        \
	} while (0)

static uint32_t
draw(struct player *me, uint32_t below)
{
	me->random ^= me->random << 13;
	me->random ^= me->random >> 7;
	me->random ^= me->random << 17;
	return (uint32_t)(me->random >> 32) % below;
}

/* Contents ---------------------------------------------------------------- */

static uint8_t
pattern(uint64_t serial, uint64_t i)
{
	return (uint8_t)((serial * 37 + i) | 1);
}

static void
check_zero(const uint8_t *at, size_t n, const char *when)
{
	for (size_t i = 0; i < n; i++)
		CHECK(at[i] == 0, "%s: byte %zu of %zu is %d", when, i, n,
		      at[i]);
}

/* Serial 0: another thread's, whichever it is. */
static void
check_stamp(const uint8_t *at, size_t len, uint64_t serial)
{
	struct stamp s;

	memcpy(&s, at, sizeof s);
	CHECK(serial == 0 || s.serial == serial, "%lu has the stamp of %lu",
	      (unsigned long)serial, (unsigned long)s.serial);
	CHECK(s.end >= sizeof s && s.end <= len, "stamp of %zu bytes",
	      (size_t)s.end);
	for (size_t i = sizeof s; i < s.end; i++)
		CHECK(at[i] == pattern(s.serial, i), "byte %zu of %zu is %d", i,
		      len, at[i]);
	check_zero(at + s.end, len - s.end, "behind the stamp");
}

/* Writes to `end`, and says so, or lets the pool wipe all of it. What was there
 * before is overwritten or zeroed. */
static void
put_stamp(struct player *me, struct held *h, struct bufpool_buf *b)
{
	size_t len = bufpool_len(b), most = len - sizeof(struct stamp);
	struct stamp s = {
		.serial = atomic_fetch_add(&last_serial, 1) + 1,
		.end = sizeof s + draw(me, (uint32_t)(draw(me, 2) ? most + 1
			: most < 200 ? most + 1 : 200)),
	};
	uint8_t *at = bufpool_data(b);

	memcpy(at, &s, sizeof s);
	for (size_t i = sizeof s; i < s.end; i++)
		at[i] = pattern(s.serial, i);
	memset(at + s.end, 0, len - s.end);
	if (draw(me, 4) > 0)
		bufpool_wrote(b, s.end);
	h->buf = b;
	h->serial = s.serial;
}

static void
check_held(const struct held *h)
{
	check_stamp(bufpool_peek(h->buf), bufpool_len(h->buf), h->serial);
}

/* Steps ------------------------------------------------------------------- */

static size_t
draw_size(struct player *me)
{
	size_t n = draw(me, 8) < hurry ? 100 : draw(me, 16) > 0 ? SIZE_SMALL
								: SIZE_MOST;

	return sizeof(struct stamp) + draw(me, (uint32_t)n);
}

static void
take(struct player *me, struct held *h, struct bufpool *p)
{
	size_t n = draw_size(me);
	struct bufpool_buf *b;

	switch (draw(me, 8)) {
	case 0:
		b = bufpool_try_checkout(p, n);
		break;
	case 1:
		b = bufpool_checkout_aligned(p, n, (size_t)64 << draw(me, 8));
		break;
	case 2:
		b = bufpool_checkout_zeroed(p, n);
		break;
	default:
		b = bufpool_checkout(p, n);
	}
	if (b == NULL) {
		CHECK(errno == EDQUOT || errno == EAGAIN, "no buffer");
		return;
	}
	CHECK(bufpool_len(b) == n, "length");
	check_zero(bufpool_peek(b), bufpool_capacity(b), "checkout");
	put_stamp(me, h, b);
}

static void
release(struct held *h)
{
	check_held(h);
	bufpool_release(h->buf);
	h->buf = NULL;
}

static void
resize(struct player *me, struct held *h)
{
	struct stamp s;

	check_held(h);
	memcpy(&s, bufpool_peek(h->buf), sizeof s);
	if (bufpool_resize(h->buf, s.end + draw(me, SIZE_SMALL)) != 0)
		CHECK(errno == EDQUOT, "resize");
	check_held(h);
}

/* What a ticket stands for; none of it is left when the ticket has expired. */
static struct bufpool_buf *
adopt(uint64_t ticket)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	if (ticket == 0)
		return NULL;
	if (bufpool_adopt(ticket, &b, &f) != 0) {
		CHECK(errno == ESTALE, "adopt");
		return NULL;
	}
	if (f != NULL) {
		check_stamp(bufpool_frozen_data(f), bufpool_frozen_len(f), 0);
		bufpool_frozen_unref(f);
	} else {
		check_stamp(bufpool_peek(b), bufpool_len(b), 0);
	}
	return b;
}

/* One ticket, or two to the same frozen bytes. */
static void
send_ticket(struct player *me, struct held *h)
{
	unsigned copies = draw(me, 3);
	uint64_t ticket;

	check_held(h);
	if (copies == 0) {
		ticket = bufpool_detach(h->buf);
		CHECK(ticket != 0, "detach");
		bufpool_release(adopt(atomic_exchange_explicit(
		    &tickets[draw(me, POST)], ticket, memory_order_relaxed)));
	} else {
		struct bufpool_frozen *f = bufpool_freeze(h->buf);

		for (; copies > 0; copies--) {
			ticket = bufpool_share(bufpool_frozen_ref(f));
			CHECK(ticket != 0, "share");
			bufpool_release(adopt(atomic_exchange_explicit(
			    &tickets[draw(me, POST)], ticket,
			    memory_order_relaxed)));
		}
		bufpool_frozen_unref(f);
	}
	h->buf = NULL;
}

/* By the pointer: the exchange makes what one has written the other's. */
static void
send_parcel(struct player *me, struct held *h)
{
	struct bufpool_buf *b;

	check_held(h);
	b = atomic_exchange(&parcels[draw(me, POST)], h->buf);
	h->buf = NULL;
	if (b == NULL)
		return;
	check_stamp(bufpool_peek(b), bufpool_len(b), 0);
	if (draw(me, 2) > 0)
		bufpool_release(b);
	else
		put_stamp(me, h, b);
}

static void
receive(struct player *me, struct held *h)
{
	struct bufpool_buf *b = adopt(atomic_exchange_explicit(
	    &tickets[draw(me, POST)], 0, memory_order_relaxed));

	if (b != NULL)
		put_stamp(me, h, b);
}

static struct bufpool *
create(struct player *me, const char *name)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.name = name;
	config.four_kib_count = 2;
	config.sixty_four_kib_count = config.two_fifty_six_kib_count = 0;
	if (name == NULL) {
		config.four_kib_count = draw(me, 5);
		config.large_bytes = draw(me, 2) * ((size_t)4 << 20);
		config.max_bytes = draw(me, 3) ? 0 : (size_t)1 << 20;
		config.ticket_ttl = draw(me, 3) ? 0 : 0.001;
	}
	p = bufpool_create(&config);
	CHECK(p != NULL, "no pool");
	return p;
}

/* Others may have buffers of it when it is destroyed. */
static void
use_own_pool(struct player *me, struct held *h)
{
	struct bufpool *p = create(me, draw(me, 2) ? "threads" : NULL);

	take(me, h, p);
	if (draw(me, 4) == 0)
		bufpool_trim(p);
	bufpool_destroy(p);
	if (h->buf != NULL && draw(me, 2))
		send_parcel(me, h);
}

static void
look_after(struct player *me, struct bufpool *p)
{
	struct bufpool_stats s;

	switch (draw(me, 4)) {
	case 0:
		bufpool_trim(p);
		break;
	case 1:
		bufpool_thread_flush();
		break;
	case 2:
		bufpool_maintain();
		break;
	default:
		bufpool_get_stats(p, &s);
		CHECK(s.checked_out <= (THREADS + 1) * HELD + 4 * POST +
		      2 * THREADS, "%lu out", (unsigned long)s.checked_out);
	}
}

static void
do_step(struct player *me)
{
	struct bufpool *p = pools[draw(me, POOLS)];
	struct held *h = &me->held[draw(me, HELD)];
	unsigned what = draw(me, 64);

	if (what == 0)
		look_after(me, p);
	else if (h->buf == NULL && what == 1)
		use_own_pool(me, h);
	else if (h->buf == NULL && what < 12)
		receive(me, h);
	else if (h->buf == NULL)
		take(me, h, p);
	else if (what < 8)
		send_ticket(me, h);
	else if (what < 20)
		send_parcel(me, h);
	else if (what < 24)
		resize(me, h);
	else
		release(h);
}

/* Some leave what they hold to the next life. */
static void *
live(void *player)
{
	struct player *me = player;

	for (uint32_t i = draw(me, STEPS); i > 0; i--)
		do_step(me);
	if (draw(me, 2))
		for (int i = 0; i < HELD; i++)
			if (me->held[i].buf != NULL)
				release(&me->held[i]);
	return NULL;
}

/* Rounds ------------------------------------------------------------------ */

static void
release_all(struct player *players)
{
	for (int t = 0; t < THREADS; t++)
		for (int i = 0; i < HELD; i++)
			if (players[t].held[i].buf != NULL)
				release(&players[t].held[i]);
	for (int i = 0; i < POST; i++) {
		bufpool_release(adopt(tickets[i]));
		if (parcels[i] != NULL)
			check_stamp(bufpool_peek(parcels[i]),
				    bufpool_len(parcels[i]), 0);
		bufpool_release(parcels[i]);
	}
}

static void
check_law(struct bufpool *p)
{
	struct bufpool_stats s;
	uint64_t bytes;

	bufpool_get_stats(p, &s);
	CHECK(s.checked_out == 0 && s.bytes_checked_out == 0 &&
	      s.in_transit == 0 && s.lost == 0 && s.large_out == 0,
	      "%lu out, %lu in transit, %lu lost",
	      (unsigned long)s.checked_out, (unsigned long)s.in_transit,
	      (unsigned long)s.lost);
	bytes = s.large_cached_bytes;
	for (unsigned c = 0; c < s.class_count; c++) {
		const struct bufpool_class_stats *k = &s.classes[c];

		CHECK(k->count == k->ready + k->cached && k->out == 0,
		      "class %u: %lu of %lu ready, %lu cached, %lu out", c,
		      (unsigned long)k->ready, (unsigned long)k->count,
		      (unsigned long)k->cached, (unsigned long)k->out);
		bytes += k->count * k->size;
	}
	CHECK(bytes == s.committed_bytes && bytes == s.cached_bytes,
	      "%lu bytes idle, %lu committed", (unsigned long)bytes,
	      (unsigned long)s.committed_bytes);
}

/* Tickets that have expired go home when somebody looks. */
static void
wait_for_tickets(struct bufpool *p)
{
	struct bufpool_stats s;

	do {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		bufpool_get_stats(p, &s);
	} while (s.in_transit > 0);
}

static void
play(uint64_t seed)
{
	static struct player players[THREADS];
	struct player first = { .random = seed * 2654435761u + 1 };
	unsigned threads = 2 + draw(&first, THREADS - 1);

	hurry = draw(&first, 9);
	for (int i = 0; i < POOLS; i++)
		pools[i] = create(&first, NULL);
	for (int life = 0; life < LIVES; life++) {
		for (unsigned t = 0; t < threads; t++) {
			struct player *me = &players[t];

			me->random = first.random + t + 1 +
				(uint64_t)life * THREADS;
			CHECK(pthread_create(&me->thread, NULL, live, me) == 0,
			      "no thread");
		}
		for (unsigned t = 0; t < threads; t++)
			pthread_join(players[t].thread, NULL);
	}
	release_all(players);
	for (int i = 0; i < POOLS; i++) {
		wait_for_tickets(pools[i]);
		check_law(pools[i]);
		bufpool_destroy(pools[i]);
	}
	CHECK(bufpool_get("threads") == NULL, "a pool lives");
}

static bool
pass(uint64_t seed)
{
	int status = -1;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		alarm(120);
		play(seed);
		_exit(0);
	}
	waitpid(child, &status, 0);
	if (status != 0)
		printf("SEED=%lu fails (status %x)\n", (unsigned long)seed,
		       (unsigned)status);
	return status == 0;
}

int
main(void)
{
	return go_on(pass, ROUNDS);
}
