#include "forked.h"
#include "home.h"
#include "spill.h"
#include "trim.h"

#define DIRTY 4096	/* bytes that cost more to wipe than a system call */

/* Onto the shelf, which spills when it is full. A shelf that is not the owner's
 * now, and a buffer of another node, are passed by, into the depot; a full
 * depot is passed by, into the arena. */
static void
spill(struct bufpool *p, struct cache *k, struct bufpool_buf *b)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	if (b->node == k->node && bp_shelf_open(s)) {
		bool full = !shelf_put(s, b);

		if (full) {
			bp_shelf_spill(s);
			shelf_put(s, b);
		}
		shelf_leave(s);
		if (full)
			bp_trim_spilled(p, s);
	} else {
		if (!bp_depot_push(k->depot, layout_ring(&p->layout, b->node,
							 b->class), b))
			bp_arena_give(b);
		bp_cache_mark_depot(k, s->class);
		shelf_leave(s);
	}
}

/* Whether some buffer leaves for the system now. Then it is this one, if it is
 * dirty: the system clears its pages in any case, and so nobody need wipe
 * them. */
static bool
leaves(struct bufpool *p, struct cache *k, const struct bufpool_buf *b)
{
	const struct bufpool_shelf *s = &k->shelf[b->class];
	unsigned ring = layout_ring(&p->layout, b->node, b->class);

	if (atomic_load(&s->gate) & GATE_CLOSED)
		return true;
	return b->mark >= DIRTY && bp_depot_is_full(k->depot, ring) &&
	    (b->node != k->node || shelf_count(s) >= s->full);
}

static void
release_cached(struct bufpool *p, struct cache *k, struct bufpool_buf *b,
	       bool by_gc)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	counter_add(&s->releases, 1);
	counter_add(&k->gc_returns, by_gc);
	if (leaves(p, k, b)) {
		bp_arena_give(b);
		bp_trim_spilled(p, s);
		return;
	}
	counter_add(&k->wiped_bytes, buf_clean(b));
	spill(p, k, b);
}

/* The first call in a fork child: what is on its way home is not there yet, and
 * so counts as out. */
static void
settle_before(struct bufpool_buf *b)
{
	buf_set_state(b, BUF_OUT);
	bp_forked_settle_slow();
	buf_set_state(b, BUF_CACHED);
}

/* Holds the pool, which may have no other reference than b's. */
void
bp_release_slow(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool *p = pool_of(b);
	int saved = errno;
	struct cache *k;

	if (forked_pending())
		settle_before(b);
	arena_ref(&p->arena);
	if (b->class < BUFPOOL_CLASSES_MAX &&
	    (k = bp_thread_cache(&p->caches)) != NULL)
		release_cached(p, k, b, by_gc);
	else {
		bp_home_uncached(b, by_gc);
		bp_trim_released(p);
	}
	bp_arena_drop(&p->arena);
	errno = saved;
}
