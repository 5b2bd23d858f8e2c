/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/native.c - instructions on the host's processor: a child under ptrace that shares code,
 * data and stack pages with us and runs, or is single-stepped, with registers of our choice. It has
 * no other memory, and no system calls. */
#include <asm/ldt.h>
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/isa/isa.h"

enum { CS64 = 0x33, CS32 = 0x23, SS_USER = 0x2b, REP_STEPS_MAX = 4096 };
enum { RSEQ_BYTES = 32, WAIT_S = 1 };
#define USER_END UINT64_C(0x7ffffffff000)
enum { LDT_CODE16, LDT_DATA16, LDT_STACK16 };
#define LDT_SEL(i) ((unsigned)(i) << 3 | 7)

/* The standard format of the XSAVE area (SDM Vol. 1, "XSAVE Area"). */
enum { XSTATE_BV_AT = 512, YMM_HIGH_AT = 576, XSTATE_MAX = 16384 };

static pid_t child;
static sigset_t stops; /* SIGCHLD */

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
    /* The kernel would kill what it cannot tell the processor's number. */
    if (__rseq_size != 0) {
        (void)syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, RSEQ_BYTES,
                      RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(9);
    }
    (void)raise(SIGSTOP);
    for (;;) {
        (void)pause();
    }
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

static void xstate(pid_t pid, int request, uint8_t area[XSTATE_MAX], size_t *len)
{
    struct iovec io = {area, *len};

    PLX_CHECK(ptrace(request, pid, NT_X86_XSTATE, &io) == 0);
    *len = io.iov_len;
}

static void load_fp(const struct isa_state *in)
{
    static uint8_t area[XSTATE_MAX];
    struct user_fpregs_struct fp;
    size_t len = sizeof area;
    uint64_t bv;

    if (!isa_v3) {
        memcpy(&fp, in->fx, sizeof fp);
        PLX_CHECK(ptrace(PTRACE_SETFPREGS, child, NULL, &fp) == 0);
        return;
    }
    xstate(child, PTRACE_GETREGSET, area, &len);
    memcpy(area, in->fx, sizeof in->fx - 48); /* the rest is the kernel's */
    memcpy(area + YMM_HIGH_AT, in->ymm_high, sizeof in->ymm_high);
    memcpy(&bv, area + XSTATE_BV_AT, 8);
    bv |= 7;
    memcpy(area + XSTATE_BV_AT, &bv, 8);
    xstate(child, PTRACE_SETREGSET, area, &len);
}

void native_fp(pid_t pid, struct isa_state *out)
{
    static uint8_t area[XSTATE_MAX];
    struct user_fpregs_struct fp;
    size_t len = sizeof area;
    uint64_t bv;

    PLX_CHECK(ptrace(PTRACE_GETFPREGS, pid, NULL, &fp) == 0);
    memcpy(out->fx, &fp, sizeof fp);
    memset(out->ymm_high, 0, sizeof out->ymm_high);
    if (isa_v3) {
        xstate(pid, PTRACE_GETREGSET, area, &len);
        memcpy(&bv, area + XSTATE_BV_AT, 8);
        if ((bv & 4) != 0) {
            memcpy(out->ymm_high, area + YMM_HIGH_AT, sizeof out->ymm_high);
        }
    }
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

/* Have the child make a system call. */
static uint64_t inject(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
    struct user_regs_struct r;

    memcpy((void *)(uintptr_t)CODE_AT, (const uint8_t[]){0x0f, 0x05}, 2);
    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    r.rip = CODE_AT;
    r.orig_rax = UINT64_MAX;
    r.rax = nr;
    r.rdi = a;
    r.rsi = b;
    r.rdx = c;
    PLX_CHECK(ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
    PLX_CHECK(step() == 0);
    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    memset((void *)(uintptr_t)CODE_AT, 0, 2); /* a program may read it: zeros, as in ours */
    return r.rax;
}

/* Whatever a program does: it finds no memory of ours, and dies if it calls the kernel. */
static void seal(void)
{
    struct sock_filter kill_all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    struct sock_fprog prog = {.len = 1, .filter = (struct sock_filter *)(uintptr_t)DATA_AT};
    uint64_t prog_at = DATA_AT + sizeof kill_all;

    PLX_CHECK(inject(SYS_munmap, 0, CODE_AT, 0) == 0);
    PLX_CHECK(inject(SYS_munmap, STACK_AT + STACK_SIZE, USER_END - STACK_AT - STACK_SIZE, 0) == 0);
    memcpy((void *)(uintptr_t)DATA_AT, kill_all, sizeof kill_all);
    memcpy((void *)(uintptr_t)prog_at, &prog, sizeof prog);
    PLX_CHECK(inject(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, prog_at) == 0);
}

bool native_has_model(void)
{
    return !isa_v3 || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi2"));
}

int native_open(void)
{
    int status;

    if (!native_has_model()) {
        (void)fprintf(stderr, "this host has no AVX2\n");
        return -1;
    }
    (void)sigemptyset(&stops);
    (void)sigaddset(&stops, SIGCHLD);
    PLX_CHECK(sigprocmask(SIG_BLOCK, &stops, NULL) == 0);

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
    PLX_CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL) == 0);
    seal();
    return 0;
}

static void load(enum isa_mode mode, const struct isa_state *in)
{
    struct user_regs_struct r;

    memcpy((void *)(uintptr_t)DATA_AT, in->data, DATA_SIZE);
    memcpy((void *)(uintptr_t)STACK_AT, in->stack, STACK_SIZE);
    load_regs(mode, in, &r);
    load_fp(in);
}

static void store(struct isa_outcome *out)
{
    struct user_regs_struct r;

    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    native_fp(child, &out->s);
    for (int i = 0; i < 16; i++) {
        memcpy(&out->s.gpr[i], (char *)&r + reg_at[i], 8);
    }
    out->s.rip = r.rip;
    out->s.rflags = r.eflags;
    memcpy(out->s.data, (void *)(uintptr_t)DATA_AT, DATA_SIZE);
    memcpy(out->s.stack, (void *)(uintptr_t)STACK_AT, STACK_SIZE);
}

void native_step(enum isa_mode mode, const uint8_t *code, unsigned len, bool rep,
                 const struct isa_state *in, struct isa_outcome *out)
{
    struct user_regs_struct r;

    memcpy((void *)(uintptr_t)(CODE_AT + INSN_OFFSET), code, len);
    load(mode, in);
    out->signal = step();
    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    for (int i = 0; rep && out->signal == 0 && r.rip == in->rip && i < REP_STEPS_MAX; i++) {
        out->signal = step(); /* the processor stops after each iteration */
        PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    }
    store(out);
}

bool native_has_mode(enum isa_mode mode)
{
    static const uint8_t nop = 0x90;
    static struct isa_state in;
    static struct isa_outcome out;

    in.rip = mode == ISA_16 ? INSN_OFFSET : CODE_AT + INSN_OFFSET;
    in.rflags = 2; /* the one that is always set */
    isa_fx_reset(&in);
    native_step(mode, &nop, sizeof nop, false, &in, &out);
    return out.signal == 0;
}

static time_t seconds_used(void)
{
    struct timespec used;
    clockid_t clock;

    PLX_CHECK(clock_getcpuclockid(child, &clock) == 0 && clock_gettime(clock, &used) == 0);
    return used.tv_sec;
}

/* Wait for the child to stop. false: it runs on, a second or two of its own time. */
static bool wait_stop(int *status)
{
    struct timespec limit = {.tv_sec = WAIT_S};
    time_t before = seconds_used();
    pid_t got;

    while ((got = waitpid(child, status, WNOHANG)) == 0) {
        if (sigtimedwait(&stops, NULL, &limit) < 0 && errno == EAGAIN &&
            seconds_used() > before + WAIT_S) {
            return waitpid(child, status, WNOHANG) == child;
        }
    }
    PLX_CHECK(got == child);
    return true;
}

bool native_run(const uint8_t code[CODE_SIZE], const struct isa_state *in, struct isa_outcome *out)
{
    siginfo_t why;
    int status;
    bool ended;

    memcpy((void *)(uintptr_t)CODE_AT, code, CODE_SIZE);
    load(ISA_64, in);
    PLX_CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    ended = wait_stop(&status);
    if (!ended) {
        PLX_CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, &status, 0) == child);
    }
    PLX_CHECK(WIFSTOPPED(status));
    *out = (struct isa_outcome){.signal = WSTOPSIG(status)};
    PLX_CHECK(ptrace(PTRACE_GETSIGINFO, child, NULL, &why) == 0);
    if (out->signal == SIGSEGV && (why.si_code == SEGV_MAPERR || why.si_code == SEGV_ACCERR)) {
        out->page_fault = true;
        out->present = why.si_code == SEGV_ACCERR;
        out->address = (uint64_t)(uintptr_t)why.si_addr;
    }
    store(out);
    return ended;
}
