#include "pages.h"
#include "requests.h"

#define LARGE_FIRST ((size_t)64 << 10)	/* bytes, of those above the classes */

struct requests *
bp_requests_create(void)
{
	return bp_pages_map(sizeof(struct requests));
}

void
bp_requests_destroy(struct requests *r)
{
	if (r != NULL)
		bp_pages_unmap(r, sizeof *r);
}

static unsigned
bin_of_class(size_t size, size_t n)
{
	unsigned bin = BUFPOOL_REQUEST_BINS - 1;

	while (bin > 0 && n <= size / 2) {
		size /= 2;
		bin--;
	}
	return bin;
}

static unsigned
bin_of_large(size_t n)
{
	size_t most = LARGE_FIRST;
	unsigned bin = 0;

	while (bin < BUFPOOL_REQUEST_BINS - 1 && n > most) {
		most *= 4;
		bin++;
	}
	return bin;
}

void
bp_requests_count(struct request_count *r, size_t size, size_t n,
		  uint64_t weight)
{
	unsigned bin = size > 0 ? bin_of_class(size, n) : bin_of_large(n);

	if (n == 0)
		return;
	atomic_fetch_add_explicit(&r->bytes, n * weight, memory_order_relaxed);
	atomic_fetch_add_explicit(&r->bin[bin], weight, memory_order_relaxed);
}

/* A linear congruential generator, whose high bits are used. Each cache begins
 * elsewhere in it, because otherwise the errors of all would add up; they begin
 * at the same numbers in each run, so that what a program finds can be found
 * again. */
static uint32_t
draw_distance(struct cache *k, uint32_t apart)
{
	static _Atomic uint64_t begun;

	if (k->chance == 0)
		k->chance = (atomic_fetch_add(&begun, 1) + 1) *
		    0x9e3779b97f4a7c15u;
	k->chance = k->chance * 6364136223846793005u + 1442695040888963407u;
	return 1 + (uint32_t)(k->chance >> 33) % (2 * apart - 1);
}

bool
bp_requests_due(struct requests *r, struct bufpool_shelf *s, size_t n)
{
	struct request_sample *q = &s->cache->requests[s->class];
	uint64_t now = counter_get(&s->checkouts);
	int64_t since = (int64_t)now - (q->at - q->distance);

	if ((int64_t)now >= q->at) {
		bp_requests_count(&r->class[s->class], s->size, n,
				  (uint64_t)since);
		if (q->apart < REQUESTS_APART)
			q->apart += q->apart / 16 + 1;
		q->distance = draw_distance(s->cache, q->apart);
		q->at = (int64_t)now + q->distance;
	}
	if (now >= q->look)
		return false;
	s->due = q->look;
	bp_requests_next(s);
	return true;
}

void
bp_requests_next(struct bufpool_shelf *s)
{
	struct request_sample *q = &s->cache->requests[s->class];

	q->look = s->due;
	if ((int64_t)s->due > q->at)
		s->due = (uint64_t)q->at;
}
