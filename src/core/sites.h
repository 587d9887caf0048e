/*
 * sites - leak detection: where the buffers were checked out that are out now.
 *
 * A SITE is where a program checks buffers out. Each pool that looks has a
 * table of SITES_MAX sites, and another for places of release. Sites are never
 * taken out; what finds no room counts for site 0. A site is known by a key:
 * an address of code, or a hash of the text that Lua gives, with the highest
 * bit set.
 *
 * A RECORD says at which site, and when, a buffer was checked out. Records are
 * in a table of their own by the descriptor's number, which is never unmapped.
 * A buffer with a record bears PLACE_WATCHED as its pool's place, and names no
 * shelf: so no thread finds a cache for it, and the fast ways of a release,
 * which look for one anyway, leave it to the slow way. That takes the record
 * away, and gives the buffer its pool's place again. So a release without a
 * record pays nothing, and every release of a buffer with one is seen, whatever
 * the pool is set to by then.
 *
 * Record and place belong to whoever has the buffer: the thread that checks it
 * out writes them before the program has it, the thread that takes it home
 * takes them away after the state is CACHED and before anyone else can get the
 * buffer. Freezing and tickets leave both alone, growth all but the record's
 * bytes. Others only read records, one word at a time, except that
 * bp_sites_tell adds the place of a release later, by an exchange. A record
 * holds nothing: the pool that it names by its place exists, because the
 * buffer that is out holds it.
 *
 * Where a buffer with a record was released is known, too, until its descriptor
 * has another record, and is for messages only. Code of Lua is asked for the
 * place after the release: so a release without a record asks nothing, and no
 * Lua state is handed down to here.
 *
 * Whether a checkout is recorded is decided in its slow path. A shelf that is
 * WATCHED sends its checkouts there: see cache.h.
 */
#ifndef BUFPOOL_SITES_H
#define BUFPOOL_SITES_H

#include "pool.h"

/* Where a checkout or a release comes from: the address of code that the call
 * returns to, a listed site, or one of these. */
#define SITE_NONE 0	/* not to be recorded, or not known */
#define SITE_ASK 1	/* to be told: the checkout fails with ESITE where it
			 * would be recorded, and a release returns ESITE */
#define SITE_CALLER 2	/* what site_now is for; in `home` of a record, a site
			 * by its number */
#define SITE_GC 3	/* releases only: a Lua collector, */
#define SITE_SCOPE 4	/* the end of a request, */
#define SITE_EXPIRED 5	/* the time of a ticket */
#define SITE_LISTED ((uintptr_t)1 << 63)	/* and the number of the site */

#define ESITE ENOANO	/* which nothing else here sets */

/* The site of the public function that this is inlined into. It is read where
 * it is needed and not sooner, because the fast path does not need it. */
static inline __attribute__((always_inline)) uintptr_t
site_now(uintptr_t site)
{
	return site == SITE_CALLER ? (uintptr_t)__builtin_return_address(0)
				   : site;
}

bool bp_sites_init(void);	/* once, before any other thread */

/* Sets what is recorded from now on. -1 + ENOMEM. */
int bp_sites_begin(struct bufpool *p, int detection, int sample);
/* Nobody holds the pool. */
void bp_sites_end(struct bufpool *p);

/* The listed site of a text, without control characters, of the first
 * BUFPOOL_PLACE_MAX - 1 bytes. The caller holds the pool. */
uintptr_t bp_sites_list(struct bufpool *p, const char *text);

/* Whether a checkout from this shelf is to be recorded; s is NULL for a thread
 * without a cache. For "sampled" the answer takes the sample: asked again, it
 * is no. The owner of the shelf only. */
bool bp_sites_wants(struct bufpool *p, struct bufpool_shelf *s, uintptr_t site);
/* The same above the classes. Each call counts as a checkout. */
bool bp_sites_wants_large(struct bufpool *p, uintptr_t site);

/* Takes one off `left`, which counts down to the next sample, and says whether
 * this is that sample. Any thread that holds the pool. */
bool bp_sites_count_down(struct bufpool *p, _Atomic int64_t *left);

/* Where the pool verifies: aborts unless the buffer's memory is all zero. It is
 * the caller's, was used before, and has no record yet. */
void bp_sites_verify(const struct bufpool *p, const struct bufpool_buf *b);

/* Records a buffer that is the caller's: CACHED and about to be OUT, or OUT and
 * not known to the program yet. */
void bp_sites_record(struct bufpool *p, struct bufpool_buf *b, uintptr_t site);

/* How many milliseconds ago the oldest recorded buffer of the pool was checked
 * out that is out now; -1 where none is. Reads the record of every buffer of
 * the process. Any thread that holds the pool. */
int64_t bp_sites_oldest(const struct bufpool *p);

/* The listed site where a buffer was checked out that the caller has, for
 * another one that is made from it; SITE_NONE where that was not recorded. */
uintptr_t bp_sites_of(const struct bufpool_buf *b);

/* What sites_forget and sites_resized do to a buffer with a record. */
void bp_sites_forget(struct bufpool_buf *b, uintptr_t from);
void bp_sites_resized(struct bufpool_buf *b);

static inline bool
sites_has(const struct bufpool_buf *b)
{
	return __builtin_expect(b->place == PLACE_WATCHED, 0);
}

/* Takes the record away, and notes where the release comes from. The caller
 * takes the buffer home: it is CACHED. */
static inline void
sites_forget(struct bufpool_buf *b, uintptr_t from)
{
	if (sites_has(b))
		bp_sites_forget(b, from);
}

/* The buffer has got memory of another size. */
static inline void
sites_resized(struct bufpool_buf *b)
{
	if (sites_has(b))
		bp_sites_resized(b);
}

/* `to` has what b had, and is what the program knows from now on. */
static inline void
sites_move(struct bufpool_buf *to, const struct bufpool_buf *b)
{
	if (sites_has(b))
		bp_sites_record(pool_of(b), to, bp_sites_of(b));
}

/* Of a buffer that was checked out with a record: the id of its pool, which may
 * be gone; 0 where none is known. For the number of any descriptor below the
 * limit, and any generation that it had before it came home. */
uint64_t bp_sites_life(uint32_t number, uint64_t generation);

/* Notes where it was released, after a release that has asked for that: a text
 * as for bp_sites_list. The caller holds the pool of that id. */
void bp_sites_tell(struct bufpool *p, uint32_t number, uint64_t generation,
		   const char *text);

/* Writes "checked out at PLACE", and where it was released, if that is known.
 * Writes "" where nothing is. The caller holds the pool of that id. */
void bp_sites_describe(const struct bufpool *p, uint32_t number,
		       uint64_t generation, char *to, size_t size);

/* In a fork child, of the number of a buffer that is not out: it has no record,
 * also where another thread of the parent was just taking or releasing it. */
void bp_sites_after_fork(uint32_t number);

#endif
