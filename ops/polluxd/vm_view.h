/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/vm_view.h - a VM as the CLI is told of it (proto/api.proto). */
#ifndef OPS_POLLUXD_VM_VIEW_H
#define OPS_POLLUXD_VM_VIEW_H

#include "ops/polluxd/daemon.h"
#include "proto/api.pb-c.h"

/* One message; it borrows from the record and the figures it was filled from. */
struct vm_view {
    Api__Vm m;
    char uuid[UUID_TEXT];
    Ctl__Stats primary, backup;
};

/* From the record @vm, its definition, and figures of its replicas that are not too old. */
void vm_view_fill(struct daemon *d, const struct roles_vm *vm, struct vm_view *v);

#endif
