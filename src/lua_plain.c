#include <string.h>

#include "lua_module.h"

/*
 * The commonest accessors for programs that run without the JIT, where a call
 * by FFI costs a hundred times what it does on trace. Each does the plain case
 * by itself and hands all else, mistakes included, to the Lua method, which is
 * its upvalue. Nothing allocates between the check of the box and the access.
 */
static int
in_lua(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

static struct bufpool_buf *
buffer(lua_State *L)
{
	struct bufpool_box *box = lua_box_test(L, 1, KIND_BUFFER);

	return box != NULL ? box->buf : NULL;
}

/* The position at `index`; 0 unless it is a whole number from 1 to len. */
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
	} else if ((frozen = lua_box_test(L, 1, KIND_FROZEN)) != NULL) {
		at = frozen->at;
		i = position(L, 2, frozen->len);
	}
	if (i == 0 || lua_gettop(L) != 2)
		return in_lua(L);
	lua_pushinteger(L, at[i - 1]);
	return 1;
}

/* A cache line of the mark at a time, as the Lua method. */
static int
plain_setbyte(lua_State *L)
{
	struct bufpool_buf *b = buffer(L);
	size_t i = b != NULL ? position(L, 2, b->len) : 0;
	double v = lua_type(L, 3) == LUA_TNUMBER ? lua_tonumber(L, 3) : -1;
	size_t end = (i + 63) & ~(size_t)63;

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

/* Strings, into room that is there: nothing can fail, or stop halfway. */
static int
plain_put(lua_State *L)
{
	struct bufpool_buf *b = buffer(L);
	int top = lua_gettop(L);
	size_t total = 0, n;
	const char *text;

	for (int k = 2; k <= top; k++) {
		if (lua_type(L, k) != LUA_TSTRING)
			return in_lua(L);
		total += lua_objlen(L, k);
	}
	if (b == NULL || total > b->capacity - b->len)
		return in_lua(L);
	buf_raise_mark(b, b->len + total);
	buf_changed(b);
	for (int k = 2; k <= top; k++) {
		text = lua_tolstring(L, k, &n);
		memcpy(b->at + b->len, text, n);
		b->len += n;
	}
	lua_settop(L, 1);
	return 1;
}

static const luaL_Reg plain[] = {
	{ "byte", plain_byte },
	{ "setbyte", plain_setbyte },
	{ "write", plain_write },
	{ "put", plain_put },
	{ NULL, NULL }
};

/* core.plain(name, method): the method of this name for plain cases, or the
 * one given. */
int
lua_plain(lua_State *L)
{
	const luaL_Reg *p = plain;
	const char *name = luaL_checkstring(L, 1);

	while (p->name != NULL && strcmp(p->name, name) != 0)
		p++;
	lua_settop(L, 2);
	if (p->name != NULL)
		lua_pushcclosure(L, p->func, 1);
	return 1;
}
