/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/sandbox.h - gives up every privilege and system call a running replica does not need.
 */
#ifndef OPS_REPLICA_SANDBOX_H
#define OPS_REPLICA_SANDBOX_H

#include "base/err.h"

/* For all threads of the process, for ever. */
int sandbox_enter(struct plx_err *err);

#endif
