/*
 * box - the userdata of Lua.
 *
 * All boxes begin alike, so that whoever finds the cookie may read the state.
 * The cookie is a number that nobody outside this process can know, and that
 * every copy of bufpool draws for itself; each kind of box has its own. So one
 * comparison shows that the payload is ours and of which kind, which the
 * metatable cannot: debug.setmetatable dresses anything up. A dead box holds
 * the complement of its cookie. The cookie is two integers of 32 bits, which
 * Lua can read from any payload: a double might be a NaN that LuaJIT takes for
 * an object, and 64 bits would allocate.
 */
#ifndef BUFPOOL_LUA_BOX_H
#define BUFPOOL_LUA_BOX_H

#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "bufpool_lua.h"
#include "core/buf.h"

/* ffi: begin */
struct bufpool_account {	/* of one Lua VM: bytes, then counts */
	double held;		/* memory behind the VM's live boxes */
	double limit;		/* what they may hold before the VM collects */
	double least;		/* the limit soon returns to at least this */
	double debt;		/* memory taken since the last collector_pay */
	double failures;	/* that a full collection may help, since one */
	double patience;	/* failures before the next one */
	double guards;		/* calls of guard.c that have not ended */
};

struct bufpool_box {		/* a buffer */
	int32_t low, high;	/* the cookie */
	struct bufpool_buf *buf;
	uint64_t word;		/* of buf, as long as it is this box's */
	int32_t state;
	union {			/* what Lua has read last: typed.lua */
		int32_t i32;
		uint32_t u32;
		float f32;
	};
	struct bufpool_account *account;
	double charged;		/* this box's part of account->held */
};

/* at, len and epoch are where a descriptor has its own: bytes.h. */
struct bufpool_frozen_box {
	int32_t low, high;	/* the cookie */
	const uint8_t *at;	/* of this slice */
	size_t len;
	int32_t state;
	union {			/* what Lua has read last: typed.lua */
		int32_t i32;
		uint32_t u32;
		float f32;
	};
	struct bufpool_frozen *frozen;
	struct bufpool_account *account;
	union {
		double charged;
		uint64_t word;	/* released: what `was` had */
	};
	int32_t epoch;		/* changes on release */
	uint32_t was;		/* released: number of what was inside, + 1 */
	struct bufpool_share *share;	/* in the charge; NULL: it has none */
};

struct bufpool_pool_box {
	int32_t low, high;	/* the cookie */
	struct bufpool *pool;
	struct bufpool_account *account;	/* of what it hands out */
	int32_t state;
	int32_t named;		/* collecting the handle closes nothing */
	int32_t error;		/* why the last borrow failed */
};

/* ffi: end */

/* Every C function of the module has these upvalues, so that the hot ones look
 * nothing up. Only those of plain.c have others: self.h. */
#define UP_ACCOUNT lua_upvalueindex(1)	/* userdata: struct bufpool_account */
#define UP_POOL lua_upvalueindex(2)	/* metatables */
#define UP_BUFFER lua_upvalueindex(3)
#define UP_FROZEN lua_upvalueindex(4)
#define UP_DEAD lua_upvalueindex(5)
#define UP_CORE lua_upvalueindex(6)	/* the module's private table */
#define UP_COUNT 6

enum box_kind { KIND_POOL = 1, KIND_BUFFER, KIND_FROZEN };
#define KIND_BITS 2

/* Why a box is dead. */
enum box_state { BOX_LIVE, BOX_RELEASED, BOX_FROZEN, BOX_DETACHED, BOX_CLOSED };

/* Their names, from number 1 and from number 0 on. NULL ends each list. */
extern const char *const bp_box_kinds[], *const bp_box_states[];

/* What this copy of bufpool has drawn; not 0 once a state has opened it. The
 * cookie of a kind is this number with that of the kind in its low bits. */
extern _Atomic uint64_t bp_box_cookie_drawn;
void bp_box_draw_cookie(void);

static inline uint64_t
box_cookie(enum box_kind kind)
{
	return atomic_load_explicit(&bp_box_cookie_drawn,
				    memory_order_relaxed) |
		kind;
}

/* Whether the payload is a living box of this kind. All boxes begin alike. */
static inline bool
box_lives(const void *box, enum box_kind kind)
{
	const struct bufpool_pool_box *any = box;
	uint64_t cookie = box_cookie(kind);

	return any->low == (int32_t)cookie &&
		any->high == (int32_t)(cookie >> 32);
}

/* Makes the userdata on top of the stack a box of this kind. Allocates nothing
 * where the stack has two free slots. */
static inline void
box_become(lua_State *L, void *box, enum box_kind kind)
{
	struct bufpool_pool_box *any = box;
	uint64_t cookie = box_cookie(kind);

	any->low = (int32_t)cookie;
	any->high = (int32_t)(cookie >> 32);
	lua_pushvalue(L, kind == KIND_POOL ? UP_POOL :
		      kind == KIND_BUFFER ? UP_BUFFER : UP_FROZEN);
	lua_setmetatable(L, -2);
}

/* A new box on top of the stack, with its metatable and nothing inside. */
static inline void *
box_new(lua_State *L, enum box_kind kind, size_t size)
{
	void *box = memset(lua_newuserdata(L, size), 0, size);

	box_become(L, box, kind);
	return box;
}

/* Whether the buffer is still the box's: a host may have released it behind the
 * box. */
static inline bool
box_holds(const struct bufpool_box *box)
{
	return box->buf != NULL && box->word == atomic_load_explicit(
		&box->buf->word, memory_order_relaxed);
}

/*
 * The box at `index` if it is one of this kind and alive, else NULL. None is
 * smaller than the pool's. A light userdata has no length, so it is no box.
 */
static inline void *
box_test(lua_State *L, int index, enum box_kind kind)
{
	struct bufpool_pool_box *any = lua_touserdata(L, index);
	struct bufpool_box *box = (struct bufpool_box *)any;

	if (any == NULL || lua_objlen(L, index) < sizeof *any ||
	    !box_lives(any, kind))
		return NULL;
	return kind != KIND_BUFFER || box_holds(box) ? any : NULL;
}

/* The finalizer found this living box. Another object's finalizer may still
 * reach it, so it dies in place: it keeps its metatable. */
static inline void
box_finalize(void *box, enum box_state state)
{
	struct bufpool_pool_box *any = box;

	any->low = ~any->low;
	any->high = ~any->high;
	any->state = (int32_t)state;
}

/* The box at `index` is dead from here on, and has no finalizer any more. */
static inline void
box_kill(lua_State *L, int index, void *box, enum box_state state)
{
	box_finalize(box, state);
	lua_pushvalue(L, UP_DEAD);
	lua_setmetatable(L, index);
}

/* Sets what the box charges to its VM to `bytes`. */
static inline void
box_charge(struct bufpool_account *account, double *charged, double bytes)
{
	account->held += bytes - *charged;
	*charged = bytes;
}

/* The functions that fill a new box allocate nothing. */
static inline void
box_own_pool(lua_State *L, struct bufpool_pool_box *box, struct bufpool *pool,
	     int named)
{
	box->account = lua_touserdata(L, UP_ACCOUNT);
	box->pool = pool;
	box->named = named;
}

static inline void
box_own(struct bufpool_account *account, struct bufpool_box *box,
	struct bufpool_buf *buf)
{
	double bytes = (double)buf_size(buf);

	box->buf = buf;
	box->word = atomic_load_explicit(&buf->word, memory_order_relaxed);
	box->account = account;
	box->charged = bytes;
	account->held += bytes;
	account->debt += bytes;
}

/* Takes the buffer out of its box, and sets the box's word to a state that does
 * not exist, so that it fits no buffer. The generation stays, for messages. */
static inline struct bufpool_buf *
box_disown(struct bufpool_box *box)
{
	box->word |= BUF_STATE;
	box_charge(box->account, &box->charged, 0);
	return box->buf;
}

/* `len` bytes from `at` of a frozen object, whose reference the box takes. The
 * account is set, and the charge is the caller's to set. */
static inline void
box_own_frozen(struct bufpool_frozen_box *box, struct bufpool_frozen *frozen,
	       const uint8_t *at, size_t len)
{
	box->frozen = frozen;
	box->at = at;
	box->len = len;
}

/* All of a frozen buffer that enters the VM, which is charged for it. */
static inline void
box_enter_frozen(struct bufpool_account *account,
		 struct bufpool_frozen_box *box, struct bufpool_frozen *frozen)
{
	const struct bufpool_buf *b = (const struct bufpool_buf *)frozen;

	box->account = account;
	box_charge(account, &box->charged, (double)buf_size(b));
	account->debt += box->charged;
	box_own_frozen(box, frozen, b->at, b->len);
}

/* Leaves `len` bytes from `offset` of what the box shows. */
static inline void
box_narrow(struct bufpool_frozen_box *box, size_t offset, size_t len)
{
	box->at += offset;
	box->len = len;
}

/* What boxes of one VM are charged together, for memory that they share: it
 * stays charged until the last of them lets go. */
struct bufpool_share {
	double charged;
	size_t boxes;
};

/* `to` is another box for the memory of `from`. Where no struct can be had, the
 * memory stays charged to `from` alone. */
void bp_box_share(struct bufpool_frozen_box *from,
		  struct bufpool_frozen_box *to);
void bp_box_unshare(struct bufpool_frozen_box *box);

/* Takes the reference out of its box; NULL when there was none. */
static inline struct bufpool_frozen *
box_disown_frozen(struct bufpool_frozen_box *box)
{
	struct bufpool_frozen *frozen = box->frozen;

	box->frozen = NULL;
	box->epoch++;
	box->at = NULL;
	box->len = 0;
	if (box->account != NULL)
		box_charge(box->account, &box->charged, 0);
	if (box->share != NULL)
		bp_box_unshare(box);
	return frozen;
}

/* Keeps what messages about a dead box need, of the reference that was inside,
 * which the caller has. */
static inline void
box_remember(struct bufpool_frozen_box *box,
	     const struct bufpool_frozen *frozen)
{
	const struct bufpool_buf *b = buf_thaw(frozen);

	box->was = b->number + 1;
	box->word = atomic_load_explicit(&b->word, memory_order_relaxed);
}

#endif
