/*
 * The next user of a buffer sees only zeros, whatever way it was dirtied and
 * given back. Bytes that were not dirtied are not wiped.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/grow.h"
#include "core/release.h"
#include "support/clock.h"
#include "support/needs.h"
#include "support/pool.h"

/* Each of these dirties a buffer of n bytes and gives it back. */
static void
by_data(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	bufpool_release(b);
}

static void
by_promise(struct bufpool_buf *b, size_t n)
{
	size_t some = n / 2;

	memset(bufpool_data(b), 0xa5, some);
	bufpool_wrote(b, some);
	bufpool_release(b);
}

static void
by_raw_growth(struct bufpool_buf *b, size_t n)
{
	assert_int_equal(bufpool_resize(b, n / 4), 0);
	memset(bufpool_data(b), 0xa5, n / 4);
	/* The pointer is valid: growth within the capacity moves nothing. */
	assert_int_equal(bufpool_resize(b, n), 0);
	memset((uint8_t *)(uintptr_t)bufpool_peek(b), 0xa5, n);
	bufpool_release(b);
}

static void
by_growth(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	assert_int_equal(bufpool_resize(b, n * 3), 0);
	memset(bufpool_data(b), 0xa5, n * 3);
	bufpool_release(b);
}

static void
by_frozen(struct bufpool_buf *b, size_t n)
{
	struct bufpool_frozen *f;

	memset(bufpool_data(b), 0xa5, n);
	f = bufpool_freeze(b);
	bufpool_frozen_ref(f);
	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

/* The pointer stays valid: nothing has moved. */
static void
by_a_pointer_from_before_a_wipe(struct bufpool_buf *b, size_t n)
{
	uint8_t *old = bufpool_data(b);

	memset(old, 0xa5, n);
	bp_buf_wipe(b);
	assert_int_equal(bufpool_len(b), 0);
	assert_int_equal(old[0] | old[n - 1], 0);
	memset(old, 0xa5, n);
	bufpool_release(b);
}

static void
by_a_pointer_from_before_a_wipe_and_growth(struct bufpool_buf *b, size_t n)
{
	uint8_t *old = bufpool_data(b);

	bp_buf_wipe(b);
	assert_int_equal(bufpool_resize(b, n / 2), 0);
	bp_buf_wipe(b);
	memset(old, 0xa5, n);
	bufpool_release(b);
}

static void
by_collector(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	bp_release_gc(b);
}

static void
by_free(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	bp_grow_free(b);
	assert_int_equal(bufpool_capacity(b), 0);
	assert_int_equal(bufpool_len(b), 0);
	bufpool_release(b);
}

static void
gives_every_byte_back_as_zero(void **state)
{
	void (*const ways[])(struct bufpool_buf *, size_t) = {
		by_data, by_promise, by_raw_growth, by_growth, by_frozen,
		by_a_pointer_from_before_a_wipe,
		by_a_pointer_from_before_a_wipe_and_growth,
		by_collector, by_free,
	};
	static const size_t sizes[] = { 1, 100, 4096, 5000, 65536, 262144,
					1048576 };
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			struct bufpool_buf *held[8];

			ways[w](bufpool_checkout(p, sizes[i]), sizes[i]);
			/* Held at once, so the dirtied one is among them. */
			for (size_t j = 0; j < 8; j++) {
				held[j] = bufpool_checkout(p, sizes[i]);
				assert_all_zero(held[j]);
			}
			for (size_t j = 0; j < 8; j++)
				bufpool_release(held[j]);
		}
	assert_int_equal(stats_of(p).checked_out, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* In the steps of any processor, and whatever the size is to them. */
static void
wipes_from_the_end_every_byte_and_no_other(void **state)
{
	static const size_t steps[] = { 64, 4096, 262144 };
	static const size_t sizes[] = { 0, 1, 63, 64, 65, 4095, 4096, 4097,
					262143, 262144, 262145, 1000000 };
	const struct wipe_window before = bp_wipe_window;
	static uint8_t memory[1000064];

	(void)state;
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
			size_t n = sizes[j], dirty = 0;

			bp_wipe_window.step = steps[i];
			memset(memory, 0xa5, sizeof memory);
			bp_wipe_from_end(memory + 32, n);
			for (size_t k = 0; k < sizeof memory; k++)
				dirty += memory[k] == 0xa5;
			assert_int_equal(dirty, sizeof memory - n);
			assert_int_equal(memory[31], 0xa5);
			assert_int_equal(memory[32 + n], 0xa5);
		}
	bp_wipe_window = before;
}

/* Every size is in the window, or none is, or some are. */
static void
gives_back_zeros_wherever_the_window_lies(void **state)
{
	static const struct wipe_window windows[] = {
		{ 0, SIZE_MAX, 64 }, { 0, 0, 64 }, { 65536, 65536, 4096 },
	};
	const struct wipe_window before = bp_wipe_window;

	for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
		bp_wipe_window = windows[i];
		gives_every_byte_back_as_zero(state);
	}
	bp_wipe_window = before;
}

static void
wipes_only_what_was_dirtied(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 4096);

	(void)state;
	assert_int_equal(((const char *)bufpool_peek(b))[4095], 0);
	bufpool_release(b);
	assert_int_equal(stats_of(p).wiped_bytes, 0);
	b = bufpool_checkout(p, 4096);
	memset(bufpool_data(b), 1, 64);
	bufpool_wrote(b, 64);
	bufpool_release(b);
	assert_int_equal(stats_of(p).wiped_bytes, 64);
	bufpool_destroy(p);
}

/* Releases b. Whoever has its memory next finds nothing of it. */
static void
assert_leaves_nothing(struct bufpool *p, struct bufpool_buf *b)
{
	bufpool_release(b);
	b = bufpool_checkout(p, 4096);
	assert_all_zero(b);
	bufpool_release(b);
}

/* The contents move to the front, and the promise speaks of those. */
static void
a_promise_covers_the_last_access_only(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 4096);
	uint8_t *data = bufpool_data(b);

	(void)state;
	memset(data, 'S', 3000);
	assert_int_equal(bufpool_resize(b, 3000), 0);
	bufpool_wrote(b, 3000);
	data = bufpool_data(b);
	memmove(data, data + 2990, 10);
	assert_int_equal(bufpool_resize(b, 10), 0);
	bufpool_wrote(b, 10);
	assert_leaves_nothing(p, b);

	/* A loop that reads by one pointer, less the second time: that breaks
	 * the contract, and leaves nothing behind all the same. */
	b = bufpool_checkout(p, 4096);
	data = bufpool_data(b);
	memset(data, 'S', 3000);
	bufpool_wrote(b, 3000);
	memset(data, 'S', 10);
	bufpool_wrote(b, 10);
	assert_leaves_nothing(p, b);

	/* A second promise about the same pointer counts as well. */
	b = bufpool_checkout(p, 4096);
	data = bufpool_data(b);
	data[4] = 1;
	bufpool_wrote(b, 5);
	data[99] = 1;
	bufpool_wrote(b, 100);
	bufpool_wrote(b, SIZE_MAX);
	assert_leaves_nothing(p, b);

	/* What is reserved lies behind the contents, and where all of these are
	 * consumed, the contents begin at the start of the memory again. */
	b = bufpool_checkout(p, 1000);
	memset(bufpool_reserve(b, 500), 'S', 500);
	assert_int_equal(bufpool_skip(b, 1000), 0);
	bufpool_wrote(b, 500);
	assert_leaves_nothing(p, b);

	/* What is committed is contents, whatever was promised before. */
	b = bufpool_checkout(p, 1000);
	memset(bufpool_reserve(b, 500), 'S', 500);
	bufpool_wrote(b, 1000);
	assert_int_equal(bufpool_commit(b, 500), 0);
	assert_leaves_nothing(p, b);
	bufpool_destroy(p);
}

/* A promise about one memory, after the buffer has got that of another. */
static void
a_promise_does_not_cover_other_memory(void **state)
{
	struct bufpool *p = new_pool(2, 0, 0);

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct bufpool_buf *to = bufpool_checkout(p, 4096);
		struct bufpool_buf *b = bufpool_checkout(p, 4096);

		memset(bufpool_data(i == 0 ? b : to), 'S', 3000);
		assert_non_null(bufpool_data(i == 0 ? to : b));
		assert_int_equal(bufpool_resize(to, 0), 0);
		bp_buf_move(to, b);
		assert_int_equal(bufpool_len(to), 4096);
		assert_int_equal(bufpool_len(b), 0);
		bufpool_wrote(i == 0 ? to : b, 0);
		assert_leaves_nothing(p, b);
		assert_leaves_nothing(p, to);
	}
	bufpool_destroy(p);
}

static uint32_t
draw(uint32_t below)
{
	static uint32_t seed = 2463534242u;

	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

/* Writes somewhere, and says of this access alone how far, by a position that
 * may have moved meanwhile, and the contents with it. */
static void
access_once(struct bufpool_buf *b)
{
	size_t len = bufpool_len(b), from = draw((uint32_t)len + 1);
	size_t n = draw((uint32_t)(len - from) + 1);
	size_t end = from + n, taken = 0;
	char more[300];

	memset((uint8_t *)bufpool_data(b) + from, 0xa5, n);
	if (len > 0 && draw(3) == 0)
		taken = draw(3) > 0 ? draw((uint32_t)len) + 1 : len;
	assert_int_equal(bufpool_skip(b, taken), 0);
	end = end > taken ? end - taken : 0;
	if (draw(4) == 0) {
		memset(more, 0xa5, sizeof more);
		assert_int_equal(bufpool_append(b, more, draw(sizeof more)),
				 0);
		end = bufpool_len(b);
	} else if (draw(4) == 0)
		assert_int_equal(bufpool_resize(b, bufpool_len(b) +
						draw(sizeof more)), 0);
	if (draw(4) > 0)
		bufpool_wrote(b, end + draw(100));
}

/* What is promised is always true, and nothing is left behind. */
static void
true_promises_leave_nothing(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, draw(4097));

		assert_all_zero(b);
		for (uint32_t k = draw(12); k > 0; k--)
			switch (draw(8)) {
			case 0:
				assert_int_equal(bufpool_resize(
				    b, draw(draw(9) ? 4097 : 9000)), 0);
				break;
			case 1:
				if (bufpool_len(b) > 0)
					bp_buf_consume(b, draw((uint32_t)
					    bufpool_len(b)) + 1);
				break;
			case 2:
				if (draw(5) == 0)
					bp_buf_wipe(b);
				break;
			default:
				access_once(b);
			}
		bufpool_release(b);
	}
	bufpool_destroy(p);
}

/* madvise as the system does it, or refused, as for memory that is locked. */
static bool refuse;
static size_t refused;	/* calls */

__attribute__((visibility("default"))) int
madvise(void *at, size_t n, int advice)
{
	static int (*real)(void *, size_t, int);

	if (refuse) {
		refused++;
		errno = EINVAL;
		return -1;
	}
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "madvise");
	return real(at, n, advice);
}

/* As at the limit of mappings, where one more would be needed. */
__attribute__((visibility("default"))) int
munmap(void *at, size_t n)
{
	static int (*real)(void *, size_t);

	if (refuse) {
		errno = ENOMEM;
		return -1;
	}
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "munmap");
	return real(at, n);
}

#define MIB ((size_t)1 << 20)
#define MANY 60

/* Returns how many bytes the releases of a burst wiped. */
static uint64_t
wiped_by_a_burst(struct bufpool *p, size_t n, bool closed)
{
	uint64_t before = stats_of(p).wiped_bytes;
	struct bufpool_buf *held[MANY];

	for (int i = 0; i < MANY; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, n));
		memset(bufpool_data(held[i]), 0xa5, n);
		if (i % 3 == 0)
			bp_buf_consume(held[i], n / 2);
	}
	if (closed)
		bufpool_close(p);
	for (int i = 0; i < MANY; i++)
		bufpool_release(held[i]);
	return stats_of(p).wiped_bytes - before;
}

static void
assert_burst_is_zero(struct bufpool *p, size_t n)
{
	struct bufpool_buf *held[MANY];

	for (int i = 0; i < MANY; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, n));
		assert_all_zero(held[i]);
		assert_int_equal(held[i]->mark, 0);
	}
	for (int i = 0; i < MANY; i++)
		bufpool_release(held[i]);
	bufpool_trim(p);
}

/* What the system takes is not wiped: a shelf holds two of these, a depot at
 * most 31. What the system refuses is wiped. */
static void
what_leaves_for_the_system_is_not_wiped(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);

	(void)state;
	assert_in_range(wiped_by_a_burst(p, MIB, false), 1, 34 * MIB);
	assert_burst_is_zero(p, MIB);
	for (int round = 0; round < 2; round++) {
		refuse = true;
		wiped_by_a_burst(p, MIB, false);
		refuse = false;
		assert_in_range(refused, MANY / 3, 2 * MANY);
		refused = 0;
		assert_burst_is_zero(p, MIB);
	}
	assert_conserved(p);
	bufpool_destroy(p);
}

/* As a mapping or as pages: it stays committed, and goes with the next trim. */
static void
what_the_system_takes_neither_way_is_wiped(void **state)
{
	struct bufpool_config config;
	struct bufpool_buf *b;
	struct bufpool *p;
	const uint8_t *at;

	(void)state;
	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = config.large_bytes = 0;
	p = bufpool_create(&config);
	b = bufpool_checkout(p, 2 * MIB);
	at = memset(bufpool_data(b), 0xa5, 2 * MIB);
	refuse = true;
	bufpool_release(b);
	refuse = false;
	for (size_t i = 0; i < 2 * MIB; i++)
		assert_int_equal(at[i], 0);
	assert_int_equal(stats_of(p).committed_bytes, 2 * MIB);
	assert_int_equal(bufpool_trim(p), 2 * MIB);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

/* Nothing stays in a closed pool. */
static void
a_closed_pool_wipes_nothing(void **state)
{
	const size_t sizes[] = { 4096, 65536, MIB, 2 * MIB };

	(void)state;
	needs_pages_of_4_kib();
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct bufpool *p = new_pool(1, 0, 0);

		assert_int_equal(wiped_by_a_burst(p, sizes[i], true), 0);
		assert_int_equal(stats_of(p).committed_bytes, 0);
		bufpool_destroy(p);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_every_byte_back_as_zero),
		cmocka_unit_test(wipes_from_the_end_every_byte_and_no_other),
		cmocka_unit_test(gives_back_zeros_wherever_the_window_lies),
		cmocka_unit_test(wipes_only_what_was_dirtied),
		cmocka_unit_test(a_promise_covers_the_last_access_only),
		cmocka_unit_test(a_promise_does_not_cover_other_memory),
		cmocka_unit_test(true_promises_leave_nothing),
		cmocka_unit_test(what_leaves_for_the_system_is_not_wiped),
		cmocka_unit_test(what_the_system_takes_neither_way_is_wiped),
		cmocka_unit_test(a_closed_pool_wipes_nothing),
	};

	return cmocka_run_group_tests_name("wipe", tests, NULL, NULL);
}
