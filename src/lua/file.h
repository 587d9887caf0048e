/*
 * file - reads and writes of descriptors and of FILEs. calls.h says what each
 * may do.
 */
#ifndef BUFPOOL_LUA_FILE_H
#define BUFPOOL_LUA_FILE_H

#include "bytes.h"

#define BYTES_STALE (-65536)	/* no errno */
#define PARTS_MAX 1024	/* as many as the system takes in one call */

/* ffi: begin */
struct bufpool_part {	/* of what writev writes */
	const void *at;
	size_t len;
	const void *source;	/* whose bytes these are; NULL: no object's */
	int32_t epoch;		/* of the source */
};
/* ffi: end */

double bp_file_read(struct bufpool_buf *b, int32_t epoch, int fd, size_t i,
		    size_t n);
double bp_file_fread(struct bufpool_buf *b, int32_t epoch, void *file, size_t i,
		     size_t n);
double bp_file_write(const void *o, int32_t epoch, int fd, size_t i, size_t n);
double bp_file_fwrite(const void *o, int32_t epoch, void *file, size_t i,
		      size_t n);
double bp_file_writev(int fd, const struct bufpool_part *parts, int count);
double bp_file_fwritev(void *file, const struct bufpool_part *parts,
		       int count);
double bp_file_rest(int fd);
double bp_file_frest(void *file);

#endif
