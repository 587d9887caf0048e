/*
 * collector - makes Lua's collector feel the memory of buffers.
 *
 * To the collector a buffer weighs as little as its box, so it would let
 * garbage buffers pile up. While a VM holds more than its limit, each call that
 * makes a box for memory therefore pays for the bytes taken since the last one:
 * by as much collection as the same bytes of Lua objects would have caused.
 * When a cycle ends, what was garbage at its beginning has been returned, and
 * what is still held sets the next limit. So garbage stays near HELD_FREE with
 * a small Lua heap, and at one or two times the size of a large heap, as
 * garbage of Lua's own does. A program that keeps or releases what it takes
 * pays a few cycles as it grows.
 */
#ifndef BUFPOOL_LUA_COLLECTOR_H
#define BUFPOOL_LUA_COLLECTOR_H

#include "box.h"
#include "core/pool.h"

void bp_collector_pay_slow(lua_State *L, struct bufpool_account *account);

/*
 * Before every call that makes a box for memory: a checkout, the freezing of a
 * handle, a split, a push, an adoption. A checkout of a handle pays nothing.
 * May run finalizers, which may raise an error of their own, so: call it before
 * anything is acquired, and check afterwards what was checked before. A
 * collector that was stopped, or is inside a finalizer, is left alone. The
 * limit sinks with what is held, because a peak would leave it high, and the
 * next burst of garbage would go unfelt.
 */
static inline void
collector_pay(lua_State *L, struct bufpool_account *account)
{
	double sunk = 2 * (account->held + account->least);

	if (account->limit > sunk)
		account->limit = sunk;
	if (account->held > account->limit)
		bp_collector_pay_slow(L, account);
	account->debt = 0;
}

/*
 * Before a checkout or growth of n bytes fails: what is garbage may be what it
 * lacks. True when a full collection has run: try again. A full collection is a
 * high price for a program that runs at its limit on purpose, so after each one
 * that returned nothing, more failures go by before the next. Failures that
 * garbage cannot help do not count.
 */
bool bp_collector_reclaim(lua_State *L, const struct bufpool *pool, double n);

#endif
