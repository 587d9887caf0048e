#include "argument.h"
#include "bytes.h"
#include "pack.h"
#include "self.h"

/* Where a position that may be one past the end is; 0 for what Lua has to
 * see. */
static double
pack_start(lua_State *L, size_t len)
{
	double i = self_number(L, 2);

	return i >= 1 && i <= (double)len + 1 && i == (double)(int64_t)i ?
		i : 0;
}

int
bp_pack_from(lua_State *L)
{
	struct self self;
	double i;

	if (!self_buffer(L, &self) || (i = pack_start(L, self.len)) == 0)
		return bp_self_in_lua(L);
	lua_pushnumber(L, i);
	return 1;
}

int
bp_pack_unpack_from(lua_State *L)
{
	struct self self;
	double i;

	if (!self_readable(L, &self) || (i = pack_start(L, self.len)) == 0)
		return bp_self_in_lua(L);
	lua_pushnumber(L, i);
	lua_pushnumber(L, (double)self.len);
	return 2;
}

int
bp_pack_extend(lua_State *L)
{
	double stop = argument_plain_size(L, 2);
	struct self self;

	if (stop < 0 || !self_buffer(L, &self) ||
	    bp_bytes_extend(self.b, self.epoch, (size_t)stop, self.box) != 0)
		return bp_self_in_lua(L);	/* Not run: no memory. */
	return 0;
}

int
bp_pack_bytes(lua_State *L)
{
	double n = argument_plain_size(L, 3);
	struct self self;
	size_t i;

	if (n < 0 || n > TEXT_MAX || !self_readable(L, &self) ||
	    (i = self_position(L, 2, self.len, (size_t)n)) == 0)
		return bp_self_in_lua(L);
	bp_self_push_text(L, self.at + (i - 1), (size_t)n);
	return 1;
}
