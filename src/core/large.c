#include "large.h"
#include "pages.h"

#define PAGE_LOG 12	/* sizes in bins are counted in units of 1 << this */
#define EVICTIONS 8	/* mappings given back, at most, to keep another */

static size_t
count_bins(const struct large *l)
{
	return (size_t)l->arena->layout->nodes * LARGE_BINS;
}

int
bp_large_create(struct large *l)
{
	if (l->limit == 0)
		return 0;
	l->bin = bp_pages_map(count_bins(l) * sizeof *l->bin);
	return l->bin != NULL ? 0 : -1;
}

void
bp_large_destroy(struct large *l)
{
	if (l->bin != NULL)
		bp_pages_unmap(l->bin, count_bins(l) * sizeof *l->bin);
	l->bin = NULL;
}

/* The bin of mappings of so many bytes: by the highest bit of the size, and the
 * three bits after that. */
static unsigned
bin_of(size_t bytes)
{
	size_t units = (bytes + ((size_t)1 << PAGE_LOG) - 1) >> PAGE_LOG;
	unsigned log = 63 - (unsigned)__builtin_clzl(units | 1);
	size_t step = log >= 3 ? units >> (log - 3) : units << (3 - log);

	return log * LARGE_STEPS + (unsigned)(step & (LARGE_STEPS - 1));
}

static struct stack *
bin_at(struct large *l, unsigned node, unsigned number)
{
	return &l->bin[number * l->arena->layout->nodes + node];
}

static void
count_kept(struct large *l, size_t bytes, uint64_t mappings)
{
	atomic_fetch_add_explicit(&l->kept, bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->count, mappings, memory_order_relaxed);
}

/* The fence is sequentially consistent, so that either bp_large_close finds the
 * mapping or this load sees that the pool was closed. spec/model/kept.lua has
 * these steps, and those of bp_caches_put_common. */
static void
push_kept(struct large *l, struct bufpool_buf *b)
{
	ASAN_POISON_MEMORY_REGION(b->base, b->span);
	buf_turn(b, BUF_CACHED, BUF_READY, 0, "keep");
	bp_buf_push(bin_at(l, b->node, bin_of(b->span)), b);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&l->closed, memory_order_relaxed) != 0)
		bp_large_give_back(l, SIZE_MAX, true);
}

/* The mapping still counts as kept. A caller that does not push it back takes
 * it off the count. */
static struct bufpool_buf *
pop_kept(struct stack *bin)
{
	struct bufpool_buf *b = bp_buf_pop(bin);

	if (b == NULL)
		return NULL;
	hook("large: taken");
	buf_turn(b, BUF_READY, BUF_CACHED, 0, "take");
	return b;
}

static size_t
give_kept(struct large *l, struct bufpool_buf *b)
{
	count_kept(l, -b->span, (uint64_t)-1);
	return bp_arena_give(b);
}

/* The top mapping of this bin, if it holds n bytes or, with `fresh`, can be
 * made to hold them; otherwise it is pushed back. */
static struct bufpool_buf *
take_from(struct large *l, struct stack *bin, size_t n, unsigned align,
	  bool fresh)
{
	struct bufpool_buf *b = pop_kept(bin);
	uintptr_t mask = ((uintptr_t)1 << align) - 1;
	size_t span;

	if (b == NULL)
		return NULL;
	span = b->span;
	if ((span >= n && ((uintptr_t)b->base & mask) == 0) ||
	    (fresh && bp_arena_extend(b, n, n))) {
		count_kept(l, -span, (uint64_t)-1);
		if (arena_limited(b->arena))
			bp_arena_shrink(b, n);
		return b;
	}
	push_kept(l, b);
	return NULL;
}

struct bufpool_buf *
bp_large_take(struct large *l, size_t n, unsigned align, bool fresh,
	      bool larger)
{
	unsigned bin = bin_of(n), last = larger ? LARGE_BINS - 1
					 : bin + LARGE_STEPS - 1;
	unsigned least = bin > LARGE_STEPS ? bin - LARGE_STEPS : 0;
	unsigned node = bp_arena_node(l->arena);
	struct bufpool_buf *b = NULL;

	if (atomic_load_explicit(&l->count, memory_order_relaxed) == 0)
		return NULL;
	fresh = fresh && align <= PAGE_LOG;
	for (unsigned i = bin; i <= last && i < LARGE_BINS && !b; i++)
		b = take_from(l, bin_at(l, node, i), n, align, fresh);
	for (unsigned i = bin; i-- > least && fresh && !b;)
		b = take_from(l, bin_at(l, node, i), n, align, fresh);
	if (b != NULL && larger)
		b->capacity = bp_arena_whole_pages(n);
	return b;
}

/* If so many bytes more may be kept, counts them as kept and returns true. */
static bool
reserve_kept(struct large *l, size_t bytes)
{
	size_t kept = atomic_load_explicit(&l->kept, memory_order_relaxed);

	do
		if (bytes > l->limit || kept > l->limit - bytes)
			return false;
	while (!atomic_compare_exchange_weak_explicit(
	    &l->kept, &kept, kept + bytes, memory_order_relaxed,
	    memory_order_relaxed));
	atomic_fetch_add_explicit(&l->count, 1, memory_order_relaxed);
	return true;
}

/* Others make room for the mapping that came home last, because it is warm. */
static bool
make_room_for(struct large *l, size_t bytes)
{
	for (int i = 0; i < EVICTIONS && bytes <= l->limit; i++) {
		if (reserve_kept(l, bytes))
			return true;
		if (bp_large_give_back(l, 1, false) == 0)
			return false;
	}
	return false;
}

/* A mapping above the limit is cut to the part that was written, if that part
 * alone is still large and so can serve a request. */
size_t
bp_large_put(struct large *l, struct bufpool_buf *b)
{
	size_t wiped;

	if (b->consumed)
		buf_rewind(b);
	if (arena_limited(l->arena))
		bp_arena_shrink(b, buf_size(b));
	if (l->bin != NULL && b->span > l->limit &&
	    layout_class(l->arena->layout, b->mark) == CLASS_LARGE)
		bp_arena_shrink(b, b->mark);
	if (l->bin == NULL || atomic_load(&l->closed) ||
	    arena_bytes(b) != b->span ||
	    !make_room_for(l, b->span)) {
		bp_arena_give(b);
		return 0;
	}
	b->capacity = b->span;
	wiped = buf_clean(b);
	hook("large: keeping");
	push_kept(l, b);
	return wiped;
}

size_t
bp_large_give_back(struct large *l, size_t bytes, bool all)
{
	struct bufpool_buf *b;
	size_t done = 0;

	if (atomic_load_explicit(&l->count, memory_order_relaxed) == 0)
		return 0;
	for (size_t i = count_bins(l); i-- > 0;)
		while (done < bytes && (b = pop_kept(&l->bin[i])) != NULL) {
			size_t gone = give_kept(l, b);

			if (gone == 0 && !all)
				return done;
			done += gone;
		}
	return done;
}

/* Gives the last `bytes` of a mapping back to the system and returns how many
 * it took. The caller has popped the mapping and pushes it back. */
static size_t
cut_kept(struct large *l, struct bufpool_buf *b, size_t bytes)
{
	size_t before = b->span;

	bp_arena_shrink(b, before - bytes);
	count_kept(l, b->span - before, 0);
	return before - b->span;
}

size_t
bp_large_give_up(struct large *l, size_t bytes)
{
	const struct layout *layout = l->arena->layout;
	struct bufpool_buf *b;
	size_t done = 0;

	if (atomic_load_explicit(&l->count, memory_order_relaxed) == 0)
		return 0;
	for (size_t i = count_bins(l); i-- > 0 && done < bytes;)
		while (done < bytes && (b = pop_kept(&l->bin[i])) != NULL) {
			size_t left = bp_arena_whole_pages(bytes - done);
			size_t part = 0;

			if (b->span > left && layout_class(
				layout, b->span - left) == CLASS_LARGE)
				part = cut_kept(l, b, left);
			if (part > 0)
				push_kept(l, b);
			done += part > 0 ? part : give_kept(l, b);
		}
	return done;
}

/* Ends at the first mapping that is larger than what is still to go, also when
 * the system refuses to take its end. */
size_t
bp_large_shed(struct large *l, size_t bytes, bool all)
{
	size_t left = bp_arena_whole_pages(bytes);
	struct bufpool_buf *b;

	bytes = left;
	if (atomic_load_explicit(&l->count, memory_order_relaxed) == 0)
		return 0;
	for (size_t i = 0; i < count_bins(l) && left > 0; i++)
		while (left > 0 && (b = pop_kept(&l->bin[i])) != NULL) {
			size_t gone;

			if (b->span > left) {
				left -= cut_kept(l, b, left);
				push_kept(l, b);
				return bytes - left;
			}
			gone = give_kept(l, b);
			if (gone == 0 && !all)
				return bytes - left;
			left -= gone;
		}
	return bytes - left;
}

void
bp_large_close(struct large *l)
{
	atomic_store(&l->closed, 1);
	atomic_thread_fence(memory_order_seq_cst);
	bp_large_give_back(l, SIZE_MAX, true);
}

void
bp_large_after_fork(struct large *l)
{
	atomic_store(&l->kept, 0);
	atomic_store(&l->count, 0);
	for (size_t i = 0; l->bin != NULL && i < count_bins(l); i++) {
		struct buf_sum sum = bp_buf_sum(&l->bin[i]);

		count_kept(l, sum.bytes, sum.count);
	}
}
