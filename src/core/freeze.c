#include "freeze.h"

struct bufpool_frozen *
bufpool_freeze(struct bufpool_buf *b)
{
	atomic_store_explicit(&b->refs, 1, memory_order_relaxed);
	buf_turn(b, BUF_OUT, BUF_FROZEN, BUF_GENERATION, "freeze");
	buf_changed(b);
	return (struct bufpool_frozen *)b;
}

/* A frozen buffer is its descriptor under a name that only reads. */
static struct bufpool_buf *
thaw(const struct bufpool_frozen *f)
{
	return (struct bufpool_buf *)(uintptr_t)f;
}

const void *
bufpool_frozen_data(const struct bufpool_frozen *f)
{
	return thaw(f)->at;
}

size_t
bufpool_frozen_len(const struct bufpool_frozen *f)
{
	return thaw(f)->len;
}

struct bufpool_frozen *
bufpool_frozen_ref(struct bufpool_frozen *f)
{
	/* Relaxed: the caller has a reference, so the count cannot reach 0. */
	atomic_fetch_add_explicit(&thaw(f)->refs, 1, memory_order_relaxed);
	return f;
}

/* Each release of the count pairs with the acquire of the last one, which so
 * comes after every reader's last look. */
static void
unref(struct bufpool_buf *b, bool by_gc)
{
	uint64_t refs = atomic_fetch_sub_explicit(&b->refs, 1,
						  memory_order_acq_rel);

	if (refs > 1)
		return;
	buf_turn(b, refs == 1 ? BUF_FROZEN : BUF_STATE, BUF_CACHED,
		 BUF_GENERATION, "unref");
	release_turned(b, by_gc);
}

void
bufpool_frozen_unref(struct bufpool_frozen *f)
{
	if (f != NULL)
		unref(thaw(f), false);
}

void
frozen_unref_gc(struct bufpool_frozen *f)
{
	unref(thaw(f), true);
}
