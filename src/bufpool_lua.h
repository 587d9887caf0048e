/*
 * bufpool_lua - bufpool for hosts: C programs with Lua states of their own.
 *
 * Link the library bufpool_lua, which holds the Lua files and the functions of
 * bufpool.h too, call luaopen_bufpool in each state that is to use it, and pass
 * pools and buffers in and out. The state must be LuaJIT's, with its standard
 * libraries open (luaL_openlibs). A script's `require "bufpool"` then returns
 * the module that the host has opened. Without luaopen_bufpool it loads a
 * shared object, which is another copy of bufpool. A state belongs to the copy
 * that opened it first: in a state of another copy, luaopen_bufpool, push,
 * check and take raise, and test returns NULL.
 *
 * Lua's rules hold for every function: one thread in a state at a time, and
 * errors are raised as Lua raises them. A push needs 8 free stack slots.
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

/* Opens the module, leaves it in package.loaded["bufpool"] and on the stack,
 * and returns 1. Later calls in the state give the same module. A
 * lua_CFunction. */
int luaopen_bufpool(lua_State *L);

/* Called by Lua's loader in bufpool/core.so. Not for hosts. */
int luaopen_bufpool_core(lua_State *L);

/*
 * Pushes a Lua object that owns the argument: the reference to the pool or to
 * the frozen buffer, or the buffer. The collector releases the argument with
 * the object. These functions raise when memory is short, or when this copy of
 * bufpool was not opened in this state; the argument is consumed then too.
 * push_frozen_range pushes a slice, of `len` bytes from `offset`, and raises
 * also when the frozen buffer has no such bytes.
 */
void bufpool_lua_push_pool(lua_State *L, struct bufpool *pool);
void bufpool_lua_push_buf(lua_State *L, struct bufpool_buf *buf);
void bufpool_lua_push_frozen(lua_State *L, struct bufpool_frozen *frozen);
void bufpool_lua_push_frozen_range(lua_State *L, struct bufpool_frozen *frozen,
				   size_t offset, size_t len);

/*
 * Returns the pool or buffer of the Lua object at `index`. The object keeps
 * ownership: the result is valid while the object is reachable and alive, and
 * the caller must not release it. Where there is no such object, or it is
 * dead, test returns NULL and check raises.
 */
struct bufpool *bufpool_lua_test_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_test_buf(lua_State *L, int index);
struct bufpool *bufpool_lua_check_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_check_buf(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_test_frozen(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_check_frozen(lua_State *L, int index);

/* Returns the bytes of a frozen object, and their number in *len. They are a
 * part of the frozen buffer when the object is a slice. NULL where there is no
 * such object, or it is dead. Valid as the result of test is. */
const void *bufpool_lua_frozen_bytes(lua_State *L, int index, size_t *len);

/*
 * As check, but the caller owns the reference or the buffer from here on, and
 * the object is dead ("detached"). These functions raise only before ownership
 * moves. A slice gives a reference to the whole frozen buffer, of which
 * take_frozen_range also tells the part that the object showed: *len bytes from
 * *offset.
 */
struct bufpool *bufpool_lua_take_pool(lua_State *L, int index);
struct bufpool_buf *bufpool_lua_take_buf(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_take_frozen(lua_State *L, int index);
struct bufpool_frozen *bufpool_lua_take_frozen_range(lua_State *L, int index,
						     size_t *offset,
						     size_t *len);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
