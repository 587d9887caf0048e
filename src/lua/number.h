/*
 * number - the text that tostring gives for a number: its first 14 digits, as
 * by "%.14g". A LuaJIT and a C library round apart what lies exactly between
 * two texts, and a C library heeds the locale. So this tells what every LuaJIT
 * agrees on, and leaves the rest to the one at hand.
 */
#ifndef BUFPOOL_LUA_NUMBER_H
#define BUFPOOL_LUA_NUMBER_H

#include <stddef.h>

#define NUMBER_MAX 24	/* bytes that hold any text of bp_number_text */

/* Writes the text, and no byte more, and returns its length; 0 for what Lua has
 * to tell: NaN, -0, what has an exponent in its text, and ties. */
size_t bp_number_text(double v, char *to);

#endif
