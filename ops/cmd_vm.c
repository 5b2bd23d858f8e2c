/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_vm.c - the verbs that ask the daemon, after virsh: define, undefine, start, list, info,
 * protect, unprotect, destroy, dumpxml. One table gives each its request. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/io.h"
#include "consensus/roles.h"
#include "ops/api_client.h"
#include "ops/cmd.h"
#include "ops/json.h"
#include "ops/opt.h"
#include "ops/shadow_opt.h"

enum { EVENTS_SHOWN = 20 };

struct args {
    const char *socket, *primary, *backup;
    bool json, old_disks;
    const char *object; /* the VM, or the file */
    struct wbuf xml;
};

static int set_socket(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)err;
    a->socket = v[0];
    return 0;
}

static int set_json(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)v;
    (void)err;
    a->json = true;
    return 0;
}

static int set_primary(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)err;
    a->primary = v[0];
    return 0;
}

static int set_backup(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)err;
    a->backup = v[0];
    return 0;
}

static int set_old_disks(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)v;
    (void)err;
    a->old_disks = true;
    return 0;
}

#define OPT_COMMON                                                          \
    {"socket", "PATH", "the daemon's socket ($POLLUX_SOCKET)", set_socket}, \
    {                                                                       \
        "json", NULL, "print JSON", set_json                                \
    }

static const struct opt common_options[] = {OPT_COMMON, {NULL, NULL, NULL, NULL}};
static const struct opt start_options[] = {
    OPT_COMMON,
    {"primary", "NODE", "run the primary there", set_primary},
    {"backup", "NODE", "run the backup there", set_backup},
    {"old-disks", NULL, "also on a node whose disks are not the newest", set_old_disks},
    {NULL, NULL, NULL, NULL}};

/* --- printing ------------------------------------------------------------------------------ */

static void json_stats(struct json *j, const char *key, const Ctl__Stats *s)
{
    if (s == NULL) {
        return;
    }
    json_object(j, key);
    json_u64(j, "slice", s->slice);
    json_u64(j, "virtual_ns", s->virtual_ns);
    json_u64(j, "instructions", s->instructions);
    json_u64(j, "cpu_ns", s->cpu_ns);
    json_u64(j, "digest_ns", s->digest_ns);
    json_u64(j, "log_bytes", s->log_bytes);
    json_u64(j, "outputs_released", s->outputs_released);
    json_u64(j, "outputs_withheld", s->outputs_withheld);
    json_u64(j, "lag_ns", s->lag_ns);
    json_u64(j, "commit_delay_ns", s->commit_delay_ns);
    json_u64(j, "digests_compared", s->digests_compared);
    json_u64(j, "digests_differing", s->digests_differing);
    json_u64(j, "net_tx_frames", s->net_tx_frames);
    json_u64(j, "net_rx_frames", s->net_rx_frames);
    json_u64(j, "disk_read_bytes", s->disk_read_bytes);
    json_u64(j, "disk_written_bytes", s->disk_written_bytes);
    json_u64(j, "stale_messages", s->stale_messages);
#define COUNTER(field, expr, help) json_u64(j, #field, s->field);
#include "ops/counters.def"
#undef COUNTER
    json_string(j, "jit_forms", s->jit_forms);
    json_close(j, '}');
}

static void json_vm_fields(struct json *j, const Api__Vm *vm)
{
    char hex[20];

    json_string(j, "name", vm->name);
    json_string(j, "uuid", vm->uuid);
    json_string(j, "state", vm->state);
    json_string(j, "protection", vm->protection);
    json_bool(j, "protect", vm->protect);
    json_u64(j, "epoch", vm->epoch);
    json_string(j, "primary", vm->primary);
    json_string(j, "backup", vm->backup);
    json_bool(j, "in_sync", vm->in_sync);
    json_string(j, "last_stop", vm->stop);
    json_u64(j, "last_stop_code", vm->stop_code);
    json_u64(j, "memory", vm->memory);
    json_u64(j, "vcpus", vm->vcpus);
    json_string(j, "cpu", vm->cpu);
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, (uint64_t)vm->primary_incarnation);
    json_string(j, "primary_incarnation", hex);
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, (uint64_t)vm->backup_incarnation);
    json_string(j, "backup_incarnation", hex);
    json_stats(j, "primary_stats", vm->primary_stats);
    json_stats(j, "backup_stats", vm->backup_stats);
}

static const char *wall_text(uint64_t ns, char out[40])
{
    time_t secs = (time_t)(ns / 1000000000);
    struct tm tm;

    (void)gmtime_r(&secs, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + n, 40 - n, ".%03uZ", (unsigned)(ns / 1000000 % 1000));
    return out;
}

static void json_events(struct json *j, const Api__Reply *r)
{
    char when[40];

    json_array(j, "events");
    for (size_t i = 0; i < r->n_events; i++) {
        json_object(j, NULL);
        json_string(j, "time", wall_text(r->events[i]->wall_ns, when));
        json_string(j, "node", r->events[i]->node);
        json_string(j, "vm", r->events[i]->vm);
        json_string(j, "kind", r->events[i]->kind);
        json_string(j, "text", r->events[i]->text);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void print_json(const Api__Reply *r, bool cluster)
{
    struct json j;

    json_begin(&j, stdout);
    if (cluster) {
        json_string(&j, "cluster", r->cluster);
        json_bool(&j, "majority", r->majority);
        json_u64(&j, "term", r->term);
        json_u64(&j, "applied", r->applied);
        json_array(&j, "nodes");
        for (size_t i = 0; i < r->n_nodes; i++) {
            const Api__Node *n = r->nodes[i];
            json_object(&j, NULL);
            json_string(&j, "name", n->name);
            json_u64(&j, "id", n->id);
            json_string(&j, "address", n->address);
            json_bool(&j, "up", n->up);
            json_bool(&j, "leader", n->leader);
            json_bool(&j, "self", n->self);
            json_u64(&j, "uptime_ms", n->uptime_ms);
            json_u64(&j, "replicas", n->replicas);
            json_close(&j, '}');
        }
        json_close(&j, ']');
    }
    json_array(&j, "vms");
    for (size_t i = 0; i < r->n_vms; i++) {
        json_object(&j, NULL);
        json_vm_fields(&j, r->vms[i]);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    if (cluster) {
        json_events(&j, r);
    }
    json_array(&j, "warnings");
    for (size_t i = 0; i < r->n_warnings; i++) {
        json_string(&j, NULL, r->warnings[i]);
    }
    json_close(&j, ']');
    json_end(&j);
}

static void print_list(const Api__Reply *r)
{
    (void)printf("%-20s %-9s %-12s %-12s %-12s %s\n", "NAME", "STATE", "PROTECTION", "PRIMARY",
                 "BACKUP", "EPOCH");
    for (size_t i = 0; i < r->n_vms; i++) {
        const Api__Vm *vm = r->vms[i];
        (void)printf("%-20s %-9s %-12s %-12s %-12s %" PRIu64 "\n", vm->name, vm->state,
                     vm->protection, vm->primary, vm->backup, (uint64_t)vm->epoch);
    }
}

static void print_replica(const char *role, const char *node, const Ctl__Stats *s)
{
    if (strcmp(node, "-") == 0) {
        return;
    }
    (void)printf("%-14s %s", role, node);
    if (s != NULL) {
        (void)printf(": slice %" PRIu64 ", %.3f s virtual, %" PRIu64 " instructions, %" PRIu64
                     " digests compared, %" PRIu64 " differ, lag %.1f ms",
                     s->slice, (double)s->virtual_ns / 1e9, s->instructions, s->digests_compared,
                     s->digests_differing, (double)s->lag_ns / 1e6);
    }
    (void)printf("\n");
}

/* What the engine counts of a VM with several vCPUs. */
static void print_counters(const Ctl__Stats *s)
{
    if (s == NULL) {
        return;
    }
    (void)printf("%-14s %" PRIu64 " alone, %" PRIu64 " parallel (%" PRIu64 " served), %" PRIu64
                 " in turns; %" PRIu64 " instructions in parallel, %" PRIu64 " serial\n",
                 "rounds", s->rounds_alone, s->rounds_parallel, s->rounds_served, s->rounds_shared,
                 s->instructions_parallel, s->instructions_serial);
    (void)printf("%-14s %" PRIu64 " by the clock, %" PRIu64 " halted, %" PRIu64 " blocked, %" PRIu64
                 " yielded, %" PRIu64 " used up\n",
                 "rounds ended", s->rounds_ended_clock, s->rounds_ended_halt,
                 s->rounds_ended_blocked, s->rounds_ended_yield, s->rounds_ended_budget);
    (void)printf("%-14s %" PRIu64 " to read, %" PRIu64 " to write, %" PRIu64
                 " for devices; %" PRIu64 " halted, %" PRIu64 " yielded\n",
                 "stops", s->stops_read, s->stops_write, s->stops_serial, s->stops_halt,
                 s->stops_yield);
    (void)printf("%-14s %" PRIu64 " to one vCPU, %" PRIu64 " to all, %" PRIu64
                 " written in place, %" PRIu64 " cooled\n",
                 "pages", s->pages_to_one, s->pages_to_all, s->pages_in_place, s->pages_cooled);
    const struct shadow_counters shadow = {
#define X(name, text) .name = s->shadow_##name,
        SHADOW_COUNTERS(X)
#undef X
    };
    shadow_print_counters(&shadow, stdout);
    (void)printf("%-14s %" PRIu64 " not translated, %" PRIu64
                 " translated but for what they met, %" PRIu64
                 " in cold blocks; not translated: %s\n",
                 "interpreted", s->jit_called, s->jit_missed, s->jit_interpreted, s->jit_forms);
}

static void print_events(const Api__Reply *r)
{
    char when[40];

    for (size_t i = 0; i < r->n_events; i++) {
        const Api__Event *e = r->events[r->n_events - 1 - i]; /* the oldest first */
        (void)printf("%s %s%s%s %s: %s\n", wall_text(e->wall_ns, when), e->node,
                     e->vm[0] != '\0' ? " " : "", e->vm, e->kind, e->text);
    }
}

static void print_info(const Api__Reply *r)
{
    const Api__Vm *vm = r->vms[0];

    (void)printf("%-14s %s\n%-14s %s\n%-14s %s\n%-14s %s\n%-14s %" PRIu64 "\n%-14s %" PRIu64
                 " MiB\n%-14s %u\n%-14s %s\n",
                 "name", vm->name, "uuid", vm->uuid, "state", vm->state, "protection",
                 vm->protection, "epoch", (uint64_t)vm->epoch, "memory", vm->memory >> 20, "vcpus",
                 vm->vcpus, "cpu", vm->cpu);
    print_replica("primary", vm->primary, vm->primary_stats);
    print_replica("backup", vm->backup, vm->backup_stats);
    print_counters(vm->primary_stats);
    (void)printf("%-14s %s\n", "last stop", vm->stop);
    if (!r->majority) {
        (void)printf("no majority of the nodes answers: this may be old\n");
    }
    print_events(r);
}

static void print_cluster(const Api__Reply *r)
{
    (void)printf("cluster %s, term %" PRIu64 ", %s\n\n%-16s %-5s %-7s %-9s %s\n", r->cluster,
                 (uint64_t)r->term, r->majority ? "has a majority" : "NO MAJORITY answers", "NODE",
                 "STATE", "LEADER", "REPLICAS", "ADDRESS");
    for (size_t i = 0; i < r->n_nodes; i++) {
        const Api__Node *n = r->nodes[i];
        (void)printf("%-16s %-5s %-7s %-9u %s%s\n", n->name, n->up ? "up" : "down",
                     n->leader ? "yes" : "", n->replicas, n->address, n->self ? " (this)" : "");
    }
    (void)printf("\n");
    print_list(r);
    if (r->n_events > 0) {
        (void)printf("\n");
        print_events(r);
    }
}

/* --- the verbs ----------------------------------------------------------------------------- */

struct request {
    Api__Request m;
    union {
        Api__Define define;
        Api__Undefine undefine;
        Api__Start start;
        Api__List list;
        Api__Info info;
        Api__Protect protect;
        Api__Unprotect unprotect;
        Api__Destroy destroy;
        Api__DumpXml dump_xml;
    } u;
};

static int read_xml(struct args *a, struct plx_err *err)
{
    if (strcmp(a->object, "-") == 0) {
        ssize_t n = 1;
        while (n > 0 && a->xml.len < ROLES_XML_MAX) {
            uint8_t *at = wbuf_grow(&a->xml, 4096);
            if (at == NULL) {
                return plx_fail(err, PLX_ENOMEM, "out of memory");
            }
            n = io_read_some(STDIN_FILENO, at, 4096);
            a->xml.len -= 4096 - (size_t)(n > 0 ? n : 0);
        }
    } else {
        int rc = io_read_file(a->object, ROLES_XML_MAX, &a->xml, err);
        if (rc != 0) {
            return rc;
        }
    }
    if (memchr(a->xml.data, '\0', a->xml.len) != NULL) {
        return plx_fail(err, PLX_EINVAL, "%s is not text", a->object);
    }
    wbuf_u8(&a->xml, 0);
    return 0;
}

#define VM_REQUEST(fn, type, field, CASE)                                 \
    static int fn(struct args *a, struct request *q, struct plx_err *err) \
    {                                                                     \
        (void)err;                                                        \
        api__##type##__init(&q->u.field);                                 \
        q->u.field.vm = (char *)(uintptr_t)a->object;                     \
        q->m.msg_case = API__REQUEST__MSG_##CASE;                         \
        q->m.field = &q->u.field;                                         \
        return 0;                                                         \
    }

VM_REQUEST(make_undefine, undefine, undefine, UNDEFINE)
VM_REQUEST(make_protect, protect, protect, PROTECT)
VM_REQUEST(make_unprotect, unprotect, unprotect, UNPROTECT)
VM_REQUEST(make_destroy, destroy, destroy, DESTROY)
VM_REQUEST(make_dumpxml, dump_xml, dump_xml, DUMP_XML)

static int make_define(struct args *a, struct request *q, struct plx_err *err)
{
    int rc = read_xml(a, err);

    api__define__init(&q->u.define);
    q->u.define.xml = (char *)a->xml.data;
    q->m.msg_case = API__REQUEST__MSG_DEFINE;
    q->m.define = &q->u.define;
    return rc;
}

static int make_start(struct args *a, struct request *q, struct plx_err *err)
{
    (void)err;
    api__start__init(&q->u.start);
    q->u.start.vm = (char *)(uintptr_t)a->object;
    if (a->primary != NULL) {
        q->u.start.primary = (char *)(uintptr_t)a->primary;
    }
    if (a->backup != NULL) {
        q->u.start.backup = (char *)(uintptr_t)a->backup;
    }
    q->u.start.old_disks = a->old_disks;
    q->m.msg_case = API__REQUEST__MSG_START;
    q->m.start = &q->u.start;
    return 0;
}

static int make_list(struct args *a, struct request *q, struct plx_err *err)
{
    (void)a;
    (void)err;
    api__list__init(&q->u.list);
    q->m.msg_case = API__REQUEST__MSG_LIST;
    q->m.list = &q->u.list;
    return 0;
}

static int make_info(struct args *a, struct request *q, struct plx_err *err)
{
    (void)err;
    api__info__init(&q->u.info);
    if (a->object != NULL) {
        q->u.info.vm = (char *)(uintptr_t)a->object;
    }
    q->u.info.events = EVENTS_SHOWN;
    q->m.msg_case = API__REQUEST__MSG_INFO;
    q->m.info = &q->u.info;
    return 0;
}

static const struct verb {
    struct opt_command opt;
    const char *done; /* printed with the VM's name; NULL: the verb prints itself */
    int (*make)(struct args *a, struct request *q, struct plx_err *err);
} verbs[] = {
    {{"pollux define", "FILE", "define a VM by its domain XML (- reads standard input)",
      common_options, 1, 1},
     "defined",
     make_define},
    {{"pollux undefine", "VM", "forget a stopped VM", common_options, 1, 1},
     "undefined",
     make_undefine},
    {{"pollux start", "VM", "start a VM, as a pair if it is protected", start_options, 1, 1},
     "started",
     make_start},
    {{"pollux list", "", "the VMs of the cluster", common_options, 0, 0}, NULL, make_list},
    {{"pollux info", "[VM]", "one VM, or the cluster, with the latest events", common_options, 0,
      1},
     NULL,
     make_info},
    {{"pollux protect", "VM", "run it on two nodes from its next start on", common_options, 1, 1},
     "will be protected",
     make_protect},
    {{"pollux unprotect", "VM", "run it on one node only; a running pair loses its backup",
      common_options, 1, 1},
     "is not protected",
     make_unprotect},
    {{"pollux destroy", "VM", "stop a VM at once", common_options, 1, 1},
     "destroyed",
     make_destroy},
    {{"pollux dumpxml", "VM", "print a VM's definition", common_options, 1, 1}, NULL, make_dumpxml},
};

static void print_reply(const struct verb *v, const struct args *a, const Api__Reply *r)
{
    if (v->make == make_dumpxml) {
        (void)fputs(r->xml, stdout);
    } else if (a->json) {
        print_json(r, v->make == make_info);
    } else if (v->make == make_list) {
        print_list(r);
    } else if (v->make == make_info && a->object == NULL) {
        print_cluster(r);
    } else if (v->make == make_info) {
        print_info(r);
    } else {
        const Api__Vm *vm = r->n_vms > 0 ? r->vms[0] : NULL;
        (void)printf("%s %s", vm != NULL ? vm->name : a->object, v->done);
        if (v->make == make_start && vm != NULL) {
            (void)printf(": primary on %s", vm->primary);
            if (strcmp(vm->backup, "-") != 0) {
                (void)printf(", backup on %s", vm->backup);
            }
        }
        (void)printf("\n");
    }
    for (size_t i = 0; i < r->n_warnings; i++) {
        (void)fprintf(stderr, "warning: %s\n", r->warnings[i]);
    }
}

int cmd_vm(int argc, char **argv)
{
    const struct verb *v = NULL;
    struct args a = {0};
    struct request q;
    struct plx_err err = {""};
    Api__Reply *r = NULL;
    int first, fd = -1;

    for (size_t i = 0; i < PLX_COUNT(verbs); i++) {
        if (strcmp(verbs[i].opt.name + strlen("pollux "), argv[0]) == 0) {
            v = &verbs[i];
        }
    }
    PLX_CHECK(v != NULL);
    int rc = opt_parse(&v->opt, &a, argc, argv, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    api__request__init(&q.m);
    if (rc == 0) {
        a.object = first < argc ? argv[first] : NULL;
        rc = v->make(&a, &q, &err);
    }
    if (rc == 0) {
        fd = api_connect(a.socket, &err);
        rc = fd < 0 ? fd : 0;
    }
    if (rc == 0) {
        rc = api_send(fd, &q.m, &err);
    }
    if (rc == 0) {
        rc = api_receive(fd, &r, &err);
    }
    if (rc == 0 && v->make == make_info && a.object != NULL && r->n_vms == 0) {
        rc = plx_fail(&err, PLX_ECORRUPT, "polluxd's answer is not about %s", a.object);
    }
    if (rc == 0) {
        print_reply(v, &a, r);
    } else {
        (void)fprintf(stderr, "%s: %s\n", v->opt.name, err.msg);
    }
    if (r != NULL) {
        api__reply__free_unpacked(r, NULL);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    wbuf_free(&a.xml);
    return rc == 0 ? EXIT_OK : EXIT_ERROR;
}
