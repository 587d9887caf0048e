#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "arena.h"
#include "hook.h"
#include "pool.h"
#include "sanitize.h"
#include "table.h"

#define SPAN ((size_t)256 << 10)	/* bytes carved at a time */
#define HUGE ((size_t)2 << 20)		/* the same, with huge pages */
#define QUERY 512			/* pages asked about at a time */

static size_t page;

/* What is used of libnuma. Its allocation calls print to stderr; these do not.
 * Found at run time, so its headers are not needed to build. */
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
arena_init(void)
{
	void *lib = dlopen("libnuma.so.1", RTLD_NOW);

	page = (size_t)sysconf(_SC_PAGESIZE);
	if (lib == NULL)
		return;
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

int
arena_create(struct bufpool *p)
{
	bool local = p->numa_node == BUFPOOL_NUMA_LOCAL;

	atomic_store(&p->numa_available,
		     numa_works && (local || node_available(p->numa_node)));
	p->nodes = 1;
	p->blank = p->blank_alone;
	if (!local || !numa_works || numa.max_node() == 0)
		return 0;
	p->nodes = numa.max_node() < BUFPOOL_NODES_MAX
	    ? (unsigned)numa.max_node() + 1 : BUFPOOL_NODES_MAX;
	p->blank = pages_map(p->nodes * p->classes * sizeof *p->blank);
	if (p->blank != NULL)
		return 0;
	errno = ENOMEM;
	return -1;
}

unsigned
arena_node(const struct bufpool *p)
{
	unsigned cpu, node;

	if (p->nodes == 1 || getcpu(&cpu, &node) != 0 || node >= p->nodes)
		return 0;
	return node;
}

/* Preferred, not bound: on a full node memory from elsewhere beats none, and
 * the statistics tell where it is. */
static void
place(struct bufpool *p, void *base, size_t bytes, unsigned own_node)
{
	unsigned long mask[BUFPOOL_NODES_MAX / (8 * sizeof(long)) + 1] = { 0 };
	size_t node = p->numa_node >= 0 ? (size_t)p->numa_node : own_node;

	if (!atomic_load_explicit(&p->numa_available, memory_order_relaxed))
		return;
	mask[node / (8 * sizeof(long))] = 1UL << node % (8 * sizeof(long));
	if (numa.mbind(base, bytes, MPOL_PREFERRED, mask,
		       8 * sizeof(mask), 0) != 0)
		atomic_store_explicit(&p->numa_available, 0,
				      memory_order_relaxed);
}

/* Kernels before 5.14 know no such advice: then the pages are touched. They
 * are zero and stay so. */
static void
populate(void *base, size_t bytes)
{
	if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t i = 0; i < bytes; i += page)
		((volatile uint8_t *)base)[i] = 0;
}

static bool
commit(struct bufpool *p, size_t bytes)
{
	size_t now = atomic_load_explicit(&p->committed, memory_order_relaxed);

	do {
		if (bytes > p->max_bytes - now) {
			errno = EDQUOT;
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(
	    &p->committed, &now, now + bytes, memory_order_relaxed,
	    memory_order_relaxed));
	return true;
}

static void
uncommit(struct bufpool *p, size_t bytes)
{
	atomic_fetch_sub_explicit(&p->committed, bytes, memory_order_relaxed);
}

/* A mapping of `bytes` at a multiple of `alignment`: maps more, then cuts. */
static void *
map_aligned(size_t bytes, size_t alignment)
{
	size_t more = alignment > page ? alignment - page : 0;
	uint8_t *base = pages_map(bytes + more), *start;

	if (base == NULL || more == 0)
		return base;
	start = (uint8_t *)(((uintptr_t)base + alignment - 1) &
			    ~(uintptr_t)(alignment - 1));
	if (start > base)
		munmap(base, (size_t)(start - base));
	if (start < base + more)
		munmap(start + bytes, (size_t)(base + more - start));
	return start;
}

static void *
map(struct bufpool *p, size_t bytes, size_t alignment, unsigned node)
{
	bool huge = p->huge_pages && bytes >= HUGE;
	void *base = map_aligned(bytes, huge && alignment < HUGE
				 ? HUGE : alignment);

	if (base == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	place(p, base, bytes, node);
	if (huge)
		madvise(base, bytes, MADV_HUGEPAGE);
	return base;
}

static void
unmap(void *base, size_t bytes)
{
	/* Others will get these addresses. */
	ASAN_UNPOISON_MEMORY_REGION(base, bytes);
	munmap(base, bytes);
}

/* Maps a span and carves it. The first buffer, whose descriptor knows the
 * span, is the caller's, the others become blanks. */
static struct bufpool_buf *
carve(struct bufpool *p, unsigned class, unsigned node)
{
	size_t size = p->class_size[class];
	size_t span = p->huge_pages ? HUGE : SPAN;
	size_t count = size < span ? span / size : 1;
	uint8_t *base = map(p, count * size, 0, node);
	struct bufpool_buf *first = NULL;

	if (base == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		struct bufpool_buf *b = buf_create(p);

		if (b == NULL)	/* the rest of the span stays unused */
			break;
		b->at = b->base = base + i * size;
		b->capacity = size;
		b->class = (uint8_t)class;
		b->node = (uint8_t)node;
		if (i == 0) {
			b->span = count * size;
			first = b;
		} else {
			buf_push(&p->blank[pool_ring(p, node, class)], b);
		}
	}
	if (first == NULL)
		unmap(base, count * size);
	return first;
}

struct bufpool_buf *
arena_take(struct bufpool *p, unsigned class, unsigned node)
{
	struct bufpool_buf *b;

	if (!commit(p, p->class_size[class]))
		return NULL;
	b = buf_pop(&p->blank[pool_ring(p, node, class)]);
	if (b == NULL)
		b = carve(p, class, node);
	if (b == NULL) {
		uncommit(p, p->class_size[class]);
		errno = ENOMEM;
		return NULL;
	}
	/* Counted before anyone can have it, so that a child forked here finds
	 * it missing rather than one too many. */
	atomic_fetch_add_explicit(&p->existing[class], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->alive, 1, memory_order_relaxed);
	buf_set_state(b, BUF_CACHED);
	if (p->prefault)
		populate(b->base, b->capacity);
	hook("arena: taken");
	return b;
}

struct bufpool_buf *
arena_take_exact(struct bufpool *p, size_t n, size_t alignment)
{
	size_t bytes = n == 0 ? page : (n + page - 1) & ~(page - 1);
	struct bufpool_buf *b;

	if (alignment > PTRDIFF_MAX - bytes) {
		errno = ENOMEM;
		return NULL;
	}
	if (!commit(p, bytes))
		return NULL;
	b = buf_create(p);
	if (b == NULL)
		goto fail;
	b->base = map(p, bytes, alignment, arena_node(p));
	if (b->base == NULL)
		goto fail;
	if (p->prefault)
		populate(b->base, bytes);
	b->at = b->base;
	b->capacity = n;
	b->span = bytes;
	b->class = CLASS_EXACT;
	atomic_fetch_add_explicit(&p->alive, 1, memory_order_relaxed);
	buf_set_state(b, BUF_CACHED);
	return b;
fail:
	if (b != NULL)
		buf_destroy(b);
	uncommit(p, bytes);
	errno = ENOMEM;
	return NULL;
}

/*
 * The memory of a class keeps its address and loses its pages; should the
 * system refuse that (locked memory), it is still all zero. The pool is let go
 * last: after that it may be gone.
 */
void
arena_give(struct bufpool_buf *b)
{
	struct bufpool *p = b->pool;

	if (b->class == CLASS_EXACT) {
		unmap(b->base, b->span);
		uncommit(p, b->span);
		buf_destroy(b);
	} else {
		size_t size = p->class_size[b->class];

		madvise(b->base, size, MADV_DONTNEED);
		hook("arena: giving back");
		buf_set_state(b, BUF_BLANK);
		atomic_fetch_sub_explicit(&p->existing[b->class], 1,
					  memory_order_relaxed);
		uncommit(p, size);
		buf_push(&p->blank[pool_ring(p, b->node, b->class)], b);
	}
	pool_drop(p);
}

void
arena_destroy(struct bufpool *p)
{
	struct bufpool_buf *b;

	for (unsigned r = 0; p->blank != NULL && r < p->nodes * p->classes; r++)
		while ((b = buf_pop(&p->blank[r])) != NULL) {
			if (b->span != 0)
				unmap(b->base, b->span);
			buf_destroy(b);
		}
	if (p->blank != NULL && p->blank != p->blank_alone)
		munmap(p->blank, p->nodes * p->classes * sizeof *p->blank);
	p->blank = NULL;
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
			return;
		for (unsigned long i = 0; i < n; i++)
			if (node[i] >= 0 && node[i] < BUFPOOL_NODES_MAX)
				pages[node[i]]++;
	}
}

/*
 * Looks at every descriptor of the process, also those that others are just
 * changing: that gives a wrong count, but never a fault, for it is the kernel
 * that looks at the addresses.
 */
unsigned
arena_pages_by_node(const struct bufpool *p, uint64_t pages[BUFPOOL_NODES_MAX])
{
	uint32_t used = buf_table_used();

	memset(pages, 0, BUFPOOL_NODES_MAX * sizeof *pages);
	if (!numa_works)
		return 0;
	for (uint32_t i = 0; i < used; i++) {
		struct bufpool_buf *b = buf_at(i);

		if (b->pool == p && b->span != 0)
			count_pages(b->base, b->span, pages);
	}
	return numa.max_node() < BUFPOOL_NODES_MAX
	    ? (unsigned)numa.max_node() + 1 : BUFPOOL_NODES_MAX;
}
