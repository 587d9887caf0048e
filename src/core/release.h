/*
 * release - puts a buffer on the shelf of the caller's own cache, which is the
 * hot path. When the shelf is full, half of it first goes to
 *
 *      own depot -> arena
 */
#ifndef BUFPOOL_RELEASE_H
#define BUFPOOL_RELEASE_H

#include "pool.h"

/* bufpool_release with SITE_ASK. Returns 0; or ESITE where the buffer had a
 * record: then the caller names the place by bp_sites_tell. */
int bp_release_asking(struct bufpool_buf *b);

/* bufpool_release, counted as a return by a garbage collector. */
void bp_release_gc(struct bufpool_buf *b);

/* bufpool_release at the end of a request, which is counted where the buffer
 * has a record. */
void bp_release_scoped(struct bufpool_buf *b);

/* bp_release_asking and bp_release_gc for a reference to a frozen buffer. Where
 * it is not the last one, nothing is asked. */
int bp_frozen_unref_asking(struct bufpool_frozen *f);
void bp_frozen_unref_gc(struct bufpool_frozen *f);

#endif
