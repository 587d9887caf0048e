#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "append.h"
#include "bytes.h"
#include "core/grow.h"
#include "core/checkout.h"

#define SAME(field) \
	_Static_assert(offsetof(struct bufpool_buf, field) == \
		       offsetof(struct bufpool_frozen_box, field), #field)
SAME(at);
SAME(len);
SAME(epoch);

/* A descriptor or a frozen box: the fields that are in one place in both. */
static const uint8_t *
bytes_start(const void *o)
{
	const uint8_t *at;

	memcpy(&at, (const char *)o + offsetof(struct bufpool_buf, at),
	       sizeof at);
	return at;
}

static size_t
length_of(const void *o)
{
	size_t len;

	memcpy(&len, (const char *)o + offsetof(struct bufpool_buf, len),
	       sizeof len);
	return len;
}

static bool
bytes_stale(const void *o, int32_t seen)
{
	int32_t epoch = seen;

	if (o != NULL)
		memcpy(&epoch,
		       (const char *)o + offsetof(struct bufpool_buf, epoch),
		       sizeof epoch);
	return epoch != seen;
}

int
bp_bytes_grow(struct bufpool_buf *b, int32_t epoch, size_t capacity,
	      struct bufpool_box *box)
{
	return bytes_stale(b, epoch) ? ESTALE : bp_append_grow(b, capacity,
							       box);
}

int
bp_bytes_resize(struct bufpool_buf *b, int32_t epoch, size_t n,
		struct bufpool_box *box)
{
	int error = bp_bytes_grow(b, epoch, n, box);

	if (error == 0 && bufpool_resize(b, n) < 0)
		error = errno;
	return error;
}

int
bp_bytes_extend(struct bufpool_buf *b, int32_t epoch, size_t n,
		struct bufpool_box *box)
{
	int error = bp_bytes_grow(b, epoch, n, box);

	if (error == 0) {
		buf_raise_mark(b, n);
		if (b->len < n)
			b->len = n;
		buf_changed(b);
	}
	return error;
}

int
bp_bytes_grant(struct bufpool_buf *b, int32_t epoch, size_t end)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	buf_raise_mark(b, end);
	b->grant = end;
	b->granted = 1;
	buf_changed(b);
	return 0;
}

int
bp_bytes_commit(struct bufpool_buf *b, int32_t epoch, size_t n)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	b->len += n;
	buf_changed(b);
	return 0;
}

int
bp_bytes_expose(struct bufpool_buf *b, int32_t epoch)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	b->raw = 1;
	buf_raise_mark(b, b->len);
	buf_changed(b);
	return 0;
}

/* Raises the mark by whole cache lines: space.lua says why. */
int
bp_bytes_store(struct bufpool_buf *b, int32_t epoch, size_t i, int32_t bytes,
	       int n)
{
	size_t end = (i + (size_t)n + WIPE_LINE - 1) / WIPE_LINE * WIPE_LINE;

	if (bytes_stale(b, epoch))
		return ESTALE;
	buf_raise_mark(b, end < b->capacity ? end : b->capacity);
	buf_changed(b);
	for (int k = 0; k < n; k++)
		b->at[i + (size_t)k] = (uint8_t)((uint32_t)bytes >> 8 * k);
	return 0;
}

int
bp_bytes_fill(struct bufpool_buf *b, int32_t epoch, size_t i, size_t n,
	      int byte)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	if (n == 0)
		return 0;
	buf_raise_mark(b, i + n);
	buf_changed(b);
	memset(b->at + i, byte, n);
	return 0;
}

/* NULL may stand for no bytes, which memmove does not allow. */
static void
bytes_move(void *to, const void *from, size_t n)
{
	if (n > 0)
		memmove(to, from, n);
}

int
bp_bytes_overwrite(struct bufpool_buf *b, int32_t epoch, size_t i,
		   const void *from, size_t n, const void *source,
		   int32_t source_epoch)
{
	if (bytes_stale(b, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	buf_raise_mark(b, i + n);
	buf_changed(b);
	bytes_move(b->at + i, from, n);
	return 0;
}

/* How many bytes there are from `from` to the end of b's own memory; 0 when it
 * does not point in there. */
static size_t
bytes_own(const struct bufpool_buf *b, const void *from)
{
	uintptr_t at = (uintptr_t)from, base = (uintptr_t)b->base;
	size_t size = b->base != NULL ? buf_size(b) : 0;

	return at >= base && at - base < size ? size - (at - base) : 0;
}

/* What is replaced need not move, so memory that is large enough is used from
 * its start. That also keeps a pointer into it good. */
int
bp_bytes_assign(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box,
		const void *from, size_t n, const void *source,
		int32_t source_epoch)
{
	size_t most = bytes_own(b, from);
	int error;

	if (bytes_stale(b, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	if (most > 0 && n > most)
		return EFAULT;
	if (n > b->capacity && n <= buf_size(b)) {
		b->len = 0;
		buf_rewind(b);
	} else if (n > b->capacity) {
		error = bp_append_grow(b, n, box);
		if (error != 0)
			return error;
	}
	buf_raise_mark(b, n);
	buf_changed(b);
	bytes_move(b->at, from, n);
	b->len = n;
	b->granted = 0;
	return 0;
}

/* Growth moves what lies in b's own memory, or wipes it, so it is copied
 * before. */
static int
append_own(struct bufpool_buf *b, struct bufpool_box *box, const void *from,
	   size_t n)
{
	struct bufpool_buf *copy =
		bp_checkout_at(pool_of(b), n, 0, TAKE_ANY | TAKE_CLOSED);
	int error;

	if (copy == NULL)
		return errno;
	copy->len = n;
	memcpy(bufpool_data(copy), from, n);
	error = bp_bytes_append(b, b->epoch, box, copy->at, n, NULL, 0);
	bufpool_release(copy);
	return error;
}

int
bp_bytes_append(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box,
		const void *from, size_t n, const void *source,
		int32_t source_epoch)
{
	size_t most = bytes_own(b, from);
	int error;

	if (bytes_stale(b, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	if (most > 0 && n > most)
		return EFAULT;
	if (n > b->capacity - b->len) {
		if (most > 0)
			return append_own(b, box, from, n);
		error = bp_append_grow(b, b->len + n, box);
		if (error != 0)
			return error;
	}
	buf_raise_mark(b, b->len + n);
	buf_changed(b);
	bytes_move(b->at + b->len, from, n);
	b->len += n;
	return 0;
}

int
bp_bytes_compare(const void *o, int32_t epoch, const void *source,
		 int32_t source_epoch, const void *from, size_t n)
{
	size_t len, least;
	int order;

	if (bytes_stale(o, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	len = length_of(o);
	least = len < n ? len : n;
	order = least > 0 ? memcmp(bytes_start(o), from, least) : 0;
	return order != 0 ? (order > 0) - (order < 0) : (len > n) - (len < n);
}

/* The volatile accumulator keeps the compiler from leaving early. */
int
bp_bytes_equal_ct(const void *o, int32_t epoch, const void *source,
		  int32_t source_epoch, const void *from, size_t n)
{
	const uint8_t *p, *q = from;
	volatile uint8_t difference = 0;

	if (bytes_stale(o, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	if (length_of(o) != n)
		return 0;
	p = bytes_start(o);
	for (size_t i = 0; i < n; i++)
		difference |= p[i] ^ q[i];
	return difference == 0;
}

double
bp_bytes_find_plain(const void *o, int32_t epoch, size_t i, const void *source,
		    int32_t source_epoch, const void *from, size_t n)
{
	const uint8_t *hit;

	if (bytes_stale(o, epoch) || bytes_stale(source, source_epoch))
		return -ESTALE;
	if (n == 0)
		return 0;
	if (length_of(o) - i < n)
		return -1;
	hit = memmem(bytes_start(o) + i, length_of(o) - i, from, n);
	return hit == NULL ? -1 : (double)(hit - (bytes_start(o) + i));
}

static bool
is_pattern(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] != '\0' && strchr("^$*+?.([%-", text[i]) != NULL)
			return true;
	return false;
}

double
bp_bytes_find(const void *o, int32_t epoch, size_t i, const void *source,
	      int32_t source_epoch, const void *from, size_t n)
{
	if (!bytes_stale(source, source_epoch) && is_pattern(from, n))
		return bytes_stale(o, epoch) ? -ESTALE : -EINVAL;
	return bp_bytes_find_plain(o, epoch, i, source, source_epoch, from, n);
}

/* Before bytes are read to [i, i + n) of the buffer. A read that failed may
 * have written, so the mark stays where this raises it to. */
static void *
bytes_prepare(struct bufpool_buf *b, size_t i, size_t n)
{
	buf_raise_mark(b, i + n);
	buf_changed(b);
	return b->at + i;
}

/* The bytes that have come belong to the contents. */
static double
bytes_received(struct bufpool_buf *b, size_t i, size_t got)
{
	if (b->len < i + got)
		b->len = i + got;
	return (double)got;
}

double
bp_bytes_read(struct bufpool_buf *b, int32_t epoch, int fd, size_t i, size_t n)
{
	ssize_t got;

	if (bytes_stale(b, epoch))
		return BYTES_STALE;
	bytes_prepare(b, i, n);
	do
		got = read(fd, b->at + i, n);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : bytes_received(b, i, (size_t)got);
}

/* What a call has failed of that only ferror tells of: musl sets no errno where
 * a file is not open for it. */
static double
failure_of(int error)
{
	return error != 0 ? -error : -EBADF;
}

/* LuaJIT passes the FILE pointer inside a file of Lua, which is NULL once that
 * is closed. As io.read does, this forgets the end that an earlier call met,
 * and its error: the file may have grown since. */
double
bp_bytes_fread(struct bufpool_buf *b, int32_t epoch, void *file, size_t i,
	       size_t n)
{
	size_t got;

	if (bytes_stale(b, epoch))
		return BYTES_STALE;
	if (file == NULL)
		return -EBADF;
	if (n == 0)
		return 0;
	clearerr(file);
	errno = 0;
	got = fread(bytes_prepare(b, i, n), 1, n, file);
	return got == 0 && ferror((FILE *)file) ?
		failure_of(errno) : bytes_received(b, i, got);
}

double
bp_bytes_write(const void *o, int32_t epoch, int fd, size_t i, size_t n)
{
	ssize_t put;

	if (bytes_stale(o, epoch))
		return BYTES_STALE;
	do
		put = write(fd, bytes_start(o) + i, n);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : (double)put;
}

double
bp_bytes_fwrite(const void *o, int32_t epoch, void *file, size_t i, size_t n)
{
	size_t put;

	if (bytes_stale(o, epoch))
		return BYTES_STALE;
	if (file == NULL)
		return -EBADF;
	if (n == 0)
		return 0;
	errno = 0;
	put = fwrite(bytes_start(o) + i, 1, n, file);
	return put < n ? failure_of(errno) : (double)put;
}
