/*
 * release - puts a buffer on the shelf of the caller's own cache, which is the
 * hot path. When the shelf is full, half of it first goes to
 *
 *      own depot -> commons -> arena
 */
#ifndef BUFPOOL_RELEASE_H
#define BUFPOOL_RELEASE_H

#include "pool.h"

/* The rest of a release; the caller has turned the buffer's state to CACHED. */
void bp_release_turned(struct bufpool_buf *b, bool by_gc);

/* bufpool_release, counted as a return by a garbage collector. */
void bp_release_gc(struct bufpool_buf *b);

/* bufpool_frozen_unref, counted as a return by a garbage collector. */
void bp_frozen_unref_gc(struct bufpool_frozen *f);

#endif
