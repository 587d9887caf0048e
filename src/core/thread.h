/*
 * thread - what a thread owns: a record with its cache of every pool.
 *
 * Records are listed once and never taken off. A thread that exits leaves its
 * record, rings and all, as an orphan; others go on stealing from it, and the
 * next new thread adopts it whole. So there are never more records than there
 * were threads at one time.
 */
#ifndef BUFPOOL_THREAD_H
#define BUFPOOL_THREAD_H

#include "pool.h"

struct thread {
	_Atomic(struct cache *) caches[POOLS_MAX];	/* by the pool's slot */
	_Atomic(const void *) token;	/* of its thread; NULL: of none */
	struct thread *next;		/* written before it is listed */
	_Atomic uint32_t owned;		/* 0: an orphan */
	_Atomic uint32_t slots;		/* caches at and past this are NULL */
};

/*
 * The calling thread's record; thread_nobody, which has no caches, before it
 * has one and after it has given it up.
 */
extern __thread struct thread *thread_self;
extern struct thread thread_nobody;

/* An address that the calling thread alone has, for as long as it lives, and
 * that is found without a call. */
static inline const void *
thread_token(void)
{
#if defined(__x86_64__) && !defined(__ILP32__)
	const void *token;

	__asm__("mov %%fs:0, %0" : "=r"(token));
	return token;
#else
	return &thread_self;
#endif
}

/* Whether the record is the calling thread's. */
static inline bool
thread_is_own(const struct thread *t)
{
	return atomic_load_explicit(&t->token, memory_order_relaxed) ==
	    thread_token();
}

static inline bool
thread_enrolled(void)
{
	return thread_self != &thread_nobody;
}

bool thread_init(void);		/* once, before any other thread */

/*
 * This thread's record, made or adopted; NULL when there is no memory, or when
 * the thread is exiting and has given its record up.
 */
struct thread *thread_enroll(void);

/* For one operation of a thread that is exiting: any orphan, as its own, to be
 * given up again. NULL when there is none and no memory. */
struct thread *thread_borrow(void);
void thread_give_up(struct thread *t);

/* The cache of a pool in the caller's own record, bound to the pool; NULL when
 * there is no memory. The caller holds the pool. */
struct cache *thread_bind(struct thread *t, struct bufpool *p);

/* All records: start with NULL; NULL at the end. */
struct thread *thread_next(const struct thread *t);

/* The record's cache of this pool, if it has one. Any thread. */
static inline struct cache *
thread_cache(struct thread *t, const struct bufpool *p)
{
	struct cache *k = atomic_load(&t->caches[p->slot]);

	/* Sequentially consistent, for close against thread_bind: either close
	 * sees the cache here, or the binder sees that the pool was closed. */
	if (k != NULL && atomic_load(&k->pool_id) == p->id)
		return k;
	return NULL;
}

/*
 * The calling thread's cache in this pool's place, or NULL. It may still be
 * that of a pool which had the place before: that one was closed, so entering
 * it fails.
 */
static inline struct cache *
thread_own_cache(const struct bufpool *p)
{
	return atomic_load_explicit(&thread_self->caches[p->slot],
				    memory_order_relaxed);
}

#endif
