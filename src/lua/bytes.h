/*
 * bytes - methods that move, compare or look for bytes, each in one call.
 *
 * Lua looks at an object, works out where the bytes are, and calls one of
 * these. Whatever ran in between may have changed the object, so each compares
 * the epochs that Lua has seen and then acts, and nothing can come between the
 * two. `o` and `source` are a descriptor or a frozen box. A source of NULL
 * stands for memory that is no object of ours, and is not compared.
 *
 * calls.h says what each may do. By the owner of the objects only.
 */
#ifndef BUFPOOL_LUA_BYTES_H
#define BUFPOOL_LUA_BYTES_H

#include "box.h"

/* The fields that a descriptor and a frozen box have in one place. */
#define SAME(field) \
	_Static_assert(offsetof(struct bufpool_buf, field) == \
		       offsetof(struct bufpool_frozen_box, field), #field)
SAME(at);
SAME(len);
SAME(epoch);
#undef SAME

static inline const uint8_t *
bytes_start(const void *o)
{
	const uint8_t *at;

	memcpy(&at, (const char *)o + offsetof(struct bufpool_buf, at),
	       sizeof at);
	return at;
}

static inline size_t
bytes_length(const void *o)
{
	size_t len;

	memcpy(&len, (const char *)o + offsetof(struct bufpool_buf, len),
	       sizeof len);
	return len;
}

static inline bool
bytes_stale(const void *o, int32_t seen)
{
	int32_t epoch = seen;

	if (o != NULL)
		memcpy(&epoch,
		       (const char *)o + offsetof(struct bufpool_buf, epoch),
		       sizeof epoch);
	return epoch != seen;
}

/* ffi: begin */
/* What several functions of calls.h look like. */
typedef int bufpool_room_fn(struct bufpool_buf *, int32_t epoch, size_t n,
			    struct bufpool_box *box);
typedef int bufpool_count_fn(struct bufpool_buf *, int32_t epoch, size_t n);
typedef int bufpool_change_fn(struct bufpool_buf *, int32_t epoch);
typedef int bufpool_copy_fn(struct bufpool_buf *, int32_t epoch,
			    struct bufpool_box *box, const void *from, size_t n,
			    const void *source, int32_t source_epoch);
typedef int bufpool_compare_fn(const void *o, int32_t epoch, const void *source,
			       int32_t source_epoch, const void *from,
			       size_t n);
typedef double bufpool_find_fn(const void *o, int32_t epoch, double i,
			       const void *source, int32_t source_epoch,
			       const void *from, size_t n);
typedef int32_t bufpool_find_int_fn(const void *o, int32_t epoch, int32_t i,
				    const void *source, int32_t source_epoch,
				    const void *from, size_t n);
typedef double bufpool_checksum_fn(const void *o, int32_t epoch, size_t i,
				   size_t n, int32_t before);
/* ffi: end */

bufpool_room_fn bp_bytes_grow, bp_bytes_resize, bp_bytes_extend;
bufpool_count_fn bp_bytes_grant, bp_bytes_commit, bp_bytes_consume;
bufpool_change_fn bp_bytes_expose, bp_bytes_wipe;
bufpool_copy_fn bp_bytes_assign, bp_bytes_append, bp_bytes_prepend;
bufpool_compare_fn bp_bytes_compare, bp_bytes_equal_ct;
bufpool_find_fn bp_bytes_find, bp_bytes_find_plain, bp_bytes_find_any;
bufpool_find_int_fn bp_bytes_find_int, bp_bytes_find_plain_int;
int bp_bytes_store(struct bufpool_buf *b, int32_t epoch, size_t i,
		   int32_t bytes, int n);
int bp_bytes_fill(struct bufpool_buf *b, int32_t epoch, size_t i, size_t n,
		  int byte);
int bp_bytes_xor(struct bufpool_buf *b, int32_t epoch, size_t i, size_t n,
		 const void *source, int32_t source_epoch, const void *from,
		 size_t key_n, size_t at);
int bp_bytes_overwrite(struct bufpool_buf *b, int32_t epoch, size_t i,
		       const void *from, size_t n, const void *source,
		       int32_t source_epoch);
int bp_bytes_append_range(struct bufpool_buf *b, int32_t epoch,
			  struct bufpool_box *box, size_t i, size_t n);
int bp_bytes_take(struct bufpool_buf *b, int32_t epoch,
		  struct bufpool_box *box, struct bufpool_buf *from,
		  int32_t from_epoch, struct bufpool_box *from_box, size_t n);
/* Moves the first n bytes, or as many as there are, to a buffer of the same
 * pool, with which it fills a box that has nothing inside. 0 or an errno. */
int bp_bytes_split(struct bufpool_buf *b, int32_t epoch,
		   struct bufpool_box *box, size_t n, struct bufpool_box *to);
int bp_bytes_free(struct bufpool_buf *b, int32_t epoch,
		  struct bufpool_box *box);

#endif
