#include <math.h>
#include <stdio.h>
#include <string.h>

#include "append.h"
#include "argument.h"
#include "bytes.h"
#include "core/wipe.h"
#include "plain.h"

/* Nothing here allocates between the check of an object and the access, except
 * as said. What a method takes, and what it may not see, is checked as its Lua
 * form does: what differs is handed to that. */

#define UP_METHOD lua_upvalueindex(1)	/* the Lua form */
#define UP_KIND lua_upvalueindex(2)	/* of number, for typed access */
#define UP_CLASS lua_upvalueindex(3)	/* whose method it is */
#define UP_HANDLES lua_upvalueindex(4)	/* how to tell a handle: see handle */
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

static int
in_lua(lua_State *L)
{
	lua_pushvalue(L, UP_METHOD);
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* What came on top of the arguments goes before. */
static int
anew_in_lua(lua_State *L, int arguments)
{
	lua_settop(L, arguments);
	return in_lua(L);
}

/* Where a handle keeps its value; NULL for what is no handle. For a cdata the
 * C API returns a type above all that it has names for. The number of its type
 * stands so many bytes before its value. UP_HANDLES has that number in its low
 * 16 bits, and above them so many. */
static struct bufpool_handle **
self_handle(lua_State *L, int index)
{
	const char *value;
	uint16_t number;
	lua_Integer handles;

	if (lua_type(L, index) <= LUA_TTHREAD)
		return NULL;
	handles = lua_tointeger(L, UP_HANDLES);
	value = lua_topointer(L, index);
	memcpy(&number, value - (handles >> 16), sizeof number);
	return number == (handles & 0xffff)
	    ? (struct bufpool_handle **)(uintptr_t)value : NULL;
}

/* A living box that bears the metatable of its kind: debug.setmetatable may
 * have given it another one. */
static void *
self_dressed(lua_State *L, int index, enum box_kind kind)
{
	void *box = box_test(L, index, kind);
	const void *meta = lua_topointer(L, kind == KIND_BUFFER ? UP_BUFFERS :
					 UP_FROZENS);

	if (box == NULL || !lua_getmetatable(L, index))
		return NULL;
	if (lua_topointer(L, -1) != meta)
		box = NULL;
	lua_pop(L, 1);
	return box;
}

/* What a method works on. */
struct self {
	struct bufpool_buf *b;	/* NULL: frozen */
	struct bufpool_box *box;	/* NULL: a handle, or frozen */
	const void *o;	/* for bytes.h */
	int32_t epoch;
	const uint8_t *at;
	size_t len;
};

static inline bool
take_handle(lua_State *L, struct self *self)
{
	struct bufpool_handle **h = self_handle(L, 1);

	self->box = NULL;
	self->b = h != NULL ? handle_buf(*h) : NULL;
	return self->b != NULL;
}

static inline bool
take_box(struct self *self, struct bufpool_box *box)
{
	self->box = box;
	self->b = box != NULL ? box->buf : NULL;
	return box != NULL;
}

static inline bool
take_frozen(struct self *self, const struct bufpool_frozen_box *frozen)
{
	if (frozen == NULL)
		return false;
	self->o = frozen;
	self->epoch = frozen->epoch;
	self->at = frozen->at;
	self->len = frozen->len;
	return true;
}

/* The buffer in argument 1. An object of another class than the method's is
 * left to Lua, so that one that bears another kind's metatable is refused. */
static inline bool
self_buffer(lua_State *L, struct self *self)
{
	lua_Integer class = lua_tointeger(L, UP_CLASS);
	bool found;

	if (class == KIND_BUFFER)
		found = take_box(self, box_test(L, 1, KIND_BUFFER));
	else if (class == CLASS_HANDLE)
		found = take_handle(L, self);
	else
		found = class == CLASS_ANY &&
			(take_box(self, self_dressed(L, 1, KIND_BUFFER)) ||
			 take_handle(L, self));
	if (found) {
		self->o = self->b;
		self->epoch = self->b->epoch;
		self->at = self->b->at;
		self->len = self->b->len;
	}
	return found;
}

/* The same for what has bytes to read. */
static inline bool
self_readable(lua_State *L, struct self *self)
{
	lua_Integer class = lua_tointeger(L, UP_CLASS);

	if (class == KIND_FROZEN)
		return take_frozen(self, box_test(L, 1, KIND_FROZEN));
	return self_buffer(L, self) || (class == CLASS_ANY &&
		take_frozen(self, self_dressed(L, 1, KIND_FROZEN)));
}

/* The number at `index`; NaN when it is none. */
static double
check_number(lua_State *L, int index)
{
	return lua_type(L, index) == LUA_TNUMBER ?
		lua_tonumber(L, index) : (double)NAN;
}

/* Where n bytes begin, counted from 1, if they are there; else 0. */
static size_t
check_position(lua_State *L, int index, size_t len, size_t n)
{
	double i = check_number(L, index);

	return len >= n && i >= 1 && i <= (double)(len - n + 1) &&
		i == (double)(size_t)i ? (size_t)i : 0;
}

/* The position at `index` as string.sub takes it: without its fraction,
 * from the end where it is negative. False for what Lua has to look at. */
static bool
self_bound(lua_State *L, int index, double otherwise, size_t len, double *i)
{
	*i = lua_isnoneornil(L, index) ? otherwise : check_number(L, index);
	if (!(fabs(*i) < 0x1p53))
		return false;
	*i = (double)(int64_t)*i;
	if (*i < 0)
		*i += (double)len + 1;
	return true;
}

/* Pushes n bytes, TEXT_MAX at most. May run finalizers. */
static void
push_text(lua_State *L, const uint8_t *at, size_t n)
{
	char text[TEXT_MAX];

	if (n > 0)
		memcpy(text, at, n);
	lua_pushlstring(L, text, n);
}

static int
return_self(lua_State *L)
{
	lua_settop(L, 1);
	return 1;
}

static int
plain_len(lua_State *L)
{
	struct self self;

	if (!self_readable(L, &self))
		return in_lua(L);
	lua_pushnumber(L, (double)self.len);
	return 1;
}

static int
plain_tostring(lua_State *L)
{
	struct self self;

	if (!self_readable(L, &self) || self.len > TEXT_MAX)
		return in_lua(L);
	push_text(L, self.at, self.len);
	return 1;
}

static int
plain_sub(lua_State *L)
{
	struct self self;
	double i, j;

	if (!self_readable(L, &self) || lua_isnoneornil(L, 2) ||
	    !self_bound(L, 2, 1, self.len, &i) || !self_bound(L, 3, -1,
							      self.len, &j))
		return in_lua(L);
	i = i < 1 ? 1 : i;
	j = j > (double)self.len ? (double)self.len : j;
	if (j - i >= TEXT_MAX)
		return in_lua(L);
	if (i > j)
		lua_pushliteral(L, "");
	else
		push_text(L, self.at + (size_t)i - 1, (size_t)(j - i) + 1);
	return 1;
}

/* Lua has room for as many results as LUA_MINSTACK without being asked. */
static int
plain_byte(lua_State *L)
{
	struct self self;
	size_t only;
	double i, j;

	if (!self_readable(L, &self))
		return in_lua(L);
	if (lua_gettop(L) == 2 && (only = check_position(L, 2, self.len,
							 1)) > 0) {
		lua_pushinteger(L, self.at[only - 1]);
		return 1;
	}
	if (!self_bound(L, 2, 1, self.len, &i))
		return in_lua(L);
	j = i;
	if (!lua_isnoneornil(L, 3) && !self_bound(L, 3, 0, self.len, &j))
		return in_lua(L);
	i = i < 1 ? 1 : i;
	j = j > (double)self.len ? (double)self.len : j;
	if (j - i >= LUA_MINSTACK - 4)
		return in_lua(L);
	for (double k = i; k <= j; k++)
		lua_pushinteger(L, self.at[(size_t)k - 1]);
	return i <= j ? (int)(j - i) + 1 : 0;
}

/* What lies past the end two Luas take differently. */
static int
plain_find(lua_State *L)
{
	const char *needle;
	struct self self;
	double i, hit;
	size_t n;

	if (!self_readable(L, &self) || lua_type(L, 2) != LUA_TSTRING ||
	    !self_bound(L, 3, 1, self.len, &i) || i > (double)self.len + 1)
		return in_lua(L);
	needle = lua_tolstring(L, 2, &n);
	i = i < 1 ? 1 : i;
	hit = (lua_toboolean(L,
			     4) ? bp_bytes_find_plain : bp_bytes_find)(self.o,
		self.epoch, (size_t)i - 1, NULL, 0, needle, n);
	if (hit < -1)
		return in_lua(L);
	if (hit < 0) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushnumber(L, i + hit);
	lua_pushnumber(L, i + hit + (double)n - 1);
	return 2;
}

/* Raises the mark as the Lua forms do: by whole cache lines. */
static void
raise_mark(struct bufpool_buf *b, size_t end)
{
	if (b->mark >= end)
		return;
	end = (end + WIPE_LINE - 1) / WIPE_LINE * WIPE_LINE;
	buf_raise_mark(b, end < b->capacity ? end : b->capacity);
	buf_changed(b);
}

static int
plain_setbyte(lua_State *L)
{
	struct self self;
	double v = check_number(L, 3);
	size_t i;

	if (!self_buffer(L, &self) || !(v >= 0 && v < 256) ||
	    lua_gettop(L) != 3 || (i = check_position(L, 2, self.len, 1)) == 0)
		return in_lua(L);
	raise_mark(self.b, i);
	self.b->at[i - 1] = (uint8_t)v;
	return return_self(L);
}

static int
plain_write(lua_State *L)
{
	struct self self;
	const char *text;
	size_t i, n;

	if (!self_buffer(L, &self) || lua_type(L, 3) != LUA_TSTRING)
		return in_lua(L);
	text = lua_tolstring(L, 3, &n);
	if ((i = check_position(L, 2, self.len, n)) == 0)
		return in_lua(L);
	buf_raise_mark(self.b, i - 1 + n);
	buf_changed(self.b);
	memcpy(self.b->at + (i - 1), text, n);
	return return_self(L);
}

/* What put is to append of the argument at `index`. */
static bool
check_value(lua_State *L, int index, const void **at, double *n)
{
	struct bufpool_handle **h;
	size_t len;

	switch (lua_type(L, index)) {
	case LUA_TSTRING:
		*at = lua_tolstring(L, index, &len);
		*n = (double)len;
		return true;
	case LUA_TNUMBER:
		*at = NULL;
		*n = lua_tonumber(L, index);
		return true;
	case LUA_TUSERDATA:
		*n = VALUE_BUFFER;
		*at = self_dressed(L, index, KIND_BUFFER);
		if (*at == NULL) {
			*n = VALUE_FROZEN;
			*at = self_dressed(L, index, KIND_FROZEN);
		}
		return *at != NULL;
	default:
		h = self_handle(L, index);
		*n = VALUE_HANDLE;
		*at = h != NULL ? *h : NULL;
		return *at != NULL;
	}
}

static int
plain_put(lua_State *L)
{
	struct bufpool_values values;
	int count = lua_gettop(L) - 1;
	struct self self;

	if (count > VALUES_MAX || !self_buffer(L, &self))
		return in_lua(L);
	for (int k = 0; k < count; k++)
		if (!check_value(L, k + 2, &values.at[k], &values.n[k]))
			return in_lua(L);
	if (bp_append(self.b, self.box, &values, count) != 0)
		return in_lua(L);
	return return_self(L);
}

static int
plain_skip(lua_State *L)
{
	struct self self;
	double n = argument_plain_size(L, 2);

	if (n < 0 || !self_buffer(L, &self))
		return in_lua(L);
	bp_buf_consume(self.b, n < (double)self.len ? (size_t)n : self.len);
	return return_self(L);
}

static int
plain_reset(lua_State *L)
{
	struct self self;

	if (!self_buffer(L, &self))
		return in_lua(L);
	bp_buf_consume(self.b, self.len);
	return return_self(L);
}

/* A finalizer that push_text runs may change the buffer, and then Lua begins
 * anew. */
static int
plain_get(lua_State *L)
{
	int arguments = lua_gettop(L);
	struct self self, now;
	double n;

	if (arguments > 2 || !self_buffer(L, &self))
		return in_lua(L);
	n = lua_isnoneornil(L, 2) ? (double)self.len :
		argument_plain_size(L, 2);
	if (n > (double)self.len)
		n = (double)self.len;
	if (n < 0 || n > TEXT_MAX)
		return in_lua(L);
	push_text(L, self.at, (size_t)n);
	if (!self_buffer(L, &now) || now.b != self.b || now.epoch != self.epoch)
		return anew_in_lua(L, arguments);
	bp_buf_consume(self.b, (size_t)n);
	return 1;
}

/* A kind of number, of 1 to 8 bytes. */
#define KIND_SIZE 15
#define KIND_SIGNED 16
#define KIND_BIG 32	/* big-endian */
#define KIND_FLOAT 64

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
	double v = check_number(L, index), limit = 0x1p31;
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
is_wide(lua_State *L, int kind)
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

static int
plain_read(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), arguments = lua_gettop(L);
	uint64_t *to = is_wide(L, kind);
	struct self self;
	size_t i;

	if (arguments < 2 || !self_readable(L, &self) ||
	    (i = check_position(L, 2, self.len, kind & KIND_SIZE)) == 0 ||
	    !push_number(L, to, self.at + (i - 1), kind))
		return anew_in_lua(L, arguments);
	return 1;
}

static int
plain_get_number(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), arguments = lua_gettop(L);
	uint64_t *to = is_wide(L, kind);
	struct self self;

	if (!self_buffer(L, &self) || self.len < (size_t)(kind & KIND_SIZE) ||
	    !push_number(L, to, self.at, kind))
		return anew_in_lua(L, arguments);
	bp_buf_consume(self.b, kind & KIND_SIZE);
	return 1;
}

static int
plain_set_number(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND);
	struct self self;
	uint64_t bits;
	size_t i;

	if (!self_buffer(L, &self) || !bits_of(L, 3, kind, &bits) ||
	    (i = check_position(L, 2, self.len, kind & KIND_SIZE)) == 0)
		return in_lua(L);
	raise_mark(self.b, i - 1 + (kind & KIND_SIZE));
	store_integer(self.b->at + (i - 1), kind, bits);
	return return_self(L);
}

static int
plain_put_number(lua_State *L)
{
	int kind = (int)lua_tointeger(L, UP_KIND), count = lua_gettop(L) - 1;
	size_t size = kind & KIND_SIZE, total = size * (size_t)count;
	uint64_t bits;
	struct self self;

	if (count < 1 || !self_buffer(L, &self))
		return in_lua(L);
	for (int k = 0; k < count; k++)
		if (!bits_of(L, k + 2, kind, &bits))
			return in_lua(L);
	if (total > self.b->capacity - self.len &&
	    bp_append_grow(self.b, self.len + total, self.box) != 0)
		return in_lua(L);
	buf_raise_mark(self.b, self.len + total);
	buf_changed(self.b);
	for (int k = 0; k < count; k++) {
		bits_of(L, k + 2, kind, &bits);
		store_integer(self.b->at + self.len + size * (size_t)k, kind,
			      bits);
	}
	self.b->len += total;
	return return_self(L);
}

/* Parts of pack.lua, which calls them with what it has checked, but for the
 * object and its bounds. */

/* Where a position that may be one past the end is; 0 for what Lua has to
 * see. */
static double
self_start(lua_State *L, size_t len)
{
	double i = check_number(L, 2);

	return i >= 1 && i <= (double)len + 1 && i == (double)(int64_t)i ?
		i : 0;
}

static int
plain_pack_from(lua_State *L)
{
	struct self self;
	double i;

	if (!self_buffer(L, &self) || (i = self_start(L, self.len)) == 0)
		return in_lua(L);
	lua_pushnumber(L, i);
	return 1;
}

static int
plain_unpack_from(lua_State *L)
{
	struct self self;
	double i;

	if (!self_readable(L, &self) || (i = self_start(L, self.len)) == 0)
		return in_lua(L);
	lua_pushnumber(L, i);
	lua_pushnumber(L, (double)self.len);
	return 2;
}

static int
plain_extend(lua_State *L)
{
	double stop = argument_plain_size(L, 2);
	struct self self;

	if (stop < 0 || !self_buffer(L, &self) ||
	    bp_bytes_extend(self.b, self.epoch, (size_t)stop, self.box) != 0)
		return in_lua(L);
	return 0;
}

static int
plain_bytes(lua_State *L)
{
	double n = argument_plain_size(L, 3);
	struct self self;
	size_t i;

	if (n < 0 || n > TEXT_MAX || !self_readable(L, &self) ||
	    (i = check_position(L, 2, self.len, (size_t)n)) == 0)
		return in_lua(L);
	push_text(L, self.at + (i - 1), (size_t)n);
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
	taken = box != NULL ? bp_handle_borrow(box, (size_t)n) : NULL;
	if (taken == NULL)
		return anew_in_lua(L, 2);
	*self_handle(L, 3) = taken;
	return 1;
}

/* Releases a handle; buffers have a method of C. */
static int
plain_release(lua_State *L)
{
	struct bufpool_handle **h = self_handle(L, 1);
	struct bufpool_buf *b = h != NULL ? handle_buf(*h) : NULL;

	if (b == NULL)
		return in_lua(L);
	bufpool_release(b);
	return 0;
}

/* Which methods have a form of C. In a name, KIND stands for any kind of
 * number. */
static const luaL_Reg plain[] = {
	{ "len", plain_len },
	{ "tostring", plain_tostring },
	{ "sub", plain_sub },
	{ "byte", plain_byte },
	{ "find", plain_find },
	{ "setbyte", plain_setbyte },
	{ "write", plain_write },
	{ "put", plain_put },
	{ "skip", plain_skip },
	{ "reset", plain_reset },
	{ "get", plain_get },
	{ "KIND", plain_read },
	{ "get_KIND", plain_get_number },
	{ "set_KIND", plain_set_number },
	{ "put_KIND", plain_put_number },
	{ "borrow", plain_borrow },
	{ "release", plain_release },
	/* of pack.lua */
	{ "pack_from", plain_pack_from },
	{ "unpack_from", plain_unpack_from },
	{ "extend", plain_extend },
	{ "bytes", plain_bytes },
	{ NULL, NULL }
};

/* The kind that the end of a name stands for, such as u32be; 0 for none. */
static int
kind_of(const char *name)
{
	const char *low = strchr(name, '_');
	char form, order[3] = "";
	int bits;

	if (sscanf(low != NULL ? low + 1 : name, "%c%d%2s", &form, &bits,
		   order) < 2 || strchr("uif", form) == NULL)
		return 0;
	return bits / 8 | (form == 'i' ? KIND_SIGNED : 0) |
		(form == 'f' ? KIND_FLOAT : 0) |
		(order[0] == 'b' ? KIND_BIG : 0);
}

/* Whether `name` is what the list calls `listed`. */
static bool
is_listed(const char *name, int kind, const char *listed)
{
	size_t n = strcspn(listed, "K");

	return listed[n] == '\0' ? strcmp(name, listed) == 0 :
		kind != 0 && strncmp(name, listed, n) == 0 &&
		strchr(name + n, '_') == NULL;
}

static int
class_of(lua_State *L, int index)
{
	const char *class = lua_tostring(L, index);

	if (class == NULL)
		return CLASS_ANY;
	for (int kind = 0; bp_box_kinds[kind] != NULL; kind++)
		if (strcmp(class, bp_box_kinds[kind]) == 0)
			return KIND_POOL + kind;
	return CLASS_HANDLE;
}

int
bp_plain_method(lua_State *L)
{
	const luaL_Reg *p = plain;
	const char *name = luaL_checkstring(L, 1);
	int kind = kind_of(name);

	lua_settop(L, 7);
	while (p->name != NULL && !is_listed(name, kind, p->name))
		p++;
	if (p->name == NULL) {
		lua_settop(L, 2);
		return 1;
	}
	lua_remove(L, 1);
	lua_pushinteger(L, kind);
	lua_insert(L, 2);
	lua_pushinteger(L, class_of(L, 3));
	lua_replace(L, 3);
	lua_pushvalue(L, UP_BUFFER);
	lua_pushvalue(L, UP_FROZEN);
	lua_pushcclosure(L, p->func, UP_PLAIN_COUNT);
	return 1;
}
