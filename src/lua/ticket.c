#include "argument.h"
#include "collector.h"
#include "core/ticket.h"
#include "module.h"

/* Leaves nil and why on the stack. */
static int
ticket_refuse(lua_State *L, int error)
{
	lua_pushnil(L);
	if (error == ESTALE)
		lua_pushliteral(L, "the ticket was adopted, or has expired");
	else
		lua_pushliteral(L, "this process has issued no such ticket");
	return 2;
}

/*
 * core.adopt(ticket): a buffer or a frozen object; or nil and a message. The
 * box comes first, so that nothing leaks when there is no memory for it. What
 * kind of box it is the ticket tells before it is adopted. It does not change
 * but with the next ticket of that number, which a finalizer can bring about.
 */
static int
core_adopt(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	double n = argument_plain_size(L, 1);
	uint64_t ticket = n >= 0 ? (uint64_t)n : 0;
	enum bp_ticket_kind kind = bp_ticket_kind(ticket);
	struct bufpool_frozen *frozen;
	struct bufpool_buf *buf;
	size_t offset, len;
	void *box;
	int error;

	if (kind == TICKET_NONE)
		return ticket_refuse(L, errno);
	collector_pay(L, account);
	box = kind == TICKET_BUF
	    ? box_new(L, KIND_BUFFER, sizeof(struct bufpool_box))
	    : box_new(L, KIND_FROZEN, sizeof(struct bufpool_frozen_box));
	if (bufpool_adopt_range(ticket, &buf, &frozen, &offset, &len) != 0) {
		error = errno;
		box_kill(L, lua_gettop(L), box, BOX_RELEASED);
		return ticket_refuse(L, error);
	}
	if ((kind == TICKET_BUF) != (buf != NULL)) {
		box_kill(L, lua_gettop(L), box, BOX_RELEASED);
		bufpool_release(buf);
		bufpool_frozen_unref(frozen);
		return ticket_refuse(L, ESTALE);
	}
	if (kind == TICKET_BUF)
		box_own(account, box, buf);
	else {
		box_enter_frozen(account, box, frozen);
		box_narrow(box, offset, len);
	}
	return 1;
}

const luaL_Reg bp_ticket_functions[] = {
	{ "adopt", core_adopt },
	{ NULL, NULL }
};
