/* SPDX-License-Identifier: Apache-2.0
 * storage/store_remote.c - see store_remote.h. */
#include "storage/store_remote.h"

static int remote_look(void *self, const struct seg_id *ids, size_t n, uint8_t *states,
                       struct plx_err *err)
{
    return image_client_look(self, ids, n, states, err);
}

static int remote_has(void *self, const struct seg_id *id, struct plx_err *err)
{
    uint8_t state;
    int rc = image_client_look(self, id, 1, &state, err);

    return rc != 0 ? rc : state == SEG_THERE;
}

/* Whether it was new is known when the server has answered, and nobody waits for that. */
static int remote_put(void *self, const struct seg_id *id, const struct seg_form *form,
                      struct plx_err *err)
{
    int rc = image_client_put(self, id, form, err);

    return rc != 0 ? rc : 1;
}

static int remote_commit(void *self, struct plx_err *err)
{
    return image_client_sync(self, err);
}

static int remote_name_put(void *self, const char *name, const void *value, size_t len,
                           const struct seg_id *ids, size_t n, size_t *missing, struct plx_err *err)
{
    struct seg_id lacks;
    int rc = image_client_name(self, value, len, &lacks, err);

    if (rc != 1) {
        return rc;
    }
    for (*missing = 0; *missing < n; ++*missing) {
        if (seg_id_eq(&ids[*missing], &lacks)) {
            return 1;
        }
    }
    return plx_fail(err, PLX_ECORRUPT, "the image server misses a segment that %s has not", name);
}

static void remote_close(void *self)
{
    (void)self;
}

static const struct seg_ops remote_ops = {
    .kind = "server",
    .has = remote_has,
    .look = remote_look,
    .put = remote_put,
    .commit = remote_commit,
    .name_put = remote_name_put,
    .close = remote_close,
};

int store_open_remote(struct image_client *client, struct store **out, struct plx_err *err)
{
    return store_open_backend(&remote_ops, client, out, err);
}
