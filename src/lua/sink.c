#include <string.h>

#include "core/grow.h"
#include "sink.h"

/* The buffer, as long as it is the sink's. */
static struct bufpool_buf *
sink_target(const struct bufpool_sink *s)
{
	struct bufpool_buf *b = s->buf;

	return atomic_load_explicit(&b->word, memory_order_relaxed) == s->word
	    ? b : NULL;
}

static size_t
sink_room(const struct bufpool_sink *s, const struct bufpool_buf *b)
{
	return b->len < s->max ? s->max - b->len : 0;
}

static void
sink_expect(struct bufpool_sink *s, size_t n)
{
	struct bufpool_buf *b = sink_target(s);

	if (b == NULL)
		return;	/* Not run: Lua holds the buffer. */
	if (n > sink_room(s, b))
		n = sink_room(s, b);	/* Not run: no header says so. */
	/* Failure is ignored, because a header may promise more bytes than
	 * ever come; sink_put reports those that find no memory. */
	if (b->capacity - b->len < n)
		bp_grow_to(b, b->len + n);
}

static int
sink_append(struct bufpool_buf *b, const uint8_t *at, size_t n)
{
	if (b->capacity - b->len < n && bp_grow_to(b, b->len + n) < 0)
		return errno;
	memcpy(b->at + b->len, at, n);
	b->len += n;
	buf_raise_mark(b, b->len);
	buf_changed(b);
	return 0;
}

/* Keeps nothing after a missing byte, because the buffer must hold the
 * beginning of the response. */
static void
sink_put(struct bufpool_sink *s, const uint8_t *at, size_t n)
{
	struct bufpool_buf *b = sink_target(s);
	size_t most;

	s->seen += (double)n;
	if (n == 0 || s->error != 0)
		return;
	if (b == NULL) {
		s->error = ESTALE;
		return;
	}
	most = sink_room(s, b) < n ? sink_room(s, b) : n;
	s->asked = (double)(b->len + most);
	s->error = most > 0 ? sink_append(b, at, most) : 0;
	if (s->error == 0 && most < n)
		s->error = EMSGSIZE;
}

static const uint8_t *
sink_contents(struct bufpool_sink *s, size_t *n)
{
	struct bufpool_buf *b = sink_target(s);

	if (b == NULL)
		return NULL;	/* Not run: Lua holds the buffer. */
	*n = b->len;
	return b->at;
}

int
bp_sink_open(struct bufpool_sink *sink, struct bufpool_buf *b, int32_t epoch,
	     size_t max)
{
	if (b->epoch != epoch)
		return ESTALE;
	*sink = (struct bufpool_sink){
		.expect = sink_expect, .put = sink_put,
		.contents = sink_contents, .buf = b, .max = max,
		.word = atomic_load_explicit(&b->word, memory_order_relaxed)
	};
	return 0;
}

struct bufpool_handle *
bp_sink_handle(const struct bufpool_sink *sink)
{
	struct bufpool_buf *b = sink_target(sink);

	return b != NULL ? handle_of(b) : NULL;
}
