/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_alloc.c - which MiB of the file are in use, and the way of freed space back.
 *
 * Freed space passes three lists. *fresh*: the entry that pointed to it changed in memory.
 * *logged*: a log entry without it is durable (a crash cannot bring it back). *waiting*: since then
 * everything that was under way has to end, because it may still read or write there. For that,
 * operations are counted under one of two parities; when the other parity has run dry the
 * parities change places, and what waited since the last change is free.
 *
 * All functions hold the vhdx's lock. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/vhdx_int.h"

static bool used(const struct vhdx *v, uint64_t unit)
{
    return (v->used[unit / 8] >> unit % 8 & 1) != 0;
}

static void mark(struct vhdx *v, uint64_t unit, uint64_t count, bool on)
{
    for (uint64_t i = unit; i < unit + count; i++) {
        uint8_t bit = (uint8_t)(1 << i % 8);
        v->used[i / 8] = (uint8_t)(on ? v->used[i / 8] | bit : v->used[i / 8] & ~bit);
    }
}

static bool make_room(struct vhdx *v, uint64_t units)
{
    if (units > v->used_cap) {
        uint64_t cap = (units + units / 2 + 4096) / 8 * 8;
        uint8_t *grown = plx_realloc(v->used, cap / 8);
        if (grown == NULL) {
            return false;
        }
        memset(grown + v->used_cap / 8, 0, (cap - v->used_cap) / 8);
        v->used = grown;
        v->used_cap = cap;
    }
    return true;
}

/* Two owners of one MiB, or one beyond the file, is damage. */
static int claim(struct vhdx *v, uint64_t off, uint64_t len, const char *what, uint64_t which,
                 struct plx_err *err)
{
    uint64_t unit = off / VHDX_MIB, count = (len + VHDX_MIB - 1) / VHDX_MIB;

    if (unit > v->units || count > v->units - unit) {
        return plx_fail(err, PLX_ECORRUPT, "%s: %s %llu is beyond the end of the file", v->f->path,
                        what, (unsigned long long)which);
    }
    for (uint64_t i = unit; i < unit + count; i++) {
        if (used(v, i)) {
            return plx_fail(err, PLX_ECORRUPT, "%s: %s %llu stands where something else does",
                            v->f->path, what, (unsigned long long)which);
        }
    }
    mark(v, unit, count, true);
    v->free_units -= count;
    return 0;
}

static int claim_entries(struct vhdx *v, struct plx_err *err)
{
    int rc = 0;

    for (uint64_t b = 0; b < v->nblocks && rc == 0; b++) {
        uint64_t e = v->bat[vhdx_index(v, b)];
        if (VHDX_STATE(e) >= VHDX_FULL) {
            rc = claim(v, VHDX_OFFSET(e), v->geo.block, "block", b, err);
        }
    }
    for (uint64_t c = 0; v->has_parent && c < v->nchunks && rc == 0; c++) {
        uint64_t e = v->bat[vhdx_bitmap_index(v, c)];
        if (VHDX_STATE(e) == VHDX_FULL) {
            rc = claim(v, VHDX_OFFSET(e), VHDX_MIB, "sector bitmap", c, err);
        }
    }
    return rc;
}

int vhdx_units_init(struct vhdx *v, struct plx_err *err)
{
    uint64_t size;
    int rc = io_size(v->f, &size, err);

    if (rc != 0) {
        return rc;
    }
    v->units = (size + VHDX_MIB - 1) / VHDX_MIB;
    if (!make_room(v, v->units)) {
        return io_no_memory(v->f->path, err);
    }
    v->free_units = v->units;
    rc = claim(v, 0, VHDX_MIB, "the header", 0, err);
    if (rc == 0) {
        rc = claim(v, v->h.log_offset, v->h.log_length, "the log", 0, err);
    }
    if (rc == 0) {
        rc = claim(v, v->meta_at.off, v->meta_at.len, "the metadata", 0, err);
    }
    if (rc == 0) {
        rc = claim(v, v->bat_at.off, v->bat_at.len, "the block table", 0, err);
    }
    return rc == 0 ? claim_entries(v, err) : rc;
}

/* @count free units in a row below the end; false when a look around finds none. */
static bool find_free(struct vhdx *v, uint64_t count, uint64_t *unit)
{
    uint64_t run = 0;

    if (v->free_units < count) {
        return false;
    }
    for (uint64_t i = 0; i < v->units; i++) {
        uint64_t at = (v->hint + i) % v->units;
        run = at == 0 ? 0 : run;
        run = used(v, at) ? 0 : run + 1;
        if (run == count) {
            *unit = at + 1 - count;
            v->hint = (at + 1) % v->units;
            return true;
        }
    }
    return false;
}

int vhdx_alloc(struct vhdx *v, uint64_t count, uint64_t *unit, struct plx_err *err)
{
    int rc;

    if (find_free(v, count, unit)) {
        rc = io_punch(v->f, *unit * VHDX_MIB, count * VHDX_MIB, false, err);
        v->free_units -= rc == 0 ? count : 0;
    } else {
        *unit = v->units;
        rc = make_room(v, v->units + count) ? io_truncate(v->f, (v->units + count) * VHDX_MIB, err)
                                            : io_no_memory(v->f->path, err);
        v->units += rc == 0 ? count : 0;
    }
    if (rc == 0) {
        mark(v, *unit, count, true);
    }
    return rc;
}

void vhdx_release(struct vhdx *v, uint64_t unit, uint64_t count)
{
    struct vhdx_free *r = plx_calloc(1, sizeof *r);

    if (r != NULL) { /* else it stays marked until the next open */
        *r = (struct vhdx_free){unit, count, v->fresh};
        v->fresh = r;
    }
}

static void move(struct vhdx_free **from, struct vhdx_free **to)
{
    while (*from != NULL) {
        struct vhdx_free *r = *from;
        *from = r->next;
        r->next = *to;
        *to = r;
    }
}

static void list_free(struct vhdx_free **list)
{
    while (*list != NULL) {
        struct vhdx_free *r = *list;
        *list = r->next;
        plx_free(r);
    }
}

void vhdx_release_ready(struct vhdx *v)
{
    while (v->under_way[v->parity ^ 1] == 0 && (v->logged != NULL || v->waiting != NULL)) {
        for (struct vhdx_free *r = v->waiting; r != NULL; r = r->next) {
            mark(v, r->unit, r->count, false);
            v->free_units += r->count;
            /* Give the host its space back; what fails is punched when it is used again. */
            (void)io_punch(v->f, r->unit * VHDX_MIB, r->count * VHDX_MIB, false, NULL);
        }
        list_free(&v->waiting);
        move(&v->logged, &v->waiting);
        v->parity ^= 1;
    }
}

void vhdx_release_logged(struct vhdx *v, struct vhdx_free **list)
{
    move(list, &v->logged);
    vhdx_release_ready(v);
}

void vhdx_units_free(struct vhdx *v)
{
    list_free(&v->fresh);
    list_free(&v->logged);
    list_free(&v->waiting);
    plx_free(v->used);
}

unsigned vhdx_enter(struct vhdx *v)
{
    (void)pthread_mutex_lock(&v->lock);
    unsigned token = v->parity;
    v->under_way[token]++;
    (void)pthread_mutex_unlock(&v->lock);
    return token;
}

void vhdx_leave(struct vhdx *v, unsigned token)
{
    (void)pthread_mutex_lock(&v->lock);
    PLX_CHECK(v->under_way[token] != 0);
    if (--v->under_way[token] == 0 && token != v->parity) {
        vhdx_release_ready(v);
    }
    (void)pthread_mutex_unlock(&v->lock);
}
