/* SPDX-License-Identifier: Apache-2.0
 * consensus/roles.c - see roles.h. The table `rules` says who may give a command and when. */
#include "consensus/roles.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

const char *roles_op_name(enum roles_op op)
{
    switch (op) {
#define ROLES_OP_CASE_(name, text) \
    case ROLES_##name:             \
        return text;
        ROLES_OPS(ROLES_OP_CASE_)
#undef ROLES_OP_CASE_
    case ROLES_OP_NONE:
    case ROLES_OP_END:
        break;
    }
    return "unknown command";
}

const char *roles_result_text(enum roles_result r)
{
    switch (r) {
#define ROLES_RESULT_CASE_(name, text) \
    case ROLES_RES_##name:             \
        return text;
        ROLES_RESULTS(ROLES_RESULT_CASE_)
#undef ROLES_RESULT_CASE_
    case ROLES_RES_END:
        break;
    }
    return "unknown result";
}

const char *roles_stop_name(enum roles_stop s)
{
    static const char *const names[ROLES_STOP_END] = {
        [ROLES_STOP_NEVER_RAN] = "never ran",
        [ROLES_STOP_POWER_OFF] = "power-off",
        [ROLES_STOP_RESET] = "reset",
        [ROLES_STOP_DEBUG_EXIT] = "debug exit",
        [ROLES_STOP_TRIPLE_FAULT] = "triple fault",
        [ROLES_STOP_DESTROYED] = "destroyed",
        [ROLES_STOP_LOST] = "lost",
        [ROLES_STOP_FAILED] = "failed",
        [ROLES_STOP_DIVERGED] = "diverged",
    };

    return (unsigned)s < ROLES_STOP_END ? names[s] : "unknown";
}

const char *roles_phase_name(enum roles_phase p)
{
    static const char *const names[] = {"stopped", "starting", "running"};

    return (unsigned)p < PLX_COUNT(names) ? names[p] : "unknown";
}

void roles_init(struct roles_state *s)
{
    *s = (struct roles_state){0};
}

void roles_free(struct roles_state *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        plx_free(s->vms[i].xml);
    }
    plx_free(s->vms);
    roles_init(s);
}

/* Index of the first record whose UUID is not below @uuid. */
static unsigned lower_bound(const struct roles_state *s, const uint8_t *uuid)
{
    unsigned lo = 0, hi = s->n;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (memcmp(s->vms[mid].uuid, uuid, ROLES_UUID_LEN) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static struct roles_vm *find(const struct roles_state *s, const uint8_t *uuid)
{
    unsigned i = lower_bound(s, uuid);

    return i < s->n && memcmp(s->vms[i].uuid, uuid, ROLES_UUID_LEN) == 0 ? &s->vms[i] : NULL;
}

const struct roles_vm *roles_find(const struct roles_state *s, const uint8_t *uuid)
{
    return find(s, uuid);
}

const struct roles_vm *roles_find_name(const struct roles_state *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->vms[i].name, name) == 0) {
            return &s->vms[i];
        }
    }
    return NULL;
}

/* --- the commands ------------------------------------------------------------------------- */

static const struct role_replica nobody;

static void assign(struct roles_vm *vm, const struct role_replica *primary,
                   const struct role_replica *backup, bool in_sync)
{
    struct role_replica p = *primary, b = *backup; /* they may lie in *vm */

    vm->epoch++;
    vm->primary = p;
    vm->backup = b;
    vm->in_sync = in_sync;
    vm->primary_lost = false;
}

/* Overlays of other nodes than these are of an earlier time, and must not be started from. One that
 * never began has written nothing. */
static void note_newest(struct roles_vm *vm)
{
    if (vm->phase == ROLES_RUNNING) {
        vm->newest[0] = vm->primary.node;
        vm->newest[1] = vm->in_sync ? vm->backup.node : 0;
    }
}

static void end(struct roles_vm *vm, enum roles_stop stop, uint64_t code)
{
    note_newest(vm);
    assign(vm, &nobody, &nobody, false);
    vm->phase = ROLES_STOPPED;
    vm->stop = stop;
    vm->stop_code = code;
}

static enum roles_result do_start(struct roles_vm *vm, const struct roles_cmd *c)
{
    assign(vm, &c->primary, c->backup.node != 0 ? &c->backup : &nobody, false);
    vm->phase = ROLES_STARTING;
    return ROLES_RES_DONE;
}

static enum roles_result do_ready(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    vm->phase = ROLES_RUNNING;
    vm->in_sync = vm->backup.node != 0;
    return ROLES_RES_DONE;
}

static enum roles_result do_drop_backup(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    assign(vm, &vm->primary, &nobody, false);
    return ROLES_RES_DONE;
}

static enum roles_result do_takeover(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    assign(vm, &vm->backup, &nobody, false);
    return ROLES_RES_DONE;
}

static enum roles_result do_resume(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    assign(vm, &vm->primary, &vm->backup, vm->in_sync);
    return ROLES_RES_DONE;
}

static enum roles_result do_stop(struct roles_vm *vm, const struct roles_cmd *c)
{
    end(vm, c->stop, c->code);
    return ROLES_RES_DONE;
}

/* A dead primary with a backup in sync changes no role: only the backup knows whether its log is
 * whole, so it must ask for itself. */
static enum roles_result do_lost(struct roles_vm *vm, const struct roles_cmd *c)
{
    bool primary = c->incarnation == vm->primary.incarnation;

    if (primary && vm->backup.node != 0 && vm->in_sync) {
        vm->primary_lost = true;
    } else if (primary || vm->primary_lost) {
        end(vm, ROLES_STOP_LOST, 0);
    } else {
        assign(vm, &vm->primary, &nobody, false);
    }
    return ROLES_RES_DONE;
}

static enum roles_result do_destroy(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    end(vm, ROLES_STOP_DESTROYED, 0);
    return ROLES_RES_DONE;
}

static enum roles_result do_protect(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    if (vm->phase != ROLES_STOPPED && vm->backup.node == 0) {
        return ROLES_RES_NO_REPROTECT;
    }
    vm->protect = true;
    return ROLES_RES_DONE;
}

static enum roles_result do_unprotect(struct roles_vm *vm, const struct roles_cmd *c)
{
    (void)c;
    if (vm->primary_lost) {
        return ROLES_RES_WRONG_EPOCH; /* the backup is all that is left */
    }
    vm->protect = false;
    if (vm->backup.node != 0) {
        assign(vm, &vm->primary, &nobody, false);
    }
    return ROLES_RES_DONE;
}

enum {
    AT_STOPPED = 1 << ROLES_STOPPED,
    AT_STARTING = 1 << ROLES_STARTING,
    AT_RUNNING = 1 << ROLES_RUNNING,
    AT_UP = AT_STARTING | AT_RUNNING,
    AT_ANY = AT_STOPPED | AT_UP
};
enum { BY_ANYONE, BY_PRIMARY = 1, BY_BACKUP = 2, BY_EITHER = BY_PRIMARY | BY_BACKUP };

/* Checked from left to right; the first condition that does not hold names the refusal. */
static const struct rule {
    uint8_t phases; /* AT_*; else IS_RUNNING or NOT_RUNNING */
    bool cas;       /* the epoch must be the record's; else WRONG_EPOCH */
    uint8_t by;     /* BY_*: the incarnation must be the record's; else NOT_YOURS */
    bool backup;    /* there must be a backup; else NO_BACKUP */
    bool in_sync;   /* it must be in sync; else NOT_IN_SYNC */
    enum roles_result (*act)(struct roles_vm *vm, const struct roles_cmd *c);
} rules[ROLES_OP_END] = {
    /*                   phases       cas    by          backup in_sync  act */
    [ROLES_START] = {AT_STOPPED, true, BY_ANYONE, false, false, do_start},
    [ROLES_READY] = {AT_STARTING, true, BY_PRIMARY, false, false, do_ready},
    [ROLES_DROP_BACKUP] = {AT_UP, true, BY_PRIMARY, true, false, do_drop_backup},
    [ROLES_TAKEOVER] = {AT_RUNNING, true, BY_BACKUP, true, true, do_takeover},
    [ROLES_RESUME] = {AT_UP, true, BY_EITHER, true, false, do_resume},
    [ROLES_STOP] = {AT_UP, false, BY_PRIMARY, false, false, do_stop},
    [ROLES_LOST] = {AT_UP, false, BY_EITHER, false, false, do_lost},
    [ROLES_DESTROY] = {AT_UP, false, BY_ANYONE, false, false, do_destroy},
    [ROLES_PROTECT] = {AT_ANY, false, BY_ANYONE, false, false, do_protect},
    [ROLES_UNPROTECT] = {AT_ANY, false, BY_ANYONE, false, false, do_unprotect},
};

static enum roles_result judge_rule(const struct rule *r, const struct roles_vm *vm,
                                    const struct roles_cmd *c)
{
    if ((r->phases & (1U << vm->phase)) == 0) {
        return vm->phase == ROLES_STOPPED ? ROLES_RES_NOT_RUNNING : ROLES_RES_IS_RUNNING;
    }
    if (r->cas && c->epoch != vm->epoch) {
        return ROLES_RES_WRONG_EPOCH;
    }
    if (r->by != BY_ANYONE) {
        bool primary = (r->by & BY_PRIMARY) != 0 && c->incarnation == vm->primary.incarnation;
        bool backup = (r->by & BY_BACKUP) != 0 && vm->backup.node != 0 &&
                      c->incarnation == vm->backup.incarnation;
        if (!primary && !backup) {
            return ROLES_RES_NOT_YOURS;
        }
    }
    if (r->backup && vm->backup.node == 0) {
        return ROLES_RES_NO_BACKUP;
    }
    if (r->in_sync && !vm->in_sync) {
        return ROLES_RES_NOT_IN_SYNC;
    }
    return ROLES_RES_DONE;
}

static bool replica_ok(const struct role_replica *r)
{
    return r->node != 0 && r->incarnation != 0 && r->endpoint[0] != '\0' &&
           memchr(r->endpoint, '\0', sizeof r->endpoint) != NULL;
}

static bool cmd_ok(const struct roles_cmd *c)
{
    if (c->op <= ROLES_OP_NONE || c->op >= ROLES_OP_END || c->request == 0) {
        return false;
    }
    switch (c->op) {
    case ROLES_DEFINE:
        return c->name != NULL && c->xml != NULL && c->name[0] != '\0' &&
               strlen(c->name) < ROLES_NAME_MAX && strlen(c->xml) < ROLES_XML_MAX;
    case ROLES_START:
        return replica_ok(&c->primary) &&
               (c->backup.node == 0 ||
                (replica_ok(&c->backup) && c->backup.node != c->primary.node &&
                 c->backup.incarnation != c->primary.incarnation));
    case ROLES_STOP:
        return c->incarnation != 0 && (unsigned)c->stop < ROLES_STOP_END;
    case ROLES_READY:
    case ROLES_DROP_BACKUP:
    case ROLES_TAKEOVER:
    case ROLES_RESUME:
    case ROLES_LOST:
        return c->incarnation != 0;
    default:
        return true;
    }
}

static enum roles_result define(struct roles_state *s, const struct roles_cmd *c)
{
    const struct roles_vm *named = roles_find_name(s, c->name);
    struct roles_vm *vm = find(s, c->uuid);
    char *xml;

    if (named != NULL && named != vm) {
        return ROLES_RES_NAME_TAKEN;
    }
    if (vm != NULL && vm->phase != ROLES_STOPPED) {
        return ROLES_RES_IS_RUNNING;
    }
    if (vm == NULL && s->n == ROLES_VMS_MAX) {
        return ROLES_RES_TOO_MANY;
    }
    xml = plx_strdup(c->xml);
    PLX_CHECK(xml != NULL);
    if (vm == NULL) {
        unsigned i = lower_bound(s, c->uuid);
        struct roles_vm *vms = plx_realloc(s->vms, (s->n + 1) * sizeof *vms);
        PLX_CHECK(vms != NULL);
        s->vms = vms;
        vm = &vms[i];
        memmove(vm + 1, vm, (s->n - i) * sizeof *vm);
        s->n++;
        memset(vm, 0, sizeof *vm);
        memcpy(vm->uuid, c->uuid, ROLES_UUID_LEN);
    }
    plx_free(vm->xml);
    vm->xml = xml;
    memset(vm->name, 0, sizeof vm->name);
    memcpy(vm->name, c->name, strlen(c->name));
    vm->protect = c->protect;
    return ROLES_RES_DONE;
}

static enum roles_result undefine(struct roles_state *s, const struct roles_cmd *c)
{
    struct roles_vm *vm = find(s, c->uuid);

    if (vm == NULL) {
        return ROLES_RES_NO_VM;
    }
    if (vm->phase != ROLES_STOPPED) {
        return ROLES_RES_IS_RUNNING;
    }
    plx_free(vm->xml);
    s->n--;
    memmove(vm, vm + 1, (size_t)(&s->vms[s->n] - vm) * sizeof *vm);
    return ROLES_RES_DONE;
}

static enum roles_result apply(struct roles_state *s, const struct roles_cmd *c)
{
    if (!cmd_ok(c)) {
        return ROLES_RES_MALFORMED;
    }
    for (unsigned i = 0; i < ROLES_RECENT; i++) {
        if (s->recent[i] == c->request) {
            return ROLES_RES_DONE;
        }
    }
    if (c->op == ROLES_DEFINE) {
        return define(s, c);
    }
    if (c->op == ROLES_UNDEFINE) {
        return undefine(s, c);
    }
    struct roles_vm *vm = find(s, c->uuid);
    if (vm == NULL) {
        return ROLES_RES_NO_VM;
    }
    enum roles_result res = judge_rule(&rules[c->op], vm, c);
    return res == ROLES_RES_DONE ? rules[c->op].act(vm, c) : res;
}

enum roles_result roles_apply(struct roles_state *s, const struct roles_cmd *c,
                              const struct roles_vm **vm)
{
    enum roles_result res = apply(s, c);

    s->applied++;
    if (res == ROLES_RES_DONE) {
        s->recent[s->recent_next] = c->request;
        s->recent_next = (s->recent_next + 1) % ROLES_RECENT;
    }
    if (vm != NULL) {
        *vm = find(s, c->uuid);
    }
    return res;
}

enum roles_verdict roles_judge(const struct roles_vm *vm, uint64_t incarnation, uint64_t asked)
{
    bool primary, backup;

    if (vm == NULL) {
        return ROLES_OUT;
    }
    primary = vm->primary.node != 0 && vm->primary.incarnation == incarnation;
    backup = vm->backup.node != 0 && vm->backup.incarnation == incarnation;
    if (!primary && !backup) {
        return ROLES_OUT;
    }
    if (vm->epoch <= asked) {
        return ROLES_UNDECIDED;
    }
    return vm->backup.node == 0 ? ROLES_ALONE : ROLES_PAIR;
}
