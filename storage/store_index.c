/* SPDX-License-Identifier: Apache-2.0
 * storage/store_index.c - see store_index.h. */
#include "storage/store_index.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* Address space only; about 100 bytes of it are used per segment. */
#define MAP_BYTES (UINT64_C(64) << 30)
enum { READERS = 510, VALUE_LEN = 20, ID_LEN = SHA256_LEN, LIST_FIRST = 1024 };

struct index {
    MDB_env *env;
    MDB_dbi dbi;
    struct index *next; /* of all that this process has open */
    unsigned users;
    pid_t pid;
    dev_t dev;
    ino_t ino;
};

struct index_txn {
    struct index *x;
    MDB_txn *txn;
};

/* LMDB's locks are the process's: a file must not be opened twice in one. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct index *open_list;

static int fail(struct plx_err *err, int rc, const char *what)
{
    int code = PLX_EIO;

    switch (rc) {
    case MDB_MAP_FULL:
        code = PLX_ERANGE;
        break;
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
        code = PLX_ECORRUPT;
        break;
    case MDB_VERSION_MISMATCH:
        code = PLX_EVERSION;
        break;
    case ENOMEM:
        code = PLX_ENOMEM;
        break;
    case EACCES:
        code = PLX_EACCES;
        break;
    default:
        break;
    }
    return plx_fail(err, code, "segment index: cannot %s: %s", what, mdb_strerror(rc));
}

static int open_env(const char *path, struct index *x, struct plx_err *err)
{
    MDB_txn *txn;
    int dead;
    int rc = mdb_env_create(&x->env);

    if (rc != 0) {
        return fail(err, rc, "open it");
    }
    (void)mdb_env_set_mapsize(x->env, MAP_BYTES);
    (void)mdb_env_set_maxreaders(x->env, READERS);
    rc = mdb_env_open(x->env, path, MDB_NOSUBDIR | MDB_NOTLS, 0640);
    if (rc == 0) {
        (void)mdb_reader_check(x->env, &dead); /* of processes that were killed */
        rc = mdb_txn_begin(x->env, NULL, 0, &txn);
    }
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &x->dbi);
        if (rc == 0) {
            rc = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (rc != 0) {
        mdb_env_close(x->env);
        return fail(err, rc, "open it");
    }
    return 0;
}

int index_open(const char *path, struct index **out, bool *fresh, struct plx_err *err)
{
    struct stat st;
    struct index *x;
    int rc = 0;

    *out = NULL;
    (void)pthread_mutex_lock(&open_lock);
    *fresh = stat(path, &st) != 0 || st.st_size == 0;
    for (x = *fresh ? NULL : open_list; x != NULL; x = x->next) {
        if (x->dev == st.st_dev && x->ino == st.st_ino && x->pid == getpid()) {
            break;
        }
    }
    if (x == NULL) {
        x = plx_calloc(1, sizeof *x);
        rc = x == NULL ? plx_fail(err, PLX_ENOMEM, "segment index: out of memory")
                       : open_env(path, x, err);
        if (rc == 0 && x != NULL && stat(path, &st) == 0) {
            x->dev = st.st_dev;
            x->ino = st.st_ino;
            x->pid = getpid();
            x->next = open_list;
            open_list = x;
        }
    }
    if (rc == 0 && x != NULL) {
        x->users++;
        *out = x;
    } else {
        plx_free(x);
    }
    (void)pthread_mutex_unlock(&open_lock);
    return rc;
}

void index_close(struct index *x)
{
    if (x == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&open_lock);
    if (--x->users == 0) {
        struct index **at = &open_list;
        while (*at != NULL && *at != x) {
            at = &(*at)->next;
        }
        if (*at != NULL) {
            *at = x->next;
        }
        mdb_env_close(x->env);
        plx_free(x);
    }
    (void)pthread_mutex_unlock(&open_lock);
}

static MDB_val key_of(const struct seg_id *id)
{
    return (MDB_val){.mv_size = ID_LEN, .mv_data = (void *)(uintptr_t)id->sha};
}

static void value_put(uint8_t out[VALUE_LEN], const struct index_entry *e)
{
    memcpy(out, &e->pack, 4);
    memcpy(out + 4, &e->raw_len, 4);
    memcpy(out + 8, &e->stored_len, 4);
    memcpy(out + 12, &e->off, 8);
}

static bool value_get(const MDB_val *k, const MDB_val *v, struct index_entry *e)
{
    const uint8_t *p = v->mv_data;

    if (k->mv_size != ID_LEN || v->mv_size != VALUE_LEN) {
        return false;
    }
    memcpy(e->id.sha, k->mv_data, ID_LEN);
    memcpy(&e->pack, p, 4);
    memcpy(&e->raw_len, p + 4, 4);
    memcpy(&e->stored_len, p + 8, 4);
    memcpy(&e->off, p + 12, 8);
    return e->stored_len <= SEG_STORED_MAX && e->raw_len <= SEG_MAX && e->off < UINT32_MAX;
}

static int find(MDB_txn *txn, MDB_dbi dbi, const struct seg_id *id, struct index_entry *out,
                struct plx_err *err)
{
    MDB_val k = key_of(id), v;
    int rc = mdb_get(txn, dbi, &k, &v);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }
    if (rc != 0) {
        return fail(err, rc, "look a segment up");
    }
    if (!value_get(&k, &v, out)) {
        return plx_fail(err, PLX_ECORRUPT, "segment index: a damaged entry");
    }
    return 1;
}

int index_find(struct index *x, const struct seg_id *id, struct index_entry *out,
               struct plx_err *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return fail(err, rc, "look a segment up");
    }
    rc = find(txn, x->dbi, id, out, err);
    mdb_txn_abort(txn);
    return rc;
}

int index_each(struct index *x, int (*each)(void *ctx, const struct index_entry *e), void *ctx,
               struct plx_err *err)
{
    struct index_entry e;
    MDB_cursor *c;
    MDB_txn *txn;
    MDB_val k, v;
    int result = 0;
    int rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return fail(err, rc, "list it");
    }
    rc = mdb_cursor_open(txn, x->dbi, &c);
    if (rc == 0) {
        while (result == 0 && (rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
            result = value_get(&k, &v, &e)
                         ? each(ctx, &e)
                         : plx_fail(err, PLX_ECORRUPT, "segment index: a damaged entry");
        }
        mdb_cursor_close(c);
    }
    mdb_txn_abort(txn);
    return rc != 0 && rc != MDB_NOTFOUND ? fail(err, rc, "list it") : result;
}

uint64_t index_count(struct index *x)
{
    MDB_stat st = {0};
    MDB_txn *txn;

    if (mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn) == 0) {
        (void)mdb_stat(txn, x->dbi, &st);
        mdb_txn_abort(txn);
    }
    return st.ms_entries;
}

int index_list_add(struct index_list *l, const struct index_entry *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? LIST_FIRST : 2 * l->cap;
        struct index_entry *items = plx_realloc(l->items, cap * sizeof *items);
        if (items == NULL) {
            return PLX_ENOMEM;
        }
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n++] = *e;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct index_entry *x = a, *y = b;

    if (x->pack != y->pack) {
        return x->pack < y->pack ? -1 : 1;
    }
    return (x->off > y->off) - (x->off < y->off);
}

void index_list_sort(struct index_list *l)
{
    if (l->n > 0) {
        qsort(l->items, l->n, sizeof *l->items, by_place);
    }
}

int index_begin(struct index *x, struct index_txn **out, struct plx_err *err)
{
    struct index_txn *t = plx_calloc(1, sizeof *t);
    int rc;

    *out = NULL;
    if (t == NULL) {
        return plx_fail(err, PLX_ENOMEM, "segment index: out of memory");
    }
    t->x = x;
    rc = mdb_txn_begin(x->env, NULL, 0, &t->txn);
    if (rc != 0) {
        plx_free(t);
        return fail(err, rc, "change it");
    }
    *out = t;
    return 0;
}

int index_txn_find(struct index_txn *t, const struct seg_id *id, struct index_entry *out,
                   struct plx_err *err)
{
    return find(t->txn, t->x->dbi, id, out, err);
}

int index_txn_put(struct index_txn *t, const struct index_entry *e, bool replace,
                  struct plx_err *err)
{
    uint8_t value[VALUE_LEN];
    MDB_val k = key_of(&e->id), v = {.mv_size = sizeof value, .mv_data = value};

    value_put(value, e);
    int rc = mdb_put(t->txn, t->x->dbi, &k, &v, replace ? 0 : MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) {
        return 0;
    }
    return rc != 0 ? fail(err, rc, "enter a segment") : 1;
}

int index_txn_filter(struct index_txn *t, bool (*drop)(void *ctx, const struct index_entry *e),
                     void *ctx, struct plx_err *err)
{
    struct index_entry e;
    MDB_cursor *c;
    MDB_val k, v;
    int rc = mdb_cursor_open(t->txn, t->x->dbi, &c);

    if (rc != 0) {
        return fail(err, rc, "sweep it");
    }
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        if (!value_get(&k, &v, &e) || drop(ctx, &e)) {
            rc = mdb_cursor_del(c, 0);
            if (rc != 0) {
                break;
            }
        }
    }
    mdb_cursor_close(c);
    return rc != MDB_NOTFOUND ? fail(err, rc, "sweep it") : 0;
}

int index_commit(struct index_txn *t, struct plx_err *err)
{
    int rc = mdb_txn_commit(t->txn);

    plx_free(t);
    return rc != 0 ? fail(err, rc, "make a change durable") : 0;
}

void index_abort(struct index_txn *t)
{
    if (t != NULL) {
        mdb_txn_abort(t->txn);
        plx_free(t);
    }
}
