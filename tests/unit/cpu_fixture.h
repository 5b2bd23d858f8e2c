/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/cpu_fixture.h - one vCPU over real memory, without an engine: descriptor tables and
 * page tables are laid out below, and single instructions run from their bytes.
 *
 *   0x1000 GDT   0x2000 IDT   0x3000 TSS   0x8000 stack of CPL 0   0x9000 stack of CPL 3
 *   0xa000 IST1  0x10000 page tables (0 to 1 GiB, user, writable)  0x20000 code */
#ifndef TESTS_UNIT_CPU_FIXTURE_H
#define TESTS_UNIT_CPU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/decode.h"
#include "vmm/cpu/mem.h"
#include "vmm/cpu/msr.h"
#include "vmm/cpu/seg.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    DATA = 0x4000,
    STACK0 = 0x8000,
    STACK3 = 0x9000,
    STACK_IST = 0xa000,
    TABLES = 0x10000,
    CODE = 0x20000,
    HANDLER = 0x30000
};

/* Selectors of the GDT below, RPL 0. */
enum {
    CS32 = 0x08,
    DS32 = 0x10,
    CS64 = 0x18,
    UDS = 0x20,
    UCS32 = 0x28,
    UCS64 = 0x30,
    CS_ABSENT = 0x38,
    TSS_SEL = 0x40,
    DS_ABSENT = 0x50,
    CS_CONFORMING = 0x58,
    DS_READONLY = 0x60,
    CS_EXECONLY = 0x68,
    LDT_SEL = 0x70,
    GATE64 = 0x80,
    GATE32 = 0x90,
    DS_DOWN = 0x98,
    TSS_NEW = 0xa0,
    CS_LD = 0xb0,
    GDT_LIMIT = 0xbf,
    CS_OUTSIDE = 0xc8
};

struct fixture {
    struct vcpu v;
    struct ram *ram;
    uint16_t port;
    uint64_t out, in;
    uint64_t cr8;
};

static inline uint64_t fx_pio_read(void *ctx, uint16_t port, unsigned size)
{
    struct fixture *f = ctx;
    (void)size;
    f->port = port;
    return f->in++;
}

static inline void fx_pio_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    struct fixture *f = ctx;
    (void)size;
    f->port = port;
    f->out = value;
}

static inline int fx_msr_read(void *ctx, uint32_t msr, uint64_t *value)
{
    (void)ctx;
    *value = msr;
    return 0;
}

enum { FX_MSR_REFUSED = 0x1313 };

static inline int fx_msr_write(void *ctx, uint32_t msr, uint64_t value)
{
    (void)ctx;
    (void)msr;
    return value == FX_MSR_REFUSED ? PLX_GUEST_FAULT : 0;
}

static inline uint64_t fx_cr8_read(void *ctx)
{
    return ((struct fixture *)ctx)->cr8;
}

static inline void fx_cr8_write(void *ctx, uint64_t value)
{
    ((struct fixture *)ctx)->cr8 = value;
}

static inline void put64(struct fixture *f, gpa_t at, uint64_t value)
{
    assert_int_equal(ram_write(f->ram, at, &value, 8), 0);
}

static inline uint64_t get64(const struct fixture *f, gpa_t at)
{
    uint64_t value = 0;
    assert_int_equal(ram_read(f->ram, at, &value, 8), 0);
    return value;
}

static inline uint32_t get32(const struct fixture *f, gpa_t at)
{
    return (uint32_t)get64(f, at);
}

/* A flat code or data descriptor: @access is bits 47:40, @flags bits 55:52. */
static inline uint64_t flat(unsigned access, unsigned flags)
{
    return 0x000f00000000ffff | (uint64_t)access << 40 | (uint64_t)flags << 52;
}

/* An 8-byte gate; 64-bit gates have their offset's upper half (0 here) after it. */
static inline uint64_t gate(unsigned access, uint16_t sel, uint32_t off, unsigned low)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low << 32 | (uint64_t)access << 40 |
           (uint64_t)(off >> 16) << 48;
}

static inline uint64_t system_desc_of(unsigned access, uint32_t base, uint32_t limit)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16) << 48 | (uint64_t)(base >> 24) << 56;
}

static inline void fx_tables(struct fixture *f)
{
    put64(f, GDT + CS32, flat(0x9b, 0xc));
    put64(f, GDT + DS32, flat(0x93, 0xc));
    put64(f, GDT + CS64, flat(0x9b, 0xa));
    put64(f, GDT + UDS, flat(0xf3, 0xc));
    put64(f, GDT + UCS32, flat(0xfb, 0xc));
    put64(f, GDT + UCS64, flat(0xfb, 0xa));
    put64(f, GDT + CS_ABSENT, flat(0x1b, 0xa));
    put64(f, GDT + TSS_SEL, system_desc_of(0x8b, TSS, 0x1ff));
    put64(f, GDT + DS_ABSENT, flat(0x13, 0xc));
    put64(f, GDT + CS_CONFORMING, flat(0x9e, 0xa));
    put64(f, GDT + DS_READONLY, flat(0x90, 0xc));
    put64(f, GDT + CS_EXECONLY, flat(0x98, 0xa));
    put64(f, GDT + LDT_SEL, system_desc_of(0x82, 0x5000, 0xff));
    put64(f, GDT + GATE64, gate(0xec, CS64, HANDLER + 0xc00, 0));
    put64(f, GDT + GATE32, gate(0xec, CS32, HANDLER + 0xc00, 2));
    put64(f, GDT + DS_DOWN, system_desc_of(0x97, 0, 0x3fff) | UINT64_C(4) << 52);
    put64(f, GDT + TSS_NEW, system_desc_of(0x89, TSS, 0x67));
    put64(f, GDT + CS_LD, flat(0x9b, 0xe));
    put64(f, TABLES, (TABLES + 0x1000) | 7);
    put64(f, TABLES + 0x1000, 0x87);
}

static const struct vcpu_ops fx_ops = {
    .pio_read = fx_pio_read,
    .pio_write = fx_pio_write,
    .msr_read = fx_msr_read,
    .msr_write = fx_msr_write,
    .cr8_read = fx_cr8_read,
    .cr8_write = fx_cr8_write,
};

static inline struct cpu_seg fx_seg(struct fixture *f, uint16_t sel)
{
    uint64_t raw = get64(f, GDT + (sel & 0xfff8U));
    struct desc d = {.lo = (uint32_t)raw, .hi = (uint32_t)(raw >> 32)};

    d.attr = (uint16_t)(d.hi >> 8 & 0xf0ff);
    return desc_seg(&d, sel);
}

static inline void fx_segments(struct fixture *f, uint16_t cs, uint16_t ds)
{
    struct cpu *c = &f->v.c;

    c->seg[SEG_CS] = fx_seg(f, cs);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (i != SEG_CS) {
            c->seg[i] = fx_seg(f, ds);
        }
    }
    c->tr = fx_seg(f, TSS_SEL);
    c->ldtr = (struct cpu_seg){.attr = SEG_NULL};
    c->gdtr = (struct cpu_dtable){.base = GDT, .limit = GDT_LIMIT};
    c->idtr = (struct cpu_dtable){.base = IDT, .limit = 0xfff};
    c->rip = CODE;
    c->gpr[RSP] = (cs & 3) != 0 ? STACK3 : STACK0;
    f->v.next_rip = CODE + 2;
    vcpu_context_changed(&f->v);
}

/* 64-bit mode. IDT: every vector has an interrupt gate of DPL 0 to HANDLER + vector. */
static inline void fx_long(struct fixture *f, unsigned cpl)
{
    struct cpu *c = &f->v.c;

    cpu_reset(c, 0);
    c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
    c->cr4 = CR4_PAE | CR4_OSFXSR;
    c->cr3 = TABLES;
    c->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
    for (unsigned i = 0; i < 256; i++) {
        put64(f, IDT + i * 16, gate(0x8e, CS64, HANDLER + i, 0));
        put64(f, IDT + i * 16 + 8, 0);
    }
    put64(f, TSS + 4, STACK0);
    put64(f, TSS + 0x24, STACK_IST);
    fx_segments(f, cpl == 0 ? CS64 : UCS64 | 3, cpl == 0 ? DS32 : UDS | 3);
}

/* Protected mode without paging, 32-bit gates. */
static inline void fx_prot32(struct fixture *f, unsigned cpl)
{
    struct cpu *c = &f->v.c;

    cpu_reset(c, 0);
    c->cr0 = CR0_PE | CR0_ET;
    for (unsigned i = 0; i < 256; i++) {
        put64(f, IDT + i * 8, gate(0x8e, CS32, HANDLER + i, 0));
    }
    put64(f, TSS + 4, STACK0 | (uint64_t)DS32 << 32);
    fx_segments(f, cpl == 0 ? CS32 : UCS32 | 3, cpl == 0 ? DS32 : UDS | 3);
}

static inline int fx_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    decode_init();
    assert_int_equal(ram_create(RAM_MIN, &f->ram, NULL), 0);
    f->v.ram = f->ram;
    f->v.ops = &fx_ops;
    f->v.ops_ctx = f;
    f->v.rate = 65536;
    f->v.t_end = UINT64_MAX;
    f->v.stop_progress = UINT64_MAX;
    cpu_reset(&f->v.c, 0);
    assert_int_equal(vcpu_mem_create(&f->v, 0, NULL), 0);
    fx_tables(f);
    fx_long(f, 0);
    *state = f;
    return 0;
}

static inline int fx_teardown(void **state)
{
    struct fixture *f = *state;

    vcpu_mem_destroy(&f->v);
    ram_destroy(f->ram);
    free(f);
    return 0;
}

enum { NO_FAULT = -1 };

static inline enum decode_mode fx_mode(const struct cpu *c)
{
    switch (cpu_mode_of(c)) {
    case CPU_LONG64:
        return DECODE_64;
    case CPU_COMPAT32:
    case CPU_PROT32:
        return DECODE_32;
    default:
        return DECODE_16;
    }
}

/* Run one instruction; rip moves on when it does not fault. The vector raised, or NO_FAULT. */
static inline int fx_run(struct fixture *f, const uint8_t *bytes, size_t len)
{
    struct vcpu *v = &f->v;
    struct insn in;

    if (setjmp(v->fault_jmp) != 0) {
        return v->fault_vector;
    }
    assert_int_equal(decode_insn(v->model, fx_mode(&v->c), bytes, len, &in), 0);
    v->next_rip = v->c.rip + in.len;
    in.fn(v, &in);
    v->c.rip = v->next_rip;
    return NO_FAULT;
}

#define RUN(f, ...) \
    fx_run((f), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The instruction faults with this vector and error code. */
#define assert_fault(f, vector, error, ...)                                         \
    do {                                                                            \
        assert_int_equal(RUN(f, __VA_ARGS__), (vector));                            \
        assert_int_equal((f)->v.fault_has_error ? (f)->v.fault_error : 0, (error)); \
    } while (0)

#define FX_TEST(t) cmocka_unit_test_setup_teardown(t, fx_setup, fx_teardown)

#endif
