#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "failure.h"

void
bp_failure_message(int error, char *to, size_t n)
{
	/* Not the one of _GNU_SOURCE, which glibc alone has. This one may leave
	 * `to` alone only where it does not know the error. */
	if (strerror_r(error, to, n) != 0 && to[0] == '\0')
		/* Not run: the error is known. */
		snprintf(to, n, "error %d", error);
}

void
bp_failure_shortage(int error, double size, char *to, size_t n)
{
	const char *why;
	char text[MESSAGE_MAX / 2];

	switch (error) {
	case EDQUOT:
		why = "max_bytes of the pool reached";
		break;
	case ENOMEM:
		why = "out of memory";
		break;
	case EOVERFLOW:	/* Not run: Lua refuses such sizes. */
		why = "size too large";
		break;
	case ESHUTDOWN:
		why = "the pool is closed";
		break;
	default:	/* Not run: no other comes. */
		bp_failure_message(error, text, sizeof text);
		why = text;
	}
	snprintf(to, n, "%s (%.0f bytes asked for)", why, size);
}
