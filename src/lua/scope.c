#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "core/arena.h"
#include "core/grow.h"
#include "core/release.h"
#include "scope.h"

/* Bytes that a list begins with: the pool gives its smallest buffer. */
#define LIST_LEAST (16 * sizeof(uint64_t))

/* ngx_http_cleanup_t of nginx. */
struct cleanup {
	void (*handler)(void *);
	void *data;
	struct cleanup *next;
};

/* Of ngx_http_bufpool_module, and of nginx's Lua module. */
typedef int cleanup_fn(void *request, void (*handler)(void *), void *data);
typedef struct cleanup *cleanup_add_fn(void *request, size_t size);

/* Looks the functions up each time, because nginx may have other modules after
 * a reload while this code stays. */
static int
scope_enroll(void *request, int late, void *list)
{
	cleanup_fn *cleanup = (cleanup_fn *)
		dlsym(RTLD_DEFAULT, "ngx_http_bufpool_cleanup");
	cleanup_add_fn *cleanup_add;
	struct cleanup *c;

	if (cleanup != NULL)
		return cleanup(request, bp_scope_end, list) == 0 ? 0 : ENOMEM;
	cleanup_add = (cleanup_add_fn *)
		dlsym(RTLD_DEFAULT, "ngx_http_lua_cleanup_add");
	if (late || cleanup_add == NULL)
		return ENOTSUP;
	c = cleanup_add(request, 0);
	if (c == NULL)
		return ENOMEM;	/* Not run: nginx has no memory. */
	c->data = list;
	c->handler = bp_scope_end;
	return 0;
}

struct bufpool_handle *
bp_scope_open(struct bufpool_pool_box *pool, void *request, int late)
{
	struct bufpool_buf *b;
	struct bufpool_handle *list;

	if (pool->state != BOX_LIVE) {
		pool->error = ESTALE;	/* Not run: a finalizer in between. */
		return NULL;
	}
	b = handle_renew(bp_checkout_at(pool->pool, LIST_LEAST, 0, TAKE_ANY,
					SITE_NONE));
	if (b == NULL) {
		pool->error = errno;
		return NULL;
	}
	b->len = 0;
	list = handle_of(b);
	pool->error = scope_enroll(request, late, list);
	if (pool->error != 0) {
		bufpool_release(b);
		return NULL;
	}
	return list;
}

/* By memcpy, because a forged handle may have misaligned the list. */
static uint64_t
scope_entry(const struct bufpool_buf *list, size_t at)
{
	uint64_t value;

	memcpy(&value, list->at + at, sizeof value);
	return value;
}

static struct bufpool_buf *
entry_buf(const struct bufpool_buf *list, size_t at)
{
	return handle_buf((void *)(uintptr_t)scope_entry(list, at));
}

static void
scope_append(struct bufpool_buf *list, uint64_t value)
{
	memcpy(list->at + list->len, &value, sizeof value);
	list->len += sizeof value;
	buf_raise_mark(list, list->len);
	buf_changed(list);
}

/* Takes the stale handles out of the list. */
static void
scope_sweep(struct bufpool_buf *list)
{
	size_t len = list->len;

	list->len = 0;
	for (size_t i = 0; i + sizeof(uint64_t) <= len; i += sizeof(uint64_t))
		if (entry_buf(list, i) != NULL)
			scope_append(list, scope_entry(list, i));
	buf_changed(list);
}

static bool
has_room(const struct bufpool_buf *list)
{
	return list->capacity >= list->len + sizeof(uint64_t);
}

/* Makes room for one handle. The list grows if it is more than half full after
 * a sweep, so that sweeps cost O(1) time per handle. */
static bool
scope_make_room(struct bufpool_buf *list)
{
	if (has_room(list))
		return true;
	scope_sweep(list);
	if (list->len > list->capacity / 2)
		bp_grow_to(list, 2 * list->capacity);
	return has_room(list);
}

struct bufpool_handle *
bp_scope_borrow(struct bufpool_pool_box *pool, struct bufpool_handle *list,
		size_t n, size_t alignment, int kind)
{
	struct bufpool_buf *l = handle_buf(list), *b;

	if (pool->state != BOX_LIVE)
		pool->error = ESTALE;
	else if (l == NULL)
		pool->error = ECANCELED;
	else if (!scope_make_room(l))
		pool->error = ENOBUFS;
	else if ((b = handle_renew(bp_take(pool->pool, n, alignment,
					   kind))) == NULL)
		pool->error = errno;
	else {
		scope_append(l, (uintptr_t)handle_of(b));
		return handle_of(b);
	}
	return NULL;
}

/* The memory that n bytes get. */
static double
scope_price(const struct bufpool *pool, size_t n)
{
	unsigned class = layout_class(&pool->layout, n);

	return class != CLASS_LARGE ? (double)pool->layout.size[class] :
		n > PTRDIFF_MAX ? (double)n : (double)bp_arena_whole_pages(n);
}

double
bp_scope_held(const struct bufpool_pool_box *pool, struct bufpool_handle *list,
	      size_t n, int what)
{
	struct bufpool_buf *l = handle_buf(list);
	double buffers = 0, bytes;

	if (pool->state != BOX_LIVE)
		return 0;	/* Not run: a finalizer in between. */
	bytes = scope_price(pool->pool, n);
	if (l != NULL)
		scope_sweep(l);
	for (size_t i = 0; l != NULL && i < l->len; i += sizeof(uint64_t)) {
		buffers++;
		bytes += (double)buf_size(entry_buf(l, i));
	}
	return what == HELD_BYTES ? bytes : buffers;
}

void
bp_scope_end(void *list)
{
	struct bufpool_buf *l = handle_buf(list), *b;

	if (l == NULL)
		return;	/* Not run: no forged handle released it. */
	for (size_t i = 0; i + sizeof(uint64_t) <= l->len;
	     i += sizeof(uint64_t)) {
		b = entry_buf(l, i);
		if (b != NULL && b != l)
			bp_release_scoped(b);
	}
	bufpool_release(l);
}
