#define _GNU_SOURCE
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include "fault.h"
#include "buf.h"
#include "guard.h"
#include "name.h"

static struct sigaction before;

/* A line to be written; what does not fit is left out. */
struct line {
	size_t n;
	char text[512];
};

static void
put_text(struct line *l, const char *text)
{
	while (*text != '\0' && l->n < sizeof l->text)
		l->text[l->n++] = *text++;
}

static void
put_number(struct line *l, uint64_t n, unsigned base)
{
	char digits[24];
	size_t i = sizeof digits;

	digits[--i] = '\0';
	do
		digits[--i] = "0123456789abcdef"[n % base];
	while ((n /= base) > 0);
	put_text(l, digits + i);
}

/* What cannot be written is lost. */
static void
write_line(struct line *l)
{
	put_text(l, "\n");
	l->text[l->n - 1] = '\n';
	if (write(STDERR_FILENO, l->text, l->n) < 0)
		return;	/* Not run: stderr is open. */
}

/* Only some processors tell a store from a load. */
static const char *
access_of(const void *context)
{
#if defined(__x86_64__)
	const ucontext_t *c = context;

	return c->uc_mcontext.gregs[REG_ERR] & 2 ? "a store to" : "a load from";
#else
	(void)context;
	return "an access to";
#endif
}

static void
put_where(struct line *l, const struct bufpool_buf *b, uintptr_t address)
{
	uintptr_t base = (uintptr_t)b->base;
	size_t size = buf_size(b);

	if (address < base) {
		put_number(l, base - address, 10);
		put_text(l, " bytes in front of");
	} else if (address - base < size) {
		put_text(l, "byte ");
		put_number(l, address - base + 1, 10);
		put_text(l, " of");
	} else {
		put_number(l, address - base - size + 1, 10);
		put_text(l, " bytes past the end of");
	}
}

static const char *
state_of(const struct bufpool_buf *b)
{
	switch (atomic_load_explicit(&b->word, memory_order_relaxed) &
		BUF_STATE) {
	case BUF_OUT:
		return "out";
	case BUF_FROZEN:
		return "frozen";
	default:
		return "released";
	}
}

static void
report_buffer(const struct bufpool_buf *b, uintptr_t address,
	      const char *access)
{
	char label[BUFPOOL_NAME_MAX];
	struct line l = { 0 };

	bp_name_show(label, sizeof label, b->label == NULL ||
		     b->label[0] == '\0' ? "(unnamed)" : b->label);
	put_text(&l, "bufpool: fault at 0x");
	put_number(&l, address, 16);
	put_text(&l, ": ");
	put_text(&l, access);
	put_text(&l, " ");
	put_where(&l, b, address);
	put_text(&l, " buffer ");
	put_number(&l, b->number, 10);
	put_text(&l, " of pool '");
	put_text(&l, label);
	put_text(&l, "' (");
	put_number(&l, buf_size(b), 10);
	put_text(&l, " bytes), which is ");
	put_text(&l, state_of(b));
	write_line(&l);
}

static void
report_place(const struct bufpool_buf *b)
{
	char origin[ORIGIN_MAX] = "";
	struct line l = { 0 };

	bp_buf_origin(b, origin, sizeof origin);
	if (origin[0] == '\0')
		return;
	put_text(&l, "bufpool: it was ");
	put_text(&l, origin);
	write_line(&l);
}

/* Where the handler before was the default, the instruction is executed again,
 * and ends the program. A signal that was sent is sent again. */
static void
go_on(int number, siginfo_t *info, void *context)
{
	struct sigaction next = before;

	if (next.sa_flags & (int)SA_RESETHAND) {
		before.sa_handler = SIG_DFL;
		before.sa_flags = 0;
	}
	if (next.sa_flags & SA_SIGINFO) {
		next.sa_sigaction(number, info, context);
		return;
	}
	if (next.sa_handler != SIG_DFL && next.sa_handler != SIG_IGN) {
		next.sa_handler(number);
		return;
	}
	if (before.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	sigaction(number, &before, NULL);
	/* Not run: so it seems, because gcov's counters are written before. */
	if (info->si_code <= 0)
		raise(number);
}

/* One report at a time: where several threads stop at once, the first report is
 * the one that matters. */
static void
on_fault(int number, siginfo_t *info, void *context)
{
	static atomic_flag busy = ATOMIC_FLAG_INIT;
	const struct bufpool_buf *b = info->si_code > 0
	    ? bp_guard_find(info->si_addr) : NULL;
	int saved = errno;

	if (b != NULL && !atomic_flag_test_and_set(&busy)) {
		report_buffer(b, (uintptr_t)info->si_addr, access_of(context));
		report_place(b);
		atomic_flag_clear(&busy);
	}
	errno = saved;
	go_on(number, info, context);
}

/* A handler that the program has installed since stays, because it may call
 * ours: if ours were installed once more, it would call that one in turn, for
 * ever. */
void
bp_fault_begin(void)
{
	static atomic_flag begun = ATOMIC_FLAG_INIT;
	struct sigaction action, now;
	bool first = !atomic_flag_test_and_set(&begun);

	if (sigaction(SIGSEGV, NULL, &now) != 0 ||
	    !(first || now.sa_handler == SIG_DFL))
		return;
	/* What was there is known before it can be called, and is called with
	 * the mask and on the stack that it asked for. */
	before = action = now;
	action.sa_flags &= ~(int)SA_RESETHAND;
	action.sa_flags |= SA_SIGINFO;
	if (now.sa_handler == SIG_DFL)
		action.sa_flags |= SA_ONSTACK;
	action.sa_sigaction = on_fault;
	sigaction(SIGSEGV, &action, NULL);
}
