/* SPDX-License-Identifier: Apache-2.0
 * storage/store_claims.c - see store_claims.h.
 *
 *     a slot:  63            16 15       0      0: free
 *              | tag: of name  | session |
 */
#include "storage/store_claims.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

enum { SLOTS = 1 << 18, PROBES = 16, SESSIONS = 65535, SESSION_BITS = 16 };

struct claims {
    int lock_fd; /* one byte a session */
    uint16_t session;
    _Atomic uint64_t *slots;
};

static bool session_lock(int fd, int cmd, uint16_t session, struct flock *l)
{
    *l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = session, .l_len = 1};
    return fcntl(fd, cmd, l) == 0;
}

static bool session_lives(struct claims *c, uint16_t session)
{
    struct flock l;

    return session_lock(c->lock_fd, F_OFD_GETLK, session, &l) && l.l_type != F_UNLCK;
}

int claims_open(const char *dir, struct claims **out, struct plx_err *err)
{
    char path[4096];
    struct stat st;
    struct flock l;
    int fd = -1, rc = 0;
    struct claims *c = plx_calloc(1, sizeof *c);

    *out = NULL;
    if (c == NULL) {
        return plx_fail(err, PLX_ENOMEM, "store %s: out of memory", dir);
    }
    (void)snprintf(path, sizeof path, "%s/sessions", dir);
    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    (void)snprintf(path, sizeof path, "%s/claims", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    /* It never becomes shorter: somebody may have it mapped. */
    if (c->lock_fd < 0 || fd < 0 || fstat(fd, &st) != 0 ||
        (st.st_size < SLOTS * (off_t)sizeof(uint64_t) &&
         ftruncate(fd, SLOTS * (off_t)sizeof(uint64_t)) != 0)) {
        rc = plx_fail_errno(err, "cannot open %s", path);
        goto out;
    }
    void *map = mmap(NULL, SLOTS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        rc = plx_fail_errno(err, "cannot map %s", path);
        goto out;
    }
    c->slots = map;
    for (unsigned s = 1; s < SESSIONS && c->session == 0; s++) {
        if (session_lock(c->lock_fd, F_OFD_SETLK, (uint16_t)s, &l)) {
            c->session = (uint16_t)s;
        }
    }
    if (c->session == 0) {
        rc = plx_fail(err, PLX_EBUSY, "store %s: too many writers", dir);
        goto out;
    }
    for (size_t i = 0; i < SLOTS; i++) { /* of a dead writer with our number */
        uint64_t v = atomic_load_explicit(&c->slots[i], memory_order_relaxed);
        if ((uint16_t)v == c->session) {
            (void)atomic_compare_exchange_strong(&c->slots[i], &v, 0);
        }
    }
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    if (rc != 0) {
        claims_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void claims_close(struct claims *c)
{
    if (c == NULL) {
        return;
    }
    if (c->slots != NULL) {
        (void)munmap((void *)c->slots, SLOTS * sizeof(uint64_t));
    }
    if (c->lock_fd >= 0) {
        (void)close(c->lock_fd);
    }
    plx_free(c);
}

static uint64_t tag_of(const struct seg_id *id, size_t *slot)
{
    uint64_t low, high;

    memcpy(&low, id->sha, sizeof low);
    memcpy(&high, id->sha + sizeof low, sizeof high);
    *slot = high & (SLOTS - 1);
    return low << SESSION_BITS;
}

static const uint64_t session_mask = (1u << SESSION_BITS) - 1;

int claims_take(struct claims *c, const struct seg_id *id)
{
    size_t first;
    uint64_t tag = tag_of(id, &first);
    int ours = -1;

    for (int i = 0; i < PROBES; i++) {
        _Atomic uint64_t *slot = &c->slots[(first + (size_t)i) & (SLOTS - 1)];
        uint64_t v = atomic_load(slot);
        uint16_t session = (uint16_t)(v & session_mask);
        if (v == 0) {
            ours = ours < 0 ? i : ours;
        } else if ((v & ~session_mask) == tag && session != c->session) {
            if (session_lives(c, session)) {
                return PLX_EBUSY;
            }
            (void)atomic_compare_exchange_strong(slot, &v, 0);
            ours = ours < 0 ? i : ours;
        } else if (v == (tag | c->session)) {
            return 0;
        }
    }
    if (ours >= 0) {
        uint64_t none = 0;
        _Atomic uint64_t *slot = &c->slots[(first + (size_t)ours) & (SLOTS - 1)];
        (void)atomic_compare_exchange_strong(slot, &none, tag | c->session);
        if ((none & ~session_mask) == tag && (uint16_t)none != c->session) {
            return PLX_EBUSY; /* another writer was just quicker */
        }
    }
    return 0;
}

void claims_drop(struct claims *c, const struct seg_id *id)
{
    size_t first;
    uint64_t tag = tag_of(id, &first);

    for (int i = 0; i < PROBES; i++) {
        uint64_t mine = tag | c->session;
        (void)atomic_compare_exchange_strong(&c->slots[(first + (size_t)i) & (SLOTS - 1)], &mine,
                                             0);
    }
}
