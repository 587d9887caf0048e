#include <unistd.h>

#include "wipe.h"

#define CACHE_LEAST ((size_t)128 << 10)	/* a smaller one is no second cache */

struct wipe_window bp_wipe_window;

void
bp_wipe_init(void)
{
#ifdef _SC_LEVEL2_CACHE_SIZE
	long answer = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
	long answer = -1;
#endif
	size_t cache = answer > 0 ? (size_t)answer : 0;

	if (cache < CACHE_LEAST)
		return;	/* Not run: a large cache. */
	bp_wipe_window.from = cache / 4 * 3;
	bp_wipe_window.range = cache / 4 * 3;
	bp_wipe_window.step = cache / 4 / WIPE_LINE * WIPE_LINE;
}

void
bp_wipe_from_end(void *p, size_t n)
{
	while (n > bp_wipe_window.step) {
		n -= bp_wipe_window.step;
		wipe((char *)p + n, bp_wipe_window.step);
	}
	wipe(p, n);
}
