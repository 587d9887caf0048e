/*
 * file - reads and writes of descriptors and of FILEs. calls.h says what each
 * may do.
 */
#ifndef BUFPOOL_LUA_FILE_H
#define BUFPOOL_LUA_FILE_H

#include "bytes.h"

#define BYTES_STALE (-65536)	/* no errno */

double bp_file_read(struct bufpool_buf *b, int32_t epoch, int fd, size_t i,
		    size_t n);
double bp_file_fread(struct bufpool_buf *b, int32_t epoch, void *file, size_t i,
		     size_t n);
double bp_file_write(const void *o, int32_t epoch, int fd, size_t i, size_t n);
double bp_file_fwrite(const void *o, int32_t epoch, void *file, size_t i,
		      size_t n);
double bp_file_rest(int fd);
double bp_file_frest(void *file);

#endif
