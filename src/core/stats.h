/*
 * stats - sums over all threads. They are exact when no other thread is inside
 * the pool.
 */
#ifndef BUFPOOL_STATS_H
#define BUFPOOL_STATS_H

#include "pool.h"

/* How many buffers of a class are cached, ready, out. */
uint64_t bp_stats_cached(const struct bufpool *p, unsigned class);
uint64_t bp_stats_ready(const struct bufpool *p, unsigned class);
uint64_t bp_stats_out(const struct bufpool *p, unsigned class);

/* Checkouts and releases of a class since the pool began. */
uint64_t bp_stats_checkouts(const struct bufpool *p, unsigned class);
uint64_t bp_stats_releases(const struct bufpool *p, unsigned class);

/* Bytes that are out, large buffers included. While other threads are inside
 * the sum may be too low, never too high. */
uint64_t bp_stats_bytes_out(const struct bufpool *p);

/* Samples the peaks, which reads all live caches, at most once in a tick of the
 * coarse clock. */
void bp_stats_sample_tick(struct bufpool *p);

#endif
