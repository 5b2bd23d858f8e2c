/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/replay.c - a main for a fuzz target without a fuzzer: runs the files it is given, each
 * whole, cut short, and with a few bytes changed. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 20, MUTATIONS = 64 };

int main(int argc, char **argv)
{
    static uint8_t whole[INPUT_MAX], changed[INPUT_MAX];

    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        struct prng g;

        PLX_CHECK(f != NULL);
        size_t len = fread(whole, 1, sizeof whole, f);
        PLX_CHECK(fclose(f) == 0);
        (void)LLVMFuzzerTestOneInput(whole, len);
        prng_seed(&g, len);
        for (int k = 0; k < MUTATIONS && len != 0; k++) {
            size_t n = k % 2 == 0 ? len : prng_below(&g, len + 1);
            memcpy(changed, whole, n);
            for (uint64_t c = prng_below(&g, 4); n != 0 && c > 0; c--) {
                changed[prng_below(&g, n)] = (uint8_t)prng_u64(&g);
            }
            (void)LLVMFuzzerTestOneInput(changed, n);
        }
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
