/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/rtc.h - the MC146818 real-time clock and its CMOS RAM at ports 0x70 and 0x71.
 *
 * Follows the MC146818A data sheet, with the century at 0x32. The time is INPUT_WALLCLOCK's plus
 * the virtual time since then; flags are found when they are looked at, and a virtual timer runs
 * only for enabled interrupts. Owned by the PC. Threading: the serial part. Determinism: section
 * "rtc". */
#ifndef VMM_DEV_RTC_H
#define VMM_DEV_RTC_H

#include "vmm/machine.h"

struct rtc; /* opaque */

/* Takes m->wallclock and drives m->gsi[RTC_IRQ]. Errors: PLX_ENOMEM, those of bus_claim. */
int rtc_create(struct machine *m, struct rtc **out, struct plx_err *err);
void rtc_destroy(struct rtc *rtc); /* NULL is a no-op */

#endif
