#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"

#define TEXT_MAX 4096	/* bytes of a list of groups, and of a path */
#define NUMBER_MAX 32	/* bytes of a number */

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

/* Of the group at `path`, and of all above it. A container may see its own
 * group as the root, and not find the path that it is told. */
static size_t
least_limit(const char *mount, const char *path, const char *file)
{
	int len = (int)strcspn(path, "\n");
	char name[TEXT_MAX], text[NUMBER_MAX];
	size_t least = SIZE_MAX;

	for (;; len--) {
		if (len > 0 && strchr("/\n", path[len]) == NULL)
			continue;	/* the string's end is found as well */
		snprintf(name, sizeof name, "%s%.*s/%s", mount, len, path,
			 file);
		read_text(name, text, sizeof text);
		if (read_number(text) < least)
			least = read_number(text);
		if (len == 0)
			return least;
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
static size_t
limit_of_line(const char *line)
{
	const char *names = strchr(line, ':');
	const char *path = names ? strchr(names + 1, ':') : NULL;
	size_t one, other;

	if (path == NULL)
		return SIZE_MAX;
	names++;
	path++;
	if (has_memory(names))
		return least_limit("/sys/fs/cgroup/memory", path,
				   "memory.limit_in_bytes");
	if (*names != ':')
		return SIZE_MAX;
	one = least_limit("/sys/fs/cgroup", path, "memory.max");
	other = least_limit("/sys/fs/cgroup/unified", path, "memory.max");
	return one < other ? one : other;
}

size_t
bp_cgroup_limit(void)
{
	static _Atomic size_t known;	/* 0: not yet */
	size_t least = atomic_load_explicit(&known, memory_order_relaxed);
	char text[TEXT_MAX];
	int saved = errno;

	if (least != 0)
		return least;
	least = SIZE_MAX;
	read_text("/proc/self/cgroup", text, sizeof text);
	for (const char *line = text; *line != '\0';) {
		size_t limit = limit_of_line(line);

		if (limit < least)
			least = limit;
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	if (least == 0)		/* a limit under which nobody can run */
		least = SIZE_MAX;
	atomic_store_explicit(&known, least, memory_order_relaxed);
	errno = saved;
	return least;
}
