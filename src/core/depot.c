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
#include "hook.h"
#include "sanitize.h"
#include "table.h"

#define LINE 64

/* ck_ring pads its heads apart; aligned, no two rings share a line either. */
struct ring {
	_Alignas(LINE) struct ck_ring ring;
	struct ck_ring_buffer *slots;
};

struct depot {
	size_t bytes;		/* of the whole mapping */
	unsigned rings;
	struct ring ring[];
};

struct depot *
depot_create(unsigned nodes, unsigned classes, const uint32_t *sizes)
{
	unsigned rings = nodes * classes;
	size_t bytes = sizeof(struct depot) + rings * sizeof(struct ring);
	size_t slots = bytes;
	struct depot *d;

	for (unsigned i = 0; i < rings; i++)
		bytes += sizes[i % classes] * sizeof(struct ck_ring_buffer);
	d = pages_map(bytes);
	if (d == NULL)
		return NULL;
	d->bytes = bytes;
	d->rings = rings;
	for (unsigned i = 0; i < rings; i++) {
		ck_ring_init(&d->ring[i].ring, sizes[i % classes]);
		d->ring[i].slots = (void *)((char *)d + slots);
		slots += sizes[i % classes] * sizeof(struct ck_ring_buffer);
	}
	return d;
}

unsigned
depot_rings(const struct depot *d)
{
	return d->rings;
}

void
depot_destroy(struct depot *d)
{
	if (d != NULL)
		munmap(d, d->bytes);
}

/*
 * The ring publishes: what was written to the buffer and its descriptor before
 * the push (the wipe) is ordered before ck_ring's store of p_tail, and the
 * taker's load of p_tail before its own accesses.
 */
bool
depot_push(struct depot *d, unsigned ring, struct bufpool_buf *b)
{
	struct ring *r = &d->ring[ring];
	bool done;

	buf_turn(b, BUF_CACHED, BUF_READY, 0, "spill");
	tsan_give(b);
	hook("depot: pushing");
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
depot_take_some(struct depot *d, unsigned ring, struct bufpool_buf **to,
		uint32_t n)
{
	struct ring *r = &d->ring[ring];
	uint32_t got = 0;

	tsan_ring_begin();
	while (got < n && ck_ring_dequeue_spmc(&r->ring, r->slots, &to[got]))
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
depot_take(struct depot *d, unsigned ring)
{
	struct bufpool_buf *b;

	return depot_take_some(d, ring, &b, 1) > 0 ? b : NULL;
}

uint32_t
depot_ready(const struct depot *d, unsigned ring)
{
	uint32_t n;

	tsan_ring_begin();
	n = ck_ring_size(&d->ring[ring].ring);
	tsan_ring_end();
	return n;
}
