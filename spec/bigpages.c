/*
 * Pages larger than a class: 64 KiB, as on some arm64 and ppc64 systems. The
 * program stands in for the calls that tell the size of a page or work on whole
 * pages, and rounds as such a system does.
 *
 * The oracle is the bytes of neighbours: what one buffer gives back must not
 * take another's contents along.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/pool.h"

#define PAGE ((size_t)65536)
#define SMALL 4096
#define HELD 64
#define STANDS_IN __attribute__((visibility("default")))
#define REAL(name, ...) \
	((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

static size_t
whole(size_t bytes)
{
	return (bytes + PAGE - 1) / PAGE * PAGE;
}

static int
refuse(const void *at)
{
	if ((uintptr_t)at % PAGE == 0)
		return 0;
	errno = EINVAL;
	return -1;
}

STANDS_IN long
sysconf(int name)
{
	return name == _SC_PAGESIZE ? (long)PAGE : REAL(sysconf, name);
}

STANDS_IN void *
mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	uint8_t *p = REAL(mmap, at, whole(bytes) + PAGE, prot, flags, fd,
			  offset);
	size_t head = (size_t)(-(uintptr_t)p % PAGE);

	if (p == MAP_FAILED)
		return p;
	if (head != 0)
		REAL(munmap, p, head);
	REAL(munmap, p + head + whole(bytes), PAGE - head);
	return p + head;
}

STANDS_IN int
munmap(void *at, size_t bytes)
{
	return refuse(at) ? -1 : REAL(munmap, at, whole(bytes));
}

STANDS_IN int
mprotect(void *at, size_t bytes, int prot)
{
	return refuse(at) ? -1 : REAL(mprotect, at, whole(bytes), prot);
}

STANDS_IN int
madvise(void *at, size_t bytes, int advice)
{
	return refuse(at) ? -1 : REAL(madvise, at, whole(bytes), advice);
}

/* Every second one is given back to the system. */
static void
buffers_outlive_neighbours_that_go_back(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);
	struct bufpool_buf *held[HELD];

	(void)state;
	for (int i = 0; i < HELD; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, SMALL));
		memset(bufpool_data(held[i]), i + 1, SMALL);
	}
	for (int i = 0; i < HELD; i += 2)
		bufpool_release(held[i]);
	bufpool_trim(p);
	for (int i = 1; i < HELD; i += 2) {
		const uint8_t *byte = bufpool_peek(held[i]);

		assert_int_equal(byte[0], i + 1);
		assert_memory_equal(byte, byte + 1, SMALL - 1);
		bufpool_release(held[i]);
	}
	for (int i = 0; i < HELD; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, SMALL));
		assert_all_zero(held[i]);
	}
	for (int i = 0; i < HELD; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* What is left of a page's pools may not go with the first. */
static void
pools_live_on_when_neighbours_end(void **state)
{
	struct bufpool *p[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		p[i] = new_pool(0, 1, 0);
	bufpool_destroy(p[0]);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(stats_of(p[i]).committed_bytes, 65536);
		bufpool_destroy(p[i]);
	}
}

static void
buffers_of_whole_pages_go_back(void **state)
{
	struct bufpool *p = new_pool(0, 0, 0);

	(void)state;
	bufpool_release(bufpool_checkout(p, PAGE));
	bufpool_release(bufpool_checkout(p, 5 * PAGE));
	bufpool_trim(p);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_outlive_neighbours_that_go_back),
		cmocka_unit_test(pools_live_on_when_neighbours_end),
		cmocka_unit_test(buffers_of_whole_pages_go_back),
	};

	return cmocka_run_group_tests_name("bigpages", tests, NULL, NULL);
}
