/*
 * expiry - which of many numbers may be due.
 *
 * Each number may be expected at a time. 64 numbers are a block, 64 blocks a
 * group, and so on, up to one word for all. A word has the earliest time at
 * which something below it is expected, or an earlier one:
 *
 *      one word           12
 *      groups             12                20
 *      blocks             12      31        20      never
 *      numbers (64 each)  12, 40  (31), 50  20, 33  -
 *
 * bp_expiry_expect lowers four words at most, and as a rule none. That a number
 * is no longer wanted (31, above) is not reported, so its block is looked at
 * once in vain. Finding a block that is due reads the children of three words:
 * 4 + 64 + 64 = 132 loads at most, however many numbers are expected. Putting
 * it back reads about as many. A block is looked at once at most for each time
 * that was expected in it.
 *
 * A thread that is stopped between bp_expiry_take and bp_expiry_put_back holds
 * up what is due in that block, and nothing else.
 */
#ifndef BUFPOOL_EXPIRY_H
#define BUFPOOL_EXPIRY_H

#include <stdbool.h>
#include <stdint.h>

#define EXPIRY_LOG 20		/* numbers are below 1 << this */
#define EXPIRY_BLOCK 64		/* numbers */
#define EXPIRY_NEVER INT64_MAX

/* Records that the number is expected at this time. Before that the caller has
 * stored the time where whoever takes the block looks for it. Any thread. */
void bp_expiry_expect(uint32_t number, int64_t at);

/* The earliest time at which a number may be due; EXPIRY_NEVER: none will. One
 * load. Any thread. */
int64_t bp_expiry_next(void);

/* Takes a block in which a number may be due. The block's numbers begin at 64
 * times the result; the caller looks at them and puts the block back. -1 when
 * none was found, also where bp_expiry_next says that one may be due: then
 * another thread has just taken the block, or a word was lower than it need be.
 * Any thread. */
int64_t bp_expiry_take(int64_t now);

/* Puts a block back after bp_expiry_take. `next` is the earliest time at which
 * the caller found one of its numbers to be expected. */
void bp_expiry_put_back(uint32_t block, int64_t next, int64_t now);

#endif
