/*
 * Sequences of calls of bufpool.h that a seed makes up, against a model.
 *
 * Pools of all shapes come and go, in places that others had before. Buffers
 * are taken, written, resized, appended to, consumed, split, frozen, shared,
 * sent by tickets, released late or by a thread that has exited since. Each
 * step names the thread that does it, and the steps follow each other, so a
 * seed always does the same. Calls to the system fail now and then, and forks
 * happen in between.
 *
 * The model is a copy of the contents of each buffer. Checked are: every byte
 * of every checkout; contents wherever they are looked at; what is out, by the
 * statistics; errno; that nothing is refused which fits below max_bytes, and
 * that what cannot succeed costs no idle memory.
 *
 * In the environment, SEED is the first seed, and drawn when absent; TIME is
 * for how many seconds to go on, and without it there are ROUNDS sequences.
 *
 * Each sequence runs in a child. One that fails is made shorter for as long as
 * it still fails, and is then printed as calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bufpool.h"
#include "rounds.h"

#define ROUNDS 400		/* sequences without TIME */
#define STEPS 300		/* of a sequence, at most */
#define POOLS 4
#define SLOTS 40
#define WORKERS 3		/* threads that stay; one more is always new */
#define CLASS_BYTES (512 << 10)	/* of the largest own class */
#define LEN_MAX (6 << 20)
#define SHORT 20		/* ticket_ttl of some pools, in milliseconds */

enum kind {
	CREATE, DESTROY, CLOSE, CHECKOUT, TRY, ZEROED, ALIGNED, HOPELESS,
	WRITE, WROTE, RESIZE, APPEND, RESERVE, SKIP, SPLIT, RELEASE, FREEZE,
	REF, DETACH, SHARE, ADOPT, MADE_UP,
	TRIM, FLUSH, STATS, FORK, NAP, FAULT, KINDS
};

struct step {
	enum kind kind;
	unsigned thread, pool, slot;
	uint32_t n, m;
};

/* The model of a buffer, by what is known of it. */
enum state { EMPTY, OUT, FROZEN, TICKET };

struct slot {
	enum state state;
	int pool;
	struct bufpool_buf *buf;
	struct bufpool_frozen *frozen;
	unsigned refs;		/* of frozen */
	uint64_t ticket;
	int64_t issued;
	bool expires;
	uint8_t *bytes;
	const uint8_t *base;	/* of the memory */
	size_t len, capacity, align;
	size_t written;		/* end of what was, since bufpool_data */
};

struct model {
	struct bufpool *pool;
	struct bufpool_config config;
	struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX];
	bool closed;
	unsigned out;		/* buffers, whoever has them */
};

static struct slot slots[SLOTS];
static struct model pools[POOLS];
static bool faulted;		/* from now on memory may be short */
static unsigned serial;		/* makes contents different */

/* Failures --------------------------------------------------------------- */

static __thread bool inside;	/* a call of bufpool's */
static unsigned fail_in;	/* calls to the system; 0: none fails */

static bool
fails(void)
{
	if (!inside || fail_in == 0 || --fail_in > 0)
		return false;
	faulted = true;
	errno = ENOMEM;
	return true;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	return fails() ? MAP_FAILED
		       : REAL(mmap)(at, n, prot, flags, fd, offset);
}

int
munmap(void *at, size_t n)
{
	return fails() ? -1 : REAL(munmap)(at, n);
}

int
madvise(void *at, size_t n, int advice)
{
	return fails() ? -1 : REAL(madvise)(at, n, advice);
}

int
mprotect(void *at, size_t n, int prot)
{
	return fails() ? -1 : REAL(mprotect)(at, n, prot);
}

/* Checks ------------------------------------------------------------------ */

static int step_number;		/* for messages */

#define CHECK(what, ...)                                                 \
	do {                                                             \
		if (!(what)) {                                           \
			printf("step %d: ", step_number);                \
			printf(__VA_ARGS__);                             \
			printf(" (%s, errno %d)\n", #what, errno);       \
			fflush(stdout);                                  \
			_exit(1);                                        \
		}                                                        \
	} while (0)

#define IN(call)                                                         \
	({                                                               \
		inside = true;                                           \
		__auto_type result_ = (call);                            \
		inside = false;                                          \
		result_;                                                 \
	})

static int64_t
milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static size_t
whole_pages(size_t n)
{
	return n == 0 ? 4096 : (n + 4095) & ~(size_t)4095;
}

static void
check_zero(const uint8_t *at, size_t n, const char *when)
{
	for (size_t i = 0; i < n; i++)
		CHECK(at[i] == 0, "%s: byte %zu of %zu is %d", when, i, n,
		      at[i]);
}

static const uint8_t *
contents(const struct slot *s)
{
	return s->state == OUT ? bufpool_peek(s->buf)
			       : bufpool_frozen_data(s->frozen);
}

static void
check_slot(const struct slot *s)
{
	const uint8_t *at;

	if (s->state != OUT && s->state != FROZEN)
		return;
	at = contents(s);
	for (size_t i = 0; i < s->len; i++)
		CHECK(at[i] == s->bytes[i], "slot %d: byte %zu of %zu is %d, "
		      "not %d", (int)(s - slots), i, s->len, at[i],
		      s->bytes[i]);
	if (s->state == OUT) {
		CHECK(bufpool_len(s->buf) == s->len, "length");
		CHECK(bufpool_capacity(s->buf) >= s->len, "capacity");
	}
}

/* The bytes that a request may take from max_bytes. */
static size_t
cost(const struct model *m, size_t n, size_t align)
{
	static const size_t four[] = { 4096, 65536, 262144, 1048576 };
	size_t best = SIZE_MAX;

	for (size_t c = 0; c < (m->config.class_count
				? m->config.class_count : 4); c++) {
		size_t size = m->config.class_count ? m->classes[c].size
						    : four[c];

		if (size >= n && size < best)
			best = size;
	}
	return best == SIZE_MAX || align > 4096 ? whole_pages(n) : best;
}

static bool
is_large(const struct model *m, size_t n, size_t align)
{
	size_t largest = m->config.class_count ? 0 : 1048576;

	for (size_t c = 0; c < m->config.class_count; c++)
		if (m->classes[c].size > largest)
			largest = m->classes[c].size;
	return n > largest || align > 4096;
}

static size_t
capacity_out(int pool)
{
	size_t sum = 0;

	for (int i = 0; i < SLOTS; i++)
		if (slots[i].pool == pool && slots[i].state != EMPTY)
			sum += slots[i].capacity;
	return sum;
}

static bool
fits(const struct model *m, size_t bytes)
{
	size_t most = m->config.max_bytes;
	size_t out = capacity_out((int)(m - pools));

	return most == 0 || (out <= most && bytes <= most - out);
}

/* A refusal is right when memory is short, by a fault or by max_bytes. Huge
 * pages are committed whole, so that less may fit. */
static void
check_refusal(const struct model *m, size_t bytes)
{
	if (m->closed) {
		CHECK(errno == ESHUTDOWN, "refused by a closed pool");
		return;
	}
	if (faulted) {
		CHECK(errno == ENOMEM || errno == EDQUOT, "short");
		return;
	}
	CHECK(errno == EDQUOT, "refused");
	CHECK(m->config.huge_pages || !fits(m, bytes), "%zu bytes refused, "
	      "%zu out of %zu", bytes, capacity_out((int)(m - pools)),
	      m->config.max_bytes);
}

static struct bufpool_stats
stats_of(const struct model *m)
{
	struct bufpool_stats s;

	bufpool_get_stats(m->pool, &s);
	return s;
}

/* What was taken off the front lies before the contents, until they move. */
static void
see_memory(struct slot *s)
{
	const uint8_t *at = bufpool_peek(s->buf);

	if (s->base == NULL || at < s->base || at >= s->base + s->capacity)
		s->base = at;
	s->capacity = bufpool_capacity(s->buf) + (size_t)(at - s->base);
}

static void
empty(struct slot *s)
{
	if (s->pool >= 0)
		pools[s->pool].out--;
	free(s->bytes);
	memset(s, 0, sizeof *s);
}

/* Expired tickets are gone for the model once it is certain; true where it is
 * not, just now. */
static bool
settle_tickets(void)
{
	bool unsure = false;

	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &slots[i];
		int64_t age = milliseconds() - s->issued;

		if (s->state != TICKET || !s->expires || age < SHORT - 10)
			continue;
		if (age < SHORT + 15)
			unsure = true;
		else
			empty(s);
	}
	return unsure;
}

static void
check_law(const struct model *m)
{
	struct bufpool_stats s;
	uint64_t out = 0;

	if (settle_tickets())
		return;
	s = stats_of(m);
	for (unsigned c = 0; c < s.class_count; c++) {
		const struct bufpool_class_stats *k = &s.classes[c];

		CHECK(k->count == k->ready + k->cached + k->out,
		      "class %u: %lu of %lu ready, %lu cached, %lu out", c,
		      k->count, k->ready, k->cached, k->out);
		out += k->out;
	}
	CHECK(s.checked_out == out + s.large_out, "sum of what is out");
	CHECK(s.checked_out == m->out, "%lu out, %u by the model",
	      s.checked_out, m->out);
	CHECK(m->config.max_bytes == 0 ||
	      s.committed_bytes <= m->config.max_bytes, "above max_bytes");
	CHECK(s.lost == 0, "lost");
}

/* Steps ------------------------------------------------------------------- */

static uint32_t
mix(uint32_t x)
{
	x = (x ^ x >> 16) * 0x45d9f3bu;
	x = (x ^ x >> 16) * 0x45d9f3bu;
	return x ^ x >> 16;
}

/* A configuration from a number. */
static void
configure(struct model *m, unsigned pool, uint32_t n)
{
	static const char *const name[POOLS] = { "a", "b", "c", "d" };
	struct bufpool_config *c = &m->config;

	bufpool_config_init(c);
	c->four_kib_count = n % 5;
	c->sixty_four_kib_count = n % 3;
	c->two_fifty_six_kib_count = c->one_mib_count = 0;
	n = mix(n + 1);
	if (n % 2) {
		uint32_t count = n / 2 % BUFPOOL_CLASSES_MAX + 1;

		for (uint32_t i = 0; i < count; i++) {
			uint32_t at = CLASS_BYTES / 4096 / count;

			m->classes[i].size = 4096 * (i * at + 1 +
						     mix(n + i) % at);
			m->classes[i].count = mix(n + i + 99) % 3;
		}
		c->class_count = count;
		c->classes = m->classes;
	}
	n = mix(n + 2);
	c->large_bytes = (n % 3) * (n % 3) * ((size_t)2 << 20);
	c->max_bytes = n / 3 % 3 == 0 ? ((n >> 8) % 16 + 4) << 20 : 0;
	n = mix(n + 3);
	c->huge_pages = n % 8 == 0;
	c->prefault = n / 8 % 8 == 0;
	c->numa_node = n / 64 % 8 == 0 ? BUFPOOL_NUMA_LOCAL
				       : BUFPOOL_NUMA_NONE;
	c->ticket_ttl = n / 512 % 2 ? SHORT / 1000.0 : 0;
	c->dump = n / 4096 % 4 != 0;
	if (n / 1024 % 4 == 0)
		c->name = name[pool];
}

static void
create(const struct step *t)
{
	struct model *m = &pools[t->pool];
	struct bufpool *again;

	if (m->pool != NULL)
		return;
	memset(m, 0, sizeof *m);
	configure(m, t->pool, t->n);
	m->pool = IN(bufpool_create(&m->config));
	if (m->pool == NULL) {
		CHECK((faulted && errno == ENOMEM) || errno == EDQUOT,
		      "create");
		return;
	}
	if (m->config.name == NULL)
		return;
	again = bufpool_create(&m->config);
	CHECK(again == m->pool, "the same name is another pool");
	bufpool_destroy(again);
}

/* What is out stays valid. */
static void
destroy(const struct step *t)
{
	struct model *m = &pools[t->pool];

	if (m->pool == NULL)
		return;
	settle_tickets();
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].state != EMPTY && slots[i].pool == (int)t->pool)
			slots[i].pool = -1;
	inside = true;
	bufpool_destroy(m->pool);
	inside = false;
	m->pool = NULL;
}

static void
close_pool(const struct step *t)
{
	struct model *m = &pools[t->pool];

	if (m->pool == NULL || t->n % 4 != 0)
		return;
	inside = true;
	bufpool_close(m->pool);
	inside = false;
	m->closed = true;
}

static void
check_fresh(struct slot *s, const struct model *m)
{
	size_t capacity = bufpool_capacity(s->buf);
	size_t most = cost(m, s->len, s->align);

	CHECK(bufpool_len(s->buf) == s->len, "length");
	check_zero(bufpool_peek(s->buf), capacity, "checkout");
	if (is_large(m, s->len, s->align))
		most *= m->config.max_bytes && !faulted ? 1 : 2;
	CHECK(capacity >= s->len && capacity <= most, "capacity of %zu is %zu",
	      s->len, capacity);
	CHECK((uintptr_t)bufpool_peek(s->buf) %
	      (s->align > 64 ? s->align : 64) == 0, "alignment");
}

static void
checkout(const struct step *t)
{
	struct model *m = &pools[t->pool];
	struct slot *s = &slots[t->slot];
	size_t n = t->n % LEN_MAX;

	if (m->pool == NULL || s->state != EMPTY)
		return;
	if (t->kind == ALIGNED)
		n %= 300000;
	memset(s, 0, sizeof *s);
	s->align = t->kind == ALIGNED ? (size_t)1 << t->m % 17 : 1;
	switch ((int)t->kind) {
	case CHECKOUT:
		s->buf = IN(bufpool_checkout(m->pool, n));
		break;
	case TRY:
		s->buf = IN(bufpool_try_checkout(m->pool, n));
		break;
	case ZEROED:
		s->buf = IN(bufpool_checkout_zeroed(m->pool, n));
		break;
	default:
		s->buf = IN(bufpool_checkout_aligned(m->pool, n, s->align));
	}
	if (s->buf == NULL) {
		if (t->kind != TRY)
			check_refusal(m, cost(m, n, s->align));
		else
			CHECK(errno == EAGAIN || (m->closed && errno ==
			      ESHUTDOWN) || faulted, "try");
		return;
	}
	CHECK(!m->closed, "a closed pool serves");
	s->state = OUT;
	s->pool = (int)t->pool;
	s->len = n;
	s->bytes = calloc(1, n + 1);
	see_memory(s);
	m->out++;
	check_fresh(s, m);
}

/* What can never be had is refused, and idle memory stays. */
static void
hopeless(const struct step *t)
{
	static const size_t sizes[] = {
		(size_t)1 << 50, PTRDIFF_MAX, SIZE_MAX, (size_t)1 << 46
	};
	struct model *m = &pools[t->pool];
	struct bufpool_stats before;
	size_t n = sizes[t->n % 4];

	if (m->pool == NULL || m->closed || settle_tickets())
		return;
	before = stats_of(m);
	CHECK(bufpool_checkout(m->pool, n) == NULL, "%zu bytes", n);
	CHECK(errno == ENOMEM || errno == EDQUOT ||
	      (n > PTRDIFF_MAX && errno == EOVERFLOW), "hopeless");
	/* The time alone may have given so much back. */
	CHECK(stats_of(m).committed_bytes + (5 << 20) >= before.committed_bytes,
	      "%zu bytes committed, %zu before",
	      (size_t)stats_of(m).committed_bytes,
	      (size_t)before.committed_bytes);
}

/* Makes up n bytes of slot s from `from` on, and writes them there. */
static void
write_at(struct slot *s, uint8_t *at, size_t from, size_t n)
{
	serial++;
	for (size_t i = 0; i < n; i++)
		at[i] = s->bytes[from + i] =
		    (uint8_t)((from + i) * 7 + serial * 31) | 1;
	if (n > 0 && from + n > s->written)
		s->written = from + n;
}

static void
write_some(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	size_t from, n;
	uint8_t *at;

	if (s->state != OUT || s->len == 0)
		return;
	check_slot(s);
	from = t->n % s->len;
	n = t->m % (s->len - from) + 1;
	at = bufpool_data(s->buf);
	s->written = 0;
	write_at(s, at + from, from, n);
	if (t->m / 7 % 2)
		bufpool_wrote(s->buf, from + n + t->m / 16 % 1000);
}

/* A promise that comes late, when the contents may have moved. */
static void
wrote(const struct step *t)
{
	struct slot *s = &slots[t->slot];

	if (s->state == OUT)
		bufpool_wrote(s->buf, s->written + t->n / 4 % 1000 *
			      (t->n % 2));
}

static void
refused(struct slot *s, const char *what)
{
	CHECK(errno == ENOMEM || errno == EDQUOT, "%s", what);
	CHECK(faulted || errno == EDQUOT, "%s", what);
	CHECK(bufpool_len(s->buf) == s->len, "length after a refusal");
	check_slot(s);
}

/* The new bytes of the model are zero. */
static void
set_len(struct slot *s, size_t n)
{
	s->bytes = realloc(s->bytes, n + 1);
	if (n > s->len)
		memset(s->bytes + s->len, 0, n - s->len);
	s->len = n;
	see_memory(s);
}

static void
resize(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	size_t n = t->n % LEN_MAX, before;

	if (s->state != OUT)
		return;
	check_slot(s);
	before = bufpool_capacity(s->buf);
	if (IN(bufpool_resize(s->buf, n)) != 0) {
		refused(s, "resize");
		return;
	}
	set_len(s, n);
	CHECK(bufpool_capacity(s->buf) == before || n > before,
	      "capacity changed");
	check_slot(s);
}

/* Mostly less than the smallest class. */
static size_t
few(const struct step *t)
{
	return t->n % 8 != 0 ? t->n / 8 % 2000 : t->n / 8;
}

/* A part of itself, or of elsewhere. */
static void
append(const struct step *t)
{
	static uint8_t other[70000];
	struct slot *s = &slots[t->slot];
	size_t from = 0, n = few(t) % sizeof other, len = s->len;
	bool own = t->m % 4 == 0 && len > 0;
	const uint8_t *at = other;

	if (s->state != OUT || len + n >= LEN_MAX)
		return;
	check_slot(s);
	if (own) {
		from = t->m / 4 % len;
		n = n % (len - from) + 1;
		at = (const uint8_t *)bufpool_peek(s->buf) + from;
	} else {
		serial++;
		for (size_t i = 0; i < n; i++)
			other[i] = (uint8_t)(i * 7 + serial * 31) | 1;
	}
	if (IN(bufpool_append(s->buf, at, n)) != 0) {
		refused(s, "append");
		return;
	}
	set_len(s, len + n);
	memcpy(s->bytes + len, own ? s->bytes + from : other, n);
	if (n > 0 && len + n > s->written)
		s->written = len + n;
	check_slot(s);
}

/* Now and then nothing is committed of what was written. */
static void
reserve(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	size_t len = s->len, n = few(t) % 200000, kept = t->m / 4 % (n + 1);
	uint8_t *at;

	if (s->state != OUT || len + n >= LEN_MAX)
		return;
	at = IN(bufpool_reserve(s->buf, n));
	if (at == NULL) {
		refused(s, "reserve");
		return;
	}
	CHECK(at == (const uint8_t *)bufpool_peek(s->buf) + len, "reserve");
	set_len(s, len + kept);
	write_at(s, at, len, kept);
	CHECK(bufpool_commit(s->buf, n + 1) == -1 && errno == EINVAL,
	      "committed more than was reserved");
	if (t->m % 4 != 0)
		CHECK(bufpool_commit(s->buf, kept) == 0, "commit");
	else
		s->len = len;
	check_slot(s);
}

static void
skip(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	size_t n = t->n % (s->len + 1);

	if (s->state != OUT)
		return;
	if (t->m % 4 == 0)
		n = s->len;
	CHECK(bufpool_skip(s->buf, s->len + 1) == -1 && errno == EINVAL,
	      "skipped more than there is");
	CHECK(bufpool_skip(s->buf, n) == 0, "skip");
	s->len -= n;
	memmove(s->bytes, s->bytes + n, s->len);
	s->written = s->written > n ? s->written - n : 0;
	check_slot(s);
}

/* The part goes to another slot. It may have the memory, whose start only the
 * slot knows. */
static void
split(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	struct slot *part = &slots[(t->slot + 1 + t->m % 2) % SLOTS];
	size_t n = t->n % (s->len + 1);
	struct bufpool_buf *buf;

	if (s->state != OUT || part->state != EMPTY)
		return;
	if (t->m % 16 < 6)
		n = s->len - n % (s->len / 8 + 1);
	CHECK(bufpool_split(s->buf, s->len + 1) == NULL && errno == EINVAL,
	      "split off more than there is");
	buf = IN(bufpool_split(s->buf, n));
	if (buf == NULL) {
		refused(s, "split");
		return;
	}
	*part = *s;
	part->buf = buf;
	part->bytes = malloc(n + 1);
	memcpy(part->bytes, s->bytes, n);
	part->len = part->written = n;
	if (part->pool >= 0)
		pools[part->pool].out++;
	s->len -= n;
	memmove(s->bytes, s->bytes + n, s->len);
	s->written = s->written > n ? s->written - n : 0;
	see_memory(s);
	see_memory(part);
	check_slot(s);
	check_slot(part);
}

static void
release(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	struct bufpool_frozen *frozen = s->frozen;

	check_slot(s);
	errno = 77;
	inside = true;
	if (s->state == OUT) {
		struct bufpool_buf *buf = s->buf;

		empty(s);
		bufpool_release(buf);
	} else if (s->state == FROZEN) {
		if (--s->refs == 0)
			empty(s);
		bufpool_frozen_unref(frozen);
	}
	inside = false;
	CHECK(errno == 77, "release changed errno");
}

static void
freeze(const struct step *t)
{
	struct slot *s = &slots[t->slot];

	if (s->state != OUT)
		return;
	s->frozen = bufpool_freeze(s->buf);
	s->state = FROZEN;
	s->refs = 1;
	CHECK(bufpool_frozen_len(s->frozen) == s->len, "length");
	check_slot(s);
}

static void
ref(const struct step *t)
{
	struct slot *s = &slots[t->slot];

	if (s->state != FROZEN)
		return;
	CHECK(bufpool_frozen_ref(s->frozen) == s->frozen, "ref");
	s->refs++;
}

static void
detach(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	uint64_t ticket;

	if (s->state != OUT || s->pool < 0)
		return;
	ticket = IN(bufpool_detach(s->buf));
	if (ticket == 0) {
		CHECK(faulted && errno == ENOMEM, "detach");
		return;
	}
	CHECK(ticket < 100000000000000u, "ticket");
	s->ticket = ticket;
	s->state = TICKET;
	s->issued = milliseconds();
	s->expires = pools[s->pool].config.ticket_ttl != 0;
}

/* Hands a reference over and takes it back, for the slot's own frozen buffer:
 * by ticket, where no time to live can come in between. */
static void
share(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	struct bufpool_frozen *f, *g;
	size_t from = t->n % (s->len + 1), n = t->m % (s->len - from + 1);
	struct bufpool_buf *b;
	uint64_t ticket;
	size_t offset, len;

	if (s->state != FROZEN || s->pool < 0 ||
	    pools[s->pool].config.ticket_ttl != 0)
		return;
	f = bufpool_frozen_ref(s->frozen);
	CHECK(bufpool_share_range(f, from, s->len - from + 1) == 0 &&
	      errno == EINVAL, "shared more than there is");
	ticket = IN(bufpool_share_range(f, from, n));
	if (ticket == 0) {
		CHECK(faulted && errno == ENOMEM, "share");
		bufpool_frozen_unref(f);
		return;
	}
	CHECK(bufpool_adopt_range(ticket, &b, &g, &offset, &len) == 0 &&
	      b == NULL && g == f && offset == from && len == n,
	      "adopt of what was shared");
	bufpool_frozen_unref(g);
	CHECK(bufpool_adopt(ticket, &b, &g) == -1 && errno == ESTALE,
	      "adopted twice");
}

static void
adopt(const struct step *t)
{
	struct slot *s = &slots[t->slot];
	struct bufpool_frozen *frozen;
	int64_t age = milliseconds() - s->issued;

	if (s->state != TICKET)
		return;
	if (IN(bufpool_adopt(s->ticket, &s->buf, &frozen)) == 0) {
		CHECK(!s->expires || age < SHORT + 15, "adopted after %d ms",
		      (int)age);
		CHECK(frozen == NULL, "adopted another kind");
		s->state = OUT;
		check_slot(s);
		CHECK(bufpool_adopt(s->ticket, &(struct bufpool_buf *){ 0 },
				    &frozen) == -1 && errno == ESTALE,
		      "adopted twice");
		return;
	}
	CHECK(errno == ESTALE, "adopt");
	age = milliseconds() - s->issued;
	CHECK(s->expires && age >= SHORT - 10, "refused after %d ms", (int)age);
	empty(s);
}

static void
made_up(const struct step *t)
{
	struct bufpool_frozen *f;
	struct bufpool_buf *b;
	uint64_t ticket = ((uint64_t)t->n << 32 | t->m) >> t->n % 40;

	for (int i = 0; i < SLOTS; i++)
		if (slots[i].state == TICKET && slots[i].ticket == ticket)
			return;
	CHECK(bufpool_adopt(ticket, &b, &f) == -1, "adopted %lu", ticket);
	CHECK(errno == ENOENT || errno == ESTALE, "made up");
}

static void
trim(const struct step *t)
{
	struct model *m = &pools[t->pool];
	struct bufpool_stats before, after;
	size_t bytes;

	if (m->pool == NULL || settle_tickets())
		return;
	before = stats_of(m);
	bytes = IN(bufpool_trim(m->pool));
	after = stats_of(m);
	CHECK(before.committed_bytes - after.committed_bytes == bytes,
	      "trim gave %zu, and %zu have gone", bytes,
	      (size_t)(before.committed_bytes - after.committed_bytes));
	check_law(m);
}

static void
look(const struct step *t)
{
	if (pools[t->pool].pool != NULL)
		check_law(&pools[t->pool]);
	for (int i = 0; i < SLOTS; i++)
		check_slot(&slots[i]);
}

/* The child has what its parent had, and may go on. */
static void
fork_once(void)
{
	int status = -1;
	pid_t child = fork();

	CHECK(child >= 0, "fork");
	if (child > 0) {
		waitpid(child, &status, 0);
		CHECK(status == 0, "the child failed");
		return;
	}
	alarm(20);
	for (int i = 0; i < SLOTS; i++)
		check_slot(&slots[i]);
	for (int i = 0; i < POOLS; i++)
		for (size_t n = 1; pools[i].pool && n < 3000000; n *= 7) {
			struct bufpool_buf *b =
			    bufpool_checkout(pools[i].pool, n);

			if (b == NULL)
				continue;
			check_zero(bufpool_peek(b), bufpool_capacity(b),
				   "in the child");
			memset(bufpool_data(b), 0xee, n);
			bufpool_release(b);
		}
	for (int i = 0; i < SLOTS; i++) {
		struct bufpool_frozen *f;
		struct bufpool_buf *b;

		if (slots[i].state == OUT)
			bufpool_release(slots[i].buf);
		if (slots[i].state == TICKET)
			CHECK(bufpool_adopt(slots[i].ticket, &b, &f) == -1,
			      "a child adopted");
	}
	_exit(0);
}

/* Sends all that is out, waits until no ticket is good, and tries them, those
 * first that were issued last. */
static void
expire_all(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		detach(&(struct step){ .slot = i });
	usleep(1000 * (SHORT + 20));
	for (unsigned i = SLOTS; i-- > 0;)
		if (slots[i].expires)
			adopt(&(struct step){ .slot = i });
}

static void
nap(const struct step *t)
{
	if (t->n % 8 == 0)
		usleep(1000 * (t->m % (3 * SHORT)));
	else if (t->n % 8 == 1)
		expire_all();
}

static void
fault(const struct step *t)
{
	fail_in = t->n % 4 == 0 ? t->m % 6 + 1 : 0;
}

static void
run(const struct step *t)
{
	switch (t->kind) {
	case CREATE: create(t); break;
	case DESTROY: destroy(t); break;
	case CLOSE: close_pool(t); break;
	case CHECKOUT: case TRY: case ZEROED: case ALIGNED: checkout(t); break;
	case HOPELESS: hopeless(t); break;
	case WRITE: write_some(t); break;
	case WROTE: wrote(t); break;
	case RESIZE: resize(t); break;
	case APPEND: append(t); break;
	case RESERVE: reserve(t); break;
	case SKIP: skip(t); break;
	case SPLIT: split(t); break;
	case RELEASE: release(t); break;
	case FREEZE: freeze(t); break;
	case REF: ref(t); break;
	case DETACH: detach(t); break;
	case SHARE: share(t); break;
	case ADOPT: adopt(t); break;
	case MADE_UP: made_up(t); break;
	case TRIM: trim(t); break;
	case FLUSH: bufpool_thread_flush(); break;
	case STATS: look(t); break;
	case FORK: if (t->n % 4 == 0) fork_once(); break;
	case NAP: nap(t); break;
	case FAULT: fault(t); break;
	case KINDS: break;
	}
}

/* Sequences --------------------------------------------------------------- */

/* How often each kind comes: as a rule; where many tickets wait; where a few
 * buffers are written again and again, and their memory is seen again soon. */
static const struct mode {
	unsigned pools, slots;
	unsigned char weight[KINDS];
} modes[] = { { POOLS, SLOTS, {
	[CREATE] = 20, [DESTROY] = 6, [CLOSE] = 3, [CHECKOUT] = 60, [TRY] = 8,
	[ZEROED] = 4, [ALIGNED] = 6, [HOPELESS] = 3, [WRITE] = 50, [WROTE] = 8,
	[RESIZE] = 25, [APPEND] = 15, [RESERVE] = 10, [SKIP] = 10,
	[SPLIT] = 10, [RELEASE] = 55, [FREEZE] = 6, [REF] = 6, [DETACH] = 10,
	[SHARE] = 6, [ADOPT] = 12, [MADE_UP] = 2, [TRIM] = 4, [FLUSH] = 4,
	[STATS] = 12, [FORK] = 3, [NAP] = 6, [FAULT] = 4,
} }, { POOLS, SLOTS, {
	[CREATE] = 10, [CHECKOUT] = 60, [WRITE] = 5, [RELEASE] = 5,
	[DETACH] = 60, [ADOPT] = 30, [NAP] = 30, [STATS] = 2, [FORK] = 1,
} }, { 1, 3, {
	[CREATE] = 20, [DESTROY] = 1, [CHECKOUT] = 40, [WRITE] = 40,
	[WROTE] = 30, [RESIZE] = 15, [APPEND] = 40, [RESERVE] = 30, [SKIP] = 40,
	[SPLIT] = 40, [RELEASE] = 15, [DETACH] = 3, [ADOPT] = 30, [FAULT] = 4,
} } };

static const char *const name_of[KINDS] = {
	"create", "destroy", "close", "checkout", "try_checkout",
	"checkout_zeroed", "checkout_aligned", "hopeless", "write", "wrote",
	"resize", "append", "reserve", "skip", "split", "release", "freeze",
	"frozen_ref", "detach", "share", "adopt",
	"made_up", "trim", "thread_flush", "stats", "fork", "nap", "fault",
};

static uint64_t random_state;

static uint32_t
draw(void)
{
	random_state = random_state * 6364136223846793005u +
	    1442695040888963407u;
	return mix((uint32_t)(random_state >> 32));
}

/* Mostly small, now and then at an edge of a class, or large. */
static uint32_t
draw_size(bool fits_a_page)
{
	static const uint32_t edges[] = { 4096, 65536, 262144, 1048576 };

	if (fits_a_page && draw() % 8 != 0)
		return draw() % 4097;
	switch (draw() % 8) {
	case 0: return edges[draw() % 4] - 1 + draw() % 3;
	case 1: return draw() % LEN_MAX;
	case 2: return draw() % 300000;
	default: return draw() % 9000;
	}
}

static struct step
draw_step(bool faults, const struct mode *mode)
{
	struct step t;
	uint32_t sum = 0, at;

	for (int k = 0; k < KINDS; k++)
		sum += mode->weight[k];
	at = draw() % sum;
	for (t.kind = 0; at >= mode->weight[t.kind]; t.kind++)
		at -= mode->weight[t.kind];
	t.thread = draw() % 3 ? 0 : draw() % (WORKERS + 2);
	t.pool = draw() % mode->pools;
	t.slot = draw() % mode->slots;
	t.m = draw();
	t.n = t.kind == CHECKOUT || t.kind == TRY || t.kind == ZEROED ||
	    t.kind == ALIGNED || t.kind == RESIZE
	    ? draw_size(mode->slots < SLOTS) : draw();
	if (t.kind == FAULT && !faults)
		t.kind = STATS;
	return t;
}

static struct {
	pthread_t thread;
	sem_t begin, end;
	const struct step *step;
} workers[WORKERS];

static void *
work(void *self)
{
	__typeof__(workers[0]) *w = self;

	for (;;) {
		sem_wait(&w->begin);
		if (w->step == NULL)
			return NULL;
		run(w->step);
		sem_post(&w->end);
	}
}

static void *
work_once(void *step)
{
	run(step);
	return NULL;
}

/* 0: the first thread; then those that stay; then one that ends at once. */
static void
dispatch(const struct step *t)
{
	pthread_t thread;

	if (t->thread == 0) {
		run(t);
	} else if (t->thread <= WORKERS) {
		workers[t->thread - 1].step = t;
		sem_post(&workers[t->thread - 1].begin);
		sem_wait(&workers[t->thread - 1].end);
	} else {
		CHECK(pthread_create(&thread, NULL, work_once,
				     (void *)(uintptr_t)t) == 0, "thread");
		pthread_join(thread, NULL);
	}
}

/* In a child. What is left goes home in the end, and then nothing is out. */
static void
run_all(const struct step *steps, int count)
{
	for (int i = 0; i < WORKERS; i++) {
		sem_init(&workers[i].begin, 0, 0);
		sem_init(&workers[i].end, 0, 0);
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (int i = 0; i < SLOTS; i++)
		slots[i].pool = -1;
	for (step_number = 0; step_number < count; step_number++)
		dispatch(&steps[step_number]);
	fail_in = 0;
	for (int i = 0; i < SLOTS; i++) {
		struct step t = { .slot = (unsigned)i };

		if (slots[i].state == TICKET)
			adopt(&t);
		while (slots[i].state == OUT || slots[i].state == FROZEN)
			release(&t);
	}
	for (unsigned i = 0; i < POOLS; i++)
		if (pools[i].pool != NULL) {
			check_law(&pools[i]);
			destroy(&(struct step){ .pool = i });
		}
	_exit(0);
}

/* Whether the steps fail. */
static bool
try(const struct step *steps, int count, bool quiet)
{
	int status = -1;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (quiet && freopen("/dev/null", "w", stdout) == NULL)
			_exit(0);
		if (quiet && freopen("/dev/null", "w", stderr) == NULL)
			_exit(0);
		alarm(60);
		run_all(steps, count);
	}
	waitpid(child, &status, 0);
	if (!quiet && WIFSIGNALED(status))
		printf("ended by signal %d\n", WTERMSIG(status));
	return status != 0;
}

/* Drops steps, many at a time and then one by one, while it still fails. */
static int
shorten(struct step *steps, int count)
{
	static struct step fewer[STEPS];

	for (int part = count / 2; part > 0; part = part / 2)
		for (int from = 0; from + part <= count;) {
			memcpy(fewer, steps, (size_t)from * sizeof *fewer);
			memcpy(fewer + from, steps + from + part,
			       (size_t)(count - from - part) * sizeof *fewer);
			if (try(fewer, count - part, true)) {
				count -= part;
				memcpy(steps, fewer,
				       (size_t)count * sizeof *fewer);
			} else {
				from += part;
			}
		}
	return count;
}

static void
print_step(int i, const struct step *t)
{
	printf("%4d  thread %u  pool %u  slot %2u  %s(%u, %u)", i, t->thread,
	       t->pool, t->slot, name_of[t->kind], t->n, t->m);
	if (t->kind == CREATE) {
		struct model m = { .closed = false };

		configure(&m, t->pool, t->n);
		printf("  classes %zu, max_bytes %zu, large_bytes %zu, numa "
		       "%d, huge %d, ttl %g", m.config.class_count,
		       m.config.max_bytes, m.config.large_bytes,
		       m.config.numa_node, m.config.huge_pages,
		       m.config.ticket_ttl);
	}
	printf("\n");
}

/* Whether a sequence of this seed passes. */
static bool
pass(uint64_t seed)
{
	static struct step steps[STEPS];
	const struct mode *mode = &modes[seed % 8 == 6 ? 1
					 : seed % 4 == 1 ? 2 : 0];
	int count;

	random_state = seed;
	count = (int)(draw() % STEPS + 1);
	for (int i = 0; i < count; i++)
		steps[i] = draw_step(seed % 2, mode);
	if (!try(steps, count, true))
		return true;
	printf("SEED=%lu fails; shortening\n", (unsigned long)seed);
	fflush(stdout);
	count = shorten(steps, count);
	try(steps, count, false);
	for (int i = 0; i < count; i++)
		print_step(i, &steps[i]);
	fflush(stdout);
	return false;
}

int
main(void)
{
	return go_on(pass, ROUNDS);
}
