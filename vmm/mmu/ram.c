/* SPDX-License-Identifier: Apache-2.0
 * vmm/mmu/ram.c - see ram.h. */
#include "vmm/mmu/ram.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"

int ram_create(uint64_t size, struct ram **out, struct plx_err *err)
{
    struct ram *ram;
    int rc;

    *out = NULL;
    if (size < RAM_MIN || size > RAM_MAX || PAGE_OFFSET(size) != 0) {
        return plx_fail(err, PLX_ERANGE, "memory must be 1 MiB to 64 GiB in whole pages, not %llu",
                        (unsigned long long)size);
    }
    ram = plx_calloc(1, sizeof *ram);
    if (ram == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    ram->size = size;
    ram->low = size < RAM_LOW_END ? size : RAM_LOW_END;
    ram->flags = plx_calloc(ram_pages(ram), 1);
    if (ram->flags == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "out of memory");
        goto err_free;
    }
    ram->fd = memfd_create("pollux-ram", MFD_CLOEXEC);
    if (ram->fd < 0) {
        rc = plx_fail_errno(err, "cannot create guest memory");
        goto err_flags;
    }
    if (ftruncate(ram->fd, (off_t)size) != 0) {
        rc = plx_fail_errno(err, "cannot size guest memory");
        goto err_close;
    }
    ram->hva = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd, 0);
    if (ram->hva == MAP_FAILED) {
        rc = plx_fail_errno(err, "cannot map %llu bytes of guest memory", (unsigned long long)size);
        goto err_close;
    }
    *out = ram;
    return 0;

err_close:
    (void)close(ram->fd);
err_flags:
    plx_free(ram->flags);
err_free:
    plx_free(ram);
    return rc;
}

void ram_destroy(struct ram *ram)
{
    if (ram != NULL) {
        (void)munmap(ram->hva, ram->size);
        (void)close(ram->fd);
        plx_free(ram->flags);
        plx_free(ram);
    }
}

void ram_watch(struct ram *ram, const struct ram_watcher *w)
{
    PLX_CHECK(ram->nwatchers < RAM_WATCHERS_MAX);
    ram->watchers[ram->nwatchers++] = *w;
}

void ram_unwatch(struct ram *ram, void *ctx)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < ram->nwatchers; i++) {
        if (ram->watchers[i].ctx != ctx) {
            ram->watchers[kept++] = ram->watchers[i];
        }
    }
    ram->nwatchers = kept;
}

void ram_tell(struct ram *ram, const void *ctx, gpa_t gpa, uint64_t len, bool flags)
{
    for (unsigned i = 0; i < ram->nwatchers; i++) {
        if (ram->watchers[i].ctx != ctx) {
            ram->watchers[i].written(ram->watchers[i].ctx, gpa, len, flags);
        }
    }
}

void ram_tell_deriving(struct ram *ram, const void *ctx, uint64_t page)
{
    for (unsigned i = 0; i < ram->nwatchers; i++) {
        const struct ram_watcher *w = &ram->watchers[i];
        if (w->ctx != ctx && w->deriving != NULL) {
            w->deriving(w->ctx, page);
        }
    }
}

bool ram_derived(const struct ram *ram, const void *ctx, uint64_t page)
{
    for (unsigned i = 0; i < ram->nwatchers; i++) {
        const struct ram_watcher *w = &ram->watchers[i];
        if (w->ctx != ctx && w->derived != NULL && w->derived(w->ctx, page)) {
            return true;
        }
    }
    return false;
}

/* Whole range in RAM? Ranges never wrap and may not span the hole. */
static uint8_t *ram_range(const struct ram *ram, gpa_t gpa, uint64_t len, uint64_t *first)
{
    uint64_t last;

    if (len == 0 || gpa + (len - 1) < gpa || !ram_page_of(ram, gpa, first) ||
        !ram_page_of(ram, gpa + (len - 1), &last)) {
        return NULL;
    }
    if (((gpa ^ (gpa + (len - 1))) & ~(RAM_HIGH_BASE - 1)) != 0 && gpa < RAM_HIGH_BASE) {
        return NULL;
    }
    return ram->hva + (*first << PAGE_SHIFT) + PAGE_OFFSET(gpa);
}

int ram_read(const struct ram *ram, gpa_t gpa, void *out, uint64_t len)
{
    uint64_t first;

    if (len == 0) {
        return 0;
    }
    const uint8_t *at = ram_range(ram, gpa, len, &first);
    if (at == NULL) {
        return PLX_ERANGE;
    }
    memcpy(out, at, len);
    return 0;
}

static void before_write(struct ram *ram, gpa_t gpa, uint64_t len, uint64_t first)
{
    uint64_t last = first + ((PAGE_OFFSET(gpa) + len - 1) >> PAGE_SHIFT);

    for (uint64_t page = first; page <= last; page++) {
        ram->flags[page] |= RAM_DIRTY;
        gpa_t base = ram_gpa_of_page(ram, page);
        gpa_t from = gpa > base ? gpa : base;
        gpa_t to = gpa + len < base + PAGE_SIZE ? gpa + len : base + PAGE_SIZE;
        ram_tell(ram, NULL, from, to - from, false);
    }
}

int ram_write(struct ram *ram, gpa_t gpa, const void *data, uint64_t len)
{
    uint64_t first;

    if (len == 0) {
        return 0;
    }
    uint8_t *at = ram_range(ram, gpa, len, &first);
    if (at == NULL) {
        return PLX_ERANGE;
    }
#ifndef BREAK_R8 /* make/rules.mk: a device that writes behind the watchers */
    before_write(ram, gpa, len, first);
#endif
    memcpy(at, data, len);
    return 0;
}

int ram_fill(struct ram *ram, gpa_t gpa, uint8_t byte, uint64_t len)
{
    uint64_t first;

    if (len == 0) {
        return 0;
    }
    uint8_t *at = ram_range(ram, gpa, len, &first);
    if (at == NULL) {
        return PLX_ERANGE;
    }
    before_write(ram, gpa, len, first);
    memset(at, byte, len);
    return 0;
}

void ram_clean(struct ram *ram, void (*visit)(void *ctx, uint64_t page), void *ctx)
{
    for (uint64_t page = 0; page < ram_pages(ram); page++) {
        uint64_t eight;
        while (page + sizeof eight <= ram_pages(ram)) { /* few pages are dirty: look at eight */
            memcpy(&eight, ram->flags + page, sizeof eight);
            if ((eight & (UINT64_MAX / 0xff * RAM_DIRTY)) != 0) {
                break;
            }
            page += sizeof eight;
        }
        if (page < ram_pages(ram) && (ram->flags[page] & RAM_DIRTY) != 0) {
            ram->flags[page] &= (uint8_t)~RAM_DIRTY;
            visit(ctx, page);
        }
    }
    for (unsigned i = 0; i < ram->nwatchers; i++) {
        ram->watchers[i].cleaned(ram->watchers[i].ctx);
    }
}
