/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/roundtrip.c - what this host charges for a message and its answer between two
 * processes, over TCP as between replicas: the least that a primary and its backup can pay for a
 * record and its acknowledgement. Once with both asleep until they hear one another, and once with
 * both looking for it all the time.
 *
 *   roundtrip serve ADDRESS PORT    answers one client
 *   roundtrip ADDRESS PORT          prints in us, of sleepers, the median round trip and the median
 *                                   time in send alone (what waking a sleeper costs the one who
 *                                   wakes it), and the same of those who look */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

enum { TURNS = 5000, RECORD = 256 /* bytes, about a record with one frame */, ACK = 64 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int complain(const char *what)
{
    perror(what);
    return 1;
}

enum how { SLEEP, LOOK, HOWS }; /* the first byte of a record tells the server of the next one */

static bool all(int fd, char *buf, size_t len, enum how how)
{
    size_t have = 0;

    while (have < len) {
        ssize_t n = recv(fd, buf + have, len - have, how == LOOK ? MSG_DONTWAIT : 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return false;
        }
        have += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static int serve(const struct sockaddr_in *a)
{
    char buf[RECORD] = {SLEEP};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (const struct sockaddr *)a, sizeof *a) != 0 || listen(listener, 1) != 0) {
        return complain("roundtrip: cannot listen");
    }
    int fd = accept(listener, NULL, NULL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (all(fd, buf, RECORD, buf[0] == LOOK ? LOOK : SLEEP) && send(fd, buf, ACK, 0) == ACK) {
    }
    (void)close(fd);
    (void)close(listener);
    return 0;
}

static int measure(int fd, enum how how)
{
    static uint64_t trip[TURNS], sending[TURNS];
    char buf[RECORD] = {(char)how};

    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t from = clock_mono_ns();
        if (send(fd, buf, RECORD, 0) != RECORD) {
            return complain("roundtrip: send");
        }
        sending[i] = clock_mono_ns() - from;
        if (!all(fd, buf, ACK, how)) {
            return complain("roundtrip: receive");
        }
        trip[i] = clock_mono_ns() - from;
    }
    qsort(trip, TURNS, sizeof trip[0], by_value);
    qsort(sending, TURNS, sizeof sending[0], by_value);
    (void)printf("%.1f %.1f%c", (double)trip[TURNS / 2] / 1e3, (double)sending[TURNS / 2] / 1e3,
                 how + 1 == HOWS ? '\n' : ' ');
    return 0;
}

static int ask(const struct sockaddr_in *a)
{
    int on = 1, rc = 0, fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (const struct sockaddr *)a, sizeof *a) != 0) {
        return complain("roundtrip: cannot connect");
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (unsigned how = SLEEP; how < HOWS && rc == 0; how++) {
        rc = measure(fd, (enum how)how);
    }
    (void)close(fd);
    return rc;
}

int main(int argc, char **argv)
{
    int serving = argc == 4 && strcmp(argv[1], "serve") == 0;
    struct sockaddr_in a = {.sin_family = AF_INET};

    if (argc != 3 + serving || inet_pton(AF_INET, argv[1 + serving], &a.sin_addr) != 1) {
        (void)fprintf(stderr, "usage: roundtrip [serve] ADDRESS PORT\n");
        return 1;
    }
    a.sin_port = htons((uint16_t)atoi(argv[2 + serving]));
    return serving ? serve(&a) : ask(&a);
}
