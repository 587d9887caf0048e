/*
 * The fast path, in instructions: checkout and release of a 4 KiB buffer by
 * one thread that writes nothing, ROUNDS times.
 *
 *   instructions ROUNDS
 *
 * To be run by callgrind, which counts only what is inside the function that
 * it is told (--toggle-collect), callees included. What the first rounds cost
 * besides goes away in the difference of two runs of different length.
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
