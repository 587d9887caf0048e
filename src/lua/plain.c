#include <string.h>

#include "argument.h"
#include "calls.h"
#include "core/wipe.h"
#include "plain.h"

/* Nothing here allocates between the check of a box and the access. */

#define UP_METHOD lua_upvalueindex(1)	/* the Lua method */
#define UP_TYPE lua_upvalueindex(2)	/* of handles; calling it makes one */
#define UP_NUMBER lua_upvalueindex(3)	/* of that type, in this VM */
#define UP_BEFORE lua_upvalueindex(4)	/* bytes from number to value */

static int
in_lua(lua_State *L)
{
	lua_pushvalue(L, UP_METHOD);
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* Where a handle keeps its value; NULL for what is no handle. For a cdata the
 * C API returns a type above all that it has names for. */
static struct bufpool_handle **
handle(lua_State *L, int index)
{
	const char *value;
	uint16_t number;

	if (lua_type(L, index) <= LUA_TTHREAD)
		return NULL;
	value = lua_topointer(L, index);
	memcpy(&number, value - lua_tointeger(L, UP_BEFORE), sizeof number);
	return number == lua_tointeger(L, UP_NUMBER)
	    ? (struct bufpool_handle **)(uintptr_t)value : NULL;
}

static struct bufpool_buf *
buffer(lua_State *L)
{
	struct bufpool_box *box = box_test(L, 1, KIND_BUFFER);
	struct bufpool_handle **h;

	if (box != NULL)
		return box->buf;
	h = handle(L, 1);
	return h != NULL ? box_handle_buf(*h) : NULL;
}

/* The position at `index`; 0 when it is no whole number from 1 to len. */
static size_t
position(lua_State *L, int index, size_t len)
{
	double i = lua_type(L, index) == LUA_TNUMBER ?
		lua_tonumber(L, index) : 0;

	return i >= 1 && i <= (double)len && i == (double)(size_t)i ?
		(size_t)i : 0;
}

static int
plain_byte(lua_State *L)
{
	struct bufpool_frozen_box *frozen;
	struct bufpool_buf *b = buffer(L);
	const uint8_t *at = NULL;
	size_t i = 0;

	if (b != NULL) {
		at = b->at;
		i = position(L, 2, b->len);
	} else if ((frozen = box_test(L, 1, KIND_FROZEN)) != NULL) {
		at = frozen->at;
		i = position(L, 2, frozen->len);
	}
	if (i == 0 || lua_gettop(L) != 2)
		return in_lua(L);
	lua_pushinteger(L, at[i - 1]);
	return 1;
}

/* Raises the mark as the Lua method does: by whole cache lines. */
static int
plain_setbyte(lua_State *L)
{
	struct bufpool_buf *b = buffer(L);
	size_t i = b != NULL ? position(L, 2, b->len) : 0;
	double v = lua_type(L, 3) == LUA_TNUMBER ? lua_tonumber(L, 3) : -1;
	size_t end = (i + WIPE_LINE - 1) / WIPE_LINE * WIPE_LINE;

	if (i == 0 || !(v >= 0 && v < 256) || lua_gettop(L) != 3)
		return in_lua(L);
	buf_raise_mark(b, end < b->capacity ? end : b->capacity);
	buf_changed(b);
	b->at[i - 1] = (uint8_t)v;
	lua_settop(L, 1);
	return 1;
}

static int
plain_write(lua_State *L)
{
	struct bufpool_buf *b = buffer(L);
	size_t i = b != NULL ? position(L, 2, b->len) : 0, n;
	const char *text;

	if (i == 0 || lua_type(L, 3) != LUA_TSTRING)
		return in_lua(L);
	text = lua_tolstring(L, 3, &n);
	if (n > b->len - (i - 1))
		return in_lua(L);
	buf_raise_mark(b, i - 1 + n);
	buf_changed(b);
	memcpy(b->at + (i - 1), text, n);
	lua_settop(L, 1);
	return 1;
}

#define PUT_MAX 16

/* Only strings, and only where they fit: nothing can fail or stop halfway. */
static int
plain_put(lua_State *L)
{
	struct bufpool_buf *b = buffer(L);
	int top = lua_gettop(L);
	const char *text[PUT_MAX];
	size_t total = 0, n[PUT_MAX];

	if (b == NULL || top > PUT_MAX)
		return in_lua(L);
	for (int k = 1; k < top; k++) {
		if (lua_type(L, k + 1) != LUA_TSTRING)
			return in_lua(L);
		text[k] = lua_tolstring(L, k + 1, &n[k]);
		total += n[k];
	}
	if (total > b->capacity - b->len)
		return in_lua(L);
	buf_raise_mark(b, b->len + total);
	buf_changed(b);
	for (int k = 1; k < top; k++) {
		memcpy(b->at + b->len, text[k], n[k]);
		b->len += n[k];
	}
	lua_settop(L, 1);
	return 1;
}

/* Making the cdata may run a finalizer that closes the pool. Then, and when
 * memory is short, the Lua method says so. */
static int
plain_borrow(lua_State *L)
{
	double n = argument_plain_size(L, 2);
	struct bufpool_pool_box *box;
	struct bufpool_handle *taken;

	if (n < 0 || lua_gettop(L) != 2 || box_test(L, 1, KIND_POOL) == NULL)
		return in_lua(L);
	lua_pushvalue(L, UP_TYPE);
	lua_call(L, 0, 1);
	box = box_test(L, 1, KIND_POOL);
	taken = box != NULL ? ffi_calls.borrow(box, (size_t)n) : NULL;
	if (taken == NULL) {
		lua_settop(L, 2);
		return in_lua(L);
	}
	*handle(L, 3) = taken;
	return 1;
}

/* Releases a handle; buffers have a method of C. */
static int
plain_release(lua_State *L)
{
	struct bufpool_handle **h = handle(L, 1);
	struct bufpool_buf *b = h != NULL ? box_handle_buf(*h) : NULL;

	if (b == NULL)
		return in_lua(L);
	bufpool_release(b);
	return 0;
}

static const luaL_Reg plain[] = {
	{ "byte", plain_byte },
	{ "setbyte", plain_setbyte },
	{ "write", plain_write },
	{ "put", plain_put },
	{ "borrow", plain_borrow },
	{ "release", plain_release },
	{ NULL, NULL }
};

int
plain_method(lua_State *L)
{
	const luaL_Reg *p = plain;
	const char *name = luaL_checkstring(L, 1);

	while (p->name != NULL && strcmp(p->name, name) != 0)
		p++;
	if (p->name == NULL) {
		lua_settop(L, 2);
		return 1;
	}
	lua_settop(L, 5);
	lua_pushcclosure(L, p->func, 4);
	return 1;
}
