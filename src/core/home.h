/*
 * home - the way home of a buffer that no cache takes: one above the classes,
 * one without memory, and one of a thread that has no cache.
 *
 *      wiped -> large or commons -> arena
 */
#ifndef BUFPOOL_HOME_H
#define BUFPOOL_HOME_H

#include "pool.h"

/* Takes any buffer home that has been turned CACHED, wiped or not. Any thread
 * that holds the pool. */
void bp_home_uncached(struct bufpool_buf *b, bool by_gc);

#endif
