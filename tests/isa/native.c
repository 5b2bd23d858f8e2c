/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/native.c - one instruction on the host's processor: a child under ptrace that shares
 * code, data and stack pages with us and is single-stepped with registers of our choice. */
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/isa/isa.h"

enum { CS64 = 0x33, CS32 = 0x23, SS_USER = 0x2b, REP_STEPS_MAX = 4096 };
enum { LDT_CODE16, LDT_DATA16, LDT_STACK16 };
#define LDT_SEL(i) ((unsigned)(i) << 3 | 7)

static pid_t child;

static int map_at(uint64_t at, size_t len)
{
    void *p = mmap((void *)(uintptr_t)at, len, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    return p == (void *)(uintptr_t)at ? 0 : -1;
}

static void set_ldt(unsigned entry, uint64_t base, unsigned contents)
{
    struct user_desc d = {.entry_number = entry,
                          .base_addr = (unsigned)base,
                          .limit = 0xffff,
                          .contents = contents & 3,
                          .useable = 1};

    if (syscall(SYS_modify_ldt, 1, &d, sizeof d) != 0) {
        _exit(9);
    }
}

static _Noreturn void child_main(void)
{
    set_ldt(LDT_CODE16, CODE_AT, MODIFY_LDT_CONTENTS_CODE);
    set_ldt(LDT_DATA16, DATA_AT, MODIFY_LDT_CONTENTS_DATA);
    set_ldt(LDT_STACK16, STACK_AT, MODIFY_LDT_CONTENTS_DATA);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(9);
    }
    (void)raise(SIGSTOP);
    for (;;) {
        (void)pause();
    }
}

int native_open(void)
{
    int status;

    if (map_at(CODE_AT, CODE_SIZE) != 0 || map_at(DATA_AT, DATA_SIZE) != 0 ||
        map_at(STACK_AT, STACK_SIZE) != 0) {
        perror("cannot map the pages of the test");
        return -1;
    }
    child = fork();
    if (child == 0) {
        child_main();
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        (void)fprintf(stderr, "this host does not let us single-step a child\n");
        return -1;
    }
    return 0;
}

void native_close(void)
{
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)munmap((void *)(uintptr_t)CODE_AT, CODE_SIZE);
    (void)munmap((void *)(uintptr_t)DATA_AT, DATA_SIZE);
    (void)munmap((void *)(uintptr_t)STACK_AT, STACK_SIZE);
}

/* Offsets within struct user_regs_struct in the order of enum cpu_reg. */
#define REG(name) offsetof(struct user_regs_struct, name)
static const size_t reg_at[16] = {REG(rax), REG(rcx), REG(rdx), REG(rbx), REG(rsp), REG(rbp),
                                  REG(rsi), REG(rdi), REG(r8),  REG(r9),  REG(r10), REG(r11),
                                  REG(r12), REG(r13), REG(r14), REG(r15)};

static void load_regs(enum isa_mode mode, const struct isa_state *in, struct user_regs_struct *r)
{
    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, r) == 0);
    for (int i = 0; i < 16; i++) {
        memcpy((char *)r + reg_at[i], &in->gpr[i], 8);
    }
    r->rip = in->rip;
    r->eflags = in->rflags;
    r->orig_rax = UINT64_MAX; /* not in a system call */
    r->cs = mode == ISA_64 ? CS64 : mode == ISA_32 ? CS32 : LDT_SEL(LDT_CODE16);
    r->ss = mode == ISA_16 ? LDT_SEL(LDT_STACK16) : SS_USER;
    r->ds = r->es = mode == ISA_16 ? LDT_SEL(LDT_DATA16) : SS_USER;
    r->fs = r->gs = 0;
    r->fs_base = mode == ISA_64 ? in->fs_base : 0;
    r->gs_base = mode == ISA_64 ? in->gs_base : 0;
    PLX_CHECK(ptrace(PTRACE_SETREGS, child, NULL, r) == 0);
}

/* One step; the signal it ended with, SIGTRAP counted as 0. */
static int step(void)
{
    int status, sig;

    PLX_CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
    PLX_CHECK(waitpid(child, &status, 0) == child);
    PLX_CHECK(WIFSTOPPED(status));
    sig = WSTOPSIG(status);
    return sig == SIGTRAP ? 0 : sig;
}

void native_step(enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
                 const struct isa_state *in, struct isa_outcome *out)
{
    struct user_regs_struct r;
    struct user_fpregs_struct fp;

    memcpy((void *)(uintptr_t)(CODE_AT + INSN_OFFSET), code, len);
    memcpy((void *)(uintptr_t)DATA_AT, in->data, DATA_SIZE);
    memcpy((void *)(uintptr_t)STACK_AT, in->stack, STACK_SIZE);
    memcpy(&fp, in->fx, sizeof fp);
    load_regs(mode, in, &r);
    PLX_CHECK(ptrace(PTRACE_SETFPREGS, child, NULL, &fp) == 0);
    out->signal = step();
    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    for (int i = 0; rep && out->signal == 0 && r.rip == in->rip && i < REP_STEPS_MAX; i++) {
        out->signal = step(); /* the processor stops after each iteration */
        PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    }
    PLX_CHECK(ptrace(PTRACE_GETFPREGS, child, NULL, &fp) == 0);
    for (int i = 0; i < 16; i++) {
        memcpy(&out->s.gpr[i], (char *)&r + reg_at[i], 8);
    }
    out->s.rip = r.rip;
    out->s.rflags = r.eflags;
    memcpy(out->s.fx, &fp, sizeof fp);
    memcpy(out->s.data, (void *)(uintptr_t)DATA_AT, DATA_SIZE);
    memcpy(out->s.stack, (void *)(uintptr_t)STACK_AT, STACK_SIZE);
}
