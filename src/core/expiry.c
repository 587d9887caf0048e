#include <stdatomic.h>

#include "expiry.h"
#include "hook.h"

#define FAN_LOG 6
#define FAN ((uint32_t)1 << FAN_LOG)
#define LEVELS 4

_Static_assert(FAN == EXPIRY_BLOCK, "a word stands for as many at each level");

/* Each word holds EXPIRY_NEVER minus the time, so that 0 means that nothing is
 * expected. So the words need no initialisation, and cost no memory until they
 * are used. */
static _Atomic int64_t blocks[1 << (EXPIRY_LOG - FAN_LOG)];
static _Atomic int64_t groups[1 << (EXPIRY_LOG - 2 * FAN_LOG)];
static _Atomic int64_t parts[1 << (EXPIRY_LOG - 3 * FAN_LOG)];
static _Atomic int64_t all[1];

static struct {
	_Atomic int64_t *word;
	uint32_t count;
} const level[LEVELS] = {
	{ blocks, sizeof blocks / sizeof *blocks },
	{ groups, sizeof groups / sizeof *groups },
	{ parts, sizeof parts / sizeof *parts },
	{ all, 1 },
};

static int64_t
block_expected(unsigned l, uint32_t i)
{
	hook("expiry: looked at a word");
	return EXPIRY_NEVER - atomic_load(&level[l].word[i]);
}

static void
lower_time(unsigned l, uint32_t i, int64_t at)
{
	int64_t is = atomic_load(&level[l].word[i]);

	while (EXPIRY_NEVER - is > at &&
	       !atomic_compare_exchange_weak(&level[l].word[i], &is,
					     EXPIRY_NEVER - at))
		;
}

/*
 * Whoever lowers a word lowers those above it, bottom up. Whoever raises one
 * stores EXPIRY_NEVER, reads what is below, and lowers it to that. All of it is
 * sequentially consistent: either the one who raises reads what another has
 * lowered below, or the other finds EXPIRY_NEVER above, and lowers that. A word
 * that is low enough does not end the way up: those above it may just be
 * raised. spec/model/expiry.lua has these steps.
 */
static void
expect_block(unsigned l, uint32_t i, int64_t at)
{
	for (; l < LEVELS; l++, i >>= FAN_LOG)
		lower_time(l, i, at);
}

/* The fence stands between what the caller has stored and the loads here: see
 * bp_expiry_take. */
void
bp_expiry_expect(uint32_t number, int64_t at)
{
	atomic_thread_fence(memory_order_seq_cst);
	expect_block(0, number >> FAN_LOG, at);
}

int64_t
bp_expiry_next(void)
{
	return EXPIRY_NEVER - atomic_load_explicit(all, memory_order_relaxed);
}

/* The children of a word: `end` is one past the last. */
static uint32_t
block_children(unsigned l, uint32_t i, uint32_t *end)
{
	uint32_t first = i << FAN_LOG;

	*end = first + FAN < level[l - 1].count ? first + FAN
						: level[l - 1].count;
	return first;
}

static void
raise_word(unsigned l, uint32_t i)
{
	int64_t earliest = EXPIRY_NEVER;
	uint32_t end, child = block_children(l, i, &end);

	atomic_exchange(&level[l].word[i], 0);
	hook("expiry: raising");
	for (; child < end; child++) {
		int64_t at = block_expected(l - 1, child);

		if (at < earliest)
			earliest = at;
	}
	expect_block(l, i, earliest);
}

static int64_t
due_child(unsigned l, uint32_t i, int64_t now)
{
	uint32_t end, child = block_children(l, i, &end);

	for (; child < end; child++)
		if (block_expected(l - 1, child) <= now)
			return child;
	return -1;
}

/* The exchange comes before the caller looks at the numbers. So either the
 * caller finds the time that another thread has just stored, or that thread,
 * after its fence, finds that nothing is expected in the block, and lowers the
 * word again. */
int64_t
bp_expiry_take(int64_t now)
{
	uint32_t i = 0;

	for (unsigned l = LEVELS - 1; l > 0; l--) {
		int64_t child = due_child(l, i, now);

		if (child < 0) {
			raise_word(l, i);
			return -1;
		}
		i = (uint32_t)child;
	}
	atomic_exchange(&blocks[i], 0);
	return i;
}

/* Stops raising at a word that is still due, because those above it are due,
 * too. */
void
bp_expiry_put_back(uint32_t block, int64_t next, int64_t now)
{
	uint32_t i = block;

	expect_block(0, block, next);
	for (unsigned l = 1; l < LEVELS && block_expected(l - 1,
							  i) > now; l++) {
		i >>= FAN_LOG;
		raise_word(l, i);
	}
}
