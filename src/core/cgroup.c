#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "pages.h"

#define TEXT_MAX 4096	/* bytes of a list of groups, and of a path */

/* The beginning of a file as a string; "" where it cannot be read. */
static void
read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	while (fd >= 0 && len < size - 1) {
		ssize_t n = read(fd, text + len, size - 1 - len);

		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (fd >= 0)
		close(fd);
	text[len] = '\0';
}

/* "max", and what is no number at all, are no limit. */
static size_t
read_number(const char *text)
{
	size_t n = 0;

	if (*text < '0' || *text > '9')
		return SIZE_MAX;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (n > (SIZE_MAX - 9) / 10)
			return SIZE_MAX;
		n = n * 10 + (size_t)(*text - '0');
	}
	return n;
}

/* A group that memory is counted for. It is too large for a small stack. */
struct group {
	bool first;			/* of version 1 */
	char folder[TEXT_MAX];
	char path[TEXT_MAX + 64];	/* of a file in it */
	char text[TEXT_MAX];		/* what was read from that */
	char list[TEXT_MAX];		/* of the groups of the process */
};

/* Reads the beginning of a file of the group; false where it cannot. */
static bool
read_file(struct group *g, const char *file)
{
	snprintf(g->path, sizeof g->path, "%s/%s", g->folder, file);
	read_text(g->path, g->text, sizeof g->text);
	return g->text[0] != '\0';
}

static size_t
number_in(struct group *g, const char *file)
{
	read_file(g, file);
	return read_number(g->text);
}

/* The number behind a word that begins a line; 0 where there is none. */
static size_t
number_after(const char *text, const char *word)
{
	size_t len = strlen(word);

	while (text != NULL && *text != '\0') {
		if (strncmp(text, word, len) == 0) {
			size_t n = read_number(text + len);

			return n != SIZE_MAX ? n : 0;
		}
		text = strchr(text, '\n');
		text += text != NULL;
	}
	return 0;
}

typedef void group_fn(struct group *g, void *arg);

/* The group at `path`, and all above it. A container may see its own group as
 * the root, and not find the path that it is told. */
static void
each_level(struct group *g, const char *mount, const char *path,
	   group_fn *visit, void *arg)
{
	int len = (int)strcspn(path, "\n");

	len -= len == 1;	/* "/" is the mount itself */
	for (;; len--) {
		if (len > 0 && strchr("/\n", path[len]) == NULL)
			continue;	/* the string's end is found as well */
		snprintf(g->folder, sizeof g->folder, "%s%.*s", mount, len,
			 path);
		visit(g, arg);
		if (len == 0)
			return;
	}
}

/* Whether the controllers between two colons are those of memory. */
static bool
has_memory(const char *names)
{
	const char *end = strchr(names, ':'), *at;

	for (at = names; at < end; at += strcspn(at, ",:") + 1)
		if (strncmp(at, "memory", 6) == 0 &&
		    (at[6] == ',' || at[6] == ':'))
			return true;
	return false;
}

/* One line of /proc/self/cgroup is NUMBER:CONTROLLERS:PATH. */
static void
each_of_line(struct group *g, const char *line, group_fn *visit, void *arg)
{
	const char *names = strchr(line, ':');
	const char *path = names ? strchr(names + 1, ':') : NULL;

	if (path == NULL)
		return;
	names++;
	path++;
	g->first = has_memory(names);
	if (g->first)
		each_level(g, "/sys/fs/cgroup/memory", path, visit, arg);
	if (*names != ':')
		return;
	each_level(g, "/sys/fs/cgroup", path, visit, arg);
	each_level(g, "/sys/fs/cgroup/unified", path, visit, arg);
}

/* Visits the groups of the process. Keeps errno. */
static void
each_group(group_fn *visit, void *arg)
{
	int saved = errno;
	struct group *g = bp_pages_map(sizeof *g);

	if (g != NULL) {
		read_text("/proc/self/cgroup", g->list, sizeof g->list);
		for (const char *line = g->list; *line != '\0';) {
			each_of_line(g, line, visit, arg);
			line += strcspn(line, "\n");
			line += *line == '\n';
		}
		bp_pages_unmap(g, sizeof *g);
	}
	errno = saved;
}

#define LOOK_EVERY 1000		/* milliseconds */
#define NEVER INT64_MAX
#define UNDECIDED (NEVER - 1)	/* the first limit that is read decides */

static _Atomic int64_t next_look = UNDECIDED;
static _Atomic int64_t last_short;
static _Atomic uint64_t seen = UINT64_MAX;	/* nothing yet */

struct limits {
	size_t most, high;	/* bytes; SIZE_MAX: none */
};

/* Version 1 has a number where there is no limit, too. */
static void
find_limits(struct group *g, void *arg)
{
	const size_t none = SIZE_MAX >> 2;
	struct limits *l = arg;
	size_t most = number_in(g, g->first ? "memory.limit_in_bytes"
				: "memory.max");
	size_t high = g->first ? SIZE_MAX : number_in(g, "memory.high");

	if (most < l->most && most < none)
		l->most = most;
	if (high < l->high)
		l->high = high;
}

size_t
bp_cgroup_limit(void)
{
	static _Atomic size_t known;	/* 0: not yet */
	size_t least = atomic_load_explicit(&known, memory_order_relaxed);
	int64_t undecided = UNDECIDED;
	struct limits l = { SIZE_MAX, SIZE_MAX };

	if (least != 0)
		return least;
	each_group(find_limits, &l);
	least = l.most;
	if (least == 0)		/* a limit under which nobody can run */
		least = SIZE_MAX;
	atomic_store_explicit(&known, least, memory_order_relaxed);
	if (least != SIZE_MAX || l.high != SIZE_MAX)
		atomic_compare_exchange_strong(&next_look, &undecided, 0);
	return least;
}

/* What the files of all groups say. */
struct signs {
	bool full;		/* 7/8 of a limit is memory that only a swap
				 * or its process can give back */
	uint64_t events;	/* how often a limit was met, ever since */
};

static bool
is_full(size_t used, size_t limit)
{
	return limit != SIZE_MAX && used >= limit - limit / 8;
}

/* memory.stat is read only where it matters, because that takes longer. */
static void
find_full(struct group *g, struct signs *s, size_t limit, const char *usage,
	  const char *word)
{
	if (is_full(number_in(g, usage), limit) &&
	    read_file(g, "memory.stat") &&
	    is_full(number_after(g->text, word), limit))
		s->full = true;
}

static void
find_signs_first(struct group *g, struct signs *s)
{
	if (!read_file(g, "memory.failcnt"))
		return;
	s->events += read_number(g->text);
	find_full(g, s, number_in(g, "memory.limit_in_bytes"),
		  "memory.usage_in_bytes", "total_rss ");
}

static void
find_signs(struct group *g, void *arg)
{
	struct signs *s = arg;
	size_t limit, high;

	if (g->first) {
		find_signs_first(g, s);
		return;
	}
	/* memory.events counts what happens in the groups below, too, and so
	 * in those of others. It is for systems without the other file. */
	if (!read_file(g, "memory.events.local") &&
	    !read_file(g, "memory.events"))
		return;
	s->events += number_after(g->text, "high ");
	s->events += number_after(g->text, "max ");
	limit = number_in(g, "memory.max");
	high = number_in(g, "memory.high");
	find_full(g, s, high < limit ? high : limit, "memory.current",
		  "anon ");
}

static bool
is_short(void)
{
	struct signs s = { .events = 0 };

	each_group(find_signs, &s);
	return s.events > atomic_exchange(&seen, s.events) || s.full;
}

/* The thread whose exchange moves next_look on does the work. */
int64_t
bp_cgroup_short(int64_t now)
{
	int64_t next = atomic_load_explicit(&next_look, memory_order_relaxed);

	if (now >= next &&
	    atomic_compare_exchange_strong(&next_look, &next,
					   now + LOOK_EVERY) && is_short())
		atomic_store(&last_short, now);
	return atomic_load_explicit(&last_short, memory_order_relaxed);
}

void
bp_cgroup_heed(bool on)
{
	atomic_store(&next_look, on ? 0 : NEVER);
	if (!on)
		atomic_store(&last_short, 0);
	atomic_store(&seen, UINT64_MAX);
}
