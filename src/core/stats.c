#include <string.h>
#include <sys/resource.h>

#include "forked.h"
#include "sites.h"
#include "stats.h"
#include "system.h"
#include "ticket.h"

#define EXPIRE_COUNT 1000	/* tickets */

uint64_t
bp_stats_cached(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t sum = 0;

	for_each_marked(k, &p->caches, PART_SHELF(class))
		sum += shelf_count(&k->shelf[class]);
	return sum;
}

uint64_t
bp_stats_ready(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t sum = 0;

	for (unsigned node = 0; node < p->layout.nodes; node++) {
		unsigned ring = layout_ring(&p->layout, node, class);

		sum += depot_ready(&p->caches.commons, ring);
		for_each_marked(k, &p->caches, PART_DEPOT(class))
			sum += depot_ready(&k->depot, ring);
	}
	return sum;
}

/* `uncached` is read first, so that no checkout is counted twice: see
 * fold_shelf. */
uint64_t
bp_stats_checkouts(const struct bufpool *p, unsigned class)
{
	uint64_t sum = atomic_load(&p->caches.uncached[class].checkouts);
	struct cache *k;

	for_each_cache(k, &p->caches)
		sum += atomic_load(&k->shelf[class].checkouts);
	return sum;
}

/* `uncached` is read last, so that no release is missed: see fold_shelf. */
uint64_t
bp_stats_releases(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t sum = 0;

	for_each_cache(k, &p->caches)
		sum += atomic_load(&k->shelf[class].releases);
	return sum + atomic_load(&p->caches.uncached[class].releases);
}

static uint64_t
sum_misses(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t sum = 0;

	for_each_cache(k, &p->caches)
		sum += atomic_load(&k->shelf[class].misses);
	return sum + atomic_load(&p->caches.uncached[class].misses);
}

static uint64_t
sum_difference(uint64_t more, uint64_t less)
{
	return more > less ? more - less : 0;
}

uint64_t
bp_stats_out(const struct bufpool *p, unsigned class)
{
	uint64_t checkouts = bp_stats_checkouts(p, class);

	return sum_difference(checkouts, bp_stats_releases(p, class));
}

static uint64_t
large_checkouts(const struct bufpool *p)
{
	return counter_get(&p->large.hits) + counter_get(&p->large.misses);
}

struct sum {
	uint64_t buffers, bytes;
};

/*
 * What is out. All counts of checkouts are read before all counts of releases.
 * So calls of other threads meanwhile can make the difference too low, but
 * never higher than it was when the last count of checkouts was read.
 */
static struct sum
sum_out(const struct bufpool *p)
{
	uint64_t taken[BUFPOOL_CLASSES_MAX];
	struct sum sum = { large_checkouts(p),
			   counter_get(&p->large.bytes_taken) };

	for (unsigned c = 0; c < p->layout.classes; c++)
		taken[c] = bp_stats_checkouts(p, c);
	atomic_thread_fence(memory_order_acquire);
	sum.buffers = sum_difference(sum.buffers,
				     counter_get(&p->large.releases));
	sum.bytes = sum_difference(sum.bytes,
				   counter_get(&p->large.bytes_returned));
	for (unsigned c = 0; c < p->layout.classes; c++) {
		uint64_t count = sum_difference(taken[c], bp_stats_releases(p,
									    c));

		sum.buffers += count;
		sum.bytes += count * p->layout.size[c];
	}
	return sum;
}

uint64_t
bp_stats_bytes_out(const struct bufpool *p)
{
	return sum_out(p).bytes;
}

static void
raise_peak(_Atomic uint64_t *peak, uint64_t now)
{
	uint64_t old = atomic_load_explicit(peak, memory_order_relaxed);

	while (now > old &&
	       !atomic_compare_exchange_weak_explicit(
		   peak, &old, now, memory_order_relaxed,
		   memory_order_relaxed))
		;
}

/* The peaks are lower bounds, because sum_out is never too high. */
static void
sample_peaks(struct bufpool *p)
{
	struct sum out = sum_out(p);

	raise_peak(&p->peak_out, out.buffers);
	raise_peak(&p->peak_bytes_out, out.bytes);
}

void
bp_stats_sample_tick(struct bufpool *p)
{
	int64_t now = bp_system_now();

	if (atomic_load_explicit(&p->sampled_at, memory_order_relaxed) == now)
		return;
	atomic_store_explicit(&p->sampled_at, now, memory_order_relaxed);
	sample_peaks(p);
}

static void
class_stats(const struct bufpool *p, unsigned c, struct bufpool_class_stats *s)
{
	s->misses = sum_misses(p, c);
	s->hits = sum_difference(bp_stats_checkouts(p, c), s->misses);
	s->size = p->layout.size[c];
	s->count = counter_get(&p->arena.existing[c]);
	s->ready = bp_stats_ready(p, c);
	s->cached = bp_stats_cached(p, c);
	s->out = bp_stats_out(p, c);
}

static void
request_stats(const struct request_count *r, struct bufpool_request_stats *s)
{
	s->bytes = counter_get(&r->bytes);
	for (unsigned i = 0; i < BUFPOOL_REQUEST_BINS; i++)
		s->bins[i] = counter_get(&r->bin[i]);
}

static void
add_classes(const struct bufpool *p, struct bufpool_stats *s)
{
	s->class_count = p->layout.classes;
	for (unsigned c = 0; c < p->layout.classes; c++) {
		struct bufpool_class_stats *class = &s->classes[c];

		class_stats(p, c, class);
		request_stats(&p->requests->class[c], &s->requests[c]);
		s->limits[c].floor = p->layout.floor[c];
		s->limits[c].shelf = p->layout.shelf[c];
		s->hits += class->hits;
		s->misses += class->misses;
		s->checked_out += class->out;
		s->bytes_checked_out += class->out * class->size;
		s->cached_bytes += (class->ready + class->cached) * class->size;
		s->lost += counter_get(&p->lost[c]);
	}
}

static void
add_large(const struct bufpool *p, struct bufpool_stats *s)
{
	const struct large *l = &p->large;
	uint64_t checkouts = large_checkouts(p);
	uint64_t taken = counter_get(&l->bytes_taken);

	s->large_hits = counter_get(&l->hits);
	s->large_misses = counter_get(&l->misses);
	s->large_cached = counter_get(&l->count);
	s->large_cached_bytes = atomic_load(&l->kept);
	s->large_out = sum_difference(checkouts, counter_get(&l->releases));
	s->large_bytes_out = sum_difference(taken,
					    counter_get(&l->bytes_returned));
	request_stats(&p->requests->large, &s->large_requests);
	s->hits += s->large_hits;
	s->misses += s->large_misses;
	s->cached_bytes += s->large_cached_bytes;
	s->checked_out += s->large_out;
	s->bytes_checked_out += s->large_bytes_out;
	s->gc_returns += counter_get(&l->gc_returns);
	s->lost += counter_get(&l->lost);
}

int64_t
bufpool_resident(struct bufpool *p)
{
	forked_check();
	return bp_arena_resident(&p->arena);
}

static void
add_locks(const struct guards *g, struct bufpool_stats *s)
{
	struct rlimit limit;

	if (!g->lock)
		return;
	s->lock_refused = counter_get(&g->unlocked);
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
	    limit.rlim_cur != RLIM_INFINITY)
		s->lock_limit = limit.rlim_cur;
}

static void
add_refusals(const struct bufpool *p, struct bufpool_stats *s)
{
	s->refused_by_max_bytes = counter_get(&p->refused_by_max_bytes);
	s->refused_by_system = counter_get(&p->refused_by_system);
	s->exhausted = counter_get(&p->exhausted);
	s->large_bytes = p->large.limit;
	if (arena_limited(&p->arena))
		s->max_bytes = p->arena.max_bytes;
}

void
bufpool_get_stats_sized(struct bufpool *p, struct bufpool_stats *given,
			size_t struct_size)
{
	struct bufpool_stats s = { 0 };
	struct cache *k;

	forked_check();
	bp_ticket_expire(bp_system_now(), EXPIRE_COUNT);
	sample_peaks(p);
	add_classes(p, &s);
	add_large(p, &s);
	s.peak_checked_out = counter_get(&p->peak_out);
	s.peak_bytes_checked_out = counter_get(&p->peak_bytes_out);
	s.pressed_bytes = counter_get(&p->pressed_bytes);
	s.committed_bytes = atomic_load(&p->arena.committed);
	s.in_transit = counter_get(&p->in_transit);
	add_refusals(p, &s);
	add_locks(&p->guards, &s);
	s.oldest = (double)bp_sites_oldest(p) / 1000;
	for_each_cache(k, &p->caches) {
		s.wiped_bytes += counter_get(&k->wiped_bytes);
		s.gc_returns += counter_get(&k->gc_returns);
	}
	s.wiped_bytes += counter_get(&p->caches.wiped_bytes);
	s.gc_returns += counter_get(&p->caches.gc_returns);
	s.numa_requested = p->arena.numa_node;
	s.numa_available = atomic_load(&p->arena.numa_available);
	if (p->arena.numa_node != BUFPOOL_NUMA_NONE)
		s.node_count = bp_arena_pages_by_node(&p->arena,
						      s.pages_by_node);
	s.struct_size = struct_size;
	memset(given, 0, struct_size);
	memcpy(given, &s, struct_size < sizeof s ? struct_size : sizeof s);
}
