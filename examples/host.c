/*
 * A server with a pool and Lua handlers: two threads, each with a Lua state of
 * its own, one pool for both.
 *
 *      socket --read--> buffer --handler--> buffer --writev--> socket
 *
 * A message is four bytes, the length of its body with the highest byte first,
 * and then the body. The server reads a body into a buffer of the pool, passes
 * that buffer to Lua, takes the buffer that the handler returns, the same or
 * another, and sends it. No byte of a body is copied on the way. An error in a
 * handler closes the connection that asked for it, and no other.
 *
 *      host                    tries itself: a few messages, and what they gave
 *      host PORT [HANDLER.lua] serves on 127.0.0.1 until SIGINT or SIGTERM;
 *                              0: a free port, which it prints
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "bufpool.h"
#include "bufpool_lua.h"

#define WORKERS 2
#define HEAD 4			/* bytes before a body */
#define BODY_MAX (16 << 20)	/* bytes of the largest body */
#define EVENTS 64
#define CONNECTION (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define TURN 16			/* messages of one connection at a time */

/* What answers unless another handler is given. A handler is called with the
 * pool once, and returns the function that gets each request. */
static const char standard[] =
	"local pool = ...\n"
	"return function(request)\n"
	"    if request:find('error') == 1 then\n"
	"        error('asked for by the client')\n"
	"    elseif request:find('count') == 1 then\n"
	"        local reply = pool:writer():put(#request, ' bytes')\n"
	"        request:release()\n"
	"        return reply\n"
	"    end\n"
	"    return request\n"
	"end\n";

/* A connection reads a request or sends a reply, one after the other. It owns
 * its buffer, but for the time in which a handler has it. */
struct connection {
	int fd;
	bool sending;
	unsigned char head[HEAD];
	size_t done;		/* bytes of head and body read, or sent */
	struct bufpool_buf *body;	/* NULL until the head has been read */
	struct connection *prev, *next;
};

struct worker {
	struct bufpool *pool;
	const char *handler;	/* a file, or NULL */
	int listener, stop;	/* stop can be read when the server is to end */
	int epoll;
	lua_State *L;		/* at index 1: handle, with all that it needs */
	struct connection *current;	/* whose request a handler has */
	struct connection all;	/* head of a ring of connections */
	uint64_t served, failed;
	pthread_t thread;
};

_Noreturn static void
fail(const char *what)
{
	fprintf(stderr, "host: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static uint32_t
body_len(const struct connection *c)
{
	uint32_t len;

	memcpy(&len, c->head, sizeof len);
	return ntohl(len);
}

/* Runs protected, for push, take and the handler may raise. What was pushed
 * belongs to Lua; what was taken belongs to the connection. */
static int
handle(lua_State *L)
{
	struct worker **self = lua_touserdata(L, lua_upvalueindex(1));
	struct connection *c = (*self)->current;
	struct bufpool_buf *body = c->body;

	lua_pushvalue(L, lua_upvalueindex(2));
	c->body = NULL;
	bufpool_lua_push_buf(L, body);
	lua_call(L, 1, 1);
	c->body = bufpool_lua_take_buf(L, -1);
	if (bufpool_len(c->body) > UINT32_MAX)
		return luaL_error(L, "a reply of 4 GiB or more");
	return 0;
}

static bool
answer(struct worker *w, struct connection *c)
{
	uint32_t len;

	w->current = c;
	lua_pushvalue(w->L, 1);
	if (lua_pcall(w->L, 0, 0, 0) != 0) {
		fprintf(stderr, "host: %s\n", lua_tostring(w->L, -1));
		lua_settop(w->L, 1);
		w->failed++;
		return false;
	}
	len = htonl((uint32_t)bufpool_len(c->body));
	memcpy(c->head, &len, sizeof len);
	c->done = 0;
	c->sending = true;
	return true;
}

static bool
watch(struct worker *w, int how, int fd, void *mark, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = mark };

	return epoll_ctl(w->epoll, how, fd, &e) == 0;
}

static ssize_t
read_some(struct connection *c)
{
	size_t at = c->body == NULL ? c->done : c->done - HEAD;

	return c->body == NULL
	    ? read(c->fd, c->head + at, HEAD - at)
	    : read(c->fd, (char *)bufpool_data(c->body) + at,
		   bufpool_len(c->body) - at);
}

static bool
take_body(struct worker *w, struct connection *c)
{
	if (body_len(c) <= BODY_MAX)
		c->body = bufpool_checkout(w->pool, body_len(c));
	return c->body != NULL;
}

/* False when the connection is over, by the client or by a failure. *whole: a
 * message is there; else the socket has no more just now. */
static bool
receive(struct worker *w, struct connection *c, bool *whole)
{
	for (*whole = false;;) {
		ssize_t got;

		if (c->done == HEAD && c->body == NULL && !take_body(w, c))
			return false;
		if (c->body && c->done == HEAD + bufpool_len(c->body)) {
			*whole = true;
			return true;
		}
		got = read_some(c);
		if (got <= 0)
			return got < 0 && errno == EAGAIN;
		c->done += (size_t)got;
	}
}

/* As receive. *whole: all of the reply has been sent; else the socket takes no
 * more just now. */
static bool
transmit(struct connection *c, bool *whole)
{
	size_t len = bufpool_len(c->body);

	for (*whole = false; c->done < HEAD + len;) {
		size_t head = c->done < HEAD ? HEAD - c->done : 0;
		size_t from = c->done + head - HEAD;
		struct iovec part[2] = {
			{ c->head + HEAD - head, head },
			{ (char *)(uintptr_t)bufpool_peek(c->body) + from,
			  len - from },
		};
		ssize_t put = writev(c->fd, part, 2);

		if (put < 0)
			return errno == EAGAIN;
		c->done += (size_t)put;
	}
	bufpool_release(c->body);
	c->body = NULL;
	c->done = 0;
	c->sending = false;
	*whole = true;
	return true;
}

/* False when the connection is over. Edge-triggered: goes on until the socket
 * has, or takes, no more. Who asks for more than others asks for a new event
 * and waits until they have had their turn. */
static bool
proceed(struct worker *w, struct connection *c)
{
	bool whole;

	for (int i = 0; i < TURN; i++) {
		if (!c->sending) {
			if (!receive(w, c, &whole))
				return false;
			if (!whole)
				return true;
			if (!answer(w, c))
				return false;
		}
		if (!transmit(c, &whole))
			return false;
		if (!whole)
			return true;
		w->served++;
	}
	return watch(w, EPOLL_CTL_MOD, c->fd, c, CONNECTION);
}

static void
end_connection(struct connection *c)
{
	c->prev->next = c->next;
	c->next->prev = c->prev;
	bufpool_release(c->body);
	close(c->fd);
	free(c);
}

static void
begin_connection(struct worker *w)
{
	int fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c = fd < 0 ? NULL : calloc(1, sizeof *c);

	if (c == NULL) {	/* the other worker was faster, or a shortage */
		if (fd >= 0)
			close(fd);
		return;
	}
	c->fd = fd;
	c->prev = &w->all;
	c->next = w->all.next;
	c->next->prev = w->all.next = c;
	if (!watch(w, EPOLL_CTL_ADD, fd, c, CONNECTION))
		end_connection(c);
}

/* Leaves `handle` at index 1, with the worker and what the script returned. */
static void
open_lua(struct worker *w)
{
	lua_State *L = luaL_newstate();
	struct worker **self;

	if (L == NULL)
		fail("no Lua state");
	w->L = L;
	luaL_openlibs(L);
	lua_pushcfunction(L, luaopen_bufpool);
	if (lua_pcall(L, 0, 0, 0) != 0)
		goto failed;
	self = lua_newuserdata(L, sizeof *self);
	*self = w;
	if ((w->handler ? luaL_loadfile(L, w->handler)
			: luaL_loadstring(L, standard)) != 0)
		goto failed;
	bufpool_lua_push_pool(L, bufpool_ref(w->pool));
	if (lua_pcall(L, 1, 1, 0) != 0)
		goto failed;
	lua_pushcclosure(L, handle, 2);
	return;
failed:
	fprintf(stderr, "host: %s\n", lua_tostring(L, -1));
	exit(EXIT_FAILURE);
}

static void *
work(void *worker)
{
	struct worker *w = worker;
	struct epoll_event event[EVENTS];
	bool going = true;

	w->all.next = w->all.prev = &w->all;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0 ||
	    !watch(w, EPOLL_CTL_ADD, w->listener, &w->listener,
		   EPOLLIN | EPOLLEXCLUSIVE) ||
	    !watch(w, EPOLL_CTL_ADD, w->stop, &w->stop, EPOLLIN))
		fail("epoll");
	while (going) {
		int n = epoll_wait(w->epoll, event, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			if (event[i].data.ptr == &w->stop)
				going = false;
			else if (event[i].data.ptr == &w->listener)
				begin_connection(w);
			else if (!proceed(w, event[i].data.ptr))
				end_connection(event[i].data.ptr);
		}
	}
	while (w->all.next != &w->all)
		end_connection(w->all.next);
	close(w->epoll);
	lua_close(w->L);
	return NULL;
}

static int
listen_on(uint16_t port, struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof *at;
	int on = 1;

	*at = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    bind(fd, (struct sockaddr *)at, size) != 0 ||
	    listen(fd, SOMAXCONN) != 0 ||
	    getsockname(fd, (struct sockaddr *)at, &size) != 0)
		fail("cannot listen");
	return fd;
}

/* As a client: sends a message and prints what comes back. */
static void
ask(const struct sockaddr_in *at, const char *text)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint32_t len = htonl((uint32_t)strlen(text));
	char reply[64];
	ssize_t got;

	if (fd < 0 || connect(fd, (const void *)at, sizeof *at) != 0 ||
	    write(fd, &len, sizeof len) != sizeof len ||
	    write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		fail("cannot ask");
	got = recv(fd, &len, sizeof len, MSG_WAITALL);
	if (got == sizeof len)
		got = recv(fd, reply, ntohl(len), MSG_WAITALL);
	if (got <= 0)
		printf("%s -> the connection was closed\n", text);
	else
		printf("%s -> %.*s\n", text, (int)got, reply);
	close(fd);
}

static void
try_itself(const struct sockaddr_in *at)
{
	ask(at, "the same buffer goes in and out");
	ask(at, "count: another one comes back");
	ask(at, "error");
	ask(at, "the others go on");
}

static void
say_port(const struct sockaddr_in *at)
{
	printf("port %d\n", ntohs(at->sin_port));
	fflush(stdout);
}

static void
start(struct worker *w, struct bufpool *pool, int listener, int stop,
      const char *handler)
{
	for (int i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){
			.pool = pool, .listener = listener, .stop = stop,
			.handler = handler
		};
		open_lua(&w[i]);
		if (pthread_create(&w[i].thread, NULL, work, &w[i]) != 0)
			fail("no thread");
	}
}

static void
finish(struct worker *w, struct bufpool *pool, int stop)
{
	uint64_t served = 0, failed = 0;
	struct bufpool_stats stats;

	eventfd_write(stop, 1);
	for (int i = 0; i < WORKERS; i++) {
		pthread_join(w[i].thread, NULL);
		served += w[i].served;
		failed += w[i].failed;
	}
	bufpool_get_stats(pool, &stats);
	printf("%" PRIu64 " served, %" PRIu64 " failed, %" PRIu64 " out, %"
	       PRIu64 " misses\n", served, failed, stats.checked_out,
	       stats.misses);
}

int
main(int argc, char **argv)
{
	struct worker worker[WORKERS];
	int stop = eventfd(0, EFD_CLOEXEC), listener, number;
	struct bufpool *pool = bufpool_create(NULL);
	struct sockaddr_in at;
	sigset_t signals;

	if (pool == NULL || stop < 0)
		fail("no pool");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);	/* in every thread */
	listener = listen_on((uint16_t)(argc > 1 ? atoi(argv[1]) : 0), &at);
	start(worker, pool, listener, stop, argc > 2 ? argv[2] : NULL);
	if (argc > 1) {
		say_port(&at);
		sigwait(&signals, &number);
	} else {
		try_itself(&at);
	}
	finish(worker, pool, stop);
	bufpool_destroy(pool);
	return EXIT_SUCCESS;
}
