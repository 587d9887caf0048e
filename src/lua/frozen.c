#include "argument.h"
#include "core/release.h"
#include "core/ticket.h"
#include "failure.h"
#include "module.h"
#include "site.h"

static int
frozen_release(lua_State *L)
{
	struct bufpool_frozen_box *box =
		argument_self(L, KIND_FROZEN, "release");
	struct bufpool_frozen *frozen;

	box_kill(L, 1, box, BOX_RELEASED);
	frozen = box_disown_frozen(box);
	box_remember(box, frozen);
	if (__builtin_expect(bp_frozen_unref_asking(frozen) != 0, 0))
		bp_site_released(L, buf_thaw(frozen), box->word);
	return 0;
}

static int
frozen_gc(lua_State *L)
{
	struct bufpool_frozen_box *box = box_test(L, 1, KIND_FROZEN);
	struct bufpool_frozen *frozen;

	if (box != NULL) {
		box_finalize(box, BOX_RELEASED);
		frozen = box_disown_frozen(box);
		if (frozen != NULL)
			bp_frozen_unref_gc(frozen);
	}
	return 0;
}

/* Another object for `len` bytes from `offset`. It shares the memory, and what
 * is charged for that. */
static int
share_memory(lua_State *L, const char *function, size_t offset, size_t len)
{
	struct bufpool_frozen_box *box, *to;

	to = box_new(L, KIND_FROZEN, sizeof *to);
	box = argument_self(L, KIND_FROZEN, function);
	bp_box_share(box, to);
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
		/* Not run: Lua has looked. */
		bp_argument_bad(L, 1, "slice", "out of range");
	return share_memory(L, "slice", (size_t)offset, (size_t)len);
}

static int
frozen_share(lua_State *L)
{
	struct bufpool_frozen_box *box = argument_self(L, KIND_FROZEN, "share");
	const uint8_t *start = bufpool_frozen_data(box->frozen);
	uint64_t ticket = bufpool_share_range(bufpool_frozen_ref(box->frozen),
					      (size_t)(box->at - start),
					      box->len);

	if (ticket == 0) {
		/* Not run: it takes all tickets. */
		bufpool_frozen_unref(box->frozen);
		return failure_return(L, TICKETS_EXHAUSTED);
	}
	lua_pushnumber(L, (double)ticket);
	return 1;
}

const luaL_Reg bp_frozen_methods[] = {
	{ "release", frozen_release },
	{ "clone", frozen_clone },
	{ "slice", frozen_slice },
	{ "share", frozen_share },
	{ NULL, NULL }
};

const luaL_Reg bp_frozen_meta[] = {
	{ "__gc", frozen_gc },
	{ NULL, NULL }
};
