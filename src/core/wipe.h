/*
 * wipe - zeroing that the compiler cannot drop, however dead the memory looks.
 *
 * Programs mostly write a buffer from its beginning on. When it is about as
 * large as the second cache, its end is still in there when it comes home, and
 * wiping it from the beginning pushes that end out before it is reached. So
 * such a buffer is wiped from its end, in steps. doc/performance.md has the
 * figures.
 */
#ifndef BUFPOOL_WIPE_H
#define BUFPOOL_WIPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIPE_LINE 64	/* bytes */
#define WIPE_SHORT 256	/* up to here a loop is faster than a call */

/* What is wiped from its end: from..from + range - 1 bytes. */
struct wipe_window {
	size_t from, range;	/* 0: nothing is */
	size_t step;
};
extern struct wipe_window bp_wipe_window;

/* Asks the system for the size of the cache. Once, before any other thread. */
void bp_wipe_init(void);

static inline void
wipe(void *p, size_t n)
{
	memset(p, 0, n);
	/* Tells the compiler that someone reads what memset wrote. */
	__asm__ volatile("" : : "r"(p) : "memory");
}

/* The same, from the end in steps of bp_wipe_window. */
void bp_wipe_from_end(void *p, size_t n);

/* The same for memory that is aligned to lines and made of whole ones: may
 * write to the end of the line. */
static inline void
wipe_lines(void *p, size_t n)
{
	typedef uint64_t half_line __attribute__((vector_size(WIPE_LINE / 2),
						  may_alias));
	half_line *line = p;

	if (n > WIPE_SHORT) {
		if (n - bp_wipe_window.from < bp_wipe_window.range)
			bp_wipe_from_end(p, n);
		else
			wipe(p, n);
		return;
	}
	for (size_t i = 0; i < n; i += WIPE_LINE, line += 2)
		line[0] = line[1] = (half_line){ 0 };
	__asm__ volatile("" : : "r"(p) : "memory");
}

#endif
