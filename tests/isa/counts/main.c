/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/counts/main.c - counts the instructions of a program of tests/isa/program: on the host
 * by single-stepping it, on the interpreter by its retired count. Counts, registers, data and stack
 * must be equal at the end; and any division of the budget must lead to the same digest, by the
 * translator too.
 *
 *   counts [--v3] PROGRAM
 *
 * --v3: under the model pollux-v3 instead of pollux-v2. Exit 1 when something differs, 77 when this
 * host cannot be single-stepped, or lacks what pollux-v3 has. */
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/isa/ours.h"

enum { STEPS_MAX = 4000000, PROGRAM_MAX = 1 << 20, VEX = 0xc4 };

static struct {
    union {
        Elf64_Ehdr eh;
        uint8_t bytes[PROGRAM_MAX];
    };
    size_t len;
    uint64_t end; /* where it stays when it is done */
} elf;

static void read_program(const char *path)
{
    FILE *f = fopen(path, "rb");

    PLX_CHECK(f != NULL);
    elf.len = fread(elf.bytes, 1, sizeof elf.bytes, f);
    PLX_CHECK(fclose(f) == 0 && elf.len > sizeof elf.eh && elf.len < sizeof elf.bytes);
    for (unsigned i = 0; i < elf.eh.e_shnum; i++) {
        Elf64_Shdr *sh = (Elf64_Shdr *)(elf.bytes + elf.eh.e_shoff) + i;
        if (sh->sh_type != SHT_SYMTAB) {
            continue;
        }
        const char *names =
            (char *)elf.bytes + ((Elf64_Shdr *)(elf.bytes + elf.eh.e_shoff))[sh->sh_link].sh_offset;
        for (Elf64_Sym *s = (Elf64_Sym *)(elf.bytes + sh->sh_offset),
                       *last = s + sh->sh_size / sizeof *s;
             s < last; s++) {
            if (strcmp(names + s->st_name, "program_end") == 0) {
                elf.end = s->st_value;
            }
        }
    }
    PLX_CHECK(elf.end != 0);
}

/* --- the host -----------------------------------------------------------------------------------
 */

static void peek(pid_t child, uint64_t at, void *out, size_t len)
{
    struct iovec here = {out, len}, there = {(void *)(uintptr_t)at, len};

    PLX_CHECK(process_vm_readv(child, &here, 1, &there, 1, 0) == (ssize_t)len);
}

/* Offsets within struct user_regs_struct in the order of enum cpu_reg. */
#define REG(name) offsetof(struct user_regs_struct, name)
static const size_t reg_at[16] = {REG(rax), REG(rcx), REG(rdx), REG(rbx), REG(rsp), REG(rbp),
                                  REG(rsi), REG(rdi), REG(r8),  REG(r9),  REG(r10), REG(r11),
                                  REG(r12), REG(r13), REG(r14), REG(r15)};

static void state_of(pid_t child, struct isa_state *s)
{
    struct user_regs_struct r;

    PLX_CHECK(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    for (int i = 0; i < 16; i++) {
        memcpy(&s->gpr[i], (char *)&r + reg_at[i], 8);
    }
    s->rip = r.rip;
    s->rflags = r.eflags;
    native_fp(child, s);
    peek(child, DATA_AT, s->data, DATA_SIZE);
    peek(child, STACK_AT, s->stack, STACK_SIZE);
}

/* A gather is traced element by element, like a REP, but is one instruction. */
static bool is_vex(pid_t child, uint64_t rip)
{
    uint8_t first;

    peek(child, rip, &first, 1);
    return first == VEX;
}

/* Steps from the first instruction to program_end; UINT64_MAX: this host does not let us. */
static uint64_t count_native(const char *path, struct isa_state *first, struct isa_state *last)
{
    uint64_t steps = 0;
    int status;
    pid_t child = fork();

    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0) {
            (void)execl(path, path, (char *)NULL);
        }
        _exit(9);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        return UINT64_MAX;
    }
    state_of(child, first);
    for (uint64_t rip = first->rip, before; rip != elf.end && steps < STEPS_MAX;) {
        PLX_CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
        PLX_CHECK(waitpid(child, &status, 0) == child);
        PLX_CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        before = rip;
        rip =
            (uint64_t)ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, rip), NULL);
        steps += rip == before && is_vex(child, rip) ? 0 : 1;
    }
    state_of(child, last);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    return steps;
}

/* --- the engine ---------------------------------------------------------------------------------
 */

static void start(struct ours *o, const struct engine_ops *engine, const struct isa_state *first)
{
    ours_open(o, engine, 0);
    for (unsigned i = 0; i < elf.eh.e_phnum; i++) {
        Elf64_Phdr *ph = (Elf64_Phdr *)(elf.bytes + elf.eh.e_phoff) + i;
        PLX_CHECK(ph->p_type == PT_LOAD && ph->p_filesz == ph->p_memsz);
        ours_write(o, ph->p_vaddr, elf.bytes + ph->p_offset, ph->p_filesz);
    }
    ours_start(o, first);
}

static unsigned compare(const struct isa_state *a, const struct isa_state *b)
{
    const uint64_t mask = 0xcd5; /* the arithmetic flags and DF */
    unsigned bad = 0;

    for (int i = 0; i < 16; i++) {
        if (a->gpr[i] != b->gpr[i]) {
            printf("register %d: host %016llx, here %016llx\n", i, (unsigned long long)a->gpr[i],
                   (unsigned long long)b->gpr[i]);
            bad++;
        }
    }
    if (a->rip != b->rip || ((a->rflags ^ b->rflags) & mask) != 0) {
        printf("rip %llx %llx, flags %llx %llx\n", (unsigned long long)a->rip,
               (unsigned long long)b->rip, (unsigned long long)(a->rflags & mask),
               (unsigned long long)(b->rflags & mask));
        bad++;
    }
    bad += memcmp(a->fx, b->fx, 5) != 0 || memcmp(a->fx + 24, b->fx + 24, 4) != 0 ||
           memcmp(a->fx + 160, b->fx + 160, 256) != 0 ||
           memcmp(a->ymm_high, b->ymm_high, sizeof a->ymm_high) != 0;
    bad += memcmp(a->data, b->data, DATA_SIZE) != 0;
    bad += memcmp(a->stack, b->stack, STACK_SIZE) != 0;
    return bad;
}

/* From @first to @progress in portions of @portion. */
static struct hash128 run_in(const struct engine_ops *engine, const struct isa_state *first,
                             uint64_t progress, uint64_t portion)
{
    struct ours o;
    struct hash128 h;

    start(&o, engine, first);
    for (uint64_t left = progress; left > 0;) {
        uint64_t n = left < portion ? left : portion;
        PLX_CHECK(ours_run(&o, n) == 0);
        left -= n;
        PLX_CHECK(ours_at(&o).progress == progress - left);
    }
    h = ours_digest(&o);
    ours_close(&o);
    return h;
}

/* How many digests are not @whole, by @engine with budgets of several sizes. */
static unsigned divide(const struct engine_ops *engine, const char *name,
                       const struct isa_state *first, uint64_t progress, struct hash128 whole)
{
    const uint64_t portions[] = {1, 2, 3, 7, 64, 1000, progress};
    unsigned bad = 0;

    for (size_t i = 0; i < PLX_COUNT(portions); i++) {
        if (!hash128_eq(run_in(engine, first, progress, portions[i]), whole)) {
            printf("%s, budgets of %llu: another digest\n", name, (unsigned long long)portions[i]);
            bad++;
        }
    }
    return bad;
}

int main(int argc, char **argv)
{
    static struct isa_state first, host, here;
    struct ours o;
    struct ours_at at;
    uint64_t native;
    unsigned bad;

    isa_v3 = argc == 3 && strcmp(argv[1], "--v3") == 0;
    if (argc != (isa_v3 ? 3 : 2)) {
        (void)fprintf(stderr, "counts [--v3] PROGRAM\n");
        return 2;
    }
    if (!native_has_model()) {
        printf("this host has no AVX2\n");
        return 77;
    }
    read_program(argv[argc - 1]);
    native = count_native(argv[argc - 1], &first, &host);
    if (native == UINT64_MAX) {
        printf("this host cannot be single-stepped\n");
        return 77;
    }
    start(&o, &engine_interp, &first);
    for (at = ours_at(&o); at.rip != elf.end && at.retired < STEPS_MAX; at = ours_at(&o)) {
        PLX_CHECK(ours_run(&o, 1) == 0);
    }
    ours_state(&o, &here);
    printf("host: %llu instructions; here: %llu, progress %llu\n", (unsigned long long)native,
           (unsigned long long)at.retired, (unsigned long long)at.progress);
    bad = compare(&host, &here) + (native != at.retired);
    ours_close(&o);

    struct hash128 whole = run_in(&engine_interp, &first, at.progress, at.progress);
    bad += divide(&engine_interp, "interpreter", &first, at.progress, whole);
    bad += divide(&engine_jit, "translator", &first, at.progress, whole);
    printf("%u differ\n", bad);
    return bad == 0 ? 0 : 1;
}
