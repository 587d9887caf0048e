/*
 * thread - what a thread owns: a record with its cache of every pool.
 *
 * Records are listed once and never taken off. A thread that exits retires its
 * caches and leaves its record as an orphan, which the next new thread adopts.
 * So there are no more records than there were threads at one time, but for
 * orphans that were just being looked at by the end of a pool.
 */
#ifndef BUFPOOL_THREAD_H
#define BUFPOOL_THREAD_H

#include "cache.h"

#define POOLS_MAX 16384		/* pools of a process at one time */

struct thread {
	/* by the pool's place; the hot path needs no offset to it */
	_Atomic(struct cache *) caches[POOLS_MAX];
	struct owner owner;
	struct thread *next;		/* written before it is listed */
	_Atomic uint32_t owned;		/* 0: an orphan */
	_Atomic uint32_t places;	/* caches at and past this are NULL */
	_Atomic(struct cache *) gone;	/* of pools that are gone, to unmap */
};

/*
 * The calling thread's record; bp_thread_nobody, which has no caches, before it
 * has one and after it has given it up.
 */
extern __thread struct thread *bp_thread_self;
extern struct thread bp_thread_nobody;

bool bp_thread_init(void);		/* once, before any other thread */

/* The calling thread's cache of the pool that has this place, or NULL. It may
 * be one that is not live: that is shut. */
static inline struct cache *
thread_own_cache(uint32_t place)
{
	return atomic_load_explicit(&bp_thread_self->caches[place],
				    memory_order_relaxed);
}

/* All records: start with NULL; NULL at the end. */
struct thread *bp_thread_next(const struct thread *t);

/* The calling thread's live cache of a pool, which the caller holds; made, with
 * a record, where there was none. NULL when there is no memory, or when the
 * thread is exiting and has given its record up. */
struct cache *bp_thread_cache(struct caches *cs);

/* Takes the caches of a pool that has ended out of all records, before its
 * place is used again. The caller's own and those of orphans are unmapped;
 * those of another thread are when it next needs a cache, flushes or exits. */
void bp_thread_forget(uint32_t place);

/* In a fork child: the records of threads that are not there become orphans,
 * and the caller's own is put aside, so that nobody has a cache. */
void bp_thread_after_fork(void);

/* Takes up the record that bp_thread_after_fork has put aside for this thread.
 * False when there is none. */
bool bp_thread_resume(void);

#endif
