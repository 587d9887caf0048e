/*
 * calls - the functions that Lua calls by FFI; box.h says what each may do.
 */
#ifndef BUFPOOL_LUA_CALLS_H
#define BUFPOOL_LUA_CALLS_H

#include "box.h"

#define MESSAGE_MAX 160	/* bytes that hold any message of shortage, message */

extern const struct bufpool_calls bp_ffi_calls;

/* core.deliver, which calls by a lua_CFunction what the FFI must not. */
int bp_calls_deliver(lua_State *L);

/* core.claim_clock(on): true for the first VM of a process that wants to keep
 * time for all; false for the others, until that one gives it up. */
int bp_calls_claim_clock(lua_State *L);

#endif
