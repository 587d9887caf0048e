/*
 * name - the names of pools.
 *
 * A name is listed once and for good, with the id of the pool that has it. An
 * id is never used twice. So an exchange that replaces the id of a closed pool
 * cannot replace a newer pool by mistake.
 */
#ifndef BUFPOOL_NAME_H
#define BUFPOOL_NAME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bufpool.h"

bool bp_name_init(void);		/* once, before any other thread */

/* Where the id of the pool of this name is; NULL when the name was never
 * listed. Any thread. */
_Atomic uint64_t *bp_name_find(const char *text);

/* Lists the name unless it is listed, with the id 0. NULL + ENOMEM. Any
 * thread. */
_Atomic uint64_t *bp_name_list(const char *text);

/* Copies a text so that it stays on one line of a log and steers no terminal:
 * '?' stands for control bytes. `to` has n bytes; what does not fit is left
 * out. */
void bp_name_show(char *to, size_t n, const char *text);

#endif
