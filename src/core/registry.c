#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "debug.h"
#include "fault.h"
#include "fork.h"
#include "forked.h"
#include "name.h"
#include "registry.h"
#include "settings.h"
#include "sites.h"
#include "system.h"
#include "table.h"
#include "ticket.h"
#include "wipe.h"

#define PLACE_BITS 14		/* of a pool's id: its place */

/* Logarithms of a guarded buffer's alignment. malloc promises the first, ours
 * is the second. */
#define ALIGN_HARDENED 4
#define ALIGN_SAMPLED 6

_Static_assert(POOLS_MAX == 1 << PLACE_BITS, "an id has room for a place");
_Static_assert(sizeof(struct bufpool) <= 4096,
	       "a place takes one page: see requests.h");

static struct table pools;
static _Atomic uint64_t last_id;
static bool works;	/* false: the process had no room for the tables */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void after_fork(void);
static void settle_all(void);

static void
init_process(void)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t place = (sizeof(struct bufpool) + page - 1) / page * page;

	bp_forked_settle = settle_all;
	bp_wipe_init();
	bp_cache_init();
	bp_arena_init();
	works = bp_buf_table_init() && bp_table_init(&pools, place,
						     POOLS_MAX) &&
	    bp_name_init() && bp_thread_init() && bp_ticket_init() &&
	    bp_sites_init() &&
	    pthread_atfork(NULL, NULL, after_fork) == 0;
}

/* Runs at load; or earlier, when a program is linked with the static library
 * and its own constructor calls bufpool first. Not inlined, because gcc 12 ends
 * with an internal error where -flto and -O3 inline it. */
__attribute__((constructor, noinline)) static void
start_process(void)
{
	pthread_once(&once, init_process);
	forked_check();
}

/* A bit for each place that a pool has. */
static _Atomic uint64_t in_use[POOLS_MAX / 64];

/* The lowest place that was free when its word was read, or POOLS_MAX. */
static uint32_t
find_free(void)
{
	for (uint32_t w = 0; w < POOLS_MAX / 64; w++) {
		uint64_t free = ~atomic_load_explicit(&in_use[w],
						      memory_order_relaxed);

		if (free != 0)
			return w * 64 + (uint32_t)__builtin_ctzll(free);
	}
	return POOLS_MAX;
}

/* Takes the lowest free place, or a new one at the end when all are taken; NULL
 * when there are no more. */
static struct bufpool *
take_place(void)
{
	/* Seldom run: another is faster, and so it begins again. */
	for (;;) {
		uint32_t place = find_free();
		uint64_t bit = (uint64_t)1 << place % 64;
		struct bufpool *p = table_at(&pools, place);

		if (place == POOLS_MAX)
			return NULL;
		while (place >= table_used(&pools))
			if (bp_table_extend(&pools) < 0)
				return NULL;
		/* acquire: pairs with the release in free_place */
		if (atomic_fetch_or_explicit(&in_use[place / 64], bit,
					     memory_order_acquire) & bit)
			continue;	/* Seldom run: another was faster. */
		tsan_take(p);
		p->caches.place = place;
		return p;
	}
}

/* A place has pages of its own, which are given back here, so that a free place
 * costs no memory. The next pool there finds 0 in all of its fields, also where
 * the system refuses. (Others may just be reading `users` and the arena's
 * references, which are 0 already.) */
static void
free_place(struct bufpool *p)
{
	uint32_t place = p->caches.place;

	tsan_give(p);
	if (madvise(p, pools.item, MADV_DONTNEED) != 0)
		memset(p, 0, sizeof *p);
	atomic_fetch_and_explicit(&in_use[place / 64],
				  ~((uint64_t)1 << place % 64),
				  memory_order_release);
}

/* Pools without references, of which some memory is still to be unmapped. A
 * popped pool is the popping thread's alone. In a fork child one that another
 * thread had popped is lost. */
static struct stack ending;

static void
push_ending(struct bufpool *p)
{
	stack_push(&ending, p->caches.place, &p->next_ending);
}

static struct bufpool *
pop_ending(void)
{
	int64_t place = stack_pop(&ending, &pools,
				  offsetof(struct bufpool, next_ending));

	return place < 0 ? NULL : table_at(&pools, (uint32_t)place);
}

bool
bp_registry_finish(unsigned work)
{
	int saved = errno;
	struct bufpool *p;

	while (work > 0 && (p = pop_ending()) != NULL)
		if (bp_arena_destroy(&p->arena, &work))
			free_place(p);
		else
			push_ending(p);
	errno = saved;
	return stack_is_empty(&ending);
}

/* A pool of many buffers is unmapped in parts, by this call and by later ones,
 * so that no call takes long. */
static void
end_pool(struct bufpool_arena *a)
{
	struct bufpool *p = (void *)((char *)a -
				     offsetof(struct bufpool, arena));
	int saved = errno;

	bp_debug_report(p, "at the pool's end");
	bp_sites_end(p);
	bp_large_destroy(&p->large);
	bp_guard_destroy(&p->guards);
	bp_requests_destroy(p->requests);
	bp_caches_destroy(&p->caches);
	bp_thread_forget(p->caches.place);
	push_ending(p);
	bp_registry_finish(REGISTRY_WORK);
	errno = saved;
}

/* Fills in the pool's fields, which are 0 except the place; no other thread can
 * reach the pool yet. */
static void
configure_pool(struct bufpool *p, const struct bufpool_config *config)
{
	struct bufpool_arena *a = &p->arena;
	uint64_t count = atomic_fetch_add(&last_id, 1) + 1;

	bp_settings_layout(config, &p->layout);
	p->layout.nodes = bp_arena_nodes(config->numa_node);
	p->caches.id = count << PLACE_BITS | p->caches.place;
	p->caches.layout = &p->layout;
	p->caches.arena = a;
	strcpy(p->name, config->name);
	a->layout = &p->layout;
	a->label = p->name;
	a->id = p->caches.id;
	a->place = p->caches.place;
	a->max_bytes = config->max_bytes;
	a->numa_node = config->numa_node;
	a->prefault = config->prefault;
	a->huge_pages = config->huge_pages;
	a->dump = config->dump;
	a->end = end_pool;
	a->wipe_on_fork = config->wipe_on_fork;
	p->large.arena = a;
	p->large.limit = config->large_bytes;
	p->guards.arena = a;
	p->guards.lock = config->hardened == BUFPOOL_HARDENED_ALL;
	p->guards.align = p->guards.lock ? ALIGN_HARDENED : ALIGN_SAMPLED;
	p->ticket_ttl = bp_settings_milliseconds(config->ticket_ttl);
	p->config = *config;
	p->config.name = NULL;
	p->config.classes = NULL;
	p->guard_left = 1;
	p->decayed = bp_system_now();
}

/* Stocks the pool: puts as many buffers as its floor into the commons. Their
 * memory is mapped, and not touched unless the pool prefaults. */
static int
stock_pool(struct bufpool *p)
{
	unsigned node = bp_arena_node(&p->arena);

	for (unsigned c = 0; c < p->layout.classes; c++)
		for (size_t i = 0; i < p->layout.floor[c]; i++) {
			struct bufpool_buf *b = bp_arena_take(&p->arena, c,
							      node);

			if (b == NULL)
				return -1;
			ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
			bp_caches_put_common(&p->caches, &b, 1);
		}
	return 0;
}

/* The tiers of a pool; where one cannot be had, none. */
static bool
create_tiers(struct bufpool *p, const struct bufpool_config *config)
{
	if (bp_caches_create(&p->caches) != 0)
		return false;	/* Not run: no page for a list. */
	p->requests = bp_requests_create();
	if (p->requests != NULL && bp_large_create(&p->large) == 0 &&
	    (config->hardened == BUFPOOL_HARDENED_OFF ||
	     bp_guard_create(&p->guards) == 0) &&
	    bp_arena_create(&p->arena) == 0)
		return true;
	bp_requests_destroy(p->requests);
	bp_large_destroy(&p->large);
	bp_guard_destroy(&p->guards);
	bp_caches_destroy(&p->caches);
	return false;
}

/*
 * Statistics and decay can find a pool as soon as its arena has a reference,
 * but its name finds it only when it has a user, by which time it is complete.
 */
static struct bufpool *
create_pool(const struct bufpool_config *config)
{
	struct bufpool *p = works ? take_place() : NULL;
	int saved;

	/* When all places are taken, some may be of pools that are ending. */
	while (works && p == NULL && !bp_registry_finish(0)) {
		/* Not run: it takes all places. */
		bp_registry_finish(REGISTRY_WORK);
		p = take_place();
	}

	if (p == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	configure_pool(p, config);
	if (!create_tiers(p, config)) {
		free_place(p);
		errno = ENOMEM;
		return NULL;
	}
	if (bp_sites_begin(p, config->leak_detection,
			   config->leak_sample) == 0 && stock_pool(p) == 0) {
		if (config->hardened != BUFPOOL_HARDENED_OFF &&
		    config->fault_report)
			bp_fault_begin();
		atomic_store(&p->users, 1);
		return p;
	}
	saved = errno;
	bufpool_close(p);
	bp_arena_drop(&p->arena);
	errno = saved;
	return NULL;
}

/* The pool of this id, with one user more; NULL when it is closed or gone. */
static struct bufpool *
ref_id(uint64_t id)
{
	struct bufpool *p = table_at(&pools, id & (POOLS_MAX - 1));
	uint64_t users = atomic_load(&p->users);

	do {
		if (users == 0)
			return NULL;
	} while (!atomic_compare_exchange_weak(&p->users, &users, users + 1));
	if (p->caches.id == id && !pool_closed(p))
		return p;
	bufpool_destroy(p);
	return NULL;
}

/* When the exchange succeeds, it has replaced the very pool that was found
 * closed or gone, because ids are never used twice. */
static struct bufpool *
open_named(const struct bufpool_config *config)
{
	_Atomic uint64_t *id = bp_name_list(config->name);

	while (id != NULL) {
		uint64_t was = atomic_load(id);
		struct bufpool *p = ref_id(was);

		if (p != NULL) {
			if (bp_settings_difference(p, config) == NULL)
				return p;
			bufpool_destroy(p);
			errno = EEXIST;
			return NULL;
		}
		p = create_pool(config);
		if (p == NULL)
			return NULL;
		if (atomic_compare_exchange_strong(id, &was, p->caches.id))
			return p;
		bufpool_destroy(p);	/* another thread was faster */
	}
	return NULL;
}

struct bufpool *
bufpool_create(const struct bufpool_config *given)
{
	struct bufpool_config config;

	start_process();
	if (bp_settings_read(&config, given) != 0)
		return NULL;
	return config.name[0] ? open_named(&config) : create_pool(&config);
}

struct bufpool *
bufpool_get(const char *text)
{
	struct bufpool *p = NULL;
	_Atomic uint64_t *id;

	if (text == NULL) {
		errno = EINVAL;
		return NULL;
	}
	start_process();
	id = works ? bp_name_find(text) : NULL;
	if (id != NULL)
		p = ref_id(atomic_load(id));
	if (p == NULL)
		errno = ENOENT;
	return p;
}

struct bufpool *
bufpool_default(void)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.name = "default";
	/* EEXIST: another thread has just made it with other settings. Then
	 * those hold, and bufpool_get finds that pool. */
	do {
		p = bufpool_get(config.name);
		if (p == NULL)
			p = bufpool_create(&config);
	} while (p == NULL && errno == EEXIST);
	return p;
}

struct bufpool *
bufpool_ref(struct bufpool *p)
{
	atomic_fetch_add(&p->users, 1);
	return p;
}

void
bufpool_close(struct bufpool *p)
{
	struct cache *k;

	forked_check();
	atomic_store(&p->caches.closed, 1);
	for_each_cache(k, &p->caches)
		bp_cache_close(k);
	bp_caches_drain_commons(&p->caches);
	bp_large_close(&p->large);
	bp_arena_give_blanks(&p->arena, SIZE_MAX, true);
}

void
bufpool_destroy(struct bufpool *p)
{
	uint64_t users;

	if (p == NULL)
		return;
	forked_check();
	users = atomic_fetch_sub(&p->users, 1);
	if (users == 0) {
		fprintf(stderr, "bufpool: corruption at destroy: pool %u has "
			"no references left\n", p->caches.place);
		abort();
	}
	if (users > 1)
		return;
	bufpool_close(p);
	bp_arena_drop(&p->arena);
	/* Unmaps all of it, so that a destroyed pool's memory is free now. */
	while (!bp_registry_finish(REGISTRY_WORK))
		;
}

bool
bp_registry_next(unsigned *cursor, struct bufpool **pool)
{
	forked_check();
	while (*cursor < POOLS_MAX) {
		uint64_t rest = atomic_load_explicit(
		    &in_use[*cursor / 64], memory_order_acquire) >>
		    *cursor % 64;

		if (rest == 0) {
			*cursor = *cursor / 64 * 64 + 64;
			continue;
		}
		*cursor += (unsigned)__builtin_ctzll(rest);
		*pool = table_at(&pools, (*cursor)++);
		if (bp_arena_try_ref(&(*pool)->arena))
			return true;
	}
	return false;
}

struct bufpool *
bp_registry_hold(uint64_t id)
{
	struct bufpool *p = table_at(&pools, id & (POOLS_MAX - 1));

	forked_check();
	if ((id & (POOLS_MAX - 1)) >= table_used(&pools) ||
	    !bp_arena_try_ref(&p->arena))
		return NULL;
	if (p->caches.id == id)
		return p;
	bp_arena_drop(&p->arena);
	return NULL;
}

/*
 * References that other threads of the parent held for a moment are dropped: a
 * pool's new count is one for its users, one for each descriptor, and one for
 * this function. A pool without references has ended, or another thread was
 * just making or ending it; one without users was destroyed, or another thread
 * was just making or destroying it.
 */
static void
settle_all(void)
{
	struct bufpool *p;

	bp_thread_resume();
	bp_cache_init();
	for (unsigned i = 0; bp_registry_next(&i, &p);) {
		bp_fork_adopt(p);
		if (pool_closed(p) || atomic_load(&p->users) == 0)
			bufpool_close(p);
		bp_arena_drop(&p->arena);
	}
	bp_ticket_after_fork();
	bp_fork_tally(&pools);
	for (unsigned i = 0; bp_registry_next(&i, &p);) {
		bp_fork_count_lost(p);
		atomic_store(&p->arena.refs, p->tally.descriptors + 1 +
			     (atomic_load(&p->users) > 0));
		bp_arena_drop(&p->arena);
	}
}

static void
after_fork(void)
{
	bp_thread_after_fork();
	bp_forked_begin();
}

/* At the exit of the process, after what the program has for that. Asks first
 * whether a report is wanted, because to walk the pools settles a fork child,
 * also one that has not used any. */
static __attribute__((destructor)) void
report_all(void)
{
	struct bufpool *p;

	if (!bp_debug_reports())
		return;
	for (unsigned i = 0; bp_registry_next(&i, &p);) {
		bp_debug_report(p, "at exit");
		bp_arena_drop(&p->arena);
	}
}

const char *
bufpool_version(void)
{
	return BUFPOOL_VERSION;
}
