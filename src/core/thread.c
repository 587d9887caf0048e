#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>

#include "table.h"
#include "thread.h"

struct thread thread_nobody;
__thread struct thread *thread_self = &thread_nobody;

static _Atomic(struct thread *) threads;
static pthread_key_t exit_key;
static _Atomic uint64_t forgotten;	/* pools, so far */
static char dying;	/* its address marks a thread that gave its record up */

/* Pairs with the store in give_up, after which the last owner touches nothing
 * of it. Sequentially consistent, for thread_forget against thread_exit. */
static bool
try_own(struct thread *t)
{
	uint32_t orphan = 0;

	return atomic_load(&t->owned) == 0 &&
	    atomic_compare_exchange_strong(&t->owned, &orphan, 1);
}

struct thread *
thread_next(const struct thread *t)
{
	return t == NULL ? atomic_load(&threads) : t->next;
}

static struct thread *
adopt(void)
{
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t))
		if (try_own(t)) {
			hook("enroll: adopted");
			return t;
		}
	return NULL;
}

static void
give_up(struct thread *t)
{
	atomic_store(&t->owned, 0);
}

static struct thread *
create(void)
{
	struct thread *t = pages_map(sizeof *t);

	if (t == NULL)
		return NULL;
	atomic_store_explicit(&t->owned, 1, memory_order_relaxed);
	t->next = atomic_load(&threads);
	hook("enroll: made");
	while (!atomic_compare_exchange_weak(&threads, &t->next, t))
		;
	return t;
}

/* The mark of an exiting thread keeps it from enrolling anew: destructors run
 * in rounds and in no order, so others may use pools after ours has run. */
static bool
enroll(void)
{
	struct thread *t;

	if (pthread_getspecific(exit_key) == &dying)
		return false;
	t = adopt();
	if (t == NULL)
		t = create();
	if (t == NULL)
		return false;
	if (pthread_setspecific(exit_key, t) != 0) {
		give_up(t);
		return false;
	}
	atomic_store_explicit(&t->owner.token, owner_token(),
			      memory_order_relaxed);
	thread_self = t;
	return true;
}

static void
destroy_at(struct thread *t, uint32_t place)
{
	struct cache *k = atomic_load_explicit(&t->caches[place],
					       memory_order_relaxed);

	atomic_store_explicit(&t->caches[place], NULL, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);	/* for a fork child */
	cache_destroy(k);
}

struct cache *
thread_cache(struct caches *cs)
{
	struct thread *t;
	struct cache *k;

	if (thread_self == &thread_nobody && !enroll())
		return NULL;
	t = thread_self;
	k = thread_own_cache(cs->place);
	if (k != NULL && k->id != cs->id) {
		destroy_at(t, cs->place);
		k = NULL;
	}
	if (k == NULL) {
		k = cache_create(cs, &t->owner);
		if (k == NULL)
			return NULL;
		if (atomic_load_explicit(&t->places, memory_order_relaxed) <=
		    cs->place)
			atomic_store_explicit(&t->places, cs->place + 1,
					      memory_order_relaxed);
		atomic_store_explicit(&t->caches[cs->place], k,
				      memory_order_relaxed);
	}
	if (!k->live)
		cache_attach(k);
	return k;
}

void
thread_forget(uint32_t place, uint64_t id)
{
	atomic_fetch_add(&forgotten, 1);
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t)) {
		struct cache *k;

		if (t != thread_self && !try_own(t))
			continue;
		k = atomic_load_explicit(&t->caches[place],
					 memory_order_relaxed);
		if (k != NULL && k->id == id)
			destroy_at(t, place);
		if (t != thread_self)
			give_up(t);
	}
}

void
bufpool_thread_flush(void)
{
	uint32_t places = atomic_load(&thread_self->places);

	for (uint32_t i = 0; i < places; i++) {
		struct cache *k = thread_own_cache(i);

		if (k != NULL && cache_hold(k)) {
			cache_flush(k);
			arena_drop(k->arena);
		}
	}
}

static void
retire(struct thread *t, uint32_t place)
{
	struct cache *k = atomic_load_explicit(&t->caches[place],
					       memory_order_relaxed);

	if (k == NULL)
		return;
	if (cache_hold(k)) {
		struct bufpool_arena *a = k->arena;

		if (k->live)
			cache_retire(k);
		arena_drop(a);
	}
	if (!cache_hold(k))
		destroy_at(t, place);
	else
		arena_drop(k->arena);
}

/* thread_forget passes by a record that is owned. So when a pool has ended
 * meanwhile, either it found the record given up, or it is seen here. */
static void
thread_exit(void *value)
{
	struct thread *t = value;
	uint64_t before;

	pthread_setspecific(exit_key, &dying);
	if (value == &dying)
		return;
	thread_self = &thread_nobody;
	atomic_store_explicit(&t->owner.token, NULL, memory_order_relaxed);
	hook("exit: begun");
	do {
		before = atomic_load(&forgotten);
		for (uint32_t i = 0; i < atomic_load(&t->places); i++)
			retire(t, i);
		hook("exit: flushed");
		give_up(t);
	} while (atomic_load(&forgotten) != before && try_own(t));
}

void
thread_after_fork(void)
{
	for (struct thread *t = thread_next(NULL); t; t = thread_next(t))
		if (t != thread_self) {
			atomic_store(&t->owner.token, NULL);
			give_up(t);
		}
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
	return pthread_key_create(&exit_key, thread_exit) == 0;
}
