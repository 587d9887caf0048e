/*
 * piece - memory that bufpool lends to nginx, and the other way round, a sink
 * for what nginx has.
 *
 * bufpool's Lua module fills pieces and sinks, and nginx's modules take them.
 * Neither is linked with the other, so each brings all that its taker needs.
 * The layout is part of VERSION in ngx_http_bufpool_module.c.
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

/* Where the bytes of a response are copied to. Its taker calls the functions,
 * sets `ended`, and `error` for bytes that it does not put at all, and only
 * reads the other fields. */
struct bufpool_sink {
	/* Makes room for n bytes that are likely to come. */
	void (*expect)(struct bufpool_sink *, size_t n);
	/* Appends n bytes, or as many of them as there is room for. */
	void (*put)(struct bufpool_sink *, const uint8_t *at, size_t n);
	/* Where the *n bytes are that are kept; NULL when the buffer has gone.
	 * They stay there until more are put, or the request ends. */
	const uint8_t *(*contents)(struct bufpool_sink *, size_t *n);
	void *buf;
	uint64_t word;
	size_t max;		/* bytes that are kept */
	double seen;		/* bytes that were put */
	double asked;		/* with an error, bytes it was to hold then */
	int32_t error;		/* why the last of them is missing, or 0 */
	int32_t ended;		/* the response has no more */
};
/* ffi: end */

static inline void
piece_drop(struct bufpool_piece *piece)
{
	if (piece->release != NULL)
		piece->release(piece->held);
	piece->release = NULL;
}

#endif
