#include <string.h>

#include "core/wipe.h"
#include "self.h"

int
bp_self_in_lua(lua_State *L)
{
	lua_pushvalue(L, UP_METHOD);
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

int
bp_self_anew_in_lua(lua_State *L, int arguments)
{
	lua_settop(L, arguments);
	return bp_self_in_lua(L);
}

/* For a cdata the C API returns a type above all that it has names for. The
 * number of its type stands so many bytes before its value. UP_HANDLES has that
 * number in its low 16 bits, and above them so many. */
struct bufpool_handle **
bp_self_handle(lua_State *L, int index)
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

void *
bp_self_dressed(lua_State *L, int index, enum box_kind kind)
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

/* An object of another class than the method's is left to Lua, so that one that
 * bears another kind's metatable is refused. */
bool
bp_self_other(lua_State *L, int index, struct self *self, lua_Integer class)
{
	struct bufpool_handle **h = NULL;
	struct bufpool_box *box = NULL;

	if (class == CLASS_ANY)
		box = bp_self_dressed(L, index, KIND_BUFFER);
	if (box == NULL && (class == CLASS_ANY || class == CLASS_HANDLE))
		h = bp_self_handle(L, index);
	return self_set(self, box, box != NULL ? box->buf :
			h != NULL ? handle_buf(*h) : NULL);
}

bool
bp_self_frozen(lua_State *L, struct self *self, lua_Integer class)
{
	const struct bufpool_frozen_box *frozen;

	frozen = class == KIND_FROZEN ? box_test(L, 1, KIND_FROZEN) :
		class == CLASS_ANY ? bp_self_dressed(L, 1, KIND_FROZEN) : NULL;
	if (frozen == NULL)
		return false;
	self->o = frozen;
	self->epoch = frozen->epoch;
	self->at = frozen->at;
	self->len = frozen->len;
	return true;
}

bool
bp_self_bound(lua_State *L, int index, double otherwise, size_t len, double *i)
{
	int type = lua_type(L, index);

	*i = type == LUA_TNUMBER ? lua_tonumber(L, index) :
		type <= LUA_TNIL ? otherwise : (double)NAN;
	if (!(fabs(*i) < 0x1p53))
		return false;
	*i = (double)(int64_t)*i;
	if (*i < 0)
		*i += (double)len + 1;
	return true;
}

void
bp_self_push_text(lua_State *L, const uint8_t *at, size_t n)
{
	char text[TEXT_MAX];

	if (n > 0)
		memcpy(text, at, n);
	lua_pushlstring(L, text, n);
}

void
bp_self_raise_mark(struct bufpool_buf *b, size_t end)
{
	if (b->mark >= end)
		return;
	end = (end + WIPE_LINE - 1) / WIPE_LINE * WIPE_LINE;
	buf_raise_mark(b, end < b->capacity ? end : b->capacity);
	buf_changed(b);
}
