/*
 * home - the end of a release for a buffer that no cache takes: a large buffer,
 * one without memory, or any buffer when the thread has no cache or its ticket
 * has expired.
 *
 *      wiped -> large or commons -> arena
 */
#ifndef BUFPOOL_HOME_H
#define BUFPOOL_HOME_H

#include "pool.h"

/* Takes a buffer home, whose state is CACHED already; it need not be wiped.
 * `from` is the place of the release: see sites.h. Any thread that holds the
 * pool. */
void bp_home_uncached(struct bufpool_buf *b, uintptr_t from);

#endif
