/*
 * trim - memory that lies idle goes back to the system: when asked, when it is
 * needed elsewhere in the pool, and by and by.
 */
#ifndef BUFPOOL_TRIM_H
#define BUFPOOL_TRIM_H

#include "registry.h"

/* Bytes that lie idle in the pool. */
size_t bp_trim_idle(const struct bufpool *p);

/* Gives idle memory back until so many bytes have gone, or none is left, and no
 * more of it than it must. What is above the floors goes first. Returns
 * bytes. */
size_t bp_trim_bytes(struct bufpool *p, size_t bytes);

/* As bp_trim_bytes, but only what gives its addresses back, too: mappings that
 * are kept. */
size_t bp_trim_addresses(struct bufpool *p, size_t bytes);

/* What threads do in each slow path, and when their shelf is due: at most once
 * in a tick of the coarse clock, take some expired tickets home, sample the
 * peaks, and let some of what lies idle decay, here and in some other pools.
 * `now` is bp_system_now's. */
void bp_trim_maintain(struct bufpool *p, int64_t now);

/* What the owner of a shelf does when it is due: looks which node it runs on,
 * maintains, and says when the shelf is due again. */
void bp_trim_due(struct bufpool *p, struct bufpool_shelf *s);

/* After a spill, by the owner. What it has moved may lie idle from now on, and
 * so its next checkout looks as well, however many came before. */
void bp_trim_spilled(struct bufpool *p, struct bufpool_shelf *s);

/* After a release that no cache took, as bp_trim_spilled. The caller holds the
 * pool. */
void bp_trim_released(struct bufpool *p);

#endif
