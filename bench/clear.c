/*
 * What clearing memory costs: the clearing itself, and what the next user of
 * the memory then pays.
 *
 *   clear [huge]
 *
 * The memory is a private mapping of N bytes, all of it resident. In each round
 * all of it is dirtied, then cleared, and then the next user writes some of it:
 * all, or the first sixteenth. Clearing and the next user's writing are timed
 * together, because one way of clearing leaves work to that writing. The ways:
 *
 *   memset      of the C library
 *   stream      stores that go past the caches (x86-64 only)
 *   give-back   madvise(MADV_DONTNEED): the pages go back to the system, and
 *               each page that is written afterwards is a page fault
 *
 * With `huge` the mapping is aligned for huge pages and asks for them.
 *
 * Times are processor times, which other load of the machine changes less. The
 * ways take turns within a round. There are rounds for at least SECONDS,
 * ROUNDS of them at least, and the median counts. One line a size and part:
 * name=number, times in nanoseconds.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define LEAST ((size_t)64 << 10)
#define MOST ((size_t)64 << 20)
#define HUGE ((size_t)2 << 20)
#define SECONDS 0.5
#define ROUNDS 15
#define ROUNDS_MAX 4000

static void
clear_memset(uint8_t *p, size_t n)
{
	memset(p, 0, n);
}

#if defined(__x86_64__)
static void
clear_stream(uint8_t *p, size_t n)
{
	__m128i *line = (__m128i *)(void *)p, *end = line + n / sizeof *line;
	__m128i zero = _mm_setzero_si128();

	for (; line < end; line += 4) {
		_mm_stream_si128(line, zero);
		_mm_stream_si128(line + 1, zero);
		_mm_stream_si128(line + 2, zero);
		_mm_stream_si128(line + 3, zero);
	}
	_mm_sfence();
}
#endif

static void
clear_give_back(uint8_t *p, size_t n)
{
	if (madvise(p, n, MADV_DONTNEED) != 0)
		abort();
}

static const struct way {
	const char *name;
	void (*clear)(uint8_t *, size_t);
} ways[] = {
	{ "memset", clear_memset },
#if defined(__x86_64__)
	{ "stream", clear_stream },
#endif
	{ "give-back", clear_give_back },
};
#define WAYS (sizeof ways / sizeof ways[0])

static double
nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void
dirty(uint8_t *p, size_t n)
{
	memset(p, 0xA5, n);
	__asm__ volatile("" : : "r"(p) : "memory");
}

static int
compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double
median(double *list, size_t n)
{
	qsort(list, n, sizeof *list, compare);
	return list[(n - 1) / 2];
}

/* What a reading of the clock adds to the time between two. */
static double
clock_alone(void)
{
	static double list[ROUNDS_MAX];

	for (size_t k = 0; k < ROUNDS_MAX; k++) {
		double from = nanoseconds();

		list[k] = nanoseconds() - from;
	}
	return median(list, ROUNDS_MAX);
}

static void
measure(uint8_t *p, size_t n, size_t part)
{
	static double cleared[WAYS][ROUNDS_MAX], both[WAYS][ROUNDS_MAX];
	double begun = nanoseconds(), clock = clock_alone();
	size_t rounds = 0;

	while (rounds < ROUNDS_MAX && (rounds < ROUNDS ||
				       nanoseconds() - begun < SECONDS * 1e9)) {
		for (size_t k = 0; k < WAYS; k++) {
			double from, between;

			dirty(p, n);
			from = nanoseconds();
			ways[k].clear(p, n);
			between = nanoseconds();
			dirty(p, n / part);
			both[k][rounds] = nanoseconds() - from -
			    2 * clock;
			cleared[k][rounds] = between - from - clock;
		}
		rounds++;
	}
	printf("bytes=%zu part=%zu", n, part);
	for (size_t k = 0; k < WAYS; k++)
		printf(" %s=%.0f %s-alone=%.0f", ways[k].name,
		       median(both[k], rounds), ways[k].name,
		       median(cleared[k], rounds));
	putchar('\n');
}

int
main(int argc, char **argv)
{
	bool huge = argc == 2 && strcmp(argv[1], "huge") == 0;
	uint8_t *p;

	if (argc > 2 || (argc == 2 && !huge)) {
		fputs("usage: clear [huge]\n", stderr);
		return 64;
	}
	p = mmap(NULL, MOST + HUGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		fputs("clear: no memory\n", stderr);
		return 1;
	}
	p += HUGE - (uintptr_t)p % HUGE;
	if (madvise(p, MOST, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 &&
	    huge) {
		fputs("clear: no huge pages\n", stderr);
		return 2;
	}
	for (size_t n = huge ? HUGE : LEAST; n <= MOST; n *= 2) {
		measure(p, n, 1);
		measure(p, n, 16);
	}
	return 0;
}
