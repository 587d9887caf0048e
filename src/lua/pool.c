#include <string.h>

#include "argument.h"
#include "bytes.h"
#include "collector.h"
#include "config.h"
#include "failure.h"
#include "core/settings.h"
#include "guard.h"
#include "module.h"
#include "site.h"
#include "stats.h"
#include "take.h"

/* core.reclaim(x, n): bp_collector_reclaim for functions called by FFI, in
 * which no collection may run. x is the pool, or the number of the descriptor
 * that is to grow. */
static int
core_reclaim(lua_State *L)
{
	const struct bufpool *pool = NULL;
	struct bufpool_buf *b;

	if (lua_type(L, 1) == LUA_TNUMBER) {
		b = bp_buf_at((uint32_t)lua_tonumber(L, 1));
		if (b->arena != NULL)
			pool = pool_of(b);
	} else
		pool = ((struct bufpool_pool_box *)
			argument_self(L, KIND_POOL, "borrow"))->pool;
	lua_pushboolean(L, bp_collector_reclaim(L, pool, lua_tonumber(L, 2)));
	return 1;
}

/* core.frozen_box(): a frozen object with nothing inside, which calls.freeze
 * fills with what a handle had. The checkout of that has paid nothing, as it
 * was charged to nobody. */
static int
core_frozen_box(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	struct bufpool_frozen_box *box;

	collector_pay(L, account);
	box = box_new(L, KIND_FROZEN, sizeof *box);
	box->account = account;
	return 1;
}

/* core.split(x, n, epoch): the first n bytes of a buffer as another one; or nil
 * and an errno. x is the buffer or, of a handle, the number of the descriptor,
 * which has to have this epoch still when the new box has been made. */
static int
core_split(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	struct bufpool_box *box = NULL, *to;
	struct bufpool_buf *b = NULL;
	double n;
	int error;

	if (lua_type(L, 1) == LUA_TNUMBER)
		b = bp_buf_at((uint32_t)lua_tonumber(L, 1));
	else
		argument_self(L, KIND_BUFFER, "split_to");
	n = argument_size(L, 2, 1, "split_to");
	collector_pay(L, account);
	to = box_new(L, KIND_BUFFER, sizeof *to);
	to->account = account;
	if (b == NULL)
		box = argument_self(L, KIND_BUFFER, "split_to");
	error = box != NULL ?
		bp_bytes_split(box->buf, box->buf->epoch, box, (size_t)n, to) :
		bp_bytes_split(b, (int32_t)lua_tonumber(L, 3), NULL, (size_t)n,
			       to);
	if (error == 0)
		return 1;
	box_kill(L, lua_gettop(L), to, BOX_RELEASED);
	lua_pushnil(L);
	lua_pushinteger(L, error);
	return 2;
}

static int
shortage_return(lua_State *L, int error, double size)
{
	char text[MESSAGE_MAX];

	if (error == EAGAIN)
		return failure_return(L, "exhausted");
	bp_failure_shortage(error, size, text, sizeof text);
	return failure_return(L, text);
}

/*
 * The box comes first, so that nothing leaks when there is no memory for it. It
 * is killed if it stays empty. The handle in argument 1 has been checked, but a
 * finalizer may close it whenever the collector runs.
 */
static inline __attribute__((always_inline)) int
checkout(lua_State *L, struct bufpool_pool_box *pool, const char *name,
	 int kind, double n, size_t align)
{
	struct bufpool_account *account = pool->account;
	struct bufpool_box *box;
	struct bufpool_buf *buf;
	int error;

	collector_pay(L, account);
	box = box_new(L, KIND_BUFFER, sizeof *box);
	if (!box_lives(pool, KIND_POOL))
		argument_self(L, KIND_POOL, name);
	buf = bp_take(pool->pool, (size_t)n, align, kind);
	if (buf == NULL && errno == ESITE) {
		kind += SITE_UNIT * bp_site_where(L, pool->pool);
		buf = bp_take(pool->pool, (size_t)n, align, kind);
	}
	if (buf == NULL && (errno == ENOMEM || errno == EDQUOT)) {
		error = errno;
		if (bp_collector_reclaim(L, pool->pool, n)) {
			argument_self(L, KIND_POOL, name);
			buf = bp_take(pool->pool, (size_t)n, align, kind);
		} else
			errno = error;
	}
	if (buf == NULL) {
		error = errno;
		box_kill(L, lua_gettop(L), box, BOX_RELEASED);
		return shortage_return(L, error, n);
	}
	box_own(account, box, buf);
	return 1;
}

/* pool:NAME(n) */
static inline __attribute__((always_inline)) int
checkout_sized(lua_State *L, const char *name, int kind)
{
	struct bufpool_pool_box *pool = argument_self(L, KIND_POOL, name);

	return checkout(L, pool, name, kind, argument_size(L, 2, 1, name), 0);
}

static int
pool_checkout(lua_State *L)
{
	return checkout_sized(L, "checkout", CHECKOUT_FULL);
}

static int
pool_checkout_zeroed(lua_State *L)
{
	return checkout_sized(L, "checkout_zeroed", CHECKOUT_ZEROED);
}

static int
pool_try_checkout(lua_State *L)
{
	return checkout_sized(L, "try_checkout", CHECKOUT_READY);
}

/* core.take(pool, n): a buffer, and whether core.guard may be used with it; or
 * nil and a message. */
static int
core_take(lua_State *L)
{
	int results = checkout_sized(L, "with", CHECKOUT_FULL);

	if (results > 1)
		return results;
	lua_pushboolean(L, bp_guard_allowed(L));
	return 2;
}

/* core.scratch(pool): an empty buffer; or nil and a message. */
static int
core_scratch(lua_State *L)
{
	struct bufpool_pool_box *pool = argument_self(L, KIND_POOL, "scratch");

	return checkout(L, pool, "scratch", CHECKOUT_EMPTY, 0, 0);
}

/* core.drop(buf): releases a buffer, unless it is dead. */
static int
core_drop(lua_State *L)
{
	struct bufpool_box *box = box_test(L, 1, KIND_BUFFER);

	if (box != NULL) {
		box_kill(L, 1, box, BOX_RELEASED);
		site_release(L, box);
	}
	return 0;
}

static int
pool_checkout_aligned(lua_State *L)
{
	struct bufpool_pool_box *pool =
		argument_self(L, KIND_POOL, "checkout_aligned");
	double n, align;

	n = argument_size(L, 2, 1, "checkout_aligned");
	align = argument_size(L, 3, 2, "checkout_aligned");
	if (align == 0 || ((size_t)align & ((size_t)align - 1)) != 0)
		bp_argument_bad(L, 2, "checkout_aligned",
				lua_pushfstring(L, "power of two expected, "
						"got %f", align));
	return checkout(L, pool, "checkout_aligned", CHECKOUT_ALIGNED, n,
			(size_t)align);
}

static int
pool_writer(lua_State *L)
{
	struct bufpool_pool_box *pool = argument_self(L, KIND_POOL, "writer");
	double hint = 0, headroom = 0;

	if (!lua_isnoneornil(L, 2))
		hint = argument_size(L, 2, 1, "writer");
	if (!lua_isnoneornil(L, 3))
		headroom = argument_size(L, 3, 2, "writer");
	hint += headroom;
	return checkout(L, pool, "writer", CHECKOUT_EMPTY,
			hint < 0x1p63 ? hint : 0x1p63 - 1024,
			(size_t)headroom);
}

static int
pool_trim(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "trim");
	double most;
	int more;

	if (lua_isnoneornil(L, 2)) {
		lua_pushnumber(L, (double)bufpool_trim(box->pool));
		return 1;
	}
	most = argument_size(L, 2, 1, "trim");
	lua_pushnumber(L, (double)bufpool_trim_some(box->pool, (size_t)most,
						    &more));
	lua_pushboolean(L, more);
	return 2;
}

/* What is out stays valid: the pool outlives its last handle. Where leak
 * detection is on, returns what is out, because nobody can ask afterwards. */
static int
pool_close(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "close");
	int results = 0;

	if (atomic_load(&box->pool->caches.watch) != BUFPOOL_LEAK_OFF) {
		bp_site_push(L, "close");
		results = 1;
		box = argument_self(L, KIND_POOL, "close");
	}
	box_kill(L, 1, box, BOX_CLOSED);
	bufpool_destroy(box->pool);
	return results;
}

/* Collecting the handle of a named pool closes nothing: others may ask for the
 * pool by its name. */
static int
pool_gc(lua_State *L)
{
	struct bufpool_pool_box *box = box_test(L, 1, KIND_POOL);

	if (box != NULL) {
		box_finalize(box, BOX_CLOSED);
		if (box->pool != NULL && !box->named)
			bufpool_destroy(box->pool);
	}
	return 0;
}

/*
 * core.create(config): a pool; or nil and a message; or nil, false and the key
 * in which the pool of that name differs. That pool may close while this looks
 * at it, and then the name is free. config.lua has checked the configuration.
 */
static int
core_create(lua_State *L)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	struct bufpool_config config;
	struct bufpool_pool_box *box;
	struct bufpool *pool;
	const char *key;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	bp_config_read(L, &config, classes);
	box = box_new(L, KIND_POOL, sizeof *box);
	while ((pool = bufpool_create(&config)) == NULL) {
		if (errno != EEXIST)
			return shortage_return(L, errno,
					      (double)config.max_bytes);
		pool = bufpool_get(config.name);
		if (pool == NULL)
			continue;	/* Not run: it ends meanwhile. */
		key = bp_settings_difference(pool, &config);
		bufpool_destroy(pool);
		if (key != NULL) {
			lua_pushnil(L);
			lua_pushboolean(L, false);
			lua_pushstring(L, key);
			return 3;
		}
	}
	box_own_pool(L, box, pool, config.name != NULL);
	return 1;
}

static int
core_default(lua_State *L)
{
	struct bufpool_pool_box *box = box_new(L, KIND_POOL, sizeof *box);
	struct bufpool *pool = bufpool_default();

	if (pool == NULL)
		/* Not run: no memory. */
		return shortage_return(L, errno, 0);
	box_own_pool(L, box, pool, 1);
	return 1;
}

static int
core_get(lua_State *L)
{
	struct bufpool_pool_box *box;
	struct bufpool *pool;
	size_t len;
	const char *name;

	if (lua_type(L, 1) != LUA_TSTRING)
		bp_argument_bad(L, 1, "get",
				lua_pushfstring(L, "string expected, got %s",
						luaL_typename(L, 1)));
	name = lua_tolstring(L, 1, &len);
	box = box_new(L, KIND_POOL, sizeof *box);
	pool = len == strlen(name) ? bufpool_get(name) : NULL;
	if (pool != NULL)
		box_own_pool(L, box, pool, 1);
	else
		lua_pushnil(L);
	return 1;
}

/* core.maintain(): after how many seconds it wants to be called again. */
static int
core_maintain(lua_State *L)
{
	lua_pushnumber(L, (double)bufpool_maintain() / 1000);
	return 1;
}

/* core.heed_pressure(on), of what is true or not. */
static int
core_heed_pressure(lua_State *L)
{
	bufpool_heed_pressure(lua_toboolean(L, 1));
	return 0;
}

const luaL_Reg bp_pool_functions[] = {
	{ "create", core_create },
	{ "default", core_default },
	{ "get", core_get },
	{ "next_pool", bp_stats_next },
	{ "maintain", core_maintain },
	{ "heed_pressure", core_heed_pressure },
	{ "reclaim", core_reclaim },
	{ "frozen_box", core_frozen_box },
	{ "split", core_split },
	{ "take", core_take },
	{ "scratch", core_scratch },
	{ "drop", core_drop },
	{ "where", bp_site_of_caller },
	{ "origin", bp_site_origin },
	{ "released", bp_site_tell },
	{ "set", bp_site_set },
	{ "next_sites", bp_site_next },
	{ "now", bp_site_now },
	{ NULL, NULL }
};

const luaL_Reg bp_pool_methods[] = {
	{ "checkout", pool_checkout },
	{ "checkout_zeroed", pool_checkout_zeroed },
	{ "checkout_aligned", pool_checkout_aligned },
	{ "try_checkout", pool_try_checkout },
	{ "writer", pool_writer },
	{ "stats", bp_stats_of_pool },
	{ "trim", pool_trim },
	{ "resident", bp_stats_resident },
	{ "sites", bp_site_list },
	{ "close", pool_close },
	{ NULL, NULL }
};

const luaL_Reg bp_pool_meta[] = {
	{ "__gc", pool_gc },
	{ NULL, NULL }
};
