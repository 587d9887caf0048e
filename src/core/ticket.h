/*
 * ticket - hand-over by a number: from thread to thread, and between Lua VMs,
 * which can pass each other nothing but plain values.
 *
 * A ticket stands for the ownership of a buffer, or for one of the references
 * to a frozen buffer. Whoever adopts the ticket first gets what it stands for.
 * No byte is copied.
 *
 *      OUT, or a reference -- detach, share --> in transit
 *      in transit          -- adopt -->         OUT, or a reference
 *      in transit          -- expire -->        home, or one reference less
 *
 * In transit a buffer is FROZEN, with the ticket's reference. A ticket is made
 * of the number of an entry in a table, which holds the rest, and of a count of
 * how often that entry has been used. So a used ticket is distinguished from
 * later ones of its entry, until the entry has been used 2^26 times more. Both
 * are enciphered under keys of this process. So a number that was made up, or
 * comes from another process, deciphers to a random entry and count; of the
 * 2^46 numbers, only as many are good as there are tickets in transit.
 */
#ifndef BUFPOOL_TICKET_H
#define BUFPOOL_TICKET_H

#include "pool.h"

#define TICKETS_EXHAUSTED "too many tickets are in transit"

#define TICKET_BITS 46		/* a ticket is below 2^46, so below 10^14 */

bool bp_ticket_init(void);		/* once, before any other thread */

/* Takes home what expired tickets of all pools stand for, `most` tickets at
 * most. `now` is what bp_system_now returned. Costs one load when none is due,
 * and otherwise a bounded time for each of `most`. Keeps errno. Any
 * thread. */
void bp_ticket_expire(int64_t now, size_t most);

/* In a fork child: makes the parent's tickets void and expired. The pools'
 * in_transit must be 0 before. */
void bp_ticket_after_fork(void);

#endif
