/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_console.c - `pollux console`: the guest's serial console in this terminal. It stays
 * through a takeover: the daemon goes on with the next primary at the byte where the last one
 * ended. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "ops/api_client.h"
#include "ops/cmd.h"
#include "ops/opt.h"

enum { ESCAPE = 0x1d /* Ctrl-] */ };

struct args {
    const char *socket;
    uint64_t port;
};

static int set_socket(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    (void)err;
    a->socket = v[0];
    return 0;
}

static int set_port(void *ctx, char *const *v, struct plx_err *err)
{
    struct args *a = ctx;

    return opt_u64(v[0], "a console port", 0, 2, &a->port, err);
}

static const struct opt options[] = {
    {"socket", "PATH", "the daemon's socket ($POLLUX_SOCKET)", set_socket},
    {"port", "N", "0: first serial port, 1: virtio console, 2: second serial port", set_port},
    {NULL, NULL, NULL, NULL}};
static const struct opt_command command = {
    "pollux console", "VM", "the guest's console; Ctrl-] leaves it", options, 1, 1};

static struct termios saved;
static bool raw;

static void restore(void)
{
    if (raw) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        raw = false;
    }
}

static void make_raw(void)
{
    struct termios t;

    if (isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &saved) == 0) {
        t = saved;
        cfmakeraw(&t);
        raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
        (void)atexit(restore);
    }
}

/* What was typed. 0 to go on, 1 to leave; *eof when there is no more to come. */
static int typed(int fd, bool *eof, struct plx_err *err)
{
    uint8_t buf[256];
    ssize_t n = io_read_some(STDIN_FILENO, buf, sizeof buf);

    if (n <= 0) {
        *eof = true;
        return 0;
    }
    const uint8_t *esc = raw ? memchr(buf, ESCAPE, (size_t)n) : NULL;
    size_t len = esc != NULL ? (size_t)(esc - buf) : (size_t)n;
    if (len > 0) {
        Api__Request q = API__REQUEST__INIT;
        Api__ConsoleInput in = API__CONSOLE_INPUT__INIT;
        in.data = (ProtobufCBinaryData){.len = len, .data = buf};
        q.msg_case = API__REQUEST__MSG_CONSOLE_INPUT;
        q.console_input = &in;
        int rc = api_send(fd, &q, err);
        if (rc != 0) {
            return rc;
        }
    }
    return esc != NULL;
}

/* The daemon takes no more than it can keep until the VM has it. What it says is read meanwhile. */
static bool full(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) == 0;
}

static int pump(int fd, struct plx_err *err)
{
    bool eof = false, waits = false;
    int rc = 0;

    while (rc == 0) {
        struct pollfd p[2] = {{.fd = fd, .events = (short)(POLLIN | (waits ? POLLOUT : 0))},
                              {.fd = eof || waits ? -1 : STDIN_FILENO, .events = POLLIN}};
        if (poll(p, 2, -1) < 0) {
            continue;
        }
        if (p[1].revents != 0) {
            waits = full(fd);
            rc = waits ? 0 : typed(fd, &eof, err);
        } else if ((p[0].revents & POLLOUT) != 0) {
            waits = false;
        }
        if (rc == 0 && (p[0].revents & ~POLLOUT) != 0) {
            Api__Reply *r;
            rc = api_receive(fd, &r, err);
            if (rc == 0) {
                (void)io_write_full(STDOUT_FILENO, r->console.data, r->console.len);
                api__reply__free_unpacked(r, NULL);
            }
        }
    }
    return rc;
}

int cmd_console(int argc, char **argv)
{
    Api__Request q = API__REQUEST__INIT;
    Api__Console c = API__CONSOLE__INIT;
    struct args a = {0};
    struct plx_err err = {""};
    Api__Reply *r;
    int first;
    int rc = opt_parse(&command, &a, argc, argv, &first, &err);

    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    int fd = rc == 0 ? api_connect(a.socket, &err) : -1;
    if (fd >= 0) {
        c.vm = argv[first];
        c.port = (uint32_t)a.port;
        q.msg_case = API__REQUEST__MSG_CONSOLE;
        q.console = &c;
        rc = api_send(fd, &q, &err);
        if (rc == 0) {
            rc = api_receive(fd, &r, &err);
        }
        if (rc == 0) {
            if (isatty(STDIN_FILENO)) {
                (void)fprintf(stderr, "console of %s; Ctrl-] leaves it\n", argv[first]);
            }
            api__reply__free_unpacked(r, NULL);
            make_raw();
            rc = pump(fd, &err);
            restore();
        }
        (void)close(fd);
    } else if (rc == 0) {
        rc = fd;
    }
    if (rc < 0) {
        (void)fprintf(stderr, "pollux console: %s\n", err.msg);
    }
    return rc < 0 ? EXIT_ERROR : EXIT_OK;
}
