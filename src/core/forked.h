/*
 * forked - a child of fork settles its pools when it first uses one, and not
 * before: it may be about to exec.
 *
 * Every call that looks at more than the caller's own buffer begins with
 * forked_check. The fast paths need none: until all is settled no thread has a
 * cache (bp_thread_after_fork), and so each call takes a slow path.
 */
#ifndef BUFPOOL_FORKED_H
#define BUFPOOL_FORKED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* 0 when all is settled; otherwise a value of forked.c. */
extern _Atomic uint32_t bp_forked_state;

/* The function that settles; set once, before any other thread. */
extern void (*bp_forked_settle)(void);

/* Called in the child by the atfork handler, so before the child uses a
 * pool. */
void bp_forked_begin(void);

/* The first thread settles. Others that the child has started before that wait
 * for it. Keeps errno. */
void bp_forked_settle_slow(void);

/* Acquire, so that what another thread has settled is seen. */
static inline bool
forked_pending(void)
{
	return __builtin_expect(atomic_load_explicit(
	    &bp_forked_state, memory_order_acquire) != 0, 0);
}

static inline void
forked_check(void)
{
	if (forked_pending())
		bp_forked_settle_slow();
}

#endif
