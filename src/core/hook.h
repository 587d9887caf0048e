/*
 * hook - where a test may stop a thread.
 *
 * The places at which a thread could be taken off its core while it is inside
 * something that others meet: a test built with BUFPOOL_HOOKS sets the function
 * that is called there. In all other builds this is empty.
 */
#ifndef BUFPOOL_HOOK_H
#define BUFPOOL_HOOK_H

#ifdef BUFPOOL_HOOKS
/* Weak, so that each file may define it and all have the same one. */
__attribute__((weak)) void (*bufpool_hook)(const char *where);

static inline void
hook(const char *where)
{
	if (bufpool_hook != 0)
		bufpool_hook(where);
}
#else
#define hook(where) ((void)0)
#endif

#endif
