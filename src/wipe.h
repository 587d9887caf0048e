/*
 * wipe - zeroing that the compiler cannot drop, however dead the memory looks.
 */
#ifndef BUFPOOL_WIPE_H
#define BUFPOOL_WIPE_H

#include <stddef.h>
#include <string.h>

static inline void
wipe(void *p, size_t n)
{
	memset(p, 0, n);
	/* Tells the compiler that someone reads what memset wrote. */
	__asm__ volatile("" : : "r"(p) : "memory");
}

#endif
