/*
 * A month in the life of a process, as short as one likes: threads with Lua
 * states, fork, tickets, leak detection that changes, trims, pools that refuse,
 * and a system that refuses, all at once and in one process that goes on.
 *
 * Each round, threads do random things until each has done its steps, while
 * the first thread forks children that go on with what they find. Then all is
 * quiet, and the law must hold: nothing is out, each buffer is in one place,
 * what is idle and what is committed add up, each byte of what is free is zero
 * (the pools verify what they record), and memory and descriptors of files are
 * no more than they were after the first rounds.
 *
 * In the environment, SEED is the first seed, and drawn when absent; TIME is
 * for how many seconds to go on, and without it there are ROUNDS rounds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bufpool_lua.h"
#include "rounds.h"
#include "../support/process.h"

#define ROUNDS 12
#define THREADS 3
#define STEPS 4000		/* of a thread in a round */
#define CHILD_STEPS 60
#define HELD 16
#define POOLS 3
#define POST 8
#define FAILURES 64		/* one call in so many fails, at most */
#define WARM 6			/* rounds before memory is compared */
#define SLACK ((size_t)64 << 20)

struct player {
	pthread_t thread;
	uint64_t random;
	lua_State *lua;
	struct bufpool_buf *held[HELD];
};

static struct bufpool *pools[POOLS];
static _Atomic uint64_t tickets[POST];
static _Atomic unsigned failing;	/* one call in so many; 0: none */

static uint32_t
draw(struct player *me, uint32_t below)
{
	me->random = me->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((me->random >> 33) % below);
}

/* The system. Calls of the core fail, and no others: those come from the text
 * of this program. */

extern const char __executable_start[], etext[];

static bool
fails(const void *caller)
{
	static _Atomic unsigned calls;
	unsigned one_in = atomic_load(&failing);

	return one_in != 0 && (const char *)caller > __executable_start &&
	    (const char *)caller < etext &&
	    (atomic_fetch_add(&calls, 1) * 2654435761u >> 8) % one_in == 0;
}

#define REFUSED(result)                                                  \
	do {                                                             \
		if (fails(__builtin_return_address(0))) {                \
			errno = ENOMEM;                                  \
			return result;                                   \
		}                                                        \
	} while (0)

void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	REFUSED(MAP_FAILED);
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

int
madvise(void *at, size_t n, int advice)
{
	REFUSED(-1);
	return (int)syscall(SYS_madvise, at, n, advice);
}

void *
mremap(void *at, size_t old, size_t n, int flags, ...)
{
	va_list more;
	void *to = NULL;

	if (flags & MREMAP_FIXED) {
		va_start(more, flags);
		to = va_arg(more, void *);
		va_end(more);
	}
	REFUSED(MAP_FAILED);
	return (void *)syscall(SYS_mremap, at, old, n, flags, to);
}

/* Lua. Each program takes a pool, a number and a ticket or 0, and returns a
 * ticket or nil. Whatever fails for want of memory may. */

static const char programs[] =
	"local bufpool = require 'bufpool'\n"
	"local function text(n) return ('x'):rep(n % 5000) end\n"
	"local programs = {\n"
	"function(p, n) local b = p:checkout(n) if b then b:fill(n % 256)\n"
	"    b:release() end end,\n"
	"function(p, n) return p:checkout(n) and nil end,\n"
	"function(p, n) local b = p:checkout(n) if b then\n"
	"    b:freeze():sub(2) end end,\n"
	"function(p, n) local w = p:writer(100, n % 50) if w then\n"
	"    w:put(text(n), n, 'y') w:prepend(text(n / 3))\n"
	"    local f = w:freeze() local r = f:reader()\n"
	"    assert(#r:get(3) <= 3) local s = f:sub(2, n % 100)\n"
	"    f:release() return s:share() end end,\n"
	"function(p, n) p:scratch(function(o) o:put(text(n), n):put_varint(n)\n"
	"    if n % 7 == 0 then error 'no' end return #o end) end,\n"
	"function(p, n) local h = p:borrow(n) if h then\n"
	"    pcall(h.put, h, text(n)) pcall(h.set, h, text(n / 2))\n"
	"    h:release() end end,\n"
	"function(p, n, t) local x = t and bufpool.adopt(t) if x then\n"
	"    if bufpool.type(x) == 'buffer' then x:put(text(n))\n"
	"        return x:detach() end\n"
	"    local c = x:sub(1, n % 64) x:release() return c:share() end end,\n"
	"function(p, n) local b = p:checkout(n) if b then b:resize(n * 2 + 1)\n"
	"    b:split_to(n % 9) return b:detach() end end,\n"
	"function() collectgarbage 'step' end,\n"
	"function() collectgarbage() end,\n"
	"}\n"
	"return function(i, p, n, t)\n"
	"    local ok, r = pcall(programs[i % #programs + 1], p, n, t)\n"
	"    return ok and r or nil end\n";

static void
open_lua(struct player *me)
{
	lua_State *L = me->lua = luaL_newstate();

	CHECK(L != NULL, "no Lua state");
	luaL_openlibs(L);
	luaopen_bufpool(L);
	lua_settop(L, 0);
	CHECK(luaL_dostring(L, programs) == 0, "%s", lua_tostring(L, -1));
	for (int i = 0; i < POOLS; i++) {
		bufpool_lua_push_pool(L, bufpool_ref(pools[i]));
	}
}

static void
run_lua(struct player *me, size_t n)
{
	_Atomic uint64_t *place = &tickets[draw(me, POST)];
	uint64_t ticket = atomic_exchange(place, 0);
	lua_State *L = me->lua;

	lua_pushvalue(L, 1);
	lua_pushinteger(L, (lua_Integer)draw(me, 1000));
	lua_pushvalue(L, 2 + (int)draw(me, POOLS));
	lua_pushnumber(L, (double)n);
	if (ticket != 0)
		lua_pushnumber(L, (double)ticket);
	else
		lua_pushnil(L);
	CHECK(lua_pcall(L, 4, 1, 0) == 0, "%s", lua_tostring(L, -1));
	if (lua_isnumber(L, -1))
		ticket = atomic_exchange(place, (uint64_t)lua_tonumber(L, -1));
	else
		ticket = atomic_exchange(place, ticket);
	lua_settop(L, 1 + POOLS);
	/* The program may have adopted it. */
	if (ticket != 0) {
		struct bufpool_buf *b;
		struct bufpool_frozen *f;

		if (bufpool_adopt(ticket, &b, &f) == 0) {
			bufpool_release(b);
			bufpool_frozen_unref(f);
		}
	}
}

/* C. */

static size_t
draw_size(struct player *me)
{
	return draw(me, 40) == 0 ? draw(me, 3000000)
	    : draw(me, 4) == 0 ? draw(me, 300000) : draw(me, 5000);
}

static void
check_zero(const uint8_t *at, size_t n)
{
	CHECK(n == 0 || (at[0] == 0 && memcmp(at, at + 1, n - 1) == 0),
	      "what was checked out is not zero");
}

static void
let_go(struct player *me, struct bufpool_buf *b)
{
	struct bufpool_frozen *f;
	uint64_t ticket = 0;

	switch (draw(me, 4)) {
	case 0:
		f = bufpool_freeze(b);
		bufpool_frozen_unref(bufpool_frozen_ref(f));
		ticket = draw(me, 2) ? bufpool_share(f) : 0;
		if (ticket == 0)
			bufpool_frozen_unref(f);
		break;
	case 1:
		ticket = bufpool_detach(b);
		if (ticket == 0)
			bufpool_release(b);
		break;
	default:
		bufpool_release(b);
	}
	if (ticket == 0)
		return;
	ticket = atomic_exchange(&tickets[draw(me, POST)], ticket);
	if (ticket != 0 && bufpool_adopt(ticket, &b, &f) == 0) {
		bufpool_release(b);
		bufpool_frozen_unref(f);
	}
}

static void
use(struct player *me, struct bufpool_buf **held)
{
	size_t n = draw_size(me);
	struct bufpool_buf *b = *held;
	uint8_t *at;

	if (b == NULL) {
		b = *held = bufpool_checkout(pools[draw(me, POOLS)], n);
		if (b != NULL)
			check_zero(bufpool_peek(b), n);
		return;
	}
	switch (draw(me, 6)) {
	case 0:
		at = bufpool_data(b);
		memset(at, 1, bufpool_len(b));
		break;
	case 1:
		bufpool_resize(b, n);
		break;
	case 2:
		at = bufpool_reserve(b, n);
		if (at != NULL) {
			memset(at, 2, n / 2);
			bufpool_commit(b, n / 2);
		}
		break;
	case 3:
		bufpool_skip(b, bufpool_len(b) / 2);
		bufpool_release(bufpool_split(b, bufpool_len(b) / 3));
		break;
	default:
		*held = NULL;
		let_go(me, b);
	}
}

static void
look_after(struct player *me)
{
	struct bufpool *p = pools[draw(me, POOLS)];
	struct bufpool_site site[4];
	int more;

	switch (draw(me, 7)) {
	case 0:
		bufpool_trim_some(p, (size_t)1 << 20, &more);
		break;
	case 1:
		bufpool_trim(p);
		break;
	case 2:
		bufpool_thread_flush();
		break;
	case 3:
		bufpool_sites(p, site, 4);
		break;
	case 4:
		bufpool_detect_leaks(p, (int)draw(me, 3), (int)draw(me, 50));
		break;
	case 5:
		atomic_store(&failing, draw(me, 4) ? 0
			     : FAILURES + draw(me, 1000));
		break;
	default:
		bufpool_maintain();
	}
}

static void
play(struct player *me, int steps)
{
	for (int i = 0; i < steps; i++) {
		uint32_t chance = draw(me, 64);

		if (chance == 0)
			look_after(me);
		else if (chance < 16 && me->lua != NULL)
			run_lua(me, draw_size(me));
		else
			use(me, &me->held[draw(me, HELD)]);
	}
}

static void
end(struct player *me)
{
	for (int i = 0; i < HELD; i++)
		bufpool_release(me->held[i]);
	memset(me->held, 0, sizeof me->held);
	if (me->lua != NULL)
		lua_close(me->lua);
}

static void *
live(void *player)
{
	struct player *me = player;

	open_lua(me);
	play(me, STEPS);
	end(me);
	return NULL;
}

/* A child has what the threads of its parent had, and leaves it alone. It has
 * no Lua, because an error there is raised by libgcc, whose lock one of the
 * threads may have had. */
static void
fork_one(struct player *first)
{
	struct player me = { .random = first->random };
	int status;
	pid_t child;

	draw(first, 2);
	fflush(stdout);
	child = fork();
	CHECK(child >= 0, "no child");
	if (child == 0) {
		atomic_store(&failing, 0);
		for (int i = 0; i < POST; i++)
			atomic_store(&tickets[i], 0);
		play(&me, CHILD_STEPS);
		end(&me);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0,
	      "a child ends with status %x", (unsigned)status);
}

/* When all is quiet. */

static void
check_law(struct bufpool *p)
{
	struct bufpool_site site;
	struct bufpool_stats s;
	uint64_t bytes;

	do {
		bufpool_get_stats(p, &s);
	} while (s.in_transit > 0);	/* until the last one has expired */
	CHECK(s.checked_out == 0 && s.bytes_checked_out == 0 &&
	      s.large_out == 0 && s.lost == 0, "%lu out, %lu lost",
	      (unsigned long)s.checked_out, (unsigned long)s.lost);
	bytes = s.large_cached_bytes;
	for (unsigned c = 0; c < s.class_count; c++) {
		const struct bufpool_class_stats *k = &s.classes[c];

		CHECK(k->count == k->ready + k->cached && k->out == 0,
		      "class %u: %lu of %lu ready, %lu cached", c,
		      (unsigned long)k->ready, (unsigned long)k->count,
		      (unsigned long)k->cached);
		bytes += k->count * k->size;
	}
	CHECK(bytes == s.cached_bytes && bytes == s.committed_bytes,
	      "%lu bytes idle, %lu committed", (unsigned long)bytes,
	      (unsigned long)s.committed_bytes);
	if (bufpool_sites(p, &site, 1) > 0)
		CHECK(site.buffers == 0, "%lu recorded at %s",
		      (unsigned long)site.buffers, site.place);
}

static size_t
resident(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	CHECK(file != NULL && fscanf(file, "%*u %lu", &pages) == 1, "no statm");
	fclose(file);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int
open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	CHECK(dir != NULL, "no /proc/self/fd");
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

static void
check_growth(void)
{
	static size_t most;
	static int files, rounds;
	size_t now;

	for (int i = 0; i < POOLS; i++)
		bufpool_trim(pools[i]);
	now = resident();
	if (rounds++ < WARM) {
		most = now > most ? now : most;
		files = open_files();
	}
	CHECK(now <= most + SLACK, "%lu bytes resident, were %lu",
	      (unsigned long)now, (unsigned long)most);
	CHECK(open_files() == files, "%d files, were %d", open_files(), files);
}

static bool
pass(uint64_t seed)
{
	static struct player players[THREADS];
	struct player first = { .random = seed * 2654435761u + 1 };
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	alarm(300);
	for (unsigned t = 0; t < THREADS; t++) {
		players[t].random = first.random + t + 1;
		CHECK(pthread_create(&players[t].thread, NULL, live,
				     &players[t]) == 0, "no thread");
	}
	for (int i = 0; i < 4; i++)
		fork_one(&first);
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(players[t].thread, NULL);
	atomic_store(&failing, 0);
	for (int i = 0; i < POST; i++) {
		uint64_t ticket = atomic_exchange(&tickets[i], 0);

		if (ticket != 0 && bufpool_adopt(ticket, &b, &f) == 0) {
			bufpool_release(b);
			bufpool_frozen_unref(f);
		}
	}
	for (int i = 0; i < POOLS; i++)
		check_law(pools[i]);
	check_growth();
	return true;
}

int
main(void)
{
	struct bufpool_class_config classes[] = { { 8192, 4 }, { 20480, 2 } };
	struct bufpool_config config[POOLS];

	for (int i = 0; i < POOLS; i++) {
		bufpool_config_init(&config[i]);
		config[i].leak_detection = i;
		config[i].leak_sample = 20;
		config[i].verify = 1;
		config[i].ticket_ttl = 1;
	}
	config[1].max_bytes = (size_t)16 << 20;
	config[2].classes = classes;
	config[2].class_count = 2;
	for (int i = 0; i < POOLS; i++)
		CHECK((pools[i] = bufpool_create(&config[i])) != NULL,
		      "no pool");
	return go_on(pass, ROUNDS);
}
