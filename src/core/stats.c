#include <string.h>

#include "arena.h"
#include "pool.h"
#include "thread.h"

#define SUM_OVER_CACHES(sum, k, p, what)                                      \
	for (struct thread *t_ = thread_next(NULL); t_; t_ = thread_next(t_)) \
		if ((k = thread_cache(t_, p)) != NULL)                        \
	sum += (what)

uint64_t
pool_cached(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t n = 0;

	SUM_OVER_CACHES(n, k, p, shelf_count(&k->shelf[class]));
	return n;
}

uint64_t
pool_ready(const struct bufpool *p, unsigned class)
{
	struct cache *k;
	uint64_t n = 0;

	for (unsigned node = 0; node < p->nodes; node++)
		SUM_OVER_CACHES(n, k, p,
				depot_ready(atomic_load(&k->depot),
					    pool_ring(p, node, class)));
	return n;
}

static uint64_t
checkouts(const struct bufpool *p, unsigned class)
{
	uint64_t n = counter_get(&p->stray[class].checkouts);
	struct cache *k;

	SUM_OVER_CACHES(n, k, p, shelf_checkouts(&k->shelf[class]));
	return n;
}

static uint64_t
releases(const struct bufpool *p, unsigned class)
{
	uint64_t n = counter_get(&p->stray[class].releases);
	struct cache *k;

	SUM_OVER_CACHES(n, k, p, counter_get(&k->shelf[class].releases));
	return n;
}

static uint64_t
difference(uint64_t more, uint64_t less)
{
	return more > less ? more - less : 0;
}

uint64_t
pool_out(const struct bufpool *p, unsigned class)
{
	uint64_t n = checkouts(p, class);

	return difference(n, releases(p, class));
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

/*
 * All that was checked out is read before all that was released, so that what
 * goes on meanwhile can make the difference too small, but never larger than it
 * was when the last of the former was read. So the peaks are lower bounds.
 */
void
pool_sample(struct bufpool *p)
{
	uint64_t taken[BUFPOOL_CLASSES_MAX];
	uint64_t out = counter_get(&p->exact.checkouts);
	uint64_t bytes = counter_get(&p->exact.bytes_taken);

	for (unsigned c = 0; c < p->classes; c++)
		taken[c] = checkouts(p, c);
	atomic_thread_fence(memory_order_acquire);
	out = difference(out, counter_get(&p->exact.releases));
	bytes = difference(bytes, counter_get(&p->exact.bytes_returned));
	for (unsigned c = 0; c < p->classes; c++) {
		uint64_t n = difference(taken[c], releases(p, c));

		out += n;
		bytes += n * p->class_size[c];
	}
	raise_peak(&p->peak_out, out);
	raise_peak(&p->peak_bytes_out, bytes);
}

static void
class_stats(const struct bufpool *p, unsigned c, struct bufpool_class_stats *s)
{
	struct cache *k;

	s->misses = counter_get(&p->stray[c].misses);
	SUM_OVER_CACHES(s->misses, k, p, counter_get(&k->shelf[c].misses));
	s->hits = difference(checkouts(p, c), s->misses);
	s->size = p->class_size[c];
	s->count = counter_get(&p->existing[c]);
	s->ready = pool_ready(p, c);
	s->cached = pool_cached(p, c);
	s->out = pool_out(p, c);
}

void
bufpool_get_stats_sized(struct bufpool *p, struct bufpool_stats *given,
			size_t struct_size)
{
	struct bufpool_stats s = { .class_count = p->classes };
	struct cache *k;

	pool_sample(p);
	for (unsigned c = 0; c < p->classes; c++) {
		struct bufpool_class_stats *class = &s.classes[c];

		class_stats(p, c, class);
		s.hits += class->hits;
		s.misses += class->misses;
		s.checked_out += class->out;
		s.bytes_checked_out += class->out * class->size;
		s.cached_bytes += (class->ready + class->cached) * class->size;
		s.lost += counter_get(&p->lost[c]);
	}
	s.misses += counter_get(&p->exact.checkouts);
	s.checked_out += difference(counter_get(&p->exact.checkouts),
				    counter_get(&p->exact.releases));
	s.bytes_checked_out += difference(
	    counter_get(&p->exact.bytes_taken),
	    counter_get(&p->exact.bytes_returned));
	s.peak_checked_out = counter_get(&p->peak_out);
	s.peak_bytes_checked_out = counter_get(&p->peak_bytes_out);
	s.committed_bytes = atomic_load(&p->committed);
	SUM_OVER_CACHES(s.wiped_bytes, k, p, counter_get(&k->wiped_bytes));
	s.gc_returns = counter_get(&p->exact.gc_returns);
	SUM_OVER_CACHES(s.gc_returns, k, p, counter_get(&k->gc_returns));
	s.numa_requested = p->numa_node;
	s.numa_available = atomic_load(&p->numa_available);
	if (p->numa_node != BUFPOOL_NUMA_NONE)
		s.node_count = arena_pages_by_node(p, s.pages_by_node);
	s.struct_size = struct_size;
	memcpy(given, &s, struct_size < sizeof s ? struct_size : sizeof s);
}
