/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/vm_view.c - see vm_view.h. */
#include "ops/polluxd/vm_view.h"

#include <string.h>

#include "base/clock.h"

static const char *protection(const struct roles_vm *vm)
{
    if (vm->phase == ROLES_STOPPED) {
        return vm->protect ? "stopped" : "none";
    }
    if (vm->backup.node != 0) {
        return vm->in_sync ? "protected" : "starting";
    }
    return vm->protect ? "unprotected" : "none";
}

static bool fresh_stats(struct daemon *d, const struct roles_vm *vm, uint32_t node, Ctl__Stats *out)
{
    const struct vm_stats *s = node != 0 ? stats_find(d, vm->uuid, node) : NULL;

    if (s == NULL || clock_mono_ns() - s->heard_ns > (uint64_t)STATS_FRESH_MS * 1000000) {
        return false;
    }
    *out = s->s;
    return true;
}

void vm_view_fill(struct daemon *d, const struct roles_vm *vm, struct vm_view *v)
{
    struct domain dom;

    api__vm__init(&v->m);
    v->m.uuid = (char *)(uintptr_t)uuid_text(vm->uuid, v->uuid);
    v->m.name = (char *)(uintptr_t)vm->name;
    v->m.state = (char *)(uintptr_t)roles_phase_name(vm->phase);
    v->m.protection = (char *)(uintptr_t)protection(vm);
    v->m.protect = vm->protect;
    v->m.epoch = vm->epoch;
    v->m.primary = (char *)(uintptr_t)conf_node_name(d->conf, vm->primary.node);
    v->m.backup = (char *)(uintptr_t)conf_node_name(d->conf, vm->backup.node);
    v->m.in_sync = vm->in_sync;
    v->m.stop = (char *)(uintptr_t)roles_stop_name(vm->stop);
    v->m.stop_code = vm->stop_code;
    v->m.primary_incarnation = vm->primary.incarnation;
    v->m.backup_incarnation = vm->backup.incarnation;
    if (domain_parse(vm->xml, strlen(vm->xml), &dom, NULL) == 0) {
        v->m.memory = dom.memory;
        v->m.vcpus = dom.vcpus;
        v->m.cpu = (char *)(uintptr_t)cpu_model_name(dom.cpu);
    }
    v->m.primary_stats = fresh_stats(d, vm, vm->primary.node, &v->primary) ? &v->primary : NULL;
    v->m.backup_stats = fresh_stats(d, vm, vm->backup.node, &v->backup) ? &v->backup : NULL;
}
