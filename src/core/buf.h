/*
 * buf - the descriptor of a buffer: where its memory is, what is in it, who
 * has it.
 *
 * Descriptors live apart from the memory they describe, in a table that is
 * never unmapped, and are reused. So it is always safe to read through a stale
 * pointer to a descriptor, and the descriptor's word shows that it is stale.
 *
 *      base         at                    at+len      at+mark   at+capacity
 *       |  consumed  |      contents        |   dirty   |   zero    |
 *       +------------+----------------------+-----------+-----------+
 *
 * Everything is counted from `at`, which is position 1 in Lua. What lies before
 * it was consumed, or is headroom for what is prepended. Bytes at and past
 * at+mark are zero; release wipes [base, at+mark). The mark may be below or
 * above len: a fresh checkout(n) has len n and mark 0.
 *
 * The word holds the state in its low bits and, above them, a generation that
 * every release raises. The turn from OUT to any other state is one atomic
 * operation, so that of two threads that try it only one finds OUT. (The
 * exception is settle_before of release.c, in a fork child.)
 *
 * The epoch is for Lua, where a finalizer of the same program may change the
 * buffer between two reads, because reading a field can allocate and an
 * allocation can run a finalizer. Whatever moves the contents, changes their
 * length or takes the buffer away changes its epoch. So Lua reads the epoch
 * first and compares it last: if it is equal, what was read in between still
 * holds, and as comparing allocates nothing, no finalizer comes after it. (The
 * mark may rise without a new epoch: then more is wiped.)
 */
#ifndef BUFPOOL_BUF_H
#define BUFPOOL_BUF_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bufpool.h"
#include "hook.h"
#include "layout.h"
#include "sanitize.h"
#include "stack.h"
#include "wipe.h"

/* LuaJIT parses what stands between the two marker lines (less _Atomic). */
/* ffi: begin */
struct bufpool_buf {
	_Atomic uint64_t word;	/* generation << 3 | state */
	uint8_t *at;		/* first byte of the contents */
	size_t len;		/* bytes of contents */
	size_t capacity;	/* bytes from at to the end of the memory */
	size_t mark;		/* bytes from at past which all is zero */
	union {
		struct bufpool_shelf *shelf;	/* where a release by the
						 * shelf's owner puts it */
		int32_t batch[2];	/* READY: see depot.c */
	};
	uint16_t place;		/* of the pool, in each thread's caches */
	uint8_t class;		/* index of the class, or CLASS_LARGE, _NONE */
	uint8_t node;		/* of the memory; 0 where nodes do not matter */
	uint8_t huge;		/* its memory is of a span of huge pages */
	uint8_t batched;	/* buffers of the batch that it heads, or 1 */
	uint8_t guarded;	/* its memory is a mapping of guard.c */
	uint8_t unused;
	int32_t epoch;		/* see above */
	union {
		uint32_t flags;	/* all four; where 0, a release has nothing of
				 * them to reset */
		struct {
			uint8_t raw;	/* someone may hold a raw pointer: all
					 * bytes of the contents may be dirty */
			uint8_t granted;	/* grant holds */
			uint8_t align;	/* alignment asked for: 1 << align */
			uint8_t consumed;	/* at may be past base */
		};
	};
	/* second cache line: not written by the fast paths */
	uint8_t *base;		/* first byte of the memory; NULL: none */
	struct bufpool_arena *arena;	/* whose memory it is */
	size_t grant;		/* bytes from at that reserve() granted */
	size_t span;		/* bytes mapped at base; 0: part of a span */
	const char *label;	/* the pool's, for messages */
	_Atomic uint64_t refs;	/* references while frozen */
	uint32_t number;	/* of this descriptor in its table */
	_Atomic uint32_t next;	/* in a stack: number of the next + 1, or 0 */
	/* Bytes from at that bufpool_wrote leaves dirty: what was dirty when
	 * the newest raw pointer was given out, what an earlier promise told
	 * of, and what buf_leave_behind has noted since. Each pointer sets it
	 * anew, so what the last owner has left here does no harm. */
	size_t told;
};
/* ffi: end */

/* The place of a buffer that leak detection watches: no pool has it, so no
 * thread has a cache there. See sites.h. */
#define PLACE_WATCHED 16384

/* States. */
/* no memory behind it, or memory that the arena has: given back, or not taken
 * yet */
#define BUF_BLANK 0
/* in a depot, in the commons, or a large mapping that is kept: all zero */
#define BUF_READY 1
/* on a shelf: all zero; or on its way: all zero once it has been wiped, because
 * a release turns the state before it wipes */
#define BUF_CACHED 2
/* counted owners, immutable; or in transit */
#define BUF_FROZEN 3
/* one owner; a bit that no other state has */
#define BUF_OUT 4
#define BUF_STATE 7
#define BUF_GENERATION 8	/* one generation, as an addend to the word */

#define BUF_NUMBER_BITS 24	/* of a descriptor's number */

/* Bytes of memory behind the buffer, wherever `at` stands. */
static inline size_t
buf_size(const struct bufpool_buf *b)
{
	return b->capacity + (size_t)(b->at - b->base);
}

/* Moves `at` back to the start of the memory, but not the contents. So the
 * buffer must have no contents, or the caller moves or drops them.
 * bufpool_wrote counts from `at`, so after the move it would speak of other
 * bytes. `told` keeps it from lowering the mark. */
static inline void
buf_rewind(struct bufpool_buf *b)
{
	size_t head = (size_t)(b->at - b->base);

	b->at = b->base;
	b->capacity += head;
	b->mark += head;
	b->told = b->mark;
	b->granted = b->consumed = 0;
}

/* True when a Lua handle can no longer hold the buffer's word. A handle has 64
 * bits, of which the descriptor's number takes 24; after 2^37 releases the word
 * does not fit the other 40. */
static inline bool
buf_outgrown(const struct bufpool_buf *b)
{
	return atomic_load_explicit(&b->word, memory_order_relaxed) >>
	    (64 - BUF_NUMBER_BITS) != 0;
}

static inline void
buf_changed(struct bufpool_buf *b)
{
	b->epoch = (int32_t)((uint32_t)b->epoch + 1);
}

static inline void
buf_raise_mark(struct bufpool_buf *b, size_t end)
{
	if (b->mark < end)
		b->mark = end;
}

/* As buf_raise_mark, for bytes behind the contents, which bufpool_wrote and
 * bufpool_commit cannot take back: their callers know only what they have
 * written themselves. */
static inline void
buf_leave_behind(struct bufpool_buf *b, size_t end)
{
	buf_raise_mark(b, end);
	if (b->told < end)
		b->told = end;
}

/* create returns a BLANK descriptor without memory or arena, or NULL + ENOMEM.
 * destroy takes back a descriptor whose memory has gone, in any state, that
 * nobody else can reach. Any thread. */
struct bufpool_buf *bp_buf_create(void);
void bp_buf_destroy(struct bufpool_buf *b);
struct bufpool_buf *bp_buf_at(uint32_t number);
/* How many descriptors were ever made: all of their numbers are below this. */
uint32_t bp_buf_table_used(void);
/* A power of two. bp_buf_at may be called for every number below this, and what
 * it returns may be read. */
uint32_t bp_buf_table_limit(void);
bool bp_buf_table_init(void);

/* For the message of bp_buf_corrupt: writes what else is known of the buffer,
 * if anything. Set once, before any other thread. */
#define ORIGIN_MAX (2 * BUFPOOL_PLACE_MAX + 64)
extern void (*bp_buf_origin)(const struct bufpool_buf *b, char *to,
			     size_t size);

/* Prints the buffer, its state and the operation that found it, and aborts. */
_Noreturn void bp_buf_corrupt(const struct bufpool_buf *b,
			      const char *operation);

/*
 * Changes the state from `from` to `to` and adds `raise` to the generation, by
 * one compare-and-exchange, so that of two threads one succeeds. When the state
 * is not `from`, because the buffer was released twice or its descriptor was
 * overwritten, prints the operation and aborts. A function below that does
 * without this exchange says why it can.
 *
 * Relaxed is enough, because the word only decides which thread succeeds. The
 * buffer's bytes are ordered by whatever hands the buffer to another thread:
 * depot.c, cache.h, or the caller's own means.
 */
static inline void
buf_turn(struct bufpool_buf *b, unsigned from, unsigned to, uint64_t raise,
	 const char *operation)
{
	uint64_t old = atomic_load_explicit(&b->word, memory_order_relaxed);

	if (__builtin_expect((old & BUF_STATE) != from, 0) ||
	    __builtin_expect(!atomic_compare_exchange_strong_explicit(
		&b->word, &old, (old & ~(uint64_t)BUF_STATE) + raise + to,
		memory_order_relaxed, memory_order_relaxed), 0))
		bp_buf_corrupt(b, operation);
}

/*
 * A release: from OUT to CACHED by one addition, which takes fewer instructions
 * than a compare-and-exchange and is as safe, because the second of two threads
 * that release at once finds a state that is no longer OUT. False when it was
 * not: then the caller ends with bp_buf_released_twice, which aborts. That
 * function is not _Noreturn, because a compiler would make a stack frame for a
 * call of it, and a jump to it needs none.
 */
#define BUF_TURN_CACHED ((uint64_t)(BUF_GENERATION + BUF_CACHED - BUF_OUT))
void bp_buf_released_twice(struct bufpool_buf *b);

static inline bool
buf_turn_cached(struct bufpool_buf *b)
{
	uint64_t old = atomic_fetch_add_explicit(&b->word, BUF_TURN_CACHED,
						 memory_order_relaxed);

	return __builtin_expect((old & BUF_OUT) != 0, 1);
}

/* A checkout of n bytes: from CACHED to OUT, by the only thread that can reach
 * the buffer. */
static inline struct bufpool_buf *
buf_turn_out(struct bufpool_buf *b, size_t n)
{
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	ASAN_UNPOISON_MEMORY_REGION(b->base, b->capacity);
	hook("checkout: turning out");
	atomic_store_explicit(&b->word, word + (BUF_OUT - BUF_CACHED),
			      memory_order_relaxed);
	b->len = n;
	return b;
}

/* Makes a buffer that is out immutable and counted, with one reference. */
static inline void
buf_freeze(struct bufpool_buf *b, const char *operation)
{
	atomic_store_explicit(&b->refs, 1, memory_order_relaxed);
	buf_turn(b, BUF_OUT, BUF_FROZEN, BUF_GENERATION, operation);
	buf_changed(b);
}

/*
 * Drops a reference of a frozen buffer. True when it was the last one: then the
 * buffer is CACHED, and the caller has to take it home. The subtraction is a
 * release for every reader and an acquire for the last, so that the wipe comes
 * after each reader's last read.
 */
static inline bool
buf_unref(struct bufpool_buf *b)
{
	uint64_t refs = atomic_fetch_sub_explicit(&b->refs, 1,
						  memory_order_acq_rel);

	if (refs > 1)
		return false;
	/* One unref too many. The state may still be FROZEN, because the thread
	 * of the last unref has not turned it yet, so the count is asked. */
	if (__builtin_expect(refs == 0, 0))
		bp_buf_corrupt(b, "unref");
	buf_turn(b, BUF_FROZEN, BUF_CACHED, BUF_GENERATION, "unref");
	return true;
}

/* The descriptor of a frozen buffer: both types name the same address, but the
 * public functions for the frozen one leave the contents alone. */
static inline struct bufpool_buf *
buf_thaw(const struct bufpool_frozen *f)
{
	return (struct bufpool_buf *)(uintptr_t)f;
}

/* A state change of a buffer that nobody else can reach. */
static inline void
buf_set_state(struct bufpool_buf *b, unsigned to)
{
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	atomic_store_explicit(&b->word, (word & ~(uint64_t)BUF_STATE) | to,
			      memory_order_relaxed);
}

/* Like buf_set_state, but aborts as buf_turn does when the state is not `from`.
 * The caller has the buffer to itself, so no exchange is needed; a second
 * release of it is found by buf_turn_cached. */
static inline void
buf_turn_own(struct bufpool_buf *b, unsigned from, unsigned to,
	     const char *operation)
{
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	if (__builtin_expect((word & BUF_STATE) != from, 0))
		/* Not run: no spec scribbles there. */
		bp_buf_corrupt(b, operation);
	buf_set_state(b, to);
}

/* A stack of descriptors. Any thread. */
void bp_buf_push(struct stack *s, struct bufpool_buf *b);
struct bufpool_buf *bp_buf_pop(struct stack *s);

/* Takes all that is on a stack, in one step, as a list by ascending `base`.
 * buf_next leads from each to the one behind it, and from the last to NULL. */
struct bufpool_buf *bp_buf_pop_all(struct stack *s);
static inline struct bufpool_buf *
buf_next(const struct bufpool_buf *b)
{
	uint32_t next = atomic_load_explicit(&b->next, memory_order_relaxed);

	return next == 0 ? NULL : bp_buf_at(next - 1);
}

/* Sums over a stack that no thread pushes to or pops from meanwhile. */
struct buf_sum {
	uint64_t count;		/* buffers, with all of each batch */
	size_t bytes;		/* mapped at their bases; of a batch, the
				 * head's only */
};
struct buf_sum bp_buf_sum(const struct stack *s);

/* Wipes what was written to a buffer that is on its way home, so that all of
 * its memory is zero. Returns how many bytes it wiped. */
static inline size_t
buf_clean(struct bufpool_buf *b)
{
	size_t dirty;

	if (__builtin_expect(b->consumed, 0))
		buf_rewind(b);
	dirty = b->mark;
	wipe_lines(b->at, dirty);
	hook("release: wiped");
	b->mark = 0;
	b->flags = 0;
	return dirty;
}

/* Like buf_clean without the wipe: the system zeroes the memory. */
static inline void
buf_forget(struct bufpool_buf *b)
{
	if (b->consumed)
		buf_rewind(b);
	b->mark = 0;
	b->flags = 0;
}

/* Exchanges the memory of two descriptors of one pool, and the fields that
 * describe it. The owners and the contents' lengths stay with the descriptors.
 * A watched one goes on naming no shelf. Changes a's epoch; the caller
 * releases b, or changes b's. */
void bp_buf_swap_memory(struct bufpool_buf *a, struct bufpool_buf *b);

/* Gives b's memory and contents to `to`, which has no contents. b gets what
 * memory `to` had. Both are of one pool. */
void bp_buf_move(struct bufpool_buf *to, struct bufpool_buf *b);

/* Moves the contents to the start of the memory, over what was consumed. */
void bp_buf_compact(struct bufpool_buf *b);

/* Takes n bytes, len at most, off the front of the contents. */
void bp_buf_consume(struct bufpool_buf *b, size_t n);

/* Leaves the first n bytes of the memory, capacity at most, in front of the
 * contents, of which there are none yet. */
void bp_buf_leave_head(struct bufpool_buf *b, size_t n);

/* Makes the n bytes in front of the contents part of these. There are as many
 * between base and at, and the caller writes them. */
void bp_buf_extend_front(struct bufpool_buf *b, size_t n);

/* Moves the contents so that at least n bytes lie in front of them. The memory
 * has room for both. */
void bp_buf_make_head(struct bufpool_buf *b, size_t n);

/* Wipes what was written, and empties the buffer. The mark stays where a raw
 * pointer was given out, because somebody may still write through it. */
void bp_buf_wipe(struct bufpool_buf *b);

#endif
