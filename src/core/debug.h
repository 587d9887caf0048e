/*
 * debug - checks that are switched on from outside of the program, by the
 * environment: BUFPOOL_DEBUG=help tells which.
 */
#ifndef BUFPOOL_DEBUG_H
#define BUFPOOL_DEBUG_H

#include "pool.h"

/* Changes a valid configuration as BUFPOOL_DEBUG says, which is read here and
 * nowhere else. Writes to standard error what it does not know, once. */
void bp_debug_apply(struct bufpool_config *config);

/* Whether it asked for reports, of whatever pool. */
bool bp_debug_reports(void);

/* Where it asked for that, writes to standard error what is out of the
 * pool, and what a collector had to release, by place. `when` says when that
 * is. The pool does not end meanwhile. */
void bp_debug_report(struct bufpool *p, const char *when);

#endif
