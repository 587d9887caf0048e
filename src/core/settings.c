#define _GNU_SOURCE
#include <limits.h>
#include <math.h>
#include <string.h>

#include "cgroup.h"
#include "debug.h"
#include "settings.h"

/* Bounds of the caller's struct_size. The oldest struct ended at the counts. */
#define LAYOUT_LEAST offsetof(struct bufpool_config, max_bytes)
#define LAYOUT_MOST 4096

/* By default kept mappings may be 1/LARGE_PART of the cgroup's limit at most,
 * because otherwise the next memory that the process takes elsewhere could kill
 * it. */
#define LARGE_BYTES ((size_t)128 << 20)
#define LARGE_PART 8

const struct bp_setting bp_settings[] = {
#define SETTING(type, key, ...) \
	{ #key, type, offsetof(struct bufpool_config, key), __VA_ARGS__ }
	SETTING(SETTING_COUNT, four_kib_count, 64, 0, 0x1p64),
	SETTING(SETTING_COUNT, sixty_four_kib_count, 8, 0, 0x1p64),
	SETTING(SETTING_COUNT, two_fifty_six_kib_count, 2, 0, 0x1p64),
	SETTING(SETTING_COUNT, one_mib_count, 0, 0, 0x1p64),
	SETTING(SETTING_SIZE, max_bytes, 0, 0, 0x1p64),
	SETTING(SETTING_NODE, numa_node, BUFPOOL_NUMA_NONE,
		BUFPOOL_NUMA_LOCAL, INT_MAX),
	SETTING(SETTING_BOOLEAN, prefault, 0, INT_MIN, INT_MAX),
	SETTING(SETTING_BOOLEAN, huge_pages, 0, INT_MIN, INT_MAX),
	SETTING(SETTING_SIZE, large_bytes, LARGE_BYTES, 0, 0x1p64),
	SETTING(SETTING_SECONDS, ticket_ttl, 0, 0, INFINITY),
	SETTING(SETTING_DETECTION, leak_detection, BUFPOOL_LEAK_OFF,
		BUFPOOL_LEAK_OFF, BUFPOOL_LEAK_ALL),
	SETTING(SETTING_SAMPLE, leak_sample, 0, 0, INT_MAX),
	SETTING(SETTING_BOOLEAN, dump, 1, INT_MIN, INT_MAX),
	SETTING(SETTING_BOOLEAN, verify, 0, INT_MIN, INT_MAX),
	SETTING(SETTING_HARDENED, hardened, BUFPOOL_HARDENED_OFF,
		BUFPOOL_HARDENED_OFF, BUFPOOL_HARDENED_SAMPLED),
	SETTING(SETTING_BOOLEAN, fault_report, 1, INT_MIN, INT_MAX),
	SETTING(SETTING_BOOLEAN, wipe_on_fork, 0, INT_MIN, INT_MAX),
	SETTING(SETTING_NUMBER, fail_one_in, 0, 0, INT_MAX),
#undef SETTING
	{ NULL, 0, 0, 0, 0, 0 }
};

double
bp_setting_get(const struct bufpool_config *config, const struct bp_setting *s)
{
	const void *at = (const char *)config + s->offset;

	switch (s->type) {
	case SETTING_COUNT:
	case SETTING_SIZE:
		return (double)*(const size_t *)at;
	case SETTING_SECONDS:
		return *(const double *)at;
	default:
		return *(const int *)at;
	}
}

void
bp_setting_set(struct bufpool_config *config, const struct bp_setting *s,
	       double value)
{
	void *at = (char *)config + s->offset;

	switch (s->type) {
	case SETTING_COUNT:
	case SETTING_SIZE:
		*(size_t *)at = (size_t)value;
		return;
	case SETTING_SECONDS:
		*(double *)at = value;
		return;
	default:
		*(int *)at = (int)value;
	}
}

void
bufpool_config_init_sized(struct bufpool_config *config, size_t struct_size)
{
	struct bufpool_config defaults = { .struct_size = struct_size };
	size_t part = bp_cgroup_limit() / LARGE_PART;

	for (const struct bp_setting *s = bp_settings; s->key != NULL; s++)
		bp_setting_set(&defaults, s, s->standard);
	if (defaults.large_bytes > part)
		defaults.large_bytes = part;
	memset(config, 0, struct_size);
	memcpy(config, &defaults, struct_size < sizeof defaults
	       ? struct_size : sizeof defaults);
}

/* Whether struct_size can be right: fields are words, or pairs of ints that
 * fill one. Fields of a newer caller that this library does not know must be 0,
 * as bufpool_config_init_sized left them. */
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

	if (config->class_count != 0
	    ? !bp_layout_init(l, config->classes, config->class_count)
	    : !bp_layout_init(l, four, 4))
		return false;
	/* Nothing is kept ready where each buffer is mapped anew. */
	if (config->hardened == BUFPOOL_HARDENED_ALL)
		memset(l->floor, 0, sizeof l->floor);
	return true;
}

int64_t
bp_settings_milliseconds(double seconds)
{
	double most = (double)(INT64_MAX / 4), ms = seconds * 1000;
	int64_t whole = (int64_t)(ms < most ? ms : most);

	return (double)whole < ms && ms < most ? whole + 1 : whole;
}

static bool
in_range(const struct bufpool_config *config)
{
	for (const struct bp_setting *s = bp_settings; s->key != NULL; s++) {
		double value = bp_setting_get(config, s);

		if (!(value >= s->least && value <= s->most))
			return false;
	}
	return true;
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
	    !bp_settings_layout(config, &l) || !in_range(config))
		goto invalid;
	/* Equal settings get equal values, so that they can be compared. */
	if (config->max_bytes == 0)
		config->max_bytes = SIZE_MAX;
	for (const struct bp_setting *s = bp_settings; s->key != NULL; s++)
		if (s->type == SETTING_BOOLEAN)
			bp_setting_set(config, s,
				       bp_setting_get(config, s) != 0);
	bp_debug_apply(config);
	/* What is sampled is what leak detection samples. */
	if (config->hardened == BUFPOOL_HARDENED_SAMPLED &&
	    config->leak_detection == BUFPOOL_LEAK_OFF)
		config->leak_detection = BUFPOOL_LEAK_SAMPLED;
	/* A checkout that is to be recorded is one that can be refused. */
	if (config->fail_one_in > 0)
		config->leak_detection = BUFPOOL_LEAK_ALL;
	return 0;
invalid:
	errno = EINVAL;
	return -1;
}

/* "classes" when the sizes differ, or when the configuration has classes of its
 * own. Otherwise the key of the first count that differs: the four counts are
 * the first in bp_settings. The floors of a hardened pool are 0, whatever its
 * counts are. */
static const char *
class_difference(const struct bufpool *p, const struct bufpool_config *config)
{
	const char *key = NULL;
	struct layout l;

	if (!bp_settings_layout(config, &l) || p->layout.classes != l.classes)
		return "classes";
	for (unsigned c = l.classes; c-- > 0;) {
		if (p->layout.size[c] != l.size[c])
			return "classes";
		if (p->layout.floor[c] != l.floor[c] &&
		    p->config.hardened == config->hardened)
			key = config->class_count ? "classes"
						  : bp_settings[c].key;
	}
	return key;
}

/* Not by bp_setting_get, because a double does not hold every size. Seconds are
 * equal when they are as many milliseconds. */
static bool
is_equal(const struct bufpool_config *a, const struct bufpool_config *b,
	 const struct bp_setting *s)
{
	const char *x = (const char *)a + s->offset;
	const char *y = (const char *)b + s->offset;

	switch (s->type) {
	case SETTING_COUNT:
	case SETTING_SIZE:
		return memcmp(x, y, sizeof(size_t)) == 0;
	case SETTING_SECONDS:
		return bp_settings_milliseconds(bp_setting_get(a, s)) ==
		    bp_settings_milliseconds(bp_setting_get(b, s));
	case SETTING_DETECTION:
	case SETTING_SAMPLE:
		return true;
	default:
		return memcmp(x, y, sizeof(int)) == 0;
	}
}

const char *
bp_settings_difference(const struct bufpool *p,
		       const struct bufpool_config *given)
{
	struct bufpool_config config;
	const char *key;

	if (bp_settings_read(&config, given) != 0)
		return NULL;	/* Not run: a pool was made of it. */
	key = class_difference(p, &config);
	for (const struct bp_setting *s = bp_settings;
	     key == NULL && s->key != NULL; s++)
		if (s->type != SETTING_COUNT && !is_equal(&p->config, &config,
							  s))
			key = s->key;
	return key;
}
