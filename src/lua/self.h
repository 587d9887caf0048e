/*
 * self - what a method that has a form of C works on, and the way back to its
 * Lua form.
 *
 * Nothing of these methods allocates between the check of an object and the
 * access, except as said. Each checks its object and its arguments as its Lua
 * form does, and hands what it does not take itself to that form.
 */
#ifndef BUFPOOL_LUA_SELF_H
#define BUFPOOL_LUA_SELF_H

#include <math.h>

#include "handle.h"

#define UP_METHOD lua_upvalueindex(1)	/* the Lua form */
#define UP_KIND lua_upvalueindex(2)	/* of number, or form of varint */
#define UP_CLASS lua_upvalueindex(3)	/* whose method it is */
#define UP_HANDLES lua_upvalueindex(4)	/* for bp_self_handle */
#define UP_TYPE lua_upvalueindex(5)	/* of handles; calling it makes one */
#define UP_INT64 lua_upvalueindex(6)	/* types, as UP_TYPE is */
#define UP_UINT64 lua_upvalueindex(7)
#define UP_BUFFERS lua_upvalueindex(8)	/* the metatable of buffers */
#define UP_FROZENS lua_upvalueindex(9)
#define UP_PLAIN_COUNT 9

/* What UP_CLASS may be besides a kind of box. */
#define CLASS_ANY 0
#define CLASS_HANDLE 9

/* A string of Lua is made from a copy on the stack up to this size: making one
 * may run a finalizer before its bytes are read. */
#define TEXT_MAX 4096

struct self {
	/* Not set for what is frozen. */
	struct bufpool_buf *b;
	struct bufpool_box *box;	/* NULL: a handle */

	const void *o;	/* for bytes.h */
	int32_t epoch;
	const uint8_t *at;
	size_t len;
};

/* Calls the Lua form with all arguments, and returns how many results are on
 * the stack. */
int bp_self_in_lua(lua_State *L);

/* The same, without what came on top of so many arguments. */
int bp_self_anew_in_lua(lua_State *L, int arguments);

/* Where a handle keeps its value; NULL for what is no handle. */
struct bufpool_handle **bp_self_handle(lua_State *L, int index);

/* A living box that bears the metatable of its kind: debug.setmetatable may
 * have given it another one. */
void *bp_self_dressed(lua_State *L, int index, enum box_kind kind);

static inline bool
self_set(struct self *self, struct bufpool_box *box, struct bufpool_buf *b)
{
	if (b == NULL)
		return false;
	self->box = box;
	self->b = b;
	self->o = b;
	self->epoch = b->epoch;
	self->at = b->at;
	self->len = b->len;
	return true;
}

/* As self_buffer, for any index and without the short way for boxes; and the
 * frozen object in argument 1. `class` is whose method it is. */
bool bp_self_other(lua_State *L, int index, struct self *self,
		   lua_Integer class);
bool bp_self_frozen(lua_State *L, struct self *self, lua_Integer class);

/* The buffer in argument 1. False for what is left to Lua. */
static inline bool
self_buffer(lua_State *L, struct self *self)
{
	lua_Integer class = lua_tointeger(L, UP_CLASS);
	struct bufpool_box *box;

	if (class != KIND_BUFFER)
		return bp_self_other(L, 1, self, class);
	box = box_test(L, 1, KIND_BUFFER);
	return box != NULL && self_set(self, box, box->buf);
}

/* The same for what has bytes to read. */
static inline bool
self_readable(lua_State *L, struct self *self)
{
	lua_Integer class = lua_tointeger(L, UP_CLASS);

	if (class == KIND_FROZEN)
		return bp_self_frozen(L, self, class);
	return self_buffer(L, self) || bp_self_frozen(L, self, class);
}

/* The position at `index` as string.sub takes it: without its fraction,
 * from the end where it is negative. False for what Lua has to look at. */
bool bp_self_bound(lua_State *L, int index, double otherwise, size_t len,
		   double *i);

/* Pushes n bytes, TEXT_MAX at most. May run finalizers. */
void bp_self_push_text(lua_State *L, const uint8_t *at, size_t n);

/* Raises the mark as the Lua forms do: by whole cache lines. */
void bp_self_raise_mark(struct bufpool_buf *b, size_t end);

/* The number at `index`; NaN when it is none. */
static inline double
self_number(lua_State *L, int index)
{
	return lua_type(L, index) == LUA_TNUMBER ?
		lua_tonumber(L, index) : (double)NAN;
}

/* Where n bytes begin, counted from 1, if they are there; else 0. */
static inline size_t
self_position(lua_State *L, int index, size_t len, size_t n)
{
	double i = self_number(L, index);

	return len >= n && i >= 1 && i <= (double)(len - n + 1) &&
		i == (double)(size_t)i ? (size_t)i : 0;
}

static inline int
self_return(lua_State *L)
{
	lua_settop(L, 1);
	return 1;
}

#endif
