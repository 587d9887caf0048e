/*
 * Handles, where Lua does not reach: what happens to a descriptor that has been
 * released so often that its word no longer fits a handle, 2^37 times.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/buf.h"
#include "lua/calls.h"
#include "core/pool.h"
#include "core/sites.h"

static struct bufpool_pool_box box;

static int
open_pool(void **state)
{
	(void)state;
	memset(&box, 0, sizeof box);
	box.pool = bufpool_create(NULL);
	return box.pool == NULL;
}

static int
close_pool(void **state)
{
	(void)state;
	bufpool_destroy(box.pool);
	return 0;
}

/* As if it had been released so often that the next release is the last one
 * whose word a handle holds. */
static void
make_old(struct bufpool_buf *b)
{
	atomic_store(&b->word, (UINT64_C(1) << (64 - BUF_NUMBER_BITS)) -
		     BUF_GENERATION + BUF_OUT);
	assert_false(buf_outgrown(b));
}

static void
a_handle_stands_for_one_checkout(void **state)
{
	struct bufpool_handle *h = bp_ffi_calls.borrow(&box, 100);
	struct bufpool_buf *b = handle_buf(h);

	(void)state;
	assert_non_null(b);
	assert_int_equal(bufpool_len(b), 100);
	bufpool_release(b);
	assert_null(handle_buf(h));
	assert_null(handle_buf(NULL));
	assert_null(handle_buf((void *)UINTPTR_MAX));
}

static void
the_last_handle_of_a_descriptor_works_and_dies(void **state)
{
	struct bufpool_buf *b = bufpool_checkout(box.pool, 100);
	struct bufpool_handle *h;

	(void)state;
	make_old(b);
	atomic_fetch_sub(&b->word, BUF_GENERATION);
	bufpool_release(b);
	h = bp_ffi_calls.borrow(&box, 100);
	assert_ptr_equal(handle_buf(h), b);
	bufpool_release(b);
	assert_true(buf_outgrown(b));
	assert_null(handle_buf(h));
}

static void
memory_moves_on_from_a_descriptor_that_is_too_old(void **state)
{
	struct bufpool_buf *b = bufpool_checkout(box.pool, 100), *young;
	uint8_t *memory = bufpool_data(b);
	uint64_t count;
	struct bufpool_stats s;

	(void)state;
	memset(memory, 1, 100);
	make_old(b);
	bufpool_release(b);
	assert_true(buf_outgrown(b));
	bufpool_get_stats(box.pool, &s);
	count = s.classes[0].count;
	young = handle_buf(bp_ffi_calls.borrow(&box, 50));
	assert_non_null(young);
	assert_ptr_not_equal(young, b);
	assert_ptr_equal(bufpool_peek(young), memory);
	assert_int_equal(bufpool_len(young), 50);
	for (int i = 0; i < 4096; i++)
		assert_int_equal(memory[i], 0);
	bufpool_get_stats(box.pool, &s);
	assert_int_equal(s.checked_out, 1);
	assert_int_equal(s.classes[0].count, count);
	/* It is nobody's now, and never used again. */
	assert_int_equal(atomic_load(&b->word) & BUF_STATE, BUF_BLANK);
	for (int i = 0; i < 100; i++) {
		struct bufpool_buf *bare = bp_arena_take_bare(&box.pool->arena);

		assert_ptr_not_equal(bare, b);
		bare->shelf = &bp_cache_no_shelf;
		bufpool_release(bare);
	}
	bufpool_release(young);
	bufpool_get_stats(box.pool, &s);
	assert_int_equal(s.checked_out, 0);
	assert_int_equal(s.classes[0].count,
			 s.classes[0].ready + s.classes[0].cached);
}

/* Its record too. */
static void
what_moves_on_stays_recorded(void **state)
{
	struct bufpool_pool_box own = { 0 };
	struct bufpool_buf *b, *young;
	struct bufpool_site site;

	(void)state;
	own.pool = bufpool_create(NULL);
	assert_int_equal(bufpool_detect_leaks(own.pool, BUFPOOL_LEAK_ALL, 0),
			 0);
	b = bufpool_checkout(own.pool, 100);
	make_old(b);
	bufpool_release(b);
	assert_null(bp_ffi_calls.borrow(&own, 50));
	assert_int_equal(own.error, ESITE);
	young = handle_buf(bp_ffi_calls.borrow_at(&own, 50, 1 + (int)(
	    bp_sites_list(own.pool, "here") & ~SITE_LISTED)));
	assert_non_null(young);
	assert_ptr_not_equal(young, b);
	assert_int_equal(bufpool_sites(own.pool, &site, 1), 1);
	assert_int_equal(site.buffers, 1);
	assert_string_equal(site.place, "here");
	bufpool_release(young);
	assert_int_equal(bufpool_sites(own.pool, &site, 1), 0);
	bufpool_destroy(own.pool);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, open_pool, close_pool)
		TEST(a_handle_stands_for_one_checkout),
		TEST(the_last_handle_of_a_descriptor_works_and_dies),
		TEST(memory_moves_on_from_a_descriptor_that_is_too_old),
		TEST(what_moves_on_stays_recorded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
