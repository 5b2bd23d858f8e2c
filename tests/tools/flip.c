/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/flip.c - changes one bit of a replica's RAM and prints the address of its page.
 *
 *   flip PID SEED      in a page in use if SEED is odd, else in one that never was */
#include <stdlib.h>

#include "tests/tools/ram.h"

int main(int argc, char **argv)
{
    struct ram_flip f;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: flip PID SEED\n");
        return 2;
    }
    ram_flip((pid_t)strtol(argv[1], NULL, 10), strtoull(argv[2], NULL, 0), &f);
    printf("0x%llx\n", (unsigned long long)f.at & ~4095ULL);
    return 0;
}
