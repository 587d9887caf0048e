#include "guard.h"

struct bufpool_frozen *
bufpool_freeze(struct bufpool_buf *b)
{
	buf_freeze(b, "freeze");
	if (b->guarded)
		bp_guard_freeze(b);
	return (struct bufpool_frozen *)b;
}

const void *
bufpool_frozen_data(const struct bufpool_frozen *f)
{
	return buf_thaw(f)->at;
}

size_t
bufpool_frozen_len(const struct bufpool_frozen *f)
{
	return buf_thaw(f)->len;
}

struct bufpool_frozen *
bufpool_frozen_ref(struct bufpool_frozen *f)
{
	/* Relaxed: the caller has a reference, so the count cannot reach 0. */
	atomic_fetch_add_explicit(&buf_thaw(f)->refs, 1, memory_order_relaxed);
	return f;
}
