#include "core/freeze.h"
#include "module.h"

/* Takes the buffer out of its box, which is then nobody's. */
static struct bufpool_buf *
disown(struct bufpool_box *box)
{
	box->word = BOX_NOBODY;
	lua_charge(box->account, &box->charged, 0);
	return box->buf;
}

static int
buffer_release(lua_State *L)
{
	struct bufpool_box *box = lua_box_self(L, KIND_BUFFER, "release");

	lua_box_kill(L, 1, box, BOX_RELEASED);
	bufpool_release(disown(box));
	return 0;
}

/* Another object's finalizer may still reach this one, so it dies in place:
 * its metatable stays, and the cookie and the word say that it is dead. */
static int
buffer_gc(lua_State *L)
{
	struct bufpool_box *box = lua_box_test(L, 1, KIND_BUFFER);

	if (box != NULL) {
		box->cookie = -box->cookie;
		box->state = BOX_RELEASED;
		release_gc(disown(box));
	}
	return 0;
}

/* The charge moves with the memory. */
static int
buffer_freeze(lua_State *L)
{
	struct bufpool_box *box = lua_box_self(L, KIND_BUFFER, "freeze");
	struct bufpool_frozen_box *to =
		lua_box_new(L, KIND_FROZEN, sizeof *to);

	/* Making it may have run finalizers, and one may have released ours. */
	box = lua_box_self(L, KIND_BUFFER, "freeze");
	to->account = box->account;
	lua_charge(to->account, &to->charged, box->charged);
	lua_box_kill(L, 1, box, BOX_FROZEN);
	to->frozen = bufpool_freeze(disown(box));
	to->at = bufpool_frozen_data(to->frozen);
	to->len = bufpool_frozen_len(to->frozen);
	return 1;
}

const luaL_Reg lua_buffer_methods[] = {
	{ "release", buffer_release },
	{ "freeze", buffer_freeze },
	{ NULL, NULL }
};

const luaL_Reg lua_buffer_meta[] = {
	{ "__gc", buffer_gc },
	{ NULL, NULL }
};

static struct bufpool_frozen *
disown_frozen(struct bufpool_frozen_box *box)
{
	struct bufpool_frozen *frozen = box->frozen;

	box->frozen = NULL;
	box->epoch++;
	box->at = NULL;
	box->len = 0;
	if (box->account != NULL)
		lua_charge(box->account, &box->charged, 0);
	return frozen;
}

static int
frozen_release(lua_State *L)
{
	struct bufpool_frozen_box *box =
		lua_box_self(L, KIND_FROZEN, "release");

	lua_box_kill(L, 1, box, BOX_RELEASED);
	bufpool_frozen_unref(disown_frozen(box));
	return 0;
}

static int
frozen_gc(lua_State *L)
{
	struct bufpool_frozen_box *box = lua_box_test(L, 1, KIND_FROZEN);
	struct bufpool_frozen *frozen;

	if (box != NULL) {
		box->cookie = -box->cookie;
		box->state = BOX_RELEASED;
		frozen = disown_frozen(box);
		if (frozen != NULL)
			frozen_unref_gc(frozen);
	}
	return 0;
}

/* Another object for `len` bytes from `offset`. It shares the memory and is
 * not charged: the first one is. */
static int
share_memory(lua_State *L, const char *function, size_t offset, size_t len)
{
	struct bufpool_frozen_box *box, *to;

	to = lua_box_new(L, KIND_FROZEN, sizeof *to);
	box = lua_box_self(L, KIND_FROZEN, function);
	to->account = box->account;
	to->frozen = bufpool_frozen_ref(box->frozen);
	to->at = len > 0 ? box->at + offset : box->at;
	to->len = len;
	return 1;
}

static int
frozen_clone(lua_State *L)
{
	struct bufpool_frozen_box *box = lua_box_self(L, KIND_FROZEN, "clone");

	return share_memory(L, "clone", 0, box->len);
}

/* core.slice(frozen, offset, len), checked by Lua; once more, to be safe. */
static int
frozen_slice(lua_State *L)
{
	struct bufpool_frozen_box *box = lua_box_self(L, KIND_FROZEN, "slice");
	double offset = lua_size(L, 2, 1, "slice");
	double len = lua_size(L, 3, 2, "slice");

	if (offset + len > (double)box->len)
		return lua_bad_argument(L, 1, "slice", "out of range");
	return share_memory(L, "slice", (size_t)offset, (size_t)len);
}

const luaL_Reg lua_frozen_methods[] = {
	{ "release", frozen_release },
	{ "clone", frozen_clone },
	{ "slice", frozen_slice },
	{ NULL, NULL }
};

const luaL_Reg lua_frozen_meta[] = {
	{ "__gc", frozen_gc },
	{ NULL, NULL }
};
