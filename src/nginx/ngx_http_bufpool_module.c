/*
 * ngx_http_bufpool_module - what bufpool.ngx needs of nginx and only C can do:
 * response bodies that are not copied, request bodies that never are a Lua
 * string, and a cleanup that belongs to a request.
 *
 * It has no directives. bufpool's Lua files call the functions below by FFI:
 * nginx loads modules with their symbols visible to all. Its body filter
 * changes nothing but what the Lua module sends. It holds no part of bufpool,
 * which would then exist twice in the process, and knows none of its structs
 * but struct bufpool_piece. Of the Lua module it uses two symbols, and looks
 * for them when the configuration is read: so the order of load_module lines
 * does not matter to it, and a missing Lua module is reported in words.
 *
 * All functions are for the worker's one thread that handles requests. `r` is
 * the request of the running Lua code, and not NULL.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <dlfcn.h>

#include "layout.h"
#include "piece.h"

/* Raised with each change of a function here, of the capture module or of the
 * rewrite module, and of a struct in piece.h.
 * lua/bufpool/ngx/module.lua has the number that it was written for. */
#define VERSION 7

typedef ngx_int_t (*send_chain_fn)(ngx_http_request_t *r, void *lua_ctx,
				   ngx_chain_t *in);

static send_chain_fn send_chain_link;
static ngx_module_t *lua_module;
static ngx_http_output_body_filter_pt next_body_filter;
/* See ngx_http_bufpool_pretend; NULL outside of it. */
static ngx_http_request_t *pretending;
static unsigned header_was_sent;
extern ngx_module_t ngx_http_bufpool_module;

/* A piece that is on its way to the client. */
struct lent {
	ngx_buf_t buf;		/* first: copy_all_lent has a pointer to it */
	void (*release)(void *held);
	void *held;
	struct lent *next;
};

/* The pieces of one request that are on their way to the client, in the order
 * in which they were printed. */
struct output {
	struct lent *first, **last;
	struct lent *spare;	/* to be used again */
	int told;		/* see ngx_http_bufpool_send */
	ngx_buf_t flush;	/* see filter_body */
	ngx_chain_t flush_link;
};

/* What ngx_http_bufpool_send returns. */
enum { SEND_NO_MEMORY = -2, SEND_FAILED = -1, SEND_DONE = 0, SEND_UNTOLD = 1 };

int ngx_http_bufpool_version(void);
void ngx_http_bufpool_pretend(ngx_http_request_t *r, int on);
int ngx_http_bufpool_send(ngx_http_request_t *r, struct bufpool_piece *pieces,
			  size_t count, size_t worth);
double ngx_http_bufpool_body_size(ngx_http_request_t *r);
double ngx_http_bufpool_body_announced(ngx_http_request_t *r);
double ngx_http_bufpool_body_read(ngx_http_request_t *r, uint8_t *to,
				  size_t n);
int ngx_http_bufpool_keep(ngx_http_request_t *r, int keep);
int ngx_http_bufpool_cleanup(ngx_http_request_t *r, void (*handler)(void *),
			     void *data);

int
ngx_http_bufpool_version(void)
{
	return VERSION;
}

static void
piece_give_back(struct output *out)
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
 * finds the buffer empty; so the ngx_buf_t itself is not freed, and the next
 * piece may have it.
 */
static void
give_back_sent(struct output *out)
{
	while (out->first != NULL &&
	       out->first->buf.pos == out->first->buf.last)
		piece_give_back(out);
}

/* The request has ended, by whatever way: nginx looks at nothing any more. */
static void
give_back_all(void *data)
{
	struct output *out = data;

	while (out->first != NULL)
		piece_give_back(out);
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
	out->told = 0;
	out->last = &out->first;
	cleanup->handler = give_back_all;
	ngx_http_set_ctx(r, out, ngx_http_bufpool_module);
	return out;
}

/*
 * While it is on, ngx.print sends nothing for this request: neither the header,
 * which it takes for sent, nor a body. It still tells whether the Lua code may
 * print now, and takes note of a body. Nothing but one ngx.print may run
 * between on and off.
 */
void
ngx_http_bufpool_pretend(ngx_http_request_t *r, int on)
{
	if (on) {
		header_was_sent = r->header_sent;
		r->header_sent = 1;
		pretending = r;
	} else {
		r->header_sent = header_was_sent;
		pretending = NULL;
	}
}

/* True for the empty flush buffer that ngx.flush() sends. */
static int
is_flush_of_lua(const ngx_chain_t *in)
{
	return in != NULL && in->next == NULL &&
		in->buf->tag == (ngx_buf_tag_t)lua_module && in->buf->flush &&
		!in->buf->last_buf && ngx_buf_special(in->buf);
}

/* Marks the bytes as consumed, so that nothing sends them. */
static void
piece_consume(ngx_chain_t *chain)
{
	for (; chain != NULL; chain = chain->next)
		chain->buf->pos = chain->buf->last;
}

/* Puts a copy in place of lent memory. */
static ngx_int_t
copy_lent(struct lent *lent, ngx_log_t *log)
{
	size_t size = (size_t)(lent->buf.last - lent->buf.pos);
	u_char *copy = ngx_alloc(size, log);

	if (copy == NULL)
		return NGX_ERROR;
	ngx_memcpy(copy, lent->buf.pos, size);
	lent->release(lent->held);
	lent->release = free;
	lent->held = lent->buf.start = lent->buf.pos = copy;
	lent->buf.end = lent->buf.last = copy + size;
	lent->buf.memory = 0;
	lent->buf.temporary = 1;
	return NGX_OK;
}

/* Called where a filter is going to write into the buffers, which is known once
 * the header was sent. nginx would make copies, too, but of another size. */
static ngx_int_t
copy_all_lent(ngx_http_request_t *r, ngx_chain_t *in)
{
	for (; in != NULL; in = in->next)
		if (in->buf->tag == (ngx_buf_tag_t)&ngx_http_bufpool_module &&
		    in->buf->memory &&
		    copy_lent((struct lent *)(void *)in->buf,
			      r->connection->log) != NGX_OK)
			return NGX_ERROR;
	return NGX_OK;
}

/*
 * The body filter: what ngx.flush sends goes on in a buffer of ours. The Lua
 * module takes an empty buffer for one that has left when all of its own before
 * that have, for it forgets ours. It would use it for the next ngx.print while
 * nginx still has it, behind ours, and its bytes would go out twice.
 */
static ngx_int_t
filter_body(ngx_http_request_t *r, ngx_chain_t *in)
{
	struct output *out =
		ngx_http_get_module_ctx(r, ngx_http_bufpool_module);

	if (r == pretending) {
		piece_consume(in);
		return NGX_OK;
	}
	if (out != NULL && is_flush_of_lua(in)) {
		ngx_memzero(&out->flush, sizeof out->flush);
		out->flush.flush = 1;
		out->flush_link.buf = &out->flush;
		out->flush_link.next = NULL;
		in = &out->flush_link;
	}
	if (r->filter_need_temporary && copy_all_lent(r, in) != NGX_OK)
		return NGX_ERROR;
	return next_body_filter(r, in);
}

/*
 * The piece as a chain of one buffer, which takes over its release; NULL for an
 * empty piece, or without memory for the chain. The tag is ours: the Lua module
 * would use a buffer with its own tag again and write into our memory.
 */
static ngx_chain_t *
piece_lend(ngx_http_request_t *r, struct output *out,
	   struct bufpool_piece *piece)
{
	ngx_chain_t *link = ngx_alloc_chain_link(r->pool);
	struct lent *lent = out->spare != NULL ? out->spare :
		ngx_palloc(r->pool, sizeof *lent);

	if (piece->len == 0 || link == NULL || lent == NULL)
		return NULL;
	if (lent == out->spare)
		out->spare = lent->next;
	ngx_memzero(lent, sizeof *lent);
	lent->buf.memory = 1;
	lent->buf.tag = (ngx_buf_tag_t) &ngx_http_bufpool_module;
	lent->buf.start = lent->buf.pos = (u_char *)(uintptr_t)piece->at;
	lent->buf.end = lent->buf.last = lent->buf.pos + piece->len;
	lent->release = piece->release;
	lent->held = piece->held;
	piece->release = NULL;
	*out->last = lent;
	out->last = &lent->next;
	link->buf = &lent->buf;
	link->next = NULL;
	return link;
}

/* Whether no piece but empty ones has to be copied. */
static int
all_worth(const struct bufpool_piece *pieces, size_t count, size_t worth)
{
	for (size_t i = 0; i < count; i++)
		if (pieces[i].len > 0 &&
		    (pieces[i].release == NULL || pieces[i].len < worth))
			return 0;
	return 1;
}

/*
 * A copy of all pieces, or one without bytes when there is no memory. It is not
 * of the request's pool, which would keep all that is printed until the request
 * ends.
 */
static struct bufpool_piece
piece_join(struct bufpool_piece *pieces, size_t count, ngx_log_t *log)
{
	struct bufpool_piece whole = { .release = free };
	size_t size = 0;
	uint8_t *to;

	for (size_t i = 0; i < count; i++)
		size += pieces[i].len;
	whole.at = whole.held = to = ngx_alloc(size, log);
	if (to == NULL)
		return whole;
	whole.len = size;
	for (size_t i = 0; i < count; i++)
		if (pieces[i].len > 0)
			to = ngx_cpymem(to, pieces[i].at, pieces[i].len);
	return whole;
}

/*
 * The pieces as a chain; NULL without memory for that. No buffer in it is
 * smaller than `worth` unless all of the print is: filters of nginx go by the
 * first buffer of a response, and some fail at small ones, which ngx.print of
 * the same bytes would not make. So if one piece has to be copied, all are,
 * into one buffer.
 */
static ngx_chain_t *
chain_of(ngx_http_request_t *r, struct output *out,
	 struct bufpool_piece *pieces, size_t count, size_t worth)
{
	ngx_chain_t *chain = NULL, **end = &chain;
	struct bufpool_piece whole;

	if (!all_worth(pieces, count, worth)) {
		whole = piece_join(pieces, count, r->connection->log);
		chain = piece_lend(r, out, &whole);
		piece_drop(&whole);
		if (chain != NULL) {
			chain->buf->memory = 0;
			chain->buf->temporary = 1;
		}
		return chain;
	}
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].len == 0)
			continue;
		*end = piece_lend(r, out, &pieces[i]);
		if (*end == NULL) {
			piece_consume(chain);
			return NULL;
		}
		end = &(*end)->next;
	}
	return chain;
}

/*
 * Sends the pieces as a part of the response body, as one ngx.print does. Those
 * of at least `worth` bytes that can be released are sent without a copy if all
 * are like that. All are released sooner or later, also when this fails.
 * Returns SEND_DONE, or SEND_UNTOLD where the Lua module does not know yet that
 * the response has a body, which ngx.flush goes by, or an error.
 *
 * The caller has asked by an ngx.print that pretends whether the Lua code may
 * print now.
 *
 * Header and body filters in Lua run in here. So no compiled trace may call
 * this function, only the interpreter or a lua_CFunction.
 */
int
ngx_http_bufpool_send(ngx_http_request_t *r, struct bufpool_piece *pieces,
		      size_t count, size_t worth)
{
	void *lua_ctx = ngx_http_get_module_ctx(r, (*lua_module));
	struct output *out = output_of(r);
	ngx_chain_t *chain = NULL;
	ngx_int_t rc;

	if (out != NULL && lua_ctx != NULL) {
		give_back_sent(out);
		chain = chain_of(r, out, pieces, count, worth);
	}
	for (size_t i = 0; i < count; i++)
		piece_drop(&pieces[i]);
	if (chain == NULL) {
		if (out != NULL)
			give_back_sent(out);
		return SEND_NO_MEMORY;
	}
	rc = send_chain_link(r, lua_ctx, chain);
	/* The answer to a HEAD request, whose body nobody looks at. */
	if (r->header_only)
		piece_consume(chain);
	give_back_sent(out);
	if (rc == NGX_ERROR || rc >= NGX_HTTP_SPECIAL_RESPONSE)
		return SEND_FAILED;
	/* A response to HTTP/1.0 is held back, and ngx.flush knows of that. */
	if (out->told || r->header_only || !r->header_sent)
		return SEND_DONE;
	out->told = 1;
	return SEND_UNTOLD;
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

/* Reads all n bytes. Returns 0, or an errno: EIO when the file ends early. */
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
			/* Not run: Lua has asked for the size. */
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

/* Sets whether the connection is kept after the response. Lua keeps it from
 * being kept as long as a part of the body is still on it, which nginx would
 * take for the client's next request. Returns what was set before. */
int
ngx_http_bufpool_keep(ngx_http_request_t *r, int keep)
{
	int kept = r->keepalive;

	r->keepalive = keep != 0;
	return kept;
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

/* Puts the body filter before all others, wherever the module stands among
 * them: it must see what the Lua module sends before another one keeps that. */
static ngx_int_t
take_first_place(ngx_cycle_t *cycle)
{
	(void)cycle;
	if (ngx_http_top_body_filter != filter_body) {
		next_body_filter = ngx_http_top_body_filter;
		ngx_http_top_body_filter = filter_body;
	}
	return NGX_OK;
}

static ngx_int_t
join_lua_module(ngx_conf_t *cf)
{
	const char *send = "ngx_http_lua_send_chain_link";
	const char *module = "ngx_http_lua_module";

	/* ISO C has no conversion from an object's pointer to a function's. */
	*(void **)(void *)&send_chain_link = dlsym(RTLD_DEFAULT, send);
	lua_module = dlsym(RTLD_DEFAULT, module);
	if (send_chain_link != NULL && lua_module != NULL)
		return ngx_http_bufpool_fits(cf);
	if (lua_module == NULL) {
		ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
			      "ngx_http_bufpool_module needs the Lua module, "
			      "which is not loaded: add load_module lines for "
			      "ndk_http_module.so and ngx_http_lua_module.so");
	} else {
		/* Not run: the Lua module has it. */
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
	.init_process = take_first_place,
};
