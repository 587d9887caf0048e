/*
 * arena - memory from the operating system, and back to it.
 *
 * Buffers of the classes are carved from spans, which are mappings of as many
 * buffers as 256 KiB hold, or of one, because one system call then serves many
 * buffers and the number of mappings of a process is limited. When a buffer's
 * memory is given back, its pages go and its addresses stay (madvise): it is a
 * blank, which the next miss takes before it maps anything. Large buffers are
 * mapped and unmapped one by one.
 *
 * Where pages are larger than 4 KiB, a buffer is carved with as many bytes as
 * make whole pages, or a page holds a whole number of them. Buffers that share
 * a page keep their memory as blanks, until bp_arena_give_blanks finds that all
 * buffers of a page are blanks, and gives the page back.
 *
 * The arena counts committed bytes, existing buffers of each class, and its
 * references. Each descriptor with the arena's memory holds one reference, and
 * the pool's users hold one together; whoever drops the last one ends the pool.
 *
 * `prefault` makes the kernel provide the pages of fresh memory before it is
 * handed out. `huge_pages` asks for huge pages: then spans are aligned
 * multiples of 2 MiB and are committed as a whole, where max_bytes leaves room
 * for that. Giving a part of a huge page back splits it.
 *
 * Only arena.c knows libnuma, which it looks for at run time; without it, and
 * where the system forbids its calls, memory is placed by the kernel.
 */
#ifndef BUFPOOL_ARENA_H
#define BUFPOOL_ARENA_H

#include <sys/types.h>

#include "buf.h"

/* Blanks of one class and node: memory that was given back, or that was carved
 * and has not been taken yet. */
struct blanks {
	struct stack bare;		/* have no pages */
	struct stack resident;	/* have pages, so are still committed */
	_Atomic bool changed;	/* some may have become resident since a search
				 * for pages that are all blanks */
	_Atomic uint32_t searches;	/* that have begun */
};

struct bufpool_arena {
	/* written at creation only */
	const struct layout *layout;
	const char *label;	/* the pool's name, for messages */
	uint64_t id;		/* the pool's; never used twice */
	uint32_t place;		/* the pool's, in each thread's caches */
	size_t max_bytes;	/* SIZE_MAX: no limit */
	int numa_node;
	bool prefault, huge_pages, dump, wipe_on_fork;
	void (*end)(struct bufpool_arena *);	/* once there are no refs */

	/* changed by misses and releases to the system */
	_Alignas(64) _Atomic uint64_t refs;
	_Atomic size_t committed;		/* bytes */
	_Atomic uint64_t existing[BUFPOOL_CLASSES_MAX];
	_Atomic int numa_available;
	struct blanks *blank;		/* by layout_ring */
	struct blanks blank_alone[BUFPOOL_CLASSES_MAX];	/* where nodes is 1 */
	struct stack unmappable;	/* large; the system refused to unmap */
};

void bp_arena_init(void);		/* once, before any other thread */

/* How many nodes a pool with this numa_node keeps apart. */
unsigned bp_arena_nodes(int numa_node);

/* Initialises an arena whose fields "written at creation only" are filled in
 * already. It has one reference then. -1 + ENOMEM. */
int bp_arena_create(struct bufpool_arena *a);

/* Unmaps memory of an arena without references, *work buffers at most, and
 * subtracts from *work how many it has unmapped. False when some are left. One
 * thread at a time. */
bool bp_arena_destroy(struct bufpool_arena *a, unsigned *work);

static inline void
arena_ref(struct bufpool_arena *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
}

/* Adds a reference; false when there is none left. */
bool bp_arena_try_ref(struct bufpool_arena *a);

/* Drops a reference. Dropping the last one ends the pool. */
void bp_arena_drop(struct bufpool_arena *a);

/* The node that the calling thread runs on just now; 0 where the pool does not
 * keep nodes apart. */
unsigned bp_arena_node(const struct bufpool_arena *a);

/* n rounded up to whole pages, at least one: what a large buffer of n bytes
 * takes from the system. */
size_t bp_arena_whole_pages(size_t n);

/* Bytes that must be mapped at once where buffers of a class are carved. */
size_t bp_arena_span(const struct bufpool_arena *a, unsigned class);

/* Whether the system maps so many bytes just now. */
bool bp_arena_has_addresses(size_t bytes);

/*
 * Fresh memory for one buffer, which is CACHED and the caller's. take: of a
 * class, on a node. take_large: of n bytes, on the caller's node, at a multiple
 * of `alignment` (0: a page's), with a `range` of addresses as bp_arena_extend
 * explains. NULL + EDQUOT when max_bytes would be exceeded, or ENOMEM. Any
 * thread that holds the pool.
 */
struct bufpool_buf *bp_arena_take(struct bufpool_arena *a, unsigned class,
				  unsigned node);
struct bufpool_buf *bp_arena_take_large(struct bufpool_arena *a, size_t n,
					size_t range, size_t alignment);

/*
 * Makes a large buffer, OUT or CACHED, hold at least n bytes. Where its mapping
 * is smaller, its pages move to a larger range of addresses, aligned to a page,
 * and `at` and `base` change. `range` is how many bytes of addresses to reserve
 * for later growth, n or more; it counts only where max_bytes limits the pool.
 * False + EDQUOT or ENOMEM, the buffer unchanged. The buffer's owner only.
 */
bool bp_arena_extend(struct bufpool_buf *b, size_t n, size_t range);

/* Gives what a large buffer has mapped past its first n bytes back to the
 * system; when the system refuses, the buffer keeps it. Its owner only. */
void bp_arena_shrink(struct bufpool_buf *b, size_t n);

/* Whether max_bytes limits the pool, so that memory which one buffer has in
 * excess may be missing for another. */
static inline bool
arena_limited(const struct bufpool_arena *a)
{
	return a->max_bytes != SIZE_MAX;
}

/*
 * Bytes that a large buffer has committed. Its mapping may be larger than its
 * capacity: in a limited arena the excess is addresses without memory, into
 * which the buffer may grow; otherwise it is memory of a kept mapping, or what
 * lies in front of a guarded buffer.
 */
static inline size_t
arena_bytes(const struct bufpool_buf *b)
{
	return arena_limited(b->arena) && !b->guarded ? buf_size(b) : b->span;
}

/*
 * For guard.c, which maps by itself. commit: counts bytes that are going to be
 * mapped; false + EDQUOT when max_bytes would be exceeded. advise: tells the
 * system what the pool wants of fresh pages on a node; false when it refuses.
 * adopt: makes a descriptor, whose memory is described, a large buffer of the
 * arena, CACHED and the caller's.
 */
bool bp_arena_commit(struct bufpool_arena *a, size_t bytes);
bool bp_arena_advise(struct bufpool_arena *a, void *base, size_t bytes,
		     unsigned node);
void bp_arena_adopt(struct bufpool_arena *a, struct bufpool_buf *b);
static inline void
arena_uncommit(struct bufpool_arena *a, size_t bytes)
{
	atomic_fetch_sub_explicit(&a->committed, bytes, memory_order_relaxed);
}

/* The page that a mapping of the buffer's own begins with. A guarded buffer
 * begins somewhere in it. */
uint8_t *bp_arena_first_page(const struct bufpool_buf *b);

/* A descriptor that is OUT and has no memory. NULL + ENOMEM. */
struct bufpool_buf *bp_arena_take_bare(struct bufpool_arena *a);

/*
 * Gives the memory of a CACHED buffer, wiped or not, back to the system, and
 * wipes it where the system refuses. Returns the bytes that the system took.
 * Any thread. The pool may be gone when this returns, if this was its last
 * buffer.
 */
size_t bp_arena_give(struct bufpool_buf *b);

/* Tries again to unmap large mappings that the system refused to unmap, until
 * at least `most` bytes have gone. Returns how many have. */
size_t bp_arena_retry(struct bufpool_arena *a, size_t most);

/* Gives pages of resident blanks back until at least `bytes` have gone, and
 * returns how many have. In each ring stops at the first blank that the system
 * refuses, unless `all`. Blanks that share pages are all taken meanwhile, and
 * another thread may find none. */
size_t bp_arena_give_blanks(struct bufpool_arena *a, size_t bytes, bool all);

/* Whether any blank is resident, or the system has refused to unmap a large
 * mapping. It may refuse again. */
bool bp_arena_has_waiting(const struct bufpool_arena *a);

/* Bytes that can still be committed. */
static inline size_t
arena_room(const struct bufpool_arena *a)
{
	return a->max_bytes - atomic_load_explicit(&a->committed,
						   memory_order_relaxed);
}

/* Bytes of the arena's memory that are resident; -1 + errno where the system
 * does not say. Reads every descriptor of the process. */
ssize_t bp_arena_resident(const struct bufpool_arena *a);

/* Resident pages of the arena by node; returns the number of nodes counted. */
unsigned bp_arena_pages_by_node(const struct bufpool_arena *a,
				uint64_t pages[BUFPOOL_NODES_MAX]);

#endif
