/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/i8042.c - see i8042.h. */
#include "vmm/dev/i8042.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"

enum { I8042_VERSION = 1, QUEUE = 16 };
enum { STATUS_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10 };
enum {
    CONFIG_IRQ = 0x01,
    CONFIG_SYSTEM = 0x04,
    CONFIG_KBD_OFF = 0x10,
    CONFIG_AUX_OFF = 0x20,
    CONFIG_MASK = 0x7f
};
enum { OUTPUT_RESET = 0x01 /* 0: reset */, OUTPUT_A20 = 0x02 };
enum { KBD_ACK = 0xfa, KBD_RESEND = 0xfe, KBD_OK = 0xaa };

struct i8042 {
    struct machine *m;
    uint8_t config;
    uint8_t command;      /* controller command that waits for its data byte; 0: none */
    uint8_t kbd_command;  /* the same of the keyboard */
    bool last_command;    /* the last write went to the command port */
    uint8_t ram[32];      /* 0x20-0x3f / 0x60-0x7f; byte 0 is config */
    uint8_t queue[QUEUE]; /* answers not yet read, oldest first */
    uint8_t count;
};

static void update(struct i8042 *k)
{
    irq_set(&k->m->gsi[I8042_IRQ], k->count != 0 && (k->config & CONFIG_IRQ) != 0);
}

static void answer(struct i8042 *k, uint8_t byte)
{
    if (k->count < QUEUE) { /* a guest that never reads loses answers, as it would there */
        k->queue[k->count++] = byte;
    }
}

static void output_port(struct i8042 *k, uint8_t value)
{
    if ((value & OUTPUT_RESET) == 0) {
        machine_stop(k->m, POWER_RESET, 0);
    }
}

/* --- controller commands ------------------------------------------------------------------------
 */

static void controller(struct i8042 *k, uint8_t cmd)
{
    k->command = 0;
    if (cmd >= 0x20 && cmd <= 0x3f) {
        answer(k, cmd == 0x20 ? k->config : k->ram[cmd - 0x20]);
        return;
    }
    if (cmd >= 0x60 && cmd <= 0x7f) {
        k->command = cmd;
        return;
    }
    if (cmd >= 0xf0) { /* pulse the output lines whose bit is 0 */
        output_port(k, cmd & 0x0f);
        return;
    }
    switch (cmd) {
    case 0xa7:
        k->config |= CONFIG_AUX_OFF;
        break;
    case 0xa8:
        k->config &= (uint8_t)~CONFIG_AUX_OFF;
        break;
    case 0xa9: /* test of the mouse's interface: its clock line is stuck low */
        answer(k, 0x01);
        break;
    case 0xaa: /* self-test passed */
        k->config |= CONFIG_SYSTEM;
        answer(k, 0x55);
        break;
    case 0xab: /* test of the keyboard's interface: no error */
        answer(k, 0x00);
        break;
    case 0xad:
        k->config |= CONFIG_KBD_OFF;
        break;
    case 0xae:
        k->config &= (uint8_t)~CONFIG_KBD_OFF;
        break;
    case 0xc0:
        answer(k, 0x80); /* keyboard not locked */
        break;
    case 0xd0:
        answer(k, OUTPUT_RESET | OUTPUT_A20 | (k->count != 0 ? 0x10 : 0));
        break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        k->command = cmd;
        break;
    default:
        break;
    }
}

static void controller_data(struct i8042 *k, uint8_t cmd, uint8_t value)
{
    switch (cmd) {
    case 0x60:
        k->config = value & CONFIG_MASK;
        break;
    case 0xd1:
        output_port(k, value);
        break;
    case 0xd2: /* as if the keyboard had sent it */
    case 0xd3: /* as if the mouse had: without one it is the keyboard's, which tells its absence */
        answer(k, value);
        break;
    case 0xd4: /* to the mouse */
        answer(k, KBD_RESEND);
        break;
    default:
        k->ram[cmd - 0x60] = value;
    }
}

/* --- the keyboard -------------------------------------------------------------------------------
 */

static void keyboard(struct i8042 *k, uint8_t value)
{
    if (k->kbd_command != 0) { /* the argument of one of those below */
        bool get_set = k->kbd_command == 0xf0 && value == 0;

        k->kbd_command = 0;
        answer(k, KBD_ACK);
        if (get_set) {
            answer(k, 0x02);
        }
        return;
    }
    switch (value) {
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
        k->kbd_command = value;
        answer(k, KBD_ACK);
        break;
    case 0xee: /* echo */
        answer(k, 0xee);
        break;
    case 0xf2: /* identify */
        answer(k, KBD_ACK);
        answer(k, 0xab);
        answer(k, 0x83);
        break;
    case 0xf4: /* enable, disable, defaults */
    case 0xf5:
    case 0xf6:
        answer(k, KBD_ACK);
        break;
    case 0xff:
        answer(k, KBD_ACK);
        answer(k, KBD_OK);
        break;
    default:
        answer(k, KBD_RESEND);
    }
}

/* --- ports -------------------------------------------------------------------------------------
 */

static uint64_t data_read(void *ctx, uint64_t addr, unsigned size)
{
    struct i8042 *k = ctx;
    uint8_t byte = k->queue[0];

    (void)addr;
    (void)size;
    if (k->count != 0) { /* an empty buffer reads as it was last */
        k->count--;
        if (k->count != 0) {
            memmove(k->queue, k->queue + 1, k->count);
        }
        irq_set(&k->m->gsi[I8042_IRQ], false); /* the next byte is the next edge */
        update(k);
    }
    return byte;
}

static void data_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct i8042 *k = ctx;
    uint8_t cmd = k->command;

    (void)addr;
    (void)size;
    k->last_command = false;
    k->command = 0;
    if (cmd != 0) {
        controller_data(k, cmd, (uint8_t)value);
    } else {
        keyboard(k, (uint8_t)value);
    }
    update(k);
}

static uint64_t status_read(void *ctx, uint64_t addr, unsigned size)
{
    const struct i8042 *k = ctx;

    (void)addr;
    (void)size;
    return STATUS_UNLOCKED | (uint64_t)(k->config & STATUS_SYSTEM) |
           (k->last_command ? STATUS_COMMAND : 0U) | (k->count != 0 ? STATUS_FULL : 0U);
}

static void command_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct i8042 *k = ctx;

    (void)addr;
    (void)size;
    k->last_command = true;
    controller(k, (uint8_t)value);
    update(k);
}

static const struct bus_range_ops data_ops = {data_read, data_write};
static const struct bus_range_ops command_ops = {status_read, command_write};

/* --- state --------------------------------------------------------------------------------- */

static void i8042_reset(void *dev)
{
    struct i8042 *k = dev;

    *k = (struct i8042){.m = k->m, .config = CONFIG_SYSTEM | CONFIG_AUX_OFF};
    update(k);
}

static void i8042_save(const void *dev, struct wbuf *out)
{
    const struct i8042 *k = dev;

    wbuf_u8(out, k->config);
    wbuf_u8(out, k->command);
    wbuf_u8(out, k->kbd_command);
    wbuf_u8(out, k->last_command);
    wbuf_put(out, k->ram, sizeof k->ram);
    wbuf_u8(out, k->count);
    wbuf_put(out, k->queue, sizeof k->queue);
}

static bool takes_data(uint8_t cmd)
{
    return cmd == 0 || (cmd >= 0x60 && cmd <= 0x7f) || (cmd >= 0xd1 && cmd <= 0xd4);
}

static int i8042_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct i8042 *k = dev;
    uint8_t last;
    int rc = section_version("i8042", version, I8042_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    k->config = rbuf_u8(in);
    k->command = rbuf_u8(in);
    k->kbd_command = rbuf_u8(in);
    last = rbuf_u8(in);
    rbuf_get(in, k->ram, sizeof k->ram);
    k->count = rbuf_u8(in);
    rbuf_get(in, k->queue, sizeof k->queue);
    const uint8_t kbd = k->kbd_command;
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"i8042: configuration", (k->config & ~CONFIG_MASK) == 0, k->config},
        {"i8042: command", takes_data(k->command), k->command},
        {"i8042: keyboard command", kbd == 0 || kbd == 0xed || kbd == 0xf0 || kbd == 0xf3, kbd},
        {"i8042: a flag", last <= 1, last},
        {"i8042: answers", k->count <= QUEUE, k->count},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    if (rc != 0) {
        return rc;
    }
    k->last_command = last != 0;
    return section_complete("i8042", in, err);
}

static const struct device_ops i8042_device = {i8042_reset, i8042_save, i8042_load};

int i8042_create(struct machine *m, struct i8042 **out, struct plx_err *err)
{
    struct i8042 *k = plx_calloc(1, sizeof *k);
    int rc;

    *out = NULL;
    if (k == NULL) {
        return plx_fail(err, PLX_ENOMEM, "i8042: out of memory");
    }
    k->m = m;
    rc = bus_claim(m->bus, BUS_PIO, I8042_DATA_PORT, 1, "i8042 data", &data_ops, k, err);
    if (rc == 0) {
        rc = bus_claim(m->bus, BUS_PIO, I8042_COMMAND_PORT, 1, "i8042 command", &command_ops, k,
                       err);
    }
    if (rc != 0) {
        plx_free(k);
        return rc;
    }
    machine_add_device(m, "i8042", I8042_VERSION, &i8042_device, k);
    i8042_reset(k);
    *out = k;
    return 0;
}

void i8042_destroy(struct i8042 *k)
{
    plx_free(k);
}
