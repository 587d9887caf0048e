#include "stats.h"
#include "system.h"
#include "ticket.h"
#include "trim.h"

/* What is still to be given back, and what the system has got. */
struct portion {
	uint64_t count;		/* buffers */
	size_t bytes;
};

static bool
give_back(struct portion *left, struct bufpool_buf *b)
{
	if (b == NULL)
		return false;
	left->bytes += arena_give(b);
	left->count--;
	return true;
}

/* From a shelf whose owner is not inside. */
static void
give_back_shelf(struct bufpool_shelf *s, struct portion *left)
{
	if (left->count == 0 || shelf_count(s) == 0 || !shelf_claim(s))
		return;
	while (left->count > 0 && give_back(left, shelf_take(s)))
		;
	shelf_unclaim(s);
}

/* Idle buffers of a class, `count` at most: those of no thread first, then
 * those in depots, then those on shelves. Returns bytes. */
static size_t
give_back_class(struct bufpool *p, unsigned class, uint64_t count)
{
	struct portion left = { .count = count };
	struct cache *k;

	for (unsigned node = 0; node < p->layout.nodes; node++) {
		unsigned ring = layout_ring(&p->layout, node, class);

		while (left.count > 0 &&
		       give_back(&left, commons_take(&p->caches.commons, ring)))
			;
		for_each_cache(k, &p->caches)
			while (left.count > 0 &&
			       give_back(&left, depot_take(k->depot, ring)))
				;
	}
	for_each_cache(k, &p->caches)
		give_back_shelf(&k->shelf[class], &left);
	return left.bytes;
}

static uint64_t
idle(const struct bufpool *p, unsigned class)
{
	return stats_cached(p, class) + stats_ready(p, class);
}

/*
 * Gives idle buffers of a class back, `most` at most, as long as the floor
 * stays, also when several threads do so at once: each promises first what it
 * is going to give back, and counts on no buffer that another has promised. A
 * promise is kept until after its buffers have gone, so that for a moment they
 * count as gone twice; the other way round the floor would go. A thread that
 * never comes back to its promise only makes others give back less. Returns
 * bytes.
 */
static size_t
give_back_spare(struct bufpool *p, unsigned class, uint64_t most)
{
	_Atomic uint64_t *promised = &p->promised[class];
	uint64_t others = atomic_load(promised), mine;
	size_t bytes;

	do {
		uint64_t count = idle(p, class);
		uint64_t stays = p->layout.floor[class] + others;

		if (count <= stays)
			return 0;
		mine = count - stays < most ? count - stays : most;
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
	size_t bytes;

	ticket_expire(system_now(), SIZE_MAX);
	bytes = arena_retry(&p->arena);
	bytes += large_give_back(&p->large, SIZE_MAX, true);
	for (unsigned c = 0; c < p->layout.classes; c++)
		bytes += give_back_spare(p, c, UINT64_MAX);
	return bytes;
}

size_t
trim_bytes(struct bufpool *p, size_t bytes)
{
	size_t done = arena_retry(&p->arena);

	if (done < bytes)
		done += large_give_back(&p->large, bytes - done, true);
	for (int floors = 0; floors <= 1; floors++)
		for (unsigned c = p->layout.classes; c-- > 0 && done < bytes;) {
			size_t size = p->layout.size[c];
			uint64_t most = (bytes - done + size - 1) / size;

			done += floors ? give_back_class(p, c, most)
				       : give_back_spare(p, c, most);
		}
	return done;
}

/*
 * Decay. Once in a while, at DECAY_EVERY milliseconds or more, each class gives
 * back a small part of what has lain idle above its floor since the last time:
 * 1/8 of it in a second. A class that has missed since then has been short, and
 * keeps what it has. Whoever moves the time on does the work, for as many
 * buffers as take it some hundred microseconds, or one.
 */
#define DECAY_EVERY 250
#define DECAY_PART 32
#define DECAY_COUNT 128
#define DECAY_BYTES ((size_t)16 << 20)
#define EXPIRE_COUNT 8		/* tickets; each may have a buffer to wipe */

static void
decay_class(struct bufpool *p, unsigned class)
{
	uint64_t most = DECAY_BYTES / p->layout.size[class] + 1;
	uint64_t count = idle(p, class), least, excess;

	hook("decay: counted");
	least = atomic_exchange(&p->was_idle[class], count);
	if (least > count)
		least = count;
	if (atomic_exchange(&p->was_short[class], 0) ||
	    least <= p->layout.floor[class])
		return;
	excess = (least - p->layout.floor[class] + DECAY_PART - 1) / DECAY_PART;
	if (most > DECAY_COUNT)
		most = DECAY_COUNT;
	give_back_spare(p, class, excess < most ? excess : most);
}

static void
decay(struct bufpool *p, int64_t now)
{
	int64_t at = atomic_load_explicit(&p->decay_at, memory_order_relaxed);

	if (now < at || !atomic_compare_exchange_strong(&p->decay_at, &at,
							now + DECAY_EVERY))
		return;
	for (unsigned c = 0; c < p->layout.classes; c++)
		decay_class(p, c);
	large_decay(&p->large, DECAY_PART);
}

/* Looking reads what other threads have just written, which takes the time of
 * thousands of instructions: so not more often than the coarse clock ticks.
 * Pools that nobody calls any more decay with the others. */
void
trim_maintain(struct bufpool *p)
{
	static _Atomic unsigned cursor;
	struct bufpool *other;
	int64_t now = system_now();
	unsigned next;

	if (atomic_load_explicit(&p->looked_at, memory_order_relaxed) == now)
		return;
	atomic_store_explicit(&p->looked_at, now, memory_order_relaxed);
	ticket_expire(now, EXPIRE_COUNT);
	stats_sample(p);
	decay(p, now);
	next = atomic_load_explicit(&cursor, memory_order_relaxed);
	if (registry_next(&next, &other)) {
		decay(other, now);
		arena_drop(&other->arena);
	} else
		next = 0;
	atomic_store_explicit(&cursor, next, memory_order_relaxed);
}
