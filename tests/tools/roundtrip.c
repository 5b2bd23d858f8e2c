/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/roundtrip.c - what this host charges for a message and its answer between two
 * processes that sleep until they hear one another, over TCP as between replicas: the least that a
 * primary and its backup can pay for a record and its acknowledgement.
 *
 *   roundtrip serve ADDRESS PORT    answers one client
 *   roundtrip ADDRESS PORT          prints the median round trip, and the median time in send alone
 *                                   (what waking a sleeper costs the one who wakes it), in us */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

static int all(int fd, char *buf, size_t len)
{
    return recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static int serve(const struct sockaddr_in *a)
{
    char buf[RECORD] = {0};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (const struct sockaddr *)a, sizeof *a) != 0 || listen(listener, 1) != 0) {
        return complain("roundtrip: cannot listen");
    }
    int fd = accept(listener, NULL, NULL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (all(fd, buf, RECORD) && send(fd, buf, ACK, 0) == ACK) {
    }
    (void)close(fd);
    (void)close(listener);
    return 0;
}

static int ask(const struct sockaddr_in *a)
{
    static uint64_t trip[TURNS], sending[TURNS];
    char buf[RECORD] = {0};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (const struct sockaddr *)a, sizeof *a) != 0) {
        return complain("roundtrip: cannot connect");
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t from = clock_mono_ns();
        if (send(fd, buf, RECORD, 0) != RECORD) {
            return complain("roundtrip: send");
        }
        sending[i] = clock_mono_ns() - from;
        if (!all(fd, buf, ACK)) {
            return complain("roundtrip: receive");
        }
        trip[i] = clock_mono_ns() - from;
    }
    (void)close(fd);
    qsort(trip, TURNS, sizeof trip[0], by_value);
    qsort(sending, TURNS, sizeof sending[0], by_value);
    (void)printf("%.1f %.1f\n", (double)trip[TURNS / 2] / 1e3, (double)sending[TURNS / 2] / 1e3);
    return 0;
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
