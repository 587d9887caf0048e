/*
 * grow - moves contents to larger memory, or gives a buffer's memory back.
 *
 * The buffer keeps its descriptor and gets other memory: a larger buffer is
 * checked out, the contents are copied, the two descriptors swap memory, and
 * the other one, which has the old memory now, is released like any buffer.
 *
 * By the buffer's owner only.
 */
#ifndef BUFPOOL_GROW_H
#define BUFPOOL_GROW_H

#include "pool.h"

/* Makes capacity at least `capacity` bytes (counted from at), keeping the
 * contents and the descriptor. 0, or -1 and errno with the buffer unchanged. */
int bp_grow_to(struct bufpool_buf *b, size_t capacity);

/* For b to get the first n bytes of `from`: where less is copied when the two
 * exchange their memory, does that, and returns true. */
bool bp_grow_exchange(struct bufpool_buf *b, struct bufpool_buf *from,
		      size_t n);

/* Gives the memory back; the buffer stays out, empty, of capacity 0. When there
 * is no descriptor to swap memory with, only wipes and empties the buffer. */
void bp_grow_free(struct bufpool_buf *b);

/* Moves memory and contents to a younger descriptor, which it returns, and
 * releases b, whose word no longer fits a handle (buf_outgrown). NULL + ENOMEM;
 * b is released then, too. */
struct bufpool_buf *bp_grow_renew(struct bufpool_buf *b);

/* Bytes that b, where it grows by moving its contents, may ask for beyond what
 * it needs, so that it does not move them each time. */
size_t bp_grow_slack(const struct bufpool_buf *b);

#endif
