#include "collector.h"
#include "copy.h"
#include "module.h"

/* Pointers travel as numbers: light userdata fail on arm64, and a double holds
 * any address that a process has. */
static int
box_pool(lua_State *L)
{
	struct bufpool_pool_box *box = box_new(L, KIND_POOL, sizeof *box);

	box_own_pool(L, box,
		     (struct bufpool *)(uintptr_t)lua_tonumber(L, 1), 0);
	return 1;
}

static int
box_buf(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	struct bufpool_box *box;

	collector_pay(L, account);
	box = box_new(L, KIND_BUFFER, sizeof *box);
	box_own(account, box,
		(struct bufpool_buf *)(uintptr_t)lua_tonumber(L, 1));
	return 1;
}

/* What enters a VM is charged to its collector. */
static int
box_frozen(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	uintptr_t frozen = (uintptr_t)lua_tonumber(L, 1);
	struct bufpool_frozen_box *box;

	collector_pay(L, account);
	box = box_new(L, KIND_FROZEN, sizeof *box);
	box_enter_frozen(account, box, (struct bufpool_frozen *)frozen);
	return 1;
}

/* Kills the living box in argument 1, and leaves what it owned to the caller of
 * bufpool_lua_take_. Allocates nothing. */
static int
box_take(lua_State *L)
{
	void *box = lua_touserdata(L, 1);

	if (box_lives(box, KIND_BUFFER))
		box_disown(box);
	else if (box_lives(box, KIND_FROZEN))
		box_disown_frozen(box);
	box_kill(L, 1, box, BOX_DETACHED);
	return 0;
}

const luaL_Reg bp_box_functions[] = {
	{ "pool", box_pool },
	{ "buffer", box_buf },
	{ "frozen", box_frozen },
	{ "take", box_take },
	{ NULL, NULL }
};

/* Calls one of the above. False, with the message on the stack, when that
 * failed. Nothing here raises: a state that has opened us has both strings. */
static bool
push_box(lua_State *L, const char *kind, const void *what)
{
	if (!bp_copy_push_boxes(L))
		return false;
	lua_getfield(L, -1, kind);
	lua_remove(L, -2);
	lua_pushnumber(L, (double)(uintptr_t)what);
	return lua_pcall(L, 1, 1, 0) == 0;
}

void
bufpool_lua_push_pool(lua_State *L, struct bufpool *pool)
{
	if (!push_box(L, "pool", pool)) {
		bufpool_destroy(pool);
		lua_error(L);
	}
}

void
bufpool_lua_push_buf(lua_State *L, struct bufpool_buf *buf)
{
	if (!push_box(L, "buffer", buf)) {
		bufpool_release(buf);
		lua_error(L);
	}
}

void
bufpool_lua_push_frozen(lua_State *L, struct bufpool_frozen *frozen)
{
	bufpool_lua_push_frozen_range(L, frozen, 0, bufpool_frozen_len(frozen));
}

void
bufpool_lua_push_frozen_range(lua_State *L, struct bufpool_frozen *frozen,
			      size_t offset, size_t len)
{
	size_t most = bufpool_frozen_len(frozen);

	if (offset > most || len > most - offset) {
		bufpool_frozen_unref(frozen);
		luaL_error(L, "range outside of the frozen buffer");
	}
	if (!push_box(L, "frozen", frozen)) {
		bufpool_frozen_unref(frozen);
		lua_error(L);
	}
	box_narrow(lua_touserdata(L, -1), offset, len);
}

struct bufpool *
bufpool_lua_test_pool(lua_State *L, int index)
{
	struct bufpool_pool_box *box = box_test(L, index, KIND_POOL);

	return box != NULL ? box->pool : NULL;
}

struct bufpool_buf *
bufpool_lua_test_buf(lua_State *L, int index)
{
	struct bufpool_box *box = box_test(L, index, KIND_BUFFER);

	return box != NULL ? box->buf : NULL;
}

struct bufpool_frozen *
bufpool_lua_test_frozen(lua_State *L, int index)
{
	struct bufpool_frozen_box *box = box_test(L, index, KIND_FROZEN);

	return box != NULL ? box->frozen : NULL;
}

const void *
bufpool_lua_frozen_bytes(lua_State *L, int index, size_t *len)
{
	struct bufpool_frozen_box *box = box_test(L, index, KIND_FROZEN);

	*len = box != NULL ? box->len : 0;
	return box != NULL ? box->at : NULL;
}

/* What looks like ours may be another copy's. */
static void
type_error(lua_State *L, int index, const char *expected)
{
	if (lua_isuserdata(L, index) && bp_copy_push_refusal(L))
		luaL_error(L, "%s", lua_tostring(L, -1));
	luaL_typerror(L, index, expected);
}

struct bufpool *
bufpool_lua_check_pool(lua_State *L, int index)
{
	struct bufpool *pool = bufpool_lua_test_pool(L, index);

	if (pool == NULL)
		type_error(L, index, "pool");
	return pool;
}

struct bufpool_buf *
bufpool_lua_check_buf(lua_State *L, int index)
{
	struct bufpool_buf *buf = bufpool_lua_test_buf(L, index);

	if (buf == NULL)
		type_error(L, index, "buffer");
	return buf;
}

struct bufpool_frozen *
bufpool_lua_check_frozen(lua_State *L, int index)
{
	struct bufpool_frozen *frozen = bufpool_lua_test_frozen(L, index);

	if (frozen == NULL)
		type_error(L, index, "frozen");
	return frozen;
}

/* Takes ownership from the box at `index`, which has been checked. When this
 * raises, the box still owns its pool or buffer. */
static void
take_kind(lua_State *L, int index)
{
	luaL_checkstack(L, 3, "bufpool_lua_take");
	lua_pushvalue(L, index);
	if (!bp_copy_push_boxes(L))
		lua_error(L);	/* Not run: the box is of ours. */
	lua_getfield(L, -1, "take");
	lua_replace(L, -2);
	lua_insert(L, -2);
	lua_call(L, 1, 0);
}

struct bufpool *
bufpool_lua_take_pool(lua_State *L, int index)
{
	struct bufpool *pool = bufpool_lua_check_pool(L, index);

	take_kind(L, index);
	return pool;
}

struct bufpool_buf *
bufpool_lua_take_buf(lua_State *L, int index)
{
	struct bufpool_buf *buf = bufpool_lua_check_buf(L, index);

	take_kind(L, index);
	return buf;
}

struct bufpool_frozen *
bufpool_lua_take_frozen(lua_State *L, int index)
{
	size_t offset, len;

	return bufpool_lua_take_frozen_range(L, index, &offset, &len);
}

struct bufpool_frozen *
bufpool_lua_take_frozen_range(lua_State *L, int index, size_t *offset,
			      size_t *len)
{
	struct bufpool_frozen *frozen = bufpool_lua_check_frozen(L, index);
	const uint8_t *at = bufpool_lua_frozen_bytes(L, index, len);

	*offset = (size_t)(at - (const uint8_t *)bufpool_frozen_data(frozen));
	take_kind(L, index);
	return frozen;
}
