/*
 * guard - buffers between pages that nobody may touch.
 *
 *       page         whole pages, `span` bytes         page
 *     +------+----------------------------------+-----+------+
 *     | none |           |       buffer         |slack| none |
 *     +------+----------------------------------+-----+------+
 *                        base          base+capacity
 *
 * The buffer ends as near to the upper page as its alignment allows. So an
 * access in front of the first page or past the end is a SIGSEGV at that
 * instruction; a store to the slack, which has fewer bytes than the alignment,
 * is found at the release.
 *
 * bufpool_freeze makes its pages read-only. When the buffer comes home its
 * pages go to the system, and their addresses stay without access until
 * GUARDS_KEPT buffers have come home after it, or sooner where more addresses
 * would be kept than a pool may keep. Until then an old pointer leads to a
 * SIGSEGV, and the descriptor still tells whose memory that was.
 *
 * A guarded buffer counts as a large one, of whatever size it is, and nothing
 * of it is used again. The idea is that of electric fences; that one checkout
 * of many gets one, in a program at work, is GWP-ASan's.
 */
#ifndef BUFPOOL_GUARD_H
#define BUFPOOL_GUARD_H

#include "arena.h"

#define GUARDS_KEPT 256

struct guards {
	/* written at creation only */
	struct bufpool_arena *arena;
	bool lock;		/* mlock what is out */
	uint8_t align;		/* of a buffer, at least: 1 << align */
	_Atomic(struct bufpool_buf *) *kept;	/* a ring; NULL: no guards */
	size_t kept_most;	/* bytes of addresses, guards included */

	_Atomic size_t kept_bytes;	/* no fewer than are in the ring */
	_Atomic uint32_t next;	/* in the ring */
	_Atomic uint64_t unlocked;	/* that the system refused to lock */
};

/* Makes the ring. -1 + ENOMEM. */
int bp_guard_create(struct guards *g);
/* Unmaps what the ring keeps, and the ring. Nobody holds the pool. */
void bp_guard_destroy(struct guards *g);

/* A guarded buffer of n bytes, all zero, at a multiple of 1 << align. It is
 * CACHED and the caller's. NULL + EDQUOT or ENOMEM. Any thread that holds the
 * pool. */
struct bufpool_buf *bp_guard_take(struct guards *g, size_t n, unsigned align);

/* Takes a CACHED buffer home; aborts when its slack was written to. Any thread
 * that holds the pool. */
void bp_guard_give(struct guards *g, struct bufpool_buf *b);

/* Makes a buffer's memory read-only, unless the system refuses. */
void bp_guard_freeze(const struct bufpool_buf *b);

/* The guarded buffer whose pages, guards included, have this address; NULL if
 * there is none. Safe in a signal handler; what it returns may be changing. */
const struct bufpool_buf *bp_guard_find(const void *address);

#endif
