#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forked.h"
#include "name.h"
#include "pages.h"
#include "sites.h"
#include "system.h"
#include "table.h"

#define SITES_BITS 9
#define SITES_MAX (1 << SITES_BITS)
/* A table of sites: those of checkouts, and as many of releases, so that these
 * leave those the room that bufpool.h promises. */
#define SITES_BYTES (2 * SITES_MAX * sizeof(struct site))

struct site {
	_Atomic uint64_t key;		/* 0: free */
	_Atomic uint64_t gc_returns, request_returns;
	_Atomic uint32_t told;		/* the text is whole */
	char text[BUFPOOL_PLACE_MAX];	/* of a site of Lua */
};

/* From the low bits on: 1, the site, the pool's place, and when. */
#define PLACE_SHIFT (1 + SITES_BITS)
#define TIME_SHIFT (PLACE_SHIFT + 14)

_Static_assert(POOLS_MAX <= 1 << (TIME_SHIFT - PLACE_SHIFT),
	       "a record has room for a place");

/* From the low bits of `home` on: what the release came from, as sites.h has it
 * (SITE_CALLER for a site), the site, and the generation after the release. */
#define HOME_BITS 3
#define HOME_KIND ((1 << HOME_BITS) - 1)
#define HOME_SHIFT (HOME_BITS + SITES_BITS)

/* What comes after the bytes is of the last buffer with a record, and stays
 * when that has gone, so that who has a stale pointer or handle can be told
 * where it came from. The id is not that of a later pool with the same place,
 * and says nothing of whether the pool is still there. A `home` of a generation
 * that is not above that of the life is of an earlier buffer. */
struct record {
	_Atomic uint64_t word;		/* 0: there is none */
	_Atomic size_t bytes;		/* of the buffer's memory */
	_Atomic uint64_t pool;		/* its id */
	_Atomic uint64_t life;		/* generation at checkout, site, 1 */
	_Atomic uint64_t home;		/* where it was released */
};

static struct table records;

static void tell_origin(const struct bufpool_buf *b, char *to, size_t size);

bool
bp_sites_init(void)
{
	bp_buf_origin = tell_origin;
	return bp_table_init(&records, sizeof(struct record),
			     bp_buf_table_limit());
}

/* The record of the descriptor of this number, or NULL + ENOMEM. */
static struct record *
record_at(uint32_t number)
{
	while (number >= table_used(&records))
		if (bp_table_extend(&records) < 0)
			return NULL;
	return table_at(&records, number);
}

static unsigned
site_of(uint64_t word)
{
	return (unsigned)(word >> 1) & (SITES_MAX - 1);
}

static uint32_t
place_of(uint64_t word)
{
	return (uint32_t)(word >> PLACE_SHIFT) & (POOLS_MAX - 1);
}

/*
 * The number of the site of this key. Of two threads that bring a new key, one
 * gets the place and sets *fresh; the other knows the site by its key at once,
 * and need not wait for the text.
 */
static unsigned
find_site(struct site *sites, uint64_t key, bool *fresh)
{
	uint64_t at = (key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 32;

	*fresh = false;
	for (unsigned i = 0; i < SITES_MAX - 1; i++) {
		unsigned n = 1 + (unsigned)((at + i) % (SITES_MAX - 1));
		uint64_t seen = 0;

		if (atomic_compare_exchange_strong(&sites[n].key, &seen,
						   key)) {
			*fresh = true;
			return n;
		}
		if (seen == key)
			return n;
	}
	return 0;
}

/* The release of `told` pairs with the acquire in describe. In a fork child a
 * text that another thread was just writing stays untold. */
static unsigned
find_text(struct site *sites, const char *text)
{
	uint64_t hash = 0xcbf29ce484222325u;
	char shown[BUFPOOL_PLACE_MAX];
	struct site *site;
	unsigned n;
	bool fresh;

	bp_name_show(shown, sizeof shown, text);
	for (const char *c = shown; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
	n = find_site(sites, hash | SITE_LISTED, &fresh);
	site = &sites[n];
	if (fresh) {
		strcpy(site->text, shown);
		atomic_store_explicit(&site->told, 1, memory_order_release);
	}
	return n;
}

uintptr_t
bp_sites_list(struct bufpool *p, const char *text)
{
	struct site *sites = atomic_load(&p->sites);

	return SITE_LISTED | (sites != NULL ? find_text(sites, text) : 0);
}

bool
bp_sites_wants(struct bufpool *p, struct bufpool_shelf *s, uintptr_t site)
{
	uint32_t watch = atomic_load(&p->caches.watch);

	if (site == SITE_NONE || watch == BUFPOOL_LEAK_OFF)
		return false;
	/* It was wanted when the caller was told to list the site. */
	if (watch == BUFPOOL_LEAK_ALL || site & SITE_LISTED)
		return true;
	return s != NULL && bp_shelf_unwatch(s);
}

/* Only the thread that takes the count from 1 to 0 draws anew; those that find
 * less are in between. */
bool
bp_sites_count_down(struct bufpool *p, _Atomic int64_t *left)
{
	if (atomic_fetch_sub(left, 1) != 1)
		return false;
	atomic_store(left, (int64_t)caches_draw(&p->caches,
						bp_system_random()));
	return true;
}

bool
bp_sites_wants_large(struct bufpool *p, uintptr_t site)
{
	uint32_t watch = atomic_load(&p->caches.watch);

	if (site == SITE_NONE || watch == BUFPOOL_LEAK_OFF)
		return false;
	if (watch == BUFPOOL_LEAK_ALL || site & SITE_LISTED)
		return true;
	return bp_sites_count_down(p, &p->large_left);
}

static uint64_t
generation_of(const struct bufpool_buf *b)
{
	return atomic_load_explicit(&b->word, memory_order_relaxed) /
	    BUF_GENERATION;
}

static size_t
bytes_of(const struct bufpool_buf *b)
{
	return b->class == CLASS_LARGE ? arena_bytes(b)
	    : b->class == CLASS_NONE ? 0 : buf_size(b);
}

void
bp_sites_record(struct bufpool *p, struct bufpool_buf *b, uintptr_t site)
{
	struct record *r = record_at(b->number);
	bool fresh;
	uint64_t n = site & SITE_LISTED ? site & (SITES_MAX - 1)
	    : find_site(atomic_load(&p->sites), site, &fresh);

	if (r == NULL) {
		atomic_fetch_add(&p->unrecorded, 1);
		return;
	}
	n = n << 1 | 1;
	atomic_store_explicit(&r->bytes, bytes_of(b), memory_order_relaxed);
	atomic_store_explicit(&r->life, 0, memory_order_relaxed);
	atomic_store_explicit(&r->pool, p->caches.id, memory_order_release);
	atomic_store_explicit(&r->life, generation_of(b) << PLACE_SHIFT | n,
			      memory_order_release);
	atomic_store_explicit(&r->word,
			      (uint64_t)bp_system_now() << TIME_SHIFT |
			      (uint64_t)p->caches.place << PLACE_SHIFT | n,
			      memory_order_release);
	hook("sites: recorded");
	b->place = PLACE_WATCHED;
	b->shelf = &bp_cache_no_shelf;
}

/* The first byte of n that is not 0, or n. The memory is poisoned for ASan as
 * long as nobody has the buffer. */
static SANITIZE_NO_ADDRESS size_t
find_dirty(const uint8_t *at, size_t n)
{
	size_t i = 0;

	for (size_t step = 4096; n - i >= step; i += step) {
		const uint64_t *word = (const void *)(at + i);
		uint64_t any = 0;

		for (size_t k = 0; k < step / sizeof *word; k++)
			any |= word[k];
		if (any != 0)
			break;
	}
	while (i < n && at[i] == 0)
		i++;
	return i;
}

void
bp_sites_verify(const struct bufpool *p, const struct bufpool_buf *b)
{
	size_t n = buf_size(b), at;
	char phase[96];

	if (!p->config.verify)
		return;
	at = find_dirty(b->base, n);
	if (at == n)
		return;
	snprintf(phase, sizeof phase, "checkout, where byte %zu is not 0",
		 at + 1);
	bp_buf_corrupt(b, phase);
}

static void
note_release(const struct bufpool_buf *b, struct site *sites,
	     struct record *r, uintptr_t from)
{
	uint64_t home = generation_of(b) << HOME_SHIFT;
	bool fresh;

	if (from >> HOME_BITS == 0)
		home |= from;
	else
		home |= find_site(sites + SITES_MAX, from, &fresh) <<
		    HOME_BITS | SITE_CALLER;
	atomic_store_explicit(&r->home, home, memory_order_release);
}

void
bp_sites_forget(struct bufpool_buf *b, uintptr_t from)
{
	struct bufpool *p = pool_of(b);
	struct site *sites = atomic_load(&p->sites);
	struct record *r = table_at(&records, b->number);
	uint64_t word = atomic_load_explicit(&r->word, memory_order_relaxed);

	if (from == SITE_GC)
		atomic_fetch_add(&sites[site_of(word)].gc_returns, 1);
	else if (from == SITE_SCOPE)
		atomic_fetch_add(&sites[site_of(word)].request_returns, 1);
	note_release(b, sites, r, from);
	atomic_store_explicit(&r->word, 0, memory_order_relaxed);
	hook("sites: forgotten");
	b->place = (uint16_t)p->caches.place;
}

void
bp_sites_resized(struct bufpool_buf *b)
{
	struct record *r = table_at(&records, b->number);

	atomic_store_explicit(&r->bytes, bytes_of(b), memory_order_relaxed);
}

uintptr_t
bp_sites_of(const struct bufpool_buf *b)
{
	const struct record *r = table_at(&records, b->number);

	return !sites_has(b) ? SITE_NONE : SITE_LISTED | site_of(
	    atomic_load_explicit(&r->word, memory_order_relaxed));
}

void
bp_sites_after_fork(uint32_t number)
{
	struct record *r;

	if (number >= table_used(&records))
		return;
	r = table_at(&records, number);
	/* The load comes first, so that no page of others is written to. */
	if (atomic_load_explicit(&r->word, memory_order_relaxed) != 0)
		atomic_store_explicit(&r->word, 0, memory_order_relaxed);
}

static int
make_sites(struct bufpool *p)
{
	struct site *none = NULL, *sites;

	if (atomic_load(&p->sites) != NULL)
		return 0;
	sites = bp_pages_map(SITES_BYTES);
	if (sites == NULL)
		return -1;	/* Not run: no page for sites. */
	if (!atomic_compare_exchange_strong(&p->sites, &none, sites))
		/* Seldom run: two threads begin at once. */
		bp_pages_unmap(sites, SITES_BYTES);
	return 0;
}

int
bp_sites_begin(struct bufpool *p, int detection, int sample)
{
	if (detection != BUFPOOL_LEAK_OFF && make_sites(p) != 0)
		return -1;	/* Not run: no page for sites. */
	atomic_store(&p->caches.sample, (uint32_t)sample);
	atomic_store(&p->large_left, (int64_t)caches_draw(
	    &p->caches, bp_system_random()));
	/* After the table, so that who reads this finds the table. */
	atomic_store(&p->caches.watch, (uint32_t)detection);
	return 0;
}

void
bp_sites_end(struct bufpool *p)
{
	struct site *sites = atomic_load(&p->sites);

	if (sites != NULL)
		bp_pages_unmap(sites, SITES_BYTES);
	atomic_store(&p->sites, NULL);
}

int
bufpool_detect_leaks(struct bufpool *p, int detection, int sample)
{
	struct cache *k;

	forked_check();
	if (detection < BUFPOOL_LEAK_OFF || detection > BUFPOOL_LEAK_ALL ||
	    sample < 0) {
		errno = EINVAL;
		return -1;
	}
	if (bp_sites_begin(p, detection, sample) != 0)
		return -1;	/* Not run: no page for sites. */
	for_each_cache(k, &p->caches)
		bp_cache_follow_watch(k);
	return 0;
}

struct tally {
	unsigned site;
	uint64_t buffers, bytes, gc_returns, request_returns;
	int64_t since;		/* when the oldest was checked out */
};

/* What is out of the pool by site. Only records of buffers that are out of this
 * pool bear its place, because the caller holds the pool. */
static void
tally_records(const struct bufpool *p, struct tally *t)
{
	for (uint32_t i = 0, used = table_used(&records); i < used; i++) {
		const struct record *r = table_at(&records, i);
		uint64_t word = atomic_load_explicit(&r->word,
						     memory_order_acquire);
		int64_t when = (int64_t)(word >> TIME_SHIFT);
		struct tally *mine = &t[site_of(word)];

		if (word == 0 || place_of(word) != p->caches.place)
			continue;
		if (mine->buffers == 0 || when < mine->since)
			mine->since = when;
		mine->buffers++;
		mine->bytes += atomic_load_explicit(&r->bytes,
						    memory_order_relaxed);
	}
}

static void
tally_returns(const struct site *site, struct tally *t)
{
	t->gc_returns = atomic_load(&site->gc_returns);
	t->request_returns = atomic_load(&site->request_returns);
}

int64_t
bp_sites_oldest(const struct bufpool *p)
{
	int64_t now = bp_system_now(), since = INT64_MAX;
	uint32_t used = table_used(&records);

	if (atomic_load(&p->sites) == NULL)
		return -1;
	for (uint32_t i = 0; i < used; i++) {
		const struct record *r = table_at(&records, i);
		uint64_t word = atomic_load_explicit(&r->word,
						     memory_order_relaxed);
		int64_t when = (int64_t)(word >> TIME_SHIFT);

		if (word != 0 && place_of(word) == p->caches.place &&
		    when < since)
			since = when;
	}
	return since > now ? -1 : now - since;
}

static int
by_bytes(const void *a, const void *b)
{
	const struct tally *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	if (x->gc_returns != y->gc_returns)
		return x->gc_returns < y->gc_returns ? 1 : -1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static const char *
name_of(const char *path)
{
	const char *slash = path != NULL ? strrchr(path, '/') : NULL;

	return slash != NULL ? slash + 1 : path != NULL ? path : "?";
}

/* The address is one behind the call. */
static void
describe_code(uint64_t address, char *to, size_t size)
{
	const char *at = (const char *)(uintptr_t)address - 1;
	Dl_info info;

	if (dladdr(at, &info) == 0)
		/* Not run: code without a file. */
		snprintf(to, size, "%p", (const void *)at);
	else if (info.dli_sname != NULL)
		/* Not run: no symbols in specs. */
		snprintf(to, size, "%s+0x%zx (%s)", info.dli_sname,
			 (size_t)(at - (const char *)info.dli_saddr),
			 name_of(info.dli_fname));
	else
		snprintf(to, size, "%s+0x%zx", name_of(info.dli_fname),
			 (size_t)(at - (const char *)info.dli_fbase));
}

static void
describe(const struct site *sites, const struct tally *t, int64_t now,
	 struct bufpool_site *to)
{
	const struct site *site = &sites[t->site % SITES_MAX];
	uint64_t key = atomic_load(&site->key);

	memset(to, 0, sizeof *to);
	to->buffers = t->buffers;
	to->bytes = t->bytes;
	to->gc_returns = t->gc_returns;
	to->request_returns = t->request_returns;
	if (t->buffers > 0 && t->site != SITES_MAX)
		to->oldest = (double)(now - t->since) / 1000;
	if (t->site == 0)
		strcpy(to->place, "(other places)");
	else if (t->site == SITES_MAX)
		/* Not run: no page for records. */
		strcpy(to->place, "(not recorded)");
	else if (!(key & SITE_LISTED))
		describe_code(key, to->place, sizeof to->place);
	else if (atomic_load_explicit(&site->told, memory_order_acquire))
		strcpy(to->place, site->text);
}

/* A life as its record tells it: where it began, where it ended unless `home`
 * is 0, and in which pool. */
struct life {
	struct record *record;
	uint64_t life, home, pool;
};

/*
 * The life in which a descriptor had this generation. Freezing raises that, and
 * so do tickets, but a descriptor has each generation in one life only. False
 * where that is not the last one with a record.
 *
 * `life` is read before the others and after them. Where both are equal, the
 * others are of that life: whoever writes those of a later one has written 0 to
 * `life` before, and both acquires pair with the releases of these writes.
 */
static bool
find_life(uint32_t number, uint64_t generation, struct life *to)
{
	const uint64_t all = UINT64_MAX >> HOME_SHIFT;
	struct record *r = table_at(&records, number);
	uint64_t first, end;

	if (number >= table_used(&records))
		return false;
	to->record = r;
	to->life = atomic_load_explicit(&r->life, memory_order_acquire);
	to->home = atomic_load_explicit(&r->home, memory_order_acquire);
	to->pool = atomic_load_explicit(&r->pool, memory_order_acquire);
	if (to->life == 0 || to->life !=
	    atomic_load_explicit(&r->life, memory_order_relaxed))
		return false;
	first = to->life >> PLACE_SHIFT & all;
	end = to->home >> HOME_SHIFT;
	generation &= all;
	if (end <= first)
		to->home = 0;
	return generation >= first && (to->home == 0 || generation < end);
}

uint64_t
bp_sites_life(uint32_t number, uint64_t generation)
{
	struct life l;

	return find_life(number, generation, &l) ? l.pool : 0;
}

/* Another thread may have checked the buffer out and released it since. Then
 * `home` has another generation, and the exchange fails. */
void
bp_sites_tell(struct bufpool *p, uint32_t number, uint64_t generation,
	      const char *text)
{
	struct site *sites = atomic_load(&p->sites);
	struct life l;
	uint64_t told;

	if (!find_life(number, generation, &l) ||
	    (l.home & HOME_KIND) != SITE_ASK)
		return;
	told = (l.home & ~(uint64_t)HOME_KIND) | SITE_CALLER |
	    find_text(sites + SITES_MAX, text) << HOME_BITS;
	atomic_compare_exchange_strong(&l.record->home, &l.home, told);
}

static void
describe_home(const struct site *sites, uint64_t home, char *to, size_t size)
{
	static const char *const ways[HOME_KIND + 1] = {
		[SITE_CALLER] = " at ",
		[SITE_GC] = " by the collector",
		[SITE_SCOPE] = " at the end of the request",
		[SITE_EXPIRED] = " when its ticket expired",
	};
	unsigned kind = home & HOME_KIND;
	struct tally t = { .site = home >> HOME_BITS & (SITES_MAX - 1) };
	struct bufpool_site site = { .buffers = 0 };

	if (kind == SITE_CALLER)
		describe(sites + SITES_MAX, &t, 0, &site);
	if (ways[kind] != NULL)
		snprintf(to, size, ", released%s%s", ways[kind], site.place);
}

void
bp_sites_describe(const struct bufpool *p, uint32_t number, uint64_t generation,
		  char *to, size_t size)
{
	const struct site *sites = atomic_load(&p->sites);
	struct tally t = { .buffers = 0 };
	struct bufpool_site site;
	struct life l;
	size_t n;

	to[0] = '\0';
	if (!find_life(number, generation, &l))
		return;
	t.site = site_of(l.life);
	describe(sites, &t, 0, &site);
	n = (size_t)snprintf(to, size, "checked out at %s", site.place);
	if (n < size)
		describe_home(sites, l.home, to + n, size - n);
}

/* The caller has just used the buffer, so its pool is there, unless more is
 * wrong than that. What has gone home had the generation before. */
static void
tell_origin(const struct bufpool_buf *b, char *to, size_t size)
{
	uint64_t generation = generation_of(b) - !sites_has(b);

	if (b->arena != NULL &&
	    bp_sites_life(b->number, generation) == b->arena->id)
		bp_sites_describe(pool_of(b), b->number, generation, to, size);
}

/* The caller's struct may be of an older library, and then smaller, or of a
 * newer one: what this library does not know becomes 0. */
static void
hand_over(void *to, size_t struct_size, const struct bufpool_site *site)
{
	memset(to, 0, struct_size);
	memcpy(to, site, struct_size < sizeof *site ? struct_size
	       : sizeof *site);
}

size_t
bufpool_get_sites_sized(struct bufpool *p, struct bufpool_site *to,
			size_t most, size_t struct_size)
{
	struct tally all[SITES_MAX + 1] = { { 0 } };
	struct site *sites = atomic_load(&p->sites);
	int64_t now = bp_system_now();
	size_t count = 0;

	forked_check();
	if (sites == NULL)
		return 0;
	tally_records(p, all);
	all[SITES_MAX].buffers = atomic_load(&p->unrecorded);
	for (unsigned n = 0; n <= SITES_MAX; n++) {
		all[n].site = n;
		if (n < SITES_MAX)
			tally_returns(&sites[n], &all[n]);
		if ((all[n].buffers | all[n].gc_returns |
		     all[n].request_returns) != 0)
			all[count++] = all[n];
	}
	qsort(all, count, sizeof *all, by_bytes);
	for (size_t i = 0; i < count && i < most; i++) {
		struct bufpool_site site;

		describe(sites, &all[i], now, &site);
		hand_over((char *)to + i * struct_size, struct_size, &site);
	}
	return count;
}
