/* SPDX-License-Identifier: Apache-2.0
 * storage/manifest.c - see manifest.h. */
#include "storage/manifest.h"

#include <stdio.h>

#include "base/alloc.h"

static const char manifest_magic[] = "PLXMANI1", ref_magic[] = "PLXREF01",
                  profile_magic[] = "PLXPROF1";
enum { MAGIC = 8, MAGIC_KIND = 7, SEGMENT_LEAST = 2 + SHA256_LEN };

static const char name_chars[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+";

/* --- names ---------------------------------------------------------------------------------- */

/* ".tmp." is in the names of files that become names (store_dir_names.c). */
static bool good_name(const char *s, size_t len)
{
    const char *tmp = strstr(s, ".tmp.");

    return len > 0 && len < IMAGE_TEXT && s[0] != '.' && strspn(s, name_chars) >= len &&
           (tmp == NULL || tmp >= s + len);
}

int image_name_parse(const char *text, char name[IMAGE_TEXT], char tag[IMAGE_TEXT],
                     struct plx_err *err)
{
    const char *colon = strchr(text, ':');
    size_t len = colon != NULL ? (size_t)(colon - text) : strlen(text);
    const char *t = colon != NULL ? colon + 1 : "latest";

    if (!good_name(text, len) || !good_name(t, strlen(t))) {
        return plx_fail(err, PLX_EINVAL,
                        "'%s' is not NAME[:TAG] (letters, digits and .-_+, at most %d each)", text,
                        IMAGE_TEXT - 1);
    }
    (void)snprintf(name, IMAGE_TEXT, "%.*s", (int)len, text);
    (void)snprintf(tag, IMAGE_TEXT, "%s", t);
    return 0;
}

void image_name_text(const char *name, const char *tag, char out[IMAGE_NAME])
{
    (void)snprintf(out, IMAGE_NAME, "%s:%s", name, tag);
}

/* --- parts ---------------------------------------------------------------------------------- */

/* The magic's last character is the version. */
static int get_magic(struct rbuf *r, const char *magic, const char *what, struct plx_err *err)
{
    const uint8_t *p = rbuf_take(r, MAGIC);

    if (p == NULL || memcmp(p, magic, MAGIC_KIND) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "this is no %s", what);
    }
    if (p[MAGIC_KIND] != (uint8_t)magic[MAGIC_KIND]) {
        return plx_fail(err, PLX_EVERSION, "the %s is of another version: use a newer pollux",
                        what);
    }
    return 0;
}

/* What manifest and reference both begin with. */
static void put_names(struct wbuf *out, const char *name, const char *tag, const char *os,
                      const char *app)
{
    wbuf_str(out, name);
    wbuf_str(out, tag);
    wbuf_str(out, os);
    wbuf_str(out, app);
}

/* False: malformed. */
static bool get_names(struct rbuf *r, char name[IMAGE_TEXT], char tag[IMAGE_TEXT],
                      char os[IMAGE_TEXT], char app[IMAGE_APP])
{
    rbuf_str(r, name, IMAGE_TEXT);
    rbuf_str(r, tag, IMAGE_TEXT);
    rbuf_str(r, os, IMAGE_TEXT);
    rbuf_str(r, app, IMAGE_APP);
    return !r->failed && good_name(name, strlen(name)) && good_name(tag, strlen(tag));
}

static void put_blob(struct wbuf *out, const struct store_blob *b)
{
    wbuf_varint(out, b->len);
    wbuf_varint(out, b->nparts);
    for (uint32_t i = 0; i < b->nparts; i++) {
        wbuf_put(out, b->parts[i].sha, SHA256_LEN);
    }
}

/* False: malformed or no memory. */
static bool get_blob(struct rbuf *r, struct store_blob *out)
{
    uint64_t len = rbuf_varint(r), n = rbuf_varint(r);

    if (r->failed || len > MANIFEST_MAX || n != (len + STORE_BLOB_PART - 1) / STORE_BLOB_PART ||
        n > rbuf_left(r) / SHA256_LEN) {
        return false;
    }
    *out = (struct store_blob){.len = len, .nparts = (uint32_t)n};
    out->parts = plx_calloc(n + 1, sizeof *out->parts);
    for (uint64_t i = 0; i < n && out->parts != NULL; i++) {
        rbuf_get(r, out->parts[i].sha, SHA256_LEN);
    }
    return out->parts != NULL && !r->failed;
}

/* --- the manifest --------------------------------------------------------------------------- */

int manifest_put(const struct manifest *m, struct wbuf *out)
{
    wbuf_put(out, manifest_magic, MAGIC);
    put_names(out, m->name, m->tag, m->os, m->app);
    wbuf_str(out, m->cmdline);
    wbuf_varint(out, 0);
    wbuf_varint(out, m->logical_sector);
    wbuf_varint(out, m->physical_sector);
    wbuf_varint(out, (uint64_t)m->chunks);
    wbuf_varint(out, m->chunk_avg);
    for (int k = 0; k < STREAMS; k++) {
        const struct manifest_stream *s = &m->streams[k];
        uint64_t end = 0;
        wbuf_varint(out, s->bytes);
        wbuf_varint(out, s->n);
        for (size_t i = 0; i < s->n; i++) {
            wbuf_varint(out, s->segs[i].off - end);
            wbuf_varint(out, s->segs[i].len);
            wbuf_put(out, s->segs[i].id.sha, SHA256_LEN);
            end = s->segs[i].off + s->segs[i].len;
        }
    }
    return out->failed ? PLX_ENOMEM : 0;
}

static int get_stream(struct rbuf *r, struct manifest_stream *s, struct plx_err *err)
{
    uint64_t end = 0;
    uint64_t bytes = rbuf_varint(r), n = rbuf_varint(r);

    if (r->failed || bytes > IMAGE_BYTES_MAX || n > rbuf_left(r) / SEGMENT_LEAST) {
        return plx_fail(err, PLX_ECORRUPT, "the manifest is damaged: sizes do not fit");
    }
    s->bytes = bytes;
    s->segs = plx_calloc(n + 1, sizeof *s->segs);
    if (s->segs == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for a manifest");
    }
    for (s->n = 0; s->n < n; s->n++) {
        struct manifest_segment *g = &s->segs[s->n];
        uint64_t gap = rbuf_varint(r), len = rbuf_varint(r);
        rbuf_get(r, g->id.sha, SHA256_LEN);
        if (r->failed || len == 0 || len > SEG_MAX || gap > bytes - end ||
            len > bytes - end - gap) {
            return plx_fail(err, PLX_ECORRUPT, "the manifest is damaged: segment %zu", s->n);
        }
        g->off = end + gap;
        g->len = (uint32_t)len;
        end = g->off + len;
    }
    return 0;
}

static bool good_sector(uint64_t n)
{
    return n == 512 || n == 4096;
}

int manifest_get(const void *data, size_t len, struct manifest *out, struct plx_err *err)
{
    struct rbuf r;

    *out = (struct manifest){.chunk_avg = 0};
    rbuf_init(&r, data, len);
    int rc = get_magic(&r, manifest_magic, "manifest", err);
    if (rc != 0) {
        return rc;
    }
    bool named = get_names(&r, out->name, out->tag, out->os, out->app);
    rbuf_str(&r, out->cmdline, sizeof out->cmdline);
    (void)rbuf_varint(&r);
    uint64_t logical = rbuf_varint(&r), physical = rbuf_varint(&r);
    uint64_t kind = rbuf_varint(&r), avg = rbuf_varint(&r);
    if (!named || r.failed || !good_sector(logical) || !good_sector(physical) ||
        kind > CHUNK_FIXED || avg > SEG_MAX) {
        return plx_fail(err, PLX_ECORRUPT, "the manifest is damaged");
    }
    out->logical_sector = (uint32_t)logical;
    out->physical_sector = (uint32_t)physical;
    out->chunks = (enum chunk_kind)kind;
    out->chunk_avg = (uint32_t)avg;
    for (int k = 0; k < STREAMS && rc == 0; k++) {
        rc = get_stream(&r, &out->streams[k], err);
    }
    if (rc == 0 && !rbuf_done(&r)) {
        rc = plx_fail(err, PLX_ECORRUPT, "the manifest is damaged: bytes behind its end");
    }
    if (rc != 0) {
        manifest_free(out);
    }
    return rc;
}

void manifest_free(struct manifest *m)
{
    for (int k = 0; k < STREAMS; k++) {
        plx_free(m->streams[k].segs);
        m->streams[k] = (struct manifest_stream){0};
    }
}

size_t manifest_find(const struct manifest_stream *s, uint64_t off)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->segs[mid].off + s->segs[mid].len <= off) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

uint64_t manifest_data(const struct manifest_stream *s)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < s->n; i++) {
        sum += s->segs[i].len;
    }
    return sum;
}

/* --- the reference -------------------------------------------------------------------------- */

int image_ref_put(const struct image_ref *r, struct wbuf *out)
{
    wbuf_put(out, ref_magic, MAGIC);
    put_names(out, r->name, r->tag, r->os, r->app);
    wbuf_varint(out, r->bytes);
    wbuf_varint(out, r->data_bytes);
    wbuf_varint(out, r->stored_bytes);
    wbuf_varint(out, r->created_ns);
    wbuf_put(out, r->sha, sizeof r->sha);
    put_blob(out, &r->manifest);
    put_blob(out, &r->profile);
    return out->failed ? PLX_ENOMEM : 0;
}

int image_ref_get(const void *data, size_t len, struct image_ref *out, struct plx_err *err)
{
    struct rbuf r;

    *out = (struct image_ref){.bytes = 0};
    rbuf_init(&r, data, len);
    int rc = get_magic(&r, ref_magic, "reference to an image", err);
    if (rc != 0) {
        return rc;
    }
    bool named = get_names(&r, out->name, out->tag, out->os, out->app);
    out->bytes = rbuf_varint(&r);
    out->data_bytes = rbuf_varint(&r);
    out->stored_bytes = rbuf_varint(&r);
    out->created_ns = rbuf_varint(&r);
    rbuf_get(&r, out->sha, sizeof out->sha);
    if (!named || r.failed || out->bytes > IMAGE_BYTES_MAX || !get_blob(&r, &out->manifest) ||
        !get_blob(&r, &out->profile) || !rbuf_done(&r)) {
        image_ref_free(out);
        return plx_fail(err, PLX_ECORRUPT, "the reference to an image is damaged");
    }
    return 0;
}

void image_ref_free(struct image_ref *r)
{
    store_blob_free(&r->manifest);
    store_blob_free(&r->profile);
}

static int copy_blob(const struct store_blob *from, struct store_blob *to)
{
    *to = *from;
    to->parts = plx_calloc((size_t)from->nparts + 1, sizeof *to->parts);
    if (to->parts == NULL) {
        *to = (struct store_blob){0};
        return PLX_ENOMEM;
    }
    if (from->nparts > 0) {
        memcpy(to->parts, from->parts, from->nparts * sizeof *to->parts);
    }
    return 0;
}

int image_ref_copy(const struct image_ref *from, struct image_ref *to)
{
    *to = *from;
    to->profile = (struct store_blob){0};
    if (copy_blob(&from->manifest, &to->manifest) != 0 ||
        copy_blob(&from->profile, &to->profile) != 0) {
        image_ref_free(to);
        return PLX_ENOMEM;
    }
    return 0;
}

/* --- the boot profile ----------------------------------------------------------------------- */

int profile_put(const uint32_t *order, size_t n, struct wbuf *out)
{
    wbuf_put(out, profile_magic, MAGIC);
    wbuf_varint(out, n);
    for (size_t i = 0; i < n; i++) {
        wbuf_varint(out, order[i]);
    }
    return out->failed ? PLX_ENOMEM : 0;
}

int profile_get(const void *data, size_t len, size_t segments, uint32_t **order, size_t *n,
                struct plx_err *err)
{
    struct rbuf r;
    uint8_t *seen = NULL;

    *order = NULL;
    *n = 0;
    rbuf_init(&r, data, len);
    int rc = get_magic(&r, profile_magic, "boot profile", err);
    if (rc != 0) {
        return rc;
    }
    uint64_t count = rbuf_varint(&r);
    if (r.failed || count > segments || count > rbuf_left(&r)) {
        return plx_fail(err, PLX_ECORRUPT, "the boot profile is damaged");
    }
    *order = plx_calloc(count + 1, sizeof **order);
    seen = plx_calloc(segments + 1, 1);
    if (*order == NULL || seen == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "out of memory for a boot profile");
    }
    for (uint64_t i = 0; i < count && rc == 0 && seen != NULL; i++) {
        uint64_t at = rbuf_varint(&r);
        if (r.failed || at >= segments || seen[at]) {
            rc = plx_fail(err, PLX_ECORRUPT, "the boot profile is damaged");
        } else {
            seen[at] = 1;
            (*order)[i] = (uint32_t)at;
        }
    }
    if (rc == 0 && !rbuf_done(&r)) {
        rc = plx_fail(err, PLX_ECORRUPT, "the boot profile is damaged");
    }
    plx_free(seen);
    if (rc != 0) {
        plx_free(*order);
        *order = NULL;
        return rc;
    }
    *n = count;
    return 0;
}
