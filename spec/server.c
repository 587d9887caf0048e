/*
 * examples/host.c under load: clients that pipeline, that are slow, that go
 * away in the middle, and that make handlers fail. Each compares every byte of
 * its replies with what it has sent.
 *
 * The server runs in a child. REQUESTS: how many the clients send in all.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#define main host_main
#include "../examples/host.c"
#undef main

#include <cmocka.h>
#include <poll.h>

#include "support/process.h"

#define CLIENTS 8
#define DEEP (3 * TURN)		/* requests that a client has under way */

static pid_t server;
static FILE *said;		/* by the server */
static struct sockaddr_in at;
static uint32_t share = 100000 / CLIENTS;	/* requests of a client */

static int
start_server(void **state)
{
	char *argv[] = { "host", "0", NULL };
	int end[2], port;

	(void)state;
	if (getenv("REQUESTS") != NULL)
		share = (uint32_t)atoi(getenv("REQUESTS")) / CLIENTS;
	if (pipe(end) != 0)
		return -1;
	fflush(NULL);
	server = fork();
	if (server == 0) {
		dup2(end[1], STDOUT_FILENO);
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(1);
		exit(host_main(2, argv));
	}
	close(end[1]);
	said = fdopen(end[0], "r");
	if (said == NULL || fscanf(said, "port %d", &port) != 1)
		return -1;
	at = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	return 0;
}

/* What request `number` of a client is, so that nobody has to remember it. */
struct request {
	uint32_t len, salt;
};

static struct request
request_of(uint32_t client, uint32_t number)
{
	uint32_t salt = (client * 100003 + number + 1) * 2654435761u, len;

	switch (salt >> 24) {
	case 0: len = salt % 300000; break;
	case 1: case 2: case 3: case 4: len = salt % 20000; break;
	case 5: len = 0; break;
	default: len = salt % 300; break;
	}
	return (struct request){ len, salt };
}

/* Never the first byte of "error" or "count". */
static unsigned char
byte_of(struct request r, uint32_t k)
{
	return (unsigned char)(128 | (r.salt + k * 167 + (k >> 8)));
}

static int
connect_to_server(bool narrow)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int bytes = 4096;

	CHECK(fd >= 0, "no socket");
	CHECK(!narrow || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes,
				    sizeof bytes) == 0, "no narrow socket");
	CHECK(connect(fd, (void *)&at, sizeof at) == 0, "no connection");
	return fd;
}

struct client {
	int fd;
	uint32_t id;
	uint32_t sent, got;	/* requests and replies that are through */
	size_t sent_bytes, got_bytes;	/* of the next ones */
	bool narrow;		/* the server's replies fill its socket */
	unsigned char out[HEAD + 300000], head[HEAD];
};

static void
send_some(struct client *c)
{
	struct request r = request_of(c->id, c->sent);
	uint32_t len = htonl(r.len);
	ssize_t n;

	if (c->sent_bytes == 0) {
		memcpy(c->out, &len, HEAD);
		for (uint32_t k = 0; k < r.len; k++)
			c->out[HEAD + k] = byte_of(r, k);
	}
	n = send(c->fd, c->out + c->sent_bytes, HEAD + r.len - c->sent_bytes,
		 MSG_DONTWAIT);
	CHECK(n > 0 || errno == EAGAIN, "send");
	if (n > 0)
		c->sent_bytes += (size_t)n;
	if (c->sent_bytes == HEAD + r.len) {
		c->sent++;
		c->sent_bytes = 0;
	}
}

static void
check_byte(struct client *c, unsigned char byte)
{
	struct request r = request_of(c->id, c->got);
	uint32_t len = htonl(r.len);

	if (c->got_bytes < HEAD)
		CHECK(byte == ((unsigned char *)&len)[c->got_bytes],
		      "client %u, reply %u: length", c->id, c->got);
	else
		CHECK(byte == byte_of(r, (uint32_t)c->got_bytes - HEAD),
		      "client %u, reply %u: byte %zu", c->id, c->got,
		      c->got_bytes - HEAD);
	if (++c->got_bytes == HEAD + r.len) {
		c->got++;
		c->got_bytes = 0;
	}
}

static void
receive_some(struct client *c)
{
	unsigned char in[65536];
	size_t most = c->narrow ? 100 : sizeof in;
	ssize_t n = recv(c->fd, in, most, MSG_DONTWAIT);

	CHECK(n > 0 || (n < 0 && errno == EAGAIN), "client %u, reply %u: end",
	      c->id, c->got);
	for (ssize_t i = 0; i < n; i++)
		check_byte(c, in[i]);
}

static void
exchange(struct client *c)
{
	c->fd = connect_to_server(c->narrow);
	while (c->got < share) {
		bool more = c->sent < share && c->sent - c->got < DEEP;
		struct pollfd p = {
			c->fd, (short)(POLLIN | (more ? POLLOUT : 0)), 0
		};

		CHECK(poll(&p, 1, -1) == 1, "no answer");
		if (p.revents & POLLOUT)
			send_some(c);
		if (p.revents & ~POLLOUT)
			receive_some(c);
	}
	close(c->fd);
}

static void *
client(void *id)
{
	struct client *c = calloc(1, sizeof *c);

	CHECK(c != NULL, "memory");
	c->id = (uint32_t)(uintptr_t)id;
	c->narrow = c->id % 4 == 0;
	exchange(c);
	free(c);
	return NULL;
}

static void
every_byte_comes_back(void **state)
{
	pthread_t thread[CLIENTS];

	(void)state;
	for (uintptr_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, client,
						(void *)i), 0);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(thread[i], NULL);
}

static void
transfer(int fd, unsigned char *data, size_t len, bool out)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = out ? send(fd, data + done, len - done, 0)
				: recv(fd, data + done, len - done, 0);

		CHECK(n > 0, "after %zu of %zu bytes", done, len);
		done += (size_t)n;
	}
}

/* Larger than what both sockets hold, and the client reads when it has sent
 * all of it: so the server has to stop in the middle of its reply. */
static void
a_reply_waits_for_its_reader(void **state)
{
	size_t len = HEAD + BODY_MAX;
	struct request r = { BODY_MAX, 7 };
	unsigned char *out = malloc(len), *in = malloc(len);
	uint32_t head = htonl(BODY_MAX);
	int fd = connect_to_server(true);

	(void)state;
	assert_true(out != NULL && in != NULL);
	memcpy(out, &head, HEAD);
	for (uint32_t k = 0; k < BODY_MAX; k++)
		out[HEAD + k] = byte_of(r, k);
	transfer(fd, out, len, true);
	transfer(fd, in, len, false);
	assert_true(memcmp(out, in, len) == 0);
	close(fd);
	free(out);
	free(in);
}

/* Sends a head and a text, and how much of that. */
static int
send_part(uint32_t len, const char *text, size_t most)
{
	unsigned char out[HEAD + 64];
	int fd = connect_to_server(false);

	len = htonl(len);
	memcpy(out, &len, HEAD);
	memcpy(out + HEAD, text, strlen(text));
	if (most > HEAD + strlen(text))
		most = HEAD + strlen(text);
	CHECK(send(fd, out, most, MSG_NOSIGNAL) == (ssize_t)most, "send");
	return fd;
}

static void
expect_end(int fd)
{
	char byte;

	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

static void
only_the_client_at_fault_is_cut_off(void **state)
{
	pthread_t thread;

	(void)state;
	share /= 4;
	pthread_create(&thread, NULL, client, (void *)1);
	for (int i = 0; i < 100; i++) {
		expect_end(send_part(5, "error", SIZE_MAX));
		expect_end(send_part(BODY_MAX + 1, "", SIZE_MAX));
		expect_end(send_part(UINT32_MAX, "", SIZE_MAX));
		close(send_part(1000, "", (size_t)i % HEAD));
		close(send_part(1000, "half", SIZE_MAX));
		close(send_part(BODY_MAX, "mostly nothing", SIZE_MAX));
		close(send_part(4, "what", SIZE_MAX));
	}
	pthread_join(thread, NULL);
	share *= 4;
}

static void
handlers_may_answer_with_another_buffer(void **state)
{
	int fd = send_part(9, "count: me", SIZE_MAX);
	char reply[HEAD + 7];

	(void)state;
	assert_int_equal(recv(fd, reply, sizeof reply, MSG_WAITALL),
			 sizeof reply);
	assert_memory_equal(reply, "\0\0\0\7" "9 bytes", sizeof reply);
	close(fd);
}

/* Last, for it ends the server. */
static void
nothing_is_out_at_the_end(void **state)
{
	long served = 0, failed = 0, out = -1;
	int status = -1;

	(void)state;
	kill(server, SIGTERM);
	assert_int_equal(fscanf(said, "%ld served, %ld failed, %ld out",
				&served, &failed, &out), 3);
	assert_true(served >= (long)share * CLIENTS + share / 4);
	assert_int_equal(failed, 100);
	assert_int_equal(out, 0);
	waitpid(server, &status, 0);
	assert_int_equal(status, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_comes_back),
		cmocka_unit_test(a_reply_waits_for_its_reader),
		cmocka_unit_test(only_the_client_at_fault_is_cut_off),
		cmocka_unit_test(handlers_may_answer_with_another_buffer),
		cmocka_unit_test(nothing_is_out_at_the_end),
	};

	return cmocka_run_group_tests_name("server", tests, start_server,
					   NULL);
}
