#include "cgroup.h"
#include "expiry.h"
#include "forked.h"
#include "stats.h"
#include "system.h"
#include "ticket.h"
#include "trim.h"

#define EXPIRE_COUNT 8	/* tickets; each may have a buffer to wipe */

/* How much a call still has to give back, and has given. */
struct portion {
	uint64_t count;		/* buffers still to be given back */
	size_t bytes;		/* bytes that the system has taken */
};

static void
give_back_one(struct portion *left, struct bufpool_buf *b)
{
	left->bytes += bp_arena_give(b);
	left->count--;
}

/* Gives buffers of a shelf back, unless its owner is inside. */
static void
give_back_shelf(struct bufpool_shelf *s, struct portion *left)
{
	if (left->count == 0 || shelf_count(s) == 0 || !bp_shelf_claim(s))
		return;
	while (left->count > 0 && shelf_count(s) > 0)
		give_back_one(left, shelf_take(s));
	bp_shelf_unclaim(s);
}

/* Gives idle buffers of a class back: first those in the commons, then those in
 * depots, then those on shelves. They are taken one at a time, because the
 * system may be slow, and meanwhile others can take the rest of a batch. */
static void
give_back_class(struct bufpool *p, unsigned class, struct portion *left)
{
	struct bufpool_buf *b;
	struct cache *k;

	while (left->count > 0 &&
	       (b = bp_caches_take_one(&p->caches, class)) != NULL)
		give_back_one(left, b);
	for_each_marked(k, &p->caches, PART_SHELF(class))
		give_back_shelf(&k->shelf[class], left);
}

static uint64_t
idle_buffers(const struct bufpool *p, unsigned class)
{
	return bp_stats_cached(p, class) + bp_stats_ready(p, class);
}

/*
 * Gives idle buffers of a class back, but leaves the floor, also when several
 * threads do this at once. Each first adds to `promised` how many it is going
 * to give back, and leaves as many more as others have promised. A promise is
 * taken off only after its buffers have gone, so for a moment these are counted
 * as gone twice; the other order would give back a part of the floor. A thread
 * that stops before it takes its promise off only makes others give back less.
 */
static void
give_back_spare(struct bufpool *p, unsigned class, struct portion *left)
{
	_Atomic uint64_t *promised = &p->promised[class];
	uint64_t others = atomic_load(promised), mine, kept_back;

	do {
		uint64_t count = idle_buffers(p, class);
		uint64_t stays = p->layout.floor[class] + others;

		if (count <= stays)
			return;
		mine = count - stays < left->count ? count - stays
						   : left->count;
	} while (!atomic_compare_exchange_strong(promised, &others,
						 others + mine));
	hook("trim: promised");
	kept_back = left->count - mine;
	left->count = mine;
	give_back_class(p, class, left);
	left->count += kept_back;
	atomic_fetch_sub(promised, mine);
}

size_t
bufpool_trim(struct bufpool *p)
{
	struct portion all = { .count = UINT64_MAX };

	forked_check();
	bp_ticket_expire(bp_system_now(), SIZE_MAX);
	all.bytes = bp_arena_retry(&p->arena, SIZE_MAX);
	all.bytes += bp_large_give_back(&p->large, SIZE_MAX, true);
	for (unsigned c = 0; c < p->layout.classes; c++)
		give_back_spare(p, c, &all);
	return all.bytes + bp_arena_give_blanks(&p->arena, SIZE_MAX, true);
}

size_t
bp_trim_idle(const struct bufpool *p)
{
	size_t bytes = atomic_load(&p->large.kept);

	for (unsigned c = 0; c < p->layout.classes; c++)
		bytes += idle_buffers(p, c) * p->layout.size[c];
	return bytes;
}

/* Gives `count` buffers of a class back. `floors`: of all idle ones; otherwise
 * only of those above the floor. */
static void
give_back_some(struct bufpool *p, unsigned class, uint64_t count, bool floors,
	       struct portion *got)
{
	got->count = count;
	if (count > 0 && floors)
		give_back_class(p, class, got);
	else if (count > 0)
		give_back_spare(p, class, got);
}

/* From the largest class to the smallest, gives back as many buffers as fit
 * into what is needed; then, for the rest, one of the smallest class that has
 * one. */
static void
give_back_classes(struct bufpool *p, size_t bytes, bool floors,
		  struct portion *got)
{
	const struct layout *l = &p->layout;

	for (unsigned c = l->classes; c-- > 0 && got->bytes < bytes;)
		give_back_some(p, c, (bytes - got->bytes) / l->size[c], floors,
			       got);
	for (unsigned c = 0; c < l->classes && got->bytes < bytes; c++)
		give_back_some(p, c, 1, floors, got);
}

size_t
bp_trim_bytes(struct bufpool *p, size_t bytes)
{
	struct portion got = { .bytes = bp_arena_retry(&p->arena, SIZE_MAX) };

	if (got.bytes < bytes)
		got.bytes += bp_large_give_up(&p->large, bytes - got.bytes);
	for (int floors = 0; floors <= 1; floors++)
		give_back_classes(p, bytes, floors, &got);
	return got.bytes;
}

/* Whether anything lies idle above the floors. */
static bool
has_spare(const struct bufpool *p)
{
	if (atomic_load(&p->large.kept) > 0)
		return true;
	for (unsigned c = 0; c < p->layout.classes; c++)
		if (idle_buffers(p, c) > p->layout.floor[c])
			return true;
	return false;
}

/* Gives back as many buffers of one class as fit into *left, or one when none
 * fits and nothing has gone yet (`first`). Returns the bytes that the system
 * took. */
static size_t
trim_class(struct bufpool *p, unsigned class, size_t *left, bool first)
{
	size_t size = p->layout.size[class];
	struct portion some = { .count = *left / size };
	uint64_t asked;
	size_t gone;

	if (some.count == 0 && first)
		some.count = 1;
	asked = some.count;
	if (asked > 0)
		give_back_spare(p, class, &some);
	gone = (asked - some.count) * size;
	*left -= gone < *left ? gone : *left;
	return some.bytes;
}

static size_t
trim_some(struct bufpool *p, size_t most, bool *more)
{
	size_t left = most, done;

	/* One mapping at most, because it has more than 1 byte. */
	done = bp_arena_retry(&p->arena, left > 0);
	left -= done < left ? done : left;
	if (left > 0) {
		size_t shed = bp_large_shed(&p->large, left, true);

		done += shed;
		left -= shed < left ? shed : left;
	}
	for (unsigned c = p->layout.classes; c-- > 0 && left > 0;)
		done += trim_class(p, c, &left, left == most);
	if (left > 0) {
		size_t blank = bp_arena_give_blanks(&p->arena, left, false);

		done += blank;
		left -= blank < left ? blank : left;
	}
	*more = left < most &&
	    (has_spare(p) || bp_arena_has_waiting(&p->arena));
	return done;
}

size_t
bufpool_trim_some(struct bufpool *p, size_t max_bytes, int *more)
{
	bool rest;
	size_t done;

	forked_check();
	bp_ticket_expire(bp_system_now(), EXPIRE_COUNT);
	done = trim_some(p, max_bytes < PTRDIFF_MAX ? max_bytes : PTRDIFF_MAX,
			 &rest);
	*more = rest;
	return done;
}

size_t
bp_trim_addresses(struct bufpool *p, size_t bytes)
{
	size_t done = bp_arena_retry(&p->arena, SIZE_MAX);

	return done > 0 ? done : bp_large_give_up(&p->large, bytes);
}

/*
 * Decay goes by time. For each DECAY_EVERY milliseconds that have passed (a
 * step), each class gives back 1/DECAY_PART of what has been idle above its
 * floor all that time, and at least one buffer: about 1/8 in a second. A class
 * that has had a miss meanwhile was short, and is spared DECAY_SPARED steps, or
 * as many as have passed if they are fewer. The same goes for large mappings.
 *
 * One call gives back DECAY_BYTES at most, over all pools, and what the last
 * buffer has beyond that. When it stops there, the time that it has not used
 * is left to the next call, up to DECAY_OWED milliseconds.
 */
#define DECAY_EVERY 250
#define DECAY_PART 32
#define DECAY_BYTES ((size_t)4 << 20)
#define DECAY_OWED 10000
#define DECAY_SPARED 4	/* steps */
#define DECAY_UNIT ((size_t)256 << 10)	/* bytes above the classes */
#define DECAY_OTHERS 4	/* other pools that a call looks at */

/* How many of `of` are given back in so many steps of decay. */
static uint64_t
decay_share(uint64_t of, uint64_t steps)
{
	uint64_t rest = of;

	for (; steps > 0 && rest > 0; steps--)
		rest -= (rest + DECAY_PART - 1) / DECAY_PART;
	return of - rest;
}

static void
decay_class(struct bufpool *p, unsigned class, uint64_t steps, size_t *left)
{
	uint64_t count = idle_buffers(p, class), least, excess;
	size_t size = p->layout.size[class];
	struct portion some;

	hook("decay: counted");
	least = atomic_exchange(&p->was_idle[class], count);
	if (least > count)
		least = count;
	if (atomic_exchange(&p->was_short[class], 0))
		steps -= steps < DECAY_SPARED ? steps : DECAY_SPARED;
	if (least <= p->layout.floor[class])
		return;
	excess = decay_share(least - p->layout.floor[class], steps);
	some = (struct portion){ .count = (*left + size - 1) / size };
	if (some.count > excess)
		some.count = excess;
	*left -= some.count * size < *left ? some.count * size : *left;
	give_back_spare(p, class, &some);
}

static void
decay_large(struct large *l, uint64_t steps, size_t *left)
{
	size_t kept = atomic_load(&l->kept), least, excess;

	least = atomic_exchange(&l->was_kept, kept);
	if (least > kept)
		least = kept;
	if (atomic_exchange(&l->was_short, 0))
		steps -= steps < DECAY_SPARED ? steps : DECAY_SPARED;
	excess = decay_share((least + DECAY_UNIT - 1) / DECAY_UNIT, steps) *
	    DECAY_UNIT;
	if (excess > *left)
		excess = *left;
	if (excess > 0) {
		bp_large_shed(l, excess, false);
		*left -= excess;
	}
}

/*
 * The thread whose exchange moves p->decayed on does the work. Where *left does
 * not suffice, one step counts as done nevertheless. Each call begins with
 * another class, so all classes get their turn, and the steps that are owed
 * come to an end.
 */
static void
decay_pool(struct bufpool *p, int64_t now, size_t *left)
{
	int64_t from = atomic_load_explicit(&p->decayed, memory_order_relaxed);
	int64_t owed = now - from < DECAY_OWED ? now - from : DECAY_OWED;
	unsigned kinds = p->layout.classes + 1, first;
	uint64_t steps = (uint64_t)owed / DECAY_EVERY;

	if (now < from || steps == 0 || *left == 0 ||
	    !atomic_compare_exchange_strong(&p->decayed, &from,
					    now - owed % DECAY_EVERY))
		return;
	first = atomic_fetch_add_explicit(&p->decay_first, 1,
					  memory_order_relaxed);
	for (unsigned i = 0; i < kinds && *left > 0; i++) {
		unsigned kind = (first + i) % kinds;

		if (kind < p->layout.classes)
			decay_class(p, kind, steps, left);
		else
			decay_large(&p->large, steps, left);
	}
	if (*left == 0)
		atomic_fetch_sub(&p->decayed,
				 (int64_t)(steps - 1) * DECAY_EVERY);
}

#define PRESSED 10000	/* milliseconds for which a shortage counts */

/*
 * Where the control group is short of memory, each pool gives back what is idle
 * above its floors, once for each time that this was found: not at each look,
 * because a program that goes on at its limit would get no memory that it has
 * used before. What does not fit into *left is left to the next call. Several
 * threads may do this at once.
 */
static void
press_pool(struct bufpool *p, int64_t now, size_t *left)
{
	int64_t found = bp_cgroup_short(now);
	bool more;
	size_t done;

	if (found == 0 || now - found > PRESSED || *left == 0 ||
	    atomic_load_explicit(&p->pressed, memory_order_relaxed) == found)
		return;
	done = trim_some(p, *left, &more);
	*left -= done < *left ? done : *left;
	atomic_fetch_add_explicit(&p->pressed_bytes, done,
				  memory_order_relaxed);
	if (!more)
		atomic_store_explicit(&p->pressed, found,
				      memory_order_relaxed);
}

void
bufpool_heed_pressure(int on)
{
	bp_cgroup_heed(on != 0);
}

/* Lets up to `count` pools decay, each in its turn. Returns how many they were.
 * They are fewer than `count` when the last pool has had its turn; then the
 * next call begins with the first. */
static unsigned
decay_next(int64_t now, unsigned count, size_t *left)
{
	static _Atomic unsigned cursor;
	unsigned next = atomic_load_explicit(&cursor, memory_order_relaxed);
	unsigned done = 0;
	struct bufpool *p;

	while (done < count && bp_registry_next(&next, &p)) {
		press_pool(p, now, left);
		decay_pool(p, now, left);
		bp_arena_drop(&p->arena);
		done++;
	}
	if (done < count)
		next = 0;
	atomic_store_explicit(&cursor, next, memory_order_relaxed);
	return done;
}

/* At most once in a tick of the coarse clock, because this reads what other
 * threads have just written, which takes the time of thousands of
 * instructions. */
void
bp_trim_maintain(struct bufpool *p, int64_t now)
{
	size_t left = DECAY_BYTES;

	if (atomic_load_explicit(&p->looked_at, memory_order_relaxed) == now)
		return;
	atomic_store_explicit(&p->looked_at, now, memory_order_relaxed);
	bp_ticket_expire(now, EXPIRE_COUNT);
	bp_stats_sample_tick(p);
	press_pool(p, now, &left);
	decay_pool(p, now, &left);
	decay_next(now, DECAY_OTHERS, &left);
	bp_registry_finish(REGISTRY_WORK);
}

/*
 * Reading the clock takes as long as a checkout. So when two looks are less
 * than SLOW milliseconds apart, the number of checkouts to the next look
 * doubles, up to SHELF_STRIDE; otherwise the next checkout looks.
 */
#define SLOW 100

void
bp_trim_due(struct bufpool *p, struct bufpool_shelf *s, size_t n)
{
	int64_t now;

	if (bp_requests_due(p->requests, s, n))
		return;
	now = bp_system_now();
	if (now - s->looked_at >= SLOW || s->stride == 0)
		s->stride = 1;
	else if (s->stride < SHELF_STRIDE)
		s->stride *= 2;
	s->looked_at = now;
	s->due = counter_get(&s->checkouts) + s->stride;
	if (atomic_load_explicit(&p->caches.watch, memory_order_relaxed) ==
	    BUFPOOL_LEAK_SAMPLED)
		bp_shelf_sample(s);
	bp_requests_next(s);
	bp_cache_find_node(s->cache);
	bp_trim_maintain(p, now);
}

void
bp_trim_look_soon(struct bufpool *p)
{
	struct cache *k = thread_own_cache(p->caches.place);

	if (k != NULL)
		for (unsigned c = 0; c < p->layout.classes; c++)
			shelf_look_soon(&k->shelf[c]);
	bp_trim_maintain(p, bp_system_now());
}

static bool
any_has_spare(void)
{
	bool any = false;
	struct bufpool *p;

	for (unsigned i = 0; !any && bp_registry_next(&i, &p);) {
		any = has_spare(p);
		bp_arena_drop(&p->arena);
	}
	return any;
}

#define MAINTAIN_POOLS 64	/* pools that one call looks at */
#define MAINTAIN_WORK (4 * REGISTRY_WORK)
#define MAINTAIN_SOON 10	/* milliseconds */
#define MAINTAIN_LATE 5000

int64_t
bufpool_maintain(void)
{
	int64_t now = bp_system_now(), wait = MAINTAIN_LATE;
	size_t left = DECAY_BYTES;
	unsigned pools;

	forked_check();
	bp_ticket_expire(now, EXPIRE_COUNT);
	pools = decay_next(now, MAINTAIN_POOLS, &left);
	if (!bp_registry_finish(MAINTAIN_WORK) || pools == MAINTAIN_POOLS ||
	    left == 0)
		return MAINTAIN_SOON;
	if (any_has_spare())
		wait = DECAY_EVERY;
	if (bp_expiry_next() - now < wait)
		wait = bp_expiry_next() - now;
	return wait > MAINTAIN_SOON ? wait : MAINTAIN_SOON;
}
