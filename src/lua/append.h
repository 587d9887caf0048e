/*
 * append - several values at the end of a buffer, all of them or none.
 *
 * Nothing in here runs Lua, so nothing comes between the look at a value and
 * the copy of its bytes.
 */
#ifndef BUFPOOL_LUA_APPEND_H
#define BUFPOOL_LUA_APPEND_H

#include "box.h"

#define APPEND_ODD (-1)

/* bp_grow_to; the box is charged for it, or nobody where that is NULL. 0 or an
 * errno. */
int bp_append_grow(struct bufpool_buf *b, size_t capacity,
		   struct bufpool_box *box);

/* Appends `count` values to b, which is alive and that of the box, where there
 * is one. 0, APPEND_ODD as box.h tells, or the errno of bp_append_grow. */
int bp_append(struct bufpool_buf *b, struct bufpool_box *box,
	      const struct bufpool_values *values, int count);

/* put and put_handle of box.h. */
int bp_append_put(struct bufpool_box *to, const struct bufpool_values *values,
		  int count, int32_t turn);
int bp_append_put_handle(struct bufpool_handle *to,
			 const struct bufpool_values *values, int count,
			 int32_t turn);

#endif
