/*
 * settings - the configuration of a pool: its defaults, what is in range, and
 * what a pool was made with.
 */
#ifndef BUFPOOL_SETTINGS_H
#define BUFPOOL_SETTINGS_H

#include "pool.h"

/*
 * One line for each setting except the name and the classes. Defaults, checks
 * and comparisons of pools use this list, and Lua gets it.
 */
struct bp_setting {
	const char *key;
	enum setting_type {
		SETTING_COUNT,		/* size_t: buffers of a class */
		SETTING_SIZE,		/* size_t */
		SETTING_NODE,		/* int */
		SETTING_BOOLEAN,	/* int */
		SETTING_SECONDS,	/* double */
		SETTING_HARDENED,	/* int */
		SETTING_NUMBER,		/* int, not negative */
		/* int, left out when pools are compared: it may change */
		SETTING_DETECTION,
		SETTING_SAMPLE,
	} type;
	size_t offset;			/* in struct bufpool_config */
	double standard, least, most;
};
extern const struct bp_setting bp_settings[];	/* a NULL key ends it */

double bp_setting_get(const struct bufpool_config *,
		      const struct bp_setting *);
void bp_setting_set(struct bufpool_config *, const struct bp_setting *,
		    double value);

/* Copies the caller's configuration, whatever its struct_size, into today's
 * layout, checks it, and changes it as BUFPOOL_DEBUG says. Without a name, the
 * name becomes "". 0, or -1 + EINVAL. */
int bp_settings_read(struct bufpool_config *config,
		     const struct bufpool_config *given);

/* Rounded up, because only 0 means never. */
int64_t bp_settings_milliseconds(double seconds);

/* Lays out the configuration's classes for one node; false as
 * bp_layout_init. */
bool bp_settings_layout(const struct bufpool_config *config, struct layout *l);

/* The first key in which the pool and a valid configuration differ, or NULL. */
const char *bp_settings_difference(const struct bufpool *p,
				   const struct bufpool_config *given);

#endif
