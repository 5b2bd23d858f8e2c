/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/debugexit.h - ports without state: debug exit 0xf4 (a write of v ends the VM with code
 * (v << 1) | 1, as QEMU's isa-debug-exit), system control port A 0x92 (IBM PS/2 Hardware Interface
 * Technical Reference, "System Control Port A": reset; A20 is always on here).
 *
 * Threading: the serial part. Determinism: no state but the machine's own "stopped". */
#ifndef VMM_DEV_DEBUGEXIT_H
#define VMM_DEV_DEBUGEXIT_H

#include "vmm/machine.h"

/* Nothing to destroy: the context is @m. Errors: those of bus_claim. */
int debugexit_create(struct machine *m, struct plx_err *err);

#endif
