/* SPDX-License-Identifier: Apache-2.0
 * storage/store.c - see store.h. */
#include "storage/store.h"

#include <pthread.h>
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_c_literalCompressionMode */
#include <zstd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/store_dir.h"
#include "storage/store_mem.h"

#define CACHE_LEAST (UINT64_C(32) << 20)
enum { CODERS = 16 };

/* What one thread needs to make and open stored forms. */
struct coder {
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
    uint8_t *buf; /* SEG_STORED_MAX */
    struct wbuf form;
};

struct store {
    const struct seg_ops *ops;
    void *self;
    pthread_mutex_t lock; /* of the idle coders */
    struct coder *idle[CODERS];
    unsigned nidle;
};

/* --- coders --------------------------------------------------------------------------------- */

static void free_coder(struct coder *k)
{
    if (k != NULL) {
        (void)ZSTD_freeCCtx(k->c);
        (void)ZSTD_freeDCtx(k->d);
        plx_free(k->buf);
        wbuf_free(&k->form);
        plx_free(k);
    }
}

/* False: this libzstd does not know a parameter. */
static bool set_up(ZSTD_CCtx *c)
{
    static const struct {
        ZSTD_cParameter name;
        int value;
    } params[] = {{ZSTD_c_compressionLevel, STORE_LEVEL},
                  {ZSTD_c_strategy, ZSTD_fast},
                  {ZSTD_c_hashLog, STORE_HASH_LOG},
                  {ZSTD_c_minMatch, STORE_MIN_MATCH}};

    for (unsigned i = 0; i < PLX_COUNT(params); i++) {
        if (ZSTD_isError(ZSTD_CCtx_setParameter(c, params[i].name, params[i].value))) {
            return false;
        }
    }
    /* A step leaves literals as they are, unless they are asked for: both or none. */
    return ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_literalCompressionMode, ZSTD_ps_enable)) ||
           !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_targetLength, STORE_STEP));
}

static struct coder *take_coder(struct store *s)
{
    struct coder *k = NULL;

    (void)pthread_mutex_lock(&s->lock);
    if (s->nidle > 0) {
        k = s->idle[--s->nidle];
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (k == NULL && (k = plx_calloc(1, sizeof *k)) != NULL) {
        k->c = ZSTD_createCCtx();
        k->d = ZSTD_createDCtx();
        k->buf = plx_calloc(1, SEG_STORED_MAX);
        if (k->c == NULL || k->d == NULL || k->buf == NULL || !set_up(k->c)) {
            free_coder(k);
            k = NULL;
        }
    }
    return k;
}

static void give_coder(struct store *s, struct coder *k)
{
    (void)pthread_mutex_lock(&s->lock);
    if (s->nidle < CODERS) {
        s->idle[s->nidle++] = k;
        k = NULL;
    }
    (void)pthread_mutex_unlock(&s->lock);
    free_coder(k);
}

static int no_memory(struct plx_err *err)
{
    return plx_fail(err, PLX_ENOMEM, "segment store: out of memory");
}

/* --- life ----------------------------------------------------------------------------------- */

static int wrap(struct store **out, struct store *s, int rc, struct plx_err *err)
{
    *out = NULL;
    if (rc != 0 || s == NULL) {
        plx_free(s);
        return rc;
    }
    (void)err;
    (void)pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return 0;
}

static int open_dir(const struct store_dir_config *cfg, struct store **out, struct plx_err *err)
{
    struct store *s = plx_calloc(1, sizeof *s);
    int rc = s == NULL ? no_memory(err) : store_dir_open(cfg, &s->ops, &s->self, err);

    return wrap(out, s, rc, err);
}

int store_open(const char *path, bool create, struct store **out, struct plx_err *err)
{
    return open_dir(&(struct store_dir_config){.path = path, .create = create}, out, err);
}

int store_open_cache(const char *path, uint64_t limit, struct store **out, struct plx_err *err)
{
    return open_dir(&(struct store_dir_config){.path = path,
                                               .create = true,
                                               .limit = limit < CACHE_LEAST ? CACHE_LEAST : limit},
                    out, err);
}

int store_open_memory(struct store **out, struct plx_err *err)
{
    struct store *s = plx_calloc(1, sizeof *s);
    int rc = s == NULL ? no_memory(err) : store_mem_open(&s->ops, &s->self, err);

    return wrap(out, s, rc, err);
}

int store_open_backend(const struct seg_ops *ops, void *self, struct store **out,
                       struct plx_err *err)
{
    struct store *s = plx_calloc(1, sizeof *s);

    if (s != NULL) {
        s->ops = ops;
        s->self = self;
    }
    return wrap(out, s, s == NULL ? no_memory(err) : 0, err);
}

void store_close(struct store *s)
{
    if (s == NULL) {
        return;
    }
    s->ops->close(s->self);
    while (s->nidle > 0) {
        free_coder(s->idle[--s->nidle]);
    }
    (void)pthread_mutex_destroy(&s->lock);
    plx_free(s);
}

const struct seg_ops *store_ops(const struct store *s)
{
    return s->ops;
}

void *store_self(const struct store *s)
{
    return s->self;
}

/* --- in ------------------------------------------------------------------------------------- */

int store_put_named(struct store *s, const void *data, size_t len, const struct seg_id *id,
                    uint64_t *stored, struct plx_err *err)
{
    struct seg_form form = {
        .codec = SEG_PLAIN, .raw_len = (uint32_t)len, .stored_len = (uint32_t)len, .data = data};

    PLX_CHECK(len > 0 && len <= SEG_MAX);
    struct coder *k = take_coder(s);
    if (k == NULL) {
        return no_memory(err);
    }
    /* A form as long as the contents, or that does not fit, is not worth opening. */
    size_t n = ZSTD_compress2(k->c, k->buf, len - 1, data, len);
    if (len > 1 && !ZSTD_isError(n)) {
        form.codec = SEG_ZSTD;
        form.stored_len = (uint32_t)n;
        form.data = k->buf;
    }
    int rc = s->ops->put(s->self, id, &form, err);
    if (stored != NULL) {
        *stored = rc == STORE_NEW ? form.stored_len : 0;
    }
    give_coder(s, k);
    return rc;
}

int store_put(struct store *s, const void *data, size_t len, struct seg_id *id, uint64_t *stored,
              struct plx_err *err)
{
    PLX_CHECK(len > 0 && len <= SEG_MAX);
    sha256(data, len, id->sha);
    int rc = s->ops->has(s->self, id, err);
    if (rc == 0) {
        return store_put_named(s, data, len, id, stored, err);
    }
    if (stored != NULL) {
        *stored = 0;
    }
    return rc < 0 ? rc : STORE_SHARED;
}

int store_look(struct store *s, const struct seg_id *ids, size_t n, uint8_t *states,
               struct plx_err *err)
{
    if (s->ops->look != NULL) {
        return s->ops->look(s->self, ids, n, states, err);
    }
    for (size_t i = 0; i < n; i++) {
        int has = s->ops->has(s->self, &ids[i], err);
        if (has < 0) {
            return has;
        }
        bool others =
            has == 0 && s->ops->claim != NULL && s->ops->claim(s->self, &ids[i]) == PLX_EBUSY;
        states[i] = has != 0 ? SEG_THERE : others ? SEG_COMING : SEG_ABSENT;
    }
    return 0;
}

int store_has(struct store *s, const struct seg_id *id, struct plx_err *err)
{
    return s->ops->has(s->self, id, err);
}

int store_commit(struct store *s, struct plx_err *err)
{
    return s->ops->commit(s->self, err);
}

int store_rest(struct store *s, struct plx_err *err)
{
    return s->ops->rest != NULL ? s->ops->rest(s->self, err) : s->ops->commit(s->self, err);
}

/* --- out ------------------------------------------------------------------------------------ */

static int open_form(ZSTD_DCtx *d, const struct seg_id *id, const struct seg_form *form, void *out,
                     struct plx_err *err)
{
    struct seg_id real = {{0}};
    char hex[SHA256_HEX];

    if (form->codec == SEG_PLAIN) {
        memcpy(out, form->data, form->raw_len);
    } else {
        size_t n = ZSTD_decompressDCtx(d, out, form->raw_len, form->data, form->stored_len);
        if (ZSTD_isError(n) || n != form->raw_len) {
            return plx_fail(err, PLX_ECORRUPT, "segment %s cannot be decompressed",
                            sha256_hex(id->sha, hex));
        }
    }
    sha256(out, form->raw_len, real.sha);
    if (!seg_id_eq(&real, id)) {
        return plx_fail(err, PLX_ECORRUPT, "segment %s has other contents than its name says",
                        sha256_hex(id->sha, hex));
    }
    return 0;
}

int store_open_form(const struct seg_id *id, const struct seg_form *form, void *out,
                    struct plx_err *err)
{
    ZSTD_DCtx *d = ZSTD_createDCtx();
    int rc = d == NULL ? no_memory(err) : open_form(d, id, form, out, err);

    (void)ZSTD_freeDCtx(d);
    return rc;
}

int store_put_form(struct store *s, const struct seg_id *id, const struct seg_form *form,
                   struct plx_err *err)
{
    struct coder *k = take_coder(s);

    if (k == NULL) {
        return no_memory(err);
    }
    int rc = open_form(k->d, id, form, k->buf, err);
    if (rc == 0) {
        rc = s->ops->put(s->self, id, form, err);
    }
    give_coder(s, k);
    return rc;
}

/* @hold NULL: looked up by its name; else the @i-th that is held. */
static int get_segment(struct store *s, void *hold, size_t i, const struct seg_id *id, void *out,
                       size_t len, struct plx_err *err)
{
    struct seg_form form;
    struct coder *k = take_coder(s);

    if (k == NULL) {
        return no_memory(err);
    }
    int rc = hold == NULL ? s->ops->get(s->self, id, &k->form, &form, err)
                          : s->ops->held_get(s->self, hold, i, id, &k->form, &form, err);
    if (rc == 0 && form.raw_len != len) {
        char hex[SHA256_HEX];
        rc = plx_fail(err, PLX_ECORRUPT, "segment %s has %u bytes, not %zu",
                      sha256_hex(id->sha, hex), form.raw_len, len);
    }
    if (rc == 0) {
        rc = open_form(k->d, id, &form, out, err);
    }
    give_coder(s, k);
    return rc;
}

int store_get(struct store *s, const struct seg_id *id, void *out, size_t len, struct plx_err *err)
{
    return get_segment(s, NULL, 0, id, out, len, err);
}

int store_hold(struct store *s, const struct seg_id *ids, size_t n, struct store_hold **out,
               struct plx_err *err)
{
    void *hold = NULL;
    int rc = s->ops->hold(s->self, ids, n, &hold, err);

    *out = hold;
    return rc;
}

int store_held_get(struct store *s, struct store_hold *h, size_t i, const struct seg_id *id,
                   void *out, size_t len, struct plx_err *err)
{
    return get_segment(s, h, i, id, out, len, err);
}

void store_hold_end(struct store *s, struct store_hold *h)
{
    s->ops->hold_end(s->self, h);
}

/* --- blobs ---------------------------------------------------------------------------------- */

int store_put_blob(struct store *s, const void *data, size_t len, struct store_blob *out,
                   struct plx_err *err)
{
    size_t n = (len + STORE_BLOB_PART - 1) / STORE_BLOB_PART;
    int rc = 0;

    *out = (struct store_blob){.len = len, .nparts = (uint32_t)n};
    out->parts = plx_calloc(n + 1, sizeof *out->parts);
    if (out->parts == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < n && rc >= 0; i++) {
        size_t off = i * STORE_BLOB_PART;
        size_t part = len - off < STORE_BLOB_PART ? len - off : STORE_BLOB_PART;
        rc = store_put(s, (const uint8_t *)data + off, part, &out->parts[i], NULL, err);
    }
    if (rc < 0) {
        store_blob_free(out);
        return rc;
    }
    return 0;
}

int store_get_here(void *store, const struct seg_id *id, void *out, size_t len, struct plx_err *err)
{
    return store_get(store, id, out, len, err);
}

int store_get_blob(const struct store_blob *b, store_get_fn get, void *ctx, struct wbuf *out,
                   struct plx_err *err)
{
    int rc = 0;

    wbuf_init(out);
    for (uint32_t i = 0; i < b->nparts && rc == 0; i++) {
        uint64_t off = (uint64_t)i * STORE_BLOB_PART;
        size_t part = b->len - off < STORE_BLOB_PART ? b->len - off : STORE_BLOB_PART;
        uint8_t *at = wbuf_grow(out, part);
        rc = at == NULL ? no_memory(err) : get(ctx, &b->parts[i], at, part, err);
    }
    if (rc != 0) {
        wbuf_free(out);
    }
    return rc;
}

void store_blob_free(struct store_blob *b)
{
    plx_free(b->parts);
    *b = (struct store_blob){0};
}
