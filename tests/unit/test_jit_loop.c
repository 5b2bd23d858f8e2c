/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_jit_loop.c - loops whose checks of memory serve for the turns to come
 * (vmm/engine/jit_check.c, jit_check_again), against the interpreter: steps that end in another
 * page, which lies elsewhere on the host, may not be written or is not there; rows; addresses that
 * only look as if they went by steps; what takes a page away in the middle, or a right to it: the
 * loop itself, or a handler of page faults, which returns to it. Each with budgets that end within
 * the first turns, and within later ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tests/isa/ours.h"
#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

enum { START = 0x400, PAGES = DATA_SIZE / 4096, SHIFTS = 5, PAD = 40 };
/* As in tests/isa/ours.c. */
enum {
    GPA_PT = 0x4000,
    GPA_DATA = 0x20000,
    GPA_HLT = 0x48000,
    TABLE_AT = 0x10018000,
    READ = 5,
    WRITE = 7
};

static const uint64_t budgets[] = {600, 600, 600, 600, 1, 2, 3, 7, 50, 301};
static const uint64_t shifts[SHIFTS] = {0, 4, 8, 1, 12};

/* What a loop begins with, and how the data's pages are mapped; RBX is shifted a bit each time. */
struct loop {
    struct isa_state in;
    unsigned page[PAGES], rights[PAGES]; /* rights 0: not there */
};

static struct ours a, b; /* the interpreter's, the translator's */

static int open_both(void **state)
{
    (void)state;
    ours_open(&a, &engine_interp, 0);
    ours_open(&b, &engine_jit, 0);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    ours_close(&a);
    ours_close(&b);
    return 0;
}

static uint64_t entry_of(unsigned page, unsigned rights)
{
    return (GPA_DATA + page * 4096U) | rights | UINT64_C(1) << 63;
}

/* Neighbours in linear memory are none on the host. */
static struct loop *begin(uint64_t rbx)
{
    static struct loop l;

    memset(&l, 0, sizeof l);
    for (unsigned i = 0; i < PAGES; i++) {
        l.page[i] = i ^ 1;
        l.rights[i] = WRITE;
    }
    for (unsigned i = 0; i < DATA_SIZE; i++) {
        l.in.data[i] = (uint8_t)(i * 7 ^ i >> 8);
    }
    l.in.gpr[RBX] = rbx;
    l.in.gpr[R14] = TABLE_AT + (DATA_AT >> 12 & 511) * 8;
    l.in.rflags = FLAG_ONE;
    isa_fx_reset(&l.in);
    return &l;
}

static void put(struct ours *o, uint64_t gpa, uint64_t x)
{
    PLX_CHECK(ram_write(o->ram, gpa, &x, sizeof x) == 0);
}

static void start(struct ours *o, const uint8_t *code, const struct loop *l)
{
    for (unsigned i = 0; i < PAGES; i++) {
        put(o, GPA_PT + (DATA_AT >> 12 & 511) * 8 + 8 * i, entry_of(l->page[i], l->rights[i]));
    }
    put(o, GPA_PT + (TABLE_AT >> 12 & 511) * 8, GPA_PT | 7);
    ours_begin(o, code, &l->in);
}

/* What page faults lead to: a HLT, or a handler that gives the page all rights and returns; the
 * other page of its pair loses those in the value. */
enum { NO_HANDLER = -1, TAKE_NOTHING, TAKE_PAGE, TAKE_WRITE };

static void put_bytes(uint64_t gpa, const uint8_t *bytes, size_t n)
{
    PLX_CHECK(ram_write(a.ram, gpa, bytes, n) == 0 && ram_write(b.ram, gpa, bytes, n) == 0);
}

static void set_handler(int takes)
{
    /* clang-format off */
    const uint8_t handler[] = {
        0x50, 0x0f, 0x20, 0xd0,                 /* push rax; mov rax,cr2 */
        0xc1, 0xe8, 0x0c,                       /* shr eax,12 */
        0x2d, 0x10, 0x00, 0x01, 0x00,           /* sub eax,DATA_AT >> 12 */
        0x83, 0xf8, PAGES, 0x73, 0x13,          /* cmp eax,PAGES; jae to the end */
        0x49, 0x8d, 0x04, 0xc6, 0x80, 0x08, 7,  /* lea rax,[r14+rax*8]; or byte [rax],7 */
        0x34, 8, 0x80, 0x20, (uint8_t)~takes,   /* xor al,8; and byte [rax],~takes */
        0x58, 0x48, 0x83, 0xc4, 8, 0x48, 0xcf,  /* pop rax; add rsp,8; iretq */
        0xf4,                                   /* hlt */
    };
    /* clang-format on */
    static const uint8_t jump[] = {0xe9, 0x1b, 0x0e, 0, 0}, halt[sizeof jump] = {0xf4};

    _Static_assert(DATA_AT >> 12 == 0x10010 && PAGES % 2 == 0, "as the handler has it");
    put_bytes(GPA_HLT + 0x1000 - 0x100, handler, sizeof handler);
    put_bytes(GPA_HLT + 14 * 16, takes == NO_HANDLER ? halt : jump, sizeof jump);
}

/* Code in front of START that touches each page as it may be, so that lookups hit from the first
 * turn on. Returns where it begins; @steps: its instructions. */
static unsigned touch_pages(uint8_t *page, const struct loop *l, unsigned *steps)
{
    uint8_t code[8 * PAGES + 2];
    unsigned n = 0;

    *steps = 1;
    for (unsigned i = 0; i < PAGES; i++) {
        uint32_t at = (uint32_t)DATA_AT + 4096 * i;
        if (l->rights[i] != 0) {
            code[n] = l->rights[i] == WRITE ? 0x80 : 0xf6; /* or byte [at], 0; test byte [at], 0 */
            code[n + 1] = l->rights[i] == WRITE ? 0x0c : 0x04;
            code[n + 2] = 0x25;
            memcpy(code + n + 3, &at, 4);
            code[n + 7] = 0;
            n += 8;
            ++*steps;
        }
    }
    code[n++] = 0xeb; /* jmp */
    code[n++] = 0;
    memcpy(page + START - n, code, n);
    return START - n;
}

/* The @n bytes at @code, which end with a jump to their beginning. */
static void alike_once(const uint8_t *code, size_t n, struct loop *l)
{
    static uint8_t page[CODE_SIZE];
    uint64_t rbx = l->in.gpr[RBX];
    unsigned steps;

    ours_forget(&a);
    ours_forget(&b);
    memset(page, 0xf4, sizeof page); /* hlt: #GP */
    memcpy(page + START, code, n);
    l->in.rip = CODE_AT + touch_pages(page, l, &steps);
    for (unsigned s = 0; s < 2 * SHIFTS; s++) { /* the first time it may not be hot */
        for (unsigned i = 0; i < PLX_COUNT(budgets); i++) {
            l->in.gpr[RBX] = rbx + shifts[s % SHIFTS];
            start(&a, page, l);
            start(&b, page, l);
            uint64_t budget = budgets[i] + steps;
            assert_int_equal(ours_run(&a, budget), ours_run(&b, budget));
            if (!ours_equal(&a, &b)) {
                fail_msg("rbx %#llx, budget %llu", (unsigned long long)l->in.gpr[RBX],
                         (unsigned long long)budgets[i]);
            }
        }
    }
}

/* The same, and made so long that a translation goes around once. */
static void alike(const char *code, size_t n, struct loop *l)
{
    uint8_t longer[128 + PAD];
    uint64_t rbx = l->in.gpr[RBX];

    PLX_CHECK(n <= sizeof longer - PAD);
    alike_once((const uint8_t *)code, n, l);
    memset(longer, 0x90, PAD); /* nop */
    memcpy(longer + PAD, code, n);
    longer[PAD + n - 1] = (uint8_t)(longer[PAD + n - 1] - PAD);
    l->in.gpr[RBX] = rbx;
    alike_once(longer, n + PAD, l);
}

/* The same, with each of these steps in the four bytes at @at. */
static void alike_by_steps(const char *code, size_t n, size_t at, struct loop *l)
{
    static const int32_t steps[] = {8,  24,  64,    768,   1024, 1032, 2048, 4104,
                                    -8, -24, -1024, -2056, 0,    1,    12};
    static char copy[128];
    uint64_t rbx = l->in.gpr[RBX];

    PLX_CHECK(n <= sizeof copy);
    memcpy(copy, code, n);
    for (unsigned i = 0; i < PLX_COUNT(steps); i++) {
        memcpy(copy + at, &steps[i], 4);
        l->in.gpr[RBX] = rbx;
        alike(copy, n, l);
    }
}
#define MIDDLE (DATA_AT + 2 * 4096)

static const char one_place[] =
    "\x48\x8b\x03\x48\x31\xc1\x48\x89\x4b\x10" /* mov rax,[rbx]; xor rcx,rax; mov [rbx+16],rcx */
    "\x48\x81\xc3----\x48\x39\xd3\x75\xea";    /* add rbx, step; cmp rbx,rdx; jne */

static void a_place_moves_on(void **state)
{
    (void)state;
    alike_by_steps(one_place, sizeof one_place - 1, 13, begin(MIDDLE - 64));
    alike_by_steps(one_place, sizeof one_place - 1, 13, begin(MIDDLE + 32));
}

/* The loop is left, too. */
static void it_ends(void **state)
{
    (void)state;
    char code[sizeof one_place];
    int32_t step = 8;

    memcpy(code, one_place, sizeof code);
    memcpy(code + 13, &step, sizeof step);
    for (uint64_t turns = 1; turns < 10; turns++) {
        struct loop *l = begin(MIDDLE - 64);
        l->in.gpr[RDX] = MIDDLE - 64 + 8 * turns;
        alike(code, sizeof code - 1, l);
    }
}

static const char rows[] =
    "\x48\x8b\x03\x48\x33\x83\x00\x04\x00\x00" /* mov rax,[rbx]; xor rax,[rbx+0x400] */
    "\x48\x89\x83\x00\x08\x00\x00"             /* mov [rbx+0x800],rax */
    "\x48\x81\xc3----\x48\x39\xd3\x75\xe3";    /* add rbx, step; cmp rbx,rdx; jne */

static void rows_follow_one_another(void **state)
{
    (void)state;
    alike_by_steps(rows, sizeof rows - 1, 20, begin(MIDDLE - 64));
    alike_by_steps(rows, sizeof rows - 1, 20, begin(MIDDLE - 0x800));
}

/* A row comes to where another one was, which may only be read there. */
static void what_may_be_read_is_not_written(void **state)
{
    static const char code[] = "\x48\x89\x0b\x48\x8b\x83\x00\x04\x00\x00" /* mov [rbx],rcx;
                                                                              mov rax,[rbx+0x400] */
                               "\x48\x81\xc3----\x48\x39\xd3\x75\xea";    /* add; cmp; jne */

    static const struct {
        uint64_t at;
        unsigned page; /* without the right to write */
    } starts[] = {{MIDDLE - 0x800, 2}, {MIDDLE - 0x1000, 2}, {MIDDLE + 0x800, 1}};

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(starts); i++) {
        struct loop *l = begin(starts[i].at);
        l->rights[starts[i].page] = READ;
        alike_by_steps(code, sizeof code - 1, 13, l);
    }
    struct loop *l = begin(MIDDLE - 0x800);
    l->rights[2] = 0;
    alike_by_steps(rows, sizeof rows - 1, 20, l);
}

/* An aligned operand comes to where one was that need not be, and by steps that are not aligned. */
static void what_is_aligned_stays_so(void **state)
{
    static const char first[] = "\x0f\x28\x03\x0f\x10\x8b\x08\x04\x00\x00"  /* movaps xmm0,[rbx];
                                                                           movups xmm1,[rbx+0x408] */
                                "\x48\x81\xc3----\x48\x39\xd3\x75\xea";     /* add; cmp; jne */
    static const char second[] = "\x0f\x10\x03\x0f\x28\x8b\x00\x04\x00\x00" /* movups xmm0,[rbx];
                                                                          movaps xmm1,[rbx+0x400] */
                                 "\x48\x81\xc3----\x48\x39\xd3\x75\xea";    /* add; cmp; jne */

    (void)state;
    alike_by_steps(first, sizeof first - 1, 13, begin(MIDDLE - 0x800));
    alike_by_steps(second, sizeof second - 1, 13, begin(MIDDLE - 0x800));
}

/* A row of many bytes comes to where one of few was. */
static void a_wide_row_follows_a_narrow_one(void **state)
{
    static const char code[] =
        "\x48\x33\x0b\x48\x33\x8b\x00\x01\x00\x00" /* xor rcx,[rbx]; xor rcx,[rbx+0x100] */
        "\x48\x33\x8b\x00\x04\x00\x00"             /* xor rcx,[rbx+0x400] */
        "\x48\x81\xc3----\x48\x39\xd3\x75\xe3";    /* add rbx, step; cmp rbx,rdx; jne */

    (void)state;
    alike_by_steps(code, sizeof code - 1, 20, begin(MIDDLE - 0x700));
    alike_by_steps(code, sizeof code - 1, 20, begin(MIDDLE - 0x400));
}

/* Places that differ by a register, a scale, a segment. */
static void others_are_no_rows(void **state)
{
    static const char base[] = "\x48\x33\x0b\x48\x33\x0f"         /* xor rcx,[rbx]; xor rcx,[rdi] */
                               "\x48\x83\xc3\x08\x48\x83\xc7\x08" /* add rbx,8; add rdi,8 */
                               "\x48\x39\xd3\x75\xed";            /* cmp rbx,rdx; jne */
    static const char index[] = "\x48\x33\x0c\xf3\x48\x33\x0c\xfb" /* xor rcx,[rbx+rsi*8];
                                                                       xor rcx,[rbx+rdi*8] */
                                "\x48\x83\xc6\x01\x48\x83\xc7\x01" /* add rsi,1; add rdi,1 */
                                "\x48\x39\xd3\x75\xeb";
    static const char scale[] = "\x48\x33\x0c\xf3\x48\x33\x0c\xb3"        /* xor rcx,[rbx+rsi*8];
                                                                              xor rcx,[rbx+rsi*4] */
                                "\x48\x83\xc6\x02\x48\x39\xd3\x75\xef";   /* add rsi,2 */
    static const char segment[] = "\x48\x33\x0b\x64\x48\x33\x0b"          /* xor rcx,[rbx];
                                                                              xor rcx,fs:[rbx] */
                                  "\x48\x83\xc3\x08\x48\x39\xd3\x75\xf0"; /* add rbx,8 */
    static const char fixed[] = "\x48\x33\x0c\x25\xf8\x0f\x01\x10"        /* xor rcx,[0x10010ff8] */
                                "\x48\x33\x0c\x25\x08\x10\x01\x10"        /* xor rcx,[0x10011008] */
                                "\x48\x39\xd3\x75\xeb";

    (void)state;
    struct loop *l = begin(MIDDLE - 64);
    l->in.gpr[RDI] = DATA_AT + 0x300;
    alike(base, sizeof base - 1, l);
    l = begin(MIDDLE - 64);
    l->in.gpr[RDI] = 0x100;
    alike(index, sizeof index - 1, l);
    l = begin(MIDDLE - 64);
    l->in.gpr[RSI] = 32;
    alike(scale, sizeof scale - 1, l);
    l = begin(MIDDLE - 64);
    l->in.fs_base = 0x340;
    alike(segment, sizeof segment - 1, l);
    alike(fixed, sizeof fixed - 1, begin(MIDDLE));
}

/* With an index; the registers move by three each. */
static void an_index_moves_on(void **state)
{
    static const char code[] =
        "\x48\x8b\x04\xf3\x48\x31\xc1\x48\x89\x0c\xf7" /* mov rax,[rbx+rsi*8];
                             xor rcx,rax; mov [rdi+rsi*8],rcx */
        "\x48\x83\xc6\x03\x48\x39\xd6\x75\xec";        /* add rsi,3; cmp; jne */

    (void)state;
    struct loop *l = begin(MIDDLE - 64);
    l->in.gpr[RDI] = MIDDLE + 4096 - 40;
    alike(code, sizeof code - 1, l);
}

/* Flags that are wanted at the beginning of a turn: those of DEC, which leaves CF. */
static void flags_that_are_kept(void **state)
{
    static const char code[] = "\x48\x8b\x03\x48\x31\xc1\x48\x89\x4b\x10" /* as one_place */
                               "\x48\x83\xc3\x18\x48\xff\xca\x75\xed";    /* add rbx,24; dec; jne */

    (void)state;
    alike(code, sizeof code - 1, begin(MIDDLE - 64));
}

/* RBX gets another value in some other way than by an addition to all of it. */
static void what_is_no_step(void **state)
{
#define TURN "\x48\x8b\x03\x48\x31\xc1" /* mov rax,[rbx]; xor rcx,rax */
#define CODE(way, back)                                        \
    {                                                          \
        TURN way "\x48\x39\xd3\x75" back, sizeof(TURN way) + 4 \
    }
    static const struct {
        const char *code;
        size_t n;
    } loops[] = {
        CODE("\x88\xcb", "\xf3"),                     /* mov bl,cl */
        CODE("\x88\xcf", "\xf3"),                     /* mov bh,cl */
        CODE("\x66\x81\xc3\x08\x01", "\xf0"),         /* add bx,0x108 */
        CODE("\x81\xc3\x08\x01\x00\x00", "\xef"),     /* add ebx,0x108 */
        CODE("\x48\x87\xf3", "\xf2"),                 /* xchg rbx,rsi */
        CODE("\x5b", "\xf4"),                         /* pop rbx */
        CODE("\xf6\xc1\x01\x48\x0f\x44\xde", "\xee"), /* test cl,1; cmove rbx,rsi */
        CODE("\x48\x8d\x5e\x08", "\xf1"),             /* lea rbx,[rsi+8] */
        CODE("\x48\x89\xf3\x48\x83\xc6\x08", "\xee"), /* mov rbx,rsi; add rsi,8 */
        CODE("\x48\x0f\xc1\xfb", "\xf1"),             /* xadd rbx,rdi */
    };
#undef CODE

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(loops); i++) {
        struct loop *l = begin(DATA_AT + 0x3000);
        l->in.gpr[RSI] = DATA_AT + 0x1ff8;
        l->in.gpr[RSP] = STACK_AT + 0x800;
        l->in.gpr[RDI] = 0x1010;
        for (unsigned k = 0; k < STACK_SIZE / 8; k++) {
            uint64_t x = DATA_AT + 0x568 * k % (DATA_SIZE - 8);
            memcpy(l->in.stack + 8 * k, &x, 8);
        }
        alike(loops[i].code, loops[i].n, l);
    }
}

/* Another access has what was found for the first one kept in its register by the end of a turn. */
static void a_register_serves_two(void **state)
{
    static const char code[] = "\x48\x33\x0b\x48\x33\x4b\x08" /* xor rcx,[rbx]; xor rcx,[rbx+8] */
                               "\x89\xef\x48\x03\x0f"         /* mov edi,ebp; add rcx,[rdi] */
                               "\x48\x33\x4f\x08\x48\x83\xc3\x08" /* xor rcx,[rdi+8]; add rbx,8 */
                               "\x48\x39\xd3\x75\xe7";            /* cmp rbx,rdx; jne */

    (void)state;
    struct loop *l = begin(MIDDLE - 64);
    l->in.gpr[RBP] = DATA_AT + 0x100;
    alike(code, sizeof code - 1, l);
}

/* The same, and what was found is that of a page whose address is known: others are in the register
 * by then, and a page nearby is known. */
static void a_register_serves_two_beside_a_page(void **state)
{
    static const char below[] =
        "\x48\x33\x0c\x25\xf8\x0f\x01\x10"     /* xor rcx,[0x10010ff8] */
        "\x48\x33\x0c\x25\xf0\x0f\x01\x10"     /* xor rcx,[0x10010ff0] */
        "\x48\x33\x0c\x25\x08\x10\x01\x10"     /* xor rcx,[0x10011008] */
        "\x48\x33\x0c\x25\x00\x10\x01\x10"     /* xor rcx,[0x10011000] */
        "\x89\xef\x48\x03\x0f\x48\x33\x4f\x08" /* mov edi,ebp; add rcx,[rdi]; xor rcx,[rdi+8] */
        "\x48\x39\xd3\x75\xd2";                /* cmp rbx,rdx; jne */
    char above[sizeof below];

    (void)state;
    memcpy(above, below + 16, 16);
    memcpy(above + 16, below, 16);
    memcpy(above + 32, below + 32, sizeof below - 32);
    for (unsigned i = 0; i < 2; i++) {
        struct loop *l = begin(MIDDLE);
        l->in.gpr[RBP] = DATA_AT + 0x100;
        alike(i == 0 ? below : above, sizeof below - 1, l);
    }
}

/* The page is another one behind a store to its entry. */
static void the_page_is_taken_away(void **state)
{
    static const char code[] = TURN "\x4d\x89\x0e\x4d\x87\xd1" /* mov [r14],r9; xchg r9,r10 */
                                    "\x48\x39\xd3\x75\xef";    /* cmp rbx,rdx; jne */

    (void)state;
    for (unsigned rights = 0; rights <= WRITE; rights += WRITE) {
        struct loop *l = begin(DATA_AT + 64);
        l->in.gpr[R9] = entry_of(0, WRITE);
        l->in.gpr[R10] = entry_of(2, rights);
        alike(code, sizeof code - 1, l);
    }
}

/* The page is the same behind a store to its entry, or its neighbour is, but not what may be done
 * to it: every eighth turn, so that the others go by what was found; or between what is checked at
 * once and what that serves, by an address that is not known before. */
static void a_right_is_taken_away(void **state)
{
    static const char at_times[] =
        "\x48\x8b\x03\x48\x31\xc1"                     /* mov rax,[rbx]; xor rcx,rax */
        "\x48\x89\x8b\x00\x04\x00\x00\x48\x83\xc3\x08" /* mov [rbx+0x400],rcx; add rbx,8 */
        "\xf6\xc3\x38\x74\x02\xeb\xe8"                 /* test bl,0x38; jz over the next; jmp */
        "\x4c\x89\x0f\x4d\x87\xd1\xeb\xe0";            /* mov [rdi],r9; xchg r9,r10; jmp */
    static const char between[] =
        "\x48\x8b\x03\x48\x31\xc1\x89\xef"         /* mov rax,[rbx]; xor rcx,rax; mov edi,ebp */
        "\x4c\x89\x0f\x4d\x87\xd1\x48\x89\x4b\x10" /* mov [rdi],r9; xchg r9,r10;
                                                       mov [rbx+16],rcx */
        "\x48\x83\xc3\x08\x48\x39\xd3\x75\xe5";    /* add rbx,8; cmp rbx,rdx; jne */
    static const unsigned rights[] = {0, READ, WRITE};

    (void)state;
    for (int takes = NO_HANDLER; takes <= TAKE_WRITE; takes++) {
        set_handler(takes);
        for (unsigned i = 0; i < 8 * PLX_COUNT(rights); i++) {
            unsigned page = 1 + (i & 1);
            struct loop *l = begin(MIDDLE - ((i & 2) != 0 ? 0x480 : 0x80));
            l->in.gpr[RDI] = l->in.gpr[RBP] = l->in.gpr[R14] + 8UL * page;
            l->in.gpr[R9] = entry_of(l->page[page], rights[i / 8]);
            l->in.gpr[R10] = entry_of(l->page[page], WRITE);
            if ((i & 4) != 0) {
                alike(between, sizeof between - 1, l);
            } else {
                alike(at_times, sizeof at_times - 1, l);
            }
            assert_true(takes == NO_HANDLER || !ours_ended(&a));
        }
    }
    set_handler(NO_HANDLER);
}

/* What a page lacks it is given by a handler, which takes it from a neighbour: that is where the
 * loop was the turn before, or another row is. */
static void a_handler_gives_and_takes(void **state)
{
    (void)state;
    for (int takes = TAKE_NOTHING; takes <= TAKE_WRITE; takes++) {
        set_handler(takes);
        for (unsigned i = 0; i < PAGES; i++) {
            struct loop *l = begin(MIDDLE - 0x840 + 0x800 * (i & 1));
            l->rights[2] = (i & 2) != 0 ? READ : 0;
            l->rights[3] = (i & 2) != 0 ? 0 : READ;
            alike_by_steps(rows, sizeof rows - 1, 20, l);
            l->in.gpr[RBX] = MIDDLE - 64 + 0x1000 * (i & 1);
            alike_by_steps(one_place, sizeof one_place - 1, 13, l);
        }
    }
    set_handler(NO_HANDLER);
}

/* A turn changes the step. */
static void the_step_is_stored_to(void **state)
{
    static const char code[] = TURN "\x48\x83\xc3\x08\x88\x0e" /* add rbx,8; mov [rsi],cl */
                                    "\x48\x39\xd3\x75\xef";    /* cmp rbx,rdx; jne */

    (void)state;
    struct loop *l = begin(MIDDLE - 64);
    l->in.gpr[RSI] = CODE_AT + START + 9;
    alike(code, sizeof code - 1, l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_moves_on),
        cmocka_unit_test(it_ends),
        cmocka_unit_test(rows_follow_one_another),
        cmocka_unit_test(what_may_be_read_is_not_written),
        cmocka_unit_test(what_is_aligned_stays_so),
        cmocka_unit_test(a_wide_row_follows_a_narrow_one),
        cmocka_unit_test(others_are_no_rows),
        cmocka_unit_test(an_index_moves_on),
        cmocka_unit_test(flags_that_are_kept),
        cmocka_unit_test(what_is_no_step),
        cmocka_unit_test(a_register_serves_two),
        cmocka_unit_test(a_register_serves_two_beside_a_page),
        cmocka_unit_test(the_page_is_taken_away),
        cmocka_unit_test(a_right_is_taken_away),
        cmocka_unit_test(a_handler_gives_and_takes),
        cmocka_unit_test(the_step_is_stored_to),
    };

    return cmocka_run_group_tests(tests, open_both, close_both);
}
