#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "module.h"

#include "cdef.h"

static const char *const kind_names[] = {
	[KIND_POOL] = "pool", [KIND_BUFFER] = "buffer", [KIND_FROZEN] = "frozen"
};

_Atomic double lua_cookie_drawn;

/*
 * Drawn once. Of two threads that draw at once the first to store wins.
 * Without a source of randomness there is still what the address space
 * randomization and the process number give.
 */
static void
draw_cookie(void)
{
	double none = 0;
	uint64_t mine;
	int fd;

	if (atomic_load(&lua_cookie_drawn) != 0)
		return;
	if (getrandom(&mine, sizeof mine, 0) != (ssize_t)sizeof mine) {
		fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, &mine, sizeof mine) < 0)
			mine = (uintptr_t)&mine ^ (uint64_t)getpid() << 32;
		if (fd >= 0)
			close(fd);
	}
	atomic_compare_exchange_strong(&lua_cookie_drawn, &none,
				       (double)((mine >> 12) | 1));
}

int
lua_misuse(lua_State *L, const char *format, ...)
{
	lua_Debug at;
	va_list list;
	int level = 1;

	/* C functions in between, such as pcall, have no line. */
	while (lua_getstack(L, level, &at) && lua_getinfo(L, "l", &at) &&
	       at.currentline <= 0)
		level++;
	luaL_where(L, level);
	va_start(list, format);
	lua_pushvfstring(L, format, list);
	va_end(list);
	lua_concat(L, 2);
	return lua_error(L);
}

int
lua_bad_argument(lua_State *L, int argument, const char *function,
		 const char *what)
{
	return lua_misuse(L, "bad argument #%d to '%s' (%s)", argument,
			  function, what);
}

/* Any box of ours, dead or alive. */
static struct bufpool_pool_box *
any_box(lua_State *L, int index)
{
	struct bufpool_pool_box *box = lua_touserdata(L, index);

	if (box == NULL || lua_objlen(L, index) < sizeof *box ||
	    fabs(box->cookie) != lua_cookie())
		return NULL;
	return box;
}

_Noreturn void
lua_box_reject(lua_State *L, enum lua_kind kind, const char *function)
{
	static const char *const states[] = {
		"released", "released", "frozen", "detached", "closed"
	};
	struct bufpool_pool_box *box = any_box(L, 1);

	if (box != NULL && lua_box_test(L, 1, (enum lua_kind)box->kind) == NULL)
		lua_misuse(L, "attempt to use a %s %s", states[box->state],
			   kind_names[box->kind]);
	lua_misuse(L, "bad self to '%s' (%s expected, got %s)",
		   function, kind_names[kind],
		   box != NULL ? kind_names[box->kind] : luaL_typename(L, 1));
	abort();	/* not reached: lua_misuse does not return */
}

void *
lua_box_new(lua_State *L, enum lua_kind kind, size_t size)
{
	struct bufpool_pool_box *box = lua_newuserdata(L, size);

	memset(box, 0, size);
	box->cookie = lua_cookie();
	box->kind = kind;
	lua_pushvalue(L, kind == KIND_POOL ? UP_POOL :
		      kind == KIND_BUFFER ? UP_BUFFER : UP_FROZEN);
	lua_setmetatable(L, -2);
	return box;
}

/* The number that a cdata integer holds, which only Lua code can tell. */
static bool
to_number(lua_State *L, int index)
{
	lua_getfield(L, UP_CORE, "integer");
	lua_pushvalue(L, index);
	lua_call(L, 1, 1);
	if (lua_type(L, -1) == LUA_TNUMBER)
		return true;
	lua_pop(L, 1);
	return false;
}

double
lua_size_slow(lua_State *L, int index, int argument, const char *function)
{
	double n;

	if (lua_type(L, index) == LUA_TNUMBER)
		n = lua_tonumber(L, index);
	else if (lua_type(L, index) > LUA_TTHREAD && to_number(L, index)) {
		n = lua_tonumber(L, -1);
		lua_pop(L, 1);
	} else
		return lua_bad_argument(L, argument, function,
			lua_pushfstring(L, "number expected, got %s",
					luaL_typename(L, index)));
	/* Not floor(), which is a call: in this range the cast is exact. */
	if (!(n >= 0 && n < 0x1p63) || n != (double)(int64_t)n)
		lua_bad_argument(L, argument, function,
			lua_pushfstring(L, "size expected, got %f", n));
	return n;
}

/* core.publish(module): what opening the core gives from now on. */
static int
publish(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lua_setfield(L, LUA_REGISTRYINDEX, LUA_OPENED);
	return 0;
}

static const luaL_Reg publishers[] = {
	{ "publish", publish }, { "plain", lua_plain }, { NULL, NULL }
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

/* A module built for LuaJIT also loads into plain Lua 5.1, and then fails at
 * the first thing that is missing there. Better to say so. */
static void
require_ffi(lua_State *L)
{
	lua_getglobal(L, "require");
	lua_pushliteral(L, "ffi");
	if (lua_pcall(L, 1, 1, 0) != 0 || !lua_istable(L, -1)) {
		lua_getglobal(L, "_VERSION");
		luaL_error(L, "bufpool needs LuaJIT with its FFI, "
			   "and this is %s without it", lua_tostring(L, -1));
	}
	lua_pop(L, 1);
}

int
luaopen_bufpool_core(lua_State *L)
{
	struct bufpool_account *account;

	lua_getfield(L, LUA_REGISTRYINDEX, LUA_OPENED);
	if (!lua_isnil(L, -1))
		return 1;
	require_ffi(L);
	draw_cookie();
	lua_settop(L, 0);
	account = lua_newuserdata(L, sizeof *account);
	memset(account, 0, sizeof *account);
	for (int i = 2; i <= UP_COUNT; i++)
		lua_newtable(L);
	add_class(L, 2, "pool", lua_pool_methods, lua_pool_meta);
	add_class(L, 3, "buffer", lua_buffer_methods, lua_buffer_meta);
	add_class(L, 4, "frozen", lua_frozen_methods, lua_frozen_meta);
	add_class(L, 5, "dead", NULL, NULL);
	add_functions(L, lua_module_functions);
	add_functions(L, publishers);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "account");
	memcpy(lua_newuserdata(L, sizeof lua_calls), &lua_calls,
	       sizeof lua_calls);
	lua_setfield(L, -2, "calls");
	lua_pushnumber(L, lua_cookie());
	lua_setfield(L, -2, "cookie");
	lua_pushstring(L, bufpool_cdef);
	lua_setfield(L, -2, "cdef");
	lua_pushstring(L, bufpool_version());
	lua_setfield(L, -2, "version");
	lua_newtable(L);
	add_functions(L, lua_host_functions);
	lua_setfield(L, LUA_REGISTRYINDEX, LUA_BOXES);
	lua_pushvalue(L, -1);
	lua_setfield(L, LUA_REGISTRYINDEX, LUA_OPENED);
	return 1;
}
