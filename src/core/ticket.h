/*
 * ticket - hand-over by a number: from thread to thread, and between Lua VMs,
 * which can pass each other nothing but plain values.
 *
 * A ticket stands for one owner of a buffer: the only one, or one of the
 * references to a frozen buffer. Whoever adopts it first gets what it stands
 * for. No byte is copied.
 *
 *      OUT, or a reference -- detach, share --> in transit
 *      in transit          -- adopt -->         OUT, or a reference
 *      in transit          -- expire -->        home, or one reference less
 *
 * In transit a buffer is FROZEN, with the ticket's reference. The number holds
 * which entry of a table has the rest, and how often that entry has been used:
 * so a ticket that was used is told from the next one of its entry, until the
 * entry has been used 2^26 times more. Both are enciphered under keys of this
 * process. So numbers that were made up, and those of another process, stand
 * for a random entry and count, and of 2^46 as many are good as are in transit.
 */
#ifndef BUFPOOL_TICKET_H
#define BUFPOOL_TICKET_H

#include "pool.h"

#define TICKETS_EXHAUSTED "too many tickets are in transit"

#define TICKET_BITS 46		/* a ticket is below 2^46, so below 10^14 */

bool bp_ticket_init(void);		/* once, before any other thread */

/* The part of a frozen buffer that a ticket stands for, in bytes. */
struct ticket_range {
	size_t offset, len;
};

/* As bufpool_share, for a part. */
uint64_t bp_ticket_share(struct bufpool_frozen *f, struct ticket_range part);

/* Takes what has expired home, of all pools, `most` tickets at most; `now` is
 * bp_system_now's. One load when nothing has, and otherwise a bounded time for
 * each of `most`. Keeps errno. Any thread. */
void bp_ticket_expire(int64_t now, size_t most);

/* When the next ticket may expire, by bp_system_now; INT64_MAX: none will. Any
 * thread. */
int64_t bp_ticket_next(void);

/* In the child: tickets of the parent are void, and have expired. The pools'
 * in_transit is 0 when this is called. */
void bp_ticket_after_fork(void);

#endif
