/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/hello.c - the way in (multiboot, long mode) and the two ways out (COM1, port 0xf4).
 */
#include "guest.h"

int guest_main(void)
{
    const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;
    uint64_t ram = 0;

    put("hello from ring 0\n");
    check_eq("multiboot magic", boot_magic, 0x2badb002);
    check("memory map given", (info[0] & 0x40) != 0);
    for (uint32_t at = info[12], end = at + info[11]; at < end;) {
        const uint32_t *e = (const uint32_t *)(uintptr_t)at;

        if (e[5] == 1) {
            ram += (uint64_t)e[4] << 32 | e[3];
        }
        at += e[0] + 4;
    }
    check("RAM of 60 to 64 MiB", ram > UINT64_C(60) << 20 && ram <= UINT64_C(64) << 20);
    return checks_done("hello");
}
