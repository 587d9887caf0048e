/*
 * Tickets. What is detached or shared has one owner at any moment: the ticket,
 * or whoever adopted it first. Numbers that were made up, used tickets, and
 * tickets of another process give nothing.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "core/sanitize.h"
#include "core/system.h"
#include "core/ticket.h"
#include "support/pool.h"
#include "support/process.h"

static struct bufpool_buf *
written(struct bufpool *p, size_t n, int byte)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	assert_non_null(b);
	memset(bufpool_data(b), byte, n);
	return b;
}

static struct bufpool_buf *
adopt_buf(uint64_t ticket)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	assert_int_equal(bufpool_adopt(ticket, &b, &f), 0);
	assert_non_null(b);
	assert_null(f);
	return b;
}

static struct bufpool_frozen *
adopt_frozen(uint64_t ticket)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	assert_int_equal(bufpool_adopt(ticket, &b, &f), 0);
	assert_non_null(f);
	assert_null(b);
	return f;
}

/* Returns the errno. */
static int
refused(uint64_t ticket)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	errno = 0;
	if (bufpool_adopt(ticket, &b, &f) == 0)
		fail_msg("%llu was adopted", (unsigned long long)ticket);
	assert_null(b);
	assert_null(f);
	return errno;
}

static void
wait_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static void
detaching_moves_no_byte(void **state)
{
	const size_t sizes[] = { 0, 1, 4096, 5000, 1048576, 3000000 };
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct bufpool_buf *b = written(p, sizes[i], 7), *again;
		const unsigned char *at = bufpool_peek(b);
		uint64_t ticket = bufpool_detach(b);

		assert_true(ticket > 0 && ticket < 100000000000000);
		assert_int_equal(stats_of(p).in_transit, 1);
		assert_int_equal(stats_of(p).checked_out, 1);
		again = adopt_buf(ticket);
		assert_ptr_equal(bufpool_peek(again), at);
		assert_int_equal(bufpool_len(again), sizes[i]);
		for (size_t k = 0; k < sizes[i]; k++)
			if (at[k] != 7)
				fail_msg("byte %zu is %d", k, at[k]);
		assert_int_equal(bufpool_resize(again, sizes[i] + 10), 0);
		assert_int_equal(stats_of(p).in_transit, 0);
		bufpool_release(again);
		assert_int_equal(stats_of(p).checked_out, 0);
	}
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
each_share_is_one_reference(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);
	struct bufpool_frozen *f = bufpool_freeze(written(p, 10, 5)), *g, *h;
	uint64_t first = bufpool_share(bufpool_frozen_ref(f));
	uint64_t second = bufpool_share(f);

	(void)state;
	assert_int_not_equal(first, second);
	assert_int_equal(stats_of(p).in_transit, 2);
	g = adopt_frozen(second);
	h = adopt_frozen(first);
	assert_ptr_equal(g, h);
	bufpool_frozen_unref(g);
	assert_int_equal(*(const char *)bufpool_frozen_data(h), 5);
	assert_int_equal(stats_of(p).checked_out, 1);
	bufpool_frozen_unref(h);
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

static void
a_part_keeps_its_range(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);
	struct bufpool_frozen *f = bufpool_freeze(written(p, 10, 5)), *g;
	const size_t parts[][2] = { { 3, 4 }, { 0, 10 }, { 10, 0 }, { 0, 0 },
				    { 9, 1 } };
	const size_t not[][2] = { { 0, 11 }, { 3, 8 }, { 11, 0 },
				  { 3, SIZE_MAX }, { SIZE_MAX, 3 },
				  { SIZE_MAX, SIZE_MAX } };
	size_t offset, len;
	struct bufpool_buf *b;

	(void)state;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		uint64_t ticket = bufpool_share_range(bufpool_frozen_ref(f),
						      parts[i][0], parts[i][1]);

		assert_int_equal(bufpool_adopt_range(ticket, &b, &g, &offset,
						     &len), 0);
		assert_ptr_equal(f, g);
		assert_int_equal(offset, parts[i][0]);
		assert_int_equal(len, parts[i][1]);
		bufpool_frozen_unref(g);
	}
	for (size_t i = 0; i < sizeof not / sizeof *not; i++) {
		errno = 0;
		assert_int_equal(bufpool_share_range(f, not[i][0], not[i][1]),
				 0);
		assert_int_equal(errno, EINVAL);
	}
	assert_int_equal(stats_of(p).in_transit, 0);
	bufpool_frozen_unref(f);	/* was not consumed */
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

#define GUESSES 2000000

/* One number in 2^46 is good, and so none of these will be. */
static void
made_up_tickets_are_refused(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);
	uint64_t ticket = bufpool_detach(written(p, 1, 1));
	uint64_t guess = 88172645463325252u;
	int unknown = 0;

	(void)state;
	for (int i = 0; i < GUESSES; i++) {
		guess ^= guess << 13;
		guess ^= guess >> 7;
		guess ^= guess << 17;
		unknown += refused(guess % 100000000000000) == ENOENT;
	}
	assert_true(unknown > GUESSES * 99 / 100);
	for (uint64_t i = 1; i < 10000; i++) {
		refused(ticket + i);
		refused(ticket - i);
	}
	for (int bit = 0; bit < 64; bit++)
		refused(ticket ^ (uint64_t)1 << bit);
	assert_int_equal(refused(0), ENOENT);
	assert_int_equal(refused(UINT64_MAX), ENOENT);
	assert_int_equal(refused(ticket + ((uint64_t)1 << TICKET_BITS)),
			 ENOENT);
	bufpool_release(adopt_buf(ticket));
	bufpool_destroy(p);
}

#define USES 20000

static void
used_tickets_stay_refused(void **state)
{
	static uint64_t used[USES];
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (int i = 0; i < USES; i++) {
		used[i] = bufpool_detach(bufpool_checkout(p, 1));
		bufpool_release(adopt_buf(used[i]));
		assert_int_equal(refused(used[i]), ESTALE);
	}
	for (int i = 0; i < USES; i++) {
		uint64_t ticket = bufpool_detach(bufpool_checkout(p, 1));

		assert_int_equal(refused(used[i]), ESTALE);
		bufpool_release(adopt_buf(ticket));
	}
	assert_int_equal(stats_of(p).in_transit, 0);
	bufpool_destroy(p);
}

static void
too_many_tickets_are_an_error_and_pass(void **state)
{
	static uint64_t ticket[((size_t)1 << 20) + 1];
	struct bufpool *p = new_pool(1, 1, 0);
	struct bufpool_frozen *f = bufpool_freeze(written(p, 3, 1));
	struct bufpool_buf *b = written(p, 3, 2);
	size_t n = 0;

	(void)state;
	while ((ticket[n] = bufpool_share(bufpool_frozen_ref(f))) != 0)
		n++;
	assert_int_equal(errno, ENOMEM);
	bufpool_frozen_unref(f);	/* was not consumed */
	assert_true(n > 0 && n <= (size_t)1 << 20);
	assert_int_equal(stats_of(p).in_transit, n);
	errno = 0;
	assert_int_equal(bufpool_detach(b), 0);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(*(char *)bufpool_data(b), 2);
	bufpool_frozen_unref(adopt_frozen(ticket[n / 2]));
	ticket[n / 2] = bufpool_detach(b);
	assert_int_not_equal(ticket[n / 2], 0);
	for (size_t i = 0; i < n; i++)
		if (i == n / 2)
			bufpool_release(adopt_buf(ticket[i]));
		else
			bufpool_frozen_unref(adopt_frozen(ticket[i]));
	bufpool_frozen_unref(f);
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

static void
expired_tickets_go_home(void **state)
{
	struct bufpool *p = pool_with_ttl(1000), *q = new_pool(1, 1, 0);
	struct bufpool_frozen *f = bufpool_freeze(written(p, 10, 5));
	uint64_t kept = bufpool_detach(written(q, 100, 1)), ticket[4];
	struct bufpool_buf *b = written(p, 4096, 9);
	unsigned char *memory = bufpool_data(b);

	(void)state;
	ticket[0] = bufpool_detach(b);
	ticket[1] = bufpool_detach(written(p, 3000000, 9));
	ticket[2] = bufpool_detach(bufpool_checkout(p, 0));
	ticket[3] = bufpool_share(bufpool_frozen_ref(f));
	assert_int_equal(stats_of(p).in_transit, 4);
	bp_ticket_expire(bp_system_now() + 999000, SIZE_MAX);
	assert_int_equal(stats_of(p).in_transit, 4);
	bp_ticket_expire(bp_system_now() + 1001000, 3);
	assert_int_equal(stats_of(p).in_transit, 1);
	bp_ticket_expire(bp_system_now() + 1001000, 3);
	assert_int_equal(stats_of(p).in_transit, 0);
	assert_int_equal(stats_of(p).checked_out, 1);
	ASAN_UNPOISON_MEMORY_REGION(memory, 4096);	/* it is free */
	for (int i = 0; i < 4096; i++)
		assert_int_equal(memory[i], 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(refused(ticket[i]), ESTALE);
	assert_int_equal(*(const char *)bufpool_frozen_data(f), 5);
	bufpool_frozen_unref(f);
	assert_int_equal(stats_of(p).checked_out, 0);
	assert_conserved(p);
	bufpool_release(adopt_buf(kept));	/* its pool has no ticket_ttl */
	bufpool_destroy(p);
	bufpool_destroy(q);
}

/* Those that have expired and wait to be taken home are as good as gone. */
static void
no_expired_ticket_is_adopted(void **state)
{
	enum { MANY = 100 };
	struct bufpool *p = pool_with_ttl(0.02);
	uint64_t ticket[MANY];

	(void)state;
	for (int i = 0; i < MANY; i++)
		ticket[i] = bufpool_detach(written(p, 64, 1));
	wait_ms(60);
	for (int i = MANY; i-- > 0;)
		assert_int_equal(refused(ticket[i]), ESTALE);
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

/* Each of these looks whether something has expired. */
static void
whoever_looks_finds_the_expired(void **state)
{
	struct bufpool *p = pool_with_ttl(0.01), *q = new_pool(1, 1, 0);
	uint64_t ticket;

	(void)state;
	ticket = bufpool_detach(bufpool_checkout(p, 1));
	wait_ms(40);
	assert_int_equal(refused(ticket), ESTALE);
	bufpool_detach(bufpool_checkout(p, 1));
	wait_ms(40);
	assert_int_equal(stats_of(p).in_transit, 0);
	bufpool_detach(bufpool_checkout(p, 1));
	wait_ms(40);
	bufpool_trim(q);
	assert_int_equal(p->in_transit, 0);
	bufpool_detach(bufpool_checkout(p, 1));
	wait_ms(40);
	ticket = bufpool_detach(bufpool_checkout(q, 1));
	assert_int_equal(p->in_transit, 0);
	bufpool_release(adopt_buf(ticket));
	bufpool_destroy(q);
	bufpool_destroy(p);
}

/* Nobody asks for statistics: what moves buffers looks now and then. */
static void
expiry_needs_only_traffic(void **state)
{
	struct bufpool *p = pool_with_ttl(0.01), *other = new_pool(0, 0, 0);

	(void)state;
	bufpool_detach(written(p, 100, 1));
	wait_ms(40);
	for (int i = 0; i < 1000000 && p->in_transit != 0; i++) {
		struct bufpool_buf *held[200];

		for (int k = 0; k < 200; k++)
			held[k] = bufpool_checkout(other, 1);
		for (int k = 0; k < 200; k++)
			bufpool_release(held[k]);
	}
	assert_int_equal(p->in_transit, 0);
	bufpool_destroy(other);
	bufpool_destroy(p);
}

static void
a_ticket_outlives_its_pool_and_its_thread(void **state)
{
	struct bufpool *p = pool_with_ttl(0);
	uint64_t lives = bufpool_detach(written(p, 100, 3));
	struct bufpool_buf *b;

	(void)state;
	bufpool_destroy(p);
	b = adopt_buf(lives);
	assert_int_equal(*(char *)bufpool_data(b), 3);
	bufpool_release(b);

	p = pool_with_ttl(0.01);
	bufpool_detach(written(p, 100, 3));
	bufpool_destroy(p);
	wait_ms(40);
	bp_ticket_expire(bp_system_now(),
			 SIZE_MAX);	/* the pool ends in here */
	assert_int_equal(p->caches.id, 0);	/* its place is zeroed */
}

static void
the_time_to_live_is_checked(void **state)
{
	const double bad[] = { -1, -1e-300, -INFINITY, NAN };
	const double never[] = { INFINITY, 1e300, 0 };
	struct bufpool_config config;
	struct bufpool *p;

	(void)state;
	bufpool_config_init(&config);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		config.ticket_ttl = bad[i];
		errno = 0;
		assert_null(bufpool_create(&config));
		assert_int_equal(errno, EINVAL);
	}
	for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
		uint64_t ticket;

		p = pool_with_ttl(never[i]);
		ticket = bufpool_detach(bufpool_checkout(p, 1));
		wait_ms(10);
		assert_int_equal(stats_of(p).in_transit, 1);
		bufpool_release(adopt_buf(ticket));
		bufpool_destroy(p);
	}
	config.ticket_ttl = 1;
	config.name = "with a time to live";
	p = bufpool_create(&config);
	assert_non_null(p);
	config.ticket_ttl = 2;
	errno = 0;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(p);
}

static void
detach_released(void *arg)
{
	struct bufpool_buf *b = bufpool_checkout(arg, 1);

	bufpool_release(b);
	bufpool_detach(b);
}

static void
detach_twice(void *arg)
{
	struct bufpool_buf *b = bufpool_checkout(arg, 1);

	bufpool_detach(b);
	bufpool_detach(b);
}

static void
release_in_transit(void *arg)
{
	struct bufpool_buf *b = bufpool_checkout(arg, 1);

	bufpool_detach(b);
	bufpool_release(b);
}

static void
misuse_aborts(void **state)
{
	void (*const misuse[])(void *) = { detach_released, detach_twice,
					   release_in_transit };

	(void)state;
	for (size_t i = 0; i < sizeof misuse / sizeof *misuse; i++) {
		struct bufpool *p = new_pool(1, 1, 0);
		int status = in_child(misuse[i], p);

		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
		bufpool_destroy(p);
	}
}

struct fork_case {
	struct bufpool *pool;
	uint64_t before;	/* tickets of the parent */
	uint64_t shared;
	int to_parent;		/* where the child writes its own */
};

static void
child_of_a_fork(void *arg)
{
	struct fork_case *c = arg;
	struct bufpool_frozen *f;
	struct bufpool_buf *b;
	uint64_t mine;

	CHECK(bufpool_adopt(c->before, &b, &f) != 0, "adopted its parent's");
	CHECK(bufpool_adopt(c->shared, &b, &f) != 0, "adopted its parent's");
	CHECK(stats_of(c->pool).in_transit == 0, "%d in transit",
	      (int)stats_of(c->pool).in_transit);
	CHECK(stats_of(c->pool).checked_out == 1, "%d out",
	      (int)stats_of(c->pool).checked_out);
	b = bufpool_checkout(c->pool, 100);
	for (int i = 0; i < 100; i++)
		CHECK(((const char *)bufpool_peek(b))[i] == 0, "not zero");
	mine = bufpool_detach(b);
	CHECK(mine != 0 && bufpool_adopt(mine, &b, &f) == 0, "refuses its own");
	mine = bufpool_detach(b);
	CHECK(write(c->to_parent, &mine, sizeof mine) == sizeof mine, "pipe");
}

/* The child's memory is a copy, and the child's tickets are its own. */
static void
a_fork_child_cannot_adopt(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);
	struct bufpool_frozen *f = bufpool_freeze(written(p, 10, 1));
	struct fork_case c = { .pool = p };
	uint64_t foreign, mine;
	int fd[2];

	(void)state;
	c.before = bufpool_detach(written(p, 100, 1));
	c.shared = bufpool_share(bufpool_frozen_ref(f));
	assert_int_equal(pipe(fd), 0);
	c.to_parent = fd[1];
	for (int i = 0; i < 20; i++) {
		assert_int_equal(in_child(child_of_a_fork, &c), 0);
		assert_int_equal(read(fd[0], &foreign, sizeof foreign),
				 sizeof foreign);
		refused(foreign);
		/* In the same entry, after as many uses. */
		mine = bufpool_detach(bufpool_checkout(p, 100));
		mine = bufpool_detach(adopt_buf(mine));
		assert_int_not_equal(mine, foreign);
		refused(foreign);
		bufpool_release(adopt_buf(mine));
	}
	assert_int_equal(stats_of(p).in_transit, 2);
	bufpool_release(adopt_buf(c.before));
	bufpool_frozen_unref(adopt_frozen(c.shared));
	bufpool_frozen_unref(f);
	close(fd[0]);
	close(fd[1]);
	bufpool_destroy(p);
}

#define RACERS 4
#define RACES 20000

static struct race {
	struct bufpool *pool;
	_Atomic uint64_t ticket[RACES];
	_Atomic int won[RACES];
} race;

static void *
run_for_all(void *arg)
{
	for (int i = 0; i < RACES; i++) {
		struct bufpool_frozen *f;
		struct bufpool_buf *b;
		uint64_t ticket;

		while ((ticket = atomic_load(&race.ticket[i])) == 0)
			;
		if (bufpool_adopt(ticket, &b, &f) != 0)
			continue;
		CHECK(*(int *)bufpool_data(b) == i, "another's buffer");
		atomic_fetch_add(&race.won[i], 1);
		bufpool_release(b);
	}
	return arg;
}

static void
of_many_that_adopt_one_succeeds(void **state)
{
	pthread_t thread[RACERS];

	(void)state;
	race.pool = new_pool(1, 1, 0);
	for (int t = 0; t < RACERS; t++)
		pthread_create(&thread[t], NULL, run_for_all, NULL);
	for (int i = 0; i < RACES; i++) {
		struct bufpool_buf *b = bufpool_checkout(race.pool, 4096);

		*(int *)bufpool_data(b) = i;
		atomic_store(&race.ticket[i], bufpool_detach(b));
	}
	for (int t = 0; t < RACERS; t++)
		pthread_join(thread[t], NULL);
	for (int i = 0; i < RACES; i++)
		assert_int_equal(race.won[i], 1);
	assert_int_equal(stats_of(race.pool).checked_out, 0);
	assert_int_equal(stats_of(race.pool).in_transit, 0);
	assert_conserved(race.pool);
	bufpool_destroy(race.pool);
}

#define EXPIRIES 300

static void *
expire_now_and_then(void *arg)
{
	for (int i = 0; i < EXPIRIES; i++) {
		bp_ticket_expire(INT64_MAX - 1, 100);
		sched_yield();
	}
	return arg;
}

/* Adopters and the expiry fight for each ticket; what either gets is whole,
 * and nothing is left. */
static void
adopting_races_with_expiry(void **state)
{
	struct bufpool *p = pool_with_ttl(1000);
	pthread_t thread[2];
	int adopted = 0;

	(void)state;
	for (int t = 0; t < 2; t++)
		pthread_create(&thread[t], NULL, expire_now_and_then, NULL);
	for (int i = 0; i < RACES; i++) {
		uint64_t ticket = bufpool_detach(written(p, 100, 1 + i % 100));
		struct bufpool_frozen *f;
		struct bufpool_buf *b;

		if (i % 64 == 0)
			sched_yield();
		if (bufpool_adopt(ticket, &b, &f) != 0) {
			assert_int_equal(errno, ESTALE);
			continue;
		}
		adopted++;
		for (int k = 0; k < 100; k++)
			assert_int_equal(((char *)bufpool_data(b))[k],
					 1 + i % 100);
		bufpool_release(b);
	}
	for (int t = 0; t < 2; t++)
		pthread_join(thread[t], NULL);
	assert_true(adopted > 0);
	bp_ticket_expire(INT64_MAX - 1, SIZE_MAX);
	assert_int_equal(stats_of(p).checked_out, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(detaching_moves_no_byte),
		cmocka_unit_test(each_share_is_one_reference),
		cmocka_unit_test(a_part_keeps_its_range),
		cmocka_unit_test(made_up_tickets_are_refused),
		cmocka_unit_test(used_tickets_stay_refused),
		cmocka_unit_test(too_many_tickets_are_an_error_and_pass),
		cmocka_unit_test(expired_tickets_go_home),
		cmocka_unit_test(no_expired_ticket_is_adopted),
		cmocka_unit_test(whoever_looks_finds_the_expired),
		cmocka_unit_test(expiry_needs_only_traffic),
		cmocka_unit_test(a_ticket_outlives_its_pool_and_its_thread),
		cmocka_unit_test(the_time_to_live_is_checked),
		cmocka_unit_test(misuse_aborts),
		cmocka_unit_test(a_fork_child_cannot_adopt),
		cmocka_unit_test(of_many_that_adopt_one_succeeds),
		cmocka_unit_test(adopting_races_with_expiry),
	};

	return cmocka_run_group_tests_name("ticket", tests, NULL, NULL);
}
