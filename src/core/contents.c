#include <string.h>

#include "checkout.h"
#include "grow.h"

/* Room for n bytes behind the contents. -1 + errno, the buffer unchanged. */
static int
make_room_behind(struct bufpool_buf *b, size_t n)
{
	if (n > PTRDIFF_MAX - b->len) {
		errno = EOVERFLOW;
		return -1;
	}
	return bp_grow_to(b, b->len + n);
}

/* The appended bytes may be part of the buffer's own contents; then they move
 * with the buffer when it grows. */
int
bufpool_append(struct bufpool_buf *b, const void *bytes, size_t n)
{
	size_t from = (uintptr_t)bytes - (uintptr_t)b->at;
	bool own = from < b->len;

	if (n == 0)
		return 0;
	if (make_room_behind(b, n) < 0)
		return -1;
	memmove(b->at + b->len, own ? b->at + from : bytes, n);
	b->len += n;
	b->granted = 0;
	buf_raise_mark(b, b->len);
	buf_changed(b);
	return 0;
}

void *
bufpool_reserve(struct bufpool_buf *b, size_t n)
{
	if (make_room_behind(b, n) < 0)
		return NULL;
	b->told = b->mark;
	b->grant = b->len + n;
	b->granted = 1;
	buf_raise_mark(b, b->grant);
	buf_changed(b);
	return b->at + b->len;
}

/* When something else has raised the mark since bufpool_reserve, the mark
 * stays, because what was written is not known any more. */
int
bufpool_commit(struct bufpool_buf *b, size_t n)
{
	if (!b->granted || b->len > b->grant || n > b->grant - b->len) {
		errno = EINVAL;
		return -1;
	}
	b->len += n;
	b->granted = 0;
	if (b->mark == b->grant)
		bufpool_wrote(b, b->len);
	else
		buf_raise_mark(b, b->len);
	buf_changed(b);
	return 0;
}

int
bufpool_skip(struct bufpool_buf *b, size_t n)
{
	if (n > b->len) {
		errno = EINVAL;
		return -1;
	}
	bp_buf_consume(b, n);
	return 0;
}

/* The part has room for what it is to get, or can exchange its memory, so only
 * the checkout may fail. The pool may be closed, because buffers that are out
 * stay usable then. */
struct bufpool_buf *
bufpool_split(struct bufpool_buf *b, size_t n)
{
	size_t rest = b->len - n;
	struct bufpool_buf *part;

	if (n > b->len) {
		errno = EINVAL;
		return NULL;
	}
	part = bp_checkout_at(pool_of(b), n < rest ? n : rest, b->align,
			      TAKE_ANY | TAKE_CLOSED, bp_sites_of(b));
	if (part == NULL)
		return NULL;
	part->len = 0;
	if (!bp_grow_exchange(part, b, n)) {
		bufpool_append(part, b->at, n);
		bp_buf_consume(b, n);
		b->granted = 0;
	}
	return part;
}
