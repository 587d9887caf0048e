#include <stdlib.h>

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

void
bp_box_share(struct bufpool_frozen_box *from, struct bufpool_frozen_box *to)
{
	struct bufpool_share *share = from->share;

	to->account = from->account;
	if (share == NULL)
		share = calloc(1, sizeof *share);
	if (share == NULL)
		return;	/* Not run: no memory. */
	if (from->share == NULL) {
		from->share = share;
		share->charged = from->charged;
		share->boxes = 1;
		from->charged = 0;
	}
	to->share = share;
	share->boxes++;
}

void
bp_box_unshare(struct bufpool_frozen_box *box)
{
	struct bufpool_share *share = box->share;

	box->share = NULL;
	if (--share->boxes > 0)
		return;
	box_charge(box->account, &share->charged, 0);
	free(share);
}
