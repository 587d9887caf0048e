/*
 * module - the lists of functions of which module.c makes the Lua module.
 */
#ifndef BUFPOOL_LUA_MODULE_H
#define BUFPOOL_LUA_MODULE_H

#include "box.h"

/* In the registry: the public module, once it is made. */
#define KEY_OPENED "bufpool"

/* Functions of the module's private table, and of the table at KEY_BOXES. */
extern const luaL_Reg bp_pool_functions[], bp_ticket_functions[];
extern const luaL_Reg bp_box_functions[];

extern const luaL_Reg bp_pool_methods[], bp_pool_meta[];
extern const luaL_Reg bp_buffer_methods[], bp_buffer_meta[];
extern const luaL_Reg bp_frozen_methods[], bp_frozen_meta[];

#endif
