#include "argument.h"
#include "core/release.h"
#include "core/ticket.h"
#include "failure.h"
#include "module.h"
#include "site.h"

static int
buffer_release(lua_State *L)
{
	struct bufpool_box *box = argument_self(L, KIND_BUFFER, "release");

	box_kill(L, 1, box, BOX_RELEASED);
	site_release(L, box);
	return 0;
}

static int
buffer_gc(lua_State *L)
{
	struct bufpool_box *box = box_test(L, 1, KIND_BUFFER);

	if (box != NULL) {
		box_finalize(box, BOX_RELEASED);
		bp_release_gc(box_disown(box));
	}
	return 0;
}

/* The charge moves with the memory. */
static int
buffer_freeze(lua_State *L)
{
	struct bufpool_box *box = argument_self(L, KIND_BUFFER, "freeze");
	struct bufpool_frozen_box *to = box_new(L, KIND_FROZEN, sizeof *to);
	struct bufpool_frozen *frozen;

	/* Making the new box may have run a finalizer that released the old. */
	box = argument_self(L, KIND_BUFFER, "freeze");
	to->account = box->account;
	box_charge(to->account, &to->charged, box->charged);
	box_kill(L, 1, box, BOX_FROZEN);
	frozen = bufpool_freeze(box_disown(box));
	box_own_frozen(to, frozen, bufpool_frozen_data(frozen),
		       bufpool_frozen_len(frozen));
	return 1;
}

/* Between the ticket and the death of the box nothing allocates, because a
 * finalizer could release the box, whose buffer the ticket has then. */
static int
buffer_detach(lua_State *L)
{
	struct bufpool_box *box = argument_self(L, KIND_BUFFER, "detach");
	uint64_t ticket = bufpool_detach(box->buf);

	if (ticket == 0)
		/* Not run: it takes all tickets. */
		return failure_return(L, TICKETS_EXHAUSTED);
	box_kill(L, 1, box, BOX_DETACHED);
	box_disown(box);
	lua_pushnumber(L, (double)ticket);
	return 1;
}

const luaL_Reg bp_buffer_methods[] = {
	{ "release", buffer_release },
	{ "freeze", buffer_freeze },
	{ "detach", buffer_detach },
	{ NULL, NULL }
};

const luaL_Reg bp_buffer_meta[] = {
	{ "__gc", buffer_gc },
	{ NULL, NULL }
};
