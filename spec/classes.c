/*
 * A pool has the classes that its configuration names. A checkout is served
 * from the smallest class that holds its size. CLASSES_SEED repeats a run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/pool.h"

static void
takes_the_smallest_class_that_holds_it(void **state)
{
	static const size_t cases[][2] = {
		{ 0, 4096 }, { 1, 4096 }, { 4096, 4096 }, { 4097, 65536 },
		{ 65536, 65536 }, { 65537, 262144 }, { 262144, 262144 },
		{ 262145, 1048576 }, { 1048576, 1048576 },
	};
	static const size_t above[] = { 1048577, 5000001, 1500000, 1048577 };
	struct bufpool *p = new_pool(1, 1, 0);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, cases[i][0]);

		assert_non_null(b);
		assert_int_equal(bufpool_len(b), cases[i][0]);
		assert_int_equal(bufpool_capacity(b), cases[i][1]);
		assert_int_equal((uintptr_t)bufpool_peek(b) % 64, 0);
		assert_all_zero(b);
		bufpool_release(b);
	}
	for (size_t i = 0; i < sizeof above / sizeof *above; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, above[i]);

		assert_non_null(b);
		assert_int_equal(bufpool_len(b), above[i]);
		assert_true(holds_large(b, above[i]));
		assert_all_zero(b);
		bufpool_release(b);
	}
	assert_conserved(p);
	bufpool_destroy(p);
}

static struct bufpool *
own_classes(const struct bufpool_class_config *classes, size_t count)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = count;
	return bufpool_create(&config);
}

static void
has_classes_of_its_own(void **state)
{
	const struct bufpool_class_config classes[] = {
		{ 40960, 2 }, { 4096, 0 }, { 8388608, 1 }, { 8192, 7 }
	};
	static const size_t sizes[] = { 4096, 8192, 40960, 8388608 };
	static const uint64_t counts[] = { 0, 7, 2, 1 };
	struct bufpool *p = own_classes(classes, 4);
	struct bufpool_stats s;

	(void)state;
	assert_non_null(p);
	s = stats_of(p);
	assert_int_equal(s.class_count, 4);
	for (unsigned c = 0; c < 4; c++) {
		assert_int_equal(s.classes[c].size, sizes[c]);
		assert_int_equal(s.classes[c].ready, counts[c]);
	}
	assert_int_equal(s.committed_bytes, 7 * 8192 + 2 * 40960 + 8388608);
	bufpool_destroy(p);
}

static void
refuses_classes_that_cannot_be(void **state)
{
	struct bufpool_class_config many[BUFPOOL_CLASSES_MAX + 1];
	const struct bufpool_class_config wrong[][3] = {
		{ { 4096, 1 }, { 0, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 4097, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 2048, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 8192, 1 }, { 8192, 2 } },
		{ { 8192, 1 }, { 4096, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { SIZE_MAX - 4095, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { ((size_t)1 << 40) + 4096, 0 }, { 8192, 1 } },
		{ { 4096, 1 }, { 8192, SIZE_MAX }, { 12288, 1 } },
		{ { 4096, 1 }, { 8192, ((size_t)1 << 20) + 1 }, { 12288, 1 } },
	};
	struct bufpool *p;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		errno = 0;
		assert_null(own_classes(wrong[i], 3));
		assert_int_equal(errno, EINVAL);
	}
	for (size_t i = 0; i < BUFPOOL_CLASSES_MAX + 1; i++)
		many[i] = (struct bufpool_class_config){ (i + 1) * 4096, 0 };
	errno = 0;
	assert_null(own_classes(many, BUFPOOL_CLASSES_MAX + 1));
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(own_classes(NULL, 1));
	assert_int_equal(errno, EINVAL);
	p = own_classes(many, BUFPOOL_CLASSES_MAX);
	assert_non_null(p);
	assert_int_equal(stats_of(p).class_count, BUFPOOL_CLASSES_MAX);
	bufpool_destroy(p);
}

static uint64_t seed;		/* printed when a test fails */

static size_t
below(size_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

/* The oracle: looks at every class. 0 for a size above all of them. */
static size_t
expected_capacity(const struct bufpool_class_config *classes, size_t count,
		  size_t n)
{
	size_t best = 0;

	for (size_t i = 0; i < count; i++)
		if (classes[i].size >= n &&
		    (best == 0 || classes[i].size < best))
			best = classes[i].size;
	return best;
}

static size_t
some_classes(struct bufpool_class_config *classes)
{
	size_t count = 1 + below(BUFPOOL_CLASSES_MAX);

	for (size_t i = 0; i < count;) {
		size_t size = (1 + below((size_t)1 << below(13))) * 4096;
		size_t j = 0;

		while (j < i && classes[j].size != size)
			j++;
		if (j == i)
			classes[i++] = (struct bufpool_class_config){
				size, below(3)
			};
		else
			count--;
	}
	return count;
}

static void
each_size_goes_to_the_class_that_an_oracle_names(void **state)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	uint64_t start = seed;

	(void)state;
	for (int round = 0; round < 300; round++) {
		size_t count = some_classes(classes);
		struct bufpool *p = own_classes(classes, count);

		assert_non_null(p);
		for (int i = 0; i < 100; i++) {
			size_t near = classes[below(count)].size;
			size_t n = i % 2 ? near - 2 + below(5)
					 : below((size_t)1 << below(26));
			size_t want = expected_capacity(classes, count, n);
			struct bufpool_buf *b = bufpool_checkout(p, n);

			assert_non_null(b);
			if (want == 0 ? !holds_large(b, n)
				      : bufpool_capacity(b) != want)
				fail_msg("CLASSES_SEED=%llu: %zu bytes are in "
					 "%zu, not %zu",
					 (unsigned long long)start, n,
					 bufpool_capacity(b), want);
			bufpool_release(b);
			if (i % 10 == 0)
				bufpool_trim(p);
		}
		assert_conserved(p);
		bufpool_destroy(p);
	}
}

int
main(void)
{
	const char *given = getenv("CLASSES_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_the_smallest_class_that_holds_it),
		cmocka_unit_test(has_classes_of_its_own),
		cmocka_unit_test(refuses_classes_that_cannot_be),
		cmocka_unit_test(
		    each_size_goes_to_the_class_that_an_oracle_names),
	};

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) | 1;
	return cmocka_run_group_tests_name("classes", tests, NULL, NULL);
}
