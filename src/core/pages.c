#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "pages.h"
#include "sanitize.h"

void *
bp_pages_map(size_t bytes)
{
	return bp_pages_map_aligned(bytes, 0, 0, PROT_READ | PROT_WRITE);
}

/* Maps more, then cuts. */
void *
bp_pages_map_aligned(size_t bytes, size_t alignment, size_t edge, int access)
{
	size_t all = edge + bytes + edge + alignment;
	uint8_t *base = mmap(NULL, all, access, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0), *at, *end;

	if (base == MAP_FAILED) {
		errno = ENOMEM;
		return NULL;
	}
	at = base + edge;
	if (alignment != 0)
		at = (uint8_t *)(((uintptr_t)at + alignment - 1) &
				 ~(uintptr_t)(alignment - 1));
	end = at + bytes + edge;
	if (at - edge > base)
		bp_pages_unmap(base, (size_t)(at - edge - base));
	if (end < base + all)
		bp_pages_unmap(end, (size_t)(base + all - end));
	return at;
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
