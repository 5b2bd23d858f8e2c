/* SPDX-License-Identifier: Apache-2.0
 * replica/trace.c - see trace.h. */
#include "replica/trace.h"

#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/hash.h"
#include "vmm/mmu/walk.h"
#include "vmm/sched/cpu_section.h"

enum { CODE_BYTES = 15, FIRST_ENTRIES = 4096, LISTED_MAX = 64 /* instructions */ };

/* The state of a vCPU after an instruction: what is shown, and hashes of the rest. */
struct entry {
    uint64_t rip, rflags, gpr[16], progress, retired;
    uint64_t fpu, system; /* hashes */
    uint64_t linear;      /* of rip */
    uint64_t now;         /* virtual time */
    bool is64, is32;
};

struct list {
    struct entry *e; /* the last, e[n], is that at the end of the slice */
    size_t n, cap;
    bool failed;             /* out of memory: what follows is missing */
    struct wbuf fpu, system; /* scratch */
};

struct trace {
    struct vm *vm;
    unsigned vcpus;
    struct list list[VCPUS_MAX];
};

/* Every field of the section "cpuN" that is not shown, in two hashes. */
static void hash_rest(struct list *l, const struct cpu *c, struct entry *e)
{
    static const char *const shown[] = {"gpr", "rip", "rflags", "progress", "retired"};

    wbuf_clear(&l->fpu);
    wbuf_clear(&l->system);
    for (unsigned i = 0; i < cpu_nfields(CPU_POLLUX_V3); i++) {
        const struct cpu_field *f = &cpu_fields[i];
        bool skip = false;
        for (unsigned k = 0; k < PLX_COUNT(shown); k++) {
            skip = skip || strcmp(f->name, shown[k]) == 0;
        }
        if (!skip) {
            cpu_field_save(f, c, strncmp(f->name, "fpu.", 4) == 0 ? &l->fpu : &l->system);
        }
    }
    l->failed = l->failed || l->fpu.failed || l->system.failed;
    e->fpu = hash128(l->fpu.data, l->fpu.len, 0).lo;
    e->system = hash128(l->system.data, l->system.len, 0).lo;
}

static void note(void *ctx, const struct vcpu *v)
{
    struct list *l = ctx;
    const struct cpu *c = &v->c;
    struct entry *e;

    if (l->n == l->cap && !l->failed) {
        size_t cap = l->cap == 0 ? FIRST_ENTRIES : l->cap * 2;
        struct entry *grown = plx_realloc(l->e, cap * sizeof *grown);
        l->failed = grown == NULL;
        l->e = grown != NULL ? grown : l->e;
        l->cap = grown != NULL ? cap : l->cap;
    }
    if (l->failed) {
        return;
    }
    e = &l->e[l->n++];
    *e = (struct entry){.rip = c->rip,
                        .rflags = c->rflags,
                        .progress = c->progress,
                        .retired = c->retired,
                        .now = vcpu_now(v),
                        .is64 = cpu_is64(c),
                        .is32 = (c->seg[SEG_CS].attr & SEG_DB) != 0};
    e->linear = e->is64 ? c->rip : (uint32_t)(c->seg[SEG_CS].base + c->rip);
    memcpy(e->gpr, c->gpr, sizeof e->gpr);
    hash_rest(l, c, e);
}

int trace_begin(struct vm *vm, struct trace **out, struct plx_err *err)
{
    struct trace *t = plx_calloc(1, sizeof *t);

    *out = t;
    if (t == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for a trace");
    }
    t->vm = vm;
    t->vcpus = vm_machine(vm)->cfg.vcpus;
    for (unsigned i = 0; i < t->vcpus; i++) {
        struct vcpu *v = vm_vcpu(vm, i);
        wbuf_init(&t->list[i].fpu);
        wbuf_init(&t->list[i].system);
        note(&t->list[i], v);
        if (!t->list[i].failed) {
            t->list[i].e[0].now = vm_now(vm); /* the vCPU's own clock stands since it ran last */
        }
        v->trace_ctx = &t->list[i];
        v->trace = note;
    }
    return 0;
}

void trace_end(struct trace *t)
{
    for (unsigned i = 0; i < t->vcpus; i++) {
        struct list *l = &t->list[i];
        vm_vcpu(t->vm, i)->trace = NULL;
        note(l, vm_vcpu(t->vm, i));
        if (!l->failed) {
            l->n--;
            l->e[l->n].now = vm_now(t->vm);
        }
    }
}

void trace_free(struct trace *t)
{
    if (t != NULL) {
        for (unsigned i = 0; i < t->vcpus; i++) {
            plx_free(t->list[i].e);
            wbuf_free(&t->list[i].fpu);
            wbuf_free(&t->list[i].system);
        }
        plx_free(t);
    }
}

static bool same(const struct entry *a, const struct entry *b)
{
    return a->rip == b->rip && a->rflags == b->rflags && a->progress == b->progress &&
           a->retired == b->retired && a->fpu == b->fpu && a->system == b->system &&
           memcmp(a->gpr, b->gpr, sizeof a->gpr) == 0;
}

/* Of one vCPU, which may have been stepped on one side and have run in larger pieces on the other:
 * states are comparable where the progress is the same. False: none differs. */
static bool first_difference(const struct list *a, const struct list *b, struct trace_difference *d)
{
    size_t i = 0, k = 0;

    d->began = false;
    while (i < a->n && k < b->n) {
        uint64_t pa = a->e[i].progress, pb = b->e[k].progress;
        if (pa == pb && !same(&a->e[i], &b->e[k])) {
            break;
        }
        if (pa == pb) {
            d->began = true;
            d->from[0] = i;
            d->from[1] = k;
        }
        i += pa <= pb;
        k += pb <= pa;
    }
    if (a->failed || b->failed) { /* without an end */
        d->to[0] = i;
        d->to[1] = k;
        return true;
    }
    if (i == a->n || k == b->n) {
        if (same(&a->e[a->n], &b->e[b->n])) {
            return false;
        }
        i = a->n;
        k = b->n;
    }
    d->to[0] = i;
    d->to[1] = k;
    return true;
}

bool trace_compare(const struct trace *a, const struct trace *b, struct trace_difference *out)
{
    uint64_t first = 0;
    bool found = false;

    for (unsigned i = 0; i < a->vcpus && i < b->vcpus; i++) {
        const struct list *l = &a->list[i];
        struct trace_difference d = {.vcpu = i};
        if (!first_difference(l, &b->list[i], &d)) {
            continue;
        }
        /* Progress says nothing across vCPUs; time does: what one does to another comes later. */
        uint64_t now = d.to[0] < l->n || !l->failed ? l->e[d.to[0]].now : UINT64_MAX;
        if (!found || now < first) {
            d.rip = l->n != 0 ? l->e[d.began ? d.from[0] : 0].linear : 0;
            *out = d;
            first = now;
            found = true;
        }
    }
    return found;
}

/* --- the report --------------------------------------------------------------------------------
 */

/* The bytes at @lin as the vCPU's memory is now. */
static size_t code_at(struct vm *vm, unsigned vcpu, uint64_t lin, uint8_t out[CODE_BYTES])
{
    const struct cpu *c = &vm_vcpu(vm, vcpu)->c;
    const struct walk_tables tables = {.ram = vm_machine(vm)->ram};
    const struct walk_want want = {.access = WALK_R};
    struct walk_result r;
    size_t len = PAGE_SIZE - PAGE_OFFSET(lin);

    len = len < CODE_BYTES ? len : CODE_BYTES;
    if (walk(&tables, c, lin, want, &r) != 0 ||
        ram_read(vm_machine(vm)->ram, r.page + PAGE_OFFSET(lin), out, len) != 0) {
        return 0;
    }
    return len;
}

static void disassemble(struct vm *vm, unsigned vcpu, const struct entry *at, char text[128])
{
    uint8_t bytes[CODE_BYTES];
    size_t len = code_at(vm, vcpu, at->linear, bytes);
    ZydisDisassembledInstruction insn;
    ZydisMachineMode mode = at->is64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : at->is32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                       : ZYDIS_MACHINE_MODE_LEGACY_16;

    if (len != 0 && ZYAN_SUCCESS(ZydisDisassembleIntel(mode, at->rip, bytes, len, &insn))) {
        (void)snprintf(text, 128, "%s", insn.text);
    } else {
        (void)snprintf(text, 128, "(its bytes cannot be read)");
    }
}

static void row(FILE *to, const char *what, uint64_t a, uint64_t b)
{
    (void)fprintf(to, "  %-9s %016" PRIx64 "  %016" PRIx64 "%s\n", what, a, b,
                  a == b ? "" : "  <-");
}

/* From @before to @after on one side: did it write what differs between @a and @b? */
static bool wrote(const struct entry *before, const struct entry *after, const struct entry *a,
                  const struct entry *b)
{
    bool any = false, found = false;

    for (unsigned i = 0; i < 16; i++) {
        any = any || a->gpr[i] != b->gpr[i];
        found = found || (a->gpr[i] != b->gpr[i] && before->gpr[i] != after->gpr[i]);
    }
    found = found || (a->fpu != b->fpu && before->fpu != after->fpu);
    found = found || (a->system != b->system && before->system != after->system);
    any = any || a->fpu != b->fpu || a->system != b->system;
    return found || (!any && a->rflags != b->rflags && before->rflags != after->rflags);
}

/* What side @k executed between the last equal states and those that differ. */
static void list_instructions(struct trace *t, const struct list *l, unsigned k,
                              const struct trace_difference *d, const struct entry *a,
                              const struct entry *b, FILE *to)
{
    size_t end = d->to[k] < l->n ? d->to[k] : l->n - 1;
    char text[128];

    for (size_t i = d->from[k]; i < end; i++) {
        if (i - d->from[k] == LISTED_MAX) {
            (void)fprintf(to, "    and %zu more\n", end - i);
            return;
        }
        disassemble(t->vm, d->vcpu, &l->e[i], text);
        (void)fprintf(to, "    %#-18" PRIx64 " %s%s\n", l->e[i].linear, text,
                      wrote(&l->e[i], &l->e[i + 1], a, b) ? "  <-" : "");
    }
}

static void report_where(struct trace *const t[2], const struct list *const l[2],
                         const struct trace_difference *d, const char *const name[2], FILE *to)
{
    const struct entry *before = &l[0]->e[d->from[0]];
    uint64_t nth = before->retired - l[0]->e[0].retired + 1, n = 0;
    size_t steps[2];
    char text[128];
    bool end = false;

    for (unsigned k = 0; k < 2; k++) {
        bool noted = d->to[k] < l[k]->n || !l[k]->failed;
        uint64_t retired = noted ? l[k]->e[d->to[k]].retired - before->retired : 0;
        steps[k] = d->to[k] - d->from[k];
        n = retired > n ? retired : n;
        end = end || d->to[k] >= l[k]->n;
    }
    unsigned finer = steps[1] > steps[0];
    disassemble(t[0]->vm, d->vcpu, before, text);
    if (end) {
        (void)fprintf(to,
                      "vCPU %u parts at the end of the slice; the last state that was the same on "
                      "both sides is that before instruction %" PRIu64 " of its life, %" PRIu64
                      " of this slice, at %#" PRIx64 ": %s\n",
                      d->vcpu, before->retired + 1, nth, before->linear, text);
        for (unsigned k = 0; k < 2; k++) {
            if (d->from[k] + 1 >= l[k]->n) {
                (void)fprintf(to, "  %s executed no more of it.\n", name[k]);
            }
        }
        return;
    }
    if (n <= 1) {
        (void)fprintf(to,
                      "vCPU %u parts at instruction %" PRIu64 " of its life, %" PRIu64
                      " of this slice, at %#" PRIx64 ": %s\n",
                      d->vcpu, before->retired + 1, nth, before->linear, text);
        return;
    }
    (void)fprintf(to,
                  "vCPU %u parts within %" PRIu64 " instructions executed in one piece, from "
                  "instruction %" PRIu64 " of its life on, %" PRIu64 " of this slice, at %#" PRIx64
                  ": %s\n",
                  d->vcpu, n, before->retired + 1, nth, before->linear, text);
    if (steps[finer] > 1) {
        (void)fprintf(to, "  %s, one by one (<-: writes what differs):\n", name[finer]);
        list_instructions(t[finer], l[finer], finer, d, &l[0]->e[d->to[0]], &l[1]->e[d->to[1]], to);
    }
}

void trace_report(struct trace *const t[2], const struct trace_difference *d,
                  const char *const name[2], FILE *to)
{
    static const char *const gpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct list *l[2] = {&t[0]->list[d->vcpu], &t[1]->list[d->vcpu]};

    if (!d->began) {
        (void)fprintf(to, "vCPU %u differs before its first instruction.\n", d->vcpu);
    } else {
        report_where(t, l, d, name, to);
    }
    for (unsigned k = 0; k < 2; k++) {
        if (l[k]->failed && d->to[k] >= l[k]->n) {
            (void)fprintf(to, "  %s executed no more of it that there was memory to note.\n",
                          name[k]);
            return;
        }
    }
    const struct entry *a = &l[0]->e[d->to[0]], *b = &l[1]->e[d->to[1]];
    (void)fprintf(to, "  %-9s %-16.16s  %-16.16s\n", "after it", name[0], name[1]);
    row(to, "rip", a->rip, b->rip);
    row(to, "rflags", a->rflags, b->rflags);
    for (unsigned i = 0; i < 16; i++) {
        row(to, gpr[i], a->gpr[i], b->gpr[i]);
    }
    row(to, "progress", a->progress, b->progress);
    row(to, "retired", a->retired, b->retired);
    if (a->fpu != b->fpu) {
        (void)fprintf(to, "  x87 and SSE registers differ\n");
    }
    if (a->system != b->system) {
        (void)fprintf(to, "  segment, control or model-specific registers differ\n");
    }
}
