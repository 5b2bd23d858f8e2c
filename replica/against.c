/* SPDX-License-Identifier: Apache-2.0
 * replica/against.c - see against.h.
 *
 * Both replays run three times from their beginning, which costs time but no memory: once with a
 * digest now and then, once with one a slice from the last that was equal, and once up to the slice
 * before, from where every instruction is noted. */
#include "replica/against.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "replica/trace.h"

enum { DIFFERING_MAX = 8 /* pages told of */ };

struct pair {
    const struct against_config *cfg;
    struct against_result *res;
    struct replay *r[2];
    uint64_t seen[2]; /* digests that differ from the recording, of those the replay has met */
    bool told[2];     /* of one that does while both sides are equal */
    uint64_t others;  /* the first record that is not the same in both recordings; 0: none yet */
};

static struct vm *vm_of(struct pair *p, unsigned side)
{
    return replay_vm(p->r[side]);
}

static void close_pair(struct pair *p)
{
    replay_close(p->r[0]);
    replay_close(p->r[1]);
    p->r[0] = p->r[1] = NULL;
}

static int open_pair(struct pair *p, struct plx_err *err)
{
    int rc = replay_open(&p->cfg->side[0], &p->r[0], err);

    p->seen[0] = p->seen[1] = 0;
    if (rc == 0) {
        rc = replay_open(&p->cfg->side[1], &p->r[1], err);
    }
    if (rc == 0 && vm_machine(vm_of(p, 0))->ndevices != vm_machine(vm_of(p, 1))->ndevices) {
        rc = plx_fail(err, PLX_EINVAL, "%s and %s are recordings of different machines",
                      p->cfg->side[0].dir, p->cfg->side[1].dir);
    }
    if (rc != 0) {
        close_pair(p);
    }
    return rc;
}

static void report_input(FILE *to, const char *name, uint32_t i, const struct input *in)
{
    static const char *const kinds[INPUT_KIND_END] = {
        [INPUT_ENTROPY] = "entropy",       [INPUT_WALLCLOCK] = "wall clock",
        [INPUT_NET_RX] = "frame",          [INPUT_CONSOLE_RX] = "console input",
        [INPUT_DISK_DONE] = "disk answer", [INPUT_JUMP] = "jump of the clock",
        [INPUT_TYPED_BY] = "who typed",    [INPUT_POWER_BUTTON] = "power button"};

    (void)fprintf(to,
                  "  input %" PRIu32 ", %s: %s, device %u, argument %" PRIu64
                  ", status %u, %" PRIu32 " bytes\n",
                  i, name, kinds[in->kind], in->dev, in->arg, in->status, in->len);
}

static bool same_input(const struct input *a, const struct input *b)
{
    return a->kind == b->kind && a->status == b->status && a->dev == b->dev && a->arg == b->arg &&
           a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void report_inputs(struct pair *p, const struct record r[2])
{
    FILE *to = p->cfg->report;

    for (uint32_t i = 0; i < r[0].ninputs || i < r[1].ninputs; i++) {
        const struct input *in[2] = {NULL, NULL};
        for (unsigned k = 0; k < 2; k++) {
            in[k] = i < r[k].ninputs ? &r[k].inputs[i] : NULL;
        }
        if (in[0] != NULL && in[1] != NULL && same_input(in[0], in[1])) {
            continue;
        }
        for (unsigned k = 0; k < 2; k++) {
            if (in[k] != NULL) {
                report_input(to, p->cfg->name[k], i, in[k]);
            } else {
                (void)fprintf(to, "  input %" PRIu32 ", %s: none\n", i, p->cfg->name[k]);
            }
        }
        if (in[0] != NULL && in[1] != NULL && in[0]->len == in[1]->len && in[0]->len != 0) {
            uint32_t at = 0;
            while (at < in[0]->len && in[0]->data[at] == in[1]->data[at]) {
                at++;
            }
            if (at < in[0]->len) {
                (void)fprintf(to, "    from byte %" PRIu32 ": %02x and %02x\n", at, in[0]->data[at],
                              in[1]->data[at]);
            }
        }
    }
}

/* In what the next records differ, which are the first that do. */
static int report_records(struct pair *p, const void *const record[2], const size_t len[2],
                          struct plx_err *err)
{
    struct record r[2];
    struct input *inputs[2] = {NULL, NULL};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < 2; i++) {
        rc = record_decode(record[i], len[i], &r[i], &inputs[i], err);
    }
    if (rc == 0) {
        const struct {
            const char *what;
            uint64_t value[2];
        } fields[] = {{"start in ns", {r[0].start_ns, r[1].start_ns}},
                      {"span in ns", {r[0].span_ns, r[1].span_ns}},
                      {"rate", {r[0].rate, r[1].rate}}};
        p->others = vm_seq(vm_of(p, 0)) + 1;
        (void)fprintf(p->cfg->report, "Record %" PRIu64 " is not the same in both recordings:\n",
                      p->others);
        for (unsigned i = 0; i < PLX_COUNT(fields); i++) {
            if (fields[i].value[0] != fields[i].value[1]) {
                (void)fprintf(p->cfg->report, "  %s: %" PRIu64 " and %" PRIu64 "\n", fields[i].what,
                              fields[i].value[0], fields[i].value[1]);
            }
        }
        report_inputs(p, r);
    }
    plx_free(inputs[0]);
    plx_free(inputs[1]);
    return rc;
}

/* One slice on both sides. Positive, or 0: one of them has ended. */
static int step_pair(struct pair *p, struct plx_err *err)
{
    const void *record[2];
    size_t len[2];

    for (unsigned i = 0; i < 2; i++) {
        int rc = replay_peek(p->r[i], &record[i], &len[i], err);
        if (rc <= 0) {
            return rc;
        }
    }
    if (p->others == 0 && (len[0] != len[1] || memcmp(record[0], record[1], len[0]) != 0)) {
        int rc = report_records(p, record, len, err);
        if (rc != 0) {
            return rc;
        }
    }
    int rc = replay_step(p->r[0], err);
    return rc <= 0 ? rc : replay_step(p->r[1], err);
}

/* Where records were not the same the history of them is not either, which says nothing new: it is
 * put aside, and (false) back in place. */
static void put_history_aside(struct pair *p, struct hash128 old[2], bool aside)
{
    for (unsigned i = 0; p->others != 0 && i < 2; i++) {
        old[i] = vm_swap_history(vm_of(p, i), aside ? (struct hash128){0, 0} : old[i]);
    }
}

static bool equal_now(struct pair *p)
{
    struct vm_digest d[2];
    struct hash128 history[2];

    put_history_aside(p, history, true);
    for (unsigned i = 0; i < 2; i++) {
        vm_digest(vm_of(p, i), 0, &d[i], NULL, NULL);
    }
    put_history_aside(p, history, false);
    p->res->compared++;
    return hash128_eq(d[0].all, d[1].all);
}

/* Has a side just met a digest of its recording that is another? If both sides are equal all the
 * same, that is told: of the recorded state no more is known. Returns whether they differ. */
static bool differs_from_recorded(struct pair *p)
{
    bool news = false;

    for (unsigned i = 0; i < 2; i++) {
        news = news || replay_result(p->r[i])->differ != p->seen[i];
    }
    if (news && !equal_now(p)) {
        return true;
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct replay_result *r = replay_result(p->r[i]);
        if (r->differ != p->seen[i] && !p->told[i]) {
            (void)fprintf(p->cfg->report,
                          "%s differs from what was recorded, after slice %" PRIu64
                          ": %s. Both replays are equal there.\n",
                          p->cfg->name[i], r->first_differing, r->what);
            p->told[i] = true;
            if (p->res->recorded == 0) {
                p->res->recorded = r->first_differing;
            }
        }
        p->seen[i] = r->differ;
    }
    return false;
}

/* Runs until the digests differ, comparing every @every slices after slice @from, and where a side
 * is not what was recorded. Sets *equal to the last slice known to be equal and returns whether a
 * later one differs, or an error. */
static int run_until_different(struct pair *p, uint64_t from, unsigned every, uint64_t *equal,
                               struct plx_err *err)
{
    int rc;

    if (!equal_now(p) || differs_from_recorded(p)) {
        return 1;
    }
    *equal = vm_seq(vm_of(p, 0));
    while ((rc = step_pair(p, err)) > 0) {
        uint64_t seq = vm_seq(vm_of(p, 0));
        if (differs_from_recorded(p)) {
            return 1;
        }
        if (seq < from || seq % every != 0) {
            continue;
        }
        if (!equal_now(p)) {
            return 1;
        }
        *equal = seq;
    }
    if (rc == 0 && *equal != vm_seq(vm_of(p, 0))) {
        rc = equal_now(p) ? 0 : 1;
        *equal = rc == 0 ? vm_seq(vm_of(p, 0)) : *equal;
    }
    return rc;
}

/* --- what differs at the end of a slice --------------------------------------------------------
 */

static void report_sections(struct pair *p)
{
    FILE *to = p->cfg->report;
    struct hash128 history[2];

    put_history_aside(p, history, true);
    for (unsigned i = 0; i < vm_machine(vm_of(p, 0))->ndevices; i++) {
        struct wbuf bytes[2];
        size_t at = 0;
        for (unsigned k = 0; k < 2; k++) {
            const struct device *d = &vm_machine(vm_of(p, k))->devices[i];
            wbuf_init(&bytes[k]);
            d->ops->save(d->dev, &bytes[k]);
        }
        while (at < bytes[0].len && at < bytes[1].len && bytes[0].data[at] == bytes[1].data[at]) {
            at++;
        }
        if (bytes[0].len != bytes[1].len || at < bytes[0].len) {
            (void)fprintf(to, "  section %s, from byte %zu of %zu and %zu\n",
                          vm_machine(vm_of(p, 0))->devices[i].name, at, bytes[0].len, bytes[1].len);
        }
        wbuf_free(&bytes[0]);
        wbuf_free(&bytes[1]);
    }
    put_history_aside(p, history, false);
}

static void report_pages(struct pair *p)
{
    const struct ram *ram[2] = {vm_machine(vm_of(p, 0))->ram, vm_machine(vm_of(p, 1))->ram};
    FILE *to = p->cfg->report;
    unsigned found = 0;

    for (uint64_t page = 0; page < ram_pages(ram[0]) && page < ram_pages(ram[1]); page++) {
        const uint8_t *a = ram[0]->hva + (page << PAGE_SHIFT);
        const uint8_t *b = ram[1]->hva + (page << PAGE_SHIFT);
        unsigned at = 0;
        if (memcmp(a, b, PAGE_SIZE) == 0 || ++found > DIFFERING_MAX) {
            continue;
        }
        while (a[at] == b[at]) {
            at++;
        }
        at &= ~7U;
        uint64_t words[2];
        memcpy(&words[0], a + at, sizeof words[0]);
        memcpy(&words[1], b + at, sizeof words[1]);
        (void)fprintf(
            to, "  page %#" PRIx64 ", first at %#" PRIx64 ": %016" PRIx64 " and %016" PRIx64 "\n",
            ram_gpa_of_page(ram[0], page), ram_gpa_of_page(ram[0], page) + at, words[0], words[1]);
    }
    if (found > DIFFERING_MAX) {
        (void)fprintf(to, "  and %u more pages\n", found - DIFFERING_MAX);
    }
}

/* --- the instruction ----------------------------------------------------------------------------
 */

/* Runs both to just before @slice, then that slice with everything noted. */
static int find_instruction(struct pair *p, uint64_t slice, struct plx_err *err)
{
    struct trace *t[2] = {NULL, NULL};
    struct trace_difference d;
    int rc = 1;

    while (rc > 0 && vm_seq(vm_of(p, 0)) + 1 < slice) {
        rc = step_pair(p, err);
    }
    for (unsigned i = 0; rc > 0 && i < 2; i++) {
        int failed = trace_begin(vm_of(p, i), &t[i], err);
        rc = failed != 0 ? failed : rc;
    }
    if (rc > 0) {
        rc = step_pair(p, err);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (t[i] != NULL) {
            trace_end(t[i]);
        }
    }
    if (rc > 0) {
        (void)fprintf(p->cfg->report, "After slice %" PRIu64 " these differ:\n", slice);
        report_sections(p);
        report_pages(p);
        if (trace_compare(t[0], t[1], &d)) {
            p->res->instruction = true;
            p->res->vcpu = d.vcpu;
            p->res->rip = d.rip;
            trace_report(t, &d, p->cfg->name, p->cfg->report);
            if (p->others == slice) {
                (void)fprintf(p->cfg->report, "The inputs of the slice, which are not the same, "
                                              "came before its first instruction.\n");
            }
        } else if (equal_now(p)) {
            (void)fprintf(p->cfg->report,
                          "Run again with what it executes noted piece by piece, slice %" PRIu64
                          " ends equal on both sides: the difference is in what leads from one "
                          "translation to the next, or depends on the host's timing.\n",
                          slice);
        } else {
            (void)fprintf(p->cfg->report,
                          "The registers of no vCPU differed in slice %" PRIu64
                          ": a store, a device, an input or an interrupt did.\n",
                          slice);
        }
    }
    trace_free(t[0]);
    trace_free(t[1]);
    return rc < 0 ? rc : 0;
}

static int narrow(struct pair *p, uint64_t equal, struct plx_err *err)
{
    uint64_t bad = vm_seq(vm_of(p, 0));
    int rc;

    close_pair(p);
    rc = open_pair(p, err);
    if (rc == 0) {
        rc = run_until_different(p, equal, 1, &equal, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        (void)fprintf(p->cfg->report,
                      "Slice %" PRIu64 " or one shortly before it differed once, and not when it "
                      "was run again: it depends on the host's timing.\n",
                      bad);
        p->res->slice = bad;
        return 0;
    }
    p->res->slice = vm_seq(vm_of(p, 0));
    if (p->res->slice == equal) {
        (void)fprintf(p->cfg->report, "The states they begin with differ:\n");
        report_sections(p);
        report_pages(p);
        return 0;
    }
    (void)fprintf(p->cfg->report, "The first slice that differs is %" PRIu64 ".\n", p->res->slice);
    close_pair(p);
    rc = open_pair(p, err);
    return rc != 0 ? rc : find_instruction(p, p->res->slice, err);
}

int against_run(const struct against_config *cfg, struct against_result *out, struct plx_err *err)
{
    struct pair p = {.cfg = cfg, .res = out};
    uint64_t equal = 0;
    int rc;

    *out = (struct against_result){.slices = 0};
    PLX_CHECK(cfg->every > 0);
    rc = open_pair(&p, err);
    if (rc == 0) {
        uint64_t first = vm_seq(vm_of(&p, 0));
        rc = run_until_different(&p, 0, cfg->every, &equal, err);
        out->slices = equal - (equal > first ? first : equal);
    }
    if (rc == 0 && p.others != 0) {
        (void)fprintf(cfg->report, "No state differs up to slice %" PRIu64 ".\n", equal);
        out->differ = true;
        out->slice = p.others;
    }
    if (rc > 0) {
        out->differ = true;
        rc = narrow(&p, equal, err);
    }
    close_pair(&p);
    return rc;
}
