#include "box.h"
#include "core/system.h"

const char *const bp_box_kinds[] = {
	[KIND_POOL - 1] = "pool", [KIND_BUFFER - 1] = "buffer",
	[KIND_FROZEN - 1] = "frozen", NULL
};

/* A host that released a buffer behind its box leaves the box in BOX_LIVE. */
const char *const bp_box_states[] = {
	[BOX_LIVE] = "released", [BOX_RELEASED] = "released",
	[BOX_FROZEN] = "frozen", [BOX_DETACHED] = "detached",
	[BOX_CLOSED] = "closed", NULL
};

_Atomic uint64_t bp_box_cookie_drawn;

/* Drawn once. Of two threads that draw at once the first to store wins. */
void
bp_box_draw_cookie(void)
{
	uint64_t none = 0;

	if (atomic_load(&bp_box_cookie_drawn) == 0)
		atomic_compare_exchange_strong(
		    &bp_box_cookie_drawn, &none,
		    (bp_system_random() | 1) << KIND_BITS);
}
