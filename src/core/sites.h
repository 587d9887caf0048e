/*
 * sites - leak detection: where the buffers were checked out that are out now.
 *
 * A SITE is where a program checks buffers out. Each pool that looks has a
 * table of SITES_MAX sites, which are never taken out of it; what finds no room
 * counts for site 0. A site is known by a key: an address of code, or a hash
 * of the text that Lua gives, with the highest bit set.
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
 * out writes them before the state is OUT, the thread that takes it home takes
 * them away after the state is CACHED and before anyone else can get the
 * buffer. Freezing, tickets and growth leave both alone. Others only read
 * records, one word at a time. A record holds nothing: the pool that it names
 * by its place exists, because the buffer that is out holds it.
 *
 * Which checkouts are recorded is decided in the slow path of a checkout, to
 * which a shelf sends it that is WATCHED: see cache.h.
 */
#ifndef BUFPOOL_SITES_H
#define BUFPOOL_SITES_H

#include "pool.h"

/* Where a checkout comes from: the address of code that the call returns to, a
 * listed site, or one of the first two. */
#define SITE_NONE 0	/* not to be recorded */
#define SITE_ASK 1	/* to be listed first: the checkout fails with ESITE
			 * where it would be recorded */
#define SITE_CALLER 2	/* in checkout.c only: its caller, not yet read */
#define SITE_LISTED ((uintptr_t)1 << 63)	/* and the number of the site */

#define ESITE ENOANO	/* which nothing else here sets */

bool bp_sites_init(void);	/* once, before any other thread */

/* Sets what is recorded from now on. -1 + ENOMEM. */
int bp_sites_begin(struct bufpool *p, int detection, int sample);
/* Nobody holds the pool. */
void bp_sites_end(struct bufpool *p);

/* The listed site of a text, without control characters, of the first
 * BUFPOOL_PLACE_MAX - 1 bytes. The caller holds the pool. */
uintptr_t bp_sites_list(struct bufpool *p, const char *text);

/* Whether a checkout from this shelf is to be recorded; s is NULL for a thread
 * without a cache. The owner of the shelf only. */
bool bp_sites_wants(struct bufpool *p, struct bufpool_shelf *s, uintptr_t site);
/* The same above the classes. */
bool bp_sites_wants_large(struct bufpool *p, uintptr_t site);

/* Where the pool verifies: aborts unless the buffer's memory is all zero. It is
 * the caller's, was used before, and has no record yet. */
void bp_sites_verify(const struct bufpool *p, const struct bufpool_buf *b);

/* Records a buffer that is CACHED, the caller's, and about to be OUT. */
void bp_sites_record(struct bufpool *p, struct bufpool_buf *b, uintptr_t site);

/* The listed site where a buffer was checked out that the caller has, for
 * another one that is made from it; SITE_NONE where that was not recorded. */
uintptr_t bp_sites_of(const struct bufpool_buf *b);

/* What sites_forget and sites_resized do to a buffer with a record. */
void bp_sites_forget(struct bufpool_buf *b, bool by_gc);
void bp_sites_resized(struct bufpool_buf *b);

static inline bool
sites_has(const struct bufpool_buf *b)
{
	return __builtin_expect(b->place == PLACE_WATCHED, 0);
}

/* Takes the record away. The caller takes the buffer home: it is CACHED. */
static inline void
sites_forget(struct bufpool_buf *b, bool by_gc)
{
	if (sites_has(b))
		bp_sites_forget(b, by_gc);
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
 * be gone, and what bp_sites_describe needs; 0 where none is known. For the
 * number of any descriptor below the limit, and its generation when it was
 * out. */
uint64_t bp_sites_life(uint32_t number, uint64_t generation, uint64_t *life);

/* Writes the place of that site. The caller holds the pool of that id. */
void bp_sites_describe(const struct bufpool *p, uint64_t life, char *to,
		       size_t size);

/* Writes where a buffer with memory was last checked out, be it out or not.
 * False when that was not recorded. */
bool bp_sites_last(const struct bufpool_buf *b, char *to, size_t size);

/* In a fork child: a buffer that another thread of the parent was just taking
 * or releasing is not out, and has no record. */
void bp_sites_after_fork(const struct bufpool_buf *b);

#endif
