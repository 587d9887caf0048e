/*
 * The life of a pool. Configurations out of range are refused, those of older
 * callers are read. Creators of one name share one pool. A closed pool keeps
 * what is out and refuses more. A new pool takes the place of one that is gone.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "support/needs.h"
#include "support/pool.h"

static void
closing_keeps_what_is_out_and_refuses_more(void **state)
{
	struct bufpool *p = new_pool(4, 4, 0);
	struct bufpool_buf *a = bufpool_checkout(p, 100);
	struct bufpool_buf *b = bufpool_checkout(p, 100);
	struct bufpool_frozen *f;

	(void)state;
	needs_pages_of_4_kib();
	memset(bufpool_data(a), 1, 100);
	bufpool_close(p);
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, ESHUTDOWN);
	assert_null(bufpool_try_checkout(p, 1));
	assert_int_equal(errno, ESHUTDOWN);
	assert_null(bufpool_checkout(p, 2000000));
	assert_int_equal(errno, ESHUTDOWN);
	assert_int_equal(stats_of(p).committed_bytes, 2 * 4096);
	assert_int_equal(((const char *)bufpool_peek(a))[99], 1);
	bufpool_release(a);
	assert_int_equal(stats_of(p).committed_bytes, 4096);
	f = bufpool_freeze(b);
	bufpool_destroy(p);
	assert_int_equal(bufpool_frozen_len(f), 100);
	bufpool_frozen_unref(f);
}

static void
uses_the_place_of_a_pool_that_is_gone(void **state)
{
	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct bufpool *p = new_pool(2, 0, 0);
		struct bufpool_buf *b = bufpool_checkout(p, 100);

		assert_non_null(b);
		assert_all_zero(b);
		memset(bufpool_data(b), 1, 100);
		if (i % 2)
			bufpool_destroy(p);
		bufpool_release(b);
		if (i % 2 == 0)
			bufpool_destroy(p);
	}
}

/* Locked, so that the system does not give zeros. */
static void
counts_from_0_in_a_locked_place(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0), *next;
	struct bufpool_stats s;

	(void)state;
	bufpool_release(bufpool_checkout(p, 100));
	bufpool_release(bufpool_checkout(p, 2000000));
	bufpool_try_checkout(p, 3000000);
	assert_int_equal(stats_of(p).exhausted, 1);
	assert_int_equal(mlock(p, sizeof *p), 0);
	bufpool_destroy(p);
	next = new_pool(0, 0, 0);
	assert_ptr_equal(next, p);
	s = stats_of(next);
	assert_int_equal(s.hits + s.misses + s.exhausted + s.checked_out, 0);
	assert_int_equal(s.peak_checked_out + s.peak_bytes_checked_out, 0);
	assert_int_equal(s.committed_bytes + s.cached_bytes, 0);
	assert_int_equal(s.large_hits + s.large_misses + s.large_out, 0);
	munlock(next, sizeof *next);
	bufpool_destroy(next);
}

static void
shares_a_pool_by_name(void **state)
{
	struct bufpool_config config;
	struct bufpool *a, *b;

	(void)state;
	assert_null(bufpool_get("shared"));
	assert_int_equal(errno, ENOENT);
	bufpool_config_init(&config);
	config.name = "shared";
	config.four_kib_count = 5;
	config.dump = 2;	/* true, as 1 is */
	a = bufpool_create(&config);
	assert_non_null(a);
	config.dump = 1;
	assert_ptr_equal(bufpool_create(&config), a);
	assert_ptr_equal(bufpool_get("shared"), a);
	config.four_kib_count = 6;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(a);
	bufpool_destroy(a);
	bufpool_destroy(a);
	assert_null(bufpool_get("shared"));
	b = bufpool_create(&config);
	assert_non_null(b);
	bufpool_destroy(b);
	a = bufpool_default();
	b = bufpool_default();
	assert_non_null(a);
	assert_ptr_equal(a, b);
	bufpool_destroy(a);
	bufpool_destroy(b);
}

static void
refuses_a_configuration_out_of_range(void **state)
{
	struct bufpool_config config;
	char long_name[BUFPOOL_NAME_MAX + 1];

	(void)state;
	memset(long_name, 'x', BUFPOOL_NAME_MAX);
	long_name[BUFPOOL_NAME_MAX] = '\0';
	bufpool_config_init(&config);
	config.name = long_name;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.numa_node = -3;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.one_mib_count = SIZE_MAX;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.max_bytes = 100000;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EDQUOT);
}

/* A struct that was zeroed and not initialised is not ignored. */
static void
refuses_a_struct_of_no_known_size(void **state)
{
	const size_t sizes[] = { 0, 1, 8, 45, sizeof(struct bufpool_config) - 1,
				 sizeof(struct bufpool_config) + 1, 1 << 20,
				 SIZE_MAX, SIZE_MAX - 7 };
	struct bufpool_config config;

	(void)state;
	bufpool_config_init(&config);
	config.name = "of no known size";
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		config.struct_size = sizes[i];
		errno = 0;
		if (bufpool_create(&config) != NULL)
			fail_msg("%zu bytes are accepted", sizes[i]);
		assert_int_equal(errno, EINVAL);
	}
	assert_null(bufpool_get(config.name));
}

/* The caller was built after a field was added that this library lacks. */
static void
refuses_a_newer_field_that_is_set(void **state)
{
	struct { struct bufpool_config config; size_t newer[2]; } c;
	struct { struct bufpool_stats stats; size_t newer; } s;
	struct bufpool *p;

	(void)state;
	memset(&c, 0xff, sizeof c);
	bufpool_config_init_sized(&c.config, sizeof c);
	assert_non_null(p = bufpool_create(&c.config));
	memset(&s, 0xff, sizeof s);
	bufpool_get_stats_sized(p, &s.stats, sizeof s);
	assert_int_equal(s.stats.hits, 0);
	assert_int_equal(s.newer, 0);
	bufpool_destroy(p);
	c.newer[1] = 1;
	errno = 0;
	assert_null(bufpool_create(&c.config));
	assert_int_equal(errno, EINVAL);
}

/* The caller was built before max_bytes was added to the struct. */
static void
reads_and_fills_the_structs_of_older_callers(void **state)
{
	struct bufpool_config config;
	struct bufpool_stats s;
	struct bufpool *p;

	(void)state;
	memset(&config, 0xff, sizeof config);
	bufpool_config_init_sized(&config,
				  offsetof(struct bufpool_config, max_bytes));
	assert_int_equal(config.max_bytes, SIZE_MAX);
	p = bufpool_create(&config);
	assert_non_null(p);
	memset(&s, 0xff, sizeof s);
	bufpool_get_stats_sized(p, &s,
				offsetof(struct bufpool_stats, wiped_bytes));
	assert_int_equal(s.committed_bytes,
			 64 * 4096 + 8 * 65536 + 2 * 262144);
	assert_int_equal(s.wiped_bytes, UINT64_MAX);
	bufpool_destroy(p);
}

static void
a_name_stands_for_the_same_classes(void **state)
{
	struct bufpool_class_config classes[] = { { 8192, 1 }, { 4096, 3 } };
	struct bufpool_config config;
	struct bufpool *a, *b;

	(void)state;
	bufpool_config_init(&config);
	config.name = "own classes";
	config.classes = classes;
	config.class_count = 2;
	assert_non_null(a = bufpool_create(&config));
	/* Another order of the classes is no difference. */
	classes[0] = (struct bufpool_class_config){ 4096, 3 };
	classes[1] = (struct bufpool_class_config){ 8192, 1 };
	assert_ptr_equal(b = bufpool_create(&config), a);
	bufpool_destroy(b);
	classes[1].count = 2;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	classes[1] = (struct bufpool_class_config){ 12288, 1 };
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	config.class_count = 1;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	config.class_count = 0;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(a);
}

static void
a_name_stands_for_the_same_limits(void **state)
{
	struct bufpool_config config;
	struct bufpool *a, *b;

	(void)state;
	bufpool_config_init(&config);
	config.name = "limits";
	config.max_bytes = (size_t)1 << 60;
	config.ticket_ttl = 0.0001;
	assert_non_null(a = bufpool_create(&config));
	/* One millisecond, as before. */
	config.ticket_ttl = 0.0009;
	assert_ptr_equal(b = bufpool_create(&config), a);
	bufpool_destroy(b);
	config.ticket_ttl = 0.0011;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	/* A double holds no difference as small as this. */
	config.ticket_ttl = 0.0001;
	config.max_bytes++;
	errno = 0;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(closing_keeps_what_is_out_and_refuses_more),
		cmocka_unit_test(uses_the_place_of_a_pool_that_is_gone),
		cmocka_unit_test(counts_from_0_in_a_locked_place),
		cmocka_unit_test(shares_a_pool_by_name),
		cmocka_unit_test(refuses_a_configuration_out_of_range),
		cmocka_unit_test(refuses_a_struct_of_no_known_size),
		cmocka_unit_test(refuses_a_newer_field_that_is_set),
		cmocka_unit_test(reads_and_fills_the_structs_of_older_callers),
		cmocka_unit_test(a_name_stands_for_the_same_classes),
		cmocka_unit_test(a_name_stands_for_the_same_limits),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
