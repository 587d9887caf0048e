#include <string.h>

#include "layout.h"

#define RING_MIN 16	/* slots; one more than buffers */
#define RING_MAX 4096

static uint32_t
power_of_two(size_t n)
{
	uint32_t power = RING_MIN;

	while (power < n)
		power *= 2;
	return power;
}

/* Moves larger classes up and returns the index that is free then, or -1 when
 * the size is there already. */
static int
insert_class(struct layout *l, size_t size)
{
	unsigned at = l->classes;

	for (; at > 0 && l->size[at - 1] >= size; at--) {
		if (l->size[at - 1] == size)
			return -1;
		l->size[at] = l->size[at - 1];
		l->floor[at] = l->floor[at - 1];
	}
	l->classes++;
	return (int)at;
}

/* bp_depot_room lets a ring of n slots hold n - 1 buffers, so the ring is one
 * larger than the floor, which has to fit. */
static void
set_limits(struct layout *l, unsigned class)
{
	size_t shelf = SHELF_BYTES / l->size[class];
	size_t ring = DEPOT_BYTES / l->size[class];

	l->shelf[class] = shelf == 0 ? 1 : shelf < SHELF_MAX
	    ? (uint32_t)shelf : SHELF_MAX;
	if (ring > RING_MAX)
		ring = RING_MAX;
	l->ring[class] = power_of_two(ring > l->floor[class]
				      ? ring : l->floor[class] + 1);
}

bool
bp_layout_init(struct layout *l, const struct bufpool_class_config *classes,
	       size_t count)
{
	memset(l, 0, sizeof *l);
	l->nodes = 1;
	if (count == 0 || count > BUFPOOL_CLASSES_MAX || classes == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		int at;

		if (classes[i].size == 0 || classes[i].size > LAYOUT_SIZE_MAX ||
		    classes[i].size % LAYOUT_GRAIN != 0 ||
		    classes[i].count > LAYOUT_FLOOR_MAX)
			return false;
		at = insert_class(l, classes[i].size);
		if (at < 0)
			return false;
		l->size[at] = classes[i].size;
		l->floor[at] = classes[i].count;
	}
	for (unsigned c = 0; c < l->classes; c++)
		set_limits(l, c);
	return true;
}
