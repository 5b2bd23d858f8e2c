/* SPDX-License-Identifier: Apache-2.0
 * replica/manifest.c - see manifest.h. */
#include "replica/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/io.h"
#include "proto/manifest.pb-c.h"
#include "vmm/tunables.h"

enum { FORM = 1, MANIFEST_VERSION = 1, FRONT_LEN = 16, MANIFEST_MAX = 1 << 20 };
#define ORIGIN_SEED UINT64_C(0x6f726967696e0001)

static const char magic[8] = {'P', 'L', 'X', 'M', 'A', 'N', 'I', 'F'};

/* The constants a log depends on, as this program has them. */
static const Rec__Rules our_rules = {
    .base = PROTOBUF_C_MESSAGE_INIT(&rec__rules__descriptor),
    .tsc_hz = TSC_HZ,
    .crystal_hz = CRYSTAL_HZ,
    .pm_timer_hz = PM_TIMER_HZ,
    .pit_hz = PIT_HZ,
    .round_quantum = ROUND_QUANTUM,
    .pause_yield = PAUSE_YIELD,
};

static int path_in(char out[MANIFEST_PATH_MAX], const char *dir, const char *name,
                   struct plx_err *err)
{
    if (snprintf(out, MANIFEST_PATH_MAX, "%s/%s", dir, name) >= MANIFEST_PATH_MAX) {
        return plx_fail(err, PLX_EINVAL, "%s: the name is too long", dir);
    }
    return 0;
}

int manifest_hash_file(const char *path, struct manifest_file *f, struct plx_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    f->size = (uint64_t)st.st_size;
    return sha256_file(path, f->sha256, err);
}

int manifest_check_file(const char *path, const struct manifest_file *f, struct plx_err *err)
{
    struct manifest_file have = {.size = 0};
    struct stat st;
    int rc;

    if (stat(path, &st) != 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    if ((uint64_t)st.st_size != f->size) {
        return plx_fail(err, (uint64_t)st.st_size < f->size ? PLX_ETRUNCATED : PLX_ECORRUPT,
                        "%s has %lld bytes; the recording was made with %" PRIu64, path,
                        (long long)st.st_size, f->size);
    }
    rc = manifest_hash_file(path, &have, err);
    if (rc == 0 && memcmp(have.sha256, f->sha256, SHA256_LEN) != 0) {
        return plx_fail(err, PLX_ECORRUPT,
                        "%s is not the file the recording was made with: its SHA-256 differs",
                        path);
    }
    return rc;
}

/* --- writing -----------------------------------------------------------------------------------
 */

static Rec__File *file_message(const struct manifest_file *f, Rec__File *to)
{
    if (f->name[0] == '\0') {
        return NULL;
    }
    rec__file__init(to);
    to->name = (char *)(uintptr_t)f->name; /* packing only reads */
    to->size = f->size;
    to->sha256.data = (uint8_t *)(uintptr_t)f->sha256;
    to->sha256.len = SHA256_LEN;
    return to;
}

static void pack(const struct manifest *m, struct wbuf *out)
{
    Rec__Manifest msg = REC__MANIFEST__INIT;
    Rec__File kernel, initrd, state, bases[DISKS_MAX];
    Rec__Disk disks[DISKS_MAX], *disk_ptrs[DISKS_MAX];
    Rec__Section sections[DIGEST_SECTIONS_MAX], *section_ptrs[DIGEST_SECTIONS_MAX];
    ProtobufCBinaryData macs[NICS_MAX];
    Rec__Rules rules = our_rules;
    size_t len;

    msg.version = MANIFEST_VERSION;
    msg.cpu_model = (char *)(uintptr_t)cpu_model_name(m->machine.cpu);
    msg.engine = (char *)(uintptr_t)m->engine;
    msg.eager_ad = m->eager_ad;
    msg.memory = m->machine.memory;
    msg.vcpus = m->machine.vcpus;
    msg.cmdline = (char *)(uintptr_t)m->cmdline;
    msg.kernel = file_message(&m->kernel, &kernel);
    msg.initrd = file_message(&m->initrd, &initrd);
    msg.state = file_message(&m->state, &state);
    msg.rules = &rules;
    for (unsigned i = 0; i < m->machine.ndisks; i++) {
        rec__disk__init(&disks[i]);
        disks[i].image = file_message(&m->disks[i], &bases[i]);
        disks[i].sectors = m->machine.disks[i].sectors;
        disks[i].readonly = m->machine.disks[i].readonly;
        disk_ptrs[i] = &disks[i];
    }
    msg.n_disks = m->machine.ndisks;
    msg.disks = disk_ptrs;
    for (unsigned i = 0; i < m->machine.nnics; i++) {
        macs[i].data = (uint8_t *)(uintptr_t)m->machine.nics[i].mac;
        macs[i].len = sizeof m->machine.nics[i].mac;
    }
    msg.n_macs = m->machine.nnics;
    msg.macs = macs;
    for (unsigned i = 0; i < m->nsections; i++) {
        rec__section__init(&sections[i]);
        sections[i].name = (char *)(uintptr_t)m->sections[i].name;
        sections[i].version = m->sections[i].version;
        section_ptrs[i] = &sections[i];
    }
    msg.n_sections = m->nsections;
    msg.sections = section_ptrs;

    len = rec__manifest__get_packed_size(&msg);
    wbuf_put(out, magic, sizeof magic);
    wbuf_u32(out, FORM);
    wbuf_u32(out, (uint32_t)len);
    uint8_t *at = wbuf_grow(out, len);
    if (at != NULL) {
        (void)rec__manifest__pack(&msg, at);
    }
}

int manifest_write(const char *dir, const struct manifest *m, uint64_t *origin, struct plx_err *err)
{
    char path[MANIFEST_PATH_MAX];
    uint8_t sha[SHA256_LEN];
    struct wbuf b;
    int rc = path_in(path, dir, "manifest", err);

    if (rc != 0) {
        return rc;
    }
    wbuf_init(&b);
    pack(m, &b);
    if (!b.failed) {
        sha256(b.data, b.len, sha);
        *origin = hash128(b.data, b.len, ORIGIN_SEED).lo;
        wbuf_put(&b, sha, sizeof sha);
    }
    rc = b.failed ? plx_fail(err, PLX_ENOMEM, "out of memory")
                  : io_write_file(path, b.data, b.len, err);
    wbuf_free(&b);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static bool copy_text(char *to, size_t cap, const char *from)
{
    size_t len = strlen(from);

    if (len >= cap) {
        return false;
    }
    memcpy(to, from, len + 1);
    return true;
}

/* An absent file is one without a name; a present one needs all of its fields. */
static bool take_file(struct manifest_file *to, const Rec__File *f)
{
    if (f == NULL) {
        return true;
    }
    if (f->name[0] == '\0' || f->sha256.len != SHA256_LEN ||
        !copy_text(to->name, sizeof to->name, f->name)) {
        return false;
    }
    to->size = f->size;
    memcpy(to->sha256, f->sha256.data, SHA256_LEN);
    return true;
}

/* Copies are in the directory under fixed names: nothing else is opened on a manifest's word. */
static bool is_copy(const struct manifest_file *f, const char *name)
{
    return f->name[0] == '\0' || strcmp(f->name, name) == 0;
}

static bool take_machine(struct manifest *m, const Rec__Manifest *msg)
{
    m->machine.memory = msg->memory;
    m->machine.vcpus = msg->vcpus;
    m->eager_ad = msg->eager_ad != 0;
    if (msg->memory < RAM_MIN || msg->memory > RAM_MAX || msg->vcpus == 0 ||
        msg->vcpus > VCPUS_MAX || msg->n_disks > DISKS_MAX || msg->n_macs > NICS_MAX ||
        msg->n_sections > DIGEST_SECTIONS_MAX) {
        return false;
    }
    m->machine.ndisks = (unsigned)msg->n_disks;
    for (size_t i = 0; i < msg->n_disks; i++) {
        m->machine.disks[i].sectors = msg->disks[i]->sectors;
        m->machine.disks[i].readonly = msg->disks[i]->readonly;
        if (msg->disks[i]->image == NULL || !take_file(&m->disks[i], msg->disks[i]->image)) {
            return false;
        }
    }
    m->machine.nnics = (unsigned)msg->n_macs;
    for (size_t i = 0; i < msg->n_macs; i++) {
        if (msg->macs[i].len != sizeof m->machine.nics[i].mac) {
            return false;
        }
        memcpy(m->machine.nics[i].mac, msg->macs[i].data, sizeof m->machine.nics[i].mac);
    }
    m->nsections = (unsigned)msg->n_sections;
    for (size_t i = 0; i < msg->n_sections; i++) {
        m->sections[i].version = msg->sections[i]->version;
        if (!copy_text(m->sections[i].name, sizeof m->sections[i].name, msg->sections[i]->name)) {
            return false;
        }
    }
    return true;
}

static bool same_rules(const Rec__Rules *r)
{
    return r->tsc_hz == our_rules.tsc_hz && r->crystal_hz == our_rules.crystal_hz &&
           r->pm_timer_hz == our_rules.pm_timer_hz && r->pit_hz == our_rules.pit_hz &&
           r->round_quantum == our_rules.round_quantum && r->pause_yield == our_rules.pause_yield;
}

static int unpack(const Rec__Manifest *msg, struct manifest *m, const char *path,
                  struct plx_err *err)
{
    if (msg->version != MANIFEST_VERSION) {
        return plx_fail(err, PLX_EVERSION, "%s is of version %" PRIu32 ", which is not supported",
                        path, msg->version);
    }
    if (msg->rules == NULL || !copy_text(m->engine, sizeof m->engine, msg->engine) ||
        !copy_text(m->cmdline, sizeof m->cmdline, msg->cmdline) ||
        !take_file(&m->kernel, msg->kernel) || !take_file(&m->initrd, msg->initrd) ||
        !take_file(&m->state, msg->state) || !take_machine(m, msg) ||
        !is_copy(&m->kernel, "kernel") || !is_copy(&m->initrd, "initrd") ||
        !is_copy(&m->state, "state")) {
        return plx_fail(err, PLX_ECORRUPT, "%s is malformed", path);
    }
    if (!cpu_model_find(msg->cpu_model, &m->machine.cpu)) {
        return plx_fail(err, PLX_EVERSION, "%s: recorded with CPU model '%s', which is not known",
                        path, msg->cpu_model);
    }
    if (!same_rules(msg->rules)) {
        return plx_fail(err, PLX_EVERSION, "%s: recorded under other rules than this program's",
                        path);
    }
    return 0;
}

int manifest_read(const char *dir, struct manifest *m, uint64_t *origin, struct plx_err *err)
{
    char path[MANIFEST_PATH_MAX];
    uint8_t sha[SHA256_LEN];
    Rec__Manifest *msg;
    struct rbuf in;
    struct wbuf b;
    uint32_t form, len;
    int rc = path_in(path, dir, "manifest", err);

    memset(m, 0, sizeof *m);
    if (rc == 0) {
        rc = io_read_file(path, MANIFEST_MAX, &b, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (b.len < FRONT_LEN + SHA256_LEN || memcmp(b.data, magic, sizeof magic) != 0) {
        rc = plx_fail(err, b.len < FRONT_LEN + SHA256_LEN ? PLX_ETRUNCATED : PLX_ECORRUPT,
                      "%s is no manifest of a recording, or truncated", path);
        goto out;
    }
    rbuf_init(&in, b.data + sizeof magic, 8);
    form = rbuf_u32(&in);
    len = rbuf_u32(&in);
    if (form != FORM) {
        rc = plx_fail(err, PLX_EVERSION, "%s is of form %" PRIu32 ", which is not supported", path,
                      form);
        goto out;
    }
    if (b.len != FRONT_LEN + (size_t)len + SHA256_LEN) {
        rc = plx_fail(err, PLX_ETRUNCATED, "%s is truncated: %zu bytes", path, b.len);
        goto out;
    }
    sha256(b.data, b.len - SHA256_LEN, sha);
    if (memcmp(sha, b.data + b.len - SHA256_LEN, SHA256_LEN) != 0) {
        rc = plx_fail(err, PLX_ECORRUPT, "%s was altered: its SHA-256 does not match", path);
        goto out;
    }
    *origin = hash128(b.data, b.len - SHA256_LEN, ORIGIN_SEED).lo;
    msg = rec__manifest__unpack(NULL, len, b.data + FRONT_LEN);
    if (msg == NULL) {
        rc = plx_fail(err, PLX_ECORRUPT, "%s is malformed", path);
        goto out;
    }
    rc = unpack(msg, m, path, err);
    rec__manifest__free_unpacked(msg, NULL);
out:
    wbuf_free(&b);
    return rc;
}
