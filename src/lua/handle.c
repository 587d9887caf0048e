#include "core/checkout.h"
#include "core/release.h"
#include "handle.h"

/* A finalizer may have closed the pool since Lua looked. */
struct bufpool_handle *
bp_handle_borrow(struct bufpool_pool_box *box, size_t n)
{
	struct bufpool_buf *b;

	if (box->state != BOX_LIVE) {
		box->error = ESTALE;	/* Not run: a finalizer in between. */
		return NULL;
	}
	b = handle_renew(bp_checkout_asking(box->pool, n));
	if (b == NULL) {
		box->error = errno;
		return NULL;
	}
	return handle_of(b);
}

struct bufpool_handle *
bp_handle_borrow_at(struct bufpool_pool_box *box, size_t n, int site)
{
	struct bufpool_buf *b;

	if (box->state != BOX_LIVE) {
		box->error = ESTALE;	/* Not run: a finalizer in between. */
		return NULL;
	}
	b = handle_renew(bp_checkout_at(box->pool, n, 0, TAKE_ANY,
					SITE_LISTED | (uintptr_t)(site - 1)));
	if (b == NULL) {
		box->error = errno;	/* Not run: no memory. */
		return NULL;
	}
	return handle_of(b);
}

int
bp_handle_release(struct bufpool_buf *b, int32_t epoch)
{
	if (b->epoch != epoch)
		return ESTALE;
	return bp_release_asking(b);
}

/* A handle was charged to nobody. What it becomes is the collector's to return,
 * so it is charged now. */
int
bp_handle_freeze(struct bufpool_buf *b, int32_t epoch,
		 struct bufpool_frozen_box *to)
{
	if (b->epoch != epoch)
		return ESTALE;
	box_enter_frozen(to->account, to, bufpool_freeze(b));
	return 0;
}

double
bp_handle_detach(struct bufpool_buf *b, int32_t epoch)
{
	uint64_t ticket;

	if (b->epoch != epoch)
		return -ESTALE;
	ticket = bufpool_detach(b);
	return ticket != 0 ? (double)ticket : -errno;
}
