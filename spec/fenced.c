/*
 * The core works without membarrier(2), which some containers forbid: shelves
 * then stay shut, and every checkout and release takes the slow paths. This
 * program forbids itself the call, by a filter that exec keeps, and runs other
 * programs, one after the other.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include <cmocka.h>

#include "support/needs.h"
#include "support/process.h"

static char directory[4096];

static int
forbid_membarrier(void **state)
{
	(void)state;
	forbid(SYS_membarrier, ENOSYS);
	return 0;
}

/* The output is shown only on failure, so that no test is counted twice. */
static void
run(const char *name)
{
	char path[sizeof directory + 16], line[1024];
	FILE *said = tmpfile();
	int status = -1;
	pid_t child;

	needs_filters();
	assert_non_null(said);
	snprintf(path, sizeof path, "%s/%s", directory, name);
	child = fork();
	if (child == 0) {
		dup2(fileno(said), STDOUT_FILENO);
		dup2(fileno(said), STDERR_FILENO);
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	rewind(said);
	while (status != 0 && fgets(line, sizeof line, said) != NULL)
		fprintf(stderr, "%s: %s", name, line);
	fclose(said);
	assert_int_equal(status, 0);
}

static void
membarrier_is_forbidden_indeed(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0),
			 -1);
	assert_int_equal(errno, ENOSYS);
}

static void
the_core_does_all_it_does_with_it(void **state)
{
	static const char *const core[] = {
		"buffer", "cache", "checkout", "classes", "limits", "pages",
		"pool", "stats", "trim", "wipe",
	};

	(void)state;
	for (size_t i = 0; i < sizeof core / sizeof *core; i++)
		run(core[i]);
}

static void
no_thread_waits_for_another(void **state)
{
	(void)state;
	run("progress");
}

static void
no_buffer_is_in_two_hands(void **state)
{
	(void)state;
	setenv("STRESS_OPS", "2000000", 1);
	run("stress");
}

static void
a_fork_child_may_use_the_pool(void **state)
{
	(void)state;
	setenv("FORKS", "100", 1);
	run("fork");
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(membarrier_is_forbidden_indeed),
		cmocka_unit_test(the_core_does_all_it_does_with_it),
		cmocka_unit_test(no_thread_waits_for_another),
		cmocka_unit_test(no_buffer_is_in_two_hands),
		cmocka_unit_test(a_fork_child_may_use_the_pool),
	};

	snprintf(directory, sizeof directory, "%s", argc > 0 ? argv[0] : "");
	if (strrchr(directory, '/') != NULL)
		*strrchr(directory, '/') = '\0';
	return cmocka_run_group_tests(tests, forbid_membarrier, NULL);
}
