#include <string.h>

#include "checkout.h"
#include "forked.h"
#include "grow.h"

/* Twice the bytes that b has, so that appending in small pieces copies each
 * byte O(1) times; 0 where that is no more than b needs. */
static size_t
twice_as_large(const struct bufpool_buf *b, size_t need)
{
	size_t bytes = buf_size(b) * 2;

	return bytes > need && bytes <= PTRDIFF_MAX ? bytes : 0;
}

/* Checks out a larger buffer for b to move into: of twice the size, if no idle
 * memory has to be given back for that. Where max_bytes limits the pool, only
 * of the size that b needs, because another buffer may need the rest; a large
 * one has twice the addresses, and a guarded one gets a part of the rest,
 * because it moves each time. Only what b needs where some checkouts fail on
 * purpose, because there growth is to fail with the one that it makes. */
static struct bufpool_buf *
larger_than(const struct bufpool_buf *b, size_t need)
{
	const struct bufpool_config *config = &pool_of(b)->config;
	struct bufpool_buf *larger = NULL;
	size_t more = 0;

	if (config->fail_one_in == 0)
		more = !arena_limited(b->arena) ? twice_as_large(b, need)
		    : config->hardened == BUFPOOL_HARDENED_ALL
		    ? need + bp_grow_slack(b) : 0;
	if (more > need)
		larger = bp_checkout_at(pool_of(b), more, b->align,
					TAKE_FRESH | TAKE_CLOSED |
					TAKE_TO_GROW, SITE_NONE);
	if (larger == NULL)
		larger = bp_checkout_at(pool_of(b), need, b->align,
					TAKE_ANY | TAKE_CLOSED | TAKE_TO_GROW,
					SITE_NONE);
	return larger;
}

/* Makes a large buffer hold n bytes from its base, as bp_arena_extend does, and
 * gives idle memory back for that if `take` allows. False + EDQUOT or ENOMEM,
 * the buffer unchanged. */
static bool
extend_to(struct bufpool_buf *b, size_t n, size_t range, unsigned take)
{
	struct bufpool *p = pool_of(b);
	size_t before = arena_bytes(b), whole = bp_arena_whole_pages(n);
	struct want w = { .bytes = whole > before ? whole - before : 0,
			  .addresses = whole > b->span ? whole - b->span : 0 };

	forked_check();
	for (int tries = 0; !bp_arena_extend(b, n, range); tries++) {
		int error = errno;

		if (!bp_reclaim(p, &w, error, take, tries)) {
			errno = error;
			return false;
		}
	}
	atomic_fetch_add_explicit(&p->large.bytes_taken,
				  arena_bytes(b) - before,
				  memory_order_relaxed);
	return true;
}

/* Grows a large buffer by moving its pages, so that no byte is copied. False
 * when the buffer is not large or is guarded, when it would have to move but is
 * aligned to more than a page, and when the system does not move it, because
 * memory is short or because madvise on a part of it has split the mapping. */
static bool
extend_large(struct bufpool_buf *b, size_t capacity)
{
	size_t need = capacity + (size_t)(b->at - b->base);
	size_t more = twice_as_large(b, need);

	if (b->class != CLASS_LARGE || b->guarded || need > PTRDIFF_MAX ||
	    (b->align > LAYOUT_GRAIN_LOG && need > b->span))
		return false;
	if (b->align > LAYOUT_GRAIN_LOG && more > b->span)
		more = 0;
	if ((more != 0 && !arena_limited(b->arena) &&
	     extend_to(b, more, more, TAKE_FRESH)) ||
	    extend_to(b, need, more != 0 ? more : need, TAKE_ANY)) {
		b->granted = 0;
		sites_resized(b);
		buf_changed(b);
		return true;
	}
	return false;
}

/* 0 where max_bytes does not limit the pool, because there growth doubles.
 * Where it does, no more than a part of what nobody has, because another buffer
 * may need that. */
size_t
bp_grow_slack(const struct bufpool_buf *b)
{
	size_t room;

	if (!arena_limited(b->arena))
		return 0;
	room = arena_room(b->arena) / 4;
	return b->len / 2 < room ? b->len / 2 : room;
}

int
bp_grow_to(struct bufpool_buf *b, size_t capacity)
{
	size_t written = b->len < b->mark ? b->len : b->mark;
	struct bufpool_buf *larger;

	if (capacity <= b->capacity)
		return 0;
	/* Compact in place when the contents are no longer than the consumed
	 * head. Each byte then moves O(1) times. */
	if (capacity <= buf_size(b) && b->len <= (size_t)(b->at - b->base)) {
		bp_buf_compact(b);
		return 0;
	}
	if (extend_large(b, capacity))
		return 0;
	larger = larger_than(b, capacity);
	if (larger == NULL) {
		if (capacity > buf_size(b)) {
			bp_reclaim_refused(pool_of(b), errno);
			return -1;
		}
		bp_buf_compact(b);
		return 0;
	}
	/* Past the mark the old contents are zero, as the new memory is. */
	if (written > 0)
		memcpy(larger->at, b->at, written);
	larger->mark = b->raw ? b->len : written;
	bp_buf_swap_memory(b, larger);
	sites_resized(b);
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
	if (bp_grow_to(b, n) < 0)
		return -1;
	if (n > b->len && b->mark > b->len) {
		size_t dirty = b->mark < n ? b->mark : n;

		memset(b->at + b->len, 0, dirty - b->len);
	}
	if (n != b->len)
		b->granted = 0;
	b->len = n;
	if (b->raw)
		buf_raise_mark(b, n);
	buf_changed(b);
	return 0;
}

/* What b has for later does not become less. A promise about what was written
 * to `from` says nothing of the rest, which is in other memory now. */
bool
bp_grow_exchange(struct bufpool_buf *b, struct bufpool_buf *from, size_t n)
{
	size_t rest = from->len - n;

	if (b->len > 0 || n <= rest || b->capacity < rest ||
	    buf_size(from) < buf_size(b) || b->arena != from->arena ||
	    b->align != from->align)
		return false;
	bp_buf_move(b, from);
	sites_resized(b);
	sites_resized(from);
	if (rest > 0)
		memcpy(from->at, b->at + n, rest);
	buf_raise_mark(from, rest);
	from->told = from->mark;
	from->len = rest;
	b->len = n;
	return true;
}

/* Makes a descriptor without memory, for b to swap memory with. */
static struct bufpool_buf *
take_bare(const struct bufpool_buf *b)
{
	struct bufpool_buf *spare = bp_arena_take_bare(b->arena);

	if (spare != NULL)
		spare->shelf = &bp_cache_no_shelf;
	return spare;
}

void
bp_grow_free(struct bufpool_buf *b)
{
	struct bufpool_buf *spare;

	if (b->class == CLASS_NONE)
		return;
	spare = take_bare(b);
	if (spare == NULL) {
		bp_buf_wipe(b);	/* Not run: no page for a descriptor. */
		return;
	}
	bp_buf_swap_memory(b, spare);
	sites_resized(b);
	b->len = 0;
	b->granted = 0;
	bufpool_release(spare);
}

struct bufpool_buf *
bp_grow_renew(struct bufpool_buf *b)
{
	struct bufpool_buf *young = take_bare(b);

	if (young == NULL) {
		bufpool_release(b);	/* Not run: no page for a descriptor. */
		errno = ENOMEM;
		return NULL;
	}
	bp_buf_move(young, b);
	sites_move(young, b);
	bufpool_release(b);
	return young;
}
