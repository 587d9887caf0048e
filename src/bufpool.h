/*
 * bufpool - a pool of zeroed byte buffers in fixed size classes.
 *
 * A buffer is checked out of a pool, written, and released. What comes out
 * reads as zero, whoever had the memory before and whatever they left in it:
 * every release wipes what could have been written since the checkout, and
 * only that. A request takes the smallest class that holds it (4 KiB, 64 KiB,
 * 256 KiB, 1 MiB); above the largest class it gets memory of its own, whole
 * pages, which is kept for the next such request up to a limit of bytes. When
 * nothing is ready, fresh memory is mapped; no call waits for another thread
 * (but see FORK).
 *
 * WHO MAY CALL WHAT. Every function may be called from any thread, and a
 * buffer may be released by another thread than checked it out. A buffer has
 * one owner at a time: two threads that use one buffer at once must agree
 * between themselves. Frozen buffers are immutable and may be read by any
 * number of threads. Nothing here may be called from a signal handler.
 *
 * THREAD EXIT. What an exiting thread had cached stays with the pool, where
 * other threads find it. A release during thread exit is allowed, also from a
 * thread-specific destructor that runs after bufpool's own.
 *
 * FORK. The child may use every pool at once, whatever the other threads of
 * the parent were doing. Buffers that such a thread was just moving are
 * counted as lost in the child; those it had checked out stay out. Tickets of
 * the parent are void in the child, and what they stand for goes home there.
 * The child's first call looks at every buffer and ticket that the parent had,
 * 50 to 150 ns each; a child that makes none, but execs, pays nothing. When the
 * child has started threads before that call, others that come meanwhile wait
 * for it. This is the one wait that there is.
 *
 * LIMITS. A process has at most 16384 pools at one time, and at most 2^20
 * different names, each of which costs 80 bytes for as long as the process
 * lives. It has at most 2^24 buffers with memory, fewer where the address space
 * is limited (RLIMIT_AS): descriptors may reserve 1/16 of it.
 *
 * WHAT STAYS. Beside the buffers themselves the library takes, in whole pages:
 * - 128 bytes for each buffer, of all pools together, at the time when there
 *   were most: 1/32 of the memory of buffers of 4 KiB. They are used again for
 *   later buffers, of any pool, and stay for as long as the process lives.
 * - 8 KiB for each thread that has used a pool, at the time when there were
 *   most, and 4 KiB more for every further 512 pools of a process. They serve
 *   later threads, and stay for as long as the process lives.
 * - 8 KiB for each of these threads and each pool that it has used, with the
 *   default classes, and 8 bytes more for each buffer that waits in its depot,
 *   of a class 4095 at most unless more are configured. They serve later
 *   threads that use the pool, and go with the pool: at once where the thread
 *   has exited, otherwise when it next spills, refills, flushes or exits.
 * - 16 KiB at most for each pool, 4 KiB more for every further 64 threads that
 *   use it at one time, more where nodes are kept apart, and up to 224 KiB for
 *   the places that its leak detection tells apart. They go with the pool.
 * - 48 bytes for each ticket in transit, at the time when there were most; and
 *   where leak detection has recorded a buffer, 40 bytes at most for each of
 *   those that have 128. They stay for as long as the process lives.
 *
 * SANDBOXES. A seccomp filter may come before or after this library, and may
 * refuse mbind, move_pages, getcpu, madvise, mincore and membarrier with an
 * error. Where membarrier is refused when the library is loaded, checkouts and
 * releases are slower, and nothing is lost. From the moment when it is refused
 * later, a thread's cached buffers cannot be taken from it: trim, close and a
 * checkout that would fail pass them by, and they come back when that thread
 * spills, flushes, exits, or next uses the closed pool.
 *
 * Where madvise is refused, checkouts fail with ENOMEM in pools whose buffers
 * are to stay out of core dumps or to be zeros in a child of fork.
 *
 * In a control group with a memory limit files are opened once in a second, by
 * open or openat: see bufpool_heed_pressure.
 *
 * LOCKED MEMORY (mlockall). The system does not take locked pages back. They
 * stay counted as committed, and wait for the next buffer of their class.
 *
 * PAGES LARGER THAN 4 KiB. Buffers share a page when they are smaller. While
 * one of them is out or idle, those that were given back wait for the next
 * checkout of their class, and stay counted as committed. Once none is, a trim
 * gives the page back, and so does a checkout at max_bytes; time alone does
 * not. What is counted are the bytes of buffers, of whose pages more may be in
 * memory.
 *
 * ERRORS. Functions return NULL or -1, or 0 for a ticket, and set errno.
 * Nothing is printed, except what BUFPOOL_DEBUG asks for, the report of a fault
 * in a guarded buffer, and one line before abort() when the pool finds proof of
 * corruption, such as a buffer released twice; it names the places of the
 * checkout and of the release where leak detection has recorded the checkout.
 * Once a released buffer is checked out again, a stale pointer to it cannot be
 * told from a good one, and a pointer that was never a buffer's may do
 * anything; both are the caller's to prevent.
 *
 * The library is never unloaded once loaded, for thread exit must find it.
 */
#ifndef BUFPOOL_H
#define BUFPOOL_H

#include <stddef.h>
#include <stdint.h>

#if SIZE_MAX < UINT64_MAX
#error "bufpool runs on 64-bit systems only"
#endif

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define BUFPOOL_VERSION "0.1.0"
#define BUFPOOL_CLASSES_MAX 16	/* size classes of one pool */
#define BUFPOOL_NODES_MAX 64	/* NUMA nodes that statistics tell apart */
#define BUFPOOL_NAME_MAX 64	/* bytes of a pool's name, its NUL included */
#define BUFPOOL_NUMA_NONE (-1)	/* no placement: the kernel's default */
#define BUFPOOL_NUMA_LOCAL (-2)	/* each thread's buffers from its own node */
#define BUFPOOL_LEAK_OFF 0	/* leak detection: see bufpool_sites */
#define BUFPOOL_LEAK_SAMPLED 1	/* one checkout of so many */
#define BUFPOOL_LEAK_ALL 2
#define BUFPOOL_HARDENED_OFF 0
#define BUFPOOL_HARDENED_ALL 1		/* guarded: see bufpool_config */
#define BUFPOOL_HARDENED_SAMPLED 2	/* for what leak detection records */
#define BUFPOOL_REQUEST_BINS 8	/* of the sizes that were asked for */
#define BUFPOOL_PLACE_MAX 192	/* bytes of a site's place, its NUL included */

struct bufpool;
struct bufpool_buf;
struct bufpool_frozen;

struct bufpool_class_config {
	size_t size;			/* bytes; a multiple of 4096 */
	size_t count;			/* buffers kept ready */
};

/*
 * What a pool is made of. Fill it with bufpool_config_init, then change what
 * should differ: a struct that was only zeroed is refused, for its struct_size
 * is 0. The counts are buffers kept ready: trimming never goes below.
 *
 * BUFPOOL_DEBUG in the environment may change leak_detection, verify, hardened
 * and fail_one_in; BUFPOOL_DEBUG=help lists its words.
 */
struct bufpool_config {
	size_t struct_size;		/* set by bufpool_config_init */
	size_t four_kib_count;		/* default 64 */
	size_t sixty_four_kib_count;	/* default 8 */
	size_t two_fifty_six_kib_count;	/* default 2 */
	size_t one_mib_count;		/* default 0 */
	size_t max_bytes;		/* memory in all; 0: no limit */
	int numa_node;			/* BUFPOOL_NUMA_NONE, _LOCAL, a node */
	const char *name;		/* NULL, or shared by this name */
	/* Own classes instead of the four, BUFPOOL_CLASSES_MAX at most, in any
	 * order; copied. 0: the four, with the counts above. */
	size_t class_count;
	const struct bufpool_class_config *classes;
	int prefault;			/* memory has pages when handed out */
	/* Ask the kernel for huge pages: 2 MiB or more are committed at a time
	 * for a class, where max_bytes leaves room for that. What is left
	 * behind the last buffer of them stays committed until the pool is
	 * gone, where the size does not divide them. */
	int huge_pages;
	/* Bytes above the largest class that are kept for the next checkout;
	 * 0: none. Default 128 MiB, or 1/8 of the memory limit of the process's
	 * control group (cgroup), if that is less. */
	size_t large_bytes;
	double ticket_ttl;	/* seconds a ticket is good; 0: for ever */
	/* Which checkouts are recorded, as bufpool_detect_leaks has it. Where
	 * the pool of this name exists, it stays as it is set. */
	int leak_detection;	/* BUFPOOL_LEAK_; default BUFPOOL_LEAK_OFF */
	int leak_sample;	/* default 0 */
	/* 0: the contents of buffers stay out of core dumps. Default 1. */
	int dump;
	/* 1: a checkout that leak detection records first looks whether the
	 * whole buffer is zero, as a free buffer has to be. Where it is not,
	 * someone wrote to it after its release, or promised by bufpool_wrote
	 * what was not so: the process is aborted with a message that names
	 * where it was checked out before, if that was recorded and it was not
	 * frozen. Takes as long as reading the buffer. Default 0. */
	int verify;
	/*
	 * BUFPOOL_HARDENED_ALL: each buffer is guarded. It is a mapping of its
	 * own between pages without access, and ends where the upper one
	 * begins, as near as an alignment to 16 bytes allows. It is locked into
	 * memory (mlock; statistics tell where that is refused), stays out of
	 * core dumps, is read-only while frozen, and loses its memory when it
	 * comes home; the 256 addresses that came home last, 1/16 of RLIMIT_AS
	 * and 64 GiB at most, have no access. So a store past the end, to a
	 * frozen buffer or through an old pointer is a SIGSEGV at that
	 * instruction, and one to the up to 15 bytes between end and guard
	 * aborts at the release. The capacity is what was asked
	 * for, 1 byte at least. It counts as a large buffer; nothing is kept,
	 * bufpool_try_checkout finds nothing, and the counts above are ignored.
	 *
	 * BUFPOOL_HARDENED_SAMPLED: the same for those checkouts that leak
	 * detection samples, which this switches on; one in as many where it
	 * records all. Aligned to 64 bytes, and not locked; a buffer that grows
	 * is not guarded any more. Default BUFPOOL_HARDENED_OFF.
	 */
	int hardened;
	/*
	 * 1: a handler for SIGSEGV, which the first such pool of the process
	 * installs, writes to stderr whose buffer that was and where it was
	 * checked out and released, if that was recorded, and goes on to the
	 * handler that was there. Default 1; without `hardened` it does
	 * nothing.
	 */
	int fault_report;
	/* 1: in a child of fork all buffers of the pool are zeros, also those
	 * that are out or frozen (MADV_WIPEONFORK, Linux 4.14; a checkout fails
	 * where the system refuses it). Default 0. */
	int wipe_on_fork;
	/* n: every nth checkout fails with ENOMEM, also those that growth
	 * makes, to find out what the program does then. Switches
	 * leak_detection to BUFPOOL_LEAK_ALL. 0: none does. Default 0. */
	int fail_one_in;
};

struct bufpool_class_stats {
	size_t size;		/* bytes of one buffer */
	uint64_t count;		/* buffers with memory behind them */
	uint64_t ready;		/* of these: in a depot */
	uint64_t cached;	/* of these: in a thread's cache */
	uint64_t out;		/* of these: checked out, frozen included */
	uint64_t hits;		/* checkouts served from ready or cached */
	uint64_t misses;	/* checkouts that took fresh memory */
};

/*
 * Which sizes checkouts, and growth that moves the contents, have asked for. Of
 * a class: bins[7] has how many requests were for more than a half of `size`,
 * bins[6] for more than a quarter, and so on; bins[0] for no more than 1/128.
 * Above the classes: bins[0] has those of 64 KiB at most, each next one those
 * of four times as much at most, bins[7] those above 256 MiB. Requests of 0
 * bytes are left out, because they say nothing.
 *
 * These are estimates for a class: of a thread's checkouts the first two count,
 * unless it goes on with the cache of one that has exited, then one of more and
 * more up to one of about 1000, drawn at random, which stands for those since
 * the one before. What came after the last one is missing. Above the classes
 * they are exact; a large buffer that grows where it is makes no request.
 */
struct bufpool_request_stats {
	uint64_t bytes;		/* the sum */
	uint64_t bins[BUFPOOL_REQUEST_BINS];
};

/* How many buffers of a class stay where. */
struct bufpool_class_limits {
	uint64_t floor;		/* trim leaves as many; as configured */
	uint64_t shelf;		/* a thread caches as many at most */
};

/*
 * Exact at any moment: committed_bytes. Exact when no other thread is inside
 * the pool: everything else but the requests, see above, and the peaks, which
 * are sampled (at misses and when a thread looks at the clock, once in a tick
 * of the system's coarse clock at most, and here) and are lower bounds. Takes
 * longer the more threads use the pool.
 */
struct bufpool_stats {
	size_t struct_size;		/* set by bufpool_get_stats */
	uint64_t hits, misses;		/* all classes and exact sizes */
	uint64_t checked_out, peak_checked_out;			/* buffers */
	/* their memory: the capacity, or what is kept for it to rise to */
	uint64_t bytes_checked_out, peak_bytes_checked_out;
	uint64_t committed_bytes;	/* memory taken from the system */
	uint64_t cached_bytes;		/* of it: ready or cached */
	uint64_t in_transit;	/* tickets that nobody has adopted; what they
				 * stand for is checked out */
	uint64_t wiped_bytes;
	uint64_t gc_returns;		/* released by a Lua collector */
	uint64_t lost;			/* buffers lost to fork */
	unsigned class_count;
	struct bufpool_class_stats classes[BUFPOOL_CLASSES_MAX];
	int numa_requested;		/* as configured */
	int numa_available;		/* 1: memory can be placed so here */
	unsigned node_count;		/* entries below; 0: not asked for, or
					 * the system does not tell nodes */
	uint64_t pages_by_node[BUFPOOL_NODES_MAX];	/* resident pages */
	/* above the largest class; part of the sums above */
	uint64_t large_hits;		/* served from what was kept */
	uint64_t large_misses;		/* took fresh memory */
	uint64_t large_out, large_bytes_out;		/* checked out */
	uint64_t large_cached, large_cached_bytes;	/* kept */
	/* checkouts, and growth, that found no memory: max_bytes was reached,
	 * or the system gave none */
	uint64_t refused_by_max_bytes, refused_by_system;
	uint64_t max_bytes;		/* as configured; 0: no limit */
	/* guarded buffers that the system refused to lock into memory, and what
	 * the process may lock (RLIMIT_MEMLOCK) in bytes; 0: no limit, or no
	 * buffer of the pool is locked */
	uint64_t lock_refused, lock_limit;
	/* by class, as in `classes`; above the classes */
	struct bufpool_request_stats requests[BUFPOOL_CLASSES_MAX];
	struct bufpool_request_stats large_requests;
	uint64_t exhausted;	/* calls of try_checkout that found nothing */
	uint64_t large_bytes;		/* as configured */
	struct bufpool_class_limits limits[BUFPOOL_CLASSES_MAX];
	/* seconds that the oldest buffer has been out, of those that leak
	 * detection has recorded; negative: none of these is out */
	double oldest;
	uint64_t pressed_bytes;	/* given back where memory was short */
};

/* Fills in the defaults. The macro tells the library how large the caller's
 * struct is, so that programs built before a field was added keep working, and
 * so do programs that were built for a newer library, as long as they leave the
 * fields that this one does not know as bufpool_config_init has left them: 0.
 * At most 4096 bytes. */
void bufpool_config_init_sized(struct bufpool_config *, size_t struct_size);
#define bufpool_config_init(config) \
	bufpool_config_init_sized((config), sizeof *(config))

/*
 * Makes a pool, or opens the one of this name if its configuration is equal.
 * NULL config: the defaults. The caller gets one reference.
 * NULL + EINVAL: a field out of range, or a struct_size that is no size of the
 * struct, or a field set that this library does not know; EEXIST: the name is
 * taken by a pool of another configuration; EDQUOT: the counts alone exceed
 * max_bytes; ENOMEM.
 */
struct bufpool *bufpool_create(const struct bufpool_config *);

/* One more reference; never fails. The pool of that name, or NULL + ENOENT;
 * EINVAL: the name is NULL. The pool named "default", made with the defaults at
 * the first call; NULL + ENOMEM. */
struct bufpool *bufpool_ref(struct bufpool *);
struct bufpool *bufpool_get(const char *name);
struct bufpool *bufpool_default(void);

/* No more checkouts, by anyone: they fail with ESHUTDOWN. What is out stays
 * valid, may grow, and goes back to the system as it comes home. */
void bufpool_close(struct bufpool *);

/* Drops one reference; the last one closes the pool. The pool itself goes when
 * its last buffer has come home. NULL does nothing. One call too many takes
 * away somebody else's reference, or aborts when none is left and the pool is
 * still there. */
void bufpool_destroy(struct bufpool *);

/*
 * A buffer of n bytes, all zero, aligned to 64 bytes at least (to 16 where the
 * pool is hardened). n may be 0.
 * NULL + EOVERFLOW: n is above PTRDIFF_MAX; ENOMEM; EDQUOT: max_bytes;
 * ESHUTDOWN: closed. At max_bytes as much of what lies idle in the pool, in
 * other threads' caches too, goes back to the system as n bytes need; what is
 * above the configured counts goes first. Where that is not enough, nothing
 * goes. When the system maps no more, what is kept above the classes goes
 * likewise: nothing else gives addresses back. EDQUOT is also possible while
 * demand is below max_bytes, if another thread was stopped in the middle of
 * moving buffers from one tier to another: nobody waits for it.
 */
struct bufpool_buf *bufpool_checkout(struct bufpool *, size_t n);

/* As bufpool_checkout, and wiped again at this moment. */
struct bufpool_buf *bufpool_checkout_zeroed(struct bufpool *, size_t n);

/* As bufpool_checkout, at an address that is a multiple of `alignment`, a power
 * of two (else EINVAL); kept when the buffer grows. */
struct bufpool_buf *bufpool_checkout_aligned(struct bufpool *, size_t n,
					     size_t alignment);

/* Takes only what is ready; maps no memory for buffers. (A thread's first call
 * of a pool maps some pages for its own cache.) NULL + EAGAIN otherwise. */
struct bufpool_buf *bufpool_try_checkout(struct bufpool *, size_t n);

/* The contents, to read and write: grants [0, len) and has it wiped later,
 * whatever is really written. Valid until release, growth or freeze. */
void *bufpool_data(struct bufpool_buf *);

/* The contents, to read only: what is not written need not be wiped. */
const void *bufpool_peek(const struct bufpool_buf *);

/* A promise: since the last call of bufpool_data nothing at or past byte n has
 * been written, by whatever means, and nothing will be through a pointer from
 * before this call. So that call no longer counts as a write past byte n. What
 * was written before it, or granted and not narrowed, is wiped all the same.
 * So is what an earlier promise has told of. To write more, call bufpool_data
 * again. */
void bufpool_wrote(struct bufpool_buf *, size_t n);

/* Bytes of contents; bytes that they may grow to without moving: those of the
 * class or, above the classes, at most twice what was asked for, rounded up to
 * whole pages, and no more than that where max_bytes is. What was consumed and
 * still lies before the contents counts as asked for. */
size_t bufpool_len(const struct bufpool_buf *);
size_t bufpool_capacity(const struct bufpool_buf *);

/* Sets the length; new bytes are zero. Growing past the capacity moves the
 * contents. 0, or -1 + errno as bufpool_checkout, the buffer unchanged. */
int bufpool_resize(struct bufpool_buf *, size_t n);

/* Appends n bytes, which may be part of the contents. The memory grows as by
 * bufpool_resize. 0, or -1 + errno as bufpool_checkout, the buffer
 * unchanged. */
int bufpool_append(struct bufpool_buf *, const void *bytes, size_t n);

/*
 * For what is received piece by piece. reserve gives the address of n bytes
 * behind the contents, to write to until the buffer changes otherwise; NULL +
 * errno as bufpool_checkout, the buffer unchanged. commit then makes the first
 * n of them contents, and is a promise as bufpool_wrote: past these nothing has
 * been written since reserve. So a read of 100 bytes into 65536 reserved ones
 * has 100 wiped later. -1 + EINVAL, the buffer unchanged: n is more than was
 * reserved, or nothing is.
 */
void *bufpool_reserve(struct bufpool_buf *, size_t n);
int bufpool_commit(struct bufpool_buf *, size_t n);

/* Takes n bytes off the front of the contents, without moving the others.
 * -1 + EINVAL, the buffer unchanged: there are not so many. */
int bufpool_skip(struct bufpool_buf *, size_t n);

/* Takes n bytes off the front of the contents, into a buffer that it returns:
 * one of the same pool, which may be closed, and aligned alike. The shorter of
 * these bytes and the rest is copied. Pointers to the contents from before are
 * dead. NULL, the buffer unchanged, + EINVAL: there are not so many; ENOMEM;
 * EDQUOT. */
struct bufpool_buf *bufpool_split(struct bufpool_buf *, size_t n);

/* Wipes the buffer and gives it back. NULL does nothing. Releasing what is
 * not checked out aborts with a message. Keeps errno. */
void bufpool_release(struct bufpool_buf *);

/* The buffer becomes immutable and counted, with one reference, where it is.
 * Cannot fail; the buffer's own pointer is dead from here on. */
struct bufpool_frozen *bufpool_freeze(struct bufpool_buf *);
const void *bufpool_frozen_data(const struct bufpool_frozen *);
size_t bufpool_frozen_len(const struct bufpool_frozen *);
struct bufpool_frozen *bufpool_frozen_ref(struct bufpool_frozen *);
/* Drops one reference; the last one wipes and gives back. NULL does nothing. */
void bufpool_frozen_unref(struct bufpool_frozen *);

/*
 * TICKETS hand a buffer over by a number, to another thread, or to a Lua VM,
 * which takes nothing but numbers and strings from another. No byte is copied.
 * A ticket is above 0 and below 10^14, so that it is exact as a double and
 * stays so when Lua prints it. It is good once, in this process, until the
 * pool's ticket_ttl has passed, to within a tick of the kernel's clock, which
 * is 10 ms at most; from then on it is refused. What it stands for goes home
 * some at a time, when the process issues or adopts tickets, moves buffers
 * between threads, asks for statistics (1000 then) or calls bufpool_maintain;
 * and all of it when it trims. A process has at most 2^20 tickets in transit.
 *
 * detach consumes the buffer, share the caller's reference. 0 + ENOMEM: nothing
 * is consumed. Detaching what is not checked out aborts with a message.
 * share_range is share for `len` bytes from `offset`, which bufpool_adopt_range
 * gives again; 0 + EINVAL, nothing consumed: the buffer has no such bytes.
 */
uint64_t bufpool_detach(struct bufpool_buf *);
uint64_t bufpool_share(struct bufpool_frozen *);
uint64_t bufpool_share_range(struct bufpool_frozen *, size_t offset,
			     size_t len);

/*
 * Takes what the ticket stands for: sets one of the two, the other to NULL, and
 * the caller owns it. Whatever was written before detach or share is seen. Any
 * thread; of several that adopt one ticket one succeeds. -1 + ENOENT: this
 * process has not issued the ticket; ESTALE: it was adopted, or has expired.
 * A used ticket is refused until its place in a table of tickets has been used
 * 2^26 times more.
 */
int bufpool_adopt(uint64_t ticket, struct bufpool_buf **,
		  struct bufpool_frozen **);

/* As bufpool_adopt. A ticket from bufpool_share_range, or from a slice in Lua,
 * stands for `len` bytes from `offset` of the frozen buffer; all others stand
 * for all bytes. */
int bufpool_adopt_range(uint64_t ticket, struct bufpool_buf **,
			struct bufpool_frozen **, size_t *offset, size_t *len);

/* Fills in the statistics; see struct bufpool_stats for what is exact. Fields
 * of a newer caller's struct that this library does not know become 0. */
void bufpool_get_stats_sized(struct bufpool *, struct bufpool_stats *,
			     size_t struct_size);
#define bufpool_get_stats(pool, stats) \
	bufpool_get_stats_sized((pool), (stats), sizeof *(stats))

/*
 * LEAK DETECTION records where buffers are checked out. BUFPOOL_LEAK_ALL: every
 * checkout, each of which then takes a few hundred nanoseconds more.
 * BUFPOOL_LEAK_SAMPLED: on average one of `sample` checkouts of each class and
 * thread, and of all above the classes together, at random; the others take no
 * longer. `sample` 0: one of 1024, but of each class and thread no two within
 * 10 milliseconds, so that no loop is slowed down by 1 %. Growth and what the
 * library checks out for itself are not recorded.
 *
 * bufpool_detect_leaks sets what is recorded from now on; a checkout that
 * another thread makes at the same moment, one for each class, may pass
 * unseen. What was recorded before stays so until it comes home. 0, or
 * -1 + EINVAL: out of range; ENOMEM. Any thread.
 */
int bufpool_detect_leaks(struct bufpool *, int detection, int sample);

/* The buffers of one place that were recorded and are out, frozen or in transit
 * now; or that a Lua collector or the end of a request had to release. */
struct bufpool_site {
	/* In Lua "handlers/upload.lua:41 < router.lua:12", callers last. In C
	 * "function+0x2a (file)" where the dynamic linker knows the function,
	 * and otherwise "file+0x12345", for addr2line; with link-time
	 * optimization that may be a caller of the one that called. The pool
	 * tells 511 places apart, and calls all later ones "(other places)".
	 * Checkouts that there was no memory to record are counted, not their
	 * bytes, as "(not recorded)". */
	char place[BUFPOOL_PLACE_MAX];
	uint64_t buffers;	/* out now */
	uint64_t bytes;		/* of memory behind these */
	double oldest;		/* seconds since the first of these was
				 * checked out */
	uint64_t gc_returns;	/* released by a Lua collector, ever since */
	uint64_t request_returns;	/* left to the end of their request in
					 * nginx, ever since */
};

/* Fills in `most` sites at most, those of the most bytes first, and returns how
 * many there are. 0 where nothing was recorded. Exact when no other thread is
 * inside the pool. Looks at the record of every buffer of the process. Any
 * thread with 36 KiB of stack left. */
size_t bufpool_get_sites_sized(struct bufpool *, struct bufpool_site *,
			       size_t most, size_t struct_size);
#define bufpool_sites(pool, sites, most) \
	bufpool_get_sites_sized((pool), (sites), (most), sizeof *(sites))

/* Gives idle memory above the configured counts back to the system, from all
 * threads' caches too. Returns the bytes that the system took. */
size_t bufpool_trim(struct bufpool *);

/*
 * As bufpool_trim, but gives max_bytes back at most, rounded up to a page; or
 * one buffer, where that is larger. Sets *more to 1 where more lies idle, and
 * to 0 where none does, or none can be had. So a loop until it is 0 comes to an
 * end.
 */
size_t bufpool_trim_some(struct bufpool *, size_t max_bytes, int *more);

/*
 * Idle memory goes back to the system gradually, and expired tickets go home,
 * in calls that the process makes anyway. A process that makes none for a while
 * calls this from a timer: it does some of that for all pools, 4 MiB or one
 * buffer at most, and returns after how many milliseconds, 10 to 5000, it wants
 * to be called again. Calling later does no harm. Any thread.
 */
int64_t bufpool_maintain(void);

/*
 * In a control group with a memory limit, memory.max or memory.high, a call of
 * any pool that is not the fast path looks once in a second whether memory is
 * short: whether the kernel has counted since the last look that a limit was
 * met, or 7/8 of one are anonymous memory. Then each pool gives back what lies
 * idle above its counts, in calls that the process makes anyway, 4 MiB or one
 * buffer at a time. A look opens and reads some files of /proc/self and
 * /sys/fs/cgroup. 0 ends the looks, for a sandbox that kills for that; another
 * number begins them, also where no limit was found when the first pool was
 * made. Any thread.
 */
void bufpool_heed_pressure(int on);

/* How many bytes of committed_bytes have pages in memory just now: what was not
 * touched since it came from the system has none. Asks the system for each
 * mapping, 1/4 MiB or one buffer. Inexact while other threads are inside the
 * pool. -1 + errno where the system does not answer. Any thread. */
int64_t bufpool_resident(struct bufpool *);

/* Moves what this thread has cached, of all pools, to where other threads find
 * it. */
void bufpool_thread_flush(void);

const char *bufpool_version(void);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
