/* Memory that lies idle goes back to the system: when asked, and by and by. */
#include <time.h>

#include "arena.h"
#include "pool.h"
#include "thread.h"

/* Gives idle buffers of a class back until `excess` have gone, those that have
 * waited longest first. */
static size_t
give_back_class(struct bufpool *p, unsigned class, uint64_t excess)
{
	uint64_t left = excess;
	struct bufpool_buf *b;

	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		struct cache *k = thread_cache(t, p);
		struct bufpool_shelf *s;

		if (k == NULL)
			continue;
		for (unsigned node = 0; node < p->nodes; node++)
			while (left > 0 &&
			       (b = depot_take(atomic_load(&k->depot),
				    pool_ring(p, node, class))) != NULL) {
				arena_give(b);
				left--;
			}
		s = &k->shelf[class];
		if (left == 0 || shelf_count(s) == 0 || !shelf_claim(s))
			continue;
		while (left > 0 && (b = shelf_take(s)) != NULL) {
			arena_give(b);
			left--;
		}
		shelf_unclaim(s);
	}
	return (size_t)(excess - left) * p->class_size[class];
}

static uint64_t
idle(const struct bufpool *p, unsigned class)
{
	return pool_cached(p, class) + pool_ready(p, class);
}

/*
 * The same, as long as the floor stays, for several threads at once: each
 * promises first what it is going to give back, and counts on no buffer that
 * another has promised. The promise is kept until after the buffers have gone,
 * so those are rather counted off twice than not at all. A thread that never
 * comes back to take it off only makes others give back less.
 */
static size_t
give_back_spare(struct bufpool *p, unsigned class, uint64_t most)
{
	_Atomic uint64_t *promised = &p->promised[class];
	uint64_t others = atomic_load(promised), mine;
	size_t bytes;

	do {
		uint64_t n = idle(p, class), stays = p->floor[class] + others;

		if (n <= stays)
			return 0;
		mine = n - stays < most ? n - stays : most;
	} while (!atomic_compare_exchange_strong(promised, &others,
						 others + mine));
	hook("trim: promised");
	bytes = give_back_class(p, class, mine);
	atomic_fetch_sub(promised, mine);
	return bytes;
}

size_t
bufpool_trim(struct bufpool *p)
{
	size_t bytes = 0;

	for (unsigned c = 0; c < p->classes; c++)
		bytes += give_back_spare(p, c, UINT64_MAX);
	return bytes;
}

size_t
pool_give_back(struct bufpool *p)
{
	size_t bytes = 0;

	for (unsigned c = 0; c < p->classes; c++)
		bytes += give_back_class(p, c, idle(p, c));
	return bytes;
}

/*
 * Decay. Once in a while, at DECAY_EVERY milliseconds or more, each class gives
 * back a small part of what has lain idle above its floor since the last time,
 * an eighth in a second. A class that has missed since then has been short, and
 * keeps what it has. Whoever moves the time on does the work, for as many
 * buffers as take it some hundred microseconds, or one.
 */
#define DECAY_EVERY 250
#define DECAY_PART 32
#define DECAY_COUNT 128
#define DECAY_BYTES ((size_t)16 << 20)

static void
decay(struct bufpool *p, int64_t now)
{
	int64_t at = atomic_load_explicit(&p->decay_at, memory_order_relaxed);

	if (now < at || !atomic_compare_exchange_strong(&p->decay_at, &at,
							now + DECAY_EVERY))
		return;
	for (unsigned c = 0; c < p->classes; c++) {
		uint64_t most = DECAY_BYTES / p->class_size[c] + 1;
		uint64_t n = idle(p, c), least, excess;

		hook("decay: counted");
		least = atomic_exchange(&p->was_idle[c], n);
		if (least > n)
			least = n;
		if (atomic_exchange(&p->was_short[c], 0) ||
		    least <= p->floor[c])
			continue;
		excess = (least - p->floor[c] + DECAY_PART - 1) / DECAY_PART;
		if (most > DECAY_COUNT)
			most = DECAY_COUNT;
		give_back_spare(p, c, excess < most ? excess : most);
	}
}

/* Looking reads what other threads have just written, which takes the time of
 * thousands of instructions: so not oftener than the coarse clock ticks. Pools
 * that nobody calls any more decay with the others. */
void
pool_look_around(struct bufpool *p)
{
	static _Atomic unsigned cursor;
	struct bufpool *other;
	struct timespec t;
	unsigned next;
	int64_t now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
	if (atomic_load_explicit(&p->looked_at, memory_order_relaxed) == now)
		return;
	atomic_store_explicit(&p->looked_at, now, memory_order_relaxed);
	pool_sample(p);
	decay(p, now);
	next = atomic_load_explicit(&cursor, memory_order_relaxed);
	if (pool_iterate(&next, &other)) {
		decay(other, now);
		pool_drop(other);
	} else
		next = 0;
	atomic_store_explicit(&cursor, next, memory_order_relaxed);
}
