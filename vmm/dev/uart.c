/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/uart.c - see uart.h. */
#include "vmm/dev/uart.h"

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/dev/section.h"

enum { UART_VERSION = 1, UART_PORTS = 8, FIFO_SIZE = 16 };

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };
enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MASK = 0x0f };
enum {
    IIR_NONE = 0x01,
    IIR_THRE = 0x02,
    IIR_RX = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_MASK = 0x1f
};
enum { LSR_DR = 0x01, LSR_OVERRUN = 0x02, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct uart {
    struct machine *m;
    struct uart_config cfg;

    /* --- state --- */
    uint8_t ier, fcr, lcr, mcr, scratch;
    uint8_t msr_delta; /* MSR bits 3-0, cleared by reading it */
    bool thre_pending; /* the THRE interrupt: set when THR empties, cleared by reading IIR */
    bool overrun;      /* LSR bit 1, cleared by reading LSR */
    uint16_t divisor;
    uint64_t tx_pos;      /* bytes written since power-on */
    uint16_t head, count; /* of the ring */
    uint8_t ring[UART_QUEUE];
};

static uint8_t modem_status(const struct uart *u)
{
    if ((u->mcr & MCR_LOOP) == 0) {
        return MSR_CTS | MSR_DSR | MSR_DCD; /* somebody is there */
    }
    return (uint8_t)(((u->mcr & MCR_RTS) != 0 ? MSR_CTS : 0) |
                     ((u->mcr & MCR_DTR) != 0 ? MSR_DSR : 0) |
                     ((u->mcr & MCR_OUT1) != 0 ? MSR_RI : 0) |
                     ((u->mcr & MCR_OUT2) != 0 ? MSR_DCD : 0));
}

/* The interrupt of highest priority, IIR_NONE if none. With FIFOs, fewer bytes than the trigger
 * level are announced as a character time-out: the line is quiet as soon as it was written. */
static uint8_t interrupt(const struct uart *u)
{
    static const uint8_t trigger[4] = {1, 4, 8, 14};

    if ((u->ier & IER_LINE) != 0 && u->overrun) {
        return IIR_LINE;
    }
    if ((u->ier & IER_RX) != 0 && u->count != 0) {
        bool few = (u->fcr & FCR_ENABLE) != 0 && u->count < trigger[u->fcr >> 6];

        return few ? IIR_TIMEOUT : IIR_RX;
    }
    if ((u->ier & IER_THRE) != 0 && u->thre_pending) {
        return IIR_THRE;
    }
    /* Modem status last; IIR 0. */
    return (u->ier & 8) != 0 && u->msr_delta != 0 ? 0 : IIR_NONE;
}

/* On a PC the interrupt passes a gate, OUT2, which loop mode closes. */
static void update(struct uart *u)
{
    irq_set(&u->cfg.irq, interrupt(u) != IIR_NONE && (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2);
}

uint32_t uart_rx(struct uart *u, const uint8_t *data, uint32_t len)
{
    uint32_t taken = 0;

    while (taken < len && u->count < UART_QUEUE) {
        u->ring[(u->head + u->count++) % UART_QUEUE] = data[taken++];
    }
    u->overrun = u->overrun || taken < len;
    update(u);
    return taken;
}

static int take_input(void *ctx, const struct input *in, struct plx_err *err)
{
    (void)err;
    uart_rx(ctx, in->data, in->len);
    return 0;
}

static uint8_t pop(struct uart *u)
{
    uint8_t byte = 0;

    if (u->count != 0) {
        byte = u->ring[u->head];
        u->head = (uint16_t)((u->head + 1) % UART_QUEUE);
        u->count--;
    }
    return byte;
}

/* THR is empty again at once: its interrupt falls and rises, so that an edge is seen even when the
 * guest has not read IIR in between. */
static void transmit(struct uart *u, uint8_t byte)
{
    u->thre_pending = false;
    update(u);
    if ((u->mcr & MCR_LOOP) != 0) {
        uart_rx(u, &byte, 1);
    } else {
        machine_console_out(u->m, u->cfg.console, u->tx_pos, &byte, 1);
        u->tx_pos++;
    }
    u->thre_pending = true;
}

static void write_fcr(struct uart *u, uint8_t value)
{
    bool toggled = ((value ^ u->fcr) & FCR_ENABLE) != 0;

    if (toggled || (value & (FCR_CLEAR_RX | FCR_ENABLE)) == (FCR_CLEAR_RX | FCR_ENABLE)) {
        for (unsigned i = 0; i < FIFO_SIZE; i++) { /* what still waits behind the FIFO moves up */
            pop(u);
        }
    }
    u->fcr = (value & FCR_ENABLE) != 0 ? value & FCR_KEPT : 0;
}

static uint8_t uart_read(struct uart *u, unsigned reg)
{
    uint8_t value;

    switch (reg) {
    case REG_DATA:
        value = (u->lcr & LCR_DLAB) != 0 ? (uint8_t)u->divisor : pop(u);
        break;
    case REG_IER:
        value = (u->lcr & LCR_DLAB) != 0 ? (uint8_t)(u->divisor >> 8) : u->ier;
        break;
    case REG_IIR_FCR:
        value = interrupt(u);
        if (value == IIR_THRE) {
            u->thre_pending = false;
        }
        value |= (u->fcr & FCR_ENABLE) != 0 ? IIR_FIFO : 0;
        break;
    case REG_LCR:
        value = u->lcr;
        break;
    case REG_MCR:
        value = u->mcr;
        break;
    case REG_LSR:
        value = (uint8_t)(LSR_THRE | LSR_TEMT | (u->count != 0 ? LSR_DR : 0) |
                          (u->overrun ? LSR_OVERRUN : 0));
        u->overrun = false;
        break;
    case REG_MSR:
        value = modem_status(u) | u->msr_delta;
        u->msr_delta = 0;
        break;
    default:
        value = u->scratch;
    }
    update(u);
    return value;
}

static void write_mcr(struct uart *u, uint8_t value)
{
    uint8_t before = modem_status(u), changed;

    u->mcr = value & MCR_MASK;
    changed = before ^ modem_status(u);
    /* Deltas of CTS, DSR and DCD; RI tells its trailing edge only. */
    u->msr_delta |= (uint8_t)(changed >> 4 & 0x0b) | ((changed & before & MSR_RI) != 0 ? 0x04 : 0);
}

static void uart_write(struct uart *u, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
        if ((u->lcr & LCR_DLAB) != 0) {
            u->divisor = (uint16_t)((u->divisor & 0xff00) | value);
        } else {
            transmit(u, value);
        }
        break;
    case REG_IER:
        if ((u->lcr & LCR_DLAB) != 0) {
            u->divisor = (uint16_t)((u->divisor & 0x00ff) | value << 8);
        } else {
            /* Enabling the THRE interrupt while THR is empty (always) raises it. */
            u->thre_pending = u->thre_pending || (value & ~u->ier & IER_THRE) != 0;
            u->ier = value & IER_MASK;
        }
        break;
    case REG_IIR_FCR:
        write_fcr(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        break;
    case REG_MCR:
        write_mcr(u, value);
        break;
    case REG_SCRATCH:
        u->scratch = value;
        break;
    default: /* LSR and MSR are read only */
        break;
    }
    update(u);
}

/* An 8-bit device: wider accesses take its ports one by one. */
static uint64_t port_read(void *ctx, uint64_t addr, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)uart_read(ctx, (unsigned)addr + i) << (i * 8);
    }
    return value;
}

static void port_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uart_write(ctx, (unsigned)addr + i, (uint8_t)(value >> (i * 8)));
    }
}

static const struct bus_range_ops port_ops = {port_read, port_write};

/* --- state --------------------------------------------------------------------------------- */

static void uart_reset(void *dev)
{
    struct uart *u = dev;

    u->ier = u->fcr = u->lcr = u->mcr = u->scratch = u->msr_delta = 0;
    u->thre_pending = u->overrun = false;
    u->divisor = 12; /* 9600 baud */
    u->tx_pos = 0;
    u->head = u->count = 0;
    update(u);
}

static void uart_save(const void *dev, struct wbuf *out)
{
    const struct uart *u = dev;
    const uint8_t bytes[] = {u->ier,     u->fcr,       u->lcr,          u->mcr,
                             u->scratch, u->msr_delta, u->thre_pending, u->overrun};

    wbuf_put(out, bytes, sizeof bytes);
    wbuf_u16(out, u->divisor);
    wbuf_u64(out, u->tx_pos);
    wbuf_u16(out, u->count);
    for (unsigned i = 0; i < u->count; i++) { /* where in the ring they are is no state */
        wbuf_u8(out, u->ring[(u->head + i) % UART_QUEUE]);
    }
}

static int uart_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct uart *u = dev;
    uint8_t b[8];
    int rc = section_version(u->cfg.name, version, UART_VERSION, err);

    if (rc != 0) {
        return rc;
    }
    rbuf_get(in, b, sizeof b);
    u->divisor = rbuf_u16(in);
    u->tx_pos = rbuf_u64(in);
    u->count = rbuf_u16(in);
    const struct {
        const char *what;
        bool ok;
        uint64_t value;
    } checks[] = {
        {"uart: IER", (b[0] & ~IER_MASK) == 0, b[0]},
        {"uart: FCR", (b[1] & ~FCR_KEPT) == 0 && ((b[1] & FCR_ENABLE) != 0 || b[1] == 0), b[1]},
        {"uart: MCR", (b[3] & ~MCR_MASK) == 0, b[3]},
        {"uart: MSR", (b[5] & ~0x0f) == 0, b[5]},
        {"uart: THRE", b[6] <= 1, b[6]},
        {"uart: overrun", b[7] <= 1, b[7]},
        {"uart: bytes waiting", u->count <= UART_QUEUE, u->count},
    };
    for (unsigned i = 0; rc == 0 && i < PLX_COUNT(checks); i++) {
        rc = section_field(checks[i].what, checks[i].ok, checks[i].value, err);
    }
    if (rc != 0) {
        return rc;
    }
    u->head = 0;
    rbuf_get(in, u->ring, u->count);
    u->ier = b[0];
    u->fcr = b[1];
    u->lcr = b[2];
    u->mcr = b[3];
    u->scratch = b[4];
    u->msr_delta = b[5];
    u->thre_pending = b[6] != 0;
    u->overrun = b[7] != 0;
    return section_complete(u->cfg.name, in, err);
}

static const struct device_ops uart_device = {uart_reset, uart_save, uart_load};

int uart_create(struct machine *m, const struct uart_config *cfg, struct uart **out,
                struct plx_err *err)
{
    struct uart *u = plx_calloc(1, sizeof *u);
    int rc;

    *out = NULL;
    if (u == NULL) {
        return plx_fail(err, PLX_ENOMEM, "%s: out of memory", cfg->name);
    }
    u->m = m;
    u->cfg = *cfg;
    rc = bus_claim(m->bus, BUS_PIO, cfg->port, UART_PORTS, cfg->name, &port_ops, u, err);
    if (rc != 0) {
        plx_free(u);
        return rc;
    }
    PLX_CHECK(cfg->console < CONSOLE_PORTS);
    m->console[cfg->console] = (struct input_port){.take = take_input, .ctx = u};
    machine_add_device(m, cfg->name, UART_VERSION, &uart_device, u);
    uart_reset(u);
    *out = u;
    return 0;
}

void uart_destroy(struct uart *u)
{
    plx_free(u);
}
