#include <ck_pr.h>

/*
 * Up to 0.7.2 the consumer of ck_ring orders its read of the slot before the
 * exchange of the head by a store-atomic fence, where a load-atomic one is
 * needed (upstream c7945fe). x86 does not reorder these; elsewhere a full
 * fence takes its place.
 */
#if !defined(__x86_64__) && !defined(__i386__)
#define ck_pr_fence_store_atomic ck_pr_fence_memory
#endif
#include <ck_ring.h>

#include "arena.h"
#include "depot.h"
#include "pages.h"

/* ck_ring keeps its head and tail on separate cache lines by padding. The
 * alignment keeps two rings from sharing a line, too. */
struct ring {
	_Alignas(64) struct ck_ring ring;
	struct ck_ring_buffer *slots;
};

/* The mapping holds first the rings, then their slots, then the batches. */
int
bp_depot_create(struct depot *d, const struct layout *l, bool common)
{
	unsigned all = layout_rings(l), rings = common ? 0 : all;
	size_t slots_at = rings * sizeof(struct ring), slots = 0, batches_at;

	for (unsigned i = 0; i < rings; i++)
		slots += layout_slots(l, i) *
		    sizeof(struct ck_ring_buffer);
	batches_at = slots_at + slots;
	*d = (struct depot){ .layout = l, .batches = d->of_one_node };
	d->bytes = batches_at +
	    (l->nodes > 1 ? all * sizeof(struct batches) : 0);
	if (d->bytes == 0)
		return 0;
	d->map = bp_pages_map(d->bytes);
	if (d->map == NULL)
		return -1;
	if (l->nodes > 1)
		d->batches = (void *)(d->map + batches_at);
	if (!common)
		d->ring = (void *)d->map;
	for (unsigned i = 0; i < rings; i++) {
		uint32_t size = layout_slots(l, i);

		ck_ring_init(&d->ring[i].ring, size);
		d->ring[i].slots = (void *)(d->map + slots_at);
		slots_at += size * sizeof(struct ck_ring_buffer);
	}
	return 0;
}

void
bp_depot_destroy(struct depot *d)
{
	if (d->map != NULL)
		bp_pages_unmap(d->map, d->bytes);
	d->map = NULL;
}

/*
 * A batch is linked like a binary heap, but without a heap's order: b[i] tells
 * how many descriptors away from itself b[2i + 1] and b[2i + 2] are. Most often
 * another core has written these descriptors last. In a chain each would have
 * to arrive before the next could be asked for; here 30 arrive in the time that
 * five would take in a chain.
 *
 * Only the thread that has the batch reads or writes these words.
 */
static struct bufpool_buf *
tie_batch(struct bufpool_buf *const *b, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		buf_turn_own(b[i], BUF_CACHED, BUF_READY, "spill");
		if (i > 0)
			b[(i - 1) / 2]->batch[(i - 1) % 2] =
			    (int32_t)(b[i] - b[(i - 1) / 2]);
	}
	b[0]->batched = (uint8_t)count;
	return b[0];
}

static uint32_t
untie_batch(struct bufpool_buf *first, struct bufpool_buf **b)
{
	uint32_t count = first->batched;

	first->batched = 1;	/* as bp_buf_sum counts it */
	b[0] = first;
	for (uint32_t i = 1; i < count; i++) {
		b[i] = b[(i - 1) / 2] + b[(i - 1) / 2]->batch[(i - 1) % 2];
		__builtin_prefetch(b[i], 1);
	}
	for (uint32_t i = 0; i < count; i++)
		buf_turn_own(b[i], BUF_READY, BUF_CACHED, "refill");
	return count;
}

/*
 * The ring publishes the buffers: what was written to them and to their
 * descriptors before the push (the wipe, the batch) is ordered before
 * ck_ring's store of p_tail, and the taker loads p_tail before it touches
 * them. ck_ring orders stores only. The fence here is a release: what the last
 * owner has read also comes before what the taker will write. The stack
 * publishes, too, because stack_push is a release and stack_pop an acquire.
 */
static void
push_batch(struct depot *d, unsigned ring, struct bufpool_buf *first)
{
	struct ring *r;
	bool done;

	hook("depot: pushing");
	if (d->ring == NULL) {
		bp_buf_push(&d->batches[ring].stack, first);
		return;
	}
	r = &d->ring[ring];
	tsan_give(first);
	atomic_thread_fence(memory_order_release);
	tsan_ring_begin();
	done = ck_ring_enqueue_spmc(&r->ring, r->slots, first);
	tsan_ring_end();
	hook("depot: pushed");
	if (!done)
		/* Not run: the count left room. */
		bp_buf_corrupt(first, "spill");
}

static struct bufpool_buf *
pop_batch(struct depot *d, unsigned ring)
{
	struct bufpool_buf *first;
	struct ring *r;

	if (d->ring == NULL)
		return bp_buf_pop(&d->batches[ring].stack);
	r = &d->ring[ring];
	tsan_ring_begin();
	/* One that fails may have stored there. */
	if (!ck_ring_dequeue_spmc(&r->ring, r->slots, &first))
		first = NULL;
	tsan_ring_end();
	if (first != NULL)
		tsan_take(first);
	return first;
}

/*
 * A batch has one buffer at least. So while fewer buffers are counted than
 * there are slots, less the one that ck_ring keeps free, a slot is free. The
 * acquire pairs with the release in bp_depot_take: when a batch is no longer
 * counted, its slot is seen to be free.
 */
uint64_t
bp_depot_room(const struct depot *d, unsigned ring)
{
	uint64_t ready = atomic_load_explicit(&d->batches[ring].ready,
					      memory_order_acquire);

	return d->ring == NULL ? UINT64_MAX
	    : layout_slots(d->layout, ring) - 1 - ready;
}

/* Buffers are counted before they can be taken, so that the count is never too
 * low. */
void
bp_depot_put(struct depot *d, struct bufpool_buf *const *b, uint32_t count)
{
	for (uint32_t n; count > 0; b += n, count -= n) {
		unsigned class = b[0]->class, node = b[0]->node;
		unsigned ring = layout_ring(d->layout, node, class);
		uint64_t room = bp_depot_room(d, ring);
		uint32_t most = (d->layout->shelf[class] + 1) / 2;

		n = 1;	/* b[0]; without room it goes to the system */
		if (room == 0) {
			bp_arena_give(b[0]);
			continue;
		}
		while (n < count && n < most && n < room && b[n]->node == node)
			n++;
		atomic_fetch_add_explicit(&d->batches[ring].ready, n,
					  memory_order_relaxed);
		push_batch(d, ring, tie_batch(b, n));
	}
}

/* The count is loaded first, so that a thread that finds nothing does not touch
 * the cache lines of the ring. */
uint32_t
bp_depot_take(struct depot *d, unsigned ring, struct bufpool_buf **to)
{
	struct bufpool_buf *first;
	uint32_t count;

	if (depot_ready(d, ring) == 0)
		return 0;
	first = pop_batch(d, ring);
	if (first == NULL)
		return 0;
	hook("depot: taken");
	count = untie_batch(first, to);
	atomic_fetch_sub_explicit(&d->batches[ring].ready, count,
				  memory_order_release);
	return count;
}

void
bp_depot_after_fork(struct depot *d)
{
	for (unsigned r = 0; r < layout_rings(d->layout); r++)
		atomic_store(&d->batches[r].ready,
			     bp_buf_sum(&d->batches[r].stack).count);
}
