/*
 * fork() at any moment, with eight threads busy in the parent. The child's own
 * threads adopt what the parent's left, hold buffers together, find none in two
 * hands, and account for every one; a thousand times (FORKS).
 *
 * The oracle is a table of who owns which descriptor, copied by fork with all
 * else: what it names as owned by a thread must never come out of the pool in
 * the child. An owner enters itself after checkout and leaves before release,
 * so that the table may name fewer than are out, but none that is free.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "bufpool.h"
#include "core/pool.h"

#define THREADS 8
#define HELD 150		/* more than a shelf: spills and refills */
#define CHILD_HELD 100
#define OWNERS (1 << 16)
#define ABOVE 1500000		/* above the classes */

static struct bufpool *pool;
static _Atomic uint32_t owner[OWNERS];
static _Atomic int stop, started;
static pthread_barrier_t all_hold;

static const size_t sizes[] = { 100, 4096, 60000, 200000 };

#define CHILD_CHECK(what, ...)                                \
	do {                                                  \
		if (!(what)) {                                \
			fprintf(stderr, "fork: " __VA_ARGS__); \
			fputc('\n', stderr);                  \
			_exit(1);                             \
		}                                             \
	} while (0)

static void *
keep_busy(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg;
	struct bufpool_buf *held[HELD];
	unsigned seed = me;

	bufpool_release(bufpool_checkout(pool, 1));
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&stop)) {
		unsigned n = 1 + (unsigned)rand_r(&seed) % HELD;

		for (unsigned i = 0; i < n; i++) {
			held[i] = bufpool_checkout(
			    pool, rand_r(&seed) % 64 == 0 ? ABOVE
				: sizes[(unsigned)rand_r(&seed) % 4]);
			if (held[i] == NULL)
				abort();
			memcpy(bufpool_data(held[i]), &me, sizeof me);
			if (bufpool_len(held[i]) == ABOVE)
				bufpool_wrote(held[i], sizeof me);
			atomic_store(&owner[held[i]->number], me);
		}
		if (rand_r(&seed) % 16 == 0)
			bufpool_trim(pool);
		for (unsigned i = 0; i < n; i++) {
			atomic_store(&owner[held[i]->number], 0);
			bufpool_release(held[i]);
		}
	}
	return NULL;
}

static unsigned
records(void)
{
	unsigned n = 0;

	for (struct thread *t = bp_thread_next(NULL); t; t = bp_thread_next(t))
		n++;
	return n;
}

static void *
hold_together(void *arg)
{
	struct bufpool_buf *held[CHILD_HELD];

	for (int i = 0; i < CHILD_HELD; i++) {
		size_t n = i == 0 ? ABOVE : sizes[i % 2];
		const uint8_t *data;
		size_t dirty;
		uint32_t was;

		held[i] = bufpool_checkout(pool, n);
		CHILD_CHECK(held[i] != NULL, "no memory");
		was = atomic_exchange(&owner[held[i]->number], 0xffff);
		CHILD_CHECK(was == 0, "buffer %u is in two hands (%u)",
			    held[i]->number, was);
		data = bufpool_peek(held[i]);
		for (size_t j = 0; j < n; j += 50)
			CHILD_CHECK(data[j] == 0, "byte %zu not zero", j);
		dirty = n < ABOVE ? n : 4096;
		memset(bufpool_data(held[i]), 1, dirty);
		bufpool_wrote(held[i], dirty);
	}
	pthread_barrier_wait(&all_hold);
	for (int i = 0; i < CHILD_HELD; i++) {
		atomic_store(&owner[held[i]->number], 0);
		bufpool_release(held[i]);
	}
	return arg;
}

static void
child(void)
{
	struct bufpool_stats s;
	pthread_t thread[THREADS];
	unsigned before = records();
	uint64_t bytes = 0;

	pthread_barrier_init(&all_hold, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, hold_together, NULL);
	hold_together(NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	CHILD_CHECK(records() == before, "%u records became %u: not adopted",
		    before, records());
	bufpool_trim(pool);
	bufpool_get_stats(pool, &s);
	for (unsigned c = 0; c < s.class_count; c++) {
		uint64_t lost = s.classes[c].count - s.classes[c].ready -
		    s.classes[c].cached - s.classes[c].out;

		CHILD_CHECK(lost <= s.lost, "class %zu: %lld unaccounted for",
			    s.classes[c].size, (long long)lost);
		s.lost -= lost;
		bytes += s.classes[c].count * s.classes[c].size;
	}
	bytes += s.large_bytes_out;
	CHILD_CHECK(bytes <= s.committed_bytes && s.large_cached == 0,
		    "%llu bytes, but %llu committed; %llu kept",
		    (unsigned long long)bytes,
		    (unsigned long long)s.committed_bytes,
		    (unsigned long long)s.large_cached);
	s.lost -= pool->large.lost;
	CHILD_CHECK(s.lost == 0, "%llu counted as lost but found",
		    (unsigned long long)s.lost);
	exit(0);
}

int
main(void)
{
	const char *count = getenv("FORKS");
	int forks = count ? atoi(count) : 150, bad = 0;
	pthread_t thread[THREADS];
	struct bufpool_stats s;

	pool = bufpool_create(NULL);
	if (pool == NULL)
		abort();
	bufpool_release(bufpool_checkout(pool, 1));	/* makes a record */
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, keep_busy, (void *)(i + 1));
	/* A sanitizer holds locks of its own while a thread starts. */
	while (atomic_load(&started) < THREADS)
		nanosleep(&(struct timespec){ 0, 200000 }, NULL);
	for (int i = 0; i < forks && bad == 0; i++) {
		int status = 0;
		pid_t pid;

		nanosleep(&(struct timespec){ 0, 200000 }, NULL);
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			child();
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
			fprintf(stderr, "fork %d: child ended with %x\n", i,
				(unsigned)status);
			bad++;
		}
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	bufpool_get_stats(pool, &s);
	if (s.checked_out != 0 || s.lost != 0) {
		fprintf(stderr, "parent: %llu out, %llu lost\n",
			(unsigned long long)s.checked_out,
			(unsigned long long)s.lost);
		bad++;
	}
	bufpool_destroy(pool);
	printf("%d forks\n%d passed, %d failed\n", forks, bad == 0, bad);
	return bad != 0;
}
