/*
 * take - the checkouts that Lua has, by kind.
 */
#ifndef BUFPOOL_LUA_TAKE_H
#define BUFPOOL_LUA_TAKE_H

#include "core/checkout.h"
#include "handle.h"

/* As checkout, checkout_zeroed, checkout_aligned, try_checkout, writer. */
enum checkout_kind {
	CHECKOUT_FULL, CHECKOUT_ZEROED, CHECKOUT_ALIGNED, CHECKOUT_READY,
	CHECKOUT_EMPTY
};
#define SITE_UNIT 256	/* a kind of checkout may have the number of a listed
			 * site, from 1, times this, added to it */

/* A buffer of n bytes. `alignment` is for CHECKOUT_ALIGNED, and a power of two;
 * of CHECKOUT_EMPTY it is the headroom, at most n of these bytes. NULL + errno
 * as bufpool_checkout, EAGAIN for CHECKOUT_READY, and ESITE where the kind has
 * no site and needs one. */
struct bufpool_buf *bp_take(struct bufpool *pool, size_t n, size_t alignment,
			    int kind);

#endif
