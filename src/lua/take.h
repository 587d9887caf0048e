/*
 * take - the checkouts that Lua has, by kind.
 */
#ifndef BUFPOOL_LUA_TAKE_H
#define BUFPOOL_LUA_TAKE_H

#include "handle.h"

/* As checkout, checkout_zeroed, checkout_aligned, try_checkout, writer. */
enum checkout_kind {
	CHECKOUT_FULL, CHECKOUT_ZEROED, CHECKOUT_ALIGNED, CHECKOUT_READY,
	CHECKOUT_EMPTY
};

/* A buffer of n bytes. `alignment` is for CHECKOUT_ALIGNED, and a power of two.
 * NULL + errno as bufpool_checkout, and EAGAIN for CHECKOUT_READY. */
struct bufpool_buf *bp_take(struct bufpool *pool, size_t n, size_t alignment,
			    int kind);

#endif
