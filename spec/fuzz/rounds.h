/* For the fuzzers of C: one seed after the other. */
#ifndef SPEC_FUZZ_ROUNDS_H
#define SPEC_FUZZ_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TELL 30		/* seconds from one line of progress to the next */

/* A variable of the environment, unless it is empty. */
static inline const char *
given(const char *name)
{
	const char *text = getenv(name);

	return text != NULL && *text != '\0' ? text : NULL;
}

/*
 * Runs `pass` with SEED, or a drawn seed, and those after it, for TIME seconds
 * or, without TIME, so many rounds. Ends after the third that failed. Returns
 * what main returns.
 */
static inline int
go_on(bool (*pass)(uint64_t seed), int rounds)
{
	const char *first = given("SEED"), *seconds = given("TIME");
	uint64_t seed = first ? strtoull(first, NULL, 10)
			      : (uint64_t)time(NULL) % 1000000 * 1000;
	time_t end = time(NULL) + (seconds ? atol(seconds) : 0);
	time_t tell = time(NULL) + TELL;
	int passed = 0, failed = 0;

	printf("seed %lu\n", (unsigned long)seed);
	for (int i = 0; seconds ? time(NULL) < end : i < rounds; i++) {
		if (pass(seed++))
			passed++;
		else if (failed++ >= 2)
			break;
		if (time(NULL) > tell) {
			printf("%d rounds\n", passed + failed);
			fflush(stdout);
			tell = time(NULL) + TELL;
		}
	}
	printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	return failed > 0;
}

#endif
