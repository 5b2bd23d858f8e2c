/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/cpu_guest.h - a tiny guest for CPU tests: 4 MiB, identity-mapped, flat segments, an
 * IDT whose handlers are HLTs, so that a test sees which vector came and what was pushed. */
#ifndef TESTS_UNIT_CPU_GUEST_H
#define TESTS_UNIT_CPU_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "vmm/cpu/mem.h"
#include "vmm/engine/engine.h"

enum {
    G_RAM = 4 << 20,
    G_PML4 = 0x1000,
    G_PDPT = 0x2000,
    G_PD = 0x3000,
    G_PT = 0x4000, /* PT: the first 2 MiB */
    G_GDT = 0x5000,
    G_TSS = 0x5800,
    G_IDT = 0x6000,
    G_STUBS = 0x7000,
    G_UNMAPPED = 0x1f0000,
    G_CODE = 0x10000,
    G_STACK = 0x20000,
    G_DATA = 0x30000,
    G_STACK0 = 0x28000,
    SEL_CODE64 = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE32 = 0x18,
    SEL_CODE16 = 0x20,
    SEL_UDATA = 0x2b,
    SEL_UCODE64 = 0x33,
    SEL_UCODE32 = 0x3b,
    SEL_TSS = 0x40,
};
enum guest_mode { GUEST64, GUEST32, GUEST16 };

struct guest {
    const struct engine_ops *engine;
    struct ram *ram;
    struct vcpu *v;
    struct engine_run run;
    uint64_t mmio[8]; /* the last write, reads count up */
    unsigned nmmio;
    int vector; /* to hand out by irq_take */
};

static uint64_t g_mmio_read(void *ctx, gpa_t gpa, unsigned size)
{
    struct guest *g = ctx;
    (void)size;
    return gpa + ++g->nmmio;
}

static void g_mmio_write(void *ctx, gpa_t gpa, unsigned size, uint64_t value)
{
    struct guest *g = ctx;
    g->nmmio++;
    g->mmio[0] = gpa;
    g->mmio[1] = size;
    g->mmio[2] = value;
}

static int g_irq_take(void *ctx)
{
    struct guest *g = ctx;
    int vector = g->vector;
    g->vector = -1;
    g->v->irq_pending = false;
    return vector;
}

static const struct vcpu_ops g_ops = {
    .mmio_read = g_mmio_read, .mmio_write = g_mmio_write, .irq_take = g_irq_take};

static inline void *g_at(struct guest *g, uint64_t gpa)
{
    return ram_page_hva(g->ram, gpa) + PAGE_OFFSET(gpa);
}

static inline void g_put(struct guest *g, uint64_t gpa, uint64_t value, unsigned size)
{
    assert_int_equal(ram_write(g->ram, gpa, &value, size), 0);
}

static inline uint64_t g_get(struct guest *g, uint64_t gpa)
{
    uint64_t value;
    memcpy(&value, g_at(g, gpa), 8);
    return value;
}

static inline void g_desc(struct guest *g, unsigned sel, uint32_t attr)
{
    /* attr: bits 8-15 and 20-23 of the second doubleword, in place; base 0, limit 4 GiB */
    uint64_t high = attr | 0xf0000;
    g_put(g, G_GDT + (sel & ~7U), high << 32 | 0xffff, 8);
}

static inline struct cpu_seg g_seg(uint16_t sel, uint16_t attr)
{
    return (struct cpu_seg){.sel = sel, .attr = attr, .limit = UINT32_MAX};
}

static inline void g_select_mode(struct guest *g, enum guest_mode mode, unsigned cpl)
{
    struct cpu *c = &g->v->c;
    uint16_t dpl = (uint16_t)(cpl << SEG_DPL_SHIFT);
    uint16_t code = (uint16_t)(SEG_S | SEG_P | SEG_CODE | SEG_RW | SEG_ACCESSED | SEG_G | dpl);
    uint16_t data = (uint16_t)(SEG_S | SEG_P | SEG_RW | SEG_ACCESSED | SEG_G | SEG_DB | dpl);

    c->seg[SEG_CS] = mode == GUEST64   ? g_seg(cpl == 3 ? SEL_UCODE64 : SEL_CODE64, code | SEG_L)
                     : mode == GUEST32 ? g_seg(cpl == 3 ? SEL_UCODE32 : SEL_CODE32, code | SEG_DB)
                                       : g_seg(SEL_CODE16, code);
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        if (s != SEG_CS) {
            c->seg[s] = g_seg(cpl == 3 ? SEL_UDATA : SEL_DATA, data);
        }
    }
    g->engine->state_changed(g->v);
}

static inline void g_open_engine(struct guest *g, const struct engine_ops *engine,
                                 const struct shadow_config *shadow, unsigned cache_entries)
{
    memset(g, 0, sizeof *g);
    g->engine = engine;
    g->vector = -1;
    assert_int_equal(ram_create(G_RAM, &g->ram, NULL), 0);
    struct engine_config cfg = {.bsp = true,
                                .vcpus = 1,
                                .ram = g->ram,
                                .ops = &g_ops,
                                .ops_ctx = g,
                                .shadow = shadow,
                                .cache_entries = cache_entries};
    assert_int_equal(engine->create(&cfg, &g->v, NULL), 0);

    g_put(g, G_PML4, G_PDPT | 7, 8);
    g_put(g, G_PDPT, G_PD | 7, 8);
    g_put(g, G_PD, G_PT | 7, 8);
    g_put(g, G_PD + 8, 0x200000 | 0x87, 8);
    g_put(g, G_PD + 16, 0x80000000 | 0x87, 8); /* 4-6 MiB: MMIO */
    for (uint64_t i = 0; i < 512; i++) {
        g_put(g, G_PT + i * 8, i == G_UNMAPPED >> 12 ? 0 : i << 12 | 7, 8);
    }
    g_desc(g, SEL_CODE64, 0xa09b00);
    g_desc(g, SEL_DATA, 0xc09300);
    g_desc(g, SEL_CODE32, 0xc09b00);
    g_desc(g, SEL_CODE16, 0x809b00);
    g_desc(g, SEL_UDATA, 0xc0f300);
    g_desc(g, SEL_UCODE64, 0xa0fb00);
    g_desc(g, SEL_UCODE32, 0xc0fb00);
    g_put(g, G_GDT + SEL_TSS, (uint64_t)0x8b00 << 32 | (uint64_t)G_TSS << 16 | 0x67, 8);
    g_put(g, G_TSS + 4, G_STACK0, 8);
    for (uint64_t vec = 0; vec < 48; vec++) {
        uint64_t off = G_STUBS + vec * 16;
        g_put(g, G_IDT + vec * 16, (off & 0xffff) | SEL_CODE64 << 16 | UINT64_C(0x8e00) << 32, 8);
        g_put(g, G_IDT + vec * 16 + 8, 0, 8);
        g_put(g, off, 0xf4, 1);
    }
    struct cpu *c = &g->v->c;
    c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET | CR0_NE;
    c->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR;
    c->efer = EFER_LMA | EFER_LME | EFER_NX | EFER_SCE;
    c->cr3 = G_PML4;
    c->gdtr.base = G_GDT;
    c->gdtr.limit = SEL_TSS + 15;
    c->idtr.base = G_IDT;
    c->idtr.limit = 48 * 16 - 1;
    c->tr = (struct cpu_seg){.sel = SEL_TSS, .attr = SEG_P | 0xb, .limit = 0x67, .base = G_TSS};
    c->rflags = FLAG_ONE;
    c->gpr[RSP] = G_STACK;
    c->rip = G_CODE;
    g_select_mode(g, GUEST64, 0);
    g->run =
        (struct engine_run){.budget = 100000, .t_end = UINT64_MAX, .rate = 65536, .alone = true};
}

static inline void g_open_smp(struct guest *g, const struct shadow_config *shadow,
                              unsigned cache_entries)
{
    g_open_engine(g, &engine_interp, shadow, cache_entries);
}

static inline void g_open_with(struct guest *g, unsigned cache_entries)
{
    g_open_smp(g, NULL, cache_entries);
}

static inline void g_open(struct guest *g)
{
    g_open_with(g, 0);
}

static inline void g_close(struct guest *g)
{
    g->engine->destroy(g->v);
    ram_destroy(g->ram);
}

static inline void g_code(struct guest *g, uint64_t at, const void *bytes, size_t len)
{
    assert_int_equal(ram_write(g->ram, at, bytes, len), 0);
}
#define G_CODE_AT(g, at, ...) \
    g_code(g, at, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

static inline enum vcpu_stop g_run(struct guest *g, uint64_t budget)
{
    g->run.budget = budget;
    g->engine->run(g->v, &g->run);
    return g->run.stop;
}

/* Write the bytes at G_CODE with a HLT behind, and run them to it. */
static inline void g_exec(struct guest *g, const void *bytes, size_t len)
{
    g_code(g, G_CODE, bytes, len);
    g_put(g, G_CODE + len, 0xf4, 1);
    g->v->c.rip = G_CODE;
    g->v->c.halted = 0;
    assert_int_equal(g_run(g, 1000000), VCPU_HALT);
}
#define G_EXEC(g, ...) \
    g_exec(g, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

/* The vector whose handler the guest halted in, or -1: it halted elsewhere. */
static inline int g_vector(const struct guest *g)
{
    uint64_t off = g->v->c.rip - 1 - G_STUBS;
    return off < 48 * 16 && off % 16 == 0 ? (int)(off / 16) : -1;
}

static inline struct hash128 g_hash(struct guest *g)
{
    struct hash128 h = hash128(g->ram->hva, G_RAM, 0);
    struct hash128 r = hash128(&g->v->c, sizeof g->v->c, 1);
    return hash128_add(h, r);
}

#endif
