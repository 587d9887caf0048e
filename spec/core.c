/* The C interface, one thread: what each call promises, and how it fails. */
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
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/buf.h"
#include "bufpool.h"
#include "core/thread.h"

static struct bufpool *
pool_of(size_t four, size_t sixty_four, size_t max_bytes)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.four_kib_count = four;
	config.sixty_four_kib_count = sixty_four;
	config.two_fifty_six_kib_count = 0;
	config.max_bytes = max_bytes;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

static struct bufpool_stats
stats_of(struct bufpool *p)
{
	struct bufpool_stats s;

	bufpool_get_stats(p, &s);
	return s;
}

/* The law: each buffer is in exactly one place. */
static void
assert_conserved(struct bufpool *p)
{
	struct bufpool_stats s = stats_of(p);

	for (unsigned c = 0; c < s.class_count; c++)
		assert_int_equal(s.classes[c].count,
				 s.classes[c].ready + s.classes[c].cached +
				     s.classes[c].out);
}

/* All memory of the buffer, not only its contents. */
static void
assert_all_zero(const struct bufpool_buf *b)
{
	for (size_t i = 0; i < buf_size(b); i++)
		if (b->base[i] != 0)
			fail_msg("byte %zu of %zu is not zero", i, buf_size(b));
}

static void
takes_the_smallest_class_that_holds_it(void **state)
{
	static const size_t cases[][2] = {
		{ 0, 4096 }, { 1, 4096 }, { 4096, 4096 }, { 4097, 65536 },
		{ 65536, 65536 }, { 65537, 262144 }, { 262144, 262144 },
		{ 262145, 1048576 }, { 1048576, 1048576 },
		{ 1048577, 1048577 }, { 5000001, 5000001 },
	};
	struct bufpool *p = pool_of(1, 1, 0);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, cases[i][0]);

		assert_non_null(b);
		assert_int_equal(bufpool_len(b), cases[i][0]);
		assert_int_equal(bufpool_capacity(b), cases[i][1]);
		assert_int_equal((uintptr_t)bufpool_peek(b) % 64, 0);
		assert_all_zero(b);
		bufpool_release(b);
	}
	assert_conserved(p);
	bufpool_destroy(p);
}

/* Ways to dirty a buffer of n bytes and give it back. */
static void
by_data(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	bufpool_release(b);
}

static void
by_promise(struct bufpool_buf *b, size_t n)
{
	size_t some = n / 2;

	memset(bufpool_data(b), 0xa5, some);
	bufpool_wrote(b, some);
	bufpool_release(b);
}

static void
by_raw_growth(struct bufpool_buf *b, size_t n)
{
	assert_int_equal(bufpool_resize(b, n / 4), 0);
	memset(bufpool_data(b), 0xa5, n / 4);
	/* The pointer stays good as long as nothing moves. */
	assert_int_equal(bufpool_resize(b, n), 0);
	memset((uint8_t *)(uintptr_t)bufpool_peek(b), 0xa5, n);
	bufpool_release(b);
}

static void
by_growth(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	assert_int_equal(bufpool_resize(b, n * 3), 0);
	memset(bufpool_data(b), 0xa5, n * 3);
	bufpool_release(b);
}

static void
by_frozen(struct bufpool_buf *b, size_t n)
{
	struct bufpool_frozen *f;

	memset(bufpool_data(b), 0xa5, n);
	f = bufpool_freeze(b);
	bufpool_frozen_ref(f);
	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

static void
by_collector(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	buf_release_gc(b);
}

static void
by_free(struct bufpool_buf *b, size_t n)
{
	memset(bufpool_data(b), 0xa5, n);
	buf_free(b);
	assert_int_equal(bufpool_capacity(b), 0);
	assert_int_equal(bufpool_len(b), 0);
	bufpool_release(b);
}

static void
gives_every_byte_back_as_zero(void **state)
{
	void (*const ways[])(struct bufpool_buf *, size_t) = {
		by_data, by_promise, by_raw_growth, by_growth, by_frozen,
		by_collector, by_free,
	};
	static const size_t sizes[] = { 1, 100, 4096, 5000, 65536, 262144,
					1048576 };
	struct bufpool *p = pool_of(1, 1, 0);

	(void)state;
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			struct bufpool_buf *held[8];

			ways[w](bufpool_checkout(p, sizes[i]), sizes[i]);
			/* More than was dirty, so that it is among them. */
			for (size_t j = 0; j < 8; j++) {
				held[j] = bufpool_checkout(p, sizes[i]);
				assert_all_zero(held[j]);
			}
			for (size_t j = 0; j < 8; j++)
				bufpool_release(held[j]);
		}
	assert_int_equal(stats_of(p).checked_out, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
wipes_only_what_was_dirtied(void **state)
{
	struct bufpool *p = pool_of(1, 0, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 4096);

	(void)state;
	assert_int_equal(((const char *)bufpool_peek(b))[4095], 0);
	bufpool_release(b);
	assert_int_equal(stats_of(p).wiped_bytes, 0);
	b = bufpool_checkout(p, 4096);
	memset(bufpool_data(b), 1, 64);
	bufpool_wrote(b, 64);
	bufpool_release(b);
	assert_int_equal(stats_of(p).wiped_bytes, 64);
	bufpool_destroy(p);
}

static void
resizing_shows_zeroes_and_keeps_the_contents(void **state)
{
	struct bufpool *p = pool_of(1, 1, 0);
	struct bufpool_buf *b = bufpool_checkout(p, 1000);
	unsigned char *data = bufpool_data(b);

	(void)state;
	memset(data, 7, 1000);
	assert_int_equal(bufpool_resize(b, 10), 0);
	assert_int_equal(bufpool_resize(b, 2000), 0);
	data = bufpool_data(b);
	for (size_t i = 0; i < 2000; i++)
		assert_int_equal(data[i], i < 10 ? 7 : 0);
	memset(data, 9, 2000);
	assert_int_equal(bufpool_resize(b, 3000000), 0);
	assert_int_equal(bufpool_len(b), 3000000);
	data = bufpool_data(b);
	for (size_t i = 0; i < 3000000; i++)
		if (data[i] != (i < 2000 ? 9 : 0))
			fail_msg("byte %zu is %d", i, data[i]);
	bufpool_release(b);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
keeps_an_alignment_through_growth(void **state)
{
	struct bufpool *p = pool_of(1, 1, 0);

	(void)state;
	for (size_t a = 1; a <= (size_t)1 << 22; a *= 2) {
		struct bufpool_buf *b = bufpool_checkout_aligned(p, 100, a);

		assert_non_null(b);
		assert_int_equal((uintptr_t)bufpool_peek(b) % a, 0);
		memset(bufpool_data(b), 5, 100);
		assert_int_equal(bufpool_resize(b, 100000), 0);
		assert_int_equal((uintptr_t)bufpool_peek(b) % a, 0);
		assert_int_equal(((const char *)bufpool_peek(b))[99], 5);
		bufpool_release(b);
	}
	errno = 0;
	assert_null(bufpool_checkout_aligned(p, 1, 0));
	assert_int_equal(errno, EINVAL);
	assert_null(bufpool_checkout_aligned(p, 1, 48));
	assert_int_equal(errno, EINVAL);
	assert_null(bufpool_checkout_aligned(p, 1, (size_t)1 << 63));
	assert_int_equal(errno, ENOMEM);
	bufpool_destroy(p);
}

static void
refuses_sizes_that_cannot_be(void **state)
{
	struct bufpool *p = pool_of(1, 0, 0);
	struct bufpool_buf *b;

	(void)state;
	assert_null(bufpool_checkout(p, (size_t)PTRDIFF_MAX + 1));
	assert_int_equal(errno, EOVERFLOW);
	assert_null(bufpool_checkout(p, SIZE_MAX));
	assert_int_equal(errno, EOVERFLOW);
	assert_null(bufpool_checkout(p, PTRDIFF_MAX));
	assert_int_equal(errno, ENOMEM);
	assert_null(bufpool_try_checkout(p, SIZE_MAX));
	assert_int_equal(errno, EOVERFLOW);
	b = bufpool_checkout(p, 10);
	memset(bufpool_data(b), 3, 10);
	assert_int_equal(bufpool_resize(b, SIZE_MAX), -1);
	assert_int_equal(errno, EOVERFLOW);
	assert_int_equal(bufpool_resize(b, PTRDIFF_MAX), -1);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_len(b), 10);
	assert_int_equal(((const char *)bufpool_peek(b))[9], 3);
	bufpool_release(b);
	bufpool_release(NULL);
	bufpool_frozen_unref(NULL);
	bufpool_destroy(NULL);
	bufpool_destroy(p);
}

static void
try_checkout_takes_only_what_is_ready(void **state)
{
	struct bufpool *p = pool_of(3, 0, 0);
	struct bufpool_buf *held[3];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_try_checkout(p, 1));
	errno = 0;
	assert_null(bufpool_try_checkout(p, 1));
	assert_int_equal(errno, EAGAIN);
	assert_null(bufpool_try_checkout(p, 4097));
	assert_int_equal(errno, EAGAIN);
	assert_null(bufpool_try_checkout(p, 2000000));
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(stats_of(p).misses, 0);
	for (size_t i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_non_null(held[0] = bufpool_try_checkout(p, 1));
	bufpool_release(held[0]);
	bufpool_destroy(p);
}

static void
recovers_when_max_bytes_is_reached(void **state)
{
	struct bufpool *p = pool_of(0, 0, 3 * 65536);
	struct bufpool_buf *held[3], *small;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, EDQUOT);
	assert_null(bufpool_checkout(p, 5000000));
	assert_int_equal(errno, EDQUOT);
	assert_int_equal(bufpool_resize(held[0], 70000), -1);
	assert_int_equal(errno, EDQUOT);
	bufpool_release(held[0]);
	/* What lies idle in one class serves another. */
	assert_non_null(small = bufpool_checkout(p, 1));
	assert_int_equal(stats_of(p).committed_bytes, 2 * 65536 + 4096);
	bufpool_release(held[1]);
	bufpool_release(held[2]);
	bufpool_release(small);
	for (size_t i = 0; i < 3; i++)
		assert_non_null(held[i] = bufpool_checkout(p, 65536));
	for (size_t i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
trims_down_to_the_configured_counts(void **state)
{
	struct bufpool *p = pool_of(10, 0, 0);
	enum { BURST = 5000 };
	static struct bufpool_buf *held[BURST];
	struct bufpool_stats s;

	(void)state;
	for (size_t i = 0; i < BURST; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, 4096));
		memset(bufpool_data(held[i]), 1, 4096);
	}
	assert_int_equal(stats_of(p).committed_bytes, BURST * 4096);
	for (size_t i = 0; i < BURST; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	s = stats_of(p);
	assert_int_equal(bufpool_trim(p), s.committed_bytes - 10 * 4096);
	assert_int_equal(stats_of(p).committed_bytes, 10 * 4096);
	assert_int_equal(bufpool_trim(p), 0);
	for (size_t i = 0; i < BURST; i++) {
		assert_non_null(held[i] = bufpool_checkout(p, 4096));
		assert_all_zero(held[i]);
	}
	for (size_t i = 0; i < BURST; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
}

/* The last buffer out of the cache is the last one put in: warm. */
static void
hands_out_the_buffer_released_last(void **state)
{
	struct bufpool *p = pool_of(8, 0, 0);
	struct bufpool_buf *a = bufpool_checkout(p, 1);
	struct bufpool_buf *b = bufpool_checkout(p, 1);
	const void *last = bufpool_peek(a);

	(void)state;
	bufpool_release(b);
	bufpool_release(a);
	a = bufpool_checkout(p, 1);
	assert_ptr_equal(bufpool_peek(a), last);
	bufpool_release(a);
	bufpool_destroy(p);
}

static void
closing_keeps_what_is_out_and_refuses_more(void **state)
{
	struct bufpool *p = pool_of(4, 4, 0);
	struct bufpool_buf *a = bufpool_checkout(p, 100);
	struct bufpool_buf *b = bufpool_checkout(p, 100);
	struct bufpool_frozen *f;

	(void)state;
	memset(bufpool_data(a), 1, 100);
	bufpool_close(p);
	errno = 0;
	assert_null(bufpool_checkout(p, 1));
	assert_int_equal(errno, ESHUTDOWN);
	assert_null(bufpool_try_checkout(p, 1));
	assert_int_equal(errno, ESHUTDOWN);
	assert_null(bufpool_checkout(p, 2000000));
	assert_int_equal(errno, ESHUTDOWN);
	assert_int_equal(stats_of(p).committed_bytes, 2 * 4096);
	assert_int_equal(((const char *)bufpool_peek(a))[99], 1);
	bufpool_release(a);
	assert_int_equal(stats_of(p).committed_bytes, 4096);
	f = bufpool_freeze(b);
	bufpool_destroy(p);
	assert_int_equal(bufpool_frozen_len(f), 100);
	bufpool_frozen_unref(f);
}

static void
uses_the_place_of_a_pool_that_is_gone(void **state)
{
	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct bufpool *p = pool_of(2, 0, 0);
		struct bufpool_buf *b = bufpool_checkout(p, 100);

		assert_non_null(b);
		assert_all_zero(b);
		memset(bufpool_data(b), 1, 100);
		if (i % 2)
			bufpool_destroy(p);
		bufpool_release(b);
		if (i % 2 == 0)
			bufpool_destroy(p);
	}
}

static void
shares_a_pool_by_name(void **state)
{
	struct bufpool_config config;
	struct bufpool *a, *b;

	(void)state;
	assert_null(bufpool_get("shared"));
	assert_int_equal(errno, ENOENT);
	bufpool_config_init(&config);
	config.name = "shared";
	config.four_kib_count = 5;
	a = bufpool_create(&config);
	assert_non_null(a);
	assert_ptr_equal(bufpool_create(&config), a);
	assert_ptr_equal(bufpool_get("shared"), a);
	config.four_kib_count = 6;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(a);
	bufpool_destroy(a);
	bufpool_destroy(a);
	assert_null(bufpool_get("shared"));
	b = bufpool_create(&config);
	assert_non_null(b);
	bufpool_destroy(b);
	a = bufpool_default();
	b = bufpool_default();
	assert_non_null(a);
	assert_ptr_equal(a, b);
	bufpool_destroy(a);
	bufpool_destroy(b);
}

static void
refuses_a_configuration_out_of_range(void **state)
{
	struct bufpool_config config;
	char long_name[BUFPOOL_NAME_MAX + 1];

	(void)state;
	memset(long_name, 'x', BUFPOOL_NAME_MAX);
	long_name[BUFPOOL_NAME_MAX] = '\0';
	bufpool_config_init(&config);
	config.name = long_name;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.numa_node = -3;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.one_mib_count = SIZE_MAX;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EINVAL);
	bufpool_config_init(&config);
	config.max_bytes = 100000;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EDQUOT);
}

/* A host built before max_bytes was added to the struct. */
static void
reads_and_fills_the_structs_of_older_callers(void **state)
{
	struct bufpool_config config;
	struct bufpool_stats s;
	struct bufpool *p;

	(void)state;
	memset(&config, 0xff, sizeof config);
	bufpool_config_init_sized(&config,
				  offsetof(struct bufpool_config, max_bytes));
	assert_int_equal(config.max_bytes, SIZE_MAX);
	p = bufpool_create(&config);
	assert_non_null(p);
	memset(&s, 0xff, sizeof s);
	bufpool_get_stats_sized(p, &s,
				offsetof(struct bufpool_stats, wiped_bytes));
	assert_int_equal(s.committed_bytes,
			 64 * 4096 + 8 * 65536 + 2 * 262144);
	assert_int_equal(s.wiped_bytes, UINT64_MAX);
	bufpool_destroy(p);
}

static void
out_of_memory_is_an_error_and_passes(void **state)
{
	struct rlimit old, tight;
	struct bufpool *p = pool_of(1, 0, 0);
	struct bufpool_buf *held[64], *b;
	size_t n = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	unsigned long pages;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();	/* a sanitizer's own mappings exceed any such limit */
#endif
	assert_int_equal(fscanf(statm, "%lu", &pages), 1);
	fclose(statm);
	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = pages * 4096 + ((size_t)20 << 20);
	setrlimit(RLIMIT_AS, &tight);
	while (n < 64 && (held[n] = bufpool_checkout(p, 1048576)) != NULL)
		n++;
	assert_true(n > 0 && n < 64);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(bufpool_resize(held[0], 40000000), -1);
	assert_int_equal(errno, ENOMEM);
	bufpool_release(held[--n]);
	assert_non_null(b = bufpool_checkout(p, 1048576));
	setrlimit(RLIMIT_AS, &old);
	bufpool_release(b);
	while (n > 0)
		bufpool_release(held[--n]);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void *
use_some(void *pool)
{
	struct bufpool_buf *held[10];

	for (int i = 0; i < 10; i++)
		held[i] = bufpool_checkout(pool, 1);
	for (int i = 0; i < 10; i++)
		bufpool_release(held[i]);
	return NULL;
}

static void
an_exiting_thread_leaves_its_cache_to_others(void **state)
{
	struct bufpool *p = pool_of(0, 0, 0);
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, use_some, p);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(p).classes[0].ready, 10);
	assert_int_equal(stats_of(p).classes[0].cached, 0);
	use_some(p);
	assert_int_equal(stats_of(p).misses, 10);
	assert_true(stats_of(p).classes[0].cached > 0);
	bufpool_thread_flush();
	assert_int_equal(stats_of(p).classes[0].cached, 0);
	assert_int_equal(stats_of(p).classes[0].ready, 10);
	bufpool_destroy(p);
}

static void *
trim_pool(void *pool)
{
	return (void *)bufpool_trim(pool);
}

static void *
checkout_one(void *pool)
{
	return bufpool_checkout(pool, 65536);
}

/* This thread caches and then does nothing. */
static void
others_reach_what_an_idle_thread_has_cached(void **state)
{
	struct bufpool *p = pool_of(0, 0, 3 * 65536);
	struct bufpool_buf *held[3];
	pthread_t thread;
	void *result, *trimmed;

	(void)state;
	for (int i = 0; i < 3; i++)
		held[i] = bufpool_checkout(p, 65536);
	for (int i = 0; i < 3; i++)
		bufpool_release(held[i]);
	assert_int_equal(stats_of(p).classes[1].cached, 3);
	pthread_create(&thread, NULL, checkout_one, p);
	pthread_join(thread, &result);
	assert_non_null(result);
	pthread_create(&thread, NULL, trim_pool, p);
	pthread_join(thread, &trimmed);
	assert_int_equal((size_t)trimmed, 2 * 65536);
	assert_int_equal(stats_of(p).committed_bytes, 65536);
	bufpool_release(result);
	bufpool_destroy(p);
}

/* Runs misuse in a child; it must abort and say so. */
static void
assert_aborts(void (*misuse)(struct bufpool *), const char *message)
{
	char said[512] = "";
	int fd[2], status;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe(fd), 0);
	child = fork();
	if (child == 0) {
		dup2(fd[1], 2);
		misuse(pool_of(4, 4, 0));
		_exit(0);
	}
	close(fd[1]);
	n = read(fd[0], said, sizeof said - 1);
	said[n > 0 ? n : 0] = '\0';
	close(fd[0]);
	waitpid(child, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT ||
	    strstr(said, message) == NULL)
		fail_msg("status %x, said: %s", (unsigned)status, said);
}

static void
release_twice(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_release(b);
	bufpool_release(b);
}

static void
release_frozen(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_freeze(b);
	bufpool_release(b);
}

static void
freeze_released(struct bufpool *p)
{
	struct bufpool_buf *b = bufpool_checkout(p, 1);

	bufpool_release(b);
	bufpool_freeze(b);
}

static void
unref_twice(struct bufpool *p)
{
	struct bufpool_frozen *f = bufpool_freeze(bufpool_checkout(p, 1));

	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

static void
aborts_on_proven_corruption(void **state)
{
	(void)state;
	assert_aborts(release_twice, "corruption at release");
	assert_aborts(release_frozen, "is frozen");
	assert_aborts(freeze_released, "corruption at freeze");
	assert_aborts(unref_twice, "corruption at unref");
}

static void
release_keeps_errno(void **state)
{
	struct bufpool *p = pool_of(0, 0, 0);
	struct bufpool_buf *held[200];

	(void)state;
	for (size_t i = 0; i < 200; i++)
		held[i] = bufpool_checkout(p, 65536);
	errno = 4711;
	for (size_t i = 0; i < 200; i++)
		bufpool_release(held[i]);
	assert_int_equal(errno, 4711);
	bufpool_destroy(p);
	assert_int_equal(errno, 4711);
}

static struct bufpool *
own_classes(const struct bufpool_class_config *classes, size_t count)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = count;
	return bufpool_create(&config);
}

static void
has_classes_of_its_own(void **state)
{
	const struct bufpool_class_config classes[] = {
		{ 40960, 2 }, { 4096, 0 }, { 8388608, 1 }, { 8192, 7 }
	};
	static const size_t sizes[] = { 4096, 8192, 40960, 8388608 };
	static const uint64_t counts[] = { 0, 7, 2, 1 };
	struct bufpool *p = own_classes(classes, 4);
	struct bufpool_stats s;

	(void)state;
	assert_non_null(p);
	s = stats_of(p);
	assert_int_equal(s.class_count, 4);
	for (unsigned c = 0; c < 4; c++) {
		assert_int_equal(s.classes[c].size, sizes[c]);
		assert_int_equal(s.classes[c].ready, counts[c]);
	}
	assert_int_equal(s.committed_bytes, 7 * 8192 + 2 * 40960 + 8388608);
	bufpool_destroy(p);
}

static void
refuses_classes_that_cannot_be(void **state)
{
	struct bufpool_class_config many[BUFPOOL_CLASSES_MAX + 1];
	const struct bufpool_class_config wrong[][3] = {
		{ { 4096, 1 }, { 0, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 4097, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 2048, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { 8192, 1 }, { 8192, 2 } },
		{ { 8192, 1 }, { 4096, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { SIZE_MAX - 4095, 1 }, { 8192, 1 } },
		{ { 4096, 1 }, { ((size_t)1 << 40) + 4096, 0 }, { 8192, 1 } },
		{ { 4096, 1 }, { 8192, SIZE_MAX }, { 12288, 1 } },
		{ { 4096, 1 }, { 8192, ((size_t)1 << 20) + 1 }, { 12288, 1 } },
	};
	struct bufpool *p;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		errno = 0;
		assert_null(own_classes(wrong[i], 3));
		assert_int_equal(errno, EINVAL);
	}
	for (size_t i = 0; i < BUFPOOL_CLASSES_MAX + 1; i++)
		many[i] = (struct bufpool_class_config){ (i + 1) * 4096, 0 };
	errno = 0;
	assert_null(own_classes(many, BUFPOOL_CLASSES_MAX + 1));
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(own_classes(NULL, 1));
	assert_int_equal(errno, EINVAL);
	p = own_classes(many, BUFPOOL_CLASSES_MAX);
	assert_non_null(p);
	assert_int_equal(stats_of(p).class_count, BUFPOOL_CLASSES_MAX);
	bufpool_destroy(p);
}

static void
a_name_stands_for_the_same_classes(void **state)
{
	struct bufpool_class_config classes[] = { { 8192, 1 }, { 4096, 3 } };
	struct bufpool_config config;
	struct bufpool *a, *b;

	(void)state;
	bufpool_config_init(&config);
	config.name = "own classes";
	config.classes = classes;
	config.class_count = 2;
	assert_non_null(a = bufpool_create(&config));
	/* The order does not matter, all else does. */
	classes[0] = (struct bufpool_class_config){ 4096, 3 };
	classes[1] = (struct bufpool_class_config){ 8192, 1 };
	assert_ptr_equal(b = bufpool_create(&config), a);
	bufpool_destroy(b);
	classes[1].count = 2;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	classes[1] = (struct bufpool_class_config){ 12288, 1 };
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	config.class_count = 1;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	config.class_count = 0;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	bufpool_destroy(a);
}

static uint64_t seed;		/* CORE_SEED; printed when a test fails */

static size_t
below(size_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

/* The slow way to find it. */
static size_t
expected_capacity(const struct bufpool_class_config *classes, size_t count,
		  size_t n)
{
	size_t best = 0;

	for (size_t i = 0; i < count; i++)
		if (classes[i].size >= n &&
		    (best == 0 || classes[i].size < best))
			best = classes[i].size;
	return best ? best : n;
}

static size_t
some_classes(struct bufpool_class_config *classes)
{
	size_t count = 1 + below(BUFPOOL_CLASSES_MAX);

	for (size_t i = 0; i < count;) {
		size_t size = (1 + below((size_t)1 << below(13))) * 4096;
		size_t j = 0;

		while (j < i && classes[j].size != size)
			j++;
		if (j == i)
			classes[i++] = (struct bufpool_class_config){
				size, below(3)
			};
		else
			count--;
	}
	return count;
}

static void
each_size_goes_to_the_class_that_an_oracle_names(void **state)
{
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	uint64_t start = seed;

	(void)state;
	for (int round = 0; round < 300; round++) {
		size_t count = some_classes(classes);
		struct bufpool *p = own_classes(classes, count);

		assert_non_null(p);
		for (int i = 0; i < 100; i++) {
			size_t near = classes[below(count)].size;
			size_t n = i % 2 ? near - 2 + below(5)
					 : below((size_t)1 << below(26));
			size_t want = expected_capacity(classes, count, n);
			struct bufpool_buf *b = bufpool_checkout(p, n);

			assert_non_null(b);
			if (bufpool_capacity(b) != want)
				fail_msg("CORE_SEED=%llu: %zu bytes are in "
					 "%zu, not %zu",
					 (unsigned long long)start, n,
					 bufpool_capacity(b), want);
			bufpool_release(b);
			if (i % 10 == 0)
				bufpool_trim(p);
		}
		assert_conserved(p);
		bufpool_destroy(p);
	}
}

/* Pages of [at, at + n) that are in memory. */
static size_t
resident(const void *at, size_t n)
{
	static unsigned char is[8192];
	size_t pages = (n + 4095) / 4096, sum = 0;

	assert_in_range(pages, 1, sizeof is);
	assert_int_equal(mincore((void *)(uintptr_t)at, n, is), 0);
	for (size_t i = 0; i < pages; i++)
		sum += is[i] & 1;
	return sum;
}

static void
assert_prefaulted(int prefault, int huge_pages)
{
	static const size_t sizes[] = { 4096, 65536, 262144, 1048576, 3000000 };
	struct bufpool_config config;
	struct bufpool_buf *held[4];
	struct bufpool *p;

	bufpool_config_init(&config);
	config.prefault = prefault;
	config.huge_pages = huge_pages;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (size_t i = 0; i < 5; i++)
		for (int again = 0; again < 2; again++) {
			size_t n = sizes[i], pages = (n + 4095) / 4096;

			for (int j = 0; j < 4; j++) {
				held[j] = bufpool_checkout(p, n);
				assert_non_null(held[j]);
				assert_int_equal(
				    resident(bufpool_peek(held[j]), n),
				    prefault ? pages : 0);
				assert_all_zero(held[j]);
			}
			for (int j = 0; j < 4; j++)
				bufpool_release(held[j]);
			bufpool_trim(p);
			/* What is kept has been read. */
			if (!prefault)
				break;
		}
	bufpool_destroy(p);
}

static void
prefault_has_the_pages_there_at_checkout(void **state)
{
	(void)state;
	assert_prefaulted(1, 0);
	assert_prefaulted(1, 1);
	assert_prefaulted(0, 0);
}

/* Of the mapping that holds the address: a line of /proc/self/smaps. */
static bool
smaps(const void *at, const char *key, char *value, size_t size)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[512];
	bool inside = false, found = false;

	assert_non_null(file);
	while (!found && fgets(line, sizeof line, file) != NULL) {
		unsigned long first, end;

		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = first <= (uintptr_t)at && (uintptr_t)at < end;
		else if (inside && strncmp(line, key, strlen(key)) == 0) {
			snprintf(value, size, "%s", line + strlen(key));
			found = true;
		}
	}
	fclose(file);
	return found;
}

static bool
huge_pages_are_allowed(void)
{
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	char line[128] = "";

	if (file != NULL && fgets(line, sizeof line, file) == NULL)
		line[0] = '\0';
	if (file != NULL)
		fclose(file);
	return strstr(line, "[madvise]") || strstr(line, "[always]");
}

static void
huge_pages_are_asked_for(void **state)
{
	static const size_t sizes[] = { 4096, 65536, 1048576, 2097152,
					9000000 };
	const size_t huge = (size_t)2 << 20;
	struct bufpool_config config;
	struct bufpool_buf *held[5];
	char line[512];
	long sum = 0;
	struct bufpool *p;

	(void)state;
	bufpool_config_init(&config);
	config.huge_pages = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (size_t i = 0; i < 5; i++) {
		held[i] = bufpool_checkout(p, sizes[i]);
		assert_non_null(held[i]);
		if (!smaps(bufpool_peek(held[i]), "VmFlags:", line, 512)) {
			print_message("no VmFlags in /proc/self/smaps\n");
			skip();
		}
		assert_non_null(strstr(line, " hg"));
		if (sizes[i] >= huge)
			assert_int_equal((uintptr_t)bufpool_peek(held[i]) %
					 huge, 0);
		memset(bufpool_data(held[i]), 1, sizes[i]);
		assert_true(smaps(bufpool_peek(held[i]), "AnonHugePages:",
				  line, 512));
		sum += atol(line);
	}
	for (size_t i = 0; i < 5; i++)
		bufpool_release(held[i]);
	assert_conserved(p);
	bufpool_destroy(p);
	p = pool_of(1, 0, 0);
	held[0] = bufpool_checkout(p, 65536);
	smaps(bufpool_peek(held[0]), "VmFlags:", line, 512);
	assert_null(strstr(line, " hg"));
	bufpool_release(held[0]);
	bufpool_destroy(p);
	if (!huge_pages_are_allowed()) {
		print_message("the system has huge pages switched off\n");
		skip();
	}
	assert_true(sum > 0);
}

/* Threads that all hold a quarter of a burst at the same time. */
#define BURSTERS 4
#define BURST_BYTES ((size_t)4 << 20)	/* of each class in each thread */

static pthread_barrier_t all_hold;

static void *
hold_and_release(void *pool)
{
	static const size_t sizes[] = { 4096, 65536, 262144, 1048576 };
	struct bufpool_buf *held[2 * BURST_BYTES / 4096];
	size_t n = 0;

	for (size_t c = 0; c < 4; c++)
		for (size_t i = 0; i < BURST_BYTES / sizes[c]; i++) {
			held[n] = bufpool_checkout(pool, sizes[c]);
			if (held[n] == NULL)
				abort();
			memset(bufpool_data(held[n++]), 1, sizes[c]);
		}
	pthread_barrier_wait(&all_hold);
	pthread_barrier_wait(&all_hold);
	while (n > 0)
		bufpool_release(held[--n]);
	return NULL;
}

static size_t
resident_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	size_t kib = 0;

	assert_non_null(file);
	while (kib == 0 && fgets(line, sizeof line, file) != NULL)
		sscanf(line, "Rss: %zu kB", &kib);
	fclose(file);
	return kib * 1024;
}

/* How much memory there was in the middle of it. */
static size_t
burst(struct bufpool *p)
{
	pthread_t thread[BURSTERS];
	size_t most;

	pthread_barrier_init(&all_hold, NULL, BURSTERS + 1);
	for (int i = 0; i < BURSTERS; i++)
		pthread_create(&thread[i], NULL, hold_and_release, p);
	pthread_barrier_wait(&all_hold);
	most = resident_bytes();
	pthread_barrier_wait(&all_hold);
	for (int i = 0; i < BURSTERS; i++)
		pthread_join(thread[i], NULL);
	return most;
}

/* After the first one descriptors stay, stacks that the C library keeps, and
 * what a checker knows about memory. After the next one nothing more does. */
static void
one_trim_gives_a_burst_back_to_the_system(void **state)
{
	struct bufpool *p = pool_of(64, 8, 0);
	size_t bytes = BURSTERS * 4 * BURST_BYTES;
	size_t fresh = resident_bytes(), before, most, after;

	(void)state;
	most = burst(p);
	assert_true(most >= bytes);
	bufpool_trim(p);
	before = resident_bytes();
	assert_in_range(before, 0, fresh + bytes / 4);
	most = burst(p);
	assert_true(most >= bytes);
	bufpool_trim(p);
	after = resident_bytes();
	if (after > before + before / 10)
		fail_msg("%zu KiB before, %zu after", before / 1024,
			 after / 1024);
	assert_conserved(p);
	bufpool_destroy(p);
}

static uint64_t
assert_not_below(struct bufpool *p, const uint64_t *counts)
{
	struct bufpool_stats s = stats_of(p);

	for (unsigned c = 0; c < s.class_count; c++)
		assert_in_range(s.classes[c].count, counts[c], UINT64_MAX);
	return s.committed_bytes;
}

/* Time is what it goes by, so this takes some; a minute would be a failure. */
static void
what_lies_idle_decays(void **state)
{
	static const uint64_t counts[] = { 300, 40, 2, 0 };
	struct bufpool_config config;
	struct bufpool *used, *unused;
	uint64_t least = 300 * 4096 + 40 * 65536 + 2 * 262144, a, b;
	time_t start = time(NULL);

	(void)state;
	bufpool_config_init(&config);
	config.four_kib_count = counts[0];
	config.sixty_four_kib_count = counts[1];
	used = bufpool_create(&config);
	unused = bufpool_create(&config);
	assert_true(used != NULL && unused != NULL);
	burst(used);
	burst(unused);
	a = stats_of(used).committed_bytes;
	b = stats_of(unused).committed_bytes;
	assert_true(a > 60000000 && b > 60000000);
	while (stats_of(used).committed_bytes > a / 2 ||
	       stats_of(unused).committed_bytes > b / 2) {
		assert_in_range(time(NULL) - start, 0, 60);
		for (int i = 0; i < 100; i++)
			bufpool_release(bufpool_checkout(used, 100));
		nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
		assert_in_range(assert_not_below(used, counts), least, a);
		assert_in_range(assert_not_below(unused, counts), least, b);
	}
	assert_conserved(used);
	assert_conserved(unused);
	bufpool_destroy(used);
	bufpool_destroy(unused);
}

/* What is out, or may be just now: never less than is. */
static _Atomic uint64_t out_now, out_most;
static _Atomic int enough;

static void *
hold_some(void *pool)
{
	struct bufpool_buf *held[100] = { NULL };
	unsigned random = (unsigned)(uintptr_t)held;

	while (!atomic_load(&enough)) {
		unsigned i = (unsigned)rand_r(&random) / 7 % 100;
		uint64_t now, most = atomic_load(&out_most);

		if (held[i] != NULL) {
			bufpool_release(held[i]);
			held[i] = NULL;
			atomic_fetch_sub(&out_now, 1);
			continue;
		}
		now = atomic_fetch_add(&out_now, 1) + 1;
		while (now > most && !atomic_compare_exchange_weak(
					 &out_most, &most, now))
			;
		held[i] = bufpool_checkout(pool, 100);
		if (held[i] == NULL)
			abort();
	}
	for (unsigned i = 0; i < 100; i++)
		bufpool_release(held[i]);
	return NULL;
}

/* Never more than one at a time, of each class, and of none. */
static void *
hold_one(void *pool)
{
	while (!atomic_load(&enough)) {
		bufpool_release(bufpool_checkout(pool, 1));
		bufpool_release(bufpool_checkout(pool, 1048576));
		bufpool_release(bufpool_checkout(pool, 1048577));
	}
	return NULL;
}

static void
peaks_of_several_classes_are_not_added_up(void **state)
{
	struct bufpool *p = pool_of(64, 8, 0);
	struct bufpool_stats s;
	pthread_t thread;

	(void)state;
	atomic_store(&enough, 0);
	pthread_create(&thread, NULL, hold_one, p);
	for (int i = 0; i < 500000; i++)
		bufpool_get_stats(p, &s);
	atomic_store(&enough, 1);
	pthread_join(thread, NULL);
	s = stats_of(p);
	assert_int_equal(s.checked_out, 0);
	assert_int_equal(s.peak_checked_out, 1);
	assert_in_range(s.peak_bytes_checked_out, 4096, 1048577);
	bufpool_destroy(p);
}

static pthread_barrier_t both;

static void *
trim(void *pool)
{
	pthread_barrier_wait(&both);
	bufpool_trim(pool);
	return NULL;
}

static void
two_trims_at_once_leave_the_counts(void **state)
{
	static struct bufpool_buf *held[1000];
	pthread_t thread[2];

	(void)state;
	pthread_barrier_init(&both, NULL, 2);
	for (int round = 0; round < 100; round++) {
		struct bufpool *p = pool_of(64, 8, 0);

		for (int i = 0; i < 1000; i++)
			held[i] = bufpool_checkout(p, 1);
		for (int i = 0; i < 1000; i++)
			bufpool_release(held[i]);
		for (int i = 0; i < 2; i++)
			pthread_create(&thread[i], NULL, trim, p);
		for (int i = 0; i < 2; i++)
			pthread_join(thread[i], NULL);
		assert_int_equal(stats_of(p).classes[0].count, 64);
		bufpool_destroy(p);
	}
	pthread_barrier_destroy(&both);
}

static void *
release_it(void *b)
{
	bufpool_release(b);
	return NULL;
}

/* A thread whose checkouts are all slow still looks around: its countdown to
 * that starts again each time. */
static void
checkouts_count_down_in_slow_paths_too(void **state)
{
	struct bufpool *p = bufpool_create(NULL);
	struct bufpool_shelf *s;
	pthread_t thread;

	(void)state;
	for (int i = 0; i < 3 * SHELF_CHECKOUTS; i++) {
		pthread_create(&thread, NULL, release_it,
			       bufpool_checkout(p, 1048576));
		pthread_join(thread, NULL);
		s = &thread_own_cache(p)->shelf[3];
		assert_true(s->left >= 0 && s->left <= SHELF_CHECKOUTS);
	}
	assert_int_equal(shelf_checkouts(s), 3 * SHELF_CHECKOUTS);
	bufpool_destroy(p);
}

static void
peaks_are_never_above_what_was_out(void **state)
{
	struct bufpool *p = pool_of(64, 8, 0);
	struct bufpool_stats s;
	pthread_t thread[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, hold_some, p);
	for (int i = 0; i < 100000; i++)
		bufpool_get_stats(p, &s);
	atomic_store(&enough, 1);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	s = stats_of(p);
	assert_int_equal(s.checked_out, 0);
	assert_in_range(s.peak_checked_out, 1, out_most);
	assert_int_equal(s.peak_bytes_checked_out, s.peak_checked_out * 4096);
	bufpool_destroy(p);
}

int
main(void)
{
	const char *given = getenv("CORE_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_the_smallest_class_that_holds_it),
		cmocka_unit_test(gives_every_byte_back_as_zero),
		cmocka_unit_test(wipes_only_what_was_dirtied),
		cmocka_unit_test(resizing_shows_zeroes_and_keeps_the_contents),
		cmocka_unit_test(keeps_an_alignment_through_growth),
		cmocka_unit_test(refuses_sizes_that_cannot_be),
		cmocka_unit_test(try_checkout_takes_only_what_is_ready),
		cmocka_unit_test(recovers_when_max_bytes_is_reached),
		cmocka_unit_test(trims_down_to_the_configured_counts),
		cmocka_unit_test(hands_out_the_buffer_released_last),
		cmocka_unit_test(closing_keeps_what_is_out_and_refuses_more),
		cmocka_unit_test(uses_the_place_of_a_pool_that_is_gone),
		cmocka_unit_test(shares_a_pool_by_name),
		cmocka_unit_test(refuses_a_configuration_out_of_range),
		cmocka_unit_test(reads_and_fills_the_structs_of_older_callers),
		cmocka_unit_test(out_of_memory_is_an_error_and_passes),
		cmocka_unit_test(an_exiting_thread_leaves_its_cache_to_others),
		cmocka_unit_test(others_reach_what_an_idle_thread_has_cached),
		cmocka_unit_test(aborts_on_proven_corruption),
		cmocka_unit_test(release_keeps_errno),
		cmocka_unit_test(has_classes_of_its_own),
		cmocka_unit_test(refuses_classes_that_cannot_be),
		cmocka_unit_test(a_name_stands_for_the_same_classes),
		cmocka_unit_test(
		    each_size_goes_to_the_class_that_an_oracle_names),
		cmocka_unit_test(prefault_has_the_pages_there_at_checkout),
		cmocka_unit_test(huge_pages_are_asked_for),
		cmocka_unit_test(one_trim_gives_a_burst_back_to_the_system),
		cmocka_unit_test(what_lies_idle_decays),
		cmocka_unit_test(peaks_are_never_above_what_was_out),
		cmocka_unit_test(peaks_of_several_classes_are_not_added_up),
		cmocka_unit_test(two_trims_at_once_leave_the_counts),
		cmocka_unit_test(checkouts_count_down_in_slow_paths_too),
	};

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) | 1;
	return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
