/*
 * calls - the functions that Lua calls by FFI.
 */
#ifndef BUFPOOL_LUA_CALLS_H
#define BUFPOOL_LUA_CALLS_H

#include "append.h"
#include "file.h"
#include "nginx/piece.h"

/* ffi: begin */
/*
 * What Lua calls by FFI. These functions raise nothing and know no Lua state.
 * Those that take an epoch do nothing and return ESTALE when the object's is
 * another one. Growth is charged to `box`, or to nobody when that is NULL. An
 * int is 0 or an errno. Numbers that can be large are doubles, which Lua need
 * not box. `i` counts bytes from the start of the contents; the caller has seen
 * at this epoch that what it asks for fits. `source` and source_epoch belong to
 * the object that `from` points into, if any: bytes.h.
 *
 * extend makes the contents at least n bytes long; what that adds is the
 * caller's to write. grant lets commit append what lies before `end`. store
 * writes n bytes, the lowest first, 4 at most. xor_range XORs with the key_n
 * bytes at `from`, one at least, repeated without end; `at` counts from 1 and
 * says which of these comes first. assign and append grow; `from` may point
 * into the buffer's own memory, and they return EFAULT when n bytes go past its
 * end. prepend grows too, but `from` may not point there. append_range grows,
 * and appends the buffer's own bytes; where these reach past the end, they are
 * what it has just appended. take moves the first n bytes of another buffer to
 * the end of b. compare returns -1, 0 or 1, and equal_ct 0 or 1. For find,
 * find_plain and find_any `i` is a position, counted from 1, whose fraction
 * they cut off. They return the first position from there on, 0 when there is
 * none, or -ESTALE; find also -EINVAL, for the characters of a pattern;
 * find_any looks for one of the n bytes. find_int and find_plain_int are for
 * contents of less than INT_MAX bytes.
 * crc32 and adler32 return 32 bits, -ESTALE or -ENOSYS; `before` is the
 * checksum of the bytes before these.
 * read and fread make bytes that have come past the end part of the contents.
 * writev and fwritev write `count` parts.
 *
 * I/O returns bytes, an errno negated, or BYTES_STALE for ESTALE, which is also
 * an errno of some file systems; rest and frest return the bytes that a regular
 * file has from here to its end, or -1 where nobody knows. borrow returns NULL
 * when it fails, and leaves the errno in the pool's box: ESITE when borrow_at
 * has to be called instead. detach returns a ticket or an errno negated.
 * release returns ESITE when it has released the buffer and core.released has
 * to be called. freeze fills a box that has nothing inside. scope.h tells what
 * those of scopes do.
 *
 * put and put_handle append `count` values, all or none. They return ESTALE
 * when the turn is over, and APPEND_ODD when the buffer or a value is not what
 * it should be, or a value is the buffer, or a number whose text only Lua can
 * tell.
 *
 * put_varint returns ENOBUFS where there is no room for v. get_varint takes an
 * integer off the front and returns it or, of a wide form, 0; or what
 * VARINT_FAILED tells: ESTALE too where a wide one is not what peek_varint has
 * `seen`. That returns the integer in 64 bits, and 0 where there is none;
 * varint_length, how many bytes it has, or an errno negated. To these two any i
 * may be given. varint.h tells what a form is.
 *
 * lend_frozen and lend_copy fill a piece that may outlive the object. A copy is
 * a frozen buffer of the same pool. An empty piece has nothing to be released.
 * take_back releases what is left of `count` pieces.
 */
struct bufpool_calls {
	bufpool_room_fn *const grow, *const resize, *const extend;
	bufpool_count_fn *const grant, *const commit, *const consume;
	bufpool_change_fn *const expose, *const wipe, *const release;
	bufpool_copy_fn *const assign, *const append, *const prepend;
	bufpool_compare_fn *const compare, *const equal_ct;
	bufpool_find_fn *const find, *const find_plain, *const find_any;
	bufpool_find_int_fn *const find_int, *const find_plain_int;
	bufpool_checksum_fn *const crc32, *const adler32;
	int (*const store)(struct bufpool_buf *, int32_t epoch, size_t i,
			   int32_t bytes, int n);
	int (*const fill)(struct bufpool_buf *, int32_t epoch, size_t i,
			  size_t n, int byte);
	int (*const xor_range)(struct bufpool_buf *, int32_t epoch, size_t i,
			       size_t n, const void *source,
			       int32_t source_epoch, const void *from,
			       size_t key_n, size_t at);
	int (*const overwrite)(struct bufpool_buf *, int32_t epoch, size_t i,
			       const void *from, size_t n,
			       const void *source, int32_t source_epoch);
	int (*const append_range)(struct bufpool_buf *, int32_t epoch,
				  struct bufpool_box *box, size_t i,
				  size_t n);
	int (*const take)(struct bufpool_buf *, int32_t epoch,
			  struct bufpool_box *box, struct bufpool_buf *from,
			  int32_t from_epoch, struct bufpool_box *from_box,
			  size_t n);
	double (*const read)(struct bufpool_buf *, int32_t epoch, int fd,
			     size_t i, size_t n);
	double (*const fread)(struct bufpool_buf *, int32_t epoch, void *file,
			      size_t i, size_t n);
	double (*const write)(const void *o, int32_t epoch, int fd, size_t i,
			      size_t n);
	double (*const fwrite)(const void *o, int32_t epoch, void *file,
			       size_t i, size_t n);
	double (*const writev)(int fd, const struct bufpool_part *,
			       int count);
	double (*const fwritev)(void *file, const struct bufpool_part *,
				int count);
	int (*const free)(struct bufpool_buf *, int32_t epoch,
			  struct bufpool_box *box);
	int (*const put)(struct bufpool_box *, const struct bufpool_values *,
			 int count, int32_t turn);
	int (*const put_handle)(struct bufpool_handle *,
				const struct bufpool_values *, int count,
				int32_t turn);
	int (*const varint_size)(int64_t v, int form);
	int (*const put_varint)(struct bufpool_buf *, int32_t epoch, int64_t v,
				int form);
	double (*const get_varint)(struct bufpool_buf *, int32_t epoch,
				   int form, uint64_t seen);
	uint64_t (*const peek_varint)(const void *o, int32_t epoch, size_t i,
				      int form);
	int (*const varint_length)(const void *o, int32_t epoch, size_t i,
				   int form);
	struct bufpool_handle *(*const borrow)(struct bufpool_pool_box *,
					       size_t n);
	struct bufpool_handle *(*const borrow_at)(struct bufpool_pool_box *,
						  size_t n, int site);
	struct bufpool_handle *(*const scope_open)(struct bufpool_pool_box *,
						   void *request, int late);
	struct bufpool_handle *(*const scope_borrow)(struct bufpool_pool_box *,
		struct bufpool_handle *list, size_t n, size_t alignment,
		int kind);
	double (*const scope_held)(const struct bufpool_pool_box *,
				   struct bufpool_handle *list, size_t n,
				   int what);
	int (*const freeze)(struct bufpool_buf *, int32_t epoch,
			    struct bufpool_frozen_box *to);
	double (*const detach)(struct bufpool_buf *, int32_t epoch);
	struct bufpool_buf *(*const descriptor)(uint32_t number);
	uint32_t (*const descriptors)(void);
	double (*const rest)(int fd);
	double (*const frest)(void *file);
	void (*const shortage)(int error, double size, char *to, size_t n);
	void (*const message)(int error, char *to, size_t n);
	int (*const lend_frozen)(struct bufpool_frozen_box *, int32_t epoch,
				 struct bufpool_piece *to);
	int (*const lend_copy)(struct bufpool_buf *, int32_t epoch,
			       struct bufpool_piece *to);
	void (*const take_back)(struct bufpool_piece *, size_t count);
	int (*const sink_open)(struct bufpool_sink *, struct bufpool_buf *,
			       int32_t epoch, size_t max);
	struct bufpool_handle *(*const sink_handle)(
		const struct bufpool_sink *);
};
/* ffi: end */

extern const struct bufpool_calls bp_ffi_calls;

#endif
