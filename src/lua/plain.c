#include <stdio.h>
#include <string.h>

#include "append.h"
#include "argument.h"
#include "bytes.h"
#include "core/release.h"
#include "number.h"
#include "pack.h"
#include "plain.h"
#include "self.h"
#include "site.h"
#include "typed.h"
#include "varint.h"

static int
plain_len(lua_State *L)
{
	struct self self;

	if (!self_readable(L, &self))
		return bp_self_in_lua(L);
	lua_pushnumber(L, (double)self.len);
	return 1;
}

static int
plain_tostring(lua_State *L)
{
	struct self self;

	if (!self_readable(L, &self) || self.len > TEXT_MAX)
		return bp_self_in_lua(L);
	bp_self_push_text(L, self.at, self.len);
	return 1;
}

static int
plain_sub(lua_State *L)
{
	struct self self;
	double i, j;

	if (!self_readable(L, &self) ||
	    !bp_self_bound(L, 2, (double)NAN, self.len, &i) ||
	    !bp_self_bound(L, 3, -1, self.len, &j))
		return bp_self_in_lua(L);
	i = i < 1 ? 1 : i;
	j = j > (double)self.len ? (double)self.len : j;
	if (j - i >= TEXT_MAX)
		return bp_self_in_lua(L);
	if (i > j)
		lua_pushliteral(L, "");
	else
		bp_self_push_text(L, self.at + (size_t)i - 1,
				  (size_t)(j - i) + 1);
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
		return bp_self_in_lua(L);
	if (lua_gettop(L) == 2 &&
	    (only = self_position(L, 2, self.len, 1)) > 0) {
		lua_pushinteger(L, self.at[only - 1]);
		return 1;
	}
	if (!bp_self_bound(L, 2, 1, self.len, &i))
		return bp_self_in_lua(L);
	j = i;
	if (!lua_isnoneornil(L, 3) && !bp_self_bound(L, 3, 0, self.len, &j))
		return bp_self_in_lua(L);
	i = i < 1 ? 1 : i;
	j = j > (double)self.len ? (double)self.len : j;
	if (j - i >= LUA_MINSTACK - 4)
		return bp_self_in_lua(L);
	for (double k = i; k <= j; k++)
		lua_pushinteger(L, self.at[(size_t)k - 1]);
	return i <= j ? (int)(j - i) + 1 : 0;
}

/* What lies past the end two Luas take differently. */
static int
plain_find(lua_State *L)
{
	bufpool_find_fn *find = lua_toboolean(L, 4) ?
		bp_bytes_find_plain : bp_bytes_find;
	const char *needle;
	struct self self;
	double i, hit;
	size_t n;

	if (!self_readable(L, &self) || lua_type(L, 2) != LUA_TSTRING ||
	    !bp_self_bound(L, 3, 1, self.len, &i) || i > (double)self.len + 1)
		return bp_self_in_lua(L);
	needle = lua_tolstring(L, 2, &n);
	i = i < 1 ? 1 : i;
	hit = find(self.o, self.epoch, i, NULL, 0, needle, n);
	if (hit < 0)
		return bp_self_in_lua(L);
	if (hit == 0) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushnumber(L, hit);
	lua_pushnumber(L, hit + (double)n - 1);
	return 2;
}

static int
plain_find_any(lua_State *L)
{
	const char *set;
	struct self self;
	size_t i = 1, n;
	double hit;

	if (!self_readable(L, &self) || lua_type(L, 2) != LUA_TSTRING ||
	    (!lua_isnoneornil(L, 3) &&
	     (i = self_position(L, 3, self.len, 0)) == 0))
		return bp_self_in_lua(L);
	set = lua_tolstring(L, 2, &n);
	hit = bp_bytes_find_any(self.o, self.epoch, (double)i, NULL, 0, set, n);
	if (hit <= 0)
		lua_pushnil(L);
	else
		lua_pushnumber(L, hit);
	return 1;
}

static int
plain_setbyte(lua_State *L)
{
	struct self self;
	double v = self_number(L, 3);
	size_t i;

	if (!self_buffer(L, &self) || !(v >= 0 && v < 256) ||
	    lua_gettop(L) != 3 || (i = self_position(L, 2, self.len, 1)) == 0)
		return bp_self_in_lua(L);
	bp_self_raise_mark(self.b, i);
	self.b->at[i - 1] = (uint8_t)v;
	return self_return(L);
}

static int
plain_write(lua_State *L)
{
	struct self self;
	const char *text;
	size_t i, n;

	if (!self_buffer(L, &self) || lua_type(L, 3) != LUA_TSTRING)
		return bp_self_in_lua(L);
	text = lua_tolstring(L, 3, &n);
	if ((i = self_position(L, 2, self.len, n)) == 0)
		return bp_self_in_lua(L);
	buf_raise_mark(self.b, i - 1 + n);
	buf_changed(self.b);
	memcpy(self.b->at + (i - 1), text, n);
	return self_return(L);
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
		*at = bp_self_dressed(L, index, KIND_BUFFER);
		if (*at == NULL) {
			*n = VALUE_FROZEN;
			*at = bp_self_dressed(L, index, KIND_FROZEN);
		}
		return *at != NULL;
	default:
		h = bp_self_handle(L, index);
		*n = VALUE_HANDLE;
		*at = h != NULL ? *h : NULL;
		return *at != NULL;
	}
}

/* Appends strings and numbers that there is room for, in one pass, because most
 * of what programs put is that. False, with nothing appended, for the rest, and
 * where that would overwrite reserved bytes. */
static inline bool
put_at_once(lua_State *L, struct bufpool_buf *b, int last)
{
	uint8_t *to = b->at + b->len, *end = b->at + b->capacity;
	const char *text;
	size_t n;
	int k;

	if (b->granted)
		return false;
	for (k = 2; k <= last; k++, to += n) {
		int type = lua_type(L, k);

		if (type == LUA_TSTRING) {
			text = lua_tolstring(L, k, &n);
			if (n > (size_t)(end - to))
				break;
			append_copy(to, (const uint8_t *)text, n);
		} else if (type != LUA_TNUMBER || end - to < NUMBER_MAX ||
			   (n = bp_number_text(lua_tonumber(L, k),
					       (char *)to)) == 0)
			break;
	}
	buf_changed(b);
	if (k <= last) {
		buf_leave_behind(b, (size_t)(to - b->at));
		return false;
	}
	b->len = (size_t)(to - b->at);
	buf_raise_mark(b, b->len);
	return true;
}

static int
plain_put(lua_State *L)
{
	struct bufpool_values values;
	int count = lua_gettop(L) - 1;
	struct self self;

	if (!self_buffer(L, &self))
		return bp_self_in_lua(L);
	if (put_at_once(L, self.b, count + 1))
		return self_return(L);
	if (count > VALUES_MAX)
		return bp_self_in_lua(L);
	for (int k = 0; k < count; k++)
		if (!check_value(L, k + 2, &values.at[k], &values.n[k]))
			return bp_self_in_lua(L);
	if (bp_append(self.b, self.box, &values, count) != 0)
		return bp_self_in_lua(L);
	return self_return(L);
}

/* True for a bound, as bp_self_bound takes it, that has no fraction. */
static bool
is_whole(lua_State *L, int index)
{
	double n = self_number(L, index);

	return lua_isnoneornil(L, index) || n == floor(n);
}

/* Of strings, and of the buffer itself. */
static int
plain_put_range(lua_State *L)
{
	bool own = lua_rawequal(L, 1, 2);
	const char *text = NULL;
	struct self self;
	double i, j;
	size_t len;
	int error = 0;

	if (!self_buffer(L, &self) || (!own && lua_type(L, 2) != LUA_TSTRING))
		return bp_self_in_lua(L);
	len = self.len;
	if (!own)
		text = lua_tolstring(L, 2, &len);
	if (!is_whole(L, 3) || !bp_self_bound(L, 3, 1, len, &i) ||
	    !is_whole(L, 4) || !bp_self_bound(L, 4, -1, len, &j))
		return bp_self_in_lua(L);
	i = i < 1 ? 1 : i;
	if (!own && j > (double)len)
		j = (double)len;
	if (own && i <= j)
		error = i > (double)len ? EINVAL : bp_bytes_append_range(
			self.b, self.epoch, self.box, (size_t)i - 1,
			(size_t)(j - i) + 1);
	else if (i <= j)
		error = bp_bytes_append(self.b, self.epoch, self.box,
					text + ((size_t)i - 1),
					(size_t)(j - i) + 1, NULL, 0);
	return error != 0 ? bp_self_in_lua(L) : self_return(L);
}

/* Of strings, buffers and handles. */
static int
plain_prepend(lua_State *L)
{
	struct self self, other = { .len = 0 };
	const void *from;
	int error;

	if (!self_buffer(L, &self))
		return bp_self_in_lua(L);
	if (lua_type(L, 2) == LUA_TSTRING)
		from = lua_tolstring(L, 2, &other.len);
	else if (bp_self_other(L, 2, &other, CLASS_ANY) && other.b != self.b)
		from = other.at;
	else
		return bp_self_in_lua(L);
	error = bp_bytes_prepend(self.b, self.epoch, self.box, from, other.len,
				 NULL, 0);
	return error != 0 ? bp_self_in_lua(L) : self_return(L);
}

static int
plain_take(lua_State *L)
{
	double n = lua_isnoneornil(L, 3) ? (double)INFINITY :
		argument_plain_size(L, 3);
	struct self self, from;

	if (n < 0 || !self_buffer(L, &self) ||
	    !bp_self_other(L, 2, &from, CLASS_ANY) || from.b == self.b)
		return bp_self_in_lua(L);
	if (bp_bytes_take(self.b, self.epoch, self.box, from.b, from.epoch,
			  from.box, n < (double)from.len ? (size_t)n :
			  from.len) != 0)
		return bp_self_in_lua(L);
	return self_return(L);
}

static int
plain_skip(lua_State *L)
{
	struct self self;
	double n = argument_plain_size(L, 2);

	if (n < 0 || !self_buffer(L, &self))
		return bp_self_in_lua(L);
	bp_buf_consume(self.b, n < (double)self.len ? (size_t)n : self.len);
	return self_return(L);
}

static int
plain_reset(lua_State *L)
{
	struct self self;

	if (!self_buffer(L, &self))
		return bp_self_in_lua(L);
	bp_buf_consume(self.b, self.len);
	return self_return(L);
}

/* Whether argument 1 is as it was looked at; finalizers may have run since. */
static bool
is_unchanged(lua_State *L, const struct self *self)
{
	struct self now;

	if (self->box != NULL)
		return box_lives(self->box, KIND_BUFFER) &&
			box_holds(self->box) && self->b->epoch == self->epoch;
	return self_buffer(L, &now) && now.b == self->b &&
		now.epoch == self->epoch;
}

/* A finalizer that push_text runs may change the buffer, and then Lua begins
 * anew. */
static int
plain_get(lua_State *L)
{
	int arguments = lua_gettop(L);
	struct self self;
	double n;

	if (arguments > 2 || !self_buffer(L, &self))
		return bp_self_in_lua(L);
	n = lua_isnoneornil(L, 2) ? (double)self.len :
		argument_plain_size(L, 2);
	if (n > (double)self.len)
		n = (double)self.len;
	if (n < 0 || n > TEXT_MAX)
		return bp_self_in_lua(L);
	bp_self_push_text(L, self.at, (size_t)n);
	if (!is_unchanged(L, &self))
		return bp_self_anew_in_lua(L, arguments);
	bp_buf_consume(self.b, (size_t)n);
	return 1;
}

/* Making the cdata may run a finalizer that closes the pool. Then, and when
 * memory is short, the Lua method says so. It asks once more, so where
 * checkouts fail on purpose it is the only one that asks. */
static int
plain_borrow(lua_State *L)
{
	double n = argument_plain_size(L, 2);
	struct bufpool_pool_box *box;
	struct bufpool_handle *taken;

	box = box_test(L, 1, KIND_POOL);
	if (n < 0 || lua_gettop(L) != 2 || box == NULL ||
	    box->pool->config.fail_one_in > 0)
		return bp_self_in_lua(L);
	lua_pushvalue(L, UP_TYPE);
	lua_call(L, 0, 1);
	box = box_test(L, 1, KIND_POOL);
	taken = box != NULL ? bp_handle_borrow(box, (size_t)n) : NULL;
	if (taken == NULL && box != NULL && box->error == ESITE)
		taken = bp_handle_borrow_at(box, (size_t)n,
					    bp_site_where(L, box->pool));
	if (taken == NULL)
		return bp_self_anew_in_lua(L, 2);
	*bp_self_handle(L, 3) = taken;
	return 1;
}

/* Releases a handle; buffers have a method of C. */
static int
plain_release(lua_State *L)
{
	struct bufpool_handle **h = bp_self_handle(L, 1);
	struct bufpool_buf *b = h != NULL ? handle_buf(*h) : NULL;

	if (b == NULL)
		return bp_self_in_lua(L);
	if (bp_release_asking(b) != 0)
		bp_site_released(L, b, (uintptr_t)*h >> BUF_NUMBER_BITS);
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
	{ "find_any", plain_find_any },
	{ "setbyte", plain_setbyte },
	{ "write", plain_write },
	{ "put", plain_put },
	{ "put_range", plain_put_range },
	{ "prepend", plain_prepend },
	{ "take", plain_take },
	{ "skip", plain_skip },
	{ "reset", plain_reset },
	{ "get", plain_get },
	{ "KIND", bp_typed_read },
	{ "get_KIND", bp_typed_get },
	{ "set_KIND", bp_typed_set },
	{ "put_KIND", bp_typed_put },
	{ "put_varint", bp_typed_put_varint },
	{ "put_zigzag", bp_typed_put_varint },
	{ "get_varint", bp_typed_get_varint },
	{ "get_zigzag", bp_typed_get_varint },
	{ "get_varint64", bp_typed_get_varint },
	{ "get_zigzag64", bp_typed_get_varint },
	{ "varint_at", bp_typed_varint_at },
	{ "borrow", plain_borrow },
	{ "release", plain_release },
	/* of pack.lua */
	{ "pack_from", bp_pack_from },
	{ "unpack_from", bp_pack_unpack_from },
	{ "extend", bp_pack_extend },
	{ "bytes", bp_pack_bytes },
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

/* The form of varint that a name tells; 0 for a name that tells none. */
static int
form_of(const char *name)
{
	return (strstr(name, "zigzag") != NULL ? VARINT_ZIGZAG : 0) |
		(strstr(name, "64") != NULL ? VARINT_WIDE : 0);
}

/* True if `listed` stands for `name`. */
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
	lua_pushinteger(L, kind != 0 ? kind : form_of(name));
	lua_insert(L, 2);
	lua_pushinteger(L, class_of(L, 3));
	lua_replace(L, 3);
	lua_pushvalue(L, UP_BUFFER);
	lua_pushvalue(L, UP_FROZEN);
	lua_pushcclosure(L, p->func, UP_PLAIN_COUNT);
	return 1;
}
