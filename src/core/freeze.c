#include "freeze.h"

struct bufpool_frozen *
bufpool_freeze(struct bufpool_buf *b)
{
	buf_freeze(b, "freeze");
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

static void
unref(struct bufpool_buf *b, bool by_gc)
{
	if (buf_unref(b))
		bp_release_turned(b, by_gc);
}

void
bufpool_frozen_unref(struct bufpool_frozen *f)
{
	if (f != NULL)
		unref(thaw(f), false);
}

void
bp_frozen_unref_gc(struct bufpool_frozen *f)
{
	unref(thaw(f), true);
}
