/*
 * Leak detection: where the buffers were checked out that are out. The oracle
 * is what the program itself knows: each of a few functions takes buffers, and
 * a site stands for one of them by the address to which its call returns.
 *
 * In the last test threads take buffers, hand them to each other, release what
 * they got, and switch what is recorded, all at once. Whatever was recorded, in
 * the end nothing is out, and no record is left.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/checkout.h"
#include "core/release.h"
#include "core/sanitize.h"
#include "core/system.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define SITES 600		/* more than there ever are */
#define LARGE 3000000

static struct bufpool_site site[SITES];

/* It verifies, too, and finds nothing where nothing is wrong. */
static struct bufpool *
watching_pool(int detection, int sample)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.leak_detection = detection;
	config.leak_sample = sample;
	config.verify = 1;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

/* Lists the sites, and returns how many buffers they have. */
static uint64_t
recorded(struct bufpool *p)
{
	size_t count = bufpool_sites(p, site, SITES);
	uint64_t sum = 0;

	assert_true(count <= SITES);
	for (size_t i = 0; i < count; i++)
		sum += site[i].buffers;
	return sum;
}

static void
assert_nothing_recorded(struct bufpool *p)
{
	assert_int_equal(recorded(p), 0);
	for (uint32_t i = 0; i < bp_buf_table_used(); i++)
		if (bp_buf_at(i)->arena == &p->arena)
			assert_int_equal(bp_buf_at(i)->place, p->caches.place);
}

/* Neither inlined nor cloned, so that each is one place. */
#ifdef __clang__
#define PLACE __attribute__((noinline))
#else
#define PLACE __attribute__((noipa))
#endif

static PLACE struct bufpool_buf *
upload(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	assert_non_null(b);
	return b;
}

static PLACE struct bufpool_buf *
download(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);

	assert_non_null(b);
	atomic_signal_fence(memory_order_seq_cst);	/* no tail call */
	return b;
}

static void
records_nothing_unless_asked(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_OFF, 1);
	struct bufpool_buf *b[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		b[i] = upload(p, 1);
	assert_int_equal(bufpool_sites(p, site, SITES), 0);
	assert_int_equal(bufpool_detect_leaks(p, BUFPOOL_LEAK_OFF, 7), 0);
	assert_int_equal(bufpool_sites(p, site, SITES), 0);
	for (int i = 0; i < 100; i++)
		bufpool_release(b[i]);
	bufpool_destroy(p);
}

static void
refuses_what_is_out_of_range(void **state)
{
	static const int bad[][2] = {
		{ -1, 1 }, { 3, 1 }, { 2, -1 }, { 0, -1 }
	};
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_OFF, 1);
	struct bufpool_config config;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		errno = 0;
		assert_int_equal(bufpool_detect_leaks(p, bad[i][0], bad[i][1]),
				 -1);
		assert_int_equal(errno, EINVAL);
		bufpool_config_init(&config);
		config.leak_detection = bad[i][0];
		config.leak_sample = bad[i][1];
		errno = 0;
		assert_null(bufpool_create(&config));
		assert_int_equal(errno, EINVAL);
	}
	bufpool_destroy(p);
}

static void
tells_places_apart_the_most_bytes_first(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *a[10], *b[3];

	(void)state;
	for (int i = 0; i < 10; i++)
		a[i] = upload(p, 100);
	for (int i = 0; i < 3; i++)
		b[i] = download(p, 60000);
	assert_int_equal(bufpool_sites(p, site, SITES), 2);
	assert_int_equal(site[0].buffers, 3);
	assert_int_equal(site[0].bytes, 3 * 65536);
	assert_int_equal(site[1].buffers, 10);
	assert_int_equal(site[1].bytes, 10 * 4096);
	assert_true(site[0].oldest >= 0 && site[0].oldest < 3600);
	assert_int_equal(site[0].gc_returns, 0);
	assert_string_not_equal(site[0].place, site[1].place);
	assert_non_null(strstr(site[0].place, "sites"));	/* the file */
	/* One of two, and how many there are. */
	memset(&site[1], 7, sizeof site[1]);
	assert_int_equal(bufpool_sites(p, site, 1), 2);
	assert_int_equal(site[0].buffers, 3);
	assert_int_equal(site[1].buffers, 0x0707070707070707);
	for (int i = 0; i < 10; i++)
		bufpool_release(a[i]);
	for (int i = 0; i < 3; i++)
		bufpool_release(b[i]);
	assert_nothing_recorded(p);
	bufpool_destroy(p);
}

/* A caller that was built for another library has smaller structs, or larger
 * ones. */
static void
serves_callers_of_other_versions(void **state)
{
	const size_t small = offsetof(struct bufpool_site, bytes);
	const size_t large = sizeof *site + 8;
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *b = upload(p, 1), *c = download(p, 5000);
	char *to = (char *)site;

	(void)state;
	memset(site, 7, 3 * large);
	assert_int_equal(bufpool_get_sites_sized(p, site, 2, small), 2);
	assert_int_equal(site[0].buffers, 1);
	assert_string_equal(to + small, (to + small));
	assert_true(to[2 * small] == 7);
	assert_int_equal(bufpool_get_sites_sized(p, site, 2, large), 2);
	assert_int_equal(site[0].bytes, 65536);
	for (size_t i = sizeof *site; i < large; i++)
		assert_int_equal(to[i], 0);
	assert_int_equal(to[2 * large], 7);
	bufpool_release(b);
	bufpool_release(c);
	bufpool_destroy(p);
}

static void *
release_elsewhere(void *b)
{
	bufpool_release(b);
	return NULL;
}

static void
in_another_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Takes a buffer home in one of several ways. */
static void
take_home(struct bufpool_buf *b, int way)
{
	struct bufpool_frozen *f;
	uint64_t ticket;

	switch (way) {
	case 0:
		bufpool_release(b);
		return;
	case 1:
		in_another_thread(release_elsewhere, b);
		return;
	case 2:
		f = bufpool_frozen_ref(bufpool_freeze(b));
		bufpool_frozen_unref(f);
		bufpool_frozen_unref(f);
		return;
	case 3:
		ticket = bufpool_detach(b);
		assert_int_equal(bufpool_adopt(ticket, &b, &f), 0);
		bufpool_release(b);
		return;
	case 4:
		assert_int_equal(bufpool_resize(b, 100000), 0);
		memset(bufpool_data(b), 1, 100000);
		bufpool_release(b);
		return;
	case 5:
		assert_int_equal(bufpool_resize(b, 2 * LARGE), 0);
		assert_int_equal(bufpool_resize(b, 4 * LARGE), 0);
		bufpool_release(b);
		return;
	case 6:
		memset(bufpool_data(b), 1, bufpool_len(b));
		bufpool_release(b);
		return;
	}
}
#define WAYS 7

/* Takes a buffer in one of several ways. */
static struct bufpool_buf *
take(struct bufpool *p, int way)
{
	switch (way) {
	case 0:
		return bufpool_checkout(p, 1);
	case 1:
		return bufpool_checkout_zeroed(p, 1000);
	case 2:
		return bufpool_checkout_aligned(p, 5000, 64);
	case 3:
		return bufpool_checkout_aligned(p, 1, 1 << 16);
	case 4:
		return bufpool_try_checkout(p, 1);
	}
	return bufpool_checkout(p, LARGE);
}
#define TAKES 6

static void
sees_every_way_out_and_home(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_stats s;

	(void)state;
	for (int out = 0; out < TAKES; out++)
		for (int home = 0; home < WAYS; home++) {
			struct bufpool_buf *b = take(p, out);

			assert_non_null(b);
			assert_all_zero(b);
			assert_int_equal(recorded(p), 1);
			assert_int_equal(bufpool_sites(p, site, SITES), 1);
			assert_int_equal(site[0].bytes,
					 stats_of(p).bytes_checked_out);
			take_home(b, home);
			assert_nothing_recorded(p);
		}
	s = stats_of(p);
	assert_int_equal(s.checked_out, 0);
	assert_int_equal(s.bytes_checked_out, 0);
	assert_conserved(p);
	bufpool_destroy(p);
}

static void
stays_where_it_was_checked_out_when_it_grows(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *b = upload(p, 1);
	char place[BUFPOOL_PLACE_MAX];

	(void)state;
	assert_int_equal(bufpool_sites(p, site, SITES), 1);
	strcpy(place, site[0].place);
	for (size_t n = 1; n < 4 * LARGE; n *= 3) {
		assert_int_equal(bufpool_resize(b, n), 0);
		assert_int_equal(bufpool_sites(p, site, SITES), 1);
		assert_string_equal(site[0].place, place);
		assert_int_equal(site[0].buffers, 1);
		assert_int_equal(site[0].bytes, stats_of(p).bytes_checked_out);
	}
	bufpool_release(b);
	assert_nothing_recorded(p);
	bufpool_destroy(p);
}

/* The buffers of a closed pool are listed until they come home, which ends the
 * pool: another one may have its place then. */
static void
outlives_the_pool(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
		struct bufpool_buf *b = upload(p, 1), *c = upload(p, LARGE);

		bufpool_close(p);
		assert_int_equal(recorded(p), 2);
		bufpool_release(b);
		assert_int_equal(recorded(p), 1);
		bufpool_destroy(p);
		bufpool_release(c);
		p = watching_pool(BUFPOOL_LEAK_ALL, 1);
		assert_nothing_recorded(p);
		bufpool_destroy(p);
	}
}

/* Distances are 2 * sample - 1 at most. The first may be counted from the first
 * visit of a shelf, 256 checkouts after the switch at the latest. */
static void
samples_some(void **state)
{
	enum { COUNT = 20000 };
	static struct bufpool_buf *b[COUNT];

	(void)state;
	for (int sample = 1; sample <= 100; sample += 33) {
		struct bufpool *p = watching_pool(BUFPOOL_LEAK_SAMPLED, sample);
		uint64_t small, least = (COUNT - 512) /
		    (2 * (unsigned)sample - 1) - 1;

		for (int i = 0; i < COUNT; i++)
			b[i] = i % 2 ? upload(p, 1) : download(p, 1);
		small = recorded(p);
		assert_in_range(small, least, COUNT);
		assert_true(sample == 1 || small < COUNT / 2);
		assert_int_equal(bufpool_sites(p, site, SITES), 2);
		for (int i = 0; i < COUNT; i++)
			bufpool_release(b[i]);
		assert_nothing_recorded(p);
		assert_int_equal(stats_of(p).checked_out, 0);
		bufpool_destroy(p);
	}
}

/* Unless it is told how many, it limits itself. Elapsed time only widens what
 * is allowed. */
static void
samples_few_where_checkouts_are_many(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_SAMPLED, 0);
	int64_t began = bp_system_now();
	uint64_t most;

	(void)state;
	for (int i = 0; i < 10000; i++)
		upload(p, 1);
	most = (uint64_t)(bp_system_now() - began) / 10 + 1;
	assert_in_range(recorded(p), 1, most);
	bufpool_destroy(p);
}

static void
samples_large_ones(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_SAMPLED, 3);
	struct bufpool_buf *b[100];
	uint64_t count;

	(void)state;
	for (int i = 0; i < 100; i++)
		b[i] = upload(p, 2000000);
	count = recorded(p);
	assert_in_range(count, 100 / 5, 99);
	for (int i = 0; i < 100; i++)
		bufpool_release(b[i]);
	assert_nothing_recorded(p);
	bufpool_destroy(p);
}

static void *
take_one(void *p)
{
	upload(p, 1);
	return NULL;
}

/* What one thread has counted towards the next sample holds for the thread that
 * comes after it: so threads that make one checkout each are sampled, too. */
static void
samples_threads_that_take_one_each(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_SAMPLED, 4);

	(void)state;
	for (int i = 0; i < 400; i++)
		in_another_thread(take_one, p);
	assert_in_range(recorded(p), 400 / 16, 399);
	bufpool_destroy(p);
}

static long
mapped_pages(void)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	long pages = -1;

	assert_non_null(statm);
	assert_int_equal(fscanf(statm, "%ld", &pages), 1);
	fclose(statm);
	return pages;
}

static void
gives_its_tables_back(void **state)
{
	long before = 0;

	(void)state;
	needs_own_memory();
	for (int i = 0; i < 400; i++) {
		struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);

		bufpool_release(upload(p, 1));
		bufpool_destroy(p);
		if (i == 100)
			before = mapped_pages();
	}
	/* A page for each would be 300. */
	assert_in_range(mapped_pages(), 0, before + 299);
}

struct switched {
	struct bufpool *p;
	pthread_barrier_t turn;
	struct bufpool_buf *b[100];
};

static void *
take_before_and_after(void *arg)
{
	struct switched *s = arg;

	s->b[0] = upload(s->p, 1);
	pthread_barrier_wait(&s->turn);
	pthread_barrier_wait(&s->turn);
	for (int i = 1; i < 100; i++)
		s->b[i] = upload(s->p, 1);
	pthread_barrier_wait(&s->turn);
	pthread_barrier_wait(&s->turn);
	return NULL;
}

/* The caller's own shelves are open, too, and none of its checkouts passes. */
static void
is_switched_on_at_once(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_OFF, 1);
	struct bufpool_buf *b;

	(void)state;
	for (int i = 0; i < 10; i++) {
		bufpool_release(upload(p, 1));
		bufpool_release(upload(p, 1));
		assert_int_equal(bufpool_detect_leaks(p, BUFPOOL_LEAK_ALL, 1),
				 0);
		b = upload(p, 1);
		assert_int_equal(recorded(p), 1);
		assert_int_equal(bufpool_detect_leaks(p, BUFPOOL_LEAK_OFF, 1),
				 0);
		bufpool_release(b);
		assert_nothing_recorded(p);
	}
	bufpool_destroy(p);
}

/* The other thread's shelf is open; its first checkout may pass. */
static void
is_switched_on_for_all_threads(void **state)
{
	struct switched s = { .p = watching_pool(BUFPOOL_LEAK_OFF, 1) };
	struct bufpool_buf *mine = upload(s.p, 1);
	pthread_t thread;

	(void)state;
	pthread_barrier_init(&s.turn, NULL, 2);
	pthread_create(&thread, NULL, take_before_and_after, &s);
	pthread_barrier_wait(&s.turn);
	assert_int_equal(bufpool_detect_leaks(s.p, BUFPOOL_LEAK_ALL, 1), 0);
	bufpool_release(mine);
	mine = upload(s.p, 1);
	assert_int_equal(recorded(s.p), 1);
	pthread_barrier_wait(&s.turn);
	pthread_barrier_wait(&s.turn);
	assert_in_range(recorded(s.p), 1 + 98, 1 + 99);
	assert_int_equal(bufpool_detect_leaks(s.p, BUFPOOL_LEAK_OFF, 1), 0);
	assert_in_range(recorded(s.p), 1 + 98, 1 + 99);
	pthread_barrier_wait(&s.turn);
	pthread_join(thread, NULL);
	for (int i = 0; i < 100; i++)
		bufpool_release(s.b[i]);
	assert_int_equal(recorded(s.p), 1);
	bufpool_release(mine);
	assert_nothing_recorded(s.p);
	pthread_barrier_destroy(&s.turn);
	bufpool_destroy(s.p);
}

/* What the child does with a buffer that the parent had out, while its ticket
 * for another is void in the child; returns at which step it failed. */
static int
inherit(struct bufpool *p, struct bufpool_buf *b)
{
	struct bufpool_buf *c, *d, *e;

	bufpool_trim(p);	/* the ticket goes home */
	if (recorded(p) != 1)
		return 1;
	c = upload(p, LARGE);
	d = upload(p, 1);
	e = upload(p, 1);	/* by the fast path, if that were open */
	if (recorded(p) != 4)
		return 2;
	bufpool_release(c);
	bufpool_release(d);
	bufpool_release(e);
	if (recorded(p) != 1)
		return 3;
	bufpool_release(b);
	if (recorded(p) != 0)
		return 4;
	return stats_of(p).checked_out == 0 ? 0 : 5;
}

/* The child has what the parent had out, and what it takes itself. */
static void
survives_fork(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *b = upload(p, 1);
	int status;
	pid_t child;

	(void)state;
	bufpool_detach(download(p, 5000));
	assert_int_equal(recorded(p), 2);
	child = fork();
	if (child == 0)
		_exit(inherit(p, b));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(recorded(p), 2);
	bufpool_release(b);
	assert_int_equal(recorded(p), 1);
	bufpool_destroy(p);
}

static _Atomic int stop;
static pthread_barrier_t started;

/* Below and above the shelf, in and out of classes. */
static void *
keep_busy(void *p)
{
	struct bufpool_buf *held[80];
	int warm = 0;

	while (!atomic_load(&stop)) {
		for (int i = 0; i < 80; i++)
			held[i] = bufpool_checkout(p, i == 0 ? LARGE : 1);
		for (int i = 0; i < 80; i++)
			bufpool_release(held[i]);
		if (warm++ == 0)
			pthread_barrier_wait(&started);
	}
	return NULL;
}

/* In the child a record is of a buffer that is out, whatever the parent's other
 * threads were just doing: what they were moving is lost. */
static void
records_what_is_out_in_children_of_busy_parents(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	pthread_t thread[2];
	int status;

	(void)state;
	pthread_barrier_init(&started, NULL, 3);
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, keep_busy, p);
	pthread_barrier_wait(&started);
	for (int i = 0; i < 300; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(recorded(p) != stats_of(p).checked_out);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_nothing_recorded(p);
	pthread_barrier_destroy(&started);
	bufpool_destroy(p);
}

/* A checkout that is to be recorded fails where its site has to be listed, and
 * has taken nothing; the next one, for a listed site, is recorded. */
static void
asks_for_the_site(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	uintptr_t here;
	struct bufpool_buf *b;

	(void)state;
	for (size_t n = 1; n <= LARGE; n += LARGE - 1) {
		errno = 0;
		assert_null(bp_checkout_asking(p, n));
		assert_int_equal(errno, ESITE);
		assert_int_equal(stats_of(p).checked_out, 0);
		here = bp_sites_list(p, "here\n:1");
		assert_int_equal(here, bp_sites_list(p, "here\n:1"));
		assert_int_equal(here, bp_sites_list(p, "here\x7f:1"));
		b = bp_checkout_at(p, n, 0, TAKE_ANY, here);
		assert_int_equal(bufpool_sites(p, site, SITES), 1);
		assert_string_equal(site[0].place, "here?:1");
		bufpool_release(b);
		b = bp_checkout_at(p, n, 0, TAKE_ANY, SITE_NONE);
		assert_nothing_recorded(p);
		bufpool_release(b);
	}
	bufpool_close(p);
	assert_null(bp_checkout_asking(p, 1));
	assert_int_equal(errno, ESHUTDOWN);
	bufpool_destroy(p);
}

#ifdef __SANITIZE_ADDRESS__
/* Under AddressSanitizer a use after release is found, also where the slow path
 * takes the buffer home: of a buffer with a record, and when the shelf is
 * full. */
static void
poisons_what_the_slow_path_takes_home(void **state)
{
	(void)state;
	for (int detection = 0; detection <= BUFPOOL_LEAK_ALL; detection++) {
		struct bufpool *p = watching_pool(detection, 1);
		struct bufpool_buf *b[200];

		for (int i = 0; i < 200; i++) {
			b[i] = upload(p, 4096);
			memset(bufpool_data(b[i]), 1, i % 2 ? 4096 : 1);
			bufpool_wrote(b[i], i % 2 ? 4096 : 1);
		}
		for (int i = 0; i < 200; i++) {
			uint8_t *at = b[i]->at;

			bufpool_release(b[i]);
			assert_true(__asan_address_is_poisoned(at));
			assert_true(__asan_address_is_poisoned(at + 4095));
		}
		bufpool_destroy(p);
	}
}
#endif

/* Not inlined, so that it is one place. */
static __attribute__((noinline)) void
let_go(struct bufpool_buf *b)
{
	bufpool_release(b);
	atomic_signal_fence(memory_order_seq_cst);	/* no tail call */
}

static void *
let_go_elsewhere(void *b)
{
	let_go(b);
	return NULL;
}

/* What is done to a buffer before it is released once more; what the message
 * says of the first release, if there was one; whether it is let_go's. */
static const struct misuse {
	enum { TWICE, TWICE_LARGE, TWICE_ELSEWHERE, AFTER_FREEZE, UNREF,
	       UNRECORDED, EXPIRED } way;
	const char *released;
	bool by_let_go, unknown;
} misuses[] = {
	{ TWICE, ", released at ", true, false },
	{ TWICE_LARGE, ", released at ", true, false },
	{ TWICE_ELSEWHERE, ", released at ", true, false },
	{ AFTER_FREEZE, NULL, false, false },
	{ UNREF, ", released at ", false, false },
	{ UNRECORDED, NULL, false, true },
	{ EXPIRED, ", released when its ticket expired\n", false, false },
};

static void
misuse(void *arg)
{
	const struct misuse *misuse = arg;
	struct bufpool_config config;
	struct bufpool *p;
	struct bufpool_buf *b;
	struct bufpool_frozen *f;

	bufpool_config_init(&config);
	config.leak_detection = BUFPOOL_LEAK_ALL;
	config.ticket_ttl = 0.01;
	p = bufpool_create(&config);
	b = upload(p, misuse->way == TWICE_LARGE ? LARGE : 1);
	switch (misuse->way) {
	case TWICE:
	case TWICE_LARGE:
		let_go(b);
		break;
	case TWICE_ELSEWHERE:
		in_another_thread(let_go_elsewhere, b);
		break;
	case AFTER_FREEZE:
		bufpool_freeze(b);
		break;
	case UNREF:
		f = bufpool_frozen_ref(bufpool_freeze(b));
		for (int i = 0; i < 3; i++)
			bufpool_frozen_unref(f);
		return;
	case UNRECORDED:
		bufpool_detect_leaks(p, BUFPOOL_LEAK_OFF, 0);
		let_go(b);
		b = upload(p, 1);	/* the same one */
		let_go(b);
		break;
	case EXPIRED:
		bufpool_detach(b);
		while (stats_of(p).in_transit > 0)
			bufpool_trim(p);
		break;
	}
	bufpool_release(b);
}

/* Where a place lies in the code of this file; 0 where it has a symbol. */
static size_t
offset_in(const char *place)
{
	size_t offset = 0;

	sscanf(place, "%*[^+]+%zi", (ssize_t *)&offset);
	return offset;
}

static bool
is_of_let_go(const char *place)
{
	Dl_info info;
	size_t begin;

	assert_true(dladdr((void *)(uintptr_t)let_go, &info) != 0);
	begin = (uintptr_t)let_go - (uintptr_t)info.dli_fbase;
	return offset_in(place) - begin < 400;
}

static void
names_the_places_where_corruption_is_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof misuses / sizeof *misuses; i++) {
		const struct misuse *m = &misuses[i];
		char said[1024];
		const char *at;
		int status = said_in_child(misuse, (void *)(uintptr_t)m, said,
					   sizeof said);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		assert_non_null(strstr(said, "corruption at"));
		assert_true((strstr(said, ", checked out at ") == NULL) ==
			    m->unknown);
		at = strstr(said, ", released ");
		assert_true((at != NULL) == (m->released != NULL));
		if (at == NULL)
			continue;
		assert_int_equal(strncmp(at, m->released,
					 strlen(m->released)), 0);
		if (m->by_let_go)
			assert_true(is_of_let_go(at + strlen(m->released)));
	}
}

/* Places of releases take no room from those of checkouts. */
static void
tells_checkouts_apart_whatever_the_releases(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *b;
	char text[32];

	(void)state;
	for (unsigned i = 0; i < 600; i++) {
		uint64_t generation;

		snprintf(text, sizeof text, "%u", i);
		b = bp_checkout_at(p, 1, 0, TAKE_ANY, bp_sites_list(p, "x"));
		generation = atomic_load(&b->word) / BUF_GENERATION;
		assert_int_equal(bp_release_asking(b), ESITE);
		bp_sites_tell(p, b->number, generation, text);
		bp_sites_tell(p, b->number, generation, "too late");
	}
	b = bp_checkout_at(p, 1, 0, TAKE_ANY, bp_sites_list(p, "y"));
	assert_int_equal(bufpool_sites(p, site, SITES), 1);
	assert_string_equal(site[0].place, "y");
	bufpool_release(b);
	bufpool_destroy(p);
}

/* Of each way that is not the program's own, by the place of the checkout. */
static void
counts_what_the_program_has_left_to_others(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);

	(void)state;
	for (int i = 0; i < 3; i++)
		bp_release_scoped(upload(p, 1));
	bp_release_gc(upload(p, LARGE));
	bp_frozen_unref_gc(bufpool_freeze(upload(p, 1)));
	bufpool_release(upload(p, 1));
	assert_int_equal(bufpool_sites(p, site, SITES), 1);
	assert_int_equal(site[0].buffers, 0);
	assert_int_equal(site[0].gc_returns, 2);
	assert_int_equal(site[0].request_returns, 3);
	bp_release_scoped(download(p, 1));
	assert_int_equal(bufpool_sites(p, site, SITES), 2);
	assert_int_equal(site[1].gc_returns, 0);
	assert_int_equal(site[1].request_returns, 1);
	bufpool_destroy(p);
}

/* What is asked, and what is told. */
static void
asks_for_the_place_of_the_release(void **state)
{
	struct bufpool *p = watching_pool(BUFPOOL_LEAK_ALL, 1);
	struct bufpool_buf *b = bp_checkout_at(p, 1, 0, TAKE_ANY,
					       bp_sites_list(p, "here"));
	uint64_t generation = atomic_load(&b->word) / BUF_GENERATION;
	char said[ORIGIN_MAX];

	(void)state;
	bp_sites_tell(p, b->number, generation, "too early");
	bp_sites_describe(p, b->number, generation, said, sizeof said);
	assert_string_equal(said, "checked out at here");
	assert_int_equal(bp_release_asking(b), ESITE);
	bp_sites_tell(p, b->number, generation + 1, "another one");
	bp_sites_describe(p, b->number, generation, said, sizeof said);
	assert_string_equal(said, "checked out at here");
	bp_sites_tell(p, b->number, generation, "there\n:2");
	bp_sites_tell(p, b->number, generation, "too late");
	bp_sites_describe(p, b->number, generation, said, sizeof said);
	assert_string_equal(said, "checked out at here, released at there?:2");
	bp_sites_describe(p, b->number, generation, said, 30);
	assert_string_equal(said, "checked out at here, released");
	bp_sites_describe(p, b->number, generation + 1, said, sizeof said);
	assert_string_equal(said, "");
	b = bp_checkout_at(p, 1, 0, TAKE_ANY, SITE_NONE);
	assert_int_equal(bp_release_asking(b), 0);
	bufpool_destroy(p);
}

/* Writes to a buffer that is free, and takes it again. */
struct stray {
	size_t size, at;	/* the buffer, and the byte */
	bool frozen;		/* at its release */
	bool promised;		/* that it was not written to */
	bool unseen;		/* the pool does not verify, or not this one */
};

static void
write_late(void *way)
{
	const struct stray *stray = way;
	struct bufpool *p = watching_pool(stray->unseen ? BUFPOOL_LEAK_OFF
					  : BUFPOOL_LEAK_ALL, 0);
	struct bufpool_buf *b = upload(p, stray->size);
	uint8_t *bytes = bufpool_data(b);

	bytes[stray->at] = stray->promised;
	if (stray->promised)
		bufpool_wrote(b, 0);
	if (stray->frozen)
		bufpool_frozen_unref(bufpool_freeze(b));
	else
		bufpool_release(b);
	ASAN_UNPOISON_MEMORY_REGION(bytes, stray->size);
	bytes[stray->at] = 1;
	bufpool_release(upload(p, stray->size));
	_exit(0);
}

static void
finds_what_was_written_after_the_release(void **state)
{
	struct stray ways[] = {
		{ .size = 4096, .at = 0 },
		{ .size = 65536, .at = 65535 },
		{ .size = 1048576, .at = 4096 },
		{ .size = LARGE, .at = LARGE - 1 },
		{ .size = 5000, .at = 4999, .frozen = true },
		{ .size = LARGE, .at = 17, .frozen = true },
		{ .size = 4096, .at = 4095, .promised = true },
		{ .size = 4096, .at = 0, .unseen = true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		char said[1024], byte[64];
		int status = said_in_child(write_late, &ways[i], said,
					   sizeof said);

		if (ways[i].unseen) {
			assert_true(WIFEXITED(status));
			assert_int_equal(WEXITSTATUS(status), 0);
			continue;
		}
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		snprintf(byte, sizeof byte, "corruption at checkout, where "
			 "byte %zu is not 0: ", ways[i].at + 1);
		assert_non_null(strstr(said, byte));
		assert_non_null(strstr(said, ", checked out at "));
		assert_non_null(strstr(said, ", released at "));
	}
}

/* What BUFPOOL_DEBUG asks for. Other tests have left buffers out, of which the
 * child tells, too. */

static void
live_with(void *word)
{
	struct bufpool_config config;
	struct bufpool *p;

	setenv("BUFPOOL_DEBUG", word, 1);
	bufpool_config_init(&config);
	config.name = "de\nbugged";
	p = bufpool_create(&config);
	assert_non_null(bufpool_create(&config));	/* not another one */
	upload(p, 5000);
	bufpool_release(download(p, 5000));
	bufpool_close(p);
	exit(0);
}

static void
does_what_the_environment_says(void **state)
{
	static const struct {
		const char *word, *said;	/* NULL: nothing is said */
	} cases[] = {
		{ "", NULL },
		{ "leak", "bufpool: at exit 1 buffers (65536 bytes) of pool "
		  "'de?bugged' are out, and 0 were left to a Lua collector, "
		  "checked out at " },
		{ " leak,,leak;", "1 buffers (65536 bytes) of pool 'de?" },
		{ "verify", NULL },
		{ "verify:sample", "1 buffers (65536 bytes) of pool 'de?" },
		{ "verify,leak", "1 buffers (65536 bytes) of pool 'de?" },
		{ "help", "  verify  aborts where" },
		{ "leek", "bufpool: BUFPOOL_DEBUG: 'leek' is unknown; "
		  "BUFPOOL_DEBUG=help lists the words\n" },
		{ "fail=0", "'fail=0' is unknown" },
		{ "fail=3x", "'fail=3x' is unknown" },
		{ "fail=", "'fail=' is unknown" },
		{ "leak=3", "'leak=3' is unknown" },
		{ "=3,fail=999999999999", "'=3' is unknown" },
		{ "leak,x\n\033,", "BUFPOOL_DEBUG: 'x?\?' is unknown" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char said[2048];
		int status = said_in_child(live_with, (void *)cases[i].word,
					   said, sizeof said);
		const char *at;

		assert_int_equal(status, 0);
		if (cases[i].said == NULL) {
			assert_string_equal(said, "");
			continue;
		}
		at = strstr(said, cases[i].said);
		assert_non_null(at);
		assert_null(strstr(at + 1, cases[i].said));
	}
}

static void
verify_by_environment(void *unused)
{
	struct bufpool *p;
	struct bufpool_buf *b;
	uint8_t *bytes;

	(void)unused;
	setenv("BUFPOOL_DEBUG", "verify", 1);
	p = bufpool_create(NULL);
	b = upload(p, 4096);
	bytes = bufpool_data(b);
	bufpool_release(b);
	ASAN_UNPOISON_MEMORY_REGION(bytes, 4096);
	bytes[99] = 1;
	upload(p, 4096);
}

static void
verifies_where_the_environment_says(void **state)
{
	char said[1024];
	int status = said_in_child(verify_by_environment, NULL, said,
				   sizeof said);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_non_null(strstr(said, "where byte 100 is not 0"));
}

static void
fail_by_environment(void *word)
{
	struct bufpool *p;

	setenv("BUFPOOL_DEBUG", word, 1);
	p = bufpool_create(NULL);
	for (int i = 1; i <= 400; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, 100);

		CHECK((b == NULL) == (i % (strcmp(word, "fail") ? 7 : 100) ==
				      0), "%s: checkout %d", (char *)word, i);
		bufpool_release(b);
	}
}

static void
fails_where_the_environment_says(void **state)
{
	(void)state;
	assert_int_equal(in_child(fail_by_environment, (char[]){ "fail" }), 0);
	assert_int_equal(in_child(fail_by_environment,
				  (char[]){ "leak,fail=7" }), 0);
}

/* Threads. */

#define THREADS 4
#define SLOTS 64

static struct bufpool *shared;
static _Atomic(struct bufpool_buf *) slot[SLOTS];

static unsigned
rounds(void)
{
	const char *given = getenv("STRESS_OPS");

	return (given != NULL ? (unsigned)atoi(given) : 400000) / 10;
}

static void
do_something(unsigned chance)
{
	static const size_t sizes[] = { 1, 4096, 60000, LARGE };
	_Atomic(struct bufpool_buf *) *to = &slot[chance % SLOTS];
	struct bufpool_buf *b;

	if (chance / 512 % 256 == 0)
		assert_int_equal(bufpool_detect_leaks(
		    shared, (int)(chance / 131072 % 3), 3), 0);
	if (chance / 512 % 1024 == 1)
		bufpool_sites(shared, NULL, 0);
	b = bufpool_checkout(shared, sizes[chance / 64 % 64 == 0 ? 3
					   : chance / 64 % 3]);
	if (b != NULL && chance / 64 % 8 == 7 && bufpool_len(b) < 100000)
		bufpool_resize(b, bufpool_len(b) * 2);
	bufpool_release(atomic_exchange(to, b));
}

static void *
meet(void *arg)
{
	uint64_t chance = (uintptr_t)arg * 2654435761u + 1;

	for (unsigned i = rounds(); i > 0; i--) {
		chance = chance * 6364136223846793005u + 1442695040888963407u;
		do_something((unsigned)(chance >> 33));
	}
	return NULL;
}

static void
leaves_no_record_among_threads(void **state)
{
	pthread_t thread[THREADS];

	(void)state;
	shared = watching_pool(BUFPOOL_LEAK_ALL, 1);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, meet, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < SLOTS; i++)
		bufpool_release(slot[i]);
	assert_nothing_recorded(shared);
	assert_int_equal(stats_of(shared).checked_out, 0);
	assert_conserved(shared);
	assert_int_equal(bufpool_detect_leaks(shared, BUFPOOL_LEAK_ALL, 1), 0);
	for (int i = 0; i < 100; i++) {
		slot[0] = upload(shared, 1);
		assert_int_equal(recorded(shared), 1);
		bufpool_release(slot[0]);
	}
	bufpool_destroy(shared);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_nothing_unless_asked),
		cmocka_unit_test(refuses_what_is_out_of_range),
		cmocka_unit_test(tells_places_apart_the_most_bytes_first),
		cmocka_unit_test(serves_callers_of_other_versions),
		cmocka_unit_test(sees_every_way_out_and_home),
		cmocka_unit_test(stays_where_it_was_checked_out_when_it_grows),
		cmocka_unit_test(outlives_the_pool),
		cmocka_unit_test(samples_some),
		cmocka_unit_test(samples_few_where_checkouts_are_many),
		cmocka_unit_test(samples_large_ones),
		cmocka_unit_test(samples_threads_that_take_one_each),
		cmocka_unit_test(is_switched_on_at_once),
		cmocka_unit_test(is_switched_on_for_all_threads),
		cmocka_unit_test(gives_its_tables_back),
		cmocka_unit_test(survives_fork),
		cmocka_unit_test(
			records_what_is_out_in_children_of_busy_parents),
		cmocka_unit_test(asks_for_the_site),
		cmocka_unit_test(names_the_places_where_corruption_is_found),
		cmocka_unit_test(counts_what_the_program_has_left_to_others),
		cmocka_unit_test(asks_for_the_place_of_the_release),
		cmocka_unit_test(tells_checkouts_apart_whatever_the_releases),
		cmocka_unit_test(finds_what_was_written_after_the_release),
		cmocka_unit_test(does_what_the_environment_says),
		cmocka_unit_test(verifies_where_the_environment_says),
		cmocka_unit_test(fails_where_the_environment_says),
#ifdef __SANITIZE_ADDRESS__
		cmocka_unit_test(poisons_what_the_slow_path_takes_home),
#endif
		cmocka_unit_test(leaves_no_record_among_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
