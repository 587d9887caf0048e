#include <errno.h>
#include <sched.h>

#include "forked.h"

#define PENDING 1
#define SETTLING 2

_Atomic uint32_t bp_forked_state;
void (*bp_forked_settle)(void);
static __thread bool settling;

/* Also when a thread of the parent was just settling, because settling may be
 * done again from the start. */
void
bp_forked_begin(void)
{
	atomic_store(&bp_forked_state, PENDING);
}

void
bp_forked_settle_slow(void)
{
	uint32_t pending = PENDING;
	int saved = errno;

	if (settling)	/* functions that settle call forked_check */
		return;
	if (atomic_compare_exchange_strong(&bp_forked_state, &pending,
					   SETTLING)) {
		settling = true;
		bp_forked_settle();
		settling = false;
		atomic_store(&bp_forked_state, 0);
	}
	while (atomic_load(&bp_forked_state) != 0)
		sched_yield();
	errno = saved;
}
