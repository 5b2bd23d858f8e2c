/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/exempt.c - what of an instruction's outcome need not equal this host's: one table of
 * instructions, and what depends on operands and faults. */
#include <math.h>
#include <signal.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"
#include "vmm/cpu/cpu.h"

static const struct exemption exemptions[] = {
    {ZYDIS_MNEMONIC_RCPPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RCPSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_RSQRTSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRCPPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRCPSS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRSQRTPS, SKIP_RESULT, "one algorithm of ours"},
    {ZYDIS_MNEMONIC_VRSQRTSS, SKIP_RESULT, "one algorithm of ours"},
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
    {ZYDIS_MNEMONIC_DPPS, SKIP_NAN, "of several NaNs any may be returned"},
    {ZYDIS_MNEMONIC_DPPD, SKIP_NAN, "of several NaNs any may be returned"},
    {ZYDIS_MNEMONIC_VDPPS, SKIP_NAN, "of several NaNs any may be returned"},
    {ZYDIS_MNEMONIC_VDPPD, SKIP_NAN, "of several NaNs any may be returned"},
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

const struct exemption *exemption_of(const struct form *f)
{
    for (size_t i = 0; i < PLX_COUNT(exemptions); i++) {
        if (exemptions[i].mnemonic == f->mnemonic) {
            return &exemptions[i];
        }
    }
    return NULL;
}

enum { MX_OVERFLOW = 0x08, MX_UNDERFLOW = 0x10, MX_PRECISION = 0x20, MX_MASKS_AT = 7 };

/* After an unmasked overflow or underflow PE says whether rounding with an unbounded exponent was
 * inexact. The model computes with exceptions masked and always sets it. */
bool same_mxcsr(uint32_t a, uint32_t b)
{
    uint32_t fired = a & ~(a >> MX_MASKS_AT) & (MX_OVERFLOW | MX_UNDERFLOW);

    return a == b || (fired != 0 && (a | MX_PRECISION) == b);
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

static bool x87_store(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FST || m == ZYDIS_MNEMONIC_FSTP || m == ZYDIS_MNEMONIC_FIST ||
           m == ZYDIS_MNEMONIC_FISTP || m == ZYDIS_MNEMONIC_FISTTP || m == ZYDIS_MNEMONIC_FBSTP;
}

/* For x87 stores that an unmasked exception stops Intel's do not look at the address: the exception
 * is raised by the next instruction of x87. And they move 80 bits in two pieces, which matters
 * where the second is not canonical. */
static bool x87_fault(const struct form *f, const struct isa_outcome *host,
                      const struct isa_outcome *here)
{
    bool bad_address = here->signal == SIGSEGV || here->signal == SIGBUS;
    bool stopped = (host->s.fx[2] & 0x80) != 0 /* ES */;

    return (x87_store(f->mnemonic) && bad_address && stopped &&
            (host->signal == 0 || host->signal == SIGFPE)) ||
           (strstr(f->name, " m80") != NULL && bad_address && !here->page_fault &&
            host->page_fault);
}

/* Results undefined by count; and faults that the SDM leaves to the implementation, or where
 * vendors differ:
 * - of a store that is not done in the end: for a mask of zeros; ARPL, of which the SDM names only
 * the segment's, and AMD's writes only what changes;
 * - x87 stores, and moves of 80 bits;
 * - which comes first, #GP of what is not aligned or #SS of what is not canonical;
 * - MOVSXD of 16 bits, which reads 16 bits of memory by the SDM and 32 on AMD's processors: these
 * may fault by what follows;
 * - VCVTPS2PH's order of floating-point exception and page fault;
 * - an access that wraps around a segment of 4 GiB ("Limit Checking"); in flat 32-bit code nothing
 * else is beyond a stack segment. */
bool exempt_fault(const struct form *f, const struct isa_state *in, const struct isa_code *code,
                  const struct isa_outcome *host, const struct isa_outcome *here)
{
    bool bad_address = here->signal == SIGSEGV || here->signal == SIGBUS;

    return undefined_shift(f, in, code) ||
           (here->signal == 0 && host->signal != 0 && empty_mask(f, in, code)) ||
           (f->mnemonic == ZYDIS_MNEMONIC_ARPL && host->signal == 0 && here->signal != 0) ||
           x87_fault(f, host, here) ||
           ((f->fp || f->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) && here->signal == SIGBUS &&
            host->signal == SIGSEGV && !host->page_fault) ||
           (f->mnemonic == ZYDIS_MNEMONIC_MOVSXD && strstr(f->name, " r16") != NULL &&
            (host->signal == SIGSEGV || host->signal == SIGBUS) &&
            (here->signal == 0 || here->page_fault != host->page_fault)) ||
           (f->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH && bad_address && host->signal != 0) ||
           (f->mode == ISA_32 && here->signal == SIGBUS && host->signal == SIGSEGV);
}

/* What an instruction that faults has written or changed by then, where vendors differ: Intel's
 * push the return address of a CALL to a bad target, and the half of an 80-bit number that fits the
 * page before a bad one; and leave the MMX state alone when a store of an MMX register faults, or
 * not. */
static bool memory_undefined(const struct form *f, const struct isa_outcome *host)
{
    return host->signal != 0 && (f->mnemonic == ZYDIS_MNEMONIC_CALL || x87_store(f->mnemonic));
}

/* And the flags of a REP CMPS or SCAS that faults at a later iteration: by the SDM those from
 * before the instruction. Here an iteration leaves nothing but registers, so they are of the last
 * one. */
static bool flags_undefined(const struct form *f, const struct isa_outcome *host)
{
    return f->rep && host->signal != 0;
}

static bool mmx_undefined(const struct form *f, const struct isa_outcome *host)
{
    return host->signal != 0 &&
           (f->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || f->mnemonic == ZYDIS_MNEMONIC_MOVNTQ ||
            ((f->mnemonic == ZYDIS_MNEMONIC_MOVQ || f->mnemonic == ZYDIS_MNEMONIC_MOVD) &&
             strstr(f->name, ", mm") != NULL));
}

/* Of several NaNs a dot product may return any; Intel's return others in other elements. */
static void same_nan(unsigned size, struct isa_state *host, const struct isa_state *here)
{
    for (unsigned at = 0; at < 512; at += size) {
        uint8_t *a = at < 256 ? host->fx + 160 + at : host->ymm_high + at - 256;
        const uint8_t *b = at < 256 ? here->fx + 160 + at : here->ymm_high + at - 256;
        double x = 0, y = 0;
        float fx, fy;
        if (size == 8) {
            memcpy(&x, a, 8);
            memcpy(&y, b, 8);
        } else {
            memcpy(&fx, a, 4);
            memcpy(&fy, b, 4);
            x = fx;
            y = fy;
        }
        if (isnan(x) && isnan(y)) {
            memcpy(a, b, size);
        }
    }
}

/* When a gather faults, the SDM has the rest of its mask extended from the sign bits and what is
 * above it zeroed; AMD's processors leave that as it was. And it has what is above the result
 * zeroed in the end, Intel's do so first. */
static void after_gather(enum isa_mode mode, const struct isa_code *code, struct isa_state *host,
                         const struct isa_state *here)
{
    const uint8_t *vex = memchr(code->bytes, 0xc4, code->len);
    unsigned reg = ~(unsigned)vex[2] >> 3 & (mode == ISA_64 ? 15 : 7);
    unsigned size = (vex[2] & 0x80) != 0 ? 8 : 4, wide = (vex[2] & 4) != 0 ? 32 : 16;
    unsigned n = wide / ((vex[3] & 1) != 0 || size == 8 ? 8 : 4);
    unsigned to = (code->bytes[(size_t)(vex - code->bytes) + 4] >> 3 & 7) |
                  (mode == ISA_64 && (vex[1] & 0x80) == 0 ? 8 : 0);

    if (wide == 16) {
        memcpy(host->ymm_high + to * 16, here->ymm_high + to * 16, 16);
    }
    for (unsigned i = 0; i < 32 / size; i++) {
        uint8_t *half = i * size < 16 ? host->fx + 160 + reg * 16 : host->ymm_high + reg * 16;
        uint8_t *at = half + i * size % 16;
        memset(at, i < n && (at[size - 1] & 0x80) != 0 ? 0xff : 0, size);
    }
}

static void take_x87(struct isa_state *host, const struct isa_state *here)
{
    memcpy(host->fx + 2, here->fx + 2, 3); /* FSW, tags */
    memcpy(host->fx + 32, here->fx + 32, 128);
}

static void take_memory(struct isa_state *host, const struct isa_state *here)
{
    memcpy(host->data, here->data, DATA_SIZE);
    memcpy(host->stack, here->stack, STACK_SIZE);
}

static void take_results(struct isa_state *host, const struct isa_state *here)
{
    memcpy(host->gpr, here->gpr, sizeof host->gpr);
    memcpy(host->fx + 160, here->fx + 160, 256);
    memcpy(host->ymm_high, here->ymm_high, sizeof host->ymm_high);
    take_x87(host, here);
    take_memory(host, here);
}

void exempt_results(const struct form *f, const struct isa_code *code, struct isa_outcome *host,
                    const struct isa_outcome *here)
{
    const struct exemption *ex = exemption_of(f);
    struct isa_state *a = &host->s;
    const struct isa_state *b = &here->s;

    if (f->vsib && host->signal == SIGSEGV) {
        after_gather(f->mode, code, a, b);
    }
    if (host->signal == 0) {
        a->rflags = (a->rflags & ~(uint64_t)f->flags_undefined) | (b->rflags & f->flags_undefined);
    }
    if (flags_undefined(f, host)) {
        a->rflags = (a->rflags & ~(uint64_t)f->flags_written) | (b->rflags & f->flags_written);
    }
    if (memory_undefined(f, host)) {
        take_memory(a, b);
    }
    if (mmx_undefined(f, host) || (ex != NULL && ex->what == SKIP_FSW)) {
        take_x87(a, b);
    }
    if (ex == NULL) {
        return;
    }
    if (ex->what == SKIP_RESULT) {
        take_results(a, b);
    } else if (ex->what == SKIP_C1) {
        a->fx[3] = (uint8_t)((a->fx[3] & ~2) | (b->fx[3] & 2));
    } else if (ex->what == SKIP_NAN) {
        bool single = f->mnemonic == ZYDIS_MNEMONIC_DPPS || f->mnemonic == ZYDIS_MNEMONIC_VDPPS;
        same_nan(single ? 4 : 8, a, b);
    }
}

/* W says nothing to AMD's VPERMQ and VPERMPD, where W0 is #UD by the SDM; and is #UD to its VPEXTRD
 * and VPINSRD outside of 64-bit mode, where the SDM has it ignored. */
bool exempt_vex(const struct form *f)
{
    switch (f->mnemonic) {
    case ZYDIS_MNEMONIC_VPERMQ:
    case ZYDIS_MNEMONIC_VPERMPD:
        return true;
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
        return f->mode != ISA_64;
    default:
        return false;
    }
}
