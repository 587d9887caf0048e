/*
 * lua_box - what Lua's userdata hold, and the functions that Lua calls by FFI.
 *
 * All boxes begin alike, so that whoever finds the cookie may read the kind
 * and the state. The cookie is a number that nobody outside this process can
 * know and that every copy of bufpool draws for itself: a metatable can be
 * dressed up as ours, a payload cannot. A dead box holds the cookie negated.
 */
#ifndef BUFPOOL_LUA_BOX_H
#define BUFPOOL_LUA_BOX_H

#include "core/buf.h"

/* ffi: begin */
struct bufpool_account {	/* of one Lua VM; in bytes */
	double held;		/* memory behind the VM's live boxes */
	double limit;		/* what they may hold before the VM collects */
	double least;		/* below this the limit never sinks for long */
	double debt;		/* memory taken that was not paid for yet */
	double failures;	/* checkouts since the last full collection */
	double patience;	/* failures before the next */
};

struct bufpool_box {		/* a buffer */
	double cookie;
	int32_t kind, state;
	struct bufpool_buf *buf;
	uint64_t word;		/* buf's while it is ours */
	struct bufpool_account *account;
	double charged;		/* this box's part of account->held */
};

struct bufpool_frozen_box {
	double cookie;
	int32_t kind, state;
	struct bufpool_frozen *frozen;
	const uint8_t *at;	/* of this slice */
	size_t len;
	struct bufpool_account *account;
	double charged;
	int32_t epoch;		/* as a buffer's: changes on release */
};

struct bufpool_pool_box {
	double cookie;
	int32_t kind, state;
	struct bufpool *pool;
	int32_t named;		/* collecting the handle closes nothing */
	int32_t error;		/* why the last borrow failed */
};

/*
 * A borrowed buffer: a value, and no box. As an address, which it is not, it is
 * one machine word, which a trace never stores anywhere: the descriptor's word
 * at checkout above the 24 bits of its number. It is alive while that
 * descriptor is out and has this word, so any value is safe.
 */
struct bufpool_handle;

/*
 * They raise nothing and know no Lua state. Those that change a buffer do it
 * only while its epoch is the given one, and else return ESTALE; box is where
 * growth is charged, NULL for nowhere. An int is 0 or an errno. Numbers that
 * can be large are doubles, which Lua need not box; I/O returns bytes, or an
 * errno negated. borrow returns NULL when it fails; freeze fills a box that has
 * nothing inside.
 */
struct bufpool_calls {
	int (*const grow)(struct bufpool_buf *, int32_t epoch, size_t capacity,
			  struct bufpool_box *box);
	int (*const resize)(struct bufpool_buf *, int32_t epoch, size_t n,
			    struct bufpool_box *box);
	int (*const free)(struct bufpool_buf *, int32_t epoch,
			  struct bufpool_box *box);
	int (*const wipe)(struct bufpool_buf *, int32_t epoch);
	int (*const consume)(struct bufpool_buf *, int32_t epoch, size_t n);
	struct bufpool_handle *(*const borrow)(struct bufpool_pool_box *,
					       size_t n);
	int (*const release)(struct bufpool_buf *, int32_t epoch);
	int (*const freeze)(struct bufpool_buf *, int32_t epoch,
			    struct bufpool_frozen_box *to);
	struct bufpool_buf *(*const descriptor)(uint32_t number);
	uint32_t (*const descriptors)(void);
	void (*const move)(void *to, const void *from, size_t n);
	int (*const compare)(const void *a, size_t a_len,
			     const void *b, size_t b_len);
	int (*const equal_ct)(const void *a, const void *b, size_t n);
	double (*const find)(const void *hay, size_t hay_len,
			     const void *needle, size_t needle_len);
	int (*const is_pattern)(const void *text, size_t n);
	double (*const read)(int fd, void *to, size_t n);
	double (*const write)(int fd, const void *from, size_t n);
	double (*const fread)(void *file, void *to, size_t n);
	double (*const fwrite)(void *file, const void *from, size_t n);
	void (*const shortage)(int error, double size, char *to, size_t n);
	void (*const message)(int error, char *to, size_t n);
};
/* ffi: end */

enum lua_kind { KIND_POOL = 1, KIND_BUFFER, KIND_FROZEN };

/* Why a box is dead. The Lua side knows these numbers too. */
enum lua_state { BOX_LIVE, BOX_RELEASED, BOX_FROZEN, BOX_DETACHED, BOX_CLOSED };

/* The descriptor of a handle, or NULL when the handle is stale, or forged:
 * whoever makes up the word of a buffer that is in the pool has not made it
 * theirs. */
static inline struct bufpool_buf *
lua_handle_buf(const struct bufpool_handle *h)
{
	uint64_t v = (uintptr_t)h;
	uint32_t number = (uint32_t)v & (((uint32_t)1 << BUF_NUMBER) - 1);
	struct bufpool_buf *b;

	if (number >= buf_table_limit())
		return NULL;
	b = buf_at(number);
	return atomic_load_explicit(&b->word, memory_order_relaxed) ==
	    v >> BUF_NUMBER && (v >> BUF_NUMBER & BUF_STATE) == BUF_OUT
	    ? b : NULL;
}

/* A word that no buffer ever has: its state is none. */
#define BOX_NOBODY UINT64_MAX

extern const struct bufpool_calls lua_calls;

/* Sets what the box charges to its VM to `bytes`. */
static inline void
lua_charge(struct bufpool_account *account, double *charged, double bytes)
{
	account->held += bytes - *charged;
	*charged = bytes;
}

#endif
