/*
 * module - the lists of functions of which module.c makes the Lua module.
 */
#ifndef BUFPOOL_LUA_MODULE_H
#define BUFPOOL_LUA_MODULE_H

#include "box.h"

/* In the registry: the public module, once it is made. */
#define KEY_OPENED "bufpool"

/* Functions of the module's private table, and those that make boxes. */
extern const luaL_Reg pool_functions[], ticket_functions[], box_functions[];

extern const luaL_Reg pool_methods[], pool_meta[];
extern const luaL_Reg buffer_methods[], buffer_meta[];
extern const luaL_Reg frozen_methods[], frozen_meta[];

#endif
