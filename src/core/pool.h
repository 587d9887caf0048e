/*
 * pool - policy: which class, which tier next, when to give up; and the life of
 * the pool itself.
 *
 *      checkout:  cache -> own depot -> other depots -> arena
 *                 -> other nodes' depots -> idle caches -> whatever is idle
 *                 back to the system, once more the arena -> NULL
 *      release:   wipe -> cache -> depot -> arena
 *
 * Every buffer with memory is in exactly one place, so for each class
 *
 *      existing == out + cached + ready + lost
 *
 * where out, cached and ready are summed over the threads.
 *
 * LIFE. A pool has `handles`, held by its users, and is `alive` once for all of
 * them and once for each descriptor. When handles reach zero it closes; when
 * alive does, its memory goes and its place may be used again. Places are
 * never unmapped, so looking at a pool that is gone is safe, though useless.
 */
#ifndef BUFPOOL_POOL_H
#define BUFPOOL_POOL_H

#include "buf.h"
#include "cache.h"

#define POOLS_MAX 16384		/* pools of a process at one time */
#define POOL_ALIGN 12		/* class sizes are multiples of 1 << this */

struct bufpool {
	/* written at creation only */
	uint64_t id;		/* never used twice */
	uint32_t slot;		/* place in the table, and in each thread's */
	unsigned classes;
	/* where in a cache the shelf is whose class is the first that holds
	 * 2^i bytes; n bytes are held by it or one soon after */
	uint16_t first[64];
	size_t class_size[BUFPOOL_CLASSES_MAX];	/* bytes, ascending */
	size_t floor[BUFPOOL_CLASSES_MAX];	/* buffers that trim leaves */
	uint32_t shelf_limit[BUFPOOL_CLASSES_MAX];
	uint32_t ring_size[BUFPOOL_CLASSES_MAX];
	size_t max_bytes;	/* SIZE_MAX: no limit */
	int numa_node;
	unsigned nodes;		/* kept apart; 1 unless numa_node is local */
	bool prefault, huge_pages;
	char name[BUFPOOL_NAME_MAX];		/* "": unnamed */

	/* away from the hot path: changed by misses, closing, the arena */
	_Alignas(64) _Atomic uint32_t taken;	/* this place is in use */
	_Atomic uint32_t closed;
	_Atomic uint64_t handles;
	_Atomic uint64_t alive;
	_Atomic int numa_available;
	_Atomic size_t committed;		/* bytes */
	_Atomic uint64_t existing[BUFPOOL_CLASSES_MAX];
	_Atomic uint64_t lost[BUFPOOL_CLASSES_MAX];
	struct buf_stack *blank;	/* by node and class, as a depot */
	struct buf_stack blank_alone[BUFPOOL_CLASSES_MAX];	/* one node's */
	struct {	/* counters of buffers of exact size; they only rise */
		_Atomic uint64_t checkouts, releases, gc_returns;
		_Atomic uint64_t bytes_taken, bytes_returned;
	} exact;
	struct {	/* counters of threads that could get no cache */
		_Atomic uint64_t checkouts, releases, misses;
	} stray[BUFPOOL_CLASSES_MAX];
	_Atomic uint64_t peak_out, peak_bytes_out;
	/* of the idle buffers, those that someone is just giving back */
	_Atomic uint64_t promised[BUFPOOL_CLASSES_MAX];
	/* what decay goes by: see pool_look_around */
	_Atomic int64_t looked_at, decay_at;	/* milliseconds */
	_Atomic uint64_t was_idle[BUFPOOL_CLASSES_MAX];
	_Atomic uint32_t was_short[BUFPOOL_CLASSES_MAX];
};

/* The shelf that holds n bytes; shut when n is above every class. */
static inline struct bufpool_shelf *
pool_shelf(const struct bufpool *p, struct cache *k, size_t n)
{
	unsigned log = 63 - (unsigned)__builtin_clzl(n | 1);
	struct bufpool_shelf *s = (void *)((char *)k + p->first[log]);

	while (__builtin_expect(n > s->size, 0))
		s++;
	return s;
}

/* The class that holds n bytes, or CLASS_EXACT. */
static inline unsigned
pool_class(const struct bufpool *p, size_t n)
{
	for (unsigned c = 0; c < p->classes; c++)
		if (n <= p->class_size[c])
			return c;
	return CLASS_EXACT;
}

/* The place of a class of a node in depots, and among the blanks. */
static inline unsigned
pool_ring(const struct bufpool *p, unsigned node, unsigned class)
{
	return node * p->classes + class;
}

/* Drops one of `alive`; the last one takes the pool along. */
void pool_drop(struct bufpool *p);

/* For a buffer that is out and grows, also when its pool is closed: as
 * bufpool_checkout_aligned, the alignment by its binary logarithm. */
struct bufpool_buf *pool_checkout_larger(struct bufpool *p, size_t n,
					 unsigned align);
/* A descriptor that is out and has no memory. NULL + ENOMEM. */
struct bufpool_buf *pool_checkout_bare(struct bufpool *p);

/* The first key in which the pool and the configuration differ, or NULL. */
const char *pool_difference(const struct bufpool *p,
			    const struct bufpool_config *config);

/* For messages: the name, or what to say instead. Any pointer to a pool. */
const char *pool_label(const struct bufpool *p);

/* Every pool in turn, closed ones too, each held until the caller gives it to
 * pool_drop. Start with *cursor 0; false when there are no more. */
bool pool_iterate(unsigned *cursor, struct bufpool **pool);

/* Sums over all threads: buffers in caches, in depots, out. */
uint64_t pool_cached(const struct bufpool *p, unsigned class);
uint64_t pool_ready(const struct bufpool *p, unsigned class);
uint64_t pool_out(const struct bufpool *p, unsigned class);

/* Samples the peaks. */
void pool_sample(struct bufpool *p);

/* Gives all that lies idle in any depot or cache back to the system. Returns
 * bytes. */
size_t pool_give_back(struct bufpool *p);

/* What threads do now and then, in a slow path: sample the peaks, and let some
 * of what lies idle decay, here and in one other pool. */
void pool_look_around(struct bufpool *p);

/* In a fork child: what can no longer be found is lost. */
void pool_after_fork(void);

#endif
