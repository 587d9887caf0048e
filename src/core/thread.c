#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>

#include "forked.h"
#include "pages.h"
#include "thread.h"

struct thread bp_thread_nobody;
__thread struct thread *bp_thread_self = &bp_thread_nobody;

static _Atomic(struct thread *) threads;
static pthread_key_t exit_key;
static char dying;	/* its address marks a thread that gave its record up */

/* Makes the caller the owner of an orphan. Pairs with the store in give_up,
 * after which the last owner touches nothing of the record. Sequentially
 * consistent, because of bp_thread_forget: see give_up. */
static bool
try_own(struct thread *t)
{
	uint32_t orphan = 0;

	return atomic_load(&t->owned) == 0 &&
	    atomic_compare_exchange_strong(&t->owned, &orphan, 1);
}

struct thread *
bp_thread_next(const struct thread *t)
{
	return t == NULL ? atomic_load(&threads) : t->next;
}

static struct thread *
thread_adopt(void)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t))
		if (try_own(t)) {
			hook("enroll: adopted");
			return t;
		}
	return NULL;
}

/*
 * A cache whose pool has ended goes in two steps. Whoever ends the pool takes
 * it out of its record's array (T1) and pushes it onto the record's list (T2),
 * before the pool's place can be taken again. The record's owner unmaps what
 * is on the list (T3), where it looks at none of its caches.
 *
 * So an entry of the array belongs to the pool that has the place, or is NULL:
 * when a pool ends, nobody holds it, so nobody makes a cache of it; T1 comes
 * before the release that gives the place up, which pairs with the acquire that
 * takes it; and a thread that uses the next pool has got that pool's address
 * after that.
 *
 * A cache that its owner may still read stays mapped, because only the owner
 * unmaps it. The owner may be at the end of the release that was the pool's
 * last, or in bufpool_thread_flush, with an address from before T1. T2, a
 * release, pairs with the acquire of T3, so that all that others did with the
 * cache comes before it is unmapped. spec/model/record.lua has these steps.
 */
static void
thread_bury(struct thread *t, struct cache *k)
{
	k->next = atomic_load_explicit(&t->gone, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&t->gone, &k->next, k))  /* T2 */
		;
}

/* The record's owner only. The load comes first so that the line is not written
 * to when the list is empty. */
static void
unmap_gone(struct thread *t)
{
	struct cache *k = NULL, *next;

	if (atomic_load_explicit(&t->gone, memory_order_relaxed) != NULL)
		k = atomic_exchange(&t->gone, NULL);		/* T3 */
	for (; k != NULL; k = next) {
		next = k->next;
		bp_cache_destroy(k);
	}
}

/* By the record's owner, who does not own it afterwards. bp_thread_forget
 * pushes a cache and then looks whether the record has an owner; this function
 * gives the record up and then looks whether a cache was pushed. Both store
 * before they load, so at least one sees the other, and unmaps the cache. */
static void
give_up(struct thread *t)
{
	do {
		unmap_gone(t);
		hook("record: unmapped");
		atomic_store(&t->owned, 0);
	} while (atomic_load(&t->gone) != NULL && try_own(t));
}

static struct thread *
thread_create(void)
{
	struct thread *t = bp_pages_map(sizeof *t);

	if (t == NULL)
		return NULL;
	atomic_store_explicit(&t->owned, 1, memory_order_relaxed);
	t->next = atomic_load(&threads);
	hook("enroll: made");
	while (!atomic_compare_exchange_weak(&threads, &t->next, t))
		;
	return t;
}

bool
bp_thread_resume(void)
{
	void *value = pthread_getspecific(exit_key);
	struct thread *t = value;

	if (t == NULL || value == &dying)
		return false;
	atomic_store_explicit(&t->owner.token, owner_token(),
			      memory_order_relaxed);
	bp_thread_self = t;
	return true;
}

/* A thread marked as dying gets no new record. It may still call a pool,
 * because destructors run in rounds and in no order, so that others may run
 * after ours. */
static bool
thread_enroll(void)
{
	struct thread *t;

	if (pthread_getspecific(exit_key) == &dying)
		return false;
	if (bp_thread_resume())
		return true;
	t = thread_adopt();
	if (t == NULL)
		t = thread_create();
	if (t == NULL)
		return false;
	if (pthread_setspecific(exit_key, t) != 0) {
		give_up(t);
		return false;
	}
	return bp_thread_resume();
}

struct cache *
bp_thread_cache(struct caches *cs)
{
	struct thread *t;
	struct cache *k;

	if (bp_thread_self == &bp_thread_nobody && !thread_enroll())
		return NULL;
	t = bp_thread_self;
	unmap_gone(t);
	k = thread_own_cache(cs->place);
	if (k == NULL) {
		k = bp_cache_create(cs, &t->owner);
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
		bp_cache_attach(k);
	return k;
}

/* The caller's own cache is unmapped at once, because nothing after the end of
 * a pool reads it; so are those of orphans, because no thread reads them. */
void
bp_thread_forget(uint32_t place)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		struct cache *k = atomic_load_explicit(&t->caches[place],
						       memory_order_relaxed);

		if (k == NULL)
			continue;
		atomic_store_explicit(&t->caches[place], NULL,
				      memory_order_relaxed);	/* T1 */
		hook("forget: taken");
		thread_bury(t, k);
		hook("forget: buried");
		if (t == bp_thread_self)
			unmap_gone(t);
		else if (try_own(t))
			give_up(t);
	}
}

void
bufpool_thread_flush(void)
{
	uint32_t places;

	forked_check();
	places = atomic_load(&bp_thread_self->places);
	if (bp_thread_self != &bp_thread_nobody)
		unmap_gone(bp_thread_self);
	for (uint32_t i = 0; i < places; i++) {
		struct cache *k = thread_own_cache(i);

		if (k != NULL && bp_cache_hold(k)) {
			bp_cache_flush(k);
			bp_arena_drop(k->arena);
		}
	}
}

static void
thread_retire(const struct thread *t, uint32_t place)
{
	struct cache *k = atomic_load_explicit(&t->caches[place],
					       memory_order_relaxed);
	struct bufpool_arena *a;

	if (k == NULL || !bp_cache_hold(k))
		return;
	a = k->arena;
	if (k->live)
		bp_cache_retire(k);
	bp_arena_drop(a);
}

static void
thread_exit(void *value)
{
	struct thread *t = value;

	pthread_setspecific(exit_key, &dying);
	if (value == &dying)
		return;
	forked_check();
	bp_thread_self = &bp_thread_nobody;
	atomic_store_explicit(&t->owner.token, NULL, memory_order_relaxed);
	hook("exit: begun");
	for (uint32_t i = 0; i < atomic_load(&t->places); i++)
		thread_retire(t, i);
	hook("exit: flushed");
	give_up(t);
}

void
bp_thread_after_fork(void)
{
	void *value = pthread_getspecific(exit_key);
	struct thread *own = value == &dying ? NULL : value;

	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		atomic_store(&t->owner.token, NULL);
		if (t != own)
			give_up(t);
	}
	bp_thread_self = &bp_thread_nobody;
}

/* The exit destructor must outlive every dlclose, also where this library is
 * linked into a plugin that was not linked with -z nodelete. */
static void
pin_library(void)
{
	Dl_info info;

	if (dladdr(&exit_key, &info) && info.dli_fname)
		dlopen(info.dli_fname,
		       RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

bool
bp_thread_init(void)
{
	pin_library();
	return pthread_key_create(&exit_key, thread_exit) == 0;
}
