#include "argument.h"
#include "core/freeze.h"
#include "module.h"

static struct bufpool_frozen *
disown(struct bufpool_frozen_box *box)
{
	struct bufpool_frozen *frozen = box->frozen;

	box->frozen = NULL;
	box->epoch++;
	box->at = NULL;
	box->len = 0;
	if (box->account != NULL)
		box_charge(box->account, &box->charged, 0);
	return frozen;
}

static int
frozen_release(lua_State *L)
{
	struct bufpool_frozen_box *box =
		argument_self(L, KIND_FROZEN, "release");

	box_kill(L, 1, box, BOX_RELEASED);
	bufpool_frozen_unref(disown(box));
	return 0;
}

static int
frozen_gc(lua_State *L)
{
	struct bufpool_frozen_box *box = box_test(L, 1, KIND_FROZEN);
	struct bufpool_frozen *frozen;

	if (box != NULL) {
		box_finalize(box, BOX_RELEASED);
		frozen = disown(box);
		if (frozen != NULL)
			frozen_unref_gc(frozen);
	}
	return 0;
}

/* Another object for `len` bytes from `offset`. It shares the memory, which
 * stays charged to the first object. */
static int
share_memory(lua_State *L, const char *function, size_t offset, size_t len)
{
	struct bufpool_frozen_box *box, *to;

	to = box_new(L, KIND_FROZEN, sizeof *to);
	box = argument_self(L, KIND_FROZEN, function);
	to->account = box->account;
	box_own_frozen(to, bufpool_frozen_ref(box->frozen),
		       len > 0 ? box->at + offset : box->at, len);
	return 1;
}

static int
frozen_clone(lua_State *L)
{
	struct bufpool_frozen_box *box = argument_self(L, KIND_FROZEN, "clone");

	return share_memory(L, "clone", 0, box->len);
}

/* The slice method is Lua's, which calls this one: frozen, offset, len. */
static int
frozen_slice(lua_State *L)
{
	struct bufpool_frozen_box *box = argument_self(L, KIND_FROZEN, "slice");
	double offset = argument_size(L, 2, 1, "slice");
	double len = argument_size(L, 3, 2, "slice");

	if (offset + len > (double)box->len)
		argument_bad(L, 1, "slice", "out of range");
	return share_memory(L, "slice", (size_t)offset, (size_t)len);
}

const luaL_Reg frozen_methods[] = {
	{ "release", frozen_release },
	{ "clone", frozen_clone },
	{ "slice", frozen_slice },
	{ NULL, NULL }
};

const luaL_Reg frozen_meta[] = {
	{ "__gc", frozen_gc },
	{ NULL, NULL }
};
