/*
 * large - buffers above the largest class, kept for the next when they come
 * home.
 *
 * Each is a mapping of its own. A mapping that comes home is wiped and waits in
 * a bin with others of nearly its size: eight bins to a power of two, so that
 * the largest of a bin is at most 1/8 larger than the smallest. A request is
 * served by
 *
 *      a mapping of its bin, made larger where it is too small
 *      one of the next seven bins, smallest first: at most twice the request
 *      one of a smaller bin, of half the size at least, made larger
 *      fresh memory
 *
 * To make a mapping larger is to move its pages to a larger range of addresses
 * (mremap): no byte is copied. What grows may take any larger mapping instead:
 * it is going to need it. Its capacity is what was asked for nevertheless, and
 * rises without a system call as it grows.
 *
 * Where max_bytes limits the pool, nobody gets more memory than was asked for:
 * what a mapping has beyond that goes back to the system. What grows takes none
 * that is kept. It gets a range of addresses to grow into, which takes no
 * memory before, and is cut off when it comes home.
 *
 * Bins are Treiber stacks, and so nobody waits. The bytes that are kept have a
 * limit; above it the largest mappings go back to the system first.
 */
#ifndef BUFPOOL_LARGE_H
#define BUFPOOL_LARGE_H

#include "arena.h"

#define LARGE_STEPS 8		/* bins to a power of two */
#define LARGE_BINS (52 * LARGE_STEPS)	/* of one node */

struct large {
	struct bufpool_arena *arena;
	size_t limit;			/* bytes kept */
	struct buf_stack *bin;		/* by node and size */
	_Atomic uint32_t closed;	/* nothing more is kept */
	_Atomic size_t kept;		/* bytes, never below what is in bins */
	_Atomic uint64_t count;		/* mappings, likewise */

	/* counters; they only rise, but for corrections after a fork */
	_Atomic uint64_t hits, misses, releases, gc_returns;
	_Atomic uint64_t bytes_taken, bytes_returned;
	_Atomic uint64_t lost;		/* to fork */

	/* what decay goes by */
	_Atomic size_t was_kept;	/* bytes */
	_Atomic uint32_t was_short;
};

/* Makes the bins, none where the limit is 0. -1 + ENOMEM. */
int bp_large_create(struct large *l);
/* No mapping is kept by then. */
void bp_large_destroy(struct large *l);

/*
 * A mapping that is kept, for n bytes at a multiple of 1 << align: CACHED, the
 * caller's, all zero. `fresh`: a smaller one may be made larger. `larger`: any
 * that is larger will do. NULL when none fits. Any thread that holds the pool.
 */
struct bufpool_buf *bp_large_take(struct large *l, size_t n, unsigned align,
				  bool fresh, bool larger);

/* Wipes a CACHED buffer and keeps it, or gives it back to the system when it is
 * above the limit. Returns the bytes that were wiped. Any thread that holds the
 * pool. */
size_t bp_large_put(struct large *l, struct bufpool_buf *b);

/* Gives kept mappings back to the system until so many bytes have gone, the
 * largest or the smallest first. Returns the bytes that the system took. Any
 * thread that holds the pool. */
size_t bp_large_give_back(struct large *l, size_t bytes, bool largest_first);

/* Gives the system so many bytes of what is kept, or all of it: from the
 * largest mapping on, and of the last one only a part, if the rest is still
 * large. Returns the bytes that the system took. Any thread that holds the
 * pool. */
size_t bp_large_give_up(struct large *l, size_t bytes);

/* Gives the system so many of the kept bytes, at least a page, the smallest
 * mappings first and of the last one only its end. Returns how many of
 * them have gone; fewer where no more are kept or the system refuses. Any
 * thread that holds the pool. */
size_t bp_large_shed(struct large *l, size_t bytes);

/* Gives everything back, and from here on what comes home as well. */
void bp_large_close(struct large *l);

/* In a fork child: counts what is there. */
void bp_large_after_fork(struct large *l);

#endif
