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
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/cgroup.h"
#include "core/pool.h"
#include "support/clock.h"
#include "support/needs.h"
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

/* Twice would be twice the work, in the most common container. */
static void
check_once(void *arg)
{
	const int list = 1, mounts = 2, limits = 2;

	(void)arg;
	files = systems[7].file;
	CHECK(bp_cgroup_limit() == 80 * MIB, "limit");
	CHECK(opened == list + mounts * limits, "%d files", opened);
}

static void
a_group_that_is_the_root_is_read_once(void **state)
{
	(void)state;
	assert_int_equal(in_child(check_once, NULL), 0);
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
	needs_own_memory();
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

#define ROOM (144 * MIB)

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

/* What a process is told and sees of its group: all, as on a host; the group as
 * the root of all, by a namespace; its whole path, but only the group itself
 * where the root should be, as in containers without such a namespace. */
enum view { HOST, NAMESPACE, PART };

/* How a group of the system is limited, and what the process does about it. */
struct small {
	const char *limits[2];	/* files; the first that is there gets ROOM */
	bool around;		/* the process is in a group of this group */
	bool heeds;
	enum view view;
	const char *mount;	/* which the group was found below */
	char outer[400], inner[448];
};

/* Makes the group below `path`. What is swapped out is limited as well. */
static bool
make_group(struct small *s, const char *path)
{
	char room[32];

	snprintf(s->outer, sizeof s->outer, "%s%s/bufpool-spec-%d", s->mount,
		 path, (int)getpid());
	snprintf(s->inner, sizeof s->inner, "%s%s", s->outer,
		 s->around ? "/inner" : "");
	snprintf(room, sizeof room, "%zu", ROOM);
	if (mkdir(s->outer, 0755) != 0)
		return false;
	if ((put_text(s->outer, s->limits[0], room) ||
	     put_text(s->outer, s->limits[1], room)) &&
	    (!s->around || mkdir(s->inner, 0755) == 0)) {
		put_text(s->outer, "memory.swap.max", "0");
		put_text(s->outer, "memory.memsw.limit_in_bytes", room);
		if (s->around)
			put_text(s->outer, "cgroup.subtree_control", "+memory");
		return true;
	}
	rmdir(s->outer);
	return false;
}

/* The same below the group of a line of /proc/self/cgroup, or beside it: of
 * version 2, a group with processes has no limited groups in it. */
static bool
make_near_group(struct small *s, char *line)
{
	static const char *const mounts[] = { "/sys/fs/cgroup",
					      "/sys/fs/cgroup/unified" };
	char *path = strstr(line, ":memory:");

	line[strcspn(line, "\n")] = '\0';
	if (path == NULL && strncmp(line, "0::", 3) != 0)
		return false;
	for (int i = 0; i < 2; i++) {
		char *at = path != NULL ? path + 8 : line + 3;

		s->mount = path != NULL ? "/sys/fs/cgroup/memory" : mounts[i];
		if (make_group(s, at))
			return true;
		*strrchr(at, '/') = '\0';
		if (make_group(s, at))
			return true;
		*strchr(at, '\0') = '/';
	}
	return false;
}

static bool
make_own_group(struct small *s)
{
	FILE *list = fopen("/proc/self/cgroup", "re");
	char line[256];
	bool made = false;

	while (list != NULL && !made && fgets(line, sizeof line, list))
		made = make_near_group(s, line);
	if (list != NULL)
		fclose(list);
	return made;
}

/* Into the group, which then is all that is to be seen unless on a host. */
static bool
enter(const struct small *s)
{
	const int name = s->view == NAMESPACE ? CLONE_NEWCGROUP : 0;

	if (!put_text(s->inner, "cgroup.procs", "0"))
		return false;
	return s->view == HOST ||
		(unshare(CLONE_NEWNS | name) == 0 &&
		 mount("", "/", "", MS_REC | MS_PRIVATE, NULL) == 0 &&
		 mount(s->inner, s->mount, "", MS_BIND, NULL) == 0);
}

/* As many idle buffers as fit into what is ready of three classes. */
static struct bufpool *
with_much_idle(void)
{
	struct bufpool *p = bufpool_create(NULL);

	CHECK(bufpool_maintain() >= 0, "maintain");
	for (size_t size = 65536; size <= MIB; size *= 4) {
		struct bufpool_buf *held[480];
		const size_t count = 30 * MIB / size;

		for (size_t i = 0; i < count; i++) {
			held[i] = bufpool_checkout(p, size);
			memset(bufpool_data(held[i]), 1, size);
		}
		for (size_t i = 0; i < count; i++)
			bufpool_release(held[i]);
	}
	return p;
}

/* How often the kernel has found the group above memory.high; 0 of version 1,
 * which has no such file. */
static unsigned
times_above(int folder)
{
	char text[512] = "";
	const char *at;
	unsigned times = 0;
	int fd = openat(folder, "memory.events", O_RDONLY);

	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 &&
	    (at = strstr(text, "high ")) != NULL)
		sscanf(at, "high %u", &times);
	if (fd >= 0)
		close(fd);
	return times;
}

/* The kernel adds up what groups below a group have only every two seconds. */
static void
wait_for_count(int folder)
{
	for (int i = 0; i < 100; i++) {
		char text[8192] = "", *at;
		int fd = openat(folder, "memory.stat", O_RDONLY);
		size_t bytes = 0;

		if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 &&
		    ((at = strstr(text, "total_rss ")) != NULL ||
		     (at = strstr(text, "anon ")) != NULL))
			sscanf(at, "%*s %zu", &bytes);
		if (fd >= 0)
			close(fd);
		if (bytes >= ROOM - ROOM / 8)
			return;
		usleep(100000);
	}
}

/* Huge pages that nobody asked for stay as a whole in the group's count while a
 * part of them is in use. Where pages are larger than 4 KiB, they have 32 MiB
 * and more, and then what a pool gives back comes to nothing. */
static void
forbid_vast_pages(void)
{
	if (in_pages(0) > 4096)
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

/* Idle buffers and what is allocated elsewhere do not fit together. What decays
 * in these three seconds does not suffice. The first step comes close to the
 * limit, the others would exceed it. */
static void
fill_up(void *arg)
{
	const struct small *s = arg;
	const int folder = open(s->outer, O_RDONLY | O_DIRECTORY);
	struct bufpool *p;
	size_t idle;

	if (!enter(s))
		_exit(77);
	forbid_vast_pages();
	if (!s->heeds)
		bufpool_heed_pressure(0);
	p = with_much_idle();
	idle = committed(p);
	CHECK(idle > 86 * MIB, "%zu bytes are idle", idle);
	for (int step = 0; step < 3; step++) {
		const size_t some = (step == 0 ? 46 : 38) * MIB;
		void *at = mmap(NULL, some, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(at != MAP_FAILED, "mmap");
		memset(at, 1, some);
		if (step == 0)
			wait_for_count(folder);
		passed += 1000;
		for (int i = 0; i < 20; i++) {
			bufpool_maintain();
			passed++;
		}
		CHECK(!s->heeds || committed(p) < idle / 4, "%zu bytes stay",
		      committed(p));
	}
	CHECK(times_above(folder) == 0, "it was throttled");
}

/* Runs fill_up in such a group, and returns its status. */
static int
fill_up_small(struct small *s)
{
	int status;

	needs_own_memory();
	if (!make_own_group(s)) {
		print_message("skipped: no control group with a limit of "
			      "%s can be made here\n", s->limits[0]);
		skip();
	}
	status = in_child(fill_up, s);
	for (int i = 0; i < 1000; i++) {
		if (s->around)
			rmdir(s->inner);
		if (rmdir(s->outer) == 0)
			break;
		usleep(1000);
	}
	needs(!WIFEXITED(status) || WEXITSTATUS(status) != 77,
	      "no group can be entered like that");
	return status;
}

#define HARD { "memory.max", "memory.limit_in_bytes" }

static void
a_process_in_a_small_group_lives_on(void **state)
{
	struct small s = { .limits = HARD, .heeds = true };

	(void)state;
	assert_int_equal(fill_up_small(&s), 0);
}

static void
a_process_that_heeds_nothing_is_killed(void **state)
{
	struct small s = { .limits = HARD };

	(void)state;
	assert_int_equal(fill_up_small(&s), SIGKILL);
}

static void
a_process_in_a_group_of_a_small_group_lives_on(void **state)
{
	struct small s = { .limits = HARD, .around = true, .heeds = true };

	(void)state;
	assert_int_equal(fill_up_small(&s), 0);
}

static void
a_process_that_sees_its_group_as_the_root_lives_on(void **state)
{
	struct small s = { .limits = HARD, .heeds = true, .view = NAMESPACE };

	(void)state;
	assert_int_equal(fill_up_small(&s), 0);
}

static void
a_process_that_sees_no_other_group_lives_on(void **state)
{
	struct small s = { .limits = HARD, .heeds = true, .view = PART };

	(void)state;
	assert_int_equal(fill_up_small(&s), 0);
}

static void
a_process_with_a_high_mark_is_not_throttled(void **state)
{
	struct small s = { .limits = { "memory.high", "memory.high" },
			   .heeds = true };

	(void)state;
	assert_int_equal(fill_up_small(&s), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_is_a_part_of_the_limit),
		cmocka_unit_test(a_group_that_is_the_root_is_read_once),
		cmocka_unit_test(a_process_with_little_memory_keeps_little),
		cmocka_unit_test(memory_is_short_where_the_group_says_so),
		cmocka_unit_test(without_a_limit_there_are_no_looks),
		cmocka_unit_test(looks_that_were_switched_off_stay_off),
		cmocka_unit_test(a_short_group_gets_what_is_idle),
		cmocka_unit_test(a_process_in_a_small_group_lives_on),
		cmocka_unit_test(a_process_that_heeds_nothing_is_killed),
		cmocka_unit_test(
			a_process_in_a_group_of_a_small_group_lives_on),
		cmocka_unit_test(
			a_process_that_sees_its_group_as_the_root_lives_on),
		cmocka_unit_test(a_process_that_sees_no_other_group_lives_on),
		cmocka_unit_test(a_process_with_a_high_mark_is_not_throttled),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
