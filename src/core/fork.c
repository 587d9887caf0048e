#include <string.h>

#include "fork.h"
#include "sites.h"
#include "stats.h"

void
bp_fork_adopt(struct bufpool *p)
{
	bp_caches_after_fork(&p->caches);
	bp_large_after_fork(&p->large);
	memset(&p->tally, 0, sizeof p->tally);
	atomic_store(&p->in_transit, 0);
	atomic_store(&p->large.lost, 0);
	atomic_store(&p->large.releases, p->large.hits + p->large.misses);
	atomic_store(&p->large.bytes_returned, p->large.bytes_taken);
}

/* Corrects the counters so that checkouts - releases == out. They may differ
 * because a thread of the parent had moved a buffer and not yet counted it. */
static void
correct_counters(_Atomic uint64_t *checkouts, _Atomic uint64_t *releases,
		 uint64_t sum_checkouts, uint64_t sum_releases, uint64_t out)
{
	uint64_t more = out - (sum_checkouts - sum_releases);

	if (more <= INT64_MAX)
		*checkouts += more;
	else
		*releases -= more;
}

void
bp_fork_count_lost(struct bufpool *p)
{
	p->large.lost -= p->large.count;
	for (unsigned c = 0; c < p->layout.classes; c++) {
		uint64_t out = p->tally.out[c];

		correct_counters(&p->caches.uncached[c].checkouts,
				 &p->caches.uncached[c].releases,
				 bp_stats_checkouts(p, c),
				 bp_stats_releases(p, c), out);
		p->promised[c] = 0;
		p->lost[c] = p->arena.existing[c] - out -
		    bp_stats_cached(p, c) - bp_stats_ready(p, c);
	}
}

/* Bytes of a large buffer. Another thread of the parent may just have been
 * growing it, so that only some of base, span and capacity have changed; hence
 * the smaller of the two sizes. */
static size_t
tally_bytes(const struct bufpool_buf *b)
{
	size_t bytes = arena_bytes(b);

	return bytes < b->span ? bytes : b->span;
}

/* Counts a descriptor that holds its pool. There may be millions of these, so
 * for a buffer of a class only the first cache line of the descriptor is read.
 * A large buffer that is READY or CACHED is kept, or lost. */
static void
tally_one(const struct table *pools, uint32_t number, unsigned state)
{
	const struct bufpool_buf *b = bp_buf_at(number);
	bool out = state == BUF_OUT || state == BUF_FROZEN;
	struct bufpool *p = sites_has(b) ? pool_of(b)
	    : table_at(pools, b->place);

	if (!out)
		bp_sites_after_fork(number);
	p->tally.descriptors++;
	if (out && b->class < BUFPOOL_CLASSES_MAX)
		p->tally.out[b->class]++;
	if (out && b->class == CLASS_LARGE) {
		p->large.releases--;
		p->large.bytes_returned -= tally_bytes(b);
	}
	if (!out && b->class == CLASS_LARGE)
		p->large.lost++;
}

void
bp_fork_tally(const struct table *pools)
{
	for (uint32_t i = 0, used = bp_buf_table_used(); i < used; i++) {
		unsigned state = atomic_load(&bp_buf_at(i)->word) & BUF_STATE;

		if (state != BUF_BLANK)
			tally_one(pools, i, state);
	}
}
