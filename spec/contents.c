/*
 * What C appends to a buffer, receives into it, takes and splits off its front,
 * beside the same done to an array of malloc; and what a release wipes.
 */
#include <errno.h>
#include <stdlib.h>

#include "support/pool.h"

#define MOST (300 << 10)	/* bytes of contents */
#define STEPS 20000

static uint64_t seed = 88172645463325252u;

static size_t
below(size_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (size_t)(seed % n);
}

struct both {
	struct bufpool *p;
	struct bufpool_buf *b;
	unsigned char *model;
	size_t len;
};

static void
assert_same(const struct both *x)
{
	assert_int_equal(bufpool_len(x->b), x->len);
	if (x->len > 0)
		assert_memory_equal(bufpool_peek(x->b), x->model, x->len);
}

static void
append_some(struct both *x, size_t n)
{
	unsigned char *bytes = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)below(256);
	memcpy(x->model + x->len, bytes, n);
	assert_int_equal(bufpool_append(x->b, bytes, n), 0);
	x->len += n;
	free(bytes);
}

static void
append_own(struct both *x, size_t n)
{
	size_t from = x->len > 0 ? below(x->len) : 0;
	const char *at = bufpool_peek(x->b);

	if (n > x->len - from)
		n = x->len - from;
	memcpy(x->model + x->len, x->model + from, n);
	assert_int_equal(bufpool_append(x->b, at + from, n), 0);
	x->len += n;
}

static void
receive(struct both *x, size_t n)
{
	size_t got = below(n + 1);
	unsigned char *to = bufpool_reserve(x->b, n);

	assert_non_null(to);
	for (size_t i = 0; i < got; i++)
		to[i] = x->model[x->len + i] = (unsigned char)below(256);
	assert_int_equal(bufpool_commit(x->b, got), 0);
	x->len += got;
}

static void
skip_some(struct both *x, size_t n)
{
	if (n > x->len)
		n = x->len;
	memmove(x->model, x->model + n, x->len - n);
	assert_int_equal(bufpool_skip(x->b, n), 0);
	x->len -= n;
}

/* Whoever gets the memory next finds zeros. */
static void
release_to_next(struct bufpool *p, struct bufpool_buf *b)
{
	size_t size = buf_size(b);

	bufpool_release(b);
	b = bufpool_checkout(p, size);
	assert_all_zero(b);
	bufpool_release(b);
}

/* Goes on with the part, or with the rest, and releases the other one. Nothing
 * was written since bufpool_data where the caller promises that. */
static void
split_some(struct both *x, size_t n, bool promise)
{
	struct both part = { x->p, NULL, x->model, n < x->len ? n : x->len };
	struct both rest = { x->p, x->b, x->model + part.len,
			     x->len - part.len };
	bool go_on = below(2) == 0;
	struct bufpool_buf *other;

	part.b = bufpool_split(x->b, part.len);
	assert_non_null(part.b);
	assert_same(&part);
	assert_same(&rest);
	other = go_on ? rest.b : part.b;
	x->b = go_on ? part.b : rest.b;
	x->len = go_on ? part.len : rest.len;
	if (!go_on)
		memmove(x->model, rest.model, rest.len);
	if (promise) {
		bufpool_wrote(part.b, part.len);
		bufpool_wrote(rest.b, 0);
	}
	release_to_next(x->p, other);
}

/* Tells of the writing exactly. */
static void
describe(struct both *x, size_t n)
{
	if (n > x->len)
		n = x->len;
	memset(bufpool_data(x->b), 2, n);
	memset(x->model, 2, n);
	bufpool_wrote(x->b, n);
	bufpool_data(x->b);
	split_some(x, below(x->len + 1), true);
}

static void
resize(struct both *x, size_t n)
{
	if (n > x->len)
		memset(x->model + x->len, 0, n - x->len);
	assert_int_equal(bufpool_resize(x->b, n), 0);
	x->len = n;
}

/* The buffers of each size that the steps may have used are zero again. */
static void
assert_zero_again(struct bufpool *p)
{
	for (size_t size = 4096; size <= 1048576; size *= 4) {
		struct bufpool_buf *b = bufpool_checkout(p, size);

		assert_all_zero(b);
		bufpool_release(b);
	}
}

static void
is_as_an_array_is(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);
	struct both x = { p, bufpool_checkout(p, 0), malloc(2 * MOST), 0 };

	(void)state;
	for (int i = 0; i < STEPS; i++) {
		size_t n = below(i % 64 == 0 ? 20000 : 200);

		switch (below(10)) {
		case 0: case 1: append_some(&x, n); break;
		case 2: append_own(&x, n); break;
		case 3: case 4: receive(&x, n); break;
		case 5: resize(&x, x.len > n ? x.len - n : n); break;
		case 6: split_some(&x, below(x.len + 1), false); break;
		case 7: describe(&x, n); break;
		default: skip_some(&x, n);
		}
		assert_same(&x);
		if (x.len > MOST || i % 4096 == 4095) {
			bufpool_release(x.b);
			assert_zero_again(p);
			x.b = bufpool_checkout(p, 0);
			x.len = 0;
		}
	}
	bufpool_release(x.b);
	assert_zero_again(p);
	free(x.model);
	assert_conserved(p);
	bufpool_destroy(p);
}

static uint64_t
wiped_by_release(struct bufpool *p, struct bufpool_buf *b)
{
	uint64_t before = stats_of(p).wiped_bytes;

	bufpool_release(b);
	return stats_of(p).wiped_bytes - before;
}

static void
wipes_what_was_committed(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 0);

	(void)state;
	assert_non_null(bufpool_reserve(b, 60000));
	assert_int_equal(bufpool_commit(b, 100), 0);
	assert_non_null(bufpool_reserve(b, 60000));
	assert_int_equal(bufpool_commit(b, 50), 0);
	assert_int_equal(wiped_by_release(p, b), 150);

	/* what was reserved and not committed may have been written */
	b = bufpool_checkout(p, 0);
	assert_non_null(bufpool_reserve(b, 60000));
	assert_int_equal(wiped_by_release(p, b), 60000);

	/* so has what was cut off, though it ends where the reserve does */
	b = bufpool_checkout(p, 0);
	assert_int_equal(bufpool_append(b, "0123456789", 10), 0);
	assert_int_equal(bufpool_resize(b, 4), 0);
	assert_non_null(bufpool_reserve(b, 6));
	assert_int_equal(bufpool_commit(b, 0), 0);
	assert_int_equal(wiped_by_release(p, b), 10);

	/* so may what an access in between has told of */
	b = bufpool_checkout(p, 0);
	assert_non_null(bufpool_reserve(b, 1000));
	assert_int_equal(bufpool_resize(b, 3000), 0);
	memset(bufpool_data(b), 1, 3000);
	assert_int_equal(bufpool_resize(b, 0), 0);
	assert_int_equal(bufpool_commit(b, 10), -1);
	assert_int_equal(wiped_by_release(p, b), 3000);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* A part of `len` bytes less `few` gets the memory, and so the address. */
static void
splits_without_a_copy_of_the_longer_part(void **state)
{
	const size_t lens[] = { 100, 4096, 65536, 1 << 20, 3 << 20 };
	struct bufpool *p = new_pool(4, 4, 0);

	(void)state;
	for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
		for (size_t few = 0; few < 4; few++) {
			size_t len = lens[i];
			struct bufpool_buf *b = bufpool_checkout(p, len), *part;
			const char *at = bufpool_data(b);

			memset(bufpool_data(b), 'x', len);
			memcpy(bufpool_data(b), "abcd", 4);
			part = bufpool_split(b, few);
			assert_ptr_equal(bufpool_peek(b), at + few);
			assert_memory_equal(bufpool_peek(part), "abcd", few);
			bufpool_release(part);
			part = bufpool_split(b, len - 2 * few);
			assert_ptr_equal(bufpool_peek(part), at + few);
			assert_int_equal(bufpool_len(part), len - 2 * few);
			assert_int_equal(bufpool_len(b), few);
			assert_memory_equal(bufpool_peek(b), "xxx", few);
			bufpool_release(part);
			bufpool_release(b);
		}
	assert_zero_again(p);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
a_part_is_of_the_same_kind(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);
	struct bufpool_buf *b = bufpool_checkout_aligned(p, 30000, 1048576);

	(void)state;
	bufpool_close(p);
	for (size_t n = 0; n <= 20000; n += 10000) {
		struct bufpool_buf *part = bufpool_split(b, n);

		assert_non_null(part);
		assert_int_equal(bufpool_resize(part, 100000), 0);
		assert_int_equal((uintptr_t)bufpool_peek(part) % 1048576, 0);
		assert_int_equal(stats_of(p).checked_out, 2);
		bufpool_release(part);
	}
	assert_int_equal(bufpool_len(b), 0);
	bufpool_release(b);
	bufpool_destroy(p);
}

static void
a_refused_split_changes_nothing(void **state)
{
	struct bufpool *p = new_pool(1, 0, 4096);
	struct bufpool_buf *b = bufpool_checkout(p, 0);

	(void)state;
	assert_int_equal(bufpool_append(b, "hello", 5), 0);
	assert_non_null(bufpool_reserve(b, 10));
	errno = 0;
	assert_null(bufpool_split(b, 6));
	assert_int_equal(errno, EINVAL);
	assert_null(bufpool_split(b, SIZE_MAX));
	assert_int_equal(errno, EINVAL);
	for (size_t n = 0; n <= 5; n++) {
		errno = 0;
		assert_null(bufpool_split(b, n));
		assert_int_equal(errno, EDQUOT);
	}
	assert_int_equal(bufpool_commit(b, 0), 0);
	assert_int_equal(bufpool_len(b), 5);
	assert_memory_equal(bufpool_peek(b), "hello", 5);
	assert_int_equal(stats_of(p).checked_out, 1);
	bufpool_release(b);
	bufpool_destroy(p);
}

/* Whether the part or the rest has the memory that was reserved. */
static void
a_split_ends_what_is_reserved(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);

	(void)state;
	for (size_t n = 0; n <= 5; n++) {
		struct bufpool_buf *b = bufpool_checkout(p, 0), *part;

		assert_int_equal(bufpool_append(b, "hello", 5), 0);
		memset(bufpool_reserve(b, 10), 1, 10);
		part = bufpool_split(b, n);
		assert_int_equal(bufpool_commit(b, 1), -1);
		assert_int_equal(bufpool_commit(part, 1), -1);
		bufpool_release(part);
		bufpool_release(b);
	}
	assert_zero_again(p);
	bufpool_destroy(p);
}

static void
refuses_what_cannot_be(void **state)
{
	struct bufpool *p = new_pool(1, 1, 1 << 20);
	struct bufpool_buf *b = bufpool_checkout(p, 0);

	(void)state;
	assert_int_equal(bufpool_append(b, "hello", 5), 0);
	errno = 0;
	assert_int_equal(bufpool_commit(b, 0), -1);
	assert_int_equal(errno, EINVAL);
	assert_non_null(bufpool_reserve(b, 10));
	assert_int_equal(bufpool_commit(b, 11), -1);
	assert_int_equal(bufpool_commit(b, 0), 0);
	assert_int_equal(bufpool_commit(b, 0), -1);
	assert_int_equal(bufpool_skip(b, 6), -1);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(bufpool_reserve(b, PTRDIFF_MAX));
	assert_int_equal(errno, EOVERFLOW);
	assert_int_equal(bufpool_append(b, "", SIZE_MAX), -1);
	assert_int_equal(errno, EOVERFLOW);
	assert_null(bufpool_reserve(b, 2 << 20));
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_append(b, NULL, 0), 0);
	assert_int_equal(bufpool_len(b), 5);
	assert_memory_equal(bufpool_peek(b), "hello", 5);
	/* what was appended since took the place of what was reserved */
	assert_non_null(bufpool_reserve(b, 10));
	assert_int_equal(bufpool_append(b, "x", 1), 0);
	assert_int_equal(bufpool_commit(b, 1), -1);
	assert_non_null(bufpool_reserve(b, 10));
	assert_int_equal(bufpool_resize(b, 1000), 0);
	assert_int_equal(bufpool_commit(b, 1), -1);
	assert_non_null(bufpool_reserve(b, 10));
	assert_int_equal(bufpool_resize(b, 999), 0);
	assert_int_equal(bufpool_commit(b, 1), -1);
	/* nothing that is consumed changes nothing, of an empty buffer too */
	for (size_t len = 0; len < 2; len++) {
		assert_int_equal(bufpool_resize(b, len), 0);
		memcpy(bufpool_reserve(b, 3), "abc", 3);
		assert_int_equal(bufpool_skip(b, 0), 0);
		assert_int_equal(bufpool_commit(b, 3), 0);
		assert_int_equal(bufpool_len(b), len + 3);
	}
	bufpool_release(b);
	errno = 0;
	assert_null(bufpool_get(NULL));
	assert_int_equal(errno, EINVAL);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_as_an_array_is),
		cmocka_unit_test(wipes_what_was_committed),
		cmocka_unit_test(splits_without_a_copy_of_the_longer_part),
		cmocka_unit_test(a_part_is_of_the_same_kind),
		cmocka_unit_test(a_refused_split_changes_nothing),
		cmocka_unit_test(a_split_ends_what_is_reserved),
		cmocka_unit_test(refuses_what_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
