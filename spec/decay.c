/*
 * Idle memory goes back to the system by time, however seldom the process calls
 * a pool. The clock is this program's own: time passes when the tests say so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "core/stats.h"
#include "support/clock.h"
#include "support/needs.h"
#include "support/pool.h"

#define MIB ((size_t)1 << 20)
#define CALL ((size_t)4 << 20)	/* bytes that one call gives back */
#define MINUTES 60000		/* milliseconds */

static struct bufpool *
with_large(size_t bytes)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.large_bytes = bytes;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

/* So many buffers are out at once, and come home dirty. */
static void
burst(struct bufpool *p, size_t n, size_t count)
{
	struct bufpool_buf **held = calloc(count, sizeof *held);

	assert_non_null(held);
	for (size_t i = 0; i < count; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, n));
		*(char *)bufpool_data(held[i]) = 1;
		bufpool_wrote(held[i], 1);
	}
	for (size_t i = 0; i < count; i++)
		bufpool_release(held[i]);
	free(held);
}

static size_t
committed(const struct bufpool *p)
{
	return atomic_load(&p->arena.committed);
}

/* One checkout, and what it gave back, of one pool or two. */
static void
look(struct bufpool *p, struct bufpool *of, size_t most)
{
	size_t before = committed(p) + (of != p ? committed(of) : 0);

	bufpool_release(bufpool_checkout(p, 100));
	assert_in_range(before - committed(p) - (of != p ? committed(of) : 0),
			0, most);
}

#define SPARE ((size_t)3 << 20)	/* may be left of 100 MiB after 30 s */

/* At so many checkouts a second, what idles is home after 30 s: 100 MiB above
 * the classes, as much as a depot holds of a class. */
static void
assert_decays(struct bufpool *p, struct bufpool *of, int rate)
{
	size_t floor = 64 * 4096 + 8 * 65536 + 2 * 262144;

	assert_in_range(committed(of), 16 * MIB, 110 * MIB);
	for (int i = 0; i < 30 * rate; i++) {
		passed += 1000 / rate;
		look(p, of, CALL + 4096);
	}
	assert_in_range(committed(of), floor, floor + SPARE);
	assert_conserved(of);
}

static const int rates[] = { 1, 10, 100 };
#define RATES (sizeof rates / sizeof *rates)

static void
large_memory_decays_at_ordinary_traffic(void **state)
{
	(void)state;
	for (size_t r = 0; r < RATES; r++) {
		struct bufpool *p = with_large(128 * MIB);

		burst(p, 100 * MIB, 1);
		assert_decays(p, p, rates[r]);
		burst(p, 5 * MIB, 20);
		assert_decays(p, p, rates[r]);
		bufpool_destroy(p);
	}
}

static void
classes_decay_at_ordinary_traffic(void **state)
{
	(void)state;
	needs_pages_of_4_kib();
	for (size_t r = 0; r < RATES; r++) {
		struct bufpool *p = with_large(0);

		burst(p, 65536, 1600);
		assert_decays(p, p, rates[r]);
		burst(p, 4096, 25600);
		assert_decays(p, p, rates[r]);
		bufpool_destroy(p);
	}
}

static void
a_pool_decays_that_nobody_calls(void **state)
{
	struct bufpool *p = with_large(128 * MIB), *q = with_large(128 * MIB);

	(void)state;
	burst(q, 100 * MIB, 1);
	assert_decays(p, q, 1);
	burst(q, 65536, 1600);
	assert_decays(p, q, 1);
	bufpool_destroy(p);
	bufpool_destroy(q);
}

/* Many checkouts at one moment say nothing of those to come. */
static void
fast_traffic_is_followed_by_slow(void **state)
{
	struct bufpool *p = with_large(128 * MIB);

	(void)state;
	needs_pages_of_4_kib();
	burst(p, 100 * MIB, 1);
	for (int i = 0; i < 100000; i++)
		bufpool_release(bufpool_checkout(p, 100));
	for (int i = 0; i < 256; i++) {
		passed += 1000;
		look(p, p, CALL + 4096);
	}
	burst(p, 4096, 25600);
	assert_decays(p, p, 1);
	bufpool_destroy(p);
}

/* Nor do spills of one class leave the others to their old pace. */
static void
a_burst_is_followed_by_slow_traffic_of_another_class(void **state)
{
	struct bufpool *p = with_large(0);

	(void)state;
	needs_pages_of_4_kib();
	for (int i = 0; i < 100000; i++)
		bufpool_release(bufpool_checkout(p, 100));
	burst(p, 65536, 1600);
	assert_decays(p, p, 1);
	bufpool_destroy(p);
}

static void
large_traffic_alone_does_it_too(void **state)
{
	struct bufpool *p = with_large(128 * MIB);

	(void)state;
	burst(p, 2 * MIB, 1);
	burst(p, 65536, 1600);
	for (int i = 0; i < 30; i++) {
		passed += 1000;
		burst(p, 2 * MIB, 1);
	}
	assert_in_range(committed(p), 2 * MIB, 2 * MIB + 2 * SPARE);
	bufpool_destroy(p);
}

/* A long pause gives back what many short ones would, some in each call. */
static void
a_pause_is_made_up_for(void **state)
{
	struct bufpool *p = with_large(128 * MIB);

	(void)state;
	burst(p, 100 * MIB, 1);
	passed += 300;
	look(p, p, CALL);
	passed += 60 * MINUTES;
	for (int i = 0; i < 200; i++) {
		passed += 4;
		look(p, p, CALL + 4096);
	}
	assert_in_range(committed(p), 0, 40 * MIB);
	bufpool_destroy(p);
}

static void
maintain_needs_no_traffic(void **state)
{
	struct bufpool *p = with_large(128 * MIB), *q = with_large(128 * MIB);
	int64_t end = passed + 30000;
	size_t before;

	(void)state;
	burst(p, 65536, 1600);
	burst(q, 100 * MIB, 1);
	while (passed < end) {
		int64_t wait;

		before = committed(p) + committed(q);
		wait = bufpool_maintain();
		assert_in_range(before - committed(p) - committed(q), 0,
				CALL + 65536);
		assert_in_range(wait, 10, before > 4 * SPARE ? 250 : 5000);
		passed += wait;
	}
	assert_in_range(committed(p), 0, 2 * SPARE);
	assert_in_range(committed(q), 0, 2 * SPARE);
	bufpool_trim(p);
	bufpool_trim(q);
	assert_int_equal(bufpool_maintain(), 5000);
	bufpool_destroy(p);
	bufpool_destroy(q);
}

static void
maintain_takes_expired_tickets_home(void **state)
{
	struct bufpool_config config;
	struct bufpool *p;

	(void)state;
	bufpool_config_init(&config);
	config.ticket_ttl = 2;
	assert_non_null(p = bufpool_create(&config));
	for (int i = 0; i < 20; i++)
		bufpool_detach(bufpool_checkout(p, 1));
	assert_int_equal(bufpool_maintain(), 2000);
	passed += 2000;
	assert_int_equal(bufpool_maintain(), 10);
	assert_in_range(atomic_load(&p->in_transit), 1, 19);
	while (bufpool_maintain() == 10)
		;
	assert_int_equal(atomic_load(&p->in_transit), 0);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_memory_decays_at_ordinary_traffic),
		cmocka_unit_test(classes_decay_at_ordinary_traffic),
		cmocka_unit_test(a_pool_decays_that_nobody_calls),
		cmocka_unit_test(fast_traffic_is_followed_by_slow),
		cmocka_unit_test(
			a_burst_is_followed_by_slow_traffic_of_another_class),
		cmocka_unit_test(large_traffic_alone_does_it_too),
		cmocka_unit_test(a_pause_is_made_up_for),
		cmocka_unit_test(maintain_needs_no_traffic),
		cmocka_unit_test(maintain_takes_expired_tickets_home),
	};

	return cmocka_run_group_tests_name("decay", tests, NULL, NULL);
}
