/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/console.c - see console.h. */
#include "vmm/dev/backend/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"

enum { ESCAPE = 1 /* Ctrl-A */ };

struct console {
    int in, out;  /* in: -1 when there is none */
    bool escaped; /* the last byte was the escape */
    unsigned events;
};

/* The terminal as we found it: one for the process, because exit handlers have no argument. */
static struct termios found;
static bool terminal_is_raw;

static void restore_terminal(void)
{
    if (terminal_is_raw) {
        terminal_is_raw = false;
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &found);
    }
}

static void make_terminal_raw(void)
{
    struct termios raw;

    if (terminal_is_raw || tcgetattr(STDIN_FILENO, &found) != 0) {
        return; /* not a terminal: nothing to set */
    }
    raw = found;
    cfmakeraw(&raw);
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0) {
        terminal_is_raw = true;
    }
}

int console_open_stdio(struct console **out, struct plx_err *err)
{
    static bool registered;

    *out = plx_calloc(1, sizeof **out);
    if (*out == NULL) {
        return plx_fail(err, PLX_ENOMEM, "console: out of memory");
    }
    **out = (struct console){.in = STDIN_FILENO, .out = STDOUT_FILENO};
    if (!registered) {
        registered = atexit(restore_terminal) == 0;
    }
    make_terminal_raw();
    return 0;
}

int console_open_file(const char *path, struct console **out, struct plx_err *err)
{
    *out = plx_calloc(1, sizeof **out);
    if (*out == NULL) {
        return plx_fail(err, PLX_ENOMEM, "console: out of memory");
    }
    **out = (struct console){.in = -1};
    (*out)->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if ((*out)->out < 0) {
        int rc = plx_fail_errno(err, "cannot open console file %s", path);
        plx_free(*out);
        *out = NULL;
        return rc;
    }
    return 0;
}

void console_close(struct console *c)
{
    if (c == NULL) {
        return;
    }
    if (c->out == STDOUT_FILENO) {
        restore_terminal();
    } else {
        (void)close(c->out);
    }
    plx_free(c);
}

int console_fd(const struct console *c)
{
    return c->in;
}

size_t console_read(struct console *c, void *buf, size_t cap)
{
    uint8_t *out = buf;
    size_t kept = 0;
    ssize_t n = io_read_some(c->in, buf, cap);

    if (n < 0 && errno == EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        c->in = -1; /* end of input: the guest just hears nothing more */
        return 0;
    }
    for (ssize_t i = 0; i < n; i++) {
        uint8_t byte = out[i];
        if (!c->escaped) {
            c->escaped = byte == ESCAPE;
            if (!c->escaped) {
                out[kept++] = byte;
            }
            continue;
        }
        c->escaped = false;
        switch (byte) {
        case 'x':
            c->events |= CONSOLE_EVENT_QUIT;
            break;
        case 'c':
            c->events |= CONSOLE_EVENT_MONITOR;
            break;
        case 'a':
        case ESCAPE:
            out[kept++] = ESCAPE;
            break;
        default: /* not ours: swallowed, as a mistyped escape */
            break;
        }
    }
    return kept;
}

unsigned console_events(struct console *c)
{
    unsigned events = c->events;

    c->events = 0;
    return events;
}

int console_write(struct console *c, const void *data, size_t len, struct plx_err *err)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(c->out, p, len);
        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) { /* a terminal that someone else made non-blocking */
            struct pollfd wait = {.fd = c->out, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return plx_fail_errno(err, "cannot write to the console");
        }
    }
    return 0;
}
