/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/ours.c - instructions on an engine: ring 3 under paging, at the same addresses as the
 * child of native.c; exceptions arrive in ring 0 through a real IDT.
 *
 * Guest-physical layout: 0x1000 PML4, 0x2000 PDPT, 0x3000 PD, 0x4000 PT, 0x10000 code,
 * 0x20000 data, 0x30000 stack, 0x40000 system page (GDT, TSS, IDT, LDT), 0x44000 ring-0 stack. */
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tests/isa/ours.h"
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
    GPA_END = 0x49000, /* nothing behind it is ever used */
    STEP_BUDGET = 4096,
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

static void put(struct ours *o, gpa_t gpa, uint64_t value, unsigned len)
{
    PLX_CHECK(ram_write(o->ram, gpa, &value, len) == 0);
}

static void map_pages(struct ours *o, uint64_t at, gpa_t gpa, uint64_t len, uint64_t flags)
{
    for (uint64_t off = 0; off < len; off += PAGE_SIZE) {
        put(o, GPA_PT + ((at + off) >> 12 & 511) * 8, (gpa + off) | flags, 8);
    }
}

static void build_tables(struct ours *o)
{
    put(o, GPA_PML4, GPA_PDPT | 7, 8);
    put(o, GPA_PDPT, GPA_PD | 7, 8);
    put(o, GPA_PD + (CODE_AT >> 21 & 511) * 8, GPA_PT | 7, 8);
    map_pages(o, CODE_AT, GPA_CODE, CODE_SIZE, 7);
    map_pages(o, DATA_AT, GPA_DATA, DATA_SIZE, 7);
    map_pages(o, STACK_AT, GPA_STACK, STACK_SIZE, 7);
    map_pages(o, SYS_AT, GPA_SYS, 0x4000, 3);
    map_pages(o, SYS_STACK_AT, GPA_SYS_STACK, 0x4000, 3);
    map_pages(o, HLT_AT, GPA_HLT, 0x1000, 3);
}

/* GDT as Linux lays it out for user space; one HLT a vector; gates of ring 3 where INT may come. */
static void build_system(struct ours *o)
{
    put(o, GPA_SYS + GDT_OFF + SEL_K_CODE, 0x00af9b000000ffff, 8);
    put(o, GPA_SYS + GDT_OFF + SEL_K_DATA, 0x00cf93000000ffff, 8);
    put(o, GPA_SYS + GDT_OFF + (SEL_U32 & ~7), 0x00cffb000000ffff, 8);
    put(o, GPA_SYS + GDT_OFF + (SEL_U_DATA & ~7), 0x00cff3000000ffff, 8);
    put(o, GPA_SYS + GDT_OFF + (SEL_U64 & ~7), 0x00affb000000ffff, 8);
    put(o, GPA_SYS + TSS_OFF + 4, SYS_STACK_AT + 0x4000, 8);
    put(o, GPA_SYS + TSS_OFF + 0x66, 0xffff, 2); /* no I/O map */
    for (uint64_t vec = 0; vec < 256; vec++) {
        uint64_t at = HLT_AT + vec * 16, gate = GPA_SYS + IDT_OFF + vec * 16;
        put(o, gate,
            (at & 0xffff) | SEL_K_CODE << 16 | UINT64_C(0x8e) << 40 | (at >> 16 & 0xffff) << 48, 8);
        put(o, gate + 8, at >> 32, 8);
        put(o, GPA_HLT + vec * 16, 0xf4, 1);
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
    c->xcr0 = cpu_xcr0_offered(isa_v3 ? CPU_POLLUX_V3 : CPU_POLLUX_V2);
    c->gdtr = (struct cpu_dtable){.base = SYS_AT + GDT_OFF, .limit = 0x1ff};
    c->idtr = (struct cpu_dtable){.base = SYS_AT + IDT_OFF, .limit = 0xfff};
    c->tr = segment(SEL_TSS, SEG_P | 0xb, SYS_AT + TSS_OFF, 0x67);
    c->ldtr = segment(0, SEG_NULL, 0, 0);
}

void ours_open(struct ours *o, const struct engine_ops *engine, unsigned cache_entries)
{
    static const struct vcpu_ops no_machine;
    struct engine_config cfg = {.bsp = true,
                                .model = isa_v3 ? CPU_POLLUX_V3 : CPU_POLLUX_V2,
                                .ops = &no_machine,
                                .cache_entries = cache_entries};
    struct plx_err err;

    o->engine = engine;
    PLX_CHECK(ram_create(RAM_MIN, &o->ram, &err) == 0);
    cfg.ram = o->ram;
    PLX_CHECK(engine->create(&cfg, &o->vcpu, &err) == 0);
    build_tables(o);
    build_system(o);
    o->clean = plx_calloc(1, sizeof *o->clean);
    PLX_CHECK(o->clean != NULL);
    *o->clean = o->vcpu->c;
    build_state(o->clean);
}

void ours_close(struct ours *o)
{
    o->engine->destroy(o->vcpu);
    ram_destroy(o->ram);
    plx_free(o->clean);
}

void ours_forget(struct ours *o)
{
    build_tables(o);
    o->engine->drop(o->vcpu);
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

bool ours_ended(const struct ours *o)
{
    return o->vcpu->c.halted != 0;
}

/* The pages beside the program's: to it they are as absent as on the other side. */
static bool is_system(uint64_t at)
{
    return at >= SYS_AT && at < HLT_AT + PAGE_SIZE;
}

/* Ring 0 was entered: what the exception pushed is where the program was. */
static void unwind_exception(struct ours *o, struct isa_outcome *out)
{
    struct cpu *c = &o->vcpu->c;
    unsigned vector = (unsigned)((c->rip - 1 - HLT_AT) / 16);
    bool error = (1u << vector & 0x27d00) != 0; /* #DF #TS #NP #SS #GP #PF #AC */
    uint64_t frame[6];

    PLX_CHECK(
        ram_read(o->ram, c->gpr[RSP] - SYS_STACK_AT + GPA_SYS_STACK, frame, error ? 48 : 40) == 0);
    if (!error) {
        memmove(frame + 1, frame, 40);
    }
    out->signal = signal_of(vector);
    out->page_fault = vector == VEC_PF;
    out->address = vector == VEC_PF ? c->cr2 : 0;
    out->present = vector == VEC_PF && (frame[0] & PF_P) != 0 && !is_system(c->cr2);
    c->rip = frame[1];
    c->rflags = frame[3];
    c->gpr[RSP] = frame[4];
}

static void load_state(struct ours *o, enum isa_mode mode, const struct isa_state *in)
{
    struct cpu *c = &o->vcpu->c;

    *c = *o->clean;
    set_mode(c, mode);
    memcpy(c->gpr, in->gpr, sizeof c->gpr);
    c->seg[SEG_FS].base = mode == ISA_64 ? in->fs_base : 0;
    c->seg[SEG_GS].base = mode == ISA_64 ? in->gs_base : 0;
    c->rip = in->rip;
    c->rflags = in->rflags | FLAG_ONE | FLAG_IF;
    load_fx(&c->fpu, in->fx);
    if (isa_v3) {
        memcpy(c->fpu.ymm_high, in->ymm_high, sizeof c->fpu.ymm_high);
    }
    o->engine->state_changed(o->vcpu);
}

void ours_state(const struct ours *o, struct isa_state *out)
{
    const struct cpu *c = &o->vcpu->c;

    memcpy(out->gpr, c->gpr, sizeof out->gpr);
    out->rip = c->rip;
    out->rflags = c->rflags;
    store_fx(&c->fpu, out->fx);
    memcpy(out->ymm_high, c->fpu.ymm_high, sizeof out->ymm_high);
    PLX_CHECK(ram_read(o->ram, GPA_DATA, out->data, DATA_SIZE) == 0);
    PLX_CHECK(ram_read(o->ram, GPA_STACK, out->stack, STACK_SIZE) == 0);
}

void ours_outcome(struct ours *o, struct isa_outcome *out)
{
    *out = (struct isa_outcome){.signal = 0};
    if (o->vcpu->c.seg[SEG_CS].sel == SEL_K_CODE) {
        if (!ours_ended(o)) { /* delivered, the HLT is next */
            (void)ours_run(o, 1);
        }
        unwind_exception(o, out);
    }
    ours_state(o, &out->s);
}

void ours_begin(struct ours *o, const uint8_t code[CODE_SIZE], const struct isa_state *in)
{
    if (memcmp(ours_code(o), code, CODE_SIZE) != 0) { /* else what was made of it stays */
        PLX_CHECK(ram_write(o->ram, GPA_CODE, code, CODE_SIZE) == 0);
    }
    PLX_CHECK(ram_write(o->ram, GPA_DATA, in->data, DATA_SIZE) == 0);
    PLX_CHECK(ram_write(o->ram, GPA_STACK, in->stack, STACK_SIZE) == 0);
    load_state(o, ISA_64, in);
}

const uint8_t *ours_code(const struct ours *o)
{
    return o->ram->hva + GPA_CODE;
}

bool ours_equal(const struct ours *a, const struct ours *b)
{
    return memcmp(&a->vcpu->c, &b->vcpu->c, sizeof a->vcpu->c) == 0 &&
           memcmp(a->ram->hva, b->ram->hva, GPA_END) == 0;
}

void ours_step(struct ours *o, enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
               const struct isa_state *in, struct isa_outcome *out)
{
    const struct cpu *c = &o->vcpu->c;
    int stop;

    PLX_CHECK(ram_write(o->ram, GPA_CODE + INSN_OFFSET, code, len) == 0);
    PLX_CHECK(ram_write(o->ram, GPA_DATA, in->data, DATA_SIZE) == 0);
    PLX_CHECK(ram_write(o->ram, GPA_STACK, in->stack, STACK_SIZE) == 0);
    load_state(o, mode, in);
    do { /* a REP goes on until it is done, as on the other side */
        stop = ours_run(o, 1);
    } while (rep && stop == VCPU_BUDGET && c->rip == in->rip && c->progress < STEP_BUDGET &&
             c->seg[SEG_CS].sel != SEL_K_CODE);
    ours_outcome(o, out);
}

void ours_write(struct ours *o, uint64_t at, const void *bytes, uint64_t len)
{
    PLX_CHECK(at >= CODE_AT && at + len <= STACK_AT + STACK_SIZE);
    PLX_CHECK(ram_write(o->ram, at - CODE_AT + GPA_CODE, bytes, len) == 0);
}

void ours_start(struct ours *o, const struct isa_state *in)
{
    load_state(o, ISA_64, in);
}

int ours_run(struct ours *o, uint64_t budget)
{
    struct engine_run run = {
        .budget = budget, .part = PART_SERIAL, .t_end = UINT64_MAX, .rate = 1, .alone = true};

    o->engine->run(o->vcpu, &run);
    return (int)run.stop;
}

struct ours_at ours_at(const struct ours *o)
{
    const struct cpu *c = &o->vcpu->c;

    return (struct ours_at){.rip = c->rip, .retired = c->retired, .progress = c->progress};
}

struct hash128 ours_digest(const struct ours *o)
{
    struct cpu_section section = {.engine = o->engine, .v = o->vcpu};
    struct hash128 h;
    struct wbuf b;

    wbuf_init(&b);
    cpu_section_ops.save(&section, &b);
    wbuf_put(&b, o->ram->hva, o->ram->size);
    PLX_CHECK(!b.failed);
    h = hash128(b.data, b.len, 0);
    wbuf_free(&b);
    return h;
}
