#include "argument.h"
#include "guard.h"
#include "site.h"

/* This file must be compiled with -fexceptions. */
#define AT_END(function) __attribute__((cleanup(function), unused))

/* Guarded calls inside one another use up the C stack, which Lua does not
 * watch. */
#define GUARDS_MAX 100

struct guarded {
	struct bufpool_account *account;
	struct bufpool_box *box;
};

/* Runs at the end of guard_invoke, which may be while frames are unwound. So it
 * must not call Lua, not even to find out where that is. The box dies in place,
 * as if finalized. */
static void
guard_end(struct guarded *g)
{
	g->account->guards--;
	if (box_lives(g->box, KIND_BUFFER) && box_holds(g->box)) {
		box_finalize(g->box, BOX_RELEASED);
		bp_release_asking(box_disown(g->box));
	}
}

/* Nothing may raise between the declaration of g, from which on guard_end
 * counts down, and the line that counts up. */
static int
guard_invoke(lua_State *L, struct bufpool_account *account,
	     struct bufpool_box *box)
{
	AT_END(guard_end) struct guarded g = { account, box };

	account->guards++;
	lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
	if (box_test(L, 1, KIND_BUFFER) != NULL) {
		box_kill(L, 1, box, BOX_RELEASED);
		site_release(L, box);
	}
	return lua_gettop(L) - 1;
}

int
bp_guard_call(lua_State *L)
{
	struct bufpool_box *box = argument_self(L, KIND_BUFFER, "with");

	luaL_checkany(L, 2);
	lua_pushvalue(L, 1);
	lua_insert(L, 3);
	return guard_invoke(L, lua_touserdata(L, UP_ACCOUNT), box);
}

bool
bp_guard_allowed(lua_State *L)
{
	const struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);

	return !lua_isyieldable(L) && account->guards < GUARDS_MAX;
}

static void
guard_note(bool **ran)
{
	**ran = true;
}

static int
guard_probe(lua_State *L)
{
	AT_END(guard_note) bool *ran = lua_touserdata(L, 1);

	*ran = false;
	lua_pushnil(L);
	return lua_error(L);
}

bool
bp_guard_works(lua_State *L)
{
	bool *ran = lua_newuserdata(L, sizeof *ran);
	bool works;

	lua_pushcfunction(L, guard_probe);
	lua_pushvalue(L, -2);
	lua_pcall(L, 1, 0, 0);
	works = *ran;
	lua_pop(L, 2);
	return works;
}
