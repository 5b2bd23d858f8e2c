/* SPDX-License-Identifier: Apache-2.0
 * base/check.c - the end of a process that found a bug of ours. */
#include "base/check.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic(void (*)(void)) check_hook;

void plx_check_set_hook(void (*hook)(void))
{
    atomic_store(&check_hook, hook);
}

_Noreturn void plx_check_failed(const char *expr, const char *file, int line)
{
    void (*hook)(void) = atomic_exchange(&check_hook, NULL); /* once, even if the hook fails one */

    (void)fprintf(stderr, "pollux: check failed: %s at %s:%d\n", expr, file, line);
    if (hook != NULL) {
        hook();
    }
    abort();
}
