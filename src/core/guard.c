#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guard.h"
#include "pages.h"
#include "wipe.h"

/* Of the addresses that a limit leaves to the process, a pool keeps one part in
 * so many at most, because the program needs them, too. */
#define KEPT_PART 16
#define KEPT_MOST ((size_t)1 << 36)

/* Linux 4.4; not every C library's headers know it. */
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

int
bp_guard_create(struct guards *g)
{
	struct rlimit limit;

	g->kept_most = KEPT_MOST;
	if (getrlimit(RLIMIT_AS, &limit) == 0 &&
	    limit.rlim_cur / KEPT_PART < KEPT_MOST)
		g->kept_most = limit.rlim_cur / KEPT_PART;
	g->kept = bp_pages_map(GUARDS_KEPT * sizeof *g->kept);
	return g->kept != NULL ? 0 : -1;
}

static size_t
page_bytes(void)
{
	return bp_arena_whole_pages(0);
}

/* Bytes of addresses that a buffer takes, with its guards. */
static size_t
bytes_guarded(const struct bufpool_buf *b)
{
	return b->span + 2 * page_bytes();
}

/* False when the system refuses. */
static bool
unmap_guarded(const struct bufpool_buf *b)
{
	ASAN_UNPOISON_MEMORY_REGION(bp_arena_first_page(b), b->span);
	return munmap(bp_arena_first_page(b) - page_bytes(),
		      bytes_guarded(b)) == 0;
}

/* Puts a buffer that came home into the ring, or NULL, and ends what was there
 * before: only the thread that takes it out has it. The exchange is a release
 * for what this thread has written to its descriptor, and an acquire of what
 * another has written to the one that it takes out. */
static void
keep(struct guards *g, struct bufpool_buf *b)
{
	uint32_t at = atomic_fetch_add_explicit(&g->next, 1,
						memory_order_relaxed);
	struct bufpool_buf *old = atomic_exchange_explicit(
		&g->kept[at % GUARDS_KEPT], b, memory_order_acq_rel);

	/* Where the system refuses, the addresses are lost; nothing is in
	 * them. */
	if (old != NULL) {
		atomic_fetch_sub_explicit(&g->kept_bytes, bytes_guarded(old),
					  memory_order_relaxed);
		unmap_guarded(old);
		bp_buf_destroy(old);
	}
}

/* Ends the oldest until no more than `most` bytes of addresses are kept. */
static void
limit_ring(struct guards *g, size_t most)
{
	for (int i = 0; i < GUARDS_KEPT && atomic_load_explicit(
		&g->kept_bytes, memory_order_relaxed) > most; i++)
		keep(g, NULL);
}

void
bp_guard_destroy(struct guards *g)
{
	if (g->kept == NULL)
		return;
	limit_ring(g, 0);
	bp_pages_unmap((void *)g->kept, GUARDS_KEPT * sizeof *g->kept);
	g->kept = NULL;
}

/* Pages when they are touched, or else all at once, where the system does not
 * know that. It is asked once, because valgrind tells each time. */
static int
lock_pages(void *at, size_t bytes)
{
	static _Atomic bool unknown;

#ifdef SYS_mlock2
	if (!atomic_load_explicit(&unknown, memory_order_relaxed)) {
		if (syscall(SYS_mlock2, at, bytes, MLOCK_ONFAULT) == 0)
			return 0;
		if (errno != ENOSYS)
			return -1;
		atomic_store_explicit(&unknown, true, memory_order_relaxed);
	}
#endif
	return mlock(at, bytes);
}

/* Makes pages of addresses, with what the pool asks for. False when the system
 * refuses anything but to lock them. */
static bool
open_pages(struct guards *g, uint8_t *at, size_t bytes, unsigned node)
{
	if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0 ||
	    !bp_arena_advise(g->arena, at, bytes, node) ||
	    (g->lock && madvise(at, bytes, MADV_DONTDUMP) != 0))
		return false;
	if (g->lock && lock_pages(at, bytes) != 0)
		atomic_fetch_add_explicit(&g->unlocked, 1,
					  memory_order_relaxed);
	return true;
}

static bool
map_guarded(struct guards *g, struct bufpool_buf *b, size_t n, unsigned align)
{
	size_t page = page_bytes(), alignment = (size_t)1 << align;
	size_t bytes = bp_arena_whole_pages(n);
	uint8_t *at = bp_pages_map_aligned(bytes, alignment > page ? alignment
					   : 0, page, PROT_NONE);

	b->node = (uint8_t)bp_arena_node(g->arena);
	if (at == NULL)
		return false;
	if (!open_pages(g, at, bytes, b->node)) {
		munmap(at - page, bytes + 2 * page);
		return false;
	}
	b->span = bytes;
	b->capacity = n;
	b->base = b->at = (uint8_t *)((uintptr_t)(at + bytes - n) &
				      ~(uintptr_t)(alignment - 1));
	return true;
}

/* A buffer without a byte would lie in the upper guard, where nobody could tell
 * it from the one behind. */
struct bufpool_buf *
bp_guard_take(struct guards *g, size_t n, unsigned align)
{
	size_t bytes = bp_arena_whole_pages(n);
	struct bufpool_buf *b;

	if (n == 0)
		n = 1;
	if (align < g->align)
		align = g->align;
	if (((size_t)1 << align) > PTRDIFF_MAX - bytes) {
		errno = ENOMEM;
		return NULL;
	}
	if (!bp_arena_commit(g->arena, bytes))
		return NULL;
	b = bp_buf_create();
	if (b != NULL && !map_guarded(g, b, n, align)) {
		limit_ring(g, 0);
		if (!map_guarded(g, b, n, align)) {
			bp_buf_destroy(b);
			b = NULL;
		}
	}
	if (b == NULL) {
		arena_uncommit(g->arena, bytes);
		errno = ENOMEM;
		return NULL;
	}
	b->guarded = 1;
	bp_arena_adopt(g->arena, b);
	return b;
}

/* Takes pages and access away, and leaves the addresses. A mapping over them
 * does both at once, so no store comes in between. */
static bool
close_pages(const struct bufpool_buf *b)
{
	ASAN_UNPOISON_MEMORY_REGION(bp_arena_first_page(b), b->span);
	return mmap(bp_arena_first_page(b), b->span, PROT_NONE, MAP_PRIVATE |
		    MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static void
look_at_slack(const struct bufpool_buf *b)
{
	const uint8_t *end = bp_arena_first_page(b) + b->span;
	size_t bytes = 0;
	char phase[96];

	for (const uint8_t *p = b->base + buf_size(b); p < end; p++)
		if (*p != 0)
			bytes = (size_t)(p - b->base) + 1 - buf_size(b);
	if (bytes == 0)
		return;
	snprintf(phase, sizeof phase, "release, after a write of %zu bytes "
		 "past the end", bytes);
	bp_buf_corrupt(b, phase);
}

void
bp_guard_give(struct guards *g, struct bufpool_buf *b)
{
	struct bufpool_arena *a = b->arena;
	size_t bytes = b->span;
	int saved = errno;
	bool closed;

	look_at_slack(b);
	buf_forget(b);
	closed = close_pages(b);
	arena_uncommit(a, bytes);
	buf_set_state(b, BUF_BLANK);
	if (closed) {
		atomic_fetch_add_explicit(&g->kept_bytes, bytes_guarded(b),
					  memory_order_relaxed);
		keep(g, b);
		limit_ring(g, g->kept_most);
	} else {
		/* Where the system refuses this, too, what was written must
		 * not stay. */
		if (!unmap_guarded(b) && mprotect(bp_arena_first_page(b), bytes,
						  PROT_READ | PROT_WRITE) == 0)
			/* Not run: it takes the last mapping. */
			wipe(bp_arena_first_page(b), bytes);
		bp_buf_destroy(b);
	}
	errno = saved;
	bp_arena_drop(a);
}

void
bp_guard_freeze(const struct bufpool_buf *b)
{
	int saved = errno;

	mprotect(bp_arena_first_page(b), b->span, PROT_READ);
	errno = saved;
}

const struct bufpool_buf *
bp_guard_find(const void *address)
{
	uint32_t used = bp_buf_table_used();
	size_t page = page_bytes();

	for (uint32_t i = 0; i < used; i++) {
		const struct bufpool_buf *b = bp_buf_at(i);
		uintptr_t first = (uintptr_t)bp_arena_first_page(b) - page;

		if (b->guarded && b->arena != NULL &&
		    (uintptr_t)address - first < bytes_guarded(b))
			return b;
	}
	return NULL;
}
