/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/lib/checks.c - console and checks of guest programs (checks.h). */
#include "checks.h"

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);

struct trapped trapped;
static unsigned checks, failures;

void *memset(void *p, int c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile uint8_t *)p)[i] = (uint8_t)c;
    }
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
    return to;
}

void put(const char *s)
{
    for (; *s != 0; s++) {
        while ((inb(COM1 + 5) & 0x20) == 0) {
        }
        outb(COM1, (uint8_t)*s);
    }
}

void put_hex(uint64_t v)
{
    char text[17] = {0};
    int at = 16;

    do {
        text[--at] = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v != 0);
    put("0x");
    put(text + at);
}

void guest_exit(int code)
{
    outb(EXIT_PORT, (uint8_t)code);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void check_eq(const char *name, uint64_t got, uint64_t want)
{
    checks++;
    if (got == want) {
        put("ok ");
        put(name);
    } else {
        failures++;
        put("FAIL ");
        put(name);
        put(": got ");
        put_hex(got);
        put(", want ");
        put_hex(want);
    }
    put("\n");
}

void check(const char *name, bool ok)
{
    check_eq(name, ok, 1);
}

void check_trap(const char *name, int vector, uint64_t error)
{
    /* One number, so that one line shows both. */
    check_eq(name, (uint64_t)(int64_t)trapped.vector << 32 | trapped.error,
             (uint64_t)(int64_t)vector << 32 | error);
}

int checks_done(const char *program)
{
    put(program);
    put(": ");
    put_hex(checks);
    put(" checks, ");
    put_hex(failures);
    put(" failed\n");
    return failures == 0 ? GUEST_PASS : GUEST_FAIL;
}

void unexpected_trap(void)
{
    put("FAIL unexpected trap ");
    put_hex((uint64_t)trapped.vector);
    put(" error ");
    put_hex(trapped.error);
    put(" at ");
    put_hex(trapped.rip);
    put(" cr2 ");
    put_hex(trapped.cr2);
    put("\n");
    guest_exit(GUEST_FAIL);
}
