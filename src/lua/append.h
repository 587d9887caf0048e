/*
 * append - several values at the end of a buffer, all of them or none.
 *
 * Nothing in here runs Lua, so nothing comes between the look at a value and
 * the copy of its bytes.
 */
#ifndef BUFPOOL_LUA_APPEND_H
#define BUFPOOL_LUA_APPEND_H

#include <string.h>

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

/* Most texts are short, and a call for each would cost more than the copy. */
static inline void
append_copy(uint8_t *to, const uint8_t *from, size_t n)
{
	if (n > 32)
		memcpy(to, from, n);
	else if (n >= 16) {
		memcpy(to, from, 16);
		memcpy(to + n - 16, from + n - 16, 16);
	} else if (n >= 8) {
		memcpy(to, from, 8);
		memcpy(to + n - 8, from + n - 8, 8);
	} else if (n >= 4) {
		memcpy(to, from, 4);
		memcpy(to + n - 4, from + n - 4, 4);
	} else if (n > 0) {
		to[0] = from[0];
		to[n / 2] = from[n / 2];
		to[n - 1] = from[n - 1];
	}
}

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
