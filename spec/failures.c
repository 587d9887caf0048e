/*
 * Every call to the system may fail. The program stands in for mmap, munmap,
 * mremap, mprotect, madvise, mbind, membarrier and pthread_setspecific, counts
 * those that the core makes in a scenario, and runs the scenario again for
 * each of them, in a child in which this one fails: once that one alone, and
 * once all of its kind that follow as well.
 *
 * Whatever fails, nothing crashes; the error is one that the header names, and
 * what was asked for stays as it was; each buffer that exists is in one place;
 * all works again afterwards; and in the end nothing stays committed or
 * mapped, but for what could not be given back.
 *
 * FAILURES_STEP: every so manieth call only, the 6th unless given.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/membarrier.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/pool.h"
#include "support/pool.h"
#include "support/process.h"

#define ODD_ERRNO 4321		/* of no call: a release has to keep it */

enum kind { MMAP, MUNMAP, MREMAP, MPROTECT, MADVISE, MBIND, MEMBARRIER,
	    SETSPECIFIC, KINDS };

static const char *const kind_name[KINDS] = {
	"mmap", "munmap", "mremap", "mprotect", "madvise", "mbind",
	"membarrier", "pthread_setspecific",
};

/* What is made to fail: calls first to last of a kind, counted from 1 while
 * armed. */
static struct {
	atomic_bool armed;
	enum kind kind;
	uint64_t first, last;
	_Atomic uint64_t calls[KINDS];
	_Atomic size_t unmap_failed;	/* bytes */
	_Atomic size_t advise_failed;	/* bytes */
} fault;

static _Atomic int64_t mapped;	/* bytes, less those of thread records */

static size_t
pages(size_t bytes)
{
	return (bytes + 4095) & ~(size_t)4095;
}

static bool
fails(enum kind kind)
{
	uint64_t n;

	if (!atomic_load(&fault.armed))
		return false;
	n = atomic_fetch_add(&fault.calls[kind], 1) + 1;
	if (kind != fault.kind || n < fault.first || n > fault.last)
		return false;
	errno = ENOMEM;
	return true;
}

static size_t large_page = 1;	/* as if the system had such pages */

/* The program's own definitions come before those of the C library. */
#define STANDS_IN __attribute__((visibility("default")))

#define REAL(name, ...)                                              \
	((__typeof__(&name))real(#name))(__VA_ARGS__)

static void *
real(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	CHECK(found != NULL, "no %s", name);
	return found;
}

STANDS_IN void *
mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	/* A fixed one replaces what is mapped. */
	bool counts = bytes != sizeof(struct thread) && !(flags & MAP_FIXED);
	void *p;

	if (fails(MMAP))
		return MAP_FAILED;
	p = REAL(mmap, at, bytes, prot, flags, fd, offset);
	if (p != MAP_FAILED && counts)
		atomic_fetch_add(&mapped, (int64_t)pages(bytes));
	return p;
}

STANDS_IN int
munmap(void *at, size_t bytes)
{
	int result;

	if (fails(MUNMAP)) {
		atomic_fetch_add(&fault.unmap_failed, pages(bytes));
		return -1;
	}
	result = REAL(munmap, at, bytes);
	if (result == 0)
		atomic_fetch_sub(&mapped, (int64_t)pages(bytes));
	return result;
}

STANDS_IN void *
mremap(void *at, size_t bytes, size_t wanted, int flags, ...)
{
	void *p;

	if (fails(MREMAP))
		return MAP_FAILED;
	p = REAL(mremap, at, bytes, wanted, flags);
	if (p != MAP_FAILED)
		atomic_fetch_add(&mapped, (int64_t)pages(wanted) -
					      (int64_t)pages(bytes));
	return p;
}

STANDS_IN int
mprotect(void *at, size_t bytes, int prot)
{
	return fails(MPROTECT) ? -1 : REAL(mprotect, at, bytes, prot);
}

/* Whole pages, as the system has it, however large they are here. */
STANDS_IN int
madvise(void *at, size_t bytes, int advice)
{
	if ((uintptr_t)at % large_page != 0) {
		errno = EINVAL;
		return -1;
	}
	bytes = (bytes + large_page - 1) / large_page * large_page;
	if (fails(MADVISE)) {
		if (advice == MADV_DONTNEED)
			atomic_fetch_add(&fault.advise_failed, bytes);
		return -1;
	}
	return REAL(madvise, at, bytes, advice);
}

STANDS_IN long
sysconf(int name)
{
	if (name == _SC_PAGESIZE && getenv("FAILURES_PAGE") != NULL)
		large_page = strtoull(getenv("FAILURES_PAGE"), NULL, 10);
	return name == _SC_PAGESIZE && large_page > 1 ? (long)large_page
	    : REAL(sysconf, name);
}

/* A sanitizer calls this one itself. */
STANDS_IN int
pthread_setspecific(pthread_key_t key, const void *value)
{
	return !SANITIZED && fails(SETSPECIFIC) ? ENOMEM
	    : REAL(pthread_setspecific, key, value);
}

/* libnuma's calls come here, too. */
STANDS_IN long
syscall(long number, ...)
{
	long arg[6];
	va_list all;

	va_start(all, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(all, long);
	va_end(all);
	if ((number == SYS_mbind && fails(MBIND)) ||
	    (number == SYS_membarrier && fails(MEMBARRIER)))
		return -1;
	return REAL(syscall, number, arg[0], arg[1], arg[2], arg[3], arg[4],
		    arg[5]);
}

static void
release(struct bufpool_buf *b)
{
	errno = ODD_ERRNO;
	bufpool_release(b);
	CHECK(errno == ODD_ERRNO, "a release changed errno");
}

static void
unref(struct bufpool_frozen *f)
{
	errno = ODD_ERRNO;
	bufpool_frozen_unref(f);
	CHECK(errno == ODD_ERRNO, "a release changed errno");
}

static void
check_zero(const struct bufpool_buf *b)
{
	const uint8_t *byte = bufpool_peek(b);

	CHECK(byte[0] == 0 && memcmp(byte, byte + 1,
				     bufpool_capacity(b) - 1) == 0,
	      "not all of %zu bytes are zero", bufpool_capacity(b));
}

static bool
is_shortage(const struct bufpool *p)
{
	return errno == ENOMEM ||
	    (errno == EDQUOT && p->arena.max_bytes != SIZE_MAX);
}

/* What is got is zero; it is dirtied. */
static struct bufpool_buf *
take(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b;

	errno = 0;
	b = bufpool_checkout(p, n);
	if (b == NULL) {
		CHECK(is_shortage(p), "checkout of %zu bytes", n);
		return NULL;
	}
	check_zero(b);
	memset(bufpool_data(b), 0xa5, n);
	return b;
}

static void
resize(struct bufpool *p, struct bufpool_buf *b, size_t n)
{
	size_t len;

	if (b == NULL)
		return;
	len = bufpool_len(b);
	errno = 0;
	if (bufpool_resize(b, n) != 0) {
		CHECK(is_shortage(p), "resize to %zu bytes", n);
		CHECK(bufpool_len(b) == len, "the buffer was changed");
	} else {
		CHECK(bufpool_len(b) == n, "length");
	}
	for (size_t i = 0; i < len && i < n; i++)
		CHECK(((const uint8_t *)bufpool_peek(b))[i] == 0xa5,
		      "byte %zu has got lost", i);
}

static void
check_conserved(struct bufpool *p)
{
	struct bufpool_stats s = stats_of(p);
	uint64_t missing = 0;

	for (unsigned c = 0; c < s.class_count; c++)
		missing += s.classes[c].count - s.classes[c].ready -
		    s.classes[c].cached - s.classes[c].out;
	CHECK(missing == s.lost, "%llu are nowhere",
	      (unsigned long long)missing);
}

static const struct bufpool_class_config classes[] = {
	{ 4096, 3 }, { 32768, 1 }, { 262144, 1 }
};

static const size_t sizes[] = { 100, 32768, 262144, 300000 };
#define SIZES (sizeof sizes / sizeof *sizes)
#define EACH 2			/* buffers of each size */

struct hands {
	struct bufpool *pool;
	struct bufpool_buf *buf[SIZES][EACH];
	struct bufpool_buf *late;
	struct bufpool_frozen *frozen;
	pthread_t sitter;
	pthread_barrier_t sits;
};

static void
fill_hands(struct hands *h)
{
	for (size_t i = 0; i < SIZES; i++)
		for (size_t j = 0; j < EACH; j++)
			h->buf[i][j] = take(h->pool, sizes[i]);
}

static void
empty_hands(struct hands *h)
{
	for (size_t i = 0; i < SIZES; i++)
		for (size_t j = 0; j < EACH; j++) {
			release(h->buf[i][j]);
			h->buf[i][j] = NULL;
		}
}

static pthread_key_t late_key;

/* After the pool's own destructor: of two that set no value anew, the one of
 * the later key runs later. */
static void
release_late(void *value)
{
	struct hands *h = value;

	release(h->late);
	release(take(h->pool, 100));
}

/* Another thread: releases what the first one has checked out, and ends with
 * some buffers cached and one out. */
static void *
second_thread(void *arg)
{
	struct hands *h = arg, own = { .pool = h->pool };

	REAL(pthread_setspecific, late_key, h);
	empty_hands(h);
	unref(h->frozen);
	fill_hands(&own);
	empty_hands(&own);
	h->late = take(h->pool, 100);
	return NULL;
}

/* A third thread: sits there with buffers in its cache, which others have to
 * claim. */
static void *
sit(void *arg)
{
	struct hands *h = arg, own = { .pool = h->pool };

	fill_hands(&own);
	empty_hands(&own);
	pthread_barrier_wait(&h->sits);
	pthread_barrier_wait(&h->sits);
	return NULL;
}

static void
start_sitter(struct hands *h)
{
	pthread_barrier_init(&h->sits, NULL, 2);
	pthread_create(&h->sitter, NULL, sit, h);
	pthread_barrier_wait(&h->sits);
}

static void
end_sitter(struct hands *h)
{
	pthread_barrier_wait(&h->sits);
	pthread_join(h->sitter, NULL);
}

static void
in_fork_child(void *pool)
{
	struct hands h = { .pool = pool };

	check_conserved(h.pool);
	fill_hands(&h);
	empty_hands(&h);
	bufpool_trim(h.pool);
	check_conserved(h.pool);
}

static void
use(struct hands *h)
{
	struct bufpool_buf *b;
	pthread_t thread;
	int status;

	start_sitter(h);
	fill_hands(h);
	for (size_t i = 0; i < SIZES; i++)
		resize(h->pool, h->buf[i][0], sizes[i] + sizes[i] / 2 + 1);
	resize(h->pool, h->buf[1][1], 4000);
	errno = 0;
	b = bufpool_checkout_aligned(h->pool, 5000, 65536);
	CHECK(b != NULL || is_shortage(h->pool), "aligned");
	release(b);
	b = take(h->pool, 32768);
	h->frozen = b != NULL ? bufpool_freeze(b) : NULL;
	check_conserved(h->pool);
	pthread_create(&thread, NULL, second_thread, h);
	pthread_join(thread, NULL);
	check_conserved(h->pool);
	fill_hands(h);
	empty_hands(h);
	bufpool_trim(h->pool);
	status = in_child(in_fork_child, h->pool);
	CHECK(status == 0, "fork child: %x", (unsigned)status);
	bufpool_thread_flush();
	check_conserved(h->pool);
	fill_hands(h);
}

static void *
cache_and_wait(void *arg)
{
	struct hands *h = arg;

	empty_hands(h);
	return NULL;
}

/* With buffers out, some of which another thread then caches. */
static void
close_and_release(struct hands *h)
{
	struct bufpool_buf *kept = h->buf[0][0];
	pthread_t thread;

	h->buf[0][0] = NULL;
	bufpool_close(h->pool);
	errno = 0;
	CHECK(bufpool_checkout(h->pool, 1) == NULL && errno == ESHUTDOWN,
	      "not closed");
	end_sitter(h);
	pthread_create(&thread, NULL, cache_and_wait, h);
	pthread_join(thread, NULL);
	resize(h->pool, kept, 40000);
	release(kept);
	bufpool_thread_flush();
	check_conserved(h->pool);
}

/* All works while nothing fails. Only memory that the system has not taken back
 * stays committed until the next buffer of its class. */
static void
check_works(struct bufpool *p)
{
	struct hands h = { .pool = p };

	fill_hands(&h);
	for (size_t i = 0; i < SIZES; i++)
		for (size_t j = 0; j < EACH; j++)
			CHECK(h.buf[i][j] != NULL || (errno == EDQUOT &&
			      fault.advise_failed > 0), "no buffer");
	empty_hands(&h);
	check_conserved(p);
}

struct way {
	const char *name;
	struct bufpool_config config;
};

static struct bufpool *
create(const struct way *way)
{
	struct bufpool *p;

	errno = 0;
	p = bufpool_create(&way->config);
	CHECK(p != NULL || errno == ENOMEM, "create");
	return p;
}

static void
scenario(const struct way *way)
{
	struct hands h = { .pool = NULL };
	int64_t before = atomic_load(&mapped), stays;
	uint64_t committed, refused;

	atomic_store(&fault.armed, true);
	h.pool = create(way);
	if (h.pool == NULL) {
		atomic_store(&fault.armed, false);
		h.pool = create(way);
		CHECK(h.pool != NULL, "create fails for good");
		atomic_store(&fault.armed, true);
	}
	use(&h);
	atomic_store(&fault.armed, false);
	check_works(h.pool);
	if (h.buf[0][0] == NULL)
		h.buf[0][0] = take(h.pool, sizes[0]);
	atomic_store(&fault.armed, true);
	close_and_release(&h);
	if (in_pages(0) > 4096)	/* what came late shares pages */
		bufpool_trim(h.pool);
	committed = stats_of(h.pool).committed_bytes;
	refused = fault.unmap_failed + fault.advise_failed;
	CHECK(stats_of(h.pool).checked_out == 0, "some are out");
	CHECK(committed <= refused, "%llu bytes are committed, %llu refused",
	      (unsigned long long)committed, (unsigned long long)refused);
	bufpool_destroy(h.pool);
	atomic_store(&fault.armed, false);
	stays = atomic_load(&mapped) - before;
	CHECK(stays >= 0 && (uint64_t)stays <= fault.unmap_failed,
	      "%lld bytes stay mapped, %zu were refused", (long long)stays,
	      fault.unmap_failed);
}

/* `arg`: a way. Warm: the threads' records and the tables are there. */
static void
run_cold(void *arg)
{
	scenario(arg);
}

static void
run_warm(void *arg)
{
	enum kind kind = fault.kind;

	fault.kind = KINDS;
	scenario(arg);
	fault.kind = kind;
	for (int k = 0; k < KINDS; k++)
		fault.calls[k] = 0;
	scenario(arg);
}

static uint64_t step = 6;
static uint64_t *counted;	/* shared with the child that counts */

static void
count_calls(void *arg)
{
	struct { void (*run)(void *); const struct way *way; } *what = arg;

	what->run((void *)(uintptr_t)what->way);
	for (int k = 0; k < KINDS; k++)
		counted[k] = fault.calls[k];
}

static void
each_call_fails_once(const struct way *way, void (*run)(void *))
{
	struct { void (*run)(void *); const struct way *way; } what = {
		run, way
	};

	fault.kind = KINDS;
	assert_int_equal(in_child(count_calls, &what), 0);
	for (int k = 0; k < KINDS; k++) {
		if (getenv("VERBOSE") != NULL)
			fprintf(stderr, "%s, %s: %llu calls of %s\n", way->name,
				run == run_cold ? "cold" : "warm",
				(unsigned long long)counted[k], kind_name[k]);
		for (uint64_t n = 1; n <= counted[k]; n += step)
			for (int all = 0; all <= 1; all++) {
				int status;

				fault.kind = (enum kind)k;
				fault.first = n;
				fault.last = all ? UINT64_MAX : n;
				status = in_child(run, (void *)(uintptr_t)way);
				if (status != 0)
					fail_msg("%s, %s: %s %llu of %llu "
						 "fails%s: wait status %x",
						 way->name, run == run_cold ?
						 "cold" : "warm", kind_name[k],
						 (unsigned long long)n,
						 (unsigned long long)counted[k],
						 all ? ", and all later" : "",
						 (unsigned)status);
			}
	}
}

static struct way
plain_way(void)
{
	struct way way = { .name = "plain" };

	bufpool_config_init(&way.config);
	way.config.name = "failures";
	way.config.classes = classes;
	way.config.class_count = sizeof classes / sizeof *classes;
	return way;
}

static void
a_plain_pool_stands_it(void **state)
{
	struct way way = plain_way();

	(void)state;
	each_call_fails_once(&way, run_cold);
	each_call_fails_once(&way, run_warm);
}

static void
a_pool_with_all_options_stands_it(void **state)
{
	struct way way = plain_way();

	(void)state;
	way.name = "all options";
	way.config.numa_node = BUFPOOL_NUMA_LOCAL;
	way.config.prefault = way.config.huge_pages = 1;
	way.config.leak_detection = BUFPOOL_LEAK_ALL;
	way.config.dump = 0;
	each_call_fails_once(&way, run_cold);
}

static void
a_hardened_pool_stands_it(void **state)
{
	struct way way = plain_way();

	(void)state;
	way.name = "hardened";
	way.config.hardened = BUFPOOL_HARDENED_ALL;
	way.config.leak_detection = BUFPOOL_LEAK_ALL;
	way.config.wipe_on_fork = way.config.prefault = 1;
	each_call_fails_once(&way, run_cold);
}

/* What all hold at one time fits, if nothing lies idle beside it. */
static void
a_pool_at_its_limit_stands_it(void **state)
{
	struct way way = plain_way();

	(void)state;
	way.name = "limited";
	way.config.max_bytes = 2560 << 10;
	each_call_fails_once(&way, run_warm);
}

/* What needs no fence asks for none: the calls of a kind in a function. */
static uint64_t
calls_in(enum kind kind, void (*what)(struct hands *), struct hands *h)
{
	fault.kind = KINDS;
	fault.calls[kind] = 0;
	atomic_store(&fault.armed, true);
	what(h);
	atomic_store(&fault.armed, false);
	return fault.calls[kind];
}

static void
take_and_release_large(struct hands *h)
{
	for (int i = 0; i < 10; i++)
		release(take(h->pool, 300000));
}

static void
release_some(struct hands *h)
{
	for (size_t i = 0; i + 1 < SIZES; i++) {
		release(h->buf[i][0]);
		h->buf[i][0] = NULL;
	}
}

static void
large_buffers_and_closed_pools_need_no_fence(void **state)
{
	struct way way = plain_way();
	struct hands h = { .pool = create(&way) };

	(void)state;
	start_sitter(&h);
	fill_hands(&h);
	assert_int_equal(calls_in(MEMBARRIER, take_and_release_large, &h), 0);
	bufpool_close(h.pool);
	assert_int_equal(calls_in(MEMBARRIER, release_some, &h), 0);
	end_sitter(&h);
	empty_hands(&h);
	if (in_pages(0) > 4096)	/* what came late shares pages */
		bufpool_trim(h.pool);
	assert_int_equal(stats_of(h.pool).committed_bytes, 0);
	bufpool_destroy(h.pool);
}

/* What fails before main. */
__attribute__((constructor(101))) static void
arm_at_load(void)
{
	const char *text = getenv("FAILURES_LOAD");
	unsigned kind;

	if (text == NULL || sscanf(text, "%u %" SCNu64 " %" SCNu64, &kind,
				   &fault.first, &fault.last) != 3)
		return;
	fault.kind = (enum kind)kind;
	atomic_store(&fault.armed, true);
}

/* The calls up to here have failed or not: the tables are there, smaller ones
 * are, or none. */
static int
use_after_load(void)
{
	struct bufpool_config config = plain_way().config;
	struct bufpool *p;
	struct hands h;

	atomic_store(&fault.armed, false);
	bufpool_thread_flush();
	p = bufpool_create(NULL);
	CHECK(p != NULL || errno == ENOMEM, "create");
	h.pool = bufpool_create(&config);
	CHECK((h.pool != NULL) == (p != NULL), "a name makes a difference");
	if (p == NULL) {
		CHECK(errno == ENOMEM, "create by name");
		CHECK(bufpool_get("failures") == NULL && errno == ENOENT,
		      "get");
		CHECK(bufpool_default() == NULL && errno == ENOMEM,
		      "default");
		return 2;
	}
	fill_hands(&h);
	empty_hands(&h);
	check_conserved(h.pool);
	bufpool_destroy(h.pool);
	bufpool_destroy(p);
	return 0;
}

static void
run_load(void *what)
{
	setenv("FAILURES_LOAD", what, 1);
	execl("/proc/self/exe", "failures", "load", (char *)NULL);
	CHECK(false, "exec");
}

static void
a_process_starts_with_what_it_gets(void **state)
{
	int works = 0, fails_well = 0;

	(void)state;
	if (SANITIZED)
		skip();
	for (int kind = 0; kind < KINDS; kind++)
		for (int n = 1; n <= (kind == MMAP ? 40 : 3); n++)
			for (int all = 0; all <= 1; all++) {
				char text[64];
				int status;

				snprintf(text, sizeof text, "%d %d %d", kind,
					 n, all ? INT_MAX : n);
				status = in_child(run_load, text);
				works += status == 0;
				fails_well += status == 2 << 8;
				if (status != 0 && status != 2 << 8)
					fail_msg("%s: status %x", text,
						 (unsigned)status);
			}
	assert_in_range(works, 1, INT_MAX);
	assert_in_range(fails_well, 1, INT_MAX);
}

/* In a process that was told of large pages when it began: what is given back
 * takes nothing along that lies in the same page. */
static int
use_large_pages(void)
{
	struct bufpool_buf *held[200];
	struct bufpool *p = new_pool(0, 0, 0), *others[40];

	CHECK(large_page == 65536, "the core has not asked");
	for (int i = 0; i < 40; i++)
		others[i] = new_pool(1, 0, 0);
	for (int i = 0; i < 200; i++)
		memset(bufpool_data(held[i] = bufpool_checkout(p, 4096)), 0x77,
		       4096);
	for (int i = 0; i < 200; i++)
		if ((uintptr_t)bufpool_peek(held[i]) % large_page == 0) {
			bufpool_release(held[i]);
			held[i] = NULL;
		}
	for (int i = 0; i < 40; i += 2)
		bufpool_destroy(others[i]);
	bufpool_trim(p);
	check_conserved(p);
	for (int i = 0; i < 200; i++) {
		CHECK(held[i] == NULL ||
		      *(const char *)bufpool_peek(held[i]) == 0x77,
		      "buffer %d has got lost", i);
		bufpool_release(held[i]);
	}
	for (int i = 1; i < 40; i += 2) {
		CHECK(stats_of(others[i]).classes[0].ready == 1,
		      "pool %d has got lost", i);
		bufpool_destroy(others[i]);
	}
	check_works(p);
	bufpool_destroy(p);
	return 0;
}

static void
run_with_large_pages(void *arg)
{
	(void)arg;
	setenv("FAILURES_PAGE", "65536", 1);
	execl("/proc/self/exe", "failures", "pages", (char *)NULL);
	CHECK(false, "exec");
}

static void
larger_pages_are_given_back_as_a_whole(void **state)
{
	(void)state;
	if (SANITIZED)
		skip();
	assert_int_equal(in_child(run_with_large_pages, NULL), 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_pool_stands_it),
		cmocka_unit_test(a_pool_at_its_limit_stands_it),
		cmocka_unit_test(a_pool_with_all_options_stands_it),
		cmocka_unit_test(a_hardened_pool_stands_it),
		cmocka_unit_test(large_buffers_and_closed_pools_need_no_fence),
		cmocka_unit_test(a_process_starts_with_what_it_gets),
		cmocka_unit_test(larger_pages_are_given_back_as_a_whole),
	};

	if (argc > 1 && strcmp(argv[1], "pages") == 0)
		return use_large_pages();
	if (argc > 1 && strcmp(argv[1], "load") == 0)
		return use_after_load();
	if (getenv("FAILURES_STEP") != NULL)
		step = strtoull(getenv("FAILURES_STEP"), NULL, 10);
	counted = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_key_create(&late_key, release_late);
	return cmocka_run_group_tests_name("failures", tests, NULL, NULL);
}
