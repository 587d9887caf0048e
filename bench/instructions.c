/*
 * Counts the instructions of the fast path: one thread checks a 4 KiB buffer
 * out and releases it, ROUNDS times, and writes nothing.
 *
 *   instructions ROUNDS
 *
 * Callgrind runs this program and counts the instructions of one function and
 * of what it calls (--toggle-collect). The first rounds take slow paths. Two
 * runs of different length both contain them, so the difference of the runs
 * does not.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bufpool.h"

int
main(int argc, char **argv)
{
	long rounds = argc == 2 ? atol(argv[1]) : 0;
	struct bufpool *pool = bufpool_create(NULL);

	if (rounds <= 0 || pool == NULL) {
		fputs("usage: instructions ROUNDS\n", stderr);
		return 1;
	}
	while (rounds-- > 0) {
		struct bufpool_buf *b = bufpool_checkout(pool, 4096);

		if (b == NULL)
			return 1;
		bufpool_release(b);
	}
	bufpool_destroy(pool);
	return 0;
}
