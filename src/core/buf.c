#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cache.h"
#include "pool.h"
#include "table.h"
#include "wipe.h"

#define BUF_LIMIT ((uint32_t)1 << BUF_NUMBER)	/* 64 GiB of 4 KiB each */

_Static_assert(sizeof(struct bufpool_buf) == 128,
	       "a descriptor is two cache lines");

static struct table table;
static struct buf_stack unused;	/* descriptors without a pool */

bool
buf_table_init(void)
{
	return table_init(&table, sizeof(struct bufpool_buf), BUF_LIMIT);
}

uint32_t
buf_table_used(void)
{
	return table_used(&table);
}

uint32_t
buf_table_limit(void)
{
	return table.limit;
}

struct bufpool_buf *
buf_at(uint32_t number)
{
	return table_at(&table, number);
}

void
buf_push(struct buf_stack *s, struct bufpool_buf *b)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	uint64_t mine;

	do {
		atomic_store_explicit(&b->next, (uint32_t)head,
				      memory_order_relaxed);
		mine = ((head >> 32) + 1) << 32 | (b->number + 1);
		/* release: pairs with the acquire in buf_pop */
	} while (!atomic_compare_exchange_weak_explicit(
	    &s->head, &head, mine, memory_order_release,
	    memory_order_relaxed));
}

struct bufpool_buf *
buf_pop(struct buf_stack *s)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_acquire);
	struct bufpool_buf *b;
	uint64_t mine;

	do {
		if ((uint32_t)head == 0)
			return NULL;
		b = buf_at((uint32_t)head - 1);
		/* May be stale when another thread has popped b meanwhile: then
		 * the tag has moved on and the exchange fails. */
		mine = ((head >> 32) + 1) << 32 |
		    atomic_load_explicit(&b->next, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
	    &s->head, &head, mine, memory_order_acquire,
	    memory_order_acquire));
	return b;
}

struct bufpool_buf *
buf_create(struct bufpool *p)
{
	struct bufpool_buf *b = buf_pop(&unused);

	if (b == NULL) {
		int64_t n = table_extend(&table);

		if (n < 0)
			return NULL;
		b = buf_at((uint32_t)n);
		b->number = (uint32_t)n;
	}
	b->pool = p;
	b->slot = (uint16_t)p->slot;
	b->at = b->base = NULL;
	b->len = b->capacity = b->mark = b->span = 0;
	b->class = CLASS_NONE;
	b->node = 0;
	b->shelf = &cache_no_shelf;
	b->extras = 0;
	return b;
}

void
buf_destroy(struct bufpool_buf *b)
{
	buf_set_state(b, BUF_BLANK);
	b->pool = NULL;
	if (!buf_outgrown(b))
		buf_push(&unused, b);
}

_Noreturn void
buf_corrupt(const struct bufpool_buf *b, const char *phase)
{
	static const char *const states[] = { "blank", "ready", "cached",
					      "frozen", "out", "?", "?", "?" };
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	fprintf(stderr,
		"bufpool: corruption at %s: buffer %u of pool '%s' (%zu bytes) "
		"is %s, generation %llu\n",
		phase, b->number, pool_label(b->pool), buf_size(b),
		states[word & BUF_STATE],
		(unsigned long long)(word / BUF_GENERATION));
	abort();
}

void *
bufpool_data(struct bufpool_buf *b)
{
	b->raw = 1;
	buf_raise_mark(b, b->len);
	return b->at;
}

const void *
bufpool_peek(const struct bufpool_buf *b)
{
	return b->at;
}

void
bufpool_wrote(struct bufpool_buf *b, size_t n)
{
	if (n < b->mark)
		b->mark = n;
}

size_t
bufpool_len(const struct bufpool_buf *b)
{
	return b->len;
}

size_t
bufpool_capacity(const struct bufpool_buf *b)
{
	return b->capacity;
}

/* Moves the contents to the start of the memory, over what was consumed. */
static void
buf_compact(struct bufpool_buf *b)
{
	memmove(b->base, b->at, b->len);
	buf_rewind(b);
	buf_changed(b);
}

/* The memory changes owners; who owns the descriptors stays as it is. */
static void
buf_swap_memory(struct bufpool_buf *a, struct bufpool_buf *b)
{
	struct bufpool_buf t = *a;

	buf_changed(a);
	a->at = b->at;
	a->capacity = b->capacity;
	a->mark = b->mark;
	a->base = b->base;
	a->class = b->class;
	a->node = b->node;
	a->span = b->span;
	a->shelf = b->shelf;
	a->consumed = b->consumed;
	b->at = t.at;
	b->capacity = t.capacity;
	b->mark = t.mark;
	b->base = t.base;
	b->class = t.class;
	b->node = t.node;
	b->span = t.span;
	b->shelf = t.shelf;
	b->consumed = t.consumed;
}

void
buf_move(struct bufpool_buf *to, struct bufpool_buf *b)
{
	buf_swap_memory(to, b);
	to->len = b->len;
	b->len = 0;
}

/* A larger buffer for b to move into: twice as large where that can be had, so
 * that appending in small pieces copies each byte a bounded number of times. */
static struct bufpool_buf *
buf_larger(struct bufpool_buf *b, size_t need)
{
	size_t twice = buf_size(b) * 2;
	struct bufpool_buf *larger;

	if (twice > need && twice <= PTRDIFF_MAX) {
		larger = pool_checkout_larger(b->pool, twice, b->align);
		if (larger != NULL)
			return larger;
	}
	return pool_checkout_larger(b->pool, need, b->align);
}

int
buf_grow(struct bufpool_buf *b, size_t capacity)
{
	size_t written = b->len < b->mark ? b->len : b->mark;
	struct bufpool_buf *larger;

	if (capacity <= b->capacity)
		return 0;
	/* What was consumed is used again once that moves fewer bytes than
	 * were consumed, so that a queue costs a bounded time per byte. */
	if (capacity <= buf_size(b) && b->len <= (size_t)(b->at - b->base)) {
		buf_compact(b);
		return 0;
	}
	larger = buf_larger(b, capacity);
	if (larger == NULL) {
		if (capacity > buf_size(b))
			return -1;
		buf_compact(b);
		return 0;
	}
	/* Past the mark the old contents are zero, as the new memory is. */
	if (written > 0)
		memcpy(larger->at, b->at, written);
	larger->mark = b->raw ? b->len : written;
	buf_swap_memory(b, larger);
	b->granted = 0;
	bufpool_release(larger);
	return 0;
}

int
bufpool_resize(struct bufpool_buf *b, size_t n)
{
	if (n > PTRDIFF_MAX) {
		errno = EOVERFLOW;
		return -1;
	}
	if (buf_grow(b, n) < 0)
		return -1;
	if (n > b->len && b->mark > b->len) {
		size_t dirty = b->mark < n ? b->mark : n;

		memset(b->at + b->len, 0, dirty - b->len);
	}
	b->len = n;
	if (b->raw)
		buf_raise_mark(b, n);
	buf_changed(b);
	return 0;
}

/* Empty, a buffer has all of its memory ahead of it again. */
void
buf_consume(struct bufpool_buf *b, size_t n)
{
	b->at += n;
	b->consumed = 1;
	b->len -= n;
	b->capacity -= n;
	b->mark = b->mark > n ? b->mark - n : 0;
	b->grant = b->grant > n ? b->grant - n : 0;
	if (b->len == 0)
		buf_rewind(b);
	buf_changed(b);
}

void
buf_wipe(struct bufpool_buf *b)
{
	buf_rewind(b);
	wipe(b->base, b->mark);
	b->len = b->mark = 0;
	buf_changed(b);
}

void
buf_free(struct bufpool_buf *b)
{
	struct bufpool_buf *spare;

	if (b->class == CLASS_NONE)
		return;
	spare = pool_checkout_bare(b->pool);
	if (spare == NULL) {
		buf_wipe(b);
		return;
	}
	buf_swap_memory(b, spare);
	b->len = 0;
	b->granted = 0;
	bufpool_release(spare);
}
