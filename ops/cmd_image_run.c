/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image_run.c - `pollux image run`: a VM on an image that need not be here yet. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "ops/cmd_image_net.h"
#include "ops/cmd_run.h"
#include "storage/stream.h"

enum { ANSWER_MS = 30000, PATH_CAP = 4096, ARGS_MAX = 256 };
#define REPORT_NS UINT64_C(250000000)
#define TICK_NS   UINT64_C(50000000)

struct image_vm {
    struct image_args *a;
    struct store *store, *cache; /* whichever there is */
    struct image_connection c;
    struct image_lease *lease;
    struct image_ref ref;
    struct manifest m;
    uint32_t *profile;
    size_t nprofile;
    struct stream *stream;
    struct disk_base base;
    struct wbuf kernel, initrd;
    char overlay[PATH_CAP];
    bool overlay_ours; /* removed at the end */
    uint64_t started_ns;
    FILE *progress; /* NULL: none */
    pthread_t reporter;
    volatile bool over;
};

/* --- the image ------------------------------------------------------------------------------ */

/* The client's callbacks come before there is a stream. */
static bool next(void *ctx, struct seg_id *id, enum client_urgency *urgency)
{
    const struct image_vm *v = ctx;
    struct stream *s = __atomic_load_n(&v->stream, __ATOMIC_ACQUIRE);

    return s != NULL && stream_next(s, id, urgency);
}

static void arrived(void *ctx, const struct seg_id *id, uint32_t raw_len,
                    enum client_urgency urgency)
{
    const struct image_vm *v = ctx;
    struct stream *s = __atomic_load_n(&v->stream, __ATOMIC_ACQUIRE);

    if (s != NULL) {
        stream_arrived(s, id, raw_len, urgency);
    }
}

static int open_remote(struct image_vm *v, const char *name, const char *tag, struct plx_err *err)
{
    struct image_client_config cfg = {.next = next, .arrived = arrived, .ctx = v};
    struct wbuf text;
    int rc = image_cache_open(v->a, &v->cache, err);

    if (rc != 0) {
        return rc;
    }
    cfg.store = v->cache;
    rc = image_connection_open(v->a, &v->c, &cfg, err);
    if (rc == 0) {
        rc = image_client_image(v->c.client, name, tag, ANSWER_MS, &v->ref, err);
    }
    if (rc == 0) {
        rc = store_get_blob(&v->ref.manifest, image_client_fetch, v->c.client, &text, err);
        if (rc == 0) {
            rc = image_manifest_open(&v->ref, text.data, text.len, &v->m, err);
            wbuf_free(&text);
        }
    }
    if (rc == 0 && v->ref.profile.len != 0 && !v->a->no_profile) {
        rc = store_get_blob(&v->ref.profile, image_client_fetch, v->c.client, &text, err);
        if (rc == 0) {
            rc = profile_get(text.data, text.len, v->m.streams[STREAM_DISK].n, &v->profile,
                             &v->nprofile, err);
            wbuf_free(&text);
        }
    }
    return rc;
}

static int open_local(struct image_vm *v, const char *name, const char *tag, struct plx_err *err)
{
    int rc = store_open(image_store_path(v->a), false, &v->store, err);

    if (rc == 0) {
        rc = image_lease(v->store, name, tag, &v->ref, &v->lease, err);
    }
    if (rc == 0) {
        rc = image_manifest(v->store, &v->ref, &v->m, err);
    }
    return rc;
}

static int read_base(void *ctx, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    const struct image_vm *v = ctx;

    return disk_read(stream_disk(v->stream), buf, len, off, err);
}

static int open_stream(struct image_vm *v, struct plx_err *err)
{
    struct stream_config cfg = {.name = v->a->args[0],
                                .manifest = &v->m,
                                .profile = v->profile,
                                .nprofile = v->nprofile,
                                .store = v->store,
                                .cache = v->cache,
                                .client = v->c.client};
    struct stream *s;
    uint64_t limit = (v->a->cache_mib != 0 ? v->a->cache_mib : 4096) << 20;

    /* What comes in the background must not push out what is needed. */
    cfg.no_rest = v->a->no_background ||
                  (v->cache != NULL && manifest_data(&v->m.streams[STREAM_DISK]) > limit);
    int rc = stream_open(&cfg, &s, err);
    if (rc == 0) {
        v->base = (struct disk_base){
            .bytes = v->m.streams[STREAM_DISK].bytes, .read = read_base, .ctx = v};
        __atomic_store_n(&v->stream, s, __ATOMIC_RELEASE);
        if (v->c.client != NULL) {
            image_client_poke(v->c.client);
        }
    }
    return rc;
}

/* A whole stream into memory, segments from wherever they are. */
static int read_all(struct image_vm *v, const struct manifest_stream *s, struct wbuf *out,
                    struct plx_err *err)
{
    int rc = 0;

    uint8_t *at = s->bytes == 0 ? NULL : wbuf_grow(out, s->bytes);
    if (s->bytes != 0 && at == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for the kernel");
    }
    if (at != NULL) {
        memset(at, 0, s->bytes);
    }
    /* All are asked for at once: they come one behind the other. */
    for (size_t i = 0; i < s->n && v->c.client != NULL; i++) {
        if (store_has(v->cache, &s->segs[i].id, NULL) != 1) {
            image_client_request(v->c.client, &s->segs[i].id);
        }
    }
    for (size_t i = 0; i < s->n && rc == 0; i++) {
        const struct manifest_segment *g = &s->segs[i];
        rc = v->c.client != NULL ? image_client_fetch(v->c.client, &g->id, at + g->off, g->len, err)
                                 : store_get(v->store, &g->id, at + g->off, g->len, err);
    }
    return rc;
}

/* --- overlay -------------------------------------------------------------------------------- */

static int choose_overlay(struct image_vm *v, bool *create, struct plx_err *err)
{
    struct stat st;

    if (v->a->overlay != NULL) {
        (void)snprintf(v->overlay, sizeof v->overlay, "%s", v->a->overlay);
        *create = stat(v->overlay, &st) != 0;
        return 0;
    }
    (void)snprintf(v->overlay, sizeof v->overlay, "%s/pollux-overlay.XXXXXX", image_scratch());
    if (mkdtemp(v->overlay) == NULL) {
        return plx_fail_errno(err, "cannot make %s", v->overlay);
    }
    size_t len = strlen(v->overlay);
    (void)snprintf(v->overlay + len, sizeof v->overlay - len, "/overlay");
    v->overlay_ours = true;
    *create = true;
    return 0;
}

static void remove_overlay(struct image_vm *v)
{
    if (v->overlay_ours) {
        (void)unlink(v->overlay);
        *strrchr(v->overlay, '/') = '\0';
        (void)rmdir(v->overlay);
    }
}

/* --- progress ------------------------------------------------------------------------------- */

/* Foreground: what the guest waited for. Background: its boot profile, and the rest. */
static void report(struct image_vm *v, FILE *to)
{
    struct stream_progress p;
    struct image_client_stats st = {.server = 0};
    char here[32], all[32], fg[32], prof[32], rest[32];

    stream_progress(v->stream, &p);
    if (v->c.client != NULL) {
        image_client_stats(v->c.client, &st);
    }
    (void)fprintf(
        to,
        "%.1f s: %s of %s here, %" PRIu64 " of %" PRIu64 " segments; foreground %" PRIu64
        " (%s, longest wait %.0f ms), profile %" PRIu64 " (%s) of %" PRIu64 ", background %" PRIu64
        " (%s); read %" PRIu64 " segments, unforeseen %" PRIu64 "; %" PRIu64 " bytes received",
        (double)(clock_mono_ns() - v->started_ns) / 1e9, image_size_text(p.here_bytes, here),
        image_size_text(p.bytes, all), p.here, p.segments, p.needed,
        image_size_text(p.needed_bytes, fg), (double)p.longest_wait_ns / 1e6, p.profile,
        image_size_text(p.profile_bytes, prof), p.profiled, p.rest,
        image_size_text(p.rest_bytes, rest), p.touched, p.unprofiled,
        st.got[0].bytes + st.got[1].bytes + st.got[2].bytes);
    if (v->c.client != NULL) {
        (void)fprintf(to, st.connected ? "; server %u of %u" : "; no server", st.server + 1,
                      v->a->nservers);
    }
    (void)fputc('\n', to);
    (void)fflush(to);
}

static void *reporter(void *arg)
{
    struct image_vm *v = arg;
    uint64_t last = 0;

    while (!v->over) {
        if (clock_mono_ns() - last >= REPORT_NS) {
            last = clock_mono_ns();
            report(v, v->progress);
        }
        clock_sleep_ns(TICK_NS);
    }
    return NULL;
}

/* --- running -------------------------------------------------------------------------------- */

static void stopping(void *ctx)
{
    struct image_vm *v = ctx;

    stream_stop(v->stream);
    if (v->c.client != NULL) {
        image_client_stop(v->c.client);
    }
}

/* On the server; the connection of the run is over. */
static int keep_remote(struct image_vm *v, const uint32_t *order, size_t n, struct plx_err *err)
{
    struct image_target to = {.store = NULL};
    struct image_ref now = {.bytes = 0};
    int rc = image_target_open(v->a, &to, err);

    if (rc == 0) {
        rc = image_client_image(to.c.client, v->ref.name, v->ref.tag, ANSWER_MS, &now, err);
    }
    if (rc == 0) {
        rc = image_same(&v->ref, &now, err);
    }
    if (rc == 0) {
        rc = image_put_profile(to.store, &now, &v->m, order, n, err);
    }
    image_ref_free(&now);
    image_target_close(&to);
    return rc;
}

/* What the VM read is its boot profile from now on. */
static int keep_profile(struct image_vm *v, struct plx_err *err)
{
    uint32_t *order;
    size_t n;

    if (stream_order(v->stream, &order, &n) != 0) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for a boot profile");
    }
    int rc = v->store != NULL ? image_set_profile(v->store, &v->ref, order, n, err)
                              : keep_remote(v, order, n, err);
    plx_free(order);
    if (rc == 0) {
        (void)fprintf(stderr, "pollux: boot profile of %s: %zu segments\n", v->a->args[0], n);
    }
    return rc;
}

static int run_vm(struct image_vm *v, struct plx_err *err)
{
    struct run_image image = {.name = v->a->args[0],
                              .base = &v->base,
                              .cmdline = v->m.cmdline,
                              .until = v->a->profile_until,
                              .stopping = stopping,
                              .ctx = v};
    bool reporting = false;
    int rc = choose_overlay(v, &image.create_overlay, err);

    if (rc != 0) {
        return rc;
    }
    image.overlay = v->overlay;
    image.kernel = v->kernel.data;
    image.kernel_len = v->kernel.len;
    image.initrd = v->initrd.data;
    image.initrd_len = v->initrd.len;
    if (v->a->progress != NULL) {
        v->progress = strcmp(v->a->progress, "-") == 0 ? stderr : fopen(v->a->progress, "w");
        if (v->progress == NULL) {
            return plx_fail_errno(err, "cannot write %s", v->a->progress);
        }
        reporting = pthread_create(&v->reporter, NULL, reporter, v) == 0;
    }
    int code = cmd_run_image(v->a->nrun_args, v->a->run_args, &image);
    v->over = true;
    if (reporting) {
        (void)pthread_join(v->reporter, NULL);
        report(v, v->progress);
    }
    if (v->progress != NULL && v->progress != stderr) {
        (void)fclose(v->progress);
    }
    if (v->c.client != NULL) {
        report(v, stderr);
    }
    if (code == EXIT_OK && v->a->profile_until != NULL) {
        rc = keep_profile(v, err);
    }
    remove_overlay(v);
    return rc != 0 ? rc : code;
}

static void close_vm(struct image_vm *v)
{
    image_connection_close(&v->c);
    if (v->stream != NULL) {
        (void)disk_close(stream_disk(v->stream), NULL);
    }
    image_lease_end(v->lease);
    store_close(v->store);
    store_close(v->cache);
    manifest_free(&v->m);
    image_ref_free(&v->ref);
    plx_free(v->profile);
    wbuf_free(&v->kernel);
    wbuf_free(&v->initrd);
}

int image_run(struct image_args *a, struct plx_err *err)
{
    struct image_vm v = {.a = a, .started_ns = clock_mono_ns()};
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    int rc = image_name_parse(a->args[0], name, tag, err);

    if (rc == 0 && a->nservers > 0 && a->profile_until != NULL) {
        /* Better now than when the VM has run. */
        struct image_target to = {.store = NULL};
        rc = image_target_open(a, &to, err);
        image_target_close(&to);
    }
    if (rc != 0) {
        return rc;
    }
    rc = a->nservers > 0 ? open_remote(&v, name, tag, err) : open_local(&v, name, tag, err);
    if (rc == 0) {
        rc = read_all(&v, &v.m.streams[STREAM_KERNEL], &v.kernel, err);
    }
    if (rc == 0) {
        rc = read_all(&v, &v.m.streams[STREAM_INITRD], &v.initrd, err);
    }
    if (rc == 0) {
        rc = open_stream(&v, err);
    }
    if (rc == 0) {
        rc = run_vm(&v, err);
    }
    close_vm(&v);
    return rc;
}
