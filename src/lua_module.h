/*
 * lua_module - what the C parts of the Lua module share.
 *
 * Every C function of the module carries the same upvalues, so that the hot
 * ones look nothing up. They raise misuse at the line that called them.
 */
#ifndef BUFPOOL_LUA_MODULE_H
#define BUFPOOL_LUA_MODULE_H

#include <lauxlib.h>
#include <lua.h>

#include "bufpool_lua.h"
#include "lua_box.h"

#define UP_ACCOUNT lua_upvalueindex(1)	/* userdata: struct bufpool_account */
#define UP_POOL lua_upvalueindex(2)	/* metatables */
#define UP_BUFFER lua_upvalueindex(3)
#define UP_FROZEN lua_upvalueindex(4)
#define UP_DEAD lua_upvalueindex(5)
#define UP_CORE lua_upvalueindex(6)	/* the module's private table */
#define UP_COUNT 6

/* Keys in the registry. */
#define LUA_OPENED "bufpool"		/* the public module, once it is made */
#define LUA_BOXES "bufpool.boxes"	/* what makes boxes for hosts */

extern const luaL_Reg lua_module_functions[], lua_host_functions[];
extern const luaL_Reg lua_pool_methods[], lua_pool_meta[];
extern const luaL_Reg lua_buffer_methods[], lua_buffer_meta[];
extern const luaL_Reg lua_frozen_methods[], lua_frozen_meta[];

/* This process's cookie; never 0 once a state has opened the module. */
extern _Atomic uint64_t lua_cookie_drawn;

static inline double
lua_cookie(void)
{
	return (double)(int64_t)atomic_load_explicit(&lua_cookie_drawn,
						     memory_order_relaxed);
}

/* The box at `index` if it is one of this kind and alive, else NULL. */
void *lua_box_test(lua_State *L, int index, enum lua_kind kind);

/* The box in argument 1; raises that it is none, or dead. */
void *lua_box_self(lua_State *L, enum lua_kind kind, const char *function);

/* A new box on top of the stack, with its metatable and nothing inside. */
void *lua_box_new(lua_State *L, enum lua_kind kind, size_t size);

/* The userdata at `index` is dead from here on, and not for finalization. */
void lua_box_kill(lua_State *L, int index, enum lua_state state);

/* Fills a new box; they allocate nothing. */
void lua_box_own(lua_State *L, struct bufpool_box *, struct bufpool_buf *);
void lua_pool_own(struct bufpool_pool_box *, struct bufpool *, int named);

/* A size, as a number below 2^63 without a fraction; raises. */
double lua_size(lua_State *L, int index, int argument, const char *function);

/* Methods for when the JIT is off. */
int lua_plain(lua_State *L);

int lua_misuse(lua_State *L, const char *format, ...);
int lua_bad_argument(lua_State *L, int argument, const char *function,
		     const char *what);

#endif
