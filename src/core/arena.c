#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "arena.h"
#include "pages.h"
#include "wipe.h"

#define SPAN ((size_t)256 << 10)	/* bytes carved at a time */
#define HUGE ((size_t)2 << 20)		/* the same, with huge pages */
#define QUERY 512			/* pages asked about at a time */

/* Linux 5.14, and 4.14; not every C library's headers know it. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static size_t page;

/* The functions of libnuma used here; unlike its allocation calls, they do not
 * print to stderr. They are looked up at run time, so that building does not
 * need its headers. */
static struct {
	int (*available)(void);
	int (*max_node)(void);
	long long (*node_size64)(int, long long *);
	long (*mbind)(void *, unsigned long, int, const unsigned long *,
		      unsigned long, unsigned);
	long (*move_pages)(int, unsigned long, void **, const int *, int *,
			   int);
} numa;
static bool numa_works;

void
bp_arena_init(void)
{
	void *lib = dlopen("libnuma.so.1", RTLD_NOW);

	page = (size_t)sysconf(_SC_PAGESIZE);
	if (lib == NULL)
		return;	/* Not run: libnuma is installed. */
	*(void **)&numa.available = dlsym(lib, "numa_available");
	*(void **)&numa.max_node = dlsym(lib, "numa_max_node");
	*(void **)&numa.node_size64 = dlsym(lib, "numa_node_size64");
	*(void **)&numa.mbind = dlsym(lib, "mbind");
	*(void **)&numa.move_pages = dlsym(lib, "move_pages");
	numa_works = numa.available && numa.max_node && numa.node_size64 &&
	    numa.mbind && numa.move_pages && numa.available() >= 0;
}

static bool
node_available(int node)
{
	long long free_bytes;

	return node >= 0 && node < BUFPOOL_NODES_MAX &&
	    node <= numa.max_node() && numa.node_size64(node, &free_bytes) > 0;
}

unsigned
bp_arena_nodes(int numa_node)
{
	if (numa_node != BUFPOOL_NUMA_LOCAL || !numa_works)
		return 1;
	return numa.max_node() < BUFPOOL_NODES_MAX
	    ? (unsigned)numa.max_node() + 1 : BUFPOOL_NODES_MAX;
}

int
bp_arena_create(struct bufpool_arena *a)
{
	bool local = a->numa_node == BUFPOOL_NUMA_LOCAL;
	unsigned rings = layout_rings(a->layout);

	atomic_store(&a->numa_available,
		     numa_works && (local || node_available(a->numa_node)));
	a->blank = a->layout->nodes == 1 ? a->blank_alone
	    : bp_pages_map(rings * sizeof *a->blank);
	if (a->blank == NULL)
		return -1;	/* Not run: one node only. */
	atomic_store(&a->refs, 1);
	return 0;
}

bool
bp_arena_try_ref(struct bufpool_arena *a)
{
	uint64_t refs = atomic_load(&a->refs);

	while (refs > 0)
		if (atomic_compare_exchange_weak(&a->refs, &refs, refs + 1))
			return true;
	return false;
}

/* acq_rel, so that what others did with the pool comes before its end. */
void
bp_arena_drop(struct bufpool_arena *a)
{
	if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1)
		a->end(a);
}

unsigned
bp_arena_node(const struct bufpool_arena *a)
{
	unsigned cpu, node;

	if (a->layout->nodes == 1 ||
	    /* Not run: one node only. */
	    syscall(SYS_getcpu, &cpu, &node, NULL) != 0 ||
	    node >= a->layout->nodes)
		return 0;
	return node;	/* Not run: one node only. */
}

/* The node is preferred, not bound, because on a full node memory from another
 * one is better than none; the statistics tell where the pages are. ENOMEM does
 * not clear numa_available, because the next call may succeed. */
static void
prefer_node(struct bufpool_arena *a, void *base, size_t bytes,
	    unsigned own_node)
{
	unsigned long mask[BUFPOOL_NODES_MAX / (8 * sizeof(long)) + 1] = { 0 };
	size_t node = a->numa_node >= 0 ? (size_t)a->numa_node : own_node;

	if (!atomic_load_explicit(&a->numa_available, memory_order_relaxed))
		return;
	mask[node / (8 * sizeof(long))] = 1UL << node % (8 * sizeof(long));
	if (numa.mbind(base, bytes, MPOL_PREFERRED, mask,
		       8 * sizeof(mask), 0) != 0 && errno != ENOMEM)
		/* Not run: the node has memory. */
		atomic_store_explicit(&a->numa_available, 0,
				      memory_order_relaxed);
}

/* Kernels before 5.14 do not know this advice; there the pages are touched, by
 * writing the zeros that they hold. */
static void
populate_pages(void *base, size_t bytes)
{
	ASAN_UNPOISON_MEMORY_REGION(base, bytes);
	if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t i = 0; i < bytes; i += page)
		((volatile uint8_t *)base)[i] = 0;
}

static bool
try_commit(struct bufpool_arena *a, size_t bytes)
{
	size_t now = atomic_load_explicit(&a->committed, memory_order_relaxed);

	do
		if (bytes > a->max_bytes - now)
			return false;
	while (!atomic_compare_exchange_weak_explicit(
	    &a->committed, &now, now + bytes, memory_order_relaxed,
	    memory_order_relaxed));
	return true;
}

/* Bytes from the first byte of a buffer of a class to that of its neighbour:
 * its size, where pages have 4 KiB. */
static size_t
stride_of(size_t size)
{
	size_t stride = LAYOUT_GRAIN;

	if (size >= page)
		return bp_arena_whole_pages(size);
	while (stride < size)
		stride *= 2;
	return stride;
}

static void
add_blank(struct blanks *blank, struct bufpool_buf *b, bool resident)
{
	bp_buf_push(resident ? &blank->resident : &blank->bare, b);
	if (resident)
		atomic_store(&blank->changed, true);
}

/* Gives pages back. A huge page around them is told to stay split, because
 * otherwise the kernel would make one again, and so commit pages that were
 * given back. False where the system refuses. */
static bool
drop_pages(uintptr_t at, size_t bytes, bool huge)
{
	uintptr_t mask = HUGE - 1;
	uintptr_t start = at & ~mask, end = (at + bytes + mask) & ~mask;

	if (huge)
		madvise((void *)start, end - start, MADV_NOHUGEPAGE);
	return madvise((void *)at, bytes, MADV_DONTNEED) == 0;
}

/* Gives back the pages of a buffer of a class. False where the system refuses,
 * and where the buffer shares a page with another. */
static bool
drop_buffer(const struct bufpool_arena *a, const struct bufpool_buf *b)
{
	size_t size = a->layout->size[b->class];

	return size >= page && drop_pages((uintptr_t)b->base, size, b->huge);
}

/* How many buffers of a list by address begin below `end`. */
static size_t
count_below(const struct bufpool_buf *b, uintptr_t end)
{
	size_t count = 0;

	for (; b != NULL && (uintptr_t)b->base < end; b = buf_next(b))
		count++;
	return count;
}

/* Pushes these, and returns the rest of the list. */
static struct bufpool_buf *
push_below(struct stack *s, struct bufpool_buf *b, uintptr_t end)
{
	while (b != NULL && (uintptr_t)b->base < end) {
		struct bufpool_buf *next = buf_next(b);

		bp_buf_push(s, b);
		b = next;
	}
	return b;
}

/*
 * bp_arena_give_blanks for one ring of buffers that share pages. A page goes
 * back when all of its buffers are blanks, bare or resident, that this thread
 * has taken off the stacks: then no other thread can begin to use one. A search
 * that has seen all is not repeated until a blank becomes resident, because it
 * looks at each blank. `changed` is set after such a blank is pushed, and taken
 * before the stacks are, so no blank is overlooked. Two searches at once may
 * each have taken a part of a page: so one that finds, when it has pushed all
 * back, that another has begun since, leaves the search to be repeated.
 * spec/model/search.lua has these steps.
 */
static size_t
give_shared(struct bufpool_arena *a, struct blanks *blank, size_t size,
	    size_t bytes)
{
	struct bufpool_buf *bare = NULL, *b;
	uint32_t search;
	size_t done = 0;

	if (!atomic_exchange(&blank->changed, false))
		return 0;
	search = atomic_fetch_add(&blank->searches, 1) + 1;
	atomic_thread_fence(memory_order_seq_cst);
	b = bp_buf_pop_all(&blank->resident);
	if (b != NULL)
		bare = bp_buf_pop_all(&blank->bare);
	while (b != NULL) {
		uintptr_t at = (uintptr_t)b->base & ~(page - 1);
		size_t count = count_below(b, at + page);
		bool gone;

		bare = push_below(&blank->bare, bare, at);
		gone = done < bytes && page / stride_of(size) ==
		    count + count_below(bare, at + page) &&
		    drop_pages(at, page, b->huge);
		if (gone) {
			arena_uncommit(a, count * size);
			done += count * size;
		}
		bare = push_below(&blank->bare, bare, at + page);
		b = push_below(gone ? &blank->bare : &blank->resident, b,
			       at + page);
	}
	push_below(&blank->bare, bare, UINTPTR_MAX);
	atomic_thread_fence(memory_order_seq_cst);
	if (done >= bytes || atomic_load(&blank->searches) != search)
		atomic_store(&blank->changed, true);
	return done;
}

/* bp_arena_give_blanks for one ring. A blank that the system refuses goes back
 * on the stack in the end, so that with `all` each is tried once. */
static size_t
give_blanks(struct bufpool_arena *a, struct blanks *blank, size_t bytes,
	    bool all)
{
	struct stack refused = { 0 };
	struct bufpool_buf *b;
	size_t done = 0;

	while (done < bytes && (b = bp_buf_pop(&blank->resident)) != NULL) {
		size_t size = a->layout->size[b->class];

		if (drop_buffer(a, b)) {
			arena_uncommit(a, size);
			bp_buf_push(&blank->bare, b);
			done += size;
		} else {
			bp_buf_push(&refused, b);
			if (!all)
				break;
		}
	}
	while ((b = bp_buf_pop(&refused)) != NULL)
		bp_buf_push(&blank->resident, b);
	return done;
}

size_t
bp_arena_give_blanks(struct bufpool_arena *a, size_t bytes, bool all)
{
	unsigned rings = layout_rings(a->layout);
	int saved = errno;
	size_t done = 0;

	for (unsigned r = 0; r < rings && done < bytes; r++) {
		size_t size = a->layout->size[r % a->layout->classes];

		done += size < page
		    ? give_shared(a, &a->blank[r], size, bytes - done)
		    : give_blanks(a, &a->blank[r], bytes - done, all);
	}
	errno = saved;
	return done;
}

bool
bp_arena_has_waiting(const struct bufpool_arena *a)
{
	unsigned rings = layout_rings(a->layout);

	for (unsigned r = 0; r < rings; r++)
		if (!stack_is_empty(&a->blank[r].resident))
			return true;
	return !stack_is_empty(&a->unmappable);
}

/* Where max_bytes leaves no room, resident blanks are given back first. */
bool
bp_arena_commit(struct bufpool_arena *a, size_t bytes)
{
	while (!try_commit(a, bytes)) {
		size_t room = arena_room(a);
		size_t lack = bytes > room ? bytes - room : 1;

		if (bytes > a->max_bytes ||
		    bp_arena_give_blanks(a, lack, false) == 0) {
			errno = EDQUOT;
			return false;
		}
	}
	return true;
}

/* The kernel refuses where it has no memory, or no mapping left. */
bool
bp_arena_advise(struct bufpool_arena *a, void *base, size_t bytes,
		unsigned node)
{
	if ((!a->dump && madvise(base, bytes, MADV_DONTDUMP) != 0) ||
	    (a->wipe_on_fork && madvise(base, bytes, MADV_WIPEONFORK) != 0))
		return false;
	prefer_node(a, base, bytes, node);
	return true;
}

static void *
map_span(struct bufpool_arena *a, size_t bytes, size_t alignment, unsigned node)
{
	bool huge = a->huge_pages && bytes >= HUGE;
	void *base;

	if (huge && alignment < HUGE)
		alignment = HUGE;
	base = bp_pages_map_aligned(bytes, alignment > page ? alignment : 0, 0,
				    PROT_READ | PROT_WRITE);
	if (base == NULL)
		return NULL;
	if (!bp_arena_advise(a, base, bytes, node)) {
		bp_pages_unmap(base, bytes);
		errno = ENOMEM;
		return NULL;
	}
	if (huge)
		madvise(base, bytes, MADV_HUGEPAGE);
	return base;
}

/* False when the system refuses: at its limit of mappings, one that has grown
 * together with its neighbours cannot be cut out. */
static bool
unmap_span(void *base, size_t bytes)
{
	/* Others will get these addresses. */
	ASAN_UNPOISON_MEMORY_REGION(base, bytes);
	return munmap(base, bytes) == 0;
}

/* From here on the descriptor describes memory of this arena. */
static void
arena_own(struct bufpool_arena *a, struct bufpool_buf *b)
{
	b->arena = a;
	b->label = a->label;
	b->place = (uint16_t)a->place;
}

/* Bytes of a span to carve buffers of this size from. With huge pages it takes
 * that number of them, up to eight, which leaves the smallest part unused. */
static size_t
span_bytes(size_t size, bool huge)
{
	size_t least = (size + HUGE - 1) / HUGE * HUGE, best = least;

	if (!huge)
		return size < SPAN ? SPAN / size * size : size;
	for (size_t bytes = least; bytes <= 8 * HUGE; bytes += HUGE)
		if (bytes % size * best < best % size * bytes)
			best = bytes;
	return best;
}

size_t
bp_arena_span(const struct bufpool_arena *a, unsigned class)
{
	return span_bytes(stride_of(a->layout->size[class]), false);
}

bool
bp_arena_has_addresses(size_t bytes)
{
	void *base = bp_pages_map(bytes);

	if (base != NULL)
		bp_pages_unmap(base, bytes);
	return base != NULL;
}

/* Carves a span. The first buffer, whose descriptor records the span's size, is
 * the caller's; the others become blanks. NULL when there is no descriptor for
 * the first. */
static struct bufpool_buf *
carve_span(struct bufpool_arena *a, unsigned class, unsigned node,
	   uint8_t *base, size_t span, bool huge)
{
	size_t size = a->layout->size[class], stride = stride_of(size);
	struct blanks *blank = &a->blank[layout_ring(a->layout, node, class)];
	struct bufpool_buf *first = NULL;

	for (size_t done = 0; done + stride <= span; done += stride) {
		struct bufpool_buf *b = bp_buf_create();

		if (b == NULL)	/* the rest of the span stays unused */
			break;
		arena_own(a, b);
		b->at = b->base = base + done;
		b->capacity = size;
		b->class = (uint8_t)class;
		b->node = (uint8_t)node;
		b->huge = huge;
		if (done == 0) {
			b->span = span;
			first = b;
		} else
			add_blank(blank, b, huge);
	}
	return first;
}

/*
 * Maps a span and carves it; the caller has committed one buffer of it. A span
 * of huge pages is committed as a whole, because touching one byte of a huge
 * page gives memory to all of it. Where max_bytes leaves no room for that, or
 * the mapping fails, an ordinary span is used.
 */
static struct bufpool_buf *
new_span(struct bufpool_arena *a, unsigned class, unsigned node)
{
	size_t size = a->layout->size[class];

	for (int huge = a->huge_pages; huge >= 0; huge--) {
		size_t span = span_bytes(stride_of(size), huge);
		size_t more = huge ? span - size : 0;
		struct bufpool_buf *first = NULL;
		uint8_t *base;

		if (!try_commit(a, more))
			continue;
		base = map_span(a, span, 0, node);
		if (base != NULL)
			first = carve_span(a, class, node, base, span, huge);
		if (first != NULL)
			return first;
		if (base != NULL)
			bp_pages_unmap(base, span);
		arena_uncommit(a, more);
	}
	return NULL;
}

/* A blank, which is committed from here on; NULL + EDQUOT or ENOMEM. */
static struct bufpool_buf *
take_blank(struct bufpool_arena *a, unsigned class, unsigned node)
{
	struct blanks *blank = &a->blank[layout_ring(a->layout, node, class)];
	size_t size = a->layout->size[class];
	struct bufpool_buf *b = bp_buf_pop(&blank->resident);

	if (b != NULL)		/* it has been committed all the time */
		return b;
	if (!bp_arena_commit(a, size))
		return NULL;
	b = bp_buf_pop(&blank->bare);
	if (b == NULL)
		b = new_span(a, class, node);
	if (b == NULL) {
		arena_uncommit(a, size);
		errno = ENOMEM;
	}
	return b;
}

struct bufpool_buf *
bp_arena_take(struct bufpool_arena *a, unsigned class, unsigned node)
{
	struct bufpool_buf *b = take_blank(a, class, node);

	if (b == NULL)
		return NULL;
	/* Counted before the buffer is CACHED, so that a child forked here
	 * counts it as lost, and does not find one buffer too many. */
	atomic_fetch_add_explicit(&a->existing[class], 1, memory_order_relaxed);
	arena_ref(a);
	buf_set_state(b, BUF_CACHED);
	if (a->prefault)
		populate_pages(b->base, b->capacity);
	hook("arena: taken");
	return b;
}

size_t
bp_arena_whole_pages(size_t n)
{
	return n == 0 ? page : (n + page - 1) & ~(page - 1);
}

/* False where the system refuses. */
static bool
move_span(struct bufpool_buf *b, size_t bytes)
{
	size_t head = (size_t)(b->at - b->base);
	void *base;

	/* Another thread may get the old addresses at once. */
	ASAN_UNPOISON_MEMORY_REGION(b->base, b->span);
	/* TSan does not know that the kernel reuses freed addresses. */
	tsan_give(&page);
	base = mremap(b->base, b->span, bytes, MREMAP_MAYMOVE);
	tsan_take(&page);
	if (base == MAP_FAILED)
		return false;
	b->base = base;
	b->at = b->base + head;
	b->span = bytes;
	return true;
}

bool
bp_arena_extend(struct bufpool_buf *b, size_t n, size_t range)
{
	struct bufpool_arena *a = b->arena;
	size_t bytes = bp_arena_whole_pages(n), before = arena_bytes(b);
	size_t more = bytes > before ? bytes - before : 0;

	if (!bp_arena_commit(a, more))
		return false;
	if (bytes > b->span &&
	    !(arena_limited(a) && !a->huge_pages &&
	      move_span(b, bp_arena_whole_pages(range))) &&
	    !move_span(b, bytes)) {
		arena_uncommit(a, more);
		errno = ENOMEM;
		return false;
	}
	ASAN_UNPOISON_MEMORY_REGION(b->base, bytes);
	b->capacity = bytes - (size_t)(b->at - b->base);
	if (a->prefault && more > 0)
		populate_pages(b->base + before, more);
	return true;
}

void
bp_arena_shrink(struct bufpool_buf *b, size_t n)
{
	size_t bytes = bp_arena_whole_pages(n), before = arena_bytes(b);
	size_t head = (size_t)(b->at - b->base);
	int saved = errno;

	if (bytes < b->span && unmap_span(b->base + bytes, b->span - bytes)) {
		b->span = bytes;
		if (b->capacity > bytes - head)
			b->capacity = bytes - head;
		if (before > bytes)
			arena_uncommit(b->arena, before - bytes);
	}
	errno = saved;
}

/* In a limited arena maps `range` bytes of addresses, if the system allows;
 * otherwise n. */
static bool
map_large(struct bufpool_arena *a, struct bufpool_buf *b, size_t n,
	  size_t range, size_t alignment)
{
	unsigned node = bp_arena_node(a);

	/* Not with huge pages: one could have memory past what is committed. */
	b->span = bp_arena_whole_pages(
		arena_limited(a) && !a->huge_pages ? range : n);
	b->base = map_span(a, b->span, alignment, node);
	if (b->base == NULL) {
		b->span = bp_arena_whole_pages(n);
		b->base = map_span(a, b->span, alignment, node);
	}
	b->node = (uint8_t)node;
	return b->base != NULL;
}

void
bp_arena_adopt(struct bufpool_arena *a, struct bufpool_buf *b)
{
	arena_own(a, b);
	b->class = CLASS_LARGE;
	arena_ref(a);
	buf_set_state(b, BUF_CACHED);
}

struct bufpool_buf *
bp_arena_take_large(struct bufpool_arena *a, size_t n, size_t range,
		    size_t alignment)
{
	size_t bytes = bp_arena_whole_pages(n);
	struct bufpool_buf *b = NULL;

	if (alignment > PTRDIFF_MAX - range) {
		errno = ENOMEM;
		return NULL;
	}
	if (!bp_arena_commit(a, bytes))
		return NULL;
	b = bp_buf_create();
	if (b == NULL || !map_large(a, b, n, range, alignment))
		goto fail;
	if (a->prefault)
		populate_pages(b->base, bytes);
	b->at = b->base;
	b->capacity = bytes;
	bp_arena_adopt(a, b);
	return b;
fail:
	if (b != NULL)
		bp_buf_destroy(b);
	arena_uncommit(a, bytes);
	errno = ENOMEM;
	return NULL;
}

struct bufpool_buf *
bp_arena_take_bare(struct bufpool_arena *a)
{
	struct bufpool_buf *b = bp_buf_create();

	if (b != NULL) {
		arena_own(a, b);
		arena_ref(a);
		buf_set_state(b, BUF_OUT);
	}
	return b;
}

/*
 * When the system refuses to unmap, it is asked to drop the pages; when they
 * are locked it refuses that, too, and then they are wiped. In both cases the
 * memory stays committed until bp_arena_retry can unmap it.
 */
static size_t
give_large(struct bufpool_arena *a, struct bufpool_buf *b)
{
	size_t bytes = arena_bytes(b);

	if (unmap_span(b->base, b->span)) {
		arena_uncommit(a, bytes);
		bp_buf_destroy(b);
		return bytes;
	}
	if (madvise(b->base, b->span, MADV_DONTNEED) != 0)
		wipe(b->base, bytes);
	buf_set_state(b, BUF_BLANK);
	bp_buf_push(&a->unmappable, b);
	return 0;
}

size_t
bp_arena_retry(struct bufpool_arena *a, size_t most)
{
	size_t bytes = 0;
	struct stack pending = { 0 };
	struct bufpool_buf *b;

	while ((b = bp_buf_pop(&a->unmappable)) != NULL)
		bp_buf_push(&pending, b);
	while ((b = bp_buf_pop(&pending)) != NULL)
		if (bytes < most)
			bytes += give_large(a, b);
		else
			bp_buf_push(&a->unmappable, b);
	return bytes;
}

/*
 * The buffer keeps its addresses and loses its pages. When the system refuses
 * to take them, because they are locked, they are wiped and stay committed
 * until the buffer is taken again. The same goes for a buffer that shares a
 * page with others, where pages are larger than 4 KiB.
 */
static size_t
give_class(struct bufpool_arena *a, struct bufpool_buf *b)
{
	unsigned class = b->class;
	struct blanks *blank = &a->blank[layout_ring(a->layout, b->node,
						     class)];
	size_t size = a->layout->size[class];
	bool resident = !drop_buffer(a, b);

	if (resident) {
		ASAN_UNPOISON_MEMORY_REGION(b->base, size);
		buf_clean(b);
		size = 0;
	} else
		buf_forget(b);
	ASAN_POISON_MEMORY_REGION(b->base, b->capacity);
	hook("arena: giving back");
	buf_set_state(b, BUF_BLANK);
	atomic_fetch_sub_explicit(&a->existing[class], 1, memory_order_relaxed);
	arena_uncommit(a, size);
	add_blank(blank, b, resident);
	return size;
}

/* The reference is dropped last, because after that the pool may be gone. */
size_t
bp_arena_give(struct bufpool_buf *b)
{
	struct bufpool_arena *a = b->arena;
	int saved = errno;
	size_t bytes;

	if (b->class == CLASS_NONE) {
		bp_buf_destroy(b);
		bytes = 0;
	} else if (b->class == CLASS_LARGE) {
		bytes = give_large(a, b);
	} else {
		bytes = give_class(a, b);
	}
	errno = saved;
	bp_arena_drop(a);
	return bytes;
}

/* Destroys the blanks of a stack, up to *work, and unmaps the spans whose first
 * buffers are among them. False when *work ran out. */
static bool
destroy_some(struct stack *s, unsigned *work)
{
	struct bufpool_buf *b;

	for (; *work > 0; --*work) {
		b = bp_buf_pop(s);
		if (b == NULL)
			return true;
		hook("arena: destroying");
		if (b->span != 0)
			bp_pages_unmap(b->base, b->span);
		bp_buf_destroy(b);
	}
	return false;
}

bool
bp_arena_destroy(struct bufpool_arena *a, unsigned *work)
{
	unsigned rings = layout_rings(a->layout);

	for (unsigned r = 0; r < rings; r++)
		if (!destroy_some(&a->blank[r].bare, work) ||
		    !destroy_some(&a->blank[r].resident, work))
			return false;
	if (!destroy_some(&a->unmappable, work))
		return false;	/* Not run: they are few. */
	if (a->blank != a->blank_alone)
		/* Not run: one node only. */
		bp_pages_unmap(a->blank, rings * sizeof *a->blank);
	return true;
}

static void
count_pages(uint8_t *base, size_t bytes, uint64_t pages[BUFPOOL_NODES_MAX])
{
	void *at[QUERY];
	int node[QUERY];

	for (size_t done = 0; done < bytes;) {
		unsigned long n = 0;

		for (; n < QUERY && done < bytes; n++, done += page)
			at[n] = base + done;
		if (numa.move_pages(0, n, at, NULL, node, 0) != 0)
			return;	/* Not run: the kernel knows nodes. */
		for (unsigned long i = 0; i < n; i++)
			if (node[i] >= 0 && node[i] < BUFPOOL_NODES_MAX)
				pages[node[i]]++;
	}
}

uint8_t *
bp_arena_first_page(const struct bufpool_buf *b)
{
	return (uint8_t *)((uintptr_t)b->base & ~(page - 1));
}

/* Adds to *sum. A mapping that another thread has just given back is left
 * out: then its addresses are nobody's. */
static bool
add_resident(uint8_t *base, size_t bytes, size_t *sum)
{
	unsigned char resident[QUERY];

	for (size_t done = 0; done < bytes; done += QUERY * page) {
		size_t left = bytes - done, n = left < QUERY * page
		    ? left : QUERY * page;

		if (mincore(base + done, n, resident) != 0)
			return errno == ENOMEM;
		for (size_t i = 0; i < (n + page - 1) / page; i++)
			*sum += (resident[i] & 1) != 0 ? page : 0;
	}
	return true;
}

/*
 * Looks at every descriptor of the process, also at those that other threads
 * are just changing. That may give a wrong count but never a fault, because
 * only the kernel looks at the addresses.
 */
ssize_t
bp_arena_resident(const struct bufpool_arena *a)
{
	uint32_t used = bp_buf_table_used();
	size_t sum = 0;

	for (uint32_t i = 0; i < used; i++) {
		struct bufpool_buf *b = bp_buf_at(i);

		if (b->arena == a && b->span != 0 &&
		    !add_resident(bp_arena_first_page(b), b->span, &sum))
			return -1;
	}
	return (ssize_t)sum;
}

/* As above. */
unsigned
bp_arena_pages_by_node(const struct bufpool_arena *a,
		       uint64_t pages[BUFPOOL_NODES_MAX])
{
	uint32_t used = bp_buf_table_used();

	memset(pages, 0, BUFPOOL_NODES_MAX * sizeof *pages);
	if (!numa_works)
		return 0;	/* Not run: libnuma is installed. */
	for (uint32_t i = 0; i < used; i++) {
		struct bufpool_buf *b = bp_buf_at(i);

		if (b->arena == a && b->span != 0)
			count_pages(bp_arena_first_page(b), b->span, pages);
	}
	return numa.max_node() < BUFPOOL_NODES_MAX
	    ? (unsigned)numa.max_node() + 1 : BUFPOOL_NODES_MAX;
}
