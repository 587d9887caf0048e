#include <sched.h>

#include "reclaim.h"
#include "stats.h"
#include "trim.h"

#define TRIES 64	/* to find memory that other threads are moving */
#define TRIES_ON_CORE 8	/* of these, before the first sched_yield */

/*
 * The system maps no more. Only kept mappings can help, because only they give
 * addresses back, and only if addresses are what is missing. So the system is
 * asked: it must refuse to map the request, and must agree to map what the
 * request needs beyond all that is kept.
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
 * max_bytes is reached. Memory that another thread is just moving cannot be
 * found. As long as the bytes that are out leave enough room below max_bytes,
 * there must be such memory, so the search is repeated, up to TRIES times, and
 * later tries yield the core, because the thread that moves the memory may have
 * lost its own. When the bytes that are out leave too little room and the idle
 * bytes are too few, nothing is given back.
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

void
bp_reclaim_refused(struct bufpool *p, int error)
{
	if (error == EDQUOT || error == ENOMEM)
		atomic_fetch_add_explicit(error == EDQUOT
					  ? &p->refused_by_max_bytes
					  : &p->refused_by_system, 1,
					  memory_order_relaxed);
}
