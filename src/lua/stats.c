#include "argument.h"
#include "core/registry.h"
#include "failure.h"
#include "site.h"
#include "stats.h"

#define TOP_SITES 5	/* that pool:stats() names */

static void
set_number(lua_State *L, const char *key, uint64_t n)
{
	lua_pushnumber(L, (double)n);
	lua_setfield(L, -2, key);
}

/* Of the table at the top. */
static void
set_requests(lua_State *L, const struct bufpool_request_stats *r)
{
	set_number(L, "requested_bytes", r->bytes);
	lua_createtable(L, BUFPOOL_REQUEST_BINS, 0);
	for (int i = 0; i < BUFPOOL_REQUEST_BINS; i++) {
		lua_pushnumber(L, (double)r->bins[i]);
		lua_rawseti(L, -2, i + 1);
	}
	lua_setfield(L, -2, "requests");
}

static void
push_class(lua_State *L, const struct bufpool_class_stats *c,
	   const struct bufpool_class_limits *limits,
	   const struct bufpool_request_stats *r)
{
	lua_createtable(L, 0, 11);
	set_number(L, "size", c->size);
	set_number(L, "count", c->count);
	set_number(L, "ready", c->ready);
	set_number(L, "cached", c->cached);
	set_number(L, "out", c->out);
	set_number(L, "hits", c->hits);
	set_number(L, "misses", c->misses);
	set_number(L, "floor", limits->floor);
	set_number(L, "shelf", limits->shelf);
	set_requests(L, r);
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

/* The scalar statistics, by the name that they have in Lua; the last ones in
 * the table "large". */
static const struct { const char *name; size_t offset; } scalars[] = {
#define SCALAR(name) { #name, offsetof(struct bufpool_stats, name) }
	SCALAR(hits), SCALAR(misses),
	SCALAR(checked_out), SCALAR(peak_checked_out),
	SCALAR(bytes_checked_out), SCALAR(peak_bytes_checked_out),
	SCALAR(committed_bytes), SCALAR(cached_bytes), SCALAR(in_transit),
	SCALAR(wiped_bytes), SCALAR(gc_returns), SCALAR(lost),
	SCALAR(refused_by_max_bytes), SCALAR(refused_by_system),
	SCALAR(max_bytes), SCALAR(exhausted), SCALAR(large_bytes),
	SCALAR(lock_refused), SCALAR(lock_limit), SCALAR(pressed_bytes),
#define LARGE(name) { #name, offsetof(struct bufpool_stats, large_##name) }
	LARGE(hits), LARGE(misses), LARGE(out), LARGE(bytes_out),
	LARGE(cached), LARGE(cached_bytes)
#undef LARGE
#undef SCALAR
};
#define SCALAR_COUNT (sizeof scalars / sizeof *scalars)
#define LARGE_COUNT 6

static uint64_t *
scalar_at(struct bufpool_stats *s, size_t i)
{
	return (uint64_t *)(void *)((char *)s + scalars[i].offset);
}

static void
push_stats(lua_State *L, struct bufpool_stats *s)
{
	const size_t large = SCALAR_COUNT - LARGE_COUNT;

	lua_createtable(L, 0, (int)large + 4);
	for (size_t i = 0; i < large; i++)
		set_number(L, scalars[i].name, *scalar_at(s, i));
	lua_createtable(L, 0, LARGE_COUNT + 2);
	for (size_t i = large; i < SCALAR_COUNT; i++)
		set_number(L, scalars[i].name, *scalar_at(s, i));
	set_requests(L, &s->large_requests);
	lua_setfield(L, -2, "large");
	lua_createtable(L, (int)s->class_count, 0);
	for (unsigned i = 0; i < s->class_count; i++) {
		push_class(L, &s->classes[i], &s->limits[i], &s->requests[i]);
		lua_rawseti(L, -2, (int)i + 1);
	}
	lua_setfield(L, -2, "classes");
	if (s->oldest >= 0) {
		lua_pushnumber(L, s->oldest);
		lua_setfield(L, -2, "oldest");
	}
	push_numa(L, s);
	lua_setfield(L, -2, "numa");
}

/* The sites are copied first, because making tables may run a finalizer that
 * closes the pool. */
int
bp_stats_of_pool(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "stats");
	bool watched = atomic_load(&box->pool->caches.watch) !=
	    BUFPOOL_LEAK_OFF;
	struct bufpool_site top[TOP_SITES];
	size_t count = bp_site_copy(box->pool, top, watched ? TOP_SITES : 0);
	struct bufpool_stats s;

	bufpool_get_stats(box->pool, &s);
	push_stats(L, &s);
	if (watched) {
		bp_site_push_copies(L, top, count);
		lua_setfield(L, -2, "sites");
	}
	return 1;
}

int
bp_stats_resident(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "resident");
	int64_t bytes = bufpool_resident(box->pool);
	char text[MESSAGE_MAX];

	if (bytes >= 0) {
		lua_pushnumber(L, (double)bytes);
		return 1;
	}
	/* Not run: no memory. */
	bp_failure_message(errno, text, sizeof text);
	return failure_return(L, text);
}

/* Holds no reference while Lua may raise. */
int
bp_stats_next(lua_State *L)
{
	unsigned cursor = (unsigned)lua_tointeger(L, 2);
	char name[BUFPOOL_NAME_MAX];
	struct bufpool_stats s;
	struct bufpool *pool;

	if (!bp_registry_next(&cursor, &pool))
		return 0;
	bufpool_get_stats(pool, &s);
	memcpy(name, pool->name, sizeof name);
	if (pool_closed(pool))
		name[0] = '\0';
	bp_arena_drop(&pool->arena);
	lua_pushinteger(L, (lua_Integer)cursor);
	if (name[0] != '\0')
		lua_pushstring(L, name);
	else
		lua_pushboolean(L, 0);
	push_stats(L, &s);
	return 3;
}
