/*
 * The layout of the structs of bufpool.h, as programs were built with it. A
 * line here that changes or goes raises the number of libbufpool.so; a new
 * field at the end of a struct whose size is passed adds a line.
 * doc/stability.md says what else is promised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bufpool.h"

struct place {
	const char *name;
	size_t is, was;
};

#define FIELD(of, name, at) \
	{ #of "." #name, offsetof(struct bufpool_##of, name), at }
#define SIZE(of, bytes) \
	{ "sizeof " #of, sizeof(struct bufpool_##of), bytes }
#define VALUE(name, number) \
	{ #name, (size_t)(BUFPOOL_##name), (size_t)(number) }

static const struct place places[] = {
	FIELD(class_config, size, 0),
	FIELD(class_config, count, 8),
	SIZE(class_config, 16),
	FIELD(config, struct_size, 0),
	FIELD(config, four_kib_count, 8),
	FIELD(config, sixty_four_kib_count, 16),
	FIELD(config, two_fifty_six_kib_count, 24),
	FIELD(config, one_mib_count, 32),
	FIELD(config, max_bytes, 40),
	FIELD(config, numa_node, 48),
	FIELD(config, name, 56),
	FIELD(config, class_count, 64),
	FIELD(config, classes, 72),
	FIELD(config, prefault, 80),
	FIELD(config, huge_pages, 84),
	FIELD(config, large_bytes, 88),
	FIELD(config, ticket_ttl, 96),
	FIELD(config, leak_detection, 104),
	FIELD(config, leak_sample, 108),
	FIELD(config, dump, 112),
	FIELD(config, verify, 116),
	FIELD(config, hardened, 120),
	FIELD(config, fault_report, 124),
	FIELD(config, wipe_on_fork, 128),
	FIELD(config, fail_one_in, 132),
	SIZE(config, 136),
	FIELD(class_stats, size, 0),
	FIELD(class_stats, count, 8),
	FIELD(class_stats, ready, 16),
	FIELD(class_stats, cached, 24),
	FIELD(class_stats, out, 32),
	FIELD(class_stats, hits, 40),
	FIELD(class_stats, misses, 48),
	SIZE(class_stats, 56),
	FIELD(stats, struct_size, 0),
	FIELD(stats, hits, 8),
	FIELD(stats, misses, 16),
	FIELD(stats, checked_out, 24),
	FIELD(stats, peak_checked_out, 32),
	FIELD(stats, bytes_checked_out, 40),
	FIELD(stats, peak_bytes_checked_out, 48),
	FIELD(stats, committed_bytes, 56),
	FIELD(stats, cached_bytes, 64),
	FIELD(stats, in_transit, 72),
	FIELD(stats, wiped_bytes, 80),
	FIELD(stats, gc_returns, 88),
	FIELD(stats, lost, 96),
	FIELD(stats, class_count, 104),
	FIELD(stats, classes, 112),
	FIELD(stats, numa_requested, 1008),
	FIELD(stats, numa_available, 1012),
	FIELD(stats, node_count, 1016),
	FIELD(stats, pages_by_node, 1024),
	FIELD(stats, large_hits, 1536),
	FIELD(stats, large_misses, 1544),
	FIELD(stats, large_out, 1552),
	FIELD(stats, large_bytes_out, 1560),
	FIELD(stats, large_cached, 1568),
	FIELD(stats, large_cached_bytes, 1576),
	FIELD(stats, refused_by_max_bytes, 1584),
	FIELD(stats, refused_by_system, 1592),
	FIELD(stats, max_bytes, 1600),
	FIELD(stats, lock_refused, 1608),
	FIELD(stats, lock_limit, 1616),
	FIELD(stats, requests, 1624),
	FIELD(stats, large_requests, 2776),
	FIELD(stats, exhausted, 2848),
	FIELD(stats, large_bytes, 2856),
	FIELD(stats, limits, 2864),
	FIELD(stats, oldest, 3120),
	FIELD(stats, pressed_bytes, 3128),
	SIZE(stats, 3136),
	FIELD(class_limits, floor, 0),
	FIELD(class_limits, shelf, 8),
	SIZE(class_limits, 16),
	FIELD(request_stats, bytes, 0),
	FIELD(request_stats, bins, 8),
	SIZE(request_stats, 72),
	FIELD(site, place, 0),
	FIELD(site, buffers, 192),
	FIELD(site, bytes, 200),
	FIELD(site, oldest, 208),
	FIELD(site, gc_returns, 216),
	FIELD(site, request_returns, 224),
	SIZE(site, 232),
	VALUE(CLASSES_MAX, 16),
	VALUE(NODES_MAX, 64),
	VALUE(NAME_MAX, 64),
	VALUE(PLACE_MAX, 192),
	VALUE(REQUEST_BINS, 8),
	VALUE(NUMA_NONE, -1),
	VALUE(NUMA_LOCAL, -2),
	VALUE(HARDENED_OFF, 0),
	VALUE(HARDENED_ALL, 1),
	VALUE(HARDENED_SAMPLED, 2),
	VALUE(LEAK_OFF, 0),
	VALUE(LEAK_SAMPLED, 1),
	VALUE(LEAK_ALL, 2),
};

static void
is_as_programs_were_built_with(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		if (places[i].is != places[i].was)
			print_error("%s: %zu, was %zu\n", places[i].name,
				    places[i].is, places[i].was);
		assert_true(places[i].is == places[i].was);
	}
}

/* What reads the size of the caller's struct finds it in the first word. */
static void
begins_with_the_size_of_the_struct(void **state)
{
	struct bufpool_config config;
	struct bufpool_stats stats;
	struct bufpool *p;
	size_t word;

	(void)state;
	bufpool_config_init(&config);
	memcpy(&word, &config, sizeof word);
	assert_true(word == sizeof config);
	p = bufpool_create(&config);
	assert_non_null(p);
	bufpool_get_stats(p, &stats);
	memcpy(&word, &stats, sizeof word);
	assert_true(word == sizeof stats);
	bufpool_destroy(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_as_programs_were_built_with),
		cmocka_unit_test(begins_with_the_size_of_the_struct),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
