/*
 * trim - gives idle memory back to the system: when asked to, when memory is
 * needed elsewhere in the pool, and gradually.
 */
#ifndef BUFPOOL_TRIM_H
#define BUFPOOL_TRIM_H

#include "registry.h"

/* Bytes of the pool's buffers that nobody has out. */
size_t bp_trim_idle(const struct bufpool *p);

/* Gives idle memory back until at least `bytes` have gone or none is left, and
 * as little beyond that as whole buffers allow. What is above the floors goes
 * first. Returns the bytes that the system took. */
size_t bp_trim_bytes(struct bufpool *p, size_t bytes);

/* Gives back memory whose addresses become free, too: mappings that the system
 * refused to unmap before; or else kept ones, until at least `bytes` have gone
 * or none is left. Returns the bytes. */
size_t bp_trim_addresses(struct bufpool *p, size_t bytes);

/* Threads call this in slow paths and when their shelf is due. At most once in
 * a tick of the coarse clock it takes some expired tickets home, samples the
 * peaks, and gives back some idle memory of this pool and of some others. `now`
 * is what bp_system_now returned. */
void bp_trim_maintain(struct bufpool *p, int64_t now);

/* Called by a shelf's owner when the shelf is due: looks which node the thread
 * runs on, calls bp_trim_maintain, and sets when the shelf is due again. The
 * last checkout asked for n bytes. */
void bp_trim_due(struct bufpool *p, struct bufpool_shelf *s, size_t n);

/* Called after a spill, and after a release that no cache took. What came home
 * may lie idle from now on, so the next checkout from each of the caller's
 * shelves looks at the clock, too: what is still used may be another class. The
 * caller holds the pool. */
void bp_trim_look_soon(struct bufpool *p);

#endif
