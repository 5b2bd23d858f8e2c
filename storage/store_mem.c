/* SPDX-License-Identifier: Apache-2.0
 * storage/store_mem.c - see store_mem.h: a list of segments and a table into it; one lock. */
#include "storage/store_mem.h"

#include <pthread.h>
#include <stdio.h>

#include "base/alloc.h"
#include "storage/pack.h"

struct mem_segment {
    struct seg_id id;
    struct seg_form form;
    uint8_t *data; /* NULL: dropped */
    uint64_t hash;
};

struct mem_name {
    struct mem_name *next;
    char name[NAME_MAX_LEN + 1];
    uint8_t *value;
    size_t len;
};

struct mem {
    pthread_mutex_t lock;
    struct mem_segment *items;
    size_t n, cap;
    size_t *at; /* open addressing: place in items + 1 */
    size_t slots;
    struct mem_name *names, *leases; /* names in order */
    int fail_at;                     /* < 0: never */
};

static int out_of_memory(struct plx_err *err)
{
    return plx_fail(err, PLX_ENOMEM, "store in memory: out of memory");
}

static bool fails_locked(struct mem *m)
{
    return m->fail_at >= 0 && m->fail_at-- == 0;
}

static int fault(struct plx_err *err)
{
    return plx_fail(err, PLX_EIO, "store in memory: a fault was asked for");
}

/* The slot of @id, or the free one where it belongs. */
static size_t slot_of(const struct mem *m, const struct seg_id *id)
{
    size_t s = seg_id_hash(id) & (m->slots - 1);

    while (m->at[s] != 0 && !seg_id_eq(&m->items[m->at[s] - 1].id, id)) {
        s = (s + 1) & (m->slots - 1);
    }
    return s;
}

static struct mem_segment *find_locked(struct mem *m, const struct seg_id *id)
{
    struct mem_segment *e;

    if (m->slots == 0) {
        return NULL;
    }
    size_t at = m->at[slot_of(m, id)];
    e = at == 0 ? NULL : &m->items[at - 1];
    return e != NULL && e->data != NULL ? e : NULL;
}

static int reserve_locked(struct mem *m)
{
    if (m->n < m->cap) {
        return 0;
    }
    size_t cap = m->cap == 0 ? 256 : 2 * m->cap;
    struct mem_segment *items = plx_realloc(m->items, cap * sizeof *items);
    if (items == NULL) {
        return PLX_ENOMEM;
    }
    m->items = items;
    size_t *at = plx_calloc(2 * cap, sizeof *at);
    if (at == NULL) {
        return PLX_ENOMEM;
    }
    plx_free(m->at);
    m->at = at;
    m->slots = 2 * cap;
    m->cap = cap;
    for (size_t i = 0; i < m->n; i++) {
        m->at[slot_of(m, &m->items[i].id)] = i + 1;
    }
    return 0;
}

static int mem_has(void *self, const struct seg_id *id, struct plx_err *err)
{
    struct mem *m = self;

    (void)err;
    (void)pthread_mutex_lock(&m->lock);
    int found = find_locked(m, id) != NULL;
    (void)pthread_mutex_unlock(&m->lock);
    return found;
}

static int put_locked(struct mem *m, const struct seg_id *id, const struct seg_form *form,
                      struct plx_err *err)
{
    if (fails_locked(m)) {
        return fault(err);
    }
    if (find_locked(m, id) != NULL) {
        return 0;
    }
    uint8_t *data = plx_calloc(1, form->stored_len);
    if (data == NULL || reserve_locked(m) != 0) {
        plx_free(data);
        return out_of_memory(err);
    }
    memcpy(data, form->data, form->stored_len);
    size_t slot = slot_of(m, id);
    size_t place = m->at[slot] != 0 ? m->at[slot] - 1 : m->n; /* where it was dropped from */
    m->items[place] = (struct mem_segment){
        .id = *id, .form = *form, .data = data, .hash = pack_data_hash(data, form->stored_len)};
    m->items[place].form.data = data;
    m->at[slot] = place + 1;
    m->n += place == m->n;
    return 1;
}

static int mem_put(void *self, const struct seg_id *id, const struct seg_form *form,
                   struct plx_err *err)
{
    struct mem *m = self;

    (void)pthread_mutex_lock(&m->lock);
    int rc = put_locked(m, id, form, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static bool intact(const struct mem_segment *e)
{
    return pack_data_hash(e->data, e->form.stored_len) == e->hash;
}

static int mem_get(void *self, const struct seg_id *id, struct wbuf *out, struct seg_form *form,
                   struct plx_err *err)
{
    struct mem *m = self;
    char hex[SHA256_HEX];
    int rc = 0;

    wbuf_clear(out);
    (void)pthread_mutex_lock(&m->lock);
    const struct mem_segment *e = find_locked(m, id);
    if (fails_locked(m)) {
        rc = fault(err);
    } else if (e == NULL) {
        rc = plx_fail(err, PLX_ENOENT, "store in memory: no segment %s", sha256_hex(id->sha, hex));
    } else if (!intact(e)) {
        rc = plx_fail(err, PLX_ECORRUPT, "store in memory: the segment is damaged");
    } else {
        wbuf_put(out, e->data, e->form.stored_len);
        *form = e->form;
        form->data = out->data;
        rc = out->failed ? out_of_memory(err) : 0;
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_commit(void *self, struct plx_err *err)
{
    struct mem *m = self;

    (void)pthread_mutex_lock(&m->lock);
    int rc = fails_locked(m) ? fault(err) : 0;
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- names and leases ----------------------------------------------------------------------- */

static struct mem_name *new_name(const char *name, const void *value, size_t len)
{
    struct mem_name *n = plx_calloc(1, sizeof *n);

    if (n != NULL) {
        (void)snprintf(n->name, sizeof n->name, "%s", name);
        n->len = len;
        n->value = plx_calloc(1, len + 1);
        if (n->value == NULL) {
            plx_free(n);
            return NULL;
        }
        memcpy(n->value, value, len);
    }
    return n;
}

static void free_name(struct mem_name *n)
{
    plx_free(n->value);
    plx_free(n);
}

static struct mem_name **place_locked(struct mem *m, const char *name)
{
    struct mem_name **at = &m->names;

    while (*at != NULL && strcmp((*at)->name, name) < 0) {
        at = &(*at)->next;
    }
    return at;
}

static int mem_name_put(void *self, const char *name, const void *value, size_t len,
                        const struct seg_id *ids, size_t n, size_t *missing, struct plx_err *err)
{
    struct mem *m = self;
    int rc = mem_commit(m, err);

    (void)pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (find_locked(m, &ids[i]) == NULL) {
            *missing = i;
            rc = 1;
        }
    }
    if (rc == 0) {
        struct mem_name *fresh = new_name(name, value, len), **at = place_locked(m, name);
        if (fresh == NULL) {
            rc = out_of_memory(err);
        } else {
            fresh->next = *at;
            if (*at != NULL && strcmp((*at)->name, name) == 0) {
                fresh->next = (*at)->next;
                free_name(*at);
            }
            *at = fresh;
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_name_get(void *self, const char *name, struct wbuf *value, struct plx_err *err)
{
    struct mem *m = self;
    int rc = 0;

    wbuf_init(value);
    (void)pthread_mutex_lock(&m->lock);
    const struct mem_name *n = *place_locked(m, name);
    if (n == NULL || strcmp(n->name, name) != 0) {
        rc = plx_fail(err, PLX_ENOENT, "store in memory: no name %s", name);
    } else {
        wbuf_put(value, n->value, n->len);
        rc = value->failed ? out_of_memory(err) : 0;
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_name_del(void *self, const char *name, struct plx_err *err)
{
    struct mem *m = self;
    int rc = 0;

    (void)pthread_mutex_lock(&m->lock);
    struct mem_name **at = place_locked(m, name), *n = *at;
    if (n == NULL || strcmp(n->name, name) != 0) {
        rc = plx_fail(err, PLX_ENOENT, "store in memory: no name %s", name);
    } else {
        *at = n->next;
        free_name(n);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_name_each(void *self,
                         int (*each)(void *ctx, const char *name, const void *value, size_t len),
                         void *ctx, struct plx_err *err)
{
    struct mem *m = self;
    int rc = 0;

    (void)err;
    (void)pthread_mutex_lock(&m->lock);
    for (const struct mem_name *n = m->names; n != NULL && rc == 0; n = n->next) {
        rc = each(ctx, n->name, n->value, n->len);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_lease(void *self, const void *value, size_t len, void **lease, struct plx_err *err)
{
    struct mem *m = self;
    struct mem_name *n = new_name("", value, len);

    *lease = n;
    if (n == NULL) {
        return out_of_memory(err);
    }
    (void)pthread_mutex_lock(&m->lock);
    n->next = m->leases;
    m->leases = n;
    (void)pthread_mutex_unlock(&m->lock);
    return 0;
}

static void mem_lease_end(void *self, void *lease)
{
    struct mem *m = self;

    (void)pthread_mutex_lock(&m->lock);
    struct mem_name **at = &m->leases;
    while (*at != NULL && *at != lease) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = (*at)->next;
        free_name(lease);
    }
    (void)pthread_mutex_unlock(&m->lock);
}

static int mem_lease_each(void *self, int (*each)(void *ctx, const void *value, size_t len),
                          void *ctx, struct plx_err *err)
{
    struct mem *m = self;
    int rc = 0;

    (void)err;
    (void)pthread_mutex_lock(&m->lock);
    for (const struct mem_name *n = m->leases; n != NULL && rc == 0; n = n->next) {
        rc = each(ctx, n->value, n->len);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- sweeping and listing ------------------------------------------------------------------- */

/* The lock is recursive: @mark reads names, leases and segments while nothing else may change. */
static int mem_sweep(void *self, int (*mark)(void *ctx, struct seg_set *live, struct plx_err *err),
                     void *ctx, struct seg_sweep *out, struct plx_err *err)
{
    struct mem *m = self;
    struct seg_set live = {0};

    *out = (struct seg_sweep){0};
    (void)pthread_mutex_lock(&m->lock);
    int rc = mark(ctx, &live, err);
    for (size_t i = 0; i < m->n && rc == 0; i++) {
        struct mem_segment *e = &m->items[i];
        if (e->data == NULL) {
            continue;
        }
        if (seg_set_has(&live, &e->id)) {
            out->live++;
            out->live_bytes += e->form.stored_len;
        } else {
            out->dropped++;
            out->dropped_bytes += e->form.stored_len;
            out->freed_bytes += e->form.stored_len;
            plx_free(e->data);
            e->data = NULL;
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
    seg_set_free(&live);
    return rc;
}

static int mem_each(void *self,
                    int (*each)(void *ctx, const struct seg_id *id, const struct seg_form *form,
                                const char *where),
                    seg_damage_fn bad, void *ctx, struct plx_err *err)
{
    struct mem *m = self;
    int rc = 0;

    (void)err;
    (void)pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n && rc == 0; i++) {
        char where[32];
        if (m->items[i].data == NULL) {
            continue;
        }
        (void)snprintf(where, sizeof where, "memory %zu", i);
        if (bad != NULL && !intact(&m->items[i])) {
            bad(ctx, where, &m->items[i].id, "the segment is damaged");
        } else {
            rc = each(ctx, &m->items[i].id, &m->items[i].form, where);
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_totals(void *self, struct seg_totals *out, struct plx_err *err)
{
    struct mem *m = self;

    (void)err;
    *out = (struct seg_totals){0};
    (void)pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n; i++) {
        if (m->items[i].data != NULL) {
            out->segments++;
            out->raw_bytes += m->items[i].form.raw_len;
            out->stored_bytes += m->items[i].form.stored_len;
        }
    }
    out->used_bytes = out->stored_bytes;
    (void)pthread_mutex_unlock(&m->lock);
    return 0;
}

static void mem_close(void *self)
{
    struct mem *m = self;

    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->n; i++) {
        plx_free(m->items[i].data);
    }
    for (struct mem_name *n = m->names, *next; n != NULL; n = next) {
        next = n->next;
        free_name(n);
    }
    for (struct mem_name *n = m->leases, *next; n != NULL; n = next) {
        next = n->next;
        free_name(n);
    }
    plx_free(m->items);
    plx_free(m->at);
    (void)pthread_mutex_destroy(&m->lock);
    plx_free(m);
}

/* --- holds: copies of the stored forms ------------------------------------------------------ */

struct mem_hold {
    struct wbuf *data;
    struct seg_form *forms;
    size_t n;
};

static void mem_hold_end(void *self, void *hold)
{
    struct mem_hold *h = hold;

    (void)self;
    if (h != NULL) {
        for (size_t i = 0; i < h->n; i++) {
            wbuf_free(&h->data[i]);
        }
        plx_free(h->data);
        plx_free(h->forms);
        plx_free(h);
    }
}

static int mem_hold(void *self, const struct seg_id *ids, size_t n, void **out, struct plx_err *err)
{
    struct mem_hold *h = plx_calloc(1, sizeof *h);
    int rc = 0;

    *out = NULL;
    if (h == NULL || (h->data = plx_calloc(n + 1, sizeof *h->data)) == NULL ||
        (h->forms = plx_calloc(n + 1, sizeof *h->forms)) == NULL) {
        mem_hold_end(self, h);
        return out_of_memory(err);
    }
    while (h->n < n && rc == 0) {
        wbuf_init(&h->data[h->n]);
        rc = mem_get(self, &ids[h->n], &h->data[h->n], &h->forms[h->n], err);
        h->n++;
    }
    if (rc != 0) {
        mem_hold_end(self, h);
        return rc;
    }
    *out = h;
    return 0;
}

static int mem_held_get(void *self, void *hold, size_t i, const struct seg_id *id, struct wbuf *out,
                        struct seg_form *form, struct plx_err *err)
{
    const struct mem_hold *h = hold;

    (void)self;
    (void)id;
    wbuf_clear(out);
    wbuf_put(out, h->data[i].data, h->forms[i].stored_len);
    *form = h->forms[i];
    form->data = out->data;
    return out->failed ? out_of_memory(err) : 0;
}

static const struct seg_ops mem_ops = {
    .kind = "memory",
    .has = mem_has,
    .put = mem_put,
    .get = mem_get,
    .commit = mem_commit,
    .name_put = mem_name_put,
    .name_get = mem_name_get,
    .name_del = mem_name_del,
    .name_each = mem_name_each,
    .sweep = mem_sweep,
    .lease = mem_lease,
    .lease_end = mem_lease_end,
    .lease_each = mem_lease_each,
    .hold = mem_hold,
    .held_get = mem_held_get,
    .hold_end = mem_hold_end,
    .each = mem_each,
    .totals = mem_totals,
    .close = mem_close,
};

int store_mem_open(const struct seg_ops **ops, void **self, struct plx_err *err)
{
    pthread_mutexattr_t attr;
    struct mem *m = plx_calloc(1, sizeof *m);

    *ops = &mem_ops;
    *self = m;
    if (m == NULL) {
        return out_of_memory(err);
    }
    m->fail_at = -1;
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    (void)pthread_mutex_init(&m->lock, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    return 0;
}

void store_mem_fail_at(void *self, int k)
{
    struct mem *m = self;

    (void)pthread_mutex_lock(&m->lock);
    m->fail_at = k;
    (void)pthread_mutex_unlock(&m->lock);
}
