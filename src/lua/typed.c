#include <string.h>

#include "append.h"
#include "self.h"
#include "typed.h"
#include "varint.h"

static uint64_t
load_integer(const uint8_t *at, int kind)
{
	int size = kind & KIND_SIZE;
	uint64_t bits = 0;

	for (int k = 0; k < size; k++)
		bits = bits << 8 | at[kind & KIND_BIG ? k : size - 1 - k];
	return bits;
}

static void
store_integer(uint8_t *at, int kind, uint64_t bits)
{
	int size = kind & KIND_SIZE;

	for (int k = 0; k < size; k++, bits >>= 8)
		at[kind & KIND_BIG ? size - 1 - k : k] = (uint8_t)bits;
}

/* What these bits of a kind of up to 53 bits, or of a float, stand for. */
static double
value_of(uint64_t bits, int kind)
{
	uint64_t sign = (uint64_t)1 << (8 * (kind & KIND_SIZE) - 1);
	uint32_t half = (uint32_t)bits;
	double wide;
	float f;

	if (!(kind & KIND_FLOAT))
		return kind & KIND_SIGNED && bits & sign ?
			(double)bits - 2 * (double)sign : (double)bits;
	if ((kind & KIND_SIZE) == sizeof f) {
		memcpy(&f, &half, sizeof f);
		return f;
	}
	memcpy(&wide, &bits, sizeof wide);
	return wide;
}

/* The bits of the number at `index`; false for what only Lua can tell, where
 * LuaJIT's own conversions matter. */
static bool
bits_of(lua_State *L, int index, int kind, uint64_t *bits)
{
	double v = self_number(L, index), limit = 0x1p31;
	float f = (float)v;
	uint32_t half;

	if (kind & KIND_FLOAT) {
		if (v != v)
			return false;
		memcpy(&half, &f, sizeof f);
		memcpy(bits, &v, sizeof v);
		if ((kind & KIND_SIZE) == sizeof f)
			*bits = half;
		return true;
	}
	if ((kind & KIND_SIZE) == 8)
		limit = 0x1p53;
	else if (kind == 4 || kind == (4 | KIND_BIG))
		limit = 0x1p32;
	if (!(v > -0x1p31 && v < limit) || v != (double)(int64_t)v)
		return false;
	*bits = (uint64_t)(int64_t)v;
	return true;
}

/* Pushes a cdata for a 64-bit integer, which may run a finalizer; NULL for all
 * other kinds, which need none. */
static uint64_t *
push_wide(lua_State *L, int kind)
{
	if ((kind & KIND_SIZE) < 8 || kind & KIND_FLOAT)
		return NULL;
	lua_pushvalue(L, kind & KIND_SIGNED ? UP_INT64 : UP_UINT64);
	lua_call(L, 0, 1);
	return (uint64_t *)(uintptr_t)lua_topointer(L, -1);
}

/* False for a NaN, of which the C API loses the payload. */
static bool
push_number(lua_State *L, uint64_t *to, const uint8_t *at, int kind)
{
	double v;

	if (to != NULL) {
		*to = load_integer(at, kind);
		return true;
	}
	v = value_of(load_integer(at, kind), kind);
	lua_pushnumber(L, v);
	return v == v;
}

int
bp_typed_read(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), arguments = lua_gettop(L);
	uint64_t *to = push_wide(L, kind);
	struct self self;
	size_t i;

	if (arguments < 2 || !self_readable(L, &self) ||
	    (i = self_position(L, 2, self.len, kind & KIND_SIZE)) == 0 ||
	    !push_number(L, to, self.at + (i - 1), kind))
		return bp_self_anew_in_lua(L, arguments);
	return 1;
}

int
bp_typed_get(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), arguments = lua_gettop(L);
	uint64_t *to = push_wide(L, kind);
	struct self self;

	if (!self_buffer(L, &self) || self.len < (size_t)(kind & KIND_SIZE) ||
	    !push_number(L, to, self.at, kind))
		return bp_self_anew_in_lua(L, arguments);
	bp_buf_consume(self.b, kind & KIND_SIZE);
	return 1;
}

int
bp_typed_set(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND);
	struct self self;
	uint64_t bits;
	size_t i;

	if (!self_buffer(L, &self) || !bits_of(L, 3, kind, &bits) ||
	    (i = self_position(L, 2, self.len, kind & KIND_SIZE)) == 0)
		return bp_self_in_lua(L);
	bp_self_raise_mark(self.b, i - 1 + (kind & KIND_SIZE));
	store_integer(self.b->at + (i - 1), kind, bits);
	return self_return(L);
}

int
bp_typed_put(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), count = lua_gettop(L) - 1;
	size_t size = kind & KIND_SIZE, total = size * (size_t)count;
	uint64_t bits;
	struct self self;

	if (count < 1 || !self_buffer(L, &self))
		return bp_self_in_lua(L);
	for (int k = 0; k < count; k++)
		if (!bits_of(L, k + 2, kind, &bits))
			return bp_self_in_lua(L);
	if (total > self.b->capacity - self.len &&
	    bp_append_grow(self.b, self.len + total, self.box) != 0)
		return bp_self_in_lua(L);
	buf_raise_mark(self.b, self.len + total);
	buf_changed(self.b);
	for (int k = 0; k < count; k++) {
		if (count > 1)
			bits_of(L, k + 2, kind, &bits);
		store_integer(self.b->at + self.len + size * (size_t)k, kind,
			      bits);
	}
	self.b->len += total;
	return self_return(L);
}

/* The integer at `index`; false for what only Lua can tell. */
static bool
integer_of(lua_State *L, int index, int form, int64_t *v)
{
	double n = self_number(L, index);
	double least = form & VARINT_ZIGZAG ? -VARINT_NUMBER : 0;

	if (!(n >= least && n <= VARINT_NUMBER) || n != (double)(int64_t)n)
		return false;
	*v = (int64_t)n;
	return true;
}

int
bp_typed_put_varint(lua_State *L)
{
	int form = (int)lua_tointeger(L, UP_KIND), count = lua_gettop(L) - 1;
	struct self self;
	size_t total = 0;
	uint8_t *to;
	int64_t v;

	if (count < 1 || !self_buffer(L, &self))
		return bp_self_in_lua(L);
	for (int k = 0; k < count; k++) {
		if (!integer_of(L, k + 2, form, &v))
			return bp_self_in_lua(L);
		total += (size_t)bp_varint_size(v, form);
	}
	if (total > self.b->capacity - self.len &&
	    bp_append_grow(self.b, self.len + total, self.box) != 0)
		return bp_self_in_lua(L);
	to = self.b->at + self.len;
	for (int k = 0; k < count; k++) {
		integer_of(L, k + 2, form, &v);
		to += bp_varint_write(to, v, form);
	}
	self.b->len += total;
	buf_raise_mark(self.b, self.b->len);
	buf_changed(self.b);
	return self_return(L);
}

int
bp_typed_get_varint(lua_State *L)
{
	int form = (int)lua_tointeger(L, UP_KIND), arguments = lua_gettop(L), n;
	uint64_t v, *to = NULL;
	struct self self;

	if (form & VARINT_WIDE)
		to = push_wide(L, form & VARINT_ZIGZAG ? 8 | KIND_SIGNED : 8);
	if (!self_buffer(L, &self) ||
	    (n = bp_varint_read(self.at, self.len, form, &v)) < 0)
		return bp_self_anew_in_lua(L, arguments);
	if (to != NULL)
		*to = v;
	else
		lua_pushnumber(L, varint_number(v, form));
	bp_buf_consume(self.b, (size_t)n);
	return 1;
}

/* `at` of varint.lua: an object, a position, a form. */
int
bp_typed_varint_at(lua_State *L)
{
	int form = (int)lua_tointeger(L, 3), n;
	uint64_t v, *to = NULL;
	struct self self;
	size_t i;

	lua_settop(L, 3);
	if (form & VARINT_WIDE)
		to = push_wide(L, form & VARINT_ZIGZAG ? 8 | KIND_SIGNED : 8);
	if (!self_readable(L, &self) ||
	    (i = self_position(L, 2, self.len, 1)) == 0 ||
	    (n = bp_varint_read(self.at + (i - 1), self.len - (i - 1), form,
				&v)) < 0)
		return bp_self_anew_in_lua(L, 3);
	if (to != NULL)
		*to = v;
	else
		lua_pushnumber(L, varint_number(v, form));
	lua_pushinteger(L, n);
	return 2;
}
