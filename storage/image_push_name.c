/* SPDX-License-Identifier: Apache-2.0
 * storage/image_push_name.c - the name of a pushed or pulled image: set when everything that it
 * leads to is in the store. What a sweep took meanwhile is put again, from where it came. */
#include "storage/image_push_priv.h"

#include "base/alloc.h"
#include "base/io.h"

enum { NAME_TRIES = 100 };

static int list_ids(const struct manifest *m, const struct image_ref *ref, struct seg_id **out,
                    size_t *n)
{
    *n = ref->manifest.nparts + (size_t)ref->profile.nparts;
    for (int k = 0; k < STREAMS; k++) {
        *n += m->streams[k].n;
    }
    struct seg_id *ids = plx_calloc(*n + 1, sizeof *ids);
    *out = ids;
    if (ids == NULL) {
        return PLX_ENOMEM;
    }
    for (int k = 0; k < STREAMS; k++) {
        for (size_t i = 0; i < m->streams[k].n; i++) {
            *ids++ = m->streams[k].segs[i].id;
        }
    }
    for (uint32_t i = 0; i < ref->manifest.nparts; i++) {
        *ids++ = ref->manifest.parts[i];
    }
    for (uint32_t i = 0; i < ref->profile.nparts; i++) {
        *ids++ = ref->profile.parts[i];
    }
    return 0;
}

/* One try to set the name: 0, an error, or 1 with *missing. */
static int try_name(struct store *s, const struct image_ref *ref, const struct manifest *m,
                    size_t *missing, struct plx_err *err)
{
    char name[IMAGE_NAME];
    struct seg_id *ids = NULL;
    struct wbuf value;
    size_t n;
    int rc;

    wbuf_init(&value);
    image_name_text(ref->name, ref->tag, name);
    if (image_ref_put(ref, &value) != 0 || list_ids(m, ref, &ids, &n) != 0) {
        rc = push_no_memory(err);
    } else if (value.len > NAME_VALUE_MAX) {
        rc = plx_fail(err, PLX_ERANGE, "image %s has too many segments", name);
    } else {
        rc = store_ops(s)->name_put(store_self(s), name, value.data, value.len, ids, n, missing,
                                    err);
    }
    wbuf_free(&value);
    plx_free(ids);
    return rc;
}

int image_adopt(struct store *s, const struct image_ref *ref, const struct manifest *m,
                struct seg_id *missing, struct plx_err *err)
{
    struct seg_id *ids = NULL;
    size_t at, n;
    int rc = try_name(s, ref, m, &at, err);

    if (rc <= 0) {
        return rc;
    }
    if (missing != NULL) {
        if (list_ids(m, ref, &ids, &n) != 0) {
            return push_no_memory(err);
        }
        *missing = ids[at];
        plx_free(ids);
    }
    return plx_fail(err, PLX_ENOENT, "image %s:%s: a segment is missing", ref->name, ref->tag);
}

/* Where everything a manifest was made of can be read again. */
struct sources {
    struct disk *disk;
    const struct wbuf *text; /* the encoded manifest */
};

/* Put what a sweep took: segment number @missing of list_ids. */
static int restore(struct push *p, const struct sources *from, const struct manifest *m,
                   size_t missing, struct plx_err *err)
{
    const char *const files[STREAMS] = {NULL, p->cfg->kernel, p->cfg->initrd};

    for (int k = 0; k < STREAMS; k++) {
        const struct manifest_stream *s = &m->streams[k];
        if (missing >= s->n) {
            missing -= s->n;
            continue;
        }
        if (k == STREAM_DISK) {
            p->src = (struct push_source){.disk = from->disk, .bytes = s->bytes};
            return push_again(p, &s->segs[missing], err);
        }
        struct wbuf file;
        int rc = io_read_file(files[k], PUSH_FILE_MAX, &file, err);
        if (rc == 0) {
            p->src = (struct push_source){.mem = file.data, .bytes = file.len};
            rc = file.len == s->bytes
                     ? push_again(p, &s->segs[missing], err)
                     : plx_fail(err, PLX_ESTALE, "%s changed while it was pushed", files[k]);
            wbuf_free(&file);
        }
        return rc;
    }
    struct store_blob again;
    int rc = store_put_blob(p->store, from->text->data, from->text->len, &again, err);
    store_blob_free(&again);
    return rc;
}

/* Put segment number @first again; a sweep takes many at a time, so look at those behind it too. */
static int restore_from(struct push *p, const struct sources *from, const struct manifest *m,
                        const struct image_ref *ref, size_t first, struct plx_err *err)
{
    struct seg_id *ids = NULL;
    uint8_t *states = NULL;
    size_t n;
    int rc = restore(p, from, m, first++, err);

    if (rc == 0 && (list_ids(m, ref, &ids, &n) != 0 || (states = plx_calloc(n, 1)) == NULL)) {
        rc = push_no_memory(err);
    }
    if (rc == 0) {
        rc = store_look(p->store, ids + first, n - first, states, err);
    }
    for (size_t i = first; rc == 0 && i < n; i++) {
        rc = states[i - first] != SEG_THERE ? restore(p, from, m, i, err) : 0;
    }
    plx_free(ids);
    plx_free(states);
    return rc;
}

int push_name(struct push *p, const struct manifest *m, struct disk *disk, struct image_ref *ref,
              struct plx_err *err)
{
    struct wbuf text;
    int rc;

    wbuf_init(&text);
    if (manifest_put(m, &text) != 0) {
        wbuf_free(&text);
        return push_no_memory(err);
    }
    if (text.len > MANIFEST_MAX) {
        wbuf_free(&text);
        return plx_fail(err, PLX_ERANGE,
                        "the image has too many segments: push it with larger ones");
    }
    struct sources from = {.disk = disk, .text = &text};
    sha256(text.data, text.len, ref->sha);
    rc = store_put_blob(p->store, text.data, text.len, &ref->manifest, err);
    for (int tries = 0; rc == 0; tries++) {
        size_t missing = 0;
        rc = try_name(p->store, ref, m, &missing, err);
        if (rc <= 0) {
            break;
        }
        rc = tries == NAME_TRIES
                 ? plx_fail(err, PLX_EBUSY, "sweeps keep taking what is pushed: try again")
                 : restore_from(p, &from, m, ref, missing, err);
    }
    wbuf_free(&text);
    return rc;
}
