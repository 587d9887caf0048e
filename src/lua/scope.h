/*
 * scope - the buffers of a request of nginx, which go home when it ends.
 *
 * A request ends without Lua: its Lua VM may be gone by then. So what a scope
 * gives out are handles, and a list of them is kept where nginx's end of the
 * request finds it without Lua. The list is a buffer as well: its contents are
 * the 64 bits of each handle given out, and nginx keeps the handle of the list.
 * A handle that was released, frozen or detached meanwhile stays in the list
 * until the list is full: that it is stale shows when somebody looks.
 *
 * Whether the request still lives shows by the same check of the list's handle.
 */
#ifndef BUFPOOL_LUA_SCOPE_H
#define BUFPOOL_LUA_SCOPE_H

#include "take.h"

/*
 * A list for a request of nginx, an ngx_http_request_t that lives: bp_scope_end
 * is called for it by ngx_http_bufpool_module when nginx frees the request's
 * memory, or else by the Lua module's cleanup, which comes before log_by_lua;
 * `late` says that it is too late for the latter. NULL when it fails, and then
 * nothing is left behind; the errno is in pool->error, ENOTSUP when there is no
 * way to learn of the request's end, ESTALE when the pool is closed.
 */
struct bufpool_handle *bp_scope_open(struct bufpool_pool_box *pool,
				     void *request, int late);

/*
 * A buffer of n bytes, in the list, as bp_take has it, its kind too. NULL when
 * it fails; the errno is in pool->error, ECANCELED when the list's request has
 * ended, ENOBUFS when the list cannot grow, ESTALE when the pool is closed.
 */
struct bufpool_handle *bp_scope_borrow(struct bufpool_pool_box *pool,
				       struct bufpool_handle *list, size_t n,
				       size_t alignment, int kind);

enum { HELD_BUFFERS, HELD_BYTES };

/* How many buffers of the list are out; or how many bytes of memory these have,
 * together with what the pool would give for n bytes more. A list that has
 * ended, and NULL, have none. 0 when the pool is closed. Takes the stale
 * handles out of the list, and looks at each other one. */
double bp_scope_held(const struct bufpool_pool_box *pool,
		     struct bufpool_handle *list, size_t n, int what);

/* Releases what is in the list, and the list. Called by nginx, in the thread of
 * the request. Knows no Lua. */
void bp_scope_end(void *list);

#endif
