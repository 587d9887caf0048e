#define _DEFAULT_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "pages.h"
#include "sanitize.h"

void *
bp_pages_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		return p;
	errno = ENOMEM;
	return NULL;
}

void
bp_pages_unmap(void *p, size_t bytes)
{
	int saved = errno;

	/* Others will get these addresses. */
	ASAN_UNPOISON_MEMORY_REGION(p, bytes);
	if (munmap(p, bytes) != 0)
		madvise(p, bytes, MADV_DONTNEED);
	errno = saved;
}
