/*
 * arena - memory from the operating system, and back to it.
 *
 * Buffers of the small classes are carved from spans, mappings of 256 KiB or
 * one buffer, whichever is more: one system call serves many, and the number
 * of mappings of a process is limited. Memory that is given back leaves its
 * address space behind (madvise), as a blank buffer that the next miss takes
 * before it maps anything. Exact sizes are mapped and unmapped one by one.
 *
 * The arena counts what exists: committed bytes, buffers of each class, and,
 * in the pool's `alive`, the descriptors that hold the pool in memory.
 *
 * `prefault` makes the kernel provide pages before a buffer is handed out for
 * the first time, `huge_pages` asks for huge ones: spans are 2 MiB and aligned
 * then. Giving a part of one back splits it.
 *
 * Only arena.c knows libnuma, which it looks for at run time; without it, and
 * where the system forbids its calls, memory is placed by the kernel.
 */
#ifndef BUFPOOL_ARENA_H
#define BUFPOOL_ARENA_H

#include "buf.h"

#define ARENA_GRAIN 4096	/* classes are multiples of this many bytes */

void arena_init(void);		/* once, before any other thread */

/* Makes a pool that is configured ready for the functions below, or returns -1
 * + ENOMEM. Undone by arena_destroy. */
int arena_create(struct bufpool *p);

/* The node that the calling thread runs on just now; 0 where the pool does not
 * keep nodes apart. */
unsigned arena_node(const struct bufpool *p);

/*
 * Fresh memory for one buffer, in state CACHED and the caller's: of a class, on
 * a node, or of n bytes and an alignment (0: the page's) on the caller's node.
 * NULL + EDQUOT when max_bytes would be exceeded, ENOMEM. Any thread that holds
 * the pool.
 */
struct bufpool_buf *arena_take(struct bufpool *p, unsigned class,
			       unsigned node);
struct bufpool_buf *arena_take_exact(struct bufpool *p, size_t n,
				     size_t alignment);

/*
 * Takes a CACHED buffer's memory back. Any thread. The pool may be gone when
 * this returns, if it was closed and this was its last buffer.
 */
void arena_give(struct bufpool_buf *b);

/* Unmaps what a pool without buffers has left. */
void arena_destroy(struct bufpool *p);

/* Resident pages of the pool by node; returns the number of nodes counted. */
unsigned arena_pages_by_node(const struct bufpool *p,
			     uint64_t pages[BUFPOOL_NODES_MAX]);

#endif
