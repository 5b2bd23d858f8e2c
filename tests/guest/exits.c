/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/exits.c - the ways a VM ends, chosen by the command line: "triple" fault, "spin" for
 * ever, "sleep" for ever, "reset", "off" through ACPI; otherwise debug exit with GUEST_PASS. */
#include "guest.h"

enum { ACPI_PM1A_CNT = 0x604, ACPI_S5 = 5 << 10 | 1 << 13, RESET_PORT = 0xcf9 };

static bool asked(const char *word)
{
    const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;
    const char *line = (const char *)(uintptr_t)info[4];

    for (; *line != 0; line++) {
        unsigned n = 0;

        while (word[n] != 0 && line[n] == word[n]) {
            n++;
        }
        if (word[n] == 0) {
            return true;
        }
    }
    return false;
}

int guest_main(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none;

    put("ready\n");
    if (asked("triple")) {
        __asm__ volatile("lidt %0; ud2" ::"m"(none));
    } else if (asked("spin")) {
        for (;;) {
        }
    } else if (asked("sleep")) {
        __asm__ volatile("cli; hlt");
    } else if (asked("reset")) {
        outb(RESET_PORT, 6);
    } else if (asked("off")) {
        __asm__ volatile("outw %w0, %w1" ::"a"(ACPI_S5), "d"(ACPI_PM1A_CNT));
    } else if (asked("echo")) { /* what is typed comes back; 'q' ends */
        uint8_t c;

        do {
            while ((inb(COM1 + 5) & 1) == 0) {
                __asm__ volatile("pause");
            }
            c = inb(COM1);
            put((const char[]){'<', (char)c, '>', 0});
        } while (c != 'q');
    }
    return GUEST_PASS;
}
