/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/child_priv.h - what the files about replica processes share: child.c (the process),
 * child_channel.c (what it says), child_spawn.c (how it begins). */
#ifndef OPS_POLLUXD_CHILD_PRIV_H
#define OPS_POLLUXD_CHILD_PRIV_H

#include <limits.h>

#include "ops/polluxd/daemon.h"

/* --- child.c --- */
void child_tap_name(uint64_t incarnation, unsigned nic, char out[16]);
void child_socket_path(struct daemon *d, uint64_t incarnation, char out[PATH_MAX]);

/* A record on its way to a replica; borrows from the struct roles_vm it is filled from. */
struct roles_view {
    Ctl__Roles m;
    Ctl__Replica primary, backup;
};

/* @vm NULL: the VM is forgotten. */
void child_fill_roles(struct roles_view *v, const struct roles_vm *vm, uint64_t nonce);
/* A child behind the channel @fd (now its own), in d->children. NULL: out of memory, @fd is closed.
 */
struct child *child_make(struct daemon *d, int fd);
void child_take_nics(struct child *c, const struct domain *dom);
/* The channel is of no more use: the process is gone, or will be now. Unless @keep: the daemon
 * stops, and the replica shall go on. The memory is freed from the loop. */
void child_close(struct child *c, bool keep);
void child_exited(uv_process_t *p, int64_t status, int sig); /* exit_cb of c->process */

/* --- child_channel.c --- */
enum { CONTROL_VERSION = 1 };
void child_readable(uv_poll_t *h, int status, int events); /* poll callback of the channel */
/* Propose again what is due; those no longer wanted end. */
void child_retry_wishes(struct daemon *d, uint64_t now);

#endif
