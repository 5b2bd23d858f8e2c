/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/uart.h - a 16550A serial port as console: COM1 and COM2.
 *
 * Follows the PC16550D data sheet. The line is infinitely fast: what the guest writes is an output
 * at once, what was typed waits in a bounded queue behind the 16-byte FIFO. Owned by the PC.
 * Threading: the serial part. Determinism: sections "uart0", "uart1". */
#ifndef VMM_DEV_UART_H
#define VMM_DEV_UART_H

#include "vmm/machine.h"

struct uart; /* opaque */

enum { UART_QUEUE = 4096 }; /* bytes typed and not yet read; more are dropped */

struct uart_config {
    const char *name; /* of the section; borrowed */
    unsigned console; /* CONSOLE_SERIAL0 or 1: the outputs' port, and the input port it takes */
    uint16_t port;
    struct irq_line irq;
};

/* Errors: PLX_ENOMEM, those of bus_claim. */
int uart_create(struct machine *m, const struct uart_config *cfg, struct uart **out,
                struct plx_err *err);
void uart_destroy(struct uart *u); /* NULL is a no-op */

/* Bytes typed at the console. Returns how many were taken. */
uint32_t uart_rx(struct uart *u, const uint8_t *data, uint32_t len);

#endif
