#include "home.h"
#include "system.h"
#include "table.h"
#include "ticket.h"

#define ENTRY_BITS 20
#define COUNT_BITS (TICKET_BITS - ENTRY_BITS)
#define COUNT_MASK (((uint64_t)1 << COUNT_BITS) - 1)
#define ENTRIES_MAX ((uint32_t)1 << ENTRY_BITS)
#define PROBES 8	/* entries in use that are passed before a new one */
#define NEVER INT64_MAX

/*
 * The word decides who has an entry: nobody; one thread, from TAKEN on; and
 * when it is LIVE, whoever exchanges it first. The fields below it belong to
 * the thread that has the entry.
 *
 * T1, the release with which the word becomes LIVE, pairs with T2, the acquire
 * with which it is exchanged: so the adopter sees the entry, and all bytes of
 * the buffer, as they were at detach. T3, the release with which the entry is
 * given up, pairs with T4, the acquire with which it is taken again.
 */
struct entry {
	_Atomic uint64_t word;	/* uses << 3 | the bits below */
	struct bufpool_buf *buf;
	struct ticket_range part;	/* of a frozen buffer */
	_Atomic int64_t expires;	/* when, by system_now */
};

#define TAKEN 1		/* one thread has the entry */
#define LIVE 2		/* in transit */
#define SHARED 4	/* a reference to a frozen buffer */
#define USE 8		/* one use, as an addend to the word */

static struct table entries;
static _Atomic uint32_t cursor;
static _Atomic int64_t next_expiry;	/* nothing expires before */

/* A network of Feistel's, which is its own inverse but for the order of its
 * keys, so that different tickets stay different. */
#define ROUNDS 8
#define HALF (TICKET_BITS / 2)
#define HALF_MASK (((uint64_t)1 << HALF) - 1)
static uint64_t key[ROUNDS];

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return (x ^ x >> 32) & HALF_MASK;
}

static uint64_t
encipher(uint64_t plain)
{
	uint64_t left = plain >> HALF, right = plain & HALF_MASK;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t next = left ^ mix(right ^ key[i]);

		left = right;
		right = next;
	}
	return left << HALF | right;
}

static uint64_t
decipher(uint64_t ticket)
{
	uint64_t left = ticket >> HALF, right = ticket & HALF_MASK;

	for (int i = ROUNDS; i-- > 0;) {
		uint64_t before = right ^ mix(left ^ key[i]);

		right = left;
		left = before;
	}
	return left << HALF | right;
}

static void
draw_keys(void)
{
	for (int i = 0; i < ROUNDS; i++)
		key[i] = system_random();
}

bool
ticket_init(void)
{
	draw_keys();
	atomic_store(&next_expiry, NEVER);
	return table_init(&entries, sizeof(struct entry), ENTRIES_MAX);
}

/* Moves an entry that is in none of the states of `busy` to TAKEN, one use
 * later. */
static bool
try_take(struct entry *e)
{
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);

	return (word & (TAKEN | LIVE)) == 0 &&
	    atomic_compare_exchange_strong_explicit(
		&e->word, &word, (word & ~(uint64_t)(USE - 1)) + USE + TAKEN,
		memory_order_acquire, memory_order_relaxed);	/* T4 */
}

/* The cursor goes round, so that an entry rests before it is used again. */
static int64_t
probe(uint32_t count, uint32_t used)
{
	for (uint32_t i = 0; i < count && i < used; i++) {
		uint32_t n = atomic_fetch_add_explicit(
		    &cursor, 1, memory_order_relaxed) % used;

		if (try_take(table_at(&entries, n)))
			return n;
	}
	return -1;
}

/* The number of an entry that is the caller's alone; -1 + ENOMEM. */
static int64_t
take_entry(void)
{
	int64_t n = probe(PROBES, table_used(&entries));

	while (n < 0) {
		n = table_extend(&entries);
		if (n < 0)
			return probe(UINT32_MAX, table_used(&entries));
		if (!try_take(table_at(&entries, (uint32_t)n)))
			n = -1;
	}
	return n;
}

static void
give_entry(struct entry *e)
{
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);

	atomic_store_explicit(&e->word, word & ~(uint64_t)(USE - 1),
			      memory_order_release);		/* T3 */
}

static void
expect_expiry(int64_t at)
{
	int64_t next = atomic_load(&next_expiry);

	while (at < next &&
	       !atomic_compare_exchange_weak(&next_expiry, &next, at))
		;
}

static uint64_t
number_of(uint32_t n, uint64_t word)
{
	return encipher((word / USE & COUNT_MASK) << ENTRY_BITS | n);
}

/* The next use of the entry whose number is not 0, which means failure. */
static uint64_t
next_number(struct entry *e, uint32_t n)
{
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
	uint64_t ticket = number_of(n, word);

	if (ticket == 0) {
		word += USE;
		atomic_store_explicit(&e->word, word, memory_order_relaxed);
		ticket = number_of(n, word);
	}
	return ticket;
}

/* Puts b in transit, in a state that nobody can take it from but by the
 * ticket. */
static uint64_t
issue(struct bufpool_buf *b, uint32_t n, struct ticket_range part,
      unsigned kind)
{
	struct entry *e = table_at(&entries, n);
	struct bufpool *p = pool_of(b);
	uint64_t ticket = next_number(e, n);
	int64_t expires = p->ticket_ttl ? system_now() + p->ticket_ttl : NEVER;
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);

	e->buf = b;
	e->part = part;
	atomic_store_explicit(&e->expires, expires, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->in_transit, 1, memory_order_relaxed);
	hook("ticket: taken");
	atomic_store_explicit(&e->word, word - TAKEN + LIVE + kind,
			      memory_order_release);		/* T1 */
	if (expires != NEVER)
		expect_expiry(expires);
	return ticket;
}

uint64_t
bufpool_detach(struct bufpool_buf *b)
{
	int64_t n;

	ticket_expire(system_now(), PROBES);
	n = take_entry();
	if (n < 0)
		return 0;
	buf_freeze(b, "detach");
	return issue(b, (uint32_t)n, (struct ticket_range){ 0, b->len }, 0);
}

uint64_t
ticket_share(struct bufpool_frozen *f, struct ticket_range part)
{
	struct bufpool_buf *b = (struct bufpool_buf *)f;
	int64_t n;

	ticket_expire(system_now(), PROBES);
	n = take_entry();
	return n < 0 ? 0 : issue(b, (uint32_t)n, part, SHARED);
}

uint64_t
bufpool_share(struct bufpool_frozen *f)
{
	const struct bufpool_buf *b = (const struct bufpool_buf *)f;

	return ticket_share(f, (struct ticket_range){ 0, b->len });
}

/* The entry of a ticket that is in transit, and its word. NULL + ESTALE for one
 * that was, or has expired, ENOENT for one that this process has not issued.
 * T5, the acquire, pairs with T1: so `expires` is that of this use, or, when
 * the entry has gone on to a later one, claim() will find another word. */
static struct entry *
find(uint64_t ticket, int64_t now, uint64_t *word)
{
	uint64_t plain = decipher(ticket);
	uint32_t n = (uint32_t)plain & (ENTRIES_MAX - 1);
	uint64_t ago;
	struct entry *e;

	errno = ENOENT;
	if (ticket >> TICKET_BITS != 0 || n >= table_used(&entries))
		return NULL;
	e = table_at(&entries, n);
	*word = atomic_load_explicit(&e->word, memory_order_acquire);	/* T5 */
	hook("ticket: found");
	ago = (*word / USE - (plain >> ENTRY_BITS)) & COUNT_MASK;
	if (ago == 0 && *word & LIVE && now <
	    atomic_load_explicit(&e->expires, memory_order_relaxed))
		return e;
	if (plain >> ENTRY_BITS != 0 && ago < *word / USE)
		errno = ESTALE;
	return NULL;
}

enum ticket_kind
ticket_kind(uint64_t ticket)
{
	uint64_t word;

	if (find(ticket, system_now(), &word) == NULL)
		return TICKET_NONE;
	return word & SHARED ? TICKET_FROZEN : TICKET_BUF;
}

/* Of those who want what is LIVE one gets it. */
static bool
claim(struct entry *e, uint64_t word)
{
	return atomic_compare_exchange_strong_explicit(
	    &e->word, &word, word - LIVE + TAKEN, memory_order_acquire,
	    memory_order_relaxed);				/* T2 */
}

/* What a claimed entry holds. The entry is free after this. */
static struct bufpool_buf *
take_out(struct entry *e, struct ticket_range *part)
{
	struct bufpool_buf *b = e->buf;

	*part = e->part;
	atomic_fetch_sub_explicit(&pool_of(b)->in_transit, 1,
				  memory_order_relaxed);
	hook("ticket: claimed");
	give_entry(e);
	return b;
}

int
bufpool_adopt_range(uint64_t ticket, struct bufpool_buf **buf,
		    struct bufpool_frozen **frozen, size_t *offset, size_t *len)
{
	int64_t now = system_now();
	struct ticket_range part;
	struct bufpool_buf *b;
	struct entry *e;
	uint64_t word;

	*buf = NULL;
	*frozen = NULL;
	ticket_expire(now, PROBES);
	e = find(ticket, now, &word);
	if (e == NULL)
		return -1;
	if (!claim(e, word)) {
		errno = ESTALE;
		return -1;
	}
	b = take_out(e, &part);
	*offset = part.offset;
	*len = part.len;
	if (word & SHARED)
		*frozen = (struct bufpool_frozen *)b;
	else {
		buf_turn(b, BUF_FROZEN, BUF_OUT, 0, "adopt");
		*buf = b;
	}
	return 0;
}

int
bufpool_adopt(uint64_t ticket, struct bufpool_buf **buf,
	      struct bufpool_frozen **frozen)
{
	size_t offset, len;

	return bufpool_adopt_range(ticket, buf, frozen, &offset, &len);
}

/* The pool may have no other reference than that of the ticket's buffer. */
static void
go_home(struct entry *e)
{
	struct ticket_range part;
	struct bufpool_buf *b = take_out(e, &part);
	struct bufpool *p = pool_of(b);

	if (!buf_unref(b))
		return;
	arena_ref(&p->arena);
	buf_changed(b);
	home_uncached(b, false);
	arena_drop(&p->arena);
}

/*
 * Whoever comes first after next_expiry looks at all entries, the others see
 * NEVER. A ticket that is issued meanwhile is expected by its issuer, one that
 * stays by this.
 */
void
ticket_expire(int64_t now, size_t most)
{
	int64_t at = atomic_load_explicit(&next_expiry, memory_order_relaxed);
	int64_t next = NEVER;
	int saved = errno;

	if (now < at ||
	    !atomic_compare_exchange_strong(&next_expiry, &at, NEVER))
		return;
	hook("ticket: expiring");
	for (uint32_t n = 0; n < table_used(&entries); n++) {
		struct entry *e = table_at(&entries, n);
		uint64_t word = atomic_load(&e->word);
		int64_t expires = atomic_load(&e->expires);

		if ((word & LIVE) == 0)
			continue;
		if (expires <= now && most > 0 && claim(e, word)) {
			most--;
			go_home(e);
		} else if (expires < next)
			next = expires;
	}
	expect_expiry(next);
	errno = saved;
}

void
ticket_after_fork(void)
{
	draw_keys();
	for (uint32_t n = 0; n < table_used(&entries); n++) {
		struct entry *e = table_at(&entries, n);

		if ((atomic_load(&e->word) & LIVE) == 0)
			continue;
		atomic_fetch_add(&pool_of(e->buf)->in_transit, 1);
		atomic_store(&e->expires, 0);
	}
	atomic_store(&next_expiry, 0);
}
