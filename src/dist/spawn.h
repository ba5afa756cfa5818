/* A launcher of our own: the ranks of one machine, as processes that run this program again. */
#ifndef PN_DIST_SPAWN_H
#define PN_DIST_SPAWN_H

#include <stdbool.h>

#include "status.h"

/* This process was started by pn_spawn. */
bool pn_spawned(void);

/* Starts this program `ranks` times with the same arguments, each told who it is by the environment (launch.h), and
 * waits for all of them. They meet over the loopback interface, in a directory of their own that nobody else can read.
 * SIGINT and SIGTERM go on to them. When one ends badly the others have grace_seconds to end by themselves, with the
 * message that tells them why, and are then killed.
 *
 * *exit_code is that of the rank that ended badly first (128 + signal for one that a signal ended), else 0; but 2 of
 * one that found a mistake in the input before 3 of those that heard of it. */
pn_status pn_spawn(int ranks, char **argv, double grace_seconds, int *exit_code);

#endif
