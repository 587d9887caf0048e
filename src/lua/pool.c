#include <limits.h>
#include <math.h>
#include <string.h>

#include "module.h"
#include "core/registry.h"

/* What a VM may hold before its collector is made to work: so many bytes, or
 * as many as its Lua heap. Then the largest payment at once, in KiB. */
#define HELD_FREE (4.0 * 1024 * 1024)
#define STEP_MAX ((double)(1 << 30))

/* The most failures that go by before the next full collection. */
#define PATIENCE_MAX 1024

/*
 * To Lua's collector a buffer weighs as little as its box, so it would let
 * garbage buffers pile up. This makes it feel their memory: while the VM holds
 * more than its limit, each checkout pays for the bytes taken since the last
 * one by as much collection as the same bytes of Lua objects would have
 * caused. A finished cycle has returned what was garbage when it began; what
 * is still held sets the next limit. So garbage stays near HELD_FREE with a
 * small Lua heap, and at one or two times the size of a large one, as Lua's own
 * does, while a program that keeps or releases what it takes pays a few cycles
 * as it grows.
 *
 * Runs finalizers and may raise an error of theirs, so: before anything is
 * acquired, and what was checked before has to be checked again. Leaves a
 * collector alone that was stopped, or is inside a finalizer.
 */
static void
pay_collector(lua_State *L, struct bufpool_account *account)
{
	double heap = lua_gc(L, LUA_GCCOUNT, 0) * 1024.0;

	account->least = fmax(HELD_FREE, heap);
	account->limit = fmax(account->limit, account->least);
	if (account->held > account->limit &&
	    lua_gc(L, LUA_GCISRUNNING, 0) &&
	    lua_gc(L, LUA_GCSTEP,
		   (int)fmin(ceil(account->debt / 1024), STEP_MAX)))
		account->limit = account->held +
			fmax(account->least, account->held / 2);
}

/*
 * Before a checkout or growth fails: what is garbage may be what it lacks. A
 * full collection is a high price for a program that runs at its limit on
 * purpose, so after some that returned nothing, more and more failures go by
 * before the next. What garbage cannot help does not count. True: try again.
 */
static bool
reclaim(lua_State *L, const struct bufpool *pool, double n)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	double held = account->held;

	/* A finalizer may have released what was to grow. */
	if (pool == NULL)
		return false;
	if (n > (pool->arena.max_bytes == SIZE_MAX ? held : (double)pool->arena.max_bytes))
		return false;
	account->failures++;
	if (held == 0 || account->failures < account->patience ||
	    !lua_gc(L, LUA_GCISRUNNING, 0))
		return false;
	account->failures = 0;
	lua_gc(L, LUA_GCCOLLECT, 0);
	account->patience = account->held < held ? 0 :
		fmin(2 * account->patience + 0.25, PATIENCE_MAX);
	return true;
}

/* core.reclaim(x, n): for calls by FFI, in which no collection may run. x is
 * the pool, or the number of the descriptor that is to grow. */
static int
core_reclaim(lua_State *L)
{
	const struct bufpool *pool = NULL;
	struct bufpool_buf *b;

	if (lua_type(L, 1) == LUA_TNUMBER) {
		b = buf_at((uint32_t)lua_tonumber(L, 1));
		if (b->arena != NULL)
			pool = pool_of(b);
	} else
		pool = ((struct bufpool_pool_box *)
			lua_box_self(L, KIND_POOL, "borrow"))->pool;
	lua_pushboolean(L, reclaim(L, pool, lua_tonumber(L, 2)));
	return 1;
}

/* core.frozen_box(): one with nothing inside, which calls.freeze fills. */
static int
core_frozen_box(lua_State *L)
{
	struct bufpool_frozen_box *box =
		lua_box_new(L, KIND_FROZEN, sizeof *box);

	box->account = lua_touserdata(L, UP_ACCOUNT);
	return 1;
}

static int
shortage(lua_State *L, int error, double size)
{
	char text[160];

	lua_pushnil(L);
	if (error == EAGAIN)
		lua_pushliteral(L, "exhausted");
	else {
		lua_calls.shortage(error, size, text, sizeof text);
		lua_pushstring(L, text);
	}
	return 2;
}

typedef struct bufpool_buf *take_fn(struct bufpool *, size_t n, size_t align);

/*
 * The box comes first, so that nothing leaks when there is no memory for it,
 * and is killed if it stays empty. The handle, which the caller has checked,
 * may have been closed by a finalizer whenever the collector has run.
 */
static int
checkout(lua_State *L, const char *name, take_fn *take, double n, size_t align)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	struct bufpool_pool_box *pool = lua_touserdata(L, 1);
	struct bufpool_box *box;
	struct bufpool_buf *buf;
	double sunk;
	int error;

	sunk = 2 * (account->held + account->least);
	if (account->limit > sunk)
		account->limit = sunk;
	if (account->held > account->limit)
		pay_collector(L, account);
	account->debt = 0;
	box = lua_newuserdata(L, sizeof *box);
	box->cookie = lua_cookie();
	box->kind = KIND_BUFFER;
	box->state = BOX_LIVE;
	box->buf = NULL;
	lua_pushvalue(L, UP_BUFFER);
	lua_setmetatable(L, -2);
	if (pool->cookie != lua_cookie())
		lua_box_self(L, KIND_POOL, name);
	buf = take(pool->pool, (size_t)n, align);
	if (buf == NULL && (errno == ENOMEM || errno == EDQUOT)) {
		error = errno;
		if (reclaim(L, pool->pool, n)) {
			lua_box_self(L, KIND_POOL, name);
			buf = take(pool->pool, (size_t)n, align);
		} else
			errno = error;
	}
	if (buf == NULL) {
		error = errno;
		lua_box_kill(L, lua_gettop(L), box, BOX_RELEASED);
		return shortage(L, error, n);
	}
	lua_box_own(account, box, buf);
	return 1;
}

static struct bufpool_buf *
take(struct bufpool *pool, size_t n, size_t align)
{
	(void)align;
	return bufpool_checkout(pool, n);
}

static struct bufpool_buf *
take_zeroed(struct bufpool *pool, size_t n, size_t align)
{
	(void)align;
	return bufpool_checkout_zeroed(pool, n);
}

static struct bufpool_buf *
take_ready(struct bufpool *pool, size_t n, size_t align)
{
	(void)align;
	return bufpool_try_checkout(pool, n);
}

static struct bufpool_buf *
take_empty(struct bufpool *pool, size_t n, size_t align)
{
	struct bufpool_buf *buf = bufpool_checkout(pool, n);

	(void)align;
	if (buf != NULL)
		buf->len = 0;
	return buf;
}

static int
pool_checkout(lua_State *L)
{
	lua_box_self(L, KIND_POOL, "checkout");
	return checkout(L, "checkout", take, lua_size(L, 2, 1, "checkout"), 0);
}

static int
pool_checkout_zeroed(lua_State *L)
{
	lua_box_self(L, KIND_POOL, "checkout_zeroed");
	return checkout(L, "checkout_zeroed", take_zeroed,
			lua_size(L, 2, 1, "checkout_zeroed"), 0);
}

static int
pool_try_checkout(lua_State *L)
{
	lua_box_self(L, KIND_POOL, "try_checkout");
	return checkout(L, "try_checkout", take_ready,
			lua_size(L, 2, 1, "try_checkout"), 0);
}

static int
pool_checkout_aligned(lua_State *L)
{
	double n, align;

	lua_box_self(L, KIND_POOL, "checkout_aligned");
	n = lua_size(L, 2, 1, "checkout_aligned");
	align = lua_size(L, 3, 2, "checkout_aligned");
	if (align == 0 || ((size_t)align & ((size_t)align - 1)) != 0)
		lua_bad_argument(L, 2, "checkout_aligned",
			lua_pushfstring(L, "power of two expected, got %f",
					align));
	return checkout(L, "checkout_aligned", bufpool_checkout_aligned, n,
			(size_t)align);
}

static int
pool_writer(lua_State *L)
{
	double hint = 0;

	lua_box_self(L, KIND_POOL, "writer");
	if (!lua_isnoneornil(L, 2))
		hint = lua_size(L, 2, 1, "writer");
	return checkout(L, "writer", take_empty, hint, 0);
}

static int
pool_trim(lua_State *L)
{
	struct bufpool_pool_box *box = lua_box_self(L, KIND_POOL, "trim");

	lua_pushnumber(L, (double)bufpool_trim(box->pool));
	return 1;
}

/* What is out stays valid: the pool outlives its last handle. */
static int
pool_close(lua_State *L)
{
	struct bufpool_pool_box *box = lua_box_self(L, KIND_POOL, "close");

	lua_box_kill(L, 1, box, BOX_CLOSED);
	bufpool_destroy(box->pool);
	return 0;
}

/* A named pool is kept for the rest of the process: collecting its handle
 * says nothing about who else will ask for it. */
static int
pool_gc(lua_State *L)
{
	struct bufpool_pool_box *box = lua_box_test(L, 1, KIND_POOL);

	if (box != NULL) {
		box->cookie = -box->cookie;
		box->state = BOX_CLOSED;
		if (box->pool != NULL && !box->named)
			bufpool_destroy(box->pool);
	}
	return 0;
}

static void
set_number(lua_State *L, const char *key, uint64_t n)
{
	lua_pushnumber(L, (double)n);
	lua_setfield(L, -2, key);
}

static void
push_class(lua_State *L, const struct bufpool_class_stats *c)
{
	lua_createtable(L, 0, 7);
	set_number(L, "size", c->size);
	set_number(L, "count", c->count);
	set_number(L, "ready", c->ready);
	set_number(L, "cached", c->cached);
	set_number(L, "out", c->out);
	set_number(L, "hits", c->hits);
	set_number(L, "misses", c->misses);
}

static void
push_numa(lua_State *L, const struct bufpool_stats *s)
{
	lua_createtable(L, 0, 3);
	if (s->numa_requested == BUFPOOL_NUMA_LOCAL)
		lua_pushliteral(L, "local");
	else if (s->numa_requested != BUFPOOL_NUMA_NONE)
		lua_pushinteger(L, s->numa_requested);
	else
		lua_pushnil(L);
	lua_setfield(L, -2, "requested");
	lua_pushboolean(L, s->numa_available);
	lua_setfield(L, -2, "available");
	lua_newtable(L);
	for (unsigned node = 0; node < s->node_count; node++) {
		lua_pushnumber(L, (double)s->pages_by_node[node]);
		lua_rawseti(L, -2, (int)node);
	}
	lua_setfield(L, -2, "pages_by_node");
}

/* The scalar statistics, by the name that they have in Lua. */
static const struct { const char *name; size_t offset; } scalars[] = {
#define SCALAR(name) { #name, offsetof(struct bufpool_stats, name) }
	SCALAR(hits), SCALAR(misses),
	SCALAR(checked_out), SCALAR(peak_checked_out),
	SCALAR(bytes_checked_out), SCALAR(peak_bytes_checked_out),
	SCALAR(committed_bytes), SCALAR(cached_bytes), SCALAR(in_transit),
	SCALAR(wiped_bytes), SCALAR(gc_returns), SCALAR(lost)
#undef SCALAR
};
#define SCALAR_COUNT (sizeof scalars / sizeof *scalars)

static uint64_t *
scalar(struct bufpool_stats *s, size_t i)
{
	return (uint64_t *)(void *)((char *)s + scalars[i].offset);
}

/* With these classes instead of its own: there may be more of them. */
static void
push_stats(lua_State *L, struct bufpool_stats *s,
	   const struct bufpool_class_stats *classes, unsigned count)
{
	lua_createtable(L, 0, SCALAR_COUNT + 3);
	for (size_t i = 0; i < SCALAR_COUNT; i++)
		set_number(L, scalars[i].name, *scalar(s, i));
	lua_createtable(L, (int)count, 0);
	for (unsigned i = 0; i < count; i++) {
		push_class(L, &classes[i]);
		lua_rawseti(L, -2, (int)i + 1);
	}
	lua_setfield(L, -2, "classes");
	push_numa(L, s);
	lua_setfield(L, -2, "numa");
}

static int
pool_stats(lua_State *L)
{
	struct bufpool_pool_box *box = lua_box_self(L, KIND_POOL, "stats");
	struct bufpool_stats s;

	bufpool_get_stats(box->pool, &s);
	push_stats(L, &s, s.classes, s.class_count);
	return 1;
}

/* Sizes of all pools, ascending, in a userdata that is replaced as it fills. */
struct totals {
	unsigned count, room;
	struct bufpool_class_stats class[];
};

/* The totals at `index`, with room for all classes of one more pool. */
static struct totals *
make_room(lua_State *L, int index)
{
	struct totals *t = lua_touserdata(L, index), *larger;
	unsigned room = 2 * (t != NULL ? t->room : BUFPOOL_CLASSES_MAX);

	if (t != NULL && t->room - t->count >= BUFPOOL_CLASSES_MAX)
		return t;
	larger = lua_newuserdata(L, sizeof *t + room * sizeof *t->class);
	larger->room = room;
	larger->count = t != NULL ? t->count : 0;
	if (t != NULL)
		memcpy(larger->class, t->class, t->count * sizeof *t->class);
	lua_replace(L, index);
	return larger;
}

static void
add_class_stats(struct totals *totals, const struct bufpool_class_stats *c)
{
	struct bufpool_class_stats *t = totals->class;
	struct bufpool_class_stats *end = t + totals->count;

	while (t < end && t->size < c->size)
		t++;
	if (t == end || t->size != c->size) {
		memmove(t + 1, t, (size_t)(end - t) * sizeof *t);
		memset(t, 0, sizeof *t);
		t->size = c->size;
		totals->count++;
	}
	t->count += c->count;
	t->ready += c->ready;
	t->cached += c->cached;
	t->out += c->out;
	t->hits += c->hits;
	t->misses += c->misses;
}

static void
add_stats(struct bufpool_stats *total, struct totals *classes,
	  struct bufpool_stats *s)
{
	for (size_t i = 0; i < SCALAR_COUNT; i++)
		*scalar(total, i) += *scalar(s, i);
	for (unsigned i = 0; i < s->class_count; i++)
		add_class_stats(classes, &s->classes[i]);
	total->numa_available |= s->numa_available;
	for (unsigned i = 0; i < s->node_count; i++)
		total->pages_by_node[i] += s->pages_by_node[i];
	if (total->node_count < s->node_count)
		total->node_count = s->node_count;
}

/* core.stats(). No reference is held while Lua may raise. */
static int
core_stats(lua_State *L)
{
	struct bufpool_stats total = { .numa_requested = BUFPOOL_NUMA_NONE }, s;
	char name[BUFPOOL_NAME_MAX];
	struct totals *classes;
	struct bufpool *pool;
	unsigned cursor = 0;
	bool closed;

	lua_settop(L, 0);
	lua_newtable(L);
	lua_pushnil(L);
	classes = make_room(L, 2);
	while (registry_next(&cursor, &pool)) {
		bufpool_get_stats(pool, &s);
		memcpy(name, pool->name, sizeof name);
		closed = pool_closed(pool);
		arena_drop(&pool->arena);
		add_stats(&total, classes, &s);
		if (name[0] != '\0' && !closed) {
			push_stats(L, &s, s.classes, s.class_count);
			lua_setfield(L, 1, name);
		}
		classes = make_room(L, 2);
	}
	push_stats(L, &total, classes->class, classes->count);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "pools");
	return 1;
}

void
lua_pool_own(struct bufpool_pool_box *box, struct bufpool *pool, int named)
{
	box->pool = pool;
	box->named = named;
}

/* Of the table at `index`. */
static size_t
field_size(lua_State *L, int index, const char *key)
{
	double n;

	lua_getfield(L, index, key);
	n = lua_size(L, -1, 1, "new");
	lua_pop(L, 1);
	return (size_t)n;
}

static int
field_true(lua_State *L, const char *key)
{
	int is_true;

	lua_getfield(L, 1, key);
	is_true = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return is_true;
}

/* The field "classes", if there is one: how many there are. */
static size_t
read_classes(lua_State *L, struct bufpool_class_config *to)
{
	size_t count = 0;

	lua_getfield(L, 1, "classes");
	if (lua_istable(L, 2))
		count = lua_objlen(L, 2);
	if (count > BUFPOOL_CLASSES_MAX)
		count = BUFPOOL_CLASSES_MAX;
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, 2, (int)i + 1);
		to[i].size = field_size(L, 3, "size");
		to[i].count = field_size(L, 3, "count");
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return count;
}

/*
 * core.create(config), the configuration complete and checked: a pool; or nil
 * and a message; or nil, false and the key in which the pool of that name
 * differs. That pool may close while we look, and then the name is free.
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
	bufpool_config_init(&config);
	config.four_kib_count = field_size(L, 1, "four_kib_count");
	config.sixty_four_kib_count = field_size(L, 1, "sixty_four_kib_count");
	config.two_fifty_six_kib_count =
		field_size(L, 1, "two_fifty_six_kib_count");
	config.one_mib_count = field_size(L, 1, "one_mib_count");
	config.max_bytes = field_size(L, 1, "max_bytes");
	config.class_count = read_classes(L, classes);
	config.classes = classes;
	config.prefault = field_true(L, "prefault");
	config.huge_pages = field_true(L, "huge_pages");
	lua_getfield(L, 1, "numa_node");
	config.numa_node = (int)lua_tointeger(L, -1);
	lua_getfield(L, 1, "name");
	config.name = lua_tostring(L, -1);
	box = lua_box_new(L, KIND_POOL, sizeof *box);
	while ((pool = bufpool_create(&config)) == NULL) {
		if (errno != EEXIST)
			return shortage(L, errno, (double)config.max_bytes);
		pool = bufpool_get(config.name);
		if (pool == NULL)
			continue;
		key = registry_difference(pool, &config);
		bufpool_destroy(pool);
		if (key != NULL) {
			lua_pushnil(L);
			lua_pushboolean(L, false);
			lua_pushstring(L, key);
			return 3;
		}
	}
	lua_pool_own(box, pool, config.name != NULL);
	return 1;
}

static int
core_default(lua_State *L)
{
	struct bufpool_pool_box *box = lua_box_new(L, KIND_POOL, sizeof *box);
	struct bufpool *pool = bufpool_default();

	if (pool == NULL)
		return shortage(L, errno, 0);
	lua_pool_own(box, pool, 1);
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
		return lua_bad_argument(L, 1, "get",
			lua_pushfstring(L, "string expected, got %s",
				lua_isnone(L, 1) ? "no value" :
				luaL_typename(L, 1)));
	name = lua_tolstring(L, 1, &len);
	box = lua_box_new(L, KIND_POOL, sizeof *box);
	pool = len == strlen(name) ? bufpool_get(name) : NULL;
	if (pool != NULL)
		lua_pool_own(box, pool, 1);
	else
		lua_pushnil(L);
	return 1;
}

const luaL_Reg lua_module_functions[] = {
	{ "create", core_create },
	{ "default", core_default },
	{ "get", core_get },
	{ "stats", core_stats },
	{ "reclaim", core_reclaim },
	{ "frozen_box", core_frozen_box },
	{ NULL, NULL }
};

const luaL_Reg lua_pool_methods[] = {
	{ "checkout", pool_checkout },
	{ "checkout_zeroed", pool_checkout_zeroed },
	{ "checkout_aligned", pool_checkout_aligned },
	{ "try_checkout", pool_try_checkout },
	{ "writer", pool_writer },
	{ "stats", pool_stats },
	{ "trim", pool_trim },
	{ "close", pool_close },
	{ NULL, NULL }
};

const luaL_Reg lua_pool_meta[] = {
	{ "__gc", pool_gc },
	{ NULL, NULL }
};
