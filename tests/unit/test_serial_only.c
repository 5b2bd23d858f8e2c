/* SPDX-License-Identifier: Apache-2.0
 * What a vCPU may do in the parallel part of a round (vcpu.h). Bugs hunted: an instruction or an
 * event that reaches the board or shared state there, and one that leaves a trace of itself when it
 * has to stop: then the serial part would do it a second time. */
#include "tests/unit/cpu_guest.h"
#include "vmm/cpu/msr.h"

static unsigned reached; /* how often the guest reached the board */
static struct guest g;

static uint64_t pio_read(void *ctx, uint16_t port, unsigned size)
{
    (void)ctx;
    (void)size;
    reached++;
    return port;
}

static void pio_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    (void)ctx;
    (void)port;
    (void)size;
    (void)value;
    reached++;
}

static uint64_t mmio_read(void *ctx, gpa_t gpa, unsigned size)
{
    (void)ctx;
    (void)size;
    reached++;
    return gpa;
}

static void mmio_write(void *ctx, gpa_t gpa, unsigned size, uint64_t value)
{
    (void)ctx;
    (void)gpa;
    (void)size;
    (void)value;
    reached++;
}

static int irq_take(void *ctx)
{
    (void)ctx;
    reached++;
    g.v->irq_pending = false;
    return 40;
}

static int msr_read_op(void *ctx, uint32_t msr, uint64_t *value)
{
    (void)ctx;
    reached++;
    *value = msr == MSR_TSC_DEADLINE ? 0 : msr;
    return 0;
}

static int msr_write_op(void *ctx, uint32_t msr, uint64_t value)
{
    (void)ctx;
    (void)msr;
    (void)value;
    reached++;
    return 0;
}

static uint64_t cr8_read(void *ctx)
{
    (void)ctx;
    reached++;
    return 1;
}

static void cr8_write(void *ctx, uint64_t value)
{
    (void)ctx;
    (void)value;
    reached++;
}

static unsigned inits;

static void init(void *ctx)
{
    (void)ctx;
    inits++;
    g.v->c.gpr[RBX] = 0;
}

/* The instruction sends its own vCPU an INIT, as a write to the ICR would. */
static void write_that_sends_init(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    pio_write(ctx, port, size, value);
    g.v->init_pending = true;
    g.v->attention = true;
}

static const struct vcpu_ops ops = {
    .pio_read = pio_read,
    .pio_write = pio_write,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .irq_take = irq_take,
    .msr_read = msr_read_op,
    .msr_write = msr_write_op,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .init = init,
};
static const struct vcpu_ops init_ops = {.pio_write = write_that_sends_init, .init = init};

enum { MMIO = 0x400000 };

static int setup(void **state)
{
    (void)state;
    g_open(&g);
    g.v->ops = &ops;
    reached = inits = 0;
    g.run.part = PART_PARALLEL;
    g.v->c.gpr[RBX] = MMIO;
    g.v->c.gpr[RDI] = MMIO + 0x100;
    g.v->c.gpr[RSI] = G_DATA;
    g.v->c.gpr[RDX] = 0x80;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_close(&g);
    return 0;
}

/* It stops, twice the same, and nothing has changed; then the serial part does it. */
static void stops_and_then_runs(const char *what, unsigned at_least)
{
    struct cpu before = g.v->c;
    struct hash128 ram = hash128(g.ram->hva + G_GDT, G_RAM - G_GDT, 0); /* page tables apart */

    for (unsigned i = 0; i < 2; i++) {
        if (g_run(&g, 1) != VCPU_SERIAL || reached != 0 ||
            memcmp(&g.v->c, &before, sizeof before) != 0 ||
            !hash128_eq(ram, hash128(g.ram->hva + G_GDT, G_RAM - G_GDT, 0))) {
            fail_msg("%s: stop %d, reached %u", what, g.run.stop, reached);
        }
    }
    g.run.part = PART_SERIAL;
    (void)g_run(&g, 1);
    if (reached < at_least || g.v->c.progress != before.progress + 1) {
        fail_msg("%s: in the serial part: reached %u", what, reached);
    }
}

static void instructions_stop_before_any_effect(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[10];
        uint32_t rcx;
        unsigned at_least; /* reaches of the board when it runs */
    } cases[] = {
        {"in al, 0x80", {0xe4, 0x80}, 0, 1},
        {"in eax, dx", {0xed}, 0, 1},
        {"out dx, al", {0xee}, 0, 1},
        {"insb", {0x67, 0x6c}, 0, 1},
        {"outsb", {0x6e}, 0, 1},
        {"rep outsb", {0xf3, 0x6e}, 3, 3},
        {"mov eax, mmio", {0x8b, 0x03}, 0, 1},
        {"mov mmio, eax", {0x89, 0x03}, 0, 1},
        {"lock xadd mmio, eax", {0xf0, 0x0f, 0xc1, 0x03}, 0, 2},
        {"push mmio", {0xff, 0x33}, 0, 1},
        {"movsb to mmio", {0xa4}, 0, 1},
        {"rep stosb", {0xf3, 0xaa}, 3, 3},
        {"movups xmm0, mmio", {0x0f, 0x10, 0x03}, 0, 1},
        {"fxsave mmio", {0x0f, 0xae, 0x03}, 0, 1},
        {"cmpxchg16b mmio", {0x48, 0x0f, 0xc7, 0x0b}, 0, 1},
        {"lgdt mmio", {0x0f, 0x01, 0x13}, 0, 1},
        {"rdmsr APIC_BASE", {0x0f, 0x32}, MSR_APIC_BASE, 1},
        {"wrmsr APIC_BASE", {0x0f, 0x30}, MSR_APIC_BASE, 1},
        {"rdmsr TSC_DEADLINE", {0x0f, 0x32}, MSR_TSC_DEADLINE, 1},
        {"wrmsr TSC_DEADLINE", {0x0f, 0x30}, MSR_TSC_DEADLINE, 1},
        {"rdmsr x2APIC", {0x0f, 0x32}, MSR_X2APIC + 0x20, 1},
        {"wrmsr x2APIC ICR", {0x0f, 0x30}, MSR_X2APIC + 0x30, 1},
        {"wrmsr TSC", {0x0f, 0x30}, MSR_TSC, 1},
        {"wrmsr TSC_ADJUST", {0x0f, 0x30}, MSR_TSC_ADJUST, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (i != 0) {
            teardown(state);
            setup(state);
        }
        g.v->c.gpr[RCX] = cases[i].rcx;
        g_code(&g, G_CODE, cases[i].bytes, sizeof cases[i].bytes);
        if (cases[i].bytes[0] == 0x67) {
            g.v->c.gpr[RDI] = G_DATA;
        }
        stops_and_then_runs(cases[i].what, cases[i].at_least);
    }
}

/* PDPTEs are read from RAM behind the back of whoever owns the page. */
static void pdptes_are_loaded_serially(void **state)
{
    struct cpu *c = &g.v->c;

    (void)state;
    c->efer = 0;
    c->cr0 = CR0_PE | CR0_ET;
    c->cr4 = CR4_PAE;
    c->cr3 = G_DATA;
    g_put(&g, G_DATA, G_PD | 1, 8);
    g_select_mode(&g, GUEST32, 0);
    c->gpr[RAX] = c->cr0 | CR0_PG;
    G_CODE_AT(&g, G_CODE, 0x0f, 0x22, 0xc0);
    stops_and_then_runs("mov cr0, eax", 0);
    assert_int_equal(c->pdpte[0], G_PD | 1);
}

static void interrupts_are_taken_serially(void **state)
{
    (void)state;
    G_CODE_AT(&g, G_CODE, 0x90, 0x90);
    g.v->irq_pending = true;
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET); /* IF is clear */
    g.v->c.rflags |= FLAG_IF;
    stops_and_then_runs("an interrupt", 1);
    assert_int_equal(g.v->c.rip, G_STUBS + 40 * 16);
    /* A halted vCPU waits for the serial part too. */
    teardown(state);
    setup(state);
    g.v->c.rflags |= FLAG_IF;
    g.v->c.halted = 1;
    g.v->irq_pending = true;
    stops_and_then_runs("an interrupt that wakes", 1);
    assert_int_equal(g.v->c.halted, 0);
}

/* The handler's stack is no memory, so delivery reaches the board. */
static void deliveries_stop_before_any_effect(void **state)
{
    (void)state;
    g.v->c.gpr[RSP] = MMIO + 0x800;
    G_CODE_AT(&g, G_CODE, 0x0f, 0x0b);
    stops_and_then_runs("#UD", 5);
    assert_int_equal(g.v->c.rip, G_STUBS + VEC_UD * 16);

    teardown(state);
    setup(state);
    g.v->c.gpr[RSP] = MMIO + 0x800;
    g.v->c.cr2 = 0x1234;
    g.v->c.gpr[RBX] = G_UNMAPPED + 8;
    g.v->c.sti_shadow = 1;
    G_CODE_AT(&g, G_CODE, 0x8b, 0x03);
    stops_and_then_runs("#PF", 6);
    assert_int_equal(g.v->c.rip, G_STUBS + VEC_PF * 16);
    assert_int_equal(g.v->c.cr2, G_UNMAPPED + 8);
    assert_int_equal(g.v->c.sti_shadow, 0);

    teardown(state);
    setup(state);
    g.v->c.gpr[RSP] = MMIO + 0x800;
    g.v->c.nmi_pending = 1;
    g.v->c.halted = 1;
    stops_and_then_runs("an NMI", 5);
    assert_int_equal(g.v->c.rip, G_STUBS + VEC_NMI * 16);
    assert_int_equal(g.v->c.nmi_pending, 0);
    assert_int_equal(g.v->c.nmi_blocked, 1);

    teardown(state);
    setup(state);
    g.v->c.gpr[RSP] = MMIO + 0x800;
    G_CODE_AT(&g, G_CODE, 0xcc);
    stops_and_then_runs("int3", 5);
    assert_int_equal(g.v->c.rip, G_STUBS + VEC_BP * 16);

    teardown(state);
    setup(state);
    g.v->c.gpr[RSP] = MMIO + 0x800;
    g.v->c.dr[7] = DR7_FIXED | 0x2000; /* GD: cleared on the way into the handler */
    G_CODE_AT(&g, G_CODE, 0xf1);
    stops_and_then_runs("int1", 5);
    assert_int_equal(g.v->c.dr[7], DR7_FIXED);
}

/* A trap comes after the instruction, when it is too late to stop. */
static void stepping_is_serial(void **state)
{
    (void)state;
    g.v->c.rflags |= FLAG_TF;
    G_CODE_AT(&g, G_CODE, 0x90, 0x90);
    assert_int_equal(g_run(&g, 1), VCPU_SERIAL);
    assert_int_equal(g.v->c.progress, 0);
    g.run.part = PART_SERIAL;
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(g.v->c.rip, G_STUBS + VEC_DB * 16);

    teardown(state);
    setup(state);
    g.v->c.dr[0] = G_DATA;
    g.v->c.dr[7] = DR7_FIXED | 0x10001;
    engine_interp.state_changed(g.v);
    G_CODE_AT(&g, G_CODE, 0x89, 0x06, 0x90);
    assert_int_equal(g_run(&g, 1), VCPU_SERIAL);
    assert_int_equal(g_get(&g, G_DATA), 0);
}

/* The LAPIC of its own, of which accesses below MMIO + 0x40 reach nothing else. */
static unsigned peeked;

static bool mmio_own(void *ctx, gpa_t gpa, unsigned size, bool write)
{
    (void)ctx;
    (void)write;
    return size == 4 && gpa >= 0x80000000 && gpa < 0x80000040;
}

static bool msr_own(void *ctx, uint32_t msr, bool write)
{
    (void)ctx;
    return msr == MSR_X2APIC + 8 || (msr == MSR_APIC_BASE && !write);
}

static int irq_peek(void *ctx)
{
    (void)ctx;
    peeked++;
    return 40;
}

static const struct vcpu_ops own_ops = {
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .irq_take = irq_take,
    .msr_read = msr_read_op,
    .msr_write = msr_write_op,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .irq_peek = irq_peek,
    .mmio_own = mmio_own,
    .msr_own = msr_own,
};

static void the_own_lapic_is_reached_in_parallel(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[8];
        uint32_t rcx;
        bool own;
    } cases[] = {
        {"mov eax, [rbx]", {0x8b, 0x03}, 0, true},
        {"mov [rbx], eax", {0x89, 0x03}, 0, true},
        {"mov dword [rbx], 5", {0xc7, 0x03, 5, 0, 0, 0}, 0, true},
        {"test [rbx], eax", {0x85, 0x03}, 0, true},
        {"mov rax, [rbx]", {0x48, 0x8b, 0x03}, 0, false},
        {"mov [rbx + 40h], eax", {0x89, 0x43, 0x40}, 0, false},
        {"or [rbx], eax", {0x09, 0x03}, 0, false}, /* reads it first: no matter, it is rare */
        {"xchg [rbx], eax", {0x87, 0x03}, 0, false},
        {"stosd", {0xab}, 0, false},
        {"rdmsr APIC_BASE", {0x0f, 0x32}, MSR_APIC_BASE, true},
        {"wrmsr APIC_BASE", {0x0f, 0x30}, MSR_APIC_BASE, false},
        {"wrmsr x2APIC TPR", {0x0f, 0x30}, MSR_X2APIC + 8, true},
        {"wrmsr x2APIC ICR", {0x0f, 0x30}, MSR_X2APIC + 0x30, false},
        {"wrmsr TSC_DEADLINE", {0x0f, 0x30}, MSR_TSC_DEADLINE, false},
        {"mov rax, cr8", {0x44, 0x0f, 0x20, 0xc0}, 0, true},
        {"mov cr8, rax", {0x44, 0x0f, 0x22, 0xc0}, 0, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (i != 0) {
            teardown(state);
            setup(state);
        }
        g.v->ops = &own_ops;
        g.v->c.gpr[RDI] = MMIO;
        g.v->c.gpr[RAX] = 3;
        g.v->c.gpr[RDX] = 0;
        g.v->c.gpr[RCX] = cases[i].rcx;
        g_code(&g, G_CODE, cases[i].bytes, sizeof cases[i].bytes);
        enum vcpu_stop stop = g_run(&g, 1);
        if (stop != (cases[i].own ? VCPU_BUDGET : VCPU_SERIAL) || (reached != 0) != cases[i].own) {
            fail_msg("%s: stop %d, reached %u", cases[i].what, stop, reached);
        }
    }
    /* pushed by an exception: not the last thing that it does */
    teardown(state);
    setup(state);
    g.v->ops = &own_ops;
    g.v->c.gpr[RSP] = MMIO + 0x20;
    G_CODE_AT(&g, G_CODE, 0x0f, 0x0b);
    assert_int_equal(g_run(&g, 1), VCPU_SERIAL);
    assert_int_equal(reached, 0);
}

static void own_interrupts_are_taken_in_parallel(void **state)
{
    (void)state;
    g.v->ops = &own_ops;
    g.v->irq_pending = true;
    g.v->c.rflags |= FLAG_IF;
    G_CODE_AT(&g, G_CODE, 0x90);
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(g.v->c.rip, G_STUBS + 40 * 16);
    assert_int_equal(g.v->c.progress, 1);
    assert_int_equal(reached, 1);
    /* It cannot be delivered here: then it was not taken. */
    teardown(state);
    setup(state);
    g.v->ops = &own_ops;
    g.v->irq_pending = true;
    g.v->c.rflags |= FLAG_IF;
    g.v->c.halted = 1;
    g.v->c.gpr[RSP] = MMIO + 0x800;
    peeked = 0;
    stops_and_then_runs("an interrupt", 6);
    assert_int_equal(peeked, 2);
    assert_int_equal(g.v->c.halted, 0);
}

/* What is the vCPU's own, it does. */
static void own_things_run_in_parallel(void **state)
{
    (void)state;
    G_CODE_AT(&g, G_CODE, 0x0f, 0x31 /* rdtsc */, 0x0f, 0xc7, 0xf0 /* rdrand */, 0x0f,
              0xa2 /* cpuid */, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32 /* rdmsr EFER */, 0x0f,
              0x0b /* ud2 */);
    assert_int_equal(g_run(&g, 100), VCPU_HALT);
    assert_int_equal(g_vector(&g), VEC_UD);
    assert_int_equal(reached, 0);
}

/* An INIT to oneself takes the place of the next instruction, even where the budget ends. */
static void init_to_oneself_comes_after_the_instruction(void **state)
{
    (void)state;
    g.v->ops = &init_ops;
    g.run.part = PART_SERIAL;
    g.v->c.gpr[RBX] = 5;
    G_CODE_AT(&g, G_CODE, 0xee, 0x90);
    assert_int_equal(g_run(&g, 1), VCPU_BUDGET);
    assert_int_equal(inits, 1);
    assert_int_equal(g.v->c.rip, G_CODE + 1);
    assert_int_equal(g.v->c.gpr[RBX], 0);
    assert_false(g.v->init_pending);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(instructions_stop_before_any_effect),
        TEST(pdptes_are_loaded_serially),
        TEST(interrupts_are_taken_serially),
        TEST(deliveries_stop_before_any_effect),
        TEST(stepping_is_serial),
        TEST(own_things_run_in_parallel),
        TEST(the_own_lapic_is_reached_in_parallel),
        TEST(own_interrupts_are_taken_in_parallel),
        TEST(init_to_oneself_comes_after_the_instruction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
