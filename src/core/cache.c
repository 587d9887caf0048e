#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "arena.h"
#include "cache.h"
#include "pool.h"
#include "table.h"
#include "thread.h"

#ifdef BUFPOOL_HOOKS
void (*bufpool_hook)(const char *where);
#endif

static bool asymmetric;	/* membarrier works here */

struct bufpool_shelf cache_no_shelf = {
	.least = SHUT, .size = SIZE_MAX, .thread = &thread_nobody
};

void
cache_init(void)
{
	asymmetric =
	    syscall(SYS_membarrier,
		    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/* Inside, or nobody knows the shelf yet. */
static void
open_up(struct bufpool_shelf *s)
{
	atomic_store_explicit(&s->limit, s->full, memory_order_relaxed);
	atomic_store_explicit(&s->least, 0, memory_order_release);
}

static void
shut(struct bufpool_shelf *s)
{
	atomic_store(&s->least, SHUT);
	atomic_store(&s->limit, 0);
}

static void
shelf_init(struct bufpool_shelf *s, struct cache *k, unsigned class)
{
	*s = cache_no_shelf;
	s->cache = k;
	s->gate = GATE_CLOSED;
	s->class = class;
}

struct cache *
cache_create(void)
{
	struct cache *k = pages_map(sizeof *k);

	for (unsigned c = 0; k != NULL && c <= BUFPOOL_CLASSES_MAX; c++)
		shelf_init(&k->shelf[c], k, c);
	return k;
}

/*
 * The gates were closed with the pool before, if any, and open last. A depot
 * that cannot be had leaves a cache without classes, closed.
 */
bool
cache_bind(struct cache *k, const struct bufpool *p, const struct thread *t)
{
	struct depot *d;

	if (atomic_load_explicit(&k->pool_id, memory_order_relaxed) == p->id)
		return true;
	atomic_store(&k->pool_id, 0);
	depot_destroy(atomic_load(&k->depot));
	d = depot_create(p->nodes, p->classes, p->ring_size);
	atomic_store(&k->depot, d);
	k->classes = d ? p->classes : 0;
	if (d == NULL)
		return false;
	k->moves = 0;
	k->nodes = p->nodes;
	k->node = arena_node(p);
	atomic_store(&k->wiped_bytes, 0);
	atomic_store(&k->gc_returns, 0);
	for (unsigned c = 0; c <= BUFPOOL_CLASSES_MAX; c++) {
		struct bufpool_shelf *s = &k->shelf[c];

		shelf_init(s, k, c);
		if (c >= p->classes)
			continue;
		s->size = p->class_size[c];
		s->full = p->shelf_limit[c];
		s->thread = t;
		s->home = p->nodes == 1 ? s : &cache_no_shelf;
		s->left = SHELF_CHECKOUTS;
		s->allowance = SHELF_CHECKOUTS;
		atomic_store(&s->gate, asymmetric ? 0 : GATE_FENCED);
		if (asymmetric)
			open_up(s);
	}
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

/* The owner may have been inside, and opened the shelf after it was shut. */
static bool
deserted(struct bufpool_shelf *s)
{
	heavy_fence();
	return !atomic_load(&s->busy) && atomic_load(&s->least) == SHUT;
}

/*
 * After an undone claim of a closed shelf, look once more: its owner may have
 * left in between, found our claim, and left the emptying to us.
 */
bool
shelf_claim(struct bufpool_shelf *s)
{
	uint32_t gate = atomic_load(&s->gate);

	for (;;) {
		if (gate & GATE_CLAIMED)
			return false;
		if (!atomic_compare_exchange_weak(&s->gate, &gate,
						  gate | GATE_CLAIMED))
			continue;
		hook("claim: claimed");
		shut(s);
		if (deserted(s))
			return true;
		hook("claim: found busy");
		gate = atomic_fetch_and(&s->gate, ~(uint32_t)GATE_CLAIMED) &
		    ~(uint32_t)GATE_CLAIMED;
		hook("claim: undone");
		if (!(gate & GATE_CLOSED))
			return false;
		shut(s);
		if (!deserted(s))
			return false;
	}
}

/* A close that comes while the shelf is claimed is the claimer's to carry out,
 * so the exchange fails if CLOSED has appeared since it was looked for. */
void
shelf_unclaim(struct bufpool_shelf *s)
{
	uint32_t gate = atomic_load(&s->gate);
	struct bufpool_buf *b;

	do {
		hook("claim: leaving");
		while ((gate & GATE_CLOSED) && (b = shelf_take(s)) != NULL)
			arena_give(b);
	} while (!atomic_compare_exchange_strong(
	    &s->gate, &gate, gate & ~(uint32_t)GATE_CLAIMED));
}

/* The rings need no claim: anyone may take from them. Nothing comes after: the
 * owner looks for CLOSED again each time it has pushed. */
static void
shelf_drain(struct bufpool_shelf *s)
{
	struct depot *d = atomic_load(&s->cache->depot);
	struct bufpool_buf *b;

	if (shelf_claim(s))
		shelf_unclaim(s);
	for (unsigned r = s->class; r < depot_rings(d); r += s->cache->classes)
		while ((b = depot_take(d, r)) != NULL)
			arena_give(b);
}

bool
shelf_open(struct bufpool_shelf *s)
{
	uint32_t gate;

	shelf_enter(s);
	gate = atomic_load(&s->gate);
	if (gate & GATE_FENCED) {
		atomic_exchange(&s->busy, 1);
		gate = atomic_load(&s->gate);
	}
	if (gate & (GATE_CLAIMED | GATE_CLOSED)) {
		shelf_leave(s);
		return false;
	}
	if (!(gate & GATE_FENCED))
		open_up(s);
	return true;
}

void
shelf_leave_slow(struct bufpool_shelf *s)
{
	if (atomic_load(&s->gate) & GATE_FENCED)
		atomic_exchange(&s->busy, 0);
	if (atomic_load(&s->gate) & GATE_CLOSED)
		shelf_drain(s);
}

void
shelf_renew(struct bufpool_shelf *s)
{
	int32_t left = atomic_load_explicit(&s->left, memory_order_relaxed);
	uint64_t allowance = counter_get(&s->allowance);

	atomic_store_explicit(&s->left, left + SHELF_CHECKOUTS,
			      memory_order_relaxed);
	/* release: pairs with the acquire in shelf_checkouts */
	atomic_store_explicit(&s->allowance, allowance + SHELF_CHECKOUTS,
			      memory_order_release);
}

void
cache_close(struct cache *k)
{
	for (unsigned c = 0; c < k->classes; c++) {
		atomic_fetch_or(&k->shelf[c].gate, GATE_CLOSED);
		hook("close: closed");
		shelf_drain(&k->shelf[c]);
	}
}

/* Moves the `count` coldest buffers out; the others close up. */
static void
shelf_move_out(struct bufpool_shelf *s, uint32_t count)
{
	uint32_t n = shelf_count(s);
	struct cache *k = s->cache;
	struct bufpool_buf *out[SHELF_MAX];

	memcpy(out, s->slot, count * sizeof *out);
	memmove(s->slot, s->slot + count, (n - count) * sizeof *out);
	atomic_store_explicit(&s->n, n - count, memory_order_relaxed);
	hook("spill: moved out");
	for (uint32_t i = 0; i < count; i++)
		if (!depot_push(k->depot, out[i]->node * k->classes + s->class,
				out[i]))
			arena_give(out[i]);
}

void
shelf_spill(struct bufpool_shelf *s)
{
	shelf_move_out(s, (shelf_count(s) + 1) / 2);
}

void
cache_flush(struct cache *k)
{
	for (unsigned c = 0; c < k->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];

		if (shelf_count(s) == 0 || !shelf_open(s))
			continue;
		shelf_move_out(s, shelf_count(s));
		shelf_leave(s);
	}
}

void
cache_leave_to_others(struct cache *k)
{
	cache_flush(k);
	if (k->nodes > 1)
		k->node = NODE_UNKNOWN;
}

/*
 * fork copies each thread's memory as of one moment in its program order. A
 * thread that was inside may have been moving any of these; what it moved is
 * lost, and counted so by pool_after_fork. Whoever adopts the cache opens it.
 */
void
cache_abandon(struct cache *k)
{
	for (unsigned c = 0; c < k->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];
		uint32_t gate = atomic_load(&s->gate);

		if (atomic_load(&s->busy) || (gate & GATE_CLAIMED))
			atomic_store(&s->n, 0);
		atomic_store(&s->busy, 0);
		gate &= GATE_CLOSED | GATE_FENCED;
		if (atomic_load(&k->pool_id) == 0)	/* was being bound */
			gate |= GATE_CLOSED;
		if (!asymmetric)  /* the parent could, this process cannot */
			gate |= GATE_FENCED;
		atomic_store(&s->gate, gate);
		shut(s);
	}
}
