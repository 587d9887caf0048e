#define _GNU_SOURCE
#include <string.h>

#include "append.h"
#include "bytes.h"
#include "core/grow.h"
#include "core/checkout.h"

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
		error = errno;	/* Not run: it has been grown. */
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

/* Vectors of 16 bytes, because those are registers everywhere. Larger ones go
 * by the stack where they are not, and a part of the key would stay there. */
static void
xor_bytes(uint8_t *to, const uint8_t *key, size_t n)
{
	typedef uint64_t wide __attribute__((vector_size(16), aligned(1),
					     may_alias));
	typedef uint64_t word __attribute__((aligned(1), may_alias));
	size_t k = 0;

	for (; n - k >= sizeof(wide); k += sizeof(wide))
		*(wide *)(to + k) ^= *(const wide *)(key + k);
	for (; n - k >= sizeof(word); k += sizeof(word))
		*(word *)(to + k) ^= *(const word *)(key + k);
	for (; k < n; k++)
		to[k] ^= key[k];
}

#define KEY_SHORT 32	/* bytes: a longer key is XORed as it is */
#define KEY_BLOCK 1024	/* bytes that a shorter one is repeated to, at most */

/* The key from byte `skip` on, repeated in a block of whole vectors. Wipes the
 * block, because the key may be secret. */
static void
xor_short(uint8_t *to, size_t n, const uint8_t *key, size_t key_n, size_t skip)
{
	size_t size = key_n, most = KEY_BLOCK / 32 / key_n * key_n * 32;
	uint8_t block[KEY_BLOCK];

	memcpy(block, key + skip, key_n - skip);
	memcpy(block + (key_n - skip), key, skip);
	most = most < n ? most : n;
	for (size_t step; size < most; size += step) {
		step = size < most - size ? size : most - size;
		memcpy(block + size, block, step);
	}
	for (; n > size; n -= size, to += size)
		xor_bytes(to, block, size);
	xor_bytes(to, block, n);
	wipe(block, size);
}

static void
xor_long(uint8_t *to, size_t n, const uint8_t *key, size_t key_n, size_t skip)
{
	for (size_t step; n > 0; n -= step, to += step, skip = 0) {
		step = key_n - skip < n ? key_n - skip : n;
		xor_bytes(to, key + skip, step);
	}
}

int
bp_bytes_xor(struct bufpool_buf *b, int32_t epoch, size_t i, size_t n,
	     const void *source, int32_t source_epoch, const void *from,
	     size_t key_n, size_t at)
{
	if (bytes_stale(b, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	if (n == 0)
		return 0;
	buf_raise_mark(b, i + n);
	buf_changed(b);
	(key_n <= KEY_SHORT ? xor_short : xor_long)(b->at + i, n, from, key_n,
						    (at - 1) % key_n);
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

/* The number of bytes from `from` to the end of b's own memory; 0 when `from`
 * points elsewhere. */
static size_t
bytes_own(const struct bufpool_buf *b, const void *from)
{
	uintptr_t at = (uintptr_t)from, base = (uintptr_t)b->base;
	size_t size = b->base != NULL ? buf_size(b) : 0;

	return at >= base && at - base < size ? size - (at - base) : 0;
}

/* Old contents need not move, so memory that is large enough is reused from its
 * start. A pointer into that memory then stays valid. */
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

/* Copies the source first, because growth moves or wipes b's own memory. */
static int
append_own(struct bufpool_buf *b, struct bufpool_box *box, const void *from,
	   size_t n)
{
	struct bufpool_buf *copy =
		bp_checkout_at(pool_of(b), n, 0, TAKE_ANY | TAKE_CLOSED,
			       SITE_NONE);
	int error;

	if (copy == NULL)
		return errno;	/* Not run: no memory. */
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
bp_bytes_prepend(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box,
		 const void *from, size_t n, const void *source,
		 int32_t source_epoch)
{
	size_t slack;
	int error;

	if (bytes_stale(b, epoch) || bytes_stale(source, source_epoch))
		return ESTALE;
	if (n == 0)
		return 0;
	if (n > (size_t)(b->at - b->base)) {
		if (n > buf_size(b) - b->len) {
			slack = bp_grow_slack(b);
			error = bp_append_grow(b, b->len + n + slack, box);
			if (error != 0 && slack > 0)
				/* Not run: no memory. */
				error = bp_append_grow(b, b->len + n, box);
			if (error != 0)
				return error;
		}
		bp_buf_make_head(b, n);
	}
	bp_buf_extend_front(b, n);
	memcpy(b->at, from, n);
	return 0;
}

/* Each step copies all bytes from `from` to the end, at most the rest of the
 * count, because bytes that were just appended are a source too. */
int
bp_bytes_append_range(struct bufpool_buf *b, int32_t epoch,
		      struct bufpool_box *box, size_t i, size_t n)
{
	const uint8_t *from;
	uint8_t *to;
	int error = bytes_stale(b, epoch) ? ESTALE : 0;

	if (error == 0 && n > b->capacity - b->len)
		error = bp_append_grow(b, b->len + n, box);
	if (error != 0 || n == 0)
		return error;
	from = b->at + i;
	to = b->at + b->len;
	b->len += n;
	buf_raise_mark(b, b->len);
	buf_changed(b);
	for (size_t step; n > 0; n -= step, to += step) {
		step = (size_t)(to - from) < n ? (size_t)(to - from) : n;
		memcpy(to, from, step);
	}
	return 0;
}

/* What a handle had is new to the collector; what another box had is not. */
static void
take_charge(struct bufpool_box *box, struct bufpool_box *from_box)
{
	double size = box != NULL ? (double)buf_size(box->buf) : 0;

	if (box != NULL) {
		if (from_box == NULL)
			box->account->debt += size - box->charged;
		box_charge(box->account, &box->charged, size);
	}
	if (from_box != NULL)
		box_charge(from_box->account, &from_box->charged,
			   (double)buf_size(from_box->buf));
}

int
bp_bytes_take(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box,
	      struct bufpool_buf *from, int32_t from_epoch,
	      struct bufpool_box *from_box, size_t n)
{
	int error;

	if (bytes_stale(b, epoch) || bytes_stale(from, from_epoch))
		return ESTALE;
	if (bp_grow_exchange(b, from, n)) {
		take_charge(box, from_box);
		return 0;
	}
	error = bp_bytes_append(b, epoch, box, from->at, n, NULL, 0);
	if (error == 0)
		bp_buf_consume(from, n);
	return error;
}

int
bp_bytes_split(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box,
	       size_t n, struct bufpool_box *to)
{
	struct bufpool_buf *part;

	if (bytes_stale(b, epoch))
		return ESTALE;
	part = bufpool_split(b, n < b->len ? n : b->len);
	if (part == NULL)
		return errno;
	take_charge(NULL, box);
	box_own(to->account, to, part);
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
	len = bytes_length(o);
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
	if (bytes_length(o) != n)
		return 0;
	p = bytes_start(o);
	for (size_t i = 0; i < n; i++)
		difference |= p[i] ^ q[i];
	return difference == 0;
}

/* Looks for the first byte, and compares where it stands: memchr passes many
 * bytes a cycle, memmem of glibc less than one where the needle has two. memmem
 * takes over where the first byte is frequent, because a comparison costs as
 * much as passing 32 bytes, or all that it compares, so that the time is
 * linear. The first eight short ones are free. */
static __attribute__((noinline)) const uint8_t *
bytes_search(const uint8_t *at, size_t len, const uint8_t *needle, size_t n)
{
	const uint8_t *p = at, *last = at + (len - n), *end = at + len;
	size_t spent = 0;

	while (p <= last && spent <= (size_t)(p - at) + 256) {
		p = memchr(p, needle[0], (size_t)(last - p) + 1);
		if (p == NULL || memcmp(p, needle, n) == 0)
			return p;
		p++;
		spent += n > 32 ? n : 32;
	}
	return p <= last ? memmem(p, (size_t)(end - p), needle, n) : NULL;
}

static bool
is_pattern(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] != '\0' && strchr("^$*+?.([%-", text[i]) != NULL)
			return true;
	return false;
}

static inline __attribute__((always_inline)) int64_t
bytes_find(const void *o, int32_t epoch, int64_t i, const void *source,
	   int32_t source_epoch, const void *from, size_t n, bool plain)
{
	size_t before = (size_t)i - 1, len;
	const uint8_t *start, *hit, *needle = from;

	if (bytes_stale(o, epoch) || bytes_stale(source, source_epoch))
		return -ESTALE;
	if (!plain && is_pattern(from, n))
		return -EINVAL;
	len = bytes_length(o);
	if (n == 0)
		return i;
	if (len - before < n)
		return 0;
	start = bytes_start(o);
	/* Most often a short needle stands where its first byte does. */
	hit = memchr(start + before, needle[0], len - before - n + 1);
	if (hit != NULL && (n > 2 || hit[n - 1] != needle[n - 1]))
		hit = bytes_search(hit, len - (size_t)(hit - start), needle, n);
	return hit == NULL ? 0 : hit - start + 1;
}

double
bp_bytes_find(const void *o, int32_t epoch, double i, const void *source,
	      int32_t source_epoch, const void *from, size_t n)
{
	return (double)bytes_find(o, epoch, (int64_t)i, source, source_epoch,
				  from, n, false);
}

double
bp_bytes_find_plain(const void *o, int32_t epoch, double i, const void *source,
		    int32_t source_epoch, const void *from, size_t n)
{
	return (double)bytes_find(o, epoch, (int64_t)i, source, source_epoch,
				  from, n, true);
}

int32_t
bp_bytes_find_int(const void *o, int32_t epoch, int32_t i, const void *source,
		  int32_t source_epoch, const void *from, size_t n)
{
	return (int32_t)bytes_find(o, epoch, i, source, source_epoch, from, n,
				   false);
}

int32_t
bp_bytes_find_plain_int(const void *o, int32_t epoch, int32_t i,
			const void *source, int32_t source_epoch,
			const void *from, size_t n)
{
	return (int32_t)bytes_find(o, epoch, i, source, source_epoch, from, n,
				   true);
}

double
bp_bytes_find_any(const void *o, int32_t epoch, double i, const void *source,
		  int32_t source_epoch, const void *from, size_t n)
{
	const uint8_t *p, *set = from;
	bool wanted[UINT8_MAX + 1] = { false };

	if (bytes_stale(o, epoch) || bytes_stale(source, source_epoch))
		return -ESTALE;
	p = bytes_start(o);
	for (size_t k = 0; k < n; k++)
		wanted[set[k]] = true;
	for (size_t k = (size_t)(int64_t)i; k <= bytes_length(o); k++)
		if (wanted[p[k - 1]])
			return (double)k;
	return 0;
}

int
bp_bytes_free(struct bufpool_buf *b, int32_t epoch, struct bufpool_box *box)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	bp_grow_free(b);
	if (box != NULL)
		box_charge(box->account, &box->charged, (double)buf_size(b));
	return 0;
}

int
bp_bytes_wipe(struct bufpool_buf *b, int32_t epoch)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	bp_buf_wipe(b);
	return 0;
}

int
bp_bytes_consume(struct bufpool_buf *b, int32_t epoch, size_t n)
{
	if (bytes_stale(b, epoch))
		return ESTALE;
	bp_buf_consume(b, n < b->len ? n : b->len);
	return 0;
}
