/*
 * guard - a call that releases a buffer when it ends, however it ends.
 *
 * An error is not caught: LuaJIT unwinds C frames as a C++ compiler expects it
 * to, where it was built so, and the release is a clean-up of such a frame. So
 * a handler of errors that stands further out, which runs before anything is
 * unwound, sees all frames down to the one that raised.
 */
#ifndef BUFPOOL_LUA_GUARD_H
#define BUFPOOL_LUA_GUARD_H

#include "box.h"

/* core.guard(buf, fn, ...): fn(buf, ...). fn cannot yield in it. */
int bp_guard_call(lua_State *L);

/* Whether the caller could not yield anyway, and few guarded calls stand around
 * it. */
bool bp_guard_allowed(lua_State *L);

/* Whether this LuaJIT runs clean-ups of C frames when it raises. */
bool bp_guard_works(lua_State *L);

#endif
