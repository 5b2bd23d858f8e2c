/* SPDX-License-Identifier: Apache-2.0
 * base/alloc.h - allocation with a failure countdown for tests. Any thread. */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

void *plx_calloc(size_t n, size_t size); /* zeroed; NULL when out of memory */
void *plx_realloc(void *p, size_t size); /* NULL leaves @p as it was */
char *plx_strdup(const char *s);         /* NULL in, NULL out */
void plx_free(void *p);                  /* NULL is a no-op */

/* Zeroed memory in whole pages, at a multiple of PLX_HUGE if it is as large, for what is used all
 * over: the host is asked for huge pages. NULL when out of memory. */
enum { PLX_HUGE = 2 << 20 };
void *plx_pages(size_t size);
void plx_pages_free(void *p, size_t size); /* NULL is a no-op */

/* Fault injection: the @k-th allocation from now fails (0 is the next), once. */
void plx_heap_fail_at(int k);
void plx_heap_fail_never(void);

#endif
