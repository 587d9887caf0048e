/*
 * No struct of nginx says where its members are. So functions of nginx get a
 * request that exists only here: what nginx has written must be where this
 * module looks, and what this module has written must change what nginx does.
 * A member between two that are in their places is in its place as well, since
 * patches add members and do not exchange them:
 *
 *     pool  headers_in  headers_out  request_body  main  header_only  keepalive
 *                       ^ length                   ^
 *     header_sent  filter_need_in_memory  filter_need_temporary
 *     ^                                   ^
 *
 * Where structs differ, these functions follow no pointer that is not in front
 * of all that patches add, and what they write stays in `more`.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <dlfcn.h>

#include "layout.h"

extern ngx_module_t ngx_http_copy_filter_module;

struct model {
	ngx_http_request_t request;
	u_char more[1024];	/* for requests of nginx that are longer */
	ngx_connection_t connection;
	u_char more_connection[1024];
	ngx_log_t log;		/* of level 0: it logs nothing */
	ngx_buf_t buf;
	ngx_chain_t link;
	void *contexts[];	/* one for each module of http */
};

static int header_passed;
static ngx_buf_t *buf_passed;

static ngx_int_t
pass_header(ngx_http_request_t *r)
{
	(void)r;
	header_passed = 1;
	return NGX_OK;
}

static ngx_int_t
pass_body(ngx_http_request_t *r, ngx_chain_t *in)
{
	(void)r;
	buf_passed = in != NULL ? in->buf : NULL;
	return NGX_OK;
}

static int
pool_fits(ngx_pool_t *pool)
{
	ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(pool, 0);

	return cleanup != NULL && pool->cleanup == cleanup;
}

/* Two members that become -1, with one between that does not. */
static int
headers_fit(ngx_http_request_t *r)
{
	ngx_http_clean_header(r);
	return r->headers_out.content_length_n == -1 &&
		r->headers_out.date_time == 0 &&
		r->headers_out.last_modified_time == -1;
}

/* The end of a response is the last buffer where the request is its own main
 * request. */
static int
main_fits(ngx_http_request_t *r)
{
	buf_passed = NULL;
	ngx_http_send_special(r, NGX_HTTP_LAST);
	return buf_passed != NULL && buf_passed->last_buf;
}

static int
header_sent_fits(ngx_http_request_t *r)
{
	header_passed = 0;
	r->header_sent = 1;
	return ngx_http_send_header(r) == NGX_ERROR && !header_passed;
}

/*
 * The filter that copies what another one is going to write into. Only its own
 * module knows it, and puts it in front of the top of all filters. So that
 * module has to do it now, when pass_body is the top. nginx has it done again
 * later, in front of what is the top then.
 */
static int
filter_need_fits(ngx_http_request_t *r, ngx_chain_t *link, ngx_conf_t *cf)
{
	ngx_http_module_t *copy = ngx_http_copy_filter_module.ctx;

	buf_passed = NULL;
	r->filter_need_temporary = 1;
	copy->postconfiguration(cf);
	ngx_http_top_body_filter(r, link);
	return buf_passed != link->buf &&
		ngx_http_get_module_ctx(r, ngx_http_copy_filter_module) != NULL;
}

/* What lies elsewhere; NULL when all is in its place. */
static const char *
misfit_of(ngx_http_request_t *r, ngx_chain_t *link, ngx_conf_t *cf)
{
	return !pool_fits(r->pool) ? "cleanup of a pool" :
		!headers_fit(r) ? "headers_out of a request" :
		!main_fits(r) ? "main of a request" :
		!header_sent_fits(r) ? "header_sent of a request" :
		!filter_need_fits(r, link, cf) ?
		"filter_need_temporary of a request" : NULL;
}

static const char *
misfit_of_model(struct model *m, ngx_pool_t *pool, ngx_conf_t *cf)
{
	const ngx_http_conf_ctx_t *conf = cf->ctx;
	ngx_http_request_t *r = &m->request;
	static u_char byte[1];

	r->main = r;
	r->pool = pool;
	r->connection = &m->connection;
	r->ctx = m->contexts;
	r->main_conf = conf->main_conf;
	r->srv_conf = conf->srv_conf;
	r->loc_conf = conf->loc_conf;
	m->connection.log = &m->log;
	m->buf.start = m->buf.pos = byte;
	m->buf.end = m->buf.last = byte + sizeof byte;
	m->buf.memory = 1;
	m->link.buf = &m->buf;
	return misfit_of(r, &m->link, cf);
}

#ifdef HAVE_PRIVILEGED_PROCESS_PATCH
#define BUILT_PATCHED 1
#else
#define BUILT_PATCHED 0
#endif

static void
report(const char *misfit, ngx_log_t *log)
{
	int patched = dlsym(RTLD_DEFAULT, "ngx_is_privileged_agent") != NULL;
	const char *others = patched == BUILT_PATCHED ?
		"this nginx from others of the same version" : patched ?
		"this nginx has OpenResty's patches" :
		"this nginx has no patches of OpenResty";
	const char *folder = patched ? "openresty-VERSION/bundle/" : "";

	ngx_log_error(NGX_LOG_EMERG, log, 0,
		      "ngx_http_bufpool_module does not fit this nginx: it was "
		      "built from the sources of " NGINX_VER ", and %s "
		      "(%s lies elsewhere). Build it from the sources of this "
		      "nginx, in bufpool's folder: make nginx-module "
		      "NGINX_SRC=%snginx-" NGINX_VERSION " NGINX=%s",
		      others, misfit, folder, ngx_argv[0]);
}

ngx_int_t
ngx_http_bufpool_fits(ngx_conf_t *cf)
{
	ngx_http_output_header_filter_pt header = ngx_http_top_header_filter;
	ngx_http_output_body_filter_pt body = ngx_http_top_body_filter;
	ngx_pool_t *pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, cf->log);
	struct model *m;
	const char *misfit;

	if (pool == NULL)
		return NGX_ERROR;	/* Not run: no memory. */
	m = ngx_pcalloc(pool, sizeof *m + ngx_http_max_module * sizeof(void *));
	if (m == NULL) {
		/* Not run: no memory. */
		ngx_destroy_pool(pool);
		return NGX_ERROR;
	}
	ngx_http_top_header_filter = pass_header;
	ngx_http_top_body_filter = pass_body;
	misfit = misfit_of_model(m, pool, cf);
	ngx_http_top_header_filter = header;
	ngx_http_top_body_filter = body;
	if (misfit != NULL)
		report(misfit, cf->log);
	ngx_destroy_pool(pool);
	return misfit == NULL ? NGX_OK : NGX_ERROR;
}
