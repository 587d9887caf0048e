/*
 * ngx_http_bufpool_module - what bufpool.ngx needs of nginx and only C can do:
 * response bodies that are not copied, request bodies that never are a Lua
 * string, and a cleanup that belongs to a request.
 *
 * It has no directives. bufpool's Lua files call the functions below by FFI:
 * nginx loads modules with their symbols visible to all. Its body filter looks
 * only at requests that print by these functions. It holds no part of bufpool,
 * which would then exist twice in the process, and knows none of its structs
 * but struct bufpool_piece. Of the Lua module it uses two symbols, and looks
 * for them when the configuration is read: so the order of load_module lines
 * does not matter, and a missing Lua module is reported in words.
 *
 * All functions are for the worker's one thread that handles requests. `r` is
 * the request of the running Lua code, and not NULL.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <dlfcn.h>

#include "piece.h"

/* Raised with each change of a function here or of the capture module, and of
 * a struct in piece.h.
 * lua/bufpool/ngx_module.lua has the number that it was written for. */
#define VERSION 2

typedef ngx_int_t (*send_chain_fn)(ngx_http_request_t *r, void *lua_ctx,
				   ngx_chain_t *in);

static send_chain_fn send_chain_link;
static ngx_module_t *lua_module;
static ngx_http_output_body_filter_pt next_body_filter;
extern ngx_module_t ngx_http_bufpool_module;

/* A piece that is on its way to the client. */
struct lent {
	ngx_buf_t buf;
	void (*release)(void *held);
	void *held;
	struct lent *next;
};

/* What one request has on its way, in the order in which it was printed. */
struct output {
	struct lent *first, **last;
	struct lent *spare;	/* to be used again */
	ngx_buf_t flush;	/* see keep_flush */
	ngx_chain_t flush_link;
};

int ngx_http_bufpool_version(void);
int ngx_http_bufpool_begun(ngx_http_request_t *r);
int ngx_http_bufpool_send(ngx_http_request_t *r, struct bufpool_piece *pieces,
			  size_t count, size_t worth);
double ngx_http_bufpool_body_size(ngx_http_request_t *r);
double ngx_http_bufpool_body_announced(ngx_http_request_t *r);
double ngx_http_bufpool_body_read(ngx_http_request_t *r, uint8_t *to,
				  size_t n);
int ngx_http_bufpool_cleanup(ngx_http_request_t *r, void (*handler)(void *),
			     void *data);

int
ngx_http_bufpool_version(void)
{
	return VERSION;
}

static void
give_back(struct output *out)
{
	struct lent *lent = out->first;

	out->first = lent->next;
	if (out->first == NULL)
		out->last = &out->first;
	lent->release(lent->held);
	lent->next = out->spare;
	out->spare = lent;
}

/*
 * Gives back what nginx is done with. Whoever consumes a buffer, be that a
 * filter or the socket, moves pos up to last, and buffers are consumed in
 * order. nginx may still have links to the ngx_buf_t, and drops them when it
 * finds the buffer empty; so the ngx_buf_t itself stays.
 */
static void
give_back_sent(struct output *out)
{
	while (out->first != NULL &&
	       out->first->buf.pos == out->first->buf.last)
		give_back(out);
}

/* The request has ended, by whatever way: nginx looks at nothing any more. */
static void
give_back_all(void *data)
{
	struct output *out = data;

	while (out->first != NULL)
		give_back(out);
}

/* An internal redirect forgets the module's context but not the cleanup, so a
 * request may have several outputs. */
static struct output *
output_of(ngx_http_request_t *r)
{
	struct output *out =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_module);
	ngx_pool_cleanup_t *cleanup;

	if (out != NULL)
		return out;
	cleanup = ngx_pool_cleanup_add(r->pool, sizeof *out);
	if (cleanup == NULL)
		return NULL;
	out = cleanup->data;
	out->first = out->spare = NULL;
	out->last = &out->first;
	cleanup->handler = give_back_all;
	ngx_http_set_ctx(r, out, ngx_http_bufpool_module);
	return out;
}

/* Whether ngx_http_bufpool_send has sent something for this request. */
int
ngx_http_bufpool_begun(ngx_http_request_t *r)
{
	return ngx_http_get_module_ctx(r, ngx_http_bufpool_module) != NULL;
}

/* Whether it is what ngx.flush sends. */
static int
is_flush_of_lua(const ngx_chain_t *in)
{
	return in != NULL && in->next == NULL &&
		in->buf->tag == (ngx_buf_tag_t)lua_module && in->buf->flush &&
		!in->buf->last_buf && ngx_buf_special(in->buf);
}

/*
 * The body filter: what ngx.flush sends goes on in a buffer of ours. The Lua
 * module takes an empty buffer for one that has left when all of its own before
 * that have, for it forgets ours. It would use it for the next ngx.print while
 * nginx still has it, behind ours, and its bytes would go out twice.
 */
static ngx_int_t
keep_flush(ngx_http_request_t *r, ngx_chain_t *in)
{
	struct output *out =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_module);

	if (out != NULL && is_flush_of_lua(in)) {
		ngx_memzero(&out->flush, sizeof out->flush);
		out->flush.flush = 1;
		out->flush_link.buf = &out->flush;
		out->flush_link.next = NULL;
		in = &out->flush_link;
	}
	return next_body_filter(r, in);
}

/*
 * Appends memory to the chain whose end is *end, and takes over its release,
 * also when there is no memory for the link. The tag is ours: the Lua module
 * would use a buffer with its own tag again and write into our memory.
 */
static ngx_int_t
lend(ngx_http_request_t *r, struct output *out, ngx_chain_t ***end,
     const struct bufpool_piece *piece)
{
	ngx_chain_t *link = ngx_alloc_chain_link(r->pool);
	struct lent *lent = out->spare;

	if (lent != NULL)
		out->spare = lent->next;
	else
		lent = ngx_palloc(r->pool, sizeof *lent);
	if (link == NULL || lent == NULL) {
		piece->release(piece->held);
		return NGX_ERROR;
	}
	ngx_memzero(lent, sizeof *lent);
	lent->buf.memory = 1;
	lent->buf.tag = (ngx_buf_tag_t) &ngx_http_bufpool_module;
	lent->buf.start = lent->buf.pos = (u_char *)(uintptr_t)piece->at;
	lent->buf.end = lent->buf.last = lent->buf.pos + piece->len;
	lent->release = piece->release;
	lent->held = piece->held;
	*out->last = lent;
	out->last = &lent->next;
	link->buf = &lent->buf;
	link->next = NULL;
	**end = link;
	*end = &link->next;
	return NGX_OK;
}

static void
drop(struct bufpool_piece *piece)
{
	if (piece->release != NULL)
		piece->release(piece->held);
	piece->release = NULL;
}

/* Whether the piece is lent; otherwise it is copied. */
static int
is_worth(const struct bufpool_piece *piece, size_t worth)
{
	return piece->release != NULL && piece->len >= worth;
}

/* Lends a copy of the pieces of one run. It is no memory of the request's pool,
 * which would keep it until the request ends, however much is printed. */
static ngx_int_t
lend_copy(ngx_http_request_t *r, struct output *out, ngx_chain_t ***end,
	  struct bufpool_piece *pieces, size_t count)
{
	struct bufpool_piece copy = { .release = free };
	uint8_t *to;

	for (size_t i = 0; i < count; i++)
		copy.len += pieces[i].len;
	if (copy.len == 0)
		return NGX_OK;
	copy.held = to = ngx_alloc(copy.len, r->connection->log);
	if (to == NULL)
		return NGX_ERROR;
	copy.at = to;
	for (size_t i = 0; i < count; i++)
		to = ngx_cpymem(to, pieces[i].at, pieces[i].len);
	return lend(r, out, end, &copy);
}

/* The pieces as a chain. Each piece was lent or dropped afterwards, also those
 * after an error. */
static ngx_int_t
chain_of(ngx_http_request_t *r, struct output *out, ngx_chain_t **end,
	 struct bufpool_piece *pieces, size_t count, size_t worth)
{
	ngx_int_t rc = NGX_OK;
	size_t from = 0, to;

	while (from < count && rc == NGX_OK) {
		for (to = from; to < count && !is_worth(&pieces[to], worth);)
			to++;
		rc = lend_copy(r, out, &end, pieces + from, to - from);
		if (rc == NGX_OK && to < count) {
			rc = lend(r, out, &end, &pieces[to]);
			pieces[to++].release = NULL;
		}
		from = to;
	}
	for (size_t i = 0; i < count; i++)
		drop(&pieces[i]);
	return rc;
}

/*
 * Sends the pieces as a part of the response body. Those of at least `worth`
 * bytes that can be released are sent without a copy. All are released sooner
 * or later, also when this fails. Returns 0, or -1 for an error.
 *
 * The caller has printed something by ngx.print before, which told whether the
 * Lua code may print now, and did all else that a first ngx.print does.
 *
 * Header and body filters in Lua run in here. So no compiled trace may call
 * this function, only the interpreter or a lua_CFunction.
 */
int
ngx_http_bufpool_send(ngx_http_request_t *r, struct bufpool_piece *pieces,
		      size_t count, size_t worth)
{
	void *lua_ctx = ngx_http_get_module_ctx(r, (*lua_module));
	struct output *out = r->header_only ? NULL : output_of(r);
	ngx_chain_t *chain = NULL;
	ngx_int_t rc;

	if (out == NULL || lua_ctx == NULL) {
		for (size_t i = 0; i < count; i++)
			drop(&pieces[i]);
		return r->header_only ? 0 : -1;
	}
	give_back_sent(out);
	if (chain_of(r, out, &chain, pieces, count, worth) != NGX_OK) {
		/* Nobody will send what is in the chain already. */
		for (; chain != NULL; chain = chain->next)
			chain->buf->pos = chain->buf->last;
		give_back_sent(out);
		return -1;
	}
	if (chain == NULL)
		return 0;
	rc = send_chain_link(r, lua_ctx, chain);
	give_back_sent(out);
	return rc == NGX_ERROR || rc >= NGX_HTTP_SPECIAL_RESPONSE ? -1 : 0;
}

/* Bytes of a part of a request body, which is in memory or in a file. */
static size_t
part_size(const ngx_buf_t *part)
{
	return ngx_buf_in_memory(part) ? (size_t)(part->last - part->pos) :
		part->in_file ? (size_t)(part->file_last - part->file_pos) : 0;
}

static ngx_chain_t *
body_of(ngx_http_request_t *r)
{
	return r->request_body == NULL ? NULL : r->request_body->bufs;
}

/* Bytes that the request's header says the body has; -1 when it does not. */
double
ngx_http_bufpool_body_announced(ngx_http_request_t *r)
{
	return (double)r->headers_in.content_length_n;
}

/* Bytes of the body that nginx has read; 0 when there is none. */
double
ngx_http_bufpool_body_size(ngx_http_request_t *r)
{
	double size = 0;

	for (ngx_chain_t *link = body_of(r); link != NULL; link = link->next)
		size += (double)part_size(link->buf);
	return size;
}

/* As the loop of pread that it is: all n bytes, or an errno. A file that ends
 * early is EIO. */
static int
read_all(ngx_fd_t fd, uint8_t *to, size_t n, off_t offset)
{
	ssize_t got;

	while (n > 0) {
		got = pread(fd, to, n, offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? errno : EIO;
		to += got;
		n -= (size_t)got;
		offset += got;
	}
	return 0;
}

/* Copies up to n bytes of the body to `to`. Returns how many, or an errno
 * negated. */
double
ngx_http_bufpool_body_read(ngx_http_request_t *r, uint8_t *to, size_t n)
{
	size_t done = 0, size;
	int error;

	for (ngx_chain_t *link = body_of(r); link != NULL && done < n;
	     link = link->next) {
		size = part_size(link->buf);
		if (size > n - done)
			size = n - done;
		if (ngx_buf_in_memory(link->buf)) {
			ngx_memcpy(to + done, link->buf->pos, size);
		} else if (size > 0) {
			error = read_all(link->buf->file->fd, to + done, size,
					 link->buf->file_pos);
			if (error != 0)
				return -error;
		}
		done += size;
	}
	return (double)done;
}

/* Has handler(data) called when the request ends, by whatever way. Returns 0,
 * or -1 when there is no memory for that. */
int
ngx_http_bufpool_cleanup(ngx_http_request_t *r, void (*handler)(void *),
			 void *data)
{
	ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, 0);

	if (cleanup == NULL)
		return -1;
	cleanup->handler = handler;
	cleanup->data = data;
	return 0;
}

static ngx_int_t
join_lua_module(ngx_conf_t *cf)
{
	const char *send = "ngx_http_lua_send_chain_link";
	const char *module = "ngx_http_lua_module";

	/* ISO C has no conversion from an object's pointer to a function's. */
	*(void **)(void *)&send_chain_link = dlsym(RTLD_DEFAULT, send);
	lua_module = dlsym(RTLD_DEFAULT, module);
	if (send_chain_link != NULL && lua_module != NULL) {
		next_body_filter = ngx_http_top_body_filter;
		ngx_http_top_body_filter = keep_flush;
		return NGX_OK;
	}
	if (lua_module == NULL) {
		ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
			      "ngx_http_bufpool_module needs the Lua module, "
			      "which is not loaded: add load_module lines for "
			      "ndk_http_module.so and ngx_http_lua_module.so");
	} else {
		ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
			      "ngx_http_bufpool_module does not work with this "
			      "Lua module, which does not export %s", send);
	}
	return NGX_ERROR;
}

static ngx_http_module_t module_context = {
	.postconfiguration = join_lua_module,
};

ngx_module_t ngx_http_bufpool_module = {
	NGX_MODULE_V1,
	.ctx = &module_context,
	.type = NGX_HTTP_MODULE,
};
