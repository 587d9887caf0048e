/*
 * A library to start LuaJIT with (LD_PRELOAD): makes calls of bufpool's core to
 * the system fail, and no others. It tells them by the object that calls.
 *
 * FAULT_FIRST, FAULT_LAST: which of the calls fail, counted from 1 over mmap,
 * munmap, mremap, mprotect and madvise together. FAULT_COUNT: a file to write
 * the number of calls to at the end.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic long calls;
static long first, last;

__attribute__((constructor)) static void
read_environment(void)
{
	first = atol(getenv("FAULT_FIRST") ? getenv("FAULT_FIRST") : "0");
	last = atol(getenv("FAULT_LAST") ? getenv("FAULT_LAST") : "0");
}

__attribute__((destructor)) static void
write_count(void)
{
	const char *name = getenv("FAULT_COUNT");
	FILE *file = name != NULL && calls > 0 ? fopen(name, "w") : NULL;

	if (file != NULL) {
		fprintf(file, "%ld\n", calls);
		fclose(file);
	}
}

static bool
fails(const void *caller)
{
	Dl_info info;
	long n;

	if (!dladdr(caller, &info) || info.dli_fname == NULL ||
	    strstr(info.dli_fname, "bufpool/core.so") == NULL)
		return false;
	n = ++calls;
	if (n < first || n > last)
		return false;
	errno = ENOMEM;
	return true;
}

#define FAILS fails(__builtin_return_address(0))
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *
mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return FAILS ? MAP_FAILED
		     : REAL(mmap)(at, bytes, prot, flags, fd, offset);
}

int
munmap(void *at, size_t bytes)
{
	return FAILS ? -1 : REAL(munmap)(at, bytes);
}

void *
mremap(void *at, size_t bytes, size_t wanted, int flags, ...)
{
	return FAILS ? MAP_FAILED : REAL(mremap)(at, bytes, wanted, flags);
}

int
mprotect(void *at, size_t bytes, int prot)
{
	return FAILS ? -1 : REAL(mprotect)(at, bytes, prot);
}

int
madvise(void *at, size_t bytes, int advice)
{
	return FAILS ? -1 : REAL(madvise)(at, bytes, advice);
}
