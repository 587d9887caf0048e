#include <math.h>

#include "collector.h"

/* The least limit of a VM in bytes, however small its heap is. */
#define HELD_FREE (4.0 * 1024 * 1024)

/* The largest payment at once, in KiB. */
#define STEP_MAX ((double)(1 << 30))

/* The most failures that go by before the next full collection. */
#define PATIENCE_MAX 1024

void
bp_collector_pay_slow(lua_State *L, struct bufpool_account *account)
{
	double heap = lua_gc(L, LUA_GCCOUNT, 0) * 1024.0;

	account->least = fmax(HELD_FREE, heap);
	account->limit = fmax(account->limit, account->least);
	if (account->held > account->limit &&
	    lua_gc(L, LUA_GCISRUNNING, 0) &&
	    lua_gc(L, LUA_GCSTEP,
		   (int)fmin(ceil(account->debt / 1024), STEP_MAX)))
		account->limit = account->held +
			fmax(account->least, account->held / 2);
}

bool
bp_collector_reclaim(lua_State *L, const struct bufpool *pool, double n)
{
	struct bufpool_account *account = lua_touserdata(L, UP_ACCOUNT);
	double held = account->held;
	size_t most;

	/* A finalizer may have released what was to grow. And what fails on
	 * purpose is not to succeed at a second try. */
	if (pool == NULL || pool->config.fail_one_in > 0)
		return false;
	most = pool->arena.max_bytes;
	if (n > (most == SIZE_MAX ? held : (double)most))
		return false;
	account->failures++;
	if (held == 0 || account->failures < account->patience ||
	    !lua_gc(L, LUA_GCISRUNNING, 0))
		return false;
	account->failures = 0;
	lua_gc(L, LUA_GCCOLLECT, 0);
	account->patience = account->held < held ? 0 :
		fmin(2 * account->patience + 0.25, PATIENCE_MAX);
	return true;
}
