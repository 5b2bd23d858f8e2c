/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/capture.c - judges what was captured at the bridge ports of the nodes.
 *
 *   capture order MAC FILE FILE...       the frames of MAC move from port to port: once another
 * port carries them, an earlier one carries nothing but duplicates of frames on a later one capture
 * silent MAC FROM TO FILE...   no frame of MAC between the two (wall ns) capture held MAC FROM OLD
 * NEW        every frame of MAC on OLD after FROM is also on NEW capture some MAC FROM TO FILE...
 * at least one frame of MAC between the two
 *
 * Files are pcap with microseconds or nanoseconds ("libpcap File Format", tcpdump -w) of frames
 * that enter the switch. 0 as TO means the end. Exit code 0: so it is; 1: it is not, and why; 2:
 * usage. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/io.h"

enum { FILE_HEADER = 24, FRAME_HEADER = 16, MAC_LEN = 6, PORTS_MAX = 3, CAPTURE_MAX = 512 << 20 };
#define MAGIC_US UINT32_C(0xa1b2c3d4)
#define MAGIC_NS UINT32_C(0xa1b23c4d)

struct frame {
    uint64_t wall_ns;
    uint32_t len;
    uint8_t sha[SHA256_LEN];
    bool announcement; /* reverse ARP: the VM says where it is */
};

struct port {
    const char *path;
    struct frame *frames;
    size_t n;
};

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static int load(struct port *p, const char *path, const uint8_t mac[MAC_LEN])
{
    struct plx_err err = {""};
    struct wbuf b;
    size_t at = FILE_HEADER;

    *p = (struct port){.path = path};
    wbuf_init(&b);
    if (io_read_file(path, CAPTURE_MAX, &b, &err) != 0 || b.len < FILE_HEADER ||
        (u32(b.data) != MAGIC_US && u32(b.data) != MAGIC_NS)) {
        (void)fprintf(stderr, "%s: not a capture %s\n", path, err.msg);
        wbuf_free(&b);
        return -1;
    }
    uint64_t unit = u32(b.data) == MAGIC_NS ? 1 : 1000;
    p->frames = plx_calloc(b.len / FRAME_HEADER + 1, sizeof *p->frames);
    while (p->frames != NULL && at + FRAME_HEADER <= b.len) {
        const uint8_t *h = b.data + at, *data = h + FRAME_HEADER;
        uint32_t have = u32(h + 8);
        if (have > b.len - at - FRAME_HEADER) {
            break; /* the capture was ended inside a frame */
        }
        if (have >= 14 && memcmp(data + MAC_LEN, mac, MAC_LEN) == 0) {
            struct frame *f = &p->frames[p->n++];
            f->wall_ns = u32(h) * UINT64_C(1000000000) + u32(h + 4) * unit;
            f->len = u32(h + 12);
            f->announcement = data[12] == 0x80 && data[13] == 0x35;
            sha256(data, have, f->sha);
        }
        at += FRAME_HEADER + have;
    }
    wbuf_free(&b);
    return p->frames != NULL ? 0 : -1;
}

static bool on_port(const struct port *p, const struct frame *f)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->frames[i].len == f->len && memcmp(p->frames[i].sha, f->sha, sizeof f->sha) == 0) {
            return true;
        }
    }
    return false;
}

static double seconds(uint64_t from, uint64_t to)
{
    return ((double)to - (double)from) / 1e9;
}

/* Ports in order of their first frame; those without any come last. */
static int by_first(const void *a, const void *b)
{
    const struct port *x = a, *y = b;
    uint64_t fx = x->n > 0 ? x->frames[0].wall_ns : UINT64_MAX;
    uint64_t fy = y->n > 0 ? y->frames[0].wall_ns : UINT64_MAX;

    return (fx > fy) - (fx < fy);
}

static int order(struct port *ports, unsigned n)
{
    unsigned used = 0, duplicates = 0;

    qsort(ports, n, sizeof *ports, by_first);
    while (used < n && ports[used].n > 0) {
        used++;
    }
    if (used == 0) {
        printf("no frame was captured at all\n");
        return 1;
    }
    for (unsigned i = 0; i + 1 < used; i++) {
        const struct port *next = &ports[i + 1];
        for (size_t k = 0; k < ports[i].n; k++) {
            const struct frame *f = &ports[i].frames[k];
            if (f->wall_ns < next->frames[0].wall_ns) {
                continue;
            }
            if (f->announcement || !on_port(next, f)) {
                printf("%s carries a frame of its own %.3f s after the first on %s\n",
                       ports[i].path, seconds(next->frames[0].wall_ns, f->wall_ns), next->path);
                return 1;
            }
            duplicates++;
        }
    }
    printf("order: %u port%s used, %u late duplicate%s\n", used, used == 1 ? "" : "s", duplicates,
           duplicates == 1 ? "" : "s");
    return 0;
}

static int held(const struct port *old, const struct port *survivor, uint64_t from)
{
    size_t n = 0;

    for (size_t i = 0; i < old->n; i++) {
        if (old->frames[i].wall_ns < from) {
            continue;
        }
        if (old->frames[i].announcement || !on_port(survivor, &old->frames[i])) {
            printf("%s: a frame %.3f s later that the survivor never had\n", old->path,
                   seconds(from, old->frames[i].wall_ns));
            return 1;
        }
        n++;
    }
    printf("held: %zu frames, all the survivor's too\n", n);
    return 0;
}

static int between(const struct port *ports, unsigned n, uint64_t from, uint64_t to, bool wanted)
{
    size_t found = 0;

    for (unsigned p = 0; p < n; p++) {
        for (size_t i = 0; i < ports[p].n; i++) {
            uint64_t t = ports[p].frames[i].wall_ns;
            if (t < from || t > to) {
                continue;
            }
            if (found++ == 0 && !wanted) {
                printf("%s: a frame of %u bytes %.3f s after the start\n", ports[p].path,
                       ports[p].frames[i].len, seconds(from, t));
            }
        }
    }
    printf("%zu frames in %.3f s\n", found, to == UINT64_MAX ? 0.0 : seconds(from, to));
    return (found > 0) == wanted ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct port ports[PORTS_MAX] = {{0}};
    unsigned m[MAC_LEN], n = 0;
    uint8_t mac[MAC_LEN];
    const char *what = argc > 3 ? argv[1] : "";
    int first = strcmp(what, "order") == 0 ? 3 : strcmp(what, "held") == 0 ? 4 : 5;
    int rc = 2;

    if (argc <= first || argc - first > PORTS_MAX ||
        sscanf(argv[2], "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != MAC_LEN) {
        (void)fprintf(stderr, "usage: capture order|silent|held|some MAC ... (see the source)\n");
        return 2;
    }
    for (int i = 0; i < MAC_LEN; i++) {
        mac[i] = (uint8_t)m[i];
    }
    for (int i = first; i < argc; i++) {
        if (load(&ports[n++], argv[i], mac) != 0) {
            return 2;
        }
    }
    if (first == 3) {
        rc = order(ports, n);
    } else if (first == 4 && n == 2) {
        rc = held(&ports[0], &ports[1], strtoull(argv[3], NULL, 10));
    } else if (strcmp(what, "silent") == 0 || strcmp(what, "some") == 0) {
        uint64_t to = strtoull(argv[4], NULL, 10);
        rc = between(ports, n, strtoull(argv[3], NULL, 10), to != 0 ? to : UINT64_MAX,
                     what[1] == 'o');
    }
    for (unsigned i = 0; i < n; i++) {
        plx_free(ports[i].frames);
    }
    return rc;
}
