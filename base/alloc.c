/* SPDX-License-Identifier: Apache-2.0
 * base/alloc.c - malloc and pages, with a countdown. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

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

static size_t whole_pages(size_t size)
{
    return (size + PAGE - 1) & ~(size_t)(PAGE - 1);
}

void *plx_pages(size_t size)
{
    size_t want = whole_pages(size), spare = want >= PLX_HUGE ? PLX_HUGE - PAGE : 0;
    char *all, *at;

    if (heap_fails_now()) {
        return NULL;
    }
    all = mmap(NULL, want + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) {
        return NULL;
    }
    at = all + (spare & -(uintptr_t)all);
    if (at != all) {
        (void)munmap(all, (size_t)(at - all));
    }
    if (at != all + spare) {
        (void)munmap(at + want, (size_t)(all + spare - at));
    }
    if (spare != 0) {
        (void)madvise(at, want, MADV_HUGEPAGE); /* what it does not give costs time only */
    }
    return at;
}

void plx_pages_free(void *p, size_t size)
{
    if (p != NULL) {
        (void)munmap(p, whole_pages(size));
    }
}

void plx_heap_fail_at(int k)
{
    atomic_store(&heap_countdown, k);
}

void plx_heap_fail_never(void)
{
    atomic_store(&heap_countdown, -1);
}
