/* SPDX-License-Identifier: Apache-2.0
 * storage/segment.c - sets of segment names (segment.h): open addressing, never more than half
 * full. */
#include "storage/segment.h"

#include "base/alloc.h"

enum { SET_FIRST = 1024 };

static size_t place(const struct seg_set *s, const struct seg_id *id)
{
    size_t at = seg_id_hash(id) & (s->cap - 1);

    while (s->used[at] && !seg_id_eq(&s->slots[at], id)) {
        at = (at + 1) & (s->cap - 1);
    }
    return at;
}

static int grow(struct seg_set *s)
{
    struct seg_set bigger = {.n = s->n, .cap = s->cap == 0 ? SET_FIRST : 2 * s->cap};

    bigger.slots = plx_calloc(bigger.cap, sizeof *bigger.slots);
    bigger.used = plx_calloc(bigger.cap, 1);
    if (bigger.slots == NULL || bigger.used == NULL) {
        plx_free(bigger.slots);
        plx_free(bigger.used);
        return PLX_ENOMEM;
    }
    for (size_t i = 0; i < s->cap; i++) {
        if (s->used[i]) {
            size_t at = place(&bigger, &s->slots[i]);
            bigger.slots[at] = s->slots[i];
            bigger.used[at] = 1;
        }
    }
    seg_set_free(s);
    *s = bigger;
    return 0;
}

int seg_set_add(struct seg_set *s, const struct seg_id *id)
{
    if (2 * (s->n + 1) > s->cap && grow(s) != 0) {
        return PLX_ENOMEM;
    }
    size_t at = place(s, id);
    s->n += !s->used[at];
    s->slots[at] = *id;
    s->used[at] = 1;
    return 0;
}

bool seg_set_has(const struct seg_set *s, const struct seg_id *id)
{
    return s->cap != 0 && s->used[place(s, id)];
}

void seg_set_free(struct seg_set *s)
{
    plx_free(s->slots);
    plx_free(s->used);
    *s = (struct seg_set){0};
}
