/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/cpu_section.c - see cpu_section.h. */
#include "vmm/sched/cpu_section.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/msr.h"
#include "vmm/cpu/seg.h"

#define FIELD(f) #f, offsetof(struct cpu, f), (uint8_t)sizeof(((struct cpu *)0)->f), 1, 0
#define ARRAY(f)                                                              \
#f, offsetof(struct cpu, f[0]), (uint8_t)sizeof(((struct cpu *)0)->f[0]), \
        (uint8_t)PLX_COUNT(((struct cpu *)0)->f), (uint16_t)sizeof(((struct cpu *)0)->f[0])
/* An array of structs: one member of each. */
#define MEMBER(f, m)                                                                     \
#f "." #m, offsetof(struct cpu, f[0].m), (uint8_t)sizeof(((struct cpu *)0)->f[0].m), \
        (uint8_t)PLX_COUNT(((struct cpu *)0)->f), (uint16_t)sizeof(((struct cpu *)0)->f[0])
#define BYTES(f) #f, offsetof(struct cpu, f), 1, (uint8_t)sizeof(((struct cpu *)0)->f), 1

/* Order and width are the form of version 1; new fields go at the end, with a new version. The last
 * is of CPU_SECTION_VERSION_AVX. */
const struct cpu_field cpu_fields[] = {
    {ARRAY(gpr)},           {FIELD(rip)},
    {FIELD(rflags)},        {MEMBER(seg, sel)},
    {MEMBER(seg, attr)},    {MEMBER(seg, limit)},
    {MEMBER(seg, base)},    {FIELD(ldtr.sel)},
    {FIELD(ldtr.attr)},     {FIELD(ldtr.limit)},
    {FIELD(ldtr.base)},     {FIELD(tr.sel)},
    {FIELD(tr.attr)},       {FIELD(tr.limit)},
    {FIELD(tr.base)},       {FIELD(gdtr.base)},
    {FIELD(gdtr.limit)},    {FIELD(idtr.base)},
    {FIELD(idtr.limit)},    {FIELD(cr0)},
    {FIELD(cr2)},           {FIELD(cr3)},
    {FIELD(cr4)},           {FIELD(xcr0)},
    {FIELD(efer)},          {ARRAY(dr)},
    {ARRAY(pdpte)},         {FIELD(star)},
    {FIELD(lstar)},         {FIELD(cstar)},
    {FIELD(sfmask)},        {FIELD(kernel_gs_base)},
    {FIELD(sysenter_cs)},   {FIELD(sysenter_esp)},
    {FIELD(sysenter_eip)},  {FIELD(pat)},
    {FIELD(tsc_aux)},
#ifndef BREAK_R1 /* make/rules.mk: state in no section */
    {FIELD(tsc_adjust)},
#endif
    {FIELD(misc_enable)},   {FIELD(xss)},
    {FIELD(mtrr_def_type)}, {ARRAY(mtrr_fixed)},
    {ARRAY(mtrr_phys)},     {BYTES(fpu.st)},
    {FIELD(fpu.fcw)},       {FIELD(fpu.fsw)},
    {FIELD(fpu.ftw)},       {FIELD(fpu.fop)},
    {FIELD(fpu.fip)},       {FIELD(fpu.fdp)},
    {FIELD(fpu.fcs)},       {FIELD(fpu.fds)},
    {FIELD(fpu.mxcsr)},     {"fpu.xmm", offsetof(struct cpu, fpu.xmm), 8, 32, 8},
    {ARRAY(rng.s)},         {FIELD(spec_ctrl)},
    {FIELD(retired)},       {FIELD(progress)},
    {FIELD(pause_run)},     {FIELD(sti_shadow)},
    {FIELD(movss_shadow)},  {FIELD(nmi_pending)},
    {FIELD(nmi_blocked)},   {FIELD(halted)},
    {FIELD(wait_sipi)},     {"fpu.ymm_high", offsetof(struct cpu, fpu.ymm_high), 8, 32, 8},
};

unsigned cpu_nfields(enum cpu_model model)
{
    return PLX_COUNT(cpu_fields) - (model == CPU_POLLUX_V2 ? 1 : 0);
}

/* All of the registers were replaced: what the vCPU was told about its last run holds no more.
 * (Whether the machine has stopped is in its own section.) */
static void replaced(struct cpu_section *s)
{
    s->v->stopping = false;
    s->v->yield = false;
    s->engine->state_changed(s->v);
}

static void section_reset(void *dev)
{
    struct cpu_section *s = dev;

    cpu_reset(&s->v->c, s->id);
    if (!(s->id == 0)) {
        s->v->c.wait_sipi = 1;
    }
    replaced(s);
}

void cpu_field_save(const struct cpu_field *f, const struct cpu *c, struct wbuf *out)
{
    for (unsigned k = 0; k < f->count; k++) {
        wbuf_put(out, (const uint8_t *)c + f->offset + (size_t)k * f->stride, f->width);
    }
}

static void section_save(const void *dev, struct wbuf *out)
{
    const struct cpu_section *s = dev;

    for (unsigned i = 0; i < cpu_nfields(s->v->model); i++) {
        cpu_field_save(&cpu_fields[i], &s->v->c, out);
    }
}

/* A value, or a combination of values, that no processor of this model can hold. */
struct rule {
    const char *name;
    bool (*ok)(const struct cpu *c);
};

#define FLAGS_KNOWN                                                                         \
    (FLAGS_ARITH | FLAG_ONE | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | \
     FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)
#define CR0_KNOWN                                                                              \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
     CR0_PG)
#define SEG_KNOWN (SEG_TYPE | SEG_S | SEG_DPL | SEG_P | SEG_NULL | SEG_AVL | SEG_L | SEG_DB | SEG_G)

static bool rflags_ok(const struct cpu *c)
{
    return (c->rflags & ~FLAGS_KNOWN) == 0 && (c->rflags & FLAG_ONE) != 0;
}

/* In 64-bit mode anything: running off the canonical half is a fault of the next fetch. */
static bool rip_ok(const struct cpu *c)
{
    return cpu_is64(c) || c->rip <= UINT32_MAX;
}

static bool cr0_ok(const struct cpu *c)
{
    return (c->cr0 & ~CR0_KNOWN) == 0 && ((c->cr0 & CR0_PG) == 0 || (c->cr0 & CR0_PE) != 0) &&
           ((c->cr0 & CR0_NW) == 0 || (c->cr0 & CR0_CD) != 0);
}

static bool cr3_ok(const struct cpu *c)
{
    return (c->cr3 >> CPU_PHYS_BITS) == 0;
}

static bool cr4_ok(const struct cpu *c)
{
    return (c->cr4 & ~CR4_OFFERED) == 0 && ((c->cr4 & CR4_PCIDE) == 0 || (c->efer & EFER_LMA) != 0);
}

static bool efer_ok(const struct cpu *c)
{
    bool lma = (c->efer & EFER_LMA) != 0;

    return (c->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)) == 0 &&
           lma == ((c->efer & EFER_LME) != 0 && (c->cr0 & CR0_PG) != 0) &&
           (!lma || (c->cr4 & CR4_PAE) != 0);
}

static bool mode_ok(const struct cpu *c)
{
    return (c->rflags & FLAG_VM) == 0 || ((c->cr0 & CR0_PE) != 0 && (c->efer & EFER_LMA) == 0);
}

static bool segments_ok(const struct cpu *c)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if ((c->seg[i].attr & ~SEG_KNOWN) != 0 || !cpu_canonical(c->seg[i].base)) {
            return false;
        }
    }
    return (c->ldtr.attr & ~SEG_KNOWN) == 0 && cpu_canonical(c->ldtr.base) &&
           (c->tr.attr & ~SEG_KNOWN) == 0 && cpu_canonical(c->tr.base) &&
           cpu_canonical(c->gdtr.base) && cpu_canonical(c->idtr.base);
}

static bool debug_ok(const struct cpu *c)
{
    return (c->dr[6] >> 32) == 0 && (c->dr[7] >> 32) == 0 && c->dr[4] == 0 && c->dr[5] == 0;
}

static bool msrs_ok(const struct cpu *c)
{
    for (unsigned i = 0; i < 64; i += 8) {
        unsigned type = (unsigned)(c->pat >> i) & 0xff;
        if (type > 7 || type == 2 || type == 3) {
            return false;
        }
    }
    return cpu_canonical(c->lstar) && cpu_canonical(c->cstar) && cpu_canonical(c->kernel_gs_base) &&
           cpu_canonical(c->sysenter_esp) && cpu_canonical(c->sysenter_eip) &&
           c->sysenter_cs <= UINT32_MAX && c->sfmask <= UINT32_MAX && c->tsc_aux <= UINT32_MAX &&
           (c->misc_enable | 1) == MISC_ENABLE_RESET && (c->spec_ctrl & ~SPEC_CTRL_OFFERED) == 0 &&
           c->xss == 0;
}

static bool fpu_ok(const struct cpu *c)
{
    return (c->fpu.mxcsr >> 16) == 0 && c->fpu.fop < 0x800;
}

static bool rng_ok(const struct cpu *c)
{
    return (c->rng.s[0] | c->rng.s[1] | c->rng.s[2] | c->rng.s[3]) != 0;
}

static bool switches_ok(const struct cpu *c)
{
    return c->sti_shadow <= 1 && c->movss_shadow <= 1 && c->nmi_pending <= 1 &&
           c->nmi_blocked <= 1 && c->halted <= 1 && c->wait_sipi <= 1;
}

static const struct rule rules[] = {
    {"rflags", rflags_ok},     {"rip", rip_ok},
    {"cr0", cr0_ok},           {"cr3", cr3_ok},
    {"cr4", cr4_ok},           {"efer", efer_ok},
    {"the mode", mode_ok},     {"a segment", segments_ok},
    {"dr6, dr7", debug_ok},    {"an MSR", msrs_ok},
    {"mxcsr, fop", fpu_ok},    {"the generator", rng_ok},
    {"a switch", switches_ok},
};

static int section_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct cpu_section *s = dev;
    struct cpu c;
    uint8_t *at = (uint8_t *)&c;

    if (version != cpu_section_version(s->v->model)) {
        return plx_fail(err, PLX_EVERSION, "cpu%u: section version %" PRIu32, s->id, version);
    }
    memset(&c, 0, sizeof c);
    for (unsigned i = 0; i < cpu_nfields(s->v->model); i++) {
        const struct cpu_field *f = &cpu_fields[i];
        for (unsigned k = 0; k < f->count; k++) {
            rbuf_get(in, at + f->offset + (size_t)k * f->stride, f->width);
        }
    }
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "cpu%u: section too short", s->id);
    }
    if (!cpu_xcr0_valid(s->v->model, c.xcr0)) {
        return plx_fail(err, PLX_ECORRUPT, "cpu%u: xcr0 holds an impossible value", s->id);
    }
    for (size_t i = 0; i < PLX_COUNT(rules); i++) {
        if (!rules[i].ok(&c)) {
            return plx_fail(err, PLX_ECORRUPT, "cpu%u: %s holds an impossible value", s->id,
                            rules[i].name);
        }
    }
    s->v->c = c;
    replaced(s);
    return 0;
}

const struct device_ops cpu_section_ops = {section_reset, section_save, section_load};
