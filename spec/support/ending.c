/*
 * For make coverage, which links this into all that it measures, with these
 * calls sent here (--wrap): gcov's counters are written as a process exits, and
 * here before it ends otherwise, or may be about to.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

void __gcov_dump(void);
void __gcov_reset(void);

_Noreturn void __real_abort(void);
_Noreturn void __real__exit(int);
int __real_sigaction(int, const struct sigaction *, struct sigaction *);

static void
flush(void)
{
	__gcov_dump();
	__gcov_reset();
}

_Noreturn void
__wrap_abort(void)
{
	flush();
	__real_abort();
}

_Noreturn void
__wrap__exit(int status)
{
	flush();
	__real__exit(status);
}

/* A handler leaves the signal to the default, or to nobody, which ends the
 * process where an instruction is at fault. */
int
__wrap_sigaction(int number, const struct sigaction *action,
		 struct sigaction *before)
{
	if (action != NULL && (action->sa_handler == SIG_DFL ||
			       action->sa_handler == SIG_IGN))
		flush();
	return __real_sigaction(number, action, before);
}
