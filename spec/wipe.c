/*
 * The next user of a buffer sees only zeros, whatever way it was dirtied and
 * given back. Bytes that were not dirtied are not wiped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/grow.h"
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
	buf_wipe(b);
	assert_int_equal(bufpool_len(b), 0);
	assert_int_equal(old[0] | old[n - 1], 0);
	memset(old, 0xa5, n);
	bufpool_release(b);
}

static void
by_a_pointer_from_before_a_wipe_and_growth(struct bufpool_buf *b, size_t n)
{
	uint8_t *old = bufpool_data(b);

	buf_wipe(b);
	assert_int_equal(bufpool_resize(b, n / 2), 0);
	buf_wipe(b);
	memset(old, 0xa5, n);
	bufpool_release(b);
}

static void
by_collector(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	release_gc(b);
}

static void
by_free(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	grow_free(b);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_every_byte_back_as_zero),
		cmocka_unit_test(wipes_only_what_was_dirtied),
	};

	return cmocka_run_group_tests_name("wipe", tests, NULL, NULL);
}
