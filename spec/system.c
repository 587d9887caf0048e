/*
 * What the system limits, a process gets along with: address space (RLIMIT_AS),
 * the number of mappings (vm.max_map_count), memory that is locked (mlockall).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/system.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define MIB ((size_t)1 << 20)
#define SPACE ((size_t)300000 << 10)

static void
limit_space(size_t bytes)
{
	struct rlimit space;

	CHECK(getrlimit(RLIMIT_AS, &space) == 0, "getrlimit");
	space.rlim_cur = bytes;
	CHECK(setrlimit(RLIMIT_AS, &space) == 0, "setrlimit");
}

/* After exec under the limit: what is left is the program's. */
static int
measure_space(void)
{
	struct bufpool *p = bufpool_create(NULL);
	size_t left = 0;

	CHECK(p != NULL, "no pool");
	bufpool_release(bufpool_checkout(p, 100000));
	while (mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) != MAP_FAILED)
		left += MIB;
	CHECK(left > SPACE / 100 * 75, "%zu MiB are left", left / MIB);
	return 0;
}

static void
run_with_little_space(void *arg)
{
	(void)arg;
	limit_space(SPACE);
	execl("/proc/self/exe", "system", "space", (char *)NULL);
	CHECK(false, "exec");
}

static void
leaves_most_of_a_limited_address_space(void **state)
{
	(void)state;
	needs_address_limit();
	assert_int_equal(in_child(run_with_little_space, NULL), 0);
}

static pthread_barrier_t step;

static void *
meet_the_limit(void *arg)
{
	static const size_t sizes[] = { 100, 65536, 262144, 1048576, 2000000 };
	struct bufpool_buf *b;
	struct bufpool *p = arg;

	pthread_barrier_wait(&step);	/* there is a limit */
	pthread_barrier_wait(&step);
	for (size_t i = 0; i < 10; i++) {
		errno = 0;
		b = bufpool_checkout(p, sizes[i % 5]);
		CHECK(b != NULL || errno == ENOMEM, "%zu", sizes[i % 5]);
		bufpool_release(b);
	}
	pthread_barrier_wait(&step);	/* there is none any more */
	pthread_barrier_wait(&step);
	for (size_t i = 0; i < 5; i++) {
		b = bufpool_checkout(p, sizes[i]);
		CHECK(b != NULL, "%zu", sizes[i]);
		assert_all_zero(b);
		memset(bufpool_data(b), 1, sizes[i]);
		bufpool_release(b);
	}
	return NULL;
}

/* The limit moves up in steps, so that each mapping fails once, that of the
 * thread's record at first. */
static void
meet_limits(void *arg)
{
	size_t more = 0;
	pthread_t thread;

	(void)arg;
	pthread_barrier_init(&step, NULL, 2);
	for (int i = 0; more < 5 * MIB; i++) {
		struct bufpool *p = new_pool(4, 1, 0);

		CHECK(pthread_create(&thread, NULL, meet_the_limit, p) == 0,
		      "no thread");
		pthread_barrier_wait(&step);
		limit_space(status_bytes("VmSize:") + more);
		pthread_barrier_wait(&step);
		pthread_barrier_wait(&step);
		limit_space(RLIM_INFINITY);
		pthread_barrier_wait(&step);
		pthread_join(thread, NULL);
		assert_conserved(p);
		bufpool_destroy(p);
		more += i < 100 ? 4096 : 65536;
	}
}

static void
no_mapping_is_taken_for_granted(void **state)
{
	(void)state;
	needs_address_limit();
	assert_int_equal(in_child(meet_limits, NULL), 0);
}

/* Mappings of one page that cannot grow together, until there may be no more.
 * Returns the first of the range, and how many bytes it has. */
static char *
fill_mappings(size_t *bytes)
{
	const size_t page = in_pages(0);
	size_t n = 0, most = (size_t)2 << 20;
	char *range = mmap(NULL, most * page, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(range != MAP_FAILED, "no address space");
	*bytes = most * page;
	for (n = 0; n < most; n += 2)
		if (mprotect(range + n * page, page, PROT_READ) != 0)
			return range;
	munmap(range, *bytes);
	return NULL;
}

/* A pool without a floor. */
static struct bufpool *
keeping(size_t large_bytes)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = 0;
	config.large_bytes = large_bytes;
	return bufpool_create(&config);
}

/* Large buffers side by side have become one mapping, so that one from the
 * middle can be unmapped only by having one mapping more. */
static void
take_side_by_side(struct bufpool *p, struct bufpool_buf **held, int count)
{
	const long size = 2 << 20;

	for (int i = 0; i < count; i++) {
		held[i] = bufpool_checkout(p, 2 * MIB);
		CHECK(held[i] != NULL, "checkout");
		memset(bufpool_data(held[i]), 0x5e, 2 * MIB);
		if (i > 0 && labs((const char *)bufpool_peek(held[i - 1]) -
				  (const char *)bufpool_peek(held[i])) != size)
			_exit(77);	/* they are not side by side */
	}
}

static char *
need_all_mappings(size_t *bytes)
{
	char *filler = fill_mappings(bytes);

	if (filler == NULL)
		_exit(77);	/* the system has no such limit */
	return filler;
}

static void
run_out_of_mappings(void *arg)
{
	struct bufpool *p = keeping(0);
	const long size = 2 << 20;
	struct bufpool_buf *held[3];
	const char *secret;
	size_t bytes;
	char *filler;

	(void)arg;
	take_side_by_side(p, held, 3);
	secret = bufpool_peek(held[1]);
	filler = need_all_mappings(&bytes);
	errno = 4321;
	bufpool_release(held[1]);
	CHECK(errno == 4321, "a release changed errno");
	CHECK(stats_of(p).checked_out == 2, "out");
	CHECK(stats_of(p).committed_bytes == 6 * MIB, "%llu are committed",
	      (unsigned long long)stats_of(p).committed_bytes);
	for (long i = 0; i < size; i += 64)
		CHECK(secret[i] == 0, "byte %ld is still there", i);
	CHECK(bufpool_trim(p) == 0, "trimmed");
	munmap(filler, bytes);
	CHECK(bufpool_trim(p) == 2 * MIB, "not trimmed");
	CHECK(stats_of(p).committed_bytes == 4 * MIB, "committed");
	bufpool_release(held[0]);
	bufpool_release(held[2]);
	CHECK(stats_of(p).committed_bytes == 0, "committed");
	bufpool_destroy(p);
}

/* The two from the middle are tried first, because they came home last. */
static void
trim_without_mappings(void *arg)
{
	struct bufpool *p = keeping(SIZE_MAX);
	struct bufpool_buf *held[5];
	size_t bytes;
	char *filler;
	int more;

	(void)arg;
	take_side_by_side(p, held, 5);
	for (int i = 0; i < 5; i++)
		bufpool_release(held[(int[]){ 0, 2, 4, 3, 1 }[i]]);
	filler = need_all_mappings(&bytes);
	CHECK(bufpool_trim_some(p, 2 * MIB, &more) == 2 * MIB, "trimmed");
	CHECK(stats_of(p).committed_bytes == 8 * MIB, "%llu are committed",
	      (unsigned long long)stats_of(p).committed_bytes);
	CHECK(more == 1, "no more");
	for (int i = 0; i < 2; i++)
		held[i] = bufpool_checkout(p, 2 * MIB);
	munmap(filler, bytes);
	for (int i = 1; i >= 0; i--) {
		CHECK(bufpool_trim_some(p, 1, &more) == 2 * MIB, "not one");
		CHECK(more == i, "%d are left, but more is %d", i, more);
	}
	CHECK(stats_of(p).committed_bytes == 4 * MIB, "committed");
	bufpool_release(held[0]);
	bufpool_release(held[1]);
	bufpool_destroy(p);
}

static void
what_cannot_be_unmapped_is_wiped_and_waits(void **state)
{
	void (*const children[])(void *) = { run_out_of_mappings,
					     trim_without_mappings };

	(void)state;
	needs(!SANITIZED, "AddressSanitizer needs mappings itself");
	for (int i = 0; i < 2; i++) {
		int status = in_child(children[i], NULL);

		needs(!WIFEXITED(status) || WEXITSTATUS(status) != 77,
		      "mappings are not limited");
		assert_int_equal(status, 0);
	}
}

#define LOCKED_MAX (32 * MIB)
#define LOCKED_SLACK (3 * MIB)	/* records, depots, the rest of spans */

static size_t
grown(size_t before)
{
	size_t now = status_bytes("VmRSS:");

	return now > before ? now - before : 0;
}

static void
check_resident(struct bufpool *p, size_t before, const char *when)
{
	size_t committed = stats_of(p).committed_bytes, rss = grown(before);

	CHECK(committed <= LOCKED_MAX, "%s: %zu committed", when, committed);
	CHECK(rss <= committed + LOCKED_SLACK && committed <= rss + MIB,
	      "%s: %zu KiB are resident, %zu committed", when, rss / 1024,
	      committed / 1024);
}

/* Now of this size, now of that, as much as the pool gives. */
static void
take_all(struct bufpool *p, size_t size, size_t before)
{
	static struct bufpool_buf *held[LOCKED_MAX / 4096 + 1];
	size_t n = 0;

	while ((held[n] = bufpool_checkout(p, size)) != NULL)
		memset(bufpool_data(held[n++]), 1, size);
	CHECK(errno == EDQUOT, "not at the limit");
	check_resident(p, before, "taken");
	while (n > 0)
		bufpool_release(held[--n]);
	check_resident(p, before, "released");
}

static void
use_locked_memory(void *arg)
{
	static const size_t sizes[] = { 2000000, 4096, 65536, 4096, 3000000 };
	struct bufpool *p = new_pool(4, 0, LOCKED_MAX);
	size_t before, committed, rss, gone;

	(void)arg;
	bufpool_release(bufpool_checkout(p, 1));
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		_exit(77);
	before = status_bytes("VmRSS:") - stats_of(p).committed_bytes;
	for (size_t i = 0; i < 5; i++) {
		take_all(p, sizes[i], before);
		committed = stats_of(p).committed_bytes;
		rss = grown(before);
		gone = bufpool_trim(p);
		CHECK(stats_of(p).committed_bytes == committed - gone,
		      "trim says %zu bytes", gone);
		CHECK(rss - grown(before) + MIB > gone,
		      "%zu bytes went, trim says %zu", rss - grown(before),
		      gone);
		check_resident(p, before, "trimmed");
	}
	assert_conserved(p);
	bufpool_destroy(p);
	CHECK(grown(before) <= LOCKED_SLACK, "%zu KiB stay",
	      grown(before) / 1024);
}

static void
locked_memory_is_counted_for_what_it_is(void **state)
{
	int status;

	(void)state;
	needs_own_memory();
	status = in_child(use_locked_memory, NULL);
	needs(!WIFEXITED(status) || WEXITSTATUS(status) != 77,
	      "memory cannot be locked");
	assert_int_equal(status, 0);
}

static void
check_random(const char *from)
{
	uint64_t drawn[64];

	for (int i = 0; i < 64; i++) {
		errno = 4321;
		drawn[i] = bp_system_random();
		CHECK(errno == 4321, "%s: errno", from);
		for (int k = 0; k < i; k++)
			CHECK(drawn[k] != drawn[i], "%s: the same", from);
	}
}

/* No descriptor is left open, and in the end none is to be had. */
static void
draw_numbers(void *arg)
{
	struct rlimit files, few;
	int next = dup(0);

	(void)arg;
	close(next);
	check_random("getrandom");
	CHECK(forbid(SYS_getrandom, ENOSYS), "no filter");
	check_random("/dev/urandom");
	CHECK(dup(0) == next, "a descriptor is left open");
	CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
	few = files;
	few.rlim_cur = 1;
	CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit");
	CHECK(open("/dev/urandom", O_RDONLY) == -1, "a file is open");
	check_random("the clock");
	setrlimit(RLIMIT_NOFILE, &files);
}

static void
random_numbers_need_no_file(void **state)
{
	(void)state;
	needs_filters();
	assert_int_equal(in_child(draw_numbers, NULL), 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_most_of_a_limited_address_space),
		cmocka_unit_test(no_mapping_is_taken_for_granted),
		cmocka_unit_test(what_cannot_be_unmapped_is_wiped_and_waits),
		cmocka_unit_test(locked_memory_is_counted_for_what_it_is),
		cmocka_unit_test(random_numbers_need_no_file),
	};

	if (argc > 1 && strcmp(argv[1], "space") == 0)
		return measure_space();
	return cmocka_run_group_tests_name("system", tests, NULL, NULL);
}
