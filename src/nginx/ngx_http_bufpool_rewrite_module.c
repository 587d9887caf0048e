/*
 * ngx_http_bufpool_rewrite_module - holds a response until all of it is there,
 * and sends another one in its place.
 *
 * A third module in the shared object of ngx_http_bufpool_module. It has no
 * directives. lua/bufpool/ngx/rewrite.lua calls the functions below by FFI,
 * from header_filter_by_lua and body_filter_by_lua.
 *
 * The body filter stands in front of the Lua module's. It puts what passes into
 * the sink (piece.h), and passes nothing on, so that no Lua runs for a part of
 * the body. The last part it passes on as one buffer with all that is held. The
 * body filter in Lua, which runs once then, may put other memory into that
 * buffer. A response that the sink has no room for goes on as it is: first what
 * is held, then the rest.
 *
 * All functions are for the worker's one thread that handles requests. `r` is
 * the request of the running Lua code, and not NULL.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "piece.h"

static ngx_http_output_body_filter_pt next_body_filter;
extern ngx_module_t ngx_http_bufpool_rewrite_module;

/* The Lua module's body filter has the bytes first, and makes strings of them:
 * its load_module line comes after ours. */
static int behind_lua;

enum state {
	HOLDING,
	OFFERED,	/* the body filter in Lua runs, and may take it */
	TAKEN,		/* it has taken it, and may replace it */
	DONE
};

struct hold {
	enum state state;
	struct bufpool_sink sink;
	struct bufpool_piece piece;	/* what is sent instead */
	int flushed;		/* a flush has passed */
	ngx_buf_t buf;		/* with all that is held, or the piece */
	ngx_chain_t link;
	/* Not buf and link, because nginx may have a flush until the body
	 * follows. */
	ngx_buf_t flush_buf;
	ngx_chain_t flush_link;
};

/* What ngx_http_bufpool_hold returns. */
enum { HOLD_NO_MEMORY = -1, HOLD_DONE = 0, HOLD_BEHIND = 1 };

int ngx_http_bufpool_hold(ngx_http_request_t *r,
			  const struct bufpool_sink *sink);
struct bufpool_sink *ngx_http_bufpool_held(ngx_http_request_t *r);
int ngx_http_bufpool_replace(ngx_http_request_t *r,
			     struct bufpool_piece *piece);
const struct bufpool_sink *ngx_http_bufpool_passes(ngx_http_request_t *r);

/* The request has ended, by whatever way: nginx looks at nothing any more. */
static void
hold_end(void *data)
{
	struct hold *h = data;

	piece_drop(&h->piece);
}

/*
 * From here on the response of this request is held in a copy of the sink.
 * Returns HOLD_DONE, HOLD_NO_MEMORY, or HOLD_BEHIND where the body filter in
 * Lua has to do that. To be called before the first part of the body. An
 * internal redirect forgets it.
 */
int
ngx_http_bufpool_hold(ngx_http_request_t *r, const struct bufpool_sink *sink)
{
	ngx_pool_cleanup_t *cleanup;
	struct hold *h;

	if (behind_lua)
		return HOLD_BEHIND;
	cleanup = ngx_pool_cleanup_add(r->pool, sizeof *h);
	if (cleanup == NULL)
		return HOLD_NO_MEMORY;
	h = cleanup->data;
	ngx_memzero(h, sizeof *h);
	h->sink = *sink;
	cleanup->handler = hold_end;
	ngx_http_set_ctx(r, h, ngx_http_bufpool_rewrite_module);
	r->filter_need_in_memory = 1;
	return HOLD_DONE;
}

/* Makes the buffer one of these bytes. One without bytes has to say that it is
 * there for another reason. */
static void
buf_set(ngx_buf_t *b, const uint8_t *at, size_t n)
{
	b->start = b->pos = (u_char *)(uintptr_t)at;
	b->end = b->last = b->start + n;
	b->temporary = n > 0;
	b->memory = 0;
	b->sync = n == 0;
}

/*
 * What all of the response is in, while the body filter in Lua has the last
 * part; NULL at any other time, or when that filter has put something else in
 * its place. Whoever calls this has the response: an empty one is sent unless
 * it is replaced.
 */
struct bufpool_sink *
ngx_http_bufpool_held(ngx_http_request_t *r)
{
	struct hold *h =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_rewrite_module);

	if (h == NULL || h->state != OFFERED || h->buf.pos != h->buf.start)
		return NULL;
	h->state = TAKEN;
	buf_set(&h->buf, NULL, 0);
	return &h->sink;
}

/* A filter is going to write into the buffer, and others may have the memory
 * that the piece lends. */
static int
piece_copy(struct bufpool_piece *piece, ngx_log_t *log)
{
	u_char *copy = ngx_alloc(piece->len, log);

	if (copy == NULL)
		return -1;
	ngx_memcpy(copy, piece->at, piece->len);
	piece_drop(piece);
	piece->at = piece->held = copy;
	piece->release = free;
	return 0;
}

/* Sends the piece in place of what ngx_http_bufpool_held returned. Returns 0
 * and takes over the release of the piece; or -1 without memory for that. */
int
ngx_http_bufpool_replace(ngx_http_request_t *r, struct bufpool_piece *piece)
{
	struct hold *h =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_rewrite_module);

	if (h == NULL || h->state != TAKEN)
		return -1;	/* Not run: Lua takes before it replaces. */
	if (r->filter_need_temporary && piece->len > 0 &&
	    piece_copy(piece, r->connection->log) < 0)
		return -1;
	h->state = DONE;
	h->piece = *piece;
	piece->release = NULL;
	buf_set(&h->buf, h->piece.at, h->piece.len);
	if (h->buf.temporary && !r->filter_need_temporary) {
		h->buf.temporary = 0;
		h->buf.memory = 1;
	}
	return 0;
}

/* The sink, when it had no room for the response, which goes on as it is; NULL
 * otherwise. */
const struct bufpool_sink *
ngx_http_bufpool_passes(ngx_http_request_t *r)
{
	struct hold *h =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_rewrite_module);

	return h != NULL && h->sink.error != 0 ? &h->sink : NULL;
}

/* Puts what the buffer has into the sink: all of it, or nothing and returns
 * -1. */
static int
hold_keep(struct hold *h, ngx_buf_t *b)
{
	size_t n = ngx_buf_in_memory(b) ? (size_t)(b->last - b->pos) : 0;

	if (n == 0)
		return 0;
	if ((double)n > (double)h->sink.max - h->sink.seen)
		h->sink.error = EMSGSIZE;
	else
		h->sink.put(&h->sink, b->pos, n);
	if (h->sink.error != 0)
		return -1;
	b->pos = b->last;
	if (b->in_file)
		b->file_pos = b->file_last;
	return 0;
}

/* What is held, as a chain; NULL when it is not there any more. Nobody else
 * has this memory, so filters may write into it. */
static ngx_chain_t *
hold_chain(struct hold *h)
{
	size_t n;
	const uint8_t *at = h->sink.contents(&h->sink, &n);

	if (at == NULL)
		return NULL;	/* Not run: the request has the buffer. */
	h->buf.tag = (ngx_buf_tag_t)&ngx_http_bufpool_rewrite_module;
	buf_set(&h->buf, at, n);
	h->link.buf = &h->buf;
	return &h->link;
}

/* The sink has no room for the first buffer of `rest`. */
static ngx_int_t
hold_give_up(struct hold *h, ngx_http_request_t *r, ngx_chain_t *rest)
{
	ngx_chain_t *chain = hold_chain(h);

	h->state = DONE;
	if (chain == NULL)
		return NGX_ERROR;	/* Not run: as in hold_chain. */
	if (!h->buf.temporary)
		return next_body_filter(r, rest);
	chain->next = rest;
	return next_body_filter(r, chain);
}

/* All is held, and `last` is the last buffer. */
static ngx_int_t
hold_offer(struct hold *h, ngx_http_request_t *r, const ngx_buf_t *last)
{
	ngx_chain_t *chain = hold_chain(h);
	ngx_int_t rc;

	if (chain == NULL)
		return NGX_ERROR;	/* Not run: as in hold_chain. */
	h->buf.last_buf = last->last_buf;
	h->buf.last_in_chain = last->last_in_chain;
	h->state = OFFERED;
	rc = next_body_filter(r, chain);
	h->state = DONE;
	return rc;
}

/* The header waits for a part of the body or for a flush. */
static ngx_int_t
hold_flush(struct hold *h, ngx_http_request_t *r)
{
	h->flushed = 1;
	h->flush_buf.tag = (ngx_buf_tag_t)&ngx_http_bufpool_rewrite_module;
	h->flush_buf.flush = 1;
	h->flush_link.buf = &h->flush_buf;
	return next_body_filter(r, &h->flush_link);
}

static ngx_int_t
hold_filter_body(ngx_http_request_t *r, ngx_chain_t *in)
{
	struct hold *h =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_rewrite_module);
	int flush = 0;

	if (h == NULL || h->state != HOLDING || in == NULL || r->header_only)
		return next_body_filter(r, in);
	for (ngx_chain_t *link = in; link != NULL; link = link->next) {
		ngx_buf_t *b = link->buf;

		if (hold_keep(h, b) < 0)
			return hold_give_up(h, r, link);
		if (b->last_buf || (r != r->main && b->last_in_chain))
			return hold_offer(h, r, b);
		flush |= b->flush;
	}
	return flush && !h->flushed ? hold_flush(h, r) : NGX_OK;
}

/* A module's filter is in front of those of the modules before it. */
static ngx_int_t
join_filters(ngx_conf_t *cf)
{
	ngx_module_t **m = cf->cycle->modules;

	behind_lua = 1;
	for (; *m != NULL && *m != &ngx_http_bufpool_rewrite_module; m++)
		if (ngx_strcmp((*m)->name, "ngx_http_lua_module") == 0)
			behind_lua = 0;
	next_body_filter = ngx_http_top_body_filter;
	ngx_http_top_body_filter = hold_filter_body;
	return NGX_OK;
}

static ngx_http_module_t module_context = {
	.postconfiguration = join_filters,
};

ngx_module_t ngx_http_bufpool_rewrite_module = {
	NGX_MODULE_V1,
	.ctx = &module_context,
	.type = NGX_HTTP_MODULE,
};
