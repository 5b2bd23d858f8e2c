/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/debugexit.c - see debugexit.h. */
#include "vmm/dev/debugexit.h"

#include "vmm/abi/pc_layout.h"

enum { DEBUG_EXIT_LEN = 4 }; /* a dword at 0xf4 is one value */
enum { CONTROL_A_RESET = 1, CONTROL_A_A20 = 2 };

static uint64_t exit_read(void *ctx, uint64_t addr, unsigned size)
{
    (void)ctx;
    (void)addr;
    (void)size;
    return 0;
}

static void exit_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    (void)size;
    if (addr == 0) {
        machine_stop(ctx, POWER_DEBUG_EXIT, value << 1 | 1);
    }
}

static const struct bus_range_ops exit_ops = {exit_read, exit_write};

static uint64_t control_a_read(void *ctx, uint64_t addr, unsigned size)
{
    (void)ctx;
    (void)addr;
    (void)size;
    return CONTROL_A_A20;
}

static void control_a_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    (void)addr;
    (void)size;
    if ((value & CONTROL_A_RESET) != 0) {
        machine_stop(ctx, POWER_RESET, 0);
    }
}

static const struct bus_range_ops control_a_ops = {control_a_read, control_a_write};

int debugexit_create(struct machine *m, struct plx_err *err)
{
    int rc = bus_claim(m->bus, BUS_PIO, DEBUG_EXIT_PORT, DEBUG_EXIT_LEN, "debug exit", &exit_ops, m,
                       err);

    return rc != 0 ? rc
                   : bus_claim(m->bus, BUS_PIO, SYSTEM_CONTROL_A_PORT, 1, "port 0x92",
                               &control_a_ops, m, err);
}
