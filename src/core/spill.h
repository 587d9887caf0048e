/*
 * spill - a release that the caller's cache has no room for, or no say in.
 *
 *      shelf, half of which goes to the depot -> commons -> arena
 */
#ifndef BUFPOOL_SPILL_H
#define BUFPOOL_SPILL_H

#include "pool.h"

/* Takes any buffer home that has been turned CACHED, wiped or not. Keeps
 * errno. The pool may be gone when this returns. */
void bp_release_slow(struct bufpool_buf *b, bool by_gc);

#endif
