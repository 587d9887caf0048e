#include "argument.h"
#include "config.h"
#include "core/settings.h"

static const char *const types[] = {
	[SETTING_COUNT] = "count", [SETTING_SIZE] = "size",
	[SETTING_NODE] = "node", [SETTING_BOOLEAN] = "boolean",
	[SETTING_SECONDS] = "seconds", [SETTING_HARDENED] = "hardened",
	[SETTING_NUMBER] = "number",
	[SETTING_DETECTION] = "detection",
	[SETTING_SAMPLE] = "sample"
};

void
bp_config_push_settings(lua_State *L)
{
	struct bufpool_config config;
	int n = 0;

	bufpool_config_init(&config);
	lua_newtable(L);
	for (const struct bp_setting *s = bp_settings; s->key != NULL; s++) {
		lua_createtable(L, 0, 3);
		lua_pushstring(L, s->key);
		lua_setfield(L, -2, "key");
		lua_pushstring(L, types[s->type]);
		lua_setfield(L, -2, "type");
		if (s->type == SETTING_BOOLEAN)
			lua_pushboolean(L, bp_setting_get(&config, s) != 0);
		else
			lua_pushnumber(L, bp_setting_get(&config, s));
		lua_setfield(L, -2, "default");
		lua_rawseti(L, -2, ++n);
	}
}

/* A size in the table at `index`. */
static size_t
field_size(lua_State *L, int index, const char *key)
{
	double n;

	lua_getfield(L, index, key);
	n = argument_size(L, -1, 1, "new");
	lua_pop(L, 1);
	return (size_t)n;
}

/* Returns how many classes the field "classes" has; 0 when it is absent. */
static size_t
read_classes(lua_State *L, struct bufpool_class_config *to)
{
	size_t count = 0;

	lua_getfield(L, 1, "classes");
	if (lua_istable(L, 2))
		count = lua_objlen(L, 2);
	if (count > BUFPOOL_CLASSES_MAX)
		count = BUFPOOL_CLASSES_MAX;	/* Not run: Lua refuses more. */
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, 2, (int)i + 1);
		to[i].size = field_size(L, 3, "size");
		to[i].count = field_size(L, 3, "count");
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return count;
}

void
bp_config_read(lua_State *L, struct bufpool_config *config,
	       struct bufpool_class_config classes[BUFPOOL_CLASSES_MAX])
{
	bufpool_config_init(config);
	for (const struct bp_setting *s = bp_settings; s->key != NULL; s++) {
		lua_getfield(L, 1, s->key);
		bp_setting_set(config, s, lua_isboolean(L, -1)
			       ? lua_toboolean(L, -1) : lua_tonumber(L, -1));
		lua_pop(L, 1);
	}
	config->class_count = read_classes(L, classes);
	config->classes = classes;
	lua_getfield(L, 1, "name");
	config->name = lua_tostring(L, -1);
}
