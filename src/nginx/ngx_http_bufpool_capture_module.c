/*
 * ngx_http_bufpool_capture_module - copies response bodies as they pass.
 *
 * A second module in the shared object of ngx_http_bufpool_module, because it
 * has filters at another place of the request's way. It has no directives. A
 * handler has the response of its request captured by the functions below;
 * lua/bufpool/ngx/capture.lua calls them by FFI. From then on each buffer that
 * passes is put into the sink (piece.h), and goes on as it is: no Lua runs and
 * no string is made, however many there are.
 *
 * The filter sees what the content handler has made, before gzip, charset and
 * SSI have changed it, and of each request by itself: what a subrequest adds to
 * the response of its parent is not the parent's here.
 *
 * All functions are for the worker's one thread that handles requests. `r` is
 * the request of the running Lua code, and not NULL.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "piece.h"

static ngx_http_output_header_filter_pt next_header_filter;
static ngx_http_output_body_filter_pt next_body_filter;
extern ngx_module_t ngx_http_bufpool_capture_module;

struct capture {
	ngx_http_request_t *request;
	struct bufpool_sink sink;
	int begun;		/* the first part of the body has passed */
};

static size_t captures;		/* of requests that have not ended */

int ngx_http_bufpool_capture(ngx_http_request_t *r,
			     const struct bufpool_sink *sink);
struct bufpool_sink *ngx_http_bufpool_captured(ngx_http_request_t *r);

static void
capture_end(void *data)
{
	(void)data;
	captures--;
}

/* An internal redirect forgets a module's context and keeps the cleanups, which
 * a request shares with its subrequests. */
static struct capture *
capture_of(ngx_http_request_t *r)
{
	struct capture *c =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_capture_module);

	if (c != NULL || captures == 0)
		return c;
	for (ngx_pool_cleanup_t *k = r->pool->cleanup; k; k = k->next) {
		c = k->data;
		if (k->handler == capture_end && c->request == r) {
			ngx_http_set_ctx(r, c, ngx_http_bufpool_capture_module);
			return c;
		}
	}
	return NULL;
}

/* From here on the response of this request is put into a copy of the sink.
 * Returns 0; -1 when there is no memory, 1 when the response has begun. Once
 * for a request: ngx_http_bufpool_captured tells. */
int
ngx_http_bufpool_capture(ngx_http_request_t *r, const struct bufpool_sink *sink)
{
	ngx_pool_cleanup_t *cleanup;
	struct capture *c;

	if (r->header_sent)
		return 1;
	cleanup = ngx_pool_cleanup_add(r->pool, sizeof *c);
	if (cleanup == NULL)
		return -1;
	c = cleanup->data;
	c->request = r;
	c->sink = *sink;
	c->begun = 0;
	cleanup->handler = capture_end;
	captures++;
	ngx_http_set_ctx(r, c, ngx_http_bufpool_capture_module);
	/* Files are read into memory for us, as they are for gzip. */
	r->filter_need_in_memory = 1;
	return 0;
}

/* What this request's response is put into; NULL when it is not captured. */
struct bufpool_sink *
ngx_http_bufpool_captured(ngx_http_request_t *r)
{
	struct capture *c = capture_of(r);

	return c != NULL ? &c->sink : NULL;
}

/* The last of all header filters knows whether there will be a body. */
static ngx_int_t
filter_header(ngx_http_request_t *r)
{
	ngx_int_t rc = next_header_filter(r);
	struct capture *c = capture_of(r);

	if (c != NULL && r->header_only)
		c->sink.ended = 1;
	return rc;
}

static void
capture_begin(struct capture *c)
{
	off_t n = c->request->headers_out.content_length_n;

	c->begun = 1;
	if (n > 0)
		c->sink.expect(&c->sink, (size_t)n);
}

static ngx_int_t
capture_filter_body(ngx_http_request_t *r, ngx_chain_t *in)
{
	struct capture *c = capture_of(r);

	if (c == NULL)
		return next_body_filter(r, in);
	if (!c->begun)
		capture_begin(c);
	for (ngx_chain_t *link = in; link != NULL; link = link->next) {
		ngx_buf_t *b = link->buf;

		if (ngx_buf_in_memory(b))
			c->sink.put(&c->sink, b->pos,
				    (size_t)(b->last - b->pos));
		if (b->last_buf || (r != r->main && b->last_in_chain))
			c->sink.ended = 1;
	}
	return next_body_filter(r, in);
}

static ngx_int_t
join_filters(ngx_conf_t *cf)
{
	(void)cf;
	next_header_filter = ngx_http_top_header_filter;
	ngx_http_top_header_filter = filter_header;
	next_body_filter = ngx_http_top_body_filter;
	ngx_http_top_body_filter = capture_filter_body;
	return NGX_OK;
}

static ngx_http_module_t module_context = {
	.postconfiguration = join_filters,
};

ngx_module_t ngx_http_bufpool_capture_module = {
	NGX_MODULE_V1,
	.ctx = &module_context,
	.type = NGX_HTTP_MODULE,
};
