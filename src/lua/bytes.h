/*
 * bytes - methods that move, compare or look for bytes, each in one call.
 *
 * Lua looks at an object, works out where the bytes are, and calls one of
 * these. Whatever ran in between may have changed the object, so each compares
 * the epochs that Lua has seen and then acts, and nothing can come between the
 * two. `o` and `source` are a descriptor or a frozen box. A source of NULL
 * stands for memory that is no object of ours, and is not compared.
 *
 * box.h says what each may do. By the owner of the objects only.
 */
#ifndef BUFPOOL_LUA_BYTES_H
#define BUFPOOL_LUA_BYTES_H

#include "box.h"

int bp_bytes_grow(struct bufpool_buf *b, int32_t epoch, size_t capacity,
		  struct bufpool_box *box);
int bp_bytes_resize(struct bufpool_buf *b, int32_t epoch, size_t n,
		    struct bufpool_box *box);
int bp_bytes_extend(struct bufpool_buf *b, int32_t epoch, size_t n,
		    struct bufpool_box *box);
int bp_bytes_grant(struct bufpool_buf *b, int32_t epoch, size_t end);
int bp_bytes_commit(struct bufpool_buf *b, int32_t epoch, size_t n);
int bp_bytes_expose(struct bufpool_buf *b, int32_t epoch);
int bp_bytes_store(struct bufpool_buf *b, int32_t epoch, size_t i,
		   int32_t bytes,
		   int n);
int bp_bytes_fill(struct bufpool_buf *b, int32_t epoch, size_t i, size_t n,
		  int byte);
int bp_bytes_overwrite(struct bufpool_buf *b, int32_t epoch, size_t i,
		       const void *from, size_t n, const void *source,
		       int32_t source_epoch);
int bp_bytes_assign(struct bufpool_buf *b, int32_t epoch,
		    struct bufpool_box *box,
		    const void *from, size_t n, const void *source,
		    int32_t source_epoch);
int bp_bytes_append(struct bufpool_buf *b, int32_t epoch,
		    struct bufpool_box *box,
		    const void *from, size_t n, const void *source,
		    int32_t source_epoch);
int bp_bytes_compare(const void *o, int32_t epoch, const void *source,
		     int32_t source_epoch, const void *from, size_t n);
int bp_bytes_equal_ct(const void *o, int32_t epoch, const void *source,
		      int32_t source_epoch, const void *from, size_t n);
double bp_bytes_find(const void *o, int32_t epoch, size_t i, const void *source,
		     int32_t source_epoch, const void *from, size_t n);
double bp_bytes_find_plain(const void *o, int32_t epoch, size_t i,
			   const void *source, int32_t source_epoch,
			   const void *from, size_t n);
double bp_bytes_read(struct bufpool_buf *b, int32_t epoch, int fd, size_t i,
		     size_t n);
double bp_bytes_fread(struct bufpool_buf *b, int32_t epoch, void *file,
		      size_t i,
		      size_t n);
double bp_bytes_write(const void *o, int32_t epoch, int fd, size_t i, size_t n);
double bp_bytes_fwrite(const void *o, int32_t epoch, void *file, size_t i,
		       size_t n);

#endif
