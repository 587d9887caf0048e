/*
 * DPDK's rte_mempool for bench/core. It has no huge pages. Each thread has a
 * cache, because enter and leave register the thread with DPDK. The pool does
 * not grow, so it is made large enough at the start.
 *
 * The pool does not know what is dirty. `mempool` therefore wipes the whole
 * buffer when it is taken. `mempool_d` is a program that remembers what it has
 * written, and wipes that before it gives the buffer back.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#define EXPORT __attribute__((visibility("default")))
#define OVERHEAD 256		/* of an object in memory, at most */

EXPORT bool mempool_start(size_t, size_t, size_t, unsigned);
EXPORT void mempool_enter(void);
EXPORT void mempool_leave(void);
EXPORT uint8_t *mempool_take(void **state);
EXPORT void mempool_give(void **state, size_t dirty);
EXPORT bool mempool_d_start(size_t, size_t, size_t, unsigned);
EXPORT void mempool_d_enter(void);
EXPORT void mempool_d_leave(void);
EXPORT uint8_t *mempool_d_take(void **state);
EXPORT void mempool_d_give(void **state, size_t dirty);

static struct rte_mempool *pool;
static size_t bytes;

/* DPDK flushes a cache when it holds 1.5 times its size. */
bool
mempool_start(size_t class, size_t buffers, size_t cached, unsigned threads)
{
	size_t n = buffers + threads * (cached + cached / 2 + 1);
	char memory[16];
	char *argv[] = { "bench", "--no-huge", "--no-pci",
	    "--no-telemetry", "--no-shconf", "--iova-mode=va", "-l", "0",
	    "--log-level=error", "-m", memory, NULL };
	cpu_set_t mine;
	int rc;

	snprintf(memory, sizeof memory, "%zu",
		 (n * (class + OVERHEAD) >> 20) + 16);
	sched_getaffinity(0, sizeof mine, &mine);
	rc = rte_eal_init((int)(sizeof argv / sizeof *argv) - 1, argv);
	/* DPDK has bound this thread to one processor, and new threads would
	 * inherit that. */
	sched_setaffinity(0, sizeof mine, &mine);
	bytes = class;
	if (rc >= 0)
		pool = rte_mempool_create("bench", (unsigned)n, (unsigned)class,
		    (unsigned)cached, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY,
		    RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	return pool != NULL;
}

void
mempool_enter(void)
{
	if (rte_thread_register() < 0)
		abort();
}

void
mempool_leave(void)
{
	rte_thread_unregister();
}

/* The pool seems empty while another thread is in the middle of a put, so this
 * tries again. */
static inline uint8_t *
take(void **state)
{
	while (rte_mempool_get(pool, state) != 0)
		sched_yield();
	return *state;
}

uint8_t *
mempool_take(void **state)
{
	return memset(take(state), 0, bytes);
}

void
mempool_give(void **state, size_t dirty)
{
	(void)dirty;
	rte_mempool_put(pool, *state);
}

/* New objects are zero, because they lie in fresh pages of the system. */
bool
mempool_d_start(size_t class, size_t buffers, size_t cached, unsigned threads)
{
	return mempool_start(class, buffers, cached, threads);
}

void
mempool_d_enter(void)
{
	mempool_enter();
}

void
mempool_d_leave(void)
{
	mempool_leave();
}

uint8_t *
mempool_d_take(void **state)
{
	return take(state);
}

void
mempool_d_give(void **state, size_t dirty)
{
	memset(*state, 0, dirty);
	rte_mempool_put(pool, *state);
}
