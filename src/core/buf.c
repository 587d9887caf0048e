#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "name.h"
#include "table.h"
#include "wipe.h"

#define BUF_LIMIT ((uint32_t)1 << BUF_NUMBER_BITS) /* of 4 KiB: 64 GiB */

_Static_assert(sizeof(struct bufpool_buf) == 128,
	       "a descriptor is two cache lines");

static struct table table;
static struct stack unused;	/* destroyed descriptors, to be reused */

bool
bp_buf_table_init(void)
{
	return bp_table_init(&table, sizeof(struct bufpool_buf), BUF_LIMIT);
}

uint32_t
bp_buf_table_used(void)
{
	return table_used(&table);
}

uint32_t
bp_buf_table_limit(void)
{
	return table.limit;
}

struct bufpool_buf *
bp_buf_at(uint32_t number)
{
	return table_at(&table, number);
}

void
bp_buf_push(struct stack *s, struct bufpool_buf *b)
{
	stack_push(s, b->number, &b->next);
}

struct bufpool_buf *
bp_buf_pop(struct stack *s)
{
	int64_t n = stack_pop(s, &table, offsetof(struct bufpool_buf, next));

	return n < 0 ? NULL : bp_buf_at((uint32_t)n);
}

/* Merges two lists that ascend by `base`. A list is the number of its first
 * buffer + 1, or 0, as in `next`. */
static uint32_t
merge(uint32_t one, uint32_t other)
{
	_Atomic uint32_t first, *end = &first;

	while (one != 0 && other != 0) {
		uint32_t *low = bp_buf_at(one - 1)->base <
		    bp_buf_at(other - 1)->base ? &one : &other;

		atomic_store_explicit(end, *low, memory_order_relaxed);
		end = &bp_buf_at(*low - 1)->next;
		*low = atomic_load_explicit(end, memory_order_relaxed);
	}
	/* one of the two is 0 */
	atomic_store_explicit(end, one | other, memory_order_relaxed);
	return atomic_load_explicit(&first, memory_order_relaxed);
}

/* A merge sort without recursion: sorted[i] has 2^i buffers, or none. Only this
 * thread has the buffers, so relaxed is enough for `next`; a thread that still
 * pops one fails, as in stack_pop. */
struct bufpool_buf *
bp_buf_pop_all(struct stack *s)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	uint32_t sorted[BUF_NUMBER_BITS + 1] = { 0 }, list, all = 0;

	/* acquire: pairs with the release in stack_push */
	while (!atomic_compare_exchange_weak_explicit(
	    &s->head, &head, ((head >> 32) + 1) << 32, memory_order_acquire,
	    memory_order_relaxed))
		;
	for (list = (uint32_t)head; list != 0;) {
		struct bufpool_buf *b = bp_buf_at(list - 1);
		uint32_t one = list, i;

		list = atomic_load_explicit(&b->next, memory_order_relaxed);
		atomic_store_explicit(&b->next, 0, memory_order_relaxed);
		for (i = 0; sorted[i] != 0; i++) {
			one = merge(sorted[i], one);
			sorted[i] = 0;
		}
		sorted[i] = one;
	}
	for (unsigned i = 0; i <= BUF_NUMBER_BITS; i++)
		all = merge(sorted[i], all);
	return all == 0 ? NULL : bp_buf_at(all - 1);
}

struct buf_sum
bp_buf_sum(const struct stack *s)
{
	uint32_t next = (uint32_t)atomic_load(&s->head);
	struct buf_sum sum = { 0 };

	while (next != 0) {
		struct bufpool_buf *b = bp_buf_at(next - 1);

		sum.count += b->batched;
		sum.bytes += b->span;
		next = atomic_load(&b->next);
	}
	return sum;
}

struct bufpool_buf *
bp_buf_create(void)
{
	struct bufpool_buf *b = bp_buf_pop(&unused);

	if (b == NULL) {
		int64_t n = bp_table_extend(&table);

		if (n < 0)
			return NULL;
		b = bp_buf_at((uint32_t)n);
		b->number = (uint32_t)n;
	}
	b->at = b->base = NULL;
	b->len = b->capacity = b->mark = b->span = 0;
	b->class = CLASS_NONE;
	b->node = b->huge = b->guarded = 0;
	b->batched = 1;
	b->flags = 0;
	return b;
}

void
bp_buf_destroy(struct bufpool_buf *b)
{
	buf_set_state(b, BUF_BLANK);
	b->arena = NULL;
	b->label = NULL;
	/* One whose word no handle could hold any more is not used again. */
	if (!buf_outgrown(b))
		bp_buf_push(&unused, b);
}

void (*bp_buf_origin)(const struct bufpool_buf *b, char *to, size_t size);

_Noreturn void
bp_buf_corrupt(const struct bufpool_buf *b, const char *operation)
{
	static const char *const states[] = { "blank", "ready", "cached",
					      "frozen", "out", "?", "?", "?" };
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
	char label[BUFPOOL_NAME_MAX], origin[ORIGIN_MAX] = "";

	if (bp_buf_origin != NULL)
		bp_buf_origin(b, origin, sizeof origin);
	bp_name_show(label, sizeof label, b->label == NULL ? "(none)" :
		     b->label[0] == '\0' ? "(unnamed)" : b->label);
	fprintf(stderr,
		"bufpool: corruption at %s: buffer %u of pool '%s' (%zu bytes) "
		"is %s, generation %llu%s%s\n",
		operation, b->number, label, buf_size(b),
		states[word & BUF_STATE],
		(unsigned long long)(word / BUF_GENERATION),
		origin[0] != '\0' ? ", " : "", origin);
	abort();
}

void
bp_buf_released_twice(struct bufpool_buf *b)
{
	/* for the message, the state in which the release found it */
	atomic_fetch_sub(&b->word, BUF_TURN_CACHED);
	bp_buf_corrupt(b, "release");
}

void *
bufpool_data(struct bufpool_buf *b)
{
	b->raw = 1;
	b->told = b->mark;
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
	if (n < b->told)
		n = b->told;
	b->mark = b->told = n < b->capacity ? n : b->capacity;
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

void
bp_buf_compact(struct bufpool_buf *b)
{
	memmove(b->base, b->at, b->len);
	buf_rewind(b);
	buf_changed(b);
}

static void
take_memory(struct bufpool_buf *to, const struct bufpool_buf *from)
{
	to->at = from->at;
	to->capacity = from->capacity;
	to->mark = from->mark;
	to->base = from->base;
	to->class = from->class;
	to->node = from->node;
	to->huge = from->huge;
	to->guarded = from->guarded;
	to->span = from->span;
	to->consumed = from->consumed;
	if (to->place != PLACE_WATCHED)
		to->shelf = from->shelf;
}

void
bp_buf_swap_memory(struct bufpool_buf *a, struct bufpool_buf *b)
{
	struct bufpool_buf t = *a;

	buf_changed(a);
	take_memory(a, b);
	take_memory(b, &t);
}

/* `raw` goes with the memory that the pointers lead to. A promise about what
 * was written to one memory says nothing of the other: `told` keeps all that
 * is dirty. */
void
bp_buf_move(struct bufpool_buf *to, struct bufpool_buf *b)
{
	uint8_t raw = to->raw;

	bp_buf_swap_memory(to, b);
	buf_changed(b);
	to->raw = b->raw;
	b->raw = raw;
	to->len = b->len;
	b->len = 0;
	to->told = to->mark;
	b->told = b->mark;
	to->granted = b->granted = 0;
}

/* Moves `at`, from which all is counted, but neither the contents nor what is
 * dirty or reserved. */
static void
advance(struct bufpool_buf *b, size_t n)
{
	b->at += n;
	b->consumed = 1;
	b->capacity -= n;
	b->mark = b->mark > n ? b->mark - n : 0;
	b->told = b->told > n ? b->told - n : 0;
	b->grant = b->grant > n ? b->grant - n : 0;
}

/* A buffer that becomes empty is rewound, so that its whole memory can be
 * written again. One that was empty stays as it is, with what is reserved. */
void
bp_buf_consume(struct bufpool_buf *b, size_t n)
{
	advance(b, n);
	b->len -= n;
	if (b->len == 0 && n > 0)
		buf_rewind(b);
	buf_changed(b);
}

void
bp_buf_leave_head(struct bufpool_buf *b, size_t n)
{
	advance(b, n);
	buf_changed(b);
}

/* What lies in front of `at` counts as dirty already. */
void
bp_buf_extend_front(struct bufpool_buf *b, size_t n)
{
	b->at -= n;
	b->consumed = b->at > b->base;
	b->len += n;
	b->capacity += n;
	b->mark += n;
	b->told += n;
	b->grant += n;
	buf_changed(b);
}

/* Beyond the n bytes leaves as many again as there are contents, so that bytes
 * that are prepended in small pieces move O(1) times each; but at most half of
 * the rest, because what is appended needs room, too. */
void
bp_buf_make_head(struct bufpool_buf *b, size_t n)
{
	size_t rest = (buf_size(b) - b->len - n) / 2;
	size_t head = n + (rest < b->len ? rest : b->len);

	memmove(b->base + head, b->at, b->len);
	buf_rewind(b);
	buf_raise_mark(b, head + b->len);
	b->told = b->mark;
	advance(b, head);
	buf_changed(b);
}

void
bp_buf_wipe(struct bufpool_buf *b)
{
	buf_rewind(b);
	if (b->mark > 0)	/* memset may not be given a NULL */
		wipe(b->base, b->mark);
	b->len = 0;
	if (!b->raw)
		b->mark = 0;
	buf_changed(b);
}
