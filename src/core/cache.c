#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "cache.h"
#include "pages.h"

static bool has_membarrier;	/* as asked at load, or when a fork child
				 * settled; may be refused later */
static const struct owner nobody;

struct bufpool_shelf bp_cache_no_shelf = {
	.empty_at = SHUT, .size = SIZE_MAX, .owner = &nobody
};

void
bp_cache_init(void)
{
	has_membarrier =
	    syscall(SYS_membarrier,
		    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

int
bp_caches_create(struct caches *cs)
{
	const struct layout *l = cs->layout;
	unsigned class = 0;

	for (unsigned log = 0; log < 64; log++) {
		while (class < l->classes && l->size[class] < (size_t)1 << log)
			class++;
		cs->first[log] = (uint16_t)(
		    offsetof(struct cache, shelf) +
		    class * sizeof(struct bufpool_shelf));
	}
	return bp_depot_create(&cs->commons, l, true);
}

void
bp_caches_destroy(struct caches *cs)
{
	struct cache_block *block = atomic_load(&cs->blocks), *next;

	for (; block != NULL; block = next) {
		next = block->next;
		bp_pages_unmap(block, sizeof *block);
	}
	atomic_store(&cs->blocks, NULL);
	bp_depot_destroy(&cs->commons);
}

/* Called by the owner inside the shelf. The order of the two stores does not
 * matter, because a claimer reads both words only after it has read that busy
 * is 0, and sees both stores then. Nothing is known to rest on the release: see
 * shelf_has. */
static void
open_shelf(struct bufpool_shelf *s)
{
	atomic_store_explicit(&s->full_at, s->full, memory_order_relaxed);
	atomic_store_explicit(&s->empty_at, 0, memory_order_release);
}

static uint64_t
bit_of(const struct cache *k)
{
	return (uint64_t)1 << k->bit;
}

/* The load comes first, because most often the mark is there already, and then
 * the line is only read. */
static void
mark_part(struct cache *k, unsigned part)
{
	_Atomic uint64_t *marked = &k->block->marked[part];

	if ((atomic_load_explicit(marked, memory_order_relaxed) &
	     bit_of(k)) == 0)
		atomic_fetch_or(marked, bit_of(k));
}

static void
unmark_part(struct cache *k, unsigned part)
{
	_Atomic uint64_t *marked = &k->block->marked[part];

	if ((atomic_load_explicit(marked, memory_order_relaxed) &
	     bit_of(k)) != 0)
		atomic_fetch_and(marked, ~bit_of(k));
}

void
bp_cache_mark_depot(struct cache *k, unsigned class)
{
	atomic_thread_fence(memory_order_seq_cst);
	mark_part(k, PART_DEPOT(class));
}

/* By a taker that has found the depot empty. See MARKS. */
static void
unmark_depot(struct cache *k, unsigned class)
{
	const struct layout *l = k->caches->layout;

	hook("depot: found empty");
	unmark_part(k, PART_DEPOT(class));
	hook("depot: unmarked");
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned node = 0; node < l->nodes; node++)
		if (depot_ready(&k->depot, layout_ring(l, node, class)) > 0)
			mark_part(k, PART_DEPOT(class));
}

static void
shut_shelf(struct bufpool_shelf *s)
{
	atomic_store(&s->empty_at, SHUT);
	atomic_store(&s->full_at, 0);
}

static void
shelf_init(struct bufpool_shelf *s, struct cache *k, unsigned class,
	   const struct owner *owner)
{
	const struct layout *l = k->caches->layout;

	*s = bp_cache_no_shelf;
	s->cache = k;
	s->class = class;
	if (class == l->classes)
		return;
	s->size = l->size[class];
	s->full = l->shelf[class];
	s->owner = owner;
	s->named = l->nodes == 1 ? s : &bp_cache_no_shelf;
	s->gate = has_membarrier ? 0 : GATE_FENCED;
}

/* Gives the cache a place in a block, which it keeps for as long as the pool
 * exists. When all places of the block are given out, adds another block. */
static bool
list_cache(struct caches *cs, struct cache *k)
{
	struct cache_block *head = atomic_load(&cs->blocks), *fresh;

	for (;;) {
		k->block = head;
		if (head != NULL &&
		    (k->bit = atomic_fetch_add(&head->used, 1)) < CACHE_BLOCK)
			break;
		fresh = bp_pages_map(sizeof *fresh);
		if (fresh == NULL)
			return false;
		fresh->next = head;
		if (atomic_compare_exchange_strong(&cs->blocks, &head, fresh))
			head = fresh;
		else	/* Seldom run: two threads need a block at once. */
			bp_pages_unmap(fresh, sizeof *fresh);
	}
	atomic_store(&k->block->cache[k->bit], k);
	return true;
}

struct cache *
bp_cache_create(struct caches *cs, const struct owner *owner)
{
	unsigned classes = cs->layout->classes;
	size_t bytes = sizeof(struct cache) +
	    (classes + 1) * sizeof(struct bufpool_shelf);
	struct cache *k = bp_pages_map(bytes);

	if (k == NULL)
		return NULL;
	k->id = cs->id;
	k->arena = cs->arena;
	k->caches = cs;
	k->bytes = bytes;
	for (unsigned c = 0; c <= classes; c++)
		shelf_init(&k->shelf[c], k, c, owner);
	if (bp_depot_create(&k->depot, cs->layout, false) == 0 &&
	    list_cache(cs, k))
		return k;
	bp_cache_destroy(k);
	return NULL;
}

/* The ids are compared because the pool's place may belong to a later pool by
 * now. */
bool
bp_cache_hold(const struct cache *k)
{
	if (!bp_arena_try_ref(k->arena))
		return false;
	if (k->arena->id == k->id)
		return true;
	bp_arena_drop(k->arena);
	return false;
}

void
bp_cache_destroy(struct cache *k)
{
	bp_depot_destroy(&k->depot);
	bp_pages_unmap(k, k->bytes);
}

/*
 * Sequentially consistent, for close against attach: either close sees that
 * the cache is live, or its thread sees that the pool was closed. The same for
 * what is watched.
 *
 * Another thread that has read RETIRED may just be claiming a shelf: that
 * claimer does without the heavy fence, and may not have shut the shelf yet. So
 * the shelf is shut here first. The new owner opens it on the slow path and
 * finds CLAIMED there, because that claimer's exchange came before RETIRED is
 * taken away here.
 */
void
bp_cache_attach(struct cache *k)
{
	struct caches *cs = k->caches;

	for (unsigned c = 0; c < cs->layout->classes; c++) {
		shut_shelf(&k->shelf[c]);
		atomic_fetch_and(&k->shelf[c].gate, ~(uint32_t)GATE_RETIRED);
	}
	k->node = bp_arena_node(cs->arena);
	atomic_fetch_or(&k->block->live, bit_of(k));
	hook("enroll: attached");
	k->live = true;
	/* For "sampled" a WATCHED that the last owner has left stays: the next
	 * checkout is the sample that was due. */
	if (atomic_load(&cs->watch) != BUFPOOL_LEAK_SAMPLED)
		bp_cache_follow_watch(k);
	if (atomic_load(&cs->closed))
		bp_cache_close(k);
}

void
bp_caches_drain_commons(struct caches *cs)
{
	struct bufpool_buf *b[BATCH_MAX];

	/* orders the store of `closed` before the loads here */
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned r = 0; r < layout_rings(cs->layout); r++)
		for (uint32_t n; (n = bp_depot_take(&cs->commons, r, b)) > 0;)
			while (n > 0)
				bp_arena_give(b[--n]);
}

/* Sequentially consistent, for close against push: either close finds the
 * buffers, or whoever pushed them sees that the pool was closed. */
void
bp_caches_put_common(struct caches *cs, struct bufpool_buf *const *b,
		     uint32_t count)
{
	bp_depot_put(&cs->commons, b, count);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&cs->closed))
		bp_caches_drain_commons(cs);
}

uint32_t
bp_caches_steal(struct caches *cs, const struct cache *own, unsigned ring,
		struct bufpool_buf **to)
{
	unsigned class = ring % cs->layout->classes, part = PART_DEPOT(class);

	/* Pass 0: the caches after own. Pass 1: from the first up to own, or
	 * all where own is NULL or has no mark itself. */
	for (int pass = own == NULL; pass < 2; pass++) {
		struct cache_walk w = pass == 0 ? caches_after(own, part)
		    : caches_all(cs, part);
		struct cache *k;

		while ((k = caches_next(&w)) != NULL && k != own) {
			uint32_t n;

			hook("steal: found a cache");
			n = bp_depot_take(&k->depot, ring, to);
			if (n > 0)
				return n;
			unmark_depot(k, class);
		}
	}
	return 0;
}

struct bufpool_buf *
bp_caches_take_one(struct caches *cs, unsigned class)
{
	struct bufpool_buf *b[BATCH_MAX];
	uint32_t n = 0;

	for (unsigned node = 0; node < cs->layout->nodes && n == 0; node++) {
		unsigned ring = layout_ring(cs->layout, node, class);

		n = bp_depot_take(&cs->commons, ring, b);
		if (n == 0)
			n = bp_caches_steal(cs, NULL, ring, b);
	}
	if (n > 1)
		bp_caches_put_common(cs, b, n - 1);
	return n > 0 ? b[n - 1] : NULL;
}

/* Moves the depot's buffers to the commons. */
static void
empty_depot(struct cache *k)
{
	struct bufpool_buf *b[BATCH_MAX];

	for (unsigned r = 0; r < layout_rings(k->caches->layout); r++)
		for (uint32_t n; (n = bp_depot_take(&k->depot, r, b)) > 0;)
			bp_caches_put_common(k->caches, b, n);
}

/* Copies the `count` coldest buffers to `out` and moves the others down. Called
 * by whoever is inside. */
static void
shelf_take_cold(struct bufpool_shelf *s, struct bufpool_buf **out,
		uint32_t count)
{
	uint32_t left = shelf_count(s) - count;

	memcpy(out, s->buf, count * sizeof *out);
	memmove(s->buf, s->buf + count, left * sizeof *out);
	atomic_store_explicit(&s->count, left, memory_order_relaxed);
}

/*
 * After the heavy fence, an owner that has not seen the caller's store to
 * the gate will see it at its next load, and what such an owner stored before
 * is visible here. False where membarrier fails. No membarrier is needed where
 *   - the owner is FENCED, because it orders its own side;
 *   - the shelf is RETIRED, because the owner has left by an atomic change of
 *     the gate, and the next one finds the shelf shut (bp_cache_attach);
 *   - the caller is the owner.
 */
static bool
heavy_fence(const struct bufpool_shelf *s, uint32_t gate)
{
	atomic_thread_fence(memory_order_seq_cst);
	return gate & (GATE_FENCED | GATE_RETIRED) ||
	    owner_is_self(s->owner) ||
	    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) ==
	    0;
}

/* Whether the owner is not inside and has not opened the shelf since the caller
 * shut it. Where the heavy fence fails, the owner counts as inside. */
static bool
shelf_deserted(struct bufpool_shelf *s, uint32_t gate)
{
	return heavy_fence(s, gate) && !atomic_load(&s->busy) &&
	    atomic_load(&s->empty_at) == SHUT && atomic_load(&s->full_at) == 0;
}

bool
bp_shelf_claim(struct bufpool_shelf *s)
{
	uint32_t gate = atomic_load(&s->gate);

	for (;;) {
		if (gate & GATE_CLAIMED)
			return false;
		if (!atomic_compare_exchange_weak(&s->gate, &gate,
						  gate | GATE_CLAIMED))
			continue;
		hook("claim: claimed");
		shut_shelf(s);
		if (shelf_deserted(s, gate))
			return true;
		hook("claim: found busy");
		gate = atomic_fetch_and(&s->gate, ~(uint32_t)GATE_CLAIMED) &
		    ~(uint32_t)GATE_CLAIMED;
		hook("claim: undone");
		if (!(gate & GATE_TO_EMPTY))
			return false;
		/* The owner may have left in between, found this claim, and
		 * left the emptying to us. So we look once more, without a
		 * claim: to shut the shelf only sends its owner to the slow
		 * path. */
		shut_shelf(s);
		if (!shelf_deserted(s, gate))
			return false;
	}
}

/* When CLOSED or RETIRED appears while the shelf is claimed, the claimer has to
 * empty it. So the exchange fails if a bit has changed since the gate was read,
 * and the loop goes round again. */
void
bp_shelf_unclaim(struct bufpool_shelf *s)
{
	uint32_t gate = atomic_load(&s->gate), count;
	struct bufpool_buf *out[SHELF_MAX];

	do {
		hook("claim: leaving");
		if ((gate & GATE_TO_EMPTY) && (count = shelf_count(s)) > 0) {
			shelf_take_cold(s, out, count);
			bp_caches_put_common(s->cache->caches, out, count);
		}
		if (shelf_count(s) == 0)
			unmark_part(s->cache, PART_SHELF(s->class));
	} while (!atomic_compare_exchange_strong(
	    &s->gate, &gate, gate & ~(uint32_t)GATE_CLAIMED));
}

bool
bp_shelf_enter_slow(struct bufpool_shelf *s)
{
	uint32_t gate;

	shelf_enter(s);
	gate = atomic_load(&s->gate);
	if (gate & GATE_FENCED) {
		/* the exchange is the full fence E2 */
		atomic_exchange(&s->busy, 1);
		gate = atomic_load(&s->gate);
	}
	if (gate & (GATE_CLAIMED | GATE_CLOSED)) {
		shelf_leave(s);
		return false;
	}
	mark_part(s->cache, PART_SHELF(s->class));
	if (!(gate & (GATE_FENCED | GATE_WATCHED)))
		open_shelf(s);
	return true;
}

/* Owner only, when WATCHED has come. Needs no fence, because nobody but the
 * owner opens its shelf, and nobody relies on its being open. */
static void
shut_if_open(struct bufpool_shelf *s)
{
	if (atomic_load_explicit(&s->empty_at, memory_order_relaxed) != SHUT)
		shut_shelf(s);
}

/* Holds the pool, because the buffers given back here may be the pool's last.
 * When the pool is gone already, nothing is left on the shelf. */
void
bp_shelf_leave_slow(struct bufpool_shelf *s)
{
	uint32_t gate = atomic_load(&s->gate);

	if (gate & GATE_FENCED) {
		/* the exchange is the full fence between E4 and the load */
		atomic_exchange(&s->busy, 0);
		gate = atomic_load(&s->gate);
	}
	if (gate & GATE_WATCHED)
		shut_if_open(s);
	if (!(gate & GATE_CLOSED) || !bp_cache_hold(s->cache))
		return;
	if (bp_shelf_claim(s))
		bp_shelf_unclaim(s);
	empty_depot(s->cache);
	bp_arena_drop(s->cache->arena);
}

void
bp_cache_follow_watch(struct cache *k)
{
	struct caches *cs = k->caches;
	uint32_t watch;

	do {
		watch = atomic_load(&cs->watch);
		hook("watch: read");
		for (unsigned c = 0; c < cs->layout->classes; c++) {
			struct bufpool_shelf *s = &k->shelf[c];

			if (watch != BUFPOOL_LEAK_ALL) {
				atomic_fetch_and(&s->gate,
						 ~(uint32_t)GATE_WATCHED);
				continue;
			}
			atomic_fetch_or(&s->gate, GATE_WATCHED);
			hook("watch: set");
			if (owner_is_self(s->owner))
				shut_if_open(s);
		}
	} while (atomic_load(&cs->watch) != watch);
}

bool
bp_shelf_unwatch(struct bufpool_shelf *s)
{
	uint32_t gate;

	hook("watch: wanted");
	gate = atomic_fetch_and(&s->gate, ~(uint32_t)GATE_WATCHED);
	if (atomic_load(&s->cache->caches->watch) == BUFPOOL_LEAK_ALL)
		bp_cache_follow_watch(s->cache);
	return (gate & GATE_WATCHED) != 0;
}

/* A linear congruential generator, whose high bits are used. */
static void
draw_sample(struct bufpool_shelf *s, int64_t now)
{
	const struct caches *cs = s->cache->caches;

	if (s->chance == 0)
		s->chance = (uintptr_t)s;
	s->chance = s->chance * 6364136223846793005u + 1442695040888963407u;
	s->sample_at = now + (int64_t)caches_draw(cs, s->chance);
}

/* To record a checkout in a loop of compiled Lua takes up to 5 us, as the code
 * for that is cold, where a borrow and a release take 10 ns. So without a limit
 * in time one of 1024 would make that loop slower by a tenth (measured), and by
 * half at worst. */
static bool
too_soon(const struct bufpool_shelf *s)
{
	return atomic_load_explicit(&s->cache->caches->sample,
				    memory_order_relaxed) == 0 &&
	    s->looked_at - s->sampled_at < SAMPLE_AUTO_APART;
}

void
bp_shelf_watch(struct bufpool_shelf *s)
{
	s->sampled_at = s->looked_at;
	hook("watch: due");
	atomic_fetch_or(&s->gate, GATE_WATCHED);
	shut_if_open(s);
	if (atomic_load(&s->cache->caches->watch) == BUFPOOL_LEAK_OFF)
		bp_cache_follow_watch(s->cache);
}

void
bp_shelf_sample(struct bufpool_shelf *s)
{
	int64_t now = (int64_t)counter_get(&s->checkouts);
	int64_t left = s->sample_at - now;
	int64_t most = 2 * (int64_t)caches_sample(s->cache->caches);
	/* What is further away than the most was drawn before the pool was set
	 * to a smaller distance. */
	bool valid = s->chance != 0 && left <= most;

	if (!valid || left <= 0)
		draw_sample(s, now);
	if (valid && left <= 0 && !too_soon(s))
		bp_shelf_watch(s);
	if (s->due > (uint64_t)s->sample_at)
		s->due = (uint64_t)s->sample_at;
}

/* Emptying the depot needs no claim, because any thread may take from it.
 * Nothing is left there later, because after the heavy fence the owner sees
 * CLOSED when it next leaves the shelf from which it has pushed. Where a
 * claimer keeps us out, that one may have fenced before CLOSED was set; so we
 * fence ourselves. Where that is refused, what the owner still pushes goes when
 * it next leaves a shelf, or exits. */
void
bp_cache_close(struct cache *k)
{
	for (unsigned c = 0; c < k->caches->layout->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];
		uint32_t gate = atomic_fetch_or(&s->gate, GATE_CLOSED);

		hook("close: closed");
		if (bp_shelf_claim(s))
			bp_shelf_unclaim(s);
		else
			heavy_fence(s, gate);
	}
	empty_depot(k);
}

static void
shelf_move_out(struct bufpool_shelf *s, uint32_t count)
{
	struct bufpool_buf *out[SHELF_MAX];

	shelf_take_cold(s, out, count);
	hook("spill: moved out");
	mark_part(s->cache, PART_DEPOT(s->class));
	bp_depot_put(&s->cache->depot, out, count);
	bp_cache_mark_depot(s->cache, s->class);
}

void
bp_shelf_spill(struct bufpool_shelf *s)
{
	shelf_move_out(s, (shelf_count(s) + 1) / 2);
}

void
bp_cache_flush(struct cache *k)
{
	for (unsigned c = 0; c < k->caches->layout->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];

		if (shelf_count(s) == 0 || !bp_shelf_enter_slow(s))
			continue;
		shelf_move_out(s, shelf_count(s));
		shelf_leave(s);
	}
}

void
bp_cache_find_node(struct cache *k)
{
	unsigned node = bp_arena_node(k->arena);

	if (node != k->node) {
		/* Seldom run: a thread moves to another node. */
		bp_cache_flush(k);
		k->node = node;
	}
}

/*
 * Adds the shelf's counters to `uncached`, in an order in which nobody who adds
 * them up meanwhile gets more buffers out than there are.
 * bp_stats_checkouts reads `uncached` first and the shelves last, so the shelf
 * is set to 0 before `uncached` rises: no checkout is counted twice.
 * bp_stats_releases reads the shelves first, so `uncached` rises before the
 * shelf is set to 0: no release is missed.
 * shelf_look_soon is called because `due` was counted from the old number.
 */
static void
fold_shelf(struct bufpool_shelf *s, struct caches *cs)
{
	uint64_t checkouts = atomic_exchange(&s->checkouts, 0);

	atomic_fetch_add(&cs->uncached[s->class].checkouts, checkouts);
	atomic_fetch_add(&cs->uncached[s->class].releases, s->releases);
	atomic_store(&s->releases, 0);
	atomic_fetch_add(&cs->uncached[s->class].misses, s->misses);
	atomic_store(&s->misses, 0);
	s->sample_at -= (int64_t)checkouts;
	s->cache->requests[s->class].at -= (int64_t)checkouts;
	shelf_look_soon(s);
}

static void
fold_counters(struct cache *k)
{
	struct caches *cs = k->caches;

	for (unsigned c = 0; c < cs->layout->classes; c++)
		fold_shelf(&k->shelf[c], cs);
	atomic_fetch_add(&cs->wiped_bytes, k->wiped_bytes);
	atomic_store(&k->wiped_bytes, 0);
	atomic_fetch_add(&cs->gc_returns, k->gc_returns);
	atomic_store(&k->gc_returns, 0);
}

/* bp_shelf_unclaim empties the shelf, because its gate says RETIRED. A shelf
 * that another thread has claimed is emptied by that thread. */
void
bp_cache_retire(struct cache *k)
{
	for (unsigned c = 0; c < k->caches->layout->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];

		atomic_fetch_or(&s->gate, GATE_RETIRED);
		hook("exit: retired");
		if (bp_shelf_claim(s))
			bp_shelf_unclaim(s);
	}
	empty_depot(k);
	fold_counters(k);
	k->live = false;
	hook("exit: counted");
	atomic_fetch_and(&k->block->live, ~bit_of(k));
}

/*
 * fork copies each thread's memory as of one moment in its program order. A
 * thread that was inside may have been moving any of the shelf's buffers, and
 * count need not fit the array. So all of that shelf is lost, and
 * bp_fork_count_lost counts it so.
 */
static void
cache_after_fork(struct cache *k)
{
	for (unsigned c = 0; c < k->caches->layout->classes; c++) {
		struct bufpool_shelf *s = &k->shelf[c];
		uint32_t gate = atomic_load(&s->gate);

		if (atomic_load(&s->busy) || (gate & GATE_CLAIMED))
			atomic_store(&s->count, 0);
		atomic_store(&s->busy, 0);
		gate &= GATE_CLOSED | GATE_FENCED | GATE_WATCHED;
		if (!has_membarrier)	/* the parent had it */
			gate |= GATE_FENCED;
		atomic_store(&s->gate, gate);
		shut_shelf(s);
	}
	if (!owner_is_self(k->shelf[0].owner)) {
		bp_cache_retire(k);
		return;
	}
	/* A thread of the parent may just have been changing the gates. */
	if (atomic_load(&k->caches->watch) != BUFPOOL_LEAK_SAMPLED)
		bp_cache_follow_watch(k);
	if (atomic_load(&k->caches->closed))
		bp_cache_close(k);
	else
		empty_depot(k);
}

/* Depots are counted last, when those of threads are empty. Depots of exited
 * threads are counted too, because another thread of the parent may just have
 * been taking from one. */
void
bp_caches_after_fork(struct caches *cs)
{
	struct cache_block *block = atomic_load(&cs->blocks);
	struct cache *k;

	for_each_cache(k, cs)
		cache_after_fork(k);
	for (; block != NULL; block = block->next)
		for (unsigned i = 0; i < CACHE_BLOCK; i++)
			if ((k = atomic_load(&block->cache[i])) != NULL)
				bp_depot_after_fork(&k->depot);
	bp_depot_after_fork(&cs->commons);
}
