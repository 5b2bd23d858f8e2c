/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_signal.c - signals that reach a thread inside translated code, where RSP is
 * that of struct vcpu: their handlers have room there, and nothing of the guest changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

#include "tests/isa/ours.h"
#include "tests/unit/amount.h"
#include "vmm/cpu/vcpu.h"

enum { START = 0x400, BUDGET = 100000, RUNS_MAX = 100000, ENOUGH = 50, FRAME = 4096 };

static struct ours a, b; /* the interpreter's, the translator's */
static volatile sig_atomic_t inside;

static void handle(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *at = context;
    uintptr_t rsp = (uintptr_t)at->uc_mcontext.gregs[REG_RSP], from = (uintptr_t)b.vcpu->stack;
    volatile uint8_t frame[FRAME];

    (void)signal;
    (void)info;
    for (unsigned i = 0; i < FRAME; i++) {
        frame[i] = (uint8_t)i;
    }
    inside += rsp >= from && rsp <= from + VCPU_STACK && frame[FRAME - 1] == (uint8_t)(FRAME - 1);
}

/* Registers, flags, memory, the stack, SSE, x87, and a call of C: all that translated code keeps
 * anywhere. */
/* clang-format off */
static const uint8_t loop[] = {
    0x48, 0x01, 0x03,       /* add [rbx], rax */
    0x50,                   /* push rax */
    0x9c,                   /* pushfq */
    0x66, 0x0f, 0xfe, 0xc1, /* paddd xmm0, xmm1 */
    0xd9, 0xe0,             /* fchs */
    0x0f, 0xa2,             /* cpuid */
    0x41, 0x5e,             /* pop r14 */
    0x58,                   /* pop rax */
    0x4c, 0x11, 0xf0,       /* adc rax, r14 */
    0xbb, DATA_AT & 0xff, DATA_AT >> 8 & 0xff, DATA_AT >> 16 & 0xff, DATA_AT >> 24,
    0xeb, -26 & 0xff,       /* jmp to the beginning */
};
/* clang-format on */

static void start(struct ours *o)
{
    static uint8_t code[CODE_SIZE];
    static struct isa_state in;

    memcpy(code + START, loop, sizeof loop);
    in.rip = CODE_AT + START;
    in.gpr[RBX] = DATA_AT;
    in.gpr[RSP] = STACK_AT + STACK_SIZE / 2;
    in.rflags = FLAG_ONE;
    isa_fx_reset(&in);
    ours_begin(o, code, &in);
}

static void they_change_nothing(void **state)
{
    const struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    const struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    unsigned runs = 0;

    (void)state;
    if (UNDER_TSAN) { /* it keeps signals back until some C code is entered */
        skip();
    }
    ours_open(&a, &engine_interp, 0);
    ours_open(&b, &engine_jit, 0);
    start(&a);
    start(&b);
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (inside < ENOUGH && runs < RUNS_MAX) {
        assert_int_equal(ours_run(&b, BUDGET), VCPU_BUDGET);
        runs++;
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(inside >= ENOUGH);
    for (unsigned i = 0; i < runs; i++) {
        assert_int_equal(ours_run(&a, BUDGET), VCPU_BUDGET);
    }
    assert_true(ours_equal(&a, &b));
    ours_close(&a);
    ours_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(they_change_nothing)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
