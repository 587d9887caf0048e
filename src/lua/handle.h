/*
 * handle - buffers that are borrowed: values, which have no box.
 */
#ifndef BUFPOOL_LUA_HANDLE_H
#define BUFPOOL_LUA_HANDLE_H

#include "box.h"
#include "core/grow.h"

/* ffi: begin */
/*
 * A borrowed buffer, which is a value and has no box: the descriptor's word at
 * checkout, above the BUF_NUMBER_BITS bits of the descriptor's number. To
 * LuaJIT it is an address, which a trace keeps in a register; nothing is ever
 * at that address. A handle is alive while its descriptor is out and has this
 * word, so any value is safe.
 */
struct bufpool_handle;
/* ffi: end */

/* A buffer that was checked out, as a handle can name it; NULL and errno when
 * it was NULL, or when there is no descriptor that a handle can name. */
static inline struct bufpool_buf *
handle_renew(struct bufpool_buf *b)
{
	return b != NULL && buf_outgrown(b) ? bp_grow_renew(b) : b;
}

static inline struct bufpool_handle *
handle_of(const struct bufpool_buf *b)
{
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	return (struct bufpool_handle *)(uintptr_t)(word << BUF_NUMBER_BITS |
						    b->number);
}

/* The descriptor of a handle, or NULL when the handle is stale or forged. A
 * word that was made up does not help its maker when the buffer is in the pool.
 * object.lua does the same for traces, which cannot look into C. */
static inline struct bufpool_buf *
handle_buf(const struct bufpool_handle *h)
{
	uint64_t v = (uintptr_t)h;
	uint32_t number = (uint32_t)v & (((uint32_t)1 << BUF_NUMBER_BITS) - 1);
	struct bufpool_buf *b;

	if (number >= bp_buf_table_limit())
		return NULL;	/* Not run: Lua has no such handle. */
	b = bp_buf_at(number);
	return atomic_load_explicit(&b->word, memory_order_relaxed) ==
	    v >> BUF_NUMBER_BITS &&
	    (v >> BUF_NUMBER_BITS & BUF_STATE) == BUF_OUT
	    ? b : NULL;
}

/* As calls.h tells. */
struct bufpool_handle *bp_handle_borrow(struct bufpool_pool_box *box, size_t n);
struct bufpool_handle *bp_handle_borrow_at(struct bufpool_pool_box *box,
					   size_t n, int site);
int bp_handle_release(struct bufpool_buf *b, int32_t epoch);
int bp_handle_freeze(struct bufpool_buf *b, int32_t epoch,
		     struct bufpool_frozen_box *to);
double bp_handle_detach(struct bufpool_buf *b, int32_t epoch);

#endif
