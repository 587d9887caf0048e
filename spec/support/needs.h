/*
 * For C specs: what a test needs of the system, and an emulator, a container or
 * a sanitizer may not have. Where it is missing, the test is skipped and says
 * so.
 */
#ifndef SPEC_NEEDS_H
#define SPEC_NEEDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static inline void
needs(bool is_there, const char *otherwise)
{
	if (is_there)
		return;
	print_message("skipped: %s\n", otherwise);
	skip();
}

/* For tests that count on a page for each buffer of 4 KiB. What holds where
 * buffers share pages is in spec/shared.c. */
static inline void
needs_pages_of_4_kib(void)
{
	needs(sysconf(_SC_PAGESIZE) == 4096, "pages are larger than 4 KiB");
}

/* Not under qemu-user, which keeps books of all pages that were ever mapped. */
static inline bool
addresses_are_free(void)
{
	size_t n = (size_t)1 << 30, before = resident_bytes();
	void *at = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED || munmap(at, n) != 0 ||
	    resident_bytes() < before + (1 << 20);
}

/* Whether what is resident is what the program has touched. It is not in a
 * program that runs inside another one, as valgrind: .ci/test has that one's
 * name in WRAP. */
static inline bool
memory_is_its_own(void)
{
	return !SANITIZED && getenv("WRAP") == NULL && addresses_are_free();
}

static inline void
needs_own_memory(void)
{
	needs(memory_is_its_own(), "an emulator or a sanitizer takes memory");
}

/* qemu-user says that it has set the limit, and has not; a sanitizer has more
 * addresses than a limit leaves. */
static inline void
needs_address_limit(void)
{
	struct rlimit old, limit;
	bool holds;

	getrlimit(RLIMIT_AS, &old);
	limit = old;
	limit.rlim_cur--;
	setrlimit(RLIMIT_AS, &limit);
	getrlimit(RLIMIT_AS, &limit);
	holds = limit.rlim_cur != old.rlim_cur;
	setrlimit(RLIMIT_AS, &old);
	needs(!SANITIZED && holds, "addresses cannot be limited");
}

/* qemu-user says that it has heeded madvise, and has not. */
static inline void
needs_advice(void)
{
	size_t n = (size_t)sysconf(_SC_PAGESIZE);
	void *at = mmap(NULL, n, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char there = 1;

	CHECK(at != MAP_FAILED, "no page");
	if (madvise(at, n, MADV_POPULATE_WRITE) == 0)
		mincore(at, n, &there);
	munmap(at, n);
	needs(there & 1, "madvise does nothing");
}

static inline void
try_to_forbid(void *arg)
{
	(void)arg;
	_exit(!forbid(SYS_acct, EPERM));
}

static inline void
needs_filters(void)
{
	needs(in_child(try_to_forbid, NULL) == 0,
	      "calls of the system cannot be forbidden");
}

#endif
