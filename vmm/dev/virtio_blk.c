/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_blk.c - virtio disk (VIRTIO 1.2, "Block Device").
 *
 * A request is taken from the ring with its data (R8), becomes an OUTPUT_DISK with an id, and
 * completes when INPUT_DISK_DONE names that id: data read are placed then. The order of
 * completions is the order of the inputs. Section: the common part, requests in flight, the hash
 * of all requests ever made, which stands for the contents of the disk in digests.
 *
 * A request in flight when the driver resets the device is orphaned: its completion still comes
 * and is consumed without touching RAM. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/dev/virtio.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/dev/virtio_pci.h"

#define VIRTIO_BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define VIRTIO_BLK_F_RO           (UINT64_C(1) << 5)
#define VIRTIO_BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define VIRTIO_BLK_F_FLUSH        (UINT64_C(1) << 9)
#define VIRTIO_BLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define VIRTIO_BLK_F_DISCARD      (UINT64_C(1) << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

enum { BLK_TYPE = 2, BLK_CLASS = 0x010000, BLK_VERSION = 1 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_IN_FLIGHT = 0xff /* ours: no status yet */ };
enum { SECTOR = 512, HDR_LEN = 16, ID_LEN = 20, RANGE_LEN = 16, RANGE_UNMAP = 1 };
enum {
    DATA_MAX = 4 << 20,          /* bytes of one read or write */
    RANGE_SECTORS_MAX = 1 << 21, /* of one discard or write-zeroes */
    INFLIGHT_MAX = VIRTQ_SIZE_MAX,
    INFLIGHT_BYTES = 32 << 20 /* no request is taken while this much is in flight */
};

struct blk_request {
    uint64_t id; /* 0: free */
    uint8_t op;  /* enum disk_op */
    bool orphan; /* the ring it came from is gone */
    uint16_t head;
    uint32_t len; /* bytes to read or write */
    uint64_t sector;
    unsigned nin;
    struct virtq_segment *in; /* constant, VIRTQ_SIZE_MAX: data, one byte of status at the end */
};

struct virtio_blk {
    struct virtio v;
    struct virtio_pci pci;
    unsigned disk;
    char name[32];
    uint64_t sectors;
    bool readonly;
    uint8_t config[60];
    /* state */
    uint64_t last_id;
    struct hash128 requests;
    unsigned inflight;
    uint64_t inflight_bytes;                /* sum of their len */
    struct blk_request slots[INFLIGHT_MAX]; /* a slot's number has no meaning */
    struct virtq_segment *segments;         /* of all slots */
    /* scratch */
    struct virtq_chain chain;
    uint8_t *data; /* DATA_MAX */
};

static bool full(const struct virtio_blk *b)
{
    return b->inflight == INFLIGHT_MAX || b->inflight_bytes >= INFLIGHT_BYTES;
}

/* Of the bytes of a request, those that go to the guest. */
static uint32_t read_len(const struct blk_request *r)
{
    return r->op == DISK_READ && !r->orphan ? r->len : 0;
}

static struct blk_request *find(struct virtio_blk *b, uint64_t id)
{
    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        if (b->slots[i].id == id) {
            return &b->slots[i];
        }
    }
    return NULL;
}

/* Status is the last writable byte. @written counts the data bytes before it. */
static void finish(struct virtio_blk *b, uint16_t head, const struct virtq_segment *in,
                   unsigned nin, uint8_t status, uint32_t written)
{
    uint64_t in_len = 0;

    for (unsigned i = 0; i < nin; i++) {
        in_len += in[i].len;
    }
    (void)virtq_write(&b->v, in, nin, in_len - 1, &status, 1);
    virtq_push(&b->v, 0, head, written + 1);
}

/* Emit the request as an output and remember it. */
static void submit(struct virtio_blk *b, enum disk_op op, uint64_t sector, uint32_t len,
                   uint64_t sectors, const void *data)
{
    const struct virtq_chain *c = &b->chain;
    struct blk_request *r = find(b, 0);
    struct output o = {.kind = OUTPUT_DISK,
                       .op = (uint8_t)op,
                       .dev = (uint16_t)b->disk,
                       .len = len,
                       .pos = sector,
                       .arg = ++b->last_id,
                       .sectors = sectors};
    uint64_t entry[8] = {b->requests.lo, b->requests.hi, op, sector, len, sectors};

    PLX_CHECK(r != NULL);
    if (op == DISK_WRITE) {
        struct hash128 h = hash128(data, len, 0);
        entry[6] = h.lo;
        entry[7] = h.hi;
    }
    b->requests = hash128(entry, sizeof entry, 0);
    r->id = b->last_id;
    r->op = (uint8_t)op;
    r->orphan = false;
    r->head = c->head;
    r->len = len;
    r->sector = sector;
    r->nin = c->nin;
    memcpy(r->in, c->seg + c->nout, c->nin * sizeof r->in[0]);
    b->inflight++;
    b->inflight_bytes += len;
    output_add(b->v.m->out, &o, data);
}

static bool in_disk(const struct virtio_blk *b, uint64_t sector, uint64_t sectors)
{
    return sectors <= b->sectors && sector <= b->sectors - sectors;
}

static uint8_t read_or_write(struct virtio_blk *b, bool write, uint64_t sector, uint64_t len)
{
    if (len == 0) {
        return S_OK;
    }
    if (len > DATA_MAX || len % SECTOR != 0 || !in_disk(b, sector, len / SECTOR) ||
        (write && b->readonly)) {
        return S_IOERR;
    }
    if (write) {
        (void)virtq_read(&b->v, &b->chain, HDR_LEN, b->data, (uint32_t)len);
    }
    submit(b, write ? DISK_WRITE : DISK_READ, sector, (uint32_t)len, 0, write ? b->data : NULL);
    return S_IN_FLIGHT;
}

/* One range a request, as the configuration says. */
static uint8_t discard_or_zero(struct virtio_blk *b, bool zero, uint64_t len)
{
    uint8_t range[RANGE_LEN];
    uint64_t sector;
    uint32_t n, flags;

    if (len != RANGE_LEN) {
        return len == 0 || len % RANGE_LEN != 0 ? S_IOERR : S_UNSUPP;
    }
    (void)virtq_read(&b->v, &b->chain, HDR_LEN, range, sizeof range);
    memcpy(&sector, range, sizeof sector);
    memcpy(&n, range + 8, sizeof n);
    memcpy(&flags, range + 12, sizeof flags);
    if ((flags & ~(uint32_t)(zero ? RANGE_UNMAP : 0)) != 0) {
        return S_UNSUPP;
    }
    if (n > RANGE_SECTORS_MAX || !in_disk(b, sector, n) || b->readonly) {
        return S_IOERR;
    }
    if (n == 0) {
        return S_OK;
    }
    submit(b, zero ? DISK_ZERO : DISK_DISCARD, sector, 0, n, NULL);
    return S_IN_FLIGHT;
}

/* Start the request in b->chain. Returns a status when it is over already, S_IN_FLIGHT when it is
 * in flight. Data are copied only for a request that is taken: refusing one costs little. */
static uint8_t start(struct virtio_blk *b, uint32_t *written)
{
    const struct virtq_chain *c = &b->chain;
    uint64_t room = c->in_len - 1, out_len = c->out_len;
    uint8_t hdr[HDR_LEN];
    uint32_t type;
    uint64_t sector;
    char id[ID_LEN] = {0};

    if (out_len < HDR_LEN || out_len > HDR_LEN + DATA_MAX) {
        return S_IOERR;
    }
    (void)virtq_read(&b->v, c, 0, hdr, sizeof hdr);
    memcpy(&type, hdr, sizeof type);
    memcpy(&sector, hdr + 8, sizeof sector);
    switch (type) {
    case T_IN:
        return read_or_write(b, false, sector, room);
    case T_OUT:
        return read_or_write(b, true, sector, out_len - HDR_LEN);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return discard_or_zero(b, type == T_WRITE_ZEROES, out_len - HDR_LEN);
    case T_FLUSH:
        submit(b, DISK_FLUSH, 0, 0, 0, NULL);
        return S_IN_FLIGHT;
    case T_GET_ID:
        (void)snprintf(id, sizeof id, "pollux-disk%u", b->disk);
        *written = virtq_write(&b->v, c->seg + c->nout, c->nin, 0, id,
                               room < ID_LEN ? (uint32_t)room : ID_LEN);
        return S_OK;
    default:
        return S_UNSUPP;
    }
}

static void blk_notify(void *dev, unsigned q)
{
    struct virtio_blk *b = dev;
    const struct virtq_chain *c = &b->chain;

    while (!full(b) && virtq_pop(&b->v, q, &b->chain)) {
        uint32_t written = 0;
        if (c->in_len == 0) {
            virtio_broken(&b->v, "request without room for its status");
            return;
        }
        uint8_t status = start(b, &written);
        if (status != S_IN_FLIGHT) {
            finish(b, c->head, c->seg + c->nout, c->nin, status, written);
        }
    }
    virtq_want_notify(&b->v, q, true);
    virtq_signal(&b->v, q);
}

static void blk_driver_reset(void *dev)
{
    struct virtio_blk *b = dev;

    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        b->slots[i].orphan = true;
        b->slots[i].nin = 0;
    }
}

static const struct virtio_ops blk_ops = {blk_driver_reset, blk_notify};

/* INPUT_DISK_DONE. */
static int blk_input(void *ctx, const struct input *in, struct plx_err *err)
{
    struct virtio_blk *b = ctx;
    const struct machine_host *host = &b->v.m->host;
    struct blk_request *r = in->arg != 0 ? find(b, in->arg) : NULL;
    uint8_t status = DISK_OK;

    if (r == NULL) {
        return plx_fail(err, PLX_ECORRUPT, "%s: no request %llu in flight", b->name,
                        (unsigned long long)in->arg);
    }
    int rc = host->disk_result(host->ctx, b->disk, r->id, b->data, read_len(r), &status, err);
    if (rc != 0) {
        return rc;
    }
    if (in->status != DISK_OK) {
        status = in->status; /* what the record says is what every replica's guest sees */
    }
    if (!r->orphan && virtio_running(&b->v)) {
        uint32_t written = 0;
        if (status == DISK_OK) {
            written = virtq_write(&b->v, r->in, r->nin, 0, b->data, read_len(r));
        }
        finish(b, r->head, r->in, r->nin,
               status == DISK_OK            ? S_OK
               : status == DISK_UNSUPPORTED ? S_UNSUPP
                                            : S_IOERR,
               written);
    }
    bool was_full = full(b);
    r->id = 0;
    b->inflight--;
    b->inflight_bytes -= r->len;
    if (virtio_running(&b->v)) {
        virtq_signal(&b->v, 0);
        if (was_full) {
            virtio_notify(&b->v, 0); /* more may be waiting in the ring */
        }
    }
    return 0;
}

static void blk_reset(void *dev)
{
    struct virtio_blk *b = dev;

    virtio_reset(&b->v);
    b->last_id = 0;
    b->requests = (struct hash128){0, 0};
    b->inflight = 0;
    b->inflight_bytes = 0;
    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        b->slots[i].id = 0;
    }
}

/* The request with the smallest id above @after; NULL: none. */
static const struct blk_request *next_request(const struct virtio_blk *b, uint64_t after)
{
    const struct blk_request *best = NULL;

    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        const struct blk_request *r = &b->slots[i];
        if (r->id > after && (best == NULL || r->id < best->id)) {
            best = r;
        }
    }
    return best;
}

static void blk_save(const void *dev, struct wbuf *out)
{
    const struct virtio_blk *b = dev;
    const struct blk_request *r = next_request(b, 0);

    virtio_save(&b->v, out);
    wbuf_u64(out, b->last_id);
    wbuf_u64(out, b->requests.lo);
    wbuf_u64(out, b->requests.hi);
    wbuf_u16(out, (uint16_t)b->inflight);
    for (; r != NULL; r = next_request(b, r->id)) {
        wbuf_u64(out, r->id);
        wbuf_u8(out, r->op);
        wbuf_u8(out, r->orphan);
        wbuf_u16(out, r->head);
        wbuf_u32(out, r->len);
        wbuf_u64(out, r->sector);
        wbuf_u16(out, (uint16_t)r->nin);
        for (unsigned i = 0; i < r->nin; i++) {
            wbuf_u64(out, r->in[i].gpa);
            wbuf_u32(out, r->in[i].len);
        }
    }
}

static int load_request(struct virtio_blk *b, struct blk_request *r, struct rbuf *in,
                        struct plx_err *err)
{
    uint64_t in_len = 0;
    bool good = true;

    r->id = rbuf_u64(in);
    r->op = rbuf_u8(in);
    uint8_t orphan = rbuf_u8(in);
    r->orphan = orphan == 1;
    r->head = rbuf_u16(in);
    r->len = rbuf_u32(in);
    r->sector = rbuf_u64(in);
    r->nin = rbuf_u16(in);
    for (unsigned i = 0; i < r->nin && i < VIRTQ_SIZE_MAX; i++) {
        r->in[i].gpa = rbuf_u64(in);
        r->in[i].len = rbuf_u32(in);
        in_len += r->in[i].len;
        good = good && virtio_range_ok(b->v.m->ram, r->in[i].gpa, r->in[i].len);
    }
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: truncated in the requests", b->name);
    }
    if (!good || r->id == 0 || r->id > b->last_id || r->op > DISK_ZERO || orphan > 1 ||
        r->nin > VIRTQ_SIZE_MAX || r->len > DATA_MAX || r->len % SECTOR != 0 ||
        (r->len != 0) != (r->op == DISK_READ || r->op == DISK_WRITE) ||
        !in_disk(b, r->sector, r->len / SECTOR) ||
        (r->orphan ? r->nin != 0 : in_len == 0 || in_len - 1 < read_len(r))) {
        return plx_fail(err, PLX_ECORRUPT, "%s: request %llu", b->name, (unsigned long long)r->id);
    }
    return 0;
}

static int blk_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct virtio_blk *b = dev;
    uint64_t last = 0;

    if (version != BLK_VERSION) {
        return plx_fail(err, PLX_EVERSION, "%s: version %u", b->name, version);
    }
    int rc = virtio_load(&b->v, in, err);
    if (rc != 0) {
        return rc;
    }
    b->last_id = rbuf_u64(in);
    b->requests.lo = rbuf_u64(in);
    b->requests.hi = rbuf_u64(in);
    b->inflight = rbuf_u16(in);
    if (b->inflight > INFLIGHT_MAX) {
        return plx_fail(err, PLX_ECORRUPT, "%s: %u requests in flight", b->name, b->inflight);
    }
    b->inflight_bytes = 0;
    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        b->slots[i].id = 0;
    }
    for (unsigned i = 0; i < b->inflight; i++) {
        rc = load_request(b, &b->slots[i], in, err);
        if (rc != 0) {
            return rc;
        }
        if (b->slots[i].id <= last) {
            return plx_fail(err, PLX_ECORRUPT, "%s: order of requests", b->name);
        }
        last = b->slots[i].id;
        b->inflight_bytes += b->slots[i].len;
    }
    return in->failed ? plx_fail(err, PLX_ETRUNCATED, "%s: truncated", b->name) : 0;
}

static const struct device_ops blk_device = {blk_reset, blk_save, blk_load};

void virtio_blk_reissue(struct machine *m, struct output_list *out)
{
    for (unsigned i = 0; i < m->ndevices; i++) {
        if (m->devices[i].ops != &blk_device) {
            continue;
        }
        const struct virtio_blk *b = m->devices[i].dev;
        const struct blk_request *r = next_request(b, 0);
        for (; r != NULL; r = next_request(b, r->id)) {
            bool read = read_len(r) != 0;
            struct output o = {.kind = OUTPUT_DISK,
                               .op = read ? DISK_READ : DISK_FLUSH,
                               .dev = (uint16_t)b->disk,
                               .len = read_len(r),
                               .pos = read ? r->sector : 0,
                               .arg = r->id};
            output_add(out, &o, NULL);
        }
    }
}

static void blk_destroy(void *ctx)
{
    struct virtio_blk *b = ctx;

    plx_free(b->segments);
    plx_free(b->data);
    plx_free(b);
}

/* struct virtio_blk_config */
static void fill_config(struct virtio_blk *b)
{
    static const struct {
        unsigned at, size;
        uint64_t value;
    } fields[] = {
        {12, 4, VIRTQ_SIZE_MAX - 2}, /* seg_max: without header and status */
        {20, 4, SECTOR},             /* blk_size */
        {24, 1, 3},                  /* physical_block_exp: 4 KiB, the grain of the backend */
        {26, 2, 1},                  /* min_io_size, in blk_size */
        {34, 2, 1},                  /* num_queues */
        {36, 4, RANGE_SECTORS_MAX},  /* max_discard_sectors */
        {40, 4, 1},                  /* max_discard_seg */
        {44, 4, 8},                  /* discard_sector_alignment */
        {48, 4, RANGE_SECTORS_MAX},  /* max_write_zeroes_sectors */
        {52, 4, 1},                  /* max_write_zeroes_seg */
        {56, 1, 1},                  /* write_zeroes_may_unmap */
    };

    memcpy(b->config, &b->sectors, sizeof b->sectors);
    for (unsigned i = 0; i < PLX_COUNT(fields); i++) {
        memcpy(b->config + fields[i].at, &fields[i].value, fields[i].size);
    }
}

int virtio_blk_create(struct machine *m, unsigned slot, unsigned disk, struct plx_err *err)
{
    uint64_t features = VIRTIO_F_RING | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE |
                        VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY;
    int rc;
    struct virtio_blk *b = plx_calloc(1, sizeof *b);

    if (b == NULL) {
        return plx_fail(err, PLX_ENOMEM, "virtio-blk%u: out of memory", disk);
    }
    b->disk = disk;
    b->sectors = m->cfg.disks[disk].sectors;
    b->readonly = m->cfg.disks[disk].readonly;
    (void)snprintf(b->name, sizeof b->name, "virtio-blk%u", disk);
    b->segments = plx_calloc((size_t)INFLIGHT_MAX * VIRTQ_SIZE_MAX, sizeof *b->segments);
    b->data = plx_calloc(1, DATA_MAX);
    if (b->segments == NULL || b->data == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "%s: out of memory", b->name);
        goto err_free;
    }
    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        b->slots[i].in = b->segments + (size_t)i * VIRTQ_SIZE_MAX;
    }
    features |= b->readonly ? VIRTIO_BLK_F_RO : VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
    virtio_init(&b->v, m, b->name, BLK_TYPE, &blk_ops, b, features, 1);
    fill_config(b);
    b->v.config = b->config;
    b->v.config_len = sizeof b->config;
    rc = virtio_pci_create(&b->pci, &b->v, slot, BLK_CLASS, err);
    if (rc != 0) {
        goto err_free;
    }
    b->pci.fn->destroy = blk_destroy;
    b->pci.fn->destroy_ctx = b;
    m->disk[disk] = (struct input_port){blk_input, b};
    machine_add_device(m, b->name, BLK_VERSION, &blk_device, b);
    return 0;

err_free:
    blk_destroy(b);
    return rc;
}
