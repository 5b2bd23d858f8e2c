/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/state.c - saving and loading whole VMs; the form stands in state.h. */
#include "vmm/sched/state.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "vmm/sched/sections.h"
#include "vmm/sched/vm_internal.h"

static const char magic[8] = {'P', 'L', 'X', 'S', 'T', 'A', 'T', 'E'};

enum {
    FORM = 1,
    HASH_LEN = 16,
    ENTRY_LEN = 24, /* of the page table */
    FIXED_LEN = 56,
    HEADER_MAX = 1024,
    IO_PAGES = 64, /* read at once */
};
#define SECTIONS_MAX_LEN (UINT64_C(64) << 20)

/* --- header ------------------------------------------------------------------------------------
 */

struct header {
    uint32_t len;
    uint64_t seq, sections_len, npages;
    struct hash128 ram;
    struct machine_config cfg;
};

static void put_header(struct wbuf *out, const struct header *h)
{
    size_t from = out->len;
    uint32_t len;

    wbuf_put(out, magic, sizeof magic);
    wbuf_u32(out, FORM);
    wbuf_u32(out, 0);
    wbuf_u64(out, h->seq);
    wbuf_u64(out, h->sections_len);
    wbuf_u64(out, h->npages);
    state_put_hash(out, h->ram);
    wbuf_u64(out, h->cfg.memory);
    wbuf_u32(out, h->cfg.vcpus);
    wbuf_u32(out, h->cfg.ndisks);
    wbuf_u32(out, h->cfg.nnics);
    for (unsigned i = 0; i < h->cfg.ndisks; i++) {
        wbuf_u64(out, h->cfg.disks[i].sectors);
        wbuf_u8(out, h->cfg.disks[i].readonly);
    }
    for (unsigned i = 0; i < h->cfg.nnics; i++) {
        wbuf_put(out, h->cfg.nics[i].mac, sizeof h->cfg.nics[i].mac);
    }
    if (h->cfg.cpu != CPU_POLLUX_V2) {
        wbuf_u8(out, (uint8_t)h->cfg.cpu);
    }
    if (!out->failed) {
        len = (uint32_t)(out->len - from + HASH_LEN);
        memcpy(out->data + from + 12, &len, sizeof len);
        state_put_hash(out, hash128(out->data + from, out->len - from, STATE_SEED));
    }
}

/* @data holds the whole header, as long as it says itself. */
static int parse_header(const uint8_t *data, size_t len, struct header *h, struct plx_err *err)
{
    struct rbuf in, tail;

    rbuf_init(&tail, data + len - HASH_LEN, HASH_LEN);
    if (!hash128_eq(state_get_hash(&tail), hash128(data, len - HASH_LEN, STATE_SEED))) {
        return plx_fail(err, PLX_ECORRUPT, "the header is corrupt: its hash does not match");
    }
    *h = (struct header){.len = (uint32_t)len};
    rbuf_init(&in, data + 16, len - 16 - HASH_LEN);
    h->seq = rbuf_u64(&in);
    h->sections_len = rbuf_u64(&in);
    h->npages = rbuf_u64(&in);
    h->ram = state_get_hash(&in);
    h->cfg.memory = rbuf_u64(&in);
    h->cfg.vcpus = rbuf_u32(&in);
    h->cfg.ndisks = rbuf_u32(&in);
    h->cfg.nnics = rbuf_u32(&in);
    if (h->cfg.ndisks > DISKS_MAX || h->cfg.nnics > NICS_MAX || h->cfg.vcpus == 0 ||
        h->cfg.vcpus > VCPUS_MAX || h->cfg.memory > RAM_MAX) {
        return plx_fail(err, PLX_ECORRUPT, "the header is corrupt: machine configuration");
    }
    for (unsigned i = 0; i < h->cfg.ndisks; i++) {
        h->cfg.disks[i].sectors = rbuf_u64(&in);
        h->cfg.disks[i].readonly = rbuf_u8(&in) != 0;
    }
    for (unsigned i = 0; i < h->cfg.nnics; i++) {
        rbuf_get(&in, h->cfg.nics[i].mac, sizeof h->cfg.nics[i].mac);
    }
    if (!rbuf_done(&in)) {
        uint8_t model = rbuf_u8(&in);
        if (model == CPU_POLLUX_V2 || model >= CPU_MODELS) {
            return plx_fail(err, PLX_EVERSION, "CPU model %u is not known here", model);
        }
        h->cfg.cpu = (enum cpu_model)model;
    }
    if (!rbuf_done(&in) || h->sections_len > SECTIONS_MAX_LEN ||
        h->npages > h->cfg.memory >> PAGE_SHIFT) {
        return plx_fail(err, PLX_ECORRUPT, "the header is corrupt: lengths");
    }
    return 0;
}

static bool same_config(const struct machine_config *a, const struct machine_config *b)
{
    if (a->memory != b->memory || a->vcpus != b->vcpus || a->ndisks != b->ndisks ||
        a->nnics != b->nnics) {
        return false;
    }
    for (unsigned i = 0; i < a->ndisks; i++) {
        if (a->disks[i].sectors != b->disks[i].sectors ||
            a->disks[i].readonly != b->disks[i].readonly) {
            return false;
        }
    }
    for (unsigned i = 0; i < a->nnics; i++) {
        if (memcmp(a->nics[i].mac, b->nics[i].mac, sizeof a->nics[i].mac) != 0) {
            return false;
        }
    }
    return true;
}

/* --- saving ------------------------------------------------------------------------------------
 */

/* Everything but the pages, and which pages follow. */
static int save_front(struct vm *vm, struct wbuf *out, uint64_t *npages, struct plx_err *err)
{
    const struct ram *ram = vm->m->ram;
    const struct hash128 *hashes = digest_pages(vm);
    struct header h = {.seq = vm->seq, .cfg = vm->m->cfg};
    struct wbuf sections;
    size_t from = out->len, table;

    if (vm->broken) {
        return plx_fail(err, PLX_ESTATE, "the VM had a host error: its state is not whole");
    }
    for (uint64_t page = 0; page < ram_pages(ram); page++) {
        h.ram = hash128_add(h.ram, hashes[page]);
        h.npages += (hashes[page].lo | hashes[page].hi) != 0;
    }
    wbuf_init(&sections);
    sections_save(vm, &sections);
    h.sections_len = sections.len;
    put_header(out, &h);
    wbuf_put(out, sections.data, sections.len);
    out->failed = out->failed || sections.failed;
    wbuf_free(&sections);
    table = out->len;
    for (uint64_t page = 0; page < ram_pages(ram); page++) {
        if ((hashes[page].lo | hashes[page].hi) != 0) {
            wbuf_u64(out, ram_gpa_of_page(ram, page));
            state_put_hash(out, hashes[page]);
        }
    }
    if (!out->failed) {
        state_put_hash(out, hash128(out->data + table, out->len - table, STATE_SEED));
    }
    while (!out->failed && PAGE_OFFSET(out->len - from) != 0) {
        wbuf_u8(out, 0);
    }
    *npages = h.npages;
    return out->failed ? plx_fail(err, PLX_ENOMEM, "out of memory for the saved state") : 0;
}

int vm_save_buf(struct vm *vm, struct wbuf *out, struct plx_err *err)
{
    const struct ram *ram = vm->m->ram;
    const struct hash128 *hashes;
    uint64_t npages;
    int rc = save_front(vm, out, &npages, err);

    if (rc != 0) {
        return rc;
    }
    hashes = digest_pages(vm);
    for (uint64_t page = 0; page < ram_pages(ram); page++) {
        if ((hashes[page].lo | hashes[page].hi) != 0) {
            wbuf_put(out, ram->hva + (page << PAGE_SHIFT), PAGE_SIZE);
        }
    }
    return out->failed ? plx_fail(err, PLX_ENOMEM, "out of memory for the saved state") : 0;
}

/* The non-zero pages in runs as long as they are adjacent. */
static int write_pages(struct vm *vm, int fd)
{
    const struct ram *ram = vm->m->ram;
    const struct hash128 *hashes = digest_pages(vm);
    uint64_t pages = ram_pages(ram);

    for (uint64_t page = 0; page < pages;) {
        uint64_t end = page;
        while (end < pages && (hashes[end].lo | hashes[end].hi) != 0) {
            end++;
        }
        if (end > page && io_write_full(fd, ram->hva + (page << PAGE_SHIFT),
                                        (size_t)(end - page) << PAGE_SHIFT) != 0) {
            return -1;
        }
        page = end + 1;
    }
    return 0;
}

int vm_save(struct vm *vm, const char *path, struct plx_err *err)
{
    char tmp[4096];
    struct wbuf front;
    uint64_t npages;
    int fd, rc;

    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp) {
        return plx_fail(err, PLX_EINVAL, "cannot save to %s: the name is too long", path);
    }
    wbuf_init(&front);
    rc = save_front(vm, &front, &npages, err);
    if (rc != 0) {
        wbuf_free(&front);
        return plx_err_wrap(err, rc, "cannot save to %s", path);
    }
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = plx_fail_errno(err, "cannot create %s", tmp);
        goto out;
    }
    if (io_write_full(fd, front.data, front.len) != 0 || write_pages(vm, fd) != 0 ||
        fsync(fd) != 0) {
        rc = plx_fail_errno(err, "cannot write %s", tmp);
    }
    if (close(fd) != 0 && rc == 0) {
        rc = plx_fail_errno(err, "cannot write %s", tmp);
    }
    if (rc == 0 && (rename(tmp, path) != 0 || io_sync_folder_of(path) != 0)) {
        rc = plx_fail_errno(err, "cannot replace %s", path);
    }
    if (rc != 0) {
        (void)unlink(tmp);
    }
out:
    wbuf_free(&front);
    return rc;
}

/* --- loading -----------------------------------------------------------------------------------
 */

/* A saved state in memory or in a file, read at offsets. */
struct source {
    const uint8_t *mem; /* or NULL and */
    int fd;
    uint64_t size;
};

static int source_read(const struct source *s, uint64_t off, void *out, size_t len,
                       struct plx_err *err)
{
    if (off > s->size || len > s->size - off) {
        return plx_fail(err, PLX_ETRUNCATED, "the state is truncated at %" PRIu64 " bytes",
                        s->size);
    }
    if (s->mem != NULL) {
        memcpy(out, s->mem + off, len);
        return 0;
    }
    ssize_t n = io_pread_full(s->fd, out, len, off);
    if (n < 0) {
        return plx_fail_errno(err, "cannot read");
    }
    return (size_t)n == len ? 0 : plx_fail(err, PLX_ETRUNCATED, "the state is truncated");
}

static int read_header(const struct source *s, struct header *h, struct plx_err *err)
{
    uint8_t data[HEADER_MAX];
    struct rbuf in;
    uint32_t form, len;
    int rc = source_read(s, 0, data, 16, err);

    if (rc != 0) {
        return rc;
    }
    rbuf_init(&in, data + sizeof magic, 8);
    form = rbuf_u32(&in);
    len = rbuf_u32(&in);
    if (memcmp(data, magic, sizeof magic) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "this is no saved state");
    }
    if (form != FORM) {
        return plx_fail(err, PLX_EVERSION, "states of form %" PRIu32 " are not supported", form);
    }
    if (len < FIXED_LEN + HASH_LEN || len > sizeof data) {
        return plx_fail(err, PLX_ECORRUPT, "the header is corrupt: length %" PRIu32, len);
    }
    rc = source_read(s, 0, data, len, err);
    return rc != 0 ? rc : parse_header(data, len, h, err);
}

/* What is read of a state before anything is applied. */
struct incoming {
    struct header h;
    struct section found[SECTIONS_MAX];
    uint8_t *sections, *table; /* owned */
    uint64_t pages_at;
};

static void incoming_free(struct incoming *in)
{
    plx_free(in->sections);
    plx_free(in->table);
}

static gpa_t table_entry(const struct incoming *in, uint64_t i, struct hash128 *hash)
{
    struct rbuf r;

    rbuf_init(&r, in->table + i * ENTRY_LEN, ENTRY_LEN);
    gpa_t gpa = rbuf_u64(&r);
    *hash = state_get_hash(&r);
    return gpa;
}

static int read_table(const struct vm *vm, const struct source *s, struct incoming *in,
                      struct plx_err *err)
{
    uint64_t at = in->h.len + in->h.sections_len;
    size_t len = (size_t)in->h.npages * ENTRY_LEN;
    uint8_t pad[PAGE_SIZE];
    struct hash128 sum = {0, 0};
    struct rbuf tail;
    size_t padding;
    gpa_t last = 0;
    int rc;

    in->table = plx_calloc(1, len + HASH_LEN);
    if (in->table == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    rc = source_read(s, at, in->table, len + HASH_LEN, err);
    if (rc != 0) {
        return rc;
    }
    rbuf_init(&tail, in->table + len, HASH_LEN);
    if (!hash128_eq(state_get_hash(&tail), hash128(in->table, len, STATE_SEED))) {
        return plx_fail(err, PLX_ECORRUPT, "the table of pages is corrupt");
    }
    for (uint64_t i = 0; i < in->h.npages; i++) {
        struct hash128 hash;
        uint64_t page;
        gpa_t gpa = table_entry(in, i, &hash);
        if (PAGE_OFFSET(gpa) != 0 || !ram_page_of(vm->m->ram, gpa, &page) ||
            (i > 0 && gpa <= last)) {
            return plx_fail(err, PLX_ECORRUPT, "the table of pages is corrupt: page %#" PRIx64,
                            gpa);
        }
        last = gpa;
        sum = hash128_add(sum, hash);
    }
    if (!hash128_eq(sum, in->h.ram)) {
        return plx_fail(err, PLX_ECORRUPT, "the table of pages is not the header's");
    }
    at += len + HASH_LEN;
    padding = (size_t)(PAGE_OFFSET(PAGE_SIZE - PAGE_OFFSET(at)));
    rc = source_read(s, at, pad, padding, err);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < padding; i++) {
        if (pad[i] != 0) {
            return plx_fail(err, PLX_ECORRUPT, "the padding before the pages is not zero");
        }
    }
    in->pages_at = at + padding;
    if (s->size - in->pages_at != in->h.npages * PAGE_SIZE) {
        return plx_fail(
            err, s->size - in->pages_at < in->h.npages * PAGE_SIZE ? PLX_ETRUNCATED : PLX_ECORRUPT,
            "%" PRIu64 " bytes of pages where %" PRIu64 " are due", s->size - in->pages_at,
            in->h.npages * PAGE_SIZE);
    }
    return 0;
}

/* Read every page and compare it with its hash; with @apply also put it into RAM. */
static int read_pages(struct vm *vm, const struct source *s, const struct incoming *in, bool apply,
                      struct plx_err *err)
{
    uint8_t *chunk = plx_calloc(IO_PAGES, PAGE_SIZE);
    int rc = 0;

    if (chunk == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    for (uint64_t i = 0; i < in->h.npages && rc == 0; i += IO_PAGES) {
        uint64_t n = in->h.npages - i < IO_PAGES ? in->h.npages - i : IO_PAGES;
        rc = source_read(s, in->pages_at + i * PAGE_SIZE, chunk, (size_t)(n * PAGE_SIZE), err);
        for (uint64_t k = 0; k < n && rc == 0; k++) {
            struct hash128 want;
            gpa_t gpa = table_entry(in, i + k, &want);
            const uint8_t *page = chunk + k * PAGE_SIZE;
            if (!hash128_eq(want, digest_page_hash(gpa, page))) {
                rc = plx_fail(err, PLX_ECORRUPT, "page %#" PRIx64 " is corrupt", gpa);
            } else if (apply) {
                PLX_CHECK(ram_write(vm->m->ram, gpa, page, PAGE_SIZE) == 0);
            }
        }
    }
    plx_free(chunk);
    return rc;
}

static int read_incoming(struct vm *vm, const struct source *s, struct incoming *in,
                         struct plx_err *err)
{
    struct rbuf sections;
    int rc = read_header(s, &in->h, err);

    if (rc != 0) {
        return rc;
    }
    if (in->h.cfg.cpu != vm->m->cfg.cpu) {
        return plx_fail(err, PLX_EINVAL, "the state is of a machine with CPU model %s, not %s",
                        cpu_model_name(in->h.cfg.cpu), cpu_model_name(vm->m->cfg.cpu));
    }
    if (!same_config(&in->h.cfg, &vm->m->cfg)) {
        return plx_fail(err, PLX_EINVAL,
                        "the state is of another machine: %" PRIu64 " MiB, %u vCPU, %u disks, "
                        "%u NICs, or their sizes and addresses differ",
                        in->h.cfg.memory >> 20, in->h.cfg.vcpus, in->h.cfg.ndisks, in->h.cfg.nnics);
    }
    in->sections = plx_calloc(1, (size_t)in->h.sections_len + 1);
    if (in->sections == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    rc = source_read(s, in->h.len, in->sections, (size_t)in->h.sections_len, err);
    if (rc != 0) {
        return rc;
    }
    rbuf_init(&sections, in->sections, (size_t)in->h.sections_len);
    rc = sections_parse(vm->m, &sections, in->found, err);
    if (rc == 0) {
        rc = read_table(vm, s, in, err);
    }
    return rc != 0 ? rc : read_pages(vm, s, in, false, err);
}

/* Pages that hold something now become zero; those of the state are written after. */
static void clear_ram(struct vm *vm)
{
    struct ram *ram = vm->m->ram;
    const struct hash128 *hashes = digest_pages(vm);

    for (uint64_t page = 0; page < ram_pages(ram); page++) {
        if ((hashes[page].lo | hashes[page].hi) != 0) {
            PLX_CHECK(ram_fill(ram, ram_gpa_of_page(ram, page), 0, PAGE_SIZE) == 0);
        }
    }
}

static int load_from(struct vm *vm, const struct source *s, struct plx_err *err)
{
    struct incoming in = {.sections = NULL};
    int rc = read_incoming(vm, s, &in, err);

    if (rc == 0) {
        vm->broken = true; /* until all of it is in */
        clear_ram(vm);
        rc = read_pages(vm, s, &in, true, err);
        if (rc == 0) {
            rc = sections_apply(vm, in.found, err);
        }
        if (rc == 0 && vm->seq != in.h.seq) {
            rc = plx_fail(err, PLX_ECORRUPT,
                          "the header names slice %" PRIu64 ", the state %" PRIu64, in.h.seq,
                          vm->seq);
        }
        for (unsigned i = 0; i < vm->m->cfg.vcpus; i++) {
            vm->cfg.engine->drop(vm->pc->cpus[i].v);
        }
        digest_cache_reset(vm);
        vm->broken = rc != 0;
    }
    incoming_free(&in);
    return rc;
}

int vm_load_buf(struct vm *vm, const void *data, size_t len, struct plx_err *err)
{
    struct source s = {.mem = data, .fd = -1, .size = len};

    return load_from(vm, &s, err);
}

static int source_open(const char *path, struct source *s, struct plx_err *err)
{
    struct stat st;

    *s = (struct source){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (s->fd < 0 || fstat(s->fd, &st) != 0) {
        int rc = plx_fail_errno(err, "cannot open %s", path);
        if (s->fd >= 0) {
            (void)close(s->fd);
        }
        return rc;
    }
    s->size = (uint64_t)st.st_size;
    return 0;
}

int vm_load(struct vm *vm, const char *path, struct plx_err *err)
{
    struct source s;
    int rc = source_open(path, &s, err);

    if (rc != 0) {
        return rc;
    }
    rc = load_from(vm, &s, err);
    (void)close(s.fd);
    return rc != 0 ? plx_err_wrap(err, rc, "cannot load %s", path) : 0;
}

int vm_load_config(const char *path, struct machine_config *cfg, struct plx_err *err)
{
    struct source s;
    struct header h;
    int rc = source_open(path, &s, err);

    if (rc != 0) {
        return rc;
    }
    rc = read_header(&s, &h, err);
    (void)close(s.fd);
    if (rc != 0) {
        return plx_err_wrap(err, rc, "cannot load %s", path);
    }
    *cfg = h.cfg;
    return 0;
}
