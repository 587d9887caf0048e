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
#include "box.h"

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
extern _Atomic double lua_cookie_drawn;

static inline double
lua_cookie(void)
{
	return atomic_load_explicit(&lua_cookie_drawn, memory_order_relaxed);
}

/* The box at `index` if it is one of this kind and alive, else NULL. All boxes
 * begin alike, and none is smaller than the pool's. A light userdata has no
 * length, so it is none. A host may have released a buffer behind its box. */
static inline void *
lua_box_test(lua_State *L, int index, enum lua_kind kind)
{
	struct bufpool_pool_box *any = lua_touserdata(L, index);
	struct bufpool_box *box = (struct bufpool_box *)any;

	if (any == NULL || lua_objlen(L, index) < sizeof *any ||
	    any->cookie != lua_cookie() || any->kind != (int)kind ||
	    any->state != BOX_LIVE)
		return NULL;
	if (kind == KIND_BUFFER &&
	    (box->buf == NULL || atomic_load_explicit(
		&box->buf->word, memory_order_relaxed) != box->word))
		return NULL;
	return any;
}

/* Raises what is wrong with argument 1. */
_Noreturn void lua_box_reject(lua_State *L, enum lua_kind kind,
			      const char *function);

/* The box in argument 1; raises that it is none, or dead. */
static inline void *
lua_box_self(lua_State *L, enum lua_kind kind, const char *function)
{
	void *box = lua_box_test(L, 1, kind);

	if (__builtin_expect(box == NULL, 0))
		lua_box_reject(L, kind, function);
	return box;
}

/* A new box on top of the stack, with its metatable and nothing inside. */
void *lua_box_new(lua_State *L, enum lua_kind kind, size_t size);

/* The box at `index` is dead from here on, and not for finalization. */
static inline void
lua_box_kill(lua_State *L, int index, void *box, enum lua_state state)
{
	struct bufpool_pool_box *any = box;

	any->cookie = -lua_cookie();
	any->state = state;
	lua_pushvalue(L, UP_DEAD);
	lua_setmetatable(L, index);
}

/* Fills a new box; they allocate nothing. */
static inline void
lua_box_own(struct bufpool_account *account, struct bufpool_box *box,
	    struct bufpool_buf *buf)
{
	double bytes = (double)buf_size(buf);

	box->buf = buf;
	box->word = atomic_load_explicit(&buf->word, memory_order_relaxed);
	box->account = account;
	box->charged = bytes;
	account->held += bytes;
	account->debt += bytes;
}

void lua_pool_own(struct bufpool_pool_box *, struct bufpool *, int named);

/* A size, as a number below 2^63 without a fraction; raises. */
double lua_size_slow(lua_State *L, int index, int argument,
		     const char *function);

static inline double
lua_size(lua_State *L, int index, int argument, const char *function)
{
	if (lua_type(L, index) == LUA_TNUMBER) {
		double n = lua_tonumber(L, index);

		if (n >= 0 && n < 0x1p53 && n == (double)(int64_t)n)
			return n;
	}
	return lua_size_slow(L, index, argument, function);
}

/* Methods for when the JIT is off. */
int lua_plain(lua_State *L);

int lua_misuse(lua_State *L, const char *format, ...);
int lua_bad_argument(lua_State *L, int argument, const char *function,
		     const char *what);

#endif
