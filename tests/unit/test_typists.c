/* SPDX-License-Identifier: Apache-2.0
 * Hunts: bytes typed at a console that a takeover loses, doubles or puts out of order, whoever else
 * types; a session that is never told that it may type on; nonsense of a polluxd that is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "base/prng.h"
#include "ops/replica/typists.h"
#include "tests/unit/amount.h"

enum { ALICE = 11, BOB = 12, SESSIONS = 3, TEXT = 3000, RUNS = 300 };

static struct typists primary, backup;
static struct input_batch batch;

static int setup(void **state)
{
    (void)state;
    memset(&primary, 0, sizeof primary);
    memset(&backup, 0, sizeof backup);
    input_batch_init(&batch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    input_batch_free(&batch);
    return 0;
}

static void hear(struct typists *t, uint64_t session, uint64_t pos, const char *text)
{
    assert_true(typists_hear(t, session, 0, pos, (const uint8_t *)text, strlen(text)));
}

/* The next record of @t, without what was in the last. */
static struct record take(struct typists *t, uint64_t seq)
{
    input_batch_clear(&batch);
    assert_int_equal(typists_take(t, &batch), 0);
    return (struct record){.seq = seq, .ninputs = (uint32_t)batch.n, .inputs = batch.items};
}

static void assert_takes(struct typists *t, uint64_t seq, const char *text)
{
    struct record r = take(t, seq);

    assert_int_equal(r.ninputs, 2);
    assert_int_equal(r.inputs[0].kind, INPUT_CONSOLE_RX);
    assert_int_equal(r.inputs[0].len, strlen(text));
    assert_memory_equal(r.inputs[0].data, text, strlen(text));
    assert_int_equal(r.inputs[1].kind, INPUT_TYPED_BY);
    typists_ran(t, &r);
}

static void assert_told(struct typists *t, uint64_t released, uint64_t session, uint64_t pos)
{
    uint64_t s, p;

    assert_true(typists_must_tell(t, released));
    assert_true(typists_next_told(t, released, &s, &p));
    assert_int_equal(s, session);
    assert_int_equal(p, pos);
}

static void assert_silent(struct typists *t, uint64_t released)
{
    uint64_t s, p;

    assert_false(typists_must_tell(t, released));
    assert_false(typists_next_told(t, released, &s, &p));
}

static void what_is_said_again_is_taken_once(void **state)
{
    (void)state;
    hear(&primary, ALICE, 0, "abc");
    hear(&primary, ALICE, 0, "abcd"); /* instead of what was said before */
    assert_takes(&primary, 1, "abcd");
    assert_int_equal(take(&primary, 2).ninputs, 0);
    hear(&primary, ALICE, 0, "abcdef");
    assert_takes(&primary, 3, "ef");
    hear(&primary, ALICE, 2, "cdefg");
    assert_takes(&primary, 4, "g");
}

/* Not before the outputs of the record are out; and again when it is asked for by repetition. */
static void a_session_is_told_what_is_safe(void **state)
{
    (void)state;
    hear(&primary, ALICE, 0, "abc");
    assert_takes(&primary, 7, "abc");
    assert_silent(&primary, 6);
    assert_told(&primary, 7, ALICE, 3);
    assert_silent(&primary, 7);
    hear(&primary, ALICE, 0, "abc");
    assert_int_equal(take(&primary, 8).ninputs, 0);
    assert_told(&primary, 8, ALICE, 3);
    assert_silent(&primary, 8);
}

/* The backup knows of record 1, not of 2. What comes while it is a backup waits. */
static void a_successor_takes_what_its_records_do_not_carry(void **state)
{
    struct record r;

    (void)state;
    hear(&primary, ALICE, 0, "abc");
    hear(&primary, BOB, 0, "123");
    r = take(&primary, 1);
    assert_int_equal(r.ninputs, 4);
    typists_ran(&primary, &r);
    hear(&backup, ALICE, 0, "abcdef"); /* it is about to take over, and has yet to run it */
    typists_ran(&backup, &r);
    hear(&primary, ALICE, 0, "abcdef");
    assert_takes(&primary, 2, "def");
    assert_takes(&backup, 2, "def");
    hear(&backup, BOB, 0, "123");
    assert_int_equal(take(&backup, 3).ninputs, 0);
    assert_told(&backup, 3, ALICE, 6);
    assert_told(&backup, 3, BOB, 3);
}

/* The one that was quiet for longest goes; when it comes again it goes on where it says. */
static void there_is_no_end_of_sessions(void **state)
{
    (void)state;
    hear(&primary, ALICE, 0, "abc");
    assert_takes(&primary, 1, "abc");
    for (uint64_t i = 0; i < TYPISTS_MAX; i++) {
        hear(&primary, 1000 + i, 0, "x");
        assert_takes(&primary, 2 + i, "x");
    }
    assert_int_equal(primary.n, TYPISTS_MAX);
    hear(&primary, 1000 + TYPISTS_MAX - 1, 0, "x"); /* it is there still */
    assert_int_equal(take(&primary, 900).ninputs, 0);
    hear(&primary, ALICE, 3, "de");
    assert_takes(&primary, 901, "de");
}

static void nonsense_is_refused(void **state)
{
    static const uint8_t bytes[CONSOLE_TYPED_MAX + 1];
    const struct input odd = {.kind = INPUT_TYPED_BY, .arg = 5, .data = bytes, .len = 7};
    const struct record r = {.seq = 1, .ninputs = 1, .inputs = &odd};

    (void)state;
    assert_false(typists_hear(&primary, 0, 0, 0, bytes, 1));
    assert_false(typists_hear(&primary, ALICE, CONSOLE_PORTS, 0, bytes, 1));
    assert_false(typists_hear(&primary, ALICE, 0, 0, bytes, sizeof bytes));
    assert_false(typists_hear(&primary, ALICE, 0, UINT64_MAX - 3, bytes, 4));
    assert_true(typists_hear(&primary, ALICE, 0, 0, NULL, 0));
    typists_ran(&primary, &r);
    assert_int_equal(primary.n, 0);
    assert_true(typists_hear(&primary, ALICE, 0, UINT64_MAX - 4, bytes, 4));
    assert_int_equal(take(&primary, 1).ninputs, 2);
}

/* --- against a model ---------------------------------------------------------------------------
 *
 * Sessions type a text each, byte b of session s being a function of both. A pair runs what they
 * type; messages of both directions get lost; records reach the backup late. At some record the
 * primary dies, and the backup runs those that reached it. What its VM got must be each text,
 * without a gap or a byte twice. */

static uint8_t text_byte(unsigned s, uint64_t i)
{
    return (uint8_t)(i * 31 + s * 7 + i / 256);
}

struct model {
    struct prng rng;
    uint64_t safe[SESSIONS], typed[SESSIONS]; /* of each session */
    uint64_t got[SESSIONS];                   /* by the VM of the survivor */
};

static bool chance(struct model *m, unsigned percent)
{
    return prng_u64(&m->rng) % 100 < percent;
}

static void type(struct model *m, struct typists *t)
{
    for (unsigned s = 0; s < SESSIONS; s++) {
        uint8_t bytes[CONSOLE_TYPED_MAX];
        uint64_t limit = m->safe[s] + CONSOLE_TYPED_MAX;

        if (chance(m, 50)) {
            m->typed[s] += prng_u64(&m->rng) % 200;
        }
        m->typed[s] = m->typed[s] < limit ? m->typed[s] : limit;
        m->typed[s] = m->typed[s] < TEXT ? m->typed[s] : TEXT;
        for (uint64_t i = m->safe[s]; i < m->typed[s]; i++) {
            bytes[i - m->safe[s]] = text_byte(s, i);
        }
        if (chance(m, 70)) {
            assert_true(
                typists_hear(t, s + 1, 0, m->safe[s], bytes, (size_t)(m->typed[s] - m->safe[s])));
        }
    }
}

static void listen(struct model *m, struct typists *t, uint64_t released)
{
    uint64_t session, pos;

    while (typists_next_told(t, released, &session, &pos)) {
        assert_in_range(session, 1, SESSIONS);
        assert_true(pos <= m->typed[session - 1]);
        if (chance(m, 70) && pos > m->safe[session - 1]) {
            m->safe[session - 1] = pos;
        }
    }
}

/* What a record brings: bytes, then whose. */
static void run_record(struct model *m, const struct record *r)
{
    for (uint32_t i = 0; i < r->ninputs; i += 2) {
        uint64_t session;

        assert_int_equal(r->inputs[i].kind, INPUT_CONSOLE_RX);
        assert_int_equal(r->inputs[i + 1].kind, INPUT_TYPED_BY);
        memcpy(&session, r->inputs[i + 1].data, sizeof session);
        for (uint32_t k = 0; k < r->inputs[i].len; k++) {
            assert_int_equal(r->inputs[i].data[k],
                             text_byte((unsigned)session - 1, m->got[session - 1]));
            m->got[session - 1]++;
        }
        assert_int_equal(r->inputs[i + 1].arg, m->got[session - 1]);
    }
}

enum { DEATH_MAX = 60 };

static void run_model(uint64_t seed)
{
    struct model m = {0};
    struct input_batch sealed[DEATH_MAX];
    uint64_t n, received = 0, ran = 0;

    prng_seed(&m.rng, seed);
    memset(&primary, 0, sizeof primary);
    memset(&backup, 0, sizeof backup);
    uint64_t death = prng_u64(&m.rng) % DEATH_MAX;
    for (n = 1; n <= death; n++) {
        type(&m, &primary);
        input_batch_init(&sealed[n - 1]);
        assert_int_equal(typists_take(&primary, &sealed[n - 1]), 0);
        struct record r = {
            .seq = n, .ninputs = (uint32_t)sealed[n - 1].n, .inputs = sealed[n - 1].items};
        typists_ran(&primary, &r);
        received += prng_u64(&m.rng) % 3;
        received = received < n ? received : n;
        listen(&m, &primary, received);
    }
    for (; ran < received || m.got[0] < TEXT || m.got[1] < TEXT || m.got[2] < TEXT; ran++) {
        bool old = ran < received;
        struct record r;

        assert_true(ran < 10000);
        type(&m, &backup);
        if (old) {
            r = (struct record){
                .ninputs = (uint32_t)sealed[ran].n, .inputs = sealed[ran].items, .seq = ran + 1};
        } else {
            r = take(&backup, ran + 1);
        }
        run_record(&m, &r);
        typists_ran(&backup, &r);
        if (!old) {
            listen(&m, &backup, ran + 1);
        }
    }
    for (n = 0; n < death; n++) {
        input_batch_free(&sealed[n]);
    }
}

static void every_byte_enters_the_survivor_once(void **state)
{
    uint64_t seed = from_env("SEED", clock_wall_ns() / 1000 % 1000000);

    (void)state;
    print_message("SEED=%llu\n", (unsigned long long)seed);
    for (unsigned i = 0; i < RUNS; i++) {
        run_model(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_said_again_is_taken_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_is_told_what_is_safe, setup, teardown),
        cmocka_unit_test_setup_teardown(a_successor_takes_what_its_records_do_not_carry, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(there_is_no_end_of_sessions, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_byte_enters_the_survivor_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
