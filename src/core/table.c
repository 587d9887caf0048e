#define _DEFAULT_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "table.h"

#define STEP ((size_t)65536)	/* bytes made accessible at a time */
#define LIMIT_MIN 64		/* entries that are worth a reservation */
#define PART 16			/* of a limited address space, 1 / PART */

bool
bp_table_init(struct table *t, size_t item, uint32_t limit)
{
	struct rlimit space;

	if (getrlimit(RLIMIT_AS, &space) == 0 &&
	    space.rlim_cur != RLIM_INFINITY)
		while (limit > LIMIT_MIN &&
		       item * limit > space.rlim_cur / PART)
			limit /= 2;
	for (; limit >= LIMIT_MIN; limit /= 2) {
		void *base = mmap(NULL, item * limit, PROT_READ,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				  -1, 0);
		if (base != MAP_FAILED) {
			t->base = base;
			t->item = item;
			t->limit = limit;
			return true;
		}
	}
	return false;
}

/*
 * Opens for writing the step that holds the entry's last byte, and the one of
 * its first. mprotect is idempotent, so threads that race for one step both
 * succeed and neither waits; only then may the count pass the entry. The
 * release of the count pairs with the acquire in table_used.
 */
int64_t
bp_table_extend(struct table *t)
{
	uint32_t n = atomic_load_explicit(&t->used, memory_order_relaxed);

	do {
		size_t start = t->item * n, end = start + t->item;
		size_t first = start / STEP * STEP;
		size_t last = (end + STEP - 1) / STEP * STEP;
		size_t whole = t->item * t->limit;

		if (n >= t->limit) {
			errno = ENOMEM;
			return -1;
		}
		if (last > whole)
			last = whole;	/* Not run: tables end with a step. */
		if ((start == first || end > first + STEP) &&
		    mprotect(t->base + first, last - first,
			     PROT_READ | PROT_WRITE) != 0) {
			errno = ENOMEM;
			return -1;
		}
	} while (!atomic_compare_exchange_weak_explicit(
	    &t->used, &n, n + 1, memory_order_release, memory_order_relaxed));
	return n;
}
