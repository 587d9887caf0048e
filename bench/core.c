/*
 * One cell of the benchmark: what a zeroed buffer costs, with one contender.
 *
 *   core RIVAL CLASS DIRTY THREADS PATTERN [SECONDS | check]
 *
 * CLASS is a number of bytes, DIRTY too, or half or all.
 *
 * All contenders do the same work. The program takes a buffer of CLASS bytes
 * that reads as zero, writes its first DIRTY bytes with memset, and gives it
 * back. Work that a contender does not do by itself is done here, as a program
 * that uses it would have to:
 *
 *   bufpool        is told by bufpool_wrote what was dirtied, and wipes that
 *   bufpool-all    is not told, and wipes the whole buffer
 *   X-calloc       calloc and free; X is glibc, jemalloc, mimalloc, tcmalloc
 *   X-malloc       malloc, memset of the class, free
 *   mempool        DPDK's, without huge pages; memset of the class when taken
 *   mempool-d      mempool, but the program remembers what it dirtied, and
 *                  wipes that before it gives the buffer back; the pool itself
 *                  promises nothing
 *   santh          the Rust pool santh-bufpool; wipes the class when given back
 *   zeropool       the Rust pool zeropool; wipes the class when it is taken
 *   memset         no pool: each thread has one buffer, wiped by a memset of
 *                  DIRTY bytes; what others take longer is the cost of pooling
 *
 * The allocators replace malloc in this process: the program executes itself
 * again with LD_PRELOAD, and then looks for a symbol of the allocator to be
 * sure. The other rivals are shared objects beside the program. When a rival is
 * missing, the program says which package has it, and exits with status 2.
 *
 * Patterns, each run by THREADS threads on two processors:
 *
 *   same    take, dirty, give, over and over
 *   pass    pairs of threads: one takes and dirties, the other gives back;
 *           between them is a ring with one producer and one consumer
 *   read    as `pass`, but who gives back has read what was dirtied first
 *   burst   takes more buffers than caches hold, dirties all, gives all back
 *   churn   as `same`, but each thread ends after LIFE buffers, and the next
 *           thread is created
 *   vary    as `same`, one thread only, but the size changes from buffer to
 *           buffer: at random, from CLASS / 8 to CLASS
 *
 * Three measurements follow each other.
 *
 * 1. Throughput. The threads run freely, and their counters are read twice,
 *    SECONDS apart. Before the first reading there is a warm-up: as many rounds
 *    as there are buffers, twice, unless that takes too long. With one thread
 *    `busy` is the processor time of a buffer, which other load of the machine
 *    changes less.
 * 2. Memory. The peak so far, and what is left when the threads have ended;
 *    what the process had before the rival was started is subtracted. At the
 *    very end bufpool is told to trim, and what is left then is `trimmed`.
 * 3. Latency, in new threads. Each take and each give is timed; what the thread
 *    does between them is not. Both times of one buffer are one sample. It
 *    includes four readings of the clock; `clock` is what these cost alone.
 *
 * The program prints one line of name=number, times in nanoseconds.
 *
 * All pools may have the same number of buffers: as many as the pattern holds,
 * and four for each thread. Pools that can make buffers in advance do so.
 *
 * With `check` every buffer is read in full when it is taken, and must be zero;
 * and what was written must still be there when the buffer is given back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "bufpool.h"

#define PROCESSORS 2
#define THREADS_MAX 64
#define LIFE 100		/* buffers of a thread that comes and goes */
#define HELD_BYTES (8u << 20)	/* in a burst or a ring: so many bytes, */
#define HELD_MAX 128		/* so many buffers at most, */
#define HELD_MIN 8		/* at least */
#define SPINS 64		/* looks at a ring before a yield */
#define WARM 0.3		/* warm-up: of SECONDS, */
#define WARM_MAX 4.0		/* and longer if most buffers are still new */

#define INLINE static inline __attribute__((always_inline))

/* A buffer between take and give, with the rival's own state. It fills one
 * cache line, and is not copied when it passes to another thread. */
struct held {
	uint8_t *bytes;
	uint64_t state[5];
	uint64_t took;		/* ticks of take */
	uint64_t stamp;		/* what it was dirtied with; check only */
} __attribute__((aligned(64)));

struct ring {
	_Alignas(64) _Atomic size_t put;	/* producer's */
	_Atomic bool ended;
	_Alignas(64) _Atomic size_t got;	/* consumer's */
	_Alignas(64) struct held slot[HELD_MAX];
};

/* Counts samples by their ticks: exactly below 2 * SUB ticks, and with an error
 * of at most one part in SUB above. */
#define SUB 128
#define BUCKETS ((44 - 6) * SUB)
struct histogram {
	uint32_t count[BUCKETS];
	uint64_t worst;
};

struct worker {
	_Alignas(64) _Atomic uint64_t done;	/* buffers given back */
	uint64_t left;		/* until this thread ends */
	struct ring *ring;
	unsigned id;
	pthread_t thread;
	struct histogram times;
	struct held held[HELD_MAX];
};

typedef void take_fn(struct held *);
typedef void give_fn(struct held *);

enum pattern { SAME, PASS, BURST, VARY, CHURN, READ, PATTERNS };
static const char *const pattern_name[] = { "same", "pass", "burst", "vary",
					    "churn", "read" };

struct rival {
	const char *name;
	bool (*start)(void);
	void (*enter)(void), (*leave)(void);	/* thread begins, ends */
	void (*loop[CHURN])(struct worker *);
	const char *preload, *symbol;		/* instead of libc's malloc */
	const char *object, *prefix;		/* or a shared object */
	const char *package;			/* who has it */
};

/* The cell. Read only while threads run, except the two flags; the only thread
 * of VARY changes the sizes. */
static const struct rival *rival;
static size_t class, dirty_bytes, held_count, buffers;
static size_t dirty_part;	/* 1: all, 2: half, 0: a number of bytes */
static size_t vary_from, vary_to;
static unsigned threads;
static enum pattern pattern;
static bool timed, check, reading;
static _Atomic bool stop, recording;

static struct worker *worker;
static struct ring *ring;

static void
die(const char *what)
{
	fprintf(stderr, "%s: %s\n", rival ? rival->name : "core", what);
	exit(1);
}

/* Zeroed memory. It does not come from malloc, which is being measured. */
static void *
pages(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("no memory");
	return p;
}

static uint64_t
clock_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t
nanoseconds(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

/* The fences keep what is timed between the two readings around it. */
INLINE uint64_t
ticks(void)
{
#if defined(__x86_64__)
	uint64_t t;

	_mm_lfence();
	t = __rdtsc();
	_mm_lfence();
	return t;
#else
	return nanoseconds();
#endif
}

/* Rivals ------------------------------------------------------------------- */

static struct bufpool *pool;

static bool
bufpool_start(void)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	config.four_kib_count = config.sixty_four_kib_count = 0;
	config.two_fifty_six_kib_count = config.one_mib_count = 0;
	if (class <= 1048576)
		*(class <= 4096 ? &config.four_kib_count
		  : class <= 65536 ? &config.sixty_four_kib_count
		  : class <= 262144 ? &config.two_fifty_six_kib_count
		  : &config.one_mib_count) = buffers;
	pool = bufpool_create(&config);
	return pool != NULL;
}

INLINE void
bufpool_take(struct held *h)
{
	struct bufpool_buf *b = bufpool_checkout(pool, class);

	if (b == NULL)
		die("no buffer");
	h->state[0] = (uint64_t)(uintptr_t)b;
	h->bytes = bufpool_data(b);
}

INLINE void
bufpool_give(struct held *h)
{
	struct bufpool_buf *b = (void *)(uintptr_t)h->state[0];

	bufpool_wrote(b, dirty_bytes);
	bufpool_release(b);
}

INLINE void
bufpool_all_give(struct held *h)
{
	bufpool_release((void *)(uintptr_t)h->state[0]);
}
#define bufpool_all_take bufpool_take

/* Hides from the compiler that the memory is malloc's. Otherwise it would turn
 * malloc and memset into calloc, and drop a memset before free. */
INLINE uint8_t *
unknown(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

INLINE void
calloc_take(struct held *h)
{
	h->bytes = unknown(calloc(1, class));
	if (h->bytes == NULL)
		die("no buffer");
}

INLINE void
malloc_take(struct held *h)
{
	h->bytes = unknown(malloc(class));
	if (h->bytes == NULL)
		die("no buffer");
	memset(h->bytes, 0, class);
}

INLINE void
malloc_give(struct held *h)
{
	free(unknown(h->bytes));
}
#define calloc_give malloc_give

/* What a rival's shared object exports, with its prefix before each name. */
static bool (*loaded_start)(size_t class, size_t buffers, size_t cached,
			    unsigned threads);
static uint8_t *(*loaded_take)(void *state);
static void (*loaded_give)(void *state, size_t dirty);
static void (*loaded_enter)(void), (*loaded_leave)(void);	/* or NULL */

static bool
object_start(void)
{
	/* A thread's cache holds as much as a cache of bufpool. */
	size_t cached = ((size_t)2 << 20) / class;

	return loaded_start(class, buffers, cached < 60 ? cached : 60,
			    threads);
}

static void
object_enter(void)
{
	if (loaded_enter != NULL)
		loaded_enter();
}

static void
object_leave(void)
{
	if (loaded_leave != NULL)
		loaded_leave();
}

INLINE void
object_take(struct held *h)
{
	h->bytes = loaded_take(h->state);
}

INLINE void
object_give(struct held *h)
{
	loaded_give(h->state, dirty_bytes);
}

static __thread uint8_t *own;

INLINE void
memset_take(struct held *h)
{
	h->bytes = own;
}

INLINE void
memset_give(struct held *h)
{
	memset(unknown(h->bytes), 0, dirty_bytes);
	unknown(h->bytes);
}

static void
memset_enter(void)
{
	own = pages(class);
}

/* Patterns ----------------------------------------------------------------- */

static __attribute__((noinline)) void
dirty(uint8_t *bytes, int value)
{
	memset(bytes, value, dirty_bytes);
}

static __attribute__((noinline)) void
look(const uint8_t *bytes)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i + sizeof word <= dirty_bytes; i += sizeof word) {
		memcpy(&word, bytes + i, sizeof word);
		sum += word;
	}
	__asm__ volatile("" : : "r"(sum));
}

static void
record(struct worker *w, uint64_t t)
{
	struct histogram *times = &w->times;
	unsigned shift;

	if (!atomic_load_explicit(&recording, memory_order_relaxed))
		return;
	if (t > times->worst)
		times->worst = t;
	if (t >> 43)
		t = ((uint64_t)1 << 43) - 1;
	shift = t < 2 * SUB ? 0 : 63 - 7 - (unsigned)__builtin_clzll(t);
	times->count[shift * SUB + (t >> shift)]++;
}

static bool
all(const uint8_t *bytes, size_t n, uint8_t value)
{
	return n == 0 ||
	    (bytes[0] == value && memcmp(bytes, bytes + 1, n - 1) == 0);
}

INLINE void
use(struct worker *w, struct held *h, take_fn take, bool time)
{
	uint64_t from = time ? ticks() : 0;

	take(h);
	if (time)
		h->took = ticks() - from;
	if (__builtin_expect(check, 0)) {
		if (!all(h->bytes, class, 0))
			die("a buffer that is not zero");
		h->stamp = 1 + (w->id + w->done) % 255;
		dirty(h->bytes, (int)h->stamp);
	} else {
		dirty(h->bytes, 0xA5);
	}
}

INLINE void
back(struct worker *w, struct held *h, give_fn give, bool time)
{
	uint64_t from;

	if (__builtin_expect(check, 0) &&
	    !all(h->bytes, dirty_bytes, (uint8_t)h->stamp))
		die("a buffer that somebody else has written");
	from = time ? ticks() : 0;
	give(h);
	if (time)
		record(w, h->took + ticks() - from);
	atomic_store_explicit(&w->done, w->done + 1, memory_order_relaxed);
}

INLINE bool
stopped(void)
{
	return atomic_load_explicit(&stop, memory_order_relaxed);
}

INLINE void
same(struct worker *w, take_fn take, give_fn give, bool time)
{
	struct held h;

	for (; w->left != 0 && !stopped(); w->left--) {
		use(w, &h, take, time);
		back(w, &h, give, time);
	}
}

static void
set_class(size_t n)
{
	class = n;
	if (dirty_part != 0)
		dirty_bytes = n / dirty_part;
}

INLINE void
vary(struct worker *w, take_fn take, give_fn give, bool time)
{
	uint64_t x = 88172645463325252;
	struct held h;

	while (!stopped()) {
		x ^= x << 13;	/* Marsaglia's xorshift64 */
		x ^= x >> 7;
		x ^= x << 17;
		set_class(vary_from + x % (vary_to - vary_from + 1));
		use(w, &h, take, time);
		back(w, &h, give, time);
	}
	set_class(vary_to);
}

INLINE void
burst(struct worker *w, take_fn take, give_fn give, bool time)
{
	while (!stopped()) {
		for (size_t k = 0; k < held_count; k++)
			use(w, &w->held[k], take, time);
		for (size_t k = 0; k < held_count; k++)
			back(w, &w->held[k], give, time);
	}
}

/* Waits until the other side has moved away from `from`; false when it has
 * ended instead. */
static bool
wait_for(const _Atomic size_t *side, size_t from, const _Atomic bool *end)
{
	for (unsigned spins = 0;; spins++) {
		bool ended = atomic_load(end);

		if (atomic_load(side) != from)
			return true;
		if (ended)
			return false;
		if (spins >= SPINS)
			sched_yield();
	}
}

/* Each side publishes its position once for each quarter of the ring. If it did
 * so for each buffer, the measurement would be mostly of these two words. */
INLINE void
tell(_Atomic size_t *side, size_t at)
{
	if (at % (held_count / 4) == 0)
		atomic_store_explicit(side, at, memory_order_release);
}

INLINE void
produce(struct worker *w, take_fn take, bool time)
{
	struct ring *r = w->ring;
	size_t put = 0, got = 0;

	while (!stopped()) {
		if (put - got == held_count) {
			if (!wait_for(&r->got, got, &stop))
				break;
			got = atomic_load_explicit(&r->got,
						   memory_order_acquire);
		}
		use(w, &r->slot[put % HELD_MAX], take, time);
		tell(&r->put, ++put);
	}
	atomic_store(&r->put, put);
	atomic_store(&r->ended, true);
}

INLINE void
consume(struct worker *w, give_fn give, bool time)
{
	struct ring *r = w->ring;
	size_t put = 0, got = 0;

	for (;;) {
		if (put == got) {
			if (!wait_for(&r->put, put, &r->ended))
				break;
			put = atomic_load_explicit(&r->put,
						   memory_order_acquire);
		}
		if (reading)
			look(r->slot[got % HELD_MAX].bytes);
		back(w, &r->slot[got % HELD_MAX], give, time);
		tell(&r->got, ++got);
	}
}

INLINE void
pass(struct worker *w, take_fn take, give_fn give, bool time)
{
	if (w->id % 2 == 0)
		produce(w, take, time);
	else
		consume(w, give, time);
}

/* Each rival has its own loops, with its functions inlined. */
#define LOOP(name, pattern)						\
static void								\
name##_##pattern(struct worker *w)					\
{									\
	if (timed)							\
		pattern(w, name##_take, name##_give, true);		\
	else								\
		pattern(w, name##_take, name##_give, false);		\
}
#define LOOPS(name)							\
	LOOP(name, same) LOOP(name, pass) LOOP(name, burst) LOOP(name, vary)

LOOPS(bufpool)
LOOPS(bufpool_all)
LOOPS(calloc)
LOOPS(malloc)
LOOPS(object)
LOOPS(memset)

static bool
nothing_to_start(void)
{
	return true;
}

static void
nothing(void)
{
}

#define WITH(name) { name##_same, name##_pass, name##_burst, name##_vary }
#define ALLOCATOR(x, ...)						\
	{ x "-calloc", nothing_to_start, nothing, nothing,		\
	  WITH(calloc), __VA_ARGS__ },					\
	{ x "-malloc", nothing_to_start, nothing, nothing,		\
	  WITH(malloc), __VA_ARGS__ }
#define OBJECT(name, file, prefix, package)				\
	{ name, object_start, object_enter, object_leave,		\
	  WITH(object), NULL, NULL, file, prefix, package }

static const struct rival rivals[] = {
	{ "bufpool", bufpool_start, nothing, nothing, WITH(bufpool),
	  .package = NULL },
	{ "bufpool-all", bufpool_start, nothing, nothing, WITH(bufpool_all),
	  .package = NULL },
	ALLOCATOR("glibc", .package = NULL),
	ALLOCATOR("jemalloc", "libjemalloc.so.2", "mallctl",
		  .package = "Debian's libjemalloc2"),
	ALLOCATOR("mimalloc", "libmimalloc.so.2", "mi_version",
		  .package = "Debian's libmimalloc2.0"),
	ALLOCATOR("tcmalloc", "libtcmalloc_minimal.so.4", "tc_version",
		  .package = "Debian's libtcmalloc-minimal4"),
	OBJECT("mempool", "dpdk.so", "mempool", "Debian's libdpdk-dev"),
	OBJECT("mempool-d", "dpdk.so", "mempool_d", "Debian's libdpdk-dev"),
	OBJECT("santh", "rust.so", "santh", "cargo, and a crates registry"),
	OBJECT("zeropool", "rust.so", "zeropool",
	       "cargo, and a crates registry"),
	{ "memset", nothing_to_start, memset_enter, nothing, WITH(memset),
	  .package = NULL },
};
#define RIVALS (sizeof rivals / sizeof rivals[0])

static void
absent(const char *what)
{
	fprintf(stderr, "%s: no %s: needs %s\n", rival->name, what,
		rival->package);
	exit(2);
}

/* Executes this program again, with the rival's malloc. */
static void
preload(char **argv)
{
	const char *tried = getenv("LD_PRELOAD");

	if (rival->preload == NULL ||
	    dlsym(RTLD_DEFAULT, rival->symbol) != NULL)
		return;
	if (tried != NULL && strcmp(tried, rival->preload) == 0)
		absent(rival->preload);
	setenv("LD_PRELOAD", rival->preload, 1);
	execv("/proc/self/exe", argv);
	die("cannot execute itself");
}

static void *
find(void *object, const char *what)
{
	char name[64];

	snprintf(name, sizeof name, "%s_%s", rival->prefix, what);
	return dlsym(object, name);
}

static void
load(void)
{
	char path[4096];
	ssize_t n;
	void *object;

	if (rival->object == NULL)
		return;
	n = readlink("/proc/self/exe", path, sizeof path - 32);
	if (n < 0)
		die("no /proc");
	path[n] = '\0';
	strcpy(strrchr(path, '/') + 1, rival->object);
	object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (object == NULL)
		absent(rival->object);
	*(void **)&loaded_start = find(object, "start");
	*(void **)&loaded_take = find(object, "take");
	*(void **)&loaded_give = find(object, "give");
	*(void **)&loaded_enter = find(object, "enter");
	*(void **)&loaded_leave = find(object, "leave");
	if (!loaded_start || !loaded_take || !loaded_give)
		die("an object without its functions");
}

/* Running ------------------------------------------------------------------ */

static void *
run(void *arg)
{
	rival->enter();
	rival->loop[pattern == CHURN ? SAME : pattern](arg);
	rival->leave();
	return NULL;
}

static void *
come_and_go(void *arg)
{
	struct worker *w = arg;
	pthread_t life;

	while (!stopped()) {
		w->left = LIFE;
		if (pthread_create(&life, NULL, run, w) != 0)
			die("no thread");
		pthread_join(life, NULL);
	}
	return NULL;
}

/* How many buffers were given back, and at what time. Reads again when it took
 * long: the threads go on, and may have taken this thread's processor. */
static struct count {
	uint64_t done, at;
}
count(void)
{
	struct count c;
	uint64_t to;

	do {
		c.done = 0;
		c.at = nanoseconds();
		for (unsigned k = 0; k < threads; k++)
			c.done += worker[k].done;
		to = nanoseconds();
	} while (to - c.at > 20000);
	return c;
}

/* The processor time of the only thread, while it runs the pattern. */
static uint64_t
busy(void)
{
	clockid_t clock;

	if (threads > 1 || pattern == CHURN ||
	    pthread_getcpuclockid(worker->thread, &clock) != 0)
		return 0;
	return clock_of(clock);
}

static void
pause_for(double seconds)
{
	struct timespec t = { (time_t)seconds,
	    (long)((seconds - (double)(time_t)seconds) * 1e9) };

	nanosleep(&t, NULL);
}

/* Runs the pattern; returns buffers per second. *ns becomes the processor time
 * of a buffer, or 0. */
static double
phase(double seconds, bool with_clock, double *ns)
{
	uint64_t begun = count().done, busy_from, busy_to;
	struct count from, to;

	timed = with_clock;
	stop = recording = false;
	memset(ring, 0, sizeof *ring * threads);
	for (unsigned k = 0; k < threads; k++) {
		struct worker *w = &worker[k];

		w->id = k;
		w->ring = &ring[k / 2];
		w->left = UINT64_MAX;
		if (pthread_create(&w->thread, NULL,
				   pattern == CHURN ? come_and_go : run,
				   w) != 0)
			die("no thread");
	}
	for (double part = WARM; part < WARM_MAX; part += WARM) {
		pause_for(seconds * WARM);
		if (count().done - begun >= 2 * buffers)
			break;
	}
	recording = true;
	busy_from = busy();
	from = count();
	pause_for(seconds);
	busy_to = busy();
	to = count();
	stop = true;
	for (unsigned k = 0; k < threads; k++)
		pthread_join(worker[k].thread, NULL);
	*ns = (double)(busy_to - busy_from) / (double)(to.done - from.done);
	return (double)(to.done - from.done) * 1e9 / (double)(to.at - from.at);
}

static long
status(const char *field)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "r");

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, field, strlen(field)) == 0)
			kib = atol(line + strlen(field));
	if (f != NULL)
		fclose(f);
	return kib;
}

static struct histogram *
merged(void)
{
	struct histogram *sum = pages(sizeof *sum);

	for (unsigned k = 0; k < threads; k++) {
		const struct histogram *h = &worker[k].times;

		for (size_t b = 0; b < BUCKETS; b++)
			sum->count[b] += h->count[b];
		if (h->worst > sum->worst)
			sum->worst = h->worst;
	}
	return sum;
}

static uint64_t
samples(const struct histogram *h)
{
	uint64_t sum = 0;

	for (size_t b = 0; b < BUCKETS; b++)
		sum += h->count[b];
	return sum;
}

/* In ticks; too high by one part in SUB at most. */
static double
percentile(const struct histogram *h, double part)
{
	double want = part * (double)samples(h);
	uint64_t sum = 0;
	size_t b = 0;

	while (b < BUCKETS && (double)(sum += h->count[b]) < want)
		b++;
	if (b >= 2 * SUB) {
		unsigned shift = (unsigned)(b / SUB - 1);
		uint64_t top = (((uint64_t)b % SUB + SUB + 1) << shift) - 1;

		return (double)(top < h->worst ? top : h->worst);
	}
	return (double)b;
}

/* The median of a sample in which nothing is done. */
static double
clock_alone(void)
{
	struct histogram *h = pages(sizeof *h);
	uint64_t from, t;

	for (int k = 0; k < 10000; k++) {
		from = ticks();
		t = ticks() - from;
		from = ticks();
		t += ticks() - from;
		h->count[t < 2 * SUB ? t : 2 * SUB - 1]++;
	}
	return percentile(h, 0.5);
}

static void
two_processors(void)
{
	cpu_set_t all_of_them, some;

	CPU_ZERO(&some);
	sched_getaffinity(0, sizeof all_of_them, &all_of_them);
	for (size_t k = 0; k < CPU_SETSIZE; k++)
		if (CPU_ISSET(k, &all_of_them) && CPU_COUNT(&some) < PROCESSORS)
			CPU_SET(k, &some);
	sched_setaffinity(0, sizeof some, &some);
}

static void
parse(int argc, char **argv)
{
	if (argc < 6 || argc > 7)
		goto usage;
	for (size_t k = 0; k < RIVALS; k++)
		if (strcmp(argv[1], rivals[k].name) == 0)
			rival = &rivals[k];
	dirty_part = strcmp(argv[3], "all") == 0 ? 1
	    : strcmp(argv[3], "half") == 0 ? 2 : 0;
	dirty_bytes = strtoul(argv[3], NULL, 10);
	set_class(strtoul(argv[2], NULL, 10));
	vary_from = class / 8;
	vary_to = class;
	threads = (unsigned)strtoul(argv[4], NULL, 10);
	while (pattern < PATTERNS &&
	       strcmp(argv[5], pattern_name[pattern]) != 0)
		pattern++;
	if (rival != NULL && class >= 4096 && dirty_bytes <= class &&
	    (pattern != VARY || dirty_part != 0 || dirty_bytes <= vary_from) &&
	    pattern < PATTERNS && threads >= 1 && threads <= THREADS_MAX &&
	    ((pattern != PASS && pattern != READ) || threads % 2 == 0) &&
	    (pattern != VARY || threads == 1)) {
		reading = pattern == READ;
		if (reading)
			pattern = PASS;
		return;
	}
usage:
	fputs("usage: core RIVAL BYTES BYTES|half|all THREADS"
	      " same|pass|read|burst|vary|churn [SECONDS|check]\nrivals:",
	      stderr);
	for (size_t k = 0; k < RIVALS; k++)
		fprintf(stderr, " %s", rivals[k].name);
	fputs("\n", stderr);
	exit(64);
}

/* How many buffers there may be at once: what the pattern holds, and four for
 * each thread's cache. */
static void
plan(void)
{
	held_count = HELD_BYTES / class;
	if (held_count > HELD_MAX)
		held_count = HELD_MAX;
	if (held_count < HELD_MIN)
		held_count = HELD_MIN;
	buffers = threads * 4 + (pattern == BURST ? threads * held_count
	    : pattern == PASS ? threads / 2 * (held_count + 1) : threads);
}

int
main(int argc, char **argv)
{
	double seconds = 0.05, rate, ns, busy_ns, unused;
	uint64_t tick, from;
	long before, peak, after;
	struct histogram *h;

	parse(argc, argv);
	preload(argv);
	if (argc == 7) {
		check = strcmp(argv[6], "check") == 0;
		seconds = check ? seconds : atof(argv[6]);
	}
	two_processors();
	plan();
	worker = pages(sizeof *worker * threads);
	ring = pages(sizeof *ring * threads);
	load();
	before = status("VmRSS:");
	if (!rival->start())
		die("does not start");

	rate = phase(seconds, false, &busy_ns);
	peak = status("VmHWM:") - before;
	after = status("VmRSS:") - before;
	tick = ticks();
	from = nanoseconds();
	phase(seconds, true, &unused);
	ns = (double)(nanoseconds() - from) / (double)(ticks() - tick);
	h = merged();
	if (pool != NULL) {
		bufpool_trim(pool);
		printf("trimmed=%ld ", status("VmRSS:") - before);
	}
	if (busy_ns > 0 && busy_ns < 1e18)	/* false for a NaN */
		printf("busy=%.1f ", busy_ns);
	printf("rate=%.0f p50=%.1f p99=%.1f p999=%.1f p9999=%.1f worst=%.0f"
	       " samples=%llu clock=%.1f peak=%ld after=%ld\n",
	       rate, ns * percentile(h, 0.5), ns * percentile(h, 0.99),
	       ns * percentile(h, 0.999), ns * percentile(h, 0.9999),
	       ns * (double)h->worst, (unsigned long long)samples(h),
	       ns * clock_alone(), peak, after);
	return 0;
}
