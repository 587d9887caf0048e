/*
 * stack - entries of a table, in a stack that any thread may push and pop
 * without waiting: a Treiber stack whose head carries a tag against ABA.
 *
 * An entry has a word for it, which holds the number of the next entry + 1, or
 * 0. A slower thread may still read that of an entry which another has popped,
 * which is one reason why entries stay mapped. spec/model/stack.lua has these
 * steps.
 */
#ifndef BUFPOOL_STACK_H
#define BUFPOOL_STACK_H

#include "hook.h"
#include "table.h"

struct stack {
	_Atomic uint64_t head;	/* tag << 32 | number + 1; low half 0: empty */
};

/* `next` is the word of the entry of this number. */
static inline void
stack_push(struct stack *s, uint32_t number, _Atomic uint32_t *next)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	uint64_t mine;

	do {
		atomic_store_explicit(next, (uint32_t)head,
				      memory_order_relaxed);
		mine = ((head >> 32) + 1) << 32 | (number + 1);
		hook("stack: pushing");
		/* release: pairs with the acquire in stack_pop */
	} while (!atomic_compare_exchange_weak_explicit(
	    &s->head, &head, mine, memory_order_release,
	    memory_order_relaxed));
}

/* The number of the entry that was pushed last; -1 when there is none. `offset`
 * is where an entry has its word. */
static inline int64_t
stack_pop(struct stack *s, const struct table *t, size_t offset)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_acquire);

	while ((uint32_t)head != 0) {
		uint32_t number = (uint32_t)head - 1;
		const _Atomic uint32_t *word =
		    (const void *)((char *)table_at(t, number) + offset);
		uint32_t next = atomic_load_explicit(word,
						     memory_order_relaxed);

		hook("stack: popping");
		/* Since the head was loaded others may have popped the entry
		 * and its successor, and pushed the entry again (ABA). The head
		 * then has its number again, but `next` is stale. Every push
		 * and pop raises the tag, so the head still differs, and the
		 * exchange fails. */
		if (atomic_compare_exchange_weak_explicit(
		    &s->head, &head, ((head >> 32) + 1) << 32 | next,
		    memory_order_acquire, memory_order_acquire))
			return number;
	}
	return -1;
}

static inline bool
stack_is_empty(const struct stack *s)
{
	return (uint32_t)atomic_load(&s->head) == 0;
}

#endif
