/*
 * registry - the pools of the process: how they begin and end, and their names.
 */
#ifndef BUFPOOL_REGISTRY_H
#define BUFPOOL_REGISTRY_H

#include "pool.h"

/* Every pool in turn, closed ones too, each held until the caller drops its
 * arena. Start with *cursor 0; false when there are no more. */
bool bp_registry_next(unsigned *cursor, struct bufpool **pool);

#define REGISTRY_WORK 1024	/* buffers */

/* Goes on with the end of pools that have no references any more, by so much
 * work. True when all have ended. Keeps errno. Any thread. */
bool bp_registry_finish(unsigned work);

#endif
