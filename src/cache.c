#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "arena.h"
#include "cache.h"
#include "pool.h"

static bool asymmetric;	/* membarrier works here */

void
cache_init(void)
{
	asymmetric =
	    syscall(SYS_membarrier,
		    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/*
 * The gate was closed with the pool before, if any, and opens last. A depot
 * that cannot be had leaves a cache without classes, closed.
 */
bool
cache_bind(struct cache *k, const struct bufpool *p)
{
	struct depot *d;

	if (atomic_load_explicit(&k->pool_id, memory_order_relaxed) == p->id)
		return true;
	atomic_store(&k->pool_id, 0);
	depot_destroy(atomic_load(&k->depot));
	d = depot_create(p->classes, p->ring_size);
	atomic_store(&k->depot, d);
	k->classes = d ? p->classes : 0;
	if (d == NULL)
		return false;
	k->refills = 0;
	atomic_store(&k->wiped_bytes, 0);
	atomic_store(&k->gc_returns, 0);
	memset(k->shelf, 0, p->classes * sizeof k->shelf[0]);
	for (unsigned c = 0; c < p->classes; c++)
		k->shelf[c].limit = p->shelf_limit[c];
	atomic_store(&k->gate, asymmetric ? 0 : GATE_FENCED);
	atomic_store(&k->pool_id, p->id);
	return true;
}

/* Without membarrier the atomic operations around it do what is needed. */
static void
heavy_fence(void)
{
	if (asymmetric)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0,
			0);
}

/*
 * After an undone claim of a closed cache, look at busy once more: its owner
 * may have left in between, found our claim, and left the emptying to us.
 */
bool
cache_claim(struct cache *k)
{
	uint32_t gate = atomic_load(&k->gate);

	for (;;) {
		if (gate & GATE_CLAIMED)
			return false;
		if (!atomic_compare_exchange_weak(&k->gate, &gate,
						  gate | GATE_CLAIMED))
			continue;
		heavy_fence();
		if (!atomic_load(&k->busy))
			return true;
		gate = atomic_fetch_and(&k->gate, ~(uint32_t)GATE_CLAIMED) &
		    ~(uint32_t)GATE_CLAIMED;
		if (!(gate & GATE_CLOSED))
			return false;
		heavy_fence();
		if (atomic_load(&k->busy))
			return false;
	}
}

/* A close that comes while the cache is claimed is the claimer's to carry out,
 * so the exchange fails if CLOSED has appeared since it was looked for. */
void
cache_unclaim(struct cache *k)
{
	uint32_t gate = atomic_load(&k->gate);
	struct bufpool_buf *b;

	do {
		for (unsigned c = 0; (gate & GATE_CLOSED) && c < k->classes;
		     c++)
			while ((b = cache_pop(k, c)) != NULL)
				arena_give(b);
	} while (!atomic_compare_exchange_strong(
	    &k->gate, &gate, gate & ~(uint32_t)GATE_CLAIMED));
}

/* The rings need no claim: anyone may take from them. Nothing comes after: the
 * owner looks for CLOSED again each time it has pushed. */
static void
cache_drain(struct cache *k)
{
	struct depot *d = atomic_load(&k->depot);
	struct bufpool_buf *b;

	if (cache_claim(k))
		cache_unclaim(k);
	for (unsigned c = 0; c < k->classes; c++)
		while ((b = depot_take(d, c)) != NULL)
			arena_give(b);
}

bool
cache_enter_slow(struct cache *k)
{
	if (atomic_load(&k->gate) & GATE_FENCED)
		atomic_exchange(&k->busy, 1);
	if ((atomic_load(&k->gate) & (GATE_CLAIMED | GATE_CLOSED)) == 0)
		return true;
	cache_leave(k);
	return false;
}

void
cache_leave_slow(struct cache *k)
{
	if (atomic_load(&k->gate) & GATE_FENCED)
		atomic_exchange(&k->busy, 0);
	if (atomic_load(&k->gate) & GATE_CLOSED)
		cache_drain(k);
}

void
cache_close(struct cache *k)
{
	atomic_fetch_or(&k->gate, GATE_CLOSED);
	cache_drain(k);
}

/* Moves the `count` coldest buffers out; the others close up. */
static void
cache_move_out(struct cache *k, unsigned class, uint32_t count)
{
	struct shelf *s = &k->shelf[class];
	uint32_t n = cache_count(k, class);
	struct bufpool_buf *out[SHELF_MAX];

	memcpy(out, s->slot, count * sizeof *out);
	memmove(s->slot, s->slot + count, (n - count) * sizeof *out);
	atomic_store_explicit(&s->n, n - count, memory_order_relaxed);
	for (uint32_t i = 0; i < count; i++)
		if (!depot_push(k->depot, class, out[i]))
			arena_give(out[i]);
}

void
cache_spill(struct cache *k, unsigned class)
{
	cache_move_out(k, class, (cache_count(k, class) + 1) / 2);
}

void
cache_flush(struct cache *k)
{
	if (!cache_enter(k))
		return;
	for (unsigned c = 0; c < k->classes; c++)
		cache_move_out(k, c, cache_count(k, c));
	cache_leave(k);
}

/*
 * fork copies each thread's memory as of one moment in its program order. A
 * thread that was inside may have been moving any of these; what it moved is
 * lost, and counted so by pool_after_fork.
 */
void
cache_abandon(struct cache *k)
{
	uint32_t gate = atomic_load(&k->gate);

	if (atomic_load(&k->busy) || (gate & GATE_CLAIMED))
		for (unsigned c = 0; c < k->classes; c++)
			atomic_store(&k->shelf[c].n, 0);
	atomic_store(&k->busy, 0);
	gate &= GATE_CLOSED | GATE_FENCED;
	if (atomic_load(&k->pool_id) == 0)	/* was being bound */
		gate |= GATE_CLOSED;
	if (!asymmetric)	/* the parent could, and this process cannot */
		gate |= GATE_FENCED;
	atomic_store(&k->gate, gate);
}
