#include "argument.h"
#include "core/registry.h"
#include "stats.h"

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

/* The scalar statistics, by the name that they have in Lua; the last ones in
 * the table "large". */
static const struct { const char *name; size_t offset; } scalars[] = {
#define SCALAR(name) { #name, offsetof(struct bufpool_stats, name) }
	SCALAR(hits), SCALAR(misses),
	SCALAR(checked_out), SCALAR(peak_checked_out),
	SCALAR(bytes_checked_out), SCALAR(peak_bytes_checked_out),
	SCALAR(committed_bytes), SCALAR(cached_bytes), SCALAR(in_transit),
	SCALAR(wiped_bytes), SCALAR(gc_returns), SCALAR(lost),
#define LARGE(name) { #name, offsetof(struct bufpool_stats, large_##name) }
	LARGE(hits), LARGE(misses), LARGE(out), LARGE(bytes_out),
	LARGE(cached), LARGE(cached_bytes)
#undef LARGE
#undef SCALAR
};
#define SCALAR_COUNT (sizeof scalars / sizeof *scalars)
#define LARGE_COUNT 6

static uint64_t *
push_scalar(struct bufpool_stats *s, size_t i)
{
	return (uint64_t *)(void *)((char *)s + scalars[i].offset);
}

/* The classes stand apart: all pools together have more than a struct holds. */
static void
push_stats(lua_State *L, struct bufpool_stats *s,
	   const struct bufpool_class_stats *classes, unsigned count)
{
	const size_t large = SCALAR_COUNT - LARGE_COUNT;

	lua_createtable(L, 0, (int)large + 4);
	for (size_t i = 0; i < large; i++)
		set_number(L, scalars[i].name, *push_scalar(s, i));
	lua_createtable(L, 0, LARGE_COUNT);
	for (size_t i = large; i < SCALAR_COUNT; i++)
		set_number(L, scalars[i].name, *push_scalar(s, i));
	lua_setfield(L, -2, "large");
	lua_createtable(L, (int)count, 0);
	for (unsigned i = 0; i < count; i++) {
		push_class(L, &classes[i]);
		lua_rawseti(L, -2, (int)i + 1);
	}
	lua_setfield(L, -2, "classes");
	push_numa(L, s);
	lua_setfield(L, -2, "numa");
}

int
bp_stats_of_pool(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "stats");
	struct bufpool_stats s;

	bufpool_get_stats(box->pool, &s);
	push_stats(L, &s, s.classes, s.class_count);
	return 1;
}

/* Classes of all pools by ascending size, in a userdata. A larger one replaces
 * it as it fills. */
struct totals {
	unsigned count, room;
	struct bufpool_class_stats class[];
};

/* The totals at `index`, with room for all classes of one more pool. */
static struct totals *
stats_make_room(lua_State *L, int index)
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
		*push_scalar(total, i) += *push_scalar(s, i);
	for (unsigned i = 0; i < s->class_count; i++)
		add_class_stats(classes, &s->classes[i]);
	total->numa_available |= s->numa_available;
	for (unsigned i = 0; i < s->node_count; i++)
		total->pages_by_node[i] += s->pages_by_node[i];
	if (total->node_count < s->node_count)
		total->node_count = s->node_count;
}

/* Holds no reference while Lua may raise. */
int
bp_stats_of_all(lua_State *L)
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
	classes = stats_make_room(L, 2);
	while (bp_registry_next(&cursor, &pool)) {
		bufpool_get_stats(pool, &s);
		memcpy(name, pool->name, sizeof name);
		closed = pool_closed(pool);
		bp_arena_drop(&pool->arena);
		add_stats(&total, classes, &s);
		if (name[0] != '\0' && !closed) {
			push_stats(L, &s, s.classes, s.class_count);
			lua_setfield(L, 1, name);
		}
		classes = stats_make_room(L, 2);
	}
	push_stats(L, &total, classes->class, classes->count);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "pools");
	return 1;
}
