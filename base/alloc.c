/* SPDX-License-Identifier: Apache-2.0
 * base/alloc.c - malloc with a countdown. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_int heap_countdown = -1; /* -1: never fail */

static int heap_fails_now(void)
{
    if (atomic_load_explicit(&heap_countdown, memory_order_relaxed) < 0) {
        return 0;
    }
    return atomic_fetch_sub(&heap_countdown, 1) == 0;
}

void *plx_calloc(size_t n, size_t size)
{
    return heap_fails_now() ? NULL : calloc(n, size);
}

void *plx_realloc(void *p, size_t size)
{
    return heap_fails_now() ? NULL : realloc(p, size);
}

char *plx_strdup(const char *s)
{
    return s == NULL || heap_fails_now() ? NULL : strdup(s);
}

void plx_free(void *p)
{
    free(p);
}

void plx_heap_fail_at(int k)
{
    atomic_store(&heap_countdown, k);
}

void plx_heap_fail_never(void)
{
    atomic_store(&heap_countdown, -1);
}
