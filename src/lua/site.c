#include <stdio.h>
#include <string.h>

#include "argument.h"
#include "copy.h"
#include "core/registry.h"
#include "core/system.h"
#include "failure.h"
#include "site.h"

#define FRAMES 3	/* that a place tells */
#define CHUNK_MAX 120	/* bytes of a name that it tells: the last ones */
#define LEVELS 64	/* that are looked at for these */

/* The file of a chunk with its folder, if it has one; the text of a chunk that
 * comes from no file, cut short. */
static const char *
chunk_of(const lua_Debug *frame)
{
	const char *name = frame->source + 1, *slash = NULL;
	size_t len = strlen(name);

	if (frame->source[0] != '@' && frame->source[0] != '=')
		return frame->short_src;
	if (len > CHUNK_MAX)
		name += len - CHUNK_MAX;
	if (frame->source[0] == '@')
		slash = strrchr(name, '/');
	if (slash == NULL)
		return name;
	while (slash > name && slash[-1] != '/')
		slash--;
	return slash;
}

/* "handlers/upload.lua:41 < router.lua:12": the lines that are running, from
 * the one that has called bufpool. The names of our own files begin with
 * `ours`. Allocates nothing. */
static void
describe_frames(lua_State *L, const char *ours, char *to, size_t size)
{
	size_t len = 0, head = strlen(ours);
	lua_Debug frame;

	strcpy(to, "(C)");
	for (int level = 0, n = 0; n < FRAMES && level < LEVELS &&
	     lua_getstack(L, level, &frame); level++) {
		char text[BUFPOOL_PLACE_MAX];
		int added;

		if (!lua_getinfo(L, "Sl", &frame) || frame.currentline < 0 ||
		    (head > 0 && strncmp(frame.source, ours, head) == 0))
			continue;
		added = snprintf(text, sizeof text, "%s%s:%d",
				 n++ > 0 ? " < " : "", chunk_of(&frame),
				 frame.currentline);
		if (added < 0 || len + (size_t)added >= size)
			break;
		memcpy(to + len, text, (size_t)added + 1);
		len += (size_t)added;
	}
}

/* The lines of the program that are running, as describe_frames has them.
 * Allocates nothing: a state that has opened us has both strings. */
static void
describe_caller(lua_State *L, char *to, size_t size)
{
	const char *ours;

	lua_getfield(L, LUA_REGISTRYINDEX, KEY_BOXES);
	lua_getfield(L, -1, "here");
	ours = lua_tostring(L, -1);
	describe_frames(L, ours != NULL ? ours : "", to, size);
	lua_pop(L, 2);
}

int
bp_site_where(lua_State *L, struct bufpool *pool)
{
	char text[BUFPOOL_PLACE_MAX];
	uintptr_t site;

	describe_caller(L, text, sizeof text);
	site = bp_sites_list(pool, text);
	return (int)(site & ~SITE_LISTED) + 1;
}

/* Where the pool has gone, the buffer was the last one of a closed pool. */
static void
tell_release(lua_State *L, uint32_t number, uint64_t generation)
{
	char text[BUFPOOL_PLACE_MAX];
	struct bufpool *pool;
	uint64_t id;

	describe_caller(L, text, sizeof text);
	id = bp_sites_life(number, generation);
	pool = id != 0 ? bp_registry_hold(id) : NULL;
	if (pool == NULL)
		return;
	bp_sites_tell(pool, number, generation, text);
	bp_arena_drop(&pool->arena);
}

void
bp_site_released(lua_State *L, const struct bufpool_buf *b, uint64_t word)
{
	tell_release(L, b->number, word / BUF_GENERATION);
}

int
bp_site_tell(lua_State *L)
{
	tell_release(L, (uint32_t)lua_tonumber(L, 1),
		     (uint64_t)lua_tonumber(L, 2));
	return 0;
}

int
bp_site_of_caller(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "borrow");

	lua_pushinteger(L, bp_site_where(L, box->pool));
	return 1;
}

/* Holds no reference while Lua may raise. */
int
bp_site_origin(lua_State *L)
{
	uint32_t number = (uint32_t)lua_tonumber(L, 1);
	uint64_t generation = (uint64_t)lua_tonumber(L, 2);
	uint64_t id = bp_sites_life(number, generation);
	struct bufpool *pool = id != 0 ? bp_registry_hold(id) : NULL;
	char text[ORIGIN_MAX];

	if (pool == NULL)
		return 0;
	bp_sites_describe(pool, number, generation, text, sizeof text);
	bp_arena_drop(&pool->arena);
	lua_pushstring(L, text);
	return 1;
}

static void
push_site(lua_State *L, const struct bufpool_site *site)
{
	lua_createtable(L, 0, 6);
	lua_pushstring(L, site->place);
	lua_setfield(L, -2, "place");
	lua_pushnumber(L, (double)site->buffers);
	lua_setfield(L, -2, "buffers");
	lua_pushnumber(L, (double)site->bytes);
	lua_setfield(L, -2, "bytes");
	lua_pushnumber(L, site->oldest);
	lua_setfield(L, -2, "oldest");
	lua_pushnumber(L, (double)site->gc_returns);
	lua_setfield(L, -2, "gc_returns");
	lua_pushnumber(L, (double)site->request_returns);
	lua_setfield(L, -2, "request_returns");
}

void
bp_site_push_copies(lua_State *L, const struct bufpool_site *sites,
		    size_t count)
{
	lua_createtable(L, (int)count, 0);
	for (size_t i = 0; i < count; i++) {
		push_site(L, &sites[i]);
		lua_rawseti(L, -2, (int)i + 1);
	}
}

size_t
bp_site_copy(struct bufpool *pool, struct bufpool_site *to, size_t room)
{
	size_t count = bufpool_sites(pool, to, room);

	return count < room ? count : room;
}

/* The sites are copied first, because making the tables may run a finalizer
 * that closes the pool. So may making room for the copies. */
void
bp_site_push(lua_State *L, const char *name)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, name);
	size_t room = bufpool_sites(box->pool, (struct bufpool_site *)NULL, 0);
	struct bufpool_site *sites = lua_newuserdata(L, room * sizeof *sites);

	box = argument_self(L, KIND_POOL, name);
	bp_site_push_copies(L, sites, bp_site_copy(box->pool, sites, room));
	lua_remove(L, -2);
}

/* Holds no reference while Lua may raise. A pool that has gone meanwhile has
 * nothing out. */
int
bp_site_next(lua_State *L)
{
	unsigned cursor = (unsigned)lua_tointeger(L, 2);
	char name[BUFPOOL_NAME_MAX] = "";
	struct bufpool_site *sites;
	struct bufpool *pool;
	size_t room, count = 0;
	uint64_t id;

	if (!bp_registry_next(&cursor, &pool))
		return 0;
	id = pool->caches.id;
	if (!pool_closed(pool))
		memcpy(name, pool->name, sizeof name);
	room = bufpool_sites(pool, (struct bufpool_site *)NULL, 0);
	bp_arena_drop(&pool->arena);
	sites = lua_newuserdata(L, room * sizeof *sites);
	pool = bp_registry_hold(id);
	if (pool != NULL) {
		count = bp_site_copy(pool, sites, room);
		bp_arena_drop(&pool->arena);
	}
	lua_pushinteger(L, (lua_Integer)cursor);
	lua_pushnumber(L, (double)id);
	if (name[0] != '\0')
		lua_pushstring(L, name);
	else
		lua_pushboolean(L, 0);
	bp_site_push_copies(L, sites, count);
	return 4;
}

int
bp_site_now(lua_State *L)
{
	lua_pushnumber(L, (double)bp_system_now() / 1000);
	return 1;
}

int
bp_site_list(lua_State *L)
{
	bp_site_push(L, "sites");
	return 1;
}

int
bp_site_set(lua_State *L)
{
	struct bufpool_pool_box *box = argument_self(L, KIND_POOL, "set");
	const struct caches *cs = &box->pool->caches;
	int detection = lua_isnil(L, 2) ? (int)atomic_load(&cs->watch)
	    : (int)lua_tointeger(L, 2);
	int sample = lua_isnil(L, 3) ? (int)atomic_load(&cs->sample)
	    : (int)lua_tointeger(L, 3);
	char text[MESSAGE_MAX];

	if (bufpool_detect_leaks(box->pool, detection, sample) == 0) {
		lua_settop(L, 1);
		return 1;
	}
	/* Not run: no memory. */
	bp_failure_message(errno, text, sizeof text);
	return failure_return(L, text);
}
