/*
 * freeze - immutable buffers with counted owners.
 */
#ifndef BUFPOOL_FREEZE_H
#define BUFPOOL_FREEZE_H

#include "release.h"

/* bufpool_frozen_unref, counted as a return by a garbage collector. */
void bp_frozen_unref_gc(struct bufpool_frozen *f);

#endif
