/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/witness.c - which test answers for each form that this host cannot check. The tests run
 * every form in every mode and operand size it has; tests/guest shows the same instructions at work
 * in a system, beside QEMU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"

#define FORMS "tests/unit/test_sys_forms.c"

/* clang-format off */
static const struct row {
    ZydisMnemonic mnemonic;
    const char *has; /* in the form's name; NULL: any */
    struct witness w;
} rows[] = {
    {ZYDIS_MNEMONIC_IN, NULL, {FORMS, "ports"}},
    {ZYDIS_MNEMONIC_OUT, NULL, {FORMS, "ports"}},
    {ZYDIS_MNEMONIC_INSB, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_INSW, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_INSD, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_OUTSB, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_OUTSW, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_OUTSD, NULL, {FORMS, "string_ports"}},
    {ZYDIS_MNEMONIC_MOV, "seg", {FORMS, "segment_moves"}},
    {ZYDIS_MNEMONIC_PUSH, "seg", {FORMS, "segment_pushes"}},
    {ZYDIS_MNEMONIC_POP, "seg", {FORMS, "segment_pushes"}},
    {ZYDIS_MNEMONIC_LDS, NULL, {FORMS, "far_pointers"}},
    {ZYDIS_MNEMONIC_LES, NULL, {FORMS, "far_pointers"}},
    {ZYDIS_MNEMONIC_LFS, NULL, {FORMS, "far_pointers"}},
    {ZYDIS_MNEMONIC_LGS, NULL, {FORMS, "far_pointers"}},
    {ZYDIS_MNEMONIC_LSS, NULL, {FORMS, "far_pointers"}},
    {ZYDIS_MNEMONIC_LGDT, NULL, {FORMS, "descriptor_tables"}},
    {ZYDIS_MNEMONIC_LIDT, NULL, {FORMS, "descriptor_tables"}},
    {ZYDIS_MNEMONIC_SGDT, NULL, {FORMS, "descriptor_tables"}},
    {ZYDIS_MNEMONIC_SIDT, NULL, {FORMS, "descriptor_tables"}},
    {ZYDIS_MNEMONIC_LLDT, NULL, {FORMS, "system_selectors"}},
    {ZYDIS_MNEMONIC_LTR, NULL, {FORMS, "system_selectors"}},
    {ZYDIS_MNEMONIC_SLDT, NULL, {FORMS, "system_selectors"}},
    {ZYDIS_MNEMONIC_STR, NULL, {FORMS, "system_selectors"}},
    {ZYDIS_MNEMONIC_LMSW, NULL, {FORMS, "machine_status_word"}},
    {ZYDIS_MNEMONIC_SMSW, NULL, {FORMS, "machine_status_word"}},
    {ZYDIS_MNEMONIC_CLTS, NULL, {FORMS, "machine_status_word"}},
    {ZYDIS_MNEMONIC_LAR, NULL, {FORMS, "inspection"}},
    {ZYDIS_MNEMONIC_LSL, NULL, {FORMS, "inspection"}},
    {ZYDIS_MNEMONIC_VERR, NULL, {FORMS, "inspection"}},
    {ZYDIS_MNEMONIC_VERW, NULL, {FORMS, "inspection"}},
    {ZYDIS_MNEMONIC_INT, NULL, {FORMS, "software_interrupts"}},
    {ZYDIS_MNEMONIC_INT1, NULL, {FORMS, "software_interrupts"}},
    {ZYDIS_MNEMONIC_INT3, NULL, {FORMS, "software_interrupts"}},
    {ZYDIS_MNEMONIC_INTO, NULL, {FORMS, "software_interrupts"}},
    {ZYDIS_MNEMONIC_IRET, NULL, {FORMS, "interrupt_returns"}},
    {ZYDIS_MNEMONIC_IRETD, NULL, {FORMS, "interrupt_returns"}},
    {ZYDIS_MNEMONIC_IRETQ, NULL, {FORMS, "interrupt_returns"}},
    {ZYDIS_MNEMONIC_PUSHF, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_PUSHFD, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_PUSHFQ, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_POPF, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_POPFD, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_POPFQ, NULL, {FORMS, "flags_on_the_stack"}},
    {ZYDIS_MNEMONIC_CALL, NULL, {FORMS, "far_transfers"}},
    {ZYDIS_MNEMONIC_JMP, NULL, {FORMS, "far_transfers"}},
    {ZYDIS_MNEMONIC_RET, NULL, {FORMS, "far_transfers"}},
    {ZYDIS_MNEMONIC_MOV, "cr", {FORMS, "control_and_debug_registers"}},
    {ZYDIS_MNEMONIC_MOV, "dr", {FORMS, "control_and_debug_registers"}},
    {ZYDIS_MNEMONIC_CLI, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_STI, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_HLT, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_INVD, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_WBINVD, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_RDMSR, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_WRMSR, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_RDPMC, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_RDTSC, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_RDTSCP, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_CPUID, NULL, {FORMS, "plain_instructions"}},
    {ZYDIS_MNEMONIC_STAC, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_CLAC, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_XGETBV, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_XSETBV, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_INVPCID, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_INVLPG, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_CLFLUSH, NULL, {FORMS, "the_rest"}},
    {ZYDIS_MNEMONIC_XSAVE, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_XSAVE64, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_XSAVEOPT, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_XSAVEOPT64, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_XRSTOR, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_XRSTOR64, NULL, {FORMS, "extended_states"}},
    {ZYDIS_MNEMONIC_RDRAND, NULL, {FORMS, "random_numbers"}},
    {ZYDIS_MNEMONIC_RDSEED, NULL, {FORMS, "random_numbers"}},
    {ZYDIS_MNEMONIC_RDFSBASE, NULL, {FORMS, "bases_of_fs_and_gs"}},
    {ZYDIS_MNEMONIC_RDGSBASE, NULL, {FORMS, "bases_of_fs_and_gs"}},
    {ZYDIS_MNEMONIC_WRFSBASE, NULL, {FORMS, "bases_of_fs_and_gs"}},
    {ZYDIS_MNEMONIC_WRGSBASE, NULL, {FORMS, "bases_of_fs_and_gs"}},
    {ZYDIS_MNEMONIC_SWAPGS, NULL, {FORMS, "bases_of_fs_and_gs"}},
    {ZYDIS_MNEMONIC_SYSCALL, NULL, {FORMS, "fast_system_calls"}},
    {ZYDIS_MNEMONIC_SYSRET, NULL, {FORMS, "fast_system_calls"}},
    {ZYDIS_MNEMONIC_SYSENTER, NULL, {FORMS, "fast_system_calls"}},
    {ZYDIS_MNEMONIC_SYSEXIT, NULL, {FORMS, "fast_system_calls"}},
    {ZYDIS_MNEMONIC_NOP, "1.0d", {FORMS, "prefetch_of_a_register_is_a_nop"}},
};
/* clang-format on */

static bool used[PLX_COUNT(rows)];

const struct witness *witness_of(const struct form *f)
{
    for (size_t i = 0; i < PLX_COUNT(rows); i++) {
        if (rows[i].mnemonic == f->mnemonic &&
            (rows[i].has == NULL || strstr(f->name, rows[i].has) != NULL)) {
            used[i] = true;
            return &rows[i].w;
        }
    }
    return NULL;
}

static char *read_text(const char *path)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "r");

    if (f == NULL) {
        return NULL;
    }
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    PLX_CHECK(fclose(f) == 0);
    return text;
}

/* A function of that name, and its place in the list of tests. */
static bool test_exists(const struct witness *w)
{
    const char *text = read_text(w->file);
    char defined[128], listed[128];

    (void)snprintf(defined, sizeof defined, "static void %s(void **state)", w->test);
    (void)snprintf(listed, sizeof listed, "_TEST(%s),", w->test);
    return text != NULL && strstr(text, defined) != NULL && strstr(text, listed) != NULL;
}

unsigned witnesses_check(bool all)
{
    unsigned bad = 0;

    for (size_t i = 0; i < PLX_COUNT(rows); i++) {
        const char *name = ZydisMnemonicGetString(rows[i].mnemonic);
        if (!test_exists(&rows[i].w)) {
            printf("NO TEST  %s: %s has no test %s\n", name, rows[i].w.file, rows[i].w.test);
            bad++;
        }
        if (all && !used[i]) {
            printf("UNUSED  %s%s%s: no form needs it\n", name, rows[i].has != NULL ? " " : "",
                   rows[i].has != NULL ? rows[i].has : "");
            bad++;
        }
    }
    return bad;
}
