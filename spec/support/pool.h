/* For C specs: how to make a pool, and what must hold for every pool. */
#ifndef SPEC_POOL_H
#define SPEC_POOL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/buf.h"
#include "bufpool.h"

static inline struct bufpool *
new_pool(size_t four, size_t sixty_four, size_t max_bytes)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.four_kib_count = four;
	config.sixty_four_kib_count = sixty_four;
	config.two_fifty_six_kib_count = 0;
	config.max_bytes = max_bytes;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

static inline struct bufpool *
pool_with_ttl(double seconds)
{
	struct bufpool_config config;
	struct bufpool *p;

	bufpool_config_init(&config);
	config.ticket_ttl = seconds;
	p = bufpool_create(&config);
	assert_non_null(p);
	return p;
}

static inline struct bufpool_stats
stats_of(struct bufpool *p)
{
	struct bufpool_stats s;

	bufpool_get_stats(p, &s);
	return s;
}

static inline size_t
in_pages(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return n == 0 ? page : (n + page - 1) / page * page;
}

/* Above the largest class: whole pages, at most twice as many as needed. */
static inline bool
holds_large(const struct bufpool_buf *b, size_t n)
{
	size_t capacity = bufpool_capacity(b);

	return capacity >= n && capacity == in_pages(capacity) &&
	    capacity <= 2 * in_pages(n);
}

/* Each buffer that exists is in one place: ready, cached or out. */
static inline void
assert_conserved(struct bufpool *p)
{
	struct bufpool_stats s = stats_of(p);

	for (unsigned c = 0; c < s.class_count; c++)
		assert_int_equal(s.classes[c].count,
				 s.classes[c].ready + s.classes[c].cached +
				     s.classes[c].out);
}

/* Looks at all memory of the buffer, not only at its contents. */
static inline void
assert_all_zero(const struct bufpool_buf *b)
{
	size_t n = buf_size(b);

	if (n > 0 && b->base[0] == 0 &&
	    memcmp(b->base, b->base + 1, n - 1) == 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (b->base[i] != 0)
			fail_msg("byte %zu of %zu is not zero", i, buf_size(b));
}

#endif
