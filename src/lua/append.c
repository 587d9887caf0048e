#include "append.h"
#include "core/grow.h"
#include "number.h"

int
bp_append_grow(struct bufpool_buf *b, size_t capacity, struct bufpool_box *box)
{
	size_t before = buf_size(b), after;

	if (bp_grow_to(b, capacity) < 0)
		return errno;
	after = buf_size(b);
	/* The collector cannot run here: what growth took becomes debt. */
	if (box != NULL && after > before) {
		box->account->debt += (double)(after - before);
		box_charge(box->account, &box->charged, (double)after);
	}
	return 0;
}

/* The bytes of an object, or NULL when it is dead, not of this kind, or the
 * buffer b itself. An empty frozen object may have no bytes. */
static __attribute__((noinline)) const uint8_t *
measure_object(const struct bufpool_buf *b, const void *at, double kind,
	       size_t *n)
{
	const struct bufpool_frozen_box *frozen = at;
	const struct bufpool_box *box = at;
	const struct bufpool_buf *from = NULL;

	if (kind == VALUE_FROZEN) {
		if (!box_lives(frozen, KIND_FROZEN))
			return NULL;
		*n = frozen->len;
		return *n > 0 ? frozen->at : (const uint8_t *)"";
	}
	if (kind == VALUE_HANDLE)
		from = handle_buf(at);
	else if (box_lives(box, KIND_BUFFER) && box_holds(box))
		from = box->buf;
	if (from == NULL || from == b)
		return NULL;
	*n = from->len;
	return *n > 0 ? from->at : (const uint8_t *)"";
}

/* How many bytes the values are, or -1 when one of them is odd. A number counts
 * as NUMBER_MAX unless the sum has to be exact. */
static inline __attribute__((always_inline)) ptrdiff_t
measure_value(const struct bufpool_buf *b, const struct bufpool_values *values,
	      int count, bool exact)
{
	char text[NUMBER_MAX];
	size_t total = 0, n;

	for (int k = 0; k < count; k++) {
		const void *at = values->at[k];
		double v = values->n[k];

		if (at == NULL) {
			n = exact ? bp_number_text(v, text) : NUMBER_MAX;
			if (n == 0)
				return -1;
		} else if (v >= 0)
			n = (size_t)v;
		else if (measure_object(b, at, v, &n) == NULL)
			return -1;
		total += n;
	}
	return (ptrdiff_t)total;
}

/* There is room for what measure said. A number that turns out to be odd leaves
 * behind what was written before it. */
static int
write_value(struct bufpool_buf *b, const struct bufpool_values *values,
	    int count)
{
	uint8_t *to = b->at + b->len;
	int result = 0;
	size_t n;

	for (int k = 0; k < count; k++, to += n) {
		const void *at = values->at[k];
		double v = values->n[k];

		if (at == NULL) {
			n = bp_number_text(v, (char *)to);
			if (n == 0) {
				result = APPEND_ODD;
				break;
			}
			continue;
		}
		n = (size_t)v;
		if (v < 0)
			at = measure_object(b, at, v, &n);
		append_copy(to, at, n);
	}
	buf_changed(b);
	if (result != 0) {
		buf_leave_behind(b, (size_t)(to - b->at));
		return result;
	}
	b->len = (size_t)(to - b->at);
	buf_raise_mark(b, b->len);
	return 0;
}

int
bp_append(struct bufpool_buf *b, struct bufpool_box *box,
	  const struct bufpool_values *values, int count)
{
	size_t room = b->capacity - b->len;
	ptrdiff_t total = measure_value(b, values, count, false);
	int error;

	/* What is odd is found before it can overwrite reserved bytes. */
	if (total > 0 && ((size_t)total > room || b->granted))
		total = measure_value(b, values, count, true);
	if (total < 0)
		return APPEND_ODD;
	if ((size_t)total > room) {
		error = bp_append_grow(b, b->len + (size_t)total, box);
		if (error != 0)
			return error;
	}
	return write_value(b, values, count);
}

int
bp_append_put(struct bufpool_box *to, const struct bufpool_values *values,
	      int count, int32_t turn)
{
	if (values->turn != turn)
		return ESTALE;
	return box_lives(to, KIND_BUFFER) && box_holds(to) ?
		bp_append(to->buf, to, values, count) : APPEND_ODD;
}

int
bp_append_put_handle(struct bufpool_handle *to,
		     const struct bufpool_values *values, int count,
		     int32_t turn)
{
	struct bufpool_buf *b = handle_buf(to);

	if (values->turn != turn)
		return ESTALE;
	return b != NULL ? bp_append(b, NULL, values, count) : APPEND_ODD;
}
