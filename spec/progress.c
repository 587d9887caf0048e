/*
 * No thread waits for another, wherever that other one stands still.
 *
 * place    a point in the core, named by hook() (src/core/hook.h), at which a
 *          thread can be stopped
 * step     the way from one place to the next, as (from, at)
 * deed     what a thread does to the pool: checks out, trims, exits
 * actor    a thread that can be stopped at the end of a step
 * parked   an actor is, while it is stopped
 * victim   the actor whose deed is tested, stopped at every step in turn
 * sitter   a second actor, which some deeds need, parked at one place while the
 *          victim does its deed
 * idler    a third actor: it fills its cache, then does nothing to the end
 * others   threads that are not actors: they do everything that can be done
 *          while the actors are parked
 * kept     buffers that are out from before the deed until after it, so that
 *          the pool is never empty
 * lent     buffers that this thread took and the victim releases, or that the
 *          victim took and this thread releases
 * owner    by a buffer's number: the stamp that is in it, 0 while it is free
 * orphan   the record of a thread that has exited, for a new thread to adopt
 * round    one deed, stopped at one step, in one mode
 * mode     whether the pool is closed while the victim is parked, and which of
 *          victim and sitter then goes on first
 *
 * The plan. The victim does its deed once, unstopped, and the steps that it
 * takes are written down. Then there is a round for each of these steps: the
 * victim does its deed again and is parked at the end of the step. Now the
 * others do everything, a fixed number of times, in an old thread and in new
 * ones. If they hang, the core has failed; .ci/test ends the program, which
 * says which round it was. Then the actors go on. In the end every buffer must
 * be back in the pool once, undamaged and zero.
 *
 * Each step has a round with the pool open to the end, and one with the pool
 * closed while the victim is parked: then all memory must be given back. With a
 * sitter, that round is run a second time, with the victim going on before the
 * sitter. A deed that closes the pool itself has only the first round. The last
 * test fails if there is a place at which no victim was ever parked.
 *
 * PROGRESS_STEP: of the rounds in which the pool is closed, every so manieth
 * only, the 3rd unless given.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/buf.h"
#include "bufpool.h"
#include "core/hook.h"
#include "core/pool.h"
#include "core/checkout.h"
#include "core/system.h"
#include "core/ticket.h"
#include "core/trim.h"
#include "support/clock.h"

/* Steps of a deed that the victim may not take again. A mapping that lies at a
 * multiple of 64 KiB by chance has others than one that does not. */
#define LEFT_OUT 2
#define SMALL 100	/* a size for each class, and one above both */
#define LARGE 5000
#define ABOVE 70000
#define HIGHER 200000
#define KEEP ((size_t)3 * HIGHER)	/* bytes kept above, a few buffers */
#define SMALL_FLOOR 4
#define LARGE_FLOOR 1
#define SHELF 60	/* small buffers that a shelf holds */
#define KEPT 3		/* of each class */
#define BURST 100
#define OWNERS (1 << 16)

/* Every place that the sources name. */
static const char *const places[] = {
	"the start",
#include "spec/places.h"
};
#define PLACES (sizeof places / sizeof *places)
#define ANY PLACES

struct deed {
	const char *name;
	void (*before)(void);	/* what the victim does before it is watched */
	void (*act)(void);
	void (*sitter_before)(void);
	void (*sitter_act)(void);
	const char *sitter_at;
	bool limited;		/* the pool is at its max_bytes */
	bool alone;		/* there is no idler */
	bool no_orphans;	/* the victim finds no record to adopt */
	bool shuts;		/* victim or sitter closes the pool */
	bool exits;		/* the victim's exit is watched as well */
	bool only_releases;	/* the pool may be destroyed meanwhile */
};

struct actor {
	pthread_t thread;
	void (*before)(void), (*act)(void);
	unsigned from, at;	/* the step to stop at; at 0: nowhere */
	unsigned last;
	bool watched, parked, go, done, ended;
	bool seen[PLACES][PLACES];
};

static const struct deed *deed;
static struct bufpool *pool;
static bool closed;
static struct actor victim, sitter, idler;
static __thread struct actor *self;
static bool reached[PLACES];	/* a victim was parked there */
static struct bufpool_buf *kept[2 * KEPT], *lent[SHELF + 4];
static _Atomic uint64_t owner[OWNERS];
static _Atomic uint64_t last_stamp;
static pthread_key_t late_key;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char where[256] = "nowhere";	/* the round, for messages */

#define CHECK(what, ...)                                                   \
	do {                                                               \
		if (!(what)) {                                             \
			fprintf(stderr, "progress: %s: ", where);          \
			fprintf(stderr, __VA_ARGS__);                      \
			fprintf(stderr, " (line %d)\n", __LINE__);         \
			abort();                                           \
		}                                                          \
	} while (0)

static void
died(int why)
{
	const char *message = why == SIGTERM ? "progress: a thread waits: "
					     : "progress: a thread crashes: ";

	if (write(2, message, strlen(message)) > 0 &&
	    write(2, where, strlen(where)) > 0 && write(2, "\n", 1) > 0)
		_exit(1);
	_exit(2);
}

/* Stopping and going on. */

static void
tell(bool *what, bool value)
{
	pthread_mutex_lock(&lock);
	*what = value;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* Waits until the actor is parked or has ended. True if its deed is done. */
static bool
wait_parked(struct actor *a)
{
	pthread_mutex_lock(&lock);
	while (!a->parked && !a->ended)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return a->done || a->ended;
}

static void
let_go(struct actor *a)
{
	pthread_mutex_lock(&lock);
	a->parked = false;
	a->go = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void
park(void)
{
	struct actor *a = self;

	pthread_mutex_lock(&lock);
	a->go = false;
	a->parked = true;
	pthread_cond_broadcast(&changed);
	while (!a->go)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static unsigned
place_of(const char *name)
{
	for (unsigned i = 1; i < PLACES; i++)
		if (strcmp(name, places[i]) == 0)
			return i;
	CHECK(false, "%s is not a place of the sources", name);
}

static void
come_to(const char *name)
{
	struct actor *a = self;
	unsigned at, from;

	if (a == NULL || !a->watched)
		return;
	at = place_of(name);
	from = a->last;
	a->last = at;
	a->seen[from][at] = true;
	if (a->at == at && (a->from == from || a->from == ANY)) {
		a->at = 0;
		park();
	}
}

static void *
play(void *actor)
{
	self = actor;
	if (self->before != NULL)
		self->before();
	park();
	self->watched = true;
	self->act();
	if (!deed->exits) {
		self->watched = false;
		self->done = true;
		park();
	}
	return NULL;
}

/* Joins the actor: if its exit is watched, only a join tells when it ended. */
static void *
attend(void *actor)
{
	struct actor *a = actor;
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, play, a) == 0, "no thread");
	pthread_join(thread, NULL);
	tell(&a->ended, true);
	return NULL;
}

/* Starts an actor. Returns when its before is done and it is parked. */
static void
start(struct actor *a, void (*before)(void), void (*act)(void), unsigned from,
      unsigned at)
{
	*a = (struct actor){
		.before = before, .act = act, .from = from, .at = at
	};
	CHECK(pthread_create(&a->thread, NULL, attend, a) == 0, "no thread");
	wait_parked(a);
}

/* Lets the actor finish its deed. It exits only if its exit is watched. */
static void
complete(struct actor *a)
{
	let_go(a);
	wait_parked(a);
}

static void
finish(struct actor *a)
{
	complete(a);
	let_go(a);
	pthread_join(a->thread, NULL);
	CHECK(a->ended, "not ended");
}

/* Using pools. A buffer that comes out must have been free, and be zero. */

static struct bufpool_buf *
take(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = bufpool_checkout(p, n);
	uint64_t stamp = atomic_fetch_add(&last_stamp, 1) + 1;
	const uint8_t *data;

	if (b == NULL) {
		CHECK(p == pool && ((errno == EDQUOT && deed->limited) ||
				    (errno == ESHUTDOWN && closed)),
		      "no buffer: %s", strerror(errno));
		return NULL;
	}
	CHECK(b->number < OWNERS, "%u descriptors", b->number);
	CHECK(atomic_exchange(&owner[b->number], stamp) == 0,
	      "buffer %u is in two hands", b->number);
	data = bufpool_peek(b);
	for (size_t i = 0; i < n; i += 16)
		CHECK(data[i] == 0, "byte %zu is not zero", i);
	memcpy(bufpool_data(b), &stamp, sizeof stamp);
	bufpool_wrote(b, sizeof stamp);
	return b;
}

static void
give(struct bufpool_buf *b)
{
	uint64_t stamp;

	if (b == NULL)
		return;
	memcpy(&stamp, bufpool_peek(b), sizeof stamp);
	CHECK(atomic_exchange(&owner[b->number], 0) == stamp,
	      "buffer %u was written by another", b->number);
	bufpool_release(b);
}

static void
pair(struct bufpool *p, size_t n)
{
	give(take(p, n));
}

static void
burst(struct bufpool *p, size_t n, unsigned count)
{
	struct bufpool_buf *held[BURST];

	for (unsigned i = 0; i < count; i++)
		held[i] = take(p, n);
	for (unsigned i = 0; i < count; i++)
		give(held[i]);
}

static struct bufpool *
create(size_t max_bytes)
{
	const struct bufpool_class_config classes[] = {
		{ 4096, SMALL_FLOOR }, { 65536, LARGE_FLOOR }
	};
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.classes = classes;
	config.class_count = 2;
	config.ticket_ttl = 1000;
	config.max_bytes = max_bytes;
	config.large_bytes = KEEP;
	p = bufpool_create(&config);
	CHECK(p != NULL, "no pool");
	return p;
}

static void
use_own_pool(void)
{
	struct bufpool *p = create(0);

	burst(p, SMALL, SMALL_FLOOR + 1);
	pair(p, LARGE);
	bufpool_close(p);
	bufpool_destroy(p);
}

static void
freeze(struct bufpool *p, size_t n)
{
	struct bufpool_buf *b = take(p, n);

	if (b == NULL)
		return;
	atomic_store(&owner[b->number], 0);
	bufpool_frozen_unref(bufpool_freeze(b));
}

static void
adopt(uint64_t ticket)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;

	if (bufpool_adopt(ticket, &b, &f) != 0) {
		CHECK(errno == ESTALE, "%s", strerror(errno));
		return;		/* another's bp_ticket_expire was faster */
	}
	bufpool_release(b);
	bufpool_frozen_unref(f);
}

/* A buffer and a reference, each adopted; and a ticket that expires. */
static void
hand_over(struct bufpool *p)
{
	for (int i = 0; i < 3; i++) {
		struct bufpool_buf *b = take(p, SMALL);
		struct bufpool_frozen *f;
		uint64_t ticket;

		if (b == NULL)
			return;
		atomic_store(&owner[b->number], 0);
		if (i == 1) {
			f = bufpool_frozen_ref(bufpool_freeze(b));
			ticket = bufpool_share(f);
			bufpool_frozen_unref(f);
		} else
			ticket = bufpool_detach(b);
		CHECK(ticket != 0, "%s", strerror(errno));
		if (i == 2)
			bp_ticket_expire(INT64_MAX - 1, SIZE_MAX);
		else
			adopt(ticket);
	}
}

static void
try_all(struct bufpool *p)
{
	for (size_t n = SMALL; n <= ABOVE; n *= 26) {
		struct bufpool_buf *b = bufpool_try_checkout(p, n);

		CHECK(b != NULL || errno == EAGAIN || closed, "%s",
		      strerror(errno));
		bufpool_release(b);
	}
}

/* Above both classes: what is kept is taken as it is, made larger, found at the
 * wrong address; what is out grows. */
static void
use_above(struct bufpool *p)
{
	struct bufpool_buf *b;

	pair(p, ABOVE);
	burst(p, ABOVE, 3);
	pair(p, 2 * ABOVE - 5);
	freeze(p, HIGHER);
	b = take(p, ABOVE);
	if (b != NULL && bufpool_resize(b, HIGHER) == 0)
		bufpool_resize(b, 3 * HIGHER);
	give(b);
	b = bufpool_checkout_aligned(p, ABOVE, 65536);
	CHECK(b != NULL || errno == EDQUOT || closed, "%s", strerror(errno));
	bufpool_release(b);
}

/* What the others do in each thread. */
static void
do_everything(void)
{
	struct bufpool_stats s;

	for (int i = 0; i < 20; i++) {
		pair(pool, SMALL);
		pair(pool, LARGE);
	}
	use_above(pool);
	freeze(pool, SMALL);
	hand_over(pool);
	burst(pool, SMALL, SHELF + 10);
	burst(pool, LARGE, 6);
	try_all(pool);
	bufpool_trim(pool);
	burst(pool, SMALL, 10);
	burst(pool, LARGE, 3);
	bufpool_thread_flush();
	bp_trim_maintain(pool, bp_system_now());
	burst(pool, SMALL, 10);
	bufpool_get_stats(pool, &s);
	use_own_pool();
}

static void *
be_born_and_die(void *again)
{
	pthread_t thread;

	do_everything();
	if (again != NULL) {
		CHECK(pthread_create(&thread, NULL, be_born_and_die, NULL) == 0,
		      "no thread");
		pthread_join(thread, NULL);
	}
	return NULL;
}

/* This thread, a new one, and a newer one, which the new one starts. */
static void
others(void)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, be_born_and_die, &pool) == 0,
	      "no thread");
	do_everything();
	pthread_join(thread, NULL);
}

/* Deeds. */

static void
nothing(void)
{
}

static void
warm_up(void)
{
	burst(pool, SMALL, 20);
	burst(pool, LARGE, 6);
}

/* Leaves some buffers in the thread's cache and some in its depot. In a pool at
 * its limit these are all buffers that there are. */
static void
lie_idle(void)
{
	struct bufpool_buf *held[BURST];
	unsigned most = deed->limited ? BURST / 2 : 6, n = 0;

	for (unsigned i = 0; i < most; i++)
		held[n++] = take(pool, LARGE);
	for (unsigned i = 0; i < most; i++)
		held[n++] = take(pool, SMALL);
	for (unsigned i = 0; i < n; i += 2)
		give(held[i]);
	bufpool_thread_flush();
	for (unsigned i = 1; i < n; i += 2)
		give(held[i]);
}

static void
take_one(void)
{
	lent[0] = take(pool, SMALL);
}

static void
give_one(void)
{
	give(lent[0]);
	lent[0] = NULL;
}

static void
warm_up_and_take(void)
{
	warm_up();
	take_one();
}

static void
use_some(void)
{
	struct bufpool_buf *b;

	pair(pool, SMALL);
	pair(pool, LARGE);
	pair(pool, ABOVE);
	freeze(pool, SMALL);
	hand_over(pool);
	try_all(pool);
	b = bufpool_checkout_zeroed(pool, 10);
	if (b != NULL && bufpool_resize(b, LARGE) == 0)
		bufpool_resize(b, ABOVE);
	bufpool_release(b);
	bufpool_release(bufpool_checkout_aligned(pool, 10, 8192));
}

static void
use_much(void)
{
	for (int i = 0; i < 2; i++) {
		burst(pool, SMALL, SHELF + 40);
		burst(pool, LARGE, 40);
	}
}

static void
use_at_limit(void)
{
	burst(pool, LARGE, 3);
	burst(pool, SMALL, 30);
	pair(pool, ABOVE);
	burst(pool, SMALL, 30);
}

static void
give_lent(void)
{
	for (unsigned i = 0; i < sizeof lent / sizeof *lent; i++) {
		give(lent[i]);
		lent[i] = NULL;
	}
}

static void
trim(void)
{
	bufpool_trim(pool);
}

static void
shut(void)
{
	bufpool_close(pool);
}

/* Sets when memory decays next. The clock stands still, for no two runs would
 * be alike by it. */
static void
decay_at(int64_t when)
{
	atomic_store(&pool->looked_at, 0);
	atomic_store(&pool->decayed, when);
}

static void
forget_decay(void)
{
	for (unsigned c = 0; c < pool->layout.classes; c++) {
		atomic_store(&pool->was_idle[c], 1000);
		atomic_store(&pool->was_short[c], 0);
	}
	decay_at(0);
}

/* Has some kept above the classes. */
static void
keep_some(void)
{
	burst(pool, ABOVE, 4);
	burst(pool, HIGHER, 2);
}

/* What is kept as well. */
static void
forget_decay_of_kept(void)
{
	keep_some();
	forget_decay();
	atomic_store(&pool->large.was_kept, SIZE_MAX);
	atomic_store(&pool->large.was_short, 0);
}

static void
keep_and_take(void)
{
	keep_some();
	lent[0] = take(pool, ABOVE);
}

static void
use_kept(void)
{
	use_above(pool);
	try_all(pool);
}

static void
use_kept_at_limit(void)
{
	use_above(pool);
	burst(pool, LARGE, 3);
	use_above(pool);
}

static void
look_around(void)
{
	bp_trim_maintain(pool, bp_system_now());
}

/* Leaves a buffer to use_late, a destructor that runs after the pool's. */
static void
leave_one(void)
{
	warm_up();
	pthread_setspecific(late_key, take(pool, SMALL));
}

static void
use_late(void *b)
{
	give(b);
	pair(pool, LARGE);
	pair(pool, ABOVE);
}

/* Leaves it as it was, and uses the pool at each setting. */
static void
switch_detection(void)
{
	for (int detection = BUFPOOL_LEAK_ALL; detection >= BUFPOOL_LEAK_OFF;
	     detection--) {
		bufpool_detect_leaks(pool, detection, 1);
		use_some();
		use_some();
		bufpool_get_sites_sized(pool, NULL, 0, 0);
	}
}

#define DEED(text, prepare, do_it, ...) \
	{ .name = text, .before = prepare, .act = do_it, __VA_ARGS__ }
#define OWNER(place) .sitter_before = warm_up, .sitter_act = use_some, \
		.sitter_at = place
#define CLAIMER(place) .sitter_act = trim, .sitter_at = place
#define TAKER(place) .sitter_act = use_kept, .sitter_at = place
#define CLOSER(place) .sitter_act = shut, .sitter_at = place, .shuts = true
static const struct deed deeds[] = {
	DEED("checks out and releases", warm_up, use_some),
	DEED("checks out once", warm_up, take_one),
	DEED("releases once", warm_up_and_take, give_one,
	     .only_releases = true),
	DEED("spills, refills and steals", NULL, use_much),
	DEED("comes for the first time", NULL, use_some, .no_orphans = true),
	DEED("adopts what another left", NULL, use_some),
	DEED("exits", warm_up, nothing, .exits = true, .only_releases = true),
	DEED("exits, and only then releases", leave_one, nothing,
	     .exits = true),
	DEED("releases what others took", NULL, give_lent,
	     .only_releases = true),
	DEED("releases from a warm cache", warm_up, give_lent,
	     .only_releases = true),
	DEED("flushes", warm_up, bufpool_thread_flush, .only_releases = true),
	DEED("trims", warm_up, trim),
	DEED("finds no memory", NULL, use_at_limit, .limited = true),
	DEED("lets memory decay", forget_decay, look_around),
	DEED("makes and destroys a pool", NULL, use_own_pool),
	DEED("closes", warm_up, shut, .shuts = true),
	DEED("switches leak detection", warm_up, switch_detection),
	DEED("switches leak detection; one popped", warm_up, switch_detection,
	     OWNER("shelf: popped")),
	DEED("switches leak detection; one trims", warm_up, switch_detection,
	     CLAIMER("claim: claimed")),
	DEED("trims; one entered", NULL, trim, OWNER("shelf: entered")),
	DEED("trims; one popped", NULL, trim, OWNER("shelf: popped")),
	DEED("trims; one pushed", NULL, trim, OWNER("shelf: pushed")),
	DEED("trims; one leaves", NULL, trim, OWNER("shelf: leaving")),
	DEED("trims; one trims", warm_up, trim, CLAIMER("claim: claimed")),
	DEED("trims; one closes", warm_up, trim, CLOSER("close: closed")),
	DEED("finds no memory; one popped", NULL, use_at_limit,
	     OWNER("shelf: popped"), .limited = true),
	DEED("finds no memory; one trims", NULL, use_at_limit,
	     CLAIMER("claim: claimed"), .limited = true),
	DEED("closes; one popped", NULL, shut, OWNER("shelf: popped"),
	     .shuts = true),
	DEED("closes; one pushed", NULL, shut, OWNER("shelf: pushed"),
	     .shuts = true),
	DEED("closes; one leaves", NULL, shut, OWNER("shelf: leaving"),
	     .shuts = true),
	DEED("closes; one has claimed", NULL, shut, CLAIMER("claim: claimed"),
	     .shuts = true),
	DEED("closes; one ends a claim", NULL, shut, CLAIMER("claim: leaving"),
	     .shuts = true),
	DEED("closes; one closes", NULL, shut, CLOSER("claim: claimed")),
	DEED("finds its shelf claimed", warm_up, use_much,
	     CLAIMER("claim: claimed"), .alone = true),
	DEED("finds its shelf emptied", warm_up, use_much,
	     CLAIMER("claim: leaving"), .alone = true),
	DEED("finds its shelf closed", warm_up, use_some,
	     CLOSER("close: closed"), .alone = true),
	DEED("releases; its shelf is claimed", warm_up, give_lent,
	     CLAIMER("claim: claimed"), .alone = true),
	DEED("exits; its shelf is claimed", warm_up, nothing, .exits = true,
	     CLAIMER("claim: claimed"), .alone = true),
	DEED("exits; its shelf is closed", warm_up, nothing, .exits = true,
	     CLOSER("close: closed"), .alone = true),
	DEED("uses what is kept", keep_some, use_kept),
	DEED("keeps what it had out", keep_and_take, give_one,
	     .only_releases = true),
	DEED("trims what is kept", keep_some, trim),
	DEED("lets what is kept decay", forget_decay_of_kept, look_around),
	DEED("closes what is kept", keep_some, shut, .shuts = true),
	DEED("finds no memory above the classes", keep_some, use_kept_at_limit,
	     .limited = true),
	DEED("uses what is kept; one has taken", keep_some, use_kept,
	     TAKER("large: taken")),
	DEED("uses what is kept; one is keeping", keep_some, use_kept,
	     TAKER("large: keeping")),
	DEED("keeps; one closes", keep_and_take, give_one,
	     CLOSER("close: closed")),
	DEED("closes; one has taken", keep_some, shut, TAKER("large: taken"),
	     .shuts = true),
	DEED("closes; one is keeping", keep_some, shut,
	     TAKER("large: keeping"), .shuts = true),
	DEED("exits; one steals", warm_up, nothing, .exits = true,
	     .sitter_act = use_much, .sitter_at = "depot: taken"),
};
#define DEEDS (sizeof deeds / sizeof *deeds)

/* Rounds. */

/* Changes owned of every record that has the value from: from 0 to 2, so that
 * no thread adopts an orphan, and back. */
static void
hide_orphans(uint32_t from, uint32_t to)
{
	for (struct thread *t = bp_thread_next(NULL); t != NULL;
	     t = bp_thread_next(t)) {
		uint32_t is = from;

		atomic_compare_exchange_strong(&t->owned, &is, to);
	}
}

static void
set_up(void)
{
	unsigned n = 0;

	closed = false;
	pool = create(deed->limited ? 12 * 65536 : 0);
	decay_at(INT64_MAX);
	for (unsigned i = 0; i < KEPT; i++) {
		kept[n++] = take(pool, SMALL);
		kept[n++] = take(pool, LARGE);
	}
	n = 0;
	if (deed->act == give_lent) {
		while (n < 3)
			lent[n++] = take(pool, LARGE);
		while (n < sizeof lent / sizeof *lent)
			lent[n++] = take(pool, SMALL);
	}
	bufpool_thread_flush();
}

static void
give_kept(unsigned from, unsigned to)
{
	for (; from < to; from++) {
		give(kept[from]);
		kept[from] = NULL;
	}
}

static bool
all_zero(const struct bufpool_buf *b)
{
	size_t n = buf_size(b);

	return b->base[0] == 0 && memcmp(b->base, b->base + 1, n - 1) == 0;
}

/* Every buffer of the class can be checked out, once, and is zero. */
static void
check_class(const struct bufpool_class_stats *s)
{
	struct bufpool_buf **held = calloc(s->count + 1, sizeof *held);
	uint64_t n = 0;

	CHECK(held != NULL, "no memory");
	CHECK(s->count == s->ready + s->cached && s->out == 0,
	      "size %zu: %llu exist, %llu ready, %llu cached, %llu out",
	      s->size, (unsigned long long)s->count,
	      (unsigned long long)s->ready, (unsigned long long)s->cached,
	      (unsigned long long)s->out);
	while (n <= s->count &&
	       (held[n] = bufpool_try_checkout(pool, s->size)) != NULL)
		CHECK(all_zero(held[n++]), "a free buffer is not zero");
	CHECK(n == s->count, "size %zu: %llu of %llu can be had", s->size,
	      (unsigned long long)n, (unsigned long long)s->count);
	while (n > 0)
		bufpool_release(held[--n]);
	free(held);
}

/* Then what has gone back stays committed until a whole page has. */
static bool
may_share_pages(void)
{
	return sysconf(_SC_PAGESIZE) > 4096;
}

/* Every kept buffer is there once, and zero; all memory is accounted for. */
static void
check_kept(const struct bufpool_stats *s)
{
	uint64_t bytes = s->large_cached_bytes;
	struct bufpool_buf *held[100];
	unsigned n = 0;

	for (unsigned c = 0; c < s->class_count; c++)
		bytes += s->classes[c].count * s->classes[c].size;
	CHECK(s->large_cached_bytes <= KEEP, "%llu bytes are kept",
	      (unsigned long long)s->large_cached_bytes);
	CHECK(bytes == s->committed_bytes ||
	      (may_share_pages() && bytes < s->committed_bytes),
	      "%llu bytes, %llu committed",
	      (unsigned long long)bytes,
	      (unsigned long long)s->committed_bytes);
	for (size_t size = SMALL; size < 16 * HIGHER; size += size / 8)
		while (n < 100 && (held[n] = bp_checkout_alone(
				       pool, size, TAKE_READY, SITE_NONE)) !=
		       NULL)
			CHECK(all_zero(held[n++]), "a kept one is not zero");
	CHECK(n == s->large_cached, "%u of %llu kept ones can be had", n,
	      (unsigned long long)s->large_cached);
	while (n > 0)
		bufpool_release(held[--n]);
}

static void
check_open(void)
{
	struct bufpool_stats s;

	/* What is owed by round_of must not go between two counts. */
	decay_at(INT64_MAX);
	bufpool_get_stats(pool, &s);
	check_kept(&s);
	CHECK(s.checked_out == 0 && s.lost == 0, "%llu out, %llu lost",
	      (unsigned long long)s.checked_out, (unsigned long long)s.lost);
	for (unsigned c = 0; c < s.class_count; c++)
		check_class(&s.classes[c]);
}

static void
check_gone(void)
{
	struct bufpool *p;
	unsigned cursor = 0;

	while (bp_registry_next(&cursor, &p)) {
		uint64_t refs = atomic_load(&p->arena.refs) - 1;

		bp_arena_drop(&p->arena);
		CHECK(false, "a pool is left, with %llu references",
		      (unsigned long long)refs);
	}
}

enum mode {
	OPEN,
	CLOSE,			/* while the victim is parked */
	CLOSE_AND_FIRST,	/* and the victim goes on before the sitter */
};

/* A round until the victim is parked. True if its deed was done instead. */
static bool
begin(unsigned from, unsigned at)
{
	bool ended;

	set_up();
	if (!deed->alone) {
		start(&idler, lie_idle, nothing, ANY, 0);
	}
	start(&victim, deed->before, deed->act, from, at);
	if (deed->sitter_act != NULL) {
		start(&sitter, deed->sitter_before, deed->sitter_act, ANY,
		      place_of(deed->sitter_at));
		closed = deed->shuts;
		let_go(&sitter);
		CHECK(!wait_parked(&sitter), "the sitter did not come to %s",
		      deed->sitter_at);
	}
	closed = deed->shuts;
	if (deed->no_orphans)
		hide_orphans(0, 2);
	let_go(&victim);
	ended = wait_parked(&victim);
	hide_orphans(2, 0);
	return ended;
}

/* The rest of a round. The checks come before the actors exit, so that no exit
 * has cleaned up. */
static void
end(enum mode mode)
{
	if (deed->sitter_act != NULL && mode != CLOSE_AND_FIRST)
		complete(&sitter);
	complete(&victim);
	if (deed->sitter_act != NULL && mode == CLOSE_AND_FIRST)
		complete(&sitter);
	give_lent();
	give_kept(0, 2 * KEPT);
	if (!closed)
		check_open();
	else
		CHECK(pool->arena.committed == 0 || may_share_pages(),
		      "%zu bytes are left", pool->arena.committed);
	if (mode == OPEN || !deed->only_releases)
		bufpool_destroy(pool);
	check_gone();
	finish(&victim);
	if (deed->sitter_act != NULL)
		finish(&sitter);
	if (!deed->alone)
		finish(&idler);
}

static unsigned left_out;

/* False when the victim did not come to the end of the step. */
static bool
round_of(unsigned from, unsigned at, enum mode mode)
{
	static const char *const how[] = {
		"", ", the pool closed meanwhile",
		", the pool closed meanwhile, going on first"
	};

	snprintf(where, sizeof where,
		 "a thread that %s, stopped at '%s' after '%s'%s", deed->name,
		 places[at], places[from], how[mode]);
	if (begin(from, at)) {
		end(OPEN);
		CHECK(++left_out <= LEFT_OUT, "it did not come there again");
		return false;
	}
	reached[at] = true;
	decay_at(0);
	others();
	burst(pool, ABOVE, 8);	/* as many as may be kept */
	if (mode != OPEN) {
		closed = true;
		give_kept(0, KEPT);
		if (deed->only_releases) {
			give_kept(KEPT, 2 * KEPT);
			bufpool_destroy(pool);
		} else {
			bufpool_close(pool);
			others();
		}
	}
	end(mode);
	return true;
}

static unsigned long step = 3;

static void
goes_on(void **state)
{
	static bool steps[PLACES][PLACES];
	static unsigned long closing;
	enum mode last = CLOSE;

	left_out = 0;
	signal(SIGTERM, died);
	signal(SIGSEGV, died);
	deed = *state;
	if (deed->shuts)
		last = OPEN;
	else if (deed->sitter_act != NULL)
		last = CLOSE_AND_FIRST;
	snprintf(where, sizeof where, "a thread that %s", deed->name);
	CHECK(begin(ANY, 0), "not ended");
	memcpy(steps, victim.seen, sizeof steps);
	end(OPEN);
	for (unsigned from = 0; from < PLACES; from++)
		for (unsigned at = 1; at < PLACES; at++)
			for (enum mode m = OPEN; steps[from][at] && m <= last;
			     m++)
				if ((m == OPEN || closing++ % step == 0) &&
				    !round_of(from, at, m))
					break;
}

static void
every_place_was_reached(void **state)
{
	unsigned missed = 0;

	(void)state;
	for (unsigned i = 1; i < PLACES; i++)
		if (!reached[i]) {
			print_error("no victim came to '%s'\n", places[i]);
			missed++;
		}
	assert_int_equal(missed, 0);
}

/* From here on there is a spare entry for a ticket. Who finds none does not
 * come to the place where one is popped. */
static void
spare_an_entry(void)
{
	struct bufpool *p = create(0);

	adopt(bufpool_detach(bufpool_checkout(p, SMALL)));
	bufpool_destroy(p);
}

int
main(void)
{
	struct CMUnitTest tests[DEEDS + 1] = { 0 };

	if (getenv("PROGRESS_STEP") != NULL)
		step = strtoul(getenv("PROGRESS_STEP"), NULL, 10);
	spare_an_entry();
	bufpool_hook = come_to;
	/* The destructors of keys run in the order in which the keys were made.
	 * The pool's key was made when the program was loaded. */
	pthread_key_create(&late_key, use_late);
	for (size_t i = 0; i < DEEDS; i++) {
		tests[i].name = deeds[i].name;
		tests[i].test_func = goes_on;
		tests[i].initial_state = (void *)(uintptr_t)&deeds[i];
	}
	tests[DEEDS].name = "every place was reached";
	tests[DEEDS].test_func = every_place_was_reached;
	return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
