#include <math.h>
#include <stdint.h>
#include <string.h>

#include "number.h"

#define DIGITS 14
#define LEAST 1e-4	/* smaller numbers have an exponent in their text */
#define END 1e14	/* numbers from here on have one, too */

/* All are exact. */
static const double tens[] = {
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
	1e13, 1e14, 1e15, 1e16, 1e17, 1e18
};

/* The logarithm of 2^n, rounded down: log10(2) is 1233 / 4096. */
static inline int
log10_of_2(int n)
{
	return (n * 1233) >> 12;
}

/* How many digits n has, which is below END. */
static inline size_t
digits_of(uint64_t n)
{
	int most = log10_of_2(64 - __builtin_clzll(n | 1));

	return (size_t)most + (n >= (uint64_t)tens[most]) + (n == 0);
}

/* Writes the last `count` digits of n. */
static inline void
write_digits(uint64_t n, char *to, size_t count)
{
	static const char pairs[] =
		"00010203040506070809" "10111213141516171819"
		"20212223242526272829" "30313233343536373839"
		"40414243444546474849" "50515253545556575859"
		"60616263646566676869" "70717273747576777879"
		"80818283848586878889" "90919293949596979899";

	for (; count >= 2; count -= 2, n /= 100)
		memcpy(to + count - 2, pairs + n % 100 * 2, 2);
	if (count > 0)
		*to = (char)('0' + n % 10);
}

/*
 * The first 14 digits of v, a number from LEAST to below END, as a whole number
 * of as many digits, rounded; 0 for a tie, or what is too close to one. *power
 * becomes the power of ten of the first digit.
 *
 * v * ten is high + low exactly: fma rounds once, and low fits a double.
 */
static uint64_t
leading_digits(double v, int *power)
{
	double high, low, rest, ten;
	uint64_t bits, n;

	memcpy(&bits, &v, sizeof bits);
	*power = log10_of_2((int)(bits >> 52) - 1023);
	ten = tens[DIGITS - 1 - *power];
	if (v * ten >= END) {
		++*power;
		ten = tens[DIGITS - 1 - *power];
	}
	high = v * ten;
	low = fma(v, ten, -high);
	n = (uint64_t)high;
	rest = high - (double)n + low;
	if (rest == 0.5)
		return 0;
	n += rest > 0.5;
	if (n == (uint64_t)END) {
		n /= 10;
		++*power;
	}
	return n >= (uint64_t)END / 10 ? n : 0;
}

/* Writes v, which is no whole number. */
static __attribute__((noinline)) size_t
put_fraction(double v, char *to)
{
	int power;
	uint64_t n = leading_digits(v, &power);
	size_t whole, rest = DIGITS, zeros = 0;

	if (n == 0 || power == DIGITS)
		return 0;
	whole = power >= 0 ? (size_t)power + 1 : 0;
	while (rest > whole && n % 10 == 0) {
		n /= 10;
		rest--;
	}
	rest -= whole;
	if (whole == 0) {
		zeros = (size_t)(-1 - power);
		*to = '0';
		memset(to + 2, '0', zeros);
	} else
		write_digits(n / (uint64_t)tens[rest], to, whole);
	whole += whole == 0;
	if (rest == 0)
		return whole;
	to[whole] = '.';
	write_digits(n, to + whole + 1 + zeros, rest);
	return whole + 1 + zeros + rest;
}

static inline size_t
put_integer(uint64_t n, char *to)
{
	size_t count = digits_of(n);

	write_digits(n, to, count);
	return count;
}

size_t
bp_number_text(double v, char *to)
{
	double positive = fabs(v);
	size_t sign = v < 0, n;
	int64_t whole;

	if (!(positive < END))
		return 0;
	whole = (int64_t)positive;
	if (positive != (double)whole)
		n = positive < LEAST ? 0 : put_fraction(positive, to + sign);
	else if (whole == 0 && signbit(v))
		n = 0;
	else
		n = put_integer((uint64_t)whole, to + sign);
	if (n == 0)
		return 0;
	if (sign)
		*to = '-';
	return sign + n;
}
