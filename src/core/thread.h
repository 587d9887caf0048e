/*
 * thread - what a thread owns: a record with its cache of every pool.
 *
 * Records are listed once and never taken off. A thread that exits retires its
 * caches and leaves its record as an orphan, which the next new thread adopts.
 * So there are about as many records as there were threads at one time; a few
 * more when a new thread meets orphans that the end of a pool is looking at.
 */
#ifndef BUFPOOL_THREAD_H
#define BUFPOOL_THREAD_H

#include "cache.h"

#define POOLS_MAX PLACE_WATCHED	/* pools of a process at one time */

struct thread {
	/* by the pool's place; first, so that the hot path adds no offset */
	_Atomic(struct cache *) caches[POOLS_MAX + 1];	/* the last: NULL */
	struct owner owner;
	struct thread *next;		/* written before it is listed */
	_Atomic uint32_t owned;		/* 0: an orphan */
	_Atomic uint32_t places;	/* caches at and past this are NULL */
	_Atomic(struct cache *) gone;	/* of ended pools, to be unmapped */
};

/*
 * The calling thread's record. Before the thread has one, after it has given it
 * up, and in a fork child until that has settled, this is bp_thread_nobody,
 * which has no caches.
 */
extern __thread struct thread *bp_thread_self;
extern struct thread bp_thread_nobody;

bool bp_thread_init(void);		/* once, before any other thread */

/* The calling thread's cache of the pool that has this place, or NULL. The
 * cache may be one that is not live; then all of its shelves are shut. */
static inline struct cache *
thread_own_cache(uint32_t place)
{
	return atomic_load_explicit(&bp_thread_self->caches[place],
				    memory_order_relaxed);
}

/* The record listed after t; NULL gives the first. NULL at the end. */
struct thread *bp_thread_next(const struct thread *t);

/* The calling thread's live cache of a pool, which the caller holds. Makes the
 * cache, and the thread's record, if there is none. NULL when there is no
 * memory, or when the thread is exiting and has given its record up. */
struct cache *bp_thread_cache(struct caches *cs);

/* Takes the caches of a pool that has ended out of all records, before its
 * place is used again. Unmaps the caller's own and those of orphans; any other
 * thread unmaps its own when it next needs a cache, flushes or exits. */
void bp_thread_forget(uint32_t place);

/* In a fork child: makes orphans of the records of the parent's other threads,
 * and puts the caller's own aside, so that no thread has a cache. */
void bp_thread_after_fork(void);

/* Takes up the record that bp_thread_after_fork has put aside for this thread.
 * False when there is none. */
bool bp_thread_resume(void);

#endif
