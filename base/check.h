/* SPDX-License-Identifier: Apache-2.0
 * base/check.h - PLX_CHECK: our own bugs, in every build. Never for guest, peer, file or user
 * input: replicas execute the same instructions, so a check a guest can fail kills them all. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/* Called once before abort, e.g. to dump trace rings. NULL removes it. Set at start-up only. */
void plx_check_set_hook(void (*hook)(void));

_Noreturn void plx_check_failed(const char *expr, const char *file, int line);

#define PLX_CHECK(expr)                                  \
    do {                                                 \
        if (__builtin_expect(!(expr), 0)) {              \
            plx_check_failed(#expr, __FILE__, __LINE__); \
        }                                                \
    } while (0)

#define PLX_LIKELY(x)    __builtin_expect(!!(x), 1)
#define PLX_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define PLX_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
