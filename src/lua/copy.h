/*
 * copy - which copy of bufpool a Lua state uses.
 *
 * A process may hold several: one that a host has linked, and bufpool/core.so,
 * which `require` loads. Each has pools of its own. The copy that opens a state
 * signs it, and the others refuse to work in it: a buffer of one copy must not
 * come home to another.
 */
#ifndef BUFPOOL_LUA_COPY_H
#define BUFPOOL_LUA_COPY_H

#include "box.h"

#define KEY_BOXES "bufpool.boxes"	/* in the registry: see bp_copy_sign */

/* Signs the table on top, which goes to KEY_BOXES. */
void bp_copy_sign(lua_State *L);

/*
 * Pushes the table at KEY_BOXES and returns true, or pushes why this copy may
 * not use the state and returns false. Raises nothing: all strings exist in a
 * state that was signed.
 */
bool bp_copy_push_boxes(lua_State *L);

/* Whether another copy has signed the state; then pushes why this one may not
 * use it. */
bool bp_copy_push_refusal(lua_State *L);

#endif
