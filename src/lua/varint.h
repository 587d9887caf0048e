/*
 * varint - integers of 1 to 10 bytes, which have seven bits each, the lowest
 * first (LEB128). All but the last byte have the eighth bit set. A form is what
 * the bits stand for: an unsigned integer or, by zigzag, a signed one, which
 * has its sign in the lowest bit.
 */
#ifndef BUFPOOL_LUA_VARINT_H
#define BUFPOOL_LUA_VARINT_H

#include "bytes.h"

#define VARINT_MAX 10	/* bytes that hold any 64 bits */
#define VARINT_NUMBER 0x1p53	/* the largest that is a number in Lua */

/* A form has these bits. */
#define VARINT_ZIGZAG 1
#define VARINT_WIDE 2	/* to read: any 64 bits, not only numbers of Lua */

/* What bp_varint_get returns instead of a number: an errno, times this. */
#define VARINT_FAILED 0x1p60

/* Bytes of the integer v. */
int bp_varint_size(int64_t v, int form);

/* Writes the integer v to VARINT_MAX bytes or fewer, and returns how many. */
size_t bp_varint_write(uint8_t *to, int64_t v, int form);

/* Reads the integer at the start of `len` bytes. Returns how many bytes it has,
 * or an errno negated: ENODATA where the bytes end inside it, EOVERFLOW where
 * it has more than 64 bits, ERANGE where it has to be a number of Lua and is
 * none. */
int bp_varint_read(const uint8_t *at, size_t len, int form, uint64_t *v);

/* v as a number. */
static inline double
varint_number(uint64_t v, int form)
{
	return form & VARINT_ZIGZAG ? (double)(int64_t)v : (double)v;
}

/* put_varint, get_varint, peek_varint and varint_length of calls.h. */
int bp_varint_put(struct bufpool_buf *b, int32_t epoch, int64_t v, int form);
double bp_varint_get(struct bufpool_buf *b, int32_t epoch, int form,
		     uint64_t seen);
uint64_t bp_varint_peek(const void *o, int32_t epoch, size_t i, int form);
int bp_varint_length(const void *o, int32_t epoch, size_t i, int form);

#endif
