/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/program/program.h - what the programs share, each of one file that defines program():
 * results, a generator, the stack, and the entry, which calls program(), ends at `program_end' and
 * stays there. */
#ifndef TESTS_ISA_PROGRAM_PROGRAM_H
#define TESTS_ISA_PROGRAM_PROGRAM_H

#include <stdint.h>

enum { STACK_BYTES = 0x4000 };

uint64_t results[64] = {1};
__attribute__((section(".stack"), used)) uint8_t program_stack[STACK_BYTES] = {1};

static uint64_t seed = 88172645463325252u;

static __attribute__((noinline)) uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

__asm__(".globl _start, program_end\n"
        "_start:\n"
        "    lea program_stack + 0x3f00(%rip), %rsp\n"
        "    call program\n"
        "program_end:\n"
        "    jmp program_end\n");

#endif
