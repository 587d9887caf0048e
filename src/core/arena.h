/*
 * arena - memory from the operating system, and back to it.
 *
 * Buffers of the small classes are carved from spans, mappings of 256 KiB or
 * one buffer, whichever is more: one system call serves many, and the number
 * of mappings of a process is limited. Memory that is given back leaves its
 * address space behind (madvise), as a blank buffer that the next miss takes
 * before it maps anything. A buffer that is not whole pages keeps its memory.
 * Large buffers are mapped and unmapped one by one.
 *
 * The arena counts what exists: committed bytes, buffers of each class, and
 * references. Each descriptor with the arena's memory holds one, and the pool's
 * users hold one together; whoever drops the last one ends the pool.
 *
 * `prefault` makes the kernel provide pages before a buffer is handed out for
 * the first time, `huge_pages` asks for huge ones: spans are multiples of 2 MiB
 * and aligned then, and committed as a whole, where max_bytes leaves room for
 * that. Giving a part of one back splits it.
 *
 * Only arena.c knows libnuma, which it looks for at run time; without it, and
 * where the system forbids its calls, memory is placed by the kernel.
 */
#ifndef BUFPOOL_ARENA_H
#define BUFPOOL_ARENA_H

#include "buf.h"

/* Memory of one class and node that was given back, or carved and not yet
 * taken. */
struct blanks {
	struct buf_stack bare;		/* without pages */
	struct buf_stack resident;	/* with pages, and so still committed */
};

struct bufpool_arena {
	/* written at creation only */
	const struct layout *layout;
	const char *label;	/* the pool's name, for messages */
	uint64_t id;		/* the pool's; never used twice */
	uint32_t place;		/* the pool's, in each thread's caches */
	size_t max_bytes;	/* SIZE_MAX: no limit */
	int numa_node;
	bool prefault, huge_pages;
	void (*end)(struct bufpool_arena *);	/* once there are no refs */

	/* changed by misses and releases to the system */
	_Alignas(64) _Atomic uint64_t refs;
	_Atomic size_t committed;		/* bytes */
	_Atomic uint64_t existing[BUFPOOL_CLASSES_MAX];
	_Atomic int numa_available;
	struct blanks *blank;		/* by ring */
	struct blanks blank_alone[BUFPOOL_CLASSES_MAX];	/* one node's */
	struct buf_stack unmappable;	/* large ones that the system refused */
};

void bp_arena_init(void);		/* once, before any other thread */

/* The nodes that a pool with this numa_node keeps apart. */
unsigned bp_arena_nodes(int numa_node);

/* Makes an arena whose first fields are filled in ready for the functions
 * below, with one reference. -1 + ENOMEM. */
int bp_arena_create(struct bufpool_arena *a);

/* Unmaps what an arena without references has left, *work buffers of it, and
 * takes those from *work. False when more are left. One thread at a time. */
bool bp_arena_destroy(struct bufpool_arena *a, unsigned *work);

static inline void
arena_ref(struct bufpool_arena *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
}

/* One more reference, unless there are none. */
bool bp_arena_try_ref(struct bufpool_arena *a);

/* Drops one. The last one takes the pool along. */
void bp_arena_drop(struct bufpool_arena *a);

/* The node that the calling thread runs on just now; 0 where the pool does not
 * keep nodes apart. */
unsigned bp_arena_node(const struct bufpool_arena *a);

/* Bytes that a large buffer of n bytes takes from the system. */
size_t bp_arena_whole_pages(size_t n);

/* Bytes that must be mapped at once where buffers of a class are carved. */
size_t bp_arena_span(const struct bufpool_arena *a, unsigned class);

/* Whether the system maps so many bytes just now. */
bool bp_arena_has_addresses(size_t bytes);

/*
 * Fresh memory for one buffer, in state CACHED and the caller's: of a class on
 * a node, or of n bytes at a multiple of an alignment (0: the page's) on the
 * caller's node, with a range of addresses as bp_arena_extend has. NULL +
 * EDQUOT when max_bytes would be exceeded, ENOMEM. Any thread that holds the
 * pool.
 */
struct bufpool_buf *bp_arena_take(struct bufpool_arena *a, unsigned class,
				  unsigned node);
struct bufpool_buf *bp_arena_take_large(struct bufpool_arena *a, size_t n,
					size_t range, size_t alignment);

/*
 * Has a large buffer, OUT or CACHED, hold n bytes at least. Where its mapping
 * is smaller, its pages move to a larger range of addresses, aligned to a page:
 * `at` and `base` move. `range`: as many addresses as it may grow to later; no
 * less than n, and heeded only where max_bytes is. False + EDQUOT, ENOMEM, the
 * buffer unchanged. Its owner only.
 */
bool bp_arena_extend(struct bufpool_buf *b, size_t n, size_t range);

/* Gives what a large buffer has mapped past its first n bytes back to the
 * system, or leaves it. Its owner only. */
void bp_arena_shrink(struct bufpool_buf *b, size_t n);

/* Whether memory that one has in excess may be missing elsewhere. */
static inline bool
arena_limited(const struct bufpool_arena *a)
{
	return a->max_bytes != SIZE_MAX;
}

/*
 * Bytes that a large buffer has committed. More may be mapped than its capacity
 * tells. In a limited arena that is a range of addresses without memory, which
 * the buffer may grow into, else memory that was kept.
 */
static inline size_t
arena_bytes(const struct bufpool_buf *b)
{
	return arena_limited(b->arena) ? buf_size(b) : b->span;
}

/* A descriptor that is OUT and has no memory. NULL + ENOMEM. */
struct bufpool_buf *bp_arena_take_bare(struct bufpool_arena *a);

/*
 * Takes the memory of a CACHED buffer back, wiped or not: the system drops what
 * is in it, and what the system does not take is wiped. Returns the bytes that
 * the system got. Any thread. The pool may be gone when this returns, if this
 * was its last buffer.
 */
size_t bp_arena_give(struct bufpool_buf *b);

/* Tries once more to unmap what the system refused to unmap, until so many
 * bytes have gone. Returns bytes. */
size_t bp_arena_retry(struct bufpool_arena *a, size_t most);

/* Gives pages of blanks back until so many bytes have gone. Tries all of them,
 * or of each ring none after one that the system refuses. Returns bytes. */
size_t bp_arena_give_blanks(struct bufpool_arena *a, size_t bytes, bool all);

/* Whether any blanks have pages. The system may refuse to take them. */
bool bp_arena_has_blanks(const struct bufpool_arena *a);

/* Bytes that can still be committed. */
static inline size_t
arena_room(const struct bufpool_arena *a)
{
	return a->max_bytes - atomic_load_explicit(&a->committed,
						   memory_order_relaxed);
}

/* Resident pages of the arena by node; returns the number of nodes counted. */
unsigned bp_arena_pages_by_node(const struct bufpool_arena *a,
				uint64_t pages[BUFPOOL_NODES_MAX]);

#endif
