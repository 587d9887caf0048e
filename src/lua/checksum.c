#include <dlfcn.h>
#include <stdatomic.h>

#include "checksum.h"

/* crc32_z and adler32_z, which take a length of 64 bits. zlib's type of what
 * they return is unsigned long. */
typedef unsigned long sum_of_bytes(unsigned long before, const uint8_t *at,
				   size_t n);

/* Of threads that load zlib at once each stores the same address. S1: the
 * release comes after the loader has made the code ready; S2, the acquire of a
 * thread that finds the address, pairs with it. */
static sum_of_bytes *
load(sum_of_bytes *_Atomic *found, const char *name)
{
	sum_of_bytes *sum = atomic_load_explicit(found, memory_order_acquire);
	void *zlib;

	if (sum != NULL)
		return sum;
	zlib = dlopen("libz.so.1", RTLD_NOW);
	if (zlib == NULL)
		return NULL;
	*(void **)&sum = dlsym(zlib, name);
	atomic_store_explicit(found, sum, memory_order_release);
	return sum;
}

/* zlib takes a null pointer for a question, so no bytes are left to us. */
static double
checksum(sum_of_bytes *sum, const void *o, int32_t epoch, size_t i, size_t n,
	 int32_t before)
{
	unsigned long start = (uint32_t)before;

	if (bytes_stale(o, epoch))
		return -ESTALE;
	if (sum == NULL)
		return -ENOSYS;
	return (double)(n == 0 ? start : sum(start, bytes_start(o) + i, n));
}

double
bp_checksum_crc32(const void *o, int32_t epoch, size_t i, size_t n,
		  int32_t before)
{
	static sum_of_bytes *_Atomic crc32;

	return checksum(load(&crc32, "crc32_z"), o, epoch, i, n, before);
}

double
bp_checksum_adler32(const void *o, int32_t epoch, size_t i, size_t n,
		    int32_t before)
{
	static sum_of_bytes *_Atomic adler32;

	return checksum(load(&adler32, "adler32_z"), o, epoch, i, n, before);
}
