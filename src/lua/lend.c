#include <string.h>

#include "core/checkout.h"
#include "lend.h"

static void
lend_unref(void *frozen)
{
	bufpool_frozen_unref(frozen);
}

/* A box that core.frozen_box made may have nothing inside. */
int
bp_lend_frozen(struct bufpool_frozen_box *box, int32_t epoch,
	       struct bufpool_piece *to)
{
	if (box->epoch != epoch)
		return ESTALE;
	to->at = box->at;
	to->len = box->len;
	if (box->len > 0) {
		to->held = bufpool_frozen_ref(box->frozen);
		to->release = lend_unref;
	}
	return 0;
}

/* The pool may be closed, because buffers that are out stay usable then. */
int
bp_lend_copy(struct bufpool_buf *b, int32_t epoch, struct bufpool_piece *to)
{
	struct bufpool_buf *copy;

	if (b->epoch != epoch)
		return ESTALE;
	to->len = b->len;
	if (b->len == 0)
		return 0;
	copy = bp_checkout_at(pool_of(b), b->len, 0, TAKE_ANY | TAKE_CLOSED,
			      bp_sites_of(b));
	if (copy == NULL)
		return errno;
	copy->len = b->len;
	memcpy(bufpool_data(copy), b->at, b->len);
	to->at = copy->at;
	to->held = bufpool_freeze(copy);
	to->release = lend_unref;
	return 0;
}

void
bp_lend_take_back(struct bufpool_piece *pieces, size_t count)
{
	for (size_t i = 0; i < count; i++)
		piece_drop(&pieces[i]);
}

typedef int deliver_fn(void *request, struct bufpool_piece *, size_t count,
		       size_t worth);

static void *
lend_address(lua_State *L, int index)
{
	return (void *)(uintptr_t)luaL_checknumber(L, index);
}

/* core.deliver(function, request, pieces, count, worth): addresses and sizes.
 * The function may run Lua code, so it must not be called by the FFI: a trace
 * may hold a call of the FFI, but never one of a lua_CFunction. */
int
bp_lend_deliver(lua_State *L)
{
	void *address = lend_address(L, 1);
	deliver_fn *deliver;

	memcpy(&deliver, &address, sizeof deliver);
	lua_pushinteger(L, deliver(lend_address(L, 2),
				   lend_address(L, 3),
				   (size_t)luaL_checknumber(L, 4),
				   (size_t)luaL_checknumber(L, 5)));
	return 1;
}
