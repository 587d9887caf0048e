#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "registry.h"
#include "stats.h"
#include "table.h"

#define PLACE_BITS 14		/* of a pool's id: its place */
#define NAMES_MAX ((uint32_t)1 << 20)	/* different names in a process */
#define BUCKETS 4096

_Static_assert(POOLS_MAX == 1 << PLACE_BITS, "an id has room for a place");

/* A name is listed once and for good; its pool changes. */
struct name {
	_Atomic uint64_t id;	/* of the pool that has it, or had it last */
	uint32_t next;		/* number of the next of its bucket, + 1 */
	char text[BUFPOOL_NAME_MAX];
};

static struct table pools, names;
static _Atomic uint32_t bucket[BUCKETS];	/* number of a name, + 1 */
static _Atomic uint64_t last_id;
static bool works;	/* false: the process had no room for the tables */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void after_fork(void);

static void
init(void)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t place = (sizeof(struct bufpool) + page - 1) / page * page;

	cache_init();
	arena_init();
	works = buf_table_init() && table_init(&pools, place, POOLS_MAX) &&
	    table_init(&names, sizeof(struct name), NAMES_MAX) &&
	    thread_init() && pthread_atfork(NULL, NULL, after_fork) == 0;
}

/* At load, or earlier when the constructor of a program comes first that is
 * linked with the static library. */
__attribute__((constructor)) static void
start(void)
{
	pthread_once(&once, init);
}

void
bufpool_config_init_sized(struct bufpool_config *config, size_t struct_size)
{
	const struct bufpool_config defaults = {
		.struct_size = struct_size,
		.four_kib_count = 64,
		.sixty_four_kib_count = 8,
		.two_fifty_six_kib_count = 2,
		.one_mib_count = 0,
		.max_bytes = 0,
		.numa_node = BUFPOOL_NUMA_NONE,
		.name = NULL,
		.class_count = 0,
		.classes = NULL,
		.prefault = 0,
		.huge_pages = 0,
	};

	memcpy(config, &defaults,
	       struct_size < sizeof defaults ? struct_size : sizeof defaults);
}

/* False when a class is out of range or given twice. */
static bool
read_classes(const struct bufpool_config *config, struct layout *l)
{
	const struct bufpool_class_config four[] = {
		{ (size_t)4 << 10, config->four_kib_count },
		{ (size_t)64 << 10, config->sixty_four_kib_count },
		{ (size_t)256 << 10, config->two_fifty_six_kib_count },
		{ (size_t)1 << 20, config->one_mib_count },
	};

	return config->class_count != 0
	    ? layout_init(l, config->classes, config->class_count)
	    : layout_init(l, four, 4);
}

/* The caller's configuration in today's layout; 0, or -1 + EINVAL. */
static int
read_config(struct bufpool_config *config, const struct bufpool_config *given)
{
	struct layout l;

	bufpool_config_init(config);
	if (given != NULL)
		memcpy(config, given, given->struct_size < sizeof *config
		       ? given->struct_size : sizeof *config);
	if (config->name == NULL)
		config->name = "";
	else if (config->name[0] == '\0')
		goto invalid;
	if (strnlen(config->name, BUFPOOL_NAME_MAX) == BUFPOOL_NAME_MAX ||
	    !read_classes(config, &l) ||
	    config->numa_node < BUFPOOL_NUMA_LOCAL)
		goto invalid;
	return 0;
invalid:
	errno = EINVAL;
	return -1;
}

/* The lowest free place; a new one at the end when all are taken. */
static struct bufpool *
take_place(void)
{
	for (uint32_t i = 0;; i++) {
		struct bufpool *p = table_at(&pools, i);
		uint32_t unused = 0;

		if (i == table_used(&pools)) {
			if (table_extend(&pools) < 0)
				return NULL;
			i = (uint32_t)-1;	/* it may be another's by now */
			continue;
		}
		/* acquire: pairs with the release in free_place */
		if (atomic_load_explicit(&p->taken, memory_order_relaxed) != 0)
			continue;
		if (atomic_compare_exchange_strong_explicit(
			&p->taken, &unused, 1, memory_order_acquire,
			memory_order_relaxed)) {
			p->caches.place = i;
			return p;
		}
	}
}

/* Zeroed, the place costs no memory, and is no longer taken. It has pages of
 * its own. Where the system refuses, the place is only no longer taken. */
static void
free_place(struct bufpool *p)
{
	uint32_t place = p->caches.place;

	if (madvise(p, pools.item, MADV_DONTNEED) != 0)
		atomic_store_explicit(
		    &((struct bufpool *)table_at(&pools, place))->taken, 0,
		    memory_order_release);
}

static void
end(struct bufpool_arena *a)
{
	struct bufpool *p = (void *)((char *)a -
				     offsetof(struct bufpool, arena));
	int saved = errno;

	arena_destroy(a);
	caches_destroy(&p->caches);
	thread_forget(p->caches.place, p->caches.id);
	free_place(p);
	errno = saved;
}

static void
reset_counters(struct bufpool *p)
{
	for (unsigned c = 0; c < BUFPOOL_CLASSES_MAX; c++) {
		p->arena.existing[c] = p->lost[c] = 0;
		p->caches.uncached[c].checkouts = 0;
		p->caches.uncached[c].releases = 0;
		p->caches.uncached[c].misses = 0;
		p->promised[c] = p->was_idle[c] = 0;
		p->was_short[c] = 0;
	}
	p->caches.wiped_bytes = p->caches.gc_returns = 0;
	p->large.checkouts = p->large.releases = p->large.gc_returns = 0;
	p->large.bytes_taken = p->large.bytes_returned = 0;
	p->peak_out = p->peak_bytes_out = 0;
	p->arena.committed = 0;
	p->looked_at = p->decay_at = 0;
}

/* Fills in a place that nobody can reach yet. */
static void
configure(struct bufpool *p, const struct bufpool_config *config)
{
	struct bufpool_arena *a = &p->arena;
	uint64_t count = atomic_fetch_add(&last_id, 1) + 1;

	read_classes(config, &p->layout);
	p->layout.nodes = arena_nodes(config->numa_node);
	p->caches.id = count << PLACE_BITS | p->caches.place;
	p->caches.layout = &p->layout;
	p->caches.arena = a;
	p->caches.closed = 0;
	strcpy(p->name, config->name);
	a->layout = &p->layout;
	a->label = p->name;
	a->id = p->caches.id;
	a->place = p->caches.place;
	a->max_bytes = config->max_bytes ? config->max_bytes : SIZE_MAX;
	a->numa_node = config->numa_node;
	a->prefault = config->prefault != 0;
	a->huge_pages = config->huge_pages != 0;
	a->end = end;
	reset_counters(p);
}

/* Puts the floor into the commons. The memory is mapped, not touched. */
static int
stock(struct bufpool *p)
{
	unsigned node = arena_node(&p->arena);

	for (unsigned c = 0; c < p->layout.classes; c++)
		for (size_t i = 0; i < p->layout.floor[c]; i++) {
			struct bufpool_buf *b = arena_take(&p->arena, c, node);

			if (b == NULL)
				return -1;
			ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
			caches_put_common(&p->caches, b);
		}
	return 0;
}

/*
 * A pool can be found by statistics and decay once its arena has a reference,
 * and by its name once it has a user: by then it is whole.
 */
static struct bufpool *
create(const struct bufpool_config *config)
{
	struct bufpool *p = works ? take_place() : NULL;
	int saved;

	if (p == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	configure(p, config);
	if (caches_create(&p->caches) != 0)
		goto fail;
	if (arena_create(&p->arena) != 0) {
		caches_destroy(&p->caches);
		goto fail;
	}
	if (stock(p) == 0) {
		atomic_store(&p->users, 1);
		return p;
	}
	saved = errno;
	bufpool_close(p);
	arena_drop(&p->arena);
	errno = saved;
	return NULL;
fail:
	free_place(p);
	errno = ENOMEM;
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

/* FNV-1a. */
static _Atomic uint32_t *
bucket_of(const char *text)
{
	uint32_t hash = 2166136261u;

	for (; *text != '\0'; text++)
		hash = (hash ^ (unsigned char)*text) * 16777619u;
	return &bucket[hash % BUCKETS];
}

static struct name *
find_name(uint32_t number, const char *text)
{
	while (number != 0) {
		struct name *n = table_at(&names, number - 1);

		if (strcmp(n->text, text) == 0)
			return n;
		number = n->next;
	}
	return NULL;
}

/* Lists the name unless it is. The head changes whenever one is listed, so an
 * exchange that succeeds has looked at all of them. */
static struct name *
list_name(const char *text)
{
	_Atomic uint32_t *head = bucket_of(text);
	uint32_t first = atomic_load(head);
	struct name *mine = NULL, *n;
	int64_t number = -1;

	do {
		n = find_name(first, text);
		if (n != NULL)
			return n;	/* mine, if made, is never used */
		if (mine == NULL) {
			number = table_extend(&names);
			if (number < 0)
				return NULL;
			mine = table_at(&names, (uint32_t)number);
			strcpy(mine->text, text);
		}
		mine->next = first;
	} while (!atomic_compare_exchange_strong(head, &first,
						 (uint32_t)number + 1));
	return mine;
}

/* Ids are never used twice, so an exchange that succeeds has replaced the very
 * pool that was found closed or gone. */
static struct bufpool *
open_named(const struct bufpool_config *config)
{
	struct name *n = list_name(config->name);

	while (n != NULL) {
		uint64_t was = atomic_load(&n->id);
		struct bufpool *p = ref_id(was);

		if (p != NULL) {
			if (registry_difference(p, config) == NULL)
				return p;
			bufpool_destroy(p);
			errno = EEXIST;
			return NULL;
		}
		p = create(config);
		if (p == NULL)
			return NULL;
		if (atomic_compare_exchange_strong(&n->id, &was, p->caches.id))
			return p;
		bufpool_destroy(p);	/* another thread was faster */
	}
	return NULL;
}

struct bufpool *
bufpool_create(const struct bufpool_config *given)
{
	struct bufpool_config config;

	start();
	if (read_config(&config, given) != 0)
		return NULL;
	return config.name[0] ? open_named(&config) : create(&config);
}

struct bufpool *
bufpool_get(const char *text)
{
	struct bufpool *p = NULL;
	struct name *n;

	start();
	n = works ? find_name(atomic_load(bucket_of(text)), text) : NULL;
	if (n != NULL)
		p = ref_id(atomic_load(&n->id));
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
	/* Whoever configures it otherwise between the two calls wins. */
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

	atomic_store(&p->caches.closed, 1);
	for_each_cache(k, &p->caches)
		cache_close(k);
	caches_drain_commons(&p->caches);
}

void
bufpool_destroy(struct bufpool *p)
{
	uint64_t users;

	if (p == NULL)
		return;
	users = atomic_fetch_sub(&p->users, 1);
	if (users == 0) {
		fprintf(stderr, "bufpool: corruption at destroy: pool %u has "
			"no references left\n", p->caches.place);
		abort();
	}
	if (users > 1)
		return;
	bufpool_close(p);
	arena_drop(&p->arena);
}

bool
registry_next(unsigned *cursor, struct bufpool **pool)
{
	while (*cursor < table_used(&pools)) {
		*pool = table_at(&pools, (*cursor)++);
		if (arena_try_ref(&(*pool)->arena))
			return true;
	}
	return false;
}

/* With the same sizes a difference in a count has a key of its own, if the
 * configuration named the four. */
static const char *
class_difference(const struct bufpool *p, const struct bufpool_config *config)
{
	static const char *const keys[] = { "four_kib_count",
					    "sixty_four_kib_count",
					    "two_fifty_six_kib_count",
					    "one_mib_count" };
	const char *key = NULL;
	struct layout l;

	if (!read_classes(config, &l) || p->layout.classes != l.classes)
		return "classes";
	for (unsigned c = l.classes; c-- > 0;) {
		if (p->layout.size[c] != l.size[c])
			return "classes";
		if (p->layout.floor[c] != l.floor[c])
			key = config->class_count ? "classes" : keys[c];
	}
	return key;
}

const char *
registry_difference(const struct bufpool *p,
		    const struct bufpool_config *config)
{
	const struct bufpool_arena *a = &p->arena;
	size_t max_bytes = config->max_bytes ? config->max_bytes : SIZE_MAX;
	const char *key = class_difference(p, config);

	if (key != NULL)
		return key;
	if (a->max_bytes != max_bytes)
		return "max_bytes";
	if (a->numa_node != config->numa_node)
		return "numa_node";
	if (a->prefault != (config->prefault != 0))
		return "prefault";
	return a->huge_pages != (config->huge_pages != 0) ? "huge_pages" : NULL;
}

/* Counters by which `out` comes right, when it is not: a thread that is not
 * there any more was between a buffer and its counter. */
static void
correct(_Atomic uint64_t *checkouts, _Atomic uint64_t *releases,
	uint64_t sum_checkouts, uint64_t sum_releases, uint64_t out)
{
	uint64_t more = out - (sum_checkouts - sum_releases);

	if (more <= INT64_MAX)
		*checkouts += more;
	else
		*releases -= more;
}

/* The law on struct bufpool, solved for lost. What is out has been tallied in
 * was_idle. */
static void
count_lost(struct bufpool *p)
{
	for (unsigned c = 0; c < p->layout.classes; c++) {
		uint64_t out = atomic_exchange(&p->was_idle[c], 0);

		correct(&p->caches.uncached[c].checkouts,
			&p->caches.uncached[c].releases,
			stats_checkouts(p, c), stats_releases(p, c), out);
		p->promised[c] = 0;
		p->lost[c] = p->arena.existing[c] - out - stats_cached(p, c) -
		    stats_ready(p, c);
	}
}

/* Of every pool, what is out, by the descriptors themselves. */
static void
tally(void)
{
	for (uint32_t i = 0; i < buf_table_used(); i++) {
		struct bufpool_buf *b = buf_at(i);
		unsigned state = atomic_load(&b->word) & BUF_STATE;
		struct bufpool *p;

		if ((state != BUF_OUT && state != BUF_FROZEN) ||
		    b->arena == NULL)
			continue;
		p = pool_of(b);
		if (b->class < BUFPOOL_CLASSES_MAX) {
			p->was_idle[b->class]++;
		} else if (b->class == CLASS_LARGE) {
			p->large.releases--;
			p->large.bytes_returned -= buf_size(b);
		}
	}
}

/*
 * The child has one thread. What others had cached goes to the commons, and
 * what can no longer be found is lost. A pool without references is gone, or
 * was being made by a thread that is not there.
 */
static void
after_fork(void)
{
	struct bufpool *p;
	struct cache *k;

	cache_init();
	thread_after_fork();
	for (unsigned i = 0; registry_next(&i, &p);) {
		commons_after_fork(&p->caches.commons);
		for_each_cache(k, &p->caches)
			cache_after_fork(k, owner_is_self(k->shelf[0].owner));
		if (pool_closed(p))
			caches_drain_commons(&p->caches);
		for (unsigned c = 0; c < p->layout.classes; c++)
			p->was_idle[c] = 0;
		atomic_store(&p->large.releases, p->large.checkouts);
		atomic_store(&p->large.bytes_returned, p->large.bytes_taken);
		arena_drop(&p->arena);
	}
	tally();
	for (unsigned i = 0; registry_next(&i, &p);) {
		count_lost(p);
		arena_drop(&p->arena);
	}
}

const char *
bufpool_version(void)
{
	return BUFPOOL_VERSION;
}
