/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir_hold.c - segments of a directory that are read although files can no longer be
 * opened (a sandbox): where each stands is looked up once, and the packs stay open. A sweep that
 * moves a segment leaves us the old pack, which is whole until it is closed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "storage/store_dir_priv.h"

enum { LOOKS = 4 }; /* a sweep may move a segment between look-up and open */

struct held_pack {
    uint32_t number;
    int fd;
};

struct held {
    size_t pack; /* index in packs */
    uint32_t stored_len;
    uint64_t off;
};

struct hold {
    struct held *items;
    size_t n;
    struct held_pack *packs;
    size_t npacks, cap;
};

/* The index of the open pack, or an error; PLX_ENOENT: it is gone. */
static int open_pack(const struct store_dir *d, struct hold *h, uint32_t number, size_t *at,
                     struct plx_err *err)
{
    char path[DIR_PATH_MAX];

    for (*at = h->npacks; *at > 0; --*at) { /* mostly the last one */
        if (h->packs[*at - 1].number == number) {
            --*at;
            return 0;
        }
    }
    if (h->npacks == h->cap) {
        size_t cap = h->cap == 0 ? 64 : 2 * h->cap;
        struct held_pack *more = plx_realloc(h->packs, cap * sizeof *more);
        if (more == NULL) {
            return plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
        }
        h->packs = more;
        h->cap = cap;
    }
    store_dir_pack_path(d, number, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == EMFILE) {
        return plx_fail(err, PLX_ERANGE,
                        "store %s: the image lies in more than %zu packs, too many to keep open "
                        "(raise the limit: ulimit -n)",
                        d->path, h->npacks);
    }
    if (fd < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    *at = h->npacks;
    h->packs[h->npacks++] = (struct held_pack){.number = number, .fd = fd};
    return 0;
}

static int hold_one(struct store_dir *d, struct hold *h, const struct seg_id *id,
                    struct plx_err *err)
{
    int rc = PLX_ENOENT;

    for (int i = 0; i < LOOKS && rc == PLX_ENOENT; i++) {
        struct index_entry e;
        size_t at = 0;
        int found = index_find(d->index, id, &e, err);
        if (found <= 0) {
            char hex[SHA256_HEX];
            return found < 0 ? found
                             : plx_fail(err, PLX_ENOENT, "store %s: no segment %s", d->path,
                                        sha256_hex(id->sha, hex));
        }
        rc = open_pack(d, h, e.pack, &at, err);
        if (rc == 0) {
            h->items[h->n++] = (struct held){.pack = at, .stored_len = e.stored_len, .off = e.off};
        }
    }
    return rc;
}

int store_dir_hold(void *self, const struct seg_id *ids, size_t n, void **out, struct plx_err *err)
{
    struct store_dir *d = self;
    struct hold *h = plx_calloc(1, sizeof *h);
    int rc = 0;

    *out = NULL;
    if (h == NULL || (h->items = plx_calloc(n + 1, sizeof *h->items)) == NULL) {
        plx_free(h);
        return plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = hold_one(d, h, &ids[i], err);
    }
    if (rc != 0) {
        store_dir_hold_end(d, h);
        return rc;
    }
    *out = h;
    return 0;
}

int store_dir_held_get(void *self, void *hold, size_t i, const struct seg_id *id, struct wbuf *out,
                       struct seg_form *form, struct plx_err *err)
{
    const struct hold *h = hold;
    const struct held *e = &h->items[i];

    (void)self;
    return pack_read(h->packs[e->pack].fd, h->packs[e->pack].number, e->off, e->stored_len, id, out,
                     form, err);
}

void store_dir_hold_end(void *self, void *hold)
{
    struct hold *h = hold;

    (void)self;
    if (h == NULL) {
        return;
    }
    for (size_t i = 0; i < h->npacks; i++) {
        (void)close(h->packs[i].fd);
    }
    plx_free(h->packs);
    plx_free(h->items);
    plx_free(h);
}
