/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/program/mixed.c - a program that needs nothing of an operating system: integers,
 * branches, calls, REP strings of every kind and count, SSE and x87. It runs the same on a host's
 * processor and on an engine (tests/isa/counts/main.c), ends at `program_end` and stays there.
 *
 * It uses neither system calls nor PUSHF, so being single-stepped cannot be seen from inside. */
#include "tests/isa/program/program.h"

enum { WORDS = 512, BYTES = 1500 };

static uint64_t words[WORDS] = {1};
static uint8_t src[BYTES] = {1}, dst[BYTES] = {2};
static float floats[64] = {1.0f};
static double doubles[64] = {1.0};

static __attribute__((noinline)) uint64_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void integers(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < WORDS; i++) {
        words[i] = next();
    }
    for (int i = 1; i < 100; i++) { /* insertion sort */
        uint64_t w = words[i];
        int k = i;
        for (; k > 0 && words[k - 1] > w; k--) {
            words[k] = words[k - 1];
        }
        words[k] = w;
    }
    for (int i = 0; i < WORDS; i++) {
        switch (words[i] % 7) {
        case 0:
            sum += words[i] / ((words[i] >> 40) + 1);
            break;
        case 1:
            sum ^= (uint64_t)((int64_t)words[i] % 1000003);
            break;
        case 2:
            sum = sum << (words[i] & 63) | sum >> (-(words[i] & 63) & 63);
            break;
        case 3:
            sum += (uint64_t)__builtin_popcountll(words[i]) * words[i];
            break;
        default:
            sum -= words[i] > sum ? 3 : words[i];
            break;
        }
    }
    results[0] = sum;
    results[1] = fibonacci(13);
}

/* One string instruction of each kind with this count. */
static void strings(uint64_t n, uint64_t from, uint64_t to)
{
    const void *s;
    void *d;
    uint64_t c, acc = n & 0xff;

#define STRING(text)                                                                              \
    do {                                                                                          \
        s = src + from;                                                                           \
        d = dst + to;                                                                             \
        c = n;                                                                                    \
        __asm__ volatile(text : "+S"(s), "+D"(d), "+c"(c), "+a"(acc) : : "memory", "cc");         \
        results[2] = results[2] * 31 + c + (uint64_t)(uintptr_t)s + (uint64_t)(uintptr_t)d + acc; \
    } while (0)
    STRING("rep movsb");
    STRING("rep movsw");
    STRING("rep movsl");
    STRING("rep movsq");
    STRING("repe cmpsb");
    STRING("repne cmpsb");
    STRING("repe cmpsw");
    STRING("repne cmpsl");
    STRING("repe cmpsq");
    STRING("rep stosb");
    STRING("rep stosw");
    STRING("repe scasb");
    STRING("rep stosl");
    STRING("rep stosq");
    STRING("repne scasb");
    STRING("repe scasw");
    STRING("repne scasl");
    STRING("repne scasq");
    STRING("rep lodsb");
    STRING("rep lodsw");
    STRING("rep lodsl");
    STRING("rep lodsq");
    STRING("movsb; lodsq; stosl; cmpsw; scasb");
    STRING("std; rep movsb; cld");
    STRING("std; rep stosw; repne scasb; cld");
#undef STRING
    for (int i = 0; i < 40; i++) { /* so that comparisons go on for a while, and end */
        src[next() % BYTES] = (uint8_t)(next() & 1);
    }
}

static void floating(void)
{
    float f = 0;
    double d = 0;
    uint64_t x;

    for (int i = 0; i < 64; i++) {
        floats[i] = (float)(int32_t)next() / 65536.0f;
        doubles[i] = (double)(int64_t)next() * 0.001;
    }
    for (int i = 0; i < 64; i++) {
        f += floats[i] * floats[63 - i];
        d = d / 3 + __builtin_sqrt(doubles[i] < 0 ? -doubles[i] : doubles[i]);
    }
    __builtin_memcpy(&results[3], &d, 8);
    __builtin_memcpy(&results[4], &f, 4);
    __asm__ volatile("movups %1, %%xmm8; paddq %2, %%xmm8; pshufd $0x1b, %%xmm8, %%xmm9;"
                     "pxor %%xmm8, %%xmm9; pmuludq %%xmm9, %%xmm8; movups %%xmm8, %0"
                     : "=m"(*(uint64_t(*)[2]) & results[6])
                     : "m"(*(uint64_t(*)[2]) & words[0]), "m"(*(uint64_t(*)[2]) & results[8])
                     : "xmm8", "xmm9");
    __asm__ volatile("fldpi; fldl %1; fmulp; fldl2e; faddp; fistpll %0"
                     : "=m"(x)
                     : "m"(doubles[3]));
    results[5] = x;
}

static __attribute__((used)) void program(void)
{
    static const uint16_t counts[] = {0,  1,  2,  3,  4,  7,  8,  9,  15,
                                      16, 31, 32, 33, 63, 64, 65, 99, 100};

    integers();
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        strings(counts[i], 140 + next() % 8, 300 + next() % 300);
    }
    floating();
}
