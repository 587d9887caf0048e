/*
 * system - what is asked of the system besides memory: the time, and numbers
 * that nobody can guess.
 */
#ifndef BUFPOOL_SYSTEM_H
#define BUFPOOL_SYSTEM_H

#include <stdint.h>

/* Milliseconds since some moment in the past, as the coarse clock ticks. */
int64_t bp_system_now(void);

/* 64 random bits. Without a source of randomness there is still what the
 * address space randomization, the process number and the time give. Keeps
 * errno. */
uint64_t bp_system_random(void);

#endif
