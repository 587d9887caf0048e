/*
 * Above the largest class buffers are kept for the next: within a limit of
 * bytes, zero in every byte, of the size that is asked for. What grows moves
 * its pages. LARGE_SEED repeats a run.
 *
 * The program stands between the core and the system: it counts the calls that
 * map and move memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "core/system.h"
#include "core/trim.h"
#include "support/clock.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define MIB ((size_t)1 << 20)
#define KEEP (128 * MIB)	/* the default of large_bytes */

static uint64_t seed;		/* printed when a test fails */

/* Calls that map a mebibyte or more, and that move pages. A sanitizer stands
 * between itself. */
static _Atomic unsigned maps, moves;
static void *_Atomic moved_to;

#if !SANITIZED
void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	if (n >= MIB)
		maps++;
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

void *
mremap(void *at, size_t old, size_t n, int flags, ...)
{
	void *to = (void *)syscall(SYS_mremap, at, old, n, flags, NULL);

	moves++;
	moved_to = to;
	return to;
}

static bool pinned;	/* the system refuses to unmap */

int
munmap(void *at, size_t n)
{
	if (pinned) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_munmap, at, n);
}
#endif

static size_t
below(size_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static struct bufpool_config
configured(size_t large_bytes, size_t max_bytes)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = 0;
	config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = 0;
	config.large_bytes = large_bytes;
	config.max_bytes = max_bytes;
	return config;
}

static struct bufpool *
keeping(size_t large_bytes, size_t max_bytes)
{
	struct bufpool_config config = configured(large_bytes, max_bytes);
	struct bufpool *p = bufpool_create(&config);

	assert_non_null(p);
	return p;
}

static struct bufpool_buf *
take(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	assert_non_null(b);
	assert_int_equal(bufpool_len(b), n);
	return b;
}

/* Has `count` buffers of n bytes kept. */
static void
keep(struct bufpool *p, size_t n, unsigned count)
{
	struct bufpool_buf *held[64];

	for (unsigned i = 0; i < count; i++)
		held[i] = take(p, n);
	for (unsigned i = 0; i < count; i++)
		bufpool_release(held[i]);
}

/* All memory of the pool is in a class, out, or kept; when no other thread is
 * inside. */
static void
assert_accounted(struct bufpool *p)
{
	struct bufpool_stats s = stats_of(p);
	uint64_t sum = s.large_bytes_out + s.large_cached_bytes;

	assert_conserved(p);
	for (unsigned c = 0; c < s.class_count; c++)
		sum += s.classes[c].count * s.classes[c].size;
	assert_int_equal(s.committed_bytes, sum);
	assert_in_range(s.large_cached_bytes, 0, p->large.limit);
	assert_true((s.large_cached == 0) == (s.large_cached_bytes == 0));
}

/* Everything that is kept can be had once, and is zero. */
static void
assert_kept_is_zero(struct bufpool *p)
{
	uint64_t count = stats_of(p).large_cached, n = 0;
	struct bufpool_buf *held[256];

	assert_in_range(count, 0, 255);
	for (size_t bin = 0; bin < p->layout.nodes * (size_t)LARGE_BINS;) {
		struct bufpool_buf *b = bp_buf_pop(&p->large.bin[bin]);

		if (b == NULL) {
			bin++;
			continue;
		}
		assert_int_equal(b->mark, 0);
		assert_ptr_equal(b->at, b->base);
		assert_int_equal(b->capacity, b->span);
		ASAN_UNPOISON_MEMORY_REGION(b->base, b->span);
		assert_all_zero(b);
		ASAN_POISON_MEMORY_REGION(b->base, b->span);
		held[n++] = b;
		assert_in_range(n, 1, count);
		/* One that is put back at once would be met again. */
		if (atomic_load(&p->large.bin[bin].head) << 32 == 0) {
			while (n > 0) {
				bp_buf_push(&p->large.bin[bin], held[--n]);
				count--;
			}
			bin++;
		}
	}
	assert_int_equal(count, 0);
}

/* Ways to leave something behind. Each consumes the buffer. */

static void
fills_it(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bufpool_release(b);
}

static void
promises_what_it_wrote(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, 65);
	bufpool_wrote(b, 65);
	bufpool_release(b);
}

static void
writes_the_last_byte(struct bufpool_buf *b)
{
	((uint8_t *)bufpool_data(b))[bufpool_len(b) - 1] = 1;
	bufpool_release(b);
}

static void
writes_and_shrinks(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	assert_int_equal(bufpool_resize(b, 10), 0);
	bufpool_release(b);
}

static void
writes_by_an_old_pointer(struct bufpool_buf *b)
{
	uint8_t *at = bufpool_data(b);
	size_t n = bufpool_len(b);

	assert_int_equal(bufpool_resize(b, 0), 0);
	bp_buf_wipe(b);
	memset(at, 0x5a, n);
	bufpool_release(b);
}

static void
fills_its_capacity(struct bufpool_buf *b)
{
	assert_int_equal(bufpool_resize(b, bufpool_capacity(b)), 0);
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bufpool_release(b);
}

static void
consumes_some(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bp_buf_consume(b, 5000);
	assert_int_equal(bufpool_resize(b, bufpool_capacity(b)), 0);
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bufpool_release(b);
}

static void
consumes_all(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bp_buf_consume(b, bufpool_len(b));
	bufpool_release(b);
}

static void
grows_and_fills(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	assert_int_equal(bufpool_resize(b, bufpool_capacity(b) + 1), 0);
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bufpool_release(b);
}

static void
consumes_and_grows(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bp_buf_consume(b, 4095);
	assert_int_equal(bufpool_resize(b, bufpool_capacity(b) + 1), 0);
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	bufpool_release(b);
}

static void
freezes(struct bufpool_buf *b)
{
	struct bufpool_frozen *f;

	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	f = bufpool_frozen_ref(bufpool_freeze(b));
	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

static void *
unref(void *frozen)
{
	bufpool_frozen_unref(frozen);
	return NULL;
}

static void *
release(void *b)
{
	bufpool_release(b);
	return NULL;
}

static void
in_thread(void *(*f)(void *), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, f, arg), 0);
	pthread_join(thread, NULL);
}

static void
freezes_for_another_thread(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	in_thread(unref, bufpool_freeze(b));
}

static void
has_another_thread_release(struct bufpool_buf *b)
{
	memset(bufpool_data(b), 0x5a, bufpool_len(b));
	in_thread(release, b);
}

static void
kept_memory_is_zero_whatever_was_written(void **state)
{
	static void (*const leave[])(struct bufpool_buf *) = {
		fills_it, promises_what_it_wrote, writes_the_last_byte,
		writes_and_shrinks, writes_by_an_old_pointer,
		fills_its_capacity, consumes_some, consumes_all,
		grows_and_fills, consumes_and_grows, freezes,
		freezes_for_another_thread, has_another_thread_release
	};
	static const size_t sizes[] = { MIB + 1, 2 * MIB, 3000000, 9000001 };
	struct bufpool *p = keeping(KEEP, 0);

	(void)state;
	for (size_t i = 0; i < sizeof leave / sizeof *leave; i++)
		for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
			size_t n = sizes[j];
			struct bufpool_buf *b = take(p, n);
			uint64_t hits;

			assert_all_zero(b);
			assert_true(holds_large(b, n));
			leave[i](b);
			assert_int_equal(stats_of(p).checked_out, 0);
			assert_in_range(stats_of(p).large_cached, 1, 64);
			assert_kept_is_zero(p);
			hits = stats_of(p).large_hits;
			b = take(p, n);
			/* What has grown may be too large for it now. */
			if (leave[i] != grows_and_fills &&
			    leave[i] != consumes_and_grows)
				assert_int_equal(stats_of(p).large_hits,
						 hits + 1);
			assert_true(holds_large(b, n));
			assert_all_zero(b);
			bufpool_release(b);
			assert_accounted(p);
			if (j % 2 == 1)
				bufpool_trim(p);
		}
	bufpool_destroy(p);
}

static void
a_release_wipes_what_was_written_and_no_more(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b = take(p, 8 * MIB);
	uint64_t before = stats_of(p).wiped_bytes;

	(void)state;
	memset(bufpool_data(b), 1, 100);
	bufpool_wrote(b, 100);
	bufpool_release(b);
	assert_in_range(stats_of(p).wiped_bytes - before, 100, 4096);
	before = stats_of(p).wiped_bytes;
	bufpool_release(take(p, 8 * MIB));
	assert_int_equal(stats_of(p).wiped_bytes, before);
	b = bufpool_checkout_zeroed(p, 5 * MIB);
	assert_int_equal(bufpool_len(b), 5 * MIB);
	assert_all_zero(b);
	bufpool_release(b);
	bufpool_destroy(p);
}

/* Sizes. */

static void
one_mapping_serves_what_needs_most_of_it(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b;

	(void)state;
	keep(p, 8 * MIB, 1);
	for (size_t n = 4 * MIB + MIB / 2 + 1; n <= 8 * MIB; n += 99991) {
		b = take(p, n);
		assert_int_equal(bufpool_capacity(b), 8 * MIB);
		bufpool_release(b);
	}
	assert_int_equal(stats_of(p).large_misses, 1);
	/* It does not serve less, and stays. */
	b = take(p, 3 * MIB);
	assert_int_equal(bufpool_capacity(b), 3 * MIB);
	assert_int_equal(stats_of(p).large_misses, 2);
	bufpool_release(b);
	assert_int_equal(stats_of(p).large_cached, 2);
	/* It is made larger, by pages. */
	moves = 0;
	b = take(p, 9 * MIB - 5);
	assert_int_equal(bufpool_capacity(b), 9 * MIB);
	assert_all_zero(b);
	assert_int_equal(stats_of(p).large_misses, 2);
	if (!SANITIZED)
		assert_int_equal(moves, 1);
	assert_accounted(p);
	bufpool_release(b);
	assert_accounted(p);
	bufpool_destroy(p);
}

static void
statistics_tell_what_large_memory_does(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *a = take(p, 2 * MIB), *b = take(p, 3 * MIB);
	struct bufpool_stats s = stats_of(p);

	(void)state;
	assert_int_equal(s.large_misses, 2);
	assert_int_equal(s.large_hits, 0);
	assert_int_equal(s.large_out, 2);
	assert_int_equal(s.large_bytes_out, 5 * MIB);
	assert_int_equal(s.large_cached, 0);
	assert_int_equal(s.misses, 2);
	assert_int_equal(s.checked_out, 2);
	assert_int_equal(s.bytes_checked_out, 5 * MIB);
	bufpool_release(a);
	s = stats_of(p);
	assert_int_equal(s.large_out, 1);
	assert_int_equal(s.large_bytes_out, 3 * MIB);
	assert_int_equal(s.large_cached, 1);
	assert_int_equal(s.large_cached_bytes, 2 * MIB);
	assert_int_equal(s.cached_bytes, 2 * MIB);
	assert_int_equal(s.committed_bytes, 5 * MIB);
	bufpool_release(take(p, 2 * MIB - 9));
	s = stats_of(p);
	assert_int_equal(s.large_hits, 1);
	assert_int_equal(s.hits, 1);
	assert_int_equal(s.large_misses, 2);
	bufpool_release(b);
	assert_int_equal(stats_of(p).large_out, 0);
	assert_int_equal(stats_of(p).peak_bytes_checked_out, 5 * MIB);
	bufpool_destroy(p);
}

/* The limit. */

static void
no_more_is_kept_than_large_bytes(void **state)
{
	struct bufpool *p = keeping(10 * MIB, 0);
	struct bufpool_buf *a = take(p, 2 * MIB), *b = take(p, 4 * MIB),
			   *c = take(p, 8 * MIB), *d = take(p, 20 * MIB);

	(void)state;
	memset(bufpool_data(d), 1, 20 * MIB);
	bufpool_release(a);
	bufpool_release(b);
	assert_int_equal(stats_of(p).large_cached_bytes, 6 * MIB);
	/* The largest makes room. */
	bufpool_release(c);
	assert_int_equal(stats_of(p).large_cached_bytes, 10 * MIB);
	assert_int_equal(stats_of(p).large_cached, 2);
	bufpool_release(d);
	assert_accounted(p);
	assert_int_equal(stats_of(p).large_out, 0);
	assert_kept_is_zero(p);
	bufpool_destroy(p);
}

static void
a_limit_of_0_keeps_nothing(void **state)
{
	struct bufpool *p = keeping(0, 0);
	struct bufpool_buf *b;

	(void)state;
	for (int i = 0; i < 3; i++) {
		b = take(p, 3 * MIB);
		assert_int_equal(bufpool_capacity(b), 3 * MIB);
		assert_all_zero(b);
		memset(bufpool_data(b), 1, 3 * MIB);
		assert_int_equal(bufpool_resize(b, 5 * MIB), 0);
		bufpool_release(b);
		assert_int_equal(stats_of(p).committed_bytes, 0);
	}
	assert_int_equal(stats_of(p).large_hits, 0);
	assert_int_equal(stats_of(p).large_cached, 0);
	errno = 0;
	assert_null(bufpool_try_checkout(p, 3 * MIB));
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(bufpool_trim(p), 0);
	bufpool_destroy(p);
}

/* Of a buffer above the limit the written part is kept, if it is large. */
static void
what_is_above_the_limit_leaves_nothing_useless(void **state)
{
	struct bufpool *p = keeping(16 * MIB, 0);

	(void)state;
	for (size_t n = 0; n <= 24 * MIB; n += n < MIB ? MIB / 4 : MIB) {
		struct bufpool_buf *b = take(p, 24 * MIB);
		struct bufpool_stats s;

		memset(bufpool_data(b), 1, n);
		bufpool_wrote(b, n);
		bufpool_release(b);
		s = stats_of(p);
		if (s.large_cached != 0)
			assert_in_range(s.large_cached_bytes / s.large_cached,
					MIB + 1, 16 * MIB);
		if (n > MIB && n <= 16 * MIB)
			assert_int_equal(s.large_cached_bytes, n);
		assert_kept_is_zero(p);
		assert_accounted(p);
		bufpool_trim(p);
	}
	bufpool_destroy(p);
}

/* Alignment. */

static bool
aligned(const struct bufpool_buf *b, size_t alignment)
{
	return ((uintptr_t)bufpool_peek(b) & (alignment - 1)) == 0;
}

static void
alignment_above_a_page_is_kept(void **state)
{
	static const size_t sizes[] = { 1, 5000, 70000, MIB + 1, 3000000 };
	struct bufpool *p = keeping(KEEP, 0);

	(void)state;
	/* These would serve, but for their addresses. */
	for (size_t i = 0; i < 5; i++)
		keep(p, sizes[i], 3);
	for (size_t alignment = 8192; alignment <= 4 * MIB; alignment *= 8)
		for (size_t i = 0; i < 5; i++)
			for (int again = 0; again < 2; again++) {
				size_t n = sizes[i];
				struct bufpool_buf *b =
				    bufpool_checkout_aligned(p, n, alignment);

				assert_non_null(b);
				assert_true(aligned(b, alignment));
				assert_int_equal(bufpool_len(b), n);
				assert_true(holds_large(b, n));
				assert_all_zero(b);
				memset(bufpool_data(b), 0x77, n);
				assert_int_equal(bufpool_resize(b, n + 9 * MIB),
						 0);
				assert_true(aligned(b, alignment));
				for (size_t j = 0; j < n + 9 * MIB; j += 999)
					if (((const uint8_t *)bufpool_peek(
					    b))[j] != (j < n ? 0x77 : 0))
						fail_msg("byte %zu of %zu", j,
							 n);
				memset(bufpool_data(b), 0x77, n + 9 * MIB);
				bufpool_release(b);
				assert_kept_is_zero(p);
				assert_accounted(p);
			}
	assert_in_range(stats_of(p).large_hits, 1, UINT64_MAX);
	bufpool_destroy(p);
}

/* Giving back. */

static void
trim_and_close_give_all_of_it_back(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *out;

	(void)state;
	keep(p, 3 * MIB, 5);
	keep(p, 9 * MIB, 2);
	out = take(p, 20 * MIB);
	assert_int_equal(stats_of(p).large_cached_bytes, 33 * MIB);
	assert_int_equal(bufpool_trim(p), 33 * MIB);
	assert_int_equal(stats_of(p).committed_bytes, 20 * MIB);
	assert_int_equal(bufpool_trim(p), 0);
	keep(p, 3 * MIB, 5);
	bufpool_close(p);
	assert_int_equal(stats_of(p).committed_bytes, 20 * MIB);
	assert_int_equal(bufpool_resize(out, 41 * MIB), 0);
	assert_all_zero(out);
	errno = 0;
	assert_null(bufpool_checkout(p, 2 * MIB));
	assert_int_equal(errno, ESHUTDOWN);
	bufpool_release(out);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

static void
max_bytes_counts_what_is_kept(void **state)
{
	struct bufpool *p = keeping(KEEP, 16 * MIB);
	struct bufpool_buf *held[16];

	(void)state;
	/* A class needs it. */
	keep(p, 3 * MIB, 4);
	for (size_t i = 0; i < 16; i++)
		held[i] = take(p, MIB);
	assert_int_equal(stats_of(p).large_cached_bytes, 0);
	errno = 0;
	assert_null(bufpool_checkout(p, 2 * MIB));
	assert_int_equal(errno, EDQUOT);
	for (size_t i = 0; i < 16; i++)
		bufpool_release(held[i]);
	/* A large one needs what a class has, and what is kept. */
	held[0] = take(p, 15 * MIB);
	bufpool_release(held[0]);
	keep(p, 2 * MIB, 4);
	held[0] = take(p, 16 * MIB);
	assert_all_zero(held[0]);
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, EDQUOT);
	bufpool_release(held[0]);
	assert_accounted(p);
	/* So does what grows: to twice, or to what it needs. */
	bufpool_trim(p);
	keep(p, 3 * MIB, 3);
	held[0] = take(p, 6 * MIB);
	assert_int_equal(bufpool_resize(held[0], 15 * MIB + 1), 0);
	assert_int_equal(bufpool_capacity(held[0]),
			 15 * MIB + in_pages(0));
	errno = 0;
	assert_int_equal(bufpool_resize(held[0], 16 * MIB + 1), -1);
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_len(held[0]), 15 * MIB + 1);
	bufpool_release(held[0]);
	assert_accounted(p);
	bufpool_destroy(p);
}

/* A quarter of a second of decay, whatever the clock says. */
static void
decay(struct bufpool *p)
{
	atomic_store(&p->looked_at, 0);
	atomic_store(&p->decayed, bp_system_now() - 250);
	bp_trim_maintain(p, bp_system_now());
}

static void
what_is_kept_decays(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	const uint64_t unit = ((uint64_t)256 << 10);
	uint64_t kept, most;

	(void)state;
	keep(p, 2 * MIB, 60);
	decay(p);	/* after a miss, and so it only looks */
	decay(p);
	for (int round = 1; round < 22; round++) {
		kept = stats_of(p).large_cached_bytes;
		most = kept / 32 + unit;
		decay(p);
		assert_in_range(kept - stats_of(p).large_cached_bytes,
				kept / 32, most);
	}
	/* A half after 21.8 rounds. */
	assert_in_range(stats_of(p).large_cached, 29, 32);
	assert_accounted(p);
	/* Small ones go first, and of a large one its end, again and again. */
	bufpool_trim(p);
	keep(p, 2 * MIB, 3);
	keep(p, 26 * MIB, 1);
	decay(p);
	kept = stats_of(p).large_cached_bytes;
	while (kept > 26 * MIB) {
		assert_int_not_equal(stats_of(p).large_cached, 1);
		decay(p);
		kept = stats_of(p).large_cached_bytes;
	}
	while (kept > 0) {
		assert_int_equal(stats_of(p).large_cached, 1);
		decay(p);
		assert_in_range(kept - stats_of(p).large_cached_bytes, unit,
				2 * MIB);
		kept = stats_of(p).large_cached_bytes;
	}
	assert_int_equal(stats_of(p).large_cached, 0);
	assert_accounted(p);
	/* A miss ends it for a while. */
	keep(p, 2 * MIB, 40);
	for (int round = 0; round < 100; round++) {
		bufpool_release(take(p, 40 * MIB));
		bp_large_give_back(&p->large, 1, true);
		kept = stats_of(p).large_cached;
		assert_int_equal(kept, 40);
		decay(p);
		assert_int_equal(stats_of(p).large_cached, kept);
	}
	bufpool_destroy(p);
}

#if !SANITIZED
/* A mapping that the system refuses is not kept any more. So neither decay nor
 * a release that needs its room offers one after the other. */
static void
a_refusal_costs_one_mapping(void **state)
{
	struct bufpool *p = keeping(120 * MIB, 0);
	struct bufpool_buf *b;

	(void)state;
	keep(p, 2 * MIB, 60);
	decay(p);	/* after a miss, and so it only looks */
	pinned = true;
	decay(p);
	pinned = false;
	assert_int_equal(stats_of(p).large_cached, 59);
	b = take(p, 10 * MIB);
	keep(p, 2 * MIB, 60);
	pinned = true;
	bufpool_release(b);
	pinned = false;
	assert_int_equal(stats_of(p).large_cached, 59);
	bufpool_trim(p);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}
#endif

static void
a_burst_leaves_nothing_resident_after_a_trim(void **state)
{
	struct bufpool *p = keeping(SIZE_MAX, 0);
	struct bufpool_buf *held[64];
	size_t before = 0, after = 0;

	(void)state;
	/* The first burst leaves descriptors behind. */
	for (int round = 0; round < 2; round++) {
		before = resident_bytes();
		for (size_t i = 0; i < 64; i++) {
			held[i] = take(p, MIB + 1 + i * 10007);
			memset(bufpool_data(held[i]), 1, bufpool_len(held[i]));
		}
		assert_in_range(resident_bytes() - before, 64 * MIB,
				SANITIZED ? SIZE_MAX : 256 * MIB);
		for (size_t i = 0; i < 64; i++)
			bufpool_release(held[i]);
		assert_int_equal(stats_of(p).large_cached, 64);
		assert_in_range(bufpool_trim(p), 64 * MIB, 256 * MIB);
		after = resident_bytes();
	}
	if (after > before + before / 10)
		fail_msg("%zu KiB before, %zu after", before / 1024,
			 after / 1024);
	bufpool_destroy(p);
}

static void
try_checkout_takes_what_is_kept(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b;

	(void)state;
	errno = 0;
	assert_null(bufpool_try_checkout(p, 3 * MIB));
	assert_int_equal(errno, EAGAIN);
	keep(p, 3 * MIB, 1);
	b = bufpool_try_checkout(p, 2 * MIB);
	assert_non_null(b);
	assert_int_equal(bufpool_len(b), 2 * MIB);
	errno = 0;
	assert_null(bufpool_try_checkout(p, 2 * MIB));
	assert_int_equal(errno, EAGAIN);
	bufpool_release(b);
	/* To make it larger would take memory from the system. */
	errno = 0;
	assert_null(bufpool_try_checkout(p, 3 * MIB + 1));
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(stats_of(p).committed_bytes, 3 * MIB);
	assert_int_equal(stats_of(p).large_cached, 1);
	assert_accounted(p);
	bufpool_destroy(p);
}

/* Growth. */

static void
check_pattern(const struct bufpool_buf *b, size_t n)
{
	const uint8_t *at = bufpool_peek(b);

	for (size_t i = 0; i < n; i += 500)
		if (at[i] != (uint8_t)(i / 500 % 251 + 1))
			fail_msg("byte %zu of %zu is %d", i, n, at[i]);
	for (size_t i = n; i < bufpool_len(b); i++)
		if (at[i] != 0)
			fail_msg("byte %zu past %zu is %d", i, n, at[i]);
}

static void
growth_moves_pages_a_logarithmic_number_of_times(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b = take(p, 0);
	size_t n = 0;

	(void)state;
	maps = moves = 0;
	while (n < 64 * MIB) {
		size_t capacity = bufpool_capacity(b);
		uint8_t *at;

		assert_int_equal(bufpool_resize(b, n + 1000), 0);
		at = bufpool_data(b);
		at[n] = (uint8_t)(n / 500 % 251 + 1);
		at[n + 500] = (uint8_t)(n / 500 % 251 == 250 ? 1
				: n / 500 % 251 + 2);
		n += 1000;
		if (bufpool_capacity(b) != capacity) {
			check_pattern(b, n);
			assert_in_range(bufpool_capacity(b), 2 * capacity,
					16 * capacity);
			if (!SANITIZED && capacity >= 2 * MIB)
				assert_ptr_equal(b->base, moved_to);
		}
	}
	check_pattern(b, n);
	if (!SANITIZED) {
		/* From 1 MiB to 2 by a copy, to 128 by pages. */
		assert_in_range(moves, 6, 6);
		assert_in_range(maps, 0, 2);
	}
	assert_int_equal(stats_of(p).large_out, 1);
	assert_int_equal(stats_of(p).large_bytes_out, bufpool_capacity(b));
	assert_accounted(p);
	bufpool_release(b);
	/* Nothing dirty is left behind, in classes or kept. */
	assert_kept_is_zero(p);
	for (n = 1; n <= MIB; n *= 2)
		while ((b = bufpool_try_checkout(p, n)) != NULL) {
			assert_all_zero(b);
			bufpool_release(b);
			if (n != 1 && n != MIB)
				break;
			break;
		}
	assert_accounted(p);
	bufpool_destroy(p);
}

static void
growth_takes_a_larger_one_that_is_kept(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b = take(p, MIB);

	(void)state;
	memset(bufpool_data(b), 7, MIB);
	keep(p, 20 * MIB, 1);
	maps = moves = 0;
	assert_int_equal(bufpool_resize(b, MIB + 1), 0);
	assert_int_equal(bufpool_capacity(b), 2 * MIB);
	assert_accounted(p);
	assert_int_equal(bufpool_resize(b, 2 * MIB + 1), 0);
	assert_int_equal(bufpool_capacity(b), 4 * MIB);
	assert_int_equal(bufpool_resize(b, 20 * MIB), 0);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[MIB - 1], 7);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[MIB], 0);
	assert_int_equal(maps + moves, 0);
	assert_int_equal(stats_of(p).large_hits, 1);
	assert_accounted(p);
	bufpool_release(b);
	assert_kept_is_zero(p);
	assert_accounted(p);
	bufpool_destroy(p);
}

static void
what_grows_within_a_larger_one_stays_aligned(void **state)
{
	static const size_t limits[] = { 0, 64 * MIB };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct bufpool *p = keeping(KEEP, limits[i]);
		struct bufpool_buf *b;

		b = bufpool_checkout_aligned(p, 9 * MIB, MIB);
		bufpool_release(b);
		b = bufpool_checkout_aligned(p, MIB, MIB);
		assert_non_null(b);
		for (size_t n = MIB; n < 14 * MIB; n += MIB / 4 + 1) {
			assert_int_equal(bufpool_resize(b, n), 0);
			assert_int_equal((uintptr_t)bufpool_peek(b) % MIB, 0);
			assert_in_range(bufpool_capacity(b), n,
					2 * in_pages(n));
			memset(bufpool_data(b), 1, n);
			assert_accounted(p);
		}
		bufpool_release(b);
		assert_kept_is_zero(p);
		assert_accounted(p);
		bufpool_destroy(p);
	}
}

/* In small pieces, wherever the memory comes from. */
static void
growth_at_max_bytes_moves_a_logarithmic_number_of_times(void **state)
{
	static const size_t alignments[] = { 1, MIB };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct bufpool *p = keeping(KEEP, 160 * MIB);
		struct bufpool_buf *b;
		const uint8_t *at;
		unsigned moved = 0;

		keep(p, 20 * MIB, 2);
		b = bufpool_checkout_aligned(p, 1, alignments[i]);
		at = bufpool_peek(b);
		for (size_t n = 1; n < 50 * MIB; n += 5000) {
			assert_int_equal(bufpool_resize(b, n), 0);
			assert_true(bufpool_capacity(b) <= in_pages(n) ||
				    b->class != CLASS_LARGE);
			moved += bufpool_peek(b) != at;
			at = bufpool_peek(b);
		}
		assert_in_range(moved, 1, 16);
		assert_accounted(p);
		bufpool_release(b);
		assert_kept_is_zero(p);
		bufpool_destroy(p);
	}
}

static size_t
memory_for(const struct bufpool *p, size_t n)
{
	unsigned class = layout_class(&p->layout, n);

	return class == CLASS_LARGE ? in_pages(n) : p->layout.size[class];
}

static size_t
sizes(size_t most)
{
	return below(3) == 0 ? below(MIB) : below(most);
}

/* What one thread has out counts, and nothing else. Only what has to be copied
 * needs its old memory and its new memory at once. */
static void
at_max_bytes_one_thread_gets_what_fits(void **state)
{
	const size_t limit = 128 * MIB;
	struct bufpool *p = keeping(KEEP, limit);
	struct bufpool_buf *held[8] = { NULL };
	size_t out = 0;

	(void)state;
	for (int step = 0; step < 1000; step++) {
		struct bufpool_buf **b = &held[below(8)];
		size_t n = sizes(120 * MIB), size = *b ? buf_size(*b) : 0;
		size_t need = memory_for(p, n);

		if (*b == NULL) {
			*b = bufpool_checkout(p, n);
			assert_true((*b != NULL) == (need <= limit - out));
			if (*b != NULL)
				assert_int_equal(buf_size(*b), need);
			out += *b != NULL ? need : 0;
		} else if (below(2)) {
			bool fits = need <= limit - out ||
			    ((*b)->class == CLASS_LARGE &&
			     need <= limit - (out - size));

			if (n > size) {
				assert_true((bufpool_resize(*b, n) == 0) ==
					    fits);
				out += buf_size(*b) - size;
				assert_in_range(buf_size(*b), size, need);
			}
		} else {
			if (size < 4 * MIB)
				bufpool_data(*b);
			bufpool_release(*b);
			*b = NULL;
			out -= size;
		}
	}
	assert_accounted(p);
	for (size_t i = 0; i < 8; i++)
		bufpool_release(held[i]);
	assert_accounted(p);
	bufpool_destroy(p);
}

/* However large those are that are kept. */
static void
capacity_is_at_most_twice_what_is_needed(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);

	(void)state;
	for (int step = 0; step < 200; step++) {
		size_t n = MIB + 1 + below(30 * MIB);
		struct bufpool_buf *b;

		if (step % 10 == 0)
			keep(p, n, 1);
		b = bufpool_checkout(p, below(2) ? n / 8 : MIB);
		for (; n < 40 * MIB; n += 1 + below(n)) {
			if (n <= bufpool_capacity(b))
				continue;
			assert_int_equal(bufpool_resize(b, n), 0);
			assert_in_range(bufpool_capacity(b), n,
					2 * in_pages(n));
			assert_accounted(p);
		}
		bufpool_release(b);
	}
	bufpool_destroy(p);
}

/* What was consumed at the front is enough where nothing more can be had. */
static void
a_queue_at_max_bytes_uses_its_front_again(void **state)
{
	struct bufpool *p = keeping(KEEP, 4 * MIB);
	struct bufpool_buf *b = take(p, 4 * MIB);

	(void)state;
	memset(bufpool_data(b), 7, 4 * MIB);
	bp_buf_consume(b, MIB);
	assert_int_equal(bufpool_resize(b, 4 * MIB - 1), 0);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[3 * MIB - 1], 7);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[3 * MIB], 0);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[4 * MIB - 2], 0);
	errno = 0;
	assert_int_equal(bufpool_resize(b, 4 * MIB + 1), -1);
	assert_int_equal(errno, EDQUOT);
	bufpool_release(b);
	assert_kept_is_zero(p);
	assert_accounted(p);
	bufpool_destroy(p);
}

/* Advice for a part of a buffer splits its mapping, and the system does not
 * move split ones. */
static void
what_cannot_move_is_copied(void **state)
{
	struct bufpool *p = keeping(KEEP, 0);
	struct bufpool_buf *b = take(p, 4 * MIB);

	(void)state;
	memset(bufpool_data(b), 7, 4 * MIB);
	assert_int_equal(madvise(bufpool_data(b), MIB, MADV_DONTDUMP), 0);
	assert_int_equal(bufpool_resize(b, 9 * MIB), 0);
	for (size_t i = 0; i < 9 * MIB; i++)
		assert_true(((const uint8_t *)bufpool_peek(b))[i] ==
			    (i < 4 * MIB ? 7 : 0));
	assert_accounted(p);
	bufpool_release(b);
	assert_kept_is_zero(p);
	/* Neither does it grow for a checkout. */
	b = take(p, 4 * MIB + 1);
	assert_all_zero(b);
	bufpool_release(b);
	assert_accounted(p);
	bufpool_destroy(p);
}

/* Placement and pages. */

static size_t
resident(const struct bufpool_buf *b)
{
	static unsigned char is[16384];
	size_t page = in_pages(0), sum = 0;
	size_t pages = in_pages(buf_size(b)) / page;

	assert_in_range(pages, 1, sizeof is);
	assert_int_equal(mincore(b->base, buf_size(b), is), 0);
	for (size_t i = 0; i < pages; i++)
		sum += is[i] & 1;
	return sum * page;
}

static void
prefault_holds_for_what_is_kept_and_what_grows(void **state)
{
	struct bufpool_config config = configured(KEEP, 0);
	struct bufpool *p;
	struct bufpool_buf *b;

	(void)state;
	needs_advice();
	for (config.huge_pages = 0; config.huge_pages < 2;
	     config.huge_pages++) {
		config.prefault = 1;
		p = bufpool_create(&config);
		assert_non_null(p);
		keep(p, 3 * MIB, 1);
		b = take(p, 3 * MIB);
		assert_int_equal(resident(b), 3 * MIB);
		bufpool_release(b);
		b = take(p, 5 * MIB);
		assert_int_equal(stats_of(p).large_hits, 2);
		assert_int_equal(resident(b), 5 * MIB);
		assert_int_equal(bufpool_resize(b, 5 * MIB + 1), 0);
		assert_int_equal(resident(b), 10 * MIB);
		assert_all_zero(b);
		bufpool_release(b);
		assert_accounted(p);
		bufpool_destroy(p);
	}
	p = keeping(KEEP, 0);
	b = take(p, 3 * MIB);
	assert_int_equal(resident(b), 0);
	assert_int_equal(bufpool_resize(b, 4 * MIB), 0);
	assert_int_equal(resident(b), 0);
	bufpool_release(b);
	bufpool_destroy(p);
}

static bool
asks_for_huge_pages(const struct bufpool_buf *b)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[512];
	bool inside = false, huge = false;

	assert_non_null(file);
	while (fgets(line, sizeof line, file) != NULL) {
		unsigned long first, end;

		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = first <= (uintptr_t)b->base &&
			    (uintptr_t)b->base + b->span <= end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			huge = strstr(line, " hg") != NULL;
	}
	fclose(file);
	return huge;
}

static void
huge_pages_are_asked_for_still(void **state)
{
	struct bufpool_config config = configured(KEEP, 0);
	struct bufpool *p;
	struct bufpool_buf *b;

	(void)state;
	config.huge_pages = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	b = take(p, 6 * MIB);
	needs(asks_for_huge_pages(b), "no VmFlags in /proc/self/smaps");
	assert_true(aligned(b, 2 * MIB));
	bufpool_release(b);
	b = take(p, 5 * MIB);
	assert_int_equal(stats_of(p).large_hits, 1);
	assert_true(aligned(b, 2 * MIB));
	assert_int_equal(bufpool_resize(b, 17 * MIB), 0);
	assert_true(asks_for_huge_pages(b));
	bufpool_release(b);
	assert_accounted(p);
	bufpool_destroy(p);
}

static void
nodes_keep_their_own(void **state)
{
	static const int nodes[] = { 0, BUFPOOL_NUMA_LOCAL };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct bufpool_config config = configured(KEEP, 0);
		struct bufpool *p;
		struct bufpool_buf *b;
		uint64_t kept;

		config.numa_node = nodes[i];
		p = bufpool_create(&config);
		assert_non_null(p);
		keep(p, 3 * MIB, 3);
		assert_int_equal(stats_of(p).large_cached, 3);
		b = take(p, 3 * MIB);
		assert_in_range(b->node, 0, p->layout.nodes - 1);
		if (p->layout.nodes == 1)
			assert_int_equal(stats_of(p).large_hits, 1);
		memset(bufpool_data(b), 1, 3 * MIB);
		assert_int_equal(bufpool_resize(b, 7 * MIB), 0);
		bufpool_release(b);
		assert_kept_is_zero(p);
		assert_accounted(p);
		kept = stats_of(p).large_cached_bytes;
		assert_int_equal(bufpool_trim(p), kept);
		assert_int_equal(stats_of(p).committed_bytes, 0);
		bufpool_destroy(p);
	}
}

/* Random use, with a model that knows every byte that is looked at. */

#define BUFFERS 8
#define STRIDE 4093	/* bytes between two that are read */
#define LOOKS (12 * MIB / STRIDE + 1)

static struct model {
	struct bufpool_buf *b;
	size_t n;
	uint8_t byte[LOOKS];
} model[BUFFERS];

static void
model_check(const struct model *m, uint64_t start)
{
	const uint8_t *at = bufpool_peek(m->b);

	assert_int_equal(bufpool_len(m->b), m->n);
	for (size_t i = 0; i * STRIDE < m->n; i++)
		if (at[i * STRIDE] != m->byte[i])
			fail_msg("LARGE_SEED=%llu: byte %zu of %zu is %d, not "
				 "%d", (unsigned long long)start, i * STRIDE,
				 m->n, at[i * STRIDE], m->byte[i]);
}

static void
model_write(struct model *m)
{
	size_t looks = (m->n + STRIDE - 1) / STRIDE;
	uint8_t *at = looks > 0 ? bufpool_data(m->b) : NULL;

	for (size_t k = below(200); k > 0 && looks > 0; k--) {
		size_t i = below(looks);

		at[i * STRIDE] = m->byte[i] = (uint8_t)below(256);
	}
}

static void
model_resize(struct model *m)
{
	size_t n = below(2) ? below(12 * MIB) : m->n / 2 + below(m->n / 2 + 1);

	if (bufpool_resize(m->b, n) != 0) {
		assert_int_equal(errno, EDQUOT);
		return;
	}
	for (size_t i = (n + STRIDE - 1) / STRIDE; i * STRIDE < m->n; i++)
		m->byte[i] = 0;
	m->n = n;
}

static void
model_step(struct bufpool *p, struct model *m, uint64_t start)
{
	if (m->b == NULL) {
		m->n = MIB + 1 + below(7 * MIB);
		m->b = bufpool_checkout(p, m->n);
		if (m->b == NULL) {
			assert_int_equal(errno, EDQUOT);
			return;
		}
		assert_true(holds_large(m->b, m->n));
		assert_all_zero(m->b);
		memset(m->byte, 0, sizeof m->byte);
		return;
	}
	model_check(m, start);
	switch (below(4)) {
	case 0:
		model_resize(m);
		model_check(m, start);
		break;
	case 1:
		if (below(4) == 0)
			bufpool_frozen_unref(bufpool_freeze(m->b));
		else
			bufpool_release(m->b);
		m->b = NULL;
		break;
	default:
		model_write(m);
	}
}

static void
random_use_agrees_with_a_model(void **state)
{
	static const size_t limits[][2] = {
		{ KEEP, 0 }, { 20 * MIB, 0 }, { KEEP, 40 * MIB }
	};
	uint64_t start = seed;

	(void)state;
	for (size_t round = 0; round < 3; round++) {
		struct bufpool *p = keeping(limits[round][0], limits[round][1]);

		for (int step = 0; step < 600; step++) {
			model_step(p, &model[below(BUFFERS)], start);
			assert_accounted(p);
			if (below(100) == 0)
				bufpool_trim(p);
			if (below(30) == 0)
				decay(p);
		}
		for (size_t i = 0; i < BUFFERS; i++) {
			bufpool_release(model[i].b);
			model[i].b = NULL;
		}
		assert_int_equal(stats_of(p).large_out, 0);
		assert_kept_is_zero(p);
		assert_accounted(p);
		bufpool_destroy(p);
	}
}

/* Threads. */

#define THREADS 4
#define OPS 500
#define LIMIT (24 * MIB)
#define MOST (5 * MIB)		/* that a buffer begins with */
#define MOVING (THREADS * 4 * MOST)	/* doubled by capacity, and growth */

static struct bufpool *shared;
static _Atomic int stop;
static _Atomic uint64_t owner[1 << 16];

static void
keep_and_take(uint64_t me, unsigned *random)
{
	size_t n = MOST - (size_t)rand_r(random) % (4 * MIB);
	struct bufpool_buf *b = bufpool_checkout(shared, n);
	const uint8_t *at;

	CHECK(b != NULL, "no memory");
	CHECK(atomic_exchange(&owner[b->number], me) == 0, "in two hands");
	at = bufpool_peek(b);
	for (size_t i = 0; i < b->capacity; i += 512)
		CHECK(at[i] == 0, "byte %zu of %zu is not zero", i, n);
	memcpy(bufpool_data(b), &me, sizeof me);
	((uint8_t *)bufpool_data(b))[n - 1] = 1;
	if (rand_r(random) % 4 == 0)
		CHECK(bufpool_resize(b, bufpool_capacity(b) + 1) == 0, "full");
	CHECK(memcmp(bufpool_peek(b), &me, sizeof me) == 0 &&
		  ((const uint8_t *)bufpool_peek(b))[n - 1] == 1,
	      "written by another");
	CHECK(atomic_exchange(&owner[b->number], 0) == me, "owner changed");
	if (rand_r(random) % 8 == 0)
		bufpool_frozen_unref(bufpool_freeze(b));
	else
		bufpool_release(b);
}

static void *
use_large(void *number)
{
	unsigned random = (unsigned)(uintptr_t)number;

	for (int i = 0; i < OPS; i++) {
		keep_and_take((uintptr_t)number, &random);
		if (i % 100 == 0)
			bufpool_trim(shared);
		if (i % 50 == 0)
			decay(shared);
	}
	return NULL;
}

static void *
watch_the_limit(void *arg)
{
	struct bufpool_stats s;

	while (!atomic_load(&stop)) {
		bufpool_get_stats(shared, &s);
		CHECK(s.large_cached_bytes <= LIMIT, "%llu bytes are kept",
		      (unsigned long long)s.large_cached_bytes);
	}
	return arg;
}

static void
threads_take_turns(void **state)
{
	pthread_t thread[THREADS], watcher;

	(void)state;
	shared = keeping(LIMIT, 0);
	atomic_store(&stop, 0);
	pthread_create(&watcher, NULL, watch_the_limit, NULL);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, use_large, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&stop, 1);
	pthread_join(watcher, NULL);
	assert_int_equal(stats_of(shared).checked_out, 0);
	assert_in_range(stats_of(shared).large_hits, 1, UINT64_MAX);
	assert_kept_is_zero(shared);
	assert_accounted(shared);
	bufpool_destroy(shared);
}

/* Fork, while threads keep and take. */

static void *
use_until_told(void *number)
{
	unsigned random = (unsigned)(uintptr_t)number;

	while (!atomic_load(&stop)) {
		keep_and_take((uintptr_t)number, &random);
		if (rand_r(&random) % 50 == 0)
			bufpool_trim(shared);
		if (rand_r(&random) % 50 == 0)
			decay(shared);
	}
	return NULL;
}

/* Bytes that are committed, and in nobody's account: those that a thread of
 * the parent was just moving. */
static size_t
unaccounted(struct bufpool *p)
{
	struct bufpool_stats s;
	size_t sum;

	bufpool_get_stats(p, &s);
	sum = s.large_bytes_out + s.large_cached_bytes;
	for (unsigned c = 0; c < s.class_count; c++)
		sum += s.classes[c].count * s.classes[c].size;
	CHECK(sum <= s.committed_bytes, "%zu bytes, but %llu committed", sum,
	      (unsigned long long)s.committed_bytes);
	return s.committed_bytes - sum;
}

/* Of *most bytes at most. */
static void
use_in_child(void *most)
{
	size_t moving = unaccounted(shared);
	unsigned random = 1;
	struct bufpool_stats s;

	memset(owner, 0, sizeof owner);
	CHECK(moving <= *(size_t *)most, "%zu bytes", moving);
	bufpool_get_stats(shared, &s);
	CHECK(s.large_cached_bytes <= LIMIT, "kept");
	CHECK(s.large_out <= THREADS, "out: %llu",
	      (unsigned long long)s.large_out);
	CHECK(s.large_bytes_out <= MOVING, "out");
	for (int i = 0; i < 10; i++)
		keep_and_take(1, &random);
	CHECK(unaccounted(shared) == moving, "%zu", unaccounted(shared));
	bufpool_trim(shared);
	bufpool_get_stats(shared, &s);
	CHECK(s.large_cached == 0 && s.large_cached_bytes == 0, "not trimmed");
	CHECK(unaccounted(shared) == moving, "%zu", unaccounted(shared));
}

static void
a_child_accounts_for_what_is_there(void **state)
{
	pthread_t thread[THREADS];
	struct bufpool_buf *out;
	size_t most = MOVING;

	(void)state;
	shared = keeping(LIMIT, 0);
	atomic_store(&stop, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, use_until_told,
			       (void *)(i + 1));
	for (int i = 0; i < 100; i++)
		assert_int_equal(in_child(use_in_child, &most), 0);
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_accounted(shared);
	bufpool_destroy(shared);
	/* Nobody is inside: nothing is lost. */
	shared = keeping(LIMIT, 0);
	out = take(shared, 5 * MIB);
	keep(shared, 3 * MIB, 2);
	most = 0;
	assert_int_equal(in_child(use_in_child, &most), 0);
	bufpool_release(out);
	assert_accounted(shared);
	bufpool_destroy(shared);
}

int
main(void)
{
	const char *given = getenv("LARGE_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept_memory_is_zero_whatever_was_written),
		cmocka_unit_test(a_release_wipes_what_was_written_and_no_more),
		cmocka_unit_test(one_mapping_serves_what_needs_most_of_it),
		cmocka_unit_test(statistics_tell_what_large_memory_does),
		cmocka_unit_test(no_more_is_kept_than_large_bytes),
		cmocka_unit_test(a_limit_of_0_keeps_nothing),
		cmocka_unit_test(
		    what_is_above_the_limit_leaves_nothing_useless),
		cmocka_unit_test(alignment_above_a_page_is_kept),
		cmocka_unit_test(trim_and_close_give_all_of_it_back),
		cmocka_unit_test(max_bytes_counts_what_is_kept),
		cmocka_unit_test(what_is_kept_decays),
#if !SANITIZED
		cmocka_unit_test(a_refusal_costs_one_mapping),
#endif
		cmocka_unit_test(a_burst_leaves_nothing_resident_after_a_trim),
		cmocka_unit_test(try_checkout_takes_what_is_kept),
		cmocka_unit_test(
		    growth_moves_pages_a_logarithmic_number_of_times),
		cmocka_unit_test(growth_takes_a_larger_one_that_is_kept),
		cmocka_unit_test(what_grows_within_a_larger_one_stays_aligned),
		cmocka_unit_test(
		    growth_at_max_bytes_moves_a_logarithmic_number_of_times),
		cmocka_unit_test(at_max_bytes_one_thread_gets_what_fits),
		cmocka_unit_test(capacity_is_at_most_twice_what_is_needed),
		cmocka_unit_test(a_queue_at_max_bytes_uses_its_front_again),
		cmocka_unit_test(what_cannot_move_is_copied),
		cmocka_unit_test(
		    prefault_holds_for_what_is_kept_and_what_grows),
		cmocka_unit_test(huge_pages_are_asked_for_still),
		cmocka_unit_test(nodes_keep_their_own),
		cmocka_unit_test(random_use_agrees_with_a_model),
		cmocka_unit_test(threads_take_turns),
		cmocka_unit_test(a_child_accounts_for_what_is_there),
	};

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) | 1;
	return cmocka_run_group_tests_name("large", tests, NULL, NULL);
}
