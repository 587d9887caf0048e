#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "append.h"
#include "bytes.h"
#include "calls.h"
#include "core/grow.h"
#include "core/checkout.h"
#include "core/ticket.h"
#include "scope.h"
#include "sink.h"

static int
free_memory(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box)
{
	if (b->epoch != epoch)
		return ESTALE;
	bp_grow_free(b);
	if (box != NULL)
		box_charge(box->account, &box->charged, (double)buf_size(b));
	return 0;
}

static int
wipe_all(struct bufpool_buf *b, int32_t epoch)
{
	if (b->epoch != epoch)
		return ESTALE;
	bp_buf_wipe(b);
	return 0;
}

static int
call_consume(struct bufpool_buf *b, int32_t epoch, size_t n)
{
	if (b->epoch != epoch)
		return ESTALE;
	bp_buf_consume(b, n < b->len ? n : b->len);
	return 0;
}

/* A finalizer may have closed the pool since Lua looked. */
static struct bufpool_handle *
call_borrow(struct bufpool_pool_box *box, size_t n)
{
	struct bufpool_buf *b;

	if (box->state != BOX_LIVE) {
		box->error = ESTALE;
		return NULL;
	}
	b = box_lend(bufpool_checkout(box->pool, n));
	if (b == NULL) {
		box->error = errno;
		return NULL;
	}
	return box_handle(b);
}

static int
call_release(struct bufpool_buf *b, int32_t epoch)
{
	if (b->epoch != epoch)
		return ESTALE;
	bufpool_release(b);
	return 0;
}

/* A handle was charged to nobody. What it becomes is the collector's to return,
 * so it is charged now. */
static int
call_freeze(struct bufpool_buf *b, int32_t epoch, struct bufpool_frozen_box *to)
{
	if (b->epoch != epoch)
		return ESTALE;
	box_enter_frozen(to->account, to, bufpool_freeze(b));
	return 0;
}

static double
call_detach(struct bufpool_buf *b, int32_t epoch)
{
	uint64_t ticket;

	if (b->epoch != epoch)
		return -ESTALE;
	ticket = bufpool_detach(b);
	return ticket != 0 ? (double)ticket : -errno;
}

/* Files of /proc say that they are empty, and are not. */
static double
rest_from(int fd, off_t at)
{
	struct stat file;

	if (at < 0 || fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) ||
	    file.st_size == 0)
		return -1;
	return file.st_size > at ? (double)(file.st_size - at) : 0;
}

static double
rest_fd(int fd)
{
	return rest_from(fd, lseek(fd, 0, SEEK_CUR));
}

static double
rest_file(void *file)
{
	return file == NULL ? -1 : rest_from(fileno(file), ftello(file));
}

static void
call_message(int error, char *to, size_t n)
{
	/* Not the one of _GNU_SOURCE, which glibc alone has. This one may leave
	 * `to` alone only where it does not know the error. */
	if (strerror_r(error, to, n) != 0 && to[0] == '\0')
		snprintf(to, n, "error %d", error);
}

static void
call_shortage(int error, double size, char *to, size_t n)
{
	const char *why;
	char text[MESSAGE_MAX / 2];

	switch (error) {
	case EDQUOT:
		why = "max_bytes of the pool reached";
		break;
	case ENOMEM:
		why = "out of memory";
		break;
	case EOVERFLOW:
		why = "size too large";
		break;
	case ESHUTDOWN:
		why = "the pool is closed";
		break;
	default:
		call_message(error, text, sizeof text);
		why = text;
	}
	snprintf(to, n, "%s (%.0f bytes asked for)", why, size);
}

static void
call_unref(void *frozen)
{
	bufpool_frozen_unref(frozen);
}

/* A box that core.frozen_box made may have nothing inside. */
static int
lend_frozen(struct bufpool_frozen_box *box, int32_t epoch,
	    struct bufpool_piece *to)
{
	if (box->epoch != epoch)
		return ESTALE;
	to->at = box->at;
	to->len = box->len;
	if (box->len > 0) {
		to->held = bufpool_frozen_ref(box->frozen);
		to->release = call_unref;
	}
	return 0;
}

/* The buffer may be out of a pool that is closed, and closing leaves what is
 * out usable. */
static int
lend_copy(struct bufpool_buf *b, int32_t epoch, struct bufpool_piece *to)
{
	struct bufpool_buf *copy;

	if (b->epoch != epoch)
		return ESTALE;
	to->len = b->len;
	if (b->len == 0)
		return 0;
	copy = bp_checkout_at(pool_of(b), b->len, 0, TAKE_ANY | TAKE_CLOSED);
	if (copy == NULL)
		return errno;
	copy->len = b->len;
	memcpy(bufpool_data(copy), b->at, b->len);
	to->at = copy->at;
	to->held = bufpool_freeze(copy);
	to->release = call_unref;
	return 0;
}

static void
take_back(struct bufpool_piece *pieces, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].release != NULL)
			pieces[i].release(pieces[i].held);
		pieces[i].release = NULL;
	}
}

typedef int deliver_fn(void *request, struct bufpool_piece *, size_t count,
		       size_t worth);

static void *
argument_address(lua_State *L, int index)
{
	return (void *)(uintptr_t)luaL_checknumber(L, index);
}

/* core.deliver(function, request, pieces, count, worth): addresses and sizes.
 * The function may run Lua code, so it must not be called by the FFI: a trace
 * may hold a call of the FFI, but never one of a lua_CFunction. */
int
bp_calls_deliver(lua_State *L)
{
	void *address = argument_address(L, 1);
	deliver_fn *deliver;

	memcpy(&deliver, &address, sizeof deliver);
	lua_pushinteger(L, deliver(argument_address(L, 2),
				   argument_address(L, 3),
				   (size_t)luaL_checknumber(L, 4),
				   (size_t)luaL_checknumber(L, 5)));
	return 1;
}

/* Of the process that keeps time. After a fork the child is another one. */
static _Atomic pid_t clock_of;

int
bp_calls_claim_clock(lua_State *L)
{
	pid_t self = getpid();
	bool on = lua_toboolean(L, 1);

	lua_pushboolean(L, atomic_exchange(&clock_of, on ? self : 0) != self);
	return 1;
}

const struct bufpool_calls bp_ffi_calls = {
	.grow = bp_bytes_grow,
	.resize = bp_bytes_resize,
	.extend = bp_bytes_extend,
	.grant = bp_bytes_grant,
	.commit = bp_bytes_commit,
	.expose = bp_bytes_expose,
	.store = bp_bytes_store,
	.fill = bp_bytes_fill,
	.overwrite = bp_bytes_overwrite,
	.assign = bp_bytes_assign,
	.append = bp_bytes_append,
	.compare = bp_bytes_compare,
	.equal_ct = bp_bytes_equal_ct,
	.find = bp_bytes_find,
	.find_plain = bp_bytes_find_plain,
	.read = bp_bytes_read,
	.write = bp_bytes_write,
	.fread = bp_bytes_fread,
	.fwrite = bp_bytes_fwrite,
	.free = free_memory,
	.wipe = wipe_all,
	.consume = call_consume,
	.put = bp_append_put,
	.put_handle = bp_append_put_handle,
	.borrow = call_borrow,
	.scope_open = bp_scope_open,
	.scope_borrow = bp_scope_borrow,
	.release = call_release,
	.freeze = call_freeze,
	.detach = call_detach,
	.descriptor = bp_buf_at,
	.descriptors = bp_buf_table_limit,
	.rest = rest_fd,
	.frest = rest_file,
	.shortage = call_shortage,
	.message = call_message,
	.lend_frozen = lend_frozen,
	.lend_copy = lend_copy,
	.take_back = take_back,
	.sink_open = bp_sink_open,
	.sink_handle = bp_sink_handle,
};
