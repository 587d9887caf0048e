/*
 * sink - a buffer that fills with what passes through nginx, without Lua.
 *
 * nginx keeps the sink, and may outlive the buffer: a program may release,
 * freeze or detach it at any time. So the sink has the buffer's word, and looks
 * whether it still holds before it touches anything.
 */
#ifndef BUFPOOL_LUA_SINK_H
#define BUFPOOL_LUA_SINK_H

#include "handle.h"
#include "nginx/piece.h"

/* A sink for up to `max` bytes, into a buffer of this epoch. 0, or ESTALE. */
int bp_sink_open(struct bufpool_sink *sink, struct bufpool_buf *b,
		 int32_t epoch, size_t max);

/* The buffer as a handle; NULL when it has gone. */
struct bufpool_handle *bp_sink_handle(const struct bufpool_sink *sink);

#endif
