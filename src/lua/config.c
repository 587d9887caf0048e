#include "argument.h"
#include "config.h"

/* The sizes in a configuration, by the name that they have in Lua. */
static const struct { const char *name; size_t offset; } sizes[] = {
#define SIZE(name) { #name, offsetof(struct bufpool_config, name) }
	SIZE(four_kib_count), SIZE(sixty_four_kib_count),
	SIZE(two_fifty_six_kib_count), SIZE(one_mib_count),
	SIZE(max_bytes), SIZE(large_bytes)
#undef SIZE
};
#define SIZE_COUNT (sizeof sizes / sizeof *sizes)

static size_t *
size_at(struct bufpool_config *config, size_t i)
{
	return (size_t *)(void *)((char *)config + sizes[i].offset);
}

void
bp_config_push_defaults(lua_State *L)
{
	struct bufpool_config config;

	bufpool_config_init(&config);
	lua_newtable(L);
	for (size_t i = 0; i < SIZE_COUNT; i++) {
		lua_pushnumber(L, (double)*size_at(&config, i));
		lua_setfield(L, -2, sizes[i].name);
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

static int
field_true(lua_State *L, const char *key)
{
	int is_true;

	lua_getfield(L, 1, key);
	is_true = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return is_true;
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
		count = BUFPOOL_CLASSES_MAX;
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
	for (size_t i = 0; i < SIZE_COUNT; i++)
		*size_at(config, i) = field_size(L, 1, sizes[i].name);
	config->class_count = read_classes(L, classes);
	config->classes = classes;
	config->prefault = field_true(L, "prefault");
	config->huge_pages = field_true(L, "huge_pages");
	lua_getfield(L, 1, "numa_node");
	config->numa_node = (int)lua_tointeger(L, -1);
	lua_pop(L, 1);
	lua_getfield(L, 1, "ticket_ttl");
	config->ticket_ttl = lua_tonumber(L, -1);
	lua_pop(L, 1);
	lua_getfield(L, 1, "name");
	config->name = lua_tostring(L, -1);
}
