/*
 * piece - memory that bufpool lends to nginx.
 *
 * bufpool's Lua module fills pieces, and ngx_http_bufpool_module takes them.
 * Neither is linked with the other, so a piece brings all that its taker needs.
 * The layout is part of the version in ngx_http_bufpool_module.c.
 */
#ifndef BUFPOOL_NGINX_PIECE_H
#define BUFPOOL_NGINX_PIECE_H

#include <stddef.h>
#include <stdint.h>

/* ffi: begin */
struct bufpool_piece {
	const uint8_t *at;
	size_t len;
	/* To be called with `held` once, after the last look at the bytes.
	 * NULL: the bytes are valid during the call only. */
	void (*release)(void *held);
	void *held;
};
/* ffi: end */

#endif
