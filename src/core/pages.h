/*
 * pages - maps memory of the system and unmaps it: spans of buffers, and what
 * the library needs for itself.
 */
#ifndef BUFPOOL_PAGES_H
#define BUFPOOL_PAGES_H

#include <stddef.h>

/* Zeroed memory straight from the system, in whole pages; NULL + ENOMEM. No
 * page has memory behind it before it is used. */
void *bp_pages_map(size_t bytes);

/* The same with that access (PROT_), at a multiple of `alignment`, which is 0
 * or above a page, and with `edge` bytes more on either side. */
void *bp_pages_map_aligned(size_t bytes, size_t alignment, size_t edge,
			   int access);

/* Gives it back. Where the system refuses, at its limit of mappings, the pages
 * lose their memory and the address range is lost. Keeps errno. */
void bp_pages_unmap(void *p, size_t bytes);

#endif
