/*
 * numa_node = "local": each thread has buffers of its own node, and a buffer
 * that another node's thread releases goes home. Where a page is, the kernel is
 * asked, page by page. spec/12 runs this on machines with two and four nodes;
 * where there is one, only what needs no other is tried.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/buf.h"
#include "bufpool.h"
#include "core/pool.h"
#include "support/needs.h"

#define PAGE ((size_t)4096)
#define MANY 100

#define SAME(a, b)                                                          \
	CHECK((a) == (b), "%lld, not %lld", (long long)(a), (long long)(b))

static const size_t sizes[] = { 4096, 65536, 262144, 1048576 };
#define CLASSES (sizeof sizes / sizeof *sizes)
#define EXACT 3000000

static int cpu_of[BUFPOOL_NODES_MAX];	/* -1: the node has none */
static unsigned nodes;			/* the highest one with a CPU, plus 1 */
static struct bufpool *pool;

/* Every node that has a CPU; every two of them. */
#define EACH(node)                                      \
	for (unsigned node = 0; node < nodes; node++)   \
		if (cpu_of[node] >= 0)
#define EACH_PAIR(a, b) \
	EACH(a)         \
	EACH(b)         \
	if (a != b)

static void
pin(unsigned node)
{
	cpu_set_t set;
	unsigned cpu, now;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu_of[node], &set);
	SAME(sched_setaffinity(0, sizeof set, &set), 0);
	SAME(getcpu(&cpu, &now), 0);
	SAME(now, node);
}

static int
find_nodes(void)
{
	cpu_set_t all, one;
	unsigned cpu, node;

	memset(cpu_of, -1, sizeof cpu_of);
	sched_getaffinity(0, sizeof all, &all);
	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		if (sched_setaffinity(0, sizeof one, &one) != 0 ||
		    getcpu(&cpu, &node) != 0 || node >= BUFPOOL_NODES_MAX)
			return -1;
		if (cpu_of[node] < 0)
			cpu_of[node] = (int)i;
		if (node >= nodes)
			nodes = node + 1;
	}
	print_message("%u nodes\n", nodes);
	return nodes == 0;
}

struct call {
	unsigned node;
	void (*fn)(unsigned node, void *arg);
	void *arg;
};

static void *
call(void *arg)
{
	struct call *c = arg;

	pin(c->node);
	c->fn(c->node, c->arg);
	return NULL;
}

/* On a node, in a thread that is new and then exits. */
static void
once_on(unsigned node, void (*fn)(unsigned, void *), void *arg)
{
	struct call c = { node, fn, arg };
	pthread_t thread;

	SAME(pthread_create(&thread, NULL, call, &c), 0);
	pthread_join(thread, NULL);
}

/* The thread that each node has, and what it is to do. */
static struct worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct call *call;
} worker[BUFPOOL_NODES_MAX];

static void *
work(void *arg)
{
	struct worker *w = arg;

	pin((unsigned)(w - worker));
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->call == NULL)
			pthread_cond_wait(&w->changed, &w->lock);
		if (w->call->fn == NULL)
			break;
		w->call->fn(w->call->node, w->call->arg);
		w->call = NULL;
		pthread_cond_signal(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* On a node, in the thread that it has. */
static void
on(unsigned node, void (*fn)(unsigned, void *), void *arg)
{
	static struct call end;		/* outlives the call: fn is NULL */
	struct call c = { node, fn, arg };
	struct worker *w = &worker[node];

	pthread_mutex_lock(&w->lock);
	w->call = fn != NULL ? &c : &end;
	pthread_cond_signal(&w->changed);
	while (fn != NULL && w->call != NULL)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

static int
set_up(void **state)
{
	(void)state;
	if (find_nodes() != 0)
		return -1;
	EACH(node) {
		struct worker *w = &worker[node];

		pthread_mutex_init(&w->lock, NULL);
		pthread_cond_init(&w->changed, NULL);
		SAME(pthread_create(&w->thread, NULL, work, w), 0);
	}
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	EACH(node) {
		on(node, NULL, NULL);
		pthread_join(worker[node].thread, NULL);
	}
	return 0;
}

static struct bufpool *
local(size_t max_bytes)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = 0;
	config.max_bytes = max_bytes;
	config.numa_node = BUFPOOL_NUMA_LOCAL;
	pool = bufpool_create(&config);
	CHECK(pool != NULL, "none: %s", strerror(errno));
	/* What is counted here must not depend on the time that it takes. */
	atomic_store(&pool->decayed, INT64_MAX);
	return pool;
}

static struct bufpool_stats
stats(void)
{
	struct bufpool_stats s;

	bufpool_get_stats(pool, &s);
	return s;
}

static struct bufpool_buf *
take(size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(pool, n);

	CHECK(b != NULL, "none: %s", strerror(errno));
	memset(bufpool_data(b), 1, n);
	return b;
}

/* Every page of what was written. */
static void
assert_on(unsigned node, const struct bufpool_buf *b)
{
	const uint8_t *at = bufpool_peek(b);
	size_t n = (bufpool_len(b) + PAGE - 1) / PAGE;
	void **page = calloc(n, sizeof *page);
	int *where = calloc(n, sizeof *where);

	CHECK(page != NULL && where != NULL, "no memory");
	for (size_t i = 0; i < n; i++)
		page[i] = (void *)(uintptr_t)(at + i * PAGE);
	SAME(syscall(SYS_move_pages, 0, n, page, NULL, where, 0),
			 0);
	for (size_t i = 0; i < n; i++)
		CHECK(where[i] == (int)node,
		      "page %zu of %zu is on node %d, not %u", i, n, where[i],
		      node);
	free(page);
	free(where);
}

/* qemu-user does not. */
static void
needs_an_answer(void)
{
	needs(syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0) == 0,
	      "the system does not say on which node a page is");
}

static void
needs_two_nodes(void)
{
	needs(nodes > 1, "there is one node");
}

static void
use_all_sizes(unsigned node, void *arg)
{
	struct bufpool_buf *held[CLASSES][8], *exact, *aligned;
	struct bufpool_stats before = stats(), after;
	uint64_t pages = (EXACT + PAGE - 1) / PAGE + 1;

	(void)arg;
	for (size_t c = 0; c < CLASSES; c++)
		pages += 8 * sizes[c] / PAGE;
	for (int again = 0; again < 3; again++) {
		for (size_t c = 0; c < CLASSES; c++)
			for (size_t i = 0; i < 8; i++) {
				held[c][i] = take(sizes[c]);
				assert_on(node, held[c][i]);
			}
		exact = take(EXACT);
		assert_on(node, exact);
		aligned = bufpool_checkout_aligned(pool, PAGE, 65536);
		CHECK(aligned != NULL, "none: %s", strerror(errno));
		memset(bufpool_data(aligned), 1, PAGE);
		assert_on(node, aligned);
		after = stats();
		/* more where the kernel likes huge pages */
		for (unsigned i = 0; i < after.node_count; i++)
			CHECK(i == node ? after.pages_by_node[i] >= pages
			      : after.pages_by_node[i] ==
					before.pages_by_node[i],
			      "%llu pages on node %u",
			      (unsigned long long)after.pages_by_node[i], i);
		for (size_t c = 0; c < CLASSES; c++)
			for (size_t i = 0; i < 8; i++)
				bufpool_release(held[c][i]);
		bufpool_release(exact);
		bufpool_release(aligned);
	}
}

static void
every_page_is_on_the_threads_own_node(void **state)
{
	(void)state;
	needs_an_answer();
	pool = local(0);
	SAME(stats().numa_requested, BUFPOOL_NUMA_LOCAL);
	if (nodes > 1) {
		SAME(stats().numa_available, 1);
		SAME(stats().node_count, nodes);
	}
	EACH(node)
		on(node, use_all_sizes, NULL);
	SAME(stats().checked_out, 0);
	bufpool_destroy(pool);
}

/* What one thread hands another: a buffer, and where its memory is. */
struct parcel {
	size_t n;
	struct bufpool_buf *b;
	const void *at;
};

static void
take_parcel(unsigned node, void *arg)
{
	struct parcel *x = arg;

	x->b = take(x->n);
	x->at = bufpool_peek(x->b);
	assert_on(node, x->b);
}

/* Takes more than it has, and never what is not its own. */
static void
release_parcel(unsigned node, void *arg)
{
	struct bufpool_buf *held[MANY];
	struct parcel *x = arg;
	size_t many = x->n > PAGE ? 4 : MANY;

	for (int again = 0; again < 2; again++) {
		bufpool_release(x->b);
		x->b = NULL;
		for (size_t i = 0; i < many; i++) {
			held[i] = take(x->n);
			CHECK(bufpool_peek(held[i]) != x->at,
			      "node %u was given another's", node);
			assert_on(node, held[i]);
		}
		for (size_t i = 0; i < many; i++)
			bufpool_release(held[i]);
	}
}

static void
take_back_parcel(unsigned node, void *arg)
{
	struct bufpool_stats before = stats();
	struct parcel *x = arg;

	x->b = take(x->n);
	CHECK(bufpool_peek(x->b) == x->at, "another buffer");
	assert_on(node, x->b);
	SAME(stats().misses, before.misses);
	SAME(stats().hits, before.hits + 1);
	bufpool_release(x->b);
}

static void
what_another_node_releases_goes_home(void **state)
{
	(void)state;
	needs_two_nodes();
	for (size_t c = 0; c < CLASSES; c++)
		EACH_PAIR(a, b) {
			struct parcel x = { .n = sizes[c] };

			pool = local(0);
			on(a, take_parcel, &x);
			on(b, release_parcel, &x);
			on(a, take_back_parcel, &x);
			bufpool_destroy(pool);
		}
}

static void
take_and_release(unsigned node, void *arg)
{
	struct bufpool_buf *held[16];

	(void)arg;
	for (int i = 0; i < 16; i++) {
		held[i] = take(65536);
		assert_on(node, held[i]);
	}
	for (int i = 0; i < 16; i++)
		bufpool_release(held[i]);
}

static void
take_ten(unsigned node, void *arg)
{
	struct bufpool_buf **held = arg;

	(void)node;
	for (int i = 0; i < 10; i++)
		held[i] = take(65536);
}

static void
release_ten(unsigned node, void *arg)
{
	struct bufpool_buf **held = arg;

	(void)node;
	for (int i = 0; i < 10; i++)
		bufpool_release(held[i]);
}

static void
trim_and_close_reach_what_waits_for_another_node(void **state)
{
	struct bufpool_buf *held[10];

	(void)state;
	needs_two_nodes();
	EACH_PAIR(a, b) {
		pool = local(0);
		for (int again = 0; again < 2; again++) {
			on(a, take_ten, held);
			on(b, release_ten, held);
			SAME(stats().classes[1].ready, 10);
			CHECK(stats().pages_by_node[a] >= 160, "too few");
			if (again == 0)
				SAME(bufpool_trim(pool), 655360);
			else
				bufpool_close(pool);
			SAME(stats().committed_bytes, 0);
			if (again == 0) {
				on(b, take_and_release, NULL);
				on(a, take_and_release, NULL);
				bufpool_trim(pool);
			}
		}
		bufpool_destroy(pool);
	}
}

static void
release_and_take_back(unsigned node, void *arg)
{
	struct parcel *x = arg;

	(void)node;
	bufpool_release(x->b);
	x->b = take(x->n);
	CHECK(bufpool_peek(x->b) == x->at, "another buffer");
	bufpool_release(x->b);
}

static void
another_nodes_buffer_is_better_than_none(void **state)
{
	(void)state;
	needs_two_nodes();
	EACH_PAIR(a, b) {
		struct parcel x = { .n = 65536 };

		pool = local(x.n);
		on(a, take_parcel, &x);
		on(b, release_and_take_back, &x);
		bufpool_destroy(pool);
	}
}

static void
move_to(unsigned node, void *arg)
{
	unsigned to = *(unsigned *)arg, n = 0, place;
	struct bufpool_buf *held[16], *b;

	for (int i = 0; i < 16; i++)
		held[i] = take(PAGE);
	for (int i = 0; i < 16; i++) {
		assert_on(node, held[i]);
		bufpool_release(held[i]);
	}
	/* The worst case: it has just looked where it is. */
	for (int i = 16; i < SHELF_STRIDE + 1; i++)
		bufpool_release(take(PAGE));
	pin(to);
	do {
		void *page;
		int where;

		CHECK(n++ <= SHELF_STRIDE, "still the old node's");
		b = take(PAGE);
		page = (void *)(uintptr_t)bufpool_peek(b);
		SAME(syscall(SYS_move_pages, 0, 1, &page, NULL,
					 &where, 0), 0);
		place = (unsigned)where;
		bufpool_release(b);
	} while (place != to);
	for (int i = 0; i < 2000; i++) {
		b = take(PAGE);
		assert_on(to, b);
		bufpool_release(b);
	}
}

static void
take_left_behind(unsigned node, void *arg)
{
	struct bufpool_buf *held[16];
	uint64_t misses = stats().misses;

	(void)arg;
	for (int i = 0; i < 16; i++) {
		held[i] = take(PAGE);
		assert_on(node, held[i]);
	}
	SAME(stats().misses, misses);
	for (int i = 0; i < 16; i++)
		bufpool_release(held[i]);
}

static void
a_thread_that_moves_leaves_its_buffers_behind(void **state)
{
	(void)state;
	needs_two_nodes();
	EACH_PAIR(a, b) {
		pool = local(0);
		once_on(a, move_to, &b);
		on(a, take_left_behind, NULL);
		bufpool_destroy(pool);
	}
}

/* The second adopts the record of the first, the third finds what that had. */
static void
a_thread_that_adopts_takes_from_its_own_node(void **state)
{
	(void)state;
	needs_two_nodes();
	EACH_PAIR(a, b) {
		pool = local(0);
		for (int again = 0; again < 2; again++) {
			once_on(a, take_and_release, NULL);
			once_on(b, take_and_release, NULL);
			SAME(stats().misses, 32);
		}
		bufpool_destroy(pool);
	}
}

static void
grow(unsigned node, void *arg)
{
	struct bufpool_buf *b = take(100);

	(void)arg;
	for (size_t n = 200; n < 5000000; n = n * 3 / 2) {
		SAME(bufpool_resize(b, n), 0);
		memset(bufpool_data(b), 1, n);
		assert_on(node, b);
	}
	bufpool_release(b);
}

static void
growth_stays_on_the_node(void **state)
{
	(void)state;
	needs_an_answer();
	pool = local(0);
	EACH(node)
		on(node, grow, NULL);
	bufpool_destroy(pool);
}

static void
cache_some(unsigned node, void *arg)
{
	struct bufpool_buf *held[MANY];

	(void)node;
	(void)arg;
	for (int i = 0; i < MANY; i++)
		held[i] = take(PAGE);
	for (int i = 0; i < MANY; i++)
		bufpool_release(held[i]);
}

static void
take_large(unsigned node, void *arg)
{
	(void)arg;
	for (int i = 0; i < 20; i++) {
		struct bufpool_buf *b = take(EXACT);

		assert_on(node, b);
		bufpool_release(b);
	}
}

static void
a_large_checkout_leaves_what_every_node_has(void **state)
{
	(void)state;
	needs_an_answer();
	EACH(a)
		EACH(b) {
			struct bufpool_class_stats before, after;

			pool = local(0);
			on(b, cache_some, NULL);
			on(a, cache_some, NULL);
			before = stats().classes[0];
			on(a, take_large, NULL);
			after = stats().classes[0];
			SAME(after.count, before.count);
			SAME(after.cached, before.cached);
			SAME(after.ready, before.ready);
			bufpool_destroy(pool);
		}
}

/* A thread that only takes and one that only releases, side by side. */
static struct {
	_Atomic(struct bufpool_buf *) box[32];
	unsigned to;
} stream;

#define PASSED 1500

static void *
receive(void *arg)
{
	unsigned got = 0;

	(void)arg;
	pin(stream.to);
	for (unsigned i = 0; got < PASSED; i++) {
		struct bufpool_buf *b =
		    atomic_exchange(&stream.box[i % 32], NULL);

		got += b != NULL;
		bufpool_release(b);
		if (b == NULL)
			sched_yield();
	}
	return NULL;
}

static void
send(unsigned node, void *arg)
{
	unsigned sent = 0;

	(void)arg;
	for (unsigned i = 0; sent < PASSED; i++) {
		struct bufpool_buf *b, *none = NULL;

		if (atomic_load(&stream.box[i % 32]) != NULL) {
			sched_yield();
			continue;
		}
		b = take(PAGE);
		if (sent++ % 100 == 0)
			assert_on(node, b);
		CHECK(atomic_compare_exchange_strong(&stream.box[i % 32],
						     &none, b), "not empty");
	}
}

static void
a_stream_between_nodes_needs_no_new_memory(void **state)
{
	struct bufpool_stats s;
	pthread_t thread;

	(void)state;
	needs_two_nodes();
	EACH_PAIR(a, b) {
		pool = local(0);
		stream.to = b;
		pthread_create(&thread, NULL, receive, NULL);
		on(a, send, NULL);
		pthread_join(thread, NULL);
		s = stats();
		SAME(s.checked_out, 0);
		CHECK(s.classes[0].count <= 128, "%llu buffers",
		      (unsigned long long)s.classes[0].count);
		CHECK(s.pages_by_node[a] >= s.classes[0].count, "too few");
		SAME(s.pages_by_node[b], 0);
		bufpool_destroy(pool);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_page_is_on_the_threads_own_node),
		cmocka_unit_test(what_another_node_releases_goes_home),
		cmocka_unit_test(
		    trim_and_close_reach_what_waits_for_another_node),
		cmocka_unit_test(another_nodes_buffer_is_better_than_none),
		cmocka_unit_test(a_thread_that_moves_leaves_its_buffers_behind),
		cmocka_unit_test(a_thread_that_adopts_takes_from_its_own_node),
		cmocka_unit_test(growth_stays_on_the_node),
		cmocka_unit_test(a_large_checkout_leaves_what_every_node_has),
		cmocka_unit_test(a_stream_between_nodes_needs_no_new_memory),
	};

	return cmocka_run_group_tests_name("numa", tests, set_up, tear_down);
}
