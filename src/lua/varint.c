#include "varint.h"

static uint64_t
bits_of(int64_t v, int form)
{
	uint64_t bits = (uint64_t)v;

	return form & VARINT_ZIGZAG ? bits << 1 ^ (v < 0 ? UINT64_MAX : 0) :
		bits;
}

int
bp_varint_size(int64_t v, int form)
{
	return (70 - __builtin_clzll(bits_of(v, form) | 1)) / 7;
}

size_t
bp_varint_write(uint8_t *to, int64_t v, int form)
{
	uint64_t bits = bits_of(v, form);
	size_t n = 0;

	for (; bits >= 0x80; bits >>= 7)
		to[n++] = (uint8_t)(bits | 0x80);
	to[n++] = (uint8_t)bits;
	return n;
}

static bool
is_number(uint64_t v, int form)
{
	const uint64_t most = (uint64_t)VARINT_NUMBER;

	return v <= most || (form & VARINT_ZIGZAG && 0 - v <= most);
}

int
bp_varint_read(const uint8_t *at, size_t len, int form, uint64_t *v)
{
	uint64_t bits = 0;
	size_t n = 0;

	do {
		if (n == len)
			return -ENODATA;
		if (n == VARINT_MAX - 1 && at[n] > 1)
			return -EOVERFLOW;
		bits |= (uint64_t)(at[n] & 0x7f) << 7 * n;
	} while (at[n++] & 0x80);
	*v = form & VARINT_ZIGZAG ? bits >> 1 ^ (0 - (bits & 1)) : bits;
	return form & VARINT_WIDE || is_number(*v, form) ? (int)n : -ERANGE;
}

int
bp_varint_put(struct bufpool_buf *b, int32_t epoch, int64_t v, int form)
{
	size_t n = (size_t)bp_varint_size(v, form);

	if (bytes_stale(b, epoch))
		return ESTALE;
	if (n > b->capacity - b->len)
		return ENOBUFS;
	bp_varint_write(b->at + b->len, v, form);
	b->len += n;
	buf_raise_mark(b, b->len);
	buf_changed(b);
	return 0;
}

double
bp_varint_get(struct bufpool_buf *b, int32_t epoch, int form, uint64_t seen)
{
	uint64_t v;
	int n = bytes_stale(b, epoch) ? -ESTALE :
		bp_varint_read(b->at, b->len, form, &v);

	/* A finalizer may have written since peek, which the epoch need not
	 * tell. */
	if (n > 0 && form & VARINT_WIDE && v != seen)
		n = -ESTALE;
	if (n < 0)
		return -n * VARINT_FAILED;
	bp_buf_consume(b, (size_t)n);
	return form & VARINT_WIDE ? 0 : varint_number(v, form);
}

/* What it returns of a stale object is discarded, because the caller finds that
 * stale, too. */
uint64_t
bp_varint_peek(const void *o, int32_t epoch, size_t i, int form)
{
	uint64_t v = 0;

	if (!bytes_stale(o, epoch) && i <= bytes_length(o))
		bp_varint_read(bytes_start(o) + i, bytes_length(o) - i, form,
			       &v);
	return v;
}

int
bp_varint_length(const void *o, int32_t epoch, size_t i, int form)
{
	uint64_t v;

	if (bytes_stale(o, epoch))
		return -ESTALE;
	return i > bytes_length(o) ? -ENODATA :
		bp_varint_read(bytes_start(o) + i, bytes_length(o) - i, form,
			       &v);
}
