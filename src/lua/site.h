/*
 * site - leak detection in Lua: which lines check buffers out.
 *
 * The core asks where a checkout comes from only when it is going to record it:
 * the checkout fails with ESITE, and is made once more for a listed site. So
 * the others pay nothing. No lua_State is kept: a function of C that has one
 * walks its frames, and functions called by FFI leave that to Lua, which calls
 * core.where.
 */
#ifndef BUFPOOL_LUA_SITE_H
#define BUFPOOL_LUA_SITE_H

#include "core/release.h"
#include "take.h"

/* The number of the site, from 1, of the Lua code that has called: a kind of
 * checkout takes it, times SITE_UNIT. Runs no finalizer. */
int bp_site_where(lua_State *L, struct bufpool *pool);

/* core.where(pool): bp_site_where. */
int bp_site_of_caller(lua_State *L);

/* Notes that the Lua code that has called is where b was released, which was
 * out with this word, after bp_release_asking has asked for that. */
void bp_site_released(lua_State *L, const struct bufpool_buf *b, uint64_t word);

/* Releases the buffer of a box that is dead. */
static inline void
site_release(lua_State *L, struct bufpool_box *box)
{
	if (__builtin_expect(bp_release_asking(box_disown(box)) != 0, 0))
		bp_site_released(L, box->buf, box->word);
}

/* core.released(number, generation): the same as bp_site_released. */
int bp_site_tell(lua_State *L);

/* core.origin(number, generation): what is known of the buffer that the
 * descriptor of this number had: "checked out at PLACE, released at PLACE"; or
 * nil. */
int bp_site_origin(lua_State *L);

/* core.next_sites(_, cursor), for a loop that begins with the cursor 0: the
 * next cursor, the id and the name of a pool, and what sites() returns; nothing
 * after the last one. The name is false where there is none or the pool is
 * closed. */
int bp_site_next(lua_State *L);

/* core.now(): the time in seconds since some moment. */
int bp_site_now(lua_State *L);

/* pool:sites() */
int bp_site_list(lua_State *L);

/* core.set(pool, detection, sample): the pool; or nil and a message. What is
 * nil stays as it is. */
int bp_site_set(lua_State *L);

/* Copies the sites with the most bytes out to where there is room, and returns
 * how many. The second pushes the copies as pool:sites() returns them. */
size_t bp_site_copy(struct bufpool *pool, struct bufpool_site *to, size_t room);
void bp_site_push_copies(lua_State *L, const struct bufpool_site *sites,
			 size_t count);

/* Pushes what pool:sites() returns. The pool's box is in argument 1. */
void bp_site_push(lua_State *L, const char *name);

#endif
