/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/host_fpu.h - run one instruction on the host's processor from a given FPU, SSE and
 * general register state, and see the state after it, or the fault it raised; and a vCPU in
 * 64-bit mode with a page of data, in which the same bytes are decoded and run here.
 *
 * Included by exactly one file of a test program; one thread. */
#ifndef TESTS_UNIT_HOST_FPU_H
#define TESTS_UNIT_HOST_FPU_H

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/unit/amount.h"
#include "vmm/cpu/decode.h"
#include "vmm/cpu/mem.h"
#include "vmm/engine/engine.h"

/* FXSAVE image (64-bit form) and the registers an instruction under test may use. */
struct host_state {
    _Alignas(64) uint8_t fx[512];
    uint64_t rax, rcx, rdx, rsi, rdi, rflags;
};

static uint8_t *host_code;
static sigjmp_buf host_jmp;
static struct host_state *host_now;
static volatile int host_signal;

static void host_on_signal(int sig, siginfo_t *info, void *uctx)
{
    ucontext_t *uc = uctx;

    (void)info;
    host_signal = sig;
    memcpy(host_now->fx, uc->uc_mcontext.fpregs, 512);
    siglongjmp(host_jmp, 1);
}

/* In every test that calls host_run: cmocka puts its own handlers in place before each. */
static inline void host_init(void)
{
    struct sigaction sa = {.sa_sigaction = host_on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};

    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
    if (host_code == NULL) {
        host_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        PLX_CHECK(host_code != MAP_FAILED);
    }
}

/* Run @len bytes of code. Returns 0, or the signal; *s is the state after, either way (after a
 * signal the general registers are as before). */
static inline int host_run(struct host_state *s, const uint8_t *code, size_t len)
{
    static _Alignas(64) uint8_t own[512];

    memcpy(host_code, code, len);
    host_code[len] = 0xc3;
    host_now = s;
    host_signal = 0;
    __asm__ volatile("fxsave64 %0" : "=m"(own) : : "memory");
    if (sigsetjmp(host_jmp, 0) == 0) {
        __asm__ volatile(
            "lea -256(%%rsp), %%rsp\n\t"
            "mov %0, %%r12\n\t"
            "mov %1, %%r13\n\t"
            "fxrstor64 (%%r12)\n\t"
            "mov %c2(%%r12), %%rax\n\t"
            "mov %c3(%%r12), %%rcx\n\t"
            "mov %c4(%%r12), %%rdx\n\t"
            "mov %c5(%%r12), %%rsi\n\t"
            "mov %c6(%%r12), %%rdi\n\t"
            "pushq %c7(%%r12)\n\t"
            "popfq\n\t"
            "call *%%r13\n\t"
            "pushfq\n\t"
            "popq %c7(%%r12)\n\t"
            "cld\n\t"
            "mov %%rax, %c2(%%r12)\n\t"
            "mov %%rcx, %c3(%%r12)\n\t"
            "mov %%rdx, %c4(%%r12)\n\t"
            "fxsave64 (%%r12)\n\t"
            "lea 256(%%rsp), %%rsp\n\t"
            :
            : "r"(s), "r"(host_code), "i"(offsetof(struct host_state, rax)),
              "i"(offsetof(struct host_state, rcx)), "i"(offsetof(struct host_state, rdx)),
              "i"(offsetof(struct host_state, rsi)), "i"(offsetof(struct host_state, rdi)),
              "i"(offsetof(struct host_state, rflags))
            : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "memory",
              "cc");
    }
    __asm__ volatile("fxrstor64 %0" : : "m"(own) : "memory");
    return host_signal;
}

/* The same state in a vCPU, and back. */
static inline void host_to_cpu(struct vcpu *v, const struct host_state *s)
{
    struct cpu_fpu *f = &v->c.fpu;
    unsigned top;

    memcpy(&f->fcw, s->fx, 2);
    memcpy(&f->fsw, s->fx + 2, 2);
    f->ftw = s->fx[4];
    top = f->fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(f->st[(top + i) & 7], s->fx + 32 + 16 * i, 10);
    }
    memcpy(&f->mxcsr, s->fx + 24, 4);
    memcpy(f->xmm, s->fx + 160, 256);
    v->c.gpr[RAX] = s->rax;
    v->c.gpr[RCX] = s->rcx;
    v->c.gpr[RDX] = s->rdx;
    v->c.gpr[RSI] = s->rsi;
    v->c.gpr[RDI] = s->rdi;
    v->c.rflags = s->rflags;
}

static inline void cpu_to_host(const struct vcpu *v, struct host_state *s)
{
    const struct cpu_fpu *f = &v->c.fpu;
    unsigned top = f->fsw >> 11 & 7;

    memcpy(s->fx, &f->fcw, 2);
    memcpy(s->fx + 2, &f->fsw, 2);
    s->fx[4] = f->ftw;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(s->fx + 32 + 16 * i, f->st[(top + i) & 7], 10);
    }
    memcpy(s->fx + 24, &f->mxcsr, 4);
    memcpy(s->fx + 160, f->xmm, 256);
    s->rax = v->c.gpr[RAX];
    s->rcx = v->c.gpr[RCX];
    s->rdx = v->c.gpr[RDX];
    s->rflags = v->c.rflags;
}

/* Decode @code and run it on @v: 0, or 256 + the vector it raised. */
static inline int cpu_run(struct vcpu *v, const uint8_t *code, size_t len, struct insn *in)
{
    uint8_t bytes[INSN_BYTES_MAX] = {0};

    memcpy(bytes, code, len);
    if (decode_insn(v->model, DECODE_64, bytes, sizeof bytes, in) != 0) {
        return -1;
    }
    v->c.rip = 0x1000;
    v->next_rip = v->c.rip + in->len;
    v->cur = in;
    if (setjmp(v->fault_jmp) != 0) {
        return 256 + v->fault_vector;
    }
    in->fn(v, in);
    return 0;
}

enum { GUEST_DATA = 0x10000 }; /* linear and physical address of the data */

/* 64-bit mode at CPL 0, SSE and XSAVE on, memory mapped one to one. Lives as long as the test. */
static inline struct vcpu *cpu_fake(void)
{
    static const uint64_t pml4 = 0x2003, pdpt = 0x83;
    struct engine_config cfg = {.bsp = true};
    struct vcpu *v;

    PLX_CHECK(ram_create(RAM_MIN, &cfg.ram, NULL) == 0);
    PLX_CHECK(ram_write(cfg.ram, 0x1000, &pml4, 8) == 0);
    PLX_CHECK(ram_write(cfg.ram, 0x2000, &pdpt, 8) == 0);
    decode_init();
    PLX_CHECK(engine_interp.create(&cfg, &v, NULL) == 0);
    v->c.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_MP;
    v->c.cr3 = 0x1000;
    v->c.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    v->c.efer = EFER_LMA | EFER_LME;
    v->c.seg[SEG_CS].attr = SEG_L | SEG_P | SEG_S | SEG_CODE;
    v->c.xcr0 = 3;
    engine_interp.state_changed(v);
    return v;
}

static inline void cpu_fake_close(struct vcpu *v)
{
    struct ram *ram = v->ram;

    engine_interp.destroy(v);
    ram_destroy(ram);
}

static struct prng host_prng;

/* Seed from the environment (SEED) or the clock; printed, so that a failure can be repeated. */
static inline void host_seed(void)
{
    uint64_t seed = from_env("SEED", (uint64_t)time(NULL));

    printf("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&host_prng, seed);
}

static inline uint64_t rnd(void)
{
    return prng_u64(&host_prng);
}

static inline uint64_t rnd_below(uint64_t n)
{
    return prng_below(&host_prng, n);
}

#endif
