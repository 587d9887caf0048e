#include <limits.h>
#include <string.h>

#include "append.h"
#include "calls.h"
#include "clock.h"
#include "config.h"
#include "copy.h"
#include "core/layout.h"
#include "core/ticket.h"
#include "core/wipe.h"
#include "failure.h"
#include "file.h"
#include "guard.h"
#include "lend.h"
#include "module.h"
#include "plain.h"
#include "scope.h"
#include "varint.h"

#include "cdef.h"

/* Facts that Lua needs too, in the table core.constants. */
static const struct { const char *name; double value; } constants[] = {
	{ "EAGAIN", EAGAIN },
	{ "EBADF", EBADF },
	{ "ECANCELED", ECANCELED },
	{ "EFAULT", EFAULT },
	{ "ENOBUFS", ENOBUFS },
	{ "ENODATA", ENODATA },
	{ "ENOTSUP", ENOTSUP },
	{ "EMSGSIZE", EMSGSIZE },
	{ "EOVERFLOW", EOVERFLOW },
	{ "ESITE", ESITE },
	{ "ESTALE", ESTALE },
	{ "BYTES_STALE", BYTES_STALE },
	{ "PARTS_MAX", PARTS_MAX },
	{ "INT_MAX", INT_MAX },
	{ "LINE", WIPE_LINE },
	{ "MESSAGE_MAX", MESSAGE_MAX },
	/* put */
	{ "APPEND_ODD", APPEND_ODD },
	{ "VALUES_MAX", VALUES_MAX },
	{ "VALUE_BUFFER", VALUE_BUFFER },
	{ "VALUE_FROZEN", VALUE_FROZEN },
	{ "VALUE_HANDLE", VALUE_HANDLE },
	{ "VARINT_ZIGZAG", VARINT_ZIGZAG },
	{ "VARINT_WIDE", VARINT_WIDE },
	{ "VARINT_NUMBER", VARINT_NUMBER },
	{ "VARINT_FAILED", VARINT_FAILED },
	/* a handle: the descriptor's word above the bits of its number */
	{ "NUMBER_BITS", BUF_NUMBER_BITS },
	{ "STATE_MASK", BUF_STATE },
	{ "STATE_OUT", BUF_OUT },
	{ "STATE_BITS", __builtin_ctz(BUF_GENERATION) },
	{ "CHECKOUT_FULL", CHECKOUT_FULL },
	{ "CHECKOUT_ZEROED", CHECKOUT_ZEROED },
	{ "CHECKOUT_ALIGNED", CHECKOUT_ALIGNED },
	{ "CHECKOUT_READY", CHECKOUT_READY },
	{ "CHECKOUT_EMPTY", CHECKOUT_EMPTY },
	{ "SITE_UNIT", SITE_UNIT },
	{ "HELD_BUFFERS", HELD_BUFFERS },
	{ "HELD_BYTES", HELD_BYTES },
	/* a configuration */
	{ "NAME_MAX", BUFPOOL_NAME_MAX - 1 },
	{ "CLASSES_MAX", BUFPOOL_CLASSES_MAX },
	{ "CLASS_GRAIN", LAYOUT_GRAIN },
	{ "CLASS_MAX", LAYOUT_SIZE_MAX },
	{ "COUNT_MAX", LAYOUT_FLOOR_MAX },
	{ "NUMA_LOCAL", BUFPOOL_NUMA_LOCAL },
};

static void
push_constants(lua_State *L)
{
	lua_newtable(L);
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
		lua_pushnumber(L, constants[i].value);
		lua_setfield(L, -2, constants[i].name);
	}
}

/* Pushes the names as a list; the first one's index is `first`. */
static void
push_names(lua_State *L, const char *const *names, int first)
{
	lua_newtable(L);
	for (int i = 0; names[i] != NULL; i++) {
		lua_pushstring(L, names[i]);
		lua_rawseti(L, -2, first + i);
	}
}

/* Pushes the low half of each kind's cookie by the kind, and the half that they
 * share as "high". */
static void
push_cookies(lua_State *L)
{
	lua_newtable(L);
	for (int kind = 0; bp_box_kinds[kind] != NULL; kind++) {
		lua_pushinteger(L, (int32_t)box_cookie(
			(enum box_kind)(KIND_POOL + kind)));
		lua_setfield(L, -2, bp_box_kinds[kind]);
	}
	lua_pushinteger(L, (int32_t)(box_cookie(KIND_POOL) >> 32));
	lua_setfield(L, -2, "high");
}

/* core.publish(module, checks): what opening the core gives from now on, and
 * Lua's functions that argument.c calls. How the names of our files begin is
 * for site.c, which methods with other upvalues call, too. */
static int
publish_module(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	lua_getfield(L, LUA_REGISTRYINDEX, KEY_BOXES);
	lua_getfield(L, 2, "here");
	lua_setfield(L, 3, "here");
	lua_settop(L, 2);
	lua_setfield(L, UP_CORE, "checks");
	lua_setfield(L, LUA_REGISTRYINDEX, KEY_OPENED);
	return 0;
}

static const luaL_Reg module_functions[] = {
	{ "publish", publish_module }, { "plain", bp_plain_method },
	{ "guard", bp_guard_call }, { "deliver", bp_lend_deliver },
	{ "claim_clock", bp_clock_claim },
	{ NULL, NULL }
};

/* Adds functions to the table on top. The upvalues are at 1 to UP_COUNT. */
static void
add_functions(lua_State *L, const luaL_Reg *list)
{
	for (; list->name != NULL; list++) {
		for (int i = 1; i <= UP_COUNT; i++)
			lua_pushvalue(L, i);
		lua_pushcclosure(L, list->func, UP_COUNT);
		lua_setfield(L, -2, list->name);
	}
}

/* Fills the metatable at `index`; Lua code adds the rest. */
static void
add_class(lua_State *L, int index, const char *name, const luaL_Reg *methods,
	  const luaL_Reg *meta)
{
	lua_pushvalue(L, index);
	if (meta != NULL)
		add_functions(L, meta);
	if (methods != NULL) {
		lua_newtable(L);
		add_functions(L, methods);
		lua_setfield(L, -2, "__index");
	}
	lua_pushfstring(L, "bufpool.%s", name);
	lua_setfield(L, -2, "__metatable");
	lua_setfield(L, UP_COUNT, name);
}

/* Adds what Lua has to know, to the module's private table on top. */
static void
add_facts(lua_State *L)
{
	memcpy(lua_newuserdata(L, sizeof bp_ffi_calls), &bp_ffi_calls,
	       sizeof bp_ffi_calls);
	lua_setfield(L, -2, "calls");
	push_cookies(L);
	lua_setfield(L, -2, "cookies");
	lua_pushstring(L, bufpool_cdef);
	lua_setfield(L, -2, "cdef");
	lua_pushstring(L, bufpool_version());
	lua_setfield(L, -2, "version");
	lua_pushliteral(L, TICKETS_EXHAUSTED);
	lua_setfield(L, -2, "tickets_exhausted");
	lua_pushboolean(L, bp_guard_works(L));
	lua_setfield(L, -2, "guard_works");
	push_constants(L);
	lua_setfield(L, -2, "constants");
	bp_config_push_settings(L);
	lua_setfield(L, -2, "settings");
	push_names(L, bp_box_kinds, KIND_POOL);
	lua_setfield(L, -2, "kinds");
	push_names(L, bp_box_states, BOX_LIVE);
	lua_setfield(L, -2, "states");
}

int
luaopen_bufpool_core(lua_State *L)
{
	struct bufpool_account *account;

	lua_getfield(L, LUA_REGISTRYINDEX, KEY_OPENED);
	if (!lua_isnil(L, -1))
		return 1;
	bp_box_draw_cookie();
	lua_settop(L, 0);
	account = lua_newuserdata(L, sizeof *account);
	memset(account, 0, sizeof *account);
	for (int i = 2; i <= UP_COUNT; i++)
		lua_newtable(L);
	add_class(L, 2, "pool", bp_pool_methods, bp_pool_meta);
	add_class(L, 3, "buffer", bp_buffer_methods, bp_buffer_meta);
	add_class(L, 4, "frozen", bp_frozen_methods, bp_frozen_meta);
	add_class(L, 5, "dead", NULL, NULL);
	add_functions(L, bp_pool_functions);
	add_functions(L, bp_ticket_functions);
	add_functions(L, module_functions);
	add_facts(L);
	lua_newtable(L);
	add_functions(L, bp_box_functions);
	bp_copy_sign(L);
	lua_setfield(L, LUA_REGISTRYINDEX, KEY_BOXES);
	lua_pushvalue(L, -1);
	lua_setfield(L, LUA_REGISTRYINDEX, KEY_OPENED);
	return 1;
}
