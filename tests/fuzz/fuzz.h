/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz.h - the entry of a fuzz target, called by libFuzzer or by replay.c. A target
 * returns 0 or dies; it keeps nothing from one input to the next. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For inputs that are a sequence: takes the length in front of @data (2 bytes, the high one first),
 * which is at most what is left behind it. The caller takes as many bytes. */
static inline size_t fuzz_length(const uint8_t **data, size_t *size)
{
    size_t len = (size_t)(*data)[0] << 8 | (*data)[1];

    *data += 2;
    *size -= 2;
    return len < *size ? len : *size;
}

#endif
