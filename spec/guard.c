/*
 * Hardened pools: a wrong access stops the program at its instruction, and a
 * line says whose buffer that was. What a test wants to stop runs in a child.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bufpool.h"
#include "core/buf.h"
#include "core/pool.h"
#include "support/needs.h"
#include "support/pool.h"
#include "support/process.h"

#define KEPT 256	/* addresses that stay without access */

static struct bufpool_config
config_of(int hardened)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.name = "guarded";
	config.hardened = hardened;
	return config;
}

static struct bufpool *
hardened_pool(void)
{
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_ALL);
	struct bufpool *p = bufpool_create(&config);

	assert_non_null(p);
	return p;
}

/* What /proc/self/maps says of the access to an address: "rw-p"; "" where
 * nothing is mapped. */
static const char *
access_at(const void *at)
{
	FILE *file = fopen("/proc/self/maps", "r");
	static char access[8];
	char line[512];

	assert_non_null(file);
	access[0] = '\0';
	while (fgets(line, sizeof line, file) != NULL) {
		unsigned long first, end;
		char word[8];

		if (sscanf(line, "%lx-%lx %7s", &first, &end, word) == 3 &&
		    first <= (uintptr_t)at && (uintptr_t)at < end)
			strcpy(access, word);
	}
	fclose(file);
	return access;
}

static size_t
count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	size_t count = 0;

	assert_non_null(file);
	for (int c; (c = fgetc(file)) != EOF;)
		count += c == '\n';
	fclose(file);
	return count;
}

static uint8_t *
bytes_of(struct bufpool_buf *b)
{
	return bufpool_data(b);
}

/* Where each buffer ends: at a page, or less than `alignment` in front of it,
 * and behind that is a guard, as in front of the pages. */
static void
assert_guarded(struct bufpool_buf *b, size_t n, size_t alignment)
{
	size_t page = in_pages(0), bytes = in_pages(n);
	uint8_t *at = bytes_of(b), *end;

	end = (uint8_t *)(((uintptr_t)at + (n == 0) + n + page - 1) /
			  page * page);
	assert_int_equal((uintptr_t)at % alignment, 0);
	assert_true(alignment > page ||
		    (size_t)(end - at) < (n == 0) + n + alignment);
	assert_string_equal(access_at(at), "rw-p");
	assert_string_equal(access_at(end - 1), "rw-p");
	assert_string_equal(access_at(end), "---p");
	assert_string_equal(access_at(end - bytes), "rw-p");
	assert_string_equal(access_at(end - bytes - 1), "---p");
}

static void
ends_at_a_guard(void **state)
{
	static const size_t lengths[] = { 0, 1, 15, 16, 17, 100, 4095, 4096,
					  4097, 65536, 300001, 1048576,
					  5000000 };
	struct bufpool *p = hardened_pool();

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		size_t n = lengths[i];
		struct bufpool_buf *b = bufpool_checkout(p, n);

		assert_non_null(b);
		assert_int_equal(bufpool_capacity(b), n + (n == 0));
		assert_int_equal(stats_of(p).committed_bytes, in_pages(n));
		assert_all_zero(b);
		assert_guarded(b, n, 16);
		memset(bytes_of(b), 0xa5, n);
		bufpool_release(b);
		for (size_t align = 1; align <= 1 << 18; align *= 4) {
			b = bufpool_checkout_aligned(p, n, align);
			assert_non_null(b);
			assert_guarded(b, n, align < 16 ? 16 : align);
			bufpool_release(b);
		}
		assert_int_equal(stats_of(p).committed_bytes, 0);
	}
	errno = 0;
	assert_null(bufpool_checkout_aligned(p, 1, (size_t)1 << 63));
	assert_int_equal(errno, ENOMEM);
	bufpool_destroy(p);
}

/* An access that stops the program: where, in a buffer of how many bytes. */
struct wrong {
	size_t n;
	ptrdiff_t at;
	bool store;
	enum { OUT, FROZEN, RELEASED, RELEASED_FROZEN } when;
	int leak_detection, fault_report;
	const char *said;
};

static void
go_wrong(void *arg)
{
	const struct wrong *w = arg;
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_ALL);
	struct bufpool_frozen *f = NULL;
	struct bufpool_buf *b;
	struct bufpool *p;
	volatile uint8_t *at;

	config.leak_detection = w->leak_detection;
	config.fault_report = w->fault_report;
	p = bufpool_create(&config);
	b = bufpool_checkout(p, w->n);
	at = bytes_of(b);
	for (size_t i = 0; i < w->n; i++)
		at[i] = (uint8_t)i;
	if (w->when == FROZEN || w->when == RELEASED_FROZEN) {
		f = bufpool_freeze(b);
		CHECK(w->n < 4 || at[3] == 3, "the contents have gone");
	}
	if (w->when == RELEASED)
		bufpool_release(b);
	if (w->when == RELEASED_FROZEN)
		bufpool_frozen_unref(f);
	if (w->store)
		at[w->at] = 1;
	else
		fprintf(stderr, "read %d", at[w->at]);
	_exit(77);
}

/* In front of a whole page there is a guard at once. */
static struct wrong
at_page(struct wrong w)
{
	if (w.at == -1)
		w.n = in_pages(0);
	return w;
}

static void
stops_at_the_instruction(void **state)
{
	static const struct wrong wrongs[] = {
		{ 4096, 4096, true, OUT, 0, 1, "a store to 1 bytes past the end"
		  " of buffer * of pool 'guarded' (4096 bytes), which is out" },
		{ 64, 64, true, OUT, 0, 1, "1 bytes past the end" },
		{ 64, 64, false, OUT, 0, 1, "a load from 1 bytes past" },
		{ 70000, 70000 + 4000, false, OUT, 0, 1, "past the end" },
		{ 4096, -1, true, OUT, 0, 1, "1 bytes in front of buffer" },
		{ 100, 3, true, FROZEN, 0, 1, "a store to byte 4 of buffer * of"
		  " pool 'guarded' (100 bytes), which is frozen" },
		{ 100, 3, true, RELEASED, 0, 1,
		  "a store to byte 4 of buffer *, which is released" },
		{ 100, 3, false, RELEASED, 0, 1, "a load from byte 4 of" },
		{ 3000000, 2999999, true, RELEASED, 0, 1, "byte 3000000 of" },
		{ 100, 99, false, RELEASED_FROZEN, 0, 1, "byte 100 of buffer" },
		{ 100, 3, true, RELEASED, BUFPOOL_LEAK_ALL, 1,
		  "\nbufpool: it was checked out at *guard*, released at *guard"
		},
		{ 100, 3, true, RELEASED_FROZEN, BUFPOOL_LEAK_ALL, 1,
		  "\nbufpool: it was checked out at *guard" },
		{ 100, 3, true, OUT, 0, 1, NULL },
		{ 100, 3, true, RELEASED, 0, 0, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
		struct wrong w = at_page(wrongs[i]);
		char said[2048], *rest = said, *word, want[256];
		int status = said_in_child(go_wrong, &w, said, sizeof said);

		if (w.said == NULL && w.when == OUT) {
			assert_int_equal(WEXITSTATUS(status), 77);
			continue;
		}
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
			fail_msg("%zu: status %x, said %s", i, status, said);
		if (w.said == NULL) {
			assert_null(strstr(said, "bufpool:"));
			continue;
		}
#if !defined(__x86_64__)
		if (strncmp(w.said, "a ", 2) == 0)
			continue;
#endif
		snprintf(want, sizeof want, "%s", w.said);
		for (word = strtok(want, "*"); word != NULL;
		     word = strtok(NULL, "*")) {
			rest = strstr(rest, word);
			if (rest == NULL)
				fail_msg("%zu: '%s' is not in: %s", i, word,
					 said);
		}
	}
}

static void
write_to_slack(void *arg)
{
	struct bufpool_buf *b = bufpool_checkout(hardened_pool(), 100);

	bytes_of(b)[*(size_t *)arg] = 1;
	bufpool_release(b);
	_exit(77);
}

static void
finds_what_was_written_to_the_slack(void **state)
{
	char said[2048];

	(void)state;
	for (size_t at = 99; at < 112; at++) {
		int status = said_in_child(write_to_slack, &at, said,
					   sizeof said);
		char want[128];

		if (at < 100) {
			assert_int_equal(WEXITSTATUS(status), 77);
			continue;
		}
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		snprintf(want, sizeof want, "corruption at release, after a "
			 "write of %zu bytes past the end: buffer ", at - 99);
		assert_non_null(strstr(said, want));
	}
}

/* Until KEPT others have come home after it, nobody has access to an address,
 * and then nothing is left. */
static void
keeps_addresses_from_use(void **state)
{
	struct bufpool *p = hardened_pool();
	size_t before = count_mappings();
	uint8_t *was[3 * KEPT];

	(void)state;
	for (size_t i = 0; i < 3 * KEPT; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, 5000);

		assert_non_null(b);
		was[i] = bytes_of(b);
		assert_string_equal(access_at(was[i]), "rw-p");
		bufpool_release(b);
		assert_string_equal(access_at(was[i]), "---p");
		if (i >= KEPT - 1)
			assert_string_equal(access_at(was[i - KEPT + 1]),
					    "---p");
		for (size_t k = i; k-- > 0 && i - k < KEPT;)
			assert_ptr_not_equal(was[k], was[i]);
	}
	/* Guards of neighbours are one mapping. */
	assert_true(count_mappings() <= before + KEPT + 8);
	bufpool_destroy(p);
	for (size_t i = 0; i < 3 * KEPT; i++)
		assert_string_not_equal(access_at(was[i]), "---p");
	assert_true(count_mappings() <= before + 8);
}

/* The guards take addresses, too. */
static void
keeps_no_more_addresses_than_it_may(void **state)
{
	const size_t page = in_pages(0);
	struct bufpool *p = hardened_pool();
	size_t kept = 0;

	(void)state;
	p->guards.kept_most = 10 * 3 * page + page;
	for (int i = 0; i < 40; i++)
		bufpool_release(bufpool_checkout(p, page));
	for (int i = 0; i < KEPT; i++)
		kept += p->guards.kept[i] != NULL;
	assert_int_equal(kept, 10);
	bufpool_destroy(p);
}

static void
moves_to_other_guards_when_it_grows(void **state)
{
	struct bufpool *p = hardened_pool();
	struct bufpool_buf *b = bufpool_checkout(p, 0);
	const uint8_t *was;
	uint8_t byte;

	(void)state;
	assert_non_null(b);
	for (size_t i = 0; i < 100000; i++) {
		byte = (uint8_t)(i * 7);
		was = bufpool_peek(b);
		assert_int_equal(bufpool_append(b, &byte, 1), 0);
		if (was != bufpool_peek(b))
			assert_string_equal(access_at(was), "---p");
	}
	for (size_t i = 0; i < 100000; i++)
		assert_int_equal(((const uint8_t *)bufpool_peek(b))[i],
				 (uint8_t)(i * 7));
	assert_guarded(b, bufpool_capacity(b), 16);
	assert_int_equal(stats_of(p).checked_out, 1);
	assert_int_equal(stats_of(p).committed_bytes,
			 in_pages(bufpool_capacity(b)));
	bufpool_release(b);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
}

/* In a limited pool, too, where others get no more than they need. */
static void
moves_a_few_times_below_a_limit(void **state)
{
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_ALL);
	struct bufpool *p;
	struct bufpool_buf *b;
	const void *was = NULL;
	unsigned moves = 0;

	(void)state;
	config.max_bytes = 64 << 20;
	p = bufpool_create(&config);
	b = bufpool_checkout(p, 0);
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(bufpool_append(b, "0123456789", 10), 0);
		moves += bufpool_peek(b) != was;
		was = bufpool_peek(b);
	}
	assert_in_range(moves, 1, 60);
	bufpool_release(b);
	bufpool_destroy(p);
}

/* The system refuses what it would refuse an ordinary pool, and gives memory to
 * what is touched only. */
static void
is_as_large_as_any(void **state)
{
	struct bufpool *p, *any;
	struct bufpool_buf *b, *other;
	size_t before;

	(void)state;
	needs(addresses_are_free(), "addresses take memory");
	p = hardened_pool();
	any = bufpool_create(NULL);
	before = resident_bytes();
	b = bufpool_checkout(p, (size_t)1 << 46);
	other = bufpool_checkout(any, (size_t)1 << 46);
	assert_true((b == NULL) == (other == NULL));
	bufpool_release(b);
	bufpool_release(other);
	bufpool_destroy(any);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	b = bufpool_checkout(p, 256 << 20);
	assert_non_null(b);
	assert_true(resident_bytes() < before + (64 << 20));
	bufpool_release(b);
	bufpool_destroy(p);
}

static void
keeps_the_law_and_the_limit(void **state)
{
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_ALL);
	struct bufpool_buf *b[4];
	struct bufpool_stats s;
	struct bufpool *p, *again;

	(void)state;
	config.max_bytes = 4 * in_pages(0);
	p = bufpool_create(&config);	/* the counts would not fit */
	assert_non_null(p);
	again = bufpool_create(&config);
	assert_ptr_equal(again, p);
	bufpool_destroy(again);
	config.hardened = BUFPOOL_HARDENED_SAMPLED;
	assert_null(bufpool_create(&config));
	assert_int_equal(errno, EEXIST);
	assert_null(bufpool_try_checkout(p, 10));
	assert_int_equal(errno, EAGAIN);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 4; i++) {
			b[i] = bufpool_checkout(p, 10);
			assert_non_null(b[i]);
		}
		assert_null(bufpool_checkout(p, 10));
		assert_int_equal(errno, EDQUOT);
		s = stats_of(p);
		assert_int_equal(s.checked_out, 4);
		assert_int_equal(s.large_out, 4);
		assert_int_equal(s.large_bytes_out, 4 * in_pages(0));
		assert_int_equal(s.bytes_checked_out, 4 * in_pages(0));
		assert_int_equal(s.cached_bytes, 0);
		for (int i = 0; i < 4; i++)
			bufpool_release(b[i]);
		s = stats_of(p);
		assert_int_equal(s.checked_out, 0);
		assert_int_equal(s.bytes_checked_out, 0);
		assert_int_equal(s.committed_bytes, 0);
	}
	b[0] = bufpool_checkout(p, 10);
	bufpool_close(p);
	assert_null(bufpool_checkout(p, 10));
	assert_int_equal(errno, ESHUTDOWN);
	bufpool_destroy(p);
	bufpool_release(b[0]);	/* ends the pool */
}

static void
goes_from_hand_to_hand(void **state)
{
	struct bufpool *p = hardened_pool();
	struct bufpool_buf *b = bufpool_checkout(p, 100), *part;
	const uint8_t *at = bytes_of(b);
	struct bufpool_frozen *f = NULL;
	uint64_t ticket;

	(void)state;
	memset(bytes_of(b), 7, 100);
	ticket = bufpool_detach(b);
	assert_int_not_equal(ticket, 0);
	assert_int_equal(bufpool_adopt(ticket, &b, &f), 0);
	assert_non_null(b);
	assert_string_equal(access_at(at), "rw-p");
	part = bufpool_split(b, 60);
	assert_non_null(part);
	assert_int_equal(bufpool_len(part), 60);
	assert_int_equal(bufpool_len(b), 40);
	assert_int_equal(((const uint8_t *)bufpool_peek(part))[59], 7);
	assert_int_equal(((const uint8_t *)bufpool_peek(b))[39], 7);
	bufpool_release(part);
	at = bufpool_peek(b);
	f = bufpool_freeze(b);
	assert_string_equal(access_at(at), "r--p");
	ticket = bufpool_share(f);
	assert_int_equal(bufpool_adopt(ticket, &b, &f), 0);
	assert_non_null(f);
	assert_int_equal(*(const uint8_t *)bufpool_frozen_data(f), 7);
	assert_string_equal(access_at(at), "r--p");
	bufpool_frozen_unref(f);
	assert_string_equal(access_at(at), "---p");
	bufpool_destroy(p);
}

/* With a sample of 1 every checkout is sampled; what is not sampled, and what
 * has grown, is an ordinary buffer. */
static void
guards_a_sample(void **state)
{
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_SAMPLED);
	size_t guarded = 0;
	struct bufpool *p;

	(void)state;
	for (config.leak_detection = 0; config.leak_detection <=
	     BUFPOOL_LEAK_ALL; config.leak_detection++) {
		config.leak_sample = 8;
		p = bufpool_create(&config);
		assert_non_null(p);
		guarded = 0;
		for (int i = 0; i < 8000; i++) {
			size_t n = i % 2 ? 100 : 300000;
			struct bufpool_buf *b = bufpool_checkout(p, n);

			assert_non_null(b);
			assert_int_equal((uintptr_t)bufpool_peek(b) % 64, 0);
			if (b->guarded) {
				guarded++;
				assert_guarded(b, n, 64);
				assert_int_equal(bufpool_append(b, "x", 1), 0);
				assert_false(b->guarded);
			}
			bufpool_release(b);
		}
		/* 8000 draws of one in 8 on average: 1000, give or take 19 for
		 * one deviation, when draws are from 1 to 15. */
		assert_in_range(guarded, 700, 1300);
		bufpool_destroy(p);
	}
	config.leak_sample = 1;
	config.leak_detection = 0;
	p = bufpool_create(&config);
	guarded = 0;
	for (int i = 0; i < 1000; i++) {
		struct bufpool_buf *b = bufpool_checkout_aligned(p, 100, 4096);

		guarded += b->guarded;
		if (b->guarded)
			assert_guarded(b, 100, 4096);
		bufpool_release(b);
	}
	/* A guarded buffer does not count where the next one is drawn. */
	assert_in_range(guarded, 400, 1000);
	bufpool_destroy(p);
}

static void
forget_my_rights(void *arg)
{
	struct rlimit none = { 0, 0 };
	struct bufpool_stats s;
	struct bufpool *p;

	(void)arg;
	CHECK(setrlimit(RLIMIT_MEMLOCK, &none) == 0, "no limit");
	if (geteuid() == 0)
		CHECK(seteuid(65534) == 0, "still root");
	p = hardened_pool();
	for (int i = 0; i < 5; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, 100);

		CHECK(b != NULL, "a lock that is refused costs a checkout");
		bufpool_release(b);
	}
	bufpool_get_stats(p, &s);
	CHECK(s.lock_refused == 5, "%llu refused",
	      (unsigned long long)s.lock_refused);
	CHECK(s.lock_limit == 0, "limit");
	(void)!seteuid(getuid());
}

static void
lock_as_before(void *arg)
{
	struct bufpool *p = hardened_pool();
	size_t before = status_bytes("VmLck:");
	struct bufpool_buf *b;

	(void)arg;
	CHECK(forbid(SYS_mlock2, ENOSYS), "no filter");
	b = bufpool_checkout(p, 100);
	CHECK(stats_of(p).lock_refused == 0, "refused");
	CHECK(status_bytes("VmLck:") > before, "not locked");
	bufpool_release(b);
}

static void
locks_where_the_system_has_no_mlock2(void **state)
{
	(void)state;
	needs(!SANITIZED, "a sanitizer's mlock does nothing");
	needs_filters();
	assert_int_equal(in_child(lock_as_before, NULL), 0);
}

static void
locks_and_says_where_it_cannot(void **state)
{
	struct bufpool *p = hardened_pool();
	struct bufpool_buf *b = bufpool_checkout(p, 100);
	struct rlimit limit;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	assert_int_equal(stats_of(p).lock_limit,
			 limit.rlim_cur == RLIM_INFINITY ? 0 : limit.rlim_cur);
	bufpool_release(b);
	bufpool_destroy(p);
	assert_int_equal(in_child(forget_my_rights, NULL), 0);
}

static void
look_in_child(void *arg)
{
	struct bufpool_buf **b = arg;

	for (int i = 0; i < 4; i++)
		CHECK(((const uint8_t *)bufpool_peek(b[i]))[9] == (uint8_t)
		      (i < 2 ? 0 : 8), "byte of buffer %d is %d", i,
		      ((const uint8_t *)bufpool_peek(b[i]))[9]);
	for (int i = 0; i < 4; i++)
		bufpool_release(b[i]);
}

/* Of a class and above, guarded and not. */
static void
is_wiped_on_fork_where_asked_for(void **state)
{
	(void)state;
	needs_advice();
	for (int hardened = 0; hardened < 2; hardened++) {
		struct bufpool_config config = config_of(hardened);
		struct bufpool_buf *b[4];
		struct bufpool *p[2];

		config.name = NULL;
		config.wipe_on_fork = 1;
		p[0] = bufpool_create(&config);
		config.wipe_on_fork = 0;
		p[1] = bufpool_create(&config);
		for (int i = 0; i < 4; i++) {
			b[i] = bufpool_checkout(p[i / 2], i % 2 ? 2000000 : 50);
			assert_non_null(b[i]);
			memset(bytes_of(b[i]), 8, 50);
		}
		assert_int_equal(in_child(look_in_child, b), 0);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(bytes_of(b[i])[9], 8);
			bufpool_release(b[i]);
		}
		bufpool_destroy(p[0]);
		bufpool_destroy(p[1]);
	}
}

static sigjmp_buf back;
static void *told;

static void
come_back(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	told = info->si_addr;
	siglongjmp(back, 1);
}

static void
leave(int number)
{
	_exit(number);
}

/* Tells that it was called, with SIGUSR1 blocked, and returns. */
static void
say_so(int number)
{
	sigset_t mask;

	(void)number;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	if (write(STDERR_FILENO, "called\n", 7) != 7 ||
	    !sigismember(&mask, SIGUSR1))
		_exit(78);
}

/* What was asked for with the handler holds when ours calls it. */
static void
keep_flags(void *arg)
{
	struct sigaction action = { .sa_flags = 0 };
	volatile int times = 0;
	uint8_t *at;

	if (*(int *)arg == 0) {
		action.sa_flags = (int)SA_RESETHAND;
		action.sa_handler = say_so;
		sigaddset(&action.sa_mask, SIGUSR1);
	} else {
		action.sa_flags = SA_SIGINFO | SA_NODEFER;
		action.sa_sigaction = come_back;
	}
	sigaction(SIGSEGV, &action, NULL);
	at = bytes_of(bufpool_checkout(hardened_pool(), 64));
	sigsetjmp(back, 0);		/* the mask stays as it is */
	if (times++ < 3)
		*(volatile uint8_t *)(at + 64) = 1;
}

static void
leaves_a_handler_its_flags(void **state)
{
	char said[2048];
	int which = 0, status = said_in_child(keep_flags, &which, said,
					      sizeof said);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_non_null(strstr(said, "called\n"));
	assert_null(strstr(strstr(said, "called\n") + 1, "called\n"));
	which = 1;
	assert_int_equal(said_in_child(keep_flags, &which, said, sizeof said),
			 0);
}

/* What a pool keeps from use is not to be what the program lacks. */
static void
live_with_few_addresses(void *arg)
{
	struct rlimit limit = { 8ull << 30, 8ull << 30 };
	struct bufpool *p;
	void *all[64];

	(void)arg;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "no limit");
	p = hardened_pool();
	for (int i = 0; i < 300; i++) {
		struct bufpool_buf *b = bufpool_checkout(p, 16 << 20);

		CHECK(b != NULL, "checkout %d", i);
		bufpool_release(b);
	}
	/* 8 GiB, less what this process has, and 1/16 of it for the pool. */
	for (int i = 0; i < 64; i++) {
		all[i] = mmap(NULL, 32 << 20, PROT_NONE, MAP_PRIVATE |
			      MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		CHECK(all[i] != MAP_FAILED, "mapping %d", i);
	}
}

static void
leaves_addresses_to_the_program(void **state)
{
	(void)state;
	needs_address_limit();
	assert_int_equal(in_child(live_with_few_addresses, NULL), 0);
}

/* Faults that are another's, and signals that are sent, are passed on. */
static void
pass_on(void *arg)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO };
	struct bufpool_buf *b;
	uint8_t *at, *other = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE |
				   MAP_ANONYMOUS, -1, 0);

	action.sa_sigaction = come_back;
	switch (*(int *)arg) {
	case 0:
		sigaction(SIGSEGV, &action, NULL);
		break;
	case 1:
		signal(SIGSEGV, leave);
		break;
	case 2:
		signal(SIGSEGV, SIG_IGN);
		break;
	}
	b = bufpool_checkout(hardened_pool(), 100);
	at = bytes_of(b);
	if (*(int *)arg == 2) {
		raise(SIGSEGV);		/* ignored */
		*(volatile uint8_t *)other = 1;
	}
	if (*(int *)arg == 3)
		raise(SIGSEGV);
	for (int i = 0; i < 3; i++)
		if (sigsetjmp(back, 1) == 0)
			*(volatile uint8_t *)(i == 1 ? other : at + 112) = 1;
		else
			CHECK(told == (i == 1 ? other : at + 112), "told %p",
			      told);
	bufpool_release(b);
}

static void
goes_on_to_the_handler_that_was_there(void **state)
{
	char said[2048];
	int which = 0;

	(void)state;
	assert_int_equal(said_in_child(pass_on, &which, said, sizeof said), 0);
	/* Twice, for the other fault is not ours. */
	assert_non_null(strstr(said, "bufpool: fault"));
	assert_non_null(strstr(strstr(said, "bufpool: fault") + 1,
			       "bufpool: fault"));
	which = 1;
	assert_int_equal(WEXITSTATUS(said_in_child(pass_on, &which, said,
						   sizeof said)), SIGSEGV);
	for (which = 2; which < 4; which++) {
		int status = said_in_child(pass_on, &which, said, sizeof said);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSEGV);
		assert_null(strstr(said, "bufpool:"));
	}
}

static void
fails_one_in_so_many(void **state)
{
	struct bufpool_config config = config_of(BUFPOOL_HARDENED_OFF);
	struct bufpool *p;

	(void)state;
	config.fail_one_in = 3;
	p = bufpool_create(&config);
	assert_non_null(p);
	for (int i = 1; i <= 300; i++) {
		size_t n = i % 2 ? 10 : 2000000;
		struct bufpool_buf *b = bufpool_checkout(p, n);

		if (i % 3 == 0) {
			assert_null(b);
			assert_int_equal(errno, ENOMEM);
			continue;
		}
		assert_non_null(b);
		assert_all_zero(b);
		bufpool_release(b);
	}
	assert_int_equal(stats_of(p).refused_by_system, 100);
	assert_int_equal(stats_of(p).checked_out, 0);
	bufpool_destroy(p);
}

/* Threads that take, hand on, freeze and release at once. */
#define THREADS 4
#define ROUNDS 1000

static _Atomic(struct bufpool_buf *) table[16];

static void *
hand_on(void *arg)
{
	struct bufpool *p = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (int i = 0; i < ROUNDS; i++) {
		size_t n = (size_t)(rand_r(&seed) % 20000);
		struct bufpool_buf *b = bufpool_checkout(p, n), *other;

		CHECK(b != NULL, "no memory");
		if (n > 0)
			memset(bytes_of(b), 1, n);
		other = atomic_exchange(&table[rand_r(&seed) % 16], b);
		if (other != NULL && i % 3 == 0)
			bufpool_frozen_unref(bufpool_freeze(other));
		else
			bufpool_release(other);
	}
	return NULL;
}

static void
is_taken_and_released_by_many_threads(void **state)
{
	size_t before = count_mappings();
	struct bufpool *p = hardened_pool();
	pthread_t thread[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, hand_on, p),
				 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < 16; i++)
		bufpool_release(atomic_load(&table[i]));
	assert_int_equal(stats_of(p).checked_out, 0);
	assert_int_equal(stats_of(p).committed_bytes, 0);
	bufpool_destroy(p);
	/* Of the threads stacks may stay. */
	assert_true(count_mappings() <= before + 4 * THREADS + 16);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, because its children are to install the handler. */
		cmocka_unit_test(goes_on_to_the_handler_that_was_there),
		cmocka_unit_test(leaves_a_handler_its_flags),
		cmocka_unit_test(leaves_addresses_to_the_program),
		cmocka_unit_test(ends_at_a_guard),
		cmocka_unit_test(stops_at_the_instruction),
		cmocka_unit_test(finds_what_was_written_to_the_slack),
		cmocka_unit_test(keeps_addresses_from_use),
		cmocka_unit_test(keeps_no_more_addresses_than_it_may),
		cmocka_unit_test(moves_to_other_guards_when_it_grows),
		cmocka_unit_test(moves_a_few_times_below_a_limit),
		cmocka_unit_test(is_as_large_as_any),
		cmocka_unit_test(keeps_the_law_and_the_limit),
		cmocka_unit_test(goes_from_hand_to_hand),
		cmocka_unit_test(guards_a_sample),
		cmocka_unit_test(locks_and_says_where_it_cannot),
		cmocka_unit_test(locks_where_the_system_has_no_mlock2),
		cmocka_unit_test(is_wiped_on_fork_where_asked_for),
		cmocka_unit_test(fails_one_in_so_many),
		cmocka_unit_test(is_taken_and_released_by_many_threads),
	};

	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
