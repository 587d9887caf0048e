/*
 * table - process-wide arrays whose entries are reused but never unmapped.
 *
 * The whole range of addresses is reserved at the start, without write
 * permission, which costs no memory. As entries are taken, 64 KiB at a time
 * become writable. An entry's address never changes. Reading any entry is
 * always safe: one that was given up, and one that was never taken, which is
 * all zero.
 */
#ifndef BUFPOOL_TABLE_H
#define BUFPOOL_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table {
	unsigned char *base;
	size_t item;		/* bytes of an entry */
	uint32_t limit;		/* entries that fit the reservation */
	_Atomic uint32_t used;	/* entries below this were taken */
};

/*
 * Reserves room for `limit` entries, a power of two. Under a limit of the
 * address space it reserves 1/16 of that at most, and less where even that is
 * refused. False + errno when there is no room at all. Once, before any other
 * thread.
 */
bool bp_table_init(struct table *t, size_t item, uint32_t limit);

/* The number of a new entry, all zero, or -1 + ENOMEM. Any thread. */
int64_t bp_table_extend(struct table *t);

static inline void *
table_at(const struct table *t, uint32_t number)
{
	return t->base + t->item * number;
}

static inline uint32_t
table_used(const struct table *t)
{
	return atomic_load_explicit(&t->used, memory_order_acquire);
}

#endif
