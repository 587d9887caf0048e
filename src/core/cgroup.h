/*
 * cgroup - how much memory the process may use before the system kills it, and
 * whether it is close to that.
 */
#ifndef BUFPOOL_CGROUP_H
#define BUFPOOL_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The least memory limit of the process's control group and of those around it,
 * version 2 or 1, in bytes; SIZE_MAX where there is none, or none can be read.
 * What was read first holds for the life of the process and of its forks. Keeps
 * errno. Any thread.
 */
size_t bp_cgroup_limit(void);

/*
 * When the process, or what shares its memory limit, was last found short of
 * memory: in milliseconds of `now`, which is what bp_system_now returned; 0:
 * not yet. Once in a second one call looks into the files of the control group,
 * and of those around it. Memory is short where the kernel has counted since
 * the look before that a limit was met (memory.max or memory.high; version 1:
 * memory.failcnt), or where 7/8 of a limit are anonymous memory. There are no
 * looks where bp_cgroup_limit, when it was first called, found neither a limit
 * nor a memory.high, unless bp_cgroup_heed has said otherwise. Keeps errno. Any
 * thread.
 */
int64_t bp_cgroup_short(int64_t now);

/* Whether there are looks from now on. Any thread. */
void bp_cgroup_heed(bool on);

#endif
