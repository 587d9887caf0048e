/*
 * lend - memory that C keeps beyond a call. calls.h says what each may do.
 */
#ifndef BUFPOOL_LUA_LEND_H
#define BUFPOOL_LUA_LEND_H

#include "box.h"
#include "nginx/piece.h"

int bp_lend_frozen(struct bufpool_frozen_box *box, int32_t epoch,
		   struct bufpool_piece *to);
int bp_lend_copy(struct bufpool_buf *b, int32_t epoch,
		 struct bufpool_piece *to);
void bp_lend_take_back(struct bufpool_piece *pieces, size_t count);

/* core.deliver, which calls by a lua_CFunction what the FFI must not. */
int bp_lend_deliver(lua_State *L);

#endif
