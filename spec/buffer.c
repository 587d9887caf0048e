/*
 * A buffer keeps its contents and its alignment when it is resized, and new
 * bytes are zero. A call with a released or frozen buffer aborts and says why.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/pool.h"
#include "support/process.h"

static void
resizing_shows_zeroes_and_keeps_the_contents(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 1000);
	unsigned char *data = bufpool_data(b);

	(void)state;
	memset(data, 7, 1000);
	assert_int_equal(bufpool_resize(b, 10), 0);
	assert_int_equal(bufpool_resize(b, 2000), 0);
	data = bufpool_data(b);
	for (size_t i = 0; i < 2000; i++)
		assert_int_equal(data[i], i < 10 ? 7 : 0);
	memset(data, 9, 2000);
	assert_int_equal(bufpool_resize(b, 3000000), 0);
	assert_int_equal(bufpool_len(b), 3000000);
	data = bufpool_data(b);
	for (size_t i = 0; i < 3000000; i++)
		if (data[i] != (i < 2000 ? 9 : 0))
			fail_msg("byte %zu is %d", i, data[i]);
	bufpool_release(b);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
keeps_an_alignment_through_growth(void **state)
{
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (size_t a = 1; a <= (size_t)1 << 22; a *= 2) {
		struct bufpool_buf *b = bufpool_checkout_aligned(p, 100, a);

		assert_non_null(b);
		assert_int_equal((uintptr_t)bufpool_peek(b) % a, 0);
		memset(bufpool_data(b), 5, 100);
		assert_int_equal(bufpool_resize(b, 100000), 0);
		assert_int_equal((uintptr_t)bufpool_peek(b) % a, 0);
		assert_int_equal(((const char *)bufpool_peek(b))[99], 5);
		bufpool_release(b);
	}
	errno = 0;
	assert_null(bufpool_checkout_aligned(p, 1, 0));
	assert_int_equal(errno, EINVAL);
	assert_null(bufpool_checkout_aligned(p, 1, 48));
	assert_int_equal(errno, EINVAL);
	assert_null(bufpool_checkout_aligned(p, 1, (size_t)1 << 63));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(bufpool_checkout_aligned(p, PTRDIFF_MAX, (size_t)1 << 63));
	assert_int_equal(errno, ENOMEM);
	bufpool_destroy(p);
}

/* Runs misuse in a child, which must abort and print the message. */
struct misuse {
	void (*of)(struct bufpool *);
};

static void
misuse_a_pool(void *misuse)
{
	((struct misuse *)misuse)->of(new_pool(4, 4, 0));
}

static void
assert_aborts(void (*of)(struct bufpool *), const char *message)
{
	struct misuse misuse = { of };
	char said[512];
	int status = said_in_child(misuse_a_pool, &misuse, said, sizeof said);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT ||
	    strstr(said, message) == NULL)
		fail_msg("status %x, said: %s", (unsigned)status, said);
}

static void
release_twice(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_release(b);
	bufpool_release(b);
}

static void
release_frozen(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_freeze(b);
	bufpool_release(b);
}

static void
freeze_released(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_release(b);
	bufpool_freeze(b);
}

static void
unref_twice(struct bufpool *p)
{
	struct bufpool_frozen *f = bufpool_freeze(bufpool_checkout(p, 1));

	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

static void
aborts_on_proven_corruption(void **state)
{
	(void)state;
	assert_aborts(release_twice, "corruption at release");
	assert_aborts(release_frozen, "is frozen");
	assert_aborts(freeze_released, "corruption at freeze");
	assert_aborts(unref_twice, "corruption at unref");
}

/* As if very many references had been taken before. */
static void
the_count_of_frozen_references_does_not_wrap(void **state)
{
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 100);
	struct bufpool_frozen *f;

	(void)state;
	memset(bufpool_data(b), 7, 100);
	f = bufpool_freeze(b);
	atomic_store(&b->refs, UINT32_MAX);
	bufpool_frozen_ref(f);
	assert_true(atomic_load(&b->refs) == (uint64_t)UINT32_MAX + 1);
	bufpool_frozen_ref(f);
	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
	assert_int_equal(stats_of(p).checked_out, 1);
	assert_int_equal(((const char *)bufpool_frozen_data(f))[99], 7);
	atomic_store(&b->refs, 1);
	bufpool_frozen_unref(f);
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resizing_shows_zeroes_and_keeps_the_contents),
		cmocka_unit_test(keeps_an_alignment_through_growth),
		cmocka_unit_test(aborts_on_proven_corruption),
		cmocka_unit_test(the_count_of_frozen_references_does_not_wrap),
	};

	return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
