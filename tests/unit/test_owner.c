/* SPDX-License-Identifier: Apache-2.0
 * Ownership of pages (vmm/mmu/owner.c): who holds what, who is told, what is contended. The
 * exhaustive enumeration of the protocol is tests/sim/test_owner_model.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/prng.h"
#include "vmm/mmu/owner.h"
#include "vmm/tunables.h"

enum { PAGES = 8, VCPUS = 3 };

/* What each vCPU believes to have, as revoke tells it. */
struct fixture {
    struct owner *o;
    unsigned rights[VCPUS][PAGES];
};

static void on_revoke(void *ctx, unsigned vcpu, uint64_t page, bool all)
{
    struct fixture *t = ctx;

    t->rights[vcpu][page] &= all ? 0 : (unsigned)OWNER_R;
}

static const struct owner_ops ops = {on_revoke};

static int setup(void **state)
{
    static struct fixture t;

    memset(&t, 0, sizeof t);
    *state = &t;
    return owner_create(PAGES, VCPUS, &ops, &t, &t.o, NULL);
}

static int teardown(void **state)
{
    owner_destroy(((struct fixture *)*state)->o);
    return 0;
}

static unsigned serial(struct fixture *t, uint64_t page, unsigned vcpu, enum owner_right want)
{
    unsigned got = owner_serial(t->o, page, vcpu, want);

    t->rights[vcpu][page] = got;
    return got;
}

/* At most one writer, and then no other reader; beliefs never exceed the map. */
static void check(const struct fixture *t)
{
    for (uint64_t page = 0; page < PAGES; page++) {
        unsigned readers = 0, writers = 0;
        for (unsigned i = 0; i < VCPUS; i++) {
            unsigned r = t->rights[i][page];
            readers += (r & OWNER_R) != 0;
            writers += (r & OWNER_W) != 0;
            assert_true((r & OWNER_R) == 0 || owner_may_read(t->o, page, i));
            assert_true((r & OWNER_W) == 0 || owner_may_write(t->o, page, i));
        }
        assert_true(writers == 0 || (writers == 1 && readers == 1));
    }
}

static void at_first_all_may_read_and_none_may_write(void **state)
{
    struct fixture *t = *state;

    for (unsigned i = 0; i < VCPUS; i++) {
        assert_true(owner_may_read(t->o, 0, i));
        assert_false(owner_may_write(t->o, 0, i));
    }
}

static void a_write_takes_the_page_and_a_read_shares_it(void **state)
{
    struct fixture *t = *state;

    assert_int_equal(serial(t, 1, 0, OWNER_R), OWNER_R);
    assert_int_equal(serial(t, 1, 1, OWNER_W), OWNER_R | OWNER_W);
    assert_int_equal(t->rights[0][1], 0);
    assert_false(owner_may_read(t->o, 1, 0));
    assert_int_equal(serial(t, 1, 0, OWNER_R), OWNER_R);
    assert_int_equal(t->rights[1][1], OWNER_R);
    check(t);
}

/* A page two vCPUs write in turn ends up shared, written in place. */
static void a_contended_page_stays_shared(void **state)
{
    struct fixture *t = *state;
    unsigned moves = 0;

    while (serial(t, 2, moves % 2, OWNER_W) == (OWNER_R | OWNER_W)) {
        assert_true(++moves < 100);
    }
    assert_int_equal(moves, OWNER_HOT);
    assert_int_equal(t->o->counters.in_place, 1);
    for (unsigned i = 0; i < VCPUS; i++) {
        assert_true(owner_may_read(t->o, 2, i));
        assert_false(owner_may_write(t->o, 2, i));
    }
    check(t);
}

/* One spell in which the vCPUs of @mask write page 2, some more often than others. */
static void spell(struct fixture *t, unsigned mask)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        for (unsigned n = 0; (mask >> i & 1) != 0 && n <= i; n++) {
            assert_int_equal(serial(t, 2, i, OWNER_W), OWNER_R | OWNER_NOW);
        }
    }
    owner_settle(t->o);
    check(t);
}

/* What counts is in how many spells in a row one vCPU alone wrote it, not how often. */
static void a_contended_page_cools_when_one_writes_alone(void **state)
{
    struct fixture *t = *state;

    for (unsigned i = 0; serial(t, 2, i % 2, OWNER_W) == (OWNER_R | OWNER_W); i++) {
        assert_true(i < 100);
    }
    owner_settle(t->o);
    for (unsigned i = 0; i < OWNER_COOL - 1; i++) {
        spell(t, 4);
    }
    spell(t, 6); /* another one too: from the beginning */
    for (unsigned i = 0; i < OWNER_COOL - 1; i++) {
        spell(t, 4);
    }
    spell(t, 2); /* another one instead */
    for (unsigned i = 0; i < OWNER_COOL - 1; i++) {
        spell(t, 4);
        assert_false(owner_may_write(t->o, 2, 2));
        owner_settle(t->o); /* a spell without a write breaks no row */
    }
    spell(t, 4);
    assert_true(owner_may_write(t->o, 2, 2));
    assert_int_equal(t->o->counters.cooled, 1);
    assert_int_equal(serial(t, 2, 2, OWNER_W), OWNER_R | OWNER_W);
    check(t);
}

static void on_no_revoke(void *ctx, unsigned vcpu, uint64_t page, bool all)
{
    (void)ctx;
    (void)vcpu;
    (void)page;
    (void)all;
}

/* A guest may write as many contended pages in a spell as it has: no memory is asked for then. */
static void a_long_spell_needs_no_memory(void **state)
{
    enum { MANY = 5000 };
    static const struct owner_ops none = {on_no_revoke};
    struct owner *o;

    (void)state;
    assert_int_equal(owner_create(MANY, 2, &none, NULL, &o, NULL), 0);
    for (uint64_t page = 0; page < MANY; page++) {
        for (unsigned i = 0; owner_serial(o, page, i % 2, OWNER_W) == (OWNER_R | OWNER_W); i++) {
            assert_true(i < 100);
        }
        owner_settle(o);
    }
    plx_heap_fail_at(0);
    for (uint64_t page = 0; page < MANY; page++) {
        assert_int_equal(owner_serial(o, page, 0, OWNER_W), OWNER_R | OWNER_NOW);
    }
    plx_heap_fail_never();
    assert_int_equal(o->nwritten, MANY);
    owner_settle(o);
    assert_int_equal(o->nwritten, 0);
    owner_destroy(o);
}

static void random_accesses_keep_one_writer_or_many_readers(void **state)
{
    struct fixture *t = *state;
    struct prng rng;

    prng_seed(&rng, 20260101);
    for (unsigned n = 0; n < 100000; n++) {
        enum owner_right want = prng_below(&rng, 3) == 0 ? OWNER_W : OWNER_R;
        unsigned got = serial(t, prng_below(&rng, PAGES), (unsigned)prng_below(&rng, VCPUS), want);
        assert_true((got & OWNER_R) != 0);
        if (prng_below(&rng, 5) == 0) {
            owner_settle(t->o);
        }
        check(t);
    }
}

static void the_section_holds_all_of_it(void **state)
{
    struct fixture *t = *state;
    struct owner_page before[PAGES];
    uint16_t wrote[PAGES];
    struct wbuf w;
    struct rbuf r;
    struct prng rng;

    prng_seed(&rng, 7);
    for (unsigned n = 0; n < 500; n++) {
        (void)serial(t, prng_below(&rng, PAGES), (unsigned)prng_below(&rng, VCPUS),
                     prng_below(&rng, 2) == 0 ? OWNER_W : OWNER_R);
        if (n % 3 == 0 && n < 490) {
            owner_settle(t->o);
        }
    }
    assert_true(t->o->nwritten > 1); /* in the middle of a spell */
    wbuf_init(&w);
    owner_section_ops.save(t->o, &w);
    memcpy(before, t->o->pages, sizeof before);
    memcpy(wrote, t->o->wrote, sizeof wrote);
    uint64_t spell = t->o->spell;
    owner_section_ops.reset(t->o);
    assert_int_not_equal(t->o->spell, spell); /* nobody stays fast by what was before */
    assert_memory_not_equal(before, t->o->pages, sizeof before);
    assert_memory_not_equal(wrote, t->o->wrote, sizeof wrote);
    rbuf_init(&r, w.data, w.len);
    assert_int_equal(owner_section_ops.load(t->o, &r, OWNER_SECTION_VERSION, NULL), 0);
    assert_int_equal(rbuf_left(&r), 0);
    assert_memory_equal(before, t->o->pages, sizeof before);
    assert_memory_equal(wrote, t->o->wrote, sizeof wrote);
    for (size_t len = 0; len < w.len; len++) {
        rbuf_init(&r, w.data, len);
        assert_int_not_equal(owner_section_ops.load(t->o, &r, OWNER_SECTION_VERSION, NULL), 0);
    }
    wbuf_free(&w);
}

static void hostile_sections_are_refused(void **state)
{
    enum {
        EAGER,
        NPAGES,
        RUN,
        HOLDER,
        HEAT,
        WRITER,
        STREAK,
        NWRITTEN,
        PAGE,
        WROTE,
        WROTE_HIGH,
        END
    };
    static const uint8_t good[END] = {0, PAGES, PAGES, 0, OWNER_HOT, 1, 1, 1, 2, 3, 0};
    static const struct {
        unsigned at;
        uint8_t value;
    } bad[] = {{EAGER, 2},
               {NPAGES, PAGES + 1},
               {RUN, PAGES + 1},
               {RUN, 0},
               {HOLDER, VCPUS + 1},
               {HOLDER, 1}, /* and written in place */
               {HEAT, OWNER_HOT + 1},
               {HEAT, OWNER_HOT - 1}, /* likewise */
               {WRITER, VCPUS + 1},
               {STREAK, OWNER_COOL},
               {NWRITTEN, PAGES + 1},
               {PAGE, PAGES},
               {WROTE, 0},
               {WROTE, 1 << VCPUS},
               {WROTE_HIGH, 0x80}};
    struct fixture *t = *state;
    struct rbuf r;

    rbuf_init(&r, good, sizeof good);
    assert_int_equal(owner_section_ops.load(t->o, &r, OWNER_SECTION_VERSION, NULL), 0);
    for (size_t i = 0; i < PLX_COUNT(bad); i++) {
        uint8_t section[END];
        memcpy(section, good, sizeof section);
        section[bad[i].at] = bad[i].value;
        rbuf_init(&r, section, sizeof section);
        assert_int_not_equal(owner_section_ops.load(t->o, &r, OWNER_SECTION_VERSION, NULL), 0);
    }
    static const uint8_t twice[] = {0, PAGES, PAGES, 0, OWNER_HOT, 1, 1, 2, 2, 3, 0, 2, 3, 0};
    rbuf_init(&r, twice, sizeof twice);
    assert_int_not_equal(owner_section_ops.load(t->o, &r, OWNER_SECTION_VERSION, NULL), 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(at_first_all_may_read_and_none_may_write),
        TEST(a_write_takes_the_page_and_a_read_shares_it),
        TEST(a_contended_page_stays_shared),
        TEST(a_contended_page_cools_when_one_writes_alone),
        cmocka_unit_test(a_long_spell_needs_no_memory),
        TEST(random_accesses_keep_one_writer_or_many_readers),
        TEST(the_section_holds_all_of_it),
        TEST(hostile_sections_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
