/*
 * cgroup - how much memory the process may use before the system kills it.
 */
#ifndef BUFPOOL_CGROUP_H
#define BUFPOOL_CGROUP_H

#include <stddef.h>

/*
 * The least memory limit of the process's control group and of those around it,
 * version 2 or 1, in bytes; SIZE_MAX where there is none, or none can be read.
 * What was read first holds for the life of the process and of its forks. Keeps
 * errno. Any thread.
 */
size_t bp_cgroup_limit(void);

#endif
