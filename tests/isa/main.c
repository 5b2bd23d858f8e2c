/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/main.c - makes operands, runs each form on both sides, compares, prints the table.
 *
 *   isa [--seed N] [--trials N] [--only TEXT] [--table FILE] [--verbose]
 *
 * Exit 1 when a form differs, is in no column or in "privileged" without a test (witness.c), 77
 * when this host cannot be single-stepped. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"
#include "vmm/cpu/cpu.h"

static struct {
    uint64_t seed;
    unsigned trials;
    const char *only, *table;
    bool verbose;
} opt = {.seed = 1, .trials = 24};

static const char *const mode_names[] = {"64", "32", "16"};
static const char *const class_names[] = {"host", "refused", "privileged", "MISSING"};
static const char *const reg_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* --- where equality with this host is not asked for (ARCHITECTURE.md, R6) --------------------- */

struct exemption {
    ZydisMnemonic mnemonic;
    enum { SKIP_RESULT, SKIP_FSW, SKIP_C1, SKIP_FORM } what;
    const char *why;
};

static const struct exemption exemptions[] = {
    {ZYDIS_MNEMONIC_RCPPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RCPSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FSIN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FCOS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FSINCOS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FPTAN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FPATAN, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_F2XM1, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FYL2X, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FYL2XP1, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_FCOMI, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FCOMIP, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FUCOMI, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FUCOMIP, SKIP_C1, "the SDM clears C1, AMD processors leave it"},
    {ZYDIS_MNEMONIC_FFREE, SKIP_FSW, "the SDM leaves C0-C3 undefined"},
    {ZYDIS_MNEMONIC_FFREEP, SKIP_FSW, "the SDM leaves C0-C3 undefined"},
    {ZYDIS_MNEMONIC_CVTPI2PS, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPI2PD, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPS2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTPD2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTTPS2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_CVTTPD2PI, SKIP_FSW, "vendors differ in when the MMX state is entered"},
    {ZYDIS_MNEMONIC_FNSTENV, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FNSAVE, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FXSAVE, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_FXSAVE64, SKIP_RESULT, "FIP, FDP and FOP have one chosen value"},
    {ZYDIS_MNEMONIC_XSAVE, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVE64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVEOPT, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XSAVEOPT64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XRSTOR, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XRSTOR64, SKIP_FORM, "components of the model, not of the host"},
    {ZYDIS_MNEMONIC_XGETBV, SKIP_FORM, "components of the model, not of the host"},
};

static const struct exemption *exemption_of(const struct form *f)
{
    for (size_t i = 0; i < PLX_COUNT(exemptions); i++) {
        if (exemptions[i].mnemonic == f->mnemonic) {
            return &exemptions[i];
        }
    }
    return NULL;
}

/* --- operands -----------------------------------------------------------------------------------
 */

static uint64_t random_value(struct prng *g)
{
    static const uint64_t edges[] = {
        0,      1,      2,          7,          0x7f,       0x80,      0xff,       0x7fff,
        0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, 1ULL << 63, UINT64_MAX};

    switch (prng_below(g, 4)) {
    case 0:
        return edges[prng_below(g, PLX_COUNT(edges))];
    case 1:
        return prng_below(g, 64);
    default:
        return prng_u64(g);
    }
}

static void random_float(struct prng *g, uint8_t *at, unsigned size)
{
    static const uint32_t f32[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                   0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x00800000,
                                   0x7f7fffff, 0x4b000000, 0x4f000000, 0xcf000000};
    static const uint64_t f64[] = {0,
                                   0x8000000000000000,
                                   0x3ff0000000000000,
                                   0xbff0000000000000,
                                   0x7ff0000000000000,
                                   0xfff0000000000000,
                                   0x7ff8000000000000,
                                   0x7ff0000000000001,
                                   1,
                                   0x0010000000000000,
                                   0x7fefffffffffffff,
                                   0x41dfffffffc00000,
                                   0x43e0000000000000};

    for (unsigned i = 0; i < size;) {
        if (prng_below(g, 2) == 0) {
            uint32_t v =
                prng_below(g, 3) == 0 ? f32[prng_below(g, PLX_COUNT(f32))] : (uint32_t)prng_u64(g);
            memcpy(at + i, &v, 4);
            i += 4;
        } else if (i + 8 <= size) {
            uint64_t v = prng_below(g, 3) == 0 ? f64[prng_below(g, PLX_COUNT(f64))] : prng_u64(g);
            memcpy(at + i, &v, 8);
            i += 8;
        }
    }
}

/* An 80-bit value of a kind the FPU of today accepts, and now and then one it does not. */
static void random_x87(struct prng *g, uint8_t *at)
{
    uint64_t mantissa = prng_u64(g) | 1ULL << 63;
    uint16_t exponent = (uint16_t)(0x3fff - 40 + prng_below(g, 80));

    switch (prng_below(g, 8)) {
    case 0:
        exponent = 0;
        mantissa = 0;
        break;
    case 1:
        exponent = 0x7fff;
        mantissa = prng_below(g, 2) == 0 ? 1ULL << 63 : mantissa;
        break;
    case 2:
        mantissa = (1ULL << 63) | prng_below(g, 16) << 59;
        break;
    case 3:
        exponent = (uint16_t)prng_below(g, 0x7fff);
        break;
    default:
        break;
    }
    exponent |= (uint16_t)(prng_below(g, 2) << 15);
    memcpy(at, &mantissa, 8);
    memcpy(at + 8, &exponent, 2);
}

static void random_fx(struct prng *g, uint8_t *fx)
{
    static const uint32_t mxcsr[] = {0x1f80, 0x1f80, 0x1f80, 0x3f80,
                                     0x5f80, 0x7f80, 0x9fc0, 0x0000};
    static const uint16_t fcw[] = {0x37f, 0x37f, 0x27f, 0x07f, 0x77f, 0xb7f, 0xf7f, 0x340};
    uint16_t cw = fcw[prng_below(g, PLX_COUNT(fcw))];
    uint16_t sw =
        (uint16_t)(prng_below(g, 8) << 11 | prng_below(g, 2) * (prng_below(g, 16) << 8 & 0x4700));
    uint32_t mx = mxcsr[prng_below(g, PLX_COUNT(mxcsr))];

    memset(fx, 0, 512);
    memcpy(fx, &cw, 2);
    memcpy(fx + 2, &sw, 2);
    fx[4] = prng_below(g, 3) == 0 ? (uint8_t)prng_u64(g) : 0xff;
    memcpy(fx + 24, &mx, 4);
    for (int i = 0; i < 8; i++) {
        random_x87(g, fx + 32 + i * 16);
    }
    random_float(g, fx + 160, 256);
}

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

enum { MX_OVERFLOW = 0x08, MX_UNDERFLOW = 0x10, MX_PRECISION = 0x20, MX_MASKS_AT = 7 };

/* After an unmasked overflow or underflow PE says whether rounding with an unbounded exponent was
 * inexact. The model computes with exceptions masked and always sets it. */
static bool same_but_precision(uint32_t a, uint32_t b)
{
    uint32_t fired = a & ~(a >> MX_MASKS_AT) & (MX_OVERFLOW | MX_UNDERFLOW);

    return fired != 0 && (a | MX_PRECISION) == b;
}

static bool same_fp(const uint8_t *a, const uint8_t *b, bool results, bool fsw,
                    struct difference *d)
{
    uint32_t mx[2];

    memcpy(&mx[0], a + 24, 4);
    memcpy(&mx[1], b + 24, 4);
    if (!same_bytes(a, b, 2, "fcw", d) ||
        (!same_but_precision(mx[0], mx[1]) && !same_bytes(a + 24, b + 24, 4, "mxcsr", d))) {
        return false;
    }
    if (!results) {
        return true;
    }
    if (fsw && !same_bytes(a + 2, b + 2, 3, "fsw/ftw", d)) {
        return false;
    }
    for (int i = 0; fsw && i < 8; i++) {
        if (!same_bytes(a + 32 + i * 16, b + 32 + i * 16, 10, "st", d)) {
            return false;
        }
    }
    return same_bytes(a + 160, b + 160, 256, "xmm", d);
}

/* SHLD and SHRD of 16 bits by more than 16: flags and result are undefined. */
static bool undefined_shift(const struct form *f, const struct isa_state *in,
                            const struct isa_code *code)
{
    bool shift = f->mnemonic == ZYDIS_MNEMONIC_SHLD || f->mnemonic == ZYDIS_MNEMONIC_SHRD;
    uint64_t count = f->imm_len[0] != 0 ? code->bytes[code->imm_at] : in->gpr[RCX];

    return shift && strstr(f->name, "16, r16") != NULL && (count & 31) > 16;
}

/* MASKMOVQ and MASKMOVDQU with a mask that selects nothing. */
static bool empty_mask(const struct form *f, const struct isa_state *in,
                       const struct isa_code *code)
{
    unsigned modrm = code->bytes[code->len - 1], rm = modrm & 7, top = in->fx[3] >> 3 & 7;
    const uint8_t *mask = in->fx + 32 + ((rm - top) & 7) * 16;
    unsigned bytes = 8;

    if (f->mnemonic != ZYDIS_MNEMONIC_MASKMOVQ && f->mnemonic != ZYDIS_MNEMONIC_MASKMOVDQU) {
        return false;
    }
    if (f->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU) {
        unsigned rex = f->mode == ISA_64 ? code->bytes[code->len - 4] : 0;
        mask = in->fx + 160 + (rm + ((rex & 0xf1) == 0x41 ? 8 : 0)) * 16;
        bytes = 16;
    }
    for (unsigned i = 0; i < bytes; i++) {
        if ((mask[i] & 0x80) != 0) {
            return false;
        }
    }
    return true;
}

/* Faults of a store that is not done in the end: the SDM leaves them to the implementation for a
 * mask of zeros, and names only the segment's for ARPL, where AMD's writes only what changes. */
static bool fault_undefined(const struct form *f, const struct isa_state *in,
                            const struct isa_code *code, const struct isa_outcome *host,
                            const struct isa_outcome *here)
{
    return (here->signal == 0 && host->signal != 0 && empty_mask(f, in, code)) ||
           (f->mnemonic == ZYDIS_MNEMONIC_ARPL && host->signal == 0 && here->signal != 0);
}

/* Is the state equal where the SDM defines it? */
static bool same(const struct form *f, struct isa_outcome *host, const struct isa_outcome *here,
                 struct difference *d)
{
    const struct exemption *ex = exemption_of(f);
    bool results = ex == NULL || ex->what == SKIP_FSW || ex->what == SKIP_C1;
    bool fsw = ex == NULL || ex->what == SKIP_C1;
    uint64_t mask = FLAGS_ARITH | FLAG_DF;
    unsigned regs = f->mode == ISA_64 ? 16 : 8;

    if (host->signal != here->signal) {
        (void)snprintf(d->text, sizeof d->text, "host: %s, here: %s",
                       host->signal == 0 ? "no exception" : strsignal(host->signal),
                       here->signal == 0 ? "no exception" : strsignal(here->signal));
        return false;
    }
    if (host->signal == 0) {
        mask &= ~(uint64_t)f->flags_undefined;
    }
    for (unsigned i = 0; i < regs && results; i++) {
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
        (void)snprintf(d->text, sizeof d->text, "flags: host %llx, here %llx (compared: %llx)",
                       (unsigned long long)(host->s.rflags & mask),
                       (unsigned long long)(here->s.rflags & mask), (unsigned long long)mask);
        return false;
    }
    if (host->signal != 0 && f->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ) {
        fsw = false; /* vendors differ in when the MMX state is entered */
    }
    if (ex != NULL && ex->what == SKIP_C1) {
        host->s.fx[3] = (uint8_t)((host->s.fx[3] & ~2) | (here->s.fx[3] & 2));
    }
    return same_fp(host->s.fx, here->s.fx, results, fsw, d) &&
           (!results || (same_bytes(host->s.data, here->s.data, DATA_SIZE, "data", d) &&
                         same_bytes(host->s.stack, here->s.stack, STACK_SIZE, "stack", d)));
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
static void check_form(struct form *f)
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
        native_step(f->mode, code.bytes, code.len, f->rep, &in, &host);
        ours_step(f->mode, code.bytes, code.len, f->rep, &in, &here);
        f->trials++;
        if (!undefined_shift(f, &in, &code) && !fault_undefined(f, &in, &code, &host, &here) &&
            !same(f, &host, &here, &d)) {
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

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", 1, NULL, 's'},    {"trials", 1, NULL, 't'},
                                          {"only", 1, NULL, 'o'},    {"table", 1, NULL, 'f'},
                                          {"verbose", 0, NULL, 'v'}, {0}};
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
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static struct forms forms;
    unsigned count[4] = {0}, differ = 0, missing = 0;

    parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %llu\n", (unsigned long long)opt.seed);
    if (native_open() != 0) {
        printf("this host cannot be single-stepped\n");
        return 77;
    }
    PLX_CHECK(ours_open() == 0);
    for (enum isa_mode m = 0; m < ISA_MODES; m++) {
        enumerate(m, &forms);
    }
    for (unsigned i = 0; i < forms.n; i++) {
        struct form *f = &forms.items[i];
        const struct exemption *ex = exemption_of(f);
        if (opt.only != NULL && strstr(f->name, opt.only) == NULL) {
            continue;
        }
        count[f->class]++;
        if (f->class == FORM_PRIVILEGED && witness_of(f) == NULL) {
            printf("UNNAMED  %s-bit  %s: no test answers for it\n", mode_names[f->mode], f->name);
            missing++;
        }
        if (f->class == FORM_MISSING) {
            printf("MISSING  %s-bit  %s\n", mode_names[f->mode], f->name);
            missing++;
        } else if (f->class == FORM_CHECKED && (ex == NULL || ex->what != SKIP_FORM)) {
            check_form(f);
            differ += f->differ != 0;
        }
    }
    missing += witnesses_check(opt.only == NULL);
    native_close();
    ours_close();
    if (opt.table != NULL && write_table(&forms) != 0) {
        return 1;
    }
    printf("%u forms: %u checked against this host, %u refused, %u privileged, %u missing; "
           "%u differ\n",
           forms.n, count[FORM_CHECKED], count[FORM_REFUSED], count[FORM_PRIVILEGED], missing,
           differ);
    return missing == 0 && differ == 0 ? 0 : 1;
}
