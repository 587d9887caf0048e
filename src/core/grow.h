/*
 * grow - contents that move to larger memory, or out of it.
 *
 * The descriptor stays and the memory changes: a larger buffer is checked out,
 * the contents are copied, the two descriptors swap memory, and the other one
 * is released, with the old memory, by the way that every release goes.
 *
 * By the buffer's owner only.
 */
#ifndef BUFPOOL_GROW_H
#define BUFPOOL_GROW_H

#include "pool.h"

/* Makes capacity at least `capacity` bytes (counted from at), keeping the
 * contents and the descriptor. 0, or -1 and errno with the buffer unchanged. */
int bp_grow_to(struct bufpool_buf *b, size_t capacity);

/* Gives the memory back and leaves the buffer out, empty, of capacity 0.
 * Without a descriptor to spare it is only wiped and emptied. */
void bp_grow_free(struct bufpool_buf *b);

/* Moves the contents to a younger descriptor, and retires one that buf_outgrown
 * says no longer fits a handle. NULL + ENOMEM, b released. */
struct bufpool_buf *bp_grow_renew(struct bufpool_buf *b);

#endif
