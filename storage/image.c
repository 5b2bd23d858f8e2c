/* SPDX-License-Identifier: Apache-2.0
 * storage/image.c - images in a store by their names: finding, tagging, sweeping, checking, writing
 * out (image.h). */
#include "storage/image.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"

enum { BATCH = 64 }; /* segments a thread takes at a time when writing out */

/* --- by name -------------------------------------------------------------------------------- */

int image_find(struct store *s, const char *name, const char *tag, struct image_ref *out,
               struct plx_err *err)
{
    char text[IMAGE_NAME];
    struct wbuf value;

    image_name_text(name, tag, text);
    int rc = store_ops(s)->name_get(store_self(s), text, &value, err);
    if (rc == PLX_ENOENT) {
        return plx_fail(err, rc, "no image %s (`pollux image list` names all)", text);
    }
    if (rc == 0) {
        rc = image_ref_get(value.data, value.len, out, err);
        wbuf_free(&value);
        rc = rc != 0 ? plx_err_wrap(err, rc, "image %s", text) : 0;
    }
    return rc;
}

int image_manifest_open(const struct image_ref *ref, const void *data, size_t len,
                        struct manifest *out, struct plx_err *err)
{
    uint8_t sha[SHA256_LEN];

    sha256(data, len, sha);
    int rc = memcmp(sha, ref->sha, sizeof sha) != 0
                 ? plx_fail(err, PLX_ECORRUPT, "the manifest is not the one that was pushed")
                 : manifest_get(data, len, out, err);
    return rc != 0 ? plx_err_wrap(err, rc, "image %s:%s", ref->name, ref->tag) : 0;
}

int image_manifest(struct store *s, const struct image_ref *ref, struct manifest *out,
                   struct plx_err *err)
{
    struct wbuf text;
    int rc = store_get_blob(&ref->manifest, store_get_here, s, &text, err);

    if (rc != 0) {
        return plx_err_wrap(err, rc, "manifest of image %s:%s", ref->name, ref->tag);
    }
    rc = image_manifest_open(ref, text.data, text.len, out, err);
    wbuf_free(&text);
    return rc;
}

struct each {
    int (*each)(void *ctx, const char *name, const struct image_ref *ref);
    void *ctx;
};

static int on_name(void *ctx, const char *name, const void *value, size_t len)
{
    const struct each *e = ctx;
    struct image_ref ref;

    if (value == NULL || image_ref_get(value, len, &ref, NULL) != 0) {
        return e->each(e->ctx, name, NULL);
    }
    int rc = e->each(e->ctx, name, &ref);
    image_ref_free(&ref);
    return rc;
}

int image_each(struct store *s,
               int (*each)(void *ctx, const char *name, const struct image_ref *ref), void *ctx,
               struct plx_err *err)
{
    struct each e = {.each = each, .ctx = ctx};

    return store_ops(s)->name_each(store_self(s), on_name, &e, err);
}

static bool given(const char *s)
{
    return s != NULL && *s != '\0';
}

static bool one_of(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (const char *p = list; *p != '\0';) {
        size_t n = strcspn(p, ", ");
        if (n == len && strncasecmp(p, word, n) == 0) {
            return true;
        }
        p += n;
        p += strspn(p, ", ");
    }
    return false;
}

bool image_matches(const struct image_ref *ref, const char *pattern, const char *os,
                   const char *app)
{
    char name[IMAGE_NAME];

    image_name_text(ref->name, ref->tag, name);
    return (!given(pattern) || strcasestr(name, pattern) != NULL) &&
           (!given(os) || strcasecmp(ref->os, os) == 0) && (!given(app) || one_of(ref->app, app));
}

int image_tag(struct store *s, const struct image_ref *ref, const char *name, const char *tag,
              struct plx_err *err)
{
    struct manifest m = {.chunk_avg = 0};
    struct image_ref other;
    int rc = image_manifest(s, ref, &m, err);

    if (rc != 0) {
        return rc;
    }
    other = *ref; /* its blobs are borrowed */
    (void)snprintf(other.name, sizeof other.name, "%s", name);
    (void)snprintf(other.tag, sizeof other.tag, "%s", tag);
    rc = image_adopt(s, &other, &m, NULL, err);
    manifest_free(&m);
    return rc;
}

int image_remove(struct store *s, const char *name, const char *tag, struct plx_err *err)
{
    char text[IMAGE_NAME];

    image_name_text(name, tag, text);
    int rc = store_ops(s)->name_del(store_self(s), text, err);
    return rc == PLX_ENOENT ? plx_fail(err, rc, "no image %s", text) : rc;
}

int image_same(const struct image_ref *was, const struct image_ref *now, struct plx_err *err)
{
    return memcmp(now->sha, was->sha, sizeof now->sha) == 0
               ? 0
               : plx_fail(err, PLX_ESTALE, "image %s:%s was replaced meanwhile", was->name,
                          was->tag);
}

int image_put_profile(struct store *s, struct image_ref *now, const struct manifest *m,
                      const uint32_t *order, size_t n, struct plx_err *err)
{
    struct wbuf text;

    wbuf_init(&text);
    int rc = profile_put(order, n, &text) != 0
                 ? plx_fail(err, PLX_ENOMEM, "out of memory for a boot profile")
                 : 0;
    if (rc == 0) {
        store_blob_free(&now->profile);
        rc = store_put_blob(s, text.data, text.len, &now->profile, err);
    }
    wbuf_free(&text);
    return rc != 0 ? rc : image_adopt(s, now, m, NULL, err);
}

int image_set_profile(struct store *s, const struct image_ref *ref, const uint32_t *order, size_t n,
                      struct plx_err *err)
{
    struct image_ref now;
    struct manifest m = {.chunk_avg = 0};
    int rc = image_find(s, ref->name, ref->tag, &now, err);

    if (rc != 0) {
        return rc;
    }
    rc = image_same(ref, &now, err);
    if (rc == 0) {
        rc = image_manifest(s, &now, &m, err);
    }
    if (rc == 0) {
        rc = image_put_profile(s, &now, &m, order, n, err);
    }
    manifest_free(&m);
    image_ref_free(&now);
    return rc;
}

int image_profile(struct store *s, const struct image_ref *ref, size_t segments, uint32_t **order,
                  size_t *n, struct plx_err *err)
{
    struct wbuf text;

    *order = NULL;
    *n = 0;
    if (ref->profile.len == 0) {
        return 0;
    }
    int rc = store_get_blob(&ref->profile, store_get_here, s, &text, err);
    if (rc == 0) {
        rc = profile_get(text.data, text.len, segments, order, n, err);
        wbuf_free(&text);
    }
    return rc != 0 ? plx_err_wrap(err, rc, "boot profile of %s:%s", ref->name, ref->tag) : 0;
}

/* --- leases --------------------------------------------------------------------------------- */

struct image_lease {
    struct store *s;
    void *held;
};

/* The name is looked up again once the lease is there: if it still is the same, no sweep that did
 * not see the lease can come after the name is gone. */
int image_lease(struct store *s, const char *name, const char *tag, struct image_ref *ref,
                struct image_lease **out, struct plx_err *err)
{
    struct image_lease *l = plx_calloc(1, sizeof *l);
    bool sure = false;
    int rc = 0;

    *out = NULL;
    if (l == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for a lease");
    }
    l->s = s;
    while (rc == 0 && !sure) {
        struct image_ref again;
        struct wbuf value;
        rc = image_find(s, name, tag, ref, err);
        if (rc != 0) {
            break;
        }
        wbuf_init(&value);
        rc = image_ref_put(ref, &value) != 0
                 ? plx_fail(err, PLX_ENOMEM, "out of memory for a lease")
                 : store_ops(s)->lease(store_self(s), value.data, value.len, &l->held, err);
        wbuf_free(&value);
        if (rc == 0) {
            rc = image_find(s, name, tag, &again, err);
        }
        if (rc == 0) {
            sure = memcmp(again.sha, ref->sha, sizeof again.sha) == 0;
            image_ref_free(&again);
        }
        if (!sure) {
            image_ref_free(ref);
            store_ops(s)->lease_end(store_self(s), l->held);
            l->held = NULL;
        }
    }
    if (rc != 0) {
        plx_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void image_lease_end(struct image_lease *l)
{
    if (l != NULL) {
        store_ops(l->s)->lease_end(store_self(l->s), l->held);
        plx_free(l);
    }
}

/* --- sweeping ------------------------------------------------------------------------------- */

struct marking {
    struct store *s;
    struct seg_set *live;
    struct plx_err *err;
};

static int mark_blob(struct marking *k, const struct store_blob *b)
{
    for (uint32_t i = 0; i < b->nparts; i++) {
        if (seg_set_add(k->live, &b->parts[i]) != 0) {
            return PLX_ENOMEM;
        }
    }
    return 0;
}

static int mark_ref(struct marking *k, const struct image_ref *ref)
{
    struct manifest m = {.chunk_avg = 0};
    int rc = image_manifest(k->s, ref, &m, k->err);

    if (rc != 0) {
        return rc;
    }
    rc = mark_blob(k, &ref->manifest);
    rc = rc != 0 ? rc : mark_blob(k, &ref->profile);
    for (int i = 0; i < STREAMS; i++) {
        for (size_t n = 0; n < m.streams[i].n && rc == 0; n++) {
            rc = seg_set_add(k->live, &m.streams[i].segs[n].id);
        }
    }
    manifest_free(&m);
    return rc == PLX_ENOMEM ? plx_fail(k->err, rc, "gc: out of memory") : rc;
}

static int mark_name(void *ctx, const char *name, const struct image_ref *ref)
{
    struct marking *k = ctx;

    if (ref == NULL) {
        return plx_fail(k->err, PLX_ECORRUPT,
                        "image %s is damaged, so what it needs cannot be kept: "
                        "`pollux image rm` it or push it again",
                        name);
    }
    return mark_ref(k, ref);
}

static int mark_lease(void *ctx, const void *value, size_t len)
{
    struct marking *k = ctx;
    struct image_ref ref;

    if (image_ref_get(value, len, &ref, NULL) != 0) {
        return 0;
    }
    int rc = mark_ref(k, &ref);
    image_ref_free(&ref);
    return rc;
}

static int mark(void *ctx, struct seg_set *live, struct plx_err *err)
{
    struct store *s = ctx;
    struct marking k = {.s = s, .live = live, .err = err};
    int rc = image_each(s, mark_name, &k, err);

    return rc != 0 ? rc : store_ops(s)->lease_each(store_self(s), mark_lease, &k, err);
}

int image_gc(struct store *s, struct seg_sweep *out, struct plx_err *err)
{
    return store_ops(s)->sweep(store_self(s), mark, s, out, err);
}

/* --- checking ------------------------------------------------------------------------------- */

struct verify {
    struct store *s;
    void (*damage)(void *ctx, const char *text);
    void *ctx;
    uint64_t faults;
    struct image_progress *totals;
    struct seg_set bad;
    uint8_t *buf; /* SEG_MAX */
    struct plx_err *err;
};

static void report(struct verify *v, const char *where, const char *what)
{
    char text[PLX_ERR_MSG_MAX + 256];

    (void)snprintf(text, sizeof text, "%s: %s", where, what);
    v->faults++;
    v->damage(v->ctx, text);
}

static void on_damage(void *ctx, const char *where, const struct seg_id *id, const char *what)
{
    struct verify *v = ctx;

    report(v, where, what);
    if (id != NULL) {
        (void)seg_set_add(&v->bad, id);
    }
}

static int on_segment(void *ctx, const struct seg_id *id, const struct seg_form *form,
                      const char *where)
{
    struct verify *v = ctx;
    struct plx_err why;

    v->totals->segments++;
    v->totals->data_bytes += form->raw_len;
    v->totals->stored_bytes += form->stored_len;
    if (store_open_form(id, form, v->buf, &why) != 0) {
        on_damage(v, where, id, why.msg);
    }
    return 0;
}

/* An image is whole when all it leads to is there, undamaged and of the right length. */
static int verify_image(void *ctx, const char *name, const struct image_ref *ref)
{
    struct verify *v = ctx;
    struct manifest m = {.chunk_avg = 0};
    struct plx_err why;
    char where[IMAGE_NAME + 32];
    uint64_t missing = 0, damaged = 0;

    (void)snprintf(where, sizeof where, "image %s", name);
    if (ref == NULL) {
        report(v, where, "its reference is damaged");
        return 0;
    }
    if (image_manifest(v->s, ref, &m, &why) != 0) {
        report(v, where, why.msg);
        return 0;
    }
    for (int k = 0; k < STREAMS; k++) {
        for (size_t i = 0; i < m.streams[k].n; i++) {
            const struct seg_id *id = &m.streams[k].segs[i].id;
            damaged += seg_set_has(&v->bad, id);
            missing += store_has(v->s, id, &why) != 1;
        }
    }
    manifest_free(&m);
    if (missing + damaged > 0) {
        (void)snprintf(why.msg, sizeof why.msg,
                       "%llu of its segments are missing, %llu damaged: push it again",
                       (unsigned long long)missing, (unsigned long long)damaged);
        report(v, where, why.msg);
    }
    return 0;
}

int image_verify(struct store *s, void (*damage)(void *ctx, const char *text), void *ctx,
                 uint64_t *faults, struct image_progress *totals, struct plx_err *err)
{
    struct verify v = {.s = s, .damage = damage, .ctx = ctx, .totals = totals, .err = err};

    *totals = (struct image_progress){0};
    v.buf = plx_calloc(1, SEG_MAX);
    int rc = v.buf == NULL ? plx_fail(err, PLX_ENOMEM, "verify: out of memory")
                           : store_ops(s)->each(store_self(s), on_segment, on_damage, &v, err);
    if (rc == 0) {
        rc = image_each(s, verify_image, &v, err);
    }
    *faults = v.faults;
    seg_set_free(&v.bad);
    plx_free(v.buf);
    return rc;
}

/* --- writing out ---------------------------------------------------------------------------- */

struct export
{
    struct store *s;
    const struct manifest_stream *stream;
    int fd;
    image_progress_fn progress;
    void *ctx;
    pthread_mutex_t lock; /* of all below */
    size_t next;
    struct image_progress totals;
    int rc;
    struct plx_err err;
};

static int write_batch(struct export *x, size_t first, size_t end, uint8_t *buf,
                       struct plx_err *err)
{
    int rc = 0;

    for (size_t i = first; i < end && rc == 0; i++) {
        const struct manifest_segment *g = &x->stream->segs[i];
        rc = store_get(x->s, &g->id, buf, g->len, err);
        if (rc == 0 && io_pwrite_full(x->fd, buf, g->len, g->off) != 0) {
            rc = plx_fail_errno(err, "cannot write the image");
        }
    }
    return rc;
}

static void *export_worker(void *arg)
{
    struct export *x = arg;
    const struct manifest_stream *s = x->stream;
    uint8_t *buf = plx_calloc(1, SEG_MAX);
    struct plx_err err = {{0}};

    (void)pthread_mutex_lock(&x->lock);
    while (x->rc == 0 && x->next < s->n) {
        size_t first = x->next, end = s->n - first < BATCH ? s->n : first + BATCH;
        x->next = end;
        (void)pthread_mutex_unlock(&x->lock);
        int rc = buf == NULL ? plx_fail(&err, PLX_ENOMEM, "export: out of memory")
                             : write_batch(x, first, end, buf, &err);
        (void)pthread_mutex_lock(&x->lock);
        for (size_t i = first; i < end; i++) {
            x->totals.data_bytes += s->segs[i].len;
            x->totals.segments++;
        }
        uint64_t at = s->segs[end - 1].off + s->segs[end - 1].len;
        x->totals.bytes = at > x->totals.bytes ? at : x->totals.bytes;
        if (rc == 0 && x->progress != NULL && x->progress(x->ctx, &x->totals) != 0) {
            rc = plx_fail(&err, PLX_ECANCELED, "stopped");
        }
        if (rc != 0 && x->rc == 0) {
            x->rc = rc;
            x->err = err;
        }
    }
    (void)pthread_mutex_unlock(&x->lock);
    plx_free(buf);
    return NULL;
}

int image_export(struct store *s, const struct manifest_stream *stream, int fd, unsigned threads,
                 image_progress_fn progress, void *ctx, struct plx_err *err)
{
    struct export x = {.s = s,
                       .stream = stream,
                       .fd = fd,
                       .progress = progress,
                       .ctx = ctx,
                       .totals = {.total = stream->bytes}};
    pthread_t tids[16];
    unsigned n = image_threads(threads), started = 0;
    sigset_t all, old;

    if (ftruncate(fd, (off_t)stream->bytes) != 0) {
        return plx_fail_errno(err, "cannot size the image");
    }
    (void)pthread_mutex_init(&x.lock, NULL);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (started + 1 < n && started < 16 &&
           pthread_create(&tids[started], NULL, export_worker, &x) == 0) {
        started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)export_worker(&x);
    while (started > 0) {
        (void)pthread_join(tids[--started], NULL);
    }
    (void)pthread_mutex_destroy(&x.lock);
    if (x.rc != 0 && err != NULL) {
        *err = x.err;
    }
    return x.rc;
}
