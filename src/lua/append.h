/*
 * append - several values at the end of a buffer, all of them or none.
 *
 * Nothing in here runs Lua, so nothing comes between the look at a value and
 * the copy of its bytes.
 */
#ifndef BUFPOOL_LUA_APPEND_H
#define BUFPOOL_LUA_APPEND_H

#include "handle.h"

/* ffi: begin */
/*
 * What put is to append: for each value a pointer and a number. Of a string
 * these are its bytes and its length; of a number NULL and the number itself;
 * of an object its payload, or the handle, and one of the VALUE_ numbers below.
 * `turn` is another one whenever somebody fills this in: finalizers may put.
 */
struct bufpool_values {
	const void *at[32];
	double n[32];
	int32_t turn;
};
/* ffi: end */

#define VALUES_MAX ((int)(sizeof ((struct bufpool_values *)0)->n / \
			  sizeof (double)))
#define VALUE_BUFFER (-1)
#define VALUE_FROZEN (-2)
#define VALUE_HANDLE (-3)
#define APPEND_ODD (-1)

/* bp_grow_to; the box is charged for it, or nobody where that is NULL. 0 or an
 * errno. */
int bp_append_grow(struct bufpool_buf *b, size_t capacity,
		   struct bufpool_box *box);

/* Appends `count` values to b, which is alive and that of the box, where there
 * is one. 0, APPEND_ODD as calls.h tells, or the errno of bp_append_grow. */
int bp_append(struct bufpool_buf *b, struct bufpool_box *box,
	      const struct bufpool_values *values, int count);

/* put and put_handle of calls.h. */
int bp_append_put(struct bufpool_box *to, const struct bufpool_values *values,
		  int count, int32_t turn);
int bp_append_put_handle(struct bufpool_handle *to,
			 const struct bufpool_values *values, int count,
			 int32_t turn);

#endif
