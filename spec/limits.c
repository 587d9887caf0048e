/*
 * A checkout fails when max_bytes is reached or the system has no memory. After
 * a release it succeeds again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/pool.h"

static void
recovers_when_max_bytes_is_reached(void **state)
{
	struct bufpool *p = new_pool(0, 0, 3 * 65536);
	struct bufpool_buf *held[3], *small;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, EDQUOT);
	assert_null(bufpool_checkout(p, 5000000));
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_resize(held[0], 70000), -1);
	assert_int_equal(errno, EDQUOT);
	bufpool_release(held[0]);
	/* The idle buffer is given up for one of another class. */
	assert_non_null(small = bufpool_checkout(p, 1));
	assert_int_equal(stats_of(p).committed_bytes, 2 * 65536 + 4096);
	bufpool_release(held[1]);
	bufpool_release(held[2]);
	bufpool_release(small);
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	for (size_t i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
out_of_memory_is_an_error_and_passes(void **state)
{
	struct rlimit old, tight;
	struct bufpool *p = new_pool(1, 0, 0);
	struct bufpool_buf *held[64], *b;
	size_t n = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	unsigned long pages;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();	/* a sanitizer maps more than any such limit */
#endif
	assert_int_equal(fscanf(statm, "%lu", &pages), 1);
	fclose(statm);
	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = pages * 4096 + ((size_t)20 << 20);
	setrlimit(RLIMIT_AS, &tight);
	while (n < 64 && (held[n] = bufpool_checkout(p, 1048576)) != NULL)
		n++;
	assert_true(n > 0 && n < 64);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_resize(held[0], 40000000), -1);
	assert_int_equal(errno, ENOMEM);
	bufpool_release(held[--n]);
	assert_non_null(b = bufpool_checkout(p, 1048576));
	setrlimit(RLIMIT_AS, &old);
	bufpool_release(b);
	while (n > 0)
		bufpool_release(held[--n]);
	assert_conserved(p);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(recovers_when_max_bytes_is_reached),
		cmocka_unit_test(out_of_memory_is_an_error_and_passes),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
