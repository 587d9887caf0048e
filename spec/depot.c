/*
 * A depot gives back the batches that were put into it, whole and in order. It
 * holds as many buffers as it always did, however few a batch has.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "core/stats.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define CLASS 524288	/* bytes: a shelf holds 4, and so a batch 2 */
#define ROOM 63		/* buffers of it in a depot */
#define NODES 3

static void
free_buffers(struct bufpool_buf **b, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		b[i] = bp_buf_create();
		assert_non_null(b[i]);
		buf_set_state(b[i], BUF_CACHED);
		b[i]->class = 0;
	}
}

static void
assert_taken(struct depot *d, unsigned ring, struct bufpool_buf **b,
	     uint32_t count)
{
	struct bufpool_buf *got[BATCH_MAX];

	assert_int_equal(bp_depot_take(d, ring, got), count);
	for (uint32_t i = 0; i < count; i++) {
		assert_ptr_equal(got[i], b[i]);
		assert_int_equal(atomic_load(&b[i]->word) & BUF_STATE,
				 BUF_CACHED);
	}
}

/* Of a thread's depot and of the commons, for each size that a batch has. */
static void
batches_come_out_as_they_were_put(void **state)
{
	const struct bufpool_class_config small = { 4096, 0 };
	struct bufpool_buf *b[BATCH_MAX];
	struct layout l;
	struct depot d;

	(void)state;
	assert_true(bp_layout_init(&l, &small, 1));
	free_buffers(b, BATCH_MAX);
	for (int common = 0; common <= 1; common++) {
		assert_int_equal(bp_depot_create(&d, &l, common), 0);
		for (uint32_t n = 1; n <= BATCH_MAX; n++) {
			bp_depot_put(&d, b, n);
			assert_int_equal(depot_ready(&d, 0), n);
			assert_taken(&d, 0, b, n);
			assert_int_equal(depot_ready(&d, 0), 0);
		}
		assert_taken(&d, 0, b, 0);
		bp_depot_destroy(&d);
	}
	for (uint32_t i = 0; i < BATCH_MAX; i++)
		bp_buf_destroy(b[i]);
}

/* A shelf may hold buffers of several nodes. */
static void
a_batch_has_buffers_of_one_node(void **state)
{
	const struct bufpool_class_config small = { 4096, 0 };
	static const uint8_t node[] = { 0, 0, 2, 2, 2, 1, 0 };
	enum { COUNT = sizeof node };
	struct bufpool_buf *b[COUNT];
	struct layout l;
	struct depot d;

	(void)state;
	assert_true(bp_layout_init(&l, &small, 1));
	l.nodes = NODES;
	free_buffers(b, COUNT);
	for (int i = 0; i < COUNT; i++)
		b[i]->node = node[i];
	for (int common = 0; common <= 1; common++) {
		assert_int_equal(bp_depot_create(&d, &l, common), 0);
		bp_depot_put(&d, b, COUNT);
		assert_int_equal(depot_ready(&d, 0), 3);
		assert_int_equal(depot_ready(&d, 1), 1);
		assert_int_equal(depot_ready(&d, 2), 3);
		if (!common)	/* a stack gives the last first */
			assert_taken(&d, 0, b, 2);
		assert_taken(&d, 0, b + 6, 1);
		if (common)
			assert_taken(&d, 0, b, 2);
		assert_taken(&d, 1, b + 5, 1);
		assert_taken(&d, 2, b + 2, 3);
		for (unsigned r = 0; r < NODES; r++)
			assert_taken(&d, r, b, 0);
		bp_depot_destroy(&d);
	}
	for (uint32_t i = 0; i < COUNT; i++)
		bp_buf_destroy(b[i]);
}

static struct bufpool *
new_pool_of(size_t size, size_t count)
{
	struct bufpool_class_config class = { size, count };
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.classes = &class;
	config.class_count = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

/* By whole batches, and by one buffer at a time. What finds no room goes to the
 * system. */
static void
a_full_depot_holds_as_many_buffers_as_before(void **state)
{
	enum { BURST = 2 * ROOM };
	struct bufpool_buf *held[BURST];

	(void)state;
	for (int each = 0; each <= 1; each++) {
		struct bufpool *p = new_pool_of(CLASS, 0);

		atomic_store(&p->decayed, INT64_MAX);
		for (int i = 0; i < BURST; i++)
			assert_non_null(held[i] = bufpool_checkout(p, CLASS));
		for (int i = 0; i < BURST; i++) {
			bufpool_release(held[i]);
			if (each)
				bufpool_thread_flush();
			assert_conserved(p);
		}
		bufpool_thread_flush();
		assert_int_equal(stats_of(p).classes[0].ready, ROOM);
		assert_int_equal(stats_of(p).classes[0].count, ROOM);
		for (int i = 0; i < ROOM; i++)
			assert_non_null(held[i] = bufpool_try_checkout(p, 1));
		assert_null(bufpool_try_checkout(p, 1));
		for (int i = 0; i < ROOM; i++)
			bufpool_release(held[i]);
		bufpool_destroy(p);
	}
}

static void *
take_ready(void *pool)
{
	struct bufpool_buf *b = bufpool_try_checkout(pool, 1);

	bufpool_release(b);
	return b;
}

/* Those that it does not need serve the next. */
static void
a_trim_takes_part_of_a_batch(void **state)
{
	struct bufpool *p = new_pool_of(4096, 25);
	struct bufpool_buf *held[70];
	pthread_t thread;
	void *got;

	(void)state;
	needs_pages_of_4_kib();
	atomic_store(&p->decayed, INT64_MAX);
	for (int i = 0; i < 70; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 1));
	for (int i = 0; i < 70; i++)
		bufpool_release(held[i]);
	bufpool_thread_flush();
	assert_int_equal(stats_of(p).classes[0].ready, 70);
	assert_int_equal(bufpool_trim(p), 45 * 4096);
	assert_int_equal(stats_of(p).classes[0].ready, 25);
	assert_conserved(p);
	pthread_create(&thread, NULL, take_ready, p);
	pthread_join(thread, &got);
	assert_non_null(got);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
count_anew(void *pool)
{
	struct bufpool_stats s;

	bufpool_get_stats(pool, &s);
	CHECK(s.large_cached == 10 && s.classes[0].ready == 10 && s.lost == 0,
	      "%llu kept, %llu ready, %llu lost",
	      (unsigned long long)s.large_cached,
	      (unsigned long long)s.classes[0].ready,
	      (unsigned long long)s.lost);
}

/* Descriptors that were in a batch have memory above the classes now, and their
 * memory makes up another batch. */
static void
a_child_counts_what_was_ready_and_what_is(void **state)
{
	struct bufpool *p = new_pool_of(4096, 0);
	struct bufpool_buf *held[10];

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 1));
	for (int i = 0; i < 10; i++)
		bufpool_release(held[i]);
	bufpool_thread_flush();
	for (int i = 0; i < 10; i++)
		assert_non_null(held[i] = bufpool_try_checkout(p, 1));
	for (int i = 0; i < 10; i++)
		assert_int_equal(bufpool_resize(held[i], 100000), 0);
	for (int i = 0; i < 10; i++)
		bufpool_release(held[i]);
	assert_int_equal(stats_of(p).large_cached, 10);
	bufpool_thread_flush();
	assert_int_equal(in_child(count_anew, p), 0);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batches_come_out_as_they_were_put),
		cmocka_unit_test(a_batch_has_buffers_of_one_node),
		cmocka_unit_test(a_full_depot_holds_as_many_buffers_as_before),
		cmocka_unit_test(a_trim_takes_part_of_a_batch),
		cmocka_unit_test(a_child_counts_what_was_ready_and_what_is),
	};

	return cmocka_run_group_tests_name("depot", tests, NULL, NULL);
}
