#include "expiry.h"
#include "forked.h"
#include "home.h"
#include "sites.h"
#include "stack.h"
#include "system.h"
#include "table.h"
#include "ticket.h"

#define ENTRY_BITS EXPIRY_LOG
#define COUNT_BITS (TICKET_BITS - ENTRY_BITS)
#define COUNT_MASK (((uint64_t)1 << COUNT_BITS) - 1)
#define ENTRIES_MAX ((uint32_t)1 << ENTRY_BITS)
#define EXPIRE_COUNT 8	/* expired tickets that detach or adopt takes home */
#define EXPIRE_SPARE 8	/* blocks more that it may look at, in vain */

/* The part of a buffer that a ticket stands for, in bytes. */
struct ticket_range {
	size_t offset, len;
};

/*
 * An entry is in a stack of spare entries, or it belongs to the thread that has
 * popped, made or claimed it, or it is LIVE. A LIVE entry goes to the thread
 * whose exchange of the word succeeds. The fields below the word belong to the
 * thread that has the entry.
 *
 * T1, the release that makes the word LIVE, pairs with T2, the acquire of that
 * exchange, so that the adopter sees the entry, and all bytes of the buffer, as
 * they were at detach. T3, the release that pushes a spare entry, pairs with
 * T4, the acquire that pops it. spec/model/ticket.lua has these steps.
 */
struct entry {
	_Atomic uint64_t word;	/* uses << 2 | the bits below */
	struct bufpool_buf *buf;
	struct ticket_range part;
	_Atomic int64_t expires;	/* when, by bp_system_now */
	_Atomic uint32_t next;	/* in a stack: number of the next + 1, or 0 */
};

#define LIVE 1		/* in transit */
#define SHARED 2	/* a reference to a frozen buffer */
#define USE 4		/* one use, as an addend to the word */

static struct table entries;
/* Entries are popped from one of these stacks and pushed to the other; when the
 * first is empty, the two change roles. So an entry rests before it is used
 * again. */
static struct stack spare[2];
static _Atomic unsigned turn;	/* the stack that entries are popped from */

/* A Feistel network. It is its own inverse when its keys are used in reverse
 * order, so two different tickets never become the same number. */
#define ROUNDS 8
#define HALF (TICKET_BITS / 2)
#define HALF_MASK (((uint64_t)1 << HALF) - 1)
static uint64_t key[ROUNDS];

static uint64_t
mix_key(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return (x ^ x >> 32) & HALF_MASK;
}

static uint64_t
encipher_ticket(uint64_t plain)
{
	uint64_t left = plain >> HALF, right = plain & HALF_MASK;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t next = left ^ mix_key(right ^ key[i]);

		left = right;
		right = next;
	}
	return left << HALF | right;
}

static uint64_t
decipher_ticket(uint64_t ticket)
{
	uint64_t left = ticket >> HALF, right = ticket & HALF_MASK;

	for (int i = ROUNDS; i-- > 0;) {
		uint64_t before = right ^ mix_key(left ^ key[i]);

		right = left;
		left = before;
	}
	return left << HALF | right;
}

static void
draw_keys(void)
{
	for (int i = 0; i < ROUNDS; i++)
		key[i] = bp_system_random();
}

bool
bp_ticket_init(void)
{
	draw_keys();
	return bp_table_init(&entries, sizeof(struct entry), ENTRIES_MAX);
}

static void
give_entry(uint32_t n)
{
	struct entry *e = table_at(&entries, n);
	unsigned to = ~atomic_load_explicit(&turn, memory_order_relaxed) & 1;

	stack_push(&spare[to], n, &e->next);				/* T3 */
}

static int64_t
pop_entry(struct stack *from)
{
	return stack_pop(from, &entries, offsetof(struct entry, next));	/* T4 */
}

/* The number of an entry that is the caller's alone; -1 + ENOMEM. */
static int64_t
take_entry(void)
{
	unsigned from = atomic_load_explicit(&turn, memory_order_relaxed) & 1;
	int64_t n;

	hook("ticket: taking");
	n = pop_entry(&spare[from]);
	if (n >= 0)
		return n;
	n = pop_entry(&spare[!from]);
	if (n < 0)
		return bp_table_extend(&entries);
	atomic_store_explicit(&turn, !from, memory_order_relaxed);
	return n;
}

static uint64_t
number_of(uint32_t n, uint64_t word)
{
	return encipher_ticket((word / USE & COUNT_MASK) << ENTRY_BITS | n);
}

/* Raises the entry's count until the ticket is not 0, which means failure. */
static uint64_t
next_number(struct entry *e, uint32_t n)
{
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
	uint64_t ticket;

	do
		word += USE;
	while ((ticket = number_of(n, word)) == 0);
	atomic_store_explicit(&e->word, word, memory_order_relaxed);
	return ticket;
}

/* Puts b in transit. It is FROZEN already, so nobody can take it out of that
 * state but by the ticket. */
static uint64_t
issue_ticket(struct bufpool_buf *b, uint32_t n, struct ticket_range part,
	     unsigned kind)
{
	struct entry *e = table_at(&entries, n);
	struct bufpool *p = pool_of(b);
	uint64_t ticket = next_number(e, n);
	int64_t expires = p->ticket_ttl ? bp_system_now() + p->ticket_ttl
					: EXPIRY_NEVER;
	uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);

	e->buf = b;
	e->part = part;
	atomic_store_explicit(&e->expires, expires, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->in_transit, 1, memory_order_relaxed);
	hook("ticket: taken");
	atomic_store_explicit(&e->word, word + LIVE + kind,
			      memory_order_release);		/* T1 */
	if (expires != EXPIRY_NEVER)
		bp_expiry_expect(n, expires);
	return ticket;
}

uint64_t
bufpool_detach(struct bufpool_buf *b)
{
	int64_t n;

	forked_check();
	bp_ticket_expire(bp_system_now(), EXPIRE_COUNT);
	n = take_entry();
	if (n < 0)
		return 0;
	buf_freeze(b, "detach");
	return issue_ticket(b, (uint32_t)n, (struct ticket_range){ 0, b->len },
			    0);
}

uint64_t
bufpool_share_range(struct bufpool_frozen *f, size_t offset, size_t len)
{
	struct bufpool_buf *b = (struct bufpool_buf *)f;
	int64_t n;

	if (offset > b->len || len > b->len - offset) {
		errno = EINVAL;
		return 0;
	}
	forked_check();
	bp_ticket_expire(bp_system_now(), EXPIRE_COUNT);
	n = take_entry();
	return n < 0 ? 0 : issue_ticket(b, (uint32_t)n,
					(struct ticket_range){ offset, len },
					SHARED);
}

uint64_t
bufpool_share(struct bufpool_frozen *f)
{
	const struct bufpool_buf *b = (const struct bufpool_buf *)f;

	return bufpool_share_range(f, 0, b->len);
}

/* The number of the entry of a ticket that is in transit, and the entry's word.
 * -1 + ESTALE for a ticket that was adopted or has expired, ENOENT for one that
 * this process has not issued. T5, the acquire, pairs with T1, so that
 * `expires` belongs to this use of the entry; if it belongs to a later use,
 * claim_entry finds that the word has changed. */
static int64_t
find_entry(uint64_t ticket, int64_t now, uint64_t *word)
{
	uint64_t plain = decipher_ticket(ticket);
	uint32_t n = (uint32_t)plain & (ENTRIES_MAX - 1);
	uint64_t ago;
	struct entry *e;

	errno = ENOENT;
	if (ticket >> TICKET_BITS != 0 || n >= table_used(&entries))
		return -1;
	e = table_at(&entries, n);
	*word = atomic_load_explicit(&e->word, memory_order_acquire);	/* T5 */
	hook("ticket: found");
	ago = (*word / USE - (plain >> ENTRY_BITS)) & COUNT_MASK;
	if (ago == 0 && *word & LIVE && now <
	    atomic_load_explicit(&e->expires, memory_order_relaxed))
		return n;
	if (ago < *word / USE)
		errno = ESTALE;
	return -1;
}

/* Of several threads that claim a LIVE entry, one succeeds. */
static bool
claim_entry(struct entry *e, uint64_t word)
{
	return atomic_compare_exchange_strong_explicit(
	    &e->word, &word, word & ~(uint64_t)(USE - 1), memory_order_acquire,
	    memory_order_relaxed);				/* T2 */
}

/* Takes out what a claimed entry holds, and makes the entry spare. */
static struct bufpool_buf *
take_out(uint32_t n, struct ticket_range *part)
{
	struct entry *e = table_at(&entries, n);
	struct bufpool_buf *b = e->buf;

	*part = e->part;
	atomic_fetch_sub_explicit(&pool_of(b)->in_transit, 1,
				  memory_order_relaxed);
	hook("ticket: claimed");
	give_entry(n);
	return b;
}

int
bufpool_adopt_range(uint64_t ticket, struct bufpool_buf **buf,
		    struct bufpool_frozen **frozen, size_t *offset, size_t *len)
{
	int64_t now = bp_system_now();
	struct ticket_range part;
	struct bufpool_buf *b;
	uint64_t word;
	int64_t n;

	*buf = NULL;
	*frozen = NULL;
	forked_check();
	bp_ticket_expire(now, EXPIRE_COUNT);
	n = find_entry(ticket, now, &word);
	if (n < 0)
		return -1;
	if (!claim_entry(table_at(&entries, (uint32_t)n), word)) {
		errno = ESTALE;
		return -1;
	}
	b = take_out((uint32_t)n, &part);
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

/* Holds the pool, because the buffer's reference may be its last. */
static void
go_home(uint32_t n)
{
	struct ticket_range part;
	struct bufpool_buf *b = take_out(n, &part);
	struct bufpool *p = pool_of(b);

	if (!buf_unref(b))
		return;
	arena_ref(&p->arena);
	buf_changed(b);
	bp_home_uncached(b, SITE_EXPIRED);
	bp_arena_drop(&p->arena);
}

/* Takes home what expired tickets of a block stand for, `most` at most; returns
 * how many. The block is put back before that, because going home may take
 * long. */
static size_t
expire_block(uint32_t block, int64_t now, size_t most)
{
	uint32_t gone[EXPIRY_BLOCK];
	int64_t next = EXPIRY_NEVER;
	size_t count = 0;

	for (uint32_t i = 0; i < EXPIRY_BLOCK; i++) {
		struct entry *e = table_at(&entries, block * EXPIRY_BLOCK + i);
		uint64_t word = atomic_load(&e->word);
		int64_t expires = atomic_load(&e->expires);

		hook("ticket: looked at");
		if ((word & LIVE) == 0)
			continue;
		if (expires <= now && count < most && claim_entry(e, word))
			gone[count++] = block * EXPIRY_BLOCK + i;
		else if (expires < next)
			next = expires;
	}
	bp_expiry_put_back(block, next, now);
	for (size_t i = 0; i < count; i++)
		go_home(gone[i]);
	return count;
}

void
bp_ticket_expire(int64_t now, size_t most)
{
	size_t looks = most < SIZE_MAX - EXPIRE_SPARE ? most + EXPIRE_SPARE
						      : SIZE_MAX;
	int saved = errno;

	for (; most > 0 && looks > 0 && bp_expiry_next() <= now; looks--) {
		int64_t block = bp_expiry_take(now);

		hook("ticket: expiring");
		if (block >= 0)
			most -= expire_block((uint32_t)block, now, most);
	}
	errno = saved;
}

/* Every entry that is not LIVE becomes spare, also one that another thread of
 * the parent was just using. */
void
bp_ticket_after_fork(void)
{
	draw_keys();
	atomic_store(&spare[0].head, 0);
	atomic_store(&spare[1].head, 0);
	for (uint32_t n = 0; n < table_used(&entries); n++) {
		struct entry *e = table_at(&entries, n);

		if ((atomic_load(&e->word) & LIVE) == 0) {
			give_entry(n);
			continue;
		}
		atomic_fetch_add(&pool_of(e->buf)->in_transit, 1);
		atomic_store(&e->expires, 0);
		bp_expiry_expect(n, 0);
	}
}
