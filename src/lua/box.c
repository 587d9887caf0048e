#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include "box.h"

const char *const box_kinds[] = {
	[KIND_POOL - 1] = "pool", [KIND_BUFFER - 1] = "buffer",
	[KIND_FROZEN - 1] = "frozen", NULL
};

/* A host that released a buffer behind its box leaves the box in BOX_LIVE. */
const char *const box_states[] = {
	[BOX_LIVE] = "released", [BOX_RELEASED] = "released",
	[BOX_FROZEN] = "frozen", [BOX_DETACHED] = "detached",
	[BOX_CLOSED] = "closed", NULL
};

_Atomic uint64_t box_cookie_drawn;

/*
 * Drawn once. Of two threads that draw at once the first to store wins.
 * Without a source of randomness there is still what the address space
 * randomization and the process number give.
 */
void
box_draw_cookie(void)
{
	uint64_t none = 0, mine;
	int fd;

	if (atomic_load(&box_cookie_drawn) != 0)
		return;
	if (getrandom(&mine, sizeof mine, 0) != (ssize_t)sizeof mine) {
		fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, &mine, sizeof mine) < 0)
			mine = (uintptr_t)&mine ^ (uint64_t)getpid() << 32;
		if (fd >= 0)
			close(fd);
	}
	atomic_compare_exchange_strong(&box_cookie_drawn, &none,
				       (mine | 1) << KIND_BITS);
}
