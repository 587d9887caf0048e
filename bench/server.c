/*
 * A server in C, with different memory for its messages.
 *
 *   server WAY [CONNECTIONS [SECONDS [REST]]]
 *
 * The client sends a frame: four bytes with a length, and as many bytes. The
 * server is one thread that waits by epoll. It takes a buffer for a frame when
 * the frame's length has come, fills it as the bytes come, takes another for
 * the reply, which has each byte complemented, and gives both back when the
 * reply has left. So a connection that waits holds no memory. The client looks
 * at each byte of each reply.
 *
 *   bufpool        bufpool_checkout; bufpool_wrote with what was written;
 *                  release wipes that
 *   X              malloc and free; X is glibc, jemalloc, mimalloc, tcmalloc
 *   X-wiped        what was written is overwritten with zeros before free
 *   list           a list by hand for each power of two, which is never wiped
 *                  and never gives memory back
 *
 * Allocators replace malloc in both processes, as bench/core.c does it.
 *
 * Server and client are processes with a processor each. Three phases:
 *
 * 1. Load. CONNECTIONS connections have one frame each under way, for SECONDS.
 *    Of 100 frames 90 have 200 to 2000 bytes, 9 up to 64 KiB, 1 up to 1 MiB.
 *    `rate` is frames a second, `cpu` the server's processor time for one in
 *    ns, `kernel` the kernel's part of it, `loaded` the most that was resident,
 *    in KiB.
 * 2. Burst. Each connection sends half a frame of BURST bytes, and when all
 *    have waited for a moment, the other half. `burst` is the most that was
 *    resident.
 * 3. Rest. One small frame each 100 ms, for REST seconds. `after` is what is
 *    resident then; `before` is what was, before the first frame.
 *
 * The program prints one line of name=number.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "bufpool.h"

#define FRAME_MAX ((size_t)1 << 20)
#define BURST 100000		/* bytes of a frame in a burst */
#define HEAD 4			/* bytes of a length */
#define CONNECTIONS_MAX 4096
#define EVENTS 64		/* of one wait */

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

/* Ways --------------------------------------------------------------------- */

struct message {
	uint8_t *bytes;		/* NULL: none */
	size_t n, done;		/* bytes, of these received or sent */
	void *handle;		/* the way's own */
};

static struct bufpool *pool;

static void
bufpool_take(struct message *m)
{
	struct bufpool_buf *b = bufpool_checkout(pool, m->n);

	m->handle = b;
	m->bytes = b != NULL ? bufpool_data(b) : NULL;
}

static void
bufpool_give(struct message *m)
{
	bufpool_wrote(m->handle, m->n);
	bufpool_release(m->handle);
}

static void
malloc_take(struct message *m)
{
	m->bytes = malloc(m->n);
}

static void
malloc_give(struct message *m)
{
	free(m->bytes);
}

static void
wiped_give(struct message *m)
{
	explicit_bzero(m->bytes, m->n);
	free(m->bytes);
}

static void *list[32];

static unsigned
list_of(size_t n)
{
	return n <= 64 ? 6 : 64 - (unsigned)__builtin_clzl(n - 1);
}

static void
list_take(struct message *m)
{
	unsigned i = list_of(m->n);

	m->bytes = list[i];
	if (m->bytes == NULL)
		m->bytes = malloc((size_t)1 << i);
	else
		memcpy(&list[i], m->bytes, sizeof list[i]);
}

static void
list_give(struct message *m)
{
	unsigned i = list_of(m->n);

	memcpy(m->bytes, &list[i], sizeof list[i]);
	list[i] = m->bytes;
}

static const struct way {
	const char *name;
	void (*take)(struct message *);
	void (*give)(struct message *);
	const char *preload, *symbol;
} ways[] = {
	{ "bufpool", bufpool_take, bufpool_give, NULL, NULL },
#define MALLOC(name, ...) \
	{ name, malloc_take, malloc_give, __VA_ARGS__ }, \
	{ name "-wiped", malloc_take, wiped_give, __VA_ARGS__ }
	MALLOC("glibc", NULL, NULL),
	MALLOC("jemalloc", "libjemalloc.so.2", "mallctl"),
	MALLOC("mimalloc", "libmimalloc.so.2", "mi_version"),
	MALLOC("tcmalloc", "libtcmalloc_minimal.so.4", "tc_version"),
	{ "list", list_take, list_give, NULL, NULL },
};

static const struct way *way;

/* Executes this program again, with the way's malloc. */
static void
preload(char **argv)
{
	if (way->preload == NULL || dlsym(RTLD_DEFAULT, way->symbol) != NULL)
		return;
	if (getenv("LD_PRELOAD") != NULL) {
		fprintf(stderr, "%s: no %s\n", way->name, way->preload);
		exit(2);
	}
	setenv("LD_PRELOAD", way->preload, 1);
	execv("/proc/self/exe", argv);
	die("execv");
}

/* Both sides --------------------------------------------------------------- */

/* Bytes that were moved; 0 when the other side is not ready. */
static size_t
moved(ssize_t n)
{
	if (n > 0)
		return (size_t)n;
	if (n < 0 && errno == EAGAIN)
		return 0;
	fprintf(stderr, "the other side has closed the connection\n");
	exit(1);
}

static int
watch_all(int epoll, int fd, void *who)
{
	struct epoll_event event = { EPOLLIN | EPOLLOUT | EPOLLET,
				     { .ptr = who } };
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void
use_processor(size_t number)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(number, &set);
	sched_setaffinity(0, sizeof set, &set);	/* fails where there is one */
}

/* The server --------------------------------------------------------------- */

struct peer {
	int fd;
	uint8_t head[HEAD];
	size_t head_done;
	struct message in, out;
};

static void
take(struct message *m, size_t n)
{
	m->n = n;
	m->done = 0;
	way->take(m);
	if (m->bytes == NULL)
		die("no buffer");
}

static void
reply(struct peer *p)
{
	take(&p->out, HEAD + p->in.n);
	memcpy(p->out.bytes, p->head, HEAD);
	for (size_t i = 0; i < p->in.n; i++)
		p->out.bytes[HEAD + i] = (uint8_t)~p->in.bytes[i];
}

/* Goes one step further; false when the client has to go first. */
static bool
serve(struct peer *p)
{
	struct message *in = &p->in, *out = &p->out;
	uint32_t n;
	size_t step;

	if (out->bytes != NULL) {
		step = moved(send(p->fd, out->bytes + out->done,
				  out->n - out->done, MSG_NOSIGNAL));
		out->done += step;
		if (out->done == out->n) {
			way->give(in);
			way->give(out);
			in->bytes = out->bytes = NULL;
			p->head_done = 0;
		}
	} else if (in->bytes == NULL) {
		step = moved(recv(p->fd, p->head + p->head_done,
				  HEAD - p->head_done, 0));
		p->head_done += step;
		if (p->head_done == HEAD) {
			memcpy(&n, p->head, sizeof n);
			if (n == 0 || n > FRAME_MAX)
				die("a length");
			take(in, n);
		}
	} else {
		step = moved(recv(p->fd, in->bytes + in->done,
				  in->n - in->done, 0));
		in->done += step;
		if (in->done == in->n)
			reply(p);
	}
	return step > 0;
}

/* Until the client ends it. */
static void
run_server(int listener)
{
	int epoll = epoll_create1(0);
	struct epoll_event events[EVENTS], accepting = { EPOLLIN,
							 { .ptr = NULL } };
	struct peer *peers = calloc(CONNECTIONS_MAX, sizeof *peers);
	size_t used = 0;

	use_processor(0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || peers == NULL ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting) != 0)
		die("server");
	pool = bufpool_create(NULL);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = events[i].data.ptr;

			if (p == NULL) {
				p = &peers[used++];
				p->fd = accept4(listener, NULL, NULL,
						SOCK_NONBLOCK);
				if (p->fd < 0 || watch_all(epoll, p->fd, p))
					die("accept");
			}
			while (serve(p))
				;
		}
	}
}

/* The client --------------------------------------------------------------- */

struct client {
	int fd;
	uint8_t head[HEAD];
	size_t from;		/* in `sent` */
	size_t n, put, got;	/* bytes of the frame, sent and received */
	size_t may_put;		/* bytes that it sends for the time being */
};

static uint8_t sent[2 * FRAME_MAX], wanted[2 * FRAME_MAX], got[1 << 16];
static struct client clients[CONNECTIONS_MAX];
static size_t connections;
static uint64_t chance = 88172645463325252, frames;
static int epoll;

/* Marsaglia's xorshift64. */
static size_t
draw(size_t from, size_t to)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return from + chance % (to - from + 1);
}

static size_t
draw_size(void)
{
	size_t kind = draw(1, 100);

	return kind <= 90 ? draw(200, 2000)
	    : kind <= 99 ? draw(2000, 65536) : draw(65536, FRAME_MAX);
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool
busy(const struct client *c)
{
	return c->got < c->n;
}

static void
begin_frame(struct client *c, size_t n)
{
	uint32_t length = (uint32_t)n;

	memcpy(c->head, &length, HEAD);
	c->from = draw(0, FRAME_MAX);
	c->n = c->may_put = HEAD + n;
	c->put = c->got = 0;
}

static size_t
put_some(struct client *c)
{
	bool head = c->put < HEAD;
	const uint8_t *at = head ? c->head + c->put
	    : sent + c->from + c->put - HEAD;
	size_t n = head ? HEAD - c->put : c->may_put - c->put, step;

	if (c->put >= c->may_put)
		return 0;
	step = moved(send(c->fd, at, n, MSG_NOSIGNAL | (head ? MSG_MORE : 0)));
	c->put += step;
	return step;
}

static size_t
get_some(struct client *c)
{
	bool head = c->got < HEAD;
	const uint8_t *should_be = head ? c->head + c->got
	    : wanted + c->from + c->got - HEAD;
	size_t n = head ? HEAD - c->got : c->n - c->got, step;

	if (!busy(c))
		return 0;
	step = moved(recv(c->fd, got, n < sizeof got ? n : sizeof got, 0));
	if (memcmp(got, should_be, step) != 0) {
		fprintf(stderr, "%s: a wrong reply\n", way->name);
		exit(1);
	}
	c->got += step;
	if (step > 0 && !busy(c))
		frames++;
	return step;
}

static void
go_on(struct client *c)
{
	while (put_some(c) + get_some(c) > 0)
		;
}

/* Goes on with all until `end`, with a new frame after each reply if there is
 * to be `more`; and then until each has its reply, or may send no more. */
static void
run_until(double end, bool more)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		bool over = seconds() >= end, waiting = false;
		int n = epoll_wait(epoll, events, EVENTS, 1);

		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			go_on(c);
			while (more && !over && !busy(c)) {
				begin_frame(c, draw_size());
				go_on(c);
			}
		}
		for (size_t i = 0; over && i < connections; i++)
			waiting |= busy(&clients[i]) &&
			    (clients[i].put < clients[i].may_put ||
			     clients[i].may_put == clients[i].n);
		if (over && !waiting)
			return;
	}
}

static void
begin_all(size_t n, size_t may_put)
{
	for (size_t i = 0; i < connections; i++) {
		begin_frame(&clients[i], n != 0 ? n : draw_size());
		if (may_put != 0)
			clients[i].may_put = may_put;
		go_on(&clients[i]);
	}
}

static void
burst(void)
{
	begin_all(BURST, HEAD + BURST / 2);
	run_until(seconds() + 0.3, false);
	for (size_t i = 0; i < connections; i++) {
		clients[i].may_put = clients[i].n;
		go_on(&clients[i]);
	}
	run_until(0, false);
}

static void
rest(double how_long)
{
	double end = seconds() + how_long;

	while (seconds() < end) {
		begin_frame(&clients[0], 1000);
		go_on(&clients[0]);
		run_until(seconds() + 0.1, false);
	}
}

/* What /proc says of the server: a number of KiB; or seconds of the processor,
 * of the program and of the kernel. */
static double
status(pid_t server, const char *key)
{
	char path[64], line[256];
	double value = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)server);
	f = fopen(path, "r");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, key, strlen(key)) == 0)
			value = atof(line + strlen(key) + 1);
	if (f == NULL || fclose(f) != 0)
		die(path);
	return value;
}

static void
processor(pid_t server, double *user, double *kernel)
{
	char path[64], line[1024] = "";
	unsigned long u = 0, k = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)server);
	f = fopen(path, "r");
	if (f == NULL || fgets(line, sizeof line, f) == NULL ||
	    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u"
		   " %*u %*u %lu %lu", &u, &k) != 2)
		die(path);
	fclose(f);
	*user = (double)u / (double)sysconf(_SC_CLK_TCK);
	*kernel = (double)k / (double)sysconf(_SC_CLK_TCK);
}

static void
connect_all(const struct sockaddr_in *to)
{
	epoll = epoll_create1(0);
	for (size_t i = 0; i < connections; i++) {
		struct client *c = &clients[i];

		c->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (c->fd < 0 ||
		    connect(c->fd, (const void *)to, sizeof *to) != 0)
			die("connect");
		if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
			die("fcntl");
		if (watch_all(epoll, c->fd, c) != 0)
			die("epoll_ctl");
	}
	for (size_t i = 0; i < sizeof sent; i++) {
		sent[i] = (uint8_t)draw(0, 255);
		wanted[i] = (uint8_t)~sent[i];
	}
}

static void
measure(pid_t server, double how_long, double resting)
{
	double user[2], kernel[2], from, spent, before;
	uint64_t count;

	begin_all(1, 0);
	run_until(0, false);
	before = status(server, "VmRSS:");
	begin_all(0, 0);
	run_until(seconds() + how_long / 4, true);
	processor(server, &user[0], &kernel[0]);
	count = frames;
	from = seconds();
	begin_all(0, 0);
	run_until(from + how_long, true);
	spent = seconds() - from;
	count = frames - count;
	processor(server, &user[1], &kernel[1]);
	printf("rate=%.0f cpu=%.0f kernel=%.0f before=%.0f loaded=%.0f",
	       (double)count / spent,
	       (user[1] - user[0] + kernel[1] - kernel[0]) / (double)count *
	       1e9,
	       (kernel[1] - kernel[0]) / (double)count * 1e9, before,
	       status(server, "VmHWM:"));
	burst();
	printf(" burst=%.0f", status(server, "VmHWM:"));
	rest(resting);
	printf(" after=%.0f\n", status(server, "VmRSS:"));
}

int
main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t size = sizeof at;
	pid_t server;

	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
		if (argc > 1 && strcmp(argv[1], ways[i].name) == 0)
			way = &ways[i];
	connections = argc > 2 ? strtoul(argv[2], NULL, 10) : 200;
	if (way == NULL || connections == 0 || connections > CONNECTIONS_MAX) {
		fprintf(stderr, "usage: server WAY [CONNECTIONS [SECONDS "
			"[REST]]]\nways:");
		for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
			fprintf(stderr, " %s", ways[i].name);
		fprintf(stderr, "\n");
		return 2;
	}
	preload(argv);
	if (bind(listener, (void *)&at, sizeof at) != 0 ||
	    listen(listener, CONNECTIONS_MAX) != 0 ||
	    getsockname(listener, (void *)&at, &size) != 0)
		die("listen");
	server = fork();
	if (server < 0)
		die("fork");
	if (server == 0)
		run_server(listener);
	use_processor(1);
	connect_all(&at);
	measure(server, argc > 3 ? atof(argv[3]) : 4,
		argc > 4 ? atof(argv[4]) : 20);
	kill(server, SIGKILL);
	return 0;
}
