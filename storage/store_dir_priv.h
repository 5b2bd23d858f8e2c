/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir_priv.h - inside the directory backend (store_dir.h), shared by its files. */
#ifndef STORAGE_STORE_DIR_PRIV_H
#define STORAGE_STORE_DIR_PRIV_H

#include <pthread.h>

#include "storage/pack.h"
#include "storage/store_claims.h"
#include "storage/store_dir.h"
#include "storage/store_index.h"

enum { DIR_PATH_MAX = 4096, DIR_OPEN_PACKS = 64 };

struct open_pack {
    uint32_t number;
    int fd;
    unsigned users;
    uint64_t used; /* clock of the last use */
};

struct dir_writer { /* the pack we append to; fd < 0: none */
    int fd;
    uint32_t number;
    uint64_t end;
    uint8_t *buf;   /* what is not written yet: many records at once cost less */
    size_t held;    /* bytes of it, the last before @end */
    uint64_t begun; /* up to here writing to the medium has begun */
};

struct store_dir {
    char *path;
    uint64_t limit, pack_max;
    struct index *index;
    struct claims *claims; /* NULL until the first one is taken */
    pthread_mutex_t lock;  /* of all below */
    struct dir_writer writer;
    struct index_entry *pending; /* put and not committed */
    size_t npending, pending_cap;
    size_t *pending_at; /* open addressing: place in pending + 1; 0: free */
    size_t pending_slots;
    struct open_pack open[DIR_OPEN_PACKS];
    uint64_t open_clock;
    uint32_t newest;             /* cache: number of the newest pack */
    pthread_mutex_t commit_lock; /* one commit at a time, and who ends a pack; before @lock */
};

void store_dir_pack_path(const struct store_dir *d, uint32_t number, char out[DIR_PATH_MAX]);
/* A process that is alive appends to this open pack (not through this descriptor). */
bool store_dir_pack_held(int fd);
/* Append a record without asking whether it is there. With @lock held. */
int store_dir_append(struct store_dir *d, const struct seg_id *id, const struct seg_form *form,
                     struct index_entry *out, struct plx_err *err);
/* Write what is held of the pack we append to; readers of the index find only what is written. With
 * @lock held. */
int store_dir_flush(struct store_dir *d, struct plx_err *err);
/* Leave the pack we append to; its records must be in the index, or never will be. With
 * @commit_lock and @lock held. */
void store_dir_end_pack(struct store_dir *d);
int store_dir_commit(void *self, struct plx_err *err);
/* Numbers of all packs, ascending, to *out (the caller frees). */
int store_dir_packs(const struct store_dir *d, uint32_t **out, size_t *n, struct plx_err *err);
int store_dir_read(struct store_dir *d, const struct index_entry *e, struct wbuf *out,
                   struct seg_form *form, struct plx_err *err);
void store_dir_forget_pack(struct store_dir *d, uint32_t number); /* close our descriptor of it */
int store_dir_sync(const struct store_dir *d, const char *sub, struct plx_err *err); /* a folder */

/* store_dir_names.c */
int store_dir_name_put(void *self, const char *name, const void *value, size_t len,
                       const struct seg_id *ids, size_t n, size_t *missing, struct plx_err *err);
int store_dir_name_get(void *self, const char *name, struct wbuf *value, struct plx_err *err);
int store_dir_name_del(void *self, const char *name, struct plx_err *err);
int store_dir_name_each(void *self,
                        int (*each)(void *ctx, const char *name, const void *value, size_t len),
                        void *ctx, struct plx_err *err);
int store_dir_lease(void *self, const void *value, size_t len, void **lease, struct plx_err *err);
void store_dir_lease_end(void *self, void *lease);
int store_dir_lease_each(void *self, int (*each)(void *ctx, const void *value, size_t len),
                         void *ctx, struct plx_err *err);

/* store_dir_hold.c */
int store_dir_hold(void *self, const struct seg_id *ids, size_t n, void **out, struct plx_err *err);
int store_dir_held_get(void *self, void *hold, size_t i, const struct seg_id *id, struct wbuf *out,
                       struct seg_form *form, struct plx_err *err);
void store_dir_hold_end(void *self, void *hold);

/* store_dir_sweep.c */
int store_dir_sweep(void *self, int (*mark)(void *ctx, struct seg_set *live, struct plx_err *err),
                    void *ctx, struct seg_sweep *out, struct plx_err *err);
int store_dir_evict(struct store_dir *d, struct plx_err *err); /* a cache back to its limit */
int store_dir_rebuild(struct store_dir *d, uint64_t *segments, struct plx_err *err);

#endif
