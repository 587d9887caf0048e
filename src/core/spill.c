#include "spill.h"
#include "trim.h"

static void
release_large(struct bufpool *p, struct bufpool_buf *b, bool by_gc)
{
	struct large *l = &p->large;

	atomic_fetch_add_explicit(&l->releases, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->bytes_returned, buf_size(b),
				  memory_order_relaxed);
	if (by_gc)
		atomic_fetch_add_explicit(&l->gc_returns, 1,
					  memory_order_relaxed);
	atomic_fetch_add_explicit(&p->caches.wiped_bytes, large_put(l, b),
				  memory_order_relaxed);
}

/* Onto the shelf, which spills when it is full. A shelf that is not the owner's
 * now, and a buffer of another node, are passed by, into the depot; a full
 * depot is passed by, into the arena. */
static void
spill(struct bufpool *p, struct cache *k, struct bufpool_buf *b)
{
	struct bufpool_shelf *s = &k->shelf[b->class];

	if (atomic_load(&s->gate) & GATE_CLOSED) {
		arena_give(b);
	} else if (b->node == k->node && shelf_open(s)) {
		bool full = !shelf_put(s, b);

		if (full) {
			shelf_spill(s);
			shelf_put(s, b);
		}
		shelf_leave(s);
		if (full)
			trim_moved(p, k);
	} else {
		if (!depot_push(k->depot, layout_ring(&p->layout, b->node,
						      b->class), b))
			arena_give(b);
		shelf_leave(s);
	}
}

static void
release_cached(struct bufpool *p, struct cache *k, struct bufpool_buf *b,
	       bool by_gc)
{
	counter_add(&k->wiped_bytes, buf_clean(b));
	counter_add(&k->shelf[b->class].releases, 1);
	counter_add(&k->gc_returns, by_gc);
	spill(p, k, b);
}

/* By a thread that is exiting, or could get no cache. */
static void
release_uncached(struct bufpool *p, struct bufpool_buf *b, bool by_gc)
{
	struct caches *cs = &p->caches;

	atomic_fetch_add(&cs->wiped_bytes, buf_clean(b));
	atomic_fetch_add(&cs->uncached[b->class].releases, 1);
	atomic_fetch_add(&cs->gc_returns, by_gc);
	b->shelf = &cache_no_shelf;
	caches_put_common(cs, b);
}

/* Holds the pool, which may have no other reference than b's. */
void
release_slow(struct bufpool_buf *b, bool by_gc)
{
	struct bufpool *p = pool_of(b);
	int saved = errno;
	struct cache *k;

	arena_ref(&p->arena);
	if (b->class == CLASS_NONE)
		arena_give(b);
	else if (b->class == CLASS_LARGE)
		release_large(p, b, by_gc);
	else if ((k = thread_cache(&p->caches)) != NULL)
		release_cached(p, k, b, by_gc);
	else
		release_uncached(p, b, by_gc);
	arena_drop(&p->arena);
	errno = saved;
}
