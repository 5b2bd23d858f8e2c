/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/console.h - the host's side of a guest console: this terminal, or a file.
 *
 * On a terminal the line discipline is switched to raw while a console is open and restored by
 * console_close and at exit. Escapes: Ctrl-A x quits, Ctrl-A c asks for the monitor, Ctrl-A a is a
 * Ctrl-A. Threading: one thread; at most one stdio console in a process. */
#ifndef VMM_DEV_BACKEND_CONSOLE_H
#define VMM_DEV_BACKEND_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct console; /* opaque */

enum { CONSOLE_EVENT_QUIT = 1, CONSOLE_EVENT_MONITOR = 2 };

int console_open_stdio(struct console **out, struct plx_err *err);
int console_open_file(const char *path, struct console **out, struct plx_err *err);
void console_close(struct console *c); /* NULL is a no-op */

int console_fd(const struct console *c); /* to poll for input; -1: none, or none any more */
/* Bytes typed, escapes taken out; only call when console_fd is readable. Collects events. */
size_t console_read(struct console *c, void *buf, size_t cap);
unsigned console_events(struct console *c); /* since the last call */
int console_write(struct console *c, const void *data, size_t len, struct plx_err *err);

#endif
