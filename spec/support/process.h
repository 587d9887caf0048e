/*
 * For C specs about a whole process: what sets limits, enters a sandbox or is
 * to abort runs in a child.
 */
#ifndef SPEC_PROCESS_H
#define SPEC_PROCESS_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "core/sanitize.h"

/* In threads and children that cmocka knows nothing of. */
#define CHECK(what, ...)                                                    \
	do {                                                                \
		if (!(what)) {                                              \
			fprintf(stderr, __VA_ARGS__);                       \
			fprintf(stderr, " (%s:%d: %s, errno %d)\n",         \
				__FILE__, __LINE__, #what, errno);          \
			abort();                                            \
		}                                                           \
	} while (0)

/* A sanitizer has memory and mappings of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Runs body(arg) in a child. Returns the child's wait status: 0 when body
 * returned. What cmocka would do on a signal or a failed assertion is for the
 * parent only. Nor is the parent ended by the SIGTERM that .ci/test sends to
 * both when a file hangs: it tells which test that was. */
static inline int
in_child(void (*body)(void *), void *arg)
{
	int status = -1;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		setenv("CMOCKA_TEST_ABORT", "1", 1);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		body(arg);
		_exit(0);
	}
	signal(SIGTERM, SIG_IGN);
	waitpid(child, &status, 0);
	signal(SIGTERM, SIG_DFL);
	return status;
}

/* In all threads the call of the system fails with that error from now on; exec
 * keeps that. False where the process may not forbid anything. */
static inline bool
forbid(unsigned call, uint32_t error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, filter };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		    SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

struct speech {
	void (*body)(void *);
	void *arg;
	int fd;
};

static inline void
speak(void *arg)
{
	struct speech *s = arg;

	dup2(s->fd, STDERR_FILENO);
	s->body(s->arg);
}

/* As in_child, and what the child said on stderr, which is less than a pipe
 * holds. */
static inline int
said_in_child(void (*body)(void *), void *arg, char *said, size_t size)
{
	struct speech s = { body, arg, -1 };
	int fd[2], status;
	ssize_t n;

	CHECK(pipe(fd) == 0, "no pipe");
	s.fd = fd[1];
	status = in_child(speak, &s);
	close(fd[1]);
	n = read(fd[0], said, size - 1);
	said[n > 0 ? n : 0] = '\0';
	close(fd[0]);
	return status;
}

/* A number of /proc/self/status, such as "VmRSS:", in bytes. */
static inline size_t
status_bytes(const char *key)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256], name[32];
	size_t kib = 0, n;

	CHECK(file != NULL, "no /proc/self/status");
	while (fgets(line, sizeof line, file) != NULL)
		if (sscanf(line, "%31s %zu kB", name, &n) == 2 &&
		    strcmp(name, key) == 0)
			kib = n;
	fclose(file);
	return kib * 1024;
}

/* What is in memory just now, to the page. */
static inline size_t
resident_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	size_t kib = 0;

	CHECK(file != NULL, "no /proc/self/smaps_rollup");
	while (kib == 0 && fgets(line, sizeof line, file) != NULL)
		sscanf(line, "Rss: %zu kB", &kib);
	fclose(file);
	return kib * 1024;
}

#endif
