/* SPDX-License-Identifier: Apache-2.0
 * replica/replay.c - see replay.h. */
#include "replica/replay.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "replica/log.h"
#include "replica/manifest.h"
#include "vmm/boot/boot.h"
#include "vmm/dev/backend/hostio.h"
#include "vmm/dev/virtio_devices.h"

enum { IMAGE_MAX = 1 << 30, NAMED_MAX = 8 /* pages named of a digest that differs */ };

struct replay {
    const struct replay_config *cfg;
    struct replay_result *res; /* own, or the caller's of replay_run */
    struct replay_result own;
    uint64_t last; /* slice to run last */
    struct manifest m;
    struct log *log;
    struct hostio *io;
    struct vm *vm;
    struct output_list out;
    char tmp[64]; /* directory of the overlays; empty: none */
    char overlays[DISKS_MAX][96];
    FILE *digests;
};

/* --- opening ------------------------------------------------------------------------------------
 */

static int copy_path(const struct replay *r, const char *name, char out[MANIFEST_PATH_MAX + 16])
{
    return snprintf(out, MANIFEST_PATH_MAX + 16, "%s/%s", r->cfg->dir, name);
}

static int check_copy(const struct replay *r, const struct manifest_file *f, struct plx_err *err)
{
    char path[MANIFEST_PATH_MAX + 16];

    if (f->name[0] == '\0') {
        return 0;
    }
    (void)copy_path(r, f->name, path);
    return manifest_check_file(path, f, err);
}

static int check_files(const struct replay *r, struct plx_err *err)
{
    int rc = check_copy(r, &r->m.kernel, err);

    if (rc == 0) {
        rc = check_copy(r, &r->m.initrd, err);
    }
    if (rc == 0) {
        rc = check_copy(r, &r->m.state, err);
    }
    for (unsigned i = 0; rc == 0 && i < r->m.machine.ndisks; i++) {
        rc = manifest_check_file(r->m.disks[i].name, &r->m.disks[i], err);
        if (rc != 0) {
            rc = plx_err_wrap(err, rc, "base of disk %u", i);
        }
    }
    return rc;
}

static int open_disks(struct replay *r, struct plx_err *err)
{
    struct hostio_config io = {.ndisks = r->m.machine.ndisks, .nnics = r->m.machine.nnics};
    const char *base = getenv("TMPDIR");

    if (r->m.machine.ndisks > 0) {
        if (snprintf(r->tmp, sizeof r->tmp, "%s/pollux-replay-XXXXXX",
                     base != NULL && strlen(base) < 32 ? base : "/tmp") < 0 ||
            mkdtemp(r->tmp) == NULL) {
            r->tmp[0] = '\0';
            return plx_fail_errno(err, "cannot create a directory for overlays");
        }
    }
    for (unsigned i = 0; i < r->m.machine.ndisks; i++) {
        (void)snprintf(r->overlays[i], sizeof r->overlays[i], "%s/overlay-%u", r->tmp, i);
        io.disks[i] = (struct hostio_disk){
            .path = r->m.disks[i].name,
            .overlay = r->m.machine.disks[i].readonly ? NULL : r->overlays[i],
            .create_overlay = !r->m.machine.disks[i].readonly,
            .readonly = r->m.machine.disks[i].readonly,
        };
    }
    return hostio_create(&io, &r->io, err);
}

static int boot_kernel(struct replay *r, struct plx_err *err)
{
    char path[MANIFEST_PATH_MAX + 16];
    struct boot_config boot = {.cmdline = r->m.cmdline};
    struct wbuf kernel, initrd;
    int rc;

    wbuf_init(&kernel);
    wbuf_init(&initrd);
    (void)copy_path(r, r->m.kernel.name, path);
    rc = io_read_file(path, IMAGE_MAX, &kernel, err);
    if (rc == 0 && r->m.initrd.name[0] != '\0') {
        (void)copy_path(r, r->m.initrd.name, path);
        rc = io_read_file(path, IMAGE_MAX, &initrd, err);
        boot.initrd = (struct boot_image){initrd.data, initrd.len};
    }
    if (rc == 0) {
        boot.kernel = (struct boot_image){kernel.data, kernel.len};
        rc = boot_load(vm_machine(r->vm), &vm_vcpu(r->vm, 0)->c, &boot, err);
    }
    wbuf_free(&kernel);
    wbuf_free(&initrd);
    if (rc == 0) {
        r->cfg->engine->state_changed(vm_vcpu(r->vm, 0));
    }
    return rc;
}

static int load_state(struct replay *r, struct plx_err *err)
{
    char path[MANIFEST_PATH_MAX + 16];
    int rc;

    (void)copy_path(r, r->m.state.name, path);
    rc = vm_load(r->vm, path, err);
    if (rc == 0) {
        virtio_blk_reissue(vm_machine(r->vm), &r->out);
        rc = hostio_submit(r->io, &r->out, err);
        output_list_clear(&r->out);
    }
    return rc;
}

static int check_sections(const struct replay *r, struct plx_err *err)
{
    const struct machine *m = vm_machine(r->vm);

    for (unsigned i = 0; i < m->ndevices || i < r->m.nsections; i++) {
        if (i >= m->ndevices || i >= r->m.nsections ||
            strcmp(m->devices[i].name, r->m.sections[i].name) != 0 ||
            m->devices[i].version != r->m.sections[i].version) {
            return plx_fail(err, PLX_EVERSION,
                            "recorded with device '%s' where this program has '%s', or with "
                            "another version of it",
                            i < r->m.nsections ? r->m.sections[i].name : "none",
                            i < m->ndevices ? m->devices[i].name : "none");
        }
    }
    return 0;
}

/* Whether flags are owed is state of several vCPUs: as recorded, or not at all. */
static int settle_lazy_ad(const struct replay *r, struct shadow_config *shadow, struct plx_err *err)
{
    bool recorded = !r->m.eager_ad;

    if (r->m.machine.vcpus == 1) {
        return 0;
    }
    if (r->cfg->lazy_ad_named && shadow->lazy_ad != recorded) {
        return plx_fail(err, PLX_EINVAL, "%s was recorded with lazy-ad=%s, not %s", r->cfg->dir,
                        recorded ? "on" : "off", recorded ? "off" : "on");
    }
    shadow->lazy_ad = recorded;
    return 0;
}

static int open_all(struct replay *r, struct plx_err *err)
{
    struct shadow_config shadow = r->cfg->shadow.batch != 0 ? r->cfg->shadow : SHADOW_DEFAULT;
    struct vm_config vc = {.engine = r->cfg->engine,
                           .cache_entries = r->cfg->cache_entries,
                           .shadow = &shadow,
                           .chaos = r->cfg->chaos,
                           .threads = r->cfg->threads};
    uint64_t origin;
    int rc = manifest_read(r->cfg->dir, &r->m, &origin, err);

    if (rc == 0 && r->cfg->cpu_model != NULL &&
        strcmp(r->cfg->cpu_model, cpu_model_name(r->m.machine.cpu)) != 0) {
        rc = plx_fail(err, PLX_EINVAL, "%s was recorded with CPU model %s, not %s", r->cfg->dir,
                      cpu_model_name(r->m.machine.cpu), r->cfg->cpu_model);
    }
    if (rc == 0) {
        rc = settle_lazy_ad(r, &shadow, err);
    }
    if (rc == 0) {
        rc = check_files(r, err);
    }
    if (rc == 0) {
        rc = log_open(r->cfg->dir, origin, &r->log, err);
    }
    if (rc == 0) {
        rc = open_disks(r, err);
    }
    if (rc != 0) {
        return rc;
    }
    r->res->sealed = log_sealed(r->log);
    vc.machine = r->m.machine;
    vc.host = (struct machine_host){.disk_result = hostio_disk_result, .ctx = r->io};
    rc = vm_create(&vc, &r->vm, err);
    if (rc == 0) {
        rc = check_sections(r, err);
    }
    if (rc == 0) {
        rc = r->m.state.name[0] != '\0' ? load_state(r, err) : boot_kernel(r, err);
    }
    if (rc == 0 && r->cfg->digest_log != NULL) {
        r->digests = fopen(r->cfg->digest_log, "we");
        if (r->digests == NULL) {
            rc = plx_fail_errno(err, "cannot create %s", r->cfg->digest_log);
        }
    }
    return rc;
}

static void close_all(struct replay *r)
{
    vm_destroy(r->vm);
    hostio_destroy(r->io);
    for (unsigned i = 0; r->tmp[0] != '\0' && i < r->m.machine.ndisks; i++) {
        (void)unlink(r->overlays[i]);
    }
    if (r->tmp[0] != '\0') {
        (void)rmdir(r->tmp);
    }
    (void)log_close(r->log, NULL);
    output_list_free(&r->out);
    if (r->digests != NULL) {
        (void)fclose(r->digests);
    }
}

/* --- digests ------------------------------------------------------------------------------------
 */

__attribute__((format(printf, 3, 4))) static void append(char *to, size_t cap, const char *fmt, ...)
{
    size_t len = strlen(to);
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(to + len, cap - len, fmt, ap);
    va_end(ap);
}

/* Which sections and pages differ. Pages are comparable where both sides hashed them. */
static void name_difference(struct replay *r, const struct vm_digest *have,
                            const struct digest_page *pages, size_t npages, struct log_digest *want)
{
    char *what = r->res->what;
    size_t cap = sizeof r->res->what, k = 0;
    unsigned named = 0;
    uint16_t hash;
    gpa_t gpa;

    for (unsigned i = 0; i < have->nsections && i < want->nsections; i++) {
        if ((uint32_t)have->sections[i].hash.lo != want->sections[i]) {
            append(what, cap, "%ssection %s", what[0] == '\0' ? "" : ", ", have->sections[i].name);
        }
    }
    while (named < NAMED_MAX && log_digest_page(want, &gpa, &hash)) {
        while (k < npages && pages[k].gpa < gpa) {
            k++;
        }
        if (k < npages && pages[k].gpa == gpa && (uint16_t)pages[k].hash.lo != hash) {
            append(what, cap, "%spage %#" PRIx64, what[0] == '\0' ? "" : ", ", gpa);
            named++;
        }
    }
    if (named == NAMED_MAX) {
        append(what, cap, " and perhaps more");
    }
    if (what[0] == '\0' && have->ram.lo != want->ram) {
        append(what, cap, "RAM, in a page that was not hashed on both sides");
    }
    if (what[0] == '\0') {
        append(what, cap, "the digest itself");
    }
}

/* Compare the digest logged for the slice that has just run, if there is one. */
static int compare_digest(struct replay *r, struct plx_err *err)
{
    const struct digest_page *pages;
    struct log_digest want;
    struct vm_digest have;
    char hex[HASH128_HEX];
    size_t npages;
    uint64_t seq = vm_seq(r->vm);
    int found = log_get_digest(r->log, seq, &want, err);
    bool extra = r->digests != NULL && r->cfg->digest_every != 0 && seq % r->cfg->digest_every == 0;

    if (found < 0) {
        return found;
    }
    if (found == 0 && !extra) {
        return 0;
    }
    vm_digest(r->vm, vm_scrub_pages(r->vm), &have, &pages, &npages);
    if (r->digests != NULL) {
        (void)fprintf(r->digests, "%" PRIu64 " %s\n", seq, hash128_hex(have.all, hex));
    }
    if (found == 0) {
        return 0;
    }
    r->res->compared++;
    if (!hash128_eq(have.all, want.all)) {
        if (r->res->differ == 0) {
            r->res->first_differing = seq;
            name_difference(r, &have, pages, npages, &want);
        }
        r->res->differ++;
    }
    return 0;
}

/* --- running ------------------------------------------------------------------------------------
 */

static int run_slice(struct replay *r, uint64_t seq, struct plx_err *err)
{
    struct input *inputs;
    struct record rec;
    const void *bytes;
    size_t len;
    int rc = log_get(r->log, seq, &bytes, &len, err);

    if (rc != 0) {
        return rc;
    }
    rc = record_decode(bytes, len, &rec, &inputs, err);
    if (rc == 0 && rec.seq != seq) {
        rc = plx_fail(err, PLX_ECORRUPT, "it says that it is record %" PRIu64, rec.seq);
    }
    if (rc != 0) {
        plx_free(inputs);
        return plx_err_wrap(err, rc, "record %" PRIu64, seq);
    }
    output_list_clear(&r->out);
    rc = vm_slice(r->vm, &rec, &r->out, err);
    plx_free(inputs);
    if (rc == 0) {
        rc = hostio_submit(r->io, &r->out, err);
    }
    if (rc == 0) {
        r->res->slices++;
        rc = compare_digest(r, err);
    }
    if (rc == 0 && r->cfg->slice != NULL) {
        rc = r->cfg->slice(r->cfg->ctx, r->vm, &r->out, err);
    }
    return rc;
}

static int begin(struct replay *r, struct plx_err *err)
{
    uint64_t seq = vm_seq(r->vm) + 1;
    int rc;

    /* The digest of the state it begins with counts only when it differs: nothing has run yet. */
    rc = compare_digest(r, err);
    if (rc != 0) {
        return rc;
    }
    if (r->res->differ == 0) {
        r->res->compared = 0;
    }
    r->last = log_last(r->log);
    if (r->last != 0 && log_first(r->log) != seq) {
        return plx_fail(err, PLX_ECORRUPT,
                        "the log begins with record %" PRIu64 "; the state needs %" PRIu64,
                        log_first(r->log), seq);
    }
    if (r->cfg->until != 0 && r->cfg->until < r->last) {
        r->last = r->cfg->until;
    }
    return 0;
}

static int open_into(const struct replay_config *cfg, struct replay_result *res,
                     struct replay **out, struct plx_err *err)
{
    struct replay *r = plx_calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (r == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    r->cfg = cfg;
    r->res = res != NULL ? res : &r->own;
    output_list_init(&r->out);
    rc = open_all(r, err);
    if (rc == 0) {
        rc = begin(r, err);
    }
    if (rc != 0) {
        replay_close(r);
        return plx_err_wrap(err, rc, "cannot replay %s", cfg->dir);
    }
    *out = r;
    return 0;
}

int replay_open(const struct replay_config *cfg, struct replay **out, struct plx_err *err)
{
    return open_into(cfg, NULL, out, err);
}

void replay_close(struct replay *r)
{
    if (r != NULL) {
        close_all(r);
        plx_free(r);
    }
}

struct vm *replay_vm(struct replay *r)
{
    return r->vm;
}

const struct replay_result *replay_result(const struct replay *r)
{
    return r->res;
}

int replay_peek(struct replay *r, const void **record, size_t *len, struct plx_err *err)
{
    int rc;

    if (vm_seq(r->vm) >= r->last) {
        return 0;
    }
    rc = log_get(r->log, vm_seq(r->vm) + 1, record, len, err);
    return rc != 0 ? plx_err_wrap(err, rc, "cannot replay %s", r->cfg->dir) : 1;
}

int replay_step(struct replay *r, struct plx_err *err)
{
    int rc;

    if (vm_seq(r->vm) >= r->last) {
        return 0;
    }
    rc = run_slice(r, vm_seq(r->vm) + 1, err);
    return rc != 0 ? plx_err_wrap(err, rc, "cannot replay %s", r->cfg->dir) : 1;
}

int replay_run(const struct replay_config *cfg, struct replay_result *out, struct plx_err *err)
{
    struct replay *r;
    int rc;

    *out = (struct replay_result){.slices = 0};
    rc = open_into(cfg, out, &r, err);
    if (rc != 0) {
        return rc;
    }
    do {
        rc = replay_step(r, err);
    } while (rc > 0);
    out->stopped = vm_stopped(r->vm, &out->event, &out->code);
    replay_close(r);
    return rc;
}

int replay_verdict(const struct replay_result *r, struct plx_err *err)
{
    if (r->differ != 0) {
        return plx_fail(err, PLX_EDIVERGED,
                        "the first digest that differs is that of slice %" PRIu64 ": %s",
                        r->first_differing, r->what);
    }
    if (r->compared == 0) {
        return plx_fail(err, PLX_ESTATE, "no digest was compared: nothing is shown");
    }
    return 0;
}
