#include <errno.h>
#include <sys/mman.h>

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

#include "depot.h"
#include "pages.h"

#define LINE 64

/* ck_ring pads its heads apart; aligned, no two rings share a line either. */
struct ring {
	_Alignas(LINE) struct ck_ring ring;
	struct ck_ring_buffer *slots;
};

struct depot {
	size_t bytes;		/* of the whole mapping */
	struct ring ring[];
};

struct depot *
bp_depot_create(const struct layout *l)
{
	unsigned rings = layout_rings(l);
	size_t bytes = sizeof(struct depot) + rings * sizeof(struct ring);
	size_t slots = bytes;
	struct depot *d;

	for (unsigned i = 0; i < rings; i++)
		bytes += l->ring[i % l->classes] *
		    sizeof(struct ck_ring_buffer);
	d = bp_pages_map(bytes);
	if (d == NULL)
		return NULL;
	d->bytes = bytes;
	for (unsigned i = 0; i < rings; i++) {
		uint32_t size = l->ring[i % l->classes];

		ck_ring_init(&d->ring[i].ring, size);
		d->ring[i].slots = (void *)((char *)d + slots);
		slots += size * sizeof(struct ck_ring_buffer);
	}
	return d;
}

void
bp_depot_destroy(struct depot *d)
{
	bp_pages_unmap(d, d->bytes);
}

/*
 * The ring publishes: what was written to the buffer and its descriptor before
 * the push (the wipe) is ordered before ck_ring's store of p_tail, and the
 * taker's load of p_tail before its own accesses. ck_ring orders stores only;
 * the fence orders what the last owner read before what the taker writes.
 */
bool
bp_depot_push(struct depot *d, unsigned ring, struct bufpool_buf *b)
{
	struct ring *r = &d->ring[ring];
	bool done;

	buf_turn(b, BUF_CACHED, BUF_READY, 0, "spill");
	tsan_give(b);
	hook("depot: pushing");
	atomic_thread_fence(memory_order_release);
	tsan_ring_begin();
	done = ck_ring_enqueue_spmc(&r->ring, r->slots, b);
	tsan_ring_end();
	hook("depot: pushed");
	if (!done)
		buf_turn(b, BUF_READY, BUF_CACHED, 0, "spill");
	return done;
}

/* The descriptors were last written on some other core: asked for all at once,
 * they arrive while the ring is still being read. */
uint32_t
bp_depot_take_some(struct depot *d, unsigned ring, struct bufpool_buf **to,
		   uint32_t count)
{
	struct ring *r = &d->ring[ring];
	uint32_t got = 0;

	tsan_ring_begin();
	while (got < count &&
	       ck_ring_dequeue_spmc(&r->ring, r->slots, &to[got]))
		__builtin_prefetch(to[got++], 1);
	tsan_ring_end();
	if (got > 0)
		hook("depot: taken");
	for (uint32_t i = 0; i < got; i++) {
		tsan_take(to[i]);
		buf_turn(to[i], BUF_READY, BUF_CACHED, 0, "refill");
	}
	return got;
}

struct bufpool_buf *
bp_depot_take(struct depot *d, unsigned ring)
{
	struct bufpool_buf *b;

	return bp_depot_take_some(d, ring, &b, 1) > 0 ? b : NULL;
}

uint32_t
bp_depot_ready(const struct depot *d, unsigned ring)
{
	uint32_t n;

	tsan_ring_begin();
	n = ck_ring_size(&d->ring[ring].ring);
	tsan_ring_end();
	return n;
}

bool
bp_depot_is_full(const struct depot *d, unsigned ring)
{
	return bp_depot_ready(d, ring) + 1 >=
	    ck_ring_capacity(&d->ring[ring].ring);
}

int
bp_commons_create(struct commons *m, const struct layout *l)
{
	m->rings = layout_rings(l);
	m->ring = l->nodes == 1 ? m->alone
	    : bp_pages_map(m->rings * sizeof *m->ring);
	return m->ring != NULL ? 0 : -1;
}

void
bp_commons_destroy(struct commons *m)
{
	if (m->ring != NULL && m->ring != m->alone)
		bp_pages_unmap(m->ring, m->rings * sizeof *m->ring);
	m->ring = NULL;
}

/* The stack publishes: bp_buf_push releases, bp_buf_pop acquires. */
void
bp_commons_push(struct commons *m, unsigned ring, struct bufpool_buf *b)
{
	struct commons_ring *r = &m->ring[ring];

	buf_turn(b, BUF_CACHED, BUF_READY, 0, "spill");
	atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);
	hook("commons: pushing");
	bp_buf_push(&r->stack, b);
}

/* The load keeps those who find nothing from writing to the line. */
struct bufpool_buf *
bp_commons_take(struct commons *m, unsigned ring)
{
	struct commons_ring *r = &m->ring[ring];
	struct bufpool_buf *b;

	if (commons_ready(m, ring) == 0)
		return NULL;
	b = bp_buf_pop(&r->stack);
	if (b == NULL)
		return NULL;
	hook("commons: taken");
	atomic_fetch_sub_explicit(&r->count, 1, memory_order_relaxed);
	buf_turn(b, BUF_READY, BUF_CACHED, 0, "refill");
	return b;
}

void
bp_commons_after_fork(struct commons *m)
{
	for (unsigned i = 0; i < m->rings; i++) {
		struct commons_ring *r = &m->ring[i];

		atomic_store(&r->count, bp_buf_sum(&r->stack).count);
	}
}
