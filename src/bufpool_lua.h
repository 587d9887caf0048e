/*
 * bufpool_lua - bufpool for hosts: C programs with Lua states of their own.
 *
 * Link the library bufpool_lua, which holds the Lua files too, call
 * luaopen_bufpool in each state that is to use it, and pass pools and buffers
 * in and out. The state has to be LuaJIT's, with its standard libraries open
 * (luaL_openlibs). A script's `require "bufpool"` then gives what the host has
 * opened. Without the host it loads a shared object, which is another copy of
 * bufpool. A state belongs to the copy that opened it first: in a state of
 * another copy, luaopen_bufpool, push and check raise, and test gives NULL.
 *
 * Everything here follows Lua's rules: one thread in a state at a time, and
 * errors raised as Lua raises them. What is pushed needs 8 free stack slots.
 */
#ifndef BUFPOOL_LUA_H
#define BUFPOOL_LUA_H

#include "bufpool.h"

#ifdef __cplusplus
extern "C" {
#endif
#include <lua.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* Leaves the module in package.loaded["bufpool"] and on the stack. Opens
 * once per state; later calls give the same module. A lua_CFunction. */
int luaopen_bufpool(lua_State *L);

/* What Lua's loader calls in bufpool/core.so. Not for hosts. */
int luaopen_bufpool_core(lua_State *L);

/*
 * Pushes a Lua object that owns what is passed: the reference to the pool, or
 * the buffer, which the collector releases like one checked out in Lua. What
 * is passed is consumed, also when they raise: that memory is out, or that this
 * copy of bufpool was not opened in this state.
 */
void bufpool_lua_push_pool(lua_State *L, struct bufpool *pool);
void bufpool_lua_push_buf(lua_State *L, struct bufpool_buf *buf);
void bufpool_lua_push_frozen(lua_State *L, struct bufpool_frozen *frozen);

/*
 * What the Lua object at `index` owns. It goes on owning it: valid while the
 * object is reachable and not released, and not the caller's to release. test
 * gives NULL, check raises, when it is no such object or a dead one.
 */
struct bufpool *bufpool_lua_test_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_test_buf(lua_State *L, int index);
struct bufpool *bufpool_lua_check_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_check_buf(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_test_frozen(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_check_frozen(lua_State *L, int index);

/* The bytes that a frozen object shows, which are a part of the frozen buffer
 * when the object is a slice. NULL when it is no such object or a dead one. */
const void *bufpool_lua_frozen_bytes(lua_State *L, int index, size_t *len);

/*
 * As check; and what the object owned is the caller's from here on: the
 * reference, or the buffer. The object is dead ("detached"). They raise only
 * before ownership moves.
 */
struct bufpool *bufpool_lua_take_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_take_buf(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_take_frozen(lua_State *L, int index);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
