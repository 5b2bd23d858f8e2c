/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/main.c - makes operands, runs each form on both sides, compares, prints the table.
 *
 *   isa [--v3] [--seed N] [--trials N] [--only TEXT] [--table FILE] [--verbose]
 *
 * --v3: the model pollux-v3 instead of pollux-v2.
 *
 * Exit 1 when a form differs, is in no column or in "privileged" without a test (witness.c), 77
 * when this host cannot be single-stepped. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/ours.h"
#include "vmm/cpu/cpu.h"

static struct {
    uint64_t seed;
    unsigned trials;
    const char *only, *table;
    bool verbose;
    unsigned modes; /* bit i: those of mode i are executed */
} opt = {.seed = 1, .trials = 24};

static const char *const mode_names[] = {"64", "32", "16"};
static const char *const class_names[] = {"host", "refused", "privileged", "MISSING"};
static const char *const reg_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* --- operands -----------------------------------------------------------------------------------
 */

/* Registers that point: where memory operands, strings and the stack are. */
static void point_registers(struct prng *g, const struct form *f, struct isa_state *s)
{
    uint64_t data = f->mode == ISA_16 ? 0 : DATA_AT, stack = f->mode == ISA_16 ? 0 : STACK_AT;
    uint64_t align = prng_below(g, 4) == 0 ? prng_below(g, 64) : 0;

    s->gpr[RBX] = data + 0x1000 + prng_below(g, 32) * 64 + align;
    s->gpr[RSI] = data + 0x800 + prng_below(g, 0x400);
    s->gpr[RDI] = data + 0x2000 + prng_below(g, 0x400);
    s->gpr[RBP] = stack + 0x2000 + prng_below(g, 64) * 8;
    s->gpr[RSP] = stack + 0x1000 + prng_below(g, 64) * 8;
    if (f->rep) {
        s->gpr[RCX] = prng_below(g, 40);
    }
    if (f->branch) {
        for (int i = 0; i < 16; i++) {
            s->gpr[i] &= 0x7fffffff;
        }
    }
    if (f->mode != ISA_64) {
        for (int i = 0; i < 16; i++) {
            s->gpr[i] = i < 8 ? s->gpr[i] & UINT32_MAX : 0;
        }
    }
}

static void make_state(struct prng *g, const struct form *f, struct isa_state *s)
{
    for (int i = 0; i < 16; i++) {
        s->gpr[i] = random_value(g);
    }
    point_registers(g, f, s);
    s->fs_base = prng_below(g, 0x8000000);
    s->gs_base = prng_below(g, 0x8000000);
    s->rip = (f->mode == ISA_16 ? 0 : CODE_AT) + INSN_OFFSET;
    s->rflags = FLAG_ONE | FLAG_IF | (prng_u64(g) & (FLAGS_ARITH | FLAG_DF));
    random_fx(g, s->fx);
    memset(s->ymm_high, 0, sizeof s->ymm_high);
    if (isa_v3) {
        random_float(g, s->ymm_high, sizeof s->ymm_high);
    }
    if (f->fp) {
        random_float(g, s->data, DATA_SIZE);
        for (int i = 0; i < DATA_SIZE / 64; i++) {
            if (prng_below(g, 2) == 0) {
                random_x87(g, s->data + i * 64);
            }
        }
    } else {
        prng_fill(g, s->data, DATA_SIZE);
    }
    prng_fill(g, s->stack, STACK_SIZE);
    for (int i = 0; f->branch && i < STACK_SIZE; i += 8) { /* return addresses must be canonical */
        memset(s->stack + i + 4, 0, 4);
        s->stack[i + 3] &= 0x7f;
    }
    for (int i = 0; f->branch && i < DATA_SIZE; i += 8) {
        memset(s->data + i + 4, 0, 4);
        s->data[i + 3] &= 0x7f;
    }
}

/* --- comparison ---------------------------------------------------------------------------------
 */

struct difference {
    char text[400];
};

static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t len, const char *what,
                       struct difference *d)
{
    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i]) {
            (void)snprintf(d->text, sizeof d->text,
                           "%s+0x%zx: host %02x%02x%02x%02x, here %02x%02x%02x%02x", what, i, a[i],
                           a[i + 1], a[i + 2], a[i + 3], b[i], b[i + 1], b[i + 2], b[i + 3]);
            return false;
        }
    }
    return true;
}

static bool same_fp(const uint8_t *a, const uint8_t *b, struct difference *d)
{
    uint32_t mx[2];

    memcpy(&mx[0], a + 24, 4);
    memcpy(&mx[1], b + 24, 4);
    if (!same_bytes(a, b, 2, "fcw", d) || !same_bytes(a + 2, b + 2, 3, "fsw/ftw", d) ||
        (!same_mxcsr(mx[0], mx[1]) && !same_bytes(a + 24, b + 24, 4, "mxcsr", d))) {
        return false;
    }
    for (int i = 0; i < 8; i++) {
        if (!same_bytes(a + 32 + i * 16, b + 32 + i * 16, 10, "st", d)) {
            return false;
        }
    }
    return same_bytes(a + 160, b + 160, 256, "xmm", d);
}

/* Is the state equal where the SDM defines it? */
static bool same(const struct form *f, const struct isa_code *code, struct isa_outcome *host,
                 const struct isa_outcome *here, struct difference *d)
{
    const uint64_t mask = FLAGS_ARITH | FLAG_DF;
    unsigned regs = f->mode == ISA_64 ? 16 : 8;

    if (host->signal != here->signal) {
        (void)snprintf(d->text, sizeof d->text, "host: %s, here: %s",
                       host->signal == 0 ? "no exception" : strsignal(host->signal),
                       here->signal == 0 ? "no exception" : strsignal(here->signal));
        return false;
    }
    exempt_results(f, code, host, here);
    for (unsigned i = 0; i < regs; i++) {
        uint64_t a = host->s.gpr[i], b = here->s.gpr[i];
        if (f->mode != ISA_64) {
            a &= UINT32_MAX;
            b &= UINT32_MAX;
        }
        if (a != b) {
            (void)snprintf(d->text, sizeof d->text, "%s: host %016llx, here %016llx", reg_names[i],
                           (unsigned long long)a, (unsigned long long)b);
            return false;
        }
    }
    if (host->s.rip != here->s.rip) {
        (void)snprintf(d->text, sizeof d->text, "rip: host %llx, here %llx",
                       (unsigned long long)host->s.rip, (unsigned long long)here->s.rip);
        return false;
    }
    if (((host->s.rflags ^ here->s.rflags) & mask) != 0) {
        (void)snprintf(d->text, sizeof d->text, "flags: host %llx, here %llx (undefined: %x)",
                       (unsigned long long)(host->s.rflags & mask),
                       (unsigned long long)(here->s.rflags & mask), f->flags_undefined);
        return false;
    }
    return same_fp(host->s.fx, here->s.fx, d) &&
           same_bytes(host->s.ymm_high, here->s.ymm_high, sizeof host->s.ymm_high, "ymm high", d) &&
           same_bytes(host->s.data, here->s.data, DATA_SIZE, "data", d) &&
           same_bytes(host->s.stack, here->s.stack, STACK_SIZE, "stack", d);
}

static void report(const struct form *f, const uint8_t *code, unsigned len, unsigned trial,
                   const struct isa_state *in, const struct difference *d)
{
    printf("DIFFERS  %s-bit  %s  bytes", mode_names[f->mode], f->name);
    for (unsigned i = 0; i < len; i++) {
        printf(" %02x", code[i]);
    }
    printf("  seed %llu trial %u: %s\n", (unsigned long long)opt.seed, trial, d->text);
    if (opt.verbose) {
        for (int i = 0; i < 16; i++) {
            printf("    %s %016llx%s", reg_names[i], (unsigned long long)in->gpr[i],
                   i % 4 == 3 ? "\n" : "");
        }
        printf("    flags %llx mxcsr %02x%02x fcw %02x%02x fsw %02x%02x\n",
               (unsigned long long)in->rflags, in->fx[25], in->fx[24], in->fx[1], in->fx[0],
               in->fx[3], in->fx[2]);
    }
}

/* The seed of a trial depends on the form's name, not on its place in the list. */
static void check_form(struct ours *o, struct form *f)
{
    static struct isa_state in;
    static struct isa_outcome host, here;

    for (unsigned t = 0; t < opt.trials; t++) {
        struct difference d;
        struct isa_code code;
        struct prng g;
        struct {
            uint64_t seed;
            uint32_t mode, trial;
            char name[72];
        } key = {.seed = opt.seed, .mode = f->mode, .trial = t};

        memcpy(key.name, f->name, sizeof key.name);
        prng_seed_bytes(&g, &key, sizeof key);
        make_state(&g, f, &in);
        make_variant(&g, f, &in, &code);
        /* A gather too is traced element by element. */
        native_step(f->mode, code.bytes, code.len, f->rep || f->vsib, &in, &host);
        ours_step(o, f->mode, code.bytes, code.len, f->rep, &in, &here);
        f->trials++;
        if (!exempt_fault(f, &in, &code, &host, &here) && !same(f, &code, &host, &here, &d)) {
            if (f->differ++ == 0) {
                report(f, code.bytes, code.len, t, &in, &d);
            }
        }
    }
}

static int write_table(const struct forms *l)
{
    FILE *out = fopen(opt.table, "w");

    if (out == NULL) {
        perror(opt.table);
        return -1;
    }
    (void)fprintf(out, "# mode  column      trials  form  [prefix map.opcode]\n");
    for (unsigned i = 0; i < l->n; i++) {
        const struct form *f = &l->items[i];
        const struct exemption *ex = exemption_of(f);
        const struct witness *w = f->class == FORM_PRIVILEGED ? witness_of(f) : NULL;
        (void)fprintf(out, "%-6s  %-10s  %6u  %s%s%s%s", mode_names[f->mode], class_names[f->class],
                      f->trials, f->name, ex != NULL ? "  (" : "", ex != NULL ? ex->why : "",
                      ex != NULL ? ")" : "");
        (void)fprintf(out, "%s%s%s%s\n", w != NULL ? "  -> " : "", w != NULL ? w->file : "",
                      w != NULL ? ": " : "", w != NULL ? w->test : "");
    }
    return fclose(out);
}

static enum isa_mode mode_of(const char *name)
{
    for (enum isa_mode m = 0; m < ISA_MODES; m++) {
        if (strcmp(name, mode_names[m]) == 0) {
            return m;
        }
    }
    (void)fprintf(stderr, "no mode %s\n", name);
    exit(2);
}

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", 1, NULL, 's'},    {"trials", 1, NULL, 't'},
                                          {"only", 1, NULL, 'o'},    {"table", 1, NULL, 'f'},
                                          {"verbose", 0, NULL, 'v'}, {"v3", 0, NULL, '3'},
                                          {"mode", 1, NULL, 'm'},    {0}};
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            opt.seed = strtoull(optarg, NULL, 0);
            break;
        case 't':
            opt.trials = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'o':
            opt.only = optarg;
            break;
        case 'f':
            opt.table = optarg;
            break;
        case 'v':
            opt.verbose = true;
            break;
        case '3':
            isa_v3 = true;
            break;
        case 'm': /* may be repeated */
            opt.modes |= 1U << mode_of(optarg);
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static struct forms forms;
    struct ours ours;
    unsigned count[4] = {0}, differ = 0, missing = 0, unable = 0;

    parse(argc, argv);
    opt.modes = opt.modes == 0 ? (1U << ISA_MODES) - 1 : opt.modes;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s, seed %llu\n", isa_v3 ? "pollux-v3" : "pollux-v2", (unsigned long long)opt.seed);
    if (native_open() != 0) {
        printf("this host cannot be single-stepped\n");
        return 77;
    }
    ours_open(&ours, &engine_interp, 0);
    for (enum isa_mode m = 0; m < ISA_MODES; m++) {
        if ((opt.modes & 1U << m) != 0 && !native_has_mode(m)) {
            opt.modes &= ~(1U << m);
            unable++;
        }
        enumerate(m, &forms);
    }
    for (unsigned i = 0; i < forms.n; i++) {
        struct form *f = &forms.items[i];
        const struct exemption *ex = exemption_of(f);
        if (opt.only != NULL && strstr(f->name, opt.only) == NULL) {
            continue;
        }
        bool runs = (opt.modes & 1U << f->mode) != 0;
        count[f->class] += f->class != FORM_CHECKED || runs;
        if (f->class == FORM_PRIVILEGED && witness_of(f) == NULL) {
            printf("UNNAMED  %s-bit  %s: no test answers for it\n", mode_names[f->mode], f->name);
            missing++;
        }
        if (f->class == FORM_MISSING) {
            printf("MISSING  %s-bit  %s\n", mode_names[f->mode], f->name);
            missing++;
        } else if (f->class == FORM_CHECKED && runs && (ex == NULL || ex->what != SKIP_FORM)) {
            check_form(&ours, f);
            differ += f->differ != 0;
        }
    }
    missing += witnesses_check(opt.only == NULL);
    native_close();
    ours_close(&ours);
    if (opt.table != NULL && write_table(&forms) != 0) {
        return 1;
    }
    printf("%u forms: %u checked against this host, %u refused, %u privileged, %u missing; "
           "%u differ\n",
           forms.n, count[FORM_CHECKED], count[FORM_REFUSED], count[FORM_PRIVILEGED], missing,
           differ);
    if (unable != 0) {
        printf("this host has no such programs, in %u of the modes: their forms are not checked\n",
               unable);
    }
    return missing != 0 || differ != 0 ? 1 : unable != 0 ? 77 : 0;
}
