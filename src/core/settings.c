#define _GNU_SOURCE
#include <string.h>

#include "cgroup.h"
#include "settings.h"

/* Bytes of the caller's struct bufpool_config: the oldest had the counts. */
#define LAYOUT_LEAST offsetof(struct bufpool_config, max_bytes)
#define LAYOUT_MOST 4096

/* Idle memory may be a part of what a process may have, or the next that it
 * takes elsewhere kills it. */
#define LARGE_BYTES ((size_t)128 << 20)
#define LARGE_PART 8

static size_t
large_bytes(void)
{
	size_t part = bp_cgroup_limit() / LARGE_PART;

	return part < LARGE_BYTES ? part : LARGE_BYTES;
}

void
bufpool_config_init_sized(struct bufpool_config *config, size_t struct_size)
{
	const struct bufpool_config defaults = {
		.struct_size = struct_size,
		.four_kib_count = 64,
		.sixty_four_kib_count = 8,
		.two_fifty_six_kib_count = 2,
		.one_mib_count = 0,
		.max_bytes = 0,
		.numa_node = BUFPOOL_NUMA_NONE,
		.name = NULL,
		.class_count = 0,
		.classes = NULL,
		.prefault = 0,
		.huge_pages = 0,
		.large_bytes = large_bytes(),
		.ticket_ttl = 0,
	};

	if (struct_size <= sizeof defaults)
		memcpy(config, &defaults, struct_size);
	else {
		memcpy(config, &defaults, sizeof defaults);
		memset(config + 1, 0, struct_size - sizeof defaults);
	}
}

/* Fields are words, or pairs of ints that fill one. A newer caller's fields
 * that are not here have to be as bufpool_config_init_sized left them. */
static bool
is_layout(const struct bufpool_config *given)
{
	const char *bytes = (const char *)given;

	if (given->struct_size < LAYOUT_LEAST ||
	    given->struct_size > LAYOUT_MOST ||
	    given->struct_size % sizeof(size_t) != 0)
		return false;
	for (size_t i = sizeof *given; i < given->struct_size; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

bool
bp_settings_layout(const struct bufpool_config *config, struct layout *l)
{
	const struct bufpool_class_config four[] = {
		{ (size_t)4 << 10, config->four_kib_count },
		{ (size_t)64 << 10, config->sixty_four_kib_count },
		{ (size_t)256 << 10, config->two_fifty_six_kib_count },
		{ (size_t)1 << 20, config->one_mib_count },
	};

	return config->class_count != 0
	    ? bp_layout_init(l, config->classes, config->class_count)
	    : bp_layout_init(l, four, 4);
}

/* Rounded up, so that only 0 means never. */
int64_t
bp_settings_ticket_ttl(const struct bufpool_config *config)
{
	double most = (double)(INT64_MAX / 4);
	double ms = config->ticket_ttl * 1000;
	int64_t whole = (int64_t)(ms < most ? ms : most);

	return (double)whole < ms && ms < most ? whole + 1 : whole;
}

int
bp_settings_read(struct bufpool_config *config,
		 const struct bufpool_config *given)
{
	struct layout l;

	bufpool_config_init(config);
	if (given != NULL && !is_layout(given))
		goto invalid;
	if (given != NULL)
		memcpy(config, given, given->struct_size < sizeof *config
		       ? given->struct_size : sizeof *config);
	if (config->name == NULL)
		config->name = "";
	else if (config->name[0] == '\0')
		goto invalid;
	if (strnlen(config->name, BUFPOOL_NAME_MAX) == BUFPOOL_NAME_MAX ||
	    !bp_settings_layout(config, &l) ||
	    config->numa_node < BUFPOOL_NUMA_LOCAL ||
	    !(config->ticket_ttl >= 0))
		goto invalid;
	return 0;
invalid:
	errno = EINVAL;
	return -1;
}

/* With the same sizes a difference in a count has a key of its own, if the
 * configuration named the four. */
static const char *
class_difference(const struct bufpool *p, const struct bufpool_config *config)
{
	static const char *const keys[] = { "four_kib_count",
					    "sixty_four_kib_count",
					    "two_fifty_six_kib_count",
					    "one_mib_count" };
	const char *key = NULL;
	struct layout l;

	if (!bp_settings_layout(config, &l) || p->layout.classes != l.classes)
		return "classes";
	for (unsigned c = l.classes; c-- > 0;) {
		if (p->layout.size[c] != l.size[c])
			return "classes";
		if (p->layout.floor[c] != l.floor[c])
			key = config->class_count ? "classes" : keys[c];
	}
	return key;
}

const char *
bp_settings_difference(const struct bufpool *p,
		       const struct bufpool_config *config)
{
	const struct bufpool_arena *a = &p->arena;
	size_t max_bytes = config->max_bytes ? config->max_bytes : SIZE_MAX;
	const char *key = class_difference(p, config);

	if (key != NULL)
		return key;
	if (a->max_bytes != max_bytes)
		return "max_bytes";
	if (a->numa_node != config->numa_node)
		return "numa_node";
	if (a->prefault != (config->prefault != 0))
		return "prefault";
	if (a->huge_pages != (config->huge_pages != 0))
		return "huge_pages";
	if (p->large.limit != config->large_bytes)
		return "large_bytes";
	return p->ticket_ttl != bp_settings_ticket_ttl(config) ? "ticket_ttl"
							    : NULL;
}
