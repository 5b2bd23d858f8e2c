/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a system instruction that is right in one mode or operand size and wrong in another. Every
 * form that no host can check from ring 3 runs here in 64-, 32- and 16-bit code, with and without
 * the prefix that changes its size (tests/isa/witness.c says which test answers for which form). */
#include "tests/unit/cpu_fixture.h"

enum { M64, M32, M16, MODES };
enum { SEL = UDS | 3 }; /* a data selector that every privilege level may load */

static unsigned code_len; /* of the instruction that ran last, with its prefixes */

static void enter(struct fixture *f, unsigned mode, unsigned cpl)
{
    if (mode == M64) {
        fx_long(f, cpl);
        return;
    }
    fx_prot32(f, cpl);
    if (mode == M16) {
        f->v.c.seg[SEG_CS].attr &= (uint16_t)~SEG_DB;
        vcpu_context_changed(&f->v);
    }
}

/* Runs the bytes at CODE with what gives them an operand size of @osz bytes; 0: no prefix. */
static int go(struct fixture *f, unsigned osz, const uint8_t *bytes, size_t n)
{
    uint8_t code[16];
    bool words = fx_mode(&f->v.c) == DECODE_16;

    code_len = 0;
    if ((osz == 2 && !words) || (osz == 4 && words)) {
        code[code_len++] = 0x66;
    } else if (osz == 8) {
        code[code_len++] = 0x48;
    }
    memcpy(code + code_len, bytes, n);
    code_len += (unsigned)n;
    f->v.c.rip = CODE;
    return fx_run(f, code, code_len);
}

#define GO(f, osz, ...) \
    go((f), (osz), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ModRM of [rdi], [edi] or [di]. */
static uint8_t at_rdi(unsigned mode, unsigned reg)
{
    return (uint8_t)(reg << 3 | (mode == M16 ? 5 : 7));
}

/* Every mode with every operand size it has. */
#define EACH(mode, osz)                           \
    for (unsigned mode = 0; mode < MODES; mode++) \
        for (unsigned osz = 2; osz <= (mode == M64 ? 8 : 4); osz *= 2)

static uint64_t mask_of(unsigned size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

/* What a write of @size bytes leaves of a register that held ones. */
static uint64_t written(uint64_t value, unsigned size)
{
    return size == 4 || size == 8 ? value & mask_of(size)
                                  : (UINT64_MAX & ~mask_of(size)) | (value & mask_of(size));
}

static uint64_t get_size(struct fixture *f, gpa_t at, unsigned size)
{
    return get64(f, at) & mask_of(size);
}

static void ports(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned dx = 0; dx < 2; dx++) {
            for (unsigned byte = 0; byte < 2; byte++) {
                unsigned size = byte != 0 ? 1 : osz == 8 ? 4 : osz;
                uint8_t in = (uint8_t)((dx != 0 ? 0xec : 0xe4) | (byte ^ 1));
                enter(f, mode, 0);
                c->gpr[RDX] = 0x1f8;
                c->gpr[RAX] = UINT64_MAX;
                f->in = UINT64_C(0x8877665544332211);
                assert_int_equal(GO(f, osz, in, 0x77), NO_FAULT);
                assert_int_equal(f->port, dx != 0 ? 0x1f8 : 0x77);
                assert_true(c->gpr[RAX] == written(UINT64_C(0x44332211), size));
                assert_int_equal(GO(f, osz, (uint8_t)(in | 2), 0x76), NO_FAULT);
                assert_int_equal(f->port, dx != 0 ? 0x1f8 : 0x76);
                assert_true(f->out == (UINT64_C(0x44332211) & mask_of(size)));
                enter(f, mode, 3);
                put64(f, TSS + 0x60, 0xffffULL << 48); /* no bitmap */
                assert_int_equal(GO(f, osz, in, 0x77), VEC_GP);
                assert_int_equal(GO(f, osz, (uint8_t)(in | 2), 0x77), VEC_GP);
            }
        }
    }
}

static void string_ports(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned byte = 0; byte < 2; byte++) {
            unsigned size = byte != 0 ? 1 : osz == 8 ? 4 : osz;
            enter(f, mode, 0);
            c->gpr[RDX] = 0x1f0;
            c->gpr[RCX] = 3;
            c->gpr[RDI] = c->gpr[RSI] = DATA;
            put64(f, DATA, UINT64_MAX);
            f->in = UINT64_C(0x44332211);
            assert_int_equal(GO(f, osz, (uint8_t)(0x6c | (byte ^ 1))), NO_FAULT);
            assert_true(get64(f, DATA) ==
                        ((UINT64_MAX & ~mask_of(size)) | (0x44332211 & mask_of(size))));
            assert_int_equal(GO(f, osz, (uint8_t)(0x6e | (byte ^ 1))), NO_FAULT);
            assert_true(f->out == (0x44332211 & mask_of(size)));
            assert_true(c->gpr[RDI] == DATA + size && c->gpr[RSI] == DATA + size);
            uint8_t rep[] = {0xf3, (uint8_t)(0x6c | (byte ^ 1))};
            if (osz != 8) { /* REX stands behind F3 */
                assert_int_equal(go(f, osz, rep, sizeof rep), NO_FAULT);
                assert_true(c->gpr[RCX] == 0 && c->gpr[RDI] == DATA + 4 * size);
                c->gpr[RCX] = 2;
                rep[1] |= 2;
                assert_int_equal(go(f, osz, rep, sizeof rep), NO_FAULT);
                assert_true(c->gpr[RCX] == 0 && c->gpr[RSI] == DATA + 3 * size);
            }
        }
    }
}

static void segment_moves(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        enter(f, mode, 0);
        c->gpr[RDI] = DATA;
        c->gpr[RAX] = 0xffff0000 | SEL;
        assert_int_equal(GO(f, osz, 0x8e, 0xe0), NO_FAULT); /* mov fs, ax */
        assert_int_equal(c->seg[SEG_FS].sel, SEL);
        c->gpr[RCX] = UINT64_MAX;
        assert_int_equal(GO(f, osz, 0x8c, 0xe1), NO_FAULT); /* mov cx, fs */
        assert_true(c->gpr[RCX] == written(SEL, osz));
        put64(f, DATA, UINT64_MAX);
        assert_int_equal(GO(f, osz, 0x8c, at_rdi(mode, 4)), NO_FAULT); /* to memory: a word */
        assert_true(get64(f, DATA) == written(SEL, 2));
        put64(f, DATA, DS32);
        assert_int_equal(GO(f, osz, 0x8e, at_rdi(mode, 5)), NO_FAULT); /* mov gs, [di] */
        assert_int_equal(c->seg[SEG_GS].sel, DS32);
        assert_fault(f, VEC_UD, 0, 0x8e, 0xc8); /* mov cs, ax */
    }
}

static void segment_pushes(void **state)
{
    static const struct {
        enum cpu_segreg seg;
        uint8_t push[2], pop[2];
        unsigned len;
    } ops[] = {
        {SEG_ES, {0x06}, {0x07}, 1},
        {SEG_CS, {0x0e}, {0}, 1},
        {SEG_SS, {0x16}, {0x17}, 1},
        {SEG_DS, {0x1e}, {0x1f}, 1},
        {SEG_FS, {0x0f, 0xa0}, {0x0f, 0xa1}, 2},
        {SEG_GS, {0x0f, 0xa8}, {0x0f, 0xa9}, 2},
    };
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (size_t i = 0; i < PLX_COUNT(ops); i++) {
            unsigned word = mode == M64 && osz == 4 ? 8 : osz;
            enter(f, mode, 0);
            put64(f, STACK0 - 8, UINT64_MAX);
            if (mode == M64 && ops[i].len == 1) {
                assert_int_equal(go(f, osz, ops[i].push, 1), VEC_UD);
                continue;
            }
            assert_int_equal(go(f, osz, ops[i].push, ops[i].len), NO_FAULT);
            assert_true(c->gpr[RSP] == STACK0 - word);
            assert_int_equal(get_size(f, STACK0 - word, 2), c->seg[ops[i].seg].sel);
            if (ops[i].pop[0] != 0) {
                put64(f, STACK0 - word, DS32);
                assert_int_equal(go(f, osz, ops[i].pop, ops[i].len), NO_FAULT);
                assert_true(c->gpr[RSP] == STACK0);
                assert_int_equal(c->seg[ops[i].seg].sel, DS32);
            }
        }
    }
}

static void far_pointers(void **state)
{
    static const struct {
        enum cpu_segreg seg;
        uint8_t code[2];
        unsigned len;
    } ops[] = {
        {SEG_ES, {0xc4}, 1},       {SEG_DS, {0xc5}, 1},       {SEG_SS, {0x0f, 0xb2}, 2},
        {SEG_FS, {0x0f, 0xb4}, 2}, {SEG_GS, {0x0f, 0xb5}, 2},
    };
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (size_t i = 0; i < PLX_COUNT(ops); i++) {
            uint8_t code[3] = {ops[i].code[0], ops[i].code[1]};
            if (mode == M64 && ops[i].len == 1) {
                continue; /* VEX */
            }
            enter(f, mode, 0);
            put64(f, DATA, UINT64_C(0x8877665544332211));
            put64(f, DATA + osz, DS32);
            c->gpr[RDI] = DATA;
            c->gpr[RAX] = UINT64_MAX;
            code[ops[i].len] = at_rdi(mode, RAX);
            assert_int_equal(go(f, osz, code, ops[i].len + 1), NO_FAULT);
            assert_true(c->gpr[RAX] == written(UINT64_C(0x8877665544332211), osz));
            assert_int_equal(c->seg[ops[i].seg].sel, DS32);
        }
    }
}

/* The 16-bit forms take 24 bits of a base; 64-bit mode has one form. */
static void descriptor_tables(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned idt = 0; idt < 2; idt++) {
            struct cpu_dtable *t = idt != 0 ? &c->idtr : &c->gdtr;
            unsigned base = mode == M64 ? 8 : osz == 2 ? 3 : 4;
            enter(f, mode, 0);
            c->gpr[RDI] = DATA;
            put64(f, DATA, 0x123 | UINT64_C(0x7f665544) << 16);
            put64(f, DATA + 8, 0);
            assert_int_equal(GO(f, osz, 0x0f, 0x01, at_rdi(mode, 2 + idt)), NO_FAULT);
            assert_int_equal(t->limit, 0x123);
            assert_true(t->base == (UINT64_C(0x7f665544) & mask_of(base)));
            t->base = 0x7f665544;
            put64(f, DATA, UINT64_MAX);
            put64(f, DATA + 8, UINT64_MAX);
            assert_int_equal(GO(f, osz, 0x0f, 0x01, at_rdi(mode, idt)), NO_FAULT);
            assert_int_equal(get_size(f, DATA, 2), 0x123);
            assert_true((get64(f, DATA + 2) & mask_of(3)) == 0x665544);
            assert_true(get64(f, DATA + (mode == M64 ? 10 : 6)) << 16 == UINT64_MAX << 16);
            enter(f, mode, 3);
            assert_int_equal(GO(f, osz, 0x0f, 0x01, at_rdi(mode, 2 + idt)), VEC_GP);
        }
    }
}

static void system_selectors(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned memory = 0; memory < 2; memory++) {
            enter(f, mode, 0);
            c->gpr[RDI] = DATA;
            put64(f, GDT + TSS_NEW, system_desc_of(0x89, TSS, 0x67));
            put64(f, GDT + TSS_NEW + 8, 0);
            put64(f, GDT + LDT_SEL + 8, 0);
            c->gpr[RAX] = UINT64_C(0xffff0000) | LDT_SEL;
            put64(f, DATA, c->gpr[RAX]);
            uint8_t load = memory != 0 ? at_rdi(mode, 0) : 0xc0;
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)(load | 2 << 3)), NO_FAULT); /* lldt */
            assert_int_equal(c->ldtr.sel, LDT_SEL);
            c->gpr[RAX] = UINT64_C(0xffff0000) | TSS_NEW;
            put64(f, DATA, c->gpr[RAX]);
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)(load | 3 << 3)), NO_FAULT); /* ltr */
            assert_int_equal(c->tr.sel, TSS_NEW);
            for (unsigned which = 0; which < 2; which++) { /* sldt, str: a word to memory */
                uint64_t want = which == 0 ? LDT_SEL : TSS_NEW;
                c->gpr[RAX] = UINT64_MAX;
                put64(f, DATA, UINT64_MAX);
                assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)(load | which << 3)), NO_FAULT);
                assert_true(memory != 0 ? get64(f, DATA) == written(want, 2)
                                        : c->gpr[RAX] == written(want, osz));
            }
            enter(f, mode, 3);
            c->gpr[RDI] = DATA;
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)(load | 2 << 3)), VEC_GP);
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)(load | 3 << 3)), VEC_GP);
            fx_tables(f);
        }
    }
}

static void machine_status_word(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned memory = 0; memory < 2; memory++) {
            uint8_t modrm = memory != 0 ? at_rdi(mode, 0) : 0xc0;
            enter(f, mode, 0);
            uint64_t cr0 = c->cr0;
            c->gpr[RDI] = DATA;
            c->gpr[RAX] = UINT64_MAX;
            put64(f, DATA, UINT64_MAX);
            assert_int_equal(GO(f, osz, 0x0f, 0x01, (uint8_t)(modrm | 4 << 3)),
                             NO_FAULT); /* smsw */
            assert_true(memory != 0 ? get64(f, DATA) == written(cr0, 2)
                                    : c->gpr[RAX] == written(cr0, osz));
            c->gpr[RAX] = UINT64_C(0xffff0008); /* TS; without PE, which stays */
            put64(f, DATA, c->gpr[RAX]);
            assert_int_equal(GO(f, osz, 0x0f, 0x01, (uint8_t)(modrm | 6 << 3)),
                             NO_FAULT); /* lmsw */
            assert_true(c->cr0 == (cr0 | CR0_TS));
            assert_int_equal(GO(f, osz, 0x0f, 0x06), NO_FAULT); /* clts */
            assert_true(c->cr0 == cr0);
            enter(f, mode, 3);
            c->gpr[RDI] = DATA;
            assert_int_equal(GO(f, osz, 0x0f, 0x01, (uint8_t)(modrm | 6 << 3)), VEC_GP);
        }
    }
}

static void inspection(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned memory = 0; memory < 2; memory++) {
            uint8_t modrm = memory != 0 ? at_rdi(mode, RAX) : 0xc1;
            enter(f, mode, 0);
            c->gpr[RDI] = DATA;
            c->gpr[RCX] = UINT64_C(0xffff0000) | CS32;
            put64(f, DATA, c->gpr[RCX]);
            c->gpr[RAX] = UINT64_MAX;
            assert_int_equal(GO(f, osz, 0x0f, 0x02, modrm), NO_FAULT); /* lar */
            assert_true((c->rflags & FLAG_ZF) != 0);
            assert_true(c->gpr[RAX] == written(0xc09b00, osz));
            c->gpr[RAX] = UINT64_MAX;
            assert_int_equal(GO(f, osz, 0x0f, 0x03, modrm), NO_FAULT); /* lsl */
            assert_true(c->gpr[RAX] == written(UINT32_MAX, osz));
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)((modrm & ~0x38) | 4 << 3)), NO_FAULT);
            assert_true((c->rflags & FLAG_ZF) != 0); /* verr */
            assert_int_equal(GO(f, osz, 0x0f, 0x00, (uint8_t)((modrm & ~0x38) | 5 << 3)), NO_FAULT);
            assert_true((c->rflags & FLAG_ZF) == 0); /* verw */
        }
    }
}

static void software_interrupts(void **state)
{
    static const struct {
        uint8_t code[2];
        unsigned len, vector;
    } ops[] = {
        {{0xcc}, 1, VEC_BP}, {{0xcd, 0x21}, 2, 0x21}, {{0xf1}, 1, VEC_DB}, {{0xce}, 1, VEC_OF}};
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (size_t i = 0; i < PLX_COUNT(ops); i++) {
            enter(f, mode, 0);
            c->rflags |= FLAG_OF;
            if (mode == M64 && ops[i].vector == VEC_OF) {
                assert_int_equal(go(f, osz, ops[i].code, 1), VEC_UD);
                continue;
            }
            assert_int_equal(go(f, osz, ops[i].code, ops[i].len), NO_FAULT);
            assert_true(c->rip == HANDLER + ops[i].vector);
            assert_true(get_size(f, c->gpr[RSP], mode == M64 ? 8 : 4) == CODE + code_len);
        }
    }
    enter(f, M32, 0);
    assert_int_equal(GO(f, 0, 0xce), NO_FAULT); /* INTO without OF */
    assert_true(c->rip == CODE + 1);
}

static void put_words(struct fixture *f, gpa_t at, unsigned size, const uint64_t *words, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(ram_write(f->ram, at + i * size, &words[i], size), 0);
    }
}

static void interrupt_returns(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        enter(f, mode, 0);
        const uint64_t frame[] = {0x1234, mode == M64 ? CS64 : CS32, FLAG_ONE | FLAG_CF, 0x7000,
                                  DS32};
        unsigned words = mode == M64 ? 5 : 3;
        put_words(f, 0x6000, osz, frame, words);
        c->gpr[RSP] = 0x6000;
        assert_int_equal(GO(f, osz, 0xcf), NO_FAULT);
        assert_true(c->rip == 0x1234);
        assert_int_equal(c->seg[SEG_CS].sel, frame[1]);
        assert_true((c->rflags & (FLAG_CF | FLAG_IF)) == FLAG_CF);
        assert_true(c->gpr[RSP] == (mode == M64 ? 0x7000 : 0x6000 + 3 * osz));
    }
}

static void flags_on_the_stack(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        unsigned word = mode == M64 && osz == 4 ? 8 : osz;
        enter(f, mode, 0);
        c->rflags = FLAG_ONE | FLAG_CF | FLAG_AC | FLAG_RF;
        put64(f, STACK0 - 8, UINT64_MAX);
        assert_int_equal(GO(f, osz, 0x9c), NO_FAULT);
        assert_true(c->gpr[RSP] == STACK0 - word);
        assert_true(get_size(f, STACK0 - word, word) ==
                    ((FLAG_ONE | FLAG_CF | FLAG_AC) & mask_of(word)));
        put64(f, STACK0 - word, FLAG_ONE | FLAG_ZF);
        assert_int_equal(GO(f, osz, 0x9d), NO_FAULT);
        assert_true(c->gpr[RSP] == STACK0);
        assert_true((c->rflags & ~FLAG_RF) ==
                    (FLAG_ONE | FLAG_ZF | (word == 2 ? FLAG_AC : 0))); /* upper half kept */
    }
}

static void far_transfers(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        uint16_t cs = mode == M64 ? CS64 : CS32;
        for (unsigned form = 0; form < 4; form++) { /* call m, jmp m, call ptr, jmp ptr */
            uint8_t ptr[7] = {form == 2 ? 0x9a : 0xea, 0x34, 0x12};
            bool call = (form & 1) == 0;
            enter(f, mode, 0);
            c->gpr[RDI] = DATA;
            put64(f, DATA, 0x1234);
            put64(f, DATA + osz, cs);
            if (form >= 2) {
                memcpy(ptr + 1 + osz, &cs, mode == M64 ? 0 : 2);
                if (mode == M64) {
                    assert_int_equal(go(f, osz, ptr, 7), VEC_UD);
                    continue;
                }
                assert_int_equal(go(f, osz, ptr, 3 + osz), NO_FAULT);
            } else {
                assert_int_equal(GO(f, osz, 0xff, at_rdi(mode, call ? 3 : 5)), NO_FAULT);
            }
            assert_true(c->rip == 0x1234 && c->seg[SEG_CS].sel == cs);
            assert_true(c->gpr[RSP] == STACK0 - (call ? 2 * osz : 0));
            if (call) {
                assert_true(get_size(f, c->gpr[RSP], osz) == ((CODE + code_len) & mask_of(osz)));
                assert_int_equal(get_size(f, c->gpr[RSP] + osz, 2), cs);
            }
        }
        for (unsigned pop = 0; pop < 2; pop++) { /* retf, retf 16 */
            const uint64_t frame[] = {0x2345, cs};
            enter(f, mode, 0);
            put_words(f, 0x6000, osz, frame, 2);
            c->gpr[RSP] = 0x6000;
            assert_int_equal(pop != 0 ? GO(f, osz, 0xca, 16, 0) : GO(f, osz, 0xcb), NO_FAULT);
            assert_true(c->rip == 0x2345 && c->gpr[RSP] == 0x6000 + 2 * osz + pop * 16);
        }
    }
}

static void control_and_debug_registers(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    for (unsigned mode = 0; mode < MODES; mode++) {
        uint64_t value = UINT64_C(0x123456789abcde0),
                 seen = mode == M64 ? value : value & UINT32_MAX;
        enter(f, mode, 0);
        c->gpr[RAX] = value;
        assert_int_equal(GO(f, 0, 0x0f, 0x22, 0xd0), NO_FAULT); /* mov cr2, rax */
        assert_int_equal(GO(f, 0, 0x0f, 0x20, 0xd1), NO_FAULT); /* mov rcx, cr2 */
        assert_int_equal(GO(f, 0, 0x0f, 0x23, 0xc0), NO_FAULT); /* mov dr0, rax */
        assert_int_equal(GO(f, 0, 0x0f, 0x21, 0xc3), NO_FAULT); /* mov rbx, dr0 */
        assert_true(c->cr2 == seen && c->gpr[RCX] == seen);
        assert_true(c->dr[0] == seen && c->gpr[RBX] == seen);
        enter(f, mode, 3);
        assert_int_equal(GO(f, 0, 0x0f, 0x22, 0xd0), VEC_GP);
        assert_int_equal(GO(f, 0, 0x0f, 0x20, 0xd0), VEC_GP);
        assert_int_equal(GO(f, 0, 0x0f, 0x23, 0xc0), VEC_GP);
        assert_int_equal(GO(f, 0, 0x0f, 0x21, 0xc0), VEC_GP);
    }
}

/* What needs no operands: what ring 0 and ring 3 get, in each mode and with each prefix. */
static void plain_instructions(void **state)
{
    static const struct {
        const char *name;
        uint8_t code[3];
        unsigned len;
        int ring0, ring3;
    } ops[] = {
        {"cli", {0xfa}, 1, NO_FAULT, VEC_GP},
        {"sti", {0xfb}, 1, NO_FAULT, VEC_GP},
        {"hlt", {0xf4}, 1, NO_FAULT, VEC_GP},
        {"clts", {0x0f, 0x06}, 2, NO_FAULT, VEC_GP},
        {"invd", {0x0f, 0x08}, 2, NO_FAULT, VEC_GP},
        {"wbinvd", {0x0f, 0x09}, 2, NO_FAULT, VEC_GP},
        {"rdmsr", {0x0f, 0x32}, 2, NO_FAULT, VEC_GP},
        {"wrmsr", {0x0f, 0x30}, 2, NO_FAULT, VEC_GP},
        {"rdpmc", {0x0f, 0x33}, 2, VEC_GP, VEC_GP},
        {"rdtsc", {0x0f, 0x31}, 2, NO_FAULT, NO_FAULT},
        {"rdtscp", {0x0f, 0x01, 0xf9}, 3, NO_FAULT, NO_FAULT},
        {"cpuid", {0x0f, 0xa2}, 2, NO_FAULT, NO_FAULT},
    };
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned i = 0; i < 2 * PLX_COUNT(ops); i++) {
            unsigned cpl = i % 2 * 3;
            enter(f, mode, cpl);
            c->cr0 |= CR0_TS;
            c->gpr[RCX] = 0xc0000103; /* TSC_AUX */
            c->gpr[RAX] = 5;
            c->gpr[RDX] = 0;
            int got = go(f, osz, ops[i / 2].code, ops[i / 2].len);
            if (got != (cpl == 0 ? ops[i / 2].ring0 : ops[i / 2].ring3)) {
                fail_msg("%s, mode %u, size %u, ring %u: %d", ops[i / 2].name, mode, osz, cpl, got);
            }
            assert_true(c->rip == CODE + (got == NO_FAULT ? code_len : 0));
        }
    }
    enter(f, M64, 0);
    f->v.c.gpr[RCX] = 0xc0000103;
    f->v.c.gpr[RAX] = 6;
    f->v.c.gpr[RDX] = 0;
    assert_int_equal(GO(f, 0, 0x0f, 0x30), NO_FAULT);
    assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xf9), NO_FAULT); /* rdtscp: ECX */
    assert_int_equal(f->v.c.gpr[RCX], 6);
}

/* AC and XCR0, which only their own instructions change; bases; what invalidates. */
static void the_rest(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    for (unsigned mode = 0; mode < MODES; mode++) {
        enter(f, mode, 0);
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xcb), NO_FAULT); /* stac */
        assert_true((c->rflags & FLAG_AC) != 0);
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xca), NO_FAULT); /* clac */
        assert_true((c->rflags & FLAG_AC) == 0);
        c->cr4 |= CR4_OSXSAVE;
        c->gpr[RAX] = 3;
        c->gpr[RCX] = c->gpr[RDX] = 0;
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xd1), NO_FAULT); /* xsetbv */
        c->gpr[RAX] = 0;
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xd0), NO_FAULT); /* xgetbv */
        assert_true(c->gpr[RAX] == 3 && c->gpr[RDX] == 0);
        c->gpr[RDI] = DATA;
        put64(f, DATA, 0);
        put64(f, DATA + 8, 0);
        c->gpr[RAX] = 2;
        assert_int_equal(GO(f, 0, 0x66, 0x0f, 0x38, 0x82, at_rdi(mode, RAX)),
                         NO_FAULT);                                        /* invpcid */
        assert_int_equal(GO(f, 0, 0x0f, 0x01, at_rdi(mode, 7)), NO_FAULT); /* invlpg */
        assert_int_equal(GO(f, 0, 0x0f, 0xae, at_rdi(mode, 7)), NO_FAULT); /* clflush */
        enter(f, mode, 3);
        c->cr4 |= CR4_OSXSAVE;
        c->gpr[RDI] = DATA;
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xcb), VEC_UD);
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xca), VEC_UD);
        assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xd1), VEC_GP);
        assert_int_equal(GO(f, 0, 0x66, 0x0f, 0x38, 0x82, at_rdi(mode, RAX)), VEC_GP);
        assert_int_equal(GO(f, 0, 0x0f, 0x01, at_rdi(mode, 7)), VEC_GP);
        assert_int_equal(GO(f, 0, 0x0f, 0xae, at_rdi(mode, 7)), NO_FAULT);
    }
}

static void clflush_faults_as_a_load(void **state)
{
    struct fixture *f = *state;

    f->v.c.gpr[RDI] = 0x40001000; /* not mapped */
    assert_int_equal(GO(f, 0, 0x0f, 0xae, at_rdi(M64, 7)), VEC_PF);
}

/* XSAVE, XSAVEOPT and XRSTOR, with REX.W and without; outside of 64-bit mode eight registers. */
static void extended_states(void **state)
{
    static const uint8_t byte[] = {0x5a};
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;
    const unsigned xmm = 160;

    EACH(mode, osz)
    {
        for (unsigned reg = 4; reg <= 6; reg += 2) { /* xsave, xsaveopt */
            enter(f, mode, 3);
            c->cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
            c->xcr0 = 3;
            c->gpr[RDI] = DATA;
            c->gpr[RAX] = 3;
            c->gpr[RDX] = 0;
            if (osz == 2) {
                assert_int_equal(GO(f, 0, 0x66, 0x0f, 0xae, at_rdi(mode, 4)), VEC_UD);
                continue;
            }
            memset(c->fpu.xmm, 0x33, sizeof c->fpu.xmm);
            for (unsigned i = 0; i < 576; i++) {
                assert_int_equal(ram_write(f->ram, DATA + i, byte, i < 512 ? 1 : 0), 0);
            }
            for (unsigned i = 512; i < 576; i += 8) {
                put64(f, DATA + i, 0);
            }
            assert_int_equal(GO(f, osz == 8 ? 8 : 0, 0x0f, 0xae, at_rdi(mode, reg)), NO_FAULT);
            assert_true(get64(f, DATA + xmm) == UINT64_C(0x3333333333333333));
            assert_true(
                get64(f, DATA + xmm + 8 * 16) ==
                (mode == M64 ? UINT64_C(0x3333333333333333) : UINT64_C(0x5a5a5a5a5a5a5a5a)));
            memset(c->fpu.xmm, 0x44, sizeof c->fpu.xmm);
            assert_int_equal(GO(f, osz == 8 ? 8 : 0, 0x0f, 0xae, at_rdi(mode, 5)), NO_FAULT);
            assert_int_equal(((uint8_t *)c->fpu.xmm)[0], 0x33);
            assert_int_equal(((uint8_t *)c->fpu.xmm)[8 * 16], mode == M64 ? 0x33 : 0x44);
            c->cr4 &= ~CR4_OSXSAVE;
            assert_int_equal(GO(f, 0, 0x0f, 0xae, at_rdi(mode, reg)), VEC_UD);
        }
    }
}

/* Intel's processors; AMD's raise #UD. */
static void prefetch_of_a_register_is_a_nop(void **state)
{
    struct fixture *f = *state;

    EACH(mode, osz)
    {
        enter(f, mode, 3);
        struct cpu before = f->v.c;
        assert_int_equal(GO(f, osz, 0x0f, 0x0d, 0xc1), NO_FAULT);
        assert_true(f->v.c.rip == CODE + code_len);
        before.rip = f->v.c.rip;
        assert_memory_equal(&before, &f->v.c, sizeof before);
    }
}

static void random_numbers(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        for (unsigned reg = 0xf0; reg <= 0xf8; reg += 8) { /* rdrand, rdseed */
            enter(f, mode, 0);
            c->gpr[RAX] = UINT64_MAX;
            c->rflags |= FLAG_ZF | FLAG_OF;
            struct prng g = c->rng;
            uint64_t want = written(prng_u64(&g), osz);
            assert_int_equal(GO(f, osz, 0x0f, 0xc7, (uint8_t)reg), NO_FAULT);
            assert_true(c->gpr[RAX] == want);
            assert_true((c->rflags & FLAGS_ARITH) == FLAG_CF);
        }
    }
}

static void bases_of_fs_and_gs(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    for (unsigned wide = 0; wide < 2; wide++) {
        for (unsigned gs = 0; gs < 2; gs++) {
            enum cpu_segreg seg = gs != 0 ? SEG_GS : SEG_FS;
            uint64_t value = UINT64_C(0x7f1234567890);
            enter(f, M64, 3);
            c->cr4 |= CR4_FSGSBASE;
            c->gpr[RAX] = value;
            c->gpr[RCX] = UINT64_MAX;
            uint8_t rex = wide != 0 ? 0x48 : 0x40;
            assert_int_equal(RUN(f, 0xf3, rex, 0x0f, 0xae, (uint8_t)(0xd0 + 8 * gs)), NO_FAULT);
            assert_true(c->seg[seg].base == (wide != 0 ? value : value & UINT32_MAX));
            c->seg[seg].base = value;
            assert_int_equal(RUN(f, 0xf3, rex, 0x0f, 0xae, (uint8_t)(0xc1 + 8 * gs)), NO_FAULT);
            assert_true(c->gpr[RCX] == (wide != 0 ? value : value & UINT32_MAX));
        }
    }
    for (unsigned osz = 2; osz <= 8; osz *= 2) {
        enter(f, M64, 0);
        c->seg[SEG_GS].base = 1;
        c->kernel_gs_base = 2;
        assert_int_equal(GO(f, osz, 0x0f, 0x01, 0xf8), NO_FAULT); /* swapgs */
        assert_true(c->seg[SEG_GS].base == 2 && c->kernel_gs_base == 1);
    }
    enter(f, M32, 0);
    c->cr4 |= CR4_FSGSBASE;
    assert_int_equal(GO(f, 0, 0x0f, 0x01, 0xf8), VEC_UD);
    assert_int_equal(RUN(f, 0xf3, 0x0f, 0xae, 0xd0), VEC_UD);
}

static void fast_system_calls(void **state)
{
    struct fixture *f = *state;
    struct cpu *c = &f->v.c;

    EACH(mode, osz)
    {
        enter(f, mode, 3);
        c->sysenter_cs = 0x60;
        c->sysenter_esp = UINT64_C(0x100005555);
        c->sysenter_eip = UINT64_C(0x100006666);
        assert_int_equal(GO(f, osz, 0x0f, 0x34), NO_FAULT);
        assert_true(c->rip == (mode == M64 ? UINT64_C(0x100006666) : 0x6666));
        assert_int_equal(cpu_mode_of(c), mode == M64 ? CPU_LONG64 : CPU_PROT32);
        c->gpr[RDX] = 0x7777;
        c->gpr[RCX] = 0x8888;
        assert_int_equal(GO(f, osz, 0x0f, 0x35), NO_FAULT);
        assert_true(c->rip == 0x7777 && c->gpr[RSP] == 0x8888);
        assert_int_equal(cpu_cpl(c), 3);
        assert_int_equal(c->seg[SEG_CS].sel, osz == 8 ? 0x83 : 0x73);
        assert_int_equal(cpu_mode_of(c), osz == 8      ? CPU_LONG64
                                         : mode == M64 ? CPU_COMPAT32
                                                       : CPU_PROT32);
        enter(f, mode, 3);
        c->star = (uint64_t)0x23 << 48 | (uint64_t)0x10 << 32;
        c->lstar = 0x9999;
        assert_int_equal(GO(f, osz, 0x0f, 0x05), mode == M64 ? NO_FAULT : VEC_UD);
        enter(f, mode, 0);
        c->gpr[RCX] = 0x1111;
        c->gpr[R11] = FLAG_ONE;
        assert_int_equal(GO(f, osz, 0x0f, 0x07), mode == M64 ? NO_FAULT : VEC_UD);
        assert_true(mode != M64 || (c->rip == 0x1111 && cpu_cpl(c) == 3));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FX_TEST(ports),
        FX_TEST(string_ports),
        FX_TEST(segment_moves),
        FX_TEST(segment_pushes),
        FX_TEST(far_pointers),
        FX_TEST(descriptor_tables),
        FX_TEST(system_selectors),
        FX_TEST(machine_status_word),
        FX_TEST(inspection),
        FX_TEST(software_interrupts),
        FX_TEST(interrupt_returns),
        FX_TEST(flags_on_the_stack),
        FX_TEST(far_transfers),
        FX_TEST(control_and_debug_registers),
        FX_TEST(plain_instructions),
        FX_TEST(the_rest),
        FX_TEST(clflush_faults_as_a_load),
        FX_TEST(extended_states),
        FX_TEST(prefetch_of_a_register_is_a_nop),
        FX_TEST(random_numbers),
        FX_TEST(bases_of_fs_and_gs),
        FX_TEST(fast_system_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
