/*
 * A size that no buffer can have is refused. try_checkout takes only what is
 * ready. The buffer released last comes out first. release keeps errno.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/needs.h"
#include "support/pool.h"

static void
refuses_sizes_that_cannot_be(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *b;

	(void)state;
	assert_null(bufpool_checkout(p, (size_t)PTRDIFF_MAX + 1));
	assert_int_equal(errno, EOVERFLOW);
	assert_null(bufpool_checkout(p, SIZE_MAX));
	assert_int_equal(errno, EOVERFLOW);
	assert_null(bufpool_checkout(p, PTRDIFF_MAX));
	assert_int_equal(errno, ENOMEM);
	assert_null(bufpool_try_checkout(p, SIZE_MAX));
	assert_int_equal(errno, EOVERFLOW);
	b = bufpool_checkout(p, 10);
	memset(bufpool_data(b), 3, 10);
	assert_int_equal(bufpool_resize(b, SIZE_MAX), -1);
	assert_int_equal(errno, EOVERFLOW);
	assert_int_equal(bufpool_resize(b, PTRDIFF_MAX), -1);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_len(b), 10);
	assert_int_equal(((const char *)bufpool_peek(b))[9], 3);
	bufpool_release(b);
	bufpool_release(NULL);
	bufpool_frozen_unref(NULL);
	bufpool_destroy(NULL);
	bufpool_destroy(p);
}

static void
try_checkout_takes_only_what_is_ready(void **state)
{
	struct bufpool *p = new_pool(3, 0, 0);
	struct bufpool_buf *held[3];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_try_checkout(p, 1));
	errno = 0;
	assert_null(bufpool_try_checkout(p, 1));
	assert_int_equal(errno, EAGAIN);
	assert_null(bufpool_try_checkout(p, 4097));
	assert_int_equal(errno, EAGAIN);
	assert_null(bufpool_try_checkout(p, 2000000));
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(stats_of(p).misses, 0);
	for (size_t i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_non_null(held[0] = bufpool_try_checkout(p, 1));
	bufpool_release(held[0]);
	bufpool_destroy(p);
}

/* The buffer released last is the one most likely to be in the CPU's cache. */
static void
hands_out_the_buffer_released_last(void **state)
{
	struct bufpool *p = new_pool(8, 0, 0);
	struct bufpool_buf *a = bufpool_checkout(p, 1);
	struct bufpool_buf *b = bufpool_checkout(p, 1);
	const void *last = bufpool_peek(a);

	(void)state;
	bufpool_release(b);
	bufpool_release(a);
	a = bufpool_checkout(p, 1);
	assert_ptr_equal(bufpool_peek(a), last);
	bufpool_release(a);
	bufpool_destroy(p);
}

static void
release_keeps_errno(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);
	struct bufpool_buf *held[200];

	(void)state;
	for (size_t i = 0; i < 200; i++)
		held[i] = bufpool_checkout(p, 65536);
	errno = 4711;
	for (size_t i = 0; i < 200; i++)
		bufpool_release(held[i]);
	assert_int_equal(errno, 4711);
	bufpool_destroy(p);
	assert_int_equal(errno, 4711);
}

/* The limit is 10 pages and a half. 2 are out, 8 lie idle. */
static void
takes_idle_memory_for_the_rest_of_a_page(void **state)
{
	enum { PAGE = 4096, PAGES = 10 };
	const struct bufpool_class_config class = { PAGE, 0 };
	struct bufpool_buf *held[PAGES], *large;
	struct bufpool_config config;
	struct bufpool *p;

	(void)state;
	needs_pages_of_4_kib();
	bufpool_config_init(&config);
	config.classes = &class;
	config.class_count = 1;
	config.max_bytes = PAGES * PAGE + PAGE / 2;
	assert_non_null(p = bufpool_create(&config));
	for (size_t i = 0; i < PAGES; i++)
		held[i] = bufpool_checkout(p, PAGE);
	for (size_t i = 2; i < PAGES; i++)
		bufpool_release(held[i]);
	large = bufpool_checkout(p, 7 * PAGE + 1);
	assert_non_null(large);
	bufpool_release(large);
	bufpool_release(held[0]);
	bufpool_release(held[1]);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_sizes_that_cannot_be),
		cmocka_unit_test(try_checkout_takes_only_what_is_ready),
		cmocka_unit_test(hands_out_the_buffer_released_last),
		cmocka_unit_test(release_keeps_errno),
		cmocka_unit_test(takes_idle_memory_for_the_rest_of_a_page),
	};

	return cmocka_run_group_tests_name("checkout", tests, NULL, NULL);
}
