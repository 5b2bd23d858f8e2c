/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/seqwriter.c - the client of failover drills.
 *
 *   seqwriter write ADDRESS:PORT LOG SECONDS    keep one TCP connection to a redis, write an
 *       ever-growing sequence (SET seq:N N, one at a time), log "N sent acknowledged" (wall ns) a
 *       line; ends after SECONDS or at SIGTERM, or fails when the connection breaks or stalls for
 *       STALL_S
 *   seqwriter verify ADDRESS:PORT LOG           read every acknowledged value back over a new
 *       connection; exit 1 if any is missing
 *   seqwriter gap LOG                           the longest time without a reply, its two ends
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

enum { STALL_S = 15, LINE = 256 };

static volatile sig_atomic_t ended; /* SIGTERM: after the write under way */

static void on_term(int sig)
{
    (void)sig;
    ended = 1;
}

struct conn {
    int fd;
    char in[4096];
    size_t have;
};

static int parse_target(const char *text, struct sockaddr_in *a)
{
    char host[64];
    const char *colon = strrchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof host) {
        return -1;
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    *a = (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    return inet_pton(AF_INET, host, &a->sin_addr) == 1 ? 0 : -1;
}

static int conn_open(struct conn *c, const char *target)
{
    struct sockaddr_in a, own;
    socklen_t len = sizeof own;
    char from[32], to[32];
    int one = 1;

    c->have = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || parse_target(target, &a) != 0 ||
        connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) {
        (void)fprintf(stderr, "cannot connect to %s: %s\n", target, strerror(errno));
        return -1;
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)getsockname(c->fd, (struct sockaddr *)&own, &len);
    (void)inet_ntop(AF_INET, &own.sin_addr, from, sizeof from);
    (void)inet_ntop(AF_INET, &a.sin_addr, to, sizeof to);
    printf("connection %s:%u -> %s:%u\n", from, ntohs(own.sin_port), to, ntohs(a.sin_port));
    (void)fflush(stdout);
    return 0;
}

/* One line of a reply, without its CRLF. 0, or -1: closed, broken or silent for STALL_S. */
static int read_line(struct conn *c, char *line)
{
    for (;;) {
        char *end = memmem(c->in, c->have, "\r\n", 2);
        if (end != NULL) {
            size_t n = (size_t)(end - c->in);
            if (n >= LINE) {
                return -1;
            }
            memcpy(line, c->in, n);
            line[n] = '\0';
            c->have -= n + 2;
            memmove(c->in, end + 2, c->have);
            return 0;
        }
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int ready = c->have < sizeof c->in ? poll(&p, 1, STALL_S * 1000) : 0;
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready != 1) {
            (void)fprintf(stderr, "no reply for %d s\n", STALL_S);
            return -1;
        }
        ssize_t n = io_read_some(c->fd, c->in + c->have, sizeof c->in - c->have);
        if (n <= 0) {
            (void)fprintf(stderr, "the connection broke: %s\n",
                          n == 0 ? "closed by the server" : strerror(errno));
            return -1;
        }
        c->have += (size_t)n;
    }
}

static int do_write(const char *target, const char *path, double seconds)
{
    uint64_t end = clock_mono_ns() + (uint64_t)(seconds * 1e9);
    struct conn c;
    FILE *log = fopen(path, "w");
    uint64_t seq = 0;

    if (log == NULL || conn_open(&c, target) != 0) {
        return 1;
    }
    (void)signal(SIGTERM, on_term);
    while (clock_mono_ns() < end && !ended) {
        char req[128], key[32], val[32], line[LINE];
        uint64_t sent = clock_wall_ns();
        int k, v, n;

        seq++;
        k = snprintf(key, sizeof key, "seq:%" PRIu64, seq);
        v = snprintf(val, sizeof val, "%" PRIu64, seq);
        n = snprintf(req, sizeof req, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", k, key, v,
                     val);
        if (io_write_full(c.fd, req, (size_t)n) != 0 || read_line(&c, line) != 0) {
            (void)fprintf(stderr, "write %" PRIu64 " was not acknowledged\n", seq);
            (void)fclose(log);
            return 1;
        }
        if (strcmp(line, "+OK") != 0) {
            (void)fprintf(stderr, "write %" PRIu64 ": %s\n", seq, line);
            (void)fclose(log);
            return 1;
        }
        (void)fprintf(log, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", seq, sent, clock_wall_ns());
        (void)fflush(log);
    }
    (void)fclose(log);
    (void)close(c.fd);
    printf("%" PRIu64 " writes acknowledged\n", seq);
    return 0;
}

static int verify_one(struct conn *c, uint64_t seq)
{
    char req[96], key[32], line[LINE], want[32];
    int k = snprintf(key, sizeof key, "seq:%" PRIu64, seq);
    int n = snprintf(req, sizeof req, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", k, key);

    (void)snprintf(want, sizeof want, "%" PRIu64, seq);
    if (io_write_full(c->fd, req, (size_t)n) != 0 || read_line(c, line) != 0) {
        return -1;
    }
    if (line[0] != '$' || line[1] == '-' || read_line(c, line) != 0 || strcmp(line, want) != 0) {
        printf("LOST: write %" PRIu64 " was acknowledged and is not there (%s)\n", seq, line);
        return 1;
    }
    return 0;
}

static int do_verify(const char *target, const char *path)
{
    FILE *log = fopen(path, "r");
    uint64_t seq, sent, acked, n = 0, lost = 0;
    struct conn c;

    if (log == NULL || conn_open(&c, target) != 0) {
        return 1;
    }
    while (fscanf(log, "%" SCNu64 " %" SCNu64 " %" SCNu64, &seq, &sent, &acked) == 3) {
        int rc = verify_one(&c, seq);
        if (rc < 0) {
            return 1;
        }
        lost += (uint64_t)rc;
        n++;
    }
    (void)fclose(log);
    (void)close(c.fd);
    printf("%" PRIu64 " acknowledged writes read back, %" PRIu64 " lost\n", n, lost);
    return n > 0 && lost == 0 ? 0 : 1;
}

static int do_gap(const char *path)
{
    FILE *log = fopen(path, "r");
    uint64_t seq, sent, acked, last = 0, longest = 0, from = 0, to = 0;

    if (log == NULL) {
        perror(path);
        return 1;
    }
    while (fscanf(log, "%" SCNu64 " %" SCNu64 " %" SCNu64, &seq, &sent, &acked) == 3) {
        if (last != 0 && acked - last > longest) {
            longest = acked - last;
            from = last;
            to = acked;
        }
        last = acked;
    }
    (void)fclose(log);
    printf("gap_ms %.1f last_before %" PRIu64 " first_after %" PRIu64 "\n", (double)longest / 1e6,
           from, to);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "write") == 0) {
        return do_write(argv[2], argv[3], strtod(argv[4], NULL));
    }
    if (argc == 4 && strcmp(argv[1], "verify") == 0) {
        return do_verify(argv[2], argv[3]);
    }
    if (argc == 3 && strcmp(argv[1], "gap") == 0) {
        return do_gap(argv[2]);
    }
    (void)fprintf(stderr, "usage: seqwriter write ADDR:PORT LOG SECONDS | verify ADDR:PORT LOG | "
                          "gap LOG\n");
    return 2;
}
