/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_code.c - code that is written while it runs: by itself, by another processor
 * with and without a handshake, and through another mapping of its page.
 *
 * Hunts: decoded instructions that outlive a store (R7), on the writer's processor or elsewhere. */
#include "smp.h"

enum { RUNS = 300 };
#define ALIAS UINT64_C(0x200000000)

/* mov eax, imm32; ret */
static uint8_t code[4096] __attribute__((aligned(4096)));
static volatile uint32_t *imm;
static volatile uint32_t told, heard;
static uint64_t wrong, torn;
static bool handshake;

static uint32_t call(void)
{
    uint32_t v;

    __asm__ volatile("call *%1" : "=a"(v) : "r"((uint64_t)code) : "memory");
    return v;
}

static void writer_and_caller(unsigned cpu)
{
    for (uint32_t i = 1; cpu < 2 && i <= RUNS; i++) {
        if (cpu == 0) {
            *imm = i << 8 | i % 251;
            told = i;
            while (handshake && heard != i) {
            }
        } else if (handshake) {
            while (told != i) {
            }
            __asm__ volatile("mfence" ::: "memory");
            wrong += call() != (i << 8 | i % 251);
            heard = i;
        } else {
            uint32_t v = call();

            torn += (v >> 8) % 251 != (v & 0xff);
            spin(i % 31);
        }
    }
}

static void reset(void)
{
    wrong = torn = told = heard = 0;
    *imm = 0;
}

static void all_write_their_own(unsigned cpu)
{
    /* Each processor its own instruction, all on one page. */
    uint8_t *mine = code + 64 + cpu * 16;

    for (uint32_t i = 1; i <= RUNS; i++) {
        uint32_t v;

        *(volatile uint32_t *)(mine + 1) = i * 16 + cpu;
        __asm__ volatile("call *%1" : "=a"(v) : "r"((uint64_t)mine) : "memory");
        if (v != i * 16 + cpu) {
            __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
        }
    }
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_code");
    }
    for (unsigned at = 0; at < sizeof code; at += 16) {
        code[at] = 0xb8;
        code[at + 5] = 0xc3;
    }
    (void)map_page(ALIAS, (uint64_t)code, PTE_P | PTE_W);

    imm = (volatile uint32_t *)(code + 1);
    handshake = true;
    reset();
    smp_run(writer_and_caller);
    check_eq("code told of is the code that runs", wrong, 0);
    imm = (volatile uint32_t *)(ALIAS + 1);
    reset();
    smp_run(writer_and_caller);
    check_eq("also when written through another mapping", wrong, 0);
    handshake = false;
    imm = (volatile uint32_t *)(code + 8 - 7);
    reset();
    smp_run(writer_and_caller);
    check_eq("code written meanwhile is old or new", torn, 0);
    reset();
    smp_run(all_write_their_own);
    check_eq("all write code on one page", wrong, 0);
    return checks_done("smp_code");
}
