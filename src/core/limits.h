/*
 * limits - what a configuration may ask for, besides what bufpool.h says.
 */
#ifndef BUFPOOL_LIMITS_H
#define BUFPOOL_LIMITS_H

#include <stddef.h>

#define FLOOR_MAX ((size_t)1 << 20)	/* buffers kept ready of one class */
#define CLASS_MAX ((size_t)1 << 40)	/* bytes of a buffer of a class */

#endif
