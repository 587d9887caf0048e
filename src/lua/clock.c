#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "clock.h"

/* Of the process that keeps time. After a fork the child is another one. */
static _Atomic pid_t clock_of;

int
bp_clock_claim(lua_State *L)
{
	pid_t self = getpid();
	bool on = lua_toboolean(L, 1);

	lua_pushboolean(L, atomic_exchange(&clock_of, on ? self : 0) != self);
	return 1;
}
