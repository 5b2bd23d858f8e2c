/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/amount.h - how much a test does: what the environment says (SEED=, RUNS=, ...), else a
 * number of its own, of which a build with the thread sanitizer, ten to thirty times as slow, does
 * a share: fewer of the same, never other things. */
#ifndef TESTS_UNIT_AMOUNT_H
#define TESTS_UNIT_AMOUNT_H

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

/* @whole, or one in @share of it. A constant where its arguments are. */
#define AMOUNT(whole, share) (UNDER_TSAN ? (whole) / (share) : (whole))

/* The variable @name of the environment, else @otherwise. */
static inline uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

#endif
