#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>

#include "table.h"
#include "thread.h"

struct thread thread_nobody;
__thread struct thread *thread_self = &thread_nobody;

static _Atomic(struct thread *) threads;
static pthread_key_t exit_key;
static char dying;	/* its address marks a thread that gave its record up */

struct thread *
thread_next(const struct thread *t)
{
	return t == NULL ? atomic_load(&threads) : t->next;
}

static struct thread *
adopt(void)
{
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		uint32_t orphan = 0;

		if (atomic_load_explicit(&t->owned, memory_order_relaxed))
			continue;
		/* acquire: pairs with the release in thread_give_up, after
		 * which the last owner touches nothing of it */
		if (atomic_compare_exchange_strong_explicit(
			&t->owned, &orphan, 1, memory_order_acquire,
			memory_order_relaxed)) {
			hook("enroll: adopted");
			return t;
		}
	}
	return NULL;
}

struct thread *
thread_borrow(void)
{
	struct thread *t = adopt();

	if (t != NULL)
		return t;
	t = pages_map(sizeof *t);
	if (t == NULL)
		return NULL;
	atomic_store_explicit(&t->owned, 1, memory_order_relaxed);
	t->next = atomic_load(&threads);
	hook("enroll: made");
	while (!atomic_compare_exchange_weak(&threads, &t->next, t))
		;
	return t;
}

void
thread_give_up(struct thread *t)
{
	atomic_store_explicit(&t->owned, 0, memory_order_release);
}

struct thread *
thread_enroll(void)
{
	struct thread *t;

	if (pthread_getspecific(exit_key) == &dying)
		return NULL;
	t = thread_borrow();
	if (t == NULL)
		return NULL;
	if (pthread_setspecific(exit_key, t) != 0) {
		thread_give_up(t);
		return NULL;
	}
	atomic_store_explicit(&t->token, thread_token(), memory_order_relaxed);
	thread_self = t;
	return t;
}

static void
for_each_cache(struct thread *t, void (*what)(struct cache *))
{
	uint32_t slots = atomic_load_explicit(&t->slots, memory_order_relaxed);

	for (uint32_t i = 0; i < slots; i++) {
		struct cache *k = atomic_load_explicit(&t->caches[i],
						       memory_order_relaxed);
		if (k != NULL)
			what(k);
	}
}

void
bufpool_thread_flush(void)
{
	for_each_cache(thread_self, cache_flush);
}

/*
 * Destructors run in rounds and in no order, so others may release buffers
 * after this one has run: the mark it leaves keeps them from enrolling anew.
 */
static void
thread_exit(void *value)
{
	struct thread *t = value;

	pthread_setspecific(exit_key, &dying);
	if (value == &dying)
		return;
	thread_self = &thread_nobody;
	atomic_store_explicit(&t->token, NULL, memory_order_relaxed);
	hook("exit: begun");
	for_each_cache(t, cache_leave_to_others);
	hook("exit: flushed");
	thread_give_up(t);
}

/*
 * Makes the cache of a pool that is gone, or a new one, that of p. Nobody else
 * looks inside meanwhile: others go by pool_id, and whoever had got hold of
 * the old pool's rings held that pool.
 */
struct cache *
thread_bind(struct thread *t, struct bufpool *p)
{
	struct cache *k = atomic_load_explicit(&t->caches[p->slot],
					       memory_order_relaxed);

	if (k == NULL) {
		k = cache_create();
		if (k == NULL)
			return NULL;
		if (atomic_load_explicit(&t->slots, memory_order_relaxed) <=
		    p->slot)
			atomic_store_explicit(&t->slots, p->slot + 1,
					      memory_order_relaxed);
		atomic_store(&t->caches[p->slot], k);
	}
	if (!cache_bind(k, p, t))
		return NULL;
	hook("enroll: bound");
	if (atomic_load(&p->closed))
		cache_close(k);
	return k;
}

static void
after_fork(void)
{
	cache_init();
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		for (uint32_t i = 0; i < atomic_load(&t->slots); i++) {
			struct cache *k = atomic_load(&t->caches[i]);

			if (k != NULL)
				cache_abandon(k);
		}
		if (t != thread_self) {
			atomic_store(&t->token, NULL);
			thread_give_up(t);
		}
	}
	pool_after_fork();
}

/* The exit destructor must outlive every dlclose, also where this library is
 * linked into a plugin that was not linked with -z nodelete. */
static void
pin(void)
{
	Dl_info info;

	if (dladdr(&exit_key, &info) && info.dli_fname)
		dlopen(info.dli_fname,
		       RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

bool
thread_init(void)
{
	pin();
	return pthread_key_create(&exit_key, thread_exit) == 0 &&
	    pthread_atfork(NULL, NULL, after_fork) == 0;
}
