#include "home.h"
#include "sites.h"

static void
home_large(struct bufpool *p, struct bufpool_buf *b, uintptr_t from)
{
	struct large *l = &p->large;

	atomic_fetch_add_explicit(&l->releases, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->bytes_returned, arena_bytes(b),
				  memory_order_relaxed);
	if (from == SITE_GC)
		atomic_fetch_add_explicit(&l->gc_returns, 1,
					  memory_order_relaxed);
	if (b->guarded)
		bp_guard_give(&p->guards, b);
	else
		atomic_fetch_add_explicit(&p->caches.wiped_bytes,
					  bp_large_put(l, b),
					  memory_order_relaxed);
}

static void
home_common(struct bufpool *p, struct bufpool_buf *b, uintptr_t from)
{
	struct caches *cs = &p->caches;

	atomic_fetch_add(&cs->uncached[b->class].releases, 1);
	atomic_fetch_add(&cs->gc_returns, from == SITE_GC);
	if (atomic_load(&cs->closed)) {
		bp_arena_give(b);
		return;
	}
	atomic_fetch_add(&cs->wiped_bytes, buf_clean(b));
	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	bp_caches_put_common(cs, &b, 1);
}

void
bp_home_uncached(struct bufpool_buf *b, uintptr_t from)
{
	struct bufpool *p = pool_of(b);

	sites_forget(b, from);
	if (b->class == CLASS_NONE)
		bp_arena_give(b);
	else if (b->class == CLASS_LARGE)
		home_large(p, b, from);
	else
		home_common(p, b, from);
}
