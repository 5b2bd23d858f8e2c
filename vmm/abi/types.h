/* SPDX-License-Identifier: Apache-2.0
 * vmm/abi/types.h - the scalars that must not mix, and the geometry of a page. */
#ifndef VMM_ABI_TYPES_H
#define VMM_ABI_TYPES_H

#include <stdint.h>

typedef uint64_t gpa_t; /* guest-physical address; never a pointer */
typedef uint64_t gva_t; /* guest-virtual (linear) address */

enum { PAGE_SHIFT = 12 };
#define PAGE_SIZE      UINT64_C(4096)
#define PAGE_BASE(a)   ((a) & ~(PAGE_SIZE - 1))
#define PAGE_OFFSET(a) ((a) & (PAGE_SIZE - 1))

/* A positive return: an event of the guest, no error of ours. */
enum { PLX_GUEST_FAULT = 1 };

#endif
