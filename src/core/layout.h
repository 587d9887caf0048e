/*
 * layout - the size classes of a pool, and how many buffers of each a tier may
 * hold. Written when the pool is made, read by every floor above.
 */
#ifndef BUFPOOL_LAYOUT_H
#define BUFPOOL_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bufpool.h"

#define LAYOUT_GRAIN_LOG 12	/* class sizes are multiples of 1 << this */
#define LAYOUT_GRAIN ((size_t)1 << LAYOUT_GRAIN_LOG)
#define LAYOUT_SIZE_MAX ((size_t)1 << 40)	/* bytes of a class's buffer */
#define LAYOUT_FLOOR_MAX ((size_t)1 << 20)	/* buffers kept ready of one */

/* What one thread caches of one class: at most so many buffers, and at most so
 * many bytes unless that is less than one buffer. */
#define SHELF_MAX 60
#define SHELF_BYTES ((size_t)2 << 20)
#define BATCH_MAX ((SHELF_MAX + 1) / 2)	/* buffers that move at once */

/* Bytes of one class in one depot, and up to twice as many, because a ring has
 * a power of two of slots; RING_MAX - 1 buffers at most, and RING_MIN - 1 or
 * the class's floor at least. */
#define DEPOT_BYTES ((size_t)32 << 20)

/* Values of a buffer's class that are no index. */
#define CLASS_LARGE 254	/* above every class: a mapping of its own */
#define CLASS_NONE 255	/* no memory: a buffer that was freed from Lua */

struct layout {
	unsigned classes;
	unsigned nodes;		/* kept apart; 1 unless numa_node is local */
	size_t size[BUFPOOL_CLASSES_MAX];	/* bytes, ascending */
	size_t floor[BUFPOOL_CLASSES_MAX];	/* buffers that trim leaves */
	uint32_t shelf[BUFPOOL_CLASSES_MAX];	/* buffers that fill a shelf */
	uint32_t ring[BUFPOOL_CLASSES_MAX];	/* slots of a depot's ring */
};

/* Lays out these classes, in any order, for one node. False when a size or a
 * count is out of range, a size comes twice, or there are too many, or none. */
bool bp_layout_init(struct layout *l,
		    const struct bufpool_class_config *classes,
		    size_t count);

/* The smallest class that holds n bytes, or CLASS_LARGE. The hot path uses
 * cache_shelf instead. */
static inline unsigned
layout_class(const struct layout *l, size_t n)
{
	for (unsigned c = 0; c < l->classes; c++)
		if (n <= l->size[c])
			return c;
	return CLASS_LARGE;
}

/* The index of a class of a node in arrays of depots, of the commons and of
 * blanks. */
static inline unsigned
layout_ring(const struct layout *l, unsigned node, unsigned class)
{
	return node * l->classes + class;
}

/* How many slots that ring has. */
static inline uint32_t
layout_slots(const struct layout *l, unsigned ring)
{
	return l->ring[ring % l->classes];
}

static inline unsigned
layout_rings(const struct layout *l)
{
	return l->nodes * l->classes;
}

#endif
