/*
 * Stands in for cmocka where no package of it is: for another C library, for
 * another processor. Holds what our specs use of it, and says what cmocka says,
 * for .ci/test reads that.
 */
#ifndef PORTABLE_CMOCKA_H
#define PORTABLE_CMOCKA_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
	const char *name;
	void (*test_func)(void **state);
	int (*setup_func)(void **state), (*teardown_func)(void **state);
	void *initial_state;
};

enum portable_end { PORTABLE_FAILED = 1, PORTABLE_SKIPPED };

static jmp_buf portable_return;

#define portable_fail(...)                                                \
	(fprintf(stderr, __VA_ARGS__),                                    \
	 fprintf(stderr, "\n[   LINE   ] --- %s:%d: error: Failure!\n",   \
		 __FILE__, __LINE__),                                     \
	 longjmp(portable_return, PORTABLE_FAILED))

#define portable_check(what) \
	((what) ? (void)0 : portable_fail("%s", #what))

/* As cmocka does, which compares integers and pointers as the widest there is,
 * whatever their signs. */
#define portable_number(x) ((uintmax_t)(x))
#define portable_equal(a, b)                                             \
	(portable_number(a) == portable_number(b) ? (void)0 :            \
	 portable_fail("%s is %#jx, %s is %#jx", #a, portable_number(a), \
		       #b, portable_number(b)))

#define assert_true(what) portable_check(what)
#define assert_false(what) portable_check(!(what))
#define assert_null(p) portable_check((p) == NULL)
#define assert_non_null(p) portable_check((p) != NULL)
#define assert_int_equal(a, b) portable_equal(a, b)
#define assert_int_not_equal(a, b) portable_check((a) != (b))
#define assert_ptr_equal(a, b) portable_check((a) == (b))
#define assert_memory_equal(a, b, n) portable_check(memcmp(a, b, n) == 0)
#define assert_string_equal(a, b) portable_check(strcmp(a, b) == 0)
#define assert_string_not_equal(a, b) portable_check(strcmp(a, b) != 0)
#define assert_ptr_not_equal(a, b) portable_check((a) != (b))
#define assert_in_range(x, least, most)                         \
	portable_check(portable_within(portable_number(x),      \
				       portable_number(least),  \
				       portable_number(most)))

#define fail_msg(...) portable_fail(__VA_ARGS__)
#define skip() longjmp(portable_return, PORTABLE_SKIPPED)
#define print_message(...) printf(__VA_ARGS__)
#define print_error(...) fprintf(stderr, __VA_ARGS__)

#define cmocka_unit_test(f) { #f, f, NULL, NULL, NULL }
#define cmocka_unit_test_setup_teardown(f, setup, teardown) \
	{ #f, f, setup, teardown, NULL }

static inline int
portable_within(uintmax_t x, uintmax_t least, uintmax_t most)
{
	return x >= least && x <= most;
}

static inline int
portable_run_one(const struct CMUnitTest *t)
{
	void *state = t->initial_state;
	int end = setjmp(portable_return);

	if (end != 0)
		return end;
	if (t->setup_func != NULL && t->setup_func(&state) != 0)
		return PORTABLE_FAILED;
	t->test_func(&state);
	return t->teardown_func != NULL && t->teardown_func(&state) != 0 ?
		       PORTABLE_FAILED : 0;
}

/* A test that fails or is skipped leaves its teardown out. */
static inline int
portable_run(const struct CMUnitTest *tests, size_t count,
	     int (*setup)(void **), int (*teardown)(void **))
{
	static const char *const words[] = { "      OK", "FAILED  ",
					     "SKIPPED " };
	size_t ends[3] = { 0 };
	void *state = NULL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (setup != NULL && setup(&state) != 0) {
		printf("[  FAILED  ] 1 test(s): the setup of all\n");
		return 1;
	}
	for (size_t i = 0; i < count; i++) {
		int end;

		printf("[ RUN      ] %s\n", tests[i].name);
		end = portable_run_one(&tests[i]);
		printf("[ %-8s ] %s\n", words[end], tests[i].name);
		ends[end]++;
	}
	if (teardown != NULL)
		teardown(&state);
	printf("[  PASSED  ] %zu test(s).\n", ends[0]);
	if (ends[PORTABLE_SKIPPED] > 0)
		printf("[  SKIPPED ] %zu test(s)\n", ends[PORTABLE_SKIPPED]);
	if (ends[PORTABLE_FAILED] > 0)
		printf("[  FAILED  ] %zu test(s)\n", ends[PORTABLE_FAILED]);
	return (int)ends[PORTABLE_FAILED];
}

#define cmocka_run_group_tests(tests, setup, teardown) \
	portable_run(tests, sizeof (tests) / sizeof *(tests), setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
	cmocka_run_group_tests(tests, setup, teardown)

#endif
