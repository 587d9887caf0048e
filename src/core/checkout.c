#include "checkout.h"
#include "forked.h"
#include "stats.h"
#include "system.h"
#include "trim.h"
#include "wipe.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

static struct bufpool_buf *checkout_empty_slow(struct bufpool_shelf *s,
					       struct bufpool *p, size_t n,
					       unsigned take, uintptr_t site);
static struct bufpool_buf *checkout_gate_slow(struct bufpool_shelf *s,
					      struct bufpool_buf *b, size_t n);
static struct bufpool_buf *checkout_due_slow(struct bufpool_shelf *s,
					     struct bufpool_buf *b, size_t n);
static struct bufpool_buf *checkout_slow(struct bufpool *p, size_t n,
					 unsigned take, uintptr_t site);

/*
 * Every other case is a tail call, so that the common case needs no stack
 * frame.
 */
static inline __attribute__((always_inline)) struct bufpool_buf *
checkout_fast(struct bufpool *p, size_t n, unsigned take, uintptr_t site)
{
	struct cache *k = thread_own_cache(p->caches.place);
	struct bufpool_shelf *s;
	struct bufpool_buf *b;
	uint32_t count;

	if (unlikely(k == NULL))
		return checkout_slow(p, n, take, site_now(site));
	s = cache_shelf(&p->caches, k, n);
	shelf_enter(s);
	count = shelf_count(s);
	if (unlikely(!shelf_has(s, count)))
		return checkout_empty_slow(s, p, n, take, site_now(site));
	b = shelf_pop(s, count);
	if (unlikely(shelf_leave_fast(s)))
		return checkout_gate_slow(s, b, n);
	if (unlikely(counter_add(&s->checkouts, 1) >= s->due))
		return checkout_due_slow(s, b, n);
	return buf_turn_out(b, n);
}

struct bufpool_buf *
bufpool_checkout(struct bufpool *p, size_t n)
{
	return checkout_fast(p, n, TAKE_ANY, SITE_CALLER);
}

struct bufpool_buf *
bufpool_try_checkout(struct bufpool *p, size_t n)
{
	return checkout_fast(p, n, TAKE_READY, SITE_CALLER);
}

struct bufpool_buf *
bp_checkout_asking(struct bufpool *p, size_t n)
{
	return checkout_fast(p, n, TAKE_ANY, SITE_ASK);
}

struct bufpool_buf *
bp_try_checkout_asking(struct bufpool *p, size_t n)
{
	return checkout_fast(p, n, TAKE_READY, SITE_ASK);
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_empty_slow(struct bufpool_shelf *s, struct bufpool *p, size_t n,
		    unsigned take, uintptr_t site)
{
	shelf_leave(s);
	return checkout_slow(p, n, take, site);
}

/* The gate has got a bit meanwhile: CLOSED, CLAIMED or WATCHED. */
static __attribute__((noinline)) struct bufpool_buf *
checkout_gate_slow(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	bp_shelf_leave_slow(s);
	if (counter_add(&s->checkouts, 1) >= s->due)
		return checkout_due_slow(s, b, n);
	return buf_turn_out(b, n);
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_due_slow(struct bufpool_shelf *s, struct bufpool_buf *b, size_t n)
{
	bp_trim_due(pool_of(b), s, n);
	return buf_turn_out(b, n);
}

/* Takes batches until there are enough for half a shelf, because a batch may be
 * small: a release to a claimed shelf, or of another node's buffer, puts one
 * buffer into the depot. The last batch may be a whole one, so `to` has room
 * for two batches. Without a shelf takes one batch. */
static uint32_t
take_ready(struct depot *d, unsigned ring, const struct bufpool_shelf *s,
	   struct bufpool_buf **to)
{
	uint32_t wanted = s != NULL ? (s->full + 1) / 2 : 1, n = 0, more;

	while (n < wanted && (more = bp_depot_take(d, ring, to + n)) > 0)
		n += more;
	return n;
}

/* Returns the last of n buffers, or NULL when n is 0. Puts the others on the
 * shelf, or into the commons when it is NULL, cannot be entered or is full. */
static struct bufpool_buf *
shelve_rest(struct bufpool *p, struct bufpool_shelf *s, struct bufpool_buf **b,
	    uint32_t n)
{
	uint32_t done = 0;

	if (n == 0)
		return NULL;
	n--;
	if (n > 0 && s != NULL && bp_shelf_enter_slow(s)) {
		while (done < n && shelf_put(s, b[done]))
			done++;
		shelf_leave(s);
	}
	if (done < n)
		bp_caches_put_common(&p->caches, b + done, n - done);
	return b[n];
}

/* Takes a ready buffer of the caller's node and refills the shelf. k is NULL
 * for a thread without a cache. */
static struct bufpool_buf *
refill_shelf(struct bufpool *p, struct cache *k, unsigned class)
{
	unsigned node = k ? k->node : bp_arena_node(&p->arena);
	unsigned ring = layout_ring(&p->layout, node, class);
	struct bufpool_shelf *s = k ? &k->shelf[class] : NULL;
	struct bufpool_buf *b[2 * BATCH_MAX];
	uint32_t n = 0;

	/* A shelf that was shut may still hold buffers. */
	if (s != NULL && shelf_count(s) > 0 && bp_shelf_enter_slow(s)) {
		b[0] = shelf_take(s);
		shelf_leave(s);
		if (b[0] != NULL)
			return b[0];
	}
	if (k != NULL)
		n = take_ready(&k->depot, ring, s, b);
	if (n == 0)
		n = take_ready(&p->caches.commons, ring, s, b);
	if (n == 0)
		n = bp_caches_steal(&p->caches, k, ring, b);
	return shelve_rest(p, s, b, n);
}

/* True when the owner has checked nothing out since the last search found the
 * shelf empty. Notes for the next search how many checkouts there were. */
static bool
unused_since(struct cache *k, unsigned class)
{
	_Atomic uint32_t *seen = &k->seen[class];
	uint32_t now = (uint32_t)counter_get(&k->shelf[class].checkouts);

	if (atomic_load_explicit(seen, memory_order_relaxed) == now)
		return true;
	atomic_store_explicit(seen, now, memory_order_relaxed);
	return false;
}

#define SHUT_MOST 8	/* empty shelves that one search claims */

/*
 * Takes a buffer from a shelf whose owner is not inside. Claims an empty shelf,
 * too, when its owner does not use it, so that the shelf loses its mark and
 * later searches do not look at it again.
 */
static struct bufpool_buf *
claim_one(struct bufpool *p, unsigned class)
{
	struct bufpool_buf *b = NULL;
	unsigned empty = 0;
	struct cache *k;

	for_each_marked(k, &p->caches, PART_SHELF(class)) {
		struct bufpool_shelf *s = &k->shelf[class];

		hook("claim: found a shelf");
		if (shelf_count(s) == 0) {
			if (!unused_since(k, class) || empty == SHUT_MOST)
				continue;
			empty++;
		}
		if (!bp_shelf_claim(s))
			continue;
		b = shelf_take(s);
		hook("claim: popped");
		bp_shelf_unclaim(s);
		if (b != NULL)
			break;
	}
	return b;
}

/* Fails with `error`. Counts as a refusal, unless the caller tries again (no
 * TAKE_RECLAIM) or bp_grow_to counts (TAKE_TO_GROW). */
static struct bufpool_buf *
refuse(struct bufpool *p, int error, unsigned take)
{
	if ((take & (TAKE_RECLAIM | TAKE_TO_GROW)) == TAKE_RECLAIM)
		bp_reclaim_refused(p, error);
	errno = error;
	return NULL;
}

/* Whether this checkout is one that the pool was told to refuse. One without
 * TAKE_RECLAIM does not count: here that is a try_checkout, because growth
 * makes no first attempt in such a pool (larger_than in grow.c). */
static bool
fails_on_purpose(struct bufpool *p, unsigned take)
{
	uint64_t every = (uint64_t)p->config.fail_one_in;

	return every != 0 && (take & TAKE_RECLAIM) &&
	    (atomic_fetch_add(&p->to_fail, 1) + 1) % every == 0;
}

/* Nothing is ready, and nothing else was asked for. */
static struct bufpool_buf *
refuse_exhausted(struct bufpool *p)
{
	atomic_fetch_add_explicit(&p->exhausted, 1, memory_order_relaxed);
	errno = EAGAIN;
	return NULL;
}

/* Takes fresh memory; when there is none, a buffer that is idle on another node
 * or in another thread's cache, and then tries again after giving idle memory
 * back. */
static struct bufpool_buf *
take_fresh(struct bufpool *p, unsigned class, unsigned node, unsigned take,
	   bool *miss)
{
	struct want w = { .bytes = p->layout.size[class],
			  .addresses = bp_arena_span(&p->arena, class) };

	for (int tries = 0;; tries++) {
		struct bufpool_buf *b = bp_arena_take(&p->arena, class, node);
		int error = errno;

		*miss = b != NULL;
		if (b == NULL)
			b = bp_caches_take_one(&p->caches, class);
		if (b == NULL)
			b = claim_one(p, class);
		if (b != NULL)
			return b;
		if (!bp_reclaim(p, &w, error, take, tries))
			return refuse(p, error, take);
	}
}

/* A mapping of its own, between guards or not. Where max_bytes limits the pool,
 * one that is to grow gets addresses for twice as many bytes, so that it need
 * not move at once; where these lack, for n, so `w` has those for n. */
static struct bufpool_buf *
take_mapping(struct bufpool *p, size_t n, unsigned align, unsigned take,
	     bool guarded)
{
	size_t range = (take & TAKE_TO_GROW) && n <= PTRDIFF_MAX / 2 ? 2 * n
	    : n;
	struct want w = { .bytes = bp_arena_whole_pages(n) };

	if (__builtin_add_overflow(w.bytes, (size_t)1 << align, &w.addresses)) {
		errno = ENOMEM;
		return NULL;
	}
	for (int tries = 0;; tries++) {
		struct bufpool_buf *b = guarded
		    ? bp_guard_take(&p->guards, n, align)
		    : bp_arena_take_large(&p->arena, n, range,
					  (size_t)1 << align);
		int error = errno;

		if (b != NULL)
			return b;
		if (!bp_reclaim(p, &w, error, take, tries))
			return refuse(p, error, take);
	}
}

/* What leak detection does at a checkout. `hit`: the memory is not fresh. */
static void
record_checkout(struct bufpool *p, struct bufpool_buf *b, bool hit,
		uintptr_t site)
{
	if (hit)
		bp_sites_verify(p, b);
	bp_sites_record(p, b, site);
}

static void
count_large(struct bufpool *p, struct bufpool_buf *b, size_t n, bool hit)
{
	struct large *l = &p->large;

	if (!hit)
		atomic_store_explicit(&l->was_short, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(hit ? &l->hits : &l->misses, 1,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&l->bytes_taken, arena_bytes(b),
				  memory_order_relaxed);
	bp_requests_count(&p->requests->large, 0, n, 1);
}

/* Whether a checkout gets a guarded buffer. `watched`: it is recorded, and may
 * take fresh memory. In a pool hardened "sampled" each checkout that leak
 * detection samples gets one. Where leak detection records all, as many get one
 * as it would sample. */
static bool
wants_guard(struct bufpool *p, bool watched)
{
	if (p->config.hardened == BUFPOOL_HARDENED_ALL)
		return true;
	if (p->config.hardened != BUFPOOL_HARDENED_SAMPLED || !watched)
		return false;
	if (atomic_load(&p->caches.watch) != BUFPOOL_LEAK_ALL)
		return true;
	return bp_sites_count_down(p, &p->guard_left);
}

/* Where max_bytes limits the pool, a kept mapping would be cut to the request,
 * and the buffer could not grow in it. */
static struct bufpool_buf *
take_kept(struct bufpool *p, size_t n, unsigned align, unsigned take)
{
	return (take & TAKE_TO_GROW) && arena_limited(&p->arena) ? NULL
	    : bp_large_take(&p->large, n, align, take & TAKE_FRESH,
			    take & TAKE_TO_GROW);
}

/* A checkout with a mapping of its own: above the classes, aligned to more than
 * LAYOUT_GRAIN, or guarded. */
static struct bufpool_buf *
take_alone(struct bufpool *p, size_t n, unsigned take, uintptr_t site,
	   bool watched, bool guarded)
{
	unsigned align = take >> TAKE_ALIGN_SHIFT;
	struct bufpool_buf *b = guarded ? NULL : take_kept(p, n, align, take);
	bool hit = b != NULL;

	if (!hit && !(take & TAKE_FRESH))
		return refuse_exhausted(p);
	if (!hit)
		b = take_mapping(p, n, align, take, guarded);
	if (b == NULL)
		return NULL;
	b->shelf = &bp_cache_no_shelf;
	count_large(p, b, n, hit);
	bp_trim_maintain(p, bp_system_now());
	if (watched)
		record_checkout(p, b, hit, site);
	return buf_turn_out(b, n);
}

struct bufpool_buf *
bp_checkout_alone(struct bufpool *p, size_t n, unsigned take, uintptr_t site)
{
	bool watched;

	forked_check();
	if (n > PTRDIFF_MAX) {
		errno = EOVERFLOW;
		return NULL;
	}
	if (!(take & TAKE_CLOSED) && pool_closed(p)) {
		errno = ESHUTDOWN;
		return NULL;
	}
	watched = bp_sites_wants_large(p, site);
	if (watched && site == SITE_ASK) {
		errno = ESITE;
		return NULL;
	}
	if (fails_on_purpose(p, take))
		return refuse(p, ENOMEM, take);
	return take_alone(p, n, take, site, watched,
			  wants_guard(p, watched && (take & TAKE_FRESH)));
}

static void
count_checkout(struct bufpool *p, struct cache *k, unsigned class, size_t n,
	       bool miss)
{
	if (miss)
		atomic_store_explicit(&p->was_short[class], 1,
				      memory_order_relaxed);
	if (k != NULL) {
		struct bufpool_shelf *s = &k->shelf[class];

		if (counter_add(&s->checkouts, 1) >= s->due)
			bp_trim_due(p, s, n);
		counter_add(&s->misses, miss);
	} else {
		atomic_fetch_add(&p->caches.uncached[class].checkouts, 1);
		atomic_fetch_add(&p->caches.uncached[class].misses, miss);
		bp_requests_count(&p->requests->class[class],
				  p->layout.size[class], n, 1);
		bp_trim_maintain(p, bp_system_now());
	}
	if (miss)
		bp_stats_sample_tick(p);
}

static struct bufpool_buf *
take_class(struct bufpool *p, struct cache *k, unsigned class, unsigned take,
	   bool *miss)
{
	struct bufpool_buf *b = refill_shelf(p, k, class);

	if (b != NULL)
		return b;
	if (take & TAKE_FRESH)
		return take_fresh(p, class, k ? k->node :
				  bp_arena_node(&p->arena), take, miss);
	b = bp_caches_take_one(&p->caches, class);
	if (b == NULL)
		b = claim_one(p, class);
	return b != NULL ? b : refuse_exhausted(p);
}

static __attribute__((noinline)) struct bufpool_buf *
checkout_slow(struct bufpool *p, size_t n, unsigned take, uintptr_t site)
{
	unsigned class = layout_class(&p->layout, n);
	struct bufpool_buf *b;
	struct cache *k;
	bool miss = false, watched;

	forked_check();
	if (class == CLASS_LARGE || p->config.hardened == BUFPOOL_HARDENED_ALL)
		return bp_checkout_alone(p, n, take, site);
	if (!(take & TAKE_CLOSED) && pool_closed(p)) {
		errno = ESHUTDOWN;
		return NULL;
	}
	k = bp_thread_cache(&p->caches);
	watched = bp_sites_wants(p, k != NULL ? &k->shelf[class] : NULL, site);
	if (watched && site == SITE_ASK) {
		errno = ESITE;
		return NULL;
	}
	if (fails_on_purpose(p, take))
		return refuse(p, ENOMEM, take);
	if (wants_guard(p, watched && (take & TAKE_FRESH)))
		return take_alone(p, n, take, site, watched, true);
	if (k != NULL)
		bp_cache_find_node(k);
	b = take_class(p, k, class, take, &miss);
	if (b == NULL)
		return NULL;
	count_checkout(p, k, class, n, miss);
	b->shelf = k != NULL ? k->shelf[class].named : &bp_cache_no_shelf;
	if (watched)
		record_checkout(p, b, !miss, site);
	return buf_turn_out(b, n);
}

/* The memory is zero already, and is wiped once more because the caller asks
 * for that. */
struct bufpool_buf *
bufpool_checkout_zeroed(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = checkout_fast(p, n, TAKE_ANY, SITE_CALLER);

	if (b != NULL)
		wipe(b->base, b->capacity);
	return b;
}

/* An alignment above that of the classes gets a mapping of its own, which goes
 * home as a large buffer, because no class could take it back. A checkout whose
 * site was listed is to be recorded, which is done on the slow path. */
struct bufpool_buf *
bp_checkout_at(struct bufpool *p, size_t n, unsigned align, unsigned take,
	       uintptr_t site)
{
	struct bufpool_buf *b;

	take |= align << TAKE_ALIGN_SHIFT;
	b = align > LAYOUT_GRAIN_LOG ? bp_checkout_alone(p, n, take, site)
	    : site & SITE_LISTED ? checkout_slow(p, n, take, site)
	    : checkout_fast(p, n, take, site);
	if (b != NULL)
		b->align = (uint8_t)align;
	return b;
}

struct bufpool_buf *
bufpool_checkout_aligned(struct bufpool *p, size_t n, size_t alignment)
{
	if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	return bp_checkout_at(p, n, (unsigned)__builtin_ctzl(alignment),
			      TAKE_ANY, site_now(SITE_CALLER));
}
