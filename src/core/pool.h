/*
 * pool - what a pool is. It ties the floors together: each has its own part.
 *
 * Every buffer with memory is in exactly one place, so for each class
 *
 *      existing == out + cached + ready + lost
 *
 * where cached is summed over the threads, and ready over their depots and the
 * commons. A buffer in transit, held by a ticket, counts as out.
 *
 * LIFE. Users hold a pool by `users`. Together they hold one of the arena's
 * references, and each descriptor with the pool's memory holds one more. When
 * users reach zero the pool closes; when the references do, its memory goes and
 * its place may be used again. Places are never unmapped, so looking at a pool
 * that is gone is safe, though useless. spec/model/pool.lua has these steps.
 */
#ifndef BUFPOOL_POOL_H
#define BUFPOOL_POOL_H

#include "guard.h"
#include "large.h"
#include "requests.h"
#include "thread.h"

struct bufpool {
	struct caches caches;	/* the hot path reads its beginning */
	struct layout layout;
	struct bufpool_arena arena;
	struct large large;
	struct guards guards;
	char name[BUFPOOL_NAME_MAX];	/* "": unnamed */
	int64_t ticket_ttl;	/* milliseconds; 0: tickets do not expire */
	struct bufpool_config config;	/* as read, without name and classes */

	/* away from the hot path */
	_Alignas(64) _Atomic uint64_t users;
	_Atomic uint32_t next_ending;	/* see registry.c */
	_Atomic uint64_t lost[BUFPOOL_CLASSES_MAX];
	_Atomic uint64_t peak_out, peak_bytes_out;
	_Atomic int64_t sampled_at;	/* when peaks were; milliseconds */
	_Atomic uint64_t in_transit;	/* tickets that nobody has adopted */
	_Atomic uint64_t refused_by_max_bytes, refused_by_system;
	_Atomic uint64_t exhausted;	/* try_checkout found nothing */
	struct requests *requests;	/* which sizes are asked for */
	/* leak detection: see sites.h */
	_Atomic(struct site *) sites;
	_Atomic uint64_t unrecorded;	/* checkouts: no memory for a record */
	_Atomic int64_t large_left;	/* large checkouts to the next sample */
	_Atomic uint64_t to_fail;	/* see fail_one_in */
	_Atomic int64_t guard_left;	/* recorded ones to the next guard */
	/* idle buffers that threads are just giving back: see trim.c */
	_Atomic uint64_t promised[BUFPOOL_CLASSES_MAX];
	/* for decay: see trim.c */
	_Atomic int64_t looked_at, decayed;	/* up to when; milliseconds */
	_Atomic int64_t pressed;	/* for which shortage: see trim.c */
	_Atomic uint64_t pressed_bytes;	/* given back for that */
	_Atomic unsigned decay_first;	/* the class that a call begins with */
	_Atomic uint64_t was_idle[BUFPOOL_CLASSES_MAX];
	_Atomic uint32_t was_short[BUFPOOL_CLASSES_MAX];
	/* used in a fork child only */
	struct {
		uint64_t out[BUFPOOL_CLASSES_MAX], descriptors;
	} tally;
};

/* The pool whose memory a buffer has. */
static inline struct bufpool *
pool_of(const struct bufpool_buf *b)
{
	return (struct bufpool *)(void *)((char *)b->arena -
					  offsetof(struct bufpool, arena));
}

static inline bool
pool_closed(const struct bufpool *p)
{
	return atomic_load(&p->caches.closed) != 0;
}

#endif
