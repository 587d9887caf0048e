#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file.h"

/* Called before bytes are read to [i, i + n) of the buffer. The mark stays
 * raised when the read fails, because a failed read may have written. */
static void
file_prepare(struct bufpool_buf *b, size_t i, size_t n)
{
	buf_raise_mark(b, i + n);
	buf_changed(b);
}

/* The bytes that have come belong to the contents. */
static double
file_received(struct bufpool_buf *b, size_t i, size_t got)
{
	if (b->len < i + got)
		b->len = i + got;
	return (double)got;
}

double
bp_file_read(struct bufpool_buf *b, int32_t epoch, int fd, size_t i, size_t n)
{
	ssize_t got;

	if (bytes_stale(b, epoch))
		return BYTES_STALE;
	file_prepare(b, i, n);
	do
		got = read(fd, b->at + i, n);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : file_received(b, i, (size_t)got);
}

/* The errno of a failure that only ferror reports, because musl sets no errno
 * where a file is not open for reading or writing. */
static double
file_failure(int error)
{
	return error != 0 ? -error : -EBADF;
}

/* LuaJIT passes the FILE pointer inside a file of Lua, which is NULL once that
 * is closed. As io.read does, this forgets the end that an earlier call met,
 * and its error: the file may have grown since. */
double
bp_file_fread(struct bufpool_buf *b, int32_t epoch, void *file, size_t i,
	      size_t n)
{
	size_t got;

	if (bytes_stale(b, epoch))
		return BYTES_STALE;
	if (file == NULL)
		return -EBADF;
	if (n == 0)
		return 0;
	file_prepare(b, i, n);
	clearerr(file);
	errno = 0;
	got = fread(b->at + i, 1, n, file);
	return got == 0 && ferror((FILE *)file) ?
		file_failure(errno) : file_received(b, i, got);
}

double
bp_file_write(const void *o, int32_t epoch, int fd, size_t i, size_t n)
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
bp_file_fwrite(const void *o, int32_t epoch, void *file, size_t i, size_t n)
{
	size_t put;

	if (bytes_stale(o, epoch))
		return BYTES_STALE;
	if (file == NULL)
		return -EBADF;	/* Not run: Lua has looked. */
	if (n == 0)
		return 0;	/* Not run: Lua has looked. */
	errno = 0;
	put = fwrite(bytes_start(o) + i, 1, n, file);
	return put < n ? file_failure(errno) : (double)put;
}

static bool
parts_stale(const struct bufpool_part *parts, int count)
{
	for (int k = 0; k < count; k++)
		if (bytes_stale(parts[k].source, parts[k].epoch))
			return true;
	return false;
}

double
bp_file_writev(int fd, const struct bufpool_part *parts, int count)
{
	struct iovec list[PARTS_MAX];
	size_t total = 0;
	ssize_t put;

	if (parts_stale(parts, count))
		return BYTES_STALE;	/* Not run: a finalizer in between. */
	for (int k = 0; k < count; k++) {
		list[k].iov_base = (void *)(uintptr_t)parts[k].at;
		list[k].iov_len = parts[k].len;
		total += parts[k].len;
	}
	if (total == 0)
		return 0;
	do
		put = writev(fd, list, count);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : (double)put;
}

double
bp_file_fwritev(void *file, const struct bufpool_part *parts, int count)
{
	double total = 0;

	if (parts_stale(parts, count))
		return BYTES_STALE;
	if (file == NULL)
		return -EBADF;
	for (int k = 0; k < count; k++) {
		size_t n = parts[k].len;

		errno = 0;
		if (n > 0 && fwrite(parts[k].at, 1, n, file) < n)
			return file_failure(errno);
		total += (double)n;
	}
	return total;
}

/* Files of /proc say that they are empty, and are not. */
static double
file_rest_from(int fd, off_t at)
{
	struct stat file;

	if (at < 0 || fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) ||
	    file.st_size == 0)
		return -1;
	return file.st_size > at ? (double)(file.st_size - at) : 0;
}

double
bp_file_rest(int fd)
{
	return file_rest_from(fd, lseek(fd, 0, SEEK_CUR));
}

double
bp_file_frest(void *file)
{
	return file == NULL ? -1 : file_rest_from(fileno(file), ftello(file));
}
