#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

int64_t
bp_system_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The last resort: different at each call, in each process, and in most of
 * their runs. */
static uint64_t
random_improvised(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((uintptr_t)&t ^ (uint64_t)getpid() << 32 ^
		(uint64_t)t.tv_nsec << 12) * 0x9e3779b97f4a7c15u;
}

uint64_t
bp_system_random(void)
{
	int saved = errno, fd;
	uint64_t drawn;

	if (getrandom(&drawn, sizeof drawn, 0) != (ssize_t)sizeof drawn) {
		fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
		if (fd < 0 ||
		    read(fd, &drawn, sizeof drawn) != (ssize_t)sizeof drawn)
			drawn = random_improvised();
		if (fd >= 0)
			close(fd);
	}
	errno = saved;
	return drawn;
}
