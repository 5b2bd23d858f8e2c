/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz.h - the entry of a fuzz target, called by libFuzzer or by replay.c. A target
 * returns 0 or dies; it keeps nothing from one input to the next. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
