#include "argument.h"
#include "collector.h"
#include "failure.h"
#include "module.h"

/*
 * core.adopt(ticket): a buffer or a frozen object; or nil and a message. The
 * memory of the box comes first, so that nothing leaks when there is none. What
 * the ticket stood for decides which kind of box it becomes.
 */
static int
core_adopt(lua_State *L)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	double n = argument_plain_size(L, 1);
	union {
		struct bufpool_box buf;
		struct bufpool_frozen_box frozen;
	} *box;
	struct bufpool_frozen *frozen;
	struct bufpool_buf *buf;
	size_t offset, len;

	collector_pay(L, account);
	box = memset(lua_newuserdata(L, sizeof *box), 0, sizeof *box);
	if (bufpool_adopt_range(n >= 0 ? (uint64_t)n : 0, &buf, &frozen,
				&offset, &len) != 0)
		return failure_return(L, errno == ESTALE ?
				      "the ticket was adopted, or has expired" :
				      "this process has issued no such ticket");
	if (buf != NULL) {
		box_own(account, &box->buf, buf);
		box_become(L, box, KIND_BUFFER);
	} else {
		box_enter_frozen(account, &box->frozen, frozen);
		box_narrow(&box->frozen, offset, len);
		box_become(L, box, KIND_FROZEN);
	}
	return 1;
}

const luaL_Reg bp_ticket_functions[] = {
	{ "adopt", core_adopt },
	{ NULL, NULL }
};
