/* SPDX-License-Identifier: Apache-2.0
 * Real-address mode, where emulators are lax (tests/guest/32/real.c compares the rest). Bugs
 * hunted: limits that are not checked or change with a load, error codes that are pushed, a stack
 * that wraps where a processor shuts down, the reset vector, the trampoline's way to 64-bit mode.
 */
#include "tests/unit/cpu_guest.h"

enum { SEG = 0x1000, BASE = SEG << 4, IVT = 0x40000, HANDLERS = 0x3000 /* in SEG */ };

static struct guest g;
static struct cpu *c;

static bool rom_read(void *ctx, gpa_t gpa, uint8_t *out, unsigned len)
{
    /* reset vector: jmp 1000:0000; one page below it: mov ax, 1234h across two pages, then HLT */
    static const uint8_t reset[16] = {0xea, 0x00, 0x00, 0x00, 0x10};
    static const uint8_t low[4] = {0xb8, 0x34, 0x12, 0xf4};

    (void)ctx;
    for (unsigned i = 0; i < len; i++, gpa++) {
        if (gpa >= 0xfffffff0) {
            out[i] = reset[gpa - 0xfffffff0];
        } else if (gpa >= 0xffffeffe && gpa < 0xffffeffe + sizeof low) {
            out[i] = low[gpa - 0xffffeffe];
        } else if (gpa >= 0xffff0000) {
            out[i] = 0x90;
        } else {
            return false;
        }
    }
    return true;
}

static const struct vcpu_ops ops = {.rom_read = rom_read};

static int setup(void **state)
{
    static const struct cpu_seg data = {
        .sel = SEG, .attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED, .limit = 0xffff, .base = BASE};

    (void)state;
    g_open(&g);
    g.v->ops = &ops;
    c = &g.v->c;
    cpu_reset(c, 0);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        c->seg[i] = data;
    }
    c->rip = 0;
    c->gpr[RSP] = 0xf000;
    c->idtr = (struct cpu_dtable){IVT, 0x3ff};
    for (unsigned v = 0; v < 256; v++) {
        g_put(&g, IVT + v * 4, (uint64_t)SEG << 16 | (HANDLERS + v), 4);
        g_put(&g, BASE + HANDLERS + v, 0xf4, 1);
    }
    engine_interp.state_changed(g.v);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_close(&g);
    return 0;
}

/* Runs the bytes at SEG:0000 to a HLT: the vector of the handler it is in, or -1. */
static int run_bytes(const uint8_t *bytes, size_t len)
{
    g_code(&g, BASE, bytes, len);
    g_put(&g, BASE + len, 0xf4, 1);
    c->rip = 0;
    c->halted = 0;
    assert_int_equal(g_run(&g, 1000), VCPU_HALT);
    return c->seg[SEG_CS].sel == SEG && c->rip > HANDLERS && c->rip <= HANDLERS + 256
               ? (int)(c->rip - 1 - HANDLERS)
               : -1;
}
#define RUN(...) run_bytes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint16_t word(uint64_t gpa)
{
    return (uint16_t)g_get(&g, gpa);
}

static void faults_push_no_error_code(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[8], len;
        int vector;
    } cases[] = {
        {"mov eax, [fffe]", {0x66, 0xa1, 0xfe, 0xff}, 4, VEC_GP},
        {"mov [ffff], ax", {0xa3, 0xff, 0xff}, 3, VEC_GP},
        {"mov ax, [ecx + 10000h]", {0x67, 0x8b, 0x81, 0, 0, 1, 0}, 7, VEC_GP},
        {"mov ax, [bp]", {0x8b, 0x46, 0x00}, 3, VEC_SS},
        {"jmp far beyond the limit", {0x66, 0xea, 0, 0, 1, 0, 0, 0x10}, 8, VEC_GP},
        {"jmp near beyond the limit", {0x66, 0xe9, 0, 0, 1, 0}, 6, VEC_GP},
        {"lidt from a register", {0x0f, 0x01, 0xd8}, 3, VEC_UD},
        {"mov cs, ax", {0x8e, 0xc8}, 2, VEC_UD},
        {"lock nop", {0xf0, 0x90}, 2, VEC_UD},
        {"sysenter", {0x0f, 0x34}, 2, VEC_GP},
        {"paging without protection", {0x0f, 0x22, 0xc3}, 3, VEC_GP},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        c->gpr[RSP] = 0xf000;
        c->gpr[RBP] = 0xffff;
        c->gpr[RBX] = 0x80000010;
        c->gpr[RCX] = 0;
        c->rflags = FLAG_ONE | FLAG_IF;
        int vector = run_bytes(cases[i].bytes, cases[i].len);
        if (vector != cases[i].vector || c->gpr[RSP] != 0xf000 - 6 || word(BASE + 0xeffa) != 0 ||
            word(BASE + 0xeffc) != SEG || word(BASE + 0xeffe) != (FLAG_ONE | FLAG_IF) ||
            (c->rflags & FLAG_IF) != 0) {
            fail_msg("%s: vector %d", cases[i].what, vector);
        }
    }
}

static void limits_of_protected_mode_stay(void **state)
{
    (void)state;
    c->seg[SEG_DS].limit = UINT32_MAX;
    engine_interp.state_changed(g.v);
    g_put(&g, 0x200000 + 0x20000, 0x77, 1);
    c->gpr[RAX] = 0x2000;
    c->gpr[RBX] = 0x200000;
    assert_int_equal(RUN(0x8e, 0xd8 /* mov ds, ax */, 0x67, 0x8a, 0x0b /* mov cl, [ebx] */), -1);
    assert_int_equal(c->gpr[RCX], 0x77);
    c->gpr[RBX] = 0x1ffff; /* CS keeps its own */
    assert_int_equal(RUN(0x67, 0x2e, 0x8a, 0x0b), VEC_GP);
    /* null in protected mode, loaded again here */
    c->seg[SEG_ES] = (struct cpu_seg){.attr = SEG_NULL};
    c->gpr[RSP] = 0xf000;
    c->gpr[RAX] = 0x3000;
    c->gpr[RBX] = 0;
    g_put(&g, 0x30000, 0x66, 1);
    assert_int_equal(RUN(0x8e, 0xc0, 0x26, 0x8a, 0x0f), -1);
    assert_int_equal(c->gpr[RCX] & 0xff, 0x66);
}

static void code_ends_with_its_segment(void **state)
{
    (void)state;
    g_code(&g, BASE + 0xfffe, (const uint8_t[]){0x90, 0x90}, 2);
    c->rip = 0xfffe;
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(c->rip, HANDLERS + VEC_GP + 1);
    assert_int_equal(word(BASE + 0xeffa), 0); /* IP of 10000h, as a word */
}

static void vectors_end_with_idtr(void **state)
{
    (void)state;
    c->idtr.limit = 0x20 * 4 + 2; /* one byte short of vector 20h */
    assert_int_equal(RUN(0xcd, 0x1f), 0x1f);
    c->gpr[RSP] = 0xf000;
    assert_int_equal(RUN(0xcd, 0x20), VEC_GP);
    assert_int_equal(word(BASE + 0xeffa), 0);
    c->idtr.limit = 13 * 4; /* neither #GP nor, for its sake, more than #DF */
    c->gpr[RSP] = 0xf000;
    assert_int_equal(RUN(0xcd, 0x20), VEC_DF);
    c->idtr.limit = 8 * 4; /* not even that */
    g_code(&g, BASE, (const uint8_t[]){0xcd, 0x20}, 2);
    c->rip = 0;
    c->halted = 0;
    assert_int_equal(g_run(&g, 100), VCPU_SHUTDOWN);
}

/* SDM Vol. 2, "PUSH": with SP = 1 in real-address mode the processor shuts down. */
static void no_room_for_any_frame_is_shutdown(void **state)
{
    (void)state;
    g_code(&g, BASE, (const uint8_t[]){0x50}, 1);
    c->gpr[RSP] = 1;
    assert_int_equal(g_run(&g, 100), VCPU_SHUTDOWN);
    teardown(state);
    setup(state);
    c->gpr[RSP] = 0; /* an even one wraps */
    assert_int_equal(RUN(0x50), -1);
    assert_int_equal(c->gpr[RSP], 0xfffe);
}

static void interrupts_and_nmis_use_the_vectors(void **state)
{
    (void)state;
    c->nmi_pending = 1;
    assert_int_equal(RUN(0x90), VEC_NMI);
    assert_int_equal(c->nmi_blocked, 1);
    c->gpr[RSP] = 0xf000;
    g_put(&g, BASE + HANDLERS + VEC_NMI, 0xcf, 1); /* iret */
    c->nmi_blocked = 0;
    c->nmi_pending = 1;
    assert_int_equal(RUN(0x90), -1);
    assert_int_equal(c->nmi_blocked, 0);
    assert_int_equal(c->gpr[RSP], 0xf000);
}

static void starts_at_the_reset_vector(void **state)
{
    (void)state;
    cpu_reset(c, 0);
    engine_interp.state_changed(g.v);
    g_put(&g, BASE, 0xf4, 1);
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(c->seg[SEG_CS].sel, SEG);
    assert_int_equal(c->seg[SEG_CS].base, BASE);
    assert_int_equal(c->rip, 1);
    /* ROM, an instruction across two of its pages */
    cpu_reset(c, 0);
    c->rip = 0xeffe;
    engine_interp.state_changed(g.v);
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(c->gpr[RAX], 0x1234);
    assert_int_equal(c->rip, 0xf002);
}

/* As kernels start their processors: CS = vector << 8, LGDT, PE, 32 bits, PAE, LME, PG, 64 bits,
 * and all the way back. */
static void the_way_to_64_bit_mode_and_back(void **state)
{
    static const uint8_t code[] = {
        0x0f, 0x01, 0x16, 0x80, 0x00,                   /* lgdt [80h] */
        0x0f, 0x01, 0xe0, 0x0c, 0x01,                   /* smsw ax; or al, 1 */
        0x0f, 0x01, 0xf0,                               /* lmsw ax */
        0x66, 0xea, 0x20, 0x00, 0x01, 0x00, 0x18, 0x00, /* jmp far dword 18h:10020h */
    };
    static const uint8_t code32[] = {
        0xb8, 0x20, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0,                         /* CR4: PAE */
        0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8,                         /* CR3: 1000h */
        0xb9, 0x80, 0x00, 0x00, 0xc0, 0xb8, 0x00, 0x01, 0x00, 0x00,             /* EFER: LME */
        0x31, 0xd2, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, /* CR0: PG */
        0x0f, 0x22, 0xc0, 0xea, 0x60, 0x00, 0x01, 0x00, 0x08, 0x00,             /* jmp 8:10060h */
    };
    static const uint8_t code64[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf4};
    uint64_t gdtr = (SEL_TSS + 15) | (uint64_t)G_GDT << 16;

    (void)state;
    g_code(&g, BASE, code, sizeof code);
    g_code(&g, BASE + 0x20, code32, sizeof code32);
    g_code(&g, BASE + 0x60, code64, sizeof code64);
    g_put(&g, BASE + 0x80, gdtr, 6);
    c->rip = 0;
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(cpu_mode_of(c), CPU_LONG64);
    assert_true(c->gpr[RAX] == UINT64_C(0x0807060504030201));
    assert_int_equal(c->efer & EFER_LMA, EFER_LMA);

    /* compatibility mode, paging off, LME off, 16-bit segments, PE off, far jump */
    static const uint8_t down64[] = {0xff, 0x2c, 0x25, 0x00, 0x01, 0x01, 0x00}; /* jmp [10100h] */
    static const uint8_t down32[] = {
        0x0f, 0x20, 0xc0, 0x25, 0xff, 0xff, 0xff, 0x7f, 0x0f, 0x22, 0xc0, /* PG off */
        0xb9, 0x80, 0x00, 0x00, 0xc0, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30, /* EFER 0 */
        0xea, 0x40, 0x00, 0x01, 0x00, 0x20, 0x00,                         /* jmp 20h:10040h */
    };
    static const uint8_t down16[] = {
        0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, /* PE off */
        0xea, 0x60, 0x00, 0x00, 0x10,                   /* jmp 1000:0060 */
    };
    g_code(&g, BASE, down64, sizeof down64);
    g_put(&g, BASE + 0x100, 0x10020 | (uint64_t)SEL_CODE32 << 32, 6);
    g_code(&g, BASE + 0x20, down32, sizeof down32);
    g_code(&g, BASE + 0x40, down16, sizeof down16);
    g_put(&g, BASE + 0x60, 0xf4, 1);
    c->rip = BASE;
    c->halted = 0;
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(cpu_mode_of(c), CPU_REAL);
    assert_int_equal(c->rip, 0x61);
    assert_int_equal(c->efer, 0);
    assert_int_equal(c->seg[SEG_CS].base, BASE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(faults_push_no_error_code),         TEST(limits_of_protected_mode_stay),
        TEST(code_ends_with_its_segment),        TEST(vectors_end_with_idtr),
        TEST(no_room_for_any_frame_is_shutdown), TEST(interrupts_and_nmis_use_the_vectors),
        TEST(starts_at_the_reset_vector),        TEST(the_way_to_64_bit_mode_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
