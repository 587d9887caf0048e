/*
 * config - the configuration of a pool, from and to a Lua table.
 */
#ifndef BUFPOOL_LUA_CONFIG_H
#define BUFPOOL_LUA_CONFIG_H

#include "box.h"

/* Pushes a list of the settings: key, type and default. */
void bp_config_push_settings(lua_State *L);

/*
 * Reads the table at index 1, which config.lua has completed and checked. The
 * classes go into `classes`. The name stays on the stack.
 */
void bp_config_read(lua_State *L, struct bufpool_config *config,
		    struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX]);

#endif
