/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/relog.c - forges a recording: a new log in which one byte of what the guest heard is
 * another, under the old digests, chained and sealed as if it had been recorded so. For showing
 * that a replay finds by the digests what no hash of the log gives away.
 *
 *   relog DIR NEW    DIR's log with the first byte of entropy changed, into NEW (which holds copies
 *                    of everything else)
 *
 * Exit 0 forged, 1 not. */
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/check.h"
#include "replica/log.h"
#include "replica/manifest.h"

struct relog {
    struct log *from, *to;
    bool changed;
};

static int copy_record(struct relog *r, uint64_t seq, struct plx_err *err)
{
    struct input *inputs = NULL;
    struct wbuf bytes;
    struct record rec;
    const void *data;
    uint8_t entropy[INPUT_DATA_MAX];
    size_t len;
    int rc = log_get(r->from, seq, &data, &len, err);

    rc = rc != 0 ? rc : record_decode(data, len, &rec, &inputs, err);
    for (uint32_t i = 0; rc == 0 && i < rec.ninputs; i++) {
        if (!r->changed && inputs[i].kind == INPUT_ENTROPY && inputs[i].len != 0) {
            for (uint32_t k = 0; k < inputs[i].len; k++) {
                entropy[k] = inputs[i].data[k];
            }
            entropy[0] ^= 1;
            inputs[i].data = entropy;
            r->changed = true;
        }
    }
    if (rc == 0) {
        wbuf_init(&bytes);
        record_encode(&rec, &bytes);
        PLX_CHECK(!bytes.failed);
        rc = log_append(r->to, seq, bytes.data, bytes.len, err);
        wbuf_free(&bytes);
    }
    plx_free(inputs);
    return rc;
}

/* Of a digest the log keeps what a replay compares, and that is all that goes on. */
static int copy_digest(struct relog *r, uint64_t seq, struct plx_err *err)
{
    static struct digest_page pages[1 << 16];
    struct log_digest have;
    struct vm_digest d = {.seq = seq};
    size_t n = 0;
    uint16_t hash;
    int found = log_get_digest(r->from, seq, &have, err);

    if (found <= 0) {
        return found;
    }
    d.all = have.all;
    d.ram.lo = have.ram;
    d.nsections = have.nsections;
    for (unsigned i = 0; i < d.nsections; i++) {
        d.sections[i].hash.lo = have.sections[i];
    }
    while (n < PLX_COUNT(pages) && log_digest_page(&have, &pages[n].gpa, &hash)) {
        pages[n++].hash = (struct hash128){.lo = hash};
    }
    return log_append_digest(r->to, &d, pages, n, err);
}

int main(int argc, char **argv)
{
    static struct manifest m;
    struct plx_err err = {""};
    struct relog r = {.from = NULL};
    uint64_t origin;
    int rc, close_rc;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: relog DIR NEW\n");
        return 1;
    }
    rc = manifest_read(argv[1], &m, &origin, &err);
    rc = rc != 0 ? rc : log_open(argv[1], origin, &r.from, &err);
    rc = rc != 0 ? rc : log_create(argv[2], origin, &r.to, &err);
    if (rc == 0) {
        rc = copy_digest(&r, log_first(r.from) - 1, &err);
    }
    for (uint64_t seq = rc == 0 ? log_first(r.from) : 1; rc == 0 && seq <= log_last(r.from);
         seq++) {
        rc = copy_record(&r, seq, &err);
        rc = rc != 0 ? rc : copy_digest(&r, seq, &err);
    }
    (void)log_close(r.from, NULL);
    close_rc = log_close(r.to, rc == 0 ? &err : NULL);
    rc = rc != 0 ? rc : close_rc;
    if (rc != 0 || !r.changed) {
        (void)fprintf(stderr, "relog: %s\n", rc != 0 ? err.msg : "no entropy in the log");
        return 1;
    }
    return 0;
}
