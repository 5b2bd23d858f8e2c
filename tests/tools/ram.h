/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/ram.h - one bit of a replica's RAM changed from outside, as a bad memory chip would.
 */
#ifndef TESTS_TOOLS_RAM_H
#define TESTS_TOOLS_RAM_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/check.h"
#include "base/prng.h"

struct ram_flip {
    int fd;        /* the replica's RAM */
    off_t at;      /* below 3 GiB this is the address */
    uint8_t value; /* of the byte since then */
    bool hole;     /* the page was never used */
};

/* The RAM of a process, or -1. */
static inline int ram_open(pid_t pid)
{
    for (int i = 0; i < 256; i++) {
        char path[64], target[128];
        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, i);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0) {
            target[n] = '\0';
            if (strstr(target, "pollux-ram") != NULL) {
                return open(path, O_RDWR | O_CLOEXEC);
            }
        }
    }
    return -1;
}

/* @seed chooses the bit: in a page in use if it is odd, else in one that never was. */
static inline void ram_flip(pid_t pid, uint64_t seed, struct ram_flip *f)
{
    struct prng g;
    off_t size;

    f->fd = ram_open(pid);
    PLX_CHECK(f->fd >= 0);
    size = lseek(f->fd, 0, SEEK_END);
    prng_seed_bytes(&g, &seed, sizeof seed);
    do {
        f->at = (off_t)prng_below(&g, (uint64_t)size);
        off_t page = f->at & ~(off_t)4095;
        f->hole = lseek(f->fd, page, SEEK_HOLE) == page;
    } while (f->hole != (seed % 2 == 0));
    PLX_CHECK(pread(f->fd, &f->value, 1, f->at) == 1);
    f->value ^= (uint8_t)(1u << prng_below(&g, 8));
    PLX_CHECK(pwrite(f->fd, &f->value, 1, f->at) == 1);
}

#endif
