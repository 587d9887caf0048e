/*
 * Where the system's pages are larger than buffers, several buffers share one,
 * and it goes back when all of them are idle. The program stands in for
 * sysconf, mmap and madvise, as if pages had 64 KiB; the kernel's own are a
 * divisor of that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "bufpool.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define PAGE ((size_t)65536)
#define MIB ((size_t)1 << 20)
#define COUNT 256

/* The program's own definitions come before those of the C library. */
#define STANDS_IN __attribute__((visibility("default")))
#define REAL(name, ...) \
	((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

STANDS_IN long
sysconf(int name)
{
	return name == _SC_PAGESIZE ? (long)PAGE : REAL(sysconf, name);
}

STANDS_IN void *
mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	uint8_t *p = REAL(mmap, at, bytes + PAGE, prot, flags, fd, offset);
	size_t head;

	if (p == MAP_FAILED)
		return p;
	head = -(uintptr_t)p & (PAGE - 1);
	if (head > 0)
		munmap(p, head);
	munmap(p + head + bytes, PAGE - head);
	return p + head;
}

STANDS_IN int
madvise(void *at, size_t bytes, int advice)
{
	if ((uintptr_t)at % PAGE != 0) {
		errno = EINVAL;
		return -1;
	}
	return REAL(madvise, at, (bytes + PAGE - 1) & ~(PAGE - 1), advice);
}

static struct bufpool_buf *held[COUNT];

static struct bufpool *
make_pool(size_t size, size_t max_bytes, int huge_pages)
{
	struct bufpool_class_config classes[] = { { size, 0 }, { 262144, 0 } };
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = 2;
	config.max_bytes = max_bytes;
	config.huge_pages = huge_pages;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

/* All that n bytes fit into; each buffer holds its number. */
static void
check_out(struct bufpool *p, size_t n)
{
	for (size_t i = 0; i < COUNT; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, n));
		assert_all_zero(held[i]);
		memset(bufpool_data(held[i]), (int)i, n);
	}
}

static void
release(size_t i)
{
	const uint8_t *bytes = bufpool_peek(held[i]);

	for (size_t k = 0; k < bufpool_len(held[i]); k++)
		assert_int_equal(bytes[k], i & 255);
	bufpool_release(held[i]);
	held[i] = NULL;
}

static bool
is_first_of_page(size_t i)
{
	return (uintptr_t)bufpool_peek(held[i]) % PAGE == 0;
}

static void
an_idle_pool_has_room_for_any_class(void **state)
{
	struct bufpool *p = make_pool(4096, MIB, 0);
	size_t before = resident_bytes();

	(void)state;
	for (int again = 0; again < 3; again++) {
		check_out(p, 4096);
		assert_null(bufpool_checkout(p, 1));
		for (size_t i = 0; i < COUNT; i++)
			release(i);
		for (size_t i = 0; i < 4; i++)
			assert_non_null(held[i] = bufpool_checkout(p, 262144));
		for (size_t i = 0; i < 4; i++)
			bufpool_release(held[i]);
	}
	assert_int_equal(bufpool_trim(p), MIB);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	/* What the pool keeps is eight pages of the kernel's. */
	if (memory_is_its_own())
		assert_true(resident_bytes() < before + MIB / 4 +
			    8 * (size_t)REAL(sysconf, _SC_PAGESIZE));
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
a_buffer_that_is_out_keeps_its_page(void **state)
{
	struct bufpool *p = make_pool(4096, MIB, 0);
	size_t pages = 0;

	(void)state;
	check_out(p, 4096);
	for (size_t i = 0; i < COUNT; i++)
		if (!is_first_of_page(i))
			release(i);
		else
			pages++;
	assert_int_equal(pages, COUNT / 16);
	assert_int_equal(bufpool_trim(p), 0);
	errno = 0;
	assert_null(bufpool_checkout(p, 262144));
	assert_int_equal(errno, EDQUOT);
	for (size_t i = 0; i < COUNT; i++)
		if (held[i] != NULL && pages-- > 4) {
			release(i);
			assert_int_equal(bufpool_trim(p), PAGE);
		}
	assert_int_equal(stats_of(p).committed_bytes, 4 * PAGE);
	for (size_t i = 0; i < COUNT; i++)
		if (held[i] != NULL)
			release(i);
	check_out(p, 4096);
	for (size_t i = 0; i < COUNT; i++)
		release(i);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
a_part_is_trimmed(void **state)
{
	struct bufpool *p = make_pool(4096, 0, 0);
	int more = 1;

	(void)state;
	check_out(p, 4096);
	for (size_t i = 0; i < COUNT; i++)
		release(i);
	while (more)
		assert_true(bufpool_trim_some(p, PAGE, &more) <= PAGE);
	bufpool_trim(p);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

/* No buffer begins in a page and ends in another, whatever its size. */
static void
every_size_goes_back(void **state)
{
	static const size_t sizes[] = { 4096, 8192, 65536, 12288, 20480, 45056,
					69632, 258048 };

	(void)state;
	/* Of a huge page, what lies between the last ones is not a buffer's. */
	for (int huge = 0; huge < 2; huge++)
		for (size_t s = 0; s < (huge ? 3 : 8); s++) {
			struct bufpool *p = make_pool(sizes[s], 0, huge);

			for (int again = 0; again < 2; again++) {
				check_out(p, sizes[s]);
				for (size_t i = 0; i < COUNT; i++)
					release(i);
				bufpool_trim(p);
				assert_int_equal(stats_of(p).committed_bytes,
						 0);
			}
			assert_conserved(p);
			bufpool_destroy(p);
		}
}

static void *
use_and_trim(void *arg)
{
	struct bufpool *p = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (int round = 0; round < 500; round++) {
		struct bufpool_buf *mine[40];
		size_t count = (size_t)rand_r(&seed) % 40 + 1;

		for (size_t i = 0; i < count; i++) {
			mine[i] = bufpool_checkout(p, 4096);
			CHECK(mine[i] != NULL, "round %d", round);
			for (size_t k = 0; k < 4096; k += 8)
				CHECK(*(uint64_t *)(mine[i]->at + k) == 0,
				      "round %d, byte %zu", round, k);
			memset(bufpool_data(mine[i]), 1, 4096);
		}
		for (size_t i = 0; i < count; i++) {
			for (size_t k = 0; k < 4096; k++)
				CHECK(mine[i]->at[k] == 1, "round %d, byte %zu",
				      round, k);
			bufpool_release(mine[i]);
		}
		if (rand_r(&seed) % 4 == 0)
			bufpool_trim(p);
	}
	return NULL;
}

static void
pages_go_back_while_others_use_the_pool(void **state)
{
	struct bufpool *p = make_pool(4096, 0, 0);
	pthread_t thread[4];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, use_and_trim,
						p), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	bufpool_trim(p);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_pool_has_room_for_any_class),
		cmocka_unit_test(a_buffer_that_is_out_keeps_its_page),
		cmocka_unit_test(a_part_is_trimmed),
		cmocka_unit_test(every_size_goes_back),
		cmocka_unit_test(pages_go_back_while_others_use_the_pool),
	};

	return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
