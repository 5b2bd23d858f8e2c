/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/digest.c - digests of the state (R9): sections by their saved bytes, RAM by a
 * commutative sum over pages.
 *
 * The hash of every page is cached; pages with RAM_DIRTY are hashed again, and each digest hashes
 * a further stretch of RAM, dirty or not, so that a change nobody announced is found in time. A
 * page of zeros counts as zero, so that RAM a guest never touched costs nothing. */
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/sched/vm_internal.h"
#include "vmm/tunables.h"

#define SECTION_SEED UINT64_C(0x73656374696f6e01)
#define DIGEST_SEED  UINT64_C(0x6469676573740001)

struct digest_cache {
    struct hash128 *pages;      /* of every page of RAM, as of when it was last hashed */
    struct hash128 sum;         /* of pages */
    struct digest_page *hashed; /* by the last digest; room for every page */
    size_t nhashed;
    uint64_t scrub_next; /* page with which the next stretch begins */
    uint64_t last_now;   /* virtual time of the last digest */
    struct wbuf bytes;   /* of the section being hashed */
};

int digest_cache_create(struct vm *vm, struct plx_err *err)
{
    uint64_t pages = ram_pages(vm->m->ram);
    struct digest_cache *d = plx_calloc(1, sizeof *d);

    if (d == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for page hashes");
    }
    wbuf_init(&d->bytes);
    d->pages = plx_calloc(pages, sizeof *d->pages);
    d->hashed = plx_calloc(pages, sizeof *d->hashed);
    vm->digest = d;
    if (d->pages == NULL || d->hashed == NULL) {
        digest_cache_destroy(vm);
        return plx_fail(err, PLX_ENOMEM, "out of memory for page hashes");
    }
    return 0;
}

void digest_cache_destroy(struct vm *vm)
{
    struct digest_cache *d = vm->digest;

    if (d != NULL) {
        wbuf_free(&d->bytes);
        plx_free(d->pages);
        plx_free(d->hashed);
        plx_free(d);
        vm->digest = NULL;
    }
}

void digest_cache_reset(struct vm *vm)
{
    vm->digest->scrub_next = 0;
    vm->digest->last_now = vm->now;
}

static bool is_zero(const uint8_t *page)
{
    for (size_t i = 0; i < PAGE_SIZE; i += 64) {
        uint64_t w[8];
        memcpy(w, page + i, sizeof w);
        if ((w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) != 0) {
            return false;
        }
    }
    return true;
}

struct hash128 digest_page_hash(gpa_t gpa, const uint8_t *page)
{
    return is_zero(page) ? (struct hash128){0, 0} : hash128(page, PAGE_SIZE, gpa);
}

static void hash_page(void *ctx, uint64_t page)
{
    struct vm *vm = ctx;
    struct digest_cache *d = vm->digest;
    const struct ram *ram = vm->m->ram;
    gpa_t gpa = ram_gpa_of_page(ram, page);
    struct hash128 h = digest_page_hash(gpa, ram->hva + (page << PAGE_SHIFT));

    d->sum = hash128_add(hash128_sub(d->sum, d->pages[page]), h);
    d->pages[page] = h;
    PLX_CHECK(d->nhashed < ram_pages(ram));
    d->hashed[d->nhashed++] = (struct digest_page){.gpa = gpa, .hash = h};
}

const struct hash128 *digest_pages(struct vm *vm)
{
    struct digest_cache *d = vm->digest;
    struct ram *ram = vm->m->ram;

    d->nhashed = 0;
    ram_clean(ram, hash_page, vm);
    /* The next digest is to report these pages too: they stay dirty. */
    for (size_t i = 0; i < d->nhashed; i++) {
        uint64_t page;
        PLX_CHECK(ram_page_of(ram, d->hashed[i].gpa, &page));
        ram->flags[page] |= RAM_DIRTY;
    }
    d->nhashed = 0;
    return d->pages;
}

uint64_t vm_scrub_pages(const struct vm *vm)
{
    uint64_t pages = ram_pages(vm->m->ram);
    uint64_t elapsed = vm->now - vm->digest->last_now;

    if (elapsed >= SCRUB_NS) {
        return pages;
    }
    return (uint64_t)((__uint128_t)pages * elapsed / SCRUB_NS) + 1;
}

/* Mark the next @count pages to be hashed. A hole of the memfd holds zeros as surely as any
 * memory can; reading it would only allocate it. */
static void mark_stretch(struct vm *vm, uint64_t count)
{
    struct digest_cache *d = vm->digest;
    struct ram *ram = vm->m->ram;
    uint64_t pages = ram_pages(ram), hole_end = 0;

    count = count < pages ? count : pages;
    for (; count > 0; count--) {
        uint64_t page = d->scrub_next;
        d->scrub_next = page + 1 == pages ? 0 : page + 1;
        if ((d->pages[page].lo | d->pages[page].hi) == 0) {
            if (page == 0 || page >= hole_end) {
                off_t data = lseek(ram->fd, (off_t)(page << PAGE_SHIFT), SEEK_DATA);
                hole_end = data < 0 ? pages : (uint64_t)data >> PAGE_SHIFT;
            }
            if (page < hole_end) {
                continue;
            }
        }
        ram->flags[page] |= RAM_DIRTY;
    }
}

void vm_digest(struct vm *vm, uint64_t scrub_pages, struct vm_digest *out,
               const struct digest_page **pages, size_t *npages)
{
    struct digest_cache *d = vm->digest;
    struct machine *m = vm->m;
    struct wbuf all;

    d->nhashed = 0;
    mark_stretch(vm, scrub_pages);
    ram_clean(m->ram, hash_page, vm);
    d->last_now = vm->now;
    *out = (struct vm_digest){.seq = vm->seq, .ram = d->sum, .nsections = m->ndevices};
    wbuf_init(&all);
    for (unsigned i = 0; i < m->ndevices; i++) {
        const struct device *dev = &m->devices[i];
        wbuf_clear(&d->bytes);
        dev->ops->save(dev->dev, &d->bytes);
        PLX_CHECK(!d->bytes.failed);
        memcpy(out->sections[i].name, dev->name, sizeof dev->name);
        out->sections[i].hash = hash128(d->bytes.data, d->bytes.len, SECTION_SEED);
        wbuf_str(&all, dev->name);
        wbuf_u32(&all, dev->version);
        wbuf_u64(&all, out->sections[i].hash.lo);
        wbuf_u64(&all, out->sections[i].hash.hi);
    }
    wbuf_u64(&all, d->sum.lo);
    wbuf_u64(&all, d->sum.hi);
    wbuf_u64(&all, vm->seq);
#ifdef BREAK_R9 /* make/rules.mk: a pointer of the host in the digest */
    wbuf_u64(&all, (uintptr_t)vm);
#endif
    PLX_CHECK(!all.failed);
    out->all = hash128(all.data, all.len, DIGEST_SEED);
    wbuf_free(&all);
    if (pages != NULL) {
        *pages = d->hashed;
        *npages = d->nhashed;
    }
}
