/*
 * buf - the descriptor of a buffer: where its memory is, what is in it, who
 * has it.
 *
 * Descriptors live apart from the memory they describe, in a table that is
 * never unmapped, and are reused. So a stale pointer to one can always be
 * looked at, and the word below says that it is stale.
 *
 *      base         at                    at+len      at+mark   at+capacity
 *       |  consumed  |      contents        |   dirty   |   zero    |
 *       +------------+----------------------+-----------+-----------+
 *
 * Everything is counted from `at`, which is position 1 in Lua. Bytes at and
 * past at+mark are zero; release wipes [base, at+mark). The mark may be below
 * or above len: a fresh checkout(n) has len n and mark 0.
 *
 * The word holds the state in its low bits and, above them, a generation that
 * every release raises. Whoever turns OUT into anything else does it by one
 * compare-and-swap, which can succeed once.
 */
#ifndef BUFPOOL_BUF_H
#define BUFPOOL_BUF_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bufpool.h"

/* LuaJIT parses what stands between the two marker lines (less _Atomic). */
/* ffi: begin */
struct bufpool_buf {
	_Atomic uint64_t word;	/* generation << 3 | state */
	uint8_t *at;		/* first byte of the contents */
	size_t len;		/* bytes of contents */
	size_t capacity;	/* bytes from at to the end of the memory */
	size_t mark;		/* bytes from at past which all is zero */
	uint8_t *base;		/* first byte of the memory; NULL: none */
	struct bufpool *pool;
	uint32_t number;	/* of this descriptor in its table */
	uint8_t class;		/* index of the class; see CLASS_ below */
	uint8_t node;		/* index of the NUMA node in its pool */
	uint8_t raw;		/* a raw pointer was given: growth raises mark */
	uint8_t pad;
	/* second cache line: not needed by checkout and release */
	size_t grant;		/* bytes from at that reserve() has granted */
	size_t alignment;	/* asked for; 0: none beyond the page */
	size_t span;		/* bytes mapped here; 0: inside another's span */
	_Atomic uint32_t refs;	/* references while frozen */
	_Atomic uint32_t next;	/* number of the next one in a free stack */
	uint64_t pad2[4];
};
/* ffi: end */

/* States. */
#define BUF_BLANK 0	/* no memory behind it, or memory that was given back */
#define BUF_IDLE 1	/* ready or cached: every byte zero, nobody's */
#define BUF_OUT 2	/* one owner */
#define BUF_FROZEN 3	/* counted owners, immutable */
#define BUF_STATE 7
#define BUF_GENERATION 8	/* one generation, as an addend to the word */

/* Values of `class` that are no index. */
#define CLASS_EXACT 254	/* a mapping of its own, unmapped on release */
#define CLASS_NONE 255	/* no memory: a buffer that was freed from Lua */

/* Bytes of memory behind the buffer, wherever `at` stands. */
static inline size_t
buf_size(const struct bufpool_buf *b)
{
	return b->capacity + (size_t)(b->at - b->base);
}

/*
 * Makes capacity at least `capacity` bytes (counted from at), keeping the
 * contents and the descriptor; the memory may move. Returns the bytes of fresh
 * memory that this took from the system (0: it was ready), or -1 and errno
 * with the buffer unchanged. Owner only, as everything below.
 */
ptrdiff_t buf_grow(struct bufpool_buf *b, size_t capacity);

/* Wipes all memory of the buffer and empties it. */
void buf_wipe(struct bufpool_buf *b);

/* Gives the memory back and leaves the buffer out, empty, of capacity 0.
 * Without a descriptor to spare it is only wiped and emptied. */
void buf_free(struct bufpool_buf *b);

/* bufpool_release, counted as a return by a garbage collector. */
void buf_release_gc(struct bufpool_buf *b);
void buf_unref_gc(struct bufpool_frozen *f);

#endif
