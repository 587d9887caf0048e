/*
 * The default of large_bytes heeds the memory limit of the control group. The
 * files that say so are this program's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "support/pool.h"
#include "support/process.h"

#define MIB ((size_t)1 << 20)
#define FILES 4

struct file {
	const char *path, *text;
};

struct system {
	struct file file[FILES];	/* all that there are */
	size_t large_bytes;		/* and what follows from them */
};

static const struct file *files;	/* NULL: the system's own */

static int
open_own(const char *path)
{
	for (int i = 0; i < FILES && files[i].path != NULL; i++) {
		size_t len = strlen(files[i].text);
		int fd;

		if (strcmp(files[i].path, path) != 0)
			continue;
		fd = memfd_create("file", MFD_CLOEXEC);
		CHECK(write(fd, files[i].text, len) == (ssize_t)len, "write");
		lseek(fd, 0, SEEK_SET);
		return fd;
	}
	errno = ENOENT;
	return -1;
}

__attribute__((visibility("default"))) int
open(const char *path, int flags, ...)
{
	static int (*real)(const char *, int, ...);
	va_list all;
	int mode;

	if (files != NULL)
		return open_own(path);
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "open");
	va_start(all, flags);
	mode = flags & O_CREAT ? va_arg(all, int) : 0;
	va_end(all);
	return real(path, flags, mode);
}

#define V1 "/sys/fs/cgroup/memory"
#define LIMIT "/memory.limit_in_bytes"

static const struct system systems[] = {
	{ { { NULL, NULL } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "" } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "no list" } }, 128 * MIB },
	/* version 2 */
	{ { { "/proc/self/cgroup", "0::/a/b\n" },
	    { "/sys/fs/cgroup/a/b/memory.max", "max\n" },
	    { "/sys/fs/cgroup/a/memory.max", "max\n" } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "0::/a/b\n" },
	    { "/sys/fs/cgroup/a/b/memory.max", "167772160\n" } }, 20 * MIB },
	{ { { "/proc/self/cgroup", "0::/a/b\n" },
	    { "/sys/fs/cgroup/a/b/memory.max", "max\n" },
	    { "/sys/fs/cgroup/a/memory.max", "83886080" } }, 10 * MIB },
	{ { { "/proc/self/cgroup", "0::/a/b" },
	    { "/sys/fs/cgroup/a/b/memory.max", "83886080\n" },
	    { "/sys/fs/cgroup/a/memory.max", "167772160\n" } }, 10 * MIB },
	{ { { "/proc/self/cgroup", "0::/\n" },
	    { "/sys/fs/cgroup/memory.max", "83886080\n" } }, 10 * MIB },
	/* version 1, and both; a container that is not told its own path */
	{ { { "/proc/self/cgroup", "9:cpu:/x\n4:memory:/c/d:e\n0::/\n" },
	    { V1 "/c/d:e" LIMIT, "167772160\n" } }, 20 * MIB },
	{ { { "/proc/self/cgroup", "4:hugetlb,memory:/c\n" },
	    { V1 "/c" LIMIT, "167772160\n" } }, 20 * MIB },
	{ { { "/proc/self/cgroup", "4:memory:/not/there\n" },
	    { V1 LIMIT, "167772160\n" } }, 20 * MIB },
	{ { { "/proc/self/cgroup", "4:memory:/\n0::/\n" },
	    { V1 LIMIT, "9223372036854771712\n" } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "4:memory:/\n0::/\n" },
	    { V1 LIMIT, "99999999999999999999999\n" } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "4:memory:/\n0::/q\n" },
	    { V1 LIMIT, "9223372036854771712\n" },
	    { "/sys/fs/cgroup/unified/q/memory.max", "167772160\n" } },
	  20 * MIB },
	{ { { "/proc/self/cgroup", "4:memoryx,xmemory:/\n" },
	    { V1 LIMIT, "167772160\n" } }, 128 * MIB },
};
#define SYSTEMS (sizeof systems / sizeof *systems)

static void
check_default(void *arg)
{
	static const struct file none[FILES];
	const struct system *s = arg;
	struct bufpool_config config;

	for (int i = 0; i < 2; i++) {
		files = s->file;
		errno = 4321;
		bufpool_config_init(&config);
		CHECK(errno == 4321, "errno");
		CHECK(config.large_bytes == s->large_bytes,
		      "system %d: %zu bytes", (int)(s - systems),
		      config.large_bytes);
		files = none;
	}
}

static void
the_default_is_a_part_of_the_limit(void **state)
{
	(void)state;
	for (size_t i = 0; i < SYSTEMS; i++)
		assert_int_equal(in_child(check_default,
					  (void *)(uintptr_t)&systems[i]), 0);
}

/* In a group of 160 MiB. The library keeps what leaves room for 80 MiB of
 * something else. */
static void
use_much(void *arg)
{
	size_t before = resident_bytes();
	struct bufpool *p;

	files = systems[4].file;
	p = bufpool_create(NULL);
	files = NULL;
	(void)arg;
	for (size_t mib = 1; mib <= 100; mib++) {
		struct bufpool_buf *b = bufpool_checkout(p, mib * MIB);

		memset(bufpool_data(b), 1, mib * MIB);
		bufpool_release(b);
		CHECK(resident_bytes() < before + 30 * MIB, "%zu MiB stay",
		      (resident_bytes() - before) / MIB);
	}
}

static void
a_process_with_little_memory_keeps_little(void **state)
{
	(void)state;
	if (SANITIZED)
		skip();
	assert_int_equal(in_child(use_much, NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_is_a_part_of_the_limit),
		cmocka_unit_test(a_process_with_little_memory_keeps_little),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
