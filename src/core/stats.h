/*
 * stats - sums over all threads. Exact when no other thread is inside the pool.
 */
#ifndef BUFPOOL_STATS_H
#define BUFPOOL_STATS_H

#include "pool.h"

/* Buffers of a class. */
uint64_t bp_stats_cached(const struct bufpool *p, unsigned class);
uint64_t bp_stats_ready(const struct bufpool *p, unsigned class);
uint64_t bp_stats_out(const struct bufpool *p, unsigned class);

/* Of a class, since the pool was made. */
uint64_t bp_stats_checkouts(const struct bufpool *p, unsigned class);
uint64_t bp_stats_releases(const struct bufpool *p, unsigned class);

/* Bytes that are out, large buffers included; too few, never too many, while
 * others are inside. */
uint64_t bp_stats_bytes_out(const struct bufpool *p);

/* Samples the peaks: reads all live caches. The second does so once in a tick
 * of the coarse clock at most. */
void bp_stats_sample(struct bufpool *p);
void bp_stats_sample_tick(struct bufpool *p);

#endif
