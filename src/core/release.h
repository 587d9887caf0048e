/*
 * release - onto the shelf of the caller's own cache, which is the hot path, or
 * else half of the shelf goes to
 *
 *      own depot -> commons -> arena
 */
#ifndef BUFPOOL_RELEASE_H
#define BUFPOOL_RELEASE_H

#include "pool.h"

/* The rest of a release, of a buffer whose state the caller has turned to
 * CACHED. */
void bp_release_turned(struct bufpool_buf *b, bool by_gc);

/* bufpool_release, counted as a return by a garbage collector. */
void bp_release_gc(struct bufpool_buf *b);

/* bufpool_frozen_unref, counted so as well. */
void bp_frozen_unref_gc(struct bufpool_frozen *f);

#endif
