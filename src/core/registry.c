/* Pools: where they are, how they begin and end, and their names. */
#include <errno.h>
#include <string.h>

#include "arena.h"
#include "depot.h"
#include "limits.h"
#include "pool.h"
#include "table.h"
#include "thread.h"

#define DEPOT_BYTES ((size_t)32 << 20)	/* of one class in one depot, at most */
#define RING_MIN 16
#define RING_MAX 4096

/* A name is listed once and for good; its pool may change. */
struct name {
	struct name *next;
	char text[BUFPOOL_NAME_MAX];
	_Atomic(struct bufpool *) pool;
};

static struct table pools;
static _Atomic uint64_t last_id;
static _Atomic(struct name *) names;
static bool works;	/* false: the process had no room for the tables */

/* When the library is loaded, so before any thread can use it. */
__attribute__((constructor)) static void
init(void)
{
	cache_init();
	arena_init();
	works = buf_table_init() &&
	    table_init(&pools, sizeof(struct bufpool), POOLS_MAX) &&
	    thread_init();
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

/* The classes of a configuration, in a table of ours and sorted; returns how
 * many, or 0 when one is out of range or given twice. */
static unsigned
read_classes(const struct bufpool_config *config,
	     struct bufpool_class_config to[BUFPOOL_CLASSES_MAX])
{
	const struct bufpool_class_config four[] = {
		{ (size_t)4 << 10, config->four_kib_count },
		{ (size_t)64 << 10, config->sixty_four_kib_count },
		{ (size_t)256 << 10, config->two_fifty_six_kib_count },
		{ (size_t)1 << 20, config->one_mib_count },
	};
	const struct bufpool_class_config *from = config->class_count
	    ? config->classes : four;
	size_t count = config->class_count ? config->class_count : 4;

	if (count > BUFPOOL_CLASSES_MAX || from == NULL)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		unsigned at = i;

		if (from[i].size == 0 || from[i].size > CLASS_MAX ||
		    from[i].size % ARENA_GRAIN != 0 ||
		    from[i].count > FLOOR_MAX)
			return 0;
		for (; at > 0 && to[at - 1].size >= from[i].size; at--) {
			if (to[at - 1].size == from[i].size)
				return 0;
			to[at] = to[at - 1];
		}
		to[at] = from[i];
	}
	return (unsigned)count;
}

/* The caller's configuration in today's layout; 0, or -1 + EINVAL. */
static int
read_config(struct bufpool_config *config, const struct bufpool_config *given)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];

	bufpool_config_init(config);
	if (given != NULL)
		memcpy(config, given, given->struct_size < sizeof *config
		       ? given->struct_size : sizeof *config);
	if (config->name == NULL)
		config->name = "";
	else if (config->name[0] == '\0')
		goto invalid;
	if (strlen(config->name) >= BUFPOOL_NAME_MAX ||
	    read_classes(config, classes) == 0 ||
	    config->numa_node < BUFPOOL_NUMA_LOCAL)
		goto invalid;
	return 0;
invalid:
	errno = EINVAL;
	return -1;
}

static uint32_t
power_of_two(size_t n)
{
	uint32_t power = RING_MIN;

	while (power < n)
		power *= 2;
	return power;
}

static void
add_class(struct bufpool *p, size_t size, size_t floor)
{
	unsigned c = p->classes++;
	size_t shelf = SHELF_BYTES / size, ring = DEPOT_BYTES / size;

	p->class_size[c] = size;
	p->floor[c] = floor;
	p->shelf_limit[c] = shelf == 0 ? 1 : shelf < SHELF_MAX
	    ? (uint32_t)shelf : SHELF_MAX;
	if (ring > RING_MAX)
		ring = RING_MAX;
	/* A ring of n holds n - 1, and the floor must fit one. */
	p->ring_size[c] = power_of_two(ring > floor ? ring : floor + 1);
}

/* Fills in a place that nobody can reach yet. */
static void
configure(struct bufpool *p, const struct bufpool_config *config)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	unsigned count = read_classes(config, classes), next = 0;

	p->classes = 0;
	for (unsigned c = 0; c < count; c++)
		add_class(p, classes[c].size, classes[c].count);
	for (unsigned log = 0; log < 64; log++) {
		while (next < count && classes[next].size >> log == 0)
			next++;
		p->first[log] = (uint16_t)(offsetof(struct cache, shelf) +
					   next * sizeof(struct bufpool_shelf));
	}
	p->max_bytes = config->max_bytes ? config->max_bytes : SIZE_MAX;
	p->numa_node = config->numa_node;
	p->prefault = config->prefault != 0;
	p->huge_pages = config->huge_pages != 0;
	strcpy(p->name, config->name);
	for (unsigned c = 0; c < BUFPOOL_CLASSES_MAX; c++) {
		p->existing[c] = p->lost[c] = 0;
		p->stray[c].checkouts = p->stray[c].releases = 0;
		p->stray[c].misses = 0;
		p->promised[c] = p->was_idle[c] = 0;
		p->was_short[c] = 0;
	}
	p->exact.checkouts = p->exact.releases = p->exact.gc_returns = 0;
	p->exact.bytes_taken = p->exact.bytes_returned = 0;
	p->peak_out = p->peak_bytes_out = 0;
	p->committed = 0;
	p->looked_at = p->decay_at = 0;
	p->closed = 0;
	p->id = atomic_fetch_add(&last_id, 1) + 1;
	p->alive = 1;
	atomic_store(&p->handles, 1);
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
		/* acquire: pairs with the release in pool_drop */
		if (atomic_load_explicit(&p->taken, memory_order_relaxed) != 0)
			continue;
		if (atomic_compare_exchange_strong_explicit(
			&p->taken, &unused, 1, memory_order_acquire,
			memory_order_relaxed)) {
			p->slot = i;
			return p;
		}
	}
}

void
pool_drop(struct bufpool *p)
{
	/* acq_rel: what others did with the pool comes before its end. */
	if (atomic_fetch_sub_explicit(&p->alive, 1, memory_order_acq_rel) > 1)
		return;
	arena_destroy(p);
	atomic_store_explicit(&p->taken, 0, memory_order_release);
}

/*
 * Puts the floor into the depot of the thread that makes the pool; other
 * threads take it from there. The memory is mapped, not touched.
 */
static int
stock(struct bufpool *p)
{
	struct thread *t = thread_enrolled() ? thread_self : thread_enroll();
	struct thread *borrowed = t ? NULL : thread_borrow();
	struct cache *k = NULL;
	int failed = 0;

	if (t != NULL || borrowed != NULL)
		k = thread_bind(t ? t : borrowed, p);
	if (k == NULL)
		failed = ENOMEM;
	for (unsigned c = 0; c < p->classes && !failed; c++)
		for (size_t i = 0; i < p->floor[c] && !failed; i++) {
			struct bufpool_buf *b = arena_take(p, c, k->node);

			if (b == NULL)
				failed = errno;
			else if (!depot_push(atomic_load(&k->depot),
					     pool_ring(p, k->node, c), b))
				arena_give(b);
		}
	if (borrowed != NULL)
		thread_give_up(borrowed);
	errno = failed;
	return failed ? -1 : 0;
}

static struct bufpool *
create(const struct bufpool_config *config)
{
	struct bufpool *p = works ? take_place() : NULL;

	if (p == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	configure(p, config);
	if (arena_create(p) != 0 || stock(p) != 0) {
		int saved = errno;

		bufpool_destroy(p);
		errno = saved;
		return NULL;
	}
	return p;
}

/* A reference to a pool that may be closed or gone, if it is neither. */
static bool
try_ref(struct bufpool *p)
{
	uint64_t handles = atomic_load(&p->handles);

	do {
		if (handles == 0)
			return false;
	} while (!atomic_compare_exchange_weak(&p->handles, &handles,
					       handles + 1));
	if (!atomic_load(&p->closed))
		return true;
	bufpool_destroy(p);
	return false;
}

static struct name *
find_name(const char *text)
{
	struct name *n = atomic_load(&names);

	while (n != NULL && strcmp(n->text, text) != 0)
		n = n->next;
	return n;
}

/* Lists the name unless it is. The head changes whenever one is listed, so an
 * exchange that succeeds has looked at all of them. */
static struct name *
list_name(const char *text)
{
	struct name *mine = NULL, *head, *n;

	do {
		head = atomic_load(&names);
		n = find_name(text);
		if (n != NULL)
			return n;
		if (mine == NULL)
			mine = pages_map(sizeof *mine);
		if (mine == NULL) {
			errno = ENOMEM;
			return NULL;
		}
		strcpy(mine->text, text);
		mine->next = head;
	} while (!atomic_compare_exchange_strong(&names, &head, mine));
	return mine;
}

/* The open pool that has this name now. Its place may since have gone to
 * another pool: then that is let go again. */
static struct bufpool *
ref_name(struct name *n)
{
	struct bufpool *p = atomic_load(&n->pool);

	if (p == NULL || !try_ref(p))
		return NULL;
	if (strcmp(p->name, n->text) == 0)
		return p;
	bufpool_destroy(p);
	return NULL;
}

static struct bufpool *
open_named(const struct bufpool_config *config)
{
	struct name *n = list_name(config->name);

	while (n != NULL) {
		struct bufpool *was = atomic_load(&n->pool);
		struct bufpool *p = ref_name(n);

		if (p != NULL) {
			if (pool_difference(p, config) == NULL)
				return p;
			bufpool_destroy(p);
			errno = EEXIST;
			return NULL;
		}
		p = create(config);
		if (p == NULL)
			return NULL;
		if (atomic_compare_exchange_strong(&n->pool, &was, p))
			return p;
		bufpool_destroy(p);	/* another thread was faster */
	}
	return NULL;
}

struct bufpool *
bufpool_create(const struct bufpool_config *given)
{
	struct bufpool_config config;

	if (read_config(&config, given) != 0)
		return NULL;
	return config.name[0] ? open_named(&config) : create(&config);
}

struct bufpool *
bufpool_get(const char *text)
{
	struct name *n = find_name(text);
	struct bufpool *p = n ? ref_name(n) : NULL;

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
	atomic_fetch_add(&p->handles, 1);
	return p;
}

void
bufpool_close(struct bufpool *p)
{
	atomic_store(&p->closed, 1);
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		struct cache *k = thread_cache(t, p);

		if (k != NULL)
			cache_close(k);
	}
}

void
bufpool_destroy(struct bufpool *p)
{
	if (p == NULL || atomic_fetch_sub(&p->handles, 1) > 1)
		return;
	bufpool_close(p);
	pool_drop(p);
}

bool
pool_iterate(unsigned *cursor, struct bufpool **pool)
{
	while (*cursor < table_used(&pools)) {
		struct bufpool *p = table_at(&pools, (*cursor)++);
		uint64_t alive = atomic_load(&p->alive);

		*pool = p;
		while (alive > 0)
			if (atomic_compare_exchange_weak(&p->alive, &alive,
							 alive + 1))
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
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	unsigned count = read_classes(config, classes);
	const char *key = NULL;

	if (p->classes != count)
		return "classes";
	for (unsigned c = count; c-- > 0;) {
		if (p->class_size[c] != classes[c].size)
			return "classes";
		if (p->floor[c] != classes[c].count)
			key = config->class_count ? "classes" : keys[c];
	}
	return key;
}

const char *
pool_difference(const struct bufpool *p, const struct bufpool_config *config)
{
	size_t max_bytes = config->max_bytes ? config->max_bytes : SIZE_MAX;
	const char *key = class_difference(p, config);

	if (key != NULL)
		return key;
	if (p->max_bytes != max_bytes)
		return "max_bytes";
	if (p->numa_node != config->numa_node)
		return "numa_node";
	if (p->prefault != (config->prefault != 0))
		return "prefault";
	return p->huge_pages != (config->huge_pages != 0) ? "huge_pages" : NULL;
}

const char *
pool_label(const struct bufpool *p)
{
	if (p == NULL)
		return "(none)";
	return p->name[0] ? p->name : "(unnamed)";
}

/*
 * The law on struct bufpool, solved for lost. Each move counts a buffer out of
 * one place before into the next, and `existing` first and last, so what was
 * under way when the other threads vanished is never counted twice.
 */
void
pool_after_fork(void)
{
	for (uint32_t i = 0; i < table_used(&pools); i++) {
		struct bufpool *p = table_at(&pools, i);

		for (unsigned c = 0; p->taken && c < p->classes; c++) {
			p->promised[c] = 0;
			p->lost[c] = p->existing[c] - pool_cached(p, c) -
			    pool_ready(p, c) - pool_out(p, c);
		}
	}
}

const char *
bufpool_version(void)
{
	return BUFPOOL_VERSION;
}
