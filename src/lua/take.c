#include "take.h"

struct bufpool_buf *
bp_take(struct bufpool *pool, size_t n, size_t alignment, int kind)
{
	struct bufpool_buf *b;

	switch (kind) {
	case CHECKOUT_ZEROED:
		return bufpool_checkout_zeroed(pool, n);
	case CHECKOUT_ALIGNED:
		return bufpool_checkout_aligned(pool, n, alignment);
	case CHECKOUT_READY:
		return bufpool_try_checkout(pool, n);
	}
	b = bufpool_checkout(pool, n);
	if (b != NULL && kind == CHECKOUT_EMPTY)
		b->len = 0;
	return b;
}
