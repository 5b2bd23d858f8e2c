/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/block.c - see block.h. When the cache is full what nothing is translated of goes, which
 * is most of what ran a few times; or everything, if that is not a quarter of it. */
#include "vmm/cpu/block.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/cpu/mem.h"

enum {
    BLOCKS_DEFAULT = 131072,
    BLOCKS_MIN = 1,
    BLOCK_INSNS = 8, /* so many times the blocks are the instructions that there is room for */
    CHUNK_SHIFT = 6,
    SINGLES = 256,
    JUMPS = 4096
};

struct code_page {
    uint64_t chunks; /* bit i: code in bytes [64 i, 64 i + 64) */
    struct block *list;
};

/* An instruction that spans two pages, or whose CS has a limit: checked byte by byte each time. */
struct single {
    uint8_t bytes[INSN_BYTES_MAX];
    uint8_t len; /* of the bytes that decide what it is; 0: free */
    uint8_t mode;
    struct insn insn;
};

/* A short cut to a block in 64-bit mode, for whatever RIP may be fetched from there. It goes with
 * its block; the key counts when all go. */
struct jump {
    uintptr_t hva; /* of the first byte; 0: free */
    uint64_t key;  /* v->code_key */
    struct block *block;
};

/* Chunks of a page with common code that were stored to in a parallel part. */
struct stored {
    uint64_t page, chunks;
};
enum { STORED_MAX = 64 };

struct blocks {
    struct code_common *common;                         /* whose they are; NULL: one vCPU's own */
    void (*drop)(struct jit *jit, struct block *block); /* NULL: nothing is translated */
    struct jit *jit;
    uint64_t key; /* of v->code_key: what was dropped */
    unsigned max, n, ninsns;
    uint64_t hash_mask;
    struct block **hash;
    struct code_page **pages; /* per page of RAM; NULL: no code known */
    uint64_t *listed;         /* pages that are not NULL */
    unsigned nlisted, listed_max;
    struct block *retired; /* dropped, perhaps while it ran: freed at the next block_at */
    struct single singles[SINGLES];
    struct jump jumps[JUMPS];
    struct insn build[BLOCK_INSNS_MAX];
    struct stored stored[STORED_MAX]; /* of a vCPU's own: for the common ones */
    unsigned nstored;
    bool stored_more; /* than there is room for */
};

static void destroy(struct blocks *b)
{
    if (b != NULL) {
        plx_free(b->hash);
        plx_free(b->pages);
        plx_free(b->listed);
        plx_free(b);
    }
}

static struct blocks *create(const struct vcpu *v, struct code_common *common, unsigned entries)
{
    struct blocks *b = plx_calloc(1, sizeof *b);

    if (b == NULL) {
        return NULL;
    }
    decode_init();
    b->common = common;
    b->key = CODE_STEP;
    b->max = entries == 0 || entries > BLOCKS_DEFAULT ? BLOCKS_DEFAULT
             : entries < BLOCKS_MIN                   ? BLOCKS_MIN
                                                      : entries;
    b->hash_mask = 1;
    while (b->hash_mask < b->max) {
        b->hash_mask *= 2;
    }
    b->hash = plx_calloc(b->hash_mask * 2, sizeof(struct block *));
    b->hash_mask = b->hash_mask * 2 - 1;
    b->pages = plx_calloc(ram_pages(v->ram), sizeof(struct code_page *));
    b->listed = plx_calloc(b->max, sizeof *b->listed);
    if (b->hash == NULL || b->pages == NULL || b->listed == NULL) {
        destroy(b);
        return NULL;
    }
    return b;
}

int vcpu_blocks_create(struct vcpu *v, struct code_common *common, unsigned entries)
{
    v->own.blocks = create(v, NULL, entries);
    if (v->own.blocks == NULL) {
        return PLX_ENOMEM;
    }
    if (common != NULL) {
        PLX_CHECK(common->nusers < CODE_USERS_MAX);
        if (common->code.blocks == NULL) {
            common->code.blocks = create(v, common, entries);
        }
        if (common->code.blocks == NULL) {
            return PLX_ENOMEM;
        }
        common->user[common->nusers++] = v;
        v->common = common;
    }
    blocks_select(v);
    return 0;
}

void blocks_select(struct vcpu *v)
{
    v->blocks = v->common != NULL && !v->parallel ? v->common->code.blocks : v->own.blocks;
    v->jit = v->blocks->jit;
    v->code_key = v->blocks->key + code_kind(v);
}

void blocks_translated(struct code *c, struct jit *jit,
                       void (*drop)(struct jit *jit, struct block *block))
{
    c->jit = c->blocks->jit = jit;
    c->blocks->drop = drop;
}

static void free_retired(struct blocks *b)
{
    while (b->retired != NULL) {
        struct block *next = b->retired->page_next;
        plx_free(b->retired);
        b->retired = next;
    }
}

static void forget_translation(struct blocks *b, struct block *block)
{
    if (block->within != NULL) {
        b->drop(b->jit, block);
    }
}

/* @page has or (else) has no more blocks of @b. */
static void set_use(struct vcpu *v, const struct blocks *b, uint64_t page, bool has)
{
    struct code_common *all = b->common;
    uint8_t bit = all != NULL ? USE_COMMON : USE_CODE;

    for (unsigned i = 0; i < (all != NULL ? all->nusers : 1); i++) {
        struct vcpu *user = all != NULL ? all->user[i] : v;
        if (!has) {
            user->use[page] &= (uint8_t)~bit;
        } else if ((user->use[page] & bit) == 0) {
            user->use[page] |= bit;
            vcpu_mem_protect(user, page);
            if (all == NULL && !v->parallel) {
                ram_tell_deriving(v->ram, v, page);
            }
        }
    }
}

/* Some of @b was dropped: who runs it looks up. */
static void call_attention(struct vcpu *v, const struct blocks *b)
{
    for (unsigned i = 0; b->common != NULL && i < b->common->nusers; i++) {
        b->common->user[i]->attention = true;
    }
    v->attention = true;
}

static void drop_blocks(struct vcpu *v, struct blocks *b)
{
    for (unsigned i = 0; i < b->nlisted; i++) {
        struct code_page *p = b->pages[b->listed[i]];
        while (p->list != NULL) {
            struct block *next = p->list->page_next;
            forget_translation(b, p->list);
            p->list->page_next = b->retired;
            b->retired = p->list;
            p->list = next;
        }
        plx_free(p);
        b->pages[b->listed[i]] = NULL;
        set_use(v, b, b->listed[i], false);
    }
    b->nlisted = 0;
    b->n = b->ninsns = 0;
    b->key += CODE_STEP;
    v->code_key += v->blocks == b ? CODE_STEP : 0; /* others select before they run */
    memset(b->hash, 0, (b->hash_mask + 1) * sizeof(struct block *));
    call_attention(v, b);
}

void vcpu_blocks_drop(struct vcpu *v)
{
    drop_blocks(v, v->blocks);
}

void vcpu_blocks_drop_all(struct vcpu *v)
{
    drop_blocks(v, v->own.blocks);
    if (v->common != NULL) {
        drop_blocks(v, v->common->code.blocks);
    }
}

void vcpu_blocks_destroy(struct vcpu *v)
{
    struct code_common *all = v->common;

    if (v->own.blocks != NULL) {
        drop_blocks(v, v->own.blocks);
        free_retired(v->own.blocks);
        destroy(v->own.blocks);
        v->own.blocks = NULL;
    }
    if (all == NULL) {
        return;
    }
    if (all->nusers == 1) {
        drop_blocks(v, all->code.blocks);
        free_retired(all->code.blocks);
        destroy(all->code.blocks);
        all->code.blocks = NULL;
    }
    for (unsigned i = 0; i < all->nusers; i++) {
        if (all->user[i] == v) {
            all->user[i] = all->user[--all->nusers];
        }
    }
    v->common = NULL;
}

static struct block **bucket(const struct blocks *b, gpa_t gpa, unsigned mode)
{
    return &b->hash[(gpa ^ (gpa >> 12) ^ ((uint64_t)mode << 5)) & b->hash_mask];
}

static void unhash(struct blocks *b, struct block *block)
{
    struct block **at = bucket(b, block->gpa, block->mode);

    while (*at != block) {
        at = &(*at)->hash_next;
    }
    *at = block->hash_next;
}

static struct jump *jump_at(struct blocks *b, uintptr_t hva)
{
    return &b->jumps[(hva ^ hva >> 12) % JUMPS];
}

static void forget_jump(const struct vcpu *v, struct blocks *b, const struct block *block)
{
    uintptr_t hva =
        (uintptr_t)ram_page_hva(v->ram, block->gpa) + (uintptr_t)PAGE_OFFSET(block->gpa);
    struct jump *j = jump_at(b, hva);

    if (j->block == block) {
        *j = (struct jump){0};
    }
}

static uint64_t chunks_of(uint64_t off, uint64_t len)
{
    unsigned first = (unsigned)(off >> CHUNK_SHIFT);
    unsigned last = (unsigned)((off + len - 1) >> CHUNK_SHIFT);

    return (UINT64_MAX >> (63 - last)) & (UINT64_MAX << first);
}

/* Bytes that were stored to; NULL: none, what goes is what nothing is translated of. */
struct range {
    gpa_t gpa;
    uint64_t len;
};

static bool goes(const struct block *block, const struct range *written)
{
    return written == NULL ? block->within == NULL
                           : block->gpa < written->gpa + written->len &&
                                 written->gpa < block->gpa + block->bytes;
}

static void drop_some(struct vcpu *v, struct blocks *b, uint64_t page, const struct range *written)
{
    struct code_page *p = b->pages[page];

    p->chunks = 0;
    for (struct block **at = &p->list; *at != NULL;) {
        struct block *block = *at;
        if (goes(block, written)) {
            *at = block->page_next;
            unhash(b, block);
            forget_translation(b, block);
            block->page_next = b->retired;
            b->retired = block;
            b->n--;
            b->ninsns -= block->n;
            forget_jump(v, b, block);
            call_attention(v, b);
        } else {
            p->chunks |= chunks_of(PAGE_OFFSET(block->gpa), block->bytes);
            at = &block->page_next;
        }
    }
    if (p->list == NULL) {
        set_use(v, b, page, false);
    }
}

/* Bytes of @page were stored to. */
static void drop_written(struct vcpu *v, struct blocks *b, uint64_t page, gpa_t gpa, uint64_t len)
{
    const struct code_page *p = b->pages[page];

    if (p != NULL && (p->chunks & chunks_of(PAGE_OFFSET(gpa), len)) != 0) {
        drop_some(v, b, page, &(struct range){gpa, len});
    }
}

static bool is_full(const struct blocks *b, unsigned max)
{
    return b->n >= max || b->nlisted >= max || b->ninsns / BLOCK_INSNS >= max;
}

/* The cache is full. */
static void make_room(struct vcpu *v, struct blocks *b)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < b->nlisted; i++) {
        uint64_t page = b->listed[i];
        drop_some(v, b, page, NULL);
        if (b->pages[page]->list != NULL) {
            b->listed[kept++] = page;
        } else {
            plx_free(b->pages[page]);
            b->pages[page] = NULL;
        }
    }
    b->nlisted = kept;
    if (is_full(b, b->max / 4 * 3)) {
        drop_blocks(v, b);
    }
    free_retired(b);
}

/* The same of the common blocks, in a parallel part: they stand still. */
static void note_stored(struct vcpu *v, uint64_t page, uint64_t chunks)
{
    struct blocks *own = v->own.blocks;
    unsigned i = 0;

    while (i < own->nstored && own->stored[i].page != page) {
        i++;
    }
    if (i == STORED_MAX) {
        own->stored_more = true;
        return;
    }
    if (i == own->nstored) {
        own->stored[own->nstored++] = (struct stored){.page = page};
    }
    own->stored[i].chunks |= chunks;
}

void blocks_written(struct vcpu *v, gpa_t gpa, uint64_t len)
{
    uint64_t page;

    if (len == 0 || !ram_page_of(v->ram, gpa, &page)) {
        return;
    }
    if ((v->use[page] & USE_CODE) != 0) {
        drop_written(v, v->own.blocks, page, gpa, len);
    }
    if ((v->use[page] & USE_COMMON) == 0) {
        return;
    }
    struct blocks *common = v->common->code.blocks;
    if (!v->parallel) {
        drop_written(v, common, page, gpa, len);
    } else if ((common->pages[page]->chunks & chunks_of(PAGE_OFFSET(gpa), len)) != 0) {
        note_stored(v, page, chunks_of(PAGE_OFFSET(gpa), len));
    }
}

void blocks_revoked(struct vcpu *v, uint64_t page)
{
    if ((v->use[page] & USE_CODE) != 0) {
        drop_written(v, v->own.blocks, page, ram_gpa_of_page(v->ram, page), PAGE_SIZE);
    }
}

void blocks_settle(struct vcpu *v)
{
    struct blocks *own = v->own.blocks;

    if (own->stored_more) {
        drop_blocks(v, v->common->code.blocks);
    }
    for (unsigned i = 0; i < own->nstored && !own->stored_more; i++) {
        gpa_t gpa = ram_gpa_of_page(v->ram, own->stored[i].page);
        for (uint64_t left = own->stored[i].chunks; left != 0; left &= left - 1) {
            drop_written(v, v->common->code.blocks, own->stored[i].page,
                         gpa + ((gpa_t)__builtin_ctzll(left) << CHUNK_SHIFT), 1 << CHUNK_SHIFT);
        }
    }
    own->nstored = 0;
    own->stored_more = false;
}

static enum decode_mode mode_now(const struct vcpu *v)
{
    uint16_t attr = v->c.seg[SEG_CS].attr;

    if (cpu_is64(&v->c)) {
        return DECODE_64;
    }
    return (attr & SEG_DB) != 0 ? DECODE_32 : DECODE_16;
}

/* Code outside of RAM: ROM, or a bus without memory. */
static void fetch_foreign(struct vcpu *v, gpa_t gpa, uint8_t *out, unsigned len)
{
    if (v->ops->rom_read == NULL || !v->ops->rom_read(v->ops_ctx, gpa, out, len)) {
        memset(out, 0xff, len);
    }
}

/* The bytes of the next page, as many as 15 bytes need. */
static void fetch_rest(struct vcpu *v, enum decode_mode mode, gva_t lin, uint8_t *out, unsigned len)
{
    gva_t next = PAGE_BASE(lin) + PAGE_SIZE;
    gpa_t gpa = mem_fetch(v, mode == DECODE_64 ? next : (uint32_t)next);
    const uint8_t *hva = ram_page_hva(v->ram, gpa);

    if (hva != NULL) {
        memcpy(out, hva, len);
    } else {
        fetch_foreign(v, gpa, out, len);
    }
}

/* One instruction at @lin, whose first @have bytes (the rest of its page) are at @first. The next
 * page is fetched from only if the instruction reaches into it. */
static const struct insn *single(struct vcpu *v, enum decode_mode mode, gva_t lin,
                                 const uint8_t *first, unsigned have)
{
    struct single *s = &v->blocks->singles[lin % SINGLES];
    uint8_t bytes[INSN_BYTES_MAX];
    unsigned len = have < INSN_BYTES_MAX ? have : INSN_BYTES_MAX;

    memcpy(bytes, first, len);
    if (s->len != 0 && s->mode == mode &&
        memcmp(s->bytes, bytes, s->len < len ? s->len : len) == 0) {
        if (s->len <= len) {
            return &s->insn;
        }
        fetch_rest(v, mode, lin, bytes + len, INSN_BYTES_MAX - len);
        len = INSN_BYTES_MAX;
        if (memcmp(s->bytes, bytes, s->len) == 0) {
            return &s->insn;
        }
    }
    s->len = 0;
    if (decode_insn(v->model, mode, bytes, len, &s->insn) != 0) {
        fetch_rest(v, mode, lin, bytes + len, INSN_BYTES_MAX - len);
        len = INSN_BYTES_MAX;
        PLX_CHECK(decode_insn(v->model, mode, bytes, len, &s->insn) == 0);
    }
    s->insn.flags |= INSN_SINGLE;
    memcpy(s->bytes, bytes, len);
    s->len = (s->insn.flags & INSN_BAD) != 0 ? 0 : s->insn.len; /* what made it bad is not known */
    s->mode = (uint8_t)mode;
    return &s->insn;
}

/* SDM Vol. 3A, "Limit Checking": every byte of the instruction lies within CS. */
static void check_limit(struct vcpu *v, unsigned len)
{
    if (!cpu_is64(&v->c) && v->c.rip + len - 1 > v->c.seg[SEG_CS].limit) {
        cpu_gp0(v);
    }
}

static struct code_page *code_page(struct vcpu *v, uint64_t page)
{
    struct blocks *b = v->blocks;

    if (b->pages[page] == NULL) {
        struct code_page *p = plx_calloc(1, sizeof *p);
        PLX_CHECK(p != NULL); /* small allocations: nothing sensible is left to do */
        b->pages[page] = p;
        b->listed[b->nlisted++] = page;
    }
    set_use(v, b, page, true);
    return b->pages[page];
}

/* Decode from @at (@have bytes to the page's end). NULL: the first instruction spans pages. */
static struct block *build(struct vcpu *v, enum decode_mode mode, gpa_t gpa, const uint8_t *at,
                           unsigned have, uint64_t page)
{
    struct blocks *b = v->blocks;
    unsigned n = 0, bytes = 0;

    while (n < BLOCK_INSNS_MAX && bytes < have) {
        struct insn *in = &b->build[n];
        if (decode_insn(v->model, mode, at + bytes, have - bytes, in) != 0) {
            break;
        }
        n++;
        bytes += in->len;
        if ((in->flags & (INSN_BRANCH | INSN_ENDS_BLOCK)) != 0) {
            break;
        }
    }
    if (n == 0) {
        return NULL;
    }
    /* An instruction that does not exist may owe that to more bytes than its length says. */
    if ((b->build[n - 1].flags & INSN_BAD) != 0) {
        unsigned seen = bytes - 1 + INSN_BYTES_MAX;
        bytes = seen < have ? seen : have;
    }

    struct block *block = plx_calloc(1, sizeof *block + n * sizeof(struct insn));
    PLX_CHECK(block != NULL);
    block->gpa = gpa;
    block->mode = (uint8_t)mode;
    block->n = (uint8_t)n;
    block->bytes = (uint16_t)bytes;
    memcpy(block->insns, b->build, n * sizeof(struct insn));

    struct code_page *p = code_page(v, page);
    block->page_next = p->list;
    p->list = block;
    p->chunks |= chunks_of(PAGE_OFFSET(gpa), bytes);
    struct block **head = bucket(b, gpa, mode);
    block->hash_next = *head;
    *head = block;
    b->n++;
    b->ninsns += n;
    return block;
}

struct block *block_known(const struct vcpu *v, gpa_t gpa, unsigned mode)
{
    struct block *block = *bucket(v->blocks, gpa, mode);

    while (block != NULL && (block->gpa != gpa || block->mode != mode)) {
        block = block->hash_next;
    }
    return block;
}

/* The block at RIP by way of its translation; NULL: *one is the instruction there. */
static struct block *find(struct vcpu *v, const struct insn **one)
{
    struct blocks *b = v->blocks;
    const struct cpu_seg *cs = &v->c.seg[SEG_CS];
    enum decode_mode mode = mode_now(v);
    gva_t lin = mode == DECODE_64 ? v->c.rip : (uint32_t)(cs->base + v->c.rip);
    bool limited = mode != DECODE_64 && cs->limit != UINT32_MAX;
    uint64_t page;

    if (mode != DECODE_64) {
        v->c.rip &= UINT32_MAX;
    }
    if (limited) {
        check_limit(v, 1);
    }
    gpa_t gpa = mem_fetch(v, lin);
    struct block *known = limited ? NULL : block_known(v, gpa, mode);
    if (known != NULL) {
        return known;
    }
    v->cur = NULL; /* no instruction is under way, and the last one may go */
    if (b->retired != NULL) {
        free_retired(b);
    }
    unsigned have = (unsigned)(PAGE_SIZE - PAGE_OFFSET(gpa));
    if (!ram_page_of(v->ram, gpa, &page)) {
        uint8_t bytes[INSN_BYTES_MAX];
        unsigned len = have < INSN_BYTES_MAX ? have : INSN_BYTES_MAX;
        fetch_foreign(v, gpa, bytes, len);
        *one = single(v, mode, lin, bytes, len);
        if (limited) {
            check_limit(v, (*one)->len);
        }
        return NULL;
    }
    const uint8_t *at = v->ram->hva + (page << PAGE_SHIFT) + PAGE_OFFSET(gpa);
    if (limited) {
        *one = single(v, mode, lin, at, have);
        check_limit(v, (*one)->len);
        return NULL;
    }
    if (is_full(b, b->max)) {
        make_room(v, b);
    }
    struct block *block = build(v, mode, gpa, at, have, page);
    if (block == NULL) {
        *one = single(v, mode, lin, at, have);
    }
    return block;
}

struct block *block_of(const struct insn *first)
{
    return (first->flags & INSN_SINGLE) != 0
               ? NULL
               : (struct block *)(void *)((char *)(uintptr_t)first - offsetof(struct block, insns));
}

const struct insn *block_at(struct vcpu *v, unsigned *n)
{
    uint64_t rip = v->c.rip;
    const struct tlb_entry *e = &v->tlb_code[rip >> PAGE_SHIFT & v->tlb_mask];
    uintptr_t hva = (uintptr_t)e->hva + PAGE_OFFSET(rip);
    struct jump *j = jump_at(v->blocks, hva);
    const struct insn *one;

    /* In user mode and in supervisor mode alike: the tag has said that RIP may be fetched from. */
    if (PLX_UNLIKELY(e->xtag != PAGE_BASE(rip) || j->hva != hva ||
                     (j->key ^ v->code_key) > CODE_USER)) {
        struct block *block = find(v, &one);
        if (block == NULL) {
            *n = 1;
            return one;
        }
        if (code_kind(v) == CODE_NOT_64) {
            *n = block->n;
            return block->insns;
        }
        /* finding may have dropped others, and moved what is at RIP and where that is kept */
        e = &v->tlb_code[rip >> PAGE_SHIFT & v->tlb_mask];
        hva = (uintptr_t)e->hva + PAGE_OFFSET(rip);
        j = jump_at(v->blocks, hva);
        *j = (struct jump){hva, v->code_key, block};
    }
    *n = j->block->n;
    return j->block->insns;
}
