#include <sched.h>

#include "reclaim.h"
#include "stats.h"
#include "trim.h"

#define TRIES 64	/* before memory that someone moves is given up */
#define TRIES_ON_CORE 8	/* of these: before the core is offered to others */

/*
 * The system maps no more. Only what gives its addresses back may help, and
 * only where addresses are what is missing: the system must refuse to map as
 * many as are needed, and must map what is needed beyond all that are kept.
 */
static bool
reclaim_addresses(struct bufpool *p, struct want *w, int tries)
{
	size_t kept = atomic_load(&p->large.kept), done;

	if (bp_arena_has_addresses(w->addresses))
		return tries == 0;	/* another thread may have given some */
	if (w->given >= w->addresses || kept == 0 ||
	    (kept < w->addresses &&
	     !bp_arena_has_addresses(w->addresses - kept)))
		return false;
	done = bp_trim_addresses(p, w->addresses - w->given);
	w->given += done;
	return done > 0;
}

/*
 * max_bytes is reached. Memory that other threads are just moving is nowhere to
 * be found; as long as what is out leaves room enough below max_bytes, it must
 * turn up, and so is looked for again, some times. The thread that moves it may
 * have lost its core: it gets a chance to go on. Where what is out leaves no
 * room, and what lies idle is not enough, nothing is given back.
 */
static bool
reclaim_bytes(struct bufpool *p, size_t bytes, int tries)
{
	size_t limit = p->arena.max_bytes, room = arena_room(&p->arena);
	bool enough, fits;

	if (tries >= TRIES_ON_CORE)
		sched_yield();
	if (room >= bytes)
		return tries < TRIES;
	enough = bp_trim_idle(p) >= bytes - room;
	fits = bp_stats_bytes_out(p) <= limit - bytes;
	if ((enough || fits) && bp_trim_bytes(p, bytes - room) > 0)
		return true;
	return fits && tries < TRIES;
}

bool
bp_reclaim(struct bufpool *p, struct want *w, int error, unsigned take,
	   int tries)
{
	if (!(take & TAKE_RECLAIM) || w->bytes > p->arena.max_bytes)
		return false;
	return error == EDQUOT ? reclaim_bytes(p, w->bytes, tries)
			       : reclaim_addresses(p, w, tries);
}
