#include "core/wipe.h"
#include "take.h"

static struct bufpool_buf *
emptied(struct bufpool_buf *b, size_t headroom)
{
	if (b == NULL)
		return NULL;
	b->len = 0;
	if (headroom > 0)
		bp_buf_leave_head(b, headroom);
	return b;
}

static struct bufpool_buf *
take_at(struct bufpool *pool, size_t n, size_t alignment, int kind,
	uintptr_t site)
{
	unsigned align = kind == CHECKOUT_ALIGNED
	    ? (unsigned)__builtin_ctzl(alignment) : 0;
	unsigned take = kind == CHECKOUT_READY ? TAKE_READY : TAKE_ANY;
	struct bufpool_buf *b = bp_checkout_at(pool, n, align, take, site);

	if (b != NULL && kind == CHECKOUT_ZEROED)
		wipe(b->base, b->capacity);
	return kind == CHECKOUT_EMPTY ? emptied(b, alignment) : b;
}

struct bufpool_buf *
bp_take(struct bufpool *pool, size_t n, size_t alignment, int kind)
{
	switch (kind) {
	case CHECKOUT_FULL:
		return bp_checkout_asking(pool, n);
	case CHECKOUT_EMPTY:
		return emptied(bp_checkout_asking(pool, n), alignment);
	case CHECKOUT_READY:
		return bp_try_checkout_asking(pool, n);
	case CHECKOUT_ZEROED:
	case CHECKOUT_ALIGNED:
		return take_at(pool, n, alignment, kind, SITE_ASK);
	}
	return take_at(pool, n, alignment, kind % SITE_UNIT,
		       SITE_LISTED | (uintptr_t)(kind / SITE_UNIT - 1));
}
