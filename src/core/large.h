/*
 * large - buffers above the largest class. When one comes home, its mapping is
 * kept for the next request.
 *
 * Each is a mapping of its own. A mapping that comes home is wiped and waits in
 * a bin with others of nearly its size: eight bins to a power of two, so that
 * the largest of a bin is at most 1/8 larger than the smallest. A request is
 * served by
 *
 *      a mapping of its bin, made larger where it is too small
 *      one of the next seven bins, smallest first: at most twice the request
 *      one of a smaller bin, of about half the size at least, made larger
 *      fresh memory
 *
 * A mapping is made larger by moving its pages to a larger range of addresses
 * (mremap), so no byte is copied. A buffer that grows may take any larger
 * mapping instead, because it is going to need it. Its capacity is what was
 * asked for nevertheless, and rises without a system call as it grows.
 *
 * Where max_bytes limits the pool, nobody gets more memory than was asked for:
 * what a mapping has beyond that goes back to the system. A buffer that grows
 * does not take a kept mapping there. It gets a range of addresses to grow
 * into, which takes no memory until it is used, and whose unused part is cut
 * off when the buffer comes home.
 *
 * Bins are Treiber stacks, so that nobody waits. The kept bytes have a limit;
 * above it the largest mappings go back to the system first.
 */
#ifndef BUFPOOL_LARGE_H
#define BUFPOOL_LARGE_H

#include "arena.h"

#define LARGE_STEPS 8		/* bins to a power of two */
#define LARGE_BINS (52 * LARGE_STEPS)	/* of one node */

struct large {
	struct bufpool_arena *arena;
	size_t limit;			/* of the bytes kept */
	struct stack *bin;		/* by size, and then by node */
	_Atomic uint32_t closed;	/* nothing more is kept */
	_Atomic size_t kept;		/* bytes; no fewer than are in bins */
	_Atomic uint64_t count;		/* mappings; no fewer than in bins */

	/* counters, which only rise, except for corrections after a fork */
	_Atomic uint64_t hits, misses, releases, gc_returns;
	_Atomic uint64_t bytes_taken, bytes_returned;
	_Atomic uint64_t lost;		/* to fork */

	/* what decay goes by */
	_Atomic size_t was_kept;	/* bytes */
	_Atomic uint32_t was_short;
};

/* Makes the bins; none where the limit is 0. -1 + ENOMEM. */
int bp_large_create(struct large *l);
/* The bins must be empty. */
void bp_large_destroy(struct large *l);

/*
 * Takes a kept mapping for n bytes at a multiple of 1 << align. It is CACHED,
 * the caller's, and all zero. `fresh`: a smaller mapping may be made larger.
 * `larger`: a larger mapping of any size will do. Looks at the top of each bin
 * of the caller's node. NULL when none of those fits. Any thread that holds the
 * pool.
 */
struct bufpool_buf *bp_large_take(struct large *l, size_t n, unsigned align,
				  bool fresh, bool larger);

/* Wipes a CACHED buffer and keeps it; or gives it back to the system, when it
 * is above the limit or the pool is closed. Returns the bytes that were wiped.
 * Any thread that holds the pool. */
size_t bp_large_put(struct large *l, struct bufpool_buf *b);

/* Gives whole kept mappings back to the system until at least `bytes` have
 * gone, the largest first. Stops at the first that the system refuses, unless
 * `all`, because a refused one is kept no more. Returns the bytes that the
 * system took. Any thread that holds the pool. */
size_t bp_large_give_back(struct large *l, size_t bytes, bool all);

/* Gives `bytes` of kept memory back to the system, or all if it is less. Begins
 * with the largest mapping, and cuts the last one, if what remains of it is
 * still large. Returns the bytes that the system took. Any thread that holds
 * the pool. */
size_t bp_large_give_up(struct large *l, size_t bytes);

/* Gives `bytes` of kept memory back to the system, rounded up to whole pages.
 * Begins with the smallest mapping, and cuts the last one. Returns the bytes
 * that the system took, which are fewer where no more are kept or it refuses.
 * Stops where it does, unless `all`. Any thread that holds the pool. */
size_t bp_large_shed(struct large *l, size_t bytes, bool all);

/* Gives all kept mappings back to the system. From here on none is kept. */
void bp_large_close(struct large *l);

/* In a fork child: counts again what is in the bins. */
void bp_large_after_fork(struct large *l);

#endif
