/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/ours.c - one instruction on the interpreter: ring 3 under paging, at the same
 * addresses as the child of native.c; exceptions arrive in ring 0 through a real IDT.
 *
 * Guest-physical layout: 0x1000 PML4, 0x2000 PDPT, 0x3000 PD, 0x4000 PT, 0x10000 code,
 * 0x20000 data, 0x30000 stack, 0x40000 system page (GDT, TSS, IDT, LDT), 0x44000 ring-0 stack. */
#include <signal.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"
#include "vmm/engine/engine.h"
#include "vmm/sched/cpu_section.h"

enum {
    GPA_PML4 = 0x1000,
    GPA_PDPT = 0x2000,
    GPA_PD = 0x3000,
    GPA_PT = 0x4000,
    GPA_CODE = 0x10000,
    GPA_DATA = 0x20000,
    GPA_STACK = 0x30000,
    GPA_SYS = 0x40000,
    GPA_SYS_STACK = 0x44000,
    GPA_HLT = 0x48000,
    BUDGET = 4096,
};

#define SYS_AT       UINT64_C(0x10100000)
#define SYS_STACK_AT UINT64_C(0x10104000)
#define HLT_AT       UINT64_C(0x10108000)
enum { GDT_OFF = 0, TSS_OFF = 0x200, IDT_OFF = 0x1000 };
enum {
    SEL_K_CODE = 0x08,
    SEL_K_DATA = 0x10,
    SEL_U32 = 0x23,
    SEL_U_DATA = 0x2b,
    SEL_U64 = 0x33,
    SEL_TSS = 0x40
};

static struct ram *ram;
static struct vcpu *vcpu;
static struct cpu clean; /* state in front of any step */

static void put(gpa_t gpa, uint64_t value, unsigned len)
{
    PLX_CHECK(ram_write(ram, gpa, &value, len) == 0);
}

static void map_pages(uint64_t at, gpa_t gpa, uint64_t len, uint64_t flags)
{
    for (uint64_t off = 0; off < len; off += PAGE_SIZE) {
        put(GPA_PT + ((at + off) >> 12 & 511) * 8, (gpa + off) | flags, 8);
    }
}

static void build_tables(void)
{
    put(GPA_PML4, GPA_PDPT | 7, 8);
    put(GPA_PDPT, GPA_PD | 7, 8);
    put(GPA_PD + (CODE_AT >> 21 & 511) * 8, GPA_PT | 7, 8);
    map_pages(CODE_AT, GPA_CODE, CODE_SIZE, 7);
    map_pages(DATA_AT, GPA_DATA, DATA_SIZE, 7);
    map_pages(STACK_AT, GPA_STACK, STACK_SIZE, 7);
    map_pages(SYS_AT, GPA_SYS, 0x4000, 3);
    map_pages(SYS_STACK_AT, GPA_SYS_STACK, 0x4000, 3);
    map_pages(HLT_AT, GPA_HLT, 0x1000, 3);
}

/* GDT as Linux lays it out for user space; one HLT a vector; gates of ring 3 where INT may come. */
static void build_system(void)
{
    put(GPA_SYS + GDT_OFF + SEL_K_CODE, 0x00af9b000000ffff, 8);
    put(GPA_SYS + GDT_OFF + SEL_K_DATA, 0x00cf93000000ffff, 8);
    put(GPA_SYS + GDT_OFF + (SEL_U32 & ~7), 0x00cffb000000ffff, 8);
    put(GPA_SYS + GDT_OFF + (SEL_U_DATA & ~7), 0x00cff3000000ffff, 8);
    put(GPA_SYS + GDT_OFF + (SEL_U64 & ~7), 0x00affb000000ffff, 8);
    put(GPA_SYS + TSS_OFF + 4, SYS_STACK_AT + 0x4000, 8);
    for (uint64_t vec = 0; vec < 256; vec++) {
        uint64_t at = HLT_AT + vec * 16, gate = GPA_SYS + IDT_OFF + vec * 16;
        put(gate,
            (at & 0xffff) | SEL_K_CODE << 16 | UINT64_C(0x8e) << 40 | (at >> 16 & 0xffff) << 48, 8);
        put(gate + 8, at >> 32, 8);
        put(GPA_HLT + vec * 16, 0xf4, 1);
    }
}

static struct cpu_seg segment(uint16_t sel, uint16_t attr, uint64_t base, uint32_t limit)
{
    return (struct cpu_seg){.sel = sel, .attr = attr, .limit = limit, .base = base};
}

static void build_state(struct cpu *c)
{
    c->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    c->cr3 = GPA_PML4;
    c->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
    c->efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
    c->xcr0 = 3;
    c->gdtr = (struct cpu_dtable){.base = SYS_AT + GDT_OFF, .limit = 0x1ff};
    c->idtr = (struct cpu_dtable){.base = SYS_AT + IDT_OFF, .limit = 0xfff};
    c->tr = segment(SEL_TSS, SEG_P | 0xb, SYS_AT + TSS_OFF, 0x67);
    c->ldtr = segment(0, SEG_NULL, 0, 0);
}

int ours_open(void)
{
    static const struct vcpu_ops no_machine;
    struct engine_config cfg = {.bsp = true, .ops = &no_machine};
    struct plx_err err;

    if (ram_create(RAM_MIN, &ram, &err) != 0) {
        return -1;
    }
    cfg.ram = ram;
    if (engine_interp.create(&cfg, &vcpu, &err) != 0) {
        return -1;
    }
    build_tables();
    build_system();
    clean = vcpu->c;
    build_state(&clean);
    return 0;
}

void ours_close(void)
{
    engine_interp.destroy(vcpu);
    ram_destroy(ram);
}

static void set_mode(struct cpu *c, enum isa_mode mode)
{
    const uint16_t code = SEG_P | SEG_DPL | SEG_S | SEG_CODE | SEG_RW | SEG_ACCESSED;
    const uint16_t data = SEG_P | SEG_DPL | SEG_S | SEG_RW | SEG_ACCESSED;
    struct cpu_seg flat = segment(SEL_U_DATA, data | SEG_DB | SEG_G, 0, UINT32_MAX);

    for (int i = 0; i < SEG_COUNT; i++) {
        c->seg[i] = flat;
    }
    c->seg[SEG_FS] = c->seg[SEG_GS] = segment(0, SEG_NULL, 0, 0);
    switch (mode) {
    case ISA_64:
        c->seg[SEG_CS] = segment(SEL_U64, code | SEG_L | SEG_G, 0, UINT32_MAX);
        break;
    case ISA_32:
        c->seg[SEG_CS] = segment(SEL_U32, code | SEG_DB | SEG_G, 0, UINT32_MAX);
        break;
    default:
        c->seg[SEG_CS] = segment(0x07, code, CODE_AT, 0xffff);
        c->seg[SEG_DS] = c->seg[SEG_ES] = segment(0x0f, data, DATA_AT, 0xffff);
        c->seg[SEG_SS] = segment(0x17, data, STACK_AT, 0xffff);
        break;
    }
}

static void load_fx(struct cpu_fpu *f, const uint8_t *fx)
{
    unsigned top;

    memcpy(&f->fcw, fx, 2);
    memcpy(&f->fsw, fx + 2, 2);
    f->ftw = fx[4];
    top = f->fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(f->st[(top + i) & 7], fx + 32 + i * 16, 10);
    }
    memcpy(&f->mxcsr, fx + 24, 4);
    memcpy(f->xmm, fx + 160, sizeof f->xmm);
}

static void store_fx(const struct cpu_fpu *f, uint8_t *fx)
{
    unsigned top = f->fsw >> 11 & 7;

    memcpy(fx, &f->fcw, 2);
    memcpy(fx + 2, &f->fsw, 2);
    fx[4] = f->ftw;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(fx + 32 + i * 16, f->st[(top + i) & 7], 10);
    }
    memcpy(fx + 24, &f->mxcsr, 4);
    memcpy(fx + 160, f->xmm, sizeof f->xmm);
}

/* The signal Linux sends for an exception of ring 3. */
static int signal_of(unsigned vector)
{
    switch (vector) {
    case VEC_DE:
    case VEC_MF:
    case VEC_XM:
        return SIGFPE;
    case VEC_UD:
        return SIGILL;
    case VEC_AC:
    case VEC_SS:
    case VEC_NP:
        return SIGBUS;
    case VEC_DB:
    case VEC_BP:
        return SIGTRAP;
    default:
        return SIGSEGV;
    }
}

/* Ring 0 was entered: what the exception pushed is where the program was. */
static void unwind_exception(struct cpu *c, struct isa_outcome *out)
{
    unsigned vector = (unsigned)((c->rip - 1 - HLT_AT) / 16);
    bool error = (1u << vector & 0x27d00) != 0; /* #DF #TS #NP #SS #GP #PF #AC */
    uint64_t frame[5];

    PLX_CHECK(ram_read(ram, c->gpr[RSP] + (error ? 8 : 0) - SYS_STACK_AT + GPA_SYS_STACK, frame,
                       sizeof frame) == 0);
    out->signal = signal_of(vector);
    c->rip = frame[0];
    c->rflags = frame[2];
    c->gpr[RSP] = frame[3];
}

static void load_state(enum isa_mode mode, const struct isa_state *in)
{
    struct cpu *c = &vcpu->c;

    *c = clean;
    set_mode(c, mode);
    memcpy(c->gpr, in->gpr, sizeof c->gpr);
    c->seg[SEG_FS].base = mode == ISA_64 ? in->fs_base : 0;
    c->seg[SEG_GS].base = mode == ISA_64 ? in->gs_base : 0;
    c->rip = in->rip;
    c->rflags = in->rflags | FLAG_ONE | FLAG_IF;
    load_fx(&c->fpu, in->fx);
    engine_interp.state_changed(vcpu);
}

void ours_state(struct isa_state *out)
{
    const struct cpu *c = &vcpu->c;

    memcpy(out->gpr, c->gpr, sizeof out->gpr);
    out->rip = c->rip;
    out->rflags = c->rflags;
    store_fx(&c->fpu, out->fx);
    PLX_CHECK(ram_read(ram, GPA_DATA, out->data, DATA_SIZE) == 0);
    PLX_CHECK(ram_read(ram, GPA_STACK, out->stack, STACK_SIZE) == 0);
}

void ours_step(enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
               const struct isa_state *in, struct isa_outcome *out)
{
    struct cpu *c = &vcpu->c;
    struct engine_run run = {.budget = BUDGET, .part = PART_SERIAL, .t_end = UINT64_MAX, .rate = 1};

    PLX_CHECK(ram_write(ram, GPA_CODE + INSN_OFFSET, code, len) == 0);
    PLX_CHECK(ram_write(ram, GPA_DATA, in->data, DATA_SIZE) == 0);
    PLX_CHECK(ram_write(ram, GPA_STACK, in->stack, STACK_SIZE) == 0);
    load_state(mode, in);
    do { /* a REP goes on until it is done, as on the other side */
        run.budget = 1;
        engine_interp.run(vcpu, &run);
    } while (rep && run.stop == VCPU_BUDGET && c->rip == in->rip && c->progress < BUDGET &&
             c->seg[SEG_CS].sel != SEL_K_CODE);
    out->signal = 0;
    if (c->seg[SEG_CS].sel == SEL_K_CODE) {
        if (run.stop == VCPU_BUDGET) { /* delivered, the HLT is next */
            run.budget = 1;
            engine_interp.run(vcpu, &run);
        }
        unwind_exception(c, out);
    }
    ours_state(&out->s);
}

void ours_write(uint64_t at, const void *bytes, uint64_t len)
{
    PLX_CHECK(at >= CODE_AT && at + len <= STACK_AT + STACK_SIZE);
    PLX_CHECK(ram_write(ram, at - CODE_AT + GPA_CODE, bytes, len) == 0);
}

void ours_start(const struct isa_state *in)
{
    load_state(ISA_64, in);
}

void ours_run(uint64_t budget)
{
    struct engine_run run = {.budget = budget, .part = PART_SERIAL, .t_end = UINT64_MAX, .rate = 1};

    engine_interp.run(vcpu, &run);
    PLX_CHECK(run.stop == VCPU_BUDGET);
}

uint64_t ours_rip(void)
{
    return vcpu->c.rip;
}

uint64_t ours_retired(void)
{
    return vcpu->c.retired;
}

uint64_t ours_progress(void)
{
    return vcpu->c.progress;
}

struct hash128 ours_digest(void)
{
    struct cpu_section section = {.engine = &engine_interp, .v = vcpu};
    struct hash128 h;
    struct wbuf b;

    wbuf_init(&b);
    cpu_section_ops.save(&section, &b);
    wbuf_put(&b, ram->hva, ram->size);
    PLX_CHECK(!b.failed);
    h = hash128(b.data, b.len, 0);
    wbuf_free(&b);
    return h;
}
