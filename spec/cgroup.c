/*
 * The default of large_bytes heeds the memory limit of the control group, and
 * idle memory goes where the group is short of memory. The files that say so
 * are this program's own, and so is the clock; but in the last test the group
 * is the system's, where it lets this program make one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/cgroup.h"
#include "core/pool.h"
#include "support/clock.h"
#include "support/pool.h"
#include "support/process.h"

#define MIB ((size_t)1 << 20)
#define FILES 6

struct file {
	const char *path, *text;
};

struct system {
	struct file file[FILES];	/* all that there are */
	size_t large_bytes;		/* and what follows from them */
};

static const struct file *files;	/* NULL: the system's own */
static int opened;		/* calls */

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

	opened++;
	if (files != NULL && (strncmp(path, "/proc/", 6) == 0 ||
	    strncmp(path, "/sys/", 5) == 0))	/* not what gcov writes */
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
	{ { { "/proc/self/cgroup", "0::/\n" },
	    { "/sys/fs/cgroup/memory.max", "0\n" } }, 128 * MIB },
	{ { { "/proc/self/cgroup", "0::/\n" },
	    { "/sys/fs/cgroup/memory.max", "max\n" },
	    { "/sys/fs/cgroup/memory.high", "83886080\n" } }, 128 * MIB },
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

#define V2 "/sys/fs/cgroup/a"

struct moment {
	struct file file[FILES];
	bool is_short;
};

/* What a look finds, a second after the one before. */
static const struct moment events[] = {
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.max", "83886080\n" },
	    { V2 "/memory.events.local", "low 0\nhigh 3\nmax 7\noom 0\n" } },
	  false },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "low 9\nhigh 3\nmax 7\noom 0\n" } },
	  false },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "low 9\nhigh 3\nmax 8\noom 0\n" } },
	  true },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "low 9\nhigh 4\nmax 8\noom 0\n" } },
	  true },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "low 9\nhigh 4\nmax 8\noom 0\n" } },
	  false },
	/* a process that was moved, then one around it, an older system */
	{ { { "/proc/self/cgroup", "0::/b\n" } }, false },
	{ { { "/proc/self/cgroup", "0::/a/c\n" },
	    { V2 "/memory.events", "low 9\nhigh 1\nmax 0\noom 0\n" } }, true },
	/* a file that cannot be read, or says nothing */
	{ { { NULL, NULL } }, false },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "" } }, false },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "low 99\n" } }, false },
	/* memory that cannot be taken back fills the limit */
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "high 0\nmax 0\n" },
	    { V2 "/memory.max", "80000000\n" },
	    { V2 "/memory.current", "79000000\n" },
	    { V2 "/memory.stat", "anon 69999999\nfile 9000000\n" } }, false },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "high 0\nmax 0\n" },
	    { V2 "/memory.max", "80000000\n" },
	    { V2 "/memory.current", "79000000\n" },
	    { V2 "/memory.stat", "anon 70000000\nfile 9000000\n" } }, true },
	{ { { "/proc/self/cgroup", "0::/a\n" },
	    { V2 "/memory.events.local", "high 0\nmax 0\n" },
	    { V2 "/memory.high", "80000000\n" },
	    { V2 "/memory.max", "max\n" },
	    { V2 "/memory.current", "90000000\n" },
	    { V2 "/memory.stat", "anon 85000000\n" } }, true },
	/* version 1 */
	{ { { "/proc/self/cgroup", "4:memory:/c\n" },
	    { V1 "/c/memory.failcnt", "0\n" } }, false },
	{ { { "/proc/self/cgroup", "4:memory:/c\n" },
	    { V1 "/c/memory.failcnt", "12\n" } }, true },
	{ { { "/proc/self/cgroup", "4:memory:/c\n" },
	    { V1 "/c/memory.failcnt", "12\n" },
	    { V1 "/c" LIMIT, "80000000\n" },
	    { V1 "/c/memory.usage_in_bytes", "79000000\n" },
	    { V1 "/c/memory.stat", "cache 1\nrss 1\ntotal_rss 70000001\n" } },
	  true },
};
#define MOMENTS (sizeof events / sizeof *events)

static void
check_looks(void *arg)
{
	int64_t found = 0, before;

	(void)arg;
	files = events[0].file;
	CHECK(bp_cgroup_limit() == 80 * MIB, "limit");
	for (size_t i = 0; i < MOMENTS; i++) {
		files = events[i].file;
		before = found;
		errno = 4321;
		opened = 0;
		found = bp_cgroup_short(passed);
		CHECK(errno == 4321, "errno");
		CHECK(opened > 0, "no look");
		CHECK((found != before) == events[i].is_short,
		      "moment %zu", i);
		CHECK(found == before || found == passed, "when");
		opened = 0;
		CHECK(bp_cgroup_short(passed + 999) == found, "too soon");
		CHECK(opened == 0, "a look within a second");
		passed += 1000;
	}
	bufpool_heed_pressure(0);
	passed += 1000;
	CHECK(bp_cgroup_short(passed) == 0 && opened == 0, "off");
}

static void
memory_is_short_where_the_group_says_so(void **state)
{
	(void)state;
	assert_int_equal(in_child(check_looks, NULL), 0);
}

/* A pool's calls open no file where the group had no limit at first. */
static void
check_no_looks(void *arg)
{
	struct bufpool *p;

	(void)arg;
	files = systems[14].file;
	p = bufpool_create(NULL);
	opened = 0;
	for (int i = 0; i < 5000; i++) {
		bufpool_release(bufpool_checkout(p, 10));
		passed += 100;
	}
	CHECK(opened == 0, "%d files", opened);
	bufpool_heed_pressure(1);
	bufpool_maintain();
	CHECK(opened > 0, "no look");
}

static void
without_a_limit_there_are_no_looks(void **state)
{
	(void)state;
	assert_int_equal(in_child(check_no_looks, NULL), 0);
}

/* What the program has said before its first pool holds. */
static void
check_stays_off(void *arg)
{
	(void)arg;
	files = events[0].file;
	bufpool_heed_pressure(0);
	CHECK(bp_cgroup_limit() == 80 * MIB, "limit");
	opened = 0;
	bufpool_maintain();
	bp_cgroup_short(passed);
	CHECK(opened == 0, "a look");
}

static void
looks_that_were_switched_off_stay_off(void **state)
{
	(void)state;
	assert_int_equal(in_child(check_stays_off, NULL), 0);
}

static size_t
committed(struct bufpool *p)
{
	struct bufpool_stats s;

	bufpool_get_stats(p, &s);
	return s.committed_bytes;
}

/* `many` buffers of each kind are idle. */
static struct bufpool *
with_idle(unsigned many)
{
	static const size_t sizes[] = { 100, 60000, 1 << 20, 3 << 20 };
	struct bufpool *p = bufpool_create(NULL);
	struct bufpool_buf *held[100];

	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		for (unsigned i = 0; i < many; i++) {
			held[i] = bufpool_checkout(p, sizes[k]);
			memset(bufpool_data(held[i]), 1, sizes[k]);
		}
		for (unsigned i = 0; i < many; i++)
			bufpool_release(held[i]);
	}
	return p;
}

/* Of two pools, one of which nobody calls, all goes that is above the counts,
 * 4 MiB or one buffer in a call; without the shortage it decays, which takes
 * half a minute. The clock moves by 8 ms only, so nothing decays. */
static void
check_pressed(void *arg)
{
	size_t floor, before, most = 0;
	struct bufpool *p, *other;
	struct bufpool_stats s;
	unsigned calls = 0;

	(void)arg;
	files = events[0].file;
	p = bufpool_create(NULL);
	floor = committed(p);
	bufpool_destroy(p);
	p = with_idle(16);
	other = with_idle(16);
	bufpool_release(bufpool_checkout(p, 3 << 20));
	before = committed(p) + committed(other);
	CHECK(before > 50 * MIB, "%zu", before);
	passed += 1000;
	bufpool_maintain();	/* decays a little, as time has passed */
	files = events[2].file;
	passed += 1000;
	for (; calls < 200; calls++) {
		size_t had = committed(p) + committed(other), gone;

		bufpool_maintain();
		gone = had - committed(p) - committed(other);
		most = gone > most ? gone : most;
		passed += 8;
		if (committed(p) <= floor && committed(other) <= floor)
			break;
	}
	CHECK(calls < 60, "%u calls", calls);
	CHECK(most <= 8 * MIB, "%zu bytes in a call", most);
	bufpool_get_stats(other, &s);
	CHECK(s.pressed_bytes > 20 * MIB, "%zu", (size_t)s.pressed_bytes);
	CHECK(s.classes[0].ready + s.classes[0].cached == 64, "floor");
	/* Once for each shortage: what is idle now stays. */
	bufpool_release(bufpool_checkout(p, 3 << 20));
	before = committed(p);
	for (int i = 0; i < 20; i++)
		bufpool_maintain();
	CHECK(committed(p) == before, "pressed twice");
}

static void
a_short_group_gets_what_is_idle(void **state)
{
	(void)state;
	assert_int_equal(in_child(check_pressed, NULL), 0);
}

#define ROOM (96 * MIB)

static bool
put_text(const char *folder, const char *file, const char *text)
{
	const ssize_t len = (ssize_t)strlen(text);
	char path[512];
	int fd;
	bool done;

	snprintf(path, sizeof path, "%s/%s", folder, file);
	fd = open(path, O_WRONLY);
	done = fd >= 0 && write(fd, text, (size_t)len) == len;
	if (fd >= 0)
		close(fd);
	return done;
}

/* Makes a group of ROOM bytes below `base`, of either version. */
static bool
make_group(const char *base, char *folder, size_t size)
{
	char room[32];

	snprintf(folder, size, "%s/bufpool-spec-%d", base, (int)getpid());
	snprintf(room, sizeof room, "%zu", ROOM);
	if (mkdir(folder, 0755) != 0)
		return false;
	if (put_text(folder, "memory.max", room) ||
	    put_text(folder, "memory.limit_in_bytes", room))
		return true;
	rmdir(folder);
	return false;
}

/* The same below the group of this process. */
static bool
make_own_group(char *folder, size_t size)
{
	FILE *list = fopen("/proc/self/cgroup", "re");
	char line[256], base[320];
	bool made = false;

	while (list != NULL && !made && fgets(line, sizeof line, list)) {
		char *path = strstr(line, ":memory:");

		line[strcspn(line, "\n")] = '\0';
		snprintf(base, sizeof base, "/sys/fs/cgroup%s%s",
			 path ? "/memory" : "", path ? path + 8
			 : strncmp(line, "0::", 3) == 0 ? line + 3 : "/none");
		made = make_group(base, folder, size);
	}
	if (list != NULL)
		fclose(list);
	return made;
}

/* Idle buffers and what is allocated elsewhere do not fit together. What decays
 * in these three seconds does not suffice: without the looks the child is
 * killed. */
static void
fill_up(void *folder)
{
	static const size_t some = 26 * MIB;
	struct bufpool *p;
	size_t idle;

	if (!put_text(folder, "cgroup.procs", "0"))
		_exit(77);
	p = bufpool_create(NULL);
	CHECK(bp_cgroup_limit() <= ROOM, "limit");
	(void)bufpool_maintain();
	for (int k = 0; k < 2; k++) {
		struct bufpool_buf *held[480];
		const size_t size = k == 0 ? 65536 : MIB;
		const unsigned count = k == 0 ? 480 : 30;

		for (unsigned i = 0; i < count; i++) {
			held[i] = bufpool_checkout(p, size);
			memset(bufpool_data(held[i]), 1, size);
		}
		for (unsigned i = 0; i < count; i++)
			bufpool_release(held[i]);
	}
	idle = committed(p);
	CHECK(idle > 56 * MIB, "%zu bytes are idle", idle);
	for (size_t done = 0; done < 3 * some; done += some) {
		void *at = mmap(NULL, some, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(at != MAP_FAILED, "mmap");
		memset(at, 1, some);
		passed += 1000;
		for (int i = 0; i < 20; i++) {
			bufpool_maintain();
			passed++;
		}
	}
	CHECK(committed(p) < idle, "nothing went");
}

static void
a_process_in_a_small_group_lives_on(void **state)
{
	char folder[400];
	int status;

	(void)state;
	if (SANITIZED)
		skip();
	if (!make_own_group(folder, sizeof folder)) {
		print_message("skipped: no control group with a limit can be "
			      "made here\n");
		skip();
	}
	status = in_child(fill_up, folder);
	for (int i = 0; rmdir(folder) != 0 && i < 1000; i++)
		usleep(1000);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_is_a_part_of_the_limit),
		cmocka_unit_test(a_process_with_little_memory_keeps_little),
		cmocka_unit_test(memory_is_short_where_the_group_says_so),
		cmocka_unit_test(without_a_limit_there_are_no_looks),
		cmocka_unit_test(looks_that_were_switched_off_stay_off),
		cmocka_unit_test(a_short_group_gets_what_is_idle),
		cmocka_unit_test(a_process_in_a_small_group_lives_on),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
