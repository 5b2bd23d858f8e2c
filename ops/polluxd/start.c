/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/start.c - starting a VM: every node that is up prepares; the files of those that can
 * run it are compared; the record names primary and backup; then the answer waits for the primary.
 *
 * The primary is the node asked for, else the definition's, else this node, else any that can. The
 * backup likewise among the others. A difference in a file refuses the start and names the file. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "ops/polluxd/daemon.h"

enum { PREPARE_S = 60, READY_S = 60 };

enum answer_state { NOT_ASKED, ASKED, CAN, CANNOT };

struct candidate {
    uint32_t node;
    enum answer_state state;
    char error[PLX_ERR_MSG_MAX];
    struct role_replica replica;
    struct file_hash files[PREPARE_FILES_MAX];
    unsigned nfiles;
};

struct start {
    struct start *next;
    struct daemon *d;
    uint64_t call; /* random; names it on the wire */
    uint8_t uuid[ROLES_UUID_LEN];
    char name[ROLES_NAME_MAX];
    char primary[CONF_NAME_MAX], backup[CONF_NAME_MAX]; /* wishes */
    bool must_primary, must_backup; /* asked for by the operator: no other will do */
    bool protect, old_disks;
    uint32_t newest[2]; /* nodes with the newest disks; 0: any is as good */
    uint64_t epoch;     /* of the record before the start */
    struct candidate nodes[CONF_NODES_MAX];
    unsigned nnodes;
    bool proposed, applied;
    uint64_t deadline_ns;
    start_cb cb;
    void *ctx; /* NULL: nobody waits any more */
};

static void end(struct start *s, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void end(struct start *s, int rc, const char *fmt, ...)
{
    char text[PLX_ERR_MSG_MAX * 2];
    struct daemon *d = s->d;
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (struct start **at = &d->starts; *at != NULL; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    if (s->ctx != NULL) {
        s->cb(s->ctx, rc, text);
    }
    plx_free(s);
}

static const char *node_name(const struct start *s, uint32_t id)
{
    return conf_node_name(s->d->conf, id);
}

/* --- choosing ------------------------------------------------------------------------------ */

/* The first file that differs, or NULL. Both prepared the same definition: same files, same order.
 */
static const struct file_hash *difference(const struct candidate *a, const struct candidate *b)
{
    for (unsigned i = 0; i < a->nfiles || i < b->nfiles; i++) {
        if (i >= a->nfiles) {
            return &b->files[i];
        }
        if (i >= b->nfiles || strcmp(a->files[i].label, b->files[i].label) != 0 ||
            a->files[i].absent != b->files[i].absent ||
            memcmp(a->files[i].sha, b->files[i].sha, SHA256_LEN) != 0) {
            return &a->files[i];
        }
    }
    return NULL;
}

static bool has_newest(const struct start *s, uint32_t node)
{
    return s->newest[0] == 0 || s->newest[0] == node || s->newest[1] == node;
}

static bool equals_newest(const struct start *s, const struct candidate *c)
{
    for (unsigned i = 0; i < s->nnodes; i++) {
        const struct candidate *n = &s->nodes[i];
        if (n->state == CAN && has_newest(s, n->node) && difference(n, c) == NULL) {
            return true; /* they were copied */
        }
    }
    return false;
}

/* A node that can, but whose disks were left behind when the VM ran elsewhere, cannot. */
static void rule_out_old_disks(struct start *s)
{
    for (unsigned i = 0; i < s->nnodes; i++) {
        struct candidate *c = &s->nodes[i];
        if (c->state == CAN && !has_newest(s, c->node) && !s->old_disks && !equals_newest(s, c)) {
            c->state = CANNOT;
            (void)snprintf(c->error, sizeof c->error,
                           "its disks are older than those of %s, where the VM ran last (copy "
                           "state_dir/overlay from there, or start with --old-disks)",
                           node_name(s, s->newest[0]));
        }
    }
}

static struct candidate *named(struct start *s, const char *name)
{
    for (unsigned i = 0; i < s->nnodes; i++) {
        if (strcmp(node_name(s, s->nodes[i].node), name) == 0) {
            return &s->nodes[i];
        }
    }
    return NULL;
}

/* For one role; @not_this has, or must have, the other. */
static struct candidate *choose(struct start *s, const char *wish, bool must,
                                const struct candidate *not_this)
{
    struct candidate *any = NULL;

    for (unsigned i = 0; i < s->nnodes; i++) {
        struct candidate *c = &s->nodes[i];
        if (c == not_this) {
            continue;
        }
        if (wish[0] != '\0' && strcmp(node_name(s, c->node), wish) == 0) {
            if (c->state == CAN || must) {
                return c;
            }
        }
        /* Not the leader, if another will do: its death would also cost an election. */
        if (c->state == CAN && (any == NULL || any->node == cluster_leader(s->d->cluster))) {
            any = c;
        }
    }
    return must ? NULL : any;
}

static const char *reasons(const struct start *s, char *out, size_t cap)
{
    size_t at = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < s->nnodes; i++) {
        const struct candidate *c = &s->nodes[i];
        const char *why = c->state == CANNOT      ? c->error
                          : c->state == NOT_ASKED ? "the node is down"
                          : c->state == ASKED     ? "the node did not answer"
                                                  : NULL;
        if (why != NULL && at < cap) {
            int n = snprintf(out + at, cap - at, "%s%s: %s", at > 0 ? "; " : "",
                             node_name(s, c->node), why);
            at += n > 0 ? (size_t)n : 0;
        }
    }
    return out;
}

/* --- the way of one start ------------------------------------------------------------------ */

struct start_ref { /* for answers that may come after the start has ended */
    struct daemon *d;
    uint64_t call;
};

static struct start_ref *make_ref(const struct start *s) /* NULL: out of memory */
{
    struct start_ref *r = plx_calloc(1, sizeof *r);

    if (r != NULL) {
        *r = (struct start_ref){.d = s->d, .call = s->call};
    }
    return r;
}

static struct start *follow_ref(struct start_ref *r)
{
    struct start *s = r->d->starts;

    while (s != NULL && s->call != r->call) {
        s = s->next;
    }
    plx_free(r);
    return s;
}

static void on_proposed(void *ctx, int rc, enum roles_result result)
{
    struct start *s = follow_ref(ctx);

    if (s == NULL) {
        return;
    }
    if (rc == PLX_ENOMEM) {
        end(s, rc, "cannot start %s: the daemon is out of memory", s->name);
    } else if (rc != 0) {
        end(s, rc,
            "no majority of the nodes answered: whether %s was started is not known; see "
            "pollux info %s",
            s->name, s->name);
    } else if (result != ROLES_RES_DONE) {
        end(s, PLX_ESTATE, "cannot start %s: %s", s->name, roles_result_text(result));
    } else {
        s->applied = true;
        const struct roles_vm *vm = daemon_vm(s->d, s->uuid);
        if (vm != NULL) {
            start_record(s->d, vm);
        }
    }
}

static void decide(struct start *s)
{
    char why[PLX_ERR_MSG_MAX];
    struct candidate *b = NULL;
    const struct file_hash *diff;

    rule_out_old_disks(s);
    struct candidate *p =
        choose(s, s->primary, s->must_primary, s->must_backup ? named(s, s->backup) : NULL);

    if (p == NULL || p->state != CAN) {
        end(s, PLX_ESTATE, "cannot start %s on %s: %s", s->name,
            s->must_primary ? s->primary : "any node", reasons(s, why, sizeof why));
        return;
    }
    if (s->protect) {
        b = choose(s, s->backup, s->must_backup, p);
        if (b == NULL || b->state != CAN) {
            end(s, PLX_ESTATE,
                "cannot start %s protected: only %s can run it (%s); unprotect it to start it there "
                "alone",
                s->name, node_name(s, p->node),
                s->nnodes > 1 ? reasons(s, why, sizeof why) : "the cluster has no other node");
            return;
        }
        diff = difference(p, b);
        if (diff != NULL) {
            end(s, PLX_ESTATE,
                "cannot start %s protected: %s differs between the nodes %s and %s; copy it from "
                "one to the other",
                s->name, diff->label, node_name(s, p->node), node_name(s, b->node));
            return;
        }
    }
    if (!has_newest(s, p->node) && !equals_newest(s, p)) {
        event_raise(s->d, s->uuid, "old-disks",
                    "started on %s by the operator's wish, although the "
                    "disks of %s are newer",
                    node_name(s, p->node), node_name(s, s->newest[0]));
    }
    struct roles_cmd cmd = {
        .op = ROLES_START, .request = daemon_random(), .epoch = s->epoch, .primary = p->replica};
    memcpy(cmd.uuid, s->uuid, sizeof cmd.uuid);
    if (b != NULL) {
        cmd.backup = b->replica;
    }
    struct start_ref *ref = make_ref(s);
    if (ref == NULL) {
        end(s, PLX_ENOMEM, "cannot start %s: the daemon is out of memory", s->name);
        return;
    }
    s->proposed = true;
    s->deadline_ns = clock_mono_ns() + (uint64_t)READY_S * 1000000000;
    cluster_propose(s->d->cluster, &cmd, COMMAND_MS, on_proposed, ref);
}

static void maybe_decide(struct start *s)
{
    for (unsigned i = 0; i < s->nnodes; i++) {
        if (s->nodes[i].state == ASKED) {
            return;
        }
    }
    if (!s->proposed && !s->d->stopping) {
        decide(s);
    }
}

static void take_answer(struct candidate *c, const struct prepared *p)
{
    c->state = p->ok ? CAN : CANNOT;
    memcpy(c->error, p->error, sizeof c->error);
    c->replica = p->replica;
    c->nfiles = p->nfiles;
    memcpy(c->files, p->files, sizeof c->files);
}

static void on_prepared_here(void *ctx, const struct prepared *p)
{
    struct start *s = follow_ref(ctx);

    for (unsigned i = 0; s != NULL && i < s->nnodes; i++) {
        if (s->nodes[i].node == s->d->conf->self) {
            take_answer(&s->nodes[i], p);
            maybe_decide(s);
            return;
        }
    }
}

static const char *not_prepared(int rc)
{
    return rc == PLX_EBUSY ? "too many other starts are being prepared there: try again later"
                           : "the node's daemon is out of memory";
}

/* Every node that is up prepares, this one among them. */
static void ask_nodes(struct start *s, const char *xml, struct start_ref *ref)
{
    struct daemon *d = s->d;
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Prepare p = CL__PREPARE__INIT;

    p.call = s->call;
    p.vm = (ProtobufCBinaryData){.len = sizeof s->uuid, .data = s->uuid};
    p.xml = (char *)(uintptr_t)xml;
    m.msg_case = CL__NODE_MESSAGE__MSG_PREPARE;
    m.prepare = &p;
    for (unsigned i = 0; i < s->nnodes; i++) {
        struct candidate *c = &s->nodes[i];
        if (c->node == d->conf->self) {
            int rc = prepare_here(d, c->node, s->uuid, xml, on_prepared_here, ref);
            if (rc != 0) {
                plx_free(ref);
                c->state = CANNOT;
                (void)snprintf(c->error, sizeof c->error, "%s", not_prepared(rc));
            }
        } else if (c->state == ASKED && cluster_send(d->cluster, c->node, &m)) {
            c->state = NOT_ASKED;
        }
    }
}

void start_vm(struct daemon *d, const struct roles_vm *vm, const char *primary, const char *backup,
              bool old_disks, start_cb cb, void *ctx)
{
    struct plx_err err = {""};
    struct domain dom;

    if (vm->phase != ROLES_STOPPED) {
        cb(ctx, PLX_ESTATE, "the VM is running");
        return;
    }
    if (backup[0] != '\0' && !vm->protect) {
        cb(ctx, PLX_EINVAL, "it is not protected, so it has no backup: see pollux protect");
        return;
    }
    if (backup[0] != '\0' && strcmp(primary, backup) == 0) {
        cb(ctx, PLX_EINVAL, "the backup must run on another node than the primary");
        return;
    }
    if (domain_parse(vm->xml, strlen(vm->xml), &dom, &err) != 0) {
        cb(ctx, PLX_EINVAL, err.msg);
        return;
    }
    struct start *s = plx_calloc(1, sizeof *s);
    struct start_ref *ref = plx_calloc(1, sizeof *ref);
    if (s == NULL || ref == NULL) {
        plx_free(s);
        plx_free(ref);
        cb(ctx, PLX_ENOMEM, "the daemon is out of memory");
        return;
    }
    *s = (struct start){.next = d->starts,
                        .d = d,
                        .call = daemon_random(),
                        .epoch = vm->epoch,
                        .protect = vm->protect,
                        .must_primary = primary[0] != '\0',
                        .must_backup = backup[0] != '\0',
                        .cb = cb,
                        .ctx = ctx};
    *ref = (struct start_ref){.d = d, .call = s->call};
    d->starts = s;
    for (unsigned i = 0; i < dom.ndisks; i++) {
        if (!dom.disks[i].readonly) {
            memcpy(s->newest, vm->newest, sizeof s->newest);
            s->old_disks = old_disks;
        }
    }
    memcpy(s->uuid, vm->uuid, sizeof s->uuid);
    memcpy(s->name, vm->name, sizeof s->name);
    (void)snprintf(s->primary, sizeof s->primary, "%s",
                   primary[0] != '\0'       ? primary
                   : dom.primary[0] != '\0' ? dom.primary
                                            : d->conf->name);
    (void)snprintf(s->backup, sizeof s->backup, "%s", backup[0] != '\0' ? backup : dom.backup);
    s->deadline_ns = clock_mono_ns() + (uint64_t)PREPARE_S * 1000000000;
    for (unsigned i = 0; i < d->conf->nmembers; i++) {
        s->nodes[s->nnodes].node = d->conf->members[i].id;
        s->nodes[s->nnodes++].state =
            cluster_node_up(d->cluster, d->conf->members[i].id) ? ASKED : NOT_ASKED;
    }
    ask_nodes(s, vm->xml, ref);
    maybe_decide(s);
}

void start_forget(struct daemon *d, void *ctx)
{
    for (struct start *s = d->starts; s != NULL; s = s->next) {
        if (s->ctx == ctx) {
            s->ctx = NULL;
        }
    }
}

/* --- the other nodes' part ----------------------------------------------------------------- */

struct asked {
    struct daemon *d;
    uint32_t from;
    uint64_t call;
};

static void refuse(struct daemon *d, uint32_t to, uint64_t call, const char *why)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Prepared r = CL__PREPARED__INIT;

    r.call = call;
    r.error = (char *)(uintptr_t)why;
    m.msg_case = CL__NODE_MESSAGE__MSG_PREPARED;
    m.prepared = &r;
    daemon_send(d, to, &m);
}

static void on_prepared_for(void *ctx, const struct prepared *p)
{
    struct asked *a = ctx;
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__Prepared r = CL__PREPARED__INIT;
    Ctl__Replica replica = CTL__REPLICA__INIT;
    Cl__FileHash files[PREPARE_FILES_MAX], *list[PREPARE_FILES_MAX];

    r.call = a->call;
    r.ok = p->ok;
    r.error = (char *)(uintptr_t)p->error;
    if (p->ok) {
        replica.node = p->replica.node;
        replica.incarnation = p->replica.incarnation;
        replica.key = (ProtobufCBinaryData){.len = ROLES_KEY_LEN,
                                            .data = (uint8_t *)(uintptr_t)p->replica.key};
        replica.endpoint = (char *)(uintptr_t)p->replica.endpoint;
        r.replica = &replica;
        for (unsigned i = 0; i < p->nfiles; i++) {
            cl__file_hash__init(&files[i]);
            files[i].path = (char *)(uintptr_t)p->files[i].label;
            files[i].sha256 = (ProtobufCBinaryData){.len = SHA256_LEN,
                                                    .data = (uint8_t *)(uintptr_t)p->files[i].sha};
            files[i].bytes = p->files[i].bytes;
            files[i].absent = p->files[i].absent;
            list[i] = &files[i];
        }
        r.files = list;
        r.n_files = p->nfiles;
    }
    m.msg_case = CL__NODE_MESSAGE__MSG_PREPARED;
    m.prepared = &r;
    daemon_send(a->d, a->from, &m);
    plx_free(a);
}

/* What a peer says is checked as a whole. */
static bool read_prepared(const Cl__Prepared *w, uint32_t from, struct candidate *c)
{
    c->state = CANNOT;
    (void)snprintf(c->error, sizeof c->error, "%s", w->error);
    if (!w->ok) {
        return true;
    }
    if (w->replica == NULL || w->replica->node != from || w->replica->incarnation == 0 ||
        w->replica->key.len != ROLES_KEY_LEN || w->replica->endpoint[0] == '\0' ||
        strlen(w->replica->endpoint) >= ROLES_ENDPOINT_MAX || w->n_files > PREPARE_FILES_MAX) {
        return false;
    }
    c->replica = (struct role_replica){.node = from, .incarnation = w->replica->incarnation};
    memcpy(c->replica.key, w->replica->key.data, ROLES_KEY_LEN);
    (void)strcpy(c->replica.endpoint, w->replica->endpoint);
    c->nfiles = (unsigned)w->n_files;
    for (unsigned i = 0; i < c->nfiles; i++) {
        const Cl__FileHash *f = w->files[i];
        if (f->sha256.len != SHA256_LEN || strlen(f->path) >= FILE_LABEL_MAX) {
            return false;
        }
        (void)strcpy(c->files[i].label, f->path);
        memcpy(c->files[i].sha, f->sha256.data, SHA256_LEN);
        c->files[i].bytes = f->bytes;
        c->files[i].absent = f->absent;
    }
    c->state = CAN;
    return true;
}

static void on_answer(struct daemon *d, uint32_t from, const Cl__Prepared *w)
{
    for (struct start *s = d->starts; s != NULL; s = s->next) {
        for (unsigned i = 0; s->call == w->call && i < s->nnodes; i++) {
            struct candidate *c = &s->nodes[i];
            if (c->node != from || c->state != ASKED) {
                continue;
            }
            if (!read_prepared(w, from, c)) {
                c->state = CANNOT;
                (void)snprintf(c->error, sizeof c->error, "its answer was malformed");
            }
            maybe_decide(s);
            return;
        }
    }
}

void start_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg)
{
    if (msg->msg_case == CL__NODE_MESSAGE__MSG_PREPARED) {
        on_answer(d, from, msg->prepared);
        return;
    }
    const Cl__Prepare *q = msg->prepare;
    if (q->vm.len != ROLES_UUID_LEN || strlen(q->xml) >= ROLES_XML_MAX) {
        return;
    }
    struct asked *a = plx_calloc(1, sizeof *a);
    int rc = PLX_ENOMEM;
    if (a != NULL) {
        *a = (struct asked){.d = d, .from = from, .call = q->call};
        rc = prepare_here(d, from, q->vm.data, q->xml, on_prepared_for, a);
    }
    if (rc != 0) {
        plx_free(a);
        refuse(d, from, q->call, not_prepared(rc));
    }
}

/* --- the outcome --------------------------------------------------------------------------- */

static const char *last_words(struct daemon *d, const uint8_t *vm)
{
    for (unsigned i = 0; event_at(d, i) != NULL; i++) {
        const struct event *e = event_at(d, i);
        if (e->of_vm && memcmp(e->vm, vm, ROLES_UUID_LEN) == 0 && strcmp(e->kind, "failed") == 0) {
            return e->text;
        }
    }
    return "its events (pollux info) say more";
}

void start_record(struct daemon *d, const struct roles_vm *vm)
{
    for (struct start *s = d->starts; s != NULL; s = s->next) {
        if (!s->applied || memcmp(s->uuid, vm->uuid, ROLES_UUID_LEN) != 0) {
            continue;
        }
        bool ran = vm->stop >= ROLES_STOP_POWER_OFF && vm->stop <= ROLES_STOP_TRIPLE_FAULT;
        if (vm->phase == ROLES_RUNNING || (vm->phase == ROLES_STOPPED && ran)) {
            end(s, 0, "%s", "");
            return;
        }
        if (vm->phase == ROLES_STOPPED) {
            end(s, PLX_ESTATE, "%s did not start (%s): %s", s->name, roles_stop_name(vm->stop),
                last_words(d, vm->uuid));
            return;
        }
    }
}

void start_tick(struct daemon *d)
{
    uint64_t now = clock_mono_ns();

    for (struct start *s = d->starts, *next; s != NULL; s = next) {
        next = s->next;
        if (now < s->deadline_ns) {
            continue;
        }
        if (s->applied) {
            end(s, PLX_ETIMEDOUT, "%s was assigned, but did not begin to run within %d s", s->name,
                READY_S);
        } else if (!s->proposed) {
            decide(s); /* without those that did not answer */
        }
    }
}
