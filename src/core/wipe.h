/*
 * wipe - zeroing that the compiler cannot drop, however dead the memory looks.
 */
#ifndef BUFPOOL_WIPE_H
#define BUFPOOL_WIPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIPE_LINE 64	/* bytes */
#define WIPE_SHORT 256	/* up to here a loop is faster than a call */

static inline void
wipe(void *p, size_t n)
{
	memset(p, 0, n);
	/* Tells the compiler that someone reads what memset wrote. */
	__asm__ volatile("" : : "r"(p) : "memory");
}

/* The same for memory that is aligned to lines and made of whole ones: may
 * write to the end of the line. */
static inline void
wipe_lines(void *p, size_t n)
{
	typedef uint64_t half_line __attribute__((vector_size(WIPE_LINE / 2),
						  may_alias));
	half_line *line = p;

	if (n > WIPE_SHORT) {
		wipe(p, n);
		return;
	}
	for (size_t i = 0; i < n; i += WIPE_LINE, line += 2)
		line[0] = line[1] = (half_line){ 0 };
	__asm__ volatile("" : : "r"(p) : "memory");
}

#endif
